"""Where the polish of a ReLU network ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Polished(NamedTuple):
    """Where the polish ended.

    Attributes
    ----------
    weights : ndarray, shape (L, w, w+1)
    settled : bool
        Whether this is a Clarke stationary point of the ReLU network to the tolerance.
    objective : float
        J of the ReLU network.
    stationarity : float
        Of the ReLU network, with the best slopes on the kink; from `discrete`, not from here.
    held, dead : int
        Entries held on the kink, and those there whose neuron no weight reads.
    iterations : int
        Linear systems solved.
    """

    weights: NDArray
    settled: bool
    objective: float
    stationarity: float
    held: int
    dead: int
    iterations: int

    @property
    def words(self) -> str:
        """Entries on the kink, for a message."""
        dead = f", {self.dead} of dead neurons" if self.dead else ""
        return f"{self.held} activations held on the kink{dead}"
