"""A solution is saved whole, comes back the same, and refuses what is not one."""

import json

import numpy as np
import pytest

import hamshoot as hs
from hamshoot import discrete, starts
from hamshoot.solution import write_whole


@pytest.fixture
def solution():
    problem = hs.teacher_problem((4, 2, 4), 9, effective_depth=2.0, width=5, test_samples=6)
    steps = np.array([0.25, 0.25, 0.5])
    history = (hs.Record(1, 2.0, 0.5, 0.1, "ε 0.1"), hs.Record(2, 1.5, float("nan"), 0.2))
    return discrete.solution_from_weights(
        problem, starts.starting_weights(problem, steps, "path"), steps,
        status=hs.Status.MAX_ITER, success=False, method="test", nit=2, history=history,
        seconds=0.25, residuals={"gap": 1e-3}, extra={"seeds": [0, 1]},
    )


def test_round_trip(solution, tmp_path):
    loaded = hs.Solution.load(solution.save(tmp_path / "s"))
    for name in ("p", "representations", "momenta", "weights", "steps"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(solution, name))
    for name in ("objective", "loss", "parameter_norm", "success", "status", "message", "nit",
                 "residuals", "seconds", "method", "integrator", "kinks", "extra"):
        assert getattr(loaded, name) == getattr(solution, name), name
    np.testing.assert_equal([vars(r) for r in loaded.history], [vars(r) for r in solution.history])
    np.testing.assert_array_equal(loaded.problem.X_test, solution.problem.X_test)
    assert loaded.test_error() == solution.test_error()


def test_it_is_immutable(solution):
    with pytest.raises(AttributeError):
        solution.objective = 0.0
    with pytest.raises(ValueError, match="read-only"):
        solution.weights[0, 0, 0] = 1.0


def test_summary_is_strict_json(solution):
    summary = solution.replace(objective=float("nan")).summary()
    text = json.dumps(summary, allow_nan=False)
    assert json.loads(text)["objective"] is None
    for name in ("success", "status", "message", "method", "layers", "objective", "loss",
                 "parameter_norm", "test_error", "stationarity", "boundary_residual",
                 "hamiltonian", "hamiltonian_drift", "bottleneck_rank", "iterations", "seconds"):
        assert name in summary


def test_it_prints_as_a_short_table(solution):
    lines = repr(solution).splitlines()
    assert 5 <= len(lines) <= 9
    assert "max_iter" in repr(solution)


def test_foreign_and_damaged_files_are_refused(solution, tmp_path):
    path = solution.save(tmp_path / "s.npz")
    whole = path.read_bytes()
    cases = {
        "cut.npz": (whole[: len(whole) // 2], "not a complete"),
        "text.npz": (b"some text", "not a complete"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=words):
            hs.Solution.load(tmp_path / name)
    np.savez(tmp_path / "foreign.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="not a hamshoot solution"):
        hs.Solution.load(tmp_path / "foreign.npz")
    with pytest.raises(ValueError, match="no such file"):
        hs.Solution.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("weights", lambda a: a[:-1], "weights: expected shape"),
        ("momenta", lambda a: a[:, :-1], "momenta: expected shape"),
        ("p", lambda a: a[:-1], "representations: expected shape"),
        ("metadata", lambda a: np.array("{}"), "metadata cannot be read"),
        ("metadata", lambda a: np.array(str(a).replace('"format": 1', '"format": 99')),
         "format 99, this hamshoot reads format 1"),
        ("problem.X", lambda a: a * np.nan, "X: expected finite numbers"),
    ],
)
def test_inconsistent_arrays_are_refused(solution, tmp_path, name, change, words):
    path = solution.save(tmp_path / "s.npz")
    arrays = dict(np.load(path))
    arrays[name] = change(arrays[name])
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=words):
        hs.Solution.load(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    write_whole(path, lambda file: file.write("first"), mode="w")

    def fail(file):
        file.write("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_whole(path, fail, mode="w")
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["result.txt"]


def test_xarray_labels_every_dimension(solution):
    xarray = pytest.importorskip("xarray")
    data = solution.to_xarray()
    assert isinstance(data, xarray.Dataset)
    np.testing.assert_array_equal(
        data.representations.sel(p=1.0, neuron=2), solution.representations[-1, 2])
    np.testing.assert_array_equal(
        data.weights.sel(layer=2, input="bias"), solution.weights[1, :, -1])
    np.testing.assert_array_equal(data.hamiltonian, solution.hamiltonian)
    assert data.attrs["objective"] == solution.objective
