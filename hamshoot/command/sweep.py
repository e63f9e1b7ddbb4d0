"""``hamshoot sweep``: what it is over, and its results as one whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hamshoot.command.config import Config
from hamshoot.command.results import SWEEP, Results
from hamshoot.command.scheduler import cluster
from hamshoot.command.signals import Stoppable, Stopped
from hamshoot.problem.saved import key as problem_key
from hamshoot.study.plot import save_figure
from hamshoot.study.sweep import sweep
from hamshoot.study.sweep_grid import UNITS
from hamshoot.study.sweep_points import Point
from hamshoot.study.swept import Sweep
from hamshoot.support.checks import brief, check_count
from hamshoot.support.journal import Journal, kept_in, key_of

#: Values of one --over at most, where a range says how many.
MOST_VALUES = 100_000
FIGURE = "sweep.png"


class Swept(NamedTuple):
    """What the command tells of a sweep."""

    success: bool
    summary: dict[str, Any]
    table: str
    advice: str


def swept(config: Config, over: Sequence[str], search: str | None, output: Path, force: bool,
          workers: int | None, scheduler: str | None, patient: bool) -> Swept:
    """Make a sweep, and its folder of results.

    Parameters
    ----------
    config : Config
    over : sequence of str
        Of ``--over``; they take the place of those of the same name in [sweep].
    search : str, optional
        Of ``--search``.
    output, force
        The folder, and whether older results in it may be replaced.
    workers : int, optional
        Points at a time, in threads.
    scheduler : str, optional
        Address of one of Dask.
    patient : bool
        Say nothing in the first seconds.

    Raises
    ------
    ValueError
        For bad input, in one sentence, before anything is solved.
    """
    given = dict(config.sweep)
    options = dict(config.solve)
    options.update({name: given.pop(name) for name in ("search", "folds", "predictor")
                    if name in given})
    if search is not None:
        options["search"] = _search(search)
    values: dict[str, Any] = {**given, **read_over(over)}
    if not values:
        raise ValueError("--over: expected what to sweep over, such as --over "
                         "effective_depth=1:7:13, got nothing")
    if workers is not None:
        check_count("--workers", workers, 1)
    job = key_of("sweep", problem_key(config.problem), config.method, config.layers, options,
                 values)
    with cluster(scheduler, workers) as served, _threads(workers) as pool, \
            Results(output, SWEEP, force, job) as results, Stoppable(patient) as progress:
        progress.say(f"{config.problem!r}")

        def tell(point: Point) -> None:
            progress.say(f"{point!r}, {point.begun}")

        with kept_in(Journal(results.journal, progress.say)):
            found = sweep(config.problem, values, config.method, layers=config.layers,
                          directory=results.new, executor=served.get("workers", pool),
                          callback=progress, on_point=tell, **options)
        if not found.points:
            if progress.stopping:
                raise KeyboardInterrupt
            raise Stopped(f"{found.reason[:-1]}; nothing was written")
        progress.saving()
        written = [*SWEEP[:3], *_figure(found, results.path(FIGURE))]
        summary = found.to_dict()
        place = results.publish(interrupted=not found.complete)
    return Swept(found.success, summary, found.table(), results.advice(place, written))


def read_over(texts: Sequence[str]) -> dict[str, list[float]]:
    """What ``--over`` says, by parameter.

    ``1,2,4`` are values, ``1:7:13`` thirteen from 1 to 7 evenly, ``1e-4:1e-2:9:log`` nine evenly in
    the logarithm.

    Raises
    ------
    ValueError
        Naming what came and what was expected.
    """
    found: dict[str, list[float]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not values.strip():
            raise ValueError("--over: expected a parameter and its values, such as "
                             f"effective_depth=1:7:13, got {brief(text)}")
        if name not in UNITS:
            raise ValueError(f"--over: expected one of {', '.join(UNITS)}, got {brief(name)}")
        if name in found:
            raise ValueError(f"--over: {name} is given twice")
        numbers = _range(text, values) if ":" in values else [
            _number(text, one) for one in values.split(",")]
        if name == "width":
            if any(number != round(number) for number in numbers):
                raise ValueError(f"--over: expected whole numbers as widths, got {brief(text)}")
            numbers = [int(number) for number in numbers]
        found[name] = numbers
    return found


def _range(text: str, values: str) -> list[float]:
    parts = values.split(":")
    if len(parts) not in (3, 4) or (len(parts) == 4 and parts[3].strip() not in ("log", "lin")):
        raise ValueError("--over: expected first:last:how many, and perhaps :log, got "
                         f"{brief(text)}")
    first, last = _number(text, parts[0]), _number(text, parts[1])
    count = _number(text, parts[2])
    if count != round(count) or not 1 <= count <= MOST_VALUES:
        raise ValueError(f"--over: expected 1 to {MOST_VALUES} values, got {brief(text)}")
    spaced = np.geomspace if parts[-1].strip() == "log" else np.linspace
    return [float(value) for value in spaced(first, last, int(count))]


def _number(text: str, part: str) -> float:
    try:
        number = float(part)
    except ValueError:
        number = np.nan
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"--over: expected numbers > 0, got {brief(part.strip())} in "
                         f"{brief(text)}")
    return number


def _search(text: str) -> int | str:
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--search: expected a number of points or all, got {brief(text)}"
                         ) from None


@contextmanager
def _threads(workers: int | None) -> Iterator[ThreadPoolExecutor | None]:
    """Threads that solve points, where more than one at a time is asked for."""
    if workers is None or workers == 1:
        yield None
        return
    with ThreadPoolExecutor(workers) as pool:
        yield pool


def _figure(found: Sweep, path: Path) -> list[str]:
    """The figure, where there are one or two parameters; its name."""
    if len(found.over) > 2:
        return []
    save_figure(found.plot(), path)
    return [path.name]
