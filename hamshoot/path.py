"""What is computed along a path from its states and controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PathPoint:
    """A path at one depth or several.

    Attributes
    ----------
    p : ndarray, shape (K,) or ()
    representations, momenta : ndarray, shape (K, w, N) or (w, N)
    weights : ndarray, shape (K, w, w+1) or (w, w+1)
    """

    p: NDArray
    representations: NDArray
    momenta: NDArray
    weights: NDArray
