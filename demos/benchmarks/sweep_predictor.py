"""A sweep's steps begun along the tangent, along the secant, or where the last one ended.

    python demos/benchmarks/sweep_predictor.py             # a few minutes of CPU
    python demos/benchmarks/sweep_predictor.py --report    # the table alone

Six sweeps: the three of demo 16 (geodesics over λ and over L̃, ReLU networks over both), geodesics
of tanh over λ in long steps, smooth networks over λ, and ReLU networks over L̃ in short steps. Each
is made with ``predictor="tangent"``, "secant" and "none", with the same searches; what is counted
begins where these end: iterations and CPU seconds of all solves from a neighbour, those across
borders of branches among them, and the tangents. Results are kept in sweep_predictor.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import scipy

import hamshoot as hs

RESULTS = Path(__file__).with_name("sweep_predictor.json")
KINDS = ("tangent", "secant", "none")


def teacher(dims: tuple[int, ...], samples: int, seed: int = 1, **more: Any) -> hs.TrainingProblem:
    """A teacher's problem, its width that of the input."""
    return hs.teacher_problem(dims, samples, width=dims[0], test_samples=0, seed=seed, **more)


def spaced(first: float, last: float, count: int) -> list[float]:
    """So many values evenly in the logarithm."""
    return [float(f"{value:.6g}") for value in np.geomspace(first, last, count)]


def smooth() -> hs.TrainingProblem:
    """The problem of demo 16's geodesics."""
    return teacher((3, 2, 3), 6, effective_depth=3.0, weight_decay=3e-3,
                   activation="smooth_relu", epsilon=0.1)


def relu() -> hs.TrainingProblem:
    """That of its networks."""
    return teacher((4, 2, 4), 12, effective_depth=2.0, weight_decay=1e-3)


#: Name, problem, what it is over, method, options.
SWEEPS: dict[str, tuple[Callable[[], hs.TrainingProblem], dict[str, list[float]], str,
                        dict[str, Any]]] = {
    "geodesics over λ (demo)": (
        smooth, {"weight_decay": spaced(1e-3, 1.2, 12)}, "indirect", dict(search=1)),
    "geodesics over L̃ (demo)": (
        smooth, {"effective_depth": spaced(1.5, 8, 15)}, "indirect", dict(search=3)),
    "ReLU networks over L̃ and λ (demo)": (
        relu, {"effective_depth": spaced(2, 6, 4), "weight_decay": spaced(1e-3, 0.1, 4)},
        "single_shooting", dict(search=3, layers=12, effort="quick")),
    "tanh geodesics over λ": (
        lambda: teacher((4, 2, 4), 8, effective_depth=2.0, weight_decay=1e-2, activation="tanh"),
        {"weight_decay": spaced(1e-3, 3e-2, 5)}, "indirect", dict(search=1)),
    "smooth networks over λ": (
        lambda: teacher((4, 2, 4), 20, effective_depth=2.0, weight_decay=1e-2,
                        activation="smooth_relu", epsilon=0.05),
        {"weight_decay": spaced(1e-3, 5e-2, 12)}, "single_shooting",
        dict(search=1, layers=10, effort="quick")),
    "ReLU networks over L̃, short steps": (
        lambda: teacher((4, 2, 4), 20, effective_depth=2.0, weight_decay=1e-2),
        {"effective_depth": spaced(2, 3, 16)}, "single_shooting",
        dict(search=1, layers=10, effort="quick")),
}


def measured(name: str, kind: str) -> dict[str, Any]:
    """One sweep."""
    pose, over, method, options = SWEEPS[name]
    count, at = [0], {}

    def each(_: hs.Record) -> None:
        count[0] += 1

    def point(one: Any) -> None:
        if one.begun == "search":
            at.update(seconds=time.process_time(), iterations=count[0])

    found = hs.sweep(pose(), over, method, predictor=kind, callback=each, on_point=point,
                     workers=1, seed=1, **options)
    return {"iterations": count[0] - at["iterations"],
            "cpu_seconds": round(time.process_time() - at["seconds"], 3),
            "solves": sum(one.steps for one in found) - options["search"],
            "success": found.success, "branches": len({one.branch for one in found}),
            "objectives": [one.objective for one in found],
            "predicted": [one.predicted for one in found]}


def report(rows: dict[str, dict[str, Any]]) -> str:
    """Iterations and seconds, and how many points end where others do."""
    lines = [f"{'':36}" + "".join(f"{kind:>24}" for kind in KINDS),
             f"{'':36}" + f"{'solves iterations CPU s':>24}" * len(KINDS)]
    for name, row in rows.items():
        cells = "".join(f"{one['solves']:8d}{one['iterations']:9d}{one['cpu_seconds']:7.2f}"
                        for one in (row[kind] for kind in KINDS))
        lines.append(f"{name:36}{cells}")
    for name, row in rows.items():
        J = np.array([row[kind]["objectives"] for kind in KINDS])
        lowest = (np.abs(J - J.min(axis=0)) <= 1e-6 * np.abs(J.min(axis=0))).sum(axis=1)
        along = [sum("tangent" in one for one in row["tangent"]["predicted"]), J.shape[1]]
        lines.append(f"{name}: {along[0]} of {along[1]} points along tangents; lowest J of the "
                     "three at " + ", ".join(
                         f"{n} ({kind})" for n, kind in zip(lowest, KINDS, strict=True)))
    total = {kind: sum(row[kind]["cpu_seconds"] for row in rows.values()) for kind in KINDS}
    steps = {kind: sum(row[kind]["iterations"] for row in rows.values()) for kind in KINDS}
    lines.append("all: " + "; ".join(f"{kind} {steps[kind]} iterations, {total[kind]:.1f} s"
                                     for kind in KINDS))
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, keep it, print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="from the results that are there")
    parser.add_argument("--only", help="sweeps whose name holds this")
    given = parser.parse_args()
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"rows": {}}
    rows = record["rows"]
    for name in SWEEPS:
        if given.report or name in rows or (given.only or "") not in name:
            continue
        measured(name, "none")  # compiles
        rows[name] = {kind: measured(name, kind) for kind in KINDS}
        record = {"date": date.today().isoformat(),
                  "machine": f"{platform.platform()}, {os.cpu_count()} cores, shared",
                  "versions": f"python {platform.python_version()}, numpy {np.__version__}, "
                              f"scipy {scipy.__version__}", "rows": rows}
        partial = RESULTS.with_suffix(".tmp")
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n",
                           encoding="utf-8")
        partial.replace(RESULTS)
        print(name, flush=True)
    print(report({name: rows[name] for name in SWEEPS if name in rows}))


if __name__ == "__main__":
    main()
