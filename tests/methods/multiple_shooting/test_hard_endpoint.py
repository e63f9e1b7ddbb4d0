"""Hard endpoints: reached to rounding, at a minimum of the problem's own network, or no success."""

from functools import cache

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.methods.multiple_shooting.endpoint_search import EndpointSearch
from hamshoot.methods.multiple_shooting.hard_endpoint import Extrapolated
from hamshoot.optimality.augmented import augmented, better_multiplier, constant, stiffness
from hamshoot.optimality.second_order_layers import second_order
from hamshoot.solution.solution import Status
from hamshoot.theory import layers as discrete

#: Generator, width, samples; 1 is the one at which the ladder by itself failed.
CASES = [(0, 2, 3), (1, 3, 4), (2, 4, 5), (3, 2, 6), (4, 3, 3), (5, 4, 4), (6, 2, 5), (7, 3, 6),
         (8, 4, 3), (9, 2, 4)]
#: An affine map takes no more samples than this where one likes.
REACHED_BY_LINEAR = [case for case in CASES if case[2] <= case[1] + 1]


def between_normals(seed=1, width=3, samples=4, activation="relu", **settings):
    rng = np.random.default_rng(seed)
    X, end = rng.standard_normal((samples, width)), 0.8 * rng.standard_normal((width, samples))
    return hs.TrainingProblem(X, endpoint=end, effective_depth=3.0, weight_decay=1e-2, width=width,
                              activation=activation, **settings)


@cache
def solved(seed=1, width=3, samples=4, activation="relu", **options):
    problem = between_normals(seed, width, samples, activation)
    return hs.DirectMultipleShooting(layers=10, **options).solve(problem)


def assert_exact(solution):
    assert solution.status is Status.CONVERGED, solution.message
    assert solution.stationarity < 1e-10
    assert solution.residuals["endpoint_gap"] < 1e-10
    assert "gap to the endpoint" in solution.message
    certificate = hs.certify(solution)
    assert certificate.holds, certificate
    assert certificate.second_order.startswith("strict local minimum"), certificate
    assert solution.extra["second_order"].startswith("strict local minimum")


# -- reached, and a minimum -----------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_relu_reaches_the_endpoint_at_an_exact_minimum(case):
    assert_exact(solved(*case))


@pytest.mark.parametrize(("activation", "case"), [
    *(("smooth_relu", case) for case in CASES),
    *(("linear", case) for case in REACHED_BY_LINEAR),
])
def test_smooth_networks_reach_it_at_a_proved_minimum(activation, case):
    assert_exact(solved(*case, activation))


@pytest.mark.parametrize("epsilon", [(0.5, 0.01, 0.5), (0.5, 1e-4, 0.5), (0.1, 1e-3, 0.3),
                                     (1.0, 0.03, 0.5), (0.2, 1e-5, 0.25)])
def test_whatever_the_ladder_in_epsilon(epsilon):
    solution = solved(epsilon=epsilon)
    assert_exact(solution)
    assert solution.objective < 1.01 * solved().objective


@pytest.mark.parametrize("options", [{"nlp_solver": "fatrop"}, {"start": "path"},
                                     {"steps": "irregular"}, {"starts": 3}])
def test_whatever_the_options(options):
    assert_exact(solved(**options))


@pytest.mark.parametrize(("seed", "width", "samples"), [(3, 2, 3), (47, 3, 4)])
def test_a_map_that_reverses_the_orientation(seed, width, samples):
    """A descent of the stiff loss ends where the map has lost a rank, short of the endpoint."""
    problem = between_normals(seed, width, samples, "linear")
    problem = problem.replace(effective_depth=5.0, weight_decay=3e-2)
    start, end = (np.linalg.det(np.diff(A[:, : width + 1], axis=1))
                  for A in (problem.initial_state, problem.endpoint))
    assert start * end < 0
    assert_exact(hs.DirectMultipleShooting(layers=15).solve(problem))


def test_without_bias():
    """More samples than neurons: the last layer alone cannot place them."""
    problem = between_normals(bias=False)
    solution = hs.DirectMultipleShooting(layers=10).solve(problem)
    assert solution.success, solution.message
    assert solution.residuals["endpoint_gap"] < 1e-10


def test_the_answer_does_not_depend_on_the_workers():
    one, two = (hs.DirectMultipleShooting(layers=10, workers=workers).solve(between_normals())
                for workers in (1, 2))
    np.testing.assert_array_equal(one.weights, two.weights)


def test_a_guess_is_continued_to_another_endpoint():
    problem = between_normals()
    near = problem.replace(endpoint=1.02 * problem.endpoint)
    solution = hs.DirectMultipleShooting(layers=10).solve(near, solved())
    assert_exact(solution)
    assert solution.objective == pytest.approx(solved().objective, rel=0.05)


# -- against other methods ------------------------------------------------------------------------


def _constraint(problem, steps, shape):
    """The gap of controls, and its derivative by sweeps, one for each entry of the endpoint."""
    def gap(x):
        A = discrete.roll_out(problem, x.reshape(shape), steps)
        return (A[-1] - problem.endpoint).ravel()

    def slope(x):
        W = x.reshape(shape)
        A = discrete.roll_out(problem, W, steps)
        rows = []
        for k in range(problem.endpoint.size):
            B = np.zeros(problem.endpoint.size)
            B[k] = 1.0
            B = B.reshape(problem.endpoint.shape)
            G = discrete.costates(problem, A, W, steps, terminal=B)[1]
            rows.append(((W - G) * steps[:, None, None] / problem.effective_depth).ravel())
        return np.array(rows)

    return gap, slope


@pytest.mark.parametrize("case", CASES[:6])
@pytest.mark.parametrize("activation", ["relu", "smooth_relu"])
def test_slsqp_finds_nothing_lower_from_the_answer(activation, case):
    """Of all its iterates that keep to the endpoint none has a smaller norm."""
    from scipy.optimize import minimize

    solution = solved(*case, activation)
    problem, steps, shape = solution.problem, solution.steps, solution.weights.shape
    gap, slope = _constraint(problem, steps, shape)
    rho = np.broadcast_to(steps[:, None, None], shape).ravel()
    scale = problem.weight_decay / (2 * problem.effective_depth)
    lowest = []

    def seen(x):
        if np.linalg.norm(gap(x)) < 1e-8:
            lowest.append(scale * rho @ x**2)

    noise = 1e-2 * np.random.default_rng(0).standard_normal(solution.weights.size)
    seen(solution.weights.ravel())  # on kinks it may come back to the endpoint from nowhere
    for start in (solution.weights.ravel(), solution.weights.ravel() + noise):
        minimize(lambda x: scale * rho @ x**2, start, jac=lambda x: 2 * scale * rho * x,
                 method="SLSQP", constraints={"type": "eq", "fun": gap, "jac": slope},
                 callback=seen, options={"maxiter": 60, "ftol": 1e-14})
    J = scale * rho @ solution.weights.ravel()**2
    assert pytest.approx(solution.objective, rel=1e-12) == J
    assert len(lowest) > (activation == "smooth_relu")
    assert min(lowest) > J * (1 - 1e-7)


def test_moves_along_the_constraint_raise_the_norm():
    """Random moves, led back to the endpoint by Newton steps of least norm."""
    solution = solved()
    problem, steps, shape = solution.problem, solution.steps, solution.weights.shape
    gap, slope = _constraint(problem, steps, shape)
    rng, rises = np.random.default_rng(0), []
    for size in (1e-2, 1e-3):
        for _ in range(20):
            x = solution.weights.ravel() + size * rng.standard_normal(solution.weights.size)
            for _ in range(20):
                x = x - np.linalg.lstsq(slope(x), gap(x), rcond=None)[0]
            assert np.linalg.norm(gap(x)) < 1e-12
            rises.append(steps @ np.sum(x.reshape(shape)**2, axis=(1, 2)) - solution.parameter_norm)
    assert min(rises) > 0


# -- no minimum -----------------------------------------------------------------------------------


def two_layers():
    """(½ + W_1/2)(½ + W_2/2) = 0.04: the even network, W = −0.6, is a saddle; (−0.2, −0.8) not."""
    problem = hs.TrainingProblem([[1.0]], endpoint=[[0.04]], width=1, bias=False,
                                 activation="linear", effective_depth=1.0, weight_decay=0.1)
    return problem, np.full((2, 1, 1), -0.6)


def test_a_saddle_on_the_constraint_is_told():
    problem, W = two_layers()
    steps = np.full(2, 0.5)
    # W = L̃ B_1 (½ + W/2) a_0 in the last layer.
    multiplier = np.array([[-0.6 / 0.2]])
    A = discrete.roll_out(problem, W, steps)
    G = discrete.costates(problem, A, W, steps, terminal=multiplier)[1]
    assert np.abs(G).max() < 1e-14
    assert second_order(problem, W, steps, multiplier=multiplier).verdict.startswith("saddle")
    even = np.array([-0.2, -0.8]).reshape(2, 1, 1)
    multiplier = np.array([[-0.8 / 0.4]])
    assert second_order(problem, even, steps, multiplier=multiplier).verdict.startswith(
        "strict local minimum")
    assert "multiplier" in second_order(problem, even, steps).verdict
    off = second_order(problem, 1.01 * even, steps, multiplier=multiplier)
    assert off.verdict.startswith("not decided: the endpoint is missed")


@pytest.mark.parametrize("warm_up", [True, False])
def test_a_saddle_is_left(warm_up):
    problem, W = two_layers()
    solution = hs.DirectMultipleShooting(layers=2, warm_up=warm_up).solve(problem, W)
    assert_exact(solution)
    np.testing.assert_allclose(np.sort(solution.weights.ravel()), [-0.8, -0.2], atol=1e-8)


# -- no success with a gap ------------------------------------------------------------------------


def test_a_smoothed_network_that_misses_the_endpoint_is_no_success():
    solution = solved(polish=False)
    assert solution.residuals["smooth_stationarity"] < 1e-8
    assert solution.residuals["boundary_residual"] > 1e-6
    assert not solution.success
    assert solution.status is Status.UNSETTLED
    assert f"{solution.residuals['endpoint_gap']:.1e}" in solution.message


def test_success_means_a_gap_within_the_tolerance():
    for activation in ("relu", "smooth_relu", "linear"):
        for case in CASES[:4]:
            solution = solved(*case, activation)
            assert not solution.success or solution.residuals["boundary_residual"] <= 1e-8
            gap = np.linalg.norm(solution.representations[-1] - solution.problem.endpoint)
            assert solution.residuals["endpoint_gap"] == pytest.approx(gap, abs=1e-16)


def test_what_no_network_reaches_is_infeasible_and_the_closest_is_returned():
    """Six samples in general position by an affine map of two variables: least squares remain."""
    solution = solved(3, 2, 6, "linear")
    assert solution.status is Status.INFEASIBLE
    assert not solution.success
    problem = solution.problem
    S = np.vstack([problem.initial_state, np.ones(problem.n_samples)])
    best = problem.endpoint - problem.endpoint @ np.linalg.pinv(S) @ S
    least = np.linalg.norm(best)
    assert least * (1 - 1e-9) <= solution.residuals["endpoint_gap"] < 1.05 * least


def test_the_range_of_several_starts_is_of_those_that_reach_the_endpoint():
    method = hs.DirectMultipleShooting(layers=10, warm_up=False, starts=4)
    problem = between_normals(8, 4, 3)
    solution = method.solve(problem)
    missed = solution.message.count("did not reach the endpoint")
    assert "best of 4 starts" in solution.message
    low, high = min(solution.extra["start_objectives"]), max(solution.extra["start_objectives"])
    if missed:
        assert f"J from {low:.6g} to {high:.6g}" not in solution.message or low == high


def test_the_note_on_starts():
    search = object.__new__(EndpointSearch)
    search.options = type("Options", (), {"tol": 1e-8})()
    search.start_objectives, search.apart = [1.0, 0.5, 2.0], [1e-12, 0.3, 1e-9]
    assert search._starts_note() == [
        "best of 3 starts, J from 1 to 2, 1 of them did not reach the endpoint"]
    search.apart = [1.0, 1.0, 1.0]
    assert search._starts_note() == ["best of 3 starts, 3 of them did not reach the endpoint"]


@pytest.mark.parametrize("after", [1, 30, 3000, 17_000])
def test_a_solve_that_is_stopped_has_an_answer(after):
    problem = between_normals()
    solution = hs.DirectMultipleShooting(layers=10).solve(
        problem, callback=lambda record: record.iteration >= after)
    if solution.status is Status.INTERRUPTED:
        assert not solution.success
    assert np.isfinite(solution.objective)
    assert solution.residuals["endpoint_gap"] < 5


# -- the augmented Lagrangian ---------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "smooth_relu", "linear"])
@pytest.mark.parametrize("bias", [True, False])
def test_its_stationarity_is_that_of_the_endpoint_problem(activation, bias):
    """At any network: the terminal momentum is the multiplier that a round takes next."""
    problem = between_normals(activation=activation, bias=bias)
    rng, steps = np.random.default_rng(4), np.full(6, 1 / 6)
    W = rng.standard_normal((6, *problem.control_shape))
    used, weight = rng.standard_normal(problem.endpoint.shape), 7 * stiffness(problem)
    soft = augmented(problem, used, weight)
    A = discrete.roll_out(problem, W, steps)
    np.testing.assert_allclose(discrete.roll_out(soft, W, steps), A, rtol=1e-15)
    B, G = discrete.costates(soft, A, W, steps)
    following = better_multiplier(problem, used, weight, A[-1] - problem.endpoint)
    np.testing.assert_allclose(B[-1], following, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        G, discrete.costates(problem, A, W, steps, terminal=following)[1], rtol=1e-9, atol=1e-9)


def test_its_value_is_the_norms_but_for_a_constant_and_the_gap():
    problem = between_normals()
    rng, steps = np.random.default_rng(4), np.full(6, 1 / 6)
    W = rng.standard_normal((6, *problem.control_shape))
    used, weight = rng.standard_normal(problem.endpoint.shape), 3.0
    A = discrete.roll_out(problem, W, steps)
    gap = A[-1] - problem.endpoint
    J = discrete.objective(problem, A[-1], W, steps)[0]
    value = discrete.objective_of(augmented(problem, used, weight), W, steps)
    assert value == pytest.approx(
        J + constant(problem, used, weight) - problem.weight_decay * np.sum(used * gap)
        + weight / problem.n_samples * np.sum(gap**2), rel=1e-12)


def test_a_loss_has_no_augmented_lagrangian():
    problem = hs.teacher_problem((3, 2, 3), 8, width=3, effective_depth=2.0)
    with pytest.raises(ValueError, match="hard endpoint"):
        augmented(problem, np.zeros((3, 8)), 1.0)


def test_extrapolation_solves_a_linear_iteration_in_as_many_rounds_as_it_has_slow_directions():
    rng = np.random.default_rng(2)
    Q = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    rates = np.concatenate([[0.95, 0.9, 0.6], np.full(9, 1e-6)])
    fixed = rng.standard_normal((3, 4))
    contraction = Q @ np.diag(rates) @ Q.T
    known = Extrapolated(np.zeros((3, 4)))
    for _ in range(8):
        away = (known.multiplier - fixed).ravel()
        known.next(fixed + (contraction @ away).reshape(3, 4))
    assert np.linalg.norm(known.multiplier - fixed) < 1e-10
