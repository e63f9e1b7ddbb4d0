"""Random problems for `IndirectShooting`: how many end right, by a layered optimum beside each.

Run ``python random_suite.py [COUNT] [FIRST] [WORKERS] [GENERATOR]``, from seconds to half a minute
a problem; with WRITE as a fifth argument the rows join random_suite.csv beside the script, and
date, machine and versions random_suite.json. With a COUNT of 0 it says the numbers of that file,
all in all and by generator. Widths 2-8, samples 2-40, effective depths 0.5-8,
weight_decay/effective_depth 1e-4-1e-1 (log-uniform), plain ReLU (through the ladder), smooth ReLU
and linear networks in turn, each drawn from generator and seed, the first columns. Code is compiled
before anything is timed.

A problem counts as *solved* when its shooting residual is at most 1e-9 and its Hamiltonian drift at
most 1e-8 (of the smoothed flow that was solved, where ReLU slides along kinks). It ended *right*
when it is solved and its J is not above that of the layered optimum found by single shooting
(`J_L`, with max(60, 12 L̃) layers and its default search) by more than the discretisation error of
that optimum, or when it collapsed and single shooting found nothing lower. Above the trivial
objective nothing is right. The discretisation error is Richardson's: the optimum is carried on to
networks of twice the layers, and `limit` is 2 J_2L − J_L; 1e-3 of J stands for the second order and
for ε. Where J lies above that, the layers are doubled again, twice at most (`layers` says how
many there were at last), for some optima of coarse networks are those of no finer one. `excess` is
how far J lies above the limit, relatively: more than 1e-3 means that a better basin is known.
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import json
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import hamshoot as hs
from hamshoot.methods.indirect.method import IndirectShooting
from hamshoot.theory.layers import trivial_objective

COLUMNS = ("generator", "seed", "activation", "epsilon", "width", "samples", "effective_depth",
           "weight_decay", "solved", "right", "status", "objective", "trivial", "J_L", "layers",
           "limit", "excess", "defect", "boundary_residual", "hamiltonian_drift", "segments",
           "iterations", "cpu_seconds", "seconds", "message")


TIME_LIMIT = 900.0  # seconds a problem, many for machines with other work
SLACK = 1e-3  # of J
TABLE = Path(__file__).with_suffix(".csv")


def draw(seed: int, generator: int = 20) -> hs.TrainingProblem:
    """The problem of a seed."""
    rng = np.random.default_rng([seed, generator])
    width, samples = int(rng.integers(2, 9)), int(rng.integers(2, 41))
    depth = float(np.exp(rng.uniform(np.log(0.5), np.log(8.0))))
    ratio = float(10 ** rng.uniform(-4, -1))
    activation = ("relu", "smooth_relu", "linear")[seed % 3]
    settings = {}
    if activation == "smooth_relu":
        settings["epsilon"] = float(10 ** rng.uniform(-2, -0.5))
    inner = int(rng.integers(1, width + 1))
    return hs.teacher_problem(
        dims=(width, inner, width), samples=samples, width=width, effective_depth=depth,
        weight_decay=ratio * depth, activation=activation, seed=seed, **settings,
    )


def layered_limit(problem: hs.TrainingProblem, objective: float) -> tuple[float, int, float]:
    """J of the layered optimum, layers of the finest network made, limit of J for more and more.

    Parameters
    ----------
    problem : TrainingProblem
    objective : float
        J of the geodesic: as long as it is above the limit, finer networks are made.
    """
    layers = max(60, int(np.ceil(12 * problem.effective_depth)))
    coarse = hs.DirectSingleShooting(layers=layers, polish=False, time_limit=60).solve(problem)
    first = coarse.objective
    for _ in range(3):
        layers *= 2
        method = hs.DirectSingleShooting(layers=layers, polish=False, tol=1e-6, time_limit=60)
        fine = method.solve(problem, initial_guess=np.repeat(coarse.weights, 2, axis=0))
        limit = 2 * fine.objective - coarse.objective
        if objective <= limit + SLACK * abs(objective):
            break
        coarse = fine
    return first, layers, limit


def compiled() -> None:
    """A short solve of each kind, so that no row counts seconds of compilation or of loading."""
    for activation in ("relu", "smooth_relu", "linear"):
        hs.IndirectShooting(effort="quick").solve(hs.teacher_problem(
            dims=(2, 1, 2), samples=3, width=2, effective_depth=1.0, weight_decay=0.1,
            activation=activation))


def row(job: tuple[int, int]) -> dict:
    """Solve one problem and say how it went."""
    generator, seed = job
    problem = draw(seed, generator)
    cpu, start = time.process_time(), time.perf_counter()
    solution = IndirectShooting(time_limit=TIME_LIMIT).solve(problem)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
    r, J, trivial = solution.residuals, solution.objective, trivial_objective(problem)
    layered, layers, limit = layered_limit(problem, J)
    exact = max(r["defect"], r["boundary_residual"]) <= 1e-9 and r["hamiltonian_drift"] <= 1e-8
    solved = bool(solution.success and exact)
    near = limit + SLACK * abs(J) >= J
    collapsed = exact and solution.status is hs.Status.COLLAPSED
    right = bool((solved or collapsed) and near and trivial * (1 + 1e-9) >= J)
    return dict(zip(COLUMNS, (
        generator, seed, problem.activation, solution.extra["epsilon"], problem.width,
        problem.n_samples, round(problem.effective_depth, 4), float(f"{problem.weight_decay:.4g}"),
        int(solved), int(right), solution.status.name.lower(), f"{J:.10g}", f"{trivial:.6g}",
        f"{layered:.8g}", layers, f"{limit:.8g}", f"{J / limit - 1:.1e}",
        f"{r['defect']:.1e}", f"{r['boundary_residual']:.1e}", f"{r['hamiltonian_drift']:.1e}",
        solution.extra["segments"], solution.nit, round(cpu, 2), round(seconds, 2),
        solution.message,
    ), strict=True))


def main() -> None:
    numbers = [int(a) for a in sys.argv[1:5]] + [100, 0, 1, 20][len(sys.argv[1:5]):]
    count, first, workers, generator = numbers
    write = "WRITE" in sys.argv[5:]
    rows = []
    if count == 0:
        known = list(kept_rows().values())
        for one in ("", *sorted({r["generator"] for r in known}, key=int)):
            print(f"generator {one}: " if one else "", end="")
            say([r for r in known if one in ("", r["generator"])])
        return
    with ProcessPoolExecutor(workers, initializer=compiled) as pool:
        for result in pool.map(row, [(generator, s) for s in range(first, first + count)]):
            rows.append(result)
            print(*[result[c] for c in COLUMNS], flush=True)
            if write:
                keep(rows)
    say(rows)


def say(rows: list[dict]) -> None:
    """The numbers of the rows, in a sentence."""
    cpu = np.array([float(r["cpu_seconds"]) for r in rows])
    print(f"{sum(int(r['right']) for r in rows)} of {len(rows)} right, "
          f"{sum(int(r['solved']) for r in rows)} solved; CPU seconds: median "
          f"{np.median(cpu):.2f}, mean {cpu.mean():.2f}, most {cpu.max():.1f}")


def keep(rows: list[dict]) -> None:
    """Rows join those of the file, one for each generator and seed."""
    known = kept_rows() | {(str(r["generator"]), str(r["seed"])): r for r in rows}
    with open(TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(known[key] for key in sorted(known, key=lambda k: (int(k[0]), int(k[1]))))
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, "
                   f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
        "versions": {package: importlib.metadata.version(package)
                     for package in ("numpy", "scipy", "numba")},
    }
    TABLE.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def kept_rows() -> dict[tuple[str, str], dict]:
    """The rows of the file, by generator and seed."""
    if not TABLE.exists():
        return {}
    with open(TABLE, newline="", encoding="utf-8") as file:
        return {(r["generator"], r["seed"]): r for r in csv.DictReader(file)
                if set(r) == set(COLUMNS)}


if __name__ == "__main__":
    main()
