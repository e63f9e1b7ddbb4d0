"""Rows of a comparison that an earlier run has made already, see `hamshoot.support.journal`."""

from __future__ import annotations

from collections.abc import Callable

from hamshoot.problem.saved import key as problem_key
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution
from hamshoot.solution.status import Status
from hamshoot.support import journal

#: Statuses of rows that were cut short: they are made again.
CUT_SHORT = (Status.INTERRUPTED, Status.TIME_LIMIT, Status.WORKERS_LOST)


def kept_row(problem: TrainingProblem, name: str, inputs: tuple,
             compute: Callable[[], tuple[Solution, float]]) -> tuple[Solution, float]:
    """Solution and CPU seconds of a row: of an earlier run where it was finished there.

    Parameters
    ----------
    problem : TrainingProblem
    name : str
        Of the row.
    inputs : tuple
        All that it depends on, beside the problem.
    compute : callable
        Makes it.
    """
    kept_by = journal.current()
    if kept_by is None:
        return compute()
    key = journal.key_of("row", name, problem_key(problem), *inputs)
    path = kept_by.directory / f"{key}.solution.npz"
    found = kept_by.recall(key) if path.is_file() else None
    if found is not None:
        return Solution.load(path).replace(problem=problem), float(found[1]["cpu_seconds"])
    solution, seconds = compute()
    if solution.status not in CUT_SHORT:
        kept_by.keep(key, {}, {"cpu_seconds": seconds}, beside=solution.save)
    return solution, seconds

