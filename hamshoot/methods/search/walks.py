"""Walks of the search that know nothing of each other, here in threads or by the workers of Dask.

A walk is the same wherever it is made. A worker gets the problem and the walk's beginning and sends
back its end, its iterations and the best network on its way; the iterations of all are told here in
the order of the walks. A walk whose worker dies is made again by another.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import blas_threads
from hamshoot.methods.common.watch import Best, Stop, Watch
from hamshoot.methods.search.lbfgs import Log
from hamshoot.methods.search.side_by_side import Tape, side_by_side
from hamshoot.methods.search.walk import LadderWalk
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.status import Status
from hamshoot.support.cluster import Futures, WorkersLost, client_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Seconds between two looks of a far walk at whether it is still wanted, and how long those that
#: have been stopped are waited for.
ASK, GRACE = 1.0, 5.0


@dataclass
class Basin:
    """Where a walk ended: controls (L, w, w+1), J of the problem's own network, whether idle."""

    weights: NDArray
    objective: float
    collapsed: bool
    part: str


@dataclass(frozen=True)
class WalkTask:
    """A walk to be made: from where, down which ladder, how patiently, and its name."""

    weights: NDArray
    ladder: tuple[float, ...]
    decrease: float
    prefix: str
    part: str
    decays: tuple[float, ...] = ()


@dataclass(frozen=True)
class Ground:
    """What all walks of a search have in common."""

    problem: TrainingProblem
    steps: NDArray
    tol: float
    max_iter: int
    stage_iter: int
    memory: int

    def walk(self, log: Log, share: float = 1.0) -> LadderWalk:
        """A walk to be, of the problem with a share of its weight decay."""
        problem = self.problem
        if share != 1:
            problem = problem.replace(weight_decay=share * problem.weight_decay)
        return LadderWalk(problem, self.steps, log, tol=self.tol, max_iter=self.max_iter,
                          stage_iter=self.stage_iter, memory=self.memory)

    @np.errstate(over="ignore", invalid="ignore")  # threads do not inherit it
    def make(self, walk: LadderWalk, task: WalkTask, log: Log) -> Basin:
        """Walk, first with smaller weight decays where the task says so."""
        walk.watch = walk.minimizer.watch = log
        weights = task.weights
        for share in task.decays:
            weights = self.walk(log, share).descend(weights, task.ladder, task.decrease,
                                                    task.prefix)
        weights = walk.descend(weights, task.ladder, task.decrease, task.prefix)
        objective = walk.offer(weights)
        if not np.isfinite(objective):
            weights = np.zeros_like(weights)
            objective = walk.offer(weights)
        return Basin(weights, objective, walk.collapsed(), task.part)


@dataclass
class Walked:
    """What came of walks.

    Attributes
    ----------
    ends : list of Basin, or None
        None where they were stopped.
    best : Best
        Of all networks on their ways.
    evaluations : int
    first_gradient : float
        ‖∇J‖ at the beginning of the first.
    """

    ends: list[Basin] | None = None
    best: Best = field(default_factory=Best)
    evaluations: int = 0
    first_gradient: float = float("nan")

    def add(self, walk: LadderWalk) -> None:
        """What a walk leaves, finished or not."""
        if walk.minimizer.latest is not None:
            walk.offer(walk.minimizer.latest)
        if walk.best.weights is not None:
            self.best.offer(walk.best.objective, walk.best.weights)
        self.evaluations += walk.sweeps.evaluations


def walked(ground: Ground, tasks: Sequence[WalkTask], watch: Watch, workers: Any, limit: int,
           into: Walked) -> None:
    """Make walks.

    Parameters
    ----------
    workers : int, distributed.Client or None
        Threads, by default a core each; or who makes them.
    limit : int
        Iterations of the whole solve.
    into : Walked
        Gets all that there is, however it ends.

    Raises
    ------
    Stop, KeyboardInterrupt
        What ended them before their time; WORKERS_LOST where the cluster is gone.
    """
    client = client_of(workers)
    if client is not None:
        _far(ground, tasks, watch, client, limit, into)
        return
    walks = [ground.walk(watch) for _ in tasks]

    def one(number: int, tape: Tape) -> Basin:
        return ground.make(walks[number], tasks[number], tape)

    try:
        into.ends = side_by_side(one, len(tasks), watch, workers, limit)
    finally:
        for walk in walks:
            into.add(walk)
        into.first_gradient = float(walks[0].first_gradient)


# -- by the workers of Dask ------------------------------------------------------------------------


@dataclass
class _Home:
    """What a far walk sends home; `status` says why it ended before its time."""

    end: Basin | None
    status: Status | None
    records: list[tuple[str, float, float]]
    walked: Walked


class _FarLog:
    """Keeps the iterations of a far walk; ends it at its limits, or when nobody wants it."""

    def __init__(self, limit: int, seconds: float, wanted: Any):
        self.limit, self.wanted, self.stage = limit, wanted, ""
        self.records: list[tuple[str, float, float]] = []
        self.asked = time.perf_counter()
        self.ends = self.asked + seconds

    @property
    def iterations(self) -> int:
        """So far."""
        return len(self.records)

    def record(self, objective: float, stationarity: float = float("nan")) -> None:
        """Keep an iteration.

        Raises
        ------
        Stop
        """
        self.records.append((self.stage, objective, stationarity))
        now = time.perf_counter()
        if now > self.ends:
            raise Stop(Status.TIME_LIMIT)
        if len(self.records) >= self.limit:
            raise Stop(Status.MAX_ITER)
        if now - self.asked > ASK:
            self.asked = now
            if self.wanted.is_set():
                raise Stop(Status.INTERRUPTED)


def _errand(ground: Ground, task: WalkTask, limit: int, seconds: float, name: str) -> _Home:
    """A walk, where it is made."""
    import distributed

    library: Any = distributed
    log = _FarLog(limit, seconds, library.Event(name))
    with blas_threads(ground.problem):
        walk, end, status = ground.walk(log), None, None
        try:
            end = ground.make(walk, task, log)
        except Stop as stop:
            status = stop.status
        out = Walked()
        out.add(walk)
        out.first_gradient = float(walk.first_gradient)
    return _Home(end, status, log.records, out)


def _far(ground: Ground, tasks: Sequence[WalkTask], watch: Watch, client: Any, limit: int,
         into: Walked) -> None:
    name = f"hamshoot-{uuid.uuid4().hex}"
    left = limit - watch.iterations
    ends: list[Basin] = []
    with Futures(client) as futures:
        try:
            for task in tasks:
                futures.submit(_errand, ground, task, left, watch.remaining, name)
            for k in range(len(tasks)):
                ends.append(_told(futures.result(k, lambda: _in_time(watch)), watch, limit, into))
        except BaseException as error:
            _stopped(ground, tasks, futures, name, len(ends), into)
            if isinstance(error, WorkersLost):
                raise Stop(Status.WORKERS_LOST) from None
            raise
    into.ends = ends


def _in_time(watch: Watch) -> None:
    if watch.remaining <= 0:
        raise Stop(Status.TIME_LIMIT)


def _told(home: _Home, watch: Watch, limit: int, into: Walked) -> Basin:
    """The end of a walk, its iterations told; raises what ended it before its time."""
    _take(home, into)
    for stage, objective, stationarity in home.records:
        watch.stage = stage
        watch.record(objective, stationarity)
        if watch.iterations >= limit:
            raise Stop(Status.MAX_ITER)
    if home.end is None:
        raise Stop(home.status or Status.INTERRUPTED)
    return home.end


def _take(home: _Home, into: Walked) -> None:
    if np.isnan(into.first_gradient):
        into.first_gradient = home.walked.first_gradient
    into.evaluations += home.walked.evaluations
    if home.walked.best.weights is not None:
        into.best.offer(home.walked.best.objective, home.walked.best.weights)


def _stopped(ground: Ground, tasks: Sequence[WalkTask], futures: Futures, name: str, done: int,
             into: Walked) -> None:
    """Have the others end; take what they have by then, or where the first began."""
    with suppress(WorkersLost):
        futures.call_off(name)
        for home in futures.finished(GRACE)[done:]:
            _take(home, into)
    if into.best.weights is None:
        walk = ground.walk(_FarLog(1, 0.0, None))
        walk.offer(tasks[0].weights)
        into.add(walk)
