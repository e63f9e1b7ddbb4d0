"""The gradient of an error on other rows, by λ and L̃, through the optimum.

The error E of a network on rows that it was not trained on depends on λ and L̃ through the controls
of the optimum, and on L̃ as the network's leak besides:

    dE/dθ = ⟨∂E/∂W, dW*/dθ⟩ + ∂E/∂θ,

with dW*/dθ from the Newton system of the optimum (implicit differentiation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.derivatives.layers import tangent
from hamshoot.derivatives.outputs import pulled_back
from hamshoot.optimality import formulas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hamshoot.derivatives.optimum import Optimum


class HeldOutError(NamedTuple):
    """An error, and how it and the optimum move.

    Attributes
    ----------
    error : float
    gradient : ndarray, shape (k,)
        dE/dθ of the parameters asked for.
    weights : ndarray, shape (k, L, w, w+1)
        dW*/dθ.
    """

    error: float
    gradient: NDArray
    weights: NDArray


def held_out_error(
    here: Optimum, parameters: Sequence[str], X: NDArray, Y: NDArray, scale: NDArray
) -> HeldOutError:
    """Mean of ‖(prediction − y)/scale‖² over rows, and its gradient by some parameters.

    Parameters
    ----------
    here : Optimum
    parameters : sequence of {"weight_decay", "effective_depth"}
    X, Y : ndarray, shapes (K, d_in) and (K, d_out)
        In the user's units.
    scale : ndarray, shape (d_out,)
        What errors are measured in.

    Raises
    ------
    NoDerivative
        As `hamshoot.derivatives.layers.tangent`.
    """
    problem, at = here.problem, here.at
    own = problem.target_scaling.scale
    setting = at.setting._replace(start=problem.lift @ problem.input_scaling.apply(X).T)
    out = setting.readout @ formulas.roll_out(setting, at.weights, at.steps)[-1]
    gaps = ((problem.target_scaling.invert(out.T) - Y) / scale).T
    by_outputs = 2 / len(X) * gaps * (own / scale)[:, None]
    by_weights, by_depth = pulled_back(setting, at.weights, at.steps, by_outputs)
    moves = np.array([tangent(here, of, 1.0).weights for of in parameters])
    gradient = np.array([np.sum(by_weights * move) + (by_depth if of == "effective_depth" else 0.0)
                         for of, move in zip(parameters, moves, strict=True)])
    return HeldOutError(float(np.sum(gaps**2) / len(X)), gradient, moves)
