"""`Solution`: what a solver returns, with a `Status` that is a sentence; saved and loaded whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.network.leaky_resnet import LeakyResNet
from hamshoot.network.path import (
    PathPoint,
    energies_along,
    interpolate,
    path_hamiltonian,
    stable_hamiltonians,
)
from hamshoot.problem.memory_map import MissingMap
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.files import load_npz, write_whole
from hamshoot.support.version import __version__
from hamshoot.theory import blockwise
from hamshoot.theory import hamiltonian as ham

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.activations import Activation
    from hamshoot.theory.energies import PathEnergies

FORMAT = 1
INTEGRATORS = ("euler", "rk4", "flow")
#: What a layered solution may leave to be computed.
STATES = ("representations", "momenta")
#: Fields that the Hamiltonian does not depend on.
NUMBERS = {"objective", "loss", "parameter_norm", "success", "status", "message", "nit",
           "residuals", "history", "seconds", "method", "kinks", "idle_kinks"}


class Status(Enum):
    """How a solver ended; the value is the sentence a user reads."""

    CONVERGED = "A stationary point was found to the tolerance asked for."
    SMOOTHED = (
        "A stationary point of the smoothed network was found to the tolerance asked for; "
        "the ReLU network itself is stationary only as far as the stationarity reported."
    )
    FLAT = (
        "The gradient is small against that of the path fit (gradient_tol) and J hardly falls any "
        "more; "
        "the network is close to a stationary point, not at one. Continue from this solution, or "
        "use a smaller gradient_tol, to go further."
    )
    TRAINED = "Gradient descent ran all its epochs; it does not aim at a stationary point."
    MAX_ITER = "The iteration limit came first; raise max_iter or continue from this solution."
    TIME_LIMIT = "The time limit came first; raise time_limit or continue from this solution."
    INTERRUPTED = "Stopped on request; the best iterate is kept and can be continued from."
    STALLED = "No further decrease could be found; try another start or seed, or a looser tol."
    SADDLE = (
        "The point is stationary and no minimum: J falls along a direction that the certificate "
        "names, but no stationary point below was reached from there. Try another seed."
    )
    UNSETTLED = (
        "The activations on the kink did not settle; the last smooth network is kept. "
        "Try a smaller last epsilon or another seed."
    )
    COLLAPSED = (
        "The network collapsed to a trivial solution, the same output for all samples (A_1 ≈ 0, "
        "or the mean of the targets); try start='path' or "
        "start='identity', more starts, or a smaller weight_decay."
    )
    INFEASIBLE = (
        "The endpoint could not be reached; check that it lies in reach of the network, "
        "or try another start."
    )
    DIVERGED = "Numbers became non-finite; use a smaller learning rate, or more layers."

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Record:
    """One iteration, as callbacks receive it and histories keep it.

    Attributes
    ----------
    iteration : int
        Counted through all stages.
    objective : float
        J of the rolled-out network (with the smoothing of the stage).
    stationarity : float
        The solver's own measure of the stage; NaN where it has none.
    seconds : float
        Since the solve began.
    stage : str
        For example "start 2/5, epsilon 0.025".
    """

    iteration: int
    objective: float
    stationarity: float
    seconds: float
    stage: str = ""


#: Receives a record per iteration; returning True asks the solver to stop and keep its best.
Callback = Callable[[Record], "bool | None"]


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """An optimal path, or the best iterate of a solver that did not converge. Immutable.

    Attributes
    ----------
    problem : TrainingProblem
    p : ndarray, shape (M,)
        Nodes in [0, 1]; an L-layer network has M = L + 1.
    representations : ndarray, shape (M, w, N)
        A at the nodes, one column a sample.
    momenta : ndarray, shape (M, w, N)
        Costate B at the nodes, scaled as B = −(1/λ) ∂C/∂A. Representations and momenta of a layered
        network are not stored where they are more than `hamshoot.theory.blockwise.MOST_STORED`
        numbers each (None in the constructor): they are computed from the controls on first access,
        and `save` leaves them out. Everything else here is known without them, `spectra`,
        `energies`, `at` and `to_xarray` excepted.
    weights : ndarray, shape (L, w, w+1) over layers, (M, w, w+1) at the nodes of a continuous path
        Last column the bias; without bias (…, w, w).
    objective, loss, parameter_norm : float
        J of the rolled-out network, its loss (1/N)‖QA_1 − Yᵀ‖², and ∫‖W_p‖_F² dp.
    success : bool
    status : Status
    message : str
        The status, with numbers and advice.
    nit : int
        Iterations, all stages together.
    residuals : dict of str to float
        `stationarity`, `defect`, `boundary_residual`, `hamiltonian_drift` and the solver's own.
    history : tuple of Record
    seconds : float
    method : str
    integrator : {"euler", "rk4", "flow"}
    steps : ndarray, shape (L,), or None
        Layer steps ρ of a layered solution.
    kinks : int
        Entries of the hidden representations on the kink of ReLU.
    extra : dict
        The method's own numbers. Of a layered optimum "second_order", the verdict of the
        second-order test with which the solve ended, and "escape_objectives", J of the stationary
        points that it left because they were no minima, and of the last.
    idle_kinks : int
        Those entries on the kink whose neuron no weight reads: of dead neurons.
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

    def __post_init__(self) -> None:
        for name in ("p", "representations", "momenta", "weights", "steps"):
            value = getattr(self, name)
            if value is not None:
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
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        computed = vars(self).setdefault("_computed", {})
        if name not in computed:
            computed[name] = self._compute(name)
            computed[name].setflags(write=False)
        return computed[name]

    def _compute(self, name: str) -> NDArray:
        controls = (self.problem, self.weights, self.steps, self.integrator)
        if name == "representations":
            return blockwise.states(*controls)
        return blockwise.costates(*controls, self.representations if self.kinks else None)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_computed"}

    @property
    def stored(self) -> bool:
        """Whether representations and momenta are stored, not computed when asked for."""
        return all(name in vars(self) for name in STATES)

    # -- quantities --------------------------------------------------------------------------------

    @property
    def layers(self) -> int | None:
        """L of a layered solution, None for a continuous path."""
        return None if self.steps is None else len(self.steps)

    @property
    def stationarity(self) -> float:
        """The largest ‖W − L̃Bσ̂(A)ᵀ‖_F / max(1, ‖W‖_F) over the nodes."""
        return self.residuals.get("stationarity", float("nan"))

    @property
    def activation(self) -> Activation:
        """σ the path obeys: the problem's, or the smooth ReLU of a path solved with extra ε."""
        epsilon = self.extra.get("epsilon") if self.steps is None else None
        return self.problem.sigma.smoothed(epsilon) if epsilon else self.problem.sigma

    @cached_property
    def hamiltonian(self) -> NDArray:
        """H along the path: (L,) at (A_{ℓ−1}, B_ℓ) over Euler layers, else (M,) at the nodes.

        A path of a smoothed network (see `activation`) has the H of that network.
        """
        return path_hamiltonian(self)

    @property
    def hamiltonian_drift(self) -> float:
        """(max H − min H) / max(1, |median H|) along the path."""
        return float(ham.hamiltonian_drift(self.hamiltonian))

    @property
    def bottleneck_rank(self) -> float:
        """−2 median(H)/L̃, the estimate of the bottleneck rank from below."""
        return float(ham.bottleneck_rank(self.hamiltonian, self.problem.effective_depth))

    @cached_property
    def stable_bottleneck_rank(self) -> float:
        """Median of −2(kinetic + potential energy)/L̃, the stable versions with γ₀ = 1e-3.

        The bottleneck rank from A and ∂_pA of the layers, without the costate: it describes
        networks far from stationary too, for which `bottleneck_rank` may be any number. (On a
        continuous path ∂_pA is that of the flow, where A and B say the same.) NaN where the states
        are not stored. Costs O(L(w²N + w³)), once.
        """
        if not self.stored or not np.isfinite(self.objective):
            return float("nan")
        H = stable_hamiltonians(self, 1e-3)
        return float(-2 * np.median(H) / self.problem.effective_depth)

    def energies(self, gamma0: float = 1e-3) -> PathEnergies:
        """Hamiltonian, kinetic and potential energy and cost of identity along the path.

        Parameters
        ----------
        gamma0 : float
            The stable versions use γ_p = γ₀‖σ̂(A_p)‖²_op.
        """
        return energies_along(self, gamma0)

    def spectra(self) -> tuple[NDArray, NDArray]:
        """Singular values of A_p, (M, min(w, N)), and of W_p, (len(weights), w), descending."""
        return (
            np.linalg.svd(self.representations, compute_uv=False),
            np.linalg.svd(self.weights, compute_uv=False),
        )

    def at(self, p: float | NDArray) -> PathPoint:
        """The path at depth p, between the nodes too; see `hamshoot.network.path.interpolate`."""
        return interpolate(self, p)

    def test_error(self) -> float | None:
        """Mean squared error on the held-out samples (in scaled units), None without them."""
        if self.problem.X_test is None:
            return None
        return self.to_network().test_error(self.problem)

    def to_network(self, layers: int | None = None, steps: str | NDArray | None = None
                   ) -> LeakyResNet:
        """Leaky ResNet built from the path; see `LeakyResNet.from_solution`."""
        return LeakyResNet.from_solution(self, layers=layers, steps=steps)

    def to_xarray(self) -> Any:
        """Labelled arrays, for those who have xarray (the extra of that name).

        Returns
        -------
        xarray.Dataset
            `representations` and `momenta` over (p, neuron, sample), `weights` over (layer, or p
            on a continuous path; neuron, input), `hamiltonian` over its own depths; the numbers of
            `summary()` as attributes.

        Raises
        ------
        ImportError
            Saying what to install, without xarray.
        """
        try:
            import xarray
        except ImportError:
            raise ImportError(
                'to_xarray needs xarray; install it with: pip install "hamshoot[xarray]"'
            ) from None
        layers = "p" if self.steps is None else "layer"
        inputs = [*map(str, range(self.problem.width)), "bias"][: self.weights.shape[2]]
        variables = {
            "representations": (("p", "neuron", "sample"), self.representations),
            "momenta": (("p", "neuron", "sample"), self.momenta),
            "weights": ((layers, "neuron", "input"), self.weights),
        }
        coordinates: dict[str, Any] = {"p": self.p, "input": inputs}
        if self.steps is not None:
            coordinates["layer"] = np.arange(1, len(self.steps) + 1)
            variables["steps"] = (("layer",), self.steps)
        on = layers if len(self.hamiltonian) != len(self.p) else "p"
        variables["hamiltonian"] = ((on,), self.hamiltonian)
        return xarray.Dataset(variables, coordinates, attrs=self.summary())

    def replace(self, **changes: Any) -> Solution:
        """Return a copy with some fields changed; states that were not stored are not stored."""
        absent = {name: None for name in STATES if name not in vars(self)}
        copy = replace(self, **{**absent, **changes})
        known = vars(self).get("hamiltonian")
        if known is not None and not set(changes) - NUMBERS:
            vars(copy)["hamiltonian"] = known
        return copy

    # -- reading -----------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """Fields of `summary.json`, JSON-ready; absent numbers are None."""
        values = {
            "success": bool(self.success),
            "status": self.status.name.lower(),
            "message": self.message,
            "method": self.method,
            "layers": self.layers,
            "objective": self.objective,
            "loss": self.loss,
            "parameter_norm": self.parameter_norm,
            "test_error": self.test_error(),
            "stationarity": self.stationarity,
            "boundary_residual": self.residuals.get("boundary_residual"),
            "hamiltonian": float(np.median(self.hamiltonian)),
            "hamiltonian_drift": self.hamiltonian_drift,
            "bottleneck_rank": self.bottleneck_rank,
            "stable_bottleneck_rank": self.stable_bottleneck_rank,
            "kinks": int(self.kinks),
            "idle_kinks": int(self.idle_kinks),
            "second_order": self.extra.get("second_order"),
            "iterations": int(self.nit),
            "seconds": self.seconds,
        }
        return {k: _json_number(v) for k, v in values.items()}

    def __repr__(self) -> str:
        rows = [
            ("method", self.method + (f", {self.layers} layers" if self.layers else "")),
            ("status", f"{self.status.name.lower()}: {self.message}"),
            ("objective", f"{self.objective:.10g}  (loss {self.loss:.6g}, "
                          f"∫‖W‖² {self.parameter_norm:.6g})"),
            ("stationarity", f"{self.stationarity:.2e}"),
            ("Hamiltonian", f"{np.median(self.hamiltonian):.8g}, drift "
                            f"{self.hamiltonian_drift:.1e}, rank {self.bottleneck_rank:.4g}"),
            ("effort", f"{self.nit} iterations, {self.seconds:.2f} s"),
        ]
        return "\n".join([f"Solution of {self.problem!r}"] + [f"  {k:<13} {v}" for k, v in rows])

    # -- persistence -------------------------------------------------------------------------------

    def save(self, path: str | PathLike) -> Path:
        """Write the solution, its problem and its history to an .npz file, whole or not at all.

        States that are not stored are left out; `load` brings back a solution that computes them.
        Memory-mapped data of more than `hamshoot.problem.memory_map.MEMORY_BYTES` in double
        precision are left in their files as well: what is written is their absolute paths and
        sizes, and `load` maps them again.

        Returns
        -------
        Path
            The file written; `.npz` is added when the name has no suffix.
        """
        path = Path(path)
        path = path if path.suffix else path.with_suffix(".npz")
        arrays, settings = self.problem.to_arrays()
        arrays = {f"problem.{k}": v for k, v in arrays.items()}
        for name in ("p", "representations", "momenta", "weights", "steps"):
            if vars(self).get(name) is not None:
                arrays[name] = vars(self)[name]
        names = ("objective", "loss", "parameter_norm", "success", "message", "nit", "residuals",
                 "seconds", "method", "integrator", "kinks", "idle_kinks", "extra")
        metadata = {
            "format": FORMAT,
            "package": "hamshoot",
            "version": __version__,
            "problem": settings,
            "status": self.status.name,
            "history": [asdict(record) for record in self.history],
            **{name: getattr(self, name) for name in names},
        }
        arrays["metadata"] = np.array(json.dumps(metadata, default=_plain))
        write_whole(path, lambda file: np.savez(file, **arrays))
        return path

    @classmethod
    def load(cls, path: str | PathLike) -> Solution:
        """Read a solution back.

        Raises
        ------
        ValueError
            For a missing, truncated or foreign file, and for data that are no longer where the
            solution refers to, in one sentence.
        """
        path = Path(path)
        arrays = load_npz(path)
        foreign = f"{path}: not a hamshoot solution"
        if "metadata" not in arrays:
            raise ValueError(f"{foreign} (it holds {', '.join(sorted(arrays)) or 'nothing'})")
        try:
            metadata = json.loads(str(arrays.pop("metadata")))
            version = metadata.pop("format")
            metadata.pop("package"), metadata.pop("version")
        except (json.JSONDecodeError, KeyError, AttributeError, TypeError):
            raise ValueError(f"{foreign} (its metadata cannot be read)") from None
        if version != FORMAT:
            raise ValueError(f"{path}: format {version}, this hamshoot reads format {FORMAT}")
        try:
            prefix = "problem."
            data = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            problem = TrainingProblem.from_arrays(data, metadata.pop("problem"))
            own = dict.fromkeys(STATES)
            own |= {k: v for k, v in arrays.items() if not k.startswith(prefix)}
            history = tuple(Record(**record) for record in metadata.pop("history"))
            status = Status[metadata.pop("status")]
            return cls(problem=problem, status=status, history=history, **own, **metadata)
        except MissingMap:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{foreign} ({error})") from None


def _check_shapes(solution: Solution) -> None:
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


def _json_number(value: Any) -> Any:
    """Strict JSON has no NaN or infinity: None stands for them."""
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")
