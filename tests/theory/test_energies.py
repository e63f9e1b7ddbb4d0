"""Cost of identity, kinetic energy, the exact identity, Theorem 4 and the stable rank."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from hamshoot.problem.activations import Activation
from hamshoot.theory import energies
from hamshoot.theory import hamiltonian as ham

RELU = Activation("relu")
SMOOTH = Activation("smooth_relu", 0.3)


@st.composite
def nodes(draw):
    w, n = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    keywords = {
        "activation": draw(st.sampled_from([Activation("linear"), RELU, SMOOTH])),
        "bias": draw(st.booleans()),
    }
    A, B = rng.normal(size=(2, w, n))
    return A, B, draw(st.floats(0.5, 8.0)), keywords


@pytest.fixture(scope="module")
def path():
    """A path of the smooth-ReLU flow with H constant to 1e-11: p, A, B and the settings."""
    rng = np.random.default_rng(0)
    keywords = {"effective_depth": 2.0, "activation": SMOOTH, "bias": True}
    A0, B0 = rng.normal(size=(3, 5)), 0.15 * rng.normal(size=(3, 5))
    p, A, B = ham.integrate(A0, B0, 0.0, 1.0, 800, **keywords)
    return p[::20], A[::20], B[::20], keywords


# ---- the kernel norm


def kernel(A, activation, bias=True):
    """K = σ̂ᵀσ̂, which the library never forms."""
    S = ham.augmented(A, activation, bias)
    return S.T @ S


@settings(deadline=None, max_examples=60)
@given(node=nodes(), gamma=st.floats(1e-3, 10.0))
def test_kernel_norm_is_the_trace_with_the_shifted_inverse(node, gamma):
    A, M, _, keywords = node
    shifted = kernel(A, **keywords) + gamma * np.eye(A.shape[1])
    expected = np.trace(M @ np.linalg.inv(shifted) @ M.T)
    got = energies.kernel_norm_squared(M, A, gamma=gamma, **keywords)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@settings(deadline=None, max_examples=60)
@given(node=nodes())
def test_kernel_norm_without_shift_is_the_pseudo_inverse(node):
    A, M, _, keywords = node
    S = ham.augmented(A, **keywords)
    s = np.linalg.svd(S, compute_uv=False)
    assume(np.all((s < 1e-12) | (s > 1e-3)))  # a clear rank
    expected = np.sum((M @ np.linalg.pinv(S)) ** 2)
    np.testing.assert_allclose(energies.kernel_norm_squared(M, A, **keywords), expected, rtol=1e-8)


@pytest.mark.parametrize("shape", [(4, 30), (30, 4), (8, 9)])
@pytest.mark.parametrize("gamma0", [1e-10, 1e-7, 1e-3])
def test_kernel_norm_keeps_its_digits_for_a_small_shift(shape, gamma0):
    """Against singular values; (‖M‖² − M σ̂ᵀ(…)σ̂ Mᵀ)/γ would lose ten digits at γ₀ = 1e-10."""
    rng = np.random.default_rng(1)
    A, extra = rng.normal(size=shape), rng.normal(size=shape)
    gamma = energies.stability_shift(A, gamma0, activation=SMOOTH)
    S = ham.augmented(A, SMOOTH)
    np.testing.assert_allclose(gamma, gamma0 * np.linalg.norm(S, 2) ** 2, rtol=1e-12)
    M = rng.normal(size=(3, S.shape[0])) @ S + 1e-6 * extra[:3]  # almost in the row space
    _, s, Vt = np.linalg.svd(S, full_matrices=False)
    inside = M @ Vt.T
    outside = M - inside @ Vt
    expected = np.sum(inside**2 / (s**2 + gamma)) + np.sum(outside**2) / gamma
    got = energies.kernel_norm_squared(M, A, activation=SMOOTH, gamma=gamma)
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_the_shift_tends_to_the_pseudo_inverse_from_below():
    rng = np.random.default_rng(2)
    A = rng.normal(size=(4, 3))
    exact = energies.cost_of_identity(A, activation=SMOOTH)
    gaps = [
        exact - energies.cost_of_identity(A, activation=SMOOTH, gamma=g) for g in (1e-2, 1e-3, 1e-4)
    ]
    assert np.all(np.array(gaps) > 0)
    np.testing.assert_allclose(gaps[1] / gaps[2], 10, rtol=0.1)


def test_stable_cost_of_identity_has_the_derivative_of_its_difference_quotient():
    rng = np.random.default_rng(3)
    A, a = rng.normal(size=(2, 4, 9))

    def coi(M):
        return energies.cost_of_identity(M, activation=SMOOTH, gamma=0.1)

    exact = coi(A + 1e-30j * a).imag / 1e-30
    quotient = (coi(A + 1e-5 * a) - coi(A - 1e-5 * a)) / 2e-5
    np.testing.assert_allclose(exact, quotient, rtol=1e-7)


# ---- energies


@settings(deadline=None, max_examples=60)
@given(node=nodes())
def test_hamiltonian_is_kinetic_plus_potential_up_to_the_rows_outside_the_image(node):
    """T + V − H = L̃ Tr(B (I − Π) Aᵀ), Π the projector on the row space of σ̂."""
    A, B, depth, keywords = node
    S = ham.augmented(A, **keywords)
    s = np.linalg.svd(S, compute_uv=False)
    assume(np.all((s < 1e-12) | (s > 1e-2)))
    energy = {"effective_depth": depth, **keywords}
    v = ham.velocity(A, B, **energy)
    total = energies.kinetic_energy(A, v, **energy) + energies.potential_energy(A, **energy)
    outside = A - A @ (np.linalg.pinv(S) @ S)
    excess = total - ham.hamiltonian(A, B, **energy)
    scale = depth * (1 + np.sum((B @ S.T) ** 2) + energies.cost_of_identity(A, **keywords))
    assert abs(excess - depth * np.sum(B * outside)) < 1e-9 * scale


def test_hamiltonian_is_kinetic_plus_potential_when_the_image_condition_holds():
    rng = np.random.default_rng(4)
    keywords = {"effective_depth": 3.0, "activation": SMOOTH, "bias": True}
    for n, holds in ((5, True), (12, False)):  # up to w + 1 samples Im σ̂ᵀ is everything
        A, B = rng.normal(size=(2, 4, n))
        v = ham.velocity(A, B, **keywords)
        total = energies.kinetic_energy(A, v, **keywords) + energies.potential_energy(A, **keywords)
        gap = abs(total - ham.hamiltonian(A, B, **keywords))
        assert gap < 1e-9 if holds else gap > 1e-2


@settings(deadline=None, max_examples=100)
@given(node=nodes(), exponent=st.floats(-6, 2))
def test_exact_identity_holds_at_every_point_of_phase_space(node, exponent):
    A, B, depth, keywords = node
    gamma = energies.stability_shift(A, 10.0**exponent, **keywords)
    assume(gamma > 0)  # 0 only for a ReLU layer that is dead without bias
    residual = energies.identity_residual(A, B, gamma, effective_depth=depth, **keywords)
    H = ham.hamiltonian(A, B, effective_depth=depth, **keywords)
    v = ham.velocity(A, B, effective_depth=depth, **keywords) / depth
    terms = [
        2 * H / depth,
        energies.cost_of_identity(A, gamma=gamma, **keywords),
        energies.kernel_norm_squared(v + gamma * B, A, gamma=gamma, **keywords),
        gamma * np.sum(B**2),
    ]
    assert abs(residual) < 1e-9 * max(map(abs, terms))


def test_path_energies_are_those_of_the_nodes(path):
    p, A, B, keywords = path
    along = energies.path_energies(p, A, B, gamma0=1e-2, **keywords)
    assert all(series.shape == p.shape for series in along)
    depth, node = keywords["effective_depth"], {"activation": SMOOTH, "bias": True}
    assert ham.hamiltonian_drift(along.hamiltonian) < 1e-10
    i = 7
    a, v = A[i], ham.velocity(A[i], B[i], **keywords)
    gamma = energies.stability_shift(a, 1e-2, **node)
    expected = {
        "hamiltonian": ham.hamiltonian(a, B[i], **keywords),
        "kinetic": np.sum((v @ np.linalg.pinv(ham.augmented(a, SMOOTH))) ** 2) / (2 * depth),
        "cost_of_identity": energies.cost_of_identity(a, **node),
        "potential": energies.potential_energy(a, **keywords),
        "gamma": gamma,
        "stable_kinetic": energies.kinetic_energy(a, v, gamma=gamma, **keywords),
        "stable_potential": energies.potential_energy(a, gamma=gamma, **keywords),
        "stable_cost_of_identity": energies.cost_of_identity(a, gamma=gamma, **node),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(along, name)[i], value, rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(along.potential, -along.cost_of_identity * depth / 2)
    np.testing.assert_allclose(along.stable_potential, -along.stable_cost_of_identity)


# ---- Theorem 4


@pytest.mark.parametrize("gamma", [1e-4, 1e-2, 1.0])
def test_theorem_4_holds_along_the_flow(path, gamma):
    p, A, B, keywords = path
    bounds = energies.theorem4_bounds(p, A, B, gamma, **keywords)
    assert bounds.holds
    assert bounds.rank_lower <= bounds.rank_gap <= bounds.rank_upper
    assert bounds.speed_lower <= bounds.speed_gap.min()
    assert bounds.speed_gap.max() <= bounds.speed_upper


def test_theorem_4_terms_are_what_they_are_said_to_be(path):
    p, A, B, keywords = path
    depth, gamma = keywords["effective_depth"], 1e-2
    bounds = energies.theorem4_bounds(p, A, B, gamma, **keywords)
    inverses = [np.linalg.inv(kernel(a, SMOOTH) + gamma * np.eye(5)) for a in A]
    H = ham.hamiltonian(A[0], B[0], **keywords)
    coi = np.array([np.trace(a @ k @ a.T) for a, k in zip(A, inverses, strict=True)])
    velocities = [ham.velocity(a, b, **keywords) for a, b in zip(A, B, strict=True)]
    speed = np.sqrt([np.trace(v @ k @ v.T) for v, k in zip(velocities, inverses, strict=True)])
    c = max(np.linalg.norm(b) ** 2 for b in B)
    length = trapezoid(speed, p)
    np.testing.assert_allclose(bounds.momentum_bound, c)
    np.testing.assert_allclose(bounds.length, length)
    np.testing.assert_allclose(bounds.rank_gap, -2 / depth * H - coi.min(), rtol=1e-8)
    np.testing.assert_allclose(bounds.rank_upper, gamma * c)
    np.testing.assert_allclose(bounds.rank_lower, -((length / depth + np.sqrt(gamma * c)) ** 2))
    root = np.sqrt(np.maximum(coi + 2 * H / depth, 0))
    np.testing.assert_allclose(bounds.speed_gap, speed - depth * root, atol=1e-8)
    np.testing.assert_allclose(bounds.speed_lower, -depth * np.sqrt(gamma * c))
    np.testing.assert_allclose(bounds.speed_upper, 2 * depth * np.sqrt(gamma * c))


def test_the_speed_law_of_theorem_4_becomes_exact_when_the_image_condition_holds():
    """Up to w + 1 samples K is invertible, and the speed is L̃√(COI + 2H/L̃) as γ → 0."""
    rng = np.random.default_rng(4)
    keywords = {"effective_depth": 2.0, "activation": SMOOTH, "bias": True}
    A0, B0 = rng.normal(size=(3, 3)), 0.15 * rng.normal(size=(3, 3))
    p, A, B = ham.integrate(A0, B0, 0.0, 1.0, 400, **keywords)
    gaps = [
        np.abs(energies.theorem4_bounds(p, A, B, g, **keywords).speed_gap).max()
        for g in (1e-5, 1e-6)
    ]
    assert gaps[0] > 1e-5
    np.testing.assert_allclose(gaps[0] / gaps[1], 10, rtol=0.05)


def test_theorem_4_takes_one_shift_a_node(path):
    p, A, B, keywords = path
    gammas = np.array([energies.stability_shift(a, 1e-2, activation=SMOOTH) for a in A])
    bounds = energies.theorem4_bounds(p, A, B, gammas, **keywords)
    assert bounds.holds
    expected = max(g * np.linalg.norm(b) ** 2 for g, b in zip(gammas, B, strict=True))
    np.testing.assert_allclose(bounds.rank_upper, expected)


def test_theorem_4_fails_off_the_flow(path):
    p, A, B, keywords = path
    shuffled = np.random.default_rng(0).permutation(B)
    assert not energies.theorem4_bounds(p, A, shuffled, 1e-4, **keywords).holds


# ---- ranks and summaries


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), w=st.integers(1, 6), n=st.integers(1, 12))
def test_cost_of_identity_is_at_least_the_stable_rank(seed, w, n):
    """Proposition 1: ReLU without bias, A in the image (here A ≥ 0 or as many samples as rank)."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(w, n))
    S = ham.augmented(A, RELU, False)
    assume(np.linalg.matrix_rank(np.vstack([S, A])) == np.linalg.matrix_rank(S))
    coi = energies.cost_of_identity(A, activation=RELU, bias=False)
    assert coi >= energies.stable_rank(A) * (1 - 1e-9)


def test_stable_rank_of_matrices_with_known_singular_values():
    rng = np.random.default_rng(6)
    Q, _ = np.linalg.qr(rng.normal(size=(5, 3)))
    np.testing.assert_allclose(energies.stable_rank(Q), 3.0)
    np.testing.assert_allclose(energies.stable_rank(Q @ np.diag([3.0, 4.0, 0.0])), 49 / 25)
    np.testing.assert_allclose(energies.stable_rank(np.outer([1.0, 2.0], [3.0, 4.0, 5.0])), 1.0)
    assert energies.stable_rank(np.zeros((2, 3))) == 0.0


def test_rank_estimate_and_drift_of_given_values():
    assert ham.bottleneck_rank([-3.0, -4.5, -9.0], 3.0) == 3.0
    assert ham.bottleneck_rank(-2.0, 4.0) == 1.0
    np.testing.assert_allclose(ham.hamiltonian_drift([-4.0, -4.1, -4.2]), 0.2 / 4.1)
    np.testing.assert_allclose(ham.hamiltonian_drift([0.1, 0.2, 0.4]), 0.3)  # small |H|: absolute


def test_wrong_shifts_and_shapes_are_refused(path):
    p, A, B, keywords = path
    node = {"activation": SMOOTH, "bias": True}
    with pytest.raises(ValueError, match="gamma: expected a number >= 0"):
        energies.cost_of_identity(A[0], gamma=-1.0, **node)
    with pytest.raises(ValueError, match="gamma: expected a number >= 0"):
        energies.cost_of_identity(A[0], gamma=float("nan"), **node)
    with pytest.raises(ValueError, match="M: expected 5 columns"):
        energies.kernel_norm_squared(A[0][:, :3], A[0], **node)
    with pytest.raises(ValueError, match="gamma: expected numbers > 0"):
        energies.theorem4_bounds(p, A, B, 0.0, **keywords)
    with pytest.raises(ValueError, match="gamma0: expected a number > 0"):
        energies.path_energies(p, A, B, gamma0=0.0, **keywords)
    with pytest.raises(ValueError, match="p, A, B: expected shapes"):
        energies.path_energies(p[1:], A, B, **keywords)


# ---- other activations


@pytest.mark.parametrize(("name", "slope"), [("tanh", 1.0), ("gelu", 0.5), ("leaky_relu", None)])
def test_the_cost_of_identity_of_small_states_is_their_rank_over_the_squared_slope(name, slope):
    """And of a homogeneous σ it does not change with their scale at all."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(4, 2)) @ rng.normal(size=(2, 9))
    sigma = Activation(name, negative_slope=0.3 if slope is None else 0.0)

    def cost(scale):
        return energies.cost_of_identity(scale * A, activation=sigma, bias=False)

    if slope is None:
        assert cost(1e-3) == pytest.approx(cost(1.0), rel=1e-9)
        return
    S = sigma(1e-4 * A)  # of rank 2 but for σ's curvature, which a γ passes over
    shifted = energies.cost_of_identity(
        1e-4 * A, activation=sigma, bias=False, gamma=1e-6 * np.linalg.norm(S, 2) ** 2)
    assert shifted == pytest.approx(2 / slope**2, rel=1e-3)
