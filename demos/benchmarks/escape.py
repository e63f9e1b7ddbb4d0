"""What leaving stationary points that are no minima gains, and what the certificate says after it.

    python demos/benchmarks/escape.py              # 60 problems, with one start and with five
    python demos/benchmarks/escape.py --report     # the table alone

Random teachers of four sizes, some with neurons to spare and few samples, some with many, each
solved by single shooting. A solve ends at a stationary point of the ReLU network; where the
second-order test finds a way down from there the solver takes it
(`hamshoot.methods.newton.escape`). For each solve: J of the first stationary point and of the last,
how many were left, what the certificate says of the last, and seconds. Results are kept in
escape.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import Counter
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import scipy

import hamshoot as hs

RESULTS = Path(__file__).with_name("escape.json")
#: Dims, width, samples, layers, L̃ and λ/L̃.
SIZES = {
    "2-2-2": ((2, 2, 2), 4, 12, 6, 2.0, 5e-3),
    "3-1-3": ((3, 1, 3), 5, 15, 8, 3.0, 5e-3),
    "3-2-2": ((3, 2, 2), 5, 40, 8, 2.0, 5e-3),
    "4-2-2": ((4, 2, 2), 6, 10, 10, 3.0, 5e-3),
}
SEEDS, STARTS = range(15), (1, 5)


def solved(size: str, seed: int, starts: int) -> dict:
    """One solve, and the certificate of where it ended."""
    dims, width, samples, layers, depth, decay = SIZES[size]
    problem = hs.teacher_problem(dims=dims, samples=samples, width=width, effective_depth=depth,
                                 weight_decay=decay * depth, seed=seed, test_samples=0)
    began = time.process_time()
    solution = hs.solve(problem, hs.DirectSingleShooting(layers=layers, seed=seed, starts=starts))
    seconds, began = time.process_time() - began, time.process_time()
    certificate = hs.certify(solution)
    values = solution.extra.get("escape_objectives", [solution.objective])
    return {
        "size": size, "seed": seed, "starts": starts, "status": solution.status.name,
        "first": values[0], "last": solution.objective, "left": len(values) - 1,
        "stationarity": solution.stationarity, "holds": certificate.holds,
        "second_order": certificate.second_order, "dead_entries": solution.idle_kinks,
        "seconds": round(seconds, 3),
        "certificate_seconds": round(time.process_time() - began, 3),
    }


def verdict(row: dict) -> str:
    """The verdict of a row without its numbers."""
    words = row["second_order"].split(":")[0]
    return "no descent found" if words.startswith("no descent found") else words


def report(rows: list[dict]) -> list[str]:
    """Sentences on all rows, by the number of starts."""
    lines = []
    for starts in STARTS:
        mine = [row for row in rows if row["starts"] == starts]
        left = [row for row in mine if row["left"]]
        falls = [100 * (1 - row["last"] / row["first"]) for row in left]
        counts = ", ".join(f"{count} {words}" for words, count in
                           Counter(map(verdict, mine)).most_common())
        lines.append(
            f"{starts} start{'s' * (starts > 1)}: {len(left)} of {len(mine)} solves reached a "
            f"stationary point that was no minimum and left it, J lower by {median(falls):.2g} % "
            f"in the median and {max(falls):.2g} % at most ({sum(f >= 1 for f in falls)} by 1 % or "
            f"more). In the end {sum(row['status'] == 'CONVERGED' for row in mine)} of {len(mine)} "
            f"converged; the certificate says: {counts}. CPU seconds of a solve: "
            f"{median(row['seconds'] for row in mine):.2g} in the median, of the certificate "
            f"{median(row['certificate_seconds'] for row in mine):.2g}, "
            f"{max(row['certificate_seconds'] for row in mine):.2g} at most.")
    return lines


def main() -> None:
    """Run what is missing; print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="the table of what is there")
    given = parser.parse_args()
    if given.report:
        print("\n".join(report(json.loads(RESULTS.read_text(encoding="utf-8"))["rows"])))
        return
    solved("2-2-2", 0, 1)  # compilation
    rows = []
    for size in SIZES:
        for seed in SEEDS:
            for starts in STARTS:
                rows.append(solved(size, seed, starts))
                print(f"{size} seed {seed} starts {starts}: {rows[-1]['first']:.8g} to "
                      f"{rows[-1]['last']:.8g}, {rows[-1]['second_order'][:70]}", flush=True)
    record = {
        "date": date.today().isoformat(), "command": "python demos/benchmarks/escape.py",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
                   f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__,
                     "scipy": scipy.__version__, "hamshoot": hs.__version__},
        "findings": report(rows),
    }
    lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    head = json.dumps(record, ensure_ascii=False, indent=1)[:-2]
    text = f"{head},\n \"rows\": [\n  {lines}\n ]\n}}\n"
    RESULTS.write_text(text, encoding="utf-8")
    print("\n".join(record["findings"]))


if __name__ == "__main__":
    main()
