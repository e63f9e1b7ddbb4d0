"""The path of samples through depth, with a slider over p.

What moves is in the page before any script runs: each sample is a polyline over the depths of its
panel, each singular value a bar with its heights. `walk.js` only reads them and moves dots and
bars, so that the page says the same without it, and on paper.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.report.drawing import Drawings
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.study.comparison_panels import common_components
from hamshoot.study.looks import PALETTE, colours
from hamshoot.support.html import Element, element

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.solution.solution import Solution

#: Samples and bars shown, layers up to which each is a point, points of other paths, and samples
#: that stand for a solution too large to hold its states.
SAMPLES, BARS, MOST_LAYERS, POINTS, STAND_IN = 24, 10, 120, 81, 200
#: Sizes of the two drawings of a panel, the margin around the samples and that of the axes.
WIDTH, PLANE, STRIP, MARGIN, FRAME = 340, 250, 118, 24, 17
#: Share of the largest singular value that bars begin at, and above which one counts as there.
SHARE, COUNTED = 1e-4, 1e-2
#: Letters of a name in the legend.
LONGEST = 40
#: Colours of targets, low to high.
LOW_TO_HIGH = (PALETTE[0], PALETTE[5], PALETTE[2], PALETTE[4], PALETTE[1])


def with_states(solution: Solution) -> Solution:
    """The solution, or where its states are not stored the same network on a few of its samples."""
    if solution.stored or solution.steps is None:
        return solution
    rows = np.unique(np.linspace(0, solution.problem.n_samples - 1, STAND_IN).astype(int))
    return solution_from_weights(
        solution.problem.subset(rows), solution.weights, solution.steps, status=solution.status,
        success=solution.success, message=solution.message, method=solution.method,
        integrator=solution.integrator)


@dataclass(frozen=True)
class Walk:
    """One solution at the depths that its panel shows.

    Attributes
    ----------
    p : ndarray, shape (K,)
    states : ndarray, shape (K, w, N)
    singular : tuple of two ndarray
        Of A_p, (K, at most BARS), and of W_p, the same at K depths or at K − 1 layers.
    counts : ndarray of int, shape (K,)
        Singular values of A_p above COUNTED of its largest.
    """

    p: NDArray
    states: NDArray
    singular: tuple[NDArray, NDArray]
    counts: NDArray

    @classmethod
    def of(cls, solution: Solution) -> Walk:
        """Layers of Euler as they are, up to MOST_LAYERS; other paths at POINTS depths."""
        if solution.integrator == "euler" and len(solution.p) <= MOST_LAYERS + 1:
            p, states, weights = solution.p, solution.representations, solution.weights
        else:
            p = np.linspace(0, 1, POINTS)
            point = solution.at(p)
            states, weights = point.representations, point.weights
        of_states, of_weights = (np.linalg.svd(of, compute_uv=False) for of in (states, weights))
        largest = of_states.max(axis=1, keepdims=True)
        return cls(p, states, (of_states[:, :BARS], of_weights[:, :BARS]),
                   np.sum(of_states > COUNTED * np.maximum(largest, 1e-300), axis=1))


def walk_section(solutions: Mapping[str, Solution], shown: Collection[str], drawings: Drawings
                 ) -> Element:
    """Slider, button, and a panel for each solution; with several also which are shown.

    Parameters
    ----------
    solutions : mapping of name to Solution
        Of one problem, with finite states.
    shown : collection of str
        Names of the panels that are shown at first.
    drawings : Drawings
        Whose stylesheet gets the colours.
    """
    walks = {name: Walk.of(solution) for name, solution in solutions.items()}
    problem = next(iter(solutions.values())).problem
    plane = _Plane.around(solutions, walks, problem)
    names = colours(solutions)
    panels, switches = [], []
    for number, (name, walk) in enumerate(walks.items(), start=1):
        swatch = element("span", class_=f"swatch {drawings.style(f'background:{names[name]}')}")
        panels.append(_panel(f"w{number}", name if len(walks) > 1 else None, swatch, walk,
                             plane, drawings, _layers(solutions[name], walk)))
        switches.append(element("label", element("input", type="checkbox", value=f"w{number}",
                                                 checked=name in shown), " ", name))
    controls = element(
        "div",
        element("label", "Depth p", for_="slider"),
        element("input", type="range", id="slider", min="0", max="1", step="0.001", value="1"),
        element("output", "p = 1", id="slider-read", for_="slider"),
        element("button", "Play", type="button", id="play"),
        class_="controls", id="controls", hidden=True)
    choice = element("fieldset", element("legend", "Networks shown"), *switches, class_="shown",
                     id="shown", hidden=True) if len(walks) > 1 else None
    return element("div", choice, controls, element("div", *panels, class_="walks"),
                   _legend(problem, drawings), class_="walking", id="walking")


def chosen_samples(problem: TrainingProblem) -> tuple[NDArray, NDArray]:
    """Samples to show and the bin of each: spread over the classes, or over the first target.

    Returns
    -------
    samples : ndarray of int, shape (at most SAMPLES,)
    bins : ndarray of int
        The class, or the fifth of the first target's values that the sample is in.
    """
    targets = problem.targets
    if problem.classes is not None:
        bins = np.argmax(targets, axis=0)
        order = np.argsort(bins, kind="stable")
    else:
        order = np.argsort(targets[0], kind="stable")
        bins = np.empty(len(order), dtype=int)
        bins[order] = np.arange(len(order)) * len(LOW_TO_HIGH) // len(order)
    count = min(SAMPLES, len(order))
    chosen = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
    return chosen, bins[chosen]


# -- the plane of the two components -----------------------------------------------------------


@dataclass(frozen=True)
class _Plane:
    """Two common principal components of all solutions, on a drawing of WIDTH × PLANE."""

    centre: NDArray
    axes: NDArray
    shares: NDArray
    samples: NDArray
    bins: NDArray
    low: NDArray
    scale: NDArray

    @classmethod
    def around(cls, solutions: Mapping[str, Solution], walks: Mapping[str, Walk],
               problem: TrainingProblem) -> _Plane:
        """The plane with the samples to show in view, both axes on one scale."""
        centre, axes, shares = common_components(solutions)
        samples, bins = chosen_samples(problem)
        plain = cls(centre, axes, shares, samples, bins, np.zeros(2), np.ones(2))
        seen = np.concatenate([plain.raw(walk).reshape(-1, 2) for walk in walks.values()])
        low, span = seen.min(axis=0), np.maximum(np.ptp(seen, axis=0), 1e-12)
        room = np.array([WIDTH - 2 * MARGIN, PLANE - 2 * MARGIN], dtype=float)
        scale = room / span
        if len(axes) == 2:
            scale = np.full(2, scale.min())
        return cls(centre, axes, shares, samples, bins, low - (room / scale - span) / 2, scale)

    def raw(self, walk: Walk) -> NDArray:
        """Coordinates of the samples shown, (K, samples, 2); with width 1 these are p and A_p."""
        points = np.einsum("aw,kwn->kna", self.axes,
                           walk.states[:, :, self.samples] - self.centre[:, None])
        if len(self.axes) == 2:
            return points
        p = np.broadcast_to(walk.p[:, None, None], points.shape)
        return np.concatenate([p, points + self.centre[0]], axis=2)

    def points(self, walk: Walk) -> NDArray:
        """The same on the drawing, y downwards."""
        x, y = np.moveaxis((self.raw(walk) - self.low) * self.scale + MARGIN, 2, 0)
        return np.stack([x, PLANE - y], axis=2)

    @property
    def labels(self) -> tuple[str, str]:
        """Of the axes."""
        if len(self.axes) == 1:
            return "depth p", "A"
        first, second = (f"principal component {k + 1} ({share:.0%})"
                         for k, share in enumerate(self.shares))
        return first, second


def _panel(key: str, name: str | None, swatch: Element, walk: Walk, plane: _Plane,
           drawings: Drawings, layers: int | None) -> Element:
    """One solution: samples on the plane above, singular values below."""
    heading = None if name is None else element("h3", swatch, " ", name)
    reading = element("p", f"At p = 1: {_counted(walk.counts[-1])}.", class_="reading")
    return element(
        "div", heading, _plane_drawing(key, walk, plane, drawings),
        _bars_drawing(key, walk, drawings), reading, class_="walk", id=key,
        data_p=_joined(walk.p, 4), data_counts=" ".join(map(str, walk.counts)),
        data_layers=layers)


def _plane_drawing(key: str, walk: Walk, plane: _Plane, drawings: Drawings) -> Element:
    points, samples = plane.points(walk), []
    for n, number in enumerate(plane.samples):
        colour = _bin_colour(plane.bins[n])
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points[:, n])
        (x0, y0), (x1, y1) = points[0, n], points[-1, n]
        stroke, fill = (drawings.style(f"{kind}:{colour}") for kind in ("stroke", "fill"))
        samples.append(element(
            "g", element("title", f"sample {number + 1}"),
            element("polyline", points=line, class_=f"way {stroke}"),
            element("polyline", points=line, class_=f"gone {stroke}"),
            element("circle", cx=f"{x0:.1f}", cy=f"{y0:.1f}", r=3.2, class_=f"start {stroke}"),
            element("circle", cx=f"{x1:.1f}", cy=f"{y1:.1f}", r=4, class_=f"here {fill}"),
            class_="sample"))
    across, up = plane.labels
    title = "Paths of samples through depth"
    least = int(walk.counts.min())
    where = walk.p[walk.counts == least]
    told = (f"{len(plane.samples)} samples on {across} and {up}. Rings mark A at p = 0, dots where "
            f"the samples are at the depth chosen. Fewest singular values of A are above a "
            f"hundredth of the largest, {least}, from p = {where[0]:.2g} to {where[-1]:.2g}.")
    return element(
        "svg", element("title", title, id=f"{key}-plane"), element("desc", told, id=f"{key}-told"),
        element("path", d=f"M{FRAME},{FRAME / 2}V{PLANE - FRAME}H{WIDTH - FRAME / 2}",
                class_="axes"),
        element("text", across, x=WIDTH / 2, y=PLANE - 4, class_="label"),
        element("text", up, x=0, y=0, class_="label",
                transform=f"translate(11 {PLANE / 2}) rotate(-90)"),
        *samples, viewBox=f"0 0 {WIDTH} {PLANE}", role="img", class_="plane",
        aria_labelledby=f"{key}-plane", aria_describedby=f"{key}-told")


def _bars_drawing(key: str, walk: Walk, drawings: Drawings) -> Element:
    """Singular values of A_p and of W_p on logarithmic scales of their own, four decades high."""
    base, tall, parts = STRIP - 20, STRIP - 26, []
    for side, (values, symbol) in enumerate(zip(walk.singular, "AW", strict=True)):
        heights = _heights(values, tall)
        room = WIDTH / 2 - 14
        step, left = room / max(BARS, 1), side * WIDTH / 2 + 7
        fill = drawings.style(f"fill:{PALETTE[side]}")
        for k in range(heights.shape[1]):
            now = heights[-1, k]
            parts.append(element(
                "rect", x=f"{left + k * step:.1f}", width=f"{0.72 * step:.1f}",
                y=f"{base - now:.1f}", height=f"{now:.1f}", class_=f"bar {fill}",
                data_h=_joined(heights[:, k], 1)))
        parts.append(element("text", f"singular values of {symbol}", x=left + room / 2,
                             y=STRIP - 5, class_="label"))
        parts.append(element("path", d=f"M{left},{base}h{room:.1f}", class_="axes"))
    of_states = walk.singular[0]
    told = (f"Bars on a logarithmic scale over four decades. Of A the largest is "
            f"{of_states[0, 0]:.3g} at p = 0 and {of_states[-1, 0]:.3g} at p = 1, where "
            f"{walk.counts[0]} and {walk.counts[-1]} are above a hundredth of it.")
    return element(
        "svg", element("title", "Singular values at the depth chosen", id=f"{key}-bars"),
        element("desc", told, id=f"{key}-high"), *parts, viewBox=f"0 0 {WIDTH} {STRIP}",
        role="img", class_="bars", data_base=base, aria_labelledby=f"{key}-bars",
        aria_describedby=f"{key}-high")


def _heights(values: NDArray, tall: float) -> NDArray:
    """0 at SHARE of the largest value of all depths, `tall` at that value."""
    largest = float(values.max(initial=0.0))
    if largest <= 0:
        return np.zeros_like(values)
    share = np.maximum(values / largest, SHARE)
    return tall * (1 - np.log(share) / np.log(SHARE))


def _legend(problem: TrainingProblem, drawings: Drawings) -> Element:
    """What the colours of samples mean."""
    _, bins = chosen_samples(problem)

    def dot(k: int) -> Element:
        return element("span", class_=f"dot {drawings.style(f'background:{_bin_colour(k)}')}")

    if problem.classes is not None:
        entries = [element("li", dot(k), " ", _short(problem.classes[k])) for k in np.unique(bins)]
        about = "class"
    else:
        words = ("lowest fifth", "second", "third", "fourth", "highest fifth")
        entries = [element("li", dot(k), " ", words[k]) for k in np.unique(bins)]
        about = _short(problem.target_names[0]) if problem.target_names else "first target"
    return element("div", element("span", f"Colours of samples, by {about}:"),
                   element("ul", *entries), class_="legend")


def _short(name: str) -> str:
    """A name that is no paragraph; whole it stands among the columns."""
    return name if len(name) <= LONGEST else f"{name[:LONGEST - 1]}…"


def _bin_colour(k: int) -> str:
    return (*LOW_TO_HIGH, PALETTE[3], PALETTE[6])[k % 7]


def _counted(count: int) -> str:
    several = "singular values" if count != 1 else "singular value"
    return f"{count} {several} of A above a hundredth of the largest"


def _joined(values: NDArray, decimals: int) -> str:
    return " ".join(f"{value:.{decimals}f}".rstrip("0").rstrip(".") for value in values)


def _layers(solution: Solution, walk: Walk) -> int | None:
    """Layers that the depths of a panel are the ends of; None where they are not."""
    return solution.layers if len(walk.singular[1]) == len(walk.p) - 1 else None
