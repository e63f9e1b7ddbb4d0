"""Lifted multiple shooting: implicit steps whose stages are unknowns beside the nodes.

Each segment is one step of `hamshoot.bvp.lobatto`. Its stages are not solved for given the node it
starts at, which fails where the equation grows faster than the segment is short, but stand among
the unknowns (J. Albersmeyer and M. Diehl, *SIAM J. Optim.* 20, 2010): an iteration of Newton's
method condenses them by an orthogonal factorisation in each segment, and what is left between the
nodes is the matrix of multiple shooting, `hamshoot.bvp.bordered`. The parts here are what
`hamshoot.bvp.newton.Newton` takes: an iterate, what evaluates it, and a linear algebra.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.bordered import BorderedStaircase, solved
from hamshoot.bvp.functions import Ends, Field
from hamshoot.bvp.linear_algebra import conditioning
from hamshoot.bvp.lobatto import Lobatto
from hamshoot.bvp.mesh import End, Stop
from hamshoot.bvp.newton import Newton, Step
from hamshoot.bvp.records import BVPStatus
from hamshoot.bvp.rules import ErrorOriented

_KEPT = 0.1  # of corrections, by which a linearisation is kept
_NOISE = 1e-8  # corrections below this that find no descent are put down to rounding


@dataclass
class LiftedPoint:
    """An iterate: states at all points and parameters as one row, and what was evaluated."""

    t: NDArray  # (M,)
    y: NDArray  # (1, P n + k)
    rates: NDArray  # (P + J, n); empty until it is evaluated
    defects: NDArray  # (M − 1, s − 1, n)
    g: NDArray  # (n + k,)

    @property
    def lack(self) -> tuple[NDArray, NDArray]:
        """Right-hand sides of the Newton system, −F."""
        return -self.defects, -self.g

    @property
    def finite(self) -> NDArray:
        """Whether all of it is, shape (1,)."""
        return np.array([bool(np.isfinite(self.rates).all() and np.isfinite(self.defects).all())])


@dataclass
class LiftedMesh:
    """f, the boundary function and the step, evaluated on one mesh.

    `tol` is the solver's for residuals, `bc_tol` that for boundary conditions, and `start` the
    projection of y(a) that a singular term asks for. f is evaluated at all points, beyond the
    `jumps` among them, and once more before each jump.
    """

    x: NDArray
    method: Lobatto
    rates: Field
    ends: Ends
    tol: float
    bc_tol: float
    deadline: float = np.inf
    start: NDArray | None = None
    max_nodes: int = 0  # the rules cut nothing: meshes change between solves
    jumps: NDArray = field(default_factory=lambda: np.empty(0))  # (J,), nodes at which f has two
    flows: int = 0
    places: NDArray = field(init=False)
    after: NDArray = field(init=False)  # (J,), the segments that end there

    def __post_init__(self) -> None:
        self.places = self.method.places(self.x)
        nodes = np.searchsorted(self.x, self.jumps)
        rows = (self.method.stages - 1) * nodes
        self.after = nodes - 1
        at = self.places.copy()
        at[rows] = np.nextafter(self.jumps, np.inf)
        self._at = np.concatenate([at, np.nextafter(self.jumps, -np.inf)])
        self._rows = np.concatenate([np.arange(at.size), rows])

    def rates_at(self, states: NDArray, p: NDArray) -> NDArray:
        """f at all points, (P + J, n), those before jumps last."""
        return self.rates(self._at, states[self._rows], p)

    def slopes_at(self, states: NDArray, p: NDArray) -> tuple[NDArray, NDArray]:
        """∂f/∂y (P + J, n, n) and ∂f/∂p (P + J, n, k) likewise."""
        return self.rates.slopes(self._at, states[self._rows], p)

    def states(self, row: NDArray) -> tuple[NDArray, NDArray]:
        """States (P, n) and parameters (k,) of an iterate's row (1, P n + k)."""
        size = self.places.size * self.ends.n
        return row[0, :size].reshape(-1, self.ends.n), row[0, size:]

    def row(self, y: NDArray, p: NDArray) -> NDArray:
        """States and parameters as one row."""
        return np.concatenate([y.ravel(), p])[None]

    def given(self, t: NDArray, y: NDArray) -> LiftedPoint:
        """The iterate a solve begins with, not evaluated yet."""
        nothing = np.empty(0)
        return LiftedPoint(t, y, nothing, nothing, nothing)

    def evaluate(self, t: NDArray, y: NDArray) -> LiftedPoint:
        """Defects and boundary conditions at an iterate."""
        if time.perf_counter() > self.deadline:
            raise Stop(BVPStatus.TIME_LIMIT)
        self.flows += t.size - 1
        states, p = self.states(y)
        if self.start is not None:
            states = states.copy()
            states[0] = self.start @ states[0]
            y = self.row(states, p)
        with np.errstate(all="ignore"):
            rates = self.rates_at(states, p)
            defects = self.method.defects(t, states, rates, self.after)
            g = self.ends(states[0], states[-1], p)
        return LiftedPoint(t, y, rates, defects, g)

    def completed(self, point: LiftedPoint) -> LiftedPoint:
        """The iterate, evaluated if it was not."""
        return point if point.rates.size else self.evaluate(point.t, point.y)

    def residuals(self, point: LiftedPoint, scale: NDArray) -> tuple[float, float]:
        """Largest defect in units of what the tolerance allows, and boundary condition likewise.

        A defect of size d in a step h is one of d/h in the equation: a twentieth of what the
        residual of the polynomial may come to is left to the iteration.
        """
        states = self.method.by_segment(point.rates, self.after)[:, 1:]
        h = np.diff(point.t)[:, None, None]
        relative = np.abs(point.defects) / (h * (1 + np.abs(states)))
        rounding = 1e2 * np.finfo(float).eps * np.abs(point.y).max() / h
        relative = np.where(np.abs(point.defects) <= rounding * h, 0, relative)
        allowed = np.abs(point.g).max() / self.bc_tol if point.g.size else 0.0
        return float(relative.max() / (0.05 * self.tol)), float(allowed)


@dataclass
class LiftedSystems:
    """Newton matrices with the stages condensed; a `hamshoot.bvp.newton.LinearAlgebra`."""

    mesh: LiftedMesh
    growth: float = np.nan  # not watched
    rcond: float = np.nan

    def linearise(self, point: Any, scale: NDArray) -> tuple[Any, Any, NDArray]:
        """See `hamshoot.bvp.newton.LinearAlgebra`."""
        point = self.mesh.completed(point)
        if not point.finite.all():
            raise Stop(BVPStatus.NOT_FINITE, "The right-hand side is not finite there.")
        if not np.isfinite(point.g).all():
            raise Stop(BVPStatus.NOT_FINITE, "The boundary function is not finite.")
        with np.errstate(all="ignore"):
            system = Condensed(self.mesh, point, scale)
        self.rcond = system.rcond
        if not self.rcond > np.finfo(float).eps:
            raise Stop(BVPStatus.SINGULAR, conditioning(self.rcond), point)
        return point, system, system.solve(*point.lack)


class Condensed:
    """The Newton matrix at an iterate, factored: stages first, then nodes and parameters."""

    def __init__(self, mesh: LiftedMesh, point: LiftedPoint, scale: NDArray) -> None:
        states, p = mesh.states(point.y)
        n, s = mesh.ends.n, mesh.method.stages
        by_y, by_p = mesh.slopes_at(states, p)
        if not (np.isfinite(by_y).all() and np.isfinite(by_p).all()):
            raise Stop(BVPStatus.NOT_FINITE, "The derivatives of the right-hand side are not.")
        unit, unit_p = scale[:n], scale[mesh.places.size * n :]
        self.unit, self.unit_p = unit, unit_p
        count = mesh.x.size - 1
        step = -np.diff(mesh.x)[:, None, None] * mesh.method.weights[1:]  # (S, s − 1, s)
        slopes = mesh.method.by_segment(by_y * unit / unit[:, None], mesh.after)
        blocks = np.einsum("kij,kjab->kiajb", step, slopes)
        i = np.arange(s - 1)
        blocks[:, i, :, i + 1] += np.eye(n)
        blocks[:, :, :, 0] -= np.eye(n)
        flat = blocks.reshape(count, (s - 1) * n, s * n)
        border = np.einsum(
            "kij,kjab->kiab", step,
            mesh.method.by_segment(by_p * unit_p / unit[:, None], mesh.after),
        ).reshape(count, (s - 1) * n, p.size)
        inner = (s - 2) * n
        q, r = np.linalg.qr(flat[:, :, n : n + inner], mode="complete")
        self.qt = np.swapaxes(q, 1, 2).conj()
        outer = np.concatenate([flat[:, :, :n], flat[:, :, n + inner :], border], axis=2)
        outer = self.qt @ outer
        self.upper = solved(r[:, :inner], np.broadcast_to(np.eye(inner), (count, inner, inner)))
        self.outer = outer[:, :inner]
        below = outer[:, inner:]
        self.ends = mesh.ends.slopes(states[0], states[-1], p)
        self.ends = self.ends * np.concatenate([unit, unit, unit_p])
        self.nodes = BorderedStaircase(
            below[:, :, :n], below[:, :, n : 2 * n], below[:, :, 2 * n :], self.ends
        )
        self.rcond = self.nodes.rcond

    def solve(self, r: NDArray, g: NDArray) -> NDArray:
        """The correction as a row (1, P n + k), from defects (S, s − 1, n) and g (n + k,)."""
        count, stages, n = r.shape
        r = (self.qt @ (r / self.unit).reshape(count, stages * n, 1))[..., 0]
        inner = (stages - 1) * n
        d, q = self.nodes.solve(r[:, inner:], g)
        known = np.concatenate([d[:-1], d[1:], np.broadcast_to(q, (count, q.size))], axis=1)
        top = r[:, :inner] - (self.outer @ known[..., None])[..., 0]
        between = (self.upper @ top[..., None])[..., 0].reshape(count, stages - 1, n)
        full = np.concatenate([d[:-1, None], between], axis=1).reshape(-1, n)
        full = np.concatenate([full, d[-1:]]) * self.unit
        return np.concatenate([full.ravel(), q * self.unit_p])[None]


@dataclass
class Lifted(ErrorOriented):
    """NLEQ-ERR that keeps a linearisation while it contracts tenfold."""

    def following(
        self, step: Step, damping: float, simplified: NDArray | None, level: float
    ) -> float | None:
        """As `ErrorOriented`, λ reduced to a tenth at most: far off, its estimate is too small."""
        following = super().following(step, damping, simplified, level)
        return following if following is None else max(following, damping / 10)

    def keep(self, step: Step) -> bool:
        """Whether the linearisation serves the next step too."""
        return step.full and step.level <= _KEPT * step.size

    def judge(self, step: Step, newton: Newton) -> End | NDArray | None:
        """As `ErrorOriented`, but that nothing is cut: the mesh changes between solves."""
        if step.end is None:
            if step.size <= max(newton.tol, _NOISE):
                return End(BVPStatus.ACCURACY_LIMIT, f"The last correction was {step.size:.1e}.")
            return End(BVPStatus.NO_DESCENT, conditioning(newton.algebra.rcond))
        verdict = super().judge(step, newton)
        if self.keep(step):
            self.last = None  # an estimate of λ would compare corrections of two kinds
        return verdict
