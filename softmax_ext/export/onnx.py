"""A model as an ONNX graph: ``label, probabilities = softmax(x_scale * X W + b)``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._files import writing

_Array: TypeAlias = NDArray[Any]

#: The operators' version: that of ONNX 1.8, with which a softmax is over one axis.
OPSET = 13
#: Of the file: that of ONNX 1.8 too, which every runtime since then reads.
_IR_VERSION = 7
_INPUT_TYPES = ("uint8", "float32", "float64")


@dataclass(frozen=True)
class Node:
    """One operation of a graph, by the names of what goes in and what comes out."""

    op: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


def layer(
    W: _Array, b: _Array | None, x_scale: float, X: str, x_dtype: np.dtype[Any], logits: str
) -> tuple[list[Node], dict[str, _Array]]:
    """Return the operations from X to the logits, and the constants that they take.

    Computes in the dtype that the kernels compute in: that of W for bytes, else the wider one.
    """
    dtype = W.dtype if x_dtype == np.uint8 else np.result_type(W, x_dtype)
    constants = {"W": np.ascontiguousarray(W, dtype)}
    nodes = []
    if x_dtype != dtype:
        nodes.append(Node("Cast", [X], "x", {"to": _onnx().helper.np_dtype_to_tensor_dtype(dtype)}))
        X = "x"
    steps = [("MatMul", "W")]
    if x_scale != 1:
        constants["x_scale"] = np.array(x_scale, dtype)
        steps.append(("Mul", "x_scale"))
    if b is not None:
        constants["b"] = b.astype(dtype)
        steps.append(("Add", "b"))
    for i, (op, constant) in enumerate(steps):
        output = logits if i == len(steps) - 1 else op.lower()
        nodes.append(Node(op, [X, constant], output, {}))
        X = output
    return nodes, constants


def write(
    path: str | os.PathLike[str],
    W: _Array,
    b: _Array | None,
    classes: _Array | None,
    x_scale: float,
    input_dtype: DTypeLike | None,
) -> None:
    """Write the graph of a model to a file; see `SoftmaxModel.to_onnx`."""
    onnx = _onnx()
    make, from_array = onnx.helper, onnx.numpy_helper.from_array
    x_dtype = np.dtype(W.dtype if input_dtype is None else input_dtype)
    if x_dtype.name not in _INPUT_TYPES:
        raise TypeError(f"input_dtype: {x_dtype} came, one of {_INPUT_TYPES} was wanted")
    nodes, constants = layer(W, b, x_scale, "X", x_dtype, "logits")
    nodes.append(Node("Softmax", ["logits"], "probabilities", {"axis": 1}))
    index = "label" if classes is None else "index"
    nodes.append(Node("ArgMax", ["logits"], index, {"axis": 1, "keepdims": 0}))
    labels = np.zeros(0, np.int64) if classes is None else classes
    if classes is not None:
        nodes.append(Node("Gather", ["classes", "index"], "label", {"axis": 0}))
        constants["classes"] = labels.astype(object) if labels.dtype.kind == "U" else labels

    def tensor(name: str, dtype: np.dtype[Any], *shape: Any) -> Any:
        strings = dtype.kind == "U"
        kind = onnx.TensorProto.STRING if strings else make.np_dtype_to_tensor_dtype(dtype)
        return make.make_tensor_value_info(name, kind, ["N", *shape])

    D, C = W.shape
    graph = make.make_graph(
        [make.make_node(n.op, n.inputs, [n.output], **n.attributes) for n in nodes],
        "softmax_regression",
        [tensor("X", x_dtype, D)],
        [tensor("label", labels.dtype), tensor("probabilities", constants["W"].dtype, C)],
        [from_array(value, name) for name, value in constants.items()],
    )
    model = make.make_model(
        graph,
        producer_name="softmax_ext",
        opset_imports=[make.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
    )
    onnx.checker.check_model(model)
    with writing(path) as file:
        file.write(model.SerializeToString())


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "ONNX files need the package onnx: pip install 'softmax-ext[onnx]'", name=error.name
        ) from error
    return onnx
