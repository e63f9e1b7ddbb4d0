"""`report`: a solution or a comparison as one self-contained HTML page.

The page asks nothing of anybody: styles, script and figures are in it, and a policy in its head
(`default-src 'none'`, with the hashes of its own style and script) lets it load nothing else. The
same result gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from hamshoot.optimality.certificate import certify
from hamshoot.optimality.checks import CLAIMING
from hamshoot.optimality.words import headline
from hamshoot.report import sections
from hamshoot.report.drawing import Drawings
from hamshoot.report.figures import (
    comparison_figures,
    energy_legend,
    row_figures,
    solution_figures,
)
from hamshoot.report.walk import walk_section, with_states
from hamshoot.solution.remarks import remarks
from hamshoot.solution.solution import Solution
from hamshoot.study.compare import SAME_SECONDS, Comparison, Row
from hamshoot.support.files import write_whole
from hamshoot.support.html import Element, element, written
from hamshoot.support.version import __version__

SUFFIXES = (".html", ".htm")


def report(result: Solution | Comparison, path: str | PathLike, *, title: str | None = None,
           second_order: bool = True) -> Path:
    """Write a page that shows a result, whole or not at all.

    Parameters
    ----------
    result : Solution or Comparison
    path : path
        Of an .html file; the suffix is added where there is none. A file that is there is replaced.
    title : str, optional
        Heading of the page.
    second_order : bool
        Whether the certificates on the page say if a stationary point is a minimum. That test is
        what takes long, as it does in `hamshoot.certify`.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    TypeError
        For another result.
    ValueError
        For a path that is no name of a page, and for a comparison without rows.
    OSError
        If the directory cannot be written to.
    """
    path = page_path(path)
    text = page(result, title=title, second_order=second_order)
    write_whole(path, lambda file: file.write(text), mode="w")
    return path


def page_path(path: str | PathLike) -> Path:
    """The name of a page, its suffix added where there is none.

    Raises
    ------
    ValueError
        For another suffix, and for a directory.
    """
    path = Path(path)
    path = path if path.suffix or path.is_dir() else path.with_suffix(".html")
    if path.is_dir():
        raise ValueError(f"{path}: expected a file, got a directory")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"path: expected a name ending in {' or '.join(SUFFIXES)}, "
                         f"got {path.name!r}")
    return path


def page(result: Solution | Comparison, *, title: str | None = None, second_order: bool = True
         ) -> str:
    """The text of the page, see `report`.

    Notes
    -----
    It costs `hamshoot.certify` of every solution, with the second-order test of those that claim a
    stationary point, the singular values of states and weights at each depth, and the drawing.
    """
    drawings = Drawings()
    if isinstance(result, Solution):
        heading, parts = _of_solution(result, drawings, second_order)
    elif isinstance(result, Comparison):
        if not result.rows:
            raise ValueError("comparison: expected at least one row, got none")
        heading, parts = _of_comparison(result, drawings, second_order)
    else:
        raise TypeError(f"result: expected a Solution or a Comparison, got {type(result).__name__}")
    heading = heading if title is None else title
    return _document(heading, sections.problem_line(result.problem),
                     sections.columns(result.problem), parts, drawings)


# -- what is on it ---------------------------------------------------------------------------------


def _of_solution(solution: Solution, drawings: Drawings, second_order: bool
                 ) -> tuple[str, list[Element]]:
    certificate = _certificate(solution, second_order)
    numbers = {**Row(solution.method.replace("_", " "), solution).numbers,
               "cpu_seconds": None} if _drawable(solution) else solution.summary()
    by = solution.method.replace("_", " ")
    heading = f"A Leaky ResNet of {solution.layers} layers, by {by}" if solution.layers else \
        f"A path through continuous depth, by {by}"
    found = [sections.verdict(bool(solution.success), _ended(solution)),
             sections.verdict(certificate["holds"], headline(certificate)),
             *(element("p", text) for text in (remarks(solution) if _drawable(solution) else ()))]
    parts = [_section("finding", "Finding", *found),
             _section("certificate", "How sure that is",
                      sections.certificate_words(certificate))]
    if _drawable(solution):
        small = with_states(solution)
        parts += [_depth({"": small}, _stand_in(solution, small), drawings),
                  _section("figures", "Figures",
                           element("div", *solution_figures(small, solution, drawings),
                                   class_="figures pairs"))]
    else:
        parts.append(_nothing_to_draw())
    parts += [_section("numbers", "All numbers", sections.numbers_table([numbers])),
              _section("words", "What the words mean", sections.glossary([]))]
    return heading, parts


def _of_comparison(comparison: Comparison, drawings: Drawings, second_order: bool
                   ) -> tuple[str, list[Element]]:
    rows = {row.name: row.solution for row in comparison.rows}
    numbers = [row.numbers for row in comparison.rows]
    certificates = {name: _certificate(solution, second_order) for name, solution in rows.items()}
    first, best = next(iter(rows)), comparison.best.name
    told = None if comparison.complete else sections.verdict(
        False, "The comparison was stopped before its last row; here is what was finished.")
    words = list(dict.fromkeys((first, best)))
    parts = [
        _section("finding", "Finding", told,
                 *sections.finding(comparison.finding()), sections.score(rows, drawings),
                 *(element("p", text) for text in comparison.remarks())),
        _section("table", "Side by side", sections.numbers_table(numbers)),
        _section("certificate", "How sure that is", sections.certificates_table(certificates),
                 *(part for name in words for part in (
                     element("h3", f"The certificate of {name}, in words"),
                     sections.certificate_words(certificates[name]))))]
    parts += _comparison_drawings(rows, drawings)
    ended = [part for name, solution in rows.items()
             for part in (element("dt", name), element("dd", _ended(solution)))]
    parts += [_section("runs", "How each run ended", element("dl", *ended)),
              _section("words", "What the words mean", sections.glossary(numbers))]
    return "Optimal control beside gradient descent", parts


def _comparison_drawings(rows: Mapping[str, Solution], drawings: Drawings) -> list[Element]:
    """Depth and figures of the rows that have finite states."""
    drawn = {name: solution for name, solution in rows.items() if _drawable(solution)}
    if not drawn:
        return [_nothing_to_draw()]
    small = {name: with_states(solution) for name, solution in drawn.items()}
    one = next(iter(drawn))
    stand_in = _stand_in(drawn[one], small[one])
    left_out = [name for name in rows if name not in drawn]
    missing = element("p", f"Without figures, since their states are not finite: "
                      f"{', '.join(left_out)}.") if left_out else None
    by_row = [part for name, figures in row_figures(small, drawn, drawings).items()
              for part in (element("h3", name), element("div", *figures, class_="figures"))]
    return [_depth(small, stand_in, drawings),
            _section("figures", "Figures", missing,
                     element("div", *comparison_figures(drawn, drawings), class_="figures single"),
                     energy_legend(drawings), *by_row)]


def _depth(solutions: Mapping[str, Solution], stand_in: str | None, drawings: Drawings) -> Element:
    """The section with the slider; shown are the first and what had as many seconds as it."""
    names = list(solutions)
    shown = [names[0], SAME_SECONDS if SAME_SECONDS in names else names[-1]]
    how = ("Each sample starts at its ring and moves as depth grows; the components are those of "
           "all samples at all depths, common to all networks shown. Below, the singular values of "
           "A and W at that depth, on a logarithmic scale over four decades; between the nodes all "
           "is interpolated but the weights of a layer, which stay what they are.")
    return _section("depth", "Samples through depth", element("p", how),
                    None if stand_in is None else element("p", stand_in),
                    element("noscript", element("p", "Without JavaScript the panels show p = 1.")),
                    walk_section(solutions, shown, drawings))


def _certificate(solution: Solution, second_order: bool) -> dict[str, Any]:
    """As JSON has it; the second-order test only for what claims a stationary point."""
    wanted = second_order and solution.status in CLAIMING
    return certify(solution, second_order=wanted).to_dict()


def _ended(solution: Solution) -> str:
    """Status and message, without saying the one twice."""
    status = str(solution.status)
    message = solution.message or status
    text = message if status in message else f"{status} {message}"
    return text if solution.success else f"Not converged. {text}"


def _drawable(solution: Solution) -> bool:
    """Whether there is something to draw: finite states, or weights where they are not stored."""
    arrays = [solution.weights, *([solution.representations, solution.momenta]
                                  if solution.stored else [])]
    return bool(np.isfinite(solution.objective)) and all(np.isfinite(a).all() for a in arrays)


def _stand_in(solution: Solution, small: Solution) -> str | None:
    if small is solution:
        return None
    return (f"The states of this network are not stored; what is drawn of them are those of "
            f"{small.problem.n_samples} of its {solution.problem.n_samples} samples.")


def _nothing_to_draw() -> Element:
    return _section("figures", "Figures", element(
        "p", "There is nothing to draw: the states of the network are not finite numbers."))


def _section(key: str, heading: str, *parts: Element | None) -> Element:
    return element("section", element("h2", heading, id=f"{key}-heading"), *parts, id=key,
                   aria_labelledby=f"{key}-heading")


# -- the page around it ----------------------------------------------------------------------------


def _document(heading: str, problem: str, columns: Element | None, parts: list[Element],
              drawings: Drawings) -> str:
    """The whole text; styles are known once everything is drawn."""
    style = f"{_asset('style.css')}\n{drawings.stylesheet()}"
    script = _asset("walk.js")
    policy = (f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
              "img-src data:; base-uri 'none'; form-action 'none'")
    head = element(
        "head", element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"hamshoot {__version__}"),
        element("title", heading),
        element("link", rel="icon", href="data:,"),  # else a browser asks its server for one
        element("style", style))
    links = [element("li", element("a", part[0].text or "", href=f"#{part.get('id')}"))
             for part in parts]
    body = element(
        "body", drawings.glyph_sheet(),
        element("header", element("p", "hamshoot report", class_="kind"), element("h1", heading),
                element("p", problem, class_="problem"), columns,
                element("nav", element("ul", *links), aria_label="Sections")),
        element("main", *parts),
        element("footer", element("p", f"Made by hamshoot {__version__}. All that is shown is in "
                                  "this file; it loads nothing.")),
        element("script", script))
    return "<!DOCTYPE html>\n" + written(element("html", head, body, lang="en")) + "\n"


def _asset(name: str) -> str:
    return files("hamshoot.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names a style or a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
