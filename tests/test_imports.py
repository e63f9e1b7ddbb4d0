"""The import graph of the package, read from its syntax trees: no circle, nothing hidden."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import hamshoot

ROOT = Path(hamshoot.__file__).parent
#: What an import inside a function may save, in seconds of start-up that a user of something else
#: would pay (measured beside NumPy's 0.11): CasADi 0.18, numba 0.39, matplotlib 0.44, SciPy's
#: sub-packages 0.3 to 0.6 (also the kernels' BLAS), rich 0.05 (not with --json). The others are
#: extras that need not be there.
HEAVY = {"casadi", "numba", "matplotlib", "scipy", "rich", "xarray", "torch", "sklearn", "onnx",
          "safetensors", "pandas", "polars", "distributed", "pyarrow", "zarr", "fsspec"}
#: Files that are there for one heavy library, by the end of their names: they import it as others
#: do NumPy, and are imported in functions themselves; the estimators by nothing at all.
WHOLE = {"kernels": "numba", "dynamics._compiling": "numba", "torch_module": "torch",
         "hamshoot.sklearn": "sklearn"}
#: Imports upwards, for annotations alone: what `LeakyResNet.polish` takes and returns,
#: and what the constructors of a problem return that it inherits.
ANNOTATIONS = {("hamshoot.network.leaky_resnet", "hamshoot.solution.method"),
               ("hamshoot.network.leaky_resnet", "hamshoot.solution.solution"),
               ("hamshoot.problem.from_files", "hamshoot.problem.training_problem")}

#: Imports inside functions for the sake of what is done before: signals are answered while the
#: command line is still being loaded.
AFTERWARDS = {("hamshoot.__main__", "hamshoot.command.cli")}


class Import(NamedTuple):
    """One import statement's target, as a dotted name of the package's own or another's."""

    target: str
    line: int
    inside: bool  # a function
    typing: bool  # under TYPE_CHECKING


def modules() -> dict[str, Path]:
    """Dotted names of all files; a package stands for its `__init__.py`."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(text: str, known=MODULES) -> list[Import]:
    """All imports of a file's text, wherever they stand."""
    found: list[Import] = []

    def visit(node: ast.AST, inside: bool, typing: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(Import(a.name, child.lineno, inside, typing) for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "imports are absolute here"
                names = [f"{child.module}.{alias.name}" for alias in child.names]
                targets = {name if name in known else child.module for name in names}
                found.extend(Import(name, child.lineno, inside, typing) for name in sorted(targets))
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            visit(child, inside or function, typing or only)

    visit(ast.parse(text), False, False)
    return found


GRAPH = {name: imports_of(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some circle of a graph, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_circle_of_files():
    """Counted are imports inside functions and, but for one, those for annotations."""
    graph = {name: {one.target for one in imports if one.target in MODULES
                    and not (one.typing and (name, one.target) in ANNOTATIONS)}
             for name, imports in GRAPH.items()}
    assert circle(graph) == []
    assert sum(map(len, graph.values())) > len(MODULES)  # it is a graph that was looked at


def test_no_module_imports_the_package_that_holds_it():
    above = [name for name, imports in GRAPH.items() for one in imports if one.target == "hamshoot"]
    assert above == []


def test_the_annotations_upwards_are_still_there():
    for name, target in ANNOTATIONS:
        assert [one.typing for one in GRAPH[name] if one.target == target] == [True]


def heavy_files() -> set[str]:
    """Files that import a heavy library at their top, or one of these files, as kernels do."""
    heavy, before = set(WHOLE.values()), set()
    while heavy != before:
        before = set(heavy)
        heavy |= {one for one, imports in GRAPH.items()
                  if any(i.target in before and not i.inside and not i.typing for i in imports)}
    return heavy


def test_heavy_files_are_those_that_are_there_for_a_library():
    """What imports a heavy file at its top costs as much: none but they may."""
    assert {one for one in heavy_files() & set(MODULES) if not one.endswith(tuple(WHOLE))} == set()


@pytest.mark.parametrize("name", MODULES)
def test_functions_import_what_is_heavy_alone(name):
    """Files that import a heavy library at their top, as kernels do numba, are heavy as well."""
    heavy = HEAVY | heavy_files()
    light = [f"line {one.line}: {one.target}" for one in GRAPH[name]
             if one.inside and one.target not in heavy and one.target.split(".")[0] not in HEAVY
             and (name, one.target) not in AFTERWARDS]
    assert light == []


@pytest.mark.parametrize("name", MODULES)
def test_heavy_libraries_are_imported_in_functions(name):
    """But for the files of `WHOLE`: `import hamshoot` and reading a problem cost none of them."""
    heavy = {one.target.split(".")[0] for one in GRAPH[name]
             if not one.inside and not one.typing} & HEAVY
    assert heavy <= {library for end, library in WHOLE.items() if name.endswith(end)}


def test_nothing_imports_the_estimators():
    assert [name for name, imports in GRAPH.items() for one in imports
            if one.target.startswith("hamshoot.sklearn")] == []


def test_a_circle_through_functions_would_be_seen():
    texts = {"p.a": "from p import b\n", "p.b": "def f():\n    from p.c import g\n    return g\n",
             "p.c": "import p.a\n"}
    graph = {name: {one.target for one in imports_of(text, texts)} for name, text in texts.items()}
    assert set(circle(graph)) == set(texts)
    assert [one.inside for one in imports_of(texts["p.b"], texts)] == [True]
