"""The second-order test of a geodesic, and the way down from one that is no minimum.

The Newton system of the shooting equations is that of the second variation: where its model on the
mesh of the geodesic is positive, the geodesic is a minimum as far as that mesh tells. Where it is
not, an Euler network is built from the control, carried to its stationary point, and left along its
negative direction (`hamshoot.methods.newton.escape`); where that leads to no lower geodesic,
`hamshoot.optimality.second_order_path` decides what is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.methods.indirect.continuation import Path, states_at
from hamshoot.methods.indirect.reach import Continuation
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.escape import MAX_CONTROLS, escape
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.optimality.second_order_path import PathSecondOrder, path_second_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Stationarity of the Euler network that is left.
TOL = 1e-8


@dataclass
class Saddles:
    """Ways down from geodesics.

    Attributes
    ----------
    ways : Continuation
    """

    ways: Continuation

    def verdict(self, path: Path) -> PathSecondOrder:
        """Of the test of paths, at a geodesic of the problem's own L̃ and λ."""
        solver = self.ways.solver
        plain = solver.problem.activation == "relu" and path.stage.epsilon == 0
        flow = solver.shooting(path.stage, plain, accurate=True).flow

        def states(p: NDArray) -> tuple[NDArray, NDArray]:
            y = states_at(flow, path.t, path.y, p)
            return y[:, 0], y[:, 1]

        sigma = solver.problem.sigma
        if path.stage.epsilon:
            sigma = sigma.at(path.stage.epsilon)
        return path_second_order(solver.problem, sigma, states, path.t)

    def below(self, path: Path) -> NDArray | None:
        """Controls of an Euler network below the one of a geodesic, (L, w, w + 1).

        None where it has too many controls for the test of layers, or no way down was found.
        """
        ways, stage = self.ways, path.stage
        controls = int(np.prod(ways.solver.problem.control_shape))
        layers = min(ways.layers, MAX_CONTROLS // controls)
        if layers < 4 * stage.effective_depth:
            return None
        problem, steps = ways.networks.soft(stage), equidistant_steps(layers)
        ways.watch.stage = "down from a saddle"
        weights = ways.weights(path, layers)
        record = ways.networks.record
        end = exact_newton.minimise(problem, weights, steps, tol=TOL, max_iter=60,
                                    callback=record, watch=ways.watch)
        ways.networks.offer(end.weights)
        found = escape(problem, end.weights, steps, max(stage.epsilon, 1e-12), tol=TOL,
                       callback=record, watch=ways.watch)
        ways.networks.offer(found.weights)
        return found.weights
