"""Sweeps over blocks of samples: against the readable reference, in any block size and executor."""

import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from problems import ACTIVATIONS, SMOOTH, between, random_data

import hamshoot as hs
from hamshoot.dynamics import block_sweeps
from hamshoot.dynamics.block_sweeps import BlockSweeps, block_size, threads
from hamshoot.optimality.checks import setting_of
from hamshoot.optimality.expansion import complex_step_derivatives
from hamshoot.problem.activations import Activation
from hamshoot.theory import layers as discrete

STEPS = np.array([0.2, 0.3, 0.1, 0.25, 0.15])


def _problem(activation="smooth_relu", bias=True, samples=23, d_out=3):
    return random_data(activation, sizes=(samples, 4, d_out), data_seed=5, width=5,
                       effective_depth=2.5, weight_decay=0.03, bias=bias)


def _controls(problem, seed=1):
    rng = np.random.default_rng(seed)
    return 1.5 * rng.standard_normal((len(STEPS), *problem.control_shape))


def _reference(problem, W):
    A = discrete.roll_out(problem, W, STEPS)
    J = discrete.objective(problem, A[-1], W, STEPS)[0]
    _, scaled = discrete.costates(problem, A, W, STEPS)
    share = problem.weight_decay / problem.effective_depth * STEPS[:, None, None]
    return J, share * scaled


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [1, 7, 23, None])
def test_objective_and_gradient_are_those_of_the_reference(activation, bias, block):
    problem = _problem(activation, bias)
    W = _controls(problem)
    J, gradient = _reference(problem, W)
    sweeps = BlockSweeps(problem, STEPS, block=block)
    assert sweeps.objective(W) == pytest.approx(J, rel=1e-13)
    value, G = sweeps.gradient(W)
    assert value == pytest.approx(J, rel=1e-13)
    np.testing.assert_allclose(G, gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())
    value, G = sweeps.expand(W)
    assert value == pytest.approx(J, rel=1e-13)
    np.testing.assert_allclose(G, gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [1, 6])  # with 1 some shards have two blocks
def test_hessian_products_are_columns_of_the_complex_step_hessian(activation, bias, block):
    problem = _problem(activation, bias)
    W, V = _controls(problem), _controls(problem, 2)
    nowhere = np.zeros((len(STEPS), problem.width, problem.n_samples), bool)
    hessian, _ = complex_step_derivatives(setting_of(problem), W, STEPS, None, nowhere)
    expected = (hessian @ V.ravel()).reshape(V.shape)
    sweeps = BlockSweeps(problem, STEPS, block=block)
    sweeps.expand(W)
    np.testing.assert_allclose(sweeps.hessian(V), expected, rtol=0,
                               atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("activation", ["smooth_relu", "relu", "leaky_relu", "gelu"])
@pytest.mark.parametrize("block", [1, 10])
def test_gauss_newton_products_are_those_of_the_jacobian(activation, block):
    problem = _problem(activation)
    W, V = _controls(problem), _controls(problem, 2)

    def output(weights):
        return problem.readout @ discrete.roll_out(problem, weights, STEPS)[-1]

    # The product of the Jacobian's columns, each by central differences, exact for a kinked
    # network off its kinks.
    h, columns = 1e-6, []
    for k in range(W.size):
        E = np.zeros(W.size)
        E[k] = h
        E = E.reshape(W.shape)
        columns.append(((output(W + E) - output(W - E)) / (2 * h)).ravel())
    J = np.array(columns).T
    share = problem.weight_decay / problem.effective_depth * STEPS[:, None, None]
    expected = (2 / problem.n_samples * J.T @ (J @ V.ravel())).reshape(V.shape) + share * V
    sweeps = BlockSweeps(problem, STEPS, block=block)
    sweeps.linearise(W)
    np.testing.assert_allclose(sweeps.gauss_newton(V), expected, rtol=0,
                               atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("block", [1, 6])
def test_products_do_not_depend_on_what_was_kept(block):
    problem = _problem()
    W, V = _controls(problem), _controls(problem, 2)
    kept = BlockSweeps(problem, STEPS, block=block)
    anew = BlockSweeps(problem, STEPS, block=block, keep_bytes=0)
    kept.expand(W)
    anew.expand(W)
    for sweeps in (kept, anew):  # a gradient elsewhere must not disturb the point taken
        sweeps.gradient(2 * W)
    np.testing.assert_array_equal(kept.hessian(V), anew.hessian(V))
    np.testing.assert_array_equal(kept.gauss_newton(V), anew.gauss_newton(V))
    for left, right in zip(kept.factors(3), anew.factors(3), strict=True):
        np.testing.assert_array_equal(left, right)
    # Taking another point forgets the first.
    kept.linearise(2 * W)
    anew.linearise(2 * W)
    np.testing.assert_array_equal(kept.gauss_newton(V), anew.gauss_newton(V))


def test_a_hessian_product_needs_its_point_expanded():
    problem = _problem()
    sweeps = BlockSweeps(problem, STEPS)
    with pytest.raises(ValueError, match="point"):
        sweeps.gauss_newton(_controls(problem))


def test_single_precision_is_right_to_single_precision():
    problem = _problem()
    W, V = _controls(problem), _controls(problem, 2)
    double = BlockSweeps(problem, STEPS)
    single = BlockSweeps(problem, STEPS, dtype=np.float32, block=1)
    J, G = double.expand(W)
    J32, G32 = single.expand(W)
    assert 0 < abs(J32 - J) < 1e-5 * J
    np.testing.assert_allclose(G32, G, rtol=0, atol=1e-5 * np.abs(G).max())
    exact = double.hessian(V)
    np.testing.assert_allclose(single.hessian(V), exact, rtol=0, atol=1e-4 * np.abs(exact).max())


def test_any_executor_gives_the_same_sums():
    problem = _problem(samples=60)
    W, V = _controls(problem), _controls(problem, 2)
    plain = BlockSweeps(problem, STEPS, block=7)
    J, G = plain.gradient(W)
    plain.expand(W)
    product = plain.hessian(V)
    with ThreadPoolExecutor(3) as pool:
        threaded = BlockSweeps(problem, STEPS, block=7, executor=pool)
        assert threaded.gradient(W)[0] == J
        np.testing.assert_array_equal(threaded.gradient(W)[1], G)
        threaded.expand(W)
        np.testing.assert_array_equal(threaded.hessian(V), product)
    with ProcessPoolExecutor(2) as pool:  # nothing is kept on the way there: computed anew
        remote = BlockSweeps(problem, STEPS, block=7, executor=pool)
        remote.expand(W)
        np.testing.assert_array_equal(remote.hessian(V), product)


def test_a_shard_pickles_without_what_it_keeps():
    problem = _problem(samples=60)
    sweeps = BlockSweeps(problem, STEPS, block=60)
    before = len(pickle.dumps(sweeps._shards))
    sweeps.expand(_controls(problem))
    assert len(pickle.dumps(sweeps._shards)) == before


def test_kronecker_factors_of_a_scalar_output_are_exact():
    problem = _problem("smooth_relu", d_out=1)  # a random sign squared is 1
    W = _controls(problem)
    A = discrete.roll_out(problem, W, STEPS)
    sweeps = BlockSweeps(problem, STEPS, block=9)
    sweeps.linearise(W)
    grams, metrics = sweeps.factors()
    N = problem.n_samples
    for k in range(len(STEPS)):
        S = np.concatenate([problem.sigma(A[k]), np.ones((1, N))])
        np.testing.assert_allclose(grams[k], S @ S.T / N, rtol=1e-12)
        # JᵀQᵀQJ of each sample by differences of the remaining layers' roll-out.
        h, rows = 1e-6, []
        for i in range(problem.width):
            e = np.zeros((problem.width, 1))
            e[i] = h
            ends = [discrete.roll_out(problem, W[k + 1 :], STEPS[k + 1 :],
                                      initial_state=A[k + 1] + s * e)[-1] for s in (1, -1)]
            rows.append((problem.readout @ (ends[0] - ends[1]))[0] / (2 * h))
        J = np.array(rows)
        np.testing.assert_allclose(metrics[k], J @ J.T / N, rtol=0, atol=1e-8 * np.abs(J).max()**2)


def test_metrics_of_many_outputs_are_right_on_average():
    problem = _problem("smooth_relu", samples=8)
    W = _controls(problem)
    sweeps = BlockSweeps(problem, STEPS)
    sweeps.linearise(W)
    draws = np.array([sweeps.factors(seed)[1][-1] for seed in range(3000)])
    exact = problem.readout.T @ problem.readout  # the last layer's end is A_L itself
    error = np.abs(draws.mean(axis=0) - exact).max()
    assert error < 5 * draws.std(axis=0).max() / np.sqrt(3000)
    assert draws.std(axis=0).max() > 0.1


def test_threads_hold_every_blas_to_one_thread():
    from threadpoolctl import threadpool_info

    problem = _problem(samples=60)
    with threads(problem) as executor:
        libraries = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
        # NumPy's and SciPy's, which the kernels call; limiting one alone makes blocks spin.
        assert any("scipy" in lib["filepath"].lower() for lib in libraries)
        assert {lib["num_threads"] for lib in libraries} == {1}
        assert list(executor.map(abs, [-2, 1])) == [2, 1]


def test_blocks_depend_on_the_problem_alone():
    assert block_size(_problem(samples=60)) == 60
    rng = np.random.default_rng(0)
    wide = hs.TrainingProblem(rng.standard_normal((1000, 30)), rng.standard_normal((1000, 2)),
                              width=100, effective_depth=3, weight_decay=1e-2)
    assert block_size(wide) == 250


def test_what_a_sweep_returns_is_the_callers():
    """The shards use their sums again; large controls get fresh ones."""
    problem = _problem()
    W = _controls(problem)
    for limit in (block_sweeps.REUSED_BYTES, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(block_sweeps, "REUSED_BYTES", limit)
            sweeps = BlockSweeps(problem, STEPS, block=1)
            first = sweeps.gradient(W)[1]
            kept = first.copy()
            sweeps.gradient(2 * W)
            np.testing.assert_array_equal(first, kept)
            np.testing.assert_array_equal(sweeps.gradient(W)[1], kept)


def test_controls_of_another_mesh_are_refused():
    problem = _problem()
    W = _controls(problem)
    sweeps = BlockSweeps(problem, STEPS)
    sweeps.expand(W)
    for function in (sweeps.gradient, sweeps.objective, sweeps.hessian, sweeps.gauss_newton):
        with pytest.raises(ValueError, match=r"W: expected shape \(5, 5, 6\), got \(2, 5, 6\)"):
            function(W[:2])


def test_a_hard_endpoint_is_refused():
    problem = between(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="hard endpoint"):
        BlockSweeps(problem, STEPS)


def test_other_activation_in_place_of_the_problems():
    problem = _problem("relu")
    W = _controls(problem)
    smooth = BlockSweeps(problem, STEPS, Activation("smooth_relu", 0.3))
    expected, _ = _reference(problem.replace(activation="smooth_relu", epsilon=0.3), W)
    assert smooth.objective(W) == pytest.approx(expected, rel=1e-13)
    assert abs(expected - _reference(problem, W)[0]) > 1e-3
