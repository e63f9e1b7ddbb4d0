"""Fields of `summary.json` beyond those of `Solution.summary`: the search, and remarks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hamshoot.solution.remarks import remarks

if TYPE_CHECKING:
    from hamshoot.solution.solution import Solution


def summary(solution: Solution) -> dict[str, Any]:
    """`Solution.summary` with `search` beside it, see `search_summary`, and `remarks`.

    These are sentences, see `hamshoot.solution.remarks`.
    """
    return {**solution.summary(), "search": search_summary(solution),
            "remarks": remarks(solution)}


def search_summary(solution: Solution) -> dict[str, Any] | None:
    """Starts and reheats of a solver's search: counts, and the J that each ended with.

    Returns
    -------
    dict or None
        "starts", "reheats" and "rounds" (of reheats), "start_objectives", "reheat_objectives" and
        "reheat_rounds" (J of the best after each round); None for a trained network, and for a
        solution from a guess.
    """
    extra = solution.extra
    if "start_objectives" not in extra or "grid" in extra or not extra["start_objectives"]:
        return None
    ends = {name: [_number(value) for value in extra.get(name, [])]
            for name in ("start_objectives", "reheat_objectives", "reheat_rounds")}
    return {"starts": len(ends["start_objectives"]), "reheats": len(ends["reheat_objectives"]),
            "rounds": len(ends["reheat_rounds"]), **ends}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
