"""Every activation by every method: converged, certified, and the methods agree."""

from functools import cache

import numpy as np
import pytest
from problems import ACTIVATIONS, constants, teacher
from scipy.optimize import minimize

import hamshoot as hs
from hamshoot.theory import layers as discrete

#: ReLU and the linear network have tests of their own everywhere.
NEW = [name for name in ACTIVATIONS if name not in ("relu", "smooth_relu", "linear")]
LAYERS = 4
METHODS = {
    "single shooting": hs.DirectSingleShooting(layers=LAYERS),
    "levels": hs.DirectSingleShooting(layers=LAYERS, optimizer="kronecker", effort="thorough",
                                      gradient_tol=1e-12),
    "multiple shooting": hs.DirectMultipleShooting(layers=LAYERS),
    "rk4": hs.DirectMultipleShooting(layers=2 * LAYERS, integrator="rk4", start="path",
                                     epsilon=(0.5, 1e-2, 0.5)),
    "indirect shooting": hs.IndirectShooting(),
}


def problem_of(activation):
    return teacher(activation, width=2, dims=(2, 1, 2), samples=5, effective_depth=2.0,
                   weight_decay=2e-2)


@cache
def solved(activation, method):
    return hs.solve(problem_of(activation), METHODS[method])


CASES = [(name, method) for name in NEW for method in METHODS
         if method != "rk4" or name in ("tanh", "leaky_relu")]


@pytest.mark.parametrize(("activation", "method"), CASES)
def test_it_converges_and_is_certified(activation, method):
    solution = solved(activation, method)
    exact = activation != "leaky_relu" or method in ("single shooting", "multiple shooting")
    assert solution.status is (hs.Status.CONVERGED if exact else hs.Status.SMOOTHED)
    certificate = hs.certify(solution)
    assert certificate.holds, str(certificate)
    if exact:
        assert certificate.stationarity < 2e-6
        assert solution.objective < 0.9 * solution.problem.trivial_objective


@pytest.mark.parametrize("activation", NEW)
def test_nothing_lower_is_near(activation):
    """SciPy's BFGS on J by the reference formulas, from the answer displaced a little."""
    solution = solved(activation, "single shooting")
    problem, shape, steps = solution.problem, solution.weights.shape, solution.steps

    def value(x):
        A = discrete.roll_out(problem, x.reshape(shape), steps)
        J = discrete.objective(problem, A[-1], x.reshape(shape), steps)[0]
        _, G = discrete.costates(problem, A, x.reshape(shape), steps)
        share = problem.weight_decay / problem.effective_depth
        return J, (share * steps[:, None, None] * G).ravel()

    moved = solution.weights + 1e-2 * np.random.default_rng(0).standard_normal(shape)
    end = minimize(value, moved.ravel(), jac=True, method="BFGS", options={"gtol": 1e-9})
    assert solution.objective == pytest.approx(end.fun, rel=1e-4 if activation == "leaky_relu"
                                               else 1e-9)
    assert value(moved.ravel())[0] > solution.objective


@pytest.mark.parametrize("activation", NEW)
def test_single_and_multiple_shooting_find_the_same_network(activation):
    one, other = solved(activation, "single shooting"), solved(activation, "multiple shooting")
    assert one.objective == pytest.approx(other.objective, rel=1e-9)


@pytest.mark.parametrize("activation", NEW)
def test_descent_trains_the_same_network_and_ends_no_lower(activation):
    problem = problem_of(activation)
    trained = hs.train(problem, layers=LAYERS, optimizer=hs.Adam(rate=0.03, epochs=500))
    assert solved(activation, "single shooting").objective * (1 - 1e-3) < trained.objective
    assert trained.objective < 0.5 * problem.trivial_objective
    A = discrete.roll_out(problem, trained.weights, trained.steps)
    J = discrete.objective(problem, A[-1], trained.weights, trained.steps)[0]
    assert trained.objective == pytest.approx(J, rel=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu", "smooth_leaky_relu"])
def test_files_keep_the_activation(tmp_path, activation):
    solution = solved(activation, "single shooting")
    again = hs.Solution.load(solution.save(tmp_path / "solution.npz"))
    assert again.problem.sigma == solution.problem.sigma
    assert hs.certify(again).holds
    network = solution.to_network()
    X = np.asarray(solution.problem.X)
    read = hs.LeakyResNet.load(network.save(tmp_path / "network.npz"))
    assert read.activation == network.activation
    np.testing.assert_array_equal(read.predict(X), network.predict(X))


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
def test_a_hard_endpoint_is_reached_exactly(activation):
    rng = np.random.default_rng(1)
    problem = hs.TrainingProblem(rng.normal(size=(2, 2)), endpoint=rng.normal(size=(2, 2)),
                                 effective_depth=1.0, weight_decay=0.1, width=2,
                                 activation=activation, **constants(activation, 0.1))
    solution = hs.solve(problem, hs.DirectMultipleShooting(layers=LAYERS))
    assert solution.status is hs.Status.CONVERGED
    assert solution.stationarity < 1e-8
    assert hs.certify(solution).holds
