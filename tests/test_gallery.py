"""The gallery says what the committed results hold: every number of its claims is in them."""

import json
import re
from pathlib import Path
from statistics import median

import pytest

DEMOS = Path(__file__).parent.parent / "demos"
GALLERY = (DEMOS / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted(path.stem for path in DEMOS.glob("[0-9][0-9]_*.py"))
ROWS = [[cell.strip() for cell in line.strip("|").split("|")]
        for line in GALLERY.splitlines() if line.startswith("| ")][1:]
# The names of quantities hold digits too; what is left are measured numbers.
NAMES = re.compile(r"\[[^\]]*\]\([^)]*\)|`[^`]*`|L̃ = [\d.]+|p = [\d/.]+|2-D|[−-]2H|10²|L²")
NUMBER = re.compile(r"\d[\d.]*(?:e[+-]?\d+)?%?")


def recorded(stem):
    return json.loads((DEMOS / "results" / f"{stem}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("stem", SCRIPTS)
def test_every_demo_has_an_entry_its_results_and_a_figure(stem):
    assert f"[{stem}.py]({stem}.py)" in GALLERY
    assert f"python demos/{stem}.py" in GALLERY
    assert (DEMOS / "figures" / f"{stem}.png").stat().st_size > 10_000
    assert "--small" not in recorded(stem)["command"]


def test_the_gallery_links_to_nothing_that_is_missing():
    links = re.findall(r"\]\(([^)#]+)\)", GALLERY)
    assert len(links) > len(SCRIPTS)
    assert [link for link in links
            if not link.startswith("https://") and not (DEMOS / link).exists()] == []


def test_the_readme_says_of_large_networks_what_was_measured():
    text = (DEMOS.parent / "README.md").read_text(encoding="utf-8")
    results = json.loads((DEMOS / "benchmarks" / "paper_size.json").read_text(encoding="utf-8"))

    def best(method, seed):
        return min((r for r in results["runs"] if (r["method"], r["seed"], r["start"]) == (
            method, seed, "path")), key=lambda r: r["objective"])

    shares = {}
    for method in ("adam", "lbfgsb", "torch_lbfgs"):
        ratios = []
        for seed in range(5):
            ours, other = best("hamshoot", seed), best(method, seed)
            ratios.append(other["seconds"] / next(
                t for t, J in ours["trace"] if other["objective"] >= J))
            shares.setdefault(method, []).append(ours["objective"] / other["objective"])
        assert f"1/{median(ratios):.0f}" in text, method
    assert f"at {median(shares['adam']):.2f} of Adam's" in text
    for epsilon in (0.0, 0.01):  # ReLU itself, and smooth
        ends = [r for r in results["smooth"] if r["epsilon"] == epsilon]
        assert len(ends) == 5
        assert all(r["relative_gradient"] <= 1e-4 for r in ends)
        assert f"{median(r['seconds'] for r in ends):.0f} s" in text


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:40] for row in ROWS])
def test_the_numbers_of_a_claim_are_in_the_results_of_its_demo(row):
    _, found, verdict, where = row
    said = "\n".join(sentence for stem in re.findall(r"\((\d\d_\w+)\.py\)", where)
                     for sentence in recorded(stem)["findings"])
    numbers = NUMBER.findall(NAMES.sub("", found))
    assert numbers
    assert [n for n in numbers if not re.search(rf"(?<![\d.]){re.escape(n.rstrip('.'))}(?!\d)",
                                                said)] == []
    assert verdict.split(":")[0] in ("agree", "agree in part", "does not agree")
