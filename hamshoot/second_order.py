"""Second-order test of a layered network: the reduced Hessian, dense, from the reference formulas.

For a smooth activation the Hessian of J in the controls is differentiated from the gradient by the
complex step, exact to rounding. For ReLU at a network with entries 𝒦 on the kink, J is smooth on
the manifold A_𝒦 = 0: with the pattern of the other entries fixed and the multipliers m = d ⊙ v of
the entries on the kink, the Hessian of the Lagrangian on the null space of ∂A_𝒦/∂W decides.

Costs with n = L·w·(w+1) controls: n complex gradients, O(n L w²N) flops, three n² numbers, O(n³)
for the null space and the eigenvalues: 2 s at n = 1440 and N = 50, 14 s at n = 3640 and N = 142.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.clarke import clarke_residual
from hamshoot.discrete import costates, roll_out
from hamshoot.problem import TrainingProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: More controls than this are not decided by the dense test.
MAX_CONTROLS = 4000
#: Eigenvalues within this fraction of the largest count as zero.
EIGENVALUE_TOLERANCE = 1e-10
#: Rows of the constraints within this fraction of the largest of being dependent count as such.
RANK_TOLERANCE = 1e-12
#: A gradient above this is no stationary point, and its Hessian decides nothing.
STATIONARY = 1e-6
_STEP = 1e-30
_CHUNK_NUMBERS = 20_000_000


class SecondOrder(NamedTuple):
    """Verdict of the second-order test.

    Attributes
    ----------
    verdict : str
        A sentence that begins with "strict local minimum", "saddle" or "not decided".
    min_eigenvalue : float
        Smallest eigenvalue of the reduced Hessian; NaN when it was not computed.
    multipliers : tuple of float
        Smallest and largest d over the entries on the kink; NaN without any.
    """

    verdict: str
    min_eigenvalue: float
    multipliers: tuple[float, float]


def second_order(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, max_controls: int = MAX_CONTROLS
) -> SecondOrder:
    """Decide whether an Euler network with a soft loss is a strict local minimum of J.

    Parameters
    ----------
    problem : TrainingProblem
    weights : ndarray, shape (L, w, w+1)
    steps : ndarray, shape (L,)
    max_controls : int
        Larger problems are not decided.
    """
    nan = float("nan")
    if problem.hard_endpoint:
        return SecondOrder("not decided: the test is for the soft loss", nan, (nan, nan))
    if weights.size > max_controls:
        return SecondOrder(
            f"not decided: {weights.size} controls, the dense test takes {max_controls}",
            nan, (nan, nan),
        )
    A = roll_out(problem, weights, steps)
    clarke = clarke_residual(problem, A, weights, steps)
    d = clarke.slopes[clarke.on_kink]
    multipliers = (float(d.min()), float(d.max())) if d.size else (nan, nan)
    size = problem.weight_decay / problem.effective_depth * np.linalg.norm(
        np.sqrt(steps)[:, None, None] * weights)
    if clarke.residual > STATIONARY * max(size, 1e-12):
        return SecondOrder(
            f"not decided: not a stationary point (gradient {clarke.residual:.1e})", nan,
            multipliers,
        )
    hessian, constraints = lagrangian_hessian(problem, weights, steps, clarke.slopes,
                                              clarke.on_kink)
    eigenvalues = np.linalg.eigvalsh(_reduced(hessian, constraints))
    return SecondOrder(*_verdict(problem, eigenvalues, d), multipliers)


def lagrangian_hessian(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    slopes: NDArray,
    on_kink: NDArray,
) -> tuple[NDArray, NDArray]:
    """Hessian of the Lagrangian in the controls, and the Jacobian of the entries on the kink.

    Parameters
    ----------
    slopes, on_kink : ndarray, shape (L, w, N)
        From `clarke_residual`; `on_kink` all False gives the plain Hessian of J.

    Returns
    -------
    hessian : ndarray, shape (n, n)
        Symmetrised.
    constraints : ndarray, shape (k, n)
        ∂A_𝒦/∂W.
    """
    n, (w, N) = weights.size, problem.initial_state.shape
    A = roll_out(problem, weights, steps)
    momenta, _ = costates(problem, A, weights, steps, slopes=slopes)
    force = steps[:, None, None] * (np.swapaxes(weights[:, :, :w], 1, 2) @ momenta[1:])
    m = np.where(on_kink, slopes * force, 0.0)
    chunk = max(1, _CHUNK_NUMBERS // (len(weights) * w * N * 2))
    hessian, constraints = np.empty((n, n)), np.empty((n, int(on_kink.sum())))
    for first in range(0, n, chunk):
        rows = np.arange(first, min(first + chunk, n))
        perturbed = np.repeat(weights.reshape(1, -1).astype(complex), len(rows), axis=0)
        perturbed[np.arange(len(rows)), rows] += 1j * _STEP
        gradient, kink = _lagrangian_gradient(
            problem, perturbed.reshape(-1, *weights.shape), steps, m, on_kink
        )
        hessian[rows] = gradient.imag.reshape(len(rows), n) / _STEP
        constraints[rows] = kink.imag / _STEP
    return 0.5 * (hessian + hessian.T), constraints.T


def _lagrangian_gradient(problem, weights, steps, m, on_kink) -> tuple[NDArray, NDArray]:
    """∂/∂W of J with A_𝒦 = 0 priced by m, batched over the leading axis; and A_𝒦.

    Entries on the kink contribute nothing to σ̂, and their price enters the costate.
    """
    w, lam, L_tilde = problem.width, problem.weight_decay, problem.effective_depth
    C, L = weights.shape[:2]
    A = np.broadcast_to(problem.initial_state, (C, *problem.initial_state.shape))
    features, nodes = [], []
    for k in range(L):
        value = problem.sigma(A)
        if problem.activation == "relu":
            value = np.where(on_kink[k], 0.0, value)
        if problem.bias:
            value = np.concatenate([value, np.ones((C, 1, value.shape[-1]))], axis=1)
        features.append(value)
        nodes.append(A)
        A = (1 - steps[k] * L_tilde) * A + steps[k] * weights[:, k] @ value
    error = problem.readout @ A - problem.targets
    B = -2 / (lam * problem.n_samples) * problem.readout.T @ error
    gradient = np.empty_like(weights)
    for k in range(L - 1, -1, -1):
        gradient[:, k] = lam * steps[k] * (
            weights[:, k] / L_tilde - B @ np.swapaxes(features[k], 1, 2)
        )
        slope = problem.sigma.slope(nodes[k])
        if problem.activation == "relu":
            slope = np.where(on_kink[k], 0.0, slope)
        pull = steps[k] * np.swapaxes(weights[:, k, :, :w], 1, 2) @ B
        B = slope * pull + (1 - steps[k] * L_tilde) * B + m[k]
    return gradient, np.stack(nodes, axis=1)[:, on_kink]


def _reduced(hessian: NDArray, constraints: NDArray) -> NDArray:
    """Hessian on the null space of the constraints."""
    if not len(constraints):
        return hessian
    from scipy.linalg import qr

    Q, R, _ = qr(constraints.T, pivoting=True, check_finite=False)
    sizes = np.abs(np.diag(R))
    Z = Q[:, int(np.sum(sizes > RANK_TOLERANCE * sizes[0])):]
    return Z.T @ hessian @ Z


def _verdict(problem: TrainingProblem, eigenvalues: NDArray, d: NDArray) -> tuple[str, float]:
    smallest, largest = float(eigenvalues[0]), float(np.abs(eigenvalues).max())
    number = f"smallest eigenvalue {smallest:.2e}"
    of = "ReLU network" if problem.activation == "relu" else "network"
    if smallest < -EIGENVALUE_TOLERANCE * largest:
        return f"saddle of the {of}: {number}", smallest
    if smallest <= EIGENVALUE_TOLERANCE * largest:
        return f"not decided: {number} is zero to rounding", smallest
    if d.size and (d.min() <= 1e-9 or d.max() >= 1 - 1e-9):
        return f"not decided: {number}, but a multiplier lies on the edge of [0, 1]", smallest
    held = f", {d.size} activations on the kink, d in [{d.min():.2g}, {d.max():.2g}]" \
        if d.size else ""
    return f"strict local minimum of the {of}: {number}{held}", smallest
