"""Networks in .safetensors files: the arrays of `interchange`, and its one string as metadata.

The bytes are the same for the same network. The names of the arrays are those in the state_dict of
`to_torch`, so that a file which PyTorch wrote of that reads as well.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hamshoot.network import interchange
from hamshoot.network.interchange import Discrepancy, Exported, Network
from hamshoot.network.layered_network import LayeredNetwork
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.extras import missing
from hamshoot.support.files import write_whole

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SUFFIX = ".safetensors"


def write(
    network: LayeredNetwork, path: str | PathLike, dtype: Any = "float64",
    X: ArrayLike | None = None,
) -> Exported:
    """Write a network, whole or not at all; see `hamshoot.LeakyResNet.to_safetensors`."""
    interchange.check_exportable(network, "to_safetensors")
    safetensors = _library("to_safetensors")
    dtype, path = interchange.dtype_name(dtype), interchange.with_suffix(path, SUFFIX)
    arrays = interchange.cast(interchange.arrays_of(network), dtype)
    content = safetensors.save(arrays, {interchange.KEY: interchange.description(network)})
    discrepancy = _discrepancy(network, arrays, dtype, X)
    write_whole(path, lambda file: file.write(content))
    return Exported(path, discrepancy)


def _discrepancy(
    network: LayeredNetwork, arrays: dict[str, NDArray], dtype: str, X: ArrayLike | None
) -> Discrepancy:
    """Of the network that is read back, which computes in double precision with rounded numbers."""
    again = interchange.network_from(LayeredNetwork, arrays, None, "the file written")
    return interchange.measured(network, again.predict, dtype, X)


def read(
    path: str | PathLike, build: Callable[..., Network], problem: TrainingProblem | None = None
) -> Network:
    """Read a network back; see `hamshoot.LeakyResNet.from_safetensors`."""
    _library("from_safetensors")
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            arrays = {name: file.get_tensor(name) for name in names}
            text = (file.metadata() or {}).get(interchange.KEY)
    except (SafetensorError, OSError, TypeError, KeyError, AttributeError) as error:
        # The last three are what it raises for types that NumPy does not have, as bfloat16.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: not a complete safetensors file of numbers that NumPy has "
                         f"({reason})") from None
    return interchange.network_from(build, arrays, text, str(path), problem)


def _library(who: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise missing(who, "safetensors", "safetensors") from None
    return safetensors.numpy
