"""How often the polish settles, and from how large an ε: 54 small ReLU networks.

Run ``python polish.py``; about three minutes. Five sizes, with and without bias, from one or two
starts; every network is carried down the smooth ladder by `hamshoot.methods.newton.minimise`, and
polished from each of the last ε. Then, at middle sizes, one network each: seconds of an iteration
of exact Newton in both forms, and the polish from ε = 1e-4. Printed, and written to polish.json
beside the script, with date, machine and versions.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

import hamshoot as hs
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.newton import differential_dynamic_programming, reduced_hessian
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.active_set import polish
from hamshoot.problem.activations import epsilon_ladder
from hamshoot.theory import layers as discrete

#: (w, N, L), teacher, seeds, starts, bias.
FAMILIES = (
    ((4, 12, 8), (4, 2, 4), 6, ("path", "identity"), (True, False)),
    ((4, 20, 10), (4, 2, 4), 6, ("path", "identity"), (True,)),
    ((6, 8, 6), (4, 2, 4), 3, ("path", "identity"), (True, False)),
    ((5, 25, 12), (5, 2, 5), 3, ("path",), (True,)),
    ((6, 30, 12), (6, 2, 6), 3, ("path",), (True,)),
)
LARGEST = 2e-3
#: (w, N, L) of the middle sizes.
MIDDLE = ((8, 50, 20), (8, 120, 20), (12, 120, 20), (13, 142, 20), (8, 500, 20))


def middle_size(width: int, samples: int, layers: int) -> dict[str, object]:
    """Seconds of one Newton iteration in both forms, and of the polish of one network."""
    problem = hs.teacher_problem((width, 2, width), samples=samples, width=width, seed=0,
                                 effective_depth=3.0, weight_decay=3e-3, test_samples=0)
    found = hs.solve(problem, hs.DirectSingleShooting(
        layers=layers, starts=1, reheats=0, polish=False, tol=1e-5, optimizer="lbfgs"))
    W, steps = found.weights, found.steps
    seconds = {}
    for epsilon in epsilon_ladder(1e-3, 1e-4, 0.5):
        smooth = problem.replace(activation="smooth_relu", epsilon=epsilon)
        W = exact_newton.minimise(smooth, W, steps, tol=1e-9).weights
    A = discrete.roll_out(smooth, W, steps)
    B, gradient = discrete.costates(smooth, A, W, steps)
    for _ in range(2):  # the second counts
        clock = time.perf_counter()
        differential_dynamic_programming._backward(smooth, A, B, W, gradient, steps, 0.0)
        seconds["riccati"] = time.perf_counter() - clock
        clock = time.perf_counter()
        at = reduced_hessian.expansion(smooth, A, B, W, steps)
        hessian, _ = reduced_hessian.second_derivatives(at)
        reduced_hessian._factor(hessian, np.ones(len(hessian)), 0.0)
        seconds["dense"] = time.perf_counter() - clock
    clock = time.perf_counter()
    polished = polish(problem, W, steps, 1e-4)
    seconds["polish"] = time.perf_counter() - clock
    row = {"w": width, "N": samples, "L": layers, "controls": W.size,
           "cheaper": exact_newton.cheaper_form(problem, layers), "seconds": seconds,
           "settled": polished.settled, "stationarity": polished.stationarity,
           "held": polished.held, "iterations": polished.iterations}
    print(f"  (w, N, L) = ({width}, {samples}, {layers}), {W.size} controls: Newton iteration "
          f"{seconds['riccati']:.2f} s by Riccati, {seconds['dense']:.2f} s dense; polish "
          f"{seconds['polish']:.1f} s, {polished.iterations} iterations, {polished.held} held, "
          f"stationarity {polished.stationarity:.1e}, settled: {polished.settled}", flush=True)
    return row


def main() -> None:
    counts: dict[str, list[float]] = {}
    networks = 0
    for (width, samples, layers), dims, seeds, names, biases in FAMILIES:
        steps = np.full(layers, 1 / layers)
        for seed in range(seeds):
            for name in names:
                for bias in biases:
                    networks += 1
                    problem = hs.teacher_problem(
                        dims, samples=samples, width=width, effective_depth=3.0, seed=seed,
                        weight_decay=3e-3, test_samples=0, bias=bias)
                    W = starting_weights(problem, steps, name, 0)
                    for epsilon in epsilon_ladder(0.1, 6e-5, 0.5):
                        smooth = problem.replace(activation="smooth_relu", epsilon=epsilon)
                        W = exact_newton.minimise(smooth, W, steps, tol=1e-8,
                                                    max_iter=200).weights
                        if epsilon > LARGEST:
                            continue
                        clock = time.perf_counter()
                        polished = polish(problem, W, steps, epsilon)
                        row = counts.setdefault(f"{epsilon:.1e}", [0, 0, 0, 0.0])
                        row[0] += polished.settled
                        row[1] += 1
                        row[2] += polished.iterations
                        row[3] += time.perf_counter() - clock
    print(f"{networks} networks")
    rows = []
    for epsilon, (settled, tries, iterations, seconds) in counts.items():
        rows.append({"epsilon": float(epsilon), "settled": int(settled), "tries": int(tries),
                     "iterations": int(iterations), "seconds": seconds})
        print(f"  from ε = {epsilon}: {settled} of {tries} settled, {iterations / tries:.1f} "
              f"iterations and {1e3 * seconds / tries:.0f} ms each")
    middle = [middle_size(*sizes) for sizes in MIDDLE]
    result = {
        "networks": networks, "rows": rows, "middle": middle,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, "
                   f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
        "versions": {package: importlib.metadata.version(package)
                     for package in ("numpy", "scipy", "numba")},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
