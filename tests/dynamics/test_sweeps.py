"""`EulerSweeps`: the compiled sweeps are the reference, number for number, and hide nothing."""

from functools import partial

import numpy as np
import problems
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamshoot.dynamics.sweeps import THREADED_WIDTH, EulerSweeps, blas_threads
from hamshoot.network.layer_steps import irregular_steps
from hamshoot.problem.activations import Activation
from hamshoot.theory import layers as discrete

STEPS = np.array([0.1, 0.3, 0.2, 0.15, 0.25])
ACTIVATIONS = problems.ACTIVATIONS

teacher = partial(problems.teacher, activation="smooth_relu", samples=7, effective_depth=2.5,
                  weight_decay=0.03, seed=0)


def controls(problem, layers=5, seed=0):
    rng = np.random.default_rng(seed)
    return 2.0 * rng.standard_normal((layers, *problem.control_shape))


def assert_equal_to_the_reference(problem, steps, W):
    """Everything a sweep hands out, relative to the size of its array, to 1e-12."""
    sweeps = EulerSweeps(problem, steps)
    A = discrete.roll_out(problem, W, steps)
    J = discrete.objective(problem, A[-1], W, steps)[0]
    B, scaled = discrete.costates(problem, A, W, steps)
    gradient = problem.weight_decay / problem.effective_depth * steps[:, None, None] * scaled

    def assert_close(mine, reference):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-12 * np.abs(reference).max())

    assert sweeps.objective(W) == pytest.approx(J, rel=1e-12)
    value, mine = sweeps.gradient(W)
    assert value == pytest.approx(J, rel=1e-12)
    assert_close(mine, gradient)
    assert_close(sweeps.representations, A)
    assert_close(sweeps.momenta, B[1:])
    assert sweeps.stationarity(W) == pytest.approx(discrete.stationarity(W, scaled), rel=1e-12)
    assert sweeps.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12)


@pytest.mark.parametrize("width", [3, 4, 6])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_sweeps_equal_the_reference(activation, bias, width):
    problem = teacher(activation=activation, dims=(4, 2, 4), width=width, bias=bias)
    assert_equal_to_the_reference(problem, STEPS, controls(problem))


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    width=st.integers(1, 7), samples=st.integers(2, 12), data=st.integers(1, 5),
    layers=st.integers(1, 9), bias=st.booleans(), activation=st.sampled_from(ACTIVATIONS),
    seed=st.integers(0, 1000),
)
def test_sweeps_equal_the_reference_for_any_shape(
    width, samples, data, layers, bias, activation, seed
):
    problem = teacher(activation=activation, dims=(data, 2, data), samples=samples, width=width,
                      bias=bias, seed=seed)
    W = controls(problem, layers, seed)
    assert_equal_to_the_reference(problem, irregular_steps(layers), W)


def test_another_activation_stands_in_for_the_problems():
    problem = teacher(activation="relu")
    smooth = problem.replace(activation="smooth_relu", epsilon=0.3)
    W = controls(problem)
    sweeps = EulerSweeps(problem, STEPS, Activation("smooth_relu", 0.3))
    expected, gradient = EulerSweeps(smooth, STEPS).gradient(W)
    assert sweeps.gradient(W)[0] == expected
    np.testing.assert_array_equal(sweeps.gradient(W)[1], gradient)
    sweeps.activation = problem.sigma
    assert sweeps.objective(W) == EulerSweeps(problem, STEPS).objective(W) != expected


@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_is_the_complex_step_of_the_objective(bias):
    """J continued analytically, written out once more: no sign of the adjoint can hide."""
    problem, h = teacher(bias=bias), 1e-30
    W = controls(problem)
    _, gradient = EulerSweeps(problem, STEPS).gradient(W)
    rng = np.random.default_rng(1)
    for _ in range(5):
        V = rng.standard_normal(W.shape)
        Z, A = W + 1j * h * V, problem.initial_state.astype(complex)
        for rho, layer in zip(STEPS, Z, strict=True):
            S = problem.sigma(A)
            if bias:
                S = np.concatenate([S, np.ones((1, S.shape[1]))])
            A = A + rho * (layer @ S - 2.5 * A)
        error = problem.readout @ A - problem.targets
        J = np.sum(error**2) / 7 + 0.03 / 5.0 * np.sum(STEPS[:, None, None] * Z**2)
        assert np.sum(gradient * V) == pytest.approx(J.imag / h, rel=1e-12)


def test_the_momenta_take_the_controls_to_stationarity():
    """(L̃/(λρ)) ∂J/∂W = W − L̃Bσ̂(A)ᵀ, with what the sweeps hold."""
    problem = teacher()
    W, sweeps = controls(problem), EulerSweeps(problem, STEPS)
    _, gradient = sweeps.gradient(W)
    S = problem.sigma(sweeps.representations[:-1])
    S = np.concatenate([S, np.ones((5, 1, 7))], axis=1)
    scaled = 2.5 / (0.03 * STEPS[:, None, None]) * gradient
    np.testing.assert_allclose(W - 2.5 * sweeps.momenta @ np.swapaxes(S, 1, 2), scaled, rtol=0,
                               atol=1e-12 * np.abs(scaled).max())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_numbers_that_are_not_finite_stay_visible(activation, bad):
    problem = teacher(activation=activation)
    W, sweeps = controls(problem), EulerSweeps(problem, STEPS)
    W[1, 2, 0] = bad
    with np.errstate(all="ignore"):
        assert not np.isfinite(sweeps.objective(W))
        value, gradient = sweeps.gradient(W)
    assert not np.isfinite(value)
    assert not np.all(np.isfinite(gradient))


def test_the_workspace_forgets_a_bad_iterate():
    problem = teacher()
    W, sweeps = controls(problem), EulerSweeps(problem, STEPS)
    value, gradient = sweeps.gradient(W)
    gradient = gradient.copy()
    with np.errstate(all="ignore"):
        sweeps.gradient(np.full_like(W, np.nan))
    again, after = sweeps.gradient(W)
    assert again == value
    np.testing.assert_array_equal(after, gradient)


def test_the_controls_are_left_alone_and_the_sweeps_are_counted():
    problem = teacher()
    W = controls(problem)
    kept, sweeps = W.copy(), EulerSweeps(problem, STEPS)
    sweeps.objective(W)
    sweeps.gradient(W)
    sweeps.gradient(W)
    np.testing.assert_array_equal(W, kept)
    assert sweeps.evaluations == 3
    assert sweeps.layers == 5
    assert sweeps.shape == (5, 4, 5)


def test_controls_in_any_memory_order():
    problem = teacher()
    W, sweeps = controls(problem), EulerSweeps(problem, STEPS)
    assert sweeps.objective(np.asfortranarray(W)) == sweeps.objective(W)
    twice = np.repeat(W, 2, axis=0)
    assert sweeps.objective(twice[::2]) == sweeps.objective(W)


# -- steps -----------------------------------------------------------------------------------------


def test_steps_can_be_changed():
    problem = teacher()
    W, sweeps = controls(problem), EulerSweeps(problem, np.full(5, 0.2))
    before = sweeps.objective(W)
    sweeps.steps = STEPS
    np.testing.assert_array_equal(sweeps.steps, STEPS)
    assert sweeps.objective(W) == EulerSweeps(problem, STEPS).objective(W) != before


def test_steps_are_a_copy():
    steps = STEPS.copy()
    sweeps = EulerSweeps(teacher(), steps)
    steps[0] = 0.9
    np.testing.assert_array_equal(sweeps.steps, STEPS)


@pytest.mark.parametrize("steps", [
    [], [[0.5, 0.5]], 0.5, [0.5, 0.0], [1.5, -0.5], [np.nan, 0.5], [np.inf, 0.5],
])
def test_steps_that_are_none(steps):
    with pytest.raises(ValueError, match="steps: expected a vector"):
        EulerSweeps(teacher(), steps)


def test_a_changed_number_of_steps_needs_other_sweeps():
    sweeps = EulerSweeps(teacher(), STEPS)
    with pytest.raises(ValueError, match="steps: expected 5 of them, got 4"):
        sweeps.steps = np.full(4, 0.25)
    np.testing.assert_array_equal(sweeps.steps, STEPS)


@pytest.mark.parametrize("shape", [(4, 4, 5), (5, 4, 4), (5, 5, 4), (4, 5), (5, 4, 5, 1)])
@pytest.mark.parametrize("name", ["objective", "gradient"])
def test_controls_of_another_shape(name, shape):
    sweeps = EulerSweeps(teacher(), STEPS)
    with pytest.raises(ValueError, match=r"W: expected controls of shape \(5, 4, 5\)"):
        getattr(sweeps, name)(np.zeros(shape))


def test_a_hard_endpoint_has_no_objective_of_the_controls():
    problem = teacher(endpoint=np.ones((4, 7)))
    with pytest.raises(ValueError, match="hard endpoint"):
        EulerSweeps(problem, STEPS)


# -- threads ---------------------------------------------------------------------------------------


def blas_thread_counts():
    from threadpoolctl import threadpool_info

    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_narrow_networks_take_one_blas_thread_and_give_the_others_back():
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_thread_counts()
        with blas_threads(teacher()):
            assert set(blas_thread_counts()) == {1}
        assert blas_thread_counts() == before


def test_wide_networks_keep_the_threads_there_are():
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_thread_counts()
        with blas_threads(teacher(dims=(4, 2, 4), width=THREADED_WIDTH, samples=2)):
            assert blas_thread_counts() == before
