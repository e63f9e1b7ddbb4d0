"""What is left of a solve or a training, from what was planned and the records so far.

A search for a basin is planned in iterations and their cost on paper, gradient descent in epochs.
The seconds left are those so far, times the planned work that is left over the work done. A search
may end earlier than planned, where nothing is gained any more; of the exact end that follows it,
and of methods without such a plan, nothing is foretold but the time limit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hamshoot.methods.descent.epochs import CHUNKS
from hamshoot.methods.descent.grid import pilot_epochs
from hamshoot.methods.descent.optimizers import HOLD
from hamshoot.methods.multiple_shooting.method import DirectMultipleShooting
from hamshoot.methods.search.basins import EFFORTS, MEMORY, WALK, iteration_seconds, planned_starts
from hamshoot.methods.single_shooting.method import DirectSingleShooting

if TYPE_CHECKING:
    from hamshoot.methods.descent.optimizers import SGD, Adam
    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.solution.solution import Record

#: A share of the work below which nothing is foretold.
LEAST = 0.05
#: Stages of a record that belong to the search.
SEARCHING = re.compile(r"(^|: )(start \d|again, |reheated, |smaller weight decay, |epsilon )")
#: Of a search, what a solve takes that goes on from a neighbour, until it is known.
NEIGHBOUR = 0.2
EPOCH = re.compile(r"^(.*), epoch (\d+)/\d+$")

#: Takes a record, returns the work that it stands for; None when the plan is over.
Measure = Callable[["Record"], "float | None"]


class Forecast:
    """Seconds left of a planned amount of work.

    Parameters
    ----------
    total : float
        In any unit.
    measure : callable
        Work of a record in that unit, None for one that is not part of the plan.
    """

    def __init__(self, total: float, measure: Measure):
        self.total, self.measure = total, measure
        self.done = 0.0
        self.seconds: float | None = None

    def hear(self, record: Record) -> None:
        """Count a record's work, and foretell from it."""
        work = self.measure(record)
        if work is None:
            self.seconds = None
            return
        self.done += work
        share = self.done / self.total
        self.seconds = record.seconds * (1 / share - 1) if LEAST < share < 1 else None


def search_forecast(problem: TrainingProblem, method: Any, guess: Any) -> Forecast | None:
    """Of the search that a method begins with; None where it makes none."""
    if not isinstance(method, (DirectSingleShooting, DirectMultipleShooting)):
        return None
    if guess is not None or method.start is not None or problem.hard_endpoint:
        return None
    if isinstance(method, DirectSingleShooting) and method.optimizer_for(problem) != "lbfgs":
        return None
    memory = getattr(method, "memory", None) or MEMORY
    iteration = iteration_seconds(problem, method.layers, memory)
    plan = EFFORTS[method.effort]
    walk = WALK * iteration
    starts = method.starts or planned_starts(plan, iteration)
    total = max(plan.budget(walk), starts * walk)
    return Forecast(total, lambda record: iteration if _searching(record.stage) else None)


@lru_cache(1000)
def _searching(stage: str) -> bool:
    return SEARCHING.search(stage) is not None


def epochs_forecast(optimizer: Adam | SGD, starts: int) -> Forecast:
    """Of a training with its grid, see `hamshoot.methods.descent.train.train`."""
    label, epoch = "", 0

    def measure(record: Record) -> float | None:
        nonlocal label, epoch
        match = EPOCH.match(record.stage)
        if match is None:
            return None
        # A run counts on; another begins anew, or where one that shares its epochs has been.
        before = epoch if match[1] == label and int(match[2]) > epoch else None
        label, epoch = match[1], int(match[2])
        return float(min(epoch, CHUNKS[-1]) if before is None else epoch - before)

    return Forecast(expected_epochs(optimizer, starts), measure)


def expected_epochs(optimizer: Adam | SGD, starts: int) -> float:
    """Epochs of a training, about: a grid is tried on the first start alone.

    Finalists of "constant" and "decay" are taken to be the same rates; a descent after Adam to take
    a quarter more for the choice of its rate.
    """
    tail = 1.25 * getattr(optimizer, "sgd_epochs", 0)
    alone = optimizer.epochs + tail
    rates = len(optimizer.rates) if optimizer.rate is None else 1
    schedules = optimizer.schedules if optimizer.schedule is None else (optimizer.schedule,)
    holding = sum(schedule != "cosine" for schedule in schedules)
    # Those that hold the rate at first are one run up to there.
    stages = ("cosine" in schedules) + (1 + (1 - HOLD) * (holding - 1) if holding else 0)
    pilot = pilot_epochs(optimizer)
    finals = min(rates, optimizer.finalists)
    pilots = rates * stages * pilot if rates > finals and pilot < optimizer.epochs else 0
    if not pilots:
        finals = rates
    grid = pilots + finals * (stages * optimizer.epochs + len(schedules) * tail)
    return grid + (starts - 1) * alone


def seconds_forecast(seconds: float) -> Forecast:
    """Of something that is granted so many seconds of CPU from now on."""
    last = time.process_time()

    def measure(_: Record) -> float:
        nonlocal last
        before, last = last, time.process_time()
        return last - before

    return Forecast(seconds, measure)


class TriesForecast(Forecast):
    """Of many solves, of which some begin with a search and the others go on from a neighbour.

    What is left is told by the mean seconds of those of a kind that have ended. Before a search
    has, nothing is foretold; before another has, it is taken to need `NEIGHBOUR` of a search.

    Parameters
    ----------
    searches : sequence of bool
        Of each solve, in order, whether it begins with a search.
    """

    def __init__(self, searches: Sequence[bool]):
        super().__init__(float(len(searches)), lambda record: None)
        self.searches = list(searches)
        self.seconds_of: dict[bool, list[float]] = {True: [], False: []}

    def ended(self, seconds: float) -> None:
        """A solve has ended, after so many seconds."""
        number = len(self.seconds_of[True]) + len(self.seconds_of[False])
        self.seconds_of[self.searches[number]].append(seconds)

    def hear(self, record: Record) -> None:
        """Foretell from what has ended, and how long the present one has taken."""
        known = self.seconds_of[True] + self.seconds_of[False]
        if not known:
            return
        means = {kind: sum(own) / len(own) if own else NEIGHBOUR * max(known)
                 for kind, own in self.seconds_of.items()}
        present, *left = (means[kind] for kind in self.searches[len(known):])
        self.seconds = max(0.0, present - record.seconds) + sum(left)
