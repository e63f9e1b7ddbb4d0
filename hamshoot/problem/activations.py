"""Activations σ with their first two derivatives: NumPy and CasADi forms side by side.

Each has an integer code that the compiled kernels switch on (a function argument would defeat
numba's cache):

=====================  ====  =====================================  ================================
name                   code  σ(z)                                   σ′(z)
=====================  ====  =====================================  ================================
``linear``             0     z                                      1
``relu``               1     max(z, 0)                              1 where z > 0, else 0
``smooth_relu``        2     σ_ε = (z + √(z² + ε²)) / 2             (1 + z / √(z² + ε²)) / 2
``leaky_relu``         3     max(z, αz)                             1 where z > 0, else α
``smooth_leaky_relu``  4     αz + (1 − α) σ_ε(z)                    α + (1 − α) σ_ε′(z)
``tanh``               5     tanh z                                 1 − tanh² z
``softplus``           6     ln(1 + e^z)                            1 / (1 + e^−z)
``gelu``               7     zΦ(z), Φ of the normal distribution    Φ(z) + zφ(z)
=====================  ====  =====================================  ================================

The smooth ReLU tends to ReLU as ε → 0, with σ_ε − σ = O(ε) at the kink and O(ε²/|z|) away from it;
the smooth leaky ReLU to the leaky one. All are evaluated without cancellation in their tails
(`hamshoot.problem.activation_formulas`). Others are made from functions, `Activation.custom`.

A ladder in ε leads to the members of the family of ReLU, codes 1 to 4; the others are smooth as
they are, and need none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hamshoot.problem.activation_formulas import FORMULAS, Formulas, Functions, check_functions
from hamshoot.support.checks import brief, check_positive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.support.names import ActivationName

LINEAR, RELU, SMOOTH_RELU, LEAKY_RELU, SMOOTH_LEAKY_RELU, TANH, SOFTPLUS, GELU = range(8)
#: Of those made from functions, which no kernel knows; these by their names.
CUSTOM = -1
_MADE: dict[str, Functions] = {}
#: Stages of a ladder in ε at most.
MOST_STAGES = 10_000
CODES: dict[ActivationName, int] = {
    "linear": LINEAR, "relu": RELU, "smooth_relu": SMOOTH_RELU, "leaky_relu": LEAKY_RELU,
    "smooth_leaky_relu": SMOOTH_LEAKY_RELU, "tanh": TANH, "softplus": SOFTPLUS, "gelu": GELU}
#: What stands in for those with a kink, and which have ε or a negative slope.
SMOOTHED: dict[str, ActivationName] = {"relu": "smooth_relu", "leaky_relu": "smooth_leaky_relu"}
WITH_EPSILON, WITH_SLOPE = tuple(SMOOTHED.values()), ("leaky_relu", "smooth_leaky_relu")


@dataclass(frozen=True)
class Activation:
    """An activation σ by name; call it for σ(z).

    Parameters
    ----------
    name : {"relu", "smooth_relu", "linear", "leaky_relu", "smooth_leaky_relu", "tanh", \
"softplus", "gelu"} or one made by `custom`
    epsilon : float
        Width ε of the smooth ReLUs; positive for these, 0 for the others.
    negative_slope : float
        α of the leaky ReLUs, 0 < α < 1; 0 for the others.

    Raises
    ------
    ValueError
        If the name is unknown, or ε or α does not fit the name.
    """

    name: ActivationName
    epsilon: float = 0.0
    negative_slope: float = 0.0
    functions: Functions | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        known = isinstance(self.name, str) and (self.name in CODES or self.functions is not None)
        if not known and isinstance(self.name, str) and self.name in _MADE:
            object.__setattr__(self, "functions", _MADE[self.name])
        elif not known:
            raise ValueError(
                f"activation: expected one of {', '.join(sorted(CODES))}, or an "
                f"Activation.custom, got {brief(self.name)}"
            )
        if self.name in WITH_EPSILON and not (self.epsilon > 0 and np.isfinite(self.epsilon)):
            raise ValueError(
                f"epsilon: {self.name} needs a finite number > 0, got {brief(self.epsilon)}"
            )
        if self.name not in WITH_EPSILON and self.epsilon != 0:
            raise ValueError(f"epsilon: only {' and '.join(WITH_EPSILON)} have one, "
                             f"got {brief(self.epsilon)} with {self.name!r}")
        if self.name in WITH_SLOPE and not 0 < self.negative_slope < 1:
            raise ValueError(f"negative_slope: {self.name} needs a number between 0 and 1, got "
                             f"{brief(self.negative_slope)}")
        if self.name not in WITH_SLOPE and self.negative_slope != 0:
            raise ValueError(f"negative_slope: only {' and '.join(WITH_SLOPE)} have one, "
                             f"got {brief(self.negative_slope)} with {self.name!r}")

    @classmethod
    def custom(
        cls, name: str, value: Callable[[NDArray], NDArray], slope: Callable[[NDArray], NDArray],
        curvature: Callable[[NDArray], NDArray], casadi: Callable[[Any], Any] | None = None,
    ) -> Activation:
        """Make an activation of functions; its name then stands for it, also in files read later.

        `DirectSingleShooting` takes it (with its optimiser "lbfgs", which "auto" is then) and,
        with `casadi`, `DirectMultipleShooting`, as do certificates, predictions and figures. Sweeps
        are in NumPy then, not compiled. What is compiled for the activations known says so:
        geodesics, gradient descent, large networks, and exports.

        Parameters
        ----------
        name : str
            A new one.
        value, slope, curvature : callable
            σ, σ′ and σ″ of arrays of any shape, elementwise; smooth, no kink.
        casadi : callable, optional
            σ as a CasADi expression of one.

        Raises
        ------
        ValueError
            If the name is taken by an activation of this module, and where the functions are not
            what they should be at numbers from −3 to 3.
        """
        functions = Functions(value, slope, curvature, casadi)
        if not isinstance(name, str) or not name.isidentifier() or name in CODES:
            raise ValueError(f"name: expected a new name, of letters, digits and _, got "
                             f"{brief(name)}")
        check_functions(functions)
        _MADE[name] = functions
        return cls(cast(Any, name), functions=functions)

    def __call__(self, z: NDArray) -> NDArray:
        """σ(z), elementwise."""
        return self._formulas.value(z, *self._constants)

    def slope(self, z: NDArray) -> NDArray:
        """σ′(z), elementwise; for ReLU 0 at the kink z = 0, for the leaky one α."""
        return self._formulas.slope(z, *self._constants)

    def curvature(self, z: NDArray) -> NDArray:
        """σ″(z), elementwise; where σ has a kink the regular part, 0."""
        if self.name in SMOOTHED:
            return np.zeros_like(z)
        return self._formulas.curvature(z, *self._constants)

    # -- what solvers ask --------------------------------------------------------------------------

    @property
    def code(self) -> int:
        """Integer code of the compiled kernels, see the table of this module."""
        return CUSTOM if self.functions is not None else CODES[self.name]

    @property
    def compiled(self) -> bool:
        """Whether the compiled kernels know it."""
        return self.functions is None

    def check_compiled(self, who: str) -> None:
        """Raise ValueError, in the name of `who`, for an activation made of functions."""
        if not self.compiled:
            raise ValueError(
                f"activation: {self.name!r} is made of functions, which {who} cannot take; "
                "DirectSingleShooting(optimizer='lbfgs') and DirectMultipleShooting can")

    @property
    def constants(self) -> tuple[float, float]:
        """ε and α, as the compiled kernels take them."""
        return float(self.epsilon), float(self.negative_slope)

    @property
    def kinked(self) -> bool:
        """Whether σ′ jumps at 0."""
        return self.name in SMOOTHED

    @property
    def laddered(self) -> bool:
        """Whether a ladder in ε leads to it: ReLU and leaky ReLU, and their smooth forms."""
        return self.kinked or self.name in WITH_EPSILON

    @property
    def scale(self) -> float:
        """Length in z over which σ′ changes: ε of the family of ReLU, 0 of a linear one, else 1."""
        return self.epsilon if self.laddered or self.name == "linear" else 1.0

    def smoothed(self, epsilon: float) -> Activation:
        """The member of the ε ladder that stands in for a ReLU; others are returned unchanged."""
        return self.at(epsilon) if self.kinked else self

    def at(self, epsilon: float) -> Activation:
        """The smooth member of the family at this ε, also of a smooth one; others unchanged."""
        if not self.laddered:
            return self
        return Activation(SMOOTHED.get(self.name, self.name), epsilon, self.negative_slope)

    @property
    def _formulas(self) -> Formulas:
        return FORMULAS[self.name] if self.functions is None else Formulas(*self.functions[:3])

    @property
    def _constants(self) -> tuple[float, ...]:
        """What the formulas take besides z."""
        epsilon = (self.epsilon,) if self.name in WITH_EPSILON else ()
        return (*epsilon, self.negative_slope) if self.name in WITH_SLOPE else epsilon

    def __str__(self) -> str:
        of = [f"ε={self.epsilon:g}"] * bool(self.epsilon) + \
            [f"α={self.negative_slope:g}"] * bool(self.negative_slope)
        return f"{self.name}({', '.join(of)})" if of else self.name


def casadi_forms(sigma: Activation, z: Any, epsilon: Any) -> tuple[Any, Any]:
    """σ(z) and σ′(z) as CasADi expressions, of those made of functions too; ε as a parameter.

    Raises
    ------
    ValueError
        For one made of functions without a CasADi form.
    """
    if sigma.functions is None:
        alpha = sigma.negative_slope
        return (casadi_value(z, sigma.code, epsilon, alpha),
                casadi_slope(z, sigma.code, epsilon, alpha))
    if sigma.functions.casadi is None:
        raise ValueError(f"activation: {sigma.name!r} has no CasADi form, which multiple shooting "
                         "needs; give casadi= to Activation.custom")
    import casadi

    value = sigma.functions.casadi(z)
    return value, casadi.jtimes(value, z, casadi.DM.ones(*z.shape))


def casadi_value(z: Any, code: int, epsilon: Any, negative_slope: float = 0.0) -> Any:
    """σ(z) as a CasADi expression; a symbolic `epsilon` lets one NLP serve a whole ladder."""
    import casadi

    if code == LINEAR:
        return z
    if code == RELU:
        return casadi.fmax(z, 0)
    if code in (LEAKY_RELU, SMOOTH_LEAKY_RELU):
        relu = casadi_value(z, RELU if code == LEAKY_RELU else SMOOTH_RELU, epsilon)
        return negative_slope * z + (1 - negative_slope) * relu
    if code == TANH:
        return casadi.tanh(z)
    if code == SOFTPLUS:  # ln(1 + e^z) without a case, whose derivative at 0 would be a guess
        return 0.5 * z + casadi.log(2 * casadi.cosh(0.5 * z))
    if code == GELU:
        return 0.5 * z * (1 + casadi.erf(z / 2**0.5))
    return 0.5 * (z + _casadi_root(z, epsilon))


def _casadi_root(z: Any, epsilon: Any) -> Any:
    """√(z² + ε²); far below all rounding it stays positive, so that ε = 0 has a slope at the kink.

    That slope of |z| is 0 there, and of ReLU ½, one of Clarke's; without it, it would be 0/0.
    """
    import casadi

    return casadi.sqrt(z * z + epsilon**2 + 1e-300)


def casadi_slope(z: Any, code: int, epsilon: Any, negative_slope: float = 0.0) -> Any:
    """σ′(z) as a CasADi expression."""
    if code == LINEAR:
        return z * 0 + 1
    if code == RELU:
        return z > 0
    import casadi

    if code in (LEAKY_RELU, SMOOTH_LEAKY_RELU):
        relu = casadi_slope(z, RELU if code == LEAKY_RELU else SMOOTH_RELU, epsilon)
        return negative_slope + (1 - negative_slope) * relu
    if code == TANH:
        return 1 - casadi.tanh(z) ** 2
    if code == SOFTPLUS:
        return 0.5 * (1 + casadi.tanh(0.5 * z))
    if code == GELU:
        bell = casadi.exp(-0.5 * z * z) / (2 * np.pi) ** 0.5
        return 0.5 * (1 + casadi.erf(z / 2**0.5)) + z * bell
    return 0.5 * (1 + z / _casadi_root(z, epsilon))


def epsilon_ladder(first: float, last: float, factor: float = 0.5) -> tuple[float, ...]:
    """ε from `first` down to exactly `last`, shrinking by about `factor` a stage (evenly in log ε).

    Raises
    ------
    ValueError
        Unless 0 < last ≤ first and 0 < factor < 1.
    """
    for value in (first, last, factor):
        check_positive("epsilon ladder", value)
    if not 0 < last <= first:
        raise ValueError(f"epsilon ladder: expected 0 < last <= first, got {first!r} to {last!r}")
    if not 0 < factor < 1:
        raise ValueError(f"epsilon ladder: factor must lie in (0, 1), got {factor!r}")
    if np.log(first / last) > -MOST_STAGES * np.log(factor):
        raise ValueError(f"epsilon ladder: expected at most {MOST_STAGES} stages, got more from "
                         f"{first!r} to {last!r} with the factor {factor!r}")
    stages = max(1, int(np.ceil(np.log(last / first) / np.log(factor) - 1e-9))) + 1
    if first == last:
        return (float(first),)
    ladder = np.geomspace(first, last, stages)
    ladder[0], ladder[-1] = first, last
    return tuple(float(e) for e in ladder)
