"""Networks from anywhere, held against a problem: what they are, and where they do not fit it.

A candidate claims nothing and records nothing. It is rolled out in the problem, the slopes on its
kinks are searched for, and what comes of it is checked as any solution is.
"""

from __future__ import annotations

import sys
import zipfile
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.network.layered_network import LayeredNetwork
from hamshoot.network.leaky_resnet import LeakyResNet
from hamshoot.optimality.checks import Bound
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Solution, Status
from hamshoot.theory.layers import trivial_objective

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Endings of the files that hold a network.
SUFFIXES = (".safetensors", ".pt", ".pth", ".npz")
#: Maps and scalings agree to this, relative to the largest number in each.
FITS = 1e-12


class Candidate(NamedTuple):
    """A network in its problem.

    Attributes
    ----------
    solution : Solution
        Of its weights in the problem.
    bounds : list of Bound
        On what a network has of its problem, and on J against the network without weights.
    """

    solution: Solution
    bounds: list[Bound]


def candidate_in(
    given: Any, problem: TrainingProblem, steps: ArrayLike | None = None
) -> Candidate:
    """Evaluate a candidate in a problem; see `hamshoot.certify`.

    Parameters
    ----------
    given : Solution, LeakyResNet, array_like, torch.nn.Module, mapping or path
    problem : TrainingProblem
        With a loss.
    steps : array_like, shape (L,), optional
        Of weights given as an array.

    Raises
    ------
    ValueError
        Where it is no network, or one of other sizes, L̃ or σ than the problem's; with a hard
        endpoint.
    """
    if not isinstance(problem, TrainingProblem):
        raise ValueError(f"problem: expected a TrainingProblem, got {type(problem).__name__}")
    if problem.hard_endpoint:
        raise ValueError(
            "problem: expected targets, got a hard endpoint, whose multiplier B_1 no network "
            "holds; solve from the network (initial_guess) and certify the solution")
    network = network_in(given, problem, steps)
    _check_kind(network, problem)
    if problem.learns:  # then the network's own count
        problem = problem.with_maps(
            network.lift if problem.lift_decay is not None else problem.lift,
            network.readout if problem.readout_decay is not None else problem.readout)
    solution = solution_from_weights(problem, network.weights, network.steps, method="given",
                                     status=Status.TRAINED, success=True)
    return Candidate(solution, [*_against(network, problem), _trivial(solution)])


def network_in(
    given: Any, problem: TrainingProblem | None, steps: ArrayLike | None = None
) -> LeakyResNet:
    """Read a candidate of any kind as a network; `problem` has what it may lack."""
    kind = _kind(given)
    if steps is not None and kind != "weights":
        raise ValueError(f"steps: expected none with a {kind}, which has its own")
    if kind == "network":
        return given if isinstance(given, LeakyResNet) else LeakyResNet(**vars(given))
    if kind == "solution":
        return _of_solution(given)
    if kind == "file":
        return _of_file(Path(given), problem)
    if kind == "module":
        return LeakyResNet.from_torch(given, problem)
    if problem is None:
        raise ValueError("problem: expected the problem that the weights belong to, got none")
    return LeakyResNet.from_weights(problem, _array(given), steps)


def _kind(given: Any) -> str:
    torch = sys.modules.get("torch")
    if isinstance(given, Solution):
        return "solution"
    if isinstance(given, LayeredNetwork):
        return "network"
    if isinstance(given, (str, PathLike)):
        return "file"
    if isinstance(given, dict) or (torch is not None and isinstance(given, torch.nn.Module)):
        return "module"
    return "weights"


def _of_solution(solution: Solution) -> LeakyResNet:
    if solution.steps is None or solution.integrator != "euler":
        raise ValueError("problem: expected none with a continuous path or RK4 layers, which are "
                         "checked in their own; or give a network of it, solution.to_network()")
    return solution.to_network()


def _of_file(path: Path, problem: TrainingProblem | None) -> LeakyResNet:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file with one of {', '.join(SUFFIXES)}, which hold "
                         f"networks, got {suffix or 'no ending'!r}")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if suffix == ".safetensors":
        return LeakyResNet.from_safetensors(path, problem)
    if suffix != ".npz":
        return LeakyResNet.from_torch(path, problem)
    if holds_solution(path):
        return _of_solution(Solution.load(path))
    return LeakyResNet.load(path)


def holds_solution(path: Path) -> bool:
    """Whether an .npz file is not one of a network alone: then it is read as a solution."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return "lift" not in file.files
    except (OSError, ValueError, TypeError, EOFError, AttributeError, NotImplementedError,
            zipfile.BadZipFile):
        return True  # whose reader says what is wrong with it


def _array(weights: Any) -> NDArray:
    """Weights in double precision, of tensors as well."""
    if hasattr(weights, "detach"):
        weights = weights.detach().cpu().double()
    if np.iscomplexobj(weights):
        raise ValueError("network: expected real weights, got complex ones")
    try:
        values = np.asarray(weights, dtype=float)
    except (TypeError, ValueError):
        raise ValueError("network: expected a LeakyResNet, weights (layers, w, w + 1), a torch "
                         "module, a solution or the name of a file, got "
                         f"{type(weights).__name__}") from None
    return values


# -- where it does not fit -------------------------------------------------------------------------


def _check_kind(network: LeakyResNet, problem: TrainingProblem) -> None:
    """Raise ValueError for a network of another kind than the problem's, or of other sizes."""
    pairs = [("width", network.width, problem.width),
             ("inputs", network.lift.shape[1], problem.d_in),
             ("outputs", len(network.readout), problem.d_out),
             ("bias", bool(network.bias), bool(problem.bias)),
             ("activation", network.activation.name, problem.activation)]
    for name, own, asked in pairs:
        if own != asked:
            raise ValueError(f"network: expected {name} {asked} as the problem has, got {own}")
    for name, value, target in (
            ("effective_depth", network.effective_depth, problem.effective_depth),
            ("epsilon", network.activation.epsilon, problem.sigma.epsilon),
            ("negative_slope", network.activation.negative_slope, problem.sigma.negative_slope)):
        if abs(value - target) > FITS * max(value, target):
            raise ValueError(
                f"network: expected {name} {target:.12g} as the problem has, got {value:.12g}")


def _against(network: LeakyResNet, problem: TrainingProblem) -> list[Bound]:
    """Maps and scalings of the network against the problem's, each relative to its size.

    Means count in units of the scale: an offset of the data is no error of theirs.
    """
    bounds = [Bound(f"{name} against the problem's",
                    _apart(getattr(network, name), getattr(problem, name)), FITS)
              for name in ("lift", "readout")]
    for name in ("input_scaling", "target_scaling"):
        own, asked = getattr(network, name), getattr(problem, name)
        shift = np.abs(own.mean - asked.mean) / asked.scale
        size = np.maximum(1.0, np.abs(asked.mean) / asked.scale)
        apart = max(_apart(own.scale, asked.scale), float(np.max(shift / size)))
        bounds.append(Bound(f"{name.replace('_', ' ')} against the problem's", apart, FITS))
    if problem.classes is not None and network.classes is not None:
        differ = sum(a != b for a, b in zip(network.classes, problem.classes, strict=True))
        bounds.append(Bound("classes other than the problem's", float(differ), 0.0))
    return bounds


def _apart(own: NDArray, asked: NDArray) -> float:
    return float(np.max(np.abs(own - asked)) / max(float(np.max(np.abs(asked))), 1e-300))


def _trivial(solution: Solution) -> Bound:
    """J against that of the same layers without weights."""
    without = trivial_objective(solution.problem, solution.steps)
    return Bound("J against the network without weights", solution.objective,
                 without * (1 + FITS))
