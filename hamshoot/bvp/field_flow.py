"""A flow for `hamshoot.bvp.solve` from a right-hand side and its Jacobian, by SciPy's DOP853."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.mesh import Stop
from hamshoot.bvp.records import BVPStatus


class RightHandSideFlow:
    """A `Flow` from a right-hand side: SciPy's DOP853 on the state and its variational equations.

    All segments are integrated as one system over [0, 1], each stretched to it, so the step is
    the one the most demanding segment needs.  A segment whose state exceeds `bound` is given up:
    it returns nan, and the integration goes on with the others.  When the step or the evaluations
    run out, halves of the segments are integrated apart, down to the one to blame.

    Parameters
    ----------
    rhs : callable
        ``rhs(t, y) -> (S, n)`` for t of shape (S,) and y of shape (S, n): use ``y[..., i]``.
    jacobian : callable
        ``jacobian(t, y) -> (S, n, n)``, element (k, i, j) is ∂f_i/∂y_j at (t_k, y_k).
    rtol, atol : float
        Local error tolerances of the integration, in the state and in Φ.
    bound : float
        A state larger than this has blown up.
    max_evaluations : int
        Right-hand sides until a segment is given up.

    Attributes
    ----------
    deadline : float
        Reading of `time.perf_counter` at which an integration ends by `Stop`; set by a solve with
        a time limit for as long as it lasts.

    Raises
    ------
    ValueError
        When it is called, if `rhs` or `jacobian` do not take or return arrays of these shapes, as
        a right-hand side written for SciPy, which indexes states first; `solve_bvp` takes those.

    Notes
    -----
    Φ costs n + 1 columns of size n and one Jacobian a stage; `jvp` two columns.
    """

    def __init__(
        self,
        rhs: Callable[[NDArray, NDArray], NDArray],
        jacobian: Callable[[NDArray, NDArray], NDArray],
        *,
        rtol: float = 1e-10,
        atol: float = 1e-12,
        bound: float = 1e10,
        max_evaluations: int = 5_000,
    ) -> None:
        self.rhs, self.jacobian, self.rtol, self.atol = rhs, jacobian, rtol, atol
        self.bound, self.max_evaluations = bound, max_evaluations
        self.deadline = np.inf
        self.seen: int | None = None  # n of the states that rhs and jacobian were checked with

    def __call__(
        self, t0: NDArray, t1: NDArray, y: NDArray, jacobian: bool
    ) -> tuple[NDArray, NDArray | None]:
        """Ends (S, n) and, if asked, Φ (S, n, n) of every segment; see `Flow`."""
        s, n = y.shape
        self._check(t0, y)
        # Apart from Φ, whose columns would change the steps: the same ends with and without.
        ends = self._integrate(t0, t1, y[:, :, None])[:, :, 0]
        if not jacobian:
            return ends, None
        start = np.concatenate([y[:, :, None], np.broadcast_to(np.eye(n), (s, n, n))], axis=2)
        return ends, self._integrate(t0, t1, start)[:, :, 1:]

    def jvp(self, t0: NDArray, t1: NDArray, y: NDArray, v: NDArray) -> NDArray:
        """Φ_k v_k, shape (S, n)."""
        return self._integrate(t0, t1, np.stack([y, v], axis=2))[:, :, 1]

    def _check(self, t: NDArray, y: NDArray) -> None:
        """That the functions take stacks of states, on n + 1 copies of one, no n × n."""
        n = y.shape[1]
        if self.seen == n:
            return
        t, y = np.repeat(t[:1], n + 1), np.repeat(y[:1], n + 1, axis=0)
        shapes = ("rhs", self.rhs, (n + 1, n)), ("jacobian", self.jacobian, (n + 1, n, n))
        for name, function, expected in shapes:
            came: Any
            try:
                with np.errstate(all="ignore"):
                    came = np.shape(function(t, y))
            except (IndexError, ValueError) as error:
                came = f"{type(error).__name__}: {error}"
            if came != expected:
                raise ValueError(
                    f"{name}: expected an array of shape {expected} for t of shape {t.shape} and y "
                    f"of shape {y.shape}, component i being y[..., i]; got {came}. A right-hand "
                    "side written for SciPy, with y[i], goes to hamshoot.bvp.solve_bvp"
                )
        self.seen = n

    def _integrate(self, t0: NDArray, t1: NDArray, start: NDArray) -> NDArray:
        """Column 0 of `start` (S, n, 1 + c) by the flow, the others by its linearisation."""
        from scipy.integrate import DOP853

        # The error norm is a mean over all segments: tighter by √S, it holds for each of them.
        tight = np.sqrt(t0.size)
        tolerances = {"rtol": max(self.rtol / tight, 1e-13), "atol": self.atol / tight}
        columns, theta = start.copy(), 0.0
        with np.errstate(all="ignore"):
            # DOP853 never returns from a start where the field is not finite.
            rate = self._field(t0, t1 - t0, start.shape)(theta, start)
            alive = np.flatnonzero(np.isfinite(rate.reshape(t0.size, -1)).all(1))
            columns[np.setdiff1d(np.arange(t0.size), alive)] = np.nan
            while alive.size and theta < 1:
                now = columns[alive]
                rates = self._field(t0[alive], (t1 - t0)[alive], now.shape)
                solver = DOP853(rates, theta, now.ravel(), 1.0, **tolerances)
                lost = np.zeros(alive.size, bool)
                while solver.status == "running" and solver.nfev <= self.max_evaluations:
                    if time.perf_counter() > self.deadline:
                        raise Stop(BVPStatus.TIME_LIMIT)
                    solver.step()
                    now = solver.y.reshape(now.shape)
                    lost = ~(np.abs(now[:, :, 0]).max(1) <= self.bound)
                    if lost.any():
                        break
                if solver.status != "finished" and not lost.any():  # stuck
                    columns[alive] = self._apart(t0, t1, columns, alive, theta)
                    break
                columns[alive] = now
                columns[alive[lost]] = np.nan
                alive, theta = alive[~lost], solver.t
        return columns

    def _apart(
        self, t0: NDArray, t1: NDArray, columns: NDArray, alive: NDArray, theta: float
    ) -> NDArray:
        """The segments `alive` on from θ, in two halves; a single one that got stuck is nan."""
        if alive.size == 1:
            return np.full_like(columns[alive], np.nan)
        middle = t0 + theta * (t1 - t0)
        halves = np.array_split(alive, 2)
        return np.concatenate([self._integrate(middle[h], t1[h], columns[h]) for h in halves])

    def _field(self, t0: NDArray, span: NDArray, shape: tuple[int, ...]) -> Callable:
        """Right-hand side of segments stretched to θ in [0, 1], columns flattened."""

        def rates(theta: float, flat: NDArray) -> NDArray:
            columns = flat.reshape(shape)
            t, state = t0 + theta * span, columns[:, :, 0]
            out = np.empty(shape)
            out[:, :, 0] = self.rhs(t, state)
            if shape[2] > 1:
                out[:, :, 1:] = self.jacobian(t, state) @ columns[:, :, 1:]
            return (span[:, None, None] * out).ravel()

        return rates
