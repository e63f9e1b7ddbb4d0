"""The search for large networks: few samples and layers first, then all, then ever smaller ε.

A coarse problem, an eighth of the samples on half of the layers, costs a sixteenth of the whole and
leads to the same valley, so the way there is walked where it is cheap. Each level begins at the end
of the one before: controls are carried over in depth by interpolation, and hold for any number of
samples. On the whole problem ε begins small, goes back up once and down again, which lowers J by
one or two per cent (a large ε sees further), and then the last ε is converged.

Each level is `KroneckerLBFGS` in single precision; it goes on in double precision where J falls by
less than single precision resolves. Optionally `newton_krylov` takes its place.

Cost: the coarse levels together about that of 60 gradients of the whole problem.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.activations import Activation
from hamshoot.block_sweeps import BlockSweeps, Executor
from hamshoot.discretise import equidistant_steps
from hamshoot.kronecker import KroneckerLBFGS
from hamshoot.newton_krylov import NewtonKrylov
from hamshoot.progress import Best, Watch
from hamshoot.starts import starting_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem import TrainingProblem

#: Samples of the coarsest level, at least, in units of the width; growth from level to level.
FEWEST, GROWTH = 1.25, 4
#: A coarse mesh has half the layers, but no fewer than this times L̃.
LEAST_LAYERS = 1.1
#: ε of the coarse levels, and the first of the whole problem.
COARSE_EPSILON, FIRST_EPSILON = 0.03, 0.01
#: Iterations of a coarse level, of the last of them, and of a stage of the whole problem.
COARSE_ITER, LAST_COARSE_ITER = 200, 100
#: Shares of J by which an iteration has to lower it: on coarse levels, on the way, at the end.
HURRIED, PATIENT, FINAL = 3e-4, 5e-5, 1e-6
#: Iterations between two looks at J of the problem's own activation.
LOOK = 25


class Level(NamedTuple):
    """One level of the schedule; ε = 0 stands for the problem's own activation."""

    samples: int
    layers: int
    epsilon: float
    limit: int
    decrease: float

    def __str__(self) -> str:
        smooth = f", epsilon {self.epsilon:.3g}" if self.epsilon else ""
        return f"{self.samples} samples, {self.layers} layers{smooth}"


def schedule(
    problem: TrainingProblem, layers: int, last: float, limit: int, coarse: bool = True
) -> list[Level]:
    """Levels from coarse to fine.

    Parameters
    ----------
    layers : int
        L of the network asked for.
    last : float
        The last ε; that of a smooth ReLU; 0 for a linear network.
    limit : int
        Most iterations of a level of the whole problem.
    coarse : bool
        Whether to begin with fewer samples and layers; without, only the stages of ε.
    """
    N, levels = problem.n_samples, []
    smooth = bool(last)

    def epsilon(value: float) -> float:
        return max(value, last) if smooth else 0.0

    if coarse:
        few = max(layers // 2, int(np.ceil(LEAST_LAYERS * problem.effective_depth)))
        few = layers if few > 0.75 * layers else few
        samples = int(max(np.ceil(FEWEST * problem.width), N / 8 if N <= 8000 else 0, 8))
        while samples < 0.6 * N:
            levels.append(Level(samples, few, epsilon(COARSE_EPSILON), COARSE_ITER, HURRIED))
            samples *= GROWTH
        if few < layers:
            levels.append(Level(N, few, epsilon(FIRST_EPSILON), LAST_COARSE_ITER, HURRIED))
    ladder = [FIRST_EPSILON]
    if coarse and smooth and problem.activation == "relu":
        ladder += [3 * FIRST_EPSILON, FIRST_EPSILON]
    while smooth and ladder[-1] > last * (1 + 1e-9):
        ladder.append(max(0.3 * ladder[-1], last))
    stages = [epsilon(value) for value in ladder]
    stages = [e for k, e in enumerate(stages) if k == 0 or e != stages[k - 1]]
    paces = [PATIENT] * (len(stages) - 1) + [FINAL]
    if coarse and len(stages) > 2:
        paces[:2] = [HURRIED, 2 * PATIENT]
    return levels + [Level(N, layers, e, limit, pace)
                     for e, pace in zip(stages, paces, strict=True)]


@dataclass
class Multilevel:
    """Walks the levels for one problem; keeps the best network of the problem's own activation.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss.
    steps : ndarray, shape (L,)
    watch : Watch
    executor : Executor
    tol : float
        For the stationarity at the last level.
    gradient_tol : float
        Share of the first ‖∇J‖ at which the last level may end as soon as J hardly falls; 0 has it
        go on to `tol`.
    optimizer : {"kronecker", "gauss_newton"}
    memory : int
        Pairs of the quasi-Newton method.
    seed : int
        Of the order in which samples are taken, and of the probes.

    Attributes
    ----------
    best : Best
        By J of the problem's own activation.
    stationarity, objective, relative_gradient : float
        Of the last iterate, with the ε of its level; ‖∇J‖ relative to where the walk began.
    epsilon : float
        Of that level.
    gradients, products : int
        Sweeps counted over all levels.
    trace : list of (float, float)
        Seconds, and J of the problem's own activation, at every look.
    """

    problem: TrainingProblem
    steps: NDArray
    watch: Watch
    executor: Executor
    tol: float
    gradient_tol: float = 1e-4
    optimizer: str = "kronecker"
    memory: int = 20
    seed: int = 0
    best: Best = field(default_factory=Best)
    objective: float = float("inf")
    stationarity: float = float("inf")
    relative_gradient: float = float("nan")
    epsilon: float = 0.0
    gradients: int = 0
    products: int = 0
    trace: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._own = BlockSweeps(self.problem, self.steps, executor=self.executor)
        self._first_gradient = float("nan")
        order = np.random.default_rng([self.seed, 17]).permutation(self.problem.n_samples)
        self._order = order
        self._running: KroneckerLBFGS | NewtonKrylov | None = None

    def walk(self, weights: NDArray | None, levels: list[Level], start: tuple) -> NDArray:
        """Go through the levels from given controls, or from a named start.

        Parameters
        ----------
        weights : ndarray or None
            Controls of the first level's number of layers.
        levels : list of Level
        start : tuple
            Name, seed and noise of `starting_weights`, where there are no controls.
        """
        for level in levels:
            problem, steps = self._part(level)
            if weights is None:
                name, seed, noise = start
                weights = starting_weights(problem, steps, name, seed, noise)
            weights = prolong(weights, steps)
            self.watch.stage = str(level)
            weights = self._run(level, problem, steps, weights)
        return weights

    def rescue(self) -> None:
        """Offer the last iterate of a walk that was stopped, whatever its level."""
        if self._running is not None:
            optimizer = self._running
            weights = optimizer.latest
            if weights.size and np.all(np.isfinite(weights)):
                self.offer_coarse(weights)
                self._note(optimizer)

    def offer(self, weights: NDArray) -> float:
        """J of the problem's own network; kept if it is the best so far."""
        value = self._own.objective(weights)
        self.best.offer(value, weights)
        self.trace.append((self.watch.seconds, value))
        return value

    def offer_coarse(self, weights: NDArray) -> float:
        """The same for controls on a coarse mesh."""
        return self.offer(prolong(weights, self.steps))

    # -- one level ---------------------------------------------------------------------------------

    def _run(self, level: Level, problem, steps: NDArray, weights: NDArray) -> NDArray:
        activation = Activation("smooth_relu", level.epsilon) if level.epsilon else problem.sigma
        optimizer: KroneckerLBFGS | NewtonKrylov
        whole = len(steps) == len(self.steps) and problem is self.problem
        last = level.decrease <= FINAL
        for dtype in (np.float32, np.float64) if last else (np.float32,):
            sweeps = BlockSweeps(problem, steps, activation, dtype=dtype, executor=self.executor)
            if self.optimizer == "kronecker":
                optimizer = KroneckerLBFGS(sweeps, self.memory)
            else:  # Gauss–Newton crawls at the end, where the network's own curvature counts
                optimizer = NewtonKrylov(sweeps, hessian=last)
            self._running, self.epsilon = optimizer, level.epsilon
            count = 0

            def report(J: float, stationarity: float, optimizer=optimizer) -> None:
                nonlocal count
                count += 1
                self.watch.record(J, stationarity)
                if whole and count % LOOK == 0:
                    self.offer(optimizer.latest)

            low = self.gradient_tol * self._first_gradient if dtype is np.float64 else np.inf
            weights = optimizer.minimise(weights, level.limit, tol=self.tol, gradient=low,
                                         decrease=level.decrease, callback=report)
            if np.isnan(self._first_gradient):
                self._first_gradient = optimizer.first_gradient
            self.gradients += sweeps.gradients
            self.products += sweeps.products
            self._note(optimizer)
            if whole:
                self.offer(weights)
        return weights

    def _note(self, optimizer: KroneckerLBFGS | NewtonKrylov) -> None:
        self.objective, self.stationarity = optimizer.objective, optimizer.stationarity
        self.relative_gradient = optimizer.gradient_norm / self._first_gradient

    def _part(self, level: Level) -> tuple[TrainingProblem, NDArray]:
        """The level's samples, in an order drawn once, and its steps."""
        problem, steps = self.problem, self.steps
        if level.samples < problem.n_samples:
            problem = problem.subset(np.sort(self._order[: level.samples]))
        if level.layers != len(steps):
            steps = equidistant_steps(level.layers)
        return problem, steps


def prolong(weights: NDArray, steps: NDArray) -> NDArray:
    """Controls on another mesh, (L, w, w+1): linear between the middles of the layers."""
    if len(weights) == len(steps):
        return weights
    old = (np.arange(len(weights)) + 0.5) / len(weights)
    new = np.cumsum(steps) - steps / 2
    k = np.clip(np.searchsorted(old, new) - 1, 0, max(len(old) - 2, 0))
    if len(old) == 1:
        return np.repeat(weights, len(steps), axis=0)
    t = np.clip((new - old[k]) / (old[k + 1] - old[k]), 0, 1)[:, None, None]
    return (1 - t) * weights[k] + t * weights[k + 1]
