"""Work given to a cluster of Dask: submitted, waited for, and never waited for in vain.

Dask is an extra. It is not imported here: whoever hands over a client has imported it.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from typing import Any

from hamshoot.support.checks import brief
from hamshoot.support.extras import missing

#: Seconds between two looks at the cluster while it works.
LOOK = 1.0
#: Seconds without any worker, or without the scheduler, after which nobody is waited for.
PATIENCE = 30.0
#: Seconds until a scheduler has to answer.
ANSWERS = 10.0
#: Seconds for results that are there to be fetched, and how often they are computed once more where
#: that fails: a worker that dies in between can leave Dask waiting for ever.
FETCH, TRIES = 30.0, 3
#: What Dask raises where workers or the scheduler are gone; names differ between its versions.
LOST = {"KilledWorker", "FutureCancelledError", "FuturesCancelledError", "NoWorkerError",
        "CommClosedError", "ClosedClientError", "CancelledError", "TimeoutError",
        "StreamClosedError"}


class WorkersLost(RuntimeError):
    """Nobody is left to do the work; says who."""


@contextmanager
def connected(address: str, name: str, answers: float = ANSWERS) -> Iterator[Any]:
    """A client of the scheduler at an address, closed at the end.

    Parameters
    ----------
    address : str
        As ``tcp://host:8786``.
    name : str
        Of the argument or option that it came by, for messages.
    answers : float
        Seconds until it has to answer.

    Raises
    ------
    ValueError
        Where nobody answers there.
    ImportError
        Without Dask.
    """
    try:
        import distributed
    except ImportError:
        raise missing(name, "Dask", "dask") from None
    make: Any = distributed.Client
    try:
        client = make(address, timeout=answers, set_as_default=False)
    except (OSError, ValueError, distributed.TimeoutError):
        raise ValueError(f"{name}: expected the address of a scheduler of Dask, such as "
                         f"tcp://host:8786, got {brief(address)}, where none answers") from None
    with client:
        yield client


def client_of(executor: Any) -> Any:
    """The Dask client that an executor is, or runs on; else None.

    Raises
    ------
    TypeError
        For a client that is asynchronous.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:  # nobody can have made a client
        return None
    client = executor
    if isinstance(executor, Executor) and type(executor).__module__ == "distributed.cfexecutor":
        # What `Client.get_executor` returns has no public name for its client.
        client = executor._client  # type: ignore[attr-defined]
    if not isinstance(client, distributed.Client):
        return None
    if client.asynchronous:
        raise TypeError("executor: expected a Dask client that is not asynchronous")
    return client


def workers(client: Any) -> dict[str, int]:
    """Threads of every worker, by its address; waits for the first.

    Raises
    ------
    WorkersLost
        If none comes.
    """
    alone = time.perf_counter()
    while True:
        with Guard(client):
            found = dict(sorted(client.nthreads().items()))
        if found:
            return found
        if time.perf_counter() - alone > PATIENCE:
            raise WorkersLost(f"{address(client)}: no worker is left")
        time.sleep(0.1)


def address(client: Any) -> str:
    """The cluster, in words."""
    scheduler = client.scheduler
    return f"the cluster at {scheduler.address}" if scheduler is not None else "the cluster"


class Guard:
    """Turns what Dask raises where its processes are gone into `WorkersLost`."""

    def __init__(self, client: Any):
        self.client = client

    def __enter__(self) -> None:
        if self.client.scheduler is None or self.client.status == "closed":
            raise WorkersLost(f"{address(self.client)}: the client is closed")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (CancelledError, OSError)) or type(error).__name__ in LOST:
            lines = str(error).splitlines()
            said = lines[0][:200] if lines else type(error).__name__
            raise WorkersLost(f"{address(self.client)}: {said}") from None


class Futures:
    """Tasks of a cluster, let go at the end of a ``with``: nothing stays with the scheduler.

    A task whose worker dies is done again by another, which is Dask's own doing.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Any):
        self.client, self.futures = client, []  # type: Any, list[Any]
        self.calls: list[tuple] = []
        self.library: Any = sys.modules["distributed"]

    def __enter__(self) -> Futures:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self.futures:
            future.release()

    def submit(self, function: Callable[..., Any], *arguments: Any, worker: str | None = None
               ) -> None:
        """Have a function called, by a certain worker if it lives."""
        where = {} if worker is None else {"workers": [worker], "allow_other_workers": True}
        self.calls.append((function, arguments, where))
        self.futures.append(self._submitted(len(self.calls) - 1))

    def _submitted(self, number: int) -> Any:
        function, arguments, where = self.calls[number]
        with Guard(self.client):
            return self.client.submit(function, *arguments, key=f"hamshoot-{uuid.uuid4().hex}",
                                      pure=False, **where)

    def results(self) -> list[Any]:
        """Of all, in the order of submission.

        Raises
        ------
        WorkersLost
            If nobody is left to do them.
        """
        return self._fetched(list(range(len(self.futures))), lambda: None)

    def result(self, number: int, look: Callable[[], None]) -> Any:
        """Of one; `look` is called now and then meanwhile, and may raise."""
        return self._fetched([number], look)[0]

    def _fetched(self, numbers: list[int], look: Callable[[], None]) -> list[Any]:
        for _ in range(TRIES):
            futures = [self.futures[number] for number in numbers]
            self._wait(futures, look)
            try:
                return list(self._gathered(futures))
            except self.library.TimeoutError:
                for number in numbers:
                    self.futures[number].release()
                    self.futures[number] = self._submitted(number)
        raise WorkersLost(f"{address(self.client)}: results cannot be fetched")

    def _gathered(self, futures: list[Any]) -> Any:
        """Results that are there; a time-out is told as such."""
        def fetch() -> Any:
            return self.client.gather(futures, asynchronous=True)

        try:
            return self.client.sync(fetch, callback_timeout=FETCH)
        except self.library.TimeoutError:
            raise
        except BaseException as error:
            Guard(self.client).__exit__(type(error), error, None)
            raise

    def first(self, numbers: Sequence[int], look: Callable[[], None]) -> int:
        """Of some that are under way, one that is done; `look` as in `result`."""
        futures = {number: self.futures[number] for number in numbers}
        self._wait(list(futures.values()), look, "FIRST_COMPLETED")
        return next(number for number, future in futures.items() if future.done())

    def call_off(self, name: str) -> None:
        """Set the event of that name, which running tasks look at; forget those not begun."""
        with Guard(self.client):
            self.library.Event(name, client=self.client).set()

    def finished(self, seconds: float) -> list[Any]:
        """Results of those that are done within so many seconds, None of others left out."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until and not all(f.done() for f in self.futures):
            time.sleep(0.05)
        done = [f for f in self.futures if f.status == "finished"]
        with Guard(self.client):
            return list(self._gathered(done)) if done else []

    def _wait(self, futures: list[Any], look: Callable[[], None],
              until: str = "ALL_COMPLETED") -> None:
        """Until these are done, or nobody is there to do them."""
        alone = None
        while True:
            try:
                with self.client.as_current():  # `wait` asks whoever is the default
                    self.library.wait(futures, timeout=LOOK, return_when=until)
                return
            except self.library.TimeoutError:
                look()
            except CancelledError:
                raise WorkersLost(f"{address(self.client)}: the tasks were cancelled") from None
            if self._anybody():
                alone = None
                continue
            now = time.perf_counter()
            alone = now if alone is None else alone
            if self.client.status == "closed" or now - alone > PATIENCE:
                what = "no worker is left" if self.client.status == "running" else \
                    "the scheduler does not answer"
                raise WorkersLost(f"{address(self.client)}: {what}")

    def _anybody(self) -> bool:
        if self.client.status != "running":
            return False
        with Guard(self.client):
            return bool(self.client.nthreads())
