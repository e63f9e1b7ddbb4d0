"""The implicit steps, their linear algebra and their meshes, against what is known of each."""

import numpy as np
import pytest
from scipy.linalg import expm

from hamshoot.bvp.bordered import BorderedStaircase
from hamshoot.bvp.lobatto import lobatto
from hamshoot.bvp.remeshing import equidistributed, halved


def test_three_stages_are_simpsons_rule():
    method = lobatto(3)
    np.testing.assert_allclose(method.points, [0, 1 / 2, 1], atol=1e-15)
    np.testing.assert_allclose(
        method.weights, [[0, 0, 0], [5 / 24, 1 / 3, -1 / 24], [1 / 6, 2 / 3, 1 / 6]], atol=1e-15)


@pytest.mark.parametrize("stages", [3, 4, 5, 6, 7, 9])
def test_quadrature_has_the_order_of_lobattos(stages):
    method = lobatto(stages)
    for power in range(2 * stages - 2):  # exact up to degree 2s − 3, and no further
        integral = method.weights[-1] @ method.points**power
        assert integral == pytest.approx(1 / (power + 1), abs=1e-11)
    beyond = method.weights[-1] @ method.points ** (2 * stages - 2) - 1 / (2 * stages - 1)
    assert abs(beyond) > 1e-10


@pytest.mark.parametrize("stages", [3, 5, 7])
def test_each_stage_integrates_polynomials(stages):
    method = lobatto(stages)
    for power in range(stages):
        np.testing.assert_allclose(
            method.weights @ method.points**power, method.points ** (power + 1) / (power + 1),
            atol=1e-13)


@pytest.mark.parametrize("stages", [3, 4, 5])
def test_order_of_a_step_on_a_linear_equation(stages):
    """y = exp(Ax) solved stage by stage with a dense matrix: errors fall with h^{2s − 1}."""
    A = np.array([[0.3, 1.0], [-2.0, -0.1]])
    method, errors = lobatto(stages), []
    for h in (0.8, 0.4):
        big = np.eye(2 * stages) - h * np.kron(method.weights, A)
        end = np.linalg.solve(big, np.tile([1.0, 0.5], stages))[-2:]
        errors.append(np.abs(end - expm(h * A) @ [1.0, 0.5]).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2 * stages - 1, abs=0.4)


def test_defects_vanish_and_polynomials_are_exact_for_polynomials():
    method, x = lobatto(5), np.array([0.0, 0.3, 1.0, 1.1])
    at = method.places(x)
    y, slope = np.stack([at**5 - at, at**2], 1), np.stack([5 * at**4 - 1, 2 * at], 1)
    assert abs(method.defects(x, y, slope)).max() <= 1e-14
    fine = np.linspace(0, 1.1, 50)
    u = method.polynomial(x, y, slope)
    np.testing.assert_allclose(u(fine), np.stack([fine**5 - fine, fine**2], 1), atol=1e-13)
    np.testing.assert_allclose(u(fine, 1), np.stack([5 * fine**4 - 1, 2 * fine], 1), atol=1e-12)
    exact = method.residuals(x, u, lambda t, _: np.stack([5 * t**4 - 1, 2 * t], 1))
    assert exact.max() <= 1e-12


def test_residuals_are_the_mean_square():
    method, x = lobatto(4), np.array([0.0, 0.5, 2.0])
    at = method.places(x)
    zero = np.zeros((at.size, 1))
    u = method.polynomial(x, zero, zero)
    found = method.residuals(x, u, lambda t, _: (t**2)[:, None] / (1 - t**2 / 5)[:, None] / 5)
    # u′ − f over 1 + |f| is then (t²/5)/1 to the sign
    for value, (a, b) in zip(found, [(0, 0.5), (0.5, 2)], strict=True):
        assert value == pytest.approx(np.sqrt((b**5 - a**5) / 5 / 25 / (b - a)), rel=1e-12)


@pytest.mark.parametrize("segments", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("parameters", [0, 2])
@pytest.mark.parametrize("dtype", [float, complex])
def test_bordered_staircase_solves_the_dense_system(segments, parameters, dtype):
    rng = np.random.default_rng(segments)
    n, m = 3, parameters

    def draw(*shape):
        real = rng.standard_normal(shape)
        return real if dtype is float else real + 1j * rng.standard_normal(shape)

    left, right, border = (draw(segments, n, k) for k in (n, n, m))
    ends, r, g = draw(n + m, 2 * n + m), draw(segments, n), draw(n + m)
    size = (segments + 1) * n
    dense = np.zeros((size + m, size + m), dtype)
    for k in range(segments):
        rows = slice(k * n, (k + 1) * n)
        dense[rows, k * n : (k + 1) * n] = left[k]
        dense[rows, (k + 1) * n : (k + 2) * n] = right[k]
        dense[rows, size:] = border[k]
    dense[segments * n :, :n] = ends[:, :n]
    dense[segments * n :, size - n : size] += ends[:, n : 2 * n]
    dense[segments * n :, size:] = ends[:, 2 * n :]
    d, q = BorderedStaircase(left, right, border, ends).solve(r, g)
    expected = np.linalg.solve(dense, np.concatenate([r.ravel(), g]))
    np.testing.assert_allclose(np.concatenate([d.ravel(), q]), expected, rtol=1e-9, atol=1e-9)


def test_bordered_staircase_knows_a_singular_system():
    n = 2
    eye = np.broadcast_to(np.eye(n), (3, n, n))
    ends = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0]])
    system = BorderedStaircase(-eye, eye, np.zeros((3, n, 0)), ends)
    assert system.rcond <= 1e-16
    if system.rcond == 0:
        with pytest.raises(np.linalg.LinAlgError):
            system.solve(np.zeros((3, n)), np.zeros(n))


def test_meshes_go_where_residuals_are():
    x, given = np.linspace(0, 1, 11), np.array([0.0, 0.25, 1.0])
    x = np.sort(np.append(x, 0.25))
    residuals = np.full(11, 1e-9)
    residuals[3] = 1.0
    new = equidistributed(x, residuals, 1e-3, 5, given, most=4.0)
    assert np.isin(given, new).all()
    assert np.sum((new > x[3]) & (new < x[4])) >= 3
    assert new.size < 11 + 3  # elsewhere segments have grown
    stays = equidistributed(x, residuals, 1e-3, 5, given, most=4.0, coarsen=False)
    assert np.sum((stays > x[3]) & (stays < x[4])) >= 3
    assert stays.size >= 12
    assert (np.diff(new) > 0).all()


def test_halved():
    np.testing.assert_array_equal(halved(np.array([0.0, 1, 4])), [0, 0.5, 1, 2.5, 4])
