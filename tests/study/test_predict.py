"""New rows are predicted by name, in the user's units, as the network itself predicts them."""

import io
from pathlib import Path

import numpy as np
import pandas
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.problem.sheets import sheet_of
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.study.predict import load_network, predict, read_new

TABLE = "id;size;city;price\n" + "".join(
    f"{i};{'' if i == 3 else f'{2 + 1.5 * i:g}'.replace('.', ',')};{'Bern' if i % 3 else 'Ulm'};"
    f"{i * i % 17 + 3}\n" for i in range(12))


def network(problem, layers=4, seed=0):
    """Some network of the problem, far from linear."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((layers, *problem.control_shape))
    return hs.LeakyResNet.from_weights(problem, weights)


@pytest.fixture
def trained(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(TABLE)
    problem = hs.TrainingProblem.from_csv(
        path, decimal=",", missing="mean", categories="one-hot", drop=["id"], effective_depth=2.0,
        weight_decay=0.1, width=4)
    return problem, network(problem)


def test_columns_are_found_by_name_in_any_order_and_others_left_alone(trained):
    problem, net = trained
    frame = pandas.read_csv(io.StringIO(TABLE), sep=";", dtype=str, keep_default_na=False)
    turned = frame[["price", "city", "size", "id"]].assign(more="x")
    sheet = sheet_of(turned.to_csv(sep=";", index=False), "new.csv", decimal=",")
    found = predict(net, sheet, keep=["id"])
    np.testing.assert_array_equal(found.columns["price"], net.predict(problem.X)[:, 0])
    assert found.columns["id"] == [str(i) for i in range(12)]
    # The table has the targets: the error is that of the network, in their own units.
    expected = np.sqrt(np.mean((net.predict(problem.X) - problem.Y) ** 2))
    assert found.measured == {"price": pytest.approx(expected, rel=1e-12)}
    blind = sheet_of(turned.drop(columns="price").to_csv(sep=";", index=False), "n.csv", None, ",")
    assert predict(net, blind).measured == {}


def test_what_is_written_is_read_back_to_the_last_digit_in_the_table_s_own_form(trained):
    problem, net = trained
    found = predict(net, sheet_of(TABLE, "new.csv", decimal=","), keep=["id", "city"])
    file = io.StringIO()
    found.write(file)
    back = pandas.read_csv(io.StringIO(file.getvalue()), sep=";", decimal=",",
                           float_precision="round_trip")
    assert list(back.columns) == ["id", "city", "price"]
    np.testing.assert_array_equal(back["price"], net.predict(problem.X)[:, 0])


def test_classes_are_labels_in_a_column_of_the_target_s_name(tmp_path):
    rows = [(i, "elm" if i % 3 else "a=b") for i in range(9)]
    (tmp_path / "t.csv").write_text("x,kind\n" + "".join(f"{x},{k}\n" for x, k in rows))
    problem = hs.TrainingProblem.from_csv(tmp_path / "t.csv", effective_depth=2.0,
                                          weight_decay=0.1, width=3)
    net = network(problem)
    found = predict(net, read_new(tmp_path / "t.csv", net.preparation, None, None))
    assert found.targets == ("kind",)
    assert found.columns["kind"] == list(net.predict_class(problem.X))
    assert found.measured["kind"] == pytest.approx(net.accuracy(problem.X, problem.Y))


@pytest.mark.parametrize(("text", "words"), [
    ("size;id\n1;2\n", r"new\.csv has no column 'city'; it has size, id"),
    ("town;id\n1;2\n", r"new\.csv has no columns 'size', 'city'; it has town, id"),
    ("size;city\n1;Bern\n2;Basel\n", "row 3, column 'city': expected one of 'Bern', 'Ulm'"),
    ("size;city\n1;Bern\ntwo;Ulm\n", "row 3, column 'size': expected a finite number, got 'two'"),
    ("size;city\n1.5;Bern\n", r"row 2, column 'size'.*a decimal point"),
    ("size;city\n", "expected at least 1 row of data, got 0"),
])
def test_tables_that_do_not_fit_are_refused_with_the_place(trained, text, words):
    with pytest.raises(ValueError, match=words):
        predict(trained[1], sheet_of(text, "new.csv", decimal=","))


def test_gaps_are_filled_as_in_training_and_refused_where_there_were_none(trained, tmp_path):
    net = trained[1]
    mean = np.delete(2 + 1.5 * np.arange(12), 3).mean()
    found = predict(net, sheet_of("city;size\n;\nBern;1\n", "new.csv"))
    # A row of separators alone is a row: left out, the others would move up.
    np.testing.assert_array_equal(found.columns["price"],
                                  net.predict([[mean, 1, 0], [1, 1, 0]])[:, 0])
    (tmp_path / "p.csv").write_text("a,y\n1,2\n2,5\n4,3\n")
    plain = network(hs.TrainingProblem.from_csv(tmp_path / "p.csv", effective_depth=2.0,
                                                weight_decay=0.1, width=2))
    with pytest.raises(ValueError, match=r"row 2, column 'a'.*was trained without gaps"):
        predict(plain, sheet_of("a,b\n,1\n", "new.csv"))


def test_networks_without_a_table_take_columns_in_order_or_arrays(tmp_path):
    problem = teacher(dims=(3, 2, 2), samples=6, width=4)
    net = network(problem)
    text = "a,b,c\n" + "".join(",".join(map(repr, map(float, row))) + "\n" for row in problem.X)
    found = predict(net, sheet_of(text, "new.csv"))
    np.testing.assert_array_equal(np.array(list(found.columns.values())).T, net.predict(problem.X))
    assert found.targets == ("y1", "y2")
    np.savez(tmp_path / "new.npz", X=problem.X)
    same = predict(net, read_new(tmp_path / "new.npz", None, None, None))
    np.testing.assert_array_equal(same.columns["y2"], found.columns["y2"])
    with pytest.raises(ValueError, match=r"expected 3 columns in the order of training.*got 2"):
        predict(net, sheet_of("a,b\n1,2\n", "new.csv"))
    np.savez(tmp_path / "words.npz", X=np.array([["a"]]))
    with pytest.raises(ValueError, match="expected an array X with rows of numbers"):
        read_new(tmp_path / "words.npz", None, None, None)


def test_solutions_and_networks_are_loaded_with_how_the_table_was_read(trained, tmp_path):
    problem, net = trained
    net.save(tmp_path / "net.npz")
    solution = solution_from_weights(
        problem, net.weights, net.steps, method="given", status=hs.Status.MAX_ITER, success=False)
    solution.save(tmp_path / "solution.npz")
    for name, kind in (("net.npz", type(None)), ("solution.npz", hs.Solution)):
        loaded, origin = load_network(tmp_path / name)
        assert isinstance(origin, kind)
        assert loaded.preparation == problem.preparation
        np.testing.assert_array_equal(loaded.predict(problem.X), net.predict(problem.X))
    with pytest.raises(ValueError, match=r"net\.npz is a network of 4 layers, got 7"):
        load_network(tmp_path / "net.npz", 7)
    assert load_network(tmp_path / "solution.npz", 7)[0].layers == 7


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_a_network_that_was_elsewhere_still_reads_its_table(trained, tmp_path, kind):
    pytest.importorskip(kind)
    problem, net = trained
    if kind == "torch":
        back = hs.LeakyResNet.from_torch(net.to_torch())
    else:
        net.to_safetensors(tmp_path / "n.safetensors")
        back, origin = load_network(tmp_path / "n.safetensors")
        assert origin is None
    assert back.preparation == problem.preparation
    found = predict(back, sheet_of(TABLE, "new.csv", decimal=","))
    np.testing.assert_allclose(found.columns["price"], net.predict(problem.X)[:, 0], rtol=1e-12)


def test_files_from_before_columns_were_kept_predict_by_name():
    folder = Path(__file__).parents[1] / "files"
    for name in ("layers.npz", "network.npz"):
        loaded, _ = load_network(folder / name)
        assert loaded.preparation is None
        count = loaded.lift.shape[1]
        names = loaded.input_names or [f"c{k}" for k in range(count)]
        row = np.arange(count) / 7
        sheet = sheet_of(",".join(names) + "\n" + ",".join(map(repr, map(float, row))), "n.csv")
        found = predict(loaded, sheet)
        if loaded.classes is None:
            values = np.array(list(found.columns.values()), dtype=float).T
            np.testing.assert_array_equal(values, loaded.predict(row[None]))
        else:
            assert list(found.columns.values()) == [list(loaded.predict_class(row[None]))]
