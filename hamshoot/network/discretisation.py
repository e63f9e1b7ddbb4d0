"""How far networks built from a path are from it, against their number of layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.network.layered_network import LayeredNetwork, propagate
from hamshoot.network.path import SolvedPath

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DiscretisationError(NamedTuple):
    """Networks built from a path, against the number of layers.

    Attributes
    ----------
    layers : tuple of int
    objective : ndarray
        J of the networks.
    objective_error : ndarray
        J of the network minus J of the path.
    endpoint_error : ndarray
        ‖A_L − A(1)‖_F / ‖A(1)‖_F.
    """

    layers: tuple[int, ...]
    objective: NDArray
    objective_error: NDArray
    endpoint_error: NDArray

    def orders(self) -> NDArray:
        """Observed order of the endpoint error in 1/L between neighbours, (len(layers) − 1,)."""
        ratio = np.diff(np.log(self.layers))
        return -np.diff(np.log(np.maximum(self.endpoint_error, 1e-300))) / ratio

    def __str__(self) -> str:
        orders = ["", *(f"{order:.2f}" for order in self.orders())]
        lines = [f"{'layers':>6} {'objective':>14} {'minus path':>11} {'endpoint':>9} {'order':>6}"]
        lines += [
            f"{count:>6} {J:>14.8g} {error:>11.3e} {end:>9.2e} {order:>6}"
            for count, J, error, end, order in zip(
                self.layers, self.objective, self.objective_error, self.endpoint_error, orders,
                strict=True,
            )
        ]
        return "\n".join(lines)


def error_of(path: SolvedPath, networks: Iterable[LayeredNetwork]) -> DiscretisationError:
    """Compare networks with the path that they were built from."""
    problem, layers, rows = path.problem, [], []
    for network in networks:
        endpoint = propagate(network, problem.initial_state)
        layers.append(network.layers)
        rows.append((network.objective(problem),
                     np.linalg.norm(endpoint - path.representations[-1])))
    objective, distance = np.array(rows).reshape(-1, 2).T
    size = max(float(np.linalg.norm(path.representations[-1])), np.finfo(float).tiny)
    return DiscretisationError(tuple(layers), objective, objective - path.objective,
                               distance / size)
