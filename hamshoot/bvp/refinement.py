"""Meshes refined until a tolerance is met, and continuation where Newton's method fails.

Every segment of a mesh is a step of `hamshoot.bvp.lobatto`; nodes, stages and parameters are found
together by the damped Newton method of `hamshoot.bvp.newton` (`hamshoot.bvp.lifted`); the residual
of the polynomials says where the mesh is too coarse (`hamshoot.bvp.remeshing`). Where that fails,
the components of the right-hand side that are large are scaled down and brought back step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.functions import Ends, Field
from hamshoot.bvp.lifted import Lifted, LiftedMesh, LiftedSystems
from hamshoot.bvp.lobatto import Lobatto
from hamshoot.bvp.mesh import Mesh
from hamshoot.bvp.newton import LinearAlgebra, Newton
from hamshoot.bvp.records import BVPStatus
from hamshoot.bvp.remeshing import equidistributed, halved

_ROUNDS = 30  # of meshes
_PIECES = (4.0, 2.5, 1.6)  # that a segment is cut into at once: coarse meshes tell little
_FAILURES = 3  # of Newton's method in a row, each on a finer mesh, before that is given up
_ITERATIONS = 25  # of Newton's method on one mesh
_LEAST_DAMPING = 1e-3
_MILD = 10.0  # what a component of f may come to over the interval where continuation begins
# Parts of that, tried in turn, and residuals that are enough on the way.
_LADDER = ((1.0, 1e-2), (0.1, 1e-3), (0.01, 1e-3), (1e-4, 1e-2), (1e-8, 1e-2), (1e-12, 1e-2))
_FINEST = 1e-7  # tolerance of a check
_LEAST_STEP = 1e-3  # of continuation, from 0 to 1

Guess = Callable[[NDArray], NDArray]  # points (P,) -> states (P, n)


@dataclass
class Stage:
    """A mesh with what was found on it."""

    x: NDArray
    y: NDArray  # (P, n), at all points
    rates: NDArray  # (P, n)
    p: NDArray
    polynomial: Any
    residuals: NDArray  # (M − 1,)
    boundary: float  # largest |g|
    status: BVPStatus

    @property
    def residual(self) -> float:
        """The largest of them, inf where one is not finite."""
        worst = self.residuals.max()
        return float(worst) if np.isfinite(worst) else np.inf

    @property
    def solved(self) -> bool:
        """Whether the equations of the mesh are."""
        return self.status is BVPStatus.CONVERGED


@dataclass
class Search:
    """Everything of one solve but the mesh."""

    rates: Field
    ends: Ends
    method: Lobatto
    given: NDArray  # nodes that stay
    max_nodes: int
    bc_tol: float
    start: NDArray | None
    deadline: float
    tell: Callable[[int, Stage, int], None]
    jumps: NDArray  # of the given nodes, those at which f jumps
    iterations: int = 0
    best: Stage | None = None  # of f itself, by the residual
    latest: Stage | None = None  # of f, or of f scaled down
    struggled: bool = False  # whether Newton's method failed on a mesh

    def on(self, x: NDArray, guess: Guess, p: NDArray, tol: float) -> Stage:
        """The equations of one mesh, solved or not."""
        mesh = LiftedMesh(
            x, self.method, self.rates, self.ends, tol, self.bc_tol, self.deadline, self.start,
            jumps=self.jumps,
        )  # fmt: skip
        y = guess(mesh.places)

        def units(row: NDArray) -> NDArray:
            states, q = mesh.states(row)
            unit = np.maximum(1.0, np.abs(states).max(0))
            return np.concatenate([np.tile(unit, len(states)), np.maximum(1.0, np.abs(q))])

        newton = Newton(
            cast(Mesh, mesh), cast(LinearAlgebra, LiftedSystems(mesh)),
            Lifted(_LEAST_DAMPING, 1.0), units, max(1e-2 * tol, 1e-13),
        )  # fmt: skip
        try:
            with np.errstate(all="ignore"):
                end = newton.solve(x, mesh.row(y, p), _ITERATIONS)
        except KeyboardInterrupt:
            point = cast(Any, self._best(newton))
            if point is not None and point.rates.size:
                self._stage(mesh, newton, point, BVPStatus.STOPPED)
            raise
        self.iterations += 1
        point = newton.point if end.status is BVPStatus.CONVERGED else self._best(newton)
        return self._stage(mesh, newton, cast(Any, point), end.status)

    def _stage(self, mesh: LiftedMesh, newton: Newton, point: Any, status: BVPStatus) -> Stage:
        """What was found on a mesh, kept."""
        x = mesh.x
        if not point.rates.size:
            mesh.deadline = np.inf
            point = mesh.evaluate(x, point.y)
        y, p = mesh.states(point.y)
        if status is BVPStatus.ACCURACY_LIMIT and newton.best[0] <= mesh.tol:
            status = BVPStatus.CONVERGED  # rounding is what stops it
        with np.errstate(all="ignore"):
            polynomial = self.method.polynomial(x, y, point.rates, mesh.after)
            residuals = self._residuals(x, polynomial, p)
        worst = float(np.abs(point.g).max()) if point.g.size else 0.0
        stage = Stage(x, y, point.rates[: len(y)], p, polynomial, residuals, worst, status)
        self.latest = stage
        if self.rates.factors is None and (
                self.best is None or stage.residual <= self.best.residual):
            self.best = stage
        return stage

    def _residuals(self, x: NDArray, polynomial: Any, p: NDArray) -> NDArray:
        return self.method.residuals(x, polynomial, lambda at, u: self.rates(at, u, p))

    def interrupted(self) -> Stage | None:
        """The best so far, by the residual in f itself; None where there is nothing yet."""
        found = [stage for stage in (self.best, self.latest) if stage is not None]
        for stage in found:
            with np.errstate(all="ignore"):
                stage.residuals = self._residuals(stage.x, stage.polynomial, stage.p)
            stage.status = BVPStatus.STOPPED
        return min(found, key=lambda stage: stage.residual, default=None)

    def _best(self, newton: Newton) -> Any:
        latest = newton.latest[0] < newton.best[0]
        return newton.latest[1] if latest else newton.best[1]

    def refined(
        self, x: NDArray, guess: Guess, p: NDArray, tol: float, failures: int = _FAILURES
    ) -> Stage:
        """Meshes, each from what was found on the one before, until residuals are below tol."""
        failed = 0
        for turn in range(_ROUNDS):
            stage = self.on(x, guess, p, tol)
            if stage.status is BVPStatus.TIME_LIMIT:
                break
            if stage.solved:
                failed = 0
                if stage.residual <= tol:
                    self.tell(self.iterations, stage, 0)
                    break
                guess, p = stage.polynomial, stage.p
                new = self._next(x, stage, tol, turn)
            else:
                failed, self.struggled = failed + 1, True
                if failed > failures:
                    break
                if np.isfinite(stage.residual) and stage.status is not BVPStatus.SINGULAR:
                    guess, p = stage.polynomial, stage.p
                    new = equidistributed(
                        x, stage.residuals, tol, self.method.stages, self.given, most=3.0
                    )
                else:
                    new = halved(x)
            self.tell(self.iterations, stage, new.size - x.size)
            if new.size > self.max_nodes:
                if stage.solved:
                    stage.status = BVPStatus.NODE_LIMIT
                break
            x = new
        else:
            stage.status = BVPStatus.NODE_LIMIT
        return stage

    def _next(self, x: NDArray, stage: Stage, tol: float, turn: int) -> NDArray:
        """A mesh for what was found on x; fewer pieces a segment where it would be too fine."""
        for most in _PIECES:
            new = equidistributed(
                x, stage.residuals, tol, self.method.stages, self.given, coarsen=turn < 6, most=most
            )
            if new.size <= self.max_nodes:
                break
        return new

    def continued(self, x: NDArray, guess: Guess, p: NDArray, tol: float) -> Stage | None:
        """From components of f that are scaled down to f itself; None where that fails.

        Component i is multiplied by c_i^{1 − τ}, τ from 0 to 1, with c_i such that around the guess
        it comes to 10, or less, over the interval: of a second-order equation with a small
        parameter before y″ that is a continuation in the parameter.
        """
        places = self.method.places(x)
        y = guess(places)
        # A guess of zero, say, hides what is proportional to states.
        sizes = [self.rates.sizes(places, y + shift, p) for shift in (0.0, 1.0, -1.0)]
        size = np.max(sizes, axis=0) * (x[-1] - x[0])
        last = None
        for part, loose in _LADDER:
            mildest = np.minimum(1.0, _MILD * part / np.maximum(size, 1e-300))
            if mildest.min() == 1:
                continue
            stage = self._path(mildest, x, guess, p, max(tol, loose))
            if stage is None:
                continue
            if stage.status is not BVPStatus.TIME_LIMIT:
                stage = self.confirmed(self.refined(stage.x, stage.polynomial, stage.p, tol), tol)
            last = stage
            if stage.status in (BVPStatus.CONVERGED, BVPStatus.TIME_LIMIT):
                break
        return last

    def confirmed(self, stage: Stage, tol: float) -> Stage:
        """The stage, failed where the equations cannot be solved to a hundredth of the tolerance.

        What was reached by way of failures may solve them to the tolerance on a coarse mesh, and
        be no solution.
        """
        finer = max(tol / 100, _FINEST)
        if stage.status is not BVPStatus.CONVERGED or finer >= tol:
            return stage
        other = self.refined(stage.x, stage.polynomial, stage.p, finer)
        if other.status not in (BVPStatus.CONVERGED, BVPStatus.NODE_LIMIT, BVPStatus.TIME_LIMIT):
            stage.status = other.status
        return stage

    def _path(
        self, mildest: NDArray, x: NDArray, guess: Guess, p: NDArray, tol: float
    ) -> Stage | None:
        """Along the factors c^{1 − τ} to 1: the last stage, or None."""
        try:
            self.rates.factors = mildest
            stage = self.refined(x, guess, p, tol, failures=1)
            before, at = None, 0.0
            step = np.log(3) / max(-np.log(mildest.min()), np.log(3))
            while stage.solved and at < 1:
                to = min(1.0, at + step)
                self.rates.factors = mildest ** (1 - to)
                start = _secant(before, (at, stage), to)
                next_stage = self.refined(stage.x, *start, tol, failures=1)
                if next_stage.solved:
                    before, at, stage, step = (at, stage), to, next_stage, 1.5 * step
                elif next_stage.status is BVPStatus.TIME_LIMIT:
                    return next_stage
                else:
                    step /= 3
                    if step < _LEAST_STEP:
                        return None
        finally:
            self.rates.factors = None
        return stage if stage.solved or stage.status is BVPStatus.TIME_LIMIT else None


def _secant(
    before: tuple[float, Stage] | None, last: tuple[float, Stage], to: float
) -> tuple[Guess, NDArray]:
    """A guess at τ = `to`: the last stage, or the line through the last two."""
    at, stage = last
    if before is None:
        return stage.polynomial, stage.p
    earlier, other = before
    weight = (to - at) / (at - earlier)

    def guess(x: NDArray) -> NDArray:
        here = stage.polynomial(x)
        return cast(NDArray, here + weight * (here - other.polynomial(x)))

    return guess, stage.p + weight * (stage.p - other.p)
