"""The strongest optimisers at equal CPU seconds: data profiles against `hamshoot.solve`.

    OMP_NUM_THREADS=1 python demos/benchmarks/optimisers.py   # 60 teachers, an hour of CPU
    python demos/benchmarks/optimisers.py --size tables       # real tables, 15 problems
    python demos/benchmarks/optimisers.py --size middle --problems 3
    python demos/benchmarks/optimisers.py --gather   # what there is: numbers, tables and figures
    python demos/benchmarks/optimisers.py --draw     # sentences, tables and figures from the json

Every optimiser (`peers.py` says which, and how each is written) has the same seconds on each
problem, CPU time of the process on one thread, and begins at the same starts, path fits and
identities in turn with seeds 0, 1, …; when a run ends it begins another one, until the seconds are
over. Those with a learning rate try a grid of rates first, from both starts, and then give their
time to the best; that is inside their seconds. J and ∂J/∂W are the same compiled sweeps for all
(BFGS, trust-krylov and SciPy's L-BFGS-B go round them in Python, on top of the 10 to 30 µs of a
gradient of the small sizes). `hamshoot.solve` is `effort="quick"` and "default", solved again with
seeds 1, 2, … until the seconds are over, and one "thorough" stopped by the clock. J of its search
counts when a round is logged, everything else when it returns. Compilation is left out. On a busy
machine CPU seconds do less than on a free one, the most for full matrices, which share its memory.

A problem is *solved to within τ* when J ≤ (1 + τ) J*, J* the lowest that any of them found. Seeds
of the teachers are 1000, 1001, …, which nothing was tuned on. J* is that of these seconds: with
more of them it would fall, and all curves with it.

Small: 6-2-6, N 30, w 6, L̃ 7, L 20; 8-3-8, 50, 8, 3, 20; 4-2-4, 20, 5, 5, 12; λ = 1e-3 L̃, ReLU.
Tables: five of scikit-learn, a random four fifths of the rows, w at most 10, L̃ 2, λ 0.02, 12
layers. Middle: 20-4-20, N 200, w 30, L̃ 7, L 20. Paper: 30-3-30, N 1000, w 100, L̃ 7, L 20. Parts
are kept in optimisers.parts, a run goes on where it was interrupted, and ``--gather`` takes the
problems that all have finished.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy
from hessian_free import gauss_newton_cg
from peers import PEERS, Over, Setting, Trace

import hamshoot as hs

HERE = Path(__file__).parent
RESULTS, PARTS, PAGE = (HERE / f"optimisers.{end}" for end in ("json", "parts", "md"))
TEACHERS = {
    "6-2-6": (dict(dims=(6, 2, 6), samples=30, width=6, effective_depth=7.0), 20),
    "8-3-8": (dict(dims=(8, 3, 8), samples=50, width=8, effective_depth=3.0), 20),
    "4-2-4": (dict(dims=(4, 2, 4), samples=20, width=5, effective_depth=5.0), 12),
}
LARGE = {
    "middle": dict(dims=(20, 4, 20), samples=200, width=30, effective_depth=7.0),
    "paper": dict(dims=(30, 3, 30), samples=1000, width=100, effective_depth=7.0),
}
TABLES = ("linnerud", "iris", "wine", "diabetes", "breast_cancer")
FIRST_SEED = 1000
#: CPU seconds of each optimiser on a problem, and problems, unless asked otherwise.
SECONDS = {"small": 5.0, "tables": 5.0, "middle": 60.0, "paper": 300.0}
PROBLEMS = {"small": 60, "tables": 15, "middle": 10, "paper": 3}
TOLERANCES = (1e-2, 1e-3)
#: Of the table, which tells apart those that are far from the lowest too.
COLUMNS = (5e-2, *TOLERANCES)
#: Controls up to which a full matrix is kept.
FULL_MATRIX = 2000
OURS = ("hamshoot, quick", "hamshoot, default", "hamshoot, thorough")
MAIN = "hamshoot, default"


def names_of(size: str, count: int) -> list[str]:
    """Problems in the order they are taken: any first few are of all kinds."""
    if size == "small":
        kinds = list(TEACHERS)
        return [f"{kinds[k % 3]} {FIRST_SEED + k // 3}" for k in range(count)]
    if size == "tables":
        return [f"{TABLES[k % 5]} {k // 5}" for k in range(count)]
    return [f"{size} {FIRST_SEED + k}" for k in range(count)]


@cache
def problem_of(name: str) -> tuple[hs.TrainingProblem, int]:
    """Problem and layers of a name and seed."""
    kind, seed = name.split()
    if kind in TEACHERS:
        settings, layers = TEACHERS[kind]
        return hs.teacher_problem(**settings, weight_decay=1e-3 * settings["effective_depth"],
                                  activation="relu", seed=int(seed), test_samples=0), layers
    if kind in LARGE:
        # As in paper_size.py: with the embedding as lift most neurons would begin at zero.
        return hs.teacher_problem(**LARGE[kind], seed=int(seed), lift="orthonormal",
                                  readout="orthonormal", test_samples=0), 20
    X, Y = table_of(kind, int(seed))
    width = min(10, max(X.shape[1], Y.shape[1]))
    return hs.TrainingProblem(X, Y, effective_depth=2.0, weight_decay=0.02, width=width,
                              standardize=True), 12


def table_of(name: str, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Four fifths of the rows; classes as indicators."""
    from sklearn import datasets

    data = getattr(datasets, f"load_{name}")()
    target = np.asarray(data.target)
    classes = name in ("iris", "wine", "breast_cancer")
    Y = np.eye(target.max() + 1)[target] if classes else target.reshape(len(target), -1)
    rows = np.random.default_rng(split).permutation(len(data.data))[:int(0.8 * len(data.data))]
    return data.data[rows], Y[rows].astype(float)


# -- runs ------------------------------------------------------------------------------------------


class Rounds(logging.Handler):
    """Notes J of the search after its starts and after each round of reheats, as it is logged."""

    def __init__(self, trace: Trace):
        super().__init__(logging.INFO)
        self.trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        """Note the J of one message."""
        if str(record.msg).startswith("search:"):
            self.trace.note(float(record.args[1]))


def solved(effort: str) -> Callable[[Setting, Trace], None]:
    """`hamshoot.solve` with an effort, from seed 0 on, until the seconds are over."""

    def run(setting: Setting, trace: Trace) -> None:
        logger, handler = logging.getLogger("hamshoot"), Rounds(trace)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            while trace.seconds < trace.limit:
                clock: list[tuple[float, float]] = [(0.0, trace.seconds)]

                def look(record: hs.Record, clock: list = clock) -> bool:
                    clock.append((record.seconds, trace.seconds))
                    return trace.seconds > trace.limit

                trace.label = f"{effort} {trace.runs}"
                solution = hs.solve(setting.problem, layers=len(setting.steps),
                                    seed=setting.seed + trace.runs, callback=look, effort=effort,
                                    workers=1)
                trace.runs += 1
                for seconds, objective in solution.extra.get("trace", ()):  # of large networks
                    # Its times are those of a clock; the records say what CPU time it was then.
                    trace.note(objective, float(np.interp(seconds, *np.transpose(clock))))
                trace.note(solution.objective)
        finally:
            logger.removeHandler(handler)
        raise Over

    return run


METHODS: dict[str, Callable[[Setting, Trace], None]] = {
    **{f"hamshoot, {effort}": solved(effort) for effort in ("quick", "default", "thorough")},
    **PEERS,
    "Gauss–Newton–CG": gauss_newton_cg,
}


def methods_of(size: str) -> list[str]:
    """Those of a size: no full matrices beyond, and one effort where there is one search."""
    if size in ("small", "tables"):
        return list(METHODS)
    return [name for name in METHODS if name not in OURS[::2] and name != "BFGS"
            and name != "self-scaled BFGS"]


def measured(problem: str, method: str, seconds: float) -> dict[str, Any]:
    """One optimiser on one problem: lowest J, what it came from, and the trace."""
    warm(method)
    setting = Setting(*problem_of(problem))
    trace = Trace(seconds)
    with suppress(Over):
        METHODS[method](setting, trace)
    return {"problem": problem, "method": method, "limit": seconds, "objective": trace.lowest,
            "runs": trace.runs, "end": trace.end, "trace": thinned(trace.points)}


@cache
def warm(method: str) -> None:
    """Compile what an optimiser calls."""
    setting = Setting(*problem_of(f"4-2-4 {FIRST_SEED - 1}"))
    with suppress(Over):
        METHODS[method](setting, Trace(0.3))


def thinned(points: list[tuple[float, float]]) -> list[list[float]]:
    """The points where J has fallen by 1e-4 of itself since the one before, and the last."""
    kept: list[list[float]] = []
    for k, (seconds, objective) in enumerate(points):
        if not kept or k == len(points) - 1 or objective < kept[-1][1] * (1 - 1e-4):
            kept.append([round(seconds, 3), float(f"{objective:.8g}")])
    return kept


def shortened(trace: list[list[float]], lowest: float) -> list[list[float]]:
    """The points where a trace comes within 10 %, a tolerance, or nothing of the lowest; its last.

    Before these, one wherever J has fallen by a fifth. What a profile needs is kept exactly, as
    long as the lowest J of the problem stays what it is.
    """
    levels = [(1 + t) * lowest for t in (0.1, *COLUMNS, 0.0)]
    kept = trace[:1]
    for before, point in pairwise(trace):
        crossed = any(point[1] <= level < before[1] for level in levels)
        if crossed or point is trace[-1] or point[1] < 0.8 * kept[-1][1]:
            kept.append(point)
    return kept


def part_of(size: str, problem: str, method: str) -> Path:
    word = f"{problem} {method}".replace(" ", "_").replace(",", "")
    return PARTS / size / f"{word}.json"


def do(size: str, problem: str, method: str, seconds: float) -> str:
    """Measure what has no part yet, and keep it."""
    part = part_of(size, problem, method)
    if part.exists() and json.loads(part.read_text(encoding="utf-8"))["limit"] == seconds:
        return ""
    row = measured(problem, method, seconds)
    part.parent.mkdir(parents=True, exist_ok=True)
    partial = part.with_suffix(".tmp")
    partial.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    partial.replace(part)
    return f"{problem}, {method}: {row['objective']:.6g}, {row['runs']} runs, {row['end']}"


def gathered(size: str, seconds: float) -> list[dict[str, Any]]:
    """Rows of the problems that every optimiser has finished."""
    rows = []
    for problem in names_of(size, 10 * PROBLEMS[size]):
        parts = [part_of(size, problem, method) for method in methods_of(size)]
        if all(part.exists() for part in parts):
            found = [json.loads(part.read_text(encoding="utf-8")) for part in parts]
            lowest = min(row["objective"] for row in found)
            for row in found:
                row["trace"] = shortened(row["trace"], lowest)
            rows += found if all(row["limit"] == seconds for row in found) else []
    return rows


# -- profiles --------------------------------------------------------------------------------------


def by_problem(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Rows by problem, then method."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        table.setdefault(row["problem"], {})[row["method"]] = row
    return table


def solve_times(rows: list[dict[str, Any]], tolerance: float) -> dict[str, list[float]]:
    """Seconds to J ≤ (1 + tolerance) J* of every problem, infinity where not, by method."""
    times: dict[str, list[float]] = {}
    for found in by_problem(rows).values():
        level = (1 + tolerance) * min(row["objective"] for row in found.values())
        for method, row in found.items():
            reached = [t for t, J in row["trace"] if level >= J]
            times.setdefault(method, []).append(reached[0] if reached else np.inf)
    return times


def table(rows: list[dict[str, Any]]) -> list[str]:
    """One line a method: shares solved, how far above J*, how often lowest, below it, and runs."""
    problems = by_problem(rows)
    best = {name: min(row["objective"] for row in found.values())
            for name, found in problems.items()}
    shares = {tolerance: solve_times(rows, tolerance) for tolerance in COLUMNS}
    lines = ["| optimiser | " + " | ".join(f"within {t:g}" for t in COLUMNS)
             + f" | above J*, median (worst) | lowest | 1e-3 below {MAIN} | runs |",
             "|---|" + "---|" * (len(COLUMNS) + 4)]
    for method in shares[COLUMNS[0]]:
        mine = [(found[method], best[name], found.get(MAIN)) for name, found in problems.items()]
        above = [row["objective"] / least - 1 for row, least, _ in mine]
        solved_to = " | ".join(f"{np.mean(np.isfinite(shares[t][method])):.0%}"
                               for t in COLUMNS)
        lower = sum(row["objective"] < ours["objective"] * (1 - 1e-3) for row, _, ours in mine
                    if ours is not None)
        lines.append(f"| {method} | {solved_to} | {median(above):.2%} ({max(above):.1%}) | "
                     f"{sum(a <= 1e-6 for a in above)} | {lower} | "
                     f"{median(row['runs'] for row, _, _ in mine):g} |")
    return lines


def findings(size: str, rows: list[dict[str, Any]]) -> list[str]:
    """Who wins where, in sentences, and where `hamshoot.solve` loses."""
    problems = by_problem(rows)
    if not problems:
        return []
    lines = [f"{size}: {len(problems)} problems, {rows[0]['limit']:g} CPU seconds for each of "
             f"{len(methods_of(size))} optimisers."]
    others = [name for name in methods_of(size) if name not in OURS]
    for tolerance in TOLERANCES:
        share = {name: float(np.mean(np.isfinite(times)))
                 for name, times in solve_times(rows, tolerance).items()}
        ours = ", ".join(f"{name.split(', ')[1]} {share[name]:.0%}" for name in share
                         if name in OURS)
        ranked = sorted(others, key=lambda name, share=share: -share[name])[:3]
        lines.append(f"Solved to within {tolerance:g}: hamshoot {ours}; of the others "
                     + ", ".join(f"{name} {share[name]:.0%}" for name in ranked) + ".")
    early = crossings(rows)
    if early:
        lines.append(early)
    for kind in dict.fromkeys(name.split()[0] for name in problems):
        mine = {name: found for name, found in problems.items() if name.split()[0] == kind}
        beaten = {}
        for name in others:
            beaten[name] = sum(found[name]["objective"] < found[MAIN]["objective"] * (1 - 1e-3)
                               for found in mine.values())
        lost = sum(min(found[name]["objective"] for name in others)
                   < found[MAIN]["objective"] * (1 - 1e-3) for found in mine.values())
        strongest = max(beaten, key=beaten.get)
        ratio = median(found[MAIN]["objective"] / min(found[name]["objective"] for name in others)
                       for found in mine.values())
        lines.append(
            f"{kind}: {MAIN} ends more than 1e-3 above the best of the others in {lost} of "
            f"{len(mine)}, J against that best {ratio:.4f} in the median"
            + (f"; most often above {strongest}, {beaten[strongest]} times." if lost else "."))
    return lines


def crossings(rows: list[dict[str, Any]]) -> str:
    """Where in time another one leads the default within the larger tolerance."""
    times = solve_times(rows, TOLERANCES[0])
    words = []
    for seconds in (0.25, 0.5, 1.0, 2.0, 5.0):
        if seconds > rows[0]["limit"]:
            break
        share = {name: float(np.mean(np.array(t) <= seconds)) for name, t in times.items()}
        leader = max(share, key=share.get)
        words.append(f"{seconds:g} s: {leader} {share[leader]:.0%} ({MAIN} {share[MAIN]:.0%})"
                     if leader != MAIN else f"{seconds:g} s: {MAIN} {share[MAIN]:.0%}")
    return f"Most problems solved to within {TOLERANCES[0]:g} after " + "; ".join(words) + "."


def draw(size: str, rows: list[dict[str, Any]]) -> None:
    """One data profile a tolerance, small."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for tolerance in TOLERANCES:
        figure, ax = plt.subplots(figsize=(6.2, 3.6), layout="constrained")
        times, limit = solve_times(rows, tolerance), rows[0]["limit"]
        for k, (name, seconds) in enumerate(times.items()):
            reached = np.sort([t for t in seconds if np.isfinite(t)])
            shares = np.arange(1, len(reached) + 1) / len(seconds)
            ours = name in OURS
            ax.step([limit / 100, *reached, limit], [0, *shares, shares[-1] if len(shares) else 0],
                    where="post", color=f"C{k % 10}",
                    lw=2.2 if ours else 1.1, ls="-" if ours else ("--", "-.", ":")[k % 3],
                    label=name)
        ax.set(xscale="log", xlim=(limit / 100, limit), ylim=(0, 1.02), xlabel="CPU seconds",
               ylabel="share of problems solved")
        ax.set_title(f"{size}, {len(by_problem(rows))} problems: J ≤ (1 + {tolerance:g}) J*",
                     loc="left", fontsize=10)
        ax.grid(color="#dddddd", lw=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        path = figure_of(size, tolerance)
        figure.savefig(path, dpi=90)
        plt.close(figure)


# -- files -----------------------------------------------------------------------------------------


def known() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def save(record: dict[str, Any]) -> None:
    """One line a row, whole or not at all."""
    rows = record["rows"]
    head = json.dumps({k: v for k, v in record.items() if k != "rows"}, ensure_ascii=False,
                      indent=1)[:-2]
    body = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    partial = RESULTS.with_suffix(".tmp")
    partial.write_text(f'{head},\n "rows": [\n  {body}\n ]\n}}\n', encoding="utf-8")
    partial.replace(RESULTS)


def keep(size: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the rows of a size among what is known, with where and when."""
    record = known()
    runs = record.get("runs", {})
    runs[size] = {
        "date": date.today().isoformat(),
        "command": f"python demos/benchmarks/optimisers.py --size {size}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared with other work, "
                   f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__,
                     "scipy": scipy.__version__, "hamshoot": hs.__version__},
        "seconds": rows[0]["limit"], "problems": len(by_problem(rows)),
        "problems_meant": PROBLEMS[size],
        "seeds": list(by_problem(rows)),
    }
    others = [dict(row, size=row.get("size", size)) for row in record.get("rows", [])
              if row.get("size") != size]
    return {"runs": runs, "findings": {**record.get("findings", {}), size: findings(size, rows)},
            "rows": others + [dict(row, size=size) for row in rows]}


def report(record: dict[str, Any]) -> None:
    """Sentences, tables and figures of all sizes, on a page beside the numbers."""
    for size in record["runs"]:
        rows = [row for row in record["rows"] if row["size"] == size]
        record["findings"][size] = findings(size, rows)
        draw(size, rows)
    text = "\n".join(page(record))
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def page(record: dict[str, Any]) -> list[str]:
    """Lines of optimisers.md."""
    lines = ["# The strongest optimisers at equal CPU seconds", "",
             "Written by [optimisers.py](optimisers.py) from [optimisers.json](optimisers.json); "
             "what each optimiser is say [peers.py](peers.py) and "
             "[hessian_free.py](hessian_free.py).", ""]
    for size, run in record["runs"].items():
        rows = [row for row in record["rows"] if row["size"] == size]
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        lines += [f"## {size}", "",
                  f"{run['problems']} problems of the {run['problems_meant']} that are meant, "
                  f"{run['date']}, {run['machine']}; {versions}. {run.get('remark', '')}".rstrip(),
                  "",
                  *[f"- {line}" for line in record["findings"][size]], "", *table(rows), ""]
        lines += [f"![J ≤ (1 + {t:g}) J*]({figure_of(size, t).name})" for t in TOLERANCES] + [""]
    return lines


def figure_of(size: str, tolerance: float) -> Path:
    """The file of a profile."""
    return HERE / f"optimisers_{size}_{tolerance:.0e}.png".replace("e-0", "e-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SECONDS), default="small")
    parser.add_argument("--problems", type=int, help="how many of the size")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--seconds", type=float, help="of each optimiser on each problem")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help="some of them alone")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--gather", action="store_true", help="take the parts that are there")
    parser.add_argument("--draw", action="store_true", help="figures and tables from the results")
    given = parser.parse_args()
    size, seconds = given.size, given.seconds or SECONDS[given.size]
    if given.draw:
        record = known()
        report(record)
        save(record)
        return
    if not given.gather:
        names = names_of(size, given.first + (given.problems or PROBLEMS[size]))[given.first:]
        jobs = [(size, name, method, seconds) for name in names
                for method in (given.methods or methods_of(size))]
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(given.workers) as pool:
            for line in pool.map(do, *zip(*jobs, strict=True)):
                print(line, end="\n" if line else "", flush=True)
    rows = gathered(size, seconds)
    if not rows:
        raise SystemExit(f"{size}: no problem that all optimisers have finished in {seconds:g} s")
    record = keep(size, rows)
    report(record)
    save(record)


if __name__ == "__main__":
    main()
