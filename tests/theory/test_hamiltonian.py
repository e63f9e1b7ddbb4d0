"""The Hamiltonian flow is the gradient of H, conserves H and follows from the control problem."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SIGMAS
from scipy.optimize import brentq

from hamshoot.problem.activations import Activation
from hamshoot.theory import hamiltonian as ham

TINY = 1e-30  # complex step
activations = st.sampled_from(
    SIGMAS
)


@st.composite
def nodes(draw):
    """A random point of phase space with its settings."""
    w, n = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    keywords = {
        "effective_depth": draw(st.floats(0.5, 8.0)),
        "activation": draw(activations),
        "bias": draw(st.booleans()),
    }
    A, B = rng.normal(size=(2, w, n))
    return A, B, rng, keywords


def smooth_start(w, n, seed=0, scale=0.15):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(w, n)), scale * rng.normal(size=(w, n))


@settings(deadline=None, max_examples=60)
@given(nodes())
def test_flow_is_the_symplectic_gradient_of_the_hamiltonian(node):
    A, B, rng, keywords = node
    a, b = rng.normal(size=(2, *A.shape))
    velocity, force = ham.flow(A, B, **keywords)
    along_a = ham.hamiltonian(A + 1j * TINY * a, B, **keywords).imag / TINY
    along_b = ham.hamiltonian(A, B + 1j * TINY * b, **keywords).imag / TINY
    scale = keywords["effective_depth"] * (1 + np.sum(B**2)) * (1 + np.sum(A**2)) * 10
    assert abs(along_a + np.sum(force * a)) < 1e-14 * scale
    assert abs(along_b - np.sum(velocity * b)) < 1e-14 * scale


@settings(deadline=None, max_examples=60)
@given(nodes())
def test_flow_derivative_agrees_with_the_complex_step(node):
    A, B, rng, keywords = node
    a, b = rng.normal(size=(2, *A.shape))
    exact = ham.flow_derivative(A, B, a, b, **keywords)
    stepped = ham.flow(A + 1j * TINY * a, B + 1j * TINY * b, **keywords)
    for ours, theirs in zip(exact, stepped, strict=True):
        scale = 1 + np.abs(ours).max()
        np.testing.assert_allclose(ours, theirs.imag / TINY, rtol=0, atol=1e-11 * scale)


@settings(deadline=None, max_examples=30)
@given(nodes())
def test_second_derivatives_are_symmetric(node):
    A, B, rng, keywords = node
    a, b, c, d = rng.normal(size=(4, *A.shape))
    da, db = ham.flow_derivative(A, B, a, b, **keywords)
    dc, dd = ham.flow_derivative(A, B, c, d, **keywords)
    # H''((a,b),(c,d)) with H_B = velocity and H_A = -force.
    one, other = np.sum(da * d) - np.sum(db * c), np.sum(dc * b) - np.sum(dd * a)
    assert abs(one - other) < 1e-12 * (1 + abs(one)) * (1 + np.sum(B**2)) * (1 + np.sum(A**2))


@settings(deadline=None, max_examples=30)
@given(nodes())
def test_stationary_control_maximises_the_control_hamiltonian(node):
    """H(A, B) = max over W of <B, −L̃A + Wσ̂> − ‖W‖²/(2L̃)."""
    A, B, rng, keywords = node
    depth, S = (
        keywords["effective_depth"],
        ham.augmented(A, keywords["activation"], node[3]["bias"]),
    )

    def pontryagin(W):
        return np.sum(B * (W @ S - depth * A)) - np.sum(W * W) / (2 * depth)

    W = ham.control(A, B, **keywords)
    H = ham.hamiltonian(A, B, **keywords)
    assert abs(pontryagin(W) - H) < 1e-12 * (1 + np.sum(W * W))
    change = rng.normal(size=W.shape)
    fall = pontryagin(W) - pontryagin(W + change)
    assert abs(fall - np.sum(change**2) / (2 * depth)) < 1e-11 * (1 + np.sum(W * W)) * depth


@settings(deadline=None, max_examples=30)
@given(nodes())
def test_momentum_is_the_costate_of_the_controlled_network(node):
    """<B, a> is constant when a obeys the dynamics linearised at fixed W; so B carries −∇C/λ."""
    A, B, rng, keywords = node
    depth, activation = keywords["effective_depth"], keywords["activation"]
    W = ham.control(A, B, **keywords)
    a = rng.normal(size=A.shape)
    carried = -depth * a + W[:, : A.shape[0]] @ (activation.slope(A) * a)
    rate = np.sum(ham.force(A, B, **keywords) * a) + np.sum(B * carried)
    assert abs(rate) < 1e-12 * (1 + np.sum(W**2)) * (1 + np.sum(a**2))
    moved = ham.velocity(A, B, **keywords)
    S = ham.augmented(A, activation, keywords["bias"])
    np.testing.assert_allclose(moved, W @ S - depth * A, atol=1e-12 * (1 + np.abs(moved).max()))


def test_terminal_momentum_is_minus_the_loss_gradient_over_lambda():
    rng = np.random.default_rng(3)
    A1, readout, targets = rng.normal(size=(4, 9)), rng.normal(size=(2, 4)), rng.normal(size=(2, 9))
    a = rng.normal(size=A1.shape)
    slope = ham.loss(A1 + 1j * TINY * a, readout, targets).imag / TINY
    momentum = ham.terminal_momentum(A1, readout, targets, 0.01)
    np.testing.assert_allclose(np.sum(momentum * a), -slope / 0.01, rtol=1e-13)
    np.testing.assert_allclose(
        ham.loss(A1, readout, targets), np.mean(np.sum((readout @ A1 - targets) ** 2, axis=0))
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["linear", "smooth_relu"])
def test_hamiltonian_is_conserved_along_the_flow(name, bias):
    activation = Activation(name, 0.3 if name == "smooth_relu" else 0.0)
    keywords = {"effective_depth": 2.0, "activation": activation, "bias": bias}
    _, A, B = ham.integrate(*smooth_start(3, 5), 0.0, 1.0, 800, **keywords)
    H = [ham.hamiltonian(a, b, **keywords) for a, b in zip(A, B, strict=True)]
    assert ham.hamiltonian_drift(H) < 1e-10
    assert np.linalg.norm(A[-1] - A[0]) > 0.5  # something moved
    assert np.linalg.norm(B[-1] - B[0]) > 0.5


def test_integrator_is_of_fourth_order_and_reversible():
    keywords = {"effective_depth": 2.0, "activation": Activation("smooth_relu", 0.5), "bias": True}
    A0, B0 = smooth_start(3, 5)
    ends = [ham.integrate(A0, B0, 0.0, 1.0, m, **keywords)[1][-1] for m in (40, 80, 160)]
    ratio = np.linalg.norm(ends[0] - ends[1]) / np.linalg.norm(ends[1] - ends[2])
    assert 13 < ratio < 19
    p, A, B = ham.integrate(A0, B0, 0.0, 1.0, 400, **keywords)
    assert p[0] == 0.0
    assert p[-1] == 1.0
    _, back_A, back_B = ham.integrate(A[-1], B[-1], 1.0, 0.0, 400, **keywords)
    np.testing.assert_allclose(back_A[-1], A0, atol=1e-9)
    np.testing.assert_allclose(back_B[-1], B0, atol=1e-9)


def test_integrate_matches_the_formula_for_an_idle_network():
    """B = 0 is invariant: A decays like e^{−L̃p}."""
    A0 = np.array([[1.0, -2.0], [0.5, 3.0]])
    keywords = {"effective_depth": 3.0, "activation": Activation("relu"), "bias": True}
    p, A, B = ham.integrate(A0, 0 * A0, 0.0, 1.0, 200, **keywords)
    np.testing.assert_allclose(A, np.exp(-3.0 * p)[:, None, None] * A0, rtol=1e-8)
    assert not B.any()


# ---- saltation: a ReLU path over the instant at which one entry crosses zero


@dataclass
class FrozenRelu:
    """ReLU on one side of a crossing, continued smoothly past it."""

    active: np.ndarray

    def __call__(self, z):
        return self.active * z

    def slope(self, z):
        return self.active + 0 * z

    def curvature(self, z):
        return 0 * z


ENTRY = (1, 2)


def cross(x, before, after, start, end, keywords):
    """State at `end` of the path from x at `start`, changing pattern when A[ENTRY] = 0."""

    def run(state, p0, p1, active):
        settings_ = {**keywords, "activation": FrozenRelu(active)}
        _, A, B = ham.integrate(*state, p0, p1, 40, **settings_)
        return A[-1], B[-1]

    instant = brentq(
        lambda p: run(x, start, p, before)[0][ENTRY], 0.5 * start, 0.5 * end, xtol=1e-15
    )
    return run(run(x, start, instant, before), instant, end, after)


def carry_variation(x, v, p0, p1, active, keywords, steps=100):
    """Solve the variational equation by the RK4 rule along the path through x."""
    settings_ = {**keywords, "activation": FrozenRelu(active)}

    def field(y):
        return np.stack([*ham.flow(y[0], y[1], **settings_), *ham.flow_derivative(*y, **settings_)])

    y, h = np.stack([*x, *v]), (p1 - p0) / steps
    for _ in range(steps):
        k1 = field(y)
        k2 = field(y + h / 2 * k1)
        k3 = field(y + h / 2 * k2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + field(y + h * k3))
    return y[:2], y[2:]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", [4, 6, 7])
def test_saltation_carries_variations_over_a_relu_kink(seed, bias):
    rng = np.random.default_rng(seed)
    A = rng.uniform(0.4, 1.5, size=(3, 4)) * rng.choice([-1, 1], size=(3, 4))
    B = rng.normal(size=(3, 4))
    A[ENTRY] = 0.0
    keywords = {"effective_depth": 1.5, "bias": bias}
    relu = Activation("relu")
    speed = ham.velocity(A, B, activation=relu, **keywords)[ENTRY]
    before, after = (A > 0).astype(float), (A > 0).astype(float)
    before[ENTRY], after[ENTRY] = speed < 0, speed > 0

    span = 0.01
    crossing = np.stack([A, B])
    back = {**keywords, "activation": FrozenRelu(before)}
    path = ham.integrate(A, B, 0.0, -span, 40, **back)
    start = np.stack([path[1][-1], path[2][-1]])

    v = rng.normal(size=(2, *A.shape))
    d = 1e-6
    plus = np.stack(cross(start + d * v, before, after, -span, span, keywords))
    minus = np.stack(cross(start - d * v, before, after, -span, span, keywords))
    quotient = (plus - minus) / (2 * d)

    _, arriving = carry_variation(start, v, -span, 0.0, before, keywords)
    leaving = np.stack(ham.saltation(A, B, *arriving, ENTRY, **keywords))
    _, exact = carry_variation(crossing, leaving, 0.0, span, after, keywords)
    _, without = carry_variation(crossing, arriving, 0.0, span, after, keywords)
    np.testing.assert_allclose(exact, quotient, atol=1e-7)
    assert np.abs(without - quotient).max() > 1e-2  # the kick is not negligible


def test_saltation_is_symplectic():
    rng = np.random.default_rng(6)
    A, B, a, b, c, d = rng.normal(size=(6, 3, 4))
    A[ENTRY] = 0.0
    a1, b1 = ham.saltation(A, B, a, b, ENTRY, effective_depth=2.0)
    A[ENTRY] = 1e-2  # stands for the rounding an event finder leaves; taken as 0
    c1, d1 = ham.saltation(A, B, c, d, ENTRY, effective_depth=2.0)
    assert A[ENTRY] == 1e-2  # and not overwritten
    before, after = np.sum(a * d) - np.sum(b * c), np.sum(a1 * d1) - np.sum(b1 * c1)
    assert abs(before - after) < 1e-13 * (1 + abs(before))
    assert np.abs(b1 - b).max() > 1e-3


def test_a_grazing_entry_has_no_saltation():
    A, B = np.zeros((2, 3)), np.zeros((2, 3))
    with pytest.raises(ValueError, match="entry: expected an entry of A that crosses"):
        ham.saltation(A, B, A, B, (0, 0), effective_depth=1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda k: ham.velocity(np.zeros((2, 3)), np.zeros((3, 2)), **k),
        lambda k: ham.hamiltonian(np.zeros(3), np.zeros(3), **k),
        lambda k: ham.integrate(np.zeros((2, 3)), np.zeros((2, 4)), 0.0, 1.0, 3, **k),
    ],
)
def test_shapes_that_differ_are_refused(call):
    with pytest.raises(ValueError, match="A, B: expected two arrays of one shape"):
        call({"effective_depth": 1.0, "activation": Activation("relu"), "bias": True})


@pytest.mark.parametrize("steps", [0, -3, 2.5])
def test_a_wrong_number_of_steps_is_refused(steps):
    zero = np.zeros((2, 3))
    with pytest.raises(ValueError, match="steps: expected an integer >= 1"):
        ham.integrate(
            zero, zero, 0.0, 1.0, steps, effective_depth=1.0, activation=Activation("relu")
        )
