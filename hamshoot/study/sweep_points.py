"""Points of a sweep, and the places between them where the branch is another."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamshoot.solution.solution import Solution
from hamshoot.study.ends import gap
from hamshoot.study.sweep_grid import told
from hamshoot.study.sweep_steps import Switch, good

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
    predicted : str
        How the steps that led to it began: along the "tangent" (`hamshoot.sensitivity`), the
        "secant" of the last two solutions, or "none"; empty where it comes from a search.
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
    predicted: str = ""

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
                "branch": self.branch, "begun": self.begun, "predicted": self.predicted or None,
                "steps": self.steps, "seconds": self.seconds,
                "file": None if self.file is None else self.file.name}

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
