"""`PortableNetwork`: a layered network that goes to PyTorch, ONNX and safetensors, and comes back.

The formats are modules of their own; what they share is `hamshoot.network.interchange`.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

from hamshoot.network import onnx_file, safetensors_file
from hamshoot.network.interchange import Exported
from hamshoot.network.layered_network import LayeredNetwork
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.extras import missing

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Network = TypeVar("Network", bound="PortableNetwork")


class PortableNetwork(LayeredNetwork):
    """What `hamshoot.LeakyResNet` offers to other libraries, each an extra."""

    def to_torch(self, dtype: Any = "float64", X: ArrayLike | None = None) -> Any:
        """Make a torch.nn.Module that predicts what `predict` does, and can be trained.

        Parameters
        ----------
        dtype : {"float64", "float32"} or dtype
            Of parameter and buffers.
        X : array_like, shape (K, d_in), optional
            Rows on which ``module.discrepancy`` is measured, the largest difference from `predict`;
            default 256 drawn like the inputs.

        Returns
        -------
        hamshoot.network.torch_module.LeakyResNetModule
            From rows (…, d_in) to predictions (…, d_out), both in the user's units: scalings, lift
            and readout are buffers, the weights (L, w, w+1) the one parameter; a lift or readout
            that was learned is a parameter as well, and its weight decay part of the objective.
            ``module.objective(X, Y, weight_decay)`` is J, to train on; ``state_dict`` holds tensors
            alone and loads into any module of the same sizes and activation; ``module.save(path)``
            writes it with the names.

        Raises
        ------
        ImportError
            Saying what to install, without PyTorch.
        ValueError
            For another dtype, numbers that single precision cannot hold, X of other columns, and a
            network of a hard endpoint, which predicts nothing.

        Notes
        -----
        In double precision predictions differ by rounding alone; ``module.discrepancy`` says by how
        much, in either precision. Single precision loses most where inputs vary little around a
        large mean.
        """
        return _torch("to_torch").module_of(self, dtype, X)

    def to_torch_file(
        self, path: str | PathLike, dtype: Any = "float64", X: ArrayLike | None = None
    ) -> Exported:
        """Write the module of `to_torch` to a file, as ``module.save(path)`` does.

        ``torch.load`` gives a dict of ``state_dict``, tensors alone, and ``hamshoot``, one JSON
        string; `from_torch` reads the network back.

        Parameters
        ----------
        path : path
            `.pt` is added when the name has no suffix.
        dtype, X
            As in `to_torch`.

        Returns
        -------
        Exported
            The file written, whole or not at all; prints with its discrepancy.

        Raises
        ------
        ImportError, ValueError
            As `to_torch`.
        """
        return _torch("to_torch_file").write(self, path, dtype, X)

    @classmethod
    def from_torch(
        cls: type[Network], module: Any, problem: TrainingProblem | None = None
    ) -> Network:
        """Network of a module that was trained elsewhere.

        Parameters
        ----------
        module : torch.nn.Module, mapping or path
            One of `to_torch`, alone or within another module that predicts the same (compiled, in
            parallel, in a Sequential); its state_dict; or a file of ``module.save`` or of a
            state_dict. With a `problem`, also a module of one's own whose linear layers w → w
            are, in their order, W_ℓ with bias, over equidistant steps.
        problem : TrainingProblem, optional
            Has what a state_dict or a module may lack: maps, scalings, L̃, σ, and the exact
            numbers of those that are there in single precision.

        Raises
        ------
        ImportError
            Saying what to install, without PyTorch.
        ValueError
            For a module of another kind, one that predicts otherwise than the network read from it,
            and a missing, truncated or foreign file, in one sentence.
        """
        return _torch("from_torch").network_of(module, cls, problem)

    def to_onnx(
        self, path: str | PathLike, dtype: Any = "float64", X: ArrayLike | None = None
    ) -> Exported:
        """Write an ONNX file that predicts what `predict` does; PyTorch is not needed.

        Input ``X`` (batch, d_in) and output ``predictions`` (batch, d_out) are in the user's
        units, for any number of rows; a classifier has a second output ``label`` (batch,), the
        strings of `predict_class`. Metadata: ``hamshoot``, one JSON string with the names of
        columns and classes, and ``discrepancy``. The bytes are the same for the same network.

        Parameters
        ----------
        path : path
            `.onnx` is added when the name has no suffix.
        dtype : {"float64", "float32"} or dtype
            Of input, output and all between.
        X : array_like, shape (K, d_in), optional
            Rows on which the discrepancy is measured, with ONNX's reference evaluator; default 256
            drawn like the inputs.

        Returns
        -------
        Exported
            The file written, whole or not at all; prints with its discrepancy.

        Raises
        ------
        ImportError
            Saying what to install, without onnx.
        ValueError
            As `to_torch`, for more than the 2 GB of one ONNX file, and for GELU in float64, whose
            operator Erf onnxruntime has in float32 alone.
        """
        return onnx_file.write(self, path, dtype, X)

    def to_safetensors(
        self, path: str | PathLike, dtype: Any = "float64", X: ArrayLike | None = None
    ) -> Exported:
        """Write a safetensors file from which `from_safetensors` reads the network back.

        Tensors are those of the state_dict of `to_torch`, under the same names; the metadata is one
        JSON string, ``hamshoot``. The bytes are the same for the same network.

        Parameters
        ----------
        path : path
            `.safetensors` is added when the name has no suffix.
        dtype : {"float64", "float32"} or dtype
            In double precision what is read back is the network to the last bit.
        X : array_like, shape (K, d_in), optional
            Rows on which the discrepancy of the network read back is measured; default 256 drawn
            like the inputs.

        Returns
        -------
        Exported
            The file written, whole or not at all; prints with its discrepancy.

        Raises
        ------
        ImportError
            Saying what to install, without safetensors.
        ValueError
            As `to_torch`.
        """
        return safetensors_file.write(self, path, dtype, X)

    @classmethod
    def from_safetensors(
        cls: type[Network], path: str | PathLike, problem: TrainingProblem | None = None
    ) -> Network:
        """Read a network from a safetensors file, also from one that PyTorch wrote.

        Parameters
        ----------
        path : path
        problem : TrainingProblem, optional
            Has what the file may lack, as in `from_torch`: tensors ``weights`` (L, w, w+1) alone
            will do with it.

        Raises
        ------
        ImportError
            Saying what to install, without safetensors.
        ValueError
            For a missing, truncated or foreign file, in one sentence.
        """
        return safetensors_file.read(path, cls, problem)


def _torch(who: str) -> Any:
    """Import the module that needs PyTorch."""
    try:
        from hamshoot.network import torch_module
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise missing(who, "PyTorch", "torch") from None
    return torch_module
