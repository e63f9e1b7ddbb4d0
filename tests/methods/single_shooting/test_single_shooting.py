"""`DirectSingleShooting`: closed forms, statuses, the polish, guesses, starts, interruptions."""

import os
import signal
from functools import cache

import numpy as np
import pytest
from problems import one_neuron, teacher

import hamshoot as hs
from hamshoot.methods.common.starts import equidistant_steps, starting_weights
from hamshoot.methods.multiple_shooting.method import DirectMultipleShooting
from hamshoot.methods.newton.active_set import MAX_CONTROLS, affordable
from hamshoot.methods.search.basins import EFFORTS, iteration_seconds, planned_starts
from hamshoot.methods.single_shooting.method import DirectSingleShooting
from hamshoot.network.layer_steps import irregular_steps
from hamshoot.optimality.second_order_layers import second_order
from hamshoot.solution.solution import Status
from hamshoot.theory import closed_forms as exact
from hamshoot.theory import layers as discrete
from hamshoot.theory.clarke import clarke_residual


@cache
def solved(activation="relu", layers=8, **options):
    return DirectSingleShooting(layers=layers, **{"starts": 1, **options}).solve(
        teacher(activation))


def objective_of(problem, weights, steps):
    A = discrete.roll_out(problem, weights, steps)
    return discrete.objective(problem, A[-1], weights, steps)[0]


def start_objective(problem, layers):
    """J of the first start."""
    steps = equidistant_steps(layers)
    return objective_of(problem, starting_weights(problem, steps, "path", 0), steps)


def assert_stationary(solution, tol):
    """Roll out, sweep back and judge again, by the reference, with what the solution stores."""
    problem, W, steps = solution.problem, solution.weights, solution.steps
    A = discrete.roll_out(problem, W, steps)
    slopes = None
    if problem.activation == "relu":
        clarke = clarke_residual(problem, A, W, steps)
        assert clarke.residual <= 1e-10
        assert np.all((clarke.slopes >= 0) & (clarke.slopes <= 1))
        slopes = clarke.slopes
    _, gradient = discrete.costates(problem, A, W, steps, slopes=slopes)
    assert discrete.stationarity(W, gradient) <= tol
    assert solution.stationarity <= tol
    assert solution.objective == pytest.approx(objective_of(problem, W, steps), rel=1e-13)


# -- closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [0.8, 1.7])
@pytest.mark.parametrize("layers", [3, 10])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_scalar_problem(activation, layers, y):
    solution = DirectSingleShooting(layers=layers, tol=1e-9).solve(one_neuron(y, activation))
    assert solution.status is Status.CONVERGED, solution.message
    end = exact.scalar_soft_endpoint(1.0, y, 2.0, 0.05, layers=layers)
    W = exact.scalar_euler_weight(1.0, end, 2.0, layers)
    np.testing.assert_allclose(solution.weights, W, rtol=1e-7)
    assert solution.representations[-1, 0, 0] == pytest.approx(end, rel=1e-8)
    assert solution.momenta[-1, 0, 0] == pytest.approx(2 * (y - end) / 0.05, rel=1e-6)
    assert solution.objective == pytest.approx(
        exact.scalar_objective(1.0, end, y, 2.0, 0.05, layers), rel=1e-12)


def test_an_orthonormal_linear_problem_is_so_many_scalar_ones():
    """X = I, Y = diag: each singular value goes its own scalar way (loss and J are sums)."""
    y = np.array([0.8, 1.3])
    problem = hs.TrainingProblem(np.eye(2), np.diag(y), effective_depth=2.0, weight_decay=0.05,
                                 width=2, bias=False, activation="linear", standardize=False)
    solution = DirectSingleShooting(layers=10, tol=1e-8).solve(problem)
    assert solution.status is Status.CONVERGED, solution.message
    # Half of J's loss belongs to each sample, so a sample sees twice the weight decay.
    ends = [exact.scalar_soft_endpoint(1.0, v, 2.0, 0.1, layers=10) for v in y]
    W = np.diag([exact.scalar_euler_weight(1.0, end, 2.0, 10) for end in ends])
    np.testing.assert_allclose(solution.weights, np.broadcast_to(W, (10, 2, 2)), atol=1e-6)
    J = sum(exact.scalar_objective(1.0, end, v, 2.0, 0.1, 10) for v, end in zip(y, ends,
                                                                             strict=True)) / 2
    assert solution.objective == pytest.approx(J, rel=1e-11)


# -- stationary points -----------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["smooth_relu", "linear"])
@pytest.mark.parametrize("tol", [1e-6, 1e-8])
def test_smooth_networks_converge_to_the_tolerance(activation, tol):
    solution = solved(activation, tol=tol)
    assert solution.status is Status.CONVERGED, solution.message
    assert solution.success
    assert_stationary(solution, tol)
    assert solution.kinks == 0


def test_a_relu_network_converges_to_a_strict_minimum_of_its_own():
    solution = solved()
    assert solution.status is Status.CONVERGED, solution.message
    assert_stationary(solution, 1e-10)
    assert solution.kinks > 5
    assert "activations held on the kink" in solution.message
    assert solution.objective < solution.residuals["smooth_objective"]
    verdict = second_order(solution.problem, solution.weights, solution.steps)
    assert verdict.verdict.startswith("strict local minimum"), verdict.verdict
    assert verdict.min_eigenvalue > 0


def test_a_relu_answer_lies_below_every_neighbour():
    solution = solved()
    rng = np.random.default_rng(0)
    for size in (1e-2, 1e-3, 1e-4):
        for _ in range(20):
            W = solution.weights + size * rng.standard_normal(solution.weights.shape)
            assert objective_of(solution.problem, W, solution.steps) > solution.objective


def test_without_polish_a_relu_is_said_to_be_smoothed():
    solution = solved(polish=False)
    assert solution.status is Status.SMOOTHED, solution.message
    assert solution.success
    assert solution.residuals["smooth_stationarity"] <= 1e-6 < solution.stationarity
    said = f"smooth stationarity {solution.residuals['smooth_stationarity']:.1e} (tol 1e-06)"
    assert said in solution.message  # and no other number goes by that name
    assert "relative gradient" not in solution.message
    smooth = solution.problem.replace(activation="smooth_relu",
                                      epsilon=solution.residuals["epsilon"])
    A = discrete.roll_out(smooth, solution.weights, solution.steps)
    _, gradient = discrete.costates(smooth, A, solution.weights, solution.steps)
    assert discrete.stationarity(solution.weights, gradient) == pytest.approx(
        solution.residuals["smooth_stationarity"], rel=1e-3)
    assert solution.objective == pytest.approx(solved().objective, rel=1e-2)


def test_a_network_too_large_for_the_polish_is_said_to_be_smoothed():
    problem = teacher(dims=(4, 2, 4), width=19, samples=6)
    method = DirectSingleShooting(layers=20, starts=1, reheats=0, tol=1e-2, optimizer="lbfgs",
                                  epsilon=(0.1, 0.05, 0.5))
    assert MAX_CONTROLS < 20 * 19 * 20
    assert not affordable(problem, 20)
    assert affordable(problem, 10)
    solution = method.solve(problem)
    assert solution.status is Status.SMOOTHED, solution.message
    assert solution.residuals["epsilon"] == 0.05
    assert solution.residuals["smooth_stationarity"] <= 1e-2
    assert "on the kink" not in solution.message


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "lift"), [(3, "orthonormal"), (6, "embedding")])
def test_widths_below_and_above_the_data(width, lift, bias):
    problem = teacher(dims=(4, 2, 4), width=width, samples=8, bias=bias, lift=lift,
                      readout=lift)
    solution = DirectSingleShooting(layers=6, starts=1, reheats=0).solve(problem)
    assert solution.status is Status.CONVERGED, solution.message
    assert_stationary(solution, 1e-6)
    assert solution.weights.shape == (6, width, width + bias)


@pytest.mark.parametrize("steps", ["irregular", [0.1, 0.2, 0.3, 0.25, 0.15]])
def test_other_layer_steps(steps):
    method = DirectSingleShooting(layers=5, steps=steps, starts=1, reheats=0)
    solution = method.solve(teacher(samples=6))
    assert solution.status is Status.CONVERGED, solution.message
    assert_stationary(solution, 1e-6)
    expected = irregular_steps(5) if isinstance(steps, str) else steps
    np.testing.assert_allclose(solution.steps, expected, rtol=1e-14)


# -- guesses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "smooth_relu"])
def test_multiple_and_single_shooting_agree_from_one_network(activation):
    problem = teacher(activation)
    other = DirectMultipleShooting(layers=8).solve(problem)
    assert other.status is Status.CONVERGED, other.message
    solution = DirectSingleShooting(layers=8, tol=1e-8).solve(problem, other)
    assert solution.status is Status.CONVERGED, solution.message
    assert solution.objective == pytest.approx(other.objective, rel=1e-10)
    np.testing.assert_allclose(solution.weights, other.weights, atol=1e-5)
    if activation == "smooth_relu":  # on a kink the choice of slopes, and so of B, is free
        np.testing.assert_allclose(solution.momenta, other.momenta, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_optimum_as_a_guess_is_found_again(seed):
    problem = teacher(seed=seed)
    method = DirectSingleShooting(layers=8, starts=1)
    solution = method.solve(problem)
    assert solution.status is Status.CONVERGED
    again = method.solve(problem, solution)
    assert again.status is Status.CONVERGED, again.message
    assert again.objective == pytest.approx(solution.objective, rel=1e-11)


@pytest.mark.parametrize("size", [0.02, 0.2])
def test_a_guess_is_never_left_behind(size):
    solution = solved()
    rng = np.random.default_rng(0)
    rough = solution.weights + size * rng.standard_normal(solution.weights.shape)
    before = objective_of(solution.problem, rough, solution.steps)
    better = DirectSingleShooting(layers=8).solve(solution.problem, rough)
    assert better.success, better.message
    assert better.objective < before


def test_a_guess_that_the_ladder_loses_is_returned_as_it_came():
    """At a last ε of 0.5 the smooth optimum is a poor ReLU network: the better guess stays."""
    solution = solved()
    method = DirectSingleShooting(layers=8, epsilon=(0.5, 0.5, 0.5), polish=False)
    kept = method.solve(solution.problem, solution)
    assert kept.status is Status.STALLED
    assert not kept.success
    assert "above the guess's" in kept.message
    np.testing.assert_array_equal(kept.weights, solution.weights)


def test_a_guess_on_another_mesh_is_carried_over():
    coarse = solved()
    fine = DirectSingleShooting(layers=12).solve(coarse.problem, coarse)
    assert fine.status is Status.CONVERGED, fine.message
    assert fine.layers == 12
    assert fine.objective == pytest.approx(coarse.objective, rel=0.2)
    assert fine.objective < fine.history[0].objective


# -- starts ----------------------------------------------------------------------------------------


def test_the_best_of_several_starts_is_reported():
    solution = DirectSingleShooting(layers=8, starts=3, reheats=0).solve(teacher(samples=6))
    values = solution.extra["start_objectives"]
    assert len(values) == 3
    assert np.ptp(values) > 1e-3 * min(values)
    # The walks end in a hurry; what is converged from the best of them lies below it.
    assert 0.5 * min(values) < solution.objective <= min(values)
    assert "best of 3 starts" in solution.message
    assert {r.stage.split(",")[0] for r in solution.history} >= {f"start {k}/3" for k in (1, 2, 3)}


def test_reheats_do_not_end_above_what_they_began_with():
    cold, warm = (DirectSingleShooting(layers=8, starts=1, start="identity", reheats=n).solve(
        teacher(seed=0)) for n in (0, 2))
    assert cold.extra["reheat_objectives"] == []
    ends = warm.extra["start_objectives"] + warm.extra["reheat_objectives"]
    assert len(ends) == 9  # a start, two rounds of four reheats
    assert np.ptp(ends) > 1e-3 * min(ends)
    assert warm.objective <= min(ends)
    assert warm.extra["reheat_rounds"] == [min(ends[:5]), min(ends)]
    assert any(record.stage.startswith("reheated") for record in warm.history)


def test_large_problems_plan_fewer_starts():
    small, large = teacher(), teacher(dims=(30, 3, 30), samples=1000, width=30)
    for effort, count in (("quick", 2), ("default", 2), ("thorough", 6)):
        assert planned_starts(EFFORTS[effort], iteration_seconds(small, 8)) == count
    assert planned_starts(EFFORTS["default"], iteration_seconds(large, 20)) == 1


def test_same_seed_same_numbers():
    problem = teacher("smooth_relu", samples=6)
    first, second, other = (DirectSingleShooting(layers=6, starts=1, seed=seed).solve(problem)
                            for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.extra["start_objectives"] != other.extra["start_objectives"]


@pytest.mark.parametrize("start", ["path", "identity"])
def test_a_problem_whose_best_network_is_idle_is_reported_as_collapsed(start):
    problem = teacher(samples=6).replace(weight_decay=50.0)
    solution = DirectSingleShooting(layers=6, start=start).solve(problem)
    assert solution.status is Status.COLLAPSED
    assert not solution.success
    assert "collapsed" in solution.message


# -- ends that are none ----------------------------------------------------------------------------


def test_time_limit_keeps_the_best_iterate():
    problem = teacher(samples=40)
    solution = DirectSingleShooting(layers=20, time_limit=0.3).solve(problem)
    assert solution.status is Status.TIME_LIMIT
    assert not solution.success
    assert solution.objective <= start_objective(problem, 20) * (1 + 1e-12)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("limit", [1, 20, 200])
def test_iteration_limit(limit, workers):
    problem = teacher()
    solution = DirectSingleShooting(layers=8, max_iter=limit, workers=workers).solve(problem)
    assert solution.status is Status.MAX_ITER
    assert not solution.success
    assert solution.nit == len(solution.history) == limit
    # The first iterates lower J at a large ε, which need not be that of the ReLU network.
    assert solution.objective <= start_objective(problem, 8) * (0.9 if limit == 200 else 1.0)


def test_callback_returning_true_stops_and_the_answer_can_be_continued():
    records = []

    def callback(record):
        records.append(record)
        return len(records) == 30

    solution = DirectSingleShooting(layers=8, starts=1).solve(teacher(), callback=callback)
    assert solution.status is Status.INTERRUPTED
    assert not solution.success
    assert [record.iteration for record in records] == list(range(1, 31))
    assert records[0].stage == "epsilon 0.5"
    assert np.all(np.diff([record.seconds for record in records]) >= 0)
    further = DirectSingleShooting(layers=8).solve(teacher(), solution)
    assert further.status is Status.CONVERGED, further.message
    assert further.objective < solution.objective


@pytest.mark.parametrize("stage", ["epsilon 0.5", "reheated", "convergence", "polish"])
def test_a_keyboard_interrupt_keeps_the_best_iterate_at_any_stage(stage):
    """The real signal, which Python delivers while the callback runs."""
    problem, signals = teacher(), []

    def callback(record):
        if record.stage.startswith(stage) and not signals:
            signals.append(record.iteration)
            os.kill(os.getpid(), signal.SIGINT)

    solution = DirectSingleShooting(layers=8, starts=1).solve(problem, callback=callback)
    assert solution.status is Status.INTERRUPTED
    assert signals == [solution.nit]
    lowest = min([start_objective(problem, 8), *solution.extra["start_objectives"],
                  *solution.extra["reheat_objectives"]])
    assert solution.objective <= lowest * (1 + 1e-14)  # by other sums: the last digit may differ
    assert solution.objective == objective_of(problem, solution.weights, solution.steps)


def test_a_keyboard_interrupt_raised_in_the_callback_is_kept_too():
    def callback(record):
        if record.iteration == 40:
            raise KeyboardInterrupt

    solution = DirectSingleShooting(layers=8, starts=1).solve(teacher(), callback=callback)
    assert solution.status is Status.INTERRUPTED
    assert solution.nit == 40


@pytest.mark.parametrize("stage", ["epsilon", "polish"])
def test_an_error_in_the_callback_comes_through(stage):
    def broken(record):
        if record.stage.startswith(stage):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        DirectSingleShooting(layers=8, starts=1).solve(teacher(samples=6), callback=broken)


# -- bad input -------------------------------------------------------------------------------------


def test_a_hard_endpoint_needs_multiple_shooting():
    problem = teacher(samples=6, endpoint=np.ones((4, 6)))
    with pytest.raises(ValueError, match="DirectMultipleShooting"):
        DirectSingleShooting(layers=6).solve(problem)


@pytest.mark.parametrize(("options", "says"), [
    ({"layers": 0}, "layers"), ({"layers": 2.5}, "layers"), ({"layers": True}, "layers"),
    ({"tol": 0}, "tol"), ({"tol": -1e-8}, "tol"), ({"tol": float("nan")}, "tol"),
    ({"max_iter": 0}, "max_iter"), ({"time_limit": 0}, "time_limit"), ({"seed": -1}, "seed"),
    ({"seed": 1.5}, "seed"), ({"start": "cold"}, "start"), ({"starts": 0}, "starts"),
    ({"epsilon": 0.1}, "epsilon"), ({"epsilon": (0.1, 0.01)}, "epsilon"),
    ({"epsilon": (0.001, 0.1, 0.5)}, "epsilon"), ({"epsilon": (0.1, 0.01, 1.5)}, "factor"),
    ({"epsilon": (0.1, 0.0, 0.5)}, "epsilon"), ({"reheats": -1}, "reheats"),
    ({"effort": "most"}, "effort"), ({"workers": 0}, "workers"),
    ({"stage_iter": 0}, "stage_iter"), ({"memory": 0}, "memory"),
    ({"optimizer": "adam"}, "optimizer"), ({"polish": "yes"}, "polish"),
])
def test_options_out_of_range(options, says):
    with pytest.raises(ValueError, match=says):
        DirectSingleShooting(**options)


@pytest.mark.parametrize(("options", "says"), [
    ({"layers": 3}, "layers"), ({"layers": 6, "steps": "odd"}, "steps"),
    ({"layers": 6, "steps": [0.5, 0.5]}, "steps"), ({"layers": 6, "noise": -1.0}, "noise"),
    ({"layers": 2, "steps": [0.5, 0.5]}, "steps"),
])
def test_options_that_do_not_fit_the_problem(options, says):
    with pytest.raises(ValueError, match=says):
        DirectSingleShooting(**options).solve(teacher(samples=6))


@pytest.mark.parametrize("guess", [
    np.zeros((6, 3, 4)), np.full((6, 4, 5), np.nan), np.zeros(4), np.zeros((6, 4, 4)),
])
def test_guesses_that_do_not_fit(guess):
    with pytest.raises(ValueError, match="initial_guess"):
        DirectSingleShooting(layers=6).solve(teacher(samples=6), initial_guess=guess)
