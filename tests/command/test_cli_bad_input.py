"""Bad input ends with exit code 2, one line on standard error, and nothing overwritten."""

import os

import numpy as np
import pytest
from command_line import run

GOOD = "a,b,y\n" + "\n".join(f"{i},{(7 * i) % 11},{(3 * i) % 5}" for i in range(20))
TOML = '[data]\nfile = "t.csv"\n[problem]\nwidth = 4\n[solve]\nlayers = 6\n'


def case(csv=GOOD, toml=TOML, extra=()):
    return {"csv": csv, "toml": toml, "extra": list(extra)}


CASES = {
    "missing data file": (case(csv=None), "no such file"),
    "empty file": (case(csv=""), "empty"),
    "only a header": (case(csv="a,b,y\n"), "at least 2 rows"),
    "one row": (case(csv="a,b,y\n1,2,3\n"), "at least 2 rows of data, got 1"),
    "no header": (case(csv="1,2,3\n4,5,6\n7,8,9\n"), "all numbers"),
    "nan": (case(csv=GOOD + "\nnan,1,2"), "got 'nan'"),
    "infinite": (case(csv=GOOD + "\n1,inf,2"), "got 'inf'"),
    "empty cell": (case(csv=GOOD + "\n1,,2"), "an empty cell"),
    "text in a number column": (case(csv=GOOD + "\n1,two,2"), "column 'b'"),
    "text in the target": (case(csv=GOOD + "\n1,2,two"), "column 'y'"),
    "constant column": (case(csv="a,b,y\n" + "\n".join(f"{i},5,{i}" for i in range(9))),
                        "column 'b' is constant"),
    "constant target": (case(csv="a,b,y\n" + "\n".join(f"{i},{-i},5" for i in range(9))),
                        "column 'y' is constant"),
    "ragged rows": (case(csv=GOOD + "\n1,2"), "expected 3 cells"),
    "repeated column": (case(csv=GOOD.replace("a,b,y", "a,a,y")), "appears twice"),
    "unknown target": (case(extra=["--set", 'data.targets=["z"]']), "no column 'z'"),
    "too many targets": (case(extra=["--set", "data.targets=3"]), "1 to 2 of the 3 columns"),
    "test fraction of one": (case(extra=["--set", "data.test_fraction=1.0"]), "test_fraction"),
    "negative weight decay": (case(extra=["--set", "problem.weight_decay=-1"]), "weight_decay"),
    "zero depth": (case(extra=["--set", "problem.effective_depth=0"]), "effective_depth"),
    "depth is a word": (case(extra=["--set", "problem.effective_depth=deep"]), "effective_depth"),
    "width zero": (case(extra=["--set", "problem.width=0"]), "width"),
    "width of a half": (case(extra=["--set", "problem.width=2.5"]), "width"),
    "unknown activation": (case(extra=["--set", "problem.activation=swish"]), "activation"),
    "epsilon without smooth_relu": (case(extra=["--set", "problem.epsilon=0.1"]), "epsilon"),
    "unknown key": (case(extra=["--set", "problem.widht=4"]), "did you mean 'width'?"),
    "unknown section": (case(toml=TOML + "[model]\nx = 1\n"), "unknown section [model]"),
    "not TOML": (case(toml="[data\nfile ="), "not a TOML file"),
    "file and teacher": (case(toml='[data]\nfile = "t.csv"\nteacher = {}\n'), "got both"),
    "neither file nor teacher": (case(toml="[data]\n"), "got neither"),
    "teacher of one dimension": (case(toml="[data]\nteacher = { dims = [3] }\n"), "dims"),
    "unknown teacher key": (case(toml="[data]\nteacher = { dim = [3, 2] }\n"), "did you mean"),
    "layers below the depth": (case(extra=["--layers", "3"]), "use at least 4"),
    "zero layers": (case(extra=["--layers", "0"]), "layers"),
    "layers is a word": (case(extra=["--layers", "many"]), "--layers"),
    "unknown method": (case(extra=["--method", "magic"]), "method: expected one of"),
    "unknown option of the method": (case(extra=["--set", "solve.tolerance=1"]), "tolerance"),
    "negative tolerance": (case(extra=["--set", "solve.tol=-1"]), "tol"),
    "tolerance is a word": (case(extra=["--set", "solve.tol=small"]), "tol"),
    "negative seed": (case(extra=["--set", "solve.seed=-1"]), "seed"),
    "zero starts": (case(extra=["--set", "solve.starts=0"]), "starts"),
    "unknown start": (case(extra=["--set", "solve.start=middle"]), "start: expected one of"),
    "zero time": (case(extra=["--set", "solve.time_limit=0"]), "time_limit"),
    "malformed override": (case(extra=["--set", "width"]), "expected section.key=value"),
    "unknown option": (case(extra=["--wdith", "4"]), "--wdith"),
    "decimal commas": (case(csv="a;b;y\n1;2;3,5\n2;3;4,5\n3;5;1,5\n"), 'decimal = "," reads it'),
    "dates": (case(csv="day,y\n2024-01-05,1\n2024-01-06,2\n"), "(a date; make a number of it"),
    "words without categories": (case(csv="a,y\noak,1\nelm,2\n"), 'categories = "one-hot"'),
    "missing in an unknown way": (case(extra=["--set", "data.missing=zero"]), "missing: expected"),
    "separator of two characters": (case(extra=["--set", "data.separator=ab"]), "separator"),
    "number of 401 digits": (case(extra=["--set", "problem.weight_decay=1" + 400 * "0"]),
                             "problem.weight_decay: expected a number, got an integer of 401"),
    "seed of 401 digits": (case(extra=["--set", "problem.seed=1" + 400 * "0"]), "401 digits"),
    "digits beyond what Python reads": (case(toml=TOML + "tol = 1" + 5000 * "0"), "not a TOML"),
    "two thousand brackets": (case(toml=TOML + "steps = " + 2000 * "[" + 2000 * "]"),
                              "not a TOML file (brackets are nested too deeply)"),
    "brackets in an override": (case(extra=["--set", "data.targets=" + 2000 * "["]), "no column"),
    "a path as a section": (case(extra=["--set", "data.file.x=1"]), "file is not a section"),
    "noise is a word": (case(extra=["--set", "solve.noise=abc"]), "noise: expected a number >= 0"),
    "ladder of words": (case(extra=["--set", "solve.epsilon=['a', 'b', 'c']"]), "epsilon ladder"),
    "ladder without end": (case(extra=["--set", "solve.epsilon=[1, 1e-300, 0.9999999999]"]),
                           "at most 10000 stages"),
    "width beyond memory": (case(extra=["--set", "problem.width=1000000000"]), "at most 30000"),
    "teacher beyond memory": (case(toml="[data]\nteacher = { samples = 1000000000000 }\n"),
                              "samples, dims: expected arrays of at most"),
    "numbers without squares": (case(csv=GOOD + "\n1e200,1,2"), "whose squares are numbers too"),
}


@pytest.mark.parametrize("command", ["solve", "compare"])
@pytest.mark.parametrize("name", CASES)
def test_bad_problem(name, command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given, words = CASES[name]
    if given["csv"] is not None:
        (tmp_path / "t.csv").write_text(given["csv"])
    (tmp_path / "p.toml").write_text(given["toml"])
    before = sorted(p.name for p in tmp_path.iterdir())
    code, out, err = run(capsys, command, "p.toml", "-o", "out", *given["extra"])
    assert code == 2
    assert out == ""
    assert err.startswith("hamshoot: ")
    assert len(err.strip().splitlines()) == 1
    assert words in err
    assert len(err) < 500
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("long", ["data.file='{}'", "problem.activation='{}'", "solve.start='{}'",
                                  "{}.x=1", "problem.{}=1", "solve.method='{}'", "{}", "solve.{}=1",
                                  "data.targets=['{}']", "problem.lift='{}'", "data.teacher='{}'"])
def test_a_long_value_is_repeated_in_part(long, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(GOOD)
    (tmp_path / "p.toml").write_text(TOML)
    code, _, err = run(capsys, "solve", "p.toml", "--set", long.format(600 * "x"))
    assert code == 2
    assert len(err) < 450


def test_pipes_are_refused_and_not_waited_for(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "p.toml").write_text(TOML.replace("t.csv", "pipe"))
    for problem in ("p.toml", "pipe"):
        code, _, err = run(capsys, "solve", problem)
        assert code == 2
        assert "a pipe or a device" in err


DESCENT = {
    "unknown optimizer": ("descent.optimizer=magic", "optimizer"),
    "negative rate": ("descent.rate=-0.1", "rate"),
    "no epochs": ("descent.epochs=0", "epochs"),
    "unknown schedule": ("descent.schedule=bumpy", "schedule: expected one of constant, decay"),
    "unknown schedules": ("descent.schedules=['decay', 'bumpy']", "got 'bumpy'"),
    "schedules no list": ("descent.schedules='decay'", "descent.schedules: expected a list of str"),
    "unknown steps": ("descent.steps=random", "steps"),
    "unknown descent key": ("descent.learning_rate=0.1", "unknown key descent.learning_rate"),
}


@pytest.mark.parametrize("name", DESCENT)
def test_bad_descent(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setting, words = DESCENT[name]
    code, out, err = run(capsys, "compare", "--set", setting)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert words in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["solve", "compare"])
@pytest.mark.parametrize("present", ["summary.json", "solution.npz"])
def test_results_are_not_overwritten(command, present, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / present).write_text("precious")
    code, _, err = run(capsys, command, "-o", out)
    assert code == 2
    assert "--force overwrites" in err
    assert (out / present).read_text() == "precious"
    assert [p.name for p in out.iterdir()] == [present]


def test_output_that_is_a_file_or_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    code, _, err = run(capsys, "solve", "-o", tmp_path / "file")
    assert code == 2
    assert "expected a directory, got a file" in err
    code, _, err = run(capsys, "solve", "-o", tmp_path / "file" / "below")
    assert code == 2
    assert len(err.strip().splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_directory(tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = run(capsys, "solve", "-o", tmp_path / "locked")
    assert code == 2
    assert "cannot be written to" in err


def test_read_only_file_system(capsys):
    code, _, err = run(capsys, "solve", "-o", "/proc/hamshoot")
    assert code == 2
    assert "cannot be written to" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("command", [["verify"], ["plot"]])
@pytest.mark.parametrize("content", [None, b"", b"text", "foreign", "cut"])
def test_files_that_are_no_solution(command, content, tmp_path, capsys):
    path = tmp_path / "s.npz"
    if content == "foreign":
        np.savez(path, a=np.ones(3))
    elif content == "cut":
        np.savez(path, metadata=np.array("{}"), a=np.ones(3000))
        path.write_bytes(path.read_bytes()[:2000])
    elif content is not None:
        path.write_bytes(content)
    code, out, err = run(capsys, *command, path)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1


def test_init_does_not_overwrite(tmp_path, capsys):
    path = tmp_path / "PROBLEM.toml"
    path.write_text("mine")
    code, _, err = run(capsys, "init", path)
    assert code == 2
    assert "--force" in err
    assert path.read_text() == "mine"
    assert run(capsys, "init", tmp_path / "none" / "P.toml")[0] == 2


def test_missing_problem_file_says_how_to_get_one(tmp_path, capsys):
    code, _, err = run(capsys, "solve", tmp_path / "none.toml")
    assert code == 2
    assert "hamshoot init" in err


def test_no_command_and_unknown_command(capsys):
    assert run(capsys, "sovle")[0] == 2
