"""The right answers, in float64 and block by block, and the comparison with them.

This is a third implementation on purpose: it judges the reference as it judges the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchlib.data import Data, draw_order
from benchlib.workloads import Workload

#: Largest error a contender may have, as a share of the largest number in the right answer.
#: Wide enough for every library's float32 rounding, far too narrow for a wrong formula.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}

#: Share of the labels that may differ: rows whose two best classes are a rounding apart.
LABEL_TIES = 2e-3

Answer = tuple[NDArray[Any], ...]


def compute(workload: Workload, data: Data) -> Answer:
    """Return the answer to `workload`'s first call, in the order contenders give theirs."""
    return _ANSWERS[workload.op](workload, data)


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
        mine = np.asarray(mine)
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


def _blocks(n: int, row_numbers: int) -> Iterator[slice]:
    step = max(1, 8_000_000 // row_numbers)
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def _normalised(o: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return logits minus their row's log-sum-exp, and the log-sum-exp (n, 1)."""
    largest = o.max(axis=1, keepdims=True)
    lse = np.log(np.exp(o - largest).sum(axis=1, keepdims=True)) + largest
    return o - lse, lse


def _logits_family(pick: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]) -> Any:
    def answer(workload: Workload, data: Data) -> Answer:
        o = data.logits
        parts = [
            pick(*_normalised(o[rows].astype(np.float64)))
            for rows in _blocks(len(o), workload.classes)
        ]
        return (np.concatenate(parts),)

    return answer


def _cross_entropy(workload: Workload, data: Data) -> Answer:
    log_p, _ = _normalised(data.logits.astype(np.float64))
    at = np.arange(len(log_p))
    loss = -log_p[at, data.y].mean()
    if workload.op == "cross_entropy":
        return (np.asarray(loss),)
    gradient = np.exp(log_p)
    gradient[at, data.y] -= 1
    return np.asarray(loss), gradient / len(log_p)


def _affine(X: NDArray[Any], data: Data) -> NDArray[Any]:
    return data.x_scale * X.astype(np.float64) @ data.W.astype(np.float64) + data.b


def _linear_family(finish: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    def answer(workload: Workload, data: Data) -> Answer:
        rows = _blocks(workload.rows, workload.features + workload.classes)
        return (np.concatenate([finish(_affine(data.X[block], data)) for block in rows]),)

    return answer


def _linear_cross_entropy(workload: Workload, data: Data) -> Answer:
    X, y = data.X, data.y
    if data.batches:
        X, y = X[data.batches[0]], y[data.batches[0]]
    n = len(X)
    W = data.W.astype(np.float64)
    loss, dW, db, dX = 0.0, np.zeros_like(W), np.zeros(len(W.T)), []
    for rows in _blocks(n, workload.features + workload.classes):
        log_p, _ = _normalised(_affine(X[rows], data))
        at = np.arange(len(log_p))
        loss -= log_p[at, y[rows]].sum() / n
        G = np.exp(log_p)
        G[at, y[rows]] -= 1
        G /= n
        dW += data.x_scale * X[rows].T.astype(np.float64) @ G
        db += G.sum(axis=0)
        if workload.with_dX:
            dX.append(data.x_scale * G @ W.T)
    if workload.op == "linear_cross_entropy":
        return (np.asarray(loss),)
    return (np.asarray(loss), dW, db, *([np.concatenate(dX)] if dX else []))


def _epoch(workload: Workload, data: Data) -> Answer:
    """Return W and b after one epoch of stochastic gradient descent from zero."""
    X = data.x_scale * data.X.astype(np.float64)
    W = np.zeros((workload.features, workload.classes))
    b = np.zeros(workload.classes)
    order = draw_order(workload)
    for start in range(0, workload.rows, workload.batch):
        rows = order[start : start + workload.batch]
        G = np.exp(_normalised(X[rows] @ W + b)[0])
        G[np.arange(len(rows)), data.y[rows]] -= 1
        G *= LEARNING_RATE / len(rows)
        W -= X[rows].T @ G
        b -= G.sum(axis=0)
    return W, b


def _entropy(workload: Workload, data: Data) -> Answer:
    p = data.p.astype(np.float64)
    return (-np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1),)


def _kl_divergence(workload: Workload, data: Data) -> Answer:
    p, q = data.p.astype(np.float64), data.q.astype(np.float64)
    return (np.sum(p * np.log(np.where(p > 0, p / q, 1)), axis=1),)


#: Step of the epoch's gradient descent.
LEARNING_RATE = 0.1

_ANSWERS: dict[str, Callable[[Workload, Data], Answer]] = {
    "softmax": _logits_family(lambda log_p, lse: np.exp(log_p)),
    "log_softmax": _logits_family(lambda log_p, lse: log_p),
    "logsumexp": _logits_family(lambda log_p, lse: lse[:, 0]),
    "cross_entropy": _cross_entropy,
    "cross_entropy_with_grad": _cross_entropy,
    "linear": _linear_family(lambda o: o),
    "predict": _linear_family(lambda o: o.argmax(axis=1)),
    "predict_proba": _linear_family(lambda o: np.exp(_normalised(o)[0])),
    "linear_cross_entropy": _linear_cross_entropy,
    "linear_cross_entropy_with_grad": _linear_cross_entropy,
    "entropy": _entropy,
    "kl_divergence": _kl_divergence,
    "epoch": _epoch,
}
