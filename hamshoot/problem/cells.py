"""Cells of a table: the number that one holds, or what it holds in place of a number.

A cell that is no number is never guessed at. What it looks like (a decimal comma, a date, a number
with a unit) is told to its owner, with what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Words for a missing number, in lower case.
MISSING_NUMBERS = frozenset(
    {"", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "–", "—", "?", "."})
#: Words for a missing class or category: NA may be North America, and none a class of its own.
MISSING_WORDS = frozenset({"", "n/a", "#n/a", "nan", "null", "?"})

DECIMALS = (".", ",")
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_SIGN = r"[+-]?"


class Look(NamedTuple):
    """What a cell looks like: in words, what to do about it, and whether no word would be like it.

    Attributes
    ----------
    what, advice : str
    mistaken : bool
        A number or a date in a form that is not read, and no name of a class or category.
    """

    what: str
    advice: str
    mistaken: bool = True


_DATE = Look("a date", "make a number of it, as days since a day, or leave the column out with "
             "drop")
_TIME = Look("a time of day", "make a number of it, as hours, or leave the column out with drop")
_THOUSANDS = "write thousands without a separator"
#: Forms that are told from one another, the first that fits; of cells that are no numbers.
_FORMS: tuple[tuple[str, Look], ...] = (
    (r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ]\d{1,2}:\d{2}.*)?", _DATE),
    (r"\d{1,2}[-/.]\d{1,2}[-/.](?:\d{2}|\d{4})(?: \d{1,2}:\d{2}.*)?", _DATE),
    (rf"(?:\d{{1,2}}\.?[ -])?{_MONTH}\.?[ -]\d{{1,2}},? \d{{4}}", _DATE),
    (rf"\d{{1,2}}\.?[ -]{_MONTH}\.?[ -]\d{{2,4}}", _DATE),
    (r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[ap]m)?", _TIME),
    (rf"{_SIGN}\d{{1,3}}(?:,\d{{3}})(?:{_EXPONENT})",
     Look("a number with a comma", 'with decimal = "," the comma is the decimal one; if it '
          f"separates thousands, {_THOUSANDS}")),
    (rf"{_SIGN}(?:\d+,\d*|,\d+){_EXPONENT}",
     Look("a decimal comma", 'decimal = "," reads it')),
    (rf"{_SIGN}\d{{1,3}}(?:\.\d{{3}})+,\d+",
     Look("a decimal comma and points between thousands",
          f'{_THOUSANDS}, and decimal = "," reads it')),
    (rf"{_SIGN}\d{{1,3}}(?:[, '’\u00a0\u202f]\d{{3}})+(?:\.\d+)?",
     Look("a number with separators between thousands", _THOUSANDS)),
    (rf"{_SIGN}[\d_]*\d_\d[\d_]*(?:\.\d+)?",
     Look("digits with an underscore", "write the number without it, or begin a name with a "
          "letter")),
    (rf"[−–]\d*\.?\d+{_EXPONENT}",
     Look("a minus sign that is none of a number", "write a hyphen")),
    (r"[€$£¥]\s?[+-]?[\d.,]+|[+-]?[\d.,]+\s?[€$£¥%]",
     Look("a number with a unit", "write the number alone")),
    (r"[+-]?[\d.,]+\s?[a-zA-Zµ°/²³]{1,6}",
     Look("a number with a unit", "write the number alone", mistaken=False)),
)
_PATTERNS = tuple((re.compile(form, re.IGNORECASE), look) for form, look in _FORMS)
_POINT = Look("a decimal point", 'the table is read with decimal = ","; write a comma, or leave '
              "decimal out")


def number(cell: str, decimal: str = ".") -> float | None:
    """The number that a cell holds, also NaN or infinite; None where it holds none.

    Plain digits: neither ``2024_01``, which Python reads as 202401, nor digits of other scripts.

    Parameters
    ----------
    cell : str
    decimal : {".", ","}
    """
    if decimal == ",":
        if "." in cell:
            return None
        cell = cell.replace(",", ".")
    if "_" in cell or not cell.isascii():
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def numbers(cells: Sequence[str], decimal: str = ".") -> NDArray | None:
    """The numbers of a column, (N,); None where a cell holds none, or one that is not finite.

    The quick way for a column without fault; what is wrong with another is looked up cell by cell.
    """
    together = "\n".join(cells)
    if "_" in together or not together.isascii() or (decimal == "," and "." in together):
        return None
    try:
        values = np.array([float(cell.replace(",", ".") if decimal == "," else cell)
                           for cell in cells])
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def look(cell: str, decimal: str = ".") -> Look | None:
    """What a cell that holds no number looks like; None for plain words."""
    if decimal == "," and number(cell) is not None:
        return _POINT
    return next((look for form, look in _PATTERNS if form.fullmatch(cell)), None)


def is_missing(cell: str, words: bool = False) -> bool:
    """Whether a cell stands for a missing number, or, among words, for a missing word."""
    return cell.lower() in (MISSING_WORDS if words else MISSING_NUMBERS)
