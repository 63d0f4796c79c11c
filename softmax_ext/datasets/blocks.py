"""`Blocks`: a data set that is read piece by piece, again in every pass."""

from __future__ import annotations

import contextlib
import glob
import math
import os
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..arguments import as_labels, integer_between
from ..errors import DataFormatError
from ._parts import (
    PART_BYTES,
    ArrayPart,
    ArrayRows,
    EditedPart,
    NpyRows,
    Part,
    Piece,
    Rows,
    merged_parts,
    parts_of,
)
from ._read_ahead import read_ahead

_Prepared = TypeVar("_Prepared")

#: Kinds of numbers that X may have: what the kernels take, or what becomes that.
_KINDS = "biuf"
_HALVES = ("float16", "bfloat16")


class Blocks:
    """Rows in pieces, for data that is not one array: each pass over it reads them again.

    Taken as X, with ``y=None``, by `fit_lbfgs`, `Trainer.fit`, `solvers.minimize`, and by `loss`,
    `accuracy`, `predict` and `predict_proba` of `SoftmaxModel`. While one piece is worked on, a
    thread reads the next.

    Parameters
    ----------
    source : list, str, path-like, callable, ndarray or CSR matrix
        Where the pieces come from:

        * a list of arrays or of CSR matrices, each (n, D); or of pieces ``(X, y)`` and
          ``(X, y, sample_weight)``;
        * the path of an `.npy` file, a pattern such as ``"part-*.npy"`` (in the order of their
          names), or a list of paths. Large files are cut into pieces;
        * a callable without arguments that returns a new iterator of pieces ``(X, y)`` or ``(X, y,
          sample_weight)``, the same ones each time. The iterator runs in the reading thread;
        * one array or CSR matrix, which is cut into pieces.
    y : list, array_like, str or path-like, optional
        Labels (n,) or probabilities (n, C) of each piece: as many arrays, or paths of `.npy` files,
        as `source` has; or one for all rows. None where the pieces bring them, or there are none.
    sample_weight : list, array_like, str or path-like, optional
        Weights of the rows (n,), at least 0, in the same way.
    part_bytes : int, optional
        About how many bytes of X a piece of a file or of one array has.
    memory_map : bool, optional
        Map `.npy` files into memory instead of reading them: no copy is made where the system has
        them in its cache, and its count of this process's memory includes them.
    read_ahead : bool, optional
        Whether a thread reads the next piece. Beside the piece at work up to two are in memory.

    Raises
    ------
    TypeError
        If `source` is none of those: an iterator, which can be read once only, among others.
    ValueError
        If labels or weights do not fit X.
    DataFormatError
        If a file is not a sound `.npy` file; in a pass, if it has changed, or other pieces came
        than in the first pass.
    OSError
        If a file cannot be read.

    See Also
    --------
    Blocks.from_parquet, Blocks.from_arrow : Pieces of columnar files and of tables.

    Notes
    -----
    All pieces have one width and one dtype. X is float32, float64, uint8, float16 or bfloat16,
    other integers (made float64 a piece at a time), or CSR. Images (n, h, w, ...) are
    flattened. Sums over pieces are added up in their order, so a result depends on how the rows
    are cut, in its last digits, but not on threads, timing or reading ahead.

    Examples
    --------
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> X = [np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]])]
    >>> data = sx.Blocks(X, [np.array([0, 1]), np.array([0, 1])])
    >>> data
    Blocks(2 pieces, 4 rows, 1 feature, float64)
    >>> model = sx.SoftmaxModel.zeros(1, 2, dtype=np.float64)
    >>> sx.fit_lbfgs(model, data).success
    True
    >>> model.predict(data).tolist()
    [0, 1, 0, 1]
    """

    #: What tells blocks from arrays, where this module is not imported.
    is_blocks = True

    def __init__(
        self,
        source: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        part_bytes: int = PART_BYTES,
        memory_map: bool = False,
        read_ahead: bool = True,
    ) -> None:
        part_bytes = integer_between("part_bytes", part_bytes, 1)
        parts: Sequence[Part] | None = None
        factory: Callable[[], Iterable[Any]] | None = None
        if hasattr(source, "__next__"):
            raise TypeError(
                f"source: {type(source).__name__} came, which can be read once only; a callable "
                "that returns a new iterator each time was wanted"
            )
        if callable(source) and not hasattr(source, "__array__"):
            if y is not None or sample_weight is not None:
                raise TypeError("y, sample_weight: came beside a callable, whose pieces bring them")
            factory = source
        else:
            parts = _as_parts(source, y, sample_weight, part_bytes, memory_map)
        self._set(parts, factory, read_ahead)

    @classmethod
    def _of(cls, parts: Sequence[Part], read_ahead: bool) -> Blocks:
        blocks = cls.__new__(cls)
        blocks._set(parts, None, read_ahead)
        return blocks

    @classmethod
    def from_parquet(
        cls,
        paths: Any,
        *,
        features: str | Sequence[str],
        label: str | None = None,
        weight: str | None = None,
        part_bytes: int = PART_BYTES,
        read_ahead: bool = True,
    ) -> Blocks:
        """Make blocks of Parquet files, a row group at a time; needs pyarrow.

        Parameters
        ----------
        paths : str, path-like or list of those
            Files, folders of `.parquet` files, or patterns such as ``"part-*.parquet"``.
        features : str or sequence of str
            The column that has the rows of X, lists of one length of float16, float32, float64 or
            uint8 (fixed-size lists are read without a copy); or several columns of numbers, one for
            each feature.
        label, weight : str, optional
            The columns of labels, integers or strings, and of the rows' weights.
        part_bytes : int, optional
            Larger row groups are read in pieces of about so many bytes.
        read_ahead : bool, optional
            As of `Blocks`.

        Raises
        ------
        ImportError
            Without pyarrow.
        DataFormatError
            If a file is no Parquet file; in a pass, if a row group has nulls or lists of other
            lengths, or a file has changed.
        KeyError
            If a file has no such column.
        OSError
            If a file cannot be read.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> data = sx.Blocks.from_parquet(
        ...     "embeddings/*.parquet", features="embedding", label="label"
        ... )  # doctest: +SKIP
        """
        from ._arrow import parquet_parts

        parts = parquet_parts(paths, features, label, weight, int(part_bytes))
        return cls._of(parts, read_ahead)

    @classmethod
    def from_arrow(
        cls,
        table: Any,
        *,
        features: str | Sequence[str],
        label: str | None = None,
        weight: str | None = None,
        part_bytes: int = PART_BYTES,
        read_ahead: bool = True,
    ) -> Blocks:
        """Make blocks of a table in memory, without a copy of the whole; needs pyarrow.

        Parameters
        ----------
        table : pyarrow.Table, polars.DataFrame or any with ``__arrow_c_stream__``
            Its chunks are the pieces, large ones cut. A column of lists is taken as it lies in
            memory; of several columns, a piece at a time is put together.
        features, label, weight, part_bytes, read_ahead
            As of `from_parquet`.

        Raises
        ------
        ImportError, DataFormatError, KeyError
            As `from_parquet`.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> data = sx.Blocks.from_arrow(
        ...     frame, features=["width", "height"], label="species"
        ... )  # doctest: +SKIP
        """
        from ._arrow import table_parts

        return cls._of(table_parts(table, features, label, weight, int(part_bytes)), read_ahead)

    def _set(
        self,
        parts: Sequence[Part] | None,
        factory: Callable[[], Iterable[Any]] | None,
        is_reading_ahead: bool,
    ) -> None:
        self._parts = None if parts is None else [part for part in parts if part.n_rows]
        self._factory = factory
        self._read_ahead = bool(is_reading_ahead)
        # What the first whole pass saw of each piece, which later ones must see; and, of a
        # callable's pieces, checksums of their labels.
        self._prints: list[tuple[int, int]] | None = None
        self._labels_seen: list[int] = []
        self._form: tuple[int, np.dtype[Any], bool] | None = None
        self._last_iterator: Any = None

    def __repr__(self) -> str:
        if self._parts is None and self._prints is None:
            return "Blocks(of a callable)"
        D, dtype, is_sparse = self._first()
        n = self.n_pieces
        return (
            f"Blocks({n} piece{'s' * (n != 1)}, {self.n_rows} rows, {D} feature{'s' * (D != 1)}, "
            f"{dtype}{' in CSR form' if is_sparse else ''})"
        )

    # What is known of the data ---------------------------------------------------------------

    @property
    def n_features(self) -> int:
        """D, the width of every piece."""
        return self._first()[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of X, as it comes from the source."""
        return self._first()[1]

    @property
    def is_sparse(self) -> bool:
        """Whether X is in CSR form."""
        return self._first()[2]

    @property
    def n_rows(self) -> int:
        """N; of a callable's pieces, which are counted in a pass of their own if none was made."""
        return sum(self.lengths)

    @property
    def n_pieces(self) -> int:
        """How many pieces a pass has."""
        return len(self.lengths)

    @property
    def lengths(self) -> list[int]:
        """The rows of each piece."""
        if self._parts is not None:
            return [part.n_rows for part in self._parts]
        if self._prints is None:
            with contextlib.closing(self.pieces()) as pieces:
                for _ in pieces:
                    pass
        assert self._prints is not None
        return [n for n, _ in self._prints]

    @property
    def is_in_memory(self) -> bool:
        """Whether the pieces are those of arrays, which need no reading."""
        return self._parts is not None and all(
            isinstance(part, ArrayPart) and isinstance(part.X, ArrayRows) for part in self._parts
        )

    @property
    def can_seek(self) -> bool:
        """Whether pieces can be read in any order: those of a callable come in its own."""
        return self._parts is not None

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self.n_rows, self.n_features

    def merged(self) -> Blocks:
        """Return blocks of the same rows in as few pieces as there are arrays in memory.

        Where nothing is to be read, a piece more is a call more.
        """
        if self._parts is None or not self.is_in_memory:
            return self
        return Blocks._of(merged_parts(self._parts), self._read_ahead)

    def edited(
        self, chosen: Sequence[NDArray[np.intp]] | None = None, y: NDArray[Any] | None = None
    ) -> Blocks:
        """Return blocks of some rows of each piece, or of all with other labels.

        Parameters
        ----------
        chosen : sequence of ndarray, optional
            For each piece, which of its rows.
        y : ndarray, optional
            The labels of all the rows that are left.

        Raises
        ------
        TypeError
            If the pieces are those of a callable.
        """
        if self._parts is None:
            raise TypeError("source: a callable came, pieces that can be read by themselves wanted")
        lengths = self.lengths if chosen is None else [len(rows) for rows in chosen]
        ends = np.cumsum([0, *lengths])
        parts = [
            EditedPart(
                part,
                None if chosen is None else chosen[k],
                None if y is None else y[ends[k] : ends[k + 1]],
            )
            for k, part in enumerate(self._parts)
        ]
        return Blocks._of(parts, self._read_ahead)

    def description(self) -> str:
        """Return what a resumed fit recognises the data by: the pieces' rows, and their labels."""
        if self._parts is not None:
            digests = [checksum(labels) for labels in self.labels()]
        else:
            _ = self.lengths  # by a pass, if there was none
            digests = self._labels_seen
        digest = zlib.crc32(np.array([*self.lengths, *digests], np.int64).tobytes())
        D, dtype, _ = self._first()
        return (
            f"{dtype} of shape ({self.n_rows}, {D}) in {self.n_pieces} pieces, labels {digest:08x}"
        )

    def _first(self) -> tuple[int, np.dtype[Any], bool]:
        """Width, dtype and form of the first piece, and so of all."""
        if self._form is None:
            with contextlib.closing(self._read(None)) as pieces:
                for _ in pieces:
                    break
            if self._form is None:
                raise ValueError("source: no rows came, at least one was wanted")
        return self._form

    # Reading ------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces ``(X, y, sample_weight)``, checked, in order."""
        with contextlib.closing(self.pieces()) as pieces:
            for _, _, piece in pieces:
                yield piece

    def pieces(
        self,
        prepare: Callable[[Piece], Any] | None = None,
        *,
        order: Sequence[int] | None = None,
    ) -> Generator[tuple[int, int, Any], None, None]:
        """Yield each piece's number, its rows, and what `prepare` makes of it.

        To be closed, as it may have a thread. `prepare` runs in that; the errors that it raises are
        given the piece's name.

        Parameters
        ----------
        prepare : callable, optional
            None: the pieces as they are.
        order : sequence of int, optional
            Which pieces, if `can_seek`. None: all.
        """
        pieces = self._prepared(prepare, order)
        is_read = self._read_ahead and not self.is_in_memory
        yield from read_ahead(pieces) if is_read else pieces

    def labels(self) -> Iterator[Any]:
        """Yield the labels of each piece, without reading X where they lie elsewhere."""
        if self._parts is not None:
            memo: dict[str, Any] = {}
            yield from (part.read_labels(memo) for part in self._parts)
        else:
            yield from (piece.y for piece in self)

    def classes(self) -> NDArray[Any]:
        """Return the different labels, sorted; reads all of them."""
        found: NDArray[Any] | None = None
        for k, labels in enumerate(self.labels()):
            if labels is None or np.ndim(labels) != 1:
                came = "none" if labels is None else f"shape {np.shape(labels)}"
                raise ValueError(f"y: {came} came in piece {k}, labels (n,) were wanted")
            unique = np.unique(np.asarray(labels))
            found = unique if found is None else np.union1d(found, unique)
        if found is None:
            raise ValueError("source: no rows came, at least one was wanted")
        return found

    def naming(self, k: int, work: Callable[[Any], _Prepared], piece: Any) -> _Prepared:
        """Return what `work` makes of a piece; the errors that it raises are given its name."""
        try:
            return work(piece)
        except (ValueError, TypeError, IndexError) as error:
            raise named(error, k, self._name(k)) from error

    def _name(self, k: int) -> str:
        return "" if self._parts is None else self._parts[k].name

    def _prepared(
        self, prepare: Callable[[Piece], Any] | None, order: Sequence[int] | None
    ) -> Generator[tuple[int, int, Any], None, None]:
        with contextlib.closing(self._read(order)) as pieces:
            for k, _, piece in pieces:
                n = piece.X.shape[0]
                prepared = piece if prepare is None else self.naming(k, prepare, piece)
                yield k, n, prepared
                del prepared, piece

    def _read(self, order: Sequence[int] | None) -> Generator[tuple[int, str, Piece], None, None]:
        """Read pieces, and hold them against the first one and against those of the first pass."""
        prints: list[tuple[int, int]] = []
        labels: list[int] = []
        n_pieces = 0
        if self._parts is not None:
            source = self._parted(range(len(self._parts)) if order is None else order)
        else:
            source = self._called()
        for k, name, raw in source:
            try:
                piece = self._checked(raw)
            except (ValueError, TypeError) as error:
                raise named(error, k, name) from error
            seen = _fingerprint(piece)
            if self._prints is None:
                prints.append(seen)
                if self._parts is None:
                    labels.append(checksum(piece.y))
            elif k >= len(self._prints) or self._prints[k] != seen:
                raise named(
                    DataFormatError(
                        "other rows or labels came than in the first pass, the same in every pass "
                        "were wanted"
                    ),
                    k,
                    name,
                )
            n_pieces += 1
            yield k, name, piece
            del piece, raw
        if order is None:
            self._end_pass(prints, labels, n_pieces)

    def _end_pass(self, prints: list[tuple[int, int]], labels: list[int], n_pieces: int) -> None:
        """Remember what a first pass saw; refuse one that was shorter."""
        if self._prints is None:
            if not prints:
                raise ValueError("source: no rows came, at least one was wanted")
            self._prints, self._labels_seen = prints, labels
        elif n_pieces < len(self._prints):
            raise DataFormatError(
                f"source: {n_pieces} pieces came, {len(self._prints)}, as in the first pass, "
                "were wanted"
            )

    def _parted(self, order: Sequence[int]) -> Iterator[tuple[int, str, Any]]:
        """The parts, in an order."""
        assert self._parts is not None
        memo: dict[str, Any] = {}
        for k in order:
            part = self._parts[k]
            try:
                piece = part.read(memo)
            except DataFormatError as error:
                raise named(error, k, part.name) from error
            yield k, part.name, piece

    def _called(self) -> Iterator[tuple[int, str, Any]]:
        """The pieces of a new iterator of the callable, empty ones left out."""
        assert self._factory is not None
        pieces = iter(self._factory())
        if pieces is self._last_iterator:
            raise TypeError(
                "source: the same iterator came again, which can be read once only; a new one at "
                "each call was wanted"
            )
        self._last_iterator = pieces
        k = 0
        try:
            for raw in pieces:
                if not isinstance(raw, (tuple, list)) or len(raw) not in (2, 3):
                    raise TypeError(
                        f"source: {type(raw).__name__} came for piece {k}, a tuple "
                        "(X, y) or (X, y, sample_weight) was wanted"
                    )
                piece = Piece(*raw, *[None] * (3 - len(raw)))
                if np.shape(piece.X)[:1] == (0,):
                    continue
                yield k, "", piece
                k += 1
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _checked(self, raw: Piece) -> Piece:
        """Return a piece as arrays, X with two axes; refuse one unlike the first."""
        X, y, weight = raw
        is_sparse = hasattr(X, "indptr")
        if not is_sparse:
            X = np.asanyarray(X)
            if X.ndim > 2:
                X = X.reshape(len(X), math.prod(X.shape[1:]))
        values = X.data if is_sparse else X
        if len(X.shape) != 2 or not _is_number(values.dtype):
            raise ValueError(
                f"X: {values.dtype} of shape {X.shape} came, numbers (n, D) were wanted"
            )
        form = X.shape[1], values.dtype, is_sparse
        if self._form is None:
            self._form = form
        elif form != self._form:
            raise ValueError(
                f"X: {_form_name(form)} came, {_form_name(self._form)}, as in the first piece, was "
                "wanted"
            )
        for name, column in (("y", y), ("sample_weight", weight)):
            if column is not None and np.shape(column)[:1] != X.shape[:1]:
                raise ValueError(
                    f"{name}: shape {np.shape(column)} came, {X.shape[0]} rows, as X has, were "
                    "wanted"
                )
        return Piece(
            X, None if y is None else np.asarray(y), None if weight is None else np.asarray(weight)
        )


def named(error: Exception, k: int, name: str) -> Exception:
    """Return an error of the same kind that says in which piece."""
    where = f"piece {k}{f' ({name})' if name else ''}"
    kind = type(error)
    for known in (DataFormatError, IndexError, TypeError):
        if isinstance(error, known):
            kind = known
            break
    else:
        kind = ValueError
    return kind(f"{where}: {error}")


def compute_dtype(stored: DTypeLike, parameters: DTypeLike) -> np.dtype[Any]:
    """Return what is computed in, as the kernels choose it."""
    stored, parameters = np.dtype(stored), np.dtype(parameters)
    is_narrow = stored == np.uint8 or stored == np.float32 or stored.name in _HALVES
    return np.dtype(np.float32) if is_narrow and parameters == np.float32 else np.dtype(np.float64)


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in _KINDS or dtype.name in _HALVES


def _form_name(form: tuple[int, np.dtype[Any], bool]) -> str:
    D, dtype, is_sparse = form
    return f"{dtype} of width {D}{' in CSR form' if is_sparse else ''}"


def _fingerprint(piece: Piece) -> tuple[int, int]:
    """The number of rows, and a checksum of some: a glance, beside a pass over them."""
    X = piece.X
    n, digest = X.shape[0], 0
    if hasattr(X, "indptr"):
        ends: list[Any] = [X.data[:64], X.indices[:64], X.data[-64:], X.indices[-64:]]
    else:
        ends = [X[0], X[n - 1]] if n else []
    step = max(1, n // 64)
    columns = (None if c is None else c[::step] for c in (piece.y, piece.sample_weight))
    for array in (*ends, *columns):
        digest = checksum(array, digest)
    return n, digest


def checksum(array: NDArray[Any] | None, digest: int = 0) -> int:
    """A checksum of an array's elements, following that of others."""
    if array is None:
        return digest
    array = as_labels(np.asarray(array))
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, digest)


def _as_parts(
    source: Any, y: Any, weight: Any, part_bytes: int, memory_map: bool
) -> Sequence[Part]:
    """Make parts of arrays, of paths, or of a list of pieces."""
    items = _items("source", source)
    if items and all(isinstance(item, tuple) for item in items) and not _is_csr(items[0]):
        if y is not None or weight is not None:
            raise TypeError("y, sample_weight: came beside pieces (X, y), which bring them")
        bad = next((k for k, item in enumerate(items) if len(item) not in (2, 3)), None)
        if bad is not None:
            raise TypeError(
                f"source: a tuple of {len(items[bad])} came for piece {bad}, (X, y) or (X, y, "
                "sample_weight) was wanted"
            )
        columns: list[Any] = [
            list(column) for column in zip(*(item[:2] for item in items), strict=True)
        ]
        with_weight = [len(item) == 3 and item[2] is not None for item in items]
        if any(with_weight):
            if not all(with_weight):
                raise ValueError(
                    f"sample_weight: none came in piece {with_weight.index(False)}, weights in all "
                    "pieces or in none were wanted"
                )
            columns.append([item[2] for item in items])
        items, y, weight = columns[0], columns[1], columns[2] if len(columns) > 2 else None
        # Labels one by one, or none at all.
        if all(labels is None for labels in y):
            y = None
    X, labels, weights = (
        None if column is None else [_as_rows(name, item, memory_map) for item in column]
        for name, column in (
            ("source", items),
            ("y", None if y is None else _items("y", y)),
            ("sample_weight", None if weight is None else _items("sample_weight", weight)),
        )
    )
    assert X is not None
    return parts_of(X, labels, weights, part_bytes)


def _items(name: str, value: Any) -> list[Any]:
    """The pieces in a list, the files of a pattern, or the one thing that there is."""
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if not glob.has_magic(path) or os.path.exists(path):
            return [value]
        found = sorted(glob.glob(path))
        if not found:
            raise FileNotFoundError(f"{name}: no file is named like {path}")
        return found
    if isinstance(value, np.ndarray) or _is_csr(value):
        return [value]
    if isinstance(value, Sequence):
        # A list of numbers or of strings that are no paths is one array of labels.
        if name != "source" and value and np.ndim(value[0]) == 0 and not _is_path(value[0]):
            return [np.asarray(value)]
        return list(value)
    if hasattr(value, "__array__"):
        return [np.asarray(value)]
    raise TypeError(
        f"{name}: {type(value).__name__} came, a list of arrays or paths, a path, an array or a "
        "callable was wanted"
    )


def _is_csr(value: Any) -> bool:
    return hasattr(value, "indptr") and hasattr(value, "indices")


def _is_path(value: Any) -> bool:
    return isinstance(value, os.PathLike) or (isinstance(value, str) and value.endswith(".npy"))


def _as_rows(name: str, item: Any, memory_map: bool) -> Rows:
    if isinstance(item, (str, os.PathLike)):
        rows: Rows = NpyRows(item, memory_map)
    else:
        rows = ArrayRows(item)
    if not rows.shape:
        raise ValueError(f"{name}: a single value came, rows were wanted")
    return rows
