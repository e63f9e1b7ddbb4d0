"""`solve(problem, method)`: the verb over all methods; `auto` picks one and says why."""

from __future__ import annotations

import logging
from dataclasses import fields
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.indirect.method import IndirectShooting
from hamshoot.methods.multiple_shooting.method import DirectMultipleShooting
from hamshoot.methods.single_shooting.method import DirectSingleShooting
from hamshoot.network.layer_steps import steps_of
from hamshoot.solution.method import Method
from hamshoot.solution.mistakes import (
    check_callback,
    check_guess,
    check_problem,
    wrong_layers,
    wrong_method,
)
from hamshoot.solution.solution import Callback, Solution
from hamshoot.study.forecast import search_forecast
from hamshoot.study.progress import begin, shown
from hamshoot.support.checks import brief, check_count, check_layers
from hamshoot.support.journal import Journal, kept_in
from hamshoot.support.options import with_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.support.names import MethodName, SolveOptions

_logger = logging.getLogger("hamshoot")

METHODS: dict[str, type[Method]] = {
    "indirect": IndirectShooting,
    "multiple_shooting": DirectMultipleShooting,
    "single_shooting": DirectSingleShooting,
}
DEFAULT_LAYERS = 20
#: Up to this w·N "auto" goes for the geodesic when no number of layers is asked for: ten seconds.
GEODESIC_NODE = 400


def solve(
    problem: TrainingProblem,
    method: MethodName | Method = "auto",
    *,
    layers: int | None = None,
    initial_guess: Any = None,
    callback: Callback | None = None,
    verbose: bool = False,
    journal: str | PathLike | None = None,
    **options: Unpack[SolveOptions],
) -> Solution:
    """Find an optimal network.

    Parameters
    ----------
    problem : TrainingProblem
    method : {"auto", "multiple_shooting", "single_shooting", "indirect"} or method object
        "indirect" gives the continuous geodesic, the others an optimal L-layer network, up to the
        size of the exact methods from the same search. "auto" takes the faster, single
        shooting, and multiple shooting for a hard endpoint; see `choose`. A method object is
        anything with a `solve`, see `hamshoot.solution.method`.
    layers : int, optional
        L. Without it "auto" looks for the continuous geodesic of a smooth or linear activation
        where w·N allows it, and otherwise takes 20, or enough for L > L̃, as other methods do.
    initial_guess : Solution, LeakyResNet or array, optional
        Where to begin: anything with weights, or weights (L', w, w+1), on any mesh. The answer is
        never worse than the guess.
    callback : callable, optional
        Receives a `Record` per iteration; returning True stops and keeps the best iterate.
    verbose : bool
        Show the progress on standard error: stage, J, seconds so far and about how many are left.
        In any case ``logging.getLogger("hamshoot")`` gets what the search found, at INFO.
    journal : path, optional
        Directory that keeps what is done: walks of the search, levels of large problems, stages on
        the way to a geodesic. A solve that was killed goes on from it, with the same arguments, to
        the same end; with others it takes what fits. The caller removes it.
    **options
        Of the method, for example ``tol``, ``max_iter``, ``time_limit``, ``seed``, ``effort``,
        ``workers``, ``start``, ``starts``.

    Returns
    -------
    Solution
        Not converging is not an exception: see `Solution.success` and `Solution.status`.

    Raises
    ------
    ValueError
        For bad input: an unknown method or option, or arguments that do not fit the problem.
    """
    check_problem("solve", problem)
    check_guess(initial_guess)
    check_callback(callback)
    chosen, reason = _method(problem, method, layers, dict(options))
    _logger.info("solve: %r by %r", problem, chosen)
    kept = None if journal is None else Journal(Path(journal), _logger.info)
    with kept_in(kept), shown(callback, verbose) as call:
        begin(call, "", search_forecast(problem, chosen, initial_guess),
              getattr(chosen, "time_limit", None))
        solution = chosen.solve(problem, initial_guess=initial_guess, callback=call)
    _logger.info("solve: %s, J %.8g, stationarity %.1e, %.2f s", solution.status.name.lower(),
                 solution.objective, solution.stationarity, solution.seconds)
    if reason:
        solution = solution.replace(
            message=f"{solution.message} ({reason}.)", extra={**solution.extra, "choice": reason}
        )
    return solution


def choose(
    problem: TrainingProblem, layers: int | None, options: dict[str, Any]
) -> tuple[str, dict[str, Any], str]:
    """Name of the method that "auto" takes, what it adds to the options, and the reason.

    Without a number of layers the answer is the continuous geodesic, where that is within reach:
    indirect shooting, which finds its start by a direct method on coarse meshes. For ReLU it is
    not, as a rule: activations slide along their kinks and only geodesics of smoothed flows are
    had, while the optimum of a network is exact. With a number of layers it is the optimum of that
    network.
    """
    node = problem.width * problem.n_samples
    if layers is None:
        foreign = [name for name in options if name not in _options_of(IndirectShooting)]
        smooth = not problem.sigma.kinked and problem.sigma.compiled
        if smooth and node <= GEODESIC_NODE and not foreign:
            return "indirect", {"layers": None}, (
                "auto chose indirect shooting, from a direct solution: no number of layers was "
                f"asked for, and w·N = {node}, limit {GEODESIC_NODE}")
        layers = default_layers(problem)
    if problem.hard_endpoint:
        return "multiple_shooting", {"layers": layers}, (
            "auto chose multiple shooting: it meets a hard endpoint")
    return "single_shooting", {"layers": layers}, (
        f"auto chose single shooting of {layers} layers: multiple shooting begins with the same "
        "search and takes longer")


def method_named(name: str, options: dict[str, Any]) -> Method:
    """Build the method object of a name; unknown names and options are errors."""
    key = name.replace("-", "_")
    if key not in METHODS:
        known = ", ".join(["auto", *METHODS])
        raise ValueError(f"method: expected one of {known}, or a method object, got {brief(name)}")
    known_options = _options_of(METHODS[key])
    for option in options:
        if option not in known_options:
            near = get_close_matches(option, known_options, 1)
            raise ValueError(
                f"{brief(option)[1:-1]}: {key} has no such option"
                f"{f' (did you mean {near[0]}?)' if near else ''}; it has "
                f"{', '.join(sorted(known_options))}"
            )
    return METHODS[key](**options)


def _options_of(method: Any) -> list[str]:
    return [f.name for f in fields(method) if f.init]


def comparison_layers(problem: TrainingProblem, layers: int | None) -> int:
    """Number of layers of a comparison.

    Raises
    ------
    TypeError, ValueError
        For what is no problem, or no number of layers.
    """
    check_problem("compare", problem)
    if layers is None:
        return default_layers(problem)
    if isinstance(layers, bool) or not isinstance(layers, (int, np.integer)):
        raise ValueError(wrong_layers(layers))
    return layers


def default_layers(problem: TrainingProblem) -> int:
    """Return 20 layers, or twice the effective depth where that is more."""
    return max(DEFAULT_LAYERS, int(-(-2 * problem.effective_depth // 1)))


def _method(
    problem: TrainingProblem, method: str | Method, layers: int | None, options: dict[str, Any]
) -> tuple[Method, str]:
    if layers is not None:
        check_count("layers", layers, 1)
    if not isinstance(method, str):
        if isinstance(method, type) or not isinstance(method, Method):
            raise ValueError(wrong_method(method))
        if options:
            name = next(iter(options))
            raise ValueError(f"{name}: give options to the method object, not to solve")
        return (method if layers is None else with_options(method, layers=layers)), ""
    if method == "auto":
        name, own, reason = choose(problem, layers, options)
        return method_named(name, {**own, **options}), reason
    if layers is None and method != "indirect":
        layers = default_layers(problem)
    return method_named(method, {"layers": layers, **options}), ""


def check_method(
    problem: TrainingProblem, method: str | Method, layers: int | None, options: dict[str, Any]
) -> Method:
    """Build the method `solve` would use and check it against the problem, without solving.

    Raises
    ------
    ValueError
        As `solve` would.
    """
    chosen, _ = _method(problem, method, layers, options)
    if isinstance(chosen, (DirectMultipleShooting, DirectSingleShooting)):
        if isinstance(chosen.steps, str):
            check_layers(chosen.layers, problem.effective_depth)
        steps_of(chosen.steps, chosen.layers, problem.effective_depth)
    return chosen
