"""The Clarke residual: how far a ReLU network is from stationary when its kinks are given slopes.

A ReLU network is stationary in Clarke's sense when some choice of slopes d ∈ [0, 1] at the entries
of A on the kink makes ∇J(d) vanish. The gradient is affine in the multipliers m = d ⊙ v, v = ρWᵀD,
and multi-affine in d, so that a few Gauss–Newton steps, each a bounded linear least-squares
problem, find the best d. A leaky ReLU has the slopes α + (1 − α)d there: the search is in d all the
same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete
from hamshoot.theory import learned

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

#: Entries with |A| below this times max(1, max|A|) count as lying on the kink of ReLU.
KINK_TOLERANCE = 1e-9
#: Steps, or rounds, of the search for slopes.
MOST_ROUNDS = 50
#: Kinks beyond which the matrix-free search takes over, whatever the number of controls.
MOST_DENSE = 3000
#: More unknowns than this go to the interior method of lsq_linear.
BVLS_LARGEST = 200
#: Columns of W below this times the largest count as 0.
IDLE_COLUMN = 1e-13
#: Above this many numbers in the Jacobian of the Clarke residual, it is not formed.
CLARKE_DENSE = 20_000_000
#: Flops and sweeps that the search without a Jacobian may take, and steps of one solve by LSMR. At
#: w = 100, N = 1000, L = 20 the flops allow 375 sweeps.
MOST_FLOPS, MOST_SWEEPS, MOST_STEPS = 3e11, 20_000, 100


class ClarkeResult(NamedTuple):
    """The best element of Clarke's subdifferential that was found.

    Attributes
    ----------
    residual : float
        ‖∇J(d)‖_F at the best d.
    slopes : ndarray, shape (L, w, N)
        σ′ with d in the entries on the kink, of a leaky ReLU α + (1 − α)d.
    on_kink : ndarray of bool, shape (L, w, N)
        Entry (ℓ, i, j) belongs to the left node of layer ℓ; none at ℓ = 0, where A is given, unless
        the lift is learned.
    idle : ndarray of bool, shape (L, w, N)
        Those of them whose neuron no weight reads: their slope is of no account.
    """

    residual: float
    slopes: NDArray
    on_kink: NDArray
    idle: NDArray


def clarke_residual(
    problem: TrainingProblem,
    representations: NDArray,
    weights: NDArray,
    steps: NDArray,
    terminal: NDArray | None = None,
) -> ClarkeResult:
    """Smallest ‖∇J(d)‖ over slopes d ∈ [0, 1] of the entries on the kink (Euler, ReLUs).

    With k entries on the kink a Gauss–Newton step costs O(k L w²) memory and O(k² L w²) flops.
    Beyond `CLARKE_DENSE` numbers in the Jacobian, LSMR on the entries off their bounds
    takes its place: a sweep of 4Lw²N flops a product, memory of a few (L, w, N) arrays.
    Every d ∈ [0, 1] gives an upper bound on the least residual. There the search may end early,
    after `MOST_FLOPS` flops or when it gains little, and what is returned is such a bound; a
    residual of 0 to rounding is proof of stationarity either way.

    Of learned maps ∇J has their part as well; the search is then always that with a Jacobian.
    """
    left = representations[:-1]
    slopes = problem.sigma.slope(left)
    on_kink = np.zeros(left.shape, bool)
    if problem.sigma.kinked:
        on_kink[:] = np.abs(left) <= KINK_TOLERANCE * max(1.0, float(np.abs(left).max()))
        on_kink[0] &= problem.lift_decay is not None
    evaluate = _ClarkeEvaluation(
        problem, representations, weights, steps, terminal, slopes, on_kink
    )
    # An entry whose neuron no weight reads (a column of W that is 0) has no effect whatever its d.
    columns = np.linalg.norm(weights[:, :, : problem.width], axis=1)[:, :, None]
    idle = on_kink & (columns <= IDLE_COLUMN * columns.max(initial=1.0))
    evaluate.on_kink = on_kink & ~idle
    n_kinks = int(evaluate.on_kink.sum())
    if n_kinks == 0:
        d = np.empty(0)
    elif problem.learns or (
            n_kinks <= MOST_DENSE and n_kinks * weights.size <= CLARKE_DENSE):
        d = _bounded_gauss_newton(evaluate, np.full(n_kinks, 0.5))
    else:
        d = _bounded_matrix_free(evaluate, np.full(n_kinks, 0.5))
    residual = float(np.linalg.norm(evaluate.gradient(d)))
    slopes = evaluate.slopes(d)
    slopes[idle] = evaluate.low + 0.5 * evaluate.span
    return ClarkeResult(residual, slopes, on_kink, idle)


class _ClarkeEvaluation:
    """∇J(d), its Jacobian in d, and Jᵀ∇J, on a fixed roll-out."""

    def __init__(
        self, problem: TrainingProblem, representations: NDArray, weights: NDArray,
        steps: NDArray, terminal: NDArray | None, slopes: NDArray, on_kink: NDArray,
    ):
        self.problem, self.A, self.W, self.steps = problem, representations, weights, steps
        self.terminal, self.base, self.on_kink = terminal, slopes, on_kink
        self.S = np.array([ham.augmented(A, problem.sigma, problem.bias)
                           for A in representations[:-1]])
        self.sweeps = 0
        self.low = problem.sigma.negative_slope
        self.span = 1 - self.low
        self.scale = problem.weight_decay / problem.effective_depth * steps[:, None, None]

    @property
    def left(self) -> float:
        """Sweeps that may still be made; below 0 the search is to end."""
        L, w, N = self.base.shape
        return min(MOST_SWEEPS, MOST_FLOPS / (4 * L * w * w * N)) - self.sweeps

    def slopes(self, d: NDArray) -> NDArray:
        """σ′ with these d on the kink."""
        slopes = self.base.copy()
        slopes[self.on_kink] = self.low + self.span * d
        return slopes

    def gradient(self, d: NDArray) -> NDArray:
        """∂J/∂W, shape (L, w, w+1); with learned maps one vector, those by P and Q behind it."""
        momenta, scaled = self._sweep(d)
        if not self.problem.learns:
            return self.scale * scaled
        return np.concatenate([(self.scale * scaled).ravel(),
                               *learned.map_slopes(self.problem, self.A[-1], momenta[0])])

    def _sweep(self, d: NDArray) -> tuple[NDArray, NDArray]:
        self.sweeps += 1
        return discrete.costates(self.problem, self.A, self.W, self.steps,
                        terminal=self.terminal, slopes=self.slopes(d))

    def _force(self, momenta: NDArray) -> NDArray:
        """∂D_ℓ/∂d at the entries on the kink, (1 − α)ρWᵀD of the layer above, (L, w, N)."""
        w = self.problem.width
        products = np.swapaxes(self.W[:, :, :w], 1, 2) @ momenta[1:]
        return -self.span * self.problem.weight_decay * self.steps[:, None, None] * products

    def jacobian(self, d: NDArray) -> NDArray:
        """∂(∂J/∂W)/∂d, shape (L w (w+1), k): a kink of sample j moves D of that sample only."""
        slopes, (momenta, _) = self.slopes(d), self._sweep(d)
        layer, row, sample = np.nonzero(self.on_kink)
        force = self._force(momenta)[self.on_kink]
        jacobian = np.zeros((*self.W.shape, len(layer)))
        D = np.zeros((self.problem.width, len(layer)))  # D at the right node of layer k − 1
        w, L_tilde = self.problem.width, self.problem.effective_depth
        for k in range(len(self.W) - 1, 0, -1):
            D = slopes[k][:, sample] * (self.steps[k] * self.W[k][:, :w].T @ D) \
                + (1 - self.steps[k] * L_tilde) * D
            here = layer == k
            D[row[here], here] += force[here]
            jacobian[k - 1] = self.steps[k - 1] * D[:, None] * self.S[k - 1][:, sample][None]
        if not self.problem.learns:
            return jacobian.reshape(-1, len(layer))
        D = slopes[0][:, sample] * (self.steps[0] * self.W[0][:, :w].T @ D) \
            + (1 - self.steps[0] * L_tilde) * D
        here = layer == 0
        D[row[here], here] += force[here]
        return np.concatenate([jacobian.reshape(-1, len(layer)),
                               learned.map_slopes_moved(self.problem, D, sample)])

    def value_and_slope(self, d: NDArray) -> tuple[float, NDArray]:
        """½‖∇J(d)‖² and its gradient in d, by one backward and one forward (tangent) sweep."""
        momenta, scaled = self._sweep(d)
        G = self.scale * scaled
        self.sweeps += 1
        slope = (self.tangent(G, self.slopes(d)) * self._force(momenta))[self.on_kink]
        return 0.5 * float(np.sum(G * G)), slope

    def tangent(self, G: NDArray, slopes: NDArray) -> NDArray:
        """Change of A at the left nodes, (L, w, N), when W changes by G, with these slopes."""
        w, L_tilde = self.problem.width, self.problem.effective_depth
        tangent = np.zeros_like(self.A[0])
        out = np.zeros_like(self.base)
        for k in range(len(self.W)):
            out[k] = tangent
            tangent = (1 - self.steps[k] * L_tilde) * tangent + self.steps[k] * (
                self.W[k][:, :w] @ (slopes[k] * tangent) + G[k] @ self.S[k]
            )
        return out


def _bounded_gauss_newton(evaluate: _ClarkeEvaluation, d: NDArray) -> NDArray:
    """Gauss–Newton steps without bounds first, which is all it takes at a stationary point."""
    free = _descend_residual(evaluate, d, _free_step)
    if np.all((free >= -1e-12) & (free <= 1 + 1e-12)):
        return np.clip(free, 0, 1)
    return _descend_residual(evaluate, np.clip(free, 0, 1), _bounded_step)


def _descend_residual(
    evaluate: _ClarkeEvaluation, d: NDArray, step_of: Callable[[NDArray, NDArray, NDArray], NDArray]
) -> NDArray:
    """Follow steps of a linear model while they shorten ∇J(d)."""
    r = evaluate.gradient(d).ravel()
    for _ in range(MOST_ROUNDS):
        if not np.any(r):
            break
        step = step_of(evaluate.jacobian(d), r, d)
        length = 1.0
        while length > 1e-4:
            trial = d + length * step
            r_trial = evaluate.gradient(trial).ravel()
            if np.linalg.norm(r_trial) < np.linalg.norm(r):
                break
            length /= 2
        else:
            break
        gain = np.linalg.norm(r) - np.linalg.norm(r_trial)
        d, r = trial, r_trial
        if gain <= 1e-3 * np.linalg.norm(r):
            break
    return d


def _free_step(J: NDArray, r: NDArray, d: NDArray) -> NDArray:
    """The shortest step of least ‖r + J step‖."""
    return np.linalg.lstsq(J, -r, rcond=1e-12)[0]


def _bounded_step(J: NDArray, r: NDArray, d: NDArray) -> NDArray:
    """The step of least ‖r + J step‖ that keeps d + step in [0, 1]."""
    from scipy.optimize import lsq_linear

    # Only the triangular factor of J matters. Columns and right-hand side get unit size: the
    # tolerance of lsq_linear is an absolute one.
    Q, J = np.linalg.qr(J)
    r, size = Q.T @ r, float(np.linalg.norm(r))
    columns = np.linalg.norm(J, axis=0)
    largest = columns.max(initial=0.0)
    columns[columns <= 1e-14 * largest] = max(largest, 1e-300)
    # It wants lower < upper strictly inside its box.
    low, high = (-d - 1e-15) * columns / size, (1 - d + 1e-15) * columns / size
    method = "bvls" if len(d) <= BVLS_LARGEST else "trf"
    scaled = lsq_linear(J / columns, -r / size, bounds=(low, high), method=method, tol=1e-12)
    return np.clip(d + scaled.x * size / columns, 0, 1) - d


def _bounded_matrix_free(evaluate: _ClarkeEvaluation, d: NDArray) -> NDArray:
    """Rounds of L-BFGS-B, which finds the bounds that hold, and Gauss–Newton on the other entries.

    Both work in the multipliers m = d ⊙ v, every column of the Jacobian of about unit size,
    with a sweep for each product; what Gauss–Newton proposes by LSMR is cut off at the bounds. A
    few rounds that shorten ∇J(d) by little, or MOST_FLOPS flops, end it.
    """
    r = evaluate.gradient(d)
    first = np.linalg.norm(r)
    goal, idle = 1e-3, 0
    for _ in range(MOST_ROUNDS):
        size = float(np.linalg.norm(r))
        if size <= 1e-15 * first or evaluate.left < 0:
            break
        d, r = _quasi_newton_round(evaluate, d, r)
        d, r = _gauss_newton_round(evaluate, d, r, goal)
        gain = size - float(np.linalg.norm(r))
        idle = idle + 1 if gain <= 1e-3 * size else 0
        goal = max(0.1 * goal, 1e-14)
        if idle > 3 or (idle and gain <= 1e-12 * size):
            break
    return d


def _quasi_newton_round(
    evaluate: _ClarkeEvaluation, d: NDArray, r: NDArray
) -> tuple[NDArray, NDArray]:
    from scipy.optimize import minimize

    scale = _Linearised(evaluate, d).column_sizes()
    scale = np.where(scale > 0, scale, 1.0)
    unit = float(np.sum(r * r))

    def scaled(x: NDArray) -> tuple[float, NDArray]:
        if evaluate.left < 0:
            raise StopIteration
        value, slope = evaluate.value_and_slope(np.clip(x / scale, 0.0, 1.0))
        if not kept or value < kept[0][0]:
            kept[:] = [(value, x.copy())]
        return value / unit, slope / (unit * scale)

    kept: list[tuple[float, NDArray]] = []
    try:
        minimize(scaled, d * scale, jac=True, method="L-BFGS-B",
                 bounds=np.stack([np.zeros_like(scale), scale], axis=1),
                 options=dict(maxiter=MOST_STEPS, maxcor=30, ftol=0.0, gtol=0.0))
    except StopIteration:
        if not kept:
            return d, r
    best = np.clip(kept[0][1] / scale, 0.0, 1.0)
    r_best = evaluate.gradient(best)
    return (best, r_best) if np.linalg.norm(r_best) < np.linalg.norm(r) else (d, r)


def _gauss_newton_round(
    evaluate: _ClarkeEvaluation, d: NDArray, r: NDArray, goal: float
) -> tuple[NDArray, NDArray]:
    """One step on the entries that no bound holds."""
    linear = _Linearised(evaluate, d)
    slope, scale = linear.adjoint(r), linear.column_sizes()
    free = ((d > 0) | (slope < 0)) & ((d < 1) | (slope > 0)) & (scale > 0)
    if not free.any():
        return d, r
    scale = np.where(free, 1 / np.where(scale > 0, scale, 1.0), 0.0)
    step = _least_squares(linear, -r, scale, goal)
    d_new, r_new = _shorter(evaluate, d, r, step)
    return (d, r) if r_new is None else (d_new, r_new)


def _shorter(
    evaluate: _ClarkeEvaluation, d: NDArray, r: NDArray, step: NDArray
) -> tuple[NDArray, NDArray | None]:
    """The longest of step, step/4, …, cut off at the bounds, that shortens ∇J(d)."""
    for length in 0.25 ** np.arange(6):
        trial = np.clip(d + length * step, 0.0, 1.0)
        r_trial = evaluate.gradient(trial)
        if np.linalg.norm(r_trial) < np.linalg.norm(r):
            return trial, r_trial
    return d, None


def _least_squares(linear: _Linearised, right: NDArray, scale: NDArray, goal: float) -> NDArray:
    """A step of small ‖J step − right‖, its unknowns divided by `scale`, 0 where that is 0."""
    from scipy.sparse.linalg import LinearOperator, lsmr

    scaled = LinearOperator(
        (right.size, len(scale)), dtype=float,
        matvec=lambda x: linear.product(scale * x).ravel(),
        rmatvec=lambda y: scale * linear.adjoint(y.reshape(right.shape)),
    )
    # An iteration takes two sweeps, and of none left one is still made: the search ends after it.
    steps = min(MOST_STEPS, 2 * int(np.count_nonzero(scale)) + 10,
                max(1, int(linear.evaluate.left // 2)))
    z = lsmr(scaled, right.ravel(), atol=goal, btol=0.0, conlim=0.0, maxiter=steps)[0]
    return scale * z


class _Linearised:
    """J = ∂(∂J/∂W)/∂d at one d, as products by sweeps."""

    def __init__(self, evaluate: _ClarkeEvaluation, d: NDArray):
        self.evaluate, self.slopes = evaluate, evaluate.slopes(d)
        momenta, _ = evaluate._sweep(d)
        self.force = evaluate._force(momenta)[evaluate.on_kink]

    def product(self, x: NDArray) -> NDArray:
        """J x, shape (L, w, w+1), by one sweep back."""
        at = self.evaluate
        at.sweeps += 1
        source = np.zeros_like(at.base)
        source[at.on_kink] = self.force * x
        w, leak = at.problem.width, at.problem.effective_depth
        out, D = np.zeros_like(at.W), source[-1]
        for k in range(len(at.W) - 2, -1, -1):  # D at the right node of layer k
            out[k] = at.steps[k] * D @ at.S[k].T
            D = source[k] + (1 - at.steps[k] * leak) * D \
                + self.slopes[k] * (at.steps[k] * at.W[k][:, :w].T @ D)
        return out

    def adjoint(self, G: NDArray) -> NDArray:
        """Jᵀ G, shape (k,), by one sweep forward."""
        self.evaluate.sweeps += 1
        return self.force * self.evaluate.tangent(G, self.slopes)[self.evaluate.on_kink]

    def column_sizes(self) -> NDArray:
        """Norms of the columns to first order, as if the leak alone carried D further down."""
        at = self.evaluate
        features = np.sum(at.S**2, axis=1)  # (L, N)
        keep = (1 - at.steps * at.problem.effective_depth) ** 2
        below = np.zeros_like(features)
        for k in range(1, len(features)):
            below[k] = at.steps[k - 1] ** 2 * features[k - 1] + keep[k - 1] * below[k - 1]
        rows = np.broadcast_to(below[:, None], at.base.shape)[at.on_kink]
        return np.abs(self.force) * np.sqrt(rows)
