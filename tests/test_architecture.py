"""ARCHITECTURE.md names what is there: every folder, module, function and file."""

import ast
import configparser
import importlib
import re
from pathlib import Path

import pytest

import hamshoot

PACKAGE = Path(hamshoot.__file__).parent
TESTS = next(p for p in Path(__file__).parents if p.name == "tests")
ROOT = TESTS.parent
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))
ROWS = re.findall(r"^\| `([\w/]+)/` \| ([^|]+) \|$", PAGE, flags=re.MULTILINE)
#: What is quoted and is no name of ours.
FOREIGN = {"(A, B)", "PROBLEM.toml", "lint-imports"}


def defined() -> set[str]:
    """Names of all functions, methods and classes of the package."""
    kinds = ast.FunctionDef, ast.ClassDef
    return {node.name for path in PACKAGE.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, kinds)}


def exists(name: str) -> bool:
    """Whether a quoted name is a file or folder, a module or what is in one, or a definition."""
    name = name.partition("(")[0]
    if name.endswith((".py", ".json", ".cfg", ".md")) or "/" in name:
        return (any((base / name).exists() for base in (ROOT, PACKAGE))
                or ("/" not in name and any(TESTS.rglob(name)))
                or ("/" not in name and any(PACKAGE.rglob(name))))
    head, _, rest = name.partition(".")
    if not rest:
        return name in defined()
    value = getattr(hamshoot, head, None)
    if value is None or (PACKAGE / head).is_dir():
        return resolved(name.split("."))
    return hasattr(value, rest)


def resolved(parts: list[str]) -> bool:
    """Whether the longest module that these parts begin with has the others as attributes."""
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(["hamshoot", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            value = getattr(value, part, None)
        return value is not None
    return False


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FOREIGN])
def test_what_the_page_names_is_there(name):
    if "torch" in name:
        pytest.importorskip("torch")
    assert exists(name)


@pytest.mark.parametrize("name", ["theory.layers.costate", "theory.missing", "nowhere/",
                                  "Solution.missing", "no_such_function", "test_nothing.py"])
def test_what_is_not_there_would_be_noticed(name):
    assert not exists(name)


@pytest.mark.parametrize(("folder", "promise"), ROWS)
def test_a_promise_is_the_docstring_of_its_folder(folder, promise):
    assert importlib.import_module(f"hamshoot.{folder.replace('/', '.')}").__doc__ == promise


def test_the_folders_stand_in_the_order_of_the_contract():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    levels = setup["importlinter:contract:folders"]["layers"].split("\n")
    # Beside the topmost folder stand modules: `command | sklearn`.
    layers = [level.split("|")[0].strip() for level in levels if level]
    assert [folder for folder, _ in ROWS if "/" not in folder] == layers[:0:-1]
    folders = {str(p.parent.relative_to(PACKAGE)) for p in PACKAGE.rglob("__init__.py")} - {"."}
    assert {folder for folder, _ in ROWS} == folders
