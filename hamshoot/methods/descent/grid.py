"""The grid of rates and schedules: pilots, finalists, starts, and the solution of the best run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.watch import Stop, Watch, thinned
from hamshoot.methods.descent.epochs import Descent, Run, Stage, largest_curvature
from hamshoot.methods.descent.optimizers import SGD, Adam, held_epochs
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Solution, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Length of a pilot: this share of the epochs, at least and at most so many. Of 50 000 epochs, a
#: pilot of 5000 is half of that share: the training takes 0.85 of the time (median of 18 teachers,
#: 0.60 to 0.95), and its J was the same on 13 of them, lower on 4 (by 12 % at most) and higher on
#: one (by 0.1 %; `demos/benchmarks/longer_runs.py`).
PILOT_SHARE, PILOT_LEAST, PILOT_MOST = 0.2, 200, 5000
#: A trial of a rate after Adam: this share of its epochs, at most so many rates, a third each time.
TRIAL_SHARE, TRIALS = 0.1, 6


class Training:
    """One call of `train`: grid, stages, starts, bookkeeping.

    Parameters
    ----------
    problem : TrainingProblem
    optimizer : Adam or SGD
    descent : Descent
    watch : Watch
    seed : int
    """

    def __init__(self, problem: TrainingProblem, optimizer: Adam | SGD, descent: Descent,
                 watch: Watch, seed: int):
        self.problem, self.optimizer, self.descent = problem, optimizer, descent
        self.watch, self.seed = watch, seed
        self.count = 1
        self.grid: list[dict[str, Any]] = []

    def run(self, starts: Iterator[NDArray], count: int) -> Solution:
        """Choose on the first start, train from all of them."""
        self.count = count
        try:
            chosen = self._chosen(next(starts))
            if chosen is not None:
                rate, schedule = chosen
                for number, weights in enumerate(starts, start=2):
                    self._full_runs(number, weights, rate, [schedule])
            return self._finished()
        except (Stop, KeyboardInterrupt) as stop:
            if not self.descent.runs:  # interrupted before there was anything to keep
                raise
            status = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
            return self._solution(min(self.descent.runs, key=_objective), status)

    # -- choice ------------------------------------------------------------------------------------

    def _chosen(self, weights: NDArray) -> tuple[float, str] | None:
        """Best rate and schedule of the grid by full runs; None if all of them diverged."""
        optimizer = self.optimizer
        rates = optimizer.rates if optimizer.rate is None else (optimizer.rate,)
        schedules = (optimizer.schedules if optimizer.schedule is None
                     else (optimizer.schedule,))
        self.grid = [{"rate": float(rate), "schedule": schedule, "pilot_objective": None,
                      "objective": None} for rate in rates for schedule in schedules]
        chosen = self.grid
        pilot = pilot_epochs(optimizer)
        if len(rates) > optimizer.finalists and pilot < optimizer.epochs:
            for rate in rates:
                for run in self._runs(1, weights, rate, schedules, pilot, pilot=True):
                    self._row(run)["pilot_objective"] = None if run.diverged else run.objective
            chosen = [row for schedule in schedules for row in self._finalists(schedule)]
        for rate in dict.fromkeys(row["rate"] for row in chosen):
            entered = [row["schedule"] for row in chosen if row["rate"] == rate]
            self._full_runs(1, weights, rate, entered)
        ended = [row for row in chosen if row["objective"] is not None]
        best = min(ended, key=lambda row: row["objective"], default=None)
        return None if best is None else (best["rate"], best["schedule"])

    def _finalists(self, schedule: str) -> list[dict[str, Any]]:
        """Rows of a schedule whose pilots ended lowest."""
        ended = [row for row in self.grid
                 if row["schedule"] == schedule and row["pilot_objective"] is not None]
        return sorted(ended, key=lambda row: row["pilot_objective"])[: self.optimizer.finalists]

    def _row(self, run: Run) -> dict[str, Any]:
        return next(row for row in self.grid
                    if (row["rate"], row["schedule"]) == (run.rate, run.schedule))

    # -- runs --------------------------------------------------------------------------------------

    def _full_runs(self, start: int, weights: NDArray, rate: float,
                   schedules: Sequence[str]) -> None:
        """Both stages at one rate, with each of the schedules."""
        optimizer = self.optimizer
        for run in self._runs(start, weights, rate, schedules, optimizer.epochs):
            if isinstance(optimizer, Adam) and optimizer.sgd_epochs and not run.diverged:
                self._descend_on(run, optimizer, self._label(run))
            if start == 1:
                self._row(run)["objective"] = None if run.diverged else run.objective

    def _runs(self, start: int, weights: NDArray, rate: float, schedules: Sequence[str],
              epochs: int, pilot: bool = False) -> Iterator[Run]:
        """First stage at one rate, a run a schedule: constant and decay share what they can."""
        if "cosine" in schedules:
            run = self.descent.begin(start, weights, rate, "cosine", pilot)
            self.descent.descend(run, self._stage(run, epochs), self._label(run),
                                 self._total(run, epochs))
            yield run
        holding = [schedule for schedule in schedules if schedule != "cosine"]
        if not holding:
            return
        run = self.descent.begin(start, weights, rate, holding[0], pilot)
        stage, total = self._stage(run, epochs), self._total(run, epochs)
        loop = self.descent.loop(run, stage)
        self.descent.advance(run, loop, stage, held_epochs(epochs), self._label(run), total)
        parted = [(run, loop)]
        for schedule in holding[1:]:
            self.descent.runs.append(replace(run, schedule=schedule, notes=[]))
            parted.append((self.descent.runs[-1], loop.copy()))
        for run, loop in parted:
            if not run.diverged:
                self.descent.advance(run, loop, self._stage(run, epochs), epochs,
                                     self._label(run), total)
            yield run

    def _label(self, run: Run) -> str:
        """What a record's stage says of a run."""
        begun = "pilot, " if run.pilot else (
            f"start {run.start}/{self.count}, " if self.count > 1 else "")
        return f"{begun}rate {run.rate:g} {run.schedule}"

    def _descend_on(self, run: Run, optimizer: Adam, label: str) -> None:
        """Gradient descent where Adam ended."""
        given = optimizer.sgd_rate
        run.sgd_rate = self._tail_rate(run, optimizer, label) if given is None else float(given)
        if run.sgd_rate is None:
            run.notes.append("no rate of gradient descent went below where Adam ended")
            return
        label += f", then gradient descent at {run.sgd_rate:.2g}"
        self.descent.descend(run, self._tail(run, run.sgd_rate, optimizer.sgd_epochs), label,
                             self._total(run, optimizer.epochs))
        if run.diverged and given is None:
            run.diverged = False  # Adam's end stands; the rate was not the user's choice
            run.notes.append(f"gradient descent at {run.sgd_rate:.2g} diverged; its best is kept")

    def _tail_rate(self, run: Run, optimizer: Adam, label: str) -> float | None:
        """Largest curvature first, then trials downwards until they get worse."""
        self.descent.sweeps.steps = run.steps
        curvature = largest_curvature(self.descent.sweeps, run.weights, self.seed)
        if not np.isfinite(curvature) or curvature <= 0:
            return None
        epochs = max(1, round(TRIAL_SHARE * optimizer.sgd_epochs))
        best, chosen = run.objective, None
        for k in range(TRIALS):
            rate = (1 + optimizer.momentum) / curvature / 3**k
            trial = replace(run, notes=[])
            self.descent.descend(trial, self._tail(trial, rate, epochs),
                                 f"{label}, trial of {rate:.2g}", run.epochs + epochs)
            if trial.objective < best and not trial.diverged:
                best, chosen = trial.objective, rate
            elif chosen is not None:
                break
        return chosen

    def _total(self, run: Run, epochs: int) -> int:
        """Epochs of a run with so many in its first stage."""
        return epochs if run.pilot else epochs + getattr(self.optimizer, "sgd_epochs", 0)

    def _stage(self, run: Run, epochs: int) -> Stage:
        """The first stage of a run."""
        o = self.optimizer
        if isinstance(o, Adam):
            return Stage(True, run.rate, epochs, run.schedule, o.beta1, o.beta2, o.epsilon)
        return Stage(False, run.rate, epochs, run.schedule, o.momentum)

    def _tail(self, run: Run, rate: float, epochs: int) -> Stage:
        """Gradient descent after Adam, with the same schedule."""
        return Stage(False, rate, epochs, run.schedule, self.optimizer.momentum)

    # -- the end -----------------------------------------------------------------------------------

    def _finished(self) -> Solution:
        """All runs are over: which to return, and what to say of it."""
        full = [run for run in self.descent.runs if not run.pilot]
        steady = [run for run in full if not run.diverged]
        if not steady:
            return self._solution(min(self.descent.runs, key=_objective), Status.DIVERGED)
        run = min(steady, key=_objective)
        status = Status.TRAINED
        if not run.objective < self.descent.first_objective:
            run.notes.append("nothing below the start's objective "
                             f"{self.descent.first_objective:.6g}")
            if self.descent.guess is None:
                status = Status.STALLED
                run.notes.append("try smaller rates")
        return self._solution(run, status)

    def _solution(self, run: Run, status: Status) -> Solution:
        if self.descent.guess is not None and run.objective > self.descent.first_objective:
            # Only while steps adapt: otherwise the guess is the first network that a run sees.
            run = replace(run, weights=self.descent.guess, steps=self.descent.steps)
        own = [other for other in self.descent.runs if not other.pilot
               and (other.rate, other.schedule) == (run.rate, run.schedule)]
        seconds = sum(other.seconds for other in own) if own else self.watch.seconds
        extra = {"rate": run.rate, "schedule": run.schedule, "sgd_rate": run.sgd_rate,
                 "grid": self.grid, "start_objectives": [float(other.objective) for other in own]}
        if len(self.grid) > 1:
            extra["grid_seconds"] = self.watch.seconds
        name = "adam" if isinstance(self.optimizer, Adam) else "sgd"
        solution = solution_from_weights(
            self.problem, run.weights, run.steps, status=status,
            success=status is Status.TRAINED, method=f"gradient descent ({name})", nit=run.epochs,
            history=thinned(self.watch.history), seconds=seconds, extra=extra,
        )
        details = "; ".join([*self._notes(run, own), *run.notes])
        return solution.replace(message=f"{solution.message} ({details})")

    def _notes(self, run: Run, own: Sequence[Run]) -> list[str]:
        notes = [f"rate {run.rate:g}, schedule {run.schedule}"]
        if len(self.grid) > 1:
            notes[0] += f", chosen from {len(self.grid)}"
            rates = sorted({row["rate"] for row in self.grid})
            if len(rates) > 1 and run.rate in (rates[0], rates[-1]):
                notes.append("the rate lies at the edge of the grid, a wider one may do better")
        if self.count > 1:
            low, high = min(map(_objective, own)), max(map(_objective, own))
            notes.append(f"best of {len(own)} starts, J from {low:.6g} to {high:.6g}")
        return notes


def pilot_epochs(optimizer: Adam | SGD) -> int:
    """Length of a pilot."""
    length = min(PILOT_MOST, max(PILOT_LEAST, round(PILOT_SHARE * optimizer.epochs)))
    return min(optimizer.epochs, length)


def _objective(run: Run) -> float:
    return run.objective
