"""`Sensitivity`: what the derivatives of an optimum are returned as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem.maps import check_fixed
from hamshoot.support.checks import brief

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What an optimum is differentiated by.
SCALARS = ("weight_decay", "effective_depth", "epsilon")
ARRAYS = ("targets", "inputs", "sample_weights")
PARAMETERS = (*SCALARS, *ARRAYS)
_SYMBOLS = {"weight_decay": "λ", "effective_depth": "L̃", "epsilon": "ε", "targets": "Y",
            "inputs": "X", "sample_weights": "ω"}


class NoDerivative(ValueError):
    """The point has no derivatives, or none that can be computed: why, in a sentence."""


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity:
    """Derivatives of an optimum by a parameter θ, along a line θ + t·direction at t = 0. Immutable.

    Attributes
    ----------
    of : str
        One of "weight_decay", "effective_depth", "epsilon", "targets", "inputs", "sample_weights".
    theta : float or ndarray
        θ where the optimum was found: a number, or (N, d_out), (N, d_in) or (N,).
    direction : float, ndarray or None
        Of θ's shape; 1.0 for a number. None for an array without a direction: then only
        `objective` is known, and what belongs to a direction is None.
    value : float
        J at the optimum, J*.
    objective : float or ndarray
        dJ*/dθ, of θ's shape (envelope theorem).
    along : float or None
        dJ*/dt along the direction.
    second : float or None
        d²J*/dt².
    weights : ndarray or None
        dW*/dt, of the shape of `Solution.weights`.
    states, momenta : ndarray or None
        dA*/dt and dB*/dt at the nodes, (M, w, N).
    p : ndarray, shape (M,)
        The nodes.
    steps : ndarray, shape (L,), or None
        Layer steps of a layered network.
    interval : (float, float) or None
        Of a ReLU network with activations on the kink: the t between which, to first order, the
        same activations stay on the kink, active and inactive; infinite where nothing changes. A
        smooth network has (−∞, ∞).
    changes : (str, str) or None
        What changes at either end of the interval, in words; empty where nothing does.
    residual : float
        Largest relative residual of the linear systems that were solved; NaN where none was.
    held : int
        Activations held on the kink.
    how : str
        How it was computed, and what it is a derivative of, in a sentence.
    scaled : bool
        Whether θ is in the scaled units in which the network works; else in the user's, at the
        scaling of the problem.
    extra : dict
        Further numbers of the method.
    """

    of: str
    theta: float | NDArray
    direction: float | NDArray | None
    value: float
    objective: float | NDArray
    along: float | None
    second: float | None
    weights: NDArray | None
    states: NDArray | None
    momenta: NDArray | None
    p: NDArray
    steps: NDArray | None = None
    interval: tuple[float, float] | None = None
    changes: tuple[str, str] | None = None
    residual: float = float("nan")
    held: int = 0
    how: str = ""
    scaled: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    def predict(self, t: float) -> float:
        """J* at θ + t·direction to second order, J* + t dJ*/dt + ½t² d²J*/dt².

        Raises
        ------
        ValueError
            Without a direction.
        """
        if self.along is None or self.second is None:
            raise ValueError(f"predict: expected a sensitivity along a direction, got that of "
                             f"{self.of} without one")
        return float(self.value + t * self.along + 0.5 * t**2 * self.second)

    def stays(self, t: float) -> bool:
        """Whether, to first order, the same activations stay on the kink from 0 to t."""
        low, high = self.interval or (-np.inf, np.inf)
        return bool(low <= t <= high)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; numbers that are not finite are None, arrays nested lists."""
        names = ("of", "theta", "direction", "value", "objective", "along", "second", "weights",
                 "states", "momenta", "p", "steps", "interval", "changes", "residual", "held",
                 "how", "scaled")
        return {name: plain(getattr(self, name)) for name in names}

    def __repr__(self) -> str:
        lines = "\n".join(f"  {name:<11} {text}" for name, text in self._rows())
        symbol = _SYMBOLS.get(self.of, "θ")
        return f"Sensitivity of the optimum to {self.of} ({symbol})\n{lines}"

    def _rows(self) -> list[tuple[str, str]]:
        symbol = _SYMBOLS.get(self.of, "θ")
        theta, objective = np.asarray(self.theta), np.asarray(self.objective)
        array = theta.ndim > 0
        units = "" if self.of not in ("targets", "inputs") else \
            ", scaled units" if self.scaled else ", your units at the problem's scaling"
        rows = [("at", f"{symbol} {theta.shape}{units}" if array else
                 f"{symbol} = {float(theta):.6g}"), ("J*", f"{self.value:.10g}")]
        if array:
            most = np.unravel_index(int(np.argmax(np.abs(objective))), objective.shape)
            place = ", ".join(str(int(i)) for i in most)
            rows.append((f"dJ*/d{symbol}", f"shape {objective.shape}, norm "
                         f"{np.linalg.norm(objective):.6g}, largest {objective[most]:.6g} "
                         f"at ({place})"))
        if self.along is None or self.second is None:
            return [*rows, ("direction", f"none: dW*, dA* and d²J* need one, of shape "
                            f"{theta.shape}")]
        step = "dt" if array else f"d{symbol}"
        rows += [(f"dJ*/{step}", f"{self.along:.8g}"), (f"d²J*/{step}²", f"{self.second:.8g}")]
        for name, value in (("W", self.weights), ("A", self.states), ("B", self.momenta)):
            if value is not None:
                rows.append((f"d{name}*/{step}", f"norm {np.linalg.norm(value):.6g}, "
                             f"shape {value.shape}"))
        return rows + self._interval_rows("t" if array else f"δ{symbol}")

    def _interval_rows(self, name: str) -> list[tuple[str, str]]:
        rows = []
        if self.interval is not None and np.any(np.isfinite(self.interval)):
            low, high = self.interval
            ends = [text for text in self.changes or () if text]
            rows.append(("holds for", f"{name} in [{low:.3g}, {high:.3g}], to first order"
                         f"{': ' + '; '.join(ends) if ends else ''}"))
        return [*rows, ("how", self.how)] if self.how else rows


def check_solution(solution: Any) -> None:
    """Raise TypeError for what is no solution."""
    if not hasattr(solution, "integrator") or not hasattr(solution, "weights"):
        raise TypeError(f"solution: expected a Solution, as hs.solve returns it, got "
                        f"{brief(solution)}")


def check_known(problem: Any, who: str) -> None:
    """Refuse losses and activations whose derivatives are not known here.

    Raises
    ------
    ValueError
        For other losses than the mean squared error, weighted samples, and activations made of
        functions; for learned lifts and readouts.
    """
    check_fixed(problem, f"{who}: derivatives of optima are",
                "those by lift_decay and readout_decay are ‖P‖²/2 and ‖Q‖²/2")
    problem.criterion.check_plain(f"{who}: derivatives of optima")
    problem.sigma.check_compiled(f"{who} (derivatives of optima)")


def parameter(of: Any) -> str:
    """The name of a parameter, checked.

    Raises
    ------
    ValueError
        For another name.
    """
    if not isinstance(of, str) or of not in PARAMETERS:
        raise ValueError(f"of: expected one of {', '.join(PARAMETERS)}, got {brief(of)}")
    return of


def direction_of(of: str, direction: Any, shape: tuple[int, ...]) -> float | NDArray | None:
    """A direction, checked: a number for a number (1 by default), an array or None for an array.

    Parameters
    ----------
    of : str
        A parameter.
    direction : array_like, float or None
    shape : tuple of int
        Of the parameter; () of a number. Targets and sample weights of one column also come flat.

    Raises
    ------
    ValueError
        For another shape, and for what is not finite or no number.
    """
    if direction is None:
        return None if shape else 1.0
    try:
        given = np.asarray(direction)
        if given.dtype.kind not in "fiu":
            raise TypeError
        given = given.astype(float)
    except (TypeError, ValueError):
        raise ValueError(f"direction: expected numbers of shape {shape}, got "
                         f"{brief(direction)}") from None
    if len(shape) == 2 and shape[1] == 1 and given.shape == shape[:1]:
        given = given[:, None]
    if given.shape != shape:
        raise ValueError(f"direction: expected shape {shape}, that of {of}, got {given.shape}")
    if not np.all(np.isfinite(given)):
        raise ValueError("direction: expected finite numbers, got NaN or infinity")
    if not np.any(given):
        raise ValueError("direction: expected one that is not zero, got zeros alone")
    return given if shape else float(given)


def plain(value: Any) -> Any:
    """As JSON has it: lists of numbers, None where they are not finite."""
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
