"""Names that arguments take, and options by name, as types: a checker knows them before a run.

``hs.names.ActivationName`` and its like annotate one's own code; an argument annotated so takes
nothing else in the eyes of mypy or an editor. What is checked when it runs is the same set of
names (`tests/support/test_names.py`).
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

ActivationName = Literal["relu", "smooth_relu", "linear", "leaky_relu", "smooth_leaky_relu", "tanh",
                         "softplus", "gelu"]
LossName = Literal["squared", "cross_entropy", "huber"]
#: Of `hamshoot.solve`; a hyphen may stand for each underscore.
MethodName = Literal["auto", "multiple_shooting", "single_shooting", "indirect",
                     "multiple-shooting", "single-shooting"]
#: Of layered networks.
IntegratorName = Literal["euler", "rk4"]
#: Of the Hamiltonian flow.
FlowIntegratorName = Literal["dop853", "gauss"]
NlpSolverName = Literal["ipopt", "fatrop", "sqpmethod"]
EffortName = Literal["quick", "default", "thorough"]
StartName = Literal["path", "identity", "random"]
#: Optimisers of single shooting.
OptimizerName = Literal["auto", "lbfgs", "kronecker", "gauss_newton"]
#: Forms of the shooting equations.
FormName = Literal["auto", "state", "condensed", "control"]
#: Schedules of gradient descent.
ScheduleName = Literal["constant", "decay", "cosine"]
ScalingName = Literal["columns", "varying", "common"]
#: What a step of `hamshoot.sweep` begins with.
PredictorName = Literal["secant", "tangent", "none"]
#: Functions that `DirectMultipleShooting.to_c` writes.
CFunctionName = Literal["step", "costate", "hamiltonian", "flow"]


class _MethodOptions(TypedDict, total=False):
    tol: float
    max_iter: int
    time_limit: float | None
    effort: EffortName
    workers: Any
    start: StartName | None
    starts: int | None
    noise: float | None
    epsilon: tuple[float, float, float]
    reheats: int | None
    polish: bool
    integrator: IntegratorName | FlowIntegratorName
    # of multiple shooting
    nlp_solver: NlpSolverName
    warm_up: bool
    solver_options: Any
    # of single shooting
    gradient_tol: float
    stage_iter: int
    memory: int | None
    optimizer: OptimizerName
    kink_tol: float
    checkpoint: Any
    checkpoint_every: float
    # of indirect shooting
    segments: int | None
    form: FormName
    epsilon_first: float
    epsilon_last: float
    epsilon_factor: float
    exact_relu: bool
    steps_per_segment: int
    gauss_order: int


class StudyOptions(_MethodOptions, total=False):
    """Those that `hamshoot.validate` and `hamshoot.sweep` hand on, beside arguments of theirs."""

    steps: Any


class TuneOptions(StudyOptions, total=False):
    """Those that `hamshoot.tune` hands on."""

    executor: Any


class PolishOptions(_MethodOptions, total=False):
    """Those that `hamshoot.LeakyResNet.polish` hands on; layers and steps are the network's."""

    seed: int
    executor: Any


class SolveOptions(StudyOptions, total=False):
    """Options of methods that `hamshoot.solve` hands on; see the classes of the methods."""

    seed: int
    executor: Any


IpoptOptions = TypedDict("IpoptOptions", {
    "ipopt.tol": float, "ipopt.dual_inf_tol": float, "ipopt.constr_viol_tol": float,
    "ipopt.max_iter": int, "ipopt.max_cpu_time": float, "ipopt.max_wall_time": float,
    "ipopt.print_level": int, "ipopt.sb": Literal["yes", "no"],
    "ipopt.linear_solver": Literal["mumps", "spral", "ma27", "ma57", "ma77", "ma86", "ma97",
                                   "pardiso", "custom"],
    "ipopt.hsllib": str, "ipopt.mu_init": float,
    "ipopt.mu_strategy": Literal["monotone", "adaptive"],
    "ipopt.hessian_approximation": Literal["exact", "limited-memory"],
    "ipopt.acceptable_iter": int, "ipopt.mumps_pivot_order": int,
    "ipopt.warm_start_init_point": Literal["yes", "no"], "print_time": bool, "expand": bool,
}, total=False)
"""The options of IPOPT asked for most, for one's own annotations; IPOPT takes hundreds more."""

FatropOptions = TypedDict("FatropOptions", {
    "fatrop.tol": float, "fatrop.max_iter": int, "fatrop.mu_init": float,
    "fatrop.print_level": int, "print_time": bool, "expand": bool,
}, total=False)
"""The same of fatrop."""
