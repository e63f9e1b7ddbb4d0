"""λ and L̃ by the derivative of the held-out error, against a grid in the same CPU seconds.

    python demos/benchmarks/tune.py                # 24 tables, 20 minutes of CPU
    python demos/benchmarks/tune.py --report       # the table alone

Noisy teachers' tables of 40 and 120 rows, ReLU and smooth ReLU, that begin at a λ ten times too
small, about right, or ten times too large. `hs.tune` goes down the error on a fifth of the rows;
`hs.validate` tries five λ and three L̃ around the same beginning, with the same search, the same
rows held out and the problem's own width: until the seconds that `tune` took are over (the try on
which it is stopped is lost), and once more to its end. The error on 2000 new rows says which choice
was better, as the rows held out are few. Results are kept in tune.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy

import hamshoot as hs

RESULTS = Path(__file__).with_name("tune.json")
SAMPLES, ACTIVATIONS = (40, 120), ("relu", "smooth_relu")
BEGINNINGS, SEEDS = (0.1, 1.0, 10.0), (0, 1)
DECAY, DEPTH, WIDTH, LAYERS, NEW, NOISE = 0.02, 2.0, 4, 8, 2000, 0.3
NAMES = ("tune", "grid, same seconds", "grid, to its end")


def problem_of(samples: int, activation: str, beginning: float, seed: int) -> hs.TrainingProblem:
    """A table of 3 inputs and 2 targets, through two ReLUs, with noise."""
    rng = np.random.default_rng([seed, samples, 17])
    X = rng.standard_normal((samples + NEW, 3))
    F = np.maximum(X @ rng.standard_normal((3, 2)), 0) @ rng.standard_normal((2, 2))
    Y = F / F.std(axis=0) + NOISE * rng.standard_normal(F.shape)
    return hs.TrainingProblem(
        X[:samples], Y[:samples], X_test=X[samples:], Y_test=Y[samples:], width=WIDTH,
        effective_depth=DEPTH, weight_decay=beginning * DECAY, activation=activation,
        standardize=True)


def chosen(problem: hs.TrainingProblem, found: hs.Validation, seconds: float) -> dict[str, Any]:
    """The choice, its held-out error, and its network's on new rows."""
    best = found.best
    return {"weight_decay": best.weight_decay, "effective_depth": best.effective_depth,
            "held_out": best.error, "new": best.network.test_error(problem),
            "tries": len(found.tries), "seconds": round(seconds, 3), "complete": found.complete}


def compared(**where: Any) -> dict[str, Any]:
    """One table, by the three."""
    problem, common = problem_of(**where), dict(layers=LAYERS, effort="quick")
    row: dict[str, Any] = dict(where)
    began = time.process_time()
    found = hs.tune(problem, **common)
    row["tune"] = chosen(problem, found, time.process_time() - began) | {"ended": found.ended}
    limit = row["tune"]["seconds"]
    for name, most in zip(NAMES[1:], (limit, float("inf")), strict=True):
        began = time.process_time()

        def over(_: hs.Record, began: float = began, most: float = most) -> bool:
            return time.process_time() - began > most

        found = hs.validate(problem, widths=[WIDTH], callback=over, **common)
        row[name] = chosen(problem, found, time.process_time() - began)
    return row


def report(rows: list[dict[str, Any]]) -> str:
    """Medians, and who ends lower how often."""
    lines = [f"{len(rows)} tables", "", f"{'':20}{'tries':>6}{'CPU s':>8}{'held-out':>10}"
             f"{'new rows':>10}"]
    for name in NAMES:
        parts = [row[name] for row in rows]
        lines.append(f"{name:20}{median(p['tries'] for p in parts):6g}"
                     f"{median(p['seconds'] for p in parts):8.2f}"
                     f"{median(p['held_out'] for p in parts):10.4f}"
                     f"{median(p['new'] for p in parts):10.4f}")
    for name in NAMES[1:]:
        lines.append("")
        for on, words in (("held_out", "held-out error"), ("new", "error on new rows")):
            ratios = [row["tune"][on] / row[name][on] for row in rows]
            lower = sum(ratio < 1 - 1e-6 for ratio in ratios)
            higher = sum(ratio > 1 + 1e-6 for ratio in ratios)
            lines.append(f"against {name}, {words}: tune lower {lower}, higher {higher} of "
                         f"{len(rows)}; ratio {median(ratios):.3f} in the median, "
                         f"{min(ratios):.2f} to {max(ratios):.2f}")
    for beginning in BEGINNINGS:
        some = [row for row in rows if row["beginning"] == beginning]
        if some:
            ratios = [row["tune"]["new"] / row[NAMES[1]]["new"] for row in some]
            lines.append(f"begun at {beginning:g} times λ = {DECAY:g}: error on new rows, tune "
                         f"over grid in the same seconds, {median(ratios):.3f} in the median, "
                         f"{min(ratios):.2f} to {max(ratios):.2f}, of {len(some)}")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, keep it, print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="from the results that are there")
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else []
    keys = ("samples", "activation", "beginning", "seed")
    done = {tuple(row[key] for key in keys) for row in rows}
    for samples in SAMPLES:
        for activation in ACTIVATIONS:
            for beginning in BEGINNINGS:
                for seed in SEEDS:
                    where = (samples, activation, beginning, seed)
                    if given.report or where in done:
                        continue
                    rows.append(compared(**dict(zip(keys, where, strict=True))))
                    print(json.dumps(rows[-1]), flush=True)
                    record = {"date": date.today().isoformat(),
                              "machine": f"{platform.platform()}, {os.cpu_count()} cores, shared",
                              "versions": f"python {platform.python_version()}, numpy "
                                          f"{np.__version__}, scipy {scipy.__version__}",
                              "settings": dict(decay=DECAY, depth=DEPTH, width=WIDTH,
                                               layers=LAYERS, new=NEW, noise=NOISE,
                                               effort="quick"),
                              "rows": rows}
                    text = json.dumps(record, indent=1)
                    partial = RESULTS.with_suffix(".tmp")
                    partial.write_text(text + "\n", encoding="utf-8")
                    partial.replace(RESULTS)
    print(report(rows))


if __name__ == "__main__":
    main()
