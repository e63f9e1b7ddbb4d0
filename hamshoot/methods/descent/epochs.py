"""Epochs of gradient descent: one stage of a run, its records, and steps that adapt on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.dynamics.learned_sweeps import sweeps_of
from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.common.watch import Watch
from hamshoot.methods.descent.optimizers import schedule_factors
from hamshoot.network.layer_steps import adaptive_update
from hamshoot.problem.training_problem import TrainingProblem

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Adaptive steps are updated every so many epochs, over this share of the first stage; then held.
ADAPT_EVERY, ADAPT_SHARE, ADAPT_DAMPING = 10, 0.8, 0.5
#: Epochs between records, the largest of these that take about CHUNK_FLOPS (a tenth of a second).
CHUNKS, CHUNK_FLOPS = (1, 2, 5, 10, 25, 50), 2e8
#: The same, further, where records are to cost nothing.
SPARSE_CHUNKS = (100, 250, 500, 1000)


@dataclass
class Run:
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
class Stage:
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
            self.sweeps.place, rates, *self._settings, self.count, *self._moments,
            float(self.best), self.best_weights, values, self.weights, *self.sweeps.arguments,
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


class Descent:
    """Runs of one training, advanced stage by stage.

    Parameters
    ----------
    problem : TrainingProblem
    steps : ndarray, shape (L,)
        Where every run begins.
    adaptive : bool
        Whether the steps of a run adapt in its first stage.
    guess : ndarray or None
        Given controls, which have to be of finite objective.
    watch : Watch
        All controls are stacked with the maps that the problem learns.
    sparse : bool
        Records are fewer, and without a stationarity: a twentieth of the time of small
        networks, w = 6, N = 30, L = 20.

    Attributes
    ----------
    runs : list of Run
    first_objective : float
        The lowest J that a run began with.
    """

    def __init__(self, problem: TrainingProblem, steps: NDArray, adaptive: bool,
                 guess: NDArray | None, watch: Watch, sparse: bool = False):
        self.problem, self.steps, self.adaptive = problem, steps, adaptive
        self.guess, self.watch, self.sparse = guess, watch, sparse
        self.sweeps = sweeps_of(problem, steps)
        self.runs: list[Run] = []
        self.first_objective = np.inf

    def begin(self, start: int, weights: NDArray, rate: float, schedule: str,
               pilot: bool) -> Run:
        """Start a run; it is among `runs` from now on."""
        self.sweeps.steps = self.steps
        objective = self.sweeps.objective(weights)
        if not np.isfinite(objective) and self.guess is not None:
            raise ValueError("initial_guess: expected a network of finite objective, "
                             f"got {objective}")
        objective = objective if np.isfinite(objective) else np.inf
        self.first_objective = min(self.first_objective, objective)
        self.runs.append(Run(start, float(rate), schedule, np.array(weights), self.steps,
                              objective, pilot))
        return self.runs[-1]

    def descend(self, run: Run, stage: Stage, label: str, total: int) -> None:
        """Run one whole stage from the run's best network."""
        self.advance(run, self.loop(run, stage), stage, stage.epochs, label, total)

    def loop(self, run: Run, stage: Stage) -> EpochLoop:
        """Begin a stage at the run's best network."""
        loop = EpochLoop(self.sweeps, run.weights, adam=stage.adam, beta1=stage.beta1,
                         beta2=stage.beta2, epsilon=stage.epsilon)
        loop.best = run.objective
        return loop

    def advance(self, run: Run, loop: EpochLoop, stage: Stage, end: int, label: str,
                 total: int) -> None:
        """Go on with a stage to an epoch of it; the run's best network is replaced by lower ones.

        Raises
        ------
        Stop
            When the callback or the clock ends the training; the run is up to date then.
        """
        rates, before = stage.rates, run.epochs - loop.count
        adapting = self.adaptive and before == 0
        chunks = (*CHUNKS, *SPARSE_CHUNKS) if self.sparse else CHUNKS
        chunk = min(_chunk(self.problem, len(run.steps), chunks),
                    ADAPT_EVERY if adapting else chunks[-1])
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
            self.watch.record(objective, np.nan if self.sparse else
                              self.sweeps.stationarity(loop.weights))

    def _adapt(self, run: Run, loop: EpochLoop) -> None:
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


def _chunk(problem: TrainingProblem, layers: int, chunks: tuple[int, ...]) -> int:
    """Epochs between records: few where each is long, since Ctrl-C waits for the compiled loop."""
    flops = layers * problem.width * problem.n_samples * (6 * problem.width + 30)
    return max(c for c in chunks if c == 1 or c * flops <= CHUNK_FLOPS)
