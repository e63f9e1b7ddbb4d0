"""A gradient by the sweeps of the whole network and by those over blocks of samples, side by side.

Run ``python sweeps.py``; about two minutes, on one thread (OMP_NUM_THREADS=1). ``--small`` measures
one size and writes no file.

J and ∂J/∂W of one network at a time, for the linear network, ReLU and smooth ReLU: w = 2, 4, 8,
N = 5, 20, 60, L = 10, 20, 60, and four larger networks. Two ratios, block over whole: "objects", of
`BlockSweeps.gradient` and `EulerSweeps.gradient`, which is what a solver calls; and "kernels", of
the compiled code alone, all samples one block, weight decay included. CPU seconds of batches of
calls taken in turns, medians of 15; compilation comes before. Printed, and written to sweeps.json
beside the script, with date, machine and versions.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np

import hamshoot as hs
from hamshoot.dynamics import _block_kernels, _kernels
from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.dynamics.sweeps import EulerSweeps, blas_threads

SMALL = tuple(product((2, 4, 8), (5, 20, 60), (10, 20, 60)))
#: (w, N, L), where the block sweeps are meant to be.
LARGE = ((16, 200, 20), (32, 500, 20), (64, 1000, 20), (100, 1000, 20))
ACTIVATIONS = ("linear", "relu", "smooth_relu")
TURNS = 15
#: CPU seconds of a batch.
BATCH = 4e-3


def problem_of(width: int, samples: int, activation: str) -> hs.TrainingProblem:
    """Teacher data; the smooth ReLU with ε = 0.1."""
    dims = (min(width, 4), min(width, 2), min(width, 4))
    epsilon = {"epsilon": 0.1} if activation == "smooth_relu" else {}
    return hs.teacher_problem(dims, samples=samples, width=width, effective_depth=3.0, seed=0,
                              weight_decay=3e-3, test_samples=0, activation=activation, **epsilon)


def batches(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU seconds of one call of each, in turns."""
    counts, seconds = {}, {name: [] for name in functions}
    for name, function in functions.items():
        function()
        began, calls = time.process_time(), 0
        while time.process_time() - began < BATCH:
            function()
            calls += 1
        counts[name] = calls
    for _ in range(TURNS):
        for name, function in functions.items():
            began = time.process_time()
            for _ in range(counts[name]):
                function()
            seconds[name].append((time.process_time() - began) / counts[name])
    return {name: float(np.median(each)) for name, each in seconds.items()}


def block_kernels(problem: hs.TrainingProblem, steps: np.ndarray, W: np.ndarray) -> Callable:
    """A call of the block kernels on one block of all samples, with workspaces made before."""
    (w, c), N, L, sigma = problem.control_shape, problem.n_samples, len(steps), problem.sigma
    A0, Y = (np.ascontiguousarray(each) for each in (problem.initial_state, problem.targets))
    leak, Q = problem.effective_depth, np.ascontiguousarray(problem.readout)
    S, pair, work = np.ones((L, c, N)), np.empty((2, c, N)), np.empty((3, c, N))
    R, grad, total, out = np.empty(Y.shape), np.empty((w, c)), np.empty_like(W), np.empty_like(W)
    share = problem.weight_decay / leak

    def call() -> tuple[float, np.ndarray]:
        square = _block_kernels.gradient(
            W, steps, leak, sigma.code, sigma.epsilon**2 / 4, Q, A0, Y, 2 / N, S, pair, work, R,
            True, grad, total)
        return square / N + _block_kernels.add_decay(total, W, steps, share, out), out

    return call


def measured(width: int, samples: int, layers: int, activation: str) -> dict[str, object]:
    """Microseconds of a gradient each way, and the two ratios."""
    problem = problem_of(width, samples, activation)
    steps = np.full(layers, 1 / layers)
    W = np.random.default_rng(0).standard_normal((layers, *problem.control_shape)) / width
    whole, block = EulerSweeps(problem, steps), BlockSweeps(problem, steps)
    arguments, alone = whole.arguments, block_kernels(problem, steps, W)
    J, G = whole.gradient(W)
    for other, gradient in (block.gradient(W), alone()):
        assert np.isclose(J, other, rtol=1e-12)
        assert np.allclose(G, gradient, rtol=1e-9, atol=1e-12 * np.abs(G).max())
    with blas_threads(problem):
        took = batches({
            "EulerSweeps": lambda: whole.gradient(W), "BlockSweeps": lambda: block.gradient(W),
            "kernels": lambda: _kernels.gradient(W, *arguments), "block kernels": alone})
    row = {"w": width, "N": samples, "L": layers, "activation": activation,
           "objects": took["BlockSweeps"] / took["EulerSweeps"],
           "kernels": took["block kernels"] / took["kernels"],
           "microseconds": {name: round(1e6 * each, 2) for name, each in took.items()}}
    print(f"(w, N, L) = ({width}, {samples}, {layers}) {activation:12} "
          f"{row['microseconds']['EulerSweeps']:10.1f} µs, block over whole: objects "
          f"{row['objects']:5.2f}, kernels {row['kernels']:5.2f}", flush=True)
    return row


def spread(rows: list[dict], which: str) -> list[float]:
    """Least, median and largest ratio."""
    ratios = [row[which] for row in rows]
    return [round(float(f(ratios)), 3) for f in (np.min, np.median, np.max)]


def summary(rows: list[dict]) -> dict[str, dict[str, list[float]]]:
    """Ratios of the small and of the larger networks, by activation: least, median, largest."""
    found = {}
    for size, sizes in (("small", SMALL), ("large", LARGE)):
        for activation in ACTIVATIONS:
            some = [row for row in rows if row["activation"] == activation
                    and (row["w"], row["N"], row["L"]) in sizes]
            if some:
                found[f"{size} {activation}"] = {which: spread(some, which)
                                                 for which in ("objects", "kernels")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="one size, no file")
    small = parser.parse_args().small
    sizes = SMALL[:1] if small else SMALL + LARGE
    rows = [measured(*size, activation) for size in sizes for activation in ACTIVATIONS]
    found = summary(rows)
    for name, ratios in found.items():
        print(name, ratios)
    if small:
        return
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, "
                   f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
        "versions": {package: importlib.metadata.version(package)
                     for package in ("numpy", "scipy", "numba")},
        "ratios": found, "rows": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
