"""Sizes of the data that double precision can compute with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem import memory_map as mapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Largest number of the data, scaled: J and its second derivatives multiply four of them.
LARGEST = 1e60


@np.errstate(all="ignore")
def check_magnitude(problem: Any) -> None:
    """Raise ValueError for data that are too large to compute with, once they are scaled.

    Memory-mapped data are not looked through.
    """
    sides = (("X", problem.input_scaling), ("Y", problem.target_scaling),
             ("X_test", problem.input_scaling), ("Y_test", problem.target_scaling))
    for name, scaling in sides:
        values = getattr(problem, name)
        if values is None or mapped.is_mapped(values):
            continue
        if not (np.all(np.isfinite(scaling.mean)) and np.all(np.isfinite(scaling.scale))):
            raise ValueError(f"{name}: numbers as large as {_size(values):.3g} cannot be "
                             "standardised in double precision; divide them by their unit")
        if not _size(scaling.apply(values)) <= LARGEST:
            raise ValueError(
                f"{name}: expected numbers up to {LARGEST:g} in size, got "
                f"{_size(scaling.apply(values)):.3g}; divide them by their unit, or standardise")
    for name in ("lift", "readout", "endpoint"):
        matrix = getattr(problem, name)
        if matrix is not None and not _size(matrix) <= LARGEST:
            raise ValueError(f"{name}: expected numbers up to {LARGEST:g} in size, "
                             f"got {_size(matrix):.3g}")


def _size(values: NDArray) -> float:
    return float(np.max(np.abs(values), initial=0.0))
