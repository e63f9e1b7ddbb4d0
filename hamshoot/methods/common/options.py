"""Options that a method hands down: each part of a search gets those it uses."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

Options = TypeVar("Options")


def picked(kind: type[Options], method: Any) -> Options:
    """The options of a method object that a dataclass of options has fields for."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(method, name) for name in names})
