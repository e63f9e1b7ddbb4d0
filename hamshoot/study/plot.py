"""Figures: spectra, energies, convergence and paths, of one solution or of several side by side.

Every ``plot_*`` function draws into the Axes given as `ax`, or into a new figure of its own, and
returns the Axes. Nothing touches `matplotlib.pyplot`: figures belong to their caller, and drawing
needs no display. Symbols are those of the theory page in `hamshoot.theory.hamiltonian`.

Colours are the eight of Okabe and Ito, told apart with every kind of colour vision, in a fixed
order: a row of a comparison has the same colour in every panel. Where lines of one colour must be
told apart they differ in style, or run from dark to light.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.support.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from hamshoot.solution.solution import Solution
    from hamshoot.theory.energies import PathEnergies

#: Okabe–Ito: blue, vermilion, green, purple, orange, sky blue, black, yellow.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
SUFFIXES = (".png", ".pdf", ".svg")
#: Singular values below this share of the largest are left out of view.
SPECTRUM_SHARE = 1e-4
#: Convergence is shown down to this share of the best objective.
CONVERGENCE_SHARE = 1e-6
#: Lines grow by this for each row drawn later, so that none hides under one that coincides.
WIDER = 0.6
LABEL, TICK = 10, 9
GREY = "#595959"
SPECTRA = ("representations", "weights")


def colours(names: Iterable[str]) -> dict[str, str]:
    """One colour a name, in the fixed order of the palette; a ninth name starts again.

    Give every panel of a figure the same names in the same order.
    """
    return {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(names)}


# -- single panels ---------------------------------------------------------------------------------


def plot_spectra(
    solution: Solution,
    of: str = "representations",
    ax: Axes | None = None,
    colour: str | None = None,
) -> Axes:
    """Singular values of A_p or W_p along p, one line each, the largest darkest.

    Parameters
    ----------
    solution : Solution
    of : {"representations", "weights"}
        Representations are drawn at the nodes, weights of a layered solution in the middle of their
        layer, on a logarithmic scale. What is below 10⁻⁴ of the largest is out of view.
    ax : Axes, optional
    colour : str, optional
        Of the largest singular value; default blue for A, vermilion for W.

    Raises
    ------
    ValueError
        For another `of`.

    Notes
    -----
    The short strokes below mark the layers, p_ℓ = ρ_1 + … + ρ_ℓ. Cost O(M w² (w + N)).
    """
    if of not in SPECTRA:
        raise ValueError(f"of: expected one of {', '.join(SPECTRA)}, got {of!r}")
    ax = _axes(ax)
    values = solution.spectra()[SPECTRA.index(of)]
    p = solution.p
    if of == "weights" and solution.steps is not None:
        p = (solution.p[1:] + solution.p[:-1]) / 2
    count = values.shape[1]
    base = PALETTE[SPECTRA.index(of)] if colour is None else colour
    marker = "o" if len(p) < 3 else None
    for k in range(count):
        # Graded in log k: of a hundred lines the first few are those that matter.
        share = np.log1p(k) / np.log(max(count, 2))
        ax.plot(p, values[:, k], color=_lighter(base, 0.65 * share), lw=1.9 - 1.2 * share,
                marker=marker, ms=4, zorder=3 - share)
    _log_scale(ax, values)
    _mark_layers(ax, solution)
    symbol = "A_p" if of == "representations" else "W_p"
    _dress(ax, "$p$", f"singular values of ${symbol}$")
    ax.set_xlim(0, 1)
    return ax


def plot_energies(
    solution: Solution,
    ax: Axes | None = None,
    colour: str | None = None,
    gamma0: float = 1e-3,
    legend: bool = True,
) -> Axes:
    """Hamiltonian, kinetic and potential energy along p, with the stable versions of the last two.

    Parameters
    ----------
    solution : Solution
        A layered one is evaluated at (A_{ℓ−1}, B_ℓ), left nodes.
    ax : Axes, optional
    colour : str, optional
        One colour for all lines, which then differ in style only; default one for each energy.
    gamma0 : float
        The stable versions (thin, light) use γ_p = γ₀‖σ̂(A_p)‖²_op.
    legend : bool
        Above the axes.

    Notes
    -----
    Where rows of A_p leave the row space of σ̂(A_p) the kinetic and the potential energy are large
    and nearly cancel. Beyond ten times the size of H (or L̃/2, a rank of one) the scale is
    logarithmic on both sides of a linear middle. Where K_p is nearly singular the plain energies
    run off; the view is then that of the Hamiltonian and the stable energies.
    """
    ax = _axes(ax)
    energies = _draw_energies(ax, solution, colour, gamma0)
    _view_energies([ax], [energies], solution.problem.effective_depth)
    if legend:
        _legend_above(ax, *ax.get_legend_handles_labels())
    return ax


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
    ax, solutions = _axes(ax), _named(solutions)
    palette = colours(solutions)
    finals = [s.objective for s in solutions.values() if np.isfinite(s.objective)]
    best = min(finals, default=0.0)
    floor = CONVERGENCE_SHARE * max(abs(best), np.finfo(float).tiny)
    clocks = []
    for row, (name, solution) in enumerate(solutions.items()):
        width = 1.7 + WIDER * (len(solutions) - 1 - row)
        seconds, objective, so_far = _history(solution)
        clocks.append(seconds)
        style = dict(color=palette[name])
        ax.plot(seconds, np.maximum(objective - best, floor), lw=0.7, alpha=0.4, **style)
        ax.plot(seconds, np.maximum(so_far - best, floor), lw=width, label=name, **style)
        ax.plot(seconds[-1:], np.maximum(so_far[-1:] - best, floor), "o", ms=5, clip_on=False,
                zorder=4, **style)
    _scale_convergence(ax, np.concatenate(clocks), floor)
    _dress(ax, "seconds", r"$J - J_{\mathrm{best}}$")
    if legend and len(solutions) > 1:
        _legend_beside(ax, *ax.get_legend_handles_labels())
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
    ax, solutions = _axes(ax), _named(solutions)
    palette = colours(solutions)
    centre, axes_, shares = _common_components(solutions)
    chosen = _chosen_samples(samples, next(iter(solutions.values())))
    flat = len(axes_) == 1
    for row, (name, solution) in enumerate(solutions.items()):
        above = len(solutions) - 1 - row
        for k, sample in enumerate(chosen):
            points = (solution.representations[:, :, sample] - centre) @ axes_.T
            x, y = (solution.p, points[:, 0] + centre[0]) if flat else points.T
            style = dict(color=palette[name])
            dots = dict(marker=".", ms=5) if solution.layers else {}
            ax.plot(x, y, lw=1.2 + WIDER * above, label=None if k else name, **dots, **style)
            ax.plot(x[-1:], y[-1:], "s", ms=4 + 1.5 * above, zorder=4, **style)
            ax.plot(x[:1], y[:1], "o", ms=7, mfc="white", mec=GREY, zorder=5)
    if flat:
        _dress(ax, "$p$", "$A_p$")
    else:
        ax.set_aspect("equal", adjustable="datalim")
        first, second = (f"principal component {k + 1} ({s:.0%})" for k, s in enumerate(shares))
        _dress(ax, first, second)
    if legend:
        _legend_beside(ax, *_with_ends(ax, len(solutions) > 1))
    return ax


# -- whole figures ---------------------------------------------------------------------------------


def plot_comparison(rows: Any, gamma0: float = 1e-3) -> Figure:
    """All panels for several solutions: a column of spectra and energies each, then both together.

    Parameters
    ----------
    rows : mapping of name to Solution, or iterable of objects with `name` and `solution`
        Panels of a kind share their axes; a row keeps its colour throughout.
    gamma0 : float
        Of the stable energies.

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    solutions = _named(rows)
    palette = colours(solutions)
    fig = Figure(figsize=(max(8.0, 2.6 * len(solutions) + 1.9), 10.2), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=(2.3, 1))
    grid = top.subplots(3, len(solutions), sharex=True, sharey="row", squeeze=False)
    views, energies = [], []
    for column, (name, solution) in zip(grid.T, solutions.items(), strict=True):
        colour = palette[name]
        plot_spectra(solution, "representations", ax=column[0], colour=colour)
        plot_spectra(solution, "weights", ax=column[1], colour=colour)
        energies.append(_draw_energies(column[2], solution, colour, gamma0))
        column[0].set_title("\n".join(textwrap.wrap(name, 24)), color=colour, fontsize=LABEL,
                            fontweight="bold")
        views.append([ax.get_ylim() for ax in column[:2]])
        for ax in column:
            ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            ax.label_outer()
    # The axes are shared, so each row of panels shows the union of what its panels would.
    lows, highs = np.min(views, axis=0)[:, 0], np.max(views, axis=0)[:, 1]
    for ax, low, high in zip(grid[:2, 0], lows, highs, strict=True):
        _log_ticks(ax, low, high)
    depth = max(s.problem.effective_depth for s in solutions.values())
    _view_energies(grid[2], energies, depth)
    _legend_beside(grid[2, -1], *_energy_key())
    left, right = bottom.subplots(1, 2)
    plot_convergence(solutions, ax=left, legend=False)
    plot_paths(solutions, ax=right)
    return fig


def figure(solution: Solution, gamma0: float = 1e-3) -> Figure:
    """One solution on one page: both spectra, the energies, the convergence (else the paths)."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(9.0, 7.0), layout="constrained")
    grid = fig.subplots(2, 2)
    for ax, of in zip(grid[0], SPECTRA, strict=True):
        plot_spectra(solution, of, ax=ax)
    plot_energies(solution, ax=grid[1, 0], gamma0=gamma0)
    last = plot_convergence if len(solution.history) > 1 else plot_paths
    last(solution, ax=grid[1, 1])
    return fig


def panels(solution: Solution) -> dict[str, Callable[[], Figure]]:
    """Drawings of one solution by name, each made when called."""
    draw = {
        "spectra_representations": partial(plot_spectra, solution, "representations"),
        "spectra_weights": partial(plot_spectra, solution, "weights"),
        "energies": partial(plot_energies, solution),
        "convergence": partial(plot_convergence, solution),
        "paths": partial(plot_paths, solution),
    }
    return {name: lambda one=one: one().figure for name, one in draw.items()}


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


# -- data ------------------------------------------------------------------------------------------


def _named(solutions: Any) -> dict[str, Solution]:
    if hasattr(solutions, "representations"):
        return {solutions.method: solutions}
    if not isinstance(solutions, Mapping):
        solutions = {row.name: row.solution for row in solutions}
    if not solutions:
        raise ValueError("solutions: expected at least one, got none")
    return dict(solutions)


def _history(solution: Solution) -> tuple[NDArray, NDArray, NDArray]:
    """Seconds, objective and best so far, ending with the solution itself; finite records only."""
    records = [(r.seconds, r.objective) for r in solution.history if np.isfinite(r.objective)]
    last = records[-1][0] if records else 0.0
    records.append((max(solution.seconds, last), solution.objective))
    seconds, objective = np.array(records).T
    so_far = np.maximum(np.minimum.accumulate(objective), solution.objective)
    return seconds, objective, so_far


def _common_components(solutions: Mapping[str, Solution]) -> tuple[NDArray, NDArray, NDArray]:
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


# -- looks -----------------------------------------------------------------------------------------


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(5.6, 3.8), layout="constrained").subplots()


def _dress(ax: Axes, xlabel: str, ylabel: str) -> None:
    ax.set_xlabel(xlabel, fontsize=LABEL)
    ax.set_ylabel(ylabel, fontsize=LABEL)
    ax.tick_params(labelsize=TICK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.yaxis.get_offset_text().set_fontsize(TICK)


def _lighter(colour: str, share: float) -> tuple[float, float, float]:
    """Blend with white: 0 is the colour, 1 is white."""
    from matplotlib.colors import to_rgb

    return tuple(1 - (1 - channel) * (1 - share) for channel in to_rgb(colour))


def _energy_styles(colour: str | None) -> dict[str, dict[str, Any]]:
    """Line styles by field of `PathEnergies`, in the order of the legend."""
    base = dict(zip("HTV", (PALETTE[6], PALETTE[1], PALETTE[0]), strict=True))
    if colour is not None:
        base = dict.fromkeys("HTV", colour)
    thin = dict(lw=1.1)
    return {
        "hamiltonian": dict(color=base["H"], lw=1.9, label="Hamiltonian $H$"),
        "kinetic": dict(color=base["T"], lw=1.7, ls="--", label="kinetic energy"),
        "potential": dict(color=base["V"], lw=1.7, ls=":",
                          label=r"potential $-\tilde{L}\,\mathrm{COI}/2$"),
        "stable_kinetic": dict(color=_lighter(base["T"], 0.45), ls="--", **thin,
                               label="kinetic, stable"),
        "stable_potential": dict(color=_lighter(base["V"], 0.45), ls=":", **thin,
                                 label="potential, stable"),
    }


def _energy_key() -> tuple[list[Any], list[str]]:
    """Legend of the energies where the colour says something else: all in grey."""
    from matplotlib.lines import Line2D

    styles = _energy_styles(GREY).values()
    return [Line2D([], [], **style) for style in styles], [style["label"] for style in styles]


def _with_ends(ax: Axes, with_names: bool) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    handles, labels = ax.get_legend_handles_labels() if with_names else ([], [])
    handles = [*handles, Line2D([], [], ls="", marker="o", ms=7, mfc="white", mec=GREY),
               Line2D([], [], ls="", marker="s", ms=5, color=GREY)]
    return handles, [*labels, "$A_0$", "$A_1$"]


def _legend_above(ax: Axes, handles: list[Any], labels: list[str]) -> None:
    ax.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2, fontsize=TICK,
              frameon=False, borderaxespad=0, handlelength=2.2, columnspacing=1.2)


def _legend_beside(ax: Axes, handles: list[Any], labels: list[str]) -> None:
    labels = ["\n".join(textwrap.wrap(label, 24)) if "$" not in label else label
              for label in labels]
    ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=TICK,
              frameon=False, borderaxespad=0, handlelength=2.2)


def _mark_layers(ax: Axes, solution: Solution) -> None:
    """Short strokes on the lower edge at the nodes of a layered solution."""
    if solution.steps is not None:
        ax.plot(solution.p, np.zeros(len(solution.p)), "|", color=GREY, ms=5, mew=0.7,
                transform=ax.get_xaxis_transform(), clip_on=False, label="_layers")


def _log_scale(ax: Axes, values: NDArray) -> None:
    largest = float(values.max(initial=0.0))
    if largest <= 0 or not np.isfinite(largest):
        return
    smallest = max(float(values.min()), SPECTRUM_SHARE * largest)
    ax.set_yscale("log")
    _log_ticks(ax, 0.8 * smallest, 1.3 * largest)


def _log_ticks(ax: Axes, low: float, high: float) -> None:
    """Limits of a logarithmic axis; within two decades 1, 2, 5 are labelled, as plain numbers."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    ax.set_ylim(low, high)
    if ax.get_yscale() == "log" and high < 100 * low:
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.yaxis.set_minor_formatter(NullFormatter())


def _draw_energies(ax: Axes, solution: Solution, colour: str | None, gamma0: float) -> PathEnergies:
    energies = solution.energies(gamma0)
    for name, style in _energy_styles(colour).items():
        ax.plot(energies.p, getattr(energies, name), **style)
    _mark_layers(ax, solution)
    ax.set_xlim(0, 1)
    _dress(ax, "$p$", "energy")
    return energies


def _view_energies(axes: Sequence[Axes], energies: Sequence[PathEnergies], depth: float) -> None:
    """One scale and one view for several panels of energies; see `plot_energies`."""
    sure = [getattr(e, name) for e in energies
            for name in ("hamiltonian", "stable_kinetic", "stable_potential")]
    wild = [getattr(e, name) for e in energies for name in ("kinetic", "potential")]
    middle = max(depth / 2, *(float(np.median(np.abs(e.hamiltonian))) for e in energies))
    low, high = _range(sure)
    span = max(high - low, 0.01 * middle)
    wild_low, wild_high = _range([*sure, *wild])
    low, high = max(min(low, wild_low), low - span), min(max(high, wild_high), high + span)
    if max(abs(low), abs(high)) > 10 * middle:
        # A power of ten, so that ticks do not crowd where the scale changes.
        threshold = 10 ** np.ceil(np.log10(middle))
        for ax in axes:
            ax.set_yscale("symlog", linthresh=threshold, linscale=1.0)
            ax.set_ylim(1.5 * min(low, 0) - 0.1 * threshold, 1.5 * max(high, 0) + 0.1 * threshold)
        return
    margin = 0.06 * max(high - low, 0.1 * middle)
    for ax in axes:
        ax.set_ylim(low - margin, high + margin)
        ax.ticklabel_format(axis="y", useOffset=False)


def _range(arrays: list[NDArray]) -> tuple[float, float]:
    values = np.concatenate(arrays)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


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
