"""What leaving a sample out does, against closed forms and against solves without it."""

import json
from functools import lru_cache

import numpy as np
import pytest
from problems import one_neuron
from scipy.stats import spearmanr

import hamshoot as hs
from hamshoot.derivatives.left_out import LeftOut
from hamshoot.derivatives.optimum import optimum_of
from hamshoot.derivatives.result import NoDerivative


def table(samples, seed, activation="smooth_relu", **options):
    """A noisy teacher: inputs 3, hidden 2, targets 2, and rows to test on."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((samples + 60, 3))
    Y = np.maximum(X @ rng.standard_normal((3, 2)), 0) @ rng.standard_normal((2, 2))
    Y += 0.3 * rng.standard_normal(Y.shape)
    given = dict(width=3, effective_depth=1.0, weight_decay=0.05, standardize=True) | options
    return hs.TrainingProblem(X[:samples], Y[:samples], X_test=X[samples:], Y_test=Y[samples:],
                              activation=activation, **given)


@lru_cache
def solved(activation, samples=24, layers=3, seed=4):
    solution = hs.solve(table(samples, seed, activation), layers=layers, tol=1e-10, effort="quick")
    assert solution.success, solution.message
    return solution


def correlation(one, other):
    return float(spearmanr(one, other)[0])


def test_with_one_layer_the_second_order_is_exact():
    """One layer is a ridge regression on σ̂(A_0): every left-out optimum by the normal equations."""
    problem = table(20, 1, "relu", effective_depth=0.5, bias=True)
    solution = hs.solve(problem, layers=1, tol=1e-12, effort="quick")
    found = hs.influence(solution)
    errors = hs.influence(solution, "test_error")
    A, Y, Q = problem.initial_state, problem.targets, problem.readout
    S = np.concatenate([np.maximum(A, 0), np.ones((1, A.shape[1]))])
    ridge = problem.weight_decay / (2 * problem.effective_depth)

    def optimum(rows):
        """J*, and the outputs as a function of lifted inputs, of vec(W), column-major."""
        design = np.kron(S[:, rows].T, Q)
        aim = (Y - 0.5 * Q @ A)[:, rows].ravel(order="F")
        W = np.linalg.solve(design.T @ design / len(rows) + ridge * np.eye(design.shape[1]),
                            design.T @ aim / len(rows))
        value = np.sum((design @ W - aim) ** 2) / len(rows) + ridge * W @ W
        return value, W.reshape(-1, S.shape[0], order="F")

    def test_error(W):
        A_test = problem.lift @ problem.input_scaling.apply(problem.X_test).T
        S_test = np.concatenate([np.maximum(A_test, 0), np.ones((1, A_test.shape[1]))])
        out = Q @ (0.5 * A_test + W @ S_test)
        return np.sum((out - problem.target_scaling.apply(problem.Y_test).T) ** 2) / A_test.shape[1]

    whole, W = optimum(np.arange(20))
    assert found.value == pytest.approx(whole, rel=1e-10)
    assert errors.value == pytest.approx(test_error(W), rel=1e-9)
    for s in range(20):
        value, without = optimum(np.delete(np.arange(20), s))
        assert found.second[s] == pytest.approx(value - whole, rel=1e-7, abs=1e-12)
        assert errors.second[s] == pytest.approx(test_error(without) - test_error(W), rel=1e-6,
                                                 abs=1e-11)
    assert found.holds.all()
    assert np.any(np.abs(found.first - found.second) > 1e-3 * np.abs(found.second))


def test_first_order_is_the_derivative_along_the_weights_of_the_samples():
    solution = solved("relu")
    found, N = hs.influence(solution), solution.problem.n_samples
    direction = np.full(N, 1 / (N - 1))
    direction[3] = -1.0
    by_weights = hs.sensitivity(solution, "sample_weights", direction)
    assert found.first[3] == pytest.approx(by_weights.along, rel=1e-9)
    without = LeftOut(optimum_of(solution))
    np.testing.assert_allclose(without.first[:, 3], by_weights.weights.ravel(), rtol=1e-6,
                               atol=1e-9)


@pytest.mark.parametrize("activation", ["smooth_relu", "relu"])
def test_left_out_optima_rank_as_those_that_were_solved(activation):
    solution = solved(activation)
    found = hs.influence(solution)
    true = found.resolve()
    assert np.all(np.isfinite(true))
    assert correlation(found.second, true) > 0.95
    assert correlation(found.first, true) > 0.8
    # J after a step is that of a network, and its optimum is no higher.
    assert np.all(found.second >= true - 1e-9)
    near = found.holds if activation == "smooth_relu" else found.whole & (found.changes <= 2)
    assert near.sum() > 4
    second, first = (np.median(np.abs(one - true)[near]) for one in (found.second, found.first))
    assert second < 0.25 * first


def test_predictions_and_functions_of_the_network_are_measured_too():
    solution = solved("smooth_relu")
    X = np.asarray(solution.problem.X_test[:5])
    moved = hs.influence(solution, X, samples=[2, 7])
    assert moved.first.shape == moved.second.shape == (2, 5, 2)

    def first_output(network):
        return network.predict(X)[:, 0]

    same = hs.influence(solution, first_output, samples=[2, 7])
    np.testing.assert_allclose(same.first, moved.first[..., 0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(same.second, moved.second[..., 0], atol=1e-12)
    assert same.on == "first_output"
    # The derivative by complex steps of the controls, in place of central differences.
    optimum = optimum_of(solution)
    change = LeftOut(optimum).first[:, 2].reshape(solution.weights.shape)
    plus, minus = (hs.LeakyResNet.from_weights(solution.problem, solution.weights + h * change,
                                               solution.steps).predict(X) for h in (1e-4, -1e-4))
    np.testing.assert_allclose(moved.first[0], (plus - minus) / 2e-4, rtol=1e-4, atol=1e-7)


def test_on_a_relu_network_it_is_said_where_the_active_set_changes():
    solution = solved("relu")
    found = hs.influence(solution)
    assert np.any(found.changes > 0)
    assert not np.any(found.holds & (found.changes > 0))
    assert "change sides" in repr(found)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("options", "message"), [
    (dict(on="loss"), "on: expected 'objective', 'test_error', rows"),
    (dict(on=np.ones((2, 9))), "on: expected rows of 3 inputs, got 9"),
    (dict(samples=[99]), "samples: expected numbers from 0 to 23"),
    (dict(samples=[]), "samples: expected numbers"),
])
def test_bad_input_is_refused_in_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        hs.influence(solved("smooth_relu"), **options)


def test_without_test_rows_or_layers_it_says_so():
    solution = solved("smooth_relu")
    without = solution.problem.subset(range(24))
    with pytest.raises(ValueError, match="expected a problem with test samples"):
        hs.influence(solution.replace(problem=without), "test_error")
    path = hs.solve(one_neuron(0.5), "indirect")
    with pytest.raises(NoDerivative, match="expected a layered solution"):
        hs.influence(path)
    with pytest.raises(TypeError, match="expected a Solution"):
        hs.influence(without)
