"""Newton's method on controls, lift and readout together, with their dense Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.methods.newton.learned_hessian import joint_second_derivatives
from hamshoot.methods.newton.levenberg_marquardt import (
    FAIR,
    GOOD,
    LARGEST_SHIFT,
    ROUNDING,
    SHORTEST,
    SUFFICIENT,
    Minimum,
)
from hamshoot.methods.newton.reduced_hessian import SADDLE, expansion
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Least shift above 0 that is tried, and what counts as 0; an eigenvalue above −FLAT times the
#: largest is none of a saddle (turns of a linear network leave J as it is).
LEAST, ZERO, FLAT = 1e-6, 1e-8, 1e-10


def minimise_learned(
    problem: TrainingProblem,
    stack: NDArray,
    steps: NDArray,
    *,
    tol: float,
    max_iter: int,
    callback: Callable[[float, float], None] | None,
) -> Minimum:
    """Minimise J over stacked controls, as `hamshoot.methods.newton.minimise.minimise` does.

    A step solves with the Hessian, shifted by a share of the weight decays until it is definite and
    J falls by a twentieth of what was promised; a saddle is left along its most negative curvature.
    An iteration costs the Hessian and n³/3 flops for n unknowns.
    """
    x = learned.flat(problem, *learned.parts_of(problem, stack))
    weights, shift = learned.flat_weights(problem, steps), 0.0
    J = _value(problem, x, steps)
    for iteration in range(max_iter + 1):
        here, W = _at(problem, x)
        A, B, G = learned.scaled_gradient(here, learned.stacked(here, W), steps)
        stationarity = learned.stationarity_of(here, learned.stacked(here, W), G)
        if callback is not None:
            callback(J, stationarity)
        if iteration == max_iter:
            break
        g = weights * learned.flat(problem, *learned.parts_of(problem, G))
        H, _ = joint_second_derivatives(here, expansion(here, A, B, W, steps), A)
        trial = None
        if stationarity <= max(SADDLE, tol) and _factor(H, weights, 0.0) is None:
            trial = _off_saddle(problem, steps, x, J, H, g)
        if stationarity <= tol and trial is None:
            break
        gain = 1.0
        while trial is None and shift < LARGEST_SHIFT:
            found = _step(problem, steps, x, J, H, g, weights, shift)
            if found is None:
                shift = max(10 * shift, LEAST)
            else:
                gain, trial = found[0], found[1:]
        if trial is None:
            break
        x_new, J_new = trial
        if J - J_new <= ROUNDING * abs(J) and \
                not _stationarity(problem, x_new, steps) < 0.5 * stationarity:
            break  # the gradient sees further than J
        x, J = x_new, J_new
        shift *= 0.1 if gain > GOOD else (1.0 if gain > FAIR else 4.0)
        shift = 0.0 if shift < ZERO else shift
    here, W = _at(problem, x)
    return Minimum(learned.stacked(here, W), J, stationarity, iteration)


def _at(problem: TrainingProblem, x: NDArray) -> tuple[TrainingProblem, NDArray]:
    W, P, Q = learned.unflat(problem, x)
    return problem.with_maps(P, Q), W


def _value(problem: TrainingProblem, x: NDArray, steps: NDArray) -> float:
    with np.errstate(all="ignore"):
        here, W = _at(problem, x)
        return learned.objective_of(here, learned.stacked(here, W), steps)


def _stationarity(problem: TrainingProblem, x: NDArray, steps: NDArray) -> float:
    here, W = _at(problem, x)
    stack = learned.stacked(here, W)
    return learned.stationarity_of(here, stack, learned.scaled_gradient(here, stack, steps)[2])


def _factor(H: NDArray, weights: NDArray, shift: float) -> tuple[NDArray, bool] | None:
    from scipy.linalg import cho_factor

    shifted = H.copy()
    diagonal = np.arange(len(H))
    shifted[diagonal, diagonal] += shift * weights
    try:
        return cho_factor(shifted.T, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None


def _step(
    problem: TrainingProblem, steps: NDArray, x: NDArray, J: float, H: NDArray, g: NDArray,
    weights: NDArray, shift: float,
) -> tuple[float, NDArray, float] | None:
    """Gain, unknowns and J of the longest of the steps 1, 1/2, … that lowers J enough."""
    from scipy.linalg import cho_solve

    factor = _factor(H, weights, shift)
    if factor is None:
        return None
    step = -cho_solve(factor, g, check_finite=False)
    slope, curvature = float(g @ step), float(step @ (H @ step))
    length = 1.0
    while length > SHORTEST:
        value = _value(problem, x + length * step, steps)
        wanted = -problem.weight_decay * (length * slope + 0.5 * length**2 * curvature)
        if np.isfinite(value) and J - value >= SUFFICIENT * wanted - ROUNDING * abs(J):
            return (J - value) / wanted if wanted > 0 else 1.0, x + length * step, value
        length /= 2
    return None


def _off_saddle(
    problem: TrainingProblem, steps: NDArray, x: NDArray, J: float, H: NDArray, g: NDArray
) -> tuple[NDArray, float] | None:
    """The lowest of points along the most negative curvature; None if none is lower."""
    from scipy.linalg import eigh

    value, vector = eigh(H, subset_by_index=[0, 0], check_finite=False)
    if value[0] >= -FLAT * np.abs(np.diag(H)).max():
        return None
    direction = vector[:, 0] * (-1.0 if g @ vector[:, 0] > 0 else 1.0)
    points = [x + sign * length * direction
              for length in float(np.linalg.norm(x)) * 0.5 ** np.arange(12) for sign in (1, -1)]
    values = [_value(problem, point, steps) for point in points]
    best = int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
    return (points[best], values[best]) if values[best] < J - ROUNDING * abs(J) else None
