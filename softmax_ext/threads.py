"""How many threads a call may use, and the pool that runs its slices.

Threads are Python's own: the drivers release the GIL and take a range of rows. The pool is made
when it is first needed and forgotten in a forked child. How a call is cut into slices depends on
its shape alone, and results are combined in the order of the slices: the same bits on any number
of threads.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Generic, TypeVar
from weakref import WeakSet

__all__ = ["get_num_threads", "num_threads", "set_num_threads"]

T = TypeVar("T")

# Slices that may be begun for each thread while an earlier one's result is awaited.
AHEAD = 8


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
# The pool: its living threads, and those of them that wait for a call.
_helpers: WeakSet[_Helper] = WeakSet()
_idle: list[_Helper] = []
_lock = threading.Lock()


def _forget_pool() -> None:
    global _helpers, _idle, _lock
    _helpers, _idle, _lock = WeakSet(), [], threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _checked(n: int) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n: {n!r} came, a whole number of threads was wanted")
    n = n.__index__()
    if n < 1:
        raise ValueError(f"n: {n} came, at least 1 was wanted")
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


class _Call(Generic[T]):
    """The slices of one call, for all the threads that take part in it.

    Nothing depends on a helper before it has begun to help, so one that cannot be started, or dies
    on its way, is only missed.
    """

    def __init__(
        self, n: int, work: Callable[[int], T], merge: Callable[[T], None], ahead: int
    ) -> None:
        self._n, self._work, self._merge, self._ahead = n, work, merge, ahead
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._results: dict[int, T] = {}
        self._taken = self._merged = self._helping = 0
        # No slice is begun any more: all are done, or one has failed.
        self._over = False
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do everything; the calling thread's part."""
        try:
            self._do_slices()
        finally:
            with self._lock:
                self._stop()
                while self._helping:
                    self._changed.wait()
            del self._work, self._merge  # which a helper that comes late would keep alive
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback leads here: together they would keep the call's arrays

    def help(self) -> None:
        """Take part, if there is anything left to do."""
        with self._lock:
            if self._over:
                return
            self._helping += 1
        try:
            self._do_slices()
        except BaseException as error:
            self._error = error
        finally:
            with self._lock:
                self._helping -= 1
                self._stop()

    def _stop(self) -> None:
        self._over = True
        self._changed.notify_all()

    def _do_slices(self) -> None:
        while True:
            with self._lock:
                # Results wait for those of earlier slices, but not without number.
                while self._taken - self._merged >= self._ahead and not self._over:
                    self._changed.wait()
                if self._over or self._taken == self._n:
                    return
                i = self._taken
                self._taken += 1
            result = self._work(i)
            with self._lock:
                self._results[i] = result
                while self._merged in self._results:
                    self._merge(self._results.pop(self._merged))
                    self._merged += 1
                self._changed.notify_all()


class _Helper:
    """A thread that takes part in one call after the other, begun with the first of them.

    `threading.Thread` would wait for its start, for ever if it dies of want of memory then.
    """

    def __init__(self, call: _Call[Any]) -> None:
        self._call: _Call[Any] | None = call
        self._wake = threading.Lock()
        self._wake.acquire()
        _thread.start_new_thread(self._live, ())

    def take_part(self, call: _Call[Any]) -> None:
        self._call = call
        self._wake.release()

    def _live(self) -> None:
        while True:
            call, self._call = self._call, None
            assert call is not None
            call.help()
            del call
            _idle.append(self)
            self._wake.acquire()


def _find_helper(call: _Call[Any], most: int) -> None:
    """Have another thread take part, if there is one to be had, of so many at most."""
    try:
        _idle.pop().take_part(call)
    except IndexError:
        with _lock:
            if len(_helpers) < most:
                # Raised where the system, or the interpreter as it ends, starts no more threads.
                with suppress(RuntimeError, MemoryError):
                    _helpers.add(_Helper(call))


def run_slices(
    n: int, work: Callable[[int], T], merge: Callable[[T], None], *, threaded: bool
) -> None:
    """Do ``merge(work(i))`` for i in range(n): the works on several threads, the merges in order.

    The caller works too, alone where no other thread is to be had. An exception (Ctrl-C among
    them) stops all threads at the end of the slice they are in, and is raised when they have
    stopped.
    """
    workers = min(get_num_threads(), n) if threaded else 1
    if workers <= 1:
        for i in range(n):
            merge(work(i))
        return
    call = _Call(n, work, merge, AHEAD * workers)
    for _ in range(workers - 1):
        _find_helper(call, workers - 1)
    call.run()
