"""`solution_from_weights`: what the reference formulas say of a layered network, as a `Solution`.

The last step of every solver of layered networks, and of gradient descent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Record, Solution, Status
from hamshoot.theory import blockwise, learned
from hamshoot.theory import layers as discrete
from hamshoot.theory.clarke import clarke_residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What is said of a ReLU network with kinks that is too large for the Clarke residual.
BOUND_ONLY = (
    "Entries lie on the kink of ReLU and their slopes were not searched for; stationarity and "
    "Clarke residual are upper bounds."
)


def solution_from_weights(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    *,
    status: Status,
    success: bool,
    message: str = "",
    method: str,
    integrator: str = "euler",
    nit: int = 0,
    history: tuple[Record, ...] = (),
    seconds: float = 0.0,
    terminal: NDArray | None = None,
    residuals: dict[str, float] | None = None,
    extra: dict[str, Any] | None = None,
) -> Solution:
    """Roll a network out and fill a `Solution` from the reference formulas.

    Whatever a solver says of its iterate, objective, costate and residuals come from here: the
    objective is always that of the rolled-out network.

    With more than `hamshoot.theory.blockwise.MOST_STORED` numbers in the representations,
    everything is summed over blocks of samples and the states are not stored: the solution computes
    them when asked. There is no search for the best slopes on the kink of ReLU then. Where entries
    lie on the kink, stationarity and Clarke residual are upper bounds, of the activation's own
    slopes; the message says so, and so does the residual `clarke_residual_is_bound`, 1.

    Parameters
    ----------
    weights : ndarray, shape (L, w, w+1)
        Or, where maps are learned, stacked controls (`hamshoot.theory.learned`): then the problem
        of the solution has those maps.
    terminal : ndarray, shape (w, N), optional
        B_1, the multiplier of a hard endpoint.
    residuals : dict, optional
        The solver's own, added to those computed here.
    """
    weights, steps = np.array(weights, dtype=float), np.array(steps, dtype=float)
    if len(weights) != len(steps):
        problem, weights = learned.settled(problem, weights)
    if problem.learns or not blockwise.too_many(problem, len(steps)):
        found = _found_whole(problem, weights, steps, integrator, terminal)
    else:
        found = _found_by_blocks(problem, weights, steps, integrator)
    own = found.residuals
    own["stationarity"] = discrete.stationarity(weights, found.gradient)
    own["gradient_norm"] = blockwise.gradient_norm(problem, steps, found.gradient)
    if problem.learns:
        _add_maps(own, problem, found)
    # Momenta and representations come from one roll-out, so the layered defect is exactly zero and
    # only a hard endpoint leaves a boundary residual.
    own["defect"] = 0.0
    if found.collapsed:
        success, status = False, Status.COLLAPSED
        message = f"{Status.COLLAPSED} {message}".strip()
    if "clarke_residual_is_bound" in own:
        message = f"{message or status} {BOUND_ONLY}"
    p = np.concatenate([[0.0], np.cumsum(steps)])
    p[-1] = 1.0
    return Solution(
        problem=problem, p=p, representations=found.A, momenta=found.B, weights=weights,
        objective=found.objective, loss=found.loss, parameter_norm=found.norm, success=success,
        status=status, message=message or str(status), nit=nit,
        residuals={**own, **(residuals or {})}, history=history, seconds=seconds, method=method,
        integrator=integrator, steps=steps, kinks=found.kinks,
        idle_kinks=found.idle_kinks, extra=extra or {},
    )


class _Found(NamedTuple):
    """What the formulas say of a network; A and B None where they are not stored."""

    A: NDArray | None
    B: NDArray | None
    objective: float
    loss: float
    norm: float
    gradient: NDArray
    kinks: int
    idle_kinks: int
    collapsed: bool
    residuals: dict[str, float]


def _found_whole(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, integrator: str,
    terminal: NDArray | None,
) -> _Found:
    A = discrete.roll_out(problem, weights, steps, integrator)
    J, loss, norm = discrete.objective(problem, A[-1], weights, steps)
    slopes, kinks, idle, own = None, 0, 0, {}
    if problem.sigma.kinked and integrator == "euler" and np.isfinite(J):
        clarke = clarke_residual(problem, A, weights, steps, terminal=terminal)
        slopes = clarke.slopes
        kinks, idle = int(clarke.on_kink.sum()), int(clarke.idle.sum())
        own["clarke_residual"] = clarke.residual
    B, gradient = discrete.costates(problem, A, weights, steps, integrator, terminal, slopes)
    own["boundary_residual"] = discrete.boundary_residual(problem, A, B)
    fallen = bool(np.isfinite(J)) and discrete.collapsed(problem, A[-1], loss)
    return _Found(A, B, J, loss, norm, gradient, kinks, idle, fallen, own)


def _add_maps(own: dict[str, float], problem: TrainingProblem, found: _Found) -> None:
    """How stationary learned maps are, which the stationarity and ‖∇J‖ cover then."""
    assert found.A is not None
    assert found.B is not None
    maps = learned.stationarities(problem, found.A, found.B)
    own["stationarity"] = float(np.max([own["stationarity"], *maps.values()]))
    slopes = learned.map_slopes(problem, found.A[-1], found.B[0])
    own["gradient_norm"] = float(np.linalg.norm(
        np.concatenate([[own["gradient_norm"]], *slopes])))
    own.update(maps)


def _found_by_blocks(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, integrator: str
) -> _Found:
    sums = blockwise.evaluate(problem, weights, steps, integrator)
    finite = bool(np.isfinite(sums.objective))
    own = {"boundary_residual": 0.0}  # every block begins at A_0 and ends with B_1 as prescribed
    if problem.sigma.kinked and integrator == "euler" and finite:
        own["clarke_residual"] = blockwise.gradient_norm(problem, steps, sums.gradient)
        if sums.choices:
            own["clarke_residual_is_bound"] = 1.0
    return _Found(None, None, sums.objective, sums.loss, sums.parameter_norm, sums.gradient,
                  sums.kinks, sums.kinks - sums.choices, finite and sums.collapsed, own)
