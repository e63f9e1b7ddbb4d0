"""Figures: spectra, energies, convergence and paths, of one solution or of several side by side.

Every ``plot_*`` function draws into the Axes given as `ax`, or into a new figure of its own, and
returns the Axes. Nothing touches `matplotlib.pyplot`: figures belong to their caller, and drawing
needs no display. Symbols are those of the theory page in `hamshoot.theory.hamiltonian`.

Panels of one path are in `hamshoot.study.path_panels`, those of several solutions together in
`hamshoot.study.comparison_panels`, those of predictions in `hamshoot.study.prediction_panels`,
those of a second look at a solution in `hamshoot.study.second_look_panels`,
colours and other looks in `hamshoot.study.looks`; here are the whole figures that they make up.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.solution.mistakes import check_solution, described
from hamshoot.study.comparison_panels import named, plot_convergence, plot_paths
from hamshoot.study.diagnostic_panels import plot_diagnostics, plot_kkt, plot_sparsity
from hamshoot.study.looks import GREY, LABEL, PALETTE, colours, legend_beside, log_ticks
from hamshoot.study.path_panels import (
    SPECTRA,
    draw_energies,
    energy_key,
    plot_energies,
    plot_spectra,
    view_energies,
)
from hamshoot.study.prediction_panels import can_predict, plot_confusion, plot_predictions
from hamshoot.study.second_look_panels import plot_mesh, plot_resimulation, plot_running_cost
from hamshoot.support.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hamshoot.solution.solution import Solution

__all__ = [
    "GREY",
    "PALETTE",
    "colours",
    "figure",
    "panels",
    "plot_comparison",
    "plot_confusion",
    "plot_convergence",
    "plot_diagnostics",
    "plot_energies",
    "plot_kkt",
    "plot_mesh",
    "plot_paths",
    "plot_predictions",
    "plot_resimulation",
    "plot_running_cost",
    "plot_sparsity",
    "plot_spectra",
    "save_figure",
]

SUFFIXES = (".png", ".pdf", ".svg")


def plot_comparison(rows: Any, gamma0: float = 1e-3) -> Figure:
    """All panels for several solutions: a column of spectra and energies each, then both together.

    Parameters
    ----------
    rows : mapping of name to Solution, Comparison, or iterable of objects with `name`, `solution`
        Panels of a kind share their axes; a row keeps its colour throughout.
    gamma0 : float
        Of the stable energies.

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    if hasattr(gamma0, "representations"):
        raise TypeError("plot_comparison: expected several solutions as one mapping, "
                        "{'first': …, 'second': …}, got a Solution for gamma0")
    solutions = named(rows)
    palette = colours(solutions)
    fig = Figure(figsize=(max(8.0, 2.6 * len(solutions) + 1.9), 10.2), layout="constrained")
    halves: Any = fig.subfigures(2, 1, height_ratios=(2.3, 1))
    top, bottom = halves
    grid = top.subplots(3, len(solutions), sharex=True, sharey="row", squeeze=False)
    views, energies = [], []
    for column, (name, solution) in zip(grid.T, solutions.items(), strict=True):
        colour = palette[name]
        plot_spectra(solution, "representations", ax=column[0], colour=colour)
        plot_spectra(solution, "weights", ax=column[1], colour=colour)
        energies.append(draw_energies(column[2], solution, colour, gamma0))
        column[0].set_title("\n".join(textwrap.wrap(name, 24)), color=colour, fontsize=LABEL,
                            fontweight="bold")
        views.append([ax.get_ylim() for ax in column[:2]])
        for ax in column:
            ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            ax.label_outer()
    # The axes are shared, so each row of panels shows the union of what its panels would.
    lows, highs = np.min(views, axis=0)[:, 0], np.max(views, axis=0)[:, 1]
    for ax, low, high in zip(grid[:2, 0], lows, highs, strict=True):
        log_ticks(ax, low, high)
    depth = max(s.problem.effective_depth for s in solutions.values())
    view_energies(grid[2], energies, depth)
    legend_beside(grid[2, -1], *energy_key())
    left, right = bottom.subplots(1, 2)
    plot_convergence(solutions, ax=left, legend=False)
    plot_paths(solutions, ax=right)
    return fig


def figure(solution: Solution, gamma0: float = 1e-3) -> Figure:
    """One solution on one page: both spectra, the energies, the convergence (else the paths).

    Where it has a loss, beside them the predictions over the targets, or the confusion of classes,
    and the paths.
    """
    from matplotlib.figure import Figure

    check_solution("plot.figure", solution)
    wide = can_predict(solution)
    fig = Figure(figsize=(13.5 if wide else 9.0, 7.0), layout="constrained")
    grid = fig.subplots(2, 3 if wide else 2)
    for ax, of in zip(grid[0, :2], SPECTRA, strict=True):
        plot_spectra(solution, of, ax=ax)
    plot_energies(solution, ax=grid[1, 0], gamma0=gamma0)
    converged = len(solution.history) > 1
    (plot_convergence if converged else plot_paths)(solution, ax=grid[1, 1])
    if wide:
        _predictions(solution)(solution, ax=grid[0, 2])
        if converged:
            plot_paths(solution, ax=grid[1, 2])
        else:
            grid[1, 2].remove()
    return fig


def _predictions(solution: Solution) -> Callable[..., Any]:
    """The panel of predictions: of numbers or of classes."""
    return plot_predictions if solution.problem.classes is None else plot_confusion


def panels(solution: Solution) -> dict[str, Callable[[], Figure]]:
    """Drawings of one solution by name, each made when called."""
    draw = {
        "spectra_representations": partial(plot_spectra, solution, "representations"),
        "spectra_weights": partial(plot_spectra, solution, "weights"),
        "energies": partial(plot_energies, solution),
        "running_cost": partial(plot_running_cost, solution),
        "convergence": partial(plot_convergence, solution),
        "paths": partial(plot_paths, solution),
    }
    if can_predict(solution):
        name = "predictions" if solution.problem.classes is None else "confusion"
        draw[name] = partial(_predictions(solution), solution)
    return {name: partial(_figure_of, one) for name, one in draw.items()}


def _figure_of(draw: Callable[[], Any]) -> Figure:
    return draw().figure


def save_figure(fig: Figure, path: str | PathLike) -> Path:
    """Write a figure whole or not at all; the suffix says the format.

    Parameters
    ----------
    fig : Figure
    path : path
        Ending in .png, .pdf or .svg. The same figure gives the same bytes.

    Raises
    ------
    ValueError
        For another suffix.
    OSError
        If the directory cannot be written to.
    """
    import matplotlib

    if not hasattr(fig, "savefig"):
        raise TypeError(f"save_figure: expected a Figure, got {described(fig)}; "
                        "hs.plot.figure(solution) makes one, and axes have it as ax.figure")
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"path: expected a name ending in {', '.join(SUFFIXES)}, "
                         f"got {path.name!r}")
    # Neither the date nor random ids: same input, same file.
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(suffix)
    with matplotlib.rc_context({"svg.hashsalt": "hamshoot"}):
        write_whole(path, lambda file: fig.savefig(file, format=suffix[1:], dpi=200,
                                                   metadata=undated))
    return path


class _Drawings(ModuleType):
    """The module, which says what to call where it is called itself."""

    def __call__(self, *what: Any, **options: Any) -> Any:
        """Raise TypeError: there are several drawings."""
        given = f", got hs.plot({described(what[0])})" if what else ""
        raise TypeError("plot: expected one of its drawings, hs.plot.figure(solution) or "
                        f"hs.plot.plot_comparison(comparison){given}")


sys.modules[__name__].__class__ = _Drawings
