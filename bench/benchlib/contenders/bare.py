"""The bare minimum: the matrix products alone, or a copy alone, by NumPy.

They do less than the job, so they are no peers; they say what the job's heaviest part costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchlib.contenders.base import Builder, Job, UnsuitedError
from benchlib.data import Data, empty, empty_like
from benchlib.truth import Answer
from benchlib.workloads import Workload

#: Rows and columns of each product that are compared with the right ones.
SAMPLE = slice(0, 16)


def _forward(workload: Workload, data: Data) -> Job:
    _need_floats(workload)
    X, W = data.X, data.W
    O = empty((len(X), workload.classes), workload.dtype, data.align)  # noqa: E741

    def run() -> Any:
        return np.matmul(X, W, out=O)

    return Job(
        run,
        lambda result: (result[SAMPLE],),
        lambda: (X[SAMPLE].astype(np.float64) @ W.astype(np.float64),),
    )


def _products(workload: Workload, data: Data) -> Job:
    """X @ W and X.T @ G, with dX also G @ W.T; the G is arbitrary."""
    _need_floats(workload)
    X, W = data.X, data.W
    if data.batches:
        if workload.cold:
            raise UnsuitedError("the products do not gather rows")
        X = X[data.batches[0]]
    rng = np.random.default_rng(2)
    G = empty((len(X), workload.classes), workload.dtype, data.align)
    rng.standard_normal(dtype=G.dtype, out=G)
    O, dW = np.empty_like(G), np.empty_like(W)  # noqa: E741
    dX = np.empty_like(X) if workload.with_dX else None

    def run() -> Any:
        np.matmul(X, W, out=O)
        np.matmul(X.T, G, out=dW)
        if dX is not None:
            np.matmul(G, W.T, out=dX)
        return [array for array in (O, dW, dX) if array is not None]

    def answer() -> Answer:
        G64, W64 = G.astype(np.float64), W.astype(np.float64)
        right = [X[SAMPLE].astype(np.float64) @ W64, X.T[SAMPLE].astype(np.float64) @ G64]
        if workload.with_dX:
            right.append(G64[SAMPLE] @ W64.T)
        return tuple(right)

    return Job(run, lambda result: tuple(array[SAMPLE] for array in result), answer)


def _copy(workload: Workload, data: Data) -> Job:
    if workload.small:
        raise UnsuitedError("the call costs more than the copy")
    x = data.logits
    out = empty_like(x, data.align)

    def run() -> Any:
        np.copyto(out, x)
        return out

    return Job(run, lambda result: (result,), lambda: (x,))


def _need_floats(workload: Workload) -> None:
    if workload.x_dtype == "uint8":
        raise UnsuitedError("BLAS takes no uint8")
    if workload.small:
        raise UnsuitedError("the call costs more than the product")


CONTENDERS: dict[str, dict[str, Builder]] = {
    "bare matmul": {
        "linear": _forward,
        "predict": _forward,
        "predict_proba": _forward,
        "linear_cross_entropy": _forward,
        "linear_cross_entropy_with_grad": _products,
    },
    "bare copy": {
        "softmax": _copy,
        "log_softmax": _copy,
        "cross_entropy_with_grad": _copy,
    },
}
