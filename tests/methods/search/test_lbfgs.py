"""The compiled L-BFGS: against SciPy's on the same functions, its ends, and where it goes on."""

import numpy as np
import pytest
from problems import teacher
from scipy.optimize import minimize

from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.common.watch import Watch
from hamshoot.methods.search.lbfgs import CHUNK, WINDOW, Minimizer
from hamshoot.network.follow_path import equidistant_steps


def minimizer(activation="smooth_relu", layers=8, memory=30, **options):
    problem = teacher(activation, **options)
    sweeps = EulerSweeps(problem, equidistant_steps(layers))
    watch = Watch()
    return Minimizer(sweeps, watch, memory=memory, max_iter=10**6), sweeps, watch


def start_of(sweeps, kind="path"):
    return starting_weights(sweeps.problem, sweeps.steps, kind, 0)


@pytest.mark.parametrize("activation", ["smooth_relu", "linear"])
@pytest.mark.parametrize("bias", [True, False])
def test_it_reaches_a_stationary_point_that_scipy_cannot_lower(activation, bias):
    mine, sweeps, watch = minimizer(activation, bias=bias)
    W = mine.minimize(start_of(sweeps), 1e-7)
    assert mine.stationarity <= 1e-5  # or as far as the rounding of J lets it see
    value, _ = sweeps.gradient(W)
    assert value == mine.objective
    assert sweeps.stationarity(W) == pytest.approx(mine.stationarity, rel=1e-6)
    shape = W.shape

    def fun(x):
        value, gradient = sweeps.gradient(x.reshape(shape))
        return value, gradient.ravel().copy()

    other = minimize(fun, W.ravel(), jac=True, method="BFGS", options={"gtol": 1e-12})
    assert other.fun >= value - 1e-12 * abs(value)
    assert len(watch.history) > 10


def test_every_iteration_is_recorded_and_none_raises_the_objective():
    mine, sweeps, watch = minimizer()
    mine.minimize(start_of(sweeps), 1e-6)
    values = [record.objective for record in watch.history]
    assert np.all(np.diff(values) <= 2e-15 * values[-1])
    assert watch.history[-1].stationarity <= 1e-6 < watch.history[-2].stationarity


@pytest.mark.parametrize("limit", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_limit_is_met_and_chunks_do_not_show(limit):
    mine, sweeps, watch = minimizer()
    W = mine.minimize(start_of(sweeps), 0.0, limit)
    assert len(watch.history) == limit
    whole, other_sweeps, _ = minimizer()
    whole.chunk = 10 * limit
    np.testing.assert_array_equal(W, whole.minimize(start_of(other_sweeps), 0.0, limit))


def test_it_ends_where_the_objective_hardly_falls():
    mine, sweeps, watch = minimizer()
    mine.minimize(start_of(sweeps), 0.0, None, 1e-1)
    values = [record.objective for record in watch.history]
    assert values[-WINDOW - 1] - values[-1] < 0.1 * values[-1]
    assert values[-WINDOW - 2] - values[-2] >= 0.1 * values[-2]


def test_at_a_minimum_it_stops_at_once():
    mine, sweeps, watch = minimizer()
    W = mine.minimize(start_of(sweeps), 1e-7)
    done = len(watch.history)
    np.testing.assert_array_equal(mine.minimize(W, 1e-6), W)
    assert len(watch.history) == done


def test_a_network_that_overflows_is_left_as_it_is():
    mine, sweeps, watch = minimizer()
    W = np.full(sweeps.shape, 1e200)
    np.testing.assert_array_equal(mine.minimize(W, 1e-6), W)
    assert not np.isfinite(mine.objective)
    assert watch.history == []


def test_a_quadratic_is_minimised_as_by_the_theory():
    """One linear layer: J is quadratic in W, with the ridge regression for its minimum."""
    mine, sweeps, _ = minimizer("linear", layers=1, effective_depth=0.5)
    problem = sweeps.problem
    W = mine.minimize(start_of(sweeps), 1e-10)
    X, Q, w = problem.initial_state, problem.readout, problem.width
    S = np.vstack([X, np.ones((1, X.shape[1]))])
    N, share = problem.n_samples, problem.weight_decay / (2 * problem.effective_depth)
    residual = problem.targets - 0.5 * Q @ X
    # Qᵀ(QWS − R)Sᵀ/N + share·W = 0, as a linear system in vec(W)
    system = np.kron(S @ S.T, Q.T @ Q) / N + share * np.eye(w * (w + 1))
    exact = np.linalg.solve(system, (Q.T @ residual @ S.T / N).ravel(order="F"))
    np.testing.assert_allclose(W[0], exact.reshape(w, w + 1, order="F"), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("activation", ["smooth_relu", "linear"])
def test_at_the_rounding_of_the_objective_it_ends(activation):
    """No tolerance is reached at 0; what is left falls no more, and it stops."""
    mine, sweeps, watch = minimizer(activation)
    mine.minimize(start_of(sweeps), 0.0)
    values = [record.objective for record in watch.history]
    assert values[-WINDOW] - values[-1] <= 1e-13 * abs(values[-1])
    assert len(values) < 50_000
