"""Two-point boundary value problems, called as `scipy.integrate.solve_bvp` is.

dy/dx = f(x, y, p) + S y/(x − a) on [a, b] with g(y(a), y(b), p) = 0, as many conditions as states
and unknown parameters. The method is multiple shooting with implicit steps; see
`hamshoot.bvp.refinement`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamshoot.bvp.functions import Ends, Field
from hamshoot.bvp.lobatto import lobatto
from hamshoot.bvp.records import BVPStatus
from hamshoot.bvp.refinement import Search, Stage

MESSAGES = {
    0: "The residuals are below the tolerance: the boundary value problem is solved.",
    1: "The residuals need more mesh nodes than max_nodes allows, or do not fall on finer meshes, "
       "as where the right-hand side jumps: make such a place a node of x.",
    2: "The Newton system is singular: the boundary conditions do not determine the solution near "
       "the guess.",
    3: "The boundary conditions are not met to bc_tol, although the residuals are.",
    4: "The time limit was reached before the tolerance was met.",
    5: "Newton's method did not converge, on finer meshes and by continuation neither; start "
       "closer to a solution, or follow it from an easier problem.",
    6: "The right-hand side or the boundary function is not finite at the guess or near it; start "
       "closer, or check the functions.",
    7: "It was interrupted before the tolerance was met; this is the best of the meshes so far.",
}  # fmt: skip

_CODES = {
    BVPStatus.CONVERGED: 0, BVPStatus.NODE_LIMIT: 1, BVPStatus.SINGULAR: 2,
    BVPStatus.TIME_LIMIT: 4, BVPStatus.NOT_FINITE: 6,
    BVPStatus.STOPPED: 7,
}  # fmt: skip
_NEARLY = 100.0  # of residuals to the tolerance, where higher order will do, not another path
_STAGES = ((1e-6, 5), (1e-9, 6), (0.0, 7))  # tolerance from which so many stages a step pay


def solve_bvp(
    fun: Any,
    bc: Any,
    x: ArrayLike,
    y: ArrayLike,
    p: ArrayLike | None = None,
    S: ArrayLike | None = None,
    fun_jac: Callable[..., Any] | None = None,
    bc_jac: Callable[..., Any] | None = None,
    tol: float = 1e-3,
    max_nodes: int = 1000,
    verbose: int = 0,
    bc_tol: float | None = None,
    *,
    time_limit: float | None = None,
) -> Any:
    """Solve a two-point boundary value problem; arguments and result are those of SciPy's.

    Parameters
    ----------
    fun : callable or casadi.Function
        ``fun(x, y)``, or ``fun(x, y, p)`` where there are parameters: f (n, m) for x (m,) and
        y (n, m), column i of one belonging to element i of the other. One that takes a single
        point, x a number and y (n,), is recognised and called in a loop, a compiled loop if numba
        made it. A `casadi.Function` of x, y and p gets exact derivatives.
    bc : callable or casadi.Function
        ``bc(ya, yb)`` or ``bc(ya, yb, p)``: the n + k conditions that are to be 0.
    x : array_like, shape (m,)
        Nodes, strictly increasing, from a to b. All of them stay nodes. Where `fun` jumps in x at
        one of them, its values just before and just beyond are told apart.
    y : array_like, shape (n, m)
        Guess at the nodes, between them a straight line. Complex if the problem is; f and g must
        then be complex differentiable.
    p : array_like, shape (k,), optional
        Guess at the unknown parameters.
    S : array_like, shape (n, n), optional
        Matrix of a singular term S y/(x − a). y(a) is held in its null space, which the boundary
        conditions must not contradict.
    fun_jac : callable, optional
        ``fun_jac(x, y)`` returns ∂f/∂y of shape (n, n, m), ``fun_jac(x, y, p)`` also ∂f/∂p of
        shape (n, k, m). By default forward differences, n + k more calls of `fun`.
    bc_jac : callable, optional
        ``bc_jac(ya, yb)`` returns ∂g/∂ya and ∂g/∂yb, ``bc_jac(ya, yb, p)`` also ∂g/∂p.
    tol : float
        The solution u is accepted when on each segment the root mean square of
        ‖(u′ − f)/(1 + |f|)‖₂ is at most `tol`.
    max_nodes : int
        Nodes of the mesh, at most.
    verbose : {0, 1, 2}
        0 prints nothing, 1 the end, 2 each mesh.
    bc_tol : float, optional
        What boundary conditions may come to, each by itself; `tol` by default.
    time_limit : float, optional
        Seconds, looked at before each evaluation of `fun` in Newton's method. SciPy has none.

    Returns
    -------
    scipy.optimize.OptimizeResult
        `sol`, a `scipy.interpolate.PPoly` of degree 5 or more, continuous with its derivative:
        ``sol(x)`` is (n, …), ``sol(x, 1)`` the derivative; `p` (k,) or None; nodes `x` (M,), `y`
        and `yp` (n, M) there; `rms_residuals` (M − 1,); `niter`, the meshes that were solved;
        `status`, `message` and `success`. Statuses 0 to 3 are SciPy's: solved, `max_nodes`
        exceeded, singular, boundary conditions not met. 4 is the time limit, 5 that Newton's
        method does not converge, 6 that functions are not finite, 7 that Ctrl-C was pressed: the
        best iterate so far is returned, unless there is none yet. Not converging is no exception.

    Raises
    ------
    ValueError
        If an argument, or what a function returns, has the wrong shape or range.

    Notes
    -----
    Differences from SciPy's solver: steps of order 8 (10 and 12 from tol < 1e-6 and 1e-9) in place
    of 4, so that meshes are coarser, and fewer nodes than SciPy's can be enough; meshes lose nodes
    too, but the given ones; where Newton's method fails, components of f that are large are scaled
    down at the guess and brought back, which takes many more meshes in `niter`.

    A mesh of M nodes costs about 4 M evaluations of f for each Newton step, n + k times as many
    without `fun_jac` where derivatives are renewed, and about 100 M n³ operations (s = 5).

    Examples
    --------
    ÿ = y with y(0) = 1 and y(1) = 0, so that ẏ(0) = −coth 1:

    >>> result = solve_bvp(lambda x, y: [y[1], y[0]], lambda ya, yb: [ya[0] - 1, yb[0]],
    ...                    [0, 1], np.zeros((2, 2)), tol=1e-10)
    >>> print(result.status, round(result.y[1, 0], 8))
    0 -1.31303529
    """
    started = time.perf_counter()
    x, y, p, S, dtype = _checked(x, y, p, S, verbose, time_limit, max_nodes)
    least = 100 * np.finfo(float).eps
    if not tol >= least:
        if not tol > 0:
            raise ValueError(f"tol: expected a number > 0, got {tol!r}")
        warn(f"tol is too low, setting it to {least:.2e}", stacklevel=2)
        tol = least
    bc_tol = tol if bc_tol is None else bc_tol
    if not bc_tol > 0:
        raise ValueError(f"bc_tol: expected a number > 0, got {bc_tol!r}")
    n, k = len(y), p.size
    field, ends = Field(fun, fun_jac, x[0], k, S, dtype), Ends(bc, bc_jac, n, k, dtype)
    start = None
    if S is not None:
        start = np.eye(n) - np.linalg.pinv(S) @ S
        y[:, 0] = start @ y[:, 0]
    with np.errstate(all="ignore"):
        field.recognise(x, y.T, p)
        ends(y[:, 0], y[:, -1], p)
    stages = next(s for least, s in _STAGES if tol >= least)
    search = Search(
        field, ends, lobatto(stages), x, max_nodes, bc_tol, start,
        np.inf if time_limit is None else started + time_limit, _teller(verbose),
        field.jumps(x[1:-1], y.T[1:-1], p) if x.size > 2 else x[:0],
    )  # fmt: skip
    try:
        stage = _solved(search, y, p, tol)
    except KeyboardInterrupt:
        kept = search.interrupted()
        if kept is None:
            raise
        stage = kept
    return _result(search, stage, tol, k, verbose)


def _solved(search: Search, y: NDArray, p: NDArray, tol: float) -> Stage:
    """From the guess itself, then by continuation."""
    nodes = search.given

    def guess(at: NDArray) -> NDArray:
        return np.stack([np.interp(at, nodes, row) for row in y], axis=1)

    final = (BVPStatus.CONVERGED, BVPStatus.TIME_LIMIT)
    stage = search.refined(nodes, guess, p, tol)
    if search.struggled:
        stage = search.confirmed(stage, tol)
    if stage.status is BVPStatus.NODE_LIMIT and stage.residual <= _NEARLY * tol:
        stage = _of_higher_order(search, stage, tol)
    if stage.status not in final:
        further = search.continued(nodes, guess, p, tol)
        stage = stage if further is None else further
    if stage.status is BVPStatus.NODE_LIMIT:
        stage = _of_higher_order(search, stage, tol)
    return stage


def _of_higher_order(search: Search, stage: Stage, tol: float) -> Stage:
    """On from what more nodes would not mend, by steps of four orders more.

    From the mesh itself if that is nearly fine enough, else from the given nodes: what has filled
    it is then no feature of the solution.
    """
    search.method = lobatto(search.method.stages + 2)
    x = stage.x if stage.residual <= _NEARLY * tol else search.given
    return search.refined(x, stage.polynomial, stage.p, tol)


def _result(search: Search, stage: Stage, tol: float, k: int, verbose: int) -> Any:
    """As SciPy's."""
    from scipy.interpolate import PPoly
    from scipy.optimize import OptimizeResult

    status = _CODES.get(stage.status, 5)
    if status == 0 and stage.boundary > search.bc_tol:
        status = 3
    s = search.method.stages
    message = MESSAGES[status]
    if verbose:
        said = f"Solved in {search.iterations} iterations" if status == 0 else message
        print(f"{said}, number of nodes {stage.x.size}. \n"
              f"Maximum relative residual: {stage.residual:.2e} \n"
              f"Maximum boundary residual: {stage.boundary:.2e}")
    return OptimizeResult(
        sol=PPoly(np.moveaxis(stage.polynomial.c, 2, 0), stage.x, extrapolate=True, axis=1),
        p=stage.p if k else None, x=stage.x, y=stage.y[:: s - 1].T, yp=stage.rates[:: s - 1].T,
        rms_residuals=stage.residuals, niter=search.iterations, status=status, message=message,
        success=status == 0,
    )  # fmt: skip


def _checked(
    x: ArrayLike, y: ArrayLike, p: ArrayLike | None, S: ArrayLike | None,
    verbose: int, time_limit: float | None, max_nodes: int,
) -> tuple[NDArray, NDArray, NDArray, NDArray | None, type]:
    """The arrays, of the right shapes and one type, copied."""
    x, y = np.array(x, float), np.asarray(y)
    if x.ndim != 1 or x.size < 2 or not np.isfinite(x).all() or not (np.diff(x) > 0).all():
        raise ValueError(
            "x: expected at least two finite, strictly increasing nodes in one dimension, got "
            f"shape {x.shape}"
        )
    dtype = complex if np.iscomplexobj(y) else float
    y = np.array(y, dtype)
    if y.ndim != 2 or y.shape[1] != x.size or not y.shape[0]:
        raise ValueError(f"y: expected shape (n, {x.size}), a column for each node, got {y.shape}")
    p = np.zeros(0, dtype) if p is None else np.array(p, dtype)
    if p.ndim != 1:
        raise ValueError(f"p: expected one dimension, got shape {p.shape}")
    for name, value in (("y", y), ("p", p)):
        if not np.isfinite(value).all():
            raise ValueError(f"{name}: expected finite numbers as a guess")
    if S is not None:
        S = np.array(S, dtype)
        if S.shape != (len(y), len(y)):
            raise ValueError(f"S: expected shape {(len(y), len(y))}, got {S.shape}")
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose: expected 0, 1 or 2, got {verbose!r}")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit: expected a number > 0, got {time_limit!r}")
    if not max_nodes >= 2:
        raise ValueError(f"max_nodes: expected an integer >= 2, got {max_nodes!r}")
    return x, y, p, S, dtype


def _teller(verbose: int) -> Callable[[int, Stage, int], None]:
    """Prints a line for each mesh, if it is asked for."""
    if verbose < 2:
        return lambda iteration, stage, added: None
    print(f"{'Iteration':^15}{'Max residual':^15}{'Max BC residual':^15}"
          f"{'Total nodes':^15}{'Nodes added':^15}")

    def tell(iteration: int, stage: Stage, added: int) -> None:
        print(f"{iteration:^15}{stage.residual:^15.2e}{stage.boundary:^15.2e}"
              f"{stage.x.size:^15}{added:^15}")

    return tell
