"""`DirectMultipleShooting`: the program, its multipliers, closed forms, statuses, interruptions."""

import os
import signal
import threading
from functools import cache

import numpy as np
import pytest
from problems import SMOOTH, between, one_neuron, teacher

import hamshoot as hs
from hamshoot.methods.multiple_shooting.method import DirectMultipleShooting
from hamshoot.methods.multiple_shooting.nlp import build_nlp
from hamshoot.solution.solution import Status
from hamshoot.theory import closed_forms as exact
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

SOLVERS = ["ipopt", "fatrop"]


@cache
def solved(activation="relu", nlp_solver="ipopt", layers=8, **options):
    method = DirectMultipleShooting(layers=layers, nlp_solver=nlp_solver, **options)
    return method.solve(teacher(activation))


# -- the program and its parts -------------------------------------------------------------------


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("bias", [True, False])
def test_casadi_functions_equal_the_reference(integrator, activation, bias):
    problem = teacher(activation, bias=bias, epsilon=0.2)
    nlp = build_nlp(problem, 4, integrator)
    rng = np.random.default_rng(3)
    A, B = rng.standard_normal((2, *problem.initial_state.shape))
    W = rng.standard_normal(problem.control_shape)
    rho, leak, epsilon = np.array([0.23]), problem.effective_depth, 0.2
    nodes = discrete.roll_out(problem, W[None], rho, integrator, A)
    np.testing.assert_allclose(nlp.step(A, W, rho, leak, epsilon).full(), nodes[-1], rtol=0,
                               atol=1e-12)
    left = discrete.costates(problem, nodes, W[None], rho, integrator, terminal=B)[0][0]
    np.testing.assert_allclose(nlp.costate(A, W, B, rho, leak, epsilon).full(), left, rtol=0,
                               atol=1e-12)
    settings = dict(effective_depth=leak, activation=problem.sigma, bias=bias)
    np.testing.assert_allclose(float(nlp.hamiltonian(A, B, leak, epsilon)),
                               ham.hamiltonian(A, B, **settings), rtol=1e-13)
    for mine, reference in zip(nlp.flow(A, B, leak, epsilon), ham.flow(A, B, **settings),
                               strict=True):
        np.testing.assert_allclose(mine.full(), reference, rtol=1e-13, atol=1e-12)


def test_epsilon_zero_evaluates_the_plain_relu():
    problem = teacher()
    nlp = build_nlp(problem, 4)
    A, B = np.random.default_rng(0).standard_normal((2, *problem.initial_state.shape))
    expected = ham.flow(A, B, effective_depth=3.0, activation=problem.sigma, bias=True)
    for mine, reference in zip(nlp.flow(A, B, 3.0, 0.0), expected, strict=True):
        np.testing.assert_allclose(mine.full(), reference, rtol=1e-13, atol=1e-12)


def test_pack_and_unpack_are_inverse_and_the_defects_of_a_roll_out_vanish():
    problem = teacher("smooth_relu")
    method = DirectMultipleShooting(layers=5, steps="irregular")
    nlp = method.build(problem)
    W = np.random.default_rng(1).standard_normal((5, *problem.control_shape))
    steps = hs.DirectMultipleShooting(layers=5, steps="irregular")._mesh(problem)
    A = discrete.roll_out(problem, W, steps)
    x = nlp.pack(W, A)
    weights, nodes = nlp.unpack(x)
    np.testing.assert_array_equal(weights, W)
    np.testing.assert_array_equal(nodes, A[1:])
    p = nlp.parameters(problem, steps, 0.1)
    g = nlp.solver.get_function("nlp_g")(x, p).full()
    assert np.abs(g).max() < 1e-12
    assert np.abs(nlp.solver.get_function("nlp_g")(x + 0.1, p).full()).max() > 1e-3
    B = np.random.default_rng(2).standard_normal((6, *problem.initial_state.shape))
    np.testing.assert_array_equal(nlp.momenta(nlp.multipliers(B)), B[1:])


def test_one_program_serves_a_researcher():
    """Solve by hand through `build`: the answer is the method's own."""
    problem = teacher("linear")
    nlp = DirectMultipleShooting(layers=6).build(problem)
    from hamshoot.methods.common.starts import starting_weights
    steps = np.full(6, 1 / 6)
    W = starting_weights(problem, steps, "path", 0)
    x0 = nlp.pack(W, discrete.roll_out(problem, W, steps))
    result = nlp.solver(x0=x0, p=nlp.parameters(problem, steps, 0.0), lbg=0, ubg=0)
    ours = DirectMultipleShooting(layers=6).solve(problem)
    assert float(result["f"]) * problem.weight_decay == pytest.approx(ours.objective, rel=1e-10)


# -- stationary points ---------------------------------------------------------------------------


@pytest.mark.parametrize("nlp_solver", SOLVERS)
@pytest.mark.parametrize("activation", ["relu", "smooth_relu", "linear"])
def test_solutions_are_stationary_and_multipliers_are_the_adjoint(nlp_solver, activation):
    solution = solved(activation, nlp_solver)
    assert solution.status is Status.CONVERGED, solution.message
    assert solution.stationarity <= 1e-8
    assert solution.residuals["multiplier_error"] < 1e-9
    # W = L̃Bσ̂ᵀ with the momenta stored: stationarity read off, not taken from a residual.
    if activation != "relu":
        S = [ham.augmented(A, solution.problem.sigma, True)
             for A in solution.representations[:-1]]
        W = 3.0 * solution.momenta[1:] @ np.swapaxes(S, 1, 2)
        np.testing.assert_allclose(W, solution.weights, atol=1e-7)


def test_multipliers_follow_sign_and_index_of_the_momenta():
    problem = teacher("smooth_relu")
    for nlp_solver, sign in (("ipopt", -1), ("fatrop", 1)):
        method = DirectMultipleShooting(layers=8, nlp_solver=nlp_solver)
        solution = method.solve(problem)
        nlp = method.build(problem)
        result = nlp.solver(x0=nlp.pack(solution.weights, solution.representations),
                            lam_g0=nlp.multipliers(solution.momenta),
                            p=nlp.parameters(problem, solution.steps, 0.1), lbg=0, ubg=0)
        lam = np.asarray(result["lam_g"].full()).reshape(8, 12, 4).swapaxes(1, 2)
        np.testing.assert_allclose(sign * lam, solution.momenta[1:], atol=1e-9 * 50)


def test_rk4_converges_too_and_its_multipliers_are_its_adjoint():
    solution = DirectMultipleShooting(layers=5, integrator="rk4").solve(
        teacher("smooth_relu"))
    assert solution.status is Status.CONVERGED, solution.message
    assert solution.stationarity <= 1e-8
    assert solution.residuals["multiplier_error"] < 1e-9
    assert solution.integrator == "rk4"


def test_a_relu_answer_lies_below_its_smooth_neighbour_and_every_neighbour():
    solution = solved()
    assert solution.kinks > 5
    assert solution.residuals["clarke_residual"] <= 1e-10
    assert solution.objective < solution.residuals["smooth_objective"]
    rng = np.random.default_rng(0)
    for size in (1e-2, 1e-3):
        for _ in range(20):
            W = solution.weights + size * rng.standard_normal(solution.weights.shape)
            A = discrete.roll_out(solution.problem, W, solution.steps)
            assert discrete.objective(solution.problem, A[-1], W, solution.steps)[0] \
                > solution.objective


def test_both_solvers_agree_from_the_same_network():
    first = solved("smooth_relu", "ipopt")
    second = DirectMultipleShooting(layers=8, nlp_solver="fatrop").solve(first.problem, first)
    assert second.objective == pytest.approx(first.objective, rel=1e-10)


def test_without_polish_a_relu_is_said_to_be_smoothed():
    solution = DirectMultipleShooting(layers=8, polish=False).solve(teacher())
    assert solution.status is Status.SMOOTHED
    assert solution.success
    assert solution.residuals["smooth_stationarity"] <= 1e-8 < solution.stationarity


@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize(("width", "lift"), [(3, "orthonormal"), (6, "embedding")])
def test_widths_below_and_above_the_data_without_bias(width, lift, activation):
    problem = teacher(activation, dims=(4, 2, 4), width=width, samples=8, bias=False, lift=lift,
                      readout=lift)
    solution = DirectMultipleShooting(layers=6).solve(problem)
    assert solution.success, solution.message
    assert solution.stationarity <= 1e-8
    assert solution.weights.shape == (6, width, width)


@pytest.mark.parametrize("steps", ["irregular", [0.1, 0.2, 0.3, 0.25, 0.15]])
def test_other_layer_steps(steps):
    solution = DirectMultipleShooting(layers=5, steps=steps).solve(teacher(samples=6))
    assert solution.success
    assert solution.stationarity <= 1e-8
    assert np.ptp(solution.steps) > 0.01


# -- closed forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("nlp_solver", SOLVERS)
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_scalar_problem_with_a_loss(nlp_solver, activation):
    problem = one_neuron(0.8, activation)
    solution = DirectMultipleShooting(layers=10, nlp_solver=nlp_solver).solve(problem)
    end = exact.scalar_soft_endpoint(1.0, 0.8, 2.0, 0.05, layers=10)
    W = exact.scalar_euler_weight(1.0, end, 2.0, 10)
    np.testing.assert_allclose(solution.weights, W, rtol=1e-8)
    assert solution.objective == pytest.approx(
        exact.scalar_objective(1.0, end, 0.8, 2.0, 0.05, 10), rel=1e-12)


@pytest.mark.parametrize("nlp_solver", SOLVERS)
def test_scalar_problem_with_a_hard_endpoint(nlp_solver):
    problem = between([1.0], [1.7], weight_decay=0.05)
    solution = DirectMultipleShooting(layers=10, nlp_solver=nlp_solver).solve(problem)
    assert solution.status is Status.CONVERGED, solution.message
    W = exact.scalar_euler_weight(1.0, 1.7, 2.0, 10)
    np.testing.assert_allclose(solution.weights, W, rtol=1e-9)
    assert solution.residuals["boundary_residual"] < 1e-9
    # Stationarity W = L̃Ba fixes the multiplier of the endpoint.
    assert solution.momenta[-1, 0, 0] * solution.representations[-2, 0, 0] * 2.0 == \
        pytest.approx(W, rel=1e-8)


def test_one_sample_path_is_approached_at_second_order():
    """RK4 with W constant over a step: the cost of the great-circle path, error O(1/L²)."""
    a0, a1 = np.array([1.0, 0.2]), np.array([0.3, 1.1])
    path = exact.one_sample_path(np.array([0.0, 1.0]), a0, a1, 2.0)
    problem = between(a0, a1, weight_decay=0.05)
    errors = []
    for layers in (5, 10, 20):
        solution = DirectMultipleShooting(layers=layers, integrator="rk4").solve(problem)
        assert solution.success, solution.message
        errors.append(solution.parameter_norm / 4.0 - path.cost)
    orders = np.diff(-np.log2(np.abs(errors)))
    assert np.all((orders > 1.7) & (orders < 4.5)), (errors, orders)
    assert abs(errors[-1]) < 1e-3


# -- guesses and starts --------------------------------------------------------------------------


def test_a_guess_is_never_left_behind():
    solution = solved()
    again = DirectMultipleShooting(layers=8).solve(solution.problem, solution)
    assert again.objective <= solution.objective * (1 + 1e-11)
    assert again.stationarity <= 1e-8
    rough = solution.weights + 0.05 * np.random.default_rng(0).standard_normal(
        solution.weights.shape)
    A = discrete.roll_out(solution.problem, rough, solution.steps)
    J = discrete.objective(solution.problem, A[-1], rough, solution.steps)[0]
    better = DirectMultipleShooting(layers=8).solve(solution.problem, rough)
    assert better.objective < J


def test_a_guess_on_another_mesh_is_carried_over():
    coarse = solved()
    fine = DirectMultipleShooting(layers=12).solve(coarse.problem, coarse)
    assert fine.success
    assert fine.layers == 12
    assert fine.objective == pytest.approx(coarse.objective, rel=0.2)


def test_best_of_several_starts():
    solution = DirectMultipleShooting(layers=8, starts=3).solve(teacher())
    values = solution.extra["start_objectives"]
    assert len(values) == 3
    assert solution.objective <= min(values)
    assert np.ptp(values) > 0
    assert "best of 3 starts" in solution.message


def test_same_seed_same_numbers():
    method = DirectMultipleShooting(layers=6, start="identity", seed=4)
    first, second = (method.solve(teacher(samples=6)) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)


def test_a_problem_whose_best_network_is_idle_is_reported_as_collapsed():
    problem = teacher(samples=6).replace(weight_decay=50.0)
    solution = DirectMultipleShooting(layers=6).solve(problem)
    assert solution.status is Status.COLLAPSED
    assert not solution.success


# -- ends that are none --------------------------------------------------------------------------


@pytest.mark.parametrize("nlp_solver", SOLVERS)
def test_time_limit_keeps_the_best_iterate(nlp_solver):
    problem = teacher(samples=30)
    method = DirectMultipleShooting(layers=20, nlp_solver=nlp_solver, time_limit=0.3)
    solution = method.solve(problem)
    assert solution.status is Status.TIME_LIMIT
    assert not solution.success
    assert solution.objective < problem.trivial_objective


@pytest.mark.parametrize("nlp_solver", SOLVERS)
def test_iteration_limit(nlp_solver):
    solution = DirectMultipleShooting(layers=8, nlp_solver=nlp_solver, max_iter=20).solve(teacher())
    assert solution.status is Status.MAX_ITER
    assert 20 <= solution.nit <= 50


@pytest.mark.parametrize("nlp_solver", SOLVERS)
@pytest.mark.parametrize("workers", [1, 2])
def test_callback_returning_true_stops(nlp_solver, workers):
    records = []

    def callback(record):
        records.append(record)
        return len(records) == 3

    solution = DirectMultipleShooting(layers=8, nlp_solver=nlp_solver, workers=workers).solve(
        teacher(), callback=callback)
    assert solution.status is Status.INTERRUPTED
    assert len(records) == 3
    assert records[0].stage.startswith("start 1/2, epsilon")
    assert records[2].seconds >= records[0].seconds
    assert np.all(np.isfinite(solution.weights))


def test_a_keyboard_interrupt_keeps_the_best_iterate():
    """The real signal, in the middle of IPOPT, from a cold start."""
    timer = threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT))
    problem = teacher(samples=40)
    DirectMultipleShooting(layers=4).build(problem)  # CasADi loaded before the clock starts
    timer.start()
    try:
        solution = DirectMultipleShooting(layers=20, warm_up=False).solve(problem)
    finally:
        timer.cancel()
    assert solution.status is Status.INTERRUPTED
    assert np.isfinite(solution.objective)


def test_an_error_in_the_callback_comes_through():
    def broken(record):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        DirectMultipleShooting(layers=8).solve(teacher(), callback=broken)


def test_an_endpoint_out_of_reach_is_infeasible():
    """One control of rank 1 cannot move two samples of one point to different places."""
    X = np.array([[1.0, 0.5], [1.0, 0.5]])
    problem = between(X.T, [[1.0, 2.0], [0.5, 3.0]], weight_decay=0.05)
    solution = DirectMultipleShooting(layers=4, max_iter=400).solve(problem)
    assert not solution.success
    assert solution.status in (Status.INFEASIBLE, Status.MAX_ITER)


def test_a_solver_that_gives_up_at_once_is_not_called_again_and_again():
    method = DirectMultipleShooting(layers=6, warm_up=False,
                                    solver_options={"ipopt.max_iter": 0})
    solution = method.solve(teacher(samples=6))
    assert solution.status is Status.STALLED
    assert solution.nit < 100


@pytest.mark.parametrize("nlp_solver", SOLVERS)
def test_a_guess_that_overflows_is_refused(nlp_solver):
    method = DirectMultipleShooting(layers=6, nlp_solver=nlp_solver)
    with pytest.raises(ValueError, match="initial_guess"):
        method.solve(teacher(samples=6), initial_guess=np.full((6, 4, 5), 1e200))


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "says"), [
    ({"layers": 0}, "layers"), ({"layers": 2.5}, "layers"), ({"integrator": "rk5"}, "integrator"),
    ({"nlp_solver": "snopt"}, "nlp_solver"), ({"tol": 0}, "tol"), ({"tol": -1e-8}, "tol"),
    ({"max_iter": 0}, "max_iter"), ({"time_limit": 0}, "time_limit"), ({"seed": -1}, "seed"),
    ({"start": "cold"}, "start"), ({"starts": 0}, "starts"), ({"epsilon": 0.1}, "epsilon"),
    ({"epsilon": (0.001, 0.1, 0.5)}, "epsilon"), ({"polish": "yes"}, "polish"),
    ({"solver_options": "fast"}, "solver_options"),
])
def test_options_out_of_range(options, says):
    with pytest.raises(ValueError, match=says):
        DirectMultipleShooting(**options)


@pytest.mark.parametrize(("options", "says"), [
    ({"layers": 3}, "layers"), ({"layers": 6, "steps": "odd"}, "steps"),
    ({"layers": 6, "steps": [0.5, 0.5]}, "steps"), ({"layers": 6, "noise": -1.0}, "noise"),
    ({"layers": 6, "solver_options": {"ipopt.nonsense": 1}}, "nonsense"),
    ({"layers": 6, "solver_options": {"nonsense": 1}}, "nonsense"),
    ({"layers": 6, "solver_options": {"ipopt.linear_solver": "absent"}}, "ipopt"),
])
def test_options_that_do_not_fit_the_problem(options, says):
    with pytest.raises(ValueError, match=says):
        DirectMultipleShooting(**options).solve(teacher(samples=6))


@pytest.mark.parametrize("guess", [np.zeros((6, 3, 4)), np.full((6, 4, 5), np.nan), np.zeros(4)])
def test_guesses_that_do_not_fit(guess):
    with pytest.raises(ValueError, match="initial_guess"):
        DirectMultipleShooting(layers=6).solve(teacher(samples=6), initial_guess=guess)
