"""Rows that stay in Parquet, Zarr and object stores: the same numbers, and only places travel."""

import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.dynamics import block_executors
from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.problem import memory_map as mapped
from hamshoot.problem import stored_rows
from hamshoot.problem.open_rows import reopened
from hamshoot.problem.stored_rows import MissingMap, StoredRows

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
zarr = pytest.importorskip("zarr", minversion="3")
fsspec = pytest.importorskip("fsspec")

OPTIONS = dict(width=7, effective_depth=2.0, weight_decay=1e-2, standardize=True)
STEPS = np.full(5, 0.2)
XS, YS = [f"x{j}" for j in range(4)], ["y0", "y1"]
#: The same numbers in every place that rows may stay in.
KINDS = ("map", "parquet", "folder", "zarr", "npy of a URL", "parquet of a URL", "zarr of a URL")


def numbers(rows=700):
    rng = np.random.default_rng(3)
    X = 50.0 + rng.standard_normal((rows, 4)) * [1, 10, 0.1, 3]
    return X, np.abs(X[:, :2] - 50.0)


def table_of(X, Y, **more):
    columns = dict(zip([*XS, *YS], [*X.T, *Y.T], strict=True))
    return pa.table({**columns, **more})


@pytest.fixture(autouse=True)
def _nothing_read_before():
    stored_rows.clear_shelf()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """X and Y of every kind, by (place, columns)."""
    folder, (X, Y) = tmp_path_factory.mktemp("stored"), numbers()
    remote = fsspec.filesystem("memory")
    pq.write_table(table_of(X, Y), folder / "d.parquet", row_group_size=160)
    for k, cut in enumerate(np.array_split(np.arange(700), 3)):
        (folder / "parts").mkdir(exist_ok=True)
        pq.write_table(table_of(X[cut], Y[cut]), folder / "parts" / f"p{k}.parquet",
                       row_group_size=90)
    for name, array in (("X", X), ("Y", Y)):
        np.save(folder / f"{name}.npy", array)
        for store in (f"{folder}/{name}.zarr", f"memory://stored/{name}.zarr"):
            zarr.open_array(store, mode="w", shape=array.shape, chunks=(130, 2),
                            dtype=float)[:] = array
        remote.pipe(f"/stored/{name}.npy", (folder / f"{name}.npy").read_bytes())
    remote.pipe("/stored/d.parquet", (folder / "d.parquet").read_bytes())
    two = ["X", "Y"]
    return {
        "map": [(f"{folder}/{one}.npy", None) for one in two],
        "parquet": [(f"{folder}/d.parquet", XS), (f"{folder}/d.parquet", YS)],
        "folder": [(f"{folder}/parts", XS), (f"{folder}/parts", YS)],
        "zarr": [(f"file://{folder}/{one}.zarr", None) for one in two],
        "npy of a URL": [(f"memory://stored/{one}.npy", None) for one in two],
        "parquet of a URL": [("memory://stored/d.parquet", XS), ("memory://stored/d.parquet", YS)],
        "zarr of a URL": [(f"memory://stored/{one}.zarr", None) for one in two],
    }


def opened(places, kind):
    return [hs.open_rows(*place) for place in places[kind]]


# -- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_array(places, kind):
    X, _ = numbers()
    rows = opened(places, kind)[0]
    assert (rows.shape, rows.size, len(rows), rows.dtype) == ((700, 4), 2800, 700, float)
    np.testing.assert_array_equal(rows[:], X)
    for key in (slice(150, 170), slice(3, 3), slice(-5, None), slice(0, 700, 90),
                np.array([699, 0, 160, 159]), 5, (slice(2, 9), 1)):
        np.testing.assert_array_equal(rows[key], X[key])
    part = mapped.part(rows, 155, 490)
    np.testing.assert_array_equal(part[:], X[155:490])
    chosen = np.array([3, 4, 170, 171, 400, 333])
    taken = mapped.taken(rows, chosen)
    np.testing.assert_array_equal(np.asarray(taken), X[chosen])
    np.testing.assert_array_equal(mapped.part(taken, 2, 5)[:], X[chosen][2:5])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_of_rows_their_place_travels_and_no_numbers(places, kind):
    X, _ = numbers()
    rows = opened(places, kind)[0]
    sent = pickle.dumps(rows.part(155, 490))
    assert len(sent) < 1200 < X[155:490].nbytes / 8
    assert not any(value.tobytes() in sent for value in X[155:490, 0])
    stored_rows.clear_shelf()
    np.testing.assert_array_equal(pickle.loads(sent)[:], X[155:490])


def test_a_part_has_the_pieces_alone_that_hold_it(places):
    rows = opened(places, "folder")[0]
    assert len(rows.pieces) == 9
    assert [piece.rows for piece in rows.part(100, 140).pieces] == [90]
    assert [piece.rows for piece in rows.part(100, 240).pieces] == [90, 54, 90]
    assert len(rows.part(0, 700).pieces) == 9
    assert rows.part(0, 700).whole
    assert not rows.part(0, 699).whole


def test_every_piece_is_decoded_once_for_blocks_that_follow_each_other(places, monkeypatch):
    decoded = []
    rows = opened(places, "parquet")[0]
    read = type(rows).read_piece
    monkeypatch.setattr(type(rows), "read_piece",
                        lambda self, piece: decoded.append(piece.number) or read(self, piece))
    monkeypatch.setattr(stored_rows, "SHELF_BYTES", 1)  # one piece alone
    for a in range(0, 700, 20):
        rows[a : a + 20]
    assert decoded == [0, 1, 2, 3, 4]
    decoded.clear()
    monkeypatch.setattr(stored_rows, "SHELF_BYTES", 10**9)
    stored_rows.clear_shelf()
    with ThreadPoolExecutor(4) as pool:  # who comes second waits for the first
        barrier = threading.Barrier(4)
        list(pool.map(lambda _: barrier.wait() is None or rows[:], range(4)))
    assert sorted(decoded) == [0, 1, 2, 3, 4]


def test_the_shelf_holds_what_it_may(places, monkeypatch):
    monkeypatch.setattr(stored_rows, "SHELF_BYTES", 2 * 160 * 4 * 8)
    rows = opened(places, "parquet")[0]
    assert rows[:].shape == (700, 4)
    assert stored_rows._shelf.bytes <= stored_rows.SHELF_BYTES
    assert len(stored_rows._shelf.kept) == 2
    assert sum(read.numbers.nbytes for read in stored_rows._shelf.kept.values()) == \
        stored_rows._shelf.bytes


@pytest.mark.parametrize(("kinds", "expected"), [
    (["float32", "float32"], np.float32), (["float32", "double"], float),
    (["int64", "bool"], float),
    (["decimal128(9, 2)", "int8"], float), (["halffloat", "float"], np.float32)])
def test_types_of_columns(tmp_path, kinds, expected):
    values = np.array([[0, 1], [1, 0], [1, 1]])
    types = [pa.decimal128(9, 2) if kind.startswith("dec") else
             {"float32": pa.float32(), "halffloat": pa.float16(), "float": pa.float32(),
              "double": pa.float64(), "int64": pa.int64(), "bool": pa.bool_(),
              "int8": pa.int8()}[kind] for kind in kinds]
    columns = []
    for column, kind in zip(values.T, types, strict=True):
        plain = column.astype(np.float16) if kind == pa.float16() else column.tolist()
        columns.append(pa.array([bool(v) for v in plain] if kind == pa.bool_() else plain, kind))
    pq.write_table(pa.table(dict(zip("ab", columns, strict=True))), tmp_path / "t.parquet")
    rows = hs.open_rows(tmp_path / "t.parquet")
    assert rows.dtype == expected
    assert rows.columns == ("a", "b")
    np.testing.assert_array_equal(rows[:], values)


def test_names_of_folders_are_columns(tmp_path):
    X, Y = numbers(60)
    for year in (2023, 2024):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(table_of(X[:30], Y[:30]), tmp_path / f"year={year}" / "a.parquet")
    rows = hs.open_rows(tmp_path, ["year", "x1"])
    np.testing.assert_array_equal(rows[:, 0], np.repeat([2023.0, 2024.0], 30))
    np.testing.assert_array_equal(rows[:, 1], np.tile(X[:30, 1], 2))


# -- problems --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaling", [True, "common", False])
def test_a_problem_is_that_of_the_array_to_the_last_bit(places, kind, scaling):
    options = dict(OPTIONS, standardize=scaling)
    plain = hs.TrainingProblem(*numbers(), **options)
    stored = hs.TrainingProblem(*opened(places, kind), **options)
    assert stored.mapped
    for one, other in ((stored.input_scaling, plain.input_scaling),
                       (stored.target_scaling, plain.target_scaling)):
        np.testing.assert_array_equal(one.mean, other.mean)
        np.testing.assert_array_equal(one.scale, other.scale)
    W = 0.3 * np.random.default_rng(0).standard_normal((5, 7, 8))
    here, there = (BlockSweeps(one, STEPS, block=50).gradient(W) for one in (plain, stored))
    assert here[0] == there[0]
    np.testing.assert_array_equal(here[1], there[1])


@pytest.mark.parametrize("rows", [7, 33, 699])
def test_moments_in_one_pass_are_those_of_numpy(monkeypatch, rows, places):
    X, _ = numbers()
    stored = opened(places, "parquet")[0]
    monkeypatch.setattr(mapped, "CHUNK_NUMBERS", 4 * rows)
    read = []
    monkeypatch.setattr(mapped, "doubles", lambda a, i, j: read.append((i, j)) or np.array(a[i:j]))
    mean, spread, size, common = mapped.moments(stored)
    assert read == [(a, min(a + rows, 700)) for a in range(0, 700, rows)]
    np.testing.assert_allclose(mean, X.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(spread, X.std(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(size, np.abs(X).max(axis=0))
    assert common == pytest.approx(X.std(), rel=1e-13)
    before = len(read)
    mapped.not_finite(stored)
    assert len(read) == before  # what was looked through is not read again
    for one, other in zip(mapped.moments(X), (mean, spread, size, common), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["parquet", "zarr"])
def test_a_pool_computes_the_same_and_is_sent_places(places, kind, monkeypatch):
    monkeypatch.setattr(block_executors, "LEAST_FLOPS", 0)
    problem = hs.TrainingProblem(*opened(places, kind), **OPTIONS)
    W = 0.3 * np.random.default_rng(0).standard_normal((5, 7, 8))
    J, G = BlockSweeps(hs.TrainingProblem(*numbers(), **OPTIONS), STEPS, block=50).gradient(W)
    with ProcessPoolExecutor(2) as pool:
        sweeps = BlockSweeps(problem, STEPS, block=50, executor=pool)
        value, gradient = sweeps.gradient(W)
        folder = sweeps._run.folder
        sizes = [os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)]
    assert value == J
    np.testing.assert_array_equal(gradient, G)
    assert len(sizes) == len(sweeps._shards)
    assert max(sizes) < 4000 < 50 * 6 * 8 * 2  # a shard of one block has 2400 bytes of numbers


def test_a_pool_that_forks_is_refused_where_connections_would_be_shared(places, monkeypatch):
    monkeypatch.setattr(block_executors, "LEAST_FLOPS", 0)
    problem = hs.TrainingProblem(*opened(places, "npy of a URL"), **OPTIONS)
    monkeypatch.setattr(type(problem.X.source.system), "async_impl", True)
    assert problem.X.connected
    assert not opened(places, "parquet")[0].connected
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool, \
            pytest.raises(ValueError, match=r"get_context\('spawn'\)\); connections to a store"):
        BlockSweeps(problem, STEPS, block=50, executor=pool)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        BlockSweeps(problem, STEPS, block=50, executor=pool)


def test_a_problem_takes_arrays_of_zarr_and_places(places, tmp_path):
    X, Y = numbers()
    array = zarr.open_array(places["zarr"][0][0].removeprefix("file://"), mode="r")
    for given in (array, places["zarr"][0][0], places["npy of a URL"][0][0],
                  zarr.open_array("memory://stored/X.zarr", mode="r")):
        problem = hs.TrainingProblem(given, Y, **OPTIONS)
        assert isinstance(problem.X, StoredRows)
        np.testing.assert_array_equal(problem.X[:], X)
    inside = zarr.create_array(store=zarr.storage.MemoryStore(), data=X)
    assert isinstance(hs.TrainingProblem(inside, Y, **OPTIONS).X, np.ndarray)
    with pytest.raises(ValueError, match=r"X: .*missing\.zarr/zarr\.json: no such file"):
        hs.TrainingProblem(f"{tmp_path}/missing.zarr", Y, **OPTIONS)


def test_a_problem_travels_light_and_its_solution_finds_the_rows_again(places, tmp_path,
                                                                       monkeypatch):
    problem = hs.TrainingProblem(*opened(places, "parquet"), **OPTIONS)
    assert problem.input_names == tuple(XS)
    arrived = pickle.loads(pickle.dumps(problem))
    assert len(pickle.dumps(problem)) < 12_000 < numbers()[0].nbytes
    np.testing.assert_array_equal(arrived.initial_state, problem.initial_state)
    solution = hs.solve(problem, hs.DirectSingleShooting(layers=5, max_iter=5, starts=1))
    small = hs.Solution.load(solution.save(tmp_path / "small.npz"))
    np.testing.assert_array_equal(small.problem.X, numbers()[0])
    monkeypatch.setattr(mapped, "MEMORY_BYTES", 100)
    loaded = hs.Solution.load(solution.save(tmp_path / "place.npz"))
    assert isinstance(loaded.problem.X, StoredRows)
    assert not {"problem.X", "problem.Y"} & set(np.load(tmp_path / "place.npz"))
    assert hs.certify(loaded, stationarity=np.inf).holds
    few = problem.subset(np.arange(0, 700, 3))
    assert isinstance(few.X, StoredRows)
    np.testing.assert_array_equal(few.block(2, 40)[0], problem.initial_state[:, 6:120:3])


# -- what is refused, and what changes -------------------------------------------------------------


def write(folder, **changes):
    X, Y = numbers(40)
    pq.write_table(table_of(X, Y, **changes), folder / "t.parquet", row_group_size=15)
    return folder / "t.parquet"


@pytest.mark.parametrize(("column", "columns", "message"), [
    (pa.array(["a"] * 40), ["x0", "z"], "column 'z' holds words, expected numbers"),
    (pa.array([0] * 40, pa.timestamp("s")), ["z"], "column 'z' holds dates or times"),
    (pa.array([[1.0]] * 40), ["z"], r"column 'z' holds list<.*>, expected numbers"),
    (pa.array([1.0] * 40), ["x9"], "t.parquet has no column 'x9'; it has x0, x1"),
])
def test_columns_that_are_no_numbers_are_named(tmp_path, column, columns, message):
    path = write(tmp_path, z=column)
    with pytest.raises(ValueError, match=message):
        hs.open_rows(path, columns)


@pytest.mark.parametrize(("value", "got"), [(None, "a gap or nan"), (np.nan, "a gap or nan"),
                                            (np.inf, "inf")])
def test_what_is_not_finite_is_told_with_row_and_column(tmp_path, value, got):
    column = [1.0, 2.0] * 20
    column[33] = column[35] = value
    path = write(tmp_path, z=pa.array(column))
    with pytest.raises(ValueError, match=f"X: t.parquet, row 34, column 'z': expected a finite "
                       f"number, got {got} and 1 more"):
        hs.TrainingProblem(hs.open_rows(path, ["x0", "z"]), numbers(40)[1], **OPTIONS)


def test_a_row_group_that_is_too_large_is_refused_at_the_door(tmp_path, monkeypatch):
    path = write(tmp_path)
    monkeypatch.setattr(stored_rows, "MOST_PIECE_BYTES", 15 * 4 * 8 - 1)
    with pytest.raises(ValueError, match=r"row group 0 holds 15 rows of 4 numbers, .*row_group"):
        hs.open_rows(path, XS)
    assert hs.open_rows(path, XS[:3]).shape == (40, 3)
    zarr.open_array(f"{tmp_path}/a.zarr", mode="w", shape=(40, 4), chunks=(40, 4), dtype=float)
    with pytest.raises(ValueError, match=r"the chunk from row 0 holds 40 rows .*chunks=\(100_000"):
        hs.open_rows(f"{tmp_path}/a.zarr")


@pytest.mark.parametrize("change", ["numbers", "rows", "gone", "garbage"])
def test_a_file_that_changes_under_a_run_ends_it_in_a_sentence(tmp_path, change, monkeypatch):
    path = write(tmp_path)
    problem = hs.TrainingProblem(hs.open_rows(path, XS), hs.open_rows(path, YS), **OPTIONS)
    problem.block(0, 40)
    monkeypatch.setattr(stored_rows, "SHELF_BYTES", 1)
    stored_rows.clear_shelf()
    X, Y = numbers(40)
    if change == "gone":
        path.unlink()
    elif change == "garbage":
        path.write_bytes(b"PAR1" + os.urandom(path.stat().st_size - 8) + b"PAR1")
    else:
        X = X[:-1] if change == "rows" else X + 1
        pq.write_table(table_of(X, Y[: len(X)]), path, row_group_size=15)
    with pytest.raises(MissingMap, match="no such file" if change == "gone" else
                       "has changed since it was opened"):
        problem.block(0, 40)


def test_numbers_that_change_behind_the_time_of_a_file_are_noticed(tmp_path):
    path = write(tmp_path)
    before = path.stat()
    rows = hs.open_rows(path, XS)
    rows[:]
    X, Y = numbers(40)
    X[20, 1] = np.nextafter(X[20, 1], 100)  # one bit
    pq.write_table(table_of(X, Y), path, row_group_size=15)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    stored_rows.clear_shelf()
    assert rows[:15].shape == (15, 4)
    with pytest.raises(MissingMap, match="row group 1 has other numbers than when it was first"):
        rows[:]


def test_a_chunk_that_changes_is_noticed(tmp_path):
    X, _ = numbers(40)
    array = zarr.open_array(f"{tmp_path}/X.zarr", mode="w", shape=X.shape, chunks=(10, 4),
                            dtype=float)
    array[:] = X
    rows = hs.open_rows(f"{tmp_path}/X.zarr")
    rows[:]
    array[12, 1] = 0.0
    stored_rows.clear_shelf()
    with pytest.raises(MissingMap, match="the chunk from row 0 has other numbers"):
        rows[:]


def test_a_solution_whose_files_have_changed_says_so(tmp_path, monkeypatch):
    path = write(tmp_path)
    rows = hs.open_rows(path, XS)
    entry = rows.to_dict()
    np.testing.assert_array_equal(reopened("X", entry)[:], rows[:])
    write(tmp_path, more=pa.array(range(40)))
    with pytest.raises(MissingMap, match="is not what it was when the solution was saved"):
        reopened("X", entry)


@pytest.mark.parametrize(("change", "message"), [
    ({"url": "reference://x.json"}, "URL of a plain store"),
    ({"url": "simplecache::reference://b"}, "URL of a plain store"),
    ({"url": "zip://a::memory://none"}, "cannot be opened"),
    ({"kind": "pickle"}, "expected parquet, zarr or npy"),
    ({"shape": [1]}, "expected two integers"),
    ({"columns": 3}, "expected a list of strings"),
    ({"more": 1}, "there is no field 'more'"),
])
def test_no_file_may_ask_for_any_place(tmp_path, change, message):
    entry = hs.open_rows(write(tmp_path), XS).to_dict()
    with pytest.raises(ValueError, match=message):
        reopened("X", {**entry, **change})


@pytest.mark.parametrize(("place", "message"), [
    ("{}/none.parquet", "no such file"),
    ("{}/none.npy", "no such file"),
    ("{}/table.csv", r"expected Parquet \(\.parquet\), a Zarr array"),
    ("{}/bad.parquet", "not a complete Parquet file"),
    ("{}/bad.npy", "not a .npy file"),
    ("memory://none/X.npy", "no such file"),
    ("memory://none/X.parquet", "no such file"),
    ("nosuch://x/X.npy", "fsspec does not read it"),
    ("zip://X.npy::memory://none.zip", "cannot be opened"),
    ("{}/empty", r"expected Parquet files \(\.parquet, .* in this folder, found none"),
])
def test_places_without_rows_are_refused_in_a_sentence(tmp_path, place, message):
    for name in ("bad.parquet", "bad.npy", "table.csv"):
        (tmp_path / name).write_bytes(b"neither of them")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message) as told:
        hs.open_rows(place.format(tmp_path))
    assert "\n" not in str(told.value)


def test_packages_that_are_missing_are_named(tmp_path, monkeypatch):
    import sys

    path = write(tmp_path)
    for package, place in (("pyarrow", path), ("zarr", tmp_path / "X.zarr"),
                           ("fsspec", "s3://bucket/X.npy")):
        with monkeypatch.context() as patch:
            for name in [one for one in sys.modules if one.partition(".")[0] == package]:
                patch.setitem(sys.modules, name, None)
            patch.setitem(sys.modules, package, None)
            extra = {"pyarrow": "parquet"}.get(package, package)
            with pytest.raises(ImportError, match=rf"pip install \"hamshoot\[{extra}\]\""):
                hs.open_rows(place)
    pytest.importorskip("fsspec")
    if not any(name.startswith("s3fs") for name in sys.modules):
        with pytest.raises(ImportError, match="s3fs"):
            hs.open_rows("s3://bucket/X.npy")


def test_what_clients_of_stores_raise_is_a_sentence(places, monkeypatch):
    """They have errors of their own, as for missing credentials, that are no OSError."""
    import sys
    from types import ModuleType

    class NoCredentials(Exception):
        pass

    client = ModuleType("botocore.exceptions")
    client.BotoCoreError = NoCredentials
    monkeypatch.setitem(sys.modules, "botocore.exceptions", client)
    rows = opened(places, "npy of a URL")[0]

    def refuse(*_, **__):
        raise NoCredentials("Unable to locate credentials")

    for method in ("info", "cat_file", "isdir", "find", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(type(rows.source.system), method, refuse)
            with pytest.raises(MissingMap, match=r"X\.npy: cannot be read .Unable to"):
                {"info": rows.source.version, "cat_file": rows.source.bytes_of,
                 "isdir": lambda _: rows.source.is_folder(),
                 "find": lambda _: rows.source._asked(rows.source.system.find, rows.source.path),
                 "open": rows.source.open}[method](rows.source.path)


def test_columns_are_of_parquet_and_options_of_urls(places, tmp_path):
    with pytest.raises(ValueError, match="columns: expected none but of Parquet"):
        hs.open_rows(places["zarr"][0][0], ["a"])
    with pytest.raises(ValueError, match="storage_options: expected none for a path"):
        hs.open_rows(write(tmp_path), storage_options={"key": "secret"})
    rows = hs.open_rows("memory://stored/X.npy", storage_options={"skip_instance_cache": True})
    assert "skip_instance_cache" not in str(rows.to_dict())
