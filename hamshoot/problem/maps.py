"""The linear maps in and out of a problem, fixed or learned: A_0 = P Xᵀ, outputs z = Q A_1.

With a weight decay of its own a map is unknown beside the controls, and J has a term more,

    J = C(Q A_1) + λ/(2L̃) ∫‖W‖² + (μ_P/2) ‖P‖_F² + (μ_Q/2) ‖Q‖_F²;

see "Learned lift and readout" in `hamshoot.theory.hamiltonian`. The maps of the problem are where a
search begins; those of the problem of a solution are the ones that were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hamshoot.problem import memory_map as mapped
from hamshoot.support.checks import brief, finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.readers import Scaling

#: Names of the weight decays, and of the maps that they belong to.
DECAYS = {"lift_decay": "lift", "readout_decay": "readout"}
#: Computed from the maps, or from all that a problem is.
_DERIVED = ("initial_state", "_key")

Self = TypeVar("Self", bound="Maps")


class Maps:
    """What a `TrainingProblem` says of its maps."""

    lift: NDArray | Any
    readout: NDArray | Any
    lift_decay: float | None
    readout_decay: float | None
    if TYPE_CHECKING:
        X: NDArray
        input_scaling: Scaling

    @cached_property
    def initial_state(self) -> NDArray:
        """A_0 = P Xᵀ of the scaled inputs, (w, N)."""
        return _frozen(self.lift @ self.input_scaling.apply(np.asarray(self.X)).T)

    @cached_property
    def scaled_inputs(self) -> NDArray:
        """Xᵀ of the scaled inputs, (d_in, N); computed on first access."""
        return _frozen(self.input_scaling.apply(np.asarray(self.X)).T)

    @property
    def d_in(self) -> int:
        """Columns of X."""
        return self.X.shape[1]

    @property
    def d_out(self) -> int:
        """Rows of the readout Q."""
        return self.readout.shape[0]

    @property
    def learns(self) -> bool:
        """Whether a map is learned."""
        return self.lift_decay is not None or self.readout_decay is not None

    @property
    def map_decay(self) -> float:
        """(μ_P/2)‖P‖² + (μ_Q/2)‖Q‖² of the maps that are learned, their part of J."""
        return self.decay_of(self.lift, self.readout)

    def decay_of(self, lift: NDArray, readout: NDArray) -> float:
        """The same of other maps P (w, d_in) and Q (d_out, w)."""
        pairs = ((self.lift_decay, lift), (self.readout_decay, readout))
        return float(sum(0.5 * mu * np.sum(M * M) for mu, M in pairs if mu is not None))

    def with_maps(self: Self, lift: NDArray, readout: NDArray) -> Self:
        """Return the problem with other maps, and all else, scalings too, as it is."""
        return self._changed(lift=_frozen(lift), readout=_frozen(readout))

    def with_fixed_maps(self: Self) -> Self:
        """Return the problem with its maps held as they are: its J lacks `map_decay`."""
        return self._changed(**dict.fromkeys(DECAYS)) if self.learns else self

    def _changed(self: Self, **changes: Any) -> Self:
        values = {k: v for k, v in vars(self).items() if k not in _DERIVED} | changes
        values["_given"] = {**values["_given"], **changes}
        copy = object.__new__(type(self))
        for name, value in values.items():
            object.__setattr__(copy, name, value)
        return copy


def checked_decays(given: Mapping[str, Any]) -> dict[str, Any]:
    """The weight decays of learned maps as floats, None of fixed ones.

    Raises
    ------
    ValueError
        For what is no number > 0 (without weight decay no map is the least one), and for problems
        whose maps are not learned: of a hard endpoint, or with data in files.
    """
    values: dict[str, Any] = {}
    for name, learned in DECAYS.items():
        value = given[name]
        values[name] = None
        if value is None:
            continue
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not number or not finite(value) or not value > 0:
            raise ValueError(f"{name}: expected a number > 0, the weight decay with which the "
                             f"{learned} is learned, or none for a fixed one, got {brief(value)}")
        if given["endpoint"] is not None:
            raise ValueError(f"{name}: a {learned} is learned for a loss, and a hard endpoint "
                             "has none; leave it out")
        if any(map(mapped.is_mapped, (given["X"], given["Y"]))):
            raise ValueError(f"{name}: a {learned} is learned by exact methods, from data in "
                             "memory; got memory-mapped ones")
        values[name] = float(value)
    return values


def told(problem: Any) -> str:
    """For the `repr` of a problem: which maps are learned."""
    names = [f"{learned} (μ={getattr(problem, name):g})" for name, learned in DECAYS.items()
             if getattr(problem, name) is not None]
    return f", learned {' and '.join(names)}" if names else ""


def check_fixed(problem: Any, who: str, instead: str = "") -> None:
    """Raise ValueError, in the name of `who`, where a map is learned."""
    if problem.learns:
        names = " and ".join(learned for name, learned in DECAYS.items()
                             if getattr(problem, name) is not None)
        raise ValueError(f"problem: {who} for a fixed lift and readout, got a learned {names}"
                         + (f"; {instead}" if instead else ""))


def _frozen(array: NDArray) -> NDArray:
    array = np.array(array, dtype=float, order="C")
    array.setflags(write=False)
    return array
