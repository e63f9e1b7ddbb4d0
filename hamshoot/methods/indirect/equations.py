"""Newton's method on the shooting equations, with the systems of a midpoint model.

The unknowns are the nodes y_k = (A_k, B_k), the residuals those of the accurate flow. The Newton
systems are linear-quadratic problems (`hamshoot.methods.indirect.linear_quadratic`), solved in one
of two ways, with the same solution to rounding:

* `hamshoot.methods.indirect.riccati.RiccatiRecursion`, in the representations: with S segments,
  n = wN and m = w(w+1), S (2m + 8w) n² flops and S m n numbers to factor, quadratic in N;
* `hamshoot.methods.indirect.condensing.Condensing`, the reduced Hessian in W itself: S² m² N +
  (S m)³/3 flops and (S m)² numbers, linear in N.

`cheaper_form` chooses by these counts. (The option `form` calls the first "condensed" and the
second "control".)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.methods.indirect.condensing import Condensing
from hamshoot.methods.indirect.linear_quadratic import LinearQuadraticSystem
from hamshoot.methods.indirect.riccati import RiccatiRecursion
from hamshoot.theory import hamiltonian as ham

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMS", "Condensing", "NewtonResult", "RiccatiRecursion", "ShootingProblem",
           "cheaper_form", "solve_shooting"]

FORMS: dict[str, type[LinearQuadraticSystem]] = {
    "condensed": RiccatiRecursion, "control": Condensing}
#: Growth of the responses from which the recursion, which is stable, is taken in any case.
MAX_GROWTH = 1e6
#: Below this damping a step is given up.
LEAST_DAMPING = 1 / 64


def cheaper_form(width: int, samples: int, segments: int, bias: bool = True) -> str:
    """Name of the cheaper way to factor, by its flops; within 4 GB.

    The recursion is paid at half the speed: much of it is passes over n × n matrices.
    """
    n, m = width * samples, width * (width + int(bias))
    recursion = 2.0 * segments * (2 * m + 8 * width) * n**2
    dense = 2.0 * segments**2 * m**2 * samples + (segments * m) ** 3 / 3
    small = 8.0 * (segments * m) ** 2 < 4e9
    return "control" if small and dense < recursion else "condensed"


@dataclass
class ShootingProblem:
    """The boundary value problem of the Hamiltonian flow, ready for shooting.

    Attributes
    ----------
    flow : HamiltonianFlow
        Accurate, and of the activation wanted.
    initial_state : ndarray, shape (w, N)
        A_0.
    readout, targets : ndarray, shape (d_out, w) and (d_out, N)
    weight_decay : float
        λ.
    endpoint : ndarray, shape (w, N), or None
        A_1 in place of the loss.
    """

    flow: HamiltonianFlow
    initial_state: NDArray
    readout: NDArray
    targets: NDArray
    weight_decay: float
    endpoint: NDArray | None = None

    def defects(self, t: NDArray, y: NDArray) -> NDArray:
        """φ_k(y_k) − y_{k+1}, shape (S, 2, w, N); NaN where the flow could not be integrated."""
        ends, _ = self.flow(t[:-1], t[1:], y[:-1].reshape(len(t) - 1, -1))
        return ends.reshape(y[1:].shape) - y[1:]

    def why_lost(self, t: NDArray, y: NDArray) -> str:
        """Why the flow does not reach the end of every segment, as a clause; "" if it does."""
        return self.flow.why_lost(t[:-1], t[1:], y[:-1].reshape(len(t) - 1, -1))

    def boundary(self, y: NDArray) -> tuple[NDArray, NDArray]:
        """What A_0 and B_1 (or A_1) lack, (w, N) each."""
        if self.endpoint is not None:
            return self.initial_state - y[0, 0], self.endpoint - y[-1, 0]
        wanted = ham.terminal_momentum(y[-1, 0], self.readout, self.targets, self.weight_decay)
        return self.initial_state - y[0, 0], wanted - y[-1, 1]

    @property
    def terminal(self) -> NDArray:
        """(2/(λN)) QᵀQ, the block of ∂²C/∂A_1²/λ."""
        samples = self.initial_state.shape[1]
        return 2.0 / (self.weight_decay * samples) * self.readout.T @ self.readout

    def newton_system(
        self, t: NDArray, y: NDArray, form: str, penalty: float
    ) -> tuple[LinearQuadraticSystem, float]:
        """The model's Newton system at nodes t and states y (S + 1, 2, w, N), factored.

        Also the weight of the end's residual in its right-hand side: a hard endpoint is asked for
        as δA_1 = r − δB_1/penalty in place of δA_1 = r, so as δB_1 → 0 it is met exactly.
        """
        flow, terminal, weight = self.flow, self.terminal, 1.0
        if self.endpoint is not None:
            terminal, weight = penalty * np.eye(y.shape[2]), penalty
        data = t, y[:, 0], y[:, 1], terminal
        keywords: dict[str, Any] = dict(
            effective_depth=flow.effective_depth, activation=flow.activation, bias=flow.bias)
        width, samples = y.shape[2:]
        kind = cheaper_form(width, samples, len(t) - 1, flow.bias) if form == "auto" else form
        system = FORMS[kind](*data, **keywords)
        if form == "auto" and isinstance(system, Condensing) and not system.growth < MAX_GROWTH:
            system = FORMS["condensed"](*data, **keywords)
        return system, weight


@dataclass(frozen=True)
class NewtonResult:
    """Nodes t (S + 1,), states y (S + 1, 2, w, N), and how the iteration ended.

    `reason` is a sentence; `correction` the scaled norm of the last Newton correction; `least` and
    `definite` as in `LinearQuadraticSystem`, at the last factorisation.
    """

    t: NDArray
    y: NDArray
    success: bool
    reason: str
    iterations: int
    factorisations: int
    correction: float
    definite: bool
    least: float


def solve_shooting(
    problem: ShootingProblem,
    t: NDArray,
    y: NDArray,
    *,
    tol: float = 1e-10,
    max_iter: int = 60,
    max_nodes: int = 1600,
    minimum: bool = False,
    form: str = "auto",
    callback: Callable[[NDArray, float], None] | None = None,
) -> NewtonResult:
    """Newton's method on the shooting equations, systems of the model in place of exact ones.

    A factorisation is kept as long as each correction is below a quarter of the one before (the
    error of the midpoint model and the frozen linearisation both show there), and corrections of
    one factorisation are mixed, which takes a third of them away; steps are damped by
    the natural level function, the norm of the simplified correction. Where a fresh factorisation
    does not contract although the step is small, the segments with the largest new defects are
    halved: it is there that the midpoint model falls short.

    Parameters
    ----------
    t, y : ndarray, shapes (S + 1,), (S + 1, 2, w, N)
        Nodes and guess.
    tol : float
        For the scaled correction, defects and boundary residuals.
    minimum : bool
        Give up at once where the second variation is not positive at the guess: it is not near a
        minimum.
    form : {"auto", "condensed", "control"}
        By a Riccati recursion, by the reduced Hessian in W, or whichever is cheaper.
    callback : callable, optional
        Called with the iterate and the scaled correction after each step; may raise.
    """
    state = _Iteration(problem, np.array(t, dtype=float), np.array(y, dtype=float), form)
    reason, success = "the iteration limit came first", False
    iterations, crawling, refinements, least = 0, 0, 0, np.inf
    while iterations < max_iter:
        iterations += 1
        correction, level, damping = state.step(tol)
        if callback is not None:
            callback(state.y, correction)
        first = state.system if iterations == 1 else None
        if minimum and first is not None and not first.definite:
            reason = "the second variation is not positive at the guess"
            break
        if damping == 0:
            reason = "no damped Newton step decreases the natural level function" \
                if np.isfinite(correction) else \
                f"{problem.why_lost(state.t, state.y) or 'the Newton system is not finite'} " \
                f"at the {'guess' if iterations == 1 else 'last iterate'}"
            refinements += 1
            if correction < 0.1 and refinements <= 2 and state.refine(max_nodes, level):
                continue
            break
        crawling = 0 if correction < 0.8 * least else crawling + 1
        least = min(least, correction)
        if crawling == 6:
            reason = "the Newton corrections do not shrink: the guess is too far from a geodesic"
            break
        if damping == 1 and level <= tol and state.residual <= tol:
            reason, success = "converged", True
            state.take_last_correction()
            break
        if damping == 1 and level > 0.25 * correction and correction < 0.05 and state.was_fresh:
            if correction < 30 * tol and state.residual < 3 * tol:
                reason = "the corrections stopped shrinking at the accuracy of the flow"
                break
            state.refine(max_nodes, level)
    return NewtonResult(
        state.t, state.y, success, reason, iterations, state.factorisations, level,
        state.system is not None and state.system.definite,
        state.system.least if state.system is not None else float("nan"),
    )


class _Iteration:
    """State of one Newton solve: iterate, its residuals, factorisation, correction."""

    def __init__(self, problem: ShootingProblem, t: NDArray, y: NDArray, form: str):
        self.problem, self.t, self.y, self.form = problem, t, y, form
        self.system: LinearQuadraticSystem | None = None
        self.factorisations, self.stale, self.was_fresh = 0, True, True
        self.past: list[tuple[NDArray, NDArray]] = []  # iterates and corrections before, to mix
        self.damping = 1.0
        self._evaluate()

    def _evaluate(self) -> None:
        self.r = self.problem.defects(self.t, self.y)

    @property
    def residual(self) -> float:
        """Largest defect or boundary residual over the size of A or B."""
        start, end = self.problem.boundary(self.y)
        size = _sizes(self.y)
        end_size = size[0, 0 if self.problem.endpoint is not None else 1, 0, 0]
        return float(max(np.max(np.abs(self.r) / size), np.abs(start).max() / size[0, 0, 0, 0],
                         np.abs(end).max() / end_size))

    def _solve(self, y: NDArray, r: NDArray) -> NDArray:
        start, end = self.problem.boundary(y)
        assert self.system is not None  # it is factored first
        return self.system.solve(r, start, self.end_weight * end)

    def _refactor(self) -> None:
        size = _sizes(self.y)
        penalty = 1e6 * float(size[0, 1, 0, 0] / size[0, 0, 0, 0])
        self.system, self.end_weight = self.problem.newton_system(
            self.t, self.y, self.form, penalty)
        self.factorisations += 1
        self.d = self._solve(self.y, self.r)
        self.stale, self.past = False, []

    def _mixed(self, size: NDArray) -> NDArray:
        """The correction, improved by Anderson mixing over those with the same factorisation.

        What a frozen, discretised system leaves of an error is linear in it, and of few shapes:
        the combination of the last corrections that is least says where they lead to.
        """
        if not self.past:
            return self.d
        y, d = (np.stack([*v[::-1]]) for v in zip(*self.past, strict=True))
        dy, dd = self.y - y, self.d - d
        columns = (dd / size).reshape(len(d), -1).T
        share = np.linalg.lstsq(columns, (self.d / size).ravel(), rcond=1e-10)[0]
        return self.d - np.tensordot(share, dy + dd, 1)

    def step(self, tol: float) -> tuple[float, float, float]:
        """One damped step; returns the norms of the correction and of the next one, and λ."""
        self.was_fresh = self.stale
        if self.stale:
            try:
                self._refactor()
            except np.linalg.LinAlgError:
                return np.inf, np.inf, 0.0
        size = _sizes(self.y)
        correction = _norm(self.d, size)
        damping = min(1.0, 4 * self.damping) if np.isfinite(correction) else 0.0
        level, move = np.inf, self._mixed(size)
        while damping >= LEAST_DAMPING:
            trial = self.y + damping * move
            r = self.problem.defects(self.t, trial)
            if np.all(np.isfinite(r)):
                following = self._solve(trial, r)
                level = _norm(following, size)
                if level <= (1 - damping / 4) * correction or max(level, correction) <= tol:
                    break
            damping /= 2
        else:
            if not self.was_fresh:  # the old factorisation may be to blame
                self.stale = True
                return self.step(tol)
            self.damping = 1.0
            return correction, level, 0.0
        if damping == 1 and level <= 0.25 * correction:
            self.past = [*self.past[-3:], (self.y, self.d)]
            self.d = following
        else:
            self.stale = True
        self.y, self.r, self.damping = trial, r, damping
        return correction, level, damping

    def take_last_correction(self) -> None:
        """Apply the correction that is known already, unless it makes the residual worse."""
        if not self.stale:
            before, y, r = self.residual, self.y, self.r
            self.y = y + self.d
            self._evaluate()
            if not self.residual <= before:
                self.y, self.r = y, r

    def refine(self, max_nodes: int, level: float) -> bool:
        """Halve the segments with the largest defects; False if there is no room or no reason."""
        bad = np.max(np.abs(self.r) / _sizes(self.y), axis=(1, 2, 3))
        bad = np.where(np.isfinite(bad), bad, np.inf)
        cut = bad >= 0.05 * bad.max() if np.isfinite(bad.max()) else ~np.isfinite(bad)
        if len(self.t) + cut.sum() > max_nodes or not np.isfinite(level):
            return False
        middle = 0.5 * (self.t[:-1] + self.t[1:])[cut]
        flow = self.problem.flow
        shape = (-1, *self.y.shape[1:])
        states, _ = flow(self.t[:-1][cut], middle, self.y[:-1][cut].reshape(cut.sum(), -1))
        states = states.reshape(shape)
        lost = ~np.isfinite(states)
        states[lost] = (0.5 * (self.y[:-1][cut] + self.y[1:][cut]))[lost]
        places = np.flatnonzero(cut) + 1
        self.t, self.y = np.insert(self.t, places, middle), np.insert(self.y, places, states, 0)
        self.stale = True
        self._evaluate()
        return True


def _sizes(y: NDArray) -> NDArray:
    """Largest |A| and largest |B| along the path, shape (1, 2, 1, 1)."""
    size = np.abs(y).max((0, 2, 3))
    return np.where(size > 0, size, 1.0)[None, :, None, None]


def _norm(d: NDArray, size: NDArray) -> float:
    return float(np.max(np.abs(d) / size))
