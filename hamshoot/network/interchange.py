"""A network as others take it: arrays by name, one JSON string, and how far predictions differ.

PyTorch, ONNX and safetensors share this form. The arrays are

======================================  ==================  =====================================
name                                    shape               meaning
======================================  ==================  =====================================
``weights``                             (L, w, w+1)         W_ℓ, last column the bias; (L, w, w)
                                                            without bias
``steps``                               (L,)                ρ_ℓ
``lift``, ``readout``                   (w, d_in),          P and Q
                                        (d_out, w)
``input_mean``, ``input_scale``         (d_in,)             of the inputs, in the user's units
``target_mean``, ``target_scale``       (d_out,)            of the targets, likewise
``effective_depth``, ``epsilon``        ()                  L̃; ε of the smooth ReLUs, else 0
``activation_code``                     (), integer         0 linear, 1 ReLU, 2 smooth ReLU, and so
                                                            on as `hamshoot.problem.activations`
``negative_slope``                      ()                  α, with the leaky ReLUs alone
======================================  ==================  =====================================

so that predictions are, for rows x in the user's units,

    A_0 = P ((x − input_mean)/input_scale)ᵀ,   A_ℓ = (1 − ρ_ℓL̃) A_{ℓ−1} + ρ_ℓ W_ℓ σ̂(A_{ℓ−1}),
    y = target_scale ⊙ (Q A_L)ᵀ + target_mean.

The string holds what is no array, names and labels; it is the same for the same network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hamshoot.network.layered_network import LayeredNetwork
from hamshoot.problem.activations import CODES, Activation
from hamshoot.problem.arguments import matrix
from hamshoot.problem.maps import DECAYS
from hamshoot.problem.preparation import Preparation
from hamshoot.problem.readers import Scaling
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.files import header

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Under this name the string stands in files; format of string and arrays.
KEY, FORMAT = "hamshoot", 1
DTYPES = ("float64", "float32")
#: Rows drawn to measure a discrepancy where none are given, and their seed.
ROWS, SEED = 256, 0
#: Arrays that a problem has as well as a network.
SHARED = ("lift", "readout", "input_mean", "input_scale", "target_mean", "target_scale",
          "effective_depth", "epsilon", "activation_code")
NAMES = ("weights", "steps", *SHARED)
#: An array that only networks of a leaky ReLU have.
LEAKY = "negative_slope"

Network = TypeVar("Network", bound=LayeredNetwork)


# -- out -------------------------------------------------------------------------------------------


def check_exportable(network: LayeredNetwork, who: str) -> None:
    """Raise ValueError for a network that was solved for a hard endpoint.

    Parameters
    ----------
    network : LayeredNetwork
    who : str
        What the user called, for the message.
    """
    if not network.activation.compiled:
        raise ValueError(f"{who}: the activation {network.activation.name!r} is made of functions, "
                         "which this format cannot hold; LeakyResNet.save keeps its name")
    if network.hard_endpoint:
        raise ValueError(
            f"{who}: expected a network that was trained on targets, got one of a hard endpoint, "
            "which prescribes A_1 itself: its readout was fitted to nothing and predicts nothing")


def dtype_name(dtype: Any) -> str:
    """Return "float64" or "float32", for a name or a dtype of NumPy or PyTorch.

    Raises
    ------
    ValueError
        For anything else.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = ""
    if name not in DTYPES:
        raise ValueError(f"dtype: expected float64 or float32, got {dtype!r}")
    return name


def arrays_of(network: LayeredNetwork) -> dict[str, NDArray]:
    """The arrays of a network in double precision, by the names of this module's table."""
    return {"weights": network.weights, "steps": network.steps,
            **_shared(network, network.activation)}


def cast(arrays: dict[str, NDArray], dtype: str) -> dict[str, NDArray]:
    """The same arrays in another precision; integers stay.

    Raises
    ------
    ValueError
        Naming an array that single precision cannot hold: a number that would become infinite, or
        a positive one that would become 0.
    """
    changed = {}
    for name, value in arrays.items():
        with np.errstate(over="ignore", under="ignore"):
            new = value.astype(dtype) if value.dtype.kind == "f" else value
        lost = (new == 0) & (value != 0) if name in ("steps", "input_scale", "epsilon",
                                                     "effective_depth") else np.False_
        if not np.all(np.isfinite(new)) or np.any(lost):
            raise ValueError(f"dtype: {dtype} cannot hold the network's {name.replace('_', ' ')}, "
                             f"of up to {np.abs(value).max():.3g}; use float64")
        changed[name] = np.array(new, order="C")
    return changed


def description(network: LayeredNetwork) -> str:
    """What of a network is no array, as one JSON string with sorted keys."""
    names = ("classes", "target_names", "input_names")
    table = {} if network.preparation is None else {"preparation": network.preparation.to_dict()}
    return json.dumps({
        **header(FORMAT), "kind": "network", "activation": network.activation.name,
        "epsilon": float(network.activation.epsilon), "bias": bool(network.bias),
        **({LEAKY: float(network.activation.negative_slope)}
           if network.activation.negative_slope else {}),
        **{name: float(value) for name in DECAYS
           if (value := getattr(network, name)) is not None},
        "effective_depth": float(network.effective_depth), "layers": network.layers,
        "width": network.width, **{name: getattr(network, name) for name in names}, **table,
    }, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


# -- in --------------------------------------------------------------------------------------------


def network_from(
    build: Callable[..., Network], arrays: Mapping[str, NDArray], text: str | None, source: str,
    problem: TrainingProblem | None = None,
) -> Network:
    """Build a network from arrays by name, and the string where there is one.

    Parameters
    ----------
    build : callable
        Takes the fields of a network by name.
    arrays : mapping of str to ndarray
        In any precision. What single precision rounded is set right: steps to the sum 1, and what
        the string or the problem has, where it rounds to the very numbers given.
    text : str, optional
        What `description` wrote.
    source : str
        For messages.
    problem : TrainingProblem, optional
        What the arrays lack is taken from it; without steps they are equidistant.

    Raises
    ------
    ValueError
        Naming the source, where arrays are missing or do not belong together.
    """
    words, arrays = _words(text, source), _unwrapped(arrays)
    given = {name: restored(np.asarray(arrays[name]), _number(words, name))
             for name in (*NAMES, LEAKY) if name in arrays}
    if problem is not None:
        known = _shared(problem, problem.sigma)
        given = {**known, **{name: restored(value, known.get(name))
                             for name, value in given.items()}}
    if "steps" not in given and "weights" in given and given["weights"].ndim and problem:
        layers = max(1, len(given["weights"]))
        given["steps"] = np.full(layers, 1 / layers)
    absent = [name for name in NAMES if name not in given]
    if absent:
        held = ", ".join(sorted(arrays)[:12]) or "nothing"
        raise ValueError(f"{source}: no network: expected the array {absent[0]!r}, "
                         f"it holds {held}")
    names = {name: words.get(name) if words or problem is None else getattr(problem, name)
             for name in ("classes", "target_names", "input_names", "preparation")}
    try:
        names |= {name: value for name in DECAYS if (value := words.get(name, getattr(
            problem, name, None))) is not None}
        if isinstance(names["preparation"], dict):
            names["preparation"] = Preparation.from_dict(names["preparation"])
        return build(**_fields(given), **names)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: no network ({error})") from None


def restored(value: NDArray, exact: NDArray | None) -> NDArray:
    """The exact numbers where `value` is nothing but these in a lower precision, else `value`."""
    if exact is None or value.shape != exact.shape or value.dtype == exact.dtype:
        return value
    with np.errstate(over="ignore"):
        # "V" is the kind of bfloat16, which NumPy knows from elsewhere.
        same = value.dtype.kind in "fV" and np.array_equal(exact.astype(value.dtype), value)
    return exact if same else value


def _unwrapped(arrays: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
    """Without the prefix that a module around the network gives to every name."""
    wrapped = (name for name in arrays if name.endswith(".weights"))
    prefix = next(wrapped, "weights").removesuffix("weights")
    if not all(name.startswith(prefix) for name in arrays):
        return arrays
    return {name.removeprefix(prefix): value for name, value in arrays.items()}


def _shared(source: LayeredNetwork | TrainingProblem, activation: Activation
            ) -> dict[str, NDArray]:
    """Maps, scalings and settings, as a network has them and a problem."""
    return {
        "lift": np.asarray(source.lift), "readout": np.asarray(source.readout),
        "input_mean": source.input_scaling.mean, "input_scale": source.input_scaling.scale,
        "target_mean": source.target_scaling.mean, "target_scale": source.target_scaling.scale,
        "effective_depth": np.array(float(source.effective_depth)),
        "epsilon": np.array(float(activation.epsilon)),
        "activation_code": np.array(activation.code),
        **({LEAKY: np.array(float(activation.negative_slope))}
           if activation.negative_slope else {}),
    }


def _fields(given: dict[str, NDArray]) -> dict[str, Any]:
    """Fields of a network; the bias is told by the shape of the weights."""
    names = {code: name for name, code in CODES.items()}
    weights, steps = given["weights"], np.asarray(given["steps"], dtype=float)
    if given["steps"].dtype != np.float64 and abs(steps.sum() - 1) < 1e-2:
        steps = steps / steps.sum()
    alpha = given.get(LEAKY, np.zeros(()))
    for name in ("effective_depth", "epsilon", "activation_code"):
        if given[name].size != 1:
            raise ValueError(f"{name}: expected one number, got {given[name].size}")
    code = int(given["activation_code"].item())
    if code not in names:
        raise ValueError(f"activation_code: expected one of {sorted(names)}, got {code}")
    return {
        "weights": weights, "steps": steps, "lift": given["lift"], "readout": given["readout"],
        "bias": weights.ndim == 3 and weights.shape[2] == weights.shape[1] + 1,
        "effective_depth": float(given["effective_depth"].item()),
        "activation": Activation(names[code], float(given["epsilon"].item()), float(alpha)),
        "input_scaling": _scaling(given, "input"), "target_scaling": _scaling(given, "target"),
    }


def _scaling(given: dict[str, NDArray], of: str) -> Scaling:
    mean, scale = (np.asarray(given[f"{of}_{name}"], dtype=float) for name in ("mean", "scale"))
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(scale)) and np.all(scale > 0)):
        raise ValueError(f"{of}_scale: expected finite means and scales > 0")
    return Scaling(mean, scale)


def _words(text: str | None, source: str) -> dict[str, Any]:
    """What the string says; nothing without it."""
    if text is None:
        return {}
    try:
        words = json.loads(text)
    except (TypeError, json.JSONDecodeError):
        words = None
    if not isinstance(words, dict) or words.get("kind") != "network":
        raise ValueError(f"{source}: its metadata {KEY!r} cannot be read")
    if words.get("format") != FORMAT:
        raise ValueError(
            f"{source}: format {words.get('format')}, this hamshoot reads format {FORMAT}")
    return words


def _number(words: dict[str, Any], name: str) -> NDArray | None:
    """The exact number of that name in the string."""
    value = words.get(name)
    return np.array(value) if isinstance(value, float) else None


# -- how far predictions differ --------------------------------------------------------------------


@dataclass(frozen=True)
class Discrepancy:
    """How far the predictions of an exported network are from those of `predict`.

    Attributes
    ----------
    dtype : {"float64", "float32"}
    rows : int
        Rows it was measured on.
    drawn : bool
        Whether these were drawn, normal, with mean and deviation of the scaling of the inputs.
    largest : float
        Largest |difference| of a prediction, in the user's units.
    relative : float
        The same, each target divided by its scale.
    labels : int or None
        Rows whose class differs; None where there are no classes.
    """

    dtype: str
    rows: int
    drawn: bool
    largest: float
    relative: float
    labels: int | None

    def __str__(self) -> str:
        rows = f"{self.rows} rows" + (" drawn like the inputs" if self.drawn else "")
        labels = "" if self.labels is None else f"; {self.labels} labels differ"
        return (f"{self.dtype}, predictions within {self.largest:.1e} of those of predict "
                f"({self.relative:.1e} of a target's scale) over {rows}{labels}")

    def to_json(self) -> str:
        """One JSON string with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Exported:
    """A file that was written, to be used as its path, and how far its predictions are off.

    Attributes
    ----------
    path : Path
    discrepancy : Discrepancy
    """

    path: Path
    discrepancy: Discrepancy

    def __fspath__(self) -> str:
        return fspath(self.path)

    def __str__(self) -> str:
        return f"{self.path}: {self.discrepancy}"


def measured(
    network: LayeredNetwork, predict: Callable[[NDArray], NDArray], dtype: str,
    X: ArrayLike | None = None,
) -> Discrepancy:
    """Compare predictions with those of the network.

    Parameters
    ----------
    network : LayeredNetwork
    predict : callable
        Predictions (K, d_out) for rows (K, d_in) in double precision, both in the user's units.
    dtype : str
        The precision of `predict`.
    X : array_like, shape (K, d_in), optional
        Rows to compare on; default `ROWS` drawn like the inputs.

    Raises
    ------
    ValueError
        As `LayeredNetwork.predict`, for X.
    """
    rows = drawn_rows(network) if X is None else matrix("X", X)
    expected = network.predict(rows)
    found = np.asarray(predict(rows), dtype=float)
    apart = np.abs(found - expected)
    scaled, scale = network.target_scaling.apply(found), network.target_scaling.scale
    labels = None
    if network.classes is not None:
        own = np.argmax(network.target_scaling.apply(expected), axis=1)
        labels = int(np.sum(np.argmax(scaled, axis=1) != own))
    return Discrepancy(dtype, len(rows), X is None, float(apart.max(initial=0.0)),
                       float((apart / scale).max(initial=0.0)), labels)


def drawn_rows(network: LayeredNetwork) -> NDArray:
    """`ROWS` rows drawn with mean and deviation of the scaling of the inputs, always the same."""
    normal = np.random.default_rng(SEED).standard_normal((ROWS, network.lift.shape[1]))
    return network.input_scaling.invert(normal)


def with_suffix(path: str | PathLike, suffix: str) -> Path:
    """The path, with the suffix where it has none."""
    path = Path(path)
    return path if path.suffix else path.with_suffix(suffix)
