"""Where a sweep goes: the values of its parameters, and the tree of neighbours it follows.

Distances are in the logarithms of the parameters, in the units of continuation: L̃ by a factor 1.3,
λ by 3, ε by 2 (`hamshoot.methods.indirect.continuation.distance`). A lattice of values has a
minimum spanning tree among the edges between neighbours of the lattice, since a step aslant is
longer than each of the steps along the axes that replace it. With several points searched it is a
forest: every point belongs to the searched point that its chain of shortest steps leads to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem.arguments import count, positive
from hamshoot.support.checks import brief, is_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.training_problem import TrainingProblem

#: What a sweep can be over, and the factor that is one unit of distance; no unit, no way between.
UNITS: dict[str, float | None] = {"effective_depth": 1.3, "weight_decay": 3.0, "epsilon": 2.0,
                                  "width": None}
#: Points of a sweep at most.
MOST_POINTS = 100_000


@dataclass(frozen=True)
class Grid:
    """A lattice of parameter values; points are numbered with the last parameter fastest.

    Attributes
    ----------
    names : tuple of str
    axes : tuple of tuple
        Values of each, ascending.
    """

    names: tuple[str, ...]
    axes: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, over: Any, problem: TrainingProblem) -> Grid:
        """The lattice of what is asked for.

        Raises
        ------
        ValueError
            For an unknown parameter, one the problem has not, and values that are none.
        """
        if not isinstance(over, Mapping) or not over:
            raise ValueError("over: expected a dict such as {'effective_depth': [1, 2, 4]}, got "
                             f"{brief(over)}")
        for name in over:
            if name not in UNITS:
                raise ValueError(f"over: expected some of {', '.join(UNITS)}, got {brief(name)}")
        if "epsilon" in over and problem.activation != "smooth_relu":
            raise ValueError("over: epsilon is swept where the activation is smooth_relu, got "
                             f"{problem.activation!r}")
        axes = tuple(tuple(_values(name, values)) for name, values in over.items())
        total = int(np.prod([len(axis) for axis in axes], dtype=float))
        if total > MOST_POINTS:
            raise ValueError(f"over: expected at most {MOST_POINTS} points, got {total}")
        return cls(tuple(over), axes)

    def __len__(self) -> int:
        return int(np.prod(self.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Values of each parameter."""
        return tuple(len(axis) for axis in self.axes)

    def values(self, number: int) -> dict[str, Any]:
        """Parameters of a point."""
        places = np.unravel_index(number, self.shape)
        return {name: axis[int(place)] for name, axis, place in
                zip(self.names, self.axes, places, strict=True)}

    def coordinates(self) -> NDArray:
        """Of all points, (points, parameters), in units; of a width its logarithm."""
        scaled = [np.log(axis) / np.log(UNITS[name] or np.e)
                  for name, axis in zip(self.names, self.axes, strict=True)]
        return np.array(list(product(*scaled))).reshape(len(self), len(self.names))

    def edges(self) -> Iterator[tuple[int, int]]:
        """Neighbours of the lattice between which there is a way, each once."""
        numbers = np.arange(len(self)).reshape(self.shape)
        for k, name in enumerate(self.names):
            if UNITS[name] is None:
                continue
            first = np.moveaxis(numbers, k, 0)
            yield from zip(first[:-1].ravel().tolist(), first[1:].ravel().tolist(), strict=True)

    def islands(self) -> NDArray:
        """Number of the island that a point is on, (points,): between widths there is no way."""
        if "width" not in self.names:
            return np.zeros(len(self), dtype=int)
        return np.unravel_index(np.arange(len(self)), self.shape)[self.names.index("width")]

    def searched(self, problem: TrainingProblem, count: int) -> list[int]:
        """Points to be searched, on each island.

        The one nearest to the problem's own parameters, then the farthest from those before.
        """
        where, islands, found = self.coordinates(), self.islands(), []
        own = [_own(problem, name) for name in self.names]
        centre = np.array([np.log(value) / np.log(UNITS[name] or np.e)
                           for name, value in zip(self.names, own, strict=True)])
        for island in dict.fromkeys(islands.tolist()):
            members = np.flatnonzero(islands == island)
            apart = np.linalg.norm(where[members] - centre, axis=1)
            chosen = [int(members[np.argmin(np.round(apart, 9))])]
            nearest = np.linalg.norm(where[members] - where[chosen[0]], axis=1)
            while len(chosen) < min(count, len(members)):
                chosen.append(int(members[np.argmax(np.round(nearest, 9))]))
                nearest = np.minimum(nearest,
                                     np.linalg.norm(where[members] - where[chosen[-1]], axis=1))
            found += chosen
        return found

    def forest(self, roots: Sequence[int]) -> list[int | None]:
        """The neighbour that each point goes on from, None for roots.

        The minimum spanning forest whose trees hold one root each.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

        where, everywhere = self.coordinates(), len(self)
        edges = np.array(list(self.edges()), dtype=int).reshape(-1, 2)
        lengths = np.linalg.norm(where[edges[:, 0]] - where[edges[:, 1]], axis=1)
        # One more node is joined to all roots, by edges that are shorter than all others.
        least = 1e-6 * (lengths.min() if len(lengths) else 1.0)
        # SciPy's algorithms on graphs take no wider indices before 1.12.
        ends = np.vstack([edges, [(everywhere, root) for root in roots]]).astype(np.int32)
        weights = np.concatenate([lengths, np.full(len(roots), least)])
        graph = coo_array((weights, ends.T), shape=(everywhere + 1,) * 2).tocsr()
        tree = minimum_spanning_tree(graph)
        _, before = breadth_first_order(tree, everywhere, directed=False)
        return [None if before[k] in (everywhere, -9999) else int(before[k])
                for k in range(everywhere)]


def changed(problem: TrainingProblem, values: Mapping[str, Any]) -> TrainingProblem:
    """The problem at the parameters of a point."""
    return problem.replace(**dict(values))


def told(values: Mapping[str, Any]) -> str:
    """Parameters in words."""
    symbols = {"effective_depth": "L̃", "weight_decay": "λ", "epsilon": "ε", "width": "width"}
    return ", ".join(f"{symbols[name]} = {value:.4g}" for name, value in values.items())


def between(start: Mapping[str, Any], end: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Parameters at a share of the way, geometrically; at 1 the end itself."""
    if share >= 1:
        return dict(end)
    return {name: start[name] if start[name] == value else
            float(start[name] * (value / start[name]) ** share) for name, value in end.items()}


def _own(problem: TrainingProblem, name: str) -> float:
    """A parameter of the problem itself."""
    return float(problem.sigma.epsilon if name == "epsilon" else getattr(problem, name))


def _values(name: str, values: Any) -> list[float]:
    """The values of a parameter, checked, ascending, each once."""
    if isinstance(values, (str, bytes, Mapping)) or not np.iterable(values):
        if is_number(values):
            values = [values]
        else:
            raise ValueError(f"over[{name!r}]: expected a list of numbers, got {brief(values)}")
    label = f"over[{name!r}]"
    found: list[float]
    if name == "width":
        found = [*sorted({count(label, value, 1) for value in values})]
    else:
        found = sorted({positive(label, value) for value in values})
    if not found:
        raise ValueError(f"{label}: expected at least one value, got none")
    return found
