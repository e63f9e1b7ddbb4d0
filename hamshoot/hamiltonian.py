"""Theory page, and every continuous formula of the package in plain NumPy.

This module is the reference: slow, readable, and what the fast code is tested against. The theory
comes from Jacot & Kaiser, "Hamiltonian Mechanics of Feature Learning: Bottleneck Structure in Leaky
ResNets", arXiv 2405.17573; where this page departs from the preprint it says so.

Symbols
-------
==========  ====================  ===================  ==========================================
symbol      name in code          shape                meaning
==========  ====================  ===================  ==========================================
N, w        n_samples, width                           training samples; neurons of a layer
L̃           effective_depth       scalar > 0           leak; plays the role of depth
λ           weight_decay          scalar > 0           L2 weight
p           p                     in [0, 1]            position along depth
A_p         representations, A    (w, N)               state, one column a sample
B_p         momenta, B            (w, N)               scaled costate
W_p         weights, W            (w, w+1)             control, last column the bias b_p
σ̂(A)        augmented             (w+1, N)             [σ(A); 1ᵀ]; σ(A) alone without bias
K_p         kernel                (N, N)               σ̂(A)ᵀ σ̂(A)
P, Q        lift, readout         (w, d_in), (d_out, w)  fixed linear maps in and out
==========  ====================  ===================  ==========================================

The problem
-----------
Minimise over the control W

    J = (1/N) ‖Q A_1 − Yᵀ‖_F² + λ/(2L̃) ∫₀¹ ‖W_p‖_F² dp,   ∂_p A = −L̃ A + W σ̂(A),   A_0 = P Xᵀ.

Hamiltonian form
----------------
With B_p = −(1/λ) ∂C/∂A_p, where C is the loss, Pontryagin's conditions are

    B_1 = −(2/(λN)) Qᵀ(Q A_1 − Yᵀ)                        (transversality)
    W_p = L̃ B_p σ̂(A_p)ᵀ                                  (stationarity)
    ∂_p A = ∂H/∂B  =  L̃ (B K − A)
    ∂_p B = −∂H/∂A = −L̃ (σ′(A) ⊙ [σ(A) BᵀB] − B)
    H(A, B) = (L̃/2) ‖B σ̂(A)ᵀ‖_F² − L̃ Tr(B Aᵀ),           constant along p.

Discrete costate
----------------
The Leaky ResNet that gets trained is the explicit Euler scheme with layer steps ρ_l,
A_l = (1 − ρ_l L̃) A_{l−1} + ρ_l W_l σ̂(A_{l−1}). Differentiating its own objective gives, exactly,

    B_{l−1} = (1 − ρ_l L̃) B_l + ρ_l σ′(A_{l−1}) ⊙ (W_lᵀ B_l)   (W_l without its bias column),
    W_l = L̃ B_l σ̂(A_{l−1})ᵀ.

Insert W_l: A_l = A_{l−1} + ρ_l ∂H/∂B and B_l = B_{l−1} − ρ_l ∂H/∂A, both at (A_{l−1}, B_l). This is
the symplectic Euler scheme: the optimal layered network is itself a symplectic integrator of the
flow. Evaluate H of a network at (A_{l−1}, B_l), left node for A and right node for B.

Energies
--------
    ‖M‖²_{K+γI} = Tr(M (K + γI)⁻¹ Mᵀ),    ‖M‖²_K = Tr(M K⁺ Mᵀ) = ‖M σ̂⁺‖_F²
    cost of identity   COI = ‖A‖²_K      kinetic energy T = ‖∂_pA‖²_K / (2L̃)
    potential energy   V = −(L̃/2) COI    H = T + V when the rows of A lie in the row space of σ̂(A).

Where K is nearly singular the stable versions take γ > 0; the paper's choice is
γ_p = γ₀ ‖σ̂(A_p)‖²_op. −2H/L̃ estimates the bottleneck rank from below, min_p COI from above.
(Proposition 1 of the paper, for σ̂ = σ = ReLU: COI ≥ ‖A‖_*²/‖A‖_F², the stable rank.)

Exact identity. Since ∂_pA/L̃ + γB = B(K + γI) − A, expanding the square gives for every γ > 0

    −(2/L̃) H = ‖A‖²_{K+γI} − ‖∂_pA/L̃ + γB‖²_{K+γI} + γ‖B‖²

at every point (A, B) of phase space when ∂_pA is the velocity of the flow there; no optimality is
needed. From ‖γB‖²_{K+γI} ≤ γ‖B‖² ≤ γc with c = sup_p ‖B_p‖², and ℓ_γ = ∫‖∂_pA‖_{K+γI} dp:

Theorem 4.   −(ℓ_γ/L̃ + √(γc))² ≤ −(2/L̃)H − min_p ‖A_p‖²_{K+γI} ≤ γc,
             −L̃√(γc) ≤ ‖∂_pA‖_{K+γI} − L̃ √(‖A‖²_{K+γI} + 2H/L̃) ≤ 2L̃√(γc).

The number under the last root may be negative, by at most γc; read as 0, both bounds still hold.

Balancedness, and an erratum
----------------------------
‖W‖² = 2L̃(H + L̃ Tr(BAᵀ)) by the definition of H, so ∂_p‖W‖² = 2L̃² ∂_pTr(BAᵀ). From the flow,

    ∂_p Tr(BAᵀ) = L̃ (‖Bσ̂ᵀ‖² − ⟨σ′(A) ⊙ A, σ BᵀB⟩) = L̃ ‖B1‖² + L̃ ⟨σ(A) − σ′(A) ⊙ A, σ(A) BᵀB⟩.

For a homogeneous σ (ReLU or linear: zσ′(z) = σ(z)) the last term is zero, and b = L̃ B1 gives

    ∂_p ‖W_p‖_F² = 2 L̃ ‖b_p‖²,      without bias: ‖W_p‖_F constant.

Proposition 9 of the preprint has L̃ where this has 2L̃; integrate a trajectory to see which is right.
The smooth ReLU is not homogeneous: σ − zσ′ = ε²/(2√(z²+ε²)), so it obeys the law only up to a term
that vanishes with ε (`weight_norm_rate` includes it, `balancedness_rate` does not).

ReLU is not smooth at its optimum
---------------------------------
In an optimal ReLU network some entries of A sit exactly on the kink, where the gradient is a set:
σ′ may be any d ∈ [0, 1] there. A gradient method sees one element of the set and stalls. Three
tools follow. The *Clarke residual* is the least gradient norm over all d on the kink entries, a
bounded least-squares problem; it is what stationarity means for ReLU. The *ladder* solves with the
smooth ReLU σ_ε(z) = (z + √(z²+ε²))/2 and shrinks ε; J(ε) − J(0) = O(ε). The *polish* takes the
entries with σ_ε′ well inside (0, 1) as kink set 𝒦, freezes which of the others are active and
solves the smooth problem min J subject to A_𝒦 = 0 by Newton's method. Its multiplier m on 𝒦,
divided by v = ρ WᵀB (the signal that reaches the entry from above), is d; the answer stands when
every d lies in [0, 1] and the signs of A agree with the pattern, otherwise the offending entries
change sides.

Along the continuous flow, when an entry of A crosses 0 the right-hand side of B jumps and so do the
solutions of the variational equation: see `saltation`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .activations import Activation

Array = NDArray[Any]
_RELU = Activation("relu")


# ---------------------------------------------------------------------------------------------
# One node: kernel, control, flow


def augmented(A: Array, activation: Activation, bias: bool = True) -> Array:
    """σ̂(A) = [σ(A); 1ᵀ], of shape (w+1, N); σ(A), of shape (w, N), without bias."""
    S = activation(A)
    return np.concatenate([S, np.ones((1, A.shape[1]), S.dtype)]) if bias else S


def kernel(A: Array, activation: Activation, bias: bool = True) -> Array:
    """K = σ̂(A)ᵀσ̂(A), (N, N). O(wN²): for reading and tests, no other function here forms it."""
    S = augmented(A, activation, bias)
    return S.T @ S


def control(
    A: Array, B: Array, *, effective_depth: float, activation: Activation, bias: bool = True
) -> Array:
    """W = L̃ B σ̂(A)ᵀ, the stationary control, (w, w+1) or (w, w). O(w²N)."""
    _check_pair(A, B)
    return effective_depth * (B @ augmented(A, activation, bias).T)


def velocity(
    A: Array, B: Array, *, effective_depth: float, activation: Activation, bias: bool = True
) -> Array:
    """∂_pA = ∂H/∂B = L̃(BK − A), (w, N). O(w²N): B K is (B σ̂ᵀ) σ̂."""
    _check_pair(A, B)
    S = augmented(A, activation, bias)
    return effective_depth * ((B @ S.T) @ S - A)


def force(
    A: Array, B: Array, *, effective_depth: float, activation: Activation, bias: bool = True
) -> Array:
    """∂_pB = −∂H/∂A = −L̃(σ′(A) ⊙ [σ(A)BᵀB] − B), (w, N). O(w²N).

    `bias` does not enter (the row of ones has no slope); it is accepted so that every function of a
    node takes the same keywords. For plain ReLU σ′(0) = 0 is taken at the kink.
    """
    _check_pair(A, B)
    return -effective_depth * (activation.slope(A) * _backward_signal(A, B, activation) - B)


def flow(
    A: Array, B: Array, *, effective_depth: float, activation: Activation, bias: bool = True
) -> tuple[Array, Array]:
    """(∂_pA, ∂_pB), the Hamiltonian vector field. O(w²N)."""
    settings = {"effective_depth": effective_depth, "activation": activation, "bias": bias}
    return velocity(A, B, **settings), force(A, B, **settings)


def flow_derivative(
    A: Array,
    B: Array,
    a: Array,
    b: Array,
    *,
    effective_depth: float,
    activation: Activation,
    bias: bool = True,
) -> tuple[Array, Array]:
    """Derivative of `flow` at (A, B) in the direction (a, b), all (w, N). O(w²N).

    These are the second derivatives of H, and with them the right-hand side of the variational
    equation. For plain ReLU it is the regular part: σ″ = 0; what the kink adds is in `saltation`.
    """
    _check_pair(A, B)
    w = A.shape[0]
    S = augmented(A, activation, bias)
    slope = activation.slope(A)
    s = slope * a  # change of σ(A); the row of ones does not change
    M = B @ S.T
    m = b @ S.T
    m[:, :w] += B @ s.T
    signal = M[:, :w].T @ B  # = σ BᵀB
    signal_change = m[:, :w].T @ B + M[:, :w].T @ b
    velocity_change = effective_depth * (m @ S + M[:, :w] @ s - a)
    force_change = -effective_depth * (
        activation.curvature(A) * a * signal + slope * signal_change - b
    )
    return velocity_change, force_change


def saltation(
    A: Array,
    B: Array,
    a: Array,
    b: Array,
    entry: tuple[int, int],
    *,
    effective_depth: float,
    bias: bool = True,
) -> tuple[Array, Array]:
    """Carry a variation (a, b) over the instant at which A[entry] crosses 0, for plain ReLU.

    The saltation matrix is Ξ = I + (f⁺ − f⁻)∇gᵀ/(∇gᵀf⁻) with g = A[entry] and f the flow before and
    after. Only the force on that very entry jumps, by ∓L̃ G, G = (σ(A)BᵀB)[entry], whichever way A
    crosses, so Ξ differs from the identity in one number: b[entry] −= L̃ G a[entry] / |∂_pA[entry]|.
    (The smooth ReLU gives the same as ε → 0, where σ″ becomes a Dirac mass.)

    Parameters
    ----------
    A, B : (w, N) arrays
        The point of crossing; A[entry] is taken as 0 whatever rounding left there.
    a, b : (w, N) arrays
        Variation before the crossing.
    entry : (int, int)
        Row (neuron) and column (sample) of the crossing entry.

    Returns
    -------
    (a, b) after the crossing; a is unchanged. O(w²N).

    Raises
    ------
    ValueError
        If the entry touches 0 without crossing (∂_pA[entry] = 0): Ξ does not exist there.
    """
    A = A.copy()
    A[entry] = 0.0
    speed = velocity(A, B, effective_depth=effective_depth, activation=_RELU, bias=bias)[entry]
    if speed == 0:
        raise ValueError(
            f"entry: expected an entry of A that crosses zero, got {entry} with velocity 0"
        )
    kick = effective_depth * _backward_signal(A, B, _RELU)[entry] / abs(speed)
    after = b.copy()
    after[entry] -= kick * a[entry]
    return a, after


def hamiltonian(
    A: Array, B: Array, *, effective_depth: float, activation: Activation, bias: bool = True
) -> Any:
    """H = (L̃/2)‖Bσ̂(A)ᵀ‖_F² − L̃ Tr(BAᵀ), a scalar. O(w²N).

    Constant along the continuous flow. For a layered network pass (A_{l−1}, B_l).
    """
    _check_pair(A, B)
    M = B @ augmented(A, activation, bias).T
    return effective_depth * (0.5 * np.sum(M * M) - np.sum(B * A))


def loss(A1: Array, readout: Array, targets: Array) -> Any:
    """C = (1/N)‖Q A_1 − Yᵀ‖_F² with A_1 (w, N), Q (d_out, w) and targets Yᵀ (d_out, N)."""
    R = readout @ A1 - targets
    return np.sum(R * R) / A1.shape[1]


def terminal_momentum(A1: Array, readout: Array, targets: Array, weight_decay: float) -> Array:
    """B_1 = −(2/(λN)) Qᵀ(Q A_1 − Yᵀ) = −(1/λ) ∂C/∂A_1, (w, N); targets are Yᵀ, (d_out, N)."""
    return (-2.0 / (weight_decay * A1.shape[1])) * (readout.T @ (readout @ A1 - targets))


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
    node = {"activation": activation, "bias": bias}
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


def bottleneck_rank(H: ArrayLike, effective_depth: float) -> float:
    """−2 median(H)/L̃, the estimate of the bottleneck rank; H at one node or at several."""
    return float(-2.0 * np.median(np.asarray(H)) / effective_depth)


def hamiltonian_drift(H: ArrayLike) -> float:
    """(max H − min H)/max(1, |median H|) over the nodes: 0 on an exact path."""
    H = np.asarray(H)
    return float((H.max() - H.min()) / max(1.0, abs(float(np.median(H)))))


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
    node = {"activation": activation, "bias": bias}
    rows = []
    for k, (a, b) in enumerate(zip(A, B, strict=True)):
        v = velocity(a, b, effective_depth=effective_depth, **node) if velocities is None else \
            velocities[k]
        gamma = stability_shift(a, gamma0, **node)
        coi = cost_of_identity(a, **node)
        stable_coi = cost_of_identity(a, gamma=gamma, **node)
        energy = {"effective_depth": effective_depth, **node}
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
    node = {"activation": activation, "bias": bias}
    energy = {"effective_depth": effective_depth, **node}
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


def integrate(
    A0: Array,
    B0: Array,
    p0: float,
    p1: float,
    steps: int,
    *,
    effective_depth: float,
    activation: Activation,
    bias: bool = True,
) -> tuple[Array, Array, Array]:
    """Integrate the Hamiltonian flow from (A0, B0) at p0 to p1 by `steps` equal RK4 steps.

    A reference for tests and short paths: errors O(steps⁻⁴) for a smooth σ, O(steps⁻¹) where an
    entry of a plain-ReLU path crosses zero (the force jumps there). p1 < p0 integrates backwards.

    Returns
    -------
    p, A, B : (steps+1,), (steps+1, w, N) and (steps+1, w, N) arrays
        O(steps · w²N).

    Raises
    ------
    ValueError
        If `steps` is not a positive integer or A0 and B0 differ in shape.
    """
    if int(steps) != steps or steps < 1:
        raise ValueError(f"steps: expected an integer >= 1, got {steps!r}")
    _check_pair(A0, B0)
    settings = {"effective_depth": effective_depth, "activation": activation, "bias": bias}

    def field(state: Array) -> Array:
        return np.stack(flow(state[0], state[1], **settings))

    h = (p1 - p0) / steps
    state = np.stack([A0, B0])
    states = [state]
    for _ in range(int(steps)):
        k1 = field(state)
        k2 = field(state + 0.5 * h * k1)
        k3 = field(state + 0.5 * h * k2)
        k4 = field(state + h * k3)
        state = state + (h / 6.0) * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        states.append(state)
    path = np.array(states)
    return np.linspace(p0, p1, int(steps) + 1), path[:, 0], path[:, 1]


# ---------------------------------------------------------------------------------------------
# Helpers


def _backward_signal(A: Array, B: Array, activation: Activation) -> Array:
    """σ(A)BᵀB = WᵀB/L̃ with W without bias column: what reaches σ(A) from above, (w, N)."""
    return (activation(A) @ B.T) @ B


def _check_pair(A: Array, B: Array) -> None:
    if A.ndim != 2 or A.shape != B.shape:
        raise ValueError(
            f"A, B: expected two arrays of one shape (w, N), got {A.shape} and {B.shape}"
        )


def _check_path(p: Array, A: Array, B: Array) -> tuple[Array, Array, Array]:
    p, A, B = np.asarray(p, dtype=float), np.asarray(A), np.asarray(B)
    if p.ndim != 1 or A.ndim != 3 or A.shape != B.shape or A.shape[0] != p.shape[0]:
        raise ValueError(
            "p, A, B: expected shapes (M,), (M, w, N) and (M, w, N), "
            f"got {p.shape}, {A.shape} and {B.shape}"
        )
    return p, A, B
