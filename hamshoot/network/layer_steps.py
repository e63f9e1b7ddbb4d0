"""Layer steps ρ_ℓ of a Leaky ResNet: equidistant, irregular, adaptive (section 3 of the paper).

A layer of step ρ keeps the share 1 − ρL̃ of its input, so every scheme here can hold ρL̃ below 1
(`limit_steps`); `cap_binds` says whether that limit, and not the formula, has set a step.

*Adaptive* steps give every layer the same relative change. With c_ℓ = ‖A_ℓ − A_{ℓ−1}‖/(ρ_ℓ‖A_ℓ‖),
the relative speed of the path, they are the fixed points of ρ_ℓ ← c_ℓ⁻¹/Σ_i c_i⁻¹. From a path that
is already known there is nothing to iterate: its cumulative length s(p) = ∫‖∂_pA‖/‖A‖ dp is
inverted at equal shares of s(1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamshoot.support.checks import brief

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Largest ρL̃ that adaptive steps may take, where the number of layers allows it.
LARGEST_LEAK = 0.9
#: A speed below this share of the largest counts as this share (a resting layer has c = 0).
SLOWEST_SHARE = 1e-8


def irregular_steps(layers: int, a: float = 0.5) -> NDArray:
    """ρ_ℓ = 1/L + (a/L)(1/4 − |ℓ/L − 1/2|), ℓ = 1…L, then normalised to sum 1.

    Long steps in the middle, short ones at the ends, where representations move fastest.

    Parameters
    ----------
    layers : int
        L ≥ 1.
    a : float
        Irregularity in [0, 1); 0 is equidistant.

    Returns
    -------
    ndarray, shape (L,)

    Raises
    ------
    ValueError
        If `layers` or `a` is out of range.
    """
    _check_layers(layers)
    if isinstance(a, (bool, str)) or not 0 <= a < 1:
        raise ValueError(f"a: expected an irregularity in [0, 1), got {a!r}")
    share = np.arange(1, layers + 1) / layers
    steps = (1 + a * (0.25 - np.abs(share - 0.5))) / layers
    return steps / steps.sum()


def adaptive_update(
    representations: NDArray,
    steps: ArrayLike,
    effective_depth: float | None = None,
    damping: float = 0.0,
) -> NDArray:
    """One update ρ_ℓ ← c_ℓ⁻¹/Σ_i c_i⁻¹ towards steps of equal relative change.

    Parameters
    ----------
    representations : ndarray, shape (L+1, w, N)
        Of the network with the present steps.
    steps : array_like, shape (L,)
    effective_depth : float, optional
        L̃; when given, every ρL̃ stays below 1 (see `limit_steps`).
    damping : float
        In [0, 1): the new steps are ρ^damping (c⁻¹)^(1−damping), normalised. The fixed point is the
        same; an update repeated in training settles where the undamped one oscillates.

    Returns
    -------
    ndarray, shape (L,), sum 1
        Cost O(LwN).

    Raises
    ------
    ValueError
        If the shapes do not belong together, or a representation is zero or not finite.
    """
    steps = _checked_steps(steps)
    if len(representations) != len(steps) + 1:
        raise ValueError(
            f"representations: expected {len(steps) + 1} nodes for {len(steps)} steps, "
            f"got {len(representations)}"
        )
    if not 0 <= damping < 1:
        raise ValueError(f"damping: expected a number in [0, 1), got {damping!r}")
    changes = relative_changes(representations)
    if not np.any(changes > 0):
        return limit_steps(steps, effective_depth)
    speeds = changes / steps
    speeds = np.maximum(speeds, SLOWEST_SHARE * speeds.max())
    new = steps**damping * speeds ** (damping - 1)
    return limit_steps(new / new.sum(), effective_depth)


def adaptive_steps_of_path(
    p: ArrayLike,
    representations: NDArray,
    layers: int,
    effective_depth: float | None = None,
) -> NDArray:
    """Adaptive steps from a known path, by inverting s(p) = ∫‖∂_pA‖/‖A‖ dp.

    Between nodes s is taken to be linear in p. Where the nodes are not finer than the layers
    wanted, sample the path first (`Solution.at`).

    Parameters
    ----------
    p : array_like, shape (M,)
        Increasing, from 0 to 1.
    representations : ndarray, shape (M, w, N)
        A at those depths.
    layers : int
        L, any number.
    effective_depth : float, optional
        L̃; when given, every ρL̃ stays below 1 (see `limit_steps`).

    Returns
    -------
    ndarray, shape (L,), sum 1
        Cost O(MwN).

    Raises
    ------
    ValueError
        If `p` does not increase from 0 to 1 with one representation each, or `layers` is too few.
    """
    _check_layers(layers)
    p = np.asarray(p, dtype=float)
    if p.ndim != 1 or len(p) < 2 or p[0] != 0 or abs(p[-1] - 1) > 1e-12 or np.any(np.diff(p) <= 0):
        raise ValueError("p: expected at least two increasing depths from 0 to 1")
    if len(representations) != len(p):
        raise ValueError(
            f"representations: expected one for each of the {len(p)} depths, "
            f"got {len(representations)}"
        )
    length = np.concatenate([[0.0], np.cumsum(_relative_lengths(representations))])
    if length[-1] == 0:
        return limit_steps(np.full(layers, 1.0 / layers), effective_depth)
    # A stretch at rest has no length of its own; a trace of p keeps s invertible.
    length += SLOWEST_SHARE * length[-1] * p
    nodes = np.interp(np.linspace(0, length[-1], layers + 1), length, p)
    nodes[0], nodes[-1] = 0.0, 1.0
    return limit_steps(np.diff(nodes), effective_depth)


def relative_changes(representations: NDArray) -> NDArray:
    """‖A_ℓ − A_{ℓ−1}‖_F/‖A_ℓ‖_F of every layer, (L,): all equal when adaptive steps are settled.

    Raises
    ------
    ValueError
        If a representation is zero or not finite.
    """
    sizes = _sizes(representations)[1:]
    return np.linalg.norm(np.diff(representations, axis=0), axis=(1, 2)) / sizes


def steps_of(
    steps: str | ArrayLike,
    layers: int,
    effective_depth: float,
    names: tuple[str, ...] = ("equidistant", "irregular"),
) -> NDArray:
    """Layer steps by name, or given ones, checked: one a layer, sum 1, every ρL̃ < 1.

    Parameters
    ----------
    steps : {"equidistant", "irregular", "adaptive"} or array_like, shape (L,)
        "adaptive" begins equidistant; whoever trains updates it.
    names : tuple of str
        Which names the caller knows.

    Raises
    ------
    ValueError
        For an unknown name, a wrong length or sum, or a step with ρL̃ ≥ 1.
    """
    _check_layers(layers)
    if isinstance(steps, str):
        if steps not in names:
            raise ValueError(f"steps: expected one of {', '.join(names)} or numbers, got {steps!r}")
        largest_step(layers, effective_depth)
        if steps == "irregular":
            return limit_steps(irregular_steps(layers), effective_depth)
        return np.full(layers, 1.0 / layers)
    try:
        given = _checked_steps(steps)
    except (TypeError, ValueError):
        raise ValueError(
            f"steps: expected one of {', '.join(names)} or {layers} finite numbers > 0, "
            f"got {steps!r}"
        ) from None
    if len(given) != layers:
        raise ValueError(f"steps: expected {layers} of them, one a layer, got {len(given)}")
    if abs(given.sum() - 1) > 1e-8:
        raise ValueError(f"steps: expected a sum of 1, got {given.sum():.10g}")
    if given.max() * effective_depth >= 1:
        raise ValueError(
            f"steps: expected every ρ·L̃ < 1, got a step {given.max():.4g} with an effective depth "
            f"{effective_depth:g}"
        )
    return given / given.sum()


# -- the limit ρL̃ < 1 ------------------------------------------------------------------------------


def limit_steps(steps: ArrayLike, effective_depth: float | None) -> NDArray:
    """Cap the steps at `largest_step`; what is cut off is shared by the others in proportion.

    Without an effective depth the steps are only normalised. The order of the steps is kept, and
    steps that fit are returned as they are.

    Raises
    ------
    ValueError
        If L layers cannot fit, L ≤ L̃.
    """
    rho = _checked_steps(steps)
    rho = rho / rho.sum()
    if effective_depth is None:
        return rho
    cap = largest_step(len(rho), effective_depth)
    capped = np.zeros(len(rho), dtype=bool)
    while np.any(rho[~capped] > cap):
        capped |= rho > cap
        rest = 1 - cap * capped.sum()
        rho = np.where(capped, cap, rho)
        if not capped.all():
            rho[~capped] *= rest / rho[~capped].sum()
    return rho


def largest_step(layers: int, effective_depth: float) -> float:
    """Largest step allowed: ρL̃ = 0.9, or halfway from 1/L to 1/L̃ where that is more.

    Raises
    ------
    ValueError
        If L ≤ L̃.
    """
    _check_layers(layers)
    if layers <= effective_depth:
        raise ValueError(
            f"layers: every ρ·L̃ < 1 needs more layers than the effective depth, "
            f"got {layers} for {effective_depth:g}"
        )
    return max(LARGEST_LEAK / effective_depth, 0.5 * (1 / layers + 1 / effective_depth))


def cap_binds(steps: ArrayLike, effective_depth: float) -> bool:
    """Whether a step sits at the limit, so that its layer changes less than the scheme asked for.

    A single layer has only one step and is never said to be capped.
    """
    steps = np.asarray(steps, dtype=float)
    cap = largest_step(len(steps), effective_depth)
    return bool(len(steps) > 1 and steps.max() >= cap * (1 - 1e-12))


# -- parts -----------------------------------------------------------------------------------------


def _relative_lengths(representations: NDArray) -> NDArray:
    """∫‖∂_pA‖/‖A‖ dp over each interval: chord over the logarithmic mean of the end sizes."""
    sizes = _sizes(representations)
    chords = np.linalg.norm(np.diff(representations, axis=0), axis=(1, 2))
    left, right = sizes[:-1], sizes[1:]
    growth = np.log(right / left)
    close = np.abs(growth) < 1e-6
    mean = np.where(close, 0.5 * (left + right), (right - left) / np.where(close, 1.0, growth))
    return chords / mean


def _sizes(representations: NDArray) -> NDArray:
    sizes = np.linalg.norm(representations, axis=(1, 2))
    if not np.all(np.isfinite(sizes)) or np.any(sizes == 0):
        raise ValueError(
            "representations: expected finite, non-zero matrices at every node (relative changes "
            "are undefined otherwise)"
        )
    return sizes


def _checked_steps(steps: ArrayLike) -> NDArray:
    steps = np.asarray(steps, dtype=float)
    if steps.ndim != 1 or not len(steps) or not np.all(np.isfinite(steps)) or np.any(steps <= 0):
        raise ValueError("steps: expected a vector of finite numbers > 0, one a layer")
    return steps


def _check_layers(layers: int) -> None:
    if isinstance(layers, bool) or not isinstance(layers, (int, np.integer)) or layers < 1:
        raise ValueError(f"layers: expected an integer >= 1, got {brief(layers)}")
