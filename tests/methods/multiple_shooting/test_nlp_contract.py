"""The program as others use it: layout of x, g and p, scaling, signs, derivatives through it."""

import casadi as ca
import numpy as np
import pytest
from problems import between, teacher

import hamshoot as hs
from hamshoot.methods.multiple_shooting.layout import (
    constraint_blocks,
    parameter_blocks,
    variable_blocks,
)
from hamshoot.theory import layers as discrete
from hamshoot.theory.closed_forms import scalar_euler_weight

LAYERS = 4
STEPS = np.full(LAYERS, 1 / LAYERS)


def built(nlp_solver="ipopt", **changes):
    problem = teacher("smooth_relu", samples=5, effective_depth=2.0, epsilon=0.1).replace(**changes)
    return problem, hs.DirectMultipleShooting(layers=LAYERS, nlp_solver=nlp_solver).build(problem)


def solved(nlp, problem, p=None, x0=None, lam=0.0):
    if x0 is None:
        W = np.tile(2.0 * np.eye(*problem.control_shape), (LAYERS, 1, 1))
        x0 = nlp.pack(W, discrete.roll_out(problem, W, STEPS))
    p = nlp.parameters(problem, STEPS, 0.1) if p is None else p
    answer = nlp.solver(x0=x0, lam_g0=lam, p=p, lbg=0, ubg=0)
    assert nlp.solver.stats()["success"]
    return answer


def matrix(block, vector):
    return np.asarray(vector.full() if hasattr(vector, "full") else vector).ravel()[
        block.start : block.stop].reshape(block.shape, order="F")


@pytest.mark.parametrize("bias", [True, False])
def test_blocks_are_what_pack_and_parameters_write(bias):
    problem, nlp = built(bias=bias)
    rng = np.random.default_rng(0)
    W = rng.standard_normal((LAYERS, *problem.control_shape))
    A = rng.standard_normal((LAYERS + 1, *problem.initial_state.shape))
    x = nlp.pack(W, A)
    blocks = {block.name: block for block in variable_blocks(nlp)}
    assert list(blocks) == [f"{name}_{k}" for k in range(1, LAYERS + 1) for name in "WA"]
    for k in range(1, LAYERS + 1):
        np.testing.assert_array_equal(matrix(blocks[f"W_{k}"], x), W[k - 1])
        np.testing.assert_array_equal(matrix(blocks[f"A_{k}"], x), A[k])
    assert blocks[f"A_{LAYERS}"].stop == len(x) == nlp.program.size1_in("x")
    p = nlp.parameters(problem, STEPS, 0.3)
    expected = {"lambda": problem.weight_decay, "effective_depth": 2.0, "epsilon": 0.3,
                "rho": STEPS, "A_0": problem.initial_state, "Y": problem.targets,
                "Q": problem.readout}
    found = parameter_blocks(nlp)
    assert [block.name for block in found] == list(expected)
    assert found[-1].stop == len(p) == nlp.program.size1_in("p")
    for block in found:
        np.testing.assert_array_equal(matrix(block, p), expected[block.name])


def test_blocks_of_a_hard_endpoint():
    problem = between([1.0, 0.2], [0.3, 1.1], weight_decay=0.05)
    nlp = hs.DirectMultipleShooting(layers=LAYERS).build(problem)
    assert [block.name for block in constraint_blocks(nlp)][-2:] == [f"defect {LAYERS}", "endpoint"]
    last = parameter_blocks(nlp)[-1]
    assert last.name == "A_1"
    np.testing.assert_array_equal(matrix(last, nlp.parameters(problem, STEPS, 0.0)),
                                  problem.endpoint)
    assert constraint_blocks(nlp)[-1].stop == nlp.program.size1_out("g")


def test_the_objective_is_j_over_lambda_and_defects_are_step_minus_node():
    problem, nlp = built()
    rng = np.random.default_rng(1)
    W = rng.standard_normal((LAYERS, *problem.control_shape))
    A = rng.standard_normal((LAYERS + 1, *problem.initial_state.shape))
    A[0] = problem.initial_state
    f, g = nlp.program(nlp.pack(W, A), nlp.parameters(problem, STEPS, 0.1))
    J = discrete.objective(problem, A[-1], W, STEPS)[0]
    assert float(f) == pytest.approx(J / problem.weight_decay, rel=1e-13)
    for k, block in enumerate(constraint_blocks(nlp)):
        stepped = discrete.roll_out(problem, W[k : k + 1], STEPS[k : k + 1], initial_state=A[k])[-1]
        np.testing.assert_allclose(matrix(block, g), stepped - A[k + 1], atol=1e-12)


@pytest.mark.parametrize(("nlp_solver", "sign"), [("ipopt", -1), ("fatrop", 1)])
def test_multipliers_are_costates_with_the_sign_stated(nlp_solver, sign):
    """Against differences: B_ℓ = −(1/λ) ∂J/∂A_ℓ of a state that is displaced at the node."""
    problem, nlp = built(nlp_solver)
    answer = solved(nlp, problem)
    W, _ = nlp.unpack(answer["x"].full())
    assert nlp.sign == sign
    node, h = 2, 1e-6
    A = discrete.roll_out(problem, W, STEPS)

    def after(displaced):
        end = discrete.roll_out(problem, W[node:], STEPS[node:], initial_state=displaced)[-1]
        return discrete.objective(problem, end, W, STEPS)[1]  # the loss alone depends on it

    moved = np.zeros_like(A[node])
    moved[1, 3] = h
    difference = (after(A[node] + moved) - after(A[node] - moved)) / (2 * h)
    lam = matrix(constraint_blocks(nlp)[node - 1], answer["lam_g"])
    assert sign * lam[1, 3] == pytest.approx(-difference / problem.weight_decay, rel=1e-5)
    np.testing.assert_array_equal(nlp.momenta(answer["lam_g"].full())[node - 1], sign * lam)


def test_lam_p_is_minus_the_derivative_of_the_optimum():
    problem, nlp = built()
    p = nlp.parameters(problem, STEPS, 0.1)
    answer = solved(nlp, problem, p)
    h = 1e-4
    for name, entry in (("lambda", 0), ("effective_depth", 0), ("Y", 3), ("A_0", 2)):
        block = next(block for block in parameter_blocks(nlp) if block.name == name)
        at = block.start + entry
        size = h * max(1e-2, abs(p[at]))
        f = []
        for move in (size, -size):
            q = p.copy()
            q[at] += move
            f.append(float(solved(nlp, problem, q, answer["x"], answer["lam_g"])["f"]))
        difference = (f[0] - f[1]) / (2 * size)
        assert abs(difference) > 1e-6
        assert -float(answer["lam_p"][at]) == pytest.approx(difference, rel=1e-4), name


def test_casadi_differentiates_through_the_solver():
    """d(x*)/dλ by CasADi's own rule against two solves."""
    problem, nlp = built()
    p = nlp.parameters(problem, STEPS, 0.1)
    answer = solved(nlp, problem, p)
    symbol = ca.MX.sym("lambda")
    result = nlp.solver(x0=answer["x"], lam_g0=answer["lam_g"], lbg=0, ubg=0,
                        p=ca.vertcat(symbol, p[1:]))
    change = ca.Function("change", [symbol], [ca.jacobian(result["x"], symbol)])
    exact = change(p[0]).full().ravel()
    h, ends = 1e-3 * p[0], []
    for move in (h, -h):
        q = p.copy()
        q[0] += move
        ends.append(solved(nlp, problem, q, answer["x"], answer["lam_g"])["x"].full().ravel())
    difference = (ends[0] - ends[1]) / (2 * h)
    assert np.linalg.norm(exact - difference) < 1e-4 * np.linalg.norm(difference)


def test_epsilon_zero_has_a_slope_at_the_kink():
    """One half, of Clarke's; not 0/0."""
    problem = teacher(samples=5)
    nlp = hs.DirectMultipleShooting(layers=LAYERS, ).build(problem)
    A, W = np.zeros(problem.initial_state.shape), np.ones(problem.control_shape)
    B = np.random.default_rng(0).standard_normal(A.shape)
    left = nlp.costate(A, W, B, 0.25, 2.0, 0.0).full()
    np.testing.assert_allclose(left, 0.5 * B + 0.125 * (W[:, :-1].T @ B), rtol=1e-14)
    assert np.all(np.isfinite(nlp.flow(A, B, 2.0, 0.0)[1].full()))


def test_the_example_of_the_page_solves_the_scalar_problem():
    """Solver by hand: W of one neuron from 1 to 1.7 is known in closed form."""
    problem = between([1.0], [1.7], weight_decay=0.05)
    nlp = hs.DirectMultipleShooting(layers=LAYERS).build(problem)
    W0 = np.full((LAYERS, *problem.control_shape), 2.0)
    x0 = nlp.pack(W0, discrete.roll_out(problem, W0, STEPS))
    W, _ = nlp.unpack(nlp.solver(x0=x0, p=nlp.parameters(problem, STEPS, 1e-9), lbg=0, ubg=0)["x"])
    np.testing.assert_allclose(W, scalar_euler_weight(1.0, 1.7, 2.0, LAYERS), rtol=1e-7)
