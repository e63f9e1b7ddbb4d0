"""A layered optimum with the factors of its Newton system: what its derivatives are solved with.

With the entries 𝒦 on the kink held, J is a smooth function near a ReLU optimum, and W a point where

    ∂J/∂W = 0,   A_𝒦 = 0

with slopes d on the kink (σ(A) = d ⊙ A there, so that the multiplier of A_𝒦 = 0 is 0). When
something moves by t, the derivatives of W and of the multiplier μ solve

    H W′ + Cᵀ μ′ = −∂_t ∂J/∂W,   C W′ = −∂_t A_𝒦,   C = ∂A_𝒦/∂W,

and μ′ moves the slopes: d′ = −μ′/(λv), v = ρWᵀB the force on the entry. H is positive definite on
the null space of C at a strict minimum; its Cholesky factor there serves every right-hand side, for
2n² flops each. Smooth and linear networks have no C.

Costs, with n controls, k entries held and N samples: the Hessian 2L²w⁴N flops, the QR factors of C
2nk², the reduced Hessian 4n²k, its Cholesky factor (n − k)³/3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.derivatives.parameters import Posed, Sweep, posed, swept
from hamshoot.derivatives.result import NoDerivative
from hamshoot.methods.newton.reduced_hessian import expansion, second_derivatives
from hamshoot.optimality import formulas
from hamshoot.optimality.expansion import Expansion, expanded, smallest_eigenvalue
from hamshoot.optimality.second_order_layers import (
    EIGENVALUE_TOLERANCE,
    MAX_CONTROLS,
    STATIONARY,
    second_order,
)
from hamshoot.theory.clarke import clarke_residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.optimality.formulas import Setting
    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.solution.solution import Solution

#: A Newton step may move the controls by this share of them at most: the derivatives are those of
#: the stationary point near by, and off by about as much.
CLOSE = 1e-5


@dataclass(frozen=True, eq=False)
class Optimum:
    """A strict local minimum over layers, with what its derivatives are solved with.

    Attributes
    ----------
    problem : TrainingProblem
        The one that the network is an optimum of: for a smoothed network, with the smooth ReLU.
    at : Expansion
        J around it.
    verdict : str
        Of the second-order test.
    distance : float
        Length of a Newton step, relative to the controls.
    """

    problem: TrainingProblem
    at: Expansion
    verdict: str
    distance: float

    @cached_property
    def posed(self) -> Posed:
        """The problem for the formulas."""
        return posed(self.problem)

    @property
    def slopes(self) -> NDArray | None:
        """σ′ of a ReLU network, with its d on the kink; None for a smooth one."""
        return None if self.at.kinks is None else self.at.kinks.slopes

    @property
    def held(self) -> NDArray:
        """Entries held on the kink, (L, w, N)."""
        return self.at.fixed_entries

    @cached_property
    def sweep(self) -> Sweep:
        """States, costates and gradient at the optimum."""
        return swept(self.posed, self.at.weights, self.at.steps, self.slopes)

    @cached_property
    def factor(self) -> NDArray:
        """Lower Cholesky factor of the reduced Hessian."""
        from scipy.linalg import cholesky

        return cholesky(self.at.reduced, lower=True, check_finite=False)

    def solve(self, right: NDArray, change: NDArray | None = None) -> tuple[NDArray, NDArray]:
        """W′ (n, …) and μ′ (k, …) with H W′ + Cᵀμ′ = right (n, …) and C W′ = change (k, …).

        Where rows of C depend on each other, μ′ is 0 on those that follow from the others.
        """
        free, count = self.at.free, int(self.held.sum())
        start = np.zeros_like(right)
        if change is not None and free.rank:
            start = free.moving(change)
        x = start + self.inverse(right - self.at.hessian @ start)
        return x, free.multipliers(right - self.at.hessian @ x, count)

    def inverse(self, right: NDArray) -> NDArray:
        """Z (ZᵀHZ)⁻¹ Zᵀ right, with Z a basis of the directions that leave entries held, (n, …)."""
        from scipy.linalg import cho_solve

        free = self.at.free
        y = cho_solve((self.factor, True), free.coordinates(right), check_finite=False)
        return free.directions(y)


def optimum_of(solution: Solution, who: str = "sensitivity",
               max_controls: int = MAX_CONTROLS) -> Optimum:
    """A layered solution as an optimum, after the second-order test.

    Parameters
    ----------
    solution : Solution
        Of Euler layers and a loss. A smoothed ReLU network is taken as what it is an optimum of,
        the network smoothed with its ε.
    who : str
        For messages.
    max_controls : int
        Larger networks are refused.

    Raises
    ------
    NoDerivative
        A ValueError, for what is no strict minimum to second order: not stationary, a saddle, a
        singular Hessian, a kink that is concave or on the edge of leaving; and for what this does
        not know, a hard endpoint, RK4 layers, and networks that are too large.
    """
    problem = problem_solved(solution, who)
    weights, steps = np.array(solution.weights), np.asarray(solution.steps)
    if weights.size > max_controls:
        raise NoDerivative(f"{who}: expected at most {max_controls} controls, whose Hessian is a "
                           f"dense matrix, got {weights.size}")
    slopes = None
    if problem.sigma.kinked:
        A = formulas.roll_out(posed(problem).setting, weights, steps)
        slopes = clarke_residual(problem, A, weights, steps).slopes
    known: dict[str, Any] = {}
    at = expanded(problem, weights, steps, slopes, partial(_derivatives, problem, known))
    if not at.gradient <= STATIONARY * at.size:
        raise NoDerivative(
            f"{who}: expected an optimum, whose gradient is at most {STATIONARY * at.size:.1e}, "
            f"got {at.gradient:.1e} ({solution.status.name.lower()}); go on with hs.solve("
            "problem, layers=…, initial_guess=solution)")
    verdict = second_order(problem, weights, steps, max_controls, slopes=slopes, prove=False,
                           derivatives=partial(_derivatives, problem, known))
    if verdict.refuted:
        raise NoDerivative(f"{who}: expected a minimum, got a point that is none: "
                           f"{verdict.verdict}")
    _check_regular(at, verdict.verdict, verdict.min_eigenvalue, who)
    found = Optimum(problem, at, verdict.verdict, 0.0)
    step = found.inverse(at.slope)
    distance = float(np.linalg.norm(step)) / max(1.0, float(np.linalg.norm(weights)))
    if not distance <= CLOSE:
        raise NoDerivative(
            f"{who}: expected an optimum, got a network that a Newton step moves by "
            f"{distance:.1e} of its weights (at most {CLOSE:g}); go on from it with a smaller tol")
    return Optimum(problem, at, verdict.verdict, distance)


def problem_solved(solution: Solution, who: str) -> TrainingProblem:
    """The problem of which the network is an optimum; refuses what has none here."""
    problem = solution.problem
    if problem.hard_endpoint:
        raise NoDerivative(f"{who}: expected a problem with a loss, got a hard endpoint")
    if solution.integrator != "euler":
        raise NoDerivative(f"{who}: expected Euler layers, got {solution.integrator}; over such "
                           "layers the second-order test does not decide")
    if not np.isfinite(solution.objective) or not np.all(np.isfinite(solution.weights)):
        raise NoDerivative(f"{who}: expected a network of finite weights, got one whose numbers "
                           "are not finite")
    epsilon = solution.residuals.get("epsilon", 0.0)
    if solution.status.name == "SMOOTHED" and problem.sigma.kinked and epsilon > 0:
        return problem.replace(activation=problem.sigma.smoothed(epsilon))
    return problem


def _check_regular(at: Expansion, verdict: str, smallest: float, who: str) -> None:
    """Raise NoDerivative for a singular Hessian, and kinks from which it goes two ways."""
    kinks = at.kinks
    if kinks is not None and kinks.edge.any():
        count = int(kinks.edge.sum())
        raise NoDerivative(
            f"{who}: {count} activation{'s lie' if count > 1 else ' lies'} on the edge of leaving "
            "the kink (a slope of 0 or 1), where the optimum has one-sided derivatives alone"
            f"{_copies(at)}")
    if kinks is not None and kinks.concave.any() and not np.isfinite(smallest):
        raise NoDerivative(f"{who}: expected a minimum to second order, got a point of which that "
                           f"is {verdict}{_copies(at)}")
    if verdict.startswith(("strict local minimum", "no descent found")):
        return
    smallest, largest, _ = smallest_eigenvalue(at.reduced)
    if not smallest > EIGENVALUE_TOLERANCE * largest:
        what = "is zero to rounding" if smallest > -EIGENVALUE_TOLERANCE * largest else \
            "is negative, a saddle"
        raise NoDerivative(f"{who}: expected a strict minimum, got one whose smallest eigenvalue "
                           f"of the Hessian, {smallest:.2e}, {what}: its derivatives are not "
                           "determined")


def _copies(at: Expansion) -> str:
    """Words for a problem with samples of the same inputs, whose kinks are one."""
    start = at.setting.start.T
    count = len(start) - len(np.unique(start, axis=0))
    return f"; {count} of its {len(start)} samples repeat the inputs of others, and share their " \
        "kinks" if count else ""


def _derivatives(
    problem: TrainingProblem, known: dict[str, Any], setting: Setting, weights: NDArray,
    steps: NDArray, pattern: NDArray | None, entries: NDArray,
) -> tuple[NDArray, NDArray]:
    """Hessian of J and ∂A/∂W of entries, kept in `known`: for the test and for us it is one."""
    if "found" not in known:
        A = formulas.roll_out(setting, weights, steps, pattern=pattern)
        B, _ = formulas.costates(setting, A, weights, steps, slopes=pattern, pattern=pattern)
        here = expansion(problem, A, B, weights, steps, pattern)
        hessian, rows = second_derivatives(here, entries)
        known["found"] = problem.weight_decay * hessian, rows, np.array(entries)
    hessian, rows, before = known["found"]
    assert np.array_equal(before, entries)
    return hessian, rows
