"""What may not be meant: sentences about a problem that is well posed and perhaps another one.

They are said once, where a problem is read from a file, by ``logging.getLogger("hamshoot")`` at
WARNING, which without any setting writes to standard error.
"""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import numpy as np

from hamshoot.problem import memory_map as mapped
from hamshoot.support.checks import brief

_logger = logging.getLogger("hamshoot")

#: Whole numbers from 0 or 1 on, so many at most and each so many times on average, look like
#: classes; two numbers do so earlier.
MOST_CLASSES, LEAST_ROWS, LEAST_ROWS_OF_TWO = 10, 10, 3

Problem = TypeVar("Problem")


def hints(problem: Any) -> list[str]:
    """Sentences about a `TrainingProblem`.

    Targets that are whole numbers as of classes and are regressed, and a width below that of the
    data, for which these are projected at random. Costs one pass over the targets; mapped ones are
    left alone.
    """
    return [*_projection(problem), *_classes(problem)]


def log_hints(problem: Problem) -> Problem:
    """The problem itself, after its hints were logged."""
    for sentence in hints(problem):
        _logger.warning(sentence)
    return problem


def projected(problem: Any) -> str:
    """For the `repr` of a problem: whether its inputs are projected, as nobody asked for."""
    given = vars(problem)["_given"]
    narrow = problem.d_in > problem.width and given["lift"] is None
    return " (inputs projected at random)" if narrow else ""


def _projection(problem: Any) -> list[str]:
    """Of inputs or outputs that are more than the width, where nothing was said of the maps."""
    given, w = vars(problem)["_given"], problem.width
    found = []
    if problem.d_in > w and given["lift"] is None:
        found.append(f"The {problem.d_in} inputs are projected at random (seed {problem.seed}) to "
                     f"the width {w}, which loses information; width = {problem.d_in} keeps all.")
    if problem.d_out > w and given["readout"] is None and problem.Y is not None:
        found.append(f"The {problem.d_out} outputs are read out of {w} neurons at random (seed "
                     f"{problem.seed}), so that most targets cannot be met; width = "
                     f"{problem.d_out} meets all.")
    return found


def _classes(problem: Any) -> list[str]:
    """Of single target columns of few whole numbers that are no classes."""
    Y = problem.Y
    if Y is None or problem.classes is not None or mapped.is_mapped(Y) or Y.shape[1] != 1:
        return []
    values = np.unique(Y)
    whole = np.all(values == np.round(values)) and 2 <= len(values) <= MOST_CLASSES
    two = len(values) == 2
    if not whole or len(Y) < (LEAST_ROWS_OF_TWO if two else LEAST_ROWS) * len(values):
        return []
    consecutive = values[0] in (0, 1) and np.all(np.diff(values) == 1)
    if not (two or consecutive):
        return []
    name = brief(problem.target_names[0]) if problem.target_names else "Y"
    shown = f"{values[0]:g} and {values[1]:g}" if two else f"{values[0]:g} to {values[-1]:g}"
    return [f"The target {name} holds the whole numbers {shown} alone and is regressed as a "
            "number; if they are classes, read the CSV with classes = true."]
