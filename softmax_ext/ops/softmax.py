"""Softmax, its logarithm, and the logarithm of a sum of exponentials."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import _kernels, threads
from ..arguments import (
    Array,
    as_axes,
    as_out,
    rows_first,
    same_place,
    three_axes,
)
from ..errors import ArgumentValueError
from ..handle import Handle
from .common import SLICE_LOGITS, apart, deliver, prepare, to_half

PROB, LOG, LSE = 1, 2, 3  # enum smx_mode


class SoftmaxFamily(Handle):
    """The softmax family over any axes."""

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
        a, half = prepare(x)
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
            result = to_half(result)
        return result if result.ndim else result[()]

    def _softmax(self, mode: int, x: ArrayLike, axis: Any, out: Array | None) -> Any:
        if out is None:
            quick = self._quick.softmax(mode, x, axis)
            if quick is not None:
                return quick
        a, half = prepare(x)
        axes = as_axes(axis, a.ndim)
        lead = tuple(n for i, n in enumerate(a.shape) if i not in axes)
        over = tuple(a.shape[i] for i in axes)
        if out is None or half:
            result = np.empty(a.shape, a.dtype)
        else:
            result = as_out("out", out, a.shape, a.dtype)
            in_place = _kernels.overlap(out, a) and out.flags.aligned and same_place(a, out)
            result = out if in_place else apart(out, a)
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
            result = to_half(result)
        if out is not None:
            return deliver(result, out)
        return result if result.ndim else result[()]

    def _run_softmax(
        self, mode: int, walk: Any, x: Array, out: Array | None, lse: Array | None
    ) -> None:
        shape, strides = walk
        job = _kernels.Softmax(self.isa, mode, shape, x, strides[0], out, strides[-1], lse)
        job.run(max(1, SLICE_LOGITS // shape[2]), threads.get_num_threads())
