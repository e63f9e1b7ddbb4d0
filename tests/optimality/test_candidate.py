"""Any network is certified as a solution is: what it is, where it is off, and by how much."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from problems import between, teacher

import hamshoot as hs
from hamshoot.optimality import layers as checked
from hamshoot.optimality.candidate import candidate_in, network_in
from hamshoot.theory import layers as discrete
from hamshoot.theory.clarke import clarke_residual

ROWS = ("objective", "loss", "parameter_norm", "stationarity", "clarke_residual", "hamiltonian",
        "hamiltonian_drift", "kinks", "idle_kinks", "min_eigenvalue")


@pytest.fixture(scope="module")
def solved():
    """A ReLU network at a strict minimum, with activations on the kink."""
    return hs.solve(teacher(samples=20, seed=0),
                    hs.DirectSingleShooting(layers=8, starts=1, reheats=0))


@pytest.fixture(scope="module")
def proof(solved):
    return hs.certify(solved)


@pytest.fixture(scope="module")
def trained(solved):
    """The same network after some noise: near a minimum, at none."""
    noise = np.random.default_rng(0).standard_normal(solved.weights.shape)
    return hs.LeakyResNet.from_weights(solved.problem, solved.weights + 1e-3 * noise)


def kinds(solved, tmp_path):
    """The network of a solution in every form that there is."""
    net = solved.to_network()
    yield "network", net
    yield "weights", solved.weights
    yield "list", solved.weights.tolist()
    yield "solution", solved
    yield "network file", net.save(tmp_path / "net.npz")
    yield "solution file", solved.save(tmp_path / "solution.npz")
    try:
        import torch
    except ImportError:
        pass
    else:
        yield "module", net.to_torch()
        yield "wrapped module", torch.nn.Sequential(net.to_torch())
        yield "state_dict", net.to_torch().state_dict()
        yield "parameter", net.to_torch().weights
        yield "torch file", str(net.to_torch().save(tmp_path / "net.pt"))
    try:
        import safetensors  # noqa: F401
    except ImportError:
        pass
    else:
        yield "safetensors", net.to_safetensors(tmp_path / "net").path


def test_every_kind_of_candidate_has_the_rows_of_the_solution(solved, proof, tmp_path):
    assert proof.kinks > 0
    for kind, candidate in kinds(solved, tmp_path):
        found = hs.certify(candidate, solved.problem)
        assert found.holds, (kind, found.reasons)
        for row in ROWS:
            assert getattr(found, row) == pytest.approx(getattr(proof, row), rel=1e-6, abs=1e-9), (
                kind, row)
        assert found.second_order == proof.second_order


def test_a_network_that_is_not_stationary_is_told_by_how_much(solved, trained):
    problem = solved.problem
    found = hs.certify(trained, problem)
    assert not found.holds
    assert found.reasons[0].startswith(f"stationarity {found.stationarity:.2e}, expected at most")
    assert [bound.name for bound in found.failures] == ["stationarity"]
    A = discrete.roll_out(problem, trained.weights, trained.steps)
    slopes = clarke_residual(problem, A, trained.weights, trained.steps).slopes
    _, gradient = discrete.costates(problem, A, trained.weights, trained.steps, slopes=slopes)
    # The gradient against finite differences of J, as everything rests on it.
    scale = problem.weight_decay / problem.effective_depth
    h, k = 1e-6, (3, 1, 2)
    sides = []
    for sign in (1, -1):
        weights = trained.weights.copy()
        weights[k] += sign * h
        sides.append(hs.LeakyResNet.from_weights(problem, weights).objective(problem))
    assert (sides[0] - sides[1]) / (2 * h) == pytest.approx(
        scale * trained.steps[3] * gradient[k], rel=1e-5)
    expected = [np.linalg.norm(g) / max(1, np.linalg.norm(w))
                for g, w in zip(gradient, trained.weights, strict=True)]
    np.testing.assert_allclose(found.layer_stationarity, expected, rtol=1e-9)
    assert found.stationarity == max(found.layer_stationarity) > 1e-3
    assert f"most in layer {np.argmax(expected) + 1}" in repr(found)


def test_activations_that_single_precision_takes_off_the_kink_are_counted(solved, proof):
    rounded = solved.weights.astype(np.float32).astype(float)
    found = hs.certify(rounded, solved.problem)
    assert proof.near_kinks == 0
    assert found.near_kinks > 0
    assert found.kinks + found.near_kinks == proof.kinks
    assert found.objective == pytest.approx(proof.objective, rel=1e-6)
    assert f"near kinks    {found.near_kinks} activation" in repr(found)
    assert "near kinks" not in repr(proof)
    again = hs.LeakyResNet.from_weights(solved.problem, rounded).polish(solved.problem)
    assert hs.certify(again.to_network(), solved.problem).kinks == proof.kinks


def test_the_bound_is_the_one_asked_for(solved, trained):
    loose = hs.certify(trained, solved.problem, stationarity=100.0)
    assert loose.holds
    assert not hs.certify(trained, solved.problem, stationarity=1e-12).holds


def test_a_candidate_records_nothing_and_is_held_to_nothing_recorded(solved, trained):
    names = [bound.name for bound in hs.certify(trained, solved.problem).bounds]
    assert names[0] == "stationarity"
    assert not any("recorded" in name for name in names)
    assert any("recorded" in bound.name for bound in hs.certify(solved).bounds)


def test_maps_and_scalings_that_are_not_the_problems_are_measured(solved):
    problem, net = solved.problem, solved.to_network()
    other = problem.replace(X=1.01 * problem.X, Y=problem.Y + 0.5)
    found = hs.certify(net, other)
    off = {bound.name: bound.value for bound in found.failures}
    assert set(off) == {"input scaling against the problem's", "target scaling against the "
                        "problem's"}
    assert off["input scaling against the problem's"] == pytest.approx(0.01 / 1.01, rel=0.2)
    turned = hs.LeakyResNet(**{**vars(net), "lift": -net.lift, "readout": 1.5 * net.readout})
    off = {bound.name: bound.value for bound in hs.certify(turned, problem).failures}
    assert off["lift against the problem's"] == pytest.approx(2.0)
    assert off["readout against the problem's"] == pytest.approx(0.5)


def test_classes_in_another_order_are_noticed():
    Y = np.eye(2)[[0, 1, 0, 1, 1]]
    problem = hs.TrainingProblem(np.arange(10.0).reshape(5, 2), Y, effective_depth=2.0, width=2,
                                 weight_decay=0.1, classes=["a", "b"])
    net = hs.LeakyResNet.from_weights(problem, np.ones((4, 2, 3)))
    swapped = hs.LeakyResNet(**{**vars(net), "classes": ("b", "a")})
    failures = [bound for bound in hs.certify(swapped, problem).failures if "classes" in bound.name]
    assert [bound.value for bound in failures] == [2.0]
    assert not any("classes" in b.name for b in hs.certify(net, problem).failures)


def test_a_network_worse_than_none_and_a_collapsed_one_are_named(solved):
    problem = solved.problem
    wild = 30 * np.random.default_rng(1).standard_normal(solved.weights.shape)
    found = hs.certify(wild, problem, stationarity=np.inf)
    assert [bound.name for bound in found.failures] == ["J against the network without weights"]
    without = hs.LeakyResNet.from_weights(problem, 0 * wild).objective(problem)
    assert found.failures[0].most == pytest.approx(without, rel=1e-9)
    nothing = hs.certify(0 * wild, problem, stationarity=np.inf)
    assert nothing.failures == ()
    assert nothing.reasons[0].startswith("collapsed to the same output for all samples")


def test_a_stationary_saddle_is_refuted_and_the_way_down_is_shown():
    """The origin of a deep linear network: J = (ρ²w_2w_1 − 1)² + (λ/2L̃)ρ(w_1² + w_2²), ρL̃ = 1."""
    problem = hs.TrainingProblem(np.ones((1, 1)), np.ones((1, 1)), effective_depth=2.0, width=1,
                                 weight_decay=0.01, activation="linear", bias=False)
    found = hs.certify(np.zeros((2, 1, 1)), problem)
    assert (found.stationarity, found.objective) == (0.0, 1.0)
    assert ": saddle of the network" in found.second_order  # of a collapsed one
    assert found.second_order in found.reasons
    assert found.descent
    for length, change in found.descent:
        w_1, w_2 = (length * found.direction).ravel()
        J = (w_2 * w_1 / 4 - 1) ** 2 + 0.01 / 4 * (w_1**2 + w_2**2) / 2
        assert pytest.approx(J - 1, rel=1e-6) == change
        assert change < 0


def test_steps_of_weights_are_taken(solved):
    steps = np.array([0.05, 0.2, 0.15, 0.1, 0.1, 0.1, 0.1, 0.2])
    found = hs.certify(solved.weights, solved.problem, steps=steps)
    net = hs.LeakyResNet.from_weights(solved.problem, solved.weights, steps)
    assert found.objective == pytest.approx(net.objective(solved.problem), rel=1e-12)
    assert found.objective == hs.certify(net, solved.problem).objective
    with pytest.raises(ValueError, match="steps: expected none with a network"):
        hs.certify(net, solved.problem, steps=steps)


@pytest.mark.parametrize("activation", ["smooth_relu", "linear"])
def test_smooth_networks_are_certified(activation):
    problem = teacher(activation, samples=8, width=3, effective_depth=2.0, weight_decay=0.05,
                      seed=0)
    solution = hs.solve(problem, hs.DirectSingleShooting(layers=5, starts=1, reheats=0))
    found = hs.certify(solution.to_network(), problem)
    assert found.holds
    assert found.kinks == 0
    assert f"gradient      {found.clarke_residual:.2e}" in repr(found)


def test_of_large_networks_nothing_is_stored(solved, proof, monkeypatch):
    from hamshoot.theory import blockwise

    monkeypatch.setattr(blockwise, "MOST_STORED", 10)
    monkeypatch.setattr(checked, "BLOCK_NUMBERS", 200)
    found = hs.certify(solved.to_network(), solved.problem, second_order=False)
    assert found.objective == pytest.approx(proof.objective, rel=1e-12)
    assert len(found.layer_stationarity) == 8
    assert found.stationarity >= proof.stationarity  # an upper bound, without the best slopes


def test_json_is_strict_and_complete(solved, trained, proof):
    for found in (hs.certify(trained, solved.problem), proof):
        values = json.loads(found.to_json())
        assert values == json.loads(json.dumps(found.to_dict(), allow_nan=False))
        for name in ("objective", "stationarity", "clarke_residual", "second_order", "holds",
                     "reasons", "bounds", "layer_stationarity"):
            assert name in values
        assert values["holds"] is found.holds
        off = [b for b in values["bounds"] if not b["holds"]]
        assert [(b["name"], b["value"]) for b in off] == [(b.name, b.value)
                                                         for b in found.failures]


# -- what is refused -------------------------------------------------------------------------------


def test_what_is_no_candidate_is_refused_in_one_sentence(solved, tmp_path):
    problem, net = solved.problem, solved.to_network()
    bad = {
        "expected the problem that the network is to solve": lambda: hs.certify(net),
        "steps: expected none without a problem": lambda: hs.certify(solved, steps=[1.0]),
        "problem: expected a TrainingProblem, got LeakyResNet": lambda: hs.certify(solved, net),
        "got a hard endpoint, whose multiplier": lambda: hs.certify(
            net, between(np.ones((4, 3)), np.zeros((4, 3)), effective_depth=3.0)),
        "weights: expected shape": lambda: hs.certify(np.ones((3, 2, 2)), problem),
        "expected a LeakyResNet, weights": lambda: hs.certify(object(), problem),
        "weights: expected finite numbers": lambda: hs.certify(np.nan * solved.weights, problem),
        "no such file": lambda: hs.certify(tmp_path / "nix.safetensors", problem),
        "got '.onnx'": lambda: hs.certify("net.onnx", problem),
        "got 'no ending'": lambda: hs.certify("net", problem),
        "expected effective_depth 2.5": lambda: hs.certify(net, problem.replace(
            effective_depth=2.5)),
        "expected activation linear as the problem has, got relu": lambda: hs.certify(
            net, problem.replace(activation="linear")),
        "expected width 5 as the problem has, got 4": lambda: hs.certify(
            net, problem.replace(width=5)),
        "expected inputs 3 as the problem has, got 4": lambda: hs.certify(
            net, problem.replace(X=problem.X[:, :3])),
        "expected bias False": lambda: hs.certify(net, problem.replace(bias=False)),
    }
    for said, call in bad.items():
        with pytest.raises(ValueError, match=said) as raised:
            call()
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of what it cannot make out
def test_damaged_files_are_refused_in_one_sentence_or_read(solved, tmp_path):
    """Whatever bytes are lost or changed: nothing but a ValueError of one line comes out."""
    problem, net = solved.problem, solved.to_network()
    files = [net.save(tmp_path / "net.npz")]
    for library, write in (("safetensors", net.to_safetensors), ("torch", net.to_torch_file)):
        if find_spec(library) is not None:
            files.append(write(tmp_path / "net").path)
    rng = np.random.default_rng(0)
    for path in files:
        whole, said = path.read_bytes(), []
        for k in range(40):
            damaged = bytearray(whole)
            if k % 4 == 0:
                damaged = damaged[: rng.integers(len(whole))]
            for place in rng.integers(0, max(1, min(900, len(damaged))), 3):
                damaged[place:place + 1] = bytes([rng.integers(256)])
            path.write_bytes(damaged)
            try:
                hs.certify(path, problem, second_order=False)
            except ValueError as error:
                said.append(str(error))
        assert len(said) > 20
        assert [sentence for sentence in said if len(sentence.splitlines()) != 1] == []


def test_a_smooth_network_of_another_epsilon_is_refused():
    one, other = (teacher("smooth_relu", epsilon=e) for e in (0.1, 0.2))
    net = hs.LeakyResNet.from_weights(one, np.ones((4, *one.control_shape)))
    with pytest.raises(ValueError, match=r"expected epsilon 0.2 as the problem has, got 0.1"):
        hs.certify(net, other)


def test_a_continuous_path_is_checked_in_its_own_problem():
    problem = teacher("linear", samples=4, width=2, effective_depth=2.0)
    path = hs.solve(problem, hs.IndirectShooting(start="path"))
    with pytest.raises(ValueError, match="expected none with a continuous path"):
        hs.certify(path, problem)
    assert hs.certify(path.to_network(), problem).stationarity > 0


def test_what_a_candidate_becomes_is_a_solution_of_its_problem(solved):
    made = candidate_in(solved.weights, solved.problem)
    assert made.solution.problem is solved.problem
    np.testing.assert_allclose(made.solution.representations, solved.representations, atol=1e-12)
    with pytest.raises(ValueError, match="problem: expected the problem that the weights belong"):
        network_in(solved.weights, None)
