"""Minimal residuals over the last iterates: GMRES on a quadratic, restarts, what is returned."""

from types import SimpleNamespace

import numpy as np
import problems
import pytest

from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.single_shooting.kronecker import KroneckerLBFGS
from hamshoot.methods.single_shooting.minimal_residual import MinimalResidual
from hamshoot.methods.single_shooting.optimizer import Ended


def function_of(gradient, size, kind=np.float64):
    """A function of (1, 1, n) controls, as an optimiser sees it."""
    def value(W):
        x = np.asarray(W, float).ravel()
        J, g = gradient(x)
        return J, g.reshape(W.shape)

    return SimpleNamespace(
        gradient=value, shape=(1, 1, size), steps=np.ones(1), dtype=np.dtype(kind),
        stationarity=lambda W, G: float(np.linalg.norm(G)))


def quadratic(size=30, smallest=1e-2):
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((size, size)))[0]
    H, b = Q @ np.diag(np.geomspace(smallest, 1.0, size)) @ Q.T, rng.standard_normal(size)
    return H, b, lambda x: (0.5 * x @ H @ x - b @ x, H @ x - b)


def test_on_a_quadratic_it_is_gmres():
    H, b, f = quadratic()
    beta, krylov, g = 0.7, [], -b
    for _ in range(8):  # least ‖g + Hz‖ over the Krylov space of dimension 8, by least squares
        krylov.append(g)
        g = H @ g
    K = np.linalg.qr(np.array(krylov).T)[0]
    least = -b - H @ K @ np.linalg.lstsq(H @ K, -b, rcond=None)[0]
    optimizer = MinimalResidual(function_of(f, 30), step=beta)
    optimizer.minimise(np.zeros((1, 1, 30)), 9)
    expected = np.linalg.norm(least - beta * H @ least)
    assert optimizer.gradient_norm == pytest.approx(expected, rel=1e-4)


def test_a_window_shorter_than_the_space_still_converges():
    H, b, f = quadratic()
    optimizer = MinimalResidual(function_of(f, 30), memory=10)
    end = optimizer.minimise(np.zeros((1, 1, 30)), 400, tol=1e-8)
    assert optimizer.ended is Ended.TOLERANCE
    np.testing.assert_allclose(end.ravel(), np.linalg.solve(H, b), rtol=1e-5)


def test_a_step_that_is_too_long_is_shortened_and_the_least_gradient_comes_back():
    def walled(x):  # a wall of curvature 1e4 beyond 1 in every direction
        beyond = np.maximum(np.abs(x) - 1, 0) * np.sign(x)
        return 0.5 * x @ x + 5e3 * beyond @ beyond, x - 0.5 + 1e4 * beyond

    optimizer = MinimalResidual(function_of(walled, 4), step=50.0)
    norms = []
    start = np.full((1, 1, 4), -0.9) + 0.1 * np.arange(4)
    end = optimizer.minimise(start, 60, tol=1e-9, callback=lambda J, s: norms.append(s))
    assert optimizer.step < 50.0
    assert np.all(np.diff(norms) <= 0)
    np.testing.assert_allclose(end.ravel(), 0.5, atol=1e-8)


def test_where_no_step_helps_it_is_stuck():
    optimizer = MinimalResidual(function_of(lambda x: (np.nan, np.full_like(x, np.nan))
                                            if np.any(x != 0) else (0.0, np.ones_like(x)), 3),
                                step=1.0)
    end = optimizer.minimise(np.zeros((1, 1, 3)), 100)
    assert optimizer.ended is Ended.STUCK
    assert not end.any()


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_the_gradient_of_a_network_falls_whatever_the_steps(kind):
    problem = problems.teacher("smooth_relu", dims=(4, 2, 4), samples=40, width=5,
                               weight_decay=0.03, epsilon=0.3)
    steps = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    sweeps = BlockSweeps(problem, steps, dtype=kind)
    lower = KroneckerLBFGS(BlockSweeps(problem, steps))
    start = lower.minimise(starting_weights(problem, steps, "path", 0), 100)
    optimizer = MinimalResidual(sweeps)
    end = optimizer.minimise(start, 150)
    J, G = BlockSweeps(problem, steps).gradient(end)
    assert np.linalg.norm(G) < 0.1 * lower.gradient_norm
    assert optimizer.gradient_norm == pytest.approx(np.linalg.norm(G), rel=2e-2)
    assert pytest.approx(J, rel=1e-5) == optimizer.objective
