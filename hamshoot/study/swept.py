"""What a sweep returns: its points, the branches they lie on, and where these change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.indirect.arclength import GeodesicCurve
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution
from hamshoot.study.ends import gap
from hamshoot.study.sweep_grid import told
from hamshoot.study.sweep_steps import Switch, good
from hamshoot.study.tables import points_table
from hamshoot.support.checks import brief
from hamshoot.support.extras import missing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Numbers of a point, as of `Solution.summary`, in the order of tables.
NUMBERS = ("objective", "loss", "test_error", "parameter_norm", "stationarity", "hamiltonian",
           "hamiltonian_drift", "bottleneck_rank", "stable_bottleneck_rank", "kinks")


@dataclass(frozen=True, eq=False)
class Point:
    """One point of a sweep.

    Attributes
    ----------
    number : int
        In the order of the lattice, the last parameter fastest.
    values : dict
        Parameters by name.
    status : str
        Name of the `Status` of its solution, in lower case.
    success : bool
        Whether it is an answer: the solve succeeded, or what is least there is the collapsed
        network, and was searched for.
    numbers : dict
        Those of `Solution.summary` that NUMBERS lists.
    branch : int
        Points with the same number lie on one branch, as far as steps between them can tell.
    begun : str
        What its solution comes from: "search", "from …", or "search (from …: why)".
    steps : int
        Solves that it took, all attempts from neighbours among them.
    seconds : float
        Likewise.
    file : Path or None
        Of its solution.
    """

    number: int
    values: dict[str, Any]
    status: str
    success: bool
    numbers: dict[str, Any]
    branch: int
    begun: str
    steps: int
    seconds: float
    file: Path | None = None
    _solution: Solution | None = field(default=None, repr=False)

    @property
    def solution(self) -> Solution:
        """The solution; read from its file where the sweep has a directory."""
        if self._solution is not None:
            return self._solution
        assert self.file is not None
        return Solution.load(self.file)

    @property
    def objective(self) -> float:
        """J."""
        value = self.numbers["objective"]
        return float("nan") if value is None else float(value)

    def row(self) -> dict[str, Any]:
        """One line of a table: parameters, numbers, and how it came about; JSON-ready."""
        return {**self.values, **self.numbers, "status": self.status, "success": self.success,
                "branch": self.branch, "begun": self.begun, "steps": self.steps,
                "seconds": self.seconds, "file": None if self.file is None else self.file.name}

    def __repr__(self) -> str:
        return f"Point({told(self.values)}: J {self.objective:.8g}, {self.status})"


@dataclass(frozen=True)
class Crossing:
    """Two neighbours of the lattice on different branches.

    Attributes
    ----------
    kind : {"crossing", "end", "other"}
        "crossing" where both branches were followed past the place, where their J are equal; "end"
        where one ends in between, see `switch`; "other" where neither is known.
    between : tuple of dict
        Parameters of the two.
    at : dict or None
        Of a crossing, where J is estimated to be equal, linearly in the logarithm.
    switch : Switch or None
        Of an end: in which interval.
    """

    kind: str
    between: tuple[dict[str, Any], dict[str, Any]]
    at: dict[str, Any] | None = None
    switch: Switch | None = None

    def __str__(self) -> str:
        first, second = self.between
        moving = {name for name in first if first[name] != second[name]}
        where = f"between {told(first)} and {told({k: second[k] for k in second if k in moving})}"
        if self.kind == "crossing" and self.at is not None:
            at = told({name: self.at[name] for name in self.at if name in moving})
            return f"{where} two branches cross, their J are equal about {at}"
        if self.switch is not None:
            word = "ends in a fold" if self.switch.kind == "fold" else "ends"
            return f"{where} a branch {word} ({self.switch})"
        return f"{where} the branch is another"


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """Optima over parameters of a problem; prints as a table.

    Attributes
    ----------
    problem : TrainingProblem
        As it was given.
    over : dict of str to tuple
        Values of each parameter, ascending.
    points : tuple of Point
        Those that are there, in the order of the lattice.
    crossings : tuple of Crossing
        Between neighbours on different branches.
    curves : tuple of GeodesicCurve
        Branches of geodesics that were followed through folds.
    complete : bool
        False where it was stopped before all was done.
    reason : str
        Why it was, in a sentence.
    settings : dict
        Method, layers and options.
    """

    problem: TrainingProblem
    over: dict[str, tuple[float, ...]]
    points: tuple[Point, ...]
    crossings: tuple[Crossing, ...] = ()
    curves: tuple[GeodesicCurve, ...] = ()
    complete: bool = True
    reason: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def success(self) -> bool:
        """Whether it is complete and every point an answer."""
        return self.complete and all(point.success for point in self.points)

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def at(self, **values: float) -> Point:
        """The point nearest to values of parameters, by their logarithms.

        Raises
        ------
        ValueError
            For an unknown parameter, or where there is no point.
        """
        self._check(values)
        if not self.points:
            raise ValueError("at: this sweep has no point")
        return min(self.points, key=lambda point: sum(
            (np.log(point.values[name] / value)) ** 2 for name, value in values.items()))

    def select(self, **values: float) -> Sweep:
        """The part of a sweep at values of some parameters, which are no parameters of it then.

        Raises
        ------
        ValueError
            For a parameter or a value that it was not over.
        """
        self._check(values)
        for name, value in values.items():
            if not any(np.isclose(value, one, rtol=1e-9) for one in self.over[name]):
                have = ", ".join(f"{one:g}" for one in self.over[name])
                raise ValueError(f"{name}: expected one of {have}, got {brief(value)}")

        def fits(where: Mapping[str, Any]) -> bool:
            return all(np.isclose(where[name], value, rtol=1e-9)
                       for name, value in values.items())

        points = tuple(replace(point, values={k: v for k, v in point.values.items()
                                              if k not in values})
                       for point in self.points if fits(point.values))
        return replace(self, points=points,
                       over={k: v for k, v in self.over.items() if k not in values},
                       problem=self.problem.replace(**values),
                       crossings=tuple(one for one in self.crossings
                                       if all(map(fits, one.between))),
                       curves=())

    def _check(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if name not in self.over:
                raise ValueError(f"{brief(name)[1:-1]}: expected one of {', '.join(self.over)}")
            if not (isinstance(value, (int, float, np.number)) and value > 0):
                raise ValueError(f"{name}: expected a number > 0, got {brief(value)}")

    # -- as tables ---------------------------------------------------------------------------------

    def to_pandas(self) -> Any:
        """One row a point: parameters, numbers of `Solution.summary`, branch, status, seconds.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            Saying what to install, without pandas.
        """
        try:
            import pandas
        except ImportError:
            raise missing("to_pandas", "pandas", "tables") from None
        rows = [point.row() for point in self.points]
        columns = [*self.over, *NUMBERS, "status", "success", "branch", "begun", "steps", "seconds",
                   "file"]
        frame = pandas.DataFrame(rows, columns=columns)
        numeric = [name for name in NUMBERS if name in frame]
        return frame.astype(dict.fromkeys(numeric, float))

    def to_xarray(self, solutions: bool = False) -> Any:
        """Numbers over the parameters, as labelled arrays.

        Parameters
        ----------
        solutions : bool
            Return a tree: the numbers at its root, and below ``points/NUMBER`` the
            `Solution.to_xarray` of each point.

        Returns
        -------
        xarray.Dataset or xarray.DataTree
            `status` and `branch` among the variables; NaN (−1, "") where a point is missing.

        Raises
        ------
        ImportError
            Saying what to install: without xarray, or with one that has no DataTree where that is
            asked for.
        """
        try:
            import xarray
        except ImportError:
            raise missing("to_xarray", "xarray", "xarray") from None
        if solutions and not hasattr(xarray, "DataTree"):
            raise ImportError("to_xarray(solutions=True) needs a DataTree, which xarray has from "
                              f"2024.10 on; this one is {xarray.__version__}")
        shape = tuple(len(axis) for axis in self.over.values())
        variables: dict[str, Any] = {name: np.full(shape, np.nan) for name in NUMBERS}
        variables["branch"] = np.full(shape, -1)
        variables["status"] = np.full(shape, "", dtype=object)
        for point in self.points:
            place = self._place(point)
            for name in NUMBERS:
                value = point.numbers[name]
                variables[name][place] = np.nan if value is None else value
            variables["branch"][place], variables["status"][place] = point.branch, point.status
        names = tuple(self.over)
        numbers = xarray.Dataset({name: (names, array) for name, array in variables.items()},
                                 {name: np.array(axis) for name, axis in self.over.items()},
                                 attrs={"problem": repr(self.problem), "complete": self.complete})
        if not solutions:
            return numbers
        nodes = {"/": numbers}
        for point in self.points:
            own = point.solution.to_xarray()
            nodes[f"/points/{point.number:04d}"] = own.assign_attrs(
                {f"over_{name}": value for name, value in point.values.items()})
        return xarray.DataTree.from_dict(nodes)

    def _place(self, point: Point) -> tuple[int, ...]:
        return tuple(axis.index(point.values[name]) for name, axis in self.over.items())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the content of `index.json`, but for its header."""
        return {
            "problem": repr(self.problem), "settings": self.settings,
            "over": {name: list(axis) for name, axis in self.over.items()},
            "complete": self.complete, "success": self.success, "reason": self.reason,
            "finding": self.finding(),
            "crossings": [asdict(one) for one in self.crossings],
            "curves": [{"parameter": one.parameter, "folds": list(one.folds),
                        "reason": one.reason, "points": [list(point) for point in one.points]}
                       for one in self.curves],
            "points": [{"number": point.number, **point.row()} for point in self.points],
        }

    # -- in words ----------------------------------------------------------------------------------

    def finding(self) -> str:
        """What was found, in sentences: the least J, branches, crossings and folds, failures."""
        total = int(np.prod([len(axis) for axis in self.over.values()]))
        if not self.points:
            return f"None of {total} points is solved. {self.reason}".strip()
        answers = [point for point in self.points if point.success]
        branches = len({point.branch for point in self.points})
        count = len(self.points)
        sentences = [f"{count} of {total} point{'' if total == 1 else 's'} on {branches} "
                     f"branch{'' if branches == 1 else 'es'}."]
        if answers:
            least = min(answers, key=lambda point: point.objective)
            sentences.append(f"J is least at {told(least.values)}: {least.objective:.6g}.")
        for crossing in self.crossings[:MOST_TOLD]:
            text = str(crossing)
            sentences.append(f"{text[0].upper()}{text[1:]}.")
        if len(self.crossings) > MOST_TOLD:
            sentences.append(f"And {len(self.crossings) - MOST_TOLD} more such places.")
        folds = [(curve.parameter, curve.points[k].value) for curve in self.curves
                 for k in curve.folds]
        if folds:
            values = ", ".join(told({name: value}) for name, value in dict.fromkeys(
                (name, float(f"{value:.6g}")) for name, value in folds))
            sentences.append(f"Folds of branches that were followed: {values}.")
        failed = [point for point in self.points if not point.success]
        if failed:
            sentences.append(f"{len(failed)} did not end well, the first at "
                             f"{told(failed[0].values)}: {failed[0].status.replace('_', ' ')}.")
        if not self.complete:
            sentences.append(self.reason or "It was stopped before all was done.")
        return " ".join(sentences)

    def table(self) -> str:
        """All points as text, one a line."""
        return points_table(list(self.over), [point.row() for point in self.points])

    def plot(self, quantities: tuple[str, ...] = ("objective", "hamiltonian", "bottleneck_rank")
             ) -> Figure:
        """Quantities over one parameter as curves, or over two as maps; see `hamshoot.plot`.

        Raises
        ------
        ValueError
            For three parameters or more (`select` leaves some of them out), an unknown quantity,
            and a sweep without points.
        """
        from hamshoot.study.sweep_panels import plot_sweep

        return plot_sweep(self, quantities)

    def __repr__(self) -> str:
        return f"Sweep of {self.problem!r}\n{self.table()}\n{self.finding()}"

    # -- from disk ---------------------------------------------------------------------------------

    @classmethod
    def load(cls, directory: str | PathLike) -> Sweep:
        """Read a sweep from its directory, also one that is not complete.

        Raises
        ------
        ValueError
            For a directory that holds none, or a damaged one, in one sentence.
        """
        from hamshoot.study.sweep_files import load

        return load(Path(directory), cls)


#: Crossings that are told in sentences.
MOST_TOLD = 6


def numbers_of(solution: Solution) -> dict[str, Any]:
    """The numbers of a point."""
    summary = solution.summary()
    return {name: summary[name] for name in NUMBERS}


def lower(a: Solution, b: Solution) -> bool:
    """Whether one solution of a problem is a better answer than another."""
    if good(a) != good(b):
        return good(a)
    return gap(a, b) < -LOWER


#: Share of J by which a solution has to be lower to take the place of another.
LOWER = 1e-7
