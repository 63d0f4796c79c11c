"""How outputs are written: the one place where this package writes files.

A regular file is replaced whole, so that at every moment its name stands for the old content or
for the new one. Whatever else a name leads to, a pipe, a device or a descriptor of this process
(`/dev/stdout`, `/dev/fd/63`), is written to as it is.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import re
import stat
from collections.abc import Iterator
from typing import IO, Any, NoReturn, TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MAX_LINKS = 40  # that Linux follows from one name
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.tmp", re.DOTALL)
# Errors of the writing itself, which do not say where: no room, and a descriptor to read from.
_UNNAMED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF}
# From a folder that cannot be opened, or a file system that does not sync folders.
_CANNOT_SYNC = {errno.EACCES, errno.EPERM, errno.EBADF, errno.EINVAL, errno.ENOTSUP}


def open_without_waiting(path: str, flags: int) -> int:
    """Opener with which a FIFO that nobody writes to cannot hang us."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def regular_target(path: str | os.PathLike[str]) -> str | None:
    """The regular file, there or to be made, that a name leads to; None for a pipe or device.

    Raises
    ------
    OSError
        If that cannot be known; IsADirectoryError for a folder.
    """
    name = os.fsdecode(path)
    if descriptor_meant(name) is not None:
        return None
    target = os.path.realpath(name)  # a link stays a link
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError:
        if not name:  # which realpath takes for the folder we are in
            raise
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder; name a file in it", name)
    return target if stat.S_ISREG(mode) else None


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[io.BufferedWriter]:
    """Open a file to write to; a regular one takes the place of the old one when all is written.

    It is on the disk before it takes the name, and has the mode and, where this process may give
    it, the owner of the old one. When the block or the writing fails, the old one is still there.

    Parameters
    ----------
    path : str or path-like
        The file. Its folder must exist.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    name = os.fsdecode(path)
    target = regular_target(name)
    try:
        with _open_stream(name) if target is None else _replacing(target) as file:
            yield file
    except OSError as error:
        unnamed = error.filename is None and error.errno in _UNNAMED
        if unnamed or _TEMPORARY.fullmatch(os.path.basename(str(error.filename))):
            raise OSError(error.errno, error.strerror, name) from error
        raise


@contextlib.contextmanager
def writing_text(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """`writing` for UTF-8, with line ends as they are and undecodable names as they came in."""
    with writing(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        yield text
        text.detach()  # what it holds goes on to the file


@contextlib.contextmanager
def _replacing(target: str) -> Iterator[io.BufferedWriter]:
    """A temporary file beside the target, which is renamed over it at the end."""
    folder, name = os.path.split(target)
    start = f".{name[:20]}."  # short, for a name may have as many bytes as are allowed
    _remove_abandoned(folder, start)
    try:
        old = os.stat(target)
    except FileNotFoundError:
        old = None
    file = _create(os.path.join(folder, start), 0o666 if old is None else 0o600)
    try:
        with file:
            yield file
            file.flush()
            if old is not None:
                _make_like(file.fileno(), old)
            os.fsync(file.fileno())
            os.replace(file.name, target)  # while it is locked
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(file.name)
        raise
    _sync(folder)


def _create(start: str, mode: int) -> io.BufferedWriter:
    """A new file of a random name, locked: the lock ends with the process, however that ends."""
    while True:
        temporary = f"{start}{os.urandom(8).hex()}.tmp"
        opener = functools.partial(os.open, mode=mode)
        file = open(temporary, "xb", opener=opener)  # noqa: SIM115  (the caller closes it)
        with contextlib.suppress(OSError):  # a file system without locks
            _lock(file, wait=True)
        if os.path.exists(temporary):
            return file
        file.close()  # taken for abandoned in the moment before its lock


def _remove_abandoned(folder: str, start: str) -> None:
    """Remove the temporary files of killed writers, those that nobody locks."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(start) and _TEMPORARY.fullmatch(name):
                _remove_unlocked(os.path.join(folder, name))


def _remove_unlocked(path: str) -> None:
    # For writing, without which network file systems give no such lock.
    with contextlib.suppress(OSError), open(path, "r+b", opener=open_without_waiting) as file:
        _lock(file, wait=False)
        os.unlink(path)


def _lock(file: IO[Any], *, wait: bool) -> None:
    """Lock a file until it is closed; OSError where there are no locks, or another has this."""
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), file.name)
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _make_like(descriptor: int, old: os.stat_result) -> None:
    """Give a file the owner, group and mode of another, as far as that is allowed."""
    if not hasattr(os, "fchown"):  # Windows
        return
    for owner, group in ((-1, old.st_gid), (old.st_uid, -1)):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, owner, group)
    with contextlib.suppress(OSError):  # a file system without modes
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync(folder: str) -> None:
    """Bring a rename to the disk; where that cannot be done, the file is in place all the same."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


class _Stream(io.FileIO):
    """A file written from begin to end: what was written is gone, or lies in somebody's log."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> NoReturn:
        raise io.UnsupportedOperation("seek")

    def tell(self) -> NoReturn:
        raise io.UnsupportedOperation("tell")


def _open_stream(name: str) -> io.BufferedWriter:
    descriptor = descriptor_meant(name)
    # Opened anew, a file behind a descriptor would be written to from its beginning.
    if descriptor is not None:
        return io.BufferedWriter(_Stream(os.dup(descriptor), "wb"))
    return io.BufferedWriter(_Stream(name, "wb", opener=_open_existing))


def _open_existing(name: str, _: int) -> int:
    return os.open(name, os.O_WRONLY)


def descriptor_meant(name: str) -> int | None:
    """The descriptor of this process that a name leads to: 1 for `/dev/stdout`."""
    descriptors = os.path.realpath("/dev/fd")
    for _ in range(_MAX_LINKS):
        folder, last = os.path.split(name)
        if os.path.realpath(folder) == descriptors:
            return int(last) if last.isdecimal() else None
        if not os.path.islink(name):
            return None
        name = os.path.join(folder, os.readlink(name))
    return None
