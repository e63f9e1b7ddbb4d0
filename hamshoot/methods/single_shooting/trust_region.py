"""Newton and Gauss–Newton steps without matrices: conjugate gradients inside a trust region.

The model of J is its second-order expansion, with the full Hessian or with the Gauss–Newton matrix,
which is positive definite. Steihaug's conjugate gradients minimise it within a region measured in
the norm of the Kronecker preconditioner (`hamshoot.methods.single_shooting.kronecker`); a direction
of negative curvature is followed to the boundary. The linear systems are solved as far as the outer
iteration can use: the relative residual allowed is min(1/2, √(‖g‖/‖g_0‖)), which keeps convergence
superlinear. `DirectSingleShooting(optimizer="gauss_newton")` asks for it.

Cost of an iteration: a gradient (6Lw²N flops), a forward sweep for the point of the products (a
second gradient for the full Hessian), and a product per conjugate gradient step, 8Lw²N for
Gauss–Newton, 14Lw²N for the full Hessian.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.methods.common.kept import Step
from hamshoot.methods.single_shooting.kronecker import REFRESH, KroneckerPreconditioner
from hamshoot.methods.single_shooting.optimizer import ROUNDING, Ended, Optimizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Most conjugate gradient steps of one iteration.
MOST_STEPS = 250
#: Gains (actual over predicted decrease) below which the region shrinks, and above which it grows.
POOR, GOOD = 0.25, 0.75
#: Loosest relative residual of a linear system.
LOOSEST = 0.5
#: Least factor by which systems are solved further where J is blind.
SHARPEST = 1e-7
#: Radii below this fraction of the controls' norm end the search.
SMALLEST = 1e-10


class TrustRegionNewton(Optimizer):
    """Trust-region Newton method on one problem, mesh and activation.

    Parameters
    ----------
    sweeps : BlockSweeps
        In double precision where the end is to be sharp.
    hessian : bool
        Whether the model has the full Hessian, else the Gauss–Newton matrix, which is cheaper and
        positive definite, and converges only linearly where the loss does not vanish.
    """

    def __init__(self, sweeps: BlockSweeps, hessian: bool = False, seed: int = 0):
        super().__init__(sweeps)
        self.full = hessian
        self.preconditioner = KroneckerPreconditioner(sweeps, damping=1.0, seed=seed)
        self._W = self._g = np.empty(0)
        self._radius, self._sharper = 0.0, 1.0

    @property
    def latest(self) -> NDArray:
        """Controls of the last iterate accepted; empty before there is one."""
        return self._W

    def _begin(self, weights: NDArray) -> None:
        W = np.array(weights, dtype=float)
        self._sharper = 1.0
        self._accept(W, *self.sweeps.gradient(W))

    def _state(self) -> Step:
        return {**self.preconditioner.factors(), "W": self._W, "g": self._g}, {
            "radius": float(self._radius), "sharper": float(self._sharper)}

    def _resume(self, weights: NDArray, arrays: dict[str, NDArray], numbers: dict[str, Any]
                ) -> None:
        self._W, self._g = arrays["W"], arrays["g"]
        self._radius, self._sharper = numbers["radius"], numbers["sharper"]
        if "grams" in arrays:
            self.preconditioner.prepare(arrays["grams"], arrays["metrics"])

    def _advance(self, iteration: int) -> bool | Ended:
        W, g = self._W, self._g
        if iteration % max(REFRESH // 5, 1) == 0:
            self.preconditioner.refresh(W, iteration)
        (self.sweeps.expand if self.full else self.sweeps.linearise)(W)
        if iteration == 0:
            self._radius = self._first_radius(g)
        step, model, length = self._steihaug(g, self._radius)
        J, new = self.sweeps.gradient(W + step)
        gain = (self.objective - J) / -model if model < 0 and np.isfinite(J) else -1.0
        # Where the decrease is rounding, the gradient decides.
        noise = ROUNDING[self.sweeps.dtype.char] * 10
        if -model < noise * abs(self.objective) and np.isfinite(J):
            shorter = float(np.linalg.norm(new)) < self.gradient_norm
            gain = 1.0 if shorter else 0.0
            if length > 0.9 * self._radius:  # a region judged by J has no meaning here
                self._radius *= 2.5
            elif not shorter:  # the system was not solved sharply enough
                self._sharper *= 0.1
                if self._sharper < SHARPEST:
                    return Ended.STUCK
        elif gain < POOR:
            self._radius = 0.25 * min(length, self._radius)
        elif gain > GOOD and length > 0.9 * self._radius:
            self._radius *= 2.5
        if gain > 1e-4:
            self._accept(W + step, J, new)
            return True
        small = self._radius < SMALLEST * float(np.linalg.norm(W))
        return Ended.STUCK if small else False

    def _accept(self, W: NDArray, J: float, gradient: NDArray) -> None:
        self._W, self._g, self.objective = W, gradient, J
        self.gradient_norm = float(np.linalg.norm(gradient))
        self.stationarity = self.sweeps.stationarity(W, gradient)

    def _first_radius(self, g: NDArray) -> float:
        """Length, in the preconditioner's norm, of a fifth of the preconditioned gradient."""
        return 0.2 * float(np.sqrt(np.sum(g * self._precondition(g))))

    def _precondition(self, r: NDArray) -> NDArray:
        z = self.preconditioner(r.astype(self.sweeps.dtype, copy=False))
        return z.reshape(r.shape).astype(float)

    def _product(self, d: NDArray) -> NDArray:
        return self.sweeps.hessian(d) if self.full else self.sweeps.gauss_newton(d)

    def _steihaug(self, g: NDArray, radius: float) -> tuple[NDArray, float, float]:
        """Step, model's value there, and length in the preconditioner's norm.

        The norm ‖z‖² = zᵀMz is followed by recurrences, so that M itself is never needed.
        """
        z, r = np.zeros_like(g), g.copy()
        y = self._precondition(r)
        d, ry = -y, float(np.sum(r * y))
        zz, zd, dd, model = 0.0, 0.0, ry, 0.0
        forcing = min(LOOSEST, np.sqrt(self.gradient_norm / self.first_gradient)) * self._sharper
        goal = forcing**2 * ry
        for _ in range(MOST_STEPS):
            Hd = self._product(d)
            curvature = float(np.sum(d * Hd))
            step = ry / curvature if curvature > 0 else np.inf
            if not curvature > 0 or zz + 2 * step * zd + step**2 * dd >= radius**2:
                step = (-zd + np.sqrt(max(zd**2 + dd * (radius**2 - zz), 0.0))) / dd
                slope = float(np.sum(r * d))
                return z + step * d, model + step * slope + 0.5 * step**2 * curvature, radius
            z += step * d
            model -= 0.5 * step * ry
            r += step * Hd
            zz, y = zz + 2 * step * zd + step**2 * dd, self._precondition(r)
            ry, old = float(np.sum(r * y)), ry
            if ry <= goal:
                break
            beta = ry / old
            d = -y + beta * d
            zd, dd = beta * (zd + step * dd), ry + beta**2 * dd
        return z, model, float(np.sqrt(zz))
