"""The search for a good basin: a few starts, then rounds of reheats from the best.

J has many minima, and which one a descent ends in is decided early, at a large ε. So

1. the ε ladder is walked in a hurry from a path fit and an identity start (a stage ends when J
   hardly falls any more);
2. the best end is *reheated*, in rounds of four: noise is laid on the controls, and from a larger
   ε they are walked down again with more patience (`HOT`, `COLD`). The best of a round and what
   it began with goes on to the next;
3. where several rounds gain nothing, all of it is done again from two new starts.

It ends when its budget is spent (`EFFORTS`), or earlier, if asked, where new starts lead to the
same end again and again, or later, if asked, where none has led there (`Settling`). The budget is
counted in iterations, by what an iteration costs on paper, never by a clock: on one machine the
same seed gives the same answer, with any number of workers. Starts, and the reheats of a round, run
side by side in threads, as the compiled sweeps hold no lock, or by the workers of a cluster
(`hamshoot.methods.search.walks`).

`demos/benchmarks/search.py` measures it against gradient descent restarted, by effort, and what the
reheats gain.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.kept import kept
from hamshoot.methods.common.starts import STARTS, check_noise, start_seeds, starting_weights
from hamshoot.methods.common.watch import Best, Watch
from hamshoot.methods.search.ladder import STARTS_SHARE, epsilon_stages
from hamshoot.methods.search.walk import HURRIED, PATIENT
from hamshoot.methods.search.walks import Basin, Ground, Walked, WalkTask, walked
from hamshoot.problem.activations import epsilon_ladder
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.checks import check_choice, check_count
from hamshoot.support.cluster import client_of
from hamshoot.theory import layers as discrete
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray

_logger = logging.getLogger("hamshoot")

#: Rounds of reheats, hot and cold: first ε, and noise on the controls as a share of their size in
#: each layer. A round that gains nothing is followed by one of the other kind: from a large ε
#: small teachers reach other basins; tables with many inputs always the same, and need a small ε.
HOT = ((0.2, 0.5), (0.2, 1.0), (0.2, 1.5), (0.1, 1.0))
COLD = ((0.03, 2.0), (0.03, 3.0), (0.003, 0.3), (0.003, 1.0))
#: Stationarity at which a walk of the search ends, whatever the finisher asks for: else the basin
#: found would depend on that, and methods end in different ones.
WALK_TOL = 1e-6
#: The search's own last ε at least; what is smaller than that does not change basins.
LAST = 1e-3
#: Pairs that L-BFGS keeps.
MEMORY = 30
#: Iterations of a walk down the ladder, about, for plans.
WALK = 3000
#: Starts whose walks are made ready at a time: there may be more than memory holds.
BATCH = 64
#: Relative fall of J that counts as a gain, and difference of J within which two ends agree.
GAIN, AGREED = 1e-5, 1e-4
#: Share of a time limit after which a search does not go on beyond its budget.
LATE_SHARE = 0.2
#: Noise of wide starts, over L̃: all their layers have in common a W of entries N(0, (2·WIDE)²/w),
#: whose rotations turn by more than π through depth, whatever L̃ is. Those of other starts are in
#: proportion to L̃, and where that is small they never end in basins behind a turn.
WIDE = 4.0


@dataclass(frozen=True)
class Effort:
    """How long to search.

    Attributes
    ----------
    starts : int
        To begin with.
    seconds : float
        Of iterations, by their cost on paper.
    patience : int
        Rounds of reheats without gain until new starts are tried.
    """

    starts: int
    seconds: float
    patience: int

    def budget(self, walk: float) -> float:
        """Seconds planned where a walk takes so many.

        Six walks may take up to three times as long as a small network gets.
        """
        return max(self.seconds, min(3 * self.seconds, 6 * walk))


EFFORTS = {"quick": Effort(2, 0.25, 2), "default": Effort(2, 1.2, 4),
           "thorough": Effort(6, 20.0, 8)}


@dataclass(frozen=True)
class Settling:
    """Whether a search ends by what it finds: earlier than its budget, or later.

    Attributes
    ----------
    agreements : int, optional
        So many new pairs of starts that end, reheated, as the best did, end it early.
    least : float
        Share of the budget that is spent in any case.
    most : float
        Times the budget, up to which it goes on where no pair has ended as the best did: that one
        may lie per cents above another basin.
    wide : int
        Further starts with each new pair, which turn representations far around (`WIDE`).
    gain : float
        Relative fall of J that a round of reheats has to bring, or it is said to gain nothing.
    """

    agreements: int | None = None
    least: float = 0.0
    most: float = 1.0
    wide: int = 0
    gain: float = GAIN

    def early(self, agreed: int, share: float) -> bool:
        """Whether enough pairs agree to end, a share of the budget being spent."""
        return self.agreements is not None and agreed >= self.agreements and share >= self.least


@dataclass(frozen=True, kw_only=True)
class BasinOptions:
    """What the search goes by; the options of that name of the direct methods."""

    seed: int
    start: str | None
    starts: int | None
    noise: float | None
    epsilon: tuple[float, float, float]
    reheats: int | None
    effort: str
    workers: Any
    max_iter: int
    tol: float
    stage_iter: int = 5000
    memory: int | None = None
    settling: Settling = Settling()


def check_search_options(method: Any) -> None:
    """Raise ValueError for start, starts, noise, effort, workers or epsilon out of range."""
    if method.start is not None:
        check_choice("start", method.start, STARTS)
    check_choice("effort", method.effort, tuple(EFFORTS))
    for name in ("starts", "workers"):
        if getattr(method, name) is not None and client_of(getattr(method, name)) is None:
            check_count(name, getattr(method, name), 1)
    check_noise(method.noise)
    if not isinstance(method.epsilon, (tuple, list)) or len(method.epsilon) != 3:
        raise ValueError(f"epsilon: expected (first, last, factor), got {method.epsilon!r}")
    epsilon_ladder(*method.epsilon)
    if method.reheats is not None:
        check_count("reheats", method.reheats, 0)


@dataclass
class BasinSearch:
    """One search.

    Parameters
    ----------
    options : BasinOptions
    problem : TrainingProblem
        With a loss.
    steps : ndarray, shape (L,)
    watch : Watch
    best : Best
        Gets every network on the way, for whoever is interrupted.

    Attributes
    ----------
    start_objectives, reheat_objectives : list of float
    rounds : list of float
        J of the best after each round of reheats.
    first_gradient : float
        ‖∇J‖ at the first start.
    trivial : float
        J of the network without weights.
    """

    options: BasinOptions
    problem: TrainingProblem
    steps: NDArray
    watch: Watch
    best: Best
    start_objectives: list[float] = field(default_factory=list)
    reheat_objectives: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)
    first_gradient: float = float("nan")
    evaluations: int = 0
    spent: float = 0.0
    all_idle: bool = False
    lowest_active: float = np.inf  # of networks that lie above the trivial one

    def __post_init__(self) -> None:
        self.effort = EFFORTS[self.options.effort]
        self.iteration = iteration_seconds(
            self.problem, len(self.steps), self.options.memory or MEMORY)
        self.budget = self.effort.budget(WALK * self.iteration)
        self.trivial = discrete.trivial_objective(self.problem, self.steps)

    def run(self, besides: Sequence[NDArray] = ()) -> Basin:
        """The best basin found; idle (`collapsed`) where nothing lower than that was.

        `besides` are more controls to begin at, walked down from a small ε.
        """
        if self.trivial == 0:  # J is never below that
            self.best.offer(0.0, idle := np.zeros_like(
                learned.stacked(self.problem, np.zeros((len(self.steps),
                                                        *self.problem.control_shape)))))
            return Basin(idle, 0.0, True, "no weights")
        basin = self._from_starts(besides)
        if not basin.collapsed and (self.options.start is None or self.options.reheats):
            basin = self._reheated(basin)
        if basin.objective > self.trivial and not basin.collapsed:
            self.lowest_active = basin.objective
            return Basin(np.zeros_like(basin.weights), self.trivial, True, "no weights")
        return basin

    # -- starts ------------------------------------------------------------------------------------

    def _from_starts(self, besides: Sequence[NDArray]) -> Basin:
        """Best end of the walks from all starts; where all collapse, from more."""
        count = _count(self.options, self.effort, self.iteration)
        ends: list[Basin] = []
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            prefixes = [f"start {k + 1}/{count}, " if count > 1 else "" for k in numbers]
            done = self._walks([self._start_task(*_start(self.options, k), prefix)
                                for k, prefix in zip(numbers, prefixes, strict=True)])
            self.start_objectives += [end.objective for end in done]
            ends = [_best([*ends, *done])]
        if besides:
            done = self._walks([WalkTask(weights, self._ladder(self.options.epsilon[1]), PATIENT,
                                         "fixed maps, ", "fixed maps") for weights in besides])
            self.start_objectives += [end.objective for end in done]
            ends = [_best([*ends, *done])]
        if ends[0].collapsed:
            seed = self.options.seed
            begun = [_start(self.options, k) for k in range(min(count, 4))]
            more = [(start, one) for start in ("path", "identity") for one in (seed, seed + 1000)
                    if (start, one) not in begun]
            further = self._walks([self._start_task(*one, f"again, {one[0]}, ") for one in more]
                                  + [self._small_decay_task()])
            self.start_objectives += [end.objective for end in further]
            ends += further
            self.all_idle = all(end.collapsed for end in ends)
        _logger.info("search: %d starts, J %.8g to %.8g", len(self.start_objectives),
                     min(self.start_objectives), max(self.start_objectives))
        return _best(ends)

    def _start_task(self, start: str, seed: int, prefix: str, noise: float | None = None
                    ) -> WalkTask:
        noise = self.options.noise if noise is None else noise
        weights = starting_weights(self.problem, self.steps, start, seed, noise)
        return WalkTask(weights, self._ladder(self.options.epsilon[0]), HURRIED, prefix, start)

    def _small_decay_task(self) -> WalkTask:
        """With a hundredth of λ first, where a network that is not idle costs little."""
        options = self.options
        weights = starting_weights(self.problem, self.steps, "path", options.seed, options.noise)
        return WalkTask(weights, self._ladder(options.epsilon[0]), HURRIED,
                        "smaller weight decay, ", "smaller weight decay", decays=(1e-2, 1e-1))

    # -- reheats -----------------------------------------------------------------------------------

    def _reheated(self, basin: Basin) -> Basin:
        """Rounds of reheats from the best; from a new start where they gain nothing any more."""
        rounds, best = self.options.reheats, basin
        kinds, number, idle = [HOT, COLD], 0, 0
        earlier, agreed = np.nan, 0
        while number < rounds if rounds is not None else self._goes_on(agreed):
            if self.watch.seconds > STARTS_SHARE * (self.watch.time_limit or np.inf):
                break
            if rounds is None and idle >= self.effort.patience:
                agreed = pairs_agreed(basin.objective, earlier, agreed)
                if self.options.settling.early(agreed, self.spent / self.budget):
                    _logger.info("search: ends early, %d pairs of starts agree", agreed + 1)
                    break
                earlier = best.objective
                basin, kinds, idle = self._anew(), [HOT, COLD], 0
                best = _best([best, basin])
                if basin.collapsed:
                    break
                continue
            ends = self._walks(self._reheats(basin, number, kinds[0]))
            self.reheat_objectives += [end.objective for end in ends]
            before, basin = basin, _best([basin, *ends])
            best = _best([best, basin])
            number += 1
            # Beyond the budget others are tried rather than a basin's last digits.
            late = rounds is None and self.spent >= self.budget
            least = max(self.options.settling.gain, AGREED if late else 0.0)
            gained = basin.objective < before.objective * (1 - least)
            idle = 0 if gained else idle + 1
            if not gained:
                kinds.reverse()
            self.rounds.append(best.objective)
            _logger.info("search: reheats, round %d: J %.8g%s", number, best.objective,
                         f" by a {basin.part}" if basin is best and gained else "")
        return best

    def _goes_on(self, agreed: int) -> bool:
        """Whether the budget is not spent; beyond it, where no pair of starts agrees yet."""
        if self.spent < self.budget:
            return True
        if self.watch.seconds > LATE_SHARE * (self.watch.time_limit or np.inf):
            return False  # what comes after the search has its share
        return agreed == 0 and self.spent < self.options.settling.most * self.budget

    def _anew(self) -> Basin:
        """The best end of two further starts, and of wide ones."""
        seed = self.options.seed + 1000 * (1 + len(self.start_objectives) // 2)
        ends = self._walks(
            [self._start_task(start, seed, f"another start, {start}, ")
             for start in ("path", "identity")]
            + [self._start_task("identity", seed + 1 + k, "another start, wide, ",
                                WIDE / self.problem.effective_depth)
               for k in range(self.options.settling.wide)])
        self.start_objectives += [end.objective for end in ends]
        return _best(ends)

    def _reheats(self, basin: Basin, number: int, kind: Sequence[tuple[float, float]]
                 ) -> list[WalkTask]:
        tasks = []
        size = np.sqrt(np.mean(basin.weights**2, axis=(1, 2), keepdims=True))
        for k, (first, noise) in enumerate(kind):
            ladder = self._ladder(min(first, self.options.epsilon[0]))
            rng = np.random.default_rng([self.options.seed, 17, number, k])
            weights = basin.weights + noise * size * rng.standard_normal(basin.weights.shape)
            tasks.append(WalkTask(weights, ladder, PATIENT, "reheated, ",
                               f"reheat at ε {ladder[0]:g} with noise {noise:g}"))
        return tasks

    @property
    def last(self) -> float:
        """The search's own last ε."""
        return self._ladder(self.options.epsilon[0])[-1]

    def _ladder(self, first: float) -> tuple[float, ...]:
        """ε of the stages."""
        given, last, factor = self.options.epsilon
        return epsilon_stages(self.problem, (given, max(min(LAST, given), last), factor), first)

    # -- walks -------------------------------------------------------------------------------------

    def _walks(self, tasks: Sequence[WalkTask]) -> list[Basin]:
        """Ends of walks that know nothing of each other, side by side."""
        options = self.options
        inputs = (self.steps, WALK_TOL, options.max_iter - self.watch.iterations,
                  options.stage_iter, options.memory or MEMORY, [vars(task) for task in tasks])
        arrays, numbers = kept(self.watch, self.problem, "walks", inputs,
                               lambda _: self._walked(tasks))
        self.spent += self.iteration * numbers["evaluations"]
        self.evaluations += numbers["evaluations"]
        if np.isnan(self.first_gradient):
            self.first_gradient = numbers["first_gradient"]
        self.best.offer(numbers["best"], arrays["best"])
        return [Basin(*end) for end in zip(arrays["ends"], numbers["objectives"], numbers[
            "collapsed"], [task.part for task in tasks], strict=True)]

    def _walked(self, tasks: Sequence[WalkTask]) -> tuple[dict[str, NDArray], dict[str, Any]]:
        """The ends of walks made now, the best network on their way, and what they cost."""
        options, into = self.options, Walked()
        ground = Ground(self.problem, self.steps, WALK_TOL, options.max_iter,
                        options.stage_iter, options.memory or MEMORY)
        try:
            walked(ground, tasks, self.watch, options.workers, options.max_iter, into)
        finally:
            if into.best.weights is not None:
                self.best.offer(into.best.objective, into.best.weights)
            if into.ends is None:  # stopped
                self.evaluations += into.evaluations
        assert into.ends is not None  # else something has been raised
        return _packed(into.ends, into.best, into.evaluations, into.first_gradient)

    def record(self) -> dict[str, Any]:
        """What a solution keeps of the search."""
        return {"start_objectives": self.start_objectives,
                "reheat_objectives": self.reheat_objectives,
                "reheat_rounds": self.rounds}

    def checked(self) -> str:
        """How it was made sure that no other network is lower, where the best is idle."""
        if self.lowest_active < np.inf:
            return f"the lowest network found that is not idle has J {self.lowest_active:.8g}"
        if not self.all_idle:
            return ""
        return (f"all {len(self.start_objectives)} starts, one carried down from a hundredth of "
                "the weight decay among them, ended idle")

    def notes(self) -> list[str]:
        """What a message says of the search; nothing of a single start."""
        ends = self.start_objectives
        if len(ends) < 2:
            return []
        words = f"best of {len(ends)} starts, J from {min(ends):.6g} to {max(ends):.6g}"
        if self.rounds:
            count = len(self.reheat_objectives)
            words += f", then {self.rounds[-1]:.6g} by {count} reheats"
        return [words]


def pairs_agreed(objective: float, earlier: float, agreed: int) -> int:
    """Pairs that agree with the best, after one of this J; none where it is lower."""
    if objective < earlier * (1 - AGREED):
        return 0
    return agreed + int(abs(objective - earlier) <= AGREED * abs(earlier))


def _count(options: BasinOptions, effort: Effort, iteration: float) -> int:
    """Starts to begin with."""
    if options.start is not None:
        return options.starts or 1
    return options.starts or planned_starts(effort, iteration)


def _start(options: BasinOptions, k: int) -> tuple[str, int]:
    """Name and seed of start k: path fits and identities in turn, unless one is asked for."""
    if options.start is not None:
        return options.start, start_seeds(options.seed, k + 1)[k]
    return ("path", "identity")[k % 2], start_seeds(options.seed, k // 2 + 1)[k // 2]


def _packed(ends: Sequence[Basin], best: Best, evaluations: int, first_gradient: float
            ) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """The ends of walks and what they cost, as arrays and numbers that are kept."""
    weights = ends[0].weights if best.weights is None else best.weights
    return {"ends": np.array([end.weights for end in ends]), "best": weights}, {
        "objectives": [float(end.objective) for end in ends],
        "collapsed": [bool(end.collapsed) for end in ends], "best": float(best.objective),
        "evaluations": evaluations, "first_gradient": first_gradient}


def _best(ends: Sequence[Basin]) -> Basin:
    """The lowest of those that are not idle, if there is one."""
    return min(ends, key=lambda end: (end.collapsed, end.objective))


def iteration_seconds(problem: TrainingProblem, layers: int, memory: int = MEMORY) -> float:
    """What an iteration of L-BFGS costs on paper: about what one core of a server takes.

    At the three sizes of `demos/benchmarks/search.py`, where 11, 25 and 37 µs were measured, this
    tells 12, 23 and 43; 5 µs are those of the record.
    """
    w, N = problem.width, problem.n_samples
    size = layers * int(np.prod(problem.control_shape))
    compiled = 6 * size * N / 4e10 + 1.2e-9 * layers * w * N + 4 * memory * size / 1e10 + 5e-6
    # An activation made of functions has its sweeps in NumPy, some twenty calls a layer.
    return compiled + (0.0 if problem.sigma.compiled else 1e-4 + 5e-5 * layers)


def planned_starts(effort: Effort, iteration: float) -> int:
    """Starts of an effort: one alone where two walks would take longer than the whole search."""
    walk = WALK * iteration
    return int(np.clip(effort.budget(walk) / walk, 1, effort.starts))
