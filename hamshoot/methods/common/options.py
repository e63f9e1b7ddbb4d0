"""Options that a method hands down: each part of a search gets those it uses."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

Options = TypeVar("Options")


def picked(kind: type[Options], method: Any) -> Options:
    """The options of a method object that a dataclass of options has fields for."""
    return kind(**{field.name: getattr(method, field.name) for field in fields(kind)})
