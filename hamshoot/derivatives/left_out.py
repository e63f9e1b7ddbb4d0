"""Optima with one sample left out, to first and second order, from the factors of the full one.

Leaving sample s out of the mean over N changes the weights of the samples from 1 to ω_s = 0 and
ω_r = N/(N−1). With g_r the gradient of r's share of the loss, this adds

    e_s = Σ_r g_r/(N−1) − g_s N/(N−1)

to the gradient of J. *First order* is the derivative along that change at the full optimum,
W′ = −Z(ZᵀHZ)⁻¹Zᵀe_s: one back-substitution a sample. *Second order* is a Newton step of the problem
without s, whose own Hessian N/(N−1)(H_loss − H_s) + R and own kinks it takes: entries of sample s
are no longer held, those of the others are. For one layer, a ridge regression, it is exact. It is
cut by half until J falls along it, and the Hessian is shifted where it is not positive definite.
The share H_s has no low rank worth an update (it joins every pair of layers, rank 2Lw of Lw(w+1)),
so that each sample has a factor of its own.

With n controls and k entries held: first order 2n² flops a sample, second order n³/3 + 4n²k, and
2nk² more where the sample has entries held itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.derivatives.optimum import Optimum
from hamshoot.derivatives.parameters import objective, swept
from hamshoot.methods.newton.reduced_hessian import Expansion as RollOut
from hamshoot.methods.newton.reduced_hessian import expansion, second_derivatives
from hamshoot.optimality import formulas
from hamshoot.optimality.expansion import Free

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP = 1e-30
#: Of the slope, what J has to fall by; cuts of a step by half; Newton steps that set kinks back.
ARMIJO, CUTS, BACK = 0.1, 12, 2
#: First shift of a Hessian that is not definite, of its largest diagonal entry, and its growth.
SHIFT, GROWTH = 1e-6, 4.0


@dataclass(frozen=True, eq=False)
class Step:
    """A Newton step of the problem without a sample.

    Attributes
    ----------
    weights : ndarray, shape (L, w, w+1)
        The controls after it.
    objective : float
        J of the problem without the sample there: no less than that of its optimum.
    changes : int
        Activations of the other samples that change sides on the way, to first order: which reach
        the kink, or leave it.
    whole : bool
        Whether it is Newton's own step, by a positive definite Hessian and with its full length.
    """

    weights: NDArray
    objective: float
    changes: int
    whole: bool


class LeftOut:
    """The problems without one sample each, around the optimum with all."""

    def __init__(self, optimum: Optimum) -> None:
        self.optimum, self.samples = optimum, optimum.problem.n_samples
        if self.samples < 2:
            raise ValueError("problem: expected at least 2 samples to leave one out, got 1")

    @cached_property
    def losses(self) -> NDArray:
        """Each sample's share of the loss, (N,), of which the loss is the sum."""
        problem = self.optimum.problem
        error = problem.readout @ self.optimum.sweep.A[-1] - problem.targets
        return np.sum(error**2, axis=0) / self.samples

    @cached_property
    def gradients(self) -> NDArray:
        """g_r of all samples, (n, N)."""
        at, sweep = self._newton, self.optimum.sweep
        parts = -self.optimum.at.setting.decay * at.steps[:, None, None, None] * np.einsum(
            "lis,lcs->lics", sweep.B[1:], at.features)
        return parts.reshape(-1, self.samples)

    @cached_property
    def added(self) -> NDArray:
        """e_s of all samples, (n, N)."""
        N, g = self.samples, self.gradients
        return (g.sum(axis=1, keepdims=True) - N * g) / (N - 1)

    @cached_property
    def first(self) -> NDArray:
        """W′ of all samples, (n, N)."""
        return -self.optimum.inverse(self.added)

    @cached_property
    def first_objective(self) -> NDArray:
        """The derivative of J* along the change of the weights, (N,)."""
        N = self.samples
        return (self.losses.sum() - N * self.losses) / (N - 1)

    @cached_property
    def _newton(self) -> RollOut:
        """The roll-out for second derivatives."""
        here = self.optimum
        sweep = here.sweep
        return expansion(here.problem, sweep.A, sweep.B, here.at.weights, here.at.steps,
                         here.slopes)

    @cached_property
    def _decay(self) -> NDArray:
        """Diagonal of the Hessian of the weight decay, (n,)."""
        setting, at = self.optimum.at.setting, self.optimum.at
        return setting.decay / setting.leak * np.repeat(at.steps, at.weights[0].size)

    def step(self, s: int) -> Step:
        """The Newton step without sample s, cut where J does not fall along it."""
        here, others = self.optimum, np.arange(self.samples) != s
        hessian, added = self._hessian_without(s), self.added[:, s]
        owners = np.nonzero(here.held)[2]
        free = Free(here.at.fixed[owners != s]) if np.any(owners == s) else here.at.free
        x, definite = _newton(free, hessian, added)
        held = here.held & others
        weights, objective, length = self._search(free, held, x, float(added @ x), others)
        turned = np.zeros(len(owners))
        turned[owners != s] = length * free.multipliers(
            -(added + hessian @ x), int(np.sum(owners != s)))
        turned *= (self.samples - 1) / self.samples  # against the forces of the full problem
        return Step(weights, objective, self._changes(s, length * x, turned),
                    definite and length == 1.0)

    def _search(
        self, free: Free, held: NDArray, x: NDArray, slope: float, others: NDArray
    ) -> tuple[NDArray, float, float]:
        """Controls and J after the longest of a few steps along which J falls as it should.

        J is that of the network itself, whatever its activations do. Those held are set back to 0
        on the way, since a straight line leaves the kinks at second order, where J rises at first.
        """
        here, start = self.optimum, self._objective(self.optimum.at.weights, others)
        length = 1.0
        for _ in range(CUTS):
            weights = here.at.weights + length * x.reshape(here.at.weights.shape)
            weights = self._set_back(free, held, weights)
            value = self._objective(weights, others)
            if value <= start + ARMIJO * length * slope:
                return weights, value, length
            length *= 0.5
        return here.at.weights, start, 0.0

    def _set_back(self, free: Free, held: NDArray, weights: NDArray) -> NDArray:
        """Controls near by with the entries held at 0, up to the rows that depend on others."""
        here = self.optimum
        if not held.any() or not free.rank:
            return weights
        for _ in range(BACK):
            A = formulas.roll_out(here.at.setting, weights, here.at.steps, pattern=here.slopes)
            weights = weights - free.moving(A[:-1][held]).reshape(weights.shape)
        return weights

    def _objective(self, weights: NDArray, others: NDArray) -> float:
        """J of the other samples, (1/(N−1)) Σ_r + λ/(2L̃) Σρ‖W‖²."""
        here = self.optimum
        end = formulas.roll_out(here.at.setting, weights, here.at.steps)[-1]
        without = here.posed._replace(sample_weights=others * self.samples / (self.samples - 1))
        return float(objective(without, weights, here.at.steps, end))

    def _hessian_without(self, s: int) -> NDArray:
        """Of J without sample s, (n, n)."""
        here, at = self.optimum, self._newton
        one = slice(s, s + 1)
        share, _ = second_derivatives(at._replace(
            features=at.features[:, :, one], slopes=at.slopes[:, :, one],
            bends=at.bends[:, :, one], momenta=at.momenta[:, :, one]))
        # Both Hessians have the weight decay in them, which the difference loses.
        hessian = (here.at.hessian - here.at.setting.decay * share) * (
            self.samples / (self.samples - 1))
        diagonal = np.arange(len(hessian))
        hessian[diagonal, diagonal] += self._decay
        return hessian

    def _changes(self, s: int, x: NDArray, multipliers: NDArray) -> int:
        """Activations of other samples than s that change sides along a step."""
        here, kinks = self.optimum, self.optimum.at.kinks
        if kinks is None:
            return 0
        moved = here.at.weights + 1j * _STEP * x.reshape(here.at.weights.shape)
        A = here.sweep.A[:-1]
        there = A + swept(here.posed, moved, here.at.steps, here.slopes).A[:-1].imag / _STEP
        others = np.arange(self.samples) != s
        crossing = ~here.held & ~kinks.idle & (np.sign(there) != np.sign(A)) & others
        d = kinks.slopes[here.held] - multipliers / (
            here.at.setting.decay * kinks.force[here.held])
        leaving = ((d < kinks.low) | (d > 1)) & others[np.nonzero(here.held)[2]]
        return int(crossing.sum()) + int(leaving.sum())


def _newton(free: Free, hessian: NDArray, added: NDArray) -> tuple[NDArray, bool]:
    """Newton's step (n,) in the free directions, and whether it needed no shift of the Hessian."""
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    reduced = free.coordinates(free.coordinates(hessian).T)
    right, diagonal = -free.coordinates(added), np.arange(len(reduced))
    shift, size = 0.0, float(np.abs(np.diag(reduced)).max(initial=1e-300))
    while True:
        shifted = reduced.copy()
        shifted[diagonal, diagonal] += shift
        try:
            factor = cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            shift = max(GROWTH * shift, SHIFT * size)
            continue
        return free.directions(cho_solve(factor, right, check_finite=False)), shift == 0.0
