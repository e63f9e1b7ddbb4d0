"""`tune`: the gradient of the held-out error, and the way down along it."""

import json
from functools import lru_cache

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.derivatives.held_out_error import held_out_error
from hamshoot.derivatives.optimum import optimum_of
from hamshoot.study.held_out import held_out_rows
from hamshoot.study.tune import _best_step, _rank_one

BOTH = ("weight_decay", "effective_depth")


def noisy(samples=30, seed=1, activation="smooth_relu", **options):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((samples, 3))
    Y = np.maximum(X @ rng.standard_normal((3, 2)), 0) @ rng.standard_normal((2, 2))
    Y = 7 + 0.1 * (Y + 0.3 * rng.standard_normal(Y.shape))
    return hs.TrainingProblem(X, Y, activation=activation, **dict(
        width=3, effective_depth=1.0, weight_decay=1e-3, standardize=True) | options)


@lru_cache
def tuned(activation):
    return hs.tune(noisy(activation=activation), layers=4, effort="quick", most_tries=8)


@pytest.mark.parametrize("activation", ["smooth_relu", "relu"])
def test_the_gradient_is_that_of_errors_of_optima_solved_again(activation):
    part, rows = held_out_rows(noisy(activation=activation, weight_decay=0.02), 0.3, 0)
    scale = np.array([0.2, 0.05])
    method = hs.DirectSingleShooting(layers=4, tol=1e-12)
    solution = hs.solve(part, layers=4, tol=1e-11, effort="quick")
    optimum = optimum_of(solution)
    found = held_out_error(optimum, BOTH, rows.X, rows.Y, scale)

    def error(name, t):
        moved = part.replace(**{name: getattr(part, name) + t})
        end = method.solve(moved, initial_guess=solution)
        gaps = (end.to_network().predict(rows.X) - rows.Y) / scale
        return np.sum(gaps**2) / len(gaps)

    assert found.error == pytest.approx(error("weight_decay", 0.0), rel=1e-8)
    for k, name in enumerate(BOTH):
        interval = hs.sensitivity(solution, name).interval
        h = min(1e-4 * getattr(part, name), 0.5 * min(np.abs(interval)))
        difference = (error(name, h) - error(name, -h)) / (2 * h)
        assert found.gradient[k] == pytest.approx(difference, rel=1e-4)


@pytest.mark.parametrize("activation", ["smooth_relu", "relu"])
def test_it_goes_down_and_keeps_the_best(activation):
    found = tuned(activation)
    errors = [one.error for one in found.tries]
    assert found.best.error == min(errors) < errors[0]
    assert found.tries[0].weight_decay == 1e-3
    assert found.tries[0].begun == "search"
    assert all(one.begun.startswith("from λ = ") for one in found.tries[1:])
    assert len(found.gradients) == len(found.tries) <= 8
    assert found.complete
    # The step that was taken first goes down in both.
    first, second = found.tries[:2]
    for slope, name in zip(found.gradients[0], BOTH, strict=True):
        change = np.log(getattr(second, name) / getattr(first, name))
        assert slope * change < 0 or abs(slope) < 0.1 * np.abs(found.gradients[0]).max()


def test_what_it_says_is_that_of_a_validation():
    found = tuned("smooth_relu")
    assert repr(found).startswith("Tuning on ")
    assert "It ended" in found.finding()
    assert "← chosen" in found.table()
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["parameters"] == list(BOTH)
    assert set(record["gradients"][0]) == set(BOTH)
    problem = found.best_problem
    assert problem.weight_decay == found.best.weight_decay
    assert problem.n_samples == 30


def test_the_choice_is_solved_on_all_rows():
    solution = tuned("smooth_relu").solve()
    assert solution.success
    assert solution.problem.n_samples == 30
    assert "chosen on held-out rows" in solution.message


def test_one_parameter_is_tuned_alone_and_the_other_stays():
    found = hs.tune(noisy(), ["weight_decay"], layers=4, effort="quick", most_tries=4)
    assert {one.effective_depth for one in found.tries} == {1.0}
    assert len({one.weight_decay for one in found.tries}) == len(found.tries)


def test_stopped_it_keeps_what_it_has():
    tries = []
    found = hs.tune(noisy(), layers=4, effort="quick", on_try=tries.append,
                    callback=lambda record: len(tries) == 2)
    assert not found.complete
    assert "stopped on request" in found.finding()
    assert found.best.error == min(one.error for one in found.tries)


def test_the_step_is_the_least_of_the_model_in_its_box():
    """Against a grid of the box, of an indefinite model and one with its least inside."""
    axis = np.linspace(-1, 0.5, 151)
    grid = np.array(np.meshgrid(axis, axis)).reshape(2, -1)
    for curvature in (np.diag([-1.0, 2.0]), np.array([[3.0, 1.0], [1.0, 2.0]])):
        slope = np.array([0.1, -0.4])
        step, gain = _best_step(slope, curvature, 1.0, np.full(2, -5.0), np.full(2, 0.5))
        model = slope @ grid + 0.5 * np.sum(grid * (curvature @ grid), axis=0)
        assert gain == pytest.approx(-model.min(), abs=1e-4)
        assert np.all((step >= -1 - 1e-12) & (step <= 0.5 + 1e-12))


def test_rank_one_updates_find_a_quadratic():
    truth = np.array([[2.0, -1.0], [-1.0, -3.0]])
    curvature = np.eye(2)
    for step in (np.array([1.0, 0.2]), np.array([-0.3, 1.0])):
        curvature = _rank_one(curvature, step, truth @ step)
    np.testing.assert_allclose(curvature, truth, atol=1e-12)
    np.testing.assert_allclose(_rank_one(curvature, np.ones(2), truth @ np.ones(2)), truth)
    flat = np.zeros((2, 2))  # a step on which the update is not determined changes nothing
    assert _rank_one(flat, np.array([1.0, 0.0]), np.array([0.0, 1.0])) is flat


@pytest.mark.parametrize(("options", "message"), [
    (dict(parameters="weight_decay"), "parameters: expected a list"),
    (dict(parameters=["width"]), "parameters: expected weight_decay and effective_depth"),
    (dict(parameters=["weight_decay"] * 2), "parameters: expected"),
    (dict(method="indirect"), "expected one that optimises layers"),
    (dict(most_tries=0), "most_tries: expected an integer >= 1"),
    (dict(held_out=2.0), "held_out: expected a share"),
    (dict(layers=400), "at most 4000 controls"),
    (dict(no_such=1), "no such option"),
])
def test_bad_input_is_refused_in_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        hs.tune(noisy(), **options)


def test_a_hard_endpoint_is_refused():
    problem = teacher().replace(endpoint=np.zeros((4, 12)), Y=None, standardize=False)
    with pytest.raises(ValueError, match="hard endpoint"):
        hs.tune(problem)
