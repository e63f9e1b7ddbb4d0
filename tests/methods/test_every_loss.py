"""Every loss: the same in all copies of the formulas, solved by every method, and certified."""

from functools import cache

import numpy as np
import pytest
from scipy.optimize import minimize

import hamshoot as hs
from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.multiple_shooting.nlp import build_nlp
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.reduced_hessian import expansion, second_derivatives
from hamshoot.optimality import formulas
from hamshoot.optimality.checks import setting_of
from hamshoot.optimality.expansion import complex_step_derivatives
from hamshoot.theory import layers as discrete

N, LAYERS = 6, 4
STEPS = np.full(LAYERS, 1 / LAYERS)
WEIGHTS = np.random.default_rng(9).uniform(0.3, 2, N)
KINDS = {
    "weighted": {"sample_weights": WEIGHTS},
    "huber": {"loss": "huber", "huber_delta": 0.3},
    "cross_entropy": {"loss": "cross_entropy"},
    "cross_entropy, weighted": {"loss": "cross_entropy", "sample_weights": WEIGHTS},
}
METHODS = {
    "single shooting": hs.DirectSingleShooting(layers=LAYERS),
    "multiple shooting": hs.DirectMultipleShooting(layers=LAYERS),
    "indirect shooting": hs.IndirectShooting(),
    "indirect shooting, states": hs.IndirectShooting(form="state"),
}


def problem_of(kind, activation="tanh", **more):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((N, 2))
    labels = (X[:, 0] * X[:, 1] > 0).astype(int)
    Y = np.eye(2)[labels] if "cross" in kind else np.stack([np.tanh(X[:, 0]), X[:, 1]], axis=1)
    return hs.TrainingProblem(X, Y, **{
        "effective_depth": 1.5, "weight_decay": 2e-2, "width": 3, "activation": activation,
        **KINDS[kind], **more})


def controls(problem):
    return 1.5 * np.random.default_rng(4).standard_normal((LAYERS, *problem.control_shape))


@pytest.mark.parametrize("kind", KINDS)
def test_all_copies_of_the_formulas_say_the_same(kind):
    problem = problem_of(kind)
    W, setting = controls(problem), setting_of(problem)
    A = discrete.roll_out(problem, W, STEPS)
    J, loss, _ = discrete.objective(problem, A[-1], W, STEPS)
    B, scaled = discrete.costates(problem, A, W, STEPS)
    share = problem.weight_decay / problem.effective_depth
    gradient = share * STEPS[:, None, None] * scaled
    # compiled
    sweeps = EulerSweeps(problem, STEPS)
    assert sweeps.objective(W) == pytest.approx(J, rel=1e-12)
    value, G = sweeps.gradient(W)
    assert value == pytest.approx(J, rel=1e-12)
    np.testing.assert_allclose(G, gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())
    # certificate, and the complex step of its objective
    assert float(formulas.loss(setting, A[-1])) == pytest.approx(loss, rel=1e-12)
    own, _ = formulas.costates(setting, A, W, STEPS)
    np.testing.assert_allclose(own, B, rtol=0, atol=1e-12 * np.abs(B).max())
    V = np.random.default_rng(5).standard_normal(W.shape)
    ends = formulas.roll_out(setting, W + 1e-30j * V, STEPS)[-1]
    step = formulas.objective(setting, ends, W + 1e-30j * V, STEPS)[0].imag / 1e-30
    assert np.sum(gradient * V) == pytest.approx(step, rel=1e-11)
    # CasADi: objective and its gradient in the end of the network
    nlp = build_nlp(problem, LAYERS)
    x, p = nlp.pack(W, A), nlp.parameters(problem, STEPS, 0.0)
    assert float(nlp.solver.get_function("nlp_f")(x, p)) == pytest.approx(
        J / problem.weight_decay, rel=1e-12)
    slope = np.array(nlp.solver.get_function("nlp_grad_f")(x, p)[1]).ravel()
    np.testing.assert_allclose(nlp.unpack(slope)[1][-1], -B[-1], rtol=0,
                               atol=1e-12 * np.abs(B[-1]).max())


@pytest.mark.parametrize("kind", KINDS)
def test_the_hessian_of_newtons_method_is_the_complex_step_one(kind):
    problem = problem_of(kind)
    W = controls(problem)
    A = discrete.roll_out(problem, W, STEPS)
    B, _ = discrete.costates(problem, A, W, STEPS)
    own, _ = second_derivatives(expansion(problem, A, B, W, STEPS), block=2)
    nowhere = np.zeros((LAYERS, problem.width, N), bool)
    exact, _ = complex_step_derivatives(setting_of(problem), W, STEPS, None, nowhere)
    np.testing.assert_allclose(problem.weight_decay * own, exact, rtol=0,
                               atol=1e-12 * np.abs(exact).max())


@pytest.mark.parametrize("form", ["dense", "riccati"])
@pytest.mark.parametrize("kind", KINDS)
def test_newtons_method_converges_in_a_few_steps(kind, form):
    problem = problem_of(kind)
    start = solved(kind, "single shooting").weights
    moved = start + 1e-3 * np.random.default_rng(0).standard_normal(start.shape)
    end = exact_newton.minimise(problem, moved, STEPS, tol=1e-11, max_iter=10, form=form)
    assert end.stationarity <= 1e-11


@cache
def solved(kind, method):
    return hs.solve(problem_of(kind), METHODS[method])


CASES = [(kind, method) for kind in KINDS for method in METHODS
         if "indirect" not in method or "," not in kind]


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_it_converges_and_is_certified(kind, method):
    solution = solved(kind, method)
    assert solution.status is hs.Status.CONVERGED, solution.message
    certificate = hs.certify(solution)
    assert certificate.holds, str(certificate)
    assert certificate.stationarity < 1e-6
    assert solution.objective < 0.95 * solution.problem.trivial_objective


@pytest.mark.parametrize("kind", KINDS)
def test_methods_and_scipy_agree(kind):
    one, other = solved(kind, "single shooting"), solved(kind, "multiple shooting")
    assert one.objective == pytest.approx(other.objective, rel=1e-9)
    if (kind, "indirect shooting") in CASES:
        forms = [solved(kind, name).objective for name in METHODS if "indirect" in name]
        assert forms[0] == pytest.approx(forms[1], rel=1e-8)
    problem, shape = one.problem, one.weights.shape

    def value(x):
        return discrete.objective_of(problem, x.reshape(shape), STEPS)

    moved = one.weights + 1e-3 * np.random.default_rng(0).standard_normal(shape)
    end = minimize(value, moved.ravel(), method="BFGS", options={"gtol": 1e-5})
    assert one.objective <= end.fun * (1 + 1e-9)
    assert one.objective == pytest.approx(end.fun, rel=1e-6)


@pytest.mark.parametrize("kind", ["huber", "cross_entropy"])
def test_relu_is_carried_to_its_kinks_under_any_loss(kind):
    solution = hs.solve(problem_of(kind, "relu"), METHODS["single shooting"])
    assert solution.status is hs.Status.CONVERGED, solution.message
    assert hs.certify(solution).holds


@pytest.mark.parametrize("kind", KINDS)
def test_descent_trains_on_it(kind):
    trained = hs.train(problem_of(kind), layers=LAYERS, optimizer=hs.Adam(rate=0.03, epochs=500))
    least = solved(kind, "single shooting").objective
    assert least * (1 - 1e-9) <= trained.objective < 0.95 * trained.problem.trivial_objective


@pytest.mark.parametrize("kind", KINDS)
def test_files_keep_it(tmp_path, kind):
    solution = solved(kind, "single shooting")
    again = hs.Solution.load(solution.save(tmp_path / "solution.npz"))
    assert str(again.problem.criterion) == str(solution.problem.criterion)
    assert hs.certify(again).holds
    assert again.objective == solution.objective


def test_large_networks_say_that_they_take_squares_alone():
    method = hs.DirectSingleShooting(layers=LAYERS, optimizer="kronecker")
    with pytest.raises(ValueError, match="take the mean squared error alone, not the loss 'huber'"):
        hs.solve(problem_of("huber"), method)
    with pytest.raises(ValueError, match="mean squared error alone, not sample weights"):
        hs.solve(problem_of("weighted"), method)


def test_states_that_are_not_stored_sum_to_the_same(monkeypatch):
    from hamshoot.theory import blockwise

    problem = problem_of("cross_entropy, weighted")
    W = controls(problem)
    monkeypatch.setattr(blockwise, "BLOCK_NUMBERS", 2 * (LAYERS + 1) * problem.width)
    sums = blockwise.evaluate(problem, W, STEPS)
    A = discrete.roll_out(problem, W, STEPS)
    J, loss, _ = discrete.objective(problem, A[-1], W, STEPS)
    assert (sums.objective, sums.loss) == pytest.approx((J, loss), rel=1e-12)
    _, gradient = discrete.costates(problem, A, W, STEPS)
    np.testing.assert_allclose(sums.gradient, gradient, atol=1e-12 * np.abs(gradient).max())


