"""Walks of the search by the workers of Dask: what threads find, limits, workers that die."""

import os
import signal
import threading

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.methods.search import walks
from hamshoot.support import cluster as support_cluster

pytestmark = pytest.mark.timeout(120)
OPTIONS = dict(layers=6, reheats=1, effort="quick")


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as c, \
            distributed.Client(c) as client:
        yield client


@pytest.mark.parametrize("option", ["workers", "executor"])
def test_a_cluster_finds_what_threads_find(client, option):
    problem = teacher()
    here = hs.solve(problem, hs.DirectSingleShooting(**OPTIONS, workers=1))
    there = hs.solve(problem, hs.DirectSingleShooting(**OPTIONS, **{option: client}))
    np.testing.assert_array_equal(there.weights, here.weights)
    assert there.extra["start_objectives"] == here.extra["start_objectives"]
    assert [r.objective for r in there.history] == [r.objective for r in here.history]
    assert [r.stage for r in there.history] == [r.stage for r in here.history]


def test_other_methods_search_there_too(client):
    problem = teacher(samples=5, activation="linear")
    for method, options in ((hs.DirectMultipleShooting, OPTIONS),
                            (hs.IndirectShooting, {"effort": "quick"})):
        here = hs.solve(problem, method(**options, workers=1))
        there = hs.solve(problem, method(**options, workers=client))
        assert there.status is here.status
        assert there.objective == pytest.approx(here.objective, rel=1e-12)


def test_a_worker_killed_in_a_search_changes_nothing(client):
    problem = teacher()
    options = {**OPTIONS, "starts": 4}
    here = hs.solve(problem, hs.DirectSingleShooting(**options, workers=1))
    for moment in (0.02, 0.1):
        client.wait_for_workers(2)
        victim = sorted(client.run(os.getpid).items())[0][1]
        killer = threading.Timer(moment, os.kill, (victim, signal.SIGKILL))
        killer.start()
        there = hs.solve(problem, hs.DirectSingleShooting(**options, workers=client))
        killer.join()
        np.testing.assert_array_equal(there.weights, here.weights)
    client.wait_for_workers(2)


def test_limits_and_callbacks_are_heard(client):
    problem = teacher()
    for given, status in (({"max_iter": 30}, hs.Status.MAX_ITER),
                          ({"time_limit": 0.05}, hs.Status.TIME_LIMIT)):
        solution = hs.solve(problem, hs.DirectSingleShooting(**OPTIONS, workers=client, **given))
        assert solution.status is status
        assert np.isfinite(solution.objective)
    stopped = hs.solve(problem, hs.DirectSingleShooting(**OPTIONS, workers=client),
                       callback=lambda record: record.iteration >= 40)
    assert stopped.status is hs.Status.INTERRUPTED
    assert stopped.nit == 40


def test_a_walk_that_nobody_wants_any_more_ends(client, monkeypatch):
    """It asks once a second; here at every iteration."""
    monkeypatch.setattr(walks, "ASK", 0.0)
    problem = teacher()
    name = "hamshoot-test-not-wanted"
    import distributed

    distributed.Event(name, client=client).set()
    ground = walks.Ground(problem, np.full(6, 1 / 6), 1e-6, 10**6, 5000, 30)
    W = 0.1 * np.random.default_rng(0).standard_normal((6, *problem.control_shape))
    with client.as_current():
        home = walks._errand(ground, walks.WalkTask(W, (0.1, 0.01), 1e-3, "", "random"), 10**6,
                             np.inf, name)
    assert home.status is hs.Status.INTERRUPTED
    assert len(home.records) <= 3
    assert home.end is None
    assert np.isfinite(home.walked.best.objective)


def test_without_a_cluster_the_search_ends_with_what_it_had(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(support_cluster, "PATIENCE", 1.0)
    monkeypatch.setattr(support_cluster, "LOOK", 0.2)
    cluster = distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None)
    client = distributed.Client(cluster)
    cluster.close()
    solution = hs.solve(teacher(), hs.DirectSingleShooting(**OPTIONS, workers=client))
    client.close()
    assert solution.status is hs.Status.WORKERS_LOST
    assert not solution.success
    assert np.isfinite(solution.objective)
