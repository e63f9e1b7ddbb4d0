"""Names as types are the names that are taken; a checker sees a user's mistakes before a run."""

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import hamshoot as hs
from hamshoot.methods.common.starts import STARTS
from hamshoot.methods.descent.optimizers import SCHEDULES
from hamshoot.methods.indirect.method import FORMS
from hamshoot.methods.indirect.method import INTEGRATORS as FLOWS
from hamshoot.methods.multiple_shooting.method import INTEGRATORS
from hamshoot.methods.multiple_shooting.nlp import FUNCTIONS, NLP_SOLVERS
from hamshoot.methods.search.basins import EFFORTS
from hamshoot.methods.single_shooting.method import OPTIMIZERS
from hamshoot.problem.activations import CODES
from hamshoot.problem.losses import LOSSES
from hamshoot.study.solve import METHODS
from hamshoot.study.sweep_predictor import PREDICTORS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "taken"), [
    ("ActivationName", CODES), ("LossName", LOSSES), ("IntegratorName", INTEGRATORS),
    ("FlowIntegratorName", FLOWS),
    ("NlpSolverName", NLP_SOLVERS), ("EffortName", EFFORTS), ("StartName", STARTS),
    ("OptimizerName", OPTIMIZERS), ("FormName", FORMS), ("ScheduleName", SCHEDULES),
    ("CFunctionName", FUNCTIONS), ("PredictorName", PREDICTORS),
    ("ScalingName", ("columns", "varying", "common")),
])
def test_a_type_holds_the_names_that_are_taken(name, taken):
    assert set(get_args(getattr(hs.names, name))) == set(taken)


def test_names_of_methods_are_those_of_solve():
    assert {name.replace("-", "_") for name in get_args(hs.names.MethodName)} == {"auto", *METHODS}


def test_options_of_solve_are_those_of_the_methods():
    options = {field.name for method in METHODS.values() for field in dataclasses.fields(method)
               if field.init}
    assert set(hs.names.SolveOptions.__annotations__) == options - {"layers"}


@pytest.mark.parametrize(("verb", "kind", "fixed"), [
    (hs.validate, hs.names.StudyOptions, {"layers"}), (hs.sweep, hs.names.StudyOptions, {"layers"}),
    (hs.tune, hs.names.TuneOptions, {"layers"}),
    (hs.LeakyResNet.polish, hs.names.PolishOptions, {"layers", "steps"})])
def test_options_of_other_verbs_are_those_less_their_own_arguments(verb, kind, fixed):
    own = set(inspect.signature(verb).parameters)
    assert set(kind.__annotations__) == set(hs.names.SolveOptions.__annotations__) - own - fixed


@pytest.mark.parametrize(("solver", "kind"), [
    ("ipopt", hs.names.IpoptOptions), ("fatrop", hs.names.FatropOptions)])
def test_options_of_solvers_exist(solver, kind):
    """Each is known to the solver: at worst its value is refused, as where a library is missing."""
    from hamshoot.methods.multiple_shooting.solver_messages import check_solver_options

    unknown = []
    for name in kind.__annotations__:
        try:
            check_solver_options(solver, {name: "no such value"}, {f"{solver}.print_level": 0})
        except ValueError as error:
            if "has no option" in str(error):
                unknown.append(name)
    assert unknown == []


MISTAKES = """\
import numpy as np
import hamshoot as hs
X = np.zeros((4, 2))
problem = hs.TrainingProblem(X, X, effective_depth=1.0, weight_decay=0.1, width=2)
hs.TrainingProblem(X, X, effective_depth=1.0, weight_decay=0.1, width=2, activation="rleu")  # no
hs.solve(problem, "multiple")  # no
hs.solve(problem, layers=4, efort="quick")  # no
hs.solve(problem, layers=4, effort="fast")  # no
hs.solve("train.csv")  # no
hs.validate(problem, layers=4, efort="quick")  # no
hs.validate(problem, "single")  # no
hs.tune(problem, layers=4, effort="fast")  # no
hs.sweep(problem, {"weight_decay": [0.1]}, layers=4, time_limt=3.0)  # no
hs.sweep(problem, {"weight_decay": [0.1]}, predictor="newton")  # no
hs.validate(problem, layers=4, effort="quick", time_limit=3.0, steps="irregular")
network = hs.solve(problem, layers=4).to_network()
network.polish(problem, max_iters=3)  # no
network.polish(problem, steps="irregular")  # no
network.polish(problem, seed=1, effort="quick")
hs.DirectMultipleShooting(integrator="rk5")  # no
hs.DirectMultipleShooting(nlp_solver="snopt")  # no
hs.IndirectShooting(integrator="rk4")  # no
hs.DirectSingleShooting(optimizer="adam")  # no
hs.Adam(schedule="linear")  # no
options: hs.names.IpoptOptions = {"ipopt.tol": "small"}  # no
hs.DirectMultipleShooting(layers=4).to_c(problem, "a.c", "steps")  # no
"""


@pytest.mark.timeout(240)
def test_a_checker_passes_what_is_right_and_marks_what_is_not(tmp_path):
    """mypy over a program of a user's and one full of mistakes, other libraries left out.

    With them, which takes long, `.ci/run` checks the first.
    """
    pytest.importorskip("mypy")
    wrong = tmp_path / "mistakes.py"
    wrong.write_text(MISTAKES)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--no-site-packages",
         "--ignore-missing-imports", "--config-file", "", "--cache-dir", str(tmp_path / "cache"),
         str(ROOT / "tests" / "as_a_user.py"), str(wrong)],
        capture_output=True, text=True, cwd=ROOT, check=False)
    marked = {int(line) for line in re.findall(r"mistakes\.py:(\d+): error", run.stdout)}
    expected = {number for number, line in enumerate(MISTAKES.splitlines(), start=1)
                if line.endswith("# no")}
    assert marked == expected, run.stdout + run.stderr
    assert "as_a_user.py" not in run.stdout, run.stdout
