"""Leaving stationary points that are no minima, along the direction that shows it.

A solver ends where the gradient vanishes. `hamshoot.optimality.second_order_layers` then looks for
a way down from there: a negative eigenvalue, a concave kink, a dead neuron that lowers J when it is
switched on. From the lowest point met along that direction the network goes down the last stages
of the ε ladder again, by Newton's method on the controls, and for ReLU to its exact stationary
point; and so on until the test finds no way down, or no lower stationary point is reached. The fall
along the direction may be less than what smoothing with ε changes, so that the ladder slips back to
where it came from: then it begins at a smaller ε.

A round costs a Hessian, what the search for a coupling takes (`hamshoot.optimality.coupling`), and
a local solve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.kept import Midway, Step, kept
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.learned_active_set import polish
from hamshoot.methods.newton.learned_hessian import joint_second_derivatives
from hamshoot.methods.newton.polished import Polished
from hamshoot.methods.newton.reduced_hessian import expansion, second_derivatives
from hamshoot.optimality import formulas
from hamshoot.optimality.second_order_layers import SecondOrder, second_order
from hamshoot.problem.activations import epsilon_ladder
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.methods.common.watch import Watch
    from hamshoot.optimality.formulas import Setting

#: Rounds at most. In 120 solves none needed more than four (`demos/benchmarks/escape.py`).
ROUNDS = 20
#: Where the ladder begins and ends, as shares of the last ε; the first pair that ends lower is
#: taken.
LADDERS = ((0.01, 0.01), (0.1, 0.1), (1.0, 1.0), (10.0, 1.0))
#: Relative fall of J that counts.
LOWER = 1e-10
#: Controls up to which the test is made.
MAX_CONTROLS = 4000

Report = Callable[[float, float], None]


@dataclass
class Escape:
    """Where it ended.

    Attributes
    ----------
    weights : ndarray, shape (L, w, w+1)
    objectives : list of float
        J of the first point and after each round.
    verdict : SecondOrder or None
        Of the last test; None where the network is too large for it.
    polished : Polished or None
        Of the last round that lowered J (ReLU).
    """

    weights: NDArray
    objectives: list[float]
    verdict: SecondOrder | None = None
    polished: Polished | None = None
    words: list[str] = field(default_factory=list)

    @property
    def left(self) -> int:
        """How many stationary points were left."""
        return len(self.objectives) - 1

    def record(self) -> dict[str, Any]:
        """What a solution keeps: the verdict of the last test, and J from point to point."""
        verdict = None if self.verdict is None else self.verdict.verdict
        return {"second_order": verdict, "escape_objectives": list(self.objectives)}

    def note(self) -> str:
        """What happened, for a message; empty where nothing did."""
        if not self.left:
            return ""
        points = "a stationary point that was" if self.left == 1 else \
            f"{self.left} stationary points that were"
        kinks = f"; {self.polished.words}" if self.polished else ""
        return (f"left {points} no minimum ({'; '.join(dict.fromkeys(self.words))}), J from "
                f"{self.objectives[0]:.8g} to {self.objectives[-1]:.8g}{kinks}")


def affordable(problem: TrainingProblem, layers: int) -> bool:
    """Whether the second-order test is cheap enough to end every solve with it."""
    controls = learned.count(problem, layers)
    return not problem.hard_endpoint and controls <= MAX_CONTROLS


def escape(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    epsilon: float,
    *,
    tol: float,
    callback: Report | None = None,
    progress: Escape | None = None,
    watch: Watch | None = None,
) -> Escape:
    """Go down from a stationary point until no way down is found.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss.
    weights, steps : ndarray, shapes (L, w, w+1) and (L,)
        Stationary.
    epsilon : float
        For ReLU, the last ε of the ladder.
    tol : float
        For the stationarity.
    callback : callable, optional
        Receives objective and stationarity of every iterate; may raise.
    progress : Escape, optional
        Filled along the way, so that what was reached is there when `callback` raises.
    watch : Watch, optional
        Of the solve that this is a part of, which `callback` tells: with it the tests and the local
        solves are kept (`hamshoot.methods.common.kept`).
    """
    state = Escape(weights, []) if progress is None else progress
    state.weights, state.objectives = weights, [learned.objective_of(problem, weights, steps)]
    for _ in range(ROUNDS):
        state.verdict = _tested(problem, state.weights, steps, watch)
        if not state.verdict.refuted:
            break
        start = _stack(problem, state.verdict.lowest)
        found = None if start is None else _lower(problem, state, start, steps, epsilon, tol,
                                                  callback, watch)
        if found is None:
            break
        state.words.append(state.verdict.verdict.split(";")[0].split(":")[0])
        state.weights, state.polished = found
        state.objectives.append(learned.objective_of(problem, state.weights, steps))
    return state


def _lower(
    problem: TrainingProblem, state: Escape, start: NDArray, steps: NDArray, epsilon: float,
    tol: float, callback: Report | None, watch: Watch | None,
) -> tuple[NDArray, Polished | None] | None:
    """A stationary point below the one that was left, and its polish; None if none was reached."""
    least = state.objectives[-1]
    least -= LOWER * abs(least)
    if not problem.sigma.kinked:
        end = exact_newton.minimise(problem, start, steps, tol=tol, callback=callback,
                                    watch=watch)
        return (end.weights, None) if end.stationarity <= tol and end.objective < least else None
    for first, last in ((0.0, LADDERS[0][1]), *LADDERS):
        weights, value = start, 0.1 * last * epsilon
        for value in epsilon_ladder(first * epsilon, 0.1 * last * epsilon, 0.25) if first else ():
            smooth = problem.replace(activation=problem.sigma.smoothed(value))
            weights = exact_newton.minimise(smooth, weights, steps, tol=tol,
                                            callback=callback, watch=watch).weights
        if not learned.objective_of(problem, weights, steps) < state.objectives[-1] + value:
            continue
        polished = polish(problem, weights, steps, value, tol=min(tol, 1e-10), callback=callback,
                          watch=watch)
        if polished.stationarity <= tol and polished.objective < least:
            return polished.weights, polished
    return None


def _stack(problem: TrainingProblem, controls: NDArray | None) -> NDArray | None:
    """Controls of the test as controls; with learned maps the vector of both as a stack."""
    if controls is None or not problem.learns:
        return controls
    W, P, Q = learned.unflat(problem, controls)
    return learned.stacked(problem.with_maps(P, Q), W)


def _tested(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, watch: Watch | None
) -> SecondOrder:
    """The second-order test, of an earlier run where it was made there: without kinks, then."""
    def compute(_: Midway) -> Step:
        arrays: dict[str, NDArray] = {}
        numbers: dict[str, Any] = {}
        at, own = learned.settled(problem, weights)
        found = second_order(at, own, steps, prove=False, derivatives=partial(_derivatives, at))
        for name, value in found._replace(kinks=None)._asdict().items():
            (arrays if isinstance(value, np.ndarray) else numbers)[name] = value
        return arrays, numbers

    arrays, numbers = kept(watch, problem, "second order", (weights, steps), compute)
    found: dict[str, Any] = {**numbers, **arrays}
    for name in ("multipliers", "descent"):
        found[name] = tuple(tuple(one) if isinstance(one, list) else one for one in found[name])
    return SecondOrder(**found)


def _derivatives(
    problem: TrainingProblem, setting: Setting, weights: NDArray, steps: NDArray,
    pattern: NDArray | None, entries: NDArray,
) -> tuple[NDArray, NDArray]:
    """`complex_step_derivatives` by the sweeps over samples of `newton.reduced_hessian`."""
    A = formulas.roll_out(setting, weights, steps, pattern=pattern)
    B, _ = formulas.costates(setting, A, weights, steps, slopes=pattern, pattern=pattern)
    at = expansion(problem, A, B, weights, steps, pattern)
    hessian, rows = joint_second_derivatives(problem, at, A, entries) if problem.learns else \
        second_derivatives(at, entries)
    return problem.weight_decay * hessian, rows
