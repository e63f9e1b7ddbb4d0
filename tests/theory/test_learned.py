"""Learned lift and readout: formulas against CasADi, differences and closed identities."""

from functools import cache

import casadi as ca
import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.optimize import minimize

import hamshoot as hs
from hamshoot.dynamics.learned_sweeps import LearnedSweeps
from hamshoot.methods.newton.learned_hessian import joint_second_derivatives
from hamshoot.methods.newton.reduced_hessian import expansion
from hamshoot.optimality import formulas
from hamshoot.optimality import learned as own
from hamshoot.optimality.checks import setting_of
from hamshoot.theory import layers as discrete
from hamshoot.theory import learned

LAYERS, N = 4, 6
STEPS = np.array([0.2, 0.3, 0.3, 0.2])
BOTH = {"lift_decay": 0.03, "readout_decay": 0.02}
DECAYS = ({"lift_decay": 0.03}, {"readout_decay": 0.02}, BOTH)
LOSSES = ({}, {"loss": "huber", "huber_delta": 0.3}, {"sample_weights": np.linspace(0.5, 2, N)})


def problem_of(activation="tanh", **more):
    """Five inputs and four outputs around three neurons: P takes two layers of a stack."""
    rng = np.random.default_rng(3)
    return hs.TrainingProblem(rng.standard_normal((N, 5)), rng.standard_normal((N, 4)), **{
        "effective_depth": 1.5, "weight_decay": 2e-2, "width": 3, "activation": activation, **more})


def controls(problem):
    return 1.5 * np.random.default_rng(4).standard_normal((LAYERS, *problem.control_shape))


def vector_at(problem, W):
    return learned.flat(problem, W, problem.lift, problem.readout)


def by_casadi(problem, x):
    """J and its gradient in (W, P, Q), written anew and differentiated by CasADi."""
    w, c = problem.control_shape
    z, at, J = ca.SX.sym("x", len(x)), 0, 0

    def matrix(rows, columns):
        nonlocal at
        at += rows * columns
        return ca.reshape(z[at - rows * columns : at], columns, rows).T

    weights = [matrix(w, c) for _ in range(LAYERS)]
    P, Q = ca.DM(problem.lift), ca.DM(problem.readout)
    if problem.lift_decay:
        P = matrix(w, problem.d_in)
        J += problem.lift_decay / 2 * ca.sumsqr(P)
    if problem.readout_decay:
        Q = matrix(problem.d_out, w)
        J += problem.readout_decay / 2 * ca.sumsqr(Q)
    A = P @ ca.DM(np.array(problem.X).T)
    for W, rho in zip(weights, STEPS, strict=True):
        S = ca.vertcat(ca.tanh(A), ca.DM.ones(1, N)) if problem.bias else ca.tanh(A)
        A = (1 - rho * problem.effective_depth) * A + rho * W @ S
        J += problem.weight_decay / (2 * problem.effective_depth) * rho * ca.sumsqr(W)
    r = Q @ A - ca.DM(np.array(problem.Y).T)
    each = r**2
    if problem.criterion.delta:
        size, delta = ca.fabs(r), problem.criterion.delta
        each = ca.if_else(size <= delta, r**2, 2 * delta * size - delta**2)
    weights = problem.sample_weights if problem.sample_weights is not None else np.ones(N)
    J += ca.sum2(ca.sum1(each) * ca.DM(weights[None])) / N
    value, gradient = ca.Function("J", [z], [J, ca.gradient(J, z)])(x)
    return float(value), gradient.full().ravel()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("loss", LOSSES, ids=["squared", "huber", "weighted"])
@pytest.mark.parametrize("decays", DECAYS, ids=["lift", "readout", "both"])
def test_all_gradients_are_casadis(decays, loss, bias):
    problem = problem_of(**decays, **loss, bias=bias)
    W = controls(problem)
    stack = learned.stacked(problem, W)
    J, exact = by_casadi(problem, vector_at(problem, W))
    near = dict(rtol=0, atol=1e-13 * max(1, np.abs(exact).max()))
    # reference
    assert learned.objective_of(problem, stack, STEPS) == pytest.approx(J, rel=1e-13)
    A, B, scaled = learned.scaled_gradient(problem, stack, STEPS)
    gradient = problem.weight_decay * learned.flat_weights(problem, STEPS) * learned.flat(
        problem, *learned.parts_of(problem, scaled))
    np.testing.assert_allclose(gradient, exact, **near)
    # compiled
    sweeps = LearnedSweeps(problem, STEPS)
    value, G = sweeps.gradient(stack)
    assert (value, sweeps.objective(stack)) == pytest.approx((J, J), rel=1e-13)
    np.testing.assert_allclose(learned.flat(problem, *learned.parts_of(problem, G)), exact, **near)
    assert not G[~learned.stacked_entries(problem, LAYERS)].any()
    # certificate
    setting = setting_of(problem)
    A = formulas.roll_out(setting, W, STEPS)
    B, G = formulas.costates(setting, A, W, STEPS)
    assert float(formulas.objective(setting, A[-1], W, STEPS)[0]) == pytest.approx(J, rel=1e-13)
    np.testing.assert_allclose(own.slopes(setting, STEPS, G, A[-1], B[0]), exact, **near)


@pytest.mark.parametrize("decays", DECAYS, ids=["lift", "readout", "both"])
@pytest.mark.parametrize("activation", ["tanh", "smooth_relu", "relu"])
def test_second_derivatives_are_those_of_complex_steps(activation, decays):
    problem = problem_of(activation, **decays)
    W, rng = controls(problem), np.random.default_rng(0)
    setting, pattern = setting_of(problem), None
    if activation == "relu":
        pattern = (rng.random((LAYERS, 3, N)) < 0.5).astype(float)
    entries = rng.random((LAYERS, 3, N)) < 0.3
    A = formulas.roll_out(setting, W, STEPS, pattern=pattern)
    B, _ = formulas.costates(setting, A, W, STEPS, slopes=pattern, pattern=pattern)
    H, rows = joint_second_derivatives(
        problem, expansion(problem, A, B, W, STEPS, pattern), A, entries)
    exact, moved = own.complex_step_derivatives(setting, W, STEPS, pattern, entries)
    np.testing.assert_allclose(problem.weight_decay * H, exact, rtol=0,
                               atol=1e-12 * np.abs(exact).max())
    np.testing.assert_allclose(rows, moved, rtol=0, atol=1e-13 * max(1, np.abs(moved).max()))
    # and these of differences of the gradients
    x, h = vector_at(problem, W), 1e-6
    v = rng.standard_normal(len(x))
    if pattern is None:
        def gradient(x):
            W, P, Q = learned.unflat(problem, x)
            at = problem.with_maps(P, Q)
            G = learned.scaled_gradient(at, learned.stacked(at, W), STEPS)[2]
            return problem.weight_decay * learned.flat_weights(at, STEPS) * learned.flat(
                at, *learned.parts_of(at, G))
        slope = (gradient(x + h * v) - gradient(x - h * v)) / (2 * h)
        np.testing.assert_allclose(exact @ v, slope, rtol=0, atol=1e-6 * np.abs(slope).max())


@pytest.mark.parametrize("decays", DECAYS, ids=["lift", "readout", "both"])
def test_stacks_give_back_what_they_hold_and_cost_what_it_costs(decays):
    problem = problem_of(**decays)
    W = controls(problem)
    stack = learned.stacked(problem, W)
    held, P, Q = learned.parts_of(problem, stack)
    for found, given in ((held, W), (P, problem.lift), (Q, problem.readout)):
        np.testing.assert_array_equal(found, given)
    rho = learned.stacked_steps(problem, STEPS)
    layers_cost = problem.weight_decay / (2 * problem.effective_depth) * np.sum(
        rho * np.sum(stack**2, axis=(1, 2)))
    plain = problem.weight_decay / (2 * problem.effective_depth) * np.sum(
        STEPS * np.sum(W**2, axis=(1, 2)))
    assert layers_cost == pytest.approx(plain + problem.map_decay, rel=1e-14)
    assert learned.stacked_entries(problem, LAYERS).sum() == learned.count(problem, LAYERS)


@cache
def geodesic(activation, bias):
    problem = hs.teacher_problem(
        (3, 1, 3), 6, width=3, effective_depth=1.5, weight_decay=2e-2, seed=2, bias=bias,
        activation=activation, lift_decay=0.02, readout_decay=0.03, test_samples=0)
    return hs.solve(problem, hs.IndirectShooting(layers=12))


@pytest.mark.parametrize("bias", [True, False])
def test_lift_and_readout_of_a_linear_geodesic_are_balanced_up_to_the_bias(bias):
    path = geodesic("linear", bias)
    assert path.success
    problem = path.problem
    apart = problem.readout_decay * np.sum(problem.readout**2) \
        - problem.lift_decay * np.sum(problem.lift**2)
    b = path.weights[:, :, 3:]
    squares = np.sum(b**2, axis=(1, 2))
    biases = problem.weight_decay / problem.effective_depth * trapezoid(squares, path.p)
    size = problem.map_decay
    assert apart == pytest.approx(learned.imbalance(problem, path.representations, path.momenta),
                                  abs=1e-8 * size)
    assert apart == pytest.approx(biases, abs=1e-3 * size)
    if not bias:
        assert abs(apart) < 1e-8 * size


def test_one_neuron_is_the_minimum_of_a_function_of_three_numbers():
    """Continuous, w = N = 1, linear: the least ∫W² between a_0 and a_1 is (L̃ + ln(a_1/a_0))²."""
    decay, leak, mu, nu, x, y = 0.05, 1.5, 0.02, 0.04, 0.8, 1.3
    problem = hs.TrainingProblem([[x]], [[y]], effective_depth=leak, width=1, weight_decay=decay,
                                 activation="linear", bias=False, lift_decay=mu, readout_decay=nu)

    def J(v):
        p, a, q = v
        return (q * a - y) ** 2 + decay / (2 * leak) * (leak + np.log(a / (p * x))) ** 2 \
            + mu / 2 * p**2 + nu / 2 * q**2

    best = minimize(J, [1.0, 1.0, 1.0], method="Nelder-Mead",
                    options={"xatol": 1e-12, "fatol": 1e-15, "maxiter": 10_000})
    path = hs.solve(problem, hs.IndirectShooting(layers=12))
    assert path.success
    assert path.objective == pytest.approx(best.fun, rel=1e-10)
    found = np.abs([path.problem.lift[0, 0], path.representations[-1, 0, 0],
                    path.problem.readout[0, 0]])
    np.testing.assert_allclose(found, best.x, rtol=1e-5)


def test_the_objective_of_a_roll_out_counts_the_maps():
    problem = problem_of(lift_decay=0.03, readout_decay=0.02)
    W = controls(problem)
    end = discrete.roll_out(problem, W, STEPS)[-1]
    with_maps = discrete.objective(problem, end, W, STEPS)[0]
    fixed = discrete.objective(problem.with_fixed_maps(), end, W, STEPS)[0]
    squares = 0.03 / 2 * np.sum(problem.lift**2) + 0.02 / 2 * np.sum(problem.readout**2)
    assert with_maps - fixed == pytest.approx(squares, rel=1e-12)
