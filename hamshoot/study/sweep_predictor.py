"""What a step of a sweep begins with: along the tangent or the secant of the branch, or neither.

The *tangent* is the derivative of the optimum by the parameters, `hamshoot.sensitivity`, from the
Newton factors at the last solution alone; the *secant* goes through the last two. Both are lines in
the logarithms of the parameters. A tangent holds while the same activations stay on the kink: of a
step that leads further, it predicts the part inside `Sensitivity.interval`. It is had at a
strict minimum; where `sensitivity` refuses, the secant takes its place, and where the last two
solutions are not in line with the step, the last one as it is.

The secant is the default. On six sweeps the tangent takes fewer iterations in three, by up to 14 %,
and more CPU seconds in all, by 10 % together, as its factors cost more than the iterations that
they save, and ReLU networks begin again a little up their ladder in ε whatever the guess; without
a predictor it is 10 % more than with the secant too (`demos/benchmarks/sweep_predictor.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.derivatives.geodesics import geodesic_sensitivity
from hamshoot.derivatives.layers import layered_sensitivity
from hamshoot.derivatives.optimum import optimum_of
from hamshoot.derivatives.result import check_known
from hamshoot.network.leaky_resnet import LeakyResNet
from hamshoot.support.checks import brief
from hamshoot.support.interpolation import interpolate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.derivatives.result import Sensitivity
    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.solution.solution import Solution
    from hamshoot.support.names import PredictorName

#: What may be asked for.
PREDICTORS: tuple[PredictorName, ...] = ("secant", "tangent", "none")


class Guess(NamedTuple):
    """What a step begins with.

    Attributes
    ----------
    solution : Solution
        Only its controls are those of the guess (of a geodesic its states), its numbers are not.
    how : {"tangent", "secant", "none"}
        "none" for the last solution as it is.
    """

    solution: Solution
    how: str


class Tangent(NamedTuple):
    """Derivatives of a solution by the logarithm of each parameter, and how far they hold.

    Attributes
    ----------
    along : dict of str to (ndarray, ...)
        V′ = (W/L̃)′ of layers, (A′, B′) of a geodesic.
    interval : dict of str to (float, float)
        Steps of the logarithm, to first order, in which the same activations stay on the kink.
    """

    along: dict[str, tuple[NDArray, ...]]
    interval: dict[str, tuple[float, float]]


def check_predictor(predictor: Any) -> PredictorName:
    """Its name.

    Raises
    ------
    ValueError
        For another.
    """
    if not isinstance(predictor, str) or predictor not in PREDICTORS:
        raise ValueError(f"predictor: expected one of {', '.join(PREDICTORS)}, got "
                         f"{brief(predictor)}")
    return predictor


def predictor(here: Solution, start: Mapping[str, Any], before: Solution | None,
              earlier: Mapping[str, Any], problem: TrainingProblem, values: Mapping[str, Any],
              tangent: Tangent | None = None) -> Guess:
    """The guess for a point: along the tangent, where there is one, or the secant, or as it is.

    In the logarithms of the parameters; of a network the line is that of V = W/L̃, and what costs
    least of it and of V itself, by J of the point; of a geodesic that of (A, B), said to be a
    solution of the point, so that Newton's method begins there and fails at once where it is too
    far.

    Parameters
    ----------
    here, start
        The last solution and its parameters.
    before, earlier
        That before it, or None, and its parameters; of no account beside a tangent.
    problem, values
        Of the point.
    tangent : Tangent, optional
        Of the last solution.
    """
    step = {name: float(np.log(values[name] / start[name])) for name in values}
    moved = _along(tangent, step) if tangent is not None else None
    how = "tangent"
    if moved is None:
        moved, how = _secant(here, before, _ratio(earlier, start, values)), "secant"
    if here.steps is None:
        if moved is None:
            return Guess(here.replace(problem=problem), "none")
        return Guess(here.replace(problem=problem, representations=here.representations + moved[0],
                                  momenta=here.momenta + moved[1]), how)
    V = np.asarray(here.weights) / here.problem.effective_depth
    kept = here.replace(weights=problem.effective_depth * V)
    if moved is None:
        return Guess(kept, "none")
    ahead = here.replace(weights=problem.effective_depth * (V + moved[0]))
    costs = [network_objective(one, problem) for one in (ahead, kept)]
    return Guess(ahead, how) if costs[0] <= costs[1] else Guess(kept, "none")


def network_objective(solution: Solution, problem: TrainingProblem) -> float:
    """J that the controls of a layered solution have in another problem."""
    return LeakyResNet.from_weights(problem, solution.weights, solution.steps).objective(problem)


def tangent_of(here: Solution, names: list[str]) -> Tangent | None:
    """The tangent of a branch in some parameters; None where it has none, or none is known.

    Costs what `hamshoot.sensitivity` does: over layers one Hessian and its factor for all of
    them, of a geodesic the factors of its linearised boundary value problem for each.
    """
    try:
        check_known(here.problem, "sweep")
        at = here if here.steps is None else optimum_of(here, "sweep")
        found = {name: geodesic_sensitivity(here, name) if here.steps is None
                 else layered_sensitivity(at, name) for name in names}
    except ValueError:  # NoDerivative, or an activation or loss whose derivatives are not known
        return None
    along, interval = {}, {}
    for name, one in found.items():
        theta = float(one.theta)
        along[name] = tuple(theta * part for part in _parts(here, name, one))
        low, high = one.interval or (-np.inf, np.inf)
        interval[name] = low / theta, high / theta
    return Tangent(along, interval)


def _parts(here: Solution, name: str, found: Sensitivity) -> tuple[NDArray, ...]:
    """V′ of layers, (A′, B′) of a geodesic."""
    assert found.weights is not None
    if here.steps is None:
        assert found.states is not None
        assert found.momenta is not None
        return found.states, found.momenta
    leak = here.problem.effective_depth
    V = found.weights / leak
    return (V - np.asarray(here.weights) / leak**2 if name == "effective_depth" else V,)


def _along(tangent: Tangent, step: Mapping[str, float]) -> tuple[NDArray, ...] | None:
    """Where the tangent leads, by as much of the step as it holds for; None where it is unknown."""
    moving = [name for name, length in step.items() if length]
    if not moving or any(name not in tangent.along for name in moving):
        return None
    share = 1.0
    for name in moving:
        low, high = tangent.interval[name]
        share = min(share, (high if step[name] > 0 else low) / step[name])
    parts = zip(*([share * step[name] * part for part in tangent.along[name]]
                  for name in moving), strict=True)
    return tuple(sum(part[1:], part[0]) for part in parts)


def _secant(here: Solution, before: Solution | None, ratio: float | None
            ) -> tuple[NDArray, ...] | None:
    """Where the secant leads; None where there is none."""
    if ratio is None or before is None or (before.steps is None) != (here.steps is None):
        return None
    if here.steps is None:
        t, old = np.asarray(here.p), np.asarray(before.p)
        return tuple(ratio * (getattr(here, name) - interpolate(old, getattr(before, name), t))
                     for name in ("representations", "momenta"))
    if before.weights.shape != here.weights.shape:
        return None
    V, old = (np.asarray(one.weights) / one.problem.effective_depth for one in (here, before))
    return (ratio * (V - old),)


def _ratio(earlier: Mapping[str, Any], start: Mapping[str, Any], values: Mapping[str, Any]
           ) -> float | None:
    """The step to come over the last one, both in logarithms; None where they are not in line."""
    if not earlier:
        return None
    last = np.array([np.log(start[name] / earlier[name]) for name in values])
    step = np.array([np.log(values[name] / start[name]) for name in values])
    square = float(last @ last)
    if square == 0:
        return None
    ratio = float(step @ last) / square
    return ratio if ratio > 0 and np.allclose(step, ratio * last, rtol=1e-6, atol=1e-12) else None
