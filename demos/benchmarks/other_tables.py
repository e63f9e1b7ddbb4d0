"""Tables of other people: `hamshoot.solve` against Adam in the same CPU seconds.

    pip install --no-deps statsmodels              # for the files it ships; it is not imported
    OMP_NUM_THREADS=1 python demos/benchmarks/other_tables.py     # 16 tables, 3 splits, minutes
    python demos/benchmarks/other_tables.py --report              # the table alone

Each table is a numeric target and all other numeric columns, a random four fifths of its rows (600
at most), standardised; L̃ 2, λ 0.02, 12 layers, width that of the inputs, 10 at most. Nothing was
tuned on them. `hs.solve(problem, layers=12)` is timed, CPU seconds of the process; Adam has as many
(a second at least), the way it takes them in `optimisers.py`: a grid of rates from both starts,
then longer runs of the best from new seeds. J is that of the ReLU network. Kept in
other_tables.json, a table at a time; what is there is not done again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import time
from contextlib import suppress
from datetime import date
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from peers import Over, Setting, Trace, first_order

import hamshoot as hs

RESULTS = Path(__file__).with_name("other_tables.json")
#: Table, and the column that is to be predicted.
TABLES = {
    "anes96": "vote", "ccard": "AVGEXP", "committee": "BILLS104", "copper": "WORLDCONSUMPTION",
    "cpunish": "EXECUTIONS", "engel": "foodexp", "fair": "affairs", "grunfeld": "invest",
    "heart": "survival", "longley": "TOTEMP", "macrodata": "realgdp", "modechoice": "choice",
    "randhie": "mdvis", "scotland": "YES", "spector": "GRADE", "stackloss": "STACKLOSS",
    "star98": "MATHTOT", "statecrime": "murder",
}
SPLITS, MOST_ROWS, LAYERS, WIDTH = 3, 600, 12, 10
SLACK = 1e-6


def table_of(name: str) -> pd.DataFrame:
    """Numeric columns of a table, rows without gaps."""
    package = importlib.util.find_spec("statsmodels")
    if package is None or package.origin is None:
        raise SystemExit("statsmodels is not installed; see the first lines of this script")
    path = next(Path(package.origin).parent.glob(f"datasets/{name}/*.csv"))
    line = path.read_text(encoding="latin-1").splitlines()[0]
    separator = next((sign for sign in "\t;," if sign in line), r"\s+")
    frame = pd.read_csv(path, sep=separator, encoding="latin-1")
    frame.columns = [column.strip("'\" ") for column in frame.columns]
    frame = frame.select_dtypes("number").dropna()
    return frame.loc[:, frame.std() > 0]


def problem_of(name: str, split: int) -> hs.TrainingProblem:
    """Four fifths of the rows of a table."""
    frame = table_of(name)
    rows = np.random.default_rng(split).permutation(len(frame))
    frame = frame.iloc[rows[:min(int(0.8 * len(frame)), MOST_ROWS)]]
    columns = {column.lower(): column for column in frame}
    target = columns[TABLES[name].lower()]
    X = frame.drop(columns=target).to_numpy(float)
    return hs.TrainingProblem(X, frame[[target]].to_numpy(float), effective_depth=2.0,
                              weight_decay=0.02, width=min(WIDTH, X.shape[1]), standardize=True)


def compared(name: str, split: int) -> dict[str, Any]:
    """J of the solver and of Adam, and the seconds that each had."""
    problem = problem_of(name, split)
    began = time.process_time()
    solution = hs.solve(problem, layers=LAYERS)
    seconds = time.process_time() - began
    trace = Trace(max(seconds, 1.0))
    with suppress(Over):
        first_order("adam", Setting(problem, LAYERS), trace)
    return {"table": name, "split": split, "rows": problem.n_samples,
            "inputs": problem.X.shape[1], "width": problem.width,
            "status": solution.status.name, "stationarity": solution.stationarity,
            "J": solution.objective, "J_adam": trace.lowest,
            "ratio": solution.objective / trace.lowest, "runs_adam": trace.runs,
            "cpu_seconds": round(seconds, 2)}


def report(record: dict[str, Any]) -> None:
    """A line a table, and how often the solver ends at or below Adam."""
    rows = record["rows"]
    for name in dict.fromkeys(row["table"] for row in rows):
        mine = [row for row in rows if row["table"] == name]
        print(f"{name:11s} {mine[0]['rows']:4d} x {mine[0]['inputs']:2d}  J ratio "
              + " ".join(f"{row['ratio']:.4f}" for row in mine) + "  CPU s "
              + " ".join(f"{row['cpu_seconds']:.1f}" for row in mine))
    below = sum(row["ratio"] <= 1 + SLACK for row in rows)
    print(f"at or below Adam in the same seconds: {below} of {len(rows)}, more than 2 % below: "
          f"{sum(row['ratio'] < 0.98 for row in rows)}; at worst above by "
          f"{max(row['ratio'] for row in rows) - 1:.1e}; CPU s "
          f"{median(row['cpu_seconds'] for row in rows):.1f} in the median, "
          f"{max(row['cpu_seconds'] for row in rows):.1f} at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true")
    if parser.parse_args().report:
        report(json.loads(RESULTS.read_text(encoding="utf-8")))
        return
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"rows": []}
    done = {(row["table"], row["split"]) for row in record["rows"]}
    compared("stackloss", SPLITS)  # compiles
    for name, split in product(TABLES, range(SPLITS)):
        if (name, split) not in done:
            record["rows"].append(compared(name, split))
            print(record["rows"][-1], flush=True)
            save(record["rows"])
    report(record)


def save(rows: list[dict[str, Any]]) -> None:
    """One line a row, whole or not at all."""
    head = {"date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared with other work",
            "versions": {"python": platform.python_version(), "numpy": np.__version__,
                         "hamshoot": hs.__version__}}
    body = ",\n  ".join(json.dumps(row) for row in rows)
    partial = RESULTS.with_suffix(".tmp")
    partial.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n  {body}\n ]\n}}\n',
                       encoding="utf-8")
    partial.replace(RESULTS)


if __name__ == "__main__":
    main()
