"""What the direct methods share around a walk down the ε ladder: starts in turn, stages, notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from hamshoot.methods.common.starts import start_seeds
from hamshoot.problem.activations import epsilon_ladder
from hamshoot.problem.training_problem import TrainingProblem

#: Share of a time limit after which no further start begins.
STARTS_SHARE = 0.5
#: Relative rise of J that counts as rounding when an answer is held against its guess.
ROUNDING = 1e-12


def epsilon_stages(
    problem: TrainingProblem, epsilon: tuple[float, float, float], first: float | None = None
) -> tuple[float, ...]:
    """ε of the stages, ending at the last; (0,) for a linear network.

    Parameters
    ----------
    problem : TrainingProblem
        A smooth ReLU ends the ladder at its own ε.
    epsilon : tuple of float
        First and last ε, and the factor between stages.
    first : float, optional
        In place of the first of them.
    """
    given, last, factor = epsilon
    if problem.activation == "linear":
        return (0.0,)
    if problem.activation == "smooth_relu":
        last = problem.sigma.epsilon
    return epsilon_ladder(max(given if first is None else first, last), last, factor)


def start_queue(
    start: str, seed: int, count: int, found: Callable[[], bool]
) -> Iterator[tuple[str, int]]:
    """Starts and seeds in turn: those asked for, then two others while `found` says no."""
    for one in start_seeds(seed, count):
        yield start, one
    other = "identity" if start == "path" else "path"
    for one in (seed, seed + 1000):
        if not found():
            yield other, one


def starts_notes(objectives: Sequence[float]) -> list[str]:
    """What a message says of several starts; nothing of one."""
    if len(objectives) < 2:
        return []
    low, high = min(objectives), max(objectives)
    return [f"best of {len(objectives)} starts, J from {low:.6g} to {high:.6g}"]
