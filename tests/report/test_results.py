"""A directory is read as what the command left in it, or refused in a sentence."""

import json

import numpy as np
import pytest
from pages import compared, drawn

from hamshoot.report.results import FILES, read_results
from hamshoot.solution.solution import Solution
from hamshoot.study.compare import Comparison


@pytest.fixture
def folder(tmp_path):
    """As `hamshoot compare` leaves it."""
    comparison = compared()
    for row in comparison.rows:
        row.solution.save(tmp_path / FILES[row.name])
    (tmp_path / "summary.json").write_text(json.dumps(comparison.to_dict()), encoding="utf-8")
    return tmp_path


def changed(folder, **changes):
    """The summary with some fields changed."""
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}), encoding="utf-8")


def test_a_comparison_comes_back_whole(folder):
    found, kept = read_results(folder), compared()
    assert isinstance(found, Comparison)
    assert found.to_dict() == kept.to_dict()
    for one, other in zip(found.rows, kept.rows, strict=True):
        np.testing.assert_array_equal(one.solution.weights, other.solution.weights)


def test_one_that_was_stopped_has_the_rows_that_it_had(folder):
    recorded = json.loads((folder / "summary.json").read_text())["rows"]
    changed(folder, rows=recorded[:1], complete=False)
    found = read_results(folder)
    assert len(found.rows) == 1
    assert not found.complete


def test_a_solution_is_read_from_its_directory_or_its_file(tmp_path):
    solution = drawn()
    solution.save(tmp_path / "solution.npz")
    for path in (tmp_path, tmp_path / "solution.npz"):
        found = read_results(path)
        assert isinstance(found, Solution)
        assert found.objective == solution.objective
    (tmp_path / "summary.json").write_text(json.dumps(solution.summary()), encoding="utf-8")
    assert isinstance(read_results(tmp_path), Solution)


def test_files_of_different_runs_are_told_apart(folder):
    drawn(seed=9).save(folder / "descent.npz")
    with pytest.raises(ValueError, match=r"descent\.npz: its objective is .* different runs"):
        read_results(folder)


@pytest.mark.parametrize("rows", [[], 5, [5], [{}], [{"name": "../../etc/passwd"}], None])
def test_rows_of_other_kinds_are_refused(folder, rows):
    changed(folder, rows=rows)
    with pytest.raises(ValueError, match=r"summary\.json: expected rows named optimal control"):
        read_results(folder)


@pytest.mark.parametrize(("text", "said"), [
    ("{", "cannot be read as JSON"), ("[1]", "expected an object, got list"),
    ("[" * 10_000, "cannot be read as JSON"), (b"\xff\xfe\x00", "cannot be read as JSON")])
def test_a_summary_that_is_none_is_refused(folder, text, said):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "summary.json").write_bytes(data)
    with pytest.raises(ValueError, match=rf"summary\.json: {said}"):
        read_results(folder)


def test_what_is_missing_is_named(folder, tmp_path):
    (folder / "descent.npz").unlink()
    with pytest.raises(ValueError, match=r"descent\.npz: no such file"):
        read_results(folder)
    with pytest.raises(ValueError, match="nowhere: no such file or directory; hamshoot solve"):
        read_results(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no solution\.npz"):
        read_results(tmp_path / "empty")
