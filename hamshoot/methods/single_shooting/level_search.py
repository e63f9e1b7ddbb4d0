"""Large networks: levels of samples and layers, starts compared after the coarse ones, checkpoints.

The levels are `hamshoot.methods.single_shooting.multilevel`; a ReLU network goes on from their end
to its own stationary point by `hamshoot.methods.single_shooting.held`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.block_sweeps import Executor
from hamshoot.methods.common.starts import start_seeds
from hamshoot.methods.common.watch import HISTORY, Stop, Watch, thinned
from hamshoot.methods.single_shooting.held import Held, HeldRounds, can_hold
from hamshoot.methods.single_shooting.multilevel import PACES, Multilevel, schedule
from hamshoot.methods.single_shooting.optimizer import Ended
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Callback, Record, Solution, Status
from hamshoot.support.cluster import WorkersLost

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Share by which J may rise where activations are held.
RISE = 1e-6
#: Flops of a gradient up to which a network is carried to `tol`, whatever its gradient.
CHEAP = 2e8


@dataclass(frozen=True, kw_only=True)
class LevelOptions:
    """What the levels go by; the options of that name of `hamshoot.DirectSingleShooting`."""

    tol: float
    gradient_tol: float
    max_iter: int
    stage_iter: int
    time_limit: float | None
    seed: int
    start: str | None
    starts: int | None
    noise: float | None
    effort: str
    epsilon: tuple[float, float, float]
    memory: int | None
    polish: bool
    kink_tol: float
    checkpoint: Any
    checkpoint_every: float


def checkpoint_file(path: Any) -> Path:
    """The file's full name: `Solution.save` adds the suffix where there is none."""
    path = Path(path)
    return path if path.suffix else path.with_suffix(".npz")


class LevelSearch:
    """One solve of a large network: levels, checkpoints, bookkeeping."""

    def __init__(
        self, options: LevelOptions, problem: TrainingProblem, steps: NDArray,
        callback: Callback | None, executor: Executor, optimizer: str,
        here: Executor | None = None,
    ):
        self.options, self.problem, self.steps, self.here = options, problem, steps, here
        self.watch = Watch(self._each, options.time_limit)
        self.callback, self.saved = callback, time.perf_counter()
        self.levels = Multilevel(
            problem, steps, self.watch, executor, options.tol, self._gradient_tol(),
            optimizer=optimizer, memory=options.memory or 20, seed=options.seed,
            paces=PACES[options.effort])
        self.start_objectives: list[float] = []
        self.notes: list[str] = []
        self.failed = ""
        self.executor = executor
        self.held: Held | None = None

    def _gradient_tol(self) -> float:
        """The method's, or 0 where gradients are cheap enough to go on to the stationarity."""
        N, (w, c) = self.problem.n_samples, self.problem.control_shape
        return self.options.gradient_tol if 6 * len(self.steps) * w * c * N > CHEAP else 0.0

    def run(self, guess: NDArray | None) -> Solution:
        """Search from the starts, or from given controls.

        Where whoever does the sweeps is lost, the best iterate is looked at here.
        """
        try:
            end = self._search(guess)
            return self._solution(*self._exact(*self._verdict(end, guess)))
        except (Stop, KeyboardInterrupt) as stop:
            status = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
        except WorkersLost as lost:
            status = Status.WORKERS_LOST
            self.notes.append(str(lost))
            self.levels.stay(self.here)
        self.levels.rescue()
        weights = self.levels.best.weights
        if weights is not None:
            return self._solution(status, weights)
        # Nothing finite was met: the trivial network stands in, and is not called collapsed.
        zero = np.zeros((len(self.steps), *self.problem.control_shape))
        return self._solution(status, zero).replace(status=status, message=str(status))

    def _search(self, guess: NDArray | None) -> NDArray:
        """The last iterate of the last level."""
        options, problem = self.options, self.problem
        last = options.epsilon[1] if problem.sigma.kinked else problem.sigma.epsilon
        levels = schedule(problem, len(self.steps), last, options.stage_iter, coarse=guess is None)
        if guess is not None:
            self.levels.offer(guess)
            return self.levels.walk(guess, levels, ())
        cut = next(k for k, level in enumerate(levels) if level.samples == problem.n_samples
                   and level.layers == len(self.steps))
        ends = []
        seeds = start_seeds(options.seed, options.starts or 1)
        cut = max(cut, 1)
        for seed in seeds:
            begin = options.start or "path", seed, options.noise
            try:
                weights = self.levels.walk(None, levels[:cut], begin)
            except Stop as stop:
                if stop.status is not Status.DIVERGED:
                    raise
                continue
            if len(seeds) == 1:
                return self.levels.walk(weights, levels[cut:], ()) if levels[cut:] else weights
            ends.append((self.levels.offer_coarse(weights), weights))
            self.start_objectives.append(ends[-1][0])
        ends = [end for end in ends if np.isfinite(end[0])]
        if not ends:
            raise Stop(Status.DIVERGED)
        weights = min(ends, key=lambda end: end[0])[1]
        return self.levels.walk(weights, levels[cut:], ()) if levels[cut:] else weights

    def _verdict(self, end: NDArray, guess: NDArray | None) -> tuple[Status, NDArray]:
        """Status, and the weights it is true of: the last iterate, unless that ends too high."""
        levels, relu = self.levels, self.problem.sigma.kinked
        objective = levels.offer(end)
        too_high = guess is not None and objective > levels.offer(guess) * (1 + 1e-12)
        best = end if levels.best.weights is None else levels.best.weights
        if too_high:
            self.notes.append(f"the smoothed optimum's objective {objective:.10g} lies above the "
                              "guess's; a smaller last epsilon may get below it")
            return Status.STALLED, best
        if levels.ended is Ended.TOLERANCE:
            return Status.SMOOTHED if relu else Status.CONVERGED, end
        if levels.ended is Ended.FLAT:
            return Status.FLAT, end
        return Status.STALLED, best

    def _exact(self, status: Status, weights: NDArray) -> tuple[Status, NDArray]:
        """From a flat end of the ladder to near ReLU's own stationary point."""
        levels, options = self.levels, self.options
        flat = status is Status.FLAT and levels.epsilon > 0
        if not (flat and options.polish and can_hold(self.problem, len(self.steps))):
            return status, weights
        rounds = HeldRounds(self.problem, self.steps, self.watch, levels.offer, levels.epsilon,
                            options.kink_tol, self.executor)
        held = rounds.run(weights)
        levels.gradients += rounds.gradients
        if held is None:
            return status, weights
        # J of a smoothed optimum lies O(ε) above: a rise means another valley.
        if held.objective > levels.offer(weights) * (1 + RISE):
            self.notes.append("holding activations on the kink led to a higher objective")
            return status, weights
        self.held = held
        return Status.FLAT, held.weights

    def _each(self, record: Record) -> bool | None:
        """The user's callback, the iteration limit, and the checkpoint when its time has come."""
        options = self.options
        stop = self.callback(record) if self.callback is not None else None
        if record.iteration >= options.max_iter:
            raise Stop(Status.MAX_ITER)
        now = time.perf_counter()
        due = options.checkpoint is not None and now - self.saved >= options.checkpoint_every
        if due and self.levels.best.weights is not None:
            try:
                self._solution(Status.INTERRUPTED, self.levels.best.weights).save(
                    checkpoint_file(options.checkpoint))
            except OSError as error:
                self.failed = f"the last checkpoint could not be written: {error}"
            self.saved = time.perf_counter()
        return stop

    def _solution(self, status: Status, weights: NDArray) -> Solution:
        levels, watch, problem = self.levels, self.watch, self.problem
        residuals = {"smooth_stationarity": levels.stationarity,
                     "smooth_objective": levels.objective, "epsilon": levels.epsilon,
                     "relative_gradient": levels.relative_gradient}
        solution = solution_from_weights(
            problem, weights, self.steps, status=status,
            success=status in (Status.CONVERGED, Status.SMOOTHED, Status.FLAT),
            method=f"single shooting ({levels.optimizer})", nit=watch.iterations,
            history=thinned(watch.history), seconds=watch.seconds, residuals=residuals,
            extra={"start_objectives": self.start_objectives,
                   "trace": levels.trace[:: 1 + len(levels.trace) // HISTORY],
                   "evaluations": levels.gradients, "products": levels.products,
                   **({"held_rounds": self.held.rounds} if self.held is not None else {})})
        notes = list(self.notes)
        if np.isfinite(levels.relative_gradient):
            asked = f" (tol {levels.gradient_tol:g})" if levels.gradient_tol else ""
            notes.append(f"relative gradient {levels.relative_gradient:.1e} of the path "
                         f"fit's{asked}")
        if problem.sigma.kinked and levels.epsilon:
            notes.insert(0, f"ε = {levels.epsilon:g}")
        if self.held is not None:
            notes.append(f"{self.held.entries} activations held on the kink in {self.held.rounds} "
                         f"rounds (kink_tol {self.options.kink_tol:g})")
        notes.append(f"stationarity of this network {solution.stationarity:.1e}")
        if len(self.start_objectives) > 1:
            notes.append(f"best of {len(self.start_objectives)} starts after the coarse levels")
        if self.failed:
            notes.append(self.failed)
        return solution.replace(message=f"{solution.message} ({'; '.join(notes)})")
