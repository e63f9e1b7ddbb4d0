"""The polish of a ReLU network whose lift or readout is learned, in one vector (W, P, Q).

What the activations do is as in `hamshoot.methods.newton.active_set`. With a learned lift those of
A_0 = P Xᵀ move too, and are held, let go and told apart as all others are; their multipliers are
part of B_0, by which P is stationary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.newton import active_set
from hamshoot.methods.newton.active_set import ActiveSet, Sweep
from hamshoot.methods.newton.learned_hessian import joint_second_derivatives
from hamshoot.methods.newton.polished import Polished
from hamshoot.methods.newton.reduced_hessian import expansion
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import layers as discrete
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray


def polish(problem: TrainingProblem, weights: NDArray, steps: NDArray, epsilon: float,
           **options: Any) -> Polished:
    """The polish of any problem, see `active_set.polish`; of learned maps from stacked controls."""
    return active_set.polish(problem, weights, steps, epsilon, **options,
                             kind=LearnedActiveSet if problem.learns else ActiveSet)


class LearnedActiveSet(ActiveSet):
    """The same with W, and P and Q where they are learned, in one vector `W`, (n,)."""

    def __init__(self, problem: TrainingProblem, stack: NDArray, steps: NDArray, epsilon: float,
                 look: Callable[[], None] | None = None):
        weights = learned.flat(problem, *learned.parts_of(problem, stack))
        self.weights = learned.flat_weights(problem, steps)
        super().__init__(problem, weights, steps, epsilon, look)

    @property
    def stack(self) -> NDArray:
        """As stacked controls."""
        W, P, Q = learned.unflat(self.problem, self.W)
        return learned.stacked(self.problem.with_maps(P, Q), W)

    @property
    def controls(self) -> NDArray:
        """W, (L, w, w+1)."""
        return learned.unflat(self.problem, self.W)[0]

    def _switch_off_idle(self) -> None:
        """Set P and W to 0 where a neuron rests on the kink for every sample, from the start on."""
        W, P, Q = learned.unflat(self.problem, self.W.copy())
        free = learned.unflat(self.problem, np.ones(self.W.shape, bool))
        resting = self.held[0].all(axis=1)
        if self.problem.lift_decay is None:
            resting = ~np.any(self.problem.initial_state, axis=1)
        else:
            P[resting], free[1][resting] = 0.0, False
            self._let_rest(0, resting)
        for k in range(1, len(W)):
            resting = resting & self.held[k].all(axis=1)
            W[k - 1, resting], free[0][k - 1, resting] = 0.0, False
            self._let_rest(k, resting)
        self.W = learned.flat(self.problem, W, P, Q)
        self.free = learned.flat(self.problem, *free)

    def _let_rest(self, k: int, neurons: NDArray) -> None:
        self.held[k, neurons] = self.hidden[k, neurons] = self.active[k, neurons] = False

    def sweep(self, W: NDArray, m: NDArray) -> Sweep:
        """Roll-out and costate with the sets as they are; real or complex."""
        problem = self.problem
        controls, P, Q = learned.unflat(problem, W)
        keep, w = 1 - self.steps * problem.effective_depth, problem.width
        A, S = [(P @ problem.scaled_inputs).astype(W.dtype)], []
        ones, slopes_of = np.ones((1, problem.n_samples)), self.slopes()
        for k, rho in enumerate(self.steps):
            passed = slopes_of[k] * A[-1]
            S.append(np.concatenate([passed, ones]) if problem.bias else passed)
            A.append(keep[k] * A[-1] + rho * controls[k] @ S[-1])
        slopes = problem.criterion.gradient(Q @ A[-1], problem.targets) / problem.weight_decay
        B = -Q.T @ slopes
        momenta, v, G = [B], np.empty_like(m, dtype=W.dtype), np.empty_like(controls)
        for k in range(len(controls) - 1, -1, -1):
            G[k] = self.steps[k] * (controls[k] / problem.effective_depth - B @ S[k].T)
            v[k] = self.steps[k] * controls[k][:, :w].T @ B
            B = keep[k] * B + slopes_of[k] * v[k] + m[k]
            momenta.append(B)
        if self.low:
            v *= 1 - self.low
        whole = self.weights * W
        whole[: G.size] = G.ravel()
        of_P, of_Q = -B @ problem.scaled_inputs.T, slopes @ A[-1].T
        at = G.size
        for mu, change in ((problem.lift_decay, of_P), (problem.readout_decay, of_Q)):
            if mu is not None:
                whole[at : at + change.size] += change.ravel()
                at += change.size
        return Sweep(np.array(A), np.array(S), np.array(momenta[::-1]), v, whole)

    def residual(self) -> float:
        """The larger of the scaled gradient and the entries held, relative to the largest A."""
        scaled = np.where(self.free, self.now.G / self.weights, 0.0)
        W, P, Q = learned.unflat(self.problem, self.W)
        G, of_P, of_Q = learned.unflat(self.problem, scaled)
        parts = [discrete.stationarity(W, G)]
        for mu, change, M in ((self.problem.lift_decay, of_P, P),
                              (self.problem.readout_decay, of_Q, Q)):
            if mu is not None:
                parts.append(float(np.linalg.norm(change) / max(1.0, float(np.linalg.norm(M)))))
        A = self.now.A[:-1]
        off = np.abs(A[self.held]).max(initial=0.0) / max(1.0, float(np.abs(A).max()))
        return max(*parts, float(off))

    def idle(self) -> NDArray:
        """Entries of neurons held at 0 for more samples than they have controls."""
        columns = np.full((len(self.held), 1, 1), self.problem.control_shape[1])
        columns[0] = self.problem.d_in
        return np.broadcast_to(self.held.sum(axis=2, keepdims=True) > columns, self.held.shape)

    def _kkt_blocks(self) -> tuple[NDArray, NDArray]:
        """Hessian of the Lagrangian (n, n), and the derivatives of A_𝒦 (k, n)."""
        W, P, Q = learned.unflat(self.problem, self.W)
        here = self.problem.with_maps(P, Q)
        slopes = np.asarray(self.slopes(), dtype=float)
        at = expansion(here, self.now.A, self.now.B, W, self.steps, slopes)
        return joint_second_derivatives(here, at, self.now.A, self.held)
