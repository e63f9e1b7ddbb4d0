"""From an optimal path to the layers of a network that follows it.

A solution on any mesh, or a continuous path, is carried over to any number of layers with any
steps: layer after layer, the control is the path's own, corrected so that the network's step meets
the path at the next depth, at the prices of the problem (see `follow`). Networks are built this
way, and solvers use it as a warm start on another mesh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.network.layer_steps import adaptive_steps_of_path, irregular_steps, relative_changes
from hamshoot.network.path import SolvedPath
from hamshoot.support.checks import check_layers
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SCHEMES = ("equidistant", "irregular", "adaptive")
DEFAULT_LAYERS = 20
#: Steps closer than this are the same mesh.
SAME_STEPS = 1e-12
#: Relative changes that agree to this fraction make steps adaptive already.
SETTLED = 0.01


def equidistant_steps(layers: int) -> NDArray:
    """ρ_ℓ = 1/L."""
    return np.full(layers, 1.0 / layers)


def mesh_of(solution: SolvedPath, layers: int | None, steps: Any) -> NDArray:
    """Layer steps asked for, (L,)."""
    problem, own = solution.problem, solution.steps
    if steps is not None and not isinstance(steps, str):
        steps = given_steps(steps)
        if layers is not None and layers != len(steps):
            raise ValueError(f"steps: expected {layers} steps as layers says, got {len(steps)}")
        return steps
    if isinstance(steps, str) and steps not in SCHEMES:
        raise ValueError(f"steps: expected one of {', '.join(SCHEMES)} or an array, got {steps!r}")
    if layers is None:
        layers = _default_layers(solution)
    at_home = own is not None and len(own) == layers
    if steps is None and own is not None and at_home:
        return own
    check_layers(layers, problem.effective_depth)
    if steps is None or steps == "equidistant":
        return equidistant_steps(layers)
    if steps == "irregular":
        return irregular_steps(layers)
    if own is not None and at_home and solution.integrator == "euler" \
            and _adaptive_already(solution):
        return own
    p = np.union1d(solution.p, np.linspace(0, 1, 4 * layers + 1))
    fine = len(solution.p) > 4 * layers
    A = solution.representations if fine else states_at(solution, p)
    return adaptive_steps_of_path(solution.p if fine else p, A, layers, problem.effective_depth)


def _default_layers(solution: SolvedPath) -> int:
    """The solution's own L, or 20, or more where 20 equidistant layers could not hold the leak."""
    leak = solution.problem.effective_depth
    if solution.steps is not None and (solution.integrator == "euler"
                                       or solution.steps.max() * leak < 1):
        return len(solution.steps)
    return max(DEFAULT_LAYERS, int(2 * leak) + 1)


def _adaptive_already(solution: SolvedPath) -> bool:
    changes = relative_changes(solution.representations)
    return bool(np.ptp(changes) <= SETTLED * np.max(changes))


def follow(solution: SolvedPath, steps: NDArray) -> NDArray:
    """Weights (L, w, w+1) whose network follows the path; see `LeakyResNet.from_solution`."""
    problem = solution.problem
    nodes = np.concatenate([[0.0], np.cumsum(steps)])
    nodes[-1] = 1.0
    goals = states_at(solution, nodes[1:])
    weights = mean_control(solution, nodes)
    A = problem.initial_state
    for k, rho in enumerate(steps):
        S = ham.augmented(A, problem.sigma, problem.bias)
        miss = (goals[k] - (1 - rho * problem.effective_depth) * A) / rho - weights[k] @ S
        # Least squares of [miss; 0] on [Sᵀ; √μ I]: no normal equations, for λ may be tiny.
        mu = problem.weight_decay * problem.n_samples / (2 * problem.effective_depth * rho)
        left = np.concatenate([S.T, np.sqrt(mu) * np.eye(len(S))])
        right = np.concatenate([miss.T, np.zeros((len(S), problem.width))])
        weights[k] += np.linalg.lstsq(left, right, rcond=None)[0].T
        A = discrete.roll_out(problem, weights[k : k + 1], steps[k : k + 1], initial_state=A)[-1]
    return weights


def states_at(solution: SolvedPath, p: NDArray) -> NDArray:
    """Representations of the path at depths p (K,), as (K, w, N)."""
    if solution.steps is None:
        return solution.at(p).representations
    # Within a layer, the integrator's own step of a part of the layer: exact for its control,
    # stationary or not.
    k = np.clip(np.searchsorted(solution.p, p, side="left") - 1, 0, len(solution.steps) - 1)
    return np.array([
        discrete.roll_out(solution.problem, solution.weights[i : i + 1],
                          np.array([q - solution.p[i]]), solution.integrator,
                          solution.representations[i])[-1]
        for i, q in zip(k, p, strict=True)
    ])


def mean_control(solution: SolvedPath, nodes: NDArray) -> NDArray:
    """Mean of the path's control over each layer, (L, w, w+1)."""
    if solution.steps is None:
        # Three Gauss points a layer: as exact as the interpolation of the path itself.
        x, share = np.polynomial.legendre.leggauss(3)
        middle, half = (nodes[1:] + nodes[:-1]) / 2, np.diff(nodes) / 2
        weights = solution.at((middle[:, None] + half[:, None] * x).ravel()).weights
        weights = weights.reshape(len(half), 3, *weights.shape[1:])
        return np.einsum("q,lqij->lij", share / 2, weights)
    if len(solution.steps) == 1:
        return np.repeat(solution.weights, len(nodes) - 1, axis=0)
    from scipy.interpolate import PchipInterpolator

    # Layered controls are known by their means: interpolate the integral ∫₀ᵖ W, which keeps them.
    integral = np.cumsum(solution.steps[:, None, None] * solution.weights, axis=0)
    integral = np.concatenate([np.zeros((1, *integral.shape[1:])), integral])
    values = PchipInterpolator(solution.p, integral)(nodes)
    return np.diff(values, axis=0) / np.diff(nodes)[:, None, None]


def given_steps(steps: ArrayLike) -> NDArray:
    """Check steps given as numbers: positive, with sum 1."""
    try:
        values = np.asarray(steps, dtype=float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"steps: expected one of {', '.join(SCHEMES)} or a vector of numbers, got {steps!r}"
        )
    if not np.all(values > 0) or abs(values.sum() - 1) > 1e-9:
        raise ValueError(f"steps: expected numbers > 0 with sum 1, got {values.min():g} to "
                         f"{values.max():g} with sum {values.sum():g}")
    return values


def same_steps(steps: NDArray, own: NDArray | None) -> bool:
    """Whether two meshes are one."""
    return own is not None and len(steps) == len(own) and bool(
        np.max(np.abs(steps - own)) <= SAME_STEPS
    )
