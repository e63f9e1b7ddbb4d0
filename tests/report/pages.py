"""What tests of reports share: results that need no solver, and a reader of pages."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
from problems import teacher

import hamshoot as hs
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.study.compare import CONTROL, DESCENT, Comparison, Row

#: Elements without an end.
VOID = {"meta", "link", "input"}


def drawn(problem=None, *, seed=0, layers=6, integrator="euler", history=3, **options):
    """A layered network near the identity: stationary nowhere, and finite everywhere."""
    problem = teacher(**options) if problem is None else problem
    rng = np.random.default_rng(seed)
    weights = 0.3 * rng.standard_normal((layers, *problem.control_shape))
    weights[:, :, :problem.width] += 2.5 * np.eye(problem.width)
    solution = solution_from_weights(
        problem, weights, np.full(layers, 1 / layers), status=hs.Status.TRAINED, success=True,
        method="drawn", integrator=integrator, seconds=1.0)
    records = tuple(hs.Record(k, solution.objective + 2.0**-k, 1.0, 0.1 * (k + 1))
                    for k in range(history))
    return solution.replace(history=records)


def compared(**options):
    """Two rows on one problem."""
    first = drawn(**options)
    second = drawn(first.problem, seed=1)
    return Comparison(first.problem, (Row(CONTROL, first), Row(DESCENT, second)),
                      settings={"start": "path", "seed": 3})


class Reader(HTMLParser):
    """Elements of a page with their attributes, its texts, and whether all ends match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.unmatched = [], [], []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unmatched.append(tag)

    def handle_data(self, text):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(text)

    def of(self, tag):
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def with_class(self, name):
        """Attributes of all elements of a class."""
        return [attributes for _, attributes in self.elements
                if name in attributes.get("class", "").split()]

    @property
    def text(self):
        """All that is read, scripts and styles apart."""
        return " ".join(" ".join(texts) for tag, texts in self.texts.items()
                        if tag not in ("script", "style"))
