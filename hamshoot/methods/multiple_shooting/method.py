"""`DirectMultipleShooting`: controls and representations together, by CasADi and an NLP solver.

Every node A_ℓ is a variable tied to the one before by a defect constraint
(`hamshoot.methods.multiple_shooting.nlp`), so an unstable roll-out does no harm, and the
multipliers of the defects are the momenta. ReLU goes down a ladder of smooth ReLUs, each stage
warm-started in the controls, the nodes and the multipliers, and ends with the polish
(`hamshoot.methods.newton.active_set`) that holds the activations on the kink: the answer is
stationary for the ReLU network itself.

The network to solve for is found by `hamshoot.methods.search.basins`, as by the other methods, a
hard endpoint as a stiff loss (`hamshoot.methods.multiple_shooting.endpoint_search`). It is rolled
out and swept back, so that the first iterate is feasible and its multipliers are the exact adjoint.
Before that a descent in the controls alone (`hamshoot.methods.newton.minimise`) takes it near a
stationary point: there the NLP solver converges in a handful of iterations, where from a cold start
it takes fifty to hundreds, each of which factorises the whole KKT matrix. A stage that struggles,
as it does where the branch it follows ends in a fold, is restarted in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import blas_threads
from hamshoot.methods.common.options import picked
from hamshoot.methods.common.starts import weights_of
from hamshoot.methods.multiple_shooting.c_code import write_c
from hamshoot.methods.multiple_shooting.diagnostics import Diagnostics, diagnostics_of
from hamshoot.methods.multiple_shooting.endpoint_search import EndpointSearch
from hamshoot.methods.multiple_shooting.nlp import (
    NLP_SOLVERS,
    SMALL_NODE,
    MultipleShootingNLP,
    build_nlp,
    overconstrained,
)
from hamshoot.methods.multiple_shooting.search import LONG, Search, SearchOptions
from hamshoot.methods.multiple_shooting.solver_messages import check_solver_options
from hamshoot.methods.search.basins import check_search_options
from hamshoot.network.layer_steps import steps_of
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.mistakes import check_problem, check_solution
from hamshoot.solution.solution import Callback, Solution
from hamshoot.support.checks import check_choice, check_count, check_layers, check_options

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.support.names import (
        CFunctionName,
        EffortName,
        IntegratorName,
        NlpSolverName,
        StartName,
    )

_logger = logging.getLogger("hamshoot")

INTEGRATORS = ("euler", "rk4")
#: fatrop, which cannot be interrupted, comes back after so many iterations for the clock.
SHORT = 30


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
        network: for ReLU, of the ReLU network itself, at the best slopes on its kinks. With a hard
        endpoint also on ‖A_1 − endpoint‖_F / max(1, ‖endpoint‖_F) of that network.
    max_iter : int
        Iterations of all starts and stages together.
    time_limit : float, optional
        Seconds.
    seed : int
    start : {"path", "identity", "random"}, optional
        A single local solve from this start, or so many with `starts`, in place of the search of
        `hamshoot.methods.search.basins`, which begins at path fits and identities in turn.
    starts : int, optional
        Best of so many starts; by default by `effort`.
    noise : float, optional
        Of the start, see `hamshoot.methods.common.starts`.
    effort : {"quick", "default", "thorough"}
        How long the search goes on.
    workers : int or distributed.Client, optional
        Threads of the search, by default a core each, or a cluster of Dask (extra ``dask``) whose
        workers make the walks. The answer does not depend on it.
    reheats : int, optional
        Rounds of reheats from the best of the starts; by default by `effort`.
    warm_up : bool
        Whether the search and descents in the controls alone go before the NLP solver; False
        leaves every start, cold, to the NLP solver.
    epsilon : tuple of float
        First and last ε of the ladder, and the factor between stages. A large first ε sees past
        small minima. A smooth ReLU uses the ladder down to its own ε, a linear network none.
    polish : bool
        Whether ReLU is carried to its exact optimum (Euler, a size within
        `hamshoot.methods.newton.active_set.affordable`); otherwise the status is SMOOTHED, or with
        a hard endpoint that only the smoothed network reaches UNSETTLED, no success.
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
    integrator: IntegratorName = "euler"
    nlp_solver: NlpSolverName = "ipopt"
    tol: float = 1e-8
    max_iter: int = 10_000_000
    time_limit: float | None = None
    seed: int = 0
    start: StartName | None = None
    starts: int | None = None
    noise: float | None = None
    effort: EffortName = "default"
    workers: Any = None
    reheats: int | None = None
    warm_up: bool = True
    epsilon: tuple[float, float, float] = (0.5, 1e-4, 0.5)
    polish: bool = True
    solver_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_options(self)
        check_count("layers", self.layers, 1)
        check_choice("integrator", self.integrator, INTEGRATORS)
        check_choice("nlp_solver", self.nlp_solver, NLP_SOLVERS)
        check_search_options(self)
        for name in ("warm_up", "polish"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        if self.solver_options is not None and not isinstance(self.solver_options, dict):
            raise ValueError(f"solver_options: expected a dict, got {self.solver_options!r}")

    # Trial steps beyond all numbers are told by their J, which is compared, not by warnings.
    @np.errstate(over="ignore", invalid="ignore")
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
            or SMOOTHED when the polish failed or does not apply; INFEASIBLE when a hard endpoint
            was not reached; else why it ended. `residuals["endpoint_gap"]` is ‖A_1 − endpoint‖_F.

        Raises
        ------
        ValueError
            For too few layers, a guess that does not fit, or an unknown solver option.
        """
        steps = self._begin(problem)
        guess = None if initial_guess is None else weights_of(initial_guess, problem, steps)
        with blas_threads(problem):
            kind = EndpointSearch if problem.hard_endpoint else Search
            search = kind(
                picked(SearchOptions, self), problem, steps, callback,
                integrator=self.integrator, nlp_solver=self.nlp_solver,
                solver_options=self._solver_options(problem), given=self.solver_options,
            )
            return search.run(guess)

    def build(self, problem: TrainingProblem) -> MultipleShootingNLP:
        """Build the program alone: its CasADi functions and `nlpsol` object, for one's own use."""
        self._begin(problem)
        return build_nlp(problem, self.layers, self.integrator, self.nlp_solver,
                         self._solver_options(problem))

    def diagnostics(self, problem: TrainingProblem, solution: Solution | None = None
                    ) -> Diagnostics:
        """Sparsity of the program, and the KKT residuals of a solution block by block.

        Parameters
        ----------
        problem : TrainingProblem
        solution : Solution, optional
            Of `problem`, by any method, on the layers and with the integrator of this one;
            `hamshoot.diagnose` takes them from the solution.

        Returns
        -------
        Diagnostics
            Prints as a table; `hamshoot.plot.plot_diagnostics` draws it.

        Raises
        ------
        ValueError
            For a solution of other layers, or of a continuous path.
        """
        steps = self._begin(problem)
        if solution is not None:
            check_solution("diagnose", solution)
            if solution.steps is None or solution.integrator != self.integrator:
                raise ValueError(
                    f"solution: expected one over {self.integrator} layers, got one of "
                    f"{'a continuous path' if solution.steps is None else solution.integrator}")
            if solution.weights.shape != (len(steps), *problem.control_shape) or \
                    solution.problem.n_samples != problem.n_samples:
                raise ValueError(
                    f"solution: expected {len(steps)} controls {problem.control_shape} on "
                    f"{problem.n_samples} samples, got {solution.weights.shape} on "
                    f"{solution.problem.n_samples}")
            steps = solution.steps
        return diagnostics_of(self.build(problem), problem, self.integrator, steps, solution)

    def to_c(self, problem: TrainingProblem, path: str | PathLike,
             functions: CFunctionName | Sequence[CFunctionName] = ("step", "costate")) -> Path:
        """Write the functions of step and costate as C, for matrices of the problem's sizes.

        The file needs a C compiler and nothing else: no CasADi, no Python, no allocation. With its
        entry point ``step`` it is also what `casadi.external` loads.

        Parameters
        ----------
        problem : TrainingProblem
            Whose width, number of samples, bias and activation are built in; the data are not.
        path : path
            Ending in .c; written whole or not at all.
        functions : sequence of {"step", "costate", "hamiltonian", "flow"}

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        ValueError
            For another ending, or a function that there is not.
        OSError
            Where the directory cannot be written to.
        """
        return write_c(problem, self.integrator, path, functions)

    def _begin(self, problem: TrainingProblem) -> NDArray:
        """Check the options that a solver takes, and say what the program is short of; the mesh."""
        check_problem("solve", problem)
        if problem.learns and self.nlp_solver == "fatrop":
            raise ValueError("nlp_solver: fatrop wants stages, to none of which a learned lift or "
                             "readout belongs; use ipopt or sqpmethod")
        steps = self._mesh(problem)
        check_solver_options(self.nlp_solver, self.solver_options,
                             quiet(self.nlp_solver, self.tol, problem))
        if words := overconstrained(problem, len(steps)):
            _logger.warning("multiple shooting: %s", words)
        return steps

    def _mesh(self, problem: TrainingProblem) -> NDArray:
        if isinstance(self.steps, str):
            check_layers(self.layers, problem.effective_depth)
        return steps_of(self.steps, self.layers, problem.effective_depth)

    def _solver_options(self, problem: TrainingProblem) -> dict[str, Any]:
        return {**quiet(self.nlp_solver, self.tol, problem), **(self.solver_options or {})}


def quiet(nlp_solver: str, tol: float, problem: TrainingProblem) -> dict[str, Any]:
    """Options that are quiet, tight, without IPOPT's early acceptance, and warm from the first."""
    tight = 0.01 * tol  # the solvers' own measures are scaled
    options: dict[str, Any]
    if nlp_solver == "ipopt":
        small = problem.width * problem.n_samples <= SMALL_NODE
        options = {
            "ipopt.print_level": 0, "ipopt.sb": "yes", "ipopt.tol": tight,
            "ipopt.acceptable_iter": 0, "ipopt.max_iter": LONG, "ipopt.mu_init": 1e-6,
            "ipopt.mumps_pivot_order": 0 if small else 5,
        }
    elif nlp_solver == "fatrop":
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
    return options
