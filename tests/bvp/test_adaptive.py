"""`solve_bvp` finds known answers from SciPy's arguments, in functions of every kind."""

import importlib.util
import signal
import sys
import time
from pathlib import Path

import casadi
import numba
import numpy as np
import pytest
from scipy.integrate import quad

import hamshoot as hs
from hamshoot.bvp.adaptive import MESSAGES
from hamshoot.bvp.functions import Ends, Field

BENCHMARKS = Path(__file__).parents[2] / "demos" / "benchmarks"
solve_bvp = hs.bvp.solve_bvp


def benchmark(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


scipy_tests = benchmark("scipy_tests")
SCIPYS = scipy_tests.scipy_tests()
needs_scipys = pytest.mark.skipif(SCIPYS is None, reason="SciPy is installed without its tests")


def grown(x, y):
    """ÿ = y."""
    return np.vstack([y[1], y[0]])


def grown_ends(ya, yb):
    return np.array([ya[0] - 1, yb[0]])


def grown_exact(x):
    return np.vstack([np.sinh(1 - x), -np.cosh(1 - x)]) / np.sinh(1)


def pendulum(x, y):
    return np.vstack([y[1], -np.sin(y[0])])


def pendulum_ends(ya, yb):
    return np.array([ya[0], yb[0] - 1])


def solve_pendulum(fun=pendulum, bc=pendulum_ends, tol=1e-9, **options):
    x = np.linspace(0, 2, 6)
    return solve_bvp(fun, bc, x, np.vstack([x / 2, 0 * x + 0.5]), tol=tol, **options)


# ------------------------------------------------------------------ SciPy's tests


@needs_scipys
@pytest.mark.parametrize(
    "name", [] if SCIPYS is None else sorted(set(scipy_tests.tests_of(SCIPYS)))
)
def test_scipys_tests_pass_but_those_documented(name, capsys):
    test = scipy_tests.tests_of(SCIPYS)[name]
    if name in scipy_tests.DIFFERENT:
        with pytest.raises(AssertionError):
            test()
    else:
        test()


def test_what_scipys_test_of_failures_asks_for_holds_at_our_order():
    few = solve_bvp(grown, grown_ends, [0, 1], np.zeros((2, 2)), tol=1e-5, max_nodes=5)
    assert few.success
    assert few.x.size < 5
    none = solve_bvp(grown, grown_ends, [0, 1], np.zeros((2, 2)), tol=1e-13, max_nodes=2)
    assert (none.status, none.success) == (1, False)
    singular = solve_bvp(
        lambda x, y: 0 * y, grown_ends, np.linspace(0, 1, 5), np.zeros((2, 5))
    )
    assert (singular.status, singular.success) == (2, False)
    assert singular.message == MESSAGES[2]


# ------------------------------------------------------------------ accuracy


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9, 1e-12])
def test_tolerance_is_met_where_it_was_not_looked_at(tol):
    result = solve_pendulum(tol=tol)
    at = np.random.default_rng(0).uniform(0, 2, 500)
    residual = result.sol(at, 1) - pendulum(at, result.sol(at))
    assert abs(residual).max() <= 4 * tol  # the root mean square of a segment is what is bounded
    assert (result.rms_residuals <= tol).all()
    energy = result.sol(at)[1] ** 2 / 2 - np.cos(result.sol(at)[0])
    assert np.ptp(energy) <= 10 * tol


def test_result_is_scipys():
    from scipy.integrate import solve_bvp as scipys

    x = np.linspace(0, 1, 5)
    ours, theirs = (
        f(grown, grown_ends, x, np.zeros((2, 5)), tol=1e-5) for f in (solve_bvp, scipys))
    assert set(ours) == set(theirs)
    assert type(ours.sol) is type(theirs.sol)
    assert ours.sol.c.ndim == theirs.sol.c.ndim == 3
    for name in ("y", "yp"):
        np.testing.assert_allclose(getattr(ours, name)[:, [0, -1]],
                                   getattr(theirs, name)[:, [0, -1]], atol=1e-5)
    assert ours.p is theirs.p is None
    assert np.shape(ours.sol(0.3)) == np.shape(theirs.sol(0.3)) == (2,)
    assert np.shape(ours.sol(x)) == np.shape(theirs.sol(x))


def test_solution_is_continuous_with_its_derivative():
    result = solve_pendulum(tol=1e-6)
    inner = result.x[1:-1]
    for order in (0, 1):
        left, right = (result.sol(inner + s * 1e-12, order) for s in (-1, 1))
        np.testing.assert_allclose(left, right, atol=1e-10)
    np.testing.assert_allclose(result.sol(result.x), result.y, atol=1e-13)
    np.testing.assert_allclose(result.sol(result.x, 1), pendulum(result.x, result.y), atol=1e-13)


@pytest.mark.parametrize("mu", [5.0, 12.0, 20.0, 30.0])
def test_troeschs_problem_meets_its_quadrature(mu):
    """∫₀¹ dy/√(ẏ(0)² + 2(cosh μy − 1)) = 1, which gives ẏ(0) without an equation solved."""
    x = np.linspace(0, 1, 11)
    result = solve_bvp(
        lambda x, y: np.vstack([y[1], mu * np.sinh(mu * y[0])]),
        lambda ya, yb: np.array([ya[0], yb[0] - 1]), x, np.zeros((2, 11)), tol=1e-8,
    )
    assert result.success, result.message
    slope = result.y[1, 0]

    def pace(z):  # with y = slope sinh(z)/μ, in whose units it is smooth
        y = slope / mu * np.sinh(z)
        return slope / mu * np.cosh(z) / np.sqrt(slope**2 + 4 * np.sinh(mu * y / 2) ** 2)

    travel = quad(pace, 0, np.arcsinh(mu / slope), epsabs=0, epsrel=1e-11, limit=500)[0]
    assert travel == pytest.approx(1, abs=1e-8 if mu < 20 else 1e-5)


def test_unknown_parameters():
    """y = sin 2x + ½, of frequency and offset unknown."""
    x = np.linspace(0, 1, 7)
    result = solve_bvp(
        lambda x, y, p: np.vstack([y[1], -p[0] ** 2 * (y[0] - p[1])]),
        lambda ya, yb, p: np.array(
            [ya[0] - p[1], ya[1] - p[0], yb[0] - np.sin(2) - 0.5, yb[1] - 2 * np.cos(2)]),
        x, np.ones((2, 7)), p=[1.5, 0.1], tol=1e-10,
    )  # fmt: skip
    assert result.success
    np.testing.assert_allclose(result.p, [2, 0.5], atol=1e-9)
    np.testing.assert_allclose(result.sol(0.37)[0], np.sin(0.74) + 0.5, atol=1e-9)


def test_singular_term():
    """Emden's equation, (x²ẏ)˙/x² = −y⁵, with y = (1 + x²/3)^(−1/2)."""
    x = np.linspace(0, 1, 6)
    result = solve_bvp(
        lambda x, y: np.vstack([y[1], -y[0] ** 5]),
        lambda ya, yb: np.array([ya[1], yb[0] - np.sqrt(3 / 4)]),
        x, np.vstack([0 * x + 0.9, 0 * x]), S=[[0, 0], [0, -2]], tol=1e-9,
    )
    assert result.success
    at = np.linspace(0, 1, 101)
    np.testing.assert_allclose(result.sol(at)[0], (1 + at**2 / 3) ** -0.5, atol=1e-9)


def test_the_given_nodes_stay():
    x = np.array([0.0, 0.123, 0.9, 1.0])
    result = solve_bvp(lambda x, y: np.vstack([y[1], 1e4 * y[0]]), grown_ends, x, np.zeros((2, 4)))
    assert result.success
    assert result.x.size > 8
    assert np.isin(x, result.x).all()


def test_meshes_follow_a_layer():
    """εÿ = y: most nodes in the layer at 0, of width √ε."""
    result = solve_bvp(
        lambda x, y: np.vstack([y[1], 1e6 * y[0]]), grown_ends, np.linspace(0, 1, 6),
        np.zeros((2, 6)), tol=1e-6,
    )  # fmt: skip
    assert np.mean(result.x < 0.02) > 0.7
    at = np.linspace(0, 0.01, 50)
    np.testing.assert_allclose(result.sol(at)[0], np.exp(-1e3 * at), atol=1e-7)


# ------------------------------------------------------------------ kinds of functions


@numba.njit
def compiled(x, y):
    out = np.empty(2)
    out[0], out[1] = y[1], -np.sin(y[0])
    return out


@numba.njit
def compiled_many(x, y):
    out = np.empty_like(y)
    out[0], out[1] = y[1], -np.sin(y[0])
    return out


def one_point(x, y):
    import math

    return [y[1], -math.sin(y[0])]


def casadi_pendulum():
    x, y = casadi.MX.sym("x"), casadi.MX.sym("y", 2)
    return casadi.Function("f", [x, y], [casadi.vertcat(y[1], -casadi.sin(y[0]))])


@pytest.mark.parametrize(
    "fun", [compiled, compiled_many, one_point, casadi_pendulum()],
    ids=["numba, a point", "numba, many", "Python, a point", "CasADi"],
)
def test_every_kind_of_right_hand_side_gives_the_same(fun):
    expected, found = solve_pendulum(), solve_pendulum(fun)
    assert found.success
    np.testing.assert_allclose(found.y[:, [0, -1]], expected.y[:, [0, -1]], atol=1e-10)


def test_casadi_boundary_functions_and_parameters():
    x, y, p = casadi.MX.sym("x"), casadi.MX.sym("y", 2), casadi.MX.sym("p")
    ya, yb = casadi.MX.sym("ya", 2), casadi.MX.sym("yb", 2)
    fun = casadi.Function("f", [x, y, p], [casadi.vertcat(y[1], -(p**2) * y[0])])
    bc = casadi.Function("g", [ya, yb, p], [casadi.vertcat(ya[0], yb[0], ya[1] - p)])
    t = np.linspace(0, np.pi, 5)
    result = solve_bvp(fun, bc, t, np.ones((2, 5)), p=[0.5], tol=1e-10)
    assert result.success
    np.testing.assert_allclose(result.p, 1, atol=1e-9)


def test_derivatives_are_exact_from_casadi_and_close_by_differences():
    rng = np.random.default_rng(0)
    x, y, p = casadi.MX.sym("x"), casadi.MX.sym("y", 3), casadi.MX.sym("p", 2)
    value = casadi.vertcat(p[0] * y[0] * y[1], casadi.sin(y[2]) * x, p[1] * y[0] ** 2 + p[0])
    function = casadi.Function("f", [x, y, p], [value])
    t, states, q = rng.random(5), rng.standard_normal((5, 3)), rng.standard_normal(2)

    def plain(x, y, p):
        return np.vstack([p[0] * y[0] * y[1], np.sin(y[2]) * x, p[1] * y[0] ** 2 + p[0]])

    exact, close = (Field(f, None, 0.0, 2, None, float) for f in (function, plain))
    np.testing.assert_allclose(exact(t, states, q), close(t, states, q), rtol=1e-14)
    step = 1e-30  # complex, by which derivatives are exact
    for found, tol in ((exact.slopes(t, states, q), 1e-14), (close.slopes(t, states, q), 1e-6)):
        for j in range(3):
            moved = states.T + 1j * step * np.eye(3)[:, [j]]
            np.testing.assert_allclose(
                found[0][:, :, j].T, plain(t, moved, q).imag / step, atol=tol)
        for j in range(2):
            moved = plain(t, states.T, q + 1j * step * np.eye(2)[j]).imag / step
            np.testing.assert_allclose(found[1][:, :, j].T, moved, atol=tol)


def test_derivatives_of_boundary_conditions_by_differences():
    ends = Ends(lambda a, b, p: np.array([a[0] ** 2, b[1] * a[1], p[0] * b[0]]), None, 2, 1, float)
    found = ends.slopes(np.array([2.0, 3]), np.array([5.0, 7]), np.array([11.0]))
    expected = [[4, 0, 0, 0, 0], [0, 7, 0, 3, 0], [0, 0, 11, 0, 5]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_exact_derivatives_of_the_user_are_used():
    def slopes(x, y):
        seen.append(x.size)
        out = np.zeros((2, 2, x.size))
        out[0, 1], out[1, 0] = 1, -np.cos(y[0])
        return out

    seen = []
    with_them = solve_pendulum(fun_jac=slopes, bc_jac=lambda ya, yb: ([[1, 0], [0, 0]],
                                                                      [[0, 0], [1, 0]]))
    assert seen
    np.testing.assert_allclose(with_them.y[:, 0], solve_pendulum().y[:, 0], atol=1e-10)


# ------------------------------------------------------------------ failures


def test_no_solution_is_said():
    """ÿ = −4 eʸ has none with y = 0 at both ends: the fold is at 3.5138."""
    x = np.linspace(0, 1, 6)
    result = solve_bvp(
        lambda x, y: np.vstack([y[1], -4 * np.exp(y[0])]),
        lambda ya, yb: np.array([ya[0], yb[0]]), x, np.zeros((2, 6)), max_nodes=40)
    assert not result.success
    assert result.message == MESSAGES[result.status]
    assert result.status in (1, 2, 5)


def interrupted(at, **options):
    """The pendulum's problem, with Ctrl-C at a call of its right-hand side."""
    def fun(x, y):
        calls.append(x.size)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return pendulum(x, y)

    calls = []
    return solve_pendulum(fun, **options)


def test_ctrl_c_keeps_the_best_iterate():
    exact = solve_pendulum(tol=1e-9)
    gaps = []
    for at in (8, 20):
        result = interrupted(at, tol=1e-9)
        assert (result.status, result.success, result.message) == (7, False, MESSAGES[7])
        assert result.rms_residuals.max() > 1e-9
        gaps.append(np.abs(result.sol(0.5) - exact.sol(0.5)).max())
    assert gaps[1] < 1e-3 * gaps[0]
    assert gaps[1] < 1e-5
    with pytest.raises(KeyboardInterrupt):  # nothing is there yet
        interrupted(1)


def test_ctrl_c_on_the_way_from_an_easier_problem_tells_residuals_of_the_problem_itself():
    def fun(x, y):
        calls.append(x.size)
        if len(calls) == 300:
            signal.raise_signal(signal.SIGINT)
        return np.vstack([y[1], 40 * np.sinh(40 * y[0])])

    calls = []
    x = np.linspace(0, 1, 5)
    result = solve_bvp(fun, lambda ya, yb: np.array([ya[0], yb[0] - 1]), x, np.zeros((2, 5)))
    assert len(calls) > 300
    assert result.status == 7
    at = np.linspace(0, 1, 1001)[1:-1]
    f = fun(at, result.sol(at))
    lack = np.abs((result.sol(at, 1) - f) / (1 + np.abs(f))).max()
    assert result.rms_residuals.max() > 0.1 * lack


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_a_right_hand_side_may_jump_at_a_node(strict, exact):
    """ÿ = y up to ½ and 4y beyond, y(0) = 1 and y(1) = 0: ẏ/y = −2 coth 1 at ½ from both sides."""
    def rate(x):
        return np.where(x < 0.5 if strict else x <= 0.5, 1.0, 4.0)

    def slopes(x, y):
        zero, one = np.zeros(x.size), np.ones(x.size)
        return np.array([[zero, one], [rate(x), zero]])

    def solved(nodes):
        x = np.linspace(0, 1, nodes)
        return solve_bvp(lambda x, y: np.vstack([y[1], rate(x) * y[0]]),
                         lambda ya, yb: np.array([ya[0] - 1, yb[0]]), x, np.zeros((2, nodes)),
                         fun_jac=slopes if exact else None, tol=1e-9)

    result, there = solved(3), -2 / np.tanh(1.0)
    slope = -(np.sinh(0.5) - there * np.cosh(0.5)) / (np.cosh(0.5) - there * np.sinh(0.5))
    assert result.success
    assert result.x.size < 12
    assert result.y[1, 0] == pytest.approx(slope, rel=1e-9)
    at = np.array([0.5 - 1e-9, 0.5 + 1e-9])  # the second derivative jumps
    assert result.sol(at, 1)[1] / result.sol(at)[0] == pytest.approx([1, 4], rel=1e-6)
    other = solved(4)
    assert other.status == 1
    assert "make such a place a node of x" in other.message


def test_a_parameter_is_found_beyond_a_jump():
    """ẏ = p up to ½ and 3p beyond, y(0) = 0 and y(1) = 2, is met by p = 1."""
    x = np.array([0.0, 0.5, 1.0])
    result = solve_bvp(lambda x, y, p: p * np.where(x < 0.5, 1.0, 3.0)[None],
                       lambda ya, yb, p: np.array([ya[0], yb[0] - 2]), x, np.zeros((1, 3)), [0.3])
    assert result.success
    assert result.p[0] == pytest.approx(1.0, rel=1e-12)
    assert result.sol(0.5)[0] == pytest.approx(0.5, rel=1e-12)


def test_time_limit_is_kept():
    def slow(x, y):
        calls.append(x.size)
        time.sleep(0.02)
        return pendulum(x, y)

    calls = []
    result = solve_pendulum(slow, time_limit=0.05)
    assert (result.status, result.success) == (4, False)
    assert len(calls) <= 12  # it is over by the third, and the rest give the result its fields
    assert np.isfinite(result.y).all()


def test_functions_that_are_not_finite_are_named():
    with np.errstate(all="ignore"):
        result = solve_bvp(lambda x, y: np.log(y), lambda ya, yb: ya - 2, [0, 1], [[-1, -1]])
    assert result.status == 6
    assert solve_bvp(lambda x, y: np.log(y), lambda ya, yb: ya - 2, [0, 1], [[1, 1]]).success


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [0, 0]}, "x: expected at least two finite, strictly increasing"),
        ({"x": [0]}, "x: expected at least two"),
        ({"y": np.zeros((2, 3))}, r"y: expected shape \(n, 2\)"),
        ({"y": np.full((2, 2), np.nan)}, "y: expected finite"),
        ({"p": [[1]]}, "p: expected one dimension"),
        ({"S": [[1]]}, r"S: expected shape \(2, 2\)"),
        ({"verbose": 3}, "verbose: expected 0, 1 or 2"),
        ({"tol": 0}, "tol: expected a number > 0"),
        ({"bc_tol": -1}, "bc_tol: expected a number > 0"),
        ({"max_nodes": 1}, "max_nodes: expected"),
        ({"time_limit": 0}, "time_limit: expected"),
        ({"fun": lambda x, y: np.zeros(3)}, r"fun: expected an array of shape \(2, 2\)"),
        ({"bc": lambda ya, yb: np.zeros(3)}, r"bc: expected an array of shape \(2,\)"),
        ({"fun_jac": lambda x, y: np.zeros((2, 2))}, "fun_jac: expected df_dy of shape"),
        ({"bc_jac": lambda ya, yb: (np.eye(2), np.eye(3))}, "bc_jac: expected arrays of shapes"),
    ],
    ids=lambda v: "" if isinstance(v, dict) else v.split(":")[0],
)
def test_bad_input_is_named(change, message):
    given = {"fun": grown, "bc": grown_ends, "x": [0.0, 1.0], "y": np.zeros((2, 2))}
    with pytest.raises(ValueError, match=message):
        solve_bvp(**{**given, **change})


def test_a_casadi_function_of_other_inputs_is_refused():
    y = casadi.MX.sym("y", 2)
    with pytest.raises(ValueError, match=r"fun: expected a casadi\.Function of x and y"):
        solve_bvp(casadi.Function("f", [y], [y]), grown_ends, [0, 1], np.zeros((2, 2)))


def test_a_tolerance_below_rounding_is_raised_with_a_warning():
    with pytest.warns(UserWarning, match="tol is too low"):
        solve_bvp(grown, grown_ends, [0, 1], np.zeros((2, 2)), tol=1e-17, max_nodes=30)
