"""NumPy as a careful user writes it: in place, into arrays made once, nothing computed twice.

And the bare minimum: the matrix products alone, a copy alone, or an epoch's kernel calls alone.
Those do less than the job, so they are no peers; they say what the job's heaviest part costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import softmax_ext as sx
from benchlib.contenders import Builder, Job, dense, next_batch
from benchlib.data import LEARNING_RATE, Data, UnsuitedError, empty, order_of
from benchlib.truth import Answer
from benchlib.workloads import Workload

#: Rows of X converted at a time where it is no floats yet: the floats stay in the cache.
WIDENED = 2048

Array = NDArray[Any]


def _softmax_rows(x: Array, out: Array, axis: int = 1) -> Array:
    np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=axis, keepdims=True)
    return out


def _mean_loss(x: Array, y: Array, at: Array, work: Array) -> float:
    np.subtract(x, x.max(axis=1, keepdims=True), out=work)
    picked = work[at, y]
    np.exp(work, out=work)
    losses = np.log(work.sum(axis=1))
    losses -= picked
    return float(losses.mean(dtype=np.float64))


def _gradient_of_rows(o: Array, y: Array, at: Array, count: int, out: Array) -> float:
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


def _of_logits(workload: Workload, data: Data) -> Callable[[], Any]:
    x, y, axis, at = data.logits, data.y, data.axis, np.arange(workload.rows)
    out, work = (empty(x.shape, workload.dtype, data.align) for _ in range(2))

    def log_softmax() -> Array:
        np.subtract(x, x.max(axis=1, keepdims=True), out=out)
        np.exp(out, out=work)
        return np.subtract(out, np.log(work.sum(axis=1, keepdims=True)), out=out)

    def logsumexp() -> Array:
        largest = x.max(axis=axis, keepdims=True)
        np.subtract(x, largest, out=work)
        np.exp(work, out=work)
        return np.log(work.sum(axis=axis)) + np.squeeze(largest, axis)

    runs: dict[str, Callable[[], Any]] = {
        "softmax": lambda: _softmax_rows(x, out, axis),
        "log_softmax": log_softmax,
        "logsumexp": logsumexp,
        "cross_entropy": lambda: _mean_loss(x, y, at, work),
        "cross_entropy_with_grad": lambda: (_gradient_of_rows(x, y, at, len(x), out), out),
    }
    return runs[workload.op]


def _of_layer(workload: Workload, data: Data) -> Callable[[], Any]:
    y, at = data.y, np.arange(workload.rows)
    out = empty((workload.rows, workload.classes), workload.dtype, data.align)

    def logits() -> Array:
        np.matmul(data.X, data.W, out=out)
        return np.add(out, data.b, out=out)

    runs: dict[str, Callable[[], Any]] = {
        "linear": logits,
        "predict": lambda: logits().argmax(axis=1),
        "predict_proba": lambda: _softmax_rows(logits(), out),
        "linear_cross_entropy": lambda: _mean_loss(logits(), y, at, out),
    }
    return runs[workload.op]


class _Step:
    """Loss and gradients of at most n rows at a time, into arrays made once."""

    def __init__(self, workload: Workload, data: Data, n: int) -> None:
        dtype, align = np.dtype(workload.dtype), data.align
        d, c = workload.features, workload.classes
        self.logits, self.at = empty((n, c), dtype, align), np.arange(n)
        self.dW, self.db = empty((d, c), dtype, align), empty((c,), dtype, align)
        self.dX = empty((n, d), dtype, align) if workload.with_dX else None
        self.rows = empty((n, d), data.X.dtype, align)
        self.floats, self.scale = empty((n, d), dtype, align), dtype.type(data.x_scale)

    def __call__(self, X: Array, y: Array, W: Array, b: Array, count: int) -> Any:
        if X.dtype != W.dtype:
            X = np.multiply(X, self.scale, out=self.floats[: len(X)])
        G = self.logits[: len(X)]
        np.matmul(X, W, out=G)
        np.add(G, b, out=G)
        loss = _gradient_of_rows(G, y, self.at[: len(X)], count, G)
        np.matmul(X.T, G, out=self.dW)
        np.sum(G, axis=0, out=self.db)
        if self.dX is not None:
            np.matmul(G, W.T, out=self.dX)
        return loss, self.dW, self.db, self.dX

    def of(self, X: Array, y: Array, rows: Array, W: Array, b: Array) -> Any:
        """The same of rows gathered by index."""
        # mode="clip": with the default mode, out= would go through a second buffer.
        gathered = np.take(X, rows, axis=0, out=self.rows[: len(rows)], mode="clip")
        return self(gathered, y[rows], W, b, len(rows))


def _gradient(workload: Workload, data: Data) -> Callable[[], Any]:
    dense(workload)
    X, y, W, b = data.X, data.y, data.W, data.b
    if data.batches:
        step, rows = _Step(workload, data, workload.batch), next_batch(data)
        return lambda: step.of(X, y, rows(), W, b)
    if workload.x_dtype == workload.dtype:
        step = _Step(workload, data, workload.rows)
        return lambda: step(X, y, W, b, len(X))
    blocks = _Step(workload, data, WIDENED)
    dW, db = np.empty_like(W), np.empty_like(b)

    def run() -> Any:
        loss = 0.0
        dW[...] = 0
        db[...] = 0
        for start in range(0, len(X), WIDENED):
            rows = slice(start, start + WIDENED)
            part, dW_part, db_part, _ = blocks(X[rows], y[rows], W, b, len(X))
            loss += part
            np.add(dW, dW_part, out=dW)
            np.add(db, db_part, out=db)
        return loss, dW, db

    return run


def _hessian_product(workload: Workload, data: Data) -> Callable[[], Any]:
    dense(workload)
    X, W, b, V, v = data.X, data.W, data.b, data.V, data.v
    n, c = workload.rows, workload.classes
    P, U = (empty((n, c), workload.dtype, data.align) for _ in range(2))
    dW = np.empty_like(W)

    def run() -> Any:
        np.add(np.matmul(X, W, out=P), b, out=P)
        np.add(np.matmul(X, V, out=U), v, out=U)
        _softmax_rows(P, P)
        np.subtract(U, np.einsum("nc,nc->n", P, U)[:, None], out=U)
        np.multiply(P, U, out=P)
        np.divide(P, n, out=P)
        return np.matmul(X.T, P, out=dW), P.sum(axis=0)

    return run


def _information(workload: Workload, data: Data) -> Callable[[], Any]:
    """Entropy, KL divergence. Every probability is positive: 0 log 0 needs no care here."""
    p, q, work = data.p, data.q, empty(data.p.shape, workload.dtype, data.align)

    def run() -> Array:
        np.log(p if workload.op == "entropy" else np.divide(p, q, out=work), out=work)
        np.multiply(work, p, out=work)
        total = work.sum(axis=1)
        return -total if workload.op == "entropy" else total

    return run


def _epoch(workload: Workload, data: Data) -> Callable[[], Any]:
    dtype = np.dtype(workload.dtype)
    step, rate = _Step(workload, data, workload.batch), dtype.type(LEARNING_RATE)

    def run() -> Any:
        W = np.zeros((workload.features, workload.classes), dtype)
        b = np.zeros(workload.classes, dtype)
        total = 0.0
        order = order_of(workload)
        for start in range(0, workload.rows, workload.batch):
            rows = order[start : start + workload.batch]
            loss, dW, db, _ = step.of(data.X, data.y, rows, W, b)
            total += loss * len(rows)
            np.subtract(W, np.multiply(dW, rate, out=dW), out=W)
            np.subtract(b, np.multiply(db, rate, out=db), out=b)
        return W, b

    return run


# The bare minimum -----------------------------------------------------------------------------

#: Rows and columns of each product that are compared with the right ones.
SAMPLE = slice(0, 16)


def _products(workload: Workload, data: Data) -> Job:
    """X @ W; for the gradient X.T @ G and with dX G @ W.T too; the G is arbitrary."""
    dense(workload)
    if workload.x_dtype != workload.dtype or workload.small or workload.cold:
        raise UnsuitedError(
            "no BLAS for such an X, nor for gathered rows; a small call is no product"
        )
    X, W = data.X[data.batches[0]] if data.batches else data.X, data.W
    G, O = (empty((len(X), workload.classes), workload.dtype, data.align) for _ in range(2))  # noqa: E741
    np.random.default_rng(2).standard_normal(dtype=G.dtype, out=G)
    products = [(X, W, O)]
    if workload.op.endswith("_with_grad"):
        products.append((X.T, G, np.empty_like(W)))
    if workload.with_dX:
        products.append((G, W.T, np.empty_like(X)))

    def run() -> Any:
        return [np.matmul(a, b, out=out) for a, b, out in products]

    def answer() -> Answer:
        return tuple(a[SAMPLE].astype(np.float64) @ b.astype(np.float64) for a, b, _ in products)

    return Job(run, lambda result: tuple(array[SAMPLE] for array in result), answer)


def _copy(workload: Workload, data: Data) -> Job:
    if workload.small:
        raise UnsuitedError("the call costs more than the copy")
    out = empty(data.logits.shape, workload.dtype, data.align)

    def run() -> Array:
        np.copyto(out, data.logits)
        return out

    return Job(run, answer=lambda: (data.logits,))


def _kernel_calls(workload: Workload, data: Data) -> Job:
    """What a trainer cannot do without: the gradients of the minibatches, no step taken."""
    W = np.zeros((workload.features, workload.classes), workload.dtype)
    b = np.zeros(workload.classes, workload.dtype)

    def run() -> Any:
        result, order = None, order_of(workload)
        for start in range(0, workload.rows, workload.batch):
            rows = order[start : start + workload.batch]
            result = sx.linear_cross_entropy_with_grad(
                data.X, W, b, data.y, x_scale=data.x_scale, rows=rows, out=result
            )
        return result.loss

    return Job(run, answer=lambda: (np.log(workload.classes),))


_LOGITS = ("softmax", "log_softmax", "logsumexp", "cross_entropy", "cross_entropy_with_grad")
_LAYER = ("linear", "predict", "predict_proba", "linear_cross_entropy")

CONTENDERS: dict[str, dict[str, Builder]] = {
    "NumPy": {
        **dict.fromkeys(_LOGITS, _of_logits),
        **dict.fromkeys(_LAYER, _of_layer),
        **dict.fromkeys(("entropy", "kl_divergence"), _information),
        "linear_cross_entropy_with_grad": _gradient,
        "linear_cross_entropy_hvp": _hessian_product,
        "epoch": _epoch,
    }
}

BARE: dict[str, dict[str, Builder]] = {
    "bare matmul": dict.fromkeys((*_LAYER, "linear_cross_entropy_with_grad"), _products),
    "bare copy": dict.fromkeys(("softmax", "log_softmax", "cross_entropy_with_grad"), _copy),
    "bare kernel calls": {"epoch": _kernel_calls},
}
