"""Where the shards of a problem are swept: here, in a pool of processes, or by the workers of Dask.

Elsewhere, shards stay where they were once: only controls go out and sums come back, in few pieces
(`hamshoot.dynamics.block_sums`), and what is kept for products is kept there. What a shard costs to
send once is its blocks, or, of a memory-mapped problem, a path. Sweeps too small to be worth
sending are made here; the numbers are the same anywhere.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from hamshoot.dynamics.block_sums import Node, total
from hamshoot.dynamics.block_worker import Answer, Order, run, sizes_of, store_shard
from hamshoot.support.cluster import Futures, WorkersLost, address, client_of, workers

#: Flops of a gradient below which it is made here: controls would travel as long.
LEAST_FLOPS = 2e8
#: Seconds between two looks at who belongs to a cluster.
ROLL_CALL = 2.0
#: Sweeps after which shards may go from a slow worker to a quick one, how much slower it is, and by
#: how many seconds at least: what moves is read and made ready again.
REDEAL_EVERY, SLOWER, LEAST_LATE = 10, 1.4, 0.05
#: Rounds in which what is missing is sent: one is enough unless workers die in between.
ROUNDS = 8

class Runner(Protocol):
    """Sweeps over all shards."""

    def __call__(self, task: Any, point_known: bool = False) -> list[Any]:
        """The sums; `point_known` where `task.W` is that of the last task that took a point."""


def runner(executor: Any, shards: list[Any], flops: float, owner: object) -> Runner:
    """What sweeps the shards over an executor.

    Parameters
    ----------
    executor : object
        With ``map(function, items)``; a `ProcessPoolExecutor`; a `distributed.Client`.
    shards : list of Shard
    flops : float
        Of a gradient.
    owner : object
        When it is gone, so is what is kept for it.

    Raises
    ------
    ValueError
        For a pool that forks where data come through connections, which are no copies then.
    """
    here = _Here(map, shards)
    if flops < LEAST_FLOPS and is_far(executor):
        return here
    client = client_of(executor)
    if client is not None:
        return _Cluster(client, shards, owner)
    if isinstance(executor, ProcessPoolExecutor):
        _check_start(executor, shards)
        return _Pool(executor, shards, owner)
    return _Here(executor.map, shards)


def is_far(executor: Any) -> bool:
    """Whether an executor is of other processes that keep what they have."""
    return isinstance(executor, ProcessPoolExecutor) or client_of(executor) is not None


def _check_start(pool: ProcessPoolExecutor, shards: list[Any]) -> None:
    """Raise ValueError for a forked copy of connections: whoever closes his takes the other's."""
    context = getattr(pool, "_mp_context", None)
    samples = shards[0].samples
    connected = samples is not None and any(getattr(one, "connected", False) for one in samples[:2])
    if connected and context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "executor: expected a pool whose processes are not forked, for data of a URL: "
            "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn')); connections to "
            "a store do not survive a fork")


class _Here:
    """Threads, the plain loop, or a stranger's map, to which shards travel every time."""

    def __init__(self, over: Callable[..., Iterable[Any]], shards: list[Any]):
        self.map, self.shards = over, shards

    def __call__(self, task: Any, point_known: bool = False) -> list[Any]:
        parts = self.map(_Run(task), self.shards)
        return total(Node(0, index, list(part)) for index, part in enumerate(parts))


class _Run:
    """`Shard.run` of a task, as a function that pickles."""

    def __init__(self, task: Any):
        self.task = task

    def __call__(self, shard: Any) -> Any:
        return shard.run(self.task)


# -- other processes -------------------------------------------------------------------------------

_alive: set[int] = set()
_numbers = itertools.count()


@lru_cache(maxsize=1)
def _session(pid: int) -> str:
    return f"{pid}-{uuid.uuid4().hex}"


class _Far:
    """What processes that keep their shards have in common."""

    def __init__(self, shards: list[Any], owner: object):
        self.shards, self.number = shards, next(_numbers)
        _alive.add(self.number)
        weakref.finalize(owner, _alive.discard, self.number)

    def order(self, indices: Iterable[int], task: Any, **more: Any) -> Order:
        return Order(_session(os.getpid()), frozenset(_alive), self.number, tuple(indices), task,
                     **more)


class _Pool(_Far):
    """A pool of processes on this machine: they read their blocks from files."""

    def __init__(self, executor: ProcessPoolExecutor, shards: list[Any], owner: object):
        super().__init__(shards, owner)
        self.executor, self.owner = executor, weakref.ref(owner)
        self.folder: str | None = None
        self.stored = False

    def __call__(self, task: Any, point_known: bool = False) -> list[Any]:
        if not self.stored:
            self._store()
        try:
            if self.folder is None:
                return _Here(self.executor.map, self.shards)(task)
            orders = [self.order(group, task, folder=self.folder) for group in self._groups()]
            return total(node for answer in self.executor.map(run, orders)
                         for node in answer.nodes)
        except BrokenExecutor:
            raise WorkersLost("a process of the pool has died, and the pool with it") from None

    def _groups(self) -> list[list[int]]:
        """Whole branches, about two for each process: whoever is quicker takes more."""
        count = 2 * int(getattr(self.executor, "_max_workers", os.cpu_count() or 1))
        size = 1
        while size * count < len(self.shards):
            size *= 2
        indices = range(len(self.shards))
        return [list(indices[a : a + size]) for a in range(0, len(self.shards), size)]

    def _store(self) -> None:
        """Write the shards to a folder that goes with its owner; without room they travel."""
        self.stored = True
        folder = None
        try:
            folder = tempfile.mkdtemp(prefix="hamshoot-")
            for shard in self.shards:
                store_shard(folder, shard)
        except OSError:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            return
        owner = self.owner()
        if owner is not None:
            weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
        self.folder = folder


class _Cluster(_Far):
    """Workers of Dask; each keeps a run of neighbouring shards as long as it lives.

    A worker that dies in the middle of a sweep has its part done by another, which Dask chooses;
    one that comes late gets a part at the next roll call; from one that is slow, shards go to the
    others after a while.
    """

    def __init__(self, client: Any, shards: list[Any], owner: object):
        super().__init__(shards, owner)
        self.client = client
        self.deal: dict[str, list[int]] = {}
        self.placed: dict[str, set[int]] = {}
        self.pace: dict[str, float] = {}  # seconds a shard
        self.roll: dict[str, int] = {}
        self.looked, self.sweeps = -np.inf, 0

    def __call__(self, task: Any, point_known: bool = False) -> list[Any]:
        self._call_roll()
        self.sweeps += 1
        light = task._replace(W=None) if point_known else task
        nodes: list[Node] = []
        todo = {worker: (indices, light) for worker, indices in self.deal.items() if indices}
        for _ in range(ROUNDS):
            orders = {worker: self._order(worker, *job) for worker, job in todo.items()}
            answers = self._answers(orders)
            again = {}
            for worker, answer in answers.items():
                indices = todo[worker][0]
                if answer.nodes:
                    nodes += answer.nodes
                    self._clock(worker, answer.seconds / len(indices))
                    continue
                self.placed[worker] = set(self.placed[worker]) - set(answer.missing)
                again[worker] = (indices, task if answer.pointless else todo[worker][1])
            if not again:
                return total(sorted(nodes, key=_place))
            todo = again
        raise WorkersLost(f"{address(self.client)}: the workers keep nothing")

    def _order(self, worker: str, indices: list[int], task: Any) -> Order:
        """With the shards that the worker has not seen."""
        placed = self.placed.setdefault(worker, set())
        shards = {index: self.shards[index] for index in indices if index not in placed}
        placed.update(indices)
        sizes: dict[str, int] = {}
        for shard in shards.values():
            sizes.update(sizes_of(shard))
        return self.order(indices, task, shards=shards, sizes=sizes)

    def _answers(self, orders: dict[str, Order]) -> dict[str, Answer]:
        """What workers say; nothing is left with the scheduler, whatever happens."""
        with Futures(self.client) as futures:
            for worker, order in orders.items():
                futures.submit(run, order, worker=worker)
            return dict(zip(orders, futures.results(), strict=True))

    # -- who does what -----------------------------------------------------------------------------

    def _call_roll(self) -> None:
        """Deal the shards anew where workers have come or gone, or one is slow."""
        now = time.perf_counter()
        if now - self.looked > ROLL_CALL:
            roll = workers(self.client)
            self.looked = time.perf_counter()
            if roll != self.roll:
                self.roll, self.pace = roll, {}
                self.placed = {worker: self.placed.get(worker, set()) for worker in roll}
                self._deal({worker: float(threads) for worker, threads in roll.items()})
                return
        if self.sweeps % REDEAL_EVERY == 0 and len(self.pace) == len(self.deal) > 1:
            busy = [self.pace[worker] * len(self.deal[worker]) for worker in self.deal]
            if max(busy) > max(SLOWER * float(np.mean(busy)), float(np.mean(busy)) + LEAST_LATE):
                self._deal({worker: 1 / max(pace, 1e-9) for worker, pace in self.pace.items()})
                self.pace = {}

    def _deal(self, speeds: dict[str, float]) -> None:
        """Neighbouring shards to every worker, in proportion to its speed."""
        names = sorted(speeds, key=lambda worker: -speeds[worker])[: len(self.shards)]
        names.sort()
        shares = np.cumsum([0.0] + [speeds[worker] for worker in names])
        cuts = np.round(shares / shares[-1] * len(self.shards)).astype(int)
        self.deal = {worker: list(range(a, b)) for worker, (a, b) in
                     zip(names, itertools.pairwise(cuts.tolist()), strict=True) if b > a}

    def _clock(self, worker: str, seconds: float) -> None:
        self.pace[worker] = 0.5 * (self.pace.get(worker, seconds) + seconds)


def _place(node: Node) -> int:
    """The first shard of a node."""
    return node.number << node.level
