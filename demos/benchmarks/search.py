"""The search for a basin: against gradient descent restarted, by effort, by part, and L-BFGS alone.

Run ``OMP_NUM_THREADS=1 python search.py``; about twenty minutes on one core, ``--small`` a quarter
of a minute. Teachers of three sizes (6 → 2 → 6, 30 samples, width 6, L̃ = 7, 20 layers; 8 → 3 → 8,
50, 8, 3, 20; 4 → 2 → 4, 20, 5, 5, 12; ReLU, λ = 1e-3) at eight seeds each (the report counts how
many of them are in search.json):

* `hamshoot.solve` with its default effort, quick and thorough: J and CPU seconds, all of a solve;
* Adam restarted for 20 CPU seconds: path and identity starts, rates from a grid, cosine schedules
  of 2000 to 60 000 epochs, the best combinations again from new seeds; J after so many seconds;
* an iteration of L-BFGS by SciPy and by `hamshoot.methods.search.lbfgs`, in alternation.

A problem is kept when it is done, and a run goes on where it was interrupted. ``--report`` prints
the tables from search.json, which lies beside the script, with date, machine and versions.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

import hamshoot as hs
from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.common.watch import Watch
from hamshoot.methods.descent.epochs import EpochLoop
from hamshoot.methods.descent.optimizers import schedule_factors
from hamshoot.methods.search.lbfgs import Minimizer
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.problem.activations import Activation

RESULTS = Path(__file__).with_suffix(".json")
SIZES = {
    "6-2-6": (dict(dims=(6, 2, 6), samples=30, width=6, effective_depth=7.0), 20),
    "8-3-8": (dict(dims=(8, 3, 8), samples=50, width=8, effective_depth=3.0), 20),
    "4-2-4": (dict(dims=(4, 2, 4), samples=20, width=5, effective_depth=5.0), 12),
}
SEEDS = range(500, 508)
SECONDS = (0.5, 1.0, 3.0, 10.0, 20.0)
RATES = (0.01, 0.03, 0.1, 0.3)
EFFORTS = ("quick", "default", "thorough")


def problem_of(size: str, seed: int) -> tuple[hs.TrainingProblem, int]:
    options, layers = SIZES[size]
    return hs.teacher_problem(**options, weight_decay=1e-3, activation="relu", seed=seed,
                              test_samples=0), layers


def adam(problem: hs.TrainingProblem, layers: int, seconds: float) -> list[tuple[float, float]]:
    """CPU seconds and J of every improvement, of Adam restarted until the time is over."""
    sweeps = EulerSweeps(problem, equidistant_steps(layers))
    begun, trace = time.process_time(), [(0.0, np.inf)]
    ends: dict[tuple[str, float], float] = {}

    def descend(start: str, seed: int, rate: float, epochs: int) -> bool:
        weights = starting_weights(problem, sweeps.steps, start, seed)
        loop = EpochLoop(sweeps, weights, adam=True, beta1=0.9, beta2=0.999, epsilon=1e-8)
        rates = rate * schedule_factors("cosine", epochs)
        for first in range(0, epochs, 500):
            loop.run(rates[first : first + 500])
            spent = time.process_time() - begun
            if loop.best < trace[-1][1]:
                trace.append((spent, loop.best))
            if spent > seconds:
                return False
        ends[start, rate] = min(loop.best, ends.get((start, rate), np.inf))
        return True

    if not all(descend(start, 0, rate, 2000) for rate in RATES for start in ("path", "identity")):
        return trace
    for seed in range(10**6):
        for epochs in (10_000, 60_000, 20_000):
            for start, rate in sorted(ends, key=ends.__getitem__)[:3]:
                if not descend(start, seed, rate, epochs):
                    return trace
    return trace


def measured(size: str, seed: int, seconds: float) -> dict[str, Any]:
    """One problem: every effort, and Adam."""
    problem, layers = problem_of(size, seed)
    row: dict[str, Any] = {"size": size, "seed": seed}
    for effort in EFFORTS if seconds == SECONDS[-1] else EFFORTS[:2]:
        begun = time.process_time()
        found = hs.solve(problem, layers=layers, effort=effort)
        row[effort] = {
            "objective": found.objective, "seconds": time.process_time() - begun,
            "status": found.status.name, "stationarity": found.stationarity,
            "starts": found.extra["start_objectives"], "rounds": found.extra["reheat_rounds"]}
    trace = adam(problem, layers, seconds)
    row["adam"] = {str(limit): min(J for spent, J in trace if spent <= limit)
                   for limit in SECONDS if limit <= seconds}
    row["adam_best"] = trace[-1][1]
    return row


def iterations(size: str, rounds: int) -> dict[str, Any]:
    """µs an iteration of SciPy's L-BFGS-B and of the compiled one, 30 pairs, in alternation."""
    problem, layers = problem_of(size, 0)
    sweeps = EulerSweeps(problem, equidistant_steps(layers), Activation("smooth_relu", 0.1))
    start = starting_weights(problem, sweeps.steps, "path", 0)
    spent: dict[str, list[float]] = {"scipy": [], "compiled": []}
    for _ in range(rounds):
        begun, shape = time.process_time(), start.shape

        def fun(x: np.ndarray, shape: tuple = shape) -> tuple[float, np.ndarray]:
            value, gradient = sweeps.gradient(x.reshape(shape))
            return value, gradient.ravel().copy()

        done = minimize(fun, start.ravel(), jac=True, method="L-BFGS-B",
                        options=dict(maxcor=30, maxiter=1000, ftol=0, gtol=0))
        spent["scipy"].append((time.process_time() - begun) / done.nit)
        watch = Watch()
        compiled = Minimizer(sweeps, watch, memory=30, max_iter=10**6)
        begun = time.process_time()
        compiled.minimize(start, 0.0, 1000)
        spent["compiled"].append((time.process_time() - begun) / watch.iterations)
    medians = {name: 1e6 * float(np.median(values)) for name, values in spent.items()}
    return {"size": size, **medians, "ratio": medians["scipy"] / medians["compiled"]}


def report(results: dict[str, Any]) -> None:
    """Print what was found."""
    for row in results["iterations"]:
        print(f"{row['size']}: an iteration of L-BFGS takes {row['compiled']:.0f} µs, SciPy's "
              f"{row['scipy']:.0f} µs, {row['ratio']:.1f} times as long")
    rows = results["problems"]
    for effort in EFFORTS:
        mine = [row for row in rows if effort in row]
        if not mine:
            continue
        ratio = np.array([row[effort]["objective"] / row["adam_best"] for row in mine])
        seconds = np.array([row[effort]["seconds"] for row in mine])
        ended = sum(row[effort]["stationarity"] <= 1e-9 for row in mine)
        print(f"{effort}: at or below Adam's best of {results['seconds']:g} CPU seconds in "
              f"{(ratio <= 1).sum()} of {len(mine)}, J ratio {np.median(ratio):.3f} in the median, "
              f"{ratio.max():.3f} at worst; {np.median(seconds):.1f} CPU seconds in the median, "
              f"{seconds.max():.1f} at most; stationary to 1e-9 in {ended}")
    gains = [1 - row["default"]["rounds"][-1] / min(row["default"]["starts"]) for row in rows
             if row["default"]["rounds"]]
    print(f"reheats lower J of the best start by {100 * np.median(gains):.1f} % in the median, "
          f"{100 * max(gains):.1f} % at most")


def main() -> None:
    """Measure what is not there yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="one problem, kept nowhere")
    parser.add_argument("--report", action="store_true", help="only print the tables")
    arguments = parser.parse_args()
    seconds = 1.0 if arguments.small else SECONDS[-1]
    results: dict[str, Any] = {"seconds": seconds, "iterations": [], "problems": []}
    if RESULTS.exists() and not arguments.small:
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    if arguments.report:
        report(results)
        return
    problem, layers = problem_of("4-2-4", 0)
    hs.solve(problem, layers=layers, effort="quick")  # compiles
    sizes, seeds = (["4-2-4"], range(1)) if arguments.small else (list(SIZES), SEEDS)
    if not results["iterations"]:
        results["iterations"] = [iterations(size, 1 if arguments.small else 7) for size in sizes]
    known = {(row["size"], row["seed"]) for row in results["problems"]}
    for seed in seeds:
        for size in sizes:
            if (size, seed) in known:
                continue
            results["problems"].append(measured(size, seed, seconds))
            results |= {
                "date": datetime.date.today().isoformat(),
                "machine": f"{platform.machine()}, Python {platform.python_version()}",
                "versions": {name: importlib.metadata.version(name)
                             for name in ("hamshoot", "numpy", "scipy", "numba")}}
            if not arguments.small:
                RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    report(results)


if __name__ == "__main__":
    main()
