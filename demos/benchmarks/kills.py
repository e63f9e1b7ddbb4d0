"""kill −9 at random moments of a command: what is on disk is whole, and the next run goes on.

Run ``python kills.py [KILLS] [SEED] [WRITE] [KIND …]``, some ten seconds a kill on a busy machine;
with WRITE the counts go to kills.json, added to those of the runs before. The kinds are solve,
compare, sweep and report, all by default, and cluster: a sweep by the workers of a Dask scheduler
of its own, of which the command, a worker or the scheduler is killed.

Each story of `solve`, `compare` or `sweep` begins with an empty folder, or with the finished
results of another problem and ``--force``. The command is killed from three to eight times, after
a random share of the time that it takes, and then left to end. After every kill

* each file there can be read, and the summary has the objectives of the solutions beside it;
* the older results are all there, or the new ones are, and never some of each.

What the last run ends with is compared with a run that was not disturbed: the objectives of all
rows but the one that depends on the clock, to the last digit; and nothing hidden is left. The page
of `report` is the older one, the new one to the last byte, or not there.
"""

from __future__ import annotations

import collections
import datetime
import importlib.metadata
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hamshoot as hs

HERE = Path(__file__).parent
SOLUTIONS = {"optimal control": "solution.npz", "gradient descent": "descent.npz",
             "gradient descent, longer": "descent_longer.npz",
             "gradient descent, same seconds": "descent_same_seconds.npz",
             "optimal control from descent": "continued.npz"}
CLOCK = "gradient descent, same seconds"  # how far it gets depends on the clock
KINDS = ["solve", "compare", "sweep", "report"]


def command(kind: str, folder: Path, seed: int, force: bool) -> list[str]:
    """A command of some seconds on a small problem, that of a seed."""
    settings = ["data.teacher={dims=[3,2,3], samples=8, test_samples=5}", "problem.width=3",
                "problem.effective_depth=3", f"problem.seed={seed}", "descent.epochs=60",
                "descent.sgd_epochs=10", "descent.rates=[0.1]", "descent.schedule=decay",
                "solve.effort=quick"]
    options = [part for setting in settings for part in ("--set", setting)]
    if kind == "sweep":
        options += ["--over", "weight_decay=0.002:0.1:6:log", "--search", "1"]
    return [sys.executable, "-m", "hamshoot", kind, *options, "--layers", "5", "-o", str(folder),
            *(["--force"] if force else [])]


def run(arguments: list[str], after: float | None = None) -> tuple[int, float, str]:
    """Exit code, seconds and standard error; killed after so many seconds, if any."""
    began = time.monotonic()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        _, err = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
    return process.returncode, time.monotonic() - began, err


def objectives(folder: Path) -> dict[str, float]:
    """J by row, of whole results; AssertionError where files do not belong together."""
    if not folder.exists():
        return {}
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")], "hidden files"
    present = {p.name for p in folder.iterdir()}
    if not present:
        return {}
    if "index.json" in present:
        found = hs.Sweep.load(folder)
        assert found.complete, "a part of a sweep"
        files = {path.name for path in (folder / "sweep-points").iterdir()}
        assert files == {f"{k:04d}.npz" for k in range(len(found))}, files
        for point in found:
            assert point.solution.objective == point.objective, point
        assert not {"solution.npz", "summary.json"} & present, "files of others"
        return {f"point {k}": point.objective for k, point in enumerate(found)}
    summary = json.loads((folder / "summary.json").read_text())
    rows = summary.get("rows") or [{**summary, "name": "optimal control"}]
    expected = {SOLUTIONS[row["name"]] for row in rows} | {"summary.json"}
    assert expected <= present, f"{expected - present} missing"
    assert {name for name in present if name.endswith(".npz")} <= expected, "solutions of others"
    for row in rows:
        kept = hs.Solution.load(folder / SOLUTIONS[row["name"]])
        assert kept.objective == row["objective"], row["name"]
    return {row["name"]: row["objective"] for row in rows}


def steady(found: dict[str, float]) -> dict[str, float]:
    """Those that do not depend on the clock."""
    return {name: value for name, value in found.items() if name != CLOCK}


def story(kind: str, older: Path | None, reference: dict[str, Any], place: Path,
          rng: random.Random) -> collections.Counter:
    """One folder: kills, then a run to the end; counts of what happened."""
    counts: collections.Counter = collections.Counter()
    folder = place / "results"
    before: dict[str, float] = {}
    if older is not None:
        shutil.copytree(older, folder)
        (folder / "notes.txt").write_text("mine")
        before = objectives(folder)
    arguments = command(kind, folder, 1, older is not None)
    for _ in range(rng.randint(3, 8)):
        code, _, err = run(arguments, rng.uniform(0, 0.9) * reference["seconds"])
        found = objectives(folder)
        if code == 0:
            counts["ended before the kill"] += 1
        else:
            assert code == -9, err
            counts["kills"] += 1
            new = steady(found) == steady(reference["objectives"])
            assert found == before or new, (found, before)
            counts["kills after the swap"] += new and found != before
        arguments = command(kind, folder, 1, bool(found))  # results are there: of before, or new
        before = found
    code, _, err = run(command(kind, folder, 1, True))
    assert code == 0, err
    assert "Traceback" not in err, err
    counts["went on"] += "Going on from" in err
    counts["runs to the end"] += 1
    assert steady(objectives(folder)) == steady(reference["objectives"])
    assert sorted(p.name for p in place.iterdir()) == ["results"], "something hidden is left"
    if older is not None:
        assert (folder / "notes.txt").read_text() == "mine"
    return counts


def story_of_a_page(results: Path, place: Path, rng: random.Random) -> collections.Counter:
    """`report` of results, killed while it works, over no page or an older one."""
    counts: collections.Counter = collections.Counter()
    page, older = place / "page.html", None
    make = [sys.executable, "-m", "hamshoot", "report", str(results), "-o", str(page)]
    code, seconds, err = run([*make[:-1], str(place / "whole.html")])
    assert code == 0, err
    whole = (place / "whole.html").read_bytes()
    if rng.random() < 0.5:
        page.write_text("older")
        older = b"older"
    for _ in range(rng.randint(3, 8)):
        code, _, err = run([*make, *(["--force"] if page.exists() else [])],
                           rng.uniform(0.3, 1.1) * seconds)
        assert code in (0, -9), err
        counts["kills" if code else "ended before the kill"] += 1
        found = page.read_bytes() if page.exists() else None
        assert found in (older, whole), "half a page"
        older = found
        assert {path.name for path in place.iterdir()} <= {"page.html", "whole.html"}, "hidden"
    code, _, err = run([*make, "--force"])
    assert code == 0, err
    assert page.read_bytes() == whole
    counts["runs to the end"] += 1
    return counts


def story_of_a_cluster(reference: dict[str, Any], place: Path, rng: random.Random
                       ) -> collections.Counter:
    """A sweep by a cluster: the command, a worker or the scheduler is killed, and another goes on.

    Where the scheduler is gone the command is waited for, a minute at most, and is to say so.
    """
    counts: collections.Counter = collections.Counter()
    folder = place / "results"
    for turn in range(rng.randint(2, 4)):
        with cluster(place / f"cluster-{turn}") as (address, processes):
            arguments = [*command("sweep", folder, 1, True), "--scheduler", address]
            whom = rng.choice(["command", "worker", "scheduler"])
            process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, text=True)
            time.sleep(rng.uniform(0.3, 1.0) * reference["seconds"])
            victim = {"command": process, **processes}[whom]
            victim.kill()
            _, err = process.communicate(timeout=60)
            ended = process.returncode
            assert "Traceback" not in err, err
            assert ended in (0, 1) or (whom == "command" and ended == -9), (whom, ended, err)
            counts[f"kills of the {whom}"] += 1
            counts["kills"] += 1
            # What a lost cluster leaves is part of a sweep, and says so.
            if ended == 1 and folder.exists():
                assert not hs.Sweep.load(folder).complete
            elif ended == 0:
                assert steady(objectives(folder)) == steady(reference["objectives"])
    code, _, err = run(command("sweep", folder, 1, True))
    assert code == 0, err
    counts["went on"] += "Going on from" in err
    counts["runs to the end"] += 1
    assert steady(objectives(folder)) == steady(reference["objectives"])
    left = {path.name for path in place.iterdir() if not path.name.startswith("cluster-")}
    assert left == {"results"}, left
    return counts


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, dict[str, subprocess.Popen]]]:
    """Address and processes of a scheduler with two workers of one thread each."""
    folder.mkdir()
    file = folder / "scheduler.json"

    def start(name: str, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{name}", "--scheduler-file", str(file),
             "--no-dashboard", *arguments], cwd=folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})

    processes = {"scheduler": start("scheduler", "--port", "0")}
    for name in ("worker", "other"):
        processes[name] = start("worker", "--nthreads", "1", "--no-nanny")
    try:
        while not file.is_file() or not file.read_text().rstrip().endswith("}"):
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def references(place: Path) -> dict[str, dict[str, Any]]:
    """Undisturbed runs: seconds and objectives; and the older results of another problem."""
    made = {}
    for kind in ("solve", "compare", "sweep"):
        folder = place / kind
        code, _, err = run(command(kind, place / f"older-{kind}", 2, False))  # compiles, too
        assert code == 0, err
        code, seconds, err = run(command(kind, folder, 1, False))
        assert code == 0, err
        made[kind] = {"seconds": seconds, "objectives": objectives(folder)}
    return made


def main() -> None:
    """Tell stories until there were so many kills."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    record = HERE / "kills.json" if "WRITE" in sys.argv[3:] else None
    kinds = [one for one in sys.argv[3:] if one != "WRITE"] or KINDS
    rng, counts = random.Random(seed), collections.Counter()
    with tempfile.TemporaryDirectory() as root:
        place = Path(root)
        made = references(place)
        while counts["kills"] < most:
            kind = rng.choice(kinds)
            older = rng.choice([None, *(place / f"older-{one}" for one in made)])
            folder = place / f"story-{rng.randrange(10**9)}"
            folder.mkdir()
            if kind == "report":
                told = story_of_a_page(place / "compare", folder, rng)
            elif kind == "cluster":
                told = story_of_a_cluster(made["sweep"], folder, rng)
            else:
                told = story(kind, older, made[kind], folder, rng)
            told[f"stories of {kind}"] += 1
            shutil.rmtree(folder)
            counts += told
            if record is not None:  # to which another process may have added meanwhile
                write(record, seed, recorded(record) + told)
            print(dict(counts), flush=True)


def recorded(record: Path) -> collections.Counter:
    """The counts of a record, none where there is none yet."""
    return collections.Counter(json.loads(record.read_text())["counts"] if record.exists() else {})


def write(record: Path, seed: int, counts: collections.Counter) -> None:
    """The counts so far, and where they are from; what is torn or lost ends the script before."""
    about = {"date": datetime.date.today().isoformat(), "last seed": seed,
             "machine": platform.machine(), "cores": os.cpu_count(),
             "version": importlib.metadata.version("hamshoot"), "torn": 0, "lost": 0}
    whole = {**about, "counts": dict(sorted(counts.items()))}
    record.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
