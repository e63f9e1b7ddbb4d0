"""How it stands with a sweep: points, what steps between them came to, branches and crossings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.study.sweep_files import Store
from hamshoot.study.sweep_grid import between
from hamshoot.study.sweep_plan import Plan
from hamshoot.study.sweep_points import Crossing, Point
from hamshoot.study.sweep_steps import SAME_J, Arrival, good
from hamshoot.study.swept import Sweep

if TYPE_CHECKING:
    from hamshoot.methods.indirect.arclength import GeodesicCurve


@dataclass
class State:
    """How it stands with a point."""

    arrival: Arrival
    numbers: dict[str, Any]
    label: int
    file: Path | None
    version: int = 0
    steps: int = 0
    seconds: float = 0.0


@dataclass
class Trial:
    """What came of steps from a neighbour, at a version of it."""

    version: int
    arrival: Arrival


@dataclass(kw_only=True)
class Account:
    """Points and ways of a sweep, as far as they are known.

    Attributes
    ----------
    plan : Plan
    store : Store
    states : dict
        By the number of the point.
    trials : dict
        What came of the last steps from one point to a neighbour.
    same_as : dict
        Labels that turned out to be of another one's branch.
    followed : dict
        Curves beyond crossings.
    """

    plan: Plan
    store: Store
    states: dict[int, State] = field(default_factory=dict)
    trials: dict[tuple[int, int], Trial] = field(default_factory=dict)
    same_as: dict[int, int] = field(default_factory=dict)
    followed: dict[Hashable, Arrival] = field(default_factory=dict)

    def branch(self, label: int) -> int:
        """The label that stands for all those which turned out to be of one branch."""
        while label in self.same_as and self.same_as[label] != label:
            label = self.same_as[label]
        return label

    def point(self, number: int, names: Mapping[int, int] | None = None) -> Point:
        """A point as it stands."""
        state = self.states[number]
        arrival, label = state.arrival, self.branch(state.label)
        solution = arrival.solution if state.file is None else None
        return Point(number, self.plan.grid.values(number), arrival.solution.status.name.lower(),
                     good(arrival.solution), state.numbers,
                     label if names is None else names[label], arrival.begun, state.steps,
                     state.seconds, state.file, solution, arrival.predicted)

    def sweep(self, reason: str) -> Sweep:
        """All as it stands."""
        names: dict[int, int] = {}
        for number in sorted(self.states):
            names.setdefault(self.branch(self.states[number].label), len(names))
        grid = self.plan.grid
        curves: list[GeodesicCurve] = []
        arrivals = [*(trial.arrival for trial in self.trials.values()),
                    *(self.followed[token] for token in sorted(self.followed, key=str))]
        for arrival in arrivals:
            curves += [curve for curve in arrival.curves if curve not in curves]
        return Sweep(
            self.plan.problem, dict(zip(grid.names, grid.axes, strict=True)),
            tuple(self.point(number, names) for number in sorted(self.states)),
            () if reason else tuple(self.crossings()), tuple(curves), not reason, reason,
            self.plan.settings)

    def crossings(self) -> list[Crossing]:
        """Between neighbours whose branches or sheets differ."""
        found = []
        for a, b in self.plan.grid.edges():
            if self.apart(a, b):
                found.append(self.crossing(a, b))
        return found

    def crossing(self, a: int, b: int) -> Crossing:
        """What is known of the place between two neighbours."""
        values = self.plan.grid.values
        ends = values(a), values(b)
        there, back = (self.trials.get(way) for way in ((a, b), (b, a)))
        there = there if there is not None and there.version == self.states[a].version else None
        back = back if back is not None and back.version == self.states[b].version else None
        along = [None if trial is None else trial.arrival.along for trial in (there, back)]
        if along[0] is not None and along[1] is not None:
            first = self.store.get(a).objective - along[1]
            last = along[0] - self.store.get(b).objective
            share = first / (first - last) if first != last else 0.5
            return Crossing("crossing", ends, between(*ends, float(np.clip(share, 0, 1))))
        switches = [switch for trial in (there, back) if trial is not None
                    for switch in trial.arrival.switches]
        if switches:
            return Crossing("end", ends, None,
                            min(switches, key=lambda one: one.kind != "fold"))
        return Crossing("other", ends)

    def smooth(self, a: int, b: int) -> bool:
        """Whether steps from one point to another are known to end at the solution there."""
        trial = self.trials.get((a, b))
        if trial is None or trial.version != self.states[a].version or trial.arrival.along is None:
            return False
        objective = self.store.get(b).objective
        return abs(trial.arrival.along - objective) <= SAME_J * abs(objective)

    def apart(self, a: int, b: int) -> bool:
        """Whether two neighbours lie on different branches, or on different sheets of one."""
        if self.branch(self.states[a].label) != self.branch(self.states[b].label):
            return True
        tried = [way for way in ((a, b), (b, a)) if way in self.trials]
        return bool(tried) and not any(self.smooth(*way) for way in tried)
