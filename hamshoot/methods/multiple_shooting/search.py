"""The search around the program: starts, the ε ladder, the exact end and what is said of it.

A stage is begun near a stationary point, by a descent in the controls alone where that applies, and
run warm from the stage before after that; one that struggles is restarted in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.ladder import (
    ROUNDING,
    STARTS_SHARE,
    epsilon_stages,
    start_queue,
    starts_notes,
)
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.common.watch import Best, Stop, Watch
from hamshoot.methods.multiple_shooting.program import Counter, Program
from hamshoot.methods.newton import riccati as layered_newton
from hamshoot.methods.newton.active_set import affordable, polish
from hamshoot.methods.newton.escape import Escape, escape
from hamshoot.methods.newton.escape import affordable as testable
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Iterations that a stage may take from a start, and warm from the stage before (where 6 to 30 are
#: usual), until it is restarted; and how often that happens.
LONG, WARM, RESTARTS = 150, 60, 2
#: From a guess the ladder begins at this many times its last ε, to stay in the guess's basin.
GUESS_LADDER = 100.0
#: A polish that does not settle is tried again at a quarter of the ε, so often.
DEEPER = 2


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What a search goes by; the options of that name of `hamshoot.DirectMultipleShooting`."""

    tol: float
    max_iter: int
    time_limit: float | None
    seed: int
    start: str
    starts: int
    noise: float | None
    warm_up: bool
    epsilon: tuple[float, float, float]
    polish: bool


@dataclass
class Outcome:
    """Where a walk ended, and what is to be said of it."""

    status: Status
    weights: NDArray
    momenta: NDArray | None = None
    notes: list[str] = field(default_factory=list)
    residuals: dict[str, float] = field(default_factory=dict)
    objective: float = np.inf
    collapsed: bool = False

    @property
    def success(self) -> bool:
        """Whether the tolerance was met."""
        return self.status in (Status.CONVERGED, Status.SMOOTHED)


class Search:
    """One solve: starts, ladder, polish, bookkeeping.

    Parameters
    ----------
    options : SearchOptions
    problem : TrainingProblem
    steps : ndarray, shape (L,)
    callback : callable or None
    **program
        `integrator`, `nlp_solver`, `solver_options` and `given` of the `Program`.
    """

    def __init__(self, options: SearchOptions, problem: TrainingProblem, steps: NDArray,
                 callback: Callback | None, **program: Any):
        self.options, self.problem, self.steps = options, problem, steps
        self.watch = Watch(callback, options.time_limit)
        self.counter = Counter(self.watch, options.max_iter)
        self.best = Best()
        self.start_objectives: list[float] = []
        self.escape: Escape | None = None
        self.program = Program(problem, steps, counter=self.counter, offer=self._offer, **program)

    def run(self, guess: NDArray | None) -> Solution:
        """Search from the starts, or from given controls."""
        try:
            outcome = self._best_of_starts() if guess is None else self._from_guess(guess)
            if outcome.status is Status.CONVERGED and not outcome.collapsed:
                outcome = self._escape(outcome)
        except (Stop, KeyboardInterrupt) as stop:
            if self.best.weights is None:  # before the first iterate there is nothing to keep
                raise
            status = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
            outcome = Outcome(status, self.best.weights, self.program.momenta)
        return self._solution(outcome)

    # -- starts ------------------------------------------------------------------------------------

    def _best_of_starts(self) -> Outcome:
        """Walk the ladder from every start; when all collapse, from two others."""
        options = self.options
        ends: list[Outcome] = []
        queue = start_queue(options.start, options.seed, options.starts,
                            lambda: any(not end.collapsed for end in ends))
        for number, (start, seed) in enumerate(queue, start=1):
            if ends and self.watch.seconds > STARTS_SHARE * (options.time_limit or np.inf):
                break
            several = options.starts > 1 or number > 1
            prefix = f"start {number}/{max(options.starts, number)}, " if several else ""
            weights = starting_weights(self.problem, self.steps, start, seed, options.noise)
            ends.append(self._walk(weights, options.epsilon[0], prefix))
            self.start_objectives.append(ends[-1].objective)
        # A settled answer goes before a lower objective that is none.
        return min(ends, key=lambda end: (end.collapsed, not end.success, end.objective))

    def _from_guess(self, guess: NDArray) -> Outcome:
        """Walk from a guess; never end above it when there is a loss."""
        last = self.options.epsilon[1]
        start = self._offer(guess)
        if not np.isfinite(start):
            raise ValueError("initial_guess: expected a network whose representations stay finite, "
                             f"got an objective of {start}")
        outcome = self._walk(guess, min(GUESS_LADDER * last, self.options.epsilon[0]))
        above = outcome.objective > start + ROUNDING * abs(start)
        if above and not self.problem.hard_endpoint:
            # The ladder's first ε left the guess's basin: begin at the last one.
            outcome = self._walk(guess, last, "again, ")
            above = outcome.objective > start + ROUNDING * abs(start)
        if above and not self.problem.hard_endpoint:
            note = (f"its objective {outcome.objective:.10g} lies above the guess's {start:.10g}, "
                    "so the guess is returned as it came")
            return Outcome(Status.STALLED, guess, None, [note], objective=start)
        return outcome

    # -- the ladder --------------------------------------------------------------------------------

    def _walk(self, weights: NDArray, first: float, prefix: str = "") -> Outcome:
        """From controls down the ladder to the problem's own activation."""
        problem, ladder = self.problem, epsilon_stages(self.problem, self.options.epsilon, first)
        if not np.isfinite(self._offer(weights)):
            self.best.offer(self._objective(np.zeros_like(weights)), np.zeros_like(weights))
            return Outcome(Status.DIVERGED, np.zeros_like(weights))
        restart: NDArray | None = weights
        for epsilon in ladder:
            self._set_stage(epsilon, prefix)
            solved = self._stage(epsilon, restart)
            restart = None
        outcome = self._judge(epsilon, solved)
        if problem.activation == "relu" and outcome.success and self._can_polish():
            outcome = self._polish(epsilon, prefix, outcome)
        outcome.objective = self._offer(outcome.weights)
        outcome.collapsed = _collapsed(problem, outcome.weights, self.steps,
                                       self.program.integrator)
        return outcome

    def _stage(self, epsilon: float, weights: NDArray | None) -> bool:
        """Solve the program at one ε; warm from the stage before unless given controls."""
        if weights is not None:
            self.program.begin_at(self._descended(weights) if self._can_descend() else weights)
        begun = self.program.weights
        limit = WARM if weights is None else LONG
        for attempt in range(RESTARTS + 1):
            if attempt:
                # A branch of stationary points can end in a fold on the way down the ladder (a
                # network without bias that uses the offset ε/2 of the smooth ReLU as one): Newton's
                # method wanders there, one that only descends rolls down to the branch below.
                self.program.begin_at(self._descended(begun) if self._can_descend() else
                                      self.program.weights)
            if self.program.converge(epsilon, limit):
                return True
        return False

    def _set_stage(self, epsilon: float, prefix: str) -> None:
        self.program.smooth_by(epsilon)
        self.watch.stage = prefix + (f"epsilon {epsilon:.3g}" if epsilon else
                                     self.program.nlp_solver)

    def _can_descend(self) -> bool:
        return (self.options.warm_up and self.program.integrator == "euler"
                and not self.problem.hard_endpoint)

    def _descended(self, weights: NDArray) -> NDArray:
        """Controls near a stationary point of the stage, by Newton's method with descent."""
        stage = self.watch.stage
        self.watch.stage = stage + ", descent"
        found = layered_newton.minimise(self.program.smooth, weights, self.steps, tol=1e-6,
                                        max_iter=LONG, callback=self.counter.count)
        self.watch.stage = stage
        return found.weights

    def _judge(self, epsilon: float, solved: bool) -> Outcome:
        """What the last stage reached, by the adjoint of its own roll-out."""
        weights = self.program.weights
        momenta = self.program.momenta
        A, B, stationarity = self.program.adjoint(weights, momenta)
        size = max(1.0, float(np.abs(B[1:]).max()))
        residuals = {
            "smooth_stationarity": stationarity,
            "smooth_objective": discrete.objective(
                self.program.smooth, A[-1], weights, self.steps)[0],
            "multiplier_error": float(np.abs(momenta - B[1:]).max()) / size,
        }
        if self.problem.activation != "linear":
            residuals["epsilon"] = epsilon
        relu = self.problem.activation == "relu"
        # The polish goes on from wherever Newton's method converges; only without it is tol due.
        enough = 1e-4 if relu and self._can_polish() else self.options.tol
        status = Status.SMOOTHED if relu else Status.CONVERGED
        if not stationarity <= max(enough, self.options.tol):
            status = Status.STALLED
        if self.problem.hard_endpoint and discrete.boundary_residual(
                self.problem, A, B) > 100 * self.options.tol:
            status = Status.INFEASIBLE
        notes = [f"ε = {epsilon:g}, smooth stationarity {stationarity:.1e}"] if relu else []
        if not solved:
            notes.append(f"{self.program.nlp_solver} did not report success at its last stage")
        return Outcome(status, weights, momenta, notes, residuals)

    # -- the end -----------------------------------------------------------------------------------

    def _escape(self, outcome: Outcome) -> Outcome:
        """Leave a stationary point that is no minimum (`hamshoot.methods.newton.escape`)."""
        options, problem = self.options, self.problem
        if self.program.integrator != "euler" or not testable(problem, len(self.steps)):
            return outcome
        self.watch.stage = "second-order test"
        self.escape = Escape(outcome.weights, [])
        try:
            escape(problem, outcome.weights, self.steps, options.epsilon[1], tol=options.tol,
                   callback=self.counter.count, progress=self.escape)
        except (Stop, KeyboardInterrupt):
            self._offer(self.escape.weights)
            raise
        if self.escape.left:
            outcome.weights, outcome.momenta = self.escape.weights, None
            outcome.notes = [self.escape.note()]
            if problem.activation != "relu":  # once more through the program, for its multipliers
                outcome = self._walk(outcome.weights, 0.0)
                outcome.notes.append(self.escape.note())
            outcome.objective = self._offer(outcome.weights)
        if self.escape.verdict is not None and self.escape.verdict.refuted:
            outcome.status = Status.SADDLE
        return outcome

    def _can_polish(self) -> bool:
        options = self.options
        return (options.polish and self.program.integrator == "euler"
                and affordable(self.problem, len(self.steps)))

    def _polish(self, epsilon: float, prefix: str, outcome: Outcome) -> Outcome:
        """Carry the last stage to the ReLU network itself; on failure try from smaller ε."""
        options = self.options
        tol = min(options.tol, 1e-10)
        for attempt in range(DEEPER + 1):
            if attempt:
                epsilon /= 4
                self._set_stage(epsilon, prefix)
                if not self._stage(epsilon, None):
                    break
                outcome = self._judge(epsilon, True)
            self.watch.stage = prefix + "polish"
            polished = polish(self.problem, outcome.weights, self.steps, epsilon, tol=tol,
                              callback=self.counter.count)
            if polished.stationarity <= options.tol and not polished.settled:
                # Rounding keeps a badly scaled problem from 1e-10; the tolerance asked for holds.
                before = self._objective(outcome.weights)
                if polished.objective <= before + 1e-9 * abs(before):
                    polished = polished._replace(settled=True)
            if polished.settled:
                return Outcome(Status.CONVERGED, polished.weights, None, [polished.words],
                               outcome.residuals)
        outcome.status = Status.UNSETTLED
        return outcome

    # -- parts -------------------------------------------------------------------------------------

    def _objective(self, weights: NDArray) -> float:
        """J of the problem's own network; with a hard endpoint, of its norm alone."""
        A = discrete.roll_out(self.problem, weights, self.steps, self.program.integrator)
        return discrete.objective(self.problem, A[-1], weights, self.steps)[0]

    def _offer(self, weights: NDArray) -> float:
        with np.errstate(all="ignore"):
            objective = self._objective(weights)
        if self.problem.hard_endpoint:
            # The norm alone says nothing of an endpoint missed: the latest iterate is the best.
            self.best.objective = np.inf
        self.best.offer(objective, weights)
        return objective

    def _solution(self, outcome: Outcome) -> Solution:
        options, watch = self.options, self.watch
        terminal = None
        if self.problem.hard_endpoint:
            terminal = np.zeros_like(self.problem.endpoint) if outcome.momenta is None \
                else outcome.momenta[-1]
        solution = solution_from_weights(
            self.problem, outcome.weights, self.steps, status=outcome.status,
            success=outcome.success, method=f"multiple shooting ({self.program.nlp_solver})",
            integrator=self.program.integrator, nit=self.counter.iterations,
            history=tuple(watch.history), seconds=watch.seconds, terminal=terminal,
            residuals=outcome.residuals,
            extra={"start_objectives": self.start_objectives,
                   **({} if self.escape is None else self.escape.record())},
        )
        notes = [*outcome.notes, f"stationarity {solution.stationarity:.1e} (tol {options.tol:g})",
                 *starts_notes(self.start_objectives)]
        return solution.replace(message=f"{solution.message} ({'; '.join(notes)})")


def _collapsed(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, integrator: str
) -> bool:
    """Whether a network ends at a trivial solution; never with a hard endpoint."""
    if problem.hard_endpoint:
        return False
    A = discrete.roll_out(problem, weights, steps, integrator)
    loss = discrete.objective(problem, A[-1], weights, steps)[1]
    return discrete.collapsed(problem, A[-1], loss)
