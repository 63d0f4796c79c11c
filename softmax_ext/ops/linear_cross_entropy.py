"""Cross-entropy of the linear layer, and its derivatives, in one pass over X."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from .. import threads
from ..arguments import (
    Array,
    as_layer,
)
from ..errors import ArgumentValueError
from ..handle import Handle
from ..problem import (
    GRADIENT,
    LOSS,
    Problem,
)
from ..results import HessianProductResult, LinearCrossEntropyResult


class LinearCrossEntropy(Handle):
    """Cross-entropy of the linear layer, its gradients, and products with its Hessian."""

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
        time; with `out`, nothing else is allocated. Where products go by tiles (``amx``) blocks
        have 256 rows, and there are besides: up to 1.5 MiB a thread, and W (or a panel) once and a
        half more, of bytes up to twice. For a sparse X: 4 MiB of G; W and dW once more unless they
        are C-ordered and a row fills a vector; dW once more above 65536 rows.

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
