"""Sweeps with activations held on the kink: conditions, gradient and slopes against references."""

import numpy as np
import pytest
from problems import random_data

from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.dynamics.held_sweeps import HeldSweeps
from hamshoot.problem.activations import Activation
from hamshoot.theory import layers as discrete

STEPS = np.array([0.2, 0.3, 0.1, 0.25, 0.15])


def _problem(bias=True):
    return random_data("relu", sizes=(23, 4, 3), data_seed=5, width=5, effective_depth=2.5,
                       weight_decay=0.03, bias=bias)


def _controls(problem, seed=1):
    rng = np.random.default_rng(seed)
    return 1.5 * rng.standard_normal((len(STEPS), *problem.control_shape))


def _held(problem, each=2, seed=3):
    """So many entries of every neuron at three nodes; without bias at one, where a feature is."""
    held = np.zeros((len(STEPS), problem.width, problem.n_samples), bool)
    rng = np.random.default_rng(seed)
    seen = np.nonzero(problem.bias | ((problem.initial_state > 0).sum(axis=0) > 1))[0]
    for layer in (1, 2, 4) if problem.bias else (1,):
        for neuron in range(problem.width):
            held[layer, neuron, rng.choice(seen, each, replace=False)] = True
    return held


def _sweeps(problem, W, held, activation=None, dtype=np.float64):
    sweeps = HeldSweeps(problem, STEPS, activation or problem.sigma, held, dtype=dtype)
    sweeps.measure(W)
    return sweeps


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("each", [1, 2])
def test_the_entries_are_zero_in_the_network_that_comes_back(bias, each):
    problem = _problem(bias)
    W, held = 0.5 * _controls(problem), _held(problem, each)
    sweeps = _sweeps(problem, W, held)
    met = sweeps.feasible(W)
    A = discrete.roll_out(problem, met, STEPS)
    largest = np.abs(A).max()
    assert np.abs(discrete.roll_out(problem, W, STEPS)[:-1][held]).max() > 0.1
    assert np.abs(A[:-1][held]).max() < 1e-10 * largest
    np.testing.assert_allclose(met[[2, 4]], W[[2, 4]], rtol=1e-12)  # nothing is held after these
    np.testing.assert_allclose(sweeps.feasible(met), met, rtol=0, atol=1e-9 * np.abs(met).max())


def test_a_row_moves_as_little_as_the_metric_allows():
    # One layer's conditions by lstsq in the same metric.
    problem = _problem()
    W, held = _controls(problem), np.zeros((5, 5, 23), bool)
    held[1, 2, [3, 8, 20]] = True
    sweeps = _sweeps(problem, W, held)
    change = (sweeps.feasible(W) - W)[0]
    S = np.vstack([np.maximum(problem.initial_state, 0), np.ones((1, 23))])[:, [3, 8, 20]]
    A = discrete.roll_out(problem, W, STEPS)[1][2, [3, 8, 20]]
    R = sweeps._R[0]
    expected = np.linalg.lstsq((np.linalg.inv(R) @ S).T, -A / STEPS[0], rcond=None)[0]
    np.testing.assert_allclose(change[2] @ R, expected, rtol=1e-8, atol=1e-10)
    assert np.abs(np.delete(change, 2, axis=0)).max() < 1e-12


@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_is_that_of_j_as_a_function_of_what_is_left(bias):
    problem = _problem(bias)
    W, held = _controls(problem), _held(problem)
    sweeps = _sweeps(problem, W, held, Activation("smooth_relu", 0.3))
    W = sweeps.feasible(W)
    _, G = sweeps.gradient(W)
    for seed in range(3):
        V = np.random.default_rng(seed).standard_normal(W.shape)
        h = 1e-5
        slope = (sweeps.gradient(W + h * V)[0] - sweeps.gradient(W - h * V)[0]) / (2 * h)
        assert np.sum(G * V) == pytest.approx(slope, rel=1e-6)


def test_the_multipliers_are_slopes_of_the_reference():
    problem = _problem()
    W, held = _controls(problem), _held(problem)
    sweeps = _sweeps(problem, W, held)
    J, G = sweeps.gradient(W)
    survey, met = sweeps.survey(), sweeps.weights
    A = discrete.roll_out(problem, met, STEPS)
    slopes = np.where(held, survey.slopes, problem.sigma.slope(A[:-1]))
    momenta, scaled = discrete.costates(problem, A, met, STEPS, slopes=slopes)
    share = problem.weight_decay / problem.effective_depth * STEPS[:, None, None]
    np.testing.assert_allclose(G, share * scaled, atol=1e-10 * np.abs(G).max())
    assert pytest.approx(discrete.objective_of(problem, met, STEPS), rel=1e-12) == J
    force = -problem.weight_decay * discrete.pulled(met, STEPS, momenta)
    np.testing.assert_allclose(survey.force, force, atol=1e-10 * np.abs(force).max())


def test_with_nothing_held_they_are_the_block_sweeps():
    problem = _problem()
    W = _controls(problem)
    none = np.zeros((5, 5, 23), bool)
    for sigma in (problem.sigma, Activation("smooth_relu", 0.1)):
        J, G = HeldSweeps(problem, STEPS, sigma, none).gradient(W)
        J_block, G_block = BlockSweeps(problem, STEPS, sigma).gradient(W)
        assert pytest.approx(J_block, rel=1e-13) == J
        np.testing.assert_allclose(G, G_block, atol=1e-12 * np.abs(G).max())


def test_single_precision_is_close():
    problem = _problem()
    W, held = _controls(problem), _held(problem)
    J, G = _sweeps(problem, W, held).gradient(W)
    J_single, G_single = _sweeps(problem, W, held, dtype=np.float32).gradient(W)
    assert pytest.approx(J, rel=1e-4) == J_single
    np.testing.assert_allclose(G_single, G, atol=1e-2 * np.abs(G).max())


def test_an_entry_that_no_control_reaches_moves_nothing():
    problem = _problem(bias=False)
    dark = int(np.argmin((problem.initial_state > 0).sum(axis=0)))
    problem = problem.replace(X=np.where(np.arange(23)[:, None] == dark, 0.0, problem.X))
    W, held = _controls(problem), np.zeros((5, 5, 23), bool)
    held[1, 2, dark] = True
    np.testing.assert_allclose(_sweeps(problem, W, held).feasible(W), W, rtol=1e-12)


def test_a_network_that_overflows_has_no_metric():
    problem = _problem()
    sweeps = HeldSweeps(problem, STEPS, problem.sigma, _held(problem))
    with pytest.raises(FloatingPointError, match="overflows"), np.errstate(all="ignore"):
        sweeps.measure(1e200 * _controls(problem))


def test_what_cannot_be_held_is_refused():
    problem = _problem()
    sweeps = _sweeps(problem, _controls(problem), _held(problem))
    too_many, first = np.zeros((2, 5, 5, 23), bool)
    too_many[2, 1, :6] = True
    first[0, 0, 0] = True
    with pytest.raises(ValueError, match="fewer than 6 entries"):
        sweeps.hold(too_many)
    with pytest.raises(ValueError, match="none at the first node"):
        sweeps.hold(first)
    with pytest.raises(ValueError, match="expected shape"):
        sweeps.hold(too_many[:, :4])
    with pytest.raises(ValueError, match="W: expected shape"):
        sweeps.gradient(np.zeros((5, 5, 5)))
