"""Two ways to steer `hamshoot.bvp.newton`: by exact linearisations, or by a model's.

`ErrorOriented` is the algorithm NLEQ-ERR of P. Deuflhard, *Newton Methods for Nonlinear Problems*
(Springer 2004): each step linearises anew, λ comes from the measured nonlinearity, and the most
nonlinear segments are cut where no λ will do. `Chord` keeps a linearisation as long as it
contracts, which is what a model that is never exact allows anyway, and cuts where the model falls
short.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.linear_algebra import conditioning
from hamshoot.bvp.mesh import End
from hamshoot.bvp.newton import Newton, Rules, Step
from hamshoot.bvp.records import BVPStatus

_CUTS = 2  # of the most nonlinear segments, without an accepted step in between
_NOISE = 1e-6  # corrections below this that stop shrinking are put down to the flow's accuracy
_NEARLY_SINGULAR = 1e-10  # reciprocal condition number that explains a failure
_CONTRACTION = 0.25  # of corrections, by which a linearisation is kept
_MIXED = 4  # corrections of one linearisation, at most
_PATIENCE = 6  # steps in a row without a correction below 0.8 of the least one


@dataclass
class ErrorOriented(Rules):
    """NLEQ-ERR, for exact linearisations.

    `residual` is what scaled defects and boundary residuals may come to at the end.
    """

    least: float
    residual: float
    last: tuple[NDArray, NDArray, float] | None = None  # correction, simplified, λ of a step taken
    cuts: int = 0  # since then
    changed: bool = False  # whether λ was reduced or raised in this step

    def first(self, step: Step) -> float:
        """A-priori λ from the nonlinearity seen in the step before, if on the same mesh."""
        self.changed = False
        if self.last is None or self.last[0].shape != step.correction.shape:
            return 1.0
        correction, simplified, damping = self.last
        deviation = step.norm(simplified - step.correction) * step.size
        if deviation == 0:
            return 1.0
        return min(1.0, step.norm(correction) * step.norm(simplified) * damping / deviation)

    def following(
        self, step: Step, damping: float, simplified: NDArray | None, level: float
    ) -> float | None:
        """The restricted monotonicity test; λ that would minimise the bound of the level."""
        if simplified is None:
            self.changed = True
            return damping / 4
        deviation = step.norm(simplified - (1 - damping) * step.correction)
        optimal = 0.5 * step.size * damping**2 / deviation if deviation > 0 else np.inf
        if not level <= (1 - damping / 4) * step.size:
            self.changed = True
            return float(min(optimal, damping / 2))
        if not self.changed and min(1.0, optimal) >= 4 * damping:
            self.changed = True
            return float(min(1.0, optimal))
        return None

    def judge(self, step: Step, newton: Newton) -> End | NDArray | None:
        """Cut the most nonlinear segments where no λ passed, unless that is of no use."""
        if step.end is None or step.simplified is None:
            self.last = None
            self.cuts += 1
            return self._failed(step, newton)
        self.last, self.cuts = (step.correction, step.simplified, step.damping), 0
        if not step.full or step.level > newton.tol:
            return None
        defect, boundary = step.residuals
        if max(defect, boundary) <= self.residual:
            return End(BVPStatus.CONVERGED)
        if step.level > 0.5 * step.size:
            detail = f"Scaled defect {defect:.1e}, boundary residual {boundary:.1e}."
            return End(BVPStatus.ACCURACY_LIMIT, detail)
        return None

    def _failed(self, step: Step, newton: Newton) -> End | NDArray:
        rcond, nonlinearity = newton.algebra.rcond, _nonlinearity(step)
        room = newton.mesh.max_nodes - step.start.t.size
        if rcond < _NEARLY_SINGULAR:
            return End(BVPStatus.SINGULAR, conditioning(rcond))
        if step.size <= _NOISE:
            return End(BVPStatus.ACCURACY_LIMIT, f"The last correction was {step.size:.1e}.")
        if self.cuts > _CUTS or room <= 0 or not nonlinearity.max() > 0:
            return End(BVPStatus.NO_DESCENT, conditioning(rcond))
        pieces = np.ones(nonlinearity.size, int)
        order = np.argsort(-nonlinearity, kind="stable")
        order = order[~(nonlinearity[order] < 0.1 * nonlinearity.max())]
        pieces[order[:room]] = 2
        return pieces


@dataclass
class Chord(Rules):
    """For linearisations of a model, which are cheap to use and never exact.

    A linearisation is kept as long as each correction is below a quarter of the one before: the
    error of the model and the frozen linearisation both show there. Corrections of one
    linearisation are mixed. λ is halved, down to `least`, and goes up again by four. Where a fresh
    linearisation does not contract although the step is small, or no λ passes, the segments with
    the largest defects are halved: it is there that the model falls short.
    """

    least: float = 1 / 64
    damping: float = 1.0  # of the last step
    past: list[tuple[NDArray, NDArray]] = field(default_factory=list)  # iterates and corrections
    cuts: int = 0  # where no λ passed
    smallest: float = np.inf  # correction
    crawling: int = 0  # steps since it shrank

    def move(self, step: Step) -> NDArray:
        """The correction, improved by Anderson mixing over those of the same linearisation.

        What a frozen, discretised system leaves of an error is linear in it, and of few shapes:
        the combination of the last corrections that is least says where they lead to.
        """
        if step.fresh:
            self.past = []
        if not self.past:
            return step.correction
        y, d = (np.stack([*v[::-1]]) for v in zip(*self.past, strict=True))
        dy, dd = step.start.y - y, step.correction - d
        columns = (dd / step.scale).reshape(len(d), -1).T
        share = np.linalg.lstsq(columns, (step.correction / step.scale).ravel(), rcond=1e-10)[0]
        return step.correction - np.tensordot(share, dy + dd, 1)

    def first(self, step: Step) -> float:
        """Four times the last one."""
        return min(1.0, 4 * self.damping)

    def following(
        self, step: Step, damping: float, simplified: NDArray | None, level: float
    ) -> float | None:
        """The restricted monotonicity test; half of λ."""
        return None if level <= (1 - damping / 4) * step.size else damping / 2

    def keep(self, step: Step) -> bool:
        """Whether it contracts; if so, remember its correction."""
        contracts = step.full and step.level <= _CONTRACTION * step.size
        if contracts:
            self.past = [*self.past[1 - _MIXED :], (step.start.y, step.correction)]
        return contracts

    def judge(self, step: Step, newton: Newton) -> End | NDArray | None:
        """Give up where corrections do not shrink, or shrink no more at the flow's accuracy."""
        tol = newton.tol
        if step.end is None:
            self.damping = 1.0
            self.cuts += 1
            tried = step.trial is not None and bool(step.trial[0].finite.all())
            pieces = None
            if step.size < 0.1 and self.cuts <= 2 and tried:
                pieces = _largest_defects(step, newton)
            return End(BVPStatus.NO_DESCENT) if pieces is None else pieces
        self.damping = step.damping
        self.crawling = 0 if step.size < 0.8 * self.smallest else self.crawling + 1
        self.smallest = min(self.smallest, step.size)
        if self.crawling == _PATIENCE:
            return End(BVPStatus.SLOW)
        residual = max(step.residuals)
        if step.full and step.level <= tol and residual <= tol:
            return End(BVPStatus.CONVERGED)
        poor = step.full and step.fresh and step.level > _CONTRACTION * step.size
        if poor and step.size < 0.05:
            if step.size < 30 * tol and residual < 3 * tol:
                return End(BVPStatus.ACCURACY_LIMIT)
            return _largest_defects(step, newton)
        return None


def _nonlinearity(step: Step) -> NDArray:
    """What each segment's defect has beyond its linear prediction (1 − λ)·defect, shape (S,)."""
    assert step.trial is not None  # one λ at least was tried
    trial, damping = step.trial
    remainder = np.abs((trial.defects - (1 - damping) * step.start.defects) / step.scale).max(1)
    return np.where(np.isfinite(remainder), remainder, np.inf)


def _largest_defects(step: Step, newton: Newton) -> NDArray | None:
    """Pieces: two of the segments with the largest defects at the last iterate; None if no room."""
    point = step.start if step.end is None else step.end
    bad = np.abs(point.defects / newton.scale(point.y)).max(1)
    pieces = np.where(bad >= 0.05 * bad.max(), 2, 1)
    return pieces if point.t.size + np.sum(pieces - 1) <= newton.mesh.max_nodes else None
