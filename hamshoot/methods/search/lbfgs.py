"""Minimise J over the controls of one smooth stage, from sweeps alone: L-BFGS, then Newton steps.

L-BFGS is compiled together with the sweeps (`hamshoot.dynamics._kernels.lbfgs`): on small networks
an iteration of SciPy's L-BFGS-B takes 4.5 to 5.7 times as long (`demos/benchmarks/search.py`). It
gets as far as the rounding of J lets its line search see. The gradient still sees eight digits
more; Newton's method on it, with Hessian products from differences of gradients, takes off what is
left.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.common.kept import Midway, Step
from hamshoot.methods.common.watch import Stop
from hamshoot.solution.solution import Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Iterations over which L-BFGS looks back to see whether J still falls.
WINDOW = 100
#: Iterations between two looks at the clock: CHUNK, or fewer that take CHUNK_FLOPS (a tenth of a
#: second).
CHUNK, CHUNK_FLOPS = 25, 1e9
#: The arrays of a state of L-BFGS, and what is known of an iterate.
STATE = ("W", "counts", "g", "values", "measures", "S", "Y", "rho", "alpha")
KNOWN = ("objective", "stationarity", "gradient_norm", "first_gradient")
#: Hessian products a Newton step may take.
MOST_PRODUCTS = 4000


class _Enough(Exception):
    """Ends SciPy's iteration."""


class Log(Protocol):
    """Where iterations are told: a `Watch`, or what stands in for it in a thread."""

    stage: str

    @property
    def iterations(self) -> int:
        """Told so far."""

    def record(self, objective: float, stationarity: float = ..., /) -> object:
        """Tell of one; may raise `Stop`."""


class Minimizer:
    """Minimise J over v_ℓ = W_ℓ √(ρ_ℓλ/L̃) on one smooth stage, from sweeps alone.

    Attributes
    ----------
    latest : ndarray
        W of the last iterate accepted.
    objective, stationarity, gradient_norm : float
        There; the norm is that of ∂J/∂W.
    first_gradient : float
        ‖∂J/∂W‖ where the last `minimize` began.
    """

    def __init__(self, sweeps: EulerSweeps, watch: Log, *, memory: int, max_iter: int):
        self.sweeps, self.watch = sweeps, watch
        self.memory, self.max_iter = memory, max_iter
        problem = sweeps.problem
        self.scale = np.sqrt(sweeps.steps * problem.weight_decay / problem.effective_depth)
        self.scale = self.scale[:, None, None]
        self.latest: NDArray | None = None
        self.objective = self.stationarity = float("inf")
        self.gradient_norm = self.first_gradient = float("nan")
        size = int(np.prod(sweeps.shape))
        flops = 6 * size * problem.n_samples
        self.chunk = int(np.clip(CHUNK_FLOPS / flops, 1, CHUNK))
        self.scales = np.broadcast_to(self.scale, sweeps.shape).ravel().copy()
        self.pairs = [np.empty((memory, size)), np.empty((memory, size)), *np.empty((2, memory))]
        self.scratch = np.empty(size), np.empty(size), np.empty(sweeps.shape)

    def minimize(
        self, weights: NDArray, tol: float, limit: int | None = None, decrease: float = 0.0,
        midway: Midway | None = None,
    ) -> NDArray:
        """L-BFGS from `weights` until the stationarity is within `tol`.

        It also ends after `limit` iterations, and when J falls by less than the share `decrease`
        over WINDOW of them. Its state is offered to `midway`, but for an activation that is not
        compiled.

        Raises
        ------
        Stop
            When the callback, the clock or `max_iter` ends the solve.
        """
        from hamshoot.dynamics import _kernels

        value, g = self._accept((weights * self.scale).ravel())
        self.first_gradient = self.gradient_norm
        if self.stationarity <= tol or not np.isfinite(value):
            return self._last()
        limit = self.max_iter if limit is None else limit
        if not self.sweeps.activation.compiled:
            return self._by_scipy(weights, tol, limit, decrease)
        midway = Midway() if midway is None else midway
        W = np.array(weights, dtype=float, order="C")
        counts, shrink = np.zeros(3, dtype=np.int64), 1.0
        values, measures = np.empty(0), np.empty(0)
        begun = midway.resumed()
        if begun is not None:
            W, counts, g, values, measures, *self.pairs = (np.array(begun[0][n]) for n in STATE)
            shrink, value, self.first_gradient = (
                begun[1][name] for name in ("shrink", "value", "first"))
            self.latest, self.objective = W.copy(), value

        def here() -> Step:
            arrays = (W, counts, g, values[: counts[2]], measures[: counts[2]], *self.pairs)
            return dict(zip(STATE, arrays, strict=True)), {
                "shrink": float(shrink), "value": float(value), "first": self.first_gradient}

        while counts[2] < limit:
            midway.offer(here)
            done = int(counts[2])
            most = max(1, min(self.chunk, limit - done, self.max_iter - self.watch.iterations))
            values = np.concatenate([values[:done], np.empty(most)])
            measures = np.concatenate([measures[:done], np.empty(most)])
            code, shrink, value = _kernels.lbfgs(
                self.sweeps.place, most, float(tol), WINDOW, float(decrease), self.scales,
                *self.pairs, counts, shrink, value, g, *self.scratch, values, measures, W,
                *self.sweeps.arguments)
            self.sweeps.evaluations += int(counts[2]) - done
            self.latest, self.objective = W.copy(), value
            for k in range(done, int(counts[2])):
                self.stationarity = float(measures[k])
                self._tell(float(values[k]), self.stationarity)
            if code:
                break
        self._accept((self._last() * self.scale).ravel())
        return self._last()

    def _by_scipy(self, weights: NDArray, tol: float, limit: int, decrease: float) -> NDArray:
        """The same by SciPy's L-BFGS-B, for an activation that is not compiled."""
        from scipy.optimize import minimize

        values, measures = list[float](), list[float]()

        def accepted(v: NDArray) -> None:
            value, _ = self._accept(v)
            values.append(value)
            measures.append(self.stationarity)
            self._record()
            fell = len(values) <= WINDOW or \
                values[-1 - WINDOW] - value >= max(decrease, 1e-14) * abs(value) or \
                (not decrease and measures[-1] <= 0.5 * measures[-1 - WINDOW])
            if self.stationarity <= tol or len(values) >= limit or not fell:
                raise _Enough

        options = dict(maxcor=self.memory, maxiter=limit, maxfun=10**9, ftol=0.0, gtol=0.0)
        with suppress(_Enough):
            minimize(self._value, (weights * self.scale).ravel(), jac=True, method="L-BFGS-B",
                     callback=accepted, options=options)
        self._accept((self._last() * self.scale).ravel())
        return self._last()

    def take(self, weights: NDArray) -> NDArray:
        """Make given controls the latest iterate, if J does not rise beyond rounding."""
        before, old = self.objective, self._last()
        value, _ = self._accept((weights * self.scale).ravel())
        if value > before + 1e-12 * abs(before):
            self._accept((old * self.scale).ravel())
        return self._last()

    def account(self) -> Step:
        """All that is known of the last iterate, as arrays and numbers that are kept."""
        return {"latest": self._last()}, {name: float(getattr(self, name)) for name in KNOWN}

    def take_account(self, arrays: dict[str, NDArray], numbers: dict[str, Any]) -> NDArray:
        """Stand where an account says."""
        self.latest = arrays["latest"]
        for name in KNOWN:
            setattr(self, name, numbers[name])
        return self.latest

    def finish(self, weights: NDArray, tol: float, midway: Midway | None = None) -> NDArray:
        """Newton steps by conjugate gradients, judged by the gradient alone.

        Where J changes by less than it rounds, a line search is blind; the gradient still sees
        eight digits more. Hessian products are central differences of gradients. A step is taken
        if it shortens the gradient and does not raise J beyond rounding, else the next system is
        solved further; negative curvature ends the loop.
        """
        midway = Midway() if midway is None else midway
        v = (weights * self.scale).ravel()
        value, g = self._accept(v)
        products, begun = 250, midway.resumed()
        if begun is not None:
            v, g = begun[0]["v"], begun[0]["g"]
            value, products = begun[1]["value"], begun[1]["products"]
            self.take_account(*begun)

        def here() -> Step:
            arrays, numbers = self.account()
            return {**arrays, "v": v, "g": g}, {**numbers, "value": float(value),
                                                "products": products}

        while self.stationarity > tol and products <= MOST_PRODUCTS:
            midway.offer(here)
            step = _conjugate_gradients(self._hessian_product(v), g, products)
            if step is None:
                break
            trial_value, trial_g = self._value(v + step)
            size, trial_size = np.linalg.norm(g), np.linalg.norm(trial_g)
            taken = trial_size < 0.9 * size and trial_value <= value + 1e-12 * abs(value)
            if taken:
                v, value, g = v + step, trial_value, trial_g.copy()
                self._keep(v, value)
                self._record()
            if not taken or trial_size > 0.3 * size:
                products *= 2
        self._accept((self._last() * self.scale).ravel())
        return self._last()

    def _hessian_product(self, v: NDArray) -> Callable[[NDArray], NDArray]:
        """H d by central differences; a record every 100 of them keeps clock and callback alive."""
        # Short against ε: σ″ of the last stage lives on that scale.
        length, count = 1e-7 * np.linalg.norm(v), 0

        def product(direction: NDArray) -> NDArray:
            nonlocal count
            h = length / np.linalg.norm(direction)
            forward = self._value(v + h * direction)[1].copy()
            count += 1
            if count % 100 == 0:
                self._record()
            return (forward - self._value(v - h * direction)[1]) / (2 * h)

        return product

    def _last(self) -> NDArray:
        assert self.latest is not None
        return self.latest

    def _value(self, v: NDArray) -> tuple[float, NDArray]:
        """J and ∂J/∂v."""
        value, gradient = self.sweeps.gradient(v.reshape(self.sweeps.shape) / self.scale)
        if not np.isfinite(value):
            return np.inf, np.zeros_like(v)
        return value, (gradient / self.scale).ravel()

    def _accept(self, v: NDArray) -> tuple[float, NDArray]:
        value, g = self._value(v)
        g = g.copy()
        self._keep(v, value)
        return value, g

    def _keep(self, v: NDArray, value: float) -> None:
        """Make v, whose gradient the sweeps hold, the latest iterate."""
        self.latest = v.reshape(self.sweeps.shape) / self.scale
        self.objective = value
        self.stationarity = self.sweeps.stationarity(self.latest)
        self.gradient_norm = self.sweeps.gradient_norm

    def _record(self) -> None:
        self._tell(self.objective, self.stationarity)

    def _tell(self, objective: float, stationarity: float) -> None:
        self.watch.record(objective, stationarity)
        if self.watch.iterations >= self.max_iter:
            raise Stop(Status.MAX_ITER)


def _conjugate_gradients(
    product: Callable[[NDArray], NDArray], g: NDArray, limit: int
) -> NDArray | None:
    """Solve H z = −g to a tenth; None at negative curvature."""
    z, r = np.zeros_like(g), -g
    d, rr = r.copy(), float(r @ r)
    goal = 0.01 * rr
    for _ in range(limit):
        Hd = product(d)
        curvature = float(d @ Hd)
        if not curvature > 0:
            return None
        z += rr / curvature * d
        r -= rr / curvature * Hd
        rr, old = float(r @ r), rr
        if rr <= goal:
            break
        d = r + rr / old * d
    return z
