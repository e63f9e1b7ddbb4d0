"""Killed at any moment, a command leaves what was there or what is new, and the next goes on."""

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import hamshoot as hs
from hamshoot.command.results import COMPARE, INTERRUPTED, SOLVE, Results, recover, swap

BENCHMARKS = Path(__file__).parents[2] / "demos" / "benchmarks"


def results(folder, force=False, names=SOLVE, job="job"):
    return Results(folder, names, force, job)


def files(folder):
    return {p.name: p.read_text() for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def older(tmp_path):
    """A folder of results of `compare`, and a file and a folder of the user's own."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in COMPARE:
        (folder / name).write_text("older")
    (folder / "notes.txt").write_text("mine")
    (folder / "more").mkdir()
    (folder / "more" / "a.txt").write_text("mine too")
    return folder


def test_results_are_swapped_in_as_one_whole_and_other_files_stay(older):
    with results(older, force=True) as new:
        for name in SOLVE:
            new.path(name).write_text("new")
            assert set(files(older).values()) == {"older", "mine"}
        assert new.publish() == older
    assert files(older) == {**dict.fromkeys(SOLVE, "new"), "notes.txt": "mine"}
    assert files(older / "more") == {"a.txt": "mine too"}
    assert [p.name for p in older.parent.iterdir()] == ["out"]


def test_a_command_that_fails_changes_nothing(older):
    before = files(older)
    with pytest.raises(RuntimeError), results(older, force=True) as new:  # noqa: PT012
        new.path("solution.npz").write_text("half")
        raise RuntimeError
    assert files(older) == before
    assert [p.name for p in older.parent.iterdir()] == ["out"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("call", range(9))
def test_a_swap_that_is_cut_short_anywhere_is_finished_by_the_next_command(
        call, exchanges, older, monkeypatch):
    """Every call of the file system in turn does not come back."""
    if not exchanges:
        monkeypatch.setattr("hamshoot.command.results._exchanged_at_once", lambda a, b: False)
    new = results(older, force=True)
    new.__enter__()
    for name in SOLVE:
        new.path(name).write_text("new")
    count = 0

    def counted(name):
        call_it = getattr(os, name)

        def one(*arguments, **options):
            nonlocal count
            if count == call:
                raise Killed
            count += 1
            return call_it(*arguments, **options)

        return one

    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "link", "fsync"):
            patched.setattr(os, name, counted(name))
        with suppress(Killed):
            swap(new.work, older)
    new._unlock()
    if exchanges:  # at every moment one or the other is whole
        seen = {text for name, text in files(older).items() if name != "notes.txt"}
        assert len(seen) == 1
    results_after = results(older, force=True)
    results_after._unlock()
    now = files(older)
    assert now.pop("notes.txt") == "mine"
    assert now in (dict.fromkeys(SOLVE, "new"), dict.fromkeys(COMPARE, "older"))
    assert files(older / "more") == {"a.txt": "mine too"}
    assert count >= call or set(now.values()) == {"new"}


def test_the_current_folder_gets_its_files_one_by_one(older, monkeypatch):
    monkeypatch.chdir(older)
    with results(Path(), force=True) as new:
        for name in SOLVE:
            new.path(name).write_text("new")
        new.publish()
    assert files(older) == {**dict.fromkeys(SOLVE, "new"), "notes.txt": "mine"}
    assert sorted(p.name for p in older.iterdir()) == sorted([*SOLVE, "notes.txt", "more"])


def test_an_interrupted_run_replaces_no_older_result_and_goes_on_over_its_own(older):
    with results(older, force=True) as new:
        new.path("solution.npz").write_text("poor")
        place = new.publish(interrupted=True)
    assert place == older.with_name(f"out-{INTERRUPTED}")
    assert set(files(older).values()) == {"older", "mine"}
    assert files(place) == {"solution.npz": "poor"}

    fresh = older.with_name("fresh")
    with results(fresh) as new:
        new.path("solution.npz").write_text("poor")
        assert new.publish(interrupted=True) == fresh
    with pytest.raises(ValueError, match=r"already holds solution\.npz"):
        results(fresh, job="another")
    with results(fresh) as new:  # the same job, without --force
        new.path("solution.npz").write_text("better")
        new.publish()
    assert files(fresh) == {"solution.npz": "better"}
    with pytest.raises(ValueError, match="already holds"):
        results(fresh)


def test_two_commands_on_one_folder(tmp_path):
    with results(tmp_path / "out"), pytest.raises(ValueError, match="another hamshoot"):
        results(tmp_path / "out", force=True)
    assert not list(tmp_path.iterdir())


def test_nothing_to_recover(tmp_path):
    recover(tmp_path / "none", tmp_path)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "swap.json").write_text("{")
    recover(tmp_path / "work", tmp_path)
    assert (tmp_path / "work").is_dir()


def test_killed_processes_leave_whole_results_and_are_gone_on_from(tmp_path, monkeypatch):
    """A few kills; `demos/benchmarks/kills.py` makes many, and adds to its record."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import kills

    older, reference = tmp_path / "older", tmp_path / "reference"
    assert kills.run(kills.command("solve", older, 2, False))[0] == 0
    code, seconds, err = kills.run(kills.command("solve", reference, 1, False))
    assert code == 0, err
    made = {"seconds": seconds, "objectives": kills.objectives(reference)}
    place = tmp_path / "story"
    place.mkdir()
    counts = kills.story("solve", older, made, place, random.Random(2))
    assert counts["runs to the end"] == 1


def test_the_committed_kills_tore_and_lost_nothing():
    record = json.loads((BENCHMARKS / "kills.json").read_text())
    assert record["torn"] == record["lost"] == 0
    assert record["counts"]["kills"] >= 50
    assert record["counts"]["went on"] > 0


# -- signals ---------------------------------------------------------------------------------------

LONG = ["--set", "data.teacher={dims=[6,2,6], samples=40, test_samples=10}", "--set",
        "problem.width=8", "--set", "solve.tol=1e-14", "--set", "solve.effort=thorough",
        "--method", "single_shooting", "--layers", "12"]


def started(*arguments):
    return subprocess.Popen([sys.executable, "-m", "hamshoot", *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"})


def until_it_iterates(process):
    line = "x"
    while line and "iteration" not in line:
        line = process.stderr.readline()
    assert "iteration" in line


def test_sigterm_keeps_the_best_iterate_and_the_older_result(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "solution.npz").write_text("precious")
    process = started("solve", *LONG, "-o", out, "--force")
    until_it_iterates(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # as batch systems do
    printed, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert (out / "solution.npz").read_text() == "precious"
    kept = hs.Solution.load(tmp_path / f"out-{INTERRUPTED}" / "solution.npz")
    assert kept.status is hs.Status.INTERRUPTED
    assert f"to {tmp_path}/out-{INTERRUPTED}; the older results in {out} were left" in printed
    assert "The same command with --force goes on from what is kept in" in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_is_one_line(number, tmp_path):
    process = started("solve", "-o", tmp_path / "out")
    while "hamshoot" not in Path(f"/proc/{process.pid}/cmdline").read_text():
        pass
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    # Before the first line of ours has run, the answer is Python's own.
    assert "Traceback" not in err or "hamshoot" not in err
    assert not (tmp_path / "out").exists()
