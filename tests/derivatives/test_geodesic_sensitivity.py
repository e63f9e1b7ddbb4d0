"""Derivatives of geodesics against differences of geodesics solved anew, and closed forms."""

from functools import cache

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.bvp.solve import solve_two_point
from hamshoot.derivatives import geodesics
from hamshoot.derivatives.geodesics import geodesic_sensitivity
from hamshoot.derivatives.result import NoDerivative
from hamshoot.derivatives.smoothing import carried
from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.problem.activations import Activation
from hamshoot.theory import closed_forms as exact
from hamshoot.theory import hamiltonian as ham

METHOD = hs.IndirectShooting(tol=1e-12, effort="quick", layers=30)
EPSILON = 0.2
#: Of the differences, such that their error is seen above rounding.
STEPS = {"weight_decay": 2e-4, "effective_depth": 1e-2, "epsilon": 2e-3, "targets": 4e-3,
         "inputs": 1e-3}


@cache
def solved(seed=3, activation="smooth_relu", **options):
    settings = {"samples": 6, "width": 3, "dims": (3, 2, 3), "weight_decay": 0.03,
                "effective_depth": 2.0, "epsilon": EPSILON, **options}
    solution = METHOD.solve(problems.teacher(activation, seed=seed, **settings))
    assert solution.success
    return solution


def random_direction(problem, of, seed=0):
    rng = np.random.default_rng(seed)
    sizes = {"targets": (problem.n_samples, problem.d_out),
             "inputs": (problem.n_samples, problem.d_in), "sample_weights": (problem.n_samples,)}
    return rng.standard_normal(sizes[of]) if of in sizes else None


def moved(problem, of, t, direction):
    """The problem at θ + t·direction, standardised no further."""
    scaled = {"X": problem.input_scaling.apply(problem.X), "Y": problem.targets.T}
    if problem.hard_endpoint:
        scaled["Y"] = None
    if of in ("targets", "inputs"):
        name = "Y" if of == "targets" else "X"
        scaled[name] = scaled[name] + t * direction
        return problem.replace(**scaled, standardize=False)
    old = problem.sigma.epsilon if of == "epsilon" else getattr(problem, of)
    return problem.replace(**scaled, standardize=False, **{of: old + t})


def differences(solution, of, direction, h):
    """dJ*, d²J*, dA*, dB* and dW* by central differences of geodesics solved from here."""
    there, back = (METHOD.solve(moved(solution.problem, of, t, direction), initial_guess=solution)
                   for t in (h, -h))
    assert there.success
    assert back.success
    one, other = there.at(solution.p), back.at(solution.p)
    return [
        (there.objective - back.objective) / (2 * h),
        (there.objective + back.objective - 2 * solution.objective) / h**2,
        *((getattr(one, name) - getattr(other, name)) / (2 * h)
          for name in ("representations", "momenta", "weights"))]


def relative(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("seed", [3, 11])
@pytest.mark.parametrize("of", list(STEPS))
def test_derivatives_are_the_limit_of_differences_of_solved_geodesics_at_second_order(of, seed):
    solution = solved(seed)
    direction = random_direction(solution.problem, of, seed)
    found = geodesic_sensitivity(solution, of, direction)
    ours = [found.along, found.second, found.states, found.momenta, found.weights]
    coarse, fine = (differences(solution, of, direction, h) for h in (STEPS[of], STEPS[of] / 2))
    for wanted, one, other in zip(ours, coarse, fine, strict=True):
        order = np.log2(relative(one, wanted) / relative(other, wanted))
        assert 1.9 < order < 2.1
        extrapolated = other + (np.asarray(other) - one) / 3
        assert relative(extrapolated, wanted) < 1e-5
    assert found.residual < 1e-12
    assert found.interval == (-np.inf, np.inf)
    h = STEPS[of]
    value = METHOD.solve(moved(solution.problem, of, h, direction), initial_guess=solution)
    assert found.predict(h) == pytest.approx(value.objective, rel=1e-5)


def weighted(solution, weights):
    """The two-point problem of a loss with weights (N,), solved from a geodesic: J and states."""
    problem, N = solution.problem, solution.problem.n_samples
    w, decay, Q = problem.width, problem.weight_decay, problem.readout
    flow = HamiltonianFlow(w, N, problem.effective_depth, solution.activation, problem.bias)
    n, half = 2 * w * N, w * N
    first, last = np.zeros((n, n)), np.zeros((n, n))
    first[:half, :half] = np.eye(half)
    last[half:, half:] = np.eye(half)
    last[half:, :half] = np.kron(2 / (decay * N) * Q.T @ Q, np.diag(weights))

    def ends(a, b):
        lack = Q @ b[:half].reshape(w, N) - problem.targets
        wanted = -2 / (decay * N) * Q.T @ (lack * weights)
        return np.concatenate([a[:half] - problem.initial_state.ravel(),
                               b[half:] - wanted.ravel()]), first, last

    start = np.stack([solution.representations, solution.momenta], axis=1)
    found = solve_two_point(flow, ends, solution.p, start.reshape(len(start), n), tol=1e-12)
    assert found.success
    flow(solution.p[:-1], solution.p[1:], found.y[:-1])
    y = found.y.reshape(start.shape)
    lack = Q @ y[-1, 0] - problem.targets
    return np.sum(weights * lack**2) / N + decay * flow.energies.sum(), y


def test_weights_of_samples_move_the_geodesic_as_the_weighted_two_point_problem_says():
    solution = solved()
    direction = random_direction(solution.problem, "sample_weights")
    found = geodesic_sensitivity(solution, "sample_weights", direction)
    size = max(abs(found.along), 1e-3)
    apart = []
    for h in (2e-2, 1e-2):
        (J, y), (K, z) = (weighted(solution, 1 + t * direction) for t in (h, -h))
        apart.append([abs((J - K) / (2 * h) - found.along) / size,
                      abs((J + K - 2 * solution.objective) / h**2 / found.second - 1),
                      relative((y - z)[:, 0] / (2 * h), found.states)])
    orders = np.log2(np.array(apart[0]) / apart[1])
    np.testing.assert_allclose(orders, 2, atol=0.1)
    assert max(apart[1]) < 1e-2
    np.testing.assert_allclose(found.objective.sum(), solution.loss, rtol=1e-12)


def test_all_weights_together_scale_the_loss_as_a_smaller_weight_decay_does():
    """J(ω·1, λ) = ω J(1, λ/ω): the derivative along 1 follows from that by λ, exactly."""
    solution = solved()
    problem = solution.problem
    decay = problem.weight_decay
    weights = geodesic_sensitivity(solution, "sample_weights", np.ones(problem.n_samples))
    by_decay = geodesic_sensitivity(solution, "weight_decay")
    assert weights.along == pytest.approx(solution.objective - decay * by_decay.along, rel=1e-11)
    assert weights.second == pytest.approx(decay**2 * by_decay.second, rel=1e-9)
    np.testing.assert_allclose(weights.states, -decay * by_decay.states, rtol=0,
                               atol=1e-9 * np.abs(weights.states).max())
    np.testing.assert_allclose(weights.weights, -decay * by_decay.weights, rtol=0,
                               atol=1e-9 * np.abs(weights.weights).max())


def test_what_is_known_of_the_first_derivatives_of_a_geodesic():
    solution = solved()
    problem, N = solution.problem, solution.problem.n_samples
    leak, decay = problem.effective_depth, problem.weight_decay
    A1, B0 = solution.representations[-1], solution.momenta[0]

    def rate(of):
        return geodesic_sensitivity(solution, of).objective

    assert rate("weight_decay") == pytest.approx(solution.parameter_norm / (2 * leak), rel=1e-14)
    assert rate("effective_depth") == pytest.approx(decay / 2 * solution.bottleneck_rank, rel=1e-9)
    np.testing.assert_allclose(rate("targets"),
                               -2 / N * (problem.readout @ A1 - problem.targets).T, rtol=1e-14)
    np.testing.assert_allclose(rate("inputs"), -decay * (problem.lift.T @ B0).T, rtol=1e-14)
    assert geodesic_sensitivity(solution, "inputs").along is None


def test_where_d2j_is_constant_along_the_path_it_is_and_dy_over_a_segment_meets_the_next_node():
    assert geodesic_sensitivity(solved(), "effective_depth").extra["second_drift"] < 1e-9
    assert geodesic_sensitivity(solved(), "epsilon").extra["end_mismatch"] < 1e-9


@pytest.mark.parametrize("of", ["effective_depth", "targets"])
def test_tangents_of_the_flow_by_gmres_give_what_the_dense_factors_do(of, monkeypatch):
    solution = solved()
    direction = random_direction(solution.problem, of)
    dense = geodesic_sensitivity(solution, of, direction)
    monkeypatch.setattr(geodesics, "MAX_DENSE", 0)
    sparse = geodesic_sensitivity(solution, of, direction)
    assert "GMRES" in sparse.how
    assert "orthogonal factors" in dense.how
    assert relative(sparse.states, dense.states) < 1e-10
    assert sparse.second == pytest.approx(dense.second, rel=1e-9)


@pytest.mark.parametrize("bias", [True, False])
def test_the_flow_moves_with_epsilon_as_its_differences_do(bias):
    rng = np.random.default_rng(5)
    y = 0.5 * rng.standard_normal((4, 2, 3, 5))
    t, h = np.linspace(0, 0.4, 5), 1e-4
    settings = dict(effective_depth=2.0, bias=bias)
    found = carried(t, y, np.zeros_like(y), activation=Activation("smooth_relu", 0.3), **settings)

    def ends(epsilon):
        flow = HamiltonianFlow(3, 5, 2.0, Activation("smooth_relu", epsilon), bias)
        return flow(t[:-1], t[1:], y.reshape(4, -1))[0].reshape(y.shape)

    np.testing.assert_allclose(found.ends, ends(0.3), atol=1e-10)
    central = (ends(0.3 + h) - ends(0.3 - h)) / (2 * h)
    np.testing.assert_allclose(found.moved, central, atol=1e-7 * np.abs(central).max())


# -- ReLU ------------------------------------------------------------------------------------------


def test_a_plain_relu_geodesic_that_crosses_its_kinks_is_differentiated_with_its_crossings():
    problem = problems.random_data("relu", sizes=(3, 3, 3), data_seed=1, width=3,
                                   effective_depth=1.5, weight_decay=0.2)
    solution = METHOD.solve(problem)
    assert solution.status is hs.Status.CONVERGED
    assert solution.epsilon == 0
    signs = solution.representations > 0
    assert (signs.any(0) & ~signs.all(0)).any()  # some cross
    found = geodesic_sensitivity(solution, "effective_depth")
    assert "crossings" in found.how
    coarse, fine = (differences(solution, "effective_depth", None, h) for h in (4e-3, 2e-3))
    for wanted, one, other in zip([found.along, found.second], coarse, fine, strict=False):
        assert other + (other - one) / 3 == pytest.approx(wanted, rel=1e-4)
    # Between the nodes crossings move: the states there have one-sided derivatives, at nodes not.
    assert relative(fine[2], found.states) < 1e-4
    low, high = found.interval
    assert low < -4e-3 < 4e-3 < high
    assert all(word or np.isinf(end) for word, end in
               zip(found.changes, found.interval, strict=True))
    assert found.stays(0.5 * min(1.0, high))
    with pytest.raises(ValueError, match="epsilon is that of a smooth ReLU"):
        geodesic_sensitivity(solution, "epsilon")


def test_the_interval_of_a_plain_relu_path_ends_where_a_further_activation_meets_its_kink():
    problem = problems.random_data("relu", sizes=(3, 3, 3), data_seed=1, width=3,
                                   effective_depth=1.5, weight_decay=0.2)
    solution = METHOD.solve(problem)
    found = geodesic_sensitivity(solution, "effective_depth")
    t = min(abs(end) for end in found.interval)
    t = t if found.interval[1] == t else -t
    A, a = solution.representations[1:], found.states[1:]
    keeps = (A > 0).all(0) | (A < 0).all(0)
    near, beyond = A + 0.99 * t * a, A + 1.01 * t * a
    assert np.array_equal((near > 0)[:, keeps], (A > 0)[:, keeps])
    assert not np.array_equal((beyond > 0)[:, keeps], (A > 0)[:, keeps])


def test_a_smoothed_relu_geodesic_is_differentiated_at_its_epsilon_and_says_so():
    solution = METHOD.solve(problems.teacher("relu", samples=5, width=3, dims=(3, 2, 3), seed=3,
                                             weight_decay=0.03, effective_depth=2.0))
    assert solution.status is hs.Status.SMOOTHED
    found = geodesic_sensitivity(solution, "weight_decay")
    assert f"smoothed with ε = {solution.epsilon:.3g}, not of the ReLU itself" in found.how
    smooth = solution.problem.replace(activation="smooth_relu", epsilon=solution.epsilon)
    own = METHOD.solve(smooth, initial_guess=solution)
    h = 1e-4
    there, back = (METHOD.solve(moved(smooth, "weight_decay", t, None), initial_guess=own)
                   for t in (h, -h))
    assert (there.objective - back.objective) / (2 * h) == pytest.approx(found.along, rel=1e-5)
    assert geodesic_sensitivity(solution, "epsilon").theta == solution.epsilon


# -- hard endpoints, closed forms ------------------------------------------------------------------


def scalar(depth=2.0, start=1.5, end=0.8, decay=0.1, width=1):
    return METHOD.solve(problems.between([start], [end], effective_depth=depth,
                                         weight_decay=decay))


def test_of_one_neuron_between_two_states_all_derivatives_are_in_closed_form():
    """W ≡ L̃ + g, g = ln(a_1/a_0), and J* = λ(L̃ + g)²/(2L̃)."""
    depth, decay, start = 2.0, 0.1, 1.5
    g, solution = np.log(0.8 / start), scalar()
    assert solution.objective == pytest.approx(decay * (depth + g) ** 2 / (2 * depth), rel=1e-12)
    by_depth = geodesic_sensitivity(solution, "effective_depth")
    assert by_depth.along == pytest.approx(decay / 2 * (1 - g**2 / depth**2), rel=1e-9)
    assert by_depth.second == pytest.approx(decay * g**2 / depth**3, rel=1e-8)
    np.testing.assert_allclose(by_depth.weights, 1, rtol=1e-8)
    by_decay = geodesic_sensitivity(solution, "weight_decay")
    assert by_decay.along == pytest.approx((depth + g) ** 2 / (2 * depth), rel=1e-12)
    assert by_decay.second == 0
    assert np.abs(by_decay.weights).max() < 1e-12
    by_start = geodesic_sensitivity(solution, "inputs", [[1.0]])
    slope = -decay / depth * (depth + g) / start
    assert by_start.along == pytest.approx(slope, rel=1e-9)
    assert by_start.second == pytest.approx(decay / depth * (1 + depth + g) / start**2, rel=1e-8)
    np.testing.assert_allclose(by_start.weights, -1 / start, rtol=1e-8)


@pytest.mark.parametrize("of", ["targets", "sample_weights"])
def test_what_does_not_enter_a_prescribed_endpoint_is_refused(of):
    with pytest.raises(ValueError, match="do not enter a problem whose endpoint is prescribed"):
        geodesic_sensitivity(scalar(), of)


# -- refusals --------------------------------------------------------------------------------------


def great_circle(angle, width=3, depth=2.0, growth=0.3, decay=0.1):
    """One sample of a linear network led by an angle in a plane: past π another plane is better."""
    u, v = np.eye(width)[:2]
    A0 = 1.5 * u[:, None]
    A1 = np.exp(growth) * 1.5 * (np.cos(angle) * u + np.sin(angle) * v)
    problem = problems.between(A0[:, 0], A1, effective_depth=depth, weight_decay=decay)
    p = np.linspace(0, 1, 61)
    W0 = np.outer((depth + growth) * u + angle * v, u)
    path = exact.linear_path(p, A0, W0, depth)
    A, B = path.representations, path.momenta
    W = np.array([ham.control(a, b, effective_depth=depth, activation=problem.sigma, bias=False)
                  for a, b in zip(A, B, strict=True)])
    norm = (depth + growth) ** 2 + angle**2
    return hs.Solution(
        problem=problem, p=p, representations=A, momenta=B, weights=W, loss=0.0,
        objective=decay / (2 * depth) * norm, parameter_norm=norm, success=True,
        status=hs.Status.CONVERGED, message="", nit=0, residuals={}, history=(), seconds=0.0,
        method="exact", integrator="flow", epsilon=0.0)


def test_of_a_great_circle_the_second_derivative_by_depth_is_that_of_its_closed_form():
    """J* = (λ/2L̃)((L̃ + g)² + θ²)."""
    depth, growth, decay, angle = 2.0, 0.3, 0.1, 2.0
    found = geodesic_sensitivity(great_circle(angle), "effective_depth")
    squares = growth**2 + angle**2
    assert found.along == pytest.approx(decay / 2 * (1 - squares / depth**2), rel=1e-9)
    assert found.second == pytest.approx(decay * squares / depth**3, rel=1e-7)


@pytest.mark.parametrize(("angle", "word"), [(1.1 * np.pi, "saddle"), (np.pi, "zero to its error")])
def test_past_its_conjugate_point_and_at_it_a_geodesic_has_no_derivatives(angle, word):
    with pytest.raises(NoDerivative, match=word):
        geodesic_sensitivity(great_circle(angle), "effective_depth")


def test_what_did_not_converge_or_does_not_solve_its_flow_is_refused():
    solution = solved()
    with pytest.raises(ValueError, match="ended as max_iter"):
        geodesic_sensitivity(solution.replace(success=False, status=hs.Status.MAX_ITER), "targets")
    shifted = solution.replace(momenta=solution.momenta * 1.001)
    with pytest.raises(ValueError, match="got residuals of"):
        geodesic_sensitivity(shifted, "targets")
    with pytest.raises(ValueError, match="of: expected one of weight_decay"):
        geodesic_sensitivity(solution, "width")
    with pytest.raises(ValueError, match=r"direction: expected shape \(6, 3\)"):
        geodesic_sensitivity(solution, "targets", np.ones(3))


def test_a_path_that_slides_along_the_kink_of_a_plain_relu_is_refused():
    """The smoothed path taken for one of ReLU itself: an activation at rest on its kink."""
    smoothed = METHOD.solve(problems.teacher("relu", samples=5, width=3, dims=(3, 2, 3), seed=3,
                                             weight_decay=0.03, effective_depth=2.0))
    assert smoothed.extra["sliding"] > 0
    claimed = smoothed.replace(epsilon=0.0, status=hs.Status.CONVERGED)
    with pytest.raises(ValueError, match=r"grazes its kink|got residuals of"):
        geodesic_sensitivity(claimed, "weight_decay")


def test_the_verb_takes_geodesics_too():
    solution = solved()
    own = geodesic_sensitivity(solution, "effective_depth")
    verb = hs.sensitivity(solution, "effective_depth")
    assert verb.second == own.second
    user = solution.problem.target_scaling.scale
    direction = random_direction(solution.problem, "targets")
    found = hs.sensitivity(solution, "targets", direction * user, scaled=False)
    assert found.along == pytest.approx(geodesic_sensitivity(solution, "targets", direction).along)
