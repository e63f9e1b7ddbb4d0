"""The safetensors file: exact, the same bytes each time, one string of metadata, also PyTorch's."""

import json

import numpy as np
import pytest
from problems import random_data

import hamshoot as hs

safetensors = pytest.importorskip("safetensors")


def small(activation="relu", **options):
    """A problem in units of its own, and a network of random weights on irregular steps."""
    problem = random_data(
        activation, sizes=(9, 3, 2), data_seed=0, units=((3, 2), (50, 10)),
        **{**dict(effective_depth=0.7 + 1.6, weight_decay=0.02, width=4, standardize=True, seed=1,
                  input_names=["a", "b", "größe"]), **options})
    steps = np.array([0.1, 0.3, 0.2, 0.25, 0.15])
    weights = np.random.default_rng(2).standard_normal((5, *problem.control_shape))
    return problem, hs.LeakyResNet.from_weights(problem, weights, steps)


@pytest.mark.parametrize("activation", ["relu", "smooth_relu", "linear"])
@pytest.mark.parametrize("bias", [True, False])
def test_what_is_read_back_is_the_network_to_the_last_bit(tmp_path, activation, bias):
    problem, net = small(activation, bias=bias)
    again = hs.LeakyResNet.from_safetensors(net.to_safetensors(tmp_path / "net"))
    assert again.save(tmp_path / "again.npz").read_bytes() == \
        net.save(tmp_path / "net.npz").read_bytes()
    np.testing.assert_array_equal(again.predict(problem.X), net.predict(problem.X))


def test_the_metadata_is_one_string_and_the_bytes_are_the_same(tmp_path):
    _, net = small()
    a, b = (net.to_safetensors(tmp_path / name).path for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    with safetensors.safe_open(a, framework="numpy") as file:
        metadata = file.metadata()
    assert list(metadata) == ["hamshoot"]
    words = json.loads(metadata["hamshoot"])
    assert words["input_names"] == ["a", "b", "größe"]
    assert (words["kind"], words["layers"], words["width"]) == ("network", 5, 4)


def test_in_single_precision_a_problem_has_the_exact_numbers(tmp_path):
    problem, net = small("smooth_relu", epsilon=0.3)
    path = net.to_safetensors(tmp_path / "net", "float32").path
    alone, known = (hs.LeakyResNet.from_safetensors(path, p) for p in (None, problem))
    assert alone.effective_depth == known.effective_depth == net.effective_depth
    assert alone.activation == known.activation == net.activation
    np.testing.assert_allclose(alone.steps, net.steps, rtol=1e-6)
    np.testing.assert_array_equal(known.input_scaling.scale, net.input_scaling.scale)
    np.testing.assert_array_equal(known.weights, net.weights.astype(np.float32))
    assert not np.array_equal(alone.input_scaling.scale, net.input_scaling.scale)


def test_a_file_that_pytorch_wrote_is_read(tmp_path):
    pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    problem, net = small()
    module = net.to_torch()
    save_file(module.state_dict(), tmp_path / "net.safetensors")
    again = hs.LeakyResNet.from_safetensors(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(again.predict(problem.X), net.predict(problem.X))
    assert again.input_names is None
    named = hs.LeakyResNet.from_safetensors(tmp_path / "net.safetensors", problem)
    assert named.input_names == ("a", "b", "größe")
    module.load_state_dict(load_file(net.to_safetensors(tmp_path / "other").path))


def test_weights_alone_will_do_with_a_problem(tmp_path):
    from safetensors.numpy import save_file

    problem, net = small()
    save_file({"weights": net.weights}, tmp_path / "w.safetensors")
    again = hs.LeakyResNet.from_safetensors(tmp_path / "w.safetensors", problem)
    np.testing.assert_array_equal(again.weights, net.weights)
    np.testing.assert_array_equal(again.steps, np.full(5, 0.2))
    with pytest.raises(ValueError, match="expected the array 'steps', it holds weights"):
        hs.LeakyResNet.from_safetensors(tmp_path / "w.safetensors")


def test_a_file_that_is_none_is_refused_in_one_sentence(tmp_path):
    from safetensors.numpy import save_file

    _, net = small()
    whole = net.to_safetensors(tmp_path / "net").path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-8])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("a,b\n1,2\n")
    arrays = {name: np.ones(3) for name in ("x", "y")}
    save_file(arrays, tmp_path / "other.safetensors", {"format": "pt"})
    save_file(arrays, tmp_path / "words.safetensors", {"hamshoot": "not JSON"})
    newer = {"hamshoot": json.dumps({"kind": "network", "format": 99})}
    save_file(arrays, tmp_path / "newer.safetensors", newer)
    cases = {"nix": "no such file", "cut": "not a complete safetensors file",
             "empty": "not a complete", "text": "not a complete",
             "other": "expected the array 'weights', it holds x, y",
             "words": "its metadata 'hamshoot' cannot be read",
             "newer": "format 99, this hamshoot reads format 1"}
    for name, said in cases.items():
        with pytest.raises(ValueError, match=said) as raised:
            hs.LeakyResNet.from_safetensors(tmp_path / f"{name}.safetensors")
        assert str(raised.value).startswith(str(tmp_path / f"{name}.safetensors"))
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "value", "said"), [
    ("weights", np.ones((5, 4, 7)), "weights: expected shape"),
    ("weights", np.full((5, 4, 5), np.nan), "weights: expected finite numbers"),
    ("weights", np.float64(1.0), "weights: expected shape"),
    ("steps", np.array([0.5, 0.6, 0.1, 0.1, 0.1]), "steps: expected numbers > 0 with sum 1"),
    ("steps", np.array([], np.float32), "steps"),
    ("input_scale", np.zeros(3), "input_scale: expected finite means and scales > 0"),
    ("target_mean", np.ones(3), "target_scaling: expected 2 means"),
    ("activation_code", np.array(8), "activation_code: expected one of"),
    ("epsilon", np.array(0.1), "only smooth_relu and smooth_leaky_relu have one"),
    ("effective_depth", np.ones(2), "effective_depth: expected one number, got 2"),
    ("effective_depth", np.array(-1.0), "effective_depth: expected a number > 0"),
    ("lift", np.ones((3, 3)), "lift: expected shape"),
])
def test_arrays_that_do_not_belong_together_are_refused(tmp_path, name, value, said):
    from safetensors.numpy import load_file, save_file

    _, net = small()
    arrays = load_file(net.to_safetensors(tmp_path / "net").path)
    save_file({**arrays, name: np.asarray(value)}, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match=said):
        hs.LeakyResNet.from_safetensors(tmp_path / "bad.safetensors")
