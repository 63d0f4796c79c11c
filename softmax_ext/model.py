"""Softmax regression as an object: weights, class labels, prediction, and the model file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _npz, blockwise
from .arguments import (
    IGNORED_LABEL,
    as_array,
    as_floating,
    as_labels,
    as_matrix,
    as_native,
    finite,
    is_bfloat16,
)
from .errors import ModelFormatError

if TYPE_CHECKING:
    from .datasets.blocks import Blocks


_FILE_KIND = "softmax_ext model"
_FILE_VERSION = 1


class SoftmaxModel:
    """A linear layer followed by softmax: ``P = softmax(x_scale * X W + b)``.

    Parameters
    ----------
    W : array_like, shape (D, C)
        Weights, float32 or float64; integers become float64. Copied, memory order kept.
    b : array_like, shape (C,), or None
        Bias. None: a model without one. The wider of the dtypes of `W` and `b` is that of both.
    classes : array_like, shape (C,), optional
        Class labels: numbers, bools or strings, all different. None: the labels are 0 to C - 1.
    x_scale : float, optional
        Multiplies `X`, inside the kernels: 1/255 for images of bytes.
    kernels : object with the kernels' functions, optional
        A `Kernels` handle or the module `softmax_ext.reference`. None: ``softmax_ext.kernels``.

    Raises
    ------
    ValueError
        If shapes do not fit, two class labels are the same, or `x_scale` is not finite.
    TypeError
        If the dtype of `W`, `b` or `classes` is none of those named.

    Notes
    -----
    Wherever a method takes `X`, that is an array (N, D) of float32, float64, float16, bfloat16 or
    uint8, or images (N, h, w, ...) with h * w * ... = D, which are flattened, without a copy if
    contiguous; or a sparse matrix (N, D) in CSR form, as for `softmax_ext.linear`. All but `logits`
    take `Blocks` too, for data that is not in memory, without `y`, which is in them.

    Wherever one takes `y`, that is class labels (N,) or probabilities (N, C) of a floating dtype.
    Without `classes`, labels are integers in [0, C), and -100 marks a row that does not count.
    With string `classes`, integers are indices into `classes`. Bools are the integers 0 and 1;
    arrays of Python objects are what their elements are.

    Examples
    --------
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> model = sx.SoftmaxModel(np.eye(2), None, classes=["cat", "dog"])
    >>> X = np.array([[2.0, 1.0], [0.0, 3.0]])
    >>> model.predict(X).tolist()
    ['cat', 'dog']
    >>> model.accuracy(X, ["cat", "cat"])
    0.5
    """

    def __init__(
        self,
        W: ArrayLike,
        b: ArrayLike | None,
        classes: ArrayLike | None = None,
        x_scale: float = 1.0,
        *,
        kernels: Any = None,
    ) -> None:
        weights = as_floating("W", W)
        bias = None if b is None else as_floating("b", b)
        if weights.ndim != 2 or weights.shape[1] == 0:
            raise ValueError(f"W: shape {weights.shape} came, (D, C) with C at least 1 was wanted")
        if bias is not None and bias.shape != weights.shape[1:]:
            raise ValueError(
                f"b: shape {bias.shape} came, {weights.shape[1:]} was wanted, as W has columns"
            )
        dtype = weights.dtype if bias is None else np.result_type(weights, bias)
        #: Weights, ndarray of shape (D, C). Training changes it in place.
        self.W: NDArray[Any] = np.array(weights, dtype, order="K")
        #: Bias, ndarray of shape (C,), or None.
        self.b: NDArray[Any] | None = None if bias is None else np.array(bias, dtype)
        #: Class labels, ndarray of shape (C,), or None.
        self.classes: NDArray[Any] | None = (
            None if classes is None else _as_class_labels(classes, weights.shape[1])
        )
        #: What multiplies X.
        self.x_scale = finite("x_scale", x_scale)
        #: The kernel set in use; None for the default one.
        self.kernels = kernels

    @classmethod
    def zeros(
        cls,
        n_features: int,
        n_classes: int,
        *,
        dtype: DTypeLike = np.float32,
        classes: ArrayLike | None = None,
        x_scale: float = 1.0,
        kernels: Any = None,
    ) -> SoftmaxModel:
        """Make an untrained model: all weights zero, all classes equally probable.

        Parameters
        ----------
        n_features, n_classes : int
            D and C.
        dtype : float32 or float64, optional
            Of the weights, and so of all computing with `X` of uint8, float32 and less.
        classes, x_scale, kernels
            As of `SoftmaxModel`.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> sx.SoftmaxModel.zeros(784, 10, x_scale=1 / 255)
        SoftmaxModel(784 features, 10 classes, float32)
        """
        W = np.zeros((n_features, n_classes), dtype)
        return cls(W, np.zeros(n_classes, dtype), classes, x_scale, kernels=kernels)

    def __repr__(self) -> str:
        D, C = self.W.shape
        return f"SoftmaxModel({D} features, {C} classes, {self.W.dtype})"

    def logits(self, X: ArrayLike) -> NDArray[Any]:
        """Return ``x_scale * X W + b``, shape (N, C)."""
        kernels = kernels_or_default(self.kernels)
        result: NDArray[Any] = kernels.linear(
            self._flatten(X), self.W, self.b, x_scale=self.x_scale
        )
        return result

    def predict_proba(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """Return the probability of each class, shape (N, C); rows sum to 1."""
        if is_blocks(X):
            return blockwise.predict_proba(self, X)
        kernels = kernels_or_default(self.kernels)
        result: NDArray[Any] = kernels.predict_proba(
            self._flatten(X), self.W, self.b, x_scale=self.x_scale
        )
        return result

    def predict(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """Return the label of the most probable class, shape (N,); its index without `classes`."""
        if is_blocks(X):
            return blockwise.predict(self, X)
        indices = self._predict_indices(self._flatten(X))
        return indices if self.classes is None else self.classes[indices]

    def accuracy(self, X: ArrayLike | Blocks, y: ArrayLike | None = None) -> float:
        """Return the share of rows whose most probable class is their label.

        With probabilities for `y`, the label is their first maximum. Rows labelled -100 do not
        count; without any row that does, the accuracy is nan.

        Raises
        ------
        ValueError, TypeError
            If `X` or `y` does not fit the model, or `y` holds an unknown label.
        """
        if is_blocks(X):
            return blockwise.accuracy(self, X, y)
        rows = self._flatten(X)
        target = self._as_target(y, rows.shape[0])
        return accuracy_of(self._predict_indices(rows), target)

    def loss(
        self,
        X: ArrayLike | Blocks,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Return the mean cross-entropy in nats, weighted if `sample_weight` (N,) is given.

        Raises
        ------
        ValueError, TypeError
            If `X` or `y` does not fit the model, or `y` holds an unknown label.
        IndexError
            If an integer label is outside [0, C).
        """
        if is_blocks(X):
            return blockwise.loss(self, kernels_or_default(self.kernels), X, y, sample_weight)
        rows = self._flatten(X)
        loss: float = kernels_or_default(self.kernels).linear_cross_entropy(
            rows,
            self.W,
            self.b,
            self._as_target(y, rows.shape[0]),
            sample_weight=sample_weight,
            x_scale=self.x_scale,
        )
        return loss

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file: an `.npz` without pickle or compression.

        The file at `path` is the old one or the new one at every moment; a write that fails
        leaves the old one. `kernels` is not part of the file. No suffix is added to `path`.

        Raises
        ------
        ValueError
            If a weight is nan or infinite; no file is written.
        OSError
            If the file cannot be written.
        """
        self._require_finite()
        _npz.write(path, _FILE_KIND, _FILE_VERSION, self._to_arrays())

    def to_onnx(
        self, path: str | os.PathLike[str], *, input_dtype: DTypeLike | None = None
    ) -> None:
        """Write the model as an ONNX graph, for onnxruntime and whatever else reads ONNX.

        Its input is ``X`` (N, D), its outputs are ``label`` (N,), of the dtype of `classes` or
        int64, and ``probabilities`` (N, C). It computes as the kernels do: `x_scale` is in the
        graph, and bytes become numbers there. Its operators are those of opset 13.

        Parameters
        ----------
        path : str or path-like
            The file.
        input_dtype : {"uint8", "float32", "float64"}, optional
            Dtype of the graph's ``X``. None: that of the weights.

        Raises
        ------
        ImportError
            Without the package ``onnx``, which is the extra ``onnx``.
        TypeError
            If `input_dtype` is none of those named.
        ValueError
            If a weight is nan or infinite; no file is written.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> model = sx.SoftmaxModel.zeros(784, 10, x_scale=1 / 255)
        >>> model.to_onnx("digits.onnx", input_dtype="uint8")  # doctest: +SKIP
        """
        from .export import onnx

        self._require_finite()
        onnx.write(path, self.W, self.b, self.classes, self.x_scale, input_dtype)

    def to_c(self, path: str | os.PathLike[str], *, prefix: str = "softmax_model") -> None:
        """Write the model as a C99 header that predicts, without any library but C's own.

        It computes in the dtype of the weights. The functions, for an example ``x`` of that type
        or, with ``_u8`` at the end of their names, of bytes, are ``PREFIX_proba(x, p)``, which
        fills ``p`` with C probabilities; ``PREFIX_logits(x, z)``; and ``PREFIX_predict(x)``, the
        index of the most probable class, whose label is in ``PREFIX_labels`` where the model has
        `classes`: strings in UTF-8, or numbers.

        Parameters
        ----------
        path : str or path-like
            The file.
        prefix : str, optional
            What the names in the header begin with: letters, digits and underscores.

        Raises
        ------
        ValueError
            If `prefix` is no name in C, the model has no feature, or a weight is nan or infinite;
            no file is written.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import softmax_ext as sx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "animals.h")
        ...     sx.SoftmaxModel.zeros(4, 3, classes=["cat", "chicken", "dog"]).to_c(path)
        ...     '"cat", "chicken", "dog"' in path.read_text()
        True
        """
        from .export import c

        self._require_finite()
        c.write(path, self.W, self.b, self.classes, self.x_scale, prefix)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, kernels: Any = None) -> SoftmaxModel:
        """Read a model file of `save`.

        Nothing in the file is ever executed, and no more memory is used than a small multiple of
        its size.

        Parameters
        ----------
        path : str or path-like
            The file.
        kernels
            As of `SoftmaxModel`.

        Raises
        ------
        ModelFormatError
            If the file is not a model file, is damaged, or is of a newer format.
        OSError
            If it cannot be read.

        Examples
        --------
        >>> import os, tempfile
        >>> import softmax_ext as sx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "model.npz")
        ...     sx.SoftmaxModel.zeros(4, 3, classes=["cat", "chicken", "dog"]).save(path)
        ...     sx.SoftmaxModel.load(path)
        SoftmaxModel(4 features, 3 classes, float32)
        """
        arrays = _npz.read(path, _FILE_KIND, _FILE_VERSION, REQUIRED_ENTRIES, OPTIONAL_ENTRIES)
        return cls._from_arrays(arrays, path, kernels)

    def _to_arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {"W": self.W, "x_scale": np.array(self.x_scale)}
        if self.b is not None:
            arrays["b"] = self.b
        if self.classes is not None:
            arrays["classes"] = self.classes
        return arrays

    @classmethod
    def _from_arrays(
        cls, arrays: dict[str, NDArray[Any]], path: str | os.PathLike[str], kernels: Any
    ) -> SoftmaxModel:
        """Make the model in a file's entries, or refuse them."""
        try:
            if arrays["x_scale"].shape != ():
                raise ValueError(
                    f"x_scale: shape {arrays['x_scale'].shape} came, a number was wanted"
                )
            x_scale = float(arrays["x_scale"])
            model = cls(
                arrays["W"], arrays.get("b"), arrays.get("classes"), x_scale, kernels=kernels
            )
            model._require_finite()
        except (ValueError, TypeError) as error:
            raise ModelFormatError(f"{os.fsdecode(path)}: {error}") from error
        return model

    def _is_finite(self) -> bool:
        return bool(np.isfinite(self.W).all() and (self.b is None or np.isfinite(self.b).all()))

    def _require_finite(self) -> None:
        if not self._is_finite():
            raise ValueError("W, b: weights that are nan or infinite came, finite ones were wanted")

    def _predict_indices(self, rows: Any) -> NDArray[np.intp]:
        kernels = kernels_or_default(self.kernels)
        result: NDArray[np.intp] = kernels.predict(rows, self.W, self.b, x_scale=self.x_scale)
        return result

    def _flatten(self, X: Any) -> Any:
        """Make X two-dimensional; a sparse matrix passes as it is."""
        if hasattr(X, "indptr"):
            return X
        if is_blocks(X):
            raise TypeError("X: Blocks came, which go to loss, accuracy, predict, predict_proba")
        rows = X if isinstance(X, np.ndarray) else np.asarray(X)
        if rows.ndim > 2:
            rows = rows.reshape(rows.shape[0], math.prod(rows.shape[1:]))
        if rows.ndim != 2 or rows.shape[1] != self.W.shape[0]:
            raise ValueError(
                f"X: shape {np.shape(X)} came, (N, {self.W.shape[0]}), as W has rows, or N images "
                "of as many numbers were wanted"
            )
        return rows

    def _as_target(self, y: Any, n: int) -> NDArray[Any]:
        """Turn labels into indices and check their shape; probabilities pass as they are."""
        return target_of(y, n, self.W.shape[1], self.classes)


#: Entries of a model in a file and their dtype kinds, for `_npz.read`; a checkpoint has more.
REQUIRED_ENTRIES = {"W": "f", "x_scale": "f"}
OPTIONAL_ENTRIES = {"b": "f", "classes": "biufU"}


def target_of(y: Any, n: int, n_classes: int, classes: NDArray[Any] | None) -> NDArray[Any]:
    """Turn the labels of n rows into indices; check their shape, and that of probabilities.

    What the kernels would convert in every call is converted here.
    """
    target = as_labels(as_array("y", y))
    if target.ndim == 2 and target.dtype.kind == "f":
        if target.shape != (n, n_classes):
            raise ValueError(
                f"y: shape {target.shape} came, {(n, n_classes)} was wanted, as X has rows"
            )
        return as_native(target)
    if target.shape != (n,):
        raise ValueError(
            f"y: {target.dtype} of shape {target.shape} came, labels ({n},), as X has rows, or "
            f"floating probabilities {(n, n_classes)} were wanted"
        )
    if classes is None and target.dtype.kind not in "biu" and n > 0:
        raise TypeError(f"y: dtype {target.dtype} came, integer labels were wanted")
    return as_native(indices_of("y", target, classes))


def kernels_or_default(kernels: Any) -> Any:
    """Return `kernels`, or the default kernel set for None."""
    if kernels is not None:
        return kernels
    import softmax_ext

    return softmax_ext.kernels


def as_kernels_like(X: Any) -> Any:
    """Convert once what the kernels would convert in every call."""
    if not isinstance(X, np.ndarray):
        return as_matrix(X)
    if is_bfloat16(X.dtype):
        return np.require(X, requirements="A")
    converted = X.dtype.kind in "bi" or (X.dtype.kind == "u" and X.dtype.itemsize > 1)
    dtype = np.dtype(np.float64) if converted else X.dtype.newbyteorder("=")
    return np.require(X, dtype, "A")


def check_finite(X: Any, target: NDArray[Any]) -> None:
    """Refuse NaN and infinity in the rows that count of X and of probabilities."""
    # Times 0 they are NaN, in whatever form X is.
    products = kernels_or_default(None).linear(X, np.zeros((X.shape[1], 1), np.float32))
    for name, values in (("X", products), ("y", target)):
        if values.ndim == 2:
            bad = ~np.isfinite(values).all(axis=1)
            if target.ndim == 1:
                bad &= target != IGNORED_LABEL
            if bad.any():
                raise ValueError(
                    f"{name}: NaN or infinity came in row {bad.argmax()}, finite numbers were "
                    "wanted"
                )


def accuracy_of(predicted: NDArray[np.intp], target: NDArray[Any]) -> float:
    """Return the share of rows that count whose predicted class is their target's."""
    labels = target.argmax(axis=1) if target.ndim == 2 else target
    n_counted = np.count_nonzero(labels != IGNORED_LABEL)
    return float(np.count_nonzero(predicted == labels) / n_counted) if n_counted else math.nan


def is_blocks(X: Any) -> TypeGuard[Blocks]:
    """Whether X is `Blocks`."""
    return getattr(X, "is_blocks", False)


def described(dtype: DTypeLike, shape: tuple[int, ...], columns: Iterable[Any]) -> str:
    """Return what data is recognised by: what X is, and the labels and weights (None: without)."""
    import hashlib

    digest = hashlib.sha256()
    for array in columns:
        if array is not None:
            kind = np.int64 if array.dtype.kind in "iu" else np.float64
            digest.update(array.astype(kind).tobytes())
    return f"{dtype} of shape {shape}, labels {digest.hexdigest()[:16]}"


def _as_class_labels(classes: ArrayLike, n: int) -> NDArray[Any]:
    if np.shape(classes) != (n,):
        raise ValueError(
            f"classes: shape {np.shape(classes)} came, ({n},) was wanted, as W has columns"
        )
    labels = as_labels(np.asarray(classes))
    # NumPy makes strings of the numbers in a mixed list.
    mixed = labels.dtype.kind == "U" and not all(
        isinstance(label, str) for label in np.asarray(classes, dtype=object)
    )
    if mixed or labels.dtype.kind not in "biufU":
        raise TypeError(f"classes: {classes!r:.80} came, all numbers or all strings were wanted")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("classes: a label that is nan or infinite came, finite ones were wanted")
    unique, counts = np.unique(labels, return_counts=True)
    if len(unique) < n:
        raise ValueError(
            f"classes: {unique[counts.argmax()].item()!r} came more than once, different labels "
            "were wanted"
        )
    return labels.astype(labels.dtype.newbyteorder("="))


def indices_of(name: str, labels: NDArray[Any], classes: NDArray[Any] | None) -> NDArray[Any]:
    """Return the index of each label, of a plain dtype, in `classes`.

    Without `classes`, and with strings for them, integers are indices already.
    """
    kind = labels.dtype.kind
    if labels.size == 0:
        return np.zeros(0, np.intp)
    if kind not in "biufU":
        raise TypeError(
            f"{name}: dtype {labels.dtype} came, class labels, numbers or strings, were wanted"
        )
    if classes is None or (classes.dtype.kind == "U" and kind in "biu"):
        return labels.astype(np.uint8) if kind == "b" else labels
    if (kind == "U") != (classes.dtype.kind == "U"):
        raise ValueError(f"{name}: label {labels[0].item()!r} at row 0 is not one of the classes")
    order = np.argsort(classes)
    place = np.searchsorted(classes, labels, sorter=order)
    indices: NDArray[np.intp] = order[np.minimum(place, len(classes) - 1)]
    unknown = np.flatnonzero(classes[indices] != labels)
    if unknown.size:
        row = unknown[0]
        label = labels[row].item()
        raise ValueError(f"{name}: label {label!r} at row {row} is not one of the classes")
    return indices
