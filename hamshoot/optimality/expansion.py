"""J around a stationary network: Hessian, entries on the kink, and what of it is free to move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.optimality import formulas, learned
from hamshoot.optimality.checks import setting_of
from hamshoot.optimality.kinks import KINK_TOLERANCE, Kinks, told_apart
from hamshoot.problem.training_problem import TrainingProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.optimality.formulas import Setting

#: Rows of the constraints within this fraction of the largest of being dependent count as such.
RANK_TOLERANCE = 1e-12
_STEP = 1e-30
#: Up to this size all eigenvalues of a matrix take no longer than one.
FEW = 200
_CHUNK_NUMBERS = 20_000_000

#: Hessian (n, n) and rows (k, n) from (setting, weights, steps, pattern, entries).
Derivatives = Callable[..., "tuple[NDArray, NDArray]"]


def complex_step_derivatives(
    setting: Setting, weights: NDArray, steps: NDArray, pattern: NDArray | None, entries: NDArray
) -> tuple[NDArray, NDArray]:
    """Hessian of J in the controls with a pattern of slopes held, and ∂A/∂W of some entries.

    Parameters
    ----------
    setting : Setting
    weights, steps : ndarray, shapes (L, w, w+1) and (L,)
    pattern : ndarray, shape (L, w, N), or None
        σ(A) = pattern ⊙ A; None takes σ itself.
    entries : ndarray of bool, shape (L, w, N)

    Returns
    -------
    hessian : ndarray, shape (n, n)
        Symmetrised; exact to rounding, as every gradient is differentiated by the complex step.
    rows : ndarray, shape (k, n)
    """
    n, (w, N) = weights.size, setting.start.shape
    chunk = max(1, _CHUNK_NUMBERS // (len(weights) * w * N * 2))
    scale = (setting.decay / setting.leak * steps)[:, None, None]
    hessian, rows = np.empty((n, n)), np.empty((n, int(entries.sum())))
    for first in range(0, n, chunk):
        some = np.arange(first, min(first + chunk, n))
        perturbed = np.repeat(weights.reshape(1, -1).astype(complex), len(some), axis=0)
        perturbed[np.arange(len(some)), some] += 1j * _STEP
        W = perturbed.reshape(-1, *weights.shape)
        A = formulas.roll_out(setting, W, steps, pattern=pattern)
        _, G = formulas.costates(setting, A, W, steps, slopes=pattern, pattern=pattern)
        hessian[some] = (scale * G).imag.reshape(len(some), n) / _STEP
        rows[some] = A[:, :-1][:, entries].imag / _STEP
    return 0.5 * (hessian + hessian.T), rows.T


def negligible(largest: float) -> float:
    """Size up to which rows of ∂A/∂W, the largest of this size, count as dependent or 0.

    Controls that change A by less than its tolerance on the kink do not take it off the kink, and
    such a row holds nothing. To leave it out only makes the test stricter.
    """
    return max(RANK_TOLERANCE * largest, KINK_TOLERANCE)


@dataclass
class Expansion:
    """One network and J around it to second order; see `hamshoot.optimality.second_order_layers`.

    Where a map is learned all of it is in the vector (W, P, Q) of `hamshoot.optimality.learned`, n
    its length.

    Attributes
    ----------
    setting : Setting
    weights, steps : ndarray, shapes (L, w, w+1) and (L,)
    representations, momenta : ndarray, shape (L+1, w, N)
    objective : float
    slope : ndarray, shape (n,)
        ∂J/∂W.
    size : float
        (λ/L̃) max(1, ‖√ρ W‖), against which the slope is small or not.
    kinks : Kinks or None
        For ReLU and leaky ReLU.
    multipliers : (float, float)
        Smallest and largest slope d of the entries on the kink that are not idle; NaN without any.
    derivatives : callable
        See `complex_step_derivatives`.
    """

    setting: Setting
    weights: NDArray
    steps: NDArray
    representations: NDArray
    momenta: NDArray
    objective: float
    slope: NDArray
    size: float
    kinks: Kinks | None
    multipliers: tuple[float, float]
    derivatives: Derivatives

    @property
    def gradient(self) -> float:
        """‖∂J/∂W‖."""
        return float(np.linalg.norm(self.slope))

    @cached_property
    def controls(self) -> NDArray:
        """What moves: W (L, w, w+1), or the vector."""
        setting = self.setting
        return learned.vector(setting, self.weights, setting.lift, setting.readout) \
            if setting.learns else self.weights

    def placed(self, controls: NDArray) -> tuple[Setting, NDArray]:
        """Setting and W (L, w, w+1) of other controls."""
        return learned.placed(self.setting, controls, self.weights.shape) \
            if self.setting.learns else (self.setting, controls)

    @cached_property
    def turns(self) -> NDArray:
        """Directions (k, n) that leave J as it is."""
        return learned.turns(self.setting, self.weights)

    @cached_property
    def fixed_entries(self) -> NDArray:
        """Entries that stay on the kink, (L, w, N): held ones, and those on a concave kink."""
        if self.kinks is None:
            return np.zeros(self.representations[:-1].shape, bool)
        return self.kinks.held | self.kinks.concave

    @cached_property
    def _expanded(self) -> tuple[NDArray, NDArray, NDArray]:
        """Hessian of J, and the rows ∂A/∂W of the entries that stay, and of idle ones."""
        pattern, fixed = None, self.fixed_entries
        idle = np.zeros_like(fixed)
        if self.kinks is not None:
            pattern, idle = self.kinks.slopes, self.kinks.idle
        wanted = fixed | idle
        hessian, rows = self.derivatives(self.setting, self.weights, self.steps, pattern, wanted)
        return hessian, rows[fixed[wanted]], rows[idle[wanted]]

    @property
    def hessian(self) -> NDArray:
        """Of J with the slopes as they are and idle entries switched off, (n, n)."""
        return self._expanded[0]

    @property
    def fixed(self) -> NDArray:
        """∂A/∂W of the entries that stay, (k, n)."""
        return self._expanded[1]

    @property
    def feeding(self) -> NDArray:
        """∂A/∂W of the idle entries, (k, n)."""
        return self._expanded[2]

    @cached_property
    def free(self) -> Free:
        """The directions that leave the entries that stay, (n,), m of them independent."""
        return Free(np.concatenate([self.fixed, self.turns]) if self.turns.size else self.fixed)

    @cached_property
    def reduced(self) -> NDArray:
        """Hessian in their coordinates, (m, m)."""
        reduced = self.free.coordinates(self.free.coordinates(self.hessian).T)
        return 0.5 * (reduced + reduced.T)


class Free:
    """The null space of k rows (k, n), with orthonormal coordinates, from their QR factors.

    The basis, n by n − k, is never formed: with few rows a product with the k reflections costs 4nk
    flops a vector, with the basis 2n².

    Attributes
    ----------
    rank : int
        Rows that count as independent.
    """

    def __init__(self, rows: NDArray) -> None:
        from scipy.linalg import qr

        self.rank = 0
        if len(rows):
            (self._reflections, self._scales), R, order = qr(
                rows.T, mode="raw", pivoting=True, check_finite=False)
            sizes = np.abs(np.diag(R))
            self.rank = int(np.sum(sizes > negligible(sizes[0])))
            self._triangle, self._order = R[: self.rank, : self.rank], order[: self.rank]

    def coordinates(self, X: NDArray) -> NDArray:
        """Of the parts of vectors, the columns of X, (n, …), within the null space: (m, …)."""
        return self._rotated(X, "T")[self.rank :]

    def directions(self, Y: NDArray) -> NDArray:
        """Vectors (n, …) of coordinates (m, …)."""
        return self._rotated(np.concatenate([np.zeros((self.rank, *Y.shape[1:])), Y]), "N")

    def moving(self, change: NDArray) -> NDArray:
        """Shortest vectors (n, …) that change the rows, of which there are some, by `change`."""
        from scipy.linalg import solve_triangular

        n = len(self._reflections)
        y = solve_triangular(self._triangle, change[self._order], trans=1, check_finite=False)
        return self._rotated(np.concatenate([y, np.zeros((n - self.rank, *y.shape[1:]))]), "N")

    def multipliers(self, X: NDArray, count: int) -> NDArray:
        """m (count, …), 0 on dependent rows, with rowsᵀ m the part of X (n, …) in their span."""
        found = np.zeros((count, *X.shape[1:]))
        if self.rank:
            from scipy.linalg import solve_triangular

            found[self._order] = solve_triangular(
                self._triangle, self._rotated(X, "T")[: self.rank], check_finite=False)
        return found

    def _rotated(self, X: NDArray, trans: str) -> NDArray:
        """Q X, or QᵀX."""
        if not self.rank:
            return X
        from scipy.linalg import get_lapack_funcs

        (rotate,) = get_lapack_funcs(("ormqr",), (self._reflections,))
        columns = np.asfortranarray(X.reshape(len(X), -1), dtype=float)
        size = int(rotate("L", trans, self._reflections, self._scales, columns, -1)[1][0])
        rotated, _, _ = rotate("L", trans, self._reflections, self._scales, columns, size)
        return rotated.reshape(X.shape)


def expanded(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, slopes: NDArray | None,
    derivatives: Derivatives,
) -> Expansion:
    """The expansion around a network, for ReLUs with slopes (L, w, N) on the kink."""
    setting = setting_of(problem)
    if setting.learns and derivatives is complex_step_derivatives:
        derivatives = learned.complex_step_derivatives
    A = formulas.roll_out(setting, weights, steps)
    B, G = formulas.costates(setting, A, weights, steps, slopes=slopes)
    kinks, multipliers = None, (float("nan"), float("nan"))
    if slopes is not None:
        kinks = told_apart(A, weights, steps, B, slopes, setting.negative_slope,
                           setting.inputs if setting.lift_decay > 0 else None)
        d = slopes[kinks.on_kink & ~kinks.idle]
        multipliers = (float(d.min()), float(d.max())) if d.size else multipliers
    return Expansion(
        setting, weights, steps, A, B,
        float(formulas.objective(setting, A[-1], weights, steps)[0]),
        learned.slopes(setting, steps, G, A[-1], B[0]),
        setting.decay / setting.leak * max(
            1.0, float(np.linalg.norm(np.sqrt(steps)[:, None, None] * weights))),
        kinks, multipliers, derivatives)


def smallest_eigenvalue(matrix: NDArray) -> tuple[float, float, NDArray]:
    """The smallest eigenvalue of a symmetric matrix, the largest in size, and the former's vector.

    A definite matrix has a Cholesky factor, and the Lanczos method on its inverse finds the
    smallest eigenvalue after a few solves; the largest, which is a scale, by Lanczos too, to three
    digits. Others take all eigenvalues, 4n³/3 flops.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve
    from scipy.sparse.linalg import LinearOperator, eigsh

    n = len(matrix)
    if n > FEW:
        try:
            factor = cho_factor(matrix, lower=True, check_finite=False)
        except LinAlgError:
            pass
        else:
            start = np.random.default_rng(0).standard_normal(n)
            inverse = LinearOperator((n, n), matvec=lambda x: cho_solve(
                factor, x, check_finite=False))
            values, vectors = eigsh(inverse, k=1, v0=start, tol=1e-10)
            largest = eigsh(matrix, k=1, v0=start, tol=1e-3, return_eigenvectors=False)
            return 1 / float(values[0]), float(largest[0]), vectors[:, 0]
    values, vectors = np.linalg.eigh(matrix)
    return float(values[0]), float(np.abs(values).max()), vectors[:, 0]
