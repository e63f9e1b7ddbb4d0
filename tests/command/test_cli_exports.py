"""`hamshoot export`, and `verify` of networks: from a solved CSV to another library and back."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from command_line import run

import hamshoot as hs
from hamshoot.command.cli import main

TOML = """\
[data]
file = "t.csv"
targets = ["kind"]
test_fraction = 0.2
[problem]
effective_depth = 2.3
weight_decay = 0.01
width = 4
[solve]
layers = 5
start = "path"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a table of three kinds, its PROBLEM.toml and its solution."""
    where = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    rows = [(a, b, "big" if a + b > 40 else "small, old" if a > 20 else "small")
            for a, b in zip(20 + 8 * rng.standard_normal(40), 10 + rng.standard_normal(40) * 9,
                            strict=True)]
    text = "size,weight,kind\n" + "\n".join(f'{a:.3f},{b:.3f},"{kind}"' for a, b, kind in rows)
    (where / "t.csv").write_text(text, encoding="utf-8")
    (where / "P.toml").write_text(TOML, encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["solve", str(where / "P.toml"), "-o", str(where / "out"), "--json"])
    assert stop.value.code == 0
    return where


def prediction(path, X):
    """Predictions and labels of an exported file, by the library that it is for."""
    if path.suffix == ".onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        kind = {"tensor(double)": "float64", "tensor(float)": "float32"}[
            session.get_inputs()[0].type]
        return session.run(None, {"X": X.astype(kind)})
    net = hs.LeakyResNet.from_safetensors(path) if path.suffix == ".safetensors" else \
        hs.LeakyResNet.from_torch(path)
    return net.predict(X), net.predict_class(X)


@pytest.mark.parametrize(("suffix", "library"), [(".onnx", "onnx"), (".pt", "torch"),
                                                 (".safetensors", "safetensors")])
@pytest.mark.parametrize("single", [False, True])
def test_a_result_is_exported_and_predicts_the_same(place, tmp_path, capsys, suffix, library,
                                                    single):
    pytest.importorskip(library)
    path = tmp_path / f"net{suffix}"
    code, out, err = run(capsys, "export", place / "out" / "solution.npz", "-o", path, "--json",
                         *(["--float32"] if single else []))
    assert (code, err) == (0, "")
    summary = json.loads(out)
    solution = hs.Solution.load(place / "out" / "solution.npz")
    X = np.concatenate([solution.problem.X, solution.problem.X_test])
    expected, labels = (getattr(solution.to_network(), name)(X)
                        for name in ("predict", "predict_class"))
    found, named = prediction(path, X)
    apart = float(np.max(np.abs(found - expected)))
    assert apart <= (1e-4 if single else 1e-12)
    np.testing.assert_array_equal(named, labels)
    told = summary["discrepancy"]
    assert (told["rows"], told["drawn"], told["labels"]) == (40, False, 0)
    assert apart <= 10 * told["largest"] + 1e-13
    assert summary["success"] is True
    assert summary["path"] == str(path)


def test_verify_holds_an_exported_network_against_its_problem(place, tmp_path, capsys):
    pytest.importorskip("safetensors")
    path = tmp_path / "net.safetensors"
    run(capsys, "export", place / "out" / "solution.npz", "-o", path)
    code, out, _ = run(capsys, "verify", path, "--problem", place / "P.toml", "--json")
    _, own, _ = run(capsys, "verify", place / "out" / "solution.npz", "--json")
    found, expected = json.loads(out), json.loads(own)
    assert code == 0
    assert found["holds"] is True
    for name in ("objective", "loss", "stationarity", "clarke_residual"):
        assert found[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-9)
    assert found["second_order"] == expected["second_order"]
    code, out, _ = run(capsys, "verify", place / "out" / "solution.npz", "--problem",
                       place / "P.toml")
    assert (code, out.splitlines()[0]) == (0, "Certificate: every bound holds")


def test_verify_says_where_a_network_is_off(place, tmp_path, capsys):
    pytest.importorskip("safetensors")
    net = hs.Solution.load(place / "out" / "solution.npz").to_network()
    worse = hs.LeakyResNet(**{**vars(net), "weights": 1.01 * net.weights})
    path = worse.to_safetensors(tmp_path / "worse").path
    code, out, _ = run(capsys, "verify", path, "--problem", place / "P.toml")
    assert code == 1
    assert out.startswith("Certificate: NOT certified: stationarity ")
    code, out, _ = run(capsys, "verify", path, "--problem", place / "P.toml", "--stationarity", 99)
    assert code == 0
    code, out, _ = run(capsys, "verify", path, "--problem", place / "P.toml", "--stationarity", 99,
                       "--set", "data.test_fraction=0.3", "--json")
    off = [bound for bound in json.loads(out)["bounds"] if not bound["holds"]]
    assert code == 1
    assert [bound["name"] for bound in off] == ["input scaling against the problem's"]
    assert off[0]["value"] > 1e-3


def test_formats_are_made_from_each_other(place, tmp_path, capsys):
    pytest.importorskip("safetensors")
    pytest.importorskip("torch")
    start = tmp_path / "a.safetensors"
    run(capsys, "export", place / "out" / "solution.npz", "-o", start)
    for source, target in (("a.safetensors", "b.pt"), ("b.pt", "c.safetensors")):
        code, out, _ = run(capsys, "export", tmp_path / source, "-o", tmp_path / target)
        assert code == 0
        assert "256 rows drawn like the inputs" in out
    assert (tmp_path / "c.safetensors").read_bytes() == start.read_bytes()


def test_a_solution_is_exported_at_other_layers_and_an_unconverged_one_says_so(
        place, tmp_path, capsys):
    pytest.importorskip("safetensors")
    solution = hs.Solution.load(place / "out" / "solution.npz")
    solution.replace(success=False, status=hs.Status.MAX_ITER).save(tmp_path / "s.npz")
    code, out, _ = run(capsys, "export", tmp_path / "s.npz", "-o", tmp_path / "n.safetensors",
                       "--layers", 9, "--steps", "adaptive")
    assert code == 0
    assert "has not converged (max_iter)" in out
    net = hs.LeakyResNet.from_safetensors(tmp_path / "n.safetensors")
    assert (net.layers, np.ptp(net.steps) > 1e-3) == (9, True)


def test_single_precision_that_loses_much_is_pointed_out(tmp_path, capsys):
    pytest.importorskip("safetensors")
    X = 1e8 + np.arange(12.0)[:, None]
    problem = hs.TrainingProblem(X, np.sin(X), effective_depth=2.0, width=2, weight_decay=0.1,
                                 standardize=True)
    net = hs.LeakyResNet.from_weights(problem, np.ones((4, 2, 3)))
    net.save(tmp_path / "net.npz")
    for flags, said in (([], False), (["--float32"], True)):
        code, out, _ = run(capsys, "export", tmp_path / "net.npz", "-o",
                           tmp_path / "n.safetensors", "--force", *flags)
        assert (code, "export in double precision" in out) == (0, said)


def test_what_cannot_be_exported_is_refused_in_one_line(place, tmp_path, capsys):
    pytest.importorskip("safetensors")
    solution = place / "out" / "solution.npz"
    (tmp_path / "there.safetensors").write_text("precious")
    (tmp_path / "folder.onnx").mkdir()
    endpoint = hs.TrainingProblem(np.eye(2), endpoint=np.eye(2), width=2, effective_depth=2.0,
                                  weight_decay=0.1)
    net = hs.LeakyResNet.from_weights(endpoint, np.zeros((4, 2, 3)))
    net.save(tmp_path / "hard.npz")
    cases = [
        ([solution, "-o", tmp_path / "a.txt"], "expected a file that ends with .onnx"),
        ([solution, "-o", tmp_path / "a"], "got 'no ending'"),
        ([solution, "-o", tmp_path / "there.safetensors"], "exists; --force overwrites it"),
        ([solution, "-o", tmp_path / "folder.onnx"], "got a directory"),
        ([solution, "-o", tmp_path / "nowhere" / "a.onnx"], "no such directory"),
        ([solution], "Missing option '-o'"),
        ([tmp_path / "nix.npz", "-o", tmp_path / "a.onnx"], "no such file"),
        ([tmp_path / "nix.pt", "-o", tmp_path / "a.onnx"], "no such file"),
        ([place / "t.csv", "-o", tmp_path / "a.onnx"], "not a complete .npz file"),
        ([tmp_path / "hard.npz", "-o", tmp_path / "a.safetensors"], "hard endpoint"),
        ([tmp_path / "hard.npz", "-o", tmp_path / "a.safetensors", "--layers", 5],
         "layers: only a solution is built with others"),
        ([solution, "-o", tmp_path / "a.safetensors", "--layers", 2], "layers"),
    ]
    for arguments, said in cases:
        code, out, err = run(capsys, "export", *arguments)
        assert (code, out) == (2, ""), said
        assert said in err
        assert len(err.splitlines()) == 1
    assert (tmp_path / "there.safetensors").read_text() == "precious"
    assert {p.name for p in tmp_path.iterdir()} == {"there.safetensors", "folder.onnx", "hard.npz"}


def test_verify_of_a_network_alone_asks_for_its_problem(place, tmp_path, capsys):
    pytest.importorskip("safetensors")
    net = hs.Solution.load(place / "out" / "solution.npz").to_network()
    for path in (net.save(tmp_path / "net.npz"), net.to_safetensors(tmp_path / "net").path):
        code, _, err = run(capsys, "verify", path)
        assert code == 2
        assert "holds a network alone; --problem PROBLEM.toml says which" in err
    for path, said in ((tmp_path / "nix.safetensors", "no such file"),
                       (tmp_path / "nix.onnx", "got '.onnx'"),
                       (place / "t.csv", "got '.csv'")):
        code, _, err = run(capsys, "verify", path, "--problem", place / "P.toml")
        assert (code, said in err, len(err.splitlines())) == (2, True, 1)


def test_a_missing_extra_is_one_line_and_exit_code_2(place, tmp_path):
    code = ("import sys; sys.modules['onnx'] = None; "
            "from hamshoot.command.cli import main; main(sys.argv[1:])")
    done = subprocess.run(
        [sys.executable, "-c", code, "export", place / "out" / "solution.npz", "-o",
         tmp_path / "a.onnx"], capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 2
    assert done.stderr.strip() == (
        'hamshoot: to_onnx needs onnx; install it with: pip install "hamshoot[onnx]"')
    assert list(tmp_path.iterdir()) == []
