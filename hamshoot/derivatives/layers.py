"""Sensitivities of layered optima: one solve with the Newton factors, then one complex sweep.

The controls and multipliers move as `hamshoot.derivatives.optimum` says. A sweep with W + ihW′,
d + ihd′ and θ + ih·direction, h = 1e-30, then gives dA* and dB* at all nodes, shows by ∂J/∂W and
A_𝒦 whether the linear system was solved, and differentiates the envelope formula once more, which
is d²J*/dt². All of it is exact to rounding.

The set of activations on the kink stays as it is up to the first t at which, to first order, a
slope d leaves [0, 1] (of a leaky ReLU [α, 1]), or another activation reaches 0. Where rows of C
depend on each other the multipliers may be chosen; the ends of the interval are then those of a
linear program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.derivatives.optimum import Optimum, optimum_of
from hamshoot.derivatives.parameters import (
    Sweep,
    envelope,
    moved,
    shape_of,
    swept,
    units_of,
    value_of,
)
from hamshoot.derivatives.result import NoDerivative, Sensitivity, direction_of, parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.solution.solution import Solution

_STEP = 1e-30
#: Changes of activations below this share of the largest are none.
STILL = 1e-12
#: What θ moves of entries held that depend on each other, of what it moves at all, at most.
APART = 1e-6


class Tangent(NamedTuple):
    """How an optimum moves along a direction of θ.

    Attributes
    ----------
    weights : ndarray, shape (L, w, w+1)
    slopes : ndarray, shape (L, w, N), or None
        d′ on the kink of a ReLU network.
    sweep : Sweep
        A′, B′, and what is left of (∂J/∂W)′.
    envelope : ndarray
        (dJ*/dθ)′, of θ's shape.
    residual : float
    """

    weights: NDArray
    slopes: NDArray | None
    sweep: Sweep
    envelope: NDArray
    residual: float


def layered_sensitivity(
    solution: Solution | Optimum, of: str, direction: Any = None, *, scaled: bool = True,
) -> Sensitivity:
    """Derivatives of a layered optimum by one of its parameters; see `derivatives.sensitivity`.

    Parameters
    ----------
    solution : Solution or Optimum
    of, direction, scaled
        As there.

    Raises
    ------
    NoDerivative
        As `hamshoot.derivatives.optimum.optimum_of`.
    ValueError
        For another `of` or direction.
    """
    of = parameter(of)
    problem = solution.problem
    direction = direction_of(of, direction, shape_of(problem, of))
    here = solution if isinstance(solution, Optimum) else optimum_of(solution)
    problem = here.problem
    if of == "epsilon" and problem.activation != "smooth_relu":
        raise NoDerivative("sensitivity: expected a smooth ReLU, or a solution smoothed with an ε, "
                           f"for epsilon, got {problem.activation}")
    theta = value_of(problem, of, scaled)
    units = 1.0 if scaled else units_of(problem, of)
    at, steps = here.at, here.at.steps
    slope = envelope(here.posed, of, at.weights, steps, here.sweep)
    common = dict(of=of, theta=theta, direction=direction, value=at.objective,
                  p=np.concatenate([[0.0], np.cumsum(steps)]), steps=steps, scaled=scaled,
                  objective=slope / units if slope.ndim else float(slope),
                  held=int(here.held.sum()), extra={"second_order": here.verdict,
                                                    "distance": here.distance})
    if direction is None:
        return Sensitivity(**common, along=None, second=None, weights=None, states=None,
                           momenta=None, how=_words(here, of))
    step = direction / units
    moving = tangent(here, of, step)
    interval, changes = _interval(here, moving)
    return Sensitivity(
        **common, along=float(np.sum(slope * step)), second=float(np.sum(moving.envelope * step)),
        weights=moving.weights, states=moving.sweep.A, momenta=moving.sweep.B, interval=interval,
        changes=changes, residual=moving.residual, how=_words(here, of))


def tangent(here: Optimum, of: str, direction: float | NDArray) -> Tangent:
    """How an optimum moves with θ along a direction, in scaled units.

    Raises
    ------
    NoDerivative
        Where θ moves activations that are held together apart.
    """
    at, held, h = here.at, here.held, _STEP
    turned = moved(here.posed, of, 1j * h * np.asarray(direction))
    asked = swept(turned, at.weights, at.steps, here.slopes)
    kept = -asked.A[:-1][held].imag / h
    dx, dm = here.solve(-asked.gradient.imag.ravel() / h, kept)
    weights = dx.reshape(at.weights.shape)
    slopes, turning = None, None
    if at.kinks is not None:
        slopes = np.zeros(held.shape)
        slopes[held] = -dm / (at.setting.decay * at.kinks.force[held])
        turning = at.kinks.slopes + 1j * h * slopes
    sweep = swept(turned, at.weights + 1j * h * weights, at.steps, turning)
    second = envelope(turned, of, at.weights + 1j * h * weights, at.steps, sweep).imag / h
    flat = Sweep(*(part.imag / h for part in sweep))
    off = np.abs(flat.A[:-1][held]).max(initial=0.0)
    if off > APART * max(np.abs(flat.A).max(), np.abs(kept).max(initial=0.0)):
        raise NoDerivative(
            f"sensitivity: activations held on the kink depend on each other, and {of} moves them "
            "apart: the set that is held changes at once, and there is no derivative")
    left = np.linalg.norm(flat.gradient) / max(
        float(np.linalg.norm(asked.gradient.imag / h)), 1e-300)
    return Tangent(weights, slopes, flat, second, float(left))


# -- the interval ----------------------------------------------------------------------------------


def _interval(here: Optimum, moving: Tangent) -> tuple[tuple[float, float], tuple[str, str]]:
    """Between which t the sets stay, to first order, and what ends it on either side."""
    kinks = here.at.kinks
    if kinks is None or moving.slopes is None:
        return (-np.inf, np.inf), ("", "")
    ends, words = [], []
    for sign in (-1, 1):
        t, which = _first_crossing(here, sign * moving.sweep.A[:-1])
        word = "" if which is None else f"activation {which} reaches the kink"
        leave, left = _first_leaving(here, sign * moving.slopes)
        if leave < t:
            t, word = leave, f"activation {left} leaves it" if left else "one leaves it"
        ends.append(sign * t)
        words.append(word)
    return (ends[0], ends[1]), (words[0], words[1])


def _first_crossing(here: Optimum, rate: NDArray) -> tuple[float, str | None]:
    """The first t > 0 at which an activation that is not held reaches 0."""
    A, kinks = here.sweep.A[:-1], here.at.kinks
    assert kinks is not None
    moves = ~here.held & (np.abs(rate) > STILL * max(float(np.abs(rate).max()), 1e-300))
    # Idle entries are 0, and stay switched off where they go down.
    size = np.where(kinks.idle, 0.0, np.abs(A))
    towards = np.where(kinks.slopes > kinks.low, -rate, rate)
    t = np.full(A.shape, np.inf)
    np.divide(size, towards, out=t, where=moves & (towards > 0))
    if not np.isfinite(t.min()):
        return np.inf, None
    first = np.unravel_index(int(np.argmin(t)), t.shape)
    return float(t[first]), _place(first)


def _first_leaving(here: Optimum, rate: NDArray) -> tuple[float, str | None]:
    """The first t > 0 at which no slopes in [α, 1] hold the entries on the kink any more."""
    kinks, held = here.at.kinks, here.held
    assert kinks is not None
    if not held.any():
        return np.inf, None
    d, change = kinks.slopes[held], rate[held]
    if here.at.free.rank < len(d):
        return _by_program(here, d, change), None
    t = np.full(d.shape, np.inf)
    np.divide(1 - d, change, out=t, where=change > 0)
    np.divide(kinks.low - d, change, out=t, where=change < 0)
    first = int(np.argmin(t))
    return float(t[first]), _place(np.argwhere(held)[first])


def _by_program(here: Optimum, d: NDArray, change: NDArray) -> float:
    """The largest t with d + t change + (what leaves stationarity as it is) in [α, 1]."""
    from scipy.linalg import null_space
    from scipy.optimize import linprog

    kinks = here.at.kinks
    assert kinks is not None
    loose = null_space(here.at.fixed.T) / kinks.force[here.held][:, None]
    loose = loose / np.maximum(np.abs(loose).max(axis=0), 1e-300)
    scale = 1 / max(float(np.abs(change).max()), 1e-300)
    rows = np.column_stack([scale * change, loose])
    bounds = [(0, None), *[(None, None)] * loose.shape[1]]
    found = linprog(np.eye(rows.shape[1])[0] * -1, A_ub=np.vstack([rows, -rows]),
                    b_ub=np.concatenate([1 - d, d - kinks.low]), bounds=bounds)
    if found.status == 3:  # unbounded
        return np.inf
    return scale * float(found.x[0]) if found.status == 0 else 0.0


def _place(index: Any) -> str:
    layer, neuron, sample = (int(i) for i in index)
    return f"(layer {layer}, neuron {neuron}, sample {sample})"


def _words(here: Optimum, of: str) -> str:
    """What it is a derivative of."""
    L, w, c = here.at.weights.shape
    words = [f"Newton factors of {L * w * c} controls"]
    held = int(here.held.sum())
    if held:
        words.append(f"{held} activations held on the kink")
    if here.at.kinks is not None and here.at.kinks.idle.any():
        words.append("dead neurons stay off")
    if here.problem.activation == "smooth_relu":
        words.append(f"of the network with the smooth ReLU, ε = {here.problem.sigma.epsilon:g}")
    if of == "inputs" and here.problem.activation == "relu":
        zero = int(np.sum(here.sweep.A[0][np.any(here.problem.lift, axis=1)] == 0))
        if zero:
            words.append(f"{zero} entries of A_0 are 0: by their inputs to the negative side alone")
    return ", ".join(words)
