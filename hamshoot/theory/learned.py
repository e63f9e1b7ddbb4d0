"""Learned lift and readout: the joint problem in W, P and Q, in plain NumPy.

    J = C(Q A_L) + λ/(2L̃) Σ ρ_ℓ‖W_ℓ‖² + (μ_P/2)‖P‖² + (μ_Q/2)‖Q‖²,    A_0 = P Xᵀ.

With −λB = ∂J/∂A the chain rule at both ends gives

    ∂J/∂P = μ_P P − λ B_0 X,        ∂J/∂Q = μ_Q Q + (∂C/∂z) A_Lᵀ,      z = Q A_L,

so that at a stationary point μ_P P = λ B_0 X and μ_Q Q = −(∂C/∂z) A_Lᵀ.

*Stacked controls.* Solvers that know controls as an array (L, w, c) of layers with steps ρ get the
maps as further layers: P (w, d_in) and Qᵀ (w, d_out), c columns at a time, the last one filled up
with zeros, with the steps ρ = μL̃/λ for which λρ/(2L̃)‖·‖² is their weight decay. Then what they
make of a layer is right for a map as well, gradients scaled by L̃/(λρ) = 1/μ among it. That is a
way of keeping, not of computing: nothing rolls a map out as a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray


# -- gradients at both ends ------------------------------------------------------------------------


def lift_gradient(problem: TrainingProblem, start: NDArray) -> NDArray:
    """P − (λ/μ_P) B_0 X = (1/μ_P) ∂J/∂P, (w, d_in), of B_0 (w, N) with the problem's P."""
    if problem.lift_decay is None:
        return np.zeros_like(problem.lift)
    share = problem.weight_decay / problem.lift_decay
    return problem.lift - share * start @ problem.scaled_inputs.T


def readout_gradient(problem: TrainingProblem, end: NDArray) -> NDArray:
    """Q + (1/μ_Q) (∂C/∂z) A_Lᵀ = (1/μ_Q) ∂J/∂Q, (d_out, w), of A_L (w, N) with the problem's Q."""
    if problem.readout_decay is None:
        return np.zeros_like(problem.readout)
    slopes = problem.criterion.gradient(problem.readout @ end, problem.targets)
    return problem.readout + slopes @ end.T / problem.readout_decay


def stationarities(problem: TrainingProblem, A: NDArray, B: NDArray) -> dict[str, float]:
    """‖(1/μ)∂J/∂P‖_F / max(1, ‖P‖_F), and the same of Q, of the maps that are learned.

    Parameters
    ----------
    A, B : ndarray, shape (M, w, N)
        States and costates at the nodes; B_0 with the slopes that were chosen on the kink.
    """
    found = {}
    if problem.lift_decay is not None:
        found["lift_stationarity"] = _relative(lift_gradient(problem, B[0]), problem.lift)
    if problem.readout_decay is not None:
        found["readout_stationarity"] = _relative(
            readout_gradient(problem, A[-1]), problem.readout)
    return found


def map_slopes(problem: TrainingProblem, end: NDArray, start: NDArray) -> list[NDArray]:
    """∂J/∂P and ∂J/∂Q of A_L and B_0, each as a vector; of learned maps alone."""
    found = []
    if problem.lift_decay is not None:
        found.append(problem.lift_decay * lift_gradient(problem, start).ravel())
    if problem.readout_decay is not None:
        found.append(problem.readout_decay * readout_gradient(problem, end).ravel())
    return found


def map_slopes_moved(problem: TrainingProblem, change: NDArray, samples: NDArray) -> NDArray:
    """Changes of these, (rows, k), with changes (w, k) of ∂J/∂A_0 in one of the samples (k,)."""
    k = change.shape[1]
    parts = [np.zeros((0, k))]
    if problem.lift_decay is not None:
        X = problem.scaled_inputs[:, samples]
        parts.append((change[:, None] * X[None]).reshape(-1, k))
    if problem.readout_decay is not None:
        parts.append(np.zeros((problem.readout.size, k)))
    return np.concatenate(parts)


def imbalance(problem: TrainingProblem, A: NDArray, B: NDArray) -> float:
    """λ(Tr(B_1A_1ᵀ) − Tr(B_0A_0ᵀ)), which at a stationary point is μ_Q‖Q‖² − μ_P‖P‖².

    For a homogeneous σ on a continuous path it is (λ/L̃)∫‖b‖²dp, so 0 without bias: lift and
    readout then cost the same.
    """
    return problem.weight_decay * float(np.sum(B[-1] * A[-1]) - np.sum(B[0] * A[0]))


def _relative(gradient: NDArray, matrix: NDArray) -> float:
    return float(np.linalg.norm(gradient) / max(1.0, float(np.linalg.norm(matrix))))


# -- stacked controls ------------------------------------------------------------------------------


class Sizes(NamedTuple):
    """How many layers of a stack hold P and Qᵀ, c columns each."""

    lift: int
    readout: int

    @property
    def maps(self) -> int:
        """Both."""
        return self.lift + self.readout


def sizes_of(problem: TrainingProblem) -> Sizes:
    """0 for what is fixed."""
    c = problem.control_shape[1]
    return Sizes(-(-problem.d_in // c) if problem.lift_decay is not None else 0,
                 -(-problem.d_out // c) if problem.readout_decay is not None else 0)


def stacked(problem: TrainingProblem, weights: NDArray) -> NDArray:
    """Controls (L, w, c) and the problem's learned maps as one array (L + a + b, w, c)."""
    parts = [np.asarray(weights, dtype=float)]
    sizes = sizes_of(problem)
    for count, matrix in ((sizes.lift, problem.lift), (sizes.readout, problem.readout.T)):
        if count:
            parts.append(_as_layers(matrix, count, problem.control_shape[1]))
    return np.concatenate(parts)


def settled(problem: TrainingProblem, stack: NDArray) -> tuple[TrainingProblem, NDArray]:
    """The problem with the maps of a stack, and the stack's controls (L, w, c)."""
    if not problem.learns:
        return problem, stack
    W, P, Q = parts_of(problem, stack)
    return problem.with_maps(P, Q), W


def parts_of(problem: TrainingProblem, stack: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """W (L, w, c), P (w, d_in) and Q (d_out, w) of a stack, real or complex; fixed maps as are."""
    sizes = sizes_of(problem)
    L = len(stack) - sizes.maps
    P, Q = problem.lift, problem.readout
    if sizes.lift:
        P = _as_matrix(stack[L : L + sizes.lift], problem.d_in)
    if sizes.readout:
        Q = _as_matrix(stack[L + sizes.lift :], problem.d_out).T
    return stack[:L], P, Q


def stacked_steps(problem: TrainingProblem, steps: NDArray) -> NDArray:
    """Layer steps ρ (L,), and those of the maps' layers, μL̃/λ."""
    sizes, leak = sizes_of(problem), problem.effective_depth / problem.weight_decay
    more = [np.full(count, leak * decay) for count, decay in (
        (sizes.lift, problem.lift_decay), (sizes.readout, problem.readout_decay))
        if decay is not None]
    return np.concatenate([np.asarray(steps, dtype=float), *more])


def stacked_entries(problem: TrainingProblem, layers: int) -> NDArray:
    """Which entries of a stack (L + a + b, w, c) are controls or maps, and not filling."""
    w, c = problem.control_shape
    sizes = sizes_of(problem)
    there = [np.ones((layers, w, c), dtype=bool)]
    for count, columns in ((sizes.lift, problem.d_in), (sizes.readout, problem.d_out)):
        if count:
            there.append(_as_layers(np.ones((w, columns)), count, c).astype(bool))
    return np.concatenate(there)


def objective_of(problem: TrainingProblem, stack: NDArray, steps: NDArray,
                 integrator: str = "euler") -> float:
    """J of a stack, by a roll-out; of plain controls where no map is learned."""
    at, W = settled(problem, stack)
    end = discrete.roll_out(at, W, steps, integrator)[-1]
    return discrete.objective(at, end, W, steps)[0]


def scaled_gradient(
    problem: TrainingProblem, stack: NDArray, steps: NDArray, integrator: str = "euler",
    slopes: NDArray | None = None,
) -> tuple[NDArray, NDArray, NDArray]:
    """States and costates of a stack, and its gradient scaled by L̃/(λρ), (L + a + b, w, c).

    `slopes` stand in for σ′ as in `hamshoot.theory.layers.costates`.
    """
    at, W = settled(problem, stack)
    A = discrete.roll_out(at, W, steps, integrator)
    B, G = discrete.costates(at, A, W, steps, integrator, slopes=slopes)
    parts, sizes, c = [G], sizes_of(problem), problem.control_shape[1]
    if sizes.lift:
        parts.append(_as_layers(lift_gradient(at, B[0]), sizes.lift, c))
    if sizes.readout:
        parts.append(_as_layers(readout_gradient(at, A[-1]).T, sizes.readout, c))
    return A, B, np.concatenate(parts)


def stationarity_of(problem: TrainingProblem, stack: NDArray, gradient: NDArray) -> float:
    """Largest ‖scaled gradient‖ / max(1, ‖·‖) of a layer or a whole map."""
    W, P, Q = parts_of(problem, stack)
    G, gP, gQ = parts_of(problem, gradient)
    pairs = [(gP, P)] * (problem.lift_decay is not None)
    pairs += [(gQ, Q)] * (problem.readout_decay is not None)
    return max(discrete.stationarity(W, G), *(_relative(g, M) for g, M in pairs), 0.0)


def _as_layers(matrix: NDArray, count: int, columns: int) -> NDArray:
    """A matrix (w, k) as `count` layers (w, c), filled up with zeros."""
    wide = np.zeros((len(matrix), count * columns), dtype=matrix.dtype)
    wide[:, : matrix.shape[1]] = matrix
    return np.ascontiguousarray(wide.reshape(len(matrix), count, columns).swapaxes(0, 1))


def _as_matrix(layers: NDArray, columns: int) -> NDArray:
    """The inverse: a matrix (w, k)."""
    return layers.swapaxes(0, 1).reshape(layers.shape[1], -1)[:, :columns]


# -- one vector ------------------------------------------------------------------------------------


def flat(problem: TrainingProblem, W: NDArray, P: NDArray, Q: NDArray) -> NDArray:
    """W, and P and Q where they are learned, as one vector (n,), for Newton's method."""
    parts = [W] + [P] * (problem.lift_decay is not None) + [Q] * (problem.readout_decay is not None)
    return np.concatenate([part.ravel() for part in parts])


def unflat(problem: TrainingProblem, x: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """W, P and Q of such a vector, real or complex; fixed maps as they are."""
    P, Q = problem.lift, problem.readout
    if problem.readout_decay is not None:
        x, Q = x[: -Q.size], x[-Q.size :].reshape(Q.shape)
    if problem.lift_decay is not None:
        x, P = x[: -P.size], x[-P.size :].reshape(P.shape)
    return x.reshape(-1, *problem.control_shape), P, Q


def flat_weights(problem: TrainingProblem, steps: NDArray) -> NDArray:
    """ρ/L̃ of the controls and μ/λ of the maps, (n,): J/λ has ½ of them times the squares."""
    plain = np.repeat(steps / problem.effective_depth, int(np.prod(problem.control_shape)))
    more = [np.full(M.size, mu / problem.weight_decay) for mu, M in (
        (problem.lift_decay, problem.lift), (problem.readout_decay, problem.readout))
        if mu is not None]
    return np.concatenate([plain, *more])


def count(problem: TrainingProblem, layers: int) -> int:
    """How many unknowns there are, controls of so many layers and learned maps."""
    return layers * int(np.prod(problem.control_shape)) + sum(
        M.size for mu, M in ((problem.lift_decay, problem.lift),
                             (problem.readout_decay, problem.readout)) if mu is not None)
