"""The losses: closed forms, derivatives, what fits the targets and what does not."""

import numpy as np
import pytest
from problems import random_data

import hamshoot as hs
from hamshoot.problem.losses import Loss, softmax

N, D = 6, 3
RNG = np.random.default_rng(0)
Z = 2 * RNG.standard_normal((D, N))
WEIGHTS = RNG.uniform(0.2, 2, N)
ONE_HOT = np.eye(D)[RNG.integers(0, D, N)].T
LOSSES = [Loss(), Loss(weights=WEIGHTS), Loss("huber", 0.7), Loss("huber", 0.7, WEIGHTS),
          Loss("cross_entropy"), Loss("cross_entropy", weights=WEIGHTS)]


def targets_of(loss):
    return ONE_HOT if loss.name == "cross_entropy" else RNG.standard_normal((D, N))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_gradient_and_curvature_are_complex_steps(loss):
    Y, h = targets_of(loss), 1e-30
    gradient = loss.gradient(Z, Y)
    blocks = loss.curvature(Z, Y)
    for k in range(D):
        for j in range(N):
            E = np.zeros((D, N))
            E[k, j] = 1
            assert loss.value(Z + 1j * h * E, Y).imag / h == pytest.approx(gradient[k, j],
                                                                           rel=1e-12, abs=1e-15)
            change = loss.gradient(Z + 1j * h * E, Y).imag / h
            np.testing.assert_allclose(change[:, j], blocks[j, :, k], rtol=1e-12, atol=1e-15)
            assert not np.delete(change, j, axis=1).any()
    assert np.all(np.linalg.eigvalsh(blocks) > -1e-15)  # convex


def test_they_are_what_they_are_called():
    Y = RNG.standard_normal((D, N))
    R = Z - Y
    assert Loss().value(Z, Y) == pytest.approx(np.mean(np.sum(R**2, axis=0)), rel=1e-14)
    far = Loss("huber", 1e3).value(Z, Y)  # never far enough
    assert far == pytest.approx(Loss().value(Z, Y), rel=1e-14)
    tiny = 1e-7
    assert Loss("huber", tiny).value(Z, Y) == pytest.approx(2 * tiny * np.abs(R).sum() / N,
                                                            rel=1e-5)
    nll = -np.mean(np.log(softmax(Z)[ONE_HOT.astype(bool)]))
    assert Loss("cross_entropy").value(Z, ONE_HOT) == pytest.approx(nll, rel=1e-13)
    doubled = Loss(weights=2.0 * np.ones(N))
    assert doubled.value(Z, Y) == pytest.approx(2 * Loss().value(Z, Y), rel=1e-14)


def test_softmax_does_not_overflow_and_does_not_see_a_shift():
    np.testing.assert_allclose(softmax(Z + 1e4), softmax(Z), rtol=1e-11)
    large = np.array([[1e5, -1e5], [0.0, 0.0]])
    assert softmax(large).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert np.isfinite(Loss("cross_entropy").value(large, np.eye(2)))


def problem_of(**options):
    return random_data(sizes=(N, 3, D), data_seed=1, effective_depth=1.5, width=4,
                       weight_decay=0.1, **options)


@pytest.mark.parametrize(("options", "said"), [
    ({"loss": "hinge"}, "loss: expected one of squared, cross_entropy, huber, got 'hinge'"),
    ({"loss": 3}, "loss: expected one of"),
    ({"huber_delta": 1.0}, "huber_delta: expected a number > 0 with the loss 'huber' alone"),
    ({"loss": "huber", "huber_delta": 0.0}, "huber_delta: expected a finite number > 0"),
    ({"loss": "cross_entropy"}, "cross_entropy needs targets that are probabilities"),
    ({"sample_weights": [1.0, 2.0]}, "sample_weights: expected 6 numbers >= 0, not all 0"),
    ({"sample_weights": -np.ones(N)}, "sample_weights: expected 6 numbers >= 0"),
    ({"sample_weights": np.zeros(N)}, "sample_weights: expected 6 numbers >= 0, not all 0"),
    ({"endpoint": np.zeros((4, N)), "loss": "huber"}, "a hard endpoint stands in place of the"),
])
def test_what_does_not_fit_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        problem_of(**options)


def test_a_problem_keeps_its_loss(tmp_path):
    problem = problem_of(loss="huber", sample_weights=WEIGHTS)
    assert problem.criterion.delta == 1.0
    arrays, settings = problem.to_arrays()
    again = hs.TrainingProblem.from_arrays(arrays, settings)
    assert (again.loss, again.criterion.delta) == ("huber", 1.0)
    np.testing.assert_array_equal(again.sample_weights, WEIGHTS)
    assert "huber(δ=1), weighted" in repr(again)
    part = problem.subset([4, 1])
    np.testing.assert_array_equal(part.sample_weights, WEIGHTS[[4, 1]])
    assert part.loss == "huber"
    plain = problem_of().to_arrays()[1]
    assert "loss" not in plain
    assert "huber_delta" not in plain


def test_a_uniform_weight_is_another_weight_decay():
    """J with all weights 2 is twice J with half of λ: the same network is stationary."""
    heavy = problem_of(sample_weights=2 * np.ones(N))
    light = problem_of().replace(weight_decay=0.05)
    W = RNG.standard_normal((2, *heavy.control_shape))
    from hamshoot.theory import layers as discrete

    values = [discrete.objective_of(p, W, np.array([0.5, 0.5])) for p in (heavy, light)]
    assert values[0] == pytest.approx(2 * values[1], rel=1e-13)
