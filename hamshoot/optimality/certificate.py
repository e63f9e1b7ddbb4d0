"""`certify`: check a solution from its arrays by the reference formulas alone.

Nothing of the solver's own account is taken over. Over layers the controls are rolled out, the
costate is swept back, and objective, stationarity, Hamiltonian and the second-order test follow. A
continuous path is integrated anew from node to node, by SciPy's DOP853 on the right-hand side in
`hamshoot.hamiltonian`, and the second variation is taken along what comes of it. Then the numbers
are compared with what the solution says of itself, so that a file that was tampered with is caught.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot import blockwise, discrete
from hamshoot import hamiltonian as ham
from hamshoot.activations import Activation
from hamshoot.clarke import clarke_residual
from hamshoot.optimality.second_order_layers import (
    MAX_CONTROLS,
    STATIONARY,
    SecondOrder,
    second_order,
)
from hamshoot.optimality.second_order_path import PathSecondOrder, Trajectory, path_second_order
from hamshoot.path import path_hamiltonian
from hamshoot.problem import TrainingProblem
from hamshoot.solution import Solution, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Bound(NamedTuple):
    """One check: a number, the most it may be, and whether it holds."""

    name: str
    value: float
    most: float

    @property
    def holds(self) -> bool:
        """value ≤ most; NaN does not hold."""
        return bool(self.value <= self.most)


@dataclass(frozen=True, repr=False)
class Certificate:
    """What the reference formulas say of a solution.

    Attributes
    ----------
    objective, loss, parameter_norm : float
        Of the rolled-out controls.
    defect : float
        Largest ‖A_ℓ − F(A_{ℓ−1}, W_ℓ)‖_F / max(1, ‖A_ℓ‖_F) of the stored representations; on a path
        F is the flow from the node before.
    costate_defect : float
        Largest distance of the stored momenta to the backward sweep, relative to max(1, ‖B‖_F); on
        a path, to the flow from the node before.
    boundary_residual : float
        Of the stored ends: A_0 = PXᵀ and B_1 (or the hard endpoint).
    stationarity : float
        Largest ‖W − L̃Bσ̂ᵀ‖_F / max(1, ‖W‖_F); for ReLU with the best slopes on the kink.
    clarke_residual : float
        Smallest ‖∇J(d)‖_F over the slopes d ∈ [0, 1] on the kink; ‖∇J‖_F where none is. Of a
        solution that does not store its states ‖∇J‖_F with the activation's own slopes, an upper
        bound where there are kinks; the same holds for the stationarity.
    hamiltonian, hamiltonian_drift : float
        Median along the path, and (max − min)/max(1, |median|).
    second_order : str
        Begins with "strict local minimum", "saddle" or "not decided".
    min_eigenvalue : float
        Smallest one of the reduced Hessian; NaN when not computed. Over layers in the plain inner
        product of the controls (L, w, w+1); on a path in ∫⟨V, V′⟩dp, where it is extrapolated in
        the mesh. Divided by ρ, the eigenvalues of equal layers tend to those of the path.
    kinks : int
        Hidden entries on the kink of ReLU.
    bounds : tuple of Bound
        Each bound asked for, and whether it holds.
    """

    objective: float
    loss: float
    parameter_norm: float
    defect: float
    costate_defect: float
    boundary_residual: float
    stationarity: float
    clarke_residual: float
    hamiltonian: float
    hamiltonian_drift: float
    second_order: str
    min_eigenvalue: float
    kinks: int
    bounds: tuple[Bound, ...]

    @property
    def holds(self) -> bool:
        """Whether every bound holds."""
        return all(bound.holds for bound in self.bounds)

    @property
    def failures(self) -> tuple[Bound, ...]:
        """The bounds that do not hold."""
        return tuple(bound for bound in self.bounds if not bound.holds)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields; None stands for NaN and infinity."""
        values: dict[str, Any] = {
            k: v for k, v in vars(self).items() if k != "bounds"
        }
        for name, value in values.items():
            if isinstance(value, float) and not np.isfinite(value):
                values[name] = None
        values["holds"] = self.holds
        values["bounds"] = [
            {"name": b.name, "value": b.value if np.isfinite(b.value) else None, "most": b.most,
             "holds": b.holds}
            for b in self.bounds
        ]
        return values

    def __repr__(self) -> str:
        lines = [
            "Certificate: " + ("every bound holds" if self.holds else "NOT certified"),
            f"  objective     {self.objective:.12g}",
            f"  stationarity  {self.stationarity:.2e}   kinks {self.kinks}",
            f"  Hamiltonian   {self.hamiltonian:.8g}, drift {self.hamiltonian_drift:.1e}",
            f"  second order  {self.second_order}",
        ]
        for b in self.bounds:
            lines.append(f"  {'ok  ' if b.holds else 'FAIL'} {b.name:<42} {b.value:9.2e} "
                         f"<= {b.most:.1e}")
        return "\n".join(lines)


def certify(
    solution: Solution,
    *,
    stationarity: float | None = None,
    defect: float = 1e-9,
    boundary_residual: float = 1e-8,
    drift: float = 1e-8,
    agreement: float = 1e-9,
    second_order: bool = True,
    max_controls: int = MAX_CONTROLS,
) -> Certificate:
    """Check a solution independently of the solver that found it.

    Parameters
    ----------
    solution : Solution
        Over Euler or RK4 layers, or a continuous path. A path of a ReLU network that was smoothed
        is checked as the path of the smoothed flow that it claims to be.
    stationarity : float, optional
        Bound asked of the stationarity. Default 1e-6 for a solution that claims to have converged;
        no bound for one that does not claim it.
    defect, boundary_residual : float
        Bounds on the stored arrays.
    drift : float
        Bound on the Hamiltonian drift of a continuous path, which conserves H; layers do only up to
        O(1/L) and get no bound.
    agreement : float
        Largest relative difference between recomputed and recorded objective, loss, norm and
        stationarity.
    second_order : bool
        Run the second-order test where it applies: Euler layers with the soft loss, and continuous
        paths with the soft loss or a hard endpoint.
    max_controls : int
        Size up to which the dense test over layers runs; the limit for paths is
        `hamshoot.optimality.second_order_path.MAX_NUMBERS`.

    Returns
    -------
    Certificate
        Cost: two sweeps, the Clarke residual, and the dense test of
        `hamshoot.optimality.second_order_layers`. On a path the integration anew, and the test of
        `hamshoot.optimality.second_order_path`. A solution that does not store its states is
        evaluated over blocks of samples; with nothing stored there is no defect to be found.
    """
    problem, W, steps = solution.problem, solution.weights, solution.steps
    if steps is None:
        return _certify_path(solution, stationarity, defect, boundary_residual, drift, agreement,
                             second_order)
    if not solution.stored:
        return _certify_by_blocks(solution, stationarity, agreement, second_order, max_controls)
    terminal = solution.momenta[-1] if problem.hard_endpoint else None
    A = discrete.roll_out(problem, W, steps, solution.integrator)
    J, loss, norm = discrete.objective(problem, A[-1], W, steps)
    slopes, kinks, clarke = None, 0, float("nan")
    if problem.activation == "relu" and solution.integrator == "euler" and np.isfinite(J):
        result = clarke_residual(problem, A, W, steps, terminal=terminal)
        slopes, kinks, clarke = result.slopes, int(result.on_kink.sum()), result.residual
    B, gradient = discrete.costates(problem, A, W, steps, solution.integrator, terminal, slopes)
    if np.isnan(clarke):
        scale = problem.weight_decay / problem.effective_depth * steps[:, None, None]
        clarke = float(np.linalg.norm(scale * gradient))
    measured = {"objective": J, "loss": loss, "parameter_norm": norm,
                "stationarity": discrete.stationarity(W, gradient)}
    H = path_hamiltonian(solution.replace(representations=A, momenta=B))
    verdict = _second_order(solution, second_order, max_controls)
    stored = {
        "defect": _defect(solution),
        "costate_defect": _relative(solution.momenta, B),
        "boundary_residual": discrete.boundary_residual(
            problem, solution.representations, solution.momenta
        ),
    }
    bounds = [
        Bound("defect of the representations", stored["defect"], defect),
        Bound("defect of the momenta", stored["costate_defect"], max(defect, 1e-7)),
        Bound("boundary residual", stored["boundary_residual"], boundary_residual),
        *_agreement(solution, measured, agreement),
    ]
    bounds += _stationary(solution, measured["stationarity"], stationarity)
    return Certificate(
        **measured, **stored, clarke_residual=clarke, hamiltonian=float(np.median(H)),
        hamiltonian_drift=float(ham.hamiltonian_drift(H)), second_order=verdict.verdict,
        min_eigenvalue=verdict.min_eigenvalue, kinks=kinks, bounds=tuple(bounds),
    )


def _certify_by_blocks(
    solution: Solution, stationarity: float | None, agreement: float, second_order: bool,
    max_controls: int,
) -> Certificate:
    """The same where states are not stored: from the controls alone, by blocks of samples."""
    problem, W, steps = solution.problem, solution.weights, solution.steps
    sums = blockwise.evaluate(problem, W, steps, solution.integrator)
    measured = {"objective": sums.objective, "loss": sums.loss,
                "parameter_norm": sums.parameter_norm,
                "stationarity": discrete.stationarity(W, sums.gradient)}
    verdict = _second_order(solution, second_order, max_controls)
    bounds = [*_agreement(solution, measured, agreement),
              *_stationary(solution, measured["stationarity"], stationarity)]
    return Certificate(
        **measured, defect=0.0, costate_defect=0.0, boundary_residual=0.0,
        clarke_residual=blockwise.gradient_norm(problem, steps, sums.gradient),
        hamiltonian=float(np.median(sums.hamiltonian)),
        hamiltonian_drift=float(ham.hamiltonian_drift(sums.hamiltonian)),
        second_order=verdict.verdict, min_eigenvalue=verdict.min_eigenvalue, kinks=sums.kinks,
        bounds=tuple(bounds),
    )


def _certify_path(
    solution: Solution, stationarity: float | None, defect: float, boundary_residual: float,
    drift: float, agreement: float, second_order: bool,
) -> Certificate:
    """The same for a continuous path: integrate it anew, node to node."""
    problem, A, B, nan = solution.problem, solution.representations, solution.momenta, float("nan")
    epsilon = solution.extra.get("epsilon")
    sigma = problem.sigma.smoothed(epsilon) if epsilon else problem.sigma
    settings = {"effective_depth": problem.effective_depth, "bias": problem.bias}
    ends_A, ends_B, norm, trajectory = _integrate(solution, sigma)
    loss = 0.0 if problem.hard_endpoint else \
        float(ham.loss(A[-1], problem.readout, problem.targets))
    nodes = list(zip(solution.weights, A, B, strict=True))
    gradient, own = (
        np.array([w - ham.control(a, b, activation=used, **settings) for w, a, b in nodes])
        for used in (problem.sigma, sigma)
    )
    measured = {
        "objective": loss + problem.weight_decay / (2 * problem.effective_depth) * norm,
        "loss": loss, "parameter_norm": norm,
        "stationarity": discrete.stationarity(solution.weights, gradient),
    }
    stored = {
        "defect": _relative(A[1:], ends_A), "costate_defect": _relative(B[1:], ends_B),
        "boundary_residual": discrete.boundary_residual(problem, A, B),
    }
    follows = discrete.stationarity(solution.weights, own)
    verdict = _path_second_order(problem, sigma, trajectory, second_order,
                                 {"control": follows, **stored})
    H = np.array([ham.hamiltonian(a, b, activation=sigma, **settings)
                  for a, b in zip(A, B, strict=True)])
    moved = float(ham.hamiltonian_drift(H))
    bounds = [
        Bound("defect of the representations", stored["defect"], defect),
        Bound("defect of the momenta", stored["costate_defect"], max(defect, 1e-7)),
        Bound("boundary residual", stored["boundary_residual"], boundary_residual),
        Bound("controls against L̃Bσ̂(A)ᵀ", follows, defect),
        *_agreement(solution, measured, agreement),
        *_stationary(solution, measured["stationarity"], stationarity),
    ]
    if solution.success:
        bounds.append(Bound("Hamiltonian drift", moved, drift))
    return Certificate(
        **measured, **stored, clarke_residual=nan, hamiltonian=float(np.median(H)),
        hamiltonian_drift=moved, second_order=verdict.verdict,
        min_eigenvalue=verdict.min_eigenvalue, kinks=0, bounds=tuple(bounds),
    )


def _path_second_order(
    problem: TrainingProblem, sigma: Activation, trajectory: Trajectory, wanted: bool,
    residuals: dict[str, float],
) -> PathSecondOrder:
    """The test, if asked for and if the path is an extremal to begin with."""
    nan = float("nan")
    if not wanted:
        return PathSecondOrder("not decided: not asked for", nan, nan, 0)
    name, worst = max(residuals.items(), key=lambda item: np.nan_to_num(item[1], nan=np.inf))
    if not worst <= STATIONARY:
        name = name.replace("_", " ")
        return PathSecondOrder(f"not decided: not an extremal ({name} {worst:.1e})", nan, nan, 0)
    return path_second_order(problem, sigma, trajectory, trajectory.breaks)


def _integrate(
    solution: Solution, sigma: Activation
) -> tuple[NDArray, NDArray, float, Trajectory]:
    """Ends A and B of every interval, from its stored left node, ∫‖W‖² dp, and all between."""
    from scipy.integrate import solve_ivp

    problem, p = solution.problem, solution.p
    shape = problem.initial_state.shape
    n = shape[0] * shape[1]
    settings = {"effective_depth": problem.effective_depth, "activation": sigma,
                "bias": problem.bias}

    def rates(_: float, y: NDArray) -> NDArray:
        a, b = y[:n].reshape(shape), y[n:-1].reshape(shape)
        dA, dB = ham.flow(a, b, **settings)
        return np.concatenate([dA.ravel(), dB.ravel(),
                               [np.sum(ham.control(a, b, **settings) ** 2)]])

    ends, pieces, norm = [], [], 0.0
    for k in range(len(p) - 1):
        y = np.concatenate([solution.representations[k].ravel(), solution.momenta[k].ravel(), [0]])
        span = (p[k], p[k + 1])
        piece = solve_ivp(rates, span, y, method="DOP853", rtol=1e-11, atol=1e-12,
                          dense_output=True)
        end = piece.y[:, -1]
        pieces.append(piece.sol)
        ends.append(end[:-1].reshape(2, *shape))
        norm += float(end[-1])
    A, B = np.array(ends).swapaxes(0, 1)
    return A, B, norm, Trajectory(pieces, shape)


def _stationary(solution: Solution, measured: float, most: float | None) -> list[Bound]:
    """The bound on stationarity: the one asked for, or 1e-6 for who claims to have converged."""
    if most is None and solution.success and solution.status is Status.CONVERGED:
        most = 1e-6
    return [] if most is None else [Bound("stationarity", measured, most)]


def _second_order(solution: Solution, wanted: bool, max_controls: int) -> SecondOrder:
    nan = float("nan")
    if not wanted:
        return SecondOrder("not decided: not asked for", nan, (nan, nan))
    if solution.integrator != "euler":
        return SecondOrder("not decided: the test is for Euler layers", nan, (nan, nan))
    return second_order(solution.problem, solution.weights, solution.steps, max_controls)


def _defect(solution: Solution) -> float:
    """Largest one-step defect of the stored representations."""
    A, worst = solution.representations, 0.0
    for k in range(len(solution.steps)):
        step = discrete.roll_out(
            solution.problem, solution.weights[k : k + 1], solution.steps[k : k + 1],
            solution.integrator, initial_state=A[k],
        )[-1]
        worst = max(worst, np.linalg.norm(A[k + 1] - step) / max(1.0, np.linalg.norm(A[k + 1])))
    return float(worst)


def _relative(stored: NDArray, recomputed: NDArray) -> float:
    return float(max(
        np.linalg.norm(a - b) / max(1.0, np.linalg.norm(b))
        for a, b in zip(stored, recomputed, strict=True)
    ))


def _agreement(solution: Solution, measured: dict[str, float], most: float) -> list[Bound]:
    """Recorded against recomputed numbers."""
    recorded = {"objective": solution.objective, "loss": solution.loss,
                "parameter_norm": solution.parameter_norm, "stationarity": solution.stationarity}
    return [
        Bound(f"recorded against recomputed {name.replace('_', ' ')}",
              abs(recorded[name] - value) / max(1.0, abs(value)), most)
        for name, value in measured.items()
    ]
