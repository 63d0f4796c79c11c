"""Arguments of the public kernels: checked, and brought into the form the drivers take.

Everything a user can get wrong is refused here, in one sentence that names the argument, what
came and what was wanted.
"""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.exceptions import AxisError
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _kernels
from .errors import ArgumentTypeError, ArgumentValueError
from .results import LinearCrossEntropyResult

Array: TypeAlias = NDArray[Any]

#: The label of a row that does not count, as in the kernels' default `ignore_index`.
IGNORED_LABEL = -100


# ------------------------------------------------------------------------ arguments, one by one


def as_labels(array: NDArray[Any]) -> NDArray[Any]:
    """Give labels held as Python objects, or as NumPy's StringDType, a plain dtype."""
    return np.array(array.tolist()) if array.dtype.kind in "OT" else array


def refuse_beside(X: Any, **columns: Any) -> None:
    """Refuse labels and weights beside data that brings its own."""
    for name, value in columns.items():
        if value is not None:
            raise ArgumentTypeError(
                f"{name}: an array came beside {type(X).__name__}, which has its own; None was "
                "wanted"
            )


def as_array(name: str, value: Any) -> Array:
    """`value` as a plain ndarray, without a copy if it is one."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise ArgumentTypeError(
            f"{name}: a masked array came, a plain one was wanted; use .filled() or .compressed()"
        )
    if hasattr(value, "indptr") and hasattr(value, "indices"):
        raise ArgumentTypeError(
            f"{name}: a sparse matrix came, a dense array was wanted; use .toarray()"
        )
    if hasattr(value, "tocsr"):
        how = ".tocsr()" if name == "X" else ".toarray()"
        raise ArgumentTypeError(
            f"{name}: {type(value).__name__} came, which is no array; use {how}"
        )
    return np.asarray(value)


def as_floating(name: str, value: Any, *, half: bool = False) -> Array:
    """`value` as native, aligned float32 or float64 (`half`: float16 too); integers become
    float64."""
    a = as_array(name, value)
    kind, size = a.dtype.kind, a.dtype.itemsize
    if kind in "iub":
        return a.astype(np.float64)
    if kind != "f" or size > 8 or (size == 2 and not half):
        raise ArgumentTypeError(
            f"{name}: dtype {a.dtype} came, "
            f"{'float16, ' if half else ''}float32, float64 or integers were wanted"
        )
    return a if a.dtype.isnative and a.flags.aligned else a.astype(a.dtype.newbyteorder("="))


def as_reals(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Real numbers of one shape as they are if native float32 or float64, else as float64."""
    a = as_array(name, value)
    if a.dtype.kind not in "iubf" or a.dtype.itemsize > 8:
        raise ArgumentTypeError(f"{name}: dtype {a.dtype} came, real numbers were wanted")
    if a.shape != shape:
        raise ArgumentValueError(f"{name}: shape {a.shape} came, {shape} was wanted")
    return a if a.dtype in (np.float32, np.float64) else a.astype(np.float64)


def as_weights(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Weights: any real dtype, as contiguous float64 of one shape."""
    return as_plain(as_reals(name, value, shape), np.float64)


def as_row_weights(name: str, value: Any, n: int) -> Array:
    """Weights of the n rows of a fit; with a negative one the loss might have no least value."""
    weights = as_weights(name, value, (n,))
    bad = ~((weights >= 0) & (weights < math.inf))
    if bad.any():
        raise ArgumentValueError(
            f"{name}: {weights[bad][0]} came at row {bad.argmax()}, finite numbers of at least 0 "
            "were wanted"
        )
    return weights


def as_plain(a: Array, dtype: DTypeLike | None = None) -> Array:
    """`a` with its elements side by side and aligned."""
    a = np.ascontiguousarray(a, dtype)
    return a if a.flags.aligned else a.copy()


def overlaps_itself(a: Array) -> bool:
    if a.flags.forc:
        return False
    reach = a.itemsize
    for step, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if step < reach:
            return a.size > 0
        reach += step * (n - 1)
    return False


def as_out(name: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """`out` if results of this shape and dtype can be written to it."""
    if not isinstance(out, np.ndarray):
        raise ArgumentTypeError(f"{name}: {type(out).__name__} came, a NumPy array was wanted")
    if out.shape != shape:
        raise ArgumentValueError(f"{name}: shape {out.shape} came, {shape} was wanted")
    if out.dtype != dtype:
        raise ArgumentValueError(f"{name}: dtype {out.dtype} came, {dtype} was wanted")
    if not out.flags.writeable:
        raise ArgumentValueError(f"{name}: a read-only array came, a writable one was wanted")
    if overlaps_itself(out):
        raise ArgumentValueError(
            f"{name}: an array that overlaps itself came, each element was wanted in its own place"
        )
    return out


def as_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes as sorted non-negative numbers."""
    if axis is None:
        return tuple(range(ndim))
    result = []
    for a in axis if isinstance(axis, tuple) else (axis,):
        if isinstance(a, (bool, np.bool_)):
            raise ArgumentTypeError("axis: a bool came, an integer was wanted")
        i = operator.index(a)
        if ndim == 0 and i in (0, -1) and not isinstance(axis, tuple):
            return ()  # a number is its own only element, as in NumPy's reductions
        if not -ndim <= i < ndim:
            raise AxisError(i, ndim)
        result.append(i % ndim)
    if len(set(result)) < len(result):
        raise ArgumentValueError(
            f"axis: {axis} came, which names an axis twice, different axes were wanted"
        )
    return tuple(sorted(result))


def as_number(name: str, value: Any) -> float:
    if type(value) is float:
        return value
    is_number = hasattr(value, "__float__") and not isinstance(value, (str, bytes))
    if not is_number or np.ndim(value) or np.iscomplexobj(value):
        raise ArgumentTypeError(f"{name}: {type(value).__name__} came, a number was wanted")
    return float(value)


def as_integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentTypeError(
            f"{name}: {type(value).__name__} came, an integer was wanted"
        ) from None


def integer_between(name: str, value: Any, low: int, high: int = 2**63 - 1) -> int:
    n = as_integer(name, value)
    if not low <= n <= high:
        most = "2**63 - 1" if high == 2**63 - 1 else high
        raise ArgumentValueError(f"{name}: {n} came, an integer from {low} to {most} was wanted")
    return n


def number_between(name: str, value: Any, low: float, high: float) -> float:
    v = as_number(name, value)
    if not low <= v <= high:
        raise ArgumentValueError(f"{name}: {value} came, a number from {low} to {high} was wanted")
    return v


def check_reduction(reduction: str) -> str:
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentValueError(
            f"reduction: {reduction!r} came, 'mean', 'sum' or 'none' was wanted"
        )
    return reduction


def same_place(a: Array, b: Array) -> bool:
    return (
        a.__array_interface__["data"] == b.__array_interface__["data"]
        and a.shape == b.shape
        and a.strides == b.strides
        and a.dtype == b.dtype
    )


# ------------------------------------------------------------------------ views of three axes


def _collapse(
    shape: list[int], steps: list[tuple[int, ...]]
) -> tuple[list[int], list[tuple[int, ...]]]:
    """Merge neighbouring axes that every array (a column of `steps`) walks as one."""
    out_shape: list[int] = []
    out_steps: list[tuple[int, ...]] = []
    for n, s in zip(shape, steps, strict=True):
        if n == 1:
            continue
        if out_shape and all(p == q * n for p, q in zip(out_steps[-1], s, strict=True)):
            out_shape[-1] *= n
            out_steps[-1] = s
        else:
            out_shape.append(n)
            out_steps.append(s)
    return out_shape, out_steps


def three_axes(
    arrays: list[Array], axes: tuple[int, ...]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]] | None:
    """How to walk arrays of one shape as (A, B, C), C over `axes`.

    Returns that shape and the arrays' strides for it; None if three strides do not suffice.
    """
    first = arrays[0]
    if first.ndim == 2 and axes == (1,):  # what nearly everybody wants
        return (1, *first.shape), [(0, *a.strides) for a in arrays]
    lead = [i for i in range(first.ndim) if i not in axes]
    shape, steps = _collapse(
        [first.shape[i] for i in lead], [tuple(a.strides[i] for a in arrays) for i in lead]
    )
    c_shape, c_steps = _collapse(
        [first.shape[i] for i in axes], [tuple(a.strides[i] for a in arrays) for i in axes]
    )
    if len(shape) > 2 or len(c_shape) > 1:
        return None
    item = tuple(a.itemsize for a in arrays)
    while len(shape) < 2:
        shape.insert(0, 1)
        steps.insert(0, item)
    all_steps = [*steps, *(c_steps or [item])]
    return (*shape, *(c_shape or [1])), [tuple(s[k] for s in all_steps) for k in range(len(arrays))]


def rows_first(x: Array, axes: tuple[int, ...]) -> Array:
    """A copy of x as (rows, C)."""
    moved = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
    c = math.prod(x.shape[i] for i in axes)
    return np.array(moved, order="C").reshape(-1, c)


# ------------------------------------------------------------------------ arguments together


class Csr(NamedTuple):
    """A matrix in compressed sparse rows, from `as_matrix`: without entries that no row has, as
    far as indptr can be trusted. What indptr and indices say is checked where it is used."""

    data: Array  # (nnz,) float32, float64, uint8, float16 or bfloat16
    indices: Array  # (nnz,) int32 or int64
    indptr: Array  # (N + 1,) of any integer dtype
    shape: tuple[int, int]


def as_matrix(X: Any) -> Array | Csr:
    """X as an array, or as compressed sparse rows if it has their four attributes."""
    if type(X) is Csr:
        return X
    if type(X) is np.ndarray or not all(
        hasattr(X, name) for name in ("indptr", "indices", "data", "shape")
    ):
        return as_stored("X", X)
    form = getattr(X, "format", "csr")
    if form != "csr":
        raise ArgumentTypeError(
            f"X: a sparse matrix in {form} form came, csr was wanted; use .tocsr()"
        )
    shape = tuple(as_integer("X.shape", n) for n in X.shape)
    if len(shape) != 2 or min(shape) < 0:
        raise ArgumentValueError(f"X: shape {X.shape} came, two axes (N, D) were wanted")
    indices, indptr = as_array("X.indices", X.indices), as_array("X.indptr", X.indptr)
    for name, a in (("indices", indices), ("indptr", indptr)):
        if a.dtype.kind not in "iu":
            raise ArgumentTypeError(f"X.{name}: dtype {a.dtype} came, integers were wanted")
    if indices.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
        indices = indices.astype(np.int64)
    indptr = as_native(indptr)
    data = as_stored("X.data", X.data)
    if indptr.shape != (shape[0] + 1,):
        raise ArgumentValueError(
            f"X.indptr: shape {indptr.shape} came, ({shape[0] + 1},) was wanted for X of shape "
            f"{shape}"
        )
    if indices.ndim != 1 or data.shape != indices.shape:
        raise ArgumentValueError(
            f"X.data, X.indices: shapes {data.shape} and {indices.shape} came, one axis of the "
            "same length was wanted"
        )
    first, last = int(indptr[0]), int(indptr[-1])
    if (first, last) != (0, len(indices)) and 0 <= first <= last <= len(indices):
        # Of a view: its own entries only, if indptr is to be trusted.
        if first == 0:
            data, indices = data[:last], indices[:last]
        elif (indptr[:-1] <= indptr[1:]).all():
            data, indices, indptr = data[first:last], indices[first:last], indptr - first
    return Csr(as_plain(data), as_plain(indices), as_plain(indptr), (shape[0], shape[1]))


def as_stored(name: str, value: Any) -> Array:
    """Numbers of X as they are kept: native uint8, float16, bfloat16, float32 or float64; other
    integers become float64."""
    a = as_array(name, value)
    if a.dtype == np.uint8:
        return a
    if is_bfloat16(a.dtype):
        return a if a.flags.aligned else a.copy()
    return as_floating(name, a, half=True)


def widened(a: Array) -> Array:
    """Halves as float32, in which NumPy is to compute with them; other arrays as they are."""
    return a.astype(np.float32) if a.dtype == np.float16 or is_bfloat16(a.dtype) else a


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether it is that of the package ml_dtypes, which need not be installed."""
    return dtype.itemsize == 2 and dtype.name == "bfloat16"


def finite(name: str, value: Any) -> float:
    v = as_number(name, value)
    if not math.isfinite(v):
        raise ArgumentValueError(f"{name}: {value} came, a finite number was wanted")
    return v


def finite_from_0(name: str, value: Any) -> float:
    v = as_number(name, value)
    if not 0 <= v < math.inf:
        raise ArgumentValueError(f"{name}: {value} came, a finite number of at least 0 was wanted")
    return v


def as_layer(X: Any, W: ArrayLike, b: ArrayLike | None) -> tuple[Array | Csr, Array, Array | None]:
    """X, W, b with W and b in the compute dtype."""
    x = as_matrix(X)
    w = as_floating("W", W)
    bias = None if b is None else as_floating("b", b)
    if len(x.shape) != 2:
        raise ArgumentValueError(f"X: shape {x.shape} came, two axes (N, D) were wanted")
    if w.ndim != 2:
        raise ArgumentValueError(f"W: shape {w.shape} came, two axes (D, C) were wanted")
    if x.shape[1] != w.shape[0]:
        raise ArgumentValueError(
            f"W: shape {w.shape} came, ({x.shape[1]}, C) was wanted for X of shape {x.shape}"
        )
    if bias is not None and bias.shape != w.shape[1:]:
        raise ArgumentValueError(
            f"b: shape {bias.shape} came, ({w.shape[1]},) was wanted for W of shape {w.shape}"
        )
    x_dtype = x.data.dtype if isinstance(x, Csr) else x.dtype
    double = x_dtype == np.float64 or w.dtype == np.float64
    if bias is not None:
        double = double or bias.dtype == np.float64
    dtype = np.float64 if double else np.float32
    if w.dtype != dtype:
        w = w.astype(dtype)
    if bias is not None:
        bias = as_plain(bias, dtype)
    return x, w, bias


def beside_direction(
    w: Array, bias: Array | None, V: ArrayLike, v: ArrayLike | None
) -> tuple[Array, Array | None, Array, Array | None]:
    """W and b from `as_layer` in the compute dtype of a direction (V, v) too; and (W V), (b v)."""
    direction = as_floating("V", V)
    if direction.shape != w.shape:
        raise ArgumentValueError(
            f"V: shape {direction.shape} came, that of W, {w.shape}, was wanted"
        )
    shift = None if v is None else as_floating("v", v)
    if shift is not None:
        if bias is None:
            raise ArgumentValueError("v: an array came, but there is no b")
        if shift.shape != bias.shape:
            raise ArgumentValueError(
                f"v: shape {shift.shape} came, that of b, {bias.shape}, was wanted"
            )
    dtype = np.result_type(w, direction, *([] if shift is None else [shift]))
    d, c = w.shape
    wide = np.empty((d, 2 * c), dtype, "C" if w.flags.c_contiguous else "F")
    wide[:, :c], wide[:, c:] = w, direction
    w = w.astype(dtype, copy=False)
    if bias is None:
        return w, None, wide, None
    wide_b = np.zeros(2 * c, dtype)
    wide_b[:c] = bias
    if shift is not None:
        wide_b[c:] = shift
    return w, bias.astype(dtype, copy=False), wide, wide_b


def as_native(a: Array) -> Array:
    """Targets or indices in the form the drivers read one by one: native, float16 as float32."""
    if a.dtype.kind == "f" and a.dtype.itemsize == 2:
        return a.astype(np.float32)
    return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))


def as_target(
    target: Any,
    logits_shape: tuple[int, ...],
    rows_shape: tuple[int, ...],
    name: str = "target",
) -> Array:
    """Labels (integers, the rows' shape) or probabilities (floating, the logits' shape)."""
    t = as_array(name, target)
    if t.dtype.kind in "iu":
        if t.shape == logits_shape:
            raise ArgumentValueError(
                f"{name}: integers of the logits' shape {t.shape} came; give one-hot targets as "
                f"floats, or labels by {name}.argmax(axis=1)"
            )
        if t.shape != rows_shape:
            raise ArgumentValueError(
                f"{name}: shape {t.shape} came, {rows_shape} was wanted for class indices"
            )
        return as_native(t)
    if t.size == 0 and t.shape == rows_shape and not hasattr(target, "dtype"):
        return t.astype(np.int64)  # an empty list of labels has NumPy's default dtype
    if t.dtype.kind == "f":
        if t.shape != logits_shape:
            if t.shape == rows_shape:
                raise ArgumentTypeError(
                    f"{name}: labels of dtype {t.dtype} came, integers were wanted "
                    f"(or probabilities of shape {logits_shape})"
                )
            raise ArgumentValueError(
                f"{name}: shape {t.shape} came, {logits_shape} was wanted for probabilities"
            )
        if t.dtype.itemsize <= 8:
            return as_native(t)
    raise ArgumentTypeError(
        f"{name}: dtype {t.dtype} came, integers or floating probabilities were wanted"
    )


def as_rows(rows: Any, n: int) -> NDArray[np.int64]:
    """Indices as a fresh int64 array within [0, n)."""
    r = as_array("rows", rows)
    if r.dtype.kind not in "iu" and not (r.size == 0 and r.dtype.kind == "f"):
        hint = "; use numpy.flatnonzero(mask)" if r.dtype.kind == "b" else ""
        raise ArgumentTypeError(f"rows: dtype {r.dtype} came, integers were wanted{hint}")
    if r.ndim != 1:
        raise ArgumentValueError(f"rows: shape {r.shape} came, one axis was wanted")
    if r.dtype.kind == "u" and r.size and r.max() >= n:
        bad = int(np.flatnonzero(r >= n)[0])  # before it wraps around
        raise IndexError(f"rows: index {r[bad]} at position {bad} is outside [{-n}, {n})")
    # A copy: nobody can change it between this check and its use.
    checked = np.array(r, np.int64)
    bad = _kernels.wrap_rows(checked, n)
    if bad >= 0:
        raise IndexError(f"rows: index {r[bad]} at position {bad} is outside [{-n}, {n})")
    return checked


def gradient_arrays(
    out: Any, sizes: tuple[int, int, int], W: Array, b: Array | None, with_dX: bool
) -> tuple[Array, Array | None, Array | None]:
    """The arrays the gradients go to, from `out` or new."""
    n, d, c = sizes
    given: list[Any] = [None, None, None]
    if isinstance(out, LinearCrossEntropyResult):
        # An earlier result is reused as far as it fits: the last minibatch may be smaller.
        given = [out.dW, out.db if b is not None else None, out.dX if with_dX else None]
        if given[2] is not None and given[2].shape != (n, d):
            given[2] = None
    elif out is not None:
        if not isinstance(out, (tuple, list)) or len(out) not in (2, 3):
            raise ArgumentTypeError(
                f"out: {type(out).__name__} came, a tuple (dW, db) or (dW, db, dX) or an earlier "
                "result was wanted"
            )
        given[: len(out)] = out
    wanted: tuple[tuple[int, ...] | None, ...] = (
        (d, c),
        (c,) if b is not None else None,
        (n, d) if with_dX else None,
    )
    result: list[Array | None] = []
    for name, g, shape in zip(("dW", "db", "dX"), given, wanted, strict=True):
        if shape is None:
            if g is not None:
                why = "there is no b" if name == "db" else "with_dX is False"
                raise ArgumentValueError(f"out: an array for {name} came, but {why}")
            result.append(None)
        elif g is not None:
            result.append(as_out(f"out ({name})", g, shape, W.dtype))
        elif name == "dW":
            like_c = W.flags.c_contiguous or not W.flags.f_contiguous
            result.append(np.empty(shape, W.dtype, "C" if like_c else "F"))
        else:
            result.append(np.empty(shape, W.dtype))
    used = [g for g in result if g is not None] if out is not None else []
    for i, g in enumerate(used):
        later = used[i + 1 :]
        if _kernels.overlap(g, *later) and any(np.shares_memory(g, h) for h in later):
            raise ArgumentValueError(
                "out: arrays that overlap each other came, separate ones were wanted"
            )
    return cast(Array, result[0]), result[1], result[2]
