"""How many threads a call may use; the pool that they come from is in src/smx_pool.c.

How a call is cut into slices depends on its shape alone, and results are combined in the order of
the slices: the same bits on any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .environment import refuse

__all__ = ["get_num_threads", "num_threads", "set_num_threads"]


_MOST = 1024  # SMX_MOST_THREADS


def _cpus() -> int:
    """How many CPUs this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


CPUS = _cpus()


def _default() -> int:
    """The CPUs, lowered by the environment."""
    n = CPUS
    # OpenMP allows a list, one number for each level of nesting. What it makes of it is its affair.
    omp = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if omp.isdecimal() and int(omp) > 0:
        n = min(n, int(omp))
    own = os.environ.get("SOFTMAX_EXT_NUM_THREADS", "").strip()
    if own and not (own.isdecimal() and int(own) > 0):
        refuse("SOFTMAX_EXT_NUM_THREADS", f"{own!r} came, a whole number of at least 1 was wanted")
    return min(n, int(own or n))


_num_threads = _default()
_override: ContextVar[int] = ContextVar("softmax_ext_num_threads")


def _checked(n: int) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n: {n!r} came, a whole number of threads was wanted")
    n = n.__index__()
    if n < 1:
        raise ValueError(f"n: {n} came, at least 1 was wanted")
    return min(n, _MOST)


def get_num_threads() -> int:
    """Return how many threads a call made here may use.

    The default is the number of CPUs this process may use, lowered by the environment variables
    ``OMP_NUM_THREADS`` and ``SOFTMAX_EXT_NUM_THREADS`` as they were at import. With a value of
    the latter that is no whole number of at least 1 the import fails.

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
        At least 1. More than there are CPUs is allowed and does not help; more than 1024 are
        taken for 1024.

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
