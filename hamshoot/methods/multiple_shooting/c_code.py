"""The functions of step and costate as C: no Python, no CasADi, no allocation where it runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from hamshoot.methods.multiple_shooting.nlp import FUNCTIONS, casadi_functions
from hamshoot.support.checks import brief
from hamshoot.support.files import write_whole

if TYPE_CHECKING:
    from hamshoot.problem.training_problem import TrainingProblem

SIGNATURES = {
    "step": "(A, W, rho, effective_depth, epsilon) -> A at the next node",
    "costate": "(A, W, B_next, rho, effective_depth, epsilon) -> B, the exact adjoint of step",
    "hamiltonian": "(A, B, effective_depth, epsilon) -> H",
    "flow": "(A, B, effective_depth, epsilon) -> (dA, dB)",
}


def write_c(problem: TrainingProblem, integrator: str, path: str | PathLike,
            functions: Sequence[str]) -> Path:
    """Write functions of a problem's size as one C file, whole or not at all.

    Raises
    ------
    ValueError
        For a name without the ending .c, or a function that there is not.
    OSError
        Where the directory cannot be written to.
    """
    import casadi as ca

    path = Path(path)
    if path.suffix != ".c":
        raise ValueError(f"path: expected a name that ends in .c, got {brief(path.name)}")
    names = [functions] if isinstance(functions, str) else list(functions)
    unknown = [name for name in names if name not in FUNCTIONS]
    if unknown or not names:
        raise ValueError(f"functions: expected some of {', '.join(FUNCTIONS)}, "
                         f"got {brief(unknown[0]) if unknown else 'none'}")
    generator = ca.CodeGenerator(re.sub(r"\W", "_", f"c_{path.stem}"))
    available = casadi_functions(problem, integrator)
    for name in dict.fromkeys(names):
        generator.add(available[name])
    text = _head(problem, integrator, names) + generator.dump()
    write_whole(path, lambda file: file.write(text.encode()))
    return path


def _head(problem: TrainingProblem, integrator: str, names: Sequence[str]) -> str:
    """What a reader of the C file has to know."""
    w, N = problem.initial_state.shape
    sigma = problem.sigma
    smoothing = "epsilon is not used: this activation has none." if not sigma.laddered else (
        "epsilon is the width of the smooth ReLU; 0 is the ReLU itself, with slope "
        f"{(1 + sigma.negative_slope) / 2:g} at 0.")
    lines = [
        "Leaky ResNet, written by hamshoot through CasADi.",
        f"Width {w}, samples {N}, {sigma}, {'bias' if problem.bias else 'no bias'}, "
        f"{integrator}; W has {problem.control_shape[1]} columns.",
        "Matrices are column by column, one column a sample.",
        smoothing,
        *(f"  {name}{SIGNATURES[name]}" for name in names),
        "int name(const double** arg, double** res, long long* iw, double* w, int mem), with",
        "work arrays of the sizes that name_work gives; returns 0.",
    ]
    return "/*\n" + "".join(f" * {line}\n" for line in lines) + " */\n"
