"""What the two optimisers of a large network share: how they are run, and when they end.

`hamshoot.methods.single_shooting.kronecker` and `hamshoot.methods.single_shooting.trust_region` are
iterations on one problem, mesh and activation; here is the loop around them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.methods.common.kept import Midway, Step

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Rounding of J, by dtype.
ROUNDING = {"f": 1e-7, "d": 1e-14}
#: Iterations over which the stopping rule looks back.
WINDOW = 40
#: What is measured of an iterate, and where a run began.
MEASURES = ("objective", "gradient_norm", "stationarity", "first_gradient")


class Ended(Enum):
    """Why an optimiser ended."""

    TOLERANCE = "the stationarity is within the tolerance"
    FLAT = "J hardly falls any more and the gradient is small"
    LIMIT = "the iteration limit came first"
    STUCK = "no step lowers J as far as rounding lets see"
    OVERFLOW = "numbers became non-finite"


class Optimizer(ABC):
    """An iteration that minimises J over the controls, on one problem, mesh and activation.

    Parameters
    ----------
    sweeps : BlockSweeps

    Attributes
    ----------
    objective, gradient_norm, stationarity : float
        At the last iterate accepted.
    first_gradient : float
        ‖∂J/∂W‖ where `minimise` began.
    ended : Ended
        Why it ended.
    """

    def __init__(self, sweeps: BlockSweeps):
        self.sweeps = sweeps
        self.ended = Ended.LIMIT
        self.objective = self.gradient_norm = self.stationarity = float("inf")
        self.first_gradient = float("nan")

    @property
    @abstractmethod
    def latest(self) -> NDArray:
        """Controls of the last iterate accepted, (L, w, w+1), in double precision."""

    @abstractmethod
    def _begin(self, weights: NDArray) -> None:
        """Accept `weights` as the first iterate."""

    @abstractmethod
    def _state(self) -> Step:
        """Arrays and numbers from which `_resume` goes on."""

    @abstractmethod
    def _resume(self, weights: NDArray, arrays: dict[str, NDArray], numbers: dict[str, Any]
                ) -> None:
        """Stand where a state says, of a run that began at `weights`."""

    @abstractmethod
    def _advance(self, iteration: int) -> bool | Ended:
        """One iteration: whether a step was accepted, or why there will be none."""

    def minimise(
        self,
        weights: NDArray,
        limit: int,
        *,
        tol: float = 0.0,
        decrease: float = 0.0,
        gradient: float = np.inf,
        callback: Callable[[float, float], None] | None = None,
        midway: Midway | None = None,
    ) -> NDArray:
        """Iterate from `weights`; returns the last iterate.

        Parameters
        ----------
        limit : int
            Most iterations.
        tol : float
            For the stationarity.
        decrease : float
            Ends when J fell by less than this share an iteration, over WINDOW of them (0: never),
        gradient : float
            and ‖∂J/∂W‖ is at most this. In single precision it also ends where J falls no more.
        callback : callable, optional
            Receives objective and stationarity of every iterate; may raise.
        midway : Midway, optional
            Where to keep the state.
        """
        self.ended, first = Ended.LIMIT, 0
        midway = Midway() if midway is None else midway
        begun = midway.resumed()
        if begun is None:
            self._begin(weights)
            self.first_gradient = self.gradient_norm
            values = [self.objective]
        else:
            arrays, numbers = begun
            self._resume(weights, arrays, numbers)
            for name in MEASURES:
                setattr(self, name, numbers[name])
            first, values = numbers["iteration"], arrays["values"].tolist()
        try:
            self.ended = self._iterate(first, limit, tol, decrease, gradient, callback, values,
                                       midway)
        except FloatingPointError:
            self.ended = Ended.OVERFLOW
        return self.latest

    def _iterate(
        self, first: int, limit: int, tol: float, decrease: float, gradient: float,
        callback: Callable[[float, float], None] | None, values: list[float], midway: Midway,
    ) -> Ended:
        if not np.isfinite(self.objective + self.gradient_norm):
            return Ended.OVERFLOW
        single = self.sweeps.dtype.char == "f"

        def here() -> Step:
            arrays, numbers = self._state()
            measures = {name: float(getattr(self, name)) for name in MEASURES}
            return {**arrays, "values": np.array(values[-WINDOW - 1:])}, {
                **numbers, **measures, "iteration": iteration}

        for iteration in range(first, limit):
            midway.offer(here)
            if self.stationarity <= tol:
                return Ended.TOLERANCE
            moved = self._advance(iteration)
            if isinstance(moved, Ended):
                return moved
            if not moved:
                continue
            values.append(self.objective)
            if callback is not None:
                callback(self.objective, self.stationarity)
            small = decrease > 0 and self.gradient_norm <= gradient
            if small and _fell_little(values, decrease):
                return Ended.FLAT
            if single and _fell_little(values, 0.0):
                return Ended.STUCK  # double precision sees further
        return Ended.TOLERANCE if self.stationarity <= tol else Ended.LIMIT


def _fell_little(values: list[float], decrease: float) -> bool:
    """Whether J fell by less than a share an iteration, over the last WINDOW of them."""
    if len(values) <= WINDOW:
        return False
    return values[-WINDOW - 1] - values[-1] < WINDOW * decrease * abs(values[-1])
