"""What this machine allows at most, measured: arithmetic in registers or tiles, and memory.

A kernel's time means little by itself; its share of these ceilings says what is left to gain. The
speeds are samples of a few milliseconds. Whatever else runs can only lower them, so take the best
of several, made between the calls that they are compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _kernels

__all__ = ["Ceiling"]

#: Least duration of a sample in seconds, and the most memory that is read or copied, in bytes.
_LEAST_SECONDS = 2e-3
_MOST_BYTES = 128 << 20


class Ceiling:
    """Measures the machine's ceilings on a number of threads at once.

    Parameters
    ----------
    threads : int, optional
        How many run at the same time, each with registers and memory of its own.
    isa : str, optional
        Instruction set whose multiply-adds are counted; by default the best that can run.

    Examples
    --------
    >>> from softmax_ext.ceiling import Ceiling
    >>> with Ceiling() as ceiling:
    ...     ceiling.arithmetic("float32") > 1e6
    True
    """

    def __init__(self, threads: int = 1, isa: str = "") -> None:
        self.threads = threads
        self.isa = isa or _kernels.available_isas()[0]
        self._pool = ThreadPoolExecutor(threads)
        self._steps = {False: 10_000, True: 10_000}
        self._tile_steps = 100
        self._memory: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []

    def __enter__(self) -> Ceiling:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def arithmetic(self, dtype: DTypeLike = "float32") -> float:
        """Return multiplications and additions per second, of operands in registers."""
        f64 = np.dtype(dtype) == np.float64

        def work(thread: int) -> int:
            return _kernels.run_arithmetic(self.isa, f64, self._steps[f64])

        taken, done = self._on_all(work)
        while taken < _LEAST_SECONDS:
            self._steps[f64] *= 2
            taken, done = self._on_all(work)
        return done / taken

    def product(self, dtype: DTypeLike, x_dtype: DTypeLike, features: int, classes: int) -> float:
        """Return the useful operations per second that products of X and W may hope for.

        That is `arithmetic`, or, where products of X (N, `features`) with so many `classes` go by
        tile instructions, their speed on bytes over the products of bytes that each one takes, if
        that is more.
        """
        f64, of_bytes = np.dtype(dtype) == np.float64, np.dtype(x_dtype) == np.uint8
        cost = _kernels.tile_cost(self.isa, f64, of_bytes, features, classes)
        vector = self.arithmetic(dtype)
        return max(vector, self._tiles() / cost) if cost else vector

    def read(self, size: int) -> float:
        """Return bytes per second, read again and again from `size` bytes in all threads."""
        return self._bytes_per_second(size, copied=False)

    def copy(self, size: int) -> float:
        """Return bytes per second, read plus written, of copies with `size` bytes in use.

        `size` counts sources and destinations of all threads together, so the copy runs in the
        same cache (or in memory) as a job with that much in use.
        """
        return self._bytes_per_second(size, copied=True)

    def memory(self, read: int, written: int) -> float:
        """Return bytes per second that a job of so many bytes read and written can hope for.

        That is the speed of reading where little is written, else that of a copy.
        """
        return self.read(read + written) if 4 * written < read else self.copy(read + written)

    def _tiles(self) -> float:
        """Return operations per second on bytes that stay in tiles."""

        def work(thread: int) -> int:
            return _kernels.run_tiles(self.isa, self._tile_steps)

        taken, done = self._on_all(work)
        while taken < _LEAST_SECONDS:
            self._tile_steps *= 2
            taken, done = self._on_all(work)
        return done / taken

    def _bytes_per_second(self, size: int, *, copied: bool) -> float:
        buffers = (1 + copied) * self.threads
        each = max(64, min(size, _MOST_BYTES) // buffers // 64 * 64)
        if not self._memory or self._memory[0][0].nbytes < each:
            self._memory = [_two_buffers(each) for _ in range(self.threads)]
        # As many times as fill a sample at 20 GB/s.
        repeats = max(1, int(_LEAST_SECONDS * 2e10 / (each * buffers)))

        def work(thread: int) -> int:
            source, to = (buffer[:each] for buffer in self._memory[thread])
            _kernels.run_memory(self.isa, source, to if copied else None, repeats)
            return (1 + copied) * each * repeats

        taken, moved = self._on_all(work)
        return moved / taken

    def _on_all(self, work: Callable[[int], int]) -> tuple[float, int]:
        """Run ``work(i)`` on every thread i at once; return the seconds and the results' sum."""
        started = time.perf_counter()
        done = work(0) if self.threads == 1 else sum(self._pool.map(work, range(self.threads)))
        return time.perf_counter() - started, done


def _two_buffers(size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return two arrays on cache lines of their own, half a page apart in their places in a page.

    At the same place in a page, what is written would hold up what is read next.
    """
    apart = -(-size // 4096) * 4096 + 2048
    raw = np.ones(apart + size + 128, np.uint8)  # written to, so that the pages are there
    start = -raw.ctypes.data % 64
    return raw[start : start + size], raw[start + apart : start + apart + size]
