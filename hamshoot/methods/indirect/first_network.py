"""The network that the first geodesic comes from: the search for a basin that all methods share."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from hamshoot.dynamics.sweeps import blas_threads
from hamshoot.methods.common.watch import Best, Watch
from hamshoot.methods.search.basins import AGREED, MEMORY, BasinOptions, BasinSearch, Settling
from hamshoot.methods.search.ladder import epsilon_stages
from hamshoot.methods.search.walk import LadderWalk
from hamshoot.network.follow_path import equidistant_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.training_problem import TrainingProblem

#: Ladder of the search: first and last ε, and the factor; a smooth ReLU ends it at its own ε.
LADDER = (0.5, 1e-3, 0.5)
#: Layers of the search at least, and for each unit of L̃. Where λ is small, coarse networks have
#: minima that finer ones do not have.
LAYERS, PER_DEPTH = 60, 12.0
#: When a search ends, by effort: of a network without kinks, and of one with kinks or near ones,
#: which has many minima. Beyond its budget it costs less than the geodesic to come. The last digits
#: of J, that reheats of a linear network gain, Newton's method finds sooner.
SETTLING = {
    "quick": (Settling(1), Settling(1)),
    "default": (Settling(1, most=4.0, wide=2, gain=AGREED),
                Settling(1, least=0.4, most=4.0, wide=2)),
    "thorough": (Settling(2, wide=2), Settling(wide=2)),
}
#: Fall of J per window with which a network is carried down to the problem's own activation.
DECREASE = 1e-4


def search_layers(problem: TrainingProblem) -> int:
    """How many layers the search is made with: enough that a layer is a short step of the flow.

    Single shooting of as many layers and the same seed begins with the same search.
    """
    return max(LAYERS, math.ceil(PER_DEPTH * problem.effective_depth))


@dataclass(frozen=True, kw_only=True)
class FirstNetworkOptions:
    """What the search goes by; the options of that name of `hamshoot.IndirectShooting`."""

    seed: int
    effort: str
    workers: Any


class FoundNetwork(NamedTuple):
    """Controls (L, w, w+1) where a search ended, and carried to the problem's own activation.

    With J of the problem's own network there, and the words of the search.
    """

    weights: NDArray
    carried: NDArray
    objective: float
    collapsed: bool
    search: BasinSearch


def find_networks(
    options: FirstNetworkOptions, problem: TrainingProblem, top: TrainingProblem, layers: int,
    watch: Watch, best: Best,
) -> Iterator[FoundNetwork]:
    """Networks of equal layers to begin with, each searched for when it is asked for.

    Searched for is the problem itself and then, where that is another activation, the problem as
    it stands at the top of the ladder in ε: either may find the lower network.

    Parameters
    ----------
    options : FirstNetworkOptions
    problem, top : TrainingProblem
        With a loss: the problem itself, and the one of the first stage.
    layers : int
    watch : Watch
    best : Best
        Gets every network on the way.
    """
    steps = equidistant_steps(layers)
    settling = SETTLING[options.effort][problem.sigma.laddered]
    for searched in (problem,) if top.sigma == problem.sigma else (problem, top):
        search = BasinSearch(
            BasinOptions(seed=options.seed, start=None, starts=None, noise=None,
                         epsilon=LADDER, reheats=None, effort=options.effort,
                         workers=options.workers, max_iter=sys.maxsize, tol=1e-6,
                         settling=settling),
            searched, steps, watch, best)
        settling = replace(settling, most=1.0)  # of the first
        walk = LadderWalk(problem, steps, watch, tol=1e-6, max_iter=sys.maxsize,
                          stage_iter=5000, memory=MEMORY)
        ladder = epsilon_stages(problem, LADDER, min(LADDER[0], searched.sigma.epsilon))
        with blas_threads(problem):
            basin = search.run()
            end = basin.weights if searched is problem or basin.collapsed else \
                walk.descend(basin.weights, ladder, DECREASE)
        yield FoundNetwork(basin.weights, end, walk.offer(end), basin.collapsed, search)


def settled_objective(
    problem: TrainingProblem, weights: NDArray, epsilon: float, watch: Watch
) -> float:
    """J of the problem's own network after a descent from given controls, from a given ε."""
    walk = LadderWalk(problem, equidistant_steps(len(weights)), watch, tol=1e-6,
                      max_iter=sys.maxsize, stage_iter=5000, memory=MEMORY)
    with blas_threads(problem):
        return walk.offer(walk.descend(weights, epsilon_stages(problem, LADDER, epsilon),
                                       DECREASE))
