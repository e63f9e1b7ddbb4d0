"""Data that double precision cannot compute with are refused, by name, before any work."""

import warnings

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.problem.magnitude import LARGEST

SETTINGS = dict(effective_depth=2.0, weight_decay=1e-2, width=3)


def table(**scales):
    rng = np.random.default_rng(0)
    data = {"X": rng.standard_normal((6, 2)), "Y": rng.standard_normal((6, 1)),
            "X_test": rng.standard_normal((4, 2)), "Y_test": rng.standard_normal((4, 1))}
    return {name: scales.get(name, 1.0) * values for name, values in data.items()}


@pytest.mark.parametrize("name", ["X", "Y", "X_test", "Y_test"])
@pytest.mark.parametrize("scale", [1e100, 1e155, 1e300])
@pytest.mark.parametrize("standardize", [False, True, "common"])
def test_what_overflows_is_refused_without_a_warning(name, scale, standardize):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if standardize and scale == 1e100 and "test" not in name:
            hs.TrainingProblem(**table(**{name: scale}), **SETTINGS, standardize=standardize)
            return
        with pytest.raises(ValueError, match=f"{name}: (expected numbers up to|numbers as large)"):
            hs.TrainingProblem(**table(**{name: scale}), **SETTINGS, standardize=standardize)


@pytest.mark.parametrize("name", ["lift", "readout", "endpoint"])
def test_matrices_too(name):
    problem = problems.teacher(samples=5, width=3)
    value = np.ones((3, 5)) if name == "endpoint" else getattr(problem, name)
    with pytest.raises(ValueError, match=f"{name}: expected numbers up to 1e"):
        problem.replace(**{name: 1e61 * value})


def test_the_largest_that_is_taken_is_solved_without_an_exception():
    with np.errstate(all="ignore"):
        problem = hs.TrainingProblem(**table(X=0.1 * LARGEST, Y=0.1 * LARGEST), **SETTINGS)
        solution = hs.solve(problem, layers=3, time_limit=1.0, effort="quick")
        proof = hs.certify(solution)
    assert isinstance(repr(solution) + repr(proof), str)
    assert solution.summary()["objective"] is None or solution.summary()["objective"] > 0
