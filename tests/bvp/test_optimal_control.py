"""Optimal control of other dynamics: optima equal those of a discretisation written here."""

import casadi as ca
import numpy as np
import pytest

import hamshoot as hs


def swing_up(time=5.0, **changes):
    """A pendulum from hanging to upright at rest with least ½∫u²."""
    given = dict(running_cost=lambda x, u, p: u**2 / 2, end=[np.pi, 0])
    return hs.OptimalControlProblem(
        lambda x, u, p: [x[1], u - ca.sin(x[0])], [0, 0], time, **{**given, **changes})


def van_der_pol(**changes):
    """CasADi's example: least ∫x² + v² + u² over ten seconds, |u| ≤ 1, end free."""
    given = dict(running_cost=lambda x, u, p: x[0] ** 2 + x[1] ** 2 + u**2, control_bounds=(-1, 1))
    return hs.OptimalControlProblem(
        lambda x, u, p: [(1 - x[1] ** 2) * x[0] - x[1] + u, x[0]], [0, 1], 10.0,
        **{**given, **changes})


def hermite_simpson(rates, cost, start, end, duration, intervals, bound=np.inf):
    """The optimum by direct collocation: cubic states, controls free at nodes and midpoints."""
    n, h = len(start), duration / intervals
    x, u = ca.SX.sym("x", n, 2 * intervals + 1), ca.SX.sym("u", 1, 2 * intervals + 1)
    f = [rates(x[:, i], u[i]) for i in range(2 * intervals + 1)]
    g, objective = [], 0
    for k in range(0, 2 * intervals, 2):
        g.append(x[:, k + 2] - x[:, k] - h / 6 * (f[k] + 4 * f[k + 1] + f[k + 2]))
        g.append(x[:, k + 1] - (x[:, k] + x[:, k + 2]) / 2 - h / 8 * (f[k] - f[k + 2]))
        objective += h / 6 * sum(
            w * cost(x[:, k + i], u[k + i]) for i, w in enumerate((1, 4, 1)))
    g.append(x[:, 0] - start)
    if end is not None:
        g.append(x[:, -1] - end)
    program = {"x": ca.veccat(x, u), "g": ca.vertcat(*g), "f": objective}
    solver = ca.nlpsol("s", "ipopt", program, {
        "print_time": False, "ipopt": {"print_level": 0, "sb": "yes", "tol": 1e-10}})
    line = np.linspace(start, start if end is None else end, 2 * intervals + 1)
    low = np.concatenate([np.full(line.size, -np.inf), np.full(2 * intervals + 1, -bound)])
    found = solver(x0=np.concatenate([line.ravel(), np.zeros(2 * intervals + 1)]),
                   lbg=0, ubg=0, lbx=low, ubx=-low)
    assert solver.stats()["success"]
    return float(found["f"]), np.asarray(found["x"]).ravel()[: line.size].reshape(-1, n)


def test_pendulum_swing_up_equals_direct_collocation():
    objective, states = hermite_simpson(
        lambda x, u: ca.vertcat(x[1], u - ca.sin(x[0])), lambda x, u: u**2 / 2,
        [0, 0], [np.pi, 0], 5.0, 60)
    problem = swing_up()
    direct = problem.solve(intervals=40)
    path = problem.solve_indirect(direct)
    assert direct.success
    assert path.success
    assert direct.objective == pytest.approx(objective, rel=2e-3)  # constant over intervals
    assert direct.objective > objective
    assert path.objective == pytest.approx(objective, abs=1e-5)
    middle = np.interp(2.5, path.t, path.states[:, 0])
    assert middle == pytest.approx(states[60, 0], abs=1e-3)
    assert np.ptp(path.hamiltonian) <= 1e-8


def test_van_der_pol_equals_direct_collocation():
    objective, _ = hermite_simpson(
        lambda x, u: ca.vertcat((1 - x[1] ** 2) * x[0] - x[1] + u, x[0]),
        lambda x, u: x[0] ** 2 + x[1] ** 2 + u**2, [0, 1], None, 10.0, 80, bound=1.0)
    problem = van_der_pol()
    path = problem.solve_indirect(problem.solve(intervals=30))
    assert path.success
    assert path.objective == pytest.approx(objective, abs=1e-4)
    assert path.objective == pytest.approx(2.87, abs=0.005)
    assert abs(path.controls).max() <= 1
    np.testing.assert_allclose(path.costates[-1], 0, atol=1e-8)


def test_direct_solution_equals_a_program_written_out():
    """Ten controls, four Runge–Kutta steps each, all shot from the start."""
    problem = van_der_pol(control_bounds=(-0.75, 1.0))
    direct = problem.solve(intervals=10, steps=4)
    u = ca.MX.sym("u", 10)
    z = ca.MX.sym("z", 3)
    v = ca.MX.sym("v")
    f = ca.Function("f", [z, v], [ca.vertcat(
        (1 - z[1] ** 2) * z[0] - z[1] + v, z[0], z[0] ** 2 + z[1] ** 2 + v**2)])
    state = ca.MX([0, 1, 0])
    for k in range(10):
        for _ in range(4):
            d = 10 / 40
            k1 = f(state, u[k])
            k2 = f(state + d / 2 * k1, u[k])
            k3 = f(state + d / 2 * k2, u[k])
            k4 = f(state + d * k3, u[k])
            state = state + d / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    solver = ca.nlpsol("s", "ipopt", {"x": u, "f": state[2]}, {
        "print_time": False, "ipopt": {"print_level": 0, "sb": "yes", "tol": 1e-10}})
    found = solver(x0=0, lbx=-0.75, ubx=1)
    assert direct.objective == pytest.approx(float(found["f"]), abs=1e-8)
    np.testing.assert_allclose(direct.controls[:-1, 0], np.asarray(found["x"]).ravel(), atol=1e-5)


def test_costates_are_the_gradient_of_the_cost_to_go():
    h = 1e-4
    here = van_der_pol().solve(intervals=10, steps=2)
    moved = []
    for sign in (1, -1):
        problem = hs.OptimalControlProblem(
            van_der_pol().dynamics, [0, 1 + sign * h], 10.0, control_bounds=(-1, 1),
            running_cost=van_der_pol().running_cost)
        moved.append(problem.solve(intervals=10, steps=2).objective)
    assert here.costates[0, 1] == pytest.approx((moved[0] - moved[1]) / (2 * h), rel=1e-5)


def test_free_duration_bounds_and_parameters():
    """ẍ = u from rest to rest at distance 1, T + ½∫u² least: T⁴ = 18, H = 0."""
    problem = hs.OptimalControlProblem(
        lambda x, u, p: [x[1], p[0] * u], [0, 0], (0.1, 10),
        running_cost=lambda x, u, p: 1 + (p[0] * u) ** 2 / 2, end=[1, 0], parameters=[2.0])
    path = problem.solve_indirect(problem.solve(intervals=20))
    assert path.success
    assert path.duration == pytest.approx(18**0.25, abs=1e-7)
    assert path.objective == pytest.approx(18**0.25 + 6 / 18**0.75, abs=1e-7)
    np.testing.assert_allclose(path.hamiltonian, 0, atol=1e-7)


def test_end_cost_and_partly_fixed_end():
    """ẋ = v, v̇ = u, x(1) = 1 and cost ½∫u² + ½v(1)²: λ_v(1) = v(1)."""
    problem = hs.OptimalControlProblem(
        lambda x, u, p: ca.vertcat(x[1], u), [0, 0], 1.0, running_cost=lambda x, u, p: u**2 / 2,
        end_cost=lambda x, p: x[1] ** 2 / 2, end=[1, np.nan])
    path = problem.solve_indirect(problem.solve(intervals=10))
    assert path.success
    assert path.states[-1, 0] == pytest.approx(1, abs=1e-9)
    assert path.costates[-1, 1] == pytest.approx(path.states[-1, 1], abs=1e-8)
    # u = s(1 − t) − v₁ with v₁ = v(1): v₁ = s/2 − v₁ and x(1) = s/3 − v₁/2 = 1 give s = 24/5.
    assert path.states[-1, 1] == pytest.approx(6 / 5, abs=1e-7)
    assert path.controls[0, 0] == pytest.approx(24 / 5 - 6 / 5, abs=1e-7)


def test_states_may_be_bounded_in_the_direct_method():
    problem = swing_up(state_bounds=([-0.5, -np.inf], [np.inf, 0.9]))
    direct = problem.solve(intervals=30)
    assert direct.success
    assert direct.states[:, 1].max() <= 0.9 + 1e-6
    assert direct.objective > swing_up().solve(intervals=30).objective
    with pytest.raises(ValueError, match="bounds of states"):
        problem.solve_indirect(direct)


@pytest.mark.parametrize(
    ("cost", "message"),
    [(lambda x, u, p: ca.fabs(u), "quadratic"), (lambda x, u, p: -(u**2), "strictly convex"),
     (lambda x, u, p: u**4, "quadratic"), (lambda x, u, p: x[0] ** 2, "strictly convex")],
)
def test_controls_that_cannot_be_eliminated_are_refused(cost, message):
    guess = swing_up().solve(intervals=5)
    with pytest.raises(ValueError, match=message):
        swing_up(running_cost=cost).solve_indirect(guess)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": [[0]]}, "start: expected finite numbers"),
        ({"duration": 0}, "duration: expected T > 0"),
        ({"duration": (2, 1)}, "duration: expected T > 0"),
        ({"controls": 0}, "controls: expected an integer"),
        ({"end": [1]}, "end: expected 2 numbers"),
        ({"control_bounds": (1, -1)}, "control_bounds: expected lower and upper"),
        ({"state_bounds": 3}, "state_bounds: expected lower and upper"),
        ({"dynamics": lambda x, u, p: [u]}, "dynamics: expected 2 components, got 1"),
        ({"running_cost": lambda x, u, p: x}, "running_cost: expected 1 component, got 2"),
    ],
    ids=lambda v: "" if isinstance(v, dict) else v.split(":")[0],
)
def test_bad_input_is_named(change, message):
    given = dict(dynamics=lambda x, u, p: [x[1], u], start=[0, 0], duration=1.0)
    with pytest.raises(ValueError, match=message):
        hs.OptimalControlProblem(**{**given, **change})


def test_not_converging_is_said():
    direct = swing_up().solve(intervals=20, max_iter=1)
    assert not direct.success
    assert "Maximum_Iterations_Exceeded" in direct.message
