"""Panels of several solutions side by side: their convergence, and paths of their samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.solution.mistakes import check_solution, described, instead_of_solution
from hamshoot.study.looks import GREY, axes_or_new, colours, dress, legend_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from hamshoot.solution.solution import Solution

#: Convergence is shown down to this share of the best objective.
CONVERGENCE_SHARE = 1e-6
#: Lines grow by this for each row drawn later, so that none hides under one that coincides.
WIDER = 0.6


def plot_convergence(
    solutions: Mapping[str, Solution] | Solution, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Objective minus the best of all, against the seconds it took.

    The thick line is the best so far, the thin one every record, the dot the solution returned. A
    record has the smoothing of its stage and may lie below the objective of the network itself; the
    thick line never does. Differences below 10⁻⁶ of the best are drawn on the lower edge.

    Parameters
    ----------
    solutions : mapping of name to Solution, or a Solution
    ax : Axes, optional
    legend : bool
        Beside the axes, when there are several names.
    """
    ax, solutions = axes_or_new(ax), named(solutions)
    palette = colours(solutions)
    finals = [s.objective for s in solutions.values() if np.isfinite(s.objective)]
    best = min(finals, default=0.0)
    floor = CONVERGENCE_SHARE * max(abs(best), np.finfo(float).tiny)
    clocks = []
    for row, (name, solution) in enumerate(solutions.items()):
        width = 1.7 + WIDER * (len(solutions) - 1 - row)
        seconds, objective, so_far = _history(solution)
        clocks.append(seconds)
        style: dict[str, Any] = dict(color=palette[name])
        ax.plot(seconds, np.maximum(objective - best, floor), lw=0.7, alpha=0.4, **style)
        ax.plot(seconds, np.maximum(so_far - best, floor), lw=width, label=name, **style)
        ax.plot(seconds[-1:], np.maximum(so_far[-1:] - best, floor), "o", ms=5, clip_on=False,
                zorder=4, **style)
    _scale_convergence(ax, np.concatenate(clocks), floor)
    dress(ax, "seconds", r"$J - J_{\mathrm{best}}$")
    if legend and len(solutions) > 1:
        legend_beside(ax, *ax.get_legend_handles_labels())
    return ax


def plot_paths(
    solutions: Mapping[str, Solution] | Solution,
    ax: Axes | None = None,
    samples: int | Sequence[int] = 3,
    legend: bool = True,
) -> Axes:
    """Paths of a few samples through the layers, on the two common principal components.

    The components are those of all columns of A_p, of all samples and solutions, each solution with
    the same weight and each depth with its share of p. Dots mark the layers, rings the
    beginning A_0, squares the end A_1. With width 1 the axes are p and A_p itself.

    Parameters
    ----------
    solutions : mapping of name to Solution, or a Solution
        Of one width and one number of samples.
    ax : Axes, optional
    samples : int or sequence of int
        How many samples, chosen far apart, or which.
    legend : bool
        Beside the axes.

    Raises
    ------
    ValueError
        If the solutions differ in width or samples, or a sample does not exist.
    """
    ax, solutions = axes_or_new(ax), named(solutions)
    palette = colours(solutions)
    centre, axes_, shares = common_components(solutions)
    chosen = _chosen_samples(samples, next(iter(solutions.values())))
    flat = len(axes_) == 1
    for row, (name, solution) in enumerate(solutions.items()):
        above = len(solutions) - 1 - row
        for k, sample in enumerate(chosen):
            points = (solution.representations[:, :, sample] - centre) @ axes_.T
            x, y = (solution.p, points[:, 0] + centre[0]) if flat else points.T
            style: dict[str, Any] = dict(color=palette[name])
            dots: dict[str, Any] = dict(marker=".", ms=5) if solution.layers else {}
            ax.plot(x, y, lw=1.2 + WIDER * above, label=None if k else name, **dots, **style)
            ax.plot(x[-1:], y[-1:], "s", ms=4 + 1.5 * above, zorder=4, **style)
            ax.plot(x[:1], y[:1], "o", ms=7, mfc="white", mec=GREY, zorder=5)
    if flat:
        dress(ax, "$p$", "$A_p$")
    else:
        ax.set_aspect("equal", adjustable="datalim")
        first, second = (f"principal component {k + 1} ({s:.0%})" for k, s in enumerate(shares))
        dress(ax, first, second)
    if legend:
        legend_beside(ax, *_with_ends(ax, len(solutions) > 1))
    return ax


def named(solutions: Any) -> dict[str, Solution]:
    """Solutions by name: of a mapping, of rows of a comparison, or of one by its method."""
    if hasattr(solutions, "representations"):
        return {solutions.method: solutions}
    if not isinstance(solutions, Mapping):
        rows = getattr(solutions, "rows", solutions)  # of a comparison
        if not isinstance(rows, Iterable) or isinstance(rows, (str, bytes)):
            raise TypeError(f"solutions: expected a mapping of name to Solution, got "
                            f"{described(solutions)}{instead_of_solution('plot.figure', rows)}")
        rows = list(rows)
        for row in rows:
            if not (hasattr(row, "name") and hasattr(row, "solution")):
                raise TypeError(
                    "solutions: expected a mapping of name to Solution, "
                    f"{{'first': …, 'second': …}}, got {described(row)} without a name")
        solutions = {row.name: row.solution for row in rows}
    if not solutions:
        raise ValueError("solutions: expected at least one, got none")
    for one in solutions.values():
        check_solution("plot.figure", one)
    return dict(solutions)


def _history(solution: Solution) -> tuple[NDArray, NDArray, NDArray]:
    """Seconds, objective and best so far, ending with the solution itself; finite records only."""
    records = [(r.seconds, r.objective) for r in solution.history if np.isfinite(r.objective)]
    last = records[-1][0] if records else 0.0
    records.append((max(solution.seconds, last), solution.objective))
    seconds, objective = np.array(records).T
    so_far = np.maximum(np.minimum.accumulate(objective), solution.objective)
    return seconds, objective, so_far


def _scale_convergence(ax: Axes, seconds: NDArray, floor: float) -> None:
    heights = np.concatenate([line.get_ydata() for line in ax.lines])
    highest = heights.max()
    if highest > floor:
        ax.set_yscale("log")
        ax.set_ylim(max(floor, 0.5 * heights.min()), 2 * highest)
    else:
        ax.set_ylim(-1, 1)
        ax.set_yticks([0])
    positive = seconds[seconds > 0]
    if len(positive) and positive.max() > 100 * positive.min():
        ax.set_xscale("log")
        ax.set_xlim(0.8 * positive.min(), 1.25 * positive.max())
    else:
        ax.set_xlim(0, 1.05 * positive.max() if len(positive) else 1)


def common_components(solutions: Mapping[str, Solution]) -> tuple[NDArray, NDArray, NDArray]:
    """Centre (w,), principal directions (2 or 1, w) and their shares of the variance."""
    shapes = {s.representations.shape[1:] for s in solutions.values()}
    if len(shapes) > 1:
        found = " and ".join(f"{w} × {n}" for w, n in sorted(shapes))
        raise ValueError(f"solutions: expected one width and number of samples, got {found}")
    width, samples = shapes.pop()
    mean, second = np.zeros(width), np.zeros((width, width))
    for solution in solutions.values():
        share = np.gradient(solution.p) / np.sum(np.gradient(solution.p)) / samples
        for weight, A in zip(share / len(solutions), solution.representations, strict=True):
            mean += weight * A.sum(axis=1)
            second += weight * (A @ A.T)
    values, vectors = np.linalg.eigh(second - np.outer(mean, mean))
    axes_ = vectors[:, ::-1].T[:2]
    # A sign that does not depend on the eigenvalue routine: the largest entry is positive.
    largest = np.take_along_axis(axes_, np.abs(axes_).argmax(axis=1)[:, None], axis=1)
    values = np.maximum(values[::-1], 0)
    return mean, axes_ * np.sign(largest), values[:2] / max(values.sum(), np.finfo(float).tiny)


def _chosen_samples(samples: int | Sequence[int], solution: Solution) -> list[int]:
    """Given samples, or so many that begin and end far from each other."""
    ends = np.concatenate([solution.representations[0], solution.representations[-1]]).T
    if not isinstance(samples, (int, np.integer)):
        for sample in samples:
            if not 0 <= sample < len(ends):
                raise ValueError(f"samples: expected indices 0 to {len(ends) - 1}, got {sample}")
        return list(samples)
    if samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}")
    chosen = [int(np.argmax(np.linalg.norm(ends - ends.mean(axis=0), axis=1)))]
    while len(chosen) < min(samples, len(ends)):
        apart = np.linalg.norm(ends[:, None] - ends[chosen], axis=2).min(axis=1)
        chosen.append(int(np.argmax(apart)))
    return chosen


def _with_ends(ax: Axes, with_names: bool) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    handles, labels = ax.get_legend_handles_labels() if with_names else ([], [])
    handles = [*handles, Line2D([], [], ls="", marker="o", ms=7, mfc="white", mec=GREY),
               Line2D([], [], ls="", marker="s", ms=5, color=GREY)]
    return handles, [*labels, "$A_0$", "$A_1$"]
