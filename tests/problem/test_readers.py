"""Tables are read as their owners wrote them, or refused with the row and column."""

import numpy as np
import pytest

from hamshoot.problem.readers import Table, read_csv, read_npz, split_rows
from hamshoot.problem.training_problem import TrainingProblem


def write(tmp_path, text, name="table.csv", **kwargs):
    path = tmp_path / name
    path.write_text(text, **{"encoding": "utf-8", **kwargs})
    return path


def test_last_columns_are_targets(tmp_path):
    path = write(tmp_path, "a,b,y,z\n1,2,3,4\n5,6,7,8\n")
    table = read_csv(path, 2)
    np.testing.assert_array_equal(table.X, [[1, 2], [5, 6]])
    np.testing.assert_array_equal(table.Y, [[3, 4], [7, 8]])
    assert table.input_names == ("a", "b")
    assert table.target_names == ("y", "z")


def test_named_targets_and_dropped_columns(tmp_path):
    path = write(tmp_path, "id,y,b\n1,2,3\n5,6,7\n")
    table = read_csv(path, ["y"], drop=["id"])
    np.testing.assert_array_equal(table.X, [[3], [7]])
    np.testing.assert_array_equal(table.Y, [[2], [6]])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_quotes_and_byte_order_marks(tmp_path, separator):
    rows = [['"a, first"', "b"], ["1", "2e3"], ['" 3 "', "-4"], []]
    if separator == ",":
        text = "\r\n".join(separator.join(r) for r in rows)
    else:
        text = "\r\n".join(separator.join(r) for r in rows).replace("a, first", "a first")
    path = write(tmp_path, text, encoding="utf-8-sig")
    table = read_csv(path)
    np.testing.assert_array_equal(table.X, [[1], [3]])
    np.testing.assert_array_equal(table.Y, [[2000], [-4]])


def test_a_column_of_strings_is_a_class(tmp_path):
    path = write(tmp_path, "x,kind\n1,oak\n2,elm\n3,oak\n")
    table = read_csv(path)
    assert table.classes == ("elm", "oak")
    np.testing.assert_array_equal(table.Y, [[0, 1], [1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "empty, expected a header row"),
        ("a,b\n", {}, "expected at least 2 rows of data, got 0"),
        ("a,b\n1,2\n", {}, "expected at least 2 rows of data, got 1"),
        ("1,2\n3,4\n5,6\n", {}, "the first row is all numbers"),
        ("a,b\n1,2\n3\n", {}, "row 3: expected 2 cells as in the header, got 1"),
        ("a,a\n1,2\n3,4\n", {}, "column 'a' appears twice"),
        ("a,b\nx,2\n3,4\n", {}, "row 2, column 'a': expected a finite number, got 'x'"),
        ("a,b\n1,2\n,4\n", {}, "row 3, column 'a': expected a finite number, got an empty cell"),
        ("a,b\n1,2\nnan,4\n", {}, "row 3, column 'a': expected a finite number, got 'nan'"),
        ("a,b\n1,2\n3,inf\n", {}, "row 3, column 'b': expected a finite number, got 'inf'"),
        ("a,b\n1,2\n3,four\n", {}, "row 3, column 'b'"),
        ("a,b\n1,oak\n3,\n", {}, "row 3, column 'b': expected a word, got an empty cell"),
        ("a,b\n1,2\n3,4\n", {"targets": ["c"]}, "no column 'c'; it has a, b"),
        ("a,b\n1,2\n3,4\n", {"targets": 2}, "expected 1 to 1 of the 2 columns"),
        ("a,b\n1,2\n3,4\n", {"targets": 1.5}, "expected column names or an integer"),
        ("a,b\n1,2\n3,4\n", {"targets": ["a", "b"]}, "no input column is left"),
        ("a,b\n1,2\n3,4\n", {"drop": ["q"]}, "drop: table.csv has no column 'q'"),
        ("a,b\n1,2\n3,4\n", {"drop": ["b"]}, "drop: column 'b' is a target"),
    ],
)
def test_bad_tables_are_refused_with_the_place(tmp_path, text, options, words):
    with pytest.raises(ValueError, match=words):
        read_csv(write(tmp_path, text), **{"targets": 1, **options})


def test_missing_binary_and_directory(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="got a directory"):
        read_csv(tmp_path)
    (tmp_path / "b.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="not a UTF-8 text file"):
        read_csv(tmp_path / "b.csv")


def test_npz_round_trip_and_refusals(tmp_path):
    X, Y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
    np.savez(tmp_path / "good.npz", X=X, Y=Y)
    table = read_npz(tmp_path / "good.npz")
    np.testing.assert_array_equal(table.X, X)
    assert table.Y.shape == (6, 1)
    np.savez(tmp_path / "labels.npz", X=X, Y=np.array(list("abcabc")))
    assert read_npz(tmp_path / "labels.npz").classes == ("a", "b", "c")
    np.savez(tmp_path / "half.npz", X=X)
    with pytest.raises(ValueError, match="expected arrays X and Y, it holds X"):
        read_npz(tmp_path / "half.npz")
    np.savez(tmp_path / "uneven.npz", X=X, Y=Y[:3])
    with pytest.raises(ValueError, match="as many rows in Y as in X, 6, got 3"):
        read_npz(tmp_path / "uneven.npz")
    np.savez(tmp_path / "flat.npz", X=Y, Y=Y)
    with pytest.raises(ValueError, match="expected X with rows of samples"):
        read_npz(tmp_path / "flat.npz")
    np.savez(tmp_path / "pickle.npz", X=np.array([{}]), Y=Y)
    with pytest.raises(ValueError, match=r"not a complete \.npz file"):
        read_npz(tmp_path / "pickle.npz")
    whole = (tmp_path / "good.npz").read_bytes()
    for name, content in (("cut.npz", whole[: len(whole) // 2]), ("text.npz", b"hello"),
                          ("nothing.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"not a complete \.npz file"):
            read_npz(tmp_path / name)


def test_split_is_a_partition_fixed_by_the_seed():
    table = Table(np.arange(20.0)[:, None], np.arange(20.0)[:, None])
    a, b, c = (split_rows(table, 0.25, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.X, b.X)
    assert not np.array_equal(a.X_test, c.X_test)
    assert len(a.X_test) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([a.X, a.X_test]), axis=0), table.X)
    np.testing.assert_array_equal(a.X, a.Y)
    assert split_rows(table, 0.0, 1) is table
    for wrong, words in ((1.0, "expected a number in"), (-0.1, "expected a number"),
                         ("half", "expected a number"), (0.97, "leaves 1 to train on")):
        with pytest.raises(ValueError, match=words):
            split_rows(table, wrong, 0)


def test_problem_from_csv_standardises_and_holds_out(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20, 3)) * [1, 1e4, 1e-4] + [0, 5e5, 1]
    lines = "\n".join(",".join(f"{v:.17g}" for v in row) for row in rows)
    path = write(tmp_path, "a,b,y\n" + lines)
    problem = TrainingProblem.from_csv(path, ["y"], test_fraction=0.2, effective_depth=2.0,
                                       weight_decay=1e-2, width=3)
    assert problem.n_samples == 16
    assert len(problem.X_test) == 4
    np.testing.assert_allclose(problem.initial_state[:2].std(axis=1), 1, rtol=1e-9)
