"""Gauss–Newton–CG for J of the controls: Hessian-free optimisation (Martens, 2010).

Exact Gauss–Newton products of `hamshoot.dynamics.block_sweeps`; CG from the last step's end, with
Martens' stopping rule, with and without a diagonal preconditioner of his power; steps taken back
along the iterates of CG; Levenberg–Marquardt's damping. On ReLU it falls fast at first and jams on
kinks later, as the others of second order do, and then begins anew. `optimisers.py` compares it
with the optimisers of `peers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from peers import DIVERGED, Flat, Setting, Trace

from hamshoot.dynamics.block_sweeps import BlockSweeps, threads

#: Of Gauss–Newton–CG: iterations of CG at most and power of the diagonal, one pair after the other;
#: share of the last step that CG begins with; the first damping in units of the weight decay.
CG_SETTINGS = ((50, 0.75), (250, 0.0), (250, 0.75), (50, 0.0))
CG_MEMORY, CG_DAMPING, CG_FLAT = 0.95, 10.0, 30


class GaussNewton:
    """Hessian-free optimisation of J(v); `run` makes one of its runs.

    An iteration costs one gradient, about two gradients for each product, and a forward sweep for
    each J that is looked at.
    """

    def __init__(self, setting: Setting, executor: Any):
        self.setting, self.scale = setting, setting.scale
        self.iterations, self.power = CG_SETTINGS[0]
        self.sweeps = BlockSweeps(setting.problem, setting.steps, executor=executor)

    def run(self, v: np.ndarray, look: Callable[[float], None]) -> float:
        """From v (n,) until J is flat; the last J."""
        flat, mu, step, J = Flat(CG_FLAT), CG_DAMPING, np.zeros_like(v), np.inf
        while True:
            J, G = self.sweeps.expand(self._weights(v))
            look(J)
            if flat(J) or not J < DIVERGED:
                return J
            g = G.ravel() / self.scale
            iterates = self._cg(g, mu, CG_MEMORY * step, look)
            step, fallen = self._taken_back(v, J, iterates)
            model = iterates[-1][1]
            rho = fallen / model if model < 0 else 0.0
            mu *= 1.5 if rho < 0.25 else (2 / 3 if rho > 0.75 else 1.0)
            step = self._shortened(v, J, g, step) if fallen >= 0 else step
            v = v + step

    def _cg(self, g: np.ndarray, mu: float, x: np.ndarray, look: Callable[[float], None]
            ) -> list[tuple[np.ndarray, float]]:
        """Iterates of (G + μ)x = −g on a grid of ratio 1.3, each with its damped model of J."""
        inverse = (self._diagonal() + mu) ** -self.power
        r = -g - self._product(x, mu)
        z = inverse * r
        p, rz, values, kept = z, float(r @ z), [], []
        for k in range(1, self.iterations + 1):
            look(np.inf)
            Ap = self._product(p, mu)
            a = rz / float(p @ Ap)
            x, r = x + a * p, r - a * Ap
            values.append(-0.5 * float(x @ (r - g)))
            if k >= 1.3 ** len(kept):
                kept.append((x, values[-1]))
            back = max(10, k // 10)
            if k > back and values[-1] < 0 and values[-1] - values[-1 - back] > 5e-4 * back * (
                    values[-1]):
                break
            z = inverse * r
            before, rz = rz, float(r @ z)
            p = z + rz / before * p
        return [*kept, (x, values[-1])]

    def _taken_back(self, v: np.ndarray, J: float, iterates: list) -> tuple[np.ndarray, float]:
        """The iterate before J begins to rise again, from the last one back, and J's change."""
        best, lowest = iterates[-1][0], self._objective(v + iterates[-1][0])
        for x, _ in iterates[-2::-1]:
            trial = self._objective(v + x)
            if trial >= lowest:
                break
            best, lowest = x, trial
        return best, lowest - J

    def _shortened(self, v: np.ndarray, J: float, g: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Armijo's rule along a step that does not lower J."""
        for t in 0.5 ** np.arange(1, 30):
            if self._objective(v + t * step) <= J + 1e-2 * t * float(g @ step):
                return t * step
        return np.zeros_like(step)

    def _weights(self, v: np.ndarray) -> np.ndarray:
        return (v / self.scale).reshape(self.sweeps.shape)

    def _objective(self, v: np.ndarray) -> float:
        J = self.sweeps.objective(self._weights(v))
        return J if np.isfinite(J) else np.inf

    def _product(self, d: np.ndarray, mu: float) -> np.ndarray:
        return self.sweeps.gauss_newton(self._weights(d)).ravel() / self.scale + mu * d

    def _diagonal(self) -> np.ndarray:
        """Estimate of the Gauss–Newton matrix's diagonal, from that of its Kronecker factors."""
        grams, metrics = self.sweeps.factors()
        rows = np.diagonal(metrics, axis1=1, axis2=2)[:, :, None]
        columns = np.diagonal(grams, axis1=1, axis2=2)[:, None, :]
        loss = 2 * self.setting.steps[:, None, None] ** 2 * rows * columns
        return loss.ravel() / self.scale**2 + 1.0


def gauss_newton_cg(setting: Setting, trace: Trace) -> None:
    """`GaussNewton` from one start after the other."""
    with threads(setting.problem) as executor:
        method = GaussNewton(setting, executor)
        for k, weights in enumerate(setting.starts(trace)):
            method.iterations, method.power = CG_SETTINGS[k // 2 % len(CG_SETTINGS)]
            trace.label += f", CG of {method.iterations}, power {method.power:g}"
            method.run(weights.ravel() * setting.scale, trace.look)
