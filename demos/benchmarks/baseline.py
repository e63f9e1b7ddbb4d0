"""The baseline of `hamshoot compare`: what schedules in the grid bring gradient descent.

Run ``python baseline.py``; about ten minutes on one core. The problem of ``hamshoot compare`` (6 →
2 → 6, 30 samples, width 6, L̃ = 7, 20 layers) at eight seeds with the paper's 6000 epochs, with as
many of Adam alone, and with 60 000, and a larger one (20 → 4 → 20, 200 samples, width 30) at four
seeds with 2000. Each is trained three ways from the same start: with a cosine schedule and the grid
of rates, with schedules and rates in the grid (the default), and with every rate and schedule in
full, without pilots, which says what the pilots cost in J (not with 60 000 epochs, where it would
take minutes a seed). Results are kept a seed at a time, and a run goes on where it was interrupted.
With it, Adam alone at the built-in problem: where the decay should begin, and of what shape.
``python baseline.py --report`` prints the tables from baseline.json, which lies beside the script,
with date, machine and versions.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

import hamshoot as hs
from hamshoot.command.config import read_config
from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.common.starts import equidistant_steps, starting_weights
from hamshoot.methods.descent.epochs import EpochLoop
from hamshoot.methods.descent.optimizers import SCHEDULES

RESULTS = Path(__file__).with_suffix(".json")
COSINE, GRID = "cosine", "grid"
#: Objectives closer than this, relatively, are called equal.
EQUAL = 1e-6
#: Shares of the epochs that a constant rate is held for, epochs, and rates of that comparison.
HOLDS, HOLD_EPOCHS, HOLD_RATES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95), (1000, 3000, 6000), (
    0.03, 0.1, 0.3)
SHAPES = {"line": lambda t: 1 - t, "cosine": lambda t: 0.5 * (1 + np.cos(np.pi * t))}
STUDIES = (
    dict(name="built-in problem", seeds=range(8), epochs=5000, sgd_epochs=1000, in_full=True),
    dict(name="built-in problem", seeds=range(8), epochs=6000, sgd_epochs=0, in_full=True),
    dict(name="built-in problem", seeds=range(8), epochs=50_000, sgd_epochs=10_000, in_full=False),
    dict(name="larger problem", seeds=range(4), epochs=1600, sgd_epochs=400, in_full=True),
)


def problem_of(name: str, seed: int) -> hs.TrainingProblem:
    """The problem of the command line without a file, or a teacher of rank 4."""
    if name == "built-in problem":
        return read_config(None, [f"problem.seed={seed}"]).problem
    return hs.teacher_problem((20, 4, 20), samples=200, width=30, effective_depth=7.0, seed=seed,
                              lift="orthonormal", readout="orthonormal", test_samples=0)


def described(solution: hs.Solution) -> dict[str, Any]:
    extra = solution.extra
    return {"objective": solution.objective, "rate": extra["rate"], "schedule": extra["schedule"],
            "seconds": solution.seconds, "grid_seconds": extra.get("grid_seconds"),
            "status": solution.status.name}


def in_full(problem: hs.TrainingProblem, seed: int, epochs: dict[str, int]) -> dict[str, Any]:
    """Every rate with every schedule, without pilots: the lowest J of each schedule."""
    lowest: dict[str, Any] = {}
    for rate in hs.Adam().rates:
        found = hs.train(problem, 20, optimizer=hs.Adam(rate=rate, **epochs), seed=seed)
        for row in found.extra["grid"]:
            best = lowest.get(row["schedule"])
            if row["objective"] is not None and (
                    best is None or row["objective"] < best["objective"]):
                lowest[row["schedule"]] = {"objective": row["objective"], "rate": rate}
    return lowest


def measured(study: dict[str, Any], seed: int) -> dict[str, Any]:
    """Both baselines at one seed, and what all of the grid in full would have found."""
    problem = problem_of(study["name"], seed)
    epochs = {k: study[k] for k in ("epochs", "sgd_epochs")}
    # Compiled beforehand, so that the seconds are those of training.
    hs.train(problem, 20, optimizer=hs.Adam(rate=0.01, schedule=COSINE, epochs=2, sgd_epochs=2))
    ways = {COSINE: hs.Adam(schedule=COSINE, **epochs), GRID: hs.Adam(**epochs)}
    row = {"problem": study["name"], "seed": seed, **epochs,
           **{way: described(hs.train(problem, 20, optimizer=optimizer, seed=seed))
              for way, optimizer in ways.items()}}
    if study["in_full"]:
        row["in_full"] = in_full(problem, seed, epochs)
    return row


def held(seed: int, epochs: int) -> dict[str, Any]:
    """J of Adam by where the decay begins and its shape, the lowest over the rates.

    One constant run a rate; every decay leaves it where it begins.
    """
    problem, steps = problem_of("built-in problem", seed), equidistant_steps(20)
    weights, sweeps = starting_weights(problem, steps, "path", seed), EulerSweeps(problem, steps)
    ends: dict[str, float] = {}
    for rate in HOLD_RATES:
        loop = EpochLoop(sweeps, weights, adam=True, beta1=0.9, beta2=0.999, epsilon=1e-8)
        for hold in HOLDS:
            begin = round(hold * epochs)
            loop.run(np.full(begin - loop.count, rate))
            falling = np.arange(epochs - begin) / (epochs - begin)
            for shape, factors in SHAPES.items():
                branch = loop.copy()
                branch.run(rate * factors(falling))
                branch.evaluate()
                name = f"{shape} from {hold:g}"
                ends[name] = min(ends.get(name, np.inf), branch.best)
    return {"seed": seed, "epochs": epochs, "ends": ends}


def report_holds(rows: list[dict[str, Any]]) -> None:
    """Geometric means over seeds of J over the lowest of the seed."""
    for epochs in dict.fromkeys(row["epochs"] for row in rows):
        mine = [row["ends"] for row in rows if row["epochs"] == epochs]
        print(f"\nAdam alone, {epochs} epochs, {len(mine)} seeds: J above the lowest of the seed, "
              "by where the decay begins")
        for shape in SHAPES:
            words = []
            for hold in HOLDS:
                ratios = [ends[f"{shape} from {hold:g}"] / min(ends.values()) for ends in mine]
                words.append(f"{hold:g}: {np.exp(np.mean(np.log(ratios))) - 1:.2%}")
            print(f"  {shape:<7} {'  '.join(words)}")


def report(rows: list[dict[str, Any]]) -> None:
    """Tables, and how often each side ends lower."""
    for name, epochs in dict.fromkeys((r["problem"], r["epochs"]) for r in rows):
        mine = [r for r in rows if (r["problem"], r["epochs"]) == (name, epochs)]
        print(f"\n{name}, {epochs} epochs of Adam, {mine[0]['sgd_epochs']} of gradient descent")
        print("seed   cosine: J    rate  all s   grid: J      rate  schedule  all s  run s"
              "   in full: " + "  ".join(f"{s:>8}" for s in SCHEDULES))
        for r in mine:
            a, b, full = r[COSINE], r[GRID], r.get("in_full", {})
            ends = "  ".join(f"{full[s]['objective']:8.5f}" if s in full else f"{'–':>8}"
                             for s in SCHEDULES)
            print(f"{r['seed']:>4}   {a['objective']:9.5f}  {a['rate']:6g}"
                  f"  {a['grid_seconds']:5.1f}   {b['objective']:9.5f}  {b['rate']:6g}"
                  f"  {b['schedule']:<8}  {b['grid_seconds']:5.1f}  {b['seconds']:5.2f}"
                  f"            {ends}")
        summary(mine)


def summary(rows: list[dict[str, Any]]) -> None:
    """Counts and medians of one table."""
    gains = [1 - r[GRID]["objective"] / r[COSINE]["objective"] for r in rows]
    effort = np.median([r[GRID]["grid_seconds"] / r[COSINE]["grid_seconds"] for r in rows])
    print(f"  The grid ends lower in {sum(g > EQUAL for g in gains)} of {len(rows)}, higher in "
          f"{sum(g < -EQUAL for g in gains)}; its J is {np.median(gains):.2%} lower (median; "
          f"{min(gains):.2%} to {max(gains):.2%}), in {effort:.1f} times the seconds.")
    full = [r["in_full"] for r in rows if "in_full" in r]
    if full:
        best = [min(f, key=lambda s, f=f: f[s]["objective"]) for f in full]
        lost = [r[GRID]["objective"] / f[s]["objective"] - 1
                for r, f, s in zip(rows, full, best, strict=True)]
        above = {s: sum(f[COSINE]["objective"] > f[s]["objective"] for f in full)
                 for s in ("constant", "decay")}
        both = sum(f[COSINE]["objective"] > min(f[s]["objective"] for s in above) for f in full)
        print("  In full the lowest is " + ", ".join(f"{s} in {best.count(s)}" for s in SCHEDULES)
              + f"; the pilots missed it in {sum(x > EQUAL for x in lost)}, by at most "
                f"{max(lost):.2%}. Cosine ends above constant in {above['constant']}, above decay "
                f"in {above['decay']}, above the lower of both in {both} of {len(full)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="print the tables only")
    if parser.parse_args().report:
        report(known())
        report_holds(known("holds"))
        return
    rows, holds = known(), known("holds")
    for study in STUDIES:
        for seed in study["seeds"]:
            if not any(key_of(r) == (study["name"], seed, study["epochs"]) for r in rows):
                rows.append(measured(study, seed))
                print(json.dumps(rows[-1]), flush=True)
                save(rows, holds)
    for epochs in HOLD_EPOCHS:
        for seed in range(8):
            if not any((r["seed"], r["epochs"]) == (seed, epochs) for r in holds):
                holds.append(held(seed, epochs))
                save(rows, holds)
    report(rows)
    report_holds(holds)


def known(what: str = "rows") -> list[dict[str, Any]]:
    """What has been measured; a run goes on where it was interrupted."""
    if not RESULTS.exists():
        return []
    return json.loads(RESULTS.read_text(encoding="utf-8")).get(what, [])


def key_of(row: dict[str, Any]) -> tuple:
    return row["problem"], row["seed"], row["epochs"]


def save(rows: list[dict[str, Any]], holds: list[dict[str, Any]]) -> None:
    order = [(study["name"], study["epochs"]) for study in STUDIES]
    rows = sorted(rows, key=lambda r: (order.index((r["problem"], r["epochs"])), r["seed"]))
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, "
                   f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
        "versions": {package: importlib.metadata.version(package)
                     for package in ("numpy", "scipy", "numba")},
    }
    text = json.dumps(record, indent=1)[:-2]
    for name, values in (("rows", rows), ("holds", holds)):
        lines = ",\n  ".join(json.dumps(value) for value in values)
        text += f',\n "{name}": [\n  {lines}\n ]'
    partial = RESULTS.with_suffix(".tmp")
    partial.write_text(text + "\n}\n", encoding="utf-8")
    partial.replace(RESULTS)


if __name__ == "__main__":
    main()
