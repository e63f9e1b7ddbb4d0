"""What print and notebooks show of a solution: its lines, name and text."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        _residuals(solution),
        ("Hamiltonian", f"{np.median(hamiltonian):.8g}, drift {drift:.1e}, rank {rank}"),
        ("effort", f"{solution.nit} iterations, {solution.seconds:.2f} s"),
    ]


def _residuals(solution: SolvedNodes) -> tuple[str, str]:
    """What was solved: on a path W follows from A and B, and its stationarity tells nothing."""
    stationarity, defect, boundary = (
        solution.residuals.get(name, float("nan"))
        for name in ("stationarity", "defect", "boundary_residual"))
    if solution.steps is not None:
        return "stationarity", f"{stationarity:.2e}"
    return "residuals", f"defect {defect:.2e}, boundary {boundary:.2e}"
