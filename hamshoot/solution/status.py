"""How a solver ended, as a `Status` that is a sentence; its account on the way, as `Record`s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """How a solver ended; the value is the sentence a user reads."""

    CONVERGED = "A stationary point was found to the tolerance asked for."
    SMOOTHED = (
        "A stationary point of the smoothed network was found to the tolerance asked for; "
        "the ReLU network itself is stationary only as far as the stationarity reported."
    )
    FLAT = (
        "The gradient is small against that of the path fit (gradient_tol) and J hardly falls any "
        "more; "
        "the network is close to a stationary point, not at one. Continue from this solution, or "
        "use a smaller gradient_tol, to go further."
    )
    TRAINED = "Gradient descent ran all its epochs; it does not aim at a stationary point."
    MAX_ITER = "The iteration limit came first; raise max_iter or continue from this solution."
    TIME_LIMIT = "The time limit came first; raise time_limit or continue from this solution."
    INTERRUPTED = "Stopped on request; the best iterate is kept and can be continued from."
    WORKERS_LOST = (
        "The processes or the cluster that did the work were lost; the best iterate is kept and "
        "can be continued from."
    )
    STALLED = "No further decrease could be found; try another start or seed, or a looser tol."
    SADDLE = (
        "The point is stationary and no minimum: J falls along a direction that the certificate "
        "names, but no stationary point below was reached from there. Try another seed."
    )
    UNSETTLED = (
        "The activations on the kink did not settle; the last smooth network is kept. "
        "Try a smaller last epsilon or another seed."
    )
    COLLAPSED = (
        "The network collapsed to a trivial solution, the same output for all samples (A_1 ≈ 0, "
        "or the mean of the targets); try start='path' or "
        "start='identity', more starts, or a smaller weight_decay."
    )
    ABOVE_TRIVIAL = (
        "The point is stationary, and the network without weights has a lower objective. "
        "Search from starts instead of a guess, or use a smaller weight_decay."
    )
    INFEASIBLE = (
        "The endpoint could not be reached; check that it lies in reach of the network, "
        "or try another start."
    )
    DIVERGED = "Numbers became non-finite; use a smaller learning rate, or more layers."

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Record:
    """One iteration, as callbacks receive it and histories keep it.

    Attributes
    ----------
    iteration : int
        Counted through all stages.
    objective : float
        J of the rolled-out network (with the smoothing of the stage).
    stationarity : float
        The solver's own measure of the stage; NaN where it has none.
    seconds : float
        Since the solve began.
    stage : str
        For example "start 2/5, epsilon 0.025".
    """

    iteration: int
    objective: float
    stationarity: float
    seconds: float
    stage: str = ""


#: Receives a record per iteration; returning True asks the solver to stop and keep its best.
Callback = Callable[[Record], "bool | None"]
