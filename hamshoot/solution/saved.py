"""Solutions in .npz files, with their problems and histories: arrays, and metadata as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hamshoot.problem.memory_map import MissingMap
from hamshoot.problem.saved import ARRAYS as PROBLEM_ARRAYS
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solved_nodes import STATES, SolvedNodes
from hamshoot.solution.status import Record, Status
from hamshoot.support import schema
from hamshoot.support.checks import brief, check_real
from hamshoot.support.files import header, load_with_metadata, save_with_metadata
from hamshoot.support.schema import check_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
ARRAYS = ("p", *STATES, "weights", "steps")
VALUES = ("objective", "loss", "parameter_norm", "success", "message", "nit", "residuals",
          "seconds", "method", "integrator", "kinks", "idle_kinks", "extra")
#: Before the names of a problem's arrays.
PREFIX = "problem."
#: Metadata by their kinds; what is in `extra` belongs to the methods, but for what is read here.
FIELDS = {
    "problem": schema.OBJECT, "status": schema.TEXT, "history": schema.LIST,
    "objective": schema.NUMBER, "loss": schema.NUMBER, "parameter_norm": schema.NUMBER,
    "success": schema.FLAG, "message": schema.TEXT, "nit": schema.COUNT,
    "residuals": schema.NAMED_NUMBERS, "seconds": schema.NUMBER, "method": schema.TEXT,
    "integrator": schema.TEXT, "kinks": schema.COUNT,
    "extra": schema.OBJECT,
}
#: Those that early files, or files of layers, do not have.
NEWER = {"idle_kinks": schema.COUNT, "epsilon": schema.MAYBE_NUMBER}
RECORD = {"iteration": schema.COUNT, "objective": schema.NUMBER, "stationarity": schema.NUMBER,
          "seconds": schema.NUMBER}
EXTRA = {
    **dict.fromkeys(("start_objectives", "reheat_objectives", "reheat_rounds",
                     "escape_objectives"), schema.NUMBERS),
    **dict.fromkeys(("rate", "grid_seconds", "cpu_seconds", "budget_seconds", "total_epochs",
                     "start_seed", "fixed_objective"), schema.MAYBE_NUMBER),
    **dict.fromkeys(("schedule", "second_order"), schema.MAYBE_TEXT),
    **dict.fromkeys(("grid", "runs"), schema.LIST),
    "epsilon": schema.MAYBE_NUMBER, "hamiltonian": schema.NUMBER, "solver_stats": schema.OBJECT,
}

Nodes = TypeVar("Nodes", bound=SolvedNodes)


def save(solution: SolvedNodes, path: str | PathLike) -> Path:
    """Write a solution to an .npz file, whole or not at all; the file written.

    States that are not stored are left out. ε of a path stands among its extra numbers, where the
    geodesic search puts it; it is written once more only where it differs.
    """
    problem_arrays, settings = solution.problem.to_arrays()
    arrays = {f"{PREFIX}{k}": v for k, v in problem_arrays.items()}
    stored = vars(solution)
    arrays.update({name: stored[name] for name in ARRAYS if stored.get(name) is not None})
    metadata = {
        **header(FORMAT),
        "problem": settings,
        "status": solution.status.name,
        "history": [asdict(record) for record in solution.history],
        **{name: getattr(solution, name) for name in VALUES},
    }
    if solution.epsilon != solution.extra.get("epsilon"):
        metadata["epsilon"] = solution.epsilon
    return save_with_metadata(path, arrays, metadata, default=_plain)


def checked_path(path: Any) -> str | PathLike:
    """The name of a file; TypeError for none, or what is no name."""
    if isinstance(path, PathLike) or (isinstance(path, str) and path):
        return path
    raise TypeError("save: expected the name of a file, as in solution.save('solution.npz'), got "
                    f"{'none' if path is None else brief(path)}")


def load(path: str | PathLike, build: Callable[..., Nodes]) -> Nodes:
    """Read a solution back, built from its fields by name.

    Raises
    ------
    ValueError
        For a missing, truncated or foreign file, and for data that are no longer where the
        solution refers to, in one sentence.
    """
    path = Path(path)
    foreign = f"{path}: not a hamshoot solution"
    arrays, metadata = load_with_metadata(path, foreign, FORMAT)
    try:
        _check_metadata(metadata)
        _check_arrays(arrays)
        data = {k.removeprefix(PREFIX): v for k, v in arrays.items() if k.startswith(PREFIX)}
        problem = TrainingProblem.from_arrays(data, metadata.pop("problem"))
        own: dict[str, Any] = dict.fromkeys(STATES)
        own |= {k: v for k, v in arrays.items() if not k.startswith(PREFIX)}
        history = tuple(Record(**record) for record in metadata.pop("history"))
        status = Status[metadata.pop("status")]
        if "steps" not in own:
            metadata.setdefault("epsilon", metadata["extra"].get("epsilon"))
        solution = build(problem=problem, status=status, history=history, **own, **metadata)
        p = solution.p
        if not (p[0] == 0 and p[-1] == 1 and np.all(np.diff(p) > 0)):
            raise ValueError("p: expected nodes that ascend from 0 to 1")
        return solution
    except MissingMap:
        raise
    except ValueError as error:
        raise ValueError(f"{foreign} ({error})") from None


def _check_metadata(metadata: dict[str, Any]) -> None:
    """Raise ValueError unless all fields are there and of their kinds."""
    check_fields("metadata", metadata, FIELDS, NEWER)
    if metadata["status"] not in Status.__members__:
        raise ValueError(f"status: expected one of {', '.join(Status.__members__)}, "
                         f"got {brief(metadata['status'])}")
    for record in metadata["history"]:
        check_fields("history", record, RECORD, {"stage": schema.TEXT})
    check_fields("extra", metadata["extra"], {}, EXTRA, closed=False)


def _check_arrays(arrays: dict[str, NDArray]) -> None:
    """Raise ValueError unless the arrays are those of a solution, of real numbers.

    Controls and states may hold what is not finite: that is what a solver leaves that diverged.
    """
    known = {*ARRAYS, *(f"{PREFIX}{name}" for name in PROBLEM_ARRAYS)}
    for name, array in arrays.items():
        if name not in known:
            raise ValueError(f"there is no array {brief(name)} in a solution")
        check_real(name, array)
    for name in ("p", "weights"):
        if name not in arrays:
            raise ValueError(f"the array {name} is missing")
    p, steps = arrays["p"], arrays.get("steps")
    if p.ndim != 1 or len(p) < 2:
        raise ValueError(f"p: expected the depths of two nodes or more, got shape {p.shape}")
    if steps is not None and not (steps.ndim == 1 and len(steps)
                                  and np.all((steps > 0) & (steps <= 1))):
        raise ValueError("steps: expected layer steps in (0, 1]")


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON knows them."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")
