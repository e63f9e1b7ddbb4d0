"""Gradient descent on the controls of a layered network, full batch: the usual training.

It is the baseline that optimal control is measured against, so it gets the same network, the same
start and a fair chance: the paper's recipe (Adam, then plain gradient descent with a smaller rate)
with the learning rate and its schedule chosen from a grid.

*The grid.* Every rate runs a pilot with every schedule, a fifth of the epochs with the whole
schedule compressed into it, because a rate must be judged by where its decay ends and not by its
first noisy epochs. Pilots only rank the rates of one schedule and never one schedule against
another: how soon a schedule arrives says little about where it ends, a cosine, say, arrives only at
its end. The two best rates of each schedule (`finalists`) then run in full from the start, as a
short run slightly favours large rates, and the lowest end wins. A constant rate and one that decays
at last are the same run up to the decay, which leaves the constant run there and costs a fifth of
one. Runs whose numbers become non-finite are out. Everything tried is listed in
`Solution.extra["grid"]`.

*The descent after Adam.* Its rate is set by curvature, since a rate of gradient descent, unlike one
of Adam, has units: with κ the largest curvature where Adam ended, gradient descent with momentum β
is stable below 2(1 + β)/κ. Trials from (1 + β)/κ downwards, a third each time, pick the rate; its
schedule is Adam's. Both stages return the best network they saw, by the problem's own objective,
which can only help the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import EulerSweeps, blas_threads
from hamshoot.methods.common.starts import STARTS, start_seeds, starting_weights, weights_of
from hamshoot.methods.common.watch import Stop, Watch, thinned
from hamshoot.methods.descent.optimizers import SGD, Adam, held_epochs, schedule_factors
from hamshoot.network.layer_steps import adaptive_update, steps_of
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.support.checks import check_choice, check_count, check_layers, check_positive

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

STEPS = ("equidistant", "irregular", "adaptive")
#: Length of a pilot: this share of the epochs, and at least so many.
PILOT_SHARE, PILOT_LEAST = 0.2, 200
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
        As for the solvers, see `hamshoot.methods.common.starts`.
    starts : int
        Best of so many. Rate and schedule are chosen on the first and kept for the others.
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
        DIVERGED when the numbers of every run became non-finite, STALLED when none went below the
        start; INTERRUPTED and TIME_LIMIT keep the best network so far. `nit` counts the epochs of
        the run returned, `seconds` its time from the start on (of all runs at its rate and
        schedule, if there are several starts). In `extra`: "rate", "schedule" and "sgd_rate" used,
        "grid" (a row a rate and schedule: objectives of its pilot and its full run, None where it
        has none or diverged), "grid_seconds" (all of it, pilots and runners-up too; only if a grid
        was tried), "start_objectives".

    Raises
    ------
    ValueError
        For a hard endpoint, an option out of range, or a guess that does not fit.

    Notes
    -----
    An epoch costs 6Lw²N flops, and a few passes over the Lw(w+1) controls. With the default grid, 6
    rates and 3 schedules, a training costs 7 to 9 full runs: of the pilots, a fifth long, a rate
    needs 1 (constant), 0.2 (decay) and 1 (cosine), together 2.6 times Adam's epochs; the finalists
    4.4 times where constant and decay agree on their two rates, else up to 6, and each has its own
    descent afterwards. One schedule alone costs about 3.5, a given rate and schedule one; where
    time is limited, give them, since the pilots count too.
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
    """Descent from one start at one rate and schedule: its best network, and what it took."""

    start: int
    rate: float
    schedule: str
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
        return self.rate * schedule_factors(self.schedule, self.epochs)


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
    count : int
        Epochs done.
    """

    def __init__(self, sweeps: EulerSweeps, weights: NDArray, *, adam: bool, beta1: float,
                 beta2: float = 0.0, epsilon: float = 0.0):
        self.sweeps = sweeps
        self.weights = np.array(weights, dtype=float, order="C")
        self.best_weights, self.best = self.weights.copy(), np.inf
        self._settings = (bool(adam), float(beta1), float(beta2), float(epsilon))
        self._moments = np.zeros_like(self.weights), np.zeros_like(self.weights)
        self.count = 0

    def copy(self) -> EpochLoop:
        """Make another one that goes on from here, on the same sweeps."""
        adam, beta1, beta2, epsilon = self._settings
        other = EpochLoop(self.sweeps, self.weights, adam=adam, beta1=beta1, beta2=beta2,
                          epsilon=epsilon)
        other.best_weights, other.best = self.best_weights.copy(), self.best
        other._moments = tuple(moment.copy() for moment in self._moments)
        other.count = self.count
        return other

    def run(self, rates: ArrayLike) -> NDArray:
        """One epoch a rate; J before each update. Ends early at the first that is not finite."""
        from hamshoot.dynamics import _kernels

        rates = np.asarray(rates, dtype=float)
        values = np.full(len(rates), np.nan)
        done, self.best = _kernels.epochs(
            rates, *self._settings, self.count, *self._moments, float(self.best),
            self.best_weights, values, self.weights, *self.sweeps.arguments,
        )
        self.count += done
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
            chosen = self._chosen(starts[0])
            if chosen is not None:
                rate, schedule = chosen
                for number, weights in enumerate(starts[1:], start=2):
                    self._full_runs(number, weights, rate, [schedule])
            return self._finished()
        except (Stop, KeyboardInterrupt) as stop:
            if not self.runs:  # interrupted before there was anything to keep
                raise
            status = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
            return self._solution(min(self.runs, key=_objective), status)

    # -- runs --------------------------------------------------------------------------------------

    def _chosen(self, weights: NDArray) -> tuple[float, str] | None:
        """Best rate and schedule of the grid by full runs; None if all of them diverged."""
        optimizer = self.optimizer
        rates = optimizer.rates if optimizer.rate is None else (optimizer.rate,)
        schedules = (optimizer.schedules if optimizer.schedule is None
                     else (optimizer.schedule,))
        self.grid = [{"rate": float(rate), "schedule": schedule, "pilot_objective": None,
                      "objective": None} for rate in rates for schedule in schedules]
        chosen = self.grid
        pilot = min(optimizer.epochs, max(PILOT_LEAST, round(PILOT_SHARE * optimizer.epochs)))
        if len(rates) > optimizer.finalists and pilot < optimizer.epochs:
            for rate in rates:
                for run in self._runs(1, weights, rate, schedules, pilot, pilot=True):
                    self._row(run)["pilot_objective"] = None if run.diverged else run.objective
            chosen = [row for schedule in schedules for row in self._finalists(schedule)]
        for rate in dict.fromkeys(row["rate"] for row in chosen):
            entered = [row["schedule"] for row in chosen if row["rate"] == rate]
            self._full_runs(1, weights, rate, entered)
        ended = [row for row in chosen if row["objective"] is not None]
        best = min(ended, key=lambda row: row["objective"], default=None)
        return None if best is None else (best["rate"], best["schedule"])

    def _finalists(self, schedule: str) -> list[dict[str, Any]]:
        """Rows of a schedule whose pilots ended lowest."""
        ended = [row for row in self.grid
                 if row["schedule"] == schedule and row["pilot_objective"] is not None]
        return sorted(ended, key=lambda row: row["pilot_objective"])[: self.optimizer.finalists]

    def _row(self, run: _Run) -> dict[str, Any]:
        return next(row for row in self.grid
                    if (row["rate"], row["schedule"]) == (run.rate, run.schedule))

    def _full_runs(self, start: int, weights: NDArray, rate: float,
                   schedules: Sequence[str]) -> None:
        """Both stages at one rate, with each of the schedules."""
        optimizer = self.optimizer
        for run in self._runs(start, weights, rate, schedules, optimizer.epochs):
            if isinstance(optimizer, Adam) and optimizer.sgd_epochs and not run.diverged:
                self._descend_on(run, self._label(run))
            if start == 1:
                self._row(run)["objective"] = None if run.diverged else run.objective

    def _runs(self, start: int, weights: NDArray, rate: float, schedules: Sequence[str],
              epochs: int, pilot: bool = False) -> Iterator[_Run]:
        """First stage at one rate, a run a schedule: constant and decay share what they can."""
        if "cosine" in schedules:
            run = self._begin(start, weights, rate, "cosine", pilot)
            self._descend(run, self._stage(run, epochs), self._label(run), self._total(run, epochs))
            yield run
        holding = [schedule for schedule in schedules if schedule != "cosine"]
        if not holding:
            return
        run = self._begin(start, weights, rate, holding[0], pilot)
        stage, total = self._stage(run, epochs), self._total(run, epochs)
        loop = self._loop(run, stage)
        self._advance(run, loop, stage, held_epochs(epochs), self._label(run), total)
        parted = [(run, loop)]
        for schedule in holding[1:]:
            self.runs.append(replace(run, schedule=schedule, notes=[]))
            parted.append((self.runs[-1], loop.copy()))
        for run, loop in parted:
            if not run.diverged:
                self._advance(run, loop, self._stage(run, epochs), epochs, self._label(run), total)
            yield run

    def _begin(self, start: int, weights: NDArray, rate: float, schedule: str,
               pilot: bool) -> _Run:
        self.sweeps.steps = self.steps
        objective = self.sweeps.objective(weights)
        if not np.isfinite(objective) and self.guess is not None:
            raise ValueError("initial_guess: expected a network of finite objective, "
                             f"got {objective}")
        objective = objective if np.isfinite(objective) else np.inf
        self.first_objective = min(self.first_objective, objective)
        self.runs.append(_Run(start, float(rate), schedule, np.array(weights), self.steps,
                              objective, pilot))
        return self.runs[-1]

    def _label(self, run: _Run) -> str:
        """What a record's stage says of a run."""
        begun = "pilot, " if run.pilot else (
            f"start {run.start}/{self.count}, " if self.count > 1 else "")
        return f"{begun}rate {run.rate:g} {run.schedule}"

    def _descend_on(self, run: _Run, label: str) -> None:
        """Gradient descent where Adam ended."""
        given = self.optimizer.sgd_rate
        run.sgd_rate = self._tail_rate(run, label) if given is None else float(given)
        if run.sgd_rate is None:
            run.notes.append("no rate of gradient descent went below where Adam ended")
            return
        label += f", then gradient descent at {run.sgd_rate:.2g}"
        self._descend(run, self._tail(run, run.sgd_rate, self.optimizer.sgd_epochs), label,
                      self._total(run, self.optimizer.epochs))
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
            self._descend(trial, self._tail(trial, rate, epochs),
                          f"{label}, trial of {rate:.2g}", run.epochs + epochs)
            if trial.objective < best and not trial.diverged:
                best, chosen = trial.objective, rate
            elif chosen is not None:
                break
        return chosen

    def _descend(self, run: _Run, stage: _Stage, label: str, total: int) -> None:
        """Run one whole stage from the run's best network."""
        self._advance(run, self._loop(run, stage), stage, stage.epochs, label, total)

    def _loop(self, run: _Run, stage: _Stage) -> EpochLoop:
        """Begin a stage at the run's best network."""
        loop = EpochLoop(self.sweeps, run.weights, adam=stage.adam, beta1=stage.beta1,
                         beta2=stage.beta2, epsilon=stage.epsilon)
        loop.best = run.objective
        return loop

    def _advance(self, run: _Run, loop: EpochLoop, stage: _Stage, end: int, label: str,
                 total: int) -> None:
        """Go on with a stage to an epoch of it; the run's best network is replaced by lower ones.

        Raises
        ------
        Stop
            When the callback or the clock ends the training; the run is up to date then.
        """
        rates, before = stage.rates, run.epochs - loop.count
        adapting = self.adaptive and before == 0
        chunk = min(_chunk(self.problem, len(run.steps)), ADAPT_EVERY if adapting else 50)
        self.sweeps.steps = run.steps
        clock, spent = self.watch.seconds, run.seconds
        for done in range(loop.count, end, chunk):
            if adapting and 0 < done <= ADAPT_SHARE * stage.epochs and done % ADAPT_EVERY == 0:
                self._adapt(run, loop)
            values = loop.run(rates[done : min(done + chunk, end)])
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

    def _total(self, run: _Run, epochs: int) -> int:
        """Epochs of a run with so many in its first stage."""
        return epochs if run.pilot else epochs + getattr(self.optimizer, "sgd_epochs", 0)

    def _stage(self, run: _Run, epochs: int) -> _Stage:
        o = self.optimizer
        if isinstance(o, Adam):
            return _Stage(True, run.rate, epochs, run.schedule, o.beta1, o.beta2, o.epsilon)
        return _Stage(False, run.rate, epochs, run.schedule, o.momentum)

    def _tail(self, run: _Run, rate: float, epochs: int) -> _Stage:
        return _Stage(False, rate, epochs, run.schedule, self.optimizer.momentum)

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
        own = [other for other in self.runs if not other.pilot
               and (other.rate, other.schedule) == (run.rate, run.schedule)]
        seconds = sum(other.seconds for other in own) if own else self.watch.seconds
        extra = {"rate": run.rate, "schedule": run.schedule, "sgd_rate": run.sgd_rate,
                 "grid": self.grid, "start_objectives": [float(other.objective) for other in own]}
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
        notes = [f"rate {run.rate:g}, schedule {run.schedule}"]
        if len(self.grid) > 1:
            notes[0] += f", chosen from {len(self.grid)}"
            rates = sorted({row["rate"] for row in self.grid})
            if len(rates) > 1 and run.rate in (rates[0], rates[-1]):
                notes.append("the rate lies at the edge of the grid, a wider one may do better")
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
