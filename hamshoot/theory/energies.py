"""Energies and dimension: cost of identity, kinetic energy, Theorem 4, balancedness.

The formulas are those of the theory page, the docstring of `hamshoot.theory.hamiltonian`; here is
what is measured on a representation, or on a path of them, once it is there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hamshoot.problem.activations import Activation
from hamshoot.theory.hamiltonian import (
    _backward_signal,
    _check_pair,
    augmented,
    hamiltonian,
    velocity,
)

Array = NDArray[Any]


# ---------------------------------------------------------------------------------------------
# One node: energies


def stability_shift(A: Array, gamma0: float, *, activation: Activation, bias: bool = True) -> float:
    """γ = γ₀ ‖σ̂(A)‖²_op, the paper's choice of shift at a node. O(min(w, N)² max(w, N))."""
    return gamma0 * float(np.linalg.norm(augmented(A, activation, bias), 2)) ** 2


def kernel_norm_squared(
    M: Array, A: Array, *, activation: Activation, bias: bool = True, gamma: float = 0.0
) -> Any:
    """‖M‖²_{K+γI} = Tr(M (K + γI)⁻¹ Mᵀ); with γ = 0 the pseudo-inverse, ‖M σ̂⁺‖_F².

    For γ > 0 it is the ridge regression min_Z ‖Z‖² + ‖M − Zσ̂‖²/γ, and is evaluated as such: two
    squares, no cancellation, an error quadratic in that of Z, and nothing N × N.

    Parameters
    ----------
    M, A : (m, N) and (w, N) arrays
        A must be real when γ = 0 (the pseudo-inverse is not a complex-differentiable function).
    gamma : float
        Shift γ ≥ 0.

    Returns
    -------
    scalar. O(w²N + w³).

    Raises
    ------
    ValueError
        If γ is negative or the numbers of samples differ.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma: expected a number >= 0, got {gamma!r}")
    if M.shape[1] != A.shape[1]:
        raise ValueError(
            f"M: expected {A.shape[1]} columns (samples) like A, got an array of shape {M.shape}"
        )
    S = augmented(A, activation, bias)
    if gamma == 0:
        Z = np.linalg.lstsq(S.T, M.T, rcond=None)[0]  # least norm: Zᵀ = (Sᵀ)⁺ Mᵀ
        return np.sum(Z * Z)
    Z = np.linalg.solve(S @ S.T + gamma * np.eye(S.shape[0]), S @ M.T).T
    R = M - Z @ S
    return np.sum(Z * Z) + np.sum(R * R) / gamma


def cost_of_identity(
    A: Array, *, activation: Activation, bias: bool = True, gamma: float = 0.0
) -> Any:
    """COI = ‖A‖²_{K+γI}: the squared weight norm (per L̃²) that keeps A where it is. O(w²N + w³)."""
    return kernel_norm_squared(A, A, activation=activation, bias=bias, gamma=gamma)


def kinetic_energy(
    A: Array,
    velocity: Array,
    *,
    effective_depth: float,
    activation: Activation,
    bias: bool = True,
    gamma: float = 0.0,
) -> Any:
    """T = ‖∂_pA‖²_{K+γI} / (2L̃), with `velocity` ∂_pA of shape (w, N). O(w²N + w³)."""
    square = kernel_norm_squared(velocity, A, activation=activation, bias=bias, gamma=gamma)
    return square / (2.0 * effective_depth)


def potential_energy(
    A: Array,
    *,
    effective_depth: float,
    activation: Activation,
    bias: bool = True,
    gamma: float = 0.0,
) -> Any:
    """V = −(L̃/2) COI. O(w²N + w³)."""
    coi = cost_of_identity(A, activation=activation, bias=bias, gamma=gamma)
    return -0.5 * effective_depth * coi


def identity_residual(
    A: Array,
    B: Array,
    gamma: float,
    *,
    effective_depth: float,
    activation: Activation,
    bias: bool = True,
) -> Any:
    """Left minus right side of the exact energy identity of the module docstring, for γ > 0.

    Zero at every (A, B) up to rounding; a check of the energies, not of optimality. O(w²N + w³).
    """
    node: dict[str, Any] = {"activation": activation, "bias": bias}
    v = velocity(A, B, effective_depth=effective_depth, **node) / effective_depth
    left = -2.0 / effective_depth * hamiltonian(A, B, effective_depth=effective_depth, **node)
    right = (
        cost_of_identity(A, gamma=gamma, **node)
        - kernel_norm_squared(v + gamma * B, A, gamma=gamma, **node)
        + gamma * np.sum(B * B)
    )
    return left - right


def stable_rank(A: Array) -> float:
    """‖A‖_*²/‖A‖_F², the stable rank of Proposition 1: between 1 and rank A, 0 for A = 0."""
    s = np.linalg.svd(A, compute_uv=False)
    square = float(np.sum(s**2))
    return float(np.sum(s)) ** 2 / square if square > 0 else 0.0


def balancedness_rate(W: Array, effective_depth: float) -> Any:
    """∂_p‖W_p‖_F² = 2L̃‖b_p‖² along an optimal path of a homogeneous σ; b is the last column of W.

    Proposition 9 of the preprint has L̃ for 2L̃; the derivation is in the module docstring. Holds
    for ReLU (through its kinks too, where σ′ is multiplied by A = 0) and linear networks with bias.
    """
    b = W[:, -1]
    return 2.0 * effective_depth * np.sum(b * b)


def weight_norm_rate(
    A: Array, B: Array, *, effective_depth: float, activation: Activation, bias: bool = True
) -> Any:
    """∂_p‖W_p‖_F² along the flow for every activation, homogeneous or not. O(w²N).

    2L̃³(‖B1‖² + ⟨σ − σ′⊙A, σBᵀB⟩), the first term with bias only; the second vanishes for ReLU and
    linear, which leaves `balancedness_rate`.
    """
    _check_pair(A, B)
    departure = activation(A) - activation.slope(A) * A
    rate = np.sum(departure * _backward_signal(A, B, activation))
    if bias:
        rate = rate + np.sum(B.sum(axis=1) ** 2)
    return 2.0 * effective_depth**3 * rate


# ---------------------------------------------------------------------------------------------
# Along a path


class PathEnergies(NamedTuple):
    """Energies along a path, each an array (M,), one entry a node."""

    p: Array
    hamiltonian: Array
    kinetic: Array
    potential: Array
    cost_of_identity: Array
    gamma: Array
    """Shift γ_p = γ₀‖σ̂(A_p)‖²_op of the stable versions that follow."""
    stable_kinetic: Array
    stable_potential: Array
    stable_cost_of_identity: Array


def stable_hamiltonian(
    A: Array,
    V: Array,
    *,
    effective_depth: float,
    activation: Activation,
    bias: bool = True,
    gamma0: float = 1e-3,
) -> float:
    """Kinetic plus potential energy at a node, the stable versions with γ = γ₀‖σ̂(A)‖²_op.

    Parameters
    ----------
    A, V : (w, N) arrays
        The representation and ∂_pA. No costate enters.

    Returns
    -------
    float
        O(w²N + w³).
    """
    node: dict[str, Any] = {"activation": activation, "bias": bias}
    stable = dict(node, gamma=stability_shift(A, gamma0, **node), effective_depth=effective_depth)
    return float(kinetic_energy(A, V, **stable) + potential_energy(A, **stable))


def path_energies(
    p: Array,
    A: Array,
    B: Array,
    *,
    effective_depth: float,
    activation: Activation,
    bias: bool = True,
    gamma0: float = 1e-3,
    velocities: Array | None = None,
) -> PathEnergies:
    """Energies at every node, plain (γ = 0) and stable (γ_p = γ₀‖σ̂(A_p)‖²_op).

    ∂_pA is the velocity of the flow at (A, B), unless `velocities` says how the path really moves.
    For a stationary layered network pass A[:-1], B[1:] and the left nodes p[:-1]: the velocity is
    then (A_l − A_{l−1})/ρ_l exactly; for one that is not stationary the two differ.

    Parameters
    ----------
    p : (M,) array
    A, B : (M, w, N) arrays
    gamma0 : float
        γ₀ > 0.
    velocities : (M, w, N) array, optional

    Returns
    -------
    PathEnergies
        O(M (w²N + w³)).

    Raises
    ------
    ValueError
        If the shapes do not agree or γ₀ is not positive.
    """
    p, A, B = _check_path(p, A, B)
    if not gamma0 > 0:
        raise ValueError(f"gamma0: expected a number > 0, got {gamma0!r}")
    node: dict[str, Any] = {"activation": activation, "bias": bias}
    rows = []
    for k, (a, b) in enumerate(zip(A, B, strict=True)):
        v = velocity(a, b, effective_depth=effective_depth, **node) if velocities is None else \
            velocities[k]
        gamma = stability_shift(a, gamma0, **node)
        coi = cost_of_identity(a, **node)
        stable_coi = cost_of_identity(a, gamma=gamma, **node)
        energy: dict[str, Any] = {"effective_depth": effective_depth, **node}
        rows.append(
            (
                hamiltonian(a, b, **energy),
                kinetic_energy(a, v, **energy),
                -0.5 * effective_depth * coi,
                coi,
                gamma,
                kinetic_energy(a, v, gamma=gamma, **energy),
                -0.5 * effective_depth * stable_coi,
                stable_coi,
            )
        )
    return PathEnergies(p, *np.array(rows).T)


class Theorem4(NamedTuple):
    """Both inequalities of Theorem 4 on a path: lower ≤ value ≤ upper."""

    rank_lower: float
    rank_gap: float
    """−(2/L̃)H − min_p ‖A_p‖²_{K+γI}."""
    rank_upper: float
    speed_lower: float
    speed_gap: Array
    """‖∂_pA‖_{K+γI} − L̃√(‖A‖²_{K+γI} + 2H/L̃), (M,)."""
    speed_upper: float
    length: float
    """ℓ_γ = ∫‖∂_pA‖_{K+γI} dp."""
    momentum_bound: float
    """c = max_p ‖B_p‖_F²."""

    @property
    def holds(self) -> bool:
        """Whether all four bounds hold at every node, to rounding."""
        slack = 1e-9 * (1.0 + abs(self.rank_lower) + self.speed_upper + self.length)
        return bool(
            self.rank_lower - slack <= self.rank_gap <= self.rank_upper + slack
            and np.all(self.speed_lower - slack <= self.speed_gap)
            and np.all(self.speed_gap <= self.speed_upper + slack)
        )


def theorem4_bounds(
    p: Array,
    A: Array,
    B: Array,
    gamma: float | Array,
    *,
    effective_depth: float,
    activation: Activation,
    bias: bool = True,
) -> Theorem4:
    """Both sides of both inequalities of Theorem 4 on a path of the flow.

    H is the median over the nodes. ℓ_γ is integrated by the trapezoidal rule, whose mean is never
    below the least speed at a node: on a path of constant H the bounds hold at the nodes exactly,
    not up to quadrature. Where H drifts they hold up to the drift.

    Parameters
    ----------
    p : (M,) array
        Increasing; ℓ_γ is divided by p[-1] − p[0] where the theorem divides by 1.
    A, B : (M, w, N) arrays
    gamma : float or (M,) array
        γ > 0; one a node for the paper's γ_p, then γc stands for max_p γ_p‖B_p‖².

    Returns
    -------
    Theorem4
        O(M (w²N + w³)).

    Raises
    ------
    ValueError
        If the shapes do not agree or some γ is not positive.
    """
    p, A, B = _check_path(p, A, B)
    gammas = np.broadcast_to(np.asarray(gamma, dtype=float), p.shape)
    if not np.all(gammas > 0):
        raise ValueError(f"gamma: expected numbers > 0, got {gamma!r}")
    node: dict[str, Any] = {"activation": activation, "bias": bias}
    energy: dict[str, Any] = {"effective_depth": effective_depth, **node}
    H = float(np.median([hamiltonian(a, b, **energy) for a, b in zip(A, B, strict=True)]))
    nodes = list(zip(A, B, gammas, strict=True))
    coi = np.array([cost_of_identity(a, gamma=g, **node) for a, _, g in nodes])
    speed = np.sqrt(
        [kernel_norm_squared(velocity(a, b, **energy), a, gamma=g, **node) for a, b, g in nodes]
    )
    length = float(np.sum(0.5 * (speed[1:] + speed[:-1]) * np.diff(p)))
    squares = np.sum(B * B, axis=(1, 2))
    gamma_c = float(np.max(gammas * squares))
    root = np.sqrt(gamma_c)
    mean_speed = length / (p[-1] - p[0])
    return Theorem4(
        rank_lower=-float((mean_speed / effective_depth + root) ** 2),
        rank_gap=float(-2.0 / effective_depth * H - coi.min()),
        rank_upper=gamma_c,
        speed_lower=-float(effective_depth * root),
        speed_gap=speed
        - effective_depth * np.sqrt(np.maximum(coi + 2.0 * H / effective_depth, 0.0)),
        speed_upper=float(2.0 * effective_depth * root),
        length=length,
        momentum_bound=float(squares.max()),
    )


# ---------------------------------------------------------------------------------------------
# Helpers


def _check_path(p: Array, A: Array, B: Array) -> tuple[Array, Array, Array]:
    p, A, B = np.asarray(p, dtype=float), np.asarray(A), np.asarray(B)
    if p.ndim != 1 or A.ndim != 3 or A.shape != B.shape or A.shape[0] != p.shape[0]:
        raise ValueError(
            "p, A, B: expected shapes (M,), (M, w, N) and (M, w, N), "
            f"got {p.shape}, {A.shape} and {B.shape}"
        )
    return p, A, B
