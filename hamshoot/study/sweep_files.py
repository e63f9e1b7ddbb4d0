"""A sweep on disk: a file for each point as it comes, and an index, each whole or not at all.

In its directory: ``sweep-points/0007.npz``, a `hamshoot.Solution`; ``index.json`` and
``index.csv``, one line a point; while it is under way ``.journal``, what is done of it, to the last
solve.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from hamshoot.methods.indirect.arclength import GeodesicCurve, GeodesicPoint
from hamshoot.solution.solution import Solution
from hamshoot.study.sweep_fields import SweepFields
from hamshoot.study.sweep_points import NUMBERS, Crossing, Point
from hamshoot.study.sweep_steps import Switch
from hamshoot.support.checks import brief, check_regular
from hamshoot.support.files import header, write_whole

Kind = TypeVar("Kind", bound=SweepFields)

FORMAT = 1
INDEX, TABLE, POINTS, JOURNAL = "index.json", "index.csv", "sweep-points", ".journal"
#: Seconds between two index files of a sweep that is under way.
EVERY = 1.0
#: Solutions kept in memory beside those on disk.
KEPT = 32
#: Largest index that is read.
LARGEST = 200_000_000
NAME = re.compile(r"\d{4,6}\.npz")


class Store:
    """Solutions of points: in memory, or in files of which the last few are in memory too.

    Parameters
    ----------
    directory : Path or None
    """

    def __init__(self, directory: Path | None):
        self.directory = directory
        self._kept: OrderedDict[int, Solution] = OrderedDict()

    def put(self, number: int, solution: Solution) -> Path | None:
        """Keep the solution of a point, in place of an older one; its file."""
        path = None
        if self.directory is not None:
            folder = self.directory / POINTS
            folder.mkdir(parents=True, exist_ok=True)
            path = solution.save(folder / f"{number:04d}.npz")
        self._kept[number] = solution
        self._kept.move_to_end(number)
        while self.directory is not None and len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return path

    def get(self, number: int) -> Solution:
        """The solution of a point."""
        if number not in self._kept:
            assert self.directory is not None
            self._kept[number] = Solution.load(self.directory / POINTS / f"{number:04d}.npz")
        return self._kept[number]


class Index:
    """Writes the index of a sweep, now and then while it is under way.

    Parameters
    ----------
    directory : Path or None
    key : str
        Of the sweep: of all that its result depends on.
    own : dict
        What the problem itself has for the parameters swept.
    """

    def __init__(self, directory: Path | None, key: str, own: Mapping[str, Any]):
        self.directory, self.key, self.own = directory, key, dict(own)
        self._written = -float("inf")

    def write(self, sweep: SweepFields, now: bool = False) -> None:
        """Both files, unless they were written a moment ago."""
        if self.directory is None or (not now and time.monotonic() - self._written < EVERY):
            return
        self._written = time.monotonic()
        write_table(sweep, self.directory / TABLE)
        record = {**header(FORMAT), "key": self.key, "own": self.own, **sweep.to_dict()}
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
        write_whole(self.directory / INDEX, lambda file: file.write(text + "\n"), mode="w")


def write_table(sweep: SweepFields, path: Path) -> None:
    """The points as CSV, a header row first; what is missing is an empty cell."""
    columns = ["number", *sweep.over, *NUMBERS, "status", "success", "branch", "begun",
               "predicted", "steps", "seconds", "file"]
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for point in sweep.points:
        writer.writerow({"number": point.number, **point.row()})
    write_whole(path, lambda target: target.write(file.getvalue()), mode="w")


def begin(directory: Path, key: str) -> str:
    """How it stands with a directory: "new", "begun" or "complete", this very sweep.

    Raises
    ------
    ValueError
        Where it is a file, holds another sweep, or cannot be written to.
    """
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory}: expected a directory, got a file")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{directory}: cannot be written to ({error.strerror})") from None
    if not (directory / INDEX).exists():
        if (directory / POINTS).exists() and not (directory / JOURNAL).exists():
            raise ValueError(f"{directory}: holds {POINTS} without {INDEX}; choose another "
                             "directory")
        return "new"
    record = _read(directory / INDEX)
    if record.get("key") != key:
        raise ValueError(f"{directory}: holds another sweep, {brief(record.get('problem'))} over "
                         f"{', '.join(map(str, record.get('over') or ()))}; choose another "
                         "directory, or take that one away")
    return "complete" if record.get("complete") is True else "begun"


def end(directory: Path) -> None:
    """Take away what was kept to go on from."""
    shutil.rmtree(directory / JOURNAL, ignore_errors=True)


def load(directory: Path, kind: type[Kind]) -> Kind:
    """See `Sweep.load`."""
    record = _read(directory / INDEX)
    try:
        return _sweep(directory, record, kind)
    except (KeyError, TypeError, AttributeError, IndexError):
        raise ValueError(f"{directory / INDEX}: not the index of a sweep") from None


def _read(path: Path) -> dict[str, Any]:
    check_regular(path, "the index of a sweep")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST} bytes, got {path.stat().st_size}")
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not the index of a sweep (no JSON)") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(record, dict) or "over" not in record:
        raise ValueError(f"{path}: not the index of a sweep")
    if record.get("format") != FORMAT:
        raise ValueError(f"{path}: format {brief(record.get('format'))}, this hamshoot reads "
                         f"format {FORMAT}")
    return record


def _sweep(directory: Path, record: dict[str, Any], kind: type[Kind]) -> Kind:
    over = {str(name): tuple(axis) for name, axis in record["over"].items()}
    points = tuple(_point(directory, row, over) for row in record["points"])
    if not points:
        raise ValueError(f"{directory}: none of its points is solved")
    problem = points[0].solution.problem.replace(**record["own"])
    curves = tuple(GeodesicCurve(
        one["parameter"], tuple(GeodesicPoint(*point) for point in one["points"]),
        tuple(one["folds"]), one["reason"]) for one in record["curves"])
    crossings = tuple(Crossing(
        one["kind"], (one["between"][0], one["between"][1]), one["at"],
        None if one["switch"] is None else Switch(**one["switch"]))
        for one in record["crossings"])
    return kind(problem, over, points, crossings, curves, bool(record["complete"]),
                str(record["reason"]), dict(record["settings"]))


def _point(directory: Path, row: dict[str, Any], over: Mapping[str, Any]) -> Point:
    if not isinstance(row["file"], str) or not NAME.fullmatch(row["file"]):
        raise TypeError
    return Point(int(row["number"]), {name: row[name] for name in over}, str(row["status"]),
                 bool(row["success"]), {name: row[name] for name in NUMBERS}, int(row["branch"]),
                 str(row["begun"]), int(row["steps"]), float(row["seconds"]),
                 directory / POINTS / row["file"], predicted=str(row.get("predicted") or ""))


def _plain(value: Any) -> Any:
    """What JSON does not know: numbers of NumPy as Python's, objects by their `repr`."""
    return value.item() if hasattr(value, "item") and getattr(value, "size", 0) == 1 \
        else repr(value)
