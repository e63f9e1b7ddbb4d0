"""hamshoot: the training of Leaky ResNets solved as an optimal control problem, by shooting.

>>> import hamshoot as hs
>>> problem = hs.teacher_problem(dims=(4, 2, 4), samples=20, width=4, effective_depth=3.0)
>>> solution = hs.solve(problem, layers=10)            # doctest: +SKIP
>>> network = solution.to_network()                    # doctest: +SKIP

The theory, in one convention, is the docstring of `hamshoot.theory.hamiltonian`. Names load on
first use, so that importing the package costs neither CasADi nor numba nor matplotlib.
"""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from hamshoot.support import verbs
from hamshoot.support.version import __version__

_HOME = {
    "Activation": "problem.activations",
    "TrainingProblem": "problem.training_problem",
    "teacher_problem": "problem.training_problem",
    "open_rows": "problem.open_rows",
    "Record": "solution.solution",
    "Distance": "solution.distance",
    "Solution": "solution.solution",
    "Status": "solution.solution",
    "distance": "solution.distance",
    "DirectMultipleShooting": "methods.multiple_shooting.method",
    "DirectSingleShooting": "methods.single_shooting.method",
    "IndirectShooting": "methods.indirect.method",
    "LeakyResNet": "network.leaky_resnet",
    "Adam": "methods.descent.optimizers",
    "SGD": "methods.descent.optimizers",
    "train": "methods.descent.train",
    "solve": "study.solve",
    "Comparison": "study.compare",
    "compare": "study.compare",
    "Influence": "derivatives.influence",
    "Sensitivity": "derivatives.result",
    "influence": "derivatives.influence",
    "sensitivity": "derivatives.sensitivity",
    "Tuning": "study.tune",
    "tune": "study.tune",
    "Validation": "study.validate",
    "validate": "study.validate",
    "Sweep": "study.swept",
    "sweep": "study.sweep",
    "Certificate": "optimality.certificate",
    "certify": "optimality.certificate",
    "names": "support.names",
    "plot": "study.plot",
    "diagnose": "study.diagnose",
    "bvp": "bvp",
    "OptimalControlProblem": "bvp.optimal_control",
}
_MODULES = {"bvp", "names", "plot"}  # names that are modules themselves

__all__ = [*sorted(_HOME), "__version__"]

if TYPE_CHECKING:
    from pathlib import Path

    from hamshoot import bvp as bvp
    from hamshoot.bvp.optimal_control import OptimalControlProblem as OptimalControlProblem
    from hamshoot.derivatives.influence import Influence as Influence
    from hamshoot.derivatives.influence import influence as influence
    from hamshoot.derivatives.result import Sensitivity as Sensitivity
    from hamshoot.derivatives.sensitivity import sensitivity as sensitivity
    from hamshoot.methods.descent.optimizers import SGD as SGD
    from hamshoot.methods.descent.optimizers import Adam as Adam
    from hamshoot.methods.descent.train import train as train
    from hamshoot.methods.indirect.method import IndirectShooting as IndirectShooting
    from hamshoot.methods.multiple_shooting.method import (
        DirectMultipleShooting as DirectMultipleShooting,
    )
    from hamshoot.methods.single_shooting.method import DirectSingleShooting as DirectSingleShooting
    from hamshoot.network.leaky_resnet import LeakyResNet as LeakyResNet
    from hamshoot.optimality.certificate import Certificate as Certificate
    from hamshoot.optimality.certificate import certify as certify
    from hamshoot.problem.activations import Activation as Activation
    from hamshoot.problem.open_rows import open_rows as open_rows
    from hamshoot.problem.training_problem import TrainingProblem as TrainingProblem
    from hamshoot.problem.training_problem import teacher_problem as teacher_problem
    from hamshoot.solution.distance import Distance as Distance
    from hamshoot.solution.distance import distance as distance
    from hamshoot.solution.solution import Record as Record
    from hamshoot.solution.solution import Solution as Solution
    from hamshoot.solution.solution import Status as Status
    from hamshoot.study import plot as plot
    from hamshoot.study.compare import Comparison as Comparison
    from hamshoot.study.compare import compare as compare
    from hamshoot.study.diagnose import diagnose as diagnose
    from hamshoot.study.solve import solve as solve
    from hamshoot.study.sweep import sweep as sweep
    from hamshoot.study.swept import Sweep as Sweep
    from hamshoot.study.tune import Tuning as Tuning
    from hamshoot.study.tune import tune as tune
    from hamshoot.study.validate import Validation as Validation
    from hamshoot.study.validate import validate as validate
    from hamshoot.support import names as names


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'hamshoot' has no attribute {name!r}{_instead(name)}")
    module = importlib.import_module(f"hamshoot.{home}")
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def _plot_resimulation(*arguments: Any, **options: Any) -> Any:
    """The figure of `hamshoot.study.second_look_panels`, loaded when it is called."""
    return importlib.import_module("hamshoot.study.second_look_panels").figure(
        *arguments, **options)


def _mesh_report(*arguments: Any, **options: Any) -> Any:
    """`hamshoot.study.mesh_report.mesh_report`, loaded when it is called."""
    return importlib.import_module("hamshoot.study.mesh_report").mesh_report(*arguments, **options)


def _instead(name: str) -> str:
    """What a name that there is not may have meant."""
    known = {"fit": "solve", "minimize": "solve", "load": "Solution.load", "Problem":
             "TrainingProblem", "verify": "certify", "Network": "LeakyResNet"}
    near = [known[name]] if name in known else get_close_matches(name, __all__, 1)
    return f"; did you mean hs.{near[0]}?" if near and not name.startswith("_") else ""


def _solve(*arguments: Any, **options: Any) -> Solution:
    """`hamshoot.solve`, loaded when it is called."""
    return __getattr__("solve")(*arguments, **options)


def _report(*arguments: Any, **options: Any) -> Path:
    """`hamshoot.report.page.report`, loaded when it is called."""
    return importlib.import_module("hamshoot.report.page").report(*arguments, **options)


def _predictive_spread(*arguments: Any, **options: Any) -> Any:
    """`hamshoot.derivatives.spread.predictive_spread`, loaded when it is called."""
    return importlib.import_module("hamshoot.derivatives.spread").predictive_spread(
        *arguments, **options)


verbs.solve, verbs.report, verbs.predictive_spread = _solve, _report, _predictive_spread
verbs.plot_resimulation, verbs.mesh_report = _plot_resimulation, _mesh_report


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
