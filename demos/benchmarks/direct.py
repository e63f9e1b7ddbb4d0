"""Direct multiple shooting with IPOPT, warm and cold, with fatrop, and direct single shooting.

Run ``python direct.py``; ``--small`` solves the smallest problem once and writes no file,
``--large`` adds (8, 50, 20), one run each of IPOPT and single shooting. ReLU networks of one
teacher problem per size, one start each (seed 0, the path start), every method with its own
defaults: the ladder from ε = 0.5 down, then the polish. Times are medians of repeats taken in turns
in one run, and include building the program; compilation and imports come before the clock starts.
A run that takes longer than TIME_LIMIT ends there, says so, and is not repeated. The table is
printed and goes to direct.csv beside the script.

Every method may end at a stationary point of its own: read the objectives beside the times.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import os
import platform
import statistics
import time
from pathlib import Path

import hamshoot as hs

SIZES = ((4, 20, 10), (6, 30, 12), (6, 30, 20))
LARGE = (8, 50, 20)
REPEATS = 3
TIME_LIMIT = 120.0  # seconds a run; ten times that with --large
REFERENCE = "ipopt"
METHODS = ("ipopt", "ipopt cold", "fatrop", "single shooting")
COLUMNS = ("width", "samples", "layers", "method", "seconds", "seconds_min", "seconds_max", "runs",
           "over_ipopt", "iterations", "objective", "stationarity", "status")


def method_of(name: str, layers: int, time_limit: float):
    """The method object of a row."""
    if name == "single shooting":
        return hs.DirectSingleShooting(layers=layers, starts=1, time_limit=time_limit)
    nlp_solver, _, cold = name.partition(" ")
    return hs.DirectMultipleShooting(layers=layers, nlp_solver=nlp_solver, warm_up=not cold,
                                     time_limit=time_limit)


def problem_of(width: int, samples: int) -> hs.TrainingProblem:
    """ReLU, bottleneck 2, effective depth 3, weight decay 3e-3."""
    return hs.teacher_problem(dims=(4, 2, 4), samples=samples, width=width, effective_depth=3.0,
                              weight_decay=3e-3, seed=0)


def load_first() -> None:
    """Compile the kernels and load CasADi and its solvers, on a problem of no account."""
    for name in METHODS:
        method_of(name, 4, TIME_LIMIT).solve(problem_of(4, 4))


def measured(size: tuple[int, int, int], names: tuple[str, ...], repeats: int,
             time_limit: float) -> list[dict]:
    """Rows of one size; the methods take turns, so that a busy minute hits them alike."""
    width, samples, layers = size
    problem = problem_of(width, samples)
    seconds, solutions = {name: [] for name in names}, {}
    for _ in range(repeats):
        for name in names:
            if seconds[name] and seconds[name][-1] > time_limit:
                continue
            clock = time.perf_counter()
            solutions[name] = method_of(name, layers, time_limit).solve(problem)
            seconds[name].append(time.perf_counter() - clock)
    reference = statistics.median(seconds[REFERENCE])
    rows = []
    for name in names:
        taken, solution = seconds[name], solutions[name]
        median = statistics.median(taken)
        rows.append(dict(zip(COLUMNS, (
            width, samples, layers, name, round(median, 3), round(min(taken), 3),
            round(max(taken), 3), len(taken), round(median / reference, 3), solution.nit,
            f"{solution.objective:.12g}", f"{solution.stationarity:.1e}",
            solution.status.name.lower()), strict=True)))
        print_row(rows[-1])
    return rows


def print_row(row: dict) -> None:
    size = f"({row['width']}, {row['samples']}, {row['layers']})"
    print(f"{size:<13}{row['method']:<17}{row['seconds']:>9.2f}{row['over_ipopt']:>9.2f}"
          f"{row['iterations']:>8}  {float(row['objective']):.9f}  {row['stationarity']}  "
          f"{row['status']}", flush=True)


def where_and_when() -> dict[str, str]:
    """Columns that say where and when the numbers come from."""
    versions = [f"{name} {importlib.metadata.version(name)}"
                for name in ("numpy", "scipy", "casadi", "numba")]
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, "
                   f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
        "versions": f"python {platform.python_version()}, " + ", ".join(versions),
    }


def findings(rows: list[dict]) -> str:
    """One sentence per size: the fastest method that converged, and the lowest objective."""
    sentences = []
    for size in sorted({(r["width"], r["samples"], r["layers"]) for r in rows}):
        here = [r for r in rows if (r["width"], r["samples"], r["layers"]) == size]
        done = [r for r in here if r["status"] == "converged"]
        if not done:
            sentences.append(f"At (w, N, L) = {size} no method converged.")
            continue
        fastest = min(done, key=lambda r: r["seconds"])
        lowest = min(here, key=lambda r: float(r["objective"]))
        missed = ", ".join(f"{r['method']} {r['status']}" for r in here if r not in done)
        sentences.append(
            f"At (w, N, L) = {size} {fastest['method']} was the fastest to converge, in "
            f"{fastest['seconds']:.2f} s ({fastest['over_ipopt']:.2f} of IPOPT), "
            f"{lowest['method']} found the lowest objective, {float(lowest['objective']):.7f}"
            + (f"; not converged: {missed}." if missed else "."))
    return "\n".join(sentences)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="(4, 20, 10) once, no file written")
    parser.add_argument("--large", action="store_true", help="(8, 50, 20) too, one run each")
    given = parser.parse_args(arguments)
    load_first()
    where = where_and_when()
    print(", ".join(where.values()))
    print(f"{'(w, N, L)':<13}{'method':<17}{'seconds':>9}{'/ ipopt':>9}{'iter.':>8}  "
          f"{'objective':<11}  {'station.':<7}  status")
    rows = []
    for size in SIZES[:1] if given.small else SIZES:
        rows += measured(size, METHODS, 1 if given.small else REPEATS, TIME_LIMIT)
    if given.large and not given.small:
        rows += measured(LARGE, ("ipopt", "single shooting"), 1, 10 * TIME_LIMIT)
    print(findings(rows))
    if given.small:
        return
    with open(Path(__file__).with_name("direct.csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *where])
        writer.writeheader()
        writer.writerows({**row, **where} for row in rows)


if __name__ == "__main__":
    main()
