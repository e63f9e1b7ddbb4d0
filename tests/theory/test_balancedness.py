"""∂_p‖W‖² = 2L̃‖b‖² along an optimal path: the factor is 2L̃, not the L̃ of the preprint.

The law needs a homogeneous σ, ReLU or linear: with the smooth ReLU there is one more term, which
vanishes with ε.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import simpson

from hamshoot.problem.activations import Activation
from hamshoot.theory import energies
from hamshoot.theory import hamiltonian as ham

RELU = Activation("relu")
DEPTH = 1.5  # not 2, where 2L̃ = L̃²


def trajectory(activation, steps=400, bias=True, A0=None, scale=0.15):
    """Path of the flow: p, ‖W‖² at its nodes, ∫₀¹‖b‖² dp, and the representations."""
    rng = np.random.default_rng(0)
    A0 = rng.normal(size=(3, 5)) if A0 is None else A0
    B0 = scale * rng.normal(size=A0.shape)
    keywords = {"effective_depth": DEPTH, "activation": activation, "bias": bias}
    p, A, B = ham.integrate(A0, B0, 0.0, 1.0, steps, **keywords)
    W = np.array([ham.control(a, b, **keywords) for a, b in zip(A, B, strict=True)])
    return p, np.sum(W**2, axis=(1, 2)), simpson(np.sum(W[:, :, -1] ** 2, axis=1), x=p), A, B


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), depth=st.floats(0.5, 8.0), linear=st.booleans())
def test_rate_is_the_derivative_of_the_squared_weight_norm(seed, depth, linear):
    """At any point of phase space, by the complex step along the flow."""
    A, B = np.random.default_rng(seed).normal(size=(2, 3, 6))
    keywords = {"effective_depth": depth, "activation": Activation("linear") if linear else RELU}
    velocity, force = ham.flow(A, B, **keywords)
    moved = ham.control(A + 1e-30j * velocity, B + 1e-30j * force, **keywords)
    rate = np.sum(moved * moved).imag / 1e-30
    W = ham.control(A, B, **keywords)
    scale = depth * (1 + np.sum(W**2)) ** 2
    assert abs(rate - energies.balancedness_rate(W, depth)) < 1e-12 * scale
    assert abs(rate - 2 * depth * np.sum(W[:, -1] ** 2)) < 1e-12 * scale


def test_the_factor_is_two_effective_depths_along_a_relu_path_without_kinks():
    """Sharp: exact ReLU and no entry changes sign, so the flow is smooth and RK4 accurate."""
    rng = np.random.default_rng(1)
    A0 = rng.uniform(3.0, 4.0, size=(3, 5)) * rng.choice([-1.0, 1.0], size=(3, 5))
    _, squares, bias_integral, A, _ = trajectory(RELU, A0=A0, scale=0.03)
    assert np.all(np.sign(A) == np.sign(A0))
    assert 0 < np.mean(A0 > 0) < 1  # both sides of the kink are in use
    growth = squares[-1] - squares[0]
    assert growth > 0.5 * squares[0]
    np.testing.assert_allclose(growth, 2 * DEPTH * bias_integral, rtol=1e-9)
    # The preprint's Proposition 9 would be off by a factor of two.
    np.testing.assert_allclose(growth / (DEPTH * bias_integral), 2.0, rtol=1e-9)


def test_the_law_holds_through_the_kinks_of_relu():
    """‖W‖² is continuous and σ′ stands beside A = 0; only the integrator loses its order."""
    _, squares, bias_integral, A, _ = trajectory(RELU, steps=8000)
    assert np.any(np.sign(A[-1]) != np.sign(A[0]))
    growth = squares[-1] - squares[0]
    np.testing.assert_allclose(growth, 2 * DEPTH * bias_integral, rtol=1e-5)


def test_without_bias_the_weights_of_a_relu_path_keep_their_norm():
    rng = np.random.default_rng(1)
    A0 = rng.uniform(3.0, 4.0, size=(3, 5)) * rng.choice([-1.0, 1.0], size=(3, 5))
    _, squares, _, A, _ = trajectory(RELU, bias=False, A0=A0, scale=0.03)
    assert np.all(np.sign(A) == np.sign(A0))
    assert np.linalg.norm(A[-1] - A[0]) > 1.0
    np.testing.assert_allclose(squares, squares[0], rtol=1e-9)


def test_smooth_relu_obeys_the_law_only_as_epsilon_vanishes():
    defects = []
    for epsilon in (0.2, 0.1, 0.05):
        _, squares, bias_integral, _, _ = trajectory(Activation("smooth_relu", epsilon), steps=800)
        growth = squares[-1] - squares[0]
        defects.append(abs(growth / (2 * DEPTH * bias_integral) - 1))
    assert defects[0] > 1e-4  # not homogeneous, and it shows
    assert defects[2] < defects[1] < defects[0]
    assert defects[2] < 0.4 * defects[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["linear", "relu", "smooth_relu"])
def test_weight_norm_rate_is_exact_for_every_activation(name, bias):
    activation = Activation(name, 0.5 if name == "smooth_relu" else 0.0)
    keywords = {"effective_depth": DEPTH, "activation": activation, "bias": bias}
    A, B = np.random.default_rng(2).normal(size=(2, 3, 6))
    velocity, force = ham.flow(A, B, **keywords)
    moved = ham.control(A + 1e-30j * velocity, B + 1e-30j * force, **keywords)
    rate = np.sum(moved * moved).imag / 1e-30
    W = ham.control(A, B, **keywords)
    exact = energies.weight_norm_rate(A, B, **keywords)
    np.testing.assert_allclose(exact, rate, atol=1e-12 * np.sum(W**2) ** 2, rtol=1e-11)
    if name == "smooth_relu":
        simple = energies.balancedness_rate(W, DEPTH) if bias else 0.0
        assert abs(exact - simple) > 1e-2
