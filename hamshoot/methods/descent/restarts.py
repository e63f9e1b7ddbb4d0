"""Gradient descent for so many seconds: starts, rates and lengths in turn, the best of all.

It is the baseline of a comparison at equal seconds. A solver that searches several basins is to be
measured against descents that try several, not against one. What is tried has a fixed order:

1. short runs (`SHORT` epochs down half a cosine) of all rates of the grid, from the middle of the
   grid outwards, each from a path fit and an identity start;
2. the `BEST` combinations of start and rate that ended lowest, in runs of `LENGTHS` epochs in turn,
   the seed of the start another one each time, until time is up.

Only how far that goes depends on the clock, which is the CPU time of this process, all threads.
Where four short runs do not fit in it (large networks), shorter ones of the two middle rates take a
quarter of it, and the best of them is run again with ten times the epochs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import blas_threads
from hamshoot.methods.common.starts import start_seeds, starting_weights
from hamshoot.methods.common.watch import Stop, Watch, thinned
from hamshoot.methods.descent.epochs import Descent, EpochLoop, Run, Stage
from hamshoot.methods.descent.optimizers import SGD, Adam
from hamshoot.methods.descent.train import STEPS, check_steps
from hamshoot.network.layer_steps import steps_of
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.support.checks import check_count, check_layers, check_positive

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

STARTS = ("path", "identity")
#: Epochs of the short runs, and of those that follow, in turn; combinations that go on to them.
SHORT, LENGTHS, BEST = 2000, (10_000, 60_000, 10_000, 20_000), 3
#: Epochs that are timed to see what fits.
TIMED = 10
#: Epochs of the short runs where few fit.
SHORTER = (10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Plan:
    """What is tried: rates and epochs of the short runs, and epochs of those that follow."""

    rates: tuple[float, ...]
    short: int
    lengths: tuple[int, ...]


def plan_for(optimizer: Adam | SGD, epoch: float, seconds: float) -> Plan:
    """The plan where an epoch takes so many seconds of so many."""
    rates = optimizer.rates if optimizer.rate is None else (optimizer.rate,)
    rates = middle_out(rates)
    if 2 * len(STARTS) * SHORT * epoch <= seconds:
        return Plan(rates, SHORT, LENGTHS)
    fits = seconds / (8 * len(STARTS) * epoch)
    short = max((n for n in SHORTER if n <= fits), default=SHORTER[0])
    return Plan(rates[:2], short, (10 * short,))


def middle_out(rates: tuple[float, ...]) -> tuple[float, ...]:
    """Rates from the middle of a grid outwards: of six sorted the third, fourth, second, …"""
    middle = (len(rates) - 1) // 2
    order = sorted(range(len(rates)), key=lambda k: (abs(k - middle), -k))
    return tuple(sorted(rates)[k] for k in order)


class CpuWatch(Watch):
    """A watch whose time is up, too, when the process has used so many seconds of CPU.

    Parameters
    ----------
    callback : callable, optional
    time_limit : float, optional
        Seconds by the clock on the wall.
    budget : float
        Seconds of CPU, all threads.
    """

    def __init__(self, callback: Callback | None, time_limit: float | None, budget: float):
        super().__init__(callback, time_limit)
        self.budget, self.begun = budget, time.process_time()

    @property
    def spent(self) -> float:
        """Seconds of CPU so far."""
        return time.process_time() - self.begun

    @property
    def remaining(self) -> float:
        """Seconds left, by the clock that ends first."""
        return min(super().remaining, self.budget - self.spent)


@dataclass
class Restarts:
    """Runs of one optimiser until its seconds are spent.

    Parameters
    ----------
    optimizer : Adam or SGD
        Rates, and decay of the moments; its epochs and its SGD afterwards are not used.
    descent : Descent
    watch : CpuWatch
    seed : int

    Attributes
    ----------
    best : Run or None
        The one of the lowest network, which may have been cut short; its row is `origin`.
    tried : list of dict
        A row a run that ended: "start", "seed", "rate", "epochs", "objective" (None where it
        diverged).
    epochs : int
        Of all runs.
    steady : bool
        Whether there was one that did not diverge.
    """

    optimizer: Adam | SGD
    descent: Descent
    watch: CpuWatch
    seed: int
    best: Run | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    tried: list[dict[str, Any]] = field(default_factory=list)
    epochs: int = 0
    steady: bool = False

    def run(self) -> Status:
        """Go on until time is up; how it ended."""
        problem, steps = self.descent.problem, self.descent.steps
        try:
            plan = plan_for(self.optimizer, self._epoch_seconds(), self.watch.budget)
            for start, seed, rate, epochs in self._order(plan):
                self._descend(starting_weights(problem, steps, start, seed), start, seed, rate,
                              epochs)
        except (Stop, KeyboardInterrupt) as stop:
            if self.best is None and isinstance(stop, KeyboardInterrupt):
                raise  # before there was anything to keep
            if isinstance(stop, KeyboardInterrupt) or stop.status is Status.INTERRUPTED:
                return Status.INTERRUPTED
            if self.watch.spent < self.watch.budget:
                return Status.TIME_LIMIT
        return Status.TRAINED if self.steady else Status.DIVERGED

    def _order(self, plan: Plan) -> Iterator[tuple[str, int, float, int]]:
        """Start, seed, rate and epochs of each run; what ran before says which go on."""
        for rate in plan.rates:
            for start in STARTS:
                yield start, self.seed, rate, plan.short
        turn = 0
        while any(row["objective"] is not None for row in self.tried):
            seed = start_seeds(self.seed, turn + 1)[-1]
            for start, rate in self._lowest():
                yield start, seed, rate, plan.lengths[turn % len(plan.lengths)]
            turn += 1

    def _lowest(self) -> list[tuple[str, float]]:
        """Combinations of start and rate by the lowest end of any of their runs."""
        ends: dict[tuple[str, float], float] = {}
        for row in self.tried:
            if row["objective"] is not None:
                key = row["start"], row["rate"]
                ends[key] = min(ends.get(key, np.inf), row["objective"])
        return sorted(ends, key=lambda key: ends[key])[:BEST]

    def _descend(self, weights: NDArray, start: str, seed: int, rate: float, epochs: int) -> None:
        run = self.descent.begin(len(self.tried) + 1, weights, rate, "cosine", False)
        row = {"start": start, "seed": seed, "rate": rate, "epochs": epochs, "objective": None}
        label = f"run {len(self.tried) + 1}, {start} start, seed {seed}, rate {rate:g}"
        try:
            self.descent.descend(run, self._stage(rate, epochs), label, epochs)
        finally:
            self.epochs += run.epochs
            self.steady |= not run.diverged
            lowest = np.inf if self.best is None else self.best.objective
            if run.objective < lowest:
                self.best, self.origin = run, row
            self.descent.runs.clear()  # their networks are not needed any more
        if not run.diverged:
            row["objective"] = float(run.objective)
        self.tried.append(row)

    def _stage(self, rate: float, epochs: int) -> Stage:
        o = self.optimizer
        if isinstance(o, Adam):
            return Stage(True, rate, epochs, "cosine", o.beta1, o.beta2, o.epsilon)
        return Stage(False, rate, epochs, "cosine", o.momentum)

    def _epoch_seconds(self) -> float:
        """Seconds of CPU of an epoch, timed on a few; the first compiles and is not counted."""
        descent = self.descent
        weights = starting_weights(descent.problem, descent.steps, STARTS[0], self.seed)
        loop = EpochLoop(descent.sweeps, weights, adam=isinstance(self.optimizer, Adam), beta1=0.9,
                         beta2=0.999, epsilon=1e-8)
        loop.run(np.zeros(1))
        self.watch.begun = time.process_time()
        loop.run(np.zeros(TIMED))
        return self.watch.spent / TIMED


def train_for(
    problem: TrainingProblem,
    seconds: float,
    layers: int = 20,
    steps: str | ArrayLike = "equidistant",
    optimizer: Adam | SGD | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    time_limit: float | None = None,
) -> Solution:
    """Train from as many starts and at as many rates as fit in some seconds of CPU.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss.
    seconds : float
        Of CPU of this process, all threads. At least one run begins; the time is looked at after
        each chunk of epochs (a tenth of a second, about).
    layers, steps, seed, callback, time_limit
        As for `hamshoot.methods.descent.train.train`.
    optimizer : Adam or SGD, optional
        Default ``Adam()``. Its grid of rates is tried, or its one rate; epochs and schedule are
        those of this module.

    Returns
    -------
    Solution
        The best network of all runs, with status TRAINED when the seconds ended them; `nit` counts
        the epochs of its run. In `extra`: "rate", "schedule", "start", "start_seed" and "epochs" of
        the best run, "runs" (a row for each that ended: start, seed, rate, epochs, objective),
        "budget_seconds", "cpu_seconds", and "total_epochs".

    Raises
    ------
    ValueError
        For a hard endpoint, or an option out of range.
    """
    optimizer = Adam() if optimizer is None else optimizer
    if not isinstance(optimizer, (Adam, SGD)):
        raise ValueError(f"optimizer: expected Adam(...) or SGD(...), got {optimizer!r}")
    if problem.hard_endpoint:
        raise ValueError("problem: gradient descent needs a loss, got a hard endpoint")
    check_positive("seconds", seconds)
    if time_limit is not None:
        check_positive("time_limit", time_limit)
    check_count("seed", seed, 0)
    if isinstance(steps, str):
        check_layers(layers, problem.effective_depth)
    mesh = steps_of(steps, layers, problem.effective_depth, names=STEPS)
    watch = CpuWatch(callback, time_limit, seconds)
    adaptive = isinstance(steps, str) and steps == "adaptive"
    check_steps(problem, adaptive)
    descent = Descent(problem, mesh, adaptive, None, watch, sparse=True)
    restarts = Restarts(optimizer, descent, watch, seed)
    with blas_threads(problem):
        status = restarts.run()
    return _solution(restarts, status)


def _solution(restarts: Restarts, status: Status) -> Solution:
    descent, watch = restarts.descent, restarts.watch
    best, row = restarts.best, restarts.origin
    if best is None:  # every run diverged before its first epoch had ended
        weights = starting_weights(descent.problem, descent.steps, STARTS[0], restarts.seed)
        best = descent.begin(0, weights, restarts.optimizer.rates[0], "cosine", False)
        row = {"start": STARTS[0], "seed": restarts.seed, "epochs": 0}
    extra = {"rate": best.rate, "schedule": "cosine", "start": row["start"],
             "start_seed": row["seed"], "epochs": row["epochs"], "runs": restarts.tried,
             "total_epochs": restarts.epochs, "budget_seconds": watch.budget,
             "cpu_seconds": watch.spent}
    name = "adam" if isinstance(restarts.optimizer, Adam) else "sgd"
    solution = solution_from_weights(
        descent.problem, best.weights, best.steps, status=status,
        success=status is Status.TRAINED, method=f"gradient descent ({name})", nit=best.epochs,
        history=thinned(watch.history), seconds=watch.seconds, extra=extra)
    return solution.replace(message=_message(solution, status))


def _message(solution: Solution, status: Status) -> str:
    extra = solution.extra
    count = len(extra["runs"])
    opening = "" if status is Status.TRAINED else f"{status} "
    return (f"{opening}{count} run{'' if count == 1 else 's'} of gradient descent fitted in "
            f"{extra['cpu_seconds']:.2g} s of CPU ({extra['budget_seconds']:.2g} s were granted); "
            f"the best came from the {extra['start']} start, seed {extra['start_seed']}, at rate "
            f"{extra['rate']:g}, after {solution.nit} of {extra['epochs']} epochs down half a "
            "cosine. It does not aim at a stationary point.")
