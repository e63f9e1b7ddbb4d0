"""Gradient descent on the controls of a layered network, full batch: the usual training.

It is the baseline that optimal control is measured against, so it gets the same network, the same
start and a fair chance: the paper's recipe (Adam, then plain gradient descent with a smaller rate)
with the learning rate chosen from a grid.

*The grid.* Every rate runs a pilot, a fifth of the epochs with the whole schedule compressed into
it, because a rate must be judged by where its decay ends and not by its first noisy epochs. The two
best then run in full from the start, as a short run slightly favours large rates, and the lower end
wins. Rates whose numbers become non-finite are out. Everything tried is listed in
`Solution.extra["grid"]`.

*The descent after Adam.* Its rate is set by curvature, since a rate of gradient descent, unlike one
of Adam, has units: with κ the largest curvature where Adam ended, gradient descent with momentum β
is stable below 2(1 + β)/κ. Trials from (1 + β)/κ downwards, a third each time, pick the rate. Both
stages return the best network they saw, by the problem's own objective, which can only help the
baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.checks import check_choice, check_count, check_layers, check_positive
from hamshoot.evaluate import solution_from_weights
from hamshoot.layer_steps import adaptive_update, steps_of
from hamshoot.optimizers import SGD, Adam
from hamshoot.problem import TrainingProblem
from hamshoot.progress import Stop, Watch, thinned
from hamshoot.solution import Callback, Solution, Status
from hamshoot.starts import STARTS, start_seeds, starting_weights, weights_of
from hamshoot.sweeps import EulerSweeps, blas_threads

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

STEPS = ("equidistant", "irregular", "adaptive")
#: Length of a pilot: this share of the epochs, and at least so many.
PILOT_SHARE, PILOT_LEAST = 0.2, 200
#: Rates that run in full after the pilots.
FINALISTS = 2
#: A trial of a rate after Adam: this share of its epochs, at most so many rates, a third each time.
TRIAL_SHARE, TRIALS = 0.1, 6
#: Adaptive steps are updated every so many epochs, over this share of the first stage; then held.
ADAPT_EVERY, ADAPT_SHARE, ADAPT_DAMPING = 10, 0.8, 0.5
#: Epochs between records, the largest of these that take about CHUNK_FLOPS (a tenth of a second).
CHUNKS, CHUNK_FLOPS = (1, 2, 5, 10, 25, 50), 2e8
#: Records kept in the history of a solution.
HISTORY = 1000


# -- training --------------------------------------------------------------------------------------


def train(
    problem: TrainingProblem,
    layers: int = 20,
    steps: str | ArrayLike = "equidistant",
    optimizer: Adam | SGD | None = None,
    seed: int = 0,
    start: str = "path",
    starts: int = 1,
    noise: float | None = None,
    initial_guess: Any = None,
    callback: Callback | None = None,
    time_limit: float | None = None,
) -> Solution:
    """Train an L-layer network by full-batch gradient descent on J.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss.
    layers : int
        L > L̃.
    steps : {"equidistant", "irregular", "adaptive"} or array_like, shape (L,)
        Layer steps ρ. Adaptive ones begin equidistant (or as the guess has them), move towards
        equal relative change every 10 epochs and are held for the last fifth of the first stage.
    optimizer : Adam or SGD, optional
        Default ``Adam()``.
    seed : int
    start : {"path", "identity", "random"}
        As for the solvers, see `hamshoot.starts`.
    starts : int
        Best of so many. The rate is chosen on the first and kept for the others.
    noise : float, optional
        Of the start.
    initial_guess : Solution, LeakyResNet or array_like, optional
        In place of the starts. The answer's objective is at or below the guess's on the mesh.
    callback : callable, optional
        Receives a `Record` every 50 epochs or sooner; returning True stops the training.
    time_limit : float, optional
        Seconds.

    Returns
    -------
    Solution
        The best network seen in the best full run, with status TRAINED when all its epochs ran;
        DIVERGED when every rate's numbers became non-finite, STALLED when none went below the
        start; INTERRUPTED and TIME_LIMIT keep the best network so far. `nit` counts the epochs of
        the run returned, `seconds` the runs at its rate. In `extra`: "rate" and "sgd_rate" used,
        "grid" (a row a rate: objectives of its pilot and its full run, None where it has none or
        diverged), "grid_seconds" (all of it, pilots and runners-up too; only if a grid was tried),
        "start_objectives".

    Raises
    ------
    ValueError
        For a hard endpoint, an option out of range, or a guess that does not fit.

    Notes
    -----
    An epoch costs 6Lw²N flops, and a few passes over the Lw(w+1) controls. With the grid of 6 rates
    a training costs about 3.5 full runs: 6 pilots of a fifth, two finalists, trials after Adam.
    """
    optimizer = Adam() if optimizer is None else optimizer
    if not isinstance(optimizer, (Adam, SGD)):
        raise ValueError(f"optimizer: expected Adam(...) or SGD(...), got {optimizer!r}")
    if problem.hard_endpoint:
        raise ValueError("problem: gradient descent needs a loss, got a hard endpoint")
    check_count("seed", seed, 0)
    check_count("starts", starts, 1)
    check_choice("start", start, STARTS)
    if time_limit is not None:
        check_positive("time_limit", time_limit)
    if isinstance(steps, str):
        check_layers(layers, problem.effective_depth)
    adaptive = isinstance(steps, str) and steps == "adaptive"
    mesh = steps_of(steps, layers, problem.effective_depth, names=STEPS)
    if initial_guess is None:
        first = [starting_weights(problem, mesh, start, one, noise)
                 for one in start_seeds(seed, starts)]
    else:
        if adaptive and np.shape(getattr(initial_guess, "steps", None)) == mesh.shape:
            mesh = steps_of(initial_guess.steps, layers, problem.effective_depth)
        first = [weights_of(initial_guess, problem, mesh)]
    watch = Watch(callback, time_limit)
    training = _Training(problem, optimizer, mesh, adaptive, watch, seed)
    training.guess = None if initial_guess is None else first[0]
    with blas_threads(problem):
        return training.run(first)


@dataclass
class _Run:
    """Descent from one start at one rate: its best network so far, and what it took."""

    start: int
    rate: float
    weights: NDArray
    steps: NDArray
    objective: float
    pilot: bool = False
    epochs: int = 0
    seconds: float = 0.0
    sgd_rate: float | None = None
    diverged: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Stage:
    """One stage of a run: an optimiser's update with its schedule."""

    adam: bool
    rate: float
    epochs: int
    schedule: str
    beta1: float
    beta2: float = 0.0
    epsilon: float = 0.0

    @property
    def rates(self) -> NDArray:
        """Rate of every epoch."""
        if self.schedule == "constant":
            return np.full(self.epochs, self.rate)
        return self.rate * 0.5 * (1 + np.cos(np.pi * np.arange(self.epochs) / self.epochs))


class EpochLoop:
    """Iterate, moments and best network of one stage, advanced in place by the compiled kernel.

    Parameters
    ----------
    sweeps : EulerSweeps
    weights : ndarray, shape (L, w, w+1)
        Where to begin; copied.
    adam : bool
        Else gradient descent with momentum `beta1`.
    beta1, beta2, epsilon : float

    Attributes
    ----------
    weights, best_weights : ndarray
    best : float
        J of the latter, infinity before the first epoch.
    """

    def __init__(self, sweeps: EulerSweeps, weights: NDArray, *, adam: bool, beta1: float,
                 beta2: float = 0.0, epsilon: float = 0.0):
        self.sweeps = sweeps
        self.weights = np.array(weights, dtype=float, order="C")
        self.best_weights, self.best = self.weights.copy(), np.inf
        self._settings = (bool(adam), float(beta1), float(beta2), float(epsilon))
        self._moments = np.zeros_like(self.weights), np.zeros_like(self.weights)
        self._count = 0

    def run(self, rates: ArrayLike) -> NDArray:
        """One epoch a rate; J before each update. Ends early at the first that is not finite."""
        from hamshoot import _kernels

        rates = np.asarray(rates, dtype=float)
        values = np.full(len(rates), np.nan)
        done, self.best = _kernels.epochs(
            rates, *self._settings, self._count, *self._moments, float(self.best),
            self.best_weights, values, self.weights, *self.sweeps.arguments,
        )
        self._count += done
        return values[: min(done + 1, len(rates))]

    def evaluate(self) -> float:
        """J of the present iterate, which may be the best; its gradient is in the sweeps."""
        value, _ = self.sweeps.gradient(self.weights)
        if np.isfinite(value) and value < self.best:
            self.best = value
            self.best_weights[:] = self.weights
        return value


class _Training:
    """One call of `train`: grid, stages, starts, bookkeeping."""

    def __init__(self, problem, optimizer, steps, adaptive, watch, seed):
        self.problem, self.optimizer, self.steps = problem, optimizer, steps
        self.adaptive, self.watch, self.seed = adaptive, watch, seed
        self.sweeps = EulerSweeps(problem, steps)
        self.runs: list[_Run] = []
        self.count = 1
        self.guess: NDArray | None = None
        self.first_objective = np.inf
        self.grid: list[dict[str, Any]] = []

    def run(self, starts: list[NDArray]) -> Solution:
        self.count = len(starts)
        try:
            rate = self._chosen_rate(starts[0])
            for number, weights in enumerate(starts[1:], start=2):
                if rate is not None:
                    self._full_run(number, weights, rate)
            return self._finished()
        except (Stop, KeyboardInterrupt) as stop:
            if not self.runs:  # interrupted before there was anything to keep
                raise
            status = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
            return self._solution(min(self.runs, key=_objective), status)

    # -- runs --------------------------------------------------------------------------------------

    def _chosen_rate(self, weights: NDArray) -> float | None:
        """Best rate of the grid (or the only one), after its full run; None if all diverged."""
        given, epochs = self.optimizer.rate, self.optimizer.epochs
        rates = self.optimizer.rates if given is None else (given,)
        pilot = min(epochs, max(PILOT_LEAST, round(PILOT_SHARE * epochs)))
        self.grid = [{"rate": float(rate), "pilot_objective": None, "objective": None}
                     for rate in rates]
        chosen = self.grid
        if len(rates) > FINALISTS and pilot < epochs:
            for row in self.grid:
                run = self._begin(1, weights, row["rate"], pilot=True)
                self._descend(run, self._stage(row["rate"], pilot), f"pilot, rate {run.rate:g}")
                row["pilot_objective"] = None if run.diverged else run.objective
            finite = [row for row in self.grid if row["pilot_objective"] is not None]
            chosen = sorted(finite, key=lambda row: row["pilot_objective"])[:FINALISTS]
        for row in chosen:
            run = self._full_run(1, weights, row["rate"])
            row["objective"] = None if run.diverged else run.objective
        ended = [row for row in chosen if row["objective"] is not None]
        return min(ended, key=lambda row: row["objective"])["rate"] if ended else None

    def _begin(self, start: int, weights: NDArray, rate: float, pilot: bool = False) -> _Run:
        self.sweeps.steps = self.steps
        objective = self.sweeps.objective(weights)
        if not np.isfinite(objective) and self.guess is not None:
            raise ValueError("initial_guess: expected a network of finite objective, "
                             f"got {objective}")
        objective = objective if np.isfinite(objective) else np.inf
        self.first_objective = min(self.first_objective, objective)
        self.runs.append(_Run(start, float(rate), np.array(weights), self.steps, objective, pilot))
        return self.runs[-1]

    def _full_run(self, start: int, weights: NDArray, rate: float) -> _Run:
        optimizer = self.optimizer
        run = self._begin(start, weights, rate)
        label = f"start {start}/{self.count}, " if self.count > 1 else ""
        label += f"rate {rate:g}"
        self._descend(run, self._stage(rate, optimizer.epochs), label, self._total)
        if isinstance(optimizer, Adam) and optimizer.sgd_epochs and not run.diverged:
            self._descend_on(run, label)
        return run

    def _descend_on(self, run: _Run, label: str) -> None:
        """Gradient descent where Adam ended."""
        given = self.optimizer.sgd_rate
        run.sgd_rate = self._tail_rate(run, label) if given is None else float(given)
        if run.sgd_rate is None:
            run.notes.append("no rate of gradient descent went below where Adam ended")
            return
        label += f", then gradient descent at {run.sgd_rate:.2g}"
        self._descend(run, self._tail(run.sgd_rate, self.optimizer.sgd_epochs), label, self._total)
        if run.diverged and given is None:
            run.diverged = False  # Adam's end stands; the rate was not the user's choice
            run.notes.append(f"gradient descent at {run.sgd_rate:.2g} diverged; its best is kept")

    def _tail_rate(self, run: _Run, label: str) -> float | None:
        """Largest curvature first, then trials downwards until they get worse."""
        optimizer = self.optimizer
        self.sweeps.steps = run.steps
        curvature = largest_curvature(self.sweeps, run.weights, self.seed)
        if not np.isfinite(curvature) or curvature <= 0:
            return None
        epochs = max(1, round(TRIAL_SHARE * optimizer.sgd_epochs))
        best, chosen = run.objective, None
        for k in range(TRIALS):
            rate = (1 + optimizer.momentum) / curvature / 3**k
            trial = replace(run, notes=[])
            self._descend(trial, self._tail(rate, epochs), f"{label}, trial of {rate:.2g}")
            if trial.objective < best and not trial.diverged:
                best, chosen = trial.objective, rate
            elif chosen is not None:
                break
        return chosen

    def _descend(self, run: _Run, stage: _Stage, label: str, total: int | None = None) -> None:
        """Run one stage from the run's best network, which it replaces where it gets lower.

        Raises
        ------
        Stop
            When the callback or the clock ends the training; the run is up to date then.
        """
        rates, before = stage.rates, run.epochs
        total = stage.epochs if total is None else total
        adapting = self.adaptive and run.epochs == 0
        chunk = min(_chunk(self.problem, len(run.steps)), ADAPT_EVERY if adapting else 50)
        self.sweeps.steps = run.steps
        loop = EpochLoop(self.sweeps, run.weights, adam=stage.adam, beta1=stage.beta1,
                         beta2=stage.beta2, epsilon=stage.epsilon)
        loop.best = run.objective
        clock, spent = self.watch.seconds, run.seconds
        for done in range(0, stage.epochs, chunk):
            if adapting and 0 < done <= ADAPT_SHARE * stage.epochs and done % ADAPT_EVERY == 0:
                self._adapt(run, loop)
            values = loop.run(rates[done : done + chunk])
            objective = loop.evaluate() if np.isfinite(values[-1]) else np.nan
            run.objective, run.weights = loop.best, loop.best_weights.copy()
            run.epochs = before + done + len(values)
            run.seconds = spent + self.watch.seconds - clock
            run.diverged = not np.isfinite(objective)
            self.watch.stage = f"{label}, epoch {run.epochs}/{total}"
            if run.diverged:
                self.watch.record(np.inf)
                return
            self.watch.record(objective, self.sweeps.stationarity(loop.weights))

    def _adapt(self, run: _Run, loop: EpochLoop) -> None:
        """Move the steps towards equal changes; best is what the present network makes of them."""
        sweeps, old = self.sweeps, self.sweeps.steps
        try:
            new = adaptive_update(sweeps.representations, old, self.problem.effective_depth,
                                  ADAPT_DAMPING)
        except ValueError:  # a representation died: relative changes are undefined
            return
        sweeps.steps = new
        value = sweeps.objective(loop.weights)
        if not np.isfinite(value):
            sweeps.steps = old
            return
        loop.best = value
        loop.best_weights[:] = loop.weights
        run.steps, run.objective, run.weights = new, value, loop.weights.copy()

    # -- parts -------------------------------------------------------------------------------------

    @property
    def _total(self) -> int:
        return self.optimizer.epochs + getattr(self.optimizer, "sgd_epochs", 0)

    def _stage(self, rate: float, epochs: int) -> _Stage:
        o = self.optimizer
        if isinstance(o, Adam):
            return _Stage(True, rate, epochs, o.schedule, o.beta1, o.beta2, o.epsilon)
        return _Stage(False, rate, epochs, o.schedule, o.momentum)

    def _tail(self, rate: float, epochs: int) -> _Stage:
        return _Stage(False, rate, epochs, self.optimizer.schedule, self.optimizer.momentum)

    def _finished(self) -> Solution:
        """All runs are over: which to return, and what to say of it."""
        full = [run for run in self.runs if not run.pilot]
        steady = [run for run in full if not run.diverged]
        if not steady:
            return self._solution(min(self.runs, key=_objective), Status.DIVERGED)
        run = min(steady, key=_objective)
        status = Status.TRAINED
        if not run.objective < self.first_objective:
            run.notes.append(f"nothing below the start's objective {self.first_objective:.6g}")
            if self.guess is None:
                status = Status.STALLED
                run.notes.append("try smaller rates")
        return self._solution(run, status)

    def _solution(self, run: _Run, status: Status) -> Solution:
        if self.guess is not None and run.objective > self.first_objective:
            # Only while steps adapt: otherwise the guess is the first network that a run sees.
            run = replace(run, weights=self.guess, steps=self.steps)
        own = [other for other in self.runs if not other.pilot and other.rate == run.rate]
        seconds = sum(other.seconds for other in own) if own else self.watch.seconds
        extra = {"rate": run.rate, "sgd_rate": run.sgd_rate, "grid": self.grid,
                 "start_objectives": [float(other.objective) for other in own]}
        if len(self.grid) > 1:
            extra["grid_seconds"] = self.watch.seconds
        name = "adam" if isinstance(self.optimizer, Adam) else "sgd"
        solution = solution_from_weights(
            self.problem, run.weights, run.steps, status=status,
            success=status is Status.TRAINED, method=f"gradient descent ({name})", nit=run.epochs,
            history=thinned(self.watch.history, HISTORY), seconds=seconds, extra=extra,
        )
        details = "; ".join([*self._notes(run, own), *run.notes])
        return solution.replace(message=f"{solution.message} ({details})")

    def _notes(self, run: _Run, own: Sequence[_Run]) -> list[str]:
        notes = [f"rate {run.rate:g}"]
        if len(self.grid) > 1:
            notes[0] += f", chosen from {len(self.grid)}"
            rates = [row["rate"] for row in self.grid]
            if run.rate in (min(rates), max(rates)):
                notes.append("it lies at the edge of the grid, a wider one may do better")
        if self.count > 1:
            low, high = min(map(_objective, own)), max(map(_objective, own))
            notes.append(f"best of {len(own)} starts, J from {low:.6g} to {high:.6g}")
        return notes


def largest_curvature(sweeps: EulerSweeps, weights: NDArray, seed: int = 0,
                      iterations: int = 20) -> float:
    """Largest |eigenvalue| of ∂²J/∂W² at `weights`, from below, by power iteration.

    Products with the Hessian are central differences of gradients; across kinks of ReLU they
    average. Cost: 2·iterations gradients.
    """
    direction = np.random.default_rng([seed, 13]).standard_normal(weights.shape)
    length, estimate = 1e-5 * max(1.0, float(np.linalg.norm(weights))), 0.0
    for _ in range(iterations):
        direction *= length / np.linalg.norm(direction)
        forward = sweeps.gradient(weights + direction)[1].copy()
        direction = 0.5 * (forward - sweeps.gradient(weights - direction)[1])
        estimate = float(np.linalg.norm(direction)) / length
        if not np.isfinite(estimate) or estimate == 0:
            break
    return estimate


def _chunk(problem: TrainingProblem, layers: int) -> int:
    """Epochs between records: few where each is long, since Ctrl-C waits for the compiled loop."""
    flops = layers * problem.width * problem.n_samples * (6 * problem.width + 30)
    return max(c for c in CHUNKS if c == 1 or c * flops <= CHUNK_FLOPS)


def _objective(run: _Run) -> float:
    return run.objective
