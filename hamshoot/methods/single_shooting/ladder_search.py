"""The search for small and middle networks: L-BFGS down the ε ladder, reheats, the exact end.

The optimiser works in the variables v_ℓ = W_ℓ √(ρ_ℓλ/L̃), in which the weight decay is ½‖v‖²
whatever the steps, so that the curvature is at least 1 away from the loss and every layer counts
alike.

From several starts the ladder is walked in a hurry: a stage ends when J hardly falls any more. The
best end point is *reheated*, taken back to a large ε and walked down again with more patience,
which lowers J by 1–30 % (a small ε wanders, a large one sees further); the best of all is then
converged at the last ε. L-BFGS gets as far as the rounding of J lets its line search see; what is
left is taken off by Newton steps that look at the gradient only. A ReLU network that is small
enough is then polished (`hamshoot.methods.newton.active_set`): the answer is stationary for the
ReLU network itself.

An iteration costs about 1.1 gradients, 7Lw²N flops, and 4·memory·L·w(w+1) for the quasi-Newton
step; memory is (4L + 3)wN + 2·memory·Lw(w+1) numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.common.starts import start_seeds, starting_weights
from hamshoot.methods.common.watch import Best, Stop, Watch, thinned
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.active_set import affordable, polish
from hamshoot.methods.newton.escape import Escape, escape
from hamshoot.methods.newton.escape import affordable as testable
from hamshoot.methods.single_shooting.lbfgs import Minimizer
from hamshoot.problem.activations import Activation, epsilon_ladder
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Solution, Status
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Most starts that `starts=None` takes, and the seconds (by a count of flops) it may plan for.
MOST_STARTS, PLANNED_SECONDS = 5, 15.0
#: A stage ends when J falls by less than this share over `lbfgs.WINDOW` iterations: of the
#: walks from the starts, and of all later ones. The first takes about 250 iterations a stage.
HURRIED, PATIENT = 1e-2, 1e-3
#: First ε of the reheats.
REHEATS = (0.1, 0.5)
#: From a guess the ladder begins at this many times its last ε, to stay in the guess's basin.
GUESS_LADDER = 10.0
#: The polish begins at this share of the last ε, where few entries are left to change sides; if it
#: does not settle it is tried again at a quarter of the ε, so often.
POLISH_SHARE, DEEPER = 0.1, 2
#: Stationarity at which L-BFGS hands over to exact Newton, where that is affordable, and the one
#: asked of it: its convergence is quadratic, so the last digits cost one or two steps.
HAND_OVER, EXACT = 1e-3, 1e-11
#: Relative rise of J that counts as rounding when an answer is held against its guess.
ROUNDING = 1e-12
#: Records kept in the history of a solution.
HISTORY = 1000
#: Share of a time limit after which no further start begins.
STARTS_SHARE = 0.5


@dataclass
class _Outcome:
    """Where the search ended, and what is to be said of it."""

    status: Status
    weights: NDArray
    notes: list[str] = field(default_factory=list)
    residuals: dict[str, float] = field(default_factory=dict)


class LadderSearch:
    """One solve: starts, ladder, convergence, bookkeeping.

    Parameters
    ----------
    method : DirectSingleShooting
        Its options.
    problem : TrainingProblem
    steps : ndarray, shape (L,)
    callback : callable or None
    """

    def __init__(self, method, problem, steps, callback):
        self.method, self.problem, self.steps = method, problem, steps
        self.sweeps = EulerSweeps(problem, steps)
        self.watch = Watch(callback, method.time_limit)
        self.best = Best()  # by the objective of the problem's own activation
        self.start_objectives: list[float] = []
        self.reheat_objectives: list[float] = []
        self.all_collapsed = False
        self.first_gradient = float("nan")
        self.escape: Escape | None = None
        self.minimizer = Minimizer(
            self.sweeps, self.watch, memory=method.memory or 30, max_iter=method.max_iter)

    def run(self, guess: NDArray | None) -> Solution:
        """Search from the starts, or from given controls."""
        try:
            outcome = self._search(guess)
        except (Stop, KeyboardInterrupt) as stop:
            if self.minimizer.latest is None:  # before there was anything to keep
                raise
            self._offer(self.minimizer.latest)
            status = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
            outcome = _Outcome(status, self.best.weights)
        return self._solution(outcome)

    def _search(self, guess: NDArray | None) -> _Outcome:
        ladder = self._ladder()
        if guess is not None:
            self.minimizer.latest = guess
            self._offer(guess)
            first = min(GUESS_LADDER * self.method.epsilon[1], self.method.epsilon[0])
            return self._converge(self._descend(guess, self._ladder(first)), guess)
        weights = self._best_of_starts()
        if not self.all_collapsed and len(ladder) > 1:
            for first in REHEATS[: self.method.reheats]:
                weights = self._reheat(weights, first)
        return self._converge(weights)

    # -- stages ------------------------------------------------------------------------------------

    def _best_of_starts(self) -> NDArray:
        """Walk the ladder from every start; when all collapse, from two others."""
        method, problem = self.method, self.problem
        count = planned_starts(method, problem)
        queue = [(method.start, seed) for seed in start_seeds(method.seed, count)]
        other = "identity" if method.start == "path" else "path"
        spare = [(other, method.seed), (other, method.seed + 1000)]
        ends: list[tuple[float, NDArray]] = []
        for number, (start, seed) in enumerate(_with_spares(queue, spare, ends), start=1):
            late = self.watch.seconds > STARTS_SHARE * (method.time_limit or np.inf)
            if ends and late:
                break
            weights = starting_weights(problem, self.steps, start, seed, method.noise)
            prefix = f"start {number}/{max(count, number)}, " if count > 1 else ""
            weights = self._descend(weights, self._ladder(), HURRIED, prefix)
            objective = self._offer(weights)
            self.start_objectives.append(objective)
            if not self._collapsed():
                ends.append((objective, weights))
        self.all_collapsed = not ends
        if not ends:  # the best of them, to be reported as such
            return self.best.weights
        return min(ends, key=lambda end: end[0])[1]

    def _reheat(self, weights: NDArray, first: float) -> NDArray:
        """Walk down again from a large ε; the better of before and after, by J at ε = 0."""
        before = self._offer(weights)
        walked = self._descend(weights, self._ladder(first), PATIENT, "reheated, ")
        after = self._offer(walked)
        self.reheat_objectives.append(after)
        return walked if after < before else weights

    def _descend(
        self, weights: NDArray, ladder: tuple[float, ...], decrease: float = PATIENT,
        prefix: str = "",
    ) -> NDArray:
        """Walk down a ladder; a stage ends when J falls by less than `decrease` per WINDOW."""
        self.minimizer.latest = weights
        self._offer(weights)
        for epsilon in ladder:
            self._set_activation(epsilon)
            self.watch.stage = prefix + self._stage_name(epsilon)
            weights = self.minimizer.minimize(
                weights, self.method.tol, self.method.stage_iter, decrease
            )
            if np.isnan(self.first_gradient):
                self.first_gradient = self.minimizer.first_gradient
            self._offer(weights)
        return weights

    def _converge(self, weights: NDArray, guess: NDArray | None = None) -> _Outcome:
        """Converge at the last ε; from a guess, never end above it."""
        method, last = self.method, self._ladder()[-1]
        self._set_activation(last)
        stage = "convergence, " + self._stage_name(last)
        weights = self._to_tolerance(weights, stage)
        reached = self.minimizer.stationarity
        residuals = {"smooth_stationarity": reached, "smooth_objective": self.minimizer.objective,
                     "epsilon": last, "relative_gradient": self._relative_gradient()}
        guess_objective = np.inf if guess is None else self._evaluate(guess)
        done = reached <= method.tol
        smooth = self.problem.activation != "relu"
        status = (Status.CONVERGED if smooth else Status.SMOOTHED) if done else Status.STALLED
        notes = [] if smooth else [f"ε = {last:g}"]
        notes += [f"{'stationarity' if smooth else 'smooth stationarity'} {reached:.1e} "
                  f"(tol {method.tol:g})"]
        if method.polish and affordable(self.problem, self.sweeps.layers):
            status, weights, note = self._polish(weights, last, status)
            notes.append(note)
        if status is Status.CONVERGED:
            status, weights, notes = self._escape(weights, last, notes)
        objective = self._offer(weights)
        if objective > guess_objective + ROUNDING * abs(guess_objective):
            notes.append(
                f"its objective {objective:.10g} lies above the guess's {guess_objective:.10g}, "
                "so the guess is returned as it came; a smaller last epsilon may get below it"
            )
            return _Outcome(Status.STALLED, guess, notes, residuals)
        return _Outcome(status, weights, notes, residuals)

    def _to_tolerance(self, weights: NDArray, stage: str) -> NDArray:
        """L-BFGS and Newton in turns: each round goes on where the other's rounding stopped it."""
        method, reached = self.method, np.inf
        exact = exact_newton.affordable(self.problem, self.sweeps.layers)
        while True:
            self.watch.stage = stage
            weights = self.minimizer.minimize(weights, max(method.tol, HAND_OVER if exact else 0.0))
            if exact:
                self.watch.stage = stage + ", exact Newton"
                weights = self.minimizer.take(self._newton(weights, min(method.tol, EXACT)))
            if self.minimizer.stationarity > method.tol:
                self.watch.stage = stage + ", Newton"
                weights = self.minimizer.finish(weights, method.tol)
            before, reached = reached, self.minimizer.stationarity
            if reached <= method.tol or reached > 0.5 * before:
                return weights

    def _polish(
        self, weights: NDArray, epsilon: float, status: Status
    ) -> tuple[Status, NDArray, str]:
        """Carry the last stage to the ReLU network itself; on failure try from smaller ε."""
        smooth, target = weights, POLISH_SHARE * epsilon
        for _ in range(DEEPER + 1):
            smooth = self._lower(smooth, epsilon, target)
            epsilon, target = target, target / 4
            self.watch.stage = "polish"
            polished = polish(self.problem, smooth, self.steps, epsilon,
                              tol=min(self.method.tol, 1e-10), callback=self._record)
            settled = polished.settled or (
                polished.stationarity <= self.method.tol
                and polished.objective <= self._evaluate(smooth) * (1 + 1e-9))
            if settled:
                return (Status.CONVERGED, polished.weights,
                        polished.words)
        note = "the polish did not settle"
        return (Status.UNSETTLED if status is Status.SMOOTHED else status), weights, note

    def _escape(
        self, weights: NDArray, epsilon: float, notes: list[str]
    ) -> tuple[Status, NDArray, list[str]]:
        """Leave stationary points that are no minima (`hamshoot.methods.newton.escape`)."""
        if not testable(self.problem, self.sweeps.layers):
            return Status.CONVERGED, weights, notes
        self._offer(weights)
        self.watch.stage = "second-order test"
        self.escape = Escape(weights, [])
        try:
            escape(self.problem, weights, self.steps, epsilon, tol=self.method.tol,
                   callback=self._record, progress=self.escape)
        except (Stop, KeyboardInterrupt):
            self._offer(self.escape.weights)
            raise
        if self.escape.left:
            notes = [note for note in notes if "on the kink" not in note] + [self.escape.note()]
        status = Status.SADDLE if self.escape.verdict.refuted else Status.CONVERGED
        return status, self.escape.weights, notes

    def _lower(self, weights: NDArray, epsilon: float, target: float) -> NDArray:
        """From a stationary point at one ε to one at a smaller."""
        for value in epsilon_ladder(epsilon, target, 0.5)[1:]:
            self._set_activation(value)
            self.watch.stage = "to the kink, " + self._stage_name(value)
            if exact_newton.affordable(self.problem, self.sweeps.layers):
                weights = self._newton(weights, 1e-2 * self.method.tol)
            else:
                weights = self.minimizer.minimize(weights, self.method.tol, self.method.stage_iter)
        return weights

    def _record(self, objective: float, stationarity: float) -> None:
        self.watch.record(objective, stationarity)
        if self.watch.iterations >= self.method.max_iter:
            raise Stop(Status.MAX_ITER)

    def _newton(self, weights: NDArray, tol: float) -> NDArray:
        """Exact Newton at the ε of the stage."""
        sigma = self.sweeps.activation
        problem = self.problem
        if sigma != problem.sigma:
            problem = problem.replace(activation=sigma.name, epsilon=sigma.epsilon)
        return exact_newton.minimise(
            problem, weights, self.steps, tol=tol, callback=self._record).weights

    # -- parts -------------------------------------------------------------------------------------

    def _ladder(self, first: float | None = None) -> tuple[float, ...]:
        """ε of the stages, ending at the last; (0,) for a linear network."""
        problem, (given, last, factor) = self.problem, self.method.epsilon
        if problem.activation == "linear":
            return (0.0,)
        if problem.activation == "smooth_relu":
            last = problem.sigma.epsilon
        return epsilon_ladder(max(given if first is None else first, last), last, factor)

    def _set_activation(self, epsilon: float) -> None:
        linear = self.problem.activation == "linear"
        self.sweeps.activation = self.problem.sigma if linear else \
            Activation("smooth_relu", epsilon)

    def _stage_name(self, epsilon: float) -> str:
        return f"epsilon {epsilon:.3g}" if epsilon else "lbfgs"

    def _evaluate(self, weights: NDArray) -> float:
        """Objective of the problem's own network."""
        smoothed, self.sweeps.activation = self.sweeps.activation, self.problem.sigma
        value = self.sweeps.objective(weights)
        self.sweeps.activation = smoothed
        return value

    def _offer(self, weights: NDArray) -> float:
        objective = self._evaluate(weights)
        self.best.offer(objective, weights)
        return objective

    def _collapsed(self) -> bool:
        """Whether the network evaluated last ends at a trivial solution."""
        problem, end = self.problem, self.sweeps.representations[-1]
        residual = problem.readout @ end - problem.targets
        return discrete.collapsed(problem, end, float(np.sum(residual**2)) / problem.n_samples)

    def _relative_gradient(self) -> float:
        first = self.first_gradient
        return self.minimizer.gradient_norm / first if first > 0 else float("nan")

    def _solution(self, outcome: _Outcome) -> Solution:
        watch = self.watch
        nit, seconds = watch.iterations, watch.seconds
        extra = {"start_objectives": self.start_objectives,
                 "reheat_objectives": self.reheat_objectives,
                 "evaluations": self.sweeps.evaluations}
        if self.escape is not None:
            extra |= self.escape.record()
        solution = solution_from_weights(
            self.problem, outcome.weights, self.steps, status=outcome.status,
            success=outcome.status in (Status.CONVERGED, Status.SMOOTHED),
            method="single shooting (lbfgs)", nit=nit,
            history=thinned(watch.history, HISTORY), seconds=seconds,
            residuals=outcome.residuals, extra=extra,
        )
        notes = [f"stationarity of this network {solution.stationarity:.1e}"]
        if len(self.start_objectives) > 1:
            low, high = min(self.start_objectives), max(self.start_objectives)
            notes.append(
                f"best of {len(self.start_objectives)} starts, J from {low:.6g} to {high:.6g}"
            )
        details = "; ".join(outcome.notes + notes)
        return solution.replace(message=f"{solution.message} ({details})")


def planned_starts(method: Any, problem: TrainingProblem) -> int:
    """How many starts `starts=None` means: as many as PLANNED_SECONDS hold, 1 to 5."""
    if method.starts is not None:
        return method.starts
    w, N, L = problem.width, problem.n_samples, method.layers
    # Measured on one core: 20 GF/s, 3 ns an activation, 3 ns a variable and pair of the optimiser.
    iteration = 7 * L * w * w * N / 2e10 + 3e-9 * L * w * (N + (method.memory or 30) * w) + 1e-4
    stages = 1 if problem.activation == "linear" else len(epsilon_ladder(*method.epsilon))
    return int(np.clip(PLANNED_SECONDS / (iteration * stages * 250), 1, MOST_STARTS))


def _with_spares(queue: list, spare: list, ends: list):
    """The starts of the queue, then the spare ones while nothing useful has been found."""
    yield from queue
    for start in spare:
        if not ends:
            yield start
