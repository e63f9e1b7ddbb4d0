"""The iteration that both Newton methods on the controls share: a quadratic model, damped.

At every iterate a model of J is built. Its minimiser is looked for with a shift on ‖δW‖² that grows
until a step along it lowers J by a twentieth of what the model promises, and follows the ratio of
actual to promised decrease: near a minimum it becomes 0, and convergence is quadratic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from hamshoot.methods.common.kept import Midway, Step
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Relative change of J that is rounding.
ROUNDING = 1e-14
#: Share of the promised decrease that a step has to reach, and the shortest step tried.
SUFFICIENT, SHORTEST = 0.05, 0.05
#: Shift at which the search for a step is given up.
LARGEST_SHIFT = 1e8
#: Gains (actual over promised decrease) above which the shift falls to a tenth, and stays; below
#: the second it grows fourfold.
GOOD, FAIR = 0.5, 0.1


class Minimum(NamedTuple):
    """Controls (L, w, w+1), their objective and stationarity, and iterations spent."""

    weights: NDArray
    objective: float
    stationarity: float
    iterations: int


class Iterate(NamedTuple):
    """Controls, states, costates, ∂(J/λ)/∂W in units of ρ/L̃, and J."""

    weights: NDArray
    representations: NDArray
    momenta: NDArray
    gradient: NDArray
    objective: float


class Trial(NamedTuple):
    """A step worth taking: actual over promised decrease, controls, states and J after it."""

    gain: float
    weights: NDArray
    representations: NDArray
    objective: float


class Shifts(NamedTuple):
    """The first shift, the least one above 0 that is tried, and what counts as 0."""

    first: float
    least: float
    zero: float


class Model(Protocol):
    """The second-order model of J at an iterate."""

    def __init__(self, problem: TrainingProblem, steps: NDArray, at: Iterate):
        ...

    @staticmethod
    def shifts(problem: TrainingProblem) -> Shifts:
        """With which its steps are shifted."""
        ...

    def at_rest(self, stationarity: float, tol: float) -> bool | Trial:
        """Whether the iterate is a minimum to `tol`; at a saddle the step that leaves it."""
        ...

    def trial(self, shift: float) -> Trial | None:
        """The step with this shift; None if the model is not definite or J does not fall."""
        ...


def minimise(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    kind: type[Model],
    *,
    tol: float,
    max_iter: int,
    callback: Callable[[float, float], None] | None,
    midway: Midway,
) -> Minimum:
    """Iterate from `weights` until at rest, out of steps, or out of iterations.

    The other arguments are those of `hamshoot.methods.newton.minimise.minimise`, and where to keep
    an iterate.
    """
    shifts = kind.shifts(problem)
    begun = midway.resumed()
    if begun is None:
        W, first = np.array(weights, dtype=float), 0
        A = discrete.roll_out(problem, W, steps)
        J, shift = discrete.objective(problem, A[-1], W, steps)[0], shifts.first
    else:
        W, A = begun[0]["W"], begun[0]["A"]
        J, shift, first = (begun[1][name] for name in ("J", "shift", "iteration"))

    def here() -> Step:
        return {"W": W, "A": A}, {"J": float(J), "shift": float(shift), "iteration": iteration}

    for iteration in range(first, max_iter + 1):
        midway.offer(here)
        B, gradient = discrete.costates(problem, A, W, steps)
        stationarity = discrete.stationarity(W, gradient)
        if callback is not None:
            callback(J, stationarity)
        if iteration == max_iter:
            break
        model = kind(problem, steps, Iterate(W, A, B, gradient, J))
        rest = model.at_rest(stationarity, tol)
        if rest is True:
            break
        trial = None if rest is False else rest
        while trial is None and shift < LARGEST_SHIFT:
            trial = model.trial(shift)
            if trial is None:
                shift = max(10 * shift, shifts.least)
        if trial is None:
            break
        if J - trial.objective <= ROUNDING * abs(J):  # the gradient sees further than J
            after = discrete.costates(problem, trial.representations, trial.weights, steps)[1]
            if discrete.stationarity(trial.weights, after) >= 0.5 * stationarity:
                break
        W, A, J = trial.weights, trial.representations, trial.objective
        shift *= 0.1 if trial.gain > GOOD else (1.0 if trial.gain > FAIR else 4.0)
        shift = 0.0 if shift < shifts.zero else shift
    return Minimum(W, J, stationarity, iteration)



def longest_step(
    problem: TrainingProblem,
    steps: NDArray,
    objective: float,
    promised: Callable[[float], float],
    network_at: Callable[[float], tuple[NDArray, NDArray]],
) -> Trial | None:
    """The longest of the steps 1, 1/2, … that lowers J enough; None if none does.

    Parameters
    ----------
    objective : float
        J before the step.
    promised, network_at : callable
        Decrease that the model promises for a length; controls and states after it.
    """
    length = 1.0
    while length > SHORTEST:
        with np.errstate(all="ignore"):
            W, A = network_at(length)
            J = discrete.objective(problem, A[-1], W, steps)[0]
        wanted = promised(length)
        if np.isfinite(J) and objective - J >= SUFFICIENT * wanted - ROUNDING * abs(objective):
            return Trial((objective - J) / wanted if wanted > 0 else 1.0, W, A, J)
        length /= 2
    return None
