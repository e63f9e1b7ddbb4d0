"""`hamshoot solve --validate` and `--from`, from a stranger's side."""

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
[solve]
layers = 5
effort = "quick"
reheats = 0
polish = false
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A fresh directory with a table and its problem."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((15, 2)) * [10, 0.1] + [50, 3]
    price = 1000 + 30 * np.abs(rows[:, 0] - 50)
    lines = [f"{a:.6g};{b:.6g};{c:.6g}" for (a, b), c in zip(rows, price, strict=True)]
    (tmp_path / "houses.csv").write_text("\n".join(["size;rooms;price", *lines]))
    (tmp_path / "p.toml").write_text(TOML)
    return tmp_path


GRID = ["--set", "validate.weight_decay=[0.02, 0.1]", "--set", "validate.effective_depth=[2]",
        "--set", "validate.width=[2, 3]"]


# -- validation ------------------------------------------------------------------------------------


def test_validate_chooses_and_says_what_it_tried(folder, capsys):
    code, printed, err = run(capsys, "solve", "p.toml", "--validate", *GRID)
    assert code == 0, err
    summary = json.loads((folder / "hamshoot-results" / "summary.json").read_text())
    told, solution = summary["validation"], hs.Solution.load("hamshoot-results/solution.npz")
    assert sorted((one["weight_decay"], one["width"]) for one in told["tries"]) == [
        (0.02, 2), (0.02, 3), (0.1, 2), (0.1, 3)]
    assert told["chosen"]["error"] == min(one["error"] for one in told["tries"])
    problem = solution.problem
    assert (problem.weight_decay, problem.width) == (told["chosen"]["weight_decay"],
                                                     told["chosen"]["width"])
    assert problem.n_samples == 15  # all rows, in the end
    assert printed.count("← chosen") == 1
    assert told["finding"] in printed
    for one in told["tries"]:
        assert f"{one['error']:.5g}" in printed
        assert f"width {one['width']}: held-out error {one['error']:.5g}" in err


def test_validate_with_json_prints_json_alone_and_is_repeatable(folder, capsys):
    first, second = (run(capsys, "solve", "p.toml", "--validate", *GRID, "--json", "-o", out)[1]
                     for out in ("a", "b"))
    told = [json.loads(text)["validation"] for text in (first, second)]
    for one in told:
        for each in (one["chosen"], *one["tries"]):
            del each["seconds"]
    assert told[0] == told[1]
    assert json.loads(first) == json.loads((folder / "a" / "summary.json").read_text())


def test_validate_on_test_rows_and_in_the_file(folder, capsys):
    (folder / "p.toml").write_text(TOML.replace("[problem]", "test_fraction = 0.2\n[problem]") + """
[validate]
held_out = "test"
weight_decay = [0.02]
effective_depth = [1, 2]
width = [3]
""")
    code, printed, err = run(capsys, "solve", "p.toml", "--validate", "--json")
    assert code == 0, err
    told = json.loads(printed)["validation"]
    assert told["held_out"]["from"] == "test"
    assert told["held_out"]["count"] == 3
    # Without the flag the section is checked, and that is all.
    code, printed, err = run(capsys, "solve", "p.toml", "--json", "-o", "plain")
    assert code == 0, err
    assert "validation" not in json.loads(printed)


@pytest.mark.parametrize(("setting", "words"), [
    ("validate.width=[2.5]", "validate.width: expected a list of integers"),
    ("validate.held_out=1.5", r"validate.held_out: expected a share in (0, 1) or 'test', got 1.5"),
    ("validate.held_out=test", "expected a problem with test rows"),
    ("validate.depths=[1]", "unknown key validate.depths"),
    ("validate.weight_decay=[-1]", "weight_decays: expected a finite number > 0"),
])
def test_bad_settings_of_validation_are_a_sentence(folder, capsys, setting, words):
    code, printed, err = run(capsys, "solve", "p.toml", "--validate", "--set", setting)
    assert (code, printed) == (2, "")
    assert words in err.splitlines()[-1]
    assert not list((folder / "hamshoot-results").glob("*"))


# -- going on --------------------------------------------------------------------------------------


@pytest.fixture
def stopped(folder, capsys):
    """A result that the iteration limit ended."""
    code, _, _ = run(capsys, "solve", "p.toml", "-o", "first", "--set", "solve.max_iter=10")
    assert code == 1
    return folder / "first" / "solution.npz"


def test_a_stopped_result_is_gone_on_with(stopped, capsys):
    before = hs.Solution.load(stopped)
    assert before.status is hs.Status.MAX_ITER
    for out, arguments in (("own", []), ("toml", ["p.toml"])):
        code, _, err = run(capsys, "solve", *arguments, "--from", stopped, "-o", out)
        assert code == 0, err
        after = hs.Solution.load(f"{out}/solution.npz")
        assert after.success
        assert after.layers == before.layers == 5
        assert after.objective < before.objective
        # From a guess there is no search with starts.
        assert json.loads((stopped.parents[1] / out / "summary.json").read_text())["search"] is None
    # The same problem either way, the same columns and units.
    np.testing.assert_array_equal(after.problem.X, before.problem.X)


def test_other_values_are_continuation(stopped, capsys):
    code, _, err = run(capsys, "solve", "--from", stopped, "-o", "next", "--set",
                       "problem.weight_decay=0.03", "--set", "problem.effective_depth=3")
    assert code == 0, err
    after = hs.Solution.load("next/solution.npz")
    assert (after.problem.weight_decay, after.problem.effective_depth) == (0.03, 3.0)
    assert after.problem.input_names == ("size", "rooms")
    code, _, err = run(capsys, "solve", "--from", "next/solution.npz", "-o", "deeper",
                       "--layers", "8", "--set", "problem.activation=smooth_relu")
    assert code == 0, err
    deeper = hs.Solution.load("deeper/solution.npz")
    assert (deeper.layers, deeper.problem.activation) == (8, "smooth_relu")


def test_the_results_own_file_may_be_overwritten_when_that_is_asked_for(stopped, capsys):
    assert run(capsys, "solve", "--from", stopped, "-o", "first")[0] == 2
    assert run(capsys, "solve", "--from", stopped, "-o", "first", "--force")[0] == 0
    assert hs.Solution.load(stopped).success


def test_irregular_layers_are_kept(folder, capsys):
    assert run(capsys, "solve", "p.toml", "-o", "a", "--set", "solve.steps=irregular")[0] == 0
    assert run(capsys, "solve", "p.toml", "-o", "b", "--from", "a/solution.npz")[0] == 0
    a, b = (hs.Solution.load(f"{name}/solution.npz") for name in "ab")
    assert np.ptp(a.steps) > 0
    np.testing.assert_array_equal(a.steps, b.steps)
    assert b.objective <= a.objective * (1 + 1e-9)


def runge_kutta():
    problem = hs.teacher_problem((2, 1, 2), 6, width=2, effective_depth=2.0, weight_decay=0.02,
                                 test_samples=0, activation="smooth_relu")
    return hs.solve(problem, hs.DirectMultipleShooting(layers=5, integrator="rk4", start="path"))


def hard_endpoint():
    problem = hs.TrainingProblem(np.eye(2), endpoint=[[0.8, 0.2], [0.1, 0.7]], effective_depth=1.0,
                                 weight_decay=0.1, width=2, activation="smooth_relu")
    return hs.solve(problem, layers=5)


@pytest.mark.parametrize("solved", [runge_kutta, hard_endpoint])
def test_results_of_other_kinds_stay_what_they_are(folder, capsys, solved):
    before = solved()
    before.save("r.npz")
    code, _, err = run(capsys, "solve", "--from", "r.npz", "-o", "out",
                       "--set", "problem.effective_depth=1.5")
    assert code == 0, err
    after = hs.Solution.load("out/solution.npz")
    for name in ("integrator", "layers"):
        assert getattr(after, name) == getattr(before, name)
    assert after.problem.hard_endpoint == before.problem.hard_endpoint
    assert after.problem.effective_depth == 1.5


@pytest.mark.parametrize(("arguments", "words"), [
    (["p.toml", "--set", "problem.width=4"],
     "holds a network of 3 neurons (problem.width), this problem has 4"),
    (["p.toml", "--set", "data.drop=['rooms']"], "2 input columns, this problem has 1"),
    (["p.toml", "--set", "data.targets=['price','rooms']"], "input columns"),
    (["p.toml", "--set", "data.targets=['size']"], "'size' among its input_names"),
    (["p.toml", "--set", "problem.bias=false"], "with bias, this problem is one without"),
    (["p.toml", "--set", "problem.lift=orthonormal"], "the lift of"),
    (["--set", "data.test_fraction=0.2"], "the data are those of solution.npz"),
    (["--set", "problem.width=4"], "problem.width: solution.npz holds its own"),
    (["p.toml", "--validate"], "--from, --validate: expected one of them"),
    (["--layers", "1"], "use at least 3"),
])
def test_what_does_not_fit_is_a_sentence(stopped, capsys, arguments, words):
    code, printed, err = run(capsys, "solve", *arguments, "--from", stopped, "-o", "out")
    assert (code, printed) == (2, "")
    assert len(err.splitlines()) == 1
    assert words in err


@pytest.mark.parametrize("text", [None, "no result\n"])
def test_what_is_no_result_is_a_sentence(folder, capsys, text):
    if text is not None:
        (folder / "r.npz").write_text(text)
    code, _, err = run(capsys, "solve", "--from", "r.npz")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "r.npz: " in err
