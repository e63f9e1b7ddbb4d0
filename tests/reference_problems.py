"""Two-point problems with known answers, one table for every solver.

Each row carries its right-hand side and Jacobian, boundary function with Jacobians, nodes, known
solution, a perturbed guess and the reference values with their digits.  Optimal control problems
are in Hamiltonian form, H = pᵀf − running cost, with the running cost as one more state where the
objective is a reference value.  Everything is written for stacks of states: y is (..., n).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import brentq

from hamshoot.bvp.field_flow import RightHandSideFlow
from hamshoot.bvp.solve import affine_boundary


@dataclass(frozen=True)
class ReferenceProblem:
    """A row of the table."""

    name: str
    rhs: Callable  # (t (S,), y (S, n)) -> (S, n)
    jacobian: Callable  # (t (S,), y (S, n)) -> (S, n, n)
    boundary: Callable  # (y_0, y_S) -> g, ∂g/∂y_0, ∂g/∂y_S
    t: np.ndarray  # (M,), nodes to start from
    exact: Callable  # (M,) -> (M, n)
    # name -> (function of (t, y) at the nodes, reference, half a unit of its last digit or so)
    values: dict[str, tuple[Callable, float, float]]
    linear: bool = False
    exact_tol: float = 1e-8  # of `exact`: its residual, and the solution's distance from it
    noise: float = 0.1  # of the guess, relative to max(1, |y|)

    @cached_property
    def flow(self) -> RightHandSideFlow:
        return RightHandSideFlow(self.rhs, self.jacobian)

    @cached_property
    def solution(self) -> np.ndarray:
        return self.exact(self.t)

    def guess(self, seed: int = 0) -> np.ndarray:
        y = self.solution
        noise = np.random.default_rng(seed).standard_normal(y.shape)
        return y + self.noise * np.maximum(1, np.abs(y).max(0)) * noise

    def residual(self, y: np.ndarray) -> float:
        """Largest defect or boundary residual of states y at the nodes."""
        ends, _ = self.flow(self.t[:-1], self.t[1:], y[:-1], False)
        return max(np.abs(ends - y[1:]).max(), np.abs(self.boundary(y[0], y[-1])[0]).max())


def stack(*components):
    """The last axis of a state from its components (numbers or arrays of one shape)."""
    return np.stack(np.broadcast_arrays(*components), axis=-1)


def matrix(y, entries):
    """A stack of n × n matrices like y with the given entries {(i, j): value}, else zero."""
    out = np.zeros((*y.shape, y.shape[-1]), y.dtype)
    for (i, j), value in entries.items():
        out[..., i, j] = value
    return out


def fixed(n, start, end):
    """Boundary conditions y_i(t_0) = value for start {i: value}, y_i(t_S) = value for end."""
    ga, gb, c = np.zeros((n, n)), np.zeros((n, n)), np.zeros(n)
    for row, (i, value) in enumerate([*start.items(), *end.items()]):
        (ga if row < len(start) else gb)[row, i] = 1.0
        c[row] = value
    return affine_boundary(ga, gb, c)


def integrated(rhs, y0):
    """The solution of the initial value problem, for rows known by their initial costate."""

    def exact(t):
        s = solve_ivp(
            lambda x, y: rhs(np.array([x]), y[None])[0], (t[0], t[-1]), y0, method="DOP853",
            t_eval=t, rtol=1e-12, atol=1e-13,
        )  # fmt: skip
        return s.y.T

    return exact


def at_start(i):
    return lambda t, y: y[0, i]


def at_end(i):
    return lambda t, y: y[-1, i]


# ------------------------------------------------------------------ the double integrator


def energy_optimal():
    """DI from (−1, 0) to (0, 0) in T = 1 with least ½∫u²; y = (x₁, x₂, p₁, p₂, cost), u = p₂."""
    return ReferenceProblem(
        "double integrator, energy",
        rhs=lambda t, y: stack(y[..., 1], y[..., 3], 0, -y[..., 2], y[..., 3] ** 2 / 2),
        jacobian=lambda t, y: matrix(
            y, {(0, 1): 1, (1, 3): 1, (3, 2): -1, (4, 3): y[..., 3]}
        ),
        boundary=fixed(5, {0: -1, 1: 0, 4: 0}, {0: 0, 1: 0}),
        t=np.linspace(0, 1, 5),
        exact=lambda t: stack(
            -1 + 3 * t**2 - 2 * t**3, 6 * t - 6 * t**2, 12, 6 - 12 * t,
            18 * t - 36 * t**2 + 24 * t**3,
        ),
        values={
            "p1(0)": (at_start(2), 12.0, 1e-8),
            "p2(0)": (at_start(3), 6.0, 1e-8),
            "J": (at_end(4), 6.0, 1e-8),
        },
    )  # fmt: skip


def time_optimal():
    """DI from (−1, 0) to rest in least time, |u| ≤ 1: u = 1, then u = −1, in two arcs.

    Both arcs run over τ in [0, 1]: y = (x₁, x₂, p₁, p₂) of each, then their lengths T₁, T₂.
    x and p are continuous between the arcs, the switching function p₂ vanishes there, and
    H = p₁x₂ + p₂u − 1 = 0 at the end.
    """

    def rhs(t, y):
        first, second = y[..., 8], y[..., 9]
        return stack(
            first * y[..., 1], first, 0, -first * y[..., 2],
            second * y[..., 5], -second, 0, -second * y[..., 6],
            0, 0,
        )  # fmt: skip

    def jacobian(t, y):
        first, second = y[..., 8], y[..., 9]
        return matrix(y, {
            (0, 1): first, (0, 8): y[..., 1], (1, 8): 1, (3, 2): -first, (3, 8): -y[..., 2],
            (4, 5): second, (4, 9): y[..., 5], (5, 9): -1, (7, 6): -second, (7, 9): -y[..., 6],
        })  # fmt: skip

    def boundary(ya, yb):
        g = np.array([
            ya[0] + 1, ya[1], *(yb[:4] - ya[4:8]), yb[3], yb[4], yb[5],
            yb[6] * yb[5] - yb[7] - 1,
        ])  # fmt: skip
        ga, gb = np.zeros((10, 10)), np.zeros((10, 10), yb.dtype)
        ga[0, 0] = ga[1, 1] = gb[6, 3] = gb[7, 4] = gb[8, 5] = 1
        ga[2:6, 4:8], gb[2:6, :4] = -np.eye(4), np.eye(4)
        gb[9, 5], gb[9, 6], gb[9, 7] = yb[6], yb[5], -1
        return g, ga, gb

    return ReferenceProblem(
        "double integrator, time",
        rhs, jacobian, boundary,
        t=np.linspace(0, 1, 4),
        exact=lambda t: stack(
            -1 + t**2 / 2, t, 1, 1 - t, -(1 - t) ** 2 / 2, 1 - t, 1, -t, 1, 1
        ),
        values={
            "p1(0)": (at_start(2), 1.0, 1e-8),
            "p2(0)": (at_start(3), 1.0, 1e-8),
            "switch": (at_start(8), 1.0, 1e-8),
            "t_f": (lambda t, y: y[0, 8] + y[0, 9], 2.0, 1e-8),
        },
    )  # fmt: skip


def bolza():
    """DI from 0 with least −½x₁(1) + ½∫u²; y = (x₁, x₂, p₁, p₂, cost)."""
    problem = energy_optimal()
    return ReferenceProblem(
        "Bolza",
        problem.rhs,
        problem.jacobian,
        boundary=fixed(5, {0: 0, 1: 0, 4: 0}, {2: 0.5, 3: 0}),
        t=np.linspace(0, 1, 5),
        exact=lambda t: stack(
            t**2 / 4 - t**3 / 12, t / 2 - t**2 / 4, 0.5, (1 - t) / 2, (1 - (1 - t) ** 3) / 24
        ),
        values={
            "p1(0)": (at_start(2), 0.5, 1e-8),
            "p2(0)": (at_start(3), 0.5, 1e-8),
            "J": (lambda t, y: -y[-1, 0] / 2 + y[-1, 4], -1 / 24, 1e-8),
        },
    )


# ------------------------------------------------------------------ scalar controls


def exponential():
    """ẋ = −x + u from −1 to 0 in T = 1 with least ½∫u²; y = (x, p, cost), u = p."""
    p0 = 2 / (np.e**2 - 1)
    return ReferenceProblem(
        "exponential",
        rhs=lambda t, y: stack(-y[..., 0] + y[..., 1], y[..., 1], y[..., 1] ** 2 / 2),
        jacobian=lambda t, y: matrix(
            y, {(0, 0): -1, (0, 1): 1, (1, 1): 1, (2, 1): y[..., 1]}
        ),
        boundary=fixed(3, {0: -1, 2: 0}, {0: 0}),
        t=np.linspace(0, 1, 4),
        exact=lambda t: stack(
            -np.exp(-t) + p0 * np.sinh(t), p0 * np.exp(t), p0**2 * (np.exp(2 * t) - 1) / 4
        ),
        values={
            "p(0)": (at_start(1), 0.31303529, 1e-8),
            "J": (at_end(2), 0.15651764, 1e-8),
        },
    )


def linear_quadratic():
    """LQR, A = [[0, 1], [−1, 0]], B = e₂, Q = I, R = 1, T = 5, free end; y = (x, p, cost)."""
    hamiltonian = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 1], [1, 0, 0, 1], [0, 1, -1, 0]])

    def rhs(t, y):
        cost = (y[..., 0] ** 2 + y[..., 1] ** 2 + y[..., 3] ** 2) / 2
        return np.concatenate([y[..., :4] @ hamiltonian.T, cost[..., None]], axis=-1)

    def jacobian(t, y):
        out = np.zeros((*y.shape, 5), y.dtype)
        out[..., :4, :4] = hamiltonian
        out[..., 4, [0, 1, 3]] = y[..., [0, 1, 3]]
        return out

    def exact(t):
        # The free end p(T) = 0 gives p(0); cost by −½ d(p·x)/dt = running cost.
        whole = expm(5 * hamiltonian)
        p0 = -np.linalg.solve(whole[2:, 2:], whole[2:, :2] @ [0.0, 1.0])
        y = np.array([expm(s * hamiltonian) @ [0, 1, *p0] for s in t])
        px = (y[:, :2] * y[:, 2:]).sum(1)
        return np.column_stack([y, (px - px[0]) / 2])

    return ReferenceProblem(
        "linear quadratic",
        rhs, jacobian,
        boundary=fixed(5, {0: 0, 1: 1, 4: 0}, {2: 0, 3: 0}),
        t=np.linspace(0, 5, 6),
        exact=exact,
        values={
            "p1(0)": (at_start(2), -0.41112815, 1e-8),
            "p2(0)": (at_start(3), -1.34799809, 1e-8),
            "J": (at_end(4), 0.67399905, 1e-8),
        },
    )  # fmt: skip


def hypersensitive(final_time=10.0, nodes=11):
    """ẋ = −x + u from 1.5 to 1 with least ½∫(x² + u²); y = (x, p, cost), u = p."""
    root = np.sqrt(2.0)
    decay = np.exp(-root * final_time)
    a, b = np.linalg.solve([[1, decay], [decay, 1]], [1.5, 1.0])

    def exact(t):
        down, up = a * np.exp(-root * t), b * np.exp(root * (t - final_time))
        # x = down + up, p = ẋ + x; the cost integrates (x² + p²)/2 = ½ d(xp)/dt.
        x, p = down + up, (1 - root) * down + (1 + root) * up
        return stack(x, p, (x * p - 1.5 * ((1 - root) * a + (1 + root) * b * decay)) / 2)

    digits = {
        "u(0)": (at_start(1), -0.62131830, 1e-8),
        "u(t_f)": (at_end(1), 2.41421050, 1e-8),
        "J": (at_end(2), 1.67309398, 1e-8),
    }
    if final_time != 10:
        end = exact(np.array([0.0, final_time]))
        digits = {
            "u(0)": (at_start(1), end[0, 1], 1e-8),
            "u(t_f)": (at_end(1), end[1, 1], 1e-8),
            "J": (at_end(2), end[1, 2], 1e-8),
        }
    return ReferenceProblem(
        f"hypersensitive, t_f = {final_time:g}",
        rhs=lambda t, y: stack(
            -y[..., 0] + y[..., 1], y[..., 0] + y[..., 1], (y[..., 0] ** 2 + y[..., 1] ** 2) / 2
        ),
        jacobian=lambda t, y: matrix(
            y,
            {(0, 0): -1, (0, 1): 1, (1, 0): 1, (1, 1): 1, (2, 0): y[..., 0], (2, 1): y[..., 1]},
        ),
        boundary=fixed(3, {0: 1.5, 2: 0}, {0: 1}),
        t=np.linspace(0, final_time, nodes),
        exact=exact,
        values=digits,
    )


def hull():
    """ẋ = u from 1.5 with least ½∫u² + 5x(5)²/2; y = (x, p), u = p."""
    u = -7.5 / 26
    return ReferenceProblem(
        "Hull",
        rhs=lambda t, y: stack(y[..., 1], 0),
        jacobian=lambda t, y: matrix(y, {(0, 1): 1}),
        boundary=affine_boundary([[1, 0], [0, 0]], [[0, 0], [5, 1]], [1.5, 0]),
        t=np.array([0.0, 5.0]),
        exact=lambda t: stack(1.5 + u * t, u),
        values={"x(T)": (at_end(0), 0.05769231, 1e-8), "u": (at_start(1), -0.28846154, 1e-8)},
        linear=True,
    )


def van_der_pol():
    """ẋ = (x₂, (1 − x₁²)x₂ − x₁ + u) from (1, 0), T = 2, least ½∫(|x|² + u²), free end."""

    def rhs(t, y):
        x, v, p, q = (y[..., i] for i in range(4))
        return stack(
            v, (1 - x**2) * v - x + q, x + q * (2 * x * v + 1), v - p - q * (1 - x**2),
            (x**2 + v**2 + q**2) / 2,
        )  # fmt: skip

    def jacobian(t, y):
        x, v, q = y[..., 0], y[..., 1], y[..., 3]
        return matrix(y, {
            (0, 1): 1,
            (1, 0): -2 * x * v - 1, (1, 1): 1 - x**2, (1, 3): 1,
            (2, 0): 1 + 2 * q * v, (2, 1): 2 * q * x, (2, 3): 2 * x * v + 1,
            (3, 0): 2 * q * x, (3, 1): 1, (3, 2): -1, (3, 3): x**2 - 1,
            (4, 0): x, (4, 1): v, (4, 3): q,
        })  # fmt: skip

    return ReferenceProblem(
        "van der Pol",
        rhs, jacobian,
        boundary=fixed(5, {0: 1, 1: 0, 4: 0}, {2: 0, 3: 0}),
        t=np.linspace(0, 2, 6),
        exact=integrated(rhs, [1, 0, -1.71717694, -0.01126109, 0]),
        values={
            "p1(0)": (at_start(2), -1.71717694, 1e-8),
            "p2(0)": (at_start(3), -0.01126109, 1e-8),
            "J": (at_end(4), 1.04780691, 1e-8),
        },
        exact_tol=2e-7,
    )  # fmt: skip


# ------------------------------------------------------------------ the BVP test set


def boundary_layer(epsilon=1e-2, nodes=11):
    """T1: εy″ = y, y(0) = 1, y(1) = 0; state (y, √ε y′)."""
    r = np.sqrt(epsilon)

    def exact(t):
        down, up = np.exp(-t / r), np.exp((t - 2) / r)
        return stack(down - up, -down - up) / (1 - np.exp(-2 / r))

    start = exact(np.array([0.0]))[0, 1]
    return ReferenceProblem(
        f"T1, ε = {epsilon:g}",
        rhs=lambda t, y: stack(y[..., 1], y[..., 0]) / r,
        jacobian=lambda t, y: matrix(y, {(0, 1): 1 / r, (1, 0): 1 / r}),
        boundary=fixed(2, {0: 1}, {0: 0}),
        t=np.linspace(0, 1, nodes),
        exact=exact,
        values={"√ε y′(0)": (at_start(1), start, 1e-8)},
        linear=True,
    )


def nonlinear_layer(epsilon=1e-2, nodes=11):
    """T21: εy″ = y(1 + y) − exp(−2t/√ε) with the values of y = exp(−t/√ε); state (y, √ε y′)."""
    r = np.sqrt(epsilon)
    return ReferenceProblem(
        f"T21, ε = {epsilon:g}",
        rhs=lambda t, y: stack(
            y[..., 1], y[..., 0] * (1 + y[..., 0]) - np.exp(-2 * t / r)
        ) / r,
        jacobian=lambda t, y: matrix(y, {(0, 1): 1 / r, (1, 0): (1 + 2 * y[..., 0]) / r}),
        boundary=fixed(2, {0: 1}, {0: np.exp(-1 / r)}),
        t=np.linspace(0, 1, nodes),
        exact=lambda t: stack(np.exp(-t / r), -np.exp(-t / r)),
        values={"√ε y′(0)": (at_start(1), -1.0, 1e-8)},
    )  # fmt: skip


def troesch():
    """T23: y″ = 5 sinh 5y from 0 to 1; state (y, y′)."""

    def rhs(t, y):
        return stack(y[..., 1], 5 * np.sinh(5 * y[..., 0]))

    return ReferenceProblem(
        "Troesch",
        rhs,
        jacobian=lambda t, y: matrix(y, {(0, 1): 1, (1, 0): 25 * np.cosh(5 * y[..., 0])}),
        boundary=fixed(2, {0: 0}, {0: 1}),
        t=np.linspace(0, 1, 11),
        exact=integrated(rhs, [0, 0.04575046]),
        values={"y′(0)": (at_start(1), 0.04575046, 1e-8)},
        exact_tol=1e-5,
        noise=0.02,
    )


# ------------------------------------------------------------------ Leaky ResNets


def leaky_resnet(name, w, n_samples, depth, boundary, exact, values, **more):
    """The Hamiltonian flow of the linear network without bias; y = (A, B), each w × N by rows.

    Ȧ = L̃(BAᵀA − A), Ḃ = −L̃(ABᵀB − B); the same as for ReLU while A stays positive.
    """
    m = w * n_samples

    def parts(y):
        return (v.reshape(*y.shape[:-1], w, n_samples) for v in (y[..., :m], y[..., m:]))

    def rhs(t, y):
        A, B = parts(y)
        At, Bt = np.swapaxes(A, -1, -2), np.swapaxes(B, -1, -2)
        out = depth * np.stack([B @ At @ A - A, B - A @ Bt @ B], axis=-3)
        return out.reshape(y.shape)

    def jacobian(t, y):
        A, B = (v[..., None, :, :] for v in parts(y))
        At, Bt = np.swapaxes(A, -1, -2), np.swapaxes(B, -1, -2)
        a = np.concatenate([np.eye(m), np.zeros((m, m))]).reshape(2 * m, w, n_samples)
        b = np.concatenate([np.zeros((m, m)), np.eye(m)]).reshape(2 * m, w, n_samples)
        at, bt = np.swapaxes(a, -1, -2), np.swapaxes(b, -1, -2)
        da = b @ At @ A + B @ at @ A + B @ At @ a - a
        db = b - a @ Bt @ B - A @ bt @ B - A @ Bt @ b
        columns = depth * np.stack([da, db], axis=-3)
        return np.swapaxes(columns.reshape(*y.shape[:-1], 2 * m, 2 * m), -1, -2)

    return ReferenceProblem(
        name, rhs, jacobian, boundary, exact=exact, values=values, **more
    )


def scalar_resnet():
    """a from 1 to 2 with L̃ = 1: W = 1 + ln 2 throughout, a = 2ᵖ, b = W/a."""
    weight = 1 + np.log(2)

    def cost(t, y):
        return (y[0, 1] * y[0, 0]) ** 2 / 2

    return leaky_resnet(
        "scalar Leaky ResNet", 1, 1, 1.0,
        boundary=fixed(2, {0: 1}, {0: 2}),
        exact=lambda t: stack(2.0**t, weight / 2.0**t),
        values={
            "W(0)": (lambda t, y: y[0, 0] * y[0, 1], 1.69314718, 1e-8),
            "W(1)": (lambda t, y: y[-1, 0] * y[-1, 1], 1.69314718, 1e-8),
            "W²/2": (cost, 1.43337369, 1e-8),
        },
        t=np.linspace(0, 1, 4),
    )  # fmt: skip


def soft_scalar_resnet(a0=1.0, target=2.0, depth=3.0, decay=0.5):
    """The same with the loss (a₁ − y)² instead of a fixed end: b₁ = −(2/λ)(a₁ − y)."""

    def stationary(a1):
        return 2 * (a1 - target) * a1 + decay / depth * (depth + np.log(a1 / a0))

    a1 = brentq(stationary, 1.0, target, xtol=1e-15)
    weight = depth + np.log(a1 / a0)
    return leaky_resnet(
        "scalar Leaky ResNet, soft end", 1, 1, depth,
        boundary=affine_boundary([[1, 0], [0, 0]], [[0, 0], [2, decay]], [a0, 2 * target]),
        exact=lambda t: stack(a0 * (a1 / a0) ** t, weight / depth / (a0 * (a1 / a0) ** t)),
        values={"a(1)": (at_end(0), a1, 1e-8)},
        t=np.linspace(0, 1, 6),
        noise=0.05,
    )  # fmt: skip


def linear_resnet(w=2, n_samples=3, depth=1.5, decay=0.1, seed=3):
    """W_p = e^{pS}W₀e^{−pS}, S = W₀ − W₀ᵀ, for data that make it stationary at the soft end."""
    rng = np.random.default_rng(seed)
    A0 = rng.standard_normal((w, n_samples))
    W0 = depth * np.eye(w) + 0.7 * rng.standard_normal((w, w))
    B0 = W0 @ np.linalg.pinv(A0.T) / depth  # W₀ = L̃B₀A₀ᵀ
    S = W0 - W0.T
    m = w * n_samples

    def exact(t):
        A = [np.exp(-depth * p) * expm(p * S) @ expm(p * W0.T) @ A0 for p in t]
        B = [np.exp(depth * p) * expm(p * S) @ expm(-p * W0) @ B0 for p in t]
        return np.hstack([np.reshape(A, (-1, m)), np.reshape(B, (-1, m))])

    end = exact(np.array([1.0]))[0]
    one, none = np.eye(m), np.zeros((m, m))
    targets = 2 / (decay * n_samples) * end[:m] + end[m:]
    norm = np.linalg.norm(W0)

    def weight_norm(node):
        def function(t, y):
            A, B = y[node].reshape(2, w, n_samples)
            return depth * np.linalg.norm(B @ A.T)

        return function

    return leaky_resnet(
        "linear Leaky ResNet", w, n_samples, depth,
        boundary=affine_boundary(
            np.block([[one, none], [none, none]]),
            np.block([[none, none], [2 / (decay * n_samples) * one, one]]),
            np.concatenate([A0.ravel(), targets]),
        ),
        exact=exact,
        values={"‖W(0)‖": (weight_norm(0), norm, 1e-7), "‖W(1)‖": (weight_norm(-1), norm, 1e-7)},
        t=np.linspace(0, 1, 6),
        noise=0.03,
    )  # fmt: skip


def one_sample(depth=2.0):
    """One sample between two points of the positive orthant: ln‖a‖ linear, a great circle."""
    a0, a1 = np.array([1.0, 0.5, 0.2]), np.array([0.3, 0.8, 1.0])
    r0, r1 = np.linalg.norm(a0), np.linalg.norm(a1)
    angle, log = np.arccos(a0 @ a1 / (r0 * r1)), np.log(r1 / r0)
    side = a1 / r1 - np.cos(angle) * a0 / r0
    side /= np.linalg.norm(side)

    def exact(t):
        t = t[:, None]
        r = r0 * np.exp(log * t)
        u = np.cos(angle * t) * a0 / r0 + np.sin(angle * t) * side
        du = angle * (np.cos(angle * t) * side - np.sin(angle * t) * a0 / r0)
        a, da = r * u, r * (log * u + du)
        return np.hstack([a, (da / depth + a) / r**2])  # b from ȧ = L̃(b‖a‖² − a)

    def hamiltonian(t, y):
        a, b = y[0, :3], y[0, 3:]
        return depth / 2 * (b @ b) * (a @ a) - depth * a @ b

    def cost(t, y):
        a, b = y[0, :3], y[0, 3:]
        return depth / 2 * (b @ b) * (a @ a)  # ‖W‖²/(2L̃), constant along the path

    return leaky_resnet(
        "one sample", 3, 1, depth,
        boundary=fixed(6, dict(enumerate(a0)), dict(enumerate(a1))),
        exact=exact,
        values={
            "H": (hamiltonian, (log**2 + angle**2) / (2 * depth) - depth / 2, 1e-8),
            "cost": (cost, ((depth + log) ** 2 + angle**2) / (2 * depth), 1e-8),
        },
        t=np.linspace(0, 1, 6),
    )  # fmt: skip


PROBLEMS = [
    energy_optimal(),
    time_optimal(),
    bolza(),
    exponential(),
    linear_quadratic(),
    hypersensitive(),
    hull(),
    van_der_pol(),
    boundary_layer(),
    nonlinear_layer(),
    troesch(),
    scalar_resnet(),
    soft_scalar_resnet(),
    linear_resnet(),
    one_sample(),
]
