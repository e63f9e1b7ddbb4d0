"""Data that stay in files: the same problem, the same numbers, and little memory."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.methods.common.starts import starting_weights
from hamshoot.problem import memory_map as mapped
from hamshoot.theory import blockwise

STEPS = np.array([0.2, 0.3, 0.1, 0.25, 0.15])
OPTIONS = dict(width=6, effective_depth=2.5, weight_decay=0.03)


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(8)
    X = (100 + 3 * rng.standard_normal((40, 4))).astype(np.float32)
    Y = rng.standard_normal((40, 3))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "Y.npy", Y)
    return tmp_path, X, Y


def _maps(folder):
    return [np.load(folder / name, mmap_mode="r") for name in ("X.npy", "Y.npy")]


@pytest.mark.parametrize("kind", [False, "columns", "common"])
@pytest.mark.parametrize("lift", ["embedding", "orthonormal"])
def test_a_mapped_problem_is_the_problem_in_memory(monkeypatch, files, kind, lift):
    folder, X, Y = files
    monkeypatch.setattr(mapped, "CHUNK_NUMBERS", 28)  # chunks of seven rows
    options = dict(OPTIONS, standardize=kind, lift=lift)
    plain, maps = hs.TrainingProblem(X, Y, **options), hs.TrainingProblem(*_maps(folder), **options)
    assert isinstance(maps.X, np.memmap)
    assert maps.X.dtype == np.float32
    assert maps.mapped
    assert not plain.mapped
    assert not {"initial_state", "targets"} & set(vars(maps))
    assert maps.trivial_objective == pytest.approx(plain.trivial_objective, rel=1e-13)
    for a, b in ((0, 40), (9, 23), (39, 40)):
        for one, other in zip(maps.block(a, b), plain.block(a, b), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-11)
    assert "initial_state" not in vars(maps)
    np.testing.assert_allclose(maps.initial_state, plain.initial_state, rtol=0, atol=1e-11)
    np.testing.assert_allclose(maps.targets, plain.targets, rtol=0, atol=1e-12)


@pytest.mark.parametrize("held", [True, False])
def test_sweeps_over_mapped_samples_are_those_over_samples_in_memory(monkeypatch, files, held):
    folder, X, Y = files
    options = dict(OPTIONS, standardize=True, lift="orthonormal")
    plain, maps = hs.TrainingProblem(X, Y, **options), hs.TrainingProblem(*_maps(folder), **options)
    W = starting_weights(plain, STEPS, "path")
    J, G = BlockSweeps(plain, STEPS, block=7).gradient(W)
    if not held:
        monkeypatch.setattr(mapped, "MEMORY_BYTES", 100)
    for problem in (maps, plain):
        sweeps = BlockSweeps(problem, STEPS, block=7)
        value, gradient = sweeps.gradient(W)
        assert value == pytest.approx(J, rel=1e-12)
        np.testing.assert_allclose(gradient, G, rtol=0, atol=1e-11 * np.abs(G).max())
        held_now = [block is not None for shard in sweeps._shards for block in shard.blocks]
        assert all(held_now) if held else not any(held_now)
        assert "initial_state" in vars(problem) if problem is plain else \
            "initial_state" not in vars(problem)
    stored = np.float32(value)
    single = BlockSweeps(maps, STEPS, dtype=np.float32, block=7).objective(W)
    assert single == pytest.approx(stored, rel=1e-4)


def test_a_mapped_shard_travels_as_a_path(files):
    folder, _, _ = files
    big = folder / "big.npy"
    np.save(big, np.random.default_rng(0).standard_normal((4000, 4)))
    X = np.load(big, mmap_mode="r")
    Y = np.load(big, mmap_mode="r")[:, 1:]
    problem = hs.TrainingProblem(X, Y, **OPTIONS)
    W = starting_weights(hs.TrainingProblem(X[:9], Y[:9], **OPTIONS), STEPS, "identity")
    sweeps = BlockSweeps(problem, STEPS, block=500)
    J, G = sweeps.gradient(W)
    assert len(pickle.dumps(sweeps._shards)) < 20_000  # the data take 128 000 bytes
    with ProcessPoolExecutor(2) as pool:
        remote = BlockSweeps(problem, STEPS, block=500, executor=pool)
        value, gradient = remote.gradient(W)
    assert value == J
    np.testing.assert_array_equal(gradient, G)


@pytest.mark.parametrize("cut", [np.s_[5:30], np.s_[::3], np.s_[30:5:-2], np.s_[:, 1:3],
                                 np.s_[4:, ::2]])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_view_of_a_map_is_found_again_in_the_file(tmp_path, cut, order):
    np.save(tmp_path / "a.npy", np.asarray(np.arange(160.0).reshape(40, 4), order=order))
    view = np.load(tmp_path / "a.npy", mmap_mode="r")[cut]
    rows = pickle.loads(pickle.dumps(mapped.MappedRows.of(view)))
    np.testing.assert_array_equal(rows[:], view)
    np.testing.assert_array_equal(rows.part(2, 6)[1:], view[3:6])
    chosen = rows.take(np.array([1, 4, 6]))
    np.testing.assert_array_equal(chosen, view[[1, 4, 6]])
    np.testing.assert_array_equal(chosen.part(1, 3)[:], view[[4, 6]])


def test_bad_numbers_in_a_map_are_named(monkeypatch, files):
    folder, X, _ = files
    monkeypatch.setattr(mapped, "CHUNK_NUMBERS", 28)
    X[[23, 31], 2] = np.nan
    np.save(folder / "X.npy", X)
    bad = r"X: expected finite numbers, got nan in row 23, column 2 and 1 more"
    with pytest.raises(ValueError, match=bad):
        hs.TrainingProblem(*_maps(folder), **OPTIONS)
    X[[23, 31], 2] = 0
    X[:, 1] = 0.1
    np.save(folder / "X.npy", X)
    with pytest.raises(ValueError, match="X: column '1' is constant"):
        hs.TrainingProblem(*_maps(folder), **OPTIONS, standardize=True)
    with pytest.raises(ValueError, match="Y: expected 40 rows"):
        hs.TrainingProblem(_maps(folder)[0], _maps(folder)[1][:30], **OPTIONS)


@pytest.mark.parametrize("stays", [True, False])
def test_levels_of_a_mapped_problem_take_rows_from_the_file(monkeypatch, files, stays):
    folder, X, Y = files
    options = dict(OPTIONS, standardize=True)
    plain, maps = hs.TrainingProblem(X, Y, **options), hs.TrainingProblem(*_maps(folder), **options)
    rows = np.array([1, 4, 5, 20, 33])
    expected = plain.subset(rows)
    if stays:
        monkeypatch.setattr(mapped, "MEMORY_BYTES", 100)
    part = maps.subset(rows)
    assert part.mapped is stays
    for one, other in zip(part.block(0, 5), expected.block(0, 5), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11)
    W = starting_weights(plain, STEPS, "identity")
    assert BlockSweeps(part, STEPS, block=2).objective(W) == pytest.approx(
        BlockSweeps(expected, STEPS).objective(W), rel=1e-11)
    assert not {"initial_state", "targets"} & set(vars(maps))


def test_a_mapped_problem_travels_as_a_path_too(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", rng.standard_normal((4000, 4)))
    np.save(tmp_path / "Y.npy", rng.standard_normal(4000))
    problem = hs.TrainingProblem(*_maps(tmp_path), **OPTIONS, standardize=True)
    start = problem.initial_state
    data = pickle.dumps(problem)
    assert len(data) < 10_000  # X and Y take 160 000 bytes
    arrived = pickle.loads(data)
    assert "initial_state" not in vars(arrived)
    np.testing.assert_array_equal(arrived.initial_state, start)
    network = hs.LeakyResNet.from_weights(problem, starting_weights(problem, STEPS, "identity"),
                                          STEPS)
    assert network.error(arrived.X, arrived.Y) == network.error(problem.X, problem.Y)
    assert network.objective(arrived) == network.objective(problem)
    other = arrived.replace(weight_decay=0.1)
    np.testing.assert_array_equal(other.targets, problem.targets)
    assert other.mapped


def test_a_mapped_problem_is_solved_and_saved(monkeypatch, files):
    folder, _, _ = files
    problem = hs.TrainingProblem(*_maps(folder), **OPTIONS, standardize=True,
                                 activation="smooth_relu")
    monkeypatch.setattr(blockwise, "MOST_STORED", 500)
    solution = hs.solve(problem, hs.DirectSingleShooting(
        layers=5, optimizer="kronecker", max_iter=60, stage_iter=20))
    assert not {"initial_state", "targets"} & set(vars(problem))
    whole = hs.Solution.load(solution.save(folder / "whole.npz"))
    np.testing.assert_array_equal(whole.problem.X, problem.X)
    assert not whole.problem.mapped
    monkeypatch.setattr(mapped, "MEMORY_BYTES", 100)
    path = solution.save(folder / "path.npz")
    assert not {"problem.X", "problem.Y"} & set(np.load(path))
    loaded = hs.Solution.load(path)
    assert loaded.problem.mapped
    np.testing.assert_array_equal(loaded.representations, solution.representations)
    assert hs.certify(loaded, stationarity=np.inf).holds
    with open(folder / "X.npy", "ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"X: .*X.npy has \d+ bytes, the solution was saved when"):
        hs.Solution.load(path)
    os.remove(folder / "X.npy")
    with pytest.raises(ValueError, match=r"X: the solution refers to .*there is no such file"):
        hs.Solution.load(path)


def test_arrays_of_an_npz_file_are_mapped(files):
    folder, X, Y = files
    np.savez(folder / "data.npz", X=X, Y=Y[:, 0], X_test=X[:3], Y_test=Y[:3, :1])
    problem = hs.TrainingProblem.from_npz(folder / "data.npz", mmap=True, **OPTIONS)
    plain = hs.TrainingProblem.from_npz(folder / "data.npz", **OPTIONS)
    assert problem.mapped
    np.testing.assert_array_equal(problem.X, X)
    np.testing.assert_allclose(problem.initial_state, plain.initial_state, rtol=0, atol=1e-12)
    np.testing.assert_allclose(problem.targets, plain.targets, rtol=0, atol=1e-12)
    labels = np.array(["b", "a"] * 20)
    np.savez(folder / "classes.npz", X=X, Y=labels)
    problem = hs.TrainingProblem.from_npz(folder / "classes.npz", mmap=True, **OPTIONS)
    assert problem.classes == ("a", "b")
    assert isinstance(problem.X, np.memmap)
    np.savez_compressed(folder / "packed.npz", X=X, Y=Y)
    with pytest.raises(ValueError, match=r"the array X is compressed and cannot be mapped"):
        hs.TrainingProblem.from_npz(folder / "packed.npz", mmap=True, **OPTIONS)
    with pytest.raises(ValueError, match=r"test_fraction: expected 0 with mmap, got 0\.2"):
        hs.TrainingProblem.from_npz(folder / "data.npz", mmap=True, test_fraction=0.2, **OPTIONS)
    (folder / "cut.npz").write_bytes((folder / "data.npz").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"not a complete \.npz file"):
        hs.TrainingProblem.from_npz(folder / "cut.npz", mmap=True, **OPTIONS)


# -- at real size ----------------------------------------------------------------------------------

REAL_SIZE = """
import sys, numpy as np, resource, hamshoot as hs
from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.methods.common.starts import starting_weights
X, Y = (np.load(f"{sys.argv[1]}/{k}.npy", mmap_mode="r") for k in "XY")
problem = hs.TrainingProblem(X, Y, width=100, effective_depth=7.0, weight_decay=0.007,
                             standardize="common")
steps = np.full(20, 1 / 20)
start = starting_weights(problem.subset(np.arange(500)), steps, "path")
method = hs.DirectSingleShooting(layers=20, optimizer="kronecker", max_iter=6)
solution = hs.solve(problem, method, initial_guess=start)
assert not solution.stored and hs.certify(solution, stationarity=np.inf).holds
first = BlockSweeps(problem, steps).objective(start)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, solution.objective, first)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_mapped_samples_take_less_than_four_gigabytes(tmp_path):
    from hamshoot.problem.readers import teacher_data

    X, Y, _, _ = teacher_data((30, 3, 30), 100_000, 0, 0)
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    np.save(tmp_path / "Y.npy", Y)
    done = subprocess.run([sys.executable, "-c", REAL_SIZE, str(tmp_path)], check=True,
                          capture_output=True, text=True)
    gigabytes, J, first = map(float, done.stdout.split())
    assert 0.1 < gigabytes < 4
    assert 0 < J < 0.9 * first
