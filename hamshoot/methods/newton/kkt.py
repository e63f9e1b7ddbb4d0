"""The linear system of a Newton step with constraints: H x − Cᵀ m = right, C x = change.

H is convexified where it has to be, and rows of C that depend on each other share their multiplier.
n³/3 + n²k + nk² flops for n unknowns and k constraints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Weight of the constraints, against the Hessian, in the test for convexity; first shift tried.
PENALTY, LEAST_SHIFT = 1e5, 1e-5
#: Solves with one factorisation of the KKT system, each but the first a refinement.
REFINEMENTS = 4
#: Shift of the constraints' block, which lets dependent constraints share their multiplier.
SHIFT = 1e-11


def solve_kkt(
    hessian: NDArray, constraints: NDArray, right: NDArray, change: NDArray,
    look: Callable[[], None] | None = None,
) -> tuple[NDArray, NDArray] | None:
    """Solve H x − Cᵀ m = right, C x = change; H convexified, and dependent rows sharing their m.

    The Cholesky factor of H + weight CᵀC, by which convexity was tested, serves the solve: with
    what C x = change says of the added term, x and m follow from the k × k Schur complement. Its
    rounding, of the order of 1e-16 weight/size times the condition number, is taken off by steps of
    refinement. H is overwritten where it is shifted.
    """
    from scipy.linalg import cho_solve, cholesky, solve_triangular

    C, weight = constraints, 0.0
    size = float(np.abs(np.diag(hessian)).max(initial=1e-300))
    if len(C):
        weight = PENALTY * size / float(np.mean(np.sum(C**2, axis=1)) + 1e-300)
    factor = convexified(hessian, C, weight, look)
    if factor is None:
        return None
    half = solve_triangular(factor, C.T, lower=True, check_finite=False)
    schur = half.T @ half
    diagonal = np.arange(len(C))
    schur[diagonal, diagonal] += SHIFT * float(np.mean(np.diag(schur))) if len(C) else 0.0
    try:
        schur = cholesky(schur, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    x, m = np.zeros(len(hessian)), np.zeros(len(C))
    before, kept = np.inf, (x, m)
    for round_ in range(REFINEMENTS + 1):
        r, q = right - hessian @ x + C.T @ m, change - C @ x
        error = float(np.linalg.norm(r)) + size * float(np.linalg.norm(q))
        if round_ > 1 and not error < before:
            break
        before, kept = error, (x, m)
        if round_ == REFINEMENTS:
            break
        y = cho_solve((factor, True), r + weight * (C.T @ q), check_finite=False)
        # SciPy's solvers before 1.14 refuse systems of no equations.
        dm = cho_solve((schur, True), q - C @ y, check_finite=False) if len(C) else m
        x = x + y + solve_triangular(factor, half @ dm, lower=True, trans=1, check_finite=False)
        m = m + dm
    return kept if all(np.all(np.isfinite(part)) for part in kept) else None


def convexified(hessian: NDArray, constraints: NDArray, weight: float,
                look: Callable[[], None] | None = None) -> NDArray | None:
    """Cholesky factor of H + weight CᵀC, after the least of a few shifts τI, in place, of H.

    A piece on the way may have a saddle, and Newton's method would go there, up in J. With the
    weight large the sum is definite where H is convex as far as A_𝒦 = 0 allows.
    """
    from scipy.linalg import cholesky

    size = float(np.abs(np.diag(hessian)).max(initial=1e-300))
    diagonal, shift = np.arange(len(hessian)), 0.0
    penalty = weight * (constraints.T @ constraints) if len(constraints) else 0.0
    while shift < size:
        if look is not None:
            look()
        probe = penalty + hessian
        try:
            return cholesky(probe.T, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            more = 3 * shift if shift else LEAST_SHIFT * size
            hessian[diagonal, diagonal] += more
            shift += more
    return None
