"""Sections of a report: what was asked, what was found, how sure that is, and what words mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.optimality.words import headline, in_words
from hamshoot.report.drawing import Drawings
from hamshoot.report.glossary import MEANINGS, WORDS
from hamshoot.study.looks import colours
from hamshoot.study.tables import cells
from hamshoot.support.html import Element, element, table

if TYPE_CHECKING:
    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.solution.solution import Solution

#: Names of columns or classes that are listed before the rest is counted.
LISTED = 12
MARKS = {True: ("✓", "good", "holds"), False: ("✗", "bad", "against"), None: ("·", "", "note")}


# -- what was asked --------------------------------------------------------------------------------


def problem_line(problem: TrainingProblem) -> str:
    """The problem in a sentence."""
    tested = 0 if problem.X_test is None else len(problem.X_test)
    sigma = problem.sigma.name.replace("_", " ").replace("relu", "ReLU").replace("gelu", "GELU")
    aim = "a prescribed endpoint" if problem.hard_endpoint else (
        f"{len(problem.classes)} classes" if problem.classes is not None
        else _counted(problem.d_out, "target"))
    return (f"{_counted(problem.n_samples, 'sample')}"
            f"{f' and {tested} held out' if tested else ''}, {_counted(problem.d_in, 'input')}, "
            f"{aim}; width {problem.width}, {sigma}, leakage L̃ = {problem.effective_depth:g}, "
            f"weight decay λ = {problem.weight_decay:g}.")


def columns(problem: TrainingProblem) -> Element | None:
    """Names of inputs, targets and classes, where the data have them."""
    named = (("Inputs", problem.input_names), ("Targets", problem.target_names),
             ("Classes", problem.classes))
    entries = []
    for about, names in named:
        if names:
            rest = len(names) - LISTED
            listed = ", ".join(map(str, names[:LISTED])) + (f" and {rest} more" if rest > 0 else "")
            entries += [element("dt", about), element("dd", listed)]
    if not entries:
        return None
    return element("details", element("summary", "Columns"), element("dl", *entries))


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


# -- what was found --------------------------------------------------------------------------------


def verdict(good: bool | None, text: str) -> Element:
    """A sentence with its mark, in a frame."""
    mark, kind, spoken = MARKS[good]
    return element("p", element("span", mark, class_="mark", role="img", aria_label=spoken),
                   element("span", text), class_=f"verdict {kind}".strip())


def finding(text: str) -> list[Element]:
    """The finding of a comparison: its first sentence large, the others listed."""
    first, *others = re.split(r"(?<=\.) (?=[A-Z])", text)
    return [element("p", first, class_="finding"),
            element("ul", *(element("li", one) for one in others))]


def score(rows: Mapping[str, Solution], drawings: Drawings) -> Element | None:
    """Objectives of all rows, with bars for what they are above the lowest."""
    finite = {name: s.objective for name, s in rows.items() if np.isfinite(s.objective)}
    if not finite or min(finite.values()) <= 0:
        return None
    palette, lowest = colours(rows), min(finite.values())
    most = max(max(finite.values()) / lowest - 1, 1e-12)
    items = []
    for name, solution in rows.items():
        above = solution.objective / lowest - 1
        swatch = element("span", class_="swatch " + drawings.style(f"background:{palette[name]}"))
        known = name in finite
        bar = element("rect", x=0, y=0, height=6, width=f"{100 * above / most:.2f}",
                      class_=drawings.style(f"fill:{palette[name]}")) if known else None
        more = ("lowest" if above == 0 else f"+{above:.2%}") if known else "not finite"
        items.append(element(
            "li", element("span", swatch, " ", name),
            element("span", f"J = {solution.objective:.6g}", class_="number"),
            element("span", more, class_="number more"),
            element("svg", bar, viewBox="0 0 100 6", preserveAspectRatio="none",
                    aria_hidden="true")))
    return element("div", element("p", "The objectives J, and how far they are above the lowest:"),
                   element("ul", *items, class_="score"))


def numbers_table(rows: Sequence[dict[str, Any]]) -> Element:
    """The table of `hamshoot.study.tables`; of one solution with what each number means."""
    heads, texts = cells(rows)
    lines: list[list[str | Element]] = [list(line) for line in texts]
    if len(rows) == 1:
        for line in lines:
            line.append(MEANINGS.get(str(line[0]), ""))
        heads.append("what it means")
    kind = "numbers one" if len(rows) == 1 else "numbers"
    return element("div", table([h or "quantity" for h in heads], lines, class_=kind),
                   class_="scroll", tabindex=0, role="region", aria_label="Table of all numbers")


# -- how sure that is ------------------------------------------------------------------------------


def certificate_words(certificate: Mapping[str, Any]) -> Element:
    """What a certificate says, sentence by sentence, with every check folded below."""
    items = []
    for sentence in in_words(certificate):
        mark, kind, spoken = MARKS[sentence.verdict]
        items.append(element(
            "li", element("span", mark, class_="mark", role="img", aria_label=spoken),
            element("span", element("span", f"{sentence.about}: ", class_="about"), sentence.text),
            class_=kind or None))
    lines: list[list[str | Element]] = [
        [bound["name"], _number(bound["value"]), _number(bound["most"]),
         "holds" if bound["holds"] else "FAILS"] for bound in certificate["bounds"]]
    checks = table(["check", "value", "at most", ""], lines)
    return element(
        "div", element("ul", *items, class_="certificate"),
        element("details", element("summary", f"All {len(lines)} checks"),
                element("div", checks, class_="scroll", tabindex=0, role="region",
                        aria_label="Table of all checks")))


def certificates_table(certificates: Mapping[str, Mapping[str, Any]]) -> Element:
    """One line for each row of a comparison."""
    lines: list[list[str | Element]] = [
        [name, f"stationarity {_number(c['stationarity'])}", headline(c)]
        for name, c in certificates.items()]
    return element("div", table(["network", "first order", "outcome"], lines, class_="words"),
                   class_="scroll", tabindex=0, role="region", aria_label="Table of certificates")


def _number(value: float | None) -> str:
    return "not finite" if value is None else "0" if value == 0 else f"{value:.1e}"


# -- what words mean -------------------------------------------------------------------------------


def glossary(shown: Sequence[dict[str, Any]]) -> Element:
    """Meanings of the numbers in the table, and of the page's own words."""
    labels = {line[0] for line in cells(shown)[1]}
    known = {**WORDS, **{name: text for name, text in MEANINGS.items() if name in labels}}
    entries = [part for name, text in known.items()
               for part in (element("dt", name), element("dd", text))]
    return element("dl", *entries)
