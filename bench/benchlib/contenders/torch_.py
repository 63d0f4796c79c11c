"""PyTorch in eager mode, with `out=` where it has one and autograd for the gradients.

Beside it our face of it, which the same user gets by changing an import.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from benchlib.contenders import Builder, Job, arrays, dense, next_batch
from benchlib.data import LEARNING_RATE, Data, UnsuitedError, empty, order_of
from benchlib.workloads import Workload
from softmax_ext import torch as face


def _of_logits(workload: Workload, data: Data) -> Any:
    """softmax and log_softmax into a tensor made beforehand, but for small calls."""
    function = partial(getattr(torch, workload.op), torch.from_numpy(data.logits), data.axis)
    if workload.small or workload.op == "logsumexp":
        return function
    return partial(
        function, out=torch.from_numpy(empty(data.logits.shape, workload.dtype, data.align))
    )


def _our_softmax(workload: Workload, data: Data) -> Any:
    return partial(getattr(face, workload.op), torch.from_numpy(data.logits), data.axis)


def _cross_entropy(functional: Any, workload: Workload, data: Data) -> Any:
    x, y = torch.from_numpy(data.logits), torch.from_numpy(data.y)
    if workload.op == "cross_entropy":
        return lambda: functional.cross_entropy(x, y)
    x.requires_grad_()

    def run() -> Any:
        loss = functional.cross_entropy(x, y)
        return (loss, *torch.autograd.grad(loss, x))

    return run


def _layer(data: Data) -> tuple[torch.Tensor, ...]:
    """X, the weight as torch.nn.Linear keeps it (C, D), b, and the labels as int64."""
    weight = torch.from_numpy(data.W).T.contiguous()
    labels = torch.from_numpy(data.y).to(torch.int64)
    return torch.from_numpy(data.X), weight, torch.from_numpy(data.b), labels


def _of_layer(function: Any, workload: Workload, data: Data) -> Any:
    X, W, b, y = _layer(data)
    return partial(function, X, W, b, y)


def _loss(X: Any, W: Any, b: Any, y: Any) -> Any:
    return F.cross_entropy(F.linear(X, W, b), y)


def _chunked(X: Any, W: Any, b: Any, y: Any) -> Any:
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(X, W, y, linear_bias=b, options=options)


def _our_loss(X: Any, W: Any, b: Any, y: Any) -> Any:
    return face.linear_cross_entropy(X, W, y, linear_bias=b)


def _read_gradients(result: Any) -> Any:
    """loss, dW (C, D), db and perhaps dX, as the other contenders give them."""
    loss, dW, *others = result
    return arrays((loss, dW.T, *others))


def _gradient(loss_of: Any, workload: Workload, data: Data) -> Job:
    dense(workload)
    if loss_of is _chunked and not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        raise UnsuitedError("this PyTorch has no chunked linear_cross_entropy")
    if loss_of is _chunked and not workload.size.startswith(("text", "vocab")):
        raise UnsuitedError("made for many classes")
    X, W, b, y = _layer(data)
    wanted = [W, b, X] if workload.with_dX else [W, b]
    for tensor in wanted:
        tensor.requires_grad_()

    def gradients(X: Any, y: Any) -> Any:
        if X.dtype != W.dtype:
            X = X.to(W.dtype).mul_(data.x_scale)
        loss = loss_of(X, W, b, y)
        return (loss, *torch.autograd.grad(loss, wanted))

    if not data.batches:
        return Job(lambda: gradients(X, y), _read_gradients)
    batch = next_batch(data)

    def run_batch() -> Any:
        rows = torch.from_numpy(batch())
        return gradients(X[rows], y[rows])

    return Job(run_batch, _read_gradients)


def _epoch(workload: Workload, data: Data) -> Job:
    X, _, _, y = _layer(data)
    dtype = getattr(torch, workload.dtype)

    def run() -> Any:
        W = torch.zeros((workload.classes, workload.features), dtype=dtype, requires_grad=True)
        b = torch.zeros(workload.classes, dtype=dtype, requires_grad=True)
        total = torch.zeros(())
        order = torch.from_numpy(order_of(workload))
        for rows in order.split(workload.batch):
            batch = X[rows]
            if batch.dtype != dtype:
                batch = batch.to(dtype).mul_(data.x_scale)
            loss = _loss(batch, W, b, y[rows])
            dW, db = torch.autograd.grad(loss, (W, b))
            with torch.no_grad():
                W.sub_(dW, alpha=LEARNING_RATE)
                b.sub_(db, alpha=LEARNING_RATE)
                total += loss * len(rows)
        return W.detach().T, b

    return Job(run)


CONTENDERS: dict[str, dict[str, Builder]] = {
    "PyTorch": {
        **dict.fromkeys(("softmax", "log_softmax", "logsumexp"), _of_logits),
        **dict.fromkeys(("cross_entropy", "cross_entropy_with_grad"), partial(_cross_entropy, F)),
        "linear": partial(_of_layer, lambda X, W, b, y: F.linear(X, W, b)),
        "predict": partial(_of_layer, lambda X, W, b, y: F.linear(X, W, b).argmax(1)),
        "predict_proba": partial(_of_layer, lambda X, W, b, y: F.linear(X, W, b).softmax(1)),
        "linear_cross_entropy": partial(_of_layer, _loss),
        "linear_cross_entropy_with_grad": partial(_gradient, _loss),
        "epoch": _epoch,
    },
    "PyTorch, chunked": {"linear_cross_entropy_with_grad": partial(_gradient, _chunked)},
    # Ours again, called through PyTorch's tensors and autograd: no peer.
    "ours, by softmax_ext.torch": {
        **dict.fromkeys(("softmax", "log_softmax"), _our_softmax),
        **dict.fromkeys(
            ("cross_entropy", "cross_entropy_with_grad"), partial(_cross_entropy, face)
        ),
        "linear_cross_entropy_with_grad": partial(_gradient, _our_loss),
    },
}
