"""`SolvedNodes`: what a solver found, checked; states that are not stored are computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.status import Record, Status
from hamshoot.support.checks import check_real
from hamshoot.theory import blockwise

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTEGRATORS = ("euler", "rk4", "flow")
#: What a layered solution may leave to be computed.
STATES = ("representations", "momenta")


#: Attributes that people look for, and what has them.
ELSEWHERE = {
    "predict": "solution.to_network().predict(X)", "plot": "hs.plot.figure(solution)",
    "certify": "hs.certify(solution)", "network": "solution.to_network()",
    "A": "solution.representations", "B": "solution.momenta", "W": "solution.weights",
    "J": "solution.objective", "H": "solution.hamiltonian", "costates": "solution.momenta",
    "converged": "solution.success", "epochs": "solution.nit",
}


@dataclass(frozen=True, eq=False, repr=False)
class SolvedNodes:
    """Controls and states at the nodes, and the solver's own account of them. Immutable.

    The fields are described in `hamshoot.Solution`, which adds what follows from them.
    """

    problem: TrainingProblem
    p: NDArray
    representations: NDArray | Any  # in the constructor also None: computed when it is read
    momenta: NDArray | Any
    weights: NDArray
    objective: float
    loss: float
    parameter_norm: float
    success: bool
    status: Status
    message: str
    nit: int
    residuals: dict[str, float]
    history: tuple[Record, ...]
    seconds: float
    method: str
    integrator: str = "euler"
    steps: NDArray | None = None
    kinks: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    idle_kinks: int = 0
    epsilon: float | None = None

    def __post_init__(self) -> None:
        for name in ("p", "representations", "momenta", "weights", "steps"):
            value = getattr(self, name)
            if value is not None:
                check_real(name, value)
                value = np.ascontiguousarray(value, dtype=float)
                value = value.view()
                value.setflags(write=False)
                object.__setattr__(self, name, value)
        object.__setattr__(self, "history", tuple(self.history))
        _check_shapes(self)
        for name in STATES:
            if getattr(self, name) is None:
                object.__delattr__(self, name)  # __getattr__ is asked for it from now on

    def __getattr__(self, name: str) -> Any:
        """States that are not stored."""
        if name not in STATES or "weights" not in vars(self):
            instead = f"; see {ELSEWHERE[name]}" if name in ELSEWHERE else ""
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{instead}")
        computed = vars(self).setdefault("_computed", {})
        if name not in computed:
            computed[name] = self._compute(name)
            computed[name].setflags(write=False)
        return computed[name]

    def _compute(self, name: str) -> NDArray:
        assert self.steps is not None  # of a path the states are stored
        controls = (self.problem, self.weights, self.steps, self.integrator)
        if name == "representations":
            return blockwise.states(*controls)
        return blockwise.costates(*controls, self.representations if self.kinks else None)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_computed"}

    @property
    def layers(self) -> int | None:
        """L of a layered solution, None for a continuous path."""
        return None if self.steps is None else len(self.steps)

    @property
    def stored(self) -> bool:
        """Whether representations and momenta are stored, not computed when asked for."""
        return all(name in vars(self) for name in STATES)


def _check_shapes(solution: SolvedNodes) -> None:
    """Raise ValueError for arrays that do not belong together."""
    problem = solution.problem
    nodes = len(solution.p)
    state = (nodes, problem.width, problem.n_samples)
    for name in STATES:
        if getattr(solution, name) is None:
            if solution.steps is None or problem.hard_endpoint:
                what = "a continuous path" if solution.steps is None else "a hard endpoint"
                raise ValueError(f"{name}: {what} has to store them, got none")
            continue
        if getattr(solution, name).shape != state:
            raise ValueError(
                f"{name}: expected shape {state}, got {getattr(solution, name).shape}"
            )
    count = nodes if solution.steps is None else len(solution.steps)
    weights = (count, *problem.control_shape)
    if solution.weights.shape != weights:
        raise ValueError(f"weights: expected shape {weights}, got {solution.weights.shape}")
    if solution.steps is not None and nodes != count + 1:
        raise ValueError(f"p: expected {count + 1} nodes for {count} layers, got {nodes}")
    if solution.integrator not in INTEGRATORS:
        raise ValueError(
            f"integrator: expected one of {', '.join(INTEGRATORS)}, got {solution.integrator!r}"
        )
    if (solution.integrator == "flow") != (solution.steps is None):
        what = "flow on a continuous path" if solution.steps is None else "euler or rk4 over layers"
        raise ValueError(f"integrator: expected {what}, got {solution.integrator!r}")
