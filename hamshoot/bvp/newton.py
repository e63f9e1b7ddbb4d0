"""The damped Newton iteration of `bvp.solve`: globalisation, mesh refinement, Krylov solves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.records import Boundary, BVPIteration, BVPResult, BVPStatus, Flow, Preconditioner
from hamshoot.bvp.staircase import StaircaseFactor

_ROUNDS = 8  # of cutting segments that grow or blow up, before one iteration
_CUTS = 2  # of the most nonlinear segments, without an accepted step in between
_PIECES = 16  # that a segment is cut into at once, at most
_MOST_NUMBERS = 5e7  # of Φ; beyond, an inexact correction has to do
_NOISE = 1e-6  # corrections below this that stop shrinking are put down to the flow's accuracy
_NEARLY_SINGULAR = 1e-10  # reciprocal condition number that explains a failure


class _Stop(Exception):
    """Ends a solve with a status."""

    def __init__(self, status: BVPStatus, detail: str = "") -> None:
        super().__init__(status.value)
        self.status, self.detail = status, detail


@dataclass
class _Point:
    """An iterate on its mesh, with what was evaluated there."""

    t: NDArray  # (M,)
    y: NDArray  # (M, n)
    ends: NDArray  # (S, n)
    phi: NDArray | None  # (S, n, n)
    g: NDArray  # (n,)
    ga: NDArray  # (n, n)
    gb: NDArray  # (n, n)

    @property
    def defects(self) -> NDArray:
        return self.ends - self.y[1:]

    @property
    def finite(self) -> NDArray:
        """Segments that are finite, shape (S,)."""
        ok = np.isfinite(self.ends).all(1)
        return ok if self.phi is None else ok & np.isfinite(self.phi).all((1, 2))

    def residuals(self, scale: NDArray) -> tuple[float, float]:
        """Largest scaled defect and boundary residual."""
        size = np.linalg.norm(np.hstack([self.ga, self.gb]) * np.tile(scale, 2), axis=1)
        size[size == 0] = 1.0
        return float(np.abs(self.defects / scale).max()), float(np.abs(self.g / size).max())


@dataclass
class _Step:
    """What a damped step came to."""

    point: _Point | None  # the accepted iterate, None if no λ passed
    simplified: NDArray | None  # (M, n), simplified correction there
    damping: float
    level: float  # its norm
    nonlinearity: NDArray  # (S,), remainder of each segment at the first λ where it is finite


@dataclass
class Newton:
    """Options, steps and state of one solve."""

    flow: Flow
    boundary: Boundary
    tol: float
    growth_limit: float
    min_damping: float
    max_nodes: int
    fixed_scale: NDArray | None
    reuse: bool
    preconditioner: Callable[[NDArray, NDArray], Preconditioner] | None
    deadline: float
    callback: Callable[[BVPIteration], Any] | None
    start: float = field(default_factory=time.perf_counter)
    history: list[BVPIteration] = field(default_factory=list)
    flows: int = 0
    factor: StaircaseFactor | None = None
    growth: float = np.nan  # largest, where Φ was last formed
    rcond: float = np.nan  # of the last factorisation of Φ
    best: tuple[float, _Point | None] = (np.inf, None)  # smallest Newton correction so far
    latest: tuple[float, _Point | None] = (np.inf, None)  # accepted, Newton correction not known

    def solve(self, t: NDArray, y: NDArray, max_iter: int, jacobians: bool) -> BVPResult:
        """Iterate to whatever end, then gather the result."""
        status, detail = BVPStatus.CONVERGED, ""
        try:
            self._iterate(t, y, max_iter)
        except _Stop as stop:
            status, detail = stop.status, stop.detail
        correction, point = self.latest if self.latest[0] < self.best[0] else self.best
        phi = None
        if jacobians:
            self.deadline, phi = np.inf, point.phi
            if phi is None:
                phi = self._flow(point.t[:-1], point.t[1:], point.y[:-1], True)[1]
        return BVPResult(
            t=point.t, y=point.y, success=status is BVPStatus.CONVERGED, status=status,
            message=f"{status.value} {detail}".strip(), nit=len(self.history),
            correction=float(correction), defects=point.defects, boundary=point.g, jacobians=phi,
            history=tuple(self.history), seconds=time.perf_counter() - self.start,
        )  # fmt: skip

    # ------------------------------------------------------------------ the iteration

    def _iterate(self, t: NDArray, y: NDArray, max_iter: int) -> None:
        """Return when converged, raise `_Stop` otherwise."""
        ends = np.full((t.size - 1, y.shape[1]), np.nan)  # until it is linearised
        point = _Point(t, y, ends, None, *self._boundary(y))
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
                end = point if reason else self._insert(point, self._blame(point, step), scale)
                inserted, last = end.t.size - nodes, None
            stopped = self._record(end, step, size, scale, point.t.size, inserted)
            if reason:
                raise reason
            if self._converged(step, size, scale):
                return
            if stopped:
                raise _Stop(BVPStatus.STOPPED)
            point = end
        raise _Stop(BVPStatus.ITERATION_LIMIT)

    def _scale(self, y: NDArray) -> NDArray:
        if self.fixed_scale is not None:
            return self.fixed_scale
        return np.maximum(1.0, np.abs(y).max(0))

    def _newton_system(self, point: _Point, scale: NDArray) -> tuple[_Point, _System, NDArray]:
        """The (possibly cut) iterate, its Newton matrix ready for solves, and the correction."""
        if self.reuse and self.factor is not None and self.factor.nodes == point.t.size:
            system = _System(point, scale, self.factor, self._products(point))
            correction = system.correction(point)
            if system.accurate:
                return point, system, correction
        if self.preconditioner is not None:
            point = self._finite(self._evaluate(point.t, point.y), scale)
            solver = self.preconditioner(point.t, point.y)
            system = _System(point, scale, solver, self._products(point))
            correction = system.correction(point)
            if system.accurate or point.y.size * point.g.size > _MOST_NUMBERS:
                return point, system, correction
        point = self._linearise(point, scale)
        if self.best[0] == np.inf:
            self.best = (np.inf, point)
        self.factor = StaircaseFactor(point.phi, point.ga, point.gb, scale)
        self.rcond = self.factor.rcond
        if not self.rcond > 10 * point.g.size * np.finfo(float).eps:
            if self.growth > self.growth_limit:
                raise _Stop(BVPStatus.NODE_LIMIT, f"A segment grows by {self.growth:.1e}.")
            raise _Stop(BVPStatus.SINGULAR, _conditioning(self.rcond))
        system = _System(point, scale, self.factor, None)
        return point, system, system.correction(point)

    def _damped_step(
        self,
        point: _Point,
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
            trial = self._evaluate(point.t, point.y + damping * correction)
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
        return _Step(None, None, 0.0, np.inf, nonlinearity)

    def _converged(self, step: _Step, size: float, scale: NDArray) -> bool:
        """Whether the step ends the solve; raise if it shows that nothing more can be gained."""
        if step.damping < 1 or step.level > self.tol:
            return False
        if max(step.point.residuals(scale)) <= self.growth_limit * self.tol:
            return True
        if step.level > 0.5 * size:
            defect, boundary = step.point.residuals(scale)
            raise _Stop(
                BVPStatus.ACCURACY_LIMIT,
                f"Scaled defect {defect:.1e}, boundary residual {boundary:.1e}.",
            )
        return False

    def _record(
        self, point: _Point, step: _Step, size: float, scale: NDArray, nodes: int, inserted: int
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
            flows=self.flows, seconds=time.perf_counter() - self.start,
        )  # fmt: skip
        self.history.append(record)
        return self.callback is not None and self.callback(record) is True

    # ------------------------------------------------------------------ evaluation

    def _evaluate(self, t: NDArray, y: NDArray) -> _Point:
        ends = self._flow(t[:-1], t[1:], y[:-1], False)[0]
        return _Point(t, y, ends, None, *self._boundary(y))

    def _flow(
        self, t0: NDArray, t1: NDArray, y: NDArray, jacobian: bool
    ) -> tuple[NDArray, NDArray | None]:
        """Call the flow; check the clock before and the shapes after."""
        if time.perf_counter() > self.deadline:
            raise _Stop(BVPStatus.TIME_LIMIT)
        self.flows += len(t0)
        with np.errstate(all="ignore"):
            ends, phi = self.flow(t0, t1, y, jacobian)
        ends = np.asarray(ends, float)
        if ends.shape != y.shape:
            raise ValueError(f"flow: expected ends of shape {y.shape}, got {ends.shape}")
        if not jacobian:
            return ends, None
        phi = np.asarray(phi, float)
        if phi.shape != (*y.shape, y.shape[1]):
            raise ValueError(
                f"flow: expected Jacobians of shape {(*y.shape, y.shape[1])}, got {phi.shape}"
            )
        return ends, phi

    def _boundary(self, y: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        n = y.shape[1]
        with np.errstate(all="ignore"):
            values = [np.asarray(v, float) for v in self.boundary(y[0], y[-1])]
        shapes = [v.shape for v in values]
        if shapes != [(n,), (n, n), (n, n)]:
            raise ValueError(
                f"boundary: expected shapes ({n},), ({n}, {n}), ({n}, {n}), got {shapes}"
            )
        return tuple(values)

    def _products(self, point: _Point) -> Callable[[NDArray], NDArray]:
        """The map v (S, n) -> Φ_k v_k (S, n) at `point`."""

        def products(v: NDArray) -> NDArray:
            if time.perf_counter() > self.deadline:
                raise _Stop(BVPStatus.TIME_LIMIT)
            self.flows += len(v)
            return self.flow.jvp(point.t[:-1], point.t[1:], point.y[:-1], v)

        return products

    # ------------------------------------------------------------------ mesh

    def _linearise(self, point: _Point, scale: NDArray) -> _Point:
        """Φ at the iterate, on a mesh cut where the flow grows too much or is not finite."""
        ends, phi = self._flow(point.t[:-1], point.t[1:], point.y[:-1], True)
        point = _Point(point.t, point.y, ends, phi, point.g, point.ga, point.gb)
        point = self._finite(point, scale)
        self.growth = float(_growth(point.phi, scale).max())
        return point

    def _finite(self, point: _Point, scale: NDArray) -> _Point:
        """The iterate on a mesh on which its flow is finite and, if Φ is there, grows little."""
        for _ in range(_ROUNDS):
            growth = 1.0 if point.phi is None else _growth(point.phi, scale)
            growth = np.where(point.finite, growth, self.growth_limit**2)
            pieces = np.log(np.maximum(growth, 1.0)) / np.log(self.growth_limit)
            pieces = np.clip(np.ceil(pieces - 1e-9), 1, _PIECES).astype(int)
            if pieces.max() == 1 or point.t.size + np.sum(pieces - 1) > self.max_nodes:
                break
            point = self._insert(point, pieces, scale)
        if not point.finite.all():
            k = int(np.argmin(point.finite))
            raise _Stop(BVPStatus.NOT_FINITE, self._why_lost(point, k))
        if not all(np.isfinite(v).all() for v in (point.g, point.ga, point.gb)):
            raise _Stop(BVPStatus.NOT_FINITE, "The boundary function is not finite.")
        return point

    def _why_lost(self, point: _Point, k: int) -> str:
        """What the flow says of a segment that it cannot integrate."""
        why, some = "", slice(k, k + 1)
        if hasattr(self.flow, "why_lost"):
            why = self.flow.why_lost(point.t[some], point.t[k + 1 : k + 2], point.y[some])
        why = why or "the flow is not finite"
        return f"On [{point.t[k]:.6g}, {point.t[k + 1]:.6g}] {why}."

    def _why_failed(self, point: _Point, step: _Step, size: float, cuts: int) -> _Stop | None:
        """Why no λ passed, if cutting segments is of no use."""
        if self.rcond < _NEARLY_SINGULAR:
            return _Stop(BVPStatus.SINGULAR, _conditioning(self.rcond))
        if size <= _NOISE:
            return _Stop(BVPStatus.ACCURACY_LIMIT, f"The last correction was {size:.1e}.")
        if cuts > _CUTS or point.t.size >= self.max_nodes or not step.nonlinearity.max() > 0:
            return _Stop(BVPStatus.NO_DESCENT, _conditioning(self.rcond))
        return None

    def _blame(self, point: _Point, step: _Step) -> NDArray:
        """Pieces for each segment: 2 for the most nonlinear ones, as far as nodes are left."""
        pieces = np.ones(step.nonlinearity.size, int)
        order = np.argsort(-step.nonlinearity, kind="stable")
        order = order[~(step.nonlinearity[order] < 0.1 * step.nonlinearity.max())]
        pieces[order[: self.max_nodes - point.t.size]] = 2
        return pieces

    def _insert(self, point: _Point, pieces: NDArray, scale: NDArray) -> _Point:
        """Cut segment k evenly into pieces[k]; integrate only the segments that are new.

        New states lie on the flow where the segment's defect is small against the scale, else on
        the chord between the guesses at its ends, which a growing flow leaves at once.
        """
        parent = np.repeat(np.arange(pieces.size), pieces)  # (S_new,)
        place = (np.arange(parent.size) - (np.cumsum(pieces) - pieces)[parent]) / pieces[parent]
        t = point.t[parent] + place * np.diff(point.t)[parent]
        y = point.y[parent] + place[:, None] * np.diff(point.y, axis=0)[parent]
        small = np.abs(point.defects / scale).max(1) < 0.1
        ride = (place > 0) & small[parent]
        if ride.any():
            y[ride] = self._flow(point.t[parent[ride]], t[ride], point.y[parent[ride]], False)[0]
        t, y = np.append(t, point.t[-1]), np.vstack([y, point.y[-1:]])
        fresh = pieces[parent] > 1
        ends, phi = point.ends[parent], point.phi if point.phi is None else point.phi[parent]
        new = self._flow(t[:-1][fresh], t[1:][fresh], y[:-1][fresh], phi is not None)
        ends[fresh] = new[0]
        if phi is not None:
            phi[fresh] = new[1]
        return _Point(t, y, ends, phi, point.g, point.ga, point.gb)


class _System:
    """The Newton matrix at an iterate, ready to be solved with.

    With `products` given, `factor` belongs to an earlier iterate, or is approximate, and only
    preconditions GMRES.
    `accurate` says whether the last solve met its tolerance.
    """

    def __init__(
        self,
        point: _Point,
        scale: NDArray,
        factor: Preconditioner,
        products: Callable[[NDArray], NDArray] | None,
    ) -> None:
        self.point, self.scale, self.factor, self.products = point, scale, factor, products
        self.accurate = True

    def correction(self, at: _Point) -> NDArray:
        """−F′(point)⁻¹ F(at), shape (M, n): Newton's own if `at` is the point, else simplified."""
        start = self.factor.solve(-at.defects, -at.g)
        if self.products is None:
            return start
        ga, gb, scale = self.point.ga, self.point.gb, self.scale

        def preconditioned(x: NDArray) -> NDArray:
            v = x.reshape(start.shape) * scale
            image = self.factor.solve(self.products(v[:-1]) - v[1:], ga @ v[0] + gb @ v[-1])
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


def _growth(phi: NDArray, scale: NDArray) -> NDArray:
    """Largest row of each scaled Φ in the 2-norm, shape (S,): at most ‖Φ_k‖₂, at least that/√n."""
    with np.errstate(all="ignore"):
        return np.linalg.norm(phi * scale / scale[:, None], axis=2).max(1)


def _predicted_damping(
    correction: NDArray, scale: NDArray, last: tuple[NDArray, _Step] | None
) -> float:
    """A-priori λ from the nonlinearity seen in the step before (NLEQ-ERR)."""
    if last is None:
        return 1.0
    before, step = last
    deviation = _norm(step.simplified - correction, scale) * _norm(correction, scale)
    if deviation == 0:
        return 1.0
    return min(1.0, _norm(before, scale) * _norm(step.simplified, scale) * step.damping / deviation)


def _nonlinearity(point: _Point, trial: _Point, damping: float, scale: NDArray) -> NDArray:
    """What each segment's defect has beyond its linear prediction (1 − λ)·defect, shape (S,)."""
    remainder = np.abs((trial.defects - (1 - damping) * point.defects) / scale).max(1)
    return np.where(np.isfinite(remainder), remainder, np.inf)
