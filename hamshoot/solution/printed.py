"""What print and notebooks show of a solution: its lines, name and text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.solution.solved_nodes import SolvedNodes

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rows(solution: SolvedNodes, hamiltonian: NDArray, drift: float, rank: str
         ) -> list[tuple[str, str]]:
    """Method, status, objective, residuals, Hamiltonian and effort.

    Parameters
    ----------
    solution : SolvedNodes
    hamiltonian : ndarray
        Along the path.
    drift : float
        Of it, see `hamshoot.Solution`.
    rank : str
        The bottleneck rank that follows from it.
    """
    layers = f", {solution.layers} layers" if solution.layers else ""
    return [
        ("method", solution.method + layers),
        ("status", f"{solution.status.name.lower()}: {solution.message}"),
        ("objective", f"{solution.objective:.10g}  (loss {solution.loss:.6g}, "
                      f"∫‖W‖² {solution.parameter_norm:.6g})"),
        *_maps(solution),
        _residuals(solution),
        ("Hamiltonian", f"{np.median(hamiltonian):.8g}, drift {drift:.1e}, rank {rank}"),
        ("effort", f"{solution.nit} iterations, {solution.seconds:.2f} s"),
    ]


def map_numbers(solution: SolvedNodes) -> dict[str, Any]:
    """Of learned maps their part of J, how stationary they are, and J before they moved."""
    if not solution.problem.learns:
        return {}
    return {"map_decay": solution.problem.map_decay,
            "lift_stationarity": solution.residuals.get("lift_stationarity"),
            "readout_stationarity": solution.residuals.get("readout_stationarity"),
            "fixed_objective": solution.extra.get("fixed_objective")}


def _maps(solution: SolvedNodes) -> list[tuple[str, str]]:
    """Of learned maps their norms, their part of J, and how stationary they are."""
    problem = solution.problem
    told = []
    for name, symbol, mu in (("lift", "P", problem.lift_decay), ("readout", "Q",
                                                                 problem.readout_decay)):
        if mu is not None:
            square = float(np.sum(getattr(problem, name) ** 2))
            off = solution.residuals.get(f"{name}_stationarity", float("nan"))
            told.append(f"{name} ‖{symbol}‖² {square:.6g}, stationary to {off:.1e}")
    return [("learned", f"{'; '.join(told)} ({problem.map_decay:.6g} of J)")] if told else []


def _residuals(solution: SolvedNodes) -> tuple[str, str]:
    """What was solved: on a path W follows from A and B, and its stationarity tells nothing."""
    stationarity, defect, boundary = (
        solution.residuals.get(name, float("nan"))
        for name in ("stationarity", "defect", "boundary_residual"))
    if solution.steps is not None:
        return "stationarity", f"{stationarity:.2e}"
    return "residuals", f"defect {defect:.2e}, boundary {boundary:.2e}"
