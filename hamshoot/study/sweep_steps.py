"""From one point of a sweep to its neighbour: predictor, shorter steps, switches and folds.

A step begins with what `hamshoot.study.sweep_predictor` makes of the last solutions, and ends in
the solver. It is a continuation of the same branch where the control V = W/L̃ changes little; where
it changes by more than JUMP of itself, or the solve fails, the step is halved, until its 16th part.
What still jumps there is no step along a branch: the branch has ended, at a fold or where it
stopped being a minimum, and the solver has fallen to another one. That is recorded with the
interval of the parameters in which it happened, and the step goes on along the other branch. A
geodesic of a smooth network whose branch has ended is followed through the folds
(`hamshoot.methods.indirect.arclength`), perhaps to the target.

What is here is a function of its arguments alone, so that it can be made anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.indirect.arclength import (
    GeodesicCurve,
    GeodesicPoint,
    can_follow,
    follow_geodesic,
)
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.study.crew import CUT_SHORT
from hamshoot.study.progress import named
from hamshoot.study.solve import solve
from hamshoot.study.sweep_grid import between, changed, told
from hamshoot.study.sweep_predictor import PREDICTORS, Guess, Tangent, predictor, tangent_of
from hamshoot.support.interpolation import interpolate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.solution.method import Method

#: Relative change of V from which a step is too long to be one along a branch.
JUMP = 0.3
#: The shortest step, as a share of the whole, and the most of them.
SHORTEST, MOST_STEPS = 1 / 16, 64
#: Relative differences of J and of V up to which two solutions are the same.
SAME_J, SAME_V = 1e-6, 1e-3
#: Nodes at which controls are compared.
NODES = np.linspace(0, 1, 41)


@dataclass(frozen=True)
class Errand:
    """A point to be solved, and all that its solution depends on.

    Attributes
    ----------
    problem : TrainingProblem
        Of the sweep; the parameters of the points are set in it.
    values : dict
        Parameters of the point.
    method, layers, options
        As of `hamshoot.solve`.
    here, before : Solution or None
        Of the neighbour to go on from, and of the one that that one came from; None to search.
    start, earlier : dict
        Their parameters.
    folds : bool
        Whether geodesics are followed through folds.
    trial : bool
        Whether the point is solved already, and this is to see how far the branch of the neighbour
        goes: where it ends, the rest of the way is one step, and there is no search.
    predictor : str
        As of `hamshoot.sweep`.
    """

    problem: TrainingProblem
    values: dict[str, Any]
    method: str | Method
    layers: int | None
    options: dict[str, Any]
    here: Solution | None = None
    before: Solution | None = None
    start: dict[str, Any] = field(default_factory=dict)
    earlier: dict[str, Any] = field(default_factory=dict)
    folds: bool = True
    trial: bool = False
    predictor: str = "secant"


@dataclass(frozen=True)
class Switch:
    """A place where a step left its branch.

    Attributes
    ----------
    kind : {"fold", "jump", "collapse", "failure"}
        "fold" where the branch was followed through one; "jump" where the solver came to another
        branch although the step was as short as they get; "collapse" where that was the trivial
        solution; "failure" where nothing was found from the branch.
    last, next : dict
        Parameters of the last solution of the branch, and of the next.
    before, after : float
        J at both; None after a failure.
    """

    kind: str
    last: dict[str, Any]
    next: dict[str, Any]
    before: float
    after: float | None

    def __str__(self) -> str:
        after = "nothing was found" if self.after is None else f"{self.after:.6g}"
        return (f"{self.kind} between {told(self.last)} and "
                f"{told({k: v for k, v in self.next.items() if v != self.last[k]})}: J "
                f"{self.before:.6g} → {after}")


@dataclass(frozen=True)
class Arrival:
    """What came of an errand.

    Attributes
    ----------
    solution : Solution
        Of the point.
    begun : str
        "search", "from …", or "search (from …: why)".
    switches : tuple of Switch
        On the way.
    curves : tuple of GeodesicCurve
        Branches that were followed through folds.
    continued : bool
        Whether the solution lies on the branch of the neighbour, as far as steps can tell.
    along : float or None
        J of that branch at the point, whether or not it is the solution; None where it was left.
    steps : int
        Solves on the way.
    seconds : float
    predicted : str
        How the steps that led to the solution began: "tangent", "secant" or "none", or several of
        them in this order; empty where no step did, as for a search.
    """

    solution: Solution
    begun: str
    switches: tuple[Switch, ...] = ()
    curves: tuple[GeodesicCurve, ...] = ()
    continued: bool = False
    along: float | None = None
    steps: int = 1
    seconds: float = 0.0
    predicted: str = ""

    def numbers(self) -> dict[str, Any]:
        """JSON-ready: all but the solution."""
        curves = [{"parameter": curve.parameter, "folds": list(curve.folds),
                   "reason": curve.reason, "points": [list(point) for point in curve.points]}
                  for curve in self.curves]
        return {"begun": self.begun, "switches": [asdict(one) for one in self.switches],
                "curves": curves, "continued": self.continued,
                "along": self.along, "steps": self.steps, "seconds": self.seconds,
                "predicted": self.predicted}

    @classmethod
    def of(cls, solution: Solution, numbers: Mapping[str, Any]) -> Arrival:
        """Inverse of `numbers`."""
        curves = tuple(GeodesicCurve(
            one["parameter"], tuple(GeodesicPoint(*point) for point in one["points"]),
            tuple(one["folds"]), one["reason"]) for one in numbers["curves"])
        return cls(solution, numbers["begun"], tuple(Switch(**one) for one in numbers["switches"]),
                   curves, bool(numbers["continued"]), numbers["along"], int(numbers["steps"]),
                   float(numbers["seconds"]), str(numbers.get("predicted", "")))


def arrive(errand: Errand, callback: Callback | None = None) -> Arrival:
    """Make an errand: a search, or steps from the neighbour, and a search where these fail.

    Parameters
    ----------
    errand : Errand
    callback : callable, optional
        Receives the records of all solves; returning True ends it with the status INTERRUPTED.
    """
    began = time.perf_counter()
    if errand.here is None:
        found = Arrival(_solved(errand, errand.values, None, callback), "search")
    else:
        found = _Steps(errand, callback).made()
    return replace(found, seconds=time.perf_counter() - began)


def followed(solution: Solution, name: str, target: float, time_limit: float | None = None,
             callback: Callback | None = None) -> Arrival:
    """The curve of geodesics from one towards a value of a parameter, as the curve of an arrival.

    Parameters
    ----------
    solution : Solution
        Which is also that of the arrival.
    name, target
        Of the parameter.
    time_limit : float, optional
        Seconds.
    callback : callable, optional
    """
    began = time.perf_counter()
    curve = follow_geodesic(solution, name, target, named(f"curve in {name}", callback), time_limit)
    return Arrival(solution, "followed", (), (curve,), seconds=time.perf_counter() - began)


# -- comparing -------------------------------------------------------------------------------------


def controls(solution: Solution) -> NDArray:
    """V = W/L̃ of a solution: of its layers, or at NODES of a path."""
    V = np.asarray(solution.weights) / solution.problem.effective_depth
    return V if solution.steps is not None else interpolate(np.asarray(solution.p), V, NODES)


def change(a: Solution, b: Solution) -> float:
    """‖V_b − V_a‖ over the larger norm of both; infinite where they have not as many layers."""
    first, second = controls(a), controls(b)
    if first.shape != second.shape:
        return float("inf")
    size = max(np.linalg.norm(first), np.linalg.norm(second))
    return float(np.linalg.norm(second - first) / size) if size > 0 else 0.0


def same(a: Solution, b: Solution) -> bool:
    """Whether two solutions of one problem are the same, to the accuracy of the solvers."""
    return abs(a.objective - b.objective) <= SAME_J * abs(b.objective) and change(a, b) <= SAME_V


def good(solution: Solution) -> bool:
    """Whether a solution is an answer: it succeeded, or is the collapsed one, which is one too."""
    return bool(solution.success) or solution.status is Status.COLLAPSED


def stationary(solution: Solution) -> bool:
    """Whether a branch goes on with it: an answer, or a geodesic above the trivial objective."""
    return good(solution) or solution.status is Status.ABOVE_TRIVIAL


# -- steps -----------------------------------------------------------------------------------------


def _solved(errand: Errand, values: Mapping[str, Any], guess: Solution | None,
            callback: Callback | None) -> Solution:
    method: Any = errand.method  # a name that was checked
    return solve(changed(errand.problem, values), method, layers=errand.layers,
                 initial_guess=guess, callback=named(told(values), callback), **errand.options)


class _Steps:
    """Steps of one errand: where it is, what came before, and how long the next one is."""

    def __init__(self, errand: Errand, callback: Callback | None):
        assert errand.here is not None
        self.errand, self.callback = errand, callback
        self.here, self.at = errand.here, errand.start
        self.before, self.earlier = errand.before, errand.earlier
        self.share, self.length, self.count = 0.0, 1.0, 0
        self.switches: list[Switch] = []
        self.curves: list[GeodesicCurve] = []
        self.reached: Solution | None = None  # by a curve, at the point itself
        self.failed = errand.here  # what came of a step that failed
        self.tangent: tuple[Solution, Tangent | None] | None = None  # of which solution
        self.predicted: list[str] = []

    def made(self) -> Arrival:
        """All steps, or a search where they lead nowhere or to the trivial solution."""
        begun = "from " + told({name: value for name, value in self.errand.start.items()
                                if value != self.errand.values[name]} or self.errand.start)
        why = ""
        while self.share < 1 and not why:
            why = self.step()
            if self.here.status in CUT_SHORT:
                return self._arrival(self.here, begun)
        found = [self.here] if not why else []
        along = None if why or self.switches else self.here.objective
        if self.reached is not None:
            found.append(self.reached)
        if not self.errand.trial and not any(map(self._settled, found)):
            searched = _solved(self.errand, self.errand.values, None, self.callback)
            self.count += 1
            if searched.status in CUT_SHORT:
                return self._arrival(searched, begun)
            found.append(searched)
            why = why or found[0].status.name.lower()
        best = min(found or [self.failed], key=lambda one: (not good(one), one.objective))
        if best is self.reached:
            begun += ", through folds"
        elif best is not self.here and best is not self.failed:
            begun = f"search ({begun}: {why.replace('_', ' ')})"
        return self._arrival(best, begun, along)

    def _settled(self, solution: Solution) -> bool:
        """Whether nothing has to be searched for beside it, as beside a fresh collapse."""
        return bool(solution.success) or (
            solution.status is Status.COLLAPSED and self.errand.here is not None
            and self.errand.here.status is Status.COLLAPSED)

    def _arrival(self, solution: Solution, begun: str, along: float | None = None) -> Arrival:
        stepped = solution is self.here and self.predicted
        return Arrival(solution, begun, tuple(self.switches), tuple(self.curves),
                       along is not None and solution is self.here, along, self.count,
                       predicted=", ".join(sorted(set(self.predicted), key=PREDICTORS.index))
                       if stepped else "")

    def step(self) -> str:
        """One step, halved where it has to be; why there is none, or nothing."""
        share = min(1.0, self.share + self.length)
        values = between(self.errand.start, self.errand.values, share)
        found, how = self._corrected(values)
        if found.status in CUT_SHORT:
            self.here = found
            return ""
        jumped = stationary(found) and self._jumped(found)
        if (jumped or not stationary(found)) and self._may_halve():
            self.length /= 2
            return ""
        if not stationary(found):
            self._leave("failure", values, None)
            self.failed = found
            return found.status.name.lower()
        if jumped:
            self._leave("collapse" if found.status is Status.COLLAPSED else "jump", values,
                        found.objective)
            self.before = None
        else:
            self.before, self.earlier = self.here, self.at
        self.here, self.at, self.share = found, values, share
        self.predicted.append(how)
        self.length = 1.0 if jumped and self.errand.trial else min(2 * self.length, 1.0)
        return ""

    def _may_halve(self) -> bool:
        ended = self.errand.trial and bool(self.switches)
        return self.length > SHORTEST and self.count < MOST_STEPS and not ended

    def _corrected(self, values: dict[str, Any]) -> tuple[Solution, str]:
        """The solution from the predictor, and how that was made."""
        guess = self._guess(values)
        found = _solved(self.errand, values, guess.solution, self.callback)
        self.count += 1
        if self.here.steps is None and not stationary(found) and not self._may_halve() \
                and found.status not in CUT_SHORT:
            # The solver's own way from the geodesic, which may leave its branch, and takes longer.
            found = _solved(self.errand, values, self.here, self.callback)
            self.count += 1
            return found, "none"
        return found, guess.how

    def _guess(self, values: dict[str, Any]) -> Guess:
        """What the solver begins with."""
        how = self.errand.predictor
        before = self.before if how != "none" else None
        tangent = self._tangent_in(values) if how == "tangent" else None
        return predictor(self.here, self.at, before, self.earlier,
                         changed(self.errand.problem, values), values, tangent)

    def _tangent_in(self, values: Mapping[str, Any]) -> Tangent | None:
        """Of the last solution; one for all the steps that are tried from it."""
        if self.tangent is None or self.tangent[0] is not self.here:
            moving = [name for name in values if values[name] != self.at[name]]
            self.tangent = self.here, tangent_of(self.here, moving)
        return self.tangent[1]

    def _jumped(self, found: Solution) -> bool:
        """Whether a solution is no step from here; of two collapsed ones none is."""
        collapsed = Status.COLLAPSED
        return not (found.status is collapsed and self.here.status is collapsed) \
            and change(self.here, found) > JUMP

    def _leave(self, kind: str, values: dict[str, Any], after: float | None) -> None:
        """Record that the branch has ended, and follow it through folds where that is wanted."""
        moving = [name for name in values if values[name] != self.at[name]]
        last, objective = dict(self.at), self.here.objective
        if len(moving) == 1 and self._can_follow(moving[0]):
            name = moving[0]
            # The end is that of the errand: intermediate points are nobody's.
            curve = follow_geodesic(self.here, name, float(self.errand.values[name]),
                                    self.callback, self.errand.options.get("time_limit"))
            if curve.folds:
                kind = "fold"
                self.curves.append(curve)
            if curve.end is not None and stationary(curve.end):
                self.reached = curve.end
        self.switches.append(Switch(kind, last, dict(values), objective, after))

    def _can_follow(self, name: str) -> bool:
        return self.errand.folds and self.here.steps is None and stationary(self.here) \
            and can_follow(self.here.problem, name) and self.reached is None
