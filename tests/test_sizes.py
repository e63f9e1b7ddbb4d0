"""Sizes that keep the package readable, measured on its syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hamshoot

ROOT = Path(hamshoot.__file__).parent
MOST_FILE, MOST_CLASS, MOST_FUNCTION = 500, 250, 80
#: Compiled kernels take long lists of arrays and are one loop each, since a call between kernels
#: costs: they may be longer.
FILES = [path for path in sorted(ROOT.rglob("*.py"))
         if not (path.parent.name == "dynamics" and path.name.startswith("_"))]


def definitions(tree: ast.Module) -> Iterator[ast.AST]:
    """All classes and functions of a file, nested ones too."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    yield from (node for node in ast.walk(tree) if isinstance(node, kinds))


def docstring_lines(node: ast.AST) -> int:
    """Lines of a definition's docstring."""
    first = node.body[0]
    held = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return first.end_lineno - first.lineno + 1 if held and isinstance(first.value.value, str) else 0


def too_long(text: str) -> list[str]:
    """What a file has too much of: lines of it, of a class, of a function's signature and code."""
    lines = len(text.splitlines())
    found = [f"file: {lines} lines"] if lines > MOST_FILE else []
    for node in definitions(ast.parse(text)):
        lines = node.end_lineno - node.lineno + 1
        if isinstance(node, ast.ClassDef):
            most = MOST_CLASS
        else:
            most, lines = MOST_FUNCTION, lines - docstring_lines(node)
        if lines > most:
            found.append(f"{node.name}: {lines} lines")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_classes_and_functions_are_short(path):
    assert too_long(path.read_text(encoding="utf-8")) == []


def test_what_is_too_long_is_seen():
    docstring = '    """' + "\n" * 100 + '    """\n'
    assert too_long("def f():\n" + docstring + "    x = 1\n" * 79) == []
    assert too_long("def f():\n" + docstring + "    x = 1\n" * 80) == ["f: 81 lines"]
    inner = "class C:\n    def f(self):\n" + "        x = 1\n" * 249
    assert too_long(inner) == ["C: 251 lines", "f: 250 lines"]
    assert too_long("x = 1\n" * 501) == ["file: 501 lines"]
