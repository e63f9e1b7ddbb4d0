"""`IndirectShooting`: exact geodesics, by shooting on the Hamiltonian boundary value problem.

The unknowns are (A, B) at the nodes of a mesh; the equations, that the Hamiltonian flow (compiled,
adaptive, of order 8) leads from each node to the next, that A_0 is given and that B_1 is what the
loss says (or A_1 is given). Newton's method solves them to 1e-10 in one of three forms:

* ``state``: `hamshoot.bvp.solve`, exact Newton steps in (A, B), quadratic convergence. Each system
  is solved by GMRES on tangents of the flow (4 to 6, of S·12w²N·steps flops), preconditioned by the
  form below: quadratic in N as that is. The dense staircase, 160 S n³ with n = wN, serves only
  where 20 tangents do not do.
* ``condensed``: `hamshoot.methods.indirect.riccati`, the system condensed on the control by a
  Riccati recursion along a midpoint model, S (2m + 8w) n² a factorisation, m = w(w+1), quadratic in
  N; residuals are those of the accurate flow.
* ``control``: `hamshoot.methods.indirect.condensing`, the same system as the reduced Hessian in W,
  2 S² m² N + (S m)³/3, linear in N.

All have the same solutions, for the residual is the same. ``auto`` takes the cheaper of the last
two, which differ by rounding only: the recursion up to some hundred samples, W beyond.

Around Newton: where no guess is given the search for a basin that all methods share, on a coarse
Euler network; a ladder in ε for ReLU and small ε; continuation in L̃, λ and ε together from the
problem of a guess, with steps halved on failure and grown on success; the way down from a geodesic
that is no minimum; the limit ε → 0 by extrapolation; and, where no activation slides along its
kink, the plain ReLU flow itself, crossings located.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.gauss_flow import STAGES
from hamshoot.methods.common import starts
from hamshoot.methods.common.options import picked
from hamshoot.methods.common.watch import Stop, Watch
from hamshoot.methods.indirect.continuation import read_guess
from hamshoot.methods.indirect.first_geodesic import SearchOptions
from hamshoot.methods.indirect.learned_maps import LearnedGeodesics
from hamshoot.methods.indirect.search import GeodesicSearch
from hamshoot.methods.indirect.stage_solver import ShootingOptions
from hamshoot.methods.search.basins import EFFORTS
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.mistakes import check_problem
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.support.checks import check_choice, check_count, check_options, check_positive
from hamshoot.support.cluster import client_of

if TYPE_CHECKING:
    from hamshoot.support.names import EffortName, FlowIntegratorName, FormName, StartName

__all__ = ["IndirectShooting"]

INTEGRATORS = ("dop853", "gauss")
FORMS = ("auto", "state", "condensed", "control")


@dataclass(frozen=True, kw_only=True)
class IndirectShooting:
    """Multiple shooting on the Hamiltonian flow: a method object for `hamshoot.solve`.

    Parameters
    ----------
    segments : int, optional
        Shooting segments to begin with (more are inserted where Newton needs them); default
        max(60, 12 L̃).
    tol : float
        Largest shooting residual and Newton correction, relative to the size of A and of B. A
        geodesic on which H drifts by more than 50 tol is solved once more to a tenth of it.
    max_iter : int
        Newton iterations of one stage.
    time_limit : float, optional
        Seconds.
    seed : int
        Of the start of the direct stage.
    form : {"auto", "state", "condensed", "control"}
        How the Newton systems are solved, see the module.
    start : {"identity", "path", "random"}, optional
        A single start of the direct stage, in place of the search of
        `hamshoot.methods.search.basins`; others are tried where it leads to no geodesic.
    layers : int, optional
        Of the direct stage; default max(60, 12 L̃).
    effort : {"quick", "default", "thorough"}
        How long the search for a first network goes on; by default up to four times as long as
        that of other methods where no new starts end where the best did.
    workers : int or distributed.Client, optional
        Threads of the search, by default a core each, or a cluster of Dask (extra ``dask``) whose
        workers make the walks. The answer does not depend on it.
    epsilon_first, epsilon_last, epsilon_factor : float
        Ladder: where it starts (also on the way to a smooth ReLU of smaller ε), where it ends for a
        plain ReLU, and the factor of its first step. Networks of the search begin near its end, a
        plain ReLU at four times epsilon_last, and at its start only where that fails.
    exact_relu : bool
        End with the plain ReLU flow where no activation slides along its kink.
    integrator : {"dop853", "gauss"}
        Of the flow: the compiled explicit pair of order 8 with adaptive steps, accurate to tol; or
        Gauss–Legendre collocation with fixed steps, exactly symplectic, whose error is that of the
        steps (`hamshoot.dynamics.gauss_flow` says when it is worth it). `defect` is in any case the
        distance to the accurate flow, `discrete_defect` that to the steps solved. The plain ReLU
        flow is always integrated by the explicit pair.
    steps_per_segment, gauss_order : int
        Gauss steps of a segment; order 4 or 6.
    """

    segments: int | None = None
    tol: float = 1e-10
    max_iter: int = 60
    time_limit: float | None = None
    seed: int = 0
    form: FormName = "auto"
    start: StartName | None = None
    layers: int | None = None
    epsilon_first: float = 0.1
    epsilon_last: float = 1e-3
    epsilon_factor: float = 0.5
    exact_relu: bool = True
    integrator: FlowIntegratorName = "dop853"
    steps_per_segment: int = 2
    gauss_order: int = 6
    effort: EffortName = "default"
    workers: Any = None

    def __post_init__(self) -> None:
        check_options(self)
        check_choice("form", self.form, FORMS)
        if self.start is not None:
            check_choice("start", self.start, starts.STARTS)
        check_choice("effort", self.effort, tuple(EFFORTS))
        check_choice("integrator", self.integrator, INTEGRATORS)
        if self.gauss_order not in STAGES:
            raise ValueError(f"gauss_order: expected 4 or 6, got {self.gauss_order!r}")
        check_count("steps_per_segment", self.steps_per_segment, 1)
        for name in ("segments", "layers", "workers"):
            if getattr(self, name) is not None and client_of(getattr(self, name)) is None:
                check_count(name, getattr(self, name), 1)
        for name in ("epsilon_first", "epsilon_last", "epsilon_factor"):
            check_positive(name, getattr(self, name))
        if self.epsilon_last > self.epsilon_first:
            raise ValueError(
                f"epsilon_last: expected at most epsilon_first = {self.epsilon_first!r}, "
                f"got {self.epsilon_last!r}"
            )
        if self.epsilon_factor >= 1:
            raise ValueError(
                f"epsilon_factor: expected a number below 1, got {self.epsilon_factor!r}"
            )

    def check(self, problem: TrainingProblem) -> None:
        """Raise ValueError where the options do not fit the problem."""
        if self.layers is not None and self.layers <= problem.effective_depth:
            raise ValueError(
                f"layers: expected more than effective_depth = {problem.effective_depth:g}, "
                f"got {self.layers}"
            )

    # Trial steps beyond all numbers are told by their J, which is compared, not by warnings.
    @np.errstate(over="ignore", invalid="ignore")
    def solve(
        self,
        problem: TrainingProblem,
        initial_guess: Any = None,
        callback: Callback | None = None,
    ) -> Solution:
        """Find a geodesic.

        Parameters
        ----------
        problem : TrainingProblem
        initial_guess : optional
            A `Solution` over layers or along a path (also of a problem with other L̃, λ or ε: where
            Newton fails from it, these are moved step by step), a network or weights (L, w, w+1),
            or arrays (A, B) of shape (M, w, N) at equidistant nodes.
        callback : callable, optional
            Receives a `Record` per iteration; returning True stops.

        Returns
        -------
        Solution
            `integrator` "flow", `steps` None. Not converging is not an exception; stopped before
            there is a geodesic of the problem's L̃ and λ, it is the best Euler network seen, with
            `integrator` "euler" and its `steps`, to be continued from as a guess. SADDLE is said
            of a geodesic that the second-order test refutes and from which no lower one was
            reached, ABOVE_TRIVIAL where the network without weights is lower, COLLAPSED with how
            it was checked. In `extra`:

            epsilon, segments, hamiltonian
                ε of the flow solved (0 for plain ReLU and linear), segments, median of H.
            definite, least
                Whether the second variation is positive, as the mesh of the geodesic tells, and
                its pivot: see `hamshoot.methods.indirect.linear_quadratic.LinearQuadraticSystem`.
            second_order
                Where it is not: verdict of `hamshoot.optimality.second_order_path`.
            start_objectives, reheat_objectives, reheat_rounds
                Of the search, with the activation that was searched with.
            branch
                Objectives of Euler networks built from the geodesic, and whether they tend to its;
                the message says so where they do not.
            start
                Objective of the Euler network that the first geodesic came from, what is expected
                of a network of as many layers on the geodesic's branch, and whether they agree to
                first order; the message says so where they do not. `guess_refined`: Newton failed
                from the network given, and the geodesic comes from finer ones descended to from it.
            lower_network
                Where a network of the search is lower than the one beside this geodesic, and none
                was found from it: its "layers" and "objective", and "built", J of that other one of
                as many layers. The message says so too.
            descents_taken
                How often continuation failed twice and went on from the minimum of an Euler network
                a full step further, found by descent from here. That minimum may belong to the
                same branch of geodesics or to another, which is not decided.
            objective_limit, hamiltonian_limit, and the same with _error
                Limits ε → 0 by extrapolation, and their error estimates; ladders of three ε only.
            sliding, direct_objective, direct_layers
                Activations that slide along their kinks; the direct stage.

        Raises
        ------
        ValueError
            For bad input.
        """
        check_problem("solve", problem)
        problem.sigma.check_compiled("indirect shooting")
        self.check(problem)
        if problem.learns:
            return LearnedGeodesics(self, problem, callback).run(initial_guess)
        run = GeodesicSearch(picked(SearchOptions, self), picked(ShootingOptions, self), problem,
                             Watch(callback, self.time_limit))
        guess = None if initial_guess is None else read_guess(initial_guess, problem)
        status, reason = Status.STALLED, ""
        try:
            status, reason = run.solve(guess)
        except Stop as stop:
            status = stop.status
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        return run.solution(status, reason)
