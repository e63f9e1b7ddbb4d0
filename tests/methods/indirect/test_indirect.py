"""`IndirectShooting` finds exact geodesics: closed forms, conservation, both forms, ladder."""

import re
from functools import cache, partial

import numpy as np
import problems
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import hamshoot as hs
from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.methods.indirect import continuation as geodesics
from hamshoot.methods.indirect.equations import (
    MAX_GROWTH,
    Condensing,
    RiccatiRecursion,
    ShootingProblem,
    cheaper_form,
    solve_shooting,
)
from hamshoot.methods.indirect.method import IndirectShooting
from hamshoot.methods.indirect.state_form import two_point
from hamshoot.problem.activations import Activation
from hamshoot.theory import closed_forms as exact
from hamshoot.theory import hamiltonian as ham

FEW = settings(max_examples=6, deadline=None, derandomize=True)

teacher = partial(problems.teacher, activation="smooth_relu", samples=8, weight_decay=0.03, seed=0)


@cache
def solved(activation="smooth_relu", **options):
    return IndirectShooting().solve(teacher(activation=activation, **options))


# -- the Newton system ---------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_the_condensed_system_tends_to_the_exact_one_at_second_order(bias):
    """Its solution d satisfies Φ_k d_k − d_{k+1} = −defect_k with the exact Φ up to O(h³) each."""
    rng = np.random.default_rng(0)
    w, N = 3, 5
    sigma = Activation("smooth_relu", 0.5)
    A0, B0 = rng.standard_normal((w, N)), rng.standard_normal((w, N)) / N
    flow = HamiltonianFlow(w, N, 2.0, sigma, bias)
    misfits = []
    for segments in (20, 40):
        t = np.linspace(0, 1, segments + 1)
        start = np.repeat(np.stack([A0, B0]).reshape(1, -1), segments, axis=0)
        nodes = flow(np.zeros(segments), t[1:], start)[0]
        y = np.concatenate([start[:1], nodes]).reshape(-1, 2, w, N)
        system = RiccatiRecursion(t, y[:, 0], y[:, 1], 0.3 * np.eye(w), effective_depth=2.0,
                                 activation=sigma, bias=bias)
        defects = np.zeros((segments, 2, w, N))
        end = np.random.default_rng(1).standard_normal((w, N))
        d = system.solve(defects, A0, end)
        np.testing.assert_allclose(d[0, 0], A0, atol=1e-13)
        np.testing.assert_allclose(d[-1, 1] + 0.3 * d[-1, 0], end, atol=1e-10)
        carried = flow.jvp(t[:-1], t[1:], y[:-1].reshape(segments, -1),
                           d[:-1].reshape(segments, -1))
        misfits.append(np.abs(carried - d[1:].reshape(segments, -1)).max() / np.abs(d).max())
    assert misfits[0] < 1e-2
    assert 2.5 < np.log2(misfits[0] / misfits[1]) < 3.5


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [0.02, 0.2], ids=["definite", "indefinite"])
def test_the_reduced_hessian_in_the_control_gives_the_same_as_the_riccati_recursion(bias, size):
    rng = np.random.default_rng(4)
    w, N, S = 3, 5, 20
    t = np.linspace(0, 1, S + 1) ** 1.2
    y = np.concatenate([np.ones((S + 1, 1, w, N)), np.full((S + 1, 1, w, N), size)], axis=1)
    y += 0.3 * size * rng.standard_normal(y.shape)
    right = rng.standard_normal((S, 2, w, N)), *rng.standard_normal((2, w, N))
    keywords = dict(effective_depth=2.0, activation=Activation("smooth_relu", 0.5), bias=bias)
    one, other = (kind(t, y[:, 0], y[:, 1], 0.3 * np.eye(w), **keywords)
                  for kind in (RiccatiRecursion, Condensing))
    assert one.definite is other.definite is (size < 0.1)
    d = one.solve(*right)
    np.testing.assert_allclose(other.solve(*right), d, rtol=0, atol=1e-10 * np.abs(d).max())
    if one.definite:
        assert abs(one.least - other.least) < 1e-11
    else:
        assert np.isnan(other.least)


def test_where_representations_are_amplified_beyond_measure_the_recursion_is_taken():
    """B of order 1 makes W of order L̃wN: the open loop grows by many powers of ten."""
    rng = np.random.default_rng(4)
    y = 1 + 0.3 * rng.standard_normal((21, 2, 3, 5))
    system = Condensing(np.linspace(0, 1, 21), y[:, 0], y[:, 1], 0.3 * np.eye(3), bias=True,
                           effective_depth=2.0, activation=Activation("smooth_relu", 0.5))
    assert system.growth > MAX_GROWTH


def test_the_cheaper_form_is_the_recursion_for_few_samples_and_the_control_for_many():
    assert cheaper_form(4, 10, 60) == cheaper_form(10, 100, 60) == "condensed"
    assert cheaper_form(4, 200, 60) == cheaper_form(10, 1000, 60) == "control"
    assert cheaper_form(20, 5000, 60) == "condensed"  # 5 GB of Hessian would not do


@pytest.mark.parametrize("form", ["condensed", "state"])
def test_a_grazing_kink_is_not_called_a_flow_that_is_not_finite(form):
    problem = teacher(activation="relu")
    rng = np.random.default_rng(0)
    # Any crossing is slower than this, so that it counts as a grazing one.
    flow = HamiltonianFlow(4, 8, 3.0, Activation("relu"), least_speed=1e9)
    shooting = ShootingProblem(flow, problem.initial_state, problem.readout, problem.targets,
                               problem.weight_decay)
    t, y = np.linspace(0, 1, 6), rng.standard_normal((6, 2, 4, 8))
    if form == "state":
        result = two_point(shooting, t, y)(max_nodes=12)
        message = result.message
    else:
        result = solve_shooting(shooting, t, y, form=form)
        message = result.reason
    assert not result.success
    assert "an activation grazes its kink" in message
    assert "the flow is not finite" not in message


@pytest.mark.parametrize("form", ["condensed", "control"])
def test_a_guess_without_bounds_is_not_asked_for_its_second_variation(form):
    problem = teacher()
    flow = HamiltonianFlow(4, 8, 3.0, problem.sigma)
    shooting = ShootingProblem(flow, problem.initial_state, problem.readout, problem.targets,
                               problem.weight_decay)
    y = np.full((6, 2, 4, 8), 1e200)
    with np.errstate(all="ignore"):
        result = solve_shooting(shooting, np.linspace(0, 1, 6), y, form=form, minimum=True)
    assert not result.success
    assert result.reason == "the flow is not finite at the guess"


# -- geodesics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["smooth_relu", "linear"])
@pytest.mark.parametrize("form", ["condensed", "control", "state"])
def test_a_geodesic_solves_the_boundary_value_problem(activation, form):
    problem = teacher(activation=activation)
    solution = IndirectShooting(form=form).solve(problem)
    assert solution.success
    assert solution.residuals["defect"] < 1e-9
    assert solution.residuals["boundary_residual"] < 1e-9
    assert solution.hamiltonian_drift < 1e-8
    # independently of the kernels: the reference flow from the first node meets the last
    settings_ = dict(effective_depth=3.0, activation=problem.sigma)
    A, B = solution.representations, solution.momenta
    half = len(solution.p) // 2
    _, a, b = ham.integrate(A[half], B[half], solution.p[half], 1.0, 2000, **settings_)
    np.testing.assert_allclose(a[-1], A[-1], atol=1e-7)
    np.testing.assert_allclose(b[-1], B[-1], atol=1e-7 * max(1, np.abs(B).max()))
    W = ham.control(A[3], B[3], **settings_)
    np.testing.assert_allclose(solution.weights[3], W, atol=1e-12)


@pytest.mark.parametrize("form", ["state", "control"])
def test_all_forms_find_the_same_geodesic(form):
    condensed = solved()
    state = IndirectShooting(form=form).solve(condensed.problem, initial_guess=condensed)
    assert abs(state.objective - condensed.objective) < 1e-10
    np.testing.assert_allclose(condensed.at(state.p).momenta, state.momenta, atol=1e-8)


def test_the_objective_is_that_of_the_continuous_control():
    """∫‖W‖² by Simpson's rule on a fine path; and J falls below no neighbour along the flow."""
    solution = solved()
    p = np.linspace(0, 1, 801)
    squares = np.sum(solution.at(p).weights ** 2, axis=(1, 2))
    weights = np.ones(801)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    norm = np.sum(weights * squares) / 2400
    assert abs(norm - solution.parameter_norm) < 1e-7 * norm
    problem = solution.problem
    J = solution.loss + problem.weight_decay / (2 * problem.effective_depth) * norm
    assert abs(J - solution.objective) < 1e-8


def test_refined_euler_networks_tend_to_the_geodesic():
    """The branch check: networks built from the control approach its objective at first order."""
    branch = solved().extra["branch"]
    first = abs(branch["euler"] - branch["objective"])
    second = abs(branch["euler_refined"] - branch["objective"])
    assert 0.3 < second / first < 0.7
    assert abs(branch["euler_limit"] - branch["objective"]) < 0.2 * first
    assert branch["consistent"]


def test_networks_that_do_not_tend_to_the_geodesic_are_told(monkeypatch):
    """At depth 7, 160 layers are too few to see the limit; refined ones show it."""
    problem = teacher(effective_depth=7.0, weight_decay=0.1, seed=2)
    method = IndirectShooting(layers=10)
    refined = method.solve(problem)
    assert refined.extra["branch"]["consistent"]
    assert "do not tend" not in refined.message
    monkeypatch.setattr(geodesics, "MOST_LAYERS", 0)
    coarse = method.solve(problem)
    branch = coarse.extra["branch"]
    assert not branch["consistent"]
    assert refined.extra["branch"]["layers"] > branch["layers"]
    assert f"{branch['euler_refined']:.6g} with {2 * branch['layers']}" in coarse.message


@pytest.mark.parametrize("layers", [6, 9])
def test_a_start_on_a_branch_of_coarse_networks_alone_is_no_geodesic(layers):
    """The optimal network of few layers is far from every geodesic, 5 % below the least J."""
    problem = teacher(effective_depth=5.0, weight_decay=0.02)
    start = hs.DirectSingleShooting(layers=layers, start="identity", seed=1).solve(problem)
    solution = IndirectShooting().solve(problem, initial_guess=start)
    assert solution.success  # an exact extremal, and not the one of the start
    assert max(solution.residuals["defect"], solution.residuals["boundary_residual"]) < 1e-9
    assert solution.objective > 1.1 * start.objective
    assert solution.extra["guess_refined"]
    assert "failed from the network given" in solution.message
    if start.success:
        told = solution.extra["start"]
        assert told["objective"] == pytest.approx(start.objective, rel=1e-12)
        assert told["same_branch"] is (f"{told['objective']:.6g}" not in solution.message)


def test_a_jump_in_the_last_layer_is_left_or_refused():
    """W = 0 and then |W| ∝ L: the straight way to the targets, which no flow can follow."""
    problem = teacher(effective_depth=5.0, weight_decay=0.02)
    for layers in (8, 16):
        weights = np.zeros((layers, 4, 5))
        weights[:, :, :4] = 0.1 * np.eye(4)
        weights[-1] = layers * np.random.default_rng(0).standard_normal((4, 5))
        solution = IndirectShooting(time_limit=20.0).solve(problem, initial_guess=weights)
        exact_ = max(solution.residuals["defect"], solution.residuals["boundary_residual"]) < 1e-9
        assert exact_ or not solution.success
        assert ("failed" in solution.message) or ("collapsed" in solution.message)
        norms = np.linalg.norm(solution.weights, axis=(1, 2))
        assert norms[-1] < layers * np.median(norms)


def test_a_guess_that_leads_nowhere_is_what_comes_back():
    """The arrays that were given, with their defects, not a path of their own making."""
    problem = teacher()
    guess = tuple(np.random.default_rng(0).standard_normal((2, 61, 4, 8)))
    solution = IndirectShooting(max_iter=3).solve(problem, initial_guess=guess)
    assert solution.status is hs.Status.STALLED
    assert not solution.success
    np.testing.assert_array_equal(solution.representations, guess[0])
    assert solution.residuals["defect"] > 1e-2


def test_relu_goes_through_the_ladder_and_says_so():
    solution = solved("relu", width=3, samples=6)
    assert solution.success
    assert solution.residuals["defect"] < 1e-9
    assert solution.residuals["hamiltonian_drift"] < 1e-8
    if solution.status is hs.Status.SMOOTHED:
        assert solution.extra["sliding"] > 0
        finer = IndirectShooting(epsilon_last=2.5e-4).solve(solution.problem,
                                                            initial_guess=solution)
        error = abs(solution.extra["objective_limit"] - finer.extra["objective_limit"])
        assert error < 10 * solution.extra["objective_limit_error"] + 1e-6
        assert error < abs(solution.objective - finer.extra["objective_limit"])


def test_continuation_in_depth_and_decay_reaches_another_problem():
    near = solved()
    far = near.problem.replace(effective_depth=5.0, weight_decay=0.02)
    solution = IndirectShooting().solve(far, initial_guess=near)
    assert solution.success
    assert solution.residuals["defect"] < 1e-9
    assert solution.hamiltonian_drift < 1e-8


def rungs(solution, name):
    """Values of a parameter over the stages of continuation, in the order they were tried."""
    stages = dict.fromkeys(r.stage for r in solution.history if r.stage.startswith("L̃"))
    return [float(re.search(rf"{name} = ([^,]+)", stage)[1]) for stage in stages]


@pytest.mark.parametrize(("change", "name"), [
    ({"effective_depth": 4.5}, "L̃"), ({"weight_decay": 0.3}, "λ"), ({"epsilon": 0.002}, "ε"),
])
def test_continuation_in_each_parameter_reaches_another_problem(change, name):
    """Every step starts from the geodesic before it, and the last stage is the problem itself."""
    near = IndirectShooting(start="identity").solve(teacher(activation="smooth_relu"))
    far = near.problem.replace(**change)
    solution = IndirectShooting().solve(far, initial_guess=near)
    assert solution.success
    assert solution.residuals["defect"] < 1e-9
    assert len(rungs(solution, name)) >= 2
    last = re.search(rf"{name} = ([^,]+)", solution.history[-1].stage)
    assert float(last[1]) == pytest.approx(next(iter(change.values())), rel=1e-3)


def test_steps_of_continuation_grow_on_success():
    near = IndirectShooting(start="identity").solve(teacher(activation="smooth_relu"))
    solution = IndirectShooting().solve(near.problem.replace(epsilon=0.002), initial_guess=near)
    steps = -np.diff(np.log([0.1, *rungs(solution, "ε")]))
    assert abs(steps[0] - np.log(2)) < 1e-2  # epsilon_factor
    np.testing.assert_allclose(steps[1:3] / steps[:2], 1.5, atol=0.02)


def test_steps_of_continuation_are_halved_on_failure():
    """Newton fails at 1.3 times the depth, and is asked for √1.3 times; what it took is told."""
    near = solved()
    solution = IndirectShooting().solve(near.problem.replace(effective_depth=4.5),
                                        initial_guess=near)
    tried = rungs(solution, "L̃")
    assert tried[0] == pytest.approx(3 * 1.3, rel=1e-3)
    assert tried[1] == pytest.approx(3 * 1.3**0.5, rel=1e-3)
    assert solution.success
    assert solution.extra["descents_taken"] >= 1
    assert "may lie on another branch" in solution.message


def test_a_layered_solution_and_arrays_start_it():
    geodesic = solved()
    arrays = (geodesic.representations[::4] * 1.001, geodesic.momenta[::4] * 0.999)
    again = IndirectShooting(segments=len(arrays[0]) - 1).solve(geodesic.problem, arrays)
    assert abs(again.objective - geodesic.objective) < 1e-9
    layered = hs.DirectSingleShooting(layers=60).solve(geodesic.problem)
    assert IndirectShooting().solve(geodesic.problem, initial_guess=layered).success


def test_same_input_same_numbers():
    one, two = (IndirectShooting(seed=3).solve(teacher()) for _ in range(2))
    np.testing.assert_array_equal(one.momenta, two.momenta)


# -- closed forms --------------------------------------------------------------------------------


@FEW
@given(seed=st.integers(0, 10_000), w=st.integers(1, 4), N=st.integers(1, 6),
       depth=st.floats(0.5, 4.0))
def test_linear_networks_follow_the_closed_form(seed, w, N, depth):
    """Targets are chosen so that the extremal of a given W_0 also meets the end condition."""
    rng = np.random.default_rng(seed)
    A0 = rng.standard_normal((w, N))
    B0 = rng.standard_normal((w, N)) / np.sqrt(w * N)
    W0 = depth * B0 @ A0.T
    W0 *= 0.8 * depth / max(np.linalg.norm(W0, 2), 1e-9)
    W0 += 0.5 * depth * A0 @ np.linalg.pinv(A0)
    p = np.linspace(0, 1, 41)
    path = exact.linear_path(p, A0, W0, depth)
    decay = 0.01 * depth
    Y = path.representations[-1] + 0.5 * decay * N * path.momenta[-1]
    assume(np.linalg.norm(path.representations[-1]) > 0.2 * np.linalg.norm(Y))  # else collapsed
    problem = hs.TrainingProblem(A0.T, Y.T, effective_depth=depth, weight_decay=decay, width=w,
                                 activation="linear", bias=False)
    guess = (path.representations * (1 + 1e-3), path.momenta * (1 - 1e-3))
    solution = IndirectShooting(segments=40).solve(problem, guess)
    assert solution.success
    at = solution.at(p)
    scale = max(1.0, np.abs(path.momenta).max())
    assert np.abs(at.representations - path.representations).max() < 1e-10
    assert np.abs(at.momenta - path.momenta).max() < 1e-10 * scale
    assert np.abs(at.weights - path.weights).max() < 1e-10 * max(1.0, np.abs(W0).max())
    assert abs(solution.parameter_norm / (2 * depth) - path.cost) < 1e-10 * max(1, path.cost)


@FEW
@given(seed=st.integers(0, 10_000), w=st.integers(1, 5), depth=st.floats(0.5, 5.0),
       activation=st.sampled_from(["linear", "relu"]))
def test_one_sample_follows_the_great_circle(seed, w, depth, activation):
    """A hard endpoint in the positive orthant, from the direct stage on; ReLU ends plain."""
    rng = np.random.default_rng(seed)
    a0, a1 = rng.uniform(0.3, 1.5, w), rng.uniform(0.3, 1.5, w)
    path = exact.one_sample_path(np.linspace(0, 1, 11), a0, a1, depth)
    problem = problems.between(a0, a1, activation, effective_depth=depth)
    solution = IndirectShooting().solve(problem)
    assert solution.status is hs.Status.CONVERGED
    at = solution.at(np.linspace(0, 1, 11))
    np.testing.assert_allclose(at.representations, path.representations, rtol=0, atol=1e-10)
    np.testing.assert_allclose(at.weights, path.weights, rtol=0, atol=1e-10 * max(1, depth))
    assert abs(solution.parameter_norm / (2 * depth) - path.cost) < 1e-10 * max(1, path.cost)
    assert abs(np.median(solution.hamiltonian) - path.hamiltonian) < 1e-10 * max(1, depth)


@FEW
@given(a0=st.floats(0.5, 2.0), y=st.floats(0.8, 3.0), depth=st.floats(0.5, 4.0))
def test_the_soft_scalar_problem_ends_where_it_should(a0, y, depth):
    decay = 0.02 * depth
    problem = problems.one_neuron(y, "relu", start=a0, effective_depth=depth, weight_decay=decay)
    solution = IndirectShooting().solve(problem)
    a1 = solution.representations[-1, 0, 0]
    ends = exact.scalar_stationary_endpoints(a0, y, depth, decay)
    assert min(abs(a1 - e) for e in ends) < 1e-10
    W = exact.scalar_weight(a0, a1, depth)
    np.testing.assert_allclose(solution.weights[:, 0, 0], W, rtol=0, atol=1e-10 * max(1, abs(W)))


@FEW
@given(seed=st.integers(0, 10_000), w=st.integers(1, 4), depth=st.floats(0.5, 4.0))
def test_aligned_singular_frames_cost_what_the_closed_form_says(seed, w, depth):
    """A_0 and A_1 square, with the same singular vectors: every singular value on its own."""
    rng = np.random.default_rng(seed)
    (U, _), (V, _) = (np.linalg.qr(rng.standard_normal((w, w))) for _ in range(2))
    s0, s1 = rng.uniform(0.5, 2.0, (2, w))
    A0, A1 = (U * s0) @ V.T, (U * s1) @ V.T
    problem = problems.between(A0, A1, effective_depth=depth)
    solution = IndirectShooting().solve(problem)
    assert solution.success
    cost = exact.aligned_cost(s0, s1, depth)
    assert abs(solution.parameter_norm / (2 * depth) - cost) < 1e-10 * max(1, cost)
    W = (U * (depth + np.log(s1 / s0))) @ U.T  # constant, symmetric
    assert np.abs(solution.weights - W).max() < 1e-10 * max(1, np.abs(W).max())


@FEW
@given(seed=st.integers(0, 10_000), w=st.integers(1, 3), depth=st.floats(0.5, 2.0))
def test_relu_follows_the_linear_closed_form_while_every_entry_is_positive(seed, w, depth):
    rng = np.random.default_rng(seed)
    A0 = rng.uniform(1.0, 2.0, (w, w)) + 3 * np.eye(w)
    W0 = depth * np.eye(w) + 0.3 * rng.uniform(0, 1, (w, w))
    p = np.linspace(0, 1, 21)
    path = exact.linear_path(p, A0, W0, depth)
    assume(path.representations.min() > 0.1)
    problem = problems.between(A0, path.representations[-1], "relu", effective_depth=depth)
    guess = path.representations * (1 + 1e-3), path.momenta * (1 - 1e-3)
    solution = IndirectShooting(segments=20).solve(problem, guess)
    assert solution.status is hs.Status.CONVERGED  # of the plain ReLU
    at = solution.at(p)
    assert np.abs(at.representations - path.representations).max() < 1e-10 * A0.max()
    assert np.abs(at.weights - path.weights).max() < 1e-10 * np.abs(W0).max()
    norms = np.linalg.norm(at.weights, axis=(1, 2))
    assert np.ptp(norms) < 1e-9 * norms[0]


# -- failures ------------------------------------------------------------------------------------


def test_an_endpoint_out_of_reach_is_not_a_success():
    """A scalar linear network without bias cannot change the sign of a."""
    solution = IndirectShooting(time_limit=20.0).solve(problems.between([1.0], [-1.0]))
    assert not solution.success
    assert "Newton" in solution.message or solution.status is hs.Status.INFEASIBLE


def test_a_collapse_is_named_and_exact():
    """At a large weight decay every start ends at A_1 ≈ 0, which is no success."""
    problem = teacher(effective_depth=6.0, weight_decay=6.0)
    solution = IndirectShooting().solve(problem)
    assert solution.status is hs.Status.COLLAPSED
    assert not solution.success
    assert solution.residuals["defect"] < 1e-9


def test_stopping_on_request_and_on_time_keeps_the_best():
    records = []
    solution = IndirectShooting().solve(teacher(),
                                        callback=lambda r: records.append(r) or len(records) > 5)
    assert solution.status is hs.Status.INTERRUPTED
    assert not solution.success
    assert np.isfinite(solution.objective)
    late = IndirectShooting(time_limit=1e-3).solve(teacher())
    assert late.status is hs.Status.TIME_LIMIT
    assert not late.success


@pytest.mark.parametrize(("options", "word"), [
    ({"form": "dense"}, "form"), ({"tol": 0}, "tol"), ({"segments": 0}, "segments"),
    ({"epsilon_last": 1.0}, "epsilon_last"), ({"epsilon_factor": 1.5}, "epsilon_factor"),
    ({"start": "zero"}, "start"),
])
def test_bad_options_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        IndirectShooting(**options)


def test_bad_guesses_are_named():
    problem = teacher()
    for guess in ((np.zeros((3, 2, 2)), np.zeros((3, 2, 2))), np.full((5, 4, 5), np.nan)):
        with pytest.raises(ValueError, match="initial_guess"):
            IndirectShooting().solve(problem, guess)
