"""Derivatives of layered optima, against optima that were solved again with θ moved."""

from functools import lru_cache

import numpy as np
import pytest
from problems import one_neuron, teacher

import hamshoot as hs
from hamshoot.derivatives.layers import layered_sensitivity, tangent
from hamshoot.derivatives.optimum import Optimum, optimum_of
from hamshoot.derivatives.parameters import envelope, moved, swept
from hamshoot.derivatives.result import PARAMETERS, NoDerivative
from hamshoot.optimality.expansion import complex_step_derivatives, expanded
from hamshoot.solution.evaluate import solution_from_weights

LAYERS = 5
EXACT = hs.DirectSingleShooting(layers=LAYERS, tol=1e-12)
EXACT3 = hs.DirectSingleShooting(layers=3, tol=1e-12)


@lru_cache
def solved(activation, seed=11, **options):
    """A solution with its own scaling, and the same problem in scaled units."""
    problem = teacher(activation, samples=8, width=3, effective_depth=2.0, weight_decay=1e-2,
                      seed=seed, dims=(3, 2, 3), standardize=True, **options)
    solution = hs.solve(problem, layers=LAYERS, tol=1e-11, effort="quick")
    assert solution.success, solution.message
    return solution, problem.subset(range(problem.n_samples))


def direction(theta, seed=5):
    if np.ndim(theta) == 0:
        return 1.0
    given = np.random.default_rng(seed).standard_normal(np.shape(theta))
    return given / np.linalg.norm(given)


def again(solution, scaled, of, theta):
    """The optimum at another θ, going on from the solution."""
    name = {"targets": "Y", "inputs": "X"}.get(of, of)
    end = EXACT.solve(scaled.replace(**{name: theta}), initial_guess=solution)
    assert end.success, end.message
    return end


def errors(found, solution, scaled, h):
    """Relative errors of dJ*, d²J*, dW*, dA* and dB* against central differences."""
    up, down = (again(solution, scaled, found.of, found.theta + t * found.direction)
                for t in (h, -h))

    def relative(difference, derivative):
        return float(np.linalg.norm(difference - derivative) / np.linalg.norm(derivative))

    return np.array([
        relative((up.objective - down.objective) / (2 * h), found.along),
        relative((up.objective + down.objective - 2 * solution.objective) / h**2, found.second),
        *(relative((getattr(up, name) - getattr(down, name)) / (2 * h), derivative)
          for name, derivative in (("weights", found.weights), ("representations", found.states),
                                   ("momenta", found.momenta)))])


CASES = [("smooth_relu", "weight_decay", 2e-5), ("smooth_relu", "effective_depth", 4e-3),
         ("smooth_relu", "epsilon", 2e-4), ("smooth_relu", "targets", 2e-3),
         ("smooth_relu", "inputs", 2e-3), ("linear", "weight_decay", 2e-5),
         ("linear", "targets", 2e-3), ("relu", "weight_decay", 2e-5),
         ("relu", "effective_depth", 4e-3), ("relu", "targets", 2e-3), ("relu", "inputs", 2e-3),
         *(("leaky_relu", of, h) for of, h in (
             ("weight_decay", 2e-5), ("effective_depth", 4e-3), ("targets", 2e-3),
             ("inputs", 2e-3)))]


@pytest.mark.parametrize(("activation", "of", "h"), CASES)
def test_solving_again_beside_theta_gives_the_same_derivatives_to_second_order(activation, of, h):
    """Errors of central differences fall by 4 with h/2, as only those of a true derivative do."""
    solution, scaled = solved(activation, bias=activation != "linear")
    theta = scaled.Y if of == "targets" else None
    theta = scaled.X if of == "inputs" else theta
    found = hs.sensitivity(solution, of, None if theta is None else direction(theta))
    h = min(h, 0.8 * min(np.abs(found.interval)))
    coarse, fine, finest = (errors(found, solution, scaled, step) for step in (h, h / 2, h / 4))
    assert np.all(finest < 1e-4)
    order = np.log2(coarse[[0, 2, 3, 4]] / fine[[0, 2, 3, 4]])
    np.testing.assert_allclose(order, 2.0, atol=0.25)
    assert found.residual < 1e-10


@pytest.mark.parametrize("activation", ["smooth_relu", "relu"])
def test_targets_and_sample_weights_in_full_are_made_of_their_directions(activation):
    solution, _ = solved(activation)
    for of in ("targets", "inputs", "sample_weights"):
        whole = hs.sensitivity(solution, of)
        assert whole.weights is None
        assert whole.along is None
        one = np.zeros(np.shape(whole.theta))
        one.flat[4] = 1.0
        assert hs.sensitivity(solution, of, one).along == pytest.approx(whole.objective.flat[4],
                                                                        rel=1e-12)


@pytest.mark.parametrize("activation", ["smooth_relu", "relu", "linear"])
def test_the_envelope_has_its_closed_forms(activation):
    solution, _ = solved(activation, bias=activation != "linear")
    problem = solution.problem
    N, lam, leak = problem.n_samples, problem.weight_decay, problem.effective_depth
    miss = problem.readout @ solution.representations[-1] - problem.targets
    expected = {
        "weight_decay": solution.parameter_norm / (2 * leak),
        "effective_depth": -lam * float(solution.steps @ solution.hamiltonian) / leak,
        "targets": -2 / N * miss.T,
        "inputs": -lam * (problem.lift.T @ solution.momenta[0]).T,
        "sample_weights": np.sum(miss**2, axis=0) / N,
    }
    for of, value in expected.items():
        np.testing.assert_allclose(hs.sensitivity(solution, of).objective, value, rtol=1e-7,
                                   atol=1e-12)
    total = np.sum(expected["sample_weights"])
    assert total == pytest.approx(solution.loss, rel=1e-12)


def test_weights_of_samples_against_problems_with_copies_of_them():
    """M copies of all samples, and one more or less of one: ω of their own, known exactly."""
    solution, scaled = solved("smooth_relu")
    N, s = scaled.n_samples, 2
    one = -np.full(N, 1 / N)
    one[s] += 1.0
    found = hs.sensitivity(solution, "sample_weights", one)
    apart = []
    for M in (40, 80):
        ends, times = [], []
        for k in (1, -1):
            rows = np.repeat(np.arange(N), [M + k * (r == s) for r in range(N)])
            end = EXACT.solve(scaled.subset(rows), initial_guess=solution)
            omega = N * np.bincount(rows) / len(rows)
            times.append(float((omega - 1) @ one / (one @ one)))
            np.testing.assert_allclose(omega - 1, times[-1] * one, atol=1e-12)
            ends.append(end)
        span = times[0] - times[1]
        apart.append(np.array([
            abs((ends[0].objective - ends[1].objective) / span / found.along - 1),
            np.linalg.norm((ends[0].weights - ends[1].weights) / span - found.weights)
            / np.linalg.norm(found.weights)]))
    assert np.all(apart[1] < 1e-3)
    np.testing.assert_allclose(apart[0] / apart[1], 4.0, atol=0.2)


def test_the_set_on_the_kink_changes_where_the_interval_says():
    solution, scaled = solved("relu")
    found = hs.sensitivity(solution, "weight_decay")

    def pattern(t):
        end = again(solution, scaled, "weight_decay", found.theta + t)
        A = end.representations[1:-1]
        return np.where(np.abs(A) < 1e-9, 0, np.sign(A))

    here = pattern(0.0)
    inside = 0
    for t in found.interval:
        if np.isfinite(t) and found.theta + 1.5 * t > 0:
            assert np.array_equal(pattern(0.8 * t), here)
            assert not np.array_equal(pattern(1.3 * t), here)
            inside += 1
    assert inside
    assert found.stays(0.5 * found.interval[1])
    assert not found.stays(2 * found.interval[1])
    assert "activation" in repr(found)


def test_a_smoothed_solution_is_differentiated_as_what_it_is_an_optimum_of():
    problem = teacher("relu", samples=8, width=3, effective_depth=2.0, weight_decay=1e-2, seed=11,
                      dims=(3, 2, 3))
    solution = hs.solve(problem, layers=LAYERS, polish=False, tol=1e-11, effort="quick")
    assert solution.status is hs.Status.SMOOTHED
    found = hs.sensitivity(solution, "epsilon")
    epsilon = solution.residuals["epsilon"]
    assert found.theta == epsilon
    assert f"ε = {epsilon:g}" in repr(found)
    h = 0.02 * epsilon
    up, down = (EXACT.solve(problem.replace(activation="smooth_relu", epsilon=epsilon + t),
                            initial_guess=solution).objective for t in (h, -h))
    assert (up - down) / (2 * h) == pytest.approx(found.along, rel=1e-3)


def test_in_the_users_units_targets_count_by_their_scale():
    solution, _ = solved("smooth_relu")
    problem = solution.problem
    scaled, own = (hs.sensitivity(solution, "targets", scaled=one) for one in (True, False))
    np.testing.assert_allclose(own.objective * problem.target_scaling.scale, scaled.objective)
    np.testing.assert_allclose(own.theta, problem.Y)
    given = direction(own.theta)
    by = given / problem.target_scaling.scale
    one = hs.sensitivity(solution, "targets", given, scaled=False)
    other = hs.sensitivity(solution, "targets", by)
    assert one.along == pytest.approx(other.along, rel=1e-12)
    np.testing.assert_allclose(one.weights, other.weights)


def test_what_the_second_derivatives_say_is_symmetric():
    """(d/dY along a) of dJ*/dλ is d/dλ of (dJ*/dY along a): by two different linear systems."""
    solution, scaled = solved("relu")
    optimum = optimum_of(solution)
    def mixed(of, along, other):
        moving, h = tangent(optimum, of, along), 1e-30
        weights = optimum.at.weights + 1j * h * moving.weights
        at = moved(optimum.posed, of, 1j * h * along)
        slopes = optimum.slopes + 1j * h * moving.slopes
        sweep = swept(at, weights, optimum.at.steps, slopes)
        return envelope(at, other, weights, optimum.at.steps, sweep).imag / h

    a = direction(scaled.Y)
    assert mixed("targets", a, "weight_decay") == pytest.approx(
        np.sum(mixed("weight_decay", 1.0, "targets") * a), rel=1e-8)


def test_a_solve_that_begins_at_the_solution_has_the_same_derivatives():
    solution, _ = solved("relu")
    more = hs.solve(solution.problem, layers=LAYERS, initial_guess=solution)
    one, other = (hs.sensitivity(x, "effective_depth") for x in (solution, more))
    assert other.second == pytest.approx(one.second, rel=1e-6)
    np.testing.assert_allclose(other.weights, one.weights, rtol=1e-5, atol=1e-6)


# -- what is refused -------------------------------------------------------------------------------


def test_a_network_that_is_not_stationary_is_refused():
    solution, _ = solved("smooth_relu")
    adam = hs.Adam(rate=0.01, epochs=20, schedule="constant", sgd_epochs=0)
    trained = hs.train(solution.problem, layers=LAYERS, optimizer=adam)
    with pytest.raises(NoDerivative, match="expected an optimum, whose gradient"):
        hs.sensitivity(trained, "weight_decay")


def even_network(g, decay=0.1):
    """One linear neuron from 1 through two even layers of L̃ = 1, stationary, A_2 = g².

    J is (g_1g_2 − y)² + λ(w_1² + w_2²)/4 with g_i = (1 + w_i)/2. Even controls are stationary at
    g² − y = −λ(2g − 1)/(2g), and along w ± s the curvature is λ − (g² − y): positive for g > ¼,
    zero at ¼, negative below.
    """
    w = 2 * g - 1
    y = g**2 + decay * w / (2 * g)
    problem = one_neuron(y, effective_depth=1.0, weight_decay=decay)
    weights, steps = np.full((2, 1, 1), w), np.full(2, 0.5)
    return solution_from_weights(problem, weights, steps, status=hs.Status.CONVERGED, success=True,
                                 method="closed form")


def test_even_layers_have_the_derivatives_of_their_closed_form():
    """y(g, λ) is known, and so are dg/dλ and dg/dy by the implicit function theorem."""
    g, decay = 0.4, 0.1
    solution, w = even_network(g, decay), 2 * g - 1
    dy_dg = 2 * g + decay / (2 * g**2)
    by_decay = hs.sensitivity(solution, "weight_decay")
    np.testing.assert_allclose(by_decay.weights, -2 * (w / (2 * g)) / dy_dg, rtol=1e-9)
    assert by_decay.along == pytest.approx(w**2 / 2, rel=1e-12)
    assert by_decay.second == pytest.approx(w * by_decay.weights[0, 0, 0], rel=1e-9)
    by_target = hs.sensitivity(solution, "targets", [[1.0]])
    np.testing.assert_allclose(by_target.weights, 2 / dy_dg, rtol=1e-9)
    assert by_target.along == pytest.approx(decay * w / g, rel=1e-9)


@pytest.mark.parametrize(("g", "message"), [(0.25, "zero to rounding"), (0.2, "saddle")])
def test_where_even_layers_split_there_is_no_derivative(g, message):
    with pytest.raises(NoDerivative, match=message):
        hs.sensitivity(even_network(g), "weight_decay")


@pytest.mark.parametrize(("of", "given", "message"), [
    ("lambda", None, "of: expected one of weight_decay"),
    (3, None, "of: expected one of"),
    ("targets", np.ones(4), r"direction: expected shape \(8, 3\), that of targets, got \(4,\)"),
    ("inputs", "up", "direction: expected numbers of shape"),
    ("sample_weights", np.full(8, np.nan), "direction: expected finite numbers"),
    ("sample_weights", np.zeros(8), "zeros alone"),
    ("epsilon", None, "expected a smooth ReLU"),
])
def test_bad_input_is_refused_in_a_sentence(of, given, message):
    solution, _ = solved("relu")
    with pytest.raises(ValueError, match=message):
        hs.sensitivity(solution, of, given)


def test_other_solutions_are_refused_in_a_sentence():
    solution, _ = solved("smooth_relu")
    with pytest.raises(TypeError, match="expected a Solution"):
        hs.sensitivity(solution.problem, "weight_decay")
    stages = hs.DirectMultipleShooting(layers=LAYERS, integrator="rk4").solve(solution.problem)
    with pytest.raises(NoDerivative, match="expected Euler layers, got rk4"):
        hs.sensitivity(stages, "weight_decay")
    with pytest.raises(NoDerivative, match="at most 10 controls"):
        optimum_of(solution, max_controls=10)


def test_all_parameters_print_and_are_json():
    import json

    solution, scaled = solved("smooth_relu")
    for of in PARAMETERS:
        found = hs.sensitivity(solution, of)
        assert of in repr(found)
        json.dumps(found.to_dict(), allow_nan=False)
        if found.along is None:
            with pytest.raises(ValueError, match="along a direction"):
                found.predict(0.1)
    by_decay = hs.sensitivity(solution, "weight_decay")
    t = 2e-4
    end = again(solution, scaled, "weight_decay", by_decay.theta + t).objective
    linear = by_decay.value + t * by_decay.along
    assert abs(by_decay.predict(t) - end) < 0.05 * abs(linear - end)


def test_samples_that_come_twice_change_nothing_though_their_kinks_depend_on_each_other():
    """The slopes on a pair of kinks may be shared in many ways, and the interval is the widest."""
    solution, scaled = solved("relu")
    rows = np.repeat(np.arange(scaled.n_samples), 2)
    once, problem = optimum_of(solution), scaled.subset(rows)
    at = expanded(problem, once.at.weights, once.at.steps, once.slopes[:, :, rows],
                  complex_step_derivatives)
    twice = Optimum(problem, at, "", 0.0)
    assert at.free.rank < twice.held.sum() == 2 * once.held.sum()
    given = direction(scaled.Y)
    for of, one, other in (("weight_decay", None, None), ("targets", given, given[rows])):
        single, double = (layered_sensitivity(x, of, by)
                          for x, by in ((once, one), (twice, other)))
        assert double.second == pytest.approx(single.second, rel=1e-7)
        np.testing.assert_allclose(double.weights, single.weights, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(double.interval, single.interval, rtol=1e-6)
    apart = given[rows].copy()
    apart[::2] *= -1  # targets of a pair that go apart turn its slopes, and move no activation
    assert np.linalg.norm(layered_sensitivity(twice, "targets", apart).states) < 1e-9
    inputs = np.zeros((len(rows), scaled.d_in))
    inputs[::2] = direction(scaled.X)  # inputs that go apart tear activations off one kink
    with pytest.raises(NoDerivative, match="moves them apart"):
        layered_sensitivity(twice, "inputs", inputs)


def test_an_input_that_is_0_moves_to_one_side_alone():
    """One-hot inputs lie on the kink of the first layer, where σ has a left derivative: 0."""
    rng = np.random.default_rng(0)
    X = np.column_stack([np.eye(2)[np.arange(9) % 2], rng.uniform(0.1, 1.0, 9)])
    problem = hs.TrainingProblem(X, X @ rng.standard_normal((3, 2)) + 0.1 * rng.standard_normal(
        (9, 2)), width=3, effective_depth=1.0, weight_decay=0.02)
    solution = hs.solve(problem, layers=3, tol=1e-11, effort="quick")
    one = np.zeros(X.shape)
    one[0, 1] = 1.0
    found = hs.sensitivity(solution, "inputs", one)
    assert found.interval[1] == 0
    assert "layer 0" in found.changes[1]
    assert "9 entries of A_0 are 0" in found.how
    h = min(1e-4, -0.5 * found.interval[0])
    lower = EXACT3.solve(problem.replace(X=X - h * one), initial_guess=solution)
    difference = (solution.objective - lower.objective) / h
    assert difference == pytest.approx(found.along, abs=2 * h * abs(found.second) + 1e-9)
