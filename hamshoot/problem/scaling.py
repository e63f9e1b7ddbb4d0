"""Scaling of columns: to mean 0 and deviation 1, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem import memory_map as mapped
from hamshoot.support.checks import brief

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Scaling:
    """Affine scaling of columns, v ↦ (v − mean)/scale, kept so that it can be undone.

    Attributes
    ----------
    mean, scale : ndarray, shape (d,)
        In the user's units.
    """

    mean: NDArray
    scale: NDArray

    @classmethod
    def identity(cls, d: int) -> Scaling:
        """Leave columns as they are."""
        return cls(np.zeros(d), np.ones(d))

    @classmethod
    def fit(cls, values: NDArray, kind: str, argument: str, names: Sequence[str],
            weights: NDArray | None = None) -> Scaling:
        """Scaling that demeans each column and divides by its deviation, or by a common one.

        Parameters
        ----------
        values : ndarray, shape (N, d)
        kind : {"columns", "varying", "common"}
            "common" keeps the relative size of the columns (the paper's normalisation); "varying"
            scales each column as "columns" does, and of a constant one takes off the mean alone.
        argument, names
            For messages: the argument's name, and those of its columns.
        weights : ndarray, shape (N,), optional
            Of the rows: means and deviations are those of rows given so many times, and what has
            the weight 0 has no part in them.

        Raises
        ------
        ValueError
            If a column is constant (a deviation of 0 cannot be divided by) and `kind` is "columns",
            or all columns are and it is "common".
        """
        if len(values) < 2:
            raise ValueError(
                f"{argument}: standardising needs at least 2 rows (samples), got {len(values)}"
            )
        mean, spread, size, common = mapped.moments(values, weights)
        spread = spread.copy()
        if not np.isfinite([*spread, common]).all():
            raise ValueError(f"{argument}: expected numbers whose squares are numbers too, got "
                             f"{size.max():.3g}; give them in other units")
        constant = np.flatnonzero(spread <= 1e-13 * size)
        if kind == "common":
            if constant.size == values.shape[1]:
                raise ValueError(f"{argument}: every column is constant, expected varying data")
            return cls(mean, np.full(values.shape[1], common))
        if constant.size and kind == "varying":
            spread[constant] = 1.0
        elif constant.size:
            k = int(constant[0])
            raise ValueError(
                f"{argument}: column {brief(names[k])} is constant ({values[0, k]:g} in all "
                f"{len(values)} rows, to rounding) and cannot be standardised; "
                "drop it or do not standardise"
            )
        return cls(mean, spread)

    def apply(self, values: NDArray) -> NDArray:
        """Scale rows (…, d) from the user's units."""
        return (values - self.mean) / self.scale

    def invert(self, values: NDArray) -> NDArray:
        """Rows (…, d) back in the user's units."""
        return values * self.scale + self.mean

    def squares(self, values: Any) -> float:
        """Sum of the squares of the scaled numbers of all rows, read in chunks."""
        return sum(float(np.sum(self.apply(rows) ** 2)) for _, rows in mapped.chunks(values))
