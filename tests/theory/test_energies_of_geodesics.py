"""Energies, Theorem 4, the rank bracket and balancedness on geodesics found by shooting."""

from functools import cache

import numpy as np
import pytest
from problems import teacher
from scipy.integrate import simpson

from hamshoot.methods.indirect.method import IndirectShooting
from hamshoot.theory import energies
from hamshoot.theory import hamiltonian as ham

P = np.linspace(0, 1, 201)


@cache
def geodesic(activation="smooth_relu", width=4, samples=8, depth=3.0):
    """Solution, A and B at 201 depths, and the settings of the flow."""
    problem = teacher(activation, samples=samples, width=width, effective_depth=depth,
                      weight_decay=1e-2 * depth, seed=0)
    solution = IndirectShooting().solve(problem)
    assert solution.success
    point = solution.at(P)
    sigma = problem.sigma
    if activation == "relu" and solution.extra["epsilon"]:
        sigma = sigma.smoothed(solution.extra["epsilon"])
    return solution, point.representations, point.momenta, dict(
        effective_depth=depth, activation=sigma)


@pytest.mark.parametrize("activation", ["smooth_relu", "relu", "linear"])
@pytest.mark.parametrize("gamma", [1e-6, 1e-4, 1e-2, 1.0, 100.0])
def test_the_exact_identity_gives_the_conserved_hamiltonian(activation, gamma):
    """With the one H of the path on the left: it fails wherever H drifts."""
    solution, A, B, keywords = geodesic(activation)
    depth = keywords["effective_depth"]
    node = dict(activation=keywords["activation"])
    left = -2 / depth * solution.extra["hamiltonian"]  # of the flow that was solved
    for a, b in zip(A[::10], B[::10], strict=True):
        v = ham.velocity(a, b, **keywords) / depth
        terms = (energies.cost_of_identity(a, gamma=gamma, **node),
                 -energies.kernel_norm_squared(v + gamma * b, a, gamma=gamma, **node),
                 gamma * np.sum(b * b))
        scale = max(1.0, *map(abs, terms))  # small γ: two large terms cancel
        assert abs(left - sum(terms)) < 1e-9 * scale
        assert abs(energies.identity_residual(a, b, gamma, **keywords)) < 1e-9 * scale
        if gamma >= 1e-4:
            assert abs(left - sum(terms)) < 1e-9 * max(1.0, abs(left))


@pytest.mark.parametrize("activation", ["smooth_relu", "relu"])
@pytest.mark.parametrize("gamma", [1e-5, 1e-3, 1e-1])
def test_both_bounds_of_theorem_4_hold_along_a_geodesic(activation, gamma):
    _, A, B, keywords = geodesic(activation)
    bounds = energies.theorem4_bounds(P, A, B, gamma, **keywords)
    assert bounds.holds
    assert bounds.speed_gap.shape == P.shape
    # and they say something: the gaps are of the size of the bounds, not far inside
    assert bounds.rank_upper - bounds.rank_lower < 1e3 * (abs(bounds.rank_gap) + gamma)
    spoiled = energies.theorem4_bounds(P, A, -B, gamma, **keywords)
    assert abs(spoiled.rank_gap - bounds.rank_gap) > 1e-3


@pytest.mark.parametrize("gamma0", [1e-6, 1e-3])
def test_energies_stable_and_plain_add_up_along_a_geodesic(gamma0):
    solution, A, B, keywords = geodesic(samples=5)  # up to w + 1 samples Im Aᵀ ⊂ Im σ̂ᵀ
    along = energies.path_energies(P, A, B, gamma0=gamma0, **keywords)
    assert ham.hamiltonian_drift(along.hamiltonian) < 1e-9
    total = along.kinetic + along.potential
    H = np.median(solution.hamiltonian)
    scale = np.abs(along.potential).max()
    np.testing.assert_allclose(total, H, rtol=0, atol=1e-7 * scale)
    assert np.all(along.stable_cost_of_identity <= along.cost_of_identity * (1 + 1e-9))
    assert np.all(along.stable_kinetic <= along.kinetic * (1 + 1e-9))


def test_the_bottleneck_rank_lies_in_its_bracket_and_the_bracket_closes_with_depth():
    widths = []
    for depth in (3.0, 6.0):
        solution, A, B, keywords = geodesic(samples=5, depth=depth)
        lower = solution.bottleneck_rank
        upper = energies.path_energies(P, A, B, **keywords).cost_of_identity.min()
        assert lower <= upper
        widths.append((upper - lower) / upper)
        for gamma in (1e-5, 1e-3):
            bounds = energies.theorem4_bounds(P, A, B, gamma, **keywords)
            shifted = lower - bounds.rank_gap  # min_p ‖A_p‖²_{K+γI}
            assert shifted < upper
            assert lower <= shifted + bounds.rank_upper
    assert widths[1] < widths[0]


def test_weights_of_a_relu_geodesic_grow_by_twice_the_depth_times_the_bias():
    """Through the ladder; the preprint's Proposition 9 has half of it."""
    solution, A, B, keywords = geodesic("relu", 3, 6)
    depth = keywords["effective_depth"]
    W = solution.at(P).weights
    squares = np.sum(W * W, axis=(1, 2))
    integral = simpson(np.sum(W[:, :, -1] ** 2, axis=1), x=P)
    growth = squares[-1] - squares[0]
    assert abs(growth) > 1e-3 * squares[0]
    assert abs(growth / (2 * depth * integral) - 1) < 0.02
    rates = [energies.weight_norm_rate(a, b, **keywords) for a, b in zip(A, B, strict=True)]
    exact = simpson(rates, x=P)
    np.testing.assert_allclose(growth, exact, rtol=1e-3)
