"""`hamshoot report` from a stranger's side: directories of solve and of compare, and bad input."""

import pytest
from command_line import run

import hamshoot as hs
from hamshoot.command.cli import main

SMALL = ["--set", "data.teacher={dims=[3,2,3], samples=8, test_samples=5}", "--set",
         "problem.width=3", "--set", "problem.effective_depth=3", "--layers", "5", "--effort",
         "quick", "--set", "descent.epochs=60", "--set", "descent.sgd_epochs=20"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of compare."""
    out = tmp_path_factory.mktemp("report") / "results"
    with pytest.raises(SystemExit):
        main(["compare", *SMALL, "-o", str(out)])
    return out


def test_a_directory_of_compare_becomes_a_page(results, capsys):
    page = results.parent / "new" / "page.html"
    code, out, err = run(capsys, "report", results, "-o", page, "--title", "Mine & yours")
    assert (code, out, err) == (0, f"Wrote {page}\n", f"Checking and drawing {results}\n")
    text = page.read_text(encoding="utf-8")
    assert "<h1>Mine &amp; yours</h1>" in text
    for name in ("solution", "descent", "descent_longer", "descent_same_seconds", "continued"):
        solution = hs.Solution.load(results / f"{name}.npz")
        assert f"J = {solution.objective:.6g}" in text
    verdict = hs.certify(hs.Solution.load(results / "solution.npz")).second_order
    assert f"In the test's own words: {verdict}." in text


def test_a_saved_solution_becomes_a_page_beside_it(results, capsys):
    code, out, _ = run(capsys, "report", results / "continued.npz", "--no-second-order")
    page = results / "report.html"
    assert (code, out) == (0, f"Wrote {page}\n")
    before = page.read_bytes()
    code, _, err = run(capsys, "report", results / "continued.npz")
    assert code == 2
    assert "report.html: exists; --force overwrites it" in err
    assert page.read_bytes() == before
    code, _, _ = run(capsys, "report", results / "descent.npz", "--force")
    assert code == 0
    assert page.read_bytes() != before


@pytest.mark.parametrize(("arguments", "said"), [
    (("nowhere",), "nowhere: no such file or directory"),
    (("{results}", "-o", "page.pdf"), "expected a name ending in .html or .htm, got 'page.pdf'"),
    (("{results}/summary.json", "-o", "page.html"), "summary.json: not a complete .npz file"),
    (("{results}", "-o", "{results}"), "expected a file, got a directory")])
def test_bad_input_is_one_sentence_and_code_two(results, capsys, tmp_path, monkeypatch, arguments,
                                                said):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "report", *(a.format(results=results) for a in arguments))
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
