"""Looks that all figures share: colours, labels, legends, ticks.

Colours are the eight of Okabe and Ito, told apart with every kind of colour vision, in a fixed
order: a row of a comparison has the same colour in every panel. Where lines of one colour must be
told apart they differ in style, or run from dark to light.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hamshoot.solution.solution import Solution

#: Okabe–Ito: blue, vermilion, green, purple, orange, sky blue, black, yellow.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LABEL, TICK = 10, 9
GREY = "#595959"


def colours(names: Iterable[str]) -> dict[str, str]:
    """One colour a name, in the fixed order of the palette; a ninth name starts again.

    Give every panel of a figure the same names in the same order.
    """
    return {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(names)}


def axes_or_new(ax: Axes | None) -> Axes:
    """The axes given, or those of a new figure."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(5.6, 3.8), layout="constrained").subplots()


def dress(ax: Axes, xlabel: str, ylabel: str) -> None:
    """Labels and spines as in all figures here."""
    ax.set_xlabel(xlabel, fontsize=LABEL)
    ax.set_ylabel(ylabel, fontsize=LABEL)
    ax.tick_params(labelsize=TICK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.yaxis.get_offset_text().set_fontsize(TICK)


def lighter(colour: str, share: float) -> tuple[float, float, float]:
    """Blend with white: 0 is the colour, 1 is white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - (1 - channel) * (1 - share) for channel in to_rgb(colour))
    return red, green, blue


def legend_above(ax: Axes, handles: list[Any], labels: list[str]) -> None:
    """Legend of two columns over the axes."""
    ax.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2, fontsize=TICK,
              frameon=False, borderaxespad=0, handlelength=2.2, columnspacing=1.2)


def legend_beside(ax: Axes, handles: list[Any], labels: list[str]) -> None:
    """Legend to the right of the axes, long names wrapped."""
    labels = ["\n".join(textwrap.wrap(label, 24)) if "$" not in label else label
              for label in labels]
    ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=TICK,
              frameon=False, borderaxespad=0, handlelength=2.2)


def mark_layers(ax: Axes, solution: Solution) -> None:
    """Short strokes on the lower edge at the nodes of a layered solution."""
    if solution.steps is not None:
        ax.plot(solution.p, np.zeros(len(solution.p)), "|", color=GREY, ms=5, mew=0.7,
                transform=ax.get_xaxis_transform(), clip_on=False, label="_layers")


def log_ticks(ax: Axes, low: float, high: float) -> None:
    """Limits of a logarithmic axis; within two decades 1, 2, 5 are labelled, as plain numbers."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    ax.set_ylim(low, high)
    if ax.get_yscale() == "log" and high < 100 * low:
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.yaxis.set_minor_formatter(NullFormatter())
