"""Second derivatives of J in controls and learned maps together.

To the Hessian in the controls (`hamshoot.methods.newton.reduced_hessian`) come the rows of the
maps. A change of P moves A_0 by δP x of a sample, and from there on states and costates are carried
by the w × w matrices T_k = ∂A_k/∂A_0 and ∂B_k/∂A_0:

    ∂²(J/λ)/∂P∂P    = μ_P/λ I − Σ x xᵀ ⊗ ∂B_0/∂A_0
    ∂²(J/λ)/∂W_k∂P  = −ρ_k Σ (∂B_{k+1}/∂A_0 ⊗ x σ̂_kᵀ + B_{k+1} ⊗ x (σ′_k T_k)ᵀ)
    ∂²(J/λ)/∂Q∂u    = (1/λ) Σ (C_zz Q ∂A_L/∂u ⊗ A_L + C_z ⊗ ∂A_L/∂u),     u = P or W
    ∂²(J/λ)/∂Q∂Q    = μ_Q/λ I + (1/λ) Σ C_zz ⊗ A_L A_Lᵀ.

With n controls it costs O((n + w d_in) w (d_in + d_out) N) flops more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamshoot.methods.newton.reduced_hessian import (
    BLOCK_NUMBERS,
    Expansion,
    second_derivatives,
    tangents_of,
    transition,
)
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray


def joint_second_derivatives(
    problem: TrainingProblem, at: Expansion, A: NDArray, held: NDArray | None = None,
) -> tuple[NDArray, NDArray]:
    """Hessian of J/λ in W, P and Q, and the derivatives of the entries of A that are held.

    Parameters
    ----------
    problem : TrainingProblem
        With the maps of the network.
    at : Expansion
    A : ndarray, shape (L+1, w, N)
    held : ndarray of bool, shape (L, w, N), optional
        Entries at left nodes; with a learned lift also at the first.

    Returns
    -------
    hessian : ndarray, shape (n, n)
        In the order of `hamshoot.theory.learned.flat`.
    rows : ndarray, shape (k, n)
    """
    plain, rows = second_derivatives(at, held)
    m, n = len(plain), learned.count(problem, len(at.weights))
    hessian, joint_rows = np.zeros((n, n)), np.zeros((len(rows), n))
    hessian[:m, :m], joint_rows[:, :m] = plain, rows
    parts = _Parts(problem, at, A, hessian, joint_rows, held)
    size = max(1, BLOCK_NUMBERS // (len(at.weights) * A.shape[1] ** 2))
    for first in range(0, A.shape[2], size):
        parts.add(slice(first, first + size))
    weights = learned.flat_weights(problem, at.steps)
    diagonal = np.arange(m, n)
    hessian[diagonal, diagonal] += weights[m:]
    hessian[m:, :m] = hessian[:m, m:].T
    block = hessian[m:, m:]
    block[:] = np.triu(block) + np.triu(block, 1).T
    return hessian, joint_rows


class _Parts:
    """The blocks above the diagonal of P and Q, summed over blocks of samples."""

    def __init__(self, problem: TrainingProblem, at: Expansion, A: NDArray, hessian: NDArray,
                 rows: NDArray, held: NDArray | None):
        self.problem, self.at, self.A, self.rows = problem, at, A, rows
        L, w, c = at.weights.shape
        d_in, d_out, m = problem.d_in, problem.d_out, L * w * c
        end = m + w * d_in * (problem.lift_decay is not None)
        self.learns_lift = end > m
        self.hessian, self.m, self.end = hessian, m, end
        self.held = np.zeros(at.slopes.shape, bool) if held is None else held
        self.numbers = np.full(self.held.shape, -1)
        self.numbers[self.held] = np.arange(len(rows))
        self.learns_readout = problem.readout_decay is not None
        self.outer = (d_out, w)

    def add(self, some: slice) -> None:
        """The share of some samples."""
        if self.learns_lift:
            self._add_lift(some)
        if self.learns_readout:
            self._add_readout(some)

    def _carried(self, some: slice) -> list[NDArray]:
        """∂A_k/∂A_0, (samples, w, w), k = 0 … L."""
        count, w = self.A[0][:, some].shape[1], self.A.shape[1]
        T = [np.broadcast_to(np.eye(w), (count, w, w))]
        for k in range(len(self.at.steps)):
            T.append(transition(self.at, k, some) @ T[-1])
        return T

    def _add_lift(self, some: slice) -> None:
        at, X = self.at, self.problem.scaled_inputs[:, some]
        w = self.A.shape[1]
        T = self._carried(some)
        dB = (at.share if at.share.ndim == 2 else at.share[some]) @ T[-1]
        m = self.m
        target = self.hessian[:m, m : self.end].reshape(*at.weights.shape, w, len(X))
        for k in range(len(at.steps) - 1, -1, -1):
            S, rho = at.features[k][:, some], at.steps[k]
            part = np.einsum("sia,cs,xs->icax", dB, S, X, optimize=True)
            slope = at.slopes[k][:, some].T[:, :, None] * T[k]
            part[:, :w] += np.einsum("is,sca,xs->icax", at.momenta[k + 1][:, some], slope, X,
                                     optimize=True)
            target[k] -= rho * part
            F = transition(at, k, some)
            dB = F.swapaxes(1, 2) @ dB + at.bends[k][:, some].T[:, :, None] * T[k]
            self._add_rows(k, T[k], X, some)
        self.hessian[:m, m : self.end] = target.reshape(m, -1)
        block = np.einsum("sia,xs,ys->ixay", dB, X, X, optimize=True)
        self.hessian[m : self.end, m : self.end] -= block.reshape(self.end - m, -1)

    def _add_rows(self, k: int, T: NDArray, X: NDArray, some: slice) -> None:
        """∂A_k/∂P of the entries held."""
        i, s = np.nonzero(self.held[k][:, some])
        if len(i):
            rows = T[s, i][:, :, None] * X[:, s].T[:, None, :]
            self.rows[self.numbers[k][:, some][i, s], self.m : self.end] = rows.reshape(len(i), -1)

    def _add_readout(self, some: slice) -> None:
        at, problem, decay = self.at, self.problem, self.problem.weight_decay
        L, w, c = at.weights.shape
        end, Q = self.A[-1][:, some], problem.readout
        whole = Q @ self.A[-1]
        slopes = problem.criterion.gradient(whole, problem.targets)[:, some] / decay
        curved = problem.criterion.curvature(whole, problem.targets)[some] / decay
        tangents = tangents_of(at, some)[L].reshape(-1, w, L, w)
        T = tangents.transpose(2, 0, 1, 3)  # (L, samples, w, w)
        features = [at.features[j][:, some] for j in range(L)]
        first = self.end
        target = self.hessian[: self.m, first:]
        for j in range(L):
            rows = slice(j * w * c, (j + 1) * w * c)
            target[rows] += self._mixed(T[j], features[j], end, slopes, curved, Q)
        if self.learns_lift:
            X = problem.scaled_inputs[:, some]
            self.hessian[self.m : first, first:] += self._mixed(
                self._carried(some)[-1], X, end, slopes, curved, Q)
        own = np.einsum("sop,is,js->oipj", curved, end, end, optimize=True)
        self.hessian[first:, first:] += own.reshape(Q.size, Q.size)

    def _mixed(self, T: NDArray, features: NDArray, end: NDArray, slopes: NDArray,
               curved: NDArray, Q: NDArray) -> NDArray:
        """∂²(J/λ)/∂u∂Q of a matrix u whose change enters by T δu features, (rows of u, Q.size)."""
        part = np.einsum("soa,cs,is->acoi", curved @ Q @ T, features, end, optimize=True)
        part += np.einsum("os,sia,cs->acoi", slopes, T, features, optimize=True)
        return part.reshape(-1, Q.size)
