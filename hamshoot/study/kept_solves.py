"""Solves of a study that an earlier run has made already, see `hamshoot.support.journal`."""

from __future__ import annotations

from typing import Any

from hamshoot.problem.saved import key as problem_key
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution
from hamshoot.study.crew import CUT_SHORT
from hamshoot.support.journal import current, key_of
from hamshoot.support.options import has_option, with_options

#: Options that say who does the work, on which no result depends.
WHO = ("workers", "executor")


def recall(key: str, problem: TrainingProblem) -> tuple[Solution, dict[str, Any]] | None:
    """Solution and numbers that were kept under a key; None where there are none."""
    kept_by = current()
    if kept_by is None:
        return None
    path = kept_by.directory / f"{key}.solution.npz"
    found = kept_by.recall(key) if path.is_file() else None
    return None if found is None else (Solution.load(path).replace(problem=problem), found[1])


def keep(key: str, solution: Solution, numbers: dict[str, Any]) -> None:
    """Keep a solve that came to its end."""
    kept_by = current()
    if kept_by is not None and solution.status not in CUT_SHORT:
        kept_by.keep(key, {}, numbers, beside=solution.save)


def solution_key(solution: Solution | None) -> str:
    """A key of a guess: the same for what is the same to whoever goes on from it."""
    if solution is None:
        return ""
    states = (solution.steps,) if solution.steps is not None else \
        (solution.representations, solution.momenta)
    return key_of(problem_key(solution.problem), solution.weights, *states, solution.status.name)


def without_who(options: dict[str, Any]) -> dict[str, Any]:
    """Options without those that say who does the work."""
    return {name: value for name, value in options.items() if name not in WHO}


def method_key(method: Any) -> str:
    """A method in words, without who does the work."""
    if isinstance(method, str):
        return method
    own = {name: None for name in WHO if has_option(method, name)}
    return repr(with_options(method, **own))
