"""The second-order test of a path: closed forms, conjugate points, Euler's Hessian, differences."""

from functools import cache

import numpy as np
import pytest
from problems import teacher
from scipy.integrate import solve_ivp

import hamshoot as hs
from hamshoot.optimality import second_order_path as pso
from hamshoot.optimality.checks import setting_of
from hamshoot.optimality.expansion import complex_step_derivatives
from hamshoot.optimality.second_order_path import SecondVariation, mesh, path_second_order
from hamshoot.theory import closed_forms as exact
from hamshoot.theory import hamiltonian as ham

EVENLY = np.linspace(0, 1, 21)
DEPTH, GROWTH, DECAY = 2.0, 0.3, 0.1


def solution_of(problem, states, sigma=None):
    """An exact path as a `Solution`, its numbers from the reference formulas."""
    p = np.linspace(0, 1, 31)
    A, B = states(p)
    options = dict(effective_depth=problem.effective_depth, activation=problem.sigma,
                   bias=problem.bias)
    W = np.array([ham.control(a, b, **options) for a, b in zip(A, B, strict=True)])
    x, c = np.polynomial.legendre.leggauss(40)
    squares = [np.sum(ham.control(a, b, **options) ** 2)
               for a, b in zip(*states(0.5 + 0.5 * x), strict=True)]
    norm = float(0.5 * c @ squares)
    loss = 0.0 if problem.hard_endpoint else ham.loss(A[-1], problem.readout, problem.targets)
    return hs.Solution(
        problem=problem, p=p, representations=A, momenta=B, weights=W, loss=float(loss),
        objective=float(loss + problem.weight_decay / (2 * problem.effective_depth) * norm),
        parameter_norm=norm, success=True, status=hs.Status.CONVERGED, message="", nit=0,
        residuals={"stationarity": 0.0}, history=(), seconds=0.0, method="exact",
        integrator="flow",
    )


def extremal(activation, seed, scale, w=2, N=3, bias=True, **options):
    """Any trajectory of the flow is an extremal, for the targets Y = A_1 + λN/2 B_1 with Q = I."""
    rng = np.random.default_rng(seed)
    X, B0 = rng.standard_normal((N, w)), scale * rng.standard_normal((w, N)) / N
    settings = dict(effective_depth=DEPTH, width=w, weight_decay=DECAY, activation=activation,
                    bias=bias, **options)
    blank = hs.TrainingProblem(X, np.zeros((N, w)), **settings)
    flow = dict(effective_depth=DEPTH, activation=blank.sigma, bias=bias)

    def rates(_, y):
        return np.concatenate([r.ravel() for r in ham.flow(*y.reshape(2, w, N), **flow)])

    start = np.concatenate([blank.initial_state.ravel(), B0.ravel()])
    sol = solve_ivp(rates, (0, 1), start, method="DOP853", rtol=1e-12, atol=1e-13,
                    dense_output=True).sol

    def states(p):
        y = sol(p).T.reshape(-1, 2, w, N)
        return y[:, 0], y[:, 1]

    states.breaks = sol.ts
    A1, B1 = (v[0] for v in states(np.ones(1)))
    R = DECAY * N / 2 * np.linalg.solve(blank.readout.T, B1)
    return hs.TrainingProblem(X, (blank.readout @ A1 + R).T, **settings), states


# -- the great circle ------------------------------------------------------------------------------


def circle(angle, w, turn=None, activation="linear"):
    """One sample on a great circle, hard end: the linear extremal of W_0 = ((L̃ + g)u + θv)uᵀ."""
    u, v = np.eye(w)[:2] if turn is None else turn
    W0 = np.outer((DEPTH + GROWTH) * u + angle * v, u)
    A0 = 1.5 * u[:, None]
    A1 = 1.5 * np.exp(GROWTH) * (np.cos(angle) * u + np.sin(angle) * v)
    problem = hs.TrainingProblem(A0.T, A1[None], effective_depth=DEPTH, weight_decay=DECAY, width=w,
                                 activation=activation, bias=False, lift=np.eye(w),
                                 readout=np.eye(w), endpoint=A1[:, None])

    def states(p):
        path = exact.linear_path(p, A0, W0, DEPTH)
        return path.representations, path.momenta

    return problem, states


def circle_eigenvalue(angle):
    """(λ/L̃)(1 − √((c² + θ²)/(c² + π²))) with c = L̃ + g, for w ≥ 3.

    Let rξ be the displacement across the plane of the circle and x, y, z the components of V in
    (e₃uᵀ, ue₃ᵀ, ve₃ᵀ). Then x = ξ̇ + cξ and L̃q = ∫ x² + y² + z² − 2ξ(cy + θz). With κ = 1 − μ the
    form q − μ‖V‖² is minimised by y = cξ/κ, z = θξ/κ, and what is left,
    ∫ κ(ξ̇² + c²ξ²) − (c² + θ²)ξ²/κ with ξ = 0 at both ends, vanishes first when
    κ²(π² + c²) = c² + θ² (ξ = sin πp). Other directions have larger eigenvalues.
    """
    c = DEPTH + GROWTH
    return DECAY / DEPTH * (1 - np.sqrt((c**2 + angle**2) / (c**2 + np.pi**2)))


@pytest.mark.parametrize("angle", [0.5, 2.0, 0.97 * np.pi, 1.03 * np.pi, 5.0])
@pytest.mark.parametrize("w", [3, 4])
def test_the_great_circle_has_its_exact_eigenvalue_on_both_sides_of_the_conjugate_point(angle, w):
    problem, states = circle(angle, w)
    result = path_second_order(problem, problem.sigma, states, EVENLY)
    assert result.verdict.startswith("strict local minimum" if angle < np.pi else "saddle")
    assert result.min_eigenvalue == pytest.approx(circle_eigenvalue(angle), abs=1e-8)
    assert 1e-8 < result.error < 1e-5  # an honest estimate of the unextrapolated one


@pytest.mark.parametrize("angle", [1.03 * np.pi, 5.0, 8.0])
def test_in_the_plane_the_long_way_round_is_a_minimum_too(angle):
    """In coordinates (ln r, angle) the plane is a flat cylinder: no geodesic of it has an end."""
    problem, states = circle(angle, 2)
    result = path_second_order(problem, problem.sigma, states, EVENLY)
    assert result.verdict.startswith("strict local minimum")
    assert result.min_eigenvalue > 0


def test_at_the_conjugate_point_itself_nothing_is_decided():
    problem, states = circle(np.pi, 3)
    result = path_second_order(problem, problem.sigma, states, EVENLY)
    assert result.verdict.startswith("not decided: smallest eigenvalue")
    assert abs(result.min_eigenvalue) < 1e-8
    assert result.intervals == 160  # after the second try


def test_certify_calls_the_long_way_round_a_saddle():
    for angle in (2.0, 4.0):
        proof = hs.certify(solution_of(*circle(angle, 3)))
        saddle = angle > np.pi
        assert proof.holds is not saddle, proof
        assert proof.reasons == ((proof.second_order,) if saddle else ())
        assert proof.second_order.startswith("saddle" if saddle else "strict local minimum")
        assert proof.min_eigenvalue == pytest.approx(circle_eigenvalue(angle), abs=1e-6)
        assert f"{proof.min_eigenvalue:.3g}" in proof.second_order


def test_relu_is_linear_where_its_activations_stay_positive():
    u = np.array([3.0, 2.0, 1.0]) / np.sqrt(14)
    v = np.array([1.0, 2.0, 3.0]) - 10 / 14 * np.array([3.0, 2.0, 1.0])
    problem, states = circle(0.7, 3, turn=(u, v / np.linalg.norm(v)), activation="relu")
    assert states(EVENLY)[0].min() > 0
    result = path_second_order(problem, problem.sigma, states, EVENLY)
    assert result.verdict.startswith("strict local minimum")
    assert result.min_eigenvalue == pytest.approx(circle_eigenvalue(0.7), abs=1e-8)


def test_an_end_out_of_full_reach_is_a_constraint_all_the_same():
    """Four linear samples in the plane: only 4 of 8 directions of A_1 can be reached."""
    w, rng = 2, np.random.default_rng(0)
    A0, W0 = rng.standard_normal((w, 4)), DEPTH * np.eye(w) + 0.5 * rng.standard_normal((w, w))

    def states(p):
        path = exact.linear_path(p, A0, W0, DEPTH)
        return path.representations, path.momenta

    A1 = states(np.ones(1))[0][0]
    problem = hs.TrainingProblem(A0.T, A1.T, effective_depth=DEPTH, weight_decay=DECAY, width=w,
                                 activation="linear", bias=False, endpoint=A1)
    variation = SecondVariation(problem, problem.sigma, states, mesh(EVENLY, 40))
    assert np.linalg.matrix_rank(variation.endpoint(), tol=1e-8) == 4
    assert not variation.smallest().full_rank
    result = path_second_order(problem, problem.sigma, states, EVENLY)
    assert result.verdict.startswith("strict local minimum")


# -- the soft loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_scalar_problem_has_its_exact_eigenvalue_at_all_its_stationary_points(which):
    """J depends on W by ∫W² and C(e^{∫W}): the Hessian is λ/L̃ plus C″ = 2a(2a − y), rank one."""
    a0, y, depth, decay = 1.0, 1.0, 4.0, 0.48
    ends = exact.scalar_stationary_endpoints(a0, y, depth, decay)
    assert len(ends) == 3
    end = ends[which]
    problem = hs.TrainingProblem([[a0]], [[y]], effective_depth=depth, weight_decay=decay, width=1,
                                 activation="linear", bias=False, lift=[[1.0]], readout=[[1.0]])
    W = exact.scalar_weight(a0, end, depth)

    def states(p):
        A = a0 * np.exp((W - depth) * p)[:, None, None]
        return A, W / depth / A

    value = decay / depth + min(0.0, 2 * end * (2 * end - y))
    result = path_second_order(problem, problem.sigma, states, EVENLY)
    assert result.min_eigenvalue == pytest.approx(value, abs=1e-6)
    proof = hs.certify(solution_of(problem, states))
    # The first end is close to 0: a minimum, but of a network that has not seen its input.
    words = ("collapsed to the same output for all samples: strict local minimum", "saddle",
             "strict local minimum")[which]
    assert proof.reasons == ((proof.second_order,) if which < 2 else ()), proof
    assert proof.min_eigenvalue == pytest.approx(value, abs=1e-5)
    assert proof.second_order.startswith(words)


@cache
def geodesic():
    problem = teacher("smooth_relu", dims=(2, 1, 2), samples=5, width=2, effective_depth=2.0,
                      weight_decay=0.2, epsilon=0.2, seed=0)
    solution = hs.solve(problem, hs.IndirectShooting())
    assert solution.success, solution.message
    return solution


def test_eulers_hessian_over_rho_tends_to_that_of_the_path():
    solution = geodesic()
    problem, values = solution.problem, []
    for layers in (20, 40, 80):
        steps = np.full(layers, 1 / layers)
        W = solution.at((np.arange(layers) + 0.5) / layers).weights
        none = np.zeros((layers, *problem.initial_state.shape), bool)
        hessian, _ = complex_step_derivatives(setting_of(problem), W, steps, None, none)
        values.append(layers * np.linalg.eigvalsh(hessian)[0])
    once = 2 * np.array(values[1:]) - values[:-1]
    limit = (4 * once[1] - once[0]) / 3
    proof = hs.certify(solution)
    assert proof.second_order.startswith("strict local minimum of the path: ")
    assert proof.min_eigenvalue == pytest.approx(limit, rel=1e-3)
    assert abs(values[2] - limit) > 2e-3 * limit  # the extrapolation was needed


def second_difference(problem, states, control, h):
    """J(W + hV) by DOP853 with W from the flow beside it; five-point second derivative in h."""
    w, N = problem.initial_state.shape
    A0, B0 = (v[0] for v in states(np.zeros(1)))
    options = dict(effective_depth=problem.effective_depth, activation=problem.sigma,
                   bias=problem.bias)
    leak, decay = problem.effective_depth, problem.weight_decay

    def J(amount):
        def rates(p, y):
            a, b, x = y[:-1].reshape(3, w, N)
            W = ham.control(a, b, **options) + amount * control(p)
            dx = -leak * x + W @ ham.augmented(x, problem.sigma, problem.bias)
            return np.concatenate([*(v.ravel() for v in ham.flow(a, b, **options)), dx.ravel(),
                                   [np.sum(W * W)]])

        start = np.concatenate([A0.ravel(), B0.ravel(), A0.ravel(), [0.0]])
        end = solve_ivp(rates, (0, 1), start, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
        x = end[2 * w * N:-1].reshape(w, N)
        return ham.loss(x, problem.readout, problem.targets) + decay / (2 * leak) * end[-1]

    far, near = J(2 * h) + J(-2 * h), J(h) + J(-h)
    return (-far + 16 * near - 30 * J(0.0)) / (12 * h * h)


@pytest.mark.parametrize(("activation", "bias"), [
    ("smooth_relu", True), ("smooth_relu", False), ("linear", True)])
def test_the_form_is_the_second_difference_of_the_objective(activation, bias):
    options = {"epsilon": 0.3} if activation == "smooth_relu" else {}
    problem, states = extremal(activation, 1, 1.0, w=3, N=4, bias=bias, **options)
    mean, cosine, sine = np.random.default_rng(2).standard_normal((3, *problem.control_shape))

    def control(p):
        return mean + np.cos(4 * p) * cosine + np.sin(3 * p) * sine

    reference = second_difference(problem, states, control, 0.02)
    values = []
    for intervals in (50, 100, 200):
        edges = np.linspace(0, 1, intervals + 1)
        variation = SecondVariation(problem, problem.sigma, states, edges)
        V = np.array([control(p) for p in 0.5 * (edges[1:] + edges[:-1])])
        v = (V / np.sqrt(intervals)).reshape(1, -1)
        values.append(DECAY / DEPTH * float(np.sum(v * (v + variation.compact_part(v)))))
    errors = np.abs(np.array(values) - reference)
    assert 1.9 < np.log2(errors[0] / errors[1]) < 2.1
    assert 1.9 < np.log2(errors[1] / errors[2]) < 2.1
    assert (4 * values[2] - values[1]) / 3 == pytest.approx(reference, rel=1e-5)


def test_the_discrete_operator_is_symmetric_on_any_mesh():
    problem, states = extremal("smooth_relu", 3, 1.0, epsilon=0.1)
    edges = np.sort(np.concatenate([[0, 1], np.random.default_rng(0).random(30)]))
    variation = SecondVariation(problem, problem.sigma, states, edges)
    K = variation.compact_part(np.eye(variation.size))
    assert np.abs(K - K.T).max() < 1e-13 * np.abs(K).max()
    assert np.abs(K).max() > 0.01


def test_lanczos_finds_what_the_dense_eigenvalues_say(monkeypatch):
    for problem, states in (extremal("smooth_relu", 3, 1.0, epsilon=0.1), circle(2.0, 3)):
        variation = SecondVariation(problem, problem.sigma, states, mesh(EVENLY, 45))
        monkeypatch.setattr(pso, "MAX_DENSE", 10_000)
        dense = variation.smallest()
        monkeypatch.setattr(pso, "MAX_DENSE", 10)
        lanczos = variation.smallest()
        assert lanczos.value == pytest.approx(dense.value, abs=1e-9)
        assert lanczos.residual < 1e-6
        assert lanczos.full_rank == dense.full_rank is True


def test_a_kink_passed_quickly_is_not_mistaken_for_more_than_it_is():
    """σ″ peaks at 1/(2ε) = 500 over depths of about ε: its values at midpoints alone mislead."""
    problem, states = extremal("smooth_relu", 0, 1.0, epsilon=1e-3)
    A, _ = states(EVENLY)
    assert np.any((A.min(axis=0) < -0.01) & (A.max(axis=0) > 0.01))

    def value(edges):
        return SecondVariation(problem, problem.sigma, states, edges).smallest().value

    finest = value(mesh(states.breaks, 800))
    for intervals in (57, 80):  # the kinks not resolved at all: 0.03 and 0.12 off at midpoints
        assert value(np.linspace(0, 1, intervals + 1)) == pytest.approx(finest, abs=0.02)
    result = path_second_order(problem, problem.sigma, states, states.breaks)
    error = abs(result.min_eigenvalue / (DECAY / DEPTH) - finest)
    assert error < 1e-4
    assert result.verdict.startswith("saddle of the path: ")


def test_the_objective_falls_along_the_direction_of_a_saddle():
    problem, states = extremal("smooth_relu", 0, 3.0, epsilon=0.3)
    proof = hs.certify(solution_of(problem, states))
    assert proof.second_order.startswith("saddle")
    variation = SecondVariation(problem, problem.sigma, states, np.linspace(0, 1, 81))
    K = variation.compact_part(np.eye(variation.size))
    direction = np.linalg.eigh(K)[1][:, 0].reshape(80, *problem.control_shape) * np.sqrt(80)
    middle = (np.arange(80) + 0.5) / 80

    def control(p):
        flat = direction.reshape(80, -1)
        return np.array([np.interp(p, middle, c) for c in flat.T]).reshape(problem.control_shape)

    curvature = second_difference(problem, states, control, 0.02)
    assert curvature == pytest.approx(proof.min_eigenvalue, rel=0.02)
    assert curvature < 0


# -- what is not decided ---------------------------------------------------------------------------


def test_a_path_that_is_no_extremal_is_not_decided():
    solution = geodesic()
    momenta = np.array(solution.momenta)
    momenta[3] *= 1.001
    for changed in (solution.replace(momenta=momenta),
                    solution.replace(problem=solution.problem.replace(weight_decay=0.21))):
        proof = hs.certify(changed)
        assert proof.second_order.startswith("not decided: not an extremal (")
        assert np.isnan(proof.min_eigenvalue)


def test_a_test_that_was_not_asked_for_is_not_made():
    proof = hs.certify(geodesic(), second_order=False)
    assert proof.second_order == "not decided: not asked for"
    assert np.isnan(proof.min_eigenvalue)


def test_a_test_too_large_says_so():
    problem, states = circle(2.0, 3)
    result = path_second_order(problem, problem.sigma, states, EVENLY, max_numbers=57_599)
    assert result.verdict.startswith("not decided: 5.8e+04 numbers on 80 intervals")
    assert np.isnan(result.min_eigenvalue)
    result = path_second_order(problem, problem.sigma, states, EVENLY, max_numbers=57_600)
    assert result.verdict.startswith("strict local minimum")


def test_a_relu_path_across_its_kink_is_not_decided():
    problem, states = extremal("relu", 0, 1.0)
    A, _ = states(np.linspace(0, 1, 400))
    crossing = int(np.sum((A.min(axis=0) < 0) & (A.max(axis=0) > 0)))
    assert crossing > 0
    result = path_second_order(problem, problem.sigma, states, EVENLY)
    assert result.verdict.startswith(f"not decided: {crossing} activations cross or touch the kink")


def test_a_relu_path_that_was_smoothed_is_judged_as_such():
    problem = teacher(dims=(2, 1, 2), samples=4, width=2, effective_depth=2.0, weight_decay=0.05,
                      seed=0)
    solution = hs.solve(problem, hs.IndirectShooting(epsilon_last=0.02))
    assert solution.extra["epsilon"] == 0.02, solution.message
    proof = hs.certify(solution)
    assert proof.second_order.startswith("strict local minimum")
    assert "of the path of the smoothed network (ε = 0.02): smallest" in proof.second_order
