"""The layered network as a discretised optimal control problem: the NumPy reference.

Explicit Euler is the Leaky ResNet itself,

    A_ℓ = (1 − ρ_ℓL̃) A_{ℓ−1} + ρ_ℓ W_ℓ σ̂(A_{ℓ−1}),     J_L = loss + λ/(2L̃) Σ_ℓ ρ_ℓ‖W_ℓ‖_F²,

and RK4 with W constant over each step approaches the continuous path with fewer steps. Everything
is recomputed from the controls: roll-out, discrete costate (the exact adjoint of the roll-out),
gradient, stationarity and, for ReLU, the Clarke residual. Solvers are checked against this module;
none of them uses it to search.

Costs are in flops with w ≤ N: one sweep (forward or backward) of the Euler network costs about
2Lw²N, a gradient 6Lw²N, RK4 four times that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot import energies
from hamshoot import hamiltonian as ham
from hamshoot.path import PathPoint
from hamshoot.problem import TrainingProblem
from hamshoot.solution import Solution

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.clarke import ClarkeResult

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

    Returns
    -------
    objective, loss, parameter_norm : float
    """
    norm = float(np.sum(steps * np.sum(weights**2, axis=(1, 2))))
    loss = 0.0 if problem.hard_endpoint else \
        float(ham.loss(endpoint, problem.readout, problem.targets))
    return loss + problem.weight_decay / (2 * problem.effective_depth) * norm, loss, norm


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
            representations[-1], problem.readout, problem.targets, problem.weight_decay
        )
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


def stationarity(weights: NDArray, gradient: NDArray) -> float:
    """Largest ‖scaled gradient‖_F / max(1, ‖W‖_F) over the layers."""
    size = np.maximum(1.0, np.linalg.norm(weights, axis=(1, 2)))
    return float(np.max(np.linalg.norm(gradient, axis=(1, 2)) / size))


# -- Clarke residual -------------------------------------------------------------------------------


def clarke_residual(
    problem: TrainingProblem,
    representations: NDArray,
    weights: NDArray,
    steps: NDArray,
    tolerance: float | None = None,
    terminal: NDArray | None = None,
    max_iter: int = 50,
) -> ClarkeResult:
    """Smallest ‖∇J(d)‖ over slopes d ∈ [0, 1] on the kink: `hamshoot.clarke.clarke_residual`."""
    from hamshoot import clarke

    tolerance = clarke.KINK_TOLERANCE if tolerance is None else tolerance
    return clarke.clarke_residual(problem, representations, weights, steps, tolerance, terminal,
                                  max_iter)


def boundary_residual(problem: TrainingProblem, A: NDArray, B: NDArray) -> float:
    """Largest violation of the two boundary conditions: A_0 = PXᵀ, and B_1 (or A_1) as prescribed.

    The endpoint condition is relative: ‖B_1 − B(A_1)‖_F / max(1, ‖B_1‖_F), or with a hard endpoint
    ‖A_1 − endpoint‖_F / max(1, ‖endpoint‖_F).
    """
    start = np.linalg.norm(A[0] - problem.initial_state) / max(
        1.0, np.linalg.norm(problem.initial_state))
    if problem.hard_endpoint:
        end = np.linalg.norm(A[-1] - problem.endpoint) / max(1.0, np.linalg.norm(problem.endpoint))
    else:
        B_end = ham.terminal_momentum(A[-1], problem.readout, problem.targets, problem.weight_decay)
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
    output.add(problem.readout @ endpoint)
    targets.add(problem.targets)
    return is_trivial(output, targets, loss * problem.n_samples)


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


# -- quantities along a path -----------------------------------------------------------------------


def path_hamiltonian(solution: Solution) -> NDArray:
    """H at (A_{ℓ−1}, B_ℓ) over Euler layers, shape (L,); else at the nodes, shape (M,).

    The optimality system of the Euler network is symplectic Euler: only at these mixed points does
    its Hamiltonian converge at first order with a constant to leading order. σ is that of the path
    (`Solution.activation`): a smoothed path conserves the smoothed H, and no other. By blocks of
    samples where the states are not stored; with the activation's own slopes on the kink of ReLU.
    """
    if not solution.stored:
        from hamshoot import blockwise

        return blockwise.evaluate(solution.problem, solution.weights, solution.steps,
                                  solution.integrator).hamiltonian
    A, B = _pairs(solution)
    return np.array([ham.hamiltonian(a, b, **_settings(solution))
                     for a, b in zip(A, B, strict=True)])


def energies_along(solution: Solution, gamma0: float) -> energies.PathEnergies:
    """Energies at the points of `path_hamiltonian`, with the velocity the path really has."""
    A, B = _pairs(solution)
    p = solution.p[: len(A)]
    return energies.path_energies(p, A, B, **_settings(solution), gamma0=gamma0,
                                  velocities=_velocities(solution, A, B))


def stable_hamiltonians(solution: Solution, gamma0: float) -> NDArray:
    """Sum of the stable kinetic and potential energy at the points of `path_hamiltonian`."""
    A, B = _pairs(solution)
    return np.array([
        energies.stable_hamiltonian(a, v, **_settings(solution), gamma0=gamma0)
        for a, v in zip(A, _velocities(solution, A, B), strict=True)])


def _velocities(solution: Solution, A: NDArray, B: NDArray) -> NDArray:
    """∂_pA as the path has it: of Euler steps, of the controls of RK4 layers, or of the flow."""
    problem, settings = solution.problem, _settings(solution)
    if solution.integrator == "euler":
        return np.diff(solution.representations, axis=0) / solution.steps[:, None, None]
    if solution.steps is None:
        return np.array([ham.velocity(a, b, **settings) for a, b in zip(A, B, strict=True)])
    W = solution.weights[np.minimum(np.arange(len(A)), len(solution.weights) - 1)]
    features = [ham.augmented(a, solution.activation, problem.bias) for a in A]
    return np.array([w @ s for w, s in zip(W, features, strict=True)]) - \
        problem.effective_depth * A


def interpolate(solution: Solution, p: float | NDArray) -> PathPoint:
    """The path at depth p.

    Over Euler layers A is linear within a step, as the scheme itself has it, B linear between nodes
    and W constant over a layer. Over RK4 layers W is constant too, and A and B are cubic Hermite
    with the slopes that this W gives them. On a continuous path A and B are those of the
    Hamiltonian flow, integrated to 1e-12 from the nodes on either side, and W = L̃Bσ̂(A)ᵀ, with the
    σ of the path (`Solution.activation`): as exact between the nodes as at them.

    Raises
    ------
    ValueError
        If p lies outside [0, 1].
    """
    p = np.asarray(p, dtype=float)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p: expected depths in [0, 1], got {p.min():g} to {p.max():g}")
    flat = np.atleast_1d(p)
    nodes, A, B = solution.p, solution.representations, solution.momenta
    k = np.clip(np.searchsorted(nodes, flat, side="right") - 1, 0, len(nodes) - 2)
    t = (flat - nodes[k])[:, None, None] / np.diff(nodes)[k][:, None, None]
    if solution.integrator == "euler":
        at_A, at_B = (1 - t) * A[k] + t * A[k + 1], (1 - t) * B[k] + t * B[k + 1]
        W = solution.weights[k]
    elif solution.steps is not None:
        at_A, at_B = _hermite_path(solution, k, t)
        W = solution.weights[k]
    else:
        at_A, at_B = _flow_between(solution, k, t, flat)
        W = np.array([ham.control(a, b, **_settings(solution))
                      for a, b in zip(at_A, at_B, strict=True)])
        W = W.reshape(len(flat), *solution.problem.control_shape)
    if p.ndim == 0:
        return PathPoint(p, at_A[0], at_B[0], W[0])
    return PathPoint(p, at_A, at_B, W)


def _flow_between(
    solution: Solution, k: NDArray, t: NDArray, p: NDArray
) -> tuple[NDArray, NDArray]:
    """A and B at depths p (K,) by the flow: forwards from node k, backwards from node k + 1.

    The two agree on a path that solves the flow; mixed by the fraction t of the interval they stay
    continuous on one that does not (a solver stopped early), and meet every node. Where the flow
    breaks down, the cubic. At most one interval is integrated for each depth and side.
    """
    from hamshoot.flow import HamiltonianFlow

    problem, nodes = solution.problem, solution.p
    flow = HamiltonianFlow(problem.width, problem.n_samples, problem.effective_depth,
                           solution.activation, problem.bias)
    states = np.stack([solution.representations, solution.momenta], axis=1)
    order = np.argsort(p, kind="stable")  # the step of one segment is the first guess of the next
    sides = []
    for node in (k[order], k[order] + 1):
        ends, _ = flow(nodes[node], p[order], states[node].reshape(-1, flow.size))
        side = np.empty((len(p), *states.shape[1:]))
        side[order] = ends.reshape(side.shape)
        sides.append(side)
    left, right = sides
    t = t[:, None]
    mixed = (1 - t) * np.where(t == 1, 0.0, left) + t * np.where(t == 0, 0.0, right)
    for one, other in ((left, right), (right, left)):
        lost = ~np.isfinite(one).all((1, 2, 3))
        mixed[lost] = other[lost]
    lost = ~np.isfinite(mixed).all((1, 2, 3))
    if lost.any():
        mixed[lost] = np.stack(_hermite_path(solution, k[lost], t[lost, 0]), axis=1)
    return mixed[:, 0], mixed[:, 1]


def _hermite_path(solution: Solution, k: NDArray, t: NDArray) -> tuple[NDArray, NDArray]:
    """A and B by the cubics with the slopes at the ends of intervals k, at fractions t."""
    h, A, B = np.diff(solution.p)[k][:, None, None], solution.representations, solution.momenta
    left, right = _end_slopes(solution)
    return (_hermite(t, h, A[k], A[k + 1], left[0][k], right[0][k]),
            _hermite(t, h, B[k], B[k + 1], left[1][k], right[1][k]))


def _end_slopes(solution: Solution) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """∂_pA and ∂_pB at the left and the right end of every interval, each (M−1, w, N)."""
    problem, A, B = solution.problem, solution.representations, solution.momenta
    if solution.steps is None:
        flows = [ham.flow(a, b, **_settings(solution)) for a, b in zip(A, B, strict=True)]
        dA, dB = (np.array(part) for part in zip(*flows, strict=True))
        return (dA[:-1], dB[:-1]), (dA[1:], dB[1:])
    L_tilde, W = problem.effective_depth, solution.weights

    def slopes(a: NDArray, b: NDArray) -> tuple[NDArray, NDArray]:
        S = np.array([ham.augmented(x, problem.sigma, problem.bias) for x in a])
        pull = np.swapaxes(W[:, :, : problem.width], 1, 2) @ b
        return W @ S - L_tilde * a, L_tilde * b - problem.sigma.slope(a) * pull

    return slopes(A[:-1], B[:-1]), slopes(A[1:], B[1:])


def _hermite(t, h, left, right, left_slope, right_slope) -> NDArray:
    """Cubic with given values and slopes at t = 0 and 1 of an interval of length h."""
    return ((1 + 2 * t) * (1 - t) ** 2 * left + t**2 * (3 - 2 * t) * right
            + h * t * (1 - t) * ((1 - t) * left_slope - t * right_slope))


def _settings(solution: Solution) -> dict[str, Any]:
    problem = solution.problem
    return {"effective_depth": problem.effective_depth, "activation": solution.activation,
            "bias": problem.bias}


def _pairs(solution: Solution) -> tuple[NDArray, NDArray]:
    if solution.integrator == "euler":
        return solution.representations[:-1], solution.momenta[1:]
    return solution.representations, solution.momenta


# -- single steps ----------------------------------------------------------------------------------


def _euler_step(problem: TrainingProblem, A: NDArray, W: NDArray, rho: float) -> NDArray:
    S = ham.augmented(A, problem.sigma, problem.bias)
    return (1 - rho * problem.effective_depth) * A + rho * W @ S


def _euler_adjoint(problem, A, W, rho, B, slope=None) -> tuple[NDArray, NDArray]:
    """Costate at the left node, and Bσ̂(A)ᵀ."""
    slope = problem.sigma.slope(A) if slope is None else slope
    S = ham.augmented(A, problem.sigma, problem.bias)
    left = (1 - rho * problem.effective_depth) * B + rho * slope * (W[:, : problem.width].T @ B)
    return left, B @ S.T


def _rk4_stages(problem, A, W, rho) -> tuple[list[NDArray], list[NDArray], NDArray]:
    """Stage points, stage velocities and the increment of one RK4 step with W constant."""
    points, velocities = [], []
    for share in (0.0, 0.5, 0.5, 1.0):
        x = A + share * rho * velocities[-1] if velocities else A
        points.append(x)
        S = ham.augmented(x, problem.sigma, problem.bias)
        velocities.append(-problem.effective_depth * x + W @ S)
    k1, k2, k3, k4 = velocities
    return points, velocities, rho / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _rk4_adjoint(problem, A, W, rho, B, slope=None) -> tuple[NDArray, NDArray]:
    """Exact adjoint of one RK4 step; the product is the stage average of Bσ̂(A)ᵀ."""
    if slope is not None:
        raise ValueError("slopes: chosen slopes are for Euler layers only")
    points, _, _ = _rk4_stages(problem, A, W, rho)
    left, product, behind = B.copy(), 0.0, np.zeros_like(B)
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
