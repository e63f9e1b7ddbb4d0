"""The public names and their signatures, and the fields of summary.json: kept in `public_api.txt`.

Code and scripts of others rest on them; the suite compares (`test_public_api.py`). Written anew
only where a change is meant, and said so in the CHANGELOG:

    python tests/public_api.py --write
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import enum
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, is_typeddict

import click
import numpy as np

import hamshoot as hs
from hamshoot.command.cli import cli
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.study.compare import DESCENT, Comparison, Row

KEPT = Path(__file__).with_name("public_api.txt")


def lines() -> list[str]:
    """One line a name: functions and methods with their signatures."""
    found = []
    for name in sorted(hs.__all__):
        found += _described(f"hs.{name}", getattr(hs, name))
    found += [f"summary.json of {command}: {key}" for command, key in _summary_fields()]
    found += [f"hamshoot {line}" for line in _commands()]
    return found


def kept() -> list[str]:
    """The lines of the file."""
    return KEPT.read_text(encoding="utf-8").splitlines()


def differences(found: list[str], expected: list[str]) -> list[str]:
    """What was taken away (-) and what was added (+)."""
    changed = difflib.unified_diff(expected, found, lineterm="", n=0)
    return [line for line in changed if line[0] in "+-" and line[:3] not in ("+++", "---")]


def _described(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, ModuleType):
        for own in sorted(getattr(value, "__all__", vars(value))):
            member = getattr(value, own)
            if inspect.isfunction(member) and not own.startswith("_") \
                    and member.__module__.startswith(str(value.__package__)):
                yield from _signature(f"{name}.{own}", member)
            if get_origin(member) is Literal:
                yield f"{name}.{own}: {', '.join(get_args(member))}"
            elif is_typeddict(member):
                yield from (f"{name}.{own}: {key}" for key in sorted(member.__annotations__))
    elif inspect.isclass(value) and issubclass(value, enum.Enum):
        yield from (f"{name}.{member.name}" for member in value)
    elif callable(value):
        yield from _signature(name, value)
        if inspect.isclass(value):
            yield from _members(name, value)
    else:
        yield f"{name}: {type(value).__name__}"


def _members(name: str, value: type) -> Iterator[str]:
    """Fields that are no arguments, then methods and properties, inherited ones too."""
    if dataclasses.is_dataclass(value):
        yield from (f"{name}.{f.name}: {f.type}" for f in dataclasses.fields(value)
                    if not f.init and not f.name.startswith("_"))
    for own in dir(value):
        member = inspect.getattr_static(value, own)
        if own.startswith("_") and own != "__call__":
            continue
        if isinstance(member, (classmethod, staticmethod)) or inspect.isfunction(member):
            yield from _signature(f"{name}.{own}", getattr(value, own))
        elif isinstance(member, (property, cached_property)):
            yield f"{name}.{own}: property"


def _signature(name: str, call: Callable[..., Any]) -> Iterator[str]:
    """A line, or one an argument where that is long."""
    signature = inspect.signature(call)
    line = f"{name}{signature}"
    if len(line) <= 100:
        yield line
        return
    returned = signature.return_annotation
    yield f"{name}(...)" + ("" if returned is signature.empty else f" -> {returned!r}")
    named = False
    for argument in signature.parameters.values():
        if argument.kind is argument.KEYWORD_ONLY and not named:
            named = True
            yield f"{name}(...): *"
        yield f"{name}(...): {argument}"


def _summary_fields() -> Iterator[tuple[str, str]]:
    """Keys of summary.json by the command that writes it."""
    problem = hs.teacher_problem((3, 2, 3), 8, width=3, effective_depth=2.0, test_samples=4)
    solution = solution_from_weights(
        problem, np.zeros((4, *problem.control_shape)), np.full(4, 0.25), method="given",
        status=hs.Status.MAX_ITER, success=False)
    yield from (("solve", key) for key in solution.summary())
    summary = Comparison(problem, (Row(DESCENT, solution),)).to_dict()
    yield from (("compare", key) for key in summary)
    yield from (("compare", f"rows[].{key}") for key in summary["rows"][0])


def _commands() -> Iterator[str]:
    """Arguments and flags of the command line."""
    for name, command in sorted(cli.commands.items()):
        flags = [" ".join(one.opts) if isinstance(one, click.Option) else str(one.name).upper()
                 for one in command.params]
        yield f"{name}: {', '.join(flags)}"


def main(arguments: list[str] | None = None) -> int:
    """Compare or write; exit code 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the file anew")
    asked = parser.parse_args(arguments)
    found = lines()
    if asked.write:
        KEPT.write_text("\n".join(found) + "\n", encoding="utf-8")
    changed = differences(found, kept())
    print(*changed, f"{len(found)} lines, {len(changed)} differences", sep="\n")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
