"""The certificate's own expansion where lift or readout are learned: W, P and Q in one vector.

The theorem of `hamshoot.optimality.second_order_layers` holds for the joint problem word by word.
A_0 = P Xᵀ is linear in P, so that its entries are entries on the kink as all others; what is added
to the identity there is the weight decay of P and Q, and ⟨∂C/∂z, δQ δA_L⟩, of second order.

*What leaves J as it is.* Neurons that lift and readout told apart are alike when both are learned:
every permutation of them gives another minimum of the same J, which is no matter for a strict
local one. A neuron beside a dead one may share itself out to it (weights as cos θ and sin θ), so
that with dead neurons no minimum is strict, and the verdict says so (coupling 1). A linear network
may be turned, W → UWUᵀ, b → Ub, P → UP, Q → QUᵀ, with every orthogonal U that leaves a fixed map
as it is: there the Hessian is tested across these turns, on the rest of the directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamshoot.optimality import formulas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.optimality.formulas import Setting

_STEP = 1e-30
_CHUNK_NUMBERS = 20_000_000
#: Singular values of the turns' directions below this share of the largest count as 0.
SAME_TURN = 1e-8


def vector(setting: Setting, weights: NDArray, lift: NDArray | None, readout: NDArray) -> NDArray:
    """W, and P and Q where they are learned, flattened one after the other, (…, n)."""
    parts = [weights.reshape(*weights.shape[:-3], -1)]
    if setting.lift_decay > 0:
        assert lift is not None
        parts.append(lift.reshape(*lift.shape[:-2], -1))
    if setting.readout_decay > 0:
        parts.append(readout.reshape(*readout.shape[:-2], -1))
    return np.concatenate(parts, axis=-1)


def placed(setting: Setting, x: NDArray, shape: tuple[int, ...]) -> tuple[Setting, NDArray]:
    """The setting with the maps of vectors (…, n), and their controls (…, L, w, w+1)."""
    first = int(np.prod(shape))
    W, at = x[..., :first].reshape(*x.shape[:-1], *shape), first
    if setting.lift_decay > 0:
        assert setting.lift is not None
        assert setting.inputs is not None
        own = setting.lift.shape
        P = x[..., at : at + own[0] * own[1]].reshape(*x.shape[:-1], *own)
        at += own[0] * own[1]
        setting = setting._replace(lift=P, start=P @ setting.inputs)
    if setting.readout_decay > 0:
        own = setting.readout.shape
        setting = setting._replace(readout=x[..., at:].reshape(*x.shape[:-1], *own))
    return setting, W


def slopes(setting: Setting, steps: NDArray, G: NDArray, end: NDArray, start: NDArray) -> NDArray:
    """∂J of the vector, (…, n), from the scaled gradient G of the controls, A_L and B_0."""
    scale = (setting.decay / setting.leak * steps)[:, None, None]
    parts = [(scale * G).reshape(*G.shape[:-3], -1)]
    maps = [formulas.lift_slope(setting, start)] if setting.lift_decay > 0 else []
    maps += [formulas.readout_slope(setting, end)] if setting.readout_decay > 0 else []
    parts += [slope.reshape(*slope.shape[:-2], -1) for slope in maps]
    return np.concatenate(parts, axis=-1)


def complex_step_derivatives(
    setting: Setting, weights: NDArray, steps: NDArray, pattern: NDArray | None, entries: NDArray
) -> tuple[NDArray, NDArray]:
    """As `hamshoot.optimality.expansion.complex_step_derivatives`, in the vector (W, P, Q)."""
    x = vector(setting, weights, setting.lift, setting.readout).astype(complex)
    n, (w, N) = len(x), setting.start.shape
    chunk = max(1, _CHUNK_NUMBERS // (len(weights) * w * N * 2))
    hessian, rows = np.empty((n, n)), np.empty((n, int(entries.sum())))
    for first in range(0, n, chunk):
        some = np.arange(first, min(first + chunk, n))
        moved = np.repeat(x[None], len(some), axis=0)
        moved[np.arange(len(some)), some] += 1j * _STEP
        at, W = placed(setting, moved, weights.shape)
        A = formulas.roll_out(at, W, steps, pattern=pattern)
        B, G = formulas.costates(at, A, W, steps, slopes=pattern, pattern=pattern)
        hessian[some] = slopes(at, steps, G, A[:, -1], B[:, 0]).imag / _STEP
        rows[some] = A[:, :-1][:, entries].imag / _STEP
    return 0.5 * (hessian + hessian.T), rows.T


def turns(setting: Setting, weights: NDArray) -> NDArray:
    """Independent directions (k, n) along which the turns of a linear network move (W, P, Q).

    None of another activation. With Ω antisymmetric, ΩP = 0 where P is fixed and QΩ = 0 where Q
    is: δW = ΩW − WΩ without the bias column, δb = Ωb, δP = ΩP, δQ = −QΩ.
    """
    none = np.zeros((0, 0))
    if setting.activation != "linear" or setting.lift is None:
        return none
    w = len(setting.start)
    fixed = [M for M, mu in ((setting.lift, setting.lift_decay),
                             (setting.readout.T, setting.readout_decay)) if not mu > 0]
    basis = np.eye(w)
    if fixed:  # Ω acts on what is orthogonal to the columns of fixed maps
        U, sizes, _ = np.linalg.svd(np.concatenate(fixed, axis=1))
        basis = U[:, int(np.sum(sizes > SAME_TURN * sizes.max(initial=1e-300))):]
    rows = []
    for i in range(basis.shape[1]):
        for j in range(i):
            turn = np.outer(basis[:, i], basis[:, j])
            turn = turn - turn.T
            moved = turn @ weights
            moved[..., :w] -= weights[..., :w] @ turn
            rows.append(vector(setting, moved, turn @ setting.lift, -setting.readout @ turn))
    if not rows:
        return none
    _, sizes, V = np.linalg.svd(np.array(rows), full_matrices=False)
    return V[sizes > SAME_TURN * max(float(sizes[0]), 1e-300)]
