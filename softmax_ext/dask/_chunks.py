"""Chunks of Dask collections as tasks, and what is made of all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import threads
from ..datasets._parts import Piece
from ..datasets.blocks import named

try:
    import dask
    import dask.array as da
    from dask.core import flatten
    from dask.delayed import Delayed, delayed
    from distributed import Client, Future, futures_of, get_worker
except ImportError as error:  # pragma: no cover
    raise ImportError("softmax_ext.dask needs Dask: pip install 'softmax-ext[dask]'") from error

# So many results are added up by a task. Fixed, as the order of a sum is that of its bits.
GROUP = 16


class Chunks(NamedTuple):
    """The chunks of X, y and weights, each the result of a task, or a future of one."""

    X: list[Any]
    #: None: without.
    y: list[Any] | None
    sample_weight: list[Any] | None
    n_features: int
    dtype: np.dtype[Any]
    is_sparse: bool
    #: The collections, which keep in memory what is persisted.
    collections: tuple[Any, ...]

    @classmethod
    def of(cls, X: Any, y: Any = None, sample_weight: Any = None) -> Chunks:
        """Take collections apart.

        Raises
        ------
        TypeError
            If they are no Dask arrays or data frames.
        ValueError
            If X has chunks along its features, or they do not fit each other.
        """
        rows = _Rows.of("X", X)
        if rows.n_features is None:
            raise ValueError(f"X: shape {rows.shape} came, two known axes, (N, D), were wanted")
        columns = [
            None if column is None else _fitting(name, column, rows)
            for name, column in (("y", y), ("sample_weight", sample_weight))
        ]
        return cls(
            rows.chunks, columns[0], columns[1], rows.n_features, rows.dtype, rows.is_sparse,
            (X, y, sample_weight),
        )  # fmt: skip

    def labels_only(self) -> Chunks:
        """The same without X, so that it need not be computed."""
        return self._replace(X=[None] * len(self.X))

    def reduced(
        self, engine: Engine, work: Callable[..., Any], add: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Return the sum, by `add` of lists, of what `work` makes of each chunk, in their order.

        The arguments of `work` go to each worker once.
        """
        n = len(self.X)
        nothing = [None] * n
        columns = [self.X, self.y or nothing, self.sample_weight or nothing]
        sent = [engine.sent((work, arguments, engine.concurrency))] * n
        parts = engine.each(_work, sent, range(n), *columns)
        while len(parts) > 1:
            groups = [parts[i : i + GROUP] for i in range(0, len(parts), GROUP)]
            parts = engine.each(add, groups)
        return engine.compute(parts[0])


class _Rows(NamedTuple):
    """A collection, taken apart."""

    chunks: list[Delayed]
    #: Rows of each chunk; nan where that is unknown.
    lengths: tuple[float, ...]
    shape: tuple[Any, ...]
    dtype: np.dtype[Any]
    is_sparse: bool = False

    @property
    def n_features(self) -> int | None:
        if len(self.shape) != 2 or math.isnan(self.shape[1]):
            return None
        return int(self.shape[1])

    @classmethod
    def of(cls, name: str, value: Any) -> _Rows:
        if isinstance(value, da.Array):
            if value.ndim > 1 and math.prod(value.numblocks[1:]) != 1:
                raise ValueError(
                    f"{name}: {math.prod(value.numblocks[1:])} chunks along the features came, one "
                    f"was wanted; use {name}.rechunk({{1: -1}})"
                )
            is_sparse = hasattr(getattr(value, "_meta", None), "indptr")
            chunks = _futures_of(value) or list(value.to_delayed().ravel())
            return cls(chunks, value.chunks[0], value.shape, value.dtype, is_sparse)
        if not hasattr(value, "npartitions") or not hasattr(value, "to_delayed"):
            raise TypeError(
                f"{name}: {type(value).__name__} came, a Dask array or data frame was wanted"
            )
        chunks = list(value.to_delayed())
        lengths = (math.nan,) * len(chunks)
        if value.ndim == 1:
            return cls(chunks, lengths, (math.nan,), np.dtype(object))
        kinds = [np.dtype(getattr(kind, "numpy_dtype", kind)) for kind in value.dtypes]
        return cls(chunks, lengths, (math.nan, len(kinds)), np.result_type(*kinds))


def _futures_of(array: da.Array) -> list[Future]:
    """The futures of the chunks of an array, if all are persisted."""
    found = {future.key: future for future in futures_of(array)}
    keys = list(flatten(array.__dask_keys__()))
    return [found[key] for key in keys] if found.keys() >= set(keys) else []


def _fitting(name: str, column: Any, X: _Rows) -> list[Delayed]:
    """Return the chunks of labels or weights, one for each of X."""
    rows = _Rows.of(name, column)
    is_known = not any(map(math.isnan, (*rows.lengths, *X.lengths)))
    if is_known and rows.lengths != X.lengths:
        if sum(rows.lengths) != sum(X.lengths):
            raise ValueError(
                f"{name}: {sum(rows.lengths)} rows came, {sum(X.lengths)}, as X has, were wanted"
            )
        rows = _Rows.of(name, column.rechunk({0: X.lengths}))
    if len(rows.chunks) != len(X.chunks):
        raise ValueError(
            f"{name}: {len(rows.chunks)} chunks of unknown sizes came, {len(X.chunks)}, as X has, "
            "were wanted; call compute_chunk_sizes() of the arrays"
        )
    return rows.chunks


def _work(sent: tuple[Any, ...], k: int, X: Any, y: Any, weight: Any) -> Any:
    """What a task does: `work` of a chunk as NumPy has it, on this task's share of the threads."""
    work, arguments, concurrency = sent
    with threads.num_threads(_share(concurrency)):
        try:
            return work(_piece(X, y, weight), *arguments)
        except (ValueError, TypeError, IndexError) as error:
            message = str(named(error, k, "")).removeprefix("piece")
            raise type(named(error, k, ""))(f"chunk{message}") from None


def _share(concurrency: int | None) -> int:
    """How many threads a task has for itself."""
    if concurrency is None:
        concurrency = get_worker().state.nthreads
    return max(1, threads.get_num_threads() // max(1, concurrency))


def _piece(X: Any, y: Any, weight: Any) -> Piece:
    columns = [None if column is None else np.asarray(column) for column in (y, weight)]
    if X is None:
        return Piece(None, *columns)
    if not hasattr(X, "indptr"):
        X = np.asarray(X)
        if X.dtype.kind == "O":
            raise TypeError(f"X: dtype {X.dtype} came, numbers were wanted")
    for name, column in zip(("y", "sample_weight"), columns, strict=True):
        if column is not None and column.shape[:1] != X.shape[:1]:
            raise ValueError(
                f"{name}: shape {column.shape} came, {X.shape[0]} rows, as X has there, were wanted"
            )
    return Piece(X, *columns)


class Engine:
    """Where tasks are run: by the current client, or by Dask's scheduler of this process."""

    def __init__(self, n_chunks: int) -> None:
        self._client = _current_client()
        #: Tasks at a time in a process; None: to be asked of the worker.
        self.concurrency: int | None = None
        if self._client is None:
            workers = dask.config.get("num_workers", None) or threads.CPUS
            self.concurrency = max(1, min(int(workers), n_chunks))

    def sent(self, value: Any) -> Any:
        """Return what tasks are given for a value so that it goes to each worker once.

        It is a task itself: the scheduler has it made anew if a worker dies that has it.
        """
        if self._client is None:
            return value
        return self._client.submit(_identity, value, pure=False)

    def each(self, work: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
        """Return the tasks of `work` on each row of the columns."""
        flat = itertools.chain.from_iterable(columns)
        if self._client is not None and not any(_has_delayed(value) for value in flat):
            # A third of the time of making a graph of Delayed, and of sending it.
            futures: list[Any] = self._client.map(work, *columns, pure=False)
            return futures
        task = delayed(work, pure=False)
        return [task(*row) for row in zip(*columns, strict=True)]

    def compute(self, task: Any) -> Any:
        if self._client is None:
            return task.compute()
        future = task
        if isinstance(task, Delayed):
            future = self._client.compute(task, optimize_graph=False)
        try:
            return future.result()
        finally:
            future.release()


def _has_delayed(value: Any) -> bool:
    return isinstance(value, Delayed) or (isinstance(value, list) and any(map(_has_delayed, value)))


def _identity(value: Any) -> Any:
    return value


def _current_client() -> Client | None:
    scheduler = dask.config.get("scheduler", None)
    if scheduler is not None and scheduler not in ("distributed", "dask.distributed"):
        return None
    try:
        return Client.current()
    except ValueError:
        return None


def joined(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Add up sets of labels: the different ones of all, sorted."""
    found = [part for part in parts if part is not None]
    return np.unique(np.concatenate(found)) if found else None
