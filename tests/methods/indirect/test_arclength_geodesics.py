"""Geodesics through folds: one neuron, whose stationary points and folds are in closed form."""

from functools import cache

import numpy as np
import pytest
from problems import one_neuron, random_data, teacher
from scipy.optimize import brentq

import hamshoot as hs
from hamshoot.methods.indirect.arclength import can_follow, follow_geodesic
from hamshoot.theory.closed_forms import scalar_objective, scalar_stationary_endpoints

DEPTH, TARGET = 6.0, 1.0


def neuron(decay, activation="linear"):
    return one_neuron(TARGET, activation, effective_depth=DEPTH, weight_decay=decay)


@cache
def curve():
    """From the minimum near the target at λ = 0.2 to the collapsed one at λ = 1."""
    solution = hs.solve(neuron(0.2), method="indirect")
    assert solution.success
    return follow_geodesic(solution, "weight_decay", 1.0)


def folds():
    """λ where two stationary ends of one neuron from a_0 = 1 merge.

    These are roots of 2(a − y)a + (λ/L̃)(L̃ + ln a); with λ(a) from that, dλ/da = 0 at a fold.
    """
    def decay(a):
        return -2 * (a - TARGET) * a * DEPTH / (DEPTH + np.log(a))

    def slope(log_a):
        a, h = np.exp(log_a), 1e-6
        return (decay(a * np.exp(h)) - decay(a * np.exp(-h))) / h

    grid = np.linspace(-DEPTH + 1e-3, -1e-3, 400)
    values = [slope(x) for x in grid]
    roots = [brentq(slope, a, b) for a, b, u, v in
             zip(grid, grid[1:], values, values[1:], strict=False) if u * v < 0]
    return sorted(decay(np.exp(root)) for root in roots)


def test_the_curve_goes_through_both_folds_to_the_other_minimum():
    found = curve()
    assert found.reason == "target"
    assert len(found.folds) == 2
    np.testing.assert_allclose(sorted(found.points[k].value for k in found.folds), folds(),
                               rtol=1e-6)
    assert found.end.objective == pytest.approx(
        scalar_objective(1.0, min(scalar_stationary_endpoints(1.0, TARGET, DEPTH, 1.0)), TARGET,
                         DEPTH, 1.0), rel=1e-8)
    assert found.end.problem.weight_decay == pytest.approx(1.0)


def test_every_point_of_it_is_stationary_and_only_the_branch_between_the_folds_no_minimum():
    found = curve()
    for point in found.points:
        exact = [scalar_objective(1.0, a, TARGET, DEPTH, point.value) for a in
                 scalar_stationary_endpoints(1.0, TARGET, DEPTH, point.value)]
        if abs(np.log(folds()[0] / point.value)) > 1e-3 < abs(np.log(folds()[1] / point.value)):
            assert min(abs(point.objective / J - 1) for J in exact) < 1e-7
        assert point.bottleneck_rank == pytest.approx(-2 * point.hamiltonian / DEPTH)
    first, second = found.folds
    stable = [point.minimum for point in found.points]
    assert all(stable[:first])
    assert not any(stable[first + 1 : second])
    assert all(stable[second + 1 :])


@pytest.mark.parametrize("parameter", ["effective_depth", "weight_decay", "epsilon"])
def test_without_a_fold_the_curve_ends_where_the_solver_does(parameter):
    problem = random_data(sizes=(2, 2, 1), data_seed=3, width=2, effective_depth=1.5,
                          weight_decay=0.05)
    start = {"epsilon": 0.2}.get(parameter) or getattr(problem, parameter)
    solution = hs.solve(problem, method="indirect")
    found = follow_geodesic(solution, parameter, 1.3 * start)
    assert (found.reason, found.folds) == ("target", ())
    other = hs.solve(problem.replace(**{parameter: 1.3 * start}), method="indirect",
                     initial_guess=solution)
    assert found.end.status is hs.Status.CONVERGED
    assert found.end.objective == pytest.approx(other.objective, rel=1e-8)
    assert hs.certify(found.end).holds


def test_what_cannot_be_followed_is_said():
    solution = hs.solve(neuron(0.2), method="indirect")
    with pytest.raises(ValueError, match="expected one of effective_depth"):
        follow_geodesic(solution, "width", 2.0)
    with pytest.raises(ValueError, match="target: expected a finite number"):
        follow_geodesic(solution, "weight_decay", -1.0)
    with pytest.raises(ValueError, match="followed in epsilon where"):
        follow_geodesic(solution, "epsilon", 0.2)
    network = hs.solve(neuron(0.2), layers=8, start="path")
    with pytest.raises(ValueError, match="expected a converged geodesic, got a solution by"):
        follow_geodesic(network, "weight_decay", 1.0)
    assert not can_follow(teacher(), "weight_decay")  # a plain ReLU
    assert not can_follow(teacher("smooth_relu", samples=100), "weight_decay")


def test_it_stops_when_it_is_asked_to():
    solution = hs.solve(neuron(0.2), method="indirect")
    seen = []
    found = follow_geodesic(solution, "weight_decay", 1.0,
                            callback=lambda record: seen.append(record) or len(seen) > 6)
    assert found.reason == "stopped"
    assert found.end is None
