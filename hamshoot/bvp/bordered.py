"""Multiple-shooting matrices with implicit steps, unknown parameters and complex numbers.

What `hamshoot.bvp.staircase` factors is Φ_k d_k − d_{k+1} = r_k with as many boundary conditions
as states. Of an implicit step neither end is given by the other, and parameters are unknowns of
all segments: F_k d_k + E_k d_{k+1} + P_k q = r_k, with n + m conditions for n states and m
parameters. The reduction is the same, orthogonal and cyclic (S. J. Wright, *SIAM J. Sci. Stat.
Comput.* 13, 1992).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.staircase import equilibrated_lu


class BorderedStaircase:
    """Orthogonal factorisation of F_k d_k + E_k d_{k+1} + P_k q = r_k with boundary conditions.

    Parameters
    ----------
    left, right : ndarray, shape (S, n, n)
        F_k and E_k.
    border : ndarray, shape (S, n, m)
        P_k; m may be 0.
    ends : ndarray, shape (n + m, 2n + m)
        Derivatives of the boundary conditions by d_0, d_S and q.

    Attributes
    ----------
    rcond : float
        Reciprocal condition number (1-norm estimate) of the last system, rows equilibrated; 0 when
        it is singular.

    Notes
    -----
    ⌈log₂ S⌉ levels of batched calls, about 20 S n³ operations to factor and 10 S n² to solve.
    """

    def __init__(self, left: NDArray, right: NDArray, border: NDArray, ends: NDArray) -> None:
        n = left.shape[1]
        F, E, P = left, right, border
        self.levels = []  # of Qᵀ's lower half (p, n, 2n), and of what gives the nodes between
        while len(F) > 1:
            p = len(F) // 2
            a, b = slice(0, 2 * p, 2), slice(1, 2 * p, 2)
            q, r = np.linalg.qr(np.concatenate([E[a], F[b]], axis=1), mode="complete")
            qt = np.swapaxes(q, 1, 2).conj()
            u, v = qt[:, :, :n] @ F[a], qt[:, :, n:] @ E[b]
            w = qt @ np.concatenate([P[a], P[b]], axis=1)
            upper = np.concatenate([qt[:, :n], u[:, :n], v[:, :n], w[:, :n]], axis=2)
            # R is triangular: LU without a row exchange, back substitution.
            self.levels.append((qt[:, n:], solved(r[:, :n], upper)))
            F = np.concatenate([u[:, n:], F[2 * p :]])
            E = np.concatenate([v[:, n:], E[2 * p :]])
            P = np.concatenate([w[:, n:], P[2 * p :]])
        last = np.concatenate([np.concatenate([F[0], E[0], P[0]], axis=1), ends])
        self.rows, self.lu, self.rcond = equilibrated_lu(last)

    def solve(self, r: NDArray, g: NDArray) -> tuple[NDArray, NDArray]:
        """The unknowns d (S + 1, n) and q (m,) from right-hand sides r (S, n) and g (n + m,).

        Raises
        ------
        numpy.linalg.LinAlgError
            If the matrix is exactly singular (`rcond` is 0).
        """
        from scipy.linalg import lu_solve

        if self.rcond == 0:
            raise np.linalg.LinAlgError("the multiple-shooting matrix is singular")
        n, kept = r.shape[1], []
        for lower, _ in self.levels:
            p = len(lower)
            pair = r[: 2 * p].reshape(p, 2 * n)
            kept.append((pair, len(r)))
            r = np.concatenate([(lower @ pair[..., None])[..., 0], r[2 * p :]])
        d = lu_solve(self.lu, self.rows * np.concatenate([r[0], g]), check_finite=False)
        d, q = d[: 2 * n].reshape(2, n), d[2 * n :]
        for (_, upper), (pair, rows) in zip(self.levels[::-1], kept[::-1], strict=True):
            p = len(pair)
            fine = np.empty((rows + 1, n), dtype=d.dtype)
            fine[0 : 2 * p + 1 : 2] = d[: p + 1]
            fine[2 * p + 1 :] = d[p + 1 :]
            known = np.concatenate(
                [pair, -d[:p], -d[1 : p + 1], np.broadcast_to(-q, (p, q.size))], axis=1
            )
            fine[1 : 2 * p : 2] = (upper @ known[..., None])[..., 0]
            d = fine
        return d, q


def solved(r: NDArray, b: NDArray) -> NDArray:
    """R⁻¹B in batches; nan where R is singular."""
    try:
        return np.linalg.solve(r, b)
    except np.linalg.LinAlgError:
        return np.full_like(b, np.nan)
