"""What the theory page says of J* as a function of λ, L̃, ε, Y, X, A_1, against solved optima."""

from functools import cache

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.theory import hamiltonian as ham

GEODESICS = hs.IndirectShooting(tol=1e-12, effort="quick", layers=30)
LAYERED = hs.DirectSingleShooting(layers=6, tol=1e-11, effort="quick")
SETTINGS = dict(samples=6, width=3, dims=(3, 2, 3), effective_depth=2.0, weight_decay=0.03,
                epsilon=0.2)
RNG = np.random.default_rng(7)
DIRECTION = RNG.standard_normal((6, 3))


@cache
def solved(kind, seed=5):
    method = GEODESICS if kind == "geodesic" else LAYERED
    problem = problems.teacher("smooth_relu", seed=seed, **SETTINGS)
    # As the network sees the data: replace would standardise a moved Y anew.
    scaled = problem.replace(X=problem.input_scaling.apply(problem.X), Y=problem.targets.T,
                             standardize=False)
    solution = method.solve(scaled)
    assert solution.success
    return method, solution


def slope(kind, change, h):
    """dJ*/dt by differences of optima at ±h and ±h/2, extrapolated once."""
    method, solution = solved(kind)

    def central(h):
        there, back = (method.solve(solution.problem.replace(**change(solution.problem, t)),
                                    initial_guess=solution) for t in (h, -h))
        assert there.success
        assert back.success
        return (there.objective - back.objective) / (2 * h)

    return central(h / 2) + (central(h / 2) - central(h)) / 3


@pytest.mark.parametrize("kind", ["geodesic", "layers"])
def test_by_the_weight_decay_it_is_the_weights_alone(kind):
    _, solution = solved(kind)
    found = slope(kind, lambda p, t: {"weight_decay": p.weight_decay + t}, 1e-3)
    assert found == pytest.approx(solution.parameter_norm / (2 * 2.0), rel=1e-6)


def test_the_rank_is_the_price_of_depth():
    _, solution = solved("geodesic")
    found = slope("geodesic", lambda p, t: {"effective_depth": p.effective_depth + t}, 2e-2)
    decay = solution.problem.weight_decay
    assert found == pytest.approx(decay / 2 * solution.bottleneck_rank, rel=1e-6)
    # H at one node is as good as another.
    np.testing.assert_allclose(-decay * solution.hamiltonian / 2.0, found, rtol=1e-6)


def test_over_layers_the_price_is_the_mean_of_h_at_the_mixed_points():
    _, solution = solved("layers")
    found = slope("layers", lambda p, t: {"effective_depth": p.effective_depth + t}, 2e-2)
    mean = np.sum(solution.steps * solution.hamiltonian)
    assert found == pytest.approx(-solution.problem.weight_decay * mean / 2.0, rel=1e-6)
    assert solution.hamiltonian_drift > 1e-3  # so that a mean is not an entry


@pytest.mark.parametrize("kind", ["geodesic", "layers"])
def test_by_the_targets_it_is_the_lack_at_the_end(kind):
    _, solution = solved(kind)
    problem = solution.problem
    found = slope(kind, lambda p, t: {"Y": np.asarray(p.Y) + t * DIRECTION}, 1e-2)
    lack = problem.readout @ solution.representations[-1] - problem.targets
    assert found == pytest.approx(-2 / 6 * np.sum(lack.T * DIRECTION), rel=1e-5)


@pytest.mark.parametrize("kind", ["geodesic", "layers"])
def test_by_the_inputs_it_is_the_first_costate(kind):
    _, solution = solved(kind)
    problem = solution.problem
    found = slope(kind, lambda p, t: {"X": np.asarray(p.X) + t * DIRECTION}, 3e-3)
    rate = -problem.weight_decay * np.sum((problem.lift.T @ solution.momenta[0]).T * DIRECTION)
    assert found == pytest.approx(rate, rel=1e-5)


def test_by_epsilon_it_is_what_the_weights_pull_on_the_smoothing():
    _, solution = solved("layers")
    problem = solution.problem
    epsilon = problem.sigma.epsilon
    found = slope("layers", lambda p, t: {"epsilon": p.sigma.epsilon + t}, 1e-2)
    rate = 0.0
    for W, rho, A, B in zip(solution.weights, solution.steps, solution.representations[:-1],
                            solution.momenta[1:], strict=True):
        rate += rho * np.sum(W[:, :3].T @ B * epsilon / (2 * np.sqrt(A**2 + epsilon**2)))
    assert found == pytest.approx(-problem.weight_decay * rate, rel=1e-5)


def test_replacing_targets_that_are_standardised_undoes_the_move():
    """The trap: J* by differences of `replace(Y=...)` is another derivative."""
    problem = problems.teacher("smooth_relu", seed=5, **SETTINGS)
    shifted = problem.replace(Y=np.asarray(problem.Y) + 1.0)
    np.testing.assert_allclose(shifted.targets, problem.targets, atol=1e-12)


def test_by_a_prescribed_endpoint_it_is_the_last_costate():
    start, end = np.array([1.0, 0.4]), np.array([0.6, 0.9])
    problem = problems.between(start, end)
    solution = GEODESICS.solve(problem)
    direction, h = np.array([[0.3], [-0.7]]), 1e-3
    there, back = (GEODESICS.solve(problem.replace(endpoint=problem.endpoint + t * direction),
                                   initial_guess=solution) for t in (h, -h))
    rate = problem.weight_decay * np.sum(solution.momenta[-1] * direction)
    assert (there.objective - back.objective) / (2 * h) == pytest.approx(rate, rel=1e-5)


def test_of_h_the_derivative_by_depth_is_h_over_depth():
    A, B = RNG.standard_normal((2, 3, 5))
    sigma = problems.teacher("smooth_relu", **SETTINGS).sigma
    value, other = (ham.hamiltonian(A, B, effective_depth=depth, activation=sigma)
                    for depth in (2.0, 3.0))
    assert other / 3.0 == pytest.approx(value / 2.0, rel=1e-14)


def test_the_multiplier_of_a_parameter_in_casadi_has_the_opposite_sign_of_the_derivative():
    """lam_p = −df*/dp, with f = J/λ: for L̃ that is λH/(λL̃) of the network."""
    problem = solved("layers")[1].problem
    method = hs.DirectMultipleShooting(layers=6, tol=1e-10, effort="quick")
    solution = method.solve(problem, initial_guess=solved("layers")[1])
    assert solution.success
    program = method.build(problem)
    parameters = program.parameters(problem, solution.steps, problem.sigma.epsilon)
    result = program.solver(
        x0=program.pack(solution.weights, solution.representations), p=parameters, lbg=0, ubg=0,
        lam_g0=program.multipliers(solution.momenta))
    by_parameter = np.asarray(result["lam_p"]).ravel()
    decay, norm = problem.weight_decay, solution.parameter_norm / (2 * 2.0)
    price = -decay * np.sum(solution.steps * solution.hamiltonian) / 2.0
    value = float(result["f"])
    assert -decay * by_parameter[1] == pytest.approx(price, rel=1e-6)
    assert value - decay * by_parameter[0] == pytest.approx(norm, rel=1e-6)
    start = by_parameter[3 + 6 :][:18].reshape(6, 3).T  # A_0, column by column
    np.testing.assert_allclose(-decay * start, -decay * solution.momenta[0], rtol=1e-5, atol=1e-8)
