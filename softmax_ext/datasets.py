"""Data to train on: Fashion-MNIST, IDX files, the lecture's 2 x 2 images, minibatches.

Every file is taken for hostile until it is read: sizes are checked before memory is asked
for, compressed data are unpacked in bounded pieces straight into the array that is returned,
and Fashion-MNIST is compared with its published SHA-256 wherever it came from.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import operator
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _files
from .errors import DataFormatError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = [
    "FashionMNIST",
    "TwoByTwo",
    "describe_fashion_mnist",
    "find_fashion_mnist",
    "load_fashion_mnist",
    "make_two_by_two",
    "minibatches",
    "read_idx",
]

#: Called while a file is downloaded, with its name, the bytes done and the bytes in all
#: (None where the server does not say).
Progress = Callable[[str, int, "int | None"], None]


class FashionMNIST(NamedTuple):
    """Fashion-MNIST: 70 000 grayscale images of clothes in ten classes."""

    #: uint8 (60000, 28, 28), 0 for the background to 255.
    train_images: NDArray[np.uint8]
    #: uint8 (60000,), 0 to 9.
    train_labels: NDArray[np.uint8]
    #: uint8 (10000, 28, 28).
    test_images: NDArray[np.uint8]
    #: uint8 (10000,).
    test_labels: NDArray[np.uint8]
    #: The name of class k at position k.
    class_names: tuple[str, ...]


class TwoByTwo(NamedTuple):
    """The lecture's grayscale images of 2 x 2 pixels."""

    #: uint8 (n, 2, 2).
    images: NDArray[np.uint8]
    #: uint8 (n,), 0 to 2.
    labels: NDArray[np.uint8]
    #: ("cat", "chicken", "dog").
    class_names: tuple[str, ...]


# --------------------------------------------------------------------------- IDX files

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
_DEFLATE_MAX_RATIO = 1032  # no deflate stream unpacks to more than this many times its size


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


def _read_idx(
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
                f"{name}: {n_dimensions} dimensions, wanted 1 to {_MAX_DIMENSIONS}"
            )
        lengths = content.take(4 * n_dimensions)
        found = tuple(
            int.from_bytes(lengths[at : at + 4], "big") for at in range(0, len(lengths), 4)
        )
        dtype = np.dtype(scalar_type)
        if shape is not None and (found != shape or dtype != np.uint8):
            raise DataFormatError(f"{name}: holds {dtype} {found}, wanted uint8 {shape}")
        if 0 in found:
            raise DataFormatError(f"{name}: a dimension of length 0 in {found}")

        # math.prod: Python integers, where NumPy's product of three 32-bit lengths wraps.
        size = len(magic) + len(lengths) + math.prod(found) * dtype.itemsize
        if content.is_packed:
            possible = size <= content.file_size * _DEFLATE_MAX_RATIO
        else:
            possible = size == content.file_size
        if not possible:
            raise DataFormatError(
                f"{name}: {found} of {dtype} is {size} bytes with the header,"
                f" not possible in a file of {content.file_size}"
            )

        array = np.empty(found, dtype)
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
    return _read_idx(path)


def is_idx(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as an IDX file does, plain or gzip-compressed."""
    name = os.fsdecode(path)
    with open(name, "rb", buffering=0, opener=_files.open_without_waiting) as file:
        try:
            magic = _IdxContent(file, name, None).take(4)
        except (OSError, DataFormatError):
            return False
    return magic[:2] == b"\0\0" and magic[2] in _IDX_TYPES and 1 <= magic[3] <= _MAX_DIMENSIONS


# ----------------------------------------------------------------------- Fashion-MNIST


class _Part(NamedTuple):
    """One of the four files: its name without ``.gz``, and what it must hold unpacked."""

    file: str
    shape: tuple[int, ...]
    sha256: str


class _Place(NamedTuple):
    """A folder to look in; a damaged file in an explicit one is an error, never passed over."""

    folder: str
    explicit: bool


class _Loaded(NamedTuple):
    """One file's array and where it was read from."""

    array: NDArray[np.uint8]
    path: str


#: In the order of the fields of `FashionMNIST`.
_PARTS = (
    _Part(
        "train-images-idx3-ubyte",
        (60000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    _Part(
        "train-labels-idx1-ubyte",
        (60000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    _Part(
        "t10k-images-idx3-ubyte",
        (10000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    _Part(
        "t10k-labels-idx1-ubyte",
        (10000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
_CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_SYSTEM_FOLDER = "/usr/share/datasets/fashion-mnist"
#: Upstream's repository, then the copy that Keras downloads. (Upstream's own S3 web site
#: speaks no HTTPS.)
_MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)
_TIMEOUT = 20.0  # seconds without a byte from the server
_RECEIVED = 1 << 16  # bytes received between two reports of progress
_HOW_TO_GET_IT = (
    "install it (apt-get install dataset-fashion-mnist), or set SOFTMAX_EXT_DATA or pass root="
    " to name a folder that holds it"
)


def _cache_folder() -> str | None:
    """The user's cache for this data set; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: a relative path is to be ignored
        base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        return None
    # A folder of its own: MNIST's files have the very same names.
    return os.path.join(base, "softmax_ext", "fashion-mnist")


def _places(root: str | os.PathLike[str] | None) -> list[_Place]:
    """Where to look, in order."""
    places = []
    if root is not None:
        places.append(_Place(os.fspath(root), explicit=True))
    if named := os.environ.get("SOFTMAX_EXT_DATA"):
        places.append(_Place(named, explicit=True))
    if cache := _cache_folder():
        places.append(_Place(cache, explicit=False))
    places.append(_Place(_SYSTEM_FOLDER, explicit=False))
    return places


def idx_candidates(file: str, folder: str) -> list[str]:
    """What one of MNIST's files may be called in a folder, unpacked (quicker to read) first.

    Some mirrors write ``train-images.idx3-ubyte`` for ``train-images-idx3-ubyte``, and some put
    that beside a folder of the other name.
    """
    names = (file, file.replace("-idx", ".idx"))
    paths = [os.path.join(folder, name + suffix) for suffix in ("", ".gz") for name in names]
    return sorted(paths, key=os.path.isdir)


def find_fashion_mnist(root: str | os.PathLike[str] | None = None) -> dict[str, str | None]:
    """Where `load_fashion_mnist` would take each file from, without reading any.

    Parameters
    ----------
    root : str or path-like, optional
        As for `load_fashion_mnist`.

    Returns
    -------
    dict of str to str or None
        For each of the four files its path, or None where it would have to be downloaded.

    Examples
    --------
    >>> from softmax_ext.datasets import find_fashion_mnist
    >>> sorted(find_fashion_mnist())[:2]
    ['t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte']
    """
    places = _places(root)
    return {
        part.file: next(
            (
                path
                for place in places
                for path in idx_candidates(part.file, place.folder)
                if os.path.exists(path)
            ),
            None,
        )
        for part in _PARTS
    }


def load_fashion_mnist(
    root: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    progress: Progress | None = None,
) -> FashionMNIST:
    """Load Fashion-MNIST, each file checked by the SHA-256 of its unpacked content.

    Each file is looked for, plain or as ``.gz``, also as ``train-images.idx3-ubyte``, in
    ``root``, in the folder named by the environment variable ``SOFTMAX_EXT_DATA``, in the user's
    cache (``$XDG_CACHE_HOME/softmax_ext/fashion-mnist``, by default under ``~/.cache``) and in
    ``/usr/share/datasets/fashion-mnist``, where Debian's and Ubuntu's package
    ``dataset-fashion-mnist`` puts it. What is in none of them is downloaded over HTTPS into
    the cache.

    A damaged file in ``root`` or ``$SOFTMAX_EXT_DATA`` is an error; elsewhere it is passed
    over with a warning, and a download replaces it.

    Parameters
    ----------
    root : str or path-like, optional
        Folder to look in first.
    download : bool, default True
        Whether to download what is not found.
    progress : callable, optional
        Called as ``progress(name, done, total)`` during a download, in bytes, ``total`` being
        None where the server does not say. By default a tqdm bar on a terminal, if tqdm is
        installed.

    Returns
    -------
    FashionMNIST
        Named tuple ``train_images`` (60000, 28, 28), ``train_labels`` (60000,),
        ``test_images`` (10000, 28, 28), ``test_labels`` (10000,), all uint8 and
        C-contiguous, and ``class_names``.

    Raises
    ------
    DataFormatError
        If a file in ``root`` or ``$SOFTMAX_EXT_DATA`` is damaged or is not Fashion-MNIST's.
    FileNotFoundError
        If a file is in none of the folders and ``download`` is false; names the folders.
    OSError
        If a file cannot be read, or a download fails.

    Examples
    --------
    >>> from softmax_ext.datasets import load_fashion_mnist
    >>> data = load_fashion_mnist()  # doctest: +SKIP
    >>> data.train_images.shape, data.class_names[data.train_labels[0]]  # doctest: +SKIP
    ((60000, 28, 28), 'ankle boot')
    """
    return _assemble(_load_parts(root, download, progress))


def describe_fashion_mnist(
    root: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    progress: Progress | None = None,
) -> str:
    """Verify Fashion-MNIST and describe it: locations, shapes and images per class.

    Parameters
    ----------
    root, download, progress
        As for `load_fashion_mnist`; here ``download`` is False by default.

    Returns
    -------
    str
        Several lines of text, the last without a line feed.

    Raises
    ------
    DataFormatError, FileNotFoundError, OSError
        As `load_fashion_mnist`.

    Examples
    --------
    >>> from softmax_ext.datasets import describe_fashion_mnist
    >>> print(describe_fashion_mnist())  # doctest: +SKIP
    """
    parts = _load_parts(root, download, progress)
    data = _assemble(parts)
    lines = ["Fashion-MNIST: four files, each with the published SHA-256"]
    for field, loaded in zip(data._fields, parts, strict=False):  # the last field has no file
        array = loaded.array
        lines.append(f"  {field:<12}  {array.dtype} {array.shape!s:<15}  {loaded.path}")
    lines.append(f"{'class':<14}{'train':>8}{'test':>8}")
    n_classes = len(data.class_names)
    counts = zip(
        np.bincount(data.train_labels, minlength=n_classes),
        np.bincount(data.test_labels, minlength=n_classes),
        strict=True,
    )
    for label, (train, test) in enumerate(counts):
        lines.append(f"{label} {data.class_names[label]:<12}{train:>8}{test:>8}")
    return "\n".join(lines)


def _load_parts(
    root: str | os.PathLike[str] | None, download: bool, progress: Progress | None
) -> list[_Loaded]:
    """The four files in the order of `_PARTS`."""
    places = _places(root)
    parts = []
    for part in _PARTS:  # a loop, so that the warnings' stacklevel is right on every Python
        parts.append(_load_part(part, places, download, progress))
    return parts


def _assemble(parts: list[_Loaded]) -> FashionMNIST:
    """The named tuple of the four arrays."""
    train_images, train_labels, test_images, test_labels = (part.array for part in parts)
    return FashionMNIST(train_images, train_labels, test_images, test_labels, _CLASS_NAMES)


def _load_part(
    part: _Part, places: list[_Place], download: bool, progress: Progress | None
) -> _Loaded:
    """One file from the first place that has it whole, or downloaded."""
    for place in places:
        for path in idx_candidates(part.file, place.folder):
            try:
                return _Loaded(_read_verified(path, part), path)
            except FileNotFoundError:
                continue
            except (OSError, DataFormatError) as error:
                if place.explicit:
                    raise
                # The caller of the public function that got here through _load_parts.
                warnings.warn(f"passed over: {error}", stacklevel=4)
    if download:
        return _download(part, progress)
    folders = ", ".join(place.folder for place in places)
    raise FileNotFoundError(
        f"Fashion-MNIST: no whole {part.file} or {part.file}.gz in {folders}; {_HOW_TO_GET_IT},"
        " or allow the download"
    )


def _read_verified(path: str, part: _Part, temporary: str | None = None) -> NDArray[np.uint8]:
    """The array in a file, if the file is this part of Fashion-MNIST to the last bit."""
    import hashlib

    digest = hashlib.sha256()
    array = _read_idx(path, shape=part.shape, digest=digest, temporary=temporary)
    if digest.hexdigest() != part.sha256:
        raise DataFormatError(
            f"{path}: SHA-256 of the unpacked content is {digest.hexdigest()}, not"
            f" {part.sha256}: this is not Fashion-MNIST's {part.file}"
        )
    return array


def _download(part: _Part, progress: Progress | None) -> _Loaded:
    """One file into the cache, from the first mirror that gives it whole."""
    from http.client import HTTPException

    folder = _cache_folder()
    if folder is None:
        raise OSError(
            "Fashion-MNIST: there is no home folder to download into; set XDG_CACHE_HOME,"
            f" {_HOW_TO_GET_IT}"
        )
    path = os.path.join(folder, part.file + ".gz")
    failures = []
    for mirror in _MIRRORS:
        url = f"{mirror}{part.file}.gz"
        try:
            return _Loaded(_fetch(url, path, part, progress), path)
        except (OSError, HTTPException, ValueError) as error:
            failures.append(f"{url}: {error}")
    raise OSError(
        f"Fashion-MNIST: cannot download {part.file}.gz ({'; '.join(failures)}); {_HOW_TO_GET_IT}"
    )


def _fetch(url: str, path: str, part: _Part, progress: Progress | None) -> NDArray[np.uint8]:
    """Download ``url`` to ``path``, which appears only once its content has been verified."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if _files.regular_target(path) is None:
        raise OSError(errno.EINVAL, "not a regular file", path)
    with _files.writing(path) as file:
        _receive(url, file, part, progress)
        file.flush()
        return _read_verified(path, part, file.name)


def _receive(url: str, file: io.BufferedWriter, part: _Part, progress: Progress | None) -> None:
    """Write what ``url`` serves to a file; OSError where it is cut short or far too long."""
    # gzip adds a few bytes to what it cannot compress; a longer answer is something else.
    limit = math.prod(part.shape) + 65536
    with _open_url(url) as response:
        total = response.length
        with _reporting(part.file, total, progress) as report:
            done = 0
            report(done)
            while received := response.read(_RECEIVED):
                done += len(received)
                if done > limit:
                    raise OSError(f"the server sends more than {limit} bytes")
                file.write(received)
                report(done)
    if total is not None and done != total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _open_url(url: str) -> Any:
    """Open a URL that is HTTPS and stays HTTPS through every redirect."""
    import urllib.request

    class CheckedRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(
            self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> Any:
            _check_url(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    _check_url(url)
    request = urllib.request.Request(url, headers={"User-Agent": "softmax_ext"})
    return urllib.request.build_opener(CheckedRedirects).open(request, timeout=_TIMEOUT)


def _check_url(url: str) -> None:
    """ValueError unless HTTPS, or HTTP that does not leave this machine."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    on_this_machine = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1")
    if parts.scheme != "https" and not on_this_machine:
        raise ValueError(f"refused to download from {url}: not HTTPS")


@contextlib.contextmanager
def _reporting(
    name: str, total: int | None, progress: Progress | None
) -> Iterator[Callable[[int], object]]:
    """A function to call with the bytes done so far."""
    if progress is not None:
        yield lambda done: progress(name, done, total)
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda done: None
        return
    # disable=None: no bar where standard error is not a terminal.
    with tqdm(desc=name, total=total, unit="B", unit_scale=True, disable=None) as bar:
        yield lambda done: bar.update(done - bar.n)


# ---------------------------------------------------- the lecture's images and minibatches

#: One grey level per pixel; any two of them differ in two pixels, so no class is harder.
_TWO_BY_TWO_PATTERNS = np.array(
    [
        [[200, 200], [55, 55]],  # cat: the upper row is bright
        [[200, 55], [200, 55]],  # chicken: the left column
        [[200, 55], [55, 200]],  # dog: the diagonal
    ],
    dtype=np.float64,
)


def _integer(name: str, value: Any) -> int:
    """An argument as a Python int."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {value!r}, wanted an integer") from None


def make_two_by_two(n: int, *, noise: float = 40.0, seed: int | None = 0) -> TwoByTwo:
    """Make the lecture's example: noisy grayscale 2 x 2 images of cat, chicken and dog.

    Each class is one pattern of bright and dark pixels. At the default noise a linear
    classifier is right on about 99 images of 100.

    Parameters
    ----------
    n : int
        How many images; the classes share them equally, in random order.
    noise : float, default 40.0
        Standard deviation of the normal noise, in grey levels of 0 to 255; 0 gives the
        patterns themselves.
    seed : int or None, default 0
        The same seed gives the same images; None gives others each time.

    Returns
    -------
    TwoByTwo
        Named tuple ``images`` uint8 (n, 2, 2), ``labels`` uint8 (n,), ``class_names``.

    Raises
    ------
    ValueError
        If ``n`` is negative, or ``noise`` is negative or not finite.
    TypeError
        If ``n`` is not an integer.

    Examples
    --------
    >>> from softmax_ext.datasets import make_two_by_two
    >>> data = make_two_by_two(6, noise=0)
    >>> data.images[data.labels == data.class_names.index("dog")][0]
    array([[200,  55],
           [ 55, 200]], dtype=uint8)
    """
    n = _integer("n", n)
    if n < 0:
        raise ValueError(f"n: {n}, wanted a number of images of at least 0")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise: {noise}, wanted a finite number of at least 0")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % len(_TWO_BY_TWO_PATTERNS)).astype(np.uint8)
    levels = rng.normal(_TWO_BY_TWO_PATTERNS[labels], noise)
    images = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return TwoByTwo(images, labels, ("cat", "chicken", "dog"))


def minibatches(
    X: Any,
    y: Any,
    batch_size: int,
    *,
    seed: int | np.random.Generator | None = 0,
    shuffle: bool = True,
) -> Iterator[tuple[Any, Any]]:
    """Go once through the examples in random order, a minibatch at a time.

    Parameters
    ----------
    X : array_like or CSR matrix, shape (N, ...)
        Examples.
    y : array_like, shape (N, ...)
        Their targets.
    batch_size : int
        Examples in a minibatch; the last one has what remains.
    seed : int, numpy.random.Generator or None, default 0
        The same number gives the same order. A generator gives a new order at each call,
        reproducible from the generator's own seed; None gives one that is not reproducible.
    shuffle : bool, default True
        False goes through the examples in their own order.

    Returns
    -------
    iterator of (X_batch, y_batch)
        Arrays (a CSR matrix for CSR). With ``shuffle`` copies, without it views.

    Raises
    ------
    ValueError
        If X or y is a scalar, their lengths differ, or ``batch_size`` is less than 1. Raised
        by the call itself, before the first minibatch.
    TypeError
        If ``batch_size`` is not an integer.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_ext.datasets import minibatches
    >>> X, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> [len(y_batch) for X_batch, y_batch in minibatches(X, y, 2)]
    [2, 2, 1]
    """
    # Sparse matrices stay as they are. All else becomes an array: a pandas Series, say, would
    # look the shuffled positions up as labels. (asanyarray: a masked array keeps its mask.)
    X = X if hasattr(X, "indptr") else np.asanyarray(X)
    y = np.asanyarray(y)
    batch_size = _integer("batch_size", batch_size)
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size}, wanted at least 1")
    for name, array in (("X", X), ("y", y)):
        if not array.shape:
            raise ValueError(f"{name}: a scalar, wanted an array of examples")
    n = X.shape[0]
    if y.shape[0] != n:
        raise ValueError(f"y: {y.shape[0]} targets for {n} examples in X, wanted as many")
    order = np.random.default_rng(seed).permutation(n) if shuffle else None

    def batches() -> Iterator[tuple[Any, Any]]:
        for start in range(0, n, batch_size):
            these = slice(start, start + batch_size)
            chosen = these if order is None else order[these]
            yield X[chosen], y[chosen]

    return batches()
