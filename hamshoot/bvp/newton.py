"""The damped Newton iteration of `bvp.solve`: globalisation and Krylov solves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.mesh import Mesh, Point, Stop
from hamshoot.bvp.records import BVPIteration, BVPResult, BVPStatus, Preconditioner
from hamshoot.bvp.staircase import StaircaseFactor

_CUTS = 2  # of the most nonlinear segments, without an accepted step in between
_MOST_NUMBERS = 5e7  # of Φ; beyond, an inexact correction has to do
_NOISE = 1e-6  # corrections below this that stop shrinking are put down to the flow's accuracy
_NEARLY_SINGULAR = 1e-10  # reciprocal condition number that explains a failure


@dataclass
class _Step:
    """What a damped step came to."""

    point: Point | None  # the accepted iterate, None if no λ passed
    simplified: NDArray | None  # (M, n), simplified correction there
    damping: float
    level: float  # its norm
    nonlinearity: NDArray  # (S,), remainder of each segment at the first λ where it is finite


@dataclass
class Newton:
    """Options, steps and state of one solve."""

    mesh: Mesh
    tol: float
    min_damping: float
    fixed_scale: NDArray | None
    reuse: bool
    preconditioner: Callable[[NDArray, NDArray], Preconditioner] | None
    callback: Callable[[BVPIteration], Any] | None
    start: float = field(default_factory=time.perf_counter)
    history: list[BVPIteration] = field(default_factory=list)
    factor: StaircaseFactor | None = None
    growth: float = np.nan  # largest, where Φ was last formed
    rcond: float = np.nan  # of the last factorisation of Φ
    best: tuple[float, Point | None] = (np.inf, None)  # smallest Newton correction so far
    latest: tuple[float, Point | None] = (np.inf, None)  # accepted, Newton correction not known

    def solve(self, t: NDArray, y: NDArray, max_iter: int, jacobians: bool) -> BVPResult:
        """Iterate to whatever end, then gather the result."""
        status, detail = BVPStatus.CONVERGED, ""
        try:
            self._iterate(t, y, max_iter)
        except Stop as stop:
            status, detail = stop.status, stop.detail
        correction, point = self.latest if self.latest[0] < self.best[0] else self.best
        assert point is not None  # `_iterate` sets it first of all
        phi = None
        if jacobians:
            self.mesh.deadline, phi = np.inf, point.phi
            if phi is None:
                phi = self.mesh.integrate(point.t[:-1], point.t[1:], point.y[:-1], True)[1]
        return BVPResult(
            t=point.t, y=point.y, success=status is BVPStatus.CONVERGED, status=status,
            message=f"{status.value} {detail}".strip(), nit=len(self.history),
            correction=float(correction), defects=point.defects, boundary=point.g, jacobians=phi,
            history=tuple(self.history), seconds=time.perf_counter() - self.start,
        )  # fmt: skip

    # ------------------------------------------------------------------ the iteration

    def _iterate(self, t: NDArray, y: NDArray, max_iter: int) -> None:
        """Return when converged, raise `Stop` otherwise."""
        ends = np.full((t.size - 1, y.shape[1]), np.nan)  # until it is linearised
        point = Point(t, y, ends, None, *self.mesh.ends(y))
        self.best = (np.inf, point)
        last = None  # Newton correction and step of the iteration before, if on the same mesh
        cuts = 0  # since the last accepted step
        for _ in range(max_iter):
            nodes = point.t.size
            scale = self._scale(point.y)
            point, system, correction = self._newton_system(point, scale)
            if point.t.size > nodes:
                last = None
            size = _norm(correction, scale)
            if size <= self.best[0]:
                self.best = (size, point)
            self.latest = (np.inf, None)
            step = self._damped_step(point, system, correction, scale, last)
            reason = None
            if step.point is not None:
                inserted, end, last, cuts = point.t.size - nodes, step.point, (correction, step), 0
                self.latest = (step.level, end)
            else:
                cuts += 1
                reason = self._why_failed(point, step, size, cuts)
                end = point if reason else self.mesh.insert(point, self._blame(point, step), scale)
                inserted, last = end.t.size - nodes, None
            stopped = self._record(end, step, size, scale, point.t.size, inserted)
            if reason:
                raise reason
            if self._converged(step, size, scale):
                return
            if stopped:
                raise Stop(BVPStatus.STOPPED)
            point = end
        raise Stop(BVPStatus.ITERATION_LIMIT)

    def _scale(self, y: NDArray) -> NDArray:
        if self.fixed_scale is not None:
            return self.fixed_scale
        return np.maximum(1.0, np.abs(y).max(0))

    def _newton_system(self, point: Point, scale: NDArray) -> tuple[Point, _System, NDArray]:
        """The (possibly cut) iterate, its Newton matrix ready for solves, and the correction."""
        if self.reuse and self.factor is not None and self.factor.nodes == point.t.size:
            system = _System(point, scale, self.factor, self.mesh.products(point))
            correction = system.correction(point)
            if system.accurate:
                return point, system, correction
        if self.preconditioner is not None:
            point = self.mesh.finite(self.mesh.evaluate(point.t, point.y), scale)
            solver = self.preconditioner(point.t, point.y)
            system = _System(point, scale, solver, self.mesh.products(point))
            correction = system.correction(point)
            if system.accurate or point.y.size * point.g.size > _MOST_NUMBERS:
                return point, system, correction
        point, self.growth = self.mesh.linearised(point, scale)
        if self.best[0] == np.inf:
            self.best = (np.inf, point)
        assert point.phi is not None
        self.factor = StaircaseFactor(point.phi, point.ga, point.gb, scale)
        self.rcond = self.factor.rcond
        if not self.rcond > 10 * point.g.size * np.finfo(float).eps:
            if self.growth > self.mesh.growth_limit:
                raise Stop(BVPStatus.NODE_LIMIT, f"A segment grows by {self.growth:.1e}.")
            raise Stop(BVPStatus.SINGULAR, _conditioning(self.rcond))
        system = _System(point, scale, self.factor, None)
        return point, system, system.correction(point)

    def _damped_step(
        self,
        point: Point,
        system: _System,
        correction: NDArray,
        scale: NDArray,
        last: tuple[NDArray, _Step] | None,
    ) -> _Step:
        """The step λ·correction that passes the restricted monotonicity test, with its λ."""
        size = _norm(correction, scale)
        damping = 1.0 if size <= self.tol else _predicted_damping(correction, scale, last)
        damping = max(damping, self.min_damping)
        nonlinearity, reduced, raised = None, False, False
        while damping >= self.min_damping:
            trial = self.mesh.evaluate(point.t, point.y + damping * correction)
            if nonlinearity is None or nonlinearity.max() == np.inf:
                nonlinearity = _nonlinearity(point, trial, damping, scale)
            if not trial.finite.all() or not np.isfinite(trial.g).all():
                damping, reduced = damping / 4, True
                continue
            simplified = system.correction(trial)
            level = _norm(simplified, scale)
            step = _Step(trial, simplified, damping, level, nonlinearity)
            if damping == 1 and level <= self.tol:
                return step  # if size is no larger either, rounding decides which of them is
            # λ that would minimise the bound of the level, from the measured nonlinearity.
            deviation = _norm(simplified - (1 - damping) * correction, scale)
            optimal = 0.5 * size * damping**2 / deviation if deviation > 0 else np.inf
            if not level <= (1 - damping / 4) * size:
                damping, reduced = min(optimal, damping / 2), True
            elif not (reduced or raised) and min(1.0, optimal) >= 4 * damping:
                damping, raised = min(1.0, optimal), True
            else:
                return step
        assert nonlinearity is not None  # one λ at least was tried
        return _Step(None, None, 0.0, np.inf, nonlinearity)

    def _converged(self, step: _Step, size: float, scale: NDArray) -> bool:
        """Whether the step ends the solve; raise if it shows that nothing more can be gained."""
        if step.point is None or step.damping < 1 or step.level > self.tol:
            return False
        if max(step.point.residuals(scale)) <= self.mesh.growth_limit * self.tol:
            return True
        if step.level > 0.5 * size:
            defect, boundary = step.point.residuals(scale)
            raise Stop(
                BVPStatus.ACCURACY_LIMIT,
                f"Scaled defect {defect:.1e}, boundary residual {boundary:.1e}.",
            )
        return False

    def _record(
        self, point: Point, step: _Step, size: float, scale: NDArray, nodes: int, inserted: int
    ) -> bool:
        """Add to the history; whether the callback wants to stop."""
        defect, boundary = point.residuals(scale)
        before, order = self.history, np.nan
        full = len(before) > 1 and before[-1].damping == before[-2].damping == 1
        if full and before[-1].inserted == inserted == 0:
            c0, c1 = before[-2].correction, before[-1].correction
            with np.errstate(divide="ignore", invalid="ignore"):
                order = float(np.log(size / c1) / np.log(c1 / c0))
        record = BVPIteration(
            iteration=len(before) + 1, nodes=nodes, correction=size,
            simplified=step.level, damping=step.damping, order=order, defect=defect,
            boundary=boundary, growth=self.growth, rcond=self.rcond, inserted=inserted,
            flows=self.mesh.flows, seconds=time.perf_counter() - self.start,
        )  # fmt: skip
        self.history.append(record)
        return self.callback is not None and self.callback(record) is True

    # ------------------------------------------------------------------ failures

    def _why_failed(self, point: Point, step: _Step, size: float, cuts: int) -> Stop | None:
        """Why no λ passed, if cutting segments is of no use."""
        if self.rcond < _NEARLY_SINGULAR:
            return Stop(BVPStatus.SINGULAR, _conditioning(self.rcond))
        if size <= _NOISE:
            return Stop(BVPStatus.ACCURACY_LIMIT, f"The last correction was {size:.1e}.")
        if cuts > _CUTS or point.t.size >= self.mesh.max_nodes or not step.nonlinearity.max() > 0:
            return Stop(BVPStatus.NO_DESCENT, _conditioning(self.rcond))
        return None

    def _blame(self, point: Point, step: _Step) -> NDArray:
        """Pieces for each segment: 2 for the most nonlinear ones, as far as nodes are left."""
        pieces = np.ones(step.nonlinearity.size, int)
        order = np.argsort(-step.nonlinearity, kind="stable")
        order = order[~(step.nonlinearity[order] < 0.1 * step.nonlinearity.max())]
        pieces[order[: self.mesh.max_nodes - point.t.size]] = 2
        return pieces

class _System:
    """The Newton matrix at an iterate, ready to be solved with.

    With `products` given, `factor` belongs to an earlier iterate, or is approximate, and only
    preconditions GMRES.
    `accurate` says whether the last solve met its tolerance.
    """

    def __init__(
        self,
        point: Point,
        scale: NDArray,
        factor: Preconditioner,
        products: Callable[[NDArray], NDArray] | None,
    ) -> None:
        self.point, self.scale, self.factor, self.products = point, scale, factor, products
        self.accurate = True

    def correction(self, at: Point) -> NDArray:
        """−F′(point)⁻¹ F(at), shape (M, n): Newton's own if `at` is the point, else simplified."""
        start = self.factor.solve(-at.defects, -at.g)
        products = self.products
        if products is None:
            return start
        ga, gb, scale = self.point.ga, self.point.gb, self.scale

        def preconditioned(x: NDArray) -> NDArray:
            v = x.reshape(start.shape) * scale
            image = self.factor.solve(products(v[:-1]) - v[1:], ga @ v[0] + gb @ v[-1])
            return (image / scale).ravel()

        x, self.accurate = _gmres(preconditioned, (start / scale).ravel())
        return x.reshape(start.shape) * scale


def _gmres(
    operator: Callable[[NDArray], NDArray], b: NDArray, rtol: float = 1e-7, max_iter: int = 20
) -> tuple[NDArray, bool]:
    """GMRES without restart from 0; the last iterate, and whether ‖b − Ax‖ ≤ rtol ‖b‖.

    `scipy.sparse.linalg.gmres` takes one product more to confirm its residual, where four or five
    do: measured along geodesics of 4 × 8 and 4 × 40 entries, 50 and 59 in place of 40 and 49.
    """
    norm = np.linalg.norm(b)
    if norm == 0 or not np.isfinite(norm):
        return b, norm == 0
    basis, hessenberg = [b / norm], np.zeros((max_iter + 1, max_iter))
    for j in range(max_iter):
        v = operator(basis[j])
        for i in range(j + 1):
            hessenberg[i, j] = basis[i] @ v
            v = v - hessenberg[i, j] * basis[i]
        hessenberg[j + 1, j] = np.linalg.norm(v)
        rhs = np.zeros(j + 2)
        rhs[0] = norm
        small = hessenberg[: j + 2, : j + 1]
        z = np.linalg.lstsq(small, rhs, rcond=None)[0]
        done = np.linalg.norm(small @ z - rhs) <= rtol * norm
        if done or hessenberg[j + 1, j] == 0:
            break
        basis.append(v / hessenberg[j + 1, j])
    return np.sum([c * q for c, q in zip(z, basis, strict=False)], axis=0), bool(done)


def _conditioning(rcond: float) -> str:
    return f"Reciprocal condition number {rcond:.1e}." if np.isfinite(rcond) else ""


def _norm(d: NDArray, scale: NDArray) -> float:
    """Largest |d|/scale over nodes and components."""
    return float(np.abs(d / scale).max())


def _predicted_damping(
    correction: NDArray, scale: NDArray, last: tuple[NDArray, _Step] | None
) -> float:
    """A-priori λ from the nonlinearity seen in the step before (NLEQ-ERR)."""
    if last is None:
        return 1.0
    before, step = last
    assert step.simplified is not None  # of a step that was taken
    deviation = _norm(step.simplified - correction, scale) * _norm(correction, scale)
    if deviation == 0:
        return 1.0
    return min(1.0, _norm(before, scale) * _norm(step.simplified, scale) * step.damping / deviation)


def _nonlinearity(point: Point, trial: Point, damping: float, scale: NDArray) -> NDArray:
    """What each segment's defect has beyond its linear prediction (1 − λ)·defect, shape (S,)."""
    remainder = np.abs((trial.defects - (1 - damping) * point.defects) / scale).max(1)
    return np.where(np.isfinite(remainder), remainder, np.inf)
