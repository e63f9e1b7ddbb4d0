"""What `hamshoot export` writes, and what `hamshoot verify` reads beside solutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.command.config import read_config
from hamshoot.network.interchange import Exported
from hamshoot.network.leaky_resnet import LeakyResNet
from hamshoot.optimality.candidate import SUFFIXES, holds_solution, network_in
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Most rows of a problem on which a discrepancy is measured.
MOST_ROWS = 10_000
#: Share of a target's scale above which the discrepancy is pointed out.
MUCH = 1e-3
#: Formats by the ending of the file.
FORMATS = {".onnx": "ONNX", ".safetensors": "safetensors", ".pt": "PyTorch", ".pth": "PyTorch"}


def export_file(
    result: Path, output: Path, *, float32: bool, layers: int | None, steps: str | None,
    force: bool,
) -> tuple[Exported, dict[str, Any]]:
    """Write the network of a result in the format that the name of the file asks for.

    Parameters
    ----------
    result : Path
        A saved solution, or a network in any format that can be read.
    output : Path
        Ends with .onnx, .safetensors or .pt.
    float32 : bool
    layers, steps : int, str or None
        Of the network of a solution, as `Solution.to_network` takes them.
    force : bool
        Whether a file that is there may be replaced.

    Returns
    -------
    exported : Exported
        The discrepancy is that over the data of the solution, up to `MOST_ROWS` rows.
    summary : dict
        JSON-ready: path, format, sizes, discrepancy, and the status of the solution.

    Raises
    ------
    ValueError
        For files that are missing, foreign or in the way, and a result with a hard endpoint.
    """
    suffix = output.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{output}: expected a file that ends with {', '.join(FORMATS)}, "
                         f"got {suffix or 'no ending'!r}")
    if output.is_dir():
        raise ValueError(f"{output}: expected the name of a file, got a directory")
    if not output.parent.is_dir():
        raise ValueError(f"{output.parent}: no such directory")
    if output.exists() and not force:
        raise ValueError(f"{output}: exists; --force overwrites it")
    network, solution = _network(result, layers, steps)
    rows = None if solution is None else rows_of(solution.problem)
    exported = _writer(suffix)(network, output, "float32" if float32 else "float64", rows)
    summary = {
        "path": str(exported.path), "format": FORMATS[suffix], "layers": network.layers,
        "width": network.width, "discrepancy": asdict(exported.discrepancy),
        "success": None if solution is None else bool(solution.success),
        "status": None if solution is None else solution.status.name.lower(),
    }
    return exported, summary


def remarks(summary: dict[str, Any]) -> list[str]:
    """Sentences on what a user should know of the file that was written."""
    found = []
    if summary["success"] is False:
        found.append(f"It comes from a solution that has not converged ({summary['status']}).")
    if summary["discrepancy"]["relative"] > MUCH:
        found.append("Predictions are off by more than "
                     f"{MUCH:g} of a target's scale: export in double precision, without "
                     "--float32.")
    return found


def to_verify(
    path: Path, problem: Path | None, settings: Sequence[str]
) -> tuple[Any, TrainingProblem | None]:
    """Read what `certify` is to be given: a solution, or the name of a network and its problem.

    Raises
    ------
    ValueError
        For a network alone, and as `read_config` and `Solution.load`.
    """
    if problem is not None or settings:
        return path, read_config(problem, settings).problem
    suffix = path.suffix.lower()
    alone = suffix in SUFFIXES and suffix != ".npz"
    if path.is_file() and (alone or not holds_solution(path)):
        raise ValueError(f"{path}: holds a network alone; --problem PROBLEM.toml says which "
                         "problem it is to solve")
    return Solution.load(path), None


def rows_of(problem: TrainingProblem) -> NDArray:
    """Rows of the training and the held-out data, in the user's units, (K, d_in)."""
    rows = [np.asarray(problem.X[:MOST_ROWS], dtype=float)]
    if problem.X_test is not None:
        rows.append(np.asarray(problem.X_test[:MOST_ROWS], dtype=float))
    return np.concatenate(rows)[:MOST_ROWS]


def _network(
    result: Path, layers: int | None, steps: str | None
) -> tuple[LeakyResNet, Solution | None]:
    """The network to export, and the solution that it comes from."""
    suffix = result.suffix.lower()
    if suffix in SUFFIXES and (suffix != ".npz" or not holds_solution(result)):
        if layers is not None or steps is not None:
            raise ValueError(f"{'layers' if steps is None else 'steps'}: only a solution is built "
                             f"with others, {result} holds a network")
        return network_in(result, None), None
    solution = Solution.load(result)
    return solution.to_network(layers, steps), solution


def _writer(suffix: str) -> Callable[..., Exported]:
    if suffix == ".onnx":
        return LeakyResNet.to_onnx
    return LeakyResNet.to_safetensors if suffix == ".safetensors" else LeakyResNet.to_torch_file
