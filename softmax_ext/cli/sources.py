"""What the command line's ``--data`` names, as arrays: known data sets, and files of the user's."""

from __future__ import annotations

import glob
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import datasets
from ..datasets import Blocks
from ..datasets._parts import read_npy_header, take_rows
from ..datasets.idx import DEFLATE_MAX_RATIO, idx_candidates, is_idx, read_idx
from ..errors import DataFormatError

__all__ = ["Part", "Source", "load_source"]

#: Data sets that are known by name.
NAMES = ("fashion-mnist", "two-by-two")

_TWO_BY_TWO_TRAIN, _TWO_BY_TWO_TEST = 3000, 600
#: One example in this many is held out where the data has no test part of its own.
_HOLD_OUT = 10
#: Of data that is read piece by piece, so many bytes are held out at most.
_HELD_BYTES = 64 << 20

#: Names of the arrays in an .npz: images and labels to train on, then those to test with.
_NPZ_NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("X", "y", "X_test", "y_test"),
)
_IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class Part(NamedTuple):
    """Examples and their classes."""

    #: (N, D) or images (N, height, width), of any real dtype; or Blocks.
    X: Any
    #: Class indices, (N,).
    y: NDArray[Any]


class Source(NamedTuple):
    """A data set: its parts, and what its classes are called."""

    name: str
    train: Part
    #: None where the data has no test part of its own.
    test: Part | None
    #: The name of class k at position k.
    class_names: tuple[str, ...]
    #: The label of class k at position k, as the data has it; None where that is k.
    classes: NDArray[Any] | None

    def targets(self, part: Part) -> tuple[Any, Any]:
        """What a model of these classes takes for `X` and `y`."""
        # Without class labels, and with strings for them, indices.
        is_index = self.classes is None or self.classes.dtype.kind == "U"
        y = part.y if self.classes is None or is_index else self.classes[part.y]
        return examples(part._replace(y=y))

    def indices_for(self, part: Part, class_names: tuple[str, ...]) -> NDArray[Any]:
        """The classes of a part as indices into a model's classes.

        Names are matched with names. As many names, all of them others, go by position.
        """
        if set(self.class_names) <= set(class_names):
            position = {name: k for k, name in enumerate(class_names)}
            places = np.array([position[name] for name in self.class_names])
            return np.take(places, part.y)
        is_related = not set(self.class_names).isdisjoint(class_names)
        if is_related or len(self.class_names) != len(class_names):
            raise ValueError(
                f"{self.name}: its {len(self.class_names)} classes"
                f" ({_shortened(self.class_names)}) are not the model's {len(class_names)}"
                f" ({_shortened(class_names)})"
            )
        return part.y

    def with_test(self) -> Source:
        """The same with a test part: if need be, every tenth example of a fixed random order."""
        if self.test is not None:
            return self
        n = len(self.train.y)
        if n < 2:
            raise ValueError(
                f"{self.name}: {n} examples came, at least 2, one to test, were wanted"
            )
        if isinstance(self.train.X, Blocks):
            train, test = _held_out(self.train)
            return self._replace(train=train, test=test)
        # The seed is fixed: a resumed run, or one with another --seed, holds out the same.
        order = np.random.default_rng(0).permutation(n)
        n_test = max(1, n // _HOLD_OUT)
        X, y = self.train
        held, kept = np.sort(order[:n_test]), np.sort(order[n_test:])
        return self._replace(train=Part(X[kept], y[kept]), test=Part(X[held], y[held]))


def load_source(
    data: str,
    *,
    labels: str | None = None,
    root: str | None = None,
    download: bool = True,
) -> Source:
    """Load what ``--data`` names.

    Parameters
    ----------
    data : str
        ``fashion-mnist``, ``two-by-two``, a folder of IDX files named as MNIST's, an ``.npz``, an
        ``.npy`` or IDX file of examples; or, read piece by piece, the pattern of several ``.npy``
        files, and a file, a folder or the pattern of ``.parquet`` files.
    labels : str, optional
        The ``.npy`` or IDX file of labels that goes with one of examples, or the pattern of those
        that go with several; of Parquet files, the column, if that is not named "label".
    root, download
        Of `softmax_ext.datasets.load_fashion_mnist`.

    Raises
    ------
    DataFormatError
        If a file is damaged or does not hold what it should.
    OSError
        If a file cannot be read, or a download fails.
    ValueError
        If examples and labels do not fit each other, or nothing is known by this name.
    """
    is_whole = data in NAMES or data.endswith(".npz") or os.path.isdir(data)
    if labels is not None and is_whole and not is_parquet(data):
        raise ValueError(f"--labels goes with an .npy or IDX file of examples, not with {data}")
    if data == "fashion-mnist":
        return _fashion_mnist(root, download)
    if data == "two-by-two":
        return _two_by_two()
    if is_parquet(data):
        return _of_blocks(data, _parquet(data, labels))
    if os.path.isdir(data):
        return _idx_folder(data)
    if glob.has_magic(data) and not os.path.exists(data) and data.endswith(".npy"):
        if labels is None:
            raise ValueError(f"{data}: holds examples only; name the files of labels: --labels")
        return _of_blocks(data, Blocks(data, labels))
    if not os.path.isfile(data):
        known = " and ".join(NAMES)
        raise FileNotFoundError(
            f"{data}: neither a file, nor a folder, nor one of the known data sets {known}"
        )
    if data.endswith(".npz"):
        return _npz(data)
    if not is_array(data):
        raise ValueError(
            f"{data}: an unknown format came, an .npz, an .npy, an IDX file or a folder of "
            "those was wanted"
        )
    if labels is None:
        raise ValueError(f"{data} holds examples only; name the file of labels: --labels FILE")
    if not is_array(labels):
        raise ValueError(
            f"{labels}: an unknown format came, an .npy or IDX file of labels was wanted"
        )
    return _source(data, [(open_array(data), open_array(labels))], None)


def is_parquet(data: str) -> bool:
    """Whether a name is one of Parquet files."""
    if os.path.isdir(data):
        return bool(glob.glob(os.path.join(glob.escape(data), "**", "*.parquet"), recursive=True))
    return data.endswith((".parquet", ".pq"))


def _parquet(data: str, label: str | None) -> Blocks:
    """Blocks of Parquet files: the label's column, and all others, or the one that has lists."""
    from ..datasets._arrow import columns_of

    names, lists = columns_of(data)
    label = "label" if label is None else label
    if label not in names:
        raise ValueError(
            f"{data}: no column {label!r} among {_shortened(tuple(names))}; name that of the "
            "labels: --labels COLUMN"
        )
    others = [name for name in names if name != label]
    lists = [name for name in lists if name != label]
    features: Any = lists[0] if len(lists) == 1 else others
    return Blocks.from_parquet(data, features=features, label=label)


def _of_blocks(name: str, blocks: Blocks) -> Source:
    """A source that is read piece by piece; only the labels are in memory, as indices."""
    labels = _join_labels(name, [np.asarray(part) for part in blocks.labels()])
    classes, indices = np.unique(labels, return_inverse=True)
    indices = indices.astype(np.min_scalar_type(len(classes)))
    names = tuple(str(label) for label in classes.tolist())
    are_indices = classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes)))
    return Source(name, Part(blocks, indices), None, names, None if are_indices else classes)


def _held_out(part: Part) -> tuple[Part, Part]:
    """Hold out every tenth example, or as many as there is room for; those are read now."""
    blocks: Blocks = part.X
    n_bytes = blocks.dtype.itemsize * blocks.n_features
    share = min(1 / _HOLD_OUT, _HELD_BYTES / max(1, n_bytes * len(part.y)))
    kept, held = [], []
    for k, n in enumerate(blocks.lengths):
        order = np.random.default_rng([0, k]).permutation(n)
        n_held = max(int(k == 0 and n > 1), round(share * n))
        held.append(np.sort(order[:n_held]))
        kept.append(np.sort(order[n_held:]))
    starts = np.cumsum([0, *blocks.lengths])
    X = [take_rows(piece.X, held[k]) for k, _, piece in blocks.pieces()]
    y_held, y_kept = (
        np.concatenate([part.y[start + rows] for start, rows in zip(starts, chosen, strict=False)])
        for chosen in (held, kept)
    )
    return Part(blocks.edited(kept), y_kept), Part(np.concatenate(X), y_held)


def examples(part: Part) -> tuple[Any, Any]:
    """What a model's methods take for X and y."""
    if isinstance(part.X, Blocks):
        return part.X.edited(y=part.y), None
    return part


def _shortened(names: tuple[str, ...]) -> str:
    return ", ".join(names if len(names) <= 3 else (*names[:2], "...", names[-1]))


def _fashion_mnist(root: str | None, download: bool) -> Source:
    data = datasets.load_fashion_mnist(root, download=download)
    train = Part(data.train_images, data.train_labels)
    test = Part(data.test_images, data.test_labels)
    names = data.class_names
    return Source("Fashion-MNIST", train, test, names, np.array(names))


def _two_by_two() -> Source:
    train = datasets.make_two_by_two(_TWO_BY_TWO_TRAIN, seed=0)
    test = datasets.make_two_by_two(_TWO_BY_TWO_TEST, seed=1)
    return Source(
        "two-by-two",
        Part(train.images, train.labels),
        Part(test.images, test.labels),
        train.class_names,
        np.array(train.class_names),
    )


def _idx_folder(folder: str) -> Source:
    arrays = []
    for name in _IDX_NAMES:
        paths = [p for p in idx_candidates(name, folder) if os.path.exists(p)]
        if not paths:
            dotted = name.replace("-idx", ".idx")
            raise FileNotFoundError(f"{folder}: has no {name}, no {dotted}, and neither as .gz")
        arrays.append(read_idx(paths[0]))
    return _source(folder, [(arrays[0], arrays[1]), (arrays[2], arrays[3])], None)


def _npz(path: str) -> Source:
    arrays = _read_npz(path)
    for names in _NPZ_NAMES:
        if names[0] in arrays and names[1] in arrays:
            pairs = [(arrays[names[0]], arrays[names[1]])]
            if names[2] in arrays and names[3] in arrays:
                pairs.append((arrays[names[2]], arrays[names[3]]))
            return _source(path, pairs, arrays.get("class_names"))
    wanted = ", or ".join(f"{x} and {y}" for x, y, *_ in _NPZ_NAMES)
    raise DataFormatError(f"{path}: {', '.join(arrays) or 'nothing'} came, {wanted} were wanted")


def _read_npz(path: str) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz; none of them larger than the file makes possible, none pickled."""
    import zipfile
    import zlib

    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with zipfile.ZipFile(file) as archive:
                for entry in archive.infolist():
                    # What NumPy writes, and all that the ratio below is true of.
                    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise ValueError(f"{entry.filename} is neither stored nor deflated")
                    if not 0 <= entry.header_offset < size:
                        raise ValueError(f"{entry.filename} does not lie within the file")
                    if entry.file_size > size * DEFLATE_MAX_RATIO:
                        raise ValueError(f"{entry.filename} cannot be that large")
                    with archive.open(entry) as content:
                        read_npy_header(content, entry.file_size)
            file.seek(0)
            with np.load(file, allow_pickle=False) as npz:
                return {name: npz[name] for name in npz.files}
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
            raise DataFormatError(f"{path}: not a sound .npz file ({error})") from error


def is_array(path: str) -> bool:
    """Whether a file is for `open_array`: by its name, or as an IDX file by its content."""
    return path.endswith((".npy", "-ubyte", "-ubyte.gz")) or is_idx(path)


def open_array(path: str) -> NDArray[Any]:
    """The array of an IDX file; that of an .npy is mapped and so not read before it is used."""
    if not path.endswith(".npy"):
        return read_idx(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with open(path, "rb") as file:
            read_npy_header(file, os.fstat(file.fileno()).st_size)
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataFormatError(f"{path}: not a sound .npy file ({error})") from error
    return array


def _source(
    name: str,
    pairs: list[tuple[NDArray[Any], NDArray[Any]]],
    class_names: NDArray[Any] | None,
) -> Source:
    """Check examples against labels, and turn labels of any kind into class indices."""
    for X, labels in pairs:
        if X.ndim < 2 or X.dtype.kind not in "biuf":
            raise ValueError(
                f"{name}: examples of {X.dtype} {X.shape} came, numbers (N, ...) were wanted"
            )
        if labels.shape != X.shape[:1]:
            raise ValueError(
                f"{name}: labels of shape {labels.shape} came, ({len(X)},) was wanted, as there "
                "are examples"
            )
        if X.shape[1:] != pairs[0][0].shape[1:]:
            raise ValueError(
                f"{name}: examples of shape {X.shape[1:]} to test came, {pairs[0][0].shape[1:]}, "
                "as to train, was wanted"
            )
    all_labels = _join_labels(name, [labels for _, labels in pairs])
    if class_names is not None:
        classes = _as_text(class_names)
        indices = all_labels.astype(np.uint8) if all_labels.dtype.kind == "b" else all_labels
        if all_labels.dtype.kind == "U" or all_labels.min() < 0 or all_labels.max() >= len(classes):
            raise ValueError(
                f"{name}: other labels came beside class_names, 0 to {len(classes) - 1} were wanted"
            )
    else:
        classes, indices = np.unique(all_labels, return_inverse=True)
    names = tuple(str(label) for label in classes.tolist())
    are_indices = classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes)))
    parts, start = [], 0
    for X, labels in pairs:
        parts.append(Part(X, indices[start : start + len(labels)]))
        start += len(labels)
    test = parts[1] if len(parts) > 1 else None
    return Source(name, parts[0], test, names, None if are_indices else classes)


def _join_labels(name: str, parts: list[NDArray[Any]]) -> NDArray[Any]:
    """The labels of all parts, which are of one kind: integers, bools or strings."""
    parts = [_as_text(labels) if labels.dtype.kind == "S" else labels for labels in parts]
    all_labels = np.concatenate(parts)
    # NumPy makes strings of integers beside strings, and floats of int64 beside uint64.
    mixed = all_labels.dtype.kind == "U" and any(labels.dtype.kind != "U" for labels in parts)
    if mixed or all_labels.dtype.kind not in "biuU":
        came = " and ".join(str(labels.dtype) for labels in parts)
        raise ValueError(f"{name}: labels of {came} came, integers, bools or strings were wanted")
    if not all_labels.size:
        raise ValueError(f"{name}: holds no examples")
    return all_labels


def _as_text(names: NDArray[Any]) -> NDArray[Any]:
    """Names as strings; what is not UTF-8 is kept, as Python does in names of files."""
    return np.array(
        [
            name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)
            for name in names.tolist()
        ]
    )
