"""Quantities along a path: H and energies at its points, and the path between its nodes.

A path is anything with the attributes of `SolvedPath`; a `hamshoot.Solution` has them all, and
offers what is here as methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.problem.activations import Activation
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import blockwise, energies
from hamshoot.theory import hamiltonian as ham

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PathPoint:
    """A path at one depth or several.

    Attributes
    ----------
    p : ndarray, shape (K,) or ()
    representations, momenta : ndarray, shape (K, w, N) or (w, N)
    weights : ndarray, shape (K, w, w+1) or (w, w+1)
    """

    p: NDArray
    representations: NDArray
    momenta: NDArray
    weights: NDArray


class SolvedPath(Protocol):
    """What has to be known of a path; shapes as in `hamshoot.Solution`."""

    @property
    def problem(self) -> TrainingProblem:
        """The problem that it solves, or was meant to."""

    @property
    def activation(self) -> Activation:
        """σ the path obeys, which may be smoother than the problem's."""

    @property
    def p(self) -> NDArray:
        """Nodes, (M,)."""

    @property
    def representations(self) -> NDArray:
        """A at the nodes, (M, w, N)."""

    @property
    def momenta(self) -> NDArray:
        """B at the nodes, (M, w, N)."""

    @property
    def weights(self) -> NDArray:
        """Controls, (L, w, w+1) over layers, (M, w, w+1) at the nodes of a continuous path."""

    @property
    def steps(self) -> NDArray | None:
        """Layer steps ρ, (L,), None for a continuous path."""

    @property
    def integrator(self) -> str:
        """How the layers step, or "flow"."""

    @property
    def stored(self) -> bool:
        """Whether A and B are there, not computed when asked for."""

    @property
    def objective(self) -> float:
        """J."""

    def at(self, p: float | NDArray) -> PathPoint:
        """The path at other depths: `interpolate`."""


# -- at its points ---------------------------------------------------------------------------------


def path_hamiltonian(solution: SolvedPath) -> NDArray:
    """H at (A_{ℓ−1}, B_ℓ) over Euler layers, shape (L,); else at the nodes, shape (M,).

    The optimality system of the Euler network is symplectic Euler: only at these mixed points does
    its Hamiltonian converge at first order with a constant to leading order. σ is that of the path
    (`Solution.activation`): a smoothed path conserves the smoothed H, and no other. By blocks of
    samples where the states are not stored; with the activation's own slopes on the kink of ReLU.
    """
    if not solution.stored:
        assert solution.steps is not None  # of a path the states are stored
        return blockwise.evaluate(solution.problem, solution.weights, solution.steps,
                                  solution.integrator).hamiltonian
    A, B = _pairs(solution)
    return np.array([ham.hamiltonian(a, b, **_settings(solution))
                     for a, b in zip(A, B, strict=True)])


def energies_along(solution: SolvedPath, gamma0: float) -> energies.PathEnergies:
    """Energies at the points of `path_hamiltonian`, with the velocity the path really has."""
    A, B = _pairs(solution)
    p = solution.p[: len(A)]
    return energies.path_energies(p, A, B, **_settings(solution), gamma0=gamma0,
                                  velocities=_velocities(solution, A, B))


def stable_hamiltonians(solution: SolvedPath, gamma0: float) -> NDArray:
    """Sum of the stable kinetic and potential energy at the points of `path_hamiltonian`."""
    A, B = _pairs(solution)
    return np.array([
        energies.stable_hamiltonian(a, v, **_settings(solution), gamma0=gamma0)
        for a, v in zip(A, _velocities(solution, A, B), strict=True)])


def _velocities(solution: SolvedPath, A: NDArray, B: NDArray) -> NDArray:
    """∂_pA as the path has it: of Euler steps, of the controls of RK4 layers, or of the flow."""
    problem, settings = solution.problem, _settings(solution)
    if solution.integrator == "euler" and solution.steps is not None:
        return np.diff(solution.representations, axis=0) / solution.steps[:, None, None]
    if solution.steps is None:
        return np.array([ham.velocity(a, b, **settings) for a, b in zip(A, B, strict=True)])
    W = solution.weights[np.minimum(np.arange(len(A)), len(solution.weights) - 1)]
    features = [ham.augmented(a, solution.activation, problem.bias) for a in A]
    return np.array([w @ s for w, s in zip(W, features, strict=True)]) - \
        problem.effective_depth * A


# -- between its nodes -----------------------------------------------------------------------------


def interpolate(solution: SolvedPath, p: float | NDArray) -> PathPoint:
    """The path at depth p.

    Over Euler layers A is linear within a step, as the scheme itself has it, B linear between nodes
    and W constant over a layer. Over RK4 layers W is constant too, and A and B are cubic Hermite
    with the slopes that this W gives them. On a continuous path A and B are those of the
    Hamiltonian flow, integrated to 1e-12 from the nodes on either side, and W = L̃Bσ̂(A)ᵀ, with the
    σ of the path (`Solution.activation`): as exact between the nodes as at them.

    Raises
    ------
    ValueError
        If p lies outside [0, 1].
    """
    p = np.asarray(p, dtype=float)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p: expected depths in [0, 1], got {p.min():g} to {p.max():g}")
    flat = np.atleast_1d(p)
    nodes, A, B = solution.p, solution.representations, solution.momenta
    k = np.clip(np.searchsorted(nodes, flat, side="right") - 1, 0, len(nodes) - 2)
    t = (flat - nodes[k])[:, None, None] / np.diff(nodes)[k][:, None, None]
    if solution.integrator == "euler":
        at_A, at_B = (1 - t) * A[k] + t * A[k + 1], (1 - t) * B[k] + t * B[k + 1]
        W = solution.weights[k]
    elif solution.steps is not None:
        at_A, at_B = _hermite_path(solution, k, t)
        W = solution.weights[k]
    else:
        at_A, at_B = _flow_between(solution, k, t, flat)
        W = np.array([ham.control(a, b, **_settings(solution))
                      for a, b in zip(at_A, at_B, strict=True)])
        W = W.reshape(len(flat), *solution.problem.control_shape)
    if p.ndim == 0:
        return PathPoint(p, at_A[0], at_B[0], W[0])
    return PathPoint(p, at_A, at_B, W)


def _flow_between(
    solution: SolvedPath, k: NDArray, t: NDArray, p: NDArray
) -> tuple[NDArray, NDArray]:
    """A and B at depths p (K,) by the flow: forwards from node k, backwards from node k + 1.

    The two agree on a path that solves the flow; mixed by the fraction t of the interval they stay
    continuous on one that does not (a solver stopped early), and meet every node. Where the flow
    breaks down, the cubic. At most one interval is integrated for each depth and side.
    """
    problem, nodes = solution.problem, solution.p
    flow = HamiltonianFlow(problem.width, problem.n_samples, problem.effective_depth,
                           solution.activation, problem.bias)
    states = np.stack([solution.representations, solution.momenta], axis=1)
    order = np.argsort(p, kind="stable")  # the step of one segment is the first guess of the next
    sides = []
    for node in (k[order], k[order] + 1):
        ends, _ = flow(nodes[node], p[order], states[node].reshape(-1, flow.size))
        side = np.empty((len(p), *states.shape[1:]))
        side[order] = ends.reshape(side.shape)
        sides.append(side)
    left, right = sides
    t = t[:, None]
    mixed = (1 - t) * np.where(t == 1, 0.0, left) + t * np.where(t == 0, 0.0, right)
    for one, other in ((left, right), (right, left)):
        lost = ~np.isfinite(one).all((1, 2, 3))
        mixed[lost] = other[lost]
    lost = ~np.isfinite(mixed).all((1, 2, 3))
    if lost.any():
        mixed[lost] = np.stack(_hermite_path(solution, k[lost], t[lost, 0]), axis=1)
    return mixed[:, 0], mixed[:, 1]


def _hermite_path(solution: SolvedPath, k: NDArray, t: NDArray) -> tuple[NDArray, NDArray]:
    """A and B by the cubics with the slopes at the ends of intervals k, at fractions t."""
    h, A, B = np.diff(solution.p)[k][:, None, None], solution.representations, solution.momenta
    left, right = _end_slopes(solution)
    return (_hermite(t, h, A[k], A[k + 1], left[0][k], right[0][k]),
            _hermite(t, h, B[k], B[k + 1], left[1][k], right[1][k]))


def _end_slopes(solution: SolvedPath) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """∂_pA and ∂_pB at the left and the right end of every interval, each (M−1, w, N)."""
    problem, A, B = solution.problem, solution.representations, solution.momenta
    if solution.steps is None:
        flows = [ham.flow(a, b, **_settings(solution)) for a, b in zip(A, B, strict=True)]
        dA, dB = (np.array(part) for part in zip(*flows, strict=True))
        return (dA[:-1], dB[:-1]), (dA[1:], dB[1:])
    L_tilde, W = problem.effective_depth, solution.weights

    def slopes(a: NDArray, b: NDArray) -> tuple[NDArray, NDArray]:
        S = np.array([ham.augmented(x, problem.sigma, problem.bias) for x in a])
        pull = np.swapaxes(W[:, :, : problem.width], 1, 2) @ b
        return W @ S - L_tilde * a, L_tilde * b - problem.sigma.slope(a) * pull

    return slopes(A[:-1], B[:-1]), slopes(A[1:], B[1:])


def _hermite(
    t: NDArray, h: NDArray, left: NDArray, right: NDArray, left_slope: NDArray, right_slope: NDArray
) -> NDArray:
    """Cubic with given values and slopes at t = 0 and 1 of an interval of length h."""
    return ((1 + 2 * t) * (1 - t) ** 2 * left + t**2 * (3 - 2 * t) * right
            + h * t * (1 - t) * ((1 - t) * left_slope - t * right_slope))


def _settings(solution: SolvedPath) -> dict[str, Any]:
    problem = solution.problem
    return {"effective_depth": problem.effective_depth, "activation": solution.activation,
            "bias": problem.bias}


def _pairs(solution: SolvedPath) -> tuple[NDArray, NDArray]:
    if solution.integrator == "euler":
        return solution.representations[:-1], solution.momenta[1:]
    return solution.representations, solution.momenta
