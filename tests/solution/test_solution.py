"""A solution is saved whole and comes back the same; its path is exact between the nodes too."""

import json
from functools import cache

import numpy as np
import pytest
from problems import teacher
from scipy.integrate import solve_ivp

import hamshoot as hs
from hamshoot.methods.common import starts
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.support.files import write_whole
from hamshoot.theory import hamiltonian as ham


@pytest.fixture
def solution():
    problem = teacher(dims=(4, 2, 4), samples=9, width=5, effective_depth=2.0, weight_decay=2e-3,
                      test_samples=6, seed=0)
    steps = np.array([0.25, 0.25, 0.5])
    history = (hs.Record(1, 2.0, 0.5, 0.1, "ε 0.1"), hs.Record(2, 1.5, float("nan"), 0.2))
    return solution_from_weights(
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


# -- between the nodes of a continuous path ------------------------------------------------------


@cache
def geodesic(activation):
    problem = teacher(activation, samples=5, weight_decay=0.03, seed=0)
    return hs.IndirectShooting().solve(problem)


def nodes_of_flow(solution, p):
    """A, B at p by SciPy and the reference field, from the stored node before."""
    settings = dict(effective_depth=3.0, activation=solution.activation)
    shape = (2, *solution.problem.initial_state.shape)
    k = int(np.clip(np.searchsorted(solution.p, p, side="right") - 1, 0, len(solution.p) - 2))
    start = np.stack([solution.representations[k], solution.momenta[k]])
    return solve_ivp(lambda _, y: np.stack(ham.flow(*y.reshape(shape), **settings)).ravel(),
                     (solution.p[k], p), start.ravel(), method="DOP853", rtol=1e-12,
                     atol=1e-13).y[:, -1].reshape(shape)


@pytest.mark.parametrize("activation", ["smooth_relu", "relu", "linear"])
def test_a_path_is_as_exact_between_its_nodes_as_at_them(activation, tmp_path):
    """The Hamiltonian on 200 random depths, and an integration of the reference field."""
    solution = geodesic(activation)
    assert solution.success
    p = np.random.default_rng(0).uniform(0, 1, 200)
    for path in (solution, hs.Solution.load(solution.save(tmp_path / "path"))):
        at = path.at(p)
        H = [ham.hamiltonian(a, b, effective_depth=3.0, activation=solution.activation)
             for a, b in zip(at.representations, at.momenta, strict=True)]
        assert ham.hamiltonian_drift(H) < 1e-8
        assert abs(np.median(H) - solution.extra["hamiltonian"]) < 1e-8
        for i in range(0, 200, 20):
            A, B = nodes_of_flow(solution, p[i])
            assert np.abs(at.representations[i] - A).max() < 1e-9
            assert np.abs(at.momenta[i] - B).max() < 1e-9
            W = ham.control(A, B, effective_depth=3.0, activation=solution.activation)
            assert np.abs(at.weights[i] - W).max() < 1e-8


def test_a_path_meets_its_nodes_its_ends_and_single_depths():
    solution = geodesic("smooth_relu")
    at = solution.at(solution.p)
    np.testing.assert_array_equal(at.representations, solution.representations)
    np.testing.assert_array_equal(at.momenta, solution.momenta)
    for p, node in ((0.0, 0), (1, -1)):
        point = solution.at(p)
        np.testing.assert_array_equal(point.representations, solution.representations[node])
        np.testing.assert_allclose(point.weights, solution.weights[node], rtol=0, atol=1e-13)
    one, many = solution.at(0.123), solution.at(np.array([0.9, 0.123]))
    np.testing.assert_allclose(one.momenta, many.momenta[1], rtol=0, atol=1e-11)
    assert solution.at(np.array([])).weights.shape == (0, 4, 5)


def test_a_path_that_does_not_solve_the_flow_stays_continuous():
    solution = geodesic("smooth_relu")
    noise = np.random.default_rng(0).standard_normal(solution.momenta.shape)
    broken = solution.replace(momenta=solution.momenta + 1e-3 * noise)
    p = np.linspace(0.3, 0.4, 2001)
    own, jumps = (np.abs(np.diff(path.at(p).momenta, axis=0)).max() for path in (solution, broken))
    assert jumps < own + 2e-4  # the flow from one side alone: 1e-3


def test_a_smoothed_path_has_the_hamiltonian_of_the_flow_it_solves():
    """The plain ReLU in its place is 1e-4 off, and not conserved."""
    solution = geodesic("relu")
    assert solution.status is hs.Status.SMOOTHED
    assert solution.activation.epsilon == solution.extra["epsilon"] > 0
    assert solution.hamiltonian_drift < 1e-8
    certificate = hs.certify(solution, second_order=False)
    for value in (np.median(solution.hamiltonian), solution.summary()["hamiltonian"],
                  certificate.hamiltonian, np.median(solution.energies().hamiltonian)):
        assert abs(value - solution.extra["hamiltonian"]) < 1e-12
    A, B = solution.representations, solution.momenta
    plain = [ham.hamiltonian(a, b, effective_depth=3.0, activation=solution.problem.sigma)
             for a, b in zip(A, B, strict=True)]
    assert abs(np.median(plain) - solution.extra["hamiltonian"]) > 1e-5


def test_epsilon_of_a_path_does_not_come_from_its_extra_numbers(tmp_path):
    solution = geodesic("relu")
    bare = solution.replace(extra={})
    other = bare.replace(epsilon=0.5)
    for path, epsilon in ((solution, solution.epsilon), (bare, solution.epsilon), (other, 0.5)):
        loaded = hs.Solution.load(path.save(tmp_path / "path.npz"))
        assert loaded.epsilon == loaded.activation.epsilon == epsilon
    assert "epsilon" not in loaded.extra


def test_a_path_saved_with_epsilon_among_its_extra_numbers_has_it(tmp_path):
    """As files of earlier versions are, which have no epsilon of their own."""
    solution = geodesic("relu")
    with np.load(solution.save(tmp_path / "path.npz")) as file:
        metadata = json.loads(str(file["metadata"]))
    assert "epsilon" not in metadata
    assert metadata["extra"]["epsilon"] == solution.epsilon > 0
