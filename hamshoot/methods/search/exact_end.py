"""The exact end of a search: for ReLU the polish, then off stationary points that are no minima.

It begins where a smooth network is stationary at the last ε. L-BFGS and Newton's method carry that
to smaller ε, where few activations are left to change sides, and the polish
(`hamshoot.methods.newton.active_set`) to the ReLU network itself; if it does not settle it is tried
again from smaller ε. Then the second-order test: what it refutes is left
(`hamshoot.methods.newton.escape`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hamshoot.methods.common.watch import Stop
from hamshoot.methods.newton.active_set import affordable
from hamshoot.methods.newton.escape import Escape, escape
from hamshoot.methods.newton.escape import affordable as testable
from hamshoot.methods.newton.learned_active_set import polish
from hamshoot.methods.search.walk import LadderWalk
from hamshoot.solution.solution import Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The polish begins at this share of the last ε; if it does not settle it is tried again at a
#: quarter of the ε, so often.
POLISH_SHARE, DEEPER = 0.1, 2


@dataclass
class End:
    """Controls (L, w, w+1), what is true of them, and what is to be said."""

    weights: NDArray
    status: Status
    notes: list[str] = field(default_factory=list)


@dataclass
class ExactEnd:
    """The way from a smooth stationary point to a minimum of the problem's own network.

    Parameters
    ----------
    walk : LadderWalk
        Counts, keeps the best, and goes on to smaller ε.
    tol : float
        Of the stationarity.
    polish : bool
        Whether ReLU is carried to its exact optimum where the size allows.
    look : callable, optional
        Looks at the clock within a step of the polish, which takes long where networks are large.

    Attributes
    ----------
    escape : Escape or None
        What left stationary points, where the second-order test was made.
    """

    walk: LadderWalk
    tol: float
    polish: bool
    look: Callable[[], None] | None = None
    escape: Escape | None = None

    @property
    def polishes(self) -> bool:
        """Whether the polish applies."""
        problem = self.walk.problem
        return (self.polish and problem.sigma.kinked
                and affordable(problem, self.walk.sweeps.layers))

    def converged(self, weights: NDArray, epsilon: float) -> NDArray:
        """Controls of a basin, carried to the tolerance at an ε."""
        self.walk.set_activation(epsilon)
        return self.walk.to_tolerance(weights, "convergence, " + self.walk.stage_name(epsilon))

    def run(self, weights: NDArray, epsilon: float, status: Status) -> End:
        """From controls that are stationary at ε (if the status says so) to the end.

        Raises
        ------
        Stop, KeyboardInterrupt
            With the best so far in `walk.best`.
        """
        end = End(weights, status)
        if self.polishes:
            end = self._polished(weights, epsilon, status)
        return self._left(end, epsilon) if end.status is Status.CONVERGED else end

    def _polished(self, smooth: NDArray, epsilon: float, status: Status) -> End:
        """Carry the last stage to the ReLU network itself; on failure try from smaller ε."""
        weights, target = smooth, POLISH_SHARE * epsilon
        walk, problem = self.walk, self.walk.problem
        for _ in range(DEEPER + 1):
            smooth = walk.lower(smooth, epsilon, target)
            epsilon, target = target, target / 4
            walk.watch.stage = "polish"
            polished = polish(problem, smooth, walk.steps, epsilon, tol=min(self.tol, 1e-10),
                              callback=walk.record, look=self.look, watch=walk.kept_by)
            # Rounding keeps a badly scaled problem from 1e-10; the tolerance asked for holds.
            if polished.settled or (
                    polished.stationarity <= self.tol
                    and polished.objective <= walk.evaluate(smooth) * (1 + 1e-9)):
                return End(polished.weights, Status.CONVERGED, [polished.words])
        if status is Status.SMOOTHED:
            status = Status.UNSETTLED
        return End(weights, status, ["the polish did not settle"])

    def _left(self, end: End, epsilon: float) -> End:
        """Leave stationary points that are no minima."""
        walk = self.walk
        if not testable(walk.problem, walk.sweeps.layers):
            return end
        walk.offer(end.weights)
        walk.watch.stage = "second-order test"
        self.escape = Escape(end.weights, [])
        try:
            escape(walk.problem, end.weights, walk.steps, epsilon, tol=self.tol,
                   callback=walk.record, progress=self.escape, watch=walk.kept_by)
        except (Stop, KeyboardInterrupt):
            walk.offer(self.escape.weights)
            raise
        notes = [self.escape.note()] if self.escape.left else end.notes
        verdict = self.escape.verdict
        refuted = verdict is not None and verdict.refuted
        return End(self.escape.weights, Status.SADDLE if refuted else Status.CONVERGED, notes)
