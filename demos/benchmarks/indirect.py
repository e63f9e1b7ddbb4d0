"""`IndirectShooting` against `scipy.integrate.solve_bvp` and direct RK4, and larger sizes.

Run ``python indirect.py`` (all), or with one of ``scipy``, ``rk4``, ``sizes``. What was measured is
printed, and goes to indirect.json beside the script, with date, machine and versions; a run of one
part keeps what the file holds of the others. Compilation is timed apart, on a first call; times are
medians of repeats in one run. Against SciPy both solvers start from the same path of a trained
Euler network of 60 layers; against RK4 both start cold.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import hamshoot as hs
from hamshoot import discrete, layered_newton, starts
from hamshoot.flow import HamiltonianFlow
from hamshoot.indirect import IndirectShooting


def problem_of(width: int, samples: int, depth: float) -> hs.TrainingProblem:
    """Smooth ReLU, ε = 0.1, weight_decay/effective_depth = 0.01."""
    return hs.teacher_problem(
        dims=(width, 2, width), samples=samples, width=width, effective_depth=depth,
        weight_decay=1e-2 * depth, activation="smooth_relu", epsilon=0.1, seed=0,
    )


def trained(problem: hs.TrainingProblem, layers: int = 60) -> hs.Solution:
    """Euler network of `layers` layers at its minimum."""
    rough = hs.DirectSingleShooting(layers=layers, tol=1e-3, max_iter=200).solve(problem)
    steps = starts.equidistant_steps(layers)
    least = layered_newton.minimise(problem, rough.weights, steps)
    return discrete.solution_from_weights(
        problem, least.weights, steps, status=hs.Status.CONVERGED, success=True, method="start",
    )


def by_scipy(problem: hs.TrainingProblem, start: hs.Solution, tol: float = 1e-6):
    """Seconds, number of nodes and Hamiltonian drift of solve_bvp."""
    from scipy.integrate import solve_bvp

    from hamshoot import hamiltonian as ham

    w, N, depth, sigma = problem.width, problem.n_samples, problem.effective_depth, problem.sigma
    n = w * N

    def rates(_, y):
        A, B = y[:n].T.reshape(-1, w, N), y[n:].T.reshape(-1, w, N)
        s = sigma(A)
        K = np.swapaxes(s, 1, 2) @ s + 1
        dA = depth * (B @ K - A)
        dB = -depth * (sigma.slope(A) * (s @ (np.swapaxes(B, 1, 2) @ B)) - B)
        return np.concatenate([dA.reshape(-1, n), dB.reshape(-1, n)], axis=1).T

    def ends(ya, yb):
        B1 = ham.terminal_momentum(yb[:n].reshape(w, N), problem.readout, problem.targets,
                                   problem.weight_decay)
        return np.concatenate([ya[:n] - problem.initial_state.ravel(), yb[n:] - B1.ravel()])

    M = len(start.p)
    y = np.concatenate([start.representations.reshape(M, n), start.momenta.reshape(M, n)], 1).T
    clock = time.perf_counter()
    result = solve_bvp(rates, ends, start.p, y, tol=tol, max_nodes=2000)
    seconds = time.perf_counter() - clock
    H = [ham.hamiltonian(v[:n].reshape(w, N), v[n:].reshape(w, N), effective_depth=depth,
                         activation=sigma) for v in result.y.T]
    return seconds, result.x.size, ham.hamiltonian_drift(H), result.status


def compile_first() -> None:
    """First call of every kernel, timed."""
    clock = time.perf_counter()
    flow = HamiltonianFlow(2, 3, 1.0, hs.Activation("smooth_relu", 0.1))
    flow(np.zeros(1), np.ones(1), np.zeros((1, 12)))
    state = time.perf_counter() - clock
    flow.jvp(np.zeros(1), np.ones(1), np.zeros((1, 12)), np.zeros((1, 12)))
    print(f"compilation or cache: flow {state:.2f} s, "
          f"with directions {time.perf_counter() - clock:.2f} s")


def against_scipy(repeats: int = 3) -> list[dict]:
    problem = problem_of(6, 12, 4.0)
    start = trained(problem)
    print("(w, N, depth) = (6, 12, 4), from one trained network of 60 layers")
    slow = [by_scipy(problem, start) for _ in range(repeats)]
    theirs = statistics.median(r[0] for r in slow)
    rows = [{"method": "solve_bvp, tol 1e-6", "seconds": theirs, "nodes": slow[0][1],
             "hamiltonian_drift": slow[0][2], "status": slow[0][3]}]
    print(f"  solve_bvp, tol 1e-6       {theirs:8.3f} s, {slow[0][1]} nodes, "
          f"drift {slow[0][2]:.1e}, status {slow[0][3]}")
    for form in ("condensed", "state"):
        runs = [IndirectShooting(form=form).solve(problem, start) for _ in range(2 * repeats + 1)]
        ours = statistics.median(r.seconds for r in runs)
        r = runs[0].residuals
        rows.append({"method": f"IndirectShooting, {form}", "seconds": ours, "defect": r["defect"],
                     "hamiltonian_drift": r["hamiltonian_drift"], "times_faster": theirs / ours})
        print(f"  IndirectShooting {form:<9}{ours:8.3f} s, defect {r['defect']:.1e}, "
              f"drift {r['hamiltonian_drift']:.1e}, H {np.median(runs[0].hamiltonian):.7f}: "
              f"{theirs / ours:.0f} times faster")
    return rows


def against_rk4(time_limit: float = 300.0) -> list[dict]:
    """Direct multiple shooting with RK4 comes nowhere near the drift: its own is reported."""
    problem = problem_of(6, 30, 3.0)
    print("(w, N, depth) = (6, 30, 3), both from a cold start")
    ours = [IndirectShooting().solve(problem) for _ in range(3)]
    seconds = statistics.median(r.seconds for r in ours)
    rows = [{"method": "IndirectShooting", "seconds": seconds, "objective": ours[0].objective,
             "hamiltonian_drift": ours[0].residuals["hamiltonian_drift"]}]
    print(f"  IndirectShooting   {seconds:8.2f} s, J {ours[0].objective:.8f}, "
          f"drift {ours[0].residuals['hamiltonian_drift']:.1e}")
    for layers in (10, 20, 40, 80):
        direct = hs.DirectMultipleShooting(layers=layers, integrator="rk4", start="identity",
                                           time_limit=time_limit).solve(problem)
        rows.append({"method": f"RK4, {layers} steps", "seconds": direct.seconds,
                     "objective": direct.objective, "status": direct.status.name.lower(),
                     "hamiltonian_drift": direct.hamiltonian_drift,
                     "times_slower": direct.seconds / seconds})
        print(f"  RK4, {layers} steps      {direct.seconds:8.2f} s, J {direct.objective:.8f}, "
              f"drift {direct.hamiltonian_drift:.1e}, {direct.status.name.lower()}: "
              f"{direct.seconds / seconds:.0f} times slower")
    return rows


def sizes() -> list[dict]:
    rows = []
    for width, samples in ((6, 30), (8, 50), (8, 100), (10, 100)):
        problem = problem_of(width, samples, 3.0)
        clock = time.perf_counter()
        solution = IndirectShooting().solve(problem)
        r, seconds = solution.residuals, time.perf_counter() - clock
        newton = seconds - max(
            (record.seconds for record in solution.history if record.stage.startswith("direct")
             and np.isnan(record.stationarity)), default=0.0)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        rows.append({"width": width, "samples": samples, "seconds": seconds,
                     "newton_seconds": newton, "defect": r["defect"],
                     "hamiltonian_drift": r["hamiltonian_drift"],
                     "segments": solution.extra["segments"], "peak_gigabytes": memory,
                     "status": solution.status.name.lower()})
        print(f"  ({width}, {samples}), depth 3: {seconds:7.2f} s of which Newton {newton:.2f}, "
              f"defect {r['defect']:.1e}, drift {r['hamiltonian_drift']:.1e}, "
              f"{solution.extra['segments']} segments, peak memory {memory:.2f} GB, "
              f"{'solved' if solution.success else solution.message}", flush=True)
    return rows


PARTS = {"scipy": against_scipy, "rk4": against_rk4, "sizes": sizes}


def main() -> None:
    wanted = sys.argv[1:] or list(PARTS)
    compile_first()
    file = Path(__file__).with_suffix(".json")
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in wanted:
        results[name] = {
            "rows": PARTS[name](), "date": datetime.date.today().isoformat(),
            "machine": f"{platform.platform()}, {os.cpu_count()} cores, "
                       f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
            "versions": {package: importlib.metadata.version(package)
                         for package in ("numpy", "scipy", "casadi", "numba")},
        }
        file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
