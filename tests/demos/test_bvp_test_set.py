"""T1 to T33: closed forms solve their equations, and the solver does what the table says."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hamshoot.bvp import solve_bvp

BENCHMARKS = Path(__file__).parents[2] / "demos" / "benchmarks"


def benchmark(name):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


PROBLEMS = benchmark("bvp_test_problems").PROBLEMS
table = benchmark("bvp_test_set")
KNOWN = [problem for problem in PROBLEMS if problem.exact is not None]


def test_there_are_thirty_three():
    assert [problem.name for problem in PROBLEMS] == [f"T{i}" for i in range(1, 34)]
    assert [problem.linear for problem in PROBLEMS] == [True] * 18 + [False] * 15
    assert len(KNOWN) == 20


@pytest.mark.parametrize("problem", KNOWN, ids=lambda p: p.name)
def test_solutions_in_closed_form_solve_their_equations(problem):
    """The derivative by a complex step, exact to rounding, against the right-hand side."""
    for e in (problem.ladder[0], problem.ladder[len(problem.ladder) // 2], problem.ladder[-1]):
        a, b = problem.interval
        width = e if e < 1 else 1
        near = [end + s * width * np.array([0, 0.5, 2, 5]) for end, s in ((a, 1), (b, -1))]
        x = np.unique(np.clip(np.concatenate([np.linspace(a, b, 31), *near, [0.745]]), a, b))
        y = problem.exact(x, e)
        # SciPy's Airy functions of complex arguments keep no small imaginary parts.
        airy = problem.name == "T15"
        step = 1e-4 * e ** (1 / 3) if airy else 1e-40
        slope = problem.exact(x + 1j * step, e).imag / step
        within = 1e-6 if airy else 1e-9
        f = problem.rhs(x, y, e)
        size = 1 + np.abs(y).max() / min(e, 1) ** (2 if problem.name == "T16" else 1)
        np.testing.assert_allclose(slope[0], y[1], rtol=within, atol=1e-3 * within * size)
        np.testing.assert_allclose(slope[1], f[1], rtol=within, atol=1e-2 * within * size)
        assert abs(problem.boundary(y[:, 0], y[:, -1], e)).max() <= 1e-12


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_solved_at_a_value_that_is_not_in_the_table(problem):
    e = float(np.sqrt(problem.ladder[1] * problem.ladder[2])) * 1.1
    x = np.linspace(*problem.interval, 9)
    result = solve_bvp(lambda x, y: problem.rhs(x, y, e),
                       lambda ya, yb: problem.boundary(ya, yb, e), x, problem.guess(x), tol=1e-5)
    assert result.success, result.message
    at = np.linspace(*problem.interval, 401)
    if problem.exact is not None:
        exact = problem.exact(at, e)
        assert (abs(result.sol(at) - exact) / (1 + abs(exact))).max() <= 1e-3
    residual = result.sol(at, 1) - problem.rhs(at, result.sol(at), e)
    assert (abs(residual) / (1 + abs(problem.rhs(at, result.sol(at), e)))).max() <= 1e-4


def test_the_committed_table_is_whole_and_its_sentences_are_its_own():
    kept = json.loads((BENCHMARKS / "bvp_test_set.json").read_text(encoding="utf-8"))
    wanted = {(p.name, f"{e:.4g}") for p in PROBLEMS for e in p.ladder}
    for solver in ("hamshoot", "SciPy"):
        rows = [row for row in kept["rows"] if row["solver"] == solver]
        for tol in table.TOLERANCES:
            found = {(r["problem"], f"{r['parameter']:.4g}") for r in rows if r["tol"] == tol}
            assert found == wanted
    text = (BENCHMARKS / "bvp_test_set.md").read_text(encoding="utf-8")
    assert text == table.page(kept)
