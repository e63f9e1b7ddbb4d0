"""Derivatives of optima with activations beyond ReLU, and what is refused in one sentence."""

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.methods.indirect.arclength import follow_geodesic

SHOOT = hs.DirectSingleShooting(layers=4, tol=1e-11, effort="quick")


def problem_of(activation="tanh", **options):
    return teacher(activation, samples=6, width=2, effective_depth=2.0, weight_decay=0.05,
                   dims=(2, 2, 1), seed=3).replace(**options)


@pytest.mark.parametrize("activation", ["tanh", "softplus", "gelu", "smooth_leaky_relu"])
def test_other_smooth_activations_have_derivatives(activation):
    """dJ*/dλ and dW/dλ against optima solved again."""
    problem = problem_of(activation)
    solution = hs.solve(problem, SHOOT)
    found = hs.sensitivity(solution, "weight_decay", 1.0)
    step = 1e-5
    up, down = (hs.solve(problem.replace(weight_decay=0.05 + change), SHOOT,
                         initial_guess=solution) for change in (step, -step))
    assert (up.objective - down.objective) / (2 * step) == pytest.approx(found.objective, rel=1e-6)
    rate = (up.weights - down.weights) / (2 * step)
    assert np.linalg.norm(rate - found.weights) < 1e-4 * np.linalg.norm(rate)


REFUSED = [
    ({"loss": "huber", "huber_delta": 0.3}, "mean squared error alone, not the loss 'huber'"),
    ({"sample_weights": np.arange(1.0, 7.0)}, "mean squared error alone, not sample weights"),
    ({"activation": hs.Activation.custom("arctangent", np.arctan, lambda z: 1 / (1 + z * z),
                                         lambda z: -2 * z / (1 + z * z) ** 2)},
     "'arctangent' is made of functions"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_what_has_no_derivatives_here_is_refused_at_every_door(options, sentence):
    problem = problem_of(**options)
    solution = hs.solve(problem, layers=3, effort="quick")
    for door in (lambda: hs.sensitivity(solution, "weight_decay"), lambda: hs.influence(solution),
                 lambda: solution.predictive_spread(problem.X),
                 lambda: hs.tune(problem, layers=3, effort="quick")):
        with pytest.raises(ValueError, match=sentence):
            door()


@pytest.mark.parametrize("options", [{"loss": "huber", "huber_delta": 0.3}, {
    "activation": "gelu", "sample_weights": np.arange(1.0, 7.0)}])
def test_a_solution_is_simulated_again_with_its_own_loss(options):
    solution = hs.solve(problem_of(**options), SHOOT)
    again = solution.resimulate()
    assert again.costate_error.max() < 1e-12
    assert again.objective == pytest.approx(solution.objective, rel=1e-13)


def test_geodesics_of_another_loss_are_followed():
    """The end of the curve is the geodesic solved there."""
    X = np.random.default_rng(0).normal(size=(8, 2))
    problem = hs.TrainingProblem(X, np.tanh(X[:, :1]), effective_depth=2.0, weight_decay=0.05,
                                 width=3, activation="tanh", loss="huber", huber_delta=0.3)
    solution = hs.solve(problem, "indirect", effort="quick")
    end = follow_geodesic(solution, "weight_decay", 0.055).points[-1]
    there = hs.solve(problem.replace(weight_decay=0.055), "indirect", initial_guess=solution)
    assert end.value == pytest.approx(0.055, rel=1e-12)
    assert end.objective == pytest.approx(there.objective, rel=1e-9)
