"""Layer steps: formulas, the fixed point of the adaptive ones, and the limit ρL̃ < 1."""

import numpy as np
import pytest
from problems import teacher

from hamshoot.methods.common.starts import equidistant_steps, starting_weights
from hamshoot.network.layer_steps import (
    adaptive_steps_of_path,
    adaptive_update,
    cap_binds,
    irregular_steps,
    largest_step,
    limit_steps,
    relative_changes,
    steps_of,
)
from hamshoot.theory import layers as discrete


def turning_path(p, growth=1.3, turns=2.0):
    """Relative speed √(growth² + (turns·2p)²): the angle runs as p², the size as e^{growth·p}."""
    angle = turns * p**2
    return (np.exp(growth * p) * np.array([np.cos(angle), np.sin(angle)])).T[:, :, None]


def test_irregular_steps_follow_the_formula():
    L, a = 8, 0.6
    raw = np.array([1 / L + a / L * (0.25 - abs(k / L - 0.5)) for k in range(1, L + 1)])
    np.testing.assert_allclose(irregular_steps(L, a), raw / raw.sum(), rtol=1e-15)
    np.testing.assert_allclose(irregular_steps(L, 0), 1 / L, rtol=1e-15)
    assert irregular_steps(L, a).sum() == pytest.approx(1, abs=1e-15)


def test_adaptive_update_follows_the_formula():
    rng = np.random.default_rng(0)
    A, steps = rng.standard_normal((5, 3, 4)), np.array([0.1, 0.2, 0.3, 0.4])
    c = [np.linalg.norm(A[k + 1] - A[k]) / (steps[k] * np.linalg.norm(A[k + 1])) for k in range(4)]
    expected = (1 / np.array(c)) / np.sum(1 / np.array(c))
    np.testing.assert_allclose(adaptive_update(A, steps), expected, rtol=1e-14)
    half = np.sqrt(expected * steps)
    np.testing.assert_allclose(adaptive_update(A, steps, damping=0.5), half / half.sum(),
                               rtol=1e-13)


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_iterated_update_settles_at_equal_relative_changes(damping):
    problem = teacher(samples=15, effective_depth=2.0, weight_decay=2e-3, seed=0)
    steps = equidistant_steps(12)
    weights = starting_weights(problem, steps, "path")
    changes = []
    for _ in range(80):
        A = discrete.roll_out(problem, weights, steps)
        steps = adaptive_update(A, steps, 2.0, damping)
        changes.append(relative_changes(A))
    assert np.ptp(changes[0]) > 0.05 * changes[0].mean()
    assert np.ptp(changes[-1]) < 1e-9 * changes[-1].mean()
    assert steps.sum() == pytest.approx(1, abs=1e-14)
    assert not cap_binds(steps, 2.0)


def test_steps_of_a_path_equal_the_exact_inverse():
    p = np.linspace(0, 1, 4001)
    growth, turns, L = 1.3, 2.0, 7
    steps = adaptive_steps_of_path(p, turning_path(p, growth, turns), L)
    # s(p) = ∫√(g² + (2tp)²)dp in closed form
    k = 2 * turns
    u = k * np.concatenate([[0], np.cumsum(steps)]) / growth
    s = 0.5 * growth**2 / k * (u * np.sqrt(1 + u * u) + np.arcsinh(u))
    np.testing.assert_allclose(np.diff(s), s[-1] / L, rtol=1e-6)
    assert steps.sum() == pytest.approx(1, abs=1e-14)


def test_steps_of_a_path_give_a_network_equal_changes():
    p = np.linspace(0, 1, 2001)
    path = turning_path(p)
    L = 200
    nodes = np.concatenate([[0], np.cumsum(adaptive_steps_of_path(p, path, L))])
    changes = relative_changes(turning_path(np.clip(nodes, 0, 1)))
    assert np.ptp(changes) < 2e-2 * changes.mean()
    assert np.ptp(relative_changes(turning_path(np.linspace(0, 1, L + 1)))) > 0.5 * changes.mean()


def test_limit_keeps_every_leak_below_one_and_says_so():
    steps = np.array([0.7, 0.1, 0.1, 0.05, 0.05])
    limited = limit_steps(steps, 4.0)
    cap = largest_step(5, 4.0)
    assert cap * 4.0 < 1
    assert limited.max() == pytest.approx(cap, rel=1e-12)
    assert limited.sum() == pytest.approx(1, abs=1e-14)
    assert np.all(np.diff(limited) <= 1e-15)
    assert cap_binds(limited, 4.0)
    np.testing.assert_allclose(limit_steps(steps, 1.2), steps, rtol=1e-15)
    assert not cap_binds(steps, 1.2)


def test_limit_fits_when_layers_barely_exceed_the_depth():
    limited = limit_steps([1.0, 0.01, 0.01, 0.01], 3.9)
    assert np.all(limited * 3.9 < 1)
    assert limited.sum() == pytest.approx(1, abs=1e-14)


def test_a_path_at_rest_gets_equidistant_steps():
    A = np.ones((4, 2, 3))
    np.testing.assert_allclose(adaptive_update(A, np.full(3, 1 / 3)), 1 / 3, rtol=1e-15)
    np.testing.assert_allclose(adaptive_steps_of_path([0, 0.5, 0.8, 1], A, 6), 1 / 6, rtol=1e-12)


def test_steps_by_name_or_given():
    np.testing.assert_allclose(steps_of("equidistant", 4, 2.0), 0.25, rtol=1e-15)
    np.testing.assert_allclose(steps_of("irregular", 4, 2.0), irregular_steps(4),
                               rtol=1e-15)
    given = [0.2, 0.3, 0.4, 0.1]
    np.testing.assert_allclose(steps_of(given, 4, 2.0), given, rtol=1e-15)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: irregular_steps(0), "layers"),
        (lambda: irregular_steps(5, 1.0), "a:"),
        (lambda: adaptive_update(np.ones((3, 2, 2)), [0.5, 0.25, 0.25]), "representations"),
        (lambda: adaptive_update(np.zeros((3, 2, 2)), [0.5, 0.5]), "representations"),
        (lambda: adaptive_update(np.ones((3, 2, 2)), [0.5, -0.5]), "steps"),
        (lambda: adaptive_update(np.ones((3, 2, 2)), [0.5, 0.5], damping=1.0), "damping"),
        (lambda: adaptive_steps_of_path([0, 0.5], np.ones((2, 2, 2)), 4), "p:"),
        (lambda: adaptive_steps_of_path([0, 1], np.ones((3, 2, 2)), 4), "representations"),
        (lambda: limit_steps([0.5, 0.5], 2.0), "layers"),
        (lambda: steps_of("adaptive", 4, 2.0), "steps"),
        (lambda: steps_of([0.5, 0.5], 4, 2.0), "steps"),
        (lambda: steps_of([0.2, 0.2], 2, 2.0), "steps"),
        (lambda: steps_of([0.6, 0.2, 0.2], 3, 2.0), "steps"),
        (lambda: steps_of("equidistant", 4, 4.0), "layers"),
    ],
)
def test_bad_input_names_the_argument(call, names):
    with pytest.raises(ValueError, match=f"^{names}"):
        call()

