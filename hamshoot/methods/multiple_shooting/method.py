"""`DirectMultipleShooting`: controls and representations together, by CasADi and an NLP solver.

Every node A_ℓ is a variable tied to the one before by a defect constraint
(`hamshoot.methods.multiple_shooting.nlp`), so an unstable roll-out does no harm, and the
multipliers of the defects are the momenta. ReLU goes down a ladder of smooth ReLUs, each stage
warm-started in the controls, the nodes and the multipliers, and ends with the polish
(`hamshoot.methods.newton.active_set`) that holds the activations on the kink: the answer is
stationary for the ReLU network itself.

A start is rolled out and swept back, so that the first iterate is feasible and its multipliers are
the exact adjoint. Before that a descent in the controls alone (`hamshoot.methods.newton.minimise`)
takes it near a stationary point: there the NLP solver converges in a handful of iterations, where
from a cold start it takes fifty to hundreds, each of which factorises the whole KKT matrix. A stage
that struggles, as it does where the branch it follows ends in a fold, is restarted in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import blas_threads
from hamshoot.methods.common.starts import STARTS, start_seeds, starting_weights, weights_of
from hamshoot.methods.common.watch import Best, Stop, Watch, deferred_interrupts
from hamshoot.methods.multiple_shooting.nlp import (
    NLP_SOLVERS,
    SMALL_NODE,
    MultipleShootingNLP,
    build_nlp,
    iteration_callback,
)
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.active_set import affordable, polish
from hamshoot.methods.newton.escape import Escape, escape
from hamshoot.methods.newton.escape import affordable as testable
from hamshoot.network.layer_steps import steps_of
from hamshoot.problem.activations import epsilon_ladder
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.support.checks import check_choice, check_count, check_layers, check_options
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTEGRATORS = ("euler", "rk4")
#: Iterations that a stage may take from a start, and warm from the stage before (where 6 to 30 are
#: usual), until it is restarted; and how often that happens.
LONG, WARM, RESTARTS = 150, 60, 2
#: fatrop, which cannot be interrupted, comes back after so many iterations for the clock.
SHORT = 30
#: From a guess the ladder begins at this many times its last ε, to stay in the guess's basin.
GUESS_LADDER = 100.0
#: A polish that does not settle is tried again at a quarter of the ε, so often.
DEEPER = 2
#: Share of a time limit after which no further start begins.
STARTS_SHARE = 0.5
#: Relative rise of J that counts as rounding when an answer is held against its guess.
ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class DirectMultipleShooting:
    """Optimal L-layer network by direct multiple shooting.

    Parameters
    ----------
    layers : int
        L > L̃.
    steps : {"equidistant", "irregular"} or array_like, shape (L,)
        Layer steps ρ, sum 1, every ρL̃ < 1.
    integrator : {"euler", "rk4"}
        Euler is the Leaky ResNet; RK4 with W constant over a step approaches the continuous path.
    nlp_solver : {"ipopt", "fatrop", "sqpmethod"}
        IPOPT is the reference; fatrop, which knows the stages, takes 0.6 to 0.9 of its time up to
        wN of about 200; sqpmethod is for experiments on small problems.
    tol : float
        Bound on the stationarity max_ℓ ‖W_ℓ − L̃B_ℓσ̂ᵀ‖_F / max(1, ‖W_ℓ‖_F) of the rolled-out
        network: for ReLU, of the ReLU network itself, at the best slopes on its kinks.
    max_iter : int
        Iterations of all starts and stages together.
    time_limit : float, optional
        Seconds.
    seed : int
    start : {"path", "identity", "random"}
    starts : int
        Best of so many starts, by the objective of the problem's own activation.
    noise : float, optional
        Of the start, see `hamshoot.methods.common.starts`.
    warm_up : bool
        Whether a start descends in the controls alone before the NLP solver takes over (Euler with
        a loss); False leaves the cold start to the NLP solver.
    epsilon : tuple of float
        First and last ε of the ladder, and the factor between stages. A large first ε sees past
        small minima. A smooth ReLU uses the ladder down to its own ε, a linear network none.
    polish : bool
        Whether ReLU is carried to its exact optimum (Euler, a loss, a size within
        `hamshoot.methods.newton.active_set.affordable`); otherwise the status is SMOOTHED.
    solver_options : dict, optional
        Passed on to `casadi.nlpsol`, over those chosen here.

    Raises
    ------
    ValueError
        For an option out of range.

    Notes
    -----
    An iteration factorises a block tridiagonal KKT matrix: O(L(wN)³) flops, O(L(wN)²) memory.
    `demos/benchmarks/direct.py` measures it: a few seconds at (w, N, L) = (4, 20, 10), ten to
    twenty at (6, 30, 20). For more than that, see `DirectSingleShooting`.
    """

    layers: int = 20
    steps: Any = "equidistant"
    integrator: str = "euler"
    nlp_solver: str = "ipopt"
    tol: float = 1e-8
    max_iter: int = 10_000
    time_limit: float | None = None
    seed: int = 0
    start: str = "path"
    starts: int = 1
    noise: float | None = None
    warm_up: bool = True
    epsilon: tuple[float, float, float] = (0.5, 1e-4, 0.5)
    polish: bool = True
    solver_options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_options(self)
        check_count("layers", self.layers, 1)
        check_choice("integrator", self.integrator, INTEGRATORS)
        check_choice("nlp_solver", self.nlp_solver, NLP_SOLVERS)
        check_choice("start", self.start, STARTS)
        check_count("starts", self.starts, 1)
        if not isinstance(self.epsilon, (tuple, list)) or len(self.epsilon) != 3:
            raise ValueError(f"epsilon: expected (first, last, factor), got {self.epsilon!r}")
        epsilon_ladder(*self.epsilon)
        for name in ("warm_up", "polish"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        if self.solver_options is not None and not isinstance(self.solver_options, dict):
            raise ValueError(f"solver_options: expected a dict, got {self.solver_options!r}")

    def solve(
        self,
        problem: TrainingProblem,
        initial_guess: Any = None,
        callback: Callback | None = None,
    ) -> Solution:
        """Solve `problem` for its optimal L-layer network.

        Parameters
        ----------
        problem : TrainingProblem
            With a loss, or with a hard endpoint A_1 = given.
        initial_guess : Solution, LeakyResNet or array_like, optional
            In place of the starts. The ladder then begins at a small ε, and with a loss the
            answer's objective is at or below the guess's.
        callback : callable, optional
            Receives a `Record` per iteration; returning True stops the solve.

        Returns
        -------
        Solution
            Its momenta are the adjoint of the roll-out; `residuals["multiplier_error"]` says how
            far the multipliers of the program are from it. Status CONVERGED; for ReLU UNSETTLED
            or SMOOTHED when the polish failed or does not apply; else why it ended.

        Raises
        ------
        ValueError
            For too few layers, a guess that does not fit, or an unknown solver option.
        """
        steps = self._mesh(problem)
        guess = None if initial_guess is None else weights_of(initial_guess, problem, steps)
        with blas_threads(problem):
            return _Search(self, problem, steps, callback).run(guess)

    def build(self, problem: TrainingProblem) -> MultipleShootingNLP:
        """Build the program alone: its CasADi functions and `nlpsol` object, for one's own use."""
        self._mesh(problem)
        return build_nlp(problem, self.layers, self.integrator, self.nlp_solver,
                         self._solver_options(problem))

    def _mesh(self, problem: TrainingProblem) -> NDArray:
        if isinstance(self.steps, str):
            check_layers(self.layers, problem.effective_depth)
        return steps_of(self.steps, self.layers, problem.effective_depth)

    def _solver_options(self, problem: TrainingProblem) -> dict[str, Any]:
        """Quiet, tight, without IPOPT's early acceptance, and warm from the first iteration."""
        tight = 0.01 * self.tol  # the solvers' own measures are scaled
        options: dict[str, Any]
        if self.nlp_solver == "ipopt":
            small = problem.width * problem.n_samples <= SMALL_NODE
            options = {
                "ipopt.print_level": 0, "ipopt.sb": "yes", "ipopt.tol": tight,
                "ipopt.acceptable_iter": 0, "ipopt.max_iter": LONG, "ipopt.mu_init": 1e-6,
                "ipopt.mumps_pivot_order": 0 if small else 5,
            }
        elif self.nlp_solver == "fatrop":
            options = {"fatrop.print_level": 0, "fatrop.tol": tight, "fatrop.max_iter": SHORT,
                       "fatrop.mu_init": 1e-6}
        else:
            options = {
                "print_header": False, "print_iteration": False, "print_status": False,
                "max_iter": LONG, "tol_du": tight, "tol_pr": tight, "min_step_size": 1e-12,
                "convexify_strategy": "regularize", "qpsol": "nlpsol",
                "qpsol_options": {
                    "nlpsol": "ipopt", "print_time": False, "error_on_fail": False,
                    "nlpsol_options": {"print_time": False, "ipopt.print_level": 0,
                                       "ipopt.sb": "yes", "ipopt.tol": tight},
                },
            }
        return {**options, **(self.solver_options or {})}


# -- the search ------------------------------------------------------------------------------------


@dataclass
class _Outcome:
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
        return self.status in (Status.CONVERGED, Status.SMOOTHED)


class _Search:
    """One solve: starts, ladder, polish, bookkeeping."""

    def __init__(self, method, problem, steps, callback):
        self.method, self.problem, self.steps = method, problem, steps
        self.watch = Watch(callback, method.time_limit)
        self.best = Best()
        self.smooth = problem  # of the stage
        self.x: NDArray | None = None
        self.lam: NDArray | None = None
        self.iterations = 0  # of the NLP solver and the polish
        self.start_objectives: list[float] = []
        self.escape: Escape | None = None
        self.monitor = _Monitor(self)
        self.nlp = self._build()

    def _build(self) -> MultipleShootingNLP:
        method, problem = self.method, self.problem
        options = method._solver_options(problem)
        if method.nlp_solver != "fatrop":  # which has no iteration callback
            states = method.layers * problem.initial_state.size
            controls = method.layers * int(np.prod(problem.control_shape))
            ends = problem.initial_state.size if problem.hard_endpoint else 0
            self.callback = iteration_callback(self.monitor, states + controls, states + ends)
            options["iteration_callback"] = self.callback
        return build_nlp(problem, method.layers, method.integrator, method.nlp_solver, options)

    def run(self, guess: NDArray | None) -> Solution:
        try:
            outcome = self._best_of_starts() if guess is None else self._from_guess(guess)
            if outcome.status is Status.CONVERGED and not outcome.collapsed:
                outcome = self._escape(outcome)
        except (Stop, KeyboardInterrupt) as stop:
            if self.best.weights is None:  # before the first iterate there is nothing to keep
                raise
            status = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
            outcome = _Outcome(status, self.best.weights, self.best_momenta())
        return self._solution(outcome)

    # -- starts ------------------------------------------------------------------------------------

    def _best_of_starts(self) -> _Outcome:
        """Walk the ladder from every start; when all collapse, from two others."""
        method = self.method
        queue = [(method.start, seed) for seed in start_seeds(method.seed, method.starts)]
        other = "identity" if method.start == "path" else "path"
        spare = [(other, method.seed), (other, method.seed + 1000)]
        ends: list[_Outcome] = []
        for number, (start, seed) in enumerate(queue + spare, start=1):
            useful = [end for end in ends if not end.collapsed]
            late = self.watch.seconds > STARTS_SHARE * (method.time_limit or np.inf)
            if (ends and late) or (number > len(queue) and useful):
                break
            several = method.starts > 1 or number > 1
            prefix = f"start {number}/{max(method.starts, number)}, " if several else ""
            weights = starting_weights(self.problem, self.steps, start, seed, method.noise)
            ends.append(self._walk(weights, method.epsilon[0], prefix))
            self.start_objectives.append(ends[-1].objective)
        # A settled answer goes before a lower objective that is none.
        return min(ends, key=lambda end: (end.collapsed, not end.success, end.objective))

    def _from_guess(self, guess: NDArray) -> _Outcome:
        """Walk from a guess; never end above it when there is a loss."""
        last = self.method.epsilon[1]
        start = self._offer(guess)
        if not np.isfinite(start):
            raise ValueError("initial_guess: expected a network whose representations stay finite, "
                             f"got an objective of {start}")
        outcome = self._walk(guess, min(GUESS_LADDER * last, self.method.epsilon[0]))
        above = outcome.objective > start + ROUNDING * abs(start)
        if above and not self.problem.hard_endpoint:
            # The ladder's first ε left the guess's basin: begin at the last one.
            outcome = self._walk(guess, last, "again, ")
            above = outcome.objective > start + ROUNDING * abs(start)
        if above and not self.problem.hard_endpoint:
            note = (f"its objective {outcome.objective:.10g} lies above the guess's {start:.10g}, "
                    "so the guess is returned as it came")
            return _Outcome(Status.STALLED, guess, None, [note], objective=start)
        return outcome

    # -- the ladder --------------------------------------------------------------------------------

    def _walk(self, weights: NDArray, first: float, prefix: str = "") -> _Outcome:
        """From controls down the ladder to the problem's own activation."""
        problem, ladder = self.problem, self._ladder(first)
        if not np.isfinite(self._offer(weights)):
            self.best.offer(self._objective(np.zeros_like(weights)), np.zeros_like(weights))
            return _Outcome(Status.DIVERGED, np.zeros_like(weights))
        restart = weights
        for epsilon in ladder:
            self._set_stage(epsilon, prefix)
            solved = self._stage(epsilon, restart)
            restart = None
        outcome = self._judge(epsilon, solved)
        if problem.activation == "relu" and outcome.success and self._can_polish():
            outcome = self._polish(epsilon, prefix, outcome)
        outcome.objective = self._offer(outcome.weights)
        outcome.collapsed = self._collapsed(outcome.weights)
        return outcome

    def _stage(self, epsilon: float, weights: NDArray | None) -> bool:
        """Solve the program at one ε; warm from the stage before unless given controls."""
        if weights is not None:
            self._feasible(self._descended(weights) if self._can_descend() else weights)
        begun = self.nlp.unpack(self.x)[0]
        limit = WARM if weights is None else LONG
        for attempt in range(RESTARTS + 1):
            if attempt:
                self._feasible(self._rescued(begun))
            if self._converges(epsilon, limit):
                return True
        return False

    def _converges(self, epsilon: float, limit: int) -> bool:
        """Run the NLP solver for at most `limit` iterations."""
        end = self.iterations + limit
        while self.iterations < end:
            self.monitor.end, before = end, self.iterations
            if self._run(epsilon):
                return True
            if self.iterations <= before + 1:  # it gives up where it stands: so does another call
                return False
        return False

    def _can_descend(self) -> bool:
        return (self.method.warm_up and self.method.integrator == "euler"
                and not self.problem.hard_endpoint)

    def _descended(self, weights: NDArray) -> NDArray:
        """Controls near a stationary point of the stage, by Newton's method with descent."""
        stage = self.watch.stage
        self.watch.stage = stage + ", descent"
        found = exact_newton.minimise(self.smooth, weights, self.steps, tol=1e-6,
                                        max_iter=LONG, callback=self.count)
        self.watch.stage = stage
        return found.weights

    def _rescued(self, weights: NDArray) -> NDArray:
        """Controls to restart a stage from that began at `weights` and has not converged.

        A branch of stationary points can end in a fold on the way down the ladder (a network
        without bias that uses the offset ε/2 of the smooth ReLU as one). Newton's method on the
        optimality system then wanders; a method that only descends rolls down to the branch below.
        """
        return self._descended(weights) if self._can_descend() else self.nlp.unpack(self.x)[0]

    def _run(self, epsilon: float) -> bool:
        """One call of the NLP solver; keep its iterate when it is finite."""
        parameters = self.nlp.parameters(self.problem, self.steps, epsilon)
        before = self.iterations
        with deferred_interrupts() as self.monitor.interrupts:
            result = self.nlp.solver(x0=self.x, lam_g0=self.lam, p=parameters, lbg=0, ubg=0)
        self.monitor.raise_if_stopped()
        stats = self.nlp.solver.stats()
        if stats.get("return_status") == "Invalid_Option":
            raise ValueError(f"solver_options: {self.method.nlp_solver} refuses one of "
                             f"{self.method.solver_options!r}")
        x, lam = (np.asarray(result[key].full()).ravel() for key in ("x", "lam_g"))
        if np.all(np.isfinite(x)) and np.all(np.isfinite(lam)):
            self.x, self.lam = x, lam
        if self.method.nlp_solver == "fatrop":  # one record for the round
            self.iterations = before + int(stats["iter_count"]) - 1
            self.monitor.record(self.x)
        return bool(stats["success"])

    def _feasible(self, weights: NDArray) -> None:
        """Roll controls out and sweep back: a feasible x, and the adjoint for multipliers."""
        A = discrete.roll_out(self.smooth, weights, self.steps, self.method.integrator)
        terminal = np.zeros_like(A[0]) if self.problem.hard_endpoint else None
        B, _ = discrete.costates(self.smooth, A, weights, self.steps, self.method.integrator,
                                 terminal)
        self.x, self.lam = self.nlp.pack(weights, A), self.nlp.multipliers(B)

    def _judge(self, epsilon: float, solved: bool) -> _Outcome:
        """What the last stage reached, by the adjoint of its own roll-out."""
        weights, _ = self.nlp.unpack(self.x)
        momenta = self.nlp.momenta(self.lam)
        A, B, stationarity = self._adjoint(weights, momenta)
        size = max(1.0, float(np.abs(B[1:]).max()))
        residuals = {
            "smooth_stationarity": stationarity,
            "smooth_objective": discrete.objective(self.smooth, A[-1], weights, self.steps)[0],
            "multiplier_error": float(np.abs(momenta - B[1:]).max()) / size,
        }
        if self.problem.activation != "linear":
            residuals["epsilon"] = epsilon
        relu = self.problem.activation == "relu"
        # The polish goes on from wherever Newton's method converges; only without it is tol due.
        enough = 1e-4 if relu and self._can_polish() else self.method.tol
        status = Status.SMOOTHED if relu else Status.CONVERGED
        if not stationarity <= max(enough, self.method.tol):
            status = Status.STALLED
        if self.problem.hard_endpoint and discrete.boundary_residual(
                self.problem, A, B) > 100 * self.method.tol:
            status = Status.INFEASIBLE
        notes = [f"ε = {epsilon:g}, smooth stationarity {stationarity:.1e}"] if relu else []
        if not solved:
            notes.append(f"{self.method.nlp_solver} did not report success at its last stage")
        return _Outcome(status, weights, momenta, notes, residuals)

    def _adjoint(self, weights: NDArray, momenta: NDArray | None
                 ) -> tuple[NDArray, NDArray, float]:
        """Roll-out, costates and stationarity for the activation of the stage."""
        integrator = self.method.integrator
        A = discrete.roll_out(self.smooth, weights, self.steps, integrator)
        terminal = None
        if self.problem.hard_endpoint:
            terminal = np.zeros_like(A[0]) if momenta is None else momenta[-1]
        B, G = discrete.costates(self.smooth, A, weights, self.steps, integrator, terminal)
        return A, B, discrete.stationarity(weights, G)

    # -- the end -----------------------------------------------------------------------------------

    def _escape(self, outcome: _Outcome) -> _Outcome:
        """Leave a stationary point that is no minimum (`hamshoot.methods.newton.escape`)."""
        method, problem = self.method, self.problem
        if method.integrator != "euler" or not testable(problem, method.layers):
            return outcome
        self.watch.stage = "second-order test"
        self.escape = Escape(outcome.weights, [])
        try:
            escape(problem, outcome.weights, self.steps, method.epsilon[1], tol=method.tol,
                   callback=self.count, progress=self.escape)
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
        if self.escape.verdict.refuted:
            outcome.status = Status.SADDLE
        return outcome

    def _can_polish(self) -> bool:
        method = self.method
        return (method.polish and method.integrator == "euler"
                and affordable(self.problem, method.layers))

    def _polish(self, epsilon: float, prefix: str, outcome: _Outcome) -> _Outcome:
        """Carry the last stage to the ReLU network itself; on failure try from smaller ε."""
        method = self.method
        tol = min(method.tol, 1e-10)
        for attempt in range(DEEPER + 1):
            if attempt:
                epsilon /= 4
                self._set_stage(epsilon, prefix)
                if not self._stage(epsilon, None):
                    break
                outcome = self._judge(epsilon, True)
            self.watch.stage = prefix + "polish"
            polished = polish(self.problem, outcome.weights, self.steps, epsilon, tol=tol,
                              callback=self.count)
            if polished.stationarity <= method.tol and not polished.settled:
                # Rounding keeps a badly scaled problem from 1e-10; the tolerance asked for holds.
                before = self._objective(outcome.weights)
                if polished.objective <= before + 1e-9 * abs(before):
                    polished = polished._replace(settled=True)
            if polished.settled:
                return _Outcome(Status.CONVERGED, polished.weights, None,
                                [polished.words], outcome.residuals)
        outcome.status = Status.UNSETTLED
        return outcome

    # -- parts -------------------------------------------------------------------------------------

    def _ladder(self, first: float) -> tuple[float, ...]:
        """ε of the stages, ending at the last; (0,) for a linear network."""
        problem, (_, last, factor) = self.problem, self.method.epsilon
        if problem.activation == "linear":
            return (0.0,)
        if problem.activation == "smooth_relu":
            last = problem.sigma.epsilon
        return epsilon_ladder(max(first, last), last, factor)

    def _set_stage(self, epsilon: float, prefix: str) -> None:
        self.smooth = self.problem
        if self.problem.activation == "relu":
            self.smooth = self.problem.replace(activation="smooth_relu", epsilon=epsilon)
        elif self.problem.activation == "smooth_relu" and epsilon != self.problem.sigma.epsilon:
            self.smooth = self.problem.replace(epsilon=epsilon)
        self.watch.stage = prefix + (f"epsilon {epsilon:.3g}" if epsilon else
                                     self.method.nlp_solver)

    def _objective(self, weights: NDArray) -> float:
        """J of the problem's own network; with a hard endpoint, of its norm alone."""
        A = discrete.roll_out(self.problem, weights, self.steps, self.method.integrator)
        return discrete.objective(self.problem, A[-1], weights, self.steps)[0]

    def _offer(self, weights: NDArray) -> float:
        with np.errstate(all="ignore"):
            objective = self._objective(weights)
        if self.problem.hard_endpoint:
            # The norm alone says nothing of an endpoint missed: the latest iterate is the best.
            self.best.objective = np.inf
        self.best.offer(objective, weights)
        return objective

    def count(self, objective: float, stationarity: float) -> None:
        """Count an iteration and tell the callback."""
        self.iterations += 1
        self.watch.record(objective, stationarity)
        if self.iterations >= self.method.max_iter:
            raise Stop(Status.MAX_ITER)

    def best_momenta(self) -> NDArray | None:
        """Multipliers of the latest iterate, for the costate of a hard endpoint."""
        return None if self.lam is None else self.nlp.momenta(self.lam)

    def _collapsed(self, weights: NDArray) -> bool:
        problem = self.problem
        if problem.hard_endpoint:
            return False
        A = discrete.roll_out(problem, weights, self.steps, self.method.integrator)
        loss = discrete.objective(problem, A[-1], weights, self.steps)[1]
        return discrete.collapsed(problem, A[-1], loss)

    def _solution(self, outcome: _Outcome) -> Solution:
        method, watch = self.method, self.watch
        terminal = None
        if self.problem.hard_endpoint:
            terminal = np.zeros_like(self.problem.endpoint) if outcome.momenta is None \
                else outcome.momenta[-1]
        solution = solution_from_weights(
            self.problem, outcome.weights, self.steps, status=outcome.status,
            success=outcome.success, method=f"multiple shooting ({method.nlp_solver})",
            integrator=method.integrator, nit=self.iterations, history=tuple(watch.history),
            seconds=watch.seconds, terminal=terminal, residuals=outcome.residuals,
            extra={"start_objectives": self.start_objectives,
                   **({} if self.escape is None else self.escape.record())},
        )
        notes = [*outcome.notes, f"stationarity {solution.stationarity:.1e} (tol {method.tol:g})"]
        if len(self.start_objectives) > 1:
            low, high = min(self.start_objectives), max(self.start_objectives)
            notes.append(
                f"best of {len(self.start_objectives)} starts, J from {low:.6g} to {high:.6g}"
            )
        return solution.replace(message=f"{solution.message} ({'; '.join(notes)})")


# -- what the NLP solver tells along the way -------------------------------------------------------


class _Monitor:
    """Records iterates and stops the solver, without ever raising through it.

    An exception must not cross CasADi, which would print it and carry on; it is kept and raised
    when the solver has come back.
    """

    def __init__(self, search: _Search):
        self.search = search
        self.end = 0  # iteration at which the stage has had its share
        self.interrupts: list[int] = []
        self.exception: BaseException | None = None

    def record(self, x: NDArray) -> None:
        """Report the network that the controls of an iterate roll out to; keep it if best."""
        search = self.search
        weights, _ = search.nlp.unpack(x)
        with np.errstate(all="ignore"):
            A, _, stationarity = search._adjoint(weights, search.best_momenta())
            J = discrete.objective(search.smooth, A[-1], weights, search.steps)[0]
        search._offer(weights)
        search.count(J, stationarity)

    def raise_if_stopped(self) -> None:
        """Raise what was kept, or the Ctrl-C that came meanwhile."""
        if self.interrupts:
            raise KeyboardInterrupt
        if self.exception is not None:
            exception, self.exception = self.exception, None
            raise exception

    def __call__(self, x: NDArray) -> bool:
        """Whether the solver should stop."""
        try:
            if self.exception is None:
                self.record(x)
        except BaseException as exception:
            self.exception = exception
        stopped = self.exception is not None or bool(self.interrupts)
        return stopped or self.search.iterations >= self.end
