"""What a sweep returns: its points, the branches they lie on, and where these change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.study.sweep_arrays import dataset_of, tree_of
from hamshoot.study.sweep_fields import SweepFields
from hamshoot.study.sweep_files import load
from hamshoot.study.sweep_panels import plot_sweep
from hamshoot.study.sweep_points import NUMBERS, Point
from hamshoot.study.tables import points_table
from hamshoot.support.checks import brief
from hamshoot.support.extras import missing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

@dataclass(frozen=True, eq=False, repr=False)
class Sweep(SweepFields):
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
        columns = [*self.over, *NUMBERS, "status", "success", "branch", "begun", "predicted",
                   "steps", "seconds", "file"]
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
        return tree_of(self) if solutions else dataset_of(self)

    # -- in words ----------------------------------------------------------------------------------

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
        return load(Path(directory), cls)
