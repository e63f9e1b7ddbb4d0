"""The search for large networks: few samples and layers first, then all, then ever smaller ε.

A coarse problem, an eighth of the samples on half of the layers, costs a sixteenth of the whole and
leads to the same valley, so the way there is walked where it is cheap. Each level begins at the end
of the one before: on a finer mesh the controls are interpolated or, where that is bad, follow the
path of the coarse network; they hold for any number of samples. On the whole problem ε goes down
from 0.03, because a large ε sees further, and then the last ε is converged. Beyond 8000 samples ε
visits 0.01 first, quickly: a stage there takes minutes, and ReLU's own J falls sooner that way.

Each level is `KroneckerLBFGS` in single precision; optionally `TrustRegionNewton` takes its place.
The last level takes most of the time: its valley is long, shallow and curved
(`demos/benchmarks/paper_size.py --smooth`). What counts is the number of gradients, and they are
cheapest in single precision (`demos/benchmarks/samples.py`). Where J falls by little an iteration
there, it *settles*: `hamshoot.methods.single_shooting.minimal_residual` makes the gradient small,
which L-BFGS, always on its way along the valley, does not for a long time; first in single
precision, then, for the last iterations, in double. Where it does not become small enough, the
walk goes on, and settles again later. How slow J has to fall is the effort: the valley goes on for
long with a J a few thousandths lower (`paper_size.py --smooth --effort thorough`).

Cost: up to 8000 samples the coarse levels together take about that of 100 iterations on the whole
problem; with more, those of fewer samples add up to a third of that of the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.dynamics.block_sweeps import BlockSweeps, Executor
from hamshoot.methods.common.kept import Midway, Step, kept
from hamshoot.methods.common.starts import starting_weights, weights_of
from hamshoot.methods.common.watch import Best, Stop, Watch
from hamshoot.methods.single_shooting.kronecker import KroneckerLBFGS
from hamshoot.methods.single_shooting.minimal_residual import MinimalResidual
from hamshoot.methods.single_shooting.optimizer import Ended, Optimizer
from hamshoot.methods.single_shooting.trust_region import TrustRegionNewton
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.solution.solution import Status
from hamshoot.support.interpolation import interpolate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.training_problem import TrainingProblem

#: Samples of the coarsest level, at least, in units of the width; growth from level to level.
FEWEST, GROWTH = 1.25, 4
#: A coarse mesh has half the layers, but no fewer than this times L̃.
LEAST_LAYERS = 1.1
#: ε of the coarse levels, and the first of the whole problem.
COARSE_EPSILON, FIRST_EPSILON = 0.03, 0.01
#: Iterations of a coarse level, of the last of them, and of a stage of the whole problem.
COARSE_ITER, LAST_COARSE_ITER = 120, 60
#: The last level ends by its tolerances, or the caller's limits.
UNLIMITED = 10**9
#: Most samples of a level with few layers: more of them go with all layers.
MOST_COARSE = 8000
#: Samples on which a path is followed from mesh to mesh: so many, and so many a neuron.
FOLLOWED, FOLLOWED_EACH = 500, 4
#: How much higher the J of interpolated controls may be than that of followed ones.
PREFERENCE = 10.0
#: ε below which single precision loses σ″.
LEAST_SINGLE = 1e-6
#: Shares of J by which an iteration has to lower it: on coarse levels, on the way, at the end.
HURRIED, PATIENT, FINAL = 3e-4, 5e-5, 1e-6
#: Shares of J an iteration below which the last level settles, by effort, one after the other.
PACES = {"quick": (1e-5, 3e-6, FINAL), "default": (3e-6, 2e-6, FINAL),
         "thorough": (FINAL, FINAL / 3)}
#: Iterations of an attempt to settle; three times as many follow where it came this near.
SETTLE_ITER, NEAR = 120, 2.0
#: Iterations between two looks at J of the problem's own activation, and the first looks.
LOOK, FIRST_LOOKS = 25, (5, 10, 15, 20)


class Phase(NamedTuple):
    """One run of an optimiser on a level: precision, and when it ends.

    Attributes
    ----------
    settles : bool
        Whether it makes the gradient small, rather than J.
    ends : bool
        Whether it is the last one, unless numbers overflow.
    """

    dtype: type
    limit: int
    decrease: float
    gradient: float
    settles: bool = False
    ends: bool = False


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
        Most iterations of a level of the whole problem, the last excepted.
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
            on = few if samples <= MOST_COARSE else layers
            levels.append(Level(samples, on, epsilon(COARSE_EPSILON), COARSE_ITER, HURRIED))
            samples *= GROWTH
        if few < layers and N <= MOST_COARSE:
            levels.append(Level(N, few, epsilon(FIRST_EPSILON), LAST_COARSE_ITER, HURRIED))
    warm = coarse and smooth and problem.sigma.kinked
    ladder = [3 * FIRST_EPSILON, FIRST_EPSILON] if warm else [FIRST_EPSILON]
    if warm and N > MOST_COARSE:  # a small ε first: there a time limit may end the first stage
        ladder = [FIRST_EPSILON, *ladder]
    while smooth and ladder[-1] > last * (1 + 1e-9):
        ladder.append(max(0.3 * ladder[-1], last))
    stages = [epsilon(value) for value in ladder]
    stages = [e for k, e in enumerate(stages) if k == 0 or e != stages[k - 1]]
    paces = [PATIENT] * (len(stages) - 1) + [FINAL]
    limits = [limit] * (len(stages) - 1) + [UNLIMITED]
    if warm and len(stages) > 2:
        paces[:2] = [HURRIED, 2 * PATIENT] if N > MOST_COARSE else [2 * PATIENT, PATIENT]
    return levels + [Level(N, layers, *stage) for stage in zip(stages, limits, paces, strict=True)]


#: What is measured of the last iterate of a level.
MEASURED = ("objective", "stationarity", "relative_gradient", "epsilon")


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
        Share of the ‖∇J‖ of the path fit at which the last level may end as soon as J hardly falls;
        0 has it go on to `tol`.
    optimizer : {"kronecker", "gauss_newton"}
    memory : int
        Pairs of the quasi-Newton method.
    seed : int
        Of the order in which samples are taken, and of the probes.
    paces : tuple of float
        Shares of J an iteration below which the last level tries to settle.

    Attributes
    ----------
    best : Best
        By J of the problem's own activation.
    stationarity, objective, relative_gradient : float
        Of the last iterate, with the ε of its level; the relative gradient is ‖∇J‖ over that of the
        path fit.
    ended : Ended
        Why the last level did.
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
    paces: tuple[float, ...] = PACES["default"]
    best: Best = field(default_factory=Best)
    objective: float = float("inf")
    stationarity: float = float("inf")
    relative_gradient: float = float("nan")
    epsilon: float = 0.0
    gradients: int = 0
    products: int = 0
    trace: list[tuple[float, float]] = field(default_factory=list)
    ended: Ended = Ended.LIMIT

    def __post_init__(self) -> None:
        self._own = BlockSweeps(self.problem, self.steps, executor=self.executor)
        self._first_gradient = self._gradient_of_the_path_fit()
        order = np.random.default_rng([self.seed, 17]).permutation(self.problem.n_samples)
        self._order = order
        self._latest: NDArray | None = None
        self._running: Optimizer | None = None
        self._count = 0  # iterations of a level

    def _gradient_of_the_path_fit(self) -> float:
        """‖∇J‖ of the path fit of seed 0, on some samples: what gradients are measured against.

        Not that of the start in use, which may explode, nor that where the whole problem is begun
        with, which is small after a good walk on the coarse levels.
        """
        problem = _sample(self.problem)
        sigma = problem.sigma.smoothed(COARSE_EPSILON)
        with np.errstate(all="ignore"):
            start = starting_weights(problem, self.steps, "path", 0)
            gradient = BlockSweeps(problem, self.steps, sigma).gradient(start)[1]
        return float(np.linalg.norm(gradient))

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
            elif len(weights) != len(steps):
                weights = _handed_over(weights, problem, steps, self.executor, PREFERENCE)
            self.watch.stage = str(level)
            self._latest = weights
            weights = self._latest = self._run(level, problem, steps, weights)
        assert weights is not None  # there is at least one level
        return weights

    def stay(self, executor: Executor | None) -> None:
        """From now on do all sweeps by another executor, the plain loop by default."""
        self._own = BlockSweeps(self.problem, self.steps, executor=executor)
        self.executor = self._own.executor

    def rescue(self) -> None:
        """Offer the last iterate of a walk that was stopped, whatever its level."""
        weights = self._latest
        if self._running is not None and self._running.latest.size:
            weights = self._running.latest
            self._note(self._running)
        if weights is not None and np.all(np.isfinite(weights)):
            self.offer_coarse(weights)

    def offer(self, weights: NDArray) -> float:
        """J of the problem's own network; kept if it is the best so far."""
        value = self._own.objective(weights)
        self.best.offer(value, weights)
        self.trace.append((self.watch.seconds, value))
        return value

    def offer_coarse(self, weights: NDArray) -> float:
        """The same for controls on a coarse mesh."""
        if len(weights) != len(self.steps):
            weights = _handed_over(weights, self.problem, self.steps, self.executor)
        return self.offer(weights)

    def _run(self, level: Level, problem: TrainingProblem, steps: NDArray, weights: NDArray
             ) -> NDArray:
        """The end of a level, by its phases, each of an earlier run where it was made there."""
        self.epsilon, self._count = level.epsilon, 0
        for phase in self._phases(level):
            self._running, self._latest = None, weights
            weights = self._run_or_recall(level, phase, problem, steps, weights)
            if phase.ends and self.ended is not Ended.OVERFLOW:
                break
        if self.ended is Ended.OVERFLOW:
            raise Stop(Status.DIVERGED)
        return weights

    def _run_or_recall(self, level: Level, phase: Phase, problem: TrainingProblem,
                       steps: NDArray, weights: NDArray) -> NDArray:
        gradients, products, told = self.gradients, self.products, len(self.trace)

        def so_far() -> Step:
            best = weights if self.best.weights is None else self.best.weights
            trace = np.array(self.trace[told:]).reshape(-1, 2)
            return {"best": best, "trace": trace}, {
                "best": float(self.best.objective), "count": self._count,
                "gradients": self.gradients - gradients, "products": self.products - products}

        def resume(state: Step) -> None:
            arrays, numbers = state
            self.best.offer(numbers["best"], arrays["best"])
            self._count = numbers["count"]
            self.gradients = gradients + numbers["gradients"]
            self.products = products + numbers["products"]
            self.trace[told:] = [(seconds, value) for seconds, value in arrays["trace"].tolist()]

        def run(midway: Midway) -> Step:
            end = self._phase(level, phase, problem, steps, weights,
                              midway.around(so_far, resume))
            arrays, numbers = so_far()
            return {**arrays, "end": end}, {
                **numbers, "ended": self.ended.name,
                **{name: float(getattr(self, name)) for name in MEASURED}}

        inputs = (self.steps, steps, weights, tuple(level), *_plain(phase), self._count, self.tol,
                  self.gradient_tol, self.optimizer, self.memory, self.seed)
        state = arrays, numbers = kept(self.watch, self.problem, "phase", inputs, run)
        resume(state)
        self.ended = Ended[numbers["ended"]]
        for name in MEASURED:
            setattr(self, name, numbers[name])
        return arrays["end"]

    def _phase(self, level: Level, phase: Phase, problem: TrainingProblem, steps: NDArray,
               weights: NDArray, midway: Midway) -> NDArray:
        """One run of an optimiser, made now."""
        activation = problem.sigma.at(level.epsilon) if level.epsilon else problem.sigma
        whole = len(steps) == len(self.steps) and problem is self.problem
        sweeps = BlockSweeps(problem, steps, activation, dtype=phase.dtype,
                             executor=self.executor)
        optimizer = self._running = _optimizer(self, phase, level, sweeps)

        def swept() -> Step:
            return {}, {"swept": [sweeps.gradients, sweeps.products]}

        def resume(state: Step) -> None:
            sweeps.gradients, sweeps.products = state[1]["swept"]

        def report(J: float, stationarity: float) -> None:
            self._count += 1
            self.watch.record(J, stationarity)
            if whole and (self._count % LOOK == 0 or self._count in FIRST_LOOKS):
                self.offer(optimizer.latest)

        with np.errstate(over="ignore", invalid="ignore"):
            weights = optimizer.minimise(
                weights, phase.limit, tol=self.tol, gradient=phase.gradient,
                decrease=phase.decrease, callback=report, midway=midway.around(swept, resume))
        self.ended = optimizer.ended
        self.gradients += sweeps.gradients
        self.products += sweeps.products
        self._note(optimizer)
        if whole:
            self.offer(weights)
        return weights

    def _phases(self, level: Level) -> Iterator[Phase]:
        """What a level does one after the other, as far as it has to."""
        single = not 0 < level.epsilon < LEAST_SINGLE
        last = level.decrease <= FINAL
        low = self.gradient_tol * self._first_gradient if last else np.inf
        first = np.float32 if single else np.float64
        if last and low > 0 and self.optimizer == "kronecker":
            near = NEAR * self.gradient_tol
            for pace in self.paces:
                yield Phase(first, level.limit, pace, np.inf)
                yield Phase(first, SETTLE_ITER, level.decrease, low, settles=True)
                if self.ended is Ended.LIMIT and self.relative_gradient <= near:
                    yield Phase(first, 3 * SETTLE_ITER, level.decrease, low, settles=True)
                if self.ended is Ended.FLAT:
                    yield Phase(np.float64, SETTLE_ITER, level.decrease, low, settles=True)
                if self.ended in (Ended.FLAT, Ended.TOLERANCE):
                    return
        elif single:
            yield Phase(np.float32, level.limit, level.decrease, low, ends=not last)
        yield Phase(np.float64, level.limit, level.decrease, low)

    def _note(self, optimizer: Optimizer) -> None:
        self.objective, self.stationarity = optimizer.objective, optimizer.stationarity
        first = self._first_gradient
        self.relative_gradient = optimizer.gradient_norm / first if first > 0 else float("nan")

    def _part(self, level: Level) -> tuple[TrainingProblem, NDArray]:
        """The level's samples, in an order drawn once, and its steps."""
        problem, steps = self.problem, self.steps
        if level.samples < problem.n_samples:
            problem = problem.subset(np.sort(self._order[: level.samples]))
        if level.layers != len(steps):
            steps = equidistant_steps(level.layers)
        return problem, steps


def _handed_over(weights: NDArray, problem: TrainingProblem, steps: NDArray,
                 executor: Executor, preference: float = 1.0) -> NDArray:
    """Controls on another mesh: interpolated ones, or those that follow the path.

    Following keeps the representations, which counts where λ is small and a small change of
    the controls is a large one of the network. Interpolation keeps smooth controls, from which
    descent goes further: it is taken unless its J is more than `preference` times the other.
    """
    problem = _sample(problem)
    with np.errstate(all="ignore"):
        candidates = [prolong(weights, steps)]
        with suppress(np.linalg.LinAlgError):  # where the path overflows
            candidates.append(weights_of(weights, problem, steps))
        sweeps = BlockSweeps(problem, steps, executor=executor)
        values = [sweeps.objective(W) for W in candidates]
    interpolated, followed = values[0], values[-1]
    return candidates[0 if interpolated <= preference * followed else -1]


def _optimizer(
    levels: Multilevel, phase: Phase, level: Level, sweeps: BlockSweeps
) -> Optimizer:
    if phase.settles:
        return MinimalResidual(sweeps)
    if levels.optimizer == "kronecker":
        return KroneckerLBFGS(sweeps, levels.memory, seed=levels.seed)
    # Gauss–Newton crawls at the end, where the network's own curvature counts.
    return TrustRegionNewton(sweeps, hessian=level.decrease <= FINAL, seed=levels.seed)


def _plain(phase: Phase) -> tuple:
    """A phase as a part of a key."""
    return np.dtype(phase.dtype).char, *phase[1:]


def _sample(problem: TrainingProblem) -> TrainingProblem:
    """A few samples, evenly: enough to tell one network from another; the rest is never built."""
    count = problem.n_samples
    most = min(count, max(FOLLOWED, FOLLOWED_EACH * problem.width))
    return problem.subset(np.linspace(0, count - 1, most).astype(int))


def prolong(weights: NDArray, steps: NDArray) -> NDArray:
    """Controls on another mesh, (L, w, w+1): linear between the middles of the layers."""
    if len(weights) == len(steps):
        return weights
    old = (np.arange(len(weights)) + 0.5) / len(weights)
    return interpolate(old, weights, np.cumsum(steps) - steps / 2)
