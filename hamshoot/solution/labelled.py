"""A solution as labelled arrays, for those who have xarray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.solution.solved_nodes import SolvedNodes

if TYPE_CHECKING:
    from numpy.typing import NDArray


def dataset(solution: SolvedNodes, hamiltonian: NDArray, summary: dict[str, Any]) -> Any:
    """Make an xarray.Dataset, see `hamshoot.Solution.to_xarray`.

    Parameters
    ----------
    solution : SolvedNodes
    hamiltonian : ndarray
        Along the path, at the layers or at the nodes.
    summary : dict of str to object
        Attributes.

    Raises
    ------
    ImportError
        Saying what to install, without xarray.
    """
    try:
        import xarray
    except ImportError:
        raise ImportError(
            'to_xarray needs xarray; install it with: pip install "hamshoot[xarray]"'
        ) from None
    layers = "p" if solution.steps is None else "layer"
    inputs = [*map(str, range(solution.problem.width)), "bias"][: solution.weights.shape[2]]
    variables: dict[str, Any] = {
        "representations": (("p", "neuron", "sample"), solution.representations),
        "momenta": (("p", "neuron", "sample"), solution.momenta),
        "weights": ((layers, "neuron", "input"), solution.weights),
    }
    coordinates: dict[str, Any] = {"p": solution.p, "input": inputs}
    if solution.steps is not None:
        coordinates["layer"] = np.arange(1, len(solution.steps) + 1)
        variables["steps"] = (("layer",), solution.steps)
    on = layers if len(hamiltonian) != len(solution.p) else "p"
    variables["hamiltonian"] = ((on,), hamiltonian)
    return xarray.Dataset(variables, coordinates, attrs=summary)
