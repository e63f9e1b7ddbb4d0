"""Gauss–Legendre steps of the Hamiltonian flow: order, exact symplecticity, same geodesics."""

import numpy as np
import pytest
from problems import between, teacher

import hamshoot as hs
from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.dynamics.gauss_flow import GaussFlow, tableau
from hamshoot.methods.indirect.method import IndirectShooting
from hamshoot.problem.activations import Activation
from hamshoot.theory import hamiltonian as ham

DEPTH, W, N = 3.0, 3, 5
SIGMAS = [("smooth_relu", 0.5), ("linear", 0.0)]


def start(seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.standard_normal((W, N)), rng.standard_normal((W, N)) / N]).reshape(1, -1)


def gauss(name="smooth_relu", epsilon=0.5, bias=True, **options):
    return GaussFlow(W, N, DEPTH, Activation(name, epsilon), bias, **options)


def run(flow, y, p1=0.4, p0=0.0, **options):
    return flow(np.full(len(y), p0), np.full(len(y), p1), y, **options)


def symplectic():
    half = W * N
    J = np.zeros((2 * half, 2 * half))
    J[:half, half:], J[half:, :half] = np.eye(half), -np.eye(half)
    return J


@pytest.mark.parametrize("stages", [2, 3])
def test_the_tableau_has_its_order_and_is_symplectic(stages):
    a, b = tableau(stages)
    c = a.sum(1)
    for q in range(2 * stages):
        assert abs(b @ c**q - 1 / (q + 1)) < 1e-15
    assert abs(b @ c ** (2 * stages) - 1 / (2 * stages + 1)) > 1e-4
    M = b[:, None] * a
    np.testing.assert_allclose(M + M.T, np.outer(b, b), rtol=0, atol=1e-15)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "epsilon"), SIGMAS)
def test_field_and_derivative_are_those_of_the_reference(name, epsilon, bias):
    flow, y, z = gauss(name, epsilon, bias), start().reshape(2, W, N), start(1).reshape(2, W, N)
    settings = dict(effective_depth=DEPTH, activation=Activation(name, epsilon), bias=bias)
    rates, energy = flow._field(y)
    np.testing.assert_allclose(rates, np.stack(ham.flow(*y, **settings)), rtol=0, atol=1e-13)
    assert abs(energy - np.sum(ham.control(*y, **settings) ** 2) / (2 * DEPTH)) < 1e-13
    expected = np.stack(ham.flow_derivative(*y, *z, **settings))
    np.testing.assert_allclose(flow._tangent(y, z), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", [4, 6])
def test_it_converges_to_the_flow_at_its_order(order, bias):
    y = start()
    exact = HamiltonianFlow(W, N, DEPTH, Activation("smooth_relu", 0.5), bias)
    end, _ = run(exact, y)
    errors, energies = [], []
    for steps in (4, 8, 16):
        flow = gauss(bias=bias, order=order, steps_per_segment=steps)
        errors.append(np.abs(run(flow, y)[0] - end).max())
        energies.append(abs(flow.energies[0] - exact.energies[0]))
    for values in (errors, energies):
        rates = np.log2(np.divide(values[:-1], values[1:]))
        assert order - 0.6 < rates[-1] < order + 0.9


@pytest.mark.parametrize(("name", "epsilon"), SIGMAS)
@pytest.mark.parametrize("order", [4, 6])
def test_the_jacobian_is_the_derivative_of_the_steps_and_symplectic(order, name, epsilon):
    """At steps so coarse that the flow itself is far off; the explicit pair is not symplectic."""
    flow, y, J = gauss(name, epsilon, order=order, steps_per_segment=2), start(), symplectic()
    end, jacobian = run(flow, y, jacobian=True)
    np.testing.assert_array_equal(end, run(flow, y)[0])
    exact = HamiltonianFlow(W, N, DEPTH, Activation(name, epsilon))
    assert np.abs(end - run(exact, y)[0]).max() > 1e-7
    Phi = jacobian[0]
    np.testing.assert_allclose(Phi.T @ J @ Phi, J, rtol=0, atol=1e-10)
    v, h = start(3), 1e-6
    difference = (run(flow, y + h * v)[0] - run(flow, y - h * v)[0]) / (2 * h)
    np.testing.assert_allclose(Phi @ v[0], difference[0], rtol=0, atol=1e-7)
    np.testing.assert_allclose(flow.jvp(np.zeros(1), np.full(1, 0.4), y, v)[0], Phi @ v[0],
                               rtol=0, atol=1e-11)
    coarse = HamiltonianFlow(W, N, DEPTH, Activation(name, epsilon), rtol=1e-2, atol=1e-2)
    Phi = run(coarse, y, jacobian=True)[1][0]
    assert np.abs(Phi.T @ J @ Phi - J).max() > 1e-8


def test_the_adjoint_is_the_transpose_of_the_jacobian():
    """Although the steps are so coarse that the flow itself is far off."""
    flow, y = gauss(steps_per_segment=2), np.concatenate([start(0), start(1)])
    u = np.random.default_rng(3).standard_normal(y.shape)
    _, phi = run(flow, y, jacobian=True)
    expected = np.einsum("kij,ki->kj", phi, u)
    pulled = flow.vjp(np.zeros(2), np.full(2, 0.4), y, u)
    np.testing.assert_allclose(pulled, expected, rtol=0, atol=1e-11 * np.abs(phi).max())
    assert np.all(flow.energies > 0)  # of the way there, not of the way back


def test_a_quadratic_invariant_is_exact():
    """Linear and without bias H is invariant under rotations of the neurons: Aᵀ and B give
    BAᵀ − ABᵀ, and under those of the samples AᵀB − BᵀA; both quadratic."""
    flow, y = gauss("linear", 0.0, bias=False, order=4, steps_per_segment=2), start()
    end = run(flow, y)[0]
    (A0, B0), (A1, B1) = y.reshape(2, W, N), end.reshape(2, W, N)
    assert np.abs(A1 - A0).max() > 0.1
    np.testing.assert_allclose(B1 @ A1.T - A1 @ B1.T, B0 @ A0.T - A0 @ B0.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(A1.T @ B1 - B1.T @ A1, A0.T @ B0 - B0.T @ A0, rtol=0, atol=1e-12)


def test_the_way_back_leads_back_and_segments_do_not_mix():
    y = np.concatenate([start(0), start(1)])
    flow = gauss(steps_per_segment=3)
    ends = run(flow, y)[0]
    np.testing.assert_allclose(run(flow, ends, 0.0, 0.4)[0], y, rtol=0, atol=1e-11)
    for k in (0, 1):
        np.testing.assert_allclose(run(flow, y[k : k + 1])[0][0], ends[k], rtol=0, atol=1e-13)


def test_a_step_too_long_for_the_iteration_is_nan_and_the_others_do_not_suffer():
    y = np.concatenate([start(0), 1e3 * start(1)])
    flow = gauss(steps_per_segment=2)
    ends = run(flow, y)[0]
    assert list(flow.statuses) == [0, 1]
    assert np.isnan(ends[1]).all()
    np.testing.assert_allclose(ends[0], run(flow, y[:1])[0][0], rtol=0, atol=1e-13)


# -- geodesics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["auto", "state"])
@pytest.mark.parametrize("order", [4, 6])
def test_the_same_geodesic_up_to_the_error_of_the_steps(order, form):
    problem = teacher("smooth_relu", samples=8, effective_depth=DEPTH, weight_decay=0.03,
                      epsilon=0.5, seed=0)
    exact = IndirectShooting().solve(problem)
    distances, drifts = [], []
    for steps in (2, 4):
        solution = IndirectShooting(integrator="gauss", gauss_order=order, form=form,
                                    steps_per_segment=steps).solve(problem, exact)
        assert solution.success
        assert solution.residuals["discrete_defect"] < 1e-9
        nodes = exact.at(solution.p)
        distances.append(np.abs(solution.momenta - nodes.momenta).max())
        drifts.append(solution.hamiltonian_drift)
        assert solution.residuals["defect"] < distances[-1]
        assert abs(solution.objective - exact.objective) < 10 * distances[-1]
    assert distances[0] < 1e-5
    for values in (distances, drifts):
        assert order - 0.8 < np.log2(values[0] / values[1]) < order + 1.2


def test_a_plain_relu_ends_on_the_flow_that_locates_crossings():
    problem = between([1.0, 0.5], [0.5, 1.0], "relu")
    solution = IndirectShooting(integrator="gauss").solve(problem)
    assert solution.status is hs.Status.CONVERGED
    assert solution.extra["epsilon"] == 0
    assert solution.hamiltonian_drift < 1e-9


@pytest.mark.parametrize(("options", "word"), [
    ({"order": 5}, "order"), ({"steps_per_segment": 0}, "steps_per_segment"),
    ({"name": "relu", "epsilon": 0.0}, "activation"),
])
def test_bad_options_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        gauss(**options)
    if word != "activation":
        name = {"order": "gauss_order"}.get(word, word)
        with pytest.raises(ValueError, match=word):
            IndirectShooting(integrator="gauss", **{name: options[word]})


def test_an_unknown_integrator_is_named():
    with pytest.raises(ValueError, match="integrator"):
        IndirectShooting(integrator="rk4")
