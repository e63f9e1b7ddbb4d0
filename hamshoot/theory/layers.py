"""The layered network as a discretised optimal control problem: the NumPy reference.

Explicit Euler is the Leaky ResNet itself,

    A_ℓ = (1 − ρ_ℓL̃) A_{ℓ−1} + ρ_ℓ W_ℓ σ̂(A_{ℓ−1}),     J_L = loss + λ/(2L̃) Σ_ℓ ρ_ℓ‖W_ℓ‖_F²,

and RK4 with W constant over each step approaches the continuous path with fewer steps. Everything
is recomputed from the controls: roll-out, discrete costate (the exact adjoint of the roll-out),
gradient and stationarity; for ReLU with the slopes on its kinks that `hamshoot.theory.clarke`
finds. The compiled sweeps are checked against this module; the exact Newton methods build on it.

Costs are in flops with w ≤ N: one sweep (forward or backward) of the Euler network costs about
2Lw²N, a gradient 6Lw²N, RK4 four times that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import hamiltonian as ham

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A network whose outputs differ by less than this times what the targets do, and whose loss is no
#: better than that of their mean to about the same fraction, has collapsed.
COLLAPSE_FRACTION = 0.05


# -- roll-out --------------------------------------------------------------------------------------


def roll_out(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    integrator: str = "euler",
    initial_state: NDArray | None = None,
) -> NDArray:
    """Representations of the layered network at all its nodes.

    Parameters
    ----------
    problem : TrainingProblem
    weights : ndarray, shape (L, w, w+1)
    steps : ndarray, shape (L,)
        Layer steps ρ, sum 1.
    integrator : {"euler", "rk4"}
    initial_state : ndarray, shape (w, K), optional
        In place of the problem's A_0, for other samples.

    Returns
    -------
    ndarray, shape (L+1, w, N)
    """
    A = problem.initial_state if initial_state is None else initial_state
    nodes = [A]
    for W, rho in zip(weights, steps, strict=True):
        A = _euler_step(problem, A, W, rho) if integrator == "euler" else \
            A + _rk4_stages(problem, A, W, rho)[2]
        nodes.append(A)
    return np.array(nodes)


def objective(
    problem: TrainingProblem, endpoint: NDArray, weights: NDArray, steps: NDArray
) -> tuple[float, float, float]:
    """J, loss and Σρ‖W‖² of a network that ends at `endpoint` (w, N); a hard endpoint has no loss.

    The weight decay of learned maps is part of J.

    Returns
    -------
    objective, loss, parameter_norm : float
    """
    norm = float(np.sum(steps * np.sum(weights**2, axis=(1, 2))))
    loss = 0.0 if problem.hard_endpoint else \
        float(ham.loss(endpoint, problem.readout, problem.targets, problem.criterion))
    decays = problem.weight_decay / (2 * problem.effective_depth) * norm + problem.map_decay
    return loss + decays, loss, norm


def objective_of(problem: TrainingProblem, weights: NDArray, steps: NDArray) -> float:
    """J of the Euler network with these controls, by a roll-out."""
    end = roll_out(problem, weights, steps)[-1]
    return objective(problem, end, weights, steps)[0]


# -- costate and gradient --------------------------------------------------------------------------


def costates(
    problem: TrainingProblem,
    representations: NDArray,
    weights: NDArray,
    steps: NDArray,
    integrator: str = "euler",
    terminal: NDArray | None = None,
    slopes: NDArray | None = None,
) -> tuple[NDArray, NDArray]:
    """Discrete costate of the roll-out, and the scaled gradient that goes with it.

    Parameters
    ----------
    representations : ndarray, shape (L+1, w, N)
        From `roll_out`.
    terminal : ndarray, shape (w, N), optional
        B_L; default −(2/(λN)) Qᵀ(QA_L − Yᵀ). Needed with a hard endpoint.
    slopes : ndarray, shape (L, w, N), optional
        σ′ at the left node of each layer, where it should differ from the activation's own (a
        choice of Clarke's subdifferential); Euler only.

    Returns
    -------
    momenta : ndarray, shape (L+1, w, N)
    gradient : ndarray, shape (L, w, w+1)
        (L̃/(λρ_ℓ)) ∂J/∂W_ℓ, which for Euler is W_ℓ − L̃ B_ℓ σ̂(A_{ℓ−1})ᵀ.
    """
    if terminal is None:
        if problem.hard_endpoint:
            raise ValueError("terminal: a hard endpoint needs its momentum B_1, got none")
        terminal = ham.terminal_momentum(
            representations[-1], problem.readout, problem.targets, problem.weight_decay,
            problem.criterion)
    momenta = np.empty_like(representations)
    momenta[-1] = terminal
    gradient = np.empty_like(weights)
    for k in range(len(weights) - 1, -1, -1):
        step = _euler_adjoint if integrator == "euler" else _rk4_adjoint
        slope = None if slopes is None else slopes[k]
        momenta[k], product = step(
            problem, representations[k], weights[k], steps[k], momenta[k + 1], slope
        )
        gradient[k] = weights[k] - problem.effective_depth * product
    return momenta, gradient


def pulled(weights: NDArray, steps: NDArray, momenta: NDArray) -> NDArray:
    """ρ_ℓW_ℓᵀB_ℓ at the left nodes, (L, w, N): what the costate passes on where σ′ = 1."""
    w = weights.shape[1]
    return steps[:, None, None] * (np.swapaxes(weights[:, :, :w], 1, 2) @ momenta[1:])


def stationarity(weights: NDArray, gradient: NDArray) -> float:
    """Largest ‖scaled gradient‖_F / max(1, ‖W‖_F) over the layers."""
    size = np.maximum(1.0, np.linalg.norm(weights, axis=(1, 2)))
    return float(np.max(np.linalg.norm(gradient, axis=(1, 2)) / size))


# -- how it ends -----------------------------------------------------------------------------------


def boundary_residual(problem: TrainingProblem, A: NDArray, B: NDArray) -> float:
    """Largest violation of the two boundary conditions: A_0 = PXᵀ, and B_1 (or A_1) as prescribed.

    The endpoint condition is relative: ‖B_1 − B(A_1)‖_F / max(1, ‖B_1‖_F), or with a hard endpoint
    ‖A_1 − endpoint‖_F / max(1, ‖endpoint‖_F).
    """
    start = np.linalg.norm(A[0] - problem.initial_state) / max(
        1.0, np.linalg.norm(problem.initial_state))
    if problem.endpoint is not None:
        end = np.linalg.norm(A[-1] - problem.endpoint) / max(1.0, np.linalg.norm(problem.endpoint))
    else:
        B_end = ham.terminal_momentum(A[-1], problem.readout, problem.targets,
                                      problem.weight_decay, problem.criterion)
        end = np.linalg.norm(B[-1] - B_end) / max(1.0, np.linalg.norm(B_end))
    return float(max(start, end))


def collapsed(problem: TrainingProblem, endpoint: NDArray, loss: float) -> bool:
    """Whether a network ends at a trivial solution: the same output for all samples.

    That is A_1 ≈ 0, with loss ‖Y‖²/N, or with a bias the mean of the targets, with loss
    ‖Y − Ȳ‖²/N: both stationary, neither has seen its input.
    """
    if problem.hard_endpoint:
        return False
    output, targets = Spread(), Spread()
    predicted = problem.criterion.predicted(problem.readout @ endpoint)
    output.add(predicted)
    targets.add(problem.targets)
    if not problem.criterion.plain:
        loss = float(np.sum((predicted - problem.targets) ** 2)) / problem.n_samples
    return is_trivial(output, targets, loss * problem.n_samples)


def trivial_objective(problem: TrainingProblem, steps: NDArray | None = None) -> float:
    """J of the network without weights: the leak alone, A_1 = Π(1 − ρ_ℓL̃) A_0, or e^{−L̃}A_0.

    Where a map is learned it goes without that too: outputs 0.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss.
    steps : ndarray, shape (L,), optional
        Of a layered network; by default the continuous one.
    """
    if problem.learns:
        return float(problem.criterion.value(np.zeros_like(problem.targets), problem.targets))
    L_tilde = problem.effective_depth
    left = np.exp(-L_tilde) if steps is None else float(np.prod(1 - L_tilde * np.asarray(steps)))
    return float(ham.loss(left * problem.initial_state, problem.readout, problem.targets,
                          problem.criterion))


class Spread:
    """Σ‖y_i‖² and Σ‖y_i − ȳ‖² of columns that come in blocks."""

    def __init__(self) -> None:
        self._count, self.squares, self._centred = 0, 0.0, 0.0
        self._mean: NDArray | float = 0.0

    def add(self, Y: NDArray) -> None:
        """Columns Y (d, n) more."""
        n, mean = Y.shape[1], Y.mean(axis=1)
        whole = self._count + n
        # The parallel update of Chan, Golub and LeVeque: no difference of large sums.
        shift = float(np.sum((mean - self._mean) ** 2))
        self._centred += float(np.sum((Y - mean[:, None]) ** 2)) + shift * self._count * n / whole
        self.squares += float(np.sum(Y**2))
        self._mean = self._mean + (mean - self._mean) * n / whole
        self._count = whole

    @property
    def centred(self) -> float:
        """Σ‖y_i − ȳ‖²; a spread of a millionth, as single precision leaves, counts as 0."""
        return self._centred if self._centred > 1e-12 * self.squares else 0.0


def is_trivial(output: Spread, targets: Spread, squared_error: float) -> bool:
    """Whether outputs hardly differ while targets do, and fit no better than their mean or 0.

    Targets that are all the same, as of one sample, are compared with 0 alone.
    """
    pairs = [(output.squares, targets.squares)]
    if targets.centred > 0:
        pairs.append((output.centred, targets.centred))
    return any(out <= COLLAPSE_FRACTION**2 * asked
               and squared_error >= (1 - 2 * COLLAPSE_FRACTION) * asked for out, asked in pairs)


# -- single steps ----------------------------------------------------------------------------------


def _euler_step(problem: TrainingProblem, A: NDArray, W: NDArray, rho: float) -> NDArray:
    S = ham.augmented(A, problem.sigma, problem.bias)
    return (1 - rho * problem.effective_depth) * A + rho * W @ S


def _euler_adjoint(
    problem: TrainingProblem, A: NDArray, W: NDArray, rho: float, B: NDArray,
    slope: NDArray | None = None,
) -> tuple[NDArray, NDArray]:
    """Costate at the left node, and Bσ̂(A)ᵀ."""
    slope = problem.sigma.slope(A) if slope is None else slope
    S = ham.augmented(A, problem.sigma, problem.bias)
    left = (1 - rho * problem.effective_depth) * B + rho * slope * (W[:, : problem.width].T @ B)
    return left, B @ S.T


def _rk4_stages(
    problem: TrainingProblem, A: NDArray, W: NDArray, rho: float
) -> tuple[list[NDArray], list[NDArray], NDArray]:
    """Stage points, stage velocities and the increment of one RK4 step with W constant."""
    points: list[NDArray] = []
    velocities: list[NDArray] = []
    for share in (0.0, 0.5, 0.5, 1.0):
        x = A + share * rho * velocities[-1] if velocities else A
        points.append(x)
        S = ham.augmented(x, problem.sigma, problem.bias)
        velocities.append(-problem.effective_depth * x + W @ S)
    k1, k2, k3, k4 = velocities
    return points, velocities, rho / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _rk4_adjoint(
    problem: TrainingProblem, A: NDArray, W: NDArray, rho: float, B: NDArray,
    slope: NDArray | None = None,
) -> tuple[NDArray, NDArray]:
    """Exact adjoint of one RK4 step; the product is the stage average of Bσ̂(A)ᵀ."""
    if slope is not None:
        raise ValueError("slopes: chosen slopes are for Euler layers only")
    points, _, _ = _rk4_stages(problem, A, W, rho)
    left, product, behind = B.copy(), np.zeros(()), np.zeros_like(B)
    for x, weight, share in zip(
        points[::-1], (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 1.0, 0.5, 0.5), strict=True
    ):
        # k is the costate of this stage's velocity, over ρ; `behind` that of the next point.
        k = weight * B + share * behind
        product = product + k @ ham.augmented(x, problem.sigma, problem.bias).T
        behind = rho * (-problem.effective_depth * k
                        + problem.sigma.slope(x) * (W[:, : problem.width].T @ k))
        left = left + behind
    return left, product
