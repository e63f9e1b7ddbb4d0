"""`hamshoot sweep`: its results as one whole, what it refuses, and how it goes on after a kill."""

import json
import os
import signal
import subprocess
import sys

import pytest

import hamshoot as hs
from hamshoot.command.cli import main
from hamshoot.command.sweep import read_over
from hamshoot.study.sweep_files import Index

QUICK = ["--method", "single_shooting", "--layers", "6", "--set", "solve.start=path",
         "--set", "data.teacher={dims=[2,1,2], samples=6, test_samples=10}", "--set",
         "problem.width=2", "--set", "problem.effective_depth=2.0", "--search", "1"]
OVER = ["--over", "weight_decay=0.01:0.04:3:log"]


def _run(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sweep", *map(str, arguments)])
    return ended.value.code, capsys.readouterr()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep on disk, made once."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    with pytest.raises(SystemExit) as ended:
        main(["sweep", *QUICK, *OVER, "-o", str(out)])
    assert ended.value.code == 0
    return out


def test_a_sweep_leaves_table_figure_and_solutions(made):
    assert sorted(p.name for p in made.iterdir()) == [
        "index.csv", "index.json", "sweep-points", "sweep.png"]
    assert not list(made.parent.glob(".*"))
    found = hs.Sweep.load(made)
    assert [point.values["weight_decay"] for point in found] == pytest.approx([0.01, 0.02, 0.04])
    for point in found:
        solution = point.solution
        assert solution.problem.weight_decay == point.values["weight_decay"]
        alone = hs.solve(solution.problem, "single_shooting", layers=6, start="path")
        assert point.objective <= alone.objective * (1 + 1e-6)
        assert hs.certify(solution).holds


def test_results_are_replaced_only_by_force_and_as_one(made, tmp_path, capsys):
    code, said = _run([*QUICK, *OVER, "-o", made], capsys)
    assert code == 2
    assert "already holds index.json, index.csv, sweep-points, sweep.png; --force" in said.err
    before = (made / "index.json").read_text()
    code, said = _run([*QUICK, "--over", "weight_decay=0.02", "-o", made, "--force", "--json"],
                      capsys)
    assert code == 0
    summary = json.loads(said.out)
    assert [row["weight_decay"] for row in summary["points"]] == [0.02]
    assert [p.name for p in (made / "sweep-points").iterdir()] == ["0000.npz"]
    assert (made / "index.json").read_text() != before
    # solve takes away what belongs to a sweep.
    with pytest.raises(SystemExit):
        main(["solve", *QUICK[:-2], "-o", str(made), "--force"])
    assert sorted(p.name for p in made.iterdir()) == ["solution.npz", "solution.png",
                                                      "summary.json"]


def test_the_current_folder_gets_its_files_one_by_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    for values in ("0.01,0.02", "0.03"):
        code, _ = _run([*QUICK, "--over", f"weight_decay={values}", "-o", ".", "--force"], capsys)
        assert code == 0
        assert len(list((tmp_path / "sweep-points").iterdir())) == 1 + values.count(",")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_problem_toml_can_say_it_all(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "P.toml").write_text(
        "[data]\nteacher = { dims = [2, 1, 2], samples = 6, test_samples = 0 }\n"
        "[problem]\neffective_depth = 2.0\nwidth = 2\n[solve]\nlayers = 6\nstart = 'path'\n"
        "[sweep]\nweight_decay = [0.01, 0.02]\nsearch = 1\n")
    code, said = _run(["P.toml", "--directory", "there", "--workers", "2"], capsys)
    assert code == 0
    assert "2 of 2 points" in said.out
    assert len(hs.Sweep.load(tmp_path / "there")) == 2
    code, said = _run(["P.toml", "--set", "sweep.width=[2.5]"], capsys)
    assert (code, "sweep.width: expected a list of integers" in said.err) == (2, True)


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "--over: expected what to sweep over"),
    (["--over", "depth=1,2"], "--over: expected one of effective_depth, weight_decay"),
    (["--over", "weight_decay"], "--over: expected a parameter and its values"),
    (["--over", "weight_decay=1:2"], "first:last:how many"),
    (["--over", "weight_decay=1:2:3:cubic"], "first:last:how many"),
    (["--over", "weight_decay=1:2:2.5"], "expected 1 to 100000 values"),
    (["--over", "weight_decay=a"], "--over: expected numbers > 0, got 'a'"),
    (["--over", "weight_decay=-1"], "--over: expected numbers > 0, got '-1'"),
    (["--over", "weight_decay=1", "--over", "weight_decay=2"], "weight_decay is given twice"),
    (["--over", "width=2.5"], "expected whole numbers as widths"),
    (["--over", "effective_depth=1:60:3"], "use at least 31"),
    (["--over", "weight_decay=1", "--search", "some"], "--search: expected a number of points"),
    (["--over", "weight_decay=1", "--workers", "0"], "--workers: expected an integer >= 1"),
    (["--over", "epsilon=0.1"], "epsilon is swept where the activation is smooth_relu"),
])
def test_bad_input_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, said = _run([*QUICK, *arguments], capsys)
    assert code == 2
    assert words in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_values_are_spaced_as_asked():
    assert read_over(["effective_depth=1:7:4"]) == {"effective_depth": [1, 3, 5, 7]}
    assert read_over(["weight_decay=1e-4:1e-2:3:log"])["weight_decay"] == pytest.approx(
        [1e-4, 1e-3, 1e-2])
    assert read_over(["width=2,4", "epsilon=0.1"]) == {"width": [2, 4], "epsilon": [0.1]}


LONG = ["--over", "weight_decay=0.001:0.1:8:log"]


def objectives(folder):
    return [point.objective for point in hs.Sweep.load(folder)]


def test_killed_it_goes_on_to_the_same_end(tmp_path, capsys):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "hamshoot", "sweep", *QUICK, *LONG, "-o", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"})
    seen = 0
    while seen < 3:
        line = process.stderr.readline()
        assert line, "it ended before it was to be killed"
        seen += line.startswith("Point(")
    process.kill()
    process.communicate()
    assert not out.exists()
    code, said = _run([*QUICK, *LONG, "-o", out], capsys)
    assert code == 0
    assert "Going on from what an earlier run had kept" in said.err
    assert _run([*QUICK, *LONG, "-o", tmp_path / "whole"], capsys)[0] == 0
    assert objectives(out) == objectives(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "whole"]


def test_a_signal_keeps_what_is_done_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    written, write = [], Index.write

    def signalled(self, *arguments, **options):
        write(self, *arguments, **options)
        written.append(1)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(Index, "write", signalled)
        code, said = _run([*QUICK, *LONG, "-o", out], capsys)
    assert code == 1
    assert "NOT CONVERGED. 3 of 8 points" in said.out
    assert "The same command goes on from what is kept" in said.out
    assert not hs.Sweep.load(out).complete
    code, said = _run([*QUICK, *LONG, "-o", out], capsys)
    assert code == 0
    assert "Going on from what an earlier run had kept" in said.err
    assert hs.Sweep.load(out).complete
    assert len(objectives(out)) == 8
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
