"""Contenders with the interface of the package's kernels: the compiled ones and the reference."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchlib.contenders.base import Builder, Job, UnsuitedError, batches, one
from benchlib.data import Data, empty, empty_like
from benchlib.truth import LEARNING_RATE, Answer
from benchlib.workloads import Workload


def builders(kernels: Any) -> dict[str, Builder]:
    """Return a builder for every operation `kernels` (a handle, or `reference`) can do."""
    return {op: partial(build, kernels) for op, build in _BUILDERS.items()}


def from_floats(kernels: Any) -> dict[str, Builder]:
    """Return builders that do the uint8 jobs on a float32 copy of X made beforehand."""

    def build(workload: Workload, data: Data) -> Job:
        if workload.x_dtype != "uint8":
            raise UnsuitedError("X is not uint8")
        X = empty(data.X.shape, workload.dtype, data.align)
        X[...] = data.X
        args = X, data.W, data.b, data.y
        out = kernels.linear_cross_entropy_with_grad(*args, x_scale=data.x_scale)
        run = partial(kernels.linear_cross_entropy_with_grad, *args, x_scale=data.x_scale, out=out)
        return Job(run, _read_gradients)

    return {"linear_cross_entropy_with_grad": build}


def _elementwise(op: str) -> Any:
    """softmax and log_softmax: into an array made beforehand, but for small calls."""

    def build(kernels: Any, workload: Workload, data: Data) -> Job:
        function = getattr(kernels, op)
        if workload.small:
            return Job(partial(function, data.logits), one)
        out = empty_like(data.logits, data.align)
        return Job(partial(function, data.logits, out=out), one)

    return build


def _logsumexp(kernels: Any, workload: Workload, data: Data) -> Job:
    return Job(partial(kernels.logsumexp, data.logits), one)


def _cross_entropy(kernels: Any, workload: Workload, data: Data) -> Job:
    return Job(partial(kernels.cross_entropy, data.logits, data.y), one)


def _cross_entropy_with_grad(kernels: Any, workload: Workload, data: Data) -> Job:
    out = empty(data.logits.shape, workload.dtype, data.align)
    run = partial(kernels.cross_entropy_with_grad, data.logits, data.y, out=out)
    return Job(run, lambda result: (np.asarray(result.loss), result.dlogits))


def _linear(kernels: Any, workload: Workload, data: Data) -> Job:
    out = empty((workload.rows, workload.classes), workload.dtype, data.align)
    run = partial(kernels.linear, data.X, data.W, data.b, x_scale=data.x_scale, out=out)
    return Job(run, one)


def _predict(kernels: Any, workload: Workload, data: Data) -> Job:
    return Job(partial(kernels.predict, data.X, data.W, data.b, x_scale=data.x_scale), one)


def _predict_proba(kernels: Any, workload: Workload, data: Data) -> Job:
    if workload.small:
        return Job(partial(kernels.predict_proba, data.X, data.W, data.b), one)
    return Job(partial(kernels.predict_proba, data.X, data.W, data.b, x_scale=data.x_scale), one)


def _linear_cross_entropy(kernels: Any, workload: Workload, data: Data) -> Job:
    args = data.X, data.W, data.b, data.y
    return Job(partial(kernels.linear_cross_entropy, *args, x_scale=data.x_scale), one)


def _linear_cross_entropy_with_grad(kernels: Any, workload: Workload, data: Data) -> Job:
    function = partial(
        kernels.linear_cross_entropy_with_grad,
        data.X,
        data.W,
        data.b,
        data.y,
        x_scale=data.x_scale,
        with_dX=workload.with_dX,
    )
    if not data.batches:
        return Job(partial(function, out=function()), _read_gradients)
    next_batch = batches(data)
    out = function(rows=data.batches[0])
    return Job(lambda: function(rows=next_batch(), out=out), _read_gradients)


def _read_gradients(result: Any) -> Answer:
    arrays = (result.dW, result.db, result.dX)
    return (np.asarray(result.loss), *(array for array in arrays if array is not None))


def _entropy(kernels: Any, workload: Workload, data: Data) -> Job:
    return Job(partial(kernels.entropy, data.p), one)


def _kl_divergence(kernels: Any, workload: Workload, data: Data) -> Job:
    return Job(partial(kernels.kl_divergence, data.p, data.q), one)


def _epoch(kernels: Any, workload: Workload, data: Data) -> Job:
    from softmax_ext.model import SoftmaxModel
    from softmax_ext.training import Trainer

    trainer = Trainer(
        epochs=1, batch_size=workload.batch, learning_rate=LEARNING_RATE, kernels=kernels
    )

    def run() -> SoftmaxModel:
        W = np.zeros((workload.features, workload.classes), dtype=workload.dtype)
        b = np.zeros(workload.classes, dtype=workload.dtype)
        model = SoftmaxModel(W, b, x_scale=data.x_scale)
        trainer.fit(model, data.X, data.y)
        return model

    return Job(run, lambda model: (model.W, model.b))


_BUILDERS = {
    "softmax": _elementwise("softmax"),
    "log_softmax": _elementwise("log_softmax"),
    "logsumexp": _logsumexp,
    "cross_entropy": _cross_entropy,
    "cross_entropy_with_grad": _cross_entropy_with_grad,
    "linear": _linear,
    "predict": _predict,
    "predict_proba": _predict_proba,
    "linear_cross_entropy": _linear_cross_entropy,
    "linear_cross_entropy_with_grad": _linear_cross_entropy_with_grad,
    "entropy": _entropy,
    "kl_divergence": _kl_divergence,
    "epoch": _epoch,
}
