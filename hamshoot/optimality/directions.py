"""J along directions from a stationary network: the steepest off the kinks, and what J shows."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.optimality import formulas
from hamshoot.optimality.expansion import RANK_TOLERANCE, Expansion, negligible

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Fall of J, relatively, below which a descent is not told from rounding.
SEEN = 1e-12
#: Step lengths along a direction, as shares of ‖W‖; corrections of each back to the entries held.
LENGTHS, CORRECTIONS = 0.5 ** np.arange(0, 24), 3


class Descent(NamedTuple):
    """What J does along a direction.

    Attributes
    ----------
    falls : tuple of (float, float)
        Step lengths at which J is lower, from the largest on, and the change of J there.
    lowest : ndarray, shape (L, w, w+1), or None
        The controls of the lowest J met; (n,) where a map is learned.
    """

    falls: tuple[tuple[float, float], ...]
    lowest: NDArray | None


def followed(at: Expansion, direction: NDArray) -> Descent:
    """J along a direction (n,) of length 1, straight and with the entries held set back to 0.

    The straight step leaves them at second order, and each costs to first order.
    """
    step = direction.reshape(at.controls.shape)
    falls, best, lowest = [], at.objective, None
    for length in LENGTHS * max(1.0, float(np.linalg.norm(at.controls))):
        points = _set_back(at, at.controls + length * step)
        values = [_objective(at, W) for W in points]
        least = int(np.argmin(values))
        if values[least] < at.objective - SEEN * abs(at.objective):
            falls.append((float(length), values[least] - at.objective))
        if values[least] < best:
            best, lowest = values[least], points[least]
    return Descent(tuple(falls), lowest if falls else None)


def steepest(at: Expansion, entries: NDArray, slack: float) -> tuple[float, NDArray]:
    """Least slope −λΣ⟨v, r(a)⟩ of J over directions with |a| ≤ 1, as a share of λ max|v|.

    Parameters
    ----------
    entries : ndarray of bool, shape (L, w, N)
        Held or concave ones; a is the change that a direction makes to them.
    slack : float
        Every entry costs so much less to leave 0, or gives so much more. If the least slope is 0
        even so, the true one is positive for every direction that moves an entry.

    Returns
    -------
    float, ndarray of shape (n,)
        And the direction. One linear program for each choice of the sides of the concave entries,
        on which J is concave; the others are convex. NaN where a program failed.
    """
    from scipy.optimize import linprog

    U, sizes, V = np.linalg.svd(at.fixed[entries[at.fixed_entries]], full_matrices=False)
    kept = sizes > negligible(sizes[0])
    if not kept.any():  # no control moves these entries
        return 0.0, np.zeros(at.controls.size)
    U, back = U[:, kept], V[kept].T / sizes[kept]
    assert at.kinks is not None  # there are entries on one
    force = at.kinks.force[entries] / np.abs(at.kinks.force).max()
    d, concave = at.kinks.slopes[entries], at.kinks.concave[entries]
    # J's slopes for a > 0 and for −a > 0.
    up, down = -force * (1 - d) - slack, -force * (d - at.kinks.low) - slack
    convex = np.flatnonzero(~concave)
    count, (k, r) = len(convex), U.shape
    # The variables are z with a = Uz, and for each convex entry its cost t ≥ up·a, t ≥ −down·a.
    costs = np.block([[up[convex, None] * U[convex], -np.eye(count)],
                      [-down[convex, None] * U[convex], -np.eye(count)]])
    box = np.block([[U, np.zeros((k, count))], [-U, np.zeros((k, count))]])
    best, direction = 0.0, np.zeros(r)
    for signs in product((1.0, -1.0), repeat=int(concave.sum())):
        sides = np.array(signs)
        slope = np.where(sides > 0, up[concave], -down[concave])
        side = np.block([-sides[:, None] * U[concave], np.zeros((len(sides), count))])
        end = linprog(np.concatenate([slope @ U[concave], np.ones(count)]),
                      np.concatenate([costs, box, side]),
                      np.concatenate([np.zeros(2 * count), np.ones(2 * k), np.zeros(len(sides))]),
                      bounds=(None, None))
        if end.status != 0:
            return float("nan"), np.zeros(at.controls.size)
        if end.fun < best:
            best, direction = float(end.fun), end.x[:r]
    return best, back @ direction


def _objective(at: Expansion, controls: NDArray) -> float:
    with np.errstate(all="ignore"):
        setting, W = at.placed(controls)
        end = formulas.roll_out(setting, W, at.steps)[-1]
        value = float(formulas.objective(setting, end, W, at.steps)[0])
    return value if np.isfinite(value) else np.inf


def _set_back(at: Expansion, W: NDArray) -> list[NDArray]:
    """W, and W with the entries held set back to 0."""
    if at.kinks is None or not at.kinks.held.any():
        return [W]
    held = at.kinks.held
    rows, corrected = at.fixed[held[at.fixed_entries]], W
    for _ in range(CORRECTIONS):
        with np.errstate(all="ignore"):
            setting, moved = at.placed(corrected)
            off = formulas.roll_out(setting, moved, at.steps)[:-1][held]
        if not np.all(np.isfinite(off)):
            return [W]
        back = np.linalg.lstsq(rows, off, rcond=RANK_TOLERANCE)[0]
        corrected = corrected - back.reshape(W.shape)
    return [W, corrected]
