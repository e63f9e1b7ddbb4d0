"""The compiled Hamiltonian flow: equal to the reference, of order 8, exact through ReLU kinks."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import trapezoid

from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.problem.activations import Activation
from hamshoot.theory import hamiltonian as ham

DEPTH = 3.0
SIGMAS = [("smooth_relu", 0.1), ("smooth_relu", 1e-3), ("linear", 0.0), ("relu", 0.0)]
OTHERS = [("tanh", 0.0), ("softplus", 0.0), ("gelu", 0.0), ("smooth_leaky_relu", 0.1)]


def sigma_of(name, epsilon):
    return Activation(name, epsilon, 0.2 * name.endswith("leaky_relu"))


def pair(w, N, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((w, N)), rng.standard_normal((w, N)) / N


def flat(*arrays):
    return np.stack(arrays).reshape(1, -1)


def flow_of(name, epsilon, w, N, bias=True, **options):
    return HamiltonianFlow(w, N, DEPTH, sigma_of(name, epsilon), bias, **options)


def end(flow, A, B, p1, p0=0.0):
    return flow(np.array([p0]), np.array([p1]), flat(A, B))[0].reshape(flow.shape)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "epsilon"), SIGMAS + OTHERS)
def test_the_field_is_that_of_the_reference(name, epsilon, bias):
    A, B = pair(4, 7)
    flow = flow_of(name, epsilon, 4, 7, bias)
    h = 1e-7  # one step of the scheme so short that its increment is the field
    settings = dict(effective_depth=DEPTH, activation=sigma_of(name, epsilon), bias=bias)
    measured = (end(flow, A, B, h) - end(flow, A, B, -h)) / (2 * h)
    np.testing.assert_allclose(measured, np.stack(ham.flow(A, B, **settings)), rtol=0, atol=3e-8)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "epsilon"), SIGMAS[:1] + SIGMAS[2:3] + OTHERS)
def test_stages_equal_the_reference_to_rounding(name, epsilon, bias):
    """One step taken with the kernel equals the same tableau applied to the reference field."""
    from hamshoot.dynamics import _flow_kernels as kernels

    A, B = pair(4, 7)
    settings = dict(effective_depth=DEPTH, activation=sigma_of(name, epsilon), bias=bias)
    y, h, K = np.stack([A, B]), 0.05, []
    for i in range(12):
        at = y + h * sum((kernels._A[i, j] * K[j] for j in range(i)), np.zeros_like(y))
        K.append(np.stack(ham.flow(*at, **settings)))
    expected = y + h * sum(b * k for b, k in zip(kernels._B, K, strict=True))
    flow = flow_of(name, epsilon, 4, 7, bias, rtol=1.0, atol=1.0)
    np.testing.assert_allclose(end(flow, A, B, h), expected, rtol=0, atol=1e-12)
    assert flow.steps[0] == 1


def test_order_of_convergence_is_eight():
    A, B = pair(3, 5)
    loose = flow_of("smooth_relu", 0.5, 3, 5, rtol=1e3, atol=1e3)  # takes each segment in a step
    exact = end(flow_of("smooth_relu", 0.5, 3, 5, rtol=1e-13, atol=1e-14), A, B, 0.4)
    errors = []
    for steps in (2, 4, 8):
        y = np.stack([A, B])
        for k in range(steps):
            y = end(loose, *y, 0.4 * (k + 1) / steps, 0.4 * k / steps)
        errors.append(np.abs(y - exact).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert 7.0 < orders[-1] < 10.0


@pytest.mark.parametrize(("name", "epsilon"), SIGMAS + OTHERS)
def test_the_hamiltonian_is_conserved_and_the_way_back_leads_back(name, epsilon):
    A, B = pair(5, 8)
    flow = flow_of(name, epsilon, 5, 8)
    there = end(flow, A, B, 0.3)
    settings = dict(effective_depth=DEPTH, activation=sigma_of(name, epsilon))
    before, after = ham.hamiltonian(A, B, **settings), ham.hamiltonian(*there, **settings)
    assert abs(after - before) < 1e-10 * max(1, abs(before))
    assert np.abs(there - np.stack([A, B])).max() > 0.1
    np.testing.assert_allclose(end(flow, *there, 0.0, 0.3), np.stack([A, B]), atol=1e-9)


@pytest.mark.parametrize(("name", "epsilon"), SIGMAS + OTHERS)
def test_the_energy_is_the_integral_of_the_squared_control(name, epsilon):
    """∫‖W‖²/(2L̃) = ∫(H + L̃ Tr(BAᵀ)), by quadrature on a fine path."""
    A, B = pair(3, 4)
    flow = flow_of(name, epsilon, 3, 4)
    p = np.linspace(0, 0.3, 401)
    path = [np.stack([A, B])]
    for p0, p1 in pairwise(p):
        path.append(end(flow, *path[-1], p1, p0))
    end(flow, A, B, 0.3)
    sigma = sigma_of(name, epsilon)
    squares = [np.sum(ham.control(a, b, effective_depth=DEPTH, activation=sigma) ** 2)
               for a, b in path]
    assert abs(flow.energies[0] - trapezoid(squares, p) / (2 * DEPTH)) < 1e-4
    H = ham.hamiltonian(A, B, effective_depth=DEPTH, activation=sigma)
    weights = np.ones(401)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    trace = np.sum(weights * [np.sum(a * b) for a, b in path]) * 0.3 / 400 / 3
    tolerance = 1e-5 if name == "relu" else 1e-9
    assert abs(flow.energies[0] - (0.3 * H + DEPTH * trace)) < tolerance


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "epsilon"), SIGMAS + OTHERS)
def test_jacobian_is_the_derivative_of_the_flow(name, epsilon, bias):
    """For ReLU across crossings: without the saltation term the error would be of order 1."""
    A, B = pair(3, 5)
    flow = flow_of(name, epsilon, 3, 5, bias)
    t0, t1, y = np.array([0.0]), np.array([0.2]), flat(A, B)
    _, phi = flow(t0, t1, y, True)
    if name == "relu":
        assert flow.crossings[0] >= 1
    rng = np.random.default_rng(1)
    h, atol = 1e-6, 1e-6 if epsilon == 1e-3 else 2e-8  # σ‴ is of order ε⁻²
    for _ in range(3):
        v = rng.standard_normal(y.shape)
        differences = (flow(t0, t1, y + h * v)[0] - flow(t0, t1, y - h * v)[0]) / (2 * h)
        np.testing.assert_allclose(phi[0] @ v[0], differences[0], rtol=0, atol=atol)
        np.testing.assert_allclose(flow.jvp(t0, t1, y, v), [phi[0] @ v[0]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "epsilon"), SIGMAS + OTHERS)
def test_the_adjoint_is_the_transpose_of_the_jacobian(name, epsilon, bias):
    """To rounding, also across crossings, backwards in depth and over several segments."""
    flow = flow_of(name, epsilon, 3, 5, bias)
    y = np.concatenate([flat(*pair(3, 5, seed)) for seed in (0, 3, 4)])
    t0, t1 = np.array([0.0, 0.3, 0.7]), np.array([0.2, 0.5, 0.6])
    u = np.random.default_rng(1).standard_normal(y.shape)
    _, phi = flow(t0, t1, y, True)
    pulled = flow.vjp(t0, t1, y, u)
    if name == "relu":
        assert flow.crossings.min() >= 1
    assert flow.steps.min() >= 2
    for k in range(3):
        np.testing.assert_allclose(pulled[k], phi[k].T @ u[k], rtol=0,
                                   atol=1e-12 * np.abs(phi[k]).max() * 10)


def test_the_adjoint_is_a_gradient():
    """Of ‖A_1‖²/2 in (A_0, B_0), against central differences."""
    flow = flow_of("smooth_relu", 0.3, 3, 5)
    t0, t1, y = np.zeros(1), np.full(1, 0.5), flat(*pair(3, 5))
    u = flow(t0, t1, y)[0]
    u[:, 15:] = 0.0
    gradient = flow.vjp(t0, t1, y, u)[0]

    def half_square(y):
        return 0.5 * np.sum(flow(t0, t1, y)[0][0, :15] ** 2)

    h = 1e-5
    differences = [(half_square(y + h * e) - half_square(y - h * e)) / (2 * h) for e in np.eye(30)]
    np.testing.assert_allclose(gradient, differences, rtol=1e-7, atol=1e-8)


def test_the_adjoint_of_no_segments_is_empty():
    flow = flow_of("smooth_relu", 0.1, 2, 3)
    assert flow.vjp(np.zeros(0), np.zeros(0), np.zeros((0, 12)), np.zeros((0, 12))).shape == (0, 12)


def test_the_adjoint_of_a_segment_that_fails_is_nan():
    flow = flow_of("smooth_relu", 0.1, 2, 3, max_steps=30)
    A, B = pair(2, 3)
    y = np.concatenate([flat(A, 1e3 * B), flat(A, B)])
    pulled = flow.vjp(np.zeros(2), np.full(2, 0.2), y, np.ones_like(y))
    assert np.isnan(pulled[0]).all()
    assert np.isfinite(pulled[1]).all()


def test_jacobian_equals_the_complex_step():
    A, B = pair(3, 5)
    v = np.random.default_rng(2).standard_normal((2, 3, 5))
    settings = dict(effective_depth=DEPTH, activation=Activation("smooth_relu", 0.3))
    _, a, b = ham.integrate(A + 1e-30j * v[0], B + 1e-30j * v[1], 0, 0.1, 400, **settings)
    flow = flow_of("smooth_relu", 0.3, 3, 5)
    measured = flow.jvp(np.zeros(1), np.full(1, 0.1), flat(A, B), v.reshape(1, -1))
    expected = np.stack([a[-1], b[-1]]).imag / 1e-30
    np.testing.assert_allclose(measured.reshape(2, 3, 5), expected, rtol=0, atol=1e-10)


def test_jacobian_is_symplectic():
    w, N = 3, 4
    n = w * N
    omega = np.block([[np.zeros((n, n)), np.eye(n)], [-np.eye(n), np.zeros((n, n))]])
    for name, epsilon in SIGMAS:
        A, B = pair(w, N)
        phi = flow_of(name, epsilon, w, N)(np.zeros(1), np.full(1, 0.25), flat(A, B), True)[1][0]
        np.testing.assert_allclose(phi.T @ omega @ phi, omega, atol=1e-9 * np.abs(phi).max() ** 2)


def test_a_crossing_is_met_exactly():
    """The reference, which steps over the kink, converges to the same end at first order."""
    A, B = pair(3, 5, seed=3)
    flow = flow_of("relu", 0.0, 3, 5)
    there = end(flow, A, B, 0.2)
    assert flow.crossings[0] >= 1
    errors = []
    for steps in (1000, 4000):
        _, a, b = ham.integrate(A, B, 0, 0.2, steps, effective_depth=DEPTH,
                                activation=Activation("relu"))
        errors.append(np.abs(np.stack([a[-1], b[-1]]) - there).max())
    assert errors[1] < 0.5 * errors[0] < 1e-3


def test_segments_are_independent():
    flow = flow_of("smooth_relu", 0.1, 3, 4)
    pairs = [pair(3, 4, seed) for seed in range(4)]
    y = np.concatenate([flat(*p) for p in pairs])
    t0, t1 = np.array([0, 0.1, 0.5, 0.2]), np.array([0.1, 0.4, 0.6, 0.0])
    ends, phi = flow(t0, t1, y, True)
    for k, (A, B) in enumerate(pairs):
        alone, phi_alone = flow(t0[k : k + 1], t1[k : k + 1], flat(A, B), True)
        np.testing.assert_allclose(ends[k], alone[0], rtol=0, atol=1e-10)
        np.testing.assert_allclose(phi[k], phi_alone[0], rtol=0, atol=1e-9)


def test_a_segment_that_fails_returns_nan_and_the_others_do_not_suffer():
    flow = flow_of("smooth_relu", 0.1, 2, 3, max_steps=30)
    A, B = pair(2, 3)
    y = np.concatenate([flat(A, 1e3 * B), flat(A, B)])
    ends, phi = flow(np.zeros(2), np.full(2, 0.2), y, True)
    assert flow.statuses[0] != 0
    assert flow.statuses[1] == 0
    assert np.isnan(ends[0]).all()
    assert np.isnan(phi[0]).all()
    assert np.isfinite(ends[1]).all()


def test_an_entry_that_touches_zero_is_reported():
    """Slower than `least_speed`, a crossing cannot be told from a slide along the kink."""
    flow = flow_of("relu", 0.0, 1, 1, bias=True, least_speed=1e9)
    end(flow, np.array([[0.1]]), np.array([[-2.0]]), 0.5)
    assert flow.statuses[0] == 3


def test_why_a_segment_has_no_end_is_said():
    A, B = pair(3, 5)
    ends = np.zeros(1), np.ones(1), flat(A, B)
    clean = flow_of("relu", 0.0, 3, 5)
    assert clean.why_lost(*ends) == ""
    assert clean.crossings[0] > 0
    # A crossing that is slower than `least_speed` counts as a grazing one.
    assert "grazes its kink" in flow_of("relu", 0.0, 3, 5, least_speed=1e9).why_lost(*ends)
    assert "more than 3 steps" in flow_of("relu", 0.0, 3, 5, max_steps=3).why_lost(*ends)
    lost = np.zeros(1), np.ones(1), flat(np.full((3, 5), np.inf), B)
    assert clean.why_lost(*lost) == "the flow is not finite"
