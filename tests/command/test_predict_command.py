"""`hamshoot predict` from a stranger's side."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from command_line import run

import hamshoot as hs
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.support.checks import plain


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory with a table and the solution of a network that is far from any optimum."""
    monkeypatch.chdir(tmp_path)
    rows = [(i, i * i % 7, 3 + i % 4) for i in range(10)]
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"{a},{b},{y}\n" for a, b, y in rows))
    problem = hs.TrainingProblem.from_csv("t.csv", effective_depth=2.0, weight_decay=0.1, width=3)
    weights = np.random.default_rng(0).standard_normal((4, *problem.control_shape))
    solution_from_weights(problem, weights, np.full(4, 0.25), method="given", success=False,
                          status=hs.Status.MAX_ITER).save(tmp_path / "s.npz")
    return tmp_path


def test_predictions_are_written_and_told_and_nothing_is_overwritten(folder, capsys):
    code, out, err = run(capsys, "predict", "s.npz", "t.csv")
    assert (code, err) == (0, "")
    assert "Wrote 10 predictions of 'y' to predictions.csv" in out
    assert "did not converge" in out
    solution = hs.Solution.load("s.npz")
    expected = solution.to_network().predict(solution.problem.X)[:, 0]
    rows = list(csv.reader((folder / "predictions.csv").open()))
    assert rows[0] == ["y"]
    np.testing.assert_array_equal([float(row[0]) for row in rows[1:]], expected)
    error = np.sqrt(np.mean((expected - solution.problem.Y[:, 0]) ** 2))
    assert f"root mean squared error is {plain(error)}" in out
    before = (folder / "predictions.csv").read_bytes()
    code, out, err = run(capsys, "predict", "s.npz", "t.csv")
    assert (code, out) == (2, "")
    assert "--force overwrites" in err
    code, out, _ = run(capsys, "predict", "s.npz", "t.csv", "--force", "--json", "--keep", "a")
    told = json.loads(out)
    assert code == 0
    assert told["rows"] == 10
    assert told["root_mean_squared_errors"]["y"] == pytest.approx(error)
    assert (folder / "predictions.csv").read_bytes() != before


def test_standard_input_and_output(folder, capsys, monkeypatch):
    content = "\ufeffb;a\r\n1,5;2\r\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    code, out, err = run(capsys, "predict", "s.npz", "-", "-o", "-", "--decimal", ",")
    assert code == 0
    network = hs.Solution.load("s.npz").to_network()
    name, value = out.splitlines()
    assert name == "y"
    assert float(value.replace(",", ".")) == network.predict([[2, 1.5]])[0, 0]
    assert "did not converge" in err
    assert sorted(p.name for p in folder.iterdir()) == ["s.npz", "t.csv"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["none.npz", "t.csv"], "no such file"), (["t.csv", "t.csv"], "not a complete .npz file"),
    (["s.npz", "none.csv"], "no such file"), (["s.npz", "."], "got a directory"),
    (["s.npz", "t.csv", "-o", "."], "expected a file, got a directory"),
    (["s.npz", "t.csv", "-o", "no/where.csv"], "no: no such directory"),
    (["s.npz", "t.csv", "--keep", "id"], "keep: t.csv has no column 'id'"),
    (["s.npz", "t.csv", "--keep", "y"], "column 'y' is one that is predicted"),
    (["s.npz", "t.csv", "--decimal", "x"], "decimal: expected"),
    (["s.npz", "t.csv", "--separator", ";;"], "separator: expected one character"),
    (["s.npz", "t.csv", "--layers", "1"], "use at least 3"),
    (["s.npz", "t.csv", "-o", "-", "--json"], "both would go"),
    (["s.npz"], "Missing argument"),
])
def test_bad_input_is_one_line_and_writes_nothing(folder, capsys, arguments, words):
    before = sorted(p.name for p in folder.iterdir())
    code, out, err = run(capsys, "predict", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in folder.iterdir()) == before
