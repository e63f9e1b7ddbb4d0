"""The command line from a stranger's side: real commands in a fresh directory."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import run

import hamshoot as hs

FIELDS = {"success", "status", "message", "method", "layers", "objective", "loss",
          "parameter_norm", "test_error", "stationarity", "boundary_residual", "hamiltonian",
          "hamiltonian_drift", "bottleneck_rank", "iterations", "seconds"}
SMALL = ["--set", "data.teacher={dims=[3,2,3], samples=10, test_samples=20}",
         "--set", "problem.width=3", "--set", "problem.effective_depth=3", "--layers", "6"]
QUICK = [*SMALL, "--set", "descent.epochs=200", "--set", "descent.sgd_epochs=50"]


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """Directory of one solve of a small problem, and what it printed with --json."""
    out = tmp_path_factory.mktemp("solved") / "new" / "out"
    done = subprocess.run([sys.executable, "-m", "hamshoot", "solve", *SMALL, "-o", out,
                           "--json"], capture_output=True, text=True, timeout=250, check=False)
    return out, done


def test_solve_prints_json_alone_and_writes_the_same(solved):
    out, done = solved
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert set(printed) >= FIELDS
    # Progress goes to the other stream, where it took over two seconds.
    assert not any(line.startswith(("hamshoot:", "Traceback")) for line in
                   done.stderr.splitlines())
    assert printed == json.loads((out / "summary.json").read_text())
    assert printed["success"] is True
    assert printed["stationarity"] <= 1e-6
    assert (out / "solution.png").stat().st_size > 10_000
    assert sorted(p.name for p in out.iterdir()) == ["solution.npz", "solution.png",
                                                     "summary.json"]


def test_verify_agrees_with_solve(solved, capsys):
    out, done = solved
    code, printed, _ = run(capsys, "verify", out / "solution.npz", "--json")
    proof, summary = json.loads(printed), json.loads(done.stdout)
    assert code == 0
    assert proof["holds"] is True
    for name in ("objective", "loss", "parameter_norm", "stationarity", "hamiltonian",
                 "hamiltonian_drift", "boundary_residual"):
        assert proof[name] == pytest.approx(summary[name], rel=1e-9, abs=1e-9), name
    code, printed, _ = run(capsys, "verify", out / "solution.npz")
    assert "every bound holds" in printed


def test_verify_catches_tampering(solved, tmp_path, capsys):
    out, _ = solved
    arrays = dict(np.load(out / "solution.npz"))
    arrays["weights"] = arrays["weights"] * 1.001
    np.savez(tmp_path / "tampered.npz", **arrays)
    code, printed, _ = run(capsys, "verify", tmp_path / "tampered.npz")
    assert code == 1
    assert printed.splitlines()[0].startswith(
        "Certificate: NOT certified: defect of the representations")
    assert "FAIL" in printed


def test_plot_draws_every_panel_and_overwrites_nothing(solved, tmp_path, capsys):
    out, _ = solved
    code, printed, _ = run(capsys, "plot", out / "solution.npz", "-o", tmp_path)
    assert code == 0
    drawn = sorted(p.name for p in tmp_path.iterdir())
    assert len(drawn) >= 4
    assert all(name in printed for name in drawn)
    assert run(capsys, "plot", out / "solution.npz", "-o", tmp_path)[0] == 2
    assert run(capsys, "plot", out / "solution.npz", "-o", tmp_path, "--force")[0] == 0


def test_init_writes_a_problem_that_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "init")[0] == 0
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((16, 3))
    (tmp_path / "train.csv").write_text(
        "a,b,y\n" + "\n".join(",".join(f"{v:.12g}" for v in row) for row in rows)
    )
    code, printed, err = run(capsys, "solve", "PROBLEM.toml", "--layers", "5", "--set",
                             "problem.width=3")
    assert code == 0, err
    assert "objective" in printed
    assert (tmp_path / "hamshoot-results" / "summary.json").exists()


def test_paths_are_relative_to_the_problem_file(tmp_path, capsys):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "t.csv").write_text("a,b,y\n1,2,3\n2,1,0\n4,4,1\n0,3,2\n")
    (tmp_path / "here" / "p.toml").write_text(
        '[data]\nfile = "t.csv"\n[problem]\nwidth = 2\n[solve]\nlayers = 4\n'
    )
    code, _, err = run(capsys, "solve", tmp_path / "here" / "p.toml", "-o", tmp_path / "out")
    assert code == 0, err


def test_compare_tells_the_same_in_table_json_and_file(tmp_path, capsys):
    code, printed, err = run(capsys, "compare", *QUICK, "-o", tmp_path / "out")
    assert code == 0, err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["name"] for row in summary["rows"]] == [
        "optimal control", "gradient descent", "gradient descent, longer",
        "gradient descent, same seconds", "optimal control from descent"]
    for row in summary["rows"]:
        assert set(row) >= FIELDS | {"cost_of_identity", "train_error"}
        assert f"{row['objective']:.8g}" in printed
    assert summary["finding"] in " ".join(printed.split()) or summary["finding"] in printed
    descent, longer, same, continued = summary["rows"][1:]
    assert summary["finding"].startswith("At equal seconds ")
    kept = hs.Solution.load(tmp_path / "out" / "descent_same_seconds.npz")
    assert kept.objective == same["objective"]
    assert len(kept.extra["runs"]) == same["runs"] > 0
    assert kept.message == same["message"]
    assert longer["iterations"] == 10 * descent["iterations"]
    assert continued["objective"] <= min(
        descent["objective"], longer["objective"]) * (1 + 1e-9)
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 20_000
    for name in ("solution.npz", "continued.npz"):
        assert run(capsys, "verify", tmp_path / "out" / name)[0] == 0, name
    for name in ("descent.npz", "descent_longer.npz", "descent_same_seconds.npz"):
        code, printed, _ = run(capsys, "verify", tmp_path / "out" / name)
        assert code == 1
        assert printed.startswith("Certificate: NOT certified: the status, trained, claims no "
                                  "stationary point")
        asked = ("--stationarity", "1e3")
        assert run(capsys, "verify", tmp_path / "out" / name, *asked)[0] == 0, name


@pytest.mark.parametrize(("lines", "tried"), [
    ('schedule = "decay"', {"decay"}),
    ('schedules = ["cosine", "constant"]', {"cosine", "constant"}),
    ("", {"constant", "decay", "cosine"}),
])
def test_the_problem_file_says_which_schedules_descent_tries(lines, tried, tmp_path, capsys):
    (tmp_path / "p.toml").write_text(
        "[data]\nteacher = { dims = [2, 1, 2], samples = 5, test_samples = 5 }\n"
        "[problem]\neffective_depth = 1.0\nwidth = 2\n[solve]\nlayers = 3\n"
        f"[descent]\nrates = [0.1, 0.03]\nepochs = 300\nsgd_epochs = 0\nfinalists = 1\n"
        f"{lines}\n")
    code, _, err = run(capsys, "compare", tmp_path / "p.toml", "-o", tmp_path / "out")
    assert code == 0, err
    descent = hs.Solution.load(tmp_path / "out" / "descent.npz")
    assert {row["schedule"] for row in descent.extra["grid"]} == tried
    assert sum(row["objective"] is not None for row in descent.extra["grid"]) == len(tried)
    assert descent.extra["schedule"] in tried
    row = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"][1]
    assert (row["rate"], row["schedule"]) == (descent.extra["rate"], descent.extra["schedule"])
    assert f"rate {row['rate']:g}, schedule {row['schedule']}" in row["message"]


def test_a_pipe_gets_plain_lines(tmp_path):
    done = subprocess.run([sys.executable, "-m", "hamshoot", "solve", *SMALL, "-o", tmp_path],
                          capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "TrainingProblem" in done.stderr


@pytest.mark.parametrize("command", ["solve", "compare"])
def test_ctrl_c_keeps_the_best_iterate_and_says_so(command, tmp_path):
    arguments = [command, "--set", "data.teacher={dims=[6,2,6], samples=60, test_samples=10}",
                 "--set", "problem.width=10", "--set", "solve.tol=1e-14", "--set",
                 "solve.max_iter=1000000", "--method", "single_shooting", "--layers", "20"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hamshoot", *arguments, "-o", str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    # Interrupt once iterations are being reported, as a person would.
    line = ""
    deadline = time.monotonic() + 120
    while "iteration" not in line and time.monotonic() < deadline:
        line = process.stderr.readline()
    assert "iteration" in line
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert "best iterate is kept" in err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    row = summary if command == "solve" else summary["rows"][0]
    assert summary["success"] is False
    assert row["status"] == "interrupted"
    kept = hs.Solution.load(tmp_path / "out" / "solution.npz")
    assert kept.objective == row["objective"]
    assert np.isfinite(kept.objective)


def test_version_and_help(capsys):
    code, printed, _ = run(capsys, "--version")
    assert (code, hs.__version__ in printed) == (0, True)
    for command in ([], ["solve"], ["compare"], ["verify"], ["export"], ["plot"], ["init"]):
        code, printed, _ = run(capsys, *command, "--help")
        assert code == 0
        assert "Usage" in printed


def test_importing_the_package_loads_no_solver():
    code = ("import sys, hamshoot; print(sorted(m for m in ('casadi', 'numba', 'matplotlib', "
            "'scipy', 'torch', 'rich') if m in sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_function_keeps_its_name_when_its_module_is_imported_first():
    code = ("import hamshoot.study.solve, hamshoot.command.cli, hamshoot as hs; "
            "assert hs.solve.__call__; hs.solve")
    code += "; import types; assert not isinstance(hs.solve, types.ModuleType)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_effort_and_workers_reach_the_search(solved, tmp_path, capsys):
    thorough = json.loads(solved[1].stdout)
    code, printed, err = run(capsys, "solve", *SMALL, "--effort", "quick", "--workers", 2,
                             "--json", "-o", tmp_path / "a")
    assert code == 0, err
    quick = json.loads(printed)
    assert 0 < quick["search"]["rounds"] < thorough["search"]["rounds"]
    # The same in PROBLEM.toml, or by --set; a flag overrides it.
    code, printed, err = run(capsys, "solve", *SMALL, "--set", "solve.effort=thorough",
                             "--set", "solve.workers=1", "--effort", "quick", "--json",
                             "-o", tmp_path / "b")
    assert code == 0, err
    again = json.loads(printed)
    assert again["objective"] == quick["objective"]
    assert again["search"] == quick["search"]


def test_effort_reaches_the_solver_of_a_comparison(tmp_path, capsys):
    code, printed, err = run(capsys, "compare", *QUICK, "--effort", "quick", "--workers", 1,
                             "--json", "-o", tmp_path / "out")
    assert code == 0, err
    rows = json.loads(printed)["rows"]
    config = hs.teacher_problem((3, 2, 3), 10, effective_depth=3.0, weight_decay=3e-3, width=3,
                                test_samples=20)
    alone = hs.solve(config, layers=6, effort="quick")
    assert len(rows[0]["search"]["reheat_rounds"]) == len(alone.extra["reheat_rounds"])


@pytest.mark.parametrize(("arguments", "says"), [
    (["--effort", "heroic"], "effort: expected one of quick, default, thorough, got 'heroic'"),
    (["--workers", "0"], "workers: "),
])
@pytest.mark.parametrize("command", ["solve", "compare"])
def test_effort_and_workers_where_they_do_not_fit(command, arguments, says, tmp_path, capsys):
    code, printed, err = run(capsys, command, *SMALL, *arguments, "-o", tmp_path / "out")
    assert code == 2
    assert printed == ""
    assert err.startswith(f"hamshoot: {says}")
    assert err.count("\n") == 1


def test_the_summary_tells_what_the_search_did(solved):
    out, done = solved
    search = json.loads((out / "summary.json").read_text())["search"]
    extra = hs.Solution.load(out / "solution.npz").extra
    assert search == {
        "starts": len(extra["start_objectives"]), "reheats": len(extra["reheat_objectives"]),
        "rounds": len(extra["reheat_rounds"]), "start_objectives": extra["start_objectives"],
        "reheat_objectives": extra["reheat_objectives"], "reheat_rounds": extra["reheat_rounds"]}
    assert search["starts"] >= 2
    assert search["reheats"] == 4 * search["rounds"] > 0
    assert search["reheat_rounds"] == sorted(search["reheat_rounds"], reverse=True)
    assert json.loads(done.stdout)["objective"] <= search["reheat_rounds"][-1] * 1.01


def test_what_takes_over_two_seconds_is_not_silent_under_json(tmp_path):
    arguments = ["--set", "data.teacher={dims=[6,2,6], samples=60, test_samples=10}",
                 "--set", "problem.width=10", "--set", "problem.effective_depth=7", "--layers",
                 "20", "--set", "solve.time_limit=5"]
    done = subprocess.run([sys.executable, "-m", "hamshoot", "solve", *arguments, "--json", "-o",
                           tmp_path / "out"], capture_output=True, text=True, timeout=250,
                          check=False)
    assert json.loads(done.stdout)["seconds"] > 2
    lines = done.stderr.splitlines()
    assert lines[0].startswith("TrainingProblem")
    assert any(", J " in line and "at most " in line for line in lines[1:])
    assert "\x1b" not in done.stderr
