"""Panels of one path: the spectra of A_p and W_p, and the energies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.solution.mistakes import check_solution
from hamshoot.study.looks import (
    GREY,
    PALETTE,
    TICK,
    axes_or_new,
    dress,
    legend_above,
    lighter,
    log_ticks,
    mark_layers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from hamshoot.solution.solution import Solution
    from hamshoot.theory.energies import PathEnergies

#: Singular values below this share of the largest are left out of view.
SPECTRUM_SHARE = 1e-4
SPECTRA = ("representations", "weights")
#: Energies are drawn up to so many times the size of H.
REACH = 1e4


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
    check_solution("plot.plot_spectra", solution)
    if of not in SPECTRA:
        raise ValueError(f"of: expected one of {', '.join(SPECTRA)}, got {of!r}")
    ax = axes_or_new(ax)
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
        ax.plot(p, values[:, k], color=lighter(base, 0.65 * share), lw=1.9 - 1.2 * share,
                marker=marker, ms=4, zorder=3 - share)
    _log_scale(ax, values)
    mark_layers(ax, solution)
    symbol = "A_p" if of == "representations" else "W_p"
    dress(ax, "$p$", f"singular values of ${symbol}$")
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
    logarithmic on both sides of a linear middle, and holds all curves whole. Beyond ten thousand
    times, where K_p is nearly singular, they have gaps, and the panel says so.
    """
    ax = axes_or_new(ax)
    energies = draw_energies(ax, solution, colour, gamma0)
    view_energies([ax], [energies], solution.problem.effective_depth)
    if legend:
        legend_above(ax, *ax.get_legend_handles_labels())
    return ax


def _log_scale(ax: Axes, values: NDArray) -> None:
    largest = float(values.max(initial=0.0))
    if largest <= 0 or not np.isfinite(largest):
        return
    smallest = max(float(values.min()), SPECTRUM_SHARE * largest)
    ax.set_yscale("log")
    log_ticks(ax, 0.8 * smallest, 1.3 * largest)


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
        "stable_kinetic": dict(color=lighter(base["T"], 0.45), ls="--", **thin,
                               label="kinetic, stable"),
        "stable_potential": dict(color=lighter(base["V"], 0.45), ls=":", **thin,
                                 label="potential, stable"),
    }


def energy_key() -> tuple[list[Any], list[str]]:
    """Legend of the energies where the colour says something else: all in grey."""
    from matplotlib.lines import Line2D

    styles = _energy_styles(GREY).values()
    return [Line2D([], [], **style) for style in styles], [style["label"] for style in styles]


def draw_energies(ax: Axes, solution: Solution, colour: str | None, gamma0: float) -> PathEnergies:
    """All lines of `plot_energies`, with neither legend nor view."""
    check_solution("plot.plot_energies", solution)
    energies = solution.energies(gamma0)
    for name, style in _energy_styles(colour).items():
        ax.plot(energies.p, getattr(energies, name), **style)
    mark_layers(ax, solution)
    ax.set_xlim(0, 1)
    dress(ax, "$p$", "energy")
    return energies


def view_energies(axes: Sequence[Axes], energies: Sequence[PathEnergies], depth: float) -> None:
    """One scale and one view for several panels of energies; see `plot_energies`.

    All curves stay inside their frame: those that run beyond `REACH` times the size of H have gaps
    there, and a line says so.
    """
    everything = [getattr(e, name) for e in energies for name in
                  ("hamiltonian", "stable_kinetic", "stable_potential", "kinetic", "potential")]
    middle = max(depth / 2, *(float(np.median(np.abs(e.hamiltonian))) for e in energies))
    low, high = _range(everything)
    low, high = max(low, -REACH * middle), min(high, REACH * middle)
    if max(abs(low), abs(high)) > 10 * middle:
        # A power of ten, so that ticks do not crowd where the scale changes.
        threshold = 10 ** np.ceil(np.log10(middle))
        low, high = 1.5 * min(low, 0) - 0.1 * threshold, 1.5 * max(high, 0) + 0.1 * threshold
        for ax in axes:
            ax.set_yscale("symlog", linthresh=threshold, linscale=1.0)
            ax.set_ylim(low, high)
            _thin_ticks(ax, threshold, max(-low, high))
    else:
        margin = 0.06 * max(high - low, 0.1 * middle)
        low, high = low - margin, high + margin
        for ax in axes:
            ax.set_ylim(low, high)
            ax.ticklabel_format(axis="y", useOffset=False)
    for ax in axes:
        _leave_out(ax, low, high)


def _thin_ticks(ax: Axes, threshold: float, highest: float) -> None:
    """Ticks at 0 and at powers of ten on both sides, at most four on each."""
    first, last = round(np.log10(threshold)), int(np.floor(np.log10(max(highest, threshold))))
    powers = 10.0 ** np.arange(first, last + 1, max(1, (last - first + 4) // 4))
    low, high = ax.get_ylim()
    ticks = [tick for tick in (*-powers[::-1], 0.0, *powers) if low <= tick <= high]
    ax.set_yticks(ticks)
    ax.set_yticks([], minor=True)


def _leave_out(ax: Axes, low: float, high: float) -> None:
    """Gaps where a curve is out of view, and a line that says so."""
    beyond = False
    for line in ax.lines:
        if str(line.get_label()).startswith("_"):
            continue
        values = np.array(line.get_ydata(), dtype=float)
        out = ~((values >= low) & (values <= high))
        if out.any():
            beyond = True
            line.set_ydata(np.where(out, np.nan, values))
            line.set_marker(".")  # a value between two gaps has no line
    if beyond:
        ax.text(0.98, 0.02, "gaps: beyond this frame,\n$K_p$ nearly singular", ha="right",
                va="bottom", transform=ax.transAxes, fontsize=TICK - 2, color=GREY, zorder=6,
                bbox=dict(facecolor="white", edgecolor="none", alpha=0.85, pad=1))


def _range(arrays: list[NDArray]) -> tuple[float, float]:
    values = np.concatenate(arrays)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
