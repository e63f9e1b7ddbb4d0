"""Blocks in other processes: the same numbers, data that stay, and workers that die."""

import gc
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.dynamics import block_executors, block_worker
from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.dynamics.block_worker import Order
from hamshoot.support import cluster as support_cluster

STEPS = np.full(6, 1 / 6)
OPTIONS = dict(width=7, effective_depth=2.0, weight_decay=1e-2)
BLOCK = 40
#: What a test kills may take a while to be noticed.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _everything_far(monkeypatch):
    monkeypatch.setattr(block_executors, "LEAST_FLOPS", 0)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((900, 4))
    return hs.TrainingProblem(X, X[:, :2] ** 2, **OPTIONS)


@pytest.fixture(scope="module")
def mapped(problem, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mapped")
    np.save(folder / "X.npy", problem.X)
    np.save(folder / "Y.npy", problem.Y)
    return hs.TrainingProblem(np.load(folder / "X.npy", mmap_mode="r"),
                              np.load(folder / "Y.npy", mmap_mode="r"), **OPTIONS)


@pytest.fixture(scope="module")
def stored(problem, tmp_path_factory):
    """X in Parquet, Y in Zarr."""
    pyarrow, zarr = pytest.importorskip("pyarrow"), pytest.importorskip("zarr", minversion="3")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("stored")
    parquet.write_table(pyarrow.table({f"x{j}": column for j, column in enumerate(problem.X.T)}),
                        folder / "X.parquet", row_group_size=170)
    zarr.open_array(f"{folder}/Y.zarr", mode="w", shape=problem.Y.shape, chunks=(110, 1),
                    dtype=float)[:] = problem.Y
    return hs.TrainingProblem(folder / "X.parquet", f"{folder}/Y.zarr", **OPTIONS)


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as c, \
            distributed.Client(c) as client:
        yield client


def _controls(seed=0):
    return 0.3 * np.random.default_rng(seed).standard_normal((6, 7, 8))


def _everything(problem, executor=None, **options):
    """All that sweeps compute, one after the other."""
    sweeps = BlockSweeps(problem, STEPS, block=BLOCK, executor=executor, **options)
    W, V = _controls(), _controls(2)
    out = [sweeps.objective(W), *sweeps.gradient(W), *sweeps.expand(W), sweeps.hessian(V),
           sweeps.gauss_newton(V)]
    sweeps.linearise(2 * W)
    return [*out, sweeps.gauss_newton(V), *sweeps.factors(3)], sweeps


def _same(here, there):
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["problem", "mapped", "stored"])
def test_a_cluster_computes_the_same_to_the_last_bit(request, client, kind, dtype):
    problem = request.getfixturevalue(kind)
    here, _ = _everything(problem, dtype=dtype)
    there, _ = _everything(problem, client, dtype=dtype)
    _same(here, there)
    one, _ = _everything(problem, client, dtype=dtype, keep_bytes=0)
    _same(here, one)


@pytest.mark.parametrize("kind", ["problem", "mapped", "stored"])
def test_a_pool_computes_the_same_and_tidies_up(request, kind):
    problem = request.getfixturevalue(kind)
    here, _ = _everything(problem)
    with ProcessPoolExecutor(2) as pool:
        there, sweeps = _everything(problem, pool)
        folder = sweeps._run.folder
        assert len(os.listdir(folder)) >= len(sweeps._shards)
        assert [name.endswith(".blocks") for name in os.listdir(folder)].count(True) == (
            len(sweeps._shards) if kind == "problem" else 0)
    _same(here, there)
    del sweeps
    gc.collect()
    assert not os.path.exists(folder)


def test_without_room_for_blocks_a_pool_is_sent_them(monkeypatch, problem):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(block_executors, "store_shard", full)
    with ProcessPoolExecutor(1) as pool:
        there, sweeps = _everything(problem, pool)
    assert sweeps._run.folder is None
    _same(_everything(problem)[0], there)


def test_only_controls_travel_once_workers_know_their_shards(client, problem, mapped, stored,
                                                             monkeypatch):
    sent = []
    original = client.submit

    def submit(function, order, **options):
        sent.append(len(pickle.dumps(order)))
        return original(function, order, **options)

    monkeypatch.setattr(client, "submit", submit)
    W = _controls()
    for one in (problem, mapped, stored):
        sweeps = BlockSweeps(one, STEPS, block=BLOCK, executor=client)
        sent.clear()
        sweeps.gradient(W)
        first = sum(sent)
        assert first > 900 * 9 * 8 if one is problem else first < 900 * 9 * 8
        sent.clear()
        for _ in range(3):
            sweeps.gradient(W)
        assert len(sent) == 6
        assert max(sent) < W.nbytes + 2500
        sweeps.expand(W)
        sent.clear()
        sweeps.hessian(W)  # of the two arrays of a product the workers know one
        assert max(sent) < W.nbytes + 2500


def test_nothing_stays_with_the_scheduler(client, problem):
    sweeps = BlockSweeps(problem, STEPS, block=BLOCK, executor=client)
    for _ in range(3):
        sweeps.gradient(_controls())
    tasks = ["busy"]
    for _ in range(100):  # what is released goes when the scheduler hears of it
        tasks = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))
        if not tasks:
            break
        time.sleep(0.02)
    assert tasks == []


def test_what_is_kept_goes_with_its_sweeps(problem):
    block_worker._sessions.clear()
    task = _task(problem)
    shards = dict(enumerate(task.sweeps._shards))
    for alive, number in (({1}, 1), ({1, 2}, 2), ({2}, 2)):
        block_worker.run(Order("a", frozenset(alive), number, (0,), task.task, shards))
        assert set(block_worker._sessions["a"]) == alive
    for k in range(block_worker.SESSIONS):
        block_worker.run(Order(f"b{k}", frozenset({1}), 1, (0,), task.task, shards))
    assert "a" not in block_worker._sessions
    assert len(block_worker._sessions) == block_worker.SESSIONS


class _task:
    """Sweeps, and the task of their first gradient."""

    def __init__(self, problem):
        self.sweeps = BlockSweeps(problem, STEPS, block=BLOCK)
        run, self.task = self.sweeps._run, None

        def remember(task, known=False):
            self.task = task
            return run(task, known)

        self.sweeps._run = remember
        self.sweeps.gradient(_controls())


def test_a_worker_says_what_it_misses(problem):
    one = _task(problem)
    shards = dict(enumerate(one.sweeps._shards))
    order = Order("c", frozenset({1}), 1, (0, 1), one.task, {0: shards[0]})
    answer = block_worker.run(order)
    assert answer.missing == (1,)
    assert answer.nodes == []
    order.shards, order.task = {1: shards[1]}, one.task._replace(W=None, stamp=5)
    answer = block_worker.run(order)
    assert answer.pointless
    assert answer.missing == ()
    order.task = one.task
    assert len(block_worker.run(order).nodes) == 1


def test_a_file_that_workers_do_not_see_is_named(client, mapped, tmp_path):
    np.save(tmp_path / "X.npy", mapped.X[:])
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    moving = hs.TrainingProblem(X, np.array(mapped.Y[:]), **OPTIONS)
    sweeps = BlockSweeps(moving, STEPS, block=BLOCK, executor=client)
    sizes = block_worker.sizes_of(sweeps._shards[0])
    (tmp_path / "X.npy").rename(tmp_path / "away.npy")
    order = Order("d", frozenset({1}), 1, (0,), None, {}, sizes)
    with pytest.raises(ValueError, match=r"X\.npy on the worker .*no such file; every worker"):
        block_worker.run(order)
    (tmp_path / "X.npy").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"X\.npy on the worker .*has 1 bytes, expected"):
        block_worker.run(order)


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.05])
def test_a_worker_killed_at_any_moment_changes_nothing(client, problem, moment):
    here = BlockSweeps(problem, STEPS, block=BLOCK)
    there = BlockSweeps(problem, STEPS, block=BLOCK, executor=client)
    W, V = _controls(), _controls(4)
    J, G = here.expand(W)
    H = here.hessian(V)
    there.expand(W)
    client.wait_for_workers(2)
    victim = sorted(client.run(os.getpid).items())[0][1]
    killer = threading.Timer(moment, os.kill, (victim, signal.SIGKILL))
    killer.start()
    for _ in range(8):
        value, gradient = there.gradient(W)
        assert value == J
        np.testing.assert_array_equal(gradient, G)
        np.testing.assert_array_equal(there.hessian(V), H)
    killer.join()
    client.wait_for_workers(2)


def test_a_worker_that_comes_late_gets_a_part(client, problem, monkeypatch):
    monkeypatch.setattr(block_executors, "ROLL_CALL", 0.0)
    client.wait_for_workers(2)
    sweeps = BlockSweeps(problem, STEPS, block=BLOCK, executor=client)
    everyone = client.nthreads()
    first = sorted(everyone)[0]
    monkeypatch.setattr(client, "nthreads", lambda: {first: everyone[first]})
    J, G = sweeps.gradient(_controls())
    assert list(sweeps._run.deal) == [first]
    monkeypatch.undo()
    monkeypatch.setattr(block_executors, "ROLL_CALL", 0.0)
    value, gradient = sweeps.gradient(_controls())
    assert sorted(sweeps._run.deal) == sorted(everyone)
    assert value == J
    np.testing.assert_array_equal(gradient, G)


def test_shards_go_from_a_slow_worker_to_a_quick_one(client, problem):
    client.wait_for_workers(2)
    sweeps = BlockSweeps(problem, STEPS, block=BLOCK, executor=client)
    J, G = sweeps.gradient(_controls())
    cluster = sweeps._run
    slow, quick = sorted(cluster.deal)
    cluster.pace = {slow: 3.0, quick: 1.0}
    cluster.sweeps = block_executors.REDEAL_EVERY
    cluster._call_roll()
    count = len(sweeps._shards)
    assert len(cluster.deal[slow]) == round(count / 4)
    assert sorted(cluster.deal[slow] + cluster.deal[quick]) == list(range(count))
    value, gradient = sweeps.gradient(_controls())
    assert value == J
    np.testing.assert_array_equal(gradient, G)


def test_small_sweeps_stay_here(client, problem, monkeypatch):
    monkeypatch.setattr(block_executors, "LEAST_FLOPS", 1e12)
    sweeps = BlockSweeps(problem, STEPS, block=BLOCK, executor=client)
    assert type(sweeps._run).__name__ == "_Here"
    assert sweeps.gradient(_controls())[0] == BlockSweeps(
        problem, STEPS, block=BLOCK).gradient(_controls())[0]


def test_the_executor_of_a_client_is_the_client(client, problem):
    with client.get_executor() as executor:
        sweeps = BlockSweeps(problem, STEPS, block=BLOCK, executor=executor)
        assert sweeps._run.client is client


def test_a_pool_whose_process_dies_ends_the_run_with_the_best_iterate(problem):
    seen = []
    with ProcessPoolExecutor(2) as pool:
        def kill(record):
            seen.append(record.objective)
            if len(seen) == 10:
                os.kill(next(iter(pool._processes)), signal.SIGKILL)

        solution = hs.solve(problem, hs.DirectSingleShooting(
            layers=6, optimizer="kronecker", executor=pool), callback=kill)
    assert solution.status is hs.Status.WORKERS_LOST
    assert not solution.success
    assert "a process of the pool has died" in solution.message
    assert np.isfinite(solution.objective)
    # Records are of smoothed networks and fewer samples, and how many came after the kill depends
    # on the machine: the network kept is not worse than where it began.
    assert solution.objective <= 1.5 * seen[0]


def test_a_cluster_that_goes_away_ends_the_run_with_the_best_iterate(problem, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(support_cluster, "PATIENCE", 1.0)
    monkeypatch.setattr(support_cluster, "LOOK", 0.2)
    seen = []
    cluster = distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        def close(record):
            seen.append(record.objective)
            if len(seen) == 10:
                cluster.close()

        solution = hs.solve(problem, hs.DirectSingleShooting(
            layers=6, optimizer="kronecker", executor=client), callback=close)
    assert solution.status is hs.Status.WORKERS_LOST
    assert "the cluster" in solution.message
    assert solution.objective <= 1.5 * seen[0]  # as above
