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
    LONGER,
    Comparison,
    Row,
    _flops,
)

QUICK = hs.Adam(epochs=150, sgd_epochs=30, rates=(0.03, 0.1))


@cache
def compared(**options):
    problem = teacher(samples=10, width=3, test_samples=20, seed=0)
    return hs.compare(problem, layers=6, optimizer=QUICK, seed=3, **options)


def finding(control, descent, continued, longer=None):
    """The finding for given objectives, on solutions that are otherwise real."""
    rows = [(CONTROL, control), (DESCENT, descent), (LONGER, longer), (CONTINUED, continued)]
    base = compared()
    return Comparison(base.problem, tuple(
        Row(name, base.row(name).solution.replace(objective=J)) for name, J in rows
        if J is not None), settings=base.settings).finding()


def test_rows_and_fields():
    comparison = compared()
    assert [row.name for row in comparison.rows] == [CONTROL, DESCENT, LONGER, CONTINUED]
    for row in comparison.rows:
        numbers = row.numbers
        assert numbers["train_error"] == numbers["loss"]
        assert np.isfinite(numbers["cost_of_identity"])
        assert numbers["test_error"] == pytest.approx(row.solution.test_error())
        assert ("rate" in numbers) is ("schedule" in numbers) is (row.name in (DESCENT, LONGER))
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
    assert [row.name for row in comparison.rows] == [CONTROL, DESCENT, CONTINUED]


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
