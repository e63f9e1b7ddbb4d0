"""The figures of a report: those of `hamshoot.study.plot`, each with a sentence to read it by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.report.drawing import Drawings
from hamshoot.study import plot
from hamshoot.study.looks import PALETTE, colours, log_ticks
from hamshoot.study.path_panels import draw_energies, view_energies
from hamshoot.support.html import Element, element

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hamshoot.solution.solution import Solution
    from hamshoot.theory.energies import PathEnergies

#: Inches of a panel: at the width of a phone its letters are those of the text.
SIZE = (4.3, 3.2)
#: Of the stable energies, as in `hamshoot.plot`.
GAMMA0 = 1e-3
#: Share of the largest singular value above which one counts as there.
COUNTED = 1e-2
#: Lines of a spectrum up to which all are drawn; of more so many, the largest close together.
MOST_LINES = 32


class Words(NamedTuple):
    """What stands beside a figure.

    Attributes
    ----------
    title : str
    caption : str
        How to read it.
    description : str
        What is to be seen, for those who do not see it.
    """

    title: str
    caption: str
    description: str


#: Titles and captions of the panels of `hamshoot.plot.panels`; "paths" are those of the slider.
CAPTIONS = {
    "spectra_representations": (
        "Singular values of the representations",
        "One line each, the largest boldest, at every depth p; the strokes below mark the layers. "
        "Few lines far above the others mean that the network carries few dimensions there."),
    "spectra_weights": (
        "Singular values of the weights",
        "One line each, the largest boldest: how many directions a layer acts on."),
    "energies": (
        "Hamiltonian and energies",
        "The Hamiltonian is the sum of the kinetic energy, of moving, and the potential energy, "
        "the cost of identity with a minus. An optimal path conserves it. The thin lines are "
        "stable versions, for depths at which the plain ones run off."),
    "running_cost": (
        "Cost of the weights",
        "What the weights cost at every depth p. The area below and the loss are the objective J; "
        "the dotted line halves the area."),
    "convergence": (
        "Convergence",
        "The objective above the best of all against seconds. Thick: the best so far; thin: every "
        "record, with the smoothing of its stage; dot: what was returned."),
    "predictions": ("Predictions against targets", "On the diagonal a prediction is the target."),
    "confusion": ("Classes, true and predicted", "On the diagonal a class is met."),
}
LEFT_OUT = ("paths",)
#: Those of each row of a comparison.
OF_ROWS = ("spectra_representations", "spectra_weights", "energies", "running_cost")


def solution_figures(solution: Solution, whole: Solution, drawings: Drawings) -> list[Element]:
    """All panels of one solution.

    Parameters
    ----------
    solution : Solution
        With states.
    whole : Solution
        The same on all samples, whose history counts; where it does not store its states, the
        energies are left out, since those of a few samples are others.
    drawings : Drawings
    """
    draws = {name: draw for name, draw in plot.panels(solution).items() if name not in LEFT_OUT}
    if whole is not solution:
        draws.pop("energies", None)
        draws["running_cost"] = plot.panels(whole)["running_cost"]  # of controls and loss alone
        draws["convergence"] = lambda: _convergence_figure(whole)
    if len(whole.history) < 2:
        draws.pop("convergence", None)
    made = []
    for name, draw in draws.items():
        title, caption = CAPTIONS.get(name, (name.replace("_", " ").capitalize(), ""))
        words = Words(title, caption, _described(
            name, whole if name in ("convergence", "running_cost") else solution))
        figure = draw()
        figure.set_size_inches(*SIZE)
        if name.startswith("spectra"):
            words = words._replace(caption=words.caption + _thinned(figure.axes[0]))
        made.append(framed(figure, words, drawings))
    return made


def comparison_figures(solutions: Mapping[str, Solution], drawings: Drawings) -> list[Element]:
    """Convergence of all rows together, with the colours of the rows."""
    figure = _convergence_figure(solutions)
    title, caption = CAPTIONS["convergence"]
    told = " ".join(f"{name}: {_convergence(solution)}" for name, solution in solutions.items())
    return [framed(figure, Words(title, caption, told), drawings)]


def row_figures(solutions: Mapping[str, Solution], whole: Mapping[str, Solution],
                drawings: Drawings) -> dict[str, list[Element]]:
    """Spectra, energies and cost along depth of each row, all rows on the same scales.

    Parameters
    ----------
    solutions : dict of str to Solution
        With states.
    whole : dict of str to Solution
        The same on all samples, of which the cost is.
    drawings : Drawings

    Returns
    -------
    dict of str to list of Element
        By name, in the order of the solutions.
    """
    palette = colours(solutions)
    drawn = {name: _row_panels(solution, whole[name], palette[name])
             for name, solution in solutions.items()}
    fewer = [[_thinned(panels[kind]) for _, panels, _ in drawn.values()] for kind in range(2)]
    captions = [*(said[0].strip() for said in fewer), "", ""]
    for kind in range(2):
        axes = [panels[kind] for _, panels, _ in drawn.values()]
        views = np.array([ax.get_ylim() for ax in axes])
        for ax in axes:
            log_ticks(ax, views[:, 0].min(), views[:, 1].max())
    highest = max(panels[3].get_ylim()[1] for _, panels, _ in drawn.values())
    for _, panels, _ in drawn.values():
        panels[3].set_ylim(0, highest)
    depth = max(s.problem.effective_depth for s in solutions.values())
    view_energies([panels[2] for _, panels, _ in drawn.values()],
                  [energies for _, _, energies in drawn.values()], depth)
    made = {}
    for name, (figures, _, _) in drawn.items():
        solution = solutions[name]
        made[name] = [
            framed(figure, Words(CAPTIONS[kind][0], caption, _described(
                kind, whole[name] if kind == "running_cost" else solution)), drawings, name)
            for kind, figure, caption in zip(
                OF_ROWS, figures, captions, strict=True)]
    return made


def framed(figure: Figure, words: Words, drawings: Drawings, of: str | None = None) -> Element:
    """A figure with title and caption; `of` names what the heading above it says."""
    title = words.title if of is None else f"{words.title}: {of}"
    caption = element("figcaption", element("strong", words.title), " " if words.caption else None,
                      words.caption or None)
    return element("figure", drawings.svg(figure, title, words.description), caption)


def _row_panels(solution: Solution, whole: Solution, colour: str
                ) -> tuple[list[Figure], list[Axes], PathEnergies]:
    """Figures of one row, their axes, and the energies for a common view."""
    figures = [_new() for _ in OF_ROWS]
    axes = [figure.subplots() for figure in figures]
    plot.plot_spectra(solution, "representations", ax=axes[0], colour=colour)
    plot.plot_spectra(solution, "weights", ax=axes[1], colour=colour)
    plot.plot_running_cost(whole, ax=axes[3], colour=colour)
    return figures, axes, draw_energies(axes[2], solution, None, GAMMA0)


def _thinned(ax: Axes) -> str:
    """Take lines off a spectrum of very many: what is left still spans it, and is said."""
    lines = [line for line in ax.lines if not str(line.get_label()).startswith("_layers")]
    if len(lines) <= MOST_LINES:
        return ""
    kept = set(np.unique(np.geomspace(1, len(lines), MOST_LINES).round().astype(int) - 1))
    for k, line in enumerate(lines):
        if k not in kept:
            line.remove()
    return f" Of {len(lines)} lines {len(kept)} are drawn, from the largest to the smallest."


def energy_legend(drawings: Drawings) -> Element:
    """What the lines of the energies are, once for all rows."""
    entries = (("Hamiltonian, solid", PALETTE[6]), ("kinetic energy, dashed", PALETTE[1]),
               ("potential energy, dotted", PALETTE[0]))
    return element("p", "Energies: ", *_list(
        [element("span", element("span", class_="swatch " + drawings.style(f"background:{colour}")),
                 f" {name}") for name, colour in entries]),
        "; thin and lighter, their stable versions.")


def _list(parts: list[Element]) -> list[Element | str]:
    """Parts with commas between them."""
    mixed: list[Element | str] = []
    for part in parts:
        mixed += [", ", part] if mixed else [part]
    return mixed


def _convergence_figure(solutions: Mapping[str, Solution] | Solution) -> Figure:
    figure = _new()
    plot.plot_convergence(solutions, ax=figure.subplots(), legend=False)
    return figure


def _new() -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=SIZE, layout="constrained")


# -- what is to be seen --------------------------------------------------------------------------


def _described(name: str, solution: Solution) -> str:
    """A description of a panel from the numbers that it shows."""
    describe: dict[str, Callable[[Solution], str]] = {
        "spectra_representations": lambda s: _spectra(s, 0, "A"),
        "spectra_weights": lambda s: _spectra(s, 1, "W"),
        "energies": _energies, "running_cost": _cost, "convergence": _convergence}
    return describe.get(name, _predicted)(solution)


def _spectra(solution: Solution, which: int, symbol: str) -> str:
    values = solution.spectra()[which]
    counts = np.sum(values > COUNTED * np.maximum(values[:, :1], 1e-300), axis=1)
    middle = len(values) // 2
    return (f"Singular values of {symbol} against depth p on a logarithmic scale. The largest is "
            f"{values[0, 0]:.3g} at the beginning, {values[middle, 0]:.3g} in the middle and "
            f"{values[-1, 0]:.3g} at the end; above a hundredth of it there are {counts[0]}, "
            f"{counts[middle]} and {counts[-1]}, and {counts.min()} where they are fewest.")


def _energies(solution: Solution) -> str:
    energies = solution.energies(GAMMA0)
    H = energies.hamiltonian
    cost = float(np.min(energies.stable_cost_of_identity))
    return (f"Energies against depth p. The Hamiltonian is {np.median(H):.4g} in the median, "
            f"between {H.min():.4g} and {H.max():.4g}; the stable kinetic energy lies between "
            f"{energies.stable_kinetic.min():.4g} and {energies.stable_kinetic.max():.4g}; the "
            f"least stable cost of identity is {cost:.4g}.")


def _cost(solution: Solution) -> str:
    cost = solution.running_cost()
    area, rate = float(cost.cumulative[-1]), cost.rate
    half = float(np.interp(0.5 * area, cost.cumulative, cost.p))
    return (f"Cost of the weights against depth p, between {rate.min():.4g} and {rate.max():.4g}. "
            f"The area of {area:.4g} and the loss of {cost.loss:.4g} are the objective, "
            f"{cost.objective:.6g}; half of the area lies before p = {half:.2g}.")


def _predicted(solution: Solution) -> str:
    """How well outputs meet targets, for whatever shows that."""
    problem, test = solution.problem, solution.test_error()
    text = (f"The mean squared error of the {problem.n_samples} training samples is "
            f"{solution.loss:.4g}, in the units the network works in")
    return text + ("." if test is None else f", and {test:.4g} on the rows that were held out.")


def _convergence(solution: Solution) -> str:
    finite = [r for r in solution.history if np.isfinite(r.objective)]
    if not finite:
        return f"The objective ends at {solution.objective:.6g} after {solution.seconds:.3g} s."
    return (f"The objective goes from {finite[0].objective:.6g} to {solution.objective:.6g} in "
            f"{solution.seconds:.3g} s and {solution.nit} iterations.")
