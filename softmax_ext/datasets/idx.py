"""IDX files, the format of MNIST and its relatives.

Every file is taken for hostile until it is read: sizes are checked before memory is asked for, and
compressed data are unpacked in bounded pieces straight into the array that is returned.
"""

from __future__ import annotations

import errno
import io
import math
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _files
from ..errors import DataFormatError

if TYPE_CHECKING:
    from hashlib import _Hash

_IDX_TYPES: dict[int, type[np.generic]] = {
    0x08: np.uint8,
    0x09: np.int8,
    0x0B: np.int16,
    0x0C: np.int32,
    0x0D: np.float32,
    0x0E: np.float64,
}
_MAX_DIMENSIONS = 32  # what every supported NumPy can hold
_PIECE = 1 << 20  # bytes read or unpacked at a time
DEFLATE_MAX_RATIO = 1032  # no deflate stream unpacks to more than this many times its size


class _Inflater:
    """A gzip file's content, with the one method of a plain file that is used here.

    Exactly one gzip member is accepted, with nothing behind it; its checksum and length are
    verified when its end is read.
    """

    def __init__(self, file: io.FileIO, name: str) -> None:
        import zlib

        self._file = file
        self._name = name
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def readinto(self, piece: memoryview) -> int:
        """Unpack at most ``len(piece)`` bytes into it; returns how many, 0 at the end."""
        import zlib

        while not self._stream.eof:
            packed = self._stream.unconsumed_tail or self._file.read(_PIECE)
            try:
                unpacked = self._stream.decompress(packed, len(piece))
            except zlib.error as error:
                raise DataFormatError(f"{self._name}: damaged gzip data ({error})") from error
            if unpacked:
                piece[: len(unpacked)] = unpacked
                return len(unpacked)
            if not packed:
                raise DataFormatError(f"{self._name}: the gzip data are cut short")
        if self._stream.unused_data or self._file.read(1):
            raise DataFormatError(f"{self._name}: data follow the end of the gzip member")
        return 0


class _IdxContent:
    """The unpacked bytes of an open IDX file, read forwards and hashed on the way."""

    def __init__(self, file: io.FileIO, name: str, digest: _Hash | None) -> None:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        if not status.st_size:
            raise DataFormatError(f"{name}: the file is empty")
        self.name = name
        self.file_size = status.st_size
        self.is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if name.lower().endswith(".gz") and not self.is_packed:
            raise DataFormatError(f"{name}: named .gz but not gzip data")
        self._source = _Inflater(file, name) if self.is_packed else file
        self._digest = digest

    def fill(self, buffer: memoryview) -> None:
        """Fill the whole buffer; DataFormatError where the content ends before."""
        filled = 0
        while filled < len(buffer):
            piece = buffer[filled : filled + _PIECE]
            count = self._source.readinto(piece)
            if not count:
                missing = len(buffer) - filled
                raise DataFormatError(f"{self.name}: the content ends {missing} bytes too early")
            if self._digest is not None:
                self._digest.update(piece[:count])
            filled += count

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes; for headers."""
        taken = bytearray(count)
        self.fill(memoryview(taken))
        return bytes(taken)

    def check_end(self) -> None:
        """DataFormatError unless everything has been read and the file is whole."""
        if self._source.readinto(memoryview(bytearray(1))):
            raise DataFormatError(f"{self.name}: the content is longer than its header says")


def read_checked(
    path: str | os.PathLike[str],
    *,
    shape: tuple[int, ...] | None = None,
    digest: _Hash | None = None,
    temporary: str | None = None,
) -> NDArray[Any]:
    """`read_idx` that can insist on uint8 of one shape and hash the unpacked content.

    `temporary` has what is still to come to `path`.
    """
    name = os.fsdecode(path)
    with open(temporary or name, "rb", buffering=0, opener=_files.open_without_waiting) as file:
        content = _IdxContent(file, name, digest)
        magic = content.take(4)
        scalar_type = _IDX_TYPES.get(magic[2])
        if magic[:2] != b"\0\0" or scalar_type is None:
            raise DataFormatError(f"{name}: not an IDX file (it begins with 0x{magic.hex()})")
        n_dimensions = magic[3]
        if not 1 <= n_dimensions <= _MAX_DIMENSIONS:
            raise DataFormatError(
                f"{name}: {n_dimensions} dimensions came, 1 to {_MAX_DIMENSIONS} were wanted"
            )
        lengths = content.take(4 * n_dimensions)
        dimensions = tuple(
            int.from_bytes(lengths[at : at + 4], "big") for at in range(0, len(lengths), 4)
        )
        dtype = np.dtype(scalar_type)
        if shape is not None and (dimensions != shape or dtype != np.uint8):
            raise DataFormatError(f"{name}: {dtype} {dimensions} came, uint8 {shape} was wanted")
        if 0 in dimensions:
            raise DataFormatError(f"{name}: a dimension of length 0 in {dimensions}")

        # math.prod: Python integers, where NumPy's product of three 32-bit lengths wraps.
        size = len(magic) + len(lengths) + math.prod(dimensions) * dtype.itemsize
        if content.is_packed:
            possible = size <= content.file_size * DEFLATE_MAX_RATIO
        else:
            possible = size == content.file_size
        if not possible:
            raise DataFormatError(
                f"{name}: {dimensions} of {dtype} is {size} bytes with the header,"
                f" not possible in a file of {content.file_size}"
            )

        array = np.empty(dimensions, dtype)
        content.fill(array.reshape(-1).view(np.uint8).data)
        content.check_end()
    if sys.byteorder == "little":
        array.byteswap(inplace=True)
    return array


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an IDX file, the format of MNIST and its relatives, plain or gzip-compressed.

    Parameters
    ----------
    path : str or path-like
        The file. gzip data are recognised by their first two bytes; a name that ends in
        ``.gz`` must hold them.

    Returns
    -------
    ndarray
        In the shape the file says, C-contiguous and in native byte order; dtype uint8, int8,
        int16, int32, float32 or float64.

    Raises
    ------
    DataFormatError
        If the file is not IDX, is damaged, is shorter or longer than its header says, or has
        a dimension of length 0. Memory stays within a small constant of what the header
        asks for, and a header that the file's size rules out is refused before any of that
        is allocated.
    OSError
        If the file cannot be read or is not a regular file (a folder, a FIFO, a device).

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from softmax_ext.datasets import read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "labels.idx")
    ...     with open(path, "wb") as file:
    ...         _ = file.write(bytes([0, 0, 0x08, 1, 0, 0, 0, 3, 9, 0, 4]))
    ...     read_idx(path)
    array([9, 0, 4], dtype=uint8)
    """
    return read_checked(path)


def is_idx(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as an IDX file does, plain or gzip-compressed."""
    name = os.fsdecode(path)
    with open(name, "rb", buffering=0, opener=_files.open_without_waiting) as file:
        try:
            magic = _IdxContent(file, name, None).take(4)
        except (OSError, DataFormatError):
            return False
    return magic[:2] == b"\0\0" and magic[2] in _IDX_TYPES and 1 <= magic[3] <= _MAX_DIMENSIONS


def idx_candidates(file: str, folder: str) -> list[str]:
    """What one of MNIST's files may be called in a folder, unpacked (quicker to read) first.

    Some mirrors write ``train-images.idx3-ubyte`` for ``train-images-idx3-ubyte``, and some put
    that beside a folder of the other name.
    """
    names = (file, file.replace("-idx", ".idx"))
    paths = [os.path.join(folder, name + suffix) for suffix in ("", ".gz") for name in names]
    return sorted(paths, key=os.path.isdir)
