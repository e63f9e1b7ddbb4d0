"""Optimal control of other dynamics: direct multiple shooting, then Hamiltonian shooting.

Minimise Φ(x(T), p) + ∫₀ᵀ L(x, u, p) dt over u, with ẋ = f(x, u, p) and x(0) given. The direct
method makes a nonlinear program of it with CasADi, controls constant over intervals, and gives
states, controls and costates; the indirect one eliminates u by ∂H/∂u = 0, H = L + λᵀf, and solves

    ẋ = ∂H/∂λ,   λ̇ = −∂H/∂x,   x(0) = start,   x_i(T) = end_i or λ_i(T) = ∂Φ/∂x_i,

with `hamshoot.bvp.adaptive.solve_bvp`, from there. Costates are the gradient of the cost to go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.adaptive import solve_bvp

Numbers = Any  # given as anything array-like, kept as arrays of float


@dataclass(frozen=True)
class ControlPath:
    """A solution of an `OptimalControlProblem`, converged or not.

    Attributes
    ----------
    method : str
        "direct" or "indirect".
    success : bool
    message : str
    objective : float
        Φ + ∫L.
    duration : float
        T.
    t : ndarray, shape (M,)
    states, costates : ndarray, shape (M, n)
    controls : ndarray, shape (M, m)
        At the nodes; of a direct solution those of the intervals that begin there, the last twice.
    hamiltonian : ndarray, shape (M,)
        H at the nodes, constant where the solution is exact; 0 where T is free.
    """

    method: str
    success: bool
    message: str
    objective: float
    duration: float
    t: NDArray
    states: NDArray
    costates: NDArray
    controls: NDArray
    hamiltonian: NDArray


@dataclass(frozen=True)
class OptimalControlProblem:
    """Minimise Φ(x(T), p) + ∫₀ᵀ L(x, u, p) dt with ẋ = f(x, u, p), x(0) = start.

    Parameters
    ----------
    dynamics : callable
        ``dynamics(x, u, p)`` of CasADi expressions, columns of length n, m and k, is f: an
        expression or a list of n. A `casadi.Function` of x, u and p serves as well.
    start : array_like, shape (n,)
    duration : float or (float, float)
        T, or the bounds between which it is free.
    controls : int
        m.
    running_cost : callable, optional
        ``running_cost(x, u, p)`` is L.
    end_cost : callable, optional
        ``end_cost(x, p)`` is Φ.
    end : array_like, shape (n,), optional
        x(T); nan, or None for all, where it is free.
    control_bounds, state_bounds : (array_like, array_like), optional
        Lower and upper bounds, numbers or one for each component, ±inf where there is none. Those
        of states hold at the ends of intervals, in the direct method alone.
    parameters : array_like, shape (k,)
        p.

    Raises
    ------
    ValueError
        If shapes or ranges do not fit.

    Examples
    --------
    The double integrator from rest at 0 to rest at 1 with least ∫u², which is 12:

    >>> problem = OptimalControlProblem(lambda x, u, p: [x[1], u], [0, 0], 1.0,
    ...                                 running_cost=lambda x, u, p: u**2, end=[1, 0])
    >>> path = problem.solve_indirect(problem.solve(intervals=10))
    >>> print(path.success, round(path.objective, 6))
    True 12.0
    """

    dynamics: Callable[..., Any]
    start: Numbers
    duration: float | tuple[float, float]
    controls: int = 1
    running_cost: Callable[..., Any] | None = None
    end_cost: Callable[..., Any] | None = None
    end: Numbers = None
    control_bounds: tuple[Numbers, Numbers] = (-np.inf, np.inf)
    state_bounds: tuple[Numbers, Numbers] = (-np.inf, np.inf)
    parameters: Numbers = ()

    def __post_init__(self) -> None:
        start, times = np.array(self.start, float), np.array(self.duration, float)
        if start.ndim != 1 or not start.size or not np.isfinite(start).all():
            raise ValueError(f"start: expected finite numbers in one dimension, got {self.start!r}")
        if times.shape not in ((), (2,)) or not (0 < times.flat[0] <= times.flat[-1] < np.inf):
            raise ValueError(f"duration: expected T > 0, or bounds of T, got {self.duration!r}")
        if self.controls < 1:
            raise ValueError(f"controls: expected an integer >= 1, got {self.controls!r}")
        end = np.full(start.size, np.nan) if self.end is None else np.array(
            [np.nan if v is None else v for v in np.asarray(self.end, object)], float)
        if end.shape != start.shape:
            raise ValueError(f"end: expected {start.size} numbers, or nan, got {self.end!r}")
        for name, size in (("control_bounds", self.controls), ("state_bounds", start.size)):
            try:
                low, high = (np.broadcast_to(np.array(v, float), size)
                             for v in getattr(self, name))
            except (TypeError, ValueError):
                low, high = np.ones(1), np.zeros(1)
            if not (low < high).all():
                raise ValueError(
                    f"{name}: expected lower and upper bounds, numbers or {size} each, got "
                    f"{getattr(self, name)!r}")
            object.__setattr__(self, name, (low, high))
        values = {"start": start, "end": end, "parameters": np.array(self.parameters, float)}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _functions(self)  # so that f and the costs are seen to have the right sizes now

    @property
    def _times(self) -> tuple[float, float]:
        low, high = np.broadcast_to(np.array(self.duration, float), 2)
        return float(low), float(high)

    def solve(
        self, intervals: int = 50, *, steps: int = 4, guess: ControlPath | None = None,
        tol: float = 1e-9, max_iter: int = 500,
    ) -> ControlPath:
        """By direct multiple shooting: controls constant over so many intervals, IPOPT.

        Parameters
        ----------
        intervals : int
        steps : int
            Of the classical Runge–Kutta method of order 4, in each interval.
        guess : ControlPath, optional
            By default the straight line from start to end, controls 0 or the nearest in bounds.
        tol : float
            IPOPT's.
        max_iter : int
            IPOPT's.
        """
        import casadi as ca

        for name, value in (("intervals", intervals), ("steps", steps)):
            if value < 1:
                raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")
        n, m = len(self.start), self.controls
        rates, final, _ = _functions(self)
        T, X, U = ca.MX.sym("T"), ca.MX.sym("X", n, intervals + 1), ca.MX.sym("U", m, intervals)
        given = ca.vertcat(U, ca.repmat(ca.DM(self.parameters), 1, intervals))
        ends = _interval(rates, n, steps).map(intervals)(
            ca.vertcat(X[:, :-1], ca.DM.zeros(1, intervals)), given,
            ca.repmat(T / intervals, 1, intervals))
        objective = ca.sum2(ends[n, :]) + final(X[:, -1], self.parameters)
        program = {"x": ca.veccat(T, X, U), "f": objective, "g": ca.vec(ends[:n, :] - X[:, 1:])}
        solver = ca.nlpsol("control", "ipopt", program, {
            "print_time": False, "ipopt": {
                "print_level": 0, "sb": "yes", "tol": tol, "max_iter": max_iter}})
        low, high = self._program_bounds(intervals)
        found = solver(x0=np.clip(self._program_guess(intervals, guess), low, high), lbx=low,
                       ubx=high, lbg=0, ubg=0)
        values = np.asarray(found["x"]).ravel()
        states = values[1 : 1 + n * (intervals + 1)].reshape(-1, n)
        controls = values[1 + n * (intervals + 1) :].reshape(-1, m)
        costates = np.asarray(found["lam_g"]).reshape(-1, n)
        # x(0) is bounded to start: its multiplier is minus the costate there.
        first = -np.asarray(found["lam_x"]).ravel()[1 : 1 + n]
        stats = solver.stats()
        done = bool(stats["success"])
        message = "IPOPT converged." if done else (
            f"IPOPT ended with {stats['return_status']}; start from a guess, or take more intervals"
            " or iterations.")
        return self._path("direct", done, message, float(found["f"]), float(values[0]),
                          np.linspace(0, values[0], intervals + 1), states,
                          np.vstack([first, costates]), np.vstack([controls, controls[-1:]]))

    def solve_indirect(
        self, guess: ControlPath, *, tol: float = 1e-8, max_nodes: int = 5000
    ) -> ControlPath:
        """By Hamiltonian shooting, from a guess, as a rule a direct solution.

        `tol` and `max_nodes` are those of `solve_bvp`. u is eliminated where H is strictly convex
        and quadratic in it, clipped to its bounds; with several bounded controls ∂²H/∂u² must be
        diagonal. The duration, where it is free, must end inside its bounds.

        Raises
        ------
        ValueError
            If u cannot be eliminated, or a state is bounded.
        """
        if np.isfinite(self.state_bounds).any():
            raise ValueError("solve_indirect: bounds of states are for the direct method alone")
        n = len(self.start)
        control, flow, slopes = _eliminated(self)
        low, high = self._times
        free, fixed = low < high, np.isfinite(self.end)

        def rates(s: NDArray, y: NDArray, *p: NDArray) -> NDArray:
            T = p[0][0] if free else low
            return T * np.asarray(flow(y[: 2 * n], self.parameters))

        def ends(ya: NDArray, yb: NDArray, *p: NDArray) -> NDArray:
            _, hamiltonian, gradient = (np.asarray(v).ravel() for v in slopes(
                yb[:n], yb[n : 2 * n], self.parameters))
            last = np.where(fixed, yb[:n] - self.end, yb[n : 2 * n] - gradient)
            return np.concatenate([ya[:n] - self.start, last, ya[2 * n :],
                                   hamiltonian[: int(free)]])

        s = guess.t / guess.t[-1]
        cost = np.linspace(0, guess.objective, s.size)
        y = np.vstack([guess.states.T, guess.costates.T, cost])
        found = solve_bvp(rates, ends, s, y, p=[guess.duration] if free else None, tol=tol,
                          max_nodes=max(max_nodes, 4 * s.size))
        x, costates = found.y[:n].T, found.y[n : 2 * n].T
        duration = float(found.p[0]) if free else low
        success, message = bool(found.success), str(found.message)
        if success and not low * (1 - 1e-9) <= duration <= high * (1 + 1e-9):
            success, message = False, f"The duration, {duration:.6g}, left its bounds."
        u = np.asarray(control(found.y[: 2 * n], self.parameters)).T
        final = _functions(self)[1]
        objective = float(found.y[2 * n, -1]) + float(final(x[-1], self.parameters))
        return self._path("indirect", success, message, objective, duration,
                          duration * found.x, x, costates, u)

    def _path(
        self, method: str, success: bool, message: str, objective: float, duration: float,
        t: NDArray, x: NDArray, costates: NDArray, u: NDArray,
    ) -> ControlPath:
        hamiltonian = _functions(self)[2]
        values = np.asarray(hamiltonian(x.T, costates.T, u.T, self.parameters)).ravel()
        return ControlPath(method, success, message, objective, duration, t, x, costates, u, values)

    def _program_bounds(self, intervals: int) -> list[NDArray]:
        sides = []
        for time, x, u in zip(self._times, self.state_bounds, self.control_bounds, strict=True):
            states = np.tile(x, (intervals + 1, 1))
            states[0] = self.start
            states[-1] = np.where(np.isfinite(self.end), self.end, states[-1])
            sides.append(np.concatenate([[time], states.ravel(), np.tile(u, intervals)]))
        return sides

    def _program_guess(self, intervals: int, guess: ControlPath | None) -> NDArray:
        t, time = np.array([0.0, 1.0]), float(np.mean(self._times))
        states = np.stack([self.start, np.where(np.isfinite(self.end), self.end, self.start)])
        controls = np.zeros((2, self.controls))
        if guess is not None:
            t, time, states, controls = guess.t, guess.duration, guess.states, guess.controls
        s = np.linspace(0, 1, intervals + 1)
        states, controls = (np.stack([np.interp(at, t / t[-1], row) for row in part.T], 1)
                            for at, part in ((s, states), (s[:-1], controls)))
        return np.concatenate([[time], states.ravel(), controls.ravel()])


def _functions(problem: OptimalControlProblem) -> tuple[Any, Any, Any]:
    """CasADi functions: (ẋ, L) of x, u, p; Φ of x, p; H of x, λ, u, p."""
    import casadi as ca

    n = len(problem.start)
    x, u, p, costate = (ca.MX.sym(name, size) for name, size in (
        ("x", n), ("u", problem.controls), ("p", len(problem.parameters)),
        ("lambda", n)))

    def column(name: str, value: Any, size: int) -> Any:
        value = ca.vertcat(*value) if isinstance(value, (list, tuple)) else ca.MX(value)
        if value.numel() != size:
            raise ValueError(f"{name}: expected {size} component{'s' * (size > 1)}, got "
                             f"{value.numel()}")
        return ca.densify(value)

    f = column("dynamics", problem.dynamics(x, u, p), n)
    cost = column("running_cost", 0 if problem.running_cost is None
                  else problem.running_cost(x, u, p), 1)
    end = column("end_cost", 0 if problem.end_cost is None else problem.end_cost(x, p), 1)
    return (ca.Function("rates", [x, u, p], [ca.vertcat(f, cost)]),
            ca.Function("end", [x, p], [end]),
            ca.Function("hamiltonian", [x, costate, u, p], [cost + ca.dot(costate, f)]))


def _interval(rates: Any, n: int, steps: int) -> Any:
    """(x and cost, u and p, h) -> x and cost after h, by so many Runge–Kutta steps of order 4."""
    import casadi as ca

    m, k = rates.size1_in(1), rates.size1_in(2)
    state, given = ca.MX.sym("state", n + 1), ca.MX.sym("given", m + k)
    slope = rates(state[:n], given[:m], given[m:])
    return ca.simpleRK(ca.Function("field", [state, given], [slope]), steps)


def _eliminated(problem: OptimalControlProblem) -> tuple[Any, Any, Any]:
    """u of (x, λ); its flow with the cost; (x, H, ∂Φ/∂x) of x, λ. u minimises H."""
    import casadi as ca

    n, m = len(problem.start), problem.controls
    rates, end, hamiltonian = (one.expand() for one in _functions(problem))
    z, u = ca.SX.sym("z", 2 * n), ca.SX.sym("u", m)
    p = ca.SX.sym("p", len(problem.parameters))
    x, costate = z[:n], z[n:]
    H = hamiltonian(x, costate, u, p)
    curvature, slope = ca.hessian(H, u)
    low, high = problem.control_bounds
    constant = not ca.symvar(curvature)
    convex = constant and np.linalg.eigvalsh(np.asarray(ca.evalf(curvature))).min() > 0
    if ca.depends_on(curvature, u) or (constant and not convex):
        raise ValueError("solve_indirect: u is eliminated where H = L + λᵀf is quadratic in it and "
                         "strictly convex; this one is not")
    if m > 1 and not curvature.sparsity().is_diag() and np.isfinite([low, high]).any():
        raise ValueError("solve_indirect: with several bounded controls ∂²H/∂u² must be diagonal")
    free = -ca.solve(ca.densify(curvature), ca.substitute(slope, u, ca.DM.zeros(m)))
    best = ca.fmin(ca.fmax(free, low), high)
    held = ca.substitute(ca.gradient(H, z), u, best)  # ∂H/∂u = 0 or u does not move: no more terms
    value = rates(x, best, p)
    flow = ca.Function("flow", [z, p], [ca.vertcat(value[:n], -held[:n], value[n])])
    last = [x, ca.substitute(H, u, best), ca.gradient(end(x, p), x)]
    return ca.Function("control", [z, p], [best]), flow, ca.Function("last", [x, costate, p], last)
