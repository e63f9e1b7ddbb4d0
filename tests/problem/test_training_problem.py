"""A training problem is checked once, keeps its scaling, and cannot be changed."""

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.problem.training_problem import Scaling

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 3)) * [1, 50, 1e-3] + [0, 1000, 5], RNG.standard_normal((12, 2))


def problem(**changes):
    return hs.TrainingProblem(**{"X": X, "Y": Y, "effective_depth": 3.0, "weight_decay": 3e-3,
                                 "width": 4, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"X": X[:0]}, "X: expected a 2-D array"),
        ({"X": X[:, 0]}, "X: expected a 2-D array"),
        ({"X": [["a", 1.0]] * 12}, "X: expected numbers"),
        ({"X": np.where(X[3, 1] == X, np.nan, X)}, "got nan in row 3, column 1"),
        ({"Y": Y[:5]}, "Y: expected 12 rows as X has, got 5"),
        ({"Y": None}, "Y: expected targets"),
        ({"Y": np.full((12, 1), np.inf)}, "got inf in row 0, column 0 and 11 more"),
        ({"effective_depth": 0.0}, "effective_depth: expected a finite number > 0, got 0.0"),
        ({"effective_depth": np.nan}, "effective_depth"),
        ({"effective_depth": "deep"}, "effective_depth: expected a number > 0, got 'deep'"),
        ({"weight_decay": -1.0}, "weight_decay: expected a finite number > 0, got -1.0"),
        ({"weight_decay": True}, "weight_decay"),
        ({"width": 0}, "width: expected an integer >= 1, got 0"),
        ({"width": 2.5}, "width: expected an integer >= 1, got 2.5"),
        ({"seed": -1}, "seed"),
        ({"bias": "yes"}, "bias: expected true or false"),
        ({"activation": "cubic"}, "activation: expected one of gelu, leaky_relu, linear, relu, "),
        ({"epsilon": 0.1}, "only smooth_relu and smooth_leaky_relu have one"),
        ({"activation": "smooth_relu", "epsilon": -0.1}, "epsilon: smooth_relu needs"),
        ({"lift": np.eye(3)}, r"lift: expected shape \(4, 3\), got \(3, 3\)"),
        ({"lift": "identity"}, "lift: expected embedding or orthonormal or a matrix"),
        ({"width": 2, "lift": "embedding"}, "an embedding needs width >= 3, got 2"),
        ({"readout": np.eye(4)}, r"readout: expected shape \(2, 4\)"),
        ({"endpoint": np.zeros((3, 12))}, r"endpoint: expected shape .* \(4, 12\)"),
        ({"X_test": X}, "expected both or neither"),
        ({"X_test": X[:, :2], "Y_test": Y}, "X_test: expected 3 columns as in training, got 2"),
        ({"X_test": X, "Y_test": Y[:3]}, "Y_test: expected 12 rows as X_test has, got 3"),
        ({"standardize": "rows"}, "standardize: expected"),
        ({"X": np.ones((12, 3)), "standardize": True}, "column '0' is constant"),
        ({"X": X[:1], "Y": Y[:1], "standardize": True}, "at least 2 rows"),
        ({"input_names": ["a"]}, "input_names: expected 3 names, got 1"),
    ],
)
def test_bad_input_is_named_in_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        problem(**changes)
    assert "\n" not in str(error.value)


def test_representations_are_columns_and_the_state_is_the_lifted_data():
    p = problem()
    assert p.initial_state.shape == (4, 12)
    np.testing.assert_array_equal(p.initial_state[:3], X.T)
    np.testing.assert_array_equal(p.initial_state[3], 0)
    np.testing.assert_array_equal(p.targets, Y.T)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_default_maps_embed_where_they_fit_and_are_orthonormal_elsewhere(width):
    p = problem(width=width)
    P, Q = p.lift, p.readout
    assert P.shape == (width, 3)
    assert Q.shape == (2, width)
    gram_P = P.T @ P if width >= 3 else P @ P.T
    gram_Q = Q @ Q.T if width >= 2 else Q.T @ Q
    np.testing.assert_allclose(gram_P, np.eye(min(width, 3)), atol=1e-14)
    np.testing.assert_allclose(gram_Q, np.eye(min(width, 2)), atol=1e-14)


def test_orthonormal_maps_follow_the_seed():
    a, b, c = (problem(lift="orthonormal", seed=s).lift for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1


@pytest.mark.parametrize("kind", [True, "columns", "common"])
def test_standardising_is_undone_exactly(kind):
    p = problem(standardize=kind)
    scaled = p.input_scaling.apply(X)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(p.input_scaling.invert(scaled), X, rtol=1e-12)
    if kind != "common":
        np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(p.initial_state[:3].T, scaled)


def test_classes_are_not_scaled():
    labels = np.eye(2)[RNG.integers(0, 2, 12)]
    p = problem(Y=labels, classes=("a", "b"), standardize=True)
    np.testing.assert_array_equal(p.targets, labels.T)


def test_a_problem_is_frozen_and_independent_of_the_callers_arrays():
    data = X.copy()
    p = problem(X=data)
    data[:] = 0
    np.testing.assert_array_equal(p.X, X)
    with pytest.raises(ValueError, match="read-only"):
        p.initial_state[0, 0] = 1
    with pytest.raises(AttributeError):
        p.width = 9


def test_replace_derives_defaults_anew():
    p = problem().replace(width=7)
    assert p.lift.shape == (7, 3)
    with pytest.raises(ValueError, match="no argument 'widht'"):
        p.replace(widht=3)


def test_hard_endpoint_needs_no_targets():
    p = hs.TrainingProblem(X, endpoint=np.ones((4, 12)), effective_depth=1.0, weight_decay=1.0,
                           width=4)
    assert p.hard_endpoint
    assert p.targets.shape == (4, 12)


def test_arrays_and_settings_rebuild_the_problem():
    p = problem(standardize="common", activation="smooth_relu", epsilon=0.02, width=2,
                X_test=X, Y_test=Y)
    q = hs.TrainingProblem.from_arrays(*p.to_arrays())
    for name in ("initial_state", "targets", "lift", "readout", "X_test"):
        np.testing.assert_array_equal(getattr(q, name), getattr(p, name))
    assert q.sigma == p.sigma


def test_scaling_common_allows_one_constant_column():
    values = np.column_stack([np.ones(5), np.arange(5.0)])
    scaling = Scaling.fit(values, "common", "X", ["a", "b"])
    assert np.all(np.isfinite(scaling.apply(values)))


def test_teacher_problem_has_its_bottleneck():
    p = hs.teacher_problem((6, 2, 6), 200, width=6, effective_depth=3.0, test_samples=50)
    assert p.weight_decay == pytest.approx(3e-3)
    assert p.X_test.shape == (50, 6)
    assert abs(p.Y.shape[1] - 6) == 0
    inner = hs.teacher_problem((6, 1, 6), 200, width=6, effective_depth=3.0)
    # Through a one-dimensional middle the outputs lie on a curve: a random ReLU network of one
    # variable. Sorting by it orders every output into a piecewise smooth function.
    assert np.linalg.matrix_rank(inner.targets, tol=1e-8) <= 6
    with pytest.raises(ValueError, match="dims"):
        hs.teacher_problem((6,), 20)
    with pytest.raises(ValueError, match="samples"):
        hs.teacher_problem((6, 2, 6), 0)


def test_a_constant_column_is_centred_by_varying_and_refused_by_columns():
    X_constant = np.array([[1.0, 7.0], [2.0, 7.0], [4.0, 7.0]])
    Y_constant = np.array([2.0, 2.0, 2.0])
    options = {"effective_depth": 1.0, "weight_decay": 0.1, "width": 2}
    with pytest.raises(ValueError, match="column '1' is constant"):
        hs.TrainingProblem(X_constant, Y_constant, standardize="columns", **options)
    given = hs.TrainingProblem(X_constant, Y_constant, standardize="varying", **options)
    scaled = given.input_scaling.apply(X_constant)
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-15)
    np.testing.assert_allclose(scaled.std(axis=0), [1.0, 0.0])
    np.testing.assert_array_equal(given.targets, 0.0)
    again = hs.TrainingProblem.from_arrays(*given.to_arrays())
    np.testing.assert_array_equal(again.initial_state, given.initial_state)
