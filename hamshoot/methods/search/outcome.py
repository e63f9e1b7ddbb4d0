"""What is said of an answer beside the trivial network: nothing above it is a success."""

from __future__ import annotations

from collections.abc import Sequence

from hamshoot.methods.search.ladder import ROUNDING
from hamshoot.solution.solution import Solution, Status

#: What ended a search before it was over; a collapsed network keeps its own status beside it.
STOPPED = {Status.TIME_LIMIT: "the time limit came before the search was over",
           Status.MAX_ITER: "the iteration limit came before the search was over",
           Status.INTERRUPTED: "it was stopped before the search was over"}


def judged(solution: Solution, trivial: float, notes: Sequence[str], checked: str = "",
           ended: Status | None = None) -> Solution:
    """A solution with its message, and no success where the trivial network is lower.

    Parameters
    ----------
    solution : Solution
    trivial : float
        J of the network without weights.
    notes : sequence of str
        For the message.
    checked : str
        Of a collapsed network: how it was looked for lower ones.
    ended : Status, optional
        How the search ended; said of a collapsed network, whose status does not tell.
    """
    status, notes = solution.status, list(notes)
    above = solution.objective > trivial * (1 + ROUNDING)
    if above and solution.success:
        status = Status.ABOVE_TRIVIAL
        notes.append(f"its J is {trivial:.10g}")
    if status is Status.COLLAPSED and ended in STOPPED:
        notes.append(STOPPED[ended])
    if status is Status.COLLAPSED and checked:
        notes.append(checked)
        second = solution.extra.get("second_order")
        if second:
            notes.append(f"second order: {second}")
    return solution.replace(
        status=status, success=solution.success and not above,
        message=f"{status} ({'; '.join(notes)})")
