"""Patterns against dense derivatives, KKT residuals against the reference, errors planted."""

import casadi as ca
import numpy as np
import pytest
from problems import between, teacher

import hamshoot as hs
from hamshoot.methods.multiple_shooting.layout import constraint_blocks, variable_blocks
from hamshoot.theory import layers as discrete

LAYERS = 5


def network(activation="smooth_relu", integrator="euler", scale=1.0, **changes):
    """A network that is far from stationary, as a solution."""
    from hamshoot.solution.evaluate import solution_from_weights

    problem = teacher(activation, samples=4, effective_depth=2.0).replace(**changes)
    W = scale * np.random.default_rng(0).standard_normal((LAYERS, *problem.control_shape))
    return solution_from_weights(
        problem, W, np.full(LAYERS, 1 / LAYERS), status=hs.Status.STALLED, success=False,
        method="given", integrator=integrator)


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_patterns_hold_every_entry_of_the_derivatives_and_little_else(integrator):
    solution = network(integrator=integrator)
    found = hs.diagnose(solution)
    nlp = hs.DirectMultipleShooting(layers=LAYERS, integrator=integrator).build(solution.problem)
    rng = np.random.default_rng(1)
    x = rng.standard_normal(nlp.program.size1_in("x"))
    p = nlp.parameters(solution.problem, solution.steps, 0.1)
    lam = rng.standard_normal(nlp.program.size1_out("g"))
    jacobian = ca.DM(nlp.program.factory("j", ["x", "p"], ["jac:g:x"])(x, p)).full()
    hessian = ca.DM(nlp.program.factory(
        "h", ["x", "p", "lam:f", "lam:g"], ["hess:gamma:x:x"], {"gamma": ["f", "g"]})(
        x, p, 1, lam)).full()
    hessian = np.triu(hessian) + np.triu(hessian, 1).T
    for structure, values in ((found.jacobian, jacobian), (found.hessian, hessian)):
        pattern = structure.to_scipy().toarray() > 0
        assert pattern.shape == structure.shape == values.shape
        assert not np.any((values != 0) & ~pattern)
        assert structure.nonzeros == pattern.sum() <= 1.35 * np.count_nonzero(values)
        assert structure.density == pytest.approx(pattern.mean())
        assert sum(structure.block_nonzeros.values()) == structure.nonzeros
        rows, columns = np.nonzero(pattern)
        assert structure.bandwidth == ((rows - columns).max(), (columns - rows).max())
        assert structure.reach == 1


def test_blocks_of_the_jacobian_are_those_of_the_defects():
    found = hs.diagnose(network())
    pairs = found.jacobian.block_nonzeros
    for k in range(1, LAYERS + 1):
        own = {column for row, column in pairs if row == f"defect {k}"}
        assert own == {f"W_{k}", f"A_{k}"} | ({f"A_{k - 1}"} if k > 1 else set())
        assert pairs[f"defect {k}", f"A_{k}"] == 4 * 4  # the identity


def test_the_kkt_matrix_is_a_symmetric_band_that_more_layers_do_not_widen():
    bands = []
    for layers in (3, 6):
        problem = teacher("smooth_relu", samples=4, effective_depth=2.0)
        found = hs.DirectMultipleShooting(layers=layers).diagnostics(problem)
        assert found.residuals == ()
        assert found.costates is None
        pattern = found.kkt.to_scipy().toarray()
        np.testing.assert_array_equal(pattern, pattern.T)
        assert found.kkt.nonzeros == found.hessian.nonzeros + 2 * found.jacobian.nonzeros
        bands.append(found.kkt.bandwidth)
    assert bands[0] == bands[1]
    assert bands[0][0] < found.kkt.shape[0] / 3


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("activation", ["smooth_relu", "linear"])
def test_residuals_of_any_network_are_those_of_the_reference(activation, integrator):
    solution = network(activation, integrator)
    found = hs.diagnose(solution)
    _, G = discrete.costates(solution.problem, solution.representations, solution.weights,
                             solution.steps, integrator)
    by_layer = [one.relative for one in found.residuals if one.kind == "stationarity"]
    expected = np.linalg.norm(G, axis=(1, 2)) / np.maximum(
        1, np.linalg.norm(solution.weights, axis=(1, 2)))
    np.testing.assert_allclose(by_layer, expected, rtol=1e-10)
    assert max(by_layer) == pytest.approx(solution.stationarity, rel=1e-10)
    assert found.worst(1)[0].relative == max(by_layer)
    for one in found.residuals:
        if one.kind != "stationarity":
            assert one.relative < 1e-13, one
    np.testing.assert_array_equal(found.costates, solution.momenta[1:])
    assert "lam_g = −B" in str(found)
    assert "W_" in str(found)


@pytest.mark.parametrize(("of", "name", "kind"), [
    ("representations", "defect 3", "defect"), ("momenta", "A_3", "costate"),
    ("weights", "W_3", "stationarity")])
def test_an_error_is_found_in_its_layer_and_block(of, name, kind):
    solved = hs.DirectSingleShooting(layers=LAYERS, starts=1, start="path").solve(
        teacher("smooth_relu", samples=4, effective_depth=2.0, weight_decay=0.01))
    assert solved.stationarity < 1e-7
    values = getattr(solved, of).copy()
    values[2 if of == "weights" else 3, 1, 2] += 1e-3
    worst = hs.diagnose(solved.replace(**{of: values}))
    mine = next(one for one in worst.residuals if one.name == name)
    assert mine.kind == kind
    assert mine.layer == 3
    assert mine.entry == (1, 2)
    assert abs(mine.largest) > 1e-5
    near = {2, 3, 4}
    for one in worst.residuals:
        if one.layer not in near:
            assert one.relative < 1e-7, one


def test_of_a_relu_optimum_the_residual_is_the_distance_from_all_slopes():
    problem = teacher(samples=6, effective_depth=2.0, weight_decay=5e-3)
    solved = hs.DirectSingleShooting(layers=LAYERS).solve(problem)
    assert solved.status is hs.Status.CONVERGED
    assert solved.kinks > 0
    found = hs.diagnose(solved)
    assert found.kinks == solved.kinks
    assert found.worst(1)[0].relative < 1e-8, found
    smoothed = hs.DirectSingleShooting(layers=LAYERS, polish=False).solve(problem)
    assert smoothed.status is hs.Status.SMOOTHED
    found = hs.diagnose(smoothed)
    assert found.epsilon == smoothed.residuals["epsilon"] > 0
    assert found.worst(1)[0].relative < 1e-6, found


def test_a_hard_endpoint_has_its_own_block():
    problem = between([1.0, 0.2], [0.3, 1.1], weight_decay=0.05)
    solved = hs.DirectMultipleShooting(layers=LAYERS, nlp_solver="fatrop").solve(problem)
    found = hs.DirectMultipleShooting(layers=LAYERS, nlp_solver="fatrop").diagnostics(
        problem, solved)
    assert found.residuals[-1].kind == "endpoint"
    assert found.worst(1)[0].relative < 1e-8
    assert "lam_g = +B" in str(found)
    missed = solved.replace(representations=np.concatenate(
        [solved.representations[:-1], solved.representations[-1:] + 0.5]))
    assert {one.name for one in hs.diagnose(missed).worst(2)} == {"endpoint", f"defect {LAYERS}"}


def test_what_does_not_fit_is_refused():
    solution = network()
    method = hs.DirectMultipleShooting(layers=LAYERS + 1)
    with pytest.raises(ValueError, match="solution: expected 6 controls"):
        method.diagnostics(solution.problem, solution)
    with pytest.raises(ValueError, match="expected one over rk4 layers, got one of euler"):
        hs.DirectMultipleShooting(layers=LAYERS, integrator="rk4").diagnostics(
            solution.problem, solution)


def test_sizes_of_the_program_are_those_of_its_blocks():
    solution = network()
    nlp = hs.DirectMultipleShooting(layers=LAYERS).build(solution.problem)
    found = hs.diagnose(solution)
    assert found.jacobian.shape == (constraint_blocks(nlp)[-1].stop, variable_blocks(nlp)[-1].stop)


@pytest.mark.parametrize("draw", ["plot_diagnostics", "plot_kkt", "plot_sparsity"])
def test_a_solution_in_place_of_its_diagnostics_is_told_what_to_call(draw):
    problem = teacher("linear", samples=3)
    with pytest.raises(TypeError, match=rf"{draw}: expected Diagnostics, as hs\.diagnose"):
        getattr(hs.plot, draw)(problem)


def test_on_the_kink_of_a_leaky_relu_its_own_slopes_are_allowed():
    problem = teacher("leaky_relu", samples=6, width=2, dims=(2, 1, 2))
    solution = hs.solve(problem, "single_shooting", layers=4, effort="quick")
    found = hs.diagnose(solution)
    assert found.kinks == solution.kinks > 0
    assert found.worst(1)[0].relative < 1e-9
