"""Options of method objects, which are their attributes."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def has_option(method: Any, name: str) -> bool:
    """Whether a method object has an option: a field of a dataclass, or an attribute."""
    if dataclasses.is_dataclass(method):
        return name in {field.name for field in dataclasses.fields(method) if field.init}
    return hasattr(method, name)


def with_options(method: T, **options: Any) -> T:
    """A copy of a method object with some options changed; checked again by a dataclass.

    Raises
    ------
    ValueError
        Where the method has no such option, or for its value.
    """
    for name in options:
        if not has_option(method, name):
            raise ValueError(f"{name}: {type(method).__name__} has no such option")
    if dataclasses.is_dataclass(method) and not isinstance(method, type):
        return dataclasses.replace(method, **options)
    changed = copy.copy(method)
    for name, value in options.items():
        setattr(changed, name, value)
    return changed
