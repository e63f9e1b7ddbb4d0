"""A hard endpoint as a loss: the augmented Lagrangian, which is a training problem itself.

With a multiplier B_1 of the endpoint A_1 = E and a weight c > 0 let

    J_c = (c/N) ‖A_1 − T‖_F² + λ/(2L̃) ∫₀¹ ‖W_p‖_F² dp,    T = E + λN/(2c) B_1.

Its terminal momentum −(2c/(λN))(A_1 − T) is B_1 where A_1 = E: there J_c is stationary if and only
if the endpoint problem is, with the multiplier B_1. Of all networks that reach E, J_c and the norm
differ by one constant, so that **a strict minimum of J_c at A_1 = E is a strict minimum of the norm
among the networks that reach E**, with kinks or without. The converse holds for c large enough if
the second-order form is positive on the tangent space (Bertsekas, *Constrained Optimization and
Lagrange Multiplier Methods*, section 2.2). A minimum of J_c at A_1 ≠ E gives a better multiplier,
its own terminal momentum; the error falls by a factor O(1/c) each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamshoot.problem.training_problem import TrainingProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The decay that a stiff loss of weight 1 has, as a share of L̃/N times the size of the states.
STIFF = 1e-2


def augmented(problem: TrainingProblem, multiplier: NDArray, weight: float) -> TrainingProblem:
    """J_c of a problem with a hard endpoint, as a problem with a loss.

    Parameters
    ----------
    problem : TrainingProblem
        With a hard endpoint.
    multiplier : ndarray, shape (w, N)
        B_1.
    weight : float
        c.
    """
    root = float(np.sqrt(weight))
    return _with_loss(problem, root, _target(problem, multiplier, weight), problem.weight_decay)


def stiff_loss(problem: TrainingProblem) -> TrainingProblem:
    """The endpoint as targets and a small λ, for a search that begins at no multiplier.

    It is J_c at B_1 = 0 but for a common factor.
    """
    return _with_loss(problem, 1.0, _endpoint(problem), problem.weight_decay / stiffness(problem))


def stiffness(problem: TrainingProblem) -> float:
    """The weight c of `stiff_loss`, from which those of the augmented Lagrangian begin."""
    squares = max(float(np.sum(problem.initial_state**2)), float(np.sum(_endpoint(problem)**2)))
    size = min(1.0, max(squares / problem.n_samples, 1e-8))
    return problem.weight_decay * problem.n_samples / (STIFF * problem.effective_depth * size)


def better_multiplier(
    problem: TrainingProblem, multiplier: NDArray, weight: float, gap: NDArray
) -> NDArray:
    """Terminal momentum of J_c where A_1 − E is `gap`."""
    return multiplier - 2 * weight / (problem.weight_decay * problem.n_samples) * gap


def constant(problem: TrainingProblem, multiplier: NDArray, weight: float) -> float:
    """J_c less the norm's part, of every network that reaches the endpoint."""
    apart = _endpoint(problem) - _target(problem, multiplier, weight)
    return weight / problem.n_samples * float(np.sum(apart**2))


def _endpoint(problem: TrainingProblem) -> NDArray:
    if problem.endpoint is None:
        raise ValueError("problem: expected a hard endpoint, got a loss")
    return problem.endpoint


def _target(problem: TrainingProblem, multiplier: NDArray, weight: float) -> NDArray:
    share = problem.weight_decay * problem.n_samples / (2 * weight)
    return _endpoint(problem) + share * multiplier


def _with_loss(
    problem: TrainingProblem, readout: float, targets: NDArray, weight_decay: float
) -> TrainingProblem:
    """The same network with all of A_1 read out."""
    eye = np.eye(problem.width)
    return TrainingProblem(
        problem.initial_state.T, readout * targets.T, width=problem.width, bias=problem.bias,
        activation=problem.sigma,
        effective_depth=problem.effective_depth, weight_decay=weight_decay, lift=eye,
        readout=readout * eye,
    )
