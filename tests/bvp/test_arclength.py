"""Pseudo-arclength: Bratu's problem, whose curve and fold are known in closed form."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from hamshoot.bvp.arclength import OnCurve, follow
from hamshoot.bvp.field_flow import RightHandSideFlow
from hamshoot.bvp.solve import solve_two_point

# ü + μe^u = 0, u(0) = u(1) = 0 has u(t) = −2 ln(cosh((t − ½)θ/2)/cosh(θ/4)) with
# θ = √(2μ) cosh(θ/4): for every θ one solution, with μ = θ²/(2cosh²(θ/4)).


def mu_of(theta):
    return theta**2 / (2 * np.cosh(theta / 4) ** 2)


def slope_of(theta):
    """u̇(0)."""
    return theta * np.tanh(theta / 4)


def rhs(t, z):
    return np.stack([z[..., 1], -z[..., 2] * np.exp(z[..., 0]), np.zeros_like(z[..., 0])], -1)


def jacobian(t, z):
    J = np.zeros((*z.shape, 3))
    J[..., 0, 1] = 1
    J[..., 1, 0] = -z[..., 2] * np.exp(z[..., 0])
    J[..., 1, 2] = -np.exp(z[..., 0])
    return J


FLOW = RightHandSideFlow(rhs, jacobian)
ENDS = np.array([[1.0, 0, 0], [0, 0, 0]]), np.array([[0.0, 0, 0], [1, 0, 0]])


def boundary(za, zb):
    return ENDS[0] @ za + ENDS[1] @ zb, *ENDS


def solution(mu):
    """The lower solution at a μ, by a condition on μ."""
    rows = np.vstack([ENDS[0], [0, 0, 1]]), np.vstack([ENDS[1], [0, 0, 0]])
    t = np.linspace(0, 1, 6)
    result = solve_two_point(FLOW, lambda a, b: (np.append(boundary(a, b)[0], a[2] - mu), *rows),
                             t, np.column_stack([t * 0, t * 0, t * 0 + mu]))
    assert result.success
    return OnCurve(result.t, result.y)


@pytest.fixture(scope="module")
def curve():
    return follow(FLOW, boundary, solution(1.0), solution(1.3), window=(0.5, np.inf), most=2.0)


def test_the_curve_leads_through_the_fold_to_the_upper_solutions(curve):
    assert curve.reason == "window"
    assert len(curve.folds) == 1
    for point in curve.points:
        theta = brentq(lambda x, point=point: slope_of(x) - point.z[0, 1], 1e-3, 60)
        assert point.mu == pytest.approx(mu_of(theta), rel=1e-7)
        exact = -2 * np.log(np.cosh((point.t - 0.5) * theta / 2) / np.cosh(theta / 4))
        np.testing.assert_allclose(point.z[:, 0], exact, atol=1e-6)
    slopes = [point.z[0, 1] for point in curve.points]
    assert slopes == sorted(slopes)  # along the curve, and nothing twice
    assert slopes[-1] > 2 * slopes[curve.folds[0]]


def test_the_fold_is_where_the_closed_form_has_it(curve):
    best = minimize_scalar(lambda x: -mu_of(x), bracket=(4, 4.8, 6), tol=1e-12)
    assert curve.points[curve.folds[0]].mu == pytest.approx(-best.fun, rel=1e-8)
    assert max(point.mu for point in curve.points) == curve.points[curve.folds[0]].mu


def test_it_ends_at_a_target_beyond_the_fold():
    curve = follow(FLOW, boundary, solution(3.0), solution(3.3), target=2.0)
    assert curve.reason == "target"
    assert curve.points[-1].mu == pytest.approx(2.0, abs=1e-9)
    upper = brentq(lambda x: mu_of(x) - 2.0, 5.0, 30.0)
    assert curve.points[-1].z[0, 1] == pytest.approx(slope_of(upper), rel=1e-7)


def test_without_a_fold_there_is_none_and_it_says_why_it_ends():
    curve = follow(FLOW, boundary, solution(1.0), solution(1.1), target=2.0)
    assert (curve.reason, curve.folds) == ("target", [])
    short = follow(FLOW, boundary, solution(1.0), solution(1.1), target=3.0, max_steps=2, most=0.1)
    assert short.reason == "steps"
    assert len(short.points) == 4
    seen = []
    stopped = follow(FLOW, boundary, solution(1.0), solution(1.1),
                     seen=lambda point: seen.append(point.mu) or len(seen) == 2)
    assert stopped.reason == "stopped"
    assert [point.mu for point in stopped.points[2:]] == seen


def test_where_newton_fails_it_ends_with_what_it_has():
    def broken(t0, t1, z, wanted):
        ends, phi = FLOW(t0, t1, z, wanted)
        ends[z[:, 2] > 2.0] = np.nan
        return ends, phi

    curve = follow(broken, boundary, solution(1.0), solution(1.3), target=3.0)
    assert curve.reason == "failed"
    assert 1.3 < curve.points[-1].mu <= 2.0
