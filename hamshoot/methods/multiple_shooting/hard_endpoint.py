"""Hard endpoints: the method of multipliers on the controls, its exact end, its second-order test.

The norm alone says nothing of an endpoint missed. The augmented Lagrangian
(`hamshoot.optimality.augmented`) does, and it is a training problem with a loss, so that what
minimises, polishes, tests and leaves networks with a loss serves here as it is: it is minimised for
one multiplier, the terminal momentum is the next, and so on until A_1 is the endpoint. Plain
multipliers converge linearly, at a rate O(1/weight) that the directions in which A_1 is hard to
move spoil; they are few, and extrapolation from the last steps (Anderson, *J. ACM* 12, 1965) takes
them out. A round is a warm start, of one or two Newton steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.active_set import affordable as polishable
from hamshoot.methods.newton.active_set import polish
from hamshoot.methods.newton.escape import Escape, escape
from hamshoot.methods.newton.escape import affordable as testable
from hamshoot.methods.newton.levenberg_marquardt import Minimum
from hamshoot.methods.newton.polished import Polished
from hamshoot.methods.search.exact_end import DEEPER, POLISH_SHARE
from hamshoot.optimality.augmented import (
    augmented,
    better_multiplier,
    constant,
    stiff_loss,
    stiffness,
)
from hamshoot.optimality.second_order_layers import WEIGHTS
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.status import Status
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.methods.common.watch import Watch

#: Rounds of multipliers at most, of one activation.
ROUNDS = 30
#: A round that leaves more than this of the gap makes the weight ten times as large, up to HEAVIEST
#: times that of the stiff loss: rounding in A_1 is multiplied by it.
SLOW, HEAVIEST = 0.5, 1e4
#: Differences that the extrapolation goes back.
MEMORY = 5
#: Gap, relative to the endpoint, at which the rounds end.
CLOSED = 1e-13
#: ε from which the polish reads off the sets of a network that is already on its kinks.
ON_KINKS = 1e-9
#: Newton steps of a round.
NEWTON_STEPS = 100
#: Points that are no minima to be left, at most.
LEAVES = 10
#: Relative fall of the norm that counts.
LOWER = 1e-10


@dataclass
class Reached:
    """Controls, the multiplier of the endpoint, and what is true of them.

    Attributes
    ----------
    weights : ndarray, shape (L, w, w+1)
    multiplier : ndarray, shape (w, N)
        B_1.
    weight : float
        Of the augmented Lagrangian with which it was reached.
    gap : float
        ‖A_1 − endpoint‖_F / max(1, ‖endpoint‖_F), with the activation of the rounds.
    stationarity : float
    """

    weights: NDArray
    multiplier: NDArray
    weight: float
    gap: float = np.inf
    stationarity: float = np.inf


@dataclass
class End:
    """Where the exact end came to."""

    reached: Reached
    status: Status
    notes: list[str] = field(default_factory=list)


class Extrapolated:
    """Multipliers of rounds, extrapolated from the last of them."""

    def __init__(self, multiplier: NDArray):
        self.multiplier = multiplier
        self._before: tuple[NDArray, NDArray] | None = None
        self._moves: list[NDArray] = []
        self._changes: list[NDArray] = []

    def next(self, plain: NDArray) -> NDArray:
        """The next multiplier, where a plain round would take `plain`."""
        here, step = self.multiplier.ravel(), (plain - self.multiplier).ravel()
        if self._before is not None:
            self._moves = [*self._moves, here - self._before[0]][-MEMORY:]
            self._changes = [*self._changes, step - self._before[1]][-MEMORY:]
        self._before = here, step
        there = here + step
        if self._moves:
            moves, changes = np.array(self._moves).T, np.array(self._changes).T
            shares = np.linalg.lstsq(changes, step, rcond=1e-10)[0]
            there = there - (moves + changes) @ shares
        self.multiplier = there.reshape(plain.shape)
        return self.multiplier


class HardEndpoint:
    """The endpoint of one problem, and the ways to it.

    Parameters
    ----------
    problem : TrainingProblem
        With a hard endpoint.
    steps : ndarray, shape (L,)
    tol : float
        Of the stationarity, and of the relative gap.
    count : callable
        Told of every iterate the norm's part of J, with what the multiplier says of the gap, and
        the stationarity; may raise.
    offer : callable
        Receives the controls at the end of every round.
    watch : Watch, optional
        Of the solve, which `count` tells: with it what takes long is kept.

    Attributes
    ----------
    stiff : TrainingProblem
        The problem with the endpoint as a stiff loss.
    escape : Escape or None
        What the second-order test ended with.
    """

    def __init__(self, problem: TrainingProblem, steps: NDArray, tol: float,
                 count: Callable[[float, float], None], offer: Callable[[NDArray], object],
                 watch: Watch | None = None):
        self.problem, self.steps, self.tol = problem, steps, tol
        self.count, self.offer, self.watch = count, offer, watch
        self.stiff, self.least_weight = stiff_loss(problem), stiffness(problem)
        self.escape: Escape | None = None
        self._constant = 0.0

    def begin(self, weights: NDArray, multiplier: NDArray | None = None) -> Reached:
        """From controls, at no multiplier unless one is known."""
        if multiplier is None:
            assert self.problem.endpoint is not None
            multiplier = np.zeros_like(self.problem.endpoint)
        return Reached(weights, multiplier, self.least_weight)

    @property
    def affordable(self) -> bool:
        """Whether exact Newton is, for a network of this size."""
        return exact_newton.affordable(self.stiff, len(self.steps))

    # -- rounds of multipliers ---------------------------------------------------------------------

    def reach(self, at: Reached, epsilon: float, *, tol: float = 1e-10, closed: float = CLOSED,
              rounds: int = ROUNDS) -> Reached:
        """Rounds of multipliers at one ε, by Newton's method."""
        problem = self._smooth(epsilon)

        def local(soft: TrainingProblem, weights: NDArray) -> Minimum:
            return exact_newton.minimise(soft, weights, self.steps, tol=tol,
                                         max_iter=NEWTON_STEPS, callback=self._told,
                                         watch=self.watch)

        return self._rounds(problem, at, local, closed, rounds)

    def _rounds(self, problem: TrainingProblem, at: Reached,
                local: Callable[[TrainingProblem, NDArray], Minimum | Polished], closed: float,
                rounds: int) -> Reached:
        """Minimise for a multiplier, take the next; the stationary round with the least gap."""
        best, before = replace(at, gap=np.inf, stationarity=np.inf), np.inf
        limit = HEAVIEST * self.least_weight
        weights, weight, known = at.weights, at.weight, Extrapolated(at.multiplier)
        for _ in range(rounds):
            used = known.multiplier
            self._constant = constant(self.problem, used, weight)
            least = local(augmented(problem, used, weight), weights)
            weights = least.weights
            now = self._measured(problem, Reached(weights, used, weight,
                                                  stationarity=least.stationarity))
            if not np.isfinite(now.gap):
                break
            self.offer(weights)
            best = min(best, now, key=lambda one: (not one.stationarity <= self.tol, one.gap))
            if now.gap <= closed:
                break
            known.next(now.multiplier)
            if now.gap > SLOW * before:
                if weight >= limit:
                    break
                weight = min(10 * weight, limit)
                known = Extrapolated(now.multiplier)
            before = now.gap
        return best

    def _measured(self, problem: TrainingProblem, least: Reached) -> Reached:
        """A minimum of the augmented Lagrangian with its gap, and its terminal momentum."""
        assert problem.endpoint is not None
        apart = discrete.roll_out(problem, least.weights, self.steps)[-1] - problem.endpoint
        return replace(
            least,
            multiplier=better_multiplier(problem, least.multiplier, least.weight, apart),
            gap=float(np.linalg.norm(apart)) / max(1.0, float(np.linalg.norm(problem.endpoint))))

    def _told(self, objective: float, stationarity: float) -> None:
        self.count(objective - self._constant, stationarity)

    def _smooth(self, epsilon: float) -> TrainingProblem:
        """The problem with the activation of a stage."""
        return self.problem.replace(activation=self.problem.sigma.at(epsilon))

    # -- the exact end -----------------------------------------------------------------------------

    @property
    def polishes(self) -> bool:
        """Whether ReLU can be carried to its exact optimum."""
        return polishable(self.stiff, len(self.steps)) and self.affordable

    def end(self, at: Reached, epsilon: float, polishing: bool) -> End:
        """From a stationary network at an ε that reaches the endpoint to the problem's own minimum.

        For ReLU the polish, tried again from smaller ε; then the second-order test.
        """
        status, notes = Status.CONVERGED, []
        if self.problem.sigma.kinked:
            if not (polishing and self.polishes):
                return End(at, Status.SMOOTHED)
            settled = self._settled(at, epsilon)
            if settled is None:
                return End(at, Status.UNSETTLED, ["the polish did not settle"])
            at, polished = settled
            notes = [polished.words]
        end = End(at, status, notes)
        return self._left(end, epsilon) if testable(self.stiff, len(self.steps)) else end

    def _settled(self, at: Reached, epsilon: float) -> tuple[Reached, Polished] | None:
        """The polish from smaller and smaller ε, with multipliers for each."""
        target = POLISH_SHARE * epsilon
        for _ in range(DEEPER + 1):
            at = self.reach(at, target)
            found = self._polished(at, target)
            if found is not None:
                return found
            target /= 4
        return None

    def _polished(self, at: Reached, epsilon: float) -> tuple[Reached, Polished] | None:
        """Rounds of multipliers with the polish; None where it ends short of the tolerance."""
        last: list[Polished] = []

        def local(soft: TrainingProblem, weights: NDArray) -> Polished:
            first = epsilon if not last else ON_KINKS
            last.append(polish(soft, weights, self.steps, first, tol=min(self.tol, 1e-10),
                               callback=self._told, watch=self.watch))
            return last[-1]

        end = self._rounds(self.problem, at, local, CLOSED, ROUNDS)
        if not max(end.gap, end.stationarity) <= self.tol:
            return None
        return end, last[-1]

    # -- second order ------------------------------------------------------------------------------

    def _left(self, end: End, epsilon: float) -> End:
        """Leave stationary points that are no minima, by way of the augmented Lagrangian."""
        objectives, words = [self._norm(end.reached)], list[str]()
        for _ in range(LEAVES):
            lower = None
            for factor in WEIGHTS:
                lower = self._below(end.reached, epsilon, factor)
                verdict = self.escape.verdict if self.escape is not None else None
                if lower is not None or verdict is None or not verdict.refuted:
                    break
            if lower is None:
                break
            assert self.escape is not None
            words += self.escape.words
            end = End(lower[0], end.status, lower[1])
            objectives.append(self._norm(end.reached))
        if self.escape is not None:  # of the last test; J is that of the points that reach the end
            self.escape = Escape(end.reached.weights, objectives, self.escape.verdict,
                                 words=words)
            verdict = self.escape.verdict
            if verdict is not None and verdict.refuted:
                end.status = Status.SADDLE
            if self.escape.left:
                end.notes.append(self.escape.note())
        return end

    def _below(self, at: Reached, epsilon: float, factor: float
               ) -> tuple[Reached, list[str]] | None:
        """A stationary network that reaches the endpoint with a smaller norm; None if none did."""
        weight = factor * self.least_weight
        soft = augmented(self.problem, at.multiplier, weight)
        self._constant = constant(self.problem, at.multiplier, weight)
        self.escape = escape(soft, at.weights, self.steps, epsilon, tol=self.tol,
                             callback=self._told, watch=self.watch)
        if not self.escape.left:
            return None
        left = self.escape
        start = Reached(left.weights, at.multiplier, weight)
        if self.problem.sigma.kinked:
            found = self._polished(start, ON_KINKS)
            if found is None:
                found = self._settled(self.reach(start, epsilon), epsilon)
            if found is None:
                return None
            there, notes = found[0], [found[1].words]
        else:
            there, notes = self.reach(start, epsilon), []
            if not max(there.gap, there.stationarity) <= self.tol:
                return None
        self.escape = left
        lower = self._norm(there) < self._norm(at) * (1 - LOWER)
        return (there, notes) if lower else None

    def _norm(self, at: Reached) -> float:
        """J: with a hard endpoint, that of the norm alone."""
        A = discrete.roll_out(self.problem, at.weights, self.steps)
        return discrete.objective(self.problem, A[-1], at.weights, self.steps)[0]
