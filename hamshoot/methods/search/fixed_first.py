"""Learned maps begin with the optimum for the maps as they are.

The search with lift and readout as they are given ends at a network of its own. Its controls are
one more start of the joint search, and its J, the maps' weight decay included, is the bound that
the joint answer is held to: an answer above it is not taken, and the way down from that network is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.watch import Best, Watch
from hamshoot.methods.search.basins import MEMORY, BasinOptions, BasinSearch
from hamshoot.methods.search.exact_end import ExactEnd
from hamshoot.methods.search.ladder import epsilon_stages
from hamshoot.methods.search.walk import LadderWalk
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.status import Status
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Fixed:
    """The network of fixed maps.

    Attributes
    ----------
    stack : ndarray, shape (L + a + b, w, w+1)
        Its controls with the maps, stacked (`hamshoot.theory.learned`).
    objective : float
        J with the weight decay of the maps.
    """

    stack: NDArray
    objective: float

    def record(self) -> dict[str, Any]:
        """What a solution keeps: its J."""
        return {"fixed_objective": self.objective}

    def note(self) -> str:
        """For a message."""
        return f"with lift and readout as they were J is {self.objective:.8g}"


class _Stacking(Best):
    """Hands networks of fixed maps on as stacks, for whoever is interrupted."""

    def __init__(self, problem: TrainingProblem, best: Best):
        super().__init__()
        self.problem, self.into = problem, best

    def offer(self, objective: float, weights: NDArray) -> bool:
        """Keep a copy if it is finite and better, and hand it on."""
        self.into.offer(objective + self.problem.map_decay,
                        learned.stacked(self.problem, weights))
        return super().offer(objective, weights)


def fixed_first(problem: TrainingProblem, steps: NDArray, options: BasinOptions, watch: Watch,
                best: Best) -> Fixed:
    """Solve a problem for its maps as they are: the search, convergence, the exact end.

    Raises
    ------
    Stop, KeyboardInterrupt
        With the best so far in `best`.
    """
    fixed = problem.with_fixed_maps()
    kept = _Stacking(problem, best)
    basin = BasinSearch(options, fixed, steps, watch, kept).run()
    walk = LadderWalk(fixed, steps, watch, tol=options.tol, max_iter=options.max_iter,
                      stage_iter=options.stage_iter, memory=options.memory or MEMORY)
    walk.best = kept
    end = ExactEnd(walk, options.tol, polish=True, look=watch.look)
    last = epsilon_stages(problem, options.epsilon)[-1]
    weights = end.converged(basin.weights, last)
    weights = end.run(weights, last, Status.SMOOTHED if problem.sigma.kinked else
                      Status.CONVERGED).weights
    walk.offer(weights)
    assert kept.weights is not None
    weights = kept.weights if kept.objective < np.inf else weights
    return Fixed(learned.stacked(problem, weights), kept.objective + problem.map_decay)
