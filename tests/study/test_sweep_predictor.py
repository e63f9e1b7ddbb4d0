"""What the steps of a sweep begin with: the tangent is that of the branch, inside its interval."""

import json

import numpy as np
import pytest
from problems import one_neuron, teacher

import hamshoot as hs
from hamshoot.study.sweep_files import INDEX
from hamshoot.study.sweep_predictor import predictor, tangent_of
from hamshoot.study.sweep_steps import controls

NAMES = ("weight_decay", "effective_depth")
DECAYS = [0.02, 0.03, 0.045]
QUICK = {"layers": 8, "start": "path"}


def guessed(here, name, theta, tangent):
    own = getattr(here.problem, name)
    return predictor(here, {name: own}, None, {}, here.problem.replace(**{name: theta}),
                     {name: theta}, tangent)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["indirect", "single_shooting"])
def test_the_tangent_is_off_by_the_square_of_the_step(method, name):
    options = {"tol": 1e-12} if method == "indirect" else {**QUICK, "tol": 1e-11}
    here = hs.solve(one_neuron(1.0, "linear", effective_depth=3.0, weight_decay=0.03), method,
                    **options)
    tangent, own = tangent_of(here, [name]), getattr(here.problem, name)
    errors, plain = [], []
    for step in (0.08, 0.04):
        theta = own * float(np.exp(step))
        there = hs.solve(here.problem.replace(**{name: theta}), method, initial_guess=here,
                         **options)
        guess, how = guessed(here, name, theta, tangent)
        assert how == "tangent"
        if method == "indirect":
            gaps = [np.abs(one.momenta - there.at(here.p).momenta).max() for one in (guess, here)]
        else:
            kept, _ = guessed(here, name, theta, None)
            gaps = [np.abs(one.weights - there.weights).max() for one in (guess, kept)]
        errors.append(gaps[0])
        plain.append(gaps[1])
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert plain[0] / plain[1] == pytest.approx(2, rel=0.1)


@pytest.fixture(scope="module")
def kinks():
    """A ReLU network with activations held on the kink, solved."""
    found = hs.solve(teacher("relu", samples=8, width=3, dims=(3, 1, 3), weight_decay=0.02),
                     "single_shooting", **QUICK)
    assert found.summary()["kinks"] > 0
    return found


def test_beyond_the_interval_the_tangent_ends_at_its_end(kinks):
    tangent = tangent_of(kinks, ["weight_decay"])
    low, high = tangent.interval["weight_decay"]
    assert low < 0 < high < 1
    assert high == pytest.approx(
        hs.sensitivity(kinks, "weight_decay").interval[1] / kinks.problem.weight_decay, rel=1e-6)
    inside, edge, far = (guessed(kinks, "weight_decay", 0.02 * float(np.exp(share * high)), tangent)
                         for share in (0.5, 1.0, 3.0))
    assert {inside.how, edge.how, far.how} == {"tangent"}
    np.testing.assert_allclose(far.solution.weights, edge.solution.weights, rtol=1e-12)
    moved = [controls(one.solution) - controls(kinks) for one in (inside, edge)]
    np.testing.assert_allclose(2 * moved[0], moved[1], rtol=1e-6, atol=1e-12)


def test_where_there_is_no_derivative_the_secant_takes_its_place(kinks):
    stopped = hs.solve(kinks.problem, "single_shooting", max_iter=3, **QUICK)
    assert tangent_of(stopped, ["weight_decay"]) is None
    # Of a linear network of one neuron the secant is the better guess, so that it is taken.
    one, two = (hs.solve(one_neuron(1.0, "linear", effective_depth=3.0, weight_decay=decay),
                         "single_shooting", **QUICK) for decay in DECAYS[:2])
    theta = DECAYS[2]
    guess, how = predictor(two, {"weight_decay": DECAYS[1]}, one, {"weight_decay": DECAYS[0]},
                           two.problem.replace(weight_decay=theta), {"weight_decay": theta}, None)
    assert how == "secant"
    assert not np.array_equal(guess.weights, two.weights)


def test_every_predictor_leads_to_the_same_points_and_a_column_says_which(tmp_path):
    problem = one_neuron(1.0, "linear", effective_depth=3.0, weight_decay=0.03)
    found = {kind: hs.sweep(problem, {"weight_decay": DECAYS}, search=1, predictor=kind,
                            directory=tmp_path / kind, **QUICK)
             for kind in ("tangent", "secant", "none")}
    for kind, one in found.items():
        np.testing.assert_allclose([point.objective for point in one],
                                   [point.objective for point in found["none"]], rtol=1e-9)
        again = hs.Sweep.load(tmp_path / kind)
        assert [point.predicted for point in again] == [point.predicted for point in one]
        (searched,) = (point for point in one if point.begun == "search")
        assert searched.predicted == ""
        others = {point.predicted for point in one if point is not searched}
        assert others <= {"tangent"} if kind == "tangent" else others <= {kind, "none"}
    assert "tangent" in found["tangent"].table()
    with pytest.raises(ValueError, match="predictor: expected one of secant, tangent, none, got"):
        hs.sweep(problem, {"weight_decay": DECAYS}, predictor="newton")


def test_an_index_from_before_there_were_tangents_is_read(tmp_path):
    problem = one_neuron(1.0, "linear", effective_depth=3.0, weight_decay=0.03)
    hs.sweep(problem, {"weight_decay": DECAYS[:2]}, search=1, directory=tmp_path, **QUICK)
    record = json.loads((tmp_path / INDEX).read_text(encoding="utf-8"))
    for row in record["points"]:
        del row["predicted"]
    (tmp_path / INDEX).write_text(json.dumps(record), encoding="utf-8")
    assert [point.predicted for point in hs.Sweep.load(tmp_path)] == ["", ""]
