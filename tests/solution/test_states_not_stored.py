"""Many samples: nothing that grows with layers times samples is held."""

import pickle
from functools import partial

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.methods.common.starts import starting_weights
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.theory import blockwise
from hamshoot.theory import layers as discrete

STEPS = np.array([0.2, 0.3, 0.1, 0.25, 0.15])

_problem = partial(
    problems.random_data, activation="relu", sizes=(40, 4, 3), data_seed=3,
    units=((2, 5), (-1, 1)), test_samples=7, width=6, effective_depth=2.5,
    weight_decay=0.03, standardize=True)


def _solution(problem, weights=None, integrator="euler"):
    if weights is None:
        weights = starting_weights(problem, STEPS, "path")
    return solution_from_weights(
        problem, weights, STEPS, status=hs.Status.MAX_ITER, success=False, method="test",
        integrator=integrator, seconds=0.5)


@pytest.fixture
def few(monkeypatch):
    """Limits at which 40 samples are too many to store, in blocks of 7."""
    monkeypatch.setattr(blockwise, "MOST_STORED", 500)
    monkeypatch.setattr(blockwise, "BLOCK_NUMBERS", 7 * 6 * 6)


def _both(monkeypatch, problem, **kwargs):
    stored = _solution(problem, **kwargs)
    monkeypatch.setattr(blockwise, "MOST_STORED", 500)
    monkeypatch.setattr(blockwise, "BLOCK_NUMBERS", 7 * 6 * 6)
    return stored, _solution(problem, **kwargs)


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("activation", ["relu", "smooth_relu", "linear"])
@pytest.mark.parametrize("bias", [True, False])
def test_by_blocks_every_number_is_that_of_the_stored_solution(
    monkeypatch, activation, integrator, bias
):
    problem = _problem(activation=activation, bias=bias, lift="orthonormal")
    stored, blocked = _both(monkeypatch, problem, integrator=integrator)
    assert stored.stored
    assert not blocked.stored
    for name in ("objective", "loss", "parameter_norm", "hamiltonian_drift", "bottleneck_rank",
                 "stationarity"):
        assert getattr(blocked, name) == pytest.approx(getattr(stored, name), rel=1e-12), name
    assert blocked.residuals.keys() == stored.residuals.keys()
    for name, value in stored.residuals.items():
        assert blocked.residuals[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name
    scale = np.abs(stored.hamiltonian).max()
    np.testing.assert_allclose(blocked.hamiltonian, stored.hamiltonian, rtol=0, atol=1e-12 * scale)
    assert not {"representations", "momenta"} & set(vars(blocked))
    for name in ("representations", "momenta"):
        expected = getattr(stored, name)
        np.testing.assert_allclose(getattr(blocked, name), expected, rtol=0,
                                   atol=1e-12 * np.abs(expected).max())
    assert blocked.representations is blocked.representations
    assert not blocked.representations.flags.writeable
    assert not blocked.stored


def test_below_the_limit_nothing_changes():
    solution = _solution(_problem())
    A = discrete.roll_out(solution.problem, solution.weights, STEPS)
    np.testing.assert_array_equal(solution.representations, A)
    assert {"representations", "momenta"} <= set(vars(solution))


def test_on_the_kink_the_residual_is_a_bound_and_says_so(monkeypatch):
    problem = _problem()
    W = np.array(starting_weights(problem, STEPS, "path"))
    # Layer 1 puts neuron 0 on the kink for all samples: A_1 = (1 − ρL̃)A_0 + ρWσ̂(A_0) = 0 needs a
    # cancellation in every sample, so the lift leaves neuron 5 at 0 and no weight feeds it.
    W[0, 5] = 0
    stored, blocked = _both(monkeypatch, problem, weights=W)
    assert stored.kinks == blocked.kinks == 40
    assert blocked.residuals["clarke_residual"] > (1 + 1e-6) * stored.residuals["clarke_residual"]
    assert blocked.residuals["clarke_residual"] == blocked.residuals["gradient_norm"]
    assert blocked.residuals["clarke_residual_is_bound"] == 1
    assert "upper bounds" in blocked.message
    assert "upper bounds" not in stored.message
    np.testing.assert_allclose(blocked.momenta, stored.momenta, rtol=0, atol=1e-12)  # its slopes


def test_a_collapsed_network_is_seen_by_blocks(monkeypatch):
    problem = _problem()
    W = np.zeros((5, *problem.control_shape))
    for integrator, status in (("euler", hs.Status.COLLAPSED), ("rk4", hs.Status.MAX_ITER)):
        stored, blocked = _both(monkeypatch, problem, weights=W, integrator=integrator)
        assert stored.status is blocked.status is status  # e^{−L̃} is not yet small
        assert stored.message == blocked.message
        monkeypatch.undo()


@pytest.mark.usefixtures("few")
def test_what_is_done_with_a_solution_works_without_stored_states(tmp_path):
    problem = _problem(activation="smooth_relu")
    solution = _solution(problem)
    assert solution.summary()["test_error"] == pytest.approx(solution.to_network().test_error(
        problem))
    assert "Hamiltonian" in repr(solution)
    assert not vars(solution).get("_computed")  # none of this needed the states
    path = solution.save(tmp_path / "s.npz")
    assert not {"representations", "momenta"} & set(np.load(path))
    loaded = hs.Solution.load(path)
    assert not loaded.stored
    assert loaded.summary() == solution.summary()
    np.testing.assert_array_equal(loaded.momenta, solution.momenta)
    copy = loaded.replace(message="other")
    assert not copy.stored
    np.testing.assert_array_equal(copy.hamiltonian, loaded.hamiltonian)
    other = loaded.replace(weights=2 * np.asarray(loaded.weights))
    assert np.abs(other.hamiltonian - loaded.hamiltonian).max() > 1e-3
    again = pickle.loads(pickle.dumps(loaded))
    assert not again.stored
    np.testing.assert_array_equal(again.representations, loaded.representations)
    with pytest.raises(AttributeError, match="nothing"):
        _ = loaded.nothing
    with pytest.raises(ValueError, match="representations: expected shape"):
        loaded.replace(representations=np.zeros((2, 3, 4)))


@pytest.mark.parametrize("activation", ["relu", "smooth_relu"])
def test_the_certificate_is_the_same_by_blocks(monkeypatch, activation):
    stored, blocked = _both(monkeypatch, _problem(activation=activation))
    one, other = hs.certify(stored, stationarity=1e3), hs.certify(blocked, stationarity=1e3)
    assert one.holds
    assert other.holds
    for name in ("objective", "loss", "parameter_norm", "stationarity", "clarke_residual",
                 "hamiltonian", "hamiltonian_drift"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-11), name
    assert other.second_order == one.second_order
    wrong = hs.certify(blocked.replace(objective=blocked.objective + 1e-6))
    assert [bound.name for bound in wrong.failures] == ["recorded against recomputed objective"]


@pytest.mark.usefixtures("few")
def test_plots_draw_it():
    pytest.importorskip("matplotlib").use("Agg")
    from hamshoot.study import plot

    solution = _solution(_problem())
    assert len(plot.figure(solution).axes) >= 4
    assert not solution.stored


def test_states_of_a_hard_endpoint_have_to_be_stored():
    problem = hs.TrainingProblem(np.eye(3), endpoint=np.ones((3, 3)), width=3, effective_depth=1.5,
                                 weight_decay=0.1)
    steps = np.full(4, 0.25)
    solution = solution_from_weights(
        problem, np.zeros((4, 3, 4)), steps, status=hs.Status.MAX_ITER, success=False,
        method="test", terminal=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="momenta: a hard endpoint has to store them, got none"):
        solution.replace(momenta=None)


def test_the_whole_solve_goes_without_stored_states(monkeypatch):
    problem = problems.teacher(dims=(4, 2, 4), samples=60, width=6, effective_depth=2.0,
                               weight_decay=2e-3, seed=0)
    method = hs.DirectSingleShooting(layers=5, optimizer="kronecker", max_iter=300, stage_iter=50)
    stored = hs.solve(problem, method)
    monkeypatch.setattr(blockwise, "MOST_STORED", 500)
    solution = hs.solve(problem, method)
    assert not solution.stored
    assert not vars(solution).get("_computed")
    assert solution.status is stored.status
    assert solution.objective == pytest.approx(stored.objective, rel=1e-12)
    assert solution.objective < 0.5 * problem.trivial_objective
    assert hs.certify(solution).holds is (solution.status is hs.Status.SMOOTHED)
    assert hs.certify(solution, stationarity=np.inf).holds
