"""Seconds and memory of reading a large CSV file, with pandas, with polars and with neither.

    python demos/benchmarks/large_csv.py                # 300 000 rows of ten numbers, a minute
    python demos/benchmarks/large_csv.py --rows 30000   # keeps nothing

Each way reads the file in a process of its own, whose CPU seconds and peak memory are told, and the
tables have to be the same to the last bit. Results are kept in large_csv.json.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import multiprocessing
import platform
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import hamshoot as hs
from hamshoot.problem import frames
from hamshoot.problem.readers import read_csv

RESULTS = Path(__file__).with_name("large_csv.json")
ROWS, COLUMNS = 300_000, 10


def peak_kb() -> int:
    """Peak memory of this process on Linux; `resource` counts that of its parent too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def read(way: str, path: str) -> dict[str, Any]:
    """One way of reading: CPU seconds, the import of its package included, peak memory, digest."""
    frames.LARGE_BYTES = 0 if way != "csv" else 10**15
    if way != "csv":
        other = "polars" if way == "pandas" else "pandas"
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name: None if name == other else found(name)
    before, began = peak_kb(), time.process_time()
    table = read_csv(path)
    seconds = time.process_time() - began
    peak = peak_kb() - before
    digest = hashlib.sha256(table.X.tobytes() + table.Y.tobytes()).hexdigest()
    return {"way": way, "cpu_seconds": round(seconds, 2), "peak_mb": round(peak / 1024),
            "digest": digest}


def main() -> None:
    """Write the file, read it in each way, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args().rows
    values = np.random.default_rng(0).standard_normal((rows, COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.csv"
        with path.open("w") as file:
            file.write(",".join(f"c{k}" for k in range(COLUMNS)) + "\n")
            file.writelines(",".join(map(repr, row)) + "\n" for row in values.tolist())
        size = path.stat().st_size
        fresh = multiprocessing.get_context("spawn")
        found = []
        for way in ("csv", "pandas", "polars"):
            with fresh.Pool(1) as pool:
                found.append(pool.apply(read, (way, str(path))))
            print(found[-1], flush=True)
    whole = np.ascontiguousarray(values[:, :-1]).tobytes() + values[:, -1].tobytes()
    assert {one.pop("digest") for one in found} == {hashlib.sha256(whole).hexdigest()}
    if rows == ROWS:
        record = {"date": date.today().isoformat(),
                  "command": "python demos/benchmarks/large_csv.py", "machine": platform.machine(),
                  "rows": rows, "columns": COLUMNS,
                  "file_mb": round(size / 2**20),
                  "versions": {"python": platform.python_version(), "numpy": np.__version__,
                               **{name: __import__(name).__version__
                                  for name in ("pandas", "polars")}, "hamshoot": hs.__version__},
                  "ways": found}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
