"""`compare`: the network that optimal control finds, beside one that gradient descent trains.

Both get the same network and the same data; the same start, where one is asked for. Descent gets a
learning rate and a schedule from a grid, and where it is cheap a second run of ten times the
epochs, since the recipe's number of epochs is no law; and it gets the CPU seconds that the solver
took, for as many starts and rates as fit in them. The solver gets a second chance too, from where
descent ended, since descent may land in another basin, even a lower one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.descent.optimizers import SCHEDULES, SGD, Adam
from hamshoot.methods.descent.restarts import train_for
from hamshoot.methods.descent.train import checked_optimizer, train
from hamshoot.methods.search.basins import EFFORTS
from hamshoot.network.follow_path import SCHEMES, equidistant_steps
from hamshoot.network.layer_steps import steps_of
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.method import Method
from hamshoot.solution.notebook import shown as shown_in_notebook
from hamshoot.solution.remarks import comparison_remarks
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.study import plot
from hamshoot.study.cpu_seconds import cpu_seconds
from hamshoot.study.ends import EQUAL, ended_well, gap
from hamshoot.study.forecast import Forecast, epochs_forecast, search_forecast, seconds_forecast
from hamshoot.study.kept_rows import kept_row
from hamshoot.study.progress import Progress, named, shown
from hamshoot.study.solve import check_method, comparison_layers, solve
from hamshoot.study.summaries import summary
from hamshoot.study.tables import cells, text_table
from hamshoot.support import verbs
from hamshoot.support.journal import Journal, kept_in
from hamshoot.support.options import has_option, with_options

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from hamshoot.support.names import MethodName, StartName

CONTROL = "optimal control"
DESCENT = "gradient descent"
LONGER = "gradient descent, longer"
SAME_SECONDS = "gradient descent, same seconds"
CONTINUED = "optimal control from descent"
#: Factor on the epochs of the longer run, and the flops up to which it is done (a minute or less).
TIMES, LONGER_FLOPS = 10, 2e12
#: Schedules of the longer run, where all are to be tried. Without the constant one it takes 0.86 of
#: the time (median of 18 teachers), and its J was the same on 17 of them, 0.2 % higher on one
#: (`demos/benchmarks/longer_runs.py`).
SCHEDULES_LONGER = ("decay", "cosine")
#: A training with its grid of rates and schedules takes as long as so many runs, see `train`.
GRID_RUNS = 8
#: Seconds of CPU that descent is granted at least, where the solver took less.
LEAST_SECONDS = 1.0
#: What is told of the row of equal seconds, from its solution.
TOLD = ("start", "start_seed", "total_epochs", "budget_seconds")


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table.

    Attributes
    ----------
    name : str
    solution : Solution
    gamma0 : float
        Of the stable cost of identity, γ_p = γ₀‖σ̂(A_p)‖²_op.
    cpu_seconds : float, optional
        All that it took: of the process, all threads, grids and starts too.
    """

    name: str
    solution: Solution
    gamma0: float = 1e-3
    cpu_seconds: float | None = None

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """Fields of the summary, with train error, cost of identity and accuracy beside them.

        Of a trained network also what its grid chose, `rate` and `schedule`, and `grid_seconds`; of
        the row of equal seconds `runs`, how many fitted, and where the best came from.
        """
        solution, problem = self.solution, self.solution.problem
        numbers = {"name": self.name, **summary(solution), "cpu_seconds": self.cpu_seconds}
        numbers["train_error"] = numbers["loss"]
        for name in ("rate", "schedule", "grid_seconds", *TOLD):
            if name in solution.extra:
                numbers[name] = solution.extra[name]
        if "runs" in solution.extra:
            numbers["runs"] = len(solution.extra["runs"])
        energies = solution.energies(self.gamma0)
        numbers["cost_of_identity"] = float(np.min(energies.stable_cost_of_identity))
        if problem.classes is not None:
            network = solution.to_network()
            numbers["train_accuracy"] = network.accuracy(problem.X, problem.Y)
            if problem.X_test is not None:
                numbers["test_accuracy"] = network.accuracy(problem.X_test, problem.Y_test)
        return numbers


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Rows of methods and baselines on one problem; prints as a table.

    Attributes
    ----------
    problem : TrainingProblem
    rows : tuple of Row
    complete : bool
        False when it was stopped before the last row.
    """

    problem: TrainingProblem
    rows: tuple[Row, ...]
    complete: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    def row(self, name: str) -> Row | None:
        """Look a row up by name."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def best(self) -> Row:
        """The row of least objective."""
        return min(self.rows, key=lambda row: row.solution.objective)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `rows`, a list of summaries with a `name`; the finding; the settings."""
        return {
            "problem": repr(self.problem),
            "settings": self.settings,
            "complete": self.complete,
            "success": self.complete and all(self._ended_well(row) for row in self.rows),
            "finding": self.finding(),
            "remarks": self.remarks(),
            "rows": [row.numbers for row in self.rows],
        }

    def _ended_well(self, row: Row) -> bool:
        """Whether a row did; the last, a second chance, also where it can go no lower."""
        trained = [other for other in self.rows if other.name in (DESCENT, LONGER)]
        return ended_well(row.solution, _lowest(trained) if trained and row.name == CONTINUED
                          else None)

    def finding(self) -> str:
        """What the comparison found, in sentences with numbers, whichever way it went."""
        control, trained = self.row(CONTROL), [
            row for row in self.rows if row.name in (DESCENT, LONGER)]
        if control is None or not trained:
            return "The comparison was stopped before there was anything to compare."
        a, b = control.solution, _lowest(trained)
        start = self.settings.get("start")
        sentences = [_relation(a, b, "From where its own search led, optimal control ended"
                               if start is None else f"From the same start ({start}, seed "
                               f"{self.settings.get('seed', 0)}) optimal control ended")]
        same = self.row(SAME_SECONDS)
        if same is not None:
            sentences.insert(0, _winner(a, same.solution))
        if len(trained) > 1:
            sentences.append(
                f"Gradient descent reached {trained[0].solution.objective:.6g} in "
                f"{trained[0].solution.nit} epochs and {trained[1].solution.objective:.6g} in "
                f"{trained[1].solution.nit}; the better of them counts.")
        continued = self.row(CONTINUED)
        if continued is not None:
            c = continued.solution
            sentences.append(_relation(c, b, "Started from descent's network, it ended"))
            if c.objective < a.objective * (1 - EQUAL) and b.objective < a.objective * (1 - EQUAL):
                sentences.append("Descent had found a lower basin than the solver's own start did.")
        sentences.append(
            f"Stationarity: {a.stationarity:.1e} by optimal control, {b.stationarity:.1e} by "
            f"descent; Hamiltonian drift {a.hamiltonian_drift:.1e} against "
            f"{b.hamiltonian_drift:.1e}; seconds {a.seconds:.1f} against {b.seconds:.1f}"
            + (f" ({b.extra['grid_seconds']:.1f} with the grid of rates and schedules)."
               if "grid_seconds" in b.extra else ".")
        )
        errors = [(row.name, row.numbers["test_error"]) for row in self.rows]
        if all(e is not None for _, e in errors):
            low = min(errors, key=lambda item: item[1])
            sentences.append(f"The lowest test error is {low[1]:.4g}, by {low[0]}.")
        return " ".join(sentences)

    def remarks(self) -> list[str]:
        """Sentences on numbers of the table that mean nothing, or nothing in the user's units."""
        return comparison_remarks({row.name: row.solution for row in self.rows})

    def table(self) -> str:
        """Return the table as text, one column a row of the comparison."""
        return text_table([row.numbers for row in self.rows])

    def figure(self) -> Figure:
        """Spectra, energies, convergence and paths of all rows; see `hamshoot.plot`."""
        return plot.plot_comparison({row.name: row.solution for row in self.rows})

    def report(self, path: str | PathLike, *, title: str | None = None, second_order: bool = True
               ) -> Path:
        """Write one self-contained HTML page that shows all rows; see `hamshoot.report.page`.

        Returns
        -------
        Path
            The file written; `.html` is added when the name has no suffix.
        """
        return verbs.report(self, path, title=title, second_order=second_order)

    def _repr_html_(self) -> str:
        """What a notebook shows: the table, and the finding."""
        head, rows = cells([row.numbers for row in self.rows])
        return shown_in_notebook(f"Comparison on {self.problem!r}", self.complete, rows,
                                 [self.finding(), *self.remarks()], head)

    def __repr__(self) -> str:
        told = " ".join([self.finding(), *self.remarks()])
        return f"Comparison on {self.problem!r}\n{self.table()}\n{told}"


def compare(
    problem: TrainingProblem,
    layers: int | None = None,
    *,
    method: MethodName | Method = "auto",
    optimizer: Adam | SGD | None = None,
    start: StartName | None = None,
    seed: int = 0,
    starts: int | None = None,
    descent_steps: str = "equidistant",
    callback: Callback | None = None,
    on_row: Callable[[Row], None] | None = None,
    time_limit: float | None = None,
    method_options: dict[str, Any] | None = None,
    longer: bool | None = None,
    same_seconds: bool = True,
    verbose: bool = False,
    journal: str | PathLike | None = None,
) -> Comparison:
    """Solve a problem by optimal control and by gradient descent.

    Parameters
    ----------
    problem : TrainingProblem
        With a soft loss.
    layers : int, optional
        L of every network; default 20, or enough for L > L̃.
    method : str or method object
        As in `solve`; what is set of an object is said in `hamshoot.solution.method`.
    optimizer : Adam or SGD, optional
        Default `Adam()`: learning rate and schedule from a grid, then SGD.
    start : {"path", "identity", "random"}, optional
        Of both, in place of the solver's search. By default the solver searches, as `solve` does,
        and descent with its grid begins at a path fit.
    seed : int
        Of both.
    starts : int, optional
        Best of that many starts, for both; by default as many as the solver's search takes, and
        one.
    descent_steps : str or array
        Layer steps of the network that descent trains; the solver's are equidistant.
    callback : callable, optional
        Receives the records of every row, the row's name in `stage`.
    on_row : callable, optional
        Receives each finished `Row`.
    time_limit : float, optional
        Seconds for each row, by the clock on the wall.
    method_options : dict, optional
        Options of a method given by name.
    longer : bool, optional
        Whether to train a second time with ten times the epochs; by default where it takes less
        than a minute.
    same_seconds : bool
        Whether descent gets the CPU seconds that the solver took, a second at least, for as many
        starts and rates as fit (`hamshoot.methods.descent.restarts`). How far it gets depends on
        the clock; all other rows are the same each time.
    verbose : bool
        Show the progress on standard error.
    journal : path, optional
        Directory that keeps the rows that are finished, and what is done of the others, as of
        `hamshoot.solve`: a comparison that was killed goes on from it.

    Returns
    -------
    Comparison
        Rows: optimal control, gradient descent, perhaps gradient descent with ten times the epochs,
        gradient descent for the same seconds, and optimal control started from the better of the
        networks that were trained with a grid. Stopped midway, those that were finished.
    """
    kept = None if journal is None else Journal(Path(journal))
    with kept_in(kept), shown(callback, verbose) as call:
        layers = comparison_layers(problem, layers)
        comparing = _Comparing(problem, layers, method, optimizer, start, seed, starts,
                               descent_steps, time_limit, method_options)
        return comparing.run(call, on_row, longer, same_seconds)


@dataclass
class _Comparing:
    """One call of `compare`: its settings, checked, and its rows one by one."""

    problem: TrainingProblem
    layers: int
    method: MethodName | Method
    optimizer: Adam | SGD | None
    start: str | None
    seed: int
    starts: int | None
    descent_steps: str
    time_limit: float | None
    method_options: dict[str, Any] | None

    def __post_init__(self) -> None:
        if self.problem.hard_endpoint:
            raise ValueError("problem: gradient descent needs a loss, got a hard endpoint")
        steps_of(self.descent_steps, self.layers, self.problem.effective_depth, names=SCHEMES)
        self.descent = checked_optimizer(self.optimizer)
        # What is not asked for is the method's own.
        self.asked: dict[str, Any] = {name: value for name, value in (
            ("start", self.start), ("seed", self.seed), ("starts", self.starts))
            if value is not None}
        self.options = {**(self.method_options or {}), **self.asked}
        if self.time_limit is not None:
            self.options.setdefault("time_limit", self.time_limit)
        self.rows: list[Row] = []
        self.spent = float("nan")

    def run(self, callback: Callback | None, on_row: Callable[[Row], None] | None,
            longer: bool | None, same_seconds: bool) -> Comparison:
        """All rows, or those until it is stopped."""
        prolonged = _prolonged(self.descent)
        if longer is None:
            longer = self._flops(prolonged) <= LONGER_FLOPS
        tasks: dict[str, tuple[Callable[[Callback | None], Solution],
                               Callable[[], Forecast | None]]] = {
            CONTROL: (lambda call: self.control(None, call), self._search),
            DESCENT: (lambda call: self.train(self.descent, call),
                      lambda: epochs_forecast(self.descent, self.starts or 1))}
        if longer:
            tasks[LONGER] = (lambda call: self.train(prolonged, call),
                             lambda: epochs_forecast(prolonged, self.starts or 1))
        if same_seconds:
            tasks[SAME_SECONDS] = self.train_as_long, lambda: seconds_forecast(self.granted)
        tasks[CONTINUED] = lambda call: self.control(self._trained(), call), lambda: None
        complete = True
        for number, (name, (task, forecast)) in enumerate(tasks.items(), start=1):
            if name == CONTINUED and not np.isfinite(self._trained().objective):
                break  # there is no network to go on from
            if isinstance(callback, Progress):
                callback.begin(f"{name} (row {number} of {len(tasks)})", forecast(),
                               self.options.get("time_limit"))
            work = partial(cpu_seconds, partial(task, named(name, callback)))
            solution, seconds = kept_row(self.problem, name, self._inputs(name), work)
            if name == CONTROL:
                self.spent = seconds
            self.rows.append(Row(name, solution, cpu_seconds=seconds))
            if on_row is not None:
                on_row(self.rows[-1])
            if solution.status is Status.INTERRUPTED:
                complete = name == CONTINUED
                break
        return Comparison(self.problem, tuple(self.rows), complete, {
            "start": self.start, "seed": self.seed, "starts": self.starts, "layers": self.layers})

    def _inputs(self, name: str) -> tuple:
        """All that a row depends on, beside the problem."""
        if name in (DESCENT, LONGER):
            own: tuple = ()
        elif name == SAME_SECONDS:
            own = (self.granted, self.spent)
        else:
            own = (repr(self.method), None if name == CONTROL else self._trained().weights)
        return (self.layers, repr(self.descent), self.descent_steps, self.options, self.time_limit,
                repr(EFFORTS), *own)

    def control(self, guess: Solution | None, call: Callback | None) -> Solution:
        """The solver's row."""
        if isinstance(self.method, str):
            return solve(self.problem, self.method, layers=self.layers, initial_guess=guess,
                         callback=call, **self.options)
        own, begin = self._from_the_start(self.method)
        return solve(self.problem, own, initial_guess=begin if guess is None else guess,
                     callback=call)

    def train(self, chosen: Adam | SGD, call: Callback | None) -> Solution:
        """A row of gradient descent with its grid."""
        return train(self.problem, layers=self.layers, steps=self.descent_steps, optimizer=chosen,
                     callback=call, time_limit=self.time_limit, **self.asked)

    @property
    def granted(self) -> float:
        """Seconds of CPU for descent, where the solver took what it took."""
        return max(LEAST_SECONDS, self.spent)

    def train_as_long(self, call: Callback | None) -> Solution:
        """The row of equal seconds."""
        solution = train_for(self.problem, self.granted, self.layers, self.descent_steps,
                             self.descent, self.seed, call, self.time_limit)
        took = f"The solver took {self.spent:.2g} s of CPU"
        if self.granted > self.spent:
            took += f", and descent was granted {self.granted:.2g} s, the least that it gets"
        return solution.replace(message=f"{solution.message} {took}.")

    def _trained(self) -> Solution:
        """The lowest network of a grid; not that of equal seconds, which depends on the clock."""
        return _lowest([row for row in self.rows if row.name in (DESCENT, LONGER)])

    def _search(self) -> Forecast | None:
        if isinstance(self.method, str):
            method = check_method(self.problem, self.method, self.layers, self.options)
        else:
            method, guess = self._from_the_start(self.method)
            if guess is not None:
                return None
        return search_forecast(self.problem, method, None)

    def _from_the_start(self, method: Method) -> tuple[Method, NDArray | None]:
        """A method object told layers and start, and its initial guess where it knows none."""
        wanted = {"layers": self.layers, **self.asked}
        known = {name: value for name, value in wanted.items()
                 if has_option(method, name) or (name == "starts" and value > 1)}
        own = with_options(method, **known)
        if has_option(method, "start"):
            return own, None
        return own, starting_weights(self.problem, equidistant_steps(self.layers),
                                     self.start or "path", self.seed)

    def _flops(self, optimizer: Adam | SGD) -> float:
        """Of a training, 6Lw²N an epoch."""
        return _flops(self.problem, self.layers, optimizer, self.starts or 1)


def _prolonged(optimizer: Adam | SGD) -> Adam | SGD:
    """The same recipe with TIMES the epochs; of all three schedules without the constant one.

    With so many epochs that ends where the one does which decays at last; see `SCHEDULES_LONGER`.
    """
    changed: dict[str, Any] = {
        name: TIMES * getattr(optimizer, name) for name in ("epochs", "sgd_epochs")
        if hasattr(optimizer, name)}
    if optimizer.schedules == SCHEDULES:
        changed["schedules"] = SCHEDULES_LONGER
    return replace(optimizer, **changed)


def _flops(
    problem: TrainingProblem, layers: int, optimizer: Adam | SGD, starts: int
) -> float:
    """Of a training, 6Lw²N an epoch; a grid is tried on the first start alone."""
    epochs = optimizer.epochs + getattr(optimizer, "sgd_epochs", 0)
    given = optimizer.rate is not None and optimizer.schedule is not None
    runs = starts - 1 + (1 if given else GRID_RUNS)
    return float(runs) * epochs * 6 * layers * problem.width**2 * problem.n_samples


def _lowest(rows: list[Row]) -> Solution:
    """The trained network of least objective."""
    return min((row.solution for row in rows), key=lambda solution: solution.objective)


def _relation(a: Solution, b: Solution, opening: str) -> str:
    share = gap(a, b)
    if abs(share) <= EQUAL:
        return f"{opening} at gradient descent's objective ({a.objective:.6g})."
    side = "below" if share < 0 else "ABOVE"
    if not np.isfinite(share):
        return (f"{opening} {side} gradient descent's objective ({a.objective:.6g} against "
                f"{b.objective:.6g}).")
    return (f"{opening} {abs(share):.2%} {side} gradient descent's objective "
            f"({a.objective:.6g} against {b.objective:.6g}).")


def _winner(a: Solution, b: Solution) -> str:
    """Who ended lower at equal seconds, and what descent could try in them."""
    share, extra = gap(a, b), b.extra
    count = len(extra["runs"])
    if abs(share) <= EQUAL:
        opening = f"At equal seconds nobody wins: both end at J = {a.objective:.6g}"
    else:
        name, low, high = (CONTROL, a, b) if share < 0 else (DESCENT, b, a)
        lower = f"{-gap(low, high):.2%} " if np.isfinite(gap(low, high)) else ""
        opening = (f"At equal seconds {name} wins: J = {low.objective:.6g}, "
                   f"{lower}below {high.objective:.6g}")
    return (f"{opening} ({extra['cpu_seconds']:.1f} s of CPU for {count} "
            f"run{'' if count == 1 else 's'} of gradient descent, the best from the "
            f"{extra['start']} start, seed {extra['start_seed']}, at rate {extra['rate']:g}).")
