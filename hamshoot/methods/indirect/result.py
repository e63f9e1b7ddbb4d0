"""The `Solution` of a path, with its residuals, its defects by the accurate flow among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.watch import thinned
from hamshoot.methods.indirect.continuation import Path, controls, hamiltonians
from hamshoot.methods.indirect.equations import ShootingProblem
from hamshoot.methods.indirect.stage_solver import StageSolver
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Solution, Status
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray


def solution_of(
    path: Path, solver: StageSolver, status: Status, reason: str, numbers: dict[str, Any]
) -> Solution:
    """Whatever path a search ended at, as a `Solution`.

    Parameters
    ----------
    path : Path
    solver : StageSolver
        That it was looked for with.
    status : Status
        A collapsed path overrides it.
    reason : str
        Follows the status in the message; may be empty.
    numbers : dict of str to object
        For `extra`; those of the path join them.
    """
    extra = dict(numbers)
    problem, watch = solver.problem, solver.watch
    plain = problem.activation == "relu" and path.stage.epsilon == 0
    shooting = solver.shooting(path.stage, plain, accurate=True)
    flow = shooting.flow
    A, B = path.y[:, 0], path.y[:, 1]
    defect = _largest_defect(shooting, path)
    W = controls(flow, path.y)
    energy = float(flow.energies.sum())
    loss = 0.0 if problem.hard_endpoint else \
        float(ham.loss(A[-1], problem.readout, problem.targets, problem.criterion))
    H = hamiltonians(flow, path.y)
    settings: dict[str, Any] = dict(
        effective_depth=problem.effective_depth, activation=problem.sigma, bias=problem.bias)
    gradient = np.array([w - ham.control(a, b, **settings)
                         for w, a, b in zip(W, A, B, strict=True)])
    residuals = {
        "stationarity": discrete.stationarity(W, gradient),
        "defect": defect,
        "boundary_residual": discrete.boundary_residual(problem, A, B),
        "hamiltonian_drift": ham.hamiltonian_drift(H),
    }
    if solver.options.integrator == "gauss":
        residuals["discrete_defect"] = _largest_defect(solver.shooting(path.stage, plain), path)
    success = status in (Status.CONVERGED, Status.SMOOTHED) and solver.converged
    if np.isfinite(loss) and discrete.collapsed(problem, A[-1], loss):
        success, status = False, Status.COLLAPSED
    if solver.converged:
        extra["definite"], extra["least"] = solver.curvature(path)
    extra.update(epsilon=path.stage.epsilon, segments=len(path.t) - 1,
                 hamiltonian=float(np.median(H)))
    return Solution(
        problem=problem, p=path.t, representations=A, momenta=B, weights=W,
        objective=loss + problem.weight_decay * energy, loss=loss,
        parameter_norm=2 * problem.effective_depth * energy, success=success, status=status,
        message=" ".join(filter(None, [str(status), reason, residuals_solved(residuals)])),
        nit=watch.iterations,
        residuals=residuals, history=thinned(watch.history), seconds=watch.seconds,
        method="indirect", integrator="flow", steps=None, extra=extra,
        epsilon=path.stage.epsilon,
    )


def residuals_solved(residuals: dict[str, float]) -> str:
    """The residuals of the shooting equations in a sentence; W follows from A and B."""
    return (f"Shooting residuals: defect {residuals['defect']:.1e}, boundary "
            f"{residuals['boundary_residual']:.1e}.")


def network_solution(
    weights: NDArray, solver: StageSolver, status: Status, reason: str, numbers: dict[str, Any]
) -> Solution:
    """The Euler network that a search had come to when it ended without a geodesic.

    Parameters
    ----------
    weights : ndarray, shape (L, w, w+1)
    solver, status, reason, numbers
        As in `solution_of`.
    """
    problem, watch = solver.problem, solver.watch
    steps = equidistant_steps(len(weights))
    words = f"No geodesic was found so far; this is the best network seen, of {len(steps)} layers."
    message = " ".join(filter(None, [str(status), reason, words]))
    extra = {**numbers, "epsilon": problem.sigma.epsilon, "segments": len(steps)}
    solution = solution_from_weights(
        problem, weights, steps, status=status, success=False, message=message,
        method="indirect", nit=watch.iterations, history=thinned(watch.history),
        seconds=watch.seconds, extra=extra,
        terminal=np.zeros_like(problem.initial_state) if problem.hard_endpoint else None)
    residuals = {**solution.residuals, "hamiltonian_drift": solution.hamiltonian_drift}
    return solution.replace(status=status, message=message, residuals=residuals)


def _largest_defect(shooting: ShootingProblem, path: Path) -> float:
    """Of all segments, relative to the size of A and of B."""
    defects = shooting.defects(path.t, path.y)
    return float(np.max([
        np.abs(defects[:, i]).max() / (np.abs(path.y[:, i]).max() or 1.0) for i in (0, 1)
    ]))
