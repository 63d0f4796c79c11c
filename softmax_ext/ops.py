"""The public kernels: arguments checked and brought into the form the drivers take.

Everything a user can get wrong is refused here, before anything is written. The arithmetic is in
the drivers (`_kernels.pyx`) and leaves (`src/`), except for entropy and kl_divergence, which are
a few NumPy operations.
"""

from __future__ import annotations

import math
import operator
import os
from typing import Any, cast

import numpy as np
from numpy.exceptions import AxisError
from numpy.typing import ArrayLike, NDArray

from . import _kernels, threads
from .results import CrossEntropyResult, LinearCrossEntropyResult

STATS, PROB, LOG = 0, 1, 2  # enum smx_mode
LINEAR, PROBA, PREDICT, LOSS, GRADIENT = range(5)  # enum Job

# A slice of rows holds about so many logits: some 50 microseconds of work.
SLICE_LOGITS = 1 << 17
# Two submits cost some 85 microseconds, so splitting pays from about 400 microseconds of work.
THREADED_LOGITS = 1 << 19
# The same in multiplications: a slice some 100 microseconds, threads from 400.
SLICE_PRODUCTS = 1 << 22
THREADED_PRODUCTS = 1 << 24
# Slices with accumulators of their own are at least so many rows, which makes merging cheap.
SLICE_ROWS = 1024

Array = NDArray[Any]


# ------------------------------------------------------------------------ arguments, one by one


def _array(name: str, value: Any) -> Array:
    """`value` as a plain ndarray, without a copy if it is one."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: a masked array came, a plain one was wanted; use .filled() or .compressed()"
        )
    if hasattr(value, "indptr") and hasattr(value, "indices"):
        raise TypeError(f"{name}: a sparse matrix came, a dense array was wanted; use .toarray()")
    return np.asarray(value)


def _floating(name: str, value: Any, *, half: bool = False) -> Array:
    """`value` as native float32 or float64 (`half`: float16 too); integers become float64."""
    a = _array(name, value)
    kind, size = a.dtype.kind, a.dtype.itemsize
    if kind in "iub":
        return a.astype(np.float64)
    if kind != "f" or size > 8 or (size == 2 and not half):
        raise TypeError(
            f"{name}: dtype {a.dtype} came, "
            f"{'float16, ' if half else ''}float32, float64 or integers were wanted"
        )
    return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))


def _real(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Weights: any real dtype, as contiguous float64 of one shape."""
    a = _array(name, value)
    if a.dtype.kind not in "iubf" or a.dtype.itemsize > 8:
        raise TypeError(f"{name}: dtype {a.dtype} came, real numbers were wanted")
    if a.shape != shape:
        raise ValueError(f"{name}: shape {a.shape} came, {shape} was wanted")
    return np.ascontiguousarray(a, np.float64)


def _overlaps_itself(a: Array) -> bool:
    reach = a.itemsize
    for step, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape) if n > 1):
        if step < reach:
            return a.size > 0
        reach += step * (n - 1)
    return False


def _out(name: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """`out` if results of this shape and dtype can be written to it."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name}: {type(out).__name__} came, a NumPy array was wanted")
    if out.shape != shape:
        raise ValueError(f"{name}: shape {out.shape} came, {shape} was wanted")
    if out.dtype != dtype:
        raise ValueError(f"{name}: dtype {out.dtype} came, {dtype} was wanted")
    if not out.flags.writeable:
        raise ValueError(f"{name}: a read-only array came, a writable one was wanted")
    if _overlaps_itself(out):
        raise ValueError(f"{name}: an array that overlaps itself came, one memory place per element was wanted")
    return out


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes as sorted non-negative numbers."""
    if axis is None:
        return tuple(range(ndim))
    result = []
    for a in axis if isinstance(axis, tuple) else (axis,):
        if isinstance(a, (bool, np.bool_)):
            raise TypeError("axis: a bool came, an integer was wanted")
        i = operator.index(a)
        if not -ndim <= i < ndim:
            raise AxisError(i, ndim)
        result.append(i % ndim)
    if len(set(result)) < len(result):
        raise ValueError(f"axis: {axis} names an axis twice")
    return tuple(sorted(result))


def _option(name: str, value: Any, low: float, high: float) -> float:
    v = float(value)
    if not low <= v <= high:
        raise ValueError(f"{name}: {value} came, a number from {low} to {high} was wanted")
    return v


def _reduction(reduction: str) -> str:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: {reduction!r} came, 'mean', 'sum' or 'none' was wanted")
    return reduction


def _same_place(a: Array, b: Array) -> bool:
    return (
        a.__array_interface__["data"] == b.__array_interface__["data"]
        and a.shape == b.shape
        and a.strides == b.strides
        and a.dtype == b.dtype
    )


# ------------------------------------------------------------------------ views of three axes


def _collapse(shape: list[int], steps: list[tuple[int, ...]]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Merge neighbouring axes that every array (a column of `steps`) walks as one."""
    out_shape: list[int] = []
    out_steps: list[tuple[int, ...]] = []
    for n, s in zip(shape, steps):
        if n == 1:
            continue
        if out_shape and all(p == q * n for p, q in zip(out_steps[-1], s)):
            out_shape[-1] *= n
            out_steps[-1] = s
        else:
            out_shape.append(n)
            out_steps.append(s)
    return out_shape, out_steps


def _three_axes(arrays: list[Array], axes: tuple[int, ...]) -> list[Array] | None:
    """Views (A, B, C) of arrays of one shape, C over `axes`; None if no such views exist."""
    first = arrays[0]
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
    if not c_shape:
        c_shape, c_steps = [1], [item]
    full = (*shape, *c_shape)
    return [
        np.lib.stride_tricks.as_strided(a, full, tuple(s[k] for s in (*steps, *c_steps)))
        for k, a in enumerate(arrays)
    ]


def _rows_first(x: Array, axes: tuple[int, ...]) -> Array:
    """A copy of x as (1, rows, C)."""
    moved = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
    c = math.prod(x.shape[i] for i in axes)
    return np.ascontiguousarray(moved).reshape(1, -1, c)


# --------------------------------------------------------------------------------- the kernels


class Kernels:
    """The public kernels, bound to one instruction set.

    `softmax_ext.softmax` and the others are methods of the handle made at import for the best
    instruction set that can run here (or the one that the environment variable
    ``SOFTMAX_EXT_ISA`` names). Tests and benchmarks make handles of their own.

    Parameters
    ----------
    isa : str, optional
        ``"baseline"``, ``"avx2"``, ``"avx512"`` or ``"neon"``; the best one by default.

    Attributes
    ----------
    isa : str
        The instruction set in use.

    Raises
    ------
    ValueError
        If `isa` is not known or cannot run here.

    Examples
    --------
    >>> import softmax_ext as sx
    >>> sx.Kernels("baseline").softmax([0.0, 0.0])
    array([0.5, 0.5])
    """

    def __init__(self, isa: str | None = None) -> None:
        available = _kernels.available_isas()
        if isa is None:
            isa = available[0]
        if isa not in available:
            why = "cannot run here" if isa in _kernels.compiled_isas() else "is not in this build"
            raise ValueError(f"isa: {isa!r} {why}; available: {', '.join(available)}")
        self.isa = isa

    def __repr__(self) -> str:
        return f"softmax_ext.Kernels({self.isa!r})"

    # ------------------------------------------------------------------------ softmax family

    def softmax(self, x: ArrayLike, axis: Any = -1, *, out: Array | None = None) -> Any:
        """Softmax: exp(x) divided by its sum along an axis.

        Parameters
        ----------
        x : array_like
            float32, float64, or float16 (computed in float32); integers and bools become float64.
        axis : int, tuple of int or None
            Axis or axes the probabilities sum to 1 over; None for the whole array.
        out : ndarray, optional
            Result array of x's shape and the result's dtype; may be `x` itself.

        Returns
        -------
        ndarray
            Probabilities, x's shape. Every normal number is within 4 ULP of the exact value.

        Raises
        ------
        TypeError
            For complex, longdouble, object, string and date dtypes, and for masked arrays.
        ValueError
            If the axis has no elements, or `out` does not fit.

        Notes
        -----
        The largest element is subtracted first; the rounding error of that difference, which
        exp would magnify, is carried along. A row with a NaN or +inf is all NaN, and so is a row
        of -inf only, as in SciPy. No floating-point warning is raised.

        References
        ----------
        .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp
           and softmax functions", IMA J. Numer. Anal. 41 (2021).

        Examples
        --------
        >>> import softmax_ext as sx
        >>> sx.softmax([1000.0, 1000.0, -1000.0])
        array([0.5, 0.5, 0. ])
        """
        return self._softmax(PROB, x, axis, out)

    def log_softmax(self, x: ArrayLike, axis: Any = -1, *, out: Array | None = None) -> Any:
        """Logarithm of the softmax: x - logsumexp(x), in nats.

        Parameters, result and errors as for `softmax`.

        Notes
        -----
        Where the maximum is +inf the result is NaN there and -inf elsewhere, as in SciPy.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> sx.log_softmax([1000.0, 1.0])
        array([   0., -999.])
        """
        return self._softmax(LOG, x, axis, out)

    def logsumexp(self, x: ArrayLike, axis: Any = -1, *, keepdims: bool = False) -> Any:
        """Logarithm of the sum of exponentials along an axis, without overflow.

        Parameters
        ----------
        x : array_like
            As for `softmax`.
        axis : int, tuple of int or None
            Axis or axes to sum over.
        keepdims : bool
            Keep the summed axes with size 1.

        Returns
        -------
        ndarray or NumPy scalar
            -inf where nothing, or only -inf, is summed.

        Raises
        ------
        TypeError
            As for `softmax`.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> float(sx.logsumexp([1000.0, 1000.0])) - 1000
        0.6931471805599672
        """
        x, half = self._prepare(x)
        axes = _axes(axis, x.ndim)
        kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        shape = kept if keepdims else tuple(n for i, n in enumerate(x.shape) if i not in axes)
        if x.size == 0:
            result = np.full(shape, -np.inf, x.dtype)
        elif math.prod(x.shape[i] for i in axes) == 1:
            result = x.reshape(shape).copy()
        else:
            views = _three_axes([x], axes)
            rows = views[0] if views else _rows_first(x, axes)
            lse = np.empty(rows.shape[:2], x.dtype)
            self._run_softmax(STATS, rows, None, lse)
            result = lse.reshape(shape)
        if half:
            result = _to_half(result)
        return result if result.ndim else result[()]

    def _prepare(self, x: ArrayLike) -> tuple[Array, bool]:
        a = _floating("x", x, half=True)
        half = a.dtype.itemsize == 2
        return (a.astype(np.float32) if half else a), half

    def _softmax(self, mode: int, x: ArrayLike, axis: Any, out: Array | None) -> Any:
        given = x
        x, half = self._prepare(x)
        axes = _axes(axis, x.ndim)
        if out is None:
            result = np.empty(x.shape, x.dtype)
        else:
            out = _out("out", out, x.shape, np.dtype(np.float16) if half else x.dtype)
            result = np.empty(x.shape, x.dtype) if half else out
            if x is given and np.may_share_memory(x, out) and not _same_place(x, out):
                x = x.copy()
        if math.prod(x.shape[i] for i in axes) == 0 and (x.ndim == len(axes) or x.size != 0 or
                math.prod(n for i, n in enumerate(x.shape) if i not in axes) != 0):
            raise ValueError("zero-size array to reduction operation maximum which has no identity")
        if x.size:
            views = _three_axes([x, result], axes)
            if views is not None:
                self._run_softmax(mode, views[0], views[1], None)
            else:
                rows = _rows_first(x, axes)
                self._run_softmax(mode, rows, rows, None)
                n = x.ndim - len(axes)
                moved = tuple(s for i, s in enumerate(x.shape) if i not in axes)
                moved += tuple(x.shape[i] for i in axes)
                np.copyto(result, np.moveaxis(rows.reshape(moved), range(n, x.ndim), axes))
        if half:
            result = _to_half(result)
            if out is not None:
                np.copyto(out, result)
                result = out
        if out is not None:
            return out
        return result if result.ndim else result[()]

    def _run_softmax(self, mode: int, x: Array, out: Array | None, lse: Array | None) -> None:
        job = _kernels.Softmax(self.isa, mode, x, out, lse)
        rows, c = x.shape[0] * x.shape[1], x.shape[2]
        step = max(1, SLICE_LOGITS // c)
        if rows <= step:
            job.run(0, rows)
            return
        threads.run_slices(
            -(-rows // step),
            lambda i: job.run(i * step, min(rows, (i + 1) * step)),
            lambda _: None,
            threaded=rows * c >= THREADED_LOGITS,
        )

    # ------------------------------------------------------------------------- cross-entropy

    def cross_entropy(
        self,
        logits: ArrayLike,
        target: ArrayLike,
        *,
        weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Any:
        """Cross-entropy between logits and labels or probabilities, in nats.

        The meaning of every argument is PyTorch's; `sample_weight` is ours.

        Parameters
        ----------
        logits : array_like
            (C,), (N, C) or (N, C, d1, ...), float32 or float64; integers become float64.
        target : array_like
            Class indices: any integer dtype, the logits' shape without the class axis. Or
            probabilities: floating, the logits' shape.
        weight : array_like, optional
            (C,) factor per class.
        sample_weight : array_like, optional
            (N,) (or the rows' shape) factor of a row's loss and, with "mean", of its share in
            the denominator.
        ignore_index : int
            Rows with this label count nothing: loss 0, gradient exactly 0. Other labels outside
            [0, C) are an error.
        label_smoothing : float
            In [0, 1]: the part of each target that is spread evenly over the classes.
        reduction : {"mean", "sum", "none"}
            "mean" divides by the sum of the kept rows' weights (probabilities: of the sample
            weights, so by N without).

        Returns
        -------
        float or ndarray
            The reduced loss, summed in float64; with "none" the rows' losses in the logits'
            dtype. "mean" over nothing is nan.

        Raises
        ------
        IndexError
            If a label is outside [0, C) and not `ignore_index`.
        TypeError, ValueError
            For dtypes and shapes that do not fit together.

        Notes
        -----
        loss = logsumexp(o) - o[y], see C. Bishop, "Pattern Recognition and Machine Learning"
        (2006), section 4.3.4. A probability of 0 counts nothing, also beside a logit of -inf.

        Examples
        --------
        >>> import numpy as np
        >>> import softmax_ext as sx
        >>> round(sx.cross_entropy(np.zeros((4, 10)), [1, 2, 3, 4]), 6)
        2.302585
        """
        return self._cross_entropy(
            logits, target, weight, sample_weight, ignore_index, label_smoothing, reduction, False, None
        ).loss

    def cross_entropy_with_grad(
        self,
        logits: ArrayLike,
        target: ArrayLike,
        *,
        weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        out: Array | None = None,
    ) -> CrossEntropyResult:
        """Cross-entropy and its gradient softmax(o) - y with respect to the logits.

        Parameters as for `cross_entropy`.

        out : ndarray, optional
            Where the gradient goes: the logits' shape and dtype.

        Returns
        -------
        CrossEntropyResult
            Named tuple ``loss, dlogits``; the gradient is that of the reduced loss (with
            "none": of the sum).

        Raises
        ------
        IndexError, TypeError, ValueError
            As `cross_entropy`; nothing is written to `out` then.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> sx.cross_entropy_with_grad([0.0, 0.0], 1).dlogits
        array([ 0.5, -0.5])
        """
        return self._cross_entropy(
            logits, target, weight, sample_weight, ignore_index, label_smoothing, reduction, True, out
        )

    def _cross_entropy(
        self,
        logits: ArrayLike,
        target: ArrayLike,
        weight: ArrayLike | None,
        sample_weight: ArrayLike | None,
        ignore_index: int,
        label_smoothing: float,
        reduction: str,
        with_grad: bool,
        out: Array | None,
    ) -> CrossEntropyResult:
        x = _floating("logits", logits)
        if x.ndim == 0:
            raise ValueError("logits: a scalar came, at least one axis was wanted")
        axis = 0 if x.ndim == 1 else 1
        c = x.shape[axis]
        if c == 0:
            raise ValueError(f"logits: shape {x.shape} came, at least one class was wanted")
        rows_shape = x.shape[:axis] + x.shape[axis + 1 :]
        _reduction(reduction)
        if out is not None:
            out = _out("out", out, x.shape, x.dtype)

        # The drivers take (A, B, C): rows (A, B), classes last.
        if x.ndim <= 2:
            a, b = 1, math.prod(rows_shape)
        else:
            a, b = x.shape[0], math.prod(x.shape[2:])

        def classes_last(v: Array) -> Array:
            return v.reshape(1, b, c) if v.ndim <= 2 else v.reshape(a, c, b).transpose(0, 2, 1)

        t = _target_array(target, x.shape, rows_shape, x.dtype)
        hard = t.dtype.kind in "iu"
        t3 = t.reshape(a, b) if hard else classes_last(t)
        sample = None
        if sample_weight is not None:
            s = _array("sample_weight", sample_weight)
            if s.shape != rows_shape and s.ndim == 1 and s.shape == x.shape[:1] and x.ndim > 2:
                s = np.broadcast_to(s.reshape((-1,) + (1,) * (x.ndim - 2)), rows_shape)
            sample = _real("sample_weight", s, rows_shape).reshape(a, b)
        job_target = self._target(t3, hard, c, weight, sample, ignore_index, label_smoothing)
        total_weight, bad = job_target.scan()
        if bad >= 0:
            raise _label_error(t3, bad, c, None)
        if reduction == "mean":
            job_target.set_total(total_weight)

        losses = np.zeros(a * b, x.dtype) if reduction == "none" else None
        dlogits = g = None
        if with_grad:
            dlogits = g = np.empty(x.shape, x.dtype) if out is None else out
            if out is not None and (
                (x.ndim > 3 and not out.flags.c_contiguous)  # no view with classes last
                or np.may_share_memory(out, x)
                or np.may_share_memory(out, t)
            ):
                g = np.empty(x.shape, x.dtype)
        g3 = None if g is None else classes_last(g)
        job = _kernels.CrossEntropy(self.isa, classes_last(x), job_target, g3, losses)
        loss = self._sum_slices(job.run, a * b, max(1, SLICE_LOGITS // c), a * b * c >= THREADED_LOGITS)
        if with_grad and g is not dlogits:
            np.copyto(cast(Array, dlogits), cast(Array, g))
        return CrossEntropyResult(
            _reduced(loss, total_weight, reduction, losses, rows_shape), cast(Array, dlogits)
        )

    @staticmethod
    def _sum_slices(run: Any, rows: int, step: int, threaded: bool) -> float:
        """The sum of run's losses over slices of rows, added in order."""
        total = 0.0

        def merge(result: tuple[float, int]) -> None:
            nonlocal total
            if result[1] >= 0:
                raise IndexError(f"target: the label at row {result[1]} changed during the call")
            total += result[0]

        threads.run_slices(
            -(-rows // step),
            lambda i: run(i * step, min(rows, (i + 1) * step)),
            merge,
            threaded=threaded,
        )
        return total

    @staticmethod
    def _target(
        t: Array,
        hard: bool,
        c: int,
        weight: ArrayLike | None,
        sample: Array | None,
        ignore_index: int,
        label_smoothing: float,
    ) -> Any:
        ignore = operator.index(ignore_index)
        if not hard and ignore >= 0:
            raise ValueError(
                f"ignore_index: {ignore} came with probabilities as target, which have no index to ignore"
            )
        if not -(2**63) < ignore < 2**63:
            ignore = -(2**63) + 1
        w = None if weight is None else _real("weight", weight, (c,))
        return _kernels.Target(
            t, hard, c, w, sample, ignore, _option("label_smoothing", label_smoothing, 0, 1)
        )

    # -------------------------------------------------------------------------- linear layer

    def linear(
        self,
        X: ArrayLike,
        W: ArrayLike,
        b: ArrayLike | None = None,
        *,
        x_scale: float = 1.0,
        out: Array | None = None,
    ) -> Array:
        """Logits of a single-layer network for a minibatch: O = x_scale * X W + b.

        Parameters
        ----------
        X : array_like
            (N, D) float32, float64 or uint8 (taken as it is, without a floating copy); other
            integers become float64. Any memory layout.
        W : array_like
            (D, C) weights in C or Fortran order.
        b : array_like, optional
            (C,) bias.
        x_scale : float
            Factor of X, applied inside the kernel: 1/255 for images of uint8.
        out : ndarray, optional
            (N, C) result array of the compute dtype.

        Returns
        -------
        ndarray
            (N, C): float64 if X, W or b is, else float32.

        Raises
        ------
        TypeError, ValueError
            For dtypes and shapes that do not fit together.

        Examples
        --------
        >>> import numpy as np
        >>> import softmax_ext as sx
        >>> sx.linear([[1.0, 2.0]], [[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]], [0.5, 0.5, 0.5])
        array([[1.5, 2.5, 1.5]])
        """
        return self._forward(LINEAR, X, W, b, x_scale, out)

    def predict_proba(
        self, X: ArrayLike, W: ArrayLike, b: ArrayLike | None = None, *, x_scale: float = 1.0
    ) -> Array:
        """Class probabilities softmax(x_scale * X W + b), (N, C).

        Parameters and errors as for `linear`. A row's probabilities do not depend on the rows
        that come along with it, to the last bit.

        Examples
        --------
        >>> import numpy as np
        >>> import softmax_ext as sx
        >>> sx.predict_proba([[1.0]], [[0.0, 0.0]])
        array([[0.5, 0.5]])
        """
        return self._forward(PROBA, X, W, b, x_scale, None)

    def predict(
        self, X: ArrayLike, W: ArrayLike, b: ArrayLike | None = None, *, x_scale: float = 1.0
    ) -> NDArray[np.intp]:
        """The most likely class of each row, (N,) intp: the first largest logit.

        Parameters and errors as for `linear`. The (N, C) logits are never held. A NaN counts as
        largest, as in `numpy.argmax`.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> sx.predict([[1.0], [-1.0]], [[2.0, -2.0]])
        array([0, 1])
        """
        return self._forward(PREDICT, X, W, b, x_scale, None)

    def _forward(
        self, job: int, X: ArrayLike, W: ArrayLike, b: ArrayLike | None, x_scale: float, out: Array | None
    ) -> Array:
        X, W, b = _layer(X, W, b)
        scale = _finite("x_scale", x_scale)
        n, c = X.shape[0], W.shape[1]
        if job == PREDICT:
            if c == 0:
                raise ValueError(f"W: shape {W.shape} came, at least one class was wanted")
            result = np.empty(n, np.intp)
        elif out is None:
            result = np.empty((n, c), W.dtype)
        else:
            result = out = _out("out", out, (n, c), W.dtype)
            if any(a is not None and np.may_share_memory(a, out) for a in (X, W, b)):
                result = np.empty((n, c), W.dtype)
        if n and c:
            p = _kernels.LinearPass(self.isa, job, X, W, b, scale, None, None, result, None, None)
            work = max(1, W.size)
            step = -(-max(1, SLICE_PRODUCTS // work) // p.row_block) * p.row_block
            threads.run_slices(
                -(-n // step),
                lambda i: p.run(i * step, min(n, (i + 1) * step)),
                lambda _: None,
                threaded=n * work >= THREADED_PRODUCTS,
            )
        if out is not None and result is not out:
            np.copyto(out, result)
            result = out
        return result

    def linear_cross_entropy(
        self,
        X: ArrayLike,
        W: ArrayLike,
        b: ArrayLike | None,
        target: ArrayLike,
        *,
        weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        x_scale: float = 1.0,
    ) -> Any:
        """Cross-entropy of a linear layer, in nats, without ever holding its logits.

        ``cross_entropy(linear(X, W, b, x_scale=x_scale), target, ...)`` in one pass over X; see
        `linear` and `cross_entropy` for the arguments, the result and the errors.

        Examples
        --------
        >>> import numpy as np
        >>> import softmax_ext as sx
        >>> round(sx.linear_cross_entropy(np.ones((4, 3)), np.zeros((3, 10)), None, [0, 1, 2, 3]), 6)
        2.302585
        """
        return self._linear_cross_entropy(
            LOSS, X, W, b, target, weight, sample_weight, ignore_index, label_smoothing, reduction,
            x_scale, None, False, None,
        ).loss  # fmt: skip

    def linear_cross_entropy_with_grad(
        self,
        X: ArrayLike,
        W: ArrayLike,
        b: ArrayLike | None,
        target: ArrayLike,
        *,
        weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        x_scale: float = 1.0,
        rows: ArrayLike | None = None,
        with_dX: bool = False,
        out: Any = None,
    ) -> LinearCrossEntropyResult:
        """Loss and gradients of a linear layer with cross-entropy, in one pass over X.

        Parameters
        ----------
        X, W, b, x_scale
            As for `linear`.
        target, weight, sample_weight, ignore_index, label_smoothing, reduction
            As for `cross_entropy`, with targets (N,) or (N, C).
        rows : array_like of int, optional
            (n,) indices into X, target and sample_weight alike: the minibatch is gathered inside
            the kernel, without a copy of ``X[rows]``. Negative ones count from the end.
        with_dX : bool
            Whether the gradient with respect to X (or ``X[rows]``) is wanted.
        out : tuple or LinearCrossEntropyResult, optional
            ``(dW, db)`` or ``(dW, db, dX)`` or an earlier result: arrays to write to; entries
            may be None.

        Returns
        -------
        LinearCrossEntropyResult
            Named tuple ``loss, dW, db, dX, total_weight, n_correct``. dW has W's memory order.
            With ``reduction="sum"`` every field is additive over any split of the rows.

        Raises
        ------
        IndexError
            If a label is outside [0, C) or an index in `rows` outside X; names the row.
        TypeError, ValueError
            For dtypes and shapes that do not fit together. Nothing is written to `out` then.

        Notes
        -----
        With G = softmax(O) - Y per row: dW = x_scale * X^T G, db = sum of G, dX = x_scale * G W^T.
        Rows are taken in blocks (64 up to 64 classes, else 256), whose logits stay in cache.
        Workspace: W and dW once more (above 8 MiB of W: 3 MiB instead), 256 rows of X if they
        have to be converted, and a block's logits.

        Examples
        --------
        >>> import numpy as np
        >>> import softmax_ext as sx
        >>> X = np.array([[0, 255, 0, 255], [255, 0, 255, 0]], np.uint8)
        >>> r = sx.linear_cross_entropy_with_grad(
        ...     X, np.zeros((4, 2), np.float32), np.zeros(2, np.float32), [0, 1], x_scale=1 / 255)
        >>> round(r.loss, 4), r.n_correct
        (0.6931, 1)
        >>> r.dW[:2]
        array([[ 0.25, -0.25],
               [-0.25,  0.25]], dtype=float32)
        """
        return self._linear_cross_entropy(
            GRADIENT, X, W, b, target, weight, sample_weight, ignore_index, label_smoothing,
            reduction, x_scale, rows, with_dX, out,
        )  # fmt: skip

    def _linear_cross_entropy(
        self,
        job: int,
        X: ArrayLike,
        W: ArrayLike,
        b: ArrayLike | None,
        target: ArrayLike,
        weight: ArrayLike | None,
        sample_weight: ArrayLike | None,
        ignore_index: int,
        label_smoothing: float,
        reduction: str,
        x_scale: float,
        rows: ArrayLike | None,
        with_dX: bool,
        out: Any,
    ) -> LinearCrossEntropyResult:
        X, W, b = _layer(X, W, b)
        scale = _finite("x_scale", x_scale)
        _reduction(reduction)
        (n_all, d), c = X.shape, W.shape[1]
        if c == 0:
            raise ValueError(f"W: shape {W.shape} came, at least one class was wanted")
        t = _target_array(target, (n_all, c), (n_all,), W.dtype)
        hard = t.ndim == 1
        t3 = t.reshape(n_all, 1) if hard else t.reshape(n_all, 1, c)
        sample = None if sample_weight is None else _real("sample_weight", sample_weight, (n_all,))
        job_target = self._target(t3, hard, c, weight, sample, ignore_index, label_smoothing)
        picked = None if rows is None else _row_indices(rows, n_all)
        n = n_all if picked is None else len(picked)
        dW, db, dX = _gradients(job, out, (n, d, c), W, b, with_dX)
        total_weight, bad = job_target.scan(picked)
        if bad >= 0:
            raise _label_error(t3, bad, c, picked)
        if reduction == "mean":
            job_target.set_total(total_weight)

        # Results that overlap what is still to be read go through arrays of their own.
        inputs = [a for a in (X, W, b, t, sample) if a is not None]
        final = [dW, db, dX]
        if out is not None:
            dW, db, dX = (
                np.empty_like(g) if g is not None and any(np.may_share_memory(g, a) for a in inputs) else g
                for g in final
            )
        losses = np.zeros(n, W.dtype) if reduction == "none" else None
        if dX is not None:
            dX[...] = 0
        p = _kernels.LinearPass(self.isa, job, X, W, b, scale, picked, job_target, None, losses, dX)
        loss, n_correct = self._run_linear(p, job, n, W.size, dW, db)
        for g, f in zip((dW, db, dX), final):
            if g is not f:
                np.copyto(cast(Array, f), cast(Array, g))
        return LinearCrossEntropyResult(
            _reduced(loss, total_weight, reduction, losses, (n,)),
            cast(Array, final[0]), final[1], final[2], total_weight, n_correct,
        )  # fmt: skip

    @staticmethod
    def _run_linear(p: Any, job: int, n: int, work: int, dW: Array | None, db: Array | None) -> tuple[float, int]:
        """Run a pass in slices, each with its accumulator; the sums are added in order."""
        loss, n_correct = 0.0, 0
        if p.panelled and dW is not None:
            dW[...] = 0
        total = _kernels.Accumulator(p, dW, db is not None) if job == GRADIENT else None
        step = max(SLICE_ROWS, SLICE_PRODUCTS // max(1, work), -(-n // 64))
        step = -(-step // p.row_block) * p.row_block
        shared = p.panelled or n <= step  # one accumulator: slices run one after the other
        if p.panelled:
            step = p.row_block

        def run(i: int) -> tuple[Any, Any]:
            acc = total
            if job == GRADIENT and not shared:
                acc = _kernels.Accumulator(p, dW, db is not None)
            return p.run(i * step, min(n, (i + 1) * step), acc), acc

        def merge(result: tuple[tuple[float, int, int], Any]) -> None:
            nonlocal loss, n_correct
            (slice_loss, correct, bad), acc = result
            if bad >= 0:
                raise IndexError(f"target: the label at row {bad} changed during the call")
            loss += slice_loss
            n_correct += correct
            if acc is not total:
                total.add(acc)

        threaded = n * work >= THREADED_PRODUCTS and not (shared and job == GRADIENT)
        threads.run_slices(-(-n // step), run, merge, threaded=threaded)
        if job == GRADIENT:
            p.finish(total, dW, db)
        return loss, n_correct

    # ------------------------------------------------------------------ entropy and divergence

    def entropy(self, p: ArrayLike, axis: Any = -1) -> Any:
        """Entropy of distributions along an axis, in nats: -sum p log p.

        Parameters
        ----------
        p : array_like
            Probabilities; they need not sum to 1. 0 log 0 is 0; a negative number gives -inf.
        axis : int, tuple of int or None
            Axis or axes of the distributions.

        Returns
        -------
        ndarray or NumPy scalar

        Raises
        ------
        TypeError
            As for `softmax`.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> round(float(sx.entropy([0.5, 0.5])), 6)
        0.693147
        """
        a, half = self._prepare(p)
        axes = _axes(axis, a.ndim)
        with np.errstate(all="ignore"):
            terms = np.where(a > 0, -a * np.log(a), np.where(a == 0, 0, np.where(a < 0, -np.inf, a)))
        result = terms.sum(axis=axes, dtype=np.float64)
        return result.astype(np.float16 if half else a.dtype)[()]

    def kl_divergence(self, p: ArrayLike, q: ArrayLike, axis: Any = -1) -> Any:
        """Kullback-Leibler divergence D(p || q) along an axis, in nats: sum p log(p / q).

        Parameters
        ----------
        p, q : array_like
            Distributions, broadcast against each other. Where p is 0 the term is 0; where q is 0
            and p is not, it is inf.
        axis : int, tuple of int or None
            Axis or axes of the distributions.

        Returns
        -------
        ndarray or NumPy scalar

        Raises
        ------
        TypeError
            As for `softmax`.
        ValueError
            If the shapes do not broadcast.

        Notes
        -----
        The sum of `scipy.special.rel_entr`; `scipy.special.kl_div` adds q - p to each term.
        D(p || q) = cross-entropy(p, q) - entropy(p): minimising one over q minimises the other.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> float(sx.kl_divergence([0.5, 0.5], [0.5, 0.5]))
        0.0
        """
        a, half_a = self._prepare(p)
        b, half_b = self._prepare(q)
        a, b = np.broadcast_arrays(a, b)
        axes = _axes(axis, a.ndim)
        with np.errstate(all="ignore"):
            terms = np.where(
                (a > 0) & (b > 0),
                a * np.log(a / b),
                np.where(np.isnan(a) | np.isnan(b), np.nan, np.where((a == 0) & (b >= 0), 0, np.inf)),
            )
        result = terms.sum(axis=axes, dtype=np.float64)
        dtype = np.float16 if half_a and half_b else np.result_type(a, b)
        return result.astype(dtype)[()]


# ------------------------------------------------------------------------------------- helpers


def _to_half(a: Array) -> Array:
    with np.errstate(all="ignore"):
        return a.astype(np.float16)


def _finite(name: str, value: Any) -> float:
    v = float(value)
    if not math.isfinite(v):
        raise ValueError(f"{name}: {value} came, a finite number was wanted")
    return v


def _layer(X: ArrayLike, W: ArrayLike, b: ArrayLike | None) -> tuple[Array, Array, Array | None]:
    """X, W, b with W and b in the compute dtype."""
    x = _array("X", X)
    if x.dtype.kind != "u" or x.dtype.itemsize != 1:
        x = _floating("X", x)
    w = _floating("W", W)
    bias = None if b is None else _floating("b", b)
    if x.ndim != 2:
        raise ValueError(f"X: shape {x.shape} came, two axes (N, D) were wanted")
    if w.ndim != 2:
        raise ValueError(f"W: shape {w.shape} came, two axes (D, C) were wanted")
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"W: shape {w.shape} came, ({x.shape[1]}, C) was wanted for X of shape {x.shape}")
    if bias is not None and bias.shape != w.shape[1:]:
        raise ValueError(f"b: shape {bias.shape} came, ({w.shape[1]},) was wanted for W of shape {w.shape}")
    double = x.dtype == np.float64 or w.dtype == np.float64
    if bias is not None:
        double = double or bias.dtype == np.float64
    dtype = np.float64 if double else np.float32
    if w.dtype != dtype:
        w = w.astype(dtype)
    if bias is not None:
        bias = np.ascontiguousarray(bias, dtype)
    return x, w, bias


def _target_array(
    target: Any, logits_shape: tuple[int, ...], rows_shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Labels (integers, the rows' shape) or probabilities (compute dtype, the logits' shape)."""
    t = _array("target", target)
    if t.dtype.kind in "iu":
        if t.shape == logits_shape:
            raise ValueError(
                f"target: integers of the logits' shape {t.shape} came; give one-hot targets as "
                "floats, or labels by target.argmax(axis=1)"
            )
        if t.shape != rows_shape:
            raise ValueError(f"target: shape {t.shape} came, {rows_shape} was wanted for class indices")
        return t if t.dtype.isnative else t.astype(t.dtype.newbyteorder("="))
    if t.size == 0 and t.shape == rows_shape and not hasattr(target, "dtype"):
        return t.astype(np.int64)  # an empty list of labels has NumPy's default dtype
    if t.dtype.kind == "f":
        if t.shape != logits_shape:
            if t.shape == rows_shape:
                raise TypeError(
                    f"target: labels of dtype {t.dtype} came, integers were wanted (or probabilities "
                    f"of shape {logits_shape})"
                )
            raise ValueError(f"target: shape {t.shape} came, {logits_shape} was wanted for probabilities")
        return _floating("target", t.astype(dtype) if t.dtype != dtype and t.dtype.itemsize <= 8 else t)
    raise TypeError(f"target: dtype {t.dtype} came, integers or floating probabilities were wanted")


def _row_indices(rows: Any, n: int) -> NDArray[np.int64]:
    """Indices as a fresh int64 array within [0, n)."""
    r = _array("rows", rows)
    if r.dtype.kind not in "iu" and not (r.size == 0 and r.dtype.kind == "f"):
        hint = "; use numpy.flatnonzero(mask)" if r.dtype.kind == "b" else ""
        raise TypeError(f"rows: dtype {r.dtype} came, integers were wanted{hint}")
    if r.ndim != 1:
        raise ValueError(f"rows: shape {r.shape} came, one axis was wanted")
    # A copy: nobody can change it between this check and its use.
    checked = np.array(r, np.int64)
    bad = _kernels.wrap_rows(checked, n)
    if bad >= 0:
        raise IndexError(f"rows: index {r[bad]} at position {bad} is outside [{-n}, {n})")
    return checked


def _gradients(
    job: int, out: Any, sizes: tuple[int, int, int], W: Array, b: Array | None, with_dX: bool
) -> tuple[Array | None, Array | None, Array | None]:
    """The arrays the gradients go to, from `out` or new."""
    if job != GRADIENT:
        return None, None, None
    n, d, c = sizes
    given: list[Any] = [None, None, None]
    if isinstance(out, LinearCrossEntropyResult):
        given = [out.dW, out.db, out.dX if with_dX else None]
        if given[2] is not None and given[2].shape != (n, d):
            given[2] = None  # another minibatch size
    elif out is not None:
        if not isinstance(out, (tuple, list)) or len(out) not in (2, 3):
            raise TypeError("out: a tuple (dW, db) or (dW, db, dX) or an earlier result was wanted")
        given[: len(out)] = out
    wanted = ((d, c), (c,) if b is not None else None, (n, d) if with_dX else None)
    result: list[Array | None] = []
    for name, g, shape in zip(("dW", "db", "dX"), given, wanted):
        if shape is None:
            result.append(None)
        elif g is not None:
            result.append(_out(f"out ({name})", g, shape, W.dtype))
        elif name == "dW":
            order = "F" if W.flags.f_contiguous and not W.flags.c_contiguous else "C"
            result.append(np.empty(shape, W.dtype, order))
        else:
            result.append(np.empty(shape, W.dtype))
    used = [g for g in result if g is not None]
    for i, g in enumerate(used):
        if any(np.may_share_memory(g, h) for h in used[i + 1 :]):
            raise ValueError("out: arrays that overlap each other came, separate ones were wanted")
    return result[0], result[1], result[2]


def _label_error(t: Array, bad: int, c: int, picked: Array | None) -> IndexError:
    row = bad if picked is None else int(picked[bad])
    where = f"row {bad}" if picked is None else f"rows[{bad}] = {row}"
    return IndexError(f"target: label {t.flat[row]} at {where} is outside [0, {c})")


def _reduced(
    total: float, total_weight: float, reduction: str, losses: Array | None, shape: tuple[int, ...]
) -> Any:
    if reduction == "none":
        result = cast(Array, losses).reshape(shape)
        return result if shape else result[()]
    if reduction == "sum":
        return total
    return total / total_weight if total_weight != 0 else math.nan


def default_kernels() -> Kernels:
    """The handle behind the module's functions."""
    isa = os.environ.get("SOFTMAX_EXT_ISA")
    try:
        return Kernels(isa or None)
    except ValueError as error:
        raise ImportError(f"environment variable SOFTMAX_EXT_ISA: {error}") from None
