"""What `hamshoot.bvp.solve` takes and returns: the flow's contract, statuses, records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from numpy.typing import NDArray


class BVPStatus(Enum):
    """How a solve ended; the value is the sentence to show."""

    CONVERGED = "The Newton correction is below the tolerance: the two-point problem is solved."
    ITERATION_LIMIT = (
        "The iteration limit was reached before the tolerance was met; allow more iterations or "
        "start closer."
    )
    TIME_LIMIT = "The time limit was reached before the tolerance was met."
    STOPPED = "The callback asked to stop before the tolerance was met."
    SINGULAR = (
        "The Newton system is numerically singular: the boundary conditions do not determine the "
        "solution near the last iterate."
    )
    NO_DESCENT = (
        "No step along the Newton direction decreases the natural level function: there is no "
        "solution, or the guess is too far from one; try continuation from an easier problem."
    )
    SLOW = (
        "The Newton corrections do not shrink from step to step: the guess is too far from a "
        "solution; try continuation from an easier problem."
    )
    NOT_FINITE = (
        "A segment cannot be integrated at the guess, as short as it may be cut, or the boundary "
        "function is not finite there; start closer, allow more nodes or check the right-hand side."
    )
    NODE_LIMIT = "The segments need to be cut further than max_nodes allows."
    ACCURACY_LIMIT = (
        "The Newton corrections stopped shrinking above the tolerance, at the accuracy of the "
        "flow; loosen the tolerance or tighten the integration."
    )


class Flow(Protocol):
    """What integrates the segments; segments are independent, so one call does them all.

    A flow may also have a method ``jvp(t0, t1, y, v) -> (S, n)`` returning Φ_k v_k for each
    segment; see `reuse` in `solve_two_point`; and a method ``why_lost(t0, t1, y) -> str`` that says
    in a clause why a segment cannot be integrated, for the message of a failure; and an attribute
    ``deadline``, the reading of `time.perf_counter` at which it is to raise
    `hamshoot.bvp.mesh.Stop` in the middle of a call.
    """

    def __call__(
        self, t0: NDArray, t1: NDArray, y: NDArray, jacobian: bool
    ) -> tuple[NDArray, NDArray | None]:
        """Integrate every segment from t0[k] to t1[k], starting at y[k].

        Parameters
        ----------
        t0, t1 : ndarray, shape (S,)
            Where each segment starts and ends.
        y : ndarray, shape (S, n)
            States at the starts.
        jacobian : bool
            Whether Φ is wanted.

        Returns
        -------
        ends : ndarray, shape (S, n)
            States at the ends; non-finite where the segment could not be integrated.  Should they
            depend on `jacobian`, the difference limits the tolerance that can be met.
        jacobians : ndarray, shape (S, n, n), or None
            Φ, element (k, i, j) is ∂ends[k, i]/∂y[k, j].  Ignored when not asked for.
        """
        ...


class Preconditioner(Protocol):
    """An approximate solver of the Newton system at an iterate."""

    def solve(self, r: NDArray, g: NDArray) -> NDArray:
        """Solve Φ_k d_k − d_{k+1} ≈ r_k (S, n) and ∂g d ≈ g (n,) for d (S + 1, n)."""
        ...


# y_0 (n,), y_S (n,) -> g (n,), ∂g/∂y_0 (n, n), ∂g/∂y_S (n, n); element (i, j) is ∂g_i/∂y_j.
Boundary = Callable[[NDArray, NDArray], tuple[NDArray, NDArray, NDArray]]


@dataclass(frozen=True)
class BVPIteration:
    """What one Newton iteration did.

    Attributes
    ----------
    iteration : int
        Counted from 1.
    nodes : int
        Nodes of the mesh the step was computed on.
    correction : float
        ‖Δy‖, the Newton correction: the largest |Δy|/scale over nodes and components.  Close to a
        solution it is the error of the iterate the iteration started from.
    simplified : float
        The same norm of the simplified correction at the iterate it ended at, the natural level.
    damping : float
        λ of the step; 0 when no step passed the test.
    order : float
        Order of convergence seen in the last three corrections, log(c₂/c₁)/log(c₁/c₀): 2 for
        Newton, 1 for a wrong or frozen Jacobian; nan unless these were full steps on one mesh.
    defect, boundary : float
        Largest |defect|/scale, and largest |g_i| over the scaled norm of its gradient, at the end.
    growth : float
        Largest ‖Φ_k‖ over the segments (rows in the 2-norm, scaled).
    rcond : float
        Reciprocal condition number of the reduced boundary system.
    inserted : int
        Nodes inserted in this iteration.
    flows : int
        Segments integrated so far, those with Jacobian counted once.
    seconds : float
        Since the start of the solve.
    """

    iteration: int
    nodes: int
    correction: float
    simplified: float
    damping: float
    order: float
    defect: float
    boundary: float
    growth: float
    rcond: float
    inserted: int
    flows: int
    seconds: float


@dataclass(frozen=True)
class BVPResult:
    """The best iterate of a solve, converged or not.

    Attributes
    ----------
    t : ndarray, shape (M,)
        Nodes, the given ones among them.
    y : ndarray, shape (M, n)
        States at the nodes, of the iterate with the smallest Newton correction.
    success : bool
    status : BVPStatus
    message : str
        The sentence of the status, and what it was about.
    nit : int
        Newton iterations.
    correction : float
        Norm of the Newton correction (simplified, if no other was computed) at `y`.
    defects : ndarray, shape (M − 1, n)
        φ_k(y_k) − y_{k+1}; nan if the flow was never evaluated there.
    boundary : ndarray, shape (n,)
        g(y_0, y_S).
    jacobians : ndarray, shape (M − 1, n, n), or None
        Φ at `y`, when asked for.
    history : tuple of BVPIteration
    seconds : float
    """

    t: NDArray
    y: NDArray
    success: bool
    status: BVPStatus
    message: str
    nit: int
    correction: float
    defects: NDArray
    boundary: NDArray
    jacobians: NDArray | None
    history: tuple[BVPIteration, ...]
    seconds: float

    def __str__(self) -> str:
        rows = [self.message, " it nodes correction  damping  order"]
        rows += [
            f"{r.iteration:3d} {r.nodes:5d} {r.correction:10.2e} {r.damping:8.1e} {r.order:6.2f}"
            for r in self.history
        ]
        return "\n".join(rows)
