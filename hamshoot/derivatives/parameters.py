"""How the parameters of a layered problem enter it: λ, L̃, ε, targets, inputs, weights of samples.

With the weight ω_s of sample s, 1 in every problem that is posed,

    J = (1/N) Σ_s ω_s‖QA_{L,s} − y_s‖² + λ/(2L̃) Σ_ℓ ρ_ℓ‖W_ℓ‖².

At an optimum dJ*/dθ is the partial derivative of J by θ, with the controls as they are (envelope
theorem), and by the costate it costs no more than a sum:

    dJ*/dλ  = Σρ‖W‖²/(2L̃)                    dJ*/dL̃ = −λ Σρ_ℓH_ℓ/L̃
    dJ*/dY  = −(2/N) (QA_L − Yᵀ) ⊙ ω          dJ*/dX = −λ Pᵀ B_0
    dJ*/dω_s = (1/N) ‖QA_{L,s} − y_s‖²        dJ*/dε = −λ Σρ ⟨W_ℓᵀB_ℓ, ∂_εσ(A_{ℓ−1})⟩

with H_ℓ = ‖W_ℓ‖²/(2L̃) − L̃ Tr(B_ℓA_{ℓ−1}ᵀ) at a stationary point: on a geodesic −λH/L̃ is (λ/2)
times the bottleneck rank. All formulas are analytic, so that a complex step in θ, W and the slopes
on kinks differentiates them once more, exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.optimality import formulas
from hamshoot.optimality.checks import setting_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.optimality.formulas import Setting
    from hamshoot.problem.training_problem import TrainingProblem


class Posed(NamedTuple):
    """A problem for the formulas, in the scaled units of its network; numbers may be complex.

    Attributes
    ----------
    setting : Setting
    lift : ndarray, shape (w, d_in)
        P.
    sample_weights : ndarray, shape (N,)
        ω.
    """

    setting: Setting
    lift: NDArray
    sample_weights: NDArray


class Sweep(NamedTuple):
    """Of one network: A and B at all nodes, (L+1, w, N), and ∂J/∂W, (L, w, w+1)."""

    A: NDArray
    B: NDArray
    gradient: NDArray


def posed(problem: TrainingProblem) -> Posed:
    """A problem as it is, with all weights of samples 1."""
    return Posed(setting_of(problem), problem.lift, np.ones(problem.n_samples))


def value_of(problem: TrainingProblem, of: str, scaled: bool = True) -> float | NDArray:
    """θ, in scaled units or the user's: a number, or an array with one row a sample."""
    if of in ("weight_decay", "effective_depth"):
        return float(getattr(problem, of))
    if of == "epsilon":
        return problem.sigma.epsilon
    if of == "targets":
        return np.array(problem.targets.T if scaled else problem.Y)
    if of == "inputs":
        X = np.array(problem.X, dtype=float)
        return problem.input_scaling.apply(X) if scaled else X
    return np.ones(problem.n_samples)


def shape_of(problem: TrainingProblem, of: str) -> tuple[int, ...]:
    """Of θ; () of a number."""
    return {"targets": (problem.n_samples, problem.d_out), "sample_weights": (problem.n_samples,),
            "inputs": (problem.n_samples, problem.d_in)}.get(of, ())


def units_of(problem: TrainingProblem, of: str) -> NDArray | float:
    """User's units in one scaled unit of θ, by column: what a direction is divided by."""
    if of == "targets":
        return problem.target_scaling.scale
    return problem.input_scaling.scale if of == "inputs" else 1.0


def moved(here: Posed, of: str, change: Any) -> Posed:
    """The problem at θ + change, a number or an array, in scaled units."""
    setting, step = here.setting, np.asarray(change)
    if of == "sample_weights":
        return here._replace(sample_weights=here.sample_weights + step)
    if of == "weight_decay":
        setting = setting._replace(decay=setting.decay + change)
    elif of == "effective_depth":
        setting = setting._replace(leak=setting.leak + change)
    elif of == "epsilon":
        setting = setting._replace(epsilon=setting.epsilon + change)
    elif of == "targets":
        setting = setting._replace(targets=setting.targets + step.T)
    else:
        setting = setting._replace(start=setting.start + here.lift @ step.T)
    return here._replace(setting=setting)


def swept(
    at: Posed, weights: NDArray, steps: NDArray, slopes: NDArray | None = None
) -> Sweep:
    """Roll out and pull back; with slopes (L, w, N), σ(A) = slopes ⊙ A and σ′ = slopes."""
    setting = at.setting
    A = formulas.roll_out(setting, weights, steps, pattern=slopes)
    end = formulas.terminal(setting, A[-1]) * at.sample_weights
    B, G = formulas.costates(setting, A, weights, steps, slopes=slopes, end=end, pattern=slopes)
    return Sweep(A, B, setting.decay / setting.leak * steps[:, None, None] * G)


def objective(at: Posed, weights: NDArray, steps: NDArray, end: NDArray) -> NDArray:
    """J of a network that ends at A_L = `end`, (w, N)."""
    setting = at.setting
    error = setting.readout @ end - setting.targets
    norm = np.sum(steps * np.sum(weights * weights, axis=(1, 2)))
    misfit = np.sum(at.sample_weights * np.sum(error * error, axis=0)) / setting.samples
    return misfit + setting.decay / (2 * setting.leak) * norm


def envelope(
    at: Posed, of: str, weights: NDArray, steps: NDArray, sweep: Sweep
) -> NDArray:
    """The partial derivative of J by θ, of θ's shape, in scaled units. O(Lw²N)."""
    setting, A, B = at.setting, sweep.A, sweep.B
    error = setting.readout @ A[-1] - setting.targets
    if of == "targets":
        return (-2 / setting.samples * error * at.sample_weights).T
    if of == "inputs":
        return -setting.decay * (at.lift.T @ B[0]).T
    if of == "sample_weights":
        return np.sum(error * error, axis=0) / setting.samples
    rho = steps[:, None, None]
    if of == "epsilon":
        w = A.shape[1]
        pulled = rho * np.swapaxes(weights[:, :, :w], 1, 2) @ B[1:]
        by_epsilon = setting.epsilon / (2 * np.sqrt(A[:-1] * A[:-1] + setting.epsilon**2))
        return -setting.decay * np.sum(pulled * by_epsilon)
    norm = np.sum(rho * weights * weights)
    if of == "weight_decay":
        return norm / (2 * setting.leak)
    return setting.decay * (np.sum(rho * B[1:] * A[:-1]) - norm / (2 * setting.leak**2))
