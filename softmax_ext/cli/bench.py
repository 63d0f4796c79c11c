"""``softmax-ext bench``: a short table of these kernels against plain NumPy, here and now."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import _kernels, reference, threads
from ..ceiling import Ceiling
from .shared import chosen_kernels, name_of, or_default

__all__ = ["Case", "bench", "best_time", "cases", "lines"]

_CALLS = 3  # made on each side of a row, at least
_CEILINGS = 5  # samples of the ceilings before and after a row


def bench(args: argparse.Namespace) -> int:
    kernels = chosen_kernels(args)
    print(f"kernels: {name_of(kernels)}; microseconds a call, the best of several")
    for line in lines(or_default(kernels)):
        print(line, flush=True)
    return 0


class Case(NamedTuple):
    """One row of the table."""

    #: The function's name, and what it is run on.
    kernel: str
    size: str
    #: Calls the function of a kernel set.
    call: Callable[[Any], object]
    #: Useful operations (those of the matrix products), and bytes read and written at least.
    flops: int
    read: int
    written: int
    #: Those products' X, if it is a matrix: its dtype, D and C.
    product: tuple[str, int, int] | None = None


def cases() -> list[Case]:
    """The rows of the table, with fixed inputs in float32 and bytes.

    Examples
    --------
    >>> from softmax_ext.cli import bench
    >>> bench.cases()[0].kernel
    'linear_cross_entropy_with_grad'
    """
    rng = np.random.default_rng(0)
    table = []
    for name, N, D, C, is_bytes in (
        ("minibatch", 256, 784, 10, True),
        ("mnist-10", 10000, 784, 10, True),
        ("covtype-7", 50000, 54, 7, False),
    ):
        X: Any
        if is_bytes:
            X, x_scale = rng.integers(256, size=(N, D), dtype=np.uint8), 1 / 255
        else:
            X, x_scale = rng.standard_normal((N, D), dtype=np.float32), 1.0
        W = rng.normal(0, 0.05, (D, C)).astype(np.float32)
        b = np.zeros(C, np.float32)
        y = rng.integers(C, size=N)
        size = f"{name}, {N} x {D} x {C}"
        table.append(_gradient(size, X, W, b, y, x_scale))
        if N > 256:
            table.append(_prediction(size, X, W, b, x_scale))
    for name, N, C in (
        ("mnist-10", 10000, 10),
        ("text-1000", 1000, 1000),
        ("vocab-50k", 32, 50257),
    ):
        logits = rng.normal(0, 3, (N, C)).astype(np.float32)
        y = rng.integers(C, size=N)
        table.append(_loss(f"{name}, {N} x {C}", logits, y))
        for kernel in ("softmax", "logsumexp"):
            table.append(_rows(kernel, f"{name}, {N} x {C}", logits))
    return table


def _gradient(size: str, X: Any, W: Any, b: Any, y: Any, x_scale: float) -> Case:
    def call(kernels: Any) -> object:
        return kernels.linear_cross_entropy_with_grad(X, W, b, y, x_scale=x_scale)

    read = X.nbytes + W.nbytes + y.nbytes
    flops = 4 * len(X) * W.size
    product = (X.dtype.name, *W.shape)
    return Case("linear_cross_entropy_with_grad", size, call, flops, read, W.nbytes, product)


def _prediction(size: str, X: Any, W: Any, b: Any, x_scale: float) -> Case:
    def call(kernels: Any) -> object:
        return kernels.predict(X, W, b, x_scale=x_scale)

    flops, read = 2 * len(X) * W.size, X.nbytes + W.nbytes
    return Case("predict", size, call, flops, read, 8 * len(X), (X.dtype.name, *W.shape))


def _loss(size: str, logits: Any, y: Any) -> Case:
    def call(kernels: Any) -> object:
        return kernels.cross_entropy_with_grad(logits, y)

    return Case("cross_entropy_with_grad", size, call, 0, logits.nbytes + y.nbytes, logits.nbytes)


def _rows(kernel: str, size: str, logits: Any) -> Case:
    def call(kernels: Any) -> object:
        return getattr(kernels, kernel)(logits)

    written = logits.nbytes if kernel == "softmax" else 4 * len(logits)
    return Case(kernel, size, call, 0, logits.nbytes, written)


def best_time(call: Callable[[], object], seconds: float = 0.3) -> float:
    """Seconds of the quickest of several calls, after one that does not count."""
    call()
    best = float("inf")
    spent, calls = 0.0, 0
    while spent < seconds or calls < _CALLS:
        started = time.perf_counter()
        call()
        took = time.perf_counter() - started
        best = min(best, took)
        spent += took
        calls += 1
    return best


def lines(kernels: Any, seconds: float = 0.3) -> Iterator[str]:
    """The table, line by line as it is measured.

    The last column is the share of what the machine allows: the time that the useful operations
    take at the speed of arithmetic in registers (or tiles), or the numbers read and written at the
    speed of memory (whichever is longer), over ours.

    Parameters
    ----------
    kernels : object with the kernels' functions
        What is measured.
    seconds : float, optional
        Spent on each side of a row, at least.

    Yields
    ------
    str
    """
    yield f"{'kernel':<31}{'size':<34}{'ours':>10}{'NumPy':>10}{'ratio':>8}{'ceiling':>9}"
    isa = getattr(kernels, "isa", _kernels.available_isas()[0])
    with Ceiling(threads.get_num_threads(), isa) as ceiling:
        for case in cases():
            limits = [_least_time(case, ceiling) for _ in range(_CEILINGS)]
            ours = best_time(partial(case.call, kernels), seconds)
            numpy = best_time(partial(case.call, reference), seconds)
            limits += [_least_time(case, ceiling) for _ in range(_CEILINGS)]
            yield (
                f"{case.kernel:<31}{case.size:<34}{ours * 1e6:>10.1f}{numpy * 1e6:>10.1f}"
                f"{numpy / ours:>7.1f}x{min(limits) / ours:>9.0%}"
            )


def _least_time(case: Case, ceiling: Ceiling) -> float:
    """Seconds that the machine would need at least, as measured now."""
    memory = (case.read + case.written) / ceiling.memory(case.read, case.written)
    if case.product is None:
        return max(case.flops / ceiling.arithmetic("float32"), memory)
    return max(case.flops / ceiling.product("float32", *case.product), memory)
