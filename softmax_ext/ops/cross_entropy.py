"""Cross-entropy of given logits."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from .. import _kernels, threads
from ..arguments import (
    Array,
    as_array,
    as_floating,
    as_out,
    as_reals,
    as_target,
    check_reduction,
)
from ..errors import ArgumentValueError
from ..handle import Handle
from ..problem import (
    drivers_target,
    label_error,
    refuse_bad,
)
from ..results import CrossEntropyResult
from .common import SLICE_LOGITS, apart, deliver


class CrossEntropy(Handle):
    """Cross-entropy of given logits, and its gradient."""

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
                g = apart(out, x, *job_target.arrays)
        g3 = None if g is None else classes_last(g)
        denominator = total_weight if reduction == "mean" else 1
        job = _kernels.CrossEntropy(self.isa, classes_last(x), job_target, denominator, g3, losses)
        loss, bad = job.run(max(1, SLICE_LOGITS // c), threads.get_num_threads())
        refuse_bad(None, x, bad)
        return CrossEntropyResult(
            reduced(loss, total_weight, reduction, losses, rows_shape),
            cast(Array, g if out is None else deliver(cast(Array, g), out)),
        )


def reduced(
    total: float, total_weight: float, reduction: str, losses: Array | None, shape: tuple[int, ...]
) -> Any:
    if reduction == "none":
        result = cast(Array, losses).reshape(shape)
        return result if shape else result[()]
    if reduction == "sum":
        return total
    return total / total_weight if total_weight != 0 else math.nan
