"""Where solvers and gradient descent begin: identity, path fit, random, or given controls.

A Gaussian start with entries of variance 1/w, rolled out at a large L̃, sends every solver to the
trivial solution A_1 ≈ 0 (the leak e^{−L̃} outweighs the weights). Two starts do not:

* ``identity``: W_ℓ = L̃(I + noise), which balances the leak, ∂_pA ≈ 0 for positive entries;
* ``path``: choose a path of representations from PXᵀ to QᵀYᵀ (a straight line plus noise), then
  roll out, fitting each W_ℓ by ridge regression of the step wanted on the features had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.network.follow_path import equidistant_steps, follow, same_steps
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Solution, Status
from hamshoot.support.checks import brief, check_real, is_number
from hamshoot.support.interpolation import interpolate
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray

STARTS = ("identity", "path", "random")


def starting_weights(
    problem: TrainingProblem,
    steps: NDArray,
    start: str = "identity",
    seed: int = 0,
    noise: float | None = None,
) -> NDArray:
    """Controls (L, w, w+1) of a named start; stacked with the problem's maps where it learns them.

    Parameters
    ----------
    problem : TrainingProblem
    steps : ndarray, shape (L,)
        Layer steps ρ.
    start : {"identity", "path", "random"}
        ``random`` has entries N(0, 1/w), kept for experiments: it collapses at large L̃.
    seed : int
    noise : float, optional
        Standard deviation of the noise, relative to L̃/√w (identity, default 0.3) or to the spread
        of the path (path, default 0.1).

    Raises
    ------
    ValueError
        For an unknown start or a negative noise.
    """
    if start not in STARTS:
        raise ValueError(f"start: expected one of {', '.join(STARTS)}, got {start!r}")
    check_noise(noise)
    rng = np.random.default_rng([seed, 11])
    if start == "identity":
        weights = _identity(problem, len(steps), rng, 0.3 if noise is None else noise)
    elif start == "path":
        weights = _path_fit(problem, steps, rng, 0.1 if noise is None else noise)
    else:
        weights = np.zeros((len(steps), *problem.control_shape))
        shape = (len(steps), problem.width, problem.width)
        weights[:, :, : problem.width] = rng.standard_normal(shape) / np.sqrt(problem.width)
    return learned.stacked(problem, weights)


def weights_of(guess: Any, problem: TrainingProblem, steps: NDArray) -> NDArray:
    """Controls (L, w, w+1) on the mesh `steps` from a Solution, a network or an array.

    Stacked with the guess's own maps, where the problem learns them and they fit.

    Parameters
    ----------
    guess : Solution, LeakyResNet or array_like
        Anything with `weights` (and `steps`), or weights of shape (L', w, w+1). On the same mesh
        they are taken as they are; on another, the network follows the path that they trace out on
        this problem's samples (`hamshoot.network.follow_path.follow`).

    Raises
    ------
    ValueError
        If the weights do not have the problem's width, or are not finite.
    """
    weights = np.asarray(getattr(guess, "weights", guess))
    check_real("initial_guess", weights)
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 3 or weights.shape[1:] != problem.control_shape:
        w, columns = problem.control_shape
        raise ValueError(
            f"initial_guess: expected weights of shape (layers, {w}, {columns}), "
            f"got {weights.shape}"
        )
    if not np.all(np.isfinite(weights)):
        raise ValueError("initial_guess: expected finite weights, got NaN or infinity")
    problem = with_maps_of(guess, problem)
    return learned.stacked(problem, _on_mesh(guess, weights, problem, steps))


def with_maps_of(guess: Any, problem: TrainingProblem) -> TrainingProblem:
    """The problem with those learned maps that a Solution or a network has, where they fit."""
    held = guess.problem if isinstance(guess, Solution) else guess
    maps = []
    for name, decay in (("lift", problem.lift_decay), ("readout", problem.readout_decay)):
        own, there = getattr(problem, name), getattr(held, name, None)
        fits = decay is not None and there is not None and np.shape(there) == own.shape
        maps.append(np.asarray(there, dtype=float) if fits else own)
    return problem.with_maps(*maps) if problem.learns else problem


def _on_mesh(guess: Any, weights: NDArray, problem: TrainingProblem, steps: NDArray) -> NDArray:
    """The controls of a guess on the mesh."""
    if isinstance(guess, Solution) and guess.steps is None:
        if guess.representations.shape[1:] == problem.initial_state.shape:
            return follow(guess, steps)
        return interpolate(guess.p, weights, _midpoints(steps))
    old = getattr(guess, "steps", None)
    old = equidistant_steps(len(weights)) if old is None else np.asarray(old)
    integrator = getattr(guess, "integrator", "euler")
    if same_steps(steps, old) and integrator == "euler":
        return np.array(weights)
    return follow(_path_of(problem, weights, old, integrator), steps)


def _path_of(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, integrator: str
) -> Solution:
    """The path that given controls trace out; no claim is made of it."""
    return solution_from_weights(
        problem, weights, steps, integrator=integrator, status=Status.MAX_ITER, success=False,
        method="given", terminal=np.zeros_like(problem.initial_state) if problem.hard_endpoint
        else None,
    )


def check_noise(noise: Any) -> None:
    """Raise ValueError unless `noise` is None or a finite number ≥ 0."""
    if noise is not None and not (is_number(noise) and 0 <= noise < np.inf):
        raise ValueError(f"noise: expected a number >= 0, got {brief(noise)}")


def start_seeds(seed: int, starts: int) -> Sequence[int]:
    """Seeds of a multi-start: the first start is the one a single run would use.

    They are not written out: there may be more of them than memory holds.
    """
    return range(seed, seed + 1000 * starts, 1000)


def _identity(
    problem: TrainingProblem, layers: int, rng: np.random.Generator, noise: float
) -> NDArray:
    w, L_tilde = problem.width, problem.effective_depth
    weights = np.zeros((layers, *problem.control_shape))
    # One matrix common to all layers (a smooth path) and a smaller one of each layer.
    common = 2 * noise * rng.standard_normal((w, w)) / np.sqrt(w)
    own = noise * rng.standard_normal((layers, w, w)) / np.sqrt(w)
    weights[:, :, :w] = L_tilde * (np.eye(w) + common + own)
    return weights


def _path_fit(
    problem: TrainingProblem, steps: NDArray, rng: np.random.Generator, noise: float
) -> NDArray:
    """Ridge fits along a chosen path; cost O(L w²N)."""
    start = problem.initial_state
    end = problem.readout.T @ problem.targets if problem.endpoint is None else problem.endpoint
    spread = float(np.sqrt(np.mean(start**2) + np.mean(end**2)))
    nodes = np.concatenate([[0.0], np.cumsum(steps)])
    # Smooth noise, zero at both ends: it lifts neurons that the straight line leaves at zero.
    bump = noise * spread * rng.standard_normal(start.shape)
    ridge = problem.weight_decay / problem.effective_depth
    weights = np.empty((len(steps), *problem.control_shape))
    A = start
    for k, rho in enumerate(steps):
        p = nodes[k + 1]
        goal = (1 - p) * start + p * end + 4 * p * (1 - p) * bump
        S = ham.augmented(A, problem.sigma, problem.bias)
        wanted = (goal - (1 - rho * problem.effective_depth) * A) / rho
        gram = S @ S.T + ridge * problem.n_samples * np.eye(len(S))
        weights[k] = np.linalg.solve(gram, S @ wanted.T).T
        A = discrete.roll_out(problem, weights[k : k + 1], steps[k : k + 1], initial_state=A)[-1]
    return weights


def _midpoints(steps: NDArray) -> NDArray:
    return np.cumsum(steps) - 0.5 * np.asarray(steps)
