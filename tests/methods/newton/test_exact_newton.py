"""Exact Newton over the controls: two forms of one method, to a certified minimum."""

from functools import cache
from itertools import pairwise

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton import reduced_hessian
from hamshoot.optimality.checks import setting_of
from hamshoot.optimality.expansion import complex_step_derivatives
from hamshoot.optimality.second_order_layers import second_order
from hamshoot.problem.activations import epsilon_ladder
from hamshoot.theory import layers as discrete

STEPS = np.linspace(1, 2, 8) / 12


def smooth_problem(epsilon=0.05, **options):
    return problems.teacher("smooth_relu", samples=13, epsilon=epsilon, seed=0, **options)


@cache
def near(epsilon=0.1):
    """A point from which both forms should go to one minimum."""
    W = starting_weights(smooth_problem(), STEPS, "path", 0)
    for value in epsilon_ladder(0.5, epsilon, 0.5):
        W = exact_newton.minimise(smooth_problem(value), W, STEPS, tol=1e-3, max_iter=300).weights
    return W


def stages(form, **options):
    seen = []
    result = exact_newton.minimise(smooth_problem(**options), near(), STEPS, tol=1e-11,
                                     callback=lambda J, s: seen.append((J, s)), form=form)
    return result, np.array(seen)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [None, 5])
def test_the_assembled_hessian_is_that_of_the_complex_step(bias, block):
    problem = smooth_problem(bias=bias)
    W = starting_weights(problem, STEPS, "path", 0)
    A = discrete.roll_out(problem, W, STEPS)
    B, _ = discrete.costates(problem, A, W, STEPS)
    at = reduced_hessian.expansion(problem, A, B, W, STEPS)
    hessian, rows = reduced_hessian.second_derivatives(at, block=block)
    expected, _ = complex_step_derivatives(setting_of(problem), W, STEPS, None,
                                           np.zeros(A[:-1].shape, bool))
    np.testing.assert_allclose(problem.weight_decay * hessian, expected,
                               atol=1e-13 * np.abs(expected).max())
    assert rows.shape == (0, W.size)


@pytest.mark.parametrize("form", ["riccati", "dense"])
def test_convergence_is_quadratic_to_a_strict_local_minimum(form):
    result, seen = stages(form)
    s = seen[:, 1]
    assert s[-1] == result.stationarity <= 1e-11
    assert result.iterations == len(seen) - 1 < 40
    # Of the last steps above rounding at least one squares the error, up to a constant.
    fast = [np.log(b) / np.log(a) for a, b in pairwise(s)
            if 1e-6 < a < 1e-1]
    assert max(fast) > 1.6
    problem = smooth_problem()
    W = result.weights
    A = discrete.roll_out(problem, W, STEPS)
    _, scaled = discrete.costates(problem, A, W, STEPS)
    gradient = problem.weight_decay / problem.effective_depth * STEPS[:, None, None] * scaled
    assert np.linalg.norm(gradient) <= 1e-13
    assert second_order(problem, W, STEPS).verdict.startswith("strict local minimum")


def test_both_forms_end_at_the_same_minimiser():
    riccati, dense = stages("riccati")[0], stages("dense")[0]
    np.testing.assert_allclose(dense.weights, riccati.weights, atol=1e-10)
    assert dense.objective == pytest.approx(riccati.objective, rel=1e-13)
    assert np.abs(dense.weights - near()).max() > 1e-5  # there was something to do


def test_the_form_with_fewer_flops_is_taken():
    few = problems.teacher(samples=20, width=8)
    many = problems.teacher(samples=120, width=8)
    assert exact_newton.cheaper_form(few, 20) == "riccati"
    assert exact_newton.cheaper_form(many, 20) == "dense"
    assert exact_newton.affordable(few, 20)
    assert exact_newton.affordable(many, 20)
    wide = problems.teacher(samples=120, width=100)
    assert not exact_newton.affordable(wide, 20)
    with pytest.raises(ValueError, match="form"):
        exact_newton.minimise(smooth_problem(), near(), STEPS, form="sparse")


def test_it_leaves_a_saddle():
    """Two layers, one neuron, a negative target: equal layers end at a saddle."""
    problem = hs.TrainingProblem(np.ones((1, 1)), -np.ones((1, 1)), width=1, effective_depth=1,
                                 weight_decay=1e-2, activation="linear", bias=False)
    steps = np.full(2, 0.5)

    def J(first, second):
        W = np.array([first, second]).reshape(2, 1, 1)
        return discrete.objective(problem, discrete.roll_out(problem, W, steps)[-1], W, steps)[0]

    from scipy.optimize import minimize_scalar

    equal = minimize_scalar(lambda v: J(v, v), bracket=(-2, 0), tol=1e-12)
    W = np.full((2, 1, 1), equal.x)
    assert second_order(problem, W, steps).verdict.startswith("saddle")
    for start in (W, np.zeros((2, 1, 1))):  # at it, and where symmetry leads to it
        result = exact_newton.minimise(problem, start, steps, tol=1e-10, form="dense")
        assert result.objective < equal.fun - 0.1
        assert result.stationarity <= 1e-10
        assert second_order(problem, result.weights, steps).verdict.startswith("strict local")
