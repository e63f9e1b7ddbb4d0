"""Multiple shooting around the program: the shared search, the NLP solver, the exact end.

The basin is that of `hamshoot.methods.search.basins`; the program solves for the network of that
basin, nodes and multipliers included, and the exact end is shared as well. What differs with a hard
endpoint is in `hamshoot.methods.multiple_shooting.endpoint_search`. A stage is begun near a
stationary point, by a descent in the controls alone where that applies, and run warm from the stage
before after that; one that struggles is restarted so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.starts import start_seeds, starting_weights
from hamshoot.methods.common.watch import Best, Stop, Watch, thinned
from hamshoot.methods.multiple_shooting.program import Counter, Program
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.search.basins import MEMORY, BasinOptions, BasinSearch
from hamshoot.methods.search.exact_end import ExactEnd
from hamshoot.methods.search.fixed_first import Fixed, fixed_first
from hamshoot.methods.search.ladder import (
    GUESS_LADDER,
    ROUNDING,
    STARTS_SHARE,
    epsilon_stages,
    starts_notes,
)
from hamshoot.methods.search.outcome import judged
from hamshoot.methods.search.walk import LadderWalk
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Iterations that a stage may take from a start, and warm from the stage before (where 6 to 30 are
#: usual), until it is restarted; and how often that happens.
LONG, WARM, RESTARTS = 150, 60, 2
#: Stationarity of the program's last stage from which the polish goes on wherever Newton's method
#: converges; only without the polish is the tolerance itself due there.
ENOUGH = 1e-4


@dataclass(frozen=True, kw_only=True)
class SearchOptions(BasinOptions):
    """What a search goes by; the options of that name of `hamshoot.DirectMultipleShooting`."""

    time_limit: float | None
    warm_up: bool
    polish: bool


@dataclass
class Outcome:
    """Where a walk ended, and what is to be said of it."""

    status: Status
    weights: NDArray
    multiplier: NDArray | None = None  # of a hard endpoint, (w, N)
    notes: list[str] = field(default_factory=list)
    residuals: dict[str, float] = field(default_factory=dict)
    objective: float = np.inf

    @property
    def success(self) -> bool:
        """Whether the tolerance was met."""
        return self.status in (Status.CONVERGED, Status.SMOOTHED)


class Search:
    """One solve: basin, program, exact end, bookkeeping.

    Parameters
    ----------
    options : SearchOptions
    problem : TrainingProblem
    steps : ndarray, shape (L,)
    callback : callable or None
    **program
        `integrator`, `nlp_solver`, `solver_options` and `given` of the `Program`.
    """

    def __init__(self, options: SearchOptions, problem: TrainingProblem, steps: NDArray,
                 callback: Callback | None, **program: Any):
        self.options, self.problem, self.steps = options, problem, steps
        self.watch = Watch(callback, options.time_limit)
        self.counter = Counter(self.watch, options.max_iter)
        self.best = Best()
        self.start_objectives: list[float] = []
        self.end: ExactEnd | None = None
        self.fixed: Fixed | None = None
        self._set_up(program["integrator"])
        self.program = Program(problem, steps, counter=self.counter, offer=self._offer, **program)

    def _set_up(self, integrator: str) -> None:
        """What finds the basin, and what ends there."""
        options, problem = self.options, self.problem
        self.basins = BasinSearch(options, problem, self.steps, self.watch, self.best)
        if integrator == "euler":
            walk = LadderWalk(problem, self.steps, self.watch, tol=options.tol,
                              max_iter=options.max_iter, stage_iter=options.stage_iter,
                              memory=options.memory or MEMORY)
            walk.best = self.best
            self.end = ExactEnd(walk, options.tol, options.polish, self.watch.look)

    def run(self, guess: NDArray | None) -> Solution:
        """Search from the starts, or from given controls."""
        try:
            if guess is not None:
                outcome = self._from_guess(guess)
            elif self.options.warm_up:
                outcome = self._from_basin()
            else:
                outcome = self._best_of_starts()
        except (Stop, KeyboardInterrupt) as stop:
            if self.best.weights is None:  # before the first iterate there is nothing to keep
                raise
            status = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
            outcome = self._stopped(status, self.best.weights)
        return self._solution(outcome)

    def _stopped(self, status: Status, weights: NDArray) -> Outcome:
        return Outcome(status, weights)

    # -- starts ------------------------------------------------------------------------------------

    def _best_of_starts(self) -> Outcome:
        """Walk the ladder from every start; an answer that meets its tolerance goes first."""
        options = self.options
        ends: list[Outcome] = []
        seeds = start_seeds(options.seed, options.starts or 1)
        for number, seed in enumerate(seeds, start=1):
            if ends and self.watch.seconds > STARTS_SHARE * (options.time_limit or np.inf):
                break
            prefix = f"start {number}/{len(seeds)}, " if len(seeds) > 1 else ""
            weights = starting_weights(self.problem, self.steps, options.start or "path", seed,
                                       options.noise)
            ends.append(self._walk(weights, options.epsilon[0], prefix))
        return self._least(ends)

    def _least(self, ends: list[Outcome]) -> Outcome:
        self.start_objectives += [end.objective for end in ends]
        reached = [end for end in ends if end.status is not Status.DIVERGED]
        return min(reached or ends, key=lambda end: end.objective)

    def _from_basin(self) -> Outcome:
        """From the shared search, carried to the program's last ε and solved there."""
        if not self.problem.learns or self.end is None:
            return self._end_of(self.basins.run().weights)
        fixed = fixed_first(self.problem, self.steps, self.options, self.watch, self.best)
        self.fixed = fixed
        outcome = self._end_of(self.basins.run([fixed.stack]).weights)
        if not outcome.objective <= fixed.objective * (1 + ROUNDING):
            outcome = self._from_guess(fixed.stack)
        outcome.notes.append(fixed.note())
        return outcome

    def _end_of(self, weights: NDArray) -> Outcome:
        """Where a basin's network leads."""
        first = self.basins.last
        if self.end is not None:
            weights = self.end.converged(weights, first)
            last = epsilon_stages(self.problem, self.options.epsilon)[-1]
            if last < first:
                weights, first = self.end.walk.lower(weights, first, last), last
        return self._walk(weights, first)

    def _from_guess(self, guess: NDArray) -> Outcome:
        """Walk from a guess; never end above it."""
        last = self.options.epsilon[1]
        start = self._offer(guess)
        if not np.isfinite(start):
            raise ValueError("initial_guess: expected a network whose representations stay finite, "
                             f"got an objective of {start}")
        outcome = self._walk(guess, min(GUESS_LADDER * last, self.options.epsilon[0]))
        above = outcome.objective > start + ROUNDING * abs(start)
        if above:
            # The ladder's first ε left the guess's basin: begin at the last one.
            outcome = self._walk(guess, last, "again, ")
            above = outcome.objective > start + ROUNDING * abs(start)
        if above:
            note = (f"its objective {outcome.objective:.10g} lies above the guess's {start:.10g}, "
                    "so the guess is returned as it came")
            return Outcome(Status.STALLED, guess, None, [note], objective=start)
        return outcome

    # -- the ladder --------------------------------------------------------------------------------

    def _walk(self, weights: NDArray, first: float, prefix: str = "") -> Outcome:
        """From controls down the ladder to the problem's own activation, and to the exact end."""
        ladder = epsilon_stages(self.problem, self.options.epsilon, first)
        if not np.isfinite(self._offer(weights)):
            self.best.offer(self._objective(np.zeros_like(weights)), np.zeros_like(weights))
            return Outcome(Status.DIVERGED, np.zeros_like(weights))
        restart: NDArray | None = weights
        for epsilon in ladder:
            self._set_stage(epsilon, prefix)
            solved = self._stage(epsilon, restart)
            restart = None
            if self._lost():
                break
        outcome = self._judge(epsilon, solved)
        if outcome.success:
            outcome = self._exact_end(outcome, epsilon)
        outcome.objective = self._offer(outcome.weights)
        return outcome

    def _exact_end(self, outcome: Outcome, epsilon: float) -> Outcome:
        """The polish and the second-order test; the program again where a smooth network moved."""
        if self.end is None:
            return outcome
        end = self.end.run(outcome.weights, epsilon, outcome.status)
        smooth = not self.problem.sigma.kinked
        left = self.end.escape is not None and self.end.escape.left
        if smooth and left and end.status is Status.CONVERGED:  # for its multipliers
            self._set_stage(epsilon, "")
            outcome = self._judge(epsilon, self._stage(epsilon, end.weights))
            return Outcome(outcome.status, outcome.weights, None,
                           outcome.notes + end.notes, outcome.residuals)
        if end.status is Status.CONVERGED:
            outcome.notes = []
        return Outcome(end.status, end.weights, None, outcome.notes + end.notes,
                       outcome.residuals)

    def _stage(self, epsilon: float, weights: NDArray | None) -> bool:
        """Solve the program at one ε; warm from the stage before unless given controls."""
        if weights is not None:
            self._begin_at(weights)
        begun = self.program.weights
        limit = WARM if weights is None else LONG
        for attempt in range(RESTARTS + 1):
            if attempt:
                # A branch of stationary points can end in a fold on the way down the ladder (a
                # network without bias that uses the offset ε/2 of the smooth ReLU as one): Newton's
                # method wanders there, one that only descends rolls down to the branch below.
                self._begin_at(begun if self._can_descend() else self.program.weights)
            if self.program.converge(epsilon, limit):
                return True
        return False

    def _begin_at(self, weights: NDArray) -> None:
        """Set the program to controls, descended where that applies."""
        self.program.begin_at(_descended(self.program, weights) if self._can_descend()
                              else weights)

    def _set_stage(self, epsilon: float, prefix: str) -> None:
        self.program.smooth_by(epsilon)
        self.watch.stage = prefix + (f"epsilon {epsilon:.3g}" if epsilon else
                                     self.program.nlp_solver)

    def _can_descend(self) -> bool:
        return self.options.warm_up and self.program.integrator == "euler"

    def _judge(self, epsilon: float, solved: bool) -> Outcome:
        """What the last stage reached, by the adjoint of its own roll-out."""
        weights = self.program.weights
        momenta = self.program.momenta
        assert momenta is not None  # a stage begins with some
        _, B, stationarity = self.program.adjoint(weights, momenta)
        residuals = _numbers(self.program, weights, momenta, B, stationarity)
        if self.problem.sigma.laddered:
            residuals["epsilon"] = epsilon
        relu = self.problem.sigma.kinked
        enough = ENOUGH if self._polishes() else self.options.tol
        status = Status.SMOOTHED if relu else Status.CONVERGED
        if not stationarity <= max(enough, self.options.tol):
            status = Status.STALLED
        notes = [f"ε = {epsilon:g}, smooth stationarity {stationarity:.1e}"] if relu else []
        if not solved:
            notes.append(f"{self.program.nlp_solver} did not report success at its last stage")
        return Outcome(status, weights, momenta[-1], notes, residuals)

    def _lost(self) -> bool:
        """Whether stages further down are of no use."""
        return False

    def _polishes(self) -> bool:
        return self.end is not None and self.end.polishes

    # -- parts -------------------------------------------------------------------------------------

    def _objective(self, weights: NDArray) -> float:
        """J of the problem's own network."""
        return learned.objective_of(self.problem, weights, self.steps, self.program.integrator)

    def _offer(self, weights: NDArray) -> float:
        with np.errstate(all="ignore"):
            objective = self._objective(weights)
        self.best.offer(objective, weights)
        return objective

    def _solution(self, outcome: Outcome) -> Solution:
        searched = not self.start_objectives
        extra: dict[str, Any] = {"start_objectives": self.start_objectives}
        if searched:
            extra = self.basins.record()
        if self.fixed is not None:
            extra |= self.fixed.record()
        if self.end is not None and self.end.escape is not None:
            extra |= self.end.escape.record()
        if stats := self.program.statistics():
            extra["solver_stats"] = stats
        solution = self._evaluated(outcome, extra)
        notes = [*outcome.notes, stationarity_note(solution, self.options.tol)]
        notes += self.basins.notes() if searched else starts_notes(self.start_objectives)
        return judged(solution, self.basins.trivial, notes,
                      self.basins.checked() if searched else "", outcome.status)

    def _evaluated(self, outcome: Outcome, extra: dict[str, Any]) -> Solution:
        """What the reference formulas say of the outcome."""
        watch = self.watch
        return solution_from_weights(
            self.problem, outcome.weights, self.steps, status=outcome.status,
            success=outcome.success, method=f"multiple shooting ({self.program.nlp_solver})",
            integrator=self.program.integrator, nit=watch.iterations,
            history=thinned(watch.history), seconds=watch.seconds,
            terminal=outcome.multiplier if self.problem.hard_endpoint else None,
            residuals=outcome.residuals, extra=extra,
        )


def _descended(program: Program, weights: NDArray) -> NDArray:
    """Controls near a stationary point of the stage, by Newton's method with descent."""
    watch = program.counter.watch
    stage, watch.stage = watch.stage, watch.stage + ", descent"
    found = exact_newton.minimise(program.smooth, weights, program.steps, tol=1e-6,
                                  max_iter=LONG, callback=program.counter.count, watch=watch)
    watch.stage = stage
    return found.weights


def _numbers(program: Program, weights: NDArray, momenta: NDArray, B: NDArray,
             stationarity: float) -> dict[str, float]:
    """Stationarity and J of the smooth network, and how far the multipliers are off."""
    size = max(1.0, float(np.abs(B[1:]).max()))
    return {
        "smooth_stationarity": stationarity,
        "smooth_objective": learned.objective_of(program.smooth, weights, program.steps,
                                                 program.integrator),
        "multiplier_error": float(np.abs(momenta - B[1:]).max()) / size,
    }


def stationarity_note(solution: Solution, tol: float) -> str:
    """What a message says of the stationarity."""
    return f"stationarity {solution.stationarity:.1e} (tol {tol:g})"
