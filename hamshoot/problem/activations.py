"""Activations σ with their first two derivatives: NumPy and CasADi forms side by side.

Three are known, each with an integer code that the compiled kernels switch on (a function argument
would defeat numba's cache):

==============  ====  ====================================  =================================
name            code  σ(z)                                  σ′(z)
==============  ====  ====================================  =================================
``linear``      0     z                                     1
``relu``        1     max(z, 0)                             1 where z > 0, else 0
``smooth_relu`` 2     (z + √(z² + ε²)) / 2                  (1 + z / √(z² + ε²)) / 2
==============  ====  ====================================  =================================

The smooth ReLU tends to ReLU as ε → 0, with σ_ε − σ = O(ε) at the kink and O(ε²/|z|) away from it.
It is evaluated without cancellation for z ≪ −ε, where z + √(z² + ε²) would lose every digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.support.checks import brief, check_positive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.support.names import ActivationName

LINEAR, RELU, SMOOTH_RELU = 0, 1, 2
#: Stages of a ladder in ε at most.
MOST_STAGES = 10_000
CODES: dict[ActivationName, int] = {"linear": LINEAR, "relu": RELU, "smooth_relu": SMOOTH_RELU}


@dataclass(frozen=True)
class Activation:
    """An activation σ by name; call it for σ(z).

    Parameters
    ----------
    name : {"relu", "smooth_relu", "linear"}
    epsilon : float
        Width ε of the smooth ReLU; positive for ``smooth_relu``, 0 for the others.

    Raises
    ------
    ValueError
        If the name is unknown or ε does not fit the name.
    """

    name: ActivationName
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in CODES:
            raise ValueError(
                f"activation: expected one of {', '.join(sorted(CODES))}, "
                f"got {brief(self.name)}"
            )
        if self.name == "smooth_relu" and not (self.epsilon > 0 and np.isfinite(self.epsilon)):
            raise ValueError(
                f"epsilon: smooth_relu needs a finite number > 0, got {brief(self.epsilon)}"
            )
        if self.name != "smooth_relu" and self.epsilon != 0:
            raise ValueError(
                f"epsilon: only smooth_relu has one, got {brief(self.epsilon)} with {self.name!r}"
            )

    @property
    def code(self) -> int:
        """Integer code of the compiled kernels (0 linear, 1 ReLU, 2 smooth ReLU)."""
        return CODES[self.name]

    def __call__(self, z: NDArray) -> NDArray:
        """σ(z), elementwise."""
        if self.name == "linear":
            return z
        if self.name == "relu":
            # z·(z > 0) rather than maximum: it keeps a complex perturbation (complex-step tests).
            return z * (z.real > 0)
        s = np.sqrt(z * z + self.epsilon**2)
        # For z < 0 the equal form ε²/(2(√ − z)) has no cancellation.
        # (The inner where keeps the branch not taken from dividing by zero.)
        negative = z.real < 0
        return np.where(
            negative, 0.5 * self.epsilon**2 / np.where(negative, s - z, 1.0), 0.5 * (z + s)
        )

    def slope(self, z: NDArray) -> NDArray:
        """σ′(z), elementwise; for ReLU 0 at the kink z = 0."""
        if self.name == "linear":
            return np.ones_like(z)
        if self.name == "relu":
            return (z.real > 0).astype(z.dtype)
        s = np.sqrt(z * z + self.epsilon**2)
        return self(z) / s  # (1 + z/s)/2 = σ(z)/s, and σ is free of cancellation

    def curvature(self, z: NDArray) -> NDArray:
        """σ″(z), elementwise; for ReLU the regular part, 0."""
        if self.name != "smooth_relu":
            return np.zeros_like(z)
        return 0.5 * self.epsilon**2 / (z * z + self.epsilon**2) ** 1.5

    def smoothed(self, epsilon: float) -> Activation:
        """The member of the ε ladder that stands in for a ReLU; others are returned unchanged."""
        return Activation("smooth_relu", epsilon) if self.name == "relu" else self


def casadi_value(z: Any, code: int, epsilon: Any) -> Any:
    """σ(z) as a CasADi expression; a symbolic `epsilon` lets one NLP serve a whole ladder."""
    import casadi

    if code == LINEAR:
        return z
    if code == RELU:
        return casadi.fmax(z, 0)
    return 0.5 * (z + _casadi_root(z, epsilon))


def _casadi_root(z: Any, epsilon: Any) -> Any:
    """√(z² + ε²); far below all rounding it stays positive, so that ε = 0 has a slope at the kink.

    That slope of |z| is 0 there, and of ReLU ½, one of Clarke's; without it, it would be 0/0.
    """
    import casadi

    return casadi.sqrt(z * z + epsilon**2 + 1e-300)


def casadi_slope(z: Any, code: int, epsilon: Any) -> Any:
    """σ′(z) as a CasADi expression."""
    if code == LINEAR:
        return z * 0 + 1
    if code == RELU:
        return z > 0
    return 0.5 * (1 + z / _casadi_root(z, epsilon))


def epsilon_ladder(first: float, last: float, factor: float = 0.5) -> tuple[float, ...]:
    """ε from `first` down to exactly `last`, shrinking by about `factor` a stage (evenly in log ε).

    Raises
    ------
    ValueError
        Unless 0 < last ≤ first and 0 < factor < 1.
    """
    for value in (first, last, factor):
        check_positive("epsilon ladder", value)
    if not 0 < last <= first:
        raise ValueError(f"epsilon ladder: expected 0 < last <= first, got {first!r} to {last!r}")
    if not 0 < factor < 1:
        raise ValueError(f"epsilon ladder: factor must lie in (0, 1), got {factor!r}")
    if np.log(first / last) > -MOST_STAGES * np.log(factor):
        raise ValueError(f"epsilon ladder: expected at most {MOST_STAGES} stages, got more from "
                         f"{first!r} to {last!r} with the factor {factor!r}")
    stages = max(1, int(np.ceil(np.log(last / first) / np.log(factor) - 1e-9))) + 1
    if first == last:
        return (float(first),)
    ladder = np.geomspace(first, last, stages)
    ladder[0], ladder[-1] = first, last
    return tuple(float(e) for e in ladder)
