"""Derivatives of what a layered network puts out, by its controls and by its depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamshoot.optimality import formulas

if TYPE_CHECKING:
    from numpy.typing import NDArray


def gradients(
    setting: formulas.Setting, weights: NDArray, steps: NDArray
) -> tuple[NDArray, NDArray]:
    """A_L (w, K), and ∂(QA_L)/∂W of every output of every sample, (d_out, K, n).

    One backward sweep an output. At kinks of ReLU σ′ = 0, as of the function itself.
    """
    A = formulas.roll_out(setting, weights, steps)
    S = formulas.features(setting, A[:-1])
    rows = []
    for q in setting.readout:
        end = np.broadcast_to(q[:, None], A[-1].shape)
        D, _ = formulas.costates(setting, A, weights, steps, end=end)
        rows.append(np.einsum("l,lis,lcs->slic", steps, D[1:], S).reshape(A.shape[2], -1))
    return A[-1], np.array(rows)


def pulled_back(
    setting: formulas.Setting, weights: NDArray, steps: NDArray, by_outputs: NDArray
) -> tuple[NDArray, float]:
    """Derivatives of a function of the outputs by the controls, (L, w, w+1), and by L̃ itself.

    Parameters
    ----------
    setting : Setting
        Its `start` holds the inputs, (w, K).
    weights, steps : ndarray, shapes (L, w, w+1) and (L,)
    by_outputs : ndarray, shape (d_out, K)
        Of the function, by QA_L.

    Notes
    -----
    L̃ enters by the leak, A_ℓ = (1 − ρL̃)A_{ℓ−1} + …; what it does to the controls of an optimum
    is another matter. Two sweeps, 4Lw²K flops.
    """
    A = formulas.roll_out(setting, weights, steps)
    end = setting.readout.T @ by_outputs
    D, G = formulas.costates(setting, A, weights, steps, end=end)
    rho = steps[:, None, None]
    return rho * (weights - G) / setting.leak, -float(np.sum(rho * D[1:] * A[:-1]))
