"""Whether a geodesic is what it seems: the limit of Euler networks, and of the one it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hamshoot.methods.indirect.continuation import same_branch, tends_to
from hamshoot.methods.indirect.reach import Continuation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.methods.indirect.continuation import Stage

#: Of the representations of the finest network built from a geodesic (32 MB).
MOST_NUMBERS = 4_000_000


@dataclass
class BranchCheck:
    """Checks of the geodesic that a continuation is at.

    Attributes
    ----------
    ways : Continuation
    extra : dict
        Of the solution; receives "branch" and "start".
    """

    ways: Continuation
    extra: dict[str, Any]

    def check(self, layers: int) -> None:
        """Objectives of Euler networks on the geodesic's control must tend to its own."""
        ways = self.ways
        most = MOST_NUMBERS // ways.geodesic().y[0, 0].size
        self.extra["branch"] = tends_to(ways.solver.solved[-1][1], 8 * layers, self._built, most)

    def compare(self, stage: Stage, weights: NDArray, own: float | None) -> None:
        """Whether the optimal Euler network that the geodesic came from lies on its branch."""
        ways = self.ways
        start = ways.networks.objective(stage, weights)
        changed = 0.0 if own is None or ways.solver.problem.hard_endpoint else abs(start - own)
        fine = max(16 * ways.layers, 2 * len(weights))
        self.extra["start"] = same_branch(ways.solver.solved[-1][1], weights, start, fine,
                                          self._built(fine), changed)

    def _built(self, layers: int) -> float:
        """J of the Euler network with the control of the path at the middle of each layer."""
        path = self.ways.geodesic()
        return self.ways.networks.objective(path.stage, self.ways.weights(path, layers))
