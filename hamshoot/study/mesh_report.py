"""`mesh_report`: whether the mesh of a solution is fine enough, and at which order it converges.

*A continuous path.* What is solved are the shooting equations φ_k(y_k) = y_{k+1}, by a flow with
step control of its own: the nodes carry no discretisation error. What is left is how far the flow,
integrated anew at its tightest tolerance, misses the next node (the defect of every segment), and
what that makes of the nodes: the Newton correction of the exact linearised two-point problem, an
estimate of the error of the solution itself.

*Layers* are the network that is asked for, exact to rounding. Their distance from the continuous
path is a discretisation error all the same: of every layer, how far the continuous flow of its own
W, constant over it, ends from its right node; and of J, by solving with 2L, 4L, … layers, each from
the one before. From three of them with one ratio r follows the order,
log((J_L − J_rL)/(J_rL − J_rrL))/log r, and an extrapolated limit. It tends to 1 over Euler layers,
and to 2 over RK4 layers, whose W is constant all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.derivatives.geodesics import Linearised, shooting_of
from hamshoot.derivatives.result import NoDerivative
from hamshoot.problem.maps import check_fixed
from hamshoot.solution.distance import distance
from hamshoot.solution.status import Status
from hamshoot.study.solve import solve
from hamshoot.support.checks import brief

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.solution.solution import Solution

#: Layers solved at most.
MOST_LAYERS = 5_000
_NAN = float("nan")


@dataclass(frozen=True)
class Refined:
    """The optimum of more layers, gone on to from fewer.

    Attributes
    ----------
    layers : int
    objective : float
    status : str
        Lower case; only "converged" ones give an order.
    apart : float
        `hamshoot.distance` of representations from the network with fewer layers: where it does not
        fall, the search has gone to another branch.
    """

    layers: int
    objective: float
    status: str
    apart: float


@dataclass(frozen=True, eq=False, repr=False)
class MeshReport:
    """The mesh of a solution. Immutable.

    Attributes
    ----------
    p : ndarray, shape (M,)
        Nodes.
    error : ndarray, shape (M−1,)
        Of every segment or layer alone, over the largest ‖A_p‖ (or ‖B_p‖, whichever is more): the
        defect of a path; of a layer, the distance to the continuous flow of its W.
    node_error : ndarray, shape (M,)
        Estimate of the error at the nodes, likewise: a Newton correction of a path (NaN where the
        linearised problem is singular); of layers, the distance of A from the continuous network
        with the same controls.
    inserted : ndarray of bool, shape (M,)
        Nodes that are not on the even mesh of the longest segment: the solver's halvings. None over
        layers.
    steps : ndarray of int, shape (M−1,), or None
        Of the integrator over each segment of a path; None over layers.
    refined : tuple of Refined
        Over layers, this network first; as asked for, up to one that was stopped by Ctrl-C.
    order, limit : float
        At which J converges in L, and where to; NaN unless three networks of one ratio, all of them
        converged, come closer to each other.
    """

    p: NDArray
    error: NDArray
    node_error: NDArray
    inserted: NDArray
    steps: NDArray | None
    refined: tuple[Refined, ...]
    order: float
    limit: float

    @property
    def worst(self) -> int:
        """The segment or layer, from 0, with the largest error."""
        return int(np.argmax(np.nan_to_num(self.error, nan=np.inf)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; numbers that are not finite are None."""
        def plain(value: Any) -> Any:
            if isinstance(value, list):
                return [plain(one) for one in value]
            return None if isinstance(value, float) and not np.isfinite(value) else value

        arrays = {name: None if (value := getattr(self, name)) is None else plain(value.tolist())
                  for name in ("p", "error", "node_error", "inserted", "steps")}
        rows = [{**vars(one), "objective": plain(one.objective), "apart": plain(one.apart)}
                for one in self.refined]
        return {**arrays, "refined": rows, "order": plain(self.order), "limit": plain(self.limit)}

    def __repr__(self) -> str:
        h, k = np.diff(self.p), self.worst
        kind = "layers" if self.steps is None else "segments"
        lines = [
            f"Mesh of {len(h)} {kind}, lengths {h.min():.3g} to {h.max():.3g}"
            + ("" if self.steps is None else f", {int(self.inserted.sum())} nodes inserted, "
               f"{int(self.steps.sum())} steps of the integrator"),
            f"  error of one    {self.error[k]:.2e} at most, near p = {self.p[k]:.3g}; median "
            f"{np.median(self.error):.2e}",
            f"  error at nodes  {np.max(self.node_error):.2e} at most"
            + (" (discretisation: the continuous network with the same controls)"
               if self.steps is None else " (a Newton correction)")]
        lines += [f"  L = {one.layers:<6} J = {one.objective:.10g}  {one.status}"
                  + ("" if np.isnan(one.apart) else f", {one.apart:.2e} from the last")
                  for one in self.refined]
        if np.isfinite(self.order):
            lines.append(f"  order {self.order:.3f} in L, limit J = {self.limit:.10g}")
        elif len(self.refined) > 2:
            lines.append("  no order: not all converged, or they do not come closer in one ratio")
        return "\n".join(lines)


def mesh_report(
    solution: Solution, *, refine: Sequence[int] = (), verbose: bool = False
) -> MeshReport:
    """Errors of a mesh, and the order of layers; see `hamshoot.Solution.mesh_report`.

    Parameters
    ----------
    solution : Solution
    refine : sequence of int
        Multiples of L to be solved too, increasing, each at least 2.
    verbose : bool
        Show the progress of these solves.

    Raises
    ------
    ValueError
        For other multiples, for any on a continuous path, and beyond 5000 layers.
    """
    multiples = _multiples(solution, refine)
    if multiples:
        check_fixed(solution.problem, "mesh_report: finer layers are compared",
                    "without refine it is given")
    if solution.steps is None:
        return _of_path(solution)
    continuous = solution.resimulate().continuous
    assert continuous is not None  # layers have one
    rows = _refined(solution, multiples, verbose)
    order, limit = _order(rows)
    nodes = np.zeros(len(solution.p), dtype=bool)
    return MeshReport(solution.p, continuous.state_defect, continuous.state_error, nodes, None,
                      rows if multiples else (), order, limit)


# -- a continuous path -----------------------------------------------------------------------------


def _of_path(solution: Solution) -> MeshReport:
    shooting = shooting_of(solution)
    t, y = solution.p, np.stack([solution.representations, solution.momenta], axis=1)
    defects = shooting.defects(t, y)
    steps = np.array(shooting.flow.steps)
    sizes = np.linalg.norm(y, axis=(2, 3)).max(0)
    sizes = np.where(sizes > 0, sizes, 1.0)
    start, end = shooting.boundary(y)
    try:
        moved = Linearised(shooting, t, y).solve(defects, np.stack([start, end]))
    except NoDerivative:
        moved = np.full_like(y, _NAN)
    return MeshReport(t, _largest(defects, sizes), _largest(moved, sizes), _inserted(t), steps, (),
                      _NAN, _NAN)


def _largest(differences: NDArray, sizes: NDArray) -> NDArray:
    """Of A and of B, the larger share; (K, 2, w, N) to (K,)."""
    return (np.linalg.norm(differences, axis=(2, 3)) / sizes).max(axis=1)


def _inserted(t: NDArray) -> NDArray:
    """Nodes off the even mesh whose segment is the longest; none where that mesh is not in t."""
    count = round(1 / float(np.diff(t).max()))
    even = np.linspace(0, 1, count + 1)
    near = np.abs(t[:, None] - even[None]) < 1e-9
    if not near.any(axis=0).all():
        return np.zeros(len(t), dtype=bool)
    return np.asarray(~near.any(axis=1))


# -- layers ----------------------------------------------------------------------------------------


def _multiples(solution: Solution, refine: Sequence[int]) -> list[int]:
    """The multiples of L, checked."""
    try:
        given: list[Any] = list(refine)
    except TypeError:
        given = [refine]
    whole = all(isinstance(m, (int, np.integer)) and not isinstance(m, bool) and m >= 2
                for m in given)
    if not whole or given != sorted(set(given)):
        raise ValueError("refine: expected increasing multiples of the layers, at least 2, as "
                         f"(2, 4), got {brief(refine)}")
    if given and solution.steps is None:
        raise ValueError("refine: a continuous path has no layers to multiply; its segments carry "
                         "no discretisation error")
    if given and given[-1] * len(solution.weights) > MOST_LAYERS:
        raise ValueError(f"refine: expected at most {MOST_LAYERS} layers, got "
                         f"{given[-1] * len(solution.weights)}")
    return [int(m) for m in given]


def _refined(solution: Solution, multiples: list[int], verbose: bool) -> tuple[Refined, ...]:
    """The network itself, and those of more layers, each from the one before."""
    assert solution.steps is not None
    rows = [Refined(len(solution.steps), solution.objective, solution.status.name.lower(), _NAN)]
    last, problem = solution, solution.problem
    several = problem.hard_endpoint or solution.integrator != "euler"
    options: dict[str, Any] = {"integrator": solution.integrator} if several else {}
    for multiple in multiples:
        steps = np.repeat(solution.steps, multiple) / multiple
        found = solve(problem, "multiple_shooting" if several else "single_shooting",
                      layers=len(steps), steps=steps, initial_guess=last, verbose=verbose,
                      **options)
        rows.append(Refined(len(steps), found.objective, found.status.name.lower(),
                            float(distance(last, found))))
        if found.status is Status.INTERRUPTED:
            break  # asked to stop: the finer ones are not begun
        last = found
    return tuple(rows)


def _order(rows: Sequence[Refined]) -> tuple[float, float]:
    """Order and limit of J from the last three networks; NaN where they do not say."""
    if len(rows) < 3 or any(row.status != Status.CONVERGED.name.lower() for row in rows[-3:]):
        return _NAN, _NAN
    first, second, third = rows[-3:]
    ratio = second.layers / first.layers
    coarse, fine = first.objective - second.objective, second.objective - third.objective
    one_ratio = third.layers == ratio * second.layers
    if not one_ratio or coarse * fine <= 0 or abs(coarse) <= abs(fine):
        return _NAN, _NAN
    order = float(np.log(coarse / fine) / np.log(ratio))
    return order, float(third.objective - fine / (ratio**order - 1))
