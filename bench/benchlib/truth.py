"""The right answers, in float64 and block by block, and the comparison with them.

This is a third implementation on purpose: it judges the reference as it judges the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchlib.data import LEARNING_RATE, Data, order_of
from benchlib.workloads import HESSIAN, Workload

#: Largest error a contender may have, as a share of the largest number in the right answer.
#: Wide enough for every library's float32 rounding, far too narrow for a wrong formula.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}

#: Share of the labels that may differ: rows whose two best classes are a rounding apart.
LABEL_TIES = 2e-3

Answer = tuple[NDArray[Any], ...]


def check(name: str, workload: Workload, got: Answer, want: Answer) -> None:
    """Compare one contender's answer with the right one.

    Raises
    ------
    AssertionError
        If a shape differs or a number is further off than `TOLERANCE` (labels: `LABEL_TIES`).
    """
    if len(got) != len(want):
        raise AssertionError(f"{name}: {len(got)} results, {len(want)} wanted")
    for part, (mine, right) in enumerate(zip(got, want, strict=True)):
        where = f"{name}, {workload.name}, result {part}"
        if mine.shape != right.shape:
            raise AssertionError(f"{where}: shape {mine.shape}, {right.shape} wanted")
        if right.dtype.kind == "i":
            wrong = np.mean(mine != right)
            if not wrong <= LABEL_TIES:
                raise AssertionError(f"{where}: {wrong:.2%} of the labels are wrong")
            continue
        error = np.max(np.abs(mine - right), initial=0.0)
        allowed = TOLERANCE[workload.dtype] * np.max(np.abs(right), initial=0.0)
        if not error <= allowed:
            raise AssertionError(f"{where}: error {error:.3g}, {allowed:.3g} allowed")


def compute(workload: Workload, data: Data) -> Answer:
    """Return the answer to a job's first call, in the order contenders give theirs."""
    if workload.op == "epoch":
        return epoch(workload, data, order_of(workload))
    if workload.op in ("entropy", "kl_divergence"):
        p, q = data.p.astype(np.float64), data.q.astype(np.float64)
        ratio = p / q if workload.op == "kl_divergence" else 1 / p
        return (np.sum(p * np.log(ratio), axis=1),)
    if workload.op == HESSIAN:
        return _hessian_product(workload, data)
    if workload.op.startswith("linear_cross"):
        return _linear_cross_entropy(workload, data)
    if workload.op.startswith("cross_entropy"):
        loss, gradient = _losses(data.logits.astype(np.float64), data.y, len(data.y))
        return (loss, gradient)[: 1 + workload.op.endswith("grad")]
    if workload.features:
        o = [_affine(data.X[rows], data) for rows in _blocks(workload)]
    else:
        logits = data.logits.T if workload.columns else data.logits
        o = [logits[rows].astype(np.float64) for rows in _blocks(workload)]
    answer = np.concatenate([_of_logits(workload.op, block) for block in o])
    return (answer.T if workload.columns else answer,)


def _blocks(workload: Workload) -> Iterator[slice]:
    step = max(1, 8_000_000 // (workload.features + workload.classes))
    for start in range(0, workload.rows, step):
        yield slice(start, min(workload.rows, start + step))


def _of_logits(op: str, o: NDArray[Any]) -> NDArray[Any]:
    if op in ("linear", "predict"):
        return o if op == "linear" else o.argmax(axis=1)
    lse = _logsumexp(o)
    if op == "logsumexp":
        return lse[:, 0]
    return o - lse if op == "log_softmax" else np.exp(o - lse)


def _logsumexp(o: NDArray[Any]) -> NDArray[Any]:
    largest = o.max(axis=1, keepdims=True)
    return np.log(np.exp(o - largest).sum(axis=1, keepdims=True)) + largest


def _losses(o: NDArray[Any], y: NDArray[Any], n: int) -> Answer:
    """Return the sum of the rows' losses and its gradient, both over n."""
    log_p = o - _logsumexp(o)
    at = np.arange(len(o))
    loss = -log_p[at, y].sum() / n
    G = np.exp(log_p)
    G[at, y] -= 1
    return np.asarray(loss), G / n


def _affine(X: Any, data: Data) -> NDArray[Any]:
    return data.x_scale * (X.astype(np.float64) @ data.W.astype(np.float64)) + data.b


def _linear_cross_entropy(workload: Workload, data: Data) -> Answer:
    X, y, W = data.X, data.y, data.W.astype(np.float64)
    if data.batches:
        X, y = X[data.batches[0]], y[data.batches[0]]
    loss, dW, db, dX = np.asarray(0.0), np.zeros_like(W), np.zeros(len(W.T)), []
    for rows in _blocks(workload):
        if rows.start >= len(y):
            break
        part, G = _losses(_affine(X[rows], data), y[rows], len(y))
        loss = loss + part
        dW += data.x_scale * (X[rows].T.astype(np.float64) @ G)
        db += G.sum(axis=0)
        if workload.with_dX:
            dX.append(data.x_scale * G @ W.T)
    if workload.op == "linear_cross_entropy":
        return (loss,)
    return (loss, dW, db, *([np.concatenate(dX)] if dX else []))


def _hessian_product(workload: Workload, data: Data) -> Answer:
    dW, db = np.zeros(data.W.shape), np.zeros(data.b.shape)
    for rows in _blocks(workload):
        X = data.X[rows].astype(np.float64)
        o, u = _affine(X, data), data.x_scale * (X @ data.V.astype(np.float64)) + data.v
        p = np.exp(o - _logsumexp(o))
        G = p * (u - (p * u).sum(axis=1, keepdims=True)) / workload.rows
        dW += data.x_scale * (X.T @ G)
        db += G.sum(axis=0)
    return dW, db


def epoch(workload: Workload, data: Data, order: NDArray[np.intp]) -> Answer:
    """Return W and b after one epoch of stochastic gradient descent from zero."""
    X = data.x_scale * data.X.astype(np.float64)
    W, b = np.zeros((workload.features, workload.classes)), np.zeros(workload.classes)
    for start in range(0, workload.rows, workload.batch):
        rows = order[start : start + workload.batch]
        _, G = _losses(X[rows] @ W + b, data.y[rows], len(rows))
        W -= LEARNING_RATE * X[rows].T @ G
        b -= LEARNING_RATE * G.sum(axis=0)
    return W, b
