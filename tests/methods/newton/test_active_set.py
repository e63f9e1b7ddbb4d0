"""The polish reaches exact optima of ReLU networks, and says so when it does not."""

from functools import cache

import numpy as np
import pytest
from problems import teacher
from scipy.linalg import null_space

from hamshoot.methods.common.kept import Midway
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.active_set import (
    ActiveSet,
    _follow_events,
    _whole_rounds,
    affordable,
    polish,
)
from hamshoot.methods.newton.kkt import convexified, solve_kkt
from hamshoot.optimality.checks import setting_of
from hamshoot.optimality.expansion import complex_step_derivatives
from hamshoot.optimality.second_order_layers import second_order
from hamshoot.problem.activations import epsilon_ladder
from hamshoot.theory import layers as discrete
from hamshoot.theory.clarke import clarke_residual

STEPS = np.full(8, 1 / 8)


@cache
def smoothed(seed=1, start_seed=0, last=2e-4, bias=True, activation="relu"):
    """A stationary point of the network smoothed with ε = last."""
    problem = teacher(activation, seed=seed, bias=bias)
    W = starting_weights(problem, STEPS, "path", start_seed)
    for epsilon in epsilon_ladder(0.1, last, 0.5):
        smooth = problem.replace(activation=problem.sigma.smoothed(epsilon))
        W = exact_newton.minimise(smooth, W, STEPS, tol=1e-8, max_iter=200).weights
    return problem, W


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("seed", "activation"), [
    *((seed, "relu") for seed in (0, 1, 2)), *((seed, "leaky_relu") for seed in (0, 1))])
def test_it_ends_at_a_strict_local_minimum_of_the_relu_network(seed, bias, activation):
    problem, W = smoothed(seed, bias=bias, activation=activation)
    before = discrete.objective(problem, discrete.roll_out(problem, W, STEPS)[-1], W, STEPS)[0]
    polished = polish(problem, W, STEPS, 2e-4)
    assert polished.settled
    assert polished.held > 0
    assert polished.objective < before
    A = discrete.roll_out(problem, polished.weights, STEPS)
    clarke = clarke_residual(problem, A, polished.weights, STEPS)
    assert clarke.residual < 1e-12
    assert clarke.on_kink.sum() == polished.held
    verdict = second_order(problem, polished.weights, STEPS)
    assert verdict.verdict.startswith("strict local minimum")
    low, high = verdict.multipliers
    least = problem.sigma.negative_slope
    assert least - 1e-9 <= low <= high <= 1 + 1e-9


def test_different_epsilon_lead_to_the_same_optimum():
    problem, W = smoothed(0)
    coarse = smoothed(0, last=8e-4)[1]
    first, second = polish(problem, W, STEPS, 2e-4), polish(problem, coarse, STEPS, 8e-4)
    assert first.settled
    assert second.settled
    np.testing.assert_allclose(first.weights, second.weights, atol=1e-9)
    assert np.abs(coarse - first.weights).max() > 1e-4  # there was something to do


@pytest.mark.parametrize("seed", [0, 1, 3, 6])
def test_following_events_suffices_with_entries_that_change_sides(seed):
    problem, W = smoothed(seed, last=3e-3)
    state = ActiveSet(problem, W.copy(), STEPS, 3e-3)
    done, iterations = _follow_events(state, {}, 0, 1e-11, 40, lambda: None, Midway())
    assert done
    assert iterations < 25
    assert state.changes.any()  # otherwise there were no events to follow


def test_neurons_that_are_never_switched_on_leave_the_system():
    """Wider than the data: the optimum rests some neurons, with more entries at 0 than controls."""
    problem = teacher(dims=(2, 1, 2), samples=16, width=5, weight_decay=0.05, seed=0)
    W = starting_weights(problem, STEPS, "path", 0)
    for epsilon in epsilon_ladder(0.1, 1e-4, 0.5):
        smooth = problem.replace(activation="smooth_relu", epsilon=epsilon)
        W = exact_newton.minimise(smooth, W, STEPS, tol=1e-8, max_iter=200).weights
    polished = polish(problem, W, STEPS, 1e-4)
    assert polished.settled
    A = discrete.roll_out(problem, polished.weights, STEPS)
    idle = ~np.any(A[1:-1], axis=(0, 2))
    assert idle.any()
    assert not np.any(polished.weights[:-1, idle])
    assert second_order(problem, polished.weights, STEPS).verdict.startswith("strict local minimum")


@pytest.mark.parametrize(("seed", "activation"), [
    (0, "relu"), (2, "relu"), (0, "leaky_relu")])
def test_whole_rounds_reach_the_same_optimum(seed, activation):
    """What the polish falls back to when following events cycles."""
    problem, W = smoothed(seed, activation=activation)
    state = ActiveSet(problem, W.copy(), STEPS, 2e-4)
    done, _ = _whole_rounds(state, None, 0, 1e-11, 60, lambda: None, Midway())
    assert done
    np.testing.assert_allclose(state.W, polish(problem, W, STEPS, 2e-4).weights, atol=1e-9)


def test_a_saddle_is_made_convex_only_where_the_constraints_leave_freedom():
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    hessian = Q @ np.diag([-1.0, 2.0, 3.0, 1.0, 0.5, 2.0]) @ Q.T
    held = Q[:, :1].T  # the constraint forbids the one direction of descent
    kept, shifted = hessian.copy(), hessian.copy()
    convexified(kept, held, 1e5)
    np.testing.assert_array_equal(kept, hessian)
    convexified(shifted, Q[:, 1:2].T, 1e5)
    assert np.linalg.eigvalsh(shifted)[0] > 0
    moved = shifted - hessian
    np.testing.assert_allclose(moved, moved[0, 0] * np.eye(6), atol=1e-14)


@pytest.mark.parametrize("dependent", [False, True])
def test_the_factorised_kkt_solve_is_that_of_the_whole_matrix(dependent):
    rng = np.random.default_rng(0)
    root = rng.standard_normal((30, 30))
    hessian, C = root @ root.T + 1e-3 * np.eye(30), rng.standard_normal((8, 30))
    C = np.concatenate([C, C[:2] + C[3:5]]) if dependent else C
    right, change = rng.standard_normal(30), C @ rng.standard_normal(30)
    x, m = solve_kkt(hessian.copy(), C, right, change)
    k = len(C)
    whole = np.block([[hessian, -C.T], [C, np.zeros((k, k))]])
    expected = np.linalg.lstsq(whole, np.concatenate([right, change]), rcond=1e-12)[0]
    np.testing.assert_allclose(x, expected[:30], atol=1e-8 * np.abs(expected[:30]).max())
    np.testing.assert_allclose(C.T @ m, C.T @ expected[30:],
                               atol=1e-8 * np.abs(C.T @ expected[30:]).max())


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_the_kkt_blocks_are_those_of_the_reference(activation):
    problem, W = smoothed(0, activation=activation)
    low = problem.sigma.negative_slope
    polished = polish(problem, W, STEPS, 2e-4)
    A = discrete.roll_out(problem, polished.weights, STEPS)
    clarke = clarke_residual(problem, A, polished.weights, STEPS)
    momenta, _ = discrete.costates(problem, A, polished.weights, STEPS, slopes=clarke.slopes)
    state = ActiveSet(problem, polished.weights, STEPS, 1e-7)
    np.testing.assert_array_equal(state.held, clarke.on_kink)
    pull = STEPS[:, None, None] * np.swapaxes(polished.weights[:, :, :4], 1, 2) @ momenta[1:]
    state.m = np.where(state.held, (clarke.slopes - low) * pull, 0.0)
    state.now = state.sweep(state.W, state.m)
    np.testing.assert_allclose(state.now.B, momenta, atol=1e-10 * np.abs(momenta).max())
    hessian, constraints = state._kkt_blocks()
    setting, slopes = setting_of(problem), clarke.slopes
    _, rows = complex_step_derivatives(setting, polished.weights, STEPS,
                                       np.where(clarke.on_kink, low, slopes), clarke.on_kink)
    expected, _ = complex_step_derivatives(setting, polished.weights, STEPS, slopes,
                                           clarke.on_kink)
    np.testing.assert_allclose(constraints, rows, atol=1e-13)
    # One holds the entries by multipliers, one lets them go with slope d: alike where they stay.
    free = null_space(rows)
    np.testing.assert_allclose(problem.weight_decay * free.T @ hessian @ free,
                               free.T @ expected @ free, atol=1e-10 * np.abs(expected).max())


def test_a_point_far_from_stationary_is_not_called_settled():
    problem = teacher()
    W = starting_weights(problem, STEPS, "identity", 0)
    polished = polish(problem, W, STEPS, 1e-3, max_iter=6)
    assert not polished.settled
    assert polished.iterations <= 6
    assert np.all(np.isfinite(polished.weights))


@pytest.mark.parametrize(("changes", "says"), [
    ({"activation": "linear"}, "activation"),
    ({"activation": "smooth_relu", "epsilon": 0.1}, "activation"),
    ({"endpoint": np.ones((4, 12))}, "problem"),
])
def test_what_has_no_kink_or_no_loss_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        polish(teacher().replace(**changes), np.zeros((8, 4, 5)), STEPS, 1e-3)
    with pytest.raises(ValueError, match="controls"):
        polish(teacher(), np.zeros((400, 4, 5)), np.full(400, 1 / 400), 1e-3)


def test_the_limits_are_those_of_the_dense_system_and_of_the_activations():
    def fits(width, samples, layers=20, **changes):
        problem = teacher(dims=(4, 2, 4), samples=samples, width=width)
        return affordable(problem.replace(**changes), layers)

    assert fits(13, 142)
    assert fits(18, 60)
    assert not fits(19, 60)
    assert fits(8, 1200)
    assert not fits(8, 1300)
    assert not fits(8, 50, activation="linear")


@pytest.mark.slow
def test_a_network_of_1440_controls_is_certified_down_the_ladder_and_on_its_kinks():
    """(w, N, L) = (8, 50, 20), L̃ = 3: about ten seconds by exact Newton from the start on."""
    problem = teacher(samples=50, width=8, seed=0)
    steps = np.full(20, 1 / 20)
    W = starting_weights(problem, steps, "path", 0)
    for epsilon in epsilon_ladder(0.5, 2e-4, 0.5):
        smooth = problem.replace(activation="smooth_relu", epsilon=epsilon)
        W = exact_newton.minimise(smooth, W, steps, tol=1e-8, max_iter=200).weights
        A = discrete.roll_out(smooth, W, steps)
        _, scaled = discrete.costates(smooth, A, W, steps)
        gradient = problem.weight_decay / problem.effective_depth * steps[:, None, None] * scaled
        assert np.linalg.norm(gradient) <= 1e-10
    assert second_order(smooth, W, steps).verdict.startswith("strict local minimum")
    polished = polish(problem, W, steps, 2e-4)
    assert polished.settled
    assert polished.held > 50
    clarke = clarke_residual(
        problem, discrete.roll_out(problem, polished.weights, steps), polished.weights, steps)
    assert clarke.residual <= 1e-12
    verdict = second_order(problem, polished.weights, steps)
    assert verdict.verdict.startswith("strict local minimum of the ReLU network")
    assert verdict.min_eigenvalue > 1e-8


def test_a_step_looks_at_the_clock_before_each_factorisation():
    problem = teacher()
    W = np.random.default_rng(0).standard_normal((6, *problem.control_shape))

    class Late(Exception):
        pass

    looks = []

    def look():
        looks.append(1)
        raise Late

    with pytest.raises(Late):
        polish(problem, W, np.full(6, 1 / 6), 1e-3, look=look)
    assert looks == [1]
