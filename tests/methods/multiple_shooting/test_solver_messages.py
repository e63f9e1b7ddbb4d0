"""Complaints of CasADi's solvers in our sentences, and their statistics."""

import json
import logging

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.methods.multiple_shooting.solver_messages import (
    BUILT_IN,
    check_solver_options,
    plain_statistics,
)

QUIET = {"ipopt.print_level": 0, "ipopt.sb": "yes"}


@pytest.mark.parametrize(("options", "says"), [
    ({"ipopt.tol": -1.0}, r"refuses 'ipopt.tol': expected a value with 0 < value <= \+inf, got -1"),
    ({"ipopt.tol": "small"}, "refuses 'ipopt.tol': expected a number, got 'small'"),
    ({"ipopt.max_iter": "9"}, "refuses 'ipopt.max_iter': expected an integer, got '9'"),
    ({"ipopt.sb": True}, "refuses 'ipopt.sb': expected a string, got True"),
    ({"ipopt.mu_strategy": "bold"}, "expected one of monotone, adaptive, got 'bold'"),
    ({"ipopt.nonsense": 1}, "ipopt has no option 'ipopt.nonsense'"),
    ({"nonsense": 1}, "ipopt has no option 'nonsense'"),
    ({"max_iter": 9}, "expected 'ipopt.max_iter', as options of ipopt are written"),
    ({"ipopt.linear_solver": "absent"}, "expected one of ma27, .*, mumps"),
    ({"ipopt.linear_solver": "pardiso"}, "the linear solver 'pardiso' is not here"),
    ({"ipopt.hsllib": "./none.so", "ipopt.linear_solver": "ma57"},
     r"'ma57' is not here \(./none.so was not found\); use 'mumps' or 'spral'.*'ipopt.hsllib'"),
    ({"iteration_callback": print}, "give callback= to solve"),
    ({3: 4}, "expected names of options, as 'ipopt.tol', got 3"),
    ({"ipopt.max_iter": 9, "ipopt.tol": -1}, "ipopt.tol"),
])
def test_the_option_that_is_wrong_is_named_with_what_was_expected(options, says, capfd):
    with pytest.raises(ValueError, match=says) as error:
        check_solver_options("ipopt", options, QUIET)
    assert str(error.value).startswith("solver_options: ")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("solver", "options", "says"), [
    ("fatrop", {"fatrop.nonsense": 1}, "fatrop has no option"),
    ("fatrop", {"fatrop.tol": "x"}, "expected a number"),
    ("fatrop", {"N": 3}, "the program sets the stages itself"),
    ("sqpmethod", {"tol_du": "x"}, "CasADi's type double"),
    ("sqpmethod", {"qpsol": "absent"}, "a plugin that this CasADi has"),
])
def test_so_are_those_of_the_other_solvers(solver, options, says):
    problem = teacher("linear", samples=4)
    method = hs.DirectMultipleShooting(layers=4, nlp_solver=solver, solver_options=options)
    with pytest.raises(ValueError, match=says):
        method.build(problem)


def test_options_that_are_right_pass():
    for name in BUILT_IN[:1]:
        check_solver_options("ipopt", {"ipopt.linear_solver": name, "ipopt.max_iter": 0}, QUIET)
    check_solver_options("ipopt", None, QUIET)


def test_options_reach_the_solver():
    """IPOPT takes one iteration where it is told so, and its statistics say it."""
    method = hs.DirectMultipleShooting(layers=4, warm_up=False, max_iter=40,
                                       solver_options={"ipopt.max_iter": 1})
    stats = method.solve(teacher("smooth_relu", samples=4)).extra["solver_stats"]
    assert stats["iter_count"] == 1
    assert stats["return_status"] == "Maximum_Iterations_Exceeded"


@pytest.mark.parametrize("nlp_solver", ["ipopt", "fatrop"])
def test_statistics_are_kept_and_saved(nlp_solver, tmp_path):
    method = hs.DirectMultipleShooting(layers=4, nlp_solver=nlp_solver, warm_up=False)
    solution = method.solve(teacher("linear", samples=4))
    stats = solution.extra["solver_stats"]
    assert stats["solver"] == nlp_solver
    assert stats["success"] is True
    assert stats["total_iterations"] >= stats["iter_count"] >= 1
    assert json.loads(json.dumps(stats, allow_nan=False)) == stats
    assert hs.Solution.load(solution.save(tmp_path / "s.npz")).extra["solver_stats"] == stats
    if nlp_solver == "ipopt":
        assert len(stats["iterations"]["inf_pr"]) == stats["iter_count"] + 1


def test_statistics_are_plain():
    given = {"a": np.float64(2), "b": [np.nan, 1.0], "c": {"d": np.int32(3)}, "e": np.inf,
             "f": "x", "g": (True, np.bool_(False))}
    assert plain_statistics(given) == {"a": 2.0, "b": [None, 1.0], "c": {"d": 3}, "e": None,
                                       "f": "x", "g": [True, False]}


@pytest.mark.parametrize("nlp_solver", ["ipopt", "fatrop"])
def test_an_endpoint_of_more_numbers_than_controls_is_said_once_in_our_words(
        nlp_solver, capfd, caplog):
    rng = np.random.default_rng(0)
    problem = hs.TrainingProblem(rng.standard_normal((20, 2)), width=2, effective_depth=2.0,
                                 endpoint=rng.standard_normal((2, 20)), weight_decay=0.1,
                                 activation="linear")
    method = hs.DirectMultipleShooting(layers=5, nlp_solver=nlp_solver, effort="quick",
                                       time_limit=2)
    with caplog.at_level(logging.WARNING, "hamshoot"):
        solution = method.solve(problem)
    words = "the endpoint prescribes 40 numbers and 5 layers have 30 controls"
    assert [words in record.message for record in caplog.records] == [True]
    assert not solution.success
    assert words in solution.message
    assert "overconstrained" not in "".join(capfd.readouterr())
    method.build(problem.replace(endpoint=rng.standard_normal((2, 20))))
    assert "overconstrained" not in "".join(capfd.readouterr())
