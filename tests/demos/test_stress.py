"""A dozen small problems of the stress suite, one of each kind, and what its judge notices."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs

stress = runpy.run_path(
    str(Path(__file__).parents[2] / "demos" / "benchmarks" / "stress.py"), run_name="stress")
KINDS = stress["KINDS"]


@pytest.mark.parametrize("seed", [k + len(KINDS) * (k % 3) for k in range(len(KINDS))],
                         ids=lambda seed: KINDS[seed % len(KINDS)])
def test_every_method_ends_with_what_is_true(seed):
    for method in stress["serving"](seed):
        row = stress["row"](15, seed, method, time_limit=1.0, most=(4, 8))
        assert row["right"], (method, row["status"], row["reason"])


def reasons(solution):
    return " ".join(stress["judged"](solution, 10.0)["reasons"])


@pytest.fixture(scope="module")
def solved():
    return hs.solve(teacher(width=3, samples=6, dims=(3, 1, 3)), "single_shooting", layers=6,
                    effort="quick", workers=1)


def test_the_judge_holds_nothing_against_a_network_on_its_kinks(solved):
    assert solved.status is hs.Status.CONVERGED
    assert solved.kinks > 0
    assert not reasons(solved)


@pytest.mark.parametrize(("changes", "words"), [
    (dict(status=hs.Status.COLLAPSED, success=False), "outputs differ"),
    (dict(status=hs.Status.DIVERGED, success=False), "all numbers are finite"),
    (dict(status=hs.Status.ABOVE_TRIVIAL, success=False), "not above"),
    (dict(status=hs.Status.SADDLE, success=False), "names no way down"),
    (dict(status=hs.Status.TIME_LIMIT, success=False), "TIME_LIMIT after"),
    (dict(status=hs.Status.INFEASIBLE, success=False), "off the endpoint"),
    (dict(success=False), "success False"),
], ids=lambda value: value["status"].name if isinstance(value, dict) and "status" in value else "")
def test_the_judge_notices_a_status_that_is_not_so(solved, changes, words):
    assert words in reasons(replace(solved, **changes))


def test_the_judge_notices_numbers_that_are_not_those_of_the_weights(solved):
    assert "objective" in reasons(solved.replace(objective=solved.objective * (1 + 1e-6)))
    assert "stationarity" in reasons(
        solved.replace(residuals={**solved.residuals, "stationarity": 0.1}))
    moved = solved.weights + 1e-3 * np.sin(np.arange(solved.weights.size)).reshape(
        solved.weights.shape)
    assert "CONVERGED, but stationarity" in reasons(solved.replace(weights=moved))
    bent = solved.momenta.copy()
    bent[2] *= 2
    assert "leave [0, 1]" in reasons(solved.replace(momenta=bent)) or \
        "CONVERGED, but" in reasons(solved.replace(momenta=bent))
