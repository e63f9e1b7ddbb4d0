"""σ, σ′ and σ″ of every activation in NumPy, elementwise, analytic where σ is (for complex steps).

Written so that no digits are lost in either tail: what would be a difference of large numbers is
a quotient. `hamshoot.problem.activations` puts names and codes to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.support.checks import brief

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROOT_2, _ROOT_2PI = 2**0.5, (2 * np.pi) ** 0.5


class Formulas(NamedTuple):
    """Functions of z (and, for the family of ReLU, of ε and the negative slope α)."""

    value: Callable[..., NDArray]
    slope: Callable[..., NDArray]
    curvature: Callable[..., NDArray]


class Functions(NamedTuple):
    """What the user gave for an activation: σ, σ′, σ″, and perhaps σ as a CasADi expression."""

    value: Callable[[NDArray], NDArray]
    slope: Callable[[NDArray], NDArray]
    curvature: Callable[[NDArray], NDArray]
    casadi: Callable[[Any], Any] | None = None


def check_functions(functions: Functions) -> None:
    """Raise ValueError unless shapes, derivatives and the CasADi form fit at numbers in [−3, 3]."""
    z, h = np.linspace(-3, 3, 24).reshape(4, 6), 1e-5
    found = {}
    for name in ("value", "slope", "curvature"):
        function = getattr(functions, name)
        if not callable(function):
            raise ValueError(f"{name}: expected a function of an array, got {brief(function)}")
        found[name] = result = np.asarray(function(z.copy()))
        if result.shape != z.shape or result.dtype.kind != "f" or not np.all(np.isfinite(result)):
            raise ValueError(f"{name}: expected finite floats of shape {z.shape} for an array of "
                             f"that shape, got {result.dtype} of shape {result.shape}")
    for name, of in (("slope", functions.value), ("curvature", functions.slope)):
        difference = (of(z + h) - of(z - h)) / (2 * h)
        apart = np.abs(found[name] - difference)
        if np.any(apart > 1e-4 * (1 + np.abs(difference))):
            at = np.unravel_index(np.argmax(apart), z.shape)
            before = "value" if name == "slope" else "slope"
            raise ValueError(f"{name}: expected the derivative of {before}, {difference[at]:.6g} "
                             f"at z = {z[at]:.3g} by differences, got {found[name][at]:.6g}")
    if functions.casadi is not None:
        import casadi

        symbol = casadi.MX.sym("z", *z.shape)
        own = casadi.Function("f", [symbol], [functions.casadi(symbol)])(z).full()
        if own.shape != z.shape or not np.allclose(own, found["value"], rtol=1e-9, atol=1e-12):
            raise ValueError("casadi: expected the same numbers as value gives, got others")


# -- the family of ReLU ----------------------------------------------------------------------------


def _linear(z: NDArray) -> NDArray:
    return z


def _relu(z: NDArray) -> NDArray:
    # z·(z > 0) rather than maximum: it keeps a complex perturbation (complex-step tests).
    return z * (z.real > 0)


def _relu_slope(z: NDArray) -> NDArray:
    return (z.real > 0).astype(z.dtype)


def _smooth_relu(z: NDArray, epsilon: float) -> NDArray:
    s = np.sqrt(z * z + epsilon**2)
    # For z < 0 the equal form ε²/(2(√ − z)) has no cancellation.
    # (The inner where keeps the branch not taken from dividing by zero.)
    negative = z.real < 0
    return np.where(negative, 0.5 * epsilon**2 / np.where(negative, s - z, 1.0), 0.5 * (z + s))


def _smooth_relu_slope(z: NDArray, epsilon: float) -> NDArray:
    s = np.sqrt(z * z + epsilon**2)
    return _smooth_relu(z, epsilon) / s  # (1 + z/s)/2 = σ(z)/s, and σ is free of cancellation


def _smooth_relu_curvature(z: NDArray, epsilon: float) -> NDArray:
    return 0.5 * epsilon**2 / (z * z + epsilon**2) ** 1.5


def _leaky(relu: Callable[..., NDArray], part: Callable[[NDArray], NDArray | float]
           ) -> Callable[..., NDArray]:
    """α of the identity's formula and 1 − α of that of a ReLU."""
    def formula(z: NDArray, *constants: float) -> NDArray:
        *epsilon, alpha = constants
        return alpha * part(z) + (1 - alpha) * relu(z, *epsilon)

    return formula


# -- smooth ones -----------------------------------------------------------------------------------


def _tanh_slope(z: NDArray) -> NDArray:
    # 1 − tanh² = 4e/(1 + e)² with e = e^{−2|z|}.
    e = np.exp(-2 * _size(z))
    return 4 * e / (1 + e) ** 2


def _tanh_curvature(z: NDArray) -> NDArray:
    return -2 * np.tanh(z) * _tanh_slope(z)


def _softplus(z: NDArray) -> NDArray:
    return np.where(z.real < 0, 0.0, z) + np.log1p(np.exp(-_size(z)))


def _logistic(z: NDArray) -> NDArray:
    e = np.exp(-_size(z))
    return np.where(z.real < 0, e, 1.0) / (1 + e)


def _logistic_slope(z: NDArray) -> NDArray:
    e = np.exp(-_size(z))
    return e / (1 + e) ** 2


def _gelu(z: NDArray) -> NDArray:
    return z * _normal(z)


def _gelu_slope(z: NDArray) -> NDArray:
    return _normal(z) + z * _bell(z)


def _gelu_curvature(z: NDArray) -> NDArray:
    return (2 - z * z) * _bell(z)


def _normal(z: NDArray) -> NDArray:
    """Distribution function Φ of the normal distribution; to double precision, also of wider z."""
    from scipy.special import erfc, ndtr

    if np.asarray(z).dtype == np.longdouble:
        return ndtr(np.asarray(z, dtype=float)).astype(np.longdouble)
    return 0.5 * erfc(-z / _ROOT_2) if np.iscomplexobj(z) else ndtr(z)


def _bell(z: NDArray) -> NDArray:
    """Its density φ = Φ′."""
    return np.exp(-0.5 * z * z) / _ROOT_2PI


def _size(z: NDArray) -> NDArray:
    """|z|, kept complex."""
    return np.where(z.real < 0, -z, z)


FORMULAS = {
    "linear": Formulas(_linear, np.ones_like, np.zeros_like),
    "relu": Formulas(_relu, _relu_slope, np.zeros_like),
    "smooth_relu": Formulas(_smooth_relu, _smooth_relu_slope, _smooth_relu_curvature),
    "leaky_relu": Formulas(_leaky(_relu, _linear), _leaky(_relu_slope, np.ones_like),
                           np.zeros_like),
    "smooth_leaky_relu": Formulas(
        _leaky(_smooth_relu, _linear), _leaky(_smooth_relu_slope, np.ones_like),
        _leaky(_smooth_relu_curvature, np.zeros_like)),
    "tanh": Formulas(np.tanh, _tanh_slope, _tanh_curvature),
    "softplus": Formulas(_softplus, _logistic, _logistic_slope),
    "gelu": Formulas(_gelu, _gelu_slope, _gelu_curvature),
}
