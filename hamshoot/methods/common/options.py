"""Options that a method hands down: each part of a search gets those it uses."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

Options = TypeVar("Options")


def picked(kind: type[Options], method: Any) -> Options:
    """The options of a method object that a dataclass of options has fields for.

    A field with a default may be missing there.
    """
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if hasattr(method, field.name) or field.default is MISSING:
            values[field.name] = getattr(method, field.name)
    return kind(**values)
