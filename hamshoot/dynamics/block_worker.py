"""What runs in another process: sweeps over shards that it keeps, with what they keep.

An `Order` names shards; a process that does not have them yet finds them in a folder of the same
machine, or says that they are missing and is sent them once. A shard of a memory-mapped problem is
the path of a file and places in it, so that its data are read by the process that needs them.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from hamshoot.dynamics.block_sums import Node, branches
from hamshoot.problem.memory_map import MappedRows, MissingMap
from hamshoot.support.blas import load_blas

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Processes whose sweeps are kept at most; the one not heard of for longest is forgotten.
SESSIONS = 4


class Order:
    """Sweeps over some shards. (A class of its own: Dask would look into a tuple.)

    Parameters
    ----------
    session : str
        Of the process that asks.
    alive : frozenset of int
        Its sweeps; what is kept for others is forgotten.
    sweeps : int
        Which of them.
    indices : tuple of int
        Shards, in order.
    task : object
        With `kind`, `stamp`, and `W`, which is None for the point that the process knows.
    shards : dict of int to Shard, optional
        Those that the process has not.
    sizes : dict of str to int, optional
        Bytes of the files they refer to.
    folder : str, optional
        Where shards are, on the same machine.
    """

    def __init__(self, session: str, alive: frozenset[int], sweeps: int, indices: tuple[int, ...],
                 task: Any, shards: dict[int, Any] | None = None,
                 sizes: dict[str, int] | None = None, folder: str | None = None):
        self.session, self.alive, self.sweeps, self.indices = session, alive, sweeps, indices
        self.task, self.shards, self.sizes, self.folder = task, shards or {}, sizes or {}, folder


class Answer:
    """Sums over the shards of an order, or what was missing.

    Attributes
    ----------
    nodes : list of Node
        Empty where something was missing.
    missing : tuple of int
        Shards to be sent.
    pointless : bool
        Whether the point of the products is to be sent.
    seconds : float
        Of the sweeps.
    """

    def __init__(self, nodes: list[Node], missing: tuple[int, ...] = (), pointless: bool = False,
                 seconds: float = 0.0):
        self.nodes, self.missing, self.pointless = nodes, missing, pointless
        self.seconds = seconds


class _Kept:
    """The shards and the point of one process's sweeps."""

    def __init__(self) -> None:
        self.shards: dict[int, Any] = {}
        self.point: tuple[int, NDArray | None] = (0, None)


_sessions: OrderedDict[str, dict[int, _Kept]] = OrderedDict()
_lock = threading.Lock()


def run(order: Order) -> Answer:
    """Do what an order says.

    Raises
    ------
    MissingMap
        If a file of the data is not on this machine, or not the same.
    """
    kept = _kept(order)
    _check_sizes(order.sizes)
    kept.shards.update(order.shards)
    if order.folder is not None:
        for index in order.indices:
            if index not in kept.shards:
                kept.shards[index] = read_shard(order.folder, index)
    missing = tuple(index for index in order.indices if index not in kept.shards)
    task = order.task
    if task.W is None and kept.point[0] == task.stamp:
        task = task._replace(W=kept.point[1])
    if missing or task.W is None:
        return Answer([], missing, task.W is None)
    if task.kind in ("features", "expansion"):
        kept.point = (task.stamp, task.W)
    began = time.perf_counter()
    with _blas().limit(limits=1, user_api="blas"):
        nodes = branches(_leaves(kept, order.indices, task))
    return Answer(nodes, seconds=time.perf_counter() - began)


def _kept(order: Order) -> _Kept:
    with _lock:
        sweeps = _sessions.setdefault(order.session, {})
        _sessions.move_to_end(order.session)
        while len(_sessions) > SESSIONS:
            _sessions.popitem(last=False)
        for old in set(sweeps) - order.alive:
            del sweeps[old]
        return sweeps.setdefault(order.sweeps, _Kept())


def _leaves(kept: _Kept, indices: tuple[int, ...], task: Any) -> Any:
    def leaf(index: int) -> Node:
        return Node(0, index, list(kept.shards[index].run(task)))

    threads = min(_threads(), len(indices))
    if threads <= 1:
        yield from map(leaf, indices)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(leaf, indices)


def _threads() -> int:
    """Threads of a Dask worker; one in a pool of processes, which has as many as it wants."""
    try:
        from distributed import get_worker
    except ImportError:
        return 1
    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # not in a task of Dask
        return 1


@lru_cache(maxsize=1)
def _blas() -> Any:
    """Control of BLAS's threads; looking for the libraries is what costs."""
    load_blas()
    return ThreadpoolController()


# -- shards in a folder of this machine ------------------------------------------------------------


class StoredBlocks:
    """Blocks of a shard in a file of their own; pickles as its path.

    Parameters
    ----------
    path : str
    shapes : list of (tuple, tuple)
        Of A_0 and Yᵀ of every block.
    dtype : numpy dtype
    """

    def __init__(self, path: str, shapes: list[tuple], dtype: np.dtype):
        self.path, self.shapes, self.dtype = path, shapes, dtype

    def open(self) -> list[tuple[NDArray, NDArray]]:
        """The blocks, in the file; private copies where one were to write to them."""
        numbers = np.memmap(self.path, self.dtype, "c")
        blocks, at = [], 0
        for pair in self.shapes:
            arrays = []
            for shape in pair:
                count = shape[0] * shape[1]
                arrays.append(np.asarray(numbers[at : at + count]).reshape(shape))
                at += count
            blocks.append((arrays[0], arrays[1]))
        return blocks


def store_shard(folder: str, shard: Any) -> None:
    """Write a shard: its blocks where they are in memory only, else where they are.

    Raises
    ------
    OSError
        If there is no room.
    """
    if shard.samples is None:
        path = os.path.join(folder, f"{shard.index}.blocks")
        with open(path, "wb") as file:
            for pair in shard.blocks:
                for array in pair:
                    file.write(array.data)
        shapes = [(A0.shape, Y.shape) for A0, Y in shard.blocks]
        shard = shard.with_blocks(StoredBlocks(path, shapes, shard.dtype))
    with open(os.path.join(folder, f"{shard.index}.shard"), "wb") as file:
        pickle.dump(shard, file)


def read_shard(folder: str, index: int) -> Any:
    """A shard that `store_shard` wrote."""
    with open(os.path.join(folder, f"{index}.shard"), "rb") as file:
        shard = pickle.load(file)
    return shard.with_blocks(shard.blocks.open()) if shard.samples is None else shard


# -- files of the data -----------------------------------------------------------------------------


def sizes_of(shard: Any) -> dict[str, int]:
    """Bytes of the files that a shard refers to."""
    if shard.samples is None:
        return {}
    rows = (array for array in shard.samples[:2] if isinstance(array, MappedRows))
    return {path: os.path.getsize(path) for path in {array.path for array in rows}}


def _check_sizes(sizes: dict[str, int]) -> None:
    for path, size in sizes.items():
        where = f"{path} on the worker {os.uname().nodename}" if hasattr(os, "uname") else path
        if not Path(path).is_file():
            raise MissingMap(f"{where}: no such file; every worker has to see the data's files "
                             "under the same path")
        if os.path.getsize(path) != size:
            raise MissingMap(f"{where}: has {os.path.getsize(path)} bytes, expected {size}")
