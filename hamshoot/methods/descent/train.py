"""Gradient descent on the controls of a layered network, full batch: the usual training.

It is the baseline that optimal control is measured against, so it gets the same network, the same
start and a fair chance: the paper's recipe (Adam, then plain gradient descent with a smaller rate)
with the learning rate and its schedule chosen from a grid.

*The grid.* Every rate runs a pilot with every schedule, a fifth of the epochs (5000 at most) with
the whole schedule compressed into it, because a rate must be judged by where its decay ends and not
by its first noisy epochs. Pilots only rank the rates of one schedule and never one schedule against
another: how soon a schedule arrives says little about where it ends, a cosine, say, arrives only at
its end. The two best rates of each schedule (`finalists`) then run in full from the start, as a
short run slightly favours large rates, and the lowest end wins. A constant rate and one that decays
at last are the same run up to the decay, which leaves the constant run there and costs a fifth of
one. Runs whose numbers become non-finite are out. Everything tried is listed in
`Solution.extra["grid"]`.

*The descent after Adam.* Its rate is set by curvature, since a rate of gradient descent, unlike one
of Adam, has units: with κ the largest curvature where Adam ended, gradient descent with momentum β
is stable below 2(1 + β)/κ. Trials from (1 + β)/κ downwards, a third each time, pick the rate; its
schedule is Adam's. Both stages return the best network they saw, by the problem's own objective,
which can only help the baseline.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import blas_threads
from hamshoot.methods.common.starts import STARTS, start_seeds, starting_weights, weights_of
from hamshoot.methods.common.watch import Watch
from hamshoot.methods.descent.epochs import Descent
from hamshoot.methods.descent.grid import Training
from hamshoot.methods.descent.optimizers import SGD, Adam
from hamshoot.network.layer_steps import steps_of
from hamshoot.problem.maps import check_fixed
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.mistakes import check_problem, described
from hamshoot.solution.solution import Callback, Solution
from hamshoot.support.checks import check_choice, check_count, check_layers, check_positive

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from hamshoot.support.names import StartName

STEPS = ("equidistant", "irregular", "adaptive")


def train(
    problem: TrainingProblem,
    layers: int = 20,
    steps: str | ArrayLike = "equidistant",
    optimizer: Adam | SGD | None = None,
    seed: int = 0,
    start: StartName = "path",
    starts: int = 1,
    noise: float | None = None,
    initial_guess: Any = None,
    callback: Callback | None = None,
    time_limit: float | None = None,
) -> Solution:
    """Train an L-layer network by full-batch gradient descent on J.

    Where the problem learns its lift or readout they are trained along, at the same rate and with
    their weight decay.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss.
    layers : int
        L > L̃.
    steps : {"equidistant", "irregular", "adaptive"} or array_like, shape (L,)
        Layer steps ρ. Adaptive ones begin equidistant (or as the guess has them), move towards
        equal relative change every 10 epochs and are held for the last fifth of the first stage.
    optimizer : Adam or SGD, optional
        Default ``Adam()``.
    seed : int
    start : {"path", "identity", "random"}
        As for the solvers, see `hamshoot.methods.common.starts`.
    starts : int
        Best of so many. Rate and schedule are chosen on the first and kept for the others.
    noise : float, optional
        Of the start.
    initial_guess : Solution, LeakyResNet or array_like, optional
        In place of the starts. The answer's objective is at or below the guess's on the mesh.
    callback : callable, optional
        Receives a `Record` every 50 epochs or sooner; returning True stops the training.
    time_limit : float, optional
        Seconds.

    Returns
    -------
    Solution
        The best network seen in the best full run, with status TRAINED when all its epochs ran;
        DIVERGED when the numbers of every run became non-finite, STALLED when none went below the
        start; INTERRUPTED and TIME_LIMIT keep the best network so far. `nit` counts the epochs of
        the run returned, `seconds` its time from the start on (of all runs at its rate and
        schedule, if there are several starts). In `extra`: "rate", "schedule" and "sgd_rate" used,
        "grid" (a row a rate and schedule: objectives of its pilot and its full run, None where it
        has none or diverged), "grid_seconds" (all of it, pilots and runners-up too; only if a grid
        was tried), "start_objectives".

    Raises
    ------
    ValueError
        For a hard endpoint, an option out of range, or a guess that does not fit.

    Notes
    -----
    An epoch costs 6Lw²N flops, and a few passes over the Lw(w+1) controls. With the default grid, 6
    rates and 3 schedules, a training costs 7 to 9 full runs: of the pilots, a fifth long, a rate
    needs 1 (constant), 0.2 (decay) and 1 (cosine), together 2.6 times Adam's epochs; the finalists
    4.4 times where constant and decay agree on their two rates, else up to 6, and each has its own
    descent afterwards. One schedule alone costs about 3.5, a given rate and schedule one; where
    time is limited, give them, since the pilots count too.
    """
    check_problem("train", problem)
    optimizer = checked_optimizer(optimizer)
    if problem.hard_endpoint:
        raise ValueError("problem: gradient descent needs a loss, got a hard endpoint")
    problem.sigma.check_compiled("gradient descent")
    check_count("seed", seed, 0)
    check_count("starts", starts, 1)
    check_choice("start", start, STARTS)
    if time_limit is not None:
        check_positive("time_limit", time_limit)
    if isinstance(steps, str):
        check_layers(layers, problem.effective_depth)
    adaptive = isinstance(steps, str) and steps == "adaptive"
    check_steps(problem, adaptive)
    mesh = steps_of(steps, layers, problem.effective_depth, names=STEPS)
    guess = None
    if initial_guess is None:
        first: Iterable[NDArray] = (starting_weights(problem, mesh, start, one, noise)
                                    for one in start_seeds(seed, starts))
    else:
        if adaptive and np.shape(getattr(initial_guess, "steps", ())) == mesh.shape:
            mesh = steps_of(initial_guess.steps, layers, problem.effective_depth)
        starts, guess = 1, weights_of(initial_guess, problem, mesh)
        first = [guess]
    watch = Watch(callback, time_limit)
    descent = Descent(problem, mesh, adaptive, guess, watch)
    with blas_threads(problem):
        return Training(problem, optimizer, descent, watch, seed).run(iter(first), starts)


def check_steps(problem: TrainingProblem, adaptive: bool) -> None:
    """Raise ValueError where steps that adapt meet learned maps."""
    if adaptive:
        check_fixed(problem, "steps: adaptive ones are", "train on equidistant or given steps")


def checked_optimizer(optimizer: Adam | SGD | None) -> Adam | SGD:
    """The recipe given, or Adam's default.

    Raises
    ------
    ValueError
        For anything else, as the name of one.
    """
    if optimizer is None:
        return Adam()
    if not isinstance(optimizer, (Adam, SGD)):
        raise ValueError(
            f"optimizer: expected Adam(...) or SGD(...), got {described(optimizer)}")
    return optimizer
