"""The activations: derivatives, limits, the CasADi twins and the ladder."""

from statistics import NormalDist

import casadi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SIGMAS, SMOOTH

from hamshoot.problem.activations import (
    CODES,
    Activation,
    casadi_slope,
    casadi_value,
    epsilon_ladder,
)

ALL = list(SIGMAS)
widths = st.floats(1e-4, 1.0)
numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20).map(np.array)


@settings(deadline=None)
@given(z=numbers, epsilon=widths)
def test_smooth_relu_derivatives_agree_with_the_complex_step(z, epsilon):
    smooth = Activation("smooth_relu", epsilon)
    step = 1e-30
    slope = smooth(z + 1j * step).imag / step
    curvature = smooth.slope(z + 1j * step).imag / step
    np.testing.assert_allclose(smooth.slope(z), slope, rtol=1e-12, atol=1e-300)
    # The complex step through σ/√ cancels for |z| >> ε: compare on the scale of the peak, 1/(2ε).
    np.testing.assert_allclose(smooth.curvature(z), curvature, rtol=1e-9, atol=1e-13 / epsilon)


@settings(deadline=None)
@given(z=numbers, epsilon=widths)
def test_smooth_relu_lies_above_relu_by_at_most_half_epsilon(z, epsilon):
    excess = Activation("smooth_relu", epsilon)(z) - Activation("relu")(z)
    rounding = 1e-15 * max(np.abs(z).max(), epsilon)
    assert np.all(excess >= -rounding)
    assert np.all(excess <= 0.5 * epsilon + rounding)


@settings(deadline=None)
@given(z=numbers, epsilon=widths)
def test_smooth_relu_departs_from_homogeneity_by_a_known_amount(z, epsilon):
    smooth = Activation("smooth_relu", epsilon)
    departure = smooth(z) - z * smooth.slope(z)
    expected = epsilon**2 / (2 * np.sqrt(z**2 + epsilon**2))
    np.testing.assert_allclose(departure, expected, atol=4e-16 * (1 + np.abs(z).max()), rtol=1e-12)


@pytest.mark.parametrize("activation", [sigma for sigma in ALL if sigma.name in SMOOTH],
                         ids=lambda a: a.name)
def test_derivatives_agree_with_the_complex_step(activation):
    z, step = np.concatenate([np.linspace(-4, 4, 41), [-30.0, 30.0]]), 1e-30
    for own, of in ((activation.slope, activation), (activation.curvature, activation.slope)):
        np.testing.assert_allclose(own(z), of(z + 1j * step).imag / step, rtol=1e-12, atol=1e-15)


def test_leaky_relu_is_the_identity_above_the_kink_and_a_share_of_it_below():
    leaky = Activation("leaky_relu", negative_slope=0.25)
    z = np.array([-2.0, 0.0, 3.0])
    assert leaky(z).tolist() == [-0.5, 0.0, 3.0]
    assert leaky.slope(z).tolist() == [0.25, 0.25, 1.0]
    smooth = leaky.smoothed(1e-9)
    np.testing.assert_allclose(smooth(z), leaky(z), atol=1e-9)


def test_the_smooth_ones_keep_their_digits_in_the_tails():
    """To leading order: ln(1 + e^z) ~ e^z, tanh′ ~ 4e^{2z}, zΦ(z) ~ −φ(z)."""
    softplus, tanh, gelu = (Activation(name) for name in ("softplus", "tanh", "gelu"))
    z = np.array([-40.0])
    np.testing.assert_allclose(softplus(z), np.exp(z), rtol=1e-14)
    np.testing.assert_allclose(softplus.slope(z), np.exp(z), rtol=1e-14)
    np.testing.assert_allclose(tanh.slope(z), 4 * np.exp(2 * z), rtol=1e-14)
    np.testing.assert_allclose(gelu(z[:1] / 2), -np.exp(-200) / np.sqrt(2 * np.pi), rtol=3e-3)
    assert softplus(-2 * z)[0] == 80.0


def test_gelu_is_what_the_standard_library_says():
    z = np.linspace(-3, 3, 13)
    expected = [x * NormalDist().cdf(x) for x in z]
    np.testing.assert_allclose(Activation("gelu")(z), expected, rtol=1e-14, atol=1e-16)


def test_smooth_relu_is_half_epsilon_with_slope_a_half_at_the_kink():
    smooth = Activation("smooth_relu", 0.3)
    zero = np.zeros(1)
    assert smooth(zero)[0] == 0.15
    assert smooth.slope(zero)[0] == 0.5
    np.testing.assert_allclose(smooth.curvature(zero), 1 / 0.6, rtol=1e-15)


def test_smooth_relu_keeps_its_digits_far_below_zero():
    z = -np.array([1e2, 1e4, 1e6])
    smooth = Activation("smooth_relu", 1e-3)
    # σ = ε²/(4|z|) to relative order (ε/z)²; z + √(z² + ε²) would be pure rounding error here.
    np.testing.assert_allclose(smooth(z), 1e-6 / (4 * np.abs(z)), rtol=1e-9)
    np.testing.assert_allclose(smooth.slope(z), 1e-6 / (4 * z**2), rtol=1e-9)


def test_relu_and_linear_at_chosen_points():
    z = np.array([-2.0, 0.0, 3.0])
    relu, linear = Activation("relu"), Activation("linear")
    assert relu(z).tolist() == [0.0, 0.0, 3.0]
    assert relu.slope(z).tolist() == [0.0, 0.0, 1.0]
    assert relu.curvature(z).tolist() == [0.0, 0.0, 0.0]
    assert linear(z).tolist() == z.tolist()
    assert linear.slope(z).tolist() == [1.0, 1.0, 1.0]
    assert relu(z + 1e-30j).imag.tolist() == [0.0, 0.0, 1e-30]


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
def test_casadi_form_agrees_with_numpy(activation):
    z = np.linspace(-3, 3, 31)  # contains the kink
    symbol, width = casadi.SX.sym("z", z.size), casadi.SX.sym("epsilon")
    code = activation.code
    alpha = activation.negative_slope
    both = [casadi_value(symbol, code, width, alpha), casadi_slope(symbol, code, width, alpha)]
    evaluate = casadi.Function("f", [symbol, width], both)
    value, slope = (np.array(out).ravel() for out in evaluate(z, activation.epsilon))
    np.testing.assert_allclose(value, activation(z), atol=1e-15)
    np.testing.assert_allclose(slope, activation.slope(z), atol=1e-15)


def test_codes_are_those_the_kernels_switch_on():
    assert [activation.code for activation in ALL] == list(range(8))
    assert set(CODES) == {activation.name for activation in ALL}


def test_only_what_has_a_kink_is_smoothed():
    assert Activation("relu").smoothed(0.05) == Activation("smooth_relu", 0.05)
    leaky = Activation("leaky_relu", negative_slope=0.3)
    assert leaky.smoothed(0.05) == Activation("smooth_leaky_relu", 0.05, 0.3)
    assert [sigma.name for sigma in ALL if sigma.kinked] == ["relu", "leaky_relu"]
    assert Activation("linear").smoothed(0.05) == Activation("linear")
    assert Activation("smooth_relu", 0.2).smoothed(0.05) == Activation("smooth_relu", 0.2)
    assert Activation("smooth_relu", 0.2).at(0.05) == Activation("smooth_relu", 0.05)
    assert Activation("tanh").at(0.05) == Activation("tanh")


@pytest.mark.parametrize(
    ("name", "epsilon", "complaint"),
    [
        ("cubic", 0.0, "activation: expected one of"),
        ("tanh", 0.1, "epsilon: only smooth_relu and smooth_leaky_relu have one, got 0.1 with 'ta"),
        ("leaky_relu", 0.0, "negative_slope: leaky_relu needs a number between 0 and 1, got 0.0"),
        ("smooth_relu", 0.0, "epsilon: smooth_relu needs"),
        ("smooth_relu", float("nan"), "epsilon: smooth_relu needs"),
        ("smooth_relu", float("inf"), "epsilon: smooth_relu needs"),
        ("relu", 0.1, "epsilon: only smooth_relu"),
    ],
)
def test_a_wrong_activation_is_refused(name, epsilon, complaint):
    with pytest.raises(ValueError, match=complaint):
        Activation(name, epsilon)


@settings(deadline=None)
@given(first=st.floats(1e-2, 1.0), ratio=st.floats(1e-4, 1.0), factor=st.floats(0.2, 0.9))
def test_ladder_descends_evenly_from_first_to_last(first, ratio, factor):
    last = first * ratio
    ladder = np.array(epsilon_ladder(first, last, factor))
    assert ladder[0] == first
    assert ladder[-1] == last
    ratios = ladder[1:] / ladder[:-1]
    assert np.all(ratios >= factor * (1 - 1e-6))
    if len(ratios) > 1:
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
        # One stage fewer would be too steep.
        assert ratio ** (1 / (len(ratios) - 1)) < factor


@pytest.mark.parametrize(
    "arguments", [(0.1, 0.2), (0.1, 0.0), (0.1, 0.01, 1.0), (0.1, 0.01, 0.0), (0.1, float("nan"))]
)
def test_a_wrong_ladder_is_refused(arguments):
    with pytest.raises(ValueError, match="epsilon ladder"):
        epsilon_ladder(*arguments)
