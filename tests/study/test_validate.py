"""`validate`: what is tried, in which order, on which rows, and what is said of it."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from problems import random_data, teacher

import hamshoot as hs
from hamshoot.study.forecast import NEIGHBOUR, TriesForecast
from hamshoot.study.held_out import held_out_rows
from hamshoot.study.validate import _Grid, rescaled

QUICK = {"effort": "quick", "layers": 5}


def problem(**options):
    return teacher(**{"samples": 15, "width": 3, "effective_depth": 2.0, "weight_decay": 0.02,
                      "test_samples": 8, **options})


@pytest.fixture(scope="module")
def tried():
    """A validation in odd units."""
    given = random_data("relu", sizes=(20, 2, 2), data_seed=3, units=((50.0, 9.0), (-7.0, 0.01)),
                        effective_depth=2.0, weight_decay=0.03, width=3, standardize=True)
    return hs.validate(given, weight_decays=(0.3, 0.03), effective_depths=(1.5, 2.0),
                       widths=(2, 3), held_out=0.25, **QUICK)


# -- what is tried ---------------------------------------------------------------------------------


def test_all_are_tried_with_all_from_one_search_a_width(tried):
    places = {(one.weight_decay, one.effective_depth, one.width) for one in tried.tries}
    assert len(places) == len(tried.tries) == 8
    assert {place[0] for place in places} == {0.03, 0.3}
    own = [one for one in tried.tries if one.begun == "search"]
    assert [one.width for one in own] == [3, 2]
    assert {(one.weight_decay, one.effective_depth) for one in own} == {(0.03, 2.0)}
    assert tried.complete


def test_each_goes_on_from_a_neighbour_that_is_solved_already():
    grid = _Grid((0.1, 0.2, 0.4, 0.8), (1.0, 2.0, 4.0), (3, 5, 6), (0.25, 2.5, 5))
    done, searches = set(), []
    for step in grid:
        if step.before is None:
            searches.append(step.place)
        else:
            assert step.before in done
            values = (grid.decays, grid.depths, grid.widths)
            apart = [abs(own.index(a) - own.index(b)) for own, a, b in
                     zip(values, step.place, step.before, strict=True)]
            assert sorted(apart) == [0, 0, 1]
        done.add(step.place)
    assert len(done) == len(grid) == 36
    assert searches == [(0.2, 2.0, 5), (0.2, 2.0, 6), (0.2, 2.0, 3)]


def test_the_defaults_lie_around_the_problem_and_within_reach():
    given = problem(effective_depth=4.0)
    grid = _Grid.of(given, 6, None, None, None)
    assert grid.depths == (2.0, 4.0)  # 8 needs more than 6 layers
    assert grid.widths == (3, 6)  # half of 3 does not hold the data
    np.testing.assert_allclose(grid.decays, 0.02 * 10.0 ** np.linspace(-1, 1, 5))
    fixed = given.replace(lift=np.eye(3), readout=np.eye(3))
    assert _Grid.of(fixed, 6, None, None, None).widths == (3,)


def test_a_guess_at_another_depth_leads_along_the_same_path():
    given = problem()
    solution = hs.solve(given, start="path", **QUICK)
    guess = rescaled(solution, 4.0)
    np.testing.assert_allclose(guess.weights / 4.0, solution.weights / 2.0, rtol=1e-14)
    # At a quarter of the steps the path of four times the leak is the same, node by node.
    slow = hs.LeakyResNet.from_weights(given, solution.weights)
    A = slow.representations(given.X)[0]
    S = np.vstack([np.maximum(A, 0), np.ones(A.shape[1])])
    fast = -4.0 * A + guess.weights[0] @ S
    np.testing.assert_allclose(fast, 2.0 * (-2.0 * A + solution.weights[0] @ S), rtol=1e-12)
    assert rescaled(solution, 2.0) is solution


def test_what_collapses_where_its_neighbour_did_not_is_searched_for():
    given = teacher(width=3, weight_decay=0.01)
    done = hs.validate(given, weight_decays=[0.01], effective_depths=[3.0, 12.0], widths=[3],
                       layers=14, effort="quick", start="path")
    assert done.tries[1].begun == "search (from L̃ = 3 it collapses)"
    assert done.tries[1].status is not hs.Status.COLLAPSED


# -- on which rows ---------------------------------------------------------------------------------


def test_errors_are_those_of_the_rows_that_were_held_out(tried):
    given, rows = tried.problem, tried.held_out.rows
    assert len(rows) == 5
    Y = given.target_scaling.apply(given.Y)
    for one in tried.tries:
        outputs = given.target_scaling.apply(one.network.predict(given.X[rows]))
        errors = np.sum((outputs - Y[rows]) ** 2, axis=1)
        assert one.error == pytest.approx(np.mean(errors), rel=1e-9)
        assert one.error_deviation == pytest.approx(np.std(errors, ddof=1) / 5**0.5, rel=1e-9)
    left = np.setdiff1d(np.arange(20), rows)
    assert tried.trivial_error == pytest.approx(
        np.mean(np.sum((Y[left].mean(axis=0) - Y[rows]) ** 2, axis=1)))


def test_the_rows_held_out_have_no_part_in_the_networks(tried):
    given, rows = tried.problem, tried.held_out.rows
    X, Y = np.array(given.X), np.array(given.Y)
    X[rows], Y[rows] = 1e3, -1e3
    part, _ = held_out_rows(given, 0.25, 0)
    other, _ = held_out_rows(given.replace(X=X, Y=Y), 0.25, 0)
    for name in ("initial_state", "targets"):
        np.testing.assert_array_equal(getattr(part, name), getattr(other, name))
    assert one_of(tried).objective == pytest.approx(one_of(tried).network.objective(
        part.replace(weight_decay=one_of(tried).weight_decay)), rel=1e-9)


def one_of(tried):
    return next(one for one in tried.tries if one.effective_depth == 2.0 and one.width == 3)


def test_test_rows_are_left_alone_unless_asked_for():
    given = problem()
    part, rows = held_out_rows(given, 0.2, 1)
    assert (part.n_samples, len(rows.X), part.X_test) == (12, 3, None)
    assert "no part in the choice" in rows.caution
    done = hs.validate(given, weight_decays=[0.02], effective_depths=[2.0], widths=[3],
                       held_out="test", **QUICK)
    assert done.best.error == pytest.approx(done.best.network.test_error(given), rel=1e-12)
    assert "these same rows" in done.finding()


def test_a_column_constant_in_the_rows_left_is_no_error():
    X = np.column_stack([np.arange(10.0), np.zeros(10)])
    rows = held_out_rows(problem_of(X), 0.2, 0)[1].rows
    X[rows, 1] = 1.0
    part, _ = held_out_rows(problem_of(X), 0.2, 0)
    np.testing.assert_array_equal(part.initial_state[1], 0.0)


def problem_of(X):
    kind = "varying" if np.ptp(X[:, 1]) == 0 else "columns"
    return hs.TrainingProblem(X, X[:, 0] ** 2, effective_depth=1.0, weight_decay=0.1, width=2,
                              standardize=kind)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"held_out": 0.0}, r"held_out: expected a share in \(0, 1\) or 'test', got 0.0"),
    ({"held_out": 0.95}, "held_out: 0.95 of 15 rows leaves 1 to train on"),
    ({"held_out": "rows"}, "held_out: expected a share"),
    ({"weight_decays": []}, "weight_decays: expected at least one value"),
    ({"weight_decays": 0.1}, "weight_decays: expected a list of numbers, got 0.1"),
    ({"effective_depths": [1.0, -1.0]}, "effective_depths: expected a finite number > 0"),
    ({"effective_depths": [1.0, 6.0]}, "use at least 7"),
    ({"widths": [2.5]}, "widths: expected an integer >= 1, got 2.5"),
    ({"speed": 3}, "speed: single_shooting has no such option"),
])
def test_bad_arguments_are_refused_before_anything_is_solved(arguments, words):
    def called(record):
        raise AssertionError("something was solved")

    with pytest.raises(ValueError, match=words):
        hs.validate(problem(), callback=called, **{**QUICK, **arguments})


def test_problems_without_loss_or_test_rows_are_refused():
    with pytest.raises(ValueError, match="has none"):
        hs.validate(problem(test_samples=0), held_out="test")
    ends = hs.TrainingProblem(np.eye(2), endpoint=np.eye(2), effective_depth=1.0,
                              weight_decay=0.1, width=2)
    with pytest.raises(ValueError, match="got a hard endpoint"):
        hs.validate(ends)


# -- what is said and done -------------------------------------------------------------------------


def test_the_least_error_is_chosen_and_said(tried):
    errors = [one.error for one in tried.tries]
    assert tried.best.error == min(errors)
    text = repr(tried)
    assert text.count("← chosen") == 1
    line = next(line for line in text.splitlines() if "← chosen" in line)
    assert f"{tried.best.error:.5g}" in line
    # Inputs and targets have nothing to do with each other.
    assert (min(errors) >= tried.trivial_error) == ("None of them predicts better" in text)
    assert "the largest λ" in text or tried.best.weight_decay == 0.03
    told = json.loads(json.dumps(tried.to_dict(), allow_nan=False))
    assert told["chosen"]["error"] == tried.best.error
    assert len(told["tries"]) == 8
    assert told["held_out"]["rows"] == tried.held_out.rows.tolist()


def test_what_was_chosen_is_solved_on_all_rows(tried):
    solution = tried.solve()
    best = tried.best
    assert solution.problem.n_samples == 20
    assert (solution.problem.weight_decay, solution.problem.effective_depth,
            solution.problem.width) == (best.weight_decay, best.effective_depth, best.width)
    searched = hs.solve(tried.best_problem, **QUICK)
    assert solution.objective <= searched.objective * (1 + 1e-9)
    same = hs.LeakyResNet.from_weights(tried.best_problem, best.network.weights)
    assert solution.objective <= same.objective(tried.best_problem) * (1 + 1e-9)
    assert "chosen on held-out rows, and solved by" in solution.message


def test_stopped_midway_it_chooses_from_what_there_is():
    given, seen = problem(), []
    done = hs.validate(given, weight_decays=[0.02, 0.2], effective_depths=[2.0], widths=[3],
                       on_try=seen.append, callback=lambda record: bool(seen), **QUICK)
    assert not done.complete
    assert list(done.tries) == seen
    assert len(seen) == 1
    assert "stopped before all were tried" in done.finding()
    assert done.solve(callback=lambda record: True).status is hs.Status.INTERRUPTED


def test_classes_have_their_accuracy_and_a_single_row_no_deviation():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((12, 2))
    Y = np.eye(2)[(X[:, 0] > 0).astype(int)]
    given = hs.TrainingProblem(X, Y, effective_depth=2.0, weight_decay=0.02, width=2,
                               classes=("a", "b"))
    done = hs.validate(given, weight_decays=[0.02], effective_depths=[2.0], widths=[2],
                       held_out=0.05, **QUICK)
    assert done.best.accuracy in (0.0, 1.0)
    assert "accuracy" in done.table()
    assert done.to_dict()["chosen"]["error_deviation"] is None
    assert "standard error" not in done.finding()


def test_the_continuous_path_can_be_validated_too():
    given = teacher("smooth_relu", samples=6, width=2, effective_depth=1.0, weight_decay=0.05)
    done = hs.validate(given, "indirect", weight_decays=[0.05, 0.06], effective_depths=[1.0],
                       widths=[2])
    assert [one.begun for one in done.tries] == ["search", "from λ = 0.05"]
    assert all(np.isfinite(one.error) for one in done.tries)


def test_what_is_left_is_foretold_from_what_has_ended():
    forecast = TriesForecast([True, False, False, True])
    record = hs.Record(1, 0.5, 0.1, 1.0, "try 1 of 4")
    forecast.hear(record)
    assert forecast.seconds is None
    forecast.ended(20.0)
    forecast.hear(record)
    assert forecast.seconds == pytest.approx(NEIGHBOUR * 20.0 - 1.0 + NEIGHBOUR * 20.0 + 20.0)
    forecast.ended(6.0)
    forecast.hear(record)
    assert forecast.seconds == pytest.approx(5.0 + 20.0)


# -- by others, and again --------------------------------------------------------------------------


def numbers(done):
    return [(one.weight_decay, one.effective_depth, one.width, one.error, one.objective, one.begun)
            for one in done.tries]


def test_the_same_by_others(tried):
    arguments = dict(weight_decays=(0.03, 0.3), effective_depths=(1.5, 2.0), widths=(2, 3),
                     held_out=0.25, **QUICK)
    with ThreadPoolExecutor(2) as pool:
        assert numbers(hs.validate(tried.problem, executor=pool, **arguments)) == numbers(tried)
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None,
                                  protocol="tcp") as cluster:
        done = hs.validate(tried.problem, scheduler=cluster.scheduler_address, **arguments)
    assert numbers(done) == numbers(tried)
    with pytest.raises(ValueError, match="executor, scheduler: expected one of them"):
        hs.validate(tried.problem, executor=pool, scheduler="tcp://a:1", **arguments)


def test_what_was_tried_is_kept(tmp_path):
    arguments = dict(weight_decays=[0.02, 0.2], effective_depths=[2.0], widths=[3],
                     journal=tmp_path, **QUICK)
    seen, solved = [], []
    part = hs.validate(problem(), on_try=seen.append, callback=lambda record: bool(seen),
                       **arguments)
    assert len(part.tries) == 1
    whole = hs.validate(problem(), callback=lambda record: solved.append(record.stage),
                        **arguments)
    assert solved
    assert all(stage.startswith("try 2 of 2") for stage in solved)
    del arguments["journal"]
    assert numbers(whole) == numbers(hs.validate(problem(), **arguments))
