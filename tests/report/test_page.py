"""A page holds all that it shows, loads nothing, and lets no name of a user's become markup."""

import base64
import hashlib
import re

import numpy as np
import pytest
from pages import Reader, compared, drawn
from problems import between, one_neuron, teacher

import hamshoot as hs
from hamshoot.report import page as pages
from hamshoot.report import walk
from hamshoot.report.drawing import Drawings
from hamshoot.report.page import page, report
from hamshoot.solution.remarks import remarks
from hamshoot.study import plot
from hamshoot.study.compare import CONTROL, DESCENT, SAME_SECONDS, Comparison, Row
from hamshoot.support.html import written
from hamshoot.theory.closed_forms import one_sample_path

NASTY = "</script><script>alert('x')</script>", "<img src=x onerror=alert(1)>", 'a"b&c', "${x}"


@pytest.fixture(scope="module")
def of_solution():
    return page(drawn(test_samples=5))


@pytest.fixture(scope="module")
def of_comparison():
    return page(compared(test_samples=5))


@pytest.fixture(params=["of_solution", "of_comparison"])
def text(request):
    return request.getfixturevalue(request.param)


def test_all_elements_end_and_no_id_is_given_twice(text):
    read = Reader(text)
    assert read.unmatched == []
    assert read.open == []
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids)) > 20


def test_everything_referred_to_is_in_the_page(text):
    read = Reader(text)
    ids = {a["id"] for _, a in read.elements if "id" in a}
    named = set()
    for _, attributes in read.elements:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            named.update(attributes.get(name, "").split())
        if attributes.get("href", "").startswith("#"):
            named.add(attributes["href"][1:])
        for value in attributes.values():
            named.update(re.findall(r"url\(#([^)]+)\)", value or ""))
    assert named <= ids
    assert len(named) > 20


def test_nothing_is_loaded_from_anywhere(text):
    read = Reader(text)
    links = {a["href"] for _, a in read.elements if "href" in a}
    assert "data:," in links
    assert {link for link in links if not link.startswith(("#", "data:"))} == set()
    assert not [a for _, a in read.elements
                if {"src", "srcset", "action", "data", "style"} & a.keys()]
    assert not [name for _, a in read.elements for name in a if name.startswith("on")]
    assert "://" not in text
    assert "@import" not in text


def test_the_policy_allows_the_page_s_own_style_and_script_alone(text):
    read = Reader(text)
    policy = next(a["content"] for a in read.of("meta")
                  if a.get("http-equiv") == "Content-Security-Policy")
    directives = dict(one.strip().split(" ", 1) for one in policy.split(";"))
    assert directives["default-src"] == "'none'"
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert directives[f"{tag}-src"] == f"'sha256-{digest}'"


def test_every_drawing_has_a_text_in_its_place(text):
    read = Reader(text)
    spoken = [a for a in read.of("svg") if a.get("aria-hidden") != "true"]
    assert len(spoken) >= 6
    for attributes in spoken:
        assert attributes["role"] == "img"
        assert {"aria-labelledby", "aria-describedby"} <= attributes.keys()
    told = read.texts["desc"]
    assert len(told) == len(spoken)
    assert min(map(len, told)) > 40


def test_every_variable_of_the_figures_is_set_on_both_pages(text):
    style = re.search(r"<style>(.*?)</style>", text, flags=re.DOTALL)[1]
    used = set(re.findall(r"var\(--(c[0-9a-f]{6})\)", style))
    light, dark, pictures = re.findall(r"\{(--c[^}]*)\}", style)
    assert pictures == light
    for block in (light, dark):
        assert used <= set(re.findall(r"--(c[0-9a-f]{6}):", block))
    assert light != dark
    classes = {name for _, a in Reader(text).elements for name in a.get("class", "").split()
               if re.fullmatch(r"m\d+", name)}
    assert classes <= set(re.findall(r"\.(m\d+)\{", style))
    assert len(classes) > 5


def test_a_page_is_a_few_hundred_kilobytes_and_the_same_each_time(of_solution, of_comparison):
    assert len(of_solution.encode()) < 150_000
    assert len(of_comparison.encode()) < 300_000
    assert page(drawn(test_samples=5)) == of_solution


def test_the_numbers_of_a_solution_are_on_its_page(of_solution):
    solution, read = drawn(test_samples=5), Reader(of_solution)
    cells = read.texts["td"]
    assert f"{solution.objective:.8g}" in cells
    assert f"{solution.test_error():.5g}" in cells
    certificate = hs.certify(solution, second_order=False)
    for sentence in certificate.in_words():
        assert sentence in read.text
    assert certificate.reasons[0] in read.text


def test_a_comparison_says_what_it_found_and_shows_every_row(of_comparison):
    comparison, read = compared(test_samples=5), Reader(of_comparison)
    for sentence in re.split(r"(?<=\.) (?=[A-Z])", comparison.finding()):
        assert sentence in read.text
    assert read.texts["h3"].count(f" {CONTROL}") == 1
    assert len(read.with_class("walk")) == 2
    assert len(read.of("figure")) == 1 + 4 * 2
    lowest = min(row.solution.objective for row in comparison.rows)
    for row in comparison.rows:
        above = row.solution.objective / lowest - 1
        assert ("lowest" if above == 0 else f"+{above:.2%}") in read.texts["span"]


def test_names_of_columns_and_classes_are_text_and_nothing_else():
    rng = np.random.default_rng(0)
    classes = np.eye(2)[rng.integers(0, 2, 12)]
    problem = hs.TrainingProblem(
        rng.standard_normal((12, 2)), classes, effective_depth=2.0, weight_decay=1e-2, width=3,
        input_names=NASTY[:2], target_names=NASTY[2:], classes=NASTY[:2])
    text = page(drawn(problem).replace(message=NASTY[1]), title=NASTY[0])
    read = Reader(text)
    assert read.unmatched == []
    assert len(read.of("script")) == 1
    assert read.of("img") == []
    for name in NASTY:
        assert name in read.text
    assert read.texts["h1"] == [NASTY[0]]


def test_targets_are_named_where_their_values_colour_the_samples():
    problem = hs.TrainingProblem(np.arange(8.0)[:, None], np.arange(8.0)[:, None] ** 2, width=2,
                                 effective_depth=2.0, weight_decay=1e-2, target_names=("<price>",))
    assert "Colours of samples, by <price>:" in Reader(page(drawn(problem))).texts["span"]


@pytest.mark.parametrize("integrator", ["rk4", "euler"])
def test_networks_of_either_integrator_have_pages(integrator):
    solution = drawn(integrator=integrator, history=0)
    read = Reader(page(solution))
    # Without records there is no convergence; paths are those of the slider.
    assert len(read.of("figure")) == len(plot.panels(solution).keys() - {"convergence", "paths"})
    assert "Convergence" not in read.texts["strong"]
    (panel,) = read.with_class("walk")
    assert len(panel["data-p"].split()) == (7 if integrator == "euler" else walk.POINTS)


def test_a_continuous_path_has_a_page():
    p = np.linspace(0, 1, 9)
    path = one_sample_path(p, [1.0, 0.2], [0.2, 1.0], 3.0)
    problem = between([1.0, 0.2], path.representations[-1], effective_depth=3.0, weight_decay=0.01)
    solution = hs.Solution(
        problem=problem, p=p, representations=path.representations, momenta=path.momenta,
        weights=path.weights, objective=0.01 * path.cost, loss=0.0, parameter_norm=6 * path.cost,
        success=True, status=hs.Status.CONVERGED, message="", nit=0, residuals={}, history=(),
        seconds=0.0, method="closed form", integrator="flow")
    read = Reader(page(solution, second_order=False))
    assert "Integrated anew from each node to the next" in read.text
    assert "a prescribed endpoint" in read.text
    assert read.texts["h1"] == ["A path through continuous depth, by closed form"]


def test_width_one_is_shown_against_depth():
    read = Reader(page(drawn(one_neuron(2.0))))
    assert "depth p" in read.texts["text"]


def test_a_solution_that_was_not_solved_says_so_first():
    solution = drawn().replace(success=False, status=hs.Status.MAX_ITER, message="")
    text = Reader(page(solution)).text
    assert f"Not converged. {hs.Status.MAX_ITER}" in text


def test_numbers_that_are_not_finite_leave_a_page_without_figures():
    broken = drawn()
    broken = broken.replace(weights=np.full_like(broken.weights, np.nan), objective=float("nan"),
                            success=False, status=hs.Status.DIVERGED, message="")
    read = Reader(page(broken))
    assert read.of("figure") == []
    assert "There is nothing to draw" in read.text
    rows = Row(CONTROL, drawn()), Row(DESCENT, broken)
    with np.errstate(all="ignore"):
        read = Reader(page(Comparison(broken.problem, rows)))
    assert len(read.with_class("walk")) == 1
    assert f"Without figures, since their states are not finite: {DESCENT}." in read.text


def test_a_comparison_that_was_stopped_says_so():
    whole = compared()
    text = Reader(page(Comparison(whole.problem, whole.rows[:1], complete=False))).text
    assert "stopped before its last row" in text


def test_states_that_are_not_stored_are_those_of_some_samples(monkeypatch):
    whole = drawn(samples=40)
    light = whole.replace(representations=None, momenta=None)
    monkeypatch.setattr(walk, "STAND_IN", 10)
    read = Reader(page(light))
    assert "those of 10 of its 40 samples" in read.text
    titles = read.texts["strong"]
    assert "Hamiltonian and energies" not in titles
    assert "Singular values of the weights" in titles
    assert not light.stored
    cost = whole.running_cost()  # of all samples, though ten are shown
    assert f"the loss of {cost.loss:.4g} are the objective, {cost.objective:.6g}" in read.text


def test_numbers_that_mean_nothing_are_called_so():
    solution, comparison = drawn(test_samples=5), compared(test_samples=5)
    assert remarks(solution)
    for texts, result in ((remarks(solution), solution), (comparison.remarks(), comparison)):
        shown = Reader(page(result)).texts["p"]
        assert all(text in shown for text in texts)


def test_a_file_is_written_whole_with_its_suffix(tmp_path):
    path = drawn(history=0).report(tmp_path / "page", title="Mine")
    assert path == tmp_path / "page.html"
    assert Reader(path.read_text(encoding="utf-8")).texts["h1"] == ["Mine"]
    assert compared().report(tmp_path / "both.html").stat().st_size > 50_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.html", "page.html"]


def test_what_cannot_be_written_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "page", None)  # were it called, there would be a TypeError
    with pytest.raises(ValueError, match=r"ending in .html or .htm, got 'page.pdf'"):
        report(drawn(), tmp_path / "page.pdf")
    (tmp_path / "there.html").mkdir()
    with pytest.raises(ValueError, match=r"there.html: expected a file, got a directory"):
        report(drawn(), tmp_path / "there.html")


def test_other_things_are_refused(tmp_path):
    with pytest.raises(TypeError, match="expected a Solution or a Comparison, got dict"):
        report({}, tmp_path / "page.html")
    with pytest.raises(ValueError, match="at least one row"):
        report(Comparison(teacher(), ()), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_the_row_of_equal_seconds_is_shown_beside_the_first():
    first = drawn()
    rows = {name: drawn(first.problem, seed=k)
            for k, name in enumerate((CONTROL, DESCENT, SAME_SECONDS))}
    read = Reader(written(pages._depth(rows, None, Drawings())))
    boxes = [a for a in read.of("input") if a.get("type") == "checkbox"]
    assert ["checked" in a for a in boxes] == [True, False, True]


def test_of_very_many_singular_values_some_are_drawn_and_that_is_said():
    few, many = ("are drawn" in " ".join(Reader(page(drawn(width=width, dims=(3, 2, 3)))).texts[
        "figcaption"]) for width in (4, 40))
    assert (few, many) == (False, True)
