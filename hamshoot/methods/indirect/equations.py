"""Newton's method on the shooting equations, with the systems of a midpoint model.

The unknowns are the nodes y_k = (A_k, B_k), the residuals those of the accurate flow. The Newton
systems are linear-quadratic problems (`hamshoot.methods.indirect.linear_quadratic`), solved in one
of two ways, with the same solution to rounding:

* `hamshoot.methods.indirect.riccati.RiccatiRecursion`, in the representations: with S segments,
  n = wN and m = w(w+1), S (2m + 8w) n² flops and S m n numbers to factor, quadratic in N;
* `hamshoot.methods.indirect.condensing.Condensing`, the reduced Hessian in W itself: S² m² N +
  (S m)³/3 flops and (S m)² numbers, linear in N.

`cheaper_form` chooses by these counts. (The option `form` calls the first "condensed" and the
second "control".)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.bvp.mesh import Mesh, Point, Stop
from hamshoot.bvp.newton import Newton
from hamshoot.bvp.records import BVPIteration, BVPStatus
from hamshoot.bvp.rules import Chord
from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.methods.indirect.condensing import Condensing
from hamshoot.methods.indirect.linear_quadratic import LinearQuadraticSystem
from hamshoot.methods.indirect.riccati import RiccatiRecursion
from hamshoot.problem.losses import PLAIN, Loss
from hamshoot.theory import hamiltonian as ham

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMS", "Condensing", "NewtonResult", "RiccatiRecursion", "ShootingProblem",
           "cheaper_form", "solve_shooting"]

FORMS: dict[str, type[LinearQuadraticSystem]] = {
    "condensed": RiccatiRecursion, "control": Condensing}
#: Growth of the responses from which the recursion, which is stable, is taken in any case.
MAX_GROWTH = 1e6


def cheaper_form(width: int, samples: int, segments: int, bias: bool = True) -> str:
    """Name of the cheaper way to factor, by its flops; within 4 GB.

    The recursion is paid at half the speed: much of it is passes over n × n matrices.
    """
    n, m = width * samples, width * (width + int(bias))
    recursion = 2.0 * segments * (2 * m + 8 * width) * n**2
    dense = 2.0 * segments**2 * m**2 * samples + (segments * m) ** 3 / 3
    small = 8.0 * (segments * m) ** 2 < 4e9
    return "control" if small and dense < recursion else "condensed"


@dataclass
class ShootingProblem:
    """The boundary value problem of the Hamiltonian flow, ready for shooting.

    Attributes
    ----------
    flow : HamiltonianFlow
        Accurate, and of the activation wanted.
    initial_state : ndarray, shape (w, N)
        A_0.
    readout, targets : ndarray, shape (d_out, w) and (d_out, N)
    weight_decay : float
        λ.
    endpoint : ndarray, shape (w, N), or None
        A_1 in place of the loss.
    criterion : Loss
    """

    flow: HamiltonianFlow
    initial_state: NDArray
    readout: NDArray
    targets: NDArray
    weight_decay: float
    endpoint: NDArray | None = None
    criterion: Loss = PLAIN

    def defects(self, t: NDArray, y: NDArray) -> NDArray:
        """φ_k(y_k) − y_{k+1}, shape (S, 2, w, N); NaN where the flow could not be integrated."""
        ends, _ = self.flow(t[:-1], t[1:], y[:-1].reshape(len(t) - 1, -1))
        return ends.reshape(y[1:].shape) - y[1:]

    def why_lost(self, t: NDArray, y: NDArray) -> str:
        """Why the flow does not reach the end of every segment, as a clause; "" if it does."""
        return self.flow.why_lost(t[:-1], t[1:], y[:-1].reshape(len(t) - 1, -1))

    def boundary(self, y: NDArray) -> tuple[NDArray, NDArray]:
        """What A_0 and B_1 (or A_1) lack, (w, N) each."""
        if self.endpoint is not None:
            return self.initial_state - y[0, 0], self.endpoint - y[-1, 0]
        wanted = ham.terminal_momentum(y[-1, 0], self.readout, self.targets, self.weight_decay,
                                       self.criterion)
        return self.initial_state - y[0, 0], wanted - y[-1, 1]

    def end_residuals(self, first: NDArray, last: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """The boundary function g (n,) of states (n,) for `hamshoot.bvp`, without derivatives."""
        shape = (2, 2, *self.initial_state.shape)
        start, end = self.boundary(np.stack([first, last]).reshape(shape))
        return -np.concatenate([start.ravel(), end.ravel()]), np.empty(0), np.empty(0)

    def end_units(self, scale: NDArray) -> NDArray:
        """Units (n,) of that function: the size of A, and that of B (or of A again)."""
        if self.endpoint is None:
            return scale
        half = self.initial_state.size
        return np.concatenate([scale[:half], scale[:half]])

    def terminal(self, end: NDArray) -> NDArray:
        """∂²C/∂A_1²/λ at A_1, (2/(λN)) QᵀQ of squares, else a block a sample."""
        return ham.terminal_curvature(end, self.readout, self.targets, self.weight_decay,
                                      self.criterion)

    def newton_system(
        self, t: NDArray, y: NDArray, form: str, penalty: float
    ) -> tuple[LinearQuadraticSystem, float]:
        """The model's Newton system at nodes t and states y (S + 1, 2, w, N), factored.

        Also the weight of the end's residual in its right-hand side: a hard endpoint is asked for
        as δA_1 = r − δB_1/penalty in place of δA_1 = r, so as δB_1 → 0 it is met exactly.
        """
        flow, weight = self.flow, 1.0 if self.endpoint is None else penalty
        terminal = self.terminal(y[-1, 0]) if self.endpoint is None else \
            penalty * np.eye(y.shape[2])
        data = t, y[:, 0], y[:, 1], terminal
        keywords: dict[str, Any] = dict(
            effective_depth=flow.effective_depth, activation=flow.activation, bias=flow.bias)
        width, samples = y.shape[2:]
        kind = cheaper_form(width, samples, len(t) - 1, flow.bias) if form == "auto" else form
        system = FORMS[kind](*data, **keywords)
        if form == "auto" and isinstance(system, Condensing) and not system.growth < MAX_GROWTH:
            system = FORMS["condensed"](*data, **keywords)
        return system, weight


@dataclass(frozen=True)
class NewtonResult:
    """Nodes t (S + 1,), states y (S + 1, 2, w, N), and how the iteration ended.

    `reason` is a sentence; `correction` the scaled norm of the last Newton correction; `least` and
    `definite` as in `LinearQuadraticSystem`, at the last factorisation.
    """

    t: NDArray
    y: NDArray
    success: bool
    reason: str
    iterations: int
    factorisations: int
    correction: float
    definite: bool
    least: float


def solve_shooting(
    problem: ShootingProblem,
    t: NDArray,
    y: NDArray,
    *,
    tol: float = 1e-10,
    max_iter: int = 60,
    max_nodes: int = 1600,
    minimum: bool = False,
    form: str = "auto",
    callback: Callable[[NDArray, float], None] | None = None,
) -> NewtonResult:
    """Newton's method on the shooting equations, systems of the model in place of exact ones.

    The iteration is `hamshoot.bvp.newton`, steered by `hamshoot.bvp.rules.Chord`: a factorisation
    is kept while it contracts, corrections are mixed, and segments are halved where the midpoint
    model falls short.

    Parameters
    ----------
    t, y : ndarray, shapes (S + 1,), (S + 1, 2, w, N)
        Nodes and guess.
    tol : float
        For the scaled correction, defects and boundary residuals.
    minimum : bool
        Give up at once where the second variation is not positive at the guess: it is not near a
        minimum.
    form : {"auto", "condensed", "control"}
        By a Riccati recursion, by the reduced Hessian in W, or whichever is cheaper.
    callback : callable, optional
        Called with the iterate and the scaled correction after each step; may raise.
    """
    t, y = np.array(t, dtype=float), np.array(y, dtype=float)
    half = y[0].size // 2

    def scale(y: NDArray) -> NDArray:
        size = np.abs(y.reshape(len(y), 2, -1)).max((0, 2))
        return np.repeat(np.where(size > 0, size, 1.0), half)

    def tell(record: BVPIteration, point: Point) -> None:
        if callback is not None:
            callback(point.y.reshape(-1, *y.shape[1:]), record.correction)
        if minimum and record.iteration == 1 and not systems.definite:
            raise Stop(BVPStatus.STOPPED)

    mesh = Mesh(problem.flow, problem.end_residuals, np.inf, max_nodes, units=problem.end_units,
                ride=np.inf)
    systems = ModelSystems(problem, mesh, form)
    newton = Newton(mesh, systems, Chord(), scale, tol, tell)
    end = newton.solve(t, y.reshape(len(t), -1), max_iter)
    point, history = newton.point, newton.history
    y = point.y.reshape(-1, *y.shape[1:])
    failed = end.status in (BVPStatus.NOT_FINITE, BVPStatus.SINGULAR)  # no Newton system
    if failed and callback is not None:
        callback(y, np.inf)
    reason = _REASONS.get(end.status) or \
        f"{problem.why_lost(point.t, y) or 'the Newton system is not finite'} " \
        f"at the {'last iterate' if history else 'guess'}"
    return NewtonResult(
        point.t, y, end.status is BVPStatus.CONVERGED, reason, len(history) + failed,
        systems.factorisations, history[-1].simplified if history and not failed else np.inf,
        systems.definite, systems.least,
    )


_REASONS = {
    BVPStatus.CONVERGED: "converged",
    BVPStatus.ITERATION_LIMIT: "the iteration limit came first",
    BVPStatus.STOPPED: "the second variation is not positive at the guess",
    BVPStatus.NO_DESCENT: "no damped Newton step decreases the natural level function",
    BVPStatus.SLOW: "the Newton corrections do not shrink: the guess is too far from a geodesic",
    BVPStatus.ACCURACY_LIMIT: "the corrections stopped shrinking at the accuracy of the flow",
}


class ModelSystems:
    """Newton systems of the midpoint model; a `hamshoot.bvp.newton.LinearAlgebra`.

    Attributes
    ----------
    factorisations : int
    definite, least
        As in `LinearQuadraticSystem`, at the last factorisation; False and NaN before.
    """

    growth = rcond = float("nan")

    def __init__(self, problem: ShootingProblem, mesh: Mesh, form: str):
        self.problem, self.mesh, self.form = problem, mesh, form
        self.factorisations, self.definite, self.least = 0, False, float("nan")

    def linearise(self, point: Point, scale: NDArray) -> tuple[Point, ModelSystem, NDArray]:
        """See `hamshoot.bvp.newton.LinearAlgebra`; the mesh is left as it is."""
        point = self.mesh.completed(point)
        if not point.finite.all():
            raise Stop(BVPStatus.NOT_FINITE)
        try:
            system = ModelSystem(self.problem, point.t, point.y, self.form,
                                 1e6 * float(scale[-1] / scale[0]))
        except np.linalg.LinAlgError:
            raise Stop(BVPStatus.SINGULAR) from None
        self.factorisations += 1
        self.definite, self.least = system.model.definite, system.model.least
        return point, system, system.solve(*point.lack)


class ModelSystem:
    """The Newton system of the midpoint model, for states (M, n) and residuals in one row."""

    def __init__(
        self, problem: ShootingProblem, t: NDArray, y: NDArray, form: str, penalty: float
    ):
        self.shape = (2, *problem.initial_state.shape)
        y = y.reshape(-1, *self.shape)
        self.model, self.end_weight = problem.newton_system(t, y, form, penalty)

    def solve(self, r: NDArray, g: NDArray) -> NDArray:
        """The approximate correction; see `hamshoot.bvp.records.Preconditioner`."""
        start, end = g.reshape(self.shape)
        d = self.model.solve(-r.reshape(-1, *self.shape), start, self.end_weight * end)
        return d.reshape(len(d), -1)
