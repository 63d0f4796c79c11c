"""How many threads a call may use, and the pool that runs its slices.

Threads are Python's own: the drivers release the GIL and take a range of rows. The pool is made
when it is first needed and forgotten in a forked child. How a call is cut into slices depends on
its shape alone, and results are combined in the order of the slices: the same bits on any number
of threads.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["get_num_threads", "num_threads", "set_num_threads"]

T = TypeVar("T")


def _default() -> int:
    """The CPUs this process may use, lowered by the environment."""
    try:
        n = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        n = os.cpu_count() or 1
    for name in ("OMP_NUM_THREADS", "SOFTMAX_EXT_NUM_THREADS"):
        # OpenMP allows a list, one number for each level of nesting.
        text = os.environ.get(name, "").split(",")[0].strip()
        if text.isdecimal() and int(text) > 0:
            n = min(n, int(text))
    return n


_num_threads = _default()
_override: ContextVar[int] = ContextVar("softmax_ext_num_threads")
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()


def _forget_pool() -> None:
    global _pool, _pool_size, _pool_lock
    _pool, _pool_size, _pool_lock = None, 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _checked(n: int) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n: {n!r} is not a whole number of threads")
    n = n.__index__()
    if n < 1:
        raise ValueError(f"n: {n} threads; at least 1 is wanted")
    return n


def get_num_threads() -> int:
    """Return how many threads a call made here may use.

    The default is the number of CPUs this process may use, lowered by the environment variables
    ``OMP_NUM_THREADS`` and ``SOFTMAX_EXT_NUM_THREADS`` as they were at import.

    Examples
    --------
    >>> import softmax_ext as sx
    >>> with sx.num_threads(1):
    ...     sx.get_num_threads()
    1
    """
    return _override.get(_num_threads)


def set_num_threads(n: int) -> None:
    """Set how many threads calls may use, for the whole process.

    Parameters
    ----------
    n : int
        At least 1. More than there are CPUs is allowed and does not help.

    Raises
    ------
    TypeError, ValueError
        If `n` is not a whole number, or less than 1.
    """
    global _num_threads
    _num_threads = _checked(n)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Set how many threads calls may use inside a ``with`` block (of this thread or task).

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        If `n` is not a whole number, or less than 1.

    Examples
    --------
    >>> import softmax_ext as sx
    >>> with sx.num_threads(2):
    ...     p = sx.softmax([[1.0, 2.0]])
    """
    token = _override.set(_checked(n))
    try:
        yield
    finally:
        _override.reset(token)


def _pool_of(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size < size:
            # Not at import, where it would cost a third of NumPy's own.
            from concurrent.futures import ThreadPoolExecutor

            # A smaller pool that this replaces goes when its last call has finished.
            _pool = ThreadPoolExecutor(size, thread_name_prefix="softmax_ext")
            _pool_size = size
        return _pool


def run_slices(
    n: int, work: Callable[[int], T], merge: Callable[[T], None], *, threaded: bool
) -> None:
    """Do ``merge(work(i))`` for i in range(n): the works on several threads, the merges in order.

    The caller works too. An exception (Ctrl-C among them) stops all threads at the end of the
    slice they are in, and is raised when they have stopped.
    """
    workers = min(get_num_threads(), n) if threaded else 1
    if workers <= 1:
        for i in range(n):
            merge(work(i))
        return

    counter = itertools.count()
    lock = threading.Lock()
    done: dict[int, T] = {}
    merged = 0
    failed = False

    def worker() -> None:
        nonlocal merged, failed
        try:
            while not failed and (i := next(counter)) < n:
                result = work(i)
                with lock:
                    done[i] = result
                    while merged in done:
                        merge(done.pop(merged))
                        merged += 1
        except BaseException:
            failed = True
            raise

    futures = []
    try:
        for _ in range(workers - 1):
            futures.append(_pool_of(workers - 1).submit(worker))
    except RuntimeError:
        pass  # the interpreter is shutting down and starts no threads: the caller does it all
    try:
        worker()
    finally:
        for f in futures:
            if not f.cancel():
                f.exception()  # waits
    for f in futures:
        if not f.cancelled():
            f.result()
