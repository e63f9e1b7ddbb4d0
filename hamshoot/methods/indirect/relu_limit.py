"""The limit ε → 0 of a ladder: by extrapolation, and the plain ReLU flow where nothing slides."""

from __future__ import annotations

from typing import Any

from hamshoot.methods.indirect.continuation import limits, objectives_agree, sliding
from hamshoot.methods.indirect.stage_solver import StageSolver
from hamshoot.solution.status import Status


def relu_limit(
    solver: StageSolver, exact: bool, numbers: dict[str, Any]
) -> tuple[Status, str]:
    """Go to the limit from the end of the ladder, which the solver's path is.

    Parameters
    ----------
    solver : StageSolver
        Its path becomes that of the plain ReLU flow, where nothing slides and it agrees.
    exact : bool
        Whether the plain ReLU flow is tried at all.
    numbers : dict
        Receives the limits, their errors and "sliding".

    Returns
    -------
    Status
    str
        Sentence for the message.
    """
    path = solver.path
    assert path is not None  # a ladder that has come to its end
    found = limits(solver.solved, path.stage)
    for name, (limit, error) in found.items():
        numbers[f"{name}_limit"], numbers[f"{name}_limit_error"] = limit, error
    epsilon = path.stage.epsilon
    slides = sliding(path.y[:, 0], epsilon)
    numbers["sliding"] = slides
    sentence = f"Smoothed with ε = {epsilon:.3g}"
    if found:
        limit, error = found["objective"]
        sentence += f"; the limit ε → 0 of the objective is {limit:.8g} ± {error:.1e}"
    if slides:
        return Status.SMOOTHED, f"{sentence}; {slides} activations slide along their kinks."
    if exact:
        count = len(solver.solved)
        solver.watch.stage = "plain ReLU"
        if solver.solve(path, path.stage._replace(epsilon=0.0), plain_relu=True):
            if objectives_agree(solver.solved, found.get("objective")):
                return Status.CONVERGED, (
                    "No activation slides along its kink: this is a geodesic of the plain "
                    "ReLU flow, its crossings located."
                )
            del solver.solved[count:]
        solver.path, solver.converged = path, True
    return Status.SMOOTHED, f"{sentence}."
