"""`GaussFlow`: the Hamiltonian flow by Gauss–Legendre collocation, symplectic at any step.

A step of length h from y = (A, B) solves s stages Y_i = y + h Σ_j a_ij f(Y_j) and ends at
y + h Σ_i b_i f(Y_i), with the nodes of Gauss quadrature: order 2s (Hairer, Lubich, Wanner,
*Geometric Numerical Integration*, II.1.3). Since b_i a_ij + b_j a_ji = b_i b_j (ibid., VI.4), the
map is exactly symplectic, ΦᵀJΦ = J, and conserves quadratic invariants; H itself is not quadratic
and wavers by O(h²ˢ), without drifting off along the depth.

When it is worth it: a few digits at a fixed, known number of steps, the structure of the flow kept
and no drift. For many digits there is the adaptive explicit pair of `hamshoot.dynamics.flow`, of
order 8 and compiled; this is NumPy.

The field is that of `hamshoot.theory.hamiltonian`, written for many segments at once; every array
below is (…, w, N), and matrix products run over the last two axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.problem.activations import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray

STAGES = {4: 2, 6: 3}
DONE, NOT_SOLVED = 0, 1
#: Iterations for the stages of a step; they gain a factor of about h‖∂f‖ each.
MAX_SWEEPS = 100


class GaussFlow:
    """Flow by a fixed number of Gauss–Legendre steps a segment; a `hamshoot.bvp.solve.Flow`.

    Parameters
    ----------
    width, samples, effective_depth, activation, bias :
        As of `hamshoot.dynamics.flow.HamiltonianFlow`; the activation smooth or linear.
    steps_per_segment : int
    order : {4, 6}

    Attributes
    ----------
    energies : ndarray, shape (S,)
        ∫‖W‖²/(2L̃) over the segments of the last call, by the same quadrature.
    statuses : ndarray of int, shape (S,)
        Of the last call: 0 where all stages were solved; else the end is NaN.

    Raises
    ------
    ValueError
        For a plain ReLU: a fixed step across a kink has neither order nor derivative.

    Notes
    -----
    The stages are solved by fixed-point iteration down to rounding, which converges for steps well
    below 1/‖∂f‖; all samples of a segment are coupled, so Newton's method would factor
    (2s wN)² matrices instead. A step costs about s·12 right-hand sides of 6w²N flops, a Jacobian
    2wN times as many of 12w²N.

    The leak is not taken out exactly, as exponential integrators do: the explicit pair is stable up
    to h L̃ of about 6, and accuracy asks for far shorter steps.
    """

    def __init__(
        self,
        width: int,
        samples: int,
        effective_depth: float,
        activation: Activation,
        bias: bool = True,
        *,
        steps_per_segment: int = 2,
        order: int = 6,
    ):
        if activation.kinked:
            raise ValueError("activation: expected a smooth or linear one for Gauss steps, got "
                             f"{activation.name!r}, whose kinks need the flow that locates "
                             "crossings")
        if order not in STAGES:
            raise ValueError(f"order: expected 4 or 6, got {order!r}")
        if int(steps_per_segment) != steps_per_segment or steps_per_segment < 1:
            raise ValueError(
                f"steps_per_segment: expected an integer >= 1, got {steps_per_segment!r}")
        self.shape = (2, width, samples)
        self.size = 2 * width * samples
        self.effective_depth, self.activation, self.bias = effective_depth, activation, bias
        self.steps_per_segment, self.order = int(steps_per_segment), order
        self._a, self._b = tableau(STAGES[order])
        self.energies: NDArray
        self.statuses: NDArray

    def __call__(
        self, t0: NDArray, t1: NDArray, y: NDArray, jacobian: bool = False
    ) -> tuple[NDArray, NDArray | None]:
        """Ends (S, n) and, if asked, Φ (S, n, n) of segments that start at y (S, n)."""
        if not jacobian:
            return self._ends(t0, t1, y), None
        basis = np.broadcast_to(np.eye(self.size), (len(y), self.size, self.size))
        ends, columns = self._carried(t0, t1, y, basis)
        return ends, np.swapaxes(columns, 1, 2)

    def jvp(self, t0: NDArray, t1: NDArray, y: NDArray, v: NDArray) -> NDArray:
        """Φ_k v_k of each segment, (S, n)."""
        return self._carried(t0, t1, y, np.asarray(v)[:, None])[1][:, 0]

    def vjp(self, t0: NDArray, t1: NDArray, y: NDArray, u: NDArray) -> NDArray:
        """Φ_kᵀ u_k of each segment, (S, n): Φᵀ = J⁻¹Φ⁻¹J, and Φ⁻¹ is the map of the way back.

        As `hamshoot.dynamics.flow.HamiltonianFlow.vjp`, in whose place it stands.
        The way back begins at rounded ends, so the relative error is about ‖Φ‖² times that of
        rounding: for segments over which the flow grows a thousandfold, not for whole paths.
        """
        half = self.size // 2
        u = np.asarray(u, dtype=float).reshape(len(y), self.size)
        ends = self._ends(t0, t1, y)
        energies, statuses = self.energies, self.statuses
        turned = self.jvp(t1, t0, ends, np.hstack([u[:, half:], -u[:, :half]]))
        self.energies, self.statuses = energies, np.maximum(statuses, self.statuses)
        return np.hstack([-turned[:, half:], turned[:, :half]])

    def why_lost(self, t0: NDArray, t1: NDArray, y: NDArray) -> str:
        """Why these segments are not integrated to their ends, as a clause; "" if all are."""
        self(t0, t1, y)
        lost = bool(np.any(self.statuses == NOT_SOLVED))
        return "the stages of a Gauss step could not be solved" if lost else ""

    def _ends(self, t0: NDArray, t1: NDArray, y: NDArray) -> NDArray:
        return self._run(t0, t1, y, None)[0]

    def _carried(
        self, t0: NDArray, t1: NDArray, y: NDArray, v: NDArray
    ) -> tuple[NDArray, NDArray]:
        ends, directions = self._run(t0, t1, y, v)
        assert directions is not None
        return ends, directions

    def _run(
        self, t0: NDArray, t1: NDArray, y: NDArray, v: NDArray | None
    ) -> tuple[NDArray, NDArray | None]:
        """Ends (S, n) and directions v (S, D, n) carried along, all segments at once."""
        count = len(y)
        h = ((np.asarray(t1, float) - np.asarray(t0, float)) / self.steps_per_segment)
        state = np.array(y, dtype=float).reshape(count, *self.shape)
        directions = None if v is None else \
            np.array(v, dtype=float).reshape(count, -1, *self.shape)
        self.energies, self.statuses = np.zeros(count), np.full(count, DONE)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self.steps_per_segment):
                state, directions = self._step(h, state, directions)
        state[self.statuses != DONE] = np.nan
        if directions is not None:
            directions[self.statuses != DONE] = np.nan
            directions = directions.reshape(count, -1, self.size)
        return state.reshape(count, self.size), directions

    def _step(
        self, h: NDArray, y: NDArray, v: NDArray | None
    ) -> tuple[NDArray, NDArray | None]:
        """One step of every segment: y (S, 2, w, N), directions v (S, D, 2, w, N)."""
        h = h[:, None, None, None]

        def field(at: NDArray) -> NDArray:  # (S, s, 2, w, N)
            return self._field(at)[0]

        slopes, solved = self._stages(h, y, field)
        self.statuses[~solved] = NOT_SOLVED
        at = self._points(h, y, slopes)
        _, energy = self._field(at)
        self.energies += h[:, 0, 0, 0] * (energy @ self._b)
        moved = y + h * np.einsum("j,sj...->s...", self._b, slopes)
        if v is None:
            return moved, None
        # The derivative of the step: the same equations, linearised at the solved stages.
        h, at = h[..., None], at[:, :, None]
        tangents, solved = self._stages(h, v, lambda z: self._tangent(at, z))
        self.statuses[~solved] = NOT_SOLVED
        return moved, v + h * np.einsum("j,sj...->s...", self._b, tangents)

    def _points(self, h: NDArray, y: NDArray, slopes: NDArray) -> NDArray:
        """Y_i = y + h Σ_j a_ij k_j, the stages along axis 1."""
        return y[:, None] + h[:, None] * np.einsum("ij,sj...->si...", self._a, slopes)

    def _stages(
        self, h: NDArray, y: NDArray, field: Callable[[NDArray], NDArray]
    ) -> tuple[NDArray, NDArray]:
        """Slopes k_i = f(Y_i) of every segment by fixed-point iteration, and where they hold.

        Down to rounding: until the change no longer falls, or is nothing.
        """
        slopes = field(np.repeat(y[:, None], len(self._b), axis=1))
        axes = tuple(range(1, slopes.ndim))
        before = np.full(len(y), np.inf)
        for _ in range(MAX_SWEEPS):
            new = field(self._points(h, y, slopes))
            size = np.abs(new).max(axes)
            change = np.abs(new - slopes).max(axes)
            slopes = new
            small = change <= 1e-13 * size
            if np.all((small & (change >= 0.5 * before)) | (change == 0) | ~np.isfinite(change)):
                break
            before = change
        return slopes, small

    def _field(self, y: NDArray) -> tuple[NDArray, NDArray]:
        """(∂_pA, ∂_pB) of `hamiltonian.flow` at y (…, 2, w, N), and ‖W‖²/(2L̃) (…)."""
        A, B = y[..., 0, :, :], y[..., 1, :, :]
        S = self.activation(A)
        M = B @ _t(S)
        signal = _t(M) @ B
        velocity, energy = M @ S, np.sum(M * M, (-2, -1))
        if self.bias:  # the row of ones: B 1 is the last column of Bσ̂ᵀ
            ones = B.sum(-1, keepdims=True)
            velocity = velocity + ones
            energy = energy + np.sum(ones * ones, (-2, -1))
        leak = self.effective_depth
        rates = np.stack([leak * (velocity - A), leak * (B - self.activation.slope(A) * signal)],
                         axis=-3)
        return rates, 0.5 * leak * energy

    def _tangent(self, y: NDArray, z: NDArray) -> NDArray:
        """Derivative of the field at y along z, `hamiltonian.flow_derivative`."""
        A, B, a, b = y[..., 0, :, :], y[..., 1, :, :], z[..., 0, :, :], z[..., 1, :, :]
        sigma, leak = self.activation, self.effective_depth
        S, slope = sigma(A), sigma.slope(A)
        M, s = B @ _t(S), slope * a
        m = b @ _t(S) + B @ _t(s)
        velocity = m @ S + M @ s
        if self.bias:
            velocity = velocity + b.sum(-1, keepdims=True)
        signal = _t(m) @ B + _t(M) @ b
        force = sigma.curvature(A) * a * (_t(M) @ B) + slope * signal
        return leak * np.stack([velocity - a, b - force], axis=-3)


def tableau(stages: int) -> tuple[NDArray, NDArray]:
    """Coefficients a (s, s) and b (s,) of Gauss–Legendre collocation.

    a_ij = ∫₀^{c_i} ℓ_j and b_j = ∫₀¹ ℓ_j with ℓ_j the Lagrange polynomials of the nodes c: the rows
    solve Σ_j a_ij c_j^q = c_i^{q+1}/(q + 1) for q < s.
    """
    nodes, weights = np.polynomial.legendre.leggauss(stages)
    c, b = 0.5 * (nodes + 1), 0.5 * weights
    q = np.arange(stages)
    powers = c[:, None] ** q
    integrals = c[:, None] ** (q + 1) / (q + 1)
    return np.linalg.solve(powers.T, integrals.T).T, b


def _t(x: NDArray) -> NDArray:
    return np.swapaxes(x, -1, -2)
