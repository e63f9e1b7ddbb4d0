"""What a sweep holds, as JSON and in sentences; `hamshoot.Sweep` is that, with what one does."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hamshoot.methods.indirect.arclength import GeodesicCurve
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.study.sweep_grid import told
from hamshoot.study.sweep_points import Crossing, Point

#: Crossings that are told in sentences.
MOST_TOLD = 6


@dataclass(frozen=True, eq=False, repr=False)
class SweepFields:
    """The fields of `hamshoot.Sweep`, which describes them."""

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
