"""A hundred random problems for `IndirectShooting`: how many end as geodesics of what was solved.

Run ``python random_suite.py [COUNT] [FIRST] [WORKERS]``; with a COUNT of 100 the table goes to
random_suite.csv beside the script. Widths 2-8, samples 2-40, effective depths 0.5-8,
weight_decay/effective_depth 1e-4-1e-1 (log-uniform), plain ReLU (through the ladder), smooth ReLU
and linear networks in turn, each drawn from the seed in the first column. A problem counts as
solved when its shooting residual is at most 1e-9 and its Hamiltonian drift at most 1e-8 (of the
smoothed flow that was solved, where ReLU slides along kinks); every other row must say why not.
"""

from __future__ import annotations

import csv
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import hamshoot as hs
from hamshoot.methods.indirect.method import IndirectShooting

COLUMNS = ("seed", "activation", "epsilon", "width", "samples", "effective_depth", "weight_decay",
           "solved", "status", "objective", "defect", "boundary_residual", "hamiltonian_drift",
           "segments", "iterations", "seconds", "message")


TIME_LIMIT = 180.0  # seconds a problem


def draw(seed: int) -> hs.TrainingProblem:
    """The problem of a seed."""
    rng = np.random.default_rng([seed, 20])
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


def row(seed: int) -> dict:
    """Solve one problem and say how it went."""
    problem = draw(seed)
    start = time.perf_counter()
    solution = IndirectShooting(time_limit=TIME_LIMIT).solve(problem)
    r = solution.residuals
    solved = bool(solution.success and max(r["defect"], r["boundary_residual"]) <= 1e-9
                  and r["hamiltonian_drift"] <= 1e-8)
    return dict(zip(COLUMNS, (
        seed, problem.activation, solution.extra["epsilon"], problem.width, problem.n_samples,
        round(problem.effective_depth, 4), float(f"{problem.weight_decay:.4g}"), int(solved),
        solution.status.name.lower(), f"{solution.objective:.10g}", f"{r['defect']:.1e}",
        f"{r['boundary_residual']:.1e}", f"{r['hamiltonian_drift']:.1e}",
        solution.extra["segments"], solution.nit, round(time.perf_counter() - start, 2),
        solution.message,
    ), strict=True))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    workers = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    rows = []
    with ProcessPoolExecutor(workers) as pool:
        for result in pool.map(row, range(first, first + count)):
            rows.append(result)
            print(*[result[c] for c in COLUMNS], flush=True)
    solved = sum(r["solved"] for r in rows)
    print(f"{solved} of {count} solved, {sum(r['seconds'] for r in rows):.0f} s")
    if count == 100:
        with open(Path(__file__).with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
