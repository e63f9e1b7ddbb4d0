"""Solutions simulated anew, and their running cost: errors that were planted are found."""

from functools import cache

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.solution import resimulation
from hamshoot.theory import closed_forms as exact
from hamshoot.theory import layers as discrete

GEODESICS = hs.IndirectShooting(tol=1e-12, effort="quick", layers=30)


@cache
def geodesic(activation="smooth_relu"):
    solution = GEODESICS.solve(problems.teacher(
        activation, samples=6, width=3, dims=(3, 2, 3), seed=3, weight_decay=0.03,
        effective_depth=2.0, epsilon=0.2))
    assert solution.success
    return solution


@cache
def layered(activation="relu", layers=6, integrator="euler"):
    problem = problems.teacher(activation, samples=6, width=3, dims=(3, 2, 3), seed=3,
                               weight_decay=0.03, effective_depth=2.0, epsilon=0.2)
    if integrator == "rk4":
        method = hs.DirectMultipleShooting(layers=layers, integrator="rk4", effort="quick")
    else:
        method = hs.DirectSingleShooting(layers=layers, effort="quick")
    return method.solve(problem)


# -- geodesics -------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["smooth_relu", "relu"])
def test_a_geodesic_is_what_its_control_does_by_another_integrator(activation):
    found = geodesic(activation).resimulate()
    assert found.largest_state_error < 1e-9
    assert found.largest_costate_error < 1e-8
    assert found.objective == pytest.approx(geodesic(activation).objective, rel=1e-10)
    assert max(found.state_defect.max(), found.costate_defect.max()) < 1e-9
    assert found.continuous is None
    assert "DOP853" in repr(found)
    assert found.state_error.shape == found.p.shape


def test_a_looser_tolerance_gives_larger_errors():
    loose, tight = (geodesic().resimulate(rtol=rtol) for rtol in (1e-5, 1e-12))
    assert loose.largest_state_error > 10 * tight.largest_state_error
    assert loose.largest_state_error < 1e-3


def test_of_one_neuron_the_simulated_path_is_that_of_the_closed_form():
    """a = a_0 e^{gp} with W ≡ L̃ + g, and B = W/(L̃a)."""
    solution = GEODESICS.solve(problems.between([1.5], [0.8], effective_depth=2.0))
    found, g = solution.resimulate(), np.log(0.8 / 1.5)
    state = 1.5 * np.exp(g * found.p)
    np.testing.assert_allclose(found.representations[:, 0, 0], state, rtol=1e-10)
    np.testing.assert_allclose(found.momenta[:, 0, 0], (2.0 + g) / 2.0 / state, rtol=1e-9)


def test_an_error_in_one_node_is_found_there_and_is_not_carried_on():
    solution = geodesic()
    A = np.array(solution.representations)
    A[20] += 1e-4 * np.linalg.norm(A, axis=(1, 2)).max() / np.sqrt(A[20].size)
    found = solution.replace(representations=A).resimulate()
    assert found.state_defect[19] == pytest.approx(1e-4, rel=0.2)
    assert np.delete(found.state_defect, [19, 20]).max() < 1e-9
    assert int(np.argmax(found.state_error)) == 20


def test_a_control_that_does_not_reach_the_end_is_seen_in_state_and_objective():
    solution = geodesic()
    found = solution.replace(momenta=1.01 * solution.momenta).resimulate()
    assert found.state_error[0] == 0
    assert found.largest_state_error > 1e-3
    assert found.state_error[-1] > found.state_error[5]
    assert abs(found.objective / solution.objective - 1) > 1e-4


def test_a_path_that_blows_up_has_no_numbers_from_there_on():
    solution = geodesic()
    B = np.array(solution.momenta)
    B[30:] *= 1e160
    found = solution.replace(momenta=B).resimulate()
    assert np.all(np.isfinite(found.state_error[:31]))
    assert np.isnan(found.state_error[-1])
    assert np.isnan(found.largest_state_error)


@pytest.mark.parametrize("rtol", [0, 1e-15, 1.0, "small", True, float("nan")])
def test_a_tolerance_that_cannot_be_met_is_refused(rtol):
    with pytest.raises(ValueError, match=r"rtol: expected a number from 2\.3e-14 to 1"):
        geodesic().resimulate(rtol)


# -- layers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "integrator"),
                         [("relu", "euler"), ("smooth_relu", "euler"), ("smooth_relu", "rk4")])
def test_layers_are_their_recursion_to_rounding(activation, integrator):
    solution = layered(activation, integrator=integrator)
    found = solution.resimulate()
    assert found.largest_state_error < 1e-13
    assert found.largest_costate_error < 1e-12
    assert found.objective == pytest.approx(solution.objective, rel=1e-13)
    assert max(found.state_defect.max(), found.costate_defect.max()) < 1e-14
    assert "bits" in found.how


def test_activations_on_the_kink_do_not_spoil_the_costates_of_a_relu_network():
    solution = layered()
    assert solution.kinks > 0
    assert solution.resimulate().largest_costate_error < 1e-12


def test_an_error_in_one_layer_is_found_in_that_layer():
    solution = layered()
    W = np.array(solution.weights)
    W[3] *= 1 + 1e-5
    found = solution.replace(weights=W).resimulate()
    assert int(np.argmax(found.state_defect)) == 3
    assert np.delete(found.state_defect, 3).max() < 1e-14
    assert found.state_error[3] < 1e-14 < 1e-8 < found.state_error[4]


@pytest.mark.parametrize(("integrator", "order"), [("euler", 1), ("rk4", 4)])
def test_the_continuous_network_of_held_controls_is_as_far_off_as_the_order_of_the_layers(
    integrator, order,
):
    """The same control on finer layers: what is left falls as L⁻¹, or L⁻⁴."""
    solution = layered("smooth_relu", layers=6, integrator=integrator)
    errors = []
    for parts in (4, 8):
        weights = np.repeat(solution.weights, parts, axis=0)
        steps = np.repeat(solution.steps, parts) / parts
        A = discrete.roll_out(solution.problem, weights, steps, integrator)
        B, _ = discrete.costates(solution.problem, A, weights, steps, integrator)
        p = np.append(0.0, np.cumsum(steps))
        p[-1] = 1.0
        fine = solution.replace(p=p, weights=weights, steps=steps, representations=A, momenta=B)
        errors.append(fine.resimulate().continuous.largest_state_error)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_of_plain_relu_the_continuous_network_is_told_apart_to_its_tolerance(monkeypatch):
    solution = layered()
    rough = solution.resimulate().continuous
    assert rough.rtol == resimulation.BENT_RTOL > 1e-12
    monkeypatch.setattr(resimulation, "BENT_RTOL", 1e-9)
    fine = solution.resimulate().continuous
    for name in ("state_error", "costate_error"):
        one, other = getattr(rough, name), getattr(fine, name)
        np.testing.assert_allclose(one, other, atol=1e-2 * other.max())
    assert fine.largest_state_error > 1e-2
    assert "discretisation error of these controls" in repr(solution.resimulate())


def test_of_linear_layers_the_continuous_network_is_the_exponential_of_each():
    from scipy.linalg import expm

    problem = problems.between([1.0, 0.3], [0.5, 0.8])
    solution = hs.DirectMultipleShooting(layers=5, effort="quick").solve(problem)
    found, A = solution.resimulate().continuous, problem.initial_state
    for k, (W, rho) in enumerate(zip(solution.weights, solution.steps, strict=True)):
        A = expm(rho * (W - 2.0 * np.eye(2))) @ A
        np.testing.assert_allclose(found.representations[k + 1], A, rtol=1e-10)


# -- running cost ----------------------------------------------------------------------------------


@pytest.mark.parametrize("solution", [geodesic, layered], ids=["geodesic", "layers"])
def test_the_running_cost_and_the_loss_are_the_objective(solution):
    solution = solution()
    cost = solution.running_cost()
    assert cost.objective == pytest.approx(solution.objective, rel=1e-11)
    assert cost.cumulative[0] == 0
    assert np.all(np.diff(cost.cumulative) > 0)
    assert cost.p is solution.p


def test_the_running_cost_of_a_geodesic_is_the_integral_of_its_rate():
    solution = geodesic()
    cost, problem = solution.running_cost(), solution.problem
    x, c = np.polynomial.legendre.leggauss(12)
    for k in (0, 17, 59):
        at = solution.at(cost.p[k] + (x + 1) / 2 * (cost.p[k + 1] - cost.p[k]))
        squares = np.sum(at.weights**2, axis=(1, 2))
        area = problem.weight_decay / 4.0 * (c @ squares) / 2 * (cost.p[k + 1] - cost.p[k])
        assert cost.cumulative[k + 1] - cost.cumulative[k] == pytest.approx(area, rel=1e-10)


def test_without_bias_the_rate_of_a_linear_network_is_constant():
    solution = GEODESICS.solve(problems.between([1.0, 0.4], [0.6, 0.9]))
    cost = solution.running_cost()
    assert np.ptp(cost.rate) < 1e-9 * cost.rate.max()
    path = exact.linear_path(cost.p, solution.problem.initial_state, solution.weights[0], 2.0)
    np.testing.assert_allclose(path.representations, solution.representations, atol=1e-8)
