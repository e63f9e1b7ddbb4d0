"""The layered reference: its gradient is the gradient, its Clarke residual is the smallest."""

from functools import partial

import numpy as np
import problems
import pytest
from scipy.optimize import minimize

import hamshoot as hs
from hamshoot.methods.common import starts
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.active_set import polish
from hamshoot.network import follow_path as discretise
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.theory import clarke
from hamshoot.theory import layers as discrete
from hamshoot.theory.clarke import clarke_residual

STEPS = np.array([0.1, 0.3, 0.2, 0.15, 0.25])

teacher = partial(problems.teacher, dims=(3, 2, 3), effective_depth=2.0, weight_decay=0.05)
small_problem = partial(teacher, "smooth_relu", samples=7, seed=0)


def value(problem, weights, integrator="euler"):
    A = discrete.roll_out(problem, weights, STEPS, integrator)
    return discrete.objective(problem, A[-1], weights, STEPS)[0]


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", problems.ACTIVATIONS)
def test_gradient_is_the_difference_quotient(integrator, bias, activation):
    problem = teacher(activation, samples=7, seed=0, bias=bias)
    W = starts.starting_weights(problem, STEPS, "path", seed=3)
    A = discrete.roll_out(problem, W, STEPS, integrator)
    _, scaled = discrete.costates(problem, A, W, STEPS, integrator)
    gradient = problem.weight_decay / problem.effective_depth * STEPS[:, None, None] * scaled
    rng = np.random.default_rng(1)
    for _ in range(3):
        V = rng.standard_normal(W.shape)
        h = 1e-5
        difference = (value(problem, W + h * V, integrator)
                      - value(problem, W - h * V, integrator)) / (2 * h)
        assert np.sum(gradient * V) == pytest.approx(difference, rel=1e-6, abs=1e-9)


def test_costate_is_minus_the_sensitivity_of_the_loss_over_lambda():
    problem = small_problem()
    W = starts.starting_weights(problem, STEPS, "path")
    A = discrete.roll_out(problem, W, STEPS)
    B, _ = discrete.costates(problem, A, W, STEPS)
    V = np.random.default_rng(2).standard_normal(A[0].shape)

    def tail(state, k):
        end = discrete.roll_out(problem, W[k:], STEPS[k:], initial_state=state)[-1]
        return np.sum((problem.readout @ end - problem.targets) ** 2) / problem.n_samples

    for k in (0, 2, 4):
        h = 1e-5
        difference = (tail(A[k] + h * V, k) - tail(A[k] - h * V, k)) / (2 * h)
        assert -problem.weight_decay * np.sum(B[k] * V) == pytest.approx(difference, rel=1e-6)


def test_rk4_converges_at_order_four_to_the_flow_of_a_constant_control():
    problem = small_problem()
    W = starts.starting_weights(problem, np.ones(1), "path", seed=5)
    ends = [discrete.roll_out(problem, np.repeat(W, n, axis=0), np.full(n, 1 / n), "rk4")[-1]
            for n in (8, 16, 512)]
    errors = [np.abs(end - ends[-1]).max() for end in ends[:-1]]
    assert 3.6 < np.log2(errors[0] / errors[1]) < 4.6


def kinked_network():
    """A ReLU network with three hidden entries put exactly on the kink, at random weights."""
    problem = teacher(samples=7, seed=0)
    W = starts.starting_weights(problem, STEPS, "path", seed=1).copy()
    A = discrete.roll_out(problem, W, STEPS)
    for layer, row, sample in ((1, 0, 2), (2, 1, 4), (3, 2, 0)):
        A = discrete.roll_out(problem, W, STEPS)
        # Moving one bias moves one row of A_ℓ for all samples: put this sample's entry on zero.
        W[layer - 1, row, -1] -= A[layer, row, sample] / STEPS[layer - 1]
    return problem, W, discrete.roll_out(problem, W, STEPS), STEPS


def optimal_network():
    """The optimum of a small ReLU network, with dozens of entries on the kink."""
    problem = problems.teacher()
    steps = np.full(8, 1 / 8)
    W = starts.starting_weights(problem, steps, "path", seed=0)
    for epsilon in (0.1, 0.05, 0.02, 0.01, 4e-3, 2e-3, 1e-3, 4e-4, 2e-4):
        smooth = problem.replace(activation="smooth_relu", epsilon=epsilon)
        W = exact_newton.minimise(smooth, W, steps, tol=1e-8, max_iter=200).weights
    W = polish(problem, W, steps, 2e-4).weights
    return problem, W, discrete.roll_out(problem, W, steps), steps


def many_kinks():
    """Neurons that nothing feeds, read by the next layer: 0 for every sample, not optimal."""
    problem = teacher(samples=9, width=6, seed=2)
    W = starts.starting_weights(problem, STEPS, "path", seed=1).copy()
    W[:, 4:] = 0.0
    W[:, :4, 4:6] += np.random.default_rng(0).standard_normal((5, 4, 2))
    return problem, W, discrete.roll_out(problem, W, STEPS), STEPS


def test_clarke_residual_finds_the_entries_on_the_kink():
    problem, W, A, _ = kinked_network()
    result = clarke_residual(problem, A, W, STEPS)
    assert set(zip(*np.nonzero(result.on_kink), strict=True)) == {(1, 0, 2), (2, 1, 4), (3, 2, 0)}
    d = result.slopes[result.on_kink]
    assert np.all((d >= 0) & (d <= 1))


def test_clarke_residual_is_the_least_over_a_grid_of_slopes():
    problem, W, A, _ = kinked_network()
    result = clarke_residual(problem, A, W, STEPS)
    least = np.inf
    grid = np.linspace(0, 1, 11)
    scale = problem.weight_decay / problem.effective_depth * STEPS[:, None, None]
    for d in np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3):
        slopes = result.slopes.copy()
        slopes[result.on_kink] = d
        _, gradient = discrete.costates(problem, A, W, STEPS, slopes=slopes)
        least = min(least, np.linalg.norm(scale * gradient))
    assert result.residual <= least * (1 + 1e-12)
    assert result.residual >= 0.9 * least


@pytest.mark.parametrize("network", [kinked_network, optimal_network, many_kinks])
def test_both_ways_to_the_clarke_residual_agree(monkeypatch, network):
    problem, W, A, steps = network()
    dense = clarke.clarke_residual(problem, A, W, steps)
    monkeypatch.setattr(clarke, "CLARKE_DENSE", 0)
    free = clarke.clarke_residual(problem, A, W, steps)
    assert free.residual == pytest.approx(dense.residual, rel=1e-8, abs=1e-10)
    d = free.slopes[free.on_kink]
    assert np.all((d >= 0) & (d <= 1))
    assert d.size > 2
    assert network is kinked_network or np.ptp(d) > 0.1


def test_a_search_without_jacobian_that_stops_early_returns_a_bound(monkeypatch):
    problem, W, A, steps = many_kinks()
    best = clarke.clarke_residual(problem, A, W, steps).residual
    monkeypatch.setattr(clarke, "CLARKE_DENSE", 0)
    monkeypatch.setattr(clarke, "MOST_SWEEPS", 8)
    early = clarke.clarke_residual(problem, A, W, steps)
    assert best * (1 + 1e-6) < early.residual
    _, gradient = discrete.costates(problem, A, W, steps, slopes=early.slopes)
    scale = problem.weight_decay / problem.effective_depth * steps[:, None, None]
    assert early.residual == pytest.approx(np.linalg.norm(scale * gradient), rel=1e-12)


def test_clarke_jacobian_is_the_difference_quotient():
    problem, W, A, _ = kinked_network()
    base = problem.sigma.slope(A[:-1])
    on_kink = clarke_residual(problem, A, W, STEPS).on_kink
    evaluate = clarke._ClarkeEvaluation(problem, A, W, STEPS, None, base, on_kink)
    d = np.array([0.3, 0.7, 0.5])
    J = evaluate.jacobian(d)
    for k in range(3):
        h = 1e-6 * np.eye(3)[k]
        difference = (evaluate.gradient(d + h) - evaluate.gradient(d - h)).ravel() / 2e-6
        np.testing.assert_allclose(J[:, k], difference, atol=1e-8 * np.abs(J).max())
    linear, x = clarke._Linearised(evaluate, d), np.array([0.2, -1.0, 0.4])
    G = np.random.default_rng(0).standard_normal(W.shape)
    np.testing.assert_allclose(linear.product(x).ravel(), J @ x, atol=1e-13 * np.abs(J).max())
    np.testing.assert_allclose(linear.adjoint(G), J.T @ G.ravel(), rtol=1e-10)


def test_hamiltonian_of_a_stationary_euler_network_converges_at_first_order():
    """On the optimal path H is conserved; Euler's drift in it halves when L doubles."""
    problem = small_problem(epsilon=0.2)

    def optimal(layers):
        steps = np.full(layers, 1 / layers)
        W = starts.starting_weights(problem, steps, "path", noise=0.0)

        def fun(x):
            w = x.reshape(W.shape)
            A = discrete.roll_out(problem, w, steps)
            _, g = discrete.costates(problem, A, w, steps)
            scale = problem.weight_decay / problem.effective_depth / layers
            return discrete.objective(problem, A[-1], w, steps)[0], (scale * g).ravel()

        x = minimize(fun, W.ravel(), jac=True, method="L-BFGS-B",
                     options=dict(maxiter=4000, maxfun=8000, maxcor=40, ftol=1e-16, gtol=1e-9)).x
        return solution_from_weights(
            problem, x.reshape(W.shape), steps, status=hs.Status.CONVERGED, success=True,
            method="test",
        )

    coarse, fine = optimal(16), optimal(32)
    assert coarse.stationarity < 1e-3
    spread = [np.ptp(s.hamiltonian) for s in (coarse, fine)]
    assert 1.6 < spread[0] / spread[1] < 2.6


def test_interpolation_meets_the_nodes_and_the_middle_of_an_euler_step():
    problem = small_problem()
    W = starts.starting_weights(problem, STEPS, "path")
    s = solution_from_weights(problem, W, STEPS, status=hs.Status.MAX_ITER, success=False,
                              method="test")
    at = s.at(s.p)
    np.testing.assert_allclose(at.representations, s.representations, atol=1e-14)
    np.testing.assert_allclose(at.momenta, s.momenta, atol=1e-12)
    middle = s.at(0.25)
    np.testing.assert_allclose(
        middle.representations, 0.5 * (s.representations[1] + s.representations[2])
    )
    np.testing.assert_array_equal(middle.weights, W[1])
    with pytest.raises(ValueError, match=r"p: expected depths in \[0, 1\]"):
        s.at(1.5)


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_the_stable_rank_knows_nothing_of_the_costate(integrator):
    """Other targets, another costate: the stable rank is that of the representations alone."""
    problem = teacher(samples=7, seed=0)
    other = problem.replace(Y=-3.0 * np.asarray(problem.Y))
    W = np.random.default_rng(0).standard_normal((len(STEPS), *problem.control_shape))
    settings = dict(status=hs.Status.MAX_ITER, success=False, method="test", integrator=integrator)
    first, second = (solution_from_weights(p, W, STEPS, **settings)
                     for p in (problem, other))
    rank = first.stable_bottleneck_rank
    assert second.stable_bottleneck_rank == pytest.approx(rank, rel=1e-12)
    assert abs(first.bottleneck_rank - second.bottleneck_rank) > 0.1
    assert first.summary()["stable_bottleneck_rank"] == rank
    along = first.energies()
    H = np.median(along.stable_kinetic + along.stable_potential)
    assert rank == pytest.approx(-2 * H / problem.effective_depth, rel=1e-10)


def test_collapse_is_said():
    problem = teacher(samples=7, seed=0).replace(effective_depth=7.0)
    W = np.zeros((5, *problem.control_shape))
    s = solution_from_weights(problem, W, STEPS * 0 + 0.2, status=hs.Status.CONVERGED,
                              success=True, method="test")
    assert s.status is hs.Status.COLLAPSED
    assert not s.success
    assert "start=" in s.message


def test_a_network_that_answers_the_mean_has_collapsed_too():
    """Through the bias: A_1 is far from 0, and the same for every sample."""
    rng = np.random.default_rng(0)
    problem = hs.TrainingProblem(rng.standard_normal((9, 3)), rng.standard_normal((9, 3)) + 2.0,
                                 width=4, effective_depth=7.0, weight_decay=0.1)
    steps = np.full(8, 1 / 8)
    W = np.zeros((8, *problem.control_shape))
    W[-1, :3, -1] = 8 * problem.targets.mean(axis=1)
    settings = dict(status=hs.Status.CONVERGED, success=True, method="test")
    mean = solution_from_weights(problem, W, steps, **settings)
    assert np.linalg.norm(problem.readout @ mean.representations[-1]) > 4.0
    assert mean.status is hs.Status.COLLAPSED
    assert not mean.success
    # An output that differs with its sample, however badly it fits, is no collapse.
    W[:, :, :-1] = 7 * np.eye(4)
    other = solution_from_weights(problem, W, steps, **settings)
    assert other.loss > mean.loss
    assert other.status is hs.Status.CONVERGED


@pytest.mark.parametrize("spread", [0.1, 1e-7])
def test_an_idle_network_has_collapsed_whatever_the_mean_of_the_targets(spread):
    """What the leak leaves of A_0 is small beside the targets, if not beside their spread."""
    targets = 1 + spread * np.random.default_rng(0).choice([-1.0, 1.0], (8, 2))
    problem = hs.TrainingProblem(np.random.default_rng(1).standard_normal((8, 2)), targets, width=3,
                                 effective_depth=4.0, weight_decay=0.1, bias=False)
    W = np.zeros((10, *problem.control_shape))
    settings = dict(status=hs.Status.CONVERGED, success=True, method="test")
    idle = solution_from_weights(problem, W, np.full(10, 0.1), **settings)
    assert idle.status is hs.Status.COLLAPSED


def test_an_answer_that_is_right_to_rounding_has_not_collapsed():
    """Targets that are nearly the same, as constants in single precision are."""
    rng = np.random.default_rng(0)
    targets = 1 + 1e-8 * rng.standard_normal((9, 1))
    problem = hs.TrainingProblem(rng.standard_normal((9, 3)), targets, width=4,
                                 effective_depth=7.0, weight_decay=0.1)
    W = np.zeros((8, *problem.control_shape))
    W[-1, 0, -1] = 8.0
    s = solution_from_weights(problem, W, np.full(8, 1 / 8), success=True, method="test",
                              status=hs.Status.CONVERGED)
    assert s.status is hs.Status.CONVERGED


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_spread_of_blocks_is_that_of_the_whole(shift):
    Y = np.random.default_rng(0).standard_normal((3, 50)) + shift
    spread = discrete.Spread()
    for a, b in ((0, 7), (7, 8), (8, 50)):
        spread.add(Y[:, a:b])
    assert spread.centred == pytest.approx(np.sum((Y - Y.mean(1, keepdims=True)) ** 2), rel=1e-9)
    assert spread.squares == pytest.approx(np.sum(Y**2), rel=1e-12)


def test_between_the_nodes_of_rk4_layers_the_path_obeys_its_control():
    """Stationary or not: the state inside a layer is the flow under that layer's own W."""
    problem = small_problem()
    W = starts.starting_weights(problem, STEPS, "path", seed=4)
    s = solution_from_weights(problem, W, STEPS, status=hs.Status.MAX_ITER, success=False,
                              method="test", integrator="rk4")
    for p in (0.05, 0.27, 0.9):
        k = int(np.searchsorted(s.p, p) - 1)
        part = np.full(50, (p - s.p[k]) / 50)
        exact = discrete.roll_out(problem, np.repeat(W[k : k + 1], 50, axis=0), part, "rk4",
                                  s.representations[k])[-1]
        size = np.abs(s.representations[k + 1] - s.representations[k]).max()
        assert np.abs(s.at(p).representations - exact).max() < 0.01 * size


def test_a_guess_on_the_same_mesh_is_taken_as_it_is_and_another_mesh_is_followed():
    problem = small_problem()
    W = starts.starting_weights(problem, STEPS, "path", seed=4)
    np.testing.assert_array_equal(starts.weights_of(W, problem, np.full(5, 0.2)), W)
    s = solution_from_weights(problem, W, STEPS, status=hs.Status.MAX_ITER, success=False,
                              method="test")
    np.testing.assert_array_equal(starts.weights_of(s, problem, STEPS), W)
    mesh = np.full(40, 1 / 40)
    away = [np.linalg.norm(discrete.roll_out(problem, W40, mesh)[-1] - s.representations[-1])
            for W40 in (starts.weights_of(s, problem, mesh),
                        discretise.mean_control(s, np.linspace(0, 1, 41)))]
    assert away[0] < 0.8 * away[1]
    with pytest.raises(ValueError, match="expected weights of shape"):
        starts.weights_of(W[:, :2], problem, STEPS)
    with pytest.raises(ValueError, match="expected finite weights"):
        starts.weights_of(W * np.nan, problem, STEPS)
