"""What all solvers share around their iterations: clock, callback, best iterate."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.solution.solution import Callback, Record, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Records kept in the history of a solution.
HISTORY = 1000


class Stop(Exception):
    """Raised through an optimiser to end it; carries the status."""

    def __init__(self, status: Status):
        super().__init__(str(status))
        self.status = status


class Watch:
    """Clock, history and callback of one solve.

    Parameters
    ----------
    callback : callable, optional
        Receives each `Record`; returning True stops the solve.
    time_limit : float, optional
        Seconds from now.

    Attributes
    ----------
    history : list of Record
    earlier : float
        Seconds of steps that an earlier run made, see `hamshoot.methods.common.kept`. They count
        among the seconds of the solve, and not against its limit.
    """

    def __init__(self, callback: Callback | None = None, time_limit: float | None = None):
        self.callback, self.time_limit = callback, time_limit
        self.history: list[Record] = []
        self.started = time.perf_counter()
        self.earlier = 0.0
        self.stage = ""

    @property
    def seconds(self) -> float:
        """Since the solve began."""
        return time.perf_counter() - self.started + self.earlier

    @property
    def remaining(self) -> float:
        """Seconds left, infinity without a limit."""
        return np.inf if self.time_limit is None else \
            self.time_limit + self.earlier - self.seconds

    @property
    def iterations(self) -> int:
        """Recorded so far."""
        return len(self.history)

    def record(self, objective: float, stationarity: float = float("nan")) -> Record:
        """Count one iteration; tell the callback.

        Raises
        ------
        Stop
            When the callback asks for it, or time is up.
        """
        record = Record(len(self.history) + 1, float(objective), float(stationarity),
                        self.seconds, self.stage)
        self.history.append(record)
        answer = self.callback(record) if self.callback is not None else None
        if isinstance(answer, (bool, np.bool_)) and answer:
            raise Stop(Status.INTERRUPTED)
        self.look()
        return record

    def look(self) -> None:
        """Look at the clock, within an iteration that takes long.

        Raises
        ------
        Stop
            When time is up.
        """
        if self.remaining <= 0:
            raise Stop(Status.TIME_LIMIT)


class Best:
    """The best iterate seen, by objective; survives interruptions."""

    def __init__(self) -> None:
        self.objective = np.inf
        self.weights: NDArray | None = None

    def offer(self, objective: float, weights: NDArray) -> bool:
        """Keep a copy if it is finite and better."""
        if np.isfinite(objective) and objective < self.objective:
            self.objective, self.weights = float(objective), np.array(weights)
            return True
        return False


def thinned(history: Sequence[Record], most: int = HISTORY) -> tuple[Record, ...]:
    """At most so many records, for `Solution.history`: all where there are no more.

    Of more, the first, the last twentieth of what is kept, and the lowest of all; of those that
    were lower than all before them and of the rest a selection, half of it evenly and half evenly
    in the logarithm of their number, so that the beginning is told in detail.
    """
    count = len(history)
    if count <= most:
        return tuple(history)
    objectives = np.array([record.objective for record in history])
    objectives[~np.isfinite(objectives)] = np.inf
    before = np.concatenate([[np.inf], np.minimum.accumulate(objectives)[:-1]])
    ends = np.concatenate([[0], np.arange(count - most // 20, count)])
    keep = np.union1d(ends, _spread(np.flatnonzero(objectives < before), 2 * most // 5))
    rest = np.setdiff1d(np.arange(count), keep)
    keep = np.union1d(keep, _spread(rest, most - len(keep)))
    return tuple(history[k] for k in keep.tolist())


def _spread(places: NDArray, most: int) -> NDArray:
    """So many of some places, or all: half of them evenly in the logarithm, the others evenly."""
    if len(places) <= most:
        return places
    early = np.unique(np.geomspace(1, len(places), most // 2).round().astype(int)) - 1
    others = np.setdiff1d(np.arange(len(places)), early)
    evenly = np.linspace(0, len(others) - 1, most - len(early)).round().astype(int)
    return places[np.union1d(early, others[evenly])]


@contextmanager
def deferred_interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM in a list instead of raising, while a library runs.

    For compiled libraries that call back into Python and lose an exception on the way. Whoever
    enters the context looks at the list and raises. Outside the main thread, where Python delivers
    no signals, the list stays empty; so it does where Ctrl-C is not Python's to begin with.
    """
    pending: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return
    # SIGTERM only where somebody has an answer to it already; else it ends the process.
    before = {number: handler for number in (signal.SIGINT, signal.SIGTERM)
              if (handler := signal.getsignal(number)) is not None
              and (number == signal.SIGINT or callable(handler))}
    for number in before:
        signal.signal(number, lambda number, frame: pending.append(number))
    try:
        yield pending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
