"""Contenders with the interface of the package's kernels: the compiled ones and the reference."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import softmax_ext as sx
from benchlib.contenders import Builder, Job, arrays, next_batch
from benchlib.data import LEARNING_RATE, Data, empty
from benchlib.workloads import Workload


def builders(kernels: Any) -> dict[str, Builder]:
    """Return a builder for every operation `kernels` (a handle, or `reference`) can do."""
    return {op: partial(build, kernels) for op, build in _BUILDERS.items()}


def from_floats(kernels: Any) -> Builder:
    """Return what builds the gradient of bytes on a float copy of X made beforehand."""

    def build(workload: Workload, data: Data) -> Any:
        X = empty(data.X.shape, workload.dtype, data.align)
        X[...] = data.X
        function = partial(
            kernels.linear_cross_entropy_with_grad, X, data.W, data.b, data.y, x_scale=data.x_scale
        )
        return Job(partial(function, out=function()), _gradients)

    return build


def _axis(data: Data) -> dict[str, int]:
    """The axis of the classes, where a user would have to name it."""
    return {} if data.axis == -1 else {"axis": data.axis}


def _plain(kernels: Any, workload: Workload, data: Data) -> Any:
    function = getattr(kernels, workload.op)
    if workload.op == "kl_divergence":
        return partial(function, data.p, data.q)
    if workload.op == "entropy":
        return partial(function, data.p)
    if workload.op == "logsumexp":
        return partial(function, data.logits, **_axis(data))
    return partial(function, data.logits, data.y)


def _elementwise(kernels: Any, workload: Workload, data: Data) -> Any:
    """Into an array made beforehand, but for small calls."""
    function = getattr(kernels, workload.op)
    if workload.small:
        return partial(function, data.logits)
    out = empty(data.logits.shape, workload.dtype, data.align)
    return partial(function, data.logits, out=out, **_axis(data))


def _layer(kernels: Any, workload: Workload, data: Data) -> Any:
    labels = [data.y] if workload.op == "linear_cross_entropy" else []
    scale = {} if workload.small else {"x_scale": data.x_scale}
    return partial(getattr(kernels, workload.op), data.X, data.W, data.b, *labels, **scale)


def _linear(kernels: Any, workload: Workload, data: Data) -> Any:
    out = empty((workload.rows, workload.classes), workload.dtype, data.align)
    return partial(kernels.linear, data.X, data.W, data.b, x_scale=data.x_scale, out=out)


def _cross_entropy_with_grad(kernels: Any, workload: Workload, data: Data) -> Any:
    out = empty(data.logits.shape, workload.dtype, data.align)
    return partial(kernels.cross_entropy_with_grad, data.logits, data.y, out=out)


def _gradient(kernels: Any, workload: Workload, data: Data) -> Any:
    function = partial(
        kernels.linear_cross_entropy_with_grad, data.X, data.W, data.b, data.y,
        x_scale=data.x_scale, with_dX=workload.with_dX,
    )  # fmt: skip
    if not data.batches:
        return Job(partial(function, out=function()), _gradients)
    rows, out = next_batch(data), function(rows=data.batches[0])
    return Job(lambda: function(rows=rows(), out=out), _gradients)


def _hessian_product(kernels: Any, workload: Workload, data: Data) -> Any:
    function = partial(
        kernels.linear_cross_entropy_hvp, data.X, data.W, data.b, data.y, data.V, data.v,
        x_scale=data.x_scale,
    )  # fmt: skip
    return Job(partial(function, out=function()), arrays)


def _gradients(result: Any) -> Any:
    return arrays((result.loss, result.dW, result.db, result.dX))


def _epoch(kernels: Any, workload: Workload, data: Data) -> Any:
    trainer = sx.Trainer(
        epochs=1, batch_size=workload.batch, learning_rate=LEARNING_RATE, kernels=kernels
    )

    def run() -> Any:
        W = np.zeros((workload.features, workload.classes), dtype=workload.dtype)
        b = np.zeros(workload.classes, dtype=workload.dtype)
        model = sx.SoftmaxModel(W, b, x_scale=data.x_scale)
        trainer.fit(model, data.X, data.y)
        return model

    return Job(run, lambda model: arrays((model.W, model.b)))


_BUILDERS = {
    **dict.fromkeys(("logsumexp", "cross_entropy", "entropy", "kl_divergence"), _plain),
    **dict.fromkeys(("softmax", "log_softmax"), _elementwise),
    **dict.fromkeys(("predict", "predict_proba", "linear_cross_entropy"), _layer),
    "linear": _linear,
    "cross_entropy_with_grad": _cross_entropy_with_grad,
    "linear_cross_entropy_with_grad": _gradient,
    "linear_cross_entropy_hvp": _hessian_product,
    "epoch": _epoch,
}
