"""Options that a method hands down: each part of a search gets those it uses."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


def picked(kind: type[Options], method: Any) -> Options:
    """The options of a method object that a dataclass of options has fields for.

    A field with a default may be missing there.
    """
    values = {}
    for field in fields(kind):
        if hasattr(method, field.name) or field.default is MISSING:
            values[field.name] = getattr(method, field.name)
    return kind(**values)
