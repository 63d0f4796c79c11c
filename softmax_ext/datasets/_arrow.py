"""Pieces of Arrow tables and of Parquet files; needs pyarrow."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataFormatError
from ._parts import Piece

try:
    import pyarrow as pa
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "Blocks of Parquet files and tables need pyarrow: pip install 'softmax-ext[parquet]'"
    ) from error


class _Columns(NamedTuple):
    """Which columns are what."""

    features: str | tuple[str, ...]
    label: str | None
    weight: str | None

    def names(self) -> list[str]:
        features = [self.features] if isinstance(self.features, str) else [*self.features]
        return [*features, *(name for name in (self.label, self.weight) if name is not None)]

    def check(self, where: str, names: Sequence[str]) -> None:
        for name in self.names():
            if name not in names:
                raise KeyError(
                    f"{where}{': ' if where else ''}no column {name!r} among "
                    f"{', '.join(map(repr, names[:10]))}{', ...' * (len(names) > 10)}"
                )

    def piece(self, batch: Any) -> Piece:
        """Return what is in a table or a record batch."""
        if isinstance(self.features, str):
            X = _rows_of(self.features, _one_chunk(batch.column(self.features)))
        else:
            columns = [_numbers(name, _one_chunk(batch.column(name))) for name in self.features]
            X = np.empty((batch.num_rows, len(columns)), np.result_type(*columns))
            for j, column in enumerate(columns):
                X[:, j] = column
        weight = None
        if self.weight is not None:
            weight = _numbers(self.weight, _one_chunk(batch.column(self.weight)))
        return Piece(X, self.labels(batch), weight)

    def labels(self, batch: Any) -> Any:
        if self.label is None:
            return None
        column = _one_chunk(batch.column(self.label))
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or "view" in str(kind):
            _refuse_nulls(self.label, column)
            return np.array(column.to_pylist(), np.str_)
        return _numbers(self.label, column)


class TablePart(NamedTuple):
    """Rows of a table in memory."""

    table: Any
    columns: _Columns
    start: int
    n_rows: int

    @property
    def name(self) -> str:
        return f"rows {self.start} to {self.start + self.n_rows}"

    def _slice(self) -> Any:
        return self.table.slice(self.start, self.n_rows)

    def read(self, memo: dict[str, Any]) -> Piece:
        return self.columns.piece(self._slice())

    def read_labels(self, memo: dict[str, Any]) -> Any:
        return self.columns.labels(self._slice())


class ParquetPart(NamedTuple):
    """Rows of a row group."""

    path: str
    #: Size and time of change when it was opened first.
    state: tuple[int, int]
    columns: _Columns
    group: int
    #: Which of the group's rows: from `start` on.
    start: int
    n_rows: int
    #: Rows of each part of the group, but for the last.
    step: int

    @property
    def name(self) -> str:
        rows = f", rows {self.start} to {self.start + self.n_rows}" if self.start else ""
        return f"{self.path}, row group {self.group}{rows}"

    def read(self, memo: dict[str, Any]) -> Piece:
        return self.columns.piece(self._table(self.columns.names(), memo))

    def read_labels(self, memo: dict[str, Any]) -> Any:
        label = self.columns.label
        return None if label is None else self.columns.labels(self._table([label], memo))

    def _table(self, names: list[str], memo: dict[str, Any]) -> Any:
        """Its rows, from where the part before it, of the same group, left off."""
        if _state(self.path) != self.state:
            raise DataFormatError(
                "the file has changed since it was opened, the same content in each pass was wanted"
            )
        place = (self.path, self.group, self.start)
        if memo.get("place") != place:
            memo["batches"] = self._batches(names)
        batches, n = [], 0
        for batch in memo["batches"]:
            batches.append(batch)
            n += batch.num_rows
            if n >= self.n_rows:
                break
        memo["place"] = (self.path, self.group, self.start + n)
        return pa.Table.from_batches(batches)

    def _batches(self, names: list[str]) -> Iterator[Any]:
        """The group's rows from the part's first on, so many at a time that a large group is never
        in memory as a whole."""
        with _open(self.path) as file:
            at = 0
            for batch in file.iter_batches(self.step, row_groups=[self.group], columns=names):
                # A batch may be of less, and so end where no part does.
                while batch.num_rows:
                    n = min(batch.num_rows, self.step - at % self.step)
                    if at >= self.start:
                        yield batch.slice(0, n)
                    batch, at = batch.slice(n), at + n


def table_parts(
    table: Any, features: Any, label: str | None, weight: str | None, part_bytes: int
) -> list[TablePart]:
    """Cut a table, whatever library's it is, at the chunks of its features."""
    if not isinstance(table, pa.Table):
        if not hasattr(table, "__arrow_c_stream__"):
            raise TypeError(
                f"table: {type(table).__name__} came, a table of Arrow, polars or pandas was wanted"
            )
        table = pa.table(table)
    columns = _columns(features, label, weight)
    columns.check("", table.column_names)
    table = table.select(columns.names())
    step = max(64, int(part_bytes // max(1.0, table.nbytes / max(1, table.num_rows))) // 64 * 64)
    parts, at = [], 0
    first = table.column(0)
    for chunk in first.chunks:
        for start in range(0, len(chunk), step):
            parts.append(TablePart(table, columns, at + start, min(step, len(chunk) - start)))
        at += len(chunk)
    return parts


def parquet_parts(
    paths: Any, features: Any, label: str | None, weight: str | None, part_bytes: int
) -> list[ParquetPart]:
    """Find the row groups of files; only what they say of themselves is read."""
    columns = _columns(features, label, weight)
    parts = []
    for path in _files(paths):
        state = _state(path)
        with _open(path) as file:
            columns.check(path, file.schema_arrow.names)
            for group in range(file.num_row_groups):
                about = file.metadata.row_group(group)
                row_bytes = about.total_byte_size / max(1, about.num_rows)
                step = max(64, int(part_bytes // max(1.0, row_bytes)) // 64 * 64)
                for start in range(0, about.num_rows, step):
                    n = min(step, about.num_rows - start)
                    parts.append(ParquetPart(path, state, columns, group, start, n, step))
    return parts


def columns_of(paths: Any) -> tuple[list[str], list[str]]:
    """Return the names of the first file's columns, and of those that have lists."""
    with _open(_files(paths)[0]) as file:
        fields = list(file.schema_arrow)
    is_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    lists = [field.name for field in fields if any(test(field.type) for test in is_list)]
    return [field.name for field in fields], lists


def _columns(features: Any, label: str | None, weight: str | None) -> _Columns:
    names = features if isinstance(features, str) else tuple(features)
    if not names:
        raise ValueError("features: no column came, at least one was wanted")
    return _Columns(names, label, weight)


def _files(paths: Any) -> list[str]:
    files: list[str] = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else list(paths):
        name = os.fspath(path)
        if os.path.isdir(name):
            found = sorted(glob.glob(os.path.join(glob.escape(name), "**", "*.parquet"),
                                     recursive=True))  # fmt: skip
        elif os.path.exists(name):
            found = [name]
        else:
            found = sorted(glob.glob(name))
        if not found:
            raise FileNotFoundError(f"{name}: no such Parquet file")
        files += found
    return files


def _open(path: str) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataFormatError(f"{path}: not a sound Parquet file ({error})") from error


def _state(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _one_chunk(column: Any) -> Any:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def _refuse_nulls(name: str, column: Any) -> None:
    if column.null_count:
        nulls = np.asarray(column.is_null())
        raise DataFormatError(
            f"column {name!r}: a null came at row {nulls.argmax()}, values were wanted"
        )


def _numbers(name: str, column: Any) -> NDArray[Any]:
    """Return a column of numbers, without a copy where it is not of bools."""
    _refuse_nulls(name, column)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataFormatError(f"column {name!r}: {kind} came, numbers were wanted")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _rows_of(name: str, column: Any) -> NDArray[Any]:
    """Return a column of lists as an array (n, D), without a copy of their values."""
    _refuse_nulls(name, column)
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        column, kind = column.storage, column.storage.type
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = np.diff(np.asarray(column.offsets))
        width = int(lengths[0]) if len(lengths) else 0
        if (lengths != width).any():
            row = int((lengths != width).argmax())
            raise DataFormatError(
                f"column {name!r}: a list of {lengths[row]} came at row {row}, {width}, as in row "
                "0, were wanted"
            )
    else:
        raise DataFormatError(f"column {name!r}: {kind} came, lists of numbers were wanted")
    values = _numbers(name, column.flatten())
    return values.reshape(len(column), width)
