"""The test set of Cash and Mazzia, T1 to T33: `hs.bvp.solve_bvp` beside SciPy's solver.

Run ``python bvp_test_set.py`` (all, two minutes of CPU), or with names of problems, whose
results replace those kept; with ``--at VALUE`` other values of the small parameter are printed and
not kept. Both
solvers get the same functions without derivatives, the same guess on 11 nodes (zeros, or the
straight line between the boundary values), the same tolerance and 1000 nodes. A solve counts as
right where it says that it succeeded and its largest error over 2001 points, |u − y|/(1 + |y|) over
all components, is at most 100 tol. Errors are measured against the solution in closed form, where
there is one, else against a solution to 1e-10 (or 1e-9, 1e-8 where rounding does not allow more) in
5000 nodes, from each solver's own: `reference`
says which, and `shooting`, how far SciPy's Radau integration from node to node of the reference
misses its next node, relative to 1 + |y|, which no part of ours has a hand in. Seconds are those of
the CPU, the least of three runs. Results go to bvp_test_set.json and, as one table,
bvp_test_set.md; ``--draw`` makes the table anew.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import time
import warnings
from pathlib import Path

import numpy as np
from bvp_test_problems import PROBLEMS, TestProblem
from scipy.integrate import solve_bvp as by_scipy
from scipy.integrate import solve_ivp

from hamshoot.bvp import solve_bvp

HERE = Path(__file__).parent
SOLVERS = {"hamshoot": solve_bvp, "SciPy": by_scipy}
TOLERANCES = (1e-3, 1e-6)
REFERENCES = ("1e-10", "1e-9", "1e-8")
NODES, MOST, REPEATS = 11, 1000, 3
ENOUGH = 100.0  # errors up to so many tolerances are right


class Case:
    """A problem at one value of its parameter."""

    def __init__(self, problem: TestProblem, value: float) -> None:
        self.problem, self.value = problem, value
        self.points = np.linspace(*problem.interval, 2001)
        self.missed: float | None = None

    def fun(self, x, y):
        """Its right-hand side."""
        return self.problem.rhs(x, y, self.value)

    def bc(self, ya, yb):
        """Its boundary conditions."""
        return self.problem.boundary(ya, yb, self.value)

    def solve(self, solver, tol):
        """The result and the seconds."""
        x = np.linspace(*self.problem.interval, NODES)
        seconds = []
        for _ in range(REPEATS):
            begun = time.process_time()
            result = solver(self.fun, self.bc, x, self.problem.guess(x), tol=tol, max_nodes=MOST)
            seconds.append(time.process_time() - begun)
        return result, min(seconds)

    def reference(self, result) -> tuple[np.ndarray, str, float | None]:
        """The solution at the points, what it is, and its shooting error."""
        if self.problem.exact is not None:
            return self.problem.exact(self.points, self.value), "closed form", None
        for kind in REFERENCES:
            fine = solve_bvp(
                self.fun, self.bc, result.x, result.y, tol=float(kind), max_nodes=5000)
            if fine.success:
                break
        else:
            kind = "none"
        if self.missed is None:
            self.missed = self.shooting(fine)
        return fine.sol(self.points), kind, self.missed

    def shooting(self, fine) -> float:  # of the first reference only: it takes a second
        """Largest |y(next node) − integrated|/(1 + |y|) over a dozen segments."""
        worst = 0.0
        for k in np.unique(np.linspace(0, fine.x.size - 2, 12).astype(int)):
            a, b = fine.x[k : k + 2]
            end = solve_ivp(lambda t, y: self.fun(np.array([t]), y[:, None])[:, 0], (a, b),
                            fine.y[:, k], method="Radau", rtol=1e-9, atol=1e-12)
            miss = np.abs(end.y[:, -1] - fine.y[:, k + 1]) / (1 + np.abs(fine.y[:, k + 1]))
            worst = max(worst, float(miss.max()))
        return worst

    def row(self, solver: str, tol: float) -> dict:
        """A line of the table."""
        result, seconds = self.solve(SOLVERS[solver], tol)
        row = {"problem": self.problem.name, "parameter": self.value, "solver": solver, "tol": tol,
               "status": int(result.status), "nodes": int(result.x.size), "seconds": seconds,
               "error": None, "reference": None, "shooting": None}
        if result.status == 0:
            exact, row["reference"], row["shooting"] = self.reference(result)
            row["error"] = float((abs(result.sol(self.points) - exact) / (1 + abs(exact))).max())
        known = row["reference"] not in (None, "none")
        row["right"] = bool(known and row["error"] <= ENOUGH * tol)
        return row


def measured(cases: list[Case]) -> list[dict]:
    """Rows of all cases, both solvers and tolerances."""
    rows = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for case in cases:
            for tol in TOLERANCES:
                for solver in SOLVERS:
                    rows.append(case.row(solver, tol))
                    row = rows[-1]
                    print(f"{row['problem']:4s} {row['parameter']:9.2e} {tol:.0e} {solver:9s}"
                          f" status {row['status']} nodes {row['nodes']:5d} "
                          f"{row['seconds']:7.4f} s  error {row['error']}", flush=True)
    return rows


def cell(row: dict) -> str:
    """Error, nodes and milliseconds; in words where there is none."""
    if row["right"]:
        return f"{row['error']:.0e} · {row['nodes']} · {1e3 * row['seconds']:.0f}"
    if row["status"]:
        return f"*status {row['status']}* · {row['nodes']} · {1e3 * row['seconds']:.0f}"
    if row["reference"] == "none":
        return f"*no reference* · {row['nodes']} · {1e3 * row['seconds']:.0f}"
    return f"**wrong, {row['error']:.0e}** · {row['nodes']} · {1e3 * row['seconds']:.0f}"


def page(kept: dict) -> str:
    """The results as a page of Markdown."""
    rows = kept["rows"]
    lines = ["# The test set of Cash and Mazzia", "",
             "`python demos/benchmarks/bvp_test_set.py`, whose docstring says what was measured "
             f"how; {kept['date']}, {kept['machine']}, Python {kept['python']}, "
             + ", ".join(f"{k} {v}" for k, v in kept["versions"].items()) + ".", "",
             "| tol | solver | solved and right | said to be solved, and wrong | and not checked | "
             "status 1 | 2 | other | CPU seconds, all | of those that both solve |",
             "|" + "---|" * 10]
    for tol in TOLERANCES:
        both = _both(rows, tol)
        for solver in SOLVERS:
            mine = [r for r in rows if r["solver"] == solver and r["tol"] == tol]
            said = [r["status"] for r in mine]
            shared = sum(r["seconds"] for r in mine if (r["problem"], r["parameter"]) in both)
            lines.append(
                f"| {tol:.0e} | {solver} | {sum(r['right'] for r in mine)} of {len(mine)} | "
                f"{sum(_wrong(r) for r in mine)} | "
                f"{sum(r['reference'] == 'none' for r in mine)} | {said.count(1)} | "
                f"{said.count(2)} | {sum(s > 2 for s in said)} | "
                f"{sum(r['seconds'] for r in mine):.2f} | {shared:.2f} |")
    lines += ["", "Each cell: error · nodes · milliseconds of CPU; a status where a solver gave up "
              "(1: more than 1000 nodes, 2: singular, 5: not converged).", "",
              "| | parameter | " + " | ".join(
                  f"{solver}, {tol:.0e}" for tol in TOLERANCES for solver in SOLVERS) + " |",
              "|" + "---|" * (2 + 2 * len(TOLERANCES))]
    by = {(r["problem"], r["parameter"], r["solver"], r["tol"]): r for r in rows}
    for name, value in dict.fromkeys((r["problem"], r["parameter"]) for r in rows):
        cells = [cell(by[name, value, s, tol]) for tol in TOLERANCES for s in SOLVERS]
        lines.append(f"| {name} | {value:.3g} | " + " | ".join(cells) + " |")
    missed = [r["shooting"] for r in rows if r["shooting"] is not None]
    if missed:
        lines += ["", f"References of problems without a closed form miss their next node by "
                  f"{max(missed):.0e} at most, {np.median(missed):.0e} in the median, as Radau "
                  "integrates it."]
    return "\n".join(lines) + "\n"


def _wrong(row: dict) -> bool:
    return row["status"] == 0 and not row["right"] and row["reference"] != "none"


def _both(rows: list[dict], tol: float) -> set:
    right = [{(r["problem"], r["parameter"]) for r in rows
              if r["solver"] == solver and r["tol"] == tol and r["right"]} for solver in SOLVERS]
    return right[0] & right[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="problems, as T7; all by default")
    parser.add_argument("--at", type=float, nargs="+", help="values of the parameter")
    parser.add_argument("--draw", action="store_true", help="only the table from the results")
    asked = parser.parse_args()
    path = HERE / "bvp_test_set.json"
    if not asked.draw:
        chosen = [p for p in PROBLEMS if not asked.names or p.name in asked.names]
        rows = measured([Case(p, v) for p in chosen for v in asked.at or p.ladder])
        if asked.at:
            return
        if asked.names:
            others = json.loads(path.read_text(encoding="utf-8"))["rows"]
            rows += [row for row in others if row["problem"] not in asked.names]
            order = [p.name for p in PROBLEMS]
            rows.sort(key=lambda row: order.index(row["problem"]))
        kept = {
            "date": datetime.date.today().isoformat(), "machine": platform.processor()
            or platform.machine(), "python": platform.python_version(),
            "versions": {k: importlib.metadata.version(k) for k in ("hamshoot", "numpy", "scipy")},
            "rows": rows,
        }  # fmt: skip
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    kept = json.loads(path.read_text(encoding="utf-8"))
    (HERE / "bvp_test_set.md").write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
