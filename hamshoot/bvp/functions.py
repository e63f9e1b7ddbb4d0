"""What a user of `hamshoot.bvp.adaptive` hands over, as arrays: f, its boundary function, slopes.

Right-hand sides come in four kinds, which one call tells apart:

* vectorised, as SciPy's: ``fun(x, y)`` for x of shape (m,) and y of shape (n, m);
* of one point: ``fun(x, y)`` for a number x and y of shape (n,), called in a loop;
* compiled by numba, of either kind; those of one point are looped over by compiled code too;
* a `casadi.Function` of x, y and, if there are any, p; its derivatives are exact.

Inside, points are rows: y is (P, n), f is (P, n), ∂f/∂y is (P, n, n) and ∂f/∂p is (P, n, k).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

_STEP = float(np.sqrt(np.finfo(float).eps))  # of forward differences, relative to 1 + |y|


class Field:
    """f(x, y, p) + S y/(x − a), with its derivatives, at rows of points.

    Parameters
    ----------
    fun, fun_jac : callable, or casadi.Function and None
        As of `hamshoot.bvp.adaptive.solve_bvp`.
    start : float
        a.
    parameters : int
        k; with 0 the functions take no p.
    singular : ndarray, shape (n, n), optional
        S. At x = a the term is S y′(a), so that f(a) is (I − S)⁻¹ of what `fun` says.
    dtype : type
        float or complex.

    Attributes
    ----------
    calls, points : int
        Calls of `fun`, and points it was evaluated at, differences among them.
    """

    def __init__(
        self,
        fun: Any,
        fun_jac: Any,
        start: float,
        parameters: int,
        singular: NDArray | None,
        dtype: type,
    ) -> None:
        self.start, self.k, self.singular, self.dtype = start, parameters, singular, dtype
        self.calls = self.points = 0
        self.factors: NDArray | None = None  # (n,), of the components of f, for continuation
        if singular is not None:
            self.at_start = np.linalg.pinv(np.eye(len(singular)) - singular)
        self.derivative = fun_jac
        if is_casadi(fun):
            self.derivative = fun_jac or _casadi_slopes(fun, parameters, "fun")
            fun = _casadi_values(fun, parameters, "fun")
        self.fun = fun

    def recognise(self, x: NDArray, y: NDArray, p: NDArray) -> None:
        """See at points x (P,) with states y (P, n) whether `fun` takes many points or one.

        Raises
        ------
        ValueError
            If what it returns has neither shape.
        """
        expected = y.T.shape
        several: Any
        try:
            several = np.shape(self._raw(self.fun, x, y.T, p))
        except (IndexError, ValueError, TypeError) as error:
            several = error
        except Exception as error:
            if not _of_numba(error):
                raise
            several = error
        if several == expected:
            return
        one: Any = None
        try:
            one = np.shape(self._raw(self.fun, float(x[0]), np.ascontiguousarray(y[0]), p))
        except (IndexError, ValueError, TypeError) as error:
            one = error
        except Exception as error:
            if not _of_numba(error):
                raise
            one = error
        if one in (expected[:1], (*expected[:1], 1)):
            self.fun = _looped(self.fun, bool(self.k), self.dtype)
            return
        raise ValueError(
            f"fun: expected an array of shape {expected} for x of shape {x.shape} and y of shape "
            f"{expected}, or one of shape {expected[:1]} for one point; it gave "
            f"{_said(several)}, and for one point {_said(one)}"
        )

    def __call__(self, x: NDArray, y: NDArray, p: NDArray) -> NDArray:
        """f at points x (P,) and states y (P, n)."""
        f = self._plain(x, y, p)
        if self.singular is not None:
            f = self._with_term(x, y, f)
        return f if self.factors is None else self.factors * f

    def slopes(self, x: NDArray, y: NDArray, p: NDArray) -> tuple[NDArray, NDArray]:
        """∂f/∂y (P, n, n) and ∂f/∂p (P, n, k), by the user's function or forward differences."""
        count, n = y.shape
        if self.derivative is None:
            by_y, by_p = self._differences(x, y, p)
        else:
            given = self._raw(self.derivative, x, y.T, p)
            by_y, by_p = given if self.k else (given, np.zeros((n, 0, count)))
            by_y, by_p = np.asarray(by_y, self.dtype), np.asarray(by_p, self.dtype)
            for name, value, shape in (
                ("df_dy", by_y, (n, n, count)), ("df_dp", by_p, (n, self.k, count))
            ):
                if value.shape != shape:
                    raise ValueError(
                        f"fun_jac: expected {name} of shape {shape}, got {value.shape}"
                    )
            by_y, by_p = np.moveaxis(by_y, 2, 0), np.moveaxis(by_p, 2, 0)
        if self.singular is not None:
            by_y, by_p = self._slopes_with_term(x, by_y, by_p)
        if self.factors is None:
            return by_y, by_p
        return self.factors[:, None] * by_y, self.factors[:, None] * by_p

    def jumps(self, x: NDArray, y: NDArray, p: NDArray) -> NDArray:
        """The points of x (P,) at which f is another just before than just beyond, (J,).

        Looked at with states y (P, n), and with 1 more and less, since at a guess of zero what is
        proportional to states hides.
        """
        sides = [np.nextafter(x, -np.inf), np.nextafter(x, np.inf)]
        states = [y + shift for shift in (0.0, 1.0, -1.0)]
        with np.errstate(all="ignore"):
            f = self._plain(np.tile(np.concatenate(sides), 3),
                            np.concatenate([np.tile(part, (2, 1)) for part in states]), p)
        f = f.reshape(3, 2, len(x), -1)
        apart = np.abs(f[:, 1] - f[:, 0]) > _STEP * (1 + np.abs(f).max(1))
        return x[apart.any((0, 2))]

    def sizes(self, x: NDArray, y: NDArray, p: NDArray) -> NDArray:
        """Largest |f_i| + Σ_j |∂f_i/∂y_j|(1 + |y_j|) over the points, shape (n,)."""
        with np.errstate(all="ignore"):
            by_y, _ = self.slopes(x, y, p)
            size = np.abs(self(x, y, p)) + (np.abs(by_y) @ (1 + np.abs(y))[..., None])[..., 0]
        return np.where(np.isfinite(size), size, 0).max(0)

    def _plain(self, x: NDArray, y: NDArray, p: NDArray) -> NDArray:
        """What `fun` says, (P, n)."""
        self.calls += 1
        self.points += x.size
        value: NDArray = np.asarray(self._raw(self.fun, x, y.T, p), self.dtype)
        if value.shape != y.T.shape:
            raise ValueError(f"fun: expected an array of shape {y.T.shape}, got {value.shape}")
        return value.T

    def _raw(self, function: Any, x: Any, y: NDArray, p: NDArray) -> Any:
        return function(x, y, p) if self.k else function(x, y)

    def _with_term(self, x: NDArray, y: NDArray, f: NDArray) -> NDArray:
        assert self.singular is not None  # it is asked for only then
        away, f = x > self.start, f.copy()
        f[away] += y[away] @ self.singular.T / (x[away] - self.start)[:, None]
        f[~away] = f[~away] @ self.at_start.T
        return f

    def _slopes_with_term(
        self, x: NDArray, by_y: NDArray, by_p: NDArray
    ) -> tuple[NDArray, NDArray]:
        assert self.singular is not None  # as above
        away, by_y, by_p = x > self.start, by_y.copy(), by_p.copy()
        by_y[away] += self.singular / (x[away] - self.start)[:, None, None]
        by_y[~away], by_p[~away] = self.at_start @ by_y[~away], self.at_start @ by_p[~away]
        return by_y, by_p

    def _differences(self, x: NDArray, y: NDArray, p: NDArray) -> tuple[NDArray, NDArray]:
        here = self._plain(x, y, p)
        by_y = np.empty((*y.shape, y.shape[1]), self.dtype)
        for j in range(y.shape[1]):
            moved = y.copy()
            moved[:, j] += _STEP * (1 + np.abs(y[:, j]))
            by_y[:, :, j] = (self._plain(x, moved, p) - here) / (moved[:, j] - y[:, j])[:, None]
        by_p = np.empty((*y.shape, self.k), self.dtype)
        for j in range(self.k):
            other = p.copy()
            other[j] += _STEP * (1 + abs(p[j]))
            by_p[:, :, j] = (self._plain(x, y, other) - here) / (other[j] - p[j])
        return by_y, by_p


class Ends:
    """The boundary function g(y(a), y(b), p), n + k conditions, and its derivatives.

    `bc` and `bc_jac` as of `hamshoot.bvp.adaptive.solve_bvp`; n states, k parameters.
    """

    def __init__(self, bc: Any, bc_jac: Any, n: int, parameters: int, dtype: type) -> None:
        self.n, self.k, self.dtype = n, parameters, dtype
        self.derivative = bc_jac
        if is_casadi(bc):
            self.derivative = bc_jac or _casadi_end_slopes(bc, parameters)
            bc = _casadi_ends(bc, parameters)
        self.bc = bc

    def __call__(self, ya: NDArray, yb: NDArray, p: NDArray) -> NDArray:
        """g, shape (n + k,)."""
        value: NDArray = np.asarray(self.bc(ya, yb, p) if self.k else self.bc(ya, yb), self.dtype)
        if value.shape != (self.n + self.k,):
            raise ValueError(
                f"bc: expected an array of shape {(self.n + self.k,)}, a condition for each state "
                f"and each parameter, got {value.shape}"
            )
        return value

    def slopes(self, ya: NDArray, yb: NDArray, p: NDArray) -> NDArray:
        """Derivatives by y(a), y(b) and p side by side, shape (n + k, 2n + k)."""
        if self.derivative is None:
            return self._differences(ya, yb, p)
        given = self.derivative(ya, yb, p) if self.k else self.derivative(ya, yb)
        parts: list[NDArray] = [np.asarray(part, self.dtype) for part in given]
        shapes = [(self.n + self.k, width) for width in (self.n, self.n, self.k)]
        found, wanted = [part.shape for part in parts], shapes[: 3 if self.k else 2]
        if found != wanted:
            raise ValueError(f"bc_jac: expected arrays of shapes {wanted}, got {found}")
        return np.concatenate(parts, axis=1)

    def _differences(self, ya: NDArray, yb: NDArray, p: NDArray) -> NDArray:
        z, n = np.concatenate([ya, yb, p]), self.n
        here = self(ya, yb, p)
        out: NDArray = np.empty((here.size, z.size), self.dtype)
        for j in range(z.size):
            moved = z.copy()
            moved[j] += _STEP * (1 + abs(z[j]))
            there = self(moved[:n], moved[n : 2 * n], moved[2 * n :])
            out[:, j] = (there - here) / (moved[j] - z[j])
        return out


def is_casadi(function: Any) -> bool:
    """Whether it is a `casadi.Function`, without importing CasADi for what is none."""
    return type(function).__module__.partition(".")[0] == "casadi"


def _of_numba(error: Exception) -> bool:
    """Whether numba could not compile a function for the types it was called with."""
    return type(error).__module__.partition(".")[0] == "numba"


def _said(outcome: Any) -> str:
    if isinstance(outcome, tuple):
        return f"shape {outcome}"
    return f"{type(outcome).__name__} ({str(outcome).strip().splitlines()[0][:80]})" \
        if str(outcome).strip() else type(outcome).__name__


def _looped(fun: Any, with_p: bool, dtype: type) -> Callable[..., NDArray]:
    """A vectorised right-hand side from one of a point; compiled, if that one is."""
    if hasattr(fun, "py_func"):
        return _compiled_loop(fun, with_p)

    def looped(x: NDArray, y: NDArray, *p: NDArray) -> NDArray:
        out: NDArray = np.empty(y.shape, dtype)
        for i in range(x.size):
            out[:, i] = np.reshape(fun(float(x[i]), y[:, i].copy(), *p), y.shape[0])
        return out

    return looped


def _compiled_loop(fun: Any, with_p: bool) -> Callable[..., NDArray]:
    import numba

    def with_parameters(x: NDArray, y: NDArray, p: NDArray) -> NDArray:
        out = np.empty_like(y)
        for i in range(x.size):
            out[i] = fun(x[i], y[i], p)
        return out

    def without(x: NDArray, y: NDArray) -> NDArray:
        out = np.empty_like(y)
        for i in range(x.size):
            out[i] = fun(x[i], y[i])
        return out

    rows = numba.njit(with_parameters if with_p else without)

    def looped(x: NDArray, y: NDArray, *p: NDArray) -> NDArray:
        return cast(NDArray, rows(x, np.ascontiguousarray(y.T), *p)).T

    return looped


# ------------------------------------------------------------------ CasADi


def _check_inputs(function: Any, expected: int, name: str, what: str) -> None:
    if function.n_in() != expected or function.n_out() != 1:
        raise ValueError(
            f"{name}: expected a casadi.Function of {what} with one output, got "
            f"{function.n_in()} inputs and {function.n_out()} outputs"
        )


def _casadi_values(fun: Any, k: int, name: str) -> Callable[..., NDArray]:
    _check_inputs(fun, 3 if k else 2, name, "x, y and p" if k else "x and y")

    def values(x: Any, y: NDArray, *p: NDArray) -> NDArray:
        many = np.atleast_1d(x)
        columns = [np.tile(v[:, None], many.size) for v in p]
        return np.asarray(fun(many[None], np.reshape(y, (-1, many.size)), *columns))

    return values


def _casadi_slopes(fun: Any, k: int, name: str) -> Callable[..., Any]:
    import casadi

    symbols = [casadi.MX.sym(f"v{i}", *fun.size_in(i)) for i in range(fun.n_in())]
    value = fun(*symbols)
    wanted = [casadi.densify(casadi.jacobian(value, s)) for s in symbols[1:]]
    # One column of derivatives a point: a call with many columns is mapped over them.
    inner = casadi.Function("slopes", symbols, [casadi.vec(w) for w in wanted])

    def slopes(x: NDArray, y: NDArray, *p: NDArray) -> Any:
        columns = [np.tile(v[:, None], x.size) for v in p]
        flat = inner(x[None], y, *columns)
        flat = flat if k else (flat,)
        found = [np.reshape(np.asarray(v), (y.shape[0], -1, x.size), order="F") for v in flat]
        return tuple(found) if k else found[0]

    return slopes


def _casadi_ends(bc: Any, k: int) -> Callable[..., NDArray]:
    _check_inputs(bc, 3 if k else 2, "bc", "ya, yb and p" if k else "ya and yb")
    return lambda *given: np.asarray(bc(*given)).ravel()


def _casadi_end_slopes(bc: Any, k: int) -> Callable[..., Any]:
    import casadi

    symbols = [casadi.MX.sym(f"v{i}", *bc.size_in(i)) for i in range(bc.n_in())]
    value = casadi.vec(bc(*symbols))
    inner = casadi.Function(
        "slopes", symbols, [casadi.densify(casadi.jacobian(value, s)) for s in symbols]
    )
    return lambda *given: tuple(np.asarray(part) for part in inner(*given))
