"""The linearised Laplace approximation, against Bayesian ridge regression and sampling."""

import json
from functools import lru_cache

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.derivatives.optimum import optimum_of
from hamshoot.derivatives.outputs import gradients


def table(samples=40, seed=0, outputs=1, noise=0.3, **options):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((samples + 400, 2))
    F = np.maximum(X @ rng.standard_normal((2, 2)), 0) @ rng.standard_normal((2, outputs))
    Y = 5 + 2 * (F + noise * rng.standard_normal(F.shape))
    given = dict(width=3, effective_depth=0.5, weight_decay=0.02, standardize=True) | options
    return hs.TrainingProblem(X[:samples], Y[:samples], X_test=X[samples:], Y_test=Y[samples:],
                              **given)


@lru_cache
def solved(layers, seed=1, **options):
    solution = hs.solve(table(seed=seed, **options), layers=layers, tol=1e-10, effort="quick")
    assert solution.success, solution.message
    return solution


def test_of_one_layer_it_is_bayesian_ridge_regression():
    """The posterior of a linear model in σ̂(A_0), by its normal equations in closed form."""
    solution = solved(1, outputs=2)
    problem, X = solution.problem, np.asarray(solution.problem.X_test[:7])
    found = solution.predictive_spread(X, noise=0.4)

    def design(start):
        S = np.concatenate([np.maximum(start, 0), np.ones((1, start.shape[1]))])
        return np.kron(S.T, problem.readout)

    N, ridge = problem.n_samples, problem.weight_decay / (2 * problem.effective_depth)
    train = design(problem.initial_state)
    precision = (train.T @ train + N * ridge * np.eye(train.shape[1])) / 0.4**2
    test = design(problem.lift @ problem.input_scaling.apply(X).T)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", test, np.linalg.inv(precision), test))
    np.testing.assert_allclose(
        found.network, expected.reshape(7, 2) * problem.target_scaling.scale, rtol=1e-8)
    hat = train @ np.linalg.solve(train.T @ train + N * ridge * np.eye(train.shape[1]), train.T)
    assert found.effective_parameters == pytest.approx(np.trace(hat), rel=1e-9)
    np.testing.assert_allclose(found.mean, solution.to_network().predict(X))
    np.testing.assert_allclose(found.noise, 0.4 * problem.target_scaling.scale)
    np.testing.assert_allclose(found.total**2, found.network**2 + found.noise**2)


@pytest.mark.parametrize("activation", ["smooth_relu", "relu"])
def test_gradients_of_predictions_are_those_of_differences(activation):
    solution = solved(4, activation=activation)
    at, h = optimum_of(solution).at, 1e-6
    end, rows = gradients(at.setting, at.weights, at.steps)
    np.testing.assert_allclose(end, solution.representations[-1], atol=1e-12)
    rng = np.random.default_rng(3)
    direction = rng.standard_normal(at.weights.shape)
    up, down = (at.setting.readout @ gradients(at.setting, at.weights + t * direction, at.steps)[0]
                for t in (h, -h))
    # Samples with an activation on the kink have one-sided derivatives.
    smooth = np.all(np.abs(solution.representations[1:-1]) > 1e-6, axis=(0, 1)) | \
        (activation != "relu")
    assert smooth.sum() > 5
    np.testing.assert_allclose((rows @ direction.ravel())[:, smooth],
                               ((up - down) / (2 * h))[:, smooth], rtol=1e-6, atol=1e-7)


def test_intervals_of_a_wide_table_hold_about_as_many_new_targets_as_they_say():
    """Noise known, many samples: what is left to be wrong is the approximation itself."""
    problem = table(samples=150, seed=2)
    solution = hs.solve(problem, layers=3, tol=1e-9, effort="quick")
    found = solution.predictive_spread(problem.X_test)
    for level in (0.5, 0.9):
        assert abs(found.coverage(problem.Y_test, level) - level) < 0.08
    low, high = found.interval(0.5)
    inner, outer = found.interval(0.5, noise=False)
    assert np.all((low < inner) & (outer < high))


def test_held_kinks_narrow_the_spread():
    """Directions that leave kinks are not those of the posterior."""
    solution = solved(4, activation="relu")
    optimum = optimum_of(solution)
    assert optimum.held.any()
    rows = gradients(optimum.at.setting, optimum.at.weights, optimum.at.steps)[1][0]
    held = np.einsum("ij,ji->i", rows, optimum.inverse(rows.T))
    free = np.einsum("ij,ji->i", rows, np.linalg.pinv(optimum.at.hessian) @ rows.T)
    eigenvalues = np.linalg.eigvalsh(optimum.at.hessian)
    assert eigenvalues[0] <= 0 or np.all(held <= free * (1 + 1e-9))


def test_it_prints_and_is_json():
    found = solved(4).predictive_spread([[0.0, 0.0], [8.0, -8.0]])
    assert found.network[1, 0] > found.network[0, 0]
    assert "the data determine" in repr(found)
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(ValueError, match="level: expected a probability"):
        found.interval(1.2)
    with pytest.raises(ValueError, match="Y: expected shape"):
        found.coverage([[1.0]])


def test_what_it_cannot_say_is_refused_in_a_sentence():
    solution = solved(4)
    with pytest.raises(ValueError, match="X: expected 2 columns"):
        solution.predictive_spread([[1.0]])
    with pytest.raises(ValueError, match="noise: expected a finite number > 0"):
        solution.predictive_spread([[1.0, 2.0]], noise=-1.0)
    labels = np.eye(2)[np.arange(12) % 2]
    classes = hs.TrainingProblem(np.arange(24.0).reshape(12, 2) % 7, labels, width=3,
                                 effective_depth=0.5, weight_decay=0.02, classes=("a", "b"))
    with pytest.raises(ValueError, match="expected a regression, got classes"):
        hs.solve(classes, layers=2, effort="quick").predictive_spread([[1.0, 2.0]])
    few = table(samples=4, weight_decay=1e-7)
    with pytest.raises(ValueError, match=r"nothing to estimate the noise from|expected a"):
        hs.solve(few, layers=3, effort="quick").predictive_spread([[1.0, 2.0]])
