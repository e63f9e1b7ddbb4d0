"""The certificate catches what is not optimal, not consistent, or not what the file says."""

import json

import numpy as np
import pytest
from problems import teacher
from scipy.optimize import minimize

import hamshoot as hs
from hamshoot.command.cli import main
from hamshoot.optimality.certificate import reasons_against
from hamshoot.optimality.checks import Bound, setting_of
from hamshoot.optimality.expansion import complex_step_derivatives
from hamshoot.optimality.second_order_layers import second_order
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.theory import layers as discrete


@pytest.fixture(scope="module")
def smooth():
    problem = teacher("smooth_relu", samples=8, width=3, effective_depth=2.0, weight_decay=0.05,
                      seed=0)
    return hs.solve(problem, hs.DirectMultipleShooting(layers=6))


@pytest.fixture(scope="module")
def relu():
    problem = teacher(samples=20, seed=0)
    return hs.solve(problem, hs.DirectMultipleShooting(layers=10))


def test_a_solved_problem_is_certified_a_strict_local_minimum(smooth):
    proof = hs.certify(smooth)
    assert proof.holds
    assert proof.stationarity <= 1e-6
    assert proof.second_order.startswith("strict local minimum")
    assert proof.min_eigenvalue > 0
    assert proof.kinks == 0


def test_a_relu_solution_is_certified_on_its_kinks(relu):
    proof = hs.certify(relu)
    assert proof.holds
    assert proof.kinks > 0
    assert proof.clarke_residual <= 1e-8
    assert proof.stationarity <= 1e-6
    assert proof.second_order.startswith("strict local minimum of the ReLU network")


def test_certificate_and_solution_agree(relu):
    proof = hs.certify(relu)
    for name in ("objective", "loss", "parameter_norm", "stationarity"):
        assert getattr(proof, name) == pytest.approx(getattr(relu, name), rel=1e-9, abs=1e-9)
    assert proof.hamiltonian_drift == pytest.approx(relu.hamiltonian_drift, rel=1e-9)


def test_every_perturbation_of_a_strict_minimum_raises_the_objective(relu):
    problem = relu.problem
    rng = np.random.default_rng(0)
    for _ in range(20):
        V = rng.standard_normal(relu.weights.shape)
        W = relu.weights + 1e-3 * V / np.linalg.norm(V)
        A = discrete.roll_out(problem, W, relu.steps)
        assert discrete.objective(problem, A[-1], W, relu.steps)[0] > relu.objective


@pytest.mark.parametrize("name", ["weights", "representations", "momenta"])
def test_tampered_arrays_are_caught(smooth, name):
    array = np.array(getattr(smooth, name))
    array[1, 0, 0] += 1e-4
    proof = hs.certify(smooth.replace(**{name: array}), second_order=False)
    assert not proof.holds
    assert proof.failures


@pytest.mark.parametrize("name", ["objective", "loss", "parameter_norm"])
def test_tampered_numbers_are_caught(smooth, name):
    proof = hs.certify(smooth.replace(**{name: 0.9 * getattr(smooth, name)}), second_order=False)
    assert [b.name for b in proof.failures] == [
        f"recorded against recomputed {name.replace('_', ' ')}"
    ]


def test_a_false_claim_of_convergence_is_caught(smooth):
    worse = solution_from_weights(
        smooth.problem, 1.01 * smooth.weights, smooth.steps, status=hs.Status.CONVERGED,
        success=True, method="test",
    )
    proof = hs.certify(worse)
    assert [b.name for b in proof.failures] == ["stationarity"]
    assert proof.second_order.startswith("not decided: not a stationary point")


def test_hessian_is_the_difference_of_gradients(smooth):
    problem, W, steps = smooth.problem, smooth.weights, smooth.steps
    none = np.zeros((len(steps), problem.width, problem.n_samples), bool)
    hessian, constraints = complex_step_derivatives(setting_of(problem), W, steps, None, none)
    assert constraints.shape == (0, W.size)
    scale = problem.weight_decay / problem.effective_depth * steps[:, None, None]

    def gradient(weights):
        A = discrete.roll_out(problem, weights, steps)
        return scale * discrete.costates(problem, A, weights, steps)[1]

    V = np.random.default_rng(0).standard_normal(W.shape)
    difference = (gradient(W + 1e-6 * V) - gradient(W - 1e-6 * V)).ravel() / 2e-6
    np.testing.assert_allclose(hessian @ V.ravel(), difference, atol=1e-7)


def test_a_saddle_is_called_one_and_not_certified(tmp_path, capsys):
    """Two neurons kept alike cannot bend: the best symmetric network for sin 2x is a saddle."""
    x = np.linspace(-1.5, 1.5, 9)[:, None]
    problem = hs.TrainingProblem(x, np.sin(2 * x), effective_depth=1.0, weight_decay=2e-3, width=2,
                                 activation="smooth_relu", epsilon=0.1, lift=[[1.0], [1.0]],
                                 readout=[[1.0, 1.0]])
    steps = np.full(3, 1 / 3)
    scale = problem.weight_decay / problem.effective_depth * steps[:, None, None]
    basis = np.zeros((9, 3, 2, 3))
    for layer in range(3):
        basis[3 * layer, layer, [0, 1], [0, 1]] = 1  # each neuron to itself
        basis[3 * layer + 1, layer, [0, 1], [1, 0]] = 1  # each to the other
        basis[3 * layer + 2, layer, :, 2] = 1  # one bias for both

    def fun(z):
        W = np.tensordot(z, basis, 1)
        A = discrete.roll_out(problem, W, steps)
        gradient = scale * discrete.costates(problem, A, W, steps)[1]
        return discrete.objective(problem, A[-1], W, steps)[0], np.tensordot(basis, gradient, 3)

    start = np.array([0.6, 0.6, 0.1] * 3)
    z = minimize(fun, start, jac=True, method="BFGS", options=dict(gtol=1e-10)).x
    W = np.tensordot(z, basis, 1)
    verdict = second_order(problem, W, steps)
    assert verdict.verdict.startswith("saddle")
    assert verdict.min_eigenvalue < -1e-4
    none = np.zeros((3, 2, 9), bool)
    hessian, _ = complex_step_derivatives(setting_of(problem), W, steps, None, none)
    along = 1e-2 * np.linalg.eigh(hessian)[1][:, 0].reshape(W.shape)
    values = [discrete.objective(problem, discrete.roll_out(problem, w, steps)[-1], w, steps)[0]
              for w in (W, W + along, W - along)]
    # The mean of both sides has no odd terms: half the curvature times the step squared.
    fall = 0.5 * (values[1] + values[2]) - values[0]
    assert fall == pytest.approx(0.5e-4 * verdict.min_eigenvalue, rel=0.1)
    solution = solution_from_weights(problem, W, steps, status=hs.Status.CONVERGED,
                                     success=True, method="test")
    proof = hs.certify(solution)
    assert not proof.failures
    assert not proof.holds
    assert proof.reasons == (proof.second_order,)
    assert repr(proof).startswith("Certificate: NOT certified: saddle of the network: smallest")
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(solution.save(tmp_path / "saddle.npz"))])
    assert stop.value.code == 1
    assert capsys.readouterr().out.startswith("Certificate: NOT certified: saddle of the network")
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(tmp_path / "saddle.npz"), "--json", "--stationarity", "inf"])
    assert stop.value.code == 1
    written = json.loads(capsys.readouterr().out)
    assert written["holds"] is False
    assert written["reasons"] == [proof.second_order]
    assert {"name": "stationarity", "value": proof.stationarity, "most": None,
            "holds": True} in written["bounds"]


@pytest.mark.parametrize("verdict", ["saddle of the network: smallest eigenvalue −1",
                                     "concave kink at layer 2", "descent found: J falls"])
def test_a_verdict_against_a_minimum_is_a_reason_and_comes_after_wrong_numbers(relu, verdict):
    assert reasons_against(relu, verdict, [], None) == (verdict,)
    wrong = Bound("defect", float("nan"), 1e-13), Bound("stationarity", 1.0, 2.0)
    assert reasons_against(relu, verdict, wrong, None) == (
        "defect nan, expected at most 1.0e-13", verdict)
    assert reasons_against(relu, "not decided: " + verdict, [], None) == ()


# -- continuous paths ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["smooth_relu", "linear", "relu"])
def path(request):
    problem = teacher(request.param, samples=6, width=3, effective_depth=2.0, weight_decay=0.02,
                      seed=0)
    solution = hs.solve(problem, hs.IndirectShooting(epsilon_last=5e-3))
    assert solution.success, solution.message
    return solution


def test_a_geodesic_is_integrated_anew(path, tmp_path):
    proof = hs.certify(hs.Solution.load(path.save(tmp_path / "path")))
    assert proof.holds, proof
    assert proof.defect < 1e-9
    assert proof.hamiltonian_drift < 1e-8
    assert proof.objective == pytest.approx(path.objective, rel=1e-9)
    assert proof.second_order.startswith("strict local minimum of the path")
    # The spectrum of a path's Hessian gathers at λ/L̃.
    assert 0 < proof.min_eigenvalue < path.problem.weight_decay / path.problem.effective_depth


@pytest.mark.parametrize("name", ["representations", "momenta", "weights"])
def test_a_geodesic_with_a_value_changed_fails(path, name):
    values = np.array(getattr(path, name))
    values[len(values) // 2, 0, 0] += 1e-4
    proof = hs.certify(path.replace(**{name: values}))
    assert not proof.holds


def test_a_geodesic_with_another_objective_fails(path):
    proof = hs.certify(path.replace(objective=path.objective * 1.001))
    assert [bound.name for bound in proof.failures] == ["recorded against recomputed objective"]
