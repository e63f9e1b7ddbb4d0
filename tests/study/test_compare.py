"""`compare` says what it found, whichever way it went, and treats both sides alike."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.study.compare import (
    CONTINUED,
    CONTROL,
    DESCENT,
    GRID_RUNS,
    LEAST_SECONDS,
    LONGER,
    SAME_SECONDS,
    SCHEDULES_LONGER,
    Comparison,
    Row,
    _flops,
    _prolonged,
)

QUICK = hs.Adam(epochs=150, sgd_epochs=30, rates=(0.03, 0.1))


@cache
def compared(**options):
    problem = teacher(samples=10, width=3, test_samples=20, seed=0)
    return hs.compare(problem, layers=6, optimizer=QUICK, seed=3, **options)


def finding(control, descent, continued, longer=None, same=None):
    """The finding for given objectives, on solutions that are otherwise real."""
    rows = [(CONTROL, control), (DESCENT, descent), (LONGER, longer), (SAME_SECONDS, same),
            (CONTINUED, continued)]
    base = compared()
    return Comparison(base.problem, tuple(
        Row(name, base.row(name).solution.replace(objective=J)) for name, J in rows
        if J is not None), settings=base.settings).finding()


def test_rows_and_fields():
    comparison = compared()
    assert [row.name for row in comparison.rows] == [
        CONTROL, DESCENT, LONGER, SAME_SECONDS, CONTINUED]
    for row in comparison.rows:
        numbers = row.numbers
        assert numbers["train_error"] == numbers["loss"]
        assert np.isfinite(numbers["cost_of_identity"])
        assert numbers["test_error"] == pytest.approx(row.solution.test_error())
        assert ("rate" in numbers) is ("schedule" in numbers) is (
            row.name in (DESCENT, LONGER, SAME_SECONDS))
        assert numbers["cpu_seconds"] > 0
    for name in (DESCENT, LONGER):
        row = comparison.row(name)
        chosen = min(row.solution.extra["grid"], key=lambda one: one["objective"])
        assert (row.numbers["rate"], row.numbers["schedule"]) == (
            chosen["rate"], chosen["schedule"])
        assert row.numbers["grid_seconds"] > row.numbers["seconds"]
    assert comparison.best.solution.objective == min(
        row.solution.objective for row in comparison.rows)


def test_both_sides_start_from_the_same_network():
    comparison = compared(start="identity")
    problem, steps = comparison.problem, np.full(6, 1 / 6)
    from hamshoot.methods.common import starts
    from hamshoot.theory import layers as discrete
    W = starts.starting_weights(problem, steps, "identity", 3)
    end = discrete.roll_out(problem, W, steps)[-1]
    J = discrete.objective(problem, end, W, steps)[0]
    descent = hs.train(problem, layers=6, optimizer=QUICK, start="identity", seed=3)
    assert comparison.row(DESCENT).solution.objective == descent.objective
    first = comparison.row(DESCENT).solution.history[0]
    assert first.objective <= J * (1 + 1e-12)


def test_the_solver_from_descent_ends_at_or_below_it():
    comparison = compared()
    trained = min(comparison.row(name).solution.objective for name in (DESCENT, LONGER))
    assert comparison.row(CONTINUED).solution.objective <= trained * (1 + 1e-12)


def test_the_longer_run_can_be_left_out():
    comparison = compared(longer=False)
    assert [row.name for row in comparison.rows] == [CONTROL, DESCENT, SAME_SECONDS, CONTINUED]


def test_the_effort_of_descent_counts_its_grid_once():
    problem, alone = compared().problem, replace(QUICK, rate=0.1, schedule="decay")
    once = _flops(problem, 6, alone, starts=1)
    assert once == 6 * 6 * 3**2 * 10 * 180
    assert _flops(problem, 6, alone, starts=3) == 3 * once
    for grid in (QUICK, replace(QUICK, rate=0.1), replace(QUICK, schedule="decay")):
        assert _flops(problem, 6, grid, starts=3) == (GRID_RUNS + 2) * once


def test_findings_name_the_winner():
    assert "10.00% below" in finding(0.9, 1.0, 0.95)
    text = finding(1.2, 1.0, 0.95)
    assert "20.00% ABOVE" in text
    assert "lower basin" in text
    assert "lower basin" not in finding(0.9, 1.0, 0.95)
    assert "at gradient descent's objective" in finding(1.0, 1.0, 1.0)
    assert "5.00% ABOVE" in finding(0.84, 1.0, 0.7, longer=0.8)  # the better run counts


def test_the_winner_at_equal_seconds_comes_first():
    assert finding(0.9, 1.0, 0.95, same=1.0).startswith(
        "At equal seconds optimal control wins: J = 0.9, 10.00% below 1 (")
    text = finding(1.0, 1.2, 0.95, same=0.8)
    assert text.startswith("At equal seconds gradient descent wins: J = 0.8, 20.00% below 1 (")
    assert "16.67% below gradient descent's objective (1 against 1.2)" in text
    assert finding(1.0, 1.0, 1.0, same=1.0).startswith("At equal seconds nobody wins")
    extra = compared().row(SAME_SECONDS).solution.extra
    assert f"for {len(extra['runs'])} runs of gradient descent" in text
    assert f"start, seed {extra['start_seed']}, at rate {extra['rate']:g}" in text


def test_descent_gets_the_seconds_of_the_solver_and_one_at_least():
    comparison = compared()
    control, same = comparison.row(CONTROL), comparison.row(SAME_SECONDS)
    numbers, granted = same.numbers, max(LEAST_SECONDS, control.cpu_seconds)
    assert numbers["budget_seconds"] == granted
    assert granted - 0.1 <= numbers["cpu_seconds"] <= granted + 0.5
    assert numbers["runs"] == len(same.solution.extra["runs"]) > 0
    assert numbers["start"] in ("path", "identity")
    assert f"The solver took {control.cpu_seconds:.2g} s of CPU" in same.solution.message
    assert ("the least that it gets" in same.solution.message) is (granted == LEAST_SECONDS)


def test_the_row_of_equal_seconds_can_be_left_out():
    comparison = compared(longer=False, same_seconds=False)
    assert [row.name for row in comparison.rows] == [CONTROL, DESCENT, CONTINUED]
    assert not comparison.finding().startswith("At equal seconds")


def test_the_solver_searches_unless_a_start_is_asked_for():
    comparison = compared()
    problem = comparison.problem
    searched = hs.solve(problem, layers=6, seed=3)
    assert comparison.row(CONTROL).solution.objective == searched.objective
    search = comparison.row(CONTROL).numbers["search"]
    assert search["starts"] == 2
    assert search["reheats"] == 4 * search["rounds"] > 0
    assert comparison.row(DESCENT).numbers["search"] is None
    local = compared(start="path", longer=False, same_seconds=False)
    assert local.row(CONTROL).numbers["search"]["rounds"] == 0
    assert "From where its own search led" in comparison.finding()
    assert "From the same start (path, seed 3)" in local.finding()


def test_everything_but_the_row_of_equal_seconds_is_reproducible():
    again = hs.compare(compared().problem, layers=6, optimizer=QUICK, seed=3)
    for row in compared().rows:
        if row.name != SAME_SECONDS:
            assert again.row(row.name).solution.objective == row.solution.objective


def test_the_table_has_the_row():
    table = compared().table()
    assert "runs that fitted" in table
    assert "CPU seconds" in table


def test_an_interruption_keeps_the_rows_that_were_finished():
    problem = compared().problem

    def callback(record):
        return record.stage.startswith(DESCENT) or None

    comparison = hs.compare(problem, layers=6, optimizer=QUICK, callback=callback)
    assert not comparison.complete
    assert [row.name for row in comparison.rows] == [CONTROL, DESCENT]
    assert comparison.rows[1].solution.status is hs.Status.INTERRUPTED


@pytest.mark.parametrize(("options", "says"), [
    ({"layers": 2}, "layers"), ({"descent_steps": "odd"}, "steps"), ({"method": "magic"}, "method"),
    ({"start": "cold"}, "start"), ({"starts": 0}, "starts"), ({"time_limit": -1.0}, "time_limit"),
    ({"method_options": {"magic": 1}}, "magic"),
])
def test_bad_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        hs.compare(compared().problem, **{"layers": 6, "optimizer": QUICK, **options})


def test_a_hard_endpoint_has_no_descent():
    problem = compared().problem
    with pytest.raises(ValueError, match="hard endpoint"):
        hs.compare(problem.replace(endpoint=np.ones((3, 10))), layers=6)


def test_the_longer_run_has_ten_times_the_epochs_and_no_constant_rate():
    default = _prolonged(hs.Adam())
    assert (default.epochs, default.sgd_epochs) == (50_000, 10_000)
    assert default.schedules == SCHEDULES_LONGER
    assert default.rates == hs.Adam().rates
    own = _prolonged(hs.Adam(schedules=("constant",)))
    assert own.schedules == ("constant",)
    assert _prolonged(hs.SGD(epochs=7)).epochs == 70
