"""Natural mistakes in calls of the verbs: a sentence that says what was given, and what to write.

An array for a problem, a solution for a problem, a class for an object: they fail somewhere inside
with an AttributeError on something nobody has heard of, unless the verb looks at what it gets.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.method import Method
from hamshoot.solution.solution import Solution
from hamshoot.support.checks import brief

#: How to make what is missing.
MAKE = "hs.TrainingProblem(X, Y, effective_depth=…, weight_decay=…, width=…)"


def check_problem(verb: str, given: Any) -> None:
    """Raise TypeError, with what to write, unless a verb is given a problem."""
    if isinstance(given, TrainingProblem):
        return
    raise TypeError(f"{verb}: expected a TrainingProblem, got {described(given)}; "
                    f"{_instead_of_problem(verb, given)}")


def check_solution(verb: str, given: Any) -> None:
    """Raise TypeError, with what to write, unless a verb is given a solution."""
    if isinstance(given, Solution):
        return
    hint = instead_of_solution(verb, given) or "; hs.solve(problem) returns one"
    raise TypeError(f"{verb}: expected a Solution, got {described(given)}{hint}")


def check_guess(given: Any) -> None:
    """Raise TypeError for an initial guess that is no network, path or array."""
    if isinstance(given, (str, PathLike)):
        raise TypeError(f"initial_guess: expected a Solution, a network or weights, got "
                        f"{brief(given)}; load it first: hs.Solution.load(path)")
    if isinstance(given, (TrainingProblem, Method, type)):
        raise TypeError("initial_guess: expected a Solution, a network or weights, got "
                        f"{described(given)}")


def check_callback(given: Any) -> None:
    """Raise TypeError unless a callback can be called."""
    if given is not None and not callable(given):
        raise TypeError("callback: expected a function that takes a Record, got "
                        f"{described(given)}")


def wrong_method(given: Any) -> str:
    """The sentence on what is neither the name of a method nor a method object."""
    if isinstance(given, type):
        hint = f"; write hs.{given.__name__}()" if hasattr(given, "solve") else ""
    elif isinstance(given, int) and not isinstance(given, bool):
        hint = f"; a number of layers is written layers={given}"
    elif hasattr(given, "weights"):
        hint = "; a guess is written initial_guess=…"
    elif hasattr(given, "epochs"):
        hint = "; gradient descent is hs.train(problem, optimizer=…)"
    elif getattr(given, "ndim", None) is not None or isinstance(given, list):
        hint = f"; inputs and targets make a problem: {MAKE}"
    else:
        hint = ""
    return f"method: expected a name or a method object, got {described(given)}{hint}"


def wrong_layers(given: Any) -> str:
    """The sentence on a second argument of `compare` that is no number of layers."""
    if isinstance(given, (str, Method, list, tuple)):
        hint = "; a method is written method=…"
    elif isinstance(given, Solution):
        hint = "; solutions side by side are hs.plot.plot_comparison({'first': …, 'second': …})"
    elif getattr(given, "ndim", None) is not None:
        hint = f"; inputs and targets make a problem: {MAKE}"
    else:
        hint = ""
    return f"layers: expected an integer >= 1, got {described(given)}{hint}"


def described(given: Any) -> str:
    """What something is, in few words."""
    kind = type(given)
    if isinstance(given, type):
        return f"the class {given.__name__} itself"
    shape = getattr(given, "shape", None)
    if isinstance(shape, tuple):
        name = "array" if kind.__name__ == "ndarray" else kind.__name__
        return f"{_article(name)} {name} of shape {shape}"
    if given is None or isinstance(given, (str, int, float, PathLike)):
        return brief(given)
    return f"{_article(kind.__name__)} {kind.__name__}"


def _article(name: str) -> str:
    return "an" if name[0] in "aeiouAEIOU" else "a"


def _instead_of_problem(verb: str, given: Any) -> str:
    if isinstance(given, Solution):
        if verb == "solve":
            return ("to go on from a solution write hs.solve(solution.problem, "
                    "initial_guess=solution)")
        return f"write hs.{verb}(solution.problem)"
    if hasattr(given, "problem") and hasattr(given, "rows"):
        return f"write hs.{verb}(comparison.problem)"
    if isinstance(given, (str, PathLike)):
        return ("read the file first: hs.TrainingProblem.from_csv(path, targets=…, "
                "effective_depth=…, weight_decay=…, width=…)")
    if hasattr(given, "columns"):
        return f"take its columns: {MAKE} with X = frame[inputs] and Y = frame[targets]"
    if hasattr(given, "lift") and hasattr(given, "weights"):
        return "to solve on from a network write hs.solve(problem, initial_guess=network)"
    return f"make one first: {MAKE}"


def instead_of_solution(verb: str, given: Any) -> str:
    """What to write where a verb takes solutions; "" where nothing suggests itself."""
    if isinstance(given, TrainingProblem):
        return f"; solve it first: hs.{verb}(hs.solve(problem))"
    if hasattr(given, "rows") and hasattr(given, "best"):
        return f"; choose a row: hs.{verb}(comparison.best.solution)"
    if isinstance(given, (str, PathLike)):
        return f"; load it first: hs.{verb}(hs.Solution.load(path))"
    if isinstance(given, (list, tuple)) and given and isinstance(given[0], Solution):
        return f"; one at a time: hs.{verb}(solution)"
    return ""
