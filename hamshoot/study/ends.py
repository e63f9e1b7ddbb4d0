"""How rows of a comparison ended: beside each other, and whether well."""

from __future__ import annotations

import numpy as np

from hamshoot.solution.solution import Solution, Status

#: Objectives closer than this, relatively, are called equal.
EQUAL = 1e-6


def gap(a: Solution, b: Solution) -> float:
    """By how much J of `a` lies above that of `b`, as a share of it; infinite above 0, or NaN."""
    if a.objective == b.objective:
        return 0.0
    if b.objective == 0:
        return float(np.copysign(np.inf, a.objective))
    return (a.objective - b.objective) / abs(b.objective)


def ended_well(solution: Solution, begun: Solution | None = None) -> bool:
    """Whether a row succeeded, or went on from a network and could go no lower.

    Parameters
    ----------
    solution : Solution
    begun : Solution, optional
        Where a second chance began. That no step from there lowers J any more is an answer, not a
        failure.
    """
    if solution.success or begun is None:
        return bool(solution.success)
    return solution.status is Status.STALLED and abs(gap(solution, begun)) <= EQUAL
