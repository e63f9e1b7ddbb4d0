"""The linear algebra of multiple shooting: the staircase matrix, factored by orthogonal reduction.

With F_k = ∂φ_k/∂y_k on the diagonal, −I beside it and the boundary conditions below, the Newton
matrix of `hamshoot.bvp.solve` is a staircase. Orthogonal cyclic reduction (S. J. Wright, *SIAM J.
Sci. Stat. Comput.* 13, 1992) never forms products of F, so growth and decay may live side by side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class StaircaseFactor:
    """Orthogonal factorisation of the multiple-shooting matrix, for any number of solves.

    The rows F_k d_k + E_k d_{k+1} = r_k (at first F = Φ, E = −I) are taken in pairs.  A QR
    factorisation of the column block of the node between them frees one block row of it:

        F_0 E_0  .        ->      U   R   V         keeps d_1 for the back substitution
         .  F_1 E_1               F   .   E         row of the coarser staircase, d_0 to d_2

    ⌈log₂ S⌉ such levels, each one batched call, leave one row in d_0 and d_S.  Together with the
    boundary conditions it is a system of size 2n, factored by LU with row pivoting.  The
    reduction is orthogonal, hence as stable as QR of the whole matrix, and each R is nonsingular
    by construction: whether the problem is well posed shows in the last system alone.

    Parameters
    ----------
    phi : ndarray, shape (S, n, n)
        Φ_k.
    ga, gb : ndarray, shape (n, n)
        ∂g/∂y_0 and ∂g/∂y_S.
    scale : ndarray, shape (n,), optional
        Units of the unknowns' components; the matrix is factored in these.

    Attributes
    ----------
    nodes : int
        S + 1.
    rcond : float
        Reciprocal condition number (1-norm estimate) of the last system, rows equilibrated; 0 when
        it is singular.

    Notes
    -----
    About 20 S n³ operations to factor and 13 S n² to solve; 7 S n² numbers stored.
    """

    def __init__(
        self, phi: NDArray, ga: NDArray, gb: NDArray, scale: NDArray | None = None
    ) -> None:
        n = phi.shape[1]
        self.nodes = phi.shape[0] + 1
        self.scale = np.ones(n) if scale is None else np.asarray(scale, float)
        F = phi * self.scale / self.scale[:, None]
        E = np.broadcast_to(-np.eye(n), F.shape)
        self.levels = []  # of Qᵀ (p, 2n, 2n), R (p, n, n), U (p, n, n), V (p, n, n)
        while len(F) > 1:
            p = len(F) // 2
            left, right = slice(0, 2 * p, 2), slice(1, 2 * p, 2)
            q, r = np.linalg.qr(np.concatenate([E[left], F[right]], axis=1), mode="complete")
            qt = np.swapaxes(q, 1, 2)
            u, f = np.split(qt[:, :, :n] @ F[left], 2, axis=1)
            v, e = np.split(qt[:, :, n:] @ E[right], 2, axis=1)
            self.levels.append((qt, r[:, :n], u, v))
            F = np.concatenate([f, F[2 * p :]])
            E = np.concatenate([e, E[2 * p :]])
        last = np.block([[F[0], E[0]], [ga * self.scale, gb * self.scale]])
        self.rows, self.lu, self.rcond = equilibrated_lu(last)

    def solve(self, r: NDArray, g: NDArray) -> NDArray:
        """Solve Φ_k d_k − d_{k+1} = r_k and ∂g/∂y_0 d_0 + ∂g/∂y_S d_S = g.

        Parameters
        ----------
        r : ndarray, shape (S, n)
        g : ndarray, shape (n,)

        Returns
        -------
        d : ndarray, shape (S + 1, n)

        Raises
        ------
        numpy.linalg.LinAlgError
            If the matrix is exactly singular (`rcond` is 0).
        """
        from scipy.linalg import lapack, lu_solve

        if self.rcond == 0:
            raise np.linalg.LinAlgError("the multiple-shooting matrix is singular")
        n = g.size
        r = r / self.scale
        kept = []
        for qt, *_ in self.levels:
            p = len(qt)
            pair = r[: 2 * p].reshape(p, 2 * n, 1)
            top, bottom = np.split((qt @ pair)[..., 0], 2, axis=1)
            kept.append((top, len(r)))
            r = np.concatenate([bottom, r[2 * p :]])
        d = lu_solve(self.lu, self.rows * np.concatenate([r[0], g]), check_finite=False)
        d = d.reshape(2, n)
        for (_, upper, u, v), (top, rows) in zip(self.levels[::-1], kept[::-1], strict=True):
            p = len(top)
            fine = np.empty((rows + 1, n))
            fine[0 : 2 * p + 1 : 2] = d[: p + 1]
            fine[-1] = d[-1]
            left, right = fine[0 : 2 * p : 2, :, None], fine[2 : 2 * p + 1 : 2, :, None]
            top = top - (u @ left)[..., 0] - (v @ right)[..., 0]
            for k in range(p):  # R is C-contiguous: LAPACK sees its transpose
                fine[2 * k + 1] = lapack.dtrtrs(upper[k].T, top[k], lower=1, trans=1)[0]
            d = fine
        return d * self.scale


def equilibrated_lu(matrix: NDArray) -> tuple[NDArray, tuple[NDArray, NDArray], float]:
    """LU factors (lu, pivots) of a real or complex matrix whose rows have been scaled to norm 1.

    Returns
    -------
    rows : ndarray, shape (n,)
        What the rows were scaled by.
    lu : tuple of ndarray
        For `scipy.linalg.lu_solve`.
    rcond : float
        Reciprocal condition number (1-norm estimate); 0 where the matrix is singular, and `lu` of
        no use.
    """
    from scipy.linalg import get_lapack_funcs

    size = np.linalg.norm(matrix, axis=1)
    rows = 1.0 / np.where(size > 0, size, 1.0)
    if not (np.all(size > 0) and np.all(np.isfinite(size))):
        return rows, (matrix, np.arange(len(matrix))), 0.0
    scaled = matrix * rows[:, None]
    getrf, gecon = get_lapack_funcs(("getrf", "gecon"), (scaled,))
    lu, pivots, info = getrf(scaled)
    rcond = float(gecon(lu, np.abs(scaled).sum(0).max())[0]) if info == 0 else 0.0
    return rows, (lu, pivots), rcond
