"""Lobatto's implicit Runge–Kutta methods (IIIA), their polynomials, and their residuals.

A step with s stages collocates the equation at the s Lobatto points c_1 = 0 < … < c_s = 1 of a
segment by a polynomial of degree s. It is of order 2s − 2, symmetric, so that growth and decay are
treated alike, and its polynomials join with a continuous derivative (E. Hairer and G. Wanner,
*Solving Ordinary Differential Equations II*, Springer 1996, IV.5; U. Ascher, R. Mattheij and
R. Russell, *Numerical Solution of Boundary Value Problems for Ordinary Differential Equations*,
SIAM 1995, chapter 5). s = 3 is the method of `scipy.integrate.solve_bvp`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.polynomial.legendre import Legendre, leggauss
from numpy.typing import NDArray

# (points (P,), states (P, n)) -> derivatives (P, n)
Rates = Callable[[NDArray, NDArray], NDArray]

_QUADRATURE = 5  # Gauss points a segment, at which residuals are looked at


@dataclass(frozen=True)
class Lobatto:
    """The method with s stages, on the segment [0, 1].

    Attributes
    ----------
    points : ndarray, shape (s,)
    weights : ndarray, shape (s, s)
        a_ij, the integral of the j-th Lagrange polynomial up to c_i; its first row is zero.
    powers : ndarray, shape (s, s)
        Coefficient (i, j) of the j-th Lagrange polynomial with θ^i.
    """

    points: NDArray
    weights: NDArray
    powers: NDArray

    @property
    def stages(self) -> int:
        """The number of stages, s."""
        return self.points.size

    def places(self, x: NDArray) -> NDArray:
        """All points of a mesh (M,), ends of segments shared: (P,) with P = (M − 1)(s − 1) + 1."""
        inner = x[:-1, None] + np.diff(x)[:, None] * self.points[:-1]
        return np.append(inner.ravel(), x[-1])

    def by_segment(self, values: NDArray, after: NDArray | None = None) -> NDArray:
        """Values (P, …) at all points, segment by segment: (M − 1, s, …), ends repeated.

        Segments `after` (J,) end before a jump: J more rows hold what their last point has.
        """
        s, before = self.stages, None
        if after is not None and after.size:
            values, before = values[: -after.size], values[-after.size :]
        first = values[:-1].reshape(len(values) // (s - 1), s - 1, *values.shape[1:])
        found = np.concatenate([first, values[s - 1 :: s - 1, None]], axis=1)
        if before is not None:
            found[after, -1] = before
        return found

    def defects(
        self, x: NDArray, y: NDArray, rates: NDArray, after: NDArray | None = None
    ) -> NDArray:
        """Y_i − y_k − h Σ_j a_ij f_j, shape (M − 1, s − 1, n), from y and f (P, n)."""
        states, slopes = self.by_segment(y), self.by_segment(rates, after)
        moved = np.einsum("ij,kjn->kin", self.weights[1:], slopes)
        return states[:, 1:] - states[:, :1] - np.diff(x)[:, None, None] * moved

    def polynomial(
        self, x: NDArray, y: NDArray, rates: NDArray, after: NDArray | None = None
    ) -> Any:
        """The solution as `scipy.interpolate.PPoly` of degree s, from y and f (P, n) at all points.

        It takes the values y and the slopes f at both ends of each segment, whatever was left of
        the defects by a Newton iteration that stopped: a cubic with slopes 0 spreads the last one.
        Shape of what it returns: (n, …), as SciPy's.
        """
        from scipy.interpolate import PPoly

        slopes = self.by_segment(rates, after)
        h, s = np.diff(x), self.stages
        start, end = y[: -1 : s - 1], y[s - 1 :: s - 1]
        c = np.zeros((s + 1, h.size, y.shape[1]), dtype=y.dtype)
        c[0] = start
        for power in range(s):
            c[power + 1] = h[:, None] / (power + 1) * np.einsum(
                "j,kjn->kn", self.powers[power], slopes
            )
        gap = end - c.sum(0)
        c[2] += 3 * gap
        c[3] -= 2 * gap
        for power in range(1, s + 1):
            c[power] /= h[:, None] ** power
        return PPoly(c[::-1], x, extrapolate=True, axis=0)

    def residuals(self, x: NDArray, solution: Any, rates: Rates) -> NDArray:
        """Root mean square over each segment of ‖(u′ − f)/(1 + |f|)‖₂, shape (M − 1,).

        By Gauss's quadrature with 5 points a segment, each one evaluation of f.
        """
        nodes, weights = leggauss(_QUADRATURE)
        theta, weights = (nodes + 1) / 2, weights / 2
        at = x[:-1, None] + np.diff(x)[:, None] * theta
        u, slope = solution(at.ravel()), solution(at.ravel(), 1)
        f = rates(at.ravel(), u)
        relative = np.abs((slope - f) / (1 + np.abs(f))) ** 2
        return np.sqrt(relative.sum(1).reshape(at.shape) @ weights)


@cache
def lobatto(stages: int) -> Lobatto:
    """The method with so many stages, 3 or more."""
    inner = Legendre.basis(stages - 1).deriv().roots()
    points = np.concatenate([[0.0], (np.sort(np.real(inner)) + 1) / 2, [1.0]])
    points = (points + 1 - points[::-1]) / 2  # symmetric to the last bit
    powers = np.linalg.inv(np.vander(points, increasing=True))
    weights = np.empty((stages, stages))
    for j in range(stages):
        weights[:, j] = Polynomial(powers[:, j]).integ()(points)
    return Lobatto(points, weights, powers)
