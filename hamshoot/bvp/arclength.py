"""Pseudo-arclength continuation of a two-point boundary value problem, through its folds.

The family is ẏ = f(t, y, μ), g(y_0, y_S, μ) = 0 with n states. The parameter is one more state,
z = (y, μ) with μ̇ = 0, so that `hamshoot.bvp.solve.solve_two_point` solves it as it is; the equation
that is missing says how far the solution is from the last one, z*, along the way that leads there,

    ⟨τ, (z_0, z_S)/s⟩ − ⟨τ, (z*_0, z*_S)/s⟩ = ds,

τ the unit vector from the last solution but one to the last, s the sizes of the components. Only
the ends enter, which determine the solution between them, so that the equation is a boundary
condition like the others; what is measured is the arclength of the curve of the ends. At a fold the
system in y alone is singular and the one in z is not (H. B. Keller 1977). Steps are predicted along
the secant, halved where Newton's method fails or the curve bends by more than half a right angle,
and grown where it is quick. Where dμ/ds changes its sign a fold lies between: it is solved for as
the least or largest μ, by parabolas through the three nearest solutions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamshoot.bvp.records import Boundary, Flow
from hamshoot.bvp.solve import solve_two_point

#: Least cosine of the angle between two steps: what turns more is taken in shorter ones.
BEND = 0.7
#: Least step, as a share of the first.
LEAST = 2.0**-12
#: Share of a step below which two solutions make no secant.
NEAR = 0.1
#: Newton iterations up to which a step grows, and by how much.
QUICK, GROWTH = 5, 2.0
#: Newton iterations of a step at most.
MOST_ITERATIONS = 12
#: Parabolas through the nearest three solutions, until the fold moves by less than this.
REFINEMENTS, FOLD_TOL = 12, 1e-9


class OnCurve(NamedTuple):
    """A solution on the curve."""

    t: NDArray
    """(M,) nodes."""
    z: NDArray
    """(M, n + 1) states, the parameter last."""

    @property
    def mu(self) -> float:
        """μ."""
        return float(self.z[0, -1])


@dataclass
class Curve:
    """What was followed.

    Attributes
    ----------
    points : list of OnCurve
        In the order of the curve, folds among them.
    folds : list of int
        Which of the points are folds.
    reason : str
        Why it ends: "target", "window" (μ has left it), "steps" or "failed".
    """

    points: list[OnCurve]
    folds: list[int] = field(default_factory=list)
    reason: str = ""


def follow(
    flow: Flow,
    boundary: Boundary,
    before: OnCurve,
    here: OnCurve,
    *,
    target: float | None = None,
    window: tuple[float, float] = (-np.inf, np.inf),
    step: float | None = None,
    most: float = np.inf,
    most_mu: float = np.inf,
    max_steps: int = 200,
    tol: float = 1e-8,
    scale: ArrayLike | None = None,
    seen: Callable[[OnCurve], bool | None] | None = None,
) -> Curve:
    """Follow a curve of solutions from two of them on.

    Parameters
    ----------
    flow : Flow
        Of z = (y, μ), n + 1 states of which the last does not move.
    boundary : callable
        ``boundary(z_0, z_S) -> g (n,), ∂g/∂z_0, ∂g/∂z_S (n, n + 1)``.
    before, here : OnCurve
        Two solutions, the way from the first to the second is the one to go.
    target : float, optional
        Ends with the solution at this μ, the first time that the curve comes by.
    window : (float, float)
        Ends where μ leaves it.
    step, most : float
        First and longest step, in units of the scaled ends; the first is by default the distance
        of the two solutions.
    most_mu : float
        Longest change of μ in a step.
    max_steps : int
    tol : float
        Of `solve_two_point`.
    scale : array_like, shape (n + 1,), optional
        Sizes of the components; by default max(1, max_k |z_kj|) at `here`, 1 for μ.
    seen : callable, optional
        Called with each solution; returning True ends it, with the reason "stopped".

    Returns
    -------
    Curve
        It begins with `before` and `here`.

    Notes
    -----
    A step costs a solve of n + 1 states, O(S n³) an iteration.
    """
    if scale is None:
        sizes = np.maximum(1.0, np.abs(here.z).max(0))
        sizes[-1] = 1.0
    else:
        sizes = np.asarray(scale, dtype=float)
    run = _Follower(flow, boundary, sizes, tol, most_mu, [before, here])
    ds = run.distance(before, here) if step is None else step
    curve = run.curve
    first = ds = min(ds, most)
    for _ in range(max_steps):
        found = run.stepped(ds)
        while found is None and ds > LEAST * first:
            ds /= 2
            found = run.stepped(ds)
        if found is None:
            curve.reason = "failed"
            return curve
        new, quick = found
        last = curve.points[-1]
        if target is not None and (last.mu - target) * (new.mu - target) <= 0 != last.mu - target:
            end = run.at(target, last, new)
            if end is not None:
                curve.points.append(end)
                curve.reason = "target"
                return curve
        curve.points.append(new)
        run.turned()
        if seen is not None and seen(new):
            curve.reason = "stopped"
            return curve
        if not window[0] <= new.mu <= window[1]:
            curve.reason = "window"
            return curve
        ds = min(most, GROWTH * ds) if quick else ds
    curve.reason = "steps"
    return curve


class _Follower:
    """One call of `follow`: solves at steps, at values of μ, and at folds."""

    def __init__(self, flow: Flow, boundary: Boundary, scale: NDArray, tol: float,
                 most_mu: float, points: list[OnCurve]):
        self.flow, self.boundary, self.scale, self.tol = flow, boundary, scale, tol
        self.most_mu = most_mu
        self.curve = Curve(points)

    def ends(self, point: OnCurve) -> NDArray:
        """Scaled ends (2(n + 1),); μ counts once."""
        first = point.z[0] / self.scale
        last = point.z[-1] / self.scale
        last[-1] = 0.0
        return np.concatenate([first, last])

    def distance(self, a: OnCurve, b: OnCurve) -> float:
        """Of the scaled ends."""
        return float(np.linalg.norm(self.ends(b) - self.ends(a)))

    def way(self, a: OnCurve, b: OnCurve) -> NDArray:
        """The unit vector from one to the other."""
        difference = self.ends(b) - self.ends(a)
        return difference / np.linalg.norm(difference)

    def stepped(self, ds: float) -> tuple[OnCurve, bool] | None:
        """The solution a step further, and whether it was quick; None where it is not had."""
        *others, here = self.curve.points
        # A fold may lie so close that a secant through it is made of rounding.
        before = next((point for point in reversed(others)
                       if self.distance(point, here) > NEAR * ds), others[0])
        way = self.way(before, here)
        ratio = ds / self.distance(before, here)
        if ratio * abs(here.mu - before.mu) > self.most_mu:
            return None
        guess = here.z + ratio * (here.z - _on(before, here.t))
        found = self.solved(here.t, guess, way, float(way @ self.ends(here)) + ds)
        if found is None:
            return None
        new, iterations = found
        moved = self.distance(here, new)
        if moved == 0 or float(way @ self.way(here, new)) < BEND or moved > 2 * ds \
                or abs(new.mu - here.mu) > 2 * self.most_mu:
            return None
        return new, iterations <= QUICK

    def solved(self, t: NDArray, z: NDArray, way: NDArray, value: float
               ) -> tuple[OnCurve, int] | None:
        """The solution where ⟨way, scaled ends⟩ has a value, from a guess at nodes t."""
        n = len(self.scale)
        row_a, row_b = way[:n] / self.scale, way[n:] / self.scale

        def bounded(za: NDArray, zb: NDArray) -> tuple[NDArray, NDArray, NDArray]:
            g, ga, gb = self.boundary(za, zb)
            return (np.append(g, row_a @ za + row_b @ zb - value), np.vstack([ga, row_a]),
                    np.vstack([gb, row_b]))

        result = solve_two_point(self.flow, bounded, t, z, tol=self.tol, max_iter=MOST_ITERATIONS,
                                 max_nodes=4 * len(t), scale=self.scale)
        if not result.success:
            return None
        return OnCurve(result.t, result.y), result.nit

    def at(self, mu: float, a: OnCurve, b: OnCurve) -> OnCurve | None:
        """The solution at a value of the parameter, between two."""
        share = (mu - a.mu) / (b.mu - a.mu)
        guess = a.z + share * (_on(b, a.t) - a.z)
        way = np.zeros(2 * len(self.scale))
        way[len(self.scale) - 1] = 1.0
        found = self.solved(a.t, guess, way, mu / float(self.scale[-1]))
        return None if found is None else found[0]

    def turned(self) -> None:
        """Where the last three solutions hold a turn of μ, put the fold among them."""
        points = self.curve.points
        if len(points) < 3 or (points[-2].mu - points[-3].mu) * (points[-1].mu - points[-2].mu) > 0:
            return
        if len(points) - 2 in self.curve.folds or len(points) - 3 in self.curve.folds:
            return
        fold = self.fold(*points[-3:])
        own = [*points[-3:], fold]
        way = self.way(points[-3], points[-1])
        own.sort(key=lambda point: float(way @ self.ends(point)))
        if fold is not points[-2]:
            points[-3:] = own
        self.curve.folds.append(next(k for k, one in enumerate(points) if one is fold))

    def fold(self, a: OnCurve, b: OnCurve, c: OnCurve) -> OnCurve:
        """The solution of extreme μ between three, b the most extreme of them."""
        sign = 1.0 if b.mu >= max(a.mu, c.mu) else -1.0
        way = self.way(a, c)
        for _ in range(REFINEMENTS):
            s = np.array([float(way @ self.ends(point)) for point in (a, b, c)])
            peak = _vertex(s - s[1], np.array([a.mu, b.mu, c.mu])) + s[1]
            if not s[0] < peak < s[2] or abs(peak - s[1]) < FOLD_TOL * (s[2] - s[0]):
                break
            left, right = (a, b) if peak < s[1] else (b, c)
            share = (peak - float(way @ self.ends(left))) / float(way @ (self.ends(right)
                                                                         - self.ends(left)))
            guess = left.z + share * (_on(right, left.t) - left.z)
            found = self.solved(left.t, guess, way, peak)
            if found is None:
                break
            new, moved = found[0], abs(found[0].mu - b.mu)
            better = sign * (new.mu - b.mu) >= 0
            if better:
                a, c = (a, b) if peak < s[1] else (b, c)
                b = new
            elif peak < s[1]:
                a = new
            else:
                c = new
            if better and moved <= FOLD_TOL * max(1.0, abs(b.mu)):
                break
        return b


def _vertex(s: NDArray, mu: NDArray) -> float:
    """Where the parabola through three points has its extremum; NaN for a line."""
    square, line, _ = np.polyfit(s, mu, 2)
    return float(-line / (2 * square)) if square else float("nan")


def _on(point: OnCurve, t: NDArray) -> NDArray:
    """The states of a solution at other nodes, linearly."""
    if len(point.t) == len(t) and np.array_equal(point.t, t):
        return point.z
    return np.stack([np.interp(t, point.t, column) for column in point.z.T], axis=1)
