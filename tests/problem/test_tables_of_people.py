"""Tables as people have them: read as they are meant, or refused by name with the row."""

import json
import logging
import os

import numpy as np
import pytest

from hamshoot.problem.cells import look, number, numbers
from hamshoot.problem.hints import hints
from hamshoot.problem.preparation import Column, Preparation
from hamshoot.problem.readers import read_csv, read_npz, split_rows
from hamshoot.problem.sheets import read_sheet, sheet_of
from hamshoot.problem.training_problem import TrainingProblem

HEAD = "size,city,y\n"


def write(tmp_path, text, **kwargs):
    path = tmp_path / "table.csv"
    path.write_text(text, **{"encoding": "utf-8", "newline": "", **kwargs})
    return path


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "value"), [
    ("3", 3.0), ("-2.5e-3", -0.0025), ("+.5", 0.5), ("1e400", np.inf), ("2024_01", None),
    ("1,5", None), ("١٢", None), ("１２", None), ("0x10", None), ("", None), ("5 kg", None)])
def test_a_number_is_plain_digits(cell, value):
    assert number(cell) == value


def test_a_decimal_comma_is_read_on_request_and_no_point_beside_it():
    assert number("-1,5e2", ",") == -150.0
    assert number("1.5", ",") is None
    assert number("1.234,5", ",") is None
    np.testing.assert_array_equal(numbers(["1,5", "2", ",25"], ","), [1.5, 2, 0.25])
    assert numbers(["1,5", "2.5"], ",") is None


@pytest.mark.parametrize(("cell", "what"), [
    ("3,14", "a decimal comma"), ("-0,5e3", "a decimal comma"), ("1,234", "a number with a comma"),
    ("1.234,5", "a decimal comma and points"), ("1,234,567.8", "separators between thousands"),
    ("12 345", "separators between thousands"), ("2024_01", "digits with an underscore"),
    ("2024-01-05", "a date"), ("5.1.2024", "a date"), ("1/2/24", "a date"),
    ("5 Jan 2024", "a date"), ("Jan 5, 2024", "a date"),
    ("2024-01-05T10:20:00Z", "a date"), ("10:30", "a time of day"),
    ("€ 5.20", "a number with a unit"), ("12 %", "a number with a unit"),
    ("5 kg", "a number with a unit"), ("−5", "a minus sign")])
def test_what_is_no_number_is_recognised(cell, what):
    assert what in look(cell).what


@pytest.mark.parametrize("cell", ["oak", "10-20", "A5", "May", "north-east", "3D", "model 2024-b"])
def test_words_are_not_taken_for_numbers_or_dates(cell):
    found = look(cell)
    assert found is None or not found.mistaken


# -- what was misread silently ---------------------------------------------------------------------


@pytest.mark.parametrize(("text", "words"), [
    ("x;y\n1;3,14\n2;2,71\n3;1,41\n", r"row 2, column 'y'.*'3,14' \(a decimal comma; decimal = "),
    ("x;y\n1;3\n2;2,71\n3;1\n", r"row 3, column 'y'.*'2,71' \(a decimal comma"),
    ("x;y\n1,5;3\n2,5;2\n", r"row 2, column 'x'.*'1,5' \(a decimal comma"),
    ("x,y\n1,2024_01\n2,2024_02\n", r"row 2, column 'y'.*digits with an underscore"),
    ("x,y\n2024_01,1\n2024_02,5\n", r"row 2, column 'x'.*digits with an underscore"),
    ("day,y\n2024-01-05,1\n2024-01-06,5\n", r"row 2, column 'day'.*'2024-01-05' \(a date; make"),
    ("x,day\n1,5.1.2024\n2,6.1.2024\n", r"row 2, column 'day'.*a date"),
    ("x,y\n1,5 %\n2,7 %\n", r"row 2, column 'y'.*a number with a unit"),
    ("x,y\n1,2\n\n\n3,4\n\n5,six\n", r"row 7, column 'y': expected a finite number, got 'six'"),
    ('x,y\n"1\n",2\n\n3,z\n4,5\n', r"row 4, column 'y'"),
    ("x,y\n1.5,2\n1,5,3\n", r"row 3: expected 2 cells.*got 3; a comma within a cell needs quotes"),
    (",x,y\n0,1,2\n1,3,4\n", r"column 1 has no name, as row numbers of pandas"),
    ("a b\n1 2\n3 4\n", r"expected columns separated by .* got one column, 'a b'"),
    ('x,y\n1,"2\n3,4\n', r"not a CSV file"),
    ("x,y\n" + "".join(f"{i},name {i}\n" for i in range(30)), "30 different words in 30 rows"),
])
def test_what_would_be_misread_is_refused_with_the_row(tmp_path, text, words):
    with pytest.raises(ValueError, match=words) as told:
        read_csv(write(tmp_path, text))
    assert len(str(told.value)) < 300


def test_a_quoted_name_with_the_separator_of_others_does_not_split(tmp_path):
    table = read_csv(write(tmp_path, '"price, in EUR, net";area;y\n1;2;3\n4;5;6\n'))
    assert table.input_names == ("price, in EUR, net", "area")
    np.testing.assert_array_equal(table.X, [[1, 2], [4, 5]])


def test_rows_choose_the_separator_where_the_header_leaves_it_open(tmp_path):
    path = write(tmp_path, "size, net;area, gross;y\n1;2;3\n4;5;6\n")
    assert read_sheet(path).separator == ";"
    assert read_csv(path).input_names == ("size, net", "area, gross")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_semicolons_and_decimal_commas(tmp_path, encoding):
    path = write(tmp_path, "Größe;y\r\n1,5;2\r\n-,5;1e2\r\n", encoding=encoding)
    table = read_csv(path, decimal=",")
    assert table.input_names == ("Größe",)
    np.testing.assert_array_equal(table.X[:, 0], [1.5, -0.5])
    np.testing.assert_array_equal(table.Y[:, 0], [2, 100])
    # The same table, written plainly.
    plain = read_csv(write(tmp_path, "Größe,y\n1.5,2\n-.5,1e2\n"))
    np.testing.assert_array_equal(plain.X, table.X)


def test_separators_at_the_end_of_all_lines_make_no_column(tmp_path):
    table = read_csv(write(tmp_path, ",,,\na,y,,\n1,2,,\n3,4,,\n,,,\n,,,\n"))
    assert table.input_names == ("a",)
    np.testing.assert_array_equal(table.Y[:, 0], [2, 4])
    with pytest.raises(ValueError, match=r"row 3, column 'a': .* got an empty cell"):
        read_csv(write(tmp_path, "a,y,,\n1,2,,\n,,,\n3,4,,\n"))


def test_another_encoding_is_named_with_the_line(tmp_path):
    path = write(tmp_path, "a,y\n1,2\nü,4\n", encoding="cp1252")
    with pytest.raises(ValueError, match=r"line 3 holds the byte 0xfc.*CSV UTF-8"):
        read_csv(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match="expected a CSV file, got a pipe"):
        read_csv(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match=r"expected an \.npz file, got a pipe"):
        read_npz(tmp_path / "pipe.csv", mmap=True)


def test_a_header_of_many_columns_costs_in_proportion():
    """Reads and comparisons of names, counted: a search of the header for each column is 10⁸."""
    class Counted(str):
        __slots__ = ()
        compared = 0

        def __eq__(self, other):
            Counted.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    count = 10_000
    text = ",".join(f"c{k}" for k in range(count)) + "\n" + 2 * (",".join(["1.5"] * count) + "\n")
    sheet = sheet_of(text, "wide.csv")
    names = [Counted(name) for name in sheet.header]
    preparation = Preparation(tuple(Column(name) for name in names))
    assert preparation.apply(sheet).shape == (2, count)
    assert Counted.compared <= 2 * count


# -- options of the reader -------------------------------------------------------------------------


def test_gaps_are_refused_with_row_and_hint_or_filled_on_request(tmp_path):
    path = write(tmp_path, "a,b,y\n1,10,1\nNA,20,2\n4,,3\n7,60,4\n")
    with pytest.raises(ValueError, match=r"row 3, column 'a'.*got 'NA' \(missing = \"mean\""):
        read_csv(path)
    np.testing.assert_array_equal(read_csv(path, missing="mean").X,
                                  [[1, 10], [4, 20], [4, 30], [7, 60]])
    np.testing.assert_array_equal(read_csv(path, missing="median").X,
                                  [[1, 10], [4, 20], [4, 20], [7, 60]])
    with pytest.raises(ValueError, match=r"row 3, column 'y'.*no target is filled in"):
        read_csv(write(tmp_path, "a,y\n1,1\n2,\n3,5\n"), missing="mean")
    with pytest.raises(ValueError, match=r"column 'a': no row that is trained on has a value"):
        read_csv(write(tmp_path, "a,b,y\n,1,1\n,2,2\n"), missing="mean")


def test_categories_become_one_hot_on_request(tmp_path):
    path = write(tmp_path, HEAD + "1,Bern,1\n2,Ulm,2\n3,Bern,3\n")
    with pytest.raises(ValueError, match=r"row 2, column 'city'.*'Bern' \(inputs must be numbers"):
        read_csv(path)
    table = read_csv(path, categories="one-hot")
    assert table.input_names == ("size", "city=Bern", "city=Ulm")
    np.testing.assert_array_equal(table.X, [[1, 1, 0], [2, 0, 1], [3, 1, 0]])
    by_name = read_csv(path, categories=["size", "city"])
    assert by_name.input_names[:3] == ("size=1", "size=2", "size=3")
    with pytest.raises(ValueError, match=r"categories: table\.csv has no column 'town'"):
        read_csv(path, categories=["town"])
    with pytest.raises(ValueError, match=r"row 2, column 'day'.*a date"):
        read_csv(write(tmp_path, "day,y\n2024-01-05,1\n2024-01-05,5\n"), categories="one-hot")
    typo = write(tmp_path, "a,y\n1,1\n2,5\nthree,6\n")
    with pytest.raises(ValueError, match=r"row 4, column 'a'.*'three'"):
        read_csv(typo, categories="one-hot")


def test_a_gap_in_a_category_is_the_commonest_level(tmp_path):
    path = write(tmp_path, HEAD + "1,Bern,1\n2,,2\n3,Bern,3\n4,Ulm,4\n")
    with pytest.raises(ValueError, match=r"row 3, column 'city': expected a word, got an empty"):
        read_csv(path, categories="one-hot")
    table = read_csv(path, categories="one-hot", missing="mean")
    np.testing.assert_array_equal(table.X[:, 1:], [[1, 0], [1, 0], [1, 0], [0, 1]])


def test_numbers_are_classes_on_request_in_their_order(tmp_path):
    path = write(tmp_path, "x,y\n1,10\n2,2\n3,10\n4,1\n")
    table = read_csv(path, classes=True)
    assert table.classes == ("1", "2", "10")
    np.testing.assert_array_equal(table.Y, [[0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    with pytest.raises(ValueError, match="classes: expected one target column, got 2"):
        read_csv(write(tmp_path, "x,y,z\n1,1,1\n2,2,2\n"), 2, classes=True)


@pytest.mark.parametrize(("options", "words"), [
    ({"separator": ";;"}, "separator: expected one character"),
    ({"separator": ",", "decimal": ","}, "another character than the decimal"),
    ({"decimal": "comma"}, "decimal: expected"), ({"missing": "zero"}, "missing: expected one of"),
    ({"missing": 3}, "missing: expected one of"),
    ({"categories": "dummies"}, "categories: expected"),
    ({"categories": 3}, "categories: expected"),
    ({"classes": "yes"}, "classes: expected true or false"),
    ({"drop": "size"}, "drop: expected a list"),
    ({"targets": ["y", "y"]}, "targets: expected each column once")])
def test_options_are_checked_before_anything_is_read(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        read_csv(write(tmp_path, HEAD + "1,2,3\n4,5,6\n"), **options)


# -- what is fitted comes from the training rows ---------------------------------------------------


def test_fills_and_levels_are_those_of_the_rows_that_are_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(40)
    cells = ["" if i % 5 == 0 else f"{v:.17g}" for i, v in enumerate(values)]
    towns = ["Bern", "Ulm"] * 20
    path = write(tmp_path, HEAD + "".join(
        f"{cell},{town},{i}\n" for i, (cell, town) in enumerate(zip(cells, towns, strict=True))))
    whole = read_csv(path, missing="mean", categories="one-hot")
    table = split_rows(whole, 0.25, seed=1)
    trained = table.Y[:, 0].astype(int)
    mean = np.mean([values[i] for i in trained if i % 5])
    for X, Y in ((table.X, table.Y), (table.X_test, table.Y_test)):
        rows = Y[:, 0].astype(int)
        expected = np.where(rows % 5 == 0, mean, values[rows])
        np.testing.assert_allclose(X[:, 0], expected, rtol=1e-14)
    assert table.preparation.columns[0].fill == pytest.approx(mean, rel=1e-14)
    # A level of held-out rows alone is no input.
    rare = int(table.Y_test[0, 0])
    towns[rare] = "Basel"
    path = write(tmp_path, HEAD + "".join(
        f"{i},{town},{i}\n" for i, town in enumerate(towns)))
    whole = read_csv(path, categories="one-hot")
    assert whole.input_names == ("size", "city=Basel", "city=Bern", "city=Ulm")
    table = split_rows(whole, 0.25, seed=1)
    assert table.input_names == ("size", "city=Bern", "city=Ulm")
    np.testing.assert_array_equal(table.X_test[0], [rare, 0, 0])


def test_new_rows_are_read_as_those_of_training(tmp_path):
    path = write(tmp_path, HEAD + "1,Bern,1\n,Ulm,2\n3,Bern,3\n")
    table = read_csv(path, missing="mean", categories="one-hot")
    preparation = Preparation.from_dict(table.preparation.to_dict())
    assert preparation == table.preparation
    new = sheet_of("city,id,size\nUlm,7,5\n,8,\n", "new.csv")
    np.testing.assert_array_equal(preparation.apply(new), [[5, 0, 1], [2, 1, 0]])
    np.testing.assert_array_equal(
        preparation.apply(read_sheet(path)), table.X)
    unknown = r"row 3, column 'city': expected one of 'Bern', 'Ulm', as in training, got 'Basel'"
    with pytest.raises(ValueError, match=unknown):
        preparation.apply(sheet_of("city,size\nUlm,5\nBasel,6\n", "new.csv"))
    with pytest.raises(ValueError, match=r"new\.csv has no column 'city'; it has size, y"):
        preparation.apply(sheet_of("size,y\n1,2\n", "new.csv"))


@pytest.mark.parametrize("entry", [
    3, {}, {"columns": []}, {"columns": "ab"}, {"columns": [{"name": 3}]},
    {"columns": [{"name": "a", "levels": []}]}, {"columns": [{"name": "a", "fill": "x"}]},
    {"columns": [{"name": "a", "levels": ["x"], "fill": "y"}]},
    {"columns": [{"name": "a", "fill": float("nan")}]}, {"columns": [{"name": "a"}], "more": 1},
    {"columns": [{"name": "a"}], "missing": "zero"}, {"columns": [{"name": "a"}], "decimal": ";"}])
def test_a_damaged_preparation_is_refused(entry):
    with pytest.raises(ValueError, match="expected"):
        Preparation.from_dict(entry)


def test_the_preparation_is_of_the_inputs(tmp_path):
    path = write(tmp_path, HEAD + "1,Bern,1\n2,Ulm,2\n3,Bern,3\n")
    settings = dict(effective_depth=2.0, weight_decay=0.1, width=4)
    problem = TrainingProblem.from_csv(path, categories="one-hot", **settings)
    assert problem.preparation.names == problem.input_names
    arrays, settings = problem.to_arrays()
    again = TrainingProblem.from_arrays(arrays, json.loads(json.dumps(settings)))
    assert again.preparation == problem.preparation
    assert problem.subset([0, 1]).preparation is None
    assert problem.replace(width=5).preparation == problem.preparation
    assert problem.replace(X=2 * problem.X).preparation is None  # of no table any more
    with pytest.raises(ValueError, match="preparation: expected one of 2 inputs, got 3"):
        problem.replace(X=problem.X[:, :2], input_names=None, preparation=problem.preparation)


# -- hints -----------------------------------------------------------------------------------------


def test_classes_written_as_numbers_and_narrow_widths_get_a_sentence(tmp_path, caplog):
    text = "a,b,c,y\n" + "".join(f"{i},{i * i},{7 * i % 5},{i % 2}\n" for i in range(12))
    path = write(tmp_path, text)
    settings = dict(effective_depth=2.0, weight_decay=0.1)
    with caplog.at_level(logging.WARNING, "hamshoot"):
        TrainingProblem.from_csv(path, width=2, **settings)
    assert "The 3 inputs are projected at random (seed 0) to the width 2" in caplog.text
    assert "'y' holds the whole numbers 0 and 1 alone" in caplog.text
    assert "(inputs projected at random)" in repr(TrainingProblem.from_csv(path, width=2,
                                                                           **settings))
    assert "projected" not in repr(TrainingProblem.from_csv(path, width=3, **settings))
    assert hints(TrainingProblem.from_csv(path, width=3, classes=True, **settings)) == []
    assert hints(TrainingProblem.from_csv(path, width=2, lift="orthonormal", classes=True,
                                          **settings)) == []


@pytest.mark.parametrize(("values", "count"), [
    ([0, 1], 1), ([-1, 1], 1), ([0, 1, 2], 1), ([1, 2, 3, 4], 1), ([0, 1.5], 0), ([0, 1, 5], 0),
    (list(range(12)), 0), ([2, 3, 4], 0)])
def test_only_whole_numbers_as_of_classes_are_told(values, count):
    Y = np.resize(values, 10 * len(values))
    X = np.arange(len(Y), dtype=float)[:, None]
    problem = TrainingProblem(X, Y, effective_depth=2.0, weight_decay=0.1, width=2)
    assert len(hints(problem)) == count


# -- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "words"), [
    ({"X": np.ones((6, 2), complex)}, "expected real numbers in X, got 'complex128'"),
    ({"Y": np.ones(6, complex)}, "expected real numbers in Y"),
    ({"X": np.full((6, 2), "a")}, "expected real numbers in X"),
    ({"X": np.zeros((6, 2), "datetime64[s]")}, "expected real numbers in X|no plain numbers"),
    ({"X": np.zeros((6, 2), [("a", float)])}, "expected real numbers in X|no plain numbers"),
    ({"Y": np.full((6, 2), "a")}, "expected real numbers in Y, or a label a row"),
    ({"X_test": np.ones((3, 2)), "Y_test": np.ones(2)}, "as many rows in Y_test as in X_test, 3"),
    ({"X_test": np.ones(3), "Y_test": np.ones(3)}, "expected X_test with rows"),
    ({"X": np.float64(3)}, "expected X with rows of samples, got shape"),
])
def test_arrays_of_another_kind_are_refused(tmp_path, change, words):
    arrays = {"X": np.arange(12.0).reshape(6, 2), "Y": np.arange(6.0), **change}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        read_npz(tmp_path / "a.npz")


def test_labels_of_held_out_rows_are_those_of_training(tmp_path):
    arrays = {"X": np.ones((4, 2)), "Y": np.array(list("abab")), "X_test": np.ones((2, 2))}
    np.savez(tmp_path / "a.npz", **arrays, Y_test=np.array(["b", "a"]))
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz").Y_test, [[0, 1], [1, 0]])
    np.savez(tmp_path / "b.npz", **arrays, Y_test=np.array(["b", "c"]))
    with pytest.raises(ValueError, match="expected labels of Y in Y_test, got 'c'"):
        read_npz(tmp_path / "b.npz")


@pytest.mark.parametrize(("argument", "value", "words"), [
    ("X", np.ones((4, 2), complex), "X: expected numbers.*complex128"),
    ("X", np.ones((4, 2), "datetime64[D]"), "X: expected numbers.*datetime64"),
    ("X", [["2024_01", "2"]] * 4, "X: expected numbers"),
    ("X", np.array([["2024_01", 2]] * 4, dtype=object), "X: expected numbers"),
    ("X", [[10**400, 2]] * 4, "X: expected numbers"),
    ("weight_decay", 10**400, "weight_decay: expected a finite number > 0, got an integer of 401"),
    ("weight_decay", 1j, "weight_decay: expected a number"),
    ("weight_decay", [0.1], "weight_decay: expected a number"),
    ("epsilon", 10**400, "epsilon: expected a number"),
    ("width", 10**400, "width: expected at most"),
    ("width", 40_000, "width: expected at most 30000 neurons"),
    ("activation", ["relu"], "activation: expected one of"),
    ("activation", "r" * 600, "activation: expected one of"),
    ("seed", "s" * 600, "seed: expected an integer"),
    ("lift", "l" * 600, "lift: expected"),
])
def test_arguments_out_of_all_range_are_one_short_sentence(argument, value, words):
    given = dict(X=np.arange(8.0).reshape(4, 2), Y=np.arange(4.0), effective_depth=2.0,
                 weight_decay=0.1, width=3)
    with pytest.raises(ValueError, match=words) as told:
        TrainingProblem(**{**given, argument: value})
    assert len(str(told.value)) < 200
