"""The network as a torch module: trained by its objective, saved, loaded, and read back."""

import copy
import io

import numpy as np
import pytest
from problems import ACTIVATIONS, random_data

import hamshoot as hs
from hamshoot.problem.readers import Scaling
from hamshoot.theory import layers as discrete

torch = pytest.importorskip("torch")


def small(activation="smooth_relu", *, bias=True, **options):
    """A problem in units of its own, and a network of random weights on irregular steps."""
    problem = random_data(
        activation, sizes=(9, 3, 2), data_seed=0, units=((3, 2), (50, 10)),
        **{**dict(effective_depth=0.7 + 1.6, weight_decay=0.02, width=4, standardize=True,
                  bias=bias, seed=1), **options})
    steps = np.array([0.1, 0.3, 0.2, 0.25, 0.15])
    weights = np.random.default_rng(2).standard_normal((5, *problem.control_shape))
    return problem, hs.LeakyResNet.from_weights(problem, weights, steps)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_its_objective_and_gradient_are_those_of_the_theory(activation, bias):
    problem, net = small(activation, bias=bias)
    module = net.to_torch()
    J = module.objective(problem.X, problem.Y, problem.weight_decay)
    J.backward()
    A = discrete.roll_out(problem, net.weights, net.steps)
    expected = discrete.objective(problem, A[-1], net.weights, net.steps)[0]
    _, gradient = discrete.costates(problem, A, net.weights, net.steps)
    scale = problem.weight_decay / problem.effective_depth
    assert J.item() == pytest.approx(expected, rel=1e-13)
    assert J.item() == pytest.approx(net.objective(problem), rel=1e-13)
    np.testing.assert_allclose(module.weights.grad.numpy(),
                               scale * net.steps[:, None, None] * gradient, rtol=1e-9, atol=1e-13)


def test_the_slope_of_its_smooth_relu_is_exact_in_both_tails_and_at_zero():
    problem, net = small("smooth_relu")
    z = torch.tensor([-1e150, -1e8, -0.3, -1e-30, 0.0, 1e-30, 0.3, 1e8, 1e150],
                     dtype=torch.float64, requires_grad=True)
    net.to_torch().sigma(z).sum().backward()
    np.testing.assert_allclose(z.grad.numpy(), problem.sigma.slope(z.detach().numpy()), rtol=1e-14)
    assert z.grad[4] == 0.5
    assert z.grad[0] >= 0


def test_training_changes_the_weights_alone_and_lowers_the_objective():
    problem, net = small("relu")
    module = net.to_torch()
    assert [name for name, _ in module.named_parameters()] == ["weights"]
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for _ in range(50):
        optimizer.zero_grad()
        J = module.objective(problem.X, problem.Y, problem.weight_decay)
        J.backward()
        optimizer.step()
    trained = hs.LeakyResNet.from_torch(module)
    assert trained.objective(problem) < 0.9 * net.objective(problem)
    changed = [name for name, value in module.state_dict().items()
               if not torch.equal(value, before[name])]
    assert changed == ["weights"]
    np.testing.assert_array_equal(trained.predict(problem.X), hs.LeakyResNet.from_torch(
        module.state_dict()).predict(problem.X))


def test_a_module_read_back_is_the_network():
    problem, net = small()
    again = hs.LeakyResNet.from_torch(net.to_torch())
    for name in ("weights", "steps", "lift", "readout"):
        np.testing.assert_array_equal(getattr(again, name), getattr(net, name))
    assert (again.effective_depth, again.activation, again.bias) == (
        net.effective_depth, net.activation, net.bias)
    assert again.input_names == net.input_names
    np.testing.assert_array_equal(again.predict(problem.X), net.predict(problem.X))


def test_of_single_precision_only_the_weights_stay_rounded():
    """Also after .float(), .double() and .half()."""
    _, net = small()
    for module in (net.to_torch("float32"), net.to_torch().float(),
                   net.to_torch(torch.float32).double(), net.to_torch().half()):
        again = hs.LeakyResNet.from_torch(module)
        np.testing.assert_allclose(again.weights, net.weights, rtol=1e-3, atol=1e-3)
        assert again.steps.sum() == pytest.approx(1, abs=1e-15)
    again = hs.LeakyResNet.from_torch(net.to_torch("float32"))
    np.testing.assert_array_equal(again.weights, net.weights.astype(np.float32))
    np.testing.assert_array_equal(again.steps, net.steps)
    np.testing.assert_array_equal(again.input_scaling.mean, net.input_scaling.mean)
    assert again.effective_depth == net.effective_depth


def test_a_state_dict_goes_into_another_module_and_its_settings_with_it():
    problem, net = small()
    module = net.to_torch()
    _, other = small("smooth_relu", seed=7, effective_depth=1.9)
    target = hs.LeakyResNet(**{**vars(other), "weights": 0 * other.weights}).to_torch()
    X = torch.tensor(problem.X)
    assert not torch.allclose(target(X), module(X))
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    target.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(target(X), module(X))
    again = hs.LeakyResNet.from_torch(target)
    assert again.effective_depth == net.effective_depth
    np.testing.assert_array_equal(again.readout, net.readout)


def test_a_state_dict_of_another_activation_or_size_is_refused():
    _, net = small("relu")
    _, linear = small("linear")
    _, plain = small("relu", bias=False)
    with pytest.raises(RuntimeError, match="activation_code: expected 1, relu, got 0"):
        net.to_torch().load_state_dict(linear.to_torch().state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for weights"):
        net.to_torch().load_state_dict(plain.to_torch().state_dict())


def test_it_is_copied_pickled_and_wrapped():
    problem, net = small()
    module, X = net.to_torch(), torch.tensor(problem.X)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(module), torch.load(buffer, weights_only=False),
                  torch.nn.Sequential(module)):
        assert torch.equal(other(X), module(X))
        np.testing.assert_array_equal(hs.LeakyResNet.from_torch(other).weights, net.weights)
    for wrapper in (torch.nn.Sequential(module), torch.compile(module, backend="eager")):
        assert torch.equal(wrapper(X), module(X))
        again = hs.LeakyResNet.from_torch(wrapper.state_dict())
        np.testing.assert_array_equal(again.predict(problem.X), net.predict(problem.X))
    assert "3 → 2, layers=5, width=4, smooth_relu, bias=True, float64" in repr(module)


def test_rows_of_any_leading_shape_and_precision_are_taken():
    problem, net = small()
    module = net.to_torch("float32")
    X = torch.tensor(problem.X[:6], dtype=torch.float32)
    assert module(X.reshape(2, 3, 3)).shape == (2, 3, 2)
    assert torch.equal(module(X.reshape(2, 3, 3)).reshape(6, 2), module(X))
    assert module(torch.ones((4, 3), dtype=torch.int64)).shape == (4, 2)
    with pytest.raises(ValueError, match=r"X: expected 3 columns as in training, got shape \(6, 2"):
        module(X[:, :2])


def test_labels_are_those_of_predict_class():
    problem, net = small("relu")
    fields = {**vars(net), "classes": ("yes", "no"), "target_scaling": Scaling.identity(2)}
    classifier = hs.LeakyResNet(**fields)
    labels = classifier.to_torch().predict_class(torch.tensor(problem.X))
    assert labels == list(classifier.predict_class(problem.X))
    assert set(labels) == {"yes", "no"}
    with pytest.raises(ValueError, match="not trained on classes"):
        net.to_torch().predict_class(torch.tensor(problem.X))


# -- files -----------------------------------------------------------------------------------------


def test_a_file_holds_tensors_alone_and_the_names(tmp_path):
    _, net = small("relu", input_names=["a", "b", "c"])
    path = net.to_torch().save(tmp_path / "net")
    assert path.name == "net.pt"
    content = torch.load(path, weights_only=True)
    assert set(content) == {"state_dict", "hamshoot"}
    assert all(isinstance(value, torch.Tensor) for value in content["state_dict"].values())
    again = hs.LeakyResNet.from_torch(path)
    assert again.input_names == ("a", "b", "c")
    np.testing.assert_array_equal(again.weights, net.weights)
    torch.save(net.to_torch().state_dict(), tmp_path / "state.pt")
    np.testing.assert_array_equal(hs.LeakyResNet.from_torch(tmp_path / "state.pt").lift, net.lift)


def test_a_file_that_is_none_is_refused_in_one_sentence(tmp_path):
    _, net = small()
    path = net.to_torch().save(tmp_path / "net.pt")
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:500])
    (tmp_path / "text.pt").write_text("a,b\n1,2\n")
    torch.save(net.to_torch(), tmp_path / "code.pt")  # pickled code is not run
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"bias": torch.ones(3)}, tmp_path / "other.pt")
    for name, said in {"nix": "no such file", "cut": "truncated", "text": "of another kind",
                       "code": "not a PyTorch file of tensors alone", "list": "got list",
                       "other": "expected the array 'weights', it holds bias"}.items():
        with pytest.raises(ValueError, match=said) as raised:
            hs.LeakyResNet.from_torch(tmp_path / f"{name}.pt")
        assert len(str(raised.value).splitlines()) == 1
        assert str(raised.value).startswith(str(tmp_path / f"{name}.pt"))


# -- modules of one's own --------------------------------------------------------------------------


class Own(torch.nn.Module):
    """A Leaky ResNet as one would write it: linear layers, buffers, a loop."""

    def __init__(self, problem, layers=4, leak=None):
        super().__init__()
        w = problem.width
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(w, w, bias=problem.bias) for _ in range(layers)).double()
        self.problem, self.leak = problem, problem.effective_depth if leak is None else leak

    def forward(self, X):
        p = self.problem
        lift, readout = (torch.tensor(np.array(M)) for M in (p.lift, p.readout))
        mean, scale = (torch.tensor(np.array(v)) for v in vars(p.input_scaling).values())
        A, rho = ((X - mean) / scale) @ lift.T, 1 / len(self.layers)
        for layer in self.layers:
            A = (1 - rho * self.leak) * A + rho * layer(torch.relu(A))
        mean, scale = (torch.tensor(np.array(v)) for v in vars(p.target_scaling).values())
        return A @ readout.T * scale + mean


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_of_a_module_of_ones_own_are_read(bias):
    problem, _ = small("relu", bias=bias)
    torch.manual_seed(0)
    own = Own(problem)
    net = hs.LeakyResNet.from_torch(own, problem)
    assert (net.layers, net.bias) == (4, bias)
    with torch.no_grad():
        expected = own(torch.tensor(problem.X)).numpy()
    np.testing.assert_allclose(net.predict(problem.X), expected, rtol=1e-12)


def test_a_module_that_predicts_otherwise_is_refused():
    problem, net = small("relu")
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"4 linear layers 4 → 4, it predicts otherwise.*by up to"):
        hs.LeakyResNet.from_torch(Own(problem, leak=1.0), problem)
    twice = torch.nn.Sequential(net.to_torch(), torch.nn.Linear(2, 2).double())
    with pytest.raises(ValueError, match="the Leaky ResNet in it, it predicts otherwise"):
        hs.LeakyResNet.from_torch(twice)
    with pytest.raises(ValueError, match="could not be called with rows"):
        hs.LeakyResNet.from_torch(torch.nn.Sequential(torch.nn.Linear(7, 7), net.to_torch()))
    with pytest.raises(ValueError, match="expected the array 'weights', it holds 0"):
        hs.LeakyResNet.from_torch(twice.state_dict())  # what the other layer does is not known
    with pytest.raises(ValueError, match="expected one made by to_torch in it, got 0 in Linear"):
        hs.LeakyResNet.from_torch(torch.nn.Linear(3, 2))
    with pytest.raises(ValueError, match="linear layers 4 → 4 with bias as the problem has"):
        hs.LeakyResNet.from_torch(torch.nn.Linear(3, 2), problem)
    with pytest.raises(ValueError, match=r"expected a torch.nn.Module, a state_dict or.*got int"):
        hs.LeakyResNet.from_torch(3)


def test_reading_a_module_leaves_its_modes_alone():
    problem, net = small("relu")
    wrapped = torch.nn.Sequential(torch.nn.Dropout(0.5), net.to_torch())
    wrapped[1].eval()
    hs.LeakyResNet.from_torch(wrapped, problem)
    assert [part.training for part in (wrapped, wrapped[0], wrapped[1])] == [True, True, False]


@pytest.mark.parametrize("options", [
    {"sample_weights": np.arange(1.0, 10.0)}, {"loss": "huber", "huber_delta": 0.5},
    {"loss": "huber", "huber_delta": 2.0, "sample_weights": np.arange(1.0, 10.0)},
    {"loss": "cross_entropy"},
], ids=str)
def test_its_losses_are_those_of_the_theory(options):
    if options.get("loss") == "cross_entropy":
        rng = np.random.default_rng(0)
        problem = hs.TrainingProblem(
            rng.standard_normal((9, 3)), np.eye(2)[rng.integers(0, 2, 9)], effective_depth=2.3,
            weight_decay=0.02, width=4, loss="cross_entropy")
    else:
        problem, _ = small(**options)
    steps = np.array([0.5, 0.3, 0.2])
    weights = np.random.default_rng(2).standard_normal((3, *problem.control_shape))
    module = hs.LeakyResNet.from_weights(problem, weights, steps).to_torch()
    J = module.objective(problem.X, problem.Y, problem.weight_decay, **options)
    J.backward()
    A = discrete.roll_out(problem, weights, steps)
    assert J.item() == pytest.approx(discrete.objective(problem, A[-1], weights, steps)[0],
                                     rel=1e-12)
    _, gradient = discrete.costates(problem, A, weights, steps)
    scale = problem.weight_decay / problem.effective_depth
    np.testing.assert_allclose(module.weights.grad.numpy(),
                               scale * steps[:, None, None] * gradient, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="loss: expected squared, huber or cross_entropy"):
        module.objective(problem.X, problem.Y, 0.1, "hinge")
