"""Meshes on which every segment has about the same residual."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_AIM = 0.3  # part of the tolerance that a new mesh aims at
_SHORTEST = 1e-13  # segment that is cut, over the size of x
_LEAST = 0.4  # of a segment: up to so few pieces are left of it


def equidistributed(
    x: NDArray,
    residuals: NDArray,
    tol: float,
    order: int,
    kept: NDArray,
    *,
    coarsen: bool = True,
    most: float,
) -> NDArray:
    """Nodes on which residuals that fall with h^order come to about 0.3 tol in each segment.

    Parameters
    ----------
    x : ndarray, shape (M,)
    residuals : ndarray, shape (M − 1,)
    tol : float
    order : int
    kept : ndarray, shape (K,)
        Nodes of x that stay nodes, both ends among them.
    coarsen : bool
        Whether segments may get longer.
    most : float
        Pieces a segment is cut into, at most.

    Returns
    -------
    ndarray, shape (M′,)
    """
    residuals = np.where(np.isfinite(residuals), residuals, np.inf)
    with np.errstate(divide="ignore", over="ignore"):
        wanted = (residuals / (_AIM * tol)) ** (1 / order)
    wanted = np.clip(wanted, _LEAST if coarsen else 1.0, most)
    h = np.diff(x)
    shortest = _SHORTEST * max(np.abs(x).max(), x[-1] - x[0])
    wanted = np.where(h > shortest, _smooth(wanted, h), np.minimum(wanted, 1.0))
    reached = np.concatenate([[0.0], np.cumsum(wanted)])
    bounds = np.searchsorted(x, kept)
    new = [x[:1]]
    for a, b in pairwise(bounds):
        total = reached[b] - reached[a]
        pieces = max(1, int(np.ceil(total - 1e-9)))
        at = reached[a] + total * np.arange(1, pieces) / pieces
        new += [np.interp(at, reached[a : b + 1], x[a : b + 1]), x[b : b + 1]]
    return np.concatenate(new)


def halved(x: NDArray) -> NDArray:
    """Each segment in two."""
    return np.sort(np.concatenate([x, (x[:-1] + x[1:]) / 2]))


def _smooth(wanted: NDArray, h: NDArray) -> NDArray:
    """Pieces such that no segment stays more than ten times longer than the pieces beside it."""
    length = h / wanted
    for turn in (slice(None), slice(None, None, -1)):
        seen = length[turn]
        for i in range(1, seen.size):
            if seen[i] > 10 * seen[i - 1]:
                seen[i] = 10 * seen[i - 1]
    return h / length
