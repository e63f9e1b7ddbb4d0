"""The way to a geodesic around Newton's method: first guess, ladders, continuation, branch check.

Without a guess a coarse direct stage finds a network, on a finer mesh than its first when Newton
fails from there; then a ladder in ε, continuation in L̃, λ and ε with steps halved on failure and
grown on success, the limit ε → 0, and for ReLU the plain flow. `hamshoot.methods.indirect.method`
has the options.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hamshoot.methods.common.watch import Watch
from hamshoot.methods.indirect.continuation import (
    Guess,
    Path,
    Stage,
    between,
    branch_sentences,
    controls,
    distance,
    midpoints,
    predict,
    same_branch,
    stage_name,
    states_at,
    tends_to,
)
from hamshoot.methods.indirect.euler_networks import EulerNetworks
from hamshoot.methods.indirect.relu_limit import relu_limit
from hamshoot.methods.indirect.result import solution_of
from hamshoot.methods.indirect.stage_solver import ShootingOptions, StageSolver
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution, Status
from hamshoot.support.interpolation import interpolate

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Of the representations of the finest network built from a geodesic (32 MB).
MOST_NUMBERS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What the search goes by; the options of that name of `hamshoot.IndirectShooting`."""

    seed: int
    start: str
    layers: int | None
    epsilon_first: float
    epsilon_last: float
    epsilon_factor: float
    exact_relu: bool


class GeodesicSearch:
    """One call of `IndirectShooting.solve`.

    Parameters
    ----------
    options : SearchOptions
    shooting : ShootingOptions
        Of Newton's method at a stage.
    problem : TrainingProblem
    watch : Watch
    """

    def __init__(self, options: SearchOptions, shooting: ShootingOptions,
                 problem: TrainingProblem, watch: Watch):
        self.options, self.problem, self.watch = options, problem, watch
        self.solver = StageSolver(shooting, problem, watch)
        self.networks = EulerNetworks(problem, watch)
        self.extra: dict[str, Any] = {}  # of the solution; nothing is decided by it
        self.collapsed: Path | None = None  # where a direct stage collapsed, see `discrete`
        self.all_collapsed = False
        self.direct_layers: int | None = None  # of the last direct stage
        self.descents = 0  # to the minimum of an Euler network, where continuation failed
        self.guess: Guess | None = None  # where no geodesic was found from it

    # -- strategy ----------------------------------------------------------------------------------

    def solve(self, guess: Guess | None) -> tuple[Status, str]:
        """Fill `path`; return the status, and a sentence."""
        target = self._target()
        if guess is None:
            if not self._first_geodesic(target):
                return Status.STALLED, self._failure()
        elif not self._from_guess(guess, target):
            self.guess = guess
            return Status.STALLED, self._failure()
        if not self._reach(target):
            return Status.STALLED, self._failure()
        if self.all_collapsed:
            return Status.COLLAPSED, "Every start that was tried collapsed to this geodesic."
        self._check_branch()
        status, reason = (Status.CONVERGED, "") if self.problem.activation != "relu" else \
            relu_limit(self.solver, self.options.exact_relu, self.extra)
        return status, " ".join(filter(None, [reason, *branch_sentences(self.extra)]))

    def _target(self) -> Stage:
        """Stage of the problem itself; the end of the ladder for a plain ReLU."""
        problem = self.problem
        epsilon = problem.sigma.epsilon
        if problem.activation == "relu":
            epsilon = self.options.epsilon_last
        return Stage(problem.effective_depth, problem.weight_decay, epsilon)

    def _failure(self) -> str:
        if self.solver.result is None:
            return "No direct stage came to an end."
        reason = self.solver.result.reason
        stage = f" at {self.watch.stage}" if self.watch.stage else ""
        return f"Newton's method stopped{stage}: {reason}."

    # -- the first geodesic ------------------------------------------------------------------------

    def _first_geodesic(self, target: Stage) -> bool:
        """A geodesic at the top of the ladder, from direct stages on finer and finer meshes."""
        first = target
        if 0 < target.epsilon < 0.3 * self.options.epsilon_first or \
                self.problem.activation == "relu":
            first = target._replace(epsilon=max(target.epsilon, self.options.epsilon_first))
        if self._first_at(first, list(self._starts()), (1, 2, 4)):
            return True
        # The trivial solution is a geodesic too: better exact than as the direct stage left it.
        self.all_collapsed = self.collapsed is not None and self.solver.result is None
        self.extra["all_collapsed"] = self.all_collapsed
        if self.collapsed is None or not self.all_collapsed:
            return False
        return self.solver.solve(self.collapsed, first)

    def _first_at(
        self, stage: Stage, begin: list[tuple[str, int]], refinements: tuple[int, ...]
    ) -> bool:
        """A geodesic of a stage from direct stages, by start and mesh."""
        for start, seed in begin:
            weights = None
            for refinement in refinements:
                layers = refinement * self._layers
                self.watch.stage = f"direct, start {start}, {layers} layers"
                path, least, collapsed = self.networks.from_start(
                    stage, layers, start, seed, weights)
                path, weights = self._kept(path, least.objective, layers), least.weights
                if collapsed:
                    self.collapsed = path
                    break
                if self.solver.solve(path, stage, minimum=True):
                    self._compare(stage, weights, least.objective)
                    return True
        return False

    def _kept(self, path: Path, objective: float, layers: int) -> Path:
        """The end of a direct stage on the shooting nodes; it is the best path if the first."""
        path = self.solver.on_mesh(path)
        self.direct_layers = layers
        self.extra["direct_objective"], self.extra["direct_layers"] = objective, layers
        if self.solver.path is None:
            self.solver.path = path
        return path

    @property
    def _layers(self) -> int:
        return self.options.layers or max(60, int(12 * self.problem.effective_depth))

    def _starts(self) -> Iterator[tuple[str, int]]:
        """The start asked for, then others."""
        seed = self.options.seed
        yield self.options.start, seed
        for start in ("path", "identity"):
            if start != self.options.start:
                yield start, seed
        yield "path", seed + 1000
        yield "identity", seed + 1000

    def _from_guess(self, guess: Guess, target: Stage) -> bool:
        """A geodesic of the target, or of the guess's own problem to go on from."""
        epsilon = target.epsilon
        if self.problem.activation == "relu":
            epsilon = guess.path.stage.epsilon or self.options.epsilon_first
        path = self.solver.on_mesh(guess.path)
        own = guess.path.stage
        own = own._replace(epsilon=epsilon or own.epsilon)
        candidates = [target._replace(epsilon=epsilon), own]
        if target.epsilon > 0:
            first = max(target.epsilon, self.options.epsilon_first)
            candidates[1:1] = [target._replace(epsilon=first)]
            candidates.append(own._replace(epsilon=first))
        for stage in dict.fromkeys(candidates):
            self.watch.stage = f"from the guess, {stage_name(stage)}"
            if self.solver.solve(path, stage):
                if guess.weights is not None and guess.objective is not None and \
                        stage[:2] == target[:2]:
                    self._compare(stage, guess.weights, guess.objective)
                return True
        if guess.weights is None:
            return False
        # A coarse network is far from every geodesic: descend on finer meshes.
        stage = candidates[0]._replace(
            epsilon=max(candidates[0].epsilon, self.options.epsilon_first)
            if candidates[0].epsilon else 0.0)
        self.watch.stage = f"descent from the guess, {stage_name(stage)}"
        if not self._refine(stage, guess.weights):
            return False
        self.extra["guess_refined"] = True
        if guess.objective is not None:
            self._compare(stage, guess.weights, guess.objective)
        return True

    # -- continuation ------------------------------------------------------------------------------

    def _reach(self, target: Stage) -> bool:
        """Continuation from the stage solved to the target, in all three parameters at once."""
        before: Path | None = None
        here = self._geodesic()
        if here.stage == target:
            return True
        span = distance(here.stage, target, self.options.epsilon_factor)
        start, s, ds, failures = here.stage, 0.0, min(1.0, 1.0 / span), 0
        while s < 1:
            # Where a branch of minima ends in a fold no step is short enough, and many are waste:
            # after two failures descend, a full step further, to the minimum below.
            if failures == 2:
                ds = 1.0 / span
            trial = min(1.0, s + ds)
            stage = target if trial == 1 else between(start, target, trial)
            self.watch.stage = stage_name(stage)
            descended = failures >= 2 and self._descend(here, stage)
            if descended or self.solver.solve(predict(before, here, stage), stage, quick=True):
                before, here, s = None if descended else here, self._geodesic(), trial
                result = self.solver.result
                ds *= 1.5 if result is not None and result.factorisations <= 4 else 1.0
                failures = 0
                continue
            self.solver.path, self.solver.converged = here, True
            failures += 1
            ds /= 2
            if failures == 5:
                self.solver.converged = False
                return False
        return True

    def _descend(self, path: Path, stage: Stage) -> bool:
        """From the control of a path, minimise an Euler network at a stage; then Newton."""
        self.watch.stage = f"descent, {stage_name(stage)}"
        flow = self.solver.shooting(path.stage, accurate=True).flow
        weights = controls(flow, states_at(flow, path.t, path.y, midpoints(self._layers)))
        if not self._refine(stage, weights):
            return False
        self.descents += 1
        self.extra["descents_taken"] = self.descents
        return True

    def _refine(self, stage: Stage, weights: NDArray) -> bool:
        """A geodesic from minima of Euler networks that get finer, descended to from weights."""
        for refinement in (1, 2, 4, 8):
            count = refinement * self._layers
            weights = interpolate(midpoints(len(weights)), weights, midpoints(count))
            path, least, collapsed = self.networks.minimise(
                self.networks.soft(stage), weights, stage)
            weights = least.weights
            if not collapsed and self.solver.solve(self.solver.on_mesh(path), stage, minimum=True):
                return True
        return False

    def _geodesic(self) -> Path:
        """The path of the stage that was solved last."""
        assert self.solver.path is not None
        return self.solver.path

    # -- the end -----------------------------------------------------------------------------------

    def _check_branch(self) -> None:
        """Objectives of Euler networks on the geodesic's control must tend to its own."""
        layers = 8 * (self.direct_layers or self._layers)
        most = MOST_NUMBERS // self._geodesic().y[0, 0].size
        self.extra["branch"] = tends_to(self.solver.solved[-1][1], layers, self._built, most)

    def _built(self, layers: int) -> float:
        """J of the Euler network with the control of the path at the middle of each layer."""
        path = self._geodesic()
        flow = self.solver.shooting(path.stage, accurate=True).flow
        weights = controls(flow, states_at(flow, path.t, path.y, midpoints(layers)))
        return self.networks.objective(path.stage, weights)

    def _compare(self, stage: Stage, weights: NDArray, own: float | None) -> None:
        """Whether the optimal Euler network that the geodesic came from lies on its branch."""
        start = self.networks.objective(stage, weights)
        changed = 0.0 if own is None or self.problem.hard_endpoint else abs(start - own)
        fine = max(16 * self._layers, 2 * len(weights))
        self.extra["start"] = same_branch(self.solver.solved[-1][1], weights, start, fine,
                                          self._built(fine), changed)

    def solution(self, status: Status, reason: str) -> Solution:
        """The `Solution` of the path as it stands."""
        path = self.solver.path
        if path is None:
            path = self.guess.path if self.guess is not None else self.networks.straight(
                self._target(), self.options.start, self.options.seed)
        if self.descents:
            descents = f"{self.descents} descent{'s' if self.descents > 1 else ''}"
            reason = " ".join(filter(None, [
                reason, f"On the way, continuation gave way to {descents} to the minimum of an "
                "Euler network, which may lie on another branch."]))
        return solution_of(path, self.solver, status, reason, self.extra)
