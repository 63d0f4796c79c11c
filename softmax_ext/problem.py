"""Rows of X with what they should be: checked once, asked often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike

from . import _kernels, threads
from .arguments import (
    Array,
    Csr,
    as_integer,
    as_layer,
    as_matrix,
    as_reals,
    as_rows,
    as_target,
    as_weights,
    beside_direction,
    check_reduction,
    finite,
    gradient_arrays,
    number_between,
)
from .errors import ArgumentValueError
from .handle import Handle
from .results import HessianProductResult, LinearCrossEntropyResult

LOSS, GRADIENT, HESSIAN = 3, 4, 5  # enum Purpose

# Every so many rows of a sparse X, and never more than 16 times, the sum of gradients starts anew,
# for it would lose float32's small ones.
MOST_ROWS = 1 << 16
# Strips of a sparse X: some 100 microseconds of work.
STRIP_PRODUCTS = 1 << 22
STRIP_ROWS, STRIP_MOST_ROWS = 256, 4096
# From so much work on it is worth several threads.
THREADED_PRODUCTS = 1 << 22


class Evaluation(NamedTuple):
    """What one pass over X tells of some weights."""

    loss: Any
    n_correct: int
    #: The sum of the rows' weights, which a mean is divided by.
    total_weight: float


class Problem:
    """A linear layer's cross-entropy over some rows, as a function of the layer's weights.

    What does not change from one question to the next is checked, and brought into the form that
    the drivers take, when the problem is made. Labels are checked in the first question about all
    rows, or by `check`; until then the rows of each minibatch are. The drivers look again at the
    label that they have loaded only. The arrays are not copied: do not change them meanwhile.

    Parameters
    ----------
    kernels : Kernels
        Which instruction set to compute with.
    X : array_like or CSR, shape (N, D)
        As for `softmax_ext.linear`.
    target : array_like, shape (N,) or (N, C)
        Labels or probabilities, as for `softmax_ext.linear_cross_entropy`.
    n_classes : int
        C, at least 1.
    weight, sample_weight, ignore_index, label_smoothing, x_scale
        As for `softmax_ext.linear_cross_entropy`.
    name : str, optional
        What errors call the target.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> from softmax_ext.problem import Problem
    >>> problem = Problem(sx.kernels, np.eye(3), [0, 1, 2], 3)
    >>> W = np.zeros((3, 3))
    >>> for rows in (np.array([0, 1]), np.array([1, 2])):
    ...     W -= problem.value_and_gradient(W, None, rows=rows).dW
    >>> loss, n_correct, _ = problem.evaluate(W, None)
    >>> round(loss, 3), n_correct
    (0.726, 3)
    """

    def __init__(
        self,
        kernels: Handle,
        X: Any,
        target: Any,
        n_classes: int,
        *,
        weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        x_scale: float = 1.0,
        name: str = "target",
    ) -> None:
        self.X = as_matrix(X)
        if len(self.X.shape) != 2:
            raise ArgumentValueError(f"X: shape {self.X.shape} came, two axes (N, D) were wanted")
        self.n_rows: int = self.X.shape[0]
        self.n_classes = n_classes
        self._kernels = kernels
        self._name = name
        t = as_target(target, (self.n_rows, n_classes), (self.n_rows,), name)
        hard = t.ndim == 1
        # The drivers' rows have two axes.
        self._target = t.reshape(-1, 1) if hard else t.reshape(-1, 1, n_classes)
        sample = None
        if sample_weight is not None:
            sample = as_reals("sample_weight", sample_weight, (self.n_rows,)).reshape(-1, 1)
        self._examples = _kernels.Examples(
            self.X,
            finite("x_scale", x_scale),
            drivers_target(
                self._target, hard, n_classes, weight, sample, ignore_index, label_smoothing
            ),
        )
        self._total_weight: float | None = None

    def check(self) -> float:
        """Check all labels; return the sum of the rows' weights.

        Raises
        ------
        IndexError
            If a label is outside [0, C) and not `ignore_index`; names the row.
        """
        if self._total_weight is None:
            self._total_weight = self._weigh(None)
        return self._total_weight

    def evaluate(self, W: ArrayLike, b: ArrayLike | None, *, reduction: str = "mean") -> Evaluation:
        """Return ``loss, n_correct, total_weight`` in one pass over X, without gradients."""
        result = self.run(LOSS, *as_layer(self.X, W, b)[1:], reduction=reduction)
        return Evaluation(result.loss, result.n_correct, result.total_weight)

    def value_and_gradient(
        self,
        W: ArrayLike,
        b: ArrayLike | None,
        *,
        rows: ArrayLike | None = None,
        reduction: str = "mean",
        with_dX: bool = False,
        out: Any = None,
    ) -> LinearCrossEntropyResult:
        """Do what `softmax_ext.linear_cross_entropy_with_grad` does."""
        if rows is not None and not with_dX:
            quick = self._kernels._quick.gradient(
                self._examples, W, b, reduction, rows, out, threads.get_num_threads()
            )
            if quick is not None:
                return quick
        w, bias = as_layer(self.X, W, b)[1:]
        return self.run(GRADIENT, w, bias, rows=rows, reduction=reduction, with_dX=with_dX, out=out)

    def hessian_product(
        self,
        W: ArrayLike,
        b: ArrayLike | None,
        V: ArrayLike,
        v: ArrayLike | None = None,
        *,
        rows: ArrayLike | None = None,
        reduction: str = "mean",
        out: Any = None,
    ) -> HessianProductResult:
        """Do what `softmax_ext.linear_cross_entropy_hvp` does."""
        w, bias, wide, wide_b = beside_direction(*as_layer(self.X, W, b)[1:], V, v)
        result = self.run(HESSIAN, w, bias, (wide, wide_b), rows=rows, reduction=reduction, out=out)
        return HessianProductResult(result.dW, result.db)

    def values_and_gradients(
        self,
        layers: Sequence[tuple[ArrayLike, ArrayLike | None]],
        *,
        rows: ArrayLike | None = None,
        reduction: str = "mean",
    ) -> list[LinearCrossEntropyResult]:
        """Return what `value_and_gradient` would of each (W, b), in one pass over X.

        All have a b or none has. Where the layers together have other blocks of rows than one
        alone (more than 64 classes, or much work), results differ by the rounding of sums. The
        gradients are views of one array.
        """
        if not layers:
            return []
        if check_reduction(reduction) == "none":
            raise ArgumentValueError("reduction: 'none' came, 'mean' or 'sum' was wanted")
        checked = [as_layer(self.X, W, b)[1:] for W, b in layers]
        for w, _ in checked:
            self._check_classes(w)
        c = self.n_classes
        biases = [bias for _, bias in checked if bias is not None]
        if 0 < len(biases) < len(layers):
            raise ArgumentValueError("layers: some without b came, all or none were wanted")
        W = np.hstack([w for w, _ in checked])
        b = np.hstack(biases).astype(W.dtype, copy=False) if biases else None
        picked = None if rows is None else as_rows(rows, self.n_rows)
        total = self.check() if picked is None else self._weigh(picked)
        dW, db = np.empty_like(W), None if b is None else np.empty_like(b)
        p = self._pass(GRADIENT, W, b, picked, total if reduction == "mean" else 1)
        losses, n_correct = self._run_gradient(p, None, dW, db, None, out_given=False)
        return [
            LinearCrossEntropyResult(
                _reduced(loss, total, reduction),
                dW[:, i * c : (i + 1) * c],
                None if db is None else db[i * c : (i + 1) * c],
                None,
                total,
                n_correct[i],
            )
            for i, loss in enumerate(losses)
        ]

    def run(
        self,
        job: int,
        w: Array,
        bias: Array | None,
        wide: tuple[Array, Array | None] | None = None,
        *,
        rows: ArrayLike | None = None,
        reduction: str = "mean",
        with_dX: bool = False,
        out: Any = None,
    ) -> LinearCrossEntropyResult:
        """Do a LOSS, a GRADIENT or a HESSIAN for w and bias that `as_layer` has checked.

        wide: for a HESSIAN, whose product goes to dW and db, what `beside_direction` says.
        """
        check_reduction(reduction)
        self._check_classes(w)
        picked = None if rows is None else as_rows(rows, self.n_rows)
        n = self.n_rows if picked is None else len(picked)
        dW: Array | None
        dW, db, dX = None, None, None
        if with_dX and isinstance(self.X, Csr):
            raise ArgumentValueError(
                "with_dX: True came with a sparse X, whose gradient would be dense; use X.toarray()"
            )
        if job >= GRADIENT:
            dW, db, dX = gradient_arrays(out, (n, *w.shape), w, bias, with_dX)
        total_weight = self.check() if picked is None else self._weigh(picked)

        read = (w, bias) if wide is None else wide
        final = [dW, db, dX]
        if out is not None:
            dW, db, dX = (None if g is None else self._apart(g, *read) for g in final)
        losses = np.zeros(n, w.dtype) if reduction == "none" else None
        if dX is not None:
            dX[...] = 0
        p = self._pass(job, *read, picked, total_weight if reduction == "mean" else 1)
        if job == LOSS:
            (loss,), (n_correct,), *bad_at = p.run(threads.get_num_threads(), None, losses)
            refuse_bad(p, self.X, *bad_at, name=self._name)
        else:
            if picked is not None and not isinstance(self.X, Csr):
                p.next_rows = _kernels.following(rows, self.n_rows)
            (loss,), (n_correct,) = self._run_gradient(
                p, losses, cast(Array, dW), db, dX, out_given=out is not None
            )
        for g, f in zip((dW, db, dX), final, strict=True):
            if g is not f:
                np.copyto(cast(Array, f), cast(Array, g))
        return LinearCrossEntropyResult(
            losses if losses is not None else _reduced(loss, total_weight, reduction),
            cast(Array, final[0]), final[1], final[2], total_weight, n_correct,
        )  # fmt: skip

    def _check_classes(self, w: Array) -> None:
        if w.shape[1] != self.n_classes:
            raise ArgumentValueError(
                f"W: shape {w.shape} came, {(w.shape[0], self.n_classes)} was wanted"
            )

    def _weigh(self, picked: Array | None) -> float:
        """The sum of some rows' weights, whose labels are checked."""
        total_weight, bad = self._examples.weigh(picked)
        if bad >= 0:
            raise label_error(self._target, bad, self.n_classes, picked, self._name)
        return total_weight

    def _apart(self, out: Array, *parameters: Array | None) -> Array:
        """`out` if the drivers can write to it while they read, else a new array."""
        read = [a for a in parameters if a is not None]
        if out.flags.aligned and not (self._examples.meet(out) or _kernels.overlap(out, *read)):
            return out
        return np.empty_like(out)

    def _pass(
        self, job: int, w: Array, bias: Array | None, picked: Array | None, denominator: float
    ) -> Any:
        """A pass over X, by the driver for its kind."""
        driver = _kernels.SparsePass if isinstance(self.X, Csr) else _kernels.LinearPass
        return driver(self._kernels.isa, job, self._examples, w, bias, picked, denominator)

    def _run_gradient(
        self,
        p: Any,
        losses: Array | None,
        dW: Array,
        db: Array | None,
        dX: Array | None,
        *,
        out_given: bool,
    ) -> tuple[list[float], list[int]]:
        """The losses and numbers of right rows of each group; gradients go to dW, db and dX."""
        n_threads = threads.get_num_threads()
        if not isinstance(self.X, Csr):
            loss, n_correct, *bad = p.run_gradient(n_threads, losses, dW, db, dX)
        else:
            # By strips of rows, then by ranges of columns.
            work = p.work()
            if p.n * work < THREADED_PRODUCTS:
                n_threads = 1
            strip = min(max(STRIP_PRODUCTS // max(1, work), STRIP_ROWS), STRIP_MOST_ROWS)
            strip = -(-strip // p.row_block) * p.row_block
            # For every range all entries are gone over: no more of them than work at a time.
            bounds = _column_ranges(self.X, min(n_threads, threads.CPUS))
            g = _kernels.SparseGradient(p, losses, dW, db, strip, max(MOST_ROWS, p.n // 16), bounds)
            if out_given and g.in_parts:  # one part sees all rows before it writes
                check_rows(p, self.X)
            loss, n_correct, *bad = g.run(n_threads)
        refuse_bad(p, self.X, *bad, name=self._name)
        return loss, n_correct


def drivers_target(
    t: Array,
    hard: bool,
    c: int,
    weight: ArrayLike | None,
    sample: Array | None,
    ignore_index: int,
    label_smoothing: float,
) -> _kernels.Target:
    """The drivers' form of a target and its options."""
    ignore = as_integer("ignore_index", ignore_index)
    if not hard and ignore >= 0:
        raise ArgumentValueError(
            f"ignore_index: {ignore} came with probabilities as target, which have no index"
        )
    w = None if weight is None else as_weights("weight", weight, (c,))
    return _kernels.Target(
        t, hard, c, w, sample, ignore, number_between("label_smoothing", label_smoothing, 0, 1)
    )


def label_error(
    t: Array, bad: int, c: int, picked: Array | None = None, name: str = "target"
) -> IndexError:
    """What to raise for the label at a position of the rows that were picked."""
    row = bad if picked is None else int(picked[bad])
    where = f"row {bad}" if picked is None else f"rows[{bad}] = {row}"
    return IndexError(f"{name}: label {t.flat[row]} at {where} is outside [0, {c})")


def refuse_bad(p: Any, x: Any, bad_label: int, bad_row: int = -1, *, name: str = "target") -> None:
    """Raise what a driver has found: the position of a label or of a row of a sparse X."""
    if bad_label >= 0:
        raise IndexError(f"{name}: the label at row {bad_label} changed during the call")
    if bad_row >= 0:
        check_rows(p, cast(Csr, x))
        raise ValueError("X: indptr or indices changed during the call")


def check_rows(p: Any, x: Csr) -> None:
    """Raise if indptr or indices of the rows that are used are wrong."""
    row, entry = p.first_bad()
    if entry >= 0:
        raise ArgumentValueError(
            f"X: column index {x.indices[entry]} at row {row} is outside [0, {x.shape[1]})"
        )
    if row >= 0:
        raise ArgumentValueError(
            f"X: indptr goes from {x.indptr[row]} to {x.indptr[row + 1]} at row {row}, ascending "
            f"numbers from 0 to {len(x.indices)} were wanted"
        )


def _column_ranges(x: Csr, n: int) -> list[int]:
    """Bounds of ranges of columns with about as many entries each, judged by a few."""
    d = x.shape[1]
    if n == 1 or len(x.indices) == 0:
        return [0, d]
    some = np.sort(x.indices[:: max(1, len(x.indices) // 4096)])
    inner = (int(some[i * len(some) // n]) for i in range(1, n))
    return [0, *(min(max(i, 0), d) for i in inner), d]


def _reduced(total: float, total_weight: float, reduction: str) -> float:
    if reduction == "sum":
        return total
    return total / total_weight if total_weight != 0 else math.nan
