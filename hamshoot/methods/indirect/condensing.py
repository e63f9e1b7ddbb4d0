"""The linear-quadratic problem of a Newton step condensed: states eliminated, linear in N.

Eliminating the states from the problem of `hamshoot.methods.indirect.linear_quadratic` leaves a
dense system in the controls of all segments, u_k = δW_k column by column: H u = −g. Given δW the
samples do not see each other. With Ψ_j(k, l) (w, w) the response of sample j at node k to a push in
segment l, Π_j(k) (w, w) its cost to go without control, and E_j(k) what the two make of a state at
node k in the gradient of segment k,

    H_kl[(a, p), (b, i)] = Σ_j (h_k/2) σ̂_a(k) σ̂_b(l) (EΨ)_pi − h_k σ′_a B_p σ̂_b(l) (MΨ)_ai, k > l,

two products of a (c², N) with an (N, w²) matrix for each pair of segments. The segments are ordered
from p = 1 back, so that the Cholesky factorisation meets the pivots of the Riccati recursion.

Cost with S segments, c = w + 1, m = cw: 2 S² m² N + (S m)³/3 flops and 8 (S m)² bytes to factor,
and workspace of 2 S c² N numbers; a solve 2 (S m)² + 12 S m N.

There is no feedback in Ψ: where a network amplifies its representations by 1e6 and more, the
recursion keeps digits that are lost here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamshoot.methods.indirect.linear_quadratic import LinearQuadraticSystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


class Condensing(LinearQuadraticSystem):
    """The system by a Cholesky factorisation of the reduced Hessian in the control.

    Its solutions are those of `RiccatiRecursion` to rounding, and so is `least`, but that it is NaN
    here where the Hessian is not positive definite; systems are solved by LU there.

    Attributes
    ----------
    growth : float
        Largest entry of a response to a unit push, ‖Ψ‖_max/h.
    """

    def _factor(self) -> None:
        from scipy.linalg import cho_factor, cho_solve, lu_factor, lu_solve

        self.growth = 1.0
        H = self._hessian()
        if not np.all(np.isfinite(H)):
            raise np.linalg.LinAlgError("the reduced Hessian is not finite")
        try:  # LAPACK sees the transpose, its upper triangle
            factors = cho_factor(H.T, lower=False, overwrite_a=True, check_finite=False)
            self._solve: Callable[[NDArray], NDArray] = \
                lambda g: cho_solve(factors, g, check_finite=False)
        except np.linalg.LinAlgError:
            self.definite, self.least = False, float("nan")
            H = self._hessian()
            H = np.tril(H) + np.tril(H, -1).T
            factors = lu_factor(H, overwrite_a=True, check_finite=False)
            self._solve = lambda g: lu_solve(factors, g, check_finite=False)
            return
        pivots = np.diag(factors[0]).reshape(len(self.h), -1)[::-1] ** 2
        self.least = float(np.min(pivots / (self.h * self.weight)[:, None]))

    def _hessian(self) -> NDArray:
        """H (S m, S m), its lower triangle, segments from the last to the first."""
        count, N, w, _ = self.M.shape
        c = self.s.shape[1]
        own, across = self._togo()
        H = np.zeros((count, c * w, count, c * w))
        response = np.empty((N, w, count, w))  # Ψ(k, l), node k for all l < k
        flat = response.reshape(N, w, -1)
        diagonal = np.arange(c * w)
        for k in range(count):
            h, M, last = self.h[k], self.M[k], count - 1 - k
            if k:
                before = flat[:, :, : k * w]
                H[count - k:, :, last] = self._blocks(
                    k, across[k] @ before, M @ before, self.s[k - 1 :: -1]
                )
                flat[:, :, : k * w] = 2 * (M @ before) - before
                self.growth = max(self.growth, float(np.abs(before).max() / self.h.max()))
            response[:, :, k] = h * M
            half = np.ascontiguousarray(0.5 * h * M)
            block = self._blocks(k, own[k] @ half, np.zeros_like(half), self.s[k : k + 1])[0]
            cross = self._blocks(k, np.zeros_like(half), half, self.s[k : k + 1])[0]
            block += cross + cross.T
            block[diagonal, diagonal] += h * self.weight
            H[last, :, last] = block
        return H.reshape(count * c * w, -1)

    def _togo(self) -> tuple[NDArray, NDArray]:
        """What M z in segment k makes of the gradient there: Mᵀ(4Π + hQ), and E; (S, N, w, w)."""
        own, across = np.empty_like(self.M), np.empty_like(self.M)
        N, w = self.M.shape[1:3]
        unit, togo = np.eye(w), np.broadcast_to(self.terminal, (N, w, w))
        for k in range(len(self.M) - 1, -1, -1):
            M = self.M[k]
            Mt = np.swapaxes(M, 1, 2)
            bend = self.h[k] * Mt * self.Q[k][:, None, :]
            T = 2 * M - unit
            through = togo @ T
            own[k] = 4 * (Mt @ togo) + bend
            across[k] = 2 * (Mt @ through) + bend @ M
            togo = across[k] - through
            togo = 0.5 * (togo + np.swapaxes(togo, 1, 2))
        return own, across

    def _blocks(self, k: int, X: NDArray, Z: NDArray, features: NDArray) -> NDArray:
        """Blocks H_lk of the segments whose σ̂ are in `features` (count, c, N), latest first.

        X and Z (N, w, count · w), earliest first, are E and M times the responses at node k.
        """
        count, c, N = features.shape
        w = X.shape[1]
        h = self.h[k]

        def by_segment(V: NDArray) -> NDArray:
            V = V.reshape(N, w, count, w).transpose(2, 0, 1, 3)[::-1]
            return np.ascontiguousarray(V).reshape(count, N, w * w)

        pairs = (self.s[k][:, None] * features[:, None]).reshape(count, c * c, N)
        one = (pairs @ by_segment(0.5 * h * X)).reshape(count, c, c, w, w)  # a, b, p, i
        pairs = (self.b[k].T[:, None] * features[:, None]).reshape(count, w * c, N)
        other = pairs @ by_segment(-h * self.slope[k][:, :, None] * Z)
        blocks = one.transpose(0, 2, 4, 1, 3).copy()  # b, i, a, p
        blocks[:, :, :, :w] += other.reshape(count, w, c, w, w).transpose(0, 2, 4, 3, 1)
        return blocks.reshape(count, c * w, c * w)

    def _feedforward(self, g: NDArray) -> NDArray:
        """Controls that answer a gradient g (S, m): −H⁻¹ g."""
        return -self._solve(g[::-1].ravel()).reshape(g.shape)[::-1]
