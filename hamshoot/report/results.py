"""Results in a directory, as the command line leaves them, read back for a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hamshoot.solution.solution import Solution
from hamshoot.study.compare import (
    CONTINUED,
    CONTROL,
    DESCENT,
    LONGER,
    SAME_SECONDS,
    Comparison,
    Row,
)

#: Where `hamshoot compare` keeps each row.
FILES = {CONTROL: "solution.npz", DESCENT: "descent.npz", LONGER: "descent_longer.npz",
         SAME_SECONDS: "descent_same_seconds.npz", CONTINUED: "continued.npz"}
#: Relative difference of objectives, recorded and in the file, from which a file is another run's.
SAME = 1e-9


def read_results(path: Path) -> Solution | Comparison:
    """The solution of a file or of a directory of `solve`, or the comparison of one of `compare`.

    Parameters
    ----------
    path : Path
        An .npz file, or a directory with `solution.npz`; its `summary.json` says whether it is a
        comparison.

    Raises
    ------
    ValueError
        For a path that is not there, a directory without results, a summary that cannot be read,
        and files that are not those of the summary.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or directory; hamshoot solve or hamshoot compare "
                         "makes one")
    if not path.is_dir():
        return Solution.load(path)
    summary = _summary(path / "summary.json")
    if "rows" in summary:
        return _comparison(path, summary)
    solution = path / FILES[CONTROL]
    if not solution.exists():
        raise ValueError(f"{path}: holds no {FILES[CONTROL]}; hamshoot solve or hamshoot compare "
                         "writes one, or name an .npz file")
    return Solution.load(solution)


def _summary(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError(f"{path}: cannot be read as JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object, got {type(found).__name__}")
    return found


def _comparison(directory: Path, summary: dict[str, Any]) -> Comparison:
    """Rows in the order of the summary, each from its file."""
    where = directory / "summary.json"
    recorded, settings = summary["rows"], summary.get("settings", {})
    named = isinstance(recorded, list) and all(
        isinstance(row, dict) and row.get("name") in FILES for row in recorded)
    if not named or not recorded or not isinstance(settings, dict):
        raise ValueError(f"{where}: expected rows named {', '.join(FILES)}, and settings")
    rows = tuple(_row(directory / FILES[row["name"]], row) for row in recorded)
    return Comparison(rows[0].solution.problem, rows, bool(summary.get("complete", True)), settings)


def _row(path: Path, recorded: dict[str, Any]) -> Row:
    """One row, held against what the summary says of it."""
    solution = Solution.load(path)
    objective, seconds = recorded.get("objective"), recorded.get("cpu_seconds")
    if isinstance(objective, (int, float)) \
            and not abs(solution.objective - objective) <= SAME * abs(objective):
        raise ValueError(f"{path}: its objective is {solution.objective:.10g}, that of "
                         f"summary.json {objective:.10g}: they are of different runs")
    return Row(recorded["name"], solution,
               cpu_seconds=float(seconds) if isinstance(seconds, (int, float)) else None)
