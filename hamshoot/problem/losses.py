"""Losses C of the outputs z = QA_1, with gradient and curvature: what stands at the end p = 1.

    C(z) = (1/N) Σ_j s_j ℓ(z_j, y_j),   s the sample weights, 1 by default,

=================  ====  =====================================================  ====================
name               code  ℓ(z, y)                                                ∂ℓ/∂z
=================  ====  =====================================================  ====================
``squared``        0     ‖z − y‖²                                               2(z − y)
``cross_entropy``  1     −Σ_k y_k ln π_k, π = softmax(z), y ≥ 0 of sum 1        π − y
``huber``          2     Σ_k h(z_k − y_k), h(r) = r² where |r| ≤ δ, else        2 min(max(r, −δ), δ)
                         2δ|r| − δ²
=================  ====  =====================================================  ====================

The optimal control problem has them in its boundary condition alone, B_1 = −(1/λ) Qᵀ∂C/∂z, and its
Newton systems in (1/λ) Qᵀ(∂²C/∂z²)Q, a w × w block a sample. All three are convex in z, so that
this, the Gauss–Newton curvature of the end, is positive semidefinite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.support.checks import brief

if TYPE_CHECKING:
    from numpy.typing import NDArray

SQUARED, CROSS_ENTROPY, HUBER = 0, 1, 2
LOSSES = {"squared": SQUARED, "cross_entropy": CROSS_ENTROPY, "huber": HUBER}


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss by name.

    Parameters
    ----------
    name : {"squared", "cross_entropy", "huber"}
    delta : float
        δ of Huber's loss, in scaled units; 0 for the others.
    weights : ndarray, shape (N,), optional
        Of the samples.

    Raises
    ------
    ValueError
        If the name is unknown, or δ does not fit it.
    """

    name: str = "squared"
    delta: float = 0.0
    weights: NDArray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {brief(self.name)}")
        if (self.name == "huber") != bool(self.delta) or not self.delta >= 0:
            raise ValueError(f"huber_delta: expected a number > 0 with the loss 'huber' alone, got "
                             f"{brief(self.delta)} with {self.name!r}")

    @property
    def code(self) -> int:
        """Integer code of the compiled kernels."""
        return LOSSES[self.name]

    @property
    def plain(self) -> bool:
        """Whether it is the mean of squares, of samples that count alike."""
        return self.name == "squared" and self.weights is None

    def check_plain(self, who: str) -> None:
        """Raise ValueError, in the name of `who`, unless `plain`."""
        if not self.plain:
            what = f"the loss {self.name!r}" if self.name != "squared" else "sample weights"
            raise ValueError(f"loss: {who} take the mean squared error alone, not {what}")

    def part(self, a: int, b: int) -> Loss:
        """The loss of samples a to b."""
        return self if self.weights is None else Loss(self.name, self.delta, self.weights[a:b])

    def value(self, outputs: NDArray, targets: NDArray) -> Any:
        """C of outputs z and targets Yᵀ, (d_out, N) both; analytic on each piece."""
        R = outputs - targets
        if self.name == "squared":
            terms = R * R
        elif self.name == "huber":
            size = np.where(R.real < 0, -R, R)
            terms = np.where(size.real <= self.delta, R * R,
                             2 * self.delta * size - self.delta**2)
        else:
            shifted = outputs - outputs.real.max(axis=0)
            terms = targets * (np.log(np.exp(shifted).sum(axis=0)) - shifted)
        return np.sum(terms if self.weights is None else self.weights * terms) / outputs.shape[1]

    def gradient(self, outputs: NDArray, targets: NDArray) -> NDArray:
        """∂C/∂z, (d_out, N)."""
        if self.name == "cross_entropy":
            slope = self.predicted(outputs) - targets
        else:
            slope = 2 * (outputs - targets)
            if self.name == "huber":
                far = np.abs(slope.real) > 2 * self.delta
                slope = np.where(far, 2 * self.delta * np.sign(slope.real), slope)
        return (slope if self.weights is None else self.weights * slope) / outputs.shape[1]

    def curvature(self, outputs: NDArray, targets: NDArray) -> NDArray:
        """∂²C/∂z², a block a sample, (N, d_out, d_out); 0 where Huber's loss is linear."""
        d, N = outputs.shape
        if self.name == "cross_entropy":
            p = self.predicted(outputs).T
            blocks = np.eye(d) * p[:, :, None] - p[:, :, None] * p[:, None, :]
        else:
            near = np.ones((N, d)) if self.name == "squared" else \
                (np.abs((outputs - targets).T) <= self.delta).astype(float)
            blocks = 2 * np.eye(d) * near[:, :, None]
        return (blocks if self.weights is None else self.weights[:, None, None] * blocks) / N

    def predicted(self, outputs: NDArray) -> NDArray:
        """What stands against the targets: of cross-entropy softmax(z), else z itself."""
        return softmax(outputs) if self.name == "cross_entropy" else outputs

    def __str__(self) -> str:
        name = f"huber(δ={self.delta:g})" if self.delta else self.name
        return name if self.weights is None else f"{name}, weighted"


PLAIN = Loss()


def softmax(outputs: NDArray) -> NDArray:
    """Probabilities e^z/Σe^z of outputs (d_out, N), column by column."""
    grown = np.exp(outputs - outputs.real.max(axis=0))
    return grown / grown.sum(axis=0)
