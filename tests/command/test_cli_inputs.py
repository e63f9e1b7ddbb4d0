"""`hamshoot solve` of Parquet, Zarr and weighted tables, and choices by `--tune`."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import run

import hamshoot as hs

pytest.importorskip("pyarrow")
zarr = pytest.importorskip("zarr", minversion="3")
TOML = """[data]
file = "t.{kind}"
targets = ["y"]
weights = "count"
test_fraction = 0.25
[problem]
width = 4
effective_depth = 2.0
weight_decay = 0.02
[solve]
layers = 4
polish = false
[validate]
weight_decay = [0.02, 0.1]
effective_depth = [2.0]
width = [4]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    table = pd.DataFrame(rng.standard_normal((32, 3)), columns=list("abc"))
    table["count"] = rng.integers(0, 3, 32)
    table["y"] = np.abs(table["a"]) - table["b"] + 0.1 * rng.standard_normal(32)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet", index=False, row_group_size=9)
    for kind in ("csv", "parquet"):
        (tmp_path / f"{kind}.toml").write_text(TOML.format(kind=kind))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_parquet_table_is_solved_as_the_csv_file(folder, capsys):
    found = {}
    for kind in ("csv", "parquet"):
        code, out, err = run(capsys, "solve", f"{kind}.toml", "-o", kind, "--json", "--set",
                             "solve.starts=1")
        assert code == 0, err
        found[kind] = json.loads(out)
        found[kind].pop("seconds")
    assert found["csv"] == found["parquet"]
    assert any("all test rows count alike" in one for one in found["csv"]["remarks"])
    solution = hs.Solution.load(folder / "parquet" / "solution.npz")
    assert solution.problem.input_names == ("a", "b", "c")
    assert solution.problem.sample_weights is not None
    tables = {}
    for kind in ("csv", "parquet"):
        code, *_ = run(capsys, "predict", "csv/solution.npz", f"t.{kind}", "--keep", "count", "-o",
                       f"{kind}.out")
        assert code == 0
        tables[kind] = (folder / f"{kind}.out").read_text()
    assert tables["csv"] == tables["parquet"]


def test_rows_that_stay_in_their_file_are_solved(folder, capsys):
    code, out, err = run(
        capsys, "solve", "parquet.toml", "-o", "lazy", "--json", "--set", "data.lazy=true",
        "--set", "data.test_fraction=0", "--set", "solve.starts=1", "--set", "data.weights=y")
    assert (code, out) == (2, "")
    assert "weights: column 'y' is a target" in err or "weights: expected None" in err
    (folder / "lazy.toml").write_text(TOML.format(kind="parquet").replace(
        'weights = "count"', "lazy = true").replace("test_fraction = 0.25", ""))
    code, out, err = run(capsys, "solve", "lazy.toml", "-o", "lazy", "--json", "--set",
                         "solve.starts=1")
    assert code == 0, err
    lazy = json.loads(out)
    (folder / "memory.toml").write_text((folder / "lazy.toml").read_text().replace(
        "lazy = true", "lazy = false"))
    code, out, err = run(capsys, "solve", "memory.toml", "-o", "memory", "--json", "--set",
                         "solve.starts=1")
    assert json.loads(out)["objective"] == lazy["objective"]


def test_arrays_of_zarr_are_solved(folder, capsys):
    group = zarr.open_group("g.zarr", mode="w")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((24, 2))
    group.create_array("X", data=X)
    group.create_array("Y", data=X[:, :1] ** 2)
    (folder / "z.toml").write_text('[data]\nfile = "g.zarr"\n[problem]\nwidth = 3\n')
    code, out, err = run(capsys, "solve", "z.toml", "--layers", "4", "--json", "--set",
                         "solve.polish=false", "-o", "z", "--set", "solve.starts=1")
    assert code == 0, err
    assert json.loads(out)["objective"] < 1.0
    code, out, err = run(capsys, "solve", "z.toml", "--set", "data.decimal=,", "-o", "y")
    assert code == 2
    assert "decimal: g.zarr is a Zarr group, which has no such option; it takes none" in err


@pytest.mark.parametrize(("settings", "message"), [
    (["data.file=none.parquet"], "none.parquet: no such file"),
    (["data.file=nosuch://x/t.parquet"], "fsspec does not read it"),
    (["data.separator=;"], "separator: t.parquet is a Parquet table, which has no such option"),
    (["data.weights=c", "data.targets=['y']"], "column 'c': expected a weight >= 0, got -"),
    (["data.weights=y"], "weights: column 'y' is a target"),
    (["data.lazy=1"], "data.lazy: expected true or false, got 1"),
])
def test_bad_input_is_one_line(folder, capsys, settings, message):
    code, out, err = run(capsys, "solve", "parquet.toml",
                         *(part for one in settings for part in ("--set", one)))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_weights_count_in_the_held_out_error(folder, capsys):
    code, out, err = run(capsys, "solve", "csv.toml", "--validate", "--json", "-o", "v")
    assert code == 0, err
    found = json.loads(out)["validation"]
    assert "by their weights" in found["finding"]
    # The error of the choice, from the network of the same try and the rows that are named.
    problem = hs.TrainingProblem.from_csv(
        "t.csv", ["y"], weights="count", test_fraction=0.25, width=4, effective_depth=2.0,
        weight_decay=0.02)
    again = hs.validate(problem, weight_decays=(0.02, 0.1), effective_depths=(2.0,), widths=(4,),
                        layers=4, polish=False)
    rows, best = np.array(found["held_out"]["rows"]), again.best
    errors = (best.network.predict(problem.X[rows])[:, 0] - problem.Y[rows, 0]) ** 2
    s = problem.sample_weights[rows]
    expected = np.sum(s * errors) / np.sum(s) / problem.target_scaling.scale[0] ** 2
    assert best.error == pytest.approx(expected, rel=1e-12)
    assert found["chosen"]["error"] == pytest.approx(expected, rel=1e-9)
    assert expected != pytest.approx(np.mean(errors) / problem.target_scaling.scale[0] ** 2)
    tested = hs.validate(problem, weight_decays=(0.1,), effective_depths=(2.0,), widths=(4,),
                         layers=4, polish=False, held_out="test")
    assert "They count alike here" in tested.finding()


def test_tune_chooses_before_it_solves(folder, capsys):
    (folder / "plain.toml").write_text(TOML.format(kind="csv").replace(
        'weights = "count"', 'drop = ["count"]'))
    code, out, err = run(capsys, "solve", "plain.toml", "--tune", "weight_decay, effective_depth",
                         "-o", "tuned", "--json")
    assert code == 0, err
    summary = json.loads((folder / "tuned" / "summary.json").read_text())
    assert summary == json.loads(out)
    tuning = summary["validation"]
    assert tuning["parameters"] == ["weight_decay", "effective_depth"]
    assert tuning["chosen"]["error"] == min(one["error"] for one in tuning["tries"])
    assert tuning["chosen"]["error"] < tuning["tries"][0]["error"]
    problem = hs.Solution.load(folder / "tuned" / "solution.npz").problem
    assert problem.weight_decay == tuning["chosen"]["weight_decay"]
    assert problem.effective_depth == tuning["chosen"]["effective_depth"]
    assert problem.n_samples == 24  # all training rows


@pytest.mark.parametrize(("options", "message"), [
    (["--tune", "width"], "parameters: expected weight_decay and effective_depth, or one of them"),
    (["--tune", ""], "parameters: expected weight_decay and effective_depth, or one of them"),
    (["--tune", "weight_decay", "--validate"], "--validate, --tune: expected one of them"),
    (["--tune", "weight_decay"], "tune: derivatives of optima take the mean squared error alone, "
                                 "not sample weights"),
])
def test_what_cannot_be_tuned_is_said(folder, capsys, options, message):
    code, out, err = run(capsys, "solve", "csv.toml", *options)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
