"""Softmax regression from scratch in NumPy: the lecture's implementation, written to be read.

Every function of the compiled kernels is here under the same name, with the same arguments and
the same meaning, and nothing is shared with them. So this module explains what they compute, says
in the tests what the right answer is, and is what the benchmarks compare with.

Classification
--------------
An example is a vector x of D features (the pixels of an image, say), and its class is one of C:
cat, chicken or dog. Two ways to write the class down:

* as an *integer* y in {0, ..., C - 1}. Compact, and how labels are stored; but the numbers are only
  names. Fitting them by regression would claim that a chicken (1) lies between cat (0) and dog (2).
* as a *one-hot vector* y in {0, 1}^C with a single 1 at the place of the class: cat is (1, 0, 0),
  chicken (0, 1, 0), dog (0, 0, 1). It claims no order. It is also a probability distribution, the
  one that is certain of its class, and so it can be compared with a predicted distribution.

We compute with integers wherever that means the same: adding up C products with a one-hot vector,
C - 1 of which are zero, only to pick one number, is slow. A float target is read as
probabilities, of which one-hot vectors are a special case and "soft" labels the general one.

The model
---------
One affine function per class gives its score, the *logit*::

    o = W x + b          W: one row of D weights for each class, b: one bias for each class

A minibatch of N examples is a matrix X with an example in each row. All its logits at once are::

    O = X W + b          (N, C) = (N, D) (D, C) + (C,), the bias added to every row

(W is transposed here against the line above, so that examples may be rows.)

Logits are any real numbers. *Softmax* makes them probabilities: exp makes them positive, and the
division makes them sum to 1::

    p_j = softmax(o)_j = exp(o_j) / sum_k exp(o_k)

It keeps the order, so the most probable class is argmax_j o_j and predicting needs no softmax. It
does not change when a constant is added to all logits. That is what saves it from overflow: taking
away the largest logit m first, no exponential exceeds 1. The logarithm of the denominator comes
out of the same sum::

    logsumexp(o) = log sum_k exp(o_k) = m + log sum_k exp(o_k - m)
    log p_j      = o_j - logsumexp(o)

The sum holds exp(0) = 1 for m itself. If the others are tiny (the model is sure), then 1 + tiny
rounds to 1 and its logarithm to 0; so the largest is left out of the sum, and log1p(rest) taken.

The loss
--------
p_y is the probability that the model gives to what was observed. For independent examples the
likelihood is the product of these; maximising it is minimising its negative logarithm, a sum::

    -log prod_i p(y_i | x_i) = sum_i l_i,     l = -sum_j y_j log p_j = -log p_y

The middle form is the *cross-entropy* of y and p, and makes sense for any distribution y. With
log p_j from above it is::

    l = logsumexp(o) - sum_j y_j o_j

and its derivative is what the model says minus what happened::

    dl / do_j = softmax(o)_j - y_j

The chain rule through O = X W + b, with row i of G holding the derivative for example i, gives::

    dW = X^T G,     db = sum_i G_i,     dX = G W^T

The second derivative of a row's loss with respect to its logits is the matrix K = diag(p) - p p^T,
in which the label does not occur. If W and b change by a little of (V, v), the logits change by as
much of u = V x + v, and the gradient changes by as much of the Hessian's product with (V, v)::

    (K u)_j = p_j (u_j - sum_k p_k u_k),     X^T (K u for every row),     sum_i (K u)_i

Information
-----------
The *entropy* of p is its expected surprise, H(p) = -sum_j p_j log p_j, in nats. Cross-entropy
H(p, q) = -sum_j p_j log q_j is the surprise of one who expects q where p is true. The difference
is the *Kullback-Leibler divergence*, which is never negative, and 0 only for q = p::

    KL(p || q) = H(p, q) - H(p) = sum_j p_j log(p_j / q_j)

How to read on
--------------
The functions follow in this order. The mathematics comes first; what checks and rearranges
arguments comes after it, at the end of the file. Inputs are never modified, and NumPy's
floating-point warnings are switched off: infinities and NaN are results like others.
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softmax_ext.results import (
    CrossEntropyResult,
    HessianProductResult,
    LinearCrossEntropyResult,
)

__all__ = [
    "cross_entropy",
    "cross_entropy_with_grad",
    "entropy",
    "kl_divergence",
    "linear",
    "linear_cross_entropy",
    "linear_cross_entropy_hvp",
    "linear_cross_entropy_with_grad",
    "log_softmax",
    "logsumexp",
    "one_hot",
    "predict",
    "predict_proba",
    "softmax",
]

Array = NDArray[Any]
Axis = int | tuple[int, ...] | None
# Any number of X: an array, or a sparse matrix in CSR form, which is not array-like.
Matrix = Any


# Labels ---------------------------------------------------------------------------------------


def one_hot(labels: ArrayLike, num_classes: int) -> NDArray[np.float64]:
    """Write integer labels as one-hot vectors.

    Parameters
    ----------
    labels : array_like of int
        Class indices in [0, num_classes), any shape.
    num_classes : int
        The number of classes C.

    Returns
    -------
    ndarray of float64, shape ``labels.shape + (num_classes,)``

    Raises
    ------
    TypeError
        If the labels are not integers.
    IndexError
        If a label is outside [0, num_classes).

    Examples
    --------
    >>> one_hot([0, 2, 1], num_classes=3)
    array([[1., 0., 0.],
           [0., 0., 1.],
           [0., 1., 0.]])
    """
    y = _array(labels, "labels")
    if y.dtype.kind not in "iu":
        raise TypeError(f"labels: dtype {y.dtype} came, integers were wanted")
    flat = y.reshape(-1)
    _check_labels(flat, num_classes, "labels", y.shape, rows=None)
    vectors = np.zeros((flat.size, num_classes))
    vectors[np.arange(flat.size), flat.astype(np.intp)] = 1
    return vectors.reshape(*y.shape, num_classes)


# The model ------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def linear(
    X: Matrix,
    W: ArrayLike,
    b: ArrayLike | None = None,
    *,
    x_scale: float = 1.0,
    out: Array | None = None,
) -> Array:
    """Compute the logits O = (x_scale * X) W + b of a minibatch.

    Parameters
    ----------
    X : array_like or CSR matrix, shape (N, D)
        One example in each row: float32, float64 or uint8 (other integers count as float64).
    W : array_like, shape (D, C)
        The weights: float32 or float64.
    b : array_like, shape (C,), optional
        The biases.
    x_scale : float, optional
        Multiplies X; 1/255 for an image of bytes.
    out : ndarray, shape (N, C), optional
        Where to put the result, of its dtype.

    Returns
    -------
    ndarray, shape (N, C)
        `out` if given. float64 if X, W or b is, else float32; a uint8 X has no say in it.

    Raises
    ------
    ValueError
        If shapes do not match, or `out` cannot take the result.
    TypeError
        If a dtype is not supported.

    Examples
    --------
    >>> linear([[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0, -1.0], [0.0, 2.0, 1.0]], [0.5, 0.0, 0.0])
    array([[1.5, 4. , 1. ],
           [0.5, 2. , 1. ]])
    """
    model = _check_model(X, W, b, x_scale)
    if out is not None:
        _check_out(out, (model.n_rows, model.W.shape[1]), model.dtype, "out")
    return _deliver(_affine(_pick(model, None)), out)


def _affine(model: _Model) -> Array:
    """The logits of the examples as a new array."""
    logits = np.empty((model.n_rows, model.W.shape[1]), model.dtype)
    for part, X in _dense_blocks(model):
        np.matmul(X, model.W, out=logits[part])
    if model.x_scale != 1:
        logits *= _as_dtype(model.x_scale, model.dtype)
    if model.b is not None:
        logits += model.b
    return logits


# Softmax --------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def softmax(x: ArrayLike, axis: Axis = -1, *, out: Array | None = None) -> Any:
    """Turn logits into probabilities: exp(x) / sum(exp(x)) along an axis.

    Parameters
    ----------
    x : array_like
        Logits: float16 (computed in float32), float32 or float64; integers and bools count as
        float64.
    axis : int, tuple of int or None, optional
        The axis or axes over which probabilities sum to 1; None is all of them.
    out : ndarray, optional
        Where to put the result, of its shape and dtype. It may be `x` itself.

    Returns
    -------
    ndarray or scalar, of the shape of `x`
        NaN along an axis that holds NaN or +inf, or -inf only; `out` if given. The rounding of
        x - max(x), which exp turns into a relative error, makes small probabilities inexact: by
        up to about max(x) - x units in the last place.

    Raises
    ------
    ValueError
        If there is nothing to sum over, an axis comes twice, or `out` cannot take the result.
    TypeError
        If the dtype is not supported.
    numpy.exceptions.AxisError
        If there is no such axis.

    Examples
    --------
    >>> softmax([[0.0, 0.0], [1000.0, 0.0]])
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    values = _check_logits(x, axis, out)
    _refuse_empty(values)
    p = values.workspace(out)
    _, m = _largest(values.rows)
    np.subtract(values.rows, m[:, None], out=p)
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return values.shaped(p, out)


@np.errstate(all="ignore")
def log_softmax(x: ArrayLike, axis: Axis = -1, *, out: Array | None = None) -> Any:
    """Logarithm of the softmax, x - logsumexp(x), in nats.

    It does not lose the small probabilities that `softmax` rounds to zero.

    Parameters
    ----------
    x : array_like
        Logits, as for `softmax`.
    axis : int, tuple of int or None, optional
        The axis or axes over which probabilities sum to 1; None is all of them.
    out : ndarray, optional
        Where to put the result, of its shape and dtype. It may be `x` itself.

    Returns
    -------
    ndarray or scalar, of the shape of `x`
        NaN along an axis that holds NaN, or -inf only. Where there is +inf (as in SciPy, and
        unlike `cross_entropy`): NaN for it, -inf for the finite ones beside it.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        As `softmax`.

    Examples
    --------
    >>> log_softmax([1000.0, 1.0])
    array([   0., -999.])
    """
    values = _check_logits(x, axis, out)
    _refuse_empty(values)
    z = values.workspace(out)
    at, m = _largest(values.rows)
    shift = np.where(np.isfinite(m), m, 0)
    np.subtract(values.rows, shift[:, None], out=z)
    rest = _sum_of_the_others(np.exp(z), at)
    # m - shift is 0, or m itself where that is infinite or NaN.
    z -= (np.log1p(rest) + (m - shift))[:, None]
    return values.shaped(z, out)


@np.errstate(all="ignore")
def logsumexp(x: ArrayLike, axis: Axis = -1, *, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) along an axis, without overflow, in nats.

    Parameters
    ----------
    x : array_like
        Logits, as for `softmax`.
    axis : int, tuple of int or None, optional
        The axis or axes to sum over; None is all of them.
    keepdims : bool, optional
        Keep the summed axes, with length 1.

    Returns
    -------
    ndarray or scalar
        -inf for a sum of nothing or of exp(-inf) only, +inf if one is +inf, NaN if one is NaN;
        of a single number that number.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        As `softmax`, but a sum of nothing is no error.

    Examples
    --------
    >>> bool(logsumexp([1000.0, 1000.0]) == 1000 + np.log(2))
    True
    >>> float(logsumexp([0.0, -740.0]))
    4.2e-322
    """
    values = _check_logits(x, axis, out=None)
    if values.rows.shape[1] == 0:
        total = np.full(len(values.rows), -np.inf, values.rows.dtype)
    else:
        at, m = _largest(values.rows)
        shift = np.where(np.isfinite(m), m, 0)
        rest = _sum_of_the_others(np.exp(values.rows - shift[:, None]), at)
        # The choice is for m = -0.0, which must come back as it is: -0.0 + 0.0 is +0.0.
        total = np.where(rest == 0, m, m + np.log1p(rest))
    return values.reduced(total, keepdims)


def _largest(rows: Array) -> tuple[Array, Array]:
    """Where each row's first largest entry is, and that entry (the first NaN, if there is one)."""
    at = rows.argmax(axis=1) if rows.size else np.zeros(len(rows), np.intp)
    return at, rows[np.arange(len(rows)), at]


def _sum_of_the_others(e: Array, at: Array) -> Array:
    """Sum each row but for its entry `at`, which is set to zero for that."""
    e[np.arange(len(e)), at] = 0
    return np.asarray(e.sum(axis=1))


# The loss and its derivative ------------------------------------------------------------------


@np.errstate(all="ignore")
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> float | Array:
    """Cross-entropy of the targets and softmax(logits), in nats.

    With w the class weights, s the sample weights, e the label smoothing, and y one-hot where the
    target is an integer::

        t_ij = w_j ((1 - e) y_ij + e / C)
        l_i  = s_i sum_j t_ij (-log softmax(o_i)_j)

    Here 0 times infinity is 0 (the limit of large numbers): a probability or weight of 0 counts
    nothing beside an infinite logit, nor an infinite weight where there is nothing to weigh.

    "none" gives all l_i, "sum" their sum, and "mean" the sum divided by the sum of s_i w_{y_i} for
    integer targets, or of s_i for probabilities (as PyTorch).

    Parameters
    ----------
    logits : array_like, shape (N, C), (C,) or (N, C, d1, ...)
        float32 or float64 (integers and bools count as float64); the classes are along axis 1.
    target : array_like
        Class indices of any integer dtype, in the logits' shape without C; or probabilities of a
        floating dtype, in the logits' shape. They need not sum to 1.
    weight : array_like, shape (C,), optional
        A weight for each class.
    sample_weight : array_like, shape (N,) or the labels' shape, optional
        A weight for each example (a number for logits of shape (C,)).
    ignore_index : int, optional
        Examples with this label do not count.
    label_smoothing : float in [0, 1], optional
        How much of the target is spread over all classes evenly.
    reduction : {"mean", "sum", "none"}, optional

    Returns
    -------
    float, or ndarray in the shape of the labels with ``reduction="none"``
        In a row with NaN or +inf, or with -inf only, the loss is NaN. The mean of nothing is NaN,
        the sum 0.

    Raises
    ------
    ValueError
        If shapes do not match or an option has no meaning.
    TypeError
        If a dtype is not supported.
    IndexError
        If a label is outside [0, C) and not `ignore_index`.

    Examples
    --------
    >>> round(cross_entropy([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]], [0, 2]), 6)
    0.753109
    >>> round(cross_entropy([[2.0, 1.0, 0.0]], [[0.5, 0.5, 0.0]]), 6)  # a soft label
    0.907606
    """
    rows, shape = _check_cross_entropy_logits(logits)
    task = _check_task(
        target, shape, rows.dtype, None,
        weight, sample_weight, ignore_index, label_smoothing, reduction,
    )  # fmt: skip
    if task.kept is not None:
        rows = rows[task.kept]
    losses, _ = _losses(rows, task, work=np.empty_like(rows), gradient=False)
    return _reduce(losses, task)


@np.errstate(all="ignore")
def cross_entropy_with_grad(
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
    """Cross-entropy and its derivative with respect to the logits.

    Parameters
    ----------
    logits, target, weight, sample_weight, ignore_index, label_smoothing, reduction
        As for `cross_entropy`.
    out : ndarray, optional
        Where to put the derivative: the logits' shape and the dtype of the computation.

    Returns
    -------
    CrossEntropyResult
        ``loss`` as `cross_entropy` gives it, and ``dlogits``, the derivative of that loss (with
        ``reduction="none"`` of their sum). It is exactly 0 in rows that are ignored.

    Raises
    ------
    ValueError, TypeError, IndexError
        As `cross_entropy`, and ValueError if `out` cannot take the result.

    Examples
    --------
    >>> cross_entropy_with_grad([[0.0, 0.0], [0.0, 0.0]], [0, 1]).dlogits
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    """
    rows, shape = _check_cross_entropy_logits(logits)
    task = _check_task(
        target, shape, rows.dtype, None,
        weight, sample_weight, ignore_index, label_smoothing, reduction,
    )  # fmt: skip
    if out is not None:
        _check_out(out, shape, rows.dtype, "out")
    if task.kept is None:
        G = np.empty_like(rows)
        losses, _ = _losses(rows, task, work=G, gradient=True)
    else:
        kept_rows = rows[task.kept]
        losses, _ = _losses(kept_rows, task, work=kept_rows, gradient=True)
        G = np.zeros_like(rows)
        G[task.kept] = kept_rows
    return CrossEntropyResult(_reduce(losses, task), _deliver(_class_back(G, shape), out))


def _losses(o: Array, task: _Task, work: Array, gradient: bool) -> tuple[Array, Array]:
    """Loss of each row of logits, and where its largest logit is.

    `work` has the shape of `o` (and may be `o`) and is overwritten: with the gradient of the
    reduced loss, if that is asked for.
    """
    at, m = _largest(o)
    z = np.subtract(o, m[:, None], out=work)
    # NaN for a largest logit that is infinite or NaN: then the loss of the row is NaN.
    zero = m - m
    if task.probabilities is None:
        assert task.labels is not None
        losses = _losses_of_labels(z, zero, at, task.labels, task.gradient_scale, gradient)
    else:
        losses = _losses_of_probabilities(
            z, zero, at, task.probabilities, task.gradient_scale, gradient
        )
    return losses, at


def _losses_of_labels(
    z: Array, zero: Array, at: Array, y: Array, scale: Array, gradient: bool
) -> Array:
    """-log p_y for logits z whose largest is 0; z becomes scale * (p - one_hot(y))."""
    each = np.arange(len(z))
    z_y = z[each, y]
    e = np.exp(z, out=z)
    rest = _sum_of_the_others(e, at)
    if gradient:
        e[each, at] = 1
        # softmax times scale, in one pass; then the one-hot vector, at the only places it has.
        e *= (scale / (1 + zero + rest))[:, None]
        e[each, y] -= scale
    return np.asarray(np.log1p(rest) + zero - z_y)


def _losses_of_probabilities(
    z: Array, zero: Array, at: Array, t: Array, scale: Array, gradient: bool
) -> Array:
    """-sum_j t_j log p_j for logits z whose largest is 0; z becomes scale * (p sum(t) - t)."""
    e = np.exp(z)
    rest = _sum_of_the_others(e, at)
    np.subtract(np.log1p(rest)[:, None], z, out=z)
    losses = _times(t, z).sum(axis=1) + zero
    if gradient:
        e[np.arange(len(e)), at] = 1
        e *= (_times(scale, t.sum(axis=1)) / (1 + zero + rest))[:, None]
        np.subtract(e, _times(scale[..., None], t), out=z)
    return np.asarray(losses)


def _times(a: Array, b: Array) -> Array:
    """The product, where 0 times infinity is 0."""
    product = np.asarray(a * b)
    product[np.isnan(product) & ~(np.isnan(a) | np.isnan(b))] = 0
    return product


def _smoothed(t: Array, smoothing: float, class_weight: Array | None) -> Array:
    """The targets w ((1 - e) t + e / C), in the dtype of t."""
    if smoothing > 0:
        t = t * _as_dtype(1 - smoothing, t.dtype) + _as_dtype(smoothing / t.shape[1], t.dtype)
    return t if class_weight is None else _times(t, class_weight.astype(t.dtype))


def _reduce(losses: Array, task: _Task) -> float | Array:
    """Weigh the rows' losses and put them together as the reduction says, in float64."""
    weighted = losses if task.row_weight is None else _times(task.row_weight, losses)
    if task.reduction == "sum":
        return float(weighted.sum(dtype=np.float64))
    if task.reduction == "mean":
        return float(np.divide(weighted.sum(dtype=np.float64), task.total_weight))
    if task.kept is None:
        return weighted.astype(losses.dtype, copy=False).reshape(task.shape)
    scattered = np.zeros(task.n_rows, losses.dtype)
    scattered[task.kept] = weighted
    return scattered.reshape(task.shape)


# The whole model: linear layer, softmax, loss -------------------------------------------------


@np.errstate(all="ignore")
def linear_cross_entropy(
    X: Matrix,
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
) -> float | Array:
    """Cross-entropy of the targets and softmax(x_scale * X W + b), in nats.

    The same as ``cross_entropy(linear(X, W, b, x_scale=x_scale), target, ...)``.

    Parameters
    ----------
    X, W, b, x_scale
        As for `linear`; `b` may be None.
    target, weight, sample_weight, ignore_index, label_smoothing, reduction
        As for `cross_entropy`.

    Returns
    -------
    float, or ndarray of shape (N,) with ``reduction="none"``

    Raises
    ------
    ValueError, TypeError, IndexError
        As `linear` and `cross_entropy`.

    Examples
    --------
    >>> X, W = [[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]
    >>> round(linear_cross_entropy(X, W, None, [0, 1]), 6)
    0.126928
    """
    model = _check_model(X, W, b, x_scale)
    task = _check_task(
        target, _logits_shape(model), model.dtype, None,
        weight, sample_weight, ignore_index, label_smoothing, reduction,
    )  # fmt: skip
    logits = _affine(_pick(model, task.kept))
    losses, _ = _losses(logits, task, work=logits, gradient=False)
    return _reduce(losses, task)


@np.errstate(all="ignore")
def linear_cross_entropy_with_grad(
    X: Matrix,
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
    out: tuple[Array | None, ...] | LinearCrossEntropyResult | None = None,
) -> LinearCrossEntropyResult:
    """Cross-entropy of softmax(x_scale * X W + b), with its derivatives: a training step's work.

    Parameters
    ----------
    X, W, b, x_scale
        As for `linear`; `b` may be None.
    target, weight, sample_weight, ignore_index, label_smoothing, reduction
        As for `cross_entropy`.
    rows : array_like of int, shape (n,), optional
        The minibatch: which rows of X, `target` and `sample_weight` to use. Negative ones count
        from the end; one that comes twice counts twice.
    with_dX : bool, optional
        Compute the derivative with respect to X (to X[rows]) too; of a dense X only.
    out : tuple (dW, db) or (dW, db, dX), or an earlier result, optional
        Arrays for the derivatives, in their shapes and dtype; an entry may be None.

    Returns
    -------
    LinearCrossEntropyResult
        ``loss`` as `cross_entropy` gives it; ``dW`` (D, C) in the memory order of W, ``db`` (C,)
        or None without `b`, ``dX`` (n, D) or None; ``total_weight``, what the mean divides by;
        ``n_correct``, how many examples that count have their label (or the most probable class
        of their target) as their first largest logit. Examples that are ignored contribute
        nothing, not even NaN.

    Raises
    ------
    ValueError, TypeError, IndexError
        As `linear` and `cross_entropy`; IndexError also for `rows` outside X, ValueError if `out`
        cannot take the result, or for `with_dX` with a sparse X.

    Examples
    --------
    >>> X, W = np.eye(2), np.zeros((2, 2))
    >>> result = linear_cross_entropy_with_grad(X, W, np.zeros(2), [0, 1])
    >>> result.dW
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    >>> result.n_correct, result.total_weight
    (1, 2.0)
    """
    model = _check_model(X, W, b, x_scale)
    if with_dX and _is_csr(model.X):
        raise ValueError(
            "with_dX: True came with a sparse X, a dense one was wanted; use X.toarray()"
        )
    batch = None if rows is None else _check_rows(rows, model.n_rows)
    task = _check_task(
        target, _logits_shape(model), model.dtype, batch,
        weight, sample_weight, ignore_index, label_smoothing, reduction,
    )  # fmt: skip
    out_dW, out_db, out_dX = _check_gradient_out(out, model, task.n_rows, with_dX)
    kept = task.kept
    if batch is not None:
        kept = batch if kept is None else batch[kept]
    model = _pick(model, kept)

    G = _affine(model)
    losses, predicted = _losses(G, task, work=G, gradient=True)

    dW = _weight_gradient(model, G)
    db = None if model.b is None else G.sum(axis=0)
    dX = _input_gradient(model, task, G) if with_dX else None
    return LinearCrossEntropyResult(
        loss=_reduce(losses, task),
        dW=_deliver(dW, out_dW),
        db=None if db is None else _deliver(db, out_db),
        dX=None if dX is None else _deliver(dX, out_dX),
        total_weight=task.total_weight,
        n_correct=int(np.count_nonzero(predicted == task.most_probable)),
    )


@np.errstate(all="ignore")
def linear_cross_entropy_hvp(
    X: Matrix,
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
    out: tuple[Array | None, Array | None] | HessianProductResult | None = None,
) -> HessianProductResult:
    """Product of the Hessian of the loss at (W, b) with a direction (V, v).

    Parameters
    ----------
    X, W, b, x_scale
        As for `linear`; `b` may be None.
    target, weight, sample_weight, ignore_index, label_smoothing, reduction, rows
        As for `linear_cross_entropy_with_grad`. Of the target counts only how much of it there is:
        whether a row is ignored, and the sum of its weighted probabilities.
    V : array_like, shape (D, C)
        Direction in which W changes.
    v : array_like, shape (C,), optional
        Direction in which b changes; zeros by default.
    out : tuple (dW, db), or an earlier result, optional
        Arrays for the product, in their shapes and dtype; an entry may be None.

    Returns
    -------
    HessianProductResult
        ``dW`` (D, C) in the memory order of W, and ``db`` (C,), or None without `b`.

    Raises
    ------
    ValueError, TypeError, IndexError
        As `linear_cross_entropy_with_grad`; ValueError also for a V or v of another shape than W
        or b.

    Examples
    --------
    >>> X, V = np.eye(2), [[4.0, 0.0], [0.0, 4.0]]
    >>> linear_cross_entropy_hvp(X, np.zeros((2, 2)), None, [0, 1], V).dW
    array([[ 0.5, -0.5],
           [-0.5,  0.5]])
    """
    model = _check_model(X, W, b, x_scale)
    model, direction = _check_direction(model, V, v)
    batch = None if rows is None else _check_rows(rows, model.n_rows)
    task = _check_task(
        target, _logits_shape(model), model.dtype, batch,
        weight, sample_weight, ignore_index, label_smoothing, reduction,
    )  # fmt: skip
    out_dW, out_db, _ = _check_gradient_out(out, model, task.n_rows, False)
    kept = task.kept
    if batch is not None:
        kept = batch if kept is None else batch[kept]
    model, direction = _pick(model, kept), _pick(direction, kept)

    logits, u = _affine(model), _affine(direction)
    P = softmax(logits)
    # K u does not see what is added to all of u. So what the most probable class has is taken away:
    # where the model is sure of it, all that is left to add up is small.
    at, _ = _largest(logits)
    u -= u[np.arange(len(u)), at][:, None]
    u -= (P * u).sum(axis=1, keepdims=True)
    scale = task.gradient_scale
    if task.probabilities is not None:
        scale = _times(scale, task.probabilities.sum(axis=1))
    G = P * u * scale[..., None]

    dW = _weight_gradient(model, G)
    db = None if model.b is None else _deliver(G.sum(axis=0), out_db)
    return HessianProductResult(_deliver(dW, out_dW), db)


def _weight_gradient(model: _Model, G: Array) -> Array:
    """dW = x_scale * X^T G, in the memory order of W."""
    W = model.W
    order: Literal["C", "F"] = "F" if W.flags.f_contiguous and not W.flags.c_contiguous else "C"
    dW = np.zeros(W.shape, model.dtype, order)
    for part, X in _dense_blocks(model):
        dW += X.T @ G[part]
    if model.x_scale != 1:
        dW *= _as_dtype(model.x_scale, model.dtype)
    return dW


def _input_gradient(model: _Model, task: _Task, G: Array) -> Array:
    """dX = x_scale * G W^T, with zeros for the examples that are ignored."""
    dX: Array = G @ model.W.T
    if model.x_scale != 1:
        dX *= _as_dtype(model.x_scale, model.dtype)
    if task.kept is None:
        return dX
    scattered = np.zeros((task.n_rows, dX.shape[1]), model.dtype)
    scattered[task.kept] = dX
    return scattered


# Prediction -----------------------------------------------------------------------------------


@np.errstate(all="ignore")
def predict_proba(
    X: Matrix, W: ArrayLike, b: ArrayLike | None = None, *, x_scale: float = 1.0
) -> Array:
    """Probability of each class for each example: softmax(x_scale * X W + b).

    Parameters
    ----------
    X, W, b, x_scale
        As for `linear`.

    Returns
    -------
    ndarray, shape (N, C)

    Raises
    ------
    ValueError, TypeError
        As `linear`.

    Examples
    --------
    >>> predict_proba([[0.0, 1.0]], np.zeros((2, 4)))
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    logits = _affine(_pick(_check_classes(_check_model(X, W, b, x_scale)), None))
    return np.asarray(softmax(logits, out=logits))


@np.errstate(all="ignore")
def predict(
    X: Matrix, W: ArrayLike, b: ArrayLike | None = None, *, x_scale: float = 1.0
) -> NDArray[np.intp]:
    """The most probable class for each example (the first of them, where several are equal).

    Parameters
    ----------
    X, W, b, x_scale
        As for `linear`.

    Returns
    -------
    ndarray of intp, shape (N,)
        The first NaN counts as the largest logit, as in `numpy.argmax`.

    Raises
    ------
    ValueError, TypeError
        As `linear`.

    Examples
    --------
    >>> predict([[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0, 3.0], [1.0, 2.0, 0.0]])
    array([1, 2])
    """
    model = _check_classes(_check_model(X, W, b, x_scale))
    return np.asarray(_affine(_pick(model, None)).argmax(axis=1))


# Information ----------------------------------------------------------------------------------


@np.errstate(all="ignore")
def entropy(p: ArrayLike, axis: Axis = -1) -> Any:
    """Entropy -sum(p log p) of distributions along an axis, in nats, with 0 log 0 = 0.

    Parameters
    ----------
    p : array_like
        Probabilities: float16, float32 or float64; integers and bools count as float64. They are
        not checked to sum to 1.
    axis : int, tuple of int or None, optional
        The axis or axes to sum over; None is all of them.

    Returns
    -------
    ndarray or scalar
        NaN where there is NaN or a negative number.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        If the axis or the dtype is not supported.

    Examples
    --------
    >>> entropy([[0.5, 0.5], [1.0, 0.0]])
    array([0.69314718, 0.        ])
    """
    values = _check_logits(p, axis, out=None, name="p")
    P = values.rows
    terms = -P * np.log(P)
    terms[P == 0] = 0
    return values.reduced(terms.sum(axis=1, dtype=np.float64), keepdims=False)


@np.errstate(all="ignore")
def kl_divergence(p: ArrayLike, q: ArrayLike, axis: Axis = -1) -> Any:
    """Kullback-Leibler divergence KL(p || q) = sum(p log(p / q)) along an axis, in nats.

    Parameters
    ----------
    p, q : array_like
        Probabilities, as for `entropy`, in shapes that broadcast together.
    axis : int, tuple of int or None, optional
        The axis or axes of the broadcast shape to sum over; None is all of them.

    Returns
    -------
    ndarray or scalar
        A term with p = 0 is 0 for every number q; q = 0 < p gives inf; NaN where there is NaN or
        a negative number that counts.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        If the shapes, the axis or a dtype is not supported.

    Examples
    --------
    >>> kl_divergence([0.5, 0.5], [[0.5, 0.5], [1.0, 0.0]])
    array([ 0., inf])
    """
    p_array, q_array = _array(p, "p"), _array(q, "q")
    dtype = np.result_type(_softmax_dtype(p_array, "p"), _softmax_dtype(q_array, "q"))
    try:
        shape = np.broadcast_shapes(p_array.shape, q_array.shape)
    except ValueError:
        raise ValueError(
            f"q: shape {q_array.shape} came, one that broadcasts with p's {p_array.shape} was "
            "wanted"
        ) from None
    values, other = (
        _check_logits(np.broadcast_to(a, shape).astype(dtype), axis, out=None)
        for a in (p_array, q_array)
    )
    P, Q = values.rows, other.rows
    terms = P * _log_ratio(P, Q)
    terms[(P < 0) | (Q < 0)] = np.nan
    terms[(P == 0) & ~np.isnan(Q)] = 0
    return values.reduced(terms.sum(axis=1, dtype=np.float64), keepdims=False)


def _log_ratio(p: Array, q: Array) -> Array:
    """log(p / q), accurate also where p is near q."""
    ratio = p / q
    near = (ratio > 0.5) & (ratio < 2)  # there p - q is exact
    return np.asarray(np.where(near, np.log1p((p - q) / q), np.log(p) - np.log(q)))


# Arguments: all below checks and rearranges them, and computes nothing -------------------------


def _array(value: ArrayLike, name: str) -> Array:
    """`value` as a plain array; a mask would be lost without a word, so it is refused."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array came, a plain one was wanted; use .filled()")
    return np.asarray(value)


def _number(value: Any, name: str, low: float, high: float) -> float:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: {type(value).__name__} came, a real number was wanted")
    number = float(value)
    if not low <= number <= high:
        raise ValueError(f"{name}: {value} came, a number from {low} to {high} was wanted")
    return number


def _as_dtype(value: float, dtype: np.dtype[Any]) -> Array:
    return np.asarray(value, dtype)


def _compute_dtype(array: Array, name: str) -> np.dtype[Any]:
    """The dtype to compute with: float32 stays, all else that is real becomes float64."""
    kind, scalar = array.dtype.kind, array.dtype.type
    if scalar is np.float32:
        return np.dtype(np.float32)
    if scalar is np.float64 or kind in "biu":
        return np.dtype(np.float64)
    raise TypeError(f"{name}: dtype {array.dtype} came, float32, float64 or integers were wanted")


def _stored_dtype(array: Array, name: str) -> np.dtype[Any]:
    """The same, and float32 for halves: float16, and the bfloat16 of the package ml_dtypes."""
    if array.dtype.type is np.float16 or array.dtype.name == "bfloat16":
        return np.dtype(np.float32)
    return _compute_dtype(array, name)


def _softmax_dtype(array: Array, name: str) -> np.dtype[Any]:
    """As `_compute_dtype`, and float16 stays."""
    if array.dtype.type is np.float16:
        return np.dtype(np.float16)
    return _compute_dtype(array, name)


def _check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name}: {type(out).__name__} came, an ndarray was wanted")
    if out.shape != shape:
        raise ValueError(f"{name}: shape {out.shape} came, {shape} was wanted")
    if out.dtype != dtype:
        raise ValueError(f"{name}: dtype {out.dtype} came, {dtype} was wanted")
    if not out.flags.writeable:
        raise ValueError(f"{name}: a read-only array came, a writeable one was wanted")
    # From the shortest step to the longest, each must reach beyond all that came before.
    reach = out.itemsize
    for step, length in sorted(zip(map(abs, out.strides), out.shape, strict=True)):
        if length > 1 and out.size > 0:
            if step < reach:
                raise ValueError(
                    f"{name}: an array that overlaps itself came, a plain one was wanted"
                )
            reach += step * (length - 1)


def _deliver(result: Array, out: Array | None) -> Array:
    """`out` filled with the result, or the result itself."""
    if out is None:
        return result
    out[...] = result
    return out


# Softmax along any axis: the work is done on a matrix with one row for each sum.


class _Rows(NamedTuple):
    """An array with the axes of a sum put last, and then flattened to a matrix."""

    rows: Array  # C-contiguous, (R, K); perhaps a view of the user's array: not to be written
    axes: tuple[int, ...]
    shape: tuple[int, ...]  # of the user's array
    dtype: np.dtype[Any]  # of the result

    def workspace(self, out: Array | None) -> Array:
        """A matrix to write to: `out` itself, if its memory is one."""
        if out is not None and out.dtype == self.rows.dtype:
            moved = _move_last(out, self.axes)
            if moved.flags.c_contiguous:
                return moved.reshape(self.rows.shape)
        return np.empty_like(self.rows)

    def shaped(self, rows: Array, out: Array | None) -> Any:
        """The matrix put back into the user's shape, and into `out`."""
        if out is not None and np.may_share_memory(rows, out):
            return out
        kept = [n for i, n in enumerate(self.shape) if i not in self.axes]
        moved = rows.reshape(kept + [self.shape[i] for i in self.axes])
        result = _move_back(moved, self.axes)
        result = result.astype(self.dtype, copy=False)
        return _deliver(result, out) if result.ndim or out is not None else result[()]

    def reduced(self, sums: Array, keepdims: bool) -> Any:
        """One number for each row, in the user's shape without the axes of the sum."""
        if keepdims:
            shape = [1 if i in self.axes else n for i, n in enumerate(self.shape)]
        else:
            shape = [n for i, n in enumerate(self.shape) if i not in self.axes]
        result = sums.astype(self.dtype, copy=False).reshape(shape)
        return result if result.ndim else result[()]


def _move_last(array: Array, axes: tuple[int, ...]) -> Array:
    """`array` with the axes (ascending) last; most often they are, which saves NumPy's search."""
    last = tuple(range(array.ndim - len(axes), array.ndim))
    return array if axes == last else np.moveaxis(array, axes, last)


def _move_back(array: Array, axes: tuple[int, ...]) -> Array:
    """The inverse of `_move_last`."""
    last = tuple(range(array.ndim - len(axes), array.ndim))
    return array if axes == last else np.moveaxis(array, last, axes)


def _check_logits(x: ArrayLike, axis: Axis, out: Any, name: str = "x") -> _Rows:
    array = _array(x, name)
    dtype = _softmax_dtype(array, name)
    axes = _check_axes(axis, array.ndim)
    if out is not None:
        _check_out(out, array.shape, dtype, "out")
    compute = np.dtype(np.float32) if dtype == np.float16 else dtype
    moved = _move_last(array, axes)
    length = math.prod(array.shape[i] for i in axes)
    count = math.prod(n for i, n in enumerate(array.shape) if i not in axes)
    rows = np.ascontiguousarray(moved, compute).reshape(count, length)
    return _Rows(rows, axes, array.shape, dtype)


def _check_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes in ascending order."""
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, bool):
        raise TypeError("axis: a bool came, an integer, a tuple of integers or None was wanted")
    if isinstance(axis, tuple):
        wanted = [operator.index(a) for a in axis]
    else:
        wanted = [operator.index(axis)]
        if ndim == 0 and wanted[0] in (0, -1):  # as NumPy, which sees one axis in a number
            return ()
    for a in wanted:
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(a, ndim)
    axes = tuple(sorted({a % ndim for a in wanted}))
    if len(axes) < len(wanted):
        raise ValueError(f"axis: {axis!r} came, each axis at most once was wanted")
    return axes


def _refuse_empty(values: _Rows) -> None:
    if values.rows.shape[1] == 0:
        raise ValueError("x: zero-size array to reduction operation maximum which has no identity")


# Cross-entropy: the logits as a matrix with a row for each example, and the targets to go with it.


class _Task(NamedTuple):
    """What to compare the logits with, and how. n counts the examples that are not ignored."""

    labels: Array | None  # intp, (n,)
    probabilities: Array | None  # (n, C), weighted and smoothed; used instead of labels if there
    most_probable: Array  # intp, (n,): the labels, or the targets' most probable classes
    kept: Array | None  # which examples are not ignored; None is all
    n_rows: int  # how many examples there are
    shape: tuple[int, ...]  # of the labels
    row_weight: Array | None  # float64, (n,): what multiplies each loss; None is 1
    total_weight: float  # what the mean divides by
    gradient_scale: Array  # what multiplies each row of the gradient: (n,) or (), in its dtype
    reduction: str


def _check_cross_entropy_logits(logits: ArrayLike) -> tuple[Array, tuple[int, ...]]:
    array = _array(logits, "logits")
    dtype = _compute_dtype(array, "logits")
    if array.ndim == 0 or array.shape[min(1, array.ndim - 1)] == 0:
        raise ValueError(
            f"logits: shape {array.shape} came, (N, C), (C,) or (N, C, d1, ...) with C > 0 was "
            "wanted"
        )
    return _class_last(array, dtype), array.shape


def _class_last(array: Array, dtype: np.dtype[Any]) -> Array:
    """A matrix with a row of C numbers for each example of an array (N, C, d1, ...) or (C,)."""
    class_axis = min(1, array.ndim - 1)
    moved = np.ascontiguousarray(_move_last(array, (class_axis,)), dtype)
    n_rows = math.prod(moved.shape[:-1])
    return moved.reshape(n_rows, moved.shape[-1])


def _class_back(rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `_class_last`: the matrix in the logits' shape."""
    class_axis = min(1, len(shape) - 1)
    class_last = (*shape[:class_axis], *shape[class_axis + 1 :], shape[class_axis])
    return _move_back(rows.reshape(class_last), (class_axis,))


def _check_task(
    target: ArrayLike,
    logits_shape: tuple[int, ...],
    dtype: np.dtype[Any],
    batch: Array | None,
    weight: ArrayLike | None,
    sample_weight: ArrayLike | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> _Task:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: {reduction!r} came, 'mean', 'sum' or 'none' was wanted")
    smoothing = _number(label_smoothing, "label_smoothing", 0, 1)
    try:
        ignored_label = operator.index(ignore_index)
    except TypeError:
        came = type(ignore_index).__name__
        raise TypeError(f"ignore_index: {came} came, an integer was wanted") from None

    class_axis = min(1, len(logits_shape) - 1)
    n_classes = logits_shape[class_axis]
    shape = logits_shape[:class_axis] + logits_shape[class_axis + 1 :]
    class_weight = _check_weights(weight, (n_classes,), "weight")
    row_weight = _check_weights(sample_weight, shape, "sample_weight", or_shape=shape[:1])
    y = _check_target(target, shape, logits_shape)
    if batch is not None:
        y = y[batch]
        shape = y.shape[:1]
        row_weight = None if row_weight is None else row_weight[batch]
    n_rows = math.prod(shape)
    if row_weight is not None:
        row_weight = np.repeat(row_weight.reshape(-1), n_rows // max(1, row_weight.size))

    labels: Array | None = None
    kept: Array | None = None
    t: Array | None = None
    if y.dtype.kind == "f":
        if ignored_label >= 0:
            raise ValueError(
                f"ignore_index: {ignored_label} came with probability targets, integer labels or a "
                "negative index was wanted"
            )
        t = _class_last(y, dtype)
        most_probable = t.argmax(axis=1)
    else:
        labels, kept = _check_and_keep(y, n_classes, ignored_label, batch)
        most_probable = labels
        if kept is not None and row_weight is not None:
            row_weight = row_weight[kept]
        if smoothing > 0:  # a smoothed label is a distribution
            t = one_hot(labels, n_classes).astype(dtype, copy=False)

    counts = row_weight
    if labels is not None and class_weight is not None:
        of_label = class_weight[labels]
        counts = of_label if counts is None else _times(counts, of_label)
    n_kept = n_rows if kept is None else len(kept)
    total_weight = float(n_kept if counts is None else counts.sum())
    if t is None:
        row_weight = counts
    else:
        t = _smoothed(t, smoothing, class_weight)

    scale = np.asarray(1.0 if row_weight is None else row_weight)
    if reduction == "mean":
        scale = np.divide(scale, total_weight)
    return _Task(
        labels, t, most_probable, kept, n_rows, shape,
        row_weight, total_weight, np.asarray(scale, dtype), reduction,
    )  # fmt: skip


def _check_weights(
    weight: ArrayLike | None,
    shape: tuple[int, ...],
    name: str,
    or_shape: tuple[int, ...] | None = None,
) -> NDArray[np.float64] | None:
    if weight is None:
        return None
    array = _array(weight, name)
    if array.dtype.kind not in "biuf" or array.dtype == np.longdouble:
        raise TypeError(f"{name}: dtype {array.dtype} came, real numbers were wanted")
    if array.shape not in (shape, or_shape):
        raise ValueError(f"{name}: shape {array.shape} came, {or_shape or shape} was wanted")
    return array.astype(np.float64)


def _check_target(
    target: ArrayLike, shape: tuple[int, ...], logits_shape: tuple[int, ...]
) -> Array:
    """`target` as an array of class indices in `shape` or of probabilities in `logits_shape`."""
    y = _array(target, "target")
    if isinstance(target, list) and y.size == 0 and y.shape == shape:
        y = y.astype(np.intp)  # NumPy takes an empty list for floats
    if y.dtype.kind in "iu":
        if y.shape == shape:
            return y
        if y.shape == logits_shape:
            raise ValueError(
                f"target: integers in the logits' shape {y.shape} came, class indices {shape} "
                "(pass target.argmax(axis=1)) or floats were wanted"
            )
        raise ValueError(f"target: shape {y.shape} came, {shape} was wanted")
    if y.dtype.type not in (np.float16, np.float32, np.float64):
        raise TypeError(
            f"target: dtype {y.dtype} came, integers or floating probabilities were wanted"
        )
    if y.shape == logits_shape:
        return y
    if y.shape == shape:
        raise TypeError(f"target: labels of dtype {y.dtype} came, integers were wanted")
    raise ValueError(f"target: probabilities of shape {y.shape} came, {logits_shape} was wanted")


def _check_and_keep(
    y: Array, n_classes: int, ignored_label: int, batch: Array | None
) -> tuple[Array, Array | None]:
    """The labels that are not ignored, and where they are (None: everywhere)."""
    flat = y.reshape(-1)
    counted = flat != ignored_label
    _check_labels(flat, n_classes, "target", y.shape, batch, counted)
    if counted.all():
        return flat.astype(np.intp), None
    kept = np.flatnonzero(counted)
    return flat[kept].astype(np.intp), kept


def _check_labels(
    flat: Array,
    n_classes: int,
    name: str,
    shape: tuple[int, ...],
    rows: Array | None,
    counted: Array | bool = True,
) -> None:
    bad = ((flat < 0) | (flat >= n_classes)) & counted
    if not bad.any():
        return
    i = int(bad.argmax())
    if rows is not None:
        where = f" at rows[{i}] = {rows[i]}"
    elif len(shape) == 1:
        where = f" at row {i}"
    elif shape:
        where = f" at index {tuple(int(k) for k in np.unravel_index(i, shape))}"
    else:
        where = ""
    raise IndexError(f"{name}: label {flat[i]}{where} is outside [0, {n_classes})")


# The linear layer: X dense or sparse, and the two dtypes.


class _Model(NamedTuple):
    X: Any  # an array, or a matrix in CSR form
    rows: Array | None  # which rows of a CSR matrix are meant; None is all
    n_rows: int
    W: Array
    b: Array | None
    x_scale: float
    dtype: np.dtype[Any]  # of the computation; W and b have it, and X once it is picked


def _check_model(X: Matrix, W: ArrayLike, b: ArrayLike | None, x_scale: float) -> _Model:
    X = X if _is_csr(X) else _array(X, "X")
    W = _array(W, "W")
    values = _array(X.data, "X") if _is_csr(X) else X
    x_dtype = _stored_dtype(values, "X")
    dtypes = [_compute_dtype(W, "W")]
    if values.dtype != np.uint8:
        dtypes.append(x_dtype)
    if len(X.shape) != 2:
        raise ValueError(f"X: shape {X.shape} came, (N, D) was wanted")
    if W.ndim != 2 or W.shape[0] != X.shape[1]:
        raise ValueError(f"W: shape {W.shape} came, ({X.shape[1]}, C) was wanted for X {X.shape}")
    if b is not None:
        b = _array(b, "b")
        dtypes.append(_compute_dtype(b, "b"))
        if b.shape != W.shape[1:]:
            raise ValueError(f"b: shape {b.shape} came, {W.shape[1:]} was wanted for W {W.shape}")
    dtype = np.result_type(*dtypes)
    if _is_csr(X):
        _check_csr(X)
    return _Model(
        X,
        None,
        X.shape[0],
        W.astype(dtype, copy=False),
        None if b is None else b.astype(dtype, copy=False),
        _number(x_scale, "x_scale", -sys.float_info.max, sys.float_info.max),
        dtype,
    )


def _check_direction(model: _Model, V: ArrayLike, v: ArrayLike | None) -> tuple[_Model, _Model]:
    """The model, and the same with a direction in place of its weights, in their common dtype."""
    V = _array(V, "V")
    dtype = np.result_type(model.dtype, _compute_dtype(V, "V"))
    if V.shape != model.W.shape:
        raise ValueError(f"V: shape {V.shape} came, that of W, {model.W.shape}, was wanted")
    if v is not None:
        if model.b is None:
            raise ValueError("v: an array came, None was wanted, as there is no b")
        v = _array(v, "v")
        dtype = np.result_type(dtype, _compute_dtype(v, "v"))
        if v.shape != model.b.shape:
            raise ValueError(f"v: shape {v.shape} came, that of b, {model.b.shape}, was wanted")
        v = v.astype(dtype, copy=False)
    b = None if model.b is None else model.b.astype(dtype, copy=False)
    model = model._replace(W=model.W.astype(dtype, copy=False), b=b, dtype=dtype)
    return model, model._replace(W=V.astype(dtype, copy=False), b=v)


def _check_classes(model: _Model) -> _Model:
    if model.W.shape[1] == 0:
        raise ValueError(f"W: shape {model.W.shape} came, (D, C) with C > 0 was wanted")
    return model


def _logits_shape(model: _Model) -> tuple[int, int]:
    return model.n_rows, _check_classes(model).W.shape[1]


def _check_rows(rows: ArrayLike, n: int) -> Array:
    array = _array(rows, "rows")
    if isinstance(rows, list) and array.size == 0:
        array = array.astype(np.intp)  # NumPy takes an empty list for floats
    if array.dtype.kind == "b":
        raise TypeError("rows: bools came, integers were wanted; use numpy.flatnonzero")
    if array.dtype.kind not in "iu":
        raise TypeError(f"rows: dtype {array.dtype} came, integers were wanted")
    if array.ndim != 1:
        raise ValueError(f"rows: shape {array.shape} came, a 1-D array was wanted")
    outside = (array < -n) | (array >= n)
    if outside.any():
        i = int(outside.argmax())
        raise IndexError(f"rows: index {array[i]} at position {i} is outside [{-n}, {n})")
    return array.astype(np.intp)


def _check_gradient_out(
    out: Any, model: _Model, n_rows: int, with_dX: bool
) -> tuple[Array | None, Array | None, Array | None]:
    """The arrays given for dW, db and dX."""
    if out is None:
        return None, None, None
    if isinstance(out, LinearCrossEntropyResult):
        # Of an earlier result is taken what fits: its minibatch may have had another size.
        reusable = with_dX and out.dX is not None and len(out.dX) == n_rows
        out = (out.dW, None if model.b is None else out.db, out.dX if reusable else None)
    if not isinstance(out, tuple | list) or len(out) not in (2, 3):
        raise TypeError(
            f"out: {type(out).__name__} came, a tuple (dW, db) or (dW, db, dX) or an earlier "
            "result was wanted"
        )
    dW, db, dX = out if len(out) == 3 else (*out, None)
    if db is not None and model.b is None:
        raise ValueError("out: an array for db came, None was wanted, as there is no b")
    if dX is not None and not with_dX:
        raise ValueError("out: an array for dX came, None was wanted without with_dX=True")
    n_features, n_classes = model.W.shape
    given: list[Array] = []
    for name, array, shape in (
        ("dW", dW, (n_features, n_classes)),
        ("db", db, (n_classes,)),
        ("dX", dX, (n_rows, n_features)),
    ):
        if array is None:
            continue
        _check_out(array, shape, model.dtype, f"out: {name}")
        if any(np.shares_memory(array, other) for other in given):
            raise ValueError(f"out: a {name} that overlaps another came, separate ones were wanted")
        given.append(array)
    return dW, db, dX


def _pick(model: _Model, rows: Array | None) -> _Model:
    """The model with the given rows of X only (None: all), dense ones copied once and for all."""
    n_rows = model.n_rows if rows is None else len(rows)
    if _is_csr(model.X):
        return model._replace(rows=rows, n_rows=n_rows)
    X = model.X if rows is None else model.X[rows]
    return model._replace(X=X.astype(model.dtype, copy=False), n_rows=n_rows)


def _dense_blocks(model: _Model) -> Iterator[tuple[slice, Array]]:
    """The picked rows of X as dense blocks, and their places."""
    if not _is_csr(model.X):
        yield slice(None), model.X
        return
    block = 1024
    rows = np.arange(model.n_rows) if model.rows is None else model.rows % model.X.shape[0]
    for start in range(0, model.n_rows, block):
        part = slice(start, start + block)
        yield part, _densify(model.X, rows[part], model.dtype)


def _is_csr(X: Any) -> bool:
    return all(hasattr(X, name) for name in ("indptr", "indices", "data", "shape"))


def _check_csr(X: Any) -> None:
    if getattr(X, "format", "csr") != "csr":
        raise TypeError(f"X: a sparse matrix in {X.format} form came, csr was wanted; use .tocsr()")
    n, n_features = X.shape
    indptr, indices = _array(X.indptr, "X.indptr"), _array(X.indices, "X.indices")
    if indptr.shape != (n + 1,) or indptr[0] < 0 or (indptr[1:] < indptr[:-1]).any():
        raise ValueError(
            f"X.indptr: other numbers came than the {n + 1} ascending ones from 0 on that were "
            "wanted"
        )
    if not indptr[-1] <= len(indices) == len(X.data):
        raise ValueError(
            f"X: {len(indices)} indices and {len(X.data)} numbers came, {indptr[-1]} of each were "
            "wanted"
        )
    indices = indices[int(indptr[0]) : int(indptr[-1])]  # a view may have more entries than rows
    if indices.size and not 0 <= indices.min() <= indices.max() < n_features:
        raise ValueError(
            f"X.indices: some came that are outside [0, {n_features}), columns of X were wanted"
        )


def _densify(X: Any, rows: Array, dtype: np.dtype[Any]) -> Array:
    """The given rows of a CSR matrix as an array; entries at the same place add up."""
    indptr = np.asarray(X.indptr).astype(np.intp)
    first, last = indptr[rows], indptr[rows + 1]
    entries = np.concatenate([np.arange(a, z) for a, z in zip(first, last, strict=True)])
    at_row = np.repeat(np.arange(len(rows)), last - first)
    dense = np.zeros((len(rows), X.shape[1]), dtype)
    np.add.at(dense, (at_row, np.asarray(X.indices)[entries]), np.asarray(X.data)[entries])
    return dense
