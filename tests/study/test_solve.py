"""`solve` picks a method by size and says which and why; unknown names and options are errors."""

from functools import partial

import problems
import pytest

import hamshoot as hs
from hamshoot.study.solve import check_method, choose

teacher = partial(problems.teacher, samples=6, width=3, effective_depth=2.0, weight_decay=0.02,
                  seed=0)


def test_without_layers_the_answer_is_the_geodesic():
    solution = hs.solve(teacher("smooth_relu"))
    assert solution.layers is None
    assert solution.success
    assert solution.hamiltonian_drift < 1e-8
    assert "auto chose indirect shooting" in solution.message
    assert solution.extra["choice"] in solution.message


def test_with_layers_it_is_the_optimal_network():
    solution = hs.solve(teacher(), layers=5)
    assert solution.layers == 5
    assert solution.status is hs.Status.CONVERGED
    assert "auto chose single shooting of 5 layers" in solution.message


@pytest.mark.parametrize(("size", "layers", "options", "name"), [
    ((8, 40), 20, {}, "single_shooting"),
    ((8, 40), None, {}, "indirect"),
    ((8, 60), None, {}, "single_shooting"),
    ((8, 40), None, {"starts": 3}, "single_shooting"),
    ((5, 20), None, {"starts": 3}, "single_shooting"),
    ((5, 20), None, {"tol": 1e-9}, "indirect"),
    ((3, 6), 30, {}, "single_shooting"),
])
def test_the_choice_by_size(size, layers, options, name):
    problem = teacher("linear", width=size[0], samples=size[1])
    chosen, own, reason = choose(problem, layers, options)
    assert chosen == name
    assert name.split("_")[0] in reason
    assert str(size[0] * size[1]) in reason or f"{own['layers']} layers" in reason
    method = check_method(problem, "auto", layers, options)
    for key, value in {**own, **options}.items():
        assert getattr(method, key) == value


def test_without_layers_a_relu_network_gets_the_default_number():
    assert choose(teacher(), None, {})[0] == "single_shooting"
    assert check_method(teacher(), "auto", None, {}).layers == 20


def test_hard_endpoints():
    problem = teacher("linear", samples=2, bias=False)
    problem = problem.replace(endpoint=1.2 * problem.initial_state)
    network = hs.solve(problem, layers=6)
    assert network.success, network.message
    assert network.residuals["boundary_residual"] < 1e-8
    path = hs.solve(problem)
    assert path.layers is None
    assert path.success, path.message
    assert path.residuals["boundary_residual"] < 1e-8


@pytest.mark.parametrize(("arguments", "says"), [
    ({"method": "magic"}, "method"), ({"method": 3}, "method"), ({"layers": 0}, "layers"),
    ({"layers": 2}, "layers"), ({"layers": 6, "magic": 1}, "magic"), ({"magic": 1}, "magic"),
    ({"method": hs.DirectSingleShooting(), "tol": 1e-3}, "tol"),
    ({"method": "indirect", "starts": 2}, "starts"),
])
def test_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        hs.solve(teacher(), **arguments)
