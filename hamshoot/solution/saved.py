"""Solutions in .npz files, with their problems and histories: arrays, and metadata as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hamshoot.problem.memory_map import MissingMap
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solved_nodes import STATES, SolvedNodes
from hamshoot.solution.status import Record, Status
from hamshoot.support.files import header, load_with_metadata, save_with_metadata

FORMAT = 1
ARRAYS = ("p", *STATES, "weights", "steps")
VALUES = ("objective", "loss", "parameter_norm", "success", "message", "nit", "residuals",
          "seconds", "method", "integrator", "kinks", "idle_kinks", "extra")
#: Before the names of a problem's arrays.
PREFIX = "problem."

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
        data = {k.removeprefix(PREFIX): v for k, v in arrays.items() if k.startswith(PREFIX)}
        problem = TrainingProblem.from_arrays(data, metadata.pop("problem"))
        own: dict[str, Any] = dict.fromkeys(STATES)
        own |= {k: v for k, v in arrays.items() if not k.startswith(PREFIX)}
        history = tuple(Record(**record) for record in metadata.pop("history"))
        status = Status[metadata.pop("status")]
        if "steps" not in own:
            metadata.setdefault("epsilon", metadata["extra"].get("epsilon"))
        return build(problem=problem, status=status, history=history, **own, **metadata)
    except MissingMap:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{foreign} ({error})") from None


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON knows them."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")
