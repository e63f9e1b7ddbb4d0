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
`hamshoot.bvp.staircase`).  Products of Φ are never formed, so growth and decay may live side by
side (e^{±Lt}), and separated and coupled boundary conditions are the same to it.

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
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamshoot.bvp.linear_algebra import ExactSystems
from hamshoot.bvp.mesh import End, Mesh, Point
from hamshoot.bvp.newton import Newton
from hamshoot.bvp.records import Boundary, BVPIteration, BVPResult, BVPStatus, Flow, Preconditioner
from hamshoot.bvp.rules import ErrorOriented

__all__ = ["BVPIteration", "BVPResult", "BVPStatus", "Boundary", "Flow", "Preconditioner",
           "affine_boundary", "solve_two_point"]


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
    preconditioner: Callable[[NDArray, NDArray], Preconditioner] | None = None,
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
    preconditioner : callable, optional
        ``preconditioner(t, y)``, for a flow with `jvp`, returns an approximate solver of the Newton
        system at nodes t (M,) and states y (M, n); each system is solved by GMRES with it to 1e-7,
        and Φ is formed only where 20 products do not do and it takes less than 400 MB; beyond
        that the correction stays inexact.
    jacobians : bool
        Return Φ at the solution (one more call of the flow).
    time_limit : float, optional
        Seconds, looked at between calls of the flow, and within them by a flow that has an
        attribute `deadline`, as `RightHandSideFlow`.
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
    for name, given in (("reuse", reuse), ("preconditioner", preconditioner is not None)):
        if given and not hasattr(flow, "jvp"):
            raise ValueError(
                f"{name}: needs a flow with a method jvp(t0, t1, y, v), this one has none"
            )
    started = time.perf_counter()
    deadline = np.inf if time_limit is None else started + time_limit
    mesh = Mesh(flow, boundary, growth_limit, max_nodes, deadline)
    fixed = scale

    def units(y: NDArray) -> NDArray:
        return np.maximum(1.0, np.abs(y).max(0)) if fixed is None else fixed

    def tell(record: BVPIteration, point: Point) -> Any:
        return None if callback is None else callback(record)

    newton = Newton(
        mesh, ExactSystems(mesh, reuse, preconditioner),
        ErrorOriented(min_damping, growth_limit * tol), units, tol, tell, started,
    )  # fmt: skip
    return _result(newton, newton.solve(t, y, max_iter), jacobians)


def _result(newton: Newton, end: End, jacobians: bool) -> BVPResult:
    """The best iterate of a solve, and how it ended."""
    best, latest = newton.best, newton.latest
    correction, point = latest if latest[0] < best[0] else best
    phi = None
    if jacobians:
        newton.mesh.deadline, phi = np.inf, point.phi
        if phi is None:
            phi = newton.mesh.integrate(point.t[:-1], point.t[1:], point.y[:-1], True)[1]
    return BVPResult(
        t=point.t, y=point.y, success=end.status is BVPStatus.CONVERGED, status=end.status,
        message=f"{end.status.value} {end.detail}".strip(), nit=len(newton.history),
        correction=float(correction), defects=point.defects, boundary=point.g, jacobians=phi,
        history=tuple(newton.history), seconds=time.perf_counter() - newton.start,
    )  # fmt: skip


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
