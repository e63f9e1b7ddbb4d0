"""Checks of options: a ValueError names the option, what came and what was expected."""

from __future__ import annotations

import math
import stat
from pathlib import Path
from typing import Any

import numpy as np

#: Characters of a value or a cell that a message repeats.
MOST_REPEATED = 60


def brief(value: Any, most: int = MOST_REPEATED) -> str:
    """The value as Python writes it, cut where it is long: what a message repeats of bad input."""
    if isinstance(value, int) and abs(value) >= 10**most:
        return f"an integer of {int(math.log10(abs(value))) + 1} digits"
    # Of a long string or list the beginning alone is written out.
    if isinstance(value, (str, bytes, list, tuple)) and len(value) > most:
        return repr(value[:most])[: most - 1] + "…"
    text = repr(value)
    if "\n" in text:  # arrays, tables, solutions: a message is one line
        text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(value: float) -> str:
    """Four digits of a number, without an exponent where people write none."""
    if 1e-4 <= abs(value) < 1e9:
        return f"{float(f'{value:.4g}'):.10g}"
    return f"{value:.4g}"


def check_regular(path: Path, expected: str) -> None:
    """Raise ValueError unless a path is that of a file: a pipe or a device is waited for.

    Parameters
    ----------
    path : Path
    expected : str
        What is wanted, as "a CSV file".
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # the name itself: too long, or with a null byte
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{brief(str(path))[1:-1]}: cannot be read ({reason})") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path}: expected {expected}, got a directory")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: expected {expected}, got a pipe or a device; what comes out of "
                         "it has to be written to a file first")


def finite(value: Any) -> bool:
    """Whether a number is finite as a double; integers beyond all doubles are not."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


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


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite number > 0."""
    good = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (good and finite(value) and value > 0):
        raise ValueError(f"{name}: expected a finite number > 0, got {brief(value)}")


def check_not_negative(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite number ≥ 0."""
    good = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (good and finite(value) and value >= 0):
        raise ValueError(f"{name}: expected a number >= 0, got {brief(value)}")


def check_count(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless `value` is an integer ≥ `least`."""
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (good and value >= least):
        raise ValueError(f"{name}: expected an integer >= {least}, got {brief(value)}")
    if value > MOST_COUNT:
        raise ValueError(f"{name}: expected an integer <= {MOST_COUNT}, got {brief(value)}")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
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


#: Integers beyond are no counts, and NumPy does not hold them.
MOST_COUNT = 2**63 - 1


def is_number(value: Any) -> bool:
    """Whether `value` is a real number that a double holds; no bool, no integer beyond 2⁶³."""
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, int):
        return abs(value) <= MOST_COUNT
    return isinstance(value, (float, np.floating, np.integer))


def check_real(name: str, value: Any) -> None:
    """Raise ValueError for an array of complex numbers, strings or objects.

    NumPy would cut off imaginary parts with no more than a warning.
    """
    kind = np.asarray(value).dtype
    if kind.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got {kind}")
