"""When the two-point solver cannot succeed it says why, in a sentence, and keeps its best."""

import time

import numpy as np
import pytest
from reference_problems import fixed, matrix, stack, van_der_pol
from scipy.optimize import brentq

from hamshoot.bvp.field_flow import RightHandSideFlow
from hamshoot.bvp.solve import BVPStatus, affine_boundary, solve_two_point


def bratu(strength):
    """y″ + strength·eʸ = 0, y(0) = y(1) = 0: two solutions up to 3.5138307, none beyond."""
    flow = RightHandSideFlow(
        lambda t, y: stack(y[..., 1], -strength * np.exp(y[..., 0])),
        lambda t, y: matrix(y, {(0, 1): 1, (1, 0): -strength * np.exp(y[..., 0])}),
    )
    return flow, fixed(2, {0: 0}, {0: 0}), np.linspace(0, 1, 6), np.zeros((6, 2))


def rotation(t0, t1, y, jacobian):
    """The exact flow of y″ = −y."""
    c, s = np.cos(t1 - t0), np.sin(t1 - t0)
    phi = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], -2)
    return (phi @ y[:, :, None])[..., 0], phi


def hyperbolic(t0, t1, y, jacobian):
    """The exact flow of y″ = y."""
    c, s = np.cosh(t1 - t0), np.sinh(t1 - t0)
    phi = np.stack([np.stack([c, s], -1), np.stack([s, c], -1)], -2)
    return (phi @ y[:, :, None])[..., 0], phi


def solve_van_der_pol(**options):
    problem = van_der_pol()
    return solve_two_point(problem.flow, problem.boundary, problem.t, problem.guess(), **options)


def check_failure(result, status):
    assert not result.success
    assert result.status is status
    assert result.message.startswith(status.value)
    assert result.y.shape[0] == result.t.size
    assert np.isfinite(result.y).all()


@pytest.mark.parametrize("status", BVPStatus)
def test_every_status_is_a_sentence(status):
    assert status.value[0].isupper()
    assert status.value.endswith(".")
    assert len(status.value.split()) >= 8


# ------------------------------------------------------------------ nothing to find


@pytest.mark.parametrize("strength", [3.6, 4.0, 10.0])
def test_no_solution_beyond_the_fold(strength):
    result = solve_two_point(*bratu(strength))
    check_failure(result, BVPStatus.NO_DESCENT)
    assert result.nit < 30
    assert result.correction == min(r.correction for r in result.history)


def test_the_same_problem_has_one_just_before_the_fold():
    result = solve_two_point(*bratu(3.51))
    assert result.success
    # y = 2 ln(cosh α / cosh(α(1 − 2x))), strength 8α²/cosh²α; the fold is at α = 1.19968
    alpha = brentq(lambda a: 8 * a**2 / np.cosh(a) ** 2 - 3.51, 0.1, 1.19968, xtol=1e-14)
    assert result.y[0, 1] == pytest.approx(4 * alpha * np.tanh(alpha), rel=1e-8)


@pytest.mark.parametrize("segments", [1, 4, 9])
def test_a_resonant_problem_is_singular(segments):
    t = np.linspace(0, np.pi, segments + 1)
    boundary = fixed(2, {0: 0}, {0: 1})  # sin cannot end at 1
    result = solve_two_point(rotation, boundary, t, np.zeros((t.size, 2)))
    check_failure(result, BVPStatus.SINGULAR)
    near = solve_two_point(rotation, boundary, t * 0.99, np.zeros((t.size, 2)))
    assert near.success
    assert near.y[0, 1] == pytest.approx(1 / np.sin(0.99 * np.pi), rel=1e-9)


def test_a_resonance_known_only_up_to_the_integration_error_is_called_singular_too():
    flow = RightHandSideFlow(
        lambda t, y: stack(y[..., 1], -y[..., 0]), lambda t, y: matrix(y, {(0, 1): 1, (1, 0): -1})
    )
    t = np.linspace(0, np.pi, 5)
    boundary = fixed(2, {0: 0}, {0: 1})
    result = solve_two_point(flow, boundary, t, np.zeros((5, 2)), max_nodes=5)
    check_failure(result, BVPStatus.SINGULAR)


@pytest.mark.parametrize(
    "ga", [[[1, 0], [1, 0]], [[1, 0], [0, 0]]], ids=["repeated", "missing"]
)
def test_boundary_conditions_that_do_not_determine_the_solution_are_singular(ga):
    boundary = affine_boundary(ga, np.zeros((2, 2)), [0, 1])
    result = solve_two_point(rotation, boundary, [0, 0.5, 1], np.zeros((3, 2)))
    check_failure(result, BVPStatus.SINGULAR)


# ------------------------------------------------------------------ flows that cannot be used


def test_a_guess_outside_the_domain_is_not_finite():
    flow = RightHandSideFlow(lambda t, y: np.log(y), lambda t, y: 1 / y[..., None])
    boundary = affine_boundary([[1]], [[0]], [2])
    result = solve_two_point(flow, boundary, [0, 1], [[-1], [-1]])
    check_failure(result, BVPStatus.NOT_FINITE)
    assert "[0, " in result.message
    assert solve_two_point(flow, boundary, [0, 1], [[1], [1]]).success


def test_a_boundary_function_that_is_not_finite_is_named():
    def boundary(ya, yb):
        return np.array([0.0, np.nan]), np.eye(2), np.eye(2)

    result = solve_two_point(rotation, boundary, [0, 1], np.zeros((2, 2)))
    check_failure(result, BVPStatus.NOT_FINITE)
    assert "boundary function" in result.message


def test_a_pole_inside_the_interval_is_no_success():
    flow = RightHandSideFlow(lambda t, y: 1 + y**2, lambda t, y: 2 * y[..., None])
    boundary = affine_boundary([[1]], [[0]], [0])
    result = solve_two_point(flow, boundary, np.linspace(0, 2, 3), np.zeros((3, 1)), max_nodes=9)
    assert not result.success
    assert result.status in (BVPStatus.NO_DESCENT, BVPStatus.SINGULAR, BVPStatus.NOT_FINITE)
    before = solve_two_point(flow, boundary, np.linspace(0, 1.5, 3), np.zeros((3, 1)))
    assert before.success
    assert before.y[-1, 0] == pytest.approx(np.tan(1.5), rel=1e-7)


def test_growth_beyond_the_node_limit_is_named():
    boundary, t = fixed(2, {0: 1}, {0: 1}), [0.0, 40.0]
    guess = [[1, 0], [1, 0]]
    result = solve_two_point(hyperbolic, boundary, t, guess, max_nodes=2)
    check_failure(result, BVPStatus.NODE_LIMIT)
    free = solve_two_point(hyperbolic, boundary, t, guess)
    assert free.success
    assert free.y[0, 1] == pytest.approx(-1, abs=1e-9)
    assert free.y[-1, 1] == pytest.approx(1, abs=1e-9)


def test_small_corrections_with_large_defects_are_no_success():
    def coarse(t0, t1, y, jacobian):  # never within 5e-4 of the end value 1
        ends, phi = hyperbolic(t0, t1, y, jacobian)
        return np.floor(1e3 * ends) / 1e3 + 5e-4, phi

    boundary, t, guess = fixed(2, {0: 1}, {0: 1}), [0.0, 10.0], np.zeros((2, 2))
    result = solve_two_point(coarse, boundary, t, guess, max_nodes=2, tol=1e-7)
    check_failure(result, BVPStatus.ACCURACY_LIMIT)
    assert result.correction <= 1e-7  # since e^{10} turns it into the defect
    assert abs(result.defects).max() >= 4e-4
    assert solve_two_point(coarse, boundary, t, guess, max_nodes=2, tol=1e-6).success


def test_a_noisy_flow_limits_the_accuracy():
    problem, noise = van_der_pol(), np.random.default_rng(0)

    def flow(t0, t1, y, jacobian):
        ends, phi = problem.flow(t0, t1, y, jacobian)
        return ends + 1e-8 * noise.standard_normal(ends.shape), phi

    result = solve_two_point(flow, problem.boundary, problem.t, problem.guess(), tol=1e-11)
    check_failure(result, BVPStatus.ACCURACY_LIMIT)
    assert abs(result.y - problem.solution).max() <= 1e-6
    enough = solve_two_point(flow, problem.boundary, problem.t, problem.guess(), tol=1e-6)
    assert enough.success


# ------------------------------------------------------------------ limits


def test_iteration_limit_keeps_the_best_iterate():
    result = solve_van_der_pol(max_iter=2, tol=1e-12)
    check_failure(result, BVPStatus.ITERATION_LIMIT)
    assert result.nit == 2
    assert result.correction == result.history[-1].simplified
    assert abs(result.y - van_der_pol().solution).max() <= 1e-2
    assert solve_van_der_pol(tol=1e-12).nit > 2


def test_best_is_the_iterate_with_the_smallest_correction_not_the_last():
    calls = []

    def spoiled(record):  # a flow that turns bad after two good iterations
        calls.append(record)

    problem = van_der_pol()

    def flow(t0, t1, y, jacobian):
        ends, phi = problem.flow(t0, t1, y, jacobian)
        return (ends + 10.0 if len(calls) >= 2 else ends), phi

    result = solve_two_point(
        flow, problem.boundary, problem.t, problem.guess(), tol=1e-13, max_iter=3, callback=spoiled
    )
    assert not result.success
    assert result.correction <= result.history[1].correction
    assert abs(result.y - problem.solution).max() <= 0.05


def test_time_limit_is_kept():
    problem = van_der_pol()

    calls = []

    def slow(t0, t1, y, jacobian):
        calls.append(jacobian)
        time.sleep(0.1)
        return problem.flow(t0, t1, y, jacobian)

    result = solve_two_point(
        slow, problem.boundary, problem.t, problem.guess(), tol=1e-14, time_limit=0.15,
        jacobians=True,
    )  # fmt: skip
    check_failure(result, BVPStatus.TIME_LIMIT)
    assert len(calls) <= 4  # the limit is passed by the second, and one is for the Jacobians
    assert result.jacobians.shape == (5, 5, 5)


def test_time_limit_ends_an_integration_in_its_middle():
    """One call of this flow takes 5000 right-hand sides, and those a quarter of an hour."""
    def slow(t, y):
        calls.append(t.size)
        time.sleep(0.02)
        return stack(y[..., 1], 1e6 * np.sin(1e4 * t) - 1e7 * y[..., 0])

    calls = []
    flow = RightHandSideFlow(slow, lambda t, y: matrix(y, {(0, 1): 1, (1, 0): -1e7}))
    result = solve_two_point(
        flow, fixed(2, {0: 0}, {0: 1}), np.linspace(0, 1, 4), np.zeros((4, 2)), time_limit=0.3)
    check_failure(result, BVPStatus.TIME_LIMIT)
    assert len(calls) < 60
    assert flow.deadline == np.inf


def test_a_right_hand_side_written_for_scipy_gets_a_sentence():
    t = np.linspace(0, 1, 4)
    for rhs in (lambda t, y: np.vstack((y[1], y[0])), lambda t, y: np.array([y[4], y[0]])):
        flow = RightHandSideFlow(rhs, lambda t, y: matrix(y, {(0, 1): 1, (1, 0): 1}))
        with pytest.raises(ValueError, match=r"rhs: expected an array of shape .*bvp.solve_bvp"):
            solve_two_point(flow, fixed(2, {0: 0}, {0: 1}), t, np.zeros((4, 2)))
    flow = RightHandSideFlow(lambda t, y: y, lambda t, y: np.eye(2))
    with pytest.raises(ValueError, match="jacobian: expected an array of shape"):
        solve_two_point(flow, fixed(2, {0: 0}, {0: 1}), t, np.zeros((4, 2)))


def test_callback_can_stop():
    result = solve_van_der_pol(callback=lambda record: record.iteration == 2)
    check_failure(result, BVPStatus.STOPPED)
    assert result.nit == 2
    through = solve_van_der_pol(callback=lambda record: "a true value is not True")
    assert through.success


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": [0.0, 0.5, 0.5]}, "t: expected .* strictly increasing"),
        ({"t": [0.0]}, "t: expected at least two"),
        ({"y": np.zeros((2, 2))}, r"y: expected shape \(3, n\)"),
        ({"y": np.full((3, 2), np.nan)}, "y: expected finite"),
        ({"tol": 0.0}, "tol: expected a number > 0"),
        ({"tol": np.nan}, "tol: expected a number > 0"),
        ({"growth_limit": 1.0}, "growth_limit: expected a number > 1"),
        ({"min_damping": 2.0}, "min_damping: expected"),
        ({"max_iter": 0}, "max_iter: expected"),
        ({"time_limit": -1.0}, "time_limit: expected"),
        ({"scale": [1.0, 0.0]}, "scale: expected 2 finite numbers"),
        ({"scale": [1.0]}, "scale: expected 2 finite numbers"),
        ({"reuse": True}, "reuse: needs a flow with a method jvp"),
        ({"preconditioner": lambda t, y: None}, "preconditioner: needs a flow with a method jvp"),
        ({"flow": lambda t0, t1, y, jacobian: (y[:, :1], None)}, "flow: expected ends of shape"),
        ({"flow": lambda t0, t1, y, jacobian: (y, y)}, "flow: expected Jacobians of shape"),
        ({"boundary": lambda ya, yb: (ya, np.eye(2), np.eye(3))}, "boundary: expected shapes"),
    ],
    ids=lambda v: "" if isinstance(v, dict) else v.split(":")[0],
)
def test_bad_input_is_named(change, message):
    given = {
        "flow": rotation,
        "boundary": fixed(2, {0: 0}, {0: 1}),
        "t": [0.0, 0.5, 1.0],
        "y": np.zeros((3, 2)),
    }
    given.update(change)
    with pytest.raises(ValueError, match=message):
        solve_two_point(**given)


def test_affine_boundary_checks_its_shapes():
    with pytest.raises(ValueError, match=r"affine_boundary: expected shapes"):
        affine_boundary(np.eye(2), np.eye(3), [0, 1])
