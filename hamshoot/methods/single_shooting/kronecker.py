"""Minimise J over the controls of a large network: L-BFGS around a Kronecker preconditioner.

The Gauss–Newton block of layer ℓ is close to a Kronecker product,

    2ρ_ℓ² M_ℓ ⊗ σ̂σ̂ᵀ/N + (λ/L̃) ρ_ℓ I,    M_ℓ = mean of (∂A_L/∂A_ℓ)ᵀ QᵀQ (∂A_L/∂A_ℓ),

and is inverted by the eigenvectors of its two small factors. M comes from one random probe a
sample. What the blocks leave out, that all layers push the same way, is the bulk of the Hessian;
L-BFGS learns it in a few dozen gradients, and finds the scale from its newest pair.

Gauss–Newton or Newton steps with the same preconditioner and sweeps are
`hamshoot.methods.single_shooting.trust_region`: on large ReLU networks their models hold only over
short steps, because the kinks of so many activations lie within a step, and a gradient at every
step follows them. L-BFGS without the preconditioner is a peer in `demos/benchmarks/paper_size.py`.

Cost of an iteration: a gradient, 6Lw²N flops, 8Lw³ for the preconditioner, 8·memory·Lw² for the
pairs; every `REFRESH` iterations 8Lw²N + 20Lw³ for the factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.methods.common.kept import Step
from hamshoot.methods.single_shooting.optimizer import ROUNDING, Ended, Optimizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Ended", "KroneckerLBFGS", "KroneckerPreconditioner"]

#: Pairs kept, and iterations between two looks at the factors.
MEMORY, REFRESH = 20, 25
#: The weight decay counts 1 + DAMPING times in the preconditioner: the factors are estimates.
DAMPING = 10.0
#: Scale of the preconditioner before the first pair: layers push the same way, about L-fold.
FIRST_SCALE = 0.02
#: Share of the decrease its slope promises that a step has to reach.
SUFFICIENT = 1e-4
#: Cosine between step and change of gradient below which a pair is rounding, by dtype.
CURVATURE = {"f": 1e-6, "d": 1e-8}
#: Steps shorter than this end the search.
SHORTEST = 1e-6


class KroneckerPreconditioner:
    """Approximate inverse of the layers' Gauss–Newton blocks.

    Parameters
    ----------
    sweeps : BlockSweeps
    damping : float
        Extra weight decay, as a multiple of it.
    seed : int
        Of the probes.
    """

    def __init__(self, sweeps: BlockSweeps, damping: float = DAMPING, seed: int = 0):
        self.sweeps, self.damping, self.seed = sweeps, damping, seed
        self._grams: NDArray | None = None
        self._metrics: NDArray | None = None
        self._slices: list[slice] = []

    def refresh(self, weights: NDArray, iteration: int) -> None:
        """Estimate the factors at these controls; they are averaged with the ones before.

        Raises
        ------
        FloatingPointError
            Where the network overflows.
        """
        sweeps = self.sweeps
        sweeps.linearise(weights)
        grams, metrics = sweeps.factors(1_000_003 * self.seed + iteration)
        if not (np.all(np.isfinite(grams)) and np.all(np.isfinite(metrics))):
            raise FloatingPointError("the network overflows")
        if self._grams is not None and self._metrics is not None:
            grams, metrics = (grams + self._grams) / 2, (metrics + self._metrics) / 2
        self.prepare(grams, metrics)

    def factors(self) -> dict[str, NDArray]:
        """The factors as they were estimated, for `prepare`; none before the first `refresh`."""
        if self._grams is None or self._metrics is None:
            return {}
        return {"grams": self._grams, "metrics": self._metrics}

    def prepare(self, grams: NDArray, metrics: NDArray) -> None:
        """Take factors, and decompose them."""
        sweeps = self.sweeps
        self._grams, self._metrics = grams, metrics
        kind = sweeps.dtype
        (inner, self._inner), (outer, self._outer) = self._map(
            np.linalg.eigh, (grams.astype(kind), metrics.astype(kind)))
        steps = sweeps.steps[:, None, None].astype(kind)
        curvature = 2 * steps**2 * (np.maximum(outer, 0)[:, :, None]
                                    * np.maximum(inner, 0)[:, None, :])
        problem = sweeps.problem
        share = problem.weight_decay / problem.effective_depth * (1 + self.damping)
        self._inverse = (1 / (curvature + share * steps)).astype(kind)
        cuts = np.linspace(0, len(steps), min(len(steps), 4) + 1).astype(int)
        self._slices = [slice(a, b) for a, b in pairwise(cuts)]

    def __call__(self, gradient: NDArray) -> NDArray:
        """Approximate inverse times a gradient, flat, in the sweeps' precision."""
        R = gradient.reshape(self.sweeps.shape)
        out = np.empty(self.sweeps.shape, self._inverse.dtype)

        def part(s: slice) -> None:
            outer, inner = self._outer[s], self._inner[s]
            T = np.swapaxes(outer, 1, 2) @ R[s] @ inner
            T *= self._inverse[s]
            np.matmul(outer @ T, np.swapaxes(inner, 1, 2), out=out[s])

        for _ in self._map(part, self._slices):
            pass
        return out.ravel()

    def _map(self, function: Callable, items: Iterable) -> Iterable:
        """Over the threads of the sweeps; other executors are for blocks, not for small algebra."""
        pool = self.sweeps.executor
        return (pool.map if isinstance(pool, ThreadPoolExecutor) else map)(function, items)


class KroneckerLBFGS(Optimizer):
    """L-BFGS on one problem, mesh and activation, around a `KroneckerPreconditioner`.

    Parameters
    ----------
    sweeps : BlockSweeps
        Its precision is that of the iterates and pairs.
    memory : int
        Pairs kept.
    """

    def __init__(self, sweeps: BlockSweeps, memory: int = MEMORY, seed: int = 0):
        super().__init__(sweeps)
        self.memory = memory
        self.preconditioner = KroneckerPreconditioner(sweeps, seed=seed)
        self._start = self._x = self._g = np.empty(0)

    @property
    def latest(self) -> NDArray:
        """Controls of the last iterate accepted; empty before there is one.

        Those it began with where numbers became non-finite.
        """
        x = self._start if self.ended is Ended.OVERFLOW else self._x
        return x.reshape(self.sweeps.shape if x.size else 0).astype(float)

    def _begin(self, weights: NDArray) -> None:
        kind = self.sweeps.dtype
        self._start = weights
        self._pairs = _Pairs(weights.size, self.memory, kind)
        self._accept(np.array(weights, dtype=kind).ravel(), *self._value(weights))

    def _state(self) -> Step:
        arrays, numbers = self._pairs.state()
        return {**arrays, **self.preconditioner.factors(), "x": self._x, "g": self._g}, numbers

    def _resume(self, weights: NDArray, arrays: dict[str, NDArray], numbers: dict[str, Any]
                ) -> None:
        self._start, self._x, self._g = weights, arrays["x"], arrays["g"]
        self._pairs = _Pairs(weights.size, self.memory, self.sweeps.dtype)
        self._pairs.resume(arrays, numbers)
        if "grams" in arrays:
            self.preconditioner.prepare(arrays["grams"], arrays["metrics"])

    def _advance(self, iteration: int) -> bool | Ended:
        if iteration % REFRESH == 0:
            self.preconditioner.refresh(self._x.reshape(self.sweeps.shape), iteration)
            self._pairs.rescale(self.preconditioner)
        if self._step():
            return True
        if not len(self._pairs):
            return Ended.STUCK
        self._pairs.forget()  # once more, along the preconditioned gradient
        return False

    def _step(self) -> bool:
        """One step along the quasi-Newton direction; False where J cannot be seen to fall."""
        kind = self.sweeps.dtype.type
        direction = self._pairs.direction(self._g, self.preconditioner)
        slope = -float(self._g @ direction)
        if not slope < 0:
            return False
        rounding = ROUNDING[self.sweeps.dtype.char] * abs(self.objective)
        length = 1.0
        while length >= SHORTEST:
            x = self._x - kind(length) * direction
            J, g = self._value(x)
            rise = J - self.objective - SUFFICIENT * length * slope
            if np.isfinite(J) and rise <= rounding:
                break
            # The parabola through both values and the slope, within bounds.
            excess = J - self.objective - length * slope
            best = -slope * length**2 / (2 * excess) if np.isfinite(J) else 0.0
            length = min(max(best, 0.1 * length), 0.5 * length)
        else:
            return False
        self._pairs.add(x - self._x, g - self._g)
        self._accept(x, J, g)
        return True

    def _value(self, x: NDArray) -> tuple[float, NDArray]:
        J, gradient = self.sweeps.gradient(x.reshape(self.sweeps.shape))
        return J, gradient.astype(self.sweeps.dtype, copy=False).ravel()

    def _accept(self, x: NDArray, J: float, g: NDArray) -> None:
        self._x, self._g, self.objective = x, g, J
        shape = self.sweeps.shape
        self.stationarity = self.sweeps.stationarity(x.reshape(shape), g.reshape(shape))
        self.gradient_norm = float(np.linalg.norm(g))


class _Pairs:
    """The last steps s and changes of gradient y, and the two loops over them."""

    def __init__(self, size: int, memory: int, kind: np.dtype):
        self.S, self.Y = np.empty((memory, size), kind), np.empty((memory, size), kind)
        self.inverse, self.shares = np.zeros(memory, kind), np.zeros(memory, kind)
        self.order: list[int] = []
        self.scale = FIRST_SCALE

    def __len__(self) -> int:
        return len(self.order)

    def state(self) -> Step:
        return {"S": self.S, "Y": self.Y, "inverse": self.inverse}, {
            "order": list(self.order), "scale": float(self.scale)}

    def resume(self, arrays: dict[str, NDArray], numbers: dict[str, Any]) -> None:
        self.S, self.Y, self.inverse = (np.array(arrays[n]) for n in ("S", "Y", "inverse"))
        self.order, self.scale = numbers["order"], numbers["scale"]

    def forget(self) -> None:
        self.order, self.scale = [], FIRST_SCALE

    def add(self, s: NDArray, y: NDArray) -> None:
        """Keep a pair, in place of the oldest; one without curvature is left out."""
        product = float(s @ y)
        least = CURVATURE[s.dtype.char] * float(np.linalg.norm(s)) * float(np.linalg.norm(y))
        if not (product > least and np.isfinite(1 / s.dtype.type(product))):
            return
        full = len(self.order) == len(self.S)
        slot = self.order.pop(0) if full else len(self.order)
        self.S[slot], self.Y[slot], self.inverse[slot] = s, y, 1 / product
        self.order.append(slot)

    def rescale(self, preconditioner: KroneckerPreconditioner) -> None:
        """Scale the preconditioner so that it gives the newest pair its curvature."""
        if self.order:
            newest = self.order[-1]
            y = self.Y[newest]
            size = float(self.inverse[newest]) * float(y @ preconditioner(y))
            self.scale = 1 / size if size > 0 else FIRST_SCALE

    def direction(self, g: NDArray, preconditioner: KroneckerPreconditioner) -> NDArray:
        from hamshoot.dynamics import _block_kernels as kernels

        order = np.array(self.order, dtype=np.int64)
        q = g.copy()
        if len(order):
            kernels.descend_pairs(self.S, self.Y, self.inverse, order, q, self.shares)
        z = preconditioner(q)
        z *= z.dtype.type(self.scale)
        if len(order):
            kernels.ascend_pairs(self.S, self.Y, self.inverse, order, z, self.shares)
        return z
