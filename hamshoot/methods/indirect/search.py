"""The way to a geodesic around Newton's method: first network, ladders, continuation, verdict.

Without a guess the search that all methods share finds a network; its minimum near the end of the
ladder in ε, on a finer mesh when Newton fails from there, is the first path, and continuation leads
to the problem itself. Where the network's basin is lost on the way, it is tried from the top of the
ladder. What lies above the trivial objective, or is a saddle that could not be left, is no answer
while another candidate is lower. `hamshoot.methods.indirect.method` has the options.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.common.watch import Watch
from hamshoot.methods.indirect.basin_check import BasinCheck, lower_sentence
from hamshoot.methods.indirect.branches import BranchCheck
from hamshoot.methods.indirect.continuation import (
    Guess,
    Path,
    Stage,
    branch_sentences,
    stage_name,
)
from hamshoot.methods.indirect.euler_networks import EulerNetworks
from hamshoot.methods.indirect.first_geodesic import FirstGeodesic, SearchOptions
from hamshoot.methods.indirect.reach import Continuation
from hamshoot.methods.indirect.relu_limit import relu_limit
from hamshoot.methods.indirect.result import network_solution, solution_of
from hamshoot.methods.indirect.saddles import Saddles
from hamshoot.methods.indirect.stage_solver import ShootingOptions, StageSolver
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution, Status
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

_logger = logging.getLogger("hamshoot")

#: Relative difference of J that is rounding, or the accuracy of the flow.
ROUNDING = 1e-9
#: Saddles left one after the other, at most.
SADDLES = 5


class Found(NamedTuple):
    """A geodesic of the target: its path, J, and whether the second-order test refutes it."""

    path: Path
    objective: float
    saddle: bool
    solved: list[tuple[Stage, float, float]]
    collapsed: bool = False


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
        self.extra: dict[str, Any] = {}  # of the solution; nothing is decided by it
        self.solver = StageSolver(shooting, problem, watch)
        self.networks = EulerNetworks(problem, watch)
        self.layers = options.layers or max(60, int(12 * problem.effective_depth))
        self.ways = Continuation(self.solver, self.networks, watch, self.layers,
                                 options.epsilon_factor, self.extra)
        self.branches = BranchCheck(self.ways, self.extra)
        self.basins = BasinCheck(self.ways)
        self.first = FirstGeodesic(options, problem, self.ways, self.branches)
        self.saddles = Saddles(self.ways)
        self.trivial = float("inf") if problem.hard_endpoint else \
            discrete.trivial_objective(problem)
        self.guess: Guess | None = None
        self.kept: list[Found] = []
        self.left: list[float] = []  # J of the saddles that were left

    # -- strategy ----------------------------------------------------------------------------------

    def solve(self, guess: Guess | None) -> tuple[Status, str]:
        """Find the path of the solver; return the status, and a sentence."""
        target = self._target()
        if guess is None:
            found = self._best_of(self.first.candidates(target, self._settled), target)
        else:
            self.guess = guess
            found = None
            if self.first.from_guess(guess, target) and self.ways.come_near(target):
                found = self._left(target)
        if found is None:
            return Status.STALLED, self._failure()
        if found.collapsed:
            return self._collapse(found)
        lower, self.watch.stage = self.basins.lower(found.path), "branch check"
        early = "ladder_ended" in self.extra
        self.branches.check(self.first.direct_layers or self.layers)
        exact = self.options.exact_relu and self.problem.activation == "relu"
        status, reason = (Status.CONVERGED, "") if not self.problem.sigma.kinked else \
            relu_limit(self.solver, exact and not early, self.extra)
        self.solver.sharpen()
        if early:
            reason += (f" The ladder ended there, in place of ε = {target.epsilon:.3g}: no step of "
                       "Newton's method goes further, with nodes for thinner kinks.")
        if found.saddle:
            status = Status.SADDLE
        elif self.solver.solved[-1][1] > self.trivial * (1 + ROUNDING):
            status = Status.ABOVE_TRIVIAL
            reason = f"That one's is {self.trivial:.8g}. {reason}"
        if lower is not None:
            self.extra["lower_network"] = lower
            reason += " " + lower_sentence(lower)
        words = [reason.strip(), self.extra.get("second_order", "") and
                 f"Second order: {self.extra['second_order']}." if found.saddle else "",
                 *branch_sentences(self.extra)]
        return status, " ".join(filter(None, words))

    def _target(self) -> Stage:
        """Stage of the problem itself; the end of the ladder for a plain ReLU."""
        problem = self.problem
        epsilon = problem.sigma.epsilon
        if problem.sigma.kinked:
            epsilon = self.options.epsilon_last
        return Stage(problem.effective_depth, problem.weight_decay, epsilon)

    def _failure(self) -> str:
        if self.solver.result is None:
            return "No direct stage came to an end."
        stage = f" ({self.watch.stage})" if self.watch.stage else ""
        return f"Newton's method failed{stage}: {self.solver.result.reason}."

    def _collapse(self, found: Found) -> tuple[Status, str]:
        """What is said of a collapsed geodesic, and how others were looked for."""
        self.extra["all_collapsed"] = all(one.collapsed for one in self.kept)
        others = [one.objective for one in self.kept if not one.collapsed]
        words = [f"Its J is {found.objective:.8g}, {self.trivial:.8g} without weights"]
        if self.guess is not None:
            words.append("it comes from the guess, and lower ones were not looked for")
        elif self.networks.best.objective < found.objective * (1 - 1e-3):
            return Status.STALLED, (
                f"No geodesic was found from the lowest network, whose J is "
                f"{self.networks.best.objective:.8g}; this one collapsed.")
        else:
            words += [self.first.checked] if self.first.checked else []
            words += [f"other geodesics had J {', '.join(f'{J:.6g}' for J in others)}"] \
                if others else []
            words += ["every start that was tried ended there"] if not others else []
        return Status.COLLAPSED, "; ".join(words) + "."

    # -- candidates --------------------------------------------------------------------------------

    def _best_of(
        self, candidates: Iterator[Callable[[], bool]], target: Stage
    ) -> Found | None:
        """The first candidate that is an answer; without one the lowest geodesic found."""
        for candidate in candidates:
            self.solver.converged = False
            self.solver.solved.clear()
            if not (candidate() and self.ways.come_near(target)):
                continue
            found = self._left(target)
            _logger.info("geodesic: J %.8g%s%s", found.objective,
                         ", a saddle" if found.saddle else "",
                         ", collapsed" if found.collapsed else "")
            self.kept.append(found)
            if self._answers(found) and not self.basins.lost(found.path, self.first.network):
                break
        return self._restored()

    def _answers(self, found: Found) -> bool:
        """Whether a geodesic is no saddle and not above the trivial objective."""
        return not found.saddle and found.objective <= self.trivial * (1 + ROUNDING)

    def _settled(self) -> bool:
        """Whether one of those found is an answer."""
        return any(map(self._answers, self.kept))

    def _restored(self) -> Found | None:
        """The best geodesic of the target so far, made that of the solver again."""
        if not self.kept:
            return None
        least = min(one.objective for one in self.kept)
        best = min((one for one in self.kept if one.objective <= least + ROUNDING * abs(least)),
                   key=lambda one: one.saddle)
        self.solver.path, self.solver.converged = best.path, True
        self.solver.solved[:] = best.solved
        return best

    def _left(self, target: Stage) -> Found:
        """The geodesic that the solver is at, or a lower one where that is a saddle."""
        for _ in range(SADDLES):
            here = self._found(False)
            definite, _ = self.solver.curvature(here.path)
            if definite or here.collapsed:
                return here
            self.watch.stage = "down from a saddle"
            weights = self.saddles.below(here.path)
            if weights is not None and self._from_network(weights, target) and \
                    self.solver.solved[-1][1] < here.objective - ROUNDING * abs(here.objective):
                self.left.append(here.objective)
                _logger.info("geodesic: a saddle of J %.8g was left", here.objective)
                continue
            self.solver.path, self.solver.converged = here.path, True
            self.solver.solved[:] = here.solved
            verdict = self.saddles.verdict(here.path).verdict
            self.extra["second_order"] = verdict
            return here._replace(saddle=verdict.startswith("saddle"))
        return self._found(False)

    def _found(self, saddle: bool) -> Found:
        """The geodesic that the solver is at."""
        path, solved = self.ways.geodesic(), list(self.solver.solved)
        end = path.y[-1, 0]
        loss = 0.0 if self.problem.hard_endpoint else \
            float(ham.loss(end, self.problem.readout, self.problem.targets,
                           self.problem.criterion))
        return Found(path, solved[-1][1], saddle, solved,
                     discrete.collapsed(self.problem, end, loss))

    def _from_network(self, weights: NDArray, target: Stage) -> bool:
        """A geodesic of the target from a network: down the ladder, or from the target at once."""
        for stage in dict.fromkeys((*self.first.stages(target), target)):
            self.solver.solved.clear()
            self.watch.stage = f"from a network, {stage_name(stage)}"
            if self.first.levels(stage, weights) and self.ways.come_near(target):
                return True
        return False

    # -- the end -----------------------------------------------------------------------------------

    def solution(self, status: Status, reason: str) -> Solution:
        """The `Solution` of the path as it stands, or of the best network where there is none."""
        claims = status in (Status.CONVERGED, Status.SMOOTHED, Status.COLLAPSED, Status.SADDLE,
                            Status.ABOVE_TRIVIAL)
        reason = " ".join(filter(None, [reason, *self._way()]))
        if not claims:
            self._restored()
        path, target = self.solver.path, self._target()
        solved = path is not None and self.solver.converged and path.stage[:2] == target[:2]
        if not (claims or solved):
            network = self._best_network()
            if network is not None:
                return network_solution(network, self.solver, status, reason, self.extra)
            path = path if path is not None and self.guess is None else None
        if path is None:
            assert self.guess is not None  # else there is a network, that of the start at least
            path = self.guess.path
        return solution_of(path, self.solver, status, reason, self.extra)

    def _best_network(self) -> NDArray | None:
        """The lowest Euler network seen; None for a guess that is a path and led to none."""
        path = self.solver.path
        if path is not None and self.solver.converged:
            self.networks.offer(self.ways.weights(path, self.layers))
        weights = self.networks.rescued()
        if weights is None and self.guess is None:
            steps = equidistant_steps(self.layers)
            weights = starting_weights(self.networks.own(), steps, self.options.start or "path",
                                       self.options.seed)
        return weights

    def _way(self) -> Iterator[str]:
        """What happened on the way."""
        if self.ways.descents:
            count = self.ways.descents
            yield (f"On the way, continuation gave way to {count} "
                   f"descent{'s' if count > 1 else ''} to the minimum of an "
                   "Euler network, which may lie on another branch.")
        if self.left:
            yield (f"Left {len(self.left)} geodesic{'s' if len(self.left) > 1 else ''} that "
                   f"{'were' if len(self.left) > 1 else 'was'} no minimum, J "
                   f"{', '.join(f'{J:.8g}' for J in self.left)}.")
