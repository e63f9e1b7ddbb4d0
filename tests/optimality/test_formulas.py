"""The certificate's formulas: complex-step derivatives, conservation, other code's numbers."""

import ast
from functools import partial
from pathlib import Path

import numpy as np
import problems
import pytest
from scipy.integrate import solve_ivp

from hamshoot.optimality import formulas
from hamshoot.optimality.checks import setting_of
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

STEPS = np.array([0.15, 0.3, 0.05, 0.25, 0.25])
ACTIVATIONS = problems.ACTIVATIONS

problem_of = partial(
    problems.random_data, sizes=(7, 3, 2), data_seed=5, effective_depth=1.7, width=4,
    weight_decay=0.06, lift="orthonormal", readout="orthonormal")


def network(activation, bias=True):
    problem = problem_of(activation, bias=bias)
    W = 1.5 * np.random.default_rng(6).standard_normal((len(STEPS), *problem.control_shape))
    return problem, setting_of(problem), W


@pytest.mark.parametrize("rule", ["euler", "rk4"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_solvers_reference_says_the_same(activation, bias, rule):
    problem, setting, W = network(activation, bias)
    A = formulas.roll_out(setting, W, STEPS, rule)
    np.testing.assert_allclose(A, discrete.roll_out(problem, W, STEPS, rule), atol=1e-13)
    values = [float(x) for x in formulas.objective(setting, A[-1], W, STEPS)]
    assert values == pytest.approx(discrete.objective(problem, A[-1], W, STEPS), rel=1e-13)
    B, G = formulas.costates(setting, A, W, STEPS, rule)
    for own, theirs in zip((B, G), discrete.costates(problem, A, W, STEPS, rule), strict=True):
        np.testing.assert_allclose(own, theirs, atol=1e-12 * np.abs(theirs).max())
    assert formulas.stationarity(W, G) == pytest.approx(discrete.stationarity(W, G), rel=1e-13)
    settings = {"effective_depth": 1.7, "activation": problem.sigma, "bias": bias}
    for a, b in zip(A, B, strict=True):
        assert formulas.hamiltonian(setting, a, b) == pytest.approx(
            ham.hamiltonian(a, b, **settings), rel=1e-12)
        for own, theirs in zip(formulas.flow(setting, a, b), ham.flow(a, b, **settings),
                               strict=True):
            np.testing.assert_allclose(own, theirs, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.parametrize("rule", ["euler", "rk4"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_is_the_complex_step_of_the_objective(activation, bias, rule):
    """All controls at once, a batch of complex networks: neither sweep back nor G is used here."""
    _, setting, W = network(activation, bias)
    batch = W + 1e-30j * np.eye(W.size).reshape(-1, *W.shape)
    ends = formulas.roll_out(setting, batch, STEPS, rule)[:, -1]
    derivative = formulas.objective(setting, ends, batch, STEPS)[0].imag / 1e-30
    A = formulas.roll_out(setting, W, STEPS, rule)
    _, G = formulas.costates(setting, A, W, STEPS, rule)
    gradient = setting.decay / setting.leak * STEPS[:, None, None] * G
    np.testing.assert_allclose(gradient.ravel(), derivative, rtol=0,
                               atol=1e-13 * np.abs(derivative).max())
    assert formulas.gradient_norm(setting, STEPS, G) == pytest.approx(
        np.linalg.norm(derivative), rel=1e-12)


def test_a_batch_is_its_networks_one_by_one_and_derivatives_of_gradients_are_symmetric():
    _, setting, W = network("smooth_relu")
    batch = W + 1e-30j * np.eye(W.size).reshape(-1, *W.shape)
    A = formulas.roll_out(setting, batch, STEPS)
    B, G = formulas.costates(setting, A, batch, STEPS)
    for k in (0, 17, W.size - 1):
        alone = formulas.costates(setting, A[k], batch[k], STEPS)
        np.testing.assert_allclose(B[k], alone[0], rtol=1e-14)
        np.testing.assert_allclose(G[k], alone[1], rtol=1e-14, atol=1e-14)
    hessian = (STEPS[:, None, None] * G).imag.reshape(W.size, W.size)
    assert np.abs(hessian - hessian.T).max() < 1e-13 * np.abs(hessian).max()


def test_a_pattern_is_the_network_itself_on_its_piece():
    _, setting, W = network("relu")
    A = formulas.roll_out(setting, W, STEPS)
    pattern = formulas.slope(setting, A[:-1])
    assert 0.2 < pattern.mean() < 0.8
    np.testing.assert_array_equal(formulas.roll_out(setting, W, STEPS, pattern=pattern), A)
    B, G = formulas.costates(setting, A, W, STEPS)
    for other in (formulas.costates(setting, A, W, STEPS, pattern=pattern, slopes=pattern),
                  formulas.costates(setting, A, W, STEPS, slopes=pattern, end=B[-1])):
        np.testing.assert_array_equal(other[0], B)
        np.testing.assert_array_equal(other[1], G)
    other = formulas.roll_out(setting, W, STEPS, pattern=1 - pattern)
    assert np.abs(other - A).max() > 0.1


@pytest.mark.parametrize("activation", problems.SMOOTH)
def test_the_flow_is_that_of_its_hamiltonian_and_conserves_it(activation):
    _, setting, _ = network(activation)
    A, B = 0.5 * np.random.default_rng(7).standard_normal((2, 4, 7))
    dA, dB = formulas.flow(setting, A, B)
    batch = 1e-30j * np.eye(A.size).reshape(-1, *A.shape)
    by_A = formulas.hamiltonian(setting, A + batch, B).imag.reshape(A.shape) / 1e-30
    by_B = formulas.hamiltonian(setting, A, B + batch).imag.reshape(A.shape) / 1e-30
    np.testing.assert_allclose(dA, by_B, atol=1e-13 * np.abs(by_B).max())
    np.testing.assert_allclose(dB, -by_A, atol=1e-13 * np.abs(by_A).max())

    def rates(_, y):
        return np.concatenate([r.ravel() for r in formulas.flow(setting, *y.reshape(2, 4, 7))])

    start = np.concatenate([A.ravel(), B.ravel()])
    end = solve_ivp(rates, (0, 0.5), start, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    assert np.abs(end - start).max() > 0.1
    assert formulas.hamiltonian(setting, *end.reshape(2, 4, 7)) == pytest.approx(
        formulas.hamiltonian(setting, A, B), rel=1e-9)


def test_the_smooth_relu_keeps_its_digits_far_from_the_kink():
    """For z → −∞, σ_ε(z) = ε²/(4|z|)(1 + O(ε²/z²)) and σ_ε′(z) = ε²/(4z²)(1 + O(ε²/z²))."""
    _, setting, _ = network("smooth_relu")
    z = -np.array([1e5, 1e7])
    np.testing.assert_allclose(formulas.sigma(setting, z), 0.2**2 / 4 / -z, rtol=1e-11)
    np.testing.assert_allclose(formulas.slope(setting, z), 0.2**2 / 4 / z**2, rtol=1e-11)
    near = np.linspace(-2, 2, 41) + 1e-30j
    np.testing.assert_allclose(formulas.sigma(setting, near).imag / 1e-30,
                               formulas.slope(setting, near.real), rtol=1e-13)


def test_the_formulas_import_numpy_and_the_standard_library_alone():
    tree = ast.parse(Path(formulas.__file__).read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"__future__", "math", "typing", "numpy", "numpy.typing"}
