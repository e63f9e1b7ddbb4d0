"""Ways to a first geodesic: from the networks of the search, from single starts, from a guess."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.watch import Watch
from hamshoot.methods.indirect.branches import BranchCheck
from hamshoot.methods.indirect.continuation import Guess, Path, Stage, extrapolated, stage_name
from hamshoot.methods.indirect.first_network import (
    FirstNetworkOptions,
    FoundNetwork,
    find_networks,
    search_layers,
)
from hamshoot.methods.indirect.reach import Continuation
from hamshoot.methods.newton.levenberg_marquardt import Minimum
from hamshoot.problem.training_problem import TrainingProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray

_logger = logging.getLogger("hamshoot")

#: Networks of the search that Newton's method begins at, each of twice the layers of the last: at
#: the end of a ladder, where thin kinks cost many layers in vain, and before.
NEAR_LEVELS, LEVELS = 3, 5
#: Times the last ε of a plain ReLU: where a ladder begins that keeps to the network searched for.
NEAR = 4.0
#: Seeds of the search, after the one asked for: the second only where no geodesic is an answer, or
#: where it lies well above the network it came from.
SEEDS = (0, 1000)


@dataclass(frozen=True, kw_only=True)
class SearchOptions(FirstNetworkOptions):
    """What the search goes by; the options of that name of `hamshoot.IndirectShooting`."""

    start: str | None
    layers: int | None
    epsilon_first: float
    epsilon_last: float
    epsilon_factor: float
    exact_relu: bool


class FirstGeodesic:
    """Geodesics at the top of the ladder, or of the problem of a guess.

    Parameters
    ----------
    options : SearchOptions
    problem : TrainingProblem
    ways : Continuation
        Its solver is left with the geodesic found.
    branches : BranchCheck

    Attributes
    ----------
    network : FoundNetwork or None
        What the candidate tried last comes from, where it is one of the search.
    checked : str
        How a collapse was checked by the search.
    direct_layers : int or None
        Of the last direct stage.
    """

    def __init__(self, options: SearchOptions, problem: TrainingProblem, ways: Continuation,
                 branches: BranchCheck):
        self.options, self.problem, self.ways, self.branches = options, problem, ways, branches
        self.solver, self.networks, self.layers = ways.solver, ways.networks, ways.layers
        self.watch: Watch = ways.watch
        self.extra: dict[str, Any] = ways.extra
        self.network: FoundNetwork | None = None
        self.checked = ""
        self.direct_layers: int | None = None

    def top(self, target: Stage) -> Stage:
        """The top of the ladder."""
        if 0 < target.epsilon < 0.3 * self.options.epsilon_first or self.problem.sigma.kinked:
            return target._replace(epsilon=max(target.epsilon, self.options.epsilon_first))
        return target

    def stages(self, target: Stage) -> tuple[Stage, ...]:
        """Where Newton's method begins from a network: near the target, then at the ladder's top.

        At a large ε the network may lie on another branch, or on one that ends in a saddle. A plain
        ReLU begins a few steps above the last ε, for its limit, and half way between.
        """
        top = self.top(target)
        if not self.problem.sigma.kinked:
            return tuple(dict.fromkeys((target, top)))
        near = min(NEAR * target.epsilon, top.epsilon)
        middle = float(np.sqrt(near * top.epsilon))
        return tuple(target._replace(epsilon=value) for value in
                     dict.fromkeys((near, middle, top.epsilon)))

    def candidates(
        self, target: Stage, settled: Callable[[], bool]
    ) -> Iterator[Callable[[], bool]]:
        """The networks of the search, then single starts on finer and finer meshes.

        Single starts only as long as nothing that was found is an answer (`settled`).
        """
        first = self.top(target)
        for seed in SEEDS if self.options.start is None else ():
            for network in self._networks(first, seed):
                self.network = network
                for stage in self.stages(target):
                    yield partial(self._searched, stage, network)
            self.network = None
            if seed and settled():
                return
        for start, seed in self._starts():
            yield partial(self._started, first, start, seed)
        if not self.problem.hard_endpoint:
            yield partial(self._idle, first)

    def _networks(self, first: Stage, seed: int) -> Iterator[FoundNetwork]:
        """Of the search, from the seed asked for or one further."""
        layers = self.options.layers or search_layers(self.problem)
        options = FirstNetworkOptions(seed=self.options.seed + seed, effort=self.options.effort,
                                      workers=self.options.workers)
        for network in find_networks(options, self.networks.own(), self.networks.soft(first),
                                     layers, self.watch, self.networks.best):
            self.extra.update(network.search.record())
            yield network

    def _searched(self, stage: Stage, network: FoundNetwork) -> bool:
        """A geodesic from a network of the search."""
        self.checked = network.search.checked()
        _logger.info("geodesic: from a network of %d layers, J %.8g", len(network.weights),
                     network.objective)
        top = stage.epsilon >= network.search.problem.sigma.epsilon
        return self.levels(stage, network.weights if top else network.carried)

    def levels(self, stage: Stage, weights: NDArray) -> bool:
        """A geodesic from minima of networks that get finer: each layer becomes two."""
        before: Path | None = None
        near = self.problem.activation == "relu" and \
            stage.epsilon <= NEAR * self.options.epsilon_last
        for level in range(NEAR_LEVELS if near else LEVELS):
            self.watch.stage = f"direct, {len(weights)} layers"
            path, least, collapsed = self.networks.descended(stage, weights)
            if before is not None and not collapsed and \
                    self._solved(extrapolated(before, path), least, stage, collapsed, fine=True):
                return True
            if self._solved(path, least, stage, collapsed, fine=level > 0):
                return True
            before = path
            if collapsed:
                return False
            # Controls of coarse networks are rough: between the layers they would be smoothed.
            weights = np.repeat(least.weights, 2, axis=0)
        return False

    def _started(self, stage: Stage, start: str, seed: int) -> bool:
        """A geodesic from a single start, on meshes that get finer."""
        weights = None
        for refinement in (1, 2, 4):
            layers = refinement * self.layers
            self.watch.stage = f"direct, start {start}, {layers} layers"
            path, least, collapsed = self.networks.from_start(stage, layers, start, seed, weights)
            if collapsed:
                return False
            if self._solved(path, least, stage, False):
                return True
            weights = least.weights
        return False

    def _idle(self, stage: Stage) -> bool:
        """The geodesic beside the network without weights, where all else failed."""
        self.watch.stage = "from no weights"
        path, least, collapsed = self.networks.from_no_weights(stage, self.layers)
        return self._solved(path, least, stage, collapsed)

    def _solved(self, path: Path, least: Minimum, stage: Stage, collapsed: bool,
                fine: bool = False) -> bool:
        """Newton's method from the end of a direct stage, on the nodes of its layers if `fine`."""
        layers = len(least.weights)
        path = self.solver.on_mesh(path, layers if fine else 0)
        self.direct_layers = layers
        self.extra["direct_objective"], self.extra["direct_layers"] = least.objective, layers
        if not self.solver.solve(path, stage, minimum=not collapsed):
            return False
        if not collapsed:
            self.branches.compare(stage, least.weights, least.objective)
        return True

    def _starts(self) -> Iterator[tuple[str, int]]:
        """The start asked for, then others."""
        seed = self.options.seed
        given = self.options.start or "identity"
        yield given, seed
        for start in ("path", "identity"):
            if start != given:
                yield start, seed
        yield "path", seed + 1000
        yield "identity", seed + 1000

    def from_guess(self, guess: Guess, target: Stage) -> bool:
        """A geodesic of the target, or of the guess's own problem to go on from."""
        epsilon = target.epsilon
        if self.problem.sigma.kinked:
            epsilon = guess.path.stage.epsilon or self.options.epsilon_first
        path = self.solver.on_mesh(guess.path)
        own = guess.path.stage
        own = own._replace(epsilon=epsilon or own.epsilon)
        candidates = [target._replace(epsilon=epsilon), own]
        if target.epsilon > 0:
            first = max(target.epsilon, self.options.epsilon_first)
            candidates[1:1] = [target._replace(epsilon=first)]
            candidates.append(own._replace(epsilon=first))
        if guess.weights is not None:
            self.networks.offer(guess.weights)
        for stage in dict.fromkeys(candidates):
            self.watch.stage = f"from the guess, {stage_name(stage)}"
            if self.solver.solve(path, stage):
                if guess.weights is not None and guess.objective is not None and \
                        stage[:2] == target[:2]:
                    self.branches.compare(stage, guess.weights, guess.objective)
                return True
        if guess.weights is None:
            return False
        # A coarse network is far from every geodesic: descend on finer meshes.
        stage = candidates[0]._replace(
            epsilon=max(candidates[0].epsilon, self.options.epsilon_first)
            if candidates[0].epsilon else 0.0)
        self.watch.stage = f"descent from the guess, {stage_name(stage)}"
        if not self._descended(stage, guess):
            return False
        self.extra["guess_refined"] = True
        if guess.objective is not None:
            self.branches.compare(stage, guess.weights, guess.objective)
        return True

    def _descended(self, stage: Stage, guess: Guess) -> bool:
        """By Newton's method on networks; from one that is far from a minimum by L-BFGS first."""
        assert guess.weights is not None
        if guess.minimum:
            return self.ways.refine(stage, guess.weights)
        _, least, _ = self.networks.descended(stage, guess.weights)
        return self.ways.refine(stage, least.weights)
