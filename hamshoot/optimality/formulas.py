"""The certificate's own formulas: NumPy alone, nothing from the rest of the package, no search.

The network is A_ℓ = (1 − ρ_ℓL̃) A_{ℓ−1} + ρ_ℓ W_ℓ σ̂(A_{ℓ−1}), A_0 given, σ̂(A) = [σ(A); 1ᵀ], and

    J = (1/N)‖QA_L − Yᵀ‖² + λ/(2L̃) Σ_ℓ ρ_ℓ‖W_ℓ‖².

Write J + λ Σ_ℓ ⟨B_ℓ, A_ℓ − (1 − ρ_ℓL̃)A_{ℓ−1} − ρ_ℓW_ℓσ̂(A_{ℓ−1})⟩, differentiate in A_L, in
A_{ℓ−1} and in W_ℓ, and ask for 0:

    B_L = −(2/(λN)) Qᵀ(QA_L − Yᵀ),
    B_{ℓ−1} = (1 − ρ_ℓL̃) B_ℓ + ρ_ℓ σ′(A_{ℓ−1}) ⊙ (W_ℓᵀB_ℓ)      (W_ℓ without its bias column),
    ∂J/∂W_ℓ = (λρ_ℓ/L̃) G_ℓ,   G_ℓ = W_ℓ − L̃ B_ℓ σ̂(A_{ℓ−1})ᵀ.

Where the lift P, A_0 = PXᵀ, or the readout Q is learned, J has (μ_P/2)‖P‖² + (μ_Q/2)‖Q‖² besides,
and by the same multipliers, −λB_0 being the derivative in A_0 and N ∂C/∂z that of the loss,

    ∂J/∂P = μ_P P − λ B_0 X,    ∂J/∂Q = μ_Q Q + (∂C/∂z) A_Lᵀ.

With G = 0 inserted, these are the steps of the flow of H = (L̃/2)‖Bσ̂(A)ᵀ‖² − L̃ Tr(BAᵀ).

Shapes: A, B (…, w, N); W (…, w, w+1), last column the bias, or (…, w, w) without; whole networks
(…, L, w, w+1) with steps (L,). Leading axes are a batch. W may have a tiny imaginary part: all but
`stationarity` and `gradient_norm` are analytic on each piece of σ, so that the imaginary part of a
result is a derivative, exact to rounding. A sweep costs 2Lw²N flops.
"""

from __future__ import annotations

from math import erfc
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Runge–Kutta rules: how far each stage after the first follows the velocity of the one before, and
#: the shares of the stage velocities in the step, both as fractions of the step.
RULES = {"euler": ((), (1.0,)), "rk4": ((1 / 2, 1 / 2, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6))}


#: What stands in for an activation with a kink, and the leaky ReLUs with those they are made of.
SMOOTHED = {"relu": "smooth_relu", "leaky_relu": "smooth_leaky_relu"}
RELU_OF = {"leaky_relu": "relu", "smooth_leaky_relu": "smooth_relu"}


class Setting(NamedTuple):
    """The data of a problem, as arrays and numbers.

    Attributes
    ----------
    start : ndarray, shape (w, N)
        A_0.
    targets, endpoint : ndarray, shape (d_out, N) and (w, N)
        Yᵀ, or with a hard endpoint the A_1 prescribed; the other one is None.
    readout : ndarray, shape (d_out, w)
        Q.
    leak, decay : float
        L̃ and λ.
    bias : bool
    activation : {"linear", "relu", "smooth_relu", "leaky_relu", "smooth_leaky_relu", "tanh", \
"softplus", "gelu"}
    epsilon : float
        ε of the smooth ReLUs, else 0.
    samples : int
        The N that the loss is a mean over; a block of samples keeps the N of all.
    negative_slope : float
        α of the leaky ReLUs, else 0.
    functions : tuple of callable, optional
        σ, σ′ and σ″ of an activation that is made of functions: then these formulas are the user's,
        and only the rest is checked.
    loss : {"squared", "cross_entropy", "huber"}
    delta : float
        δ of Huber's loss, else 0.
    sample_weights : ndarray, shape (N,), optional
        Of the samples, or of the block of them.
    lift, inputs : ndarray, shapes (w, d_in) and (d_in, N), optional
        P and Xᵀ where a map is learned; then `start` is their product.
    lift_decay, readout_decay : float
        μ_P and μ_Q; 0 of what is fixed.
    """

    start: NDArray
    targets: NDArray | None
    endpoint: NDArray | None
    readout: NDArray
    leak: float
    decay: float
    bias: bool
    activation: str
    epsilon: float
    samples: int
    negative_slope: float = 0.0
    functions: tuple[Any, ...] | None = None
    loss: str = "squared"
    delta: float = 0.0
    sample_weights: NDArray | None = None
    lift: NDArray | None = None
    inputs: NDArray | None = None
    lift_decay: float = 0.0
    readout_decay: float = 0.0

    @property
    def learns(self) -> bool:
        """Whether a map is learned."""
        return self.lift_decay > 0 or self.readout_decay > 0


# -- one node --------------------------------------------------------------------------------------


def sigma(setting: Setting, z: NDArray) -> NDArray:
    """σ(z): z, max(z, 0), or (z + √(z² + ε²))/2, for z < 0 in the form ε²/(2(√(z² + ε²) − z));

    tanh z, ln(1 + e^z), zΦ(z); of the leaky ones αz and 1 − α of their ReLU.
    """
    if setting.functions is not None:
        return _first_order(setting.functions[0], setting.functions[1], z)
    if setting.activation == "linear":
        return z
    if setting.activation == "relu":
        return np.where(z.real > 0, z, 0)
    far = np.where(z.real < 0, -z, z)  # |z|, kept complex
    if setting.activation == "tanh":
        small = np.exp(-2 * far)
        return np.where(z.real < 0, -1.0, 1.0) * (1 - small) / (1 + small)
    if setting.activation == "softplus":
        return (z + far) / 2 + np.log1p(np.exp(-far))
    if setting.activation == "gelu":
        return z * _normal(z)
    if setting.activation in RELU_OF:
        relu = setting._replace(activation=RELU_OF[setting.activation])
        return setting.negative_slope * z + (1 - setting.negative_slope) * sigma(relu, z)
    large = (far + np.sqrt(z * z + setting.epsilon**2)) / 2
    return np.where(z.real < 0, setting.epsilon**2 / (4 * large), large)


def slope(setting: Setting, z: NDArray) -> NDArray:
    """σ′(z): 1, [z > 0], or (1 + z/√(z² + ε²))/2 = σ(z)/√(z² + ε²);

    1 − tanh² z, 1/(1 + e^−z), Φ(z) + ze^{−z²/2}/√2π; of the leaky ones as σ.
    """
    if setting.functions is not None:
        return _first_order(setting.functions[1], setting.functions[2], z)
    if setting.activation == "linear":
        return np.ones_like(z)
    if setting.activation == "relu":
        return np.where(z.real > 0, 1.0, 0.0)
    if setting.activation == "tanh":
        return 1 - sigma(setting, z) ** 2
    if setting.activation == "softplus":
        grown = np.exp(np.where(z.real < 0, z, -z))
        return np.where(z.real < 0, grown, 1.0) / (1 + grown)
    if setting.activation == "gelu":
        return _normal(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    if setting.activation in RELU_OF:
        relu = setting._replace(activation=RELU_OF[setting.activation])
        return setting.negative_slope + (1 - setting.negative_slope) * slope(relu, z)
    return sigma(setting, z) / np.sqrt(z * z + setting.epsilon**2)


def _first_order(f: Any, derivative: Any, z: NDArray) -> NDArray:
    """f(z), to first order in an imaginary part, which is tiny."""
    if not np.iscomplexobj(z):
        return f(z)
    return f(z.real) + 1j * z.imag * derivative(z.real)


def _normal(z: NDArray) -> NDArray:
    """Φ(z) of the normal distribution; to first order in an imaginary part, which is tiny."""
    real = np.array([0.5 * erfc(-x / 2**0.5) for x in z.real.flat]).reshape(z.shape)
    if not np.iscomplexobj(z):
        return real
    return real + 1j * z.imag * np.exp(-z.real * z.real / 2) / np.sqrt(2 * np.pi)


def features(setting: Setting, A: NDArray, pattern: NDArray | None = None) -> NDArray:
    """σ̂(A), (…, w+1, N), or σ(A) alone without bias.

    With a pattern of slopes (…, w, N), σ(A) = pattern ⊙ A: a piece on which a ReLU network is
    linear in every A_ℓ, whatever rounding left of activations that are 0.
    """
    value = sigma(setting, A) if pattern is None else pattern * A
    if not setting.bias:
        return value
    ones = np.ones((*value.shape[:-2], 1, value.shape[-1]))
    return np.concatenate([value, ones], axis=-2)


def hamiltonian(setting: Setting, A: NDArray, B: NDArray) -> NDArray:
    """H = (L̃/2)‖Bσ̂(A)ᵀ‖² − L̃ Tr(BAᵀ), (…); of Euler layers at (A_{ℓ−1}, B_ℓ)."""
    product = B @ _T(features(setting, A))
    return setting.leak * (_square(product) / 2 - np.sum(B * A, axis=(-2, -1)))


def control(setting: Setting, A: NDArray, B: NDArray) -> NDArray:
    """W = L̃Bσ̂(A)ᵀ, (…, w, w+1)."""
    return setting.leak * B @ _T(features(setting, A))


def flow(setting: Setting, A: NDArray, B: NDArray) -> tuple[NDArray, NDArray]:
    """∂_pA = ∂H/∂B = Wσ̂(A) − L̃A and ∂_pB = −∂H/∂A = L̃B − σ′(A) ⊙ WᵀB, with W = L̃Bσ̂(A)ᵀ."""
    W = control(setting, A, B)
    pull = slope(setting, A) * (_T(_square_part(W)) @ B)
    return velocity(setting, A, W), setting.leak * B - pull


# -- forward ---------------------------------------------------------------------------------------


def velocity(setting: Setting, A: NDArray, W: NDArray, pattern: NDArray | None = None) -> NDArray:
    """∂_pA = Wσ̂(A) − L̃A."""
    return W @ features(setting, A, pattern) - setting.leak * A


def stages(
    setting: Setting, A: NDArray, W: NDArray, rho: float | NDArray, rule: str,
    pattern: NDArray | None = None
) -> list[NDArray]:
    """Points at which a step takes the velocity: A alone by Euler's rule, four by RK4."""
    points = [A]
    for reach in RULES[rule][0]:
        points.append(A + reach * rho * velocity(setting, points[-1], W, pattern))
    return points


def step(
    setting: Setting, A: NDArray, W: NDArray, rho: float | NDArray, rule: str = "euler",
    pattern: NDArray | None = None,
) -> NDArray:
    """A_ℓ from A_{ℓ−1}; `rho` is a number, or (…, 1, 1) for several layers at once."""
    points = stages(setting, A, W, rho, rule, pattern)
    return A + rho * sum(share * velocity(setting, x, W, pattern)
                         for share, x in zip(RULES[rule][1], points, strict=True))


def roll_out(
    setting: Setting, W: NDArray, steps: NDArray, rule: str = "euler",
    pattern: NDArray | None = None,
) -> NDArray:
    """A at all nodes, (…, L+1, w, N), from W (…, L, w, w+1) and perhaps a pattern (…, L, w, N)."""
    A = np.broadcast_to(setting.start, (*W.shape[:-3], *setting.start.shape[-2:]))
    nodes = [A]
    for k, rho in enumerate(steps):
        piece = None if pattern is None else pattern[..., k, :, :]
        nodes.append(step(setting, nodes[-1], W[..., k, :, :], rho, rule, piece))
    return np.stack(nodes, axis=-3)


def loss(setting: Setting, end: NDArray) -> NDArray:
    """(1/N)‖QA_L − Yᵀ‖², (…); or (1/N) Σ s_j ℓ(z_j, y_j) with z = QA_L, see `slopes_of_loss`."""
    z, Y = setting.readout @ end, setting.targets
    if setting.loss == "squared" and setting.sample_weights is None:
        return _square(z - Y) / setting.samples
    if setting.loss == "cross_entropy":  # −Σ_k y_k ln π_k
        top = z.real.max(axis=-2, keepdims=True)
        terms = Y * (top + np.log(np.sum(np.exp(z - top), axis=-2, keepdims=True)) - z)
    elif setting.loss == "huber":  # r² up to δ, from there on the tangent
        r = z - Y
        far = np.abs(r.real) - setting.delta
        terms = np.where(far > 0, setting.delta * (2 * r * np.sign(r.real) - setting.delta), r * r)
    else:
        terms = (z - Y) ** 2
    each = np.sum(terms, axis=-2)
    if setting.sample_weights is not None:
        each = setting.sample_weights * each
    return np.sum(each, axis=-1) / setting.samples


def slopes_of_loss(setting: Setting, z: NDArray) -> NDArray:
    """N ∂C/∂z: s_j times 2r, softmax(z) − y, or 2r cut off at ±2δ, with r = z − y."""
    if setting.loss == "cross_entropy":
        grown = np.exp(z - z.real.max(axis=-2, keepdims=True))
        slopes = grown / np.sum(grown, axis=-2, keepdims=True) - setting.targets
    else:
        slopes = 2 * (z - setting.targets)
        if setting.loss == "huber":
            most = 2 * setting.delta
            slopes = np.where(np.abs(slopes.real) > most, most * np.sign(slopes.real), slopes)
    return slopes if setting.sample_weights is None else setting.sample_weights * slopes


def objective(
    setting: Setting, end: NDArray, W: NDArray, steps: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """J, its loss (0 with a hard endpoint) and Σρ‖W‖², (…) each, of networks that end at `end`.

    J with the weight decay of learned maps.
    """
    norm = np.sum(steps * _square(W), axis=-1)
    misfit = 0 * norm if setting.targets is None else loss(setting, end)
    return misfit + setting.decay / (2 * setting.leak) * norm + map_decay(setting), misfit, norm


def map_decay(setting: Setting) -> NDArray | float:
    """(μ_P/2)‖P‖² + (μ_Q/2)‖Q‖² of the maps that are learned."""
    total: NDArray | float = 0.0
    if setting.lift_decay > 0 and setting.lift is not None:
        total = total + setting.lift_decay / 2 * _square(setting.lift)
    if setting.readout_decay > 0:
        total = total + setting.readout_decay / 2 * _square(setting.readout)
    return total


# -- backward --------------------------------------------------------------------------------------


def terminal(setting: Setting, end: NDArray) -> NDArray:
    """B_L = −(2/(λN)) Qᵀ(QA_L − Yᵀ); of another loss −(1/λ) Qᵀ ∂C/∂z."""
    if setting.loss != "squared" or setting.sample_weights is not None:
        pull = _T(setting.readout) @ slopes_of_loss(setting, setting.readout @ end)
        return -pull / (setting.decay * setting.samples)
    error = setting.readout @ end - setting.targets
    return -2 / (setting.decay * setting.samples) * _T(setting.readout) @ error


def pull_back(
    setting: Setting, A: NDArray, W: NDArray, rho: float | NDArray, B: NDArray,
    rule: str = "euler", slopes: NDArray | None = None, pattern: NDArray | None = None,
) -> tuple[NDArray, NDArray]:
    """B_{ℓ−1} from B_ℓ at A_{ℓ−1}, and the G_ℓ of this layer.

    `slopes` (…, w, N) stand in for σ′ by Euler's rule. In general a step adds ρΣ_s c_s v(x_s), and
    stage s + 1 lies at x_{s+1} = A + a_s ρ v(x_s); with g_s the costate of v(x_s) over ρ,

        g_s = c_s B_ℓ + a_s x̄_{s+1},   x̄_s = ρ (σ′(x_s) ⊙ Wᵀg_s − L̃g_s),   B_{ℓ−1} = B_ℓ + Σ_s x̄_s.
    """
    reaches, shares = RULES[rule]
    left, product, later = B, np.zeros(()), np.zeros(())
    for x, share, reach in zip(stages(setting, A, W, rho, rule, pattern)[::-1], shares[::-1],
                               (0.0, *reaches[::-1]), strict=True):
        g = share * B + reach * later
        d = slope(setting, x) if slopes is None else slopes
        later = rho * (d * (_T(_square_part(W)) @ g) - setting.leak * g)
        left = left + later
        product = product + g @ _T(features(setting, x, pattern))
    return left, W - setting.leak * product


def costates(
    setting: Setting, A: NDArray, W: NDArray, steps: NDArray, rule: str = "euler",
    slopes: NDArray | None = None, end: NDArray | None = None, pattern: NDArray | None = None,
) -> tuple[NDArray, NDArray]:
    """B at all nodes, (…, L+1, w, N), and G, (…, L, w, w+1), of a roll-out A.

    `slopes` (…, L, w, N) stand in for σ′ (Euler's rule), `end` (…, w, N) for B_L.
    """
    B, G = [terminal(setting, A[..., -1, :, :]) if end is None else end], []
    for k in range(len(steps) - 1, -1, -1):
        own = (None if choice is None else choice[..., k, :, :] for choice in (slopes, pattern))
        left, gradient = pull_back(setting, A[..., k, :, :], W[..., k, :, :], steps[k], B[-1],
                                   rule, *own)
        B.append(left)
        G.append(gradient)
    return np.stack(B[::-1], axis=-3), np.stack(G[::-1], axis=-3)


def lift_slope(setting: Setting, start: NDArray) -> NDArray:
    """∂J/∂P = μ_P P − λ B_0 X, (…, w, d_in), of B_0 (…, w, N)."""
    assert setting.inputs is not None
    assert setting.lift is not None
    return setting.lift_decay * setting.lift - setting.decay * start @ _T(setting.inputs)


def readout_slope(setting: Setting, end: NDArray) -> NDArray:
    """∂J/∂Q = μ_Q Q + (∂C/∂z) A_Lᵀ, (…, d_out, w), of A_L (…, w, N)."""
    pull = slopes_of_loss(setting, setting.readout @ end) / setting.samples
    return setting.readout_decay * setting.readout + pull @ _T(end)


def map_stationarities(setting: Setting, end: NDArray, start: NDArray) -> dict[str, float]:
    """‖(1/μ)∂J/∂P‖ / max(1, ‖P‖), and of Q, of what is learned; of A_L and B_0."""
    found = {}
    if setting.lift_decay > 0:
        found["lift_stationarity"] = _against(
            lift_slope(setting, start) / setting.lift_decay, setting.lift)
    if setting.readout_decay > 0:
        found["readout_stationarity"] = _against(
            readout_slope(setting, end) / setting.readout_decay, setting.readout)
    return found


def _against(slope: NDArray, matrix: NDArray | None) -> float:
    assert matrix is not None
    return float(np.linalg.norm(slope)) / max(1.0, float(np.linalg.norm(matrix)))


def stationarity(W: NDArray, G: NDArray) -> float:
    """Largest ‖G_ℓ‖ / max(1, ‖W_ℓ‖) over the layers."""
    sizes = np.maximum(1.0, np.linalg.norm(W, axis=(-2, -1)))
    return float(np.max(np.linalg.norm(G, axis=(-2, -1)) / sizes))


def gradient_norm(setting: Setting, steps: NDArray, G: NDArray) -> float:
    """‖∂J/∂W‖."""
    return float(np.linalg.norm(setting.decay / setting.leak * steps[:, None, None] * G))


def _T(M: NDArray) -> NDArray:
    return np.swapaxes(M, -1, -2)


def _square(M: NDArray) -> NDArray:
    """Sum of squares over the last two axes; of a complex M analytic, not |M|²."""
    return np.sum(M * M, axis=(-2, -1))


def _square_part(W: NDArray) -> NDArray:
    """W without its bias column."""
    return W[..., : W.shape[-2]]
