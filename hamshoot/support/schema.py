"""Schemas of metadata: what JSON from a file has to be, field by field, before anybody uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hamshoot.support.checks import MOST_COUNT, brief, is_number

#: JSON is looked into so deep; what hamshoot writes has five levels.
DEEPEST = 20


class Kind(NamedTuple):
    """What a field takes, in words, and the test of it."""

    expected: str
    fits: Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """Whether `value` is a string that can be written down: no half of a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def is_count(value: Any) -> bool:
    """Whether `value` is an integer ≥ 0 that NumPy holds."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNT


def is_texts(value: Any) -> bool:
    """Whether `value` is a list of strings."""
    return isinstance(value, list) and all(map(is_text, value))


def is_numbers(value: Any) -> bool:
    """Whether `value` is a list of numbers, None for what was not finite."""
    return isinstance(value, list) and all(v is None or is_number(v) for v in value)


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether all strings and integers within are such that they can be written and computed with.

    JSON may nest, but not deeper than `DEEPEST`.
    """
    if depth > DEEPEST:
        return False
    if isinstance(value, dict):
        return all(is_text(k) and is_plain(v, depth + 1) for k, v in value.items())
    if isinstance(value, list):
        return all(is_plain(v, depth + 1) for v in value)
    return value is None or isinstance(value, bool) or is_text(value) or is_number(value)


NUMBER = Kind("a number", is_number)
MAYBE_NUMBER = Kind("a number or nothing", lambda v: v is None or is_number(v))
COUNT = Kind("an integer >= 0", is_count)
FLAG = Kind("true or false", lambda v: isinstance(v, bool))
TEXT = Kind("a string", is_text)
MAYBE_TEXT = Kind("a string or nothing", lambda v: v is None or is_text(v))
MAYBE_TEXTS = Kind("a list of strings or nothing", lambda v: v is None or is_texts(v))
NUMBERS = Kind("a list of numbers", is_numbers)
LIST = Kind("a list", lambda v: isinstance(v, list) and is_plain(v))
OBJECT = Kind("an object", lambda v: isinstance(v, dict) and is_plain(v))
NAMED_NUMBERS = Kind("numbers by name", lambda v: isinstance(v, dict) and all(
    is_text(k) and is_number(n) for k, n in v.items()))


def check_fields(what: str, given: Any, needed: Mapping[str, Kind],
                 optional: Mapping[str, Kind] | None = None, closed: bool = True) -> None:
    """Check an object of metadata.

    Parameters
    ----------
    what : str
        What it is, for messages.
    given : object
        As JSON gave it.
    needed, optional : mapping of str to Kind
        Fields that have to be there, and those that may.
    closed : bool
        Whether there must be no others.

    Raises
    ------
    ValueError
        In one sentence, for the first field that is missing, unknown or of another kind.
    """
    if not isinstance(given, dict):
        raise ValueError(f"{what}: expected an object, got {brief(given)}")
    for name, kind in needed.items():
        if name not in given:
            raise ValueError(f"{what}: {name} is missing, expected {kind.expected}")
    known = {**needed, **(optional or {})}
    for name, value in given.items():
        if name not in known:
            if closed:
                raise ValueError(f"{what}: there is no field {brief(name)}")
            continue
        if not known[name].fits(value):
            raise ValueError(f"{what}: {name}: expected {known[name].expected}, "
                             f"got {brief(value)}")
