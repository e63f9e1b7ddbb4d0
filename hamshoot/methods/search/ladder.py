"""The ε ladder: smooth ReLUs of smaller and smaller ε, down to the problem's own activation."""

from __future__ import annotations

from collections.abc import Sequence

from hamshoot.problem.activations import epsilon_ladder
from hamshoot.problem.training_problem import TrainingProblem

#: Share of a time limit after which no further start begins.
STARTS_SHARE = 0.5
#: From a guess the ladder begins at this many times its last ε, to stay in the guess's basin.
GUESS_LADDER = 10.0
#: Relative rise of J that counts as rounding when an answer is held against its guess.
ROUNDING = 1e-12


def epsilon_stages(
    problem: TrainingProblem, epsilon: tuple[float, float, float], first: float | None = None
) -> tuple[float, ...]:
    """ε of the stages, ending at the last; (0,) for an activation that no ladder leads to.

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
    if not problem.sigma.laddered:
        return (0.0,)
    if not problem.sigma.kinked:
        last = problem.sigma.epsilon
    return epsilon_ladder(max(given if first is None else first, last), last, factor)


def starts_notes(objectives: Sequence[float]) -> list[str]:
    """What a message says of several starts; nothing of one."""
    if len(objectives) < 2:
        return []
    low, high = min(objectives), max(objectives)
    return [f"best of {len(objectives)} starts, J from {low:.6g} to {high:.6g}"]
