"""The search for large networks: preconditioner, optimisers, levels, interruption, checkpoints."""

import dataclasses
import functools
import itertools
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.single_shooting.kronecker import (
    Ended,
    KroneckerLBFGS,
    KroneckerPreconditioner,
)
from hamshoot.methods.single_shooting.multilevel import FINAL, prolong, schedule
from hamshoot.methods.single_shooting.trust_region import TrustRegionNewton
from hamshoot.optimality.second_order_layers import second_order
from hamshoot.problem.activations import Activation
from hamshoot.solution.solution import Solution, Status
from hamshoot.theory import layers as discrete

STEPS = np.full(8, 1 / 8)

teacher = functools.partial(problems.teacher, activation="smooth_relu", epsilon=0.2, dims=(4, 2, 4),
                            samples=60, width=6, weight_decay=0.03, seed=0)


def reference(problem, W, steps=STEPS):
    """J, ‖∇J‖ and stationarity by the readable formulas."""
    A = discrete.roll_out(problem, W, steps)
    _, scaled = discrete.costates(problem, A, W, steps)
    share = problem.weight_decay / problem.effective_depth * steps[:, None, None]
    return (discrete.objective(problem, A[-1], W, steps)[0], np.linalg.norm(share * scaled),
            discrete.stationarity(W, scaled))


@functools.cache
def solved(activation="smooth_relu", **options):
    return hs.solve(teacher(activation=activation), hs.DirectSingleShooting(
        layers=8, optimizer="kronecker", **options))


# -- optimisers ------------------------------------------------------------------------------------


def test_the_preconditioner_inverts_where_the_blocks_are_kronecker_products():
    # One linear layer: JᵀQᵀQJ does not depend on the sample. One output: the probe is exact.
    rng = np.random.default_rng(0)
    problem = hs.TrainingProblem(
        rng.standard_normal((40, 3)), rng.standard_normal((40, 1)), width=5, effective_depth=0.7,
        weight_decay=0.02, activation="linear")
    W, V = rng.standard_normal((2, 1, 5, 6))
    sweeps = BlockSweeps(problem, np.ones(1))
    preconditioner = KroneckerPreconditioner(sweeps, damping=0.0)
    preconditioner.refresh(W, 0)
    back = preconditioner(sweeps.gauss_newton(V)).reshape(V.shape)
    np.testing.assert_allclose(back, V, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("make", "tol"), [
    (KroneckerLBFGS, 1e-8), (lambda s: TrustRegionNewton(s, hessian=True), 1e-8),
    # Without the curvature of the network it crawls where the loss stays.
    (TrustRegionNewton, 1e-3),
])
def test_every_optimiser_finds_a_stationary_point_of_the_reference(make, tol):
    problem = teacher()
    W = starting_weights(problem, STEPS, "path", 0)
    optimizer = make(BlockSweeps(problem, STEPS))
    values = []
    found = optimizer.minimise(W, 3000, tol=tol, callback=lambda J, s: values.append(J))
    J, norm, stationarity = reference(problem, found)
    assert stationarity <= 1.1 * tol
    assert optimizer.objective == pytest.approx(J, rel=1e-12)
    assert norm == pytest.approx(optimizer.gradient_norm, rel=1e-2)
    assert np.all(np.diff(values) <= 1e-13)  # J never rises


def test_where_j_is_flat_to_rounding_the_gradient_still_falls():
    # At the bottom J may rise by rounding: that ends no search which did not ask for a decrease.
    problem = teacher()
    W = starting_weights(problem, STEPS, "path", 0)
    for seed in range(2, 8):
        start = W * (1 + 1e-15 * np.random.default_rng(seed).standard_normal(W.shape))
        optimizer = KroneckerLBFGS(BlockSweeps(problem, STEPS))
        found = optimizer.minimise(start, 3000, tol=1e-8)
        assert optimizer.ended is Ended.TOLERANCE
        assert reference(problem, found)[2] <= 1.1e-8


def test_newton_with_the_full_hessian_converges_faster_than_any_line():
    problem = teacher()
    W = starting_weights(problem, STEPS, "path", 0)
    near = KroneckerLBFGS(BlockSweeps(problem, STEPS)).minimise(W, 3000, tol=1e-3)
    sizes = []
    optimizer = TrustRegionNewton(BlockSweeps(problem, STEPS), hessian=True)
    optimizer.minimise(near, 40, tol=1e-11, callback=lambda J, s: sizes.append(s))
    assert sizes[-1] <= 1e-11
    rates = np.array(sizes[1:]) / np.array(sizes[:-1])
    assert rates[-1] < 0.05
    assert len(sizes) <= 25


def test_negative_curvature_leads_off_a_saddle():
    # The optimum of the network with its hidden neurons swapped for one another is another; half
    # way between the two both neurons do the same, and symmetry keeps every descent there.
    problem = teacher()
    rng = np.random.default_rng(0)
    steps = np.full(8, 1 / 8)
    W = starting_weights(problem, steps, "path", 2)
    W[:, 5] = W[:, 4]
    W[:, :, 5] = W[:, :, 4]
    sweeps = BlockSweeps(problem, steps)
    # No closer: rounding breaks the symmetry in the end, and the descent goes on to a minimum.
    saddle = KroneckerLBFGS(sweeps).minimise(W, 4000, tol=1e-7)
    J, _, stationarity = reference(problem, saddle, steps)
    assert stationarity <= 1.1e-7
    assert second_order(problem, saddle, steps).verdict.startswith("saddle")
    nudged = saddle + 1e-3 * rng.standard_normal(saddle.shape)
    optimizer = TrustRegionNewton(sweeps, hessian=True)
    found = optimizer.minimise(nudged, 300, tol=1e-8)
    assert sweeps.objective(found) < J * (1 - 1e-4)


def test_single_precision_goes_on_until_the_gradient_is_small_or_rounding_is_met():
    problem = teacher(samples=200)
    W = starting_weights(problem, STEPS, "path", 0)
    first = reference(problem, W)[1]
    single = BlockSweeps(problem, STEPS, dtype=np.float32)
    optimizer = KroneckerLBFGS(single)
    # J falls by less than a tenth an iteration at once, so that only the gradient holds it.
    found = optimizer.minimise(W, 5000, decrease=0.1, gradient=1e-3 * first)
    assert optimizer.ended is Ended.FLAT
    assert reference(problem, found)[1] <= 1.01e-3 * first
    # A gradient out of reach: the end is where J falls no more, not the limit, and it is near the
    # minimum as double precision sees it.
    found = optimizer.minimise(found, 5000, decrease=0.1, gradient=0.0)
    assert optimizer.ended is Ended.STUCK
    J = reference(problem, found)[0]
    least = KroneckerLBFGS(BlockSweeps(problem, STEPS)).minimise(found, 5000, tol=1e-8)
    assert reference(problem, least)[0] * (1 + 1e-5) >= J


# -- levels ----------------------------------------------------------------------------------------


def test_the_schedule_goes_from_coarse_to_fine():
    problem = teacher(samples=200, activation="relu")
    levels = schedule(problem, 12, 1e-3, 500)
    whole = [level for level in levels if (level.samples, level.layers) == (200, 12)]
    coarse = levels[: -len(whole)]
    assert len(coarse) >= 3
    samples = [level.samples for level in levels]
    assert samples == sorted(samples)
    assert samples[0] < 200
    assert {level.layers for level in coarse} == {6}
    assert levels[-1].epsilon == 1e-3
    assert levels[-1].decrease == FINAL
    assert min(level.epsilon for level in levels) == 1e-3
    assert all(a.epsilon > b.epsilon for a, b in itertools.pairwise(whole))
    # From a guess there are no coarse levels, and it begins at a smaller epsilon.
    onward = schedule(problem, 12, 1e-3, 500, coarse=False)
    assert {(level.samples, level.layers) for level in onward} == {(200, 12)}
    assert all(a.epsilon > b.epsilon for a, b in itertools.pairwise(onward))
    assert onward[0].epsilon < whole[0].epsilon
    assert all(level.epsilon == 0 for level in schedule(
        teacher(activation="linear"), 8, 0.0, 500))
    many = [level.epsilon for level in schedule(teacher(samples=9000, activation="relu"), 12,
                                                1e-3, 500) if level.samples == 9000]
    assert many[0] < many[1] > many[2]  # back up once, where a stage takes minutes
    # A leak that needs nearly all layers leaves no coarse mesh.
    deep = problem.replace(effective_depth=11.0)
    assert {level.layers for level in schedule(deep, 12, 1e-3, 500)} == {12}


def test_prolongation_keeps_controls_that_are_linear_in_depth():
    middles = (np.arange(5) + 0.5) / 5
    W = 3.0 + 2.0 * middles[:, None, None] * np.ones((5, 2, 3))
    steps = np.array([0.2, 0.15, 0.3, 0.05, 0.1, 0.2])
    new = prolong(W, steps)[:, 0, 0]
    at = np.cumsum(steps) - steps / 2
    inside = (at > middles[0]) & (at < middles[-1])
    np.testing.assert_allclose(new[inside], 3 + 2 * at[inside], rtol=1e-14)
    assert new[0] == pytest.approx(3.2)
    np.testing.assert_array_equal(prolong(W[:1], steps), np.repeat(W[:1], 6, axis=0))


def test_a_subset_keeps_scaling_lift_and_readout():
    problem = teacher(lift="orthonormal")
    rows = np.array([3, 5, 40])
    part = problem.subset(rows)
    np.testing.assert_allclose(part.initial_state, problem.initial_state[:, rows], atol=1e-13)
    np.testing.assert_allclose(part.targets, problem.targets[:, rows], atol=1e-15)
    np.testing.assert_array_equal(part.readout, problem.readout)


# -- the method ------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["smooth_relu", "relu", "linear"])
@pytest.mark.parametrize("optimizer", ["kronecker", "gauss_newton"])
def test_it_ends_at_a_stationary_point(activation, optimizer):
    problem = teacher(activation=activation)
    solution = hs.solve(problem, hs.DirectSingleShooting(layers=8, optimizer=optimizer))
    relu = activation == "relu"
    assert solution.status is (Status.SMOOTHED if relu else Status.CONVERGED), solution.message
    assert solution.residuals["smooth_stationarity"] <= 1e-6
    smooth = problem.replace(activation="smooth_relu", epsilon=1e-3) if relu else problem
    assert reference(smooth, solution.weights)[2] <= 1.1e-6
    if not relu:
        assert hs.certify(solution).holds
    assert solution.method == f"single shooting ({optimizer})"


def test_it_is_about_as_good_as_the_ladder_search():
    ladder = hs.solve(teacher(), hs.DirectSingleShooting(layers=8, optimizer="lbfgs"))
    assert solved().objective <= 1.1 * ladder.objective


def test_auto_takes_the_levels_beyond_the_exact_methods():
    method = hs.DirectSingleShooting(layers=20)
    assert method.optimizer_for(teacher()) == "lbfgs"
    assert method.optimizer_for(teacher(width=40)) == "kronecker"
    # Few controls, but too many samples for the polish.
    assert method.optimizer_for(teacher(samples=5000, activation="relu")) == "kronecker"


def test_same_seed_same_numbers():
    again = hs.solve(teacher(), hs.DirectSingleShooting(layers=8, optimizer="kronecker"))
    np.testing.assert_array_equal(again.weights, solved().weights)


def test_any_executor_may_run_the_blocks():
    problem = teacher(samples=60)
    with ThreadPoolExecutor(2) as pool:
        solution = hs.solve(problem, hs.DirectSingleShooting(
            layers=8, optimizer="kronecker", executor=pool))
    np.testing.assert_array_equal(solution.weights, solved().weights)
    with ProcessPoolExecutor(2) as pool:  # as a cluster would: everything sent there and back
        method = hs.DirectSingleShooting(layers=8, optimizer="kronecker", executor=pool,
                                         max_iter=40)
        away = hs.solve(problem, method)
    here = hs.solve(problem, dataclasses.replace(method, executor=None))
    np.testing.assert_array_equal(away.weights, here.weights)


def test_best_of_several_starts():
    several = solved(starts=3)
    assert len(several.extra["start_objectives"]) == 3
    assert "best of 3 starts" in several.message


def test_a_guess_is_never_worsened_and_changes_no_basin():
    relu = solved("relu")
    again = hs.solve(relu.problem, hs.DirectSingleShooting(layers=8, optimizer="kronecker"),
                     initial_guess=relu)
    assert again.objective <= relu.objective * (1 + 1e-12)
    assert again.objective == pytest.approx(relu.objective, rel=1e-2)
    assert again.nit < relu.nit


def test_a_guess_below_the_smoothed_optimum_comes_back_and_is_not_called_optimal():
    exact = hs.solve(teacher(activation="relu"), hs.DirectSingleShooting(layers=8))
    assert exact.status is Status.CONVERGED
    again = hs.solve(exact.problem, hs.DirectSingleShooting(layers=8, optimizer="kronecker"),
                     initial_guess=exact)
    assert again.objective <= exact.objective * (1 + 1e-12)
    assert again.status is Status.STALLED
    assert "above the guess's" in again.message


def test_limits_and_callbacks_keep_the_best():
    problem = teacher(activation="relu")
    for options, status in (({"max_iter": 40}, Status.MAX_ITER),
                            ({"time_limit": 0.05}, Status.TIME_LIMIT)):
        solution = hs.solve(problem, hs.DirectSingleShooting(
            layers=8, optimizer="kronecker", **options))
        assert solution.status is status
        assert not solution.success
        assert np.isfinite(solution.objective)
        assert solution.objective == pytest.approx(reference(problem, solution.weights)[0])
    seen = []

    def stop(record):
        seen.append(record)
        return len(seen) >= 300

    solution = hs.solve(problem, hs.DirectSingleShooting(layers=8, optimizer="kronecker"),
                        callback=stop)
    assert solution.status is Status.INTERRUPTED
    assert len(seen) == 300
    assert {"samples" in r.stage and "layers" in r.stage for r in seen} == {True}
    assert solution.objective <= 1.05 * min(J for _, J in solution.extra["trace"])


class InterruptedExecutor:
    """The plain loop, with Ctrl-C in its n-th sweep."""

    def __init__(self, n):
        self.left = n

    def map(self, function, items, /):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return map(function, items)


@pytest.mark.parametrize("optimizer", ["kronecker", "gauss_newton"])
def test_ctrl_c_in_any_sweep_gives_a_solution(optimizer):
    problem = teacher(samples=200, activation="relu")
    for n in (1, 2, 5, 60, 230, 300):
        solution = hs.solve(problem, hs.DirectSingleShooting(
            layers=12, optimizer=optimizer, executor=InterruptedExecutor(n)))
        assert solution.status is Status.INTERRUPTED
        assert np.isfinite(solution.objective)


@pytest.mark.parametrize("optimizer", ["kronecker", "gauss_newton"])
def test_networks_that_overflow_are_said_to_diverge(optimizer):
    solution = hs.solve(teacher(samples=30), hs.DirectSingleShooting(
        layers=8, optimizer=optimizer, start="identity", noise=1e60))
    assert solution.status is Status.DIVERGED
    assert not solution.success
    assert np.isfinite(solution.objective)


def test_what_single_precision_cannot_hold_is_done_in_double():
    solution = hs.solve(teacher(samples=30), hs.DirectSingleShooting(
        layers=20, optimizer="kronecker", start="identity", noise=100.0, time_limit=20))
    assert solution.status is not Status.DIVERGED
    assert np.isfinite(solution.objective)


def test_a_search_that_ran_out_of_iterations_is_no_success():
    for options in (dict(max_iter=60, start="identity", noise=3.0),
                    dict(max_iter=1, gradient_tol=0.5)):
        solution = hs.solve(teacher(), hs.DirectSingleShooting(
            layers=8, optimizer="kronecker", **options))
        assert solution.status is Status.MAX_ITER
        assert not solution.success


def test_the_convergence_at_the_last_level_is_not_cut_off_by_the_limit_of_a_stage():
    solution = hs.solve(teacher(activation="relu"), hs.DirectSingleShooting(
        layers=8, optimizer="kronecker", stage_iter=5, polish=False))
    assert solution.status is Status.SMOOTHED, solution.message


def test_a_small_weight_decay_survives_the_change_of_mesh():
    problem = teacher(samples=200, activation="relu").replace(weight_decay=1e-6)
    solution = hs.solve(problem, hs.DirectSingleShooting(
        layers=12, optimizer="kronecker", time_limit=5))
    assert solution.objective < 0.1 * problem.trivial_objective


def test_a_start_that_is_stationary_is_no_division_by_zero():
    problem = hs.TrainingProblem(np.zeros((5, 2)), np.zeros((5, 2)), width=3, effective_depth=1.0,
                                 weight_decay=1e-2, activation="linear")
    solution = hs.solve(problem, hs.DirectSingleShooting(layers=4, optimizer="kronecker"),
                        initial_guess=np.zeros((4, 3, 4)))
    assert solution.objective == 0.0


def test_ctrl_c_keeps_the_best():
    problem = teacher(samples=400, width=24, activation="relu")
    timer = threading.Timer(1.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        solution = hs.solve(problem, hs.DirectSingleShooting(
            layers=20, optimizer="kronecker", time_limit=60))
    finally:
        timer.cancel()
    assert solution.status is Status.INTERRUPTED
    assert solution.objective < problem.trivial_objective


def test_a_checkpoint_is_a_solution_to_go_on_from(tmp_path):
    problem = teacher(samples=400, width=24, activation="relu")
    path = tmp_path / "best.npz"
    method = hs.DirectSingleShooting(layers=20, optimizer="kronecker", time_limit=4,
                                     checkpoint=path, checkpoint_every=0.2)
    seen = []

    def look(record):
        if path.exists():
            seen.append((record.seconds, Solution.load(path).objective))
            time.sleep(0.01)
            return len(seen) > 150
        return None

    solution = hs.solve(problem, method, callback=look)
    assert len({J for _, J in seen}) > 1  # rewritten, always whole
    kept = Solution.load(path)
    assert kept.status is Status.INTERRUPTED
    assert kept.objective >= solution.objective
    onward = hs.solve(problem, hs.DirectSingleShooting(
        layers=20, optimizer="kronecker", max_iter=30), initial_guess=kept)
    assert onward.objective <= kept.objective


def test_a_large_network_ends_flat():
    problem = teacher(samples=700, width=80, activation="relu")  # a gradient of 3e8 flops
    solution = hs.solve(problem, hs.DirectSingleShooting(
        layers=12, optimizer="kronecker", gradient_tol=1e-2, epsilon=(0.1, 1e-2, 0.5),
        stage_iter=600, polish=False))
    assert solution.status is Status.FLAT, solution.message
    assert solution.success
    assert solution.residuals["relative_gradient"] <= 1e-2
    assert "relative gradient" in solution.message


def test_a_checkpoint_that_cannot_be_written_is_told_and_loses_nothing(tmp_path):
    with pytest.raises(ValueError, match="no directory"):
        hs.DirectSingleShooting(checkpoint=tmp_path / "nowhere" / "best.npz")
    path = tmp_path / "best.npz"
    path.mkdir()
    solution = hs.solve(teacher(), hs.DirectSingleShooting(
        layers=8, optimizer="kronecker", checkpoint=path, checkpoint_every=1e-6))
    assert solution.success
    assert "checkpoint could not be written" in solution.message


def test_no_level_goes_below_the_epsilon_of_a_smooth_network():
    seen = set()
    hs.solve(teacher(samples=200), hs.DirectSingleShooting(layers=12, optimizer="kronecker"),
             callback=lambda r: seen.add(r.stage) and None)
    assert any(stage.startswith("200 samples, 12 layers") for stage in seen)
    assert all("epsilon 0.2" in stage for stage in seen)  # never below the problem's own
    assert Activation("smooth_relu", 0.2) == teacher().sigma


@pytest.mark.parametrize(("options", "word"), [
    ({"gradient_tol": 0}, "gradient_tol"), ({"checkpoint_every": -1}, "checkpoint_every"),
    ({"executor": 3}, "executor"), ({"memory": 0}, "memory"), ({"checkpoint": 3}, "checkpoint"),
])
def test_bad_options_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        hs.DirectSingleShooting(layers=8, **options)
