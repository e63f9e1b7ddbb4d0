"""From one geodesic to the next: continuation in L̃, λ and ε, and descents where Newton fails.

Steps are halved on failure and grown on success. Where two fail in a row the control of the
geodesic is carried to a minimum of an Euler network a full step further, and Newton goes on there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hamshoot.methods.common.watch import Watch
from hamshoot.methods.indirect.continuation import (
    Path,
    Stage,
    between,
    controls,
    distance,
    extrapolated,
    limits,
    midpoints,
    predict,
    stage_name,
    states_at,
)
from hamshoot.methods.indirect.euler_networks import EulerNetworks
from hamshoot.methods.indirect.stage_solver import StageSolver
from hamshoot.support.interpolation import interpolate

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Times the layers of the coarsest network, of those that are descended on one after the other.
REFINEMENTS = (1, 2, 4, 8)
#: Times the last ε, where a ladder may end early, and the relative error of J's limit then.
EARLY, CLEAR = 20.0, 1e-3


@dataclass
class Continuation:
    """Ways from a network or a geodesic to a geodesic of another stage.

    Attributes
    ----------
    solver : StageSolver
        Its path is where it begins, and where it ends.
    networks : EulerNetworks
    watch : Watch
    layers : int
        Of the networks that are descended on, before they get finer.
    epsilon_factor : float
        Of the first step in ε.
    extra : dict
        Of the solution; receives "descents_taken".
    descents : int
        To the minimum of an Euler network, where continuation failed.
    """

    solver: StageSolver
    networks: EulerNetworks
    watch: Watch
    layers: int
    epsilon_factor: float
    extra: dict[str, Any]
    descents: int = 0

    def reach(self, target: Stage) -> bool:
        """Continuation from the stage solved to the target, in all three parameters at once."""
        before: Path | None = None
        here = self.geodesic()
        if here.stage == target:
            return True
        span = distance(here.stage, target, self.epsilon_factor)
        start, s, ds, failures = here.stage, 0.0, min(1.0, 1.0 / span), 0
        while s < 1:
            # Where a branch of minima ends in a fold no step is short enough, and many are waste:
            # after two failures descend, a full step further, to the minimum below.
            if failures == 2:
                ds = 1.0 / span
            trial = min(1.0, s + ds)
            stage = target if trial == 1 else between(start, target, trial)
            self.watch.stage = stage_name(stage)
            descended = failures >= 2 and self._descend(here, stage)
            if descended or self.solver.solve(predict(before, here, stage), stage, quick=True):
                before, here, s = None if descended else here, self.geodesic(), trial
                result = self.solver.result
                ds *= 1.5 if result is not None and result.factorisations <= 4 else 1.0
                failures = 0
                continue
            self.solver.path, self.solver.converged = here, True
            failures += 1
            ds /= 2
            if failures == 5:
                self.solver.converged = False
                return False
        return True

    def come_near(self, target: Stage) -> bool:
        """The same for a ladder to a plain ReLU, which may end early: at 20 times the last ε.

        The thinner the layer around the kinks the more nodes it needs, and at small λ Newton's
        method ends before. What J tends to as ε → 0 has to be known to 1e-3 by then.
        """
        self.extra.pop("ladder_ended", None)
        if self.reach(target):
            return True
        here = self.solver.path
        if self.solver.problem.activation != "relu" or here is None or \
                here.stage[:2] != target[:2] or here.stage.epsilon > EARLY * target.epsilon:
            return False
        limit = limits(self.solver.solved, here.stage).get("objective")
        if limit is None or limit[1] > CLEAR * abs(limit[0]):
            return False
        self.solver.converged = True
        self.extra["ladder_ended"] = here.stage.epsilon
        return True

    def refine(
        self, stage: Stage, weights: NDArray, refinements: tuple[int, ...] = REFINEMENTS
    ) -> bool:
        """A geodesic from minima of Euler networks that get finer, descended to from weights."""
        before: Path | None = None
        for refinement in refinements:
            count = refinement * self.layers
            weights = interpolate(midpoints(len(weights)), weights, midpoints(count))
            path, least, collapsed = self.networks.descended(stage, weights)
            weights = least.weights
            for guess in () if collapsed else _guesses(before, path):
                if self.solver.solve(self.solver.on_mesh(guess, count), stage, minimum=True):
                    return True
            before = path
        return False

    def geodesic(self) -> Path:
        """The path of the stage that was solved last."""
        assert self.solver.path is not None
        return self.solver.path

    def weights(self, path: Path, layers: int) -> NDArray:
        """Control of a path at the middles of equal layers, (layers, w, w + 1)."""
        flow = self.solver.shooting(path.stage, accurate=True).flow
        return controls(flow, states_at(flow, path.t, path.y, midpoints(layers)))

    def _descend(self, path: Path, stage: Stage) -> bool:
        """From the control of a path, minimise an Euler network at a stage; then Newton."""
        self.watch.stage = f"descent, {stage_name(stage)}"
        # Coarser networks than the path needed would lose it.
        levels = tuple(r for r in REFINEMENTS if r * self.layers >= 0.75 * (len(path.t) - 1))
        levels = levels or REFINEMENTS[-1:]
        if not self.refine(stage, self.weights(path, levels[0] * self.layers), levels):
            return False
        self.descents += 1
        self.extra["descents_taken"] = self.descents
        return True


def _guesses(before: Path | None, path: Path) -> tuple[Path, ...]:
    """The path of a network, and before it the limit that it and a coarser one point to."""
    return (path,) if before is None else (extrapolated(before, path), path)
