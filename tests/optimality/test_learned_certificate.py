"""The certificate of learned maps: what is tampered with is seen, verdicts are the joint ones."""

from functools import cache

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.methods.newton.escape import escape
from hamshoot.optimality.second_order_layers import second_order
from hamshoot.theory import learned


@cache
def solved(activation="relu"):
    problem = hs.teacher_problem(
        (3, 1, 3), 8, width=3, effective_depth=2.0, weight_decay=5e-3, seed=1, test_samples=0,
        activation=activation, lift_decay=0.01, readout_decay=0.01)
    return hs.solve(problem, layers=5)


def test_a_file_brings_back_what_holds(tmp_path):
    found = hs.Solution.load(solved().save(tmp_path / "solution"))
    assert found.problem.lift_decay == found.problem.readout_decay == 0.01
    np.testing.assert_array_equal(found.problem.lift, solved().problem.lift)
    certificate = hs.certify(found)
    assert certificate.holds, certificate
    assert certificate.lift_stationarity < 1e-9
    assert certificate.readout_stationarity < 1e-9
    assert certificate.map_decay == pytest.approx(found.problem.map_decay, rel=1e-14)
    assert "learned       stationarity of lift" in repr(certificate)
    assert any(sentence.startswith("The lift and readout, learned") and "are stationary" in sentence
               for sentence in certificate.in_words())
    assert found.summary()["map_decay"] == found.problem.map_decay


@pytest.mark.parametrize("tampered", ["lift", "readout", "lift_decay", "readout_decay", "recorded"])
def test_what_is_tampered_with_is_seen(tampered):
    found = solved("tanh")
    problem = found.problem
    if tampered == "recorded":
        other = found.replace(residuals={**found.residuals, "lift_stationarity": 1e-7})
    elif tampered.endswith("decay"):
        other = found.replace(problem=problem.replace(**{tampered: 0.01 * (1 + 1e-7)}))
    else:
        maps = {"lift": problem.lift.copy(), "readout": problem.readout.copy()}
        maps[tampered][0, 0] += 1e-8
        other = found.replace(problem=problem.with_maps(**maps))
    assert hs.certify(found).holds
    assert not hs.certify(other).holds


def test_an_optimum_of_the_weights_alone_is_not_stationary_in_the_maps():
    found = solved("tanh")
    fixed = hs.solve(found.problem.with_fixed_maps(), layers=5, initial_guess=found)
    assert hs.certify(fixed).holds
    for decays, name in (({"lift_decay": 0.02}, "lift"), ({"readout_decay": 0.02}, "readout")):
        certificate = hs.certify(fixed.to_network(), fixed.problem.replace(**decays))
        assert not certificate.holds
        assert max(certificate.layer_stationarity) < 1e-9
        assert certificate.stationarity == getattr(certificate, f"{name}_stationarity") > 0.1


def test_a_saddle_in_the_maps_is_left():
    """Two neurons that do the work of one: stationary by symmetry, and lower when they part.

    With shares v/2 of every weight between them and q/2 of the readout, two neurons cost what one
    does whose lift decays with 2μ and whose readout with μ/2.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((10, 2))
    Y = np.tanh(2 * X @ np.array([[1.0, 0.3], [-0.6, 1.0]]))
    mu = 2e-3
    narrow = hs.TrainingProblem(X, Y, effective_depth=1.5, weight_decay=2e-3, width=1, bias=False,
                                activation="tanh", lift_decay=2 * mu, readout_decay=mu / 2)
    one = hs.solve(narrow, layers=4)
    wide = narrow.replace(width=2, lift=np.vstack([one.problem.lift] * 2), lift_decay=mu,
                          readout=np.hstack([one.problem.readout] * 2) / 2, readout_decay=mu)
    steps, W = np.full(4, 0.25), one.weights * np.ones((2, 2)) / 2
    found = second_order(wide, W, steps)
    assert learned.objective_of(wide, learned.stacked(wide, W), steps) == pytest.approx(
        one.objective, rel=1e-12)
    assert found.refuted, found.verdict
    assert found.lowest is not None
    left = escape(wide, learned.stacked(wide, W), steps, 0.0, tol=1e-9)
    assert left.objectives[-1] < 0.9 * left.objectives[0]
    assert left.verdict is not None
    assert not left.verdict.refuted
