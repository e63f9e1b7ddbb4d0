"""Estimators of scikit-learn: its own checks, pipelines, searches, and what stands behind a fit."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.estimator_checks import parametrize_with_checks

import hamshoot as hs
from hamshoot.methods.search.basins import EFFORTS
from hamshoot.sklearn import LeakyResNetClassifier, LeakyResNetRegressor, default_layers


@pytest.fixture(autouse=True, scope="module")
def short_searches():
    """The quick effort, cut short: which of many minima it finds matters to no test here."""
    before = EFFORTS["quick"]
    EFFORTS["quick"] = replace(before, seconds=0.05)
    yield
    EFFORTS["quick"] = before


@parametrize_with_checks([LeakyResNetRegressor(), LeakyResNetClassifier()])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def data(rows=24, columns=3, seed=0):
    rng = np.random.default_rng(seed)
    X = 5.0 + 2.0 * rng.standard_normal((rows, columns))
    return X, 100.0 + 10.0 * np.maximum(X[:, 0] - X[:, 1], 0.0) + rng.standard_normal(rows)


def labelled(rows=30, seed=0):
    """A table with a gap, categories, and a column that tells the class."""
    rng = np.random.default_rng(seed)
    size, place = rng.standard_normal(rows), rng.choice(["north", "south", "west"], rows)
    frame = pd.DataFrame({"size": size, "place": place, "noise": rng.standard_normal(rows)})
    frame.loc[3, "size"] = np.nan
    frame.loc[5, "place"] = np.nan  # None is no gap to scikit-learn with pandas 2
    return frame, np.where((size > 0) ^ (place == "west"), "dear", "cheap")


# -- what stands behind a fit ----------------------------------------------------------------------


def test_a_fit_is_the_solve_of_the_problem_in_the_units_of_the_user():
    X, y = data()
    model = LeakyResNetRegressor(2.0, 0.01, 5, 6, random_state=3).fit(X, y)
    problem = hs.TrainingProblem(X, y, effective_depth=2.0, weight_decay=0.01, width=5,
                                 standardize=True)
    solution = hs.solve(problem, hs.DirectSingleShooting(
        layers=6, effort="quick", polish=False, seed=3))
    assert model.solution_.objective == pytest.approx(solution.objective, rel=1e-9)
    np.testing.assert_allclose(model.predict(X), solution.to_network().predict(X)[:, 0], rtol=1e-7)
    assert model.score(X, y) > 0.9
    assert model.n_iter_ == model.solution_.nit


@pytest.mark.parametrize(("shape", "expected"), [((24,), (24,)), ((24, 1), (24, 1)),
                                                 ((24, 2), (24, 2))])
def test_predictions_have_the_shape_of_the_targets(shape, expected):
    X, y = data()
    Y = np.stack([y, X[:, 2]], axis=1)
    model = LeakyResNetRegressor().fit(X, y if len(shape) == 1 else Y[:, :shape[1]])
    assert model.predict(X).shape == expected


def test_sizes_come_from_the_data():
    X, y = data(rows=30, columns=12)
    model = LeakyResNetRegressor(2.6).fit(X, y)
    assert model.solution_.problem.width == 12
    assert model.solution_.layers == default_layers(2.6) == 6
    assert model.solution_.problem.weight_decay == pytest.approx(0.026)
    assert LeakyResNetRegressor().fit(X[:, :2], y).solution_.problem.width == 8


def test_more_columns_than_the_width_enter_by_their_principal_directions():
    rng = np.random.default_rng(2)
    hidden = rng.standard_normal((30, 3))
    X = hidden @ rng.standard_normal((3, 9))  # nine columns of rank three
    Y = hidden @ rng.standard_normal((3, 5))
    model = LeakyResNetRegressor(2.0, width=3).fit(X, Y)
    problem = model.solution_.problem
    P, Q = problem.lift, problem.readout
    for rows, scaled in ((P, problem.input_scaling.apply(X)), (Q.T, problem.targets.T)):
        np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(scaled @ rows.T @ rows, scaled, atol=1e-9)  # nothing is lost
    assert model.score(X, Y) > 0.9


def test_a_constant_column_is_ignored():
    X, y = data()
    X = np.insert(X, 1, 7.0, axis=1)
    model = LeakyResNetRegressor().fit(X, y)
    other = X.copy()
    other[:, 1] = -1e6  # in training it was always 7
    np.testing.assert_array_equal(model.predict(other), model.predict(X))
    np.testing.assert_array_equal(
        model.predict(X), LeakyResNetRegressor().fit(np.delete(X, 1, axis=1), y).predict(
            np.delete(X, 1, axis=1)))


def test_constant_data_give_their_mean():
    X, y = data()
    with pytest.warns(ConvergenceWarning, match="the same output for all samples"):
        model = LeakyResNetRegressor().fit(np.ones_like(X), y)
    np.testing.assert_allclose(model.predict(X), np.mean(y))
    model = LeakyResNetRegressor().fit(X, np.full_like(y, 3.0))
    assert model.solution_.objective < 1e-3
    np.testing.assert_allclose(model.predict(X), 3.0, atol=0.1)


@pytest.mark.parametrize(("settings", "message"), [
    ({"width": 0}, "width: expected an integer >= 1, got 0"),
    ({"layers": 3}, "layers: .*use at least 4"),
    ({"weight_decay": -1.0}, "weight_decay: expected a finite number > 0"),
    ({"random_state": -1}, "random_state: expected an integer >= 0, got -1"),
    ({"effort": "none"}, "effort: expected one of"),
    ({"standardize": "rows"}, "standardize: expected true"),
])
def test_bad_parameters_are_named_in_a_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        LeakyResNetRegressor(**settings).fit(*data())


# -- weights of samples ----------------------------------------------------------------------------


def test_a_weight_is_so_many_rows_and_none_is_no_row():
    X, y = data(rows=20)
    counts = np.random.default_rng(4).integers(0, 4, 20)
    weighted = LeakyResNetRegressor().fit(X, y, sample_weight=2.5 * counts)
    repeated = LeakyResNetRegressor().fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-9)
    # J is that of the rows as they were given, and the optimum one of their problem.
    given = hs.TrainingProblem(np.repeat(X, counts, axis=0), np.repeat(y, counts), width=8,
                               effective_depth=3.0, weight_decay=0.03, standardize=True)
    network = repeated.solution_.to_network()
    assert network.objective(given) == pytest.approx(repeated.solution_.objective, rel=1e-12)
    np.testing.assert_allclose(repeated.solution_.problem.input_scaling.mean,
                               given.input_scaling.mean, rtol=1e-14)
    # Weights matter at all.
    plain = LeakyResNetRegressor().fit(X, y)
    assert np.abs(plain.predict(X) - weighted.predict(X)).max() > 1e-3 * np.std(y)


def test_equal_weights_are_none():
    X, y = data()
    plain, ones = (LeakyResNetRegressor().fit(X, y, sample_weight=s) for s in (None, [7.0] * 24))
    np.testing.assert_array_equal(ones.predict(X), plain.predict(X))
    np.testing.assert_array_equal(ones.solution_.problem.X, X)  # in the order of the user
    assert ones.solution_.problem.sample_weights is None


def test_principal_directions_are_those_of_the_rows_that_count():
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((30, 6)), rng.standard_normal(30)
    counts = rng.integers(0, 3, 30)
    weighted = LeakyResNetRegressor(2.0, width=3).fit(X, y, sample_weight=counts)
    repeated = LeakyResNetRegressor(2.0, width=3).fit(np.repeat(X, counts, axis=0),
                                                      np.repeat(y, counts))
    np.testing.assert_allclose(weighted.solution_.problem.lift, repeated.solution_.problem.lift,
                               rtol=1e-9)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-7)


def test_scores_take_weights_and_classes_without_weight_are_none():
    X, y = data(rows=30)
    labels = np.where(y > np.quantile(y, 0.7), "high", np.where(X[:, 2] > 5, "mid", "low"))
    s = np.where(labels == "mid", 0.0, 1.0)
    model = LeakyResNetClassifier().fit(X, labels, s)
    assert list(model.classes_) == ["high", "low"]
    met = model.predict(X) == labels
    assert model.score(X, labels, sample_weight=s) == pytest.approx(np.average(met, weights=s))
    with pytest.raises(ValueError, match=r"2 classes, got 1 class, .*sample_weight is not 0"):
        LeakyResNetClassifier().fit(X, labels, np.where(labels == "mid", 1.0, 0.0))


@pytest.mark.parametrize(("weights", "message"), [
    (np.r_[-1.0, np.ones(23)], "sample_weight: expected numbers >= 0, got -1"),
    (np.r_[1.0, np.zeros(23)], "at least 2 rows with a sample_weight above 0, got 1"),
    (np.zeros(24), "at least (one non-zero|2 rows)"),
    (np.r_[np.nan, np.ones(23)], "contains NaN"),
])
def test_weights_that_are_none_are_refused(weights, message):
    X, y = data()
    for model in (LeakyResNetRegressor(), LeakyResNetClassifier()):
        with pytest.raises(ValueError, match=message):
            model.fit(X, y > np.median(y), sample_weight=weights)


def test_what_is_not_there_is_not_pretended():
    X, y = data()
    for model in (LeakyResNetRegressor(), LeakyResNetClassifier()):
        with pytest.raises(NotFittedError):
            model.certificate_  # noqa: B018
    classifier = LeakyResNetClassifier()
    assert not hasattr(classifier.fit(X, y > np.median(y)), "predict_proba")


def test_the_certificate_is_made_when_asked_for_and_holds():
    X, y = data(rows=12, columns=2)
    model = LeakyResNetRegressor(2.0, 0.02, width=2, layers=4, polish=True).fit(X, y)
    certificate = model.certificate_
    assert certificate.holds
    assert certificate.stationarity < 1e-6
    assert certificate.objective == pytest.approx(model.solution_.objective, rel=1e-10)
    assert model.certificate_ is certificate
    first = model.fit(X, y + 1.0 + X[:, 0]).certificate_
    assert first.objective != certificate.objective


# -- how a fit ends --------------------------------------------------------------------------------


def test_not_converging_is_a_warning_and_a_status():
    X, y = data()
    with pytest.warns(ConvergenceWarning, match="max_iter: The iteration limit"):
        model = LeakyResNetRegressor(max_iter=5).fit(X, y)
    assert model.solution_.status is hs.Status.MAX_ITER
    assert np.all(np.isfinite(model.predict(X)))


def test_ctrl_c_ends_a_search_and_keeps_the_best_iterate():
    X, y = data(rows=200, columns=12)
    model = LeakyResNetRegressor(3.0, 1e-4, effort="thorough", layers=10)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    timer.join()
    assert model.solution_.status is hs.Status.INTERRUPTED
    assert model.score(X, y) > 0.5


def test_the_seed_is_what_scikit_learn_makes_of_it():
    X, y = data()
    fits = [LeakyResNetRegressor(random_state=state, max_iter=50) for state in (
        4, np.int64(4), np.random.RandomState(4), np.random.RandomState(4), None)]
    with pytest.warns(ConvergenceWarning):
        J = [model.fit(X, y).solution_.objective for model in fits]
    assert J[0] == J[1]
    assert J[2] == J[3]
    assert len(set(J)) == 3
    np.random.seed(4)  # noqa: NPY002
    with pytest.warns(ConvergenceWarning):
        assert fits[-1].fit(X, y).solution_.objective == J[2]


def test_the_answer_does_not_depend_on_threads():
    X, y = data()
    one, two = (LeakyResNetRegressor(n_jobs=n).fit(X, y).predict(X) for n in (None, 2))
    np.testing.assert_array_equal(one, two)


# -- continuation ----------------------------------------------------------------------------------


def test_warm_starts_along_lambda_never_end_above_where_they_begin():
    X, y = data()
    model = LeakyResNetRegressor(2.0, warm_start=True)
    cold = LeakyResNetRegressor(2.0)
    iterations = [0, 0]
    for number, decay in enumerate((0.1, 0.02, 0.004)):
        problem = clone(cold).set_params(weight_decay=decay).fit(X, y).solution_.problem
        before = model.network_.objective(problem) if number else np.inf
        model.set_params(weight_decay=decay).fit(X, y)
        assert model.solution_.objective <= before * (1 + 1e-9)
        assert model.solution_.success
        cold.set_params(weight_decay=decay).fit(X, y)
        if number:
            iterations[0] += model.n_iter_
            iterations[1] += cold.n_iter_
    assert 2 * iterations[0] < iterations[1]


def test_a_warm_start_that_does_not_fit_says_so_and_starts_anew():
    X, y = data()
    model = LeakyResNetRegressor(width=8, warm_start=True).fit(X, y)
    with pytest.warns(UserWarning, match="the last fit had width 8, this one has 9"):
        model.set_params(width=9).fit(X, y)
    np.testing.assert_array_equal(model.predict(X),
                                  LeakyResNetRegressor(width=9).fit(X, y).predict(X))


# -- among other people's tools --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:max_iter:sklearn.exceptions.ConvergenceWarning")
def test_a_pipeline_with_gaps_and_categories_in_a_search_over_processes():
    # The limit on iterations, and not the effort, which in other processes is not cut short.
    frame, y = labelled()
    columns = ColumnTransformer([
        ("numbers", SimpleImputer(), ["size", "noise"]),
        ("places", make_pipeline(SimpleImputer(strategy="most_frequent"),
                                 OneHotEncoder(sparse_output=False)), ["place"])])
    pipeline = make_pipeline(columns, LeakyResNetClassifier(max_iter=400))
    grid = {f"leakyresnetclassifier__{name}": values for name, values in (
        ("weight_decay", [0.3, 0.01]), ("effective_depth", [1.5, 3.0]), ("width", [5, None]))}
    alone, together = (GridSearchCV(pipeline, grid, cv=2, n_jobs=n).fit(frame, y) for n in (1, 2))
    np.testing.assert_array_equal(alone.cv_results_["mean_test_score"],
                                  together.cv_results_["mean_test_score"])
    assert together.best_params_ == alone.best_params_
    assert together.best_params_["leakyresnetclassifier__weight_decay"] == 0.01
    assert together.score(frame, y) > 0.9
    best = together.best_estimator_[-1]
    assert set(together.predict(frame)) == set(best.classes_) == {"dear", "cheap"}
    assert best.network_.classes == ("cheap", "dear")


def test_names_of_columns_reach_the_network():
    X, y = data()
    model = LeakyResNetRegressor().fit(pd.DataFrame(X, columns=["a", "b", "c"]), pd.Series(y))
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert model.network_.input_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="feature names"):
        model.predict(pd.DataFrame(X, columns=["c", "b", "a"]))


@pytest.mark.parametrize("labels", [["no", "yes"], [3, 1, 2]])
def test_labels_keep_their_type_and_follow_the_decision_function(labels):
    rng = np.random.default_rng(0)
    places = rng.integers(0, len(labels), 60)
    X = np.eye(len(labels))[places] + 0.2 * rng.standard_normal((60, len(labels)))
    y = np.array(labels)[places]
    model = LeakyResNetClassifier().fit(X, y)
    assert model.predict(X).dtype == y.dtype
    assert model.score(X, y) > 0.9
    decision = model.decision_function(X)
    chosen = (decision > 0).astype(int) if len(labels) == 2 else np.argmax(decision, axis=1)
    np.testing.assert_array_equal(np.sort(labels)[chosen], model.predict(X))
    np.testing.assert_array_equal(model.network_.predict_class(X), model.predict(X).astype(str))


def test_probabilities_come_from_calibration():
    X, y = data(rows=40)
    model = CalibratedClassifierCV(LeakyResNetClassifier(), cv=2).fit(X, y > np.median(y))
    probabilities = model.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert np.mean((probabilities[:, 1] > 0.5) == (y > np.median(y))) > 0.8


def test_a_fitted_model_survives_pickling_and_cross_validation():
    X, y = data()
    model = LeakyResNetRegressor().fit(X, y)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))
    assert copy.certificate_.objective == pytest.approx(model.solution_.objective, rel=1e-10)
    assert not hasattr(clone(model), "solution_")
    assert np.mean(cross_val_score(model, X, y, cv=2)) > 0.3


def test_without_scikit_learn_it_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None\nimport hamshoot\nimport hamshoot.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        'ImportError: hamshoot.sklearn needs scikit-learn >= 1.6; install it with: '
        'pip install "hamshoot[sklearn]"')


def test_cross_entropy_has_probabilities():
    """Of the data they are nearer to than the constant guess, and they go with the labels."""
    X, y = data(40)
    labels = np.where(y > np.median(y), "high", "low")
    model = LeakyResNetClassifier(loss="cross_entropy", width=4, layers=4, activation="tanh")
    probabilities = model.fit(X, labels).predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(axis=1)], model.predict(X))
    of_truth = probabilities[np.arange(40), np.searchsorted(model.classes_, labels)]
    assert -np.mean(np.log(of_truth)) == pytest.approx(model.solution_.loss, rel=1e-10)
    assert model.solution_.loss < np.log(2)
    np.testing.assert_allclose(model.network_.predict_proba(X), probabilities, rtol=1e-12)
    assert not hasattr(LeakyResNetClassifier(), "predict_proba")
