"""The linear-quadratic problem of a Newton step by a Riccati recursion in the representations.

The problem is that of `hamshoot.methods.indirect.linear_quadratic`. The recursion says more than
the solution: all its w(w+1) × w(w+1) matrices positive definite means that the second variation is
positive, no conjugate point, a strict local minimum.

Cost with S segments, n = wN, m = w(w+1): factorisation S (2m + 8w) n² flops and S m n numbers of
memory, quadratic in N (a dense elimination in (A, B) takes 160 S n³ and 36 S n²). Never a kernel
N × N.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamshoot.methods.indirect.linear_quadratic import LinearQuadraticSystem

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RiccatiRecursion(LinearQuadraticSystem):
    """The system factored from p = 1 back; where a pivot is not positive, by its eigenvalues."""

    def _factor(self) -> None:
        """Gains K (S, m, n) and inverses (S, m, m) of the recursion, from p = 1 back."""
        from scipy.linalg.lapack import dpotrf, dtrtri

        count, N, w, _ = self.M.shape
        n, c = N * w, self.s.shape[1]
        m = c * w
        self.K, self.inverse = np.empty((count, m, n)), np.empty((count, m, m))
        P = np.zeros((N, w, N, w))
        P[np.arange(N), :, np.arange(N), :] = self.terminal
        P = P.reshape(n, n)
        diagonal = np.arange(N)
        for k in range(count - 1, -1, -1):
            h, M, s = self.h[k], self.M[k], self.s[k]
            Mt = np.ascontiguousarray(np.swapaxes(M, 1, 2))
            MtP = (Mt @ P.reshape(N, w, n)).reshape(n, n)
            first = (Mt @ np.ascontiguousarray(MtP.T).reshape(N, w, n)).reshape(n, n)
            first *= 4
            blocks = first.reshape(N, w, N, w)
            blocks[diagonal, :, diagonal, :] += h * (Mt * self.Q[k][:, None, :]) @ M
            MtP *= 2
            cross = self._cross(k, M)  # (m, n), h X M
            left = _gather(s, first)
            Huu = (0.5 * h) ** 2 * _gather(s, np.ascontiguousarray(left.T))
            half = 0.5 * h * _gather(s, np.ascontiguousarray(cross.T))
            Huu += half + half.T
            Huu[np.diag_indices(m)] += h * self.weight
            left -= _gather(s, MtP)
            left *= 0.5 * h
            left += cross
            if not np.all(np.isfinite(Huu)):
                raise np.linalg.LinAlgError("a pivot of the recursion is not finite")
            U, bad = dpotrf(Huu.T, lower=0)
            if not bad:
                least = float(np.min(np.diag(U))) ** 2
                root, _ = dtrtri(U, lower=0)  # Huu⁻¹ = root rootᵀ
                Y = root.T @ left
                np.matmul(-root, Y, out=self.K[k])
                np.matmul(root, root.T, out=self.inverse[k])
                gain = Y.T @ Y
            else:
                self.definite = False
                values, vectors = np.linalg.eigh(Huu)
                least = float(values[0])
                values = np.where(np.abs(values) < 1e-10 * np.abs(values).max(), np.inf, values)
                self.inverse[k] = (vectors / values) @ vectors.T
                self.K[k] = -self.inverse[k] @ left
                gain = -left.T @ self.K[k]
            self.least = min(self.least, least / (h * self.weight))
            P = P + first
            P -= MtP
            P -= MtP.T
            P -= gain
            # An antisymmetric rounding error would grow threefold a step.
            P = 0.5 * (P + P.T)

    def _cross(self, k: int, M: NDArray) -> NDArray:
        """h X M with uᵀXz = −⟨B, δW (σ′ ⊙ z)⟩; u is δW column by column."""
        N, w = self.b[k].shape
        c = self.s.shape[1]
        out = np.zeros((c, w, N, w))
        rows = (self.h[k] * self.slope[k])[:, :, None] * M  # (N, b, i)
        out[:w] = -self.b[k].T[None, :, :, None] * rows.transpose(1, 0, 2)[:, None]
        return out.reshape(c * w, N * w)

    def _feedforward(self, g: NDArray) -> NDArray:
        """Controls that answer a linear term g in the controls."""
        assert self.K is not None  # `_factor` made it
        count, N, w, _ = self.M.shape
        out, q = np.empty_like(g), np.zeros((N, w))
        for k in range(count - 1, -1, -1):
            zeta = 2 * (q[:, None, :] @ self.M[k])[:, 0]
            total = g[k] + (0.5 * self.h[k] * (self.s[k] @ zeta)).ravel()
            out[k] = -(self.inverse[k] @ total)
            q = zeta - q + (total @ self.K[k]).reshape(N, w)
        return out


def _gather(s: NDArray, rows: NDArray) -> NDArray:
    """Vᵀ rows: (c, N) features and (N w, ·) rows to (c w, ·), Σ_j s_bj rows_ja."""
    c, N = s.shape
    return (s @ rows.reshape(N, -1)).reshape(c * (len(rows) // N), -1)
