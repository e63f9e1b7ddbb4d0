"""Lies of all sizes: whatever a file claims beyond what is true of it, the certificate says so.

`test_mutations.py` alters single entries; here whole fields are altered together, so that one lie
covers for another, and points that are no minima claim to be some.
"""

from functools import cache, partial

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.optimality.certificate import COLLAPSED
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Status

teacher = partial(problems.teacher, samples=8, width=3, effective_depth=2.0, seed=0)
SIZES = [1e-6, 1e-4, 1e-2, 1.0]


@cache
def solved(activation):
    return hs.solve(teacher(activation), hs.DirectSingleShooting(layers=5, effort="quick"))


@cache
def path():
    problem = teacher("smooth_relu", samples=4, width=2, weight_decay=0.02, epsilon=0.2)
    return hs.solve(problem, hs.IndirectShooting(segments=5, effort="quick"))


def claimed(problem, W, **options):
    """What a file says whose writer recomputed everything, and claims to have converged."""
    return solution_from_weights(problem, W, np.full(len(W), 1 / len(W)), method="liar",
                                 status=Status.CONVERGED, success=True, **options).replace(
        status=Status.CONVERGED, success=True)


@pytest.mark.parametrize("activation", ["relu", "smooth_relu", "linear"])
@pytest.mark.parametrize("size", SIZES)
def test_a_consistent_file_of_a_point_beside_the_minimum_is_not_stationary(activation, size):
    """All fields agree with the altered controls: only stationarity tells, from 1e-6 on."""
    solution, rng = solved(activation), np.random.default_rng(0)
    for _ in range(3):
        V = rng.standard_normal(solution.weights.shape)
        scale = size * np.linalg.norm(solution.weights) / np.linalg.norm(V)
        lie = claimed(solution.problem, solution.weights + scale * V)
        proof = hs.certify(lie)
        assert not proof.failures or {b.name for b in proof.failures} == {"stationarity"}
        if size >= 1e-4:
            assert not proof.holds
        # What is smaller is stationary to what was claimed, 1e-6, or is told to be none.
        assert proof.holds == (lie.stationarity <= 1e-6)


@pytest.mark.parametrize(("size", "sign"), [(1e-6, 1), (1e-4, -1), (1e-2, 1), (1.0, -1)])
def test_numbers_that_are_altered_together_do_not_cover_for_each_other(size, sign):
    for solution in (solved("relu"), solved("linear"), path()):
        decay = solution.problem.weight_decay / (2 * solution.problem.effective_depth)
        loss = solution.loss * (1 + sign * size)
        norm = solution.parameter_norm * (1 + sign * size)
        for lie in (solution.replace(loss=loss, objective=loss + decay * solution.parameter_norm),
                    solution.replace(parameter_norm=norm, objective=solution.loss + decay * norm),
                    solution.replace(loss=loss, parameter_norm=norm,
                                     objective=loss + decay * norm)):
            names = {b.name.removeprefix("recorded against recomputed ")
                     for b in hs.certify(lie, second_order=False).failures}
            changed = {name for name in ("objective", "loss", "parameter_norm")
                       if getattr(lie, name) != getattr(solution, name)}
            assert {name.replace("_", " ") for name in changed} == names


@pytest.mark.parametrize("size", SIZES)
def test_states_and_costates_that_are_scaled_together_are_noticed(size):
    for solution in (solved("relu"), solved("smooth_relu"), path()):
        for a, b in ((1 + size, 1.0), (1.0, 1 + size), (1 + size, 1 / (1 + size)), (-1.0, -1.0)):
            lie = solution.replace(representations=a * solution.representations,
                                   momenta=b * solution.momenta)
            assert hs.certify(lie, second_order=False).failures, (a, b)


@pytest.mark.parametrize("size", SIZES)
def test_steps_and_nodes_that_are_altered_together_are_noticed(size):
    solution = solved("linear")
    steps = solution.steps.copy()
    steps[1] += size * steps[1] / 2
    steps[2] -= size * steps[1] / 2
    p = np.concatenate([[0.0], np.cumsum(steps)])
    if np.all(steps > 0):
        assert hs.certify(solution.replace(steps=steps, p=p), second_order=False).failures
    other = path()
    p = other.p.copy()
    p[1:-1] += size * np.diff(p)[:-1] / 2
    assert hs.certify(other.replace(p=p), second_order=False).failures


@pytest.mark.parametrize("name", ["stationarity", "boundary_residual", "clarke_residual",
                                  "gradient_norm"])
@pytest.mark.parametrize("size", SIZES)
def test_residuals_that_are_altered_are_noticed(name, size):
    solution = solved("relu")
    changed = {**solution.residuals, name: solution.residuals[name] + size}
    assert hs.certify(solution.replace(residuals=changed), second_order=False).failures


def test_every_status_but_the_true_one_is_a_reason():
    for solution, statuses in ((solved("relu"), tuple(Status)), (path(), tuple(Status)[:4])):
        for status in statuses:
            for success in (True, False):
                lie = solution.replace(status=status, success=success)
                true = (status, success) == (solution.status, solution.success)
                assert hs.certify(lie, second_order=False).holds == true


@pytest.mark.parametrize("activation", ["relu", "smooth_relu", "linear"])
def test_a_collapsed_network_is_never_a_minimum(activation):
    problem = teacher(activation, effective_depth=8.0, weight_decay=40.0)
    for W in (np.zeros((12, *problem.control_shape)),
              hs.solve(problem, layers=12, effort="quick").weights):
        lie = claimed(problem, W)
        proof = hs.certify(lie, stationarity=np.inf)
        assert not proof.holds
        assert proof.second_order.startswith(f"{COLLAPSED}: ")
        assert proof.reasons[-1] == proof.second_order
    honest = solution_from_weights(problem, W, lie.steps, method="test", success=True,
                                   status=Status.CONVERGED)
    assert honest.status is Status.COLLAPSED
    assert not hs.certify(honest, stationarity=np.inf).holds


def test_a_network_that_tells_samples_apart_is_not_called_collapsed():
    for solution in (solved("relu"), solved("linear"), path()):
        assert COLLAPSED not in hs.certify(solution, second_order=False).second_order


def test_the_origin_is_a_saddle_and_never_a_minimum():
    """W = −…: between two ways to fit a product of scalars, in closed form.

    Two layers of one linear neuron, q = c₁c₂ with c = 1 − ρL̃ + ρW: at c₁ = c₂ = 0, J is
    stationary where the weight decay pulls to W = 0 no further than that, and a saddle.
    """
    leak, y = 2.0, 1.0
    problem = hs.TrainingProblem([[1.0]], [[y]], effective_depth=leak, weight_decay=1e-3, width=1,
                                 bias=False, activation="linear")
    W = np.zeros((2, 1, 1))  # ρL̃ = 1: c = ρW, and the gradient of c₁c₂ is 0
    lie = claimed(problem, W).replace(steps=np.full(2, 0.5))
    proof = hs.certify(lie, stationarity=np.inf)
    assert not proof.holds
    assert not proof.second_order.startswith("strict local minimum")


def test_solutions_of_paths_scaled_out_of_all_bounds_are_answered_soon():
    for factor in (1e6, 1e50, 1e200):
        lie = path().replace(representations=factor * path().representations,
                             momenta=factor * path().momenta)
        proof = hs.certify(lie)
        assert not proof.holds
        assert proof.second_order.startswith("not decided")
