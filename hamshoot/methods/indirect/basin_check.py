"""Whether a geodesic lies in the basin of the network that the search found for it.

Newton's method may lead elsewhere: the basin of a coarse network may end in a fold on the way to
thinner kinks, or be one that finer networks do not have. Held against each other are networks of as
many layers, of the same activation, for a coarse network's J says little of a geodesic's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.indirect.first_network import FoundNetwork, settled_objective
from hamshoot.methods.indirect.reach import Continuation

if TYPE_CHECKING:
    from hamshoot.methods.indirect.continuation import Path

#: Share of J by which a network on the branch of a geodesic may lie above another.
LOSS = 1e-3
#: Relative distance of controls within which a network is of the branch of a geodesic.
NEAR = 0.1


@dataclass
class BasinCheck:
    """Comparisons of geodesics with networks of the search.

    Attributes
    ----------
    ways : Continuation
    lowest : dict of int to float
        J of the lowest network of so many layers that a geodesic was found to lie above of.
    """

    ways: Continuation
    lowest: dict[int, float] = field(default_factory=dict)

    def lost(self, path: Path, network: FoundNetwork | None) -> bool:
        """Whether the basin of the network searched for was lost on the way to a geodesic.

        Not where the controls are near each other. Else the network built from the geodesic is
        carried to a minimum and held against it: both have as many layers. Costs two descents of
        L-BFGS where they differ, four where that one is above.
        """
        own = self.ways.networks.own()
        # The stiff loss of a hard endpoint measures something else.
        if network is None or network.collapsed or own is not self.ways.solver.problem:
            return False
        self.ways.watch.stage = "comparison with the network of the search"
        built = self.ways.weights(path, len(network.weights))
        if np.linalg.norm(built - network.carried) <= NEAR * np.linalg.norm(built):
            return False
        epsilon = path.stage.epsilon
        if not _above(settled_objective(own, built, epsilon, self.ways.watch), network.objective):
            return False
        # Some basins are those of coarse networks alone: are twice the layers still lower?
        finer = np.repeat(network.carried, 2, axis=0)
        other = settled_objective(own, finer, epsilon, self.ways.watch)
        if not _above(self._built(path, len(finer)), other):
            return False
        self.lowest[len(finer)] = min(other, self.lowest.get(len(finer), np.inf))
        return True

    def lower(self, path: Path) -> dict[str, Any] | None:
        """The lowest network known, if the one built from this geodesic lies above it.

        Its layers and J, and "built", J of the other. None where no geodesic was lost on the way.
        """
        for layers, objective in self.lowest.items():
            built = self._built(path, layers)
            if _above(built, objective):
                return {"layers": layers, "objective": objective, "built": built}
        return None

    def _built(self, path: Path, layers: int) -> float:
        """J of the minimum beside the network built from a geodesic."""
        return settled_objective(self.ways.networks.own(), self.ways.weights(path, layers),
                                 path.stage.epsilon, self.ways.watch)


def lower_sentence(lower: dict[str, Any]) -> str:
    """What is said of a geodesic above a network."""
    return (f"A network of {lower['layers']} layers is known whose J is {lower['objective']:.8g}, "
            f"below the {lower['built']:.8g} of the one beside this geodesic: no geodesic was "
            "found there; another seed or effort=\"thorough\" may find it.")


def _above(built: float, other: float) -> bool:
    return not built <= other + LOSS * abs(other)
