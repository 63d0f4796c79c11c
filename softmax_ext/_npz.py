"""The container of model and checkpoint files: a strict `.npz`.

It is what `numpy.load` opens: a zip file, nothing compressed, of `.npy` entries, nothing pickled.
Three entries are the container's own: `format` (what the file is), `format_version`, and, last,
`sha256`, the digest of all others. The reader takes nothing on trust: every size is held against
the file's own before anything is allocated, headers are matched and never evaluated.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from . import _files
from .errors import ModelFormatError

if TYPE_CHECKING:
    import hashlib
    import zipfile

_OWN_ENTRIES = {"format": "U", "format_version": "iu", "sha256": "U"}

# The records at the end of a zip file without a comment: the end record itself and, for files of
# 2 GiB and more, the Zip64 end record and its locator before it.
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_MAX_DIRECTORY_BYTES = 1 << 16

_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|][biufU]\d{1,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n"
)


def write(
    path: str | os.PathLike[str], kind: str, version: int, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write arrays to a file, as `_files.writing` does.

    Parameters
    ----------
    path : str or path-like
        The file. Its folder must exist.
    kind : str
        What the file is, for example ``"softmax_ext model"``.
    version : int
        The version of that kind's layout.
    arrays : mapping of str to ndarray
        What to write. Integers, floats and strings.

    Raises
    ------
    OSError
        If the file cannot be written; what was at `path` is still there.
    """
    with _files.writing(path) as file:
        _write_zip(file, kind, version, arrays)


def read(
    path: str | os.PathLike[str],
    kind: str,
    version: int,
    required: Mapping[str, str],
    optional: Mapping[str, str],
) -> dict[str, NDArray[Any]]:
    """Read a file of `write`, or refuse it.

    Parameters
    ----------
    path : str or path-like
        The file.
    kind, version : str, int
        What it must be.
    required, optional : mapping of str to str
        The names of the entries that must and may be there, each with the letters of the dtype
        kinds it may have (``"f"`` floats, ``"iu"`` integers, ``"U"`` strings).

    Returns
    -------
    dict of str to ndarray
        The arrays, read-only, in native byte order.

    Raises
    ------
    ModelFormatError
        If the file is damaged, hostile, of another kind or of another version.
    OSError
        If it cannot be read.
    """
    with open(path, "rb", opener=_files.open_without_waiting) as file:
        status = os.fstat(file.fileno())
        try:
            if not stat.S_ISREG(status.st_mode):
                raise ModelFormatError("not a regular file")
            kinds = {**_OWN_ENTRIES, **required, **optional}
            arrays = _read_zip(file, status.st_size, kind, version, kinds)
            missing = sorted(set(required) - set(arrays))
            if missing:
                raise ModelFormatError(f"the entry {missing[0]!r} is missing")
        except ModelFormatError as error:
            raise ModelFormatError(f"{os.fsdecode(path)}: {error}") from error.__cause__
    return {name: array for name, array in arrays.items() if name not in _OWN_ENTRIES}


def _write_zip(file: BinaryIO, kind: str, version: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    import hashlib
    import zipfile

    digest = hashlib.sha256()
    own = {"format": np.array(kind), "format_version": np.array(version)}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {**own, **arrays}.items():
            _write_entry(archive, name, array, digest)
        _write_entry(archive, "sha256", np.array(digest.hexdigest()), hashlib.sha256())


def _write_entry(
    archive: zipfile.ZipFile, name: str, array: NDArray[Any], digest: hashlib._Hash
) -> None:
    from zipfile import ZipInfo

    # ZipInfo's fixed date, not today's: the same model is the same file.
    with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
        digest.update(f"{name}\n".encode())
        np.lib.format.write_array(_Tee(entry, digest), array, version=(1, 0), allow_pickle=False)


class _Tee:
    """The writing half of a file, which also digests what is written."""

    def __init__(self, file: Any, digest: hashlib._Hash) -> None:
        self._file = file
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return int(self._file.write(data))


def _read_zip(
    file: BinaryIO, size: int, kind: str, version: int, kinds: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    import hashlib
    import zipfile

    _check_directory_size(file, size)
    digest = hashlib.sha256()
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_sizes(entries, size)
            # Before the other entries, which may be those of another kind or version.
            _check_format(archive, kind, version)
            _check_names(entries, kinds)
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                data = archive.read(entry)
                arrays[name] = _parse_npy(data, name, kinds[name])
                if name != "sha256":
                    digest.update(f"{name}\n".encode())
                    digest.update(data)
    except ModelFormatError:
        raise
    # What zipfile raises for one kind of damage or another.
    except (
        zipfile.BadZipFile, RuntimeError, EOFError, ValueError, struct.error, OverflowError
    ) as error:  # fmt: skip
        raise ModelFormatError(f"not a sound .npz file ({error})") from error
    stored = arrays.get("sha256")
    if stored is None or stored.shape != () or stored.item() != digest.hexdigest():
        raise ModelFormatError("the content does not match its SHA-256; the file is damaged")
    return arrays


def _check_directory_size(file: BinaryIO, size: int) -> None:
    """Refuse a file whose table of contents could cost zipfile more memory than it deserves."""
    tail_size = _END64.size + _LOCATOR.size + _END.size
    if size < _END.size:
        raise ModelFormatError(f"not an .npz file: it has {size} bytes")
    file.seek(max(0, size - tail_size))
    tail = file.read(tail_size)
    if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\5\6"):
        raise ModelFormatError("not an .npz file, or one cut short")
    directory_bytes = _END.unpack(tail[-_END.size :])[5]
    if len(tail) == tail_size and tail[_END64.size :].startswith(b"PK\6\7"):
        directory_bytes = max(directory_bytes, _END64.unpack(tail[: _END64.size])[8])
    if directory_bytes > _MAX_DIRECTORY_BYTES:
        raise ModelFormatError(f"a table of contents of {directory_bytes} bytes")


def _check_sizes(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse compressed and impossibly large entries before any is read."""
    for entry in entries:
        if entry.compress_type != 0 or entry.compress_size != entry.file_size:
            raise ModelFormatError(f"{entry.filename!r:.80} is compressed")
        if entry.header_offset < 0 or entry.header_offset + entry.file_size > size:
            raise ModelFormatError(f"{entry.filename!r:.80} does not lie within the file")
    if sum(entry.file_size for entry in entries) > size:
        raise ModelFormatError("the entries are larger than the file")


def _check_format(archive: zipfile.ZipFile, kind: str, version: int) -> None:
    own = {}
    for name in ("format", "format_version"):
        if f"{name}.npy" not in archive.namelist():
            raise ModelFormatError(f"not a {kind} file")
        value = _parse_npy(archive.read(f"{name}.npy"), name, _OWN_ENTRIES[name])
        if value.shape != ():
            raise ModelFormatError(f"not a {kind} file")
        own[name] = value.item()
    if own["format"] != kind:
        raise ModelFormatError(f"a {own['format']:.80} file, not a {kind} file")
    if own["format_version"] != version:
        raise ModelFormatError(
            f"format version {own['format_version']}; this release reads version {version}"
        )


def _check_names(entries: list[zipfile.ZipInfo], kinds: Mapping[str, str]) -> None:
    names = [entry.filename for entry in entries]
    foreign = sorted(set(names) - {f"{name}.npy" for name in kinds})
    if foreign:
        raise ModelFormatError(f"unknown entry {foreign[0]!r:.80}")
    if len(set(names)) < len(names):
        raise ModelFormatError("two entries of the same name")


def _parse_npy(data: bytes, name: str, kinds: str) -> NDArray[Any]:
    """Make the array of an `.npy` entry, without a copy and without evaluating its header."""
    if len(data) < 10 or data[:8] != b"\x93NUMPY\1\0":
        raise ModelFormatError(f"{name}.npy is not an .npy file of version 1.0")
    start = 10 + int.from_bytes(data[8:10], "little")
    match = _NPY_HEADER.fullmatch(data, 10, min(start, len(data)))
    if match is None:
        raise ModelFormatError(f"{name}.npy has a header that is not understood")
    descr = match[1].decode()
    shape = tuple(int(extent) for extent in match[3].split(b",") if extent.strip())
    if descr[1] not in kinds:
        raise ModelFormatError(f"{name}.npy has the dtype {descr!r}")
    try:
        dtype = np.dtype(descr)
    except TypeError as error:
        raise ModelFormatError(f"{name}.npy has the dtype {descr!r}") from error
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ModelFormatError(f"{name}.npy has {len(data) - start} bytes for {descr} {shape}")
    array = np.frombuffer(data, dtype, offset=start)
    if dtype.kind == "U" and np.any(array.view(f"{descr[0]}u4") > 0x10FFFF):
        raise ModelFormatError(f"{name}.npy holds something that is not text")
    if dtype.kind == "b" and np.any(array.view(np.uint8) > 1):
        raise ModelFormatError(f"{name}.npy holds something that is neither true nor false")
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return array.reshape(shape, order="F" if match[2] == b"True" else "C")
