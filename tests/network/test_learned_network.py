"""Networks whose lift and readout were learned, elsewhere and back."""

from functools import cache

import numpy as np
import pytest

import hamshoot as hs

torch = pytest.importorskip("torch")


@cache
def solved():
    problem = hs.teacher_problem(
        (3, 1, 3), 8, width=4, effective_depth=2.0, weight_decay=5e-3, seed=1, test_samples=5,
        activation="tanh", lift_decay=0.01, readout_decay=0.02)
    return hs.solve(problem, layers=5)


def test_in_pytorch_they_are_parameters_and_j_is_stationary_in_all_three():
    found = solved()
    problem, module = found.problem, found.to_network().to_torch()
    assert [name for name, _ in module.named_parameters()] == ["weights", "lift", "readout"]
    J = module.objective(problem.X, problem.Y, problem.weight_decay)
    assert J.item() == pytest.approx(found.objective, rel=1e-12)
    J.backward()
    assert max(value.grad.abs().max().item() for value in module.parameters()) < 1e-10
    half = hs.LeakyResNet.from_weights(problem.replace(readout_decay=None), found.weights)
    assert [name for name, _ in half.to_torch().named_parameters()] == ["weights", "lift"]


def test_trained_in_pytorch_they_come_back_and_are_finished_here():
    found = solved()
    problem, module = found.problem, found.to_network().to_torch()
    with torch.no_grad():
        for value in module.parameters():
            value += 0.01 * torch.randn(value.shape, dtype=value.dtype,
                                        generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        module.objective(problem.X, problem.Y, problem.weight_decay).backward()
        optimizer.step()
    network = hs.LeakyResNet.from_torch(module)
    assert (network.lift_decay, network.readout_decay) == (0.01, 0.02)
    assert not hs.certify(network, problem).holds
    better = network.polish(problem)
    assert better.objective == pytest.approx(found.objective, rel=1e-9)
    assert hs.certify(better).holds


@pytest.mark.parametrize("form", ["npz", "safetensors", "pt"])
def test_files_bring_back_maps_and_decays(form, tmp_path):
    network = solved().to_network()
    if form == "npz":
        network.save(tmp_path / "net.npz")
        again = hs.LeakyResNet.load(tmp_path / "net.npz")
    elif form == "safetensors":
        pytest.importorskip("safetensors")
        network.to_safetensors(tmp_path / "net.safetensors")
        again = hs.LeakyResNet.from_safetensors(tmp_path / "net.safetensors")
    else:
        network.to_torch_file(tmp_path / "net.pt")
        again = hs.LeakyResNet.from_torch(tmp_path / "net.pt")
    np.testing.assert_array_equal(again.lift, network.lift)
    np.testing.assert_array_equal(again.readout, network.readout)
    assert (again.lift_decay, again.readout_decay) == (0.01, 0.02)
    assert hs.certify(again, solved().problem).holds


def test_onnx_predicts_with_the_maps_learned(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    found = solved()
    found.to_network().to_onnx(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    X = np.asarray(found.problem.X_test)
    predicted = session.run(None, {session.get_inputs()[0].name: X})[0]
    expected = found.to_network().predict(X)
    np.testing.assert_allclose(predicted, expected, atol=1e-12 * np.abs(expected).max())
    by_hand = found.problem.lift @ found.problem.input_scaling.apply(X).T
    np.testing.assert_array_equal(found.to_network().representations(X)[0], by_hand)
