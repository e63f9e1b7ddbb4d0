"""Figures of a sweep: quantities over one parameter as curves, over two as maps.

Over one parameter every branch has a colour and a line of its own, broken where the branch changes;
a thin upright line says where two branches have the same J. Branches of geodesics that were
followed through folds are drawn whole, in grey: solid where they are minima, dashed where not,
with a triangle at each fold. Points that are no answers are crosses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.study.looks import GREY, LABEL, PALETTE, TICK, dress
from hamshoot.study.sweep_points import NUMBERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from hamshoot.methods.indirect.arclength import GeodesicCurve
    from hamshoot.study.sweep_fields import SweepFields

LABELS = {"effective_depth": "effective depth L̃", "weight_decay": "weight decay λ",
          "epsilon": "smoothing ε", "width": "width w", "objective": "objective J",
          "loss": "loss", "test_error": "test error", "parameter_norm": "∫‖W‖²",
          "hamiltonian": "Hamiltonian H", "hamiltonian_drift": "Hamiltonian drift",
          "bottleneck_rank": "rank −2H/L̃", "stable_bottleneck_rank": "rank, without costate",
          "stationarity": "stationarity", "kinks": "activations on the kink", "branch": "branch"}
#: Quantities that are drawn on a logarithmic axis, where they spread over more than a decade.
LOGARITHMIC = ("objective", "loss", "test_error", "parameter_norm", "stationarity",
               "hamiltonian_drift")
#: Ratio of the largest value to the least from which an axis of a parameter is logarithmic.
WIDE = 4.0


def plot_sweep(sweep: SweepFields, quantities: tuple[str, ...] = (
        "objective", "hamiltonian", "bottleneck_rank")) -> Figure:
    """A panel for each quantity: curves over one parameter, maps over two.

    Parameters
    ----------
    sweep : Sweep
    quantities : tuple of str
        Of `hamshoot.study.sweep_points.NUMBERS`; over two parameters a map of the branches comes
        last.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        For no or more than two parameters, an unknown quantity, and a sweep without points.
    """
    from matplotlib.figure import Figure

    for name in quantities:
        if name not in NUMBERS:
            raise ValueError(f"quantities: expected some of {', '.join(NUMBERS)}, got {name!r}")
    if not sweep.points or not quantities:
        raise ValueError("plot: expected a sweep with points and a quantity to draw")
    if len(sweep.over) not in (1, 2):
        raise ValueError(f"plot: expected one or two parameters, this sweep is over "
                         f"{len(sweep.over)}; select(...) leaves some of them out")
    if len(sweep.over) == 1:
        fig = Figure(figsize=(6.4, 2.4 * len(quantities) + 0.6), layout="constrained")
        rows = fig.subplots(len(quantities), 1, sharex=True, squeeze=False)[:, 0]
        for ax, name in zip(rows, quantities, strict=True):
            _curves(ax, sweep, name)
            ax.label_outer()
        return fig
    names = (*quantities, "branch")
    fig = Figure(figsize=(4.3 * len(names), 3.8), layout="constrained")
    for ax, name in zip(fig.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _map(ax, sweep, name)
    return fig


# -- one parameter ---------------------------------------------------------------------------------


def _curves(ax: Axes, sweep: SweepFields, quantity: str) -> None:
    """One quantity over one parameter."""
    (name, axis), = sweep.over.items()
    x = np.array([point.values[name] for point in sweep.points], dtype=float)
    y = _numbers(sweep, quantity)
    branches = np.array([point.branch for point in sweep.points])
    for curve in sweep.curves:
        if curve.parameter == name:
            _followed(ax, curve, quantity, (min(axis), max(axis)))
    for branch in dict.fromkeys(branches.tolist()):
        own = branches == branch
        colour = PALETTE[branch % len(PALETTE)]
        ax.plot(x, np.where(own, y, np.nan), "-", color=colour, lw=1.4, zorder=3)
        answers = np.array([point.success for point in sweep.points]) & own
        ax.plot(x[answers], y[answers], "o", color=colour, ms=4, zorder=4)
        ax.plot(x[own & ~answers], y[own & ~answers], "x", color=colour, ms=6, zorder=4)
    for crossing in sweep.crossings:
        if crossing.at is not None:
            ax.axvline(crossing.at[name], color=GREY, lw=0.7, ls=(0, (1, 2)), zorder=1)
    dress(ax, LABELS[name], LABELS[quantity])
    if max(axis) > WIDE * min(axis):
        ax.set_xscale("log")
    _scaled(ax, y, quantity)


def _followed(ax: Axes, curve: GeodesicCurve, quantity: str, within: tuple[float, float]) -> None:
    """A branch that was followed, where it is a minimum and where it is not."""
    if quantity not in ("objective", "hamiltonian", "bottleneck_rank"):
        return
    x = np.array([point.value for point in curve.points])
    y = np.array([getattr(point, quantity) for point in curve.points])
    stable = np.array([point.minimum for point in curve.points])
    inside = (x >= 0.5 * within[0]) & (x <= 2 * within[1])
    folds = np.zeros(len(x), dtype=bool)
    folds[list(curve.folds)] = True
    # A fold belongs to both sides, so that the line has no gap there.
    for kept, style in ((stable | folds, "-"), (~stable | folds, (0, (3, 2)))):
        ax.plot(np.where(inside & kept, x, np.nan), np.where(inside & kept, y, np.nan),
                ls=style, color=GREY, lw=1.0, zorder=2)
    ax.plot(x[folds & inside], y[folds & inside], "^", color=GREY, ms=6, zorder=5)


def _scaled(ax: Axes, y: NDArray, quantity: str) -> None:
    finite = y[np.isfinite(y)]
    if quantity in LOGARITHMIC and finite.size and finite.min() > 0 \
            and finite.max() > 10 * finite.min():
        ax.set_yscale("log")


def _numbers(sweep: SweepFields, quantity: str) -> NDArray:
    """A quantity at all points; NaN where it is none."""
    return np.array([np.nan if value is None else float(value) for value in
                     (point.branch if quantity == "branch" else point.numbers[quantity]
                      for point in sweep.points)])


# -- two parameters --------------------------------------------------------------------------------


def _map(ax: Axes, sweep: SweepFields, quantity: str) -> None:
    """One quantity over two parameters, a cell a point; no answer is crossed out."""
    from matplotlib.colors import ListedColormap, LogNorm

    (first, rows), (second, columns) = sweep.over.items()
    values = np.full((len(rows), len(columns)), np.nan)
    for point, number in zip(sweep.points, _numbers(sweep, quantity), strict=True):
        values[rows.index(point.values[first]), columns.index(point.values[second])] = number
    options: dict[str, Any] = {"cmap": "viridis"}
    finite = values[np.isfinite(values)]
    if quantity == "branch":
        count = int(np.nanmax(values)) + 1
        options = {"cmap": ListedColormap([PALETTE[k % len(PALETTE)] for k in range(count)]),
                   "vmin": -0.5, "vmax": count - 0.5}
    elif quantity in LOGARITHMIC and finite.size and finite.min() > 0 \
            and finite.max() > 10 * finite.min():
        options["norm"] = LogNorm()
    mesh = ax.pcolormesh(_edges(columns), _edges(rows), values, **options)
    if quantity != "branch":
        bar = ax.figure.colorbar(mesh, ax=ax)
        bar.ax.tick_params(labelsize=TICK)
    for point in sweep.points:
        if not point.success:
            ax.plot(point.values[second], point.values[first], "x", color="white", ms=6)
    for axis, name, scale in ((columns, second, ax.set_xscale), (rows, first, ax.set_yscale)):
        if max(axis) > WIDE * min(axis) or name != "width":
            scale("log")
    dress(ax, LABELS[second], LABELS[first])
    _plain_ticks(ax, columns, rows)
    ax.set_title(LABELS[quantity], fontsize=LABEL)


def _plain_ticks(ax: Axes, columns: tuple[float, ...], rows: tuple[float, ...]) -> None:
    """A few of the values themselves as ticks."""
    for axis, values in ((ax.xaxis, columns), (ax.yaxis, rows)):
        places = np.unique(np.linspace(0, len(values) - 1, 5).round().astype(int))
        shown = [values[k] for k in places]
        axis.set_ticks(shown, [f"{value:.3g}" for value in shown])
        axis.set_ticks([], minor=True)


def _edges(values: tuple[float, ...]) -> NDArray:
    """Edges of cells around values, halfway in the logarithm; of one value a third to each side."""
    log = np.log(np.array(values, dtype=float))
    if len(log) == 1:
        return np.exp([log[0] - 0.3, log[0] + 0.3])
    middle = 0.5 * (log[1:] + log[:-1])
    return np.exp(np.concatenate([[2 * log[0] - middle[0]], middle, [2 * log[-1] - middle[-1]]]))
