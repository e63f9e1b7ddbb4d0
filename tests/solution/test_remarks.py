"""Numbers that mean nothing are said to mean nothing, and the others are not."""

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.remarks import comparison_remarks, error_of_mean, remarks
from hamshoot.support.checks import plain

RNG = np.random.default_rng(0)
X, X_TEST = RNG.standard_normal((20, 2)), RNG.standard_normal((8, 2))


def solved(scale=1.0, layers=4, width=3, depth=2.0, **changes):
    """A network of weights of some size, on a table whose target is 100 + 30 times a sum."""
    Y, Y_test = (100 + 30 * rows.sum(axis=1) for rows in (X, X_TEST))
    given = dict(X=X, Y=Y, X_test=X_TEST, Y_test=Y_test, standardize=True, target_names=["price"])
    problem = hs.TrainingProblem(**{**given, **changes}, effective_depth=depth, weight_decay=0.1,
                                 width=width)
    weights = scale * np.random.default_rng(1).standard_normal((layers, *problem.control_shape))
    return solution_from_weights(problem, weights, np.full(layers, 1 / layers), method="given",
                                 status=hs.Status.MAX_ITER, success=False)


def test_a_rank_that_is_no_dimension_is_said_to_say_nothing():
    wild = solved(scale=3.0)
    assert not -0.5 <= wild.bottleneck_rank <= 3.5
    sentence = remarks(wild)[0]
    assert f"{wild.bottleneck_rank:.3g} says nothing, since dimensions are 0 to 3" in sentence
    assert "not stationary" in sentence
    assert "(no dimension)" in repr(wild)
    still = solved(scale=0.0)
    assert 0 <= still.bottleneck_rank <= 3
    assert not any("rank" in sentence for sentence in remarks(still))
    assert "(no dimension)" not in repr(still)


@pytest.mark.parametrize(("stationarity", "why"), [(1.0, "not stationary"), (1e-9, "drifts by")])
def test_the_reason_is_the_one_that_holds(stationarity, why):
    wild = solved(scale=3.0)
    named = wild.replace(residuals={**wild.residuals, "stationarity": stationarity})
    assert wild.hamiltonian_drift > 0.5
    assert why in remarks(named)[0]


def test_a_test_error_is_told_in_the_table_s_units():
    solution = solved(scale=0.5)
    predicted = solution.to_network().predict(X_TEST)
    error = np.sqrt(np.mean((predicted - solution.problem.Y_test) ** 2))
    assert f"{plain(error)} for 'price'" in remarks(solution)[-1]
    assert "8 held-out rows" in remarks(solution)[-1]


def test_a_test_error_above_that_of_the_mean_is_said_to_be():
    wild, still = solved(scale=3.0), solved(scale=0.0)
    Y, Y_test = wild.problem.Y, wild.problem.Y_test
    mean = np.mean((Y_test - Y.mean()) ** 2) / Y.var()
    assert error_of_mean(wild) == pytest.approx(mean, rel=1e-12)
    assert wild.test_error() > mean
    told = [sentence for sentence in remarks(wild) if "nothing was learned" in sentence]
    assert len(told) == 1
    assert f"{wild.test_error():.3g} in standardised units" in told[0]
    assert f"has {mean:.3g}" in told[0]
    # Weights of 0 predict close to the mean, what decays of the inputs apart.
    better = solved(scale=0.0, depth=20.0, layers=40)
    assert better.test_error() == pytest.approx(mean, rel=1e-6)
    assert still.test_error() < wild.test_error()
    raw = solved(scale=3.0, standardize=False)
    assert not any("standardised" in sentence for sentence in remarks(raw))


def test_of_classes_the_share_of_labels_is_told_beside_that_of_the_commonest():
    labels, test = np.eye(2)[[0] * 15 + [1] * 5], np.eye(2)[[0] * 2 + [1] * 6]
    solution = solved(Y=labels, Y_test=test, classes=["a", "b"], target_names=["y=a", "y=b"])
    accuracy = solution.to_network().accuracy(solution.problem)
    assert f"{accuracy:.1%} are met" in remarks(solution)[-1]
    assert "meets 25.0%" in remarks(solution)[-1]


def test_nothing_is_said_of_arrays_without_names_or_held_out_rows():
    assert remarks(solved(scale=0.0, target_names=None)) == []
    assert remarks(solved(scale=0.0, X_test=None, Y_test=None)) == []


def test_a_comparison_tells_of_each_row_once():
    rows = {"one": solved(scale=3.0), "two": solved(scale=0.5), "three": solved(scale=4.0)}
    told = " ".join(comparison_remarks(rows))
    for name, solution in rows.items():
        dimension = -0.5 <= solution.bottleneck_rank <= 3.5
        assert (f"{solution.bottleneck_rank:.3g} of {name}" in told) == (not dimension)
        worse = solution.test_error() > error_of_mean(solution)
        assert (f"for all of them has {error_of_mean(solution):.3g} ({name})." in told) == worse
    best = min(rows, key=lambda name: rows[name].test_error())
    assert told.endswith(f"in the table's units ({best}).")
