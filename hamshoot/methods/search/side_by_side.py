"""Tasks side by side in threads, told to one watch in their own order, whatever the threads do."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Protocol, TypeVar

from hamshoot.methods.common.watch import Stop, Watch
from hamshoot.solution.status import Status

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
#: Seconds between two looks at the clock while threads work.
LOOK = 0.05


class Task(Protocol[T_co]):
    """Takes its number and where to tell its iterations."""

    def __call__(self, number: int, tape: Tape, /) -> T_co:
        """Do it."""


class Tape:
    """What one task tells of its iterations; alone it tells the watch at once.

    Parameters
    ----------
    watch : Watch
    live : bool
        Else iterations are kept until `play`.
    stopped : threading.Event
        Ends the task at its next iteration.
    """

    def __init__(self, watch: Watch, live: bool, stopped: threading.Event):
        self.watch, self.live, self.stopped = watch, live, stopped
        self.stage = ""
        self._before = watch.iterations
        self._told = 0
        self._kept: deque[tuple[str, float, float]] = deque()

    @property
    def iterations(self) -> int:
        """Told so far, those before this task among them."""
        return self.watch.iterations if self.live else self._before + self._told

    def record(self, objective: float, stationarity: float = float("nan")) -> None:
        """Tell of an iteration.

        Raises
        ------
        Stop
            Where the watch says so, or the others have been stopped.
        """
        if self.live:
            self.watch.stage = self.stage
            self.watch.record(objective, stationarity)
            return
        self._kept.append((self.stage, objective, stationarity))
        self._told += 1
        if self.stopped.is_set():
            raise Stop(Status.INTERRUPTED)

    def play(self, limit: int | None = None) -> None:
        """Tell the watch what is kept so far, until that many iterations have been told in all.

        Raises
        ------
        Stop
            Where the watch says so, or at the limit.
        """
        while self._kept:
            self.watch.stage, objective, stationarity = self._kept.popleft()
            self.watch.record(objective, stationarity)
            if limit is not None and self.watch.iterations >= limit:
                raise Stop(Status.MAX_ITER)


def side_by_side(task: Task[T], count: int, watch: Watch, workers: int | None,
                 limit: int | None = None) -> list[T]:
    """Results of `count` tasks, in order.

    Parameters
    ----------
    task : callable
        Called with 0 … count − 1 and a `Tape`. Each must have its own workspaces.
    watch : Watch
        Hears of the iterations in the order of the tasks, from this thread.
    workers : int, optional
        Threads; by default one for each core that this process may use.
    limit : int, optional
        Iterations of the whole solve. A task alone minds it itself; in threads each knows of its
        own only, and they are added up here.

    Raises
    ------
    Stop, KeyboardInterrupt
        What ended one of them, once all have come to an end.
    """
    workers = min(count, cores() if workers is None else workers)
    stopped = threading.Event()
    if workers <= 1:
        return [task(number, Tape(watch, True, stopped)) for number in range(count)]
    tapes = [Tape(watch, False, stopped) for _ in range(count)]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(task, number, tape) for number, tape in enumerate(tapes)]
        try:
            return [_heard(future, tape, watch, limit) for future, tape in
                    zip(futures, tapes, strict=True)]
        except BaseException as error:
            stopped.set()
            for future in futures:
                future.cancel()
            wait(futures)
            if isinstance(error, Stop) and error.status is Status.TIME_LIMIT:
                for tape in tapes:  # a record of each, so that the history is never empty
                    with suppress(Stop):
                        tape.play()
            raise


def _heard(future: Future[T], tape: Tape, watch: Watch, limit: int | None) -> T:
    """The result of a task, its iterations told; raises `Stop` when time is up meanwhile."""
    while not future.done():
        wait([future], timeout=LOOK)
        tape.play(limit)  # now, so that whoever asks to stop is heard
        if watch.remaining <= 0:
            raise Stop(Status.TIME_LIMIT)
    tape.play(limit)
    return future.result()


def cores() -> int:
    """Cores for threads: those this process may use, or OMP_NUM_THREADS where that is less."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else \
        os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(count, int(limit) if limit.isdigit() else count))
