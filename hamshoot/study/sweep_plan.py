"""What a sweep is asked for, checked before anything is solved."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hamshoot.problem.maps import check_fixed
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.study.solve import check_method, choose, default_layers
from hamshoot.study.sweep_grid import Grid, changed
from hamshoot.study.sweep_steps import Errand
from hamshoot.support.checks import brief, check_count
from hamshoot.support.options import has_option, with_options

if TYPE_CHECKING:
    from hamshoot.solution.method import Method


def searches(search: Any) -> int:
    """How many points are searched."""
    if search == "all":
        return 2**31
    if isinstance(search, str):
        raise ValueError(f"search: expected a number of points or 'all', got {brief(search)}")
    check_count("search", search, 1)
    return int(search)


def method_of(problem: TrainingProblem, grid: Grid, method: str | Method, layers: int | None,
            options: dict[str, Any]) -> tuple[str | Method, int | None]:
    """The method of all points, and their number of layers."""
    if not isinstance(method, str):
        return method, layers
    widest = problem if "width" not in grid.names else \
        problem.replace(width=grid.axes[grid.names.index("width")][-1])
    if method == "auto":
        method = choose(widest, layers, options)[0]
    if layers is None and method != "indirect":
        deepest = problem if "effective_depth" not in grid.names else problem.replace(
            effective_depth=grid.axes[grid.names.index("effective_depth")][-1])
        layers = default_layers(deepest)
    return method, layers


def check(problem: TrainingProblem, grid: Grid, method: str | Method, layers: int | None,
           options: dict[str, Any]) -> None:
    """Raise ValueError, before any work is done, where a point cannot be solved."""
    check_fixed(problem, "sweep: the steps from point to point are",
                "solve points one after the other, each with initial_guess= the one before")
    first = grid.values(0)
    for name, axis in zip(grid.names, grid.axes, strict=True):
        for value in axis:
            check_method(changed(problem, {**first, name: value}), method, layers, options)


@dataclass(frozen=True)
class Plan:
    """One call of `sweep`, checked."""

    problem: TrainingProblem
    grid: Grid
    method: str | Method
    layers: int | None
    options: dict[str, Any]
    folds: bool
    roots: list[int]
    settings: dict[str, Any]
    predictor: str = "secant"

    def errand(self, number: int, **more: Any) -> Errand:
        """What is to be done for a point."""
        return Errand(self.problem, self.grid.values(number), self.method, self.layers,
                      self.options, folds=self.folds, predictor=self.predictor, **more)

    def elsewhere(self) -> Plan:
        """The same with a thread for each solve, where others make them."""
        if isinstance(self.method, str):
            if self.options.get("workers") is None and has_option(
                    check_method(self.problem, self.method, self.layers, self.options), "workers"):
                return replace(self, options={**self.options, "workers": 1})
        elif has_option(self.method, "workers") and getattr(self.method, "workers", 1) is None:
            return replace(self, method=with_options(self.method, workers=1))
        return self


def in_order(roots: Sequence[int], after: Mapping[int, list[int]]) -> list[bool]:
    """Of every solve of the forest, in order, whether it is a search."""
    queue, kinds = deque((root, True) for root in roots), []
    while queue:
        number, search = queue.popleft()
        kinds.append(search)
        queue.extend((child, False) for child in after.get(number, []))
    return kinds


def can_search_far(errand: Errand) -> bool:
    """Whether the walks of a search can be made by a cluster."""
    return isinstance(errand.method, str) and has_option(
        check_method(errand.problem, errand.method, errand.layers, errand.options), "workers")
