"""What demo 12 measures, against what is known: frames, balance, planted rates, a linear flow."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs

DEMOS = Path(__file__).parents[2] / "demos"
T = np.linspace(0, 12, 301)


@pytest.fixture(scope="module")
def demo():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DEMOS))
        yield SimpleNamespace(**runpy.run_path(str(DEMOS / "12_collapse_and_turnpike.py")))


def rotation(width, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0]


def test_an_orthogonal_frame_and_a_simplex_are_recognised_however_turned_and_scaled(demo):
    classes = np.repeat(np.arange(3), 4)
    frame = 2.5 * rotation(5)[:, :3]
    nc1, orthogonal, simplex, conditioning = demo.collapse(frame[:, classes], classes)
    assert [nc1, orthogonal, simplex] == pytest.approx([0, 0, 0], abs=1e-12)
    assert conditioning == pytest.approx(1)
    # A common shift leaves the simplex of the centred means, not the orthogonal frame.
    shifted = frame + rotation(5, 1)[:, :1]
    _, orthogonal, simplex, conditioning = demo.collapse(shifted[:, classes], classes)
    assert simplex == pytest.approx(0, abs=1e-12)
    assert min(orthogonal, conditioning - 1) > 0.05


def test_nc1_is_the_variance_within_over_that_between(demo):
    classes = np.repeat([0, 1], 2)
    A = np.array([[1.0, 3.0, -1.0, -3.0], [0.5, -0.5, 0.5, -0.5]])
    # Within: 1 + 1/4 about the means (±2, 0); between: 4.
    assert demo.collapse(A, classes)[0] == pytest.approx(1.25 / 4)


def test_balance_is_zero_for_balanced_layers_alone(demo):
    U, middle, V = rotation(4), rotation(4, 1), rotation(4, 2)
    S = np.diag([3.0, 2.0, 1.0, 0.0])
    balanced = np.array([middle @ S @ U.T, V @ S @ middle.T])
    assert demo.balance(balanced) == pytest.approx([0], abs=1e-14)
    assert demo.balance(balanced[::-1])[0] > 0.1
    # Where nothing of A_{ℓ−1} is kept, ρL̃ = 1, the leaky layer is the fully connected one.
    steps = np.array([0.5, 0.5])
    assert demo.leaky_balance(balanced, steps, 2.0) == pytest.approx([0], abs=1e-14)


def test_a_stationary_linear_network_is_in_its_own_balance(demo):
    problem = hs.TrainingProblem(
        np.random.default_rng(0).standard_normal((9, 3)), np.eye(3)[np.arange(9) % 3], width=4,
        effective_depth=2.0, weight_decay=1e-2, activation="linear", bias=False)
    solution = hs.solve(problem, hs.DirectSingleShooting(layers=5, starts=1, reheats=0, workers=1))
    assert solution.success
    own = demo.leaky_balance(solution.weights, solution.steps, 2.0)
    assert own.max() < 1e-8
    moved = solution.weights + 1e-3 * rotation(4)
    assert demo.leaky_balance(moved, solution.steps, 2.0).max() > 1e-5


@pytest.mark.parametrize(("rate", "floor"), [(0.6, 0.0), (1.3, 0.0), (1.1, 2e-2)])
def test_planted_rates_are_found(demo, rate, floor):
    distance = 0.8 * np.exp(-rate * T) + 0.3 * np.exp(-rate * (T[-1] - T)) + floor
    found = demo.fitted(distance, T)
    assert found["rate_above_floor"] == pytest.approx(rate, rel=1e-4)
    assert found["r2_floor"] == pytest.approx(1)
    if floor:
        assert found["floor"] == pytest.approx(floor, rel=1e-3)
        assert found["rate"] < 0.9 * rate
        assert found["r2"] < 0.99
    else:
        assert found["rate"] == pytest.approx(rate, rel=1e-4)
        assert found["floor"] < 1e-6


def test_the_rate_of_the_bound_is_the_largest_that_holds(demo):
    sides = np.exp(-0.7 * T) + np.exp(-0.7 * (T[-1] - T))
    assert demo.bound_rate(demo.BOUND * sides, T) == pytest.approx(0.7)
    # A constant d meets the bound half way: d = 2C e^{−μT/2}, so that μ falls as 1/T.
    assert demo.bound_rate(np.full(T.shape, 0.05), T) == pytest.approx(
        2 * np.log(2 * demo.BOUND / 0.05) / T[-1], rel=1e-6)
    assert demo.bound_rate(np.full(T.shape, 10.0), T) == 0
    assert demo.bound_rate(np.zeros(T.shape), T) == 20


def test_rates_of_a_linear_network_at_rest_are_0_along_the_set_and_1_away_from_it(demo):
    # At A = diag(a, 0), B = diag(1/a, 0), BAᵀA = A: only the second neuron at the second sample
    # leaves rank 1, and there dA/dt = −A and dB/dt = B.
    path = SimpleNamespace(activation=teacher(activation="linear", bias=False).sigma,
                           problem=SimpleNamespace(bias=False))
    rates = demo.linear_rates(np.diag([1.7, 0.0]), np.diag([1 / 1.7, 0.0]), path)
    np.testing.assert_allclose(rates, [0, 0, 0, 1], atol=1e-7)


def test_what_is_missing_is_said(demo, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install scikit-learn"):
        demo.needed()
