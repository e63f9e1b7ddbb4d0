"""One try of `validate`: a network of one λ, L̃ and width, from its neighbour's or by a search."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hamshoot.problem.saved import key as problem_key
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.study.kept_solves import method_key, solution_key, without_who
from hamshoot.study.solve import check_method, solve
from hamshoot.support.journal import key_of
from hamshoot.support.options import has_option

#: Options of the direct methods in a try, unless they are given: no polish, and a stationarity that
#: leaves the error of prediction as it is.
HASTE: dict[str, Any] = {"polish": False, "tol": 1e-3}
#: λ, L̃ and width; a solution, what it began with, and its seconds.
Place: TypeAlias = tuple[float, float, int]
Tried: TypeAlias = tuple[Solution, str, float]


@dataclass(frozen=True)
class Step:
    """A place of the grid, and the one that it goes on from; None for a search."""

    place: Place
    before: Place | None


def rescaled(solution: Solution, effective_depth: float) -> Solution:
    """A layered solution with W/L̃ kept at another L̃: the guess to go on with there.

    ∂A = L̃(−A + (W/L̃)σ̂) then takes the same direction everywhere; with W itself, a larger L̃ leaks
    the representation away, and solves from there collapse. Paths are returned as they are: their
    method follows L̃ itself. Only the weights are those of the guess, states and numbers are not.
    """
    if solution.steps is None or effective_depth == solution.problem.effective_depth:
        return solution
    factor = effective_depth / solution.problem.effective_depth
    return solution.replace(weights=factor * np.asarray(solution.weights))


def tried(part: TrainingProblem, settings: dict[str, Any], step: Step, before: Solution | None,
          far: bool, callback: Callback | None = None) -> Tried:
    """The network of a step, what it began with, and the seconds it took.

    Parameters
    ----------
    part : TrainingProblem
        Of the rows that are trained on.
    settings : dict
        Method, layers and options.
    step : Step
    before : Solution or None
        Of the neighbour that it goes on from.
    far : bool
        Whether others are at work beside: then it takes one thread.
    callback : callable, optional
    """
    began = time.perf_counter()
    problem = changed(part, *step.place)
    guess = None if before is None else rescaled(before, problem.effective_depth)
    options = dict(method_options(settings))
    method, layers = settings["method"], settings["layers"]
    own = check_method(problem, method, layers, options)
    if has_option(own, "polish"):
        options = {**HASTE, **options}
    if far and has_option(own, "workers") and options.get("workers") is None:
        options["workers"] = 1
    solution = solve(problem, method, layers=layers, initial_guess=guess, callback=callback,
                     **options)
    begun = _begun(step)
    # With more decay than a neighbour that collapsed already there is nothing to search for.
    if before is not None and solution.status is Status.COLLAPSED and not (
            before.status is Status.COLLAPSED and step.before is not None
            and step.place[0] > step.before[0]):
        solution = solve(problem, method, layers=layers, callback=callback, **options)
        begun = f"search ({begun} it collapses)"
    return solution, begun, time.perf_counter() - began


def try_key(part: TrainingProblem, settings: dict[str, Any], step: Step, before: Solution | None,
         far: bool) -> str:
    """A key of all that a try depends on."""
    own = {**without_who(settings), "method": method_key(settings["method"])}
    return key_of("try", problem_key(part), own, step.place, step.before, solution_key(before))


def _begun(step: Step) -> str:
    if step.before is None:
        return "search"
    at = 0 if step.before[0] != step.place[0] else 1
    return f"from {('λ', 'L̃')[at]} = {step.before[at]:.3g}"


def changed(problem: TrainingProblem, decay: float, depth: float, width: int) -> TrainingProblem:
    """The problem at another λ, L̃ and width."""
    return problem.replace(weight_decay=decay, effective_depth=depth, width=width)


def method_options(settings: dict[str, Any]) -> dict[str, Any]:
    """Options of the method among settings."""
    return {name: value for name, value in settings.items() if name not in ("method", "layers")}
