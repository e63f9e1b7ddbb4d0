"""The damped Newton iteration for two-point boundary value problems; one for every linear algebra.

An iteration takes a linearisation at the iterate, new or kept, and its correction Δy; goes to
y + λΔy, where the *simplified* correction −F′⁻¹F(y + λΔy) of the same linearisation says how far
that is from a solution (the natural level function of P. Deuflhard, *Newton Methods for Nonlinear
Problems*, Springer 2004); and has the mesh cut where that does not help. Two parts are exchanged:

* a `LinearAlgebra` makes linearisations, exact ones (`hamshoot.bvp.linear_algebra`) or those of a
  model that is cheaper to factor; residuals are those of the flow in any case;
* `Rules` choose λ, say whether a linearisation is kept, and judge what a step came to:
  `hamshoot.bvp.rules.ErrorOriented` for exact ones, `hamshoot.bvp.rules.Chord` for models.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.mesh import End, Mesh, Point, Stop
from hamshoot.bvp.records import BVPIteration, BVPStatus, Preconditioner


class LinearAlgebra(Protocol):
    """What makes linearisations; `growth` and `rcond` as in `BVPIteration`, nan if not known."""

    growth: float
    rcond: float

    def linearise(self, point: Point, scale: NDArray) -> tuple[Point, Preconditioner, NDArray]:
        """The iterate, integrated and on a finer mesh if it needs one; F′; the correction.

        Raises
        ------
        Stop
            Where there is none, with the reason.
        """
        ...


@dataclass
class Step:
    """What an iteration came to: a step λ·(correction) from `start`, or none."""

    start: Point
    scale: NDArray  # (n,)
    correction: NDArray  # (M, n), at the start
    fresh: bool  # whether the linearisation is that of the start
    size: float = np.nan  # norm of the correction
    trial: tuple[Point, float] | None = None  # the first that was finite, and its λ
    end: Point | None = None  # the accepted iterate, None if no λ passed
    simplified: NDArray | None = None  # (M, n), simplified correction there
    damping: float = 0.0
    level: float = np.inf  # norm of the simplified correction
    residuals: tuple[float, float] = (np.nan, np.nan)  # scaled defect and boundary, at the end

    def __post_init__(self) -> None:
        self.size = self.norm(self.correction)

    def norm(self, d: NDArray) -> float:
        """Largest |d|/scale over nodes and components."""
        return float(np.abs(d / self.scale).max())

    @property
    def full(self) -> bool:
        """Whether it was taken undamped."""
        return self.damping == 1


class Rules(ABC):
    """How a solve is steered. These defaults linearise in each step."""

    least: float  # λ below which a step is given up

    def move(self, step: Step) -> NDArray:
        """The direction of the step (M, n): the correction, or what is better."""
        return step.correction

    @abstractmethod
    def first(self, step: Step) -> float:
        """The λ to begin with."""

    @abstractmethod
    def following(
        self, step: Step, damping: float, simplified: NDArray | None, level: float
    ) -> float | None:
        """The λ after this one; None to take it. The trial was not finite if `simplified` is."""

    def keep(self, step: Step) -> bool:
        """Whether the linearisation serves the next step too, which begins with `simplified`."""
        return False

    @abstractmethod
    def judge(self, step: Step, newton: Newton) -> End | NDArray | None:
        """An end, CONVERGED among them; or pieces (S,) to cut each segment into; or go on."""


@dataclass
class Newton:
    """One solve, and where it is.

    Parameters
    ----------
    mesh : Mesh
    algebra : LinearAlgebra
    rules : Rules
    scale : callable
        The unit (n,) of every norm, from states (M, n).
    tol : float
    callback : callable, optional
        Called with the record and the iterate after each iteration; True stops, and it may raise.

    Attributes
    ----------
    point : Point
        The last iterate.
    best, latest : (float, Point)
        The iterate with the smallest Newton correction; the last accepted one, whose Newton
        correction is not known, with its simplified one.
    history : list of BVPIteration
    """

    mesh: Mesh
    algebra: LinearAlgebra
    rules: Rules
    scale: Callable[[NDArray], NDArray]
    tol: float
    callback: Callable[[BVPIteration, Point], Any] | None = None
    start: float = field(default_factory=time.perf_counter)
    history: list[BVPIteration] = field(default_factory=list)

    def solve(self, t: NDArray, y: NDArray, max_iter: int) -> End:
        """Iterate from nodes t (M,) and states y (M, n) to whatever end, and say which."""
        self.point = self.mesh.given(t, y)
        self.best: tuple[float, Point] = (np.inf, self.point)
        self.latest = self.best
        self.linearisation: Preconditioner | None = None
        try:
            return self._iterate(max_iter)
        except Stop as stop:
            if stop.point is not None and not self.history:
                self.best = (np.inf, stop.point)
            return stop.end

    def _iterate(self, max_iter: int) -> End:
        pieces = None
        for _ in range(max_iter):
            nodes, scale = self.point.t.size, self.scale(self.point.y)
            if pieces is not None:
                self.point = self.mesh.insert(self.point, pieces, scale)
                self.linearisation = None
            step = self._step(scale)
            verdict = self.rules.judge(step, self)
            stopped = self._record(step, step.start.t.size - nodes)
            if isinstance(verdict, End):
                if verdict.status is BVPStatus.CONVERGED:
                    self._take_last_correction()
                return verdict
            if stopped:
                return End(BVPStatus.STOPPED)
            pieces = verdict
        return End(BVPStatus.ITERATION_LIMIT)

    def _step(self, scale: NDArray) -> Step:
        """One step, by the linearisation kept or a new one."""
        fresh = self.linearisation is None
        if self.linearisation is None:
            self.point, self.linearisation, self.correction = \
                self.algebra.linearise(self.point, scale)
        step = Step(self.point, scale, self.correction, fresh)
        if not np.isfinite(step.size):
            raise Stop(BVPStatus.SINGULAR, "The Newton correction is not finite.")
        if step.size <= self.best[0]:
            self.best = (step.size, self.point)
        self.latest = (np.inf, self.point)
        self._damp(step, self.linearisation)
        if step.end is None:
            self.linearisation = None
            if not fresh:  # the old linearisation may be to blame
                return self._step(scale)
        else:
            if not self.rules.keep(step):
                self.linearisation = None
            assert step.simplified is not None  # it is there with the end
            self.point, self.correction = step.end, step.simplified
            self.latest = (step.level, self.point)
        step.residuals = self.mesh.residuals(self.point, self.scale(self.point.y))
        return step

    def _damp(self, step: Step, linearisation: Preconditioner) -> None:
        """Try λ until the rules take one; write it into the step."""
        start, rules, move = step.start, self.rules, self.rules.move(step)
        first = rules.first(step)
        damping = 1.0 if step.size <= self.tol else max(first, rules.least)
        while damping >= rules.least:
            trial = self.mesh.evaluate(start.t, start.y + damping * move)
            finite = trial.finite.all()
            if step.trial is None or (finite and not step.trial[0].finite.all()):
                step.trial = (trial, damping)
            simplified, level = None, np.inf
            if finite and np.isfinite(trial.g).all():
                simplified = linearisation.solve(*trial.lack)
                level = step.norm(simplified)
            # Where the size is no larger than tol either, rounding decides which of them is.
            done = damping == 1 and level <= self.tol
            following = None if done else rules.following(step, damping, simplified, level)
            if following is None:
                step.end, step.simplified = trial, simplified
                step.damping, step.level = damping, level
                return
            damping = following

    def _take_last_correction(self) -> None:
        """Apply a correction that is known already, unless it makes the residual worse."""
        if self.linearisation is None:
            return
        y = self.point.y + self.correction
        after = self.mesh.evaluate(self.point.t, y)
        before = max(self.mesh.residuals(self.point, self.scale(self.point.y)))
        if max(self.mesh.residuals(after, self.scale(y))) <= before:
            self.point = after

    def _record(self, step: Step, inserted: int) -> bool:
        """Add to the history; whether the callback wants to stop."""
        before, order = self.history, np.nan
        full = len(before) > 1 and before[-1].damping == before[-2].damping == 1
        if full and before[-1].inserted == inserted == 0:
            c0, c1 = before[-2].correction, before[-1].correction
            with np.errstate(divide="ignore", invalid="ignore"):
                order = float(np.log(step.size / c1) / np.log(c1 / c0))
        defect, boundary = step.residuals
        record = BVPIteration(
            iteration=len(before) + 1, nodes=step.start.t.size, correction=step.size,
            simplified=step.level, damping=step.damping, order=order, defect=defect,
            boundary=boundary, growth=self.algebra.growth, rcond=self.algebra.rcond,
            inserted=inserted, flows=self.mesh.flows, seconds=time.perf_counter() - self.start,
        )  # fmt: skip
        self.history.append(record)
        return self.callback is not None and self.callback(record, self.point) is True
