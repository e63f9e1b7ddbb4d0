"""What an answer says beside its status."""

import time

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs

LATE = hs.TrainingProblem(
    np.random.default_rng(109).standard_normal((38, 10)),
    np.random.default_rng(110).standard_normal((38, 2)),
    effective_depth=14.5, weight_decay=1.22, width=10)


def test_a_collapsed_network_says_that_the_clock_ended_its_search():
    solution = hs.solve(LATE, "single_shooting", layers=19, effort="quick", time_limit=0.2,
                        workers=1)
    assert solution.status is hs.Status.COLLAPSED
    assert "the time limit came before the search was over" in solution.message


def test_a_collapsed_network_that_was_searched_for_to_the_end_says_no_such_thing():
    problem = teacher(samples=6).replace(weight_decay=50.0)
    method = hs.DirectSingleShooting(layers=6, starts=1, start="path", workers=1)
    solution = method.solve(problem)
    assert solution.status is hs.Status.COLLAPSED
    assert "time limit" not in solution.message


@pytest.mark.parametrize("method", ["single_shooting", "multiple_shooting", "indirect"])
@pytest.mark.parametrize("scale", [1e25, 1e55])
@pytest.mark.filterwarnings("error")
def test_huge_data_overflow_without_warnings(method, scale):
    X = np.random.default_rng(0).standard_normal((8, 3)) * scale
    problem = hs.TrainingProblem(X, X[:, :1], effective_depth=3.0, weight_decay=1e-3, width=3)
    began = time.perf_counter()
    solution = hs.solve(problem, method, layers=6, effort="quick", time_limit=0.3, workers=2)
    assert solution.seconds <= time.perf_counter() - began
    hs.certify(solution, second_order=False)
    assert np.isfinite(solution.objective)
