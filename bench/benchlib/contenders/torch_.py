"""PyTorch in eager mode, with `out=` where it has one and autograd for the gradients.

Beside it our face of it, which the same user gets by changing an import.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from benchlib.contenders.base import (
    Builder,
    Job,
    UnsuitedError,
    batches,
    classes_along,
    one_from,
)
from benchlib.data import Data, draw_order, empty_like
from benchlib.truth import LEARNING_RATE, Answer
from benchlib.workloads import Workload
from softmax_ext import torch as face


def _read(result: Any) -> Answer:
    return (result.detach().numpy(),)


def _read_gradients(result: Any) -> Answer:
    """loss, dW (C, D), db and perhaps dX, as the other contenders give them."""
    loss, dW, *others = (tensor.detach().numpy() for tensor in result)
    return (loss, dW.T, *others)


def _logits(data: Data) -> torch.Tensor:
    return torch.from_numpy(data.logits)


def _with_out(op: str) -> Builder:
    """softmax and log_softmax: into a tensor made beforehand, but for small calls."""

    def build(workload: Workload, data: Data) -> Job:
        x, axis = classes_along(workload, data)
        function = partial(getattr(torch, op), torch.from_numpy(x), axis)
        if workload.small:
            return Job(function, one_from(workload))
        out = torch.from_numpy(empty_like(x, data.align))
        return Job(partial(function, out=out), one_from(workload))

    return build


def _logsumexp(workload: Workload, data: Data) -> Job:
    x, axis = classes_along(workload, data)
    return Job(partial(torch.logsumexp, torch.from_numpy(x), axis), one_from(workload))


def _cross_entropy(workload: Workload, data: Data, functional: Any = F) -> Job:
    x, y = _logits(data), torch.from_numpy(data.y)
    return Job(lambda: functional.cross_entropy(x, y), _read)


def _cross_entropy_with_grad(workload: Workload, data: Data, functional: Any = F) -> Job:
    x, y = _logits(data).requires_grad_(), torch.from_numpy(data.y)

    def run() -> Any:
        loss = functional.cross_entropy(x, y)
        return (loss, *torch.autograd.grad(loss, x))

    return Job(run, lambda result: tuple(tensor.detach().numpy() for tensor in result))


def _layer(data: Data) -> tuple[torch.Tensor, ...]:
    """X, the weight as torch.nn.Linear keeps it (C, D), b, and the labels as int64."""
    weight = torch.from_numpy(data.W).T.contiguous()
    labels = torch.from_numpy(data.y).to(torch.int64)
    return torch.from_numpy(data.X), weight, torch.from_numpy(data.b), labels


def _linear(workload: Workload, data: Data) -> Job:
    X, W, b, _ = _layer(data)
    return Job(lambda: F.linear(X, W, b), _read)


def _predict(workload: Workload, data: Data) -> Job:
    X, W, b, _ = _layer(data)
    return Job(lambda: F.linear(X, W, b).argmax(1), _read)


def _predict_proba(workload: Workload, data: Data) -> Job:
    X, W, b, _ = _layer(data)
    return Job(lambda: F.linear(X, W, b).softmax(1), _read)


def _linear_cross_entropy(workload: Workload, data: Data) -> Job:
    X, W, b, y = _layer(data)
    return Job(lambda: F.cross_entropy(F.linear(X, W, b), y), _read)


def _two_layers(X: Any, W: Any, b: Any, y: Any) -> Any:
    return F.cross_entropy(F.linear(X, W, b), y)


def _fused(X: Any, W: Any, b: Any, y: Any) -> Any:
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(X, W, y, linear_bias=b, options=options)


def _our_fused(X: Any, W: Any, b: Any, y: Any) -> Any:
    return face.linear_cross_entropy(X, W, y, linear_bias=b)


def _our_softmax(op: str) -> Builder:
    def build(workload: Workload, data: Data) -> Job:
        x, axis = classes_along(workload, data)
        return Job(partial(getattr(face, op), torch.from_numpy(x), axis), one_from(workload))

    return build


def _gradient_job(loss_of: Any, workload: Workload, data: Data) -> Job:
    X, W, b, y = _layer(data)
    W.requires_grad_()
    b.requires_grad_()
    if workload.with_dX:
        X.requires_grad_()
    wanted = [W, b, X] if workload.with_dX else [W, b]
    dtype = W.dtype

    def gradients(X: Any, y: Any) -> Any:
        if X.dtype != dtype:
            X = X.to(dtype).mul_(data.x_scale)
        loss = loss_of(X, W, b, y)
        return (loss, *torch.autograd.grad(loss, wanted))

    if not data.batches:
        return Job(lambda: gradients(X, y), _read_gradients)
    next_batch = batches(data)

    def run_batch() -> Any:
        rows = torch.from_numpy(next_batch())
        return gradients(X[rows], y[rows])

    return Job(run_batch, _read_gradients)


def _fused_gradient_job(workload: Workload, data: Data) -> Job:
    if not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        raise UnsuitedError("this PyTorch has no chunked linear_cross_entropy")
    if not workload.size.startswith(("text", "vocab")):
        raise UnsuitedError("made for many classes")
    return _gradient_job(_fused, workload, data)


def _epoch(workload: Workload, data: Data) -> Job:
    X, _, _, y = _layer(data)
    dtype = getattr(torch, workload.dtype)

    def run() -> Any:
        W = torch.zeros((workload.classes, workload.features), dtype=dtype, requires_grad=True)
        b = torch.zeros(workload.classes, dtype=dtype, requires_grad=True)
        total = torch.zeros(())
        order = torch.from_numpy(draw_order(workload))
        for start in range(0, workload.rows, workload.batch):
            rows = order[start : start + workload.batch]
            batch = X[rows]
            if batch.dtype != dtype:
                batch = batch.to(dtype).mul_(data.x_scale)
            loss = _two_layers(batch, W, b, y[rows])
            dW, db = torch.autograd.grad(loss, (W, b))
            with torch.no_grad():
                W.sub_(dW, alpha=LEARNING_RATE)
                b.sub_(db, alpha=LEARNING_RATE)
                total += loss * len(rows)
        return W, b, total / workload.rows

    def read(result: Any) -> Answer:
        W, b, _ = result
        return W.detach().numpy().T, b.detach().numpy()

    return Job(run, read)


CONTENDERS: dict[str, dict[str, Builder]] = {
    "PyTorch": {
        "softmax": _with_out("softmax"),
        "log_softmax": _with_out("log_softmax"),
        "logsumexp": _logsumexp,
        "cross_entropy": _cross_entropy,
        "cross_entropy_with_grad": _cross_entropy_with_grad,
        "linear": _linear,
        "predict": _predict,
        "predict_proba": _predict_proba,
        "linear_cross_entropy": _linear_cross_entropy,
        "linear_cross_entropy_with_grad": partial(_gradient_job, _two_layers),
        "epoch": _epoch,
    },
    "PyTorch, chunked": {
        "linear_cross_entropy_with_grad": _fused_gradient_job,
    },
    # Ours again, called through PyTorch's tensors and autograd: no peer.
    "ours, by softmax_ext.torch": {
        "softmax": _our_softmax("softmax"),
        "log_softmax": _our_softmax("log_softmax"),
        "cross_entropy": partial(_cross_entropy, functional=face),
        "cross_entropy_with_grad": partial(_cross_entropy_with_grad, functional=face),
        "linear_cross_entropy_with_grad": partial(_gradient_job, _our_fused),
    },
}
