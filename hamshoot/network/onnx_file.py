"""Networks in .onnx files: a graph of elementary operators, built without PyTorch.

Input ``X``, (batch, d_in), and output ``predictions``, (batch, d_out), are in the user's units; a
classifier has a second output ``label``, (batch,), of strings. A layer is

    A ← (1 − ρL̃) A + σ(A) (ρW)ᵀ + ρb,       one sample a row,

ρ taken into W and b. The smooth ReLU is evaluated without overflow and without cancellation in
either tail: with a = |z|, m = max(a, ε) and q = min(a, ε)/m,

    s = √(z² + ε²) = m √(1 + q²),    t = a + s,    σ(z) = t/2 for z ≥ 0,    (ε/t)(ε/2) for z < 0.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.network import interchange
from hamshoot.network.interchange import Exported
from hamshoot.network.layered_network import LayeredNetwork
from hamshoot.support.extras import missing
from hamshoot.support.files import write_whole
from hamshoot.support.version import __version__

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SUFFIX = ".onnx"
#: Version of the operators, and of the format: those of 2022, which every runtime since reads.
OPSET, IR_VERSION = 17, 8
#: Bytes that one file may hold, a limit of protobuf; some are left for the graph.
MOST_BYTES = 2**31 - 2**20
INPUT, OUTPUT, LABEL = "X", "predictions", "label"


def write(
    network: LayeredNetwork, path: str | PathLike, dtype: Any = "float64",
    X: ArrayLike | None = None,
) -> Exported:
    """Write a network, whole or not at all; see `hamshoot.LeakyResNet.to_onnx`."""
    interchange.check_exportable(network, "to_onnx")
    _library()
    dtype, path = interchange.dtype_name(dtype), interchange.with_suffix(path, SUFFIX)
    if network.activation.name == "gelu" and dtype == "float64":
        raise ValueError("to_onnx: GELU takes the operator Erf, which onnxruntime has in single "
                         "precision alone; use dtype='float32', or to_safetensors")
    model = model_of(network, dtype)
    discrepancy = interchange.measured(network, lambda rows: _evaluate(model, rows, dtype), dtype,
                                       X)
    _describe(model, {interchange.KEY: interchange.description(network),
                      "discrepancy": discrepancy.to_json()})
    content = model.SerializeToString(deterministic=True)
    write_whole(path, lambda file: file.write(content))
    return Exported(path, discrepancy)


def model_of(network: LayeredNetwork, dtype: str) -> Any:
    """The checked onnx.ModelProto of a network, without metadata."""
    onnx = _library()
    arrays = interchange.cast(interchange.arrays_of(network), dtype)
    size = sum(value.nbytes for value in arrays.values())
    if size > MOST_BYTES:
        raise ValueError(f"to_onnx: expected a network of at most {MOST_BYTES / 1e9:.2g} GB, as "
                         f"one ONNX file holds, got {size / 1e9:.2g} GB; use to_safetensors")
    graph = _Graph(onnx, dtype)
    outputs = _network(graph, network)
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    value = onnx.helper.make_tensor_value_info
    shown = [value(OUTPUT, element, ["batch", len(network.readout)])]
    if network.classes is not None:
        _labels(graph, outputs, network.classes)
        shown.append(value(LABEL, onnx.TensorProto.STRING, ["batch"]))
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "LeakyResNet",
                               [value(INPUT, element, ["batch", network.lift.shape[1]])],
                               shown, graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
        producer_name="hamshoot", producer_version=__version__,
        doc_string=f"{network!r}. {INPUT} and {OUTPUT} are in the user's units.")
    onnx.checker.check_model(model, full_check=True)
    return model


# -- the graph -------------------------------------------------------------------------------------


class _Graph:
    """Nodes and constants as they come; every node is named after its output."""

    def __init__(self, onnx: Any, dtype: str):
        self.onnx, self.dtype = onnx, np.dtype(dtype)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any, dtype: Any = None) -> str:
        """Keep an array under a name; floating point in the precision of the graph."""
        array = np.asarray(value, dtype=self.dtype if dtype is None else dtype)
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(
            array.shape), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node; the name of its output."""
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], name=output,
                                                     **attributes))
        return output


def _network(graph: _Graph, network: LayeredNetwork) -> str:
    """From the input to the predictions; the name of the outputs in scaled units."""
    w, incoming, outgoing = network.width, network.input_scaling, network.target_scaling
    A = graph.add("Sub", [INPUT, graph.constant("input_mean", incoming.mean)], "centred")
    A = graph.add("Div", [A, graph.constant("input_scale", incoming.scale)], "scaled")
    A = graph.add("MatMul", [A, graph.constant("lift", network.lift.T)], "A_0")
    sigma = _activation(graph, network)
    for k, (W, rho) in enumerate(zip(network.weights, network.steps, strict=True), start=1):
        weights = graph.constant(f"weights_{k}", rho * W[:, :w].T)
        kept = graph.constant(f"kept_{k}", 1 - rho * network.effective_depth)
        moved = graph.add("MatMul", [sigma(A, f"_{k}"), weights], f"pull_{k}")
        if network.bias:
            bias = graph.constant(f"bias_{k}", rho * W[:, w])
            moved = graph.add("Add", [moved, bias], f"velocity_{k}")
        rest = graph.add("Mul", [A, kept], f"rest_{k}")
        A = graph.add("Add", [rest, moved], f"A_{k}")
    outputs = graph.add("MatMul", [A, graph.constant("readout", network.readout.T)], "outputs")
    spread = graph.add("Mul", [outputs, graph.constant("target_scale", outgoing.scale)], "spread")
    graph.add("Add", [spread, graph.constant("target_mean", outgoing.mean)], OUTPUT)
    return outputs


def _activation(graph: _Graph, network: LayeredNetwork) -> Any:
    """A function that appends σ of a node."""
    name = network.activation.name
    if name == "linear":
        return lambda z, k: z
    if name == "relu":
        return lambda z, k: graph.add("Relu", [z], f"sigma{k}")
    if name == "leaky_relu":
        alpha = graph.constant("alpha", network.activation.negative_slope)  # LeakyRelu has a float
        return lambda z, k: graph.add("Max", [z, graph.add("Mul", [z, alpha], f"low{k}")],
                                      f"sigma{k}")
    if name == "tanh":
        return lambda z, k: graph.add("Tanh", [z], f"sigma{k}")
    if name == "softplus":
        return _softplus(graph)
    if name == "gelu":
        return _gelu(graph)
    smooth = _smooth_relu(graph, network.activation.epsilon)
    if name == "smooth_leaky_relu":
        return _leaky(graph, smooth, network.activation.negative_slope)
    return smooth


def _leaky(graph: _Graph, smooth: Any, slope: float) -> Any:
    """Appends αz + (1 − α)σ(z)."""
    alpha, rest = graph.constant("alpha", slope), graph.constant("one_less_alpha", 1 - slope)

    def leaky(z: str, k: str) -> str:
        bent = graph.add("Mul", [smooth(z, f"_bent{k}"), rest], f"curved{k}")
        return graph.add("Add", [graph.add("Mul", [z, alpha], f"straight{k}"), bent], f"leaky{k}")

    return leaky


def _softplus(graph: _Graph) -> Any:
    """Appends max(z, 0) + ln(1 + e^{−|z|}), which does not overflow as the operator may."""
    one = graph.constant("one", 1.0)

    def softplus(z: str, k: str) -> str:
        small = graph.add("Exp", [graph.add("Neg", [graph.add("Abs", [z], f"a{k}")], f"n{k}")],
                          f"e{k}")
        tail = graph.add("Log", [graph.add("Add", [small, one], f"t{k}")], f"tail{k}")
        return graph.add("Add", [graph.add("Relu", [z], f"r{k}"), tail], f"sigma{k}")

    return softplus


def _gelu(graph: _Graph) -> Any:
    """Appends zΦ(z) = z(1 + erf(z/√2))/2, of which every runtime has the parts."""
    half, one = graph.constant("half", 0.5), graph.constant("one", 1.0)
    root = graph.constant("one_by_root_2", 0.5**0.5)

    def gelu(z: str, k: str) -> str:
        erf = graph.add("Erf", [graph.add("Mul", [z, root], f"a{k}")], f"erf{k}")
        twice = graph.add("Mul", [z, graph.add("Add", [erf, one], f"n{k}")], f"twice{k}")
        return graph.add("Mul", [twice, half], f"sigma{k}")

    return gelu


def _smooth_relu(graph: _Graph, width: float) -> Any:
    """Appends (z + √(z² + ε²))/2 without overflow or cancellation."""
    epsilon = graph.constant("epsilon", width)
    half = graph.constant("half", 0.5)
    half_epsilon = graph.constant("half_epsilon", width / 2)
    zero, one = graph.constant("zero", 0.0), graph.constant("one", 1.0)

    def smooth(z: str, k: str) -> str:
        a = graph.add("Abs", [z], f"a{k}")
        m = graph.add("Max", [a, epsilon], f"m{k}")
        q = graph.add("Div", [graph.add("Min", [a, epsilon], f"n{k}"), m], f"q{k}")
        under = graph.add("Add", [graph.add("Mul", [q, q], f"qq{k}"), one], f"under{k}")
        s = graph.add("Mul", [m, graph.add("Sqrt", [under], f"root{k}")], f"s{k}")
        t = graph.add("Add", [a, s], f"t{k}")
        right = graph.add("Mul", [t, half], f"right{k}")
        share = graph.add("Div", [epsilon, t], f"share{k}")
        left = graph.add("Mul", [share, half_epsilon], f"left{k}")
        negative = graph.add("Less", [z, zero], f"negative{k}")
        return graph.add("Where", [negative, left, right], f"sigma{k}")

    return smooth


def _labels(graph: _Graph, outputs: str, classes: tuple[str, ...]) -> None:
    """The class of the largest output in scaled units, the first of equal ones."""
    largest = graph.add("ArgMax", [outputs], "largest", axis=1, keepdims=0)
    names = graph.constant("classes", np.array(classes, dtype=object), object)
    graph.add("Gather", [names, largest], LABEL, axis=0)


# -- the file --------------------------------------------------------------------------------------


def _evaluate(model: Any, rows: NDArray, dtype: str) -> NDArray:
    """Predictions of the model by ONNX's own reference, which needs no runtime."""
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run([OUTPUT], {INPUT: rows.astype(dtype)})[0]


def _describe(model: Any, entries: dict[str, str]) -> None:
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value)


def _library() -> Any:
    try:
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise missing("to_onnx", "onnx", "onnx") from None
    return onnx
