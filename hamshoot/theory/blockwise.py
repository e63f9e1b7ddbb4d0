"""The reference formulas over blocks of samples, for networks whose states are too many to store.

Given the controls, the samples do not know of each other: every block is rolled out and swept back
by `hamshoot.theory.layers` as if it were a problem of its own, with its costate scaled to the whole
number of samples, and what the problem sums over samples is summed over blocks: the loss, the
products Bσ̂(A)ᵀ that make the gradient, and, of

    H_ℓ = L̃ (½ ‖B_ℓσ̂(A_{ℓ−1})ᵀ‖_F² − Tr(B_ℓA_{ℓ−1}ᵀ)),

both the product and the trace, before anything is squared.

Costs: 6Lw²N flops, as any gradient, and memory for two blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import clarke
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Numbers, (L+1)wN, up to which representations and momenta are stored, each. With what the Clarke
#: residual needs beside them that is up to 2 GB.
MOST_STORED = 25_000_000
#: Numbers of the representations of one block.
BLOCK_NUMBERS = 2_000_000


class Evaluation(NamedTuple):
    """What the formulas say of controls, summed over all samples.

    Attributes
    ----------
    objective, loss, parameter_norm : float
    gradient : ndarray, shape (L, w, w+1)
        (L̃/(λρ_ℓ)) ∂J/∂W_ℓ, with the activation's own slope on the kink of ReLU: σ′(0) is one choice
        out of Clarke's subdifferential, so its norm bounds the Clarke residual from above.
    hamiltonian : ndarray, shape (L,) for Euler layers, else (L+1,)
        As `hamshoot.network.path.path_hamiltonian`.
    kinks, choices : int
        Entries |A| ≤ `hamshoot.theory.clarke.KINK_TOLERANCE`·max(1, max|A| of the block), and those
        of them whose neuron some weight reads: without any, the gradient is the only one there is.
    collapsed : bool
        As `hamshoot.theory.layers.collapsed`.
    """

    objective: float
    loss: float
    parameter_norm: float
    gradient: NDArray
    hamiltonian: NDArray
    kinks: int
    choices: int
    collapsed: bool


def too_many(problem: TrainingProblem, layers: int) -> bool:
    """Whether the states of so many layers are not stored; a hard endpoint has to store them."""
    numbers = (layers + 1) * problem.width * problem.n_samples
    return not problem.hard_endpoint and numbers > MOST_STORED


def evaluate(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, integrator: str = "euler"
) -> Evaluation:
    """Objective, gradient, Hamiltonian and kinks of a layered network with a loss.

    Parameters
    ----------
    weights : ndarray, shape (L, w, w+1)
    steps : ndarray, shape (L,)
    integrator : {"euler", "rk4"}
    """
    N, euler = problem.n_samples, integrator == "euler"
    at_nodes, traces = np.zeros(()), np.zeros(())
    squares, losses, kinks = 0.0, 0.0, np.zeros(2, dtype=int)
    output, targets = discrete.Spread(), discrete.Spread()
    pulled = np.zeros_like(weights)  # L̃ Bσ̂ᵀ, averaged over the stages of a layer
    for a, b, A0, Y in _blocks(problem, len(weights)):
        A = discrete.roll_out(problem, weights, steps, integrator, A0)
        B, gradient = _swept_back(problem, A, (a, b), Y, weights, steps, integrator)
        pulled += weights - gradient
        left, right = (A[:-1], B[1:]) if euler else (A, B)
        if not euler:
            at_nodes = at_nodes + np.array([_control(problem, *node)
                                            for node in zip(A, B, strict=True)])
        traces = traces + np.einsum("kij,kij->k", left, right)
        ends = problem.criterion.predicted(problem.readout @ A[-1])
        squares += float(np.sum((ends - Y) ** 2))
        losses += float(ham.loss(A[-1], problem.readout, Y, problem.criterion.part(a, b))) * \
            (b - a) / N
        output.add(ends)
        targets.add(Y)
        if problem.sigma.kinked and euler:
            kinks += _kinks(A, weights)
    loss = squares / N if problem.criterion.plain else losses
    norm = float(np.sum(steps * np.sum(weights**2, axis=(1, 2))))
    products = pulled if euler else at_nodes
    leak = problem.effective_depth
    H = np.sum(products**2, axis=(1, 2)) / (2 * leak) - leak * traces
    return Evaluation(loss + problem.weight_decay / (2 * problem.effective_depth) * norm, loss,
                      norm, weights - pulled, H, int(kinks[0]), int(kinks[1]),
                      discrete.is_trivial(output, targets, squares))


def gradient_norm(problem: TrainingProblem, steps: NDArray, gradient: NDArray) -> float:
    """‖∂J/∂W‖_F from the scaled gradient."""
    share = problem.weight_decay / problem.effective_depth * steps[:, None, None]
    return float(np.linalg.norm(share * gradient))


def states(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, integrator: str = "euler"
) -> NDArray:
    """Representations of a layered network, (L+1, w, N), block by block into the one array."""
    out = np.empty((len(weights) + 1, problem.width, problem.n_samples))
    for a, b, A0, _ in _blocks(problem, len(weights)):
        out[:, :, a:b] = discrete.roll_out(problem, weights, steps, integrator, A0)
    return out


def costates(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, integrator: str = "euler",
    on_kink: NDArray | None = None,
) -> NDArray:
    """Momenta of a layered network with a loss, (L+1, w, N), block by block into the one array.

    Parameters
    ----------
    on_kink : ndarray, shape (L+1, w, N), optional
        Representations of a ReLU network with entries on its kink: the momenta then take the
        slopes of the Clarke residual, as stored ones do; a search over all samples at once.
    """
    if on_kink is not None:
        slopes = clarke.clarke_residual(problem, on_kink, weights, steps).slopes
        return discrete.costates(problem, on_kink, weights, steps, slopes=slopes)[0]
    out = np.empty((len(weights) + 1, problem.width, problem.n_samples))
    for a, b, A0, Y in _blocks(problem, len(weights)):
        A = discrete.roll_out(problem, weights, steps, integrator, A0)
        out[:, :, a:b], _ = _swept_back(problem, A, (a, b), Y, weights, steps, integrator)
    return out


def _blocks(problem: TrainingProblem, layers: int) -> Iterator[tuple[int, int, NDArray, NDArray]]:
    """First and last sample, A_0 and Yᵀ of every block."""
    size = max(1, BLOCK_NUMBERS // ((layers + 1) * problem.width))
    for a in range(0, problem.n_samples, size):
        b = min(a + size, problem.n_samples)
        yield a, b, *problem.block(a, b)


def _swept_back(
    problem: TrainingProblem, A: NDArray, block: tuple[int, int], Y: NDArray, weights: NDArray,
    steps: NDArray, integrator: str,
) -> tuple[NDArray, NDArray]:
    """Costate and scaled gradient of a block, which has a share of all samples."""
    share = (block[1] - block[0]) / problem.n_samples
    terminal = share * ham.terminal_momentum(A[-1], problem.readout, Y, problem.weight_decay,
                                             problem.criterion.part(*block))
    return discrete.costates(problem, A, weights, steps, integrator, terminal)


def _control(problem: TrainingProblem, A: NDArray, B: NDArray) -> NDArray:
    return ham.control(A, B, effective_depth=problem.effective_depth, activation=problem.sigma,
                       bias=problem.bias)


def _kinks(A: NDArray, weights: NDArray) -> tuple[int, int]:
    """Entries on the kink of ReLU, and those among them that are not idle."""
    size = max(1.0, float(np.abs(A[:-1]).max()))
    counts = np.sum(np.abs(A[1:-1]) <= clarke.KINK_TOLERANCE * size, axis=2)
    columns = np.linalg.norm(weights[:, :, : A.shape[1]], axis=1)
    read = columns[1:] > clarke.IDLE_COLUMN * columns.max(initial=1.0)
    return int(counts.sum()), int(counts[read].sum())
