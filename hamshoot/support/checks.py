"""Checks of options: a ValueError names the option, what came and what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Integers beyond are no counts, and NumPy does not hold them.
MOST_COUNT = 2**63 - 1


def check_options(method: Any) -> None:
    """Check the options every method object has: tol, max_iter, time_limit, seed.

    Raises
    ------
    ValueError
        Naming the option, what came and what was expected.
    """
    check_positive("tol", method.tol)
    check_count("max_iter", method.max_iter, 1)
    check_count("seed", method.seed, 0)
    if method.time_limit is not None:
        check_positive("time_limit", method.time_limit)


def is_number(value: Any) -> bool:
    """Whether `value` is a real number that a double holds; no bool, no integer beyond 2⁶³."""
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, int):
        return abs(value) <= MOST_COUNT
    return isinstance(value, (float, np.floating, np.integer))


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite number > 0."""
    if not (is_number(value) and np.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a finite number > 0, got {brief(value)}")


def check_count(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless `value` is an integer ≥ `least`."""
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (good and value >= least):
        raise ValueError(f"{name}: expected an integer >= {least}, got {brief(value)}")
    if value > MOST_COUNT:
        raise ValueError(f"{name}: expected an integer <= {MOST_COUNT}, got {brief(value)}")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {brief(value)}")


def check_layers(layers: int, effective_depth: float, steps: Any = None) -> None:
    """Raise ValueError unless an Euler mesh of `layers` keeps every 1 − ρL̃ positive.

    Equidistant steps need L > L̃: otherwise one layer forgets more than it holds.
    """
    check_count("layers", layers, 1)
    largest = 1.0 / layers if steps is None else float(np.max(steps))
    if largest * effective_depth >= 1:
        least = int(np.floor(effective_depth)) + 1
        raise ValueError(
            f"layers: {'equidistant' if steps is None else 'these'} steps need every ρ·L̃ < 1, "
            f"got {layers} layers for an effective depth {effective_depth:g}; "
            f"use at least {least}"
        )


def brief(value: Any, most: int = 60) -> str:
    """A value as a message shows it: on one line, with at most so many characters.

    Strings are in quotes. What belongs to a file is damaged on purpose at times, and long.
    """
    text = value[: 4 * most] if isinstance(value, str) else value
    shown = repr(text) if not isinstance(value, int) or abs(value) < 10**most else "a huge integer"
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def check_real(name: str, value: Any) -> None:
    """Raise ValueError for an array of complex numbers, strings or objects.

    NumPy would cut off imaginary parts with no more than a warning.
    """
    kind = np.asarray(value).dtype
    if kind.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got {kind}")
