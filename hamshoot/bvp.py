"""Multiple-shooting Newton solver for two-point boundary value problems.

The problem is ẏ = f(t, y) on [t_0, t_S] with g(y(t_0), y(t_S)) = 0 and as many boundary conditions
as states.  Nodes t_0 < t_1 < … < t_S cut the interval into S segments; the unknowns are the states
y_k at the nodes, and with φ_k the flow over segment k the equations are

    defect_k   = φ_k(y_k) − y_{k+1} = 0,   k = 0 … S−1,
    boundary   = g(y_0, y_S) = 0.

S = 1 is single shooting.  The right-hand side f never appears: a *flow* integrates all segments in
one call, so a compiled kernel, a fixed step or an adaptive integrator serve alike.

**Newton.**  The damped, affine-invariant iteration of P. Deuflhard, *Newton Methods for Nonlinear
Problems* (Springer 2004), algorithm NLEQ-ERR.  Progress is measured in the natural level function,
the norm of the *simplified* Newton correction F′(y^k)⁻¹F(y^{k+1}), which costs a back substitution
with the matrix that is already factored, and which does not change when the equations are scaled
or combined.  A step λ passes the restricted monotonicity test when that norm shrinks by 1 − λ/4;
λ comes from the measured nonlinearity, not from a fixed halving.

**Linear algebra.**  With n = 2 and S = 3 the Newton matrix is the staircase

    d_0   d_1   d_2   d_3

    1 1   2 .   . .   . .
    1 1   . 2   . .   . .               1 : Φ_k = ∂φ_k/∂y_k
    . .   1 1   2 .   . .               2 : −I
    . .   1 1   . 2   . .               3 : ∂g/∂y_0
    . .   . .   1 1   2 .               4 : ∂g/∂y_S
    . .   . .   1 1   . 2

    3 3   . .   . .   4 4
    3 3   . .   . .   4 4

solved by orthogonal cyclic reduction (S. J. Wright, *SIAM J. Sci. Stat. Comput.* 13, 1992; see
`hamshoot.staircase`).  Products of Φ are never formed, so growth and decay may live side by side
(e^{±Lt}), and separated and coupled boundary conditions are the same to it.

**Nodes.**  Segments over which ‖Φ_k‖ exceeds `growth_limit`, or whose flow is not finite, are cut
before they spoil a step; when no step passes the test, the segments that are the most nonlinear
are.  Each record of the history says how many nodes were inserted.

An unknown parameter or a free final time T is one more state with ẏ = 0: with τ = t/T,
d(y, T)/dτ = (T f(Tτ, y), 0).  A problem in several arcs stacks the arcs as states over one τ and
joins them by boundary conditions, which need not be separated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamshoot.staircase import StaircaseFactor

_ROUNDS = 8  # of cutting segments that grow or blow up, before one iteration
_CUTS = 2  # of the most nonlinear segments, without an accepted step in between
_PIECES = 16  # that a segment is cut into at once, at most
_NOISE = 1e-6  # corrections below this that stop shrinking are put down to the flow's accuracy
_NEARLY_SINGULAR = 1e-10  # reciprocal condition number that explains a failure


class BVPStatus(Enum):
    """How a solve ended; the value is the sentence to show."""

    CONVERGED = "The Newton correction is below the tolerance: the two-point problem is solved."
    ITERATION_LIMIT = (
        "The iteration limit was reached before the tolerance was met; allow more iterations or "
        "start closer."
    )
    TIME_LIMIT = "The time limit was reached before the tolerance was met."
    STOPPED = "The callback asked to stop before the tolerance was met."
    SINGULAR = (
        "The Newton system is numerically singular: the boundary conditions do not determine the "
        "solution near the last iterate."
    )
    NO_DESCENT = (
        "No step along the Newton direction decreases the natural level function: there is no "
        "solution, or the guess is too far from one; try continuation from an easier problem."
    )
    NOT_FINITE = (
        "The flow or the boundary function is not finite at the guess, as short as the segments "
        "may be cut; start closer, allow more nodes or check the right-hand side."
    )
    NODE_LIMIT = "The segments need to be cut further than max_nodes allows."
    ACCURACY_LIMIT = (
        "The Newton corrections stopped shrinking above the tolerance, at the accuracy of the "
        "flow; loosen the tolerance or tighten the integration."
    )


class Flow(Protocol):
    """What integrates the segments; segments are independent, so one call does them all.

    A flow may also have a method ``jvp(t0, t1, y, v) -> (S, n)`` returning Φ_k v_k for each
    segment; see `reuse` in `solve_two_point`.
    """

    def __call__(
        self, t0: NDArray, t1: NDArray, y: NDArray, jacobian: bool
    ) -> tuple[NDArray, NDArray | None]:
        """Integrate every segment from t0[k] to t1[k], starting at y[k].

        Parameters
        ----------
        t0, t1 : ndarray, shape (S,)
            Where each segment starts and ends.
        y : ndarray, shape (S, n)
            States at the starts.
        jacobian : bool
            Whether Φ is wanted.

        Returns
        -------
        ends : ndarray, shape (S, n)
            States at the ends; non-finite where the segment could not be integrated.  Should they
            depend on `jacobian`, the difference limits the tolerance that can be met.
        jacobians : ndarray, shape (S, n, n), or None
            Φ, element (k, i, j) is ∂ends[k, i]/∂y[k, j].  Ignored when not asked for.
        """
        ...


# y_0 (n,), y_S (n,) -> g (n,), ∂g/∂y_0 (n, n), ∂g/∂y_S (n, n); element (i, j) is ∂g_i/∂y_j.
Boundary = Callable[[NDArray, NDArray], tuple[NDArray, NDArray, NDArray]]


@dataclass(frozen=True)
class BVPIteration:
    """What one Newton iteration did.

    Attributes
    ----------
    iteration : int
        Counted from 1.
    nodes : int
        Nodes of the mesh the step was computed on.
    correction : float
        ‖Δy‖, the Newton correction: the largest |Δy|/scale over nodes and components.  Close to a
        solution it is the error of the iterate the iteration started from.
    simplified : float
        The same norm of the simplified correction at the iterate it ended at, the natural level.
    damping : float
        λ of the step; 0 when no step passed the test.
    order : float
        Order of convergence seen in the last three corrections, log(c₂/c₁)/log(c₁/c₀): 2 for
        Newton, 1 for a wrong or frozen Jacobian; nan unless these were full steps on one mesh.
    defect, boundary : float
        Largest |defect|/scale, and largest |g_i| over the scaled norm of its gradient, at the end.
    growth : float
        Largest ‖Φ_k‖ over the segments (rows in the 2-norm, scaled).
    rcond : float
        Reciprocal condition number of the reduced boundary system.
    inserted : int
        Nodes inserted in this iteration.
    flows : int
        Segments integrated so far, those with Jacobian counted once.
    seconds : float
        Since the start of the solve.
    """

    iteration: int
    nodes: int
    correction: float
    simplified: float
    damping: float
    order: float
    defect: float
    boundary: float
    growth: float
    rcond: float
    inserted: int
    flows: int
    seconds: float


@dataclass(frozen=True)
class BVPResult:
    """The best iterate of a solve, converged or not.

    Attributes
    ----------
    t : ndarray, shape (M,)
        Nodes, the given ones among them.
    y : ndarray, shape (M, n)
        States at the nodes, of the iterate with the smallest Newton correction.
    success : bool
    status : BVPStatus
    message : str
        The sentence of the status, and what it was about.
    nit : int
        Newton iterations.
    correction : float
        Norm of the Newton correction (simplified, if no other was computed) at `y`.
    defects : ndarray, shape (M − 1, n)
        φ_k(y_k) − y_{k+1}; nan if the flow was never evaluated there.
    boundary : ndarray, shape (n,)
        g(y_0, y_S).
    jacobians : ndarray, shape (M − 1, n, n), or None
        Φ at `y`, when asked for.
    history : tuple of BVPIteration
    seconds : float
    """

    t: NDArray
    y: NDArray
    success: bool
    status: BVPStatus
    message: str
    nit: int
    correction: float
    defects: NDArray
    boundary: NDArray
    jacobians: NDArray | None
    history: tuple[BVPIteration, ...]
    seconds: float

    def __str__(self) -> str:
        rows = [self.message, " it nodes correction  damping  order"]
        rows += [
            f"{r.iteration:3d} {r.nodes:5d} {r.correction:10.2e} {r.damping:8.1e} {r.order:6.2f}"
            for r in self.history
        ]
        return "\n".join(rows)


def solve_two_point(
    flow: Flow,
    boundary: Boundary,
    t: ArrayLike,
    y: ArrayLike,
    *,
    tol: float = 1e-8,
    max_iter: int = 50,
    max_nodes: int = 1000,
    growth_limit: float = 1e3,
    min_damping: float = 1e-6,
    scale: ArrayLike | None = None,
    reuse: bool = False,
    jacobians: bool = False,
    time_limit: float | None = None,
    callback: Callable[[BVPIteration], Any] | None = None,
) -> BVPResult:
    """Solve y_{k+1} = φ_k(y_k), g(y_0, y_S) = 0 for the states at the nodes.

    Parameters
    ----------
    flow : Flow
        ``flow(t0, t1, y, jacobian) -> ends, jacobians`` for all segments at once.
    boundary : callable
        ``boundary(y_0, y_S) -> g, ∂g/∂y_0, ∂g/∂y_S`` of shapes (n,), (n, n), (n, n).
    t : array_like, shape (M,)
        Nodes, strictly increasing, M ≥ 2; M − 1 segments.
    y : array_like, shape (M, n)
        Guess at the nodes.
    tol : float
        Accept when the norm of the (simplified) Newton correction of a full step is at most `tol`,
        provided that scaled defects and boundary residuals are at most `growth_limit · tol`.
    max_iter : int
        Newton iterations, each with one evaluation of Φ unless `reuse`.
    max_nodes : int
        Insert nodes up to this number; with ``max_nodes=len(t)`` or fewer the mesh stays.
    growth_limit : float
        Cut segments whose ‖Φ_k‖ is larger; over the pieces it is about this or less.
    min_damping : float
        Smallest λ tried before the mesh is refined, and in the end the solve given up.
    scale : array_like, shape (n,), optional
        Size of each component, the unit of every norm.  By default max(1, max_k |y_kj|), taken
        anew in each iteration.
    reuse : bool
        For large n and a flow with `jvp`: form and factor Φ once, then solve each Newton system by
        GMRES with Jacobian–vector products, preconditioned by the last factored system, which is
        renewed when 20 products do not do.  Each product costs a tangent per segment where Φ
        costs n.  Growth is then watched only where Φ is formed.
    jacobians : bool
        Return Φ at the solution (one more call of the flow).
    time_limit : float, optional
        Seconds, looked at between calls of the flow.
    callback : callable, optional
        Called with a `BVPIteration` after each iteration; stop if it returns True.

    Returns
    -------
    BVPResult
        Not converging is not an exception: `success` is False and `status` says why.

    Raises
    ------
    ValueError
        If an argument, or what `flow` or `boundary` returns, has the wrong shape or range.

    Notes
    -----
    A Newton iteration costs one call of the flow with Jacobians, one or a few without, and
    O(S n³) operations for the factorisation (about 20 S n³, in log₂ S batched steps); a back
    substitution costs O(S n²).  Memory is about 9 S n² numbers.

    Examples
    --------
    ÿ = y with y(0) = 1 and y(1) = 0, so that ẏ(0) = −coth 1, by single shooting:

    >>> A = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> flow = RightHandSideFlow(lambda t, y: y @ A.T, lambda t, y: np.stack([A] * len(y)))
    >>> ends = affine_boundary([[1, 0], [0, 0]], [[0, 0], [1, 0]], [1, 0])
    >>> result = solve_two_point(flow, ends, [0, 1], np.zeros((2, 2)))
    >>> print(result.nit, round(result.y[0, 1], 8))
    1 -1.31303529
    """
    t, y = _check_guess(t, y)
    if scale is not None:
        scale = np.asarray(scale, float)
        if scale.shape != y.shape[1:] or not np.all(scale > 0) or not np.all(np.isfinite(scale)):
            raise ValueError(f"scale: expected {y.shape[1]} finite numbers > 0, got {scale!r}")
    for name, value, least in (
        ("tol", tol, 0.0), ("growth_limit", growth_limit, 1.0), ("time_limit", time_limit, 0.0)
    ):
        if value is not None and not value > least:
            raise ValueError(f"{name}: expected a number > {least:g}, got {value!r}")
    if not 0 < min_damping < 1:
        raise ValueError(f"min_damping: expected a number between 0 and 1, got {min_damping!r}")
    if max_iter < 1:
        raise ValueError(f"max_iter: expected an integer >= 1, got {max_iter!r}")
    if reuse and not hasattr(flow, "jvp"):
        raise ValueError("reuse: needs a flow with a method jvp(t0, t1, y, v), this one has none")
    deadline = np.inf if time_limit is None else time.perf_counter() + time_limit
    newton = _Newton(
        flow, boundary, tol, growth_limit, min_damping, max_nodes, scale, reuse, deadline, callback
    )
    return newton.solve(t, y, max_iter, jacobians)


def _check_guess(t: ArrayLike, y: ArrayLike) -> tuple[NDArray, NDArray]:
    """Nodes and states as float arrays of the right shapes."""
    t, y = np.array(t, float), np.array(y, float)
    if t.ndim != 1 or t.size < 2 or not np.all(np.isfinite(t)) or not np.all(np.diff(t) > 0):
        raise ValueError(
            f"t: expected at least two finite, strictly increasing nodes, got shape {t.shape}"
        )
    if y.ndim != 2 or y.shape[0] != t.size or y.shape[1] < 1:
        raise ValueError(f"y: expected shape ({t.size}, n), a row for each node, got {y.shape}")
    if not np.all(np.isfinite(y)):
        raise ValueError(f"y: expected finite states, got {np.sum(~np.isfinite(y))} that are not")
    return t, y


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
class _Newton:
    """Options, steps and state of one solve."""

    flow: Flow
    boundary: Boundary
    tol: float
    growth_limit: float
    min_damping: float
    max_nodes: int
    fixed_scale: NDArray | None
    reuse: bool
    deadline: float
    callback: Callable[[BVPIteration], Any] | None
    start: float = field(default_factory=time.perf_counter)
    history: list[BVPIteration] = field(default_factory=list)
    flows: int = 0
    factor: StaircaseFactor | None = None
    growth: float = np.nan  # largest, where Φ was last formed
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
        point = self._linearise(point, scale)
        if self.best[0] == np.inf:
            self.best = (np.inf, point)
        self.factor = StaircaseFactor(point.phi, point.ga, point.gb, scale)
        if not self.factor.rcond > 10 * point.g.size * np.finfo(float).eps:
            if self.growth > self.growth_limit:
                raise _Stop(BVPStatus.NODE_LIMIT, f"A segment grows by {self.growth:.1e}.")
            raise _Stop(BVPStatus.SINGULAR, _conditioning(self.factor))
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
            boundary=boundary, growth=self.growth, rcond=self.factor.rcond, inserted=inserted,
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
        for _ in range(_ROUNDS):
            growth = np.where(point.finite, _growth(point.phi, scale), self.growth_limit**2)
            pieces = np.log(np.maximum(growth, 1.0)) / np.log(self.growth_limit)
            pieces = np.clip(np.ceil(pieces - 1e-9), 1, _PIECES).astype(int)
            if pieces.max() == 1 or point.t.size + np.sum(pieces - 1) > self.max_nodes:
                break
            point = self._insert(point, pieces, scale)
        if not point.finite.all():
            k = int(np.argmin(point.finite))
            where = f"The flow is not finite on [{point.t[k]:.6g}, {point.t[k + 1]:.6g}]."
            raise _Stop(BVPStatus.NOT_FINITE, where)
        if not all(np.isfinite(v).all() for v in (point.g, point.ga, point.gb)):
            raise _Stop(BVPStatus.NOT_FINITE, "The boundary function is not finite.")
        self.growth = float(_growth(point.phi, scale).max())
        return point

    def _why_failed(self, point: _Point, step: _Step, size: float, cuts: int) -> _Stop | None:
        """Why no λ passed, if cutting segments is of no use."""
        if self.factor.rcond < _NEARLY_SINGULAR:
            return _Stop(BVPStatus.SINGULAR, _conditioning(self.factor))
        if size <= _NOISE:
            return _Stop(BVPStatus.ACCURACY_LIMIT, f"The last correction was {size:.1e}.")
        if cuts > _CUTS or point.t.size >= self.max_nodes or not step.nonlinearity.max() > 0:
            return _Stop(BVPStatus.NO_DESCENT, _conditioning(self.factor))
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

    With `products` given, `factor` belongs to an earlier iterate and only preconditions GMRES.
    `accurate` says whether the last solve met its tolerance.
    """

    def __init__(
        self,
        point: _Point,
        scale: NDArray,
        factor: StaircaseFactor,
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
    """GMRES without restart from 0; the last iterate, and whether ‖b − Ax‖ ≤ rtol ‖b‖."""
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


def _conditioning(factor: StaircaseFactor) -> str:
    return f"Reciprocal condition number {factor.rcond:.1e}."


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


def affine_boundary(ga: ArrayLike, gb: ArrayLike, c: ArrayLike) -> Boundary:
    """The boundary function g = ga y_0 + gb y_S − c.

    Parameters
    ----------
    ga, gb : array_like, shape (n, n)
    c : array_like, shape (n,)

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    ga, gb, c = np.array(ga, float), np.array(gb, float), np.array(c, float)
    n = c.size
    if c.shape != (n,) or ga.shape != (n, n) or gb.shape != (n, n):
        raise ValueError(
            f"affine_boundary: expected shapes (n, n), (n, n), (n,), got {ga.shape}, {gb.shape}, "
            f"{c.shape}"
        )
    return lambda ya, yb: (ga @ ya + gb @ yb - c, ga, gb)
