"""Blocks of samples over the workers of Dask: what travels, what it costs, when it pays.

    python demos/benchmarks/cluster.py --overhead           # bytes and seconds a gradient, no work
    python demos/benchmarks/cluster.py --speed 100000 1000000
    python demos/benchmarks/cluster.py --disk 10000000      # out of core, 30 columns from a file
    python demos/benchmarks/cluster.py --kills 20           # workers killed at random moments
    python demos/benchmarks/cluster.py --report             # prints the results, and the model

The scheduler and the workers are processes of their own on this machine, each worker with one
thread. Seconds are the wall clock's, medians, of one process, one worker and two workers in
turns, so that other work on the machine meets them alike; the load average is kept beside them, and
the workers' own CPU seconds, which tell how much of the wall clock was others'. Results are kept in
cluster.json. Scratch files go to the folder of --scratch and are deleted.

The model: a gradient of N samples over k workers takes

    seconds(k) = work/k + latency + k · bytes/rate

with `work` that of one process, bytes those of controls out and sums back for one worker, and
latency and rate fitted to gradients of hardly any samples with controls of several sizes. It takes
workers to be equally fast, each to have a whole branch of the sum, and all controls to
leave through the one connection of the client; a network in place of this machine's loopback has
another rate and latency. It is least at k = √(work · rate / bytes).
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import hamshoot as hs
from hamshoot.dynamics import block_executors
from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.methods.common.starts import starting_weights
from hamshoot.problem.activations import Activation

RESULTS = Path(__file__).with_name("cluster.json")
LAYERS, WIDTH, DEPTH, INPUTS, OUTPUTS = 5, 100, 3.0, 29, 1
#: Widths of the controls whose way there and back is timed, and gradients of each.
WIDTHS, FEW, TIMES = (20, 100, 200, 400), 1024, 30
#: A link between hosts, for the model: 10 Gbit/s and half a millisecond.
LINK, LINK_LATENCY = 1.25e9, 5e-4


@contextmanager
def cluster(workers: int) -> Iterator[tuple[Any, int]]:
    """A client of a scheduler with so many workers of one thread, and the scheduler's process."""
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "scheduler.json")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}

        def start(name: str, *arguments: str) -> subprocess.Popen:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{name}", "--scheduler-file", file,
                 "--no-dashboard", *arguments], env=environment, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, cwd=folder)

        processes = [start("scheduler", "--port", "0"),
                     start("worker", "--nthreads", "1", "--nworkers", str(workers))]
        try:
            while not os.path.exists(file):
                time.sleep(0.1)
            with Client(scheduler_file=file) as client:
                client.wait_for_workers(workers)
                yield client, processes[0].pid
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def write_data(folder: Path, samples: int, seed: int = 0) -> None:
    """Inputs and target in one file of single precision, 30 columns, written in pieces."""
    rng = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(folder / "data.npy", "w+", np.float32,
                                    (samples, INPUTS + OUTPUTS))
    for a in range(0, samples, 200_000):
        X = rng.standard_normal((min(200_000, samples - a), INPUTS), dtype=np.float32)
        out[a : a + len(X), :INPUTS] = X
        out[a : a + len(X), INPUTS:] = np.sin(X[:, :1]) * X[:, 1:2] + X[:, 2:3]
    out.flush()


def problem_of(folder: Path, width: int) -> hs.TrainingProblem:
    data = np.load(folder / "data.npy", mmap_mode="r")
    return hs.TrainingProblem(data[:, :INPUTS], data[:, INPUTS:], width=width,
                              effective_depth=DEPTH, weight_decay=1e-3)


def sweeps_of(problem: hs.TrainingProblem, executor: Any = None) -> tuple[BlockSweeps, Any]:
    """Sweeps in single precision, and controls to begin with."""
    steps = np.full(LAYERS, 1 / LAYERS)
    W = starting_weights(problem.subset(np.arange(1000)), steps, "path", 0)
    return BlockSweeps(problem, steps, Activation("smooth_relu", 0.01), dtype=np.float32,
                       executor=executor), W


def timed(sweeps: BlockSweeps, W: Any) -> float:
    """Seconds of a gradient."""
    began = time.perf_counter()
    sweeps.gradient(W)
    return time.perf_counter() - began


def counted(client: Any, sweeps: BlockSweeps, W: Any) -> tuple[int, int]:
    """Bytes of the orders that go out and of the answers that come back, pickled."""
    out: list[int] = []
    back: list[int] = []
    submit, gather = client.submit, client.gather

    def submitted(run: Callable, order: Any, **more: Any) -> Any:
        out.append(len(pickle.dumps(order)))
        return submit(run, order, **more)

    async def gathered(futures: Any, asynchronous: bool) -> Any:
        answers = await gather(futures, asynchronous=asynchronous)
        back.append(len(pickle.dumps(answers)))
        return answers

    client.submit, client.gather = submitted, gathered
    try:
        sweeps.gradient(W)
    finally:
        del client.submit, client.gather
    return sum(out), sum(back)


def memory(pid: int) -> float:
    """Resident megabytes of a process."""
    import psutil

    return round(psutil.Process(pid).memory_info().rss / 1e6, 1)


def cpu_seconds(client: Any) -> float:
    """CPU seconds of all workers so far."""
    return float(sum(client.run(time.process_time).values()))


def cpu_each(client: Any) -> Any:
    """CPU seconds of every worker so far; of this process without a client."""
    if client is None:
        return np.array([time.process_time()])
    return np.array([seconds for _, seconds in sorted(client.run(time.process_time).items())])


def overhead(scratch: Path) -> dict:
    """Seconds of a gradient with next to no work, by the size of the controls; the fit."""
    block_executors.LEAST_FLOPS = 0
    write_data(scratch, FEW)
    rows = []
    with cluster(1) as (one, _), cluster(2) as (two, scheduler):
        before = None
        for width in WIDTHS:
            problem = problem_of(scratch, width)
            here, W = sweeps_of(problem)
            far = {1: sweeps_of(problem, one)[0], 2: sweeps_of(problem, two)[0]}
            seconds: dict[int, list[float]] = {0: [], 1: [], 2: []}
            for sweeps in (here, *far.values()):
                sweeps.gradient(W)  # compiles, sends shards
            before = memory(scheduler) if before is None else before
            for _ in range(TIMES):
                for k, sweeps in ((0, here), *far.items()):
                    seconds[k].append(timed(sweeps, W))
            out, back = counted(two, far[2], W)
            work = float(np.median(seconds[0]))
            rows.append({"width": width, "bytes_of_controls": 4 * W.size,
                         "bytes_out": out, "bytes_back": back, "here": work,
                         **{f"workers_{k}": float(np.median(seconds[k])) for k in (1, 2)},
                         **{f"overhead_{k}": float(np.median(seconds[k])) - work / k
                            for k in (1, 2)}})
        after = memory(scheduler)
    size = np.array([4 * row["bytes_of_controls"] for row in rows], dtype=float)  # two, both ways
    A = np.column_stack([np.ones(len(rows)), size])
    fit = np.linalg.lstsq(A, np.array([row["overhead_2"] for row in rows]), rcond=None)[0]
    return {"rows": rows, "latency": float(fit[0]), "rate": float(1 / max(fit[1], 1e-15)),
            "scheduler_megabytes": [before, after]}


def speed(samples: int, scratch: Path, times: int) -> dict:
    """A gradient here, by one worker and by two, in turns; w = 100."""
    write_data(scratch, samples)
    problem = problem_of(scratch, WIDTH)
    with cluster(1) as (one, _), cluster(2) as (two, scheduler):
        all_sweeps = {0: sweeps_of(problem), 1: sweeps_of(problem, one), 2: sweeps_of(problem, two)}
        W = all_sweeps[0][1]
        gradients = {k: sweeps.gradient(W)[1] for k, (sweeps, _) in all_sweeps.items()}
        before = memory(scheduler)
        wall: dict[int, list[float]] = {0: [], 1: [], 2: []}
        cpu: dict[int, list[float]] = {0: [], 1: [], 2: []}
        longest: dict[int, list[float]] = {0: [], 1: [], 2: []}
        for _ in range(times):
            for k, (sweeps, _) in all_sweeps.items():
                began = cpu_each((None, one, two)[k])
                wall[k].append(timed(sweeps, W))
                spent = cpu_each((None, one, two)[k]) - began
                cpu[k].append(float(spent.sum()))
                longest[k].append(float(spent.max()))
        out, back = counted(two, all_sweeps[2][0], W)
        return {"samples": samples, "layers": LAYERS, "width": WIDTH, "times": times,
                "wall": {k: float(np.median(v)) for k, v in wall.items()},
                "cpu": {k: float(np.median(v)) for k, v in cpu.items()},
                "cpu_longest": {k: float(np.median(v)) for k, v in longest.items()},
                "speed_up": float(np.median(np.array(wall[1]) / np.array(wall[2]))),
                "bytes_out": out, "bytes_back": back,
                "same_bits": bool(all(np.array_equal(g, gradients[0])
                                      for g in gradients.values())),
                "scheduler_megabytes": [before, memory(scheduler)],
                "load": os.getloadavg()[0]}


def disk(samples: int, scratch: Path, width: int = 32) -> dict:
    """A gradient out of core by two workers, from a file that is not in memory."""
    write_data(scratch, samples)
    path = scratch / "data.npy"
    forget(path)
    began = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
    reading = time.perf_counter() - began
    problem = problem_of(scratch, width)
    with cluster(2) as (client, scheduler):
        sweeps, W = sweeps_of(problem, client)
        sweeps.gradient(W)
        forget(path)
        began = cpu_seconds(client)
        seconds = timed(sweeps, W)
        cpu = cpu_seconds(client) - began
        peaks = client.run(peak)
        return {"samples": samples, "columns": INPUTS + OUTPUTS, "width": width, "layers": LAYERS,
                "file_gigabytes": path.stat().st_size / 1e9, "seconds": seconds,
                "workers_cpu": cpu, "reading_alone": reading,
                "rows_per_second": samples / seconds,
                "rows_per_cpu_second": samples / cpu,
                "peak_gigabytes": sorted(peaks.values()), "client_peak_gigabytes": peak(),
                "scheduler_megabytes": memory(scheduler), "load": os.getloadavg()[0]}


def peak() -> float:
    """Peak memory of this process in GB, without the pages of files that it maps."""
    import resource

    import psutil

    info = psutil.Process().memory_info()
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return round(whole - getattr(info, "shared", 0) / 1e9, 3)


def forget(path: Path) -> None:
    """Ask the system to drop what it holds of a file in memory."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def kills(count: int, scratch: Path) -> dict:
    """Gradients and products during which one of two workers is killed at a random moment."""
    import signal
    import threading

    from distributed import Client, LocalCluster

    block_executors.LEAST_FLOPS = 0
    write_data(scratch, 20_000)
    problem = problem_of(scratch, 32)
    rng, differences = np.random.default_rng(0), []
    here, W = sweeps_of(problem)
    J, G = here.expand(W)
    H = here.hessian(W)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local, \
            Client(local) as client:
        there, _ = sweeps_of(problem, client)
        there.expand(W)
        one = timed(there, W)
        for _ in range(count):
            client.wait_for_workers(2)
            victim = int(rng.choice(sorted(client.run(os.getpid).values())))
            killer = threading.Timer(float(rng.uniform(0, 3 * one)), os.kill,
                                     (victim, signal.SIGKILL))
            killer.start()
            for _ in range(3):
                value, gradient = there.gradient(W)
                off = [abs(value - J) / J, np.abs(gradient - G).max() / np.abs(G).max(),
                       np.abs(there.hessian(W) - H).max() / np.abs(H).max()]
                differences.append(float(max(off)))
            killer.join()
    return {"runs": count, "seconds_of_a_gradient": one, "largest_difference": max(differences)}


def report(results: dict) -> None:
    """Print what is kept, and what the model says."""
    if "overhead" in results:
        found = results["overhead"]
        for row in found["rows"]:
            print(f"w = {row['width']:3d}: controls {row['bytes_of_controls'] / 1e6:.2f} MB, two "
                  f"workers: out {row['bytes_out'] / 1e6:.2f} MB, back "
                  f"{row['bytes_back'] / 1e6:.2f} MB; {1e3 * row['overhead_1']:.1f} and "
                  f"{1e3 * row['overhead_2']:.1f} ms more than here (1 and 2 workers)")
        print(f"latency {1e3 * found['latency']:.1f} ms, {found['rate'] / 1e6:.0f} MB/s; scheduler "
              "{} MB before and {} MB after".format(*found["scheduler_megabytes"]))
    for row in results.get("speed", {}).values():
        wall, cpu = row["wall"], row["cpu"]
        print(f"N = {row['samples']:.0e}: {wall['0']:.2f} s here, {wall['1']:.2f} s by one worker, "
              f"{wall['2']:.2f} s by two, {row['speed_up']:.2f} times faster; CPU {cpu['0']:.2f}, "
              f"{cpu['1']:.2f}, {cpu['2']:.2f} s, of the busier of two "
              f"{row['cpu_longest']['2']:.2f} s; load {row['load']:.1f}; same bits: "
              f"{row['same_bits']}; {(row['bytes_out'] + row['bytes_back']) / 1e6:.2f} MB; "
              "scheduler {} to {} MB".format(*row["scheduler_megabytes"]))
        if "overhead" in results:
            volume = 2 * 4 * LAYERS * WIDTH * (WIDTH + 1)
            for name, rate, latency in (
                    ("this machine's loopback", results["overhead"]["rate"],
                     results["overhead"]["latency"]), ("10 Gbit/s", LINK, LINK_LATENCY)):
                work = cpu["0"]
                best = max(1.0, float(np.sqrt(work * rate / volume)))
                print(f"    model, {name}: least at {best:.0f} workers; 2 workers "
                      f"{work / (work / 2 + latency + 2 * volume / rate):.2f} times, 16 workers "
                      f"{work / (work / 16 + latency + 16 * volume / rate):.1f} times; two do not "
                      f"pay below {2 * (latency + 2 * volume / rate) / work * row['samples']:.0f} "
                      f"samples")
    for row in results.get("disk", {}).values():
        print(f"{row['samples']:.0e} × {row['columns']}, {row['file_gigabytes']:.2f} GB on disk: "
              f"gradient {row['seconds']:.1f} s, {row['rows_per_second']:.3g} rows/s; the workers' "
              f"CPU {row['workers_cpu']:.1f} s, reading alone {row['reading_alone']:.1f} s; peak "
              f"{row['peak_gigabytes']} GB a worker, client {row['client_peak_gigabytes']} GB; "
              f"load {row['load']:.1f}")
    if "kills" in results:
        row = results["kills"]
        print(f"{row['runs']} workers killed: largest difference {row['largest_difference']:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--speed", type=int, nargs="+", default=[])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--disk", type=int)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        scratch = Path(folder)
        if given.overhead:
            results["overhead"] = overhead(scratch)
        for samples in given.speed:
            results.setdefault("speed", {})[str(samples)] = speed(samples, scratch, given.times)
        if given.disk:
            results.setdefault("disk", {})[str(given.disk)] = disk(given.disk, scratch)
        if given.kills:
            results["kills"] = kills(given.kills, scratch)
    if not given.report:
        results["date"], results["cores"] = str(date.today()), os.cpu_count()
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    report(results)


if __name__ == "__main__":
    main()
