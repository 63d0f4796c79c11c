"""What `Blocks` reads: parts of arrays, of CSR matrices and of `.npy` files, again and again."""

from __future__ import annotations

import math
import mmap
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..arguments import Csr, as_matrix, is_bfloat16
from ..errors import DataFormatError

#: Bytes of X in a part, by default: little beside what memory there is, much beside what a call or
#: a request to a disk costs.
PART_BYTES = 64 << 20
# Rows of a part are a multiple of this, as far as there are so many: the drivers' own slices are.
_ROWS = 64


class Piece(NamedTuple):
    """Rows of a data set, with their labels and weights."""

    #: (n, D): an array, or a matrix in CSR form.
    X: Any
    #: Labels (n,) or probabilities (n, C); None: there are none.
    y: Any
    #: Weights (n,), or None.
    sample_weight: Any


class Part(Protocol):
    """A piece that is read when it is wanted."""

    @property
    def name(self) -> str:
        """What to call it in a message; "" for what has a number only."""

    @property
    def n_rows(self) -> int:
        """How many rows it has."""

    def read(self, memo: dict[str, Any]) -> Piece:
        """Return it; `memo` is for what a pass may remember from one part to the next."""

    def read_labels(self, memo: dict[str, Any]) -> Any:
        """Return its labels alone."""


class ArrayPart(NamedTuple):
    """Some rows of something that has rows, each column of them from a place of its own."""

    X: Rows
    y: Rows | None
    sample_weight: Rows | None
    #: Where its rows begin in each of the three, and how many they are.
    starts: tuple[int, int, int]
    n_rows: int
    name: str

    def read(self, memo: dict[str, Any]) -> Piece:
        columns = (self.X, self.y, self.sample_weight)
        return Piece(
            *(
                None if column is None else column.rows(start, start + self.n_rows, memo)
                for column, start in zip(columns, self.starts, strict=True)
            )
        )

    def read_labels(self, memo: dict[str, Any]) -> Any:
        start = self.starts[1]
        return None if self.y is None else self.y.rows(start, start + self.n_rows, memo)


class EditedPart(NamedTuple):
    """Some rows of a part, or all with other labels."""

    part: Part
    #: Which; None: all.
    chosen: NDArray[np.intp] | None
    #: The labels of those rows; None: their own.
    y: Any

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def n_rows(self) -> int:
        return self.part.n_rows if self.chosen is None else len(self.chosen)

    def read(self, memo: dict[str, Any]) -> Piece:
        X, y, weight = self.part.read(memo)
        if self.chosen is not None:
            X = take_rows(X, self.chosen)
            weight = None if weight is None else np.asarray(weight)[self.chosen]
            y = None if y is None else np.asarray(y)[self.chosen]
        return Piece(X, y if self.y is None else self.y, weight)

    def read_labels(self, memo: dict[str, Any]) -> Any:
        if self.y is not None or self.chosen is None:
            return self.part.read_labels(memo) if self.y is None else self.y
        y = self.part.read_labels(memo)
        return None if y is None else np.asarray(y)[self.chosen]


class Rows(Protocol):
    """Something that has rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def row_bytes(self) -> float: ...

    @property
    def name(self) -> str: ...

    def rows(self, start: int, stop: int, memo: dict[str, Any]) -> Any:
        """Return some of them; `memo` as of `Part`."""


class ArrayRows:
    """Those of an array or of a CSR matrix."""

    name = ""

    def __init__(self, array: Any) -> None:
        is_sparse = hasattr(array, "indptr")
        self._array = as_matrix(array) if is_sparse else np.asanyarray(array)
        self.shape: tuple[int, ...] = tuple(self._array.shape)
        values = self._array.data if isinstance(self._array, Csr) else self._array
        #: Whether the kernels take it without a copy.
        self.is_taken = values.flags.aligned and (
            is_bfloat16(values.dtype)
            or values.dtype == np.uint8
            or (values.dtype.kind == "f" and values.dtype.isnative)
        )
        self.row_bytes = values.nbytes / max(1, self.shape[0] if self.shape else 1)

    def rows(self, start: int, stop: int, memo: dict[str, Any]) -> Any:
        array = self._array
        if not isinstance(array, Csr):
            return array[start:stop]
        if (start, stop) == (0, self.shape[0]):
            return array
        low, high = int(array.indptr[start]), int(array.indptr[stop])
        return Csr(
            array.data[low:high],
            array.indices[low:high],
            array.indptr[start : stop + 1] - array.indptr[start],
            (stop - start, array.shape[1]),
        )


class _Buffers:
    """Memory of pieces that nobody has any more, for the next ones.

    New memory of this size comes from the system, which clears it: a third of the time of reading.
    """

    # Of a piece at work, one that waits, one that is being read, and labels and weights of them.
    _MOST = 9

    def __init__(self) -> None:
        self._all: list[NDArray[np.uint8]] = []
        # References to one in the list while `take` looks at it.
        probe = [np.empty(1, np.uint8)]
        self._unused = next(sys.getrefcount(buffer) for buffer in probe)

    def take(self, n_bytes: int) -> NDArray[np.uint8]:
        for buffer in self._all:
            # An array made of it holds it as long as anybody has that.
            if n_bytes <= buffer.nbytes < 2 * n_bytes and sys.getrefcount(buffer) == self._unused:
                return buffer[:n_bytes]
        new = np.empty(n_bytes, np.uint8)
        self._all = [*self._all[-self._MOST + 1 :], new]
        return new[:]


class NpyRows:
    """Those of an `.npy` file, which has to stay as it is."""

    def __init__(self, path: str | os.PathLike[str], memory_map: bool) -> None:
        self.name = os.fsdecode(path)
        self._memory_map = memory_map
        if not os.path.isfile(self.name):
            raise FileNotFoundError(f"{self.name}: no such file")
        try:
            with open(self.name, "rb") as file:
                header = read_npy_header(file, os.fstat(file.fileno()).st_size)
        except (ValueError, EOFError) as error:
            raise DataFormatError(f"{self.name}: not a sound .npy file ({error})") from error
        self.shape, is_by_columns, self._dtype, self._offset = header
        self._by_rows = not is_by_columns or len(self.shape) < 2
        n_bytes = math.prod(self.shape) * self._dtype.itemsize
        self.row_bytes = n_bytes / max(1, self.shape[0] if self.shape else 1)
        self._state = self._look()

    def _look(self) -> tuple[int, int]:
        status = os.stat(self.name)
        return status.st_size, status.st_mtime_ns

    def rows(self, start: int, stop: int, memo: dict[str, Any]) -> NDArray[Any]:
        if self._look() != self._state:
            raise DataFormatError(
                "the file has changed since it was opened, the same content in each pass was wanted"
            )
        if self._memory_map or not self._by_rows:
            mapped: NDArray[Any] = np.load(self.name, mmap_mode="r", allow_pickle=False)
            array = mapped[start:stop]
            if not self._memory_map:
                return np.array(array)
            self._fetch(array)
            return array
        row = int(np.prod(self.shape[1:], dtype=np.int64))
        with open(self.name, "rb", buffering=0) as file:
            n_bytes = (stop - start) * row * self._dtype.itemsize
            values = memo.setdefault("buffers", _Buffers()).take(n_bytes)
            file.seek(self._offset + start * row * self._dtype.itemsize)
            view, at = values.data, 0
            while at < len(view):
                n = file.readinto(view[at:])
                if not n:
                    raise DataFormatError(f"the file ends before row {stop}")
                at += n
        result: NDArray[Any] = values.view(self._dtype).reshape(stop - start, *self.shape[1:])
        return result

    def _fetch(self, array: NDArray[Any]) -> None:
        """Tell the system that these rows are wanted next."""
        mapped = getattr(array, "_mmap", None)
        if mapped is None or not array.size or not hasattr(mmap, "MADV_WILLNEED"):
            return
        whole = np.frombuffer(mapped, np.uint8)
        begin = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        begin -= begin % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, begin, min(array.nbytes, len(whole) - begin))


def read_npy_header(content: Any, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, order (True: by columns) and dtype of an `.npy`, and where its data begins.

    Raises
    ------
    ValueError
        Unless the header is sound and tells the file's size.
    """
    version = np.lib.format.read_magic(content)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's parser about nonsense
            shape, is_by_columns, dtype = read_header(content)
    except OSError:
        raise
    except Exception as error:  # NumPy lets through whatever that parser and np.dtype raise
        raise ValueError(f"a header that is not understood: {error}") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    offset = content.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize + offset != size:
        raise ValueError(f"{dtype} {shape} does not fit into {size} bytes")
    return shape, is_by_columns, dtype, offset


def take_rows(X: Any, rows: NDArray[np.intp]) -> Any:
    """Return a copy of some rows of an array or of a CSR matrix."""
    if not hasattr(X, "indptr"):
        return X[rows]
    X = as_matrix(X)
    begin = X.indptr[rows].astype(np.intp)
    lengths = X.indptr[rows + 1].astype(np.intp) - begin
    ends = np.concatenate([[0], np.cumsum(lengths)])
    entries = np.arange(ends[-1]) + np.repeat(begin - ends[:-1], lengths)
    return Csr(X.data[entries], X.indices[entries], ends, (len(rows), X.shape[1]))


def parts_of(
    X: Sequence[Rows], y: Sequence[Rows] | None, weight: Sequence[Rows] | None, part_bytes: int
) -> list[ArrayPart]:
    """Cut things that have rows, and what belongs to them, into parts.

    Labels and weights are one for each of X, or one for all of them.
    """
    n_rows = [rows.shape[0] for rows in X]
    at_y = _starts("y", y, n_rows)
    at_weight = _starts("sample_weight", weight, n_rows)
    parts = []
    for k, rows in enumerate(X):
        step = max(1, int(part_bytes // max(1.0, rows.row_bytes)))
        step = max(step - step % _ROWS, min(step, _ROWS))
        for start in range(0, n_rows[k], step):
            n = min(step, n_rows[k] - start)
            name = rows.name
            if n < n_rows[k]:
                name = f"{name}{', ' if name else ''}rows {start} to {start + n}"
            starts = (start, at_y[k][1] + start, at_weight[k][1] + start)
            parts.append(ArrayPart(rows, at_y[k][0], at_weight[k][0], starts, n, name))
    return parts


def merged_parts(parts: Sequence[Part]) -> list[Part]:
    """Return parts of which those that follow each other in all their columns are one."""
    result: list[Part] = []
    for part in parts:
        last = result[-1] if result else None
        if (
            isinstance(part, ArrayPart)
            and isinstance(last, ArrayPart)
            and isinstance(part.X, ArrayRows)
            and part.X.is_taken
            and (last.X, last.y, last.sample_weight) == (part.X, part.y, part.sample_weight)
            and all(a + last.n_rows == b for a, b in zip(last.starts, part.starts, strict=True))
        ):
            result[-1] = last._replace(n_rows=last.n_rows + part.n_rows, name=part.X.name)
        else:
            result.append(part)
    return result


def _starts(
    name: str, columns: Sequence[Rows] | None, n_rows: list[int]
) -> list[tuple[Rows | None, int]]:
    """Return for each piece what holds its labels or weights, and from where on."""
    if columns is None:
        return [(None, 0)] * len(n_rows)
    if len(columns) == 1 and len(n_rows) != 1:
        if columns[0].shape[:1] != (sum(n_rows),):
            raise ValueError(
                f"{name}: shape {columns[0].shape} came, {sum(n_rows)} rows, as all pieces of X "
                "have, were wanted"
            )
        ends = np.cumsum([0, *n_rows]).tolist()
        return [(columns[0], start) for start in ends[:-1]]
    if len(columns) != len(n_rows):
        raise ValueError(
            f"{name}: {len(columns)} pieces came, {len(n_rows)}, as X has, or one array for all "
            "were wanted"
        )
    for k, (column, n) in enumerate(zip(columns, n_rows, strict=True)):
        if column.shape[:1] != (n,):
            where = f" ({column.name})" if column.name else ""
            raise ValueError(
                f"{name}: shape {column.shape} came in piece {k}{where}, {n} rows, as X has "
                "there, were wanted"
            )
    return [(column, 0) for column in columns]
