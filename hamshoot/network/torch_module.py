"""The network as a torch.nn.Module, and back; imported where PyTorch is asked for.

Its state_dict holds the arrays of `hamshoot.network.interchange` under their names, tensors alone:
`weights` is the one parameter, all else are buffers.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hamshoot.network import interchange
from hamshoot.network.interchange import Discrepancy, Exported, Network
from hamshoot.network.layered_network import LayeredNetwork
from hamshoot.problem.maps import DECAYS
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.files import write_whole

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SUFFIX = ".pt"
#: Largest difference of predictions, of a target's scale, of a module that is read as a network.
AGREES = {torch.float64: 1e-9, torch.float32: 1e-4}


#: The activations that PyTorch has itself. (Its softplus is the identity from 20 on.)
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": torch.tanh, "gelu": torch.nn.functional.gelu,
    "softplus": lambda z: torch.logaddexp(z, torch.zeros((), dtype=z.dtype, device=z.device))}


class LeakyResNetModule(torch.nn.Module):
    """A Leaky ResNet, rows in the user's units to predictions in the user's units.

    Made by `hamshoot.LeakyResNet.to_torch`, which says more.

    Attributes
    ----------
    weights : torch.nn.Parameter, shape (L, w, w+1), or (L, w, w) without bias
        The only parameter, unless lift or readout were learned: then these are parameters too.
    steps, lift, readout, input_mean, input_scale, target_mean, target_scale, effective_depth, \
epsilon, activation_code : torch.Tensor
        Buffers; shapes in `hamshoot.network.interchange`.
    activation : str
        As of `hamshoot.TrainingProblem`; with a leaky ReLU there is a buffer ``negative_slope``.
    decays : dict of str to float
        μ of the maps that are learned, by "lift" and "readout".
    classes, input_names, target_names : tuple of str or None
    discrepancy : Discrepancy or None
        Of the module as it was made, from the network's `predict`.
    """

    def __init__(self, network: LayeredNetwork, dtype: Any = "float64"):
        super().__init__()
        name = interchange.dtype_name(dtype)
        exact = interchange.arrays_of(network)
        arrays = interchange.cast(exact, name)
        self.weights = torch.nn.Parameter(torch.tensor(arrays.pop("weights")))
        self.decays = {learned: float(mu) for name, learned in DECAYS.items()
                       if (mu := getattr(network, name)) is not None}
        for key, value in arrays.items():
            if key in self.decays:
                self.register_parameter(key, torch.nn.Parameter(torch.tensor(value)))
            else:
                self.register_buffer(key, torch.tensor(value))
        self.activation = network.activation.name
        self.bias = bool(network.bias)
        self.classes, self.input_names = network.classes, network.input_names
        self.target_names = network.target_names
        self.description = interchange.description(network)
        # What single precision rounds off the buffers is kept, for the way back.
        self._exact = {key: torch.tensor(value) for key, value in exact.items()
                       if key != "weights"}
        self.discrepancy: Discrepancy | None = None

    def forward(self, X: Any) -> Any:
        """Predictions (…, d_out) for rows X (…, d_in), both in the user's units."""
        return self.outputs(X) * self.target_scale + self.target_mean

    def outputs(self, X: Any) -> Any:
        """QA_L (…, d_out) in scaled units, one row a sample."""
        return self.last_representations(X) @ self.readout.T

    def last_representations(self, X: Any) -> Any:
        """A_L (…, w) of rows X (…, d_in) in the user's units.

        Raises
        ------
        ValueError
            If X does not have the training columns.
        """
        X = self._tensor(X)
        if X.ndim < 1 or X.shape[-1] != self.lift.shape[1]:
            raise ValueError(f"X: expected {self.lift.shape[1]} columns as in training, got shape "
                             f"{tuple(X.shape)}")
        A = ((X - self.input_mean) / self.input_scale).to(self.lift.dtype) @ self.lift.T
        w = self.weights.shape[1]
        for W, rho in zip(self.weights, self.steps, strict=True):
            move = self.sigma(A) @ W[:, :w].T
            if self.bias:
                move = move + W[:, w]
            A = (1 - rho * self.effective_depth) * A + rho * move
        return A

    def sigma(self, z: Any) -> Any:
        """σ(z), elementwise, without overflow or cancellation in either tail, its slope as well."""
        if self.activation == "linear":
            return z
        if self.activation == "relu":
            return torch.relu(z)
        if self.activation == "leaky_relu":
            return torch.where(z > 0, z, self.negative_slope * z)
        if self.activation == "smooth_leaky_relu":
            return self.negative_slope * z + (1 - self.negative_slope) * self._smooth_relu(z)
        if self.activation in FUNCTIONS:
            return FUNCTIONS[self.activation](z)
        return self._smooth_relu(z)

    def _smooth_relu(self, z: Any) -> Any:
        # −z or z rather than |z|, whose slope at 0 would be 0; no branch divides by zero.
        negative = z < 0
        t = torch.hypot(z, self.epsilon) + torch.where(negative, -z, z)
        return torch.where(negative, (self.epsilon / t) * (self.epsilon / 2), t / 2)

    def predict_class(self, X: Any) -> list[str]:
        """Labels of the largest outputs, for rows X (K, d_in).

        Raises
        ------
        ValueError
            If the network was not trained on classes.
        """
        if self.classes is None:
            raise ValueError("predict_class: the network was not trained on classes")
        with torch.no_grad():
            return [self.classes[k] for k in self.outputs(X).argmax(dim=1).tolist()]

    def objective(
        self, X: Any, Y: Any, weight_decay: float, loss: str = "squared", huber_delta: float = 1.0,
        sample_weights: Any = None,
    ) -> Any:
        """J = (1/K)‖Q A_L − Yᵀ‖² + λ/(2L̃) Σρ‖W‖², to be trained on and differentiated.

        With the weight decay (μ/2)‖·‖² of a lift or readout that is learned.

        The objective of `hamshoot.TrainingProblem`, the loss in scaled units.

        Parameters
        ----------
        X, Y : tensor or array, shapes (K, d_in) and (K, d_out)
            In the user's units.
        weight_decay : float
            λ.
        loss : {"squared", "huber", "cross_entropy"}
        huber_delta : float
        sample_weights : tensor or array, shape (K,), optional

        Raises
        ------
        ValueError
            For another loss.
        """
        outputs = self.outputs(X)
        each = _losses(outputs, (self._tensor(Y) - self.target_mean) / self.target_scale, loss,
                       huber_delta)
        if sample_weights is not None:
            each = self._tensor(sample_weights) * each
        norm = (self.steps[:, None, None] * self.weights**2).sum()
        J = each.sum() / len(each) + weight_decay / (2 * self.effective_depth) * norm
        for name, mu in self.decays.items():
            J = J + mu / 2 * (getattr(self, name) ** 2).sum()
        return J

    def save(self, path: str | PathLike) -> Path:
        """Write the state_dict and the names to a file, whole or not at all.

        ``torch.load`` reads it without pickled code, as a dict with ``state_dict`` and the JSON
        string ``hamshoot``; `hamshoot.LeakyResNet.from_torch` as a network.

        Returns
        -------
        Path
            The file written; `.pt` is added when the name has no suffix.
        """
        path = interchange.with_suffix(path, SUFFIX)
        content = {"state_dict": self.state_dict(), interchange.KEY: self.description}
        write_whole(path, lambda file: torch.save(content, file))
        return path

    def arrays(self) -> dict[str, NDArray]:
        """Weights and buffers as NumPy arrays in double precision, undoing what rounding did."""
        found = {"weights": _numpy(self.weights)}
        for key, exact in self._exact.items():
            value = getattr(self, key).detach().cpu()
            same = value.shape == exact.shape and bool((exact.to(value.dtype) == value).all())
            found[key] = _numpy(exact if same else value)
        if found["steps"].size and abs(found["steps"].sum() - 1) > 1e-12:
            found["steps"] = found["steps"] / found["steps"].sum()
        return found

    def _tensor(self, values: Any) -> Any:
        """A tensor on the module's device; of arrays, which may be read-only, a copy."""
        if not isinstance(values, torch.Tensor):
            values = torch.tensor(np.asarray(values))
        return values.to(self.lift.device)

    def extra_repr(self) -> str:
        """The sizes."""
        L, w = self.weights.shape[:2]
        return (f"{self.lift.shape[1]} → {len(self.readout)}, layers={L}, width={w}, "
                f"{self.activation}, bias={self.bias}, {str(self.weights.dtype)[6:]}")

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *more: Any) -> None:
        """Load as every module does; another activation is an error as another shape is."""
        code = state_dict.get(f"{prefix}activation_code")
        if code is not None and int(code) != int(self.activation_code):
            more[-1].append(f"activation_code: expected {int(self.activation_code)}, "
                            f"{self.activation}, got {int(code)}")
        super()._load_from_state_dict(state_dict, prefix, *more)


def _losses(outputs: Any, targets: Any, name: str, delta: float) -> Any:
    """ℓ of every row (K,), as `hamshoot.problem.losses` has them."""
    functional = torch.nn.functional
    if name == "squared":
        return ((outputs - targets) ** 2).sum(dim=1)
    if name == "huber":  # PyTorch's is half of ours
        return 2 * functional.huber_loss(outputs, targets, "none", delta).sum(dim=1)
    if name == "cross_entropy":
        return -(targets * functional.log_softmax(outputs, dim=1)).sum(dim=1)
    raise ValueError(f"loss: expected squared, huber or cross_entropy, got {name!r}")


# -- out -------------------------------------------------------------------------------------------


def module_of(network: LayeredNetwork, dtype: Any, X: ArrayLike | None = None) -> LeakyResNetModule:
    """Make the module of a network; see `hamshoot.LeakyResNet.to_torch`."""
    interchange.check_exportable(network, "to_torch")
    module = LeakyResNetModule(network, dtype)
    kind = module.lift.dtype
    module.discrepancy = interchange.measured(
        network, lambda rows: _predictions(module, torch.tensor(rows, dtype=kind)), str(kind)[6:],
        X)
    return module


def write(
    network: LayeredNetwork, path: str | PathLike, dtype: Any = "float64",
    X: ArrayLike | None = None,
) -> Exported:
    """Write the module of a network to a file, see `LeakyResNetModule.save`."""
    module = module_of(network, dtype, X)
    assert module.discrepancy is not None
    return Exported(module.save(path), module.discrepancy)


# -- in --------------------------------------------------------------------------------------------


def network_of(
    module: Any, build: Callable[..., Network], problem: TrainingProblem | None = None
) -> Network:
    """Read a module, a state_dict or a file; see `hamshoot.LeakyResNet.from_torch`."""
    if isinstance(module, (str, PathLike)):
        return _of_state(_loaded(Path(module)), build, str(module), problem)
    if isinstance(module, Mapping):
        return _of_state(module, build, "state_dict", problem)
    if not isinstance(module, torch.nn.Module):
        raise ValueError("module: expected a torch.nn.Module, a state_dict or the name of a file, "
                         f"got {type(module).__name__}")
    own = [part for part in module.modules() if isinstance(part, LeakyResNetModule)]
    if len(own) == 1:
        network = interchange.network_from(build, own[0].arrays(), own[0].description,
                                           "module", problem)
        what = "the Leaky ResNet in it"
    elif problem is not None:
        network = _of_linears(module, build, problem)
        what = f"its {network.layers} linear layers {network.width} → {network.width}"
    else:
        raise ValueError(f"module: expected one made by to_torch in it, got {len(own)} in "
                         f"{type(module).__name__}; a problem says how others are read")
    if own[:1] != [module]:
        _check_same(module, network, problem, what)
    return network


def _loaded(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    foreign = f"{path}: not a PyTorch file of tensors alone, as module.save(path) writes it"
    try:
        if not zipfile.is_zipfile(path):  # then torch would unpickle whatever it is
            raise ValueError("truncated, or of another kind")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError,
            AssertionError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"{foreign} ({reason})") from None


def _of_state(
    state: Any, build: Callable[..., Network], source: str, problem: TrainingProblem | None
) -> Network:
    """Network of a state_dict, or of one with the string beside it."""
    text = None
    if isinstance(state, Mapping) and "state_dict" in state:
        text, state = state.get(interchange.KEY), state["state_dict"]
    if not isinstance(state, Mapping):
        raise ValueError(f"{source}: expected a state_dict, got {type(state).__name__}")
    arrays = {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = value.float() if value.dtype == torch.bfloat16 else value
            arrays[str(name)] = value.numpy()
    return interchange.network_from(build, arrays, text, source, problem)


def _of_linears(
    module: Any, build: Callable[..., Network], problem: TrainingProblem
) -> Network:
    """Network whose W_ℓ are the linear layers w → w of a module, in their order."""
    w = problem.width
    layers = [part for part in module.modules() if isinstance(part, torch.nn.Linear)
              and (part.in_features, part.out_features) == (w, w)
              and (part.bias is not None) == bool(problem.bias)]
    if not layers:
        raise ValueError(
            f"module: expected one made by to_torch, or linear layers {w} → {w} "
            f"{'with' if problem.bias else 'without'} bias as the problem has, got "
            f"{type(module).__name__} without any")
    weights = [_numpy(part.weight) if part.bias is None else
               np.column_stack([_numpy(part.weight), _numpy(part.bias)]) for part in layers]
    return interchange.network_from(build, {"weights": np.array(weights)}, None, "module", problem)


def _check_same(
    module: Any, network: LayeredNetwork, problem: TrainingProblem | None, what: str
) -> None:
    """Raise ValueError unless the whole module predicts what the network does."""
    rows = interchange.drawn_rows(network) if problem is None else \
        np.asarray(problem.X[: interchange.ROWS], dtype=float)
    dtype = next((value.dtype for value in module.parameters()), torch.float64)
    try:
        found = _predictions(module, torch.tensor(rows, dtype=dtype))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError("module: it could not be called with rows in the user's units "
                         f"({' '.join(str(error).split())[:160]})") from None
    expected = network.predict(rows)
    apart = np.inf if found.shape != expected.shape else float(
        np.max(np.abs(found - expected) / network.target_scaling.scale))
    if not apart <= AGREES.get(dtype, 1e-2):
        raise ValueError(
            f"module: read as a Leaky ResNet by {what}, it predicts otherwise than the module "
            f"itself, by up to {apart:.2g} of a target's scale; give weights and steps instead")


def _predictions(module: Any, rows: Any) -> NDArray:
    """Predictions in evaluation mode, without gradients; every part is left in the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            return _numpy(module(rows))
    finally:
        for part, training in modes:
            part.training = training


def _numpy(value: Any) -> NDArray:
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy().copy()
