"""Growth in the number of samples: seconds and memory at w = 100, L = 20, L̃ = 7, teacher data.

    python demos/benchmarks/samples.py                        # 1e3, 1e4, 1e5; 1e5 from mapped files
    python demos/benchmarks/samples.py --samples 1000000 --mapped     # one more
    python demos/benchmarks/samples.py --samples 100000 --solve 1200  # a solve, level by level
    python demos/benchmarks/samples.py --report

Every size runs in a process of its own, whose peak memory is the operating system's account of it
(ru_maxrss, with the interpreter and the compiled code; of maps it counts the pages that are in
memory). Compilation is left out. Timings are CPU seconds, summed over threads, which other work on
the machine does not change much: medians of 25 at 1e3 samples and of 9 at 1e4, one call beyond
("repetitions"; 20 iterations are run three times up to 1e4). How a solve ended is its "status", and
how far from a stationary point its "stationarity"; results are kept in samples.json. For one thread
set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

import hamshoot as hs
from hamshoot.dynamics.block_sweeps import BlockSweeps, threads
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.single_shooting.kronecker import KroneckerLBFGS
from hamshoot.problem.activations import Activation
from hamshoot.problem.readers import teacher_data
from hamshoot.solution.evaluate import solution_from_weights

RESULTS = Path(__file__).with_name("samples.json")
LAYERS, WIDTH, DEPTH, EPSILON, ITERATIONS = 20, 100, 7.0, 0.01, 20
DIMS, SIZES = (30, 3, 30), (1000, 10_000, 100_000)
#: Beyond, single precision alone, and no iterations.
MOST_WHOLE = 200_000


def problem_of(samples: int, folder: str | None) -> hs.TrainingProblem:
    """Teacher data in memory, or mapped from the .npy files of a folder."""
    if folder is None:
        X, Y, _, _ = teacher_data(DIMS, samples, 0, 0)
    else:
        X, Y = (np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in "XY")
    return hs.TrainingProblem(X, Y, width=WIDTH, effective_depth=DEPTH, weight_decay=1e-3 * DEPTH,
                              standardize="common")


def write_teacher(samples: int, folder: str) -> None:
    """X.npy in single, Y.npy in double precision; in its own process, for its memory."""
    X, Y, _, _ = teacher_data(DIMS, samples, 0, 0)
    np.save(Path(folder) / "X.npy", X.astype(np.float32))
    np.save(Path(folder) / "Y.npy", Y)


def median(function: Callable[[], object], times: int) -> float:
    """Median CPU seconds."""
    seconds = []
    for _ in range(times):
        began = time.process_time()
        function()
        seconds.append(time.process_time() - began)
    return float(np.median(seconds))


def measure(samples: int, folder: str | None) -> dict:
    """Gradient, Gauss–Newton product and iterations of one size, and the peak memory."""
    began = time.process_time()
    problem = problem_of(samples, folder)
    ready = time.process_time() - began
    steps = np.full(LAYERS, 1 / LAYERS)
    few = problem.subset(np.arange(200))
    W = starting_weights(few, steps, "path", 0)
    V = np.random.default_rng(0).standard_normal(W.shape)
    times = {3: 25, 4: 9}.get(round(np.log10(samples)), 1)
    row: dict = {"samples": samples, "mapped": folder is not None, "repetitions": times,
                 "seconds_of_problem": round(ready, 3)}
    with threads(problem) as executor:
        for kind in (np.float64, np.float32) if samples <= MOST_WHOLE else (np.float32,):
            settings = dict(activation=Activation("smooth_relu", EPSILON), dtype=kind,
                            executor=executor)
            small = BlockSweeps(few, steps, **settings)  # compiles
            KroneckerLBFGS(small).minimise(W, 3)
            small.gauss_newton(V)
            sweeps = BlockSweeps(problem, steps, **settings)
            sweeps.objective(W)  # reads what is held
            name = np.dtype(kind).name
            row[name] = {"gradient": median(lambda s=sweeps: s.gradient(W), times)}
            sweeps.linearise(W)
            row[name]["gauss_newton"] = median(lambda s=sweeps: s.gauss_newton(V), times)
        if samples <= MOST_WHOLE:
            optimiser, evaluated = KroneckerLBFGS(sweeps), sweeps.gradients
            runs = 1 if samples > 20_000 else 3
            row["iterations"] = median(lambda: optimiser.minimise(W, ITERATIONS), runs)
            row["gradients_of_iterations"] = (sweeps.gradients - evaluated) // runs
        row["peak_gigabytes_of_sweeps"] = peak()
    began = time.process_time()
    solution = solution_from_weights(problem, W, steps, status=hs.Status.MAX_ITER, success=False,
                                     method="start")
    row["solution"] = time.process_time() - began
    row["stored"] = solution.stored
    return row


def solve(samples: int, folder: str | None, limit: float) -> dict:
    """A solve; CPU seconds of each level."""
    problem = problem_of(samples, folder)
    warm = hs.DirectSingleShooting(layers=LAYERS, optimizer="kronecker", max_iter=60, stage_iter=5)
    hs.solve(problem.subset(np.arange(1000)), warm)
    levels: dict[str, list] = {}
    last = [time.process_time()]

    def note(record: hs.Record) -> None:
        entry = levels.setdefault(record.stage, [0, 0.0, 0.0])
        entry[0] += 1
        now = time.process_time()
        entry[1] += now - last[0]
        entry[2] = record.objective
        last[0] = now

    solution = hs.solve(problem, hs.DirectSingleShooting(
        layers=LAYERS, optimizer="kronecker", time_limit=limit), callback=note)
    return {"samples": samples, "mapped": folder is not None, "time_limit": limit,
            "seconds": round(sum(s for _, s, _ in levels.values()), 1),
            "objective": solution.objective,
            "status": solution.status.name, "stationarity": solution.stationarity,
            "stored": solution.stored,
            "levels": {name: {"iterations": n, "seconds": round(s, 2), "objective": round(J, 5)}
                       for name, (n, s, J) in levels.items()}}


def peak() -> float:
    """Peak memory of this process in GB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)


def child(*arguments: str) -> str:
    """Run this file in a process of its own; its last line."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True,
                          text=True)
    return done.stdout.strip().splitlines()[-1] if done.stdout else ""


def run(samples: int, mapped: bool, limit: float | None) -> dict:
    """Measure one size in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--child", "--samples", str(samples)]
        if limit is not None:
            arguments += ["--solve", str(limit)]
        if mapped:
            child("--write", folder, "--samples", str(samples))
            arguments += ["--folder", folder]
        row = json.loads(child(*arguments))
    return row | {"date": str(date.today()), "load": round(os.getloadavg()[0], 2),
                  "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))}


def exponents(rows: list[dict]) -> dict:
    """Slopes of log seconds over log N, of the sizes in memory."""
    rows = [r for r in rows if not r["mapped"] and r["samples"] <= MOST_WHOLE]
    if len(rows) < 2:
        return {}
    logs = np.log([r["samples"] for r in rows])

    def slope(values: list[float]) -> float:
        return round(float(np.polyfit(logs, np.log(values), 1)[0]), 3)

    found = {f"{kind} {what}": slope([r[kind][what] for r in rows])
             for kind in ("float64", "float32") for what in ("gradient", "gauss_newton")}
    return found | {"iterations": slope([r["iterations"] for r in rows])}


def load() -> dict:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"sizes": [], "solves": []}


def keep(row: dict, where: str) -> None:
    """Put a row in place of the one of the same size."""
    import numba

    results = load()
    results[where] = sorted(
        [r for r in results[where]
         if (r["samples"], r["mapped"]) != (row["samples"], row["mapped"])] + [row],
        key=lambda r: (r["samples"], r["mapped"]))
    results["exponents"] = exponents(results["sizes"])
    results["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    results["versions"] = {"python": platform.python_version(), "numpy": np.__version__,
                           "numba": numba.__version__, "hamshoot": hs.__version__}
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def report() -> None:
    """The tables."""
    results = load()
    print("        N            gradient (64, 32)   Gauss-Newton (64, 32)   20 iterations"
          "    solution   peak")
    for r in results["sizes"]:
        g, n = ([r.get(k, {}).get(what, np.nan) for k in ("float64", "float32")]
                for what in ("gradient", "gauss_newton"))
        print(f"{r['samples']:>9} {'mapped' if r['mapped'] else '      '}"
              f"{g[0]:11.4f} {g[1]:8.4f} s {n[0]:13.4f} {n[1]:8.4f} s"
              f"{r.get('iterations', np.nan):14.2f} s"
              f" {r['solution']:8.2f} s {r['peak_gigabytes']:6.2f} GB")
    print("exponents", results.get("exponents"))
    for r in results["solves"]:
        print(f"solve of {r['samples']}{' mapped' if r['mapped'] else ''}: J {r['objective']:.5f}, "
              f"{r['status']}, {r['seconds']} s, {r['peak_gigabytes']} GB")
        for name, level in r["levels"].items():
            print(f"  {level['seconds'] / r['seconds']:6.1%} {level['iterations']:5} iterations, "
                  f"J {level['objective']:.5f}  {name}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int)
    parser.add_argument("--mapped", action="store_true")
    parser.add_argument("--solve", type=float, metavar="SECONDS", help="time limit of a solve")
    parser.add_argument("--report", action="store_true")
    for name in ("--folder", "--write"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.write:
        write_teacher(args.samples, args.write)
        return
    if args.child:
        row = measure(args.samples, args.folder) if args.solve is None else \
            solve(args.samples, args.folder, args.solve)
        print(json.dumps(row | {"peak_gigabytes": peak()}))
        return
    jobs = [(n, False) for n in SIZES] + [(SIZES[-1], True)]
    if args.samples:
        jobs = [(args.samples, args.mapped)]
    for samples, mapped in [] if args.report else jobs:
        print(f"{samples} {'mapped' if mapped else ''} ...", flush=True)
        keep(run(samples, mapped, args.solve), "sizes" if args.solve is None else "solves")
    report()


if __name__ == "__main__":
    sys.exit(main())
