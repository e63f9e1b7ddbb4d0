"""Learned lift and readout from PROBLEM.toml, from a stranger's side."""

import json

import numpy as np
import pytest
from command_line import run

import hamshoot as hs

TOML = """
[data]
file = "houses.csv"
targets = ["price"]
[problem]
effective_depth = 2
weight_decay = 0.02
width = 3
lift_decay = 0.02
readout_decay = 0.03
[solve]
layers = 5
reheats = 0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A fresh directory with a table and its problem."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((12, 2)) * [10, 0.1] + [50, 3]
    price = 1000 + 30 * np.abs(rows[:, 0] - 50)
    lines = [f"{a:.6g};{b:.6g};{c:.6g}" for (a, b), c in zip(rows, price, strict=True)]
    (tmp_path / "houses.csv").write_text("\n".join(["size;rooms;price", *lines]))
    (tmp_path / "p.toml").write_text(TOML)
    return tmp_path


def test_solve_verify_predict_and_go_on(folder, capsys):
    code, _, err = run(capsys, "solve", "p.toml")
    assert code == 0, err
    summary = json.loads((folder / "hamshoot-results" / "summary.json").read_text())
    assert summary["objective"] < summary["fixed_objective"]
    assert max(summary["lift_stationarity"], summary["readout_stationarity"]) < 1e-9
    solution = hs.Solution.load("hamshoot-results/solution.npz")
    assert (solution.problem.lift_decay, solution.problem.readout_decay) == (0.02, 0.03)
    assert summary["map_decay"] == pytest.approx(solution.problem.map_decay)
    code, out, _ = run(capsys, "verify", "hamshoot-results/solution.npz", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["holds"] is True
    assert told["readout_stationarity"] < 1e-9
    code, _, _ = run(capsys, "predict", "hamshoot-results/solution.npz", "houses.csv", "-o",
                     "p.csv")
    assert code == 0
    predicted = np.loadtxt(folder / "p.csv", skiprows=1)
    np.testing.assert_allclose(predicted, solution.to_network().predict(solution.problem.X)[:, 0],
                               rtol=1e-12)
    # With other decays it goes on from the maps that there are, and from those alone where asked.
    (folder / "p.toml").write_text(TOML.replace("lift_decay = 0.02", "lift_decay = 0.025"))
    code, out, err = run(capsys, "solve", "p.toml", "--from", "hamshoot-results/solution.npz", "-o",
                         "next", "--json")
    assert code == 0, err
    moved = 0.0025 * np.sum(solution.problem.lift**2)
    assert json.loads(out)["objective"] <= solution.objective + moved
    (folder / "p.toml").write_text(TOML.replace("lift_decay = 0.02", ""))
    code, _, err = run(capsys, "solve", "p.toml", "--from", "hamshoot-results/solution.npz", "-o",
                       "other")
    assert code == 2
    assert "the lift of" in err


@pytest.mark.parametrize(("value", "says"), [
    ("0", "lift_decay: expected a number > 0"), ("-0.1", "lift_decay: expected a number > 0"),
    ('"yes"', "problem.lift_decay: expected a number"),
    ("true", "problem.lift_decay: expected a number")])
def test_a_bad_decay_is_one_line(value, says, folder, capsys):
    (folder / "p.toml").write_text(TOML.replace("lift_decay = 0.02", f"lift_decay = {value}"))
    code, out, err = run(capsys, "solve", "p.toml")
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert out == ""


def test_a_sweep_of_learned_maps_is_refused_before_anything_is_solved(folder, capsys):
    code, _, err = run(capsys, "sweep", "p.toml", "--over", "effective_depth=1:2:2")
    assert code == 2
    assert "for a fixed lift and readout" in err
    assert not (folder / "hamshoot-results").exists()
