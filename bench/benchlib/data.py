"""The inputs of a job, the same in every process."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchlib.workloads import HESSIAN, Workload

#: Offset from a 64-byte boundary. NumPy's own large arrays start 16 bytes after one.
ALIGNMENTS = {"numpy": 16, "64": 0}

#: How many minibatches are drawn where each call is to find its rows in memory.
COLD_BATCHES = 200

#: Step of the epoch's gradient descent.
LEARNING_RATE = 0.1


class UnsuitedError(Exception):
    """A job cannot be done here, or not by this contender; the message says why."""


@dataclass
class Data:
    """Inputs of one job; what it does not use is None.

    ``batches`` holds index arrays; a call takes the next one, in turn. ``axis`` says where the
    classes of the logits are, for functions that have to be told.
    """

    source: str
    align: str
    X: Any = None
    W: Any = None
    b: Any = None
    V: Any = None
    v: Any = None
    y: Any = None
    x_scale: float = 1.0
    logits: Any = None
    axis: int = -1
    p: Any = None
    q: Any = None
    batches: list[NDArray[np.intp]] = field(default_factory=list)


def empty(shape: tuple[int, ...], dtype: Any, align: str) -> NDArray[Any]:
    """Return an uninitialised C-ordered array at the wanted offset from a 64-byte boundary."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.intp)) * dtype.itemsize
    raw = np.empty(size + 128, dtype=np.uint8)
    start = -raw.ctypes.data % 64 + ALIGNMENTS[align]
    return raw[start : start + size].view(dtype).reshape(shape)


def make(workload: Workload, align: str = "numpy") -> Data:
    """Make the inputs of a job, from Fashion-MNIST where its images fit, else random.

    Raises
    ------
    UnsuitedError
        If a package is missing.
    """
    rng = np.random.default_rng(0)
    n, d, c = workload.rows, workload.features, workload.classes
    dtype = np.dtype(workload.dtype)
    data = Data("random numbers", align)

    def placed(values: NDArray[Any], dtype: Any = dtype) -> NDArray[Any]:
        array = empty(values.shape, dtype, align)
        array[...] = values
        return array

    if workload.op in ("entropy", "kl_divergence"):
        data.p, data.q = (placed(rng.dirichlet(np.ones(c), n)) for _ in range(2))
        return data
    if not d:
        logits = rng.normal(scale=8.0, size=(n, c))
        data.logits = placed(logits.T if workload.columns else logits)
        data.axis = 0 if workload.columns else -1
        data.y = rng.integers(0, c, n)
        return data
    data.W = placed(rng.standard_normal((d, c)) / np.sqrt(workload.entries or d))
    data.b = placed(rng.standard_normal(c) / 10)
    if workload.op == HESSIAN:
        data.V, data.v = placed(rng.standard_normal((d, c))), placed(rng.standard_normal(c))
    data.y = rng.integers(0, c, n, dtype=np.uint8 if c <= 256 else np.int64)
    if workload.entries:
        data.X = texts(rng, n, d, workload.entries, zipf=workload.zipf)
    elif d == 784 or workload.x_dtype == "uint8":
        images, labels, data.source = _images(n, d)
        data.y = labels if c == 10 else data.y
        if workload.x_dtype == "uint8":
            data.X, data.x_scale = placed(images, np.uint8), 1 / 255
        else:
            data.X = empty((n, d), workload.x_dtype, align)
            np.divide(images, 255, out=data.X)
    elif workload.x_dtype != workload.dtype:
        data.X = placed(rng.standard_normal((n, d), dtype), np.dtype(workload.x_dtype))
    else:
        data.X = empty((n, d), dtype, align)
        rng.standard_normal(dtype=dtype, out=data.X)
    if workload.batch and workload.op != "epoch":
        count = COLD_BATCHES if workload.cold else 1
        data.batches = [rng.choice(n, workload.batch, replace=False) for _ in range(count)]
    return data


def order_of(workload: Workload, seed: int = 0) -> NDArray[np.intp]:
    """Draw an epoch's order of rows, the one `Trainer` documents; part of everybody's epoch."""
    return np.random.default_rng(seed).permutation(workload.rows)


def texts(rng: np.random.Generator, n: int, d: int, entries: int, *, zipf: bool) -> Any:
    """Return a CSR matrix of float32 like a collection of texts, each of so many words."""
    try:
        from scipy import sparse
    except ImportError:
        raise UnsuitedError("scipy, which makes a sparse X, is not installed") from None
    share = 1 / np.arange(1, d + 1) if zipf else np.ones(d)
    words = np.searchsorted(np.cumsum(share / share.sum())[:-1], rng.random((n, entries)))
    words = np.sort(rng.permutation(d)[words], axis=1).astype(np.int32)
    indptr = np.arange(n + 1, dtype=np.int32) * entries
    values = rng.random(words.size, dtype=np.float32)
    return sparse.csr_array((values, words.ravel(), indptr), (n, d))


def _images(n: int, d: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
    """Return `n` images of `d` bytes and their labels: Fashion-MNIST if it is on this machine."""
    try:
        images, labels = fashion_mnist()
    except FileNotFoundError:
        rng = np.random.default_rng(1)
        images = rng.integers(0, 256, (n, d), dtype=np.uint8)
        return images, rng.integers(0, 10, n, dtype=np.uint8), "random bytes"
    return images[:n, :d], labels[:n], "Fashion-MNIST"


@lru_cache(maxsize=1)
def fashion_mnist() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images of the training part, a row each, and their labels."""
    from softmax_ext import datasets

    loaded = datasets.load_fashion_mnist(download=False)
    return loaded.train_images.reshape(60000, 784), loaded.train_labels
