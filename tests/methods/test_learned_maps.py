"""Learned lift and readout by every method: the joint optimum, its symmetries, and its limits."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.theory import learned

LAYERS = 5
STEPS = np.full(LAYERS, 1 / LAYERS)
DECAYS = {"lift": {"lift_decay": 0.01}, "readout": {"readout_decay": 0.01},
          "both": {"lift_decay": 0.01, "readout_decay": 0.01}}
DIRECT = {"single": hs.DirectSingleShooting(layers=LAYERS),
          "multiple": hs.DirectMultipleShooting(layers=LAYERS)}


def problem_of(activation="relu", which="both", seed=1, **more):
    return hs.teacher_problem(
        (3, 1, 3), 8, **{"width": 3, "effective_depth": 2.0, "weight_decay": 5e-3, "seed": seed,
                         "activation": activation, "test_samples": 0, **DECAYS[which], **more})


@cache
def solved(method, activation="relu", which="both", seed=1):
    return hs.solve(problem_of(activation, which, seed), DIRECT[method])


@cache
def path(activation="tanh", which="both"):
    return hs.solve(problem_of(activation, which), hs.IndirectShooting(layers=12))


def value(problem, W, P, Q):
    at = problem.with_maps(P, Q)
    return learned.objective_of(at, learned.stacked(at, W), STEPS)


@pytest.mark.parametrize("which", DECAYS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "linear"])
def test_single_shooting_ends_at_a_proved_joint_minimum(activation, which):
    found = solved("single", activation, which)
    certificate = hs.certify(found)
    assert found.status is hs.Status.CONVERGED
    assert certificate.holds, certificate
    assert found.stationarity < 1e-9
    assert "its learned maps included" in certificate.second_order
    assert certificate.second_order.startswith("strict local minimum")
    problem, rng = found.problem, np.random.default_rng(0)
    W, P, Q = found.weights, problem.lift, problem.readout
    for length in (1e-2, 1e-3, 1e-4):  # no point near by is lower
        for _ in range(20):
            moved = [M + length * rng.standard_normal(M.shape) for M in (W, P, Q)]
            moved[1] = P if problem.lift_decay is None else moved[1]
            moved[2] = Q if problem.readout_decay is None else moved[2]
            assert value(problem, *moved) > found.objective - 1e-13


@pytest.mark.parametrize(("activation", "which"), [("relu", "both"), ("tanh", "lift")])
def test_multiple_shooting_finds_the_same(activation, which):
    one, other = solved("single", activation, which), solved("multiple", activation, which)
    assert hs.certify(other).holds
    assert other.objective == pytest.approx(one.objective, rel=1e-10)
    assert other.residuals["multiplier_error"] < 1e-8


def test_the_program_itself_converges_from_elsewhere():
    """IPOPT's own steps in W, A, P and Q, from a network that was moved."""
    found = solved("single", "tanh")
    problem = found.problem
    nlp = DIRECT["multiple"].build(problem)
    assert nlp.learned == ("P", "Q")
    rng = np.random.default_rng(0)
    W, P, Q = (M + 0.02 * rng.standard_normal(M.shape)
               for M in (found.weights, problem.lift, problem.readout))
    at = problem.with_maps(P, Q)
    A = learned.scaled_gradient(at, learned.stacked(at, W), STEPS)[0]
    answer = nlp.solver(x0=nlp.pack(W, A, P, Q), p=nlp.parameters(problem, STEPS, 0.0), lbg=0,
                        ubg=0)
    assert float(answer["f"]) * problem.weight_decay == pytest.approx(found.objective, rel=1e-9)
    maps = nlp.maps(answer["x"])
    np.testing.assert_allclose(maps["P"], problem.lift, atol=1e-5)
    np.testing.assert_allclose(maps["Q"], problem.readout, atol=1e-5)
    with pytest.raises(ValueError, match="pack: expected the learned maps P, Q"):
        nlp.pack(W, A)


@pytest.mark.parametrize(("activation", "which"), [("tanh", "both"), ("linear", "lift")])
def test_geodesics_are_stationary_in_both_maps(activation, which):
    found = path(activation, which)
    assert found.success
    certificate = hs.certify(found)
    assert certificate.holds, certificate
    off = [found.residuals[name] for name in ("lift_stationarity", "readout_stationarity")
           if name in found.residuals]
    assert len(off) == len(DECAYS[which])
    assert max(off) < 1e-8
    assert certificate.second_order.startswith("not decided: lift and readout are learned")
    assert found.objective < found.extra["fixed_objective"]


def test_layers_tend_to_the_geodesic():
    """Of the branch that the finer network is on: O(1/L)."""
    geodesic = path("tanh")
    apart = []
    for layers in (20, 40):
        start = geodesic.to_network(layers=layers)
        found = hs.solve(geodesic.problem, layers=layers, initial_guess=start)
        assert found.success
        apart.append(abs(found.objective - geodesic.objective))
    assert apart[0] / apart[1] == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_never_above_the_optimum_of_the_maps_as_they_were(seed):
    found = solved("single", "relu", "both", seed)
    problem = problem_of(seed=seed)
    fixed = hs.solve(problem.with_fixed_maps(), DIRECT["single"])
    assert found.extra["fixed_objective"] == pytest.approx(
        fixed.objective + problem.map_decay, rel=1e-9)
    assert found.objective <= found.extra["fixed_objective"]
    assert found.objective < 0.9 * found.extra["fixed_objective"]  # as on every teacher tried


def test_an_optimum_of_one_map_starts_the_other():
    half = solved("single", "tanh", "lift")
    whole = half.problem.replace(readout_decay=0.01)
    found = hs.solve(whole, layers=LAYERS, initial_guess=half)
    before = half.objective + 0.005 * np.sum(half.problem.readout**2)
    assert found.objective <= before * (1 + 1e-12)
    assert found.stationarity < 1e-6


def test_the_seed_decides():
    again = hs.solve(problem_of(), DIRECT["single"])
    one = solved("single")
    np.testing.assert_array_equal(again.weights, one.weights)
    np.testing.assert_array_equal(again.problem.lift, one.problem.lift)
    np.testing.assert_array_equal(again.problem.readout, one.problem.readout)


def test_activations_of_a_learned_lift_rest_on_the_kink_with_slopes_between_0_and_1():
    held = 0
    for seed in (1, 2, 3):
        found = solved("single", "relu", "both", seed)
        A, B, W = found.representations, found.momenta, found.weights
        problem = found.problem
        on = np.abs(A[0]) < 1e-12
        held += int(on.sum())
        v = STEPS[0] * W[0][:, :3].T @ B[1]
        passed = B[0] - (1 - STEPS[0] * problem.effective_depth) * B[1]
        d = passed[on] / v[on]
        assert np.all((d > -1e-9) & (d < 1 + 1e-9))
        P = problem.weight_decay / problem.lift_decay * B[0] @ problem.scaled_inputs.T
        np.testing.assert_allclose(P, problem.lift, atol=1e-9)
    assert held > 0


def test_permuted_neurons_cost_the_same_and_are_a_minimum_too():
    found = solved("single")
    problem, order = found.problem, [2, 0, 1]
    W = found.weights[:, order][:, :, [*order, 3]]
    other = hs.LeakyResNet.from_weights(
        problem.with_maps(problem.lift[order], problem.readout[:, order]), W)
    assert hs.certify(other, problem).holds
    assert hs.certify(other, problem).objective == pytest.approx(found.objective, rel=1e-13)


def test_turns_of_a_linear_network_are_told_and_cost_nothing():
    found = solved("single", "linear")
    problem = found.problem
    U = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    W = U @ found.weights
    W[:, :, :3] = W[:, :, :3] @ U.T
    assert value(problem, W, U @ problem.lift, problem.readout @ U.T) == pytest.approx(
        found.objective, rel=1e-12)
    verdict = hs.certify(found).second_order
    # Turns within the directions that nothing enters move nothing.
    used = np.linalg.matrix_rank(np.hstack([problem.lift, problem.readout.T, *found.weights]),
                                 tol=1e-6)
    count = 3 - (3 - used) * (2 - used) // 2
    assert f"up to {count} turns of its neurons that leave J as it is" in verdict
    assert "turns" not in hs.certify(solved("single", "linear", "lift")).second_order


@pytest.mark.parametrize("activation", ["tanh", "linear"])
def test_newtons_method_comes_back_from_near_by(activation):
    found = solved("single", activation)
    problem, rng = found.problem, np.random.default_rng(1)
    stack = learned.stacked(problem, found.weights)
    moved = stack + 1e-3 * rng.standard_normal(stack.shape) * learned.stacked_entries(
        problem, LAYERS)
    end = exact_newton.minimise(problem, moved, STEPS, tol=1e-10, max_iter=12)
    assert end.stationarity <= 1e-10
    assert end.objective == pytest.approx(found.objective, rel=1e-10)


@pytest.mark.parametrize("decay", ["lift_decay", "readout_decay"])
def test_j_rises_with_a_decay_by_half_the_squared_norm(decay):
    found = solved("single", "tanh")
    ends = [hs.solve(found.problem.replace(**{decay: 0.01 + h}), layers=LAYERS,
                     initial_guess=found).objective for h in (1e-5, -1e-5)]
    M = getattr(found.problem, decay.removesuffix("_decay"))
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(np.sum(M**2) / 2, rel=1e-5)


def test_an_interrupted_run_keeps_its_best():
    for method in (DIRECT["single"], hs.IndirectShooting(layers=12)):
        records = []
        found = hs.solve(problem_of("tanh"), method, callback=lambda record, seen=records: (
            seen.append(record), len(seen) > 300)[1])
        assert found.status is hs.Status.INTERRUPTED
        assert not found.success
        assert np.isfinite(found.objective)
        assert found.problem.learns
        assert found.objective < found.problem.trivial_objective


def test_gradient_descent_trains_the_maps_along():
    problem = problem_of("tanh")
    trained = hs.train(problem, layers=LAYERS, start="identity", optimizer=hs.Adam(
        epochs=400, rate=0.03, schedule="cosine", sgd_epochs=0))
    assert trained.problem.readout_decay == 0.01
    assert np.abs(trained.problem.lift - problem.lift).max() > 0.05
    assert trained.objective == pytest.approx(hs.certify(
        trained.to_network(), problem).objective, rel=1e-12)
    fixed = hs.train(problem.with_fixed_maps(), layers=LAYERS, start="identity", optimizer=hs.Adam(
        epochs=400, rate=0.03, schedule="cosine", sgd_epochs=0))
    assert trained.objective < fixed.objective + problem.map_decay
    better = hs.solve(problem, layers=LAYERS, initial_guess=trained)
    assert better.success
    assert better.objective < trained.objective
    with pytest.raises(ValueError, match="adaptive ones are for a fixed lift and readout"):
        hs.train(problem, layers=LAYERS, steps="adaptive")


def test_one_epoch_is_adams_on_all_three():
    """A step of Adam is its rate times the sign of the gradient, on every unknown."""
    problem = problem_of("tanh")
    start = hs.LeakyResNet.from_weights(problem, solved("single", "tanh").weights)
    moved = hs.train(problem, layers=LAYERS, initial_guess=start, optimizer=hs.Adam(
        epochs=1, rate=1e-4, schedule="constant", sgd_epochs=0))
    stack = learned.stacked(problem, start.weights)
    gradient = learned.scaled_gradient(problem, stack, STEPS)[2]
    _, gP, gQ = learned.parts_of(problem, gradient)
    for found, before, slope in ((moved.problem.lift, problem.lift, gP),
                                 (moved.problem.readout, problem.readout, gQ)):
        np.testing.assert_allclose(found - before, -1e-4 * np.sign(slope), rtol=1e-4)


def test_what_does_not_combine_says_so():
    problem = problem_of()
    refusals = [
        (lambda: problem.replace(lift_decay=0.0), "lift_decay: expected a number > 0"),
        (lambda: problem.replace(readout_decay="a"), "readout_decay: expected a number > 0"),
        (lambda: hs.TrainingProblem(np.eye(3), endpoint=np.eye(3), width=3, effective_depth=2.0,
                                    weight_decay=0.1, lift_decay=0.1), "a hard endpoint has none"),
        (lambda: hs.solve(problem, replace(DIRECT["multiple"], nlp_solver="fatrop")),
         "fatrop wants stages"),
        (lambda: hs.solve(problem, replace(DIRECT["single"], optimizer="kronecker")),
         "optimizer 'kronecker' is for a fixed lift and readout"),
        (lambda: hs.sensitivity(solved("single"), "weight_decay"), "for a fixed lift and readout"),
        (lambda: hs.influence(solved("single")), "for a fixed lift and readout"),
        (lambda: solved("single").predictive_spread(problem.X), "for a fixed lift and readout"),
        (lambda: solved("single").mesh_report(refine=(2,)), "for a fixed lift and readout"),
        (lambda: hs.sweep(problem, {"weight_decay": [0.01, 0.02]}, layers=LAYERS),
         "for a fixed lift and readout"),
        (lambda: hs.tune(problem, ["weight_decay"], layers=LAYERS), "for a fixed lift and readout"),
    ]
    for ask, sentence in refusals:
        with pytest.raises(ValueError, match=sentence):
            ask()


def test_memory_mapped_data_are_refused(tmp_path):
    np.save(tmp_path / "X.npy", np.eye(4))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    with pytest.raises(ValueError, match="lift_decay: a lift is learned by exact methods"):
        hs.TrainingProblem(X, np.eye(4), effective_depth=2.0, weight_decay=0.1, width=4,
                           lift_decay=0.1)


def test_classes_learn_too():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 2))
    Y = np.eye(2)[(X[:, 0] * X[:, 1] > 0).astype(int)]
    problem = hs.TrainingProblem(X, Y, effective_depth=1.5, weight_decay=1e-2, width=3,
                                 activation="tanh", loss="cross_entropy", **DECAYS["both"])
    found = hs.solve(problem, DIRECT["single"])
    assert found.stationarity < 1e-6
    assert hs.certify(found).holds
