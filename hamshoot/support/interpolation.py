"""Piecewise linear interpolation of arrays along their first axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def interpolate(x: NDArray, values: NDArray, at: NDArray) -> NDArray:
    """Values (M, …) given at increasing x (M,), at other places (K,); constant beyond the ends."""
    if len(x) == 1:
        return np.repeat(values, len(at), axis=0)
    k = np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2)
    share = np.clip((at - x[k]) / (x[k + 1] - x[k]), 0.0, 1.0)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return (1 - share) * values[k] + share * values[k + 1]
