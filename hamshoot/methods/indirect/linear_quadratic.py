"""The Newton system of the shooting equations as a linear-quadratic control problem.

Multiple shooting asks for nodes y_k = (A_k, B_k) with φ_k(y_k) = y_{k+1}, A_0 given and B_1 given
by the loss. Its Newton matrix ignores nothing but structure: given a change δW(p) of the control,
the w-dimensional variations of the samples are independent of each other. And it is the optimality
system of a linear-quadratic control problem, that of the second variation of J,

    min over δW  ½ xᵀ C″ x/λ + ∫ [ ‖δW‖²/(2L̃) + ½ ⟨z, Qz⟩ − ⟨B, δW (σ′ ⊙ z)⟩ ],
    ∂_p z_j = F_j z_j + δW σ̂_j,   F_j = −L̃ I + W diag σ′_j,   Q_j = −diag(σ″_j ⊙ (WᵀB)_j),

with z = δA, costate −δB. Discretised by one implicit midpoint step a segment (symplectic, so that
the discrete system is again one of this kind) it is not the exact Newton matrix, and need not be:
residuals come from the accurate flow, and each solve reduces the error by a factor O(h²). σ′ and σ″
are averages over the segment, exact for an A that moves evenly, so that an activation that passes
its kink within a segment is felt.

It is solved for the controls, in one of two ways that agree to rounding:
`hamshoot.methods.indirect.riccati` keeps the states and goes through them by a recursion,
`hamshoot.methods.indirect.condensing` eliminates them. What both share is here: the model, and the
sweeps that turn controls into states and costates, 8 S m n flops with S segments, n = wN,
m = w(w+1), linear in N.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.problem.activations import Activation

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LinearQuadraticSystem(ABC):
    """The Newton system at an iterate, factored; `_factor` and `_feedforward` say how.

    Parameters
    ----------
    t : ndarray, shape (S + 1,)
        Nodes.
    A, B : ndarray, shape (S + 1, w, N)
        Iterate at the nodes.
    terminal : ndarray, shape (w, w), or (N, w, w) for a block a sample
        Block of C″/λ, the same for all samples: (2/(λN)) QᵀQ, or a penalty times the identity for
        a hard endpoint.
    effective_depth : float
    activation : Activation
    bias : bool

    Attributes
    ----------
    definite : bool
        Whether the second variation is positive.
    least : float
        Smallest pivot over the weight term alone: 1 when a control costs nothing but itself, 0 at a
        conjugate point.
    K : ndarray, shape (S, m, n), or None
        Feedback of the controls on the states, where the factorisation has one.
    """

    def __init__(
        self,
        t: NDArray,
        A: NDArray,
        B: NDArray,
        terminal: NDArray,
        *,
        effective_depth: float,
        activation: Activation,
        bias: bool,
    ):
        self.h = np.diff(t)
        self.leak, self.activation, self.bias = effective_depth, activation, bias
        self.weight = 1.0 / effective_depth
        self.terminal = terminal
        self._linearise(A, B)
        self.definite, self.least = True, np.inf
        self.K: NDArray | None = None
        self._factor()

    @abstractmethod
    def _factor(self) -> None:
        """Prepare `_feedforward`; set `definite` and `least`, and `K` if there is feedback."""

    @abstractmethod
    def _feedforward(self, g: NDArray) -> NDArray:
        """Controls (S, m) that answer a linear term g (S, m) in the controls."""

    # -- linearisation -----------------------------------------------------------------------------

    def _linearise(self, A: NDArray, B: NDArray) -> None:
        """Coefficients of every segment; arrays are sample-major, (S, N, w)."""
        w = A.shape[1]
        sigma, leak = self.activation, self.leak
        a, b = (np.ascontiguousarray(np.swapaxes(v, 1, 2)) for v in (A, B))
        mid_a, mid_b = self._midpoints(a, b)
        s = sigma(mid_a)
        if self.bias:
            s = np.concatenate([s, np.ones((*s.shape[:2], 1))], axis=2)
        self.s = np.ascontiguousarray(np.swapaxes(s, 1, 2))  # (S, c, N)
        slope, curvature = _averages(sigma, a, mid_a)
        W = leak * np.swapaxes(mid_b, 1, 2) @ s  # (S, w, c)
        F = W[:, None, :, :w] * slope[:, :, None, :]
        F -= leak * np.eye(w)
        self.M = np.linalg.inv(np.eye(w) - 0.5 * self.h[:, None, None, None] * F)  # (S, N, w, w)
        self.Q = -curvature * (mid_b @ W[:, :, :w])  # (S, N, w)
        self.slope, self.b = slope, mid_b

    def _midpoints(self, a: NDArray, b: NDArray) -> tuple[NDArray, NDArray]:
        """A and B half way by cubic Hermite interpolation, fourth order."""
        S = self.activation(a)
        m = np.swapaxes(b, 1, 2) @ S  # (S + 1, w, w)
        a_dot = S @ np.swapaxes(m, 1, 2) - a
        if self.bias:
            a_dot += b.sum(1)[:, None, :]
        b_dot = b - self.activation.slope(a) * (b @ m)
        h = (self.leak * self.h / 8)[:, None, None]
        return tuple(
            0.5 * (v[:-1] + v[1:]) + h * (v_dot[:-1] - v_dot[1:])
            for v, v_dot in ((a, a_dot), (b, b_dot))
        )

    # -- solution ----------------------------------------------------------------------------------

    def solve(
        self, defects: NDArray, start: NDArray, end: NDArray
    ) -> NDArray:
        """Solve Φ_k d_k − d_{k+1} = −defects_k with d_0 = start in A and the terminal condition.

        Parameters
        ----------
        defects : ndarray, shape (S, 2, w, N)
            φ_k(y_k) − y_{k+1}.
        start : ndarray, shape (w, N)
            δA_0.
        end : ndarray, shape (w, N)
            δB_1 + terminal · δA_1 = end.

        Returns
        -------
        ndarray, shape (S + 1, 2, w, N)
        """
        r = np.ascontiguousarray(np.swapaxes(defects, 2, 3))
        x, u = self._forward(start.T, r[:, 0], None)
        costate, g = self._backward(x, u, r[:, 1], end.T)
        du = self._feedforward(g)
        dx, du = self._forward(np.zeros_like(start.T), None, du)
        x += dx
        u += du
        costate, _ = self._backward(x, u, r[:, 1], end.T)
        return np.stack([np.swapaxes(x, 1, 2), -np.swapaxes(costate, 1, 2)], axis=1)

    def _forward(
        self, start: NDArray, jumps: NDArray | None, extra: NDArray | None
    ) -> tuple[NDArray, NDArray]:
        """States and controls of the closed loop u = Kx + extra."""
        count, N, w, _ = self.M.shape
        x, u = np.empty((count + 1, N, w)), np.zeros((count, self.s.shape[1] * w))
        x[0] = start
        for k in range(count):
            if self.K is not None:
                u[k] = self.K[k] @ x[k].ravel()
            if extra is not None:
                u[k] += extra[k]
            y = x[k] + 0.5 * self.h[k] * (self.s[k].T @ u[k].reshape(-1, w))
            x[k + 1] = 2 * (self.M[k] @ y[:, :, None])[:, :, 0] - x[k]
            if jumps is not None:
                x[k + 1] += jumps[k]
        return x, u

    def _backward(
        self, x: NDArray, u: NDArray, jumps: NDArray, end: NDArray
    ) -> tuple[NDArray, NDArray]:
        """Costates at the nodes, and the gradient in every control."""
        count = len(self.M)
        w = self.M.shape[2]
        costate, g = np.empty_like(x), np.empty_like(u)
        if self.terminal.ndim == 2:
            costate[-1] = x[-1] @ self.terminal.T - end
        else:
            costate[-1] = (self.terminal @ x[-1][:, :, None])[:, :, 0] - end
        U = u.reshape(count, -1, w)  # (S, c, w), row b is column b of δW
        y = x[:-1] + 0.5 * self.h[:, None, None] * (np.swapaxes(self.s, 1, 2) @ U)
        z = (self.M @ y[..., None])[..., 0]
        h = self.h[:, None, None]
        force = h * (self.Q * z - self.slope * (self.b @ np.swapaxes(U[:, :w], 1, 2)))
        own = np.zeros_like(U)
        own[:, :w] = -np.swapaxes(self.slope * z, 1, 2) @ self.b
        own += self.weight * U
        own *= h
        for k in range(count - 1, -1, -1):
            after = costate[k + 1] + jumps[k]
            zeta = ((2 * after + force[k])[:, None, :] @ self.M[k])[:, 0]
            costate[k] = zeta - after
            g[k] = (0.5 * self.h[k] * (self.s[k] @ zeta) + own[k]).ravel()
        return costate, g


def _averages(sigma: Activation, a: NDArray, mid: NDArray) -> tuple[NDArray, NDArray]:
    """σ′ and σ″ averaged over each segment, for an A that moves evenly through it."""
    change = np.diff(a, axis=0)
    moves = np.abs(change) > 1e-5 * (sigma.scale + np.abs(mid) + 1e-30)
    safe = np.where(moves, change, 1.0)
    slope = np.where(moves, np.diff(sigma(a), axis=0) / safe, sigma.slope(mid))
    curvature = np.where(moves, np.diff(sigma.slope(a), axis=0) / safe, sigma.curvature(mid))
    return slope, curvature
