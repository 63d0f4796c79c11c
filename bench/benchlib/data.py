"""The arrays of a workload, the same in every process."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchlib.workloads import Workload

#: Offset from a 64-byte boundary. NumPy's own large arrays start 16 bytes after one.
ALIGNMENTS = {"numpy": 16, "64": 0}

#: How many minibatches are drawn where each call is to find its rows in memory.
COLD_BATCHES = 200


@dataclass
class Data:
    """Inputs of one workload; what it does not use is None.

    ``batches`` holds index arrays; a call takes the next one, in turn.
    """

    source: str
    align: str
    X: NDArray[Any] | None = None
    W: NDArray[Any] | None = None
    b: NDArray[Any] | None = None
    y: NDArray[Any] | None = None
    x_scale: float = 1.0
    logits: NDArray[Any] | None = None
    p: NDArray[Any] | None = None
    q: NDArray[Any] | None = None
    batches: list[NDArray[np.intp]] = field(default_factory=list)


def empty(shape: tuple[int, ...], dtype: Any, align: str) -> NDArray[Any]:
    """Return an uninitialised C-ordered array at the wanted offset from a 64-byte boundary."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.intp)) * dtype.itemsize
    raw = np.empty(size + 128, dtype=np.uint8)
    start = -raw.ctypes.data % 64 + ALIGNMENTS[align]
    return raw[start : start + size].view(dtype).reshape(shape)


def empty_like(array: NDArray[Any], align: str) -> NDArray[Any]:
    """Return an uninitialised array of the same shape, dtype and order as a logits' array."""
    if array.flags.c_contiguous:
        return empty(array.shape, array.dtype, align)
    return empty(array.T.shape, array.dtype, align).T


def make(workload: Workload, align: str = "numpy") -> Data:
    """Make the inputs of `workload`, from Fashion-MNIST where its images fit, else random."""
    rng = np.random.default_rng(0)
    if not workload.features:
        return _make_logits(workload, align, rng)
    n, d, c = workload.rows, workload.features, workload.classes
    dtype = np.dtype(workload.dtype)
    data = Data("random numbers", align)
    data.W = _placed(rng.standard_normal((d, c)) / np.sqrt(d), dtype, align)
    data.b = _placed(rng.standard_normal(c) / 10, dtype, align)
    data.y = rng.integers(0, c, n, dtype=np.uint8 if c <= 256 else np.int64)
    if d == 784 or workload.x_dtype == "uint8":
        images, labels, data.source = _images(n, d)
        if c == 10:
            data.y = labels
        if workload.x_dtype == "uint8":
            data.X = _placed(images, np.uint8, align)
            data.x_scale = 1 / 255
        else:
            data.X = empty((n, d), dtype, align)
            np.divide(images, 255, out=data.X)
    else:
        data.X = empty((n, d), dtype, align)
        rng.standard_normal(dtype=dtype, out=data.X)
    if workload.batch and workload.op != "epoch":
        count = COLD_BATCHES if workload.cold else 1
        data.batches = [rng.choice(n, workload.batch, replace=False) for _ in range(count)]
    return data


def draw_order(workload: Workload) -> NDArray[np.intp]:
    """Draw an epoch's order of rows, the one `Trainer` documents for its default seed.

    Drawing it is part of every contender's epoch.
    """
    return np.random.default_rng(0).permutation(workload.rows)


def _make_logits(workload: Workload, align: str, rng: np.random.Generator) -> Data:
    shape = (workload.rows, workload.classes)
    dtype = np.dtype(workload.dtype)
    data = Data("random numbers", align)
    if workload.op in ("entropy", "kl_divergence"):
        data.p, data.q = (
            _placed(rng.dirichlet(np.ones(shape[1]), shape[0]), dtype, align) for _ in range(2)
        )
    else:
        logits = rng.normal(scale=8.0, size=shape)
        if workload.columns:
            data.logits = _placed(logits.T, dtype, align).T
        else:
            data.logits = _placed(logits, dtype, align)
        data.y = rng.integers(0, shape[1], shape[0])
    return data


def _placed(values: NDArray[Any], dtype: Any, align: str) -> NDArray[Any]:
    array = empty(values.shape, dtype, align)
    array[...] = values
    return array


def _images(n: int, d: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
    """Return `n` images of `d` bytes and their labels: Fashion-MNIST if it is on this machine."""
    found = _fashion_mnist()
    if found is not None:
        images, labels = found
        return images[:n, :d], labels[:n], "Fashion-MNIST"
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (n, d), dtype=np.uint8)
    return images, rng.integers(0, 10, n, dtype=np.uint8), "random bytes"


@lru_cache(maxsize=1)
def _fashion_mnist() -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    from softmax_ext import datasets

    try:
        loaded = datasets.load_fashion_mnist(download=False)
    except FileNotFoundError:
        return None
    return loaded.train_images.reshape(60000, 784), loaded.train_labels
