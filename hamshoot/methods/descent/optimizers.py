"""Optimisers of gradient descent, as settings: `Adam` and `SGD`; `descent.train` runs them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.support.checks import brief, check_choice, check_count, check_positive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.support.names import ScheduleName

#: Of the rate over the epochs of a stage, see `schedule_factors`.
SCHEDULES: tuple[ScheduleName, ...] = ("constant", "decay", "cosine")
#: Share of the epochs for which "decay" holds the rate. Measured (`demos/benchmarks/baseline.py`,
#: eight seeds, 1000 to 6000 epochs, best of the rates): a straight line to 0 ends a little below
#: half a cosine, 0.5 is one to two percent worse than 0.8, and from 0.7 to 0.95 the ends differ by
#: less than a percent, the less the more epochs there are. Far from the end, where the shortest
#: decay is the best, a constant rate is better still, and it is in the grid too. Layer steps that
#: adapt come to rest at the same epoch.
HOLD = 0.8


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam, then gradient descent with momentum at a smaller rate: the paper's recipe.

    Parameters
    ----------
    rate : float, optional
        Learning rate of Adam; by default the best of `rates`.
    rates : tuple of float
        The grid.
    epochs : int
    beta1, beta2, epsilon : float
        Decay of the two moments, in [0, 1), and the number added to the denominator.
    schedule : {"constant", "decay", "cosine"}, optional
        Of the rate, in both stages, see `schedule_factors`; by default the best of `schedules`.
    schedules : tuple of str
        The grid, together with `rates`.
    finalists : int
        Rates of each schedule that run in full after the pilots; pilots are left out where there
        are no more rates than that.
    sgd_epochs : int
        Of the descent afterwards, 0 for none.
    sgd_rate : float, optional
        Its rate; by default chosen by curvature and trials.
    momentum : float
        Its momentum, in [0, 1).

    Raises
    ------
    ValueError
        For an option out of range.
    """

    rate: float | None = None
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    epochs: int = 5000
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    schedule: ScheduleName | None = None
    schedules: tuple[ScheduleName, ...] = SCHEDULES
    finalists: int = 2
    sgd_epochs: int = 1000
    sgd_rate: float | None = None
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _check_common(self)
        check_positive("epsilon", self.epsilon)
        check_count("sgd_epochs", self.sgd_epochs, 0)
        if self.sgd_rate is not None:
            check_positive("sgd_rate", self.sgd_rate)
        for name in ("beta1", "beta2"):
            _check_decay(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Full-batch gradient descent with momentum (no sampling: the S is custom).

    Parameters
    ----------
    rate : float, optional
        Learning rate; by default the best of `rates`.
    rates : tuple of float
        The grid.
    epochs : int
    momentum : float
        In [0, 1).
    schedule : {"constant", "decay", "cosine"}, optional
        Of the rate, see `schedule_factors`; by default the best of `schedules`.
    schedules : tuple of str
        The grid, together with `rates`.
    finalists : int
        Rates of each schedule that run in full after the pilots; pilots are left out where there
        are no more rates than that.

    Raises
    ------
    ValueError
        For an option out of range.
    """

    rate: float | None = None
    rates: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    epochs: int = 6000
    momentum: float = 0.9
    schedule: ScheduleName | None = None
    schedules: tuple[ScheduleName, ...] = SCHEDULES
    finalists: int = 2

    def __post_init__(self) -> None:
        _check_common(self)


def schedule_factors(schedule: str, epochs: int) -> NDArray:
    """Share of the rate at every epoch, shape (epochs,).

    Parameters
    ----------
    schedule : {"constant", "decay", "cosine"}
        1 throughout; 1 for the first four fifths, then on a straight line to 0; half a cosine from
        1 to 0. The 0 itself would come at epoch number `epochs`, which is not run.
    epochs : int

    Raises
    ------
    ValueError
        For an unknown schedule.
    """
    check_choice("schedule", schedule, SCHEDULES)
    factors = np.ones(epochs)
    if schedule == "cosine":
        return 0.5 * (1 + np.cos(np.pi * np.arange(epochs) / epochs))
    if schedule == "decay":
        held = held_epochs(epochs)
        factors[held:] = 1 - np.arange(epochs - held) / (epochs - held)
    return factors


def held_epochs(epochs: int) -> int:
    """First epochs of "decay", which are those of "constant" too."""
    return round(HOLD * epochs)


OPTIMIZERS = {"adam": Adam, "sgd": SGD}


def optimizer_named(name: str, options: dict[str, Any]) -> Adam | SGD:
    """Optimiser from its name and options, as a PROBLEM.toml has them.

    Raises
    ------
    ValueError
        For an unknown name, an option the optimiser does not have, or one out of range.
    """
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {brief(name)}")
    known = [f.name for f in fields(OPTIMIZERS[name])]
    for option in options:
        if option not in known:
            raise ValueError(
                f"{option}: not an option of {name}; expected some of {', '.join(known)}"
            )
    return OPTIMIZERS[name](**options)


def _check_common(optimizer: Adam | SGD) -> None:
    if optimizer.rate is not None:
        check_positive("rate", optimizer.rate)
    rates = optimizer.rates
    if not isinstance(rates, (tuple, list, np.ndarray)) or len(rates) == 0:
        raise ValueError(f"rates: expected one or more numbers > 0, got {rates!r}")
    for rate in rates:
        check_positive("rates", rate)
    object.__setattr__(optimizer, "rates", tuple(dict.fromkeys(float(r) for r in rates)))
    check_count("epochs", optimizer.epochs, 1)
    if optimizer.schedule is not None:
        check_choice("schedule", optimizer.schedule, SCHEDULES)
    names = optimizer.schedules
    if not isinstance(names, (tuple, list)) or len(names) == 0:
        raise ValueError(
            f"schedules: expected one or more of {', '.join(SCHEDULES)}, got {names!r}")
    for name in names:
        check_choice("schedules", name, SCHEDULES)
    object.__setattr__(optimizer, "schedules", tuple(dict.fromkeys(names)))
    check_count("finalists", optimizer.finalists, 1)
    _check_decay("momentum", optimizer.momentum)


def _check_decay(name: str, value: Any) -> None:
    good = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (good and 0 <= value < 1):
        raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}")
