"""`Solution`: what a solver returns, and what follows from it; saved and loaded whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from hamshoot.solution import printed, saved
from hamshoot.solution.labelled import dataset
from hamshoot.solution.notebook import shown
from hamshoot.solution.second_look import SecondLook
from hamshoot.solution.solved_nodes import STATES
from hamshoot.solution.status import Callback, Record, Status
from hamshoot.support import verbs
from hamshoot.theory import hamiltonian as ham

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from hamshoot.theory.energies import PathEnergies

__all__ = ["Callback", "Record", "Solution", "Status"]

#: Fields that the Hamiltonian does not depend on.
NUMBERS = {"objective", "loss", "parameter_norm", "success", "status", "message", "nit",
           "residuals", "history", "seconds", "method", "kinks", "idle_kinks"}


@dataclass(frozen=True, eq=False, repr=False)
class Solution(SecondLook):
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
    success, status : bool, Status
    message : str
        The status, with numbers and advice.
    nit : int
        Iterations, all stages together.
    residuals : dict of str to float
        `stationarity`, `defect`, `boundary_residual`, `hamiltonian_drift` and the solver's own.
    history : tuple of Record
        At most a thousand: of more iterations the first, the last fifty, the lowest, and a
        selection of the rest (`methods.common.watch.thinned`), numbered among all `nit`.
    seconds, method : float, str
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
    epsilon : float, optional
        ε of the smooth ReLU that a continuous path obeys, 0 for that of the problem itself; None
        over layers.
    """

    # -- quantities --------------------------------------------------------------------------------

    @property
    def stationarity(self) -> float:
        """The largest ‖W − L̃Bσ̂(A)ᵀ‖_F / max(1, ‖W‖_F) over the nodes.

        On a continuous path W is computed from A and B, so that it is 0 whatever they are (the gap
        to the plain ReLU where that was smoothed): there the residuals `defect` and
        `boundary_residual` tell what was solved.
        """
        return self.residuals.get("stationarity", float("nan"))

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
        return dataset(self, self.hamiltonian, self.summary())

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
            "loss": self.loss, "loss_function": str(self.problem.criterion),
            "parameter_norm": self.parameter_norm, **printed.map_numbers(self),
            "test_error": self.test_error(),
            "stationarity": self.stationarity,
            "defect": self.residuals.get("defect"),
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
        rows = (f"  {name:<13} {text}" for name, text in self._rows())
        return "\n".join((f"Solution of {self.problem!r}", *rows))

    def _repr_html_(self) -> str:
        """What a notebook shows: the rows of `repr`."""
        return shown(f"Solution of {self.problem!r}", bool(self.success), self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        fits = ham.is_dimension(self.bottleneck_rank, self.problem.width)
        rank = f"{self.bottleneck_rank:.4g}{'' if fits else ' (no dimension)'}"
        return printed.rows(self, self.hamiltonian, self.hamiltonian_drift, rank)

    def report(self, path: str | PathLike, *, title: str | None = None, second_order: bool = True
               ) -> Path:
        """Write one self-contained HTML page that shows the solution; see `hamshoot.report.page`.

        Returns
        -------
        Path
            The file written; `.html` is added when the name has no suffix.
        """
        return verbs.report(self, path, title=title, second_order=second_order)

    def predictive_spread(self, X: ArrayLike, *, noise: float | None = None) -> Any:
        """Predictions for rows X (K, d_in), with standard deviations of network and noise.

        By the linearised Laplace approximation at a minimum over layers; how well that is
        calibrated, and all else, is in `hamshoot.derivatives.spread.predictive_spread`.

        Returns
        -------
        hamshoot.derivatives.spread.PredictiveSpread
        """
        return verbs.predictive_spread(self, X, noise=noise)

    # -- persistence -------------------------------------------------------------------------------

    def save(self, path: str | PathLike | None = None) -> Path:
        """Write the solution, its problem and its history to an .npz file, whole or not at all.

        States that are not stored are left out; `load` brings back a solution that computes them.
        Memory-mapped data of more than `hamshoot.problem.memory_map.MEMORY_BYTES` in double
        precision are left in their files as well: what is written is their absolute paths and
        sizes, and `load` maps them again.

        Returns
        -------
        Path
            The file written; `.npz` is added when the name has no suffix.

        Raises
        ------
        TypeError
            Without a name.
        """
        return saved.save(self, saved.checked_path(path))

    @classmethod
    def load(cls, path: str | PathLike) -> Solution:
        """Read a solution back.

        Raises
        ------
        ValueError
            For a missing, truncated or foreign file, and for data that are no longer where the
            solution refers to, in one sentence.
        """
        return saved.load(path, cls)


def _json_number(value: Any) -> Any:
    """Strict JSON has no NaN or infinity: None stands for them."""
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value
