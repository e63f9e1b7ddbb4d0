"""The test set of Cash and Mazzia for two-point boundary value problems, T1 to T33, from formulas.

T1 to T18 are linear, T19 to T33 are not; all depend on a small parameter, T23, T32 on a large one.
They are stated in F. Mazzia, J. R. Cash and K. Soetaert, *Solving boundary value problems in the
open source software R: package bvpSolve*, Opuscula Math. 34 (2014), and on the page of the test set
of the University of Bari; here they are written anew, as first-order systems, with the derivative
of a solution known in closed form beside it, so that a complex step checks the one against the
other and both against the equation (`tests/demos/test_bvp_test_set.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import airy, erf

PI = np.pi
GAMMA = 1.4  # ratio of heat capacities in T24


@dataclass(frozen=True)
class TestProblem:
    """One problem, for all values of its parameter ε.

    `rhs(x, y, ε)` is vectorised, y of shape (n, m); `ends(ε)` gives the interval; `boundary(ya, yb,
    ε)` the conditions; `exact(x, ε)` the solution (n, m), also at complex x, or None; `ladder` the
    values in the table; `start(x)` the guess (n, m), by default zeros.
    """

    __test__ = False  # no test case of pytest's

    name: str
    n: int
    interval: tuple[float, float]
    rhs: Callable
    boundary: Callable
    ladder: tuple[float, ...]
    linear: bool = True
    exact: Callable | None = None
    start: Callable | None = None

    def guess(self, x: np.ndarray) -> np.ndarray:
        """The guess at nodes x (m,)."""
        return np.zeros((self.n, x.size)) if self.start is None else self.start(x)


def second_order(right: Callable) -> Callable:
    """y₁′ = y₂, y₂′ = right(x, y₁, y₂, ε)."""
    return lambda x, y, e: np.vstack([y[1], right(x, y[0], y[1], e) + 0 * y[0]])


def values(left: Callable, right: Callable) -> Callable:
    """y₁(a) = left(ε), y₁(b) = right(ε)."""
    return lambda ya, yb, e: np.array([ya[0] - left(e), yb[0] - right(e)])


def fixed(left: float, right: float) -> Callable:
    return values(lambda e: left, lambda e: right)


def line(left: float, right: float, interval=(0.0, 1.0)) -> Callable:
    """The straight line between the boundary values as a guess."""
    a, b = interval
    slope = (right - left) / (b - a)
    return lambda x: np.vstack([left + slope * (x - a), slope + 0 * x])


# ------------------------------------------------------------------ linear ones with layers


def decay(x, e):  # T1
    a = 1 / np.sqrt(e)
    scale = 1 - np.exp(-2 * a)
    left, right = np.exp(-a * x), np.exp(a * (x - 2))
    return np.vstack([(left - right) / scale, -a * (left + right) / scale])


def right_layer(x, e):  # T2
    grown, scale = np.exp((x - 1) / e), 1 - np.exp(-1 / e)
    return np.vstack([(1 - grown) / scale, -grown / (e * scale)])


def cosine(x, e):  # T3, T5, T11
    return np.vstack([np.cos(PI * x), -PI * np.sin(PI * x)])


def left_layer(x, e):  # T4
    rate = (1 + e) / e
    slow, fast = np.exp(x - 1), np.exp(-rate * (1 + x))
    return np.vstack([slow + fast, slow - rate * fast])


def error_function(x, e):
    """erf(x/√(2ε))/erf(1/√(2ε)) and its derivative."""
    a = 1 / np.sqrt(2 * e)
    return np.vstack([erf(a * x), 2 * a / np.sqrt(PI) * np.exp(-((a * x) ** 2))]) / erf(a)


def corner(x, e):  # T7
    a = 1 / np.sqrt(2 * e)
    bump = np.exp(-((a * x) ** 2)) / (a * np.sqrt(PI))
    scale = erf(a) + np.exp(-a * a) / (a * np.sqrt(PI))
    return cosine(x, e) + np.vstack([x + (x * erf(a * x) + bump) / scale, 1 + erf(a * x) / scale])


def rise(x, e):  # T8
    fast, scale = np.exp(-x / e), 1 - np.exp(-1 / e)
    return np.vstack([1 + (1 - fast) / scale, fast / (e * scale)])


def spike(x, e):  # T9
    return np.vstack([1 / (e + x**2), -2 * x / (e + x**2) ** 2])


def layers(x, e, left: float, right: float):
    """left·exp(−(1+x)/√ε) + right·exp(−(1−x)/√ε) and its derivative."""
    a = 1 / np.sqrt(e)
    one, two = left * np.exp(-a * (1 + x)), right * np.exp(-a * (1 - x))
    return np.vstack([one + two, a * (two - one)])


def reaction(x, y, u, e):  # T11 to T14
    return (y - (1 + e * PI**2) * np.cos(PI * x)) / e


def sinh_layer(x, e):  # T12: sinh((1 + x)/√ε)/sinh(2/√ε)
    a = 1 / np.sqrt(e)
    scale = 1 - np.exp(-4 * a)
    grown, other = np.exp(a * (x - 1)), np.exp(-a * (x + 3))
    return np.vstack([(grown - other) / scale, a * (grown + other) / scale])


def turning_point(x, e):
    """T15: c₁Ai(z) + c₂Bi(z)/Bi(z₁) with z = x ε^{−1/3}; Ai and Bi scaled against overflow."""
    scale = e ** (-1 / 3)

    def parts(at):
        z = np.atleast_1d(at) * scale
        if not np.iscomplexobj(z):
            z = z.astype(complex)
        ai, aip, _, _ = airy(z)
        bi, bip = _scaled_bi(z, scale)
        return ai, aip, bi, bip

    (a0,), _, (b0,), _ = parts(np.array([-1.0]))
    (a1,), _, (b1,), _ = parts(np.array([1.0]))
    c = np.linalg.solve(np.real([[a0, b0], [a1, b1]]), [1.0, 1.0])
    ai, aip, bi, bip = parts(x)
    y = np.vstack([c[0] * ai + c[1] * bi, scale * (c[0] * aip + c[1] * bip)])
    return y if np.iscomplexobj(x) else y.real


def _scaled_bi(z, top: float):
    """Bi(z) and Bi′(z), times exp(−⅔ top^{3/2}), for |Re z| ≤ top."""
    from scipy.special import airye

    shift = 2 / 3 * top**1.5
    _, _, bi, bip = airye(z)  # times exp(−|Re(⅔ z^{3/2})|)
    back = np.exp(np.abs(np.real(2 / 3 * z * np.sqrt(z))) - shift)
    return bi * back, bip * back


def wave(x, e):  # T16
    a = PI / (2 * e)
    return np.vstack([np.sin(a * x), a * np.cos(a * x)])


def step(x, e):  # T17
    return np.vstack([x / np.sqrt(e + x**2), e / (e + x**2) ** 1.5])


def exponential(x, e):  # T18
    return np.vstack([np.exp(-x / e), -np.exp(-x / e) / e])


# ------------------------------------------------------------------ nonlinear ones


def log_cosh(z):
    """ln cosh z without overflow, also of complex z."""
    up = np.where(np.real(z) < 0, -z, z)
    return up + np.log1p(np.exp(-2 * up)) - np.log(2)


def corner_flow(x, e):  # T20
    return np.vstack([1 + e * log_cosh((x - 0.745) / e), np.tanh((x - 0.745) / e)])


def root_decay(x, e):  # T21
    a = 1 / np.sqrt(e)
    return np.vstack([np.exp(-a * x), -a * np.exp(-a * x)])


def nozzle(x, y, u, e):  # T24
    area, slope = 1 + x**2, 2 * x
    return (
        ((1 + GAMMA) / 2 - e * slope) * y * u - u / y - slope / area * (1 - (GAMMA - 1) / 2 * y**2)
    ) / (e * area * y)


def beam(x, y, e):  # T31: z, θ, M, Q
    z, theta, moment, force = y
    return np.vstack([
        np.sin(theta), moment, -force / e,
        ((z - 1) * np.cos(theta) - moment / np.cos(theta)) / e + e * force * np.tan(theta),
    ])


def channel(x, y, reynolds):  # T32
    return np.vstack([y[1], y[2], y[3], reynolds * (y[1] * y[2] - y[0] * y[3])])


def swirl(x, y, e):  # T33: g, g′, f, f′, f″, f‴
    g, dg, f, df, ddf, dddf = y
    return np.vstack([dg, (g * df - f * dg) / e, df, ddf, dddf, -(f * dddf + g * dg) / e])


def _burgers(name: str, left: float, right: float) -> TestProblem:
    """T25 to T30: εy″ + yy′ − y = 0."""
    return TestProblem(
        name, 2, (0.0, 1.0), second_order(lambda x, y, u, e: (y - y * u) / e), fixed(left, right),
        (1e-1, 1e-2, 1e-3, 1e-4, 1e-5), linear=False, start=line(left, right),
    )  # fmt: skip


_WIDE = (-1.0, 1.0)
_UNIT = (0.0, 1.0)
_LAYER = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)

PROBLEMS: tuple[TestProblem, ...] = (
    TestProblem("T1", 2, _UNIT, second_order(lambda x, y, u, e: y / e), fixed(1, 0), _LAYER,
                exact=decay),
    TestProblem("T2", 2, _UNIT, second_order(lambda x, y, u, e: u / e), fixed(1, 0), _LAYER,
                exact=right_layer),
    TestProblem(
        "T3", 2, _WIDE, second_order(lambda x, y, u, e: (
            y - (2 + np.cos(PI * x)) * u - (1 + e * PI**2) * np.cos(PI * x)
            - (2 + np.cos(PI * x)) * PI * np.sin(PI * x)) / e),
        fixed(-1, -1), _LAYER, exact=cosine),
    TestProblem(
        "T4", 2, _WIDE, second_order(lambda x, y, u, e: ((1 + e) * y - u) / e),
        values(lambda e: 1 + np.exp(-2), lambda e: 1 + np.exp(-2 * (1 + e) / e)), _LAYER,
        exact=left_layer),
    TestProblem(
        "T5", 2, _WIDE, second_order(lambda x, y, u, e: (
            x * u + y - (1 + e * PI**2) * np.cos(PI * x) + PI * x * np.sin(PI * x)) / e),
        fixed(-1, -1), _LAYER, exact=cosine),
    TestProblem(
        "T6", 2, _WIDE, second_order(lambda x, y, u, e: (
            -x * u - e * PI**2 * np.cos(PI * x) - PI * x * np.sin(PI * x)) / e),
        fixed(-2, 0), _LAYER, exact=lambda x, e: cosine(x, e) + error_function(x, e)),
    TestProblem(
        "T7", 2, _WIDE, second_order(lambda x, y, u, e: (
            y - x * u - (1 + e * PI**2) * np.cos(PI * x) - PI * x * np.sin(PI * x)) / e),
        fixed(-1, 1), _LAYER, exact=corner),
    TestProblem("T8", 2, _UNIT, second_order(lambda x, y, u, e: -u / e), fixed(1, 2), _LAYER,
                exact=rise),
    TestProblem(
        "T9", 2, _WIDE, second_order(lambda x, y, u, e: -(4 * x * u + 2 * y) / (e + x**2)),
        values(lambda e: 1 / (1 + e), lambda e: 1 / (1 + e)), _LAYER, exact=spike),
    TestProblem(
        "T10", 2, _WIDE, second_order(lambda x, y, u, e: -x * u / e), fixed(0, 2), _LAYER,
        exact=lambda x, e: error_function(x, e) + np.vstack([1 + 0 * x, 0 * x])),
    TestProblem(
        "T11", 2, _WIDE, second_order(reaction),
        fixed(-1, -1), _LAYER, exact=cosine),
    TestProblem(
        "T12", 2, _WIDE, second_order(reaction),
        fixed(-1, 0), _LAYER, exact=lambda x, e: cosine(x, e) + sinh_layer(x, e)),
    TestProblem(
        "T13", 2, _WIDE, second_order(reaction),
        values(lambda e: 0, lambda e: -1 + np.exp(-2 / np.sqrt(e))), _LAYER,
        exact=lambda x, e: cosine(x, e) + layers(x, e, 1, 0)),
    TestProblem(
        "T14", 2, _WIDE, second_order(reaction),
        values(lambda e: np.exp(-2 / np.sqrt(e)), lambda e: np.exp(-2 / np.sqrt(e))), _LAYER,
        exact=lambda x, e: cosine(x, e) + layers(x, e, 1, 1)),
    TestProblem("T15", 2, _WIDE, second_order(lambda x, y, u, e: x * y / e), fixed(1, 1),
                (1e-1, 1e-2, 1e-3, 1e-4, 1e-5), exact=turning_point),
    TestProblem(
        "T16", 2, _UNIT, second_order(lambda x, y, u, e: -((PI / (2 * e)) ** 2) * y),
        values(lambda e: 0, lambda e: np.sin(PI / (2 * e))), (1 / 3, 1 / 11, 1 / 31, 1 / 101),
        exact=wave),
    TestProblem(
        "T17", 2, (-0.1, 0.1), second_order(lambda x, y, u, e: -3 * e * y / (e + x**2) ** 2),
        values(lambda e: -0.1 / np.sqrt(e + 0.01), lambda e: 0.1 / np.sqrt(e + 0.01)),
        # At ε = 0.01 it is singular: (ε − x²)/√(ε + x²) solves it with 0 at both ends.
        (1e-1, 2e-2, 1e-3, 1e-4, 1e-5, 1e-6), exact=step),
    TestProblem("T18", 2, _UNIT, second_order(lambda x, y, u, e: -u / e),
                values(lambda e: 1, lambda e: np.exp(-1 / e)), _LAYER, exact=exponential),
    TestProblem(
        "T19", 2, _UNIT, second_order(lambda x, y, u, e: (
            PI / 2 * np.sin(PI * x / 2) * np.exp(2 * y) - np.exp(y) * u) / e),
        fixed(0, 0), (1e-1, 1e-2, 1e-3, 1e-4, 1e-5), linear=False),
    TestProblem(
        "T20", 2, _UNIT, second_order(lambda x, y, u, e: (1 - u**2) / e),
        values(lambda e: 1 + e * log_cosh(-0.745 / e), lambda e: 1 + e * log_cosh(0.255 / e)),
        (1e-1, 1e-2, 1e-3, 1e-4, 1e-5), linear=False, exact=corner_flow),
    TestProblem(
        "T21", 2, _UNIT,
        second_order(lambda x, y, u, e: (y + y**2 - np.exp(-2 * x / np.sqrt(e))) / e),
        values(lambda e: 1, lambda e: np.exp(-1 / np.sqrt(e))), _LAYER, linear=False,
        exact=root_decay),
    TestProblem("T22", 2, _UNIT, second_order(lambda x, y, u, e: -(u + y**2) / e), fixed(0, 0.5),
                _LAYER, linear=False),
    TestProblem("T23", 2, _UNIT, second_order(lambda x, y, u, mu: mu * np.sinh(mu * y)),
                fixed(0, 1), (5.0, 10.0, 15.0, 20.0, 30.0), linear=False),
    TestProblem("T24", 2, _UNIT, second_order(nozzle), fixed(0.9129, 0.375),
                (1e-1, 5e-2, 2e-2, 1e-2, 5e-3), linear=False, start=line(0.9129, 0.375)),
    _burgers("T25", -1 / 3, 1 / 3),
    _burgers("T26", 1, -1 / 3),
    _burgers("T27", 1, 1 / 3),
    _burgers("T28", 1, 3 / 2),
    _burgers("T29", 0, 3 / 2),
    _burgers("T30", -7 / 6, 3 / 2),
    TestProblem(
        "T31", 4, _UNIT, beam,
        lambda ya, yb, e: np.array([ya[0], ya[2], yb[0], yb[2]]), (1e-1, 5e-2, 2e-2, 1e-2, 5e-3),
        linear=False),
    TestProblem(
        "T32", 4, _UNIT, channel,
        lambda ya, yb, e: np.array([ya[0], ya[1], yb[0] - 1, yb[1]]),
        (10.0, 100.0, 1000.0, 1e4), linear=False),
    TestProblem(
        "T33", 6, _UNIT, swirl,
        lambda ya, yb, e: np.array([ya[0] + 1, ya[2], ya[3], yb[0] - 1, yb[2], yb[3]]),
        (1e-1, 1e-2, 1e-3, 1e-4, 1e-5), linear=False),
)
