"""Makes skl2onnx convert the estimators of `softmax_ext.sklearn`, alone and in pipelines.

``import softmax_ext.sklearn.onnx`` registers the converters; nothing else has to be called. They
take float, double, int64 and uint8 inputs, `x_scale` included, compute in the dtype of ``coef_`` or
in the input's if that is wider, and know the options ``zipmap``, ``output_class_labels`` and
``nocl``. It is a module of its own because skl2onnx takes half a second to import.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..export.onnx import layer
from ._logistic import LogisticRegression
from ._softmax import SoftmaxRegression
from ._weights import of_all_classes

try:
    from skl2onnx import update_registered_converter
    from skl2onnx.common.data_types import (
        DoubleTensorType,
        FloatTensorType,
        Int64TensorType,
        StringTensorType,
        UInt8TensorType,
    )
    from skl2onnx.common.utils_classifier import get_label_classes
    from skl2onnx.proto import onnx_proto
except ImportError as error:
    raise ImportError(
        "softmax_ext.sklearn.onnx needs skl2onnx: pip install skl2onnx", name=error.name
    ) from error

_DTYPES = {
    FloatTensorType: np.float32,
    DoubleTensorType: np.float64,
    Int64TensorType: np.int64,
    UInt8TensorType: np.uint8,
}
_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "output_class_labels": [False, True],
    "nocl": [True, False],
}


def _x_dtype(operator: Any) -> np.dtype[Any]:
    kind = type(operator.inputs[0].type)
    if kind not in _DTYPES:
        raise TypeError(
            f"{type(operator.raw_operator).__name__}: input {kind.__name__} came, one of "
            f"{sorted(known.__name__ for known in _DTYPES)} was wanted"
        )
    return np.dtype(_DTYPES[kind])


def _labels(scope: Any, estimator: Any) -> Any:
    """Return the labels as ONNX has them: int64 or strings."""
    classes = np.asarray(get_label_classes(scope, estimator))
    if all(isinstance(label, str) for label in classes):
        return classes.astype(object)
    labels = classes.astype(np.int64)
    if (labels != classes).any():
        raise ValueError(f"classes_: {classes!r:.80} came, strings or 64-bit integers were wanted")
    return labels


def _set_output_types(operator: Any) -> None:
    labels = _labels(operator.scope_inst, operator.raw_operator)
    N = operator.inputs[0].get_first_dimension()
    label_type = StringTensorType if labels.dtype == object else Int64TensorType
    number_type = DoubleTensorType if _x_dtype(operator) == np.float64 else FloatTensorType
    operator.outputs[0].set_type(label_type([N]))
    operator.outputs[1].set_type(number_type([N, len(labels)]))


def _convert(scope: Any, operator: Any, container: Any) -> None:
    estimator, x_dtype = operator.raw_operator, _x_dtype(operator)
    label, probabilities = (output.full_name for output in operator.outputs)
    W, b = of_all_classes(*estimator._fitted())
    X = operator.inputs[0].full_name
    nodes, constants = layer(W, b, estimator._x_scale, X, x_dtype, "logits")
    names: dict[str, str] = {X: X}

    def name(short: str) -> str:
        if short not in names:
            names[short] = scope.get_unique_variable_name(short)
        return names[short]

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        container.add_node(
            op, inputs, output, name=scope.get_unique_operator_name(op), **attributes
        )

    def constant(short: str, kind: int, values: Any) -> None:
        container.add_initializer(name(short), kind, list(values.shape), values.ravel().tolist())

    proto = onnx_proto.TensorProto
    for short, values in constants.items():
        constant(short, proto.DOUBLE if values.dtype == np.float64 else proto.FLOAT, values)
    for node in nodes:
        add(node.op, [name(i) for i in node.inputs], name(node.output), **node.attributes)
    add("Softmax", [name("logits")], name("p"), axis=1)
    wanted = proto.DOUBLE if x_dtype == np.float64 else proto.FLOAT
    add("Cast", [name("p")], probabilities, to=wanted)
    labels = _labels(scope, estimator)
    if labels.dtype == object:
        constant("classes", proto.STRING, np.array([text.encode() for text in labels]))
    else:
        constant("classes", proto.INT64, labels)
    add("ArgMax", [name("logits")], name("index"), axis=1, keepdims=0)
    add("Gather", [name("classes"), name("index")], label, axis=0)


for _estimator in (LogisticRegression, SoftmaxRegression):
    update_registered_converter(
        _estimator,
        f"SoftmaxExt{_estimator.__name__}",
        _set_output_types,
        _convert,
        options=_OPTIONS,
    )
