"""Networks built from solutions: what they predict, and how close to the path they come."""

import itertools
from functools import partial

import numpy as np
import problems
import pytest
from scipy.optimize import minimize_scalar

import hamshoot as hs
from hamshoot.network.layer_steps import irregular_steps, relative_changes
from hamshoot.network.leaky_resnet import LeakyResNet
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete
from hamshoot.theory.closed_forms import linear_path

RNG = np.random.default_rng

small_problem = partial(
    problems.random_data, activation="relu", sizes=(9, 3, 2), data_seed=0, units=((3, 2), (50, 10)),
    effective_depth=2.0, weight_decay=0.02, width=4, standardize=True, seed=1)


def layered(problem, steps, seed=2, scale=1.0, **kwargs):
    """A layered solution with given steps; not stationary, which nothing here needs."""
    weights = scale * RNG(seed).standard_normal((len(steps), *problem.control_shape))
    return solution_from_weights(
        problem, weights, steps, status=hs.Status.MAX_ITER, success=False, method="drawn", **kwargs
    )


def path_solution(problem, p, A, B, W, loss):
    """A continuous solution from exact values at the nodes; ‖W‖ is constant on these paths."""
    norm = float(np.sum(W[0] ** 2))
    J = loss + problem.weight_decay / (2 * problem.effective_depth) * norm
    return hs.Solution(
        problem=problem, p=p, representations=A, momenta=B, weights=W, objective=J, loss=loss,
        parameter_norm=norm, success=True, status=hs.Status.CONVERGED, message="", nit=0,
        residuals={}, history=(), seconds=0.0, method="closed form", integrator="flow",
    )


def linear_solution(nodes=101):
    """The exact geodesic of a linear network between two given ends."""
    rng = RNG(3)
    L_tilde, A0 = 3.0, rng.standard_normal((3, 6))
    W0 = L_tilde * np.eye(3) + 0.7 * rng.standard_normal((3, 3))
    p = np.linspace(0, 1, nodes)
    path = linear_path(p, A0, W0, L_tilde)
    problem = problems.between(A0, path.representations[-1], effective_depth=L_tilde,
                               weight_decay=0.03)
    return path_solution(problem, p, path.representations, path.momenta, path.weights, 0.0)


def scalar_solution(nodes=101):
    """One neuron, one sample, soft loss: W ≡ L̃ + ln(a_1/a_0) with a_1 from the end condition."""
    L_tilde, decay, a0, y = 2.0, 0.2, 1.0, 2.5
    a1 = minimize_scalar(
        lambda a: (a - y) ** 2 + decay / (2 * L_tilde) * (L_tilde + np.log(a / a0)) ** 2,
        bounds=(1.0, 3.0), method="bounded", options=dict(xatol=1e-13),
    ).x
    p, W = np.linspace(0, 1, nodes), L_tilde + np.log(a1 / a0)
    a = a0 * (a1 / a0) ** p
    problem = problems.one_neuron(y, start=a0, effective_depth=L_tilde, weight_decay=decay)
    shape = (nodes, 1, 1)
    return path_solution(problem, p, a.reshape(shape), (W / (L_tilde * a)).reshape(shape),
                         np.full(shape, W), (a1 - y) ** 2)


# -- the layered network itself --------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_representations_follow_the_recursion(bias):
    problem = small_problem(bias=bias)
    steps = irregular_steps(5)
    network = layered(problem, steps).to_network()
    x = (problem.X[4] - problem.X.mean(axis=0)) / problem.X.std(axis=0)
    a = problem.lift @ x
    nodes = [a]
    for W, rho in zip(network.weights, steps, strict=True):
        drive = W[:, :4] @ np.maximum(a, 0) + (W[:, 4] if bias else 0)
        a = (1 - rho * 2.0) * a + rho * drive
        nodes.append(a)
    ours = network.representations(problem.X)
    assert ours.shape == (6, 4, 9)
    np.testing.assert_allclose(ours[:, :, 4], nodes, rtol=1e-12, atol=1e-12)
    output = problem.readout @ a * problem.Y.std(axis=0) + problem.Y.mean(axis=0)
    np.testing.assert_allclose(network.predict(problem.X)[4], output, rtol=1e-12)


@pytest.mark.parametrize(
    ("layers", "steps"),
    [(None, None), (8, None), (None, "equidistant"), (8, np.full(8, 1 / 8)), (None, [1 / 8] * 8)],
)
def test_a_layered_solution_gives_its_own_network(layers, steps):
    solution = layered(small_problem(), np.full(8, 1 / 8))
    network = solution.to_network(layers, steps)
    np.testing.assert_array_equal(network.weights, solution.weights)
    assert abs(network.objective(solution.problem) - solution.objective) \
        <= 1e-12 * abs(solution.objective)
    assert abs(network.loss(solution.problem) - solution.loss) <= 1e-12 * abs(solution.loss)
    assert abs(network.parameter_norm - solution.parameter_norm) <= 1e-12 * network.parameter_norm


def test_irregular_steps_asked_for_by_name_are_the_solutions_own():
    solution = layered(small_problem(), irregular_steps(7))
    network = solution.to_network(steps="irregular")
    np.testing.assert_array_equal(network.weights, solution.weights)
    equidistant = solution.to_network(steps="equidistant")
    assert np.abs(equidistant.weights - solution.weights).max() > 1e-3


def test_adaptive_steps_that_have_settled_are_the_solutions_own():
    path = linear_solution()
    network = path.to_network(30, "adaptive")
    settled = solution_from_weights(
        path.problem, network.weights, network.steps, status=hs.Status.MAX_ITER, success=False,
        method="built", terminal=path.momenta[-1],
    )
    again = settled.to_network(steps="adaptive")
    np.testing.assert_array_equal(again.weights, settled.weights)
    np.testing.assert_array_equal(again.steps, settled.steps)


def test_predictions_do_not_depend_on_the_other_rows():
    network = layered(small_problem(), np.full(6, 1 / 6)).to_network()
    X = small_problem().X
    np.testing.assert_allclose(network.predict(X[2:3]), network.predict(X)[2:3], rtol=1e-12)


def test_test_error_is_the_loss_of_held_out_samples():
    X, Y = small_problem().X, small_problem().Y
    problem = small_problem(X_test=X, Y_test=Y)
    solution = layered(problem, np.full(6, 1 / 6))
    assert solution.to_network().test_error(problem) == pytest.approx(solution.loss, rel=1e-12)
    assert solution.test_error() == pytest.approx(solution.loss, rel=1e-12)


def test_classes_come_back_as_labels():
    rng = RNG(4)
    labels = np.array(["ash", "elm", "oak"])[rng.integers(0, 3, 12)]
    Y = (labels[:, None] == np.array(["ash", "elm", "oak"])).astype(float)
    # Inputs are the classes themselves: the identity network is a perfect classifier.
    problem = hs.TrainingProblem(Y + 0.1, Y, effective_depth=2.0, weight_decay=0.01, width=3,
                                 classes=("ash", "elm", "oak"), X_test=Y[:5] + 0.1,
                                 Y_test=np.concatenate([np.roll(Y[:1], 1, axis=1), Y[1:5]]))
    weights = np.zeros((6, 3, 4))
    weights[:, :, :3] = 2.0 * np.eye(3)
    network = LeakyResNet.from_weights(problem, weights)
    assert network.predict_class(problem.X).tolist() == labels.tolist()
    assert network.accuracy(problem) == 0.8  # one held-out label is wrong on purpose
    assert network.accuracy(problem.X, Y) == 1.0
    assert network.accuracy(problem.X, np.roll(Y, 1, axis=1)) == 0.0
    with pytest.raises(ValueError, match="not trained on classes"):
        layered(small_problem(), np.full(6, 1 / 6)).to_network().predict_class(np.ones((1, 3)))


# -- the network of a path -------------------------------------------------------------------------


def test_networks_approach_the_path_with_order_one():
    error = LeakyResNet.discretisation_error(linear_solution(), layers=(20, 40, 80, 160))
    assert np.all((error.orders() > 0.9) & (error.orders() < 1.2)), str(error)
    assert 1e-6 < error.endpoint_error[0] < 1e-3
    ratios = error.objective_error[:-1] / error.objective_error[1:]
    assert np.all((ratios > 1.7) & (ratios < 2.5)), str(error)


def test_objective_exceeds_the_best_of_as_many_layers_with_order_two():
    solution = scalar_solution()
    problem, excess = solution.problem, []
    for layers in (10, 20, 40):

        def objective(W, layers=layers):  # by symmetry the best network has equal layers
            a = (1 + (W - problem.effective_depth) / layers) ** layers
            decay = problem.weight_decay / (2 * problem.effective_depth)
            return (a - 2.5) ** 2 + decay * W**2

        best = minimize_scalar(objective, bounds=(1, 5), method="bounded",
                               options=dict(xatol=1e-12)).fun
        excess.append(solution.to_network(layers).objective(problem) - best)
    assert excess[0] > excess[1] > excess[2] > 0
    orders = np.log2(np.array(excess[:-1]) / excess[1:])
    assert np.all((orders > 1.7) & (orders < 2.3)), (excess, orders)


def test_following_the_path_beats_the_mean_control():
    solution = linear_solution()
    problem, steps = solution.problem, np.full(20, 0.05)
    p = np.linspace(0, 1, 21)
    mean = np.array([solution.at(np.linspace(a, b, 9)).weights.mean(axis=0)
                     for a, b in itertools.pairwise(p)])
    end = solution.representations[-1]
    apart = np.linalg.norm(discrete.roll_out(problem, mean, steps)[-1] - end)
    network = solution.to_network(20)
    ours = np.linalg.norm(network.representations(problem.X)[-1] - end)
    assert 0 < ours < 0.5 * apart


def test_adaptive_layers_change_their_input_equally():
    solution = linear_solution()
    network = solution.to_network(40, "adaptive")
    adaptive = relative_changes(network.representations(solution.problem.X))
    plain = relative_changes(solution.to_network(40).representations(solution.problem.X))
    assert np.ptp(adaptive) < 0.05 * adaptive.mean()
    assert np.ptp(plain) > 0.2 * plain.mean()
    assert abs(network.steps.sum() - 1) < 1e-12


def test_finer_and_coarser_networks_of_a_layered_solution_stay_close():
    path = linear_solution()
    source = path.to_network(40)
    solution = solution_from_weights(
        path.problem, source.weights, source.steps, status=hs.Status.MAX_ITER, success=False,
        method="built", terminal=path.momenta[-1],
    )
    end = np.linalg.norm(path.representations[-1])
    for layers in (20, 40, 60, 80):
        network = solution.to_network(layers)
        apart = network.representations(path.problem.X)[-1] - path.representations[-1]
        assert np.linalg.norm(apart) < 0.05 * end, layers
        assert abs(network.objective(path.problem) / path.objective - 1) < 0.08, layers


def test_an_rk4_solution_is_a_path():
    problem = small_problem(activation="smooth_relu", epsilon=0.1)
    weights = 2 * np.eye(4, 5) + 0.3 * RNG(5).standard_normal((1, 4, 5)) * np.ones((20, 1, 1))
    solution = solution_from_weights(
        problem, weights, np.full(20, 0.05), status=hs.Status.MAX_ITER, success=False,
        method="drawn", integrator="rk4",
    )
    error = LeakyResNet.discretisation_error(solution, layers=(20, 40, 80))
    assert solution.to_network().layers == 20
    assert np.all((error.orders() > 0.8) & (error.orders() < 1.3)), str(error)


def test_a_continuous_path_has_a_default_number_of_layers():
    assert linear_solution().to_network().layers == 20


# -- files -----------------------------------------------------------------------------------------


def test_saved_networks_load_unchanged(tmp_path):
    problem = small_problem(activation="smooth_relu", epsilon=0.05, input_names=("a", "b", "c"))
    network = layered(problem, irregular_steps(6)).to_network()
    path = network.save(tmp_path / "network")
    assert path.name == "network.npz"
    loaded = LeakyResNet.load(path)
    np.testing.assert_array_equal(loaded.predict(problem.X), network.predict(problem.X))
    assert loaded.activation == network.activation
    assert loaded.input_names == ("a", "b", "c")
    assert repr(loaded) == repr(network)


def test_files_that_are_not_networks_are_named(tmp_path):
    solution = layered(small_problem(), np.full(6, 1 / 6))
    good = solution.to_network().save(tmp_path / "network.npz")
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:-200])
    np.savez(tmp_path / "foreign.npz", X=np.ones(3))
    solution.save(tmp_path / "solution.npz")
    arrays = dict(np.load(good))
    np.savez(tmp_path / "tampered.npz", **{**arrays, "steps": arrays["steps"][:-1]})
    for name, reason in {
        "missing.npz": "no such file", "cut.npz": "not a complete .npz file",
        "foreign.npz": "not a hamshoot network", "solution.npz": "but a solution",
        "tampered.npz": "not a hamshoot network",
    }.items():
        with pytest.raises(ValueError, match=reason) as caught:
            LeakyResNet.load(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda n, s: n.predict(np.ones((2, 4))), "X: expected 3 columns"),
        (lambda n, s: n.predict(np.ones(3)), "X: expected a 2-D array"),
        (lambda n, s: n.predict([[1.0, np.nan, 2.0]]), "X: expected finite numbers"),
        (lambda n, s: n.predict([["a", "b", "c"]]), "X: expected numbers"),
        (lambda n, s: n.error(np.ones((2, 3)), np.ones((3, 2))), "Y: expected shape"),
        (lambda n, s: n.accuracy(s.problem), "not trained on classes"),
        (lambda n, s: n.test_error(s.problem), "held-out samples"),
        (lambda n, s: n.objective(s.problem.replace(effective_depth=3.0)), "effective_depth 2"),
        (lambda n, s: s.to_network(2), "layers: equidistant steps need"),
        (lambda n, s: s.to_network(0), "layers: expected an integer"),
        (lambda n, s: s.to_network(6.5), "layers: expected an integer"),
        (lambda n, s: s.to_network(steps="even"), "steps: expected one of equidistant"),
        (lambda n, s: s.to_network(5, np.full(6, 1 / 6)), "steps: expected 5 steps"),
        (lambda n, s: s.to_network(steps=[0.5, 0.6]), "sum 1"),
        (lambda n, s: s.to_network(steps=[-0.5, 1.5]), "numbers > 0"),
        (lambda n, s: s.to_network(steps=[0.6, 0.2, 0.2]), "ρ·L̃ < 1"),
        (lambda n, s: LeakyResNet.from_weights(s.problem, np.ones((6, 4, 4))), "weights: expected"),
        (lambda n, s: LeakyResNet.from_weights(s.problem, np.full((6, 4, 5), np.inf)), "finite"),
        (lambda n, s: LeakyResNet.from_weights(s.problem, n.weights, [1.0]), "steps: expected 6"),
    ],
)
def test_bad_input_is_one_sentence(call, names):
    solution = layered(small_problem(), np.full(6, 1 / 6))
    with pytest.raises(ValueError, match=names) as caught:
        call(solution.to_network(), solution)
    assert "\n" not in str(caught.value)


def test_networks_cannot_be_changed():
    network = layered(small_problem(), np.full(6, 1 / 6)).to_network()
    with pytest.raises(ValueError, match="read-only"):
        network.weights[0] = 0
    with pytest.raises(AttributeError):
        network.effective_depth = 1.0


def test_hamiltonian_momenta_of_the_test_path_are_stationary():
    """The oracles above rest on these momenta: W = L̃Bσ̂(A)ᵀ at every node."""
    for solution in (linear_solution(11), scalar_solution(11)):
        problem = solution.problem
        for A, B, W in zip(solution.representations, solution.momenta, solution.weights,
                           strict=True):
            control = ham.control(A, B, effective_depth=problem.effective_depth,
                                  activation=problem.sigma, bias=problem.bias)
            np.testing.assert_allclose(control, W, rtol=1e-9, atol=1e-9)


# -- polish ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", ["equidistant", "adaptive"])
def test_polish_re_optimises_the_same_layers(steps):
    path = linear_solution()
    network = path.to_network(layers=10, steps=steps)
    polished = network.polish(path.problem)
    assert polished.success, polished.message
    np.testing.assert_allclose(polished.steps, network.steps, rtol=0, atol=1e-15)
    assert polished.stationarity <= 1e-8
    assert polished.objective <= network.objective(path.problem)
    with pytest.raises(ValueError, match="indirect"):
        network.polish(path.problem, "indirect")


def test_polish_takes_a_method_object():
    problem = small_problem()
    network = layered(problem, irregular_steps(6)).to_network()
    polished = network.polish(problem, hs.DirectSingleShooting(max_iter=50))
    assert polished.layers == 6
    assert polished.objective < network.objective(problem)


@pytest.mark.parametrize(("method", "options", "words"), [
    (hs.IndirectShooting(), {}, "indirect"),
    (hs.DirectSingleShooting(), {"tol": 1e-3}, "tol: give options to the method object"),
    (3, {}, "expected a name or a method object, got 3"),
    ("polishing", {}, "expected one of auto"),
])
def test_polish_refuses_what_does_not_optimise_its_layers(method, options, words):
    problem = small_problem()
    network = layered(problem, irregular_steps(6)).to_network()
    with pytest.raises(ValueError, match=words):
        network.polish(problem, method, **options)
