"""Panels of a second look at a solution: it simulated anew, and what it costs along the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamshoot.study.looks import (
    GREY,
    LABEL,
    PALETTE,
    TICK,
    axes_or_new,
    dress,
    legend_above,
    lighter,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from hamshoot.solution.resimulation import Resimulation
    from hamshoot.solution.running_cost import RunningCost
    from hamshoot.solution.solution import Solution
    from hamshoot.study.mesh_report import MeshReport

#: Neurons that a panel of states shows at most: those that move most.
MOST_LINES = 6
#: Errors below this are drawn at it.
FLOOR = 1e-18
OF = ("errors", "representations", "momenta")


def plot_resimulation(
    resimulation: Resimulation, of: str = "errors", ax: Axes | None = None,
    sample: int | None = None, legend: bool = True,
) -> Axes:
    """What was simulated over what was solved, or how far they are apart, along p.

    Parameters
    ----------
    resimulation : Resimulation
        Of `Solution.resimulate`.
    of : {"errors", "representations", "momenta"}
        Errors of states and costates at the nodes, logarithmic, dotted those of one segment alone;
        or A_p or B_p of one sample, a colour a neuron: circles solved, lines simulated, of layers
        dashed the continuous network with the same controls.
    ax : Axes, optional
    sample : int, optional
        Default the one whose representation moves most. Six neurons at most, those that move most.
    legend : bool
        Above the axes.

    Raises
    ------
    ValueError
        For another `of`, or a sample that there is not.
    """
    if of not in OF:
        raise ValueError(f"of: expected one of {', '.join(OF)}, got {of!r}")
    ax = axes_or_new(ax)
    if of == "errors":
        _errors(ax, resimulation)
    else:
        _over(ax, resimulation, of, _sample(resimulation, sample))
    ax.set_xlim(0, 1)
    if legend:
        legend_above(ax, *ax.get_legend_handles_labels())
    return ax


def figure(resimulation: Resimulation) -> Figure:
    """States, costates and errors side by side: `Resimulation.plot`."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13.5, 4.2), layout="constrained")
    axes = fig.subplots(1, 3)
    for ax, of in zip(axes, ("representations", "momenta", "errors"), strict=True):
        plot_resimulation(resimulation, of, ax=ax)
    return fig


def plot_running_cost(solution: Solution, ax: Axes | None = None, colour: str | None = None
                      ) -> Axes:
    """What the weights cost at every depth, (λ/2L̃)‖W_p‖²; the area below and the loss are J.

    Parameters
    ----------
    solution : Solution
        Of layers the cost is constant over each.
    ax : Axes, optional
    colour : str, optional
    """
    ax = axes_or_new(ax)
    cost, colour = solution.running_cost(), PALETTE[0] if colour is None else colour
    if solution.steps is None:
        p, rate = cost.p, cost.rate
    else:  # both ends of every layer
        p, rate = np.repeat(cost.p, 2)[1:-1], np.repeat(cost.rate, 2)
    ax.fill_between(p, rate, color=lighter(colour, 0.75), lw=0)
    ax.plot(p, rate, color=colour, lw=1.6)
    half = float(np.interp(0.5 * cost.cumulative[-1], cost.cumulative, cost.p))
    if cost.cumulative[-1] > 0:
        ax.vlines(half, 0, float(np.interp(half, p, rate)), color=GREY, lw=1.0, ls=":")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.25 * max(float(rate.max()), 1e-300))
    dress(ax, "$p$", r"cost $\lambda\Vert W_p\Vert_F^2\,/\,2\tilde{L}$")
    ax.text(0.98, 0.97, _sum(cost), transform=ax.transAxes, ha="right", va="top", fontsize=TICK,
            color=GREY)
    return ax


def _sum(cost: RunningCost) -> str:
    """Where J comes from, and where half of the area lies."""
    area = float(cost.cumulative[-1])
    half = float(np.interp(0.5 * area, cost.cumulative, cost.p))
    return (f"area {area:.4g} + loss {cost.loss:.4g} = J {cost.objective:.4g}\n"
            f"dotted: half of the area, $p$ = {half:.2g}")


def plot_mesh(report: MeshReport, ax: Axes | None = None) -> Axes:
    """Errors of a mesh along p, logarithmic: of every segment or layer alone, and at the nodes.

    Strokes below are the nodes, longer ones those that the solver inserted.

    Parameters
    ----------
    report : MeshReport
        Of `Solution.mesh_report`.
    ax : Axes, optional
    """
    ax = axes_or_new(ax)
    p, layers = report.p, report.steps is None
    one = "layer" if layers else "segment"
    ax.step(p, _positive(np.append(report.error, report.error[-1])), where="post",
            color=PALETTE[0], lw=1.5, label=f"of one {one}")
    nodes = "from the continuous network" if layers else "of the node, estimated"
    ax.plot(p, _positive(report.node_error), color=PALETTE[1], lw=1.3, label=nodes)
    ax.set_yscale("log")
    values = np.concatenate([report.error, report.node_error])
    values = values[np.isfinite(values) & (values > FLOOR)]
    if values.size:
        ax.set_ylim(max(0.2 * float(values.min()), FLOOR), 4 * float(values.max()))
    below = ax.get_xaxis_transform()
    for which, size in ((~report.inserted, 5), (report.inserted, 11)):
        ax.plot(p[which], np.zeros(int(which.sum())), "|", color=GREY, ms=size, mew=0.7,
                transform=below, clip_on=False, label="_nodes")
    ax.set_xlim(0, 1)
    dress(ax, "$p$", "error, over the largest")
    legend_above(ax, *ax.get_legend_handles_labels())
    return ax


# -- lines -----------------------------------------------------------------------------------------


def _sample(resimulation: Resimulation, sample: int | None) -> int:
    """The one asked for, or that which moves most."""
    A = resimulation.solved_representations
    if sample is None:
        return int(np.argmax(np.sum(np.ptp(A, axis=0) ** 2, axis=0)))
    if isinstance(sample, bool) or not isinstance(sample, (int, np.integer)) \
            or not 0 <= sample < A.shape[2]:
        raise ValueError(f"sample: expected an index from 0 to {A.shape[2] - 1}, got {sample!r}")
    return int(sample)


def _over(ax: Axes, resimulation: Resimulation, of: str, sample: int) -> None:
    """Entries of one sample: solved, simulated, and of the continuous network."""
    solved = getattr(resimulation, f"solved_{of}")[:, :, sample]
    lines = getattr(resimulation, of)[:, :, sample]
    other = None if resimulation.continuous is None else \
        getattr(resimulation.continuous, of)[:, :, sample]
    order = np.argsort(-np.ptp(solved, axis=0), kind="stable")[:MOST_LINES]
    p = resimulation.p
    every = max(1, len(p) // 24)  # circles that can be told apart
    for k, neuron in enumerate(sorted(order)):
        colour = PALETTE[k % len(PALETTE)]
        first = k == 0
        ax.plot(p[::every], solved[::every, neuron], "o", mfc="none", mec=colour, ms=4.5, mew=1.0,
                label="solved" if first else None, zorder=3)
        ax.plot(p, lines[:, neuron], color=colour, lw=1.3, zorder=2,
                label="simulated anew" if first else None)
        if other is not None:
            ax.plot(p, other[:, neuron], color=lighter(colour, 0.25), lw=1.1, ls="--", zorder=1,
                    label="continuous, the same $W$" if first else None)
    symbol = "A_p" if of == "representations" else "B_p"
    dress(ax, "$p$", f"${symbol}$ of sample {sample}")


def _errors(ax: Axes, resimulation: Resimulation) -> None:
    """At the nodes, on a logarithmic scale."""
    pairs = (("state", PALETTE[0]), ("costate", PALETTE[1]))
    p, shown = resimulation.p, []
    for name, colour in pairs:
        error = getattr(resimulation, f"{name}_error")
        ax.plot(p, _positive(error), color=colour, lw=1.6, label=f"{name}, simulated anew")
        defect = getattr(resimulation, f"{name}_defect")
        ax.plot((p[1:] + p[:-1]) / 2, _positive(defect), color=lighter(colour, 0.3), lw=1.0, ls=":",
                label=f"{name}, one segment")
        shown += [error, defect]
        if resimulation.continuous is not None:
            error = getattr(resimulation.continuous, f"{name}_error")
            ax.plot(p, _positive(error), color=colour, lw=1.2, ls="--",
                    label=f"{name}, continuous")
            shown.append(error)
    ax.set_yscale("log")
    values = np.concatenate(shown)
    values = values[np.isfinite(values) & (values > FLOOR)]
    if values.size:
        ax.set_ylim(max(0.3 * float(values.min()), FLOOR), 3 * float(values.max()))
    dress(ax, "$p$", "error, over the largest")
    if not np.all(np.isfinite(resimulation.state_error)):
        ax.text(0.98, 0.03, "gaps: the simulation was lost", transform=ax.transAxes, ha="right",
                fontsize=LABEL - 1, color=GREY)


def _positive(values: NDArray) -> NDArray:
    """For a logarithmic scale, with gaps where there is nothing."""
    return np.where(np.isfinite(values) & (values > 0), np.maximum(values, FLOOR), np.nan)

