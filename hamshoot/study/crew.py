"""Who makes the solves of a study that know nothing of each other: this process, a pool, Dask.

A task is a function of arguments that can be pickled, and of ``callback``. Here it is called with
the callback of the study, so that every iteration is told; elsewhere with one that only asks, on
workers of Dask, whether the study has been stopped. A task whose worker dies is made again by
another, which is Dask's own doing; where nobody is left, `WorkersLost` is raised.

Tasks of a study are pure, so that it ends alike with whomever it is made.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager, suppress
from typing import Any

from hamshoot.solution.solution import Callback, Record
from hamshoot.solution.status import Status
from hamshoot.support.checks import brief
from hamshoot.support.cluster import LOOK, Futures, WorkersLost, client_of, connected

__all__ = ["Crew", "StudyStopped", "WorkersLost", "crew"]


class StudyStopped(Exception):
    """The callback has asked to stop while others were at work."""


class Crew:
    """Makes tasks here, one after the other, in the order in which they are handed in.

    Attributes
    ----------
    far : bool
        Whether tasks are made elsewhere, several at a time.
    client : distributed.Client or None
        Of the cluster that makes them, if one does.
    """

    far = False
    client: Any = None

    def __init__(self) -> None:
        self._waiting: deque[tuple[Hashable, Callable[..., Any], tuple]] = deque()

    def __len__(self) -> int:
        """Tasks handed in whose result has not been taken."""
        return len(self._waiting)

    def submit(self, key: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        """Hand in a task: ``function(*arguments, callback=...)``."""
        self._waiting.append((key, function, arguments))

    def take(self, callback: Callback | None) -> tuple[Any, Any]:
        """Key and result of a task that is done.

        Raises
        ------
        StudyStopped
            Where the callback asks to stop while others are at work. (Here the task itself is
            stopped by it.)
        WorkersLost
            Where nobody is left to do the work.
        """
        key, function, arguments = self._waiting.popleft()
        return key, function(*arguments, callback=callback)


class _Pool(Crew):
    """Tasks by an executor of `concurrent.futures`."""

    far = True

    def __init__(self, executor: Executor):
        super().__init__()
        self.executor = executor
        self._under_way: dict[Future[Any], Hashable] = {}
        self._began, self._over = time.perf_counter(), False

    def __len__(self) -> int:
        return len(self._under_way)

    def submit(self, key: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        # Threads see when it is over; other processes do not.
        call = self._asked if isinstance(self.executor, ThreadPoolExecutor) else None
        with _broken():
            self._under_way[self.executor.submit(function, *arguments, callback=call)] = key

    def _asked(self, _: Record) -> bool:
        return self._over

    def take(self, callback: Callback | None) -> tuple[Any, Any]:
        while True:
            done, _ = wait(self._under_way, timeout=LOOK, return_when=FIRST_COMPLETED)
            if done:
                break
            _ask(callback, self._began, len(self))
        # Of several the one that was handed in first, so that they are told in order.
        future = next(one for one in self._under_way if one in done)
        key = self._under_way.pop(future)
        with _broken():
            return key, future.result()

    def dismiss(self) -> None:
        """Call off what has not begun; what has runs to its end, but in threads."""
        self._over = True
        for future in self._under_way:
            future.cancel()


class _Cluster(Crew):
    """Tasks by the workers of Dask."""

    far = True

    def __init__(self, client: Any):
        super().__init__()
        self.client = client
        self.futures = Futures(client)
        self.name = f"hamshoot-{uuid.uuid4().hex}"
        self._under_way: dict[int, Hashable] = {}
        self._began = time.perf_counter()

    def __len__(self) -> int:
        return len(self._under_way)

    def submit(self, key: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        self._under_way[len(self.futures.futures)] = key
        self.futures.submit(_errand, self.name, function, *arguments)

    def take(self, callback: Callback | None) -> tuple[Any, Any]:
        def look() -> None:
            _ask(callback, self._began, len(self))

        number = self.futures.first(list(self._under_way), look)
        result = self.futures.result(number, look)
        self.futures.futures[number].release()
        return self._under_way.pop(number), result

    def dismiss(self) -> None:
        """Have those under way end, forget the others; nothing stays with the scheduler."""
        if self._under_way:
            with suppress(WorkersLost):
                self.futures.call_off(self.name)
        self.futures.__exit__()


@contextmanager
def crew(executor: Any, scheduler: str | None) -> Iterator[Crew]:
    """Who makes the tasks of a study; called off at the end.

    Parameters
    ----------
    executor : distributed.Client, concurrent.futures.Executor or None
    scheduler : str, optional
        Address of a scheduler of Dask, in place of an executor.

    Raises
    ------
    ValueError
        For both, another kind of executor, and an address where nobody answers.
    ImportError
        For an address, without Dask.
    """
    if executor is not None and scheduler is not None:
        raise ValueError("executor, scheduler: expected one of them, got both")
    if scheduler is not None:
        if not isinstance(scheduler, str):
            raise ValueError(f"scheduler: expected an address such as tcp://host:8786, got "
                             f"{brief(scheduler)}")
        with connected(scheduler, "scheduler") as client:
            yield from _dismissed(_Cluster(client))
        return
    client = client_of(executor)
    if client is not None:
        yield from _dismissed(_Cluster(client))
    elif isinstance(executor, Executor):
        yield from _dismissed(_Pool(executor))
    elif executor is None:
        yield Crew()
    else:
        raise ValueError("executor: expected a Dask client or an executor of concurrent.futures, "
                         f"got {brief(executor)}")


def _dismissed(one: Any) -> Iterator[Crew]:
    try:
        yield one
    finally:
        one.dismiss()


@contextmanager
def _broken() -> Iterator[None]:
    """Turns what a pool raises whose processes are gone into `WorkersLost`."""
    try:
        yield
    except BrokenExecutor as error:
        raise WorkersLost(f"the pool of processes: {str(error).splitlines()[0]}") from None


def _ask(callback: Callback | None, began: float, under_way: int) -> None:
    """Whether to go on, once a second, while others are at work."""
    if callback is not None and callback(Record(
            0, float("nan"), float("nan"), time.perf_counter() - began,
            f"{under_way} under way elsewhere")):
        raise StudyStopped


def _errand(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """A task, where it is made; it looks now and then whether it is still wanted."""
    import distributed

    library: Any = distributed
    event, asked = library.Event(name), time.perf_counter()

    def unwanted(_: Record) -> bool:
        nonlocal asked
        if time.perf_counter() - asked < LOOK:
            return False
        asked = time.perf_counter()
        return bool(event.is_set())

    return function(*arguments, callback=unwanted)


#: Statuses of solves that were cut short, and are made again where a study is gone on with.
CUT_SHORT = (Status.INTERRUPTED, Status.WORKERS_LOST)
