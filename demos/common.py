"""What the demos share: options, where results go, and the header that says where they are from."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
PACKAGES = ("hamshoot", "numpy", "scipy", "casadi", "numba", "matplotlib")
#: The status of a stationary point of the very problem: the only one that may be called optimal.
CONVERGED = "CONVERGED"
#: The status of gradient descent, which ends after its epochs, wherever it is.
TRAINED = "TRAINED"
#: Words beside what has ended elsewhere.
UNCONVERGED = "not converged"


def run(
    name: str,
    description: str,
    settings: dict[str, dict[str, Any]],
    study: Callable[[dict[str, Any], Callable], dict[str, Any]],
    findings: Callable[[dict[str, Any]], list[str]],
    draw: Callable[[dict[str, Any]], Any],
    arguments: list[str] | None = None,
    animate: Callable[[dict[str, Any], Path], Any] | None = None,
    networks: Callable[[dict[str, Any]], dict[str, list[dict[str, Any]]]] | None = None,
) -> None:
    """Parse options, run the study, print its findings, draw its figure, write its record.

    Parameters
    ----------
    name : str
        Of the script, its figure and its results.
    settings : dict
        Of the sizes "small" and "full".
    study : callable
        Receives the settings and `each`, see `mapper`; returns JSON-ready numbers.
    findings, draw : callable
        Sentences, and a figure, from those numbers alone: ``--draw`` makes them anew.
    animate : callable, optional
        Receives the numbers and the name of a GIF to write.
    networks : callable, optional
        Rows of networks by the name that sentences and figure call them; how they ended is then
        recorded under "ended", before the findings.
    """
    import hamshoot as hs

    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a small size, seconds")
    parser.add_argument("--out", type=Path, help="directory of figure and results")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--draw", action="store_true", help="draw from the results that are there")
    given = parser.parse_args(arguments)
    figures, results = places(given.out, given.small)
    written = results / f"{name}.json"
    if given.draw:
        record = json.loads(written.read_text(encoding="utf-8"))
    else:
        chosen = settings["small" if given.small else "full"]
        parts = results / f"{name}.parts"
        with pool(1 if given.small else given.workers) as executor:
            numbers = study(chosen, mapper(executor, None if given.small else parts))
        record = {**where_and_when(name, arguments), "settings": chosen, **numbers}
    if networks is not None:
        record["ended"] = {name: endings(rows) for name, rows in networks(record).items() if rows}
    record["findings"] = findings(record)
    print("\n".join(record["findings"]))
    figure = hs.plot.save_figure(draw(record), figures / f"{name}.png")
    if animate is not None:
        animate(record, figures / f"{name}.gif")
        print(f"\n{figures / name}.gif", end="")
    partial = written.with_suffix(".tmp")
    partial.write_text(compact(record), encoding="utf-8")
    partial.replace(written)
    for part in (results / f"{name}.parts").glob("*.json"):
        part.unlink()
    if (results / f"{name}.parts").exists():
        (results / f"{name}.parts").rmdir()
    print(f"\n{figure}\n{written}")


def pool(workers: int) -> Any:
    """Processes with one BLAS thread each, or nothing for one worker."""
    if workers <= 1:
        return nullcontext()
    os.environ["OMP_NUM_THREADS"] = "1"
    return ProcessPoolExecutor(workers)


def mapper(executor: Executor | None, parts: Path | None) -> Callable:
    """Return ``each(function, jobs)``: results in order, with progress, resumable.

    Jobs are dicts of JSON-ready arguments; a finished one is kept in `parts`, so that an
    interrupted run goes on where it was.
    """
    def each(function: Callable[..., Any], jobs: Iterable[dict[str, Any]]) -> list[Any]:
        jobs = list(jobs)
        done: dict[int, Any] = {}
        for k, job in enumerate(jobs):
            kept = _part(parts, function, job)
            if kept is not None and kept.exists():
                done[k] = json.loads(kept.read_text(encoding="utf-8"))
        missing = [k for k in range(len(jobs)) if k not in done]

        def keep(k: int, result: Any) -> None:
            done[k] = result
            kept = _part(parts, function, jobs[k])
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                partial = kept.with_suffix(".tmp")
                partial.write_text(json.dumps(result), encoding="utf-8")
                partial.replace(kept)
            print(f"\r{len(done)}/{len(jobs)} {function.__name__}", end="", file=sys.stderr)

        if executor is None:
            for k in missing:
                keep(k, function(**jobs[k]))
        else:
            waiting = {executor.submit(function, **jobs[k]): k for k in missing}
            for future in as_completed(waiting):
                keep(waiting[future], future.result())
        print(file=sys.stderr)
        return [done[k] for k in range(len(jobs))]

    return each


def _part(parts: Path | None, function: Callable, job: dict[str, Any]) -> Path | None:
    if parts is None:
        return None
    words = "_".join(f"{k}={v}" for k, v in job.items() if np.isscalar(v))
    # Also what does not fit in a name: other settings are another job.
    whole = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:8]
    return parts / f"{function.__name__}_{words}_{whole}.json".replace("/", "-").replace(" ", "")


def where_and_when(name: str, arguments: list[str]) -> dict[str, str]:
    """Date, command, machine and versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", f"demos/{name}.py", *arguments]),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, "
                   f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
        "versions": f"python {platform.python_version()}, "
                    + ", ".join(f"{p} {importlib.metadata.version(p)}" for p in PACKAGES),
    }


def places(out: Path | None, small: bool) -> tuple[Path, Path]:
    """Directories of the figure and of the results."""
    if out is None and not small:
        figures, results = HERE / "figures", HERE / "results"
    else:
        out = Path(tempfile.mkdtemp(prefix="hamshoot-")) if out is None else out
        figures = results = out
    for directory in (figures, results):
        directory.mkdir(parents=True, exist_ok=True)
    return figures, results


def compact(record: dict[str, Any]) -> str:
    """JSON, one line for each entry of a list of numbers or records, six digits."""
    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: rounded(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [rounded(v) for v in value]
        if isinstance(value, (float, np.floating)):
            return float(f"{value:.7g}")
        return value.item() if isinstance(value, np.generic) else value

    lines = []
    for key, value in rounded(record).items():
        if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
            inner = ",\n  ".join(json.dumps(v, ensure_ascii=False) for v in value)
            lines.append(f" {json.dumps(key)}: [\n  {inner}\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def spread(values: Iterable[float], form: str = ".3g") -> str:
    """Median and range in words; the value alone where there is one."""
    values = list(values)
    middle = f"{np.median(values):{form}}"
    if len(values) == 1:
        return middle
    return f"{middle} (median of {len(values)}; {min(values):{form}} to {max(values):{form}})"


# -- how networks ended ----------------------------------------------------------------------------


def endings(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """How networks ended: how many, how many at a stationary point, by status; stationarity.

    Parameters
    ----------
    rows : iterable of dict
        Each with a `status`, the name of a `hamshoot.Status` in either case, and, where it was
        recorded, a `stationarity`.

    Returns
    -------
    dict
        `networks`, `converged`, `statuses` (counts), and `stationarity`, its least, median and
        largest value, or None where a network lacks it.
    """
    rows = list(rows)
    statuses = Counter(row["status"].upper() for row in rows)
    values = [row["stationarity"] for row in rows if row.get("stationarity") is not None]
    return {
        "networks": len(rows), "converged": statuses[CONVERGED], "statuses": dict(statuses),
        "stationarity": [min(values), float(np.median(values)), max(values)]
        if values and len(values) == len(rows) else None,
    }


def said(ended: dict[str, Any]) -> str:
    """In words how networks ended: how many converged, the statuses of the others, stationarity."""
    count, statuses = ended["networks"], ended["statuses"]
    reached = (f"{statuses[TRAINED]} of {count} trained to the last epoch" if TRAINED in statuses
               else f"{ended['converged'] or 'none'} of {count} converged")
    others = ", ".join(f"{status} {times}" for status, times in statuses.items()
                       if status not in (CONVERGED, TRAINED))
    return f"{reached}{f': {others}' if others else ''}; {stationarity(ended)}"


def stationarity(ended: dict[str, Any]) -> str:
    """Median and range in words."""
    if ended["stationarity"] is None:
        return "stationarity not recorded"
    least, middle, most = ended["stationarity"]
    if most == 0:  # a continuous path has its control from state and costate
        return "stationary by construction"
    return f"stationarity {middle:.3g}" + (
        "" if ended["networks"] == 1 else f", from {least:.2g} to {most:.2g}")


def labelled(name: str, ended: dict[str, Any]) -> str:
    """The name of a solver's networks in a legend or title, marked unless all have converged."""
    if ended["converged"] == ended["networks"] or TRAINED in ended["statuses"]:
        return name
    return f"{name} ({UNCONVERGED})"


def verdicts(sentences: Iterable[str]) -> str:
    """Count what second-order tests said, in their own words up to the first colon."""
    counts = Counter(sentence.split(":")[0] for sentence in sentences)
    return "; ".join(f"{count} “{verdict}”" for verdict, count in counts.items())


# -- paths -----------------------------------------------------------------------------------------


def continued(
    problem_of: Callable[[float], Any], depths: Iterable[float], first: Any = None, **options: Any
) -> tuple[list[Any], list[float]]:
    """Geodesics over effective depths, each the guess of the next; and the depths that failed.

    Parameters
    ----------
    problem_of : callable
        The `hamshoot.TrainingProblem` of an effective depth.
    first : Solution, optional
        The geodesic of the first depth, where it is there already.
    **options
        Of `hamshoot.IndirectShooting`.
    """
    import hamshoot as hs

    method, paths, failed = hs.IndirectShooting(**options), [], []
    for k, depth in enumerate(depths):
        path = first if k == 0 and first is not None else method.solve(
            problem_of(depth), initial_guess=paths[-1] if paths else None)
        if path.success:
            paths.append(path)
        else:
            failed.append(float(depth))
    if not paths:
        raise RuntimeError(f"no geodesic at any effective depth: {path.message}")
    return paths, failed


def speeds(path: Any, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """‖∂_pA‖_F and ‖A‖_F of a geodesic at positions p, each of its shape."""
    from hamshoot.theory.hamiltonian import velocity

    at, problem = path.at(p), path.problem
    settings = dict(effective_depth=problem.effective_depth, activation=path.activation,
                    bias=problem.bias)
    moved = [np.linalg.norm(velocity(A, B, **settings))
             for A, B in zip(at.representations, at.momenta, strict=True)]
    return np.array(moved), np.linalg.norm(at.representations, axis=(1, 2))


def dress(ax: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Title at the left, labels, a light grid, no upper and right spine."""
    ax.set_title(title, loc="left", fontsize=10)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def plain_ticks(ax: Any) -> None:
    """1, 2, 5 of every decade of a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def listed(values: Iterable[float], form: str = "g") -> str:
    """Numbers in words: 1, 2 and 3."""
    words = [f"{value:{form}}" for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
