"""The public kernels: what each call wants of arguments.py, threads.py and the drivers.

Nothing is written before every argument has been checked. The arithmetic is in the drivers
(`_kernels.pyx`) and leaves (`src/`).
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _kernels, threads
from .arguments import (
    Array,
    Csr,
    as_array,
    as_axes,
    as_floating,
    as_layer,
    as_out,
    as_reals,
    as_target,
    check_reduction,
    finite,
    rows_first,
    same_place,
    three_axes,
)
from .errors import ArgumentValueError
from .problem import GRADIENT, LOSS, Problem, check_rows, drivers_target, label_error, refuse_bad
from .results import CrossEntropyResult, HessianProductResult, LinearCrossEntropyResult

PROB, LOG, LSE = 1, 2, 3  # enum smx_mode
ENTROPY, DIVERGENCE, ENTR, REL_ENTR, KL_DIV = range(5)  # enum smx_term
LINEAR, PROBA, PREDICT = range(3)  # enum Purpose

# A slice of rows holds about so many logits, some 20 microseconds of work; more than one of them
# are worth a second thread.
SLICE_LOGITS = 1 << 15


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
        self._quick = _kernels.Quick(isa, LinearCrossEntropyResult)

    def __reduce__(self) -> tuple[type[Kernels], tuple[str]]:
        return type(self), (self.isa,)

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
        0.6931471805598903
        """
        if not keepdims:
            quick = self._quick.softmax(LSE, x, axis)
            if quick is not None:
                return quick
        a, half = self._prepare(x)
        axes = as_axes(axis, a.ndim)
        kept = tuple(1 if i in axes else n for i, n in enumerate(a.shape))
        shape = kept if keepdims else tuple(n for i, n in enumerate(a.shape) if i not in axes)
        if a.size == 0:
            result = np.full(shape, -np.inf, a.dtype)
        elif math.prod(a.shape[i] for i in axes) == 1:
            result = a.reshape(shape).copy()  # the same bits, -0.0 included
        else:
            walk = three_axes([a], axes)
            if walk is None:
                a = rows_first(a, axes)
                walk = three_axes([a], (1,))
            lse = np.empty(math.prod(shape), a.dtype)
            self._run_softmax(LSE, walk, a, None, lse)
            result = lse.reshape(shape)
        if half:
            result = _to_half(result)
        return result if result.ndim else result[()]

    def _prepare(self, x: ArrayLike) -> tuple[Array, bool]:
        a = as_floating("x", x, half=True)
        half = a.dtype.itemsize == 2
        return (a.astype(np.float32) if half else a), half

    def _softmax(self, mode: int, x: ArrayLike, axis: Any, out: Array | None) -> Any:
        if out is None:
            quick = self._quick.softmax(mode, x, axis)
            if quick is not None:
                return quick
        a, half = self._prepare(x)
        axes = as_axes(axis, a.ndim)
        lead = tuple(n for i, n in enumerate(a.shape) if i not in axes)
        over = tuple(a.shape[i] for i in axes)
        if out is None or half:
            result = np.empty(a.shape, a.dtype)
        else:
            result = as_out("out", out, a.shape, a.dtype)
            in_place = _kernels.overlap(out, a) and out.flags.aligned and same_place(a, out)
            result = out if in_place else _apart(out, a)
        if out is not None and half:
            as_out("out", out, a.shape, np.dtype(np.float16))
        if 0 in over:
            raise ArgumentValueError(
                "zero-size array to reduction operation maximum which has no identity"
            )
        if a.size:
            walk = three_axes([a, result], axes)
            if walk is not None:
                self._run_softmax(mode, walk, a, result, None)
            else:
                rows = rows_first(a, axes)
                self._run_softmax(mode, three_axes([rows, rows], (1,)), rows, rows, None)
                np.copyto(
                    result, np.moveaxis(rows.reshape(lead + over), range(len(lead), a.ndim), axes)
                )
        if half:
            result = _to_half(result)
        if out is not None:
            return _deliver(result, out)
        return result if result.ndim else result[()]

    def _run_softmax(
        self, mode: int, walk: Any, x: Array, out: Array | None, lse: Array | None
    ) -> None:
        shape, strides = walk
        job = _kernels.Softmax(self.isa, mode, shape, x, strides[0], out, strides[-1], lse)
        step = max(1, SLICE_LOGITS // shape[2])
        if strides[0][1] == x.itemsize:  # rows side by side: as many as the driver takes at once
            line = 128 // x.itemsize
            step = -(-step // line) * line
        job.run(step, threads.get_num_threads())

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
        (2006), section 4.3.4. 0 times infinity is 0: a probability or weight of 0 counts nothing
        beside a logit of -inf, nor does an infinite weight where there is nothing to weigh. One
        that counts makes the loss of its row infinite, and the mean nan, which divides by it.

        Examples
        --------
        >>> import numpy as np
        >>> import softmax_ext as sx
        >>> round(sx.cross_entropy(np.zeros((4, 10)), [1, 2, 3, 4]), 6)
        2.302585
        """
        return self._cross_entropy(
            logits,
            target,
            weight,
            sample_weight,
            ignore_index,
            label_smoothing,
            reduction,
            False,
            None,
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

        Parameters
        ----------
        logits, target, weight, sample_weight, ignore_index, label_smoothing, reduction
            As for `cross_entropy`.
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
            logits,
            target,
            weight,
            sample_weight,
            ignore_index,
            label_smoothing,
            reduction,
            True,
            out,
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
        if weight is None and sample_weight is None and out is None:
            quick = self._quick.cross_entropy(
                logits, target, reduction, ignore_index, label_smoothing, with_grad
            )
            if quick is not None:
                return CrossEntropyResult(*quick)
        x = as_floating("logits", logits)
        if x.ndim == 0:
            raise ArgumentValueError("logits: a scalar came, at least one axis was wanted")
        axis = 0 if x.ndim == 1 else 1
        c = x.shape[axis]
        if c == 0:
            raise ArgumentValueError(f"logits: shape {x.shape} came, at least one class was wanted")
        rows_shape = x.shape[:axis] + x.shape[axis + 1 :]
        check_reduction(reduction)
        if out is not None:
            out = as_out("out", out, x.shape, x.dtype)

        # The drivers take (A, B, C): rows (A, B), classes last.
        if x.ndim <= 2:
            a, b = 1, math.prod(rows_shape)
        else:
            a, b = x.shape[0], math.prod(x.shape[2:])

        def classes_last(v: Array) -> Array:
            return v.reshape(1, b, c) if v.ndim <= 2 else v.reshape(a, c, b).transpose(0, 2, 1)

        t = as_target(target, x.shape, rows_shape)
        hard = t.dtype.kind in "iu"
        t3 = t.reshape(a, b) if hard else classes_last(t)
        sample = None
        if sample_weight is not None:
            s = as_array("sample_weight", sample_weight)
            if s.shape != rows_shape and s.ndim == 1 and s.shape == x.shape[:1] and x.ndim > 2:
                s = np.broadcast_to(s.reshape((-1,) + (1,) * (x.ndim - 2)), rows_shape)
            sample = as_reals("sample_weight", s, rows_shape).reshape(a, b)
        job_target = drivers_target(t3, hard, c, weight, sample, ignore_index, label_smoothing)
        total_weight, bad = job_target.scan()
        if bad >= 0:
            raise label_error(t3, bad, c)
        losses = np.zeros(a * b, x.dtype) if reduction == "none" else None
        g = None
        if with_grad:
            # Of more than three axes there is a view with classes last only if contiguous.
            if out is None or (x.ndim > 3 and not out.flags.c_contiguous):
                g = np.empty(x.shape, x.dtype)
            else:
                g = _apart(out, x, *job_target.arrays)
        g3 = None if g is None else classes_last(g)
        denominator = total_weight if reduction == "mean" else 1
        job = _kernels.CrossEntropy(self.isa, classes_last(x), job_target, denominator, g3, losses)
        loss, bad = job.run(max(1, SLICE_LOGITS // c), threads.get_num_threads())
        refuse_bad(None, x, bad)
        return CrossEntropyResult(
            _reduced(loss, total_weight, reduction, losses, rows_shape),
            cast(Array, g if out is None else _deliver(cast(Array, g), out)),
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
            (N, D) float32 or float64; or uint8, float16 or bfloat16 (of the package ml_dtypes),
            which are taken as they are, without a floating copy, and computed with in W's dtype;
            other integers become float64. Any memory layout. Or a sparse matrix in CSR form:
            anything with ``indptr``, ``indices``, ``data`` and ``shape``, such as
            `scipy.sparse.csr_array`.
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
            For dtypes and shapes that do not fit together; for a sparse matrix in another form
            than CSR, or whose indptr or indices lead outside it (names the row).

        Notes
        -----
        Of a sparse X only the entries that are stored take part: a zero that is not stored is 0
        also beside an infinite weight. Columns may come in any order; entries at the same place
        add up.

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
        self,
        job: int,
        X: ArrayLike,
        W: ArrayLike,
        b: ArrayLike | None,
        x_scale: float,
        out: Array | None,
    ) -> Array:
        if out is None:
            quick = self._quick.forward(job, X, W, b, x_scale)
            if quick is not None:
                return quick
        x, w, bias = as_layer(X, W, b)
        scale = finite("x_scale", x_scale)
        n, c = x.shape[0], w.shape[1]
        result: Array
        if job == PREDICT:
            if c == 0:
                raise ArgumentValueError(f"W: shape {w.shape} came, at least one class was wanted")
            result = np.empty(n, np.intp)
        elif out is None:
            result = np.empty((n, c), w.dtype)
        else:
            result = _apart(as_out("out", out, (n, c), w.dtype), *_arrays(x, w, bias))
        if n and c:
            driver = _kernels.SparsePass if isinstance(x, Csr) else _kernels.LinearPass
            p = driver(self.isa, job, _kernels.Examples(x, scale, None), w, bias, None, 1)
            if out is not None and isinstance(x, Csr):
                check_rows(p, x)
            _, _, *bad = p.run(threads.get_num_threads(), result, None)
            refuse_bad(p, x, *bad)
        return result if out is None else _deliver(result, out)

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
        >>> loss = sx.linear_cross_entropy(np.ones((2, 3)), np.zeros((3, 10)), None, [0, 1])
        >>> round(loss, 6)
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
            Whether the gradient with respect to X (or ``X[rows]``) is wanted; of a dense X only.
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
            For dtypes and shapes that do not fit together, for `with_dX` with a sparse X, and for
            rows of it that indptr or indices lead outside (those that are used are looked at).
            Nothing is written to `out` then.

        Notes
        -----
        With G = softmax(O) - Y per row: dW = x_scale * X^T G, db = sum of G, dX = x_scale * G W^T.
        Rows are taken in blocks (64 up to 64 classes, else 128 or 256), whose logits stay in cache.
        Workspace: a block's logits, its rows of X if they have to be converted, W once more and dW
        once (twice up to 1 MiB), each rounded up by at most a half; above 8 MiB of W three panels
        of 512 KiB a thread instead, and with dX up to 8 times a block's rows. With AVX2 and more
        than 64 classes a C-ordered W stays where it is, unless dX or an x_scale is wanted. For
        D x C = 784 x 10: 0.2 MiB; 768 x 1000: 7.7 MiB (float64: 15.3), with AVX2 4.7 (9.3);
        768 x 50257 with dX: 62 MiB. Another thread adds what it works on: a block, and dW once
        more. Pieces up to 16 MiB are kept for the next call and never shared by calls at the same
        time; with `out`, nothing else is allocated. For a sparse X: 4 MiB of G; W and dW once more
        unless they are C-ordered and a row fills a vector; dW once more above 65536 rows.

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
        if rows is not None and not with_dX:
            examples = self._quick.examples(
                X, W, target, weight, sample_weight, ignore_index, label_smoothing, x_scale
            )
            if examples is not None:
                quick = self._quick.gradient(
                    examples, W, b, reduction, rows, out, threads.get_num_threads()
                )
                if quick is not None:
                    return quick
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
        problem, w, bias = self._problem(
            X, W, b, target, weight, sample_weight, ignore_index, label_smoothing, x_scale
        )
        return problem.run(job, w, bias, rows=rows, reduction=reduction, with_dX=with_dX, out=out)

    def linear_cross_entropy_hvp(
        self,
        X: ArrayLike,
        W: ArrayLike,
        b: ArrayLike | None,
        target: ArrayLike,
        V: ArrayLike,
        v: ArrayLike | None = None,
        *,
        weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        x_scale: float = 1.0,
        rows: ArrayLike | None = None,
        out: Any = None,
    ) -> HessianProductResult:
        """Hessian of the loss of a linear layer at (W, b), times a direction (V, v).

        Parameters
        ----------
        X, W, b, x_scale
            As for `linear`.
        target, weight, sample_weight, ignore_index, label_smoothing, reduction, rows
            As for `linear_cross_entropy_with_grad`. Of a target counts only how much of it there
            is: whether the row is ignored, and what its weighted probabilities add up to.
        V : array_like
            (D, C) direction in which W changes, in C or Fortran order.
        v : array_like, optional
            (C,) direction in which b changes; zeros by default.
        out : tuple or HessianProductResult, optional
            ``(dW, db)`` or an earlier result: arrays to write to; entries may be None.

        Returns
        -------
        HessianProductResult
            Named tuple ``dW, db`` of float64 if X, W, b, V or v is, else float32. dW has W's memory
            order; db is None without `b`. With ``reduction="sum"`` both are additive over any split
            of the rows.

        Raises
        ------
        IndexError, TypeError, ValueError
            As `linear_cross_entropy_with_grad`, and for a `V` or `v` of another shape than W or b.
            Nothing is written to `out` then.

        Notes
        -----
        With u = x_scale * x V + v per row, p = softmax(o) and K = diag(p) - pp':
        dW = x_scale * sum of x' (s K u), db = sum of s K u, where s is the sum of the row's
        weighted and smoothed target, 1 for plain labels (and divided by the whole weight with
        "mean"). K u does not see a number that is added to all of u, so that of the most likely
        class is taken away first: where a row is nearly sure, its small part keeps its digits.
        The Hessian is positive semidefinite where no weight is negative; see C. Bishop, "Pattern
        Recognition and Machine Learning" (2006), section 4.3.4.
        One pass over X, as for the gradient, with W and V side by side: 1.3 to 1.7 times its time.
        Workspace as for a gradient of twice the classes, and W and V once more.

        Examples
        --------
        >>> import numpy as np
        >>> import softmax_ext as sx
        >>> X, V = np.eye(2), [[4.0, 0.0], [0.0, 4.0]]
        >>> sx.linear_cross_entropy_hvp(X, np.zeros((2, 2)), None, [0, 1], V).dW
        array([[ 0.5, -0.5],
               [-0.5,  0.5]])
        """
        problem, w, bias = self._problem(
            X, W, b, target, weight, sample_weight, ignore_index, label_smoothing, x_scale
        )
        return problem.hessian_product(w, bias, V, v, rows=rows, reduction=reduction, out=out)

    def _problem(
        self,
        X: ArrayLike,
        W: ArrayLike,
        b: ArrayLike | None,
        target: ArrayLike,
        weight: ArrayLike | None,
        sample_weight: ArrayLike | None,
        ignore_index: int,
        label_smoothing: float,
        x_scale: float,
    ) -> tuple[Problem, Array, Array | None]:
        """The problem of one call, and W and b in the compute dtype."""
        x, w, bias = as_layer(X, W, b)
        if w.shape[1] == 0:
            raise ArgumentValueError(f"W: shape {w.shape} came, at least one class was wanted")
        problem = Problem(
            self, x, target, w.shape[1], weight=weight, sample_weight=sample_weight,
            ignore_index=ignore_index, label_smoothing=label_smoothing, x_scale=x_scale,
        )  # fmt: skip
        return problem, w, bias

    # ------------------------------------------------------------------ entropy and divergence

    def entropy(self, p: ArrayLike, axis: Any = -1) -> Any:
        """Entropy of distributions along an axis, in nats: -sum p log p.

        Parameters
        ----------
        p : array_like
            Probabilities; they need not sum to 1. 0 log 0 is 0; a negative number gives nan.
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
        quick = self._quick.divergence(ENTROPY, p, p, axis)
        if quick is not None:
            return quick
        a, half = self._prepare(p)
        return self._divergence(ENTROPY, [a], axis, half)

    def kl_divergence(self, p: ArrayLike, q: ArrayLike, axis: Any = -1) -> Any:
        """Kullback-Leibler divergence D(p || q) along an axis, in nats: sum p log(p / q).

        Parameters
        ----------
        p, q : array_like
            Distributions, broadcast against each other. Where p is 0 the term is 0; where q is 0
            and p is not, it is inf; a negative number gives nan.
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
        quick = self._quick.divergence(DIVERGENCE, p, q, axis)
        if quick is not None:
            return quick
        a, half_a = self._prepare(p)
        b, half_b = self._prepare(q)
        dtype = np.result_type(a, b)
        try:
            both = np.broadcast_arrays(a.astype(dtype, copy=False), b.astype(dtype, copy=False))
        except ValueError:
            raise ArgumentValueError(
                f"q: shape {b.shape} came, one that broadcasts with p's {a.shape} was wanted"
            ) from None
        return self._divergence(DIVERGENCE, list(both), axis, half_a and half_b)

    def _divergence(self, what: int, arrays: list[Array], axis: Any, half: bool) -> Any:
        """The sums of terms of one array, or of two of one shape and dtype."""
        first = arrays[0]
        axes = as_axes(axis, first.ndim)
        shape = tuple(n for i, n in enumerate(first.shape) if i not in axes)
        result = np.zeros(shape, first.dtype)
        if first.size:
            walk = three_axes(arrays, axes)
            if walk is None:
                arrays = [rows_first(a, axes) for a in arrays]
                walk = three_axes(arrays, (1,))
            walked, strides = cast(Any, walk)
            job = _kernels.Divergence(
                self.isa, what, walked, arrays[0], strides[0], arrays[-1], strides[-1],
                result.reshape(-1),
            )  # fmt: skip
            job.run(max(1, SLICE_LOGITS // walked[2]), threads.get_num_threads())
        if half:
            result = _to_half(result)
        return result if result.ndim else result[()]

    def _terms(self, what: int, arrays: list[Array], out: Array) -> None:
        """Terms one by one, of dense arrays of one dtype and layout, to another such array."""
        job = _kernels.Terms(self.isa, what, arrays[0], arrays[-1], out)
        job.run(SLICE_LOGITS, threads.get_num_threads())


# ------------------------------------------------------------------------------------- helpers


def _apart(out: Array, *inputs: Array) -> Array:
    """`out` if the drivers can write to it while they read the inputs, else a new array."""
    return out if out.flags.aligned and not _kernels.overlap(out, *inputs) else np.empty_like(out)


def _deliver(result: Array, out: Array) -> Array:
    """`out` with the result, which may be there already."""
    if result is not out:
        np.copyto(out, result)
    return out


def _arrays(x: Array | Csr, *others: Array | None) -> list[Array]:
    """The arrays among arguments, those of a sparse X one by one."""
    first = list(x[:3]) if isinstance(x, Csr) else [x]
    return first + [a for a in others if a is not None]


def _to_half(a: Array) -> Array:
    with np.errstate(all="ignore"):
        return a.astype(np.float16)


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
        message = f"environment variable SOFTMAX_EXT_ISA: {error}"
        # The command line, which shows no tracebacks, imports this before its own first line; of
        # `python -m softmax_ext` Python knows no more than the "-m" at that time.
        if os.path.basename((sys.argv or [""])[0]) in ("softmax-ext", "-m"):
            sys.exit(f"softmax-ext: error: {message}")
        raise ImportError(message) from None
