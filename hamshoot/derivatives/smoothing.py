"""How the flow of a smooth ReLU moves with its ε: the variational equation with a source.

With y = (A, B) the flow ẏ = f(y, ε) has ψ = dy/dε along ψ̇ = f_y ψ + f_ε, from any ψ at the start.
SciPy's DOP853 integrates y, ψ and the two integrals that J* needs, all segments at once, each
stretched to [0, 1]. The derivatives of σ_ε(z) = (z + r)/2, r = √(z² + ε²), by ε are

    ∂_εσ = ε/(2r),   ∂_εσ′ = −εz/(2r³),   ∂_ε²σ = z²/(2r³).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.derivatives.result import NoDerivative
from hamshoot.problem.activations import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Local tolerances of the integration.
RELATIVE, ABSOLUTE = 1e-12, 1e-13


class Smoothed(NamedTuple):
    """What ε does over S segments.

    Attributes
    ----------
    ends, moved : ndarray, shape (S, 2, w, N)
        y and ψ at the ends of the segments.
    rate, second : float
        ∫∂_εH dp, and its derivative along ψ, over all segments.
    """

    ends: NDArray
    moved: NDArray
    rate: float
    second: float


def slope_by_epsilon(A: NDArray, epsilon: float) -> NDArray:
    """∂_εσ_ε(A), elementwise."""
    return epsilon / (2 * np.sqrt(A * A + epsilon**2))


def carried(
    t: NDArray, y: NDArray, psi: NDArray, *, effective_depth: float, activation: Activation,
    bias: bool,
) -> Smoothed:
    """Integrate y and ψ over every segment.

    Parameters
    ----------
    t : ndarray, shape (S + 1,)
        Nodes.
    y, psi : ndarray, shape (S, 2, w, N)
        A, B and their derivatives by ε at the starts.
    effective_depth : float
    activation : Activation
        The smooth ReLU.
    bias : bool

    Returns
    -------
    Smoothed

    Raises
    ------
    NoDerivative
        Where the flow of a segment is not finite.

    Notes
    -----
    A step costs 12 right-hand sides of about 12 S w²N flops; it is that of the most demanding
    segment, about one passage of an activation over its kink.
    """
    from scipy.integrate import solve_ivp

    spans = np.diff(t)[:, None, None]
    shape = (2, *y.shape)

    def rates(_: float, flat: NDArray) -> NDArray:
        state, change = flat[:-2].reshape(shape)
        field, varied, integrals = _rates(state, change, effective_depth, activation, bias)
        out = np.stack([field, varied]) * spans[:, None]
        return np.concatenate([out.ravel(), (integrals * spans[:, 0, 0]).sum(1)])

    start = np.concatenate([y.ravel(), psi.ravel(), np.zeros(2)])
    with np.errstate(all="ignore"):
        if not np.all(np.isfinite(rates(0.0, start))):
            raise NoDerivative("epsilon: the flow is not finite on the path")
        tight = np.sqrt(len(spans))  # the error norm is a mean over all segments
        run = solve_ivp(rates, (0.0, 1.0), start, method="DOP853", t_eval=[1.0],
                        rtol=max(RELATIVE / tight, 3e-14), atol=ABSOLUTE / tight)
    if not run.success or not np.all(np.isfinite(run.y)):
        raise NoDerivative("epsilon: the flow cannot be integrated along the path")
    ends, moved = run.y[:-2, -1].reshape(shape)
    return Smoothed(ends, moved, float(run.y[-2, -1]), float(run.y[-1, -1]))


def _rates(
    y: NDArray, psi: NDArray, leak: float, sigma: Activation, bias: bool
) -> tuple[NDArray, NDArray, NDArray]:
    """ẏ and ψ̇, (S, 2, w, N), and ∂_εH with its derivative along ψ, (2, S)."""
    (A, B), (a, b) = y.swapaxes(0, 1), psi.swapaxes(0, 1)
    epsilon = sigma.epsilon
    r = np.sqrt(A * A + epsilon**2)
    value, slope = sigma(A), sigma.slope(A)
    by_epsilon = epsilon / (2 * r)
    change = slope * a + by_epsilon  # of σ(A)
    bend = sigma.curvature(A) * a - epsilon * A / (2 * r**3)  # of σ′(A)
    M, m = B @ _t(value), b @ _t(value) + B @ _t(change)
    signal, signal_change = _t(M) @ B, _t(m) @ B + _t(M) @ b
    velocity, turned = M @ value - A, m @ value + M @ change - a
    if bias:
        velocity = velocity + B.sum(2, keepdims=True)
        turned = turned + b.sum(2, keepdims=True)
    force, pulled = B - slope * signal, b - bend * signal - slope * signal_change
    rate = np.sum(signal * by_epsilon, axis=(1, 2))
    bent = -epsilon * A / (2 * r**3) * a + A * A / (2 * r**3)  # of ∂_εσ(A)
    second = np.sum(signal_change * by_epsilon + signal * bent, axis=(1, 2))
    return (leak * np.stack([velocity, force], axis=1), leak * np.stack([turned, pulled], axis=1),
            leak * np.stack([rate, second]))


def _t(matrices: NDArray) -> NDArray:
    return np.swapaxes(matrices, -1, -2)
