"""Activations held on the kink of large ReLU networks; the dense active set is the oracle."""

import functools

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.dynamics.held_sweeps import Survey
from hamshoot.methods.common.watch import Watch
from hamshoot.methods.newton.active_set import polish
from hamshoot.methods.single_shooting import held as holding
from hamshoot.methods.single_shooting import level_search
from hamshoot.methods.single_shooting.held import HeldRounds, Round, changed
from hamshoot.solution.solution import Status
from hamshoot.theory import layers as discrete

STEPS = np.full(8, 1 / 8)
RULES = Round(1.0, 0.3, 0.1, 10, False)


@functools.cache
def problem():
    return problems.teacher(dims=(4, 2, 4), samples=60, width=6, weight_decay=0.03, seed=0)


@functools.cache
def smoothed():
    """The network at the end of the ladder."""
    return hs.solve(problem(), hs.DirectSingleShooting(
        layers=8, optimizer="kronecker", polish=False))


@pytest.fixture
def large(monkeypatch):
    """Has every network count as one whose gradient is dear."""
    monkeypatch.setattr(level_search, "CHEAP", 0.0)


def solved(**options):
    return hs.solve(problem(), hs.DirectSingleShooting(layers=8, optimizer="kronecker", **options))


def test_it_comes_to_the_point_of_the_dense_active_set():
    met = []
    end = HeldRounds(problem(), STEPS, Watch(), met.append, 1e-3, 1e-5).run(smoothed().weights)
    assert end is not None
    assert end.stationarity <= 1e-5 < 0.01 * smoothed().stationarity
    assert len(met) == end.rounds
    exact = polish(problem(), end.weights, STEPS, 1e-6)
    assert exact.settled
    assert end.objective == pytest.approx(exact.objective, rel=1e-9)
    assert end.entries == exact.held + exact.dead
    zero, there = (np.abs(discrete.roll_out(problem(), W, STEPS)[1:-1]) < 1e-9
                   for W in (end.weights, exact.weights))
    assert np.array_equal(zero, there)
    np.testing.assert_allclose(end.weights, exact.weights, atol=1e-4)


def test_it_leaves_the_concave_kink_that_the_dense_active_set_stays_on():
    exact = polish(problem(), smoothed().weights, STEPS, 1e-3)
    end = HeldRounds(problem(), STEPS, Watch(), lambda W: None, 1e-3, 1e-5).run(
        smoothed().weights)
    A = discrete.roll_out(problem(), exact.weights, STEPS)
    momenta, _ = discrete.costates(problem(), A, exact.weights, STEPS)
    force = discrete.pulled(exact.weights, STEPS, momenta)  # of −J: concave where it is positive
    assert np.any((np.abs(A[:-1]) < 1e-9)[1:] & (force[1:] > 0))
    assert exact.settled
    assert end is not None
    assert end.objective < exact.objective


def test_the_stationarity_it_reports_is_an_upper_bound_on_that_of_the_solution():
    end = HeldRounds(problem(), STEPS, Watch(), lambda W: None, 1e-3, 1e-2).run(
        smoothed().weights)
    assert end is not None
    solution = hs.solve(problem(), hs.DirectSingleShooting(layers=8, max_iter=1),
                        initial_guess=end.weights)  # what is returned is the guess
    np.testing.assert_array_equal(solution.weights, end.weights)
    assert solution.stationarity <= end.stationarity * (1 + 1e-6)
    assert solution.kinks >= end.entries


def test_a_large_relu_network_ends_near_its_own_stationary_point(large):
    solution, without = solved(), solved(polish=False)
    assert solution.status is without.status is Status.FLAT
    assert solution.stationarity <= 1e-2 < without.stationarity
    assert solution.objective <= without.objective
    assert solution.kinks > 0
    assert "activations held on the kink" in solution.message
    assert hs.certify(solution, stationarity=1e-2).holds


def test_a_bound_out_of_reach_is_said_to_be_missed(large):
    solution = solved(kink_tol=1e-300)
    assert solution.status is Status.FLAT
    assert "kink_tol 1e-300" in solution.message
    assert f"stationarity of this network {solution.stationarity:.1e}" in solution.message
    assert solution.stationarity < 1e-3


@pytest.mark.parametrize("end", ["callback", "interrupt"])
def test_what_ends_it_keeps_the_best(large, end):
    before = []

    def stop(record):
        if "held" not in record.stage:
            before.append(record.objective)
        elif "epsilon 0.0003" in record.stage:
            if end == "interrupt":
                raise KeyboardInterrupt
            return True
        return None

    solution = hs.solve(problem(), hs.DirectSingleShooting(layers=8, optimizer="kronecker"),
                        callback=stop)
    assert solution.status is Status.INTERRUPTED
    assert before
    assert solution.objective <= solved(polish=False).objective


def test_it_is_the_same_each_time(large):
    np.testing.assert_array_equal(solved().weights, solved().weights)


# -- the set ---------------------------------------------------------------------------------------


def entry(A, force=1.0, d=0.5, shape=(2, 1, 1)):
    """A survey with one neuron and sample, the same at both nodes."""
    return Survey(*(np.full(shape, float(x)) for x in (A, force, d)))


@pytest.mark.parametrize(("A", "force", "expected"), [
    (0.0, 1.0, True), (0.04, 1.0, True), (0.05, 1.0, False), (-0.05, 1.0, False),
    (0.0, -1.0, False), (0.0, 0.0, False)])
def test_an_entry_is_held_near_a_convex_kink(A, force, expected):
    # σ′_ε = (1 + z/√(z² + ε²))/2 leaves (0.3, 0.7) at |z| = 0.436 ε.
    chosen = changed(entry(A, force), np.zeros((2, 1, 1), bool), 0.1, RULES, 1)
    assert chosen.tolist() == [[[False]], [[expected]]]


@pytest.mark.parametrize(("d", "kept"), [(0.0, True), (-0.09, True), (1.09, True), (-0.11, False),
                                         (1.11, False)])
def test_an_entry_is_let_go_where_its_slope_is_none(d, kept):
    held = np.array([[[False]], [[True]]])
    chosen = changed(entry(0.0, 1.0, d), held, 0.1, RULES, 1)
    assert chosen[1, 0, 0] == kept


def test_no_neuron_holds_more_than_its_share_and_the_nearest_come_first():
    A = np.zeros((2, 1, 5))
    A[1, 0] = [0.03, 0.01, 0.0, 0.02, -0.005]
    survey = Survey(A, np.ones_like(A), np.full_like(A, 0.5))
    held = np.zeros((2, 1, 5), bool)
    held[1, 0, 0] = True
    chosen = changed(survey, held, 0.1, RULES, 3)
    assert chosen[1, 0].tolist() == [True, False, True, False, True]


def test_only_relu_with_a_loss_and_stored_states_is_held(monkeypatch):
    assert holding.can_hold(problem(), 8)
    assert not holding.can_hold(problem().replace(activation="linear"), 8)
    monkeypatch.setattr("hamshoot.theory.blockwise.MOST_STORED", 100)
    assert not holding.can_hold(problem(), 8)


def test_a_bad_bound_is_named():
    with pytest.raises(ValueError, match="kink_tol"):
        hs.DirectSingleShooting(kink_tol=0.0)
