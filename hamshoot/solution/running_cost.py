"""The cost along the way: what the weights cost at every depth, and up to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.solution.solved_nodes import SolvedNodes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RunningCost:
    """J = loss + ∫ rate dp, along p. Immutable.

    Attributes
    ----------
    p : ndarray, shape (M,)
        Nodes.
    rate : ndarray, shape (M,) on a continuous path, (L,) over layers
        (λ/2L̃)‖W_p‖_F², at the nodes; of layers one number each, constant over it.
    cumulative : ndarray, shape (M,)
        ∫₀^p of the rate, 0 at p = 0; exact over layers, by the flow to its tolerance on a path.
    loss : float
        The end cost, 0 with a prescribed endpoint.
    """

    p: NDArray
    rate: NDArray
    cumulative: NDArray
    loss: float

    @property
    def objective(self) -> float:
        """The loss and all that the weights cost: J."""
        return self.loss + float(self.cumulative[-1])


def running_cost(solution: SolvedNodes, sigma: Any) -> RunningCost:
    """The cost along a solution; see `hamshoot.Solution.running_cost`.

    Parameters
    ----------
    solution : SolvedNodes
    sigma : Activation
        That the solution obeys.
    """
    problem = solution.problem
    share = problem.weight_decay / (2 * problem.effective_depth)
    rate = share * np.sum(solution.weights**2, axis=(1, 2))
    if solution.steps is not None:
        pieces = rate * solution.steps
    else:
        flow = HamiltonianFlow(problem.width, problem.n_samples, problem.effective_depth, sigma,
                               problem.bias)
        states = np.stack([solution.representations, solution.momenta], axis=1)[:-1]
        flow(solution.p[:-1], solution.p[1:], states.reshape(len(states), -1))
        pieces = problem.weight_decay * flow.energies
    return RunningCost(solution.p, rate, np.concatenate([[0.0], np.cumsum(pieces)]),
                       float(solution.loss))
