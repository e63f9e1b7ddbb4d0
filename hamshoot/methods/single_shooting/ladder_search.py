"""The search for small and middle networks: L-BFGS down the ε ladder, reheats, the exact end.

The optimiser works in the variables v_ℓ = W_ℓ √(ρ_ℓλ/L̃), in which the weight decay is ½‖v‖²
whatever the steps, so that the curvature is at least 1 away from the loss and every layer counts
alike.

From several starts the ladder is walked in a hurry: a stage ends when J hardly falls any more. The
best end point is *reheated*, taken back to a large ε and walked down again with more patience,
which lowers J by 1–30 % (a small ε wanders, a large one sees further); the best of all is then
converged at the last ε. L-BFGS gets as far as the rounding of J lets its line search see; what is
left is taken off by Newton steps that look at the gradient only. A ReLU network that is small
enough is then polished (`hamshoot.methods.newton.active_set`): the answer is stationary for the
ReLU network itself.

An iteration costs about 1.1 gradients, 7Lw²N flops, and 4·memory·L·w(w+1) for the quasi-Newton
step; memory is (4L + 3)wN + 2·memory·Lw(w+1) numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.methods.common.ladder import (
    ROUNDING,
    STARTS_SHARE,
    epsilon_stages,
    start_queue,
    starts_notes,
)
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.common.watch import Stop, Watch, thinned
from hamshoot.methods.newton.active_set import affordable, polish
from hamshoot.methods.newton.escape import Escape, escape
from hamshoot.methods.newton.escape import affordable as testable
from hamshoot.methods.single_shooting.ladder_walk import HURRIED, PATIENT, LadderWalk
from hamshoot.problem.activations import epsilon_ladder
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Callback, Solution, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Most starts that `starts=None` takes, and the seconds (by a count of flops) it may plan for.
MOST_STARTS, PLANNED_SECONDS = 5, 15.0
#: First ε of the reheats.
REHEATS = (0.1, 0.5)
#: From a guess the ladder begins at this many times its last ε, to stay in the guess's basin.
GUESS_LADDER = 10.0
#: The polish begins at this share of the last ε, where few entries are left to change sides; if it
#: does not settle it is tried again at a quarter of the ε, so often.
POLISH_SHARE, DEEPER = 0.1, 2
#: Pairs that L-BFGS keeps.
MEMORY = 30
#: Records kept in the history of a solution.
HISTORY = 1000


@dataclass(frozen=True, kw_only=True)
class LadderOptions:
    """What the search goes by; the options of that name of `hamshoot.DirectSingleShooting`."""

    layers: int
    tol: float
    max_iter: int
    stage_iter: int
    time_limit: float | None
    seed: int
    start: str
    starts: int | None
    noise: float | None
    epsilon: tuple[float, float, float]
    reheats: int
    memory: int | None
    polish: bool


@dataclass
class _Outcome:
    """Where the search ended, and what is to be said of it."""

    status: Status
    weights: NDArray
    notes: list[str] = field(default_factory=list)
    residuals: dict[str, float] = field(default_factory=dict)


class LadderSearch:
    """One solve: starts, reheats, convergence, bookkeeping.

    Parameters
    ----------
    options : LadderOptions
    problem : TrainingProblem
    steps : ndarray, shape (L,)
    callback : callable or None
    """

    def __init__(self, options: LadderOptions, problem: TrainingProblem, steps: NDArray,
                 callback: Callback | None):
        self.options, self.problem, self.steps = options, problem, steps
        self.watch = Watch(callback, options.time_limit)
        self.start_objectives: list[float] = []
        self.reheat_objectives: list[float] = []
        self.all_collapsed = False
        self.escape: Escape | None = None
        self.walk = LadderWalk(
            problem, steps, self.watch, tol=options.tol, max_iter=options.max_iter,
            stage_iter=options.stage_iter, memory=options.memory or MEMORY)

    def run(self, guess: NDArray | None) -> Solution:
        """Search from the starts, or from given controls."""
        try:
            outcome = self._search(guess)
        except (Stop, KeyboardInterrupt) as stop:
            if self.walk.minimizer.latest is None:  # before there was anything to keep
                raise
            self.walk.offer(self.walk.minimizer.latest)
            status = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
            outcome = _Outcome(status, self._best())
        return self._solution(outcome)

    def _search(self, guess: NDArray | None) -> _Outcome:
        ladder = self._ladder()
        if guess is not None:
            self.walk.minimizer.latest = guess
            self.walk.offer(guess)
            first = min(GUESS_LADDER * self.options.epsilon[1], self.options.epsilon[0])
            return self._converge(self.walk.descend(guess, self._ladder(first)), guess)
        weights = self._best_of_starts()
        if not self.all_collapsed and len(ladder) > 1:
            for first in REHEATS[: self.options.reheats]:
                weights = self._reheat(weights, first)
        return self._converge(weights)

    def _ladder(self, first: float | None = None) -> tuple[float, ...]:
        """ε of the stages, ending at the last; (0,) for a linear network."""
        return epsilon_stages(self.problem, self.options.epsilon, first)

    # -- starts and reheats ------------------------------------------------------------------------

    def _best_of_starts(self) -> NDArray:
        """Walk the ladder from every start; when all collapse, from two others."""
        options, problem = self.options, self.problem
        count = planned_starts(options, problem)
        ends: list[tuple[float, NDArray]] = []
        queue = start_queue(options.start, options.seed, count, lambda: bool(ends))
        for number, (start, seed) in enumerate(queue, start=1):
            if ends and self.watch.seconds > STARTS_SHARE * (options.time_limit or np.inf):
                break
            weights = starting_weights(problem, self.steps, start, seed, options.noise)
            prefix = f"start {number}/{max(count, number)}, " if count > 1 else ""
            weights = self.walk.descend(weights, self._ladder(), HURRIED, prefix)
            objective = self.walk.offer(weights)
            self.start_objectives.append(objective)
            if not self.walk.collapsed():
                ends.append((objective, weights))
        self.all_collapsed = not ends
        if not ends:  # the best of them, to be reported as such
            return self._best()
        return min(ends, key=lambda end: end[0])[1]

    def _reheat(self, weights: NDArray, first: float) -> NDArray:
        """Walk down again from a large ε; the better of before and after, by J at ε = 0."""
        before = self.walk.offer(weights)
        walked = self.walk.descend(weights, self._ladder(first), PATIENT, "reheated, ")
        after = self.walk.offer(walked)
        self.reheat_objectives.append(after)
        return walked if after < before else weights

    # -- the end -----------------------------------------------------------------------------------

    def _converge(self, weights: NDArray, guess: NDArray | None = None) -> _Outcome:
        """Converge at the last ε; from a guess, never end above it."""
        options, last = self.options, self._ladder()[-1]
        self.walk.set_activation(last)
        stage = "convergence, " + self.walk.stage_name(last)
        weights = self.walk.to_tolerance(weights, stage)
        reached = self.walk.minimizer.stationarity
        residuals = {"smooth_stationarity": reached,
                     "smooth_objective": self.walk.minimizer.objective, "epsilon": last,
                     "relative_gradient": self.walk.relative_gradient()}
        guess_objective = np.inf if guess is None else self.walk.evaluate(guess)
        done = reached <= options.tol
        smooth = self.problem.activation != "relu"
        status = (Status.CONVERGED if smooth else Status.SMOOTHED) if done else Status.STALLED
        notes = [] if smooth else [f"ε = {last:g}"]
        notes += [f"{'stationarity' if smooth else 'smooth stationarity'} {reached:.1e} "
                  f"(tol {options.tol:g})"]
        if options.polish and affordable(self.problem, self.walk.sweeps.layers):
            status, weights, note = self._polish(weights, last, status)
            notes.append(note)
        if status is Status.CONVERGED:
            status, weights, notes = self._escape(weights, last, notes)
        objective = self.walk.offer(weights)
        if guess is not None and objective > guess_objective + ROUNDING * abs(guess_objective):
            notes.append(
                f"its objective {objective:.10g} lies above the guess's {guess_objective:.10g}, "
                "so the guess is returned as it came; a smaller last epsilon may get below it"
            )
            return _Outcome(Status.STALLED, guess, notes, residuals)
        return _Outcome(status, weights, notes, residuals)

    def _polish(
        self, weights: NDArray, epsilon: float, status: Status
    ) -> tuple[Status, NDArray, str]:
        """Carry the last stage to the ReLU network itself; on failure try from smaller ε."""
        smooth, target = weights, POLISH_SHARE * epsilon
        for _ in range(DEEPER + 1):
            smooth = self.walk.lower(smooth, epsilon, target)
            epsilon, target = target, target / 4
            self.watch.stage = "polish"
            polished = polish(self.problem, smooth, self.steps, epsilon,
                              tol=min(self.options.tol, 1e-10), callback=self.walk.record)
            settled = polished.settled or (
                polished.stationarity <= self.options.tol
                and polished.objective <= self.walk.evaluate(smooth) * (1 + 1e-9))
            if settled:
                return (Status.CONVERGED, polished.weights,
                        polished.words)
        note = "the polish did not settle"
        return (Status.UNSETTLED if status is Status.SMOOTHED else status), weights, note

    def _escape(
        self, weights: NDArray, epsilon: float, notes: list[str]
    ) -> tuple[Status, NDArray, list[str]]:
        """Leave stationary points that are no minima (`hamshoot.methods.newton.escape`)."""
        if not testable(self.problem, self.walk.sweeps.layers):
            return Status.CONVERGED, weights, notes
        self.walk.offer(weights)
        self.watch.stage = "second-order test"
        self.escape = Escape(weights, [])
        try:
            escape(self.problem, weights, self.steps, epsilon, tol=self.options.tol,
                   callback=self.walk.record, progress=self.escape)
        except (Stop, KeyboardInterrupt):
            self.walk.offer(self.escape.weights)
            raise
        if self.escape.left:
            notes = [note for note in notes if "on the kink" not in note] + [self.escape.note()]
        verdict = self.escape.verdict
        status = Status.SADDLE if verdict is not None and verdict.refuted else Status.CONVERGED
        return status, self.escape.weights, notes

    def _best(self) -> NDArray:
        assert self.walk.best.weights is not None  # something was offered
        return self.walk.best.weights

    def _solution(self, outcome: _Outcome) -> Solution:
        watch = self.watch
        nit, seconds = watch.iterations, watch.seconds
        extra = {"start_objectives": self.start_objectives,
                 "reheat_objectives": self.reheat_objectives,
                 "evaluations": self.walk.sweeps.evaluations}
        if self.escape is not None:
            extra |= self.escape.record()
        solution = solution_from_weights(
            self.problem, outcome.weights, self.steps, status=outcome.status,
            success=outcome.status in (Status.CONVERGED, Status.SMOOTHED),
            method="single shooting (lbfgs)", nit=nit,
            history=thinned(watch.history, HISTORY), seconds=seconds,
            residuals=outcome.residuals, extra=extra,
        )
        notes = [f"stationarity of this network {solution.stationarity:.1e}",
                 *starts_notes(self.start_objectives)]
        details = "; ".join(outcome.notes + notes)
        return solution.replace(message=f"{solution.message} ({details})")


def planned_starts(options: LadderOptions, problem: TrainingProblem) -> int:
    """How many starts `starts=None` means: as many as PLANNED_SECONDS hold, 1 to 5."""
    if options.starts is not None:
        return options.starts
    w, N, L = problem.width, problem.n_samples, options.layers
    # Measured on one core: 20 GF/s, 3 ns an activation, 3 ns a variable and pair of the optimiser.
    memory = options.memory or MEMORY
    iteration = 7 * L * w * w * N / 2e10 + 3e-9 * L * w * (N + memory * w) + 1e-4
    stages = 1 if problem.activation == "linear" else len(epsilon_ladder(*options.epsilon))
    return int(np.clip(PLANNED_SECONDS / (iteration * stages * 250), 1, MOST_STARTS))
