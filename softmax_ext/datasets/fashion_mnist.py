"""Fashion-MNIST: found on this machine or downloaded, and compared with its published SHA-256."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _files
from ..errors import DataFormatError
from .idx import idx_candidates, read_checked

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
    array = read_checked(path, shape=part.shape, digest=digest, temporary=temporary)
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
