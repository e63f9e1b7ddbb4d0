"""The tutorial's cells run in order, print what is kept in the file, and leave small outputs."""

import ast
import contextlib
import io
import json
from pathlib import Path

import pytest

import hamshoot as hs

PATH = Path(__file__).parents[2] / "demos" / "tutorial.ipynb"
NOTEBOOK = json.loads(PATH.read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def source(cell):
    """Code of a cell, without the lines that are IPython's own."""
    lines = "".join(cell["source"]).splitlines()
    return "\n".join(line for line in lines if not line.startswith("%"))


def printed(cell):
    """What it printed when it was executed."""
    return "".join("".join(one["text"]) for one in cell["outputs"]
                   if one["output_type"] == "stream")


def of_kind(kind):
    """Outputs of a kind in all cells, as text."""
    return ["".join(one["data"][kind]) for cell in CELLS for one in cell["outputs"]
            if kind in one.get("data", {})]


def run(cell, names):
    """Execute a cell: what it prints, and the value of its last line if that is an expression."""
    out, tree = io.StringIO(), ast.parse(source(cell))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(out):
        exec(compile(tree, PATH.name, "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), PATH.name,
                                                       "eval"), names)
    return out.getvalue(), value


def test_it_was_executed_from_top_to_bottom():
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    assert len(CELLS) > 8
    kinds = {one["output_type"] for cell in CELLS for one in cell["outputs"]}
    assert kinds == {"stream", "execute_result"}  # no errors, and nothing on standard error
    assert {one["name"] for cell in CELLS for one in cell["outputs"] if "name" in one} == {"stdout"}


def test_its_outputs_are_small_and_show_tables_and_figures():
    assert PATH.stat().st_size < 200_000
    assert len(of_kind("text/html")) == 3
    assert len(of_kind("image/png")) == 2
    assert not any("<script" in html or "<style" in html for html in of_kind("text/html"))


def test_its_cells_run_and_print_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, values = {}, []
    for cell in CELLS:
        text, value = run(cell, names)
        assert text == printed(cell)
        values.append(value)
    kinds = hs.Solution, hs.Certificate, hs.Comparison
    assert [type(value) for value in values if isinstance(value, kinds)] == list(kinds)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.html", "solution.npz"]


@pytest.mark.parametrize("cell", [c for c in NOTEBOOK["cells"] if c["cell_type"] == "markdown"],
                         ids=lambda cell: cell["id"])
def test_formulas_open_and_close(cell):
    assert "".join(cell["source"]).count("$") % 2 == 0
