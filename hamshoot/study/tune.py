"""`tune`: λ and L̃ chosen on held-out rows by the derivative of the held-out error.

The optimum of the training rows moves with log λ and log L̃, and the error on the held-out rows
moves with it: one linear system gives its gradient (`hamshoot.derivatives.held_out_error`). From
one search at the problem's own λ and L̃ a quadratic model of the error, with second derivatives by
symmetric rank-one updates, is minimised in a box around the best point so far. Each try goes on
from the optimum there, moved along its derivative, and is solved to where derivatives are exact:
continuation with a predictor. The box shrinks where the error did not fall, and the best is kept.

ReLU networks are those smoothed with the last ε of the ladder, as in `hamshoot.validate`: errors of
prediction are blind to the difference, and the derivatives have no kinks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.derivatives.held_out_error import HeldOutError, held_out_error
from hamshoot.derivatives.optimum import optimum_of
from hamshoot.derivatives.result import NoDerivative, check_known
from hamshoot.optimality.second_order_layers import MAX_CONTROLS
from hamshoot.problem.arguments import count
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.study.forecast import search_forecast
from hamshoot.study.held_out import HeldOut, held_out_rows
from hamshoot.study.progress import begin, named, shown
from hamshoot.study.solve import check_method, default_layers, solve
from hamshoot.study.validate import Try, Validation, rescaled
from hamshoot.support.checks import brief
from hamshoot.support.options import has_option
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from hamshoot.support.names import MethodName, TuneOptions

TUNED = ("weight_decay", "effective_depth")
SYMBOLS = {"weight_decay": "λ", "effective_depth": "L̃"}
#: Options of the method in a try, unless they are given: no polish, and stationary to what
#: derivatives take.
TIGHT: dict[str, Any] = {"polish": False, "tol": 1e-7}
#: Half-width of the box of the first step, of log λ and log L̃, and what it grows and shrinks by.
RADIUS, WIDEST, GROW, SHRINK = 1.0, 2.5, 2.0, 0.35
#: It ends where the box is smaller than this, or the model sees less than this share to be gained.
NARROWEST, GAIN = 0.02, 1e-4
#: Bounds of λ and L̃, by factors of the problem's own; and of L̃, as a share of L: close to L̃ = L a
#: layer forgets what it gets, and few held-out rows may like that by chance.
DECAY_RANGE, DEPTH_RANGE, DEEPEST = (1e-4, 1e4), (0.1, 10.0), 0.5
#: A share of what the model foretold: below the first a step counts as bad, above the second as
#: good.
BAD, GOOD = 0.1, 0.7


@dataclass(frozen=True, eq=False, repr=False)
class Tuning(Validation):
    """What was tried on the way down the held-out error, as a `Validation`; prints as a table.

    Attributes
    ----------
    parameters : tuple of str
        What was tuned.
    gradients : tuple of (ndarray or None)
        Of each try, dE/dlog θ of the parameters; None where there is no derivative.
    ended : str
        Why it ended, in a sentence.
    """

    parameters: tuple[str, ...] = ()
    gradients: tuple[NDArray | None, ...] = ()
    ended: str = ""

    def finding(self) -> str:
        """What was chosen, why it ended there, and what it does not say, in sentences."""
        return f"{super().finding()} {self.ended}"

    def _edges(self) -> str:
        return ""

    def __repr__(self) -> str:
        return super().__repr__().replace("Validation on", "Tuning on", 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: that of a `Validation`, with the gradient of every try."""
        gradients = [None if one is None else dict(zip(self.parameters, one.tolist(), strict=True))
                     for one in self.gradients]
        return {**super().to_dict(), "parameters": list(self.parameters),
                "gradients": gradients, "ended": self.ended}


def tune(
    problem: TrainingProblem,
    parameters: Sequence[str] = TUNED,
    method: MethodName = "auto",
    *,
    held_out: float | str = 0.2,
    layers: int | None = None,
    most_tries: int = 20,
    seed: int = 0,
    callback: Callback | None = None,
    on_try: Callable[[Try], None] | None = None,
    verbose: bool = False,
    **options: Unpack[TuneOptions],
) -> Tuning:
    """Choose λ and L̃ by going down the held-out error along its derivative.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss. Its own λ and L̃ are where it begins.
    parameters : sequence of {"weight_decay", "effective_depth"}
        What is tuned; the others stay.
    method : {"auto", "single_shooting", "multiple_shooting"}
        As in `solve`.
    held_out : float or "test"
        As in `validate`: the share of the training rows, drawn by `seed`, or the problem's own test
        rows.
    layers : int, optional
        L of every network; default 20, or enough for L > L̃. L̃ is not tried beyond L/2, or the
        problem's own.
    most_tries : int
        Networks that are solved at most.
    seed, callback, on_try, verbose
        As in `validate`.
    **options
        Of the method; `time_limit` is for each try.

    Returns
    -------
    Tuning
        A `Validation` of the tries made; `Tuning.solve` solves what was chosen, on all rows.

    Raises
    ------
    ValueError
        As `validate`; for other parameters, indirect shooting, and networks of more than 4000
        controls, whose Newton system is not formed.

    Notes
    -----
    A local method: one search, then one basin, the one its optimum moves into; `validate` looks at
    places further off. Costs a search, and for each try a solve from its neighbour, a Hessian with
    its factor, n³/3, and two back-substitutions.

    Measured by ``python demos/benchmarks/tune.py``, on 24 noisy tables of 40 and 120 rows: in the
    same CPU seconds as the grid of `validate` it ends at the lower held-out error in 19, and at the
    lower error on new rows in 11, which is chance; the whole grid, in 0.81 s for 0.57,
    is the better choice for new rows in 18, by 4 % in the median: what the derivative finds more
    on few held-out rows is often theirs alone.
    """
    names = _names(parameters)
    if problem.hard_endpoint:
        raise ValueError("problem: held-out rows need a loss, got a hard endpoint")
    check_known(problem, "tune")
    if method == "indirect":
        raise ValueError("method: expected one that optimises layers, got indirect shooting")
    most_tries = count("most_tries", most_tries, 1)
    layers = default_layers(problem) if layers is None else layers
    part, rows = held_out_rows(problem, held_out, seed)
    settings = {"method": method, "layers": layers, "seed": seed, **options}
    check_method(part, method, layers, {"seed": seed, **options})
    controls = layers * int(np.prod(problem.control_shape))
    if controls > MAX_CONTROLS:
        raise ValueError(f"problem: expected at most {MAX_CONTROLS} controls, layers × width × "
                         f"(width + 1), got {controls}; hs.validate needs no derivatives")
    with shown(callback, verbose) as call:
        return _Tuning(problem, part, rows, settings, names, most_tries).run(call, on_try)


def _names(parameters: Any) -> tuple[str, ...]:
    """Parameters, checked."""
    known = " and ".join(TUNED)
    if isinstance(parameters, str) or not np.iterable(parameters):
        raise ValueError(f"parameters: expected a list of {known}, got {brief(parameters)}")
    names = tuple(parameters)
    if not names or len(set(map(str, names))) < len(names) or not set(names) <= set(TUNED):
        raise ValueError(f"parameters: expected {known}, or one of them, got {list(names)}")
    return names


@dataclass
class _Point:
    """A network that was tried: log θ against the problem's own, and what is known there."""

    x: NDArray
    solution: Solution
    error: float
    found: HeldOutError | None


@dataclass
class _Tuning:
    """One call of `tune`, its settings checked."""

    problem: TrainingProblem
    part: TrainingProblem
    rows: HeldOut
    settings: dict[str, Any]
    names: tuple[str, ...]
    most: int

    def __post_init__(self) -> None:
        self.tries: list[Try] = []
        self.gradients: list[NDArray | None] = []
        self.own = np.array([getattr(self.problem, name) for name in self.names])
        ranges = [DECAY_RANGE if name == "weight_decay" else DEPTH_RANGE for name in self.names]
        self.low, self.high = np.log(ranges).T
        for k, name in enumerate(self.names):
            if name == "effective_depth":
                deepest = np.log(DEEPEST * self.settings["layers"] / self.own[k])
                self.high[k] = max(min(self.high[k], deepest), 0.0)

    def run(self, call: Callback | None, on_try: Callable[[Try], None] | None) -> Tuning:
        """From the problem's own θ down, until nothing is gained or tries are used up."""
        here, radius = self._try(np.zeros(len(self.names)), None, call, on_try), RADIUS
        curvature = np.zeros((len(self.names), len(self.names)))
        ended = self._stopped(here)
        while not ended and len(self.tries) < self.most:
            assert here.found is not None
            slope = here.found.gradient * self._theta(here.x)
            if len(self.tries) == 1:  # a scale: the first step is as long as the box
                curvature = np.eye(len(slope)) * float(np.linalg.norm(slope)) / (2 * RADIUS)
            step, gain = _best_step(slope, curvature, radius, self.low - here.x,
                                    self.high - here.x)
            if gain <= GAIN * here.error:
                ended = ("It ended where the derivatives see nothing more to gain "
                         f"(dE/dlog {self._slopes(slope)}).")
                break
            there = self._try(here.x + step, here, call, on_try)
            if there.solution.status is Status.INTERRUPTED:
                ended = self._stopped(there)
                break
            if there.found is not None:
                change = there.found.gradient * self._theta(there.x) - slope
                curvature = _rank_one(curvature, step, change)
            share = (here.error - there.error) / gain
            if share < BAD or there.found is None:
                radius = SHRINK * min(radius, float(np.abs(step).max()))
            elif share > GOOD and np.abs(step).max() > 0.9 * radius:
                radius = min(GROW * radius, WIDEST)
            if there.error < here.error and there.found is not None:
                here = there
            if radius < NARROWEST:
                ended = "It ended where no step of two per cent lowers the error."
        return self._result(ended)

    def _result(self, ended: str) -> Tuning:
        complete = bool(ended) and not ended.startswith("It was stopped")
        ended = ended or f"It ended after {self.most} tries."
        mean = np.mean(np.asarray(self.part.Y, dtype=float), axis=0)
        trivial = float(np.mean(self._errors(np.broadcast_to(mean, self.rows.Y.shape))))
        return Tuning(self.problem, tuple(self.tries), self.rows, trivial,
                      complete or len(self.tries) == self.most, self.settings, self.names,
                      tuple(self.gradients), ended)

    def _theta(self, x: NDArray) -> NDArray:
        return self.own * np.exp(x)

    def _slopes(self, slope: NDArray) -> str:
        return ", ".join(f"{SYMBOLS[name]} = {value:.1e}"
                         for name, value in zip(self.names, slope, strict=True))

    def _stopped(self, here: _Point) -> str:
        """Why there is nothing to go on with; empty where there is."""
        if here.solution.status is Status.INTERRUPTED:
            return "It was stopped on request."
        return "" if here.found is not None else \
            f"It ended at once, as there is no derivative: {self.lacking}"

    # -- one try -----------------------------------------------------------------------------------

    def _try(self, x: NDArray, before: _Point | None, call: Callback | None,
             on_try: Callable[[Try], None] | None) -> _Point:
        """Solve at x, going on from another point."""
        problem = self.part.replace(**dict(zip(self.names, self._theta(x).tolist(), strict=True)))
        options = {k: v for k, v in self.settings.items() if k not in ("method", "layers")}
        method = check_method(problem, self.settings["method"], self.settings["layers"], options)
        for name, value in TIGHT.items():
            if has_option(method, name):
                options.setdefault(name, value)
        guess = None if before is None else self._predicted(problem, x, before)
        title, began = f"try {len(self.tries) + 1} of {self.most} at most", time.perf_counter()
        begin(call, title, search_forecast(problem, method, guess), options.get("time_limit"))
        solution = solve(problem, self.settings["method"], layers=self.settings["layers"],
                         initial_guess=guess, callback=named(title, call), **options)
        found = self._derivative(solution)
        error = self._record(problem, solution, before, time.perf_counter() - began, on_try)
        self.gradients.append(None if found is None else found.gradient * self._theta(x))
        return _Point(x, solution, error, found)

    def _record(self, problem: TrainingProblem, solution: Solution, before: _Point | None,
                seconds: float, on_try: Callable[[Try], None] | None) -> float:
        """Append a try; its error."""
        network = solution.to_network()
        errors = self._errors(network.predict(self.rows.X))
        spread = np.std(errors, ddof=1) / np.sqrt(len(errors)) if len(errors) > 1 else np.nan
        accuracy = None if self.problem.classes is None else network.accuracy(self.rows.X,
                                                                              self.rows.Y)
        begun = "search" if before is None else "from " + ", ".join(
            f"{SYMBOLS[name]} = {value:.3g}"
            for name, value in zip(self.names, self._theta(before.x), strict=True))
        self.tries.append(Try(
            problem.weight_decay, problem.effective_depth, problem.width, float(np.mean(errors)),
            float(spread), accuracy, solution.objective, solution.status, begun, seconds, network))
        if on_try is not None:
            on_try(self.tries[-1])
        return self.tries[-1].error

    def _derivative(self, solution: Solution) -> HeldOutError | None:
        """The gradient of the error; None where there is none, and why in `lacking`."""
        self.lacking = ""
        if solution.status in (Status.INTERRUPTED, Status.COLLAPSED):
            self.lacking = str(solution.status)
            return None
        try:
            return held_out_error(optimum_of(solution, "tune"), self.names, self.rows.X,
                                  self.rows.Y, self.problem.target_scaling.scale)
        except NoDerivative as reason:
            self.lacking = str(reason)
            return None

    def _predicted(self, problem: TrainingProblem, x: NDArray, before: _Point) -> Solution:
        """The optimum before, moved along its derivative; as it is where that has the lower J."""
        assert before.found is not None
        solution, change = before.solution, self._theta(x) - self._theta(before.x)
        kept = rescaled(solution, problem.effective_depth)
        moved = solution.weights + np.tensordot(change, before.found.weights, axes=1)
        guesses = [kept, solution.replace(weights=moved)]
        return min(guesses, key=lambda one: _objective(problem, one))

    def _errors(self, predictions: Any) -> Any:
        """Squared errors of the held-out rows, (K,), in the scaled units of the whole problem."""
        return np.sum(((predictions - self.rows.Y) / self.problem.target_scaling.scale) ** 2,
                      axis=1)


def _objective(problem: TrainingProblem, guess: Solution) -> float:
    assert guess.steps is not None
    with np.errstate(all="ignore"):
        value = discrete.objective_of(problem, guess.weights, guess.steps)
    return value if np.isfinite(value) else np.inf


# -- the model -------------------------------------------------------------------------------------


def _best_step(
    slope: NDArray, curvature: NDArray, radius: float, low: NDArray, high: NDArray
) -> tuple[NDArray, float]:
    """Where the model gᵀs + ½sᵀBs is least in the box, and by how much it falls there."""
    from scipy.optimize import minimize

    box = list(zip(np.maximum(low, -radius), np.minimum(high, radius), strict=True))
    corners = np.array([[end[k] for end, k in zip(box, ks, strict=True)]
                        for ks in np.ndindex(*(2,) * len(slope))])
    starts = [np.zeros_like(slope), *corners]
    found = [minimize(lambda s: (slope @ s + 0.5 * s @ curvature @ s, slope + curvature @ s),
                      start, jac=True, bounds=box, method="L-BFGS-B") for start in starts]
    best = min(found, key=lambda one: one.fun)
    return np.asarray(best.x), -float(best.fun)


def _rank_one(curvature: NDArray, step: NDArray, change: NDArray) -> NDArray:
    """The symmetric rank-one update, left out where it is not determined."""
    off = change - curvature @ step
    scale = float(off @ step)
    if abs(scale) < 1e-8 * float(np.linalg.norm(off) * np.linalg.norm(step)) or not np.any(off):
        return curvature
    return curvature + np.outer(off, off) / scale
