"""Sentences about numbers that mean nothing to a reader as they stand, or nothing at all.

A bottleneck rank below zero is no dimension; a test error in standardised units is neither in the
user's units nor good or bad by itself. Each sentence says so, and what holds instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.support.checks import brief, plain
from hamshoot.theory.hamiltonian import is_dimension

if TYPE_CHECKING:
    from hamshoot.network.leaky_resnet import LeakyResNet
    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.solution.solution import Solution

#: Above it a point is called not stationary, and H one that is not conserved.
NOT_STATIONARY, DRIFTS = 1e-3, 0.5
#: Of more targets than this the errors are not told one by one.
FEW_TARGETS = 3


def remarks(solution: Solution) -> list[str]:
    """Sentences on the bottleneck rank and the test error of a solution, where they need one.

    Notes
    -----
    Costs a prediction of the held-out rows.
    """
    return [*rank_remark(solution), *worse_than_mean(solution), *in_own_units(solution),
            *alike(solution.problem)]


def alike(problem: TrainingProblem) -> list[str]:
    """That test rows have no weights, where training rows do."""
    if problem.X_test is None or problem.sample_weights is None:
        return []
    return ["The weights are those of the training rows; all test rows count alike in the test "
            "error."]


def comparison_remarks(solutions: Mapping[str, Solution]) -> list[str]:
    """Sentences on several solutions of one problem, by name.

    The bottleneck ranks that are no dimensions, the test errors above that of the mean, and the
    lowest test error in the user's units.
    """
    found = []
    ranks = {name: s.bottleneck_rank for name, s in solutions.items()
             if np.isfinite(s.bottleneck_rank) and not is_dimension(s.bottleneck_rank,
                                                                    s.problem.width)}
    if ranks:
        width = next(iter(solutions.values())).problem.width
        listed = "; ".join(f"{rank:.3g} of {name}" for name, rank in ranks.items())
        found.append(f"A bottleneck rank −2H/L̃ that is no dimension from 0 to {width} says "
                     f"nothing: {listed}. The estimate holds for stationary networks of enough "
                     "layers, whose Hamiltonian is conserved.")
    for name, solution in solutions.items():
        found += [f"{sentence[:-1]} ({name})." for sentence in worse_than_mean(solution)]
    errors = {name: error for name, s in solutions.items()
              if (error := s.test_error()) is not None}
    if errors:
        best = min(errors, key=errors.__getitem__)
        found += [f"{sentence[:-1]} ({best})." for sentence in in_own_units(solutions[best])]
        found += alike(solutions[best].problem)
    return found


def rank_remark(solution: Solution) -> list[str]:
    """Where −2H/L̃ is no dimension, and why."""
    rank, width = solution.bottleneck_rank, solution.problem.width
    if is_dimension(rank, width) or not np.isfinite(rank):
        return []
    drift = solution.hamiltonian_drift
    if solution.steps is not None and not solution.stationarity <= NOT_STATIONARY:
        why = (f"the network is not stationary ({solution.stationarity:.1e}), and its Hamiltonian "
               "that of no optimal path")
    elif drift > DRIFTS:
        why = (f"the Hamiltonian, which an optimal path conserves, drifts by {drift:.1e} along "
               f"these {solution.layers or len(solution.p)} layers: they are too few for its path")
    elif rank < 0:
        why = ("the path moves too fast for this effective depth: its kinetic energy outweighs the "
               "cost of identity, and the estimate is for larger L̃")
    else:
        why = "the cost of identity exceeds the width, as where representations are badly scaled"
    return [f"A bottleneck rank −2H/L̃ of {rank:.3g} says nothing, since dimensions are 0 to "
            f"{width}: {why}."]


def worse_than_mean(solution: Solution) -> list[str]:
    """Where the test error exceeds that of predicting the mean of the training targets."""
    error, mean = solution.test_error(), error_of_mean(solution)
    if error is None or mean is None or not error > mean > 0:
        return []
    units = "" if _identity(solution) else " in standardised units"
    return [f"The test error, {error:.3g}{units}, says that nothing was learned that holds for new "
            f"rows: predicting the mean of the training targets for all of them has {mean:.3g}."]


def in_own_units(solution: Solution) -> list[str]:
    """The test error of a table in the units of its targets, or of classes in labels."""
    problem = solution.problem
    if problem.X_test is None or problem.target_names is None or problem.hard_endpoint:
        return []
    network = solution.to_network()
    count = f"{len(problem.X_test)} held-out row{'' if len(problem.X_test) == 1 else 's'}"
    if problem.classes is not None:
        met = network.accuracy(problem)
        common = _share_of_commonest(problem.Y, problem.Y_test)
        return [f"Of the labels of the {count} {met:.1%} are met; the commonest label of the "
                f"training rows meets {common:.1%}."]
    if _identity(solution) or len(problem.target_names) > FEW_TARGETS:
        return []
    return [f"On the {count} the root mean squared error is {_each(network, problem)}, in the "
            "table's units."]


def error_of_mean(solution: Solution) -> float | None:
    """Test error, in scaled units, of the mean of the training targets; None without test rows."""
    problem = solution.problem
    if problem.X_test is None or problem.hard_endpoint or problem.mapped:
        return None
    Y, Y_test = (problem.target_scaling.apply(np.asarray(rows))
                 for rows in (problem.Y, problem.Y_test))
    mean = np.average(Y, axis=0, weights=problem.sample_weights)
    return float(np.mean(np.sum((Y_test - mean) ** 2, axis=1)))


def _each(network: LeakyResNet, problem: TrainingProblem) -> str:
    """Root mean squared errors by target."""
    errors = np.sqrt(np.mean((network.predict(np.asarray(problem.X_test)) - problem.Y_test) ** 2,
                             axis=0))
    told = [f"{plain(error)} for {brief(name)}"
            for error, name in zip(errors, problem.target_names or (), strict=True)]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)


def _share_of_commonest(Y: Any, Y_test: Any) -> float:
    return float(np.mean(np.argmax(Y_test, axis=1) == int(np.sum(Y, axis=0).argmax())))


def _identity(solution: Solution) -> bool:
    """Whether targets were left in the user's units."""
    scaling = solution.problem.target_scaling
    return bool(np.all(scaling.scale == 1) and np.all(scaling.mean == 0))
