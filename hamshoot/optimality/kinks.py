"""What each entry on the kink of a ReLU means for the minimum: held, on an edge, concave or idle.

The rules, and why they suffice, are in `hamshoot.optimality.second_order_layers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Entries with |A| below this times max(1, max|A|) lie on the kink. At a solved network the others
#: are 1e-5 and more away (Newton's method leaves 1e-16): `Kinks.nearest` says how far.
KINK_TOLERANCE = 1e-9
#: A force below this share of the largest is none, a column of W below this share of the largest
#: reads nothing, and a slope closer than this to 0 or 1 lies on the edge: strict complementarity
#: fails there, or cannot be told from failing.
NO_FORCE, NO_COLUMN, EDGE = 1e-8, 1e-9, 1e-6


class Kinks(NamedTuple):
    """Entries on the kink of a ReLU network, at the left nodes of its layers; masks are (L, w, N).

    Slopes on the kink lie in [α, 1], α = 0 but for a leaky ReLU.

    Attributes
    ----------
    held : ndarray of bool
        A convex kink with a force and a slope inside (α, 1): leaving it costs to first order.
    edge : ndarray of bool
        A convex kink whose slope is α or 1: one side costs nothing to first order.
    concave : ndarray of bool
        A kink at which J falls to first order towards at least one side.
    idle : ndarray of bool
        No force.
    unread : ndarray of bool
        Of those, entries whose neuron no weight reads.
    slopes : ndarray, shape (L, w, N)
        σ′, with the slopes d of the entries on the kink; 0 for idle ones.
    force : ndarray, shape (L, w, N)
        v = ρWᵀB.
    margin : float
        Least |v|·min(d − α, 1 − d) of the entries held, as a share of the largest |v|: how strict
        complementarity is. NaN where nothing is held.
    nearest : float
        Least |A| of the entries that are not on the kink, as a share of max(1, max|A|): how far the
        pattern of the activations holds.
    low : float
        α.
    """

    held: NDArray
    edge: NDArray
    concave: NDArray
    idle: NDArray
    unread: NDArray
    slopes: NDArray
    force: NDArray
    margin: float
    nearest: float
    low: float = 0.0

    @property
    def on_kink(self) -> NDArray:
        """All of them."""
        return self.held | self.edge | self.concave | self.idle


def told_apart(
    representations: NDArray, weights: NDArray, steps: NDArray, momenta: NDArray, slopes: NDArray,
    low: float = 0.0, inputs: NDArray | None = None,
) -> Kinks:
    """Tell the entries on the kink of a ReLU network apart by the force on them.

    Parameters
    ----------
    representations, momenta : ndarray, shape (L+1, w, N)
        A, and the costate B that belongs to the slopes.
    weights : ndarray, shape (L, w, w+1)
    steps : ndarray, shape (L,)
    slopes : ndarray, shape (L, w, N)
        σ′ with d ∈ [α, 1] on the kink, where |A| ≤ KINK_TOLERANCE·max(1, max|A|). A_0 is given and
        never counts, nor does a sample that no control moves.
    low : float
        α.
    inputs : ndarray, shape (d_in, N), optional
        Xᵀ where the lift is learned, which moves A_0 wherever x is not 0.
    """
    A, w = representations[:-1], representations.shape[1]
    columns = np.linalg.norm(weights[:, :, :w], axis=1)[:, :, None]
    force = steps[:, None, None] * (np.swapaxes(weights[:, :, :w], 1, 2) @ momenta[1:])
    size, strongest = max(1.0, float(np.abs(A).max())), float(np.abs(force).max())
    hidden = np.zeros(A.shape, bool)
    if inputs is not None:
        hidden[:] = np.any(inputs != 0, axis=0)
    if weights.shape[2] > w:
        hidden[1:] = True
    elif inputs is None:
        # Without a bias a sample of no features at the start has none ever, and its A is fixed.
        hidden[1:] = np.any(A[0] != 0 if low else A[0] > 0, axis=0)
    kink = hidden & (np.abs(A) <= KINK_TOLERANCE * size)
    unread = kink & (columns <= NO_COLUMN * max(1.0, float(columns.max())))
    idle = kink & (unread | (np.abs(force) <= NO_FORCE * strongest))
    inside = np.minimum(slopes - low, 1 - slopes)
    convex = kink & ~idle & (force < 0)
    held = convex & (inside > EDGE)
    margin = float(np.min(np.abs(force[held]) * inside[held])) / strongest if held.any() \
        else float("nan")
    off = np.abs(A[hidden & ~kink])
    return Kinks(
        held, convex & ~held, kink & ~idle & (force > 0), idle, unread,
        np.where(idle, 0.0, slopes), force, margin, float(off.min()) / size if off.size else np.inf,
        low)
