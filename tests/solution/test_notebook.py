"""What notebooks show holds the numbers that `print` shows, escaped, without script or style."""

from html.parser import HTMLParser

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.study.compare import CONTROL, DESCENT, Comparison, Row


def network(seed=0, **options):
    problem = teacher()
    rng = np.random.default_rng(seed)
    weights = 0.3 * rng.standard_normal((4, *problem.control_shape))
    weights[:, :, :problem.width] += 2.5 * np.eye(problem.width)
    return solution_from_weights(
        problem, weights, np.full(4, 0.25),
        **{"status": hs.Status.TRAINED, "success": True, "method": "test", **options})


class Cells(HTMLParser):
    """Texts of cells, row by row, all tags, and all texts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.rows, self.tags, self.text, self.inside = [], set(), "", False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th")
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, text):
        self.text += text
        if self.inside:
            self.rows[-1][-1] += text


def test_a_solution_shows_the_lines_of_its_print():
    solution = network()
    read = Cells(solution._repr_html_())
    printed = [line.split(None, 1) for line in repr(solution).splitlines()[1:]]
    assert read.rows == [[name, text.strip()] for name, text in printed]
    assert f"{solution.objective:.10g}" in read.rows[2][1]


def test_what_did_not_converge_is_marked():
    assert "✓" in network()._repr_html_()
    assert "✗" in network(success=False, status=hs.Status.MAX_ITER)._repr_html_()


def test_a_certificate_shows_every_check_and_its_sentences():
    certificate = hs.certify(network())
    read = Cells(certificate._repr_html_())
    assert [row[0] for row in read.rows[1:]] == [b.name for b in certificate.bounds]
    assert [row[3] for row in read.rows[1:]] == ["holds" if b.holds else "FAILS"
                                                 for b in certificate.bounds]
    for sentence in certificate.in_words():
        assert sentence in read.text
    assert read.text.startswith("✗ Not certified")


def test_a_comparison_shows_its_table_and_its_finding():
    rows = Row(CONTROL, network(0)), Row(DESCENT, network(1))
    comparison = Comparison(rows[0].solution.problem, rows)
    read = Cells(comparison._repr_html_())
    assert read.rows[0] == ["", CONTROL, DESCENT]
    table = {label: values for label, *values in read.rows}
    assert table["objective J"] == [f"{row.solution.objective:.8g}" for row in rows]
    assert comparison.finding() in read.text


@pytest.mark.parametrize("message", ["<script>alert(1)</script>", "a & b < c"])
def test_a_message_is_text(message):
    read = Cells(network(message=message)._repr_html_())
    assert message in read.rows[1][1]
    assert read.tags == {"div", "p", "strong", "table", "tbody", "tr", "th", "td"}


def test_print_is_the_same_in_a_notebook(monkeypatch):
    """Where rich believes itself in one it displays what it should write."""
    rows = Row(CONTROL, network(0)), Row(DESCENT, network(1))
    comparison = Comparison(rows[0].solution.problem, rows)
    outside = repr(comparison)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert repr(comparison) == outside
    assert "objective J" in outside
