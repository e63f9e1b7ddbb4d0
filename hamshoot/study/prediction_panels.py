"""Panels of what a network predicts: numbers over the true ones, and the confusion of classes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.solution.mistakes import check_solution
from hamshoot.study.looks import GREY, LABEL, PALETTE, TICK, axes_or_new, dress, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from hamshoot.network.leaky_resnet import LeakyResNet
    from hamshoot.solution.solution import Solution

#: Rows drawn of each set at most, evenly over all; of mapped data no more are read.
MOST_ROWS = 2000
#: Classes up to which counts are written into their cells, and labels of them shown in full.
MOST_COUNTS, MOST_LETTERS = 12, 14


def can_predict(solution: Solution) -> bool:
    """Whether there are targets that a network of the solution predicts."""
    return solution.problem.Y is not None and not solution.problem.hard_endpoint


def plot_predictions(
    solution: Solution, ax: Axes | None = None, target: int | str | None = None,
    legend: bool = True,
) -> Axes:
    """Predictions over the true values, training rows and held-out ones, with the diagonal.

    Parameters
    ----------
    solution : Solution
        With a loss; its own network, or that of 20 layers of a continuous path.
    ax : Axes, optional
    target : int or str, optional
        Which target, by column or name, in the user's units; by default the only one, or all, each
        in deviations of its training values.
    legend : bool
        Above the axes, with the number of rows.

    Raises
    ------
    ValueError
        For a hard endpoint, and a target that there is not.

    Notes
    -----
    Of more than `MOST_ROWS` rows so many are drawn. Cost O(L w² N).
    """
    check_solution("plot.plot_predictions", solution)
    network, column = _network(solution), _column(solution, target)
    ax = axes_or_new(ax)
    styles: tuple[dict[str, Any], ...] = (
        dict(marker="o", ms=4, mfc="none", mec=PALETTE[0], mew=0.8, alpha=0.7),
        dict(marker="o", ms=4.5, mfc=PALETTE[1], mec="none", alpha=0.9))
    drawn = []
    for (name, X, Y), style in zip(_rows(solution), styles, strict=False):
        points = _pairs(network, X, Y, column)
        drawn.append(points)
        ax.plot(*points, ls="", zorder=3, label=f"{name} ({len(Y)} rows)", **style)
    _diagonal(ax, np.concatenate(drawn, axis=1))
    names = solution.problem.target_names
    units = "standard deviations" if column is None else \
        textwrap.shorten(names[column], 30, placeholder="…") if names else "target"
    dress(ax, f"true ({units})", f"predicted ({units})")
    if legend:
        legend_above(ax, *ax.get_legend_handles_labels())
    return ax


def plot_confusion(solution: Solution, ax: Axes | None = None) -> Axes:
    """How often each class was taken for which, in the held-out rows or, without any, in training.

    A row for each true class, dark where most of its rows are; the counts are written in.

    Parameters
    ----------
    solution : Solution
        Of a problem with classes.
    ax : Axes, optional

    Raises
    ------
    ValueError
        For a problem without classes, or with a hard endpoint.

    Notes
    -----
    Cost O(L w² N).
    """
    classes, network = solution.problem.classes, _network(solution)
    if classes is None:
        raise ValueError("solution: expected one of a problem with classes; plot_predictions draws "
                         "numbers")
    ax = axes_or_new(ax)
    name, X, Y = _rows(solution)[-1]
    counts = confusion(network, X, Y)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    labels = [textwrap.shorten(label, MOST_LETTERS, placeholder="…") or label[:MOST_LETTERS]
              for label in classes]
    places = np.arange(len(labels))
    every = max(1, -(-len(labels) // 20))
    long = max(map(len, labels)) * len(labels) > 30
    ax.set_xticks(places[::every], labels[::every], rotation=90 if long else 0)
    ax.set_yticks(places[::every], labels[::every])
    if len(labels) <= MOST_COUNTS:
        for (i, k), value in np.ndenumerate(counts):
            ax.text(k, i, str(value), ha="center", va="center", fontsize=TICK,
                    color="white" if shares[i, k] > 0.5 else GREY)
    met = np.trace(counts) / max(counts.sum(), 1)
    ax.set_title(f"{name}: {met:.1%} of {counts.sum()} rows right", fontsize=LABEL)
    dress(ax, "predicted class", "true class")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def confusion(network: LeakyResNet, X: NDArray, Y: NDArray) -> NDArray:
    """Counts (classes, classes) of rows by true class, down, and predicted one, across.

    Parameters
    ----------
    network : LeakyResNet
        Of classes.
    X, Y : ndarray, shapes (K, d_in), (K, classes)
        Y one-hot.
    """
    count = Y.shape[1]
    true, found = np.argmax(Y, axis=1), np.argmax(network.predict(X), axis=1)
    return np.bincount(true * count + found, minlength=count**2).reshape(count, count)


# -- parts -----------------------------------------------------------------------------------------


def _network(solution: Solution) -> LeakyResNet:
    if not can_predict(solution):
        raise ValueError("solution: expected one of a problem with a loss, got a hard endpoint")
    return solution.to_network()


def _rows(solution: Solution) -> list[tuple[str, NDArray, NDArray]]:
    """Name, inputs and targets of the training rows and, where there are any, the held-out ones."""
    problem = solution.problem
    found: list[tuple[str, Any, Any]] = [("training", problem.X, problem.Y)]
    if problem.X_test is not None:
        found.append(("held out", problem.X_test, problem.Y_test))
    return found


def _column(solution: Solution, target: int | str | None) -> int | None:
    """Number of the target that is drawn; None for all of several."""
    count, names = solution.problem.d_out, solution.problem.target_names or ()
    if target is None:
        return 0 if count == 1 else None
    if isinstance(target, str) and target in names:
        return names.index(target)
    if isinstance(target, (int, np.integer)) and 0 <= target < count:
        return int(target)
    known = f"one of {', '.join(names[:8])}" if names else "a column"
    raise ValueError(f"target: expected {known} or 0 to {count - 1}, got {target!r}")


def _pairs(network: LeakyResNet, X: Any, Y: Any, column: int | None) -> NDArray:
    """True and predicted values, (2, points): of one target, or of all in their deviations."""
    every = slice(None, None, max(1, -(-len(X) // MOST_ROWS)))
    true = np.asarray(Y[every], dtype=float)
    found = network.predict(np.asarray(X[every], dtype=float))
    if column is not None:
        return np.array([true[:, column], found[:, column]])
    scaling = network.target_scaling
    return np.array([scaling.apply(true).ravel(), scaling.apply(found).ravel()])


def _diagonal(ax: Axes, points: NDArray) -> None:
    """Where predictions are right; both axes show all points."""
    finite = points[np.isfinite(points)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    margin = 0.04 * (high - low) or 1.0
    low, high = low - margin, high + margin
    ax.plot([low, high], [low, high], color=GREY, lw=0.8, zorder=2, label="_diagonal")
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_aspect("equal", adjustable="box")
