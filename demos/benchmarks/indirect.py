"""`IndirectShooting` against `scipy.integrate.solve_bvp` and direct RK4; sizes, growth, compiling.

Run ``python indirect.py`` (all), or with some of ``scipy``, ``rk4``, ``sizes``, ``growth`` (of the
time of a Newton iteration in the number of samples), ``adjoint`` (the gradient of an end against
the flow alone and against all tangents) and ``compile`` (of the first solve of a fresh process,
with an empty and with a filled cache of numba). What was measured is printed, and goes to
indirect.json beside the script, with date, machine and versions; a run of one part keeps what the
file holds of the others. Compilation is timed apart, on a first call; times are medians of repeats
in one run, but for the sizes and for direct RK4, which run once. Against SciPy both solvers start
from the same path of a trained Euler network of 60 layers; against RK4 both start cold. The peak
memory is that of the whole process, with what ran in it before.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

import hamshoot as hs
from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.methods.common import starts
from hamshoot.methods.indirect.method import IndirectShooting
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.solution.evaluate import solution_from_weights


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
    least = exact_newton.minimise(problem, rough.weights, steps)
    return solution_from_weights(
        problem, least.weights, steps, status=hs.Status.CONVERGED, success=True, method="start",
    )


def by_scipy(problem: hs.TrainingProblem, start: hs.Solution, tol: float = 1e-6):
    """Seconds, number of nodes and Hamiltonian drift of solve_bvp."""
    from scipy.integrate import solve_bvp

    from hamshoot.theory import hamiltonian as ham

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


def growth(width: int = 4, segments: int = 60, repeats: int = 5) -> list[dict]:
    """Seconds of a Newton iteration in each form over N, and the exponent from N = 40 on.

    An iteration is what `IndirectShooting` does in one where nothing is reused: the flow, a fresh
    system, and a correction; in the (A, B) form, GMRES on tangents and the simplified correction.
    All start from a geodesic moved by 1e-3, on the same mesh of equal segments.
    """
    rows = []
    counts = (10, 20, 40, 80, 160, 320)
    t, iterates = np.linspace(0, 1, segments + 1), []
    for samples in counts:
        problem = problem_of(width, samples, 3.0)
        point = IndirectShooting().solve(problem).at(t)
        y = np.stack([point.representations, point.momenta], axis=1)
        noise = np.random.default_rng(0).standard_normal(y.shape)
        iterates.append((problem, y * (1 + 1e-3 * noise)))
    for form in ("state", "condensed", "control"):
        times, parts = [], []
        for problem, y in iterates:
            run = _iteration(problem, t, y, form)
            run()
            clocks = [run() for _ in range(repeats)]
            times.append(statistics.median(c[0] for c in clocks))
            parts.append(statistics.median(c[1] for c in clocks))
        large = [i for i, N in enumerate(counts) if N >= 40]
        slope = float(np.polyfit(np.log([counts[i] for i in large]),
                                 np.log([times[i] for i in large]), 1)[0])
        rows.append({"form": form, "width": width, "segments": segments, "samples": counts,
                     "seconds_per_iteration": times, "of_which_factorisation": parts,
                     "exponent_from_40": slope})
        print(f"  {form:<10}" + " ".join(f"{s:8.4f}" for s in times) + f" s: N^{slope:.2f}")
    return rows


def _iteration(problem: hs.TrainingProblem, t: np.ndarray, y: np.ndarray, form: str):
    """A function that does one Newton iteration and returns its seconds and the factorisation's."""
    from hamshoot.methods.indirect.equations import ShootingProblem

    flow = HamiltonianFlow(problem.width, problem.n_samples, problem.effective_depth, problem.sigma)
    shooting = ShootingProblem(flow, problem.initial_state, problem.readout, problem.targets,
                               problem.weight_decay)

    def condensed() -> tuple[float, float]:
        clock = time.perf_counter()
        defects = shooting.defects(t, y)
        before = time.perf_counter()
        system, _ = shooting.newton_system(t, y, form, 1.0)
        after = time.perf_counter()
        system.solve(defects, *shooting.boundary(y))
        return time.perf_counter() - clock, after - before

    def state() -> tuple[float, float]:
        from hamshoot.methods.indirect.state_form import two_point

        system = two_point(shooting, t, y)
        clock = time.perf_counter()
        system(max_iter=1)
        return time.perf_counter() - clock, 0.0

    return state if form == "state" else condensed


def adjoint(repeats: int = 15) -> list[dict]:
    """Flow, one direction forwards, gradient of a number at the end, and all of the tangents."""
    rows, rng = [], np.random.default_rng(0)
    sizes = ((2, 3), (4, 10), (6, 30), (8, 50), (10, 100))
    for (width, samples), name in product(sizes, ("smooth_relu", "relu")):
        sigma = hs.Activation(name, 0.1) if name == "smooth_relu" else hs.Activation(name)
        flow = HamiltonianFlow(width, samples, 3.0, sigma)
        y = 0.3 * rng.standard_normal((10, flow.size)) / np.sqrt(samples)
        u = rng.standard_normal(y.shape)
        ends = np.linspace(0, 1, 11)
        calls = {"flow": partial(flow, ends[:-1], ends[1:], y),
                 "jvp": partial(flow.jvp, ends[:-1], ends[1:], y, u),
                 "vjp": partial(flow.vjp, ends[:-1], ends[1:], y, u)}
        if flow.size <= 600:
            calls["tangents"] = partial(flow, ends[:-1], ends[1:], y, jacobian=True)
        seconds = {}
        for what, call in calls.items():
            call()
            seconds[what] = statistics.median(_clocked(call) for _ in range(repeats))
        ratios = {f"{what}_over_flow": seconds[what] / seconds["flow"]
                  for what in calls if what != "flow"}
        rows.append({"width": width, "samples": samples, "activation": name,
                     "crossings": int(flow.crossings.sum()), "steps": int(flow.steps.sum()),
                     "flow_seconds": seconds["flow"], **ratios})
        shares = ", ".join(f"{what.split('_')[0]} {ratio:.1f}" for what, ratio in ratios.items())
        print(f"  ({width}, {samples}), {name}: flow {1e3 * seconds['flow']:.2f} ms, in units of "
              f"it {shares}", flush=True)
    return rows


def _clocked(call) -> float:
    clock = time.perf_counter()
    call()
    return time.perf_counter() - clock


_FIRST_SOLVE = """
import sys, time
clock = time.perf_counter()
import numba, scipy.linalg, scipy.optimize
import hamshoot as hs
from hamshoot import indirect
imports = time.perf_counter() - clock
if sys.argv[1] == "relu, plain at the end":
    problem = hs.TrainingProblem([[1.0, 0.5]], width=2, activation="relu", bias=False,
                                 effective_depth=2.0, weight_decay=0.1, endpoint=[[0.5], [1.0]])
else:
    problem = hs.teacher_problem(
        dims=(4, 2, 4), samples=8, width=4, effective_depth=3.0, weight_decay=0.03, seed=0,
        activation=sys.argv[1], **({"epsilon": 0.1} if sys.argv[1] == "smooth_relu" else {}))
times = []
for _ in range(3):
    clock = time.perf_counter()
    hs.IndirectShooting().solve(problem)
    times.append(time.perf_counter() - clock)
print(imports, times[0] - min(times[1:]), min(times[1:]))
"""


def compilation(repeats: int = 3) -> list[dict]:
    """First solve minus a later one, in fresh processes; imports of the libraries apart."""
    rows = []
    for activation in ("smooth_relu", "relu", "relu, plain at the end"):
        cold, cached = [], []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                for times in (cold, cached):
                    out = subprocess.run(
                        [sys.executable, "-c", _FIRST_SOLVE, activation], check=True, text=True,
                        capture_output=True, env={**os.environ, "NUMBA_CACHE_DIR": folder},
                    ).stdout
                    times.append([float(v) for v in out.split()])
        row = {"activation": activation}
        for name, times in (("cold", cold), ("cached", cached)):
            row[f"{name}_seconds"] = statistics.median(v[1] for v in times)
        row["solve_seconds"] = statistics.median(v[2] for v in cached)
        row["import_seconds"] = statistics.median(v[0] for v in cached)
        rows.append(row)
        print(f"  first solve, {activation}: compilation {row['cold_seconds']:.2f} s, cached "
              f"{row['cached_seconds']:.2f} s; imports {row['import_seconds']:.2f} s, the solve "
              f"itself {row['solve_seconds']:.2f} s")
    return rows


PARTS = {"scipy": against_scipy, "rk4": against_rk4, "sizes": sizes, "growth": growth,
         "adjoint": adjoint, "compile": compilation}


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
