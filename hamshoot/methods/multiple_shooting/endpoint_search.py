"""Multiple shooting to a hard endpoint: what differs from a loss.

J is the norm alone, which says nothing of an endpoint missed. So the basin is searched with the
endpoint as a stiff loss, rounds of multipliers take the network to the endpoint, and there the
program begins, with the multiplier. Where the program wanders off, as it does where activations on
the kink leave the endpoint's conditions dependent, the rounds go on to the end by themselves. A
search whose network does not reach the endpoint is followed by the program from a cold start, and
by others, from other seeds. What is no closer to the endpoint than the tolerance is no success.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.multiple_shooting.hard_endpoint import HardEndpoint, Reached
from hamshoot.methods.multiple_shooting.nlp import overconstrained
from hamshoot.methods.multiple_shooting.search import (
    ENOUGH,
    LONG,
    WARM,
    Outcome,
    Search,
    stationarity_note,
)
from hamshoot.methods.search.basins import BasinSearch
from hamshoot.methods.search.ladder import GUESS_LADDER
from hamshoot.methods.search.outcome import judged
from hamshoot.solution.solution import Solution, Status
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Attempts at most: searches and cold starts in turn, each pair from other seeds, so far apart.
ATTEMPTS, BETWEEN = 4, 1_000_000
#: A network whose relative gap is larger than this after all multipliers is given up.
FAR = 1e-3


class EndpointSearch(Search):
    """One solve with a hard endpoint; parameters as `Search`."""

    def _set_up(self, integrator: str) -> None:
        self.to = HardEndpoint(self.problem, self.steps, self.options.tol, self.counter.count,
                               self._offer, self.watch)
        self.basins = self._search(0)
        self.at: Reached | None = None  # where the stage began
        self.exact = integrator == "euler" and self.to.affordable
        self.apart: list[float] = []  # gaps of the starts
        self.attempts = 0

    def _search(self, number: int) -> BasinSearch:
        options = replace(self.options, seed=self.options.seed + BETWEEN * number)
        return BasinSearch(options, self.to.stiff, self.steps, self.watch, self.best)

    def _stopped(self, status: Status, weights: NDArray) -> Outcome:
        momenta = self.program.momenta
        if momenta is not None:
            return Outcome(status, weights, momenta[-1])
        A = discrete.roll_out(self.problem, weights, self.steps, self.program.integrator)
        return Outcome(status, weights, np.zeros_like(A[-1]))

    # -- starts ------------------------------------------------------------------------------------

    def _from_basin(self) -> Outcome:
        """From the first attempt whose network reaches the endpoint, else the closest."""
        ends = []
        for number in range(ATTEMPTS):
            self.attempts = number + 1
            ends.append(self._cold(number // 2) if number % 2 else self._searched(number // 2))
            if ends[-1].success:
                return ends[-1]
        return min(ends, key=self._apart)

    def _searched(self, number: int) -> Outcome:
        """From a search with the endpoint as a stiff loss."""
        if number:
            self.basins = self._search(number)
        return self._from_network(self.basins.run().weights)

    def _cold(self, number: int) -> Outcome:
        """The program alone, from a start as it is.

        A descent of the stiff loss may end where A_1 has lost a rank, in a minimum at some distance
        from the endpoint (a linear map whose determinant is to be negative: it is positive at the
        start). A path fit is beyond that, near the endpoint, at a large norm.
        """
        options = self.options
        weights = starting_weights(self.problem, self.steps, options.start or "path",
                                   options.seed + BETWEEN * number, options.noise)
        self.at = self.to.begin(weights)
        return self._walk(weights, options.epsilon[0], "from the start, ")

    def _from_network(self, weights: NDArray) -> Outcome:
        """From a network of the search to the endpoint, by multipliers, and then the program.

        Another integrator than Euler moves the states, and takes the whole ladder.
        """
        if not self.exact:
            return self._walk(weights, self.options.epsilon[0])
        first = self.basins.last
        self._set_stage(first, "")
        self.at = at = self.to.reach(self.to.begin(weights), first)
        if at.gap > FAR:
            return Outcome(Status.INFEASIBLE, at.weights, at.multiplier)
        return self._walk(at.weights, first)

    def _from_guess(self, guess: NDArray) -> Outcome:
        """Walk from a guess."""
        if not np.isfinite(self._offer(guess)):
            raise ValueError("initial_guess: expected a network whose representations stay finite, "
                             f"got an objective of {self._objective(guess)}")
        self.at = None
        first, last, _ = self.options.epsilon
        return self._walk(guess, min(GUESS_LADDER * last, first))

    def _least(self, ends: list[Outcome]) -> Outcome:
        """The least norm of those that reach the endpoint, else the closest."""
        self.start_objectives += [end.objective for end in ends]
        self.apart += [self._apart(end) for end in ends]
        reached = [end for end in ends if end.success]
        if reached:
            return min(reached, key=lambda end: end.objective)
        return min(ends, key=self._apart)

    # -- the ladder --------------------------------------------------------------------------------

    def _begin_at(self, weights: NDArray) -> None:
        """Set the program to controls and a multiplier, after rounds of multipliers."""
        epsilon = self.program.smooth.sigma.epsilon
        at, self.at = self.at, None
        if at is None:
            at = self.to.begin(weights)
            if self._can_descend():
                at = self.to.reach(at, epsilon)
        self.program.begin_at(at.weights, at.multiplier)

    def _stage(self, epsilon: float, weights: NDArray | None) -> bool:
        """Solve the program at one ε; where it fails, by multipliers alone."""
        if not self._can_descend():
            return super()._stage(epsilon, weights)
        if weights is not None:
            self._begin_at(weights)
        begun, momenta = self.program.weights, self.program.momenta
        if self.program.converge(epsilon, WARM if weights is None else LONG):
            return True
        assert momenta is not None
        at = self.to.reach(self.to.begin(begun, momenta[-1]), epsilon)
        self.program.begin_at(at.weights, at.multiplier)
        return max(at.gap, at.stationarity) <= self.options.tol

    def _lost(self) -> bool:
        return self.exact and not self._smooth_gap(self.program.weights) <= FAR

    def _smooth_gap(self, weights: NDArray) -> float:
        """Relative gap of the network of the stage."""
        with np.errstate(all="ignore"):
            A = discrete.roll_out(self.program.smooth, weights, self.steps,
                                  self.program.integrator)
            return discrete.boundary_residual(self.problem, A, A)

    def _can_descend(self) -> bool:
        return super()._can_descend() and self.to.affordable

    def _judge(self, epsilon: float, solved: bool) -> Outcome:
        """What the last stage reached; INFEASIBLE where its network misses the endpoint."""
        outcome = super()._judge(epsilon, solved)
        enough = max(ENOUGH if self._polishes() else 0.0, self.options.tol)
        if not self._smooth_gap(outcome.weights) <= enough:
            outcome.status = Status.INFEASIBLE
        return outcome

    def _polishes(self) -> bool:
        return self.exact and self.options.polish and self.to.polishes

    def _exact_end(self, outcome: Outcome, epsilon: float) -> Outcome:
        """The polish with multipliers, and the second-order test."""
        if not self.exact:
            return outcome
        assert outcome.multiplier is not None
        at = self.to.begin(outcome.weights, outcome.multiplier)
        self.watch.stage = "exact end"
        end = self.to.end(at, epsilon, self.options.polish)
        notes = [] if end.status is Status.CONVERGED else outcome.notes
        residuals = outcome.residuals
        if not self.problem.sigma.kinked and end.reached is not at:
            self.program.begin_at(end.reached.weights, end.reached.multiplier)
            residuals = self._judge(epsilon, True).residuals
        return Outcome(end.status, end.reached.weights, end.reached.multiplier, notes + end.notes,
                       residuals)

    # -- parts -------------------------------------------------------------------------------------

    def _offer(self, weights: NDArray) -> float:
        """J, the norm alone; kept if it is the best of the stiff loss."""
        with np.errstate(all="ignore"):
            A = discrete.roll_out(self.problem, weights, self.steps, self.program.integrator)
            merit = discrete.objective(self.to.stiff, A[-1], weights, self.steps)[0]
            objective = discrete.objective(self.problem, A[-1], weights, self.steps)[0]
        self.best.offer(merit, weights)
        return objective if np.isfinite(merit) else np.inf

    def _apart(self, outcome: Outcome) -> float:
        """Relative gap of the problem's own network."""
        A = discrete.roll_out(self.problem, outcome.weights, self.steps, self.program.integrator)
        gap = discrete.boundary_residual(self.problem, A, A)
        return gap if np.isfinite(gap) else np.inf

    def _solution(self, outcome: Outcome) -> Solution:
        tol = self.options.tol
        if outcome.multiplier is None:
            outcome.multiplier = np.zeros_like(self.problem.endpoint)
        extra: dict[str, Any] = {"start_objectives": self.start_objectives}
        if not self.start_objectives:
            scale = self.problem.weight_decay / self.to.stiff.weight_decay
            extra = {key: [scale * J for J in values]
                     for key, values in self.basins.record().items()}
        if self.to.escape is not None:
            extra |= self.to.escape.record()
        if stats := self.program.statistics():
            extra["solver_stats"] = stats
        solution = self._evaluated(outcome, extra)
        gap = float(np.linalg.norm(solution.representations[-1] - self.problem.endpoint))
        relative = solution.residuals["boundary_residual"]
        solution = solution.replace(residuals={**solution.residuals, "endpoint_gap": gap})
        if solution.success and not relative <= tol:
            # The smoothed network reaches it, the problem's own does not.
            solution = solution.replace(status=Status.UNSETTLED, success=False)
        notes = [*outcome.notes, stationarity_note(solution, tol),
                 f"gap to the endpoint {gap:.1e}, {relative:.1e} of its norm or of 1 (tol {tol:g})",
                 *self._starts_note()]
        if not solution.success and (words := overconstrained(self.problem, len(self.steps))):
            notes.append(words)
        return judged(solution, np.inf, notes)

    def _starts_note(self) -> list[str]:
        """What a message says of several starts: J of those that reach the endpoint."""
        if not self.start_objectives:
            return [f"attempt {self.attempts} of {ATTEMPTS}"] if self.attempts > 1 else []
        if len(self.start_objectives) < 2:
            return []
        reached = [J for J, apart in zip(self.start_objectives, self.apart, strict=True)
                   if apart <= self.options.tol]
        count, missed = len(self.start_objectives), len(self.start_objectives) - len(reached)
        words = f"best of {count} starts"
        if reached:
            words += f", J from {min(reached):.6g} to {max(reached):.6g}"
        if missed:
            words += f", {missed} of them did not reach the endpoint"
        return [words]
