"""NumPy as a careful user writes it: in place, into arrays made once, nothing computed twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchlib.contenders.base import Builder, Job, batches, one
from benchlib.data import Data, draw_order, empty, empty_like
from benchlib.truth import LEARNING_RATE
from benchlib.workloads import Workload

#: Rows of X converted at a time where it is stored as uint8: the floats stay in the cache.
UINT8_BLOCK = 2048


def _softmax_rows(x: NDArray[Any], out: NDArray[Any]) -> None:
    np.subtract(x, x.max(axis=1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=1, keepdims=True)


def _softmax(workload: Workload, data: Data) -> Job:
    x = data.logits
    out = empty_like(x, data.align)

    def run() -> NDArray[Any]:
        _softmax_rows(x, out)
        return out

    return Job(run, one)


def _log_softmax(workload: Workload, data: Data) -> Job:
    x = data.logits
    out, work = (empty(x.shape, workload.dtype, data.align) for _ in range(2))

    def run() -> NDArray[Any]:
        np.subtract(x, x.max(axis=1, keepdims=True), out=out)
        np.exp(out, out=work)
        np.subtract(out, np.log(work.sum(axis=1, keepdims=True)), out=out)
        return out

    return Job(run, one)


def _logsumexp(workload: Workload, data: Data) -> Job:
    x = data.logits
    work = empty_like(x, data.align)

    def run() -> NDArray[Any]:
        largest = x.max(axis=1, keepdims=True)
        np.subtract(x, largest, out=work)
        np.exp(work, out=work)
        return np.log(work.sum(axis=1)) + largest[:, 0]

    return Job(run, one)


def _gradient_of_rows(
    o: NDArray[Any], y: NDArray[Any], at: NDArray[Any], count: int, out: NDArray[Any]
) -> float:
    """Write the gradient of the rows' losses, divided by `count`, to `out`; return their sum.

    `out` may be `o`.
    """
    np.subtract(o, o.max(axis=1, keepdims=True), out=out)
    picked = out[at, y]
    np.exp(out, out=out)
    total = out.sum(axis=1, keepdims=True)
    loss = np.log(total).sum(dtype=np.float64) - picked.sum(dtype=np.float64)
    total *= count
    out /= total
    out[at, y] -= o.dtype.type(1 / count)
    return float(loss) / count


def _cross_entropy(workload: Workload, data: Data) -> Job:
    x, y = data.logits, data.y
    at = np.arange(len(x))
    work = empty(x.shape, workload.dtype, data.align)

    def run() -> float:
        np.subtract(x, x.max(axis=1, keepdims=True), out=work)
        picked = work[at, y]
        np.exp(work, out=work)
        losses = np.log(work.sum(axis=1))
        losses -= picked
        return float(losses.mean(dtype=np.float64))

    return Job(run, one)


def _cross_entropy_with_grad(workload: Workload, data: Data) -> Job:
    x, y = data.logits, data.y
    at = np.arange(len(x))
    out = empty(x.shape, workload.dtype, data.align)
    return Job(
        lambda: (_gradient_of_rows(x, y, at, len(x), out), out),
        lambda result: (np.asarray(result[0]), result[1]),
    )


def _linear(workload: Workload, data: Data) -> Job:
    out = empty((workload.rows, workload.classes), workload.dtype, data.align)

    def run() -> NDArray[Any]:
        np.matmul(data.X, data.W, out=out)
        np.add(out, data.b, out=out)
        return out

    return Job(run, one)


def _predict(workload: Workload, data: Data) -> Job:
    logits = _linear(workload, data).run
    return Job(lambda: logits().argmax(axis=1), one)


def _predict_proba(workload: Workload, data: Data) -> Job:
    logits = _linear(workload, data).run

    def run() -> NDArray[Any]:
        o = logits()
        _softmax_rows(o, o)
        return o

    return Job(run, one)


def _linear_cross_entropy(workload: Workload, data: Data) -> Job:
    logits = _linear(workload, data).run
    y, at = data.y, np.arange(workload.rows)

    def run() -> float:
        o = logits()
        o -= o.max(axis=1, keepdims=True)
        picked = o[at, y]
        np.exp(o, out=o)
        losses = np.log(o.sum(axis=1))
        losses -= picked
        return float(losses.mean(dtype=np.float64))

    return Job(run, one)


def _step(workload: Workload, data: Data, n: int) -> Callable[..., tuple[Any, ...]]:
    """Return a function (X, y, W, b) -> loss, dW, db, dX for at most `n` rows at a time."""
    dtype, align = np.dtype(workload.dtype), data.align
    d, c = workload.features, workload.classes
    logits = empty((n, c), dtype, align)
    dW, db = empty((d, c), dtype, align), empty((c,), dtype, align)
    dX = empty((n, d), dtype, align) if workload.with_dX else None
    at = np.arange(n)

    def step(X: NDArray[Any], y: NDArray[Any], W: NDArray[Any], b: NDArray[Any], count: int) -> Any:
        G = logits[: len(X)]
        np.matmul(X, W, out=G)
        np.add(G, b, out=G)
        loss = _gradient_of_rows(G, y, at[: len(X)], count, G)
        np.matmul(X.T, G, out=dW)
        np.sum(G, axis=0, out=db)
        if dX is not None:
            np.matmul(G, W.T, out=dX)
        return loss, dW, db, dX

    return step


def _read_gradients(result: Any) -> tuple[Any, ...]:
    loss, *arrays = result
    return (np.asarray(loss), *(array for array in arrays if array is not None))


def _linear_cross_entropy_with_grad(workload: Workload, data: Data) -> Job:
    X, y, W, b = data.X, data.y, data.W, data.b
    n = workload.rows_per_call
    if data.batches:
        step, next_batch = _step(workload, data, n), batches(data)
        gathered = empty((n, workload.features), X.dtype, data.align)

        def run_batch() -> Any:
            rows = next_batch()
            # mode="clip": with the default mode, out= would go through a second buffer.
            np.take(X, rows, axis=0, out=gathered, mode="clip")
            return step(gathered, y[rows], W, b, n)

        return Job(run_batch, _read_gradients)
    if workload.x_dtype == "uint8":
        return Job(_uint8_run(workload, data), _read_gradients)
    step = _step(workload, data, n)
    return Job(lambda: step(X, y, W, b, n), _read_gradients)


def _uint8_run(workload: Workload, data: Data) -> Callable[[], Any]:
    n, block = workload.rows, min(workload.rows, UINT8_BLOCK)
    step = _step(workload, data, block)
    floats = empty((block, workload.features), workload.dtype, data.align)
    dW, db = np.empty_like(data.W), np.empty_like(data.b)
    scale = floats.dtype.type(data.x_scale)

    def run() -> Any:
        loss = 0.0
        dW[...] = 0
        db[...] = 0
        for start in range(0, n, block):
            rows = slice(start, min(n, start + block))
            X = floats[: rows.stop - start]
            np.multiply(data.X[rows], scale, out=X)
            part, dW_part, db_part, _ = step(X, data.y[rows], data.W, data.b, n)
            loss += part
            np.add(dW, dW_part, out=dW)
            np.add(db, db_part, out=db)
        return loss, dW, db, None

    return run


def _entropy(workload: Workload, data: Data) -> Job:
    # Every probability of the workload is positive, so 0 log 0 needs no care here.
    p, work = data.p, empty(data.p.shape, workload.dtype, data.align)

    def run() -> NDArray[Any]:
        np.log(p, out=work)
        np.multiply(work, p, out=work)
        return -work.sum(axis=1)

    return Job(run, one)


def _kl_divergence(workload: Workload, data: Data) -> Job:
    p, q, work = data.p, data.q, empty(data.p.shape, workload.dtype, data.align)

    def run() -> NDArray[Any]:
        np.divide(p, q, out=work)
        np.log(work, out=work)
        np.multiply(work, p, out=work)
        return work.sum(axis=1)

    return Job(run, one)


def _epoch(workload: Workload, data: Data) -> Job:
    dtype = np.dtype(workload.dtype)
    step = _step(workload, data, workload.batch)
    gathered = empty((workload.batch, workload.features), data.X.dtype, data.align)
    floats = empty(gathered.shape, dtype, data.align)
    rate, scale = dtype.type(LEARNING_RATE), dtype.type(data.x_scale)

    def run() -> Any:
        W = np.zeros((workload.features, workload.classes), dtype)
        b = np.zeros(workload.classes, dtype)
        loss = 0.0
        order = draw_order(workload)
        for start in range(0, workload.rows, workload.batch):
            rows = order[start : start + workload.batch]
            X = np.take(data.X, rows, axis=0, out=gathered[: len(rows)], mode="clip")
            if X.dtype != dtype:
                X = np.multiply(X, scale, out=floats[: len(rows)])
            part, dW, db, _ = step(X, data.y[rows], W, b, len(rows))
            loss += part * len(rows)
            np.multiply(dW, rate, out=dW)
            np.subtract(W, dW, out=W)
            np.multiply(db, rate, out=db)
            np.subtract(b, db, out=b)
        return W, b, loss / workload.rows

    return Job(run, lambda result: result[:2])


CONTENDERS: dict[str, dict[str, Builder]] = {
    "NumPy": {
        "softmax": _softmax,
        "log_softmax": _log_softmax,
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
}
