"""Newton's method on the controls of an Euler network, in the form with fewer flops.

Differential dynamic programming (`hamshoot.methods.newton.differential_dynamic_programming`) is
quadratic in the samples, L ((2m + 4w)n² + 2m²n + m³/3) flops an iteration with m = w(w+1), n = wN,
and L m n numbers of memory. The dense Hessian in the controls
(`hamshoot.methods.newton.reduced_hessian`) is linear in them, 2L²w³(w+1)N + (Lm)³/3 flops and (Lm)²
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hamshoot.methods.common.kept import Midway, Step, kept
from hamshoot.methods.newton import (
    differential_dynamic_programming,
    levenberg_marquardt,
    reduced_hessian,
)
from hamshoot.methods.newton.learned_minimise import minimise_learned
from hamshoot.methods.newton.levenberg_marquardt import Minimum, Model
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.methods.common.watch import Watch

MODELS: dict[str, type[Model]] = {
    "riccati": differential_dynamic_programming.RecursionModel,
    "dense": reduced_hessian.DenseModel,
}
#: Flops of an iteration, and numbers it holds, up to which Newton's method is affordable: some ten
#: seconds on one core, 0.8 GB.
MAX_FLOPS, MAX_NUMBERS = 1.5e11, 1e8


def minimise(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    *,
    tol: float = 1e-7,
    max_iter: int = 100,
    callback: Callable[[float, float], None] | None = None,
    form: str = "auto",
    watch: Watch | None = None,
) -> Minimum:
    """Minimise J over the controls of an Euler network from given ones.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss and a smooth (or linear) activation.
    weights, steps : ndarray, shapes (L, w, w+1) and (L,)
        With learned maps, stacked controls (`hamshoot.theory.learned`), which then have a method
        of their own (`hamshoot.methods.newton.learned_minimise`).
    tol : float
        For the stationarity max_ℓ ‖W − L̃Bσ̂ᵀ‖/max(1, ‖W‖).
    callback : callable, optional
        Receives objective and stationarity of every iterate; may raise.
    form : {"auto", "riccati", "dense"}
        Differential dynamic programming, the dense Hessian, or the one with fewer flops.
    watch : Watch, optional
        Of the solve that this is a step of, which `callback` tells: with it the step is kept
        (`hamshoot.methods.common.kept`).

    Returns
    -------
    Minimum
        Short of `tol` where J can no longer tell a step from rounding and the gradient does not
        fall either, or after `max_iter` iterations.

    Raises
    ------
    ValueError
        For another form.
    """
    if problem.learns:
        return minimise_learned(problem, weights, steps, tol=tol, max_iter=max_iter,
                                callback=callback)
    if form == "auto":
        form = cheaper_form(problem, len(steps))
    if form not in MODELS:
        raise ValueError(f"form: expected one of auto, {', '.join(MODELS)}, got {form!r}")

    def compute(midway: Midway) -> Step:
        least = levenberg_marquardt.minimise(problem, weights, steps, MODELS[form], tol=tol,
                                             max_iter=max_iter, callback=callback, midway=midway)
        return {"weights": least.weights}, {
            "objective": float(least.objective), "stationarity": float(least.stationarity),
            "iterations": int(least.iterations)}

    inputs = (weights, steps, tol, max_iter, form)
    arrays, numbers = kept(watch, problem, "newton", inputs, compute)
    found: dict[str, Any] = {**arrays, **numbers}
    return Minimum(**found)


def cheaper_form(problem: TrainingProblem, layers: int) -> str:
    """The form with fewer flops an iteration, "riccati" or "dense"."""
    sizes = *problem.control_shape, problem.n_samples, layers
    recursion = differential_dynamic_programming.flops(*sizes)
    return "dense" if reduced_hessian.flops(*sizes) < recursion else "riccati"


def affordable(problem: TrainingProblem, layers: int) -> bool:
    """Whether an iteration of the cheaper form keeps to MAX_FLOPS and MAX_NUMBERS."""
    sizes = w, c, N, L = *problem.control_shape, problem.n_samples, layers
    if problem.learns:
        n = learned.count(problem, layers)
        maps = n - L * w * c
        flops = reduced_hessian.flops(*sizes) + 2.0 * n * (maps + w * w) * N + n**3 / 3
        return flops <= MAX_FLOPS and n**2 <= MAX_NUMBERS
    if cheaper_form(problem, layers) == "dense":
        flops, numbers = reduced_hessian.flops(*sizes), (L * w * c) ** 2
    else:
        flops = differential_dynamic_programming.flops(*sizes)
        numbers = L * w * c * (w * N + w * c)
    return flops <= MAX_FLOPS and numbers <= MAX_NUMBERS
