"""Panels of the CasADi program: where its matrices are not 0, and its KKT residuals by layer."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.solution.mistakes import described
from hamshoot.study.looks import GREY, LABEL, PALETTE, TICK, axes_or_new, dress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hamshoot.methods.multiple_shooting.diagnostics import Diagnostics
    from hamshoot.methods.multiple_shooting.layout import Block

MATRICES = ("jacobian", "hessian", "kkt")
TITLES = {"jacobian": "Jacobian ∂g/∂x", "hessian": "Hessian of the Lagrangian",
          "kkt": "KKT matrix, layer by layer"}
#: Blocks up to which each has its own label; of more a layer has one, of still more every n-th.
MOST_BLOCKS, MOST_LABELS = 12, 20
#: Kinds of residuals by colour and marker.
KINDS = {"stationarity": ("o", "stationarity, $W_\\ell$"), "costate": ("s", "costate, $A_\\ell$"),
         "defect": ("^", "defect"), "endpoint": ("D", "endpoint")}
#: Residuals below are drawn here: rounding of rounding.
FLOOR = 1e-18


def plot_sparsity(diagnostics: Diagnostics, of: str = "kkt", ax: Axes | None = None) -> Axes:
    """Where a matrix of the program may differ from 0, its blocks labelled by layer.

    Parameters
    ----------
    diagnostics : Diagnostics
    of : {"jacobian", "hessian", "kkt"}
    ax : Axes, optional

    Raises
    ------
    ValueError
        For another matrix.
    TypeError
        For no diagnostics.
    """
    _check("plot_sparsity", diagnostics)
    if of not in MATRICES:
        raise ValueError(f"of: expected one of {', '.join(MATRICES)}, got {of!r}")
    structure = getattr(diagnostics, of)
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(5.6, 5.6), layout="constrained").subplots()
    height, width = structure.shape
    # A mark is as large as an entry, but never so small that it is not seen.
    size = max(0.8, 220 / max(structure.shape))
    ax.plot(structure.columns, structure.rows, "s", ms=size, mew=0, color=PALETTE[0])
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
    ax.set_aspect("equal")
    for blocks, axis, line in ((structure.column_blocks, ax.xaxis, ax.axvline),
                               (structure.row_blocks, ax.yaxis, ax.axhline)):
        for edge in _edges(blocks):
            line(edge - 0.5, color=GREY, lw=0.4, alpha=0.6)
        places, labels = _labels(blocks)
        axis.set_ticks(places, labels)
    ax.tick_params(labelsize=TICK, length=0)
    ax.tick_params(axis="x", labeltop=True, labelbottom=False,
                   labelrotation=0 if len(_labels(structure.column_blocks)[0]) <= 8 else 90)
    below, above = structure.bandwidth
    ax.set_title(TITLES[of], fontsize=LABEL)
    ax.set_xlabel(f"{height} × {width}, {structure.nonzeros} nonzeros ({structure.density:.2g})\n"
                  .replace("(", "(density ") + f"bandwidth {below} below, {above} above",
                  fontsize=TICK)
    return ax


def plot_kkt(diagnostics: Diagnostics, ax: Axes | None = None) -> Axes:
    """KKT residuals of a solution, each block relative to its size, over the layers.

    Raises
    ------
    ValueError
        For diagnostics without a solution.
    TypeError
        For no diagnostics.
    """
    _check("plot_kkt", diagnostics)
    if not diagnostics.residuals:
        raise ValueError("diagnostics: expected those of a solution, got the program alone; "
                         "hs.diagnose(solution) has both")
    from matplotlib.ticker import MaxNLocator

    ax = axes_or_new(ax)
    for colour, (kind, (marker, label)) in zip(PALETTE, KINDS.items(), strict=False):
        found = [(one.layer, one.relative) for one in diagnostics.residuals if one.kind == kind]
        if found:
            layers, values = np.array(found).T
            ax.plot(layers, np.maximum(values, FLOOR), marker, ms=5, color=colour, label=label,
                    ls="" if len(layers) == 1 else "-", lw=0.7)
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(ax, "layer", "relative residual")
    ax.legend(fontsize=TICK, frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2,
              borderaxespad=0.2)
    return ax


def plot_diagnostics(diagnostics: Diagnostics) -> Figure:
    """Jacobian, Hessian and KKT matrix, and of a solution its residuals by layer."""
    from matplotlib.figure import Figure

    _check("plot_diagnostics", diagnostics)
    fig = Figure(figsize=(11.0, 10.6), layout="constrained")
    grid = fig.subplots(2, 2)
    for of, ax in zip(MATRICES, grid.flat, strict=False):
        plot_sparsity(diagnostics, of, ax)
    if diagnostics.residuals:
        plot_kkt(diagnostics, grid[1, 1])
    else:
        grid[1, 1].remove()
    return fig


def _check(verb: str, diagnostics: Diagnostics) -> None:
    """Raise TypeError for something else, say the solution itself."""
    if not hasattr(diagnostics, "kkt"):
        raise TypeError(f"{verb}: expected Diagnostics, as hs.diagnose(solution) returns, got "
                        f"{described(diagnostics)}")


def _edges(blocks: Sequence[Block]) -> list[int]:
    """Where a block, or with many blocks a layer, begins after another."""
    return [b.start for a, b in pairwise(blocks)
            if len(blocks) <= MOST_BLOCKS or a.layer != b.layer]


def _labels(blocks: Sequence[Block]) -> tuple[list[float], list[str]]:
    """Middle and name of each block, or with many of some layers."""
    if len(blocks) <= MOST_BLOCKS:
        return [(b.start + b.stop - 1) / 2 for b in blocks], [_short(b.name) for b in blocks]
    layers = sorted({block.layer for block in blocks})
    every = -(-len(layers) // MOST_LABELS)
    places, labels = [], []
    for layer in layers[::every]:
        own = [block for block in blocks if block.layer == layer]
        places.append((own[0].start + own[-1].stop - 1) / 2)
        labels.append(f"{layer}")
    labels[0] = f"layer {labels[0]}"
    return places, labels


def _short(name: str) -> str:
    """A name of the layout as a label."""
    name = name.replace("multiplier of defect ", "B_").replace("multiplier of ", "")
    return f"${name[0]}_{{{name[2:]}}}$" if name[1:2] == "_" else name
