"""`validate`: λ, L̃ and width chosen on held-out rows, by warm-started continuation.

Every width begins with the solver's own search, at the problem's own λ and L̃ or what is tried
nearest to them. From there L̃ is followed up and down, and from each L̃ so is λ: a try begins with
the network of its neighbour, W rescaled so that W/L̃ stays, and needs no search, unless it collapses
where its neighbour did not. A try of a ReLU network ends at the last ε of the ladder, to a
stationarity of 1e-3, without the polish and the second-order test, to which errors of prediction
are blind; `Validation.solve` makes up for it where it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.network.leaky_resnet import LeakyResNet
from hamshoot.problem.arguments import count, positive
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.mistakes import check_problem
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.study.crew import Crew, StudyStopped, WorkersLost, crew
from hamshoot.study.forecast import TriesForecast, search_forecast
from hamshoot.study.held_out import HeldOut, held_out_rows
from hamshoot.study.kept_solves import keep, recall
from hamshoot.study.progress import begin, named, shown
from hamshoot.study.solve import check_method, default_layers, solve
from hamshoot.study.tables import tries_table
from hamshoot.study.tries import Place, Step, Tried, changed, method_options, tried, try_key
from hamshoot.study.tries import rescaled as rescaled
from hamshoot.support.journal import Journal, kept_in

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from hamshoot.support.names import MethodName, StudyOptions

#: What is tried by default: these times λ, these times L̃, and these times the width.
DECAYS = (0.1, 10**-0.5, 1.0, 10**0.5, 10.0)
DEPTHS = (0.5, 1.0, 2.0)
WIDTHS = (0.5, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class Try:
    """One network that was tried.

    Attributes
    ----------
    weight_decay, effective_depth, width
    error : float
        Mean squared error on the held-out rows, in the scaled units of the whole problem; by the
        weights of the rows, where they have some.
    error_deviation : float
        Standard error of that mean over the rows; NaN for a single row.
    accuracy : float or None
        On the held-out rows, of a classifier.
    objective : float
        J on the rows that were trained on.
    status : Status
    begun : str
        "search", "from …" with the λ or L̃ of the neighbour it went on from, or "search (from … it
        collapses)".
    seconds : float
    network : LeakyResNet
    """

    weight_decay: float
    effective_depth: float
    width: int
    error: float
    error_deviation: float
    accuracy: float | None
    objective: float
    status: Status
    begun: str
    seconds: float
    network: LeakyResNet

    @property
    def numbers(self) -> dict[str, Any]:
        """JSON-ready: all but the network; what is not finite is None."""
        values = {name: value for name, value in vars(self).items() if name != "network"}
        values["status"] = self.status.name.lower()
        return {name: None if isinstance(value, float) and not np.isfinite(value) else value
                for name, value in values.items()}

    def __repr__(self) -> str:
        return (f"λ = {self.weight_decay:.3g}, L̃ = {self.effective_depth:.3g}, "
                f"width {self.width}")


@dataclass(frozen=True, eq=False, repr=False)
class Validation:
    """What was tried, and what was chosen of it; prints as a table.

    Attributes
    ----------
    problem : TrainingProblem
        As it was given.
    tries : tuple of Try
        In the order they were made.
    held_out : HeldOut
    trivial_error : float
        Held-out error of the mean of the training targets.
    complete : bool
        False when it was stopped before the last try.
    settings : dict
        Method, layers and options, as `solve` takes them.
    """

    problem: TrainingProblem
    tries: tuple[Try, ...]
    held_out: HeldOut
    trivial_error: float
    complete: bool
    settings: dict[str, Any]

    @property
    def best(self) -> Try:
        """The try of least held-out error; of equals the first."""
        return min(self.tries, key=lambda one: one.error if np.isfinite(one.error) else np.inf)

    @property
    def best_problem(self) -> TrainingProblem:
        """The problem as it was given, all its training rows, with λ, L̃ and width chosen."""
        return changed(self.problem, self.best.weight_decay, self.best.effective_depth,
                       self.best.width)

    def solve(self, callback: Callback | None = None, verbose: bool = False) -> Solution:
        """The chosen problem, solved on all training rows, with polish and second-order test.

        Twice: going on from the network that was chosen, and from a search; the lower J is
        returned, and its message says which it is.

        Parameters
        ----------
        callback, verbose
            As in `hamshoot.solve`.
        """
        problem, found = self.best_problem, []
        method = check_method(problem, self.settings["method"], self.settings["layers"],
                              method_options(self.settings))
        with shown(callback, verbose) as call:
            for way, guess in (("going on from its network", self.best.network),
                               ("a search", None)):
                title = f"the choice, {way}"
                begin(call, title, search_forecast(problem, method, guess),
                      self.settings.get("time_limit"))
                solution = solve(problem, callback=named(title, call), initial_guess=guess,
                                 **self.settings)
                found.append((solution, way))
                if solution.status is Status.INTERRUPTED:
                    break
        best, way = min(found, key=lambda pair: (not pair[0].success, pair[0].objective))
        others = "".join(f"; {other} ended {solution.status.name.lower()} at J = "
                         f"{solution.objective:.8g}" for solution, other in found
                         if solution is not best)
        return best.replace(message=f"{best.message} ({self.best!r}, chosen on held-out rows, "
                                    f"and solved by {way}{others}.)")

    def finding(self) -> str:
        """What was chosen, how sure that is, and what it does not say, in sentences."""
        best, errors = self.best, np.array([one.error for one in self.tries])
        sentences = [f"Of {len(self.tries)} tried, the least error on {self.held_out} is "
                     f"{best.error:.5g}, at {best!r}; the mean of the targets has "
                     f"{self.trivial_error:.5g}."]
        if not self.complete:
            sentences.append("It was stopped before all were tried.")
        if not best.error < self.trivial_error:
            sentences.append("None of them predicts better than that mean.")
        if np.isfinite(best.error_deviation):
            close = int(np.sum(errors <= best.error + best.error_deviation)) - 1
            sentences.append(f"The standard error of {best.error:.5g} is "
                             f"{best.error_deviation:.2g}, within which {close} "
                             f"other{'' if close == 1 else 's'} lie{'s' if close == 1 else ''}.")
        sentences += [self._edges(), self.held_out.caution]
        return " ".join(sentence for sentence in sentences if sentence)

    def _edges(self) -> str:
        """Which of the values chosen are the first or last of those tried."""
        words = []
        for name, label in (("weight_decay", "λ"), ("effective_depth", "L̃"), ("width", "width")):
            values = [getattr(one, name) for one in self.tries]
            edge = {min(values): "smallest", max(values): "largest"}.get(getattr(self.best, name))
            if edge is not None and len(set(values)) > 1:
                words.append(f"the {edge} {label}")
        return f"At the edge of what was tried: {', '.join(words)}." if words else ""

    def table(self) -> str:
        """All tries as text, one a line, the chosen one marked."""
        return tries_table([{**one.numbers, "chosen": one is self.best} for one in self.tries])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the field `validation` of `summary.json`."""
        return {"finding": self.finding(), "complete": self.complete,
                "held_out": self.held_out.to_dict(), "trivial_error": self.trivial_error,
                "chosen": self.best.numbers, "tries": [one.numbers for one in self.tries]}

    def __repr__(self) -> str:
        return f"Validation on {self.problem!r}\n{self.table()}\n{self.finding()}"


def validate(
    problem: TrainingProblem,
    method: MethodName = "auto",
    *,
    weight_decays: Sequence[float] | None = None,
    effective_depths: Sequence[float] | None = None,
    widths: Sequence[int] | None = None,
    held_out: float | str = 0.2,
    layers: int | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    on_try: Callable[[Try], None] | None = None,
    verbose: bool = False,
    executor: Any = None,
    scheduler: str | None = None,
    journal: str | PathLike | None = None,
    **options: Unpack[StudyOptions],
) -> Validation:
    """Try values of λ, L̃ and width, all with all, and choose those of least held-out error.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss. Its own λ, L̃ and width are where it begins.
    method : str
        As in `solve`.
    weight_decays, effective_depths : sequence of float, optional
        λ and L̃; by default five values from a tenth to ten times the problem's λ, and half, once
        and twice its L̃, as far as the layers allow it (L > L̃).
    widths : sequence of int, optional
        By default the problem's, twice that, and half of it unless the data are wider; a problem
        with matrices as lift or readout keeps its own.
    held_out : float or "test"
        The share of the training rows that is held out, drawn by `seed`; test rows of the problem
        stay untouched then, and the test error of what is chosen means what it says. "test" takes
        the problem's own test rows, whose error is then that of a choice made on them.
    layers : int, optional
        L of every network; default 20, or enough for L > L̃. ("indirect" has none.)
    seed : int
        Of the rows held out, and of the searches.
    callback : callable, optional
        Receives the records of every try, with the try in `stage`; returning True stops.
    on_try : callable, optional
        Receives each finished `Try`.
    verbose : bool
        Show the progress on standard error, with an estimate of what is left.
    executor : distributed.Client or concurrent.futures.Executor, optional
        Makes the tries, those at the same time that do not go on from each other. The result does
        not depend on it.
    scheduler : str, optional
        Address of a scheduler of Dask (extra ``dask``), in place of an executor.
    journal : path, optional
        Directory that keeps the tries that are made, as of `hamshoot.solve`.
    **options
        Of the method; `time_limit` is for each try.

    Returns
    -------
    Validation
        Stopped midway, with the tries that were finished. `Validation.solve` solves what was
        chosen, on all rows.

    Raises
    ------
    ValueError
        For a problem with a hard endpoint, without test rows where these are asked for, or of too
        few rows; for values that are no λ, L̃ or width; and as `solve`.

    Notes
    -----
    Costs a search for each width, and for every other try a solve from its neighbour, which takes
    a small part of that unless λ is small: `hamshoot solve --validate` prints the seconds of each.
    """
    check_problem("validate", problem)
    if problem.hard_endpoint:
        raise ValueError("problem: held-out rows need a loss, got a hard endpoint")
    part, rows = held_out_rows(problem, held_out, seed)
    if layers is None and method != "indirect":
        layers = default_layers(problem)
    settings = {"method": method, "layers": layers, "seed": seed, **options}
    grid = _Grid.of(problem, layers, weight_decays, effective_depths, widths)
    grid.check(part, settings)
    kept = None if journal is None else Journal(Path(journal))
    with kept_in(kept), crew(executor, scheduler) as makers, shown(callback, verbose) as call:
        return _Validating(problem, part, rows, settings, grid).run(makers, call, on_try)


# -- what is tried ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grid:
    """Values to try, ascending, and where to begin."""

    decays: tuple[float, ...]
    depths: tuple[float, ...]
    widths: tuple[int, ...]
    own: tuple[float, float, int]

    @classmethod
    def of(cls, problem: TrainingProblem, layers: int | None, decays: Sequence[float] | None,
           depths: Sequence[float] | None, widths: Sequence[int] | None) -> _Grid:
        """Values given, checked, or the default ones."""
        own = problem.weight_decay, problem.effective_depth, problem.width
        if decays is None:
            decays = [factor * own[0] for factor in DECAYS]
        if depths is None:
            depths = [factor * own[1] for factor in DEPTHS
                      if layers is None or factor * own[1] < layers] or [own[1]]
        return cls(
            tuple(_values("weight_decays", decays, positive)),
            tuple(_values("effective_depths", depths, positive)),
            tuple(_default_widths(problem) if widths is None else
                  _values("widths", widths, lambda name, value: count(name, value, 1))), own)

    def check(self, part: TrainingProblem, settings: dict[str, Any]) -> None:
        """Raise ValueError, before any work is done, where a try cannot be made."""
        for width in self.widths:
            changed(part, self.decays[0], self.depths[0], width)
        for depth in self.depths:
            check_method(changed(part, self.decays[0], depth, self.widths[0]),
                         settings["method"], settings["layers"], method_options(settings))

    def __iter__(self) -> Iterator[Step]:
        """Each width from a search, then outwards in L̃, and from each L̃ outwards in λ."""
        decay, depth, width = self.own
        for w, _ in _chain(self.widths, width):
            for d, d_before in _chain(self.depths, depth):
                for v, v_before in _chain(self.decays, decay):
                    before = None
                    if v_before is not None:
                        before = v_before, d, w
                    elif d_before is not None:
                        before = v, d_before, w
                    yield Step((v, d, w), before)

    def __len__(self) -> int:
        return len(self.decays) * len(self.depths) * len(self.widths)


def _chain(values: Sequence[Any], own: Any) -> list[tuple[Any, Any]]:
    """Values from the one nearest to `own` upwards, then downwards, each with its neighbour."""
    k = min(range(len(values)), key=lambda i: abs(np.log(values[i] / own)))
    up = [(values[i], values[i - 1] if i > k else None) for i in range(k, len(values))]
    return up + [(values[i], values[i + 1]) for i in range(k - 1, -1, -1)]


def _values(name: str, values: Any, check: Callable[[str, Any], Any]) -> list[Any]:
    """The values, checked one by one, ascending, each once."""
    if isinstance(values, (str, bytes)) or not np.iterable(values):
        raise ValueError(f"{name}: expected a list of numbers, got {values!r}")
    found = sorted({check(name, value) for value in values})
    if not found:
        raise ValueError(f"{name}: expected at least one value, got none")
    return found


def _default_widths(problem: TrainingProblem) -> list[int]:
    least = max(problem.d_in, problem.d_out)
    widths = sorted({max(1, round(factor * problem.width)) for factor in WIDTHS})
    found = []
    for width in widths:
        if width < min(least, problem.width):
            continue
        try:
            problem.replace(width=width)
        except ValueError:  # lift or readout are matrices
            continue
        found.append(width)
    return found


# -- trying ----------------------------------------------------------------------------------------


@dataclass
class _Validating:
    """One call of `validate`, its settings checked."""

    problem: TrainingProblem
    part: TrainingProblem
    rows: HeldOut
    settings: dict[str, Any]
    grid: _Grid
    keys: dict[int, str] = field(default_factory=dict)

    def run(self, makers: Crew, call: Callback | None, on_try: Callable[[Try], None] | None
            ) -> Validation:
        """All tries, or those until it is stopped; in the order of the grid, whoever makes them."""
        steps = list(self.grid)
        forecast = None if makers.far else TriesForecast([step.before is None for step in steps])
        tries: dict[int, Try] = {}
        solved: dict[Place, Solution] = {}
        left, complete = list(range(len(steps))), True
        while complete and len(tries) < len(steps):
            title = f"try {len(tries) + 1} of {len(steps)}"
            begin(call, title, forecast, self.settings.get("time_limit"))
            try:
                k, (solution, begun, seconds) = self._made(makers, steps, left, solved,
                                                           named(title, call))
            except (StudyStopped, WorkersLost):
                if not tries:
                    raise
                complete = False
                break
            if forecast is not None:
                forecast.ended(seconds)
            if solution.status is Status.INTERRUPTED:
                complete = False
                if tries:
                    break
            tries[k] = self._try(steps[k], solution, begun, seconds)
            solved[steps[k].place] = solution
            if on_try is not None:
                on_try(tries[k])
        return Validation(self.problem, tuple(tries[k] for k in sorted(tries)), self.rows,
                          self._trivial(), complete, self.settings)

    def _made(self, makers: Crew, steps: list[Step], left: list[int],
              solved: dict[Place, Solution], call: Callback | None) -> tuple[int, Tried]:
        """The next try that is there; those are handed in whose neighbour is solved."""
        ready = [k for k in left if steps[k].before is None or steps[k].before in solved]
        for k in ready if makers.far else ready[:1]:
            left.remove(k)
            before = steps[k].before
            task = (self.part, self.settings, steps[k], None if before is None else solved[before],
                    makers.far)
            found = recall(try_key(*task), changed(self.part, *steps[k].place))
            if found is not None:
                return k, (found[0], str(found[1]["begun"]), float(found[1]["seconds"]))
            self.keys[k] = try_key(*task)
            makers.submit(k, tried, *task)
        number, made = makers.take(call)
        keep(self.keys[number], made[0], {"begun": made[1], "seconds": made[2]})
        return number, made

    def _try(self, step: Step, solution: Solution, begun: str, seconds: float) -> Try:
        network = solution.to_network()
        likely = self.problem.loss == "cross_entropy"
        errors = self._errors((network.predict_proba if likely else network.predict)(self.rows.X))
        error, spread = self.rows.mean(errors)
        accuracy = None
        if self.problem.classes is not None:
            met = np.argmax(network.predict(self.rows.X), axis=1) == np.argmax(self.rows.Y, axis=1)
            accuracy = self.rows.mean(met.astype(float))[0]
        return Try(*step.place, error, spread, accuracy,
                   solution.objective, solution.status, begun, seconds, network)

    def _errors(self, predictions: Any) -> Any:
        """Squared errors of the held-out rows, (K,), in the scaled units of the whole problem.

        With cross-entropy those of the probabilities.
        """
        gaps = (predictions - self.rows.Y) / self.problem.target_scaling.scale
        return np.sum(gaps**2, axis=1)

    def _trivial(self) -> float:
        mean = np.average(np.asarray(self.part.Y, dtype=float), axis=0,
                          weights=self.part.sample_weights)
        return self.rows.mean(self._errors(np.broadcast_to(mean, self.rows.Y.shape)))[0]
