"""Small and middle networks: the search for a basin, convergence at the last ε, the exact end.

The optimiser works in the variables v_ℓ = W_ℓ √(ρ_ℓλ/L̃), in which the weight decay is ½‖v‖²
whatever the steps, so that the curvature is at least 1 away from the loss and every layer counts
alike.

The basin is that of `hamshoot.methods.search.basins`. L-BFGS converges there at the last ε as far
as the rounding of J lets its line search see; what is left is taken off by Newton steps that look
at the gradient only. The rest is `hamshoot.methods.search.exact_end`.

An iteration costs about 1.1 gradients, 7Lw²N flops, and 4·memory·L·w(w+1) for the quasi-Newton
step; memory is (4L + 3)wN + 2·memory·Lw(w+1) numbers a thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hamshoot.methods.common.watch import Stop, Watch, thinned
from hamshoot.methods.search.basins import MEMORY, BasinOptions, BasinSearch
from hamshoot.methods.search.exact_end import ExactEnd
from hamshoot.methods.search.fixed_first import Fixed, fixed_first
from hamshoot.methods.search.ladder import GUESS_LADDER, ROUNDING, epsilon_stages
from hamshoot.methods.search.outcome import judged
from hamshoot.methods.search.walk import LadderWalk
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Callback, Solution, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray



@dataclass(frozen=True, kw_only=True)
class LadderOptions(BasinOptions):
    """What the search goes by; the options of that name of `hamshoot.DirectSingleShooting`."""

    time_limit: float | None
    polish: bool


@dataclass
class _Outcome:
    """Where the search ended, and what is to be said of it."""

    status: Status
    weights: NDArray
    notes: list[str] = field(default_factory=list)
    residuals: dict[str, float] = field(default_factory=dict)


class LadderSearch:
    """One solve: the basin, convergence, the exact end, bookkeeping.

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
        self.walk = LadderWalk(
            problem, steps, self.watch, tol=options.tol, max_iter=options.max_iter,
            stage_iter=options.stage_iter, memory=options.memory or MEMORY)
        self.basins = BasinSearch(options, problem, steps, self.watch, self.walk.best)
        self.fixed: Fixed | None = None
        self.end = ExactEnd(self.walk, options.tol, options.polish, self.watch.look)

    def run(self, guess: NDArray | None) -> Solution:
        """Search from the starts, or from given controls."""
        try:
            outcome = self._from_basin() if guess is None else self._from_guess(guess)
        except (Stop, KeyboardInterrupt) as stop:
            if self.walk.minimizer.latest is not None:
                self.walk.offer(self.walk.minimizer.latest)
            if self.walk.best.weights is None:  # before there was anything to keep
                raise
            status = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
            outcome = _Outcome(status, self.walk.best.weights)
        return self._solution(outcome)

    def _from_basin(self) -> _Outcome:
        if self.problem.learns:
            self.fixed = fixed_first(self.problem, self.steps, self.options, self.watch,
                                     self.walk.best)
        basin = self.basins.run([self.fixed.stack] if self.fixed else [])
        self.walk.first_gradient = self.basins.first_gradient
        outcome = self._converge(basin.weights)
        if self.fixed and not self.walk.evaluate(outcome.weights) <= self.fixed.objective * (
                1 + ROUNDING):
            outcome = self._from_guess(self.fixed.stack)
        if self.fixed:
            outcome.notes.append(self.fixed.note())
        return outcome

    def _from_guess(self, guess: NDArray) -> _Outcome:
        """Converge from a guess; never end above it."""
        self.walk.minimizer.latest = guess
        before = self.walk.offer(guess)
        bound = before + ROUNDING * abs(before)
        first, last = self.options.epsilon[:2]
        # Where the first ladder leaves the guess's basin, a lower one may not.
        for epsilon in dict.fromkeys((min(GUESS_LADDER * last, first), last)):
            outcome = self._converge(self.walk.descend(guess, self._ladder(epsilon)))
            after = self.walk.evaluate(outcome.weights)
            if after <= bound:
                return outcome
        outcome.notes.append(
            f"its objective {after:.10g} lies above the guess's {before:.10g}, "
            "so the guess is returned as it came; a smaller last epsilon may get below it")
        return _Outcome(Status.STALLED, guess, outcome.notes, outcome.residuals)

    def _ladder(self, first: float | None = None) -> tuple[float, ...]:
        """ε of the stages, ending at the last; (0,) for a linear network."""
        return epsilon_stages(self.problem, self.options.epsilon, first)

    def _converge(self, weights: NDArray) -> _Outcome:
        """Converge at the last ε, then to the exact end."""
        options, last = self.options, self._ladder()[-1]
        weights = self.end.converged(weights, last)
        reached = self.walk.minimizer.stationarity
        residuals = {"smooth_stationarity": reached,
                     "smooth_objective": self.walk.minimizer.objective, "epsilon": last,
                     "relative_gradient": self.walk.relative_gradient()}
        smooth = not self.problem.sigma.kinked
        status = Status.STALLED
        if reached <= options.tol:
            status = Status.CONVERGED if smooth else Status.SMOOTHED
        notes = [] if smooth else [f"ε = {last:g}"]
        notes += [f"{'stationarity' if smooth else 'smooth stationarity'} {reached:.1e} "
                  f"(tol {options.tol:g})"]
        end = self.end.run(weights, last, status)
        self.walk.offer(end.weights)
        return _Outcome(end.status, end.weights, notes + end.notes, residuals)

    def _solution(self, outcome: _Outcome) -> Solution:
        watch, basins = self.watch, self.basins
        nit, seconds = watch.iterations, watch.seconds
        extra = basins.record() | {
            "evaluations": basins.evaluations + self.walk.sweeps.evaluations}
        if self.fixed is not None:
            extra |= self.fixed.record()
        if self.end.escape is not None:
            extra |= self.end.escape.record()
        solution = solution_from_weights(
            self.problem, outcome.weights, self.steps, status=outcome.status,
            success=outcome.status in (Status.CONVERGED, Status.SMOOTHED),
            method="single shooting (lbfgs)", nit=nit,
            history=thinned(watch.history), seconds=seconds,
            residuals=outcome.residuals, extra=extra,
        )
        if not self.problem.sigma.kinked and outcome.status is Status.CONVERGED:
            # One number: the sweeps sum in another order, and large data make rounding tell.
            solution.residuals["smooth_stationarity"] = solution.stationarity
        notes = [*outcome.notes, f"stationarity of this network {solution.stationarity:.1e}",
                 *basins.notes()]
        return judged(solution, basins.trivial, notes, basins.checked(), outcome.status)
