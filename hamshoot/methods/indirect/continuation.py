"""Paths of the Hamiltonian flow between solves: stages of continuation, guesses, sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.methods.common import starts
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution
from hamshoot.support.interpolation import interpolate
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

#: An activation slides along its kink when it stays within this many ε of it from node to node.
SLIDE_WIDTH = 3.0
#: Layers of the networks that show what a geodesic is the limit of.
MOST_LAYERS = 20_000


class Stage(NamedTuple):
    """The problem that one Newton solve is about."""

    effective_depth: float
    weight_decay: float
    epsilon: float
    """0 for a linear network and for the plain ReLU."""


class Path(NamedTuple):
    """Nodes (M,), and A and B there, (M, 2, w, N), with the stage they solve or come from."""

    t: NDArray
    y: NDArray
    stage: Stage


class Guess(NamedTuple):
    """What came as the initial guess."""

    path: Path
    weights: NDArray | None = None
    """Of a network, over equal layers."""
    objective: float | None = None
    """Of a network that is a minimum of the problem itself, with equal layers."""
    minimum: bool = False
    """Whether a network came as the solution of some problem, near which Newton's method works."""


# -- guesses and stages ----------------------------------------------------------------------------


def read_guess(guess: Any, problem: TrainingProblem) -> Guess:
    """Nodes, states, stage and weights of whatever came as the initial guess."""
    own = Stage(problem.effective_depth, problem.weight_decay, problem.sigma.epsilon)
    shape = (problem.width, problem.n_samples)
    weights, objective, solved = None, None, False
    if isinstance(guess, (tuple, list)) and len(guess) == 2:
        A, B = (np.asarray(v, dtype=float) for v in guess)
        if A.shape != B.shape or A.ndim != 3 or A.shape[1:] != shape or len(A) < 2:
            raise ValueError(
                f"initial_guess: expected A and B of shape (nodes, {shape[0]}, {shape[1]}), "
                f"got {A.shape} and {B.shape}"
            )
        t = np.linspace(0, 1, len(A))
    elif isinstance(guess, Solution) and guess.representations.shape[1:] == shape:
        A, B, t = guess.representations, guess.momenta, np.array(guess.p)
        theirs = guess.problem
        epsilon = theirs.sigma.epsilon if guess.epsilon is None else guess.epsilon
        minimum = guess.success and own[:2] == (theirs.effective_depth, theirs.weight_decay)
        own = Stage(theirs.effective_depth, theirs.weight_decay, float(epsilon or 0.0))
        if guess.integrator == "euler" and guess.steps is not None \
                and theirs.control_shape == problem.control_shape:
            equal = np.allclose(guess.steps, 1 / len(guess.steps), rtol=1e-9, atol=0)
            weights = _equal_layers(guess.weights, guess.steps)
            objective = guess.objective if minimum and equal else None
            solved = guess.success
    else:
        weights = np.asarray(getattr(guess, "weights", guess), dtype=float)
        count = len(weights) if weights.ndim == 3 else 1
        steps = getattr(guess, "steps", None)
        steps = equidistant_steps(count) if steps is None else np.asarray(steps)
        weights = starts.weights_of(guess, problem, steps)
        terminal = np.zeros(shape) if problem.hard_endpoint else None
        A = discrete.roll_out(problem, weights, steps)
        B, _ = discrete.costates(problem, A, weights, steps, terminal=terminal)
        t = np.concatenate([[0.0], np.cumsum(steps)])
        t[-1] = 1.0
        weights = _equal_layers(weights, steps)
    if not (np.all(np.isfinite(A)) and np.all(np.isfinite(B))):
        raise ValueError("initial_guess: expected finite values, got NaN or infinity")
    return Guess(Path(t, np.stack([A, B], axis=1), own), weights, objective, solved)


def _equal_layers(weights: NDArray, steps: NDArray) -> NDArray:
    """Weights over as many equal layers, linearly between the middles of the layers."""
    return interpolate(np.cumsum(steps) - 0.5 * steps, weights, midpoints(len(steps))) \
        if len(steps) > 1 else weights


def stage_name(stage: Stage) -> str:
    """The numbers of a stage, for records and messages."""
    smooth = f", ε = {stage.epsilon:.3g}" if stage.epsilon else ""
    return f"L̃ = {stage.effective_depth:.4g}, λ = {stage.weight_decay:.3g}{smooth}"


def between(start: Stage, target: Stage, s: float) -> Stage:
    """The stage at fraction s, geometrically in each parameter."""
    return Stage(*(
        a * (b / a) ** s if a > 0 and b > 0 else b for a, b in zip(start, target, strict=True)
    ))


def distance(start: Stage, target: Stage, epsilon_factor: float) -> float:
    """Number of first steps to take: ε by its factor, L̃ by 1.3, λ by 3."""
    units = (np.log(1.3), np.log(3.0), -np.log(epsilon_factor))
    return max(1.0, *(
        abs(np.log(b / a)) / unit if a > 0 and b > 0 else 0.0
        for a, b, unit in zip(start, target, units, strict=True)
    ))


def predict(before: Path | None, here: Path, stage: Stage) -> Path:
    """Secant through the last two solutions, in the parameter that moved; linear in ε."""
    if before is None or len(before.t) != len(here.t) or not np.array_equal(before.t, here.t):
        return here
    for i in (2, 0, 1):
        change = here.stage[i] - before.stage[i]
        if change:
            ratio = (stage[i] - here.stage[i]) / change
            return here._replace(y=here.y + ratio * (here.y - before.y))
    return here


def extrapolated(coarse: Path | None, fine: Path) -> Path:
    """The path of a network of 2L layers with its error of first order taken off, by that of L.

    Both have A + c/L + O(1/L²), if the one was carried on from the other. Without a coarse one of
    half the layers the path itself.
    """
    if coarse is None or 2 * (len(coarse.t) - 1) != len(fine.t) - 1:
        return fine
    change = interpolate(coarse.t, fine.y[::2] - coarse.y, fine.t)
    return fine._replace(y=fine.y + change)


def midpoints(layers: int) -> NDArray:
    """Middles of equal layers."""
    return (np.arange(layers) + 0.5) / layers


def states_at(flow: HamiltonianFlow, t: NDArray, y: NDArray, at: NDArray) -> NDArray:
    """A and B at the depths `at`, by the flow from the node before; on the chord if it fails."""
    k = np.clip(np.searchsorted(t, at, side="right") - 1, 0, len(t) - 1)
    ends, _ = flow(t[k], at, y[k].reshape(len(at), -1))
    ends = ends.reshape(len(at), *y.shape[1:])
    return np.where(np.isfinite(ends), ends, interpolate(t, y, at))


# -- branches --------------------------------------------------------------------------------------


def tends_to(
    objective: float, layers: int, built: Callable[[int], float], most: int
) -> dict[str, Any]:
    """Whether the objectives of Euler networks built from a geodesic tend to its own.

    They do so at first order, J + c/L, once the layers are fine enough for the growth of the path;
    until then the networks are refined, up to `most` layers and MOST_LAYERS.

    Parameters
    ----------
    objective : float
        J of the geodesic.
    layers : int
        To begin with.
    built : callable
        ``built(layers)`` is J of the network of so many layers.
    most : int
    """
    coarse = built(layers)
    while True:
        fine = built(2 * layers)
        limit = 2 * fine - coarse
        # Either the limit is seen, or the growth of the path drowns it and the network is there.
        consistent = bool(abs(limit - objective) <= 0.5 * abs(coarse - objective)
                          or abs(fine - objective) <= 1e-3 * abs(objective))
        if consistent or 4 * layers > min(most, MOST_LAYERS):
            return {"objective": objective, "layers": layers, "euler": coarse,
                    "euler_refined": fine, "euler_limit": limit, "consistent": consistent}
        layers, coarse = 2 * layers, fine


def same_branch(
    objective: float, weights: NDArray, start: float, layers: int, built: float, changed: float
) -> dict[str, Any]:
    """Whether an optimal Euler network lies on the branch of a geodesic found from it.

    At a stationary point the minimum of J_L and the network built from the geodesic agree to first
    order: both have J + c/L. A coarse network may sit on a spurious branch instead, with a jump in
    its last layer (|W| ∝ L) and no geodesic behind it, and its objective is another.

    Parameters
    ----------
    objective, start : float
        J of the geodesic, and J_L of the network.
    weights : ndarray, shape (L, w, w+1)
        Of the network.
    layers, built
        A finer network built from the geodesic, and its J, which give c.
    changed : float
        What smoothing changed in J_L.
    """
    expected = objective + (built - objective) * layers / len(weights)
    # The second order is not known: a twentieth is allowed beyond the first.
    slack = 0.05 * abs(objective) + changed
    low, high = min(objective, expected) - slack, max(objective, expected) + slack
    norms = np.linalg.norm(weights, axis=(1, 2))
    return {
        "layers": len(weights), "objective": start, "expected": expected, "geodesic": objective,
        "last_layer": float(norms[-1] / max(np.median(norms), 1e-300)),
        "same_branch": bool(low <= start <= high),
    }


def branch_sentences(extra: dict[str, Any]) -> Iterator[str]:
    """What the two checks found, where they found something."""
    branch, start = extra["branch"], extra.get("start")
    if extra.get("guess_refined"):
        yield ("Newton's method failed from the network given; this geodesic was reached by "
               "descent from it on finer networks.")
    if not branch["consistent"]:
        yield (f"Euler networks built from this geodesic do not tend to it: J = "
               f"{branch['euler']:.6g} with {branch['layers']} layers and "
               f"{branch['euler_refined']:.6g} with {2 * branch['layers']}, the geodesic has "
               f"{branch['objective']:.6g}.")
    if start is not None and not start["same_branch"]:
        yield (f"The Euler network it came from does not agree with it within 5 %, and may lie "
               f"on another branch or on one that only coarse networks have: with "
               f"{start['layers']} layers its J is {start['objective']:.6g}, about "
               f"{start['expected']:.6g} is expected beside this geodesic "
               f"({start['geodesic']:.6g}), and its last ‖W‖ is {start['last_layer']:.3g} times "
               "the median.")


# -- ladder ----------------------------------------------------------------------------------------


def limit_of(epsilons: list[float], values: list[float]) -> tuple[float, float]:
    """The parabola through three (ε, value) at ε = 0; error, its curvature's part."""
    (e0, e1, e2), (v0, v1, v2) = epsilons, values
    coarse = v1 + (v1 - v0) * e1 / (e0 - e1)
    fine = v2 + (v2 - v1) * e2 / (e1 - e2)
    limit = fine + (fine - coarse) * e2 / (e0 - e2)
    return float(limit), float(abs(limit - fine))


def limits(
    solved: list[tuple[Stage, float, float]], stage: Stage
) -> dict[str, tuple[float, float]]:
    """Limits as ε → 0 of the objective and the Hamiltonian at a stage, each with its error.

    From the last three ε that were solved; empty where there are fewer.
    """
    ladder = [s for s in solved if s[0][:2] == stage[:2]]
    if len(ladder) < 3:
        return {}
    stages, objectives, hamiltonians = zip(*ladder[-3:], strict=True)
    epsilons = [s.epsilon for s in stages]
    return {"objective": limit_of(epsilons, list(objectives)),
            "hamiltonian": limit_of(epsilons, list(hamiltonians))}


def objectives_agree(solved: list, limits: tuple[float, float] | None) -> bool:
    """Whether the plain ReLU geodesic is the limit of the ladder."""
    exact, smooth = solved[-1][1], solved[-2][1]
    slack = 1e-2 * abs(smooth) if limits is None else \
        max(3 * abs(limits[0] - smooth), 10 * limits[1]) + 1e-9
    return abs(exact - (smooth if limits is None else limits[0])) <= slack


# -- formulas along a path -------------------------------------------------------------------------


def controls(flow: HamiltonianFlow, y: NDArray) -> NDArray:
    """W = L̃Bσ̂(A)ᵀ at every node, (M, w, w + 1); `hamiltonian.control`, all nodes at once."""
    return flow.effective_depth * (y[:, 1] @ np.swapaxes(_features(flow, y), 1, 2))


def hamiltonians(flow: HamiltonianFlow, y: NDArray) -> NDArray:
    """H at every node, (M,); `hamiltonian.hamiltonian`, all nodes at once."""
    M = y[:, 1] @ np.swapaxes(_features(flow, y), 1, 2)
    return flow.effective_depth * (0.5 * np.sum(M * M, (1, 2)) - np.sum(y[:, 0] * y[:, 1], (1, 2)))


def _features(flow: HamiltonianFlow, y: NDArray) -> NDArray:
    """σ̂(A), (M, w + 1, N)."""
    s = flow.activation(y[:, 0])
    return np.concatenate([s, np.ones_like(s[:, :1])], axis=1) if flow.bias else s


def sliding(A: NDArray, epsilon: float) -> int:
    """Activations within SLIDE_WIDTH·ε of their kink at three nodes in a row."""
    near = np.abs(A[1:]) < SLIDE_WIDTH * epsilon  # A_0 is given, wherever it lies
    return int((near[:-2] & near[1:-1] & near[2:]).any(axis=0).sum())
