"""Carry a large ReLU network from the end of the ladder in ε to its own stationary point, nearly.

However small ε, the network at the end of the ladder is not stationary for ReLU itself: thousands
of its activations belong on the kink, where the slope may be chosen, and lie beside it, where it
is 0 or 1. Here they are put there. Rounds alternate between two things:

* *the set*: entries whose smooth slope lies well inside (0, 1), at a convex kink, are held at 0,
  and entries held whose multiplier gives them a slope outside [0, 1] are let go;
* *the others*: J as a function of the controls that are left (`hamshoot.dynamics.held_sweeps`), its
  entries not held still smoothed, is lowered by L-BFGS around the Kronecker preconditioner and
  later by `hamshoot.methods.single_shooting.minimal_residual`, while ε falls.

A round holds only what is near: entries with slopes in (0.3, 0.7) at first, which a step of half an
ε puts on the kink. (All that may belong there at once, and J rises so far that the multipliers say
nothing for hundreds of iterations.) The rounds come last, since entries held leave the kink only
between two of them, which makes the way along a valley slow. The measure of success is ReLU's own
stationarity with the multipliers' slopes, cut off at 0 and 1; the best round is returned.

Cost: a gradient in single precision an iteration, a few hundred of them; memory that of
`hamshoot.dynamics.held_sweeps` and 2·memory·Lw² numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.dynamics.held_sweeps import HeldSweeps, Survey
from hamshoot.methods.common.kept import Midway, Step, kept
from hamshoot.methods.common.watch import Watch
from hamshoot.methods.single_shooting.kronecker import REFRESH, KroneckerLBFGS
from hamshoot.methods.single_shooting.minimal_residual import MinimalResidual
from hamshoot.methods.single_shooting.optimizer import Ended, Optimizer
from hamshoot.problem.activations import Activation
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import blockwise
from hamshoot.theory import layers as discrete
from hamshoot.theory.clarke import KINK_TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.dynamics.block_sweeps import Executor


class Round(NamedTuple):
    """One round.

    Attributes
    ----------
    share : float
        ε of the entries that are not held, of the ladder's last.
    margin : float
        Entries whose slope at the ε before lies in (margin, 1 − margin) are held.
    slack : float
        Entries held are let go where their slope is further than this outside [0, 1].
    iterations : int
    residual : bool
        Whether the residual is minimised, or J.
    """

    share: float
    margin: float
    slack: float
    iterations: int
    residual: bool


#: The way down in ε, and the round that is repeated after it.
ROUNDS = (
    Round(1.0, 0.3, 0.5, 100, False),
    Round(0.5, 0.3, 0.5, 100, False),
    Round(0.3, 0.25, 0.5, 100, False),
    Round(0.3, 0.2, 0.3, 200, False),
    Round(0.2, 0.2, 0.3, 60, True),
    Round(0.1, 0.1, 0.1, 60, True),
    Round(0.05, 0.1, 0.1, 60, True),
    Round(0.02, 0.1, 0.1, 60, True),
)
AGAIN = Round(0.01, 0.03, 0.02, 100, True)
#: Rounds at most; they end sooner where the last so many of AGAIN gained less than this share.
MOST_ROUNDS, PATIENCE, GAIN = 60, 6, 0.03
#: ε's at or below this share of the ladder's last take double precision.
SINGLE = 0.02
#: Differences that the minimal residual keeps.
MEMORY = 60
#: Share of the controls of a neuron and layer that entries held may take.
MOST_HELD = 0.5
#: A force below this times the largest is rounding: whatever the slope, it is of no account.
IDLE = 1e-12


class Held(NamedTuple):
    """Where the rounds ended: at the best of them.

    Attributes
    ----------
    weights : ndarray, shape (L, w, w+1)
    objective, stationarity : float
        Of the ReLU network; the stationarity with the multipliers' slopes, an upper bound on that
        with the best slopes.
    entries, rounds : int
        Entries held, and rounds.
    """

    weights: NDArray
    objective: float
    stationarity: float
    entries: int
    rounds: int


class HeldRounds:
    """The rounds for one problem and mesh.

    Parameters
    ----------
    problem : TrainingProblem
        ReLU with a loss.
    steps : ndarray, shape (L,)
    watch : Watch
        Hears of every iteration; may raise.
    offer : callable
        Receives the controls that a round ended with.
    epsilon : float
        The ladder's last ε.
    tol : float
        For the stationarity of the ReLU network.
    """

    def __init__(self, problem: TrainingProblem, steps: NDArray, watch: Watch,
                 offer: Callable[[NDArray], Any], epsilon: float, tol: float,
                 executor: Executor | None = None):
        self.problem, self.steps, self.watch, self.offer = problem, steps, watch, offer
        self.epsilon, self.tol, self.executor = epsilon, tol, executor
        self.gradients = 0

    def run(self, weights: NDArray) -> Held | None:
        """Rounds from a stationary point of the network smoothed with ε, or nearly one.

        None where nothing is to be held.
        """
        L, w, N = len(self.steps), self.problem.width, self.problem.n_samples
        held, epsilon, best = np.zeros((L, w, N), bool), self.epsilon, None
        lowest: list[float] = []
        for number, rules in enumerate(self._rounds()):
            weights, survey = self._surveyed(weights, held, epsilon)
            held = changed(survey, held, epsilon, rules, most_held(weights))
            if not held.any():
                return best
            epsilon = self.epsilon * rules.share
            self.watch.stage = f"{int(held.sum())} activations held, epsilon {epsilon:.3g}"
            weights = self._round_or_recall(weights, held, rules)
            now = self._measured(weights, held, number + 1)
            if not np.isfinite(now.objective + now.stationarity):
                return best
            self.offer(now.weights)
            if best is None or now.stationarity < best.stationarity:
                best = now
            lowest.append(best.stationarity)
            again = lowest[len(ROUNDS):]
            stale = len(again) > PATIENCE and again[-1] > (1 - GAIN) * again[-1 - PATIENCE]
            if best.stationarity <= self.tol or stale:
                break
        return best

    def _rounds(self) -> Iterator[Round]:
        yield from ROUNDS
        for _ in range(MOST_ROUNDS - len(ROUNDS)):
            yield AGAIN

    def _round_or_recall(self, weights: NDArray, held: NDArray, rules: Round) -> NDArray:
        """A round, of an earlier run where it was made there."""
        before = self.gradients

        def compute(_: Midway) -> Step:
            return {"end": self._round(weights, held, rules)}, {
                "gradients": self.gradients - before}

        inputs = (self.steps, weights, held, tuple(rules), self.epsilon)
        arrays, numbers = kept(self.watch, self.problem, "held", inputs, compute)
        self.gradients = before + numbers["gradients"]
        return arrays["end"]

    def _round(self, weights: NDArray, held: NDArray, rules: Round) -> NDArray:
        """Controls with the entries held, after the iterations of a round."""
        kind = np.float32 if rules.share > SINGLE else np.float64
        sweeps: Any = self._sweeps(held, self.epsilon * rules.share, kind)
        sweeps.measure(weights)
        optimizer: Optimizer = HeldLBFGS(sweeps)
        if rules.residual:
            optimizer = MinimalResidual(sweeps, MEMORY)
        end = optimizer.minimise(weights, rules.iterations, callback=self._record)
        self.gradients += sweeps.gradients
        if optimizer.ended is Ended.OVERFLOW:
            end = weights
        return sweeps.feasible(end)

    def _record(self, objective: float, stationarity: float) -> None:
        self.watch.record(objective, stationarity)

    def _sweeps(self, held: NDArray, epsilon: float, kind: Any = np.float64) -> HeldSweeps:
        sigma = Activation("smooth_relu", epsilon) if epsilon else Activation("relu")
        return HeldSweeps(self.problem, self.steps, sigma, held, dtype=kind,
                          executor=self.executor)

    def _surveyed(self, weights: NDArray, held: NDArray, epsilon: float
                  ) -> tuple[NDArray, Survey]:
        """Controls with the conditions met, in double precision, and where all entries stand."""
        sweeps = self._sweeps(held, epsilon)
        sweeps.measure(weights)
        return sweeps.feasible(weights), sweeps.survey()

    def _measured(self, weights: NDArray, held: NDArray, rounds: int) -> Held:
        """J and stationarity of the ReLU network, by the reference formulas."""
        weights, survey = self._surveyed(weights, held, 0.0)
        problem, steps = self.problem, self.steps
        A = discrete.roll_out(problem, weights, steps)
        there = np.abs(A[:-1]) <= KINK_TOLERANCE * max(1.0, float(np.abs(A[:-1]).max()))
        slopes = np.where(held & there, np.clip(survey.slopes, 0.0, 1.0),
                          problem.sigma.slope(A[:-1]))
        _, gradient = discrete.costates(problem, A, weights, steps, slopes=slopes)
        objective = discrete.objective(problem, A[-1], weights, steps)[0]
        return Held(weights, objective, discrete.stationarity(weights, gradient),
                    int(held.sum()), rounds)


def changed(survey: Survey, held: NDArray, epsilon: float, rules: Round, most: int) -> NDArray:
    """The next entries held, (L, w, N), from where all of them stand at this ε.

    No more than `most` of a neuron and layer: those held before first, then those nearest to 0.
    """
    A, force, d = survey.representations, survey.force, survey.slopes
    kept = held & (d >= -rules.slack) & (d <= 1 + rules.slack)
    smooth = Activation("smooth_relu", epsilon).slope(A)
    convex = force > IDLE * float(np.abs(force).max(initial=0.0))
    near = ~held & convex & (smooth > rules.margin) & (smooth < 1 - rules.margin)
    near[0] = False
    chosen = kept | near
    for layer, neuron in zip(*np.nonzero(chosen.sum(axis=2) > most), strict=True):
        order = np.where(kept[layer, neuron], -1.0, np.abs(A[layer, neuron]))
        order[~chosen[layer, neuron]] = np.inf
        chosen[layer, neuron, np.argsort(order, kind="stable")[most:]] = False
    return chosen


def most_held(weights: NDArray) -> int:
    """Entries that may be held of a neuron and layer."""
    return max(1, int(MOST_HELD * weights.shape[2]))


def can_hold(problem: TrainingProblem, layers: int) -> bool:
    """Whether the rounds apply: ReLU with a loss, and states that are stored."""
    return (problem.activation == "relu" and not problem.hard_endpoint
            and problem.in_memory and not blockwise.too_many(problem, layers))


class HeldLBFGS(KroneckerLBFGS):
    """`KroneckerLBFGS` with entries held: the metric of the elimination is renewed on the way."""

    sweeps: Any  # HeldSweeps, which has what L-BFGS asks of BlockSweeps

    def _advance(self, iteration: int) -> bool | Ended:
        if iteration and iteration % REFRESH == 0:
            weights = self.sweeps.feasible(self._x.reshape(self.sweeps.shape))
            self.sweeps.measure(weights)
            self._accept(weights.astype(self.sweeps.dtype).ravel(), *self._value(weights))
        return super()._advance(iteration)
