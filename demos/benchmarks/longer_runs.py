"""The longer run of `hamshoot compare`: what shorter pilots and two schedules cost it in J.

Run ``python longer_runs.py``; about ten minutes on one core. Teachers of three sizes, seeds 0 to 5,
trained with 60 000 epochs three ways from one start: with pilots of a fifth of Adam's epochs and
all schedules; with pilots of 5000 epochs; and, as `compare` does it, with those and without the
constant schedule. Seconds of CPU, objectives, and their ratios to the way before go to
longer_runs.json, beside the script, with date, machine and versions.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import itertools
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import hamshoot as hs
from hamshoot.methods.descent import grid
from hamshoot.study.compare import SCHEDULES_LONGER

RESULTS = Path(__file__).with_suffix(".json")
SEEDS = range(6)
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "6-2-6": (dict(dims=(6, 2, 6), samples=30, width=6, effective_depth=7.0, weight_decay=7e-3),
              20),
    "4-2-4": (dict(dims=(4, 2, 4), samples=20, width=5, effective_depth=5.0, weight_decay=5e-3),
              12),
    "3-1-3": (dict(dims=(3, 1, 3), samples=12, width=4, effective_depth=3.0, weight_decay=3e-3),
              10),
}
OPTIMIZER = dict(epochs=50_000, sgd_epochs=10_000)
#: Longest pilot, and schedules, of the three ways.
WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "fifth": (10_000, {}), "short pilots": (5000, {}),
    "two schedules": (5000, {"schedules": SCHEDULES_LONGER}),
}


def trained(problem: hs.TrainingProblem, layers: int, way: str) -> dict[str, Any]:
    """Objective and seconds of one training."""
    grid.PILOT_MOST, options = WAYS[way]
    clock = time.process_time()
    solution = hs.train(problem, layers, optimizer=hs.Adam(**OPTIMIZER, **options))
    return {"objective": solution.objective, "cpu_seconds": time.process_time() - clock,
            "rate": solution.extra["rate"], "schedule": solution.extra["schedule"]}


def said(runs: list[dict[str, Any]]) -> list[str]:
    """A sentence for each way, against the one before."""
    lines = []
    for before, after in itertools.pairwise(WAYS):
        ratios = [run[after]["objective"] / run[before]["objective"] - 1 for run in runs]
        times = [run[after]["cpu_seconds"] / run[before]["cpu_seconds"] for run in runs]
        lines.append(
            f"{after} against {before}: {statistics.median(times):.2f} of the seconds "
            f"({min(times):.2f} to {max(times):.2f}); J the same on "
            f"{sum(abs(r) <= 1e-9 for r in ratios)} of {len(ratios)}, lower on "
            f"{sum(r < -1e-9 for r in ratios)} (by {-min(ratios):.2%} at most), higher on "
            f"{sum(r > 1e-9 for r in ratios)} (by {max(ratios):.2%} at most)")
    return lines


def main() -> None:
    """Run all, print the sentences, write the results."""
    runs = []
    for seed in SEEDS:
        for name, (settings, layers) in SIZES.items():
            problem = hs.teacher_problem(seed=seed, test_samples=0, **settings)
            runs.append({"size": name, "seed": seed,
                         **{way: trained(problem, layers, way) for way in WAYS}})
            print(name, seed, *(f"{runs[-1][way]['objective']:.6g}" for way in WAYS), flush=True)
    lines = said(runs)
    print(*lines, sep="\n")
    result = {"date": datetime.date.today().isoformat(), "machine": platform.machine(),
              "python": platform.python_version(),
              "versions": {name: importlib.metadata.version(name) for name in ("numpy", "numba")},
              "said": lines, "runs": runs}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
