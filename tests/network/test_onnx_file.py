"""The ONNX file: valid, self-contained, the same bytes each time, run by another runtime."""

import json
import subprocess
import sys

import numpy as np
import pytest
from problems import random_data

import hamshoot as hs
from hamshoot.network import onnx_file
from hamshoot.problem.readers import Scaling

onnx = pytest.importorskip("onnx")
LABELS = ("klein", "groß", "x,y")


def classifier(activation="relu", seed=2):
    """A network of random weights with three classes."""
    problem = random_data(activation, sizes=(9, 3, 3), data_seed=0, units=((3, 2), (0, 1)),
                          effective_depth=2.0, weight_decay=0.02, width=4, seed=1)
    weights = np.random.default_rng(seed).standard_normal((5, *problem.control_shape))
    net = hs.LeakyResNet.from_weights(problem, weights)
    fields = {**vars(net), "classes": LABELS, "target_scaling": Scaling.identity(3)}
    return problem, hs.LeakyResNet(**fields)


@pytest.mark.parametrize("activation", ["relu", "smooth_relu", "linear"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_checker_passes_it_with_shapes_inferred(tmp_path, activation, dtype):
    _, net = classifier(activation)
    path = net.to_onnx(tmp_path / "net", dtype).path
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert path.name == "net.onnx"
    (given,), (numbers, labels) = model.graph.input, model.graph.output
    batch = given.type.tensor_type.shape.dim[0]
    assert (batch.dim_param, batch.HasField("dim_value")) == ("batch", False)
    assert given.type.tensor_type.elem_type == getattr(onnx.TensorProto, dtype.replace(
        "float64", "double").upper().replace("FLOAT32", "FLOAT"))
    assert (given.name, numbers.name, labels.name) == ("X", "predictions", "label")


def test_labels_are_those_of_predict_class_also_of_equal_outputs(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    problem, net = classifier()
    for one in (net, hs.LeakyResNet(**{**vars(net), "readout": 0 * net.readout})):
        session = onnxruntime.InferenceSession(one.to_onnx(tmp_path / "net.onnx").path)
        labels, scores = session.run(["label", "predictions"], {"X": problem.X})
        np.testing.assert_array_equal(labels, one.predict_class(problem.X))
        np.testing.assert_allclose(scores, one.predict(problem.X), rtol=1e-12, atol=1e-12)
    assert len(set(net.predict_class(problem.X))) > 1


def test_the_bytes_are_the_same_for_the_same_network(tmp_path):
    for name in "ab":
        classifier()[1].to_onnx(tmp_path / name)
    classifier(seed=3)[1].to_onnx(tmp_path / "c")
    a, b, c = ((tmp_path / f"{name}.onnx").read_bytes() for name in "abc")
    assert a == b != c


def test_the_metadata_say_what_it_is_and_how_far_it_is_off(tmp_path):
    _, net = classifier("smooth_relu")
    exported = net.to_onnx(tmp_path / "net", "float32")
    model = onnx.load(exported)
    props = {prop.key: prop.value for prop in model.metadata_props}
    words, discrepancy = json.loads(props["hamshoot"]), json.loads(props["discrepancy"])
    assert (model.producer_name, model.producer_version) == ("hamshoot", hs.__version__)
    assert (words["activation"], words["epsilon"]) == ("smooth_relu", net.activation.epsilon)
    assert tuple(words["classes"]) == LABELS
    assert discrepancy["largest"] == exported.discrepancy.largest > 0


def test_it_is_written_without_torch_and_runs_without_hamshoot(tmp_path):
    pytest.importorskip("onnxruntime")
    problem, net = classifier()
    net.save(tmp_path / "net.npz")
    np.save(tmp_path / "X.npy", problem.X)
    write = ("import sys; sys.modules['torch'] = None; import hamshoot as hs; "
             "print(hs.LeakyResNet.load('net.npz').to_onnx('net.onnx'))")
    use = ("import sys; sys.modules['hamshoot'] = None; import numpy as np, onnxruntime; "
           "s = onnxruntime.InferenceSession('net.onnx'); "
           "np.save('Y.npy', s.run(None, {'X': np.load('X.npy')})[0])")
    for code in (write, use):
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=100)
    np.testing.assert_allclose(np.load(tmp_path / "Y.npy"), net.predict(problem.X), rtol=1e-12)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    _, net = classifier()
    path = net.to_onnx(tmp_path / "net.onnx").path
    before = path.read_bytes()
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"to_onnx: expected a network of at most.*safetensors"):
        net.to_onnx(path)
    monkeypatch.undo()
    with pytest.raises(OSError, match="No such directory"):
        net.to_onnx(tmp_path / "nowhere" / "net.onnx")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]
