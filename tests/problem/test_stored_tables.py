"""Parquet tables are read as the CSV files of the same cells; weights of samples are a column."""

import numpy as np
import pandas as pd
import pytest

import hamshoot as hs
from hamshoot.problem import memory_map as mapped
from hamshoot.problem.readers import read_csv, split_rows
from hamshoot.problem.stored_rows import StoredRows
from hamshoot.problem.stored_tables import read_parquet, read_table, read_zarr

pytest.importorskip("pyarrow")
zarr = pytest.importorskip("zarr", minversion="3")
OPTIONS = dict(effective_depth=2.0, weight_decay=0.01, width=8)


def frame(rows=40, seed=0):
    """Numbers, words, gaps, counts, a target and a class."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({
        "size": rng.standard_normal(rows), "place": rng.choice(["north", "south", "west"], rows),
        "rooms": rng.integers(1, 6, rows), "old": rng.integers(0, 2, rows).astype(bool),
        "count": rng.integers(0, 4, rows), "price": 1e5 * rng.random(rows),
        "kind": rng.choice(["flat", "house"], rows)})
    table.loc[3, "size"], table.loc[5, "place"] = np.nan, None
    return table


@pytest.fixture
def files(tmp_path):
    table = frame()
    table.to_parquet(tmp_path / "t.parquet", index=False, row_group_size=13)
    table.assign(old=table["old"].astype(int)).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path


def same(one, other):
    for name in ("X", "Y", "gaps", "sample_weights"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.input_names, one.target_names, one.classes) == (
        other.input_names, other.target_names, other.classes)
    assert one.preparation.columns == other.preparation.columns


@pytest.mark.parametrize("options", [
    {"targets": ["price"], "drop": ["kind"]}, {"targets": ["kind"]}, {"targets": 1},
    {"targets": ["rooms"], "classes": True, "drop": ["kind"]}, {"targets": ["price"],
                                                               "weights": "count"},
    {"targets": ["price"], "categories": ["place", "rooms", "kind"]}])
def test_a_parquet_table_is_the_csv_file(files, options):
    options = {"missing": "median", "categories": "one-hot", **options}
    one, other = read_parquet(files / "t.parquet", **options), read_csv(files / "t.csv", **options)
    same(one, other)
    same(split_rows(one, 0.25, 3), split_rows(other, 0.25, 3))
    assert read_table(files / "t.parquet", options).input_names == one.input_names


@pytest.mark.parametrize(("options", "message"), [
    ({}, r"t.parquet, row 4, column 'size': expected a finite number, got an empty cell"),
    ({"drop": ["size"]}, "row 1, column 'place': expected a finite number, got '(nor|sou|wes)"),
    ({"targets": ["none"]}, "t.parquet has no column 'none'"),
    ({"lazy": "yes"}, "lazy: expected true or false"),
    ({"lazy": True}, "column 'place' holds words"),
    ({"lazy": True, "missing": "mean"}, "missing: expected 'refuse' where rows stay in the file"),
    ({"lazy": True, "weights": "count"}, "weights: expected None where rows stay in the file"),
])
def test_what_a_table_holds_besides_is_named(files, options, message):
    with pytest.raises(ValueError, match=message):
        read_parquet(files / "t.parquet", **{"targets": ["price"], **options})


def test_other_readers_say_whose_file_it_is(files):
    with pytest.raises(ValueError, match=r"TrainingProblem\.from_parquet reads"):
        read_csv(files / "t.parquet")
    with pytest.raises(ValueError, match="not a complete Parquet file"):
        read_parquet(files / "t.csv")
    with pytest.raises(ValueError, match=r"expected a table \(CSV, Parquet\), or a Zarr group"):
        read_table(files / "t.npy", {})


def test_dates_and_lists_are_named(tmp_path):
    table = frame().drop(columns=["place", "kind", "size"])
    table.assign(day=pd.Timestamp("2024-01-02")).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(ValueError, match=r"column 'day': expected a finite number.*\(a date"):
        read_parquet(tmp_path / "d.parquet", ["price"])
    table.assign(pair=[[1, 2]] * len(table)).to_parquet(tmp_path / "l.parquet")
    with pytest.raises(ValueError, match=r"column 'pair': expected a finite number, got '\[1, 2"):
        read_parquet(tmp_path / "l.parquet", ["price"])
    assert read_parquet(tmp_path / "l.parquet", ["price"], drop=["pair"]).X.shape == (40, 3)


def test_a_table_stays_in_its_file_where_it_is_large_or_asked_to(files, monkeypatch):
    options = dict(targets=["price"], drop=["size", "place", "kind"])
    small = hs.TrainingProblem.from_parquet(files / "t.parquet", **options, **OPTIONS)
    asked = hs.TrainingProblem.from_parquet(files / "t.parquet", lazy=True, **options, **OPTIONS)
    monkeypatch.setattr(mapped, "MEMORY_BYTES", 40 * 7 * 8 - 1)
    large = hs.TrainingProblem.from_parquet(files / "t.parquet", **options, **OPTIONS)
    assert isinstance(small.X, np.ndarray)
    for one in (asked, large):
        assert isinstance(one.X, StoredRows)
        assert one.input_names == small.input_names == ("rooms", "old", "count")
        np.testing.assert_array_equal(one.initial_state, small.initial_state)
        np.testing.assert_array_equal(one.targets, small.targets)
    with pytest.raises(ValueError, match="test_fraction: expected 0 where rows stay in their file"):
        hs.TrainingProblem.from_parquet(files / "t.parquet", test_fraction=0.2, **options,
                                        **OPTIONS)


def test_a_csv_file_has_a_url_too(files):
    pytest.importorskip("fsspec").filesystem("memory").pipe("/tables/t.csv", (
        files / "t.csv").read_bytes())
    options = dict(targets=["price"], missing="mean", categories="one-hot")
    same(read_csv("memory://tables/t.csv", **options), read_csv(files / "t.csv", **options))
    with pytest.raises(ValueError, match=r"memory:///tables/u\.csv: no such file$"):
        hs.TrainingProblem.from_csv("memory:///tables/u.csv", **OPTIONS)


def test_a_group_of_zarr_holds_the_arrays_of_a_problem(tmp_path):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((30, 3)), rng.standard_normal(30)
    group = zarr.open_group(f"{tmp_path}/g.zarr", mode="w")
    for name, array in (("X", X), ("Y", Y), ("X_test", X[:4]), ("Y_test", Y[:4, None])):
        group.create_array(name, data=array, chunks=(7, *array.shape[1:]))
    group["X"].attrs["columns"] = ["a", "b", "c"]
    problem = hs.TrainingProblem.from_zarr(tmp_path / "g.zarr", **OPTIONS)
    plain = hs.TrainingProblem(X, Y, standardize=True, **OPTIONS)
    assert isinstance(problem.X, StoredRows)
    assert problem.input_names == ("a", "b", "c")
    np.testing.assert_array_equal(problem.initial_state, plain.initial_state)
    np.testing.assert_array_equal(problem.targets, plain.targets)
    np.testing.assert_array_equal(problem.X_test, X[:4])
    del group["Y"]
    with pytest.raises(ValueError, match="expected a Zarr group with arrays X and Y, found no Y"):
        read_zarr(tmp_path / "g.zarr")


# -- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cells", "message"), [
    ("1 -2 3", "t.csv, row 3, column 's': expected a weight >= 0, got -2"),
    ("0 0 0", "t.csv, column 's': expected a weight above 0 in some row, got 0 in all"),
    ("1 inf 3", "row 3, column 's': expected a finite number, got 'inf'"),
    ("1 NA 3", "row 3, column 's': expected a finite number, got 'NA' .*write 0 for a row"),
    ("1 much 3", "row 3, column 's': expected a finite number, got 'much'"),
])
def test_weights_that_are_none_are_told_with_their_row(tmp_path, cells, message):
    lines = [f"{k},{s},{k * k}" for k, s in enumerate(cells.split())]
    (tmp_path / "t.csv").write_text("\n".join(["x,s,y", *lines]) + "\n")
    with pytest.raises(ValueError, match=message):
        read_csv(tmp_path / "t.csv", weights="s")


@pytest.mark.parametrize(("weights", "message"), [
    ("w", "weights: t.csv has no column 'w'"), ("y", "weights: column 'y' is a target"),
    (1, "weights: expected the name of a column, got 1")])
def test_the_column_of_weights_is_one_of_the_table(tmp_path, weights, message):
    (tmp_path / "t.csv").write_text("x,s,y\n1,2,3\n2,3,5\n")
    with pytest.raises(ValueError, match=message):
        read_csv(tmp_path / "t.csv", targets=["y"], weights=weights)


def test_a_weighted_table_is_the_table_of_so_many_rows(tmp_path):
    table = frame()[["size", "rooms", "price", "count"]].fillna(0.5)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.loc[table.index.repeat(table["count"])].drop(columns="count").to_csv(
        tmp_path / "many.csv", index=False)
    problem = hs.TrainingProblem.from_csv(tmp_path / "t.csv", weights="count", **OPTIONS)
    many = hs.TrainingProblem.from_csv(tmp_path / "many.csv", **OPTIONS)
    assert problem.input_names == ("size", "rooms")
    assert problem.target_names == ("price",)  # the last column besides the weights
    np.testing.assert_array_equal(problem.sample_weights, table["count"])
    np.testing.assert_allclose(problem.target_scaling.scale, many.target_scaling.scale, rtol=1e-12)
    np.testing.assert_allclose(problem.input_scaling.mean, many.input_scaling.mean, rtol=1e-12)
    W = 0.2 * np.random.default_rng(0).standard_normal((5, 8, 9))
    solutions = [hs.LeakyResNet.from_weights(one, W, np.full(5, 0.2)).objective(one)
                 for one in (problem, many)]
    decay = 0.01 / (2 * 2.0) * np.sum(W**2) / 5
    assert (solutions[0] - decay) * 40 == pytest.approx((solutions[1] - decay) * len(many.X),
                                                        rel=1e-10)


@pytest.mark.parametrize("kind", ["columns", "common", "varying"])
def test_scaling_of_weighted_rows_is_that_of_rows_given_so_often(kind):
    rng = np.random.default_rng(2)
    X, Y, counts = rng.standard_normal((20, 3)), rng.standard_normal(20), rng.integers(0, 3, 20)
    X[counts == 0] = 1e6
    one = hs.TrainingProblem(X, Y, sample_weights=counts, standardize=kind, **OPTIONS)
    many = hs.TrainingProblem(np.repeat(X, counts, axis=0), np.repeat(Y, counts),
                              standardize=kind, **OPTIONS)
    for a, b in ((one.input_scaling, many.input_scaling), (one.target_scaling,
                                                           many.target_scaling)):
        np.testing.assert_allclose(a.mean, b.mean, rtol=1e-12)
        np.testing.assert_allclose(a.scale, b.scale, rtol=1e-12)


def test_a_column_that_varies_without_weight_is_constant():
    X = np.array([[1.0, 2.0], [1.0, 3.0], [5.0, 7.0]])
    with pytest.raises(ValueError, match="X: column '0' is constant"):
        hs.TrainingProblem(X, X[:, 1], sample_weights=[1, 1, 0], standardize=True, **OPTIONS)
