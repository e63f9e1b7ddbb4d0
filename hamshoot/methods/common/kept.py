"""Steps of a solve that an earlier run has done already, see `hamshoot.support.journal`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.watch import Watch
from hamshoot.problem.saved import key as problem_key
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Record
from hamshoot.support import journal

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Seconds from which a step is worth keeping: what is quicker is done again.
LEAST_SECONDS = 0.05
#: The iterations of a step among its arrays.
NUMBERS, STAGES = "records.numbers", "records.stages"

Step = tuple[dict[str, "NDArray"], dict[str, Any]]


def kept(watch: Watch, problem: TrainingProblem, name: str, inputs: tuple,
         compute: Callable[[], Step]) -> Step:
    """Arrays and numbers of a step: of an earlier run where it was done there, else computed.

    Either way the watch has its iterations, in history, count and seconds; only callbacks hear
    nothing of those of an earlier run. A step that is stopped is not kept.

    Parameters
    ----------
    watch : Watch
    problem : TrainingProblem
    name : str
        What kind of step it is.
    inputs : tuple
        All that its result depends on, beside the problem.
    compute : callable
        Makes the step: arrays by name, and numbers that JSON knows.
    """
    kept_by = journal.current()
    if kept_by is None:
        return compute()
    key = journal.key_of(name, problem_key(problem), *inputs)
    found = kept_by.recall(key)
    if found is not None:
        arrays, numbers = found
        _replay(watch, arrays.pop(NUMBERS), numbers.pop(STAGES), numbers.pop("seconds"))
        return arrays, numbers
    first, began = watch.iterations, watch.seconds
    arrays, numbers = compute()
    seconds = watch.seconds - began
    if seconds >= LEAST_SECONDS:
        records, stages = _tabled(watch.history[first:], began)
        kept_by.keep(key, {**arrays, NUMBERS: records},
                     {**numbers, STAGES: stages, "seconds": seconds})
    return arrays, numbers


def _tabled(history: list[Record], began: float) -> tuple[NDArray, list[str]]:
    """Objective, stationarity, seconds since the step began and number of the stage of records."""
    stages = list(dict.fromkeys(record.stage for record in history))
    places = {stage: k for k, stage in enumerate(stages)}
    rows = [(r.objective, r.stationarity, r.seconds - began, places[r.stage]) for r in history]
    return np.array(rows, dtype=float).reshape(-1, 4), stages


def _replay(watch: Watch, records: NDArray, stages: list[str], seconds: float) -> None:
    """Add the iterations of an earlier run to the history, and its time to the clock."""
    began = watch.seconds
    for objective, stationarity, after, stage in records.tolist():
        watch.history.append(Record(len(watch.history) + 1, objective, stationarity,
                                    began + after, stages[int(stage)]))
    watch.earlier += seconds
