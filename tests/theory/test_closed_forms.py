"""The closed forms obey the flow, hit their ends and cannot be improved upon."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import simpson
from scipy.linalg import expm

from hamshoot.problem.activations import Activation
from hamshoot.theory import closed_forms as exact
from hamshoot.theory import hamiltonian as ham

LINEAR, RELU = Activation("linear"), Activation("relu")
seeds = st.integers(0, 10**6)
depths = st.floats(0.5, 5.0)
positive = st.floats(0.2, 5.0)


def path_cost(A, p, depth):
    """Cost of the square invertible path A (M, w, w): W = (∂_pA + L̃A)A⁻¹, Simpson's rule."""
    velocity = np.gradient(A, p, axis=0, edge_order=2)
    W = velocity @ np.linalg.inv(A) + depth * np.eye(A.shape[1])
    return simpson(np.sum(W**2, axis=(1, 2)), x=p) / (2 * depth)


# ---- linear networks


@settings(deadline=None, max_examples=30)
@given(seed=seeds, w=st.integers(1, 5), n=st.integers(1, 8), depth=depths)
def test_linear_path_solves_the_optimality_system(seed, w, n, depth):
    rng = np.random.default_rng(seed)
    A0 = rng.normal(size=(w, n))
    B0 = rng.normal(size=(w, n))
    W0 = B0 @ A0.T / (1 + np.linalg.norm(B0 @ A0.T))  # = L̃ B A_0ᵀ for some B, of norm below 1
    keywords = {"effective_depth": depth, "activation": LINEAR, "bias": False}
    p, h = 0.4, 1e-3
    path = exact.linear_path([0.0, p - h, p, p + h, 1.0], A0, W0, depth)
    np.testing.assert_allclose(path.representations[0], A0, atol=1e-12)
    np.testing.assert_allclose(path.weights[0], W0, atol=1e-12)
    for A, B, W in zip(path.representations, path.momenta, path.weights, strict=True):
        np.testing.assert_allclose(ham.control(A, B, **keywords), W, atol=1e-8)
        np.testing.assert_allclose(np.sum(W**2) / (2 * depth), path.cost, rtol=1e-10)
        np.testing.assert_allclose(ham.hamiltonian(A, B, **keywords), path.hamiltonian, atol=1e-8)
    for series, rate in zip(
        (path.representations, path.momenta),
        ham.flow(path.representations[2], path.momenta[2], **keywords),
        strict=True,
    ):
        quotient = (series[3] - series[1]) / (2 * h)
        scale = 1 + np.abs(series).max()
        np.testing.assert_allclose(quotient, rate, atol=1e-6 * scale * (1 + depth) ** 3)


@pytest.mark.parametrize("shape", [(3, 5), (4, 2), (3, 3)])
def test_linear_path_agrees_with_the_integrated_flow(shape):
    rng = np.random.default_rng(1)
    A0 = rng.normal(size=shape)
    W0 = 0.3 * rng.normal(size=shape) @ A0.T
    path = exact.linear_path(np.linspace(0, 1, 301), A0, W0, 2.0)
    _, A, B = ham.integrate(
        A0, path.momenta[0], 0.0, 1.0, 300, effective_depth=2.0, activation=LINEAR, bias=False
    )
    np.testing.assert_allclose(A, path.representations, atol=1e-7)
    np.testing.assert_allclose(B, path.momenta, atol=1e-7 * np.abs(B).max())
    assert np.linalg.norm(W0 - W0.T) > 0.1  # it turns


def test_linear_path_is_a_relu_path_while_every_entry_stays_positive():
    rng = np.random.default_rng(2)
    A0 = rng.uniform(1.0, 2.0, size=(3, 6))
    W0 = 1.5 * np.eye(3) + 0.2 * rng.normal(size=(3, 3))
    path = exact.linear_path(np.linspace(0, 1, 301), A0, W0, 1.5)
    assert path.representations.min() > 0
    _, A, B = ham.integrate(
        A0, path.momenta[0], 0.0, 1.0, 300, effective_depth=1.5, activation=RELU, bias=False
    )
    np.testing.assert_allclose(A[-1], path.representations[-1], atol=1e-9)
    np.testing.assert_allclose(B[-1], path.momenta[-1], atol=1e-9)


def test_linear_path_cannot_be_improved_by_small_detours():
    rng = np.random.default_rng(3)
    A0 = np.eye(3) + 0.2 * rng.normal(size=(3, 3))
    W0 = 0.4 * rng.normal(size=(3, 3))
    p = np.linspace(0, 1, 801)
    path = exact.linear_path(p, A0, W0, 2.0)
    best = path_cost(path.representations, p, 2.0)
    np.testing.assert_allclose(best, path.cost, rtol=1e-5)
    bump = np.sin(np.pi * p)[:, None, None]
    for _ in range(5):
        detour = 0.05 * bump * rng.normal(size=(3, 3))
        costs = [path_cost(path.representations + s * detour, p, 2.0) for s in (-1, 1)]
        assert min(costs) > best  # in both directions: stationary, and a minimum


def test_a_control_that_no_momentum_gives_is_refused():
    A0 = np.array([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])  # spans the first axis only
    with pytest.raises(ValueError, match="W0: expected effective_depth"):
        exact.linear_path(0.5, A0, np.eye(3), 1.0)
    with pytest.raises(ValueError, match=r"W0: expected shape \(3, 3\)"):
        exact.linear_path(0.5, A0, np.eye(2), 1.0)
    with pytest.raises(ValueError, match="effective_depth: expected a number > 0"):
        exact.linear_path(0.5, A0, np.eye(3), 0.0)


# ---- one sample


@settings(deadline=None, max_examples=40)
@given(seed=seeds, w=st.integers(1, 5), depth=depths)
def test_one_sample_path_joins_its_ends_at_the_stated_cost_and_energy(seed, w, depth):
    rng = np.random.default_rng(seed)
    a0, a1 = rng.uniform(0.1, 2.0, size=(2, w))
    p = np.linspace(0, 1, 51)
    path = exact.one_sample_path(p, a0, a1, depth)
    np.testing.assert_allclose(path.representations[0, :, 0], a0, rtol=1e-10)
    np.testing.assert_allclose(path.representations[-1, :, 0], a1, rtol=1e-10)
    assert path.representations.min() > 0  # stays in the orthant
    squares = np.sum(path.weights**2, axis=(1, 2))
    np.testing.assert_allclose(simpson(squares, x=p) / (2 * depth), path.cost, rtol=1e-10)
    keywords = {"effective_depth": depth, "activation": RELU, "bias": False}
    H = [
        ham.hamiltonian(a, b, **keywords)
        for a, b in zip(path.representations, path.momenta, strict=True)
    ]
    np.testing.assert_allclose(H, path.hamiltonian, atol=1e-10 * (1 + path.cost))
    angle = np.arccos(np.clip(a0 @ a1 / np.linalg.norm(a0) / np.linalg.norm(a1), -1, 1))
    growth = np.log(np.linalg.norm(a1) / np.linalg.norm(a0))
    cost = ((depth + growth) ** 2 + angle**2) / (2 * depth)
    np.testing.assert_allclose(path.cost, cost, rtol=1e-6)
    energy = (growth**2 + angle**2) / (2 * depth) - depth / 2
    np.testing.assert_allclose(path.hamiltonian, energy, atol=1e-6)


@settings(deadline=None, max_examples=10)
@given(seed=seeds, depth=st.floats(0.5, 3.0))
def test_one_sample_path_follows_the_relu_flow(seed, depth):
    a0, a1 = np.random.default_rng(seed).uniform(0.3, 2.0, size=(2, 4))
    path = exact.one_sample_path([0.0, 0.5, 1.0], a0, a1, depth)
    _, A, B = ham.integrate(
        path.representations[0],
        path.momenta[0],
        0.0,
        1.0,
        200,
        effective_depth=depth,
        activation=RELU,
        bias=False,
    )
    np.testing.assert_allclose(A[[0, 100, 200]], path.representations, rtol=1e-6)
    np.testing.assert_allclose(B[[0, 100, 200]], path.momenta, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_no_detour_of_a_relu_sample_is_cheaper(seed):
    """Detours may leave the positive orthant; the least control is (∂_pa + L̃a)σ(a)ᵀ/‖σ(a)‖²."""
    rng = np.random.default_rng(seed)
    a0, a1 = rng.uniform(0.2, 2.0, size=(2, 3))
    p = np.linspace(0, 1, 2001)
    path = exact.one_sample_path(p, a0, a1, 2.0)

    def cost(a):
        push = np.gradient(a, p, axis=0, edge_order=2) + 2.0 * a
        with np.errstate(divide="ignore"):  # infinite where no neuron is active
            squares = np.sum(push**2, axis=1) / np.sum(np.maximum(a, 0) ** 2, axis=1)
        return simpson(squares, x=p) / 4.0

    best = cost(path.representations[:, :, 0])
    np.testing.assert_allclose(best, path.cost, rtol=1e-5)
    left_orthant = False
    for scale in (0.02, 0.1, 0.5, 3.0):
        detour = scale * np.sin(np.pi * p)[:, None] * rng.normal(size=3)
        for sign in (-1, 1):
            a = path.representations[:, :, 0] + sign * detour
            left_orthant |= bool(a.min() < 0)
            assert cost(a) > best
    assert left_orthant


def test_a_sample_that_keeps_its_direction_is_a_scalar():
    a0 = np.array([1.0, 2.0])
    path = exact.one_sample_path([0.0, 1.0], a0, 3 * a0, 2.0)
    W = exact.scalar_weight(1.0, 3.0, 2.0)
    np.testing.assert_allclose(path.cost, W**2 / 4.0, rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(path.weights[1]), W, rtol=1e-14)


@pytest.mark.parametrize(
    ("a0", "a1", "complaint"),
    [
        ([1.0, 2.0], [1.0], "a1: expected shape"),
        ([1.0, 2.0], [0.0, 0.0], "other than 0"),
        ([1.0, 2.0], [-1.0, -2.0], "less than half a turn"),
    ],
)
def test_impossible_ends_are_refused(a0, a1, complaint):
    with pytest.raises(ValueError, match=complaint):
        exact.one_sample_path(0.5, a0, a1, 1.0)


# ---- scalars


@settings(deadline=None)
@given(a0=positive, a1=positive, depth=depths, extra=st.integers(1, 60))
def test_scalar_weights_reach_their_end(a0, a1, depth, extra):
    W = exact.scalar_weight(a0, a1, depth)
    np.testing.assert_allclose(a0 * np.exp(W - depth), a1, rtol=1e-12)
    layers = int(np.ceil(depth)) + extra
    V = exact.scalar_euler_weight(a0, a1, depth, layers)
    a = a0
    for _ in range(layers):
        a = (1 - depth / layers) * a + V / layers * a
    np.testing.assert_allclose(a, a1, rtol=1e-9)
    np.testing.assert_allclose(exact.scalar_euler_weight(-a0, -a1, depth, layers), V, rtol=1e-14)


def test_euler_weight_tends_to_the_continuous_one_at_first_order():
    W = exact.scalar_weight(1.0, 2.5, 3.0)
    errors = [exact.scalar_euler_weight(1.0, 2.5, 3.0, m) - W for m in (1000, 2000)]
    np.testing.assert_allclose(errors[0] / errors[1], 2.0, rtol=1e-3)
    np.testing.assert_allclose(1000 * errors[0], np.log(2.5) ** 2 / 2, rtol=1e-3)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
def test_equal_euler_weights_are_the_cheapest(ratio):
    depth, layers = 2.0, 6
    V = exact.scalar_euler_weight(1.0, ratio, depth, layers)
    rng = np.random.default_rng(4)
    for scale in (0.03, 0.3, 2.0):
        for _ in range(10):
            logs = scale * rng.normal(size=layers)
            factors = np.exp(logs - logs.mean() + np.log(ratio) / layers)  # same product
            W = depth + layers * (factors - 1)
            assert np.sum(W**2) > layers * V**2


@settings(deadline=None, max_examples=30)
@given(
    a0=positive,
    y=positive,
    depth=st.floats(0.5, 7.0),
    decay=st.floats(1e-4, 1.0),
    layers=st.sampled_from([None, 8, 40]),
)
def test_soft_endpoint_is_the_global_minimiser(a0, y, depth, decay, layers):
    arguments = (depth, decay, layers)
    best = exact.scalar_soft_endpoint(a0, y, *arguments)
    ends = np.exp(np.linspace(np.log(a0) - 2 * depth, np.log(10 * y * max(a0, 1)), 801))
    everywhere = [exact.scalar_objective(a0, a, y, *arguments) for a in ends]
    J = exact.scalar_objective(a0, best, y, *arguments)
    assert min(everywhere) >= J - 1e-13 * (1 + J)
    assert best in exact.scalar_stationary_endpoints(a0, y, *arguments)


@settings(deadline=None, max_examples=30)
@given(a0=positive, y=positive, depth=st.floats(0.5, 7.0), decay=st.floats(1e-4, 1.0))
def test_soft_endpoint_satisfies_its_equation_and_transversality(a0, y, depth, decay):
    for a1 in exact.scalar_stationary_endpoints(a0, y, depth, decay):
        pull = depth + np.log(a1 / a0)
        residual = 2 * (a1 - y) * a1 + decay / depth * pull
        assert abs(residual) < 1e-11 * (1 + y * a1 + a1**2)
        momentum = ham.terminal_momentum(np.array([[a1]]), np.eye(1), np.array([[y]]), decay)
        W = ham.control(
            np.array([[a1]]), momentum, effective_depth=depth, activation=RELU, bias=False
        )
        assert abs(W[0, 0] - pull) < 1e-11 * depth / decay * (1 + y * a1 + a1**2)


def test_euler_endpoints_are_stationary_for_the_rolled_out_network():
    a0, y, depth, decay, layers = 1.0, 1.0, 5.0, 0.3, 19

    def objective(W):
        a = np.prod(1 + (W - depth) / layers) * a0
        return (a - y) ** 2 + decay / (2 * depth) * np.sum(W**2) / layers

    ends = exact.scalar_stationary_endpoints(a0, y, depth, decay, layers)
    assert len(ends) == 3
    for a1 in ends:
        W = np.full(layers, exact.scalar_euler_weight(a0, a1, depth, layers))
        for i in range(layers):
            step = np.zeros(layers, complex)
            step[i] = 1e-30j
            assert abs(objective(W + step).imag / 1e-30) < 1e-14
        J = exact.scalar_objective(a0, a1, y, depth, decay, layers)
        np.testing.assert_allclose(objective(W), J, rtol=1e-13)


def test_a_deep_scalar_problem_has_a_collapsed_minimum_beside_the_good_one():
    arguments = (7.0, 0.05)
    low, middle, high = exact.scalar_stationary_endpoints(1.0, 1.0, *arguments)
    values = [exact.scalar_objective(1.0, a, 1.0, *arguments) for a in (low, middle, high)]
    assert values[1] > max(values[0], values[2])
    assert low < 1e-2 < 0.9 < high < 1.0
    assert exact.scalar_soft_endpoint(1.0, 1.0, *arguments) == high
    # A stronger weight decay makes the collapse the better one, then the only one.
    assert exact.scalar_soft_endpoint(1.0, 1.0, 7.0, 0.5) < 1e-2
    assert len(exact.scalar_stationary_endpoints(1.0, 1.0, 7.0, 2.0)) == 1
    # A weak one leaves only the good end: the collapse exists for λ/L̃ > 2e·y·a_0 e^{−L̃} or so.
    assert len(exact.scalar_stationary_endpoints(1.0, 1.0, 7.0, 0.03)) == 1


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: exact.scalar_weight(1.0, -1.0, 1.0), "a0, a1: expected two numbers of one sign"),
        (lambda: exact.scalar_weight(0.0, 1.0, 1.0), "a0, a1: expected two numbers of one sign"),
        (lambda: exact.scalar_weight(1.0, 1.0, -1.0), "effective_depth: expected"),
        (lambda: exact.scalar_euler_weight(1.0, 1.0, 3.0, 3), "layers: expected an integer above"),
        (lambda: exact.scalar_soft_endpoint(-1.0, 1.0, 1.0, 0.1), "a0: expected"),
        (lambda: exact.scalar_soft_endpoint(1.0, 0.0, 1.0, 0.1), "y: expected"),
        (lambda: exact.scalar_soft_endpoint(1.0, 1.0, 1.0, 0.0), "weight_decay: expected"),
        (lambda: exact.aligned_cost([1.0], [1.0, 2.0], 1.0), "s1: expected shape"),
        (lambda: exact.aligned_cost([1.0], [0.0], 1.0), "s0, s1: expected singular values > 0"),
    ],
)
def test_scalars_out_of_range_are_refused(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


# ---- aligned singular frames


@settings(deadline=None, max_examples=20)
@given(seed=seeds, depth=depths)
def test_aligned_cost_is_that_of_the_constant_symmetric_control(seed, depth):
    rng = np.random.default_rng(seed)
    U, V = np.linalg.qr(rng.normal(size=(3, 3)))[0], np.linalg.qr(rng.normal(size=(5, 3)))[0]
    s0, s1 = rng.uniform(0.3, 3.0, size=(2, 3))
    W0 = U @ np.diag(depth + np.log(s1 / s0)) @ U.T
    path = exact.linear_path(1.0, U @ np.diag(s0) @ V.T, W0, depth)
    np.testing.assert_allclose(path.representations[0], U @ np.diag(s1) @ V.T, atol=1e-10)
    np.testing.assert_allclose(exact.aligned_cost(s0, s1, depth), path.cost, rtol=1e-12)
    energy = np.sum(np.log(s1 / s0) ** 2 - depth**2) / (2 * depth)
    np.testing.assert_allclose(path.hamiltonian, energy, atol=1e-10)


def test_no_other_extremal_between_aligned_ends_is_cheaper():
    """Detours of every size, the winding path through −1 included, cost more."""
    rng = np.random.default_rng(5)
    s0, s1, depth = np.array([1.0, 2.0, 0.5]), np.array([0.4, 3.0, 1.0]), 2.0
    p = np.linspace(0, 1, 801)
    growth = np.log(s1 / s0)
    straight = np.array([np.diag(s0 * np.exp(growth * q)) for q in p])
    best = exact.aligned_cost(s0, s1, depth)
    np.testing.assert_allclose(path_cost(straight, p, depth), best, rtol=1e-5)
    for scale in (0.05, 0.3, 1.0):
        for _ in range(4):
            noise = rng.normal(size=(3, 3))
            turn = [expm(scale * np.sin(np.pi * q) * noise) for q in p]
            assert path_cost(np.array(turn) @ straight, p, depth) > best
    spin = rng.normal(size=(3, 3))
    spin = 2 * np.pi * (spin - spin.T) / np.sqrt(0.5 * np.sum((spin - spin.T) ** 2))
    wound = np.array([expm(q * spin) for q in p]) @ straight
    np.testing.assert_allclose(wound[-1], straight[-1], atol=1e-10)  # a full turn
    assert path_cost(wound, p, depth) > best + 1


def test_one_aligned_value_is_a_scalar():
    W = exact.scalar_weight(0.7, 1.9, 3.0)
    np.testing.assert_allclose(exact.aligned_cost([0.7], [1.9], 3.0), W**2 / 6.0, rtol=1e-14)
