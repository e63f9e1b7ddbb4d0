"""How rows of a comparison ended: objectives of 0, stalls at descent's own J, interruptions."""

from dataclasses import replace

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.study.compare import CONTINUED, CONTROL, DESCENT, SAME_SECONDS, Comparison, Row
from hamshoot.study.ends import ended_well, gap

ADAM = hs.Adam(epochs=20, sgd_epochs=5, rate=0.1, schedule="decay")


@pytest.fixture(scope="module")
def compared():
    return hs.compare(problems.teacher(samples=8, width=3, test_samples=5), 5, optimizer=ADAM,
                      method_options={"effort": "quick"}, longer=False)


def altered(comparison, **changes):
    """The comparison with fields of its rows' solutions changed, by a part of their names."""
    rows = [replace(row, solution=row.solution.replace(**{
        key: value for name, fields in changes.items() if name in row.name.split()
        for key, value in fields.items()})) for row in comparison.rows]
    return Comparison(comparison.problem, tuple(rows), settings=comparison.settings)


def test_a_table_of_zeros_has_a_finding():
    zeros = hs.TrainingProblem(np.zeros((6, 2)), np.zeros((6, 1)), effective_depth=2.0,
                               weight_decay=1e-2, width=2)
    comparison = hs.compare(zeros, 3, optimizer=ADAM, longer=False,
                            method_options={"effort": "quick"})
    assert len(comparison.rows) == 4
    assert "at gradient descent's objective (0)" in comparison.finding()
    assert "nobody wins: both end at J = 0" in comparison.finding()


@pytest.mark.parametrize(("control", "descent", "says"), [
    (0.0, 0.0, "at gradient descent's objective (0)"),
    (1.0, 0.0, "ended ABOVE gradient descent's objective (1 against 0)"),
    (0.0, 1.0, "ended 100.00% below gradient descent's objective (0 against 1)"),
])
def test_objectives_of_zero_are_compared_without_a_share(control, descent, says, compared):
    changed = altered(compared, control={"objective": control}, gradient={"objective": descent})
    assert says in changed.finding()
    assert "inf" not in changed.finding()
    assert "nan" not in changed.finding()


def test_the_gap_is_a_share_where_there_is_one(compared):
    solution = compared.row(CONTROL).solution
    a, b, zero = (solution.replace(objective=J) for J in (1.1, 1.0, 0.0))
    assert gap(a, b) == pytest.approx(0.1)
    assert gap(b, a) == pytest.approx(-1 / 11)
    assert gap(b, b) == gap(zero, zero) == 0.0
    assert gap(b, zero) == np.inf
    assert gap(zero, b) == -1.0
    assert np.isnan(gap(a.replace(objective=np.nan), b))


@pytest.mark.parametrize(("status", "factor", "well"), [
    (hs.Status.STALLED, 1.0, True), (hs.Status.STALLED, 1 - 1e-9, True),
    (hs.Status.STALLED, 0.9, False), (hs.Status.MAX_ITER, 1.0, False),
    (hs.Status.INTERRUPTED, 1.0, False), (hs.Status.SADDLE, 1.0, False),
])
def test_a_second_chance_may_stall_where_it_began_and_no_other_row_may(
        status, factor, well, compared):
    begun = compared.row(DESCENT).solution
    end = begun.replace(status=status, success=False, objective=factor * begun.objective)
    assert ended_well(end, begun) is well
    assert ended_well(end) is False
    rows = tuple(Row(row.name, end) if row.name == CONTINUED else row for row in compared.rows)
    whole = Comparison(compared.problem, rows, settings=compared.settings)
    assert compared.to_dict()["success"] is True
    assert whole.to_dict()["success"] is well
    first = tuple(Row(row.name, end) if row.name == CONTROL else row for row in compared.rows)
    assert Comparison(compared.problem, first).to_dict()["success"] is False


def test_without_a_trained_network_there_is_no_second_chance():
    problem = problems.teacher(samples=6, width=3)
    wild = hs.Adam(epochs=5, rate=1e200, schedule="constant", sgd_epochs=0)
    with np.errstate(all="ignore"):
        comparison = hs.compare(problem, 4, optimizer=wild, longer=False, same_seconds=False,
                                method_options={"effort": "quick"})
    names = [row.name for row in comparison.rows]
    trained = comparison.row(DESCENT).solution
    assert (CONTINUED in names) == bool(np.isfinite(trained.objective))
    assert SAME_SECONDS not in names
