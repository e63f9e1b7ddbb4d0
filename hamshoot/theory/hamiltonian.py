"""Theory page, and every continuous formula of the package in plain NumPy.

This module is the reference: slow, readable, and what the fast code is tested against. The theory
comes from Jacot & Kaiser, "Hamiltonian Mechanics of Feature Learning: Bottleneck Structure in Leaky
ResNets", arXiv 2405.17573; where this page departs from the preprint it says so. Its propositions,
theorems and figures are cited, here and everywhere, by their numbers in the text of May 2024, the
manuscript submitted to NeurIPS 2024 in the month of version 1 (27 May 2024). arXiv lists a version
2 of 6 March 2025 and a version 3 of 25 March 2026. Neither has been compared with this page:
numbers may be others there, and what is called an erratum below may be mended.

Symbols
-------
==========  ====================  =====================  ==========================================
symbol      name in code          shape                  meaning
==========  ====================  =====================  ==========================================
N, w        n_samples, width                             training samples; neurons of a layer
L̃           effective_depth       scalar > 0             leak; plays the role of depth
λ           weight_decay          scalar > 0             L2 weight
p           p                     in [0, 1]              position along depth
A_p         representations, A    (w, N)                 state, one column a sample
B_p         momenta, B            (w, N)                 scaled costate
W_p         weights, W            (w, w+1)               control, last column the bias b_p
σ̂(A)        augmented             (w+1, N)               [σ(A); 1ᵀ]; σ(A) alone without bias
K_p         kernel                (N, N)                 σ̂(A)ᵀ σ̂(A)
P, Q        lift, readout         (w, d_in), (d_out, w)  linear maps in and out, fixed or learned
==========  ====================  =====================  ==========================================

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

The optimum as a function of what was asked
-------------------------------------------
J* is the least J. Where it is a strict minimum it is differentiable, and by the envelope theorem
its derivative is the partial one of J with the control as it is. With −λB = ∂J/∂A this needs no
further solve:

    dJ*/dλ  = ∫‖W_p‖²/(2L̃) dp
    dJ*/dL̃ = −λ∫∂H/∂L̃ dp = −λH/L̃ = (λ/2)(−2H/L̃)                  the rank is the price of depth
    dJ*/dε  = −λ∫∂H/∂ε dp = −λ∫⟨W_pᵀB_p, ∂_εσ_ε(A_p)⟩ dp           (W without its bias column)
    dJ*/dYᵀ = −(2/N)(Q A_1 − Yᵀ)                dJ*/dω_s = (1/N)‖(Q A_1 − Yᵀ)_s‖² of sample s
    dJ*/dXᵀ = −λ Pᵀ B_0                         dJ*/dA_1 = λB_1 of a prescribed endpoint

ω_s weighs the loss of a sample, 1 in every problem posed here. H is linear in L̃ at fixed (A, B), so
that ∂H/∂L̃ = H/L̃: every unit of depth costs λ/2 for every dimension of the bottleneck, and J* is
least at the depth where H = 0. Over layers all of this holds with sums, with H_l at (A_{l−1}, B_l):
dJ*/dL̃ = −(λ/L̃) Σ ρ_l H_l exactly, for any number of layers.

Units: X and Y as the network sees them, scaled. `TrainingProblem.replace(Y=...)` standardises
anew, which undoes part of a move of Y: differences need the scaled data and ``standardize=False``.
In the units of the user dJ*/dY is divided by the deviation of its column. Sign: the multipliers
`lam_p` that CasADi's `nlpsol` returns are those of a constraint p = given, −df*/dp; and its f is
J/λ (`hamshoot.methods.multiple_shooting.nlp`), so that dJ*/dp = −λ lam_p but for p = λ itself,
where dJ*/dλ = f − λ lam_p. Second derivatives, and those of A, B and W, are in
`hamshoot.derivatives`.

Balancedness, and an erratum
----------------------------
‖W‖² = 2L̃(H + L̃ Tr(BAᵀ)) by the definition of H, so ∂_p‖W‖² = 2L̃² ∂_pTr(BAᵀ). From the flow,

    ∂_p Tr(BAᵀ) = L̃ (‖Bσ̂ᵀ‖² − ⟨σ′(A) ⊙ A, σ BᵀB⟩) = L̃ ‖B1‖² + L̃ ⟨σ(A) − σ′(A) ⊙ A, σ(A) BᵀB⟩.

For a homogeneous σ (ReLU or linear: zσ′(z) = σ(z)) the last term is zero, and b = L̃ B1 gives

    ∂_p ‖W_p‖_F² = 2 L̃ ‖b_p‖²,      without bias: ‖W_p‖_F constant.

Proposition 9 of the preprint has L̃ where this has 2L̃; integrate a trajectory to see which is right.
The smooth ReLU is not homogeneous: σ − zσ′ = ε²/(2√(z²+ε²)), so it obeys the law only up to a term
that vanishes with ε (`weight_norm_rate` includes it, `balancedness_rate` does not).

Other losses
------------
C may be any function of the outputs z = QA_1 (`hamshoot.problem.losses`: squares weighted by
sample, cross-entropy with its softmax at the readout, Huber's). Then

    B_1 = −(1/λ) Qᵀ ∂C/∂z,   Newton's systems end with (1/λ) Qᵀ (∂²C/∂z²) Q,

and nothing else changes: flow, H, energies and Theorem 4 know no loss. Closed forms with a loss are
for squares. Without a lower bound on ∂²C/∂z² (softmax does not see a common shift, Huber's loss is
linear far out) the end may leave directions of A_1 to the weight decay alone.

Learned lift and readout
------------------------
P and Q may be unknowns beside W, each with a weight decay of its own, not scaled by L̃ or N:

    J = C(QA_1) + λ/(2L̃) ∫‖W_p‖² dp + (μ_P/2)‖P‖² + (μ_Q/2)‖Q‖²,     A_0 = P Xᵀ.

Neither enters the flow, and with −λB = ∂J/∂A two conditions come to those of Pontryagin, one at
each end (the costate at p = 0 is free no more; over layers B_0 is the discrete one):

    μ_P P = λ B_0 X,        μ_Q Q = −(∂C/∂z) A_1ᵀ,    z = QA_1.

At the optimum dJ*/dμ_P = ‖P‖²/2 and dJ*/dμ_Q = ‖Q‖²/2. Multiplied by P and Q the conditions read
μ_P‖P‖² = λTr(B_0A_0ᵀ) and μ_Q‖Q‖² = λTr(B_1A_1ᵀ), so that the section on balancedness gives, for a
homogeneous σ on a continuous path,

    μ_Q‖Q‖² = μ_P‖P‖² + (λ/L̃) ∫‖b_p‖² dp:       without bias lift and readout cost the same.

Without weight decay there is no least P: scaled up with Q scaled down it serves as well. A scale of
A costs nothing in H, so the bottleneck's rank is a matter of W as before. What told neurons apart
is gone: any permutation of neurons leaves J as it is, of a linear network any orthogonal U,
(W, b, P, Q) → (UWUᵀ, Ub, UP, QUᵀ), along which the Hessian is 0; and a dead neuron beside a living
one leaves no minimum strict. For ReLU the entries of A_0 move, may sit on the kink as all others
do, and their slopes d enter B_0. The joint Hessian is that in (W, P, Q); for given maps
θ = (P, Q), J*(θ) has the gradient above (envelope theorem) and as its Hessian the Schur complement
of W in it. `hamshoot.theory.learned` has the formulas.

Other activations
-----------------
σ may be any function with a derivative (`hamshoot.problem.activations`: leaky ReLU, tanh, softplus,
GELU, others by their formulas). The Hamiltonian form, the discrete costate, H constant along p, the
exact identity and Theorem 4 ask nothing else of it. What does:

* balancedness asks for positive homogeneity, zσ′(z) = σ(z): linear, ReLU, leaky ReLU;
* Proposition 1 follows from ‖A‖_* ≤ ‖Aσ⁺‖_F ‖σ(A)‖_F where σ(z)² ≤ z²: for these, tanh and GELU,
  but not for softplus nor the smooth ReLU, whose σ(0) is not 0;
* that the cost of identity does not change with the scale of A asks for homogeneity again, and no
  bias. Of small A of rank r it is r/σ′(0)² for a smooth σ with σ(0) = 0, so r for tanh and 4r for
  GELU: read as a dimension, COI and −2H/L̃ are in units of 1/σ′(0)² there;
* the closed forms in the positive orthant ask for σ(z) = z where z > 0.

A leaky ReLU has a kink as ReLU has, its slopes there any d ∈ [α, 1], and of what follows the ladder
has αz + (1 − α)σ_ε(z) in place of σ_ε, the polish slopes α and 1 in place of 0 and 1, and the
second order at kinks [α, 1] in place of [0, 1].

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

Second order at kinks
---------------------
Whether a stationary ReLU network is a minimum depends on the force v = ρWᵀB on its entries on the
kink. With slopes d that make it stationary, changes δA and δσ of states and activations under any
change h of the controls, and r = δσ − d ⊙ δA ≥ 0, exactly

    J(W + h) − J(W) = λ/(2L̃) Σ ρ‖h‖² + (1/N)‖QδA_L‖² − λ Σ ρ⟨B_ℓ, h_ℓ δσ_{ℓ−1}⟩ − λ Σ ⟨v, r⟩.

Entries with v < 0 and 0 < d < 1 are *held*: leaving the kink costs at first order. Where v > 0 the
kink is concave and J falls at first order, although the network is stationary in Clarke's sense.
Where v = 0 the entry is *idle*, as of a *dead neuron*, zero for all samples and read by no weight:
switched on by incoming rows u and outgoing columns c it changes J at second order, by its weight
decay and the bilinear coupling −λ Σ ρ⟨B_ℓ, c σ(a(u))⟩. If nothing is concave, the Hessian is
positive on the directions that leave held entries at 0, and the coupling stays below the weight
decay, the network is a strict local minimum; `hamshoot.optimality.second_order_layers` has the
statement with its proof, `hamshoot.optimality.coupling` the bounds. A dead neuron that takes over
a share of a living one (weights shared as cos θ and sin θ) leaves J as it is, so a network with
both is a strict minimum only where lift or readout tell the two apart.

Along the continuous flow, when an entry of A crosses 0 the right-hand side of B jumps and so do the
solutions of the variational equation: see `saltation`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamshoot.problem.activations import Activation
from hamshoot.problem.losses import PLAIN, Loss

Array = NDArray[Any]
_RELU = Activation("relu")


# ---------------------------------------------------------------------------------------------
# One node: control, flow


def augmented(A: Array, activation: Activation, bias: bool = True) -> Array:
    """σ̂(A) = [σ(A); 1ᵀ], of shape (w+1, N); σ(A), of shape (w, N), without bias."""
    S = activation(A)
    return np.concatenate([S, np.ones((1, A.shape[1]), S.dtype)]) if bias else S


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
    settings: dict[str, Any] = dict(effective_depth=effective_depth, activation=activation,
                                    bias=bias)
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
    The compiled flow and `hamshoot.dynamics.gauss_flow` are held to it by tests.
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
    (The smooth ReLU gives the same as ε → 0, where σ″ becomes a Dirac mass.) The compiled flow is
    held to it by tests.

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


def loss(A1: Array, readout: Array, targets: Array, criterion: Loss = PLAIN) -> Any:
    """C = (1/N)‖Q A_1 − Yᵀ‖_F² with A_1 (w, N), Q (d_out, w) and targets Yᵀ (d_out, N).

    Or another C(QA_1), of `hamshoot.problem.losses`.
    """
    if not criterion.plain:
        return criterion.value(readout @ A1, targets)
    R = readout @ A1 - targets
    return np.sum(R * R) / A1.shape[1]


def terminal_momentum(
    A1: Array, readout: Array, targets: Array, weight_decay: float, criterion: Loss = PLAIN
) -> Array:
    """B_1 = −(2/(λN)) Qᵀ(Q A_1 − Yᵀ) = −(1/λ) ∂C/∂A_1, (w, N); targets are Yᵀ, (d_out, N)."""
    if not criterion.plain:
        return -readout.T @ criterion.gradient(readout @ A1, targets) / weight_decay
    return (-2.0 / (weight_decay * A1.shape[1])) * (readout.T @ (readout @ A1 - targets))


def terminal_curvature(
    A1: Array, readout: Array, targets: Array, weight_decay: float, criterion: Loss = PLAIN
) -> Array:
    """(1/λ) ∂²C/∂A_1² of a sample, (N, w, w); of the mean squared error (2/(λN)) QᵀQ, (w, w)."""
    if not criterion.plain:
        blocks = criterion.curvature(readout @ A1, targets)
        return readout.T @ blocks @ readout / weight_decay
    return 2.0 / (weight_decay * A1.shape[1]) * readout.T @ readout


# ---------------------------------------------------------------------------------------------
# Along a path


def bottleneck_rank(H: ArrayLike, effective_depth: float) -> float:
    """−2 median(H)/L̃, the estimate of the bottleneck rank; H at one node or at several."""
    return float(-2.0 * np.median(np.asarray(H)) / effective_depth)


def is_dimension(rank: float, width: int) -> bool:
    """Whether a bottleneck rank lies, to a half, among the dimensions 0 to w that there are."""
    return -0.5 <= rank <= width + 0.5


def hamiltonian_drift(H: ArrayLike) -> float:
    """(max H − min H)/max(1, |median H|) over the nodes: 0 on an exact path."""
    H = np.asarray(H)
    return float((H.max() - H.min()) / max(1.0, abs(float(np.median(H)))))


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
    settings: dict[str, Any] = dict(effective_depth=effective_depth, activation=activation,
                                    bias=bias)

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
