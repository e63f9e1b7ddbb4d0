"""`compare`: the network that optimal control finds, beside one that gradient descent trains.

Both get the same network, the same start and the same data. Descent gets a learning rate and a
schedule from a grid, and where it is cheap a second run of ten times the epochs, since the recipe's
number of epochs is no law; the solver gets a second chance too, from where descent ended, since
descent may land in another basin, even a lower one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.descent.optimizers import SGD, Adam
from hamshoot.methods.descent.train import train
from hamshoot.network.follow_path import SCHEMES, equidistant_steps
from hamshoot.network.layer_steps import steps_of
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.method import Method
from hamshoot.solution.solution import Callback, Record, Solution, Status
from hamshoot.study import plot
from hamshoot.study.solve import default_layers, solve
from hamshoot.study.tables import text_table
from hamshoot.support.options import has_option, with_options

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

CONTROL = "optimal control"
DESCENT = "gradient descent"
LONGER = "gradient descent, longer"
CONTINUED = "optimal control from descent"
#: Factor on the epochs of the longer run, and the flops up to which it is done (a minute or less).
TIMES, LONGER_FLOPS = 10, 2e12
#: A training with its grid of rates and schedules takes as long as so many runs, see `train`.
GRID_RUNS = 8
#: Objectives closer than this, relatively, are called equal.
EQUAL = 1e-6


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table.

    Attributes
    ----------
    name : str
    solution : Solution
    gamma0 : float
        Of the stable cost of identity, γ_p = γ₀‖σ̂(A_p)‖²_op.
    """

    name: str
    solution: Solution
    gamma0: float = 1e-3

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """Fields of the summary, with train error, cost of identity and accuracy beside them.

        Of a trained network also what its grid chose, `rate` and `schedule`, and `grid_seconds`.
        """
        solution, problem = self.solution, self.solution.problem
        numbers = {"name": self.name, **solution.summary()}
        numbers["train_error"] = numbers["loss"]
        for name in ("rate", "schedule", "grid_seconds"):
            if name in solution.extra:
                numbers[name] = solution.extra[name]
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
            "success": self.complete and all(row.solution.success for row in self.rows),
            "finding": self.finding(),
            "rows": [row.numbers for row in self.rows],
        }

    def finding(self) -> str:
        """What the comparison found, in sentences with numbers, whichever way it went."""
        control, trained = self.row(CONTROL), [
            row for row in self.rows if row.name in (DESCENT, LONGER)]
        if control is None or not trained:
            return "The comparison was stopped before there was anything to compare."
        a, b = control.solution, _lowest(trained)
        start = self.settings.get("start", "the same")
        sentences = [_relation(a, b, f"From the same start ({start}, seed "
                                     f"{self.settings.get('seed', 0)}) optimal control ended")]
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

    def table(self) -> str:
        """Return the table as text, one column a row of the comparison."""
        return text_table([row.numbers for row in self.rows])

    def figure(self) -> Figure:
        """Spectra, energies, convergence and paths of all rows; see `hamshoot.plot`."""
        return plot.plot_comparison({row.name: row.solution for row in self.rows})

    def __repr__(self) -> str:
        return f"Comparison on {self.problem!r}\n{self.table()}\n{self.finding()}"


def compare(
    problem: TrainingProblem,
    layers: int | None = None,
    *,
    method: str | Method = "auto",
    optimizer: Adam | SGD | None = None,
    start: str = "path",
    seed: int = 0,
    starts: int = 1,
    descent_steps: str = "equidistant",
    callback: Callback | None = None,
    on_row: Callable[[Row], None] | None = None,
    time_limit: float | None = None,
    method_options: dict[str, Any] | None = None,
    longer: bool | None = None,
) -> Comparison:
    """Solve a problem by optimal control and by gradient descent from the same start.

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
    start : {"path", "identity", "random"}
        Of both.
    seed : int
        Of both.
    starts : int
        Best of that many starts, for both.
    descent_steps : str or array
        Layer steps of the network that descent trains; the solver's are equidistant.
    callback : callable, optional
        Receives the records of every row, the row's name in `stage`.
    on_row : callable, optional
        Receives each finished `Row`.
    time_limit : float, optional
        Seconds for each row.
    method_options : dict, optional
        Options of a method given by name.
    longer : bool, optional
        Whether to train a second time with ten times the epochs; by default where it takes less
        than a minute.

    Returns
    -------
    Comparison
        Rows: optimal control, gradient descent, perhaps gradient descent with ten times the epochs,
        and optimal control started from the better of the trained networks. Stopped midway, those
        that were finished.
    """
    if problem.hard_endpoint:
        raise ValueError("problem: gradient descent needs a loss, got a hard endpoint")
    layers = default_layers(problem) if layers is None else layers
    steps_of(descent_steps, layers, problem.effective_depth, names=SCHEMES)
    optimizer = Adam() if optimizer is None else optimizer
    options = dict(method_options or {})
    if time_limit is not None:
        options.setdefault("time_limit", time_limit)
    common: dict[str, Any] = dict(start=start, seed=seed, starts=starts)

    def control(guess: Solution | None, call: Callback | None) -> Solution:
        if not isinstance(method, str):
            own, begin = _from_the_start(problem, method, layers, start, seed, starts)
            return solve(problem, own, initial_guess=begin if guess is None else guess,
                         callback=call)
        return solve(problem, method, layers=layers, initial_guess=guess, callback=call,
                     **{**options, **common})

    def descend(chosen: Adam | SGD, call: Callback | None) -> Solution:
        return train(problem, layers=layers, steps=descent_steps, optimizer=chosen,
                     callback=call, time_limit=time_limit, **common)

    rows: list[Row] = []
    tasks: dict[str, Callable[[Callback | None], Solution]] = {
        CONTROL: lambda call: control(None, call),
        DESCENT: lambda call: descend(optimizer, call)}
    prolonged = _prolonged(optimizer)
    if longer is None:
        longer = _flops(problem, layers, prolonged, starts) <= LONGER_FLOPS
    if longer:
        tasks[LONGER] = lambda call: descend(prolonged, call)
    tasks[CONTINUED] = lambda call: control(_lowest(rows[1:]), call)
    complete = True
    for name, task in tasks.items():
        solution = task(_named(name, callback))
        rows.append(Row(name, solution))
        if on_row is not None:
            on_row(rows[-1])
        if solution.status is Status.INTERRUPTED:
            complete = name == CONTINUED
            break
    return Comparison(problem, tuple(rows), complete, {**common, "layers": layers})


def _from_the_start(
    problem: TrainingProblem, method: Method, layers: int, start: str, seed: int, starts: int
) -> tuple[Method, NDArray | None]:
    """A method object told layers and start, and its initial guess where it knows no starts."""
    wanted = {"layers": layers, "start": start, "seed": seed}
    known = {name: value for name, value in wanted.items() if has_option(method, name)}
    if starts > 1 or has_option(method, "starts"):
        known["starts"] = starts
    own = with_options(method, **known)
    if "start" in known:
        return own, None
    return own, starting_weights(problem, equidistant_steps(layers), start, seed)


def _prolonged(optimizer: Adam | SGD) -> Adam | SGD:
    """The same recipe with TIMES the epochs."""
    epochs = {name: TIMES * getattr(optimizer, name) for name in ("epochs", "sgd_epochs")
              if hasattr(optimizer, name)}
    return replace(optimizer, **epochs)


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


def _named(name: str, callback: Callback | None) -> Callback | None:
    if callback is None:
        return None

    def call(record: Record) -> bool | None:
        stage = f"{name}: {record.stage}" if record.stage else name
        return callback(replace(record, stage=stage))

    return call


def _relation(a: Solution, b: Solution, opening: str) -> str:
    gap = (a.objective - b.objective) / abs(b.objective)
    if abs(gap) <= EQUAL:
        return f"{opening} at gradient descent's objective ({a.objective:.6g})."
    side = "below" if gap < 0 else "ABOVE"
    return (f"{opening} {abs(gap):.2%} {side} gradient descent's objective "
            f"({a.objective:.6g} against {b.objective:.6g}).")
