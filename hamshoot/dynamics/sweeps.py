"""Forward and adjoint sweeps of one layered network, fast: workspaces over the compiled kernels.

Solvers that search over the controls alone (single shooting, gradient descent) need J and ∂J/∂W
many times on the same problem and mesh. `EulerSweeps` allocates once and hands out both. The
readable reference of the same formulas is `hamshoot.theory.layers`.

`hamshoot.dynamics.block_sweeps` computes the same for many samples. Its gradient takes 1.6 to 4.5
times as long at w = 2 to 8, N = 5 to 60, L = 10 to 60 (median 2.6 to 3.1 by activation), 1.6 times
at w = 16, N = 200, and 0.90 to 1.04 times at w = 32 to 100, N = 500 to 1000
(`demos/benchmarks/sweeps.py`), so there are both.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from hamshoot.problem.activations import SMOOTH_RELU, Activation
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.blas import load_blas
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Widths from which products are worth a second BLAS thread; below, threads cost more than they do.
THREADED_WIDTH = 64
#: Widths up to which products are loops of the kernels', not calls of BLAS.
NARROW = 32


def blas_threads(problem: TrainingProblem) -> AbstractContextManager:
    """Context in which BLAS uses one thread for narrow networks, and what it likes for wide ones.

    A product of a narrow layer takes microseconds; handing it to a second thread doubles that on a
    free machine and costs tenfold on a busy one.
    """
    if problem.width >= THREADED_WIDTH:
        return nullcontext()
    load_blas()
    return threadpool_limits(limits=1, user_api="blas")


def check_loss(problem: TrainingProblem) -> None:
    """Raise ValueError for a hard endpoint, which has no J of the controls alone."""
    if problem.hard_endpoint:
        raise ValueError(
            "problem: sweeps over the controls need a loss, got a hard endpoint; "
            "use DirectMultipleShooting")


def stationarity(
    problem: TrainingProblem, steps: NDArray, W: NDArray, gradient: NDArray
) -> float:
    """max_l ‖(L̃/(λρ_l)) ∂J/∂W_l‖_F / max(1, ‖W_l‖_F) of controls and ∂J/∂W, (L, w, w+1) both."""
    scale = problem.effective_depth / (problem.weight_decay * steps)
    sizes = np.maximum(1.0, np.linalg.norm(W, axis=(1, 2)))
    return float(np.max(scale * np.linalg.norm(gradient, axis=(1, 2)) / sizes))


def numbers_of(activation: Activation) -> tuple[int, float, float | None]:
    """Code, ε and α as the kernels take them; α is None for those whose loops are written out."""
    alpha = float(activation.negative_slope) if activation.code > SMOOTH_RELU else None
    return int(activation.code), float(activation.epsilon), alpha


def _criterion(problem: TrainingProblem) -> tuple[int, float, NDArray] | None:
    """Code, δ and weights of a loss as the kernels take them; None for the mean squared error."""
    loss = problem.criterion
    if loss.plain:
        return None
    weights = np.zeros(0) if loss.weights is None else np.array(loss.weights, dtype=float)
    return int(loss.code), float(loss.delta), weights


class EulerSweeps:
    """J, ∂J/∂W, representations and costates of an Euler network on a fixed mesh.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss; a hard endpoint has no J of the controls alone.
    steps : array_like, shape (L,)
        Layer steps ρ; may be changed later by assigning to `steps`.
    activation : Activation, optional
        In place of the problem's, for the ε ladder.

    Attributes
    ----------
    evaluations : int
        Sweeps forward, counted (a gradient counts as one).

    Raises
    ------
    ValueError
        For a hard endpoint, or steps that are not positive and finite.

    Notes
    -----
    A gradient costs 6Lw²N flops and (4L + 3)wN numbers of memory. The arrays returned are the
    workspace itself: copy what should outlive the next call.
    """

    def __init__(
        self, problem: TrainingProblem, steps: ArrayLike, activation: Activation | None = None
    ):
        check_loss(problem)
        self.problem = problem
        self.steps = steps
        self.activation = problem.sigma if activation is None else activation
        self.evaluations = 0
        w, N, L = problem.width, problem.n_samples, len(self._steps)
        columns = problem.control_shape[1]
        # Copies: the kernels would be compiled once more for arrays that cannot be written.
        self._Q = np.array(problem.readout, dtype=float, order="C")
        self._targets = np.array(problem.targets, dtype=float, order="C")
        self._criterion = _criterion(problem)
        self._A = np.empty((L + 1, w, N))
        self._A[0] = problem.initial_state
        self._S = np.ones((L, columns, N))
        self._slope, self._D = np.empty((L, w, N)), np.empty((L + 1, w, N))
        self._R, self._T = np.empty((problem.d_out, N)), np.empty((columns, N))
        self._G = np.empty((L, *problem.control_shape))

    _steps: NDArray

    @property
    def steps(self) -> NDArray:
        """Layer steps ρ, (L,)."""
        return self._steps

    @steps.setter
    def steps(self, steps: ArrayLike) -> None:
        self._steps = self._checked_steps(steps)

    def _checked_steps(self, steps: ArrayLike) -> NDArray:
        steps = np.array(steps, dtype=float)
        if steps.ndim != 1 or not len(steps) or not np.all(np.isfinite(steps) & (steps > 0)):
            raise ValueError("steps: expected a vector of finite numbers > 0, one a layer")
        if hasattr(self, "_A") and len(steps) != len(self._A) - 1:
            raise ValueError(f"steps: expected {len(self._A) - 1} of them, got {len(steps)}")
        return steps

    @property
    def layers(self) -> int:
        """L."""
        return len(self._steps)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the controls, (L, w, w+1) or (L, w, w)."""
        return self._G.shape

    def objective(self, W: NDArray) -> float:
        """J of the controls W (L, w, w+1), by one forward sweep."""
        from hamshoot.dynamics import _kernels

        W = self._controls(W)
        self.evaluations += 1
        if not self.activation.compiled:
            self._A[:] = discrete.roll_out(self.problem, W, self._steps)
            return discrete.objective(self.problem, self._A[-1], W, self._steps)[0]
        return _kernels.gradient(W, *self.arguments[:-1], self._G[:0])

    def gradient(self, W: NDArray) -> tuple[float, NDArray]:
        """J and ∂J/∂W, by one sweep forward and one back.

        Returns
        -------
        objective : float
        gradient : ndarray, shape (L, w, w+1)
            Overwritten by the next call.
        """
        from hamshoot.dynamics import _kernels

        W = self._controls(W)
        self.evaluations += 1
        if not self.activation.compiled:
            return self._by_reference(W), self._G
        return _kernels.gradient(W, *self.arguments), self._G

    def _by_reference(self, W: NDArray) -> float:
        """J and the workspaces in NumPy, of an activation made of functions."""
        problem = self.problem
        self._A[:] = A = discrete.roll_out(problem, W, self._steps)
        B, scaled = discrete.costates(problem, A, W, self._steps)
        self._D[:] = -problem.weight_decay * B
        share = problem.weight_decay / problem.effective_depth
        self._G[:] = share * self._steps[:, None, None] * scaled
        return discrete.objective(problem, A[-1], W, self._steps)[0]

    @property
    def arguments(self) -> tuple:
        """What the kernels take after W: numbers, data, then the workspaces (written to)."""
        problem = self.problem
        wide = True if problem.width > NARROW else None
        return (wide, self._steps, float(problem.effective_depth), float(problem.weight_decay),
                *numbers_of(self.activation), self._Q, self._targets, self._criterion, self._A,
                self._S, self._slope, self._D, self._R, self._T, self._G)

    def __getstate__(self) -> dict[str, Any]:
        """Without the address, which is of this process."""
        return {name: value for name, value in vars(self).items() if name != "place"}

    @cached_property
    def place(self) -> tuple[int, int]:
        """Where the compiled gradient is, for kernels that call it with `arguments`."""
        from hamshoot.dynamics import _compiling, _kernels

        return _compiling.place_of(_kernels.gradient, self._G, *self.arguments)

    @property
    def representations(self) -> NDArray:
        """A at the nodes, (L+1, w, N), of the last sweep."""
        return self._A

    @property
    def momenta(self) -> NDArray:
        """B = −D/λ at nodes 1…L, (L, w, N), of the last gradient."""
        return self._D[1:] / -self.problem.weight_decay

    @property
    def gradient_norm(self) -> float:
        """‖∂J/∂W‖_F of the last gradient."""
        return float(np.linalg.norm(self._G))

    def stationarity(self, W: NDArray) -> float:
        """`stationarity` of the last gradient, taken at W."""
        return stationarity(self.problem, self._steps, W, self._G)

    def _controls(self, W: NDArray) -> NDArray:
        W = np.ascontiguousarray(W, dtype=float)
        if W.shape != self.shape:
            raise ValueError(f"W: expected controls of shape {self.shape}, got {W.shape}")
        return W
