"""J and its gradient for a large network with activations held on the kink of ReLU.

A stationary ReLU network holds entries of A exactly at 0 (`hamshoot.theory.hamiltonian`). Here the
conditions A_𝒦 = 0 are not constraints of the optimiser: they are solved on the way, layer by layer,
for a part of the controls as large as 𝒦 (`hamshoot.dynamics._held_kernels`), so that J becomes a
function of what is left and every optimiser for smooth functions can go on from there. Its gradient
is that of the Lagrangian at the multipliers m which the elimination prescribes; where it vanishes,
so does the one in `hamshoot.methods.newton.active_set`, and d = m/v are the slopes on the kink.
The gradient is exact where the controls meet the conditions already; elsewhere, by how much they
have to be moved, it leaves out that the directions of the moves change too.

Costs: a gradient takes 6Lw²N flops as without entries held, and 6Lw³ + 2w²|𝒦| and the small systems
of every row, m³/3 for m entries of a neuron and layer. Memory: LwN + w|𝒦| numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.dynamics.block_sweeps import BlockSweeps, Executor
from hamshoot.dynamics.sweeps import check_loss, stationarity
from hamshoot.problem.activations import Activation
from hamshoot.problem.training_problem import TrainingProblem

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: The weight decay counts 1 + DAMPING times in the metric, as in the Kronecker preconditioner.
DAMPING = 10.0


class Survey(NamedTuple):
    """Where all entries stand, arrays of shape (L, w, N) at the left nodes of the layers.

    Attributes
    ----------
    representations : ndarray
        A; exactly 0 where held.
    force : ndarray
        v = ρWᵀ∂J/∂A, what reaches σ(A) from above: ∂J/∂σ(A), so that a kink with v > 0 is convex.
    slopes : ndarray
        σ′, and d = m/v where an entry is held, wherever that lies; ½ where v is 0.
    """

    representations: NDArray
    force: NDArray
    slopes: NDArray


class HeldSweeps:
    """J and ∂J/∂W with entries of A held at 0, for an Euler network on a fixed mesh.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss, its samples in memory.
    steps : array_like, shape (L,)
        Layer steps ρ.
    activation : Activation
        Of the entries that are not held; what is held has σ = 0.
    held : ndarray of bool, shape (L, w, N)
        Entry (ℓ, i, j) belongs to the left node of layer ℓ; none at ℓ = 0, where A is given, and
        for a neuron and layer fewer than the w + 1 controls that it has.
    dtype : numpy dtype

    Attributes
    ----------
    weights : ndarray, shape (L, w, c)
        The controls of the last gradient, with the conditions met.
    gradients : int
        Counted so far.
    """

    def __init__(self, problem: TrainingProblem, steps: ArrayLike, activation: Activation,
                 held: NDArray, *, dtype: Any = np.float64, executor: Executor | None = None):
        check_loss(problem)
        self.problem, self.activation, self.dtype = problem, activation, np.dtype(dtype)
        self.steps = np.array(steps, dtype=float)
        self.shape = (len(self.steps), *problem.control_shape)
        self.executor = executor
        self.gradients = 0
        self._plain = BlockSweeps(problem, steps, activation, dtype=dtype, executor=executor)
        L, w, c = self.shape
        N, kind = problem.n_samples, self.dtype
        self._A0, self._Y, self._Q = (np.ascontiguousarray(a, dtype=kind) for a in (
            problem.initial_state, problem.targets, problem.readout))
        self._S, self._D = np.ones((L, c, N), kind), np.empty((2, c, N), kind)
        self._nodes, self._misfit = np.empty((2, w, N), kind), np.empty(self._Y.shape, kind)
        self._turned = np.empty((w, c), kind)
        self._R = self._inverse = np.broadcast_to(np.eye(c, dtype=kind), (L, c, c)).copy()
        self.weights = np.zeros(self.shape)
        self.hold(held)

    def hold(self, held: NDArray) -> None:
        """Hold these entries from now on, in place of those before.

        Raises
        ------
        ValueError
            For another shape, entries of the first node, or too many of one neuron and layer.
        """
        L, w, c = self.shape
        if held.shape != (L, w, self.problem.n_samples) or held[0].any():
            raise ValueError(f"held: expected shape {(L, w, self.problem.n_samples)} with none at "
                             f"the first node, got {held.shape} with {int(held[0].sum())} there")
        counts = held.sum(axis=2)
        if counts.max(initial=0) >= c:
            raise ValueError(f"held: expected fewer than {c} entries of a neuron and layer, got "
                             f"{int(counts.max())}")
        self.held, kind = held.copy(), self.dtype
        layer, neuron = np.nonzero(counts)
        m = counts[layer, neuron]
        ptr = np.searchsorted(layer, np.arange(1, L + 1))  # node ℓ is met by layer ℓ − 1
        self._lists = (np.append(ptr, len(layer)), neuron,
                       np.concatenate([[0], np.cumsum(m)]), np.concatenate([[0], np.cumsum(m**2)]),
                       np.nonzero(held)[2])
        count, most = int(m.sum()), int(m.max(initial=1))
        self._X, self._gathered = np.empty((count, c), kind), np.empty(count * c, kind)
        self._factors, self._y = np.empty(int((m**2).sum()), kind), np.empty(most, kind)
        self._force, self._multipliers = np.zeros(count, kind), np.zeros(count, kind)

    def measure(self, weights: NDArray) -> None:
        """Take the metric in which rows are moved from this network: its Gauss–Newton factors.

        Of the layer's block, about 2ρ² metrics ⊗ grams + (λ/L̃)ρI, what acts on one row. The
        gradients before belong to other coordinates than those after.

        Raises
        ------
        FloatingPointError
            Where the network overflows.
        """
        self.linearise(weights)
        grams, metrics = self.factors()
        if not (np.all(np.isfinite(grams)) and np.all(np.isfinite(metrics))):
            raise FloatingPointError("the network overflows")
        share = self.problem.weight_decay / self.problem.effective_depth
        size = np.trace(metrics, axis1=1, axis2=2) / metrics.shape[1]
        shift = share * (1 + DAMPING) / (2 * self.steps * np.maximum(size, 1e-300))
        R = np.linalg.cholesky(grams + shift[:, None, None] * np.eye(self.shape[2]))
        self._R, self._inverse = (np.ascontiguousarray(a, dtype=self.dtype)
                                  for a in (R, np.linalg.inv(R)))

    def linearise(self, W: NDArray) -> None:
        """As `BlockSweeps.linearise`, of the network as it is, with or without the conditions."""
        self._plain.linearise(W)

    def factors(self, seed: int = 0) -> tuple[NDArray, NDArray]:
        """As `BlockSweeps.factors`, at the point taken by `linearise`."""
        return self._plain.factors(seed)

    def gradient(self, W: NDArray) -> tuple[float, NDArray]:
        """J and ∂J/∂W (float64) of the controls with the conditions met, which go to `weights`."""
        from hamshoot.dynamics import _held_kernels as kernels

        if np.shape(W) != self.shape:  # the kernels check no bounds
            raise ValueError(f"W: expected shape {self.shape}, got {np.shape(W)}")
        self.gradients += 1
        N, real, sigma = self.problem.n_samples, self.dtype.type, self.activation
        share = self.problem.weight_decay / self.problem.effective_depth
        W, G = np.array(W, dtype=self.dtype, order="C"), np.empty(self.shape, self.dtype)
        constants = real(sigma.epsilon**2 / 4), real(sigma.negative_slope)
        square = kernels.gradient(
            W, self.steps.astype(self.dtype), real(self.problem.effective_depth), sigma.code,
            constants, self._A0, self._R, self._inverse, self._lists, self._S, self._X,
            self._factors, self._nodes, self._gathered, self._turned, self._y, self._Q,
            self._Y, real(2 / N), real(share), self._misfit, self._D, self._force,
            self._multipliers, G)
        self.weights = W.astype(float)
        norms = np.sum(np.square(self.weights), axis=(1, 2))
        return float(square) / N + 0.5 * share * float(self.steps @ norms), G.astype(float)

    def feasible(self, W: NDArray) -> NDArray:
        """The controls with the conditions met, (L, w, c)."""
        self.gradient(W)
        return self.weights

    def stationarity(self, W: NDArray, gradient: NDArray) -> float:
        """`hamshoot.dynamics.sweeps.stationarity` of a gradient, taken at W."""
        return stationarity(self.problem, self.steps, W, gradient)

    def survey(self) -> Survey:
        """Where the network of the last gradient stands, by reference formulas."""
        problem, W, rho = self.problem, self.weights, self.steps
        keep, w = 1 - rho * problem.effective_depth, problem.width
        nodes, A = [], problem.initial_state
        for k in range(len(W)):
            A = np.where(self.held[k], 0.0, A)
            S = np.where(self.held[k], 0.0, self.activation(A))
            nodes.append(A)
            b = W[k][:, w:].sum(axis=1, keepdims=True)
            A = keep[k] * A + rho[k] * (W[k][:, :w] @ S + b)
        left = np.array(nodes)
        passed = np.where(self.held, 0.0, self.activation.slope(left))
        m, force = np.zeros(left.shape), np.empty(left.shape)
        m[self.held] = self._multipliers
        D = 2 / problem.n_samples * problem.readout.T @ (problem.readout @ A - problem.targets)
        for k in range(len(W) - 1, -1, -1):
            force[k] = rho[k] * W[k][:, :w].T @ D
            D = keep[k] * D + passed[k] * force[k] + m[k]
        slopes = np.divide(m, force, out=np.full(left.shape, 0.5), where=force != 0)
        return Survey(left, force, np.where(self.held, slopes, passed))
