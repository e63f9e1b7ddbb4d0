"""Gradient descent for so many seconds: a fixed order, a clock that is kept, the best of all."""

import time
from functools import cache

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.methods.descent import restarts
from hamshoot.methods.descent.restarts import Plan, middle_out, plan_for, train_for
from hamshoot.theory import layers as discrete


def problem():
    return teacher(samples=10, width=3, test_samples=20, seed=0)


@pytest.fixture
def short(monkeypatch):
    """Runs a hundred times shorter."""
    monkeypatch.setattr(restarts, "SHORT", 20)
    monkeypatch.setattr(restarts, "LENGTHS", (100, 600, 100, 200))


@cache
def trained(seconds=1.0):
    return train_for(problem(), seconds, 6)


def order(solution):
    return [(run["start"], run["seed"], run["rate"], run["epochs"])
            for run in solution.extra["runs"]]


def test_the_best_of_all_runs_is_returned():
    solution = trained()
    ends = [run["objective"] for run in solution.extra["runs"]]
    assert len(ends) > 12
    assert solution.objective <= min(ends) * (1 + 1e-12)
    assert solution.status is hs.Status.TRAINED
    assert solution.success
    own = discrete.roll_out(problem(), solution.weights, solution.steps)[-1]
    assert solution.objective == pytest.approx(
        discrete.objective(problem(), own, solution.weights, solution.steps)[0], rel=1e-12)


def test_short_runs_of_all_rates_come_first_from_both_starts(short):
    first = order(train_for(problem(), 0.5, 6, seed=4))[:12]
    assert first == [(start, 4, rate, 20) for rate in (0.03, 0.1, 0.01, 0.3, 0.003, 1.0)
                     for start in ("path", "identity")]


def test_the_three_lowest_go_on_with_new_seeds(short):
    solution = train_for(problem(), 0.5, 6, seed=4)
    runs = solution.extra["runs"]
    lowest = sorted(runs[:12], key=lambda run: run["objective"])[:3]
    assert order(solution)[12:15] == [(run["start"], 4, run["rate"], 100) for run in lowest]
    assert {(run["seed"], run["epochs"]) for run in runs[15:18]} == {(1004, 600)}
    assert {(run["seed"], run["epochs"]) for run in runs[18:21]} == {(2004, 100)}


def test_only_how_far_it_gets_depends_on_the_clock(short):
    few, many = (train_for(problem(), seconds, 6).extra["runs"] for seconds in (0.1, 0.4))
    common = min(len(few), len(many))
    assert common > 0
    assert few[:common] == many[:common]


@pytest.mark.parametrize("seconds", [0.05, 0.5])
def test_no_more_than_the_seconds_and_a_chunk(seconds):
    trained()  # compiled
    begun = time.process_time()
    solution = train_for(problem(), seconds, 6)
    assert solution.extra["cpu_seconds"] <= seconds + 0.15
    assert time.process_time() - begun <= seconds + 0.5


def test_one_run_at_least_however_short_the_time():
    solution = train_for(problem(), 1e-6, 6)
    assert solution.nit >= 1
    assert solution.success
    assert np.isfinite(solution.objective)
    assert "0 runs" in solution.message


def test_the_message_says_what_fitted_and_where_the_best_came_from():
    solution = trained()
    extra = solution.extra
    assert f"{len(extra['runs'])} runs of gradient descent fitted" in solution.message
    assert f"from the {extra['start']} start, seed {extra['start_seed']}" in solution.message
    assert f"rate {extra['rate']:g}" in solution.message
    assert extra["total_epochs"] >= sum(run["epochs"] for run in extra["runs"])


def test_large_networks_get_shorter_runs_of_the_middle_rates():
    assert plan_for(hs.Adam(), 1e-4, 1.0) == Plan(
        (0.03, 0.1, 0.01, 0.3, 0.003, 1.0), 2000, (10_000, 60_000, 10_000, 20_000))
    plan = plan_for(hs.Adam(), 0.014, 90.0)
    assert plan == Plan((0.03, 0.1), 200, (2000,))
    assert 0.014 * (4 * plan.short + plan.lengths[0]) <= 90
    assert plan_for(hs.Adam(), 100.0, 1.0).short == 10


def test_rates_from_the_middle_outwards():
    assert middle_out((1.0, 3.0, 2.0)) == (2.0, 3.0, 1.0)
    assert middle_out((1.0,)) == (1.0,)


def test_a_given_rate_is_the_only_one(short):
    solution = train_for(problem(), 0.1, 6, optimizer=hs.SGD(rate=0.5))
    assert {run["rate"] for run in solution.extra["runs"]} <= {0.5}
    assert solution.method == "gradient descent (sgd)"


def test_where_every_run_diverges_it_says_so(short):
    solution = train_for(problem(), 1.0, 6, optimizer=hs.SGD(rates=(1e6, 1e7)))
    assert solution.status is hs.Status.DIVERGED
    assert not solution.success
    assert len(solution.extra["runs"]) == 4
    assert np.isfinite(solution.objective)


def test_steps_that_adapt(short):
    solution = train_for(problem(), 0.3, 6, steps="adaptive")
    assert np.ptp(solution.steps) > 0


def test_it_can_be_stopped():
    seen = []
    solution = train_for(problem(), 5.0, 6, callback=lambda r: seen.append(r) or len(seen) > 3)
    assert solution.status is hs.Status.INTERRUPTED
    assert np.isfinite(solution.objective)
    limited = train_for(problem(), 5.0, 6, time_limit=0.1)
    assert limited.status is hs.Status.TIME_LIMIT
    assert limited.message.startswith(str(hs.Status.TIME_LIMIT))


@pytest.mark.parametrize(("options", "says"), [
    ({"seconds": 0.0}, "seconds"), ({"layers": 2}, "layers"), ({"seed": -1}, "seed"),
    ({"time_limit": 0.0}, "time_limit"), ({"optimizer": "adam"}, "optimizer"),
    ({"steps": "odd"}, "steps"),
])
def test_bad_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        train_for(problem(), **{"seconds": 1.0, "layers": 6, **options})


def test_a_hard_endpoint_has_no_descent():
    with pytest.raises(ValueError, match="hard endpoint"):
        train_for(problem().replace(endpoint=np.ones((3, 10))), 1.0, 6)
