"""Steps of a solve that an earlier run has done already, see `hamshoot.support.journal`.

A step that takes long keeps where it is now and then, its `Midway`, so that a run that was killed
in the middle of it goes on there. What such a run has to do again is then the work of EVERY seconds
at most, where a state is small, and of one iteration where that takes longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.watch import Watch
from hamshoot.problem.saved import key as problem_key
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Record
from hamshoot.support import journal

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Seconds from which a step is worth keeping: what is quicker is done again.
LEAST_SECONDS = 0.05
#: Seconds between two states of a step, and the share of the time that keeping them may take.
EVERY, SHARE = 10.0, 0.02
#: The iterations of a step among its arrays.
NUMBERS, STAGES = "records.numbers", "records.stages"

Step = tuple[dict[str, "NDArray"], dict[str, Any]]


class Midway:
    """The state in the middle of a step; this one keeps nothing, where there is no journal."""

    def resumed(self) -> Step | None:
        """What an earlier run had come to, asked for once at the beginning; None without one."""
        return None

    def offer(self, state: Callable[[], Step]) -> None:
        """Keep a state if it is time to.

        Parameters
        ----------
        state : callable
            Arrays and numbers from which the step goes on to the same end.
        """

    def around(self, own: Callable[[], Step], restore: Callable[[Step], None]) -> Midway:
        """The same for a part, whose state is kept together with that of what is around it.

        Parameters
        ----------
        own : callable
            The state around the part, by other names than its own.
        restore : callable
            Sets it back, when a state is taken up.
        """
        return _Around(self, own, restore)


class _Around(Midway):
    """A part's state with that of what is around it."""

    def __init__(self, midway: Midway, own: Callable[[], Step],
                 restore: Callable[[Step], None]):
        self.midway, self.own, self.restore = midway, own, restore

    def resumed(self) -> Step | None:
        found = self.midway.resumed()
        if found is not None:
            self.restore(found)
        return found

    def offer(self, state: Callable[[], Step]) -> None:
        def both() -> Step:
            (arrays, numbers), (more, others) = state(), self.own()
            return {**arrays, **more}, {**numbers, **others}

        self.midway.offer(both)


class _Kept(Midway):
    """In a journal, under a key of its own that goes with the step's end."""

    def __init__(self, kept_by: journal.Journal, key: str, watch: Watch):
        self.kept_by, self.key, self.watch = kept_by, f"{key}-midway", watch
        self.first, self.began = watch.iterations, watch.seconds
        self.due = time.perf_counter() + EVERY
        self.found = kept_by.recall(self.key)
        if self.found is not None:
            self.found = _taken_up(watch, self.found)

    def resumed(self) -> Step | None:
        found, self.found = self.found, None
        return found

    def offer(self, state: Callable[[], Step]) -> None:
        began = time.perf_counter()
        if began >= self.due:
            self.kept_by.keep(self.key, *self.step(*state()))
            now = time.perf_counter()
            self.due = now + max(EVERY, (now - began) / SHARE)

    def step(self, arrays: dict[str, NDArray], numbers: dict[str, Any]) -> Step:
        """Arrays and numbers, with the iterations and the time so far."""
        records, stages = _tabled(self.watch.history[self.first:], self.began)
        return {**arrays, NUMBERS: records}, {
            **numbers, STAGES: stages, "seconds": self.watch.seconds - self.began}


def kept(watch: Watch | None, problem: TrainingProblem, name: str, inputs: tuple,
         compute: Callable[[Midway], Step]) -> Step:
    """Arrays and numbers of a step: of an earlier run where it was done there, else computed.

    Either way the watch has its iterations, in history, count and seconds; only callbacks hear
    nothing of those of an earlier run. Of a step that is stopped at most its `Midway` is kept.

    Parameters
    ----------
    watch : Watch, optional
        Without one nothing is kept.
    problem : TrainingProblem
    name : str
        What kind of step it is.
    inputs : tuple
        All that its result depends on, beside the problem.
    compute : callable
        Makes the step, given where to keep its state: arrays by name, and numbers that JSON knows.
    """
    kept_by = journal.current()
    if kept_by is None or watch is None:
        return compute(Midway())
    key = journal.key_of(name, problem_key(problem), *inputs)
    found = kept_by.recall(key)
    if found is not None:
        return _taken_up(watch, found)
    midway = _Kept(kept_by, key, watch)
    arrays, numbers = compute(midway)
    if watch.seconds - midway.began >= LEAST_SECONDS:
        kept_by.keep(key, *midway.step(arrays, numbers))
    if not kept_by.failed:
        kept_by.forget(midway.key)
    return arrays, numbers


def _taken_up(watch: Watch, found: Step) -> Step:
    """A step of an earlier run, its iterations and its time told to the watch."""
    arrays, numbers = found
    _replay(watch, arrays.pop(NUMBERS), numbers.pop(STAGES), numbers.pop("seconds"))
    return arrays, numbers


def _tabled(history: list[Record], began: float) -> tuple[NDArray, list[str]]:
    """Objective, stationarity, seconds since the step began and number of the stage of records."""
    stages = list(dict.fromkeys(record.stage for record in history))
    places = {stage: k for k, stage in enumerate(stages)}
    rows = [(r.objective, r.stationarity, r.seconds - began, places[r.stage]) for r in history]
    return np.array(rows, dtype=float).reshape(-1, 4), stages


def _replay(watch: Watch, records: NDArray, stages: list[str], seconds: float) -> None:
    """Add the iterations of an earlier run to the history, and its time to the clock."""
    began = watch.seconds
    for objective, stationarity, after, stage in records.tolist():
        watch.history.append(Record(len(watch.history) + 1, objective, stationarity,
                                    began + after, stages[int(stage)]))
    watch.earlier += seconds
