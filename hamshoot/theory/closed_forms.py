"""Exact solutions: the oracles that every solver must hit.

All are for networks *without bias*. The linear formulas hold for ReLU too as long as every entry of
A stays positive, for then σ(A) = A and σ′(A) = 1 on the whole path. Energies follow from
`hamiltonian.py` with ``bias=False``; costs are the control cost of the problem over λ,

    cost = (1/(2L̃)) ∫₀¹ ‖W_p‖_F² dp,      so that J = loss + λ · cost.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


class LinearPath(NamedTuple):
    """An extremal of the linear problem at the M positions asked for."""

    representations: Array
    """A_p, (M, w, N)."""
    weights: Array
    """W_p, (M, w, w)."""
    momenta: Array
    """B_p, (M, w, N)."""
    cost: float
    """‖W_0‖_F²/(2L̃), over the whole of [0, 1]."""
    hamiltonian: float
    """H = ‖W_0‖_F²/(2L̃) − Tr W_0, the same at every p."""


def linear_path(p: ArrayLike, A0: Array, W0: Array, effective_depth: float) -> LinearPath:
    """The extremal of a linear network that starts at A_0 with the control W_0, any w and N.

    With S = W_0 − W_0ᵀ the weights turn without changing their singular values,

        W_p = e^{pS} W_0 e^{−pS},
        A_p = e^{−L̃p} e^{pS} e^{pW_0ᵀ} A_0,
        B_p = e^{L̃p} e^{pS} e^{−pW_0} B_0.

    Insert A_p and B_p in Ȧ = −L̃A + WA, Ḃ = L̃B − WᵀB and W = L̃BAᵀ to check; ‖W_p‖_F and Tr W_p
    are constant, and with them H. An extremal satisfies Pontryagin's conditions; that does not make
    it the cheapest way to A_1 (a rotation by more than π is one, too).

    Parameters
    ----------
    p : (M,) array or a number
        Positions; a number gives M = 1.
    A0 : (w, N) array
    W0 : (w, w) array
        L̃ B_0 A_0ᵀ for some B_0; any matrix when A_0 has rank w. B_0 is the one of least norm.
    effective_depth : float
        L̃ > 0.

    Returns
    -------
    LinearPath
        O(M (w³ + w²N)).

    Raises
    ------
    ValueError
        If the shapes do not agree, or no B_0 gives W_0: such a control is not stationary, part of
        it acts on directions the samples do not span and could be removed free of charge.
    """
    from scipy.linalg import expm

    _check_depth(effective_depth)
    w = A0.shape[0]
    if A0.ndim != 2 or W0.shape != (w, w):
        raise ValueError(
            f"W0: expected shape ({w}, {w}) for A0 of shape {A0.shape}, got {W0.shape}"
        )
    B0 = np.linalg.lstsq(A0, W0.T, rcond=None)[0].T / effective_depth
    misfit = np.linalg.norm(effective_depth * B0 @ A0.T - W0)
    if misfit > 1e-8 * max(1.0, float(np.linalg.norm(W0))):
        raise ValueError(
            "W0: expected effective_depth * B0 @ A0.T for some B0 (rows in the span of the columns "
            f"of A0), got a matrix at distance {misfit:.3g} from that set"
        )
    S = W0 - W0.T
    positions = np.atleast_1d(np.asarray(p, dtype=float))
    representations, weights, momenta = [], [], []
    for q in positions:
        turn = expm(q * S)  # orthogonal: its inverse is its transpose
        leak = np.exp(effective_depth * q)
        weights.append(turn @ W0 @ turn.T)
        representations.append(turn @ (expm(q * W0.T) @ A0) / leak)
        momenta.append(turn @ (expm(-q * W0) @ B0) * leak)
    cost = float(np.sum(W0 * W0)) / (2.0 * effective_depth)
    return LinearPath(
        np.array(representations),
        np.array(weights),
        np.array(momenta),
        cost,
        cost - float(np.trace(W0)),
    )


class OneSamplePath(NamedTuple):
    """The optimal path of one sample between two given ends."""

    representations: Array
    """a_p, (M, w, 1)."""
    weights: Array
    """W_p = L̃ b_p a_pᵀ, (M, w, w), of rank one."""
    momenta: Array
    """b_p, (M, w, 1)."""
    cost: float
    """((L̃ + ln(r_1/r_0))² + θ²)/(2L̃)."""
    hamiltonian: float
    """H = (ln(r_1/r_0)² + θ²)/(2L̃) − L̃/2."""


def one_sample_path(
    p: ArrayLike, a0: ArrayLike, a1: ArrayLike, effective_depth: float
) -> OneSamplePath:
    """The cheapest path of a single sample from a_0 to a_1 (hard end).

    The least W that gives ∂_pa is (∂_pa + L̃a)aᵀ/‖a‖², of squared norm (∂_p ln‖a‖ + L̃)² + θ̇² with θ
    the angle travelled. So ln‖a‖ is linear in p and the direction runs along the great circle at
    constant speed. For a linear network this holds for all ends. For ReLU both ends must lie in the
    positive orthant: the great circle then stays in it, and as ‖σ(a)‖ ≤ ‖a‖ no detour is cheaper.

    Parameters
    ----------
    p : (M,) array or a number
    a0, a1 : (w,) arrays
        Ends, neither 0 nor opposite to each other.
    effective_depth : float
        L̃ > 0.

    Returns
    -------
    OneSamplePath
        O(M w²).

    Raises
    ------
    ValueError
        If the ends differ in shape, one is 0, or they point in opposite directions.
    """
    _check_depth(effective_depth)
    start, end = np.asarray(a0, dtype=float).ravel(), np.asarray(a1, dtype=float).ravel()
    if start.shape != end.shape:
        raise ValueError(f"a1: expected shape {start.shape} like a0, got {end.shape}")
    r0, r1 = float(np.linalg.norm(start)), float(np.linalg.norm(end))
    if r0 == 0 or r1 == 0:
        raise ValueError("a0, a1: expected vectors other than 0, got a zero vector")
    u0, u1 = start / r0, end / r1
    # The angle from half the chord: accurate for small angles, where arccos is not.
    angle = 2.0 * float(np.arctan2(np.linalg.norm(u1 - u0), np.linalg.norm(u1 + u0)))
    if np.pi - angle < 1e-7:
        raise ValueError(
            "a0, a1: expected directions less than half a turn apart, got opposite ones"
        )
    sideways = u1 - (u1 @ u0) * u0
    norm = float(np.linalg.norm(sideways))
    v0 = sideways / norm if norm > 0 else np.zeros_like(u0)

    positions = np.atleast_1d(np.asarray(p, dtype=float))[:, None]
    growth = np.log(r1 / r0)
    radius = r0 * np.exp(growth * positions)
    cos, sin = np.cos(angle * positions), np.sin(angle * positions)
    u, v = cos * u0 + sin * v0, cos * v0 - sin * u0  # v = ∂u/∂(angle)
    a = radius * u
    b = ((effective_depth + growth) * u + angle * v) / (effective_depth * radius)
    weights = effective_depth * b[:, :, None] * a[:, None, :]
    cost = ((effective_depth + growth) ** 2 + angle**2) / (2.0 * effective_depth)
    hamiltonian = (growth**2 + angle**2) / (2.0 * effective_depth) - 0.5 * effective_depth
    return OneSamplePath(a[:, :, None], weights, b[:, :, None], float(cost), float(hamiltonian))


def scalar_weight(a0: float, a1: float, effective_depth: float) -> float:
    """The constant W = L̃ + ln(a_1/a_0) that takes a scalar (w = N = 1) from a_0 to a_1.

    Cost W²/(2L̃), H = ln(a_1/a_0)²/(2L̃) − L̃/2. For ReLU both ends must be positive.

    Raises
    ------
    ValueError
        If a_1/a_0 is not positive: no control reaches the other side of 0.
    """
    _check_depth(effective_depth)
    return effective_depth + float(np.log(_ratio(a0, a1)))


def scalar_euler_weight(a0: float, a1: float, effective_depth: float, layers: int) -> float:
    """The same for an Euler network of L equal layers: W = L̃ + L((a_1/a_0)^{1/L} − 1).

    The product of the factors x_l = 1 + (W_l − L̃)/L is given, and Σ W_l² is to be least.
    Stationarity makes W_l x_l the same in every layer, which equal weights do. They are the global
    optimum when a_1 ≥ a_0(1 − L̃/L)^L, where the idle network W = 0 ends (W² is convex in ln x from
    there on), and a local one while x > (1 − L̃/L)/2. Tends to `scalar_weight` as L → ∞.

    Raises
    ------
    ValueError
        If a_1/a_0 is not positive or `layers` not an integer above L̃.
    """
    _check_depth(effective_depth)
    _check_layers(layers, effective_depth)
    return effective_depth + layers * float(np.expm1(np.log(_ratio(a0, a1)) / layers))


def scalar_objective(
    a0: float,
    a1: float,
    y: float,
    effective_depth: float,
    weight_decay: float,
    layers: int | None = None,
) -> float:
    """J = (a_1 − y)² + (λ/(2L̃)) W², W the optimal one from a_0 to a_1 (Euler if `layers` given)."""
    if layers is None:
        W = scalar_weight(a0, a1, effective_depth)
    else:
        W = scalar_euler_weight(a0, a1, effective_depth, layers)
    return (a1 - y) ** 2 + weight_decay / (2.0 * effective_depth) * W**2


def scalar_stationary_endpoints(
    a0: float, y: float, effective_depth: float, weight_decay: float, layers: int | None = None
) -> tuple[float, ...]:
    """Every end a_1 at which the scalar problem with the loss (a_1 − y)² is stationary, ascending.

    The roots of 2(a_1 − y)a_1 + (λ/L̃)(L̃ + ln(a_1/a_0)) = 0, or for L Euler layers of
    2(a_1 − y)a_1 + (λ/L̃) W r = 0 with r = (a_1/a_0)^{1/L}, W = L̃ + L(r − 1). The continuous
    problem has one or three (two when they merge): when y² > 4λ/L̃ there can be one near the target,
    one near where the leak carries an idle network (the collapse, a local minimum, when besides
    λ/L̃ > 2e y a_0 e^{−L̃} or nearly so) and a maximum between them. This is the smallest problem
    with several minima.

    Parameters
    ----------
    a0 : float
        Start, > 0.
    y : float
        Target, > 0.
    effective_depth, weight_decay : float
        L̃ > 0, λ > 0.
    layers : int, optional
        Number L > L̃ of equal Euler layers; without it the continuous problem.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    from scipy.optimize import brentq

    _check_depth(effective_depth)
    for name, value in (("a0", a0), ("y", y), ("weight_decay", weight_decay)):
        if not value > 0:
            raise ValueError(f"{name}: expected a number > 0, got {value!r}")
    if layers is not None:
        _check_layers(layers, effective_depth)

    def slope(log_a: float) -> float:
        """dJ/d ln a_1."""
        a = np.exp(log_a)
        if layers is None:
            pull = effective_depth + log_a - np.log(a0)
        else:
            r = np.exp((log_a - np.log(a0)) / layers)
            pull = (effective_depth + layers * (r - 1.0)) * r
        return float(2.0 * (a - y) * a + weight_decay / effective_depth * pull)

    # An idle network (W = 0) ends at `idle`. Between idle and y the loss and the weights pull in
    # opposite directions; outside, in the same one: every root lies between the two.
    if layers is None:
        idle = np.log(a0) - effective_depth
    else:
        idle = np.log(a0) + layers * np.log1p(-effective_depth / layers)
    low, high = sorted((float(idle), float(np.log(y))))
    # Roots are simple and far apart in ln a unless two of them are about to merge.
    grid = np.linspace(low - 1e-9, high + 1e-9, 4001)
    values = np.array([slope(t) for t in grid])
    changes = np.flatnonzero(np.sign(values[:-1]) * np.sign(values[1:]) < 0)
    roots = [brentq(slope, grid[i], grid[i + 1], xtol=1e-15, rtol=1e-15) for i in changes]
    roots.extend(grid[values == 0.0])
    return tuple(float(np.exp(t)) for t in sorted(roots))


def scalar_soft_endpoint(
    a0: float, y: float, effective_depth: float, weight_decay: float, layers: int | None = None
) -> float:
    """The optimal end a_1 of the scalar problem with the loss (a_1 − y)²: its global minimiser.

    The stationary end of least J; parameters and errors as `scalar_stationary_endpoints`. Then
    `scalar_weight(a0, a1, ...)` is the optimal control and (y − a_1)·2/λ the momentum at p = 1.
    """
    ends = scalar_stationary_endpoints(a0, y, effective_depth, weight_decay, layers)
    return min(
        ends,
        key=lambda a1: scalar_objective(a0, a1, y, effective_depth, weight_decay, layers),
    )


def aligned_cost(s0: ArrayLike, s1: ArrayLike, effective_depth: float) -> float:
    """Least cost from A_0 = U diag(s⁰) Vᵀ to A_1 = U diag(s¹) Vᵀ by a linear network.

    (1/(2L̃)) Σ_i (L̃ + ln(s¹_i/s⁰_i))², with the constant control W = U diag(L̃ + ln(s¹/s⁰)) Uᵀ;
    H = (1/(2L̃)) Σ_i (ln(s¹_i/s⁰_i)² − L̃²). U is square orthogonal (w × w) and A_0 has rank w.

    Parameters
    ----------
    s0, s1 : (w,) arrays
        Singular values, all > 0, paired by their common singular vectors.
    effective_depth : float
        L̃ > 0.

    Raises
    ------
    ValueError
        If the shapes differ or a singular value is not positive.
    """
    _check_depth(effective_depth)
    start, end = np.asarray(s0, dtype=float), np.asarray(s1, dtype=float)
    if start.shape != end.shape:
        raise ValueError(f"s1: expected shape {start.shape} like s0, got {end.shape}")
    if not (np.all(start > 0) and np.all(end > 0)):
        raise ValueError("s0, s1: expected singular values > 0, got one that is not")
    return float(np.sum((effective_depth + np.log(end / start)) ** 2) / (2.0 * effective_depth))


def _check_depth(effective_depth: float) -> None:
    if not effective_depth > 0:
        raise ValueError(f"effective_depth: expected a number > 0, got {effective_depth!r}")


def _check_layers(layers: int, effective_depth: float) -> None:
    if int(layers) != layers or not layers > effective_depth:
        raise ValueError(
            f"layers: expected an integer above effective_depth = {effective_depth!r}, "
            f"got {layers!r}"
        )


def _ratio(a0: float, a1: float) -> float:
    if a0 == 0 or not a1 / a0 > 0:
        raise ValueError(f"a0, a1: expected two numbers of one sign, got {a0!r} and {a1!r}")
    return a1 / a0
