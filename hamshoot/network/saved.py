"""Networks in .npz files: arrays, and metadata as JSON."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hamshoot.network.layered_network import LayeredNetwork
from hamshoot.problem.activations import Activation
from hamshoot.problem.maps import DECAYS
from hamshoot.problem.preparation import Preparation
from hamshoot.problem.readers import Scaling
from hamshoot.support import schema
from hamshoot.support.checks import brief, check_real
from hamshoot.support.files import header, load_with_metadata, save_with_metadata
from hamshoot.support.schema import check_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
ARRAYS = ("weights", "steps", "lift", "readout")
SCALINGS = ("input_scaling", "target_scaling")
FIELDS = {"effective_depth": schema.NUMBER, "activation": schema.TEXT, "epsilon": schema.NUMBER,
          "bias": schema.FLAG, **dict.fromkeys(("classes", "target_names", "input_names"),
                                               schema.MAYBE_TEXTS)}

Network = TypeVar("Network", bound=LayeredNetwork)


def save(network: LayeredNetwork, path: str | PathLike) -> Path:
    """Write a network to an .npz file, whole or not at all; the file written."""
    arrays: dict[str, NDArray] = {name: getattr(network, name) for name in ARRAYS}
    for name in SCALINGS:
        scaling = getattr(network, name)
        arrays.update({f"{name}.mean": scaling.mean, f"{name}.scale": scaling.scale})
    metadata = {
        **header(FORMAT), "kind": "network",
        "effective_depth": float(network.effective_depth), "activation": network.activation.name,
        "epsilon": float(network.activation.epsilon), "bias": bool(network.bias),
        "classes": network.classes, "target_names": network.target_names,
        "input_names": network.input_names,
    }
    if network.activation.negative_slope:
        metadata["negative_slope"] = float(network.activation.negative_slope)
    metadata |= {name: float(value) for name in DECAYS
                 if (value := getattr(network, name)) is not None}
    if network.hard_endpoint:
        metadata["hard_endpoint"] = True
    if network.preparation is not None:
        metadata["preparation"] = network.preparation.to_dict()
    return save_with_metadata(path, arrays, metadata)


def load(path: str | PathLike, build: Callable[..., Network]) -> Network:
    """Read a network back, built from its fields by name.

    Raises
    ------
    ValueError
        For a missing, truncated or foreign file, in one sentence.
    """
    path = Path(path)
    foreign = f"{path}: not a hamshoot network"
    arrays, metadata = load_with_metadata(path, foreign, FORMAT)
    _check_kind(metadata, foreign)
    try:
        check_fields("metadata", metadata, FIELDS, {
            "hard_endpoint": schema.FLAG, "preparation": schema.OBJECT,
            "negative_slope": schema.NUMBER, **dict.fromkeys(DECAYS, schema.NUMBER)})
        _check_arrays(arrays)
        metadata["activation"] = Activation(
            metadata["activation"], metadata.pop("epsilon"), metadata.pop("negative_slope", 0.0))
        if "preparation" in metadata:
            metadata["preparation"] = Preparation.from_dict(metadata["preparation"])
        scalings = {name: Scaling(arrays.pop(f"{name}.mean"), arrays.pop(f"{name}.scale"))
                    for name in SCALINGS}
        return build(**arrays, **metadata, **scalings)
    except ValueError as error:
        raise ValueError(f"{foreign} ({error})") from None


def _check_arrays(arrays: dict[str, NDArray]) -> None:
    """Raise ValueError unless the arrays are those of a network, of real numbers."""
    parts = [f"{name}.{part}" for name in SCALINGS for part in ("mean", "scale")]
    for name in (*ARRAYS, *parts):
        if name not in arrays:
            raise ValueError(f"the array {name} is missing")
    for name, array in arrays.items():
        if name not in ARRAYS and name not in parts:
            raise ValueError(f"there is no array {brief(name)} in a network")
        check_real(name, array)
    for side, name in enumerate(SCALINGS):
        matrix = arrays[("lift", "readout")[side]]
        expected = matrix.shape[1 - side : 2 - side]
        for part in ("mean", "scale"):
            array = arrays[f"{name}.{part}"]
            if array.shape != expected:
                raise ValueError(f"{name}.{part}: expected shape {expected}, got {array.shape}")


def _check_kind(metadata: dict[str, Any], foreign: str) -> None:
    """Raise ValueError unless the file holds a network; what kind it is of is taken out."""
    kind = metadata.pop("kind", None)
    if kind != "network":
        if "status" in metadata:
            raise ValueError(f"{foreign} but a solution; use Solution.load(path).to_network()")
        raise ValueError(f"{foreign} (its metadata says kind {brief(kind)})")
