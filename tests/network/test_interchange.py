"""A network predicts elsewhere what it predicts here: every format, every σ, any steps."""

import json
import math
import subprocess
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest
from problems import ACTIVATIONS, between, random_data

import hamshoot as hs
from hamshoot.network.interchange import NAMES, arrays_of, description, drawn_rows, restored
from hamshoot.problem.readers import Scaling

STEPS = {"equidistant": np.full(6, 1 / 6), "irregular": np.array([0.05, 0.4, 0.1, 0.3, 0.15])}
LABELS = ("low", "middle, of both", "hoch – ü")


def network(activation="relu", steps="irregular", *, bias=True, classes=None, epsilon=0.1, seed=0):
    """A network of random weights, in units far from those it works in."""
    rng = np.random.default_rng(seed)
    problem = random_data(
        activation, sizes=(9, 4, 3), data_seed=1, units=((30, 20), (-5e4, 1e3)), epsilon=epsilon,
        effective_depth=2.3, weight_decay=0.02, width=5, standardize=True, bias=bias, seed=1,
        input_names=["a", "b", "c", "d"])
    rho = STEPS[steps]
    built = hs.LeakyResNet.from_weights(
        problem, rng.standard_normal((len(rho), *problem.control_shape)), rho)
    if classes is None:
        return built
    fields = {**vars(built), "classes": classes, "target_scaling": Scaling.identity(3)}
    return hs.LeakyResNet(**fields)


def sigma_alone(activation, epsilon=0.0):
    """A network that is σ itself: one neuron, one layer with ρL̃ = 1, W = (1, 0)."""
    return hs.LeakyResNet(
        weights=[[[1.0, 0.0]]], steps=[1.0], effective_depth=1.0,
        activation=hs.Activation(activation, epsilon), bias=True, lift=[[1.0]], readout=[[1.0]],
        input_scaling=Scaling.identity(1), target_scaling=Scaling.identity(1))


def by_torch(net, tmp_path, dtype):
    torch = pytest.importorskip("torch")
    module = net.to_torch(dtype)
    kind = getattr(torch, dtype)
    return (lambda X: module(torch.tensor(X, dtype=kind)).detach().numpy()), module.discrepancy


def by_onnx(net, tmp_path, dtype):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    exported = net.to_onnx(tmp_path / "net.onnx", dtype)
    session = onnxruntime.InferenceSession(exported.path)
    return (lambda X: session.run(["predictions"], {"X": X.astype(dtype)})[0]), exported.discrepancy


def by_safetensors(net, tmp_path, dtype):
    pytest.importorskip("safetensors")
    exported = net.to_safetensors(tmp_path / "net", dtype)
    assert exported.path.name == "net.safetensors"
    return hs.LeakyResNet.from_safetensors(exported).predict, exported.discrepancy


def by_torch_file(net, tmp_path, dtype):
    pytest.importorskip("torch")
    exported = net.to_torch_file(tmp_path / "net", dtype)
    return hs.LeakyResNet.from_torch(exported.path).predict, exported.discrepancy


WAYS = [by_torch, by_onnx, by_safetensors, by_torch_file]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("steps", "bias"), [("equidistant", True), ("irregular", False)])
def test_predictions_are_those_of_predict(tmp_path, way, activation, steps, bias):
    if way is by_onnx and activation == "gelu":
        pytest.skip("onnxruntime has no Erf in double precision")
    net = network(activation, steps, bias=bias)
    predict, discrepancy = way(net, tmp_path, "float64")
    for rows in (1, 7):  # any number of rows
        X = net.input_scaling.invert(np.random.default_rng(3).standard_normal((rows, 4)))
        expected, found = net.predict(X), predict(X)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-12,
                                   atol=1e-12 * net.target_scaling.scale.min())
    assert 0 <= discrepancy.relative <= 1e-12
    assert (discrepancy.rows, discrepancy.drawn, discrepancy.labels) == (256, True, None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_discrepancy_of_single_precision_is_the_one_that_is_met(tmp_path, way, activation):
    net = network(activation)
    predict, discrepancy = way(net, tmp_path, "float32")
    X = drawn_rows(net)
    apart = float(np.max(np.abs(predict(X) - net.predict(X)) / net.target_scaling.scale))
    assert 1e-9 < discrepancy.relative < 1e-4
    assert apart <= 3 * discrepancy.relative <= 30 * apart
    assert discrepancy.dtype == "float32"
    assert f"{discrepancy.largest:.1e}" in str(discrepancy)


def exact_smooth_relu(z, epsilon):
    """(z + √(z² + ε²))/2 with as many digits as it takes."""
    with localcontext() as context:
        context.prec = 1400
        z, epsilon = Decimal(z), Decimal(epsilon)
        return float((z + (z * z + epsilon * epsilon).sqrt()) / 2)


@pytest.mark.parametrize("way", [by_torch, by_onnx])
@pytest.mark.parametrize(("dtype", "epsilon", "sizes"), [
    ("float64", 0.1, (1e-300, 1e-9, 0.05, 3.0, 1e8, 1e150, 1e200)),
    ("float64", 1e-160, (1e-170, 1e-160, 1.0)),
    ("float32", 0.125, (1e-30, 1e-9, 0.0625, 3.0, 2e8, 1e19, 1e30)),
])
def test_smooth_relu_is_exact_in_both_tails(tmp_path, way, dtype, epsilon, sizes):
    net = sigma_alone("smooth_relu", epsilon)
    predict, _ = way(net, tmp_path, dtype)
    z = np.array([0.0, *sizes, *(-size for size in sizes)]).astype(dtype)[:, None]
    found = predict(z)[:, 0]
    expected = [exact_smooth_relu(float(v), float(np.array(epsilon, dtype))) for v in z[:, 0]]
    unit = np.finfo(dtype)
    for value, exact in zip(found, expected, strict=True):
        assert math.isclose(value, exact, rel_tol=8 * unit.eps, abs_tol=4 * unit.smallest_subnormal)


@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("way", [by_torch, by_onnx])
def test_the_other_activations_are_exact(tmp_path, way, activation):
    predict, _ = way(sigma_alone(activation), tmp_path, "float64")
    z = np.array([[-1e300], [-1.0], [-5e-324], [0.0], [5e-324], [1e300]])
    np.testing.assert_array_equal(predict(z), np.maximum(z, 0) if activation == "relu" else z)


def test_gelu_in_double_precision_is_no_onnx_file(tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match="GELU takes the operator Erf, which onnxruntime has"):
        network("gelu").to_onnx(tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_discrepancy_is_measured_on_rows_that_are_given(tmp_path):
    pytest.importorskip("safetensors")
    net = network(classes=LABELS)
    X = net.input_scaling.invert(np.random.default_rng(0).standard_normal((5, 4)))
    exported = net.to_safetensors(tmp_path / "a", "float32", X)
    assert (exported.discrepancy.rows, exported.discrepancy.drawn) == (5, False)
    assert exported.discrepancy.labels == 0
    assert str(exported).startswith(str(tmp_path / "a.safetensors"))
    with pytest.raises(ValueError, match="X: expected 4 columns"):
        net.to_safetensors(tmp_path / "b", "float32", X[:, :3])
    assert not (tmp_path / "b.safetensors").exists()


def test_what_single_precision_cannot_hold_is_refused(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("torch")
    net = sigma_alone("smooth_relu", 1e-60)
    for export in (net.to_torch, lambda dtype: net.to_onnx(tmp_path / "a.onnx", dtype)):
        with pytest.raises(ValueError, match="float32 cannot hold the network's epsilon"):
            export("float32")
    huge = hs.LeakyResNet(**{**vars(net), "weights": [[[1e300, 0.0]]]})
    with pytest.raises(ValueError, match="float32 cannot hold the network's weights, of up to 1e"):
        huge.to_torch("float32")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", "int32", "words", 7, object])
def test_another_dtype_is_refused(tmp_path, dtype):
    pytest.importorskip("safetensors")
    with pytest.raises(ValueError, match="dtype: expected float64 or float32"):
        network().to_safetensors(tmp_path / "a", dtype)


def test_a_dtype_may_come_from_numpy(tmp_path):
    pytest.importorskip("safetensors")
    exported = network().to_safetensors(tmp_path / "a", np.float32)
    assert exported.discrepancy.dtype == "float32"


def test_a_network_of_a_hard_endpoint_is_not_exported(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("safetensors")
    problem = between(np.ones((2, 3)), np.zeros((2, 3)), effective_depth=2.0)
    weights = np.zeros((4, *problem.control_shape))
    net = hs.LeakyResNet.from_weights(problem, weights)
    assert net.hard_endpoint
    exports = (net.to_torch, lambda: net.to_onnx(tmp_path / "a"),
               lambda: net.to_safetensors(tmp_path / "a"),
               lambda: net.to_torch_file(tmp_path / "a"))
    for export in exports:
        with pytest.raises(ValueError, match=r"hard endpoint.*predicts nothing"):
            export()
    assert list(tmp_path.iterdir()) == []
    assert hs.LeakyResNet.load(net.save(tmp_path / "net.npz")).hard_endpoint
    assert not hs.LeakyResNet.load(network().save(tmp_path / "other.npz")).hard_endpoint


def test_the_string_is_the_same_for_the_same_network_and_sorted():
    one, again = (description(network(classes=LABELS)) for _ in range(2))
    assert one == again
    words = json.loads(one)
    assert list(words) == sorted(words)
    assert tuple(words["classes"]) == LABELS
    assert words["effective_depth"] == 2.3
    assert description(network("linear")) != one


def test_the_table_names_every_array():
    assert set(arrays_of(network())) == set(NAMES)


def test_only_rounding_is_restored():
    exact = np.array([0.1, 0.2])
    assert restored(exact.astype(np.float32), exact) is exact
    other = np.array([0.1, 0.20001], np.float32)
    assert restored(other, exact) is other
    assert restored(np.array([0.1, 0.2 + 1e-17, 3.0]), exact).shape == (3,)
    assert restored(exact + 1e-9, exact)[0] != 0.1  # double precision is taken at its word


def test_what_is_missing_is_said_and_what_is_there_goes_without_the_rest(tmp_path):
    code = f"""
import sys
for name in ("torch", "onnx", "safetensors"):
    sys.modules[name] = None
import numpy as np, hamshoot as hs
problem = hs.teacher_problem((3, 2, 3), 5, width=3, effective_depth=2.0)
net = hs.LeakyResNet.from_weights(problem, np.zeros((4, 3, 4)))
path = {str(tmp_path / "net")!r}
for call in (net.to_torch, lambda: net.to_onnx(path), lambda: net.to_safetensors(path),
             lambda: hs.LeakyResNet.from_safetensors(path),
             lambda: hs.LeakyResNet.from_torch(path), lambda: net.to_torch_file(path)):
    try:
        call()
    except ImportError as error:
        print(error)
net.save(path)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert [line.split(" needs ")[0] for line in said] == [
        "to_torch", "to_onnx", "to_safetensors", "from_safetensors", "from_torch", "to_torch_file"]
    assert said[0] == 'to_torch needs PyTorch; install it with: pip install "hamshoot[torch]"'
    assert said[1] == 'to_onnx needs onnx; install it with: pip install "hamshoot[onnx]"'
    assert 'pip install "hamshoot[safetensors]"' in said[2]
    assert [path.name for path in tmp_path.iterdir()] == ["net.npz"]
