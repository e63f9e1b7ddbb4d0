"""Rows a second from where data may stay: .npy, Parquet, Zarr, and the same behind fsspec.

    python demos/benchmarks/inputs.py                 # 10⁶ rows × 30 + 1 columns; some minutes
    python demos/benchmarks/inputs.py --rows 100000   # keeps nothing

Each place is read in a process of its own: the door (sizes, one pass of checks and scaling), then
all blocks of a network of width 100, in their order, scaled and lifted, as a gradient reads them.
"decoded" forgets every piece before, "kept" has what the shelf holds (500 MB, here all of it), and
"nothing kept" has a shelf of one piece, as data much larger than it have. Beside it one gradient of
20 layers in single precision, on one thread, which has to be the same to the last bit from every
place, and the bytes that one shard is sent as. Seconds are of CPU, summed over threads (Zarr has
some of its own); pages of files come from the system's cache. Results are kept in inputs.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import pickle
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import hamshoot as hs
from hamshoot.dynamics.block_sweeps import BlockSweeps, block_size
from hamshoot.problem import stored_rows

RESULTS = Path(__file__).with_name("inputs.json")
ROWS, COLUMNS, WIDTH, LAYERS, DEPTH = 1_000_000, 30, 100, 20, 7.0
PLACES = ("memory", "npy", "parquet", "parquet, one row group", "zarr", "fsspec npy",
          "fsspec parquet")
NAMES = [f"x{j}" for j in range(COLUMNS)]


def write(rows: int, folder: str) -> None:
    """The same numbers in every format, as their libraries write them by default."""
    import pyarrow
    import pyarrow.parquet
    import zarr

    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, COLUMNS))
    Y = np.abs(X[:, :1] - X[:, 1:2])
    np.save(f"{folder}/X.npy", X)
    np.save(f"{folder}/Y.npy", Y)
    table = pyarrow.table({**dict(zip(NAMES, X.T, strict=True)), "y": Y[:, 0]})
    pyarrow.parquet.write_table(table, f"{folder}/d.parquet", row_group_size=100_000)
    pyarrow.parquet.write_table(table, f"{folder}/one.parquet", row_group_size=rows)
    for name, array in (("X", X), ("Y", Y)):
        zarr.open_array(f"{folder}/{name}.zarr", mode="w", shape=array.shape,
                        chunks=(50_000, array.shape[1]), dtype=float)[:] = array


def opened(place: str, folder: str) -> tuple[Any, Any]:
    """X and Y."""
    if place == "memory":
        return np.load(f"{folder}/X.npy"), np.load(f"{folder}/Y.npy")
    if place == "npy":
        return tuple(hs.open_rows(f"{folder}/{name}.npy") for name in "XY")
    if place == "zarr":
        return tuple(hs.open_rows(f"{folder}/{name}.zarr") for name in "XY")
    start = f"simplecache::file://{folder}" if place.startswith("fsspec") else folder
    options = {"storage_options": {"simplecache": {"cache_storage": f"{folder}/cache"}}} \
        if place.startswith("fsspec") else {}
    if place == "fsspec npy":
        return tuple(hs.open_rows(f"{start}/{name}.npy", **options) for name in "XY")
    name = "one" if "one" in place else "d"
    return tuple(hs.open_rows(f"{start}/{name}.parquet", columns, **options)
                 for columns in (NAMES, ["y"]))


def seconds_of(function: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def through(problem: hs.TrainingProblem) -> None:
    """All blocks, one after the other, X and Y in turns."""
    size, samples = block_size(problem), problem.samples(0, problem.n_samples)
    for a in range(0, problem.n_samples, size):
        samples.read(a, min(a + size, problem.n_samples))


def measure(place: str, folder: str) -> dict[str, Any]:
    """One place, in a process of its own."""
    made: list[hs.TrainingProblem] = []
    options = dict(width=WIDTH, effective_depth=DEPTH, weight_decay=7e-3, standardize=True)
    opened(place, folder)  # imports
    door = seconds_of(lambda: made.append(hs.TrainingProblem(*opened(place, folder), **options)))
    problem = made[0]
    rows = problem.n_samples
    stored_rows.clear_shelf()
    found: dict[str, Any] = {"place": place, "door_seconds": round(door, 3)}
    found["rows_per_second_decoded"] = round(rows / seconds_of(lambda: through(problem)), -3)
    found["rows_per_second_kept"] = round(rows / seconds_of(lambda: through(problem)), -3)
    shelf, stored_rows.SHELF_BYTES = stored_rows.SHELF_BYTES, 1
    stored_rows.clear_shelf()
    found["rows_per_second_nothing_kept"] = round(rows / seconds_of(lambda: through(problem)), -3)
    stored_rows.SHELF_BYTES = shelf
    W = np.random.default_rng(1).standard_normal((LAYERS, WIDTH, WIDTH + 1)) / np.sqrt(WIDTH)
    steps = np.full(LAYERS, 1 / LAYERS)
    BlockSweeps(problem.subset(np.arange(300)), steps, dtype=np.float32).gradient(W)  # compiles
    sweeps = BlockSweeps(problem, steps, dtype=np.float32)
    result: list[Any] = []
    found["gradient_seconds"] = round(seconds_of(lambda: result.extend(sweeps.gradient(W))), 2)
    found["bytes_of_a_shard"] = len(pickle.dumps(sweeps._shards[0]))
    found["shards"] = len(sweeps._shards)
    found["digest"] = hashlib.sha256(result[1].tobytes() + repr(result[0]).encode()).hexdigest()
    return found


def main() -> None:
    """Write the files, read each in a fresh process, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args().rows
    fresh = multiprocessing.get_context("spawn")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        with fresh.Pool(1) as pool:
            pool.apply(write, (rows, folder))
        sizes = {path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                 if path.is_dir() else path.stat().st_size for path in Path(folder).iterdir()}
        for place in PLACES:
            with fresh.Pool(1) as pool:
                found.append(pool.apply(measure, (place, folder)))
            print(found[-1], flush=True)
    digests = {one.pop("digest") for one in found}
    print(f"{len(digests)} different gradient{'' if len(digests) == 1 else 's'}")
    if rows == ROWS:
        record = {
            "date": date.today().isoformat(), "command": "python demos/benchmarks/inputs.py",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "load": round(os.getloadavg()[0], 2), "rows": rows, "columns": COLUMNS + 1,
            "width": WIDTH, "layers": LAYERS, "megabytes": {name: round(size / 1e6)
                                                            for name, size in sizes.items()},
            "gradients_that_differ": len(digests) - 1,
            "versions": {"python": platform.python_version(), "hamshoot": hs.__version__,
                         **{name: __import__(name).__version__
                            for name in ("numpy", "pyarrow", "zarr", "fsspec")}},
            "places": found}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
