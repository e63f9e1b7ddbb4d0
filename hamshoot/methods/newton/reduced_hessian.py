"""Newton's method on the controls with their dense Hessian; what it is assembled from.

With the roll-out eliminated, the Hessian of J in the controls is a sum over samples. A sample s
feels a change of W_j only through the vector δW_j σ̂(A_{j,s}), so its share of block (j, k) is a
w × w matrix, the change of momentum B_{k+1} with that vector, times the outer product of σ̂_j and
σ̂_k, plus the change of σ̂_k times B_{k+1}. The w × w matrices follow from one forward and one
backward sweep, and a block is two products of matrices, (w², N) with (N, (w+1)²). The same sweep
gives the derivatives of single entries of A, which the polish of a ReLU network holds at 0.

A Hessian costs 2L²w⁴N + L²w³N flops, and L²w²/2 numbers of memory a sample, in blocks of samples;
its Cholesky factor L³w⁶/3 flops. Against the L(2m + 4w)(wN)² flops of the Riccati recursion
(`hamshoot.methods.newton.differential_dynamic_programming`) this is the cheaper one where samples
are many: with 20 layers from N = 57 on at w = 4, N = 88 at w = 8, N = 128 at w = 13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.methods.newton.levenberg_marquardt import (
    ROUNDING,
    Iterate,
    Shifts,
    Trial,
    longest_step,
)
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Numbers of tangents held at a time.
BLOCK_NUMBERS = 10_000_000
#: Below this stationarity a Hessian that is not definite belongs to a saddle, to be left along its
#: most negative curvature.
SADDLE = 1e-4


class Expansion(NamedTuple):
    """What the second derivatives of J/λ need of a roll-out.

    Attributes
    ----------
    weights : ndarray, shape (L, w, w+1)
    steps : ndarray, shape (L,)
    keep : ndarray, shape (L,)
        1 − ρL̃.
    features, slopes, bends : ndarray, shapes (L, w+1, N), (L, w, N), (L, w, N)
        σ̂, σ′ and σ″ ⊙ ρWᵀB at the left nodes.
    momenta : ndarray, shape (L+1, w, N)
    share : ndarray, shape (w, w) or (N, w, w)
        ∂B_L/∂A_L, −2/(λN) QᵀQ, or of another loss a block a sample.
    leak : float
        L̃.
    """

    weights: NDArray
    steps: NDArray
    keep: NDArray
    features: NDArray
    slopes: NDArray
    bends: NDArray
    momenta: NDArray
    share: NDArray
    leak: float


def expansion(
    problem: TrainingProblem, A: NDArray, B: NDArray, W: NDArray, steps: NDArray,
    pattern: NDArray | None = None,
) -> Expansion:
    """Of a network, from its roll-out and costate.

    With a pattern of slopes (L, w, N), σ(A) = pattern ⊙ A as in a ReLU network whose entries keep
    their sides; else σ is the problem's, and smooth or linear.
    """
    sigma = problem.sigma
    if pattern is None:
        value, slopes = sigma(A[:-1]), sigma.slope(A[:-1])
        bends = sigma.curvature(A[:-1]) * discrete.pulled(W, steps, B)
    else:
        value, slopes, bends = pattern * A[:-1], pattern, np.zeros(A[:-1].shape)
    if problem.bias:
        value = np.concatenate([value, np.ones((len(value), 1, value.shape[2]))], axis=1)
    share = -2 / (problem.weight_decay * problem.n_samples) * problem.readout.T @ problem.readout
    if not problem.criterion.plain:
        share = -ham.terminal_curvature(A[-1], problem.readout, problem.targets,
                                        problem.weight_decay, problem.criterion)
    leak = problem.effective_depth
    return Expansion(W, steps, 1 - steps * leak, value, slopes, bends, B, share, leak)


def second_derivatives(
    at: Expansion, held: NDArray | None = None, block: int | None = None
) -> tuple[NDArray, NDArray]:
    """Hessian of J/λ in the controls, and the derivatives of the entries of A that are held.

    Parameters
    ----------
    at : Expansion
    held : ndarray of bool, shape (L, w, N), optional
        Entries at left nodes; none by default.
    block : int, optional
        Samples at a time; by default what BLOCK_NUMBERS holds.

    Returns
    -------
    hessian : ndarray, shape (n, n)
    constraints : ndarray, shape (k, n)
        ∂A/∂W of the entries held, in their order in memory.
    """
    L, w, c = at.weights.shape
    N, m = at.features.shape[2], w * c
    upper = np.zeros((L, w, c, L, w, c))
    held = np.zeros((L, w, N), bool) if held is None else held
    rows = np.zeros((int(held.sum()), L, w, c))
    numbers = np.full(held.shape, -1)
    numbers[held] = np.arange(len(rows))
    block = max(1, BLOCK_NUMBERS // (L * L * w * w)) if block is None else block
    for first in range(0, N, block):
        some = slice(first, first + block)
        tangents = tangents_of(at, some)
        _add_block(upper, at, tangents, some)
        for k in range(1, L):
            i, s = np.nonzero(held[k][:, some])
            if len(i):
                parts = tangents[k][s, i].reshape(-1, k, w)
                features = at.features[:k, :, some][:, :, s].transpose(2, 0, 1)
                rows[numbers[k][:, some][i, s], :k] = parts[..., None] * features[:, :, None]
    hessian = upper.reshape(L * m, L * m)
    below = np.tril_indices(L, -1)
    blocks = hessian.reshape(L, m, L, m)
    for left, right in zip(*below, strict=True):
        blocks[left, :, right] = blocks[right, :, left].T
    for k in range(L):
        blocks[k, :, k] = 0.5 * (blocks[k, :, k] + blocks[k, :, k].T)
    diagonal = np.arange(L * m)
    hessian[diagonal, diagonal] += np.repeat(at.steps / at.leak, m)
    return hessian, rows.reshape(len(rows), L * m)


def tangents_of(at: Expansion, some: slice) -> list[NDArray]:
    """Of A_k with ρ_j times a unit vector added at node j + 1: (samples, w, kw), k = 0 … L."""
    count, w = at.slopes[0][:, some].shape[1], at.weights.shape[1]
    T = np.zeros((count, w, 0))
    tangents = [T]
    for k, rho in enumerate(at.steps):
        own = np.broadcast_to(rho * np.eye(w), (count, w, w))
        T = np.concatenate([transition(at, k, some) @ T, own], axis=2)
        tangents.append(T)
    return tangents


def transition(at: Expansion, k: int, some: slice) -> NDArray:
    """∂A_{k+1}/∂A_k, (samples, w, w)."""
    w = at.weights.shape[1]
    F = at.steps[k] * at.weights[k][:, :w] * at.slopes[k][:, some].T[:, None, :]
    F[:, np.arange(w), np.arange(w)] += at.keep[k]
    return F


def _add_block(upper: NDArray, at: Expansion, tangents: list[NDArray], some: slice) -> None:
    """Add the share of some samples to the blocks (j, k), j ≤ k, of the Hessian."""
    L, w, c = at.weights.shape
    S = at.features[:, :, some]
    count = S.shape[2]
    dB = (at.share if at.share.ndim == 2 else at.share[some]) @ tangents[L]
    for k in range(L - 1, -1, -1):
        T, B = tangents[k], at.momenta[k + 1][:, some]
        lower = np.ascontiguousarray((T * at.slopes[k][:, some].T[:, :, None]).transpose(2, 1, 0))
        change = np.ascontiguousarray(dB.transpose(2, 1, 0))  # (jw, w, samples)
        for j in range(k + 1):
            mine = slice(j * w, (j + 1) * w)
            outer = (S[j][:, None] * S[k]).reshape(c * c, count)
            part = (change[mine].reshape(w * w, count) @ outer.T).reshape(w, w, c, c)
            target = upper[j, :, :, k]  # (i, c, i′, c′)
            target -= at.steps[k] * part.transpose(0, 2, 1, 3)
            if j < k:
                outer = (S[j][:, None] * B).reshape(c * w, count)
                part = (lower[mine].reshape(w * w, count) @ outer.T).reshape(w, w, c, w)
                target[..., :w] -= at.steps[k] * part.transpose(0, 2, 3, 1)
        F = transition(at, k, some)
        dB = F.swapaxes(1, 2) @ dB[:, :, : k * w] + at.bends[k][:, some].T[:, :, None] * T


# -- Newton's method -------------------------------------------------------------------------------


def flops(width: int, columns: int, samples: int, layers: int) -> float:
    """Of one iteration: Hessian, counted twice as it runs at half the rate, and Cholesky factor."""
    n = layers * width * columns
    return 4.0 * n * layers * width * columns * samples + n**3 / 3


class DenseModel:
    """The quadratic model with the dense Hessian at an iterate, shifted by τρ/L̃.

    A stationary point that is a saddle is left along the eigenvector of the least eigenvalue.
    """

    def __init__(self, problem: TrainingProblem, steps: NDArray, at: Iterate):
        self.problem, self.steps, self.at = problem, steps, at
        here = expansion(problem, at.representations, at.momenta, at.weights, steps)
        self.hessian, _ = second_derivatives(here)
        self.weight = np.repeat(steps / problem.effective_depth, at.weights[0].size)
        self.g = self.weight * at.gradient.ravel()

    @staticmethod
    def shifts(problem: TrainingProblem) -> Shifts:
        """None to begin with: the Hessian is tried as it is."""
        return Shifts(first=0.0, least=1e-4, zero=1e-5)

    def at_rest(self, stationarity: float, tol: float) -> bool | Trial:
        """Whether this is a minimum; from a saddle, the step along its most negative curvature."""
        if stationarity > max(SADDLE, tol):
            return False
        if _factor(self.hessian, self.weight, 0.0) is None:
            return self._leave_saddle() or False
        return stationarity <= tol

    def trial(self, shift: float) -> Trial | None:
        """The step with this shift, if the Hessian is definite with it and J falls."""
        from scipy.linalg import cho_solve

        factor = _factor(self.hessian, self.weight, shift)
        if factor is None:
            return None
        step = -cho_solve(factor, self.g, check_finite=False)
        slope, curvature = float(self.g @ step), float(step @ (self.hessian @ step))
        decay = self.problem.weight_decay
        return longest_step(
            self.problem, self.steps, self.at.objective,
            lambda length: -decay * (length * slope + 0.5 * length**2 * curvature),
            lambda length: self._network_at(length * step))

    def _leave_saddle(self) -> Trial | None:
        """The lowest of points along the most negative curvature; None if none is lower."""
        from scipy.linalg import eigh

        value, vector = eigh(self.hessian, subset_by_index=[0, 0], check_finite=False)
        if value[0] >= -1e-12 * np.abs(np.diag(self.hessian)).max():
            return None
        direction = vector[:, 0] * (-1.0 if self.g @ vector[:, 0] > 0 else 1.0)
        lengths = float(np.linalg.norm(self.at.weights)) * 0.5 ** np.arange(12)
        trials = [self._trial_at(sign * length * direction)
                  for length in lengths for sign in (1, -1)]
        best = min(trials, key=lambda one: one.objective if np.isfinite(one.objective) else np.inf)
        lower = best.objective < self.at.objective - ROUNDING * abs(self.at.objective)
        return best if lower else None

    def _trial_at(self, step: NDArray) -> Trial:
        with np.errstate(all="ignore"):
            W, A = self._network_at(step)
            return Trial(1.0, W, A, discrete.objective(self.problem, A[-1], W, self.steps)[0])

    def _network_at(self, step: NDArray) -> tuple[NDArray, NDArray]:
        """Controls and representations after a step."""
        W = self.at.weights + step.reshape(self.at.weights.shape)
        return W, discrete.roll_out(self.problem, W, self.steps)


def _factor(hessian: NDArray, weight: NDArray, shift: float) -> tuple[NDArray, bool] | None:
    from scipy.linalg import cho_factor

    shifted = hessian.copy()
    shifted[np.arange(len(weight)), np.arange(len(weight))] += shift * weight
    try:
        # Transposed, which changes nothing but that LAPACK need not copy it.
        return cho_factor(shifted.T, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
