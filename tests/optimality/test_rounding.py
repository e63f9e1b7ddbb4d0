"""Where λ is small a residual is a small difference of large sums: rounding is not held against it.

B = −(2/(λN)) Qᵀ(QA_1 − Yᵀ) and W = L̃Bσ̂(A)ᵀ are then small beside their terms, and two sums in
another order differ by more than any fixed number.
"""

import numpy as np
import pytest
from problems import random_data

import hamshoot as hs
from hamshoot.optimality import formulas
from hamshoot.optimality.checks import setting_of


def stiff(activation, decay, seed):
    """Targets that no network of so few neurons reaches, at almost no cost of weights."""
    return random_data(activation, sizes=(50, 1, 2), data_seed=seed, width=3, effective_depth=3.7,
                       weight_decay=decay)


@pytest.fixture(scope="module", params=["indirect", "single_shooting"])
def solved(request):
    options = {} if request.param == "indirect" else {"layers": 8}
    return hs.solve(stiff("linear", 4e-5, 0), request.param, effort="quick", workers=1, **options)


def test_a_success_is_certified_however_small_the_weight_decay(solved):
    assert solved.status is hs.Status.CONVERGED
    proof = hs.certify(solved)
    assert proof.holds, proof


def test_terms_that_cancel_leave_a_costate_at_the_end_that_differs_by_rounding():
    Y = np.array([[1.5, -2.0, 0.7, 3.1, 2.2, -1.2]])
    problem = hs.TrainingProblem([[1.2]], Y, effective_depth=1.46, weight_decay=1.7e-4, width=1,
                                 activation="linear", bias=True, seed=32)
    solution = hs.solve(problem, "single_shooting", layers=6, effort="quick", workers=1)
    end = solution.representations[-1]
    setting = setting_of(problem)
    pairs = [problem.readout[k, 0] * end[0, 0] - Y[0, k] for k in range(6)]
    summed = -2 / problem.weight_decay * float(np.sum(problem.readout[::-1, 0] * pairs[::-1]))
    assert summed == pytest.approx(formulas.terminal(setting, end)[0, 0], abs=1e-9)
    assert hs.certify(solution).holds


@pytest.mark.parametrize("name", ["stationarity", "boundary_residual"])
def test_a_residual_altered_by_a_millionth_is_noticed_all_the_same(solved, name):
    altered = solved.replace(
        residuals={**solved.residuals, name: solved.residuals[name] + 1e-6})
    assert not hs.certify(altered, second_order=False).holds


@pytest.mark.parametrize("method", ["single_shooting", "multiple_shooting"])
def test_a_loss_far_below_the_data_is_granted_their_rounding_and_no_more(method):
    """QA_1 ends 1e-9 of its data from the target: roll-outs differ there by 1e-8 of it."""
    X = np.array([[8841.0, -310.0, 57.0]])
    problem = hs.TrainingProblem(X, [[0.0]], effective_depth=2.0, weight_decay=0.1, width=4,
                                 activation="smooth_relu", epsilon=0.06, seed=198)
    solution = hs.solve(problem, method, layers=6, effort="quick", workers=1)
    assert solution.success, solution
    assert solution.loss < 1e-6 * solution.objective
    proof = hs.certify(solution)
    assert proof.holds, proof
    altered = solution.replace(loss=solution.loss * (1 + 1e-2))
    assert any("loss" in reason for reason in hs.certify(altered, second_order=False).reasons)
