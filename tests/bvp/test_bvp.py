"""The two-point solver finds known answers, at second order, on stiff and coupled problems."""

from dataclasses import replace

import numpy as np
import pytest
from reference_problems import (
    PROBLEMS,
    boundary_layer,
    energy_optimal,
    hypersensitive,
    linear_resnet,
    nonlinear_layer,
    one_sample,
    scalar_resnet,
    soft_scalar_resnet,
    troesch,
    van_der_pol,
)
from scipy.linalg import expm

from hamshoot.bvp.field_flow import RightHandSideFlow
from hamshoot.bvp.solve import BVPStatus, affine_boundary, solve_two_point
from hamshoot.bvp.staircase import StaircaseFactor

every_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)


def complex_step(function, y):
    """∂function/∂y at a vector y, to rounding."""
    step = 1e-30
    return np.array([function(y + 1j * step * e).imag / step for e in np.eye(y.size)]).T


# ------------------------------------------------------------------ the table of problems


@every_problem
def test_jacobians_of_the_table_are_derivatives(problem):
    rng = np.random.default_rng(1)
    y = problem.solution[[0, -1]] + 0.1 * rng.standard_normal((2, problem.solution.shape[1]))
    t = problem.t[[0, -1]]
    for k in range(2):
        expected = complex_step(lambda z, s=t[k : k + 1]: problem.rhs(s, z[None])[0], y[k])
        found = problem.jacobian(t, y)[k]
        assert abs(found - expected).max() <= 1e-12 * max(1, abs(expected).max())
    _, ga, gb = problem.boundary(*y)
    assert abs(ga - complex_step(lambda z: problem.boundary(z, y[1])[0], y[0])).max() <= 1e-13
    assert abs(gb - complex_step(lambda z: problem.boundary(y[0], z)[0], y[1])).max() <= 1e-13


@every_problem
def test_residual_vanishes_at_the_known_solution_and_only_there(problem):
    assert problem.residual(problem.solution) <= problem.exact_tol
    moved = problem.solution.copy()
    moved[0, 0] += 1e-2
    assert problem.residual(moved) >= 5e-3


@every_problem
@pytest.mark.parametrize("seed", [0, 1])
def test_converges_from_a_perturbed_guess_to_the_reference(problem, seed):
    result = solve_two_point(
        problem.flow, problem.boundary, problem.t, problem.guess(seed), tol=1e-10
    )
    assert result.success, result
    assert result.status is BVPStatus.CONVERGED
    for name, (function, reference, digits) in problem.values.items():
        assert abs(function(result.t, result.y) - reference) <= digits, name
    assert abs(result.y - problem.exact(result.t)).max() <= problem.exact_tol
    assert abs(result.defects).max() <= 1e-7
    assert abs(result.boundary).max() <= 1e-7


@pytest.mark.parametrize(
    "problem", [p for p in PROBLEMS if p.linear], ids=lambda p: p.name
)
def test_linear_problems_take_one_iteration(problem):
    result = solve_two_point(
        problem.flow, problem.boundary, problem.t, np.zeros_like(problem.solution)
    )
    assert result.success
    assert result.nit == 1
    assert result.history[0].damping == 1


# ------------------------------------------------------------------ order and invariance


@pytest.mark.parametrize(
    "problem",
    [van_der_pol(), nonlinear_layer(), linear_resnet(), one_sample(), soft_scalar_resnet()],
    ids=lambda p: p.name,
)
def test_convergence_is_quadratic_in_the_records(problem):
    result = solve_two_point(
        problem.flow, problem.boundary, problem.t, problem.guess(), tol=1e-13
    )
    seen = [r.order for r in result.history if np.isfinite(r.order) and r.correction > 1e-12]
    assert 1.6 <= seen[-1] <= 2.4, result
    tail = [r for r in result.history if 1e-7 < r.correction < 0.05 and r.damping == 1]
    assert tail
    assert all(0.005 <= r.simplified / r.correction**2 <= 10 for r in tail), result


def test_a_wrong_jacobian_shows_as_first_order():
    problem = nonlinear_layer()

    def flow(t0, t1, y, jacobian):
        ends, phi = problem.flow(t0, t1, y, jacobian)
        return ends, None if phi is None else 1.05 * phi

    result = solve_two_point(flow, problem.boundary, problem.t, problem.guess(), tol=1e-10)
    orders = np.array([r.order for r in result.history[-4:]])
    assert result.success
    assert np.all((orders > 0.7) & (orders < 1.4)), result


def test_iterates_do_not_change_when_the_equations_are_combined():
    problem = nonlinear_layer(1e-2, nodes=2)
    mix = np.array([[3.0, -1e4], [2e-3, 5.0]])

    def mixed(ya, yb):
        return tuple(mix @ v for v in problem.boundary(ya, yb))

    guess = np.column_stack([1 - problem.t, 0 * problem.t])
    plain, combined = (
        solve_two_point(problem.flow, g, problem.t, guess) for g in (problem.boundary, mixed)
    )
    dampings = [r.damping for r in plain.history]
    assert min(dampings) < 0.9  # the damping strategy has been at work
    np.testing.assert_allclose([r.damping for r in combined.history], dampings, rtol=1e-5)
    np.testing.assert_allclose(
        [r.correction for r in combined.history],
        [r.correction for r in plain.history],
        rtol=1e-5,
        atol=1e-10,
    )


def test_a_solution_is_accepted_as_it_is():
    problem = one_sample()
    first = solve_two_point(
        problem.flow, problem.boundary, problem.t, problem.guess(), tol=1e-14
    )
    again = solve_two_point(problem.flow, problem.boundary, first.t, first.y, tol=1e-14)
    assert again.success, again
    assert again.nit == 1
    assert abs(again.y - first.y).max() <= 1e-13


def test_a_linear_problem_goes_on_undamped_after_a_step_that_had_to_be_shortened():
    problem, calls = boundary_layer(), []

    def flow(t0, t1, y, jacobian):
        calls.append(jacobian)
        ends, phi = problem.flow(t0, t1, y, jacobian)
        return (np.full_like(ends, np.nan) if calls.count(False) == 1 else ends), phi

    guess = np.zeros_like(problem.solution)
    result = solve_two_point(flow, problem.boundary, problem.t, guess)
    assert [r.damping for r in result.history] == [0.25, 1.0]
    assert calls.count(False) == 3
    assert result.success


def test_a_damping_predicted_too_small_is_raised():
    problem, calls = boundary_layer(), []
    guess = np.zeros_like(problem.solution)
    guess[0, 0] = 1  # satisfies the boundary conditions
    step = problem.solution - guess  # Newton's, the problem is linear
    elsewhere, trial = problem.solution + 0.5 * step, guess + 0.25 * step

    def flow(t0, t1, y, jacobian):
        """Not finite at λ = 1; at λ = ¼ the defects of another point, as if very nonlinear."""
        calls.append(jacobian)
        ends, phi = problem.flow(t0, t1, y, jacobian)
        if not jacobian and calls.count(False) == 1:
            ends[:] = np.nan
        if not jacobian and calls.count(False) == 2:
            ends = problem.flow(t0, t1, elsewhere[:-1], False)[0] - elsewhere[1:] + trial[1:]
        return ends, phi

    result = solve_two_point(flow, problem.boundary, problem.t, guess)
    assert [r.damping for r in result.history] == [0.25, 1.0]
    assert result.history[0].simplified == pytest.approx(0.5 * abs(step).max(), rel=1e-6)
    assert calls.count(False) == 4  # a-priori λ = ¼ · 0.5 / (1.25 · 0.75) first, then λ = 1
    assert result.success


def test_the_natural_level_decreases_as_the_restricted_test_asks():
    problem = troesch()
    guess = np.column_stack([problem.t, np.ones_like(problem.t)])
    result = solve_two_point(problem.flow, problem.boundary, problem.t, guess)
    assert result.success
    steps = [r for r in result.history if r.damping > 0]
    assert min(r.damping for r in steps) < 1
    assert all(r.simplified <= (1 - r.damping / 4) * r.correction for r in steps[:-1])


# ------------------------------------------------------------------ nodes


@pytest.mark.parametrize(
    ("problem", "guess"),
    [
        (hypersensitive(40.0, 2), [[1.5, 0, 0], [1, 0, 0]]),
        (hypersensitive(1000.0, 2), [[1.5, 0, 0], [1, 0, 0]]),  # e^{±1414}
        (boundary_layer(1e-6, 2), [[1, 0], [0, 0]]),  # e^{±1000}
        (nonlinear_layer(1e-2, 2), [[1, 0], [0, 0]]),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_growing_segments_are_cut_and_reported(problem, guess):
    result = solve_two_point(problem.flow, problem.boundary, problem.t, guess)
    assert result.success, result
    inserted = sum(r.inserted for r in result.history)
    assert inserted == result.t.size - 2 > 0
    assert result.history[-1].nodes == result.t.size
    assert result.history[-1].growth <= 1e3
    assert abs(result.y - problem.exact(result.t)).max() <= 1e-8


def test_nodes_inserted_into_a_good_guess_lie_on_the_flow():
    problem = boundary_layer(1e-2, nodes=3)  # e^{±5} a segment
    result = solve_two_point(
        problem.flow, problem.boundary, problem.t, problem.solution, growth_limit=5.0
    )
    assert result.success
    assert result.t.size == 7  # ‖Φ‖ = 105 takes three pieces of at most 5
    assert result.history[0].correction <= 1e-9
    assert abs(result.y - problem.exact(result.t)).max() <= 1e-9


def test_given_nodes_stay_and_arguments_are_not_changed():
    problem = hypersensitive(40.0, 4)
    guess = problem.guess()
    t, y = problem.t.copy(), guess.copy()
    result = solve_two_point(problem.flow, problem.boundary, problem.t, guess)
    assert result.success
    assert result.t.size > 4
    assert np.isin(t, result.t).all()
    assert np.all(np.diff(result.t) > 0)
    assert np.array_equal(problem.t, t)
    assert np.array_equal(guess, y)


def test_one_segment_is_single_shooting():
    problem = van_der_pol()
    ends = problem.t[[0, -1]]
    result = solve_two_point(
        problem.flow, problem.boundary, ends, problem.guess()[[0, -1]], max_nodes=2
    )
    assert result.success, result
    assert result.t.size == 2
    for name, (function, reference, digits) in problem.values.items():
        assert abs(function(result.t, result.y) - reference) <= digits, name


def test_the_flow_gets_all_segments_in_one_call():
    problem = van_der_pol()
    calls = []

    def flow(t0, t1, y, jacobian):
        calls.append((t0.shape, t1.shape, y.shape, jacobian))
        return problem.flow(t0, t1, y, jacobian)

    result = solve_two_point(flow, problem.boundary, problem.t, problem.guess())
    assert {c[:3] for c in calls} == {((5,), (5,), (5, 5))}
    assert sum(c[3] for c in calls) == result.nit
    assert result.history[-1].flows == 5 * len(calls)


def test_returned_jacobians_are_those_of_the_solution():
    problem = one_sample()
    result = solve_two_point(
        problem.flow, problem.boundary, problem.t, problem.guess(), jacobians=True
    )
    assert result.jacobians.shape == (5, 6, 6)
    for j, e in enumerate(np.eye(6)):
        plus, minus = (
            problem.flow(result.t[:-1], result.t[1:], result.y[:-1] + h * e, False)[0]
            for h in (1e-5, -1e-5)
        )
        difference = (plus - minus) / 2e-5
        assert abs(result.jacobians[:, :, j] - difference).max() <= 1e-7


# ------------------------------------------------------------------ products instead of Jacobians


def test_reusing_a_factored_system_takes_the_same_steps_with_fewer_tangents():
    problem = linear_resnet(w=3, n_samples=6)
    n = problem.solution.shape[1]
    tangents = {False: 0, True: 0}

    class Counted(RightHandSideFlow):
        reuse = False

        def __call__(self, t0, t1, y, jacobian):
            tangents[self.reuse] += n * jacobian
            return super().__call__(t0, t1, y, jacobian)

        def jvp(self, t0, t1, y, v):
            tangents[self.reuse] += 1
            return super().jvp(t0, t1, y, v)

    results = []
    for reuse in (False, True):
        flow = Counted(problem.rhs, problem.jacobian)
        flow.reuse = reuse
        results.append(
            solve_two_point(flow, problem.boundary, problem.t, problem.guess(), reuse=reuse)
        )
    plain, reused = results
    assert plain.success
    assert reused.success
    assert abs(plain.nit - reused.nit) <= 1
    assert abs(plain.y - reused.y).max() <= 1e-8
    assert tangents[True] <= 0.75 * tangents[False]


def test_an_approximate_system_preconditions_exact_newton_steps():
    """A Φ that is wrong by a percent: the same steps as with the right one, never formed."""
    problem, formed = linear_resnet(w=3, n_samples=6), []

    class Counted(RightHandSideFlow):
        def __call__(self, t0, t1, y, jacobian):
            formed.append(jacobian)
            return super().__call__(t0, t1, y, jacobian)

    def approximate(t, y):
        _, phi = exact(t[:-1], t[1:], y[:-1], True)
        noise = np.random.default_rng(0).standard_normal(phi.shape)
        return StaircaseFactor(phi + 0.01 * noise, *problem.boundary(y[0], y[-1])[1:])

    exact = RightHandSideFlow(problem.rhs, problem.jacobian)
    plain = solve_two_point(exact, problem.boundary, problem.t, problem.guess())
    flow = Counted(problem.rhs, problem.jacobian)
    krylov = solve_two_point(flow, problem.boundary, problem.t, problem.guess(),
                             preconditioner=approximate)
    assert plain.success
    assert krylov.success
    assert not any(formed)
    assert krylov.nit == plain.nit
    assert abs(plain.y - krylov.y).max() <= 1e-8


def test_a_preconditioner_of_no_use_is_replaced_by_the_exact_system():
    problem, formed = linear_resnet(w=3, n_samples=6), []

    class Counted(RightHandSideFlow):
        def __call__(self, t0, t1, y, jacobian):
            formed.append(jacobian)
            return super().__call__(t0, t1, y, jacobian)

    def useless(t, y):
        phi = np.random.default_rng(0).standard_normal((len(t) - 1, y.shape[1], y.shape[1]))
        return StaircaseFactor(phi, *problem.boundary(y[0], y[-1])[1:])

    flow = Counted(problem.rhs, problem.jacobian)
    result = solve_two_point(flow, problem.boundary, problem.t, problem.guess(),
                             preconditioner=useless)
    assert result.success
    assert any(formed)
    assert abs(result.y - problem.solution).max() <= 1e-6


# ------------------------------------------------------------------ the elimination


def staircase(phi, ga, gb):
    """The dense matrix, in the order of the module's picture."""
    s, n, _ = phi.shape
    out = np.zeros(((s + 1) * n, (s + 1) * n))
    for k in range(s):
        rows = slice(k * n, (k + 1) * n)
        out[rows, k * n : (k + 1) * n] = phi[k]
        out[rows, (k + 1) * n : (k + 2) * n] = -np.eye(n)
    out[s * n :, :n], out[s * n :, s * n :] = ga, gb
    return out


def dichotomic(s, n, growth, seed=0):
    """Φ_k = Q_{k+1} diag(e^{±growth}) Q_kᵀ, conditions that bound both kinds of solutions."""
    rng = np.random.default_rng(seed)
    q = [np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(s + 1)]
    up = n // 2
    rates = np.exp(growth * np.r_[np.linspace(0.6, 1, up), -np.linspace(0.6, 1, n - up)])
    phi = np.array([q[k + 1] * rates @ q[k].T for k in range(s)])
    ga, gb = np.zeros((n, n)), np.zeros((n, n))
    ga[: n - up] = np.hstack([rng.standard_normal((n - up, up)), np.eye(n - up)]) @ q[0].T
    gb[n - up :] = np.hstack([np.eye(up), rng.standard_normal((up, n - up))]) @ q[-1].T
    return phi, ga, gb


def images(phi, ga, gb, d):
    return (phi @ d[:-1, :, None])[..., 0] - d[1:], ga @ d[0] + gb @ d[-1]


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("s", [1, 2, 3, 4, 7, 16, 21])
def test_elimination_agrees_with_a_dense_solve(s, n, coupled):
    rng = np.random.default_rng(100 * s + n)
    phi = rng.standard_normal((s, n, n))
    ga, gb = rng.standard_normal((2, n, n))
    if not coupled:
        ga[n // 2 :], gb[: n // 2] = 0, 0
    r, g = rng.standard_normal((s, n)), rng.standard_normal(n)
    matrix = staircase(phi, ga, gb)
    dense = np.linalg.solve(matrix, np.concatenate([r.ravel(), g])).reshape(s + 1, n)
    scale = np.exp(rng.uniform(-3, 3, n))
    bound = 1e-14 * np.linalg.cond(matrix) * abs(dense).max()
    for factor in (StaircaseFactor(phi, ga, gb), StaircaseFactor(phi, ga, gb, scale)):
        assert factor.nodes == s + 1
        assert abs(factor.solve(r, g) - dense).max() <= 10 * bound


def test_elimination_stands_growth_and_decay_where_condensing_fails():
    phi, ga, gb = dichotomic(40, 4, 1.0)
    product = np.eye(4)
    for p in phi:
        product = p @ product
    assert np.linalg.norm(product, 2) >= 0.9 * np.exp(40)
    d = np.random.default_rng(1).standard_normal((41, 4))
    r, g = images(phi, ga, gb, d)
    factor = StaircaseFactor(phi, ga, gb)
    assert factor.rcond >= 1e-3
    assert abs(factor.solve(r, g) - d).max() <= 1e-13

    # Condensing: d_S = (Φ_{S−1} … Φ_0) d_0 + particular, d_0 from the boundary conditions, then
    # d_1, d_2, … by the recursion.
    particular = np.zeros(4)
    for p, q in zip(phi, r, strict=True):
        particular = p @ particular - q
    condensed = [np.linalg.solve(ga + gb @ product, g - gb @ particular)]
    for p, q in zip(phi, r, strict=True):
        condensed.append(p @ condensed[-1] - q)
    assert abs(condensed - d).max() >= 1.0


def test_elimination_is_as_accurate_as_a_dense_solve_when_segments_grow():
    phi, ga, gb = dichotomic(16, 4, 9.0)  # e^{±144} in all
    d = np.random.default_rng(2).standard_normal((17, 4))
    r, g = images(phi, ga, gb, d)
    found = StaircaseFactor(phi, ga, gb).solve(r, g)
    dense = np.linalg.solve(staircase(phi, ga, gb), np.concatenate([r.ravel(), g]))
    assert abs(found - d).max() <= 10 * abs(dense.reshape(d.shape) - d).max() + 1e-15


def test_reciprocal_condition_number_tells_singular_from_regular():
    phi, ga, gb = dichotomic(8, 4, 1.0)
    assert StaircaseFactor(phi, ga, gb).rcond > 1e-3
    rows = np.array([1e-9, 1, 1e6, 1e12])[:, None]
    scaled = StaircaseFactor(phi, rows * ga, rows * gb).rcond
    assert scaled == pytest.approx(StaircaseFactor(phi, ga, gb).rcond, rel=1e-6)
    ga[1] = ga[0]
    assert StaircaseFactor(phi, ga, gb).rcond < 1e-15
    ga[1] = 0
    singular = StaircaseFactor(phi, ga, gb)
    assert singular.rcond == 0
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        singular.solve(np.zeros((8, 4)), np.zeros(4))


# ------------------------------------------------------------------ flows from right-hand sides


def test_flow_of_a_linear_system_is_the_matrix_exponential():
    A = np.random.default_rng(0).standard_normal((3, 3))
    flow = RightHandSideFlow(
        lambda t, y: y @ A.T, lambda t, y: np.broadcast_to(A, (*y.shape, 3))
    )
    t0, t1 = np.array([0.0, 1.0, 1.5]), np.array([1.0, 1.5, 3.0])
    y, v = np.random.default_rng(1).standard_normal((2, 3, 3))
    ends, phi = flow(t0, t1, y, True)
    for k in range(3):
        exact = expm((t1[k] - t0[k]) * A)
        assert abs(phi[k] - exact).max() <= 1e-9
        assert abs(ends[k] - exact @ y[k]).max() <= 1e-9
        assert abs(flow.jvp(t0, t1, y, v)[k] - exact @ v[k]).max() <= 1e-9
    assert np.array_equal(flow(t0, t1, y, False)[0], ends)


def test_flow_sees_the_time_and_stretches_each_segment():
    flow = RightHandSideFlow(
        lambda t, y: np.cos(t)[:, None] + 0 * y, lambda t, y: np.zeros((*y.shape, 1))
    )
    t0, t1 = np.array([0.0, 2.0, 5.0]), np.array([2.0, 5.0, 5.1])
    ends, phi = flow(t0, t1, np.zeros((3, 1)), True)
    assert abs(ends[:, 0] - (np.sin(t1) - np.sin(t0))).max() <= 1e-10
    assert abs(phi - 1).max() <= 1e-12


def test_a_segment_that_blows_up_does_not_take_the_others_with_it():
    flow = RightHandSideFlow(lambda t, y: 1 + y**2, lambda t, y: 2 * y[..., None])
    t0, t1 = np.zeros(4), np.array([1.0, 2.0, 1.5, 4.0])  # tan has its pole at π/2
    ends, phi = flow(t0, t1, np.zeros((4, 1)), True)
    assert np.array_equal(np.isfinite(ends[:, 0]), [True, False, True, False])
    assert np.array_equal(np.isfinite(phi[:, 0, 0]), [True, False, True, False])
    assert abs(ends[[0, 2], 0] / np.tan([1.0, 1.5]) - 1).max() <= 1e-8
    assert abs(phi[[0, 2], 0, 0] * np.cos([1.0, 1.5]) ** 2 - 1).max() <= 1e-8


def test_a_segment_outside_the_domain_does_not_take_the_others_with_it():
    def rhs(t, y):
        return np.where(y > 100, y**2, -np.sqrt(y - t[:, None]))

    flow = RightHandSideFlow(rhs, lambda t, y: np.zeros((*y.shape, 1)))
    t0, t1 = np.zeros(4), np.full(4, 0.5)
    start = np.array([[4.0], [0.1], [-1.0], [200.0]])  # the last has its pole at 0.005
    ends, _ = flow(t0, t1, start, False)
    assert np.array_equal(np.isfinite(ends[:, 0]), [True, False, False, False])
    alone, _ = flow(t0[:1], t1[:1], start[:1], False)
    assert abs(ends[0] - alone[0]) <= 1e-9


def test_a_state_beyond_the_bound_counts_as_blown_up():
    t, y = np.zeros(2), np.ones((2, 1))
    rate = np.array([[2.0], [30.0]])
    for bound, finite in ((1e10, [True, False]), (1e14, [True, True])):
        flow = RightHandSideFlow(
            lambda t, y: rate[-len(y) :] * y, lambda t, y: rate[-len(y) :, :, None], bound=bound
        )
        assert np.array_equal(np.isfinite(flow(t, t + 1, y, False)[0][:, 0]), finite)


# ------------------------------------------------------------------ what comes back


def test_records_and_printout_tell_the_course_of_the_solve():
    problem, seen = scalar_resnet(), []
    result = solve_two_point(
        problem.flow, problem.boundary, problem.t, problem.guess(), callback=seen.append
    )
    assert tuple(seen) == result.history
    assert [r.iteration for r in seen] == list(range(1, result.nit + 1))
    assert np.all(np.diff([r.seconds for r in seen]) >= 0)
    assert result.seconds >= seen[-1].seconds
    assert result.correction == seen[-1].simplified <= 1e-8
    lines = str(result).splitlines()
    assert lines[0] == BVPStatus.CONVERGED.value == result.message
    assert len(lines) == 2 + result.nit


def test_scale_is_the_unit_of_corrections():
    problem = linear_resnet()
    n = problem.solution.shape[1]
    one, ten = (
        solve_two_point(
            problem.flow, problem.boundary, problem.t, problem.guess(), scale=np.full(n, u)
        )
        for u in (1.0, 10.0)
    )
    assert one.history[0].correction == pytest.approx(10 * ten.history[0].correction, rel=1e-10)
    assert one.success
    assert ten.success


def test_scale_is_by_default_the_size_of_each_component():
    problem = energy_optimal()  # p₁ = 12
    guess = problem.guess()
    size = np.maximum(1, abs(guess).max(0))
    default, given, one = (
        solve_two_point(problem.flow, problem.boundary, problem.t, guess, scale=scale)
        for scale in (None, size, np.ones(5))
    )
    assert default.history[0].correction == given.history[0].correction
    assert default.history[0].correction <= 0.5 * one.history[0].correction


def test_affine_boundary_is_affine():
    ga, gb, c = np.array([[1, 2], [0, 0]]), np.array([[0, 0], [3, 4]]), np.array([5, 6])
    g, da, db = affine_boundary(ga, gb, c)(np.array([1.0, 1.0]), np.array([1.0, -1.0]))
    assert np.array_equal(g, [-2, -7])
    assert np.array_equal(da, ga)
    assert np.array_equal(db, gb)


def test_the_reference_flow_conserves_the_hamiltonian():
    fine = replace(one_sample(), t=np.linspace(0, 1, 9))
    result = solve_two_point(fine.flow, fine.boundary, fine.t, fine.guess(), tol=1e-10)
    a, b = result.y[:, :3], result.y[:, 3:]
    H = (b * b).sum(1) * (a * a).sum(1) - 2 * (a * b).sum(1)  # L̃ = 2
    assert np.ptp(H) <= 1e-9
    assert abs(H.mean() - fine.values["H"][1]) <= 1e-9
