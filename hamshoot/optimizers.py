"""Optimisers of gradient descent, as settings: `Adam` and `SGD`; `hamshoot.descent` runs them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from hamshoot.checks import check_choice, check_count, check_positive

SCHEDULES = ("cosine", "constant")


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
    schedule : {"cosine", "constant"}
        Of the rate, in both stages: cosine falls from the rate to 0.
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
    schedule: str = "cosine"
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
    schedule : {"cosine", "constant"}

    Raises
    ------
    ValueError
        For an option out of range.
    """

    rate: float | None = None
    rates: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    epochs: int = 6000
    momentum: float = 0.9
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        _check_common(self)


OPTIMIZERS = {"adam": Adam, "sgd": SGD}


def optimizer_named(name: str, options: dict[str, Any]) -> Adam | SGD:
    """Optimiser from its name and options, as a PROBLEM.toml has them.

    Raises
    ------
    ValueError
        For an unknown name, an option the optimiser does not have, or one out of range.
    """
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {name!r}")
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
    check_choice("schedule", optimizer.schedule, SCHEDULES)
    _check_decay("momentum", optimizer.momentum)


def _check_decay(name: str, value: Any) -> None:
    good = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (good and 0 <= value < 1):
        raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}")
