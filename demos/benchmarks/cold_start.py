"""How long a first solve takes beside the solve itself: imports, compiling, what was compiled.

Run ``python cold_start.py``; a minute and a half of CPU on one thread (OMP_NUM_THREADS=1), more
than twice that with ``--before PATH``, which measures another checkout of hamshoot too, in turns,
and adds the ratios. ``--turns 1`` takes every number once. ``--small`` does so of one solver, and
writes no file.

A process of its own imports hamshoot and solves a tiny problem twice, by single shooting and by
indirect shooting; its CPU and wall seconds from the start of Python to the end of the first solve,
less those of the second, are what is told, medians of the turns. "cold": an empty cache, which it
fills; "cached": the next process; "no cache": nowhere to keep the code. ``.pyc`` files are there.
Printed, and written to cold_start.json beside the script, with date, machine and versions; wall
seconds mean something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
SOLVERS = {"single shooting": "DirectSingleShooting(layers=5, effort='quick')",
           "indirect": "IndirectShooting(effort='quick')"}
WAYS = ("cold", "cached", "no cache")
TURNS = 3

CHILD = """
import json, sys, time
wall, spent = time.perf_counter(), time.process_time()
if sys.argv[1] == "no cache":
    from numba.core.caching import FunctionCache
    FunctionCache._impl_class._locator_classes = []  # as where no directory can be written
import numpy as np
import hamshoot as hs
if sys.argv[1] == "imports":
    hs.solve, hs.TrainingProblem
    from hamshoot.dynamics import _flow_kernels, _kernels
    print("{}")
    sys.exit()
X = np.random.default_rng(0).normal(size=(6, 2))
problem = hs.TrainingProblem(X, X[:, :1], effective_depth=1.0, weight_decay=0.05, width=3,
                             activation="smooth_relu", epsilon=0.1)
times = []
for turn in range(2):
    times.append((time.process_time(), time.perf_counter()))
    hs.solve(problem, hs.{solver})
times.append((time.process_time(), time.perf_counter()))
second = [b - a for a, b in zip(times[1], times[2])]
print(json.dumps({"CPU": times[1][0] - second[0], "wall": times[1][1] - wall - second[1]}))
"""


def seconds(package: Path, solver: str, way: str, cache: str) -> dict[str, float]:
    """CPU and wall seconds of one process, without the solve itself."""
    environment = {**os.environ, "PYTHONPATH": str(package), "NUMBA_CACHE_DIR": cache,
                   "PYTHONPYCACHEPREFIX": f"{cache}-pyc", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    child = CHILD.replace("{solver}", SOLVERS[solver])
    done = subprocess.run([sys.executable, "-c", child, way], env=environment, check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout)


def measured(packages: dict[str, Path], solver: str, turns: int) -> list[dict[str, object]]:
    """Medians of every way, of every package in turns."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, package in packages.items():  # so that the .pyc files are there
            seconds(package, solver, "imports", f"{folder}/{name}")
        for turn in range(turns):
            for name, package in packages.items():
                cache = f"{folder}/{name}-{turn}"
                os.symlink(f"{folder}/{name}-pyc", f"{cache}-pyc")
                for way in WAYS:
                    found.setdefault((name, way), []).append(
                        seconds(package, solver, way, cache))
    rows = []
    for way in WAYS:
        row: dict[str, object] = {"solver": solver, "way": way}
        for name in packages:
            for clock in ("CPU", "wall"):
                row[f"{clock} {name}"] = round(
                    median(each[clock] for each in found[name, way]), 2)
        if "before" in packages:
            row["ratio of CPU"] = round(row["CPU before"] / row["CPU now"], 2)
        rows.append(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return rows


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout of hamshoot")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    packages = {"now": HERE.parents[1]}
    if options.before is not None:
        packages["before"] = options.before.resolve()
    solvers = list(SOLVERS)[:1] if options.small else list(SOLVERS)
    rows = [row for solver in solvers
            for row in measured(packages, solver, 1 if options.small else options.turns)]
    if options.small:
        return
    versions = {name: importlib.metadata.version(name) for name in ("numba", "numpy", "scipy")}
    (HERE / "cold_start.json").write_text(json.dumps({
        "date": str(datetime.date.today()), "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(), "python": platform.python_version(), "versions": versions,
        "turns": options.turns, "seconds": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
