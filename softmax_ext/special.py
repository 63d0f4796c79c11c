"""The softmax family of `scipy.special`: change the import, keep the program.

``from softmax_ext.special import softmax, log_softmax, logsumexp, entr, rel_entr, kl_div`` gives
functions with SciPy's signatures, defaults, result types and shapes. Real float16, float32 and
float64 arrays, integers and bools go to `softmax_ext.kernels`, and so do the elementwise functions;
complex and long double numbers and `b` are computed here, in NumPy. SciPy itself is not needed.

Where SciPy 1.17 is wrong, or warns, we do otherwise:

* Integers of 8 and 16 bits and bools become float64, like the larger ones. SciPy computes them in
  float16 or float32; differences of unsigned ones wrap around, and softmax refuses bools.
* float16 is computed in float32 and rounded once: 70000 zeros have the softmax 1.43e-5, not 0.
* A masked array is a TypeError, where SciPy ignores the mask. So are dates, structured arrays,
  strings and objects for all functions, where some of SciPy's take some of them for numbers.
* In `logsumexp` a zero weight counts nothing even if no other is left, the sum over nothing has
  sign 0, an empty array may have several axes, and terms that cancel exactly do not hide others.
* `kl_div` does not overflow on the way to a finite result, and keeps its digits where x is near y.
* NumPy's floating-point warnings and errors (`numpy.errstate`) are never raised.
* Results are plain arrays or scalars also for `numpy.matrix` and other subclasses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import softmax_ext

from .arguments import Array, as_array, as_axes, same_place
from .ops.divergence import ENTR, KL_DIV, REL_ENTR

__all__ = ["entr", "kl_div", "log_softmax", "logsumexp", "rel_entr", "softmax"]


# ------------------------------------------------------------------------------- softmax family


def softmax(x: ArrayLike, axis: Any = None) -> Any:
    """Softmax: exp(x) divided by its sum, as `scipy.special.softmax`.

    Parameters
    ----------
    x : array_like
        Any real or complex numbers; integers and bools become float64.
    axis : int, tuple of int or None
        Axis or axes the result sums to 1 over; None for the whole array.

    Returns
    -------
    ndarray or NumPy scalar
        x's shape and dtype. For float16, float32 and float64 every normal number is within 4 ULP
        of the exact value (SciPy: dozens of ULP); see `softmax_ext.softmax`.

    Raises
    ------
    TypeError
        For masked arrays and for dtypes that are not numbers.
    ValueError
        If the axes hold no elements.

    Notes
    -----
    Not as SciPy: integers of 8 and 16 bits, bools and float16; see the module's docstring. 64-bit
    integers beyond 2^53 are rounded to float64.

    Examples
    --------
    >>> from softmax_ext.special import softmax
    >>> softmax([[1.0, 1.0], [1.0, 1.0]])
    array([[0.25, 0.25],
           [0.25, 0.25]])
    >>> softmax([[1.0, 1.0], [1.0, 1.0]], axis=1)
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    x = as_array("x", x)
    if not _plain(x.dtype):
        return softmax_ext.kernels.softmax(x, axis)
    axes, wide = as_axes(axis, x.ndim), _widened(x)
    with np.errstate(all="ignore"):
        e = np.exp(wide - wide.max(axis=axes, keepdims=True))
        return (e / e.sum(axis=axes, keepdims=True)).astype(_native(x.dtype))[()]


def log_softmax(x: ArrayLike, axis: Any = None) -> Any:
    """Logarithm of the softmax, as `scipy.special.log_softmax`.

    Parameters
    ----------
    x : array_like
        As for `softmax`.
    axis : int, tuple of int or None
        As for `softmax`.

    Returns
    -------
    ndarray or NumPy scalar
        x's shape and dtype, in nats.

    Raises
    ------
    TypeError, ValueError
        As for `softmax`.

    Notes
    -----
    Unlike SciPy's, also the logarithm of a probability close to 1 is accurate, for instance
    -1e-20 beside another of 1e-20.

    Examples
    --------
    >>> from softmax_ext.special import log_softmax
    >>> log_softmax([1000.0, 1.0])
    array([   0., -999.])
    """
    x = as_array("x", x)
    if not _plain(x.dtype):
        return softmax_ext.kernels.log_softmax(x, axis)
    axes, wide = as_axes(axis, x.ndim), _widened(x)
    with np.errstate(all="ignore"):
        largest = wide.max(axis=axes, keepdims=True)
        z = wide - np.where(np.isfinite(largest), largest, 0)
        # Of a number `logsumexp` would make an array of one axis.
        lse = logsumexp(z, axes, keepdims=True).reshape(largest.shape)
        return (z - lse).astype(_native(x.dtype))[()]


def logsumexp(
    a: ArrayLike,
    axis: Any = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any:
    """Logarithm of a sum of (weighted) exponentials, as `scipy.special.logsumexp`.

    Parameters
    ----------
    a : array_like
        Any real or complex numbers; integers and bools become float64.
    axis : int, tuple of int or None
        Axis or axes to sum over; None for the whole array.
    b : array_like, optional
        Factors of exp(a), broadcast against `a`; they may be negative or complex. Where one is 0
        nothing is added, even if `a` is infinite or NaN there.
    keepdims : bool
        Keep the summed axes with size 1.
    return_sign : bool
        Return the logarithm of the sum's size, and its sign.

    Returns
    -------
    ndarray or NumPy scalar
        log(sum(b exp(a))) in the common dtype of `a` and `b`; -inf where nothing is summed. A
        negative sum gives nan unless `return_sign` is true. Of a complex sum it is the principal
        value, with an imaginary part in (-pi, pi].
    ndarray or NumPy scalar
        Only if `return_sign` is true; then the first result is log(abs(sum)), which is real.
        1, 0, -1 or nan; of a complex sum, sum / abs(sum).

    Raises
    ------
    TypeError
        For masked arrays and for dtypes that are not numbers.
    ValueError
        If the shapes of `a` and `b` do not fit together.

    Notes
    -----
    Not as SciPy: float16; the sign of an empty sum; weights all 0 beside infinite `a`; terms that
    cancel exactly beside much larger or smaller ones. See the module's docstring.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_ext.special import logsumexp
    >>> print(logsumexp([1000.0, 1000.0]).round(6))
    1000.693147
    >>> value, sign = logsumexp([1, 2], b=[1, -1], return_sign=True)
    >>> print(value.round(6), sign)
    1.541325 -1.0

    To leave out masked elements, give them the weight 0:

    >>> m = np.ma.array([np.log(2), 2, np.log(3)], mask=[False, True, False])
    >>> print(np.exp(logsumexp(m.data, b=~m.mask)).round(6))
    5.0
    """
    if b is None and not return_sign and type(a) is np.ndarray and a.ndim and a.dtype.char in "fd":
        return softmax_ext.kernels.logsumexp(a, axis, keepdims=keepdims)  # at the least cost
    a, b = _argument("a", a), None if b is None else _argument("b", b)
    dtype = np.result_type(*(_dtypes(a) if b is None else _dtypes(a, b)))
    if dtype.kind in "biu":
        dtype = np.dtype(np.float64)
    a = np.atleast_1d(np.asarray(a, dtype))
    if b is not None:
        a, b = np.broadcast_arrays(a, np.asarray(b, dtype))
    elif not _plain(dtype):
        value = softmax_ext.kernels.logsumexp(a, axis, keepdims=keepdims)
        if not return_sign:
            return value
        return value, np.where(np.isnan(value), value, value != -np.inf)[()]

    axes = as_axes(axis, a.ndim)
    with np.errstate(all="ignore"):
        value, total = _log_sum(_rows(a, axes), None if b is None else _rows(b, axes))
        if return_sign:
            sign = _sign(total)
        elif dtype.kind == "c":
            value, log_size = np.empty_like(total), value
            value.real, value.imag = log_size, np.angle(total)
        else:
            value = np.where(total < 0, np.nan, value)
        shape = tuple(
            1 if i in axes else n for i, n in enumerate(a.shape) if keepdims or i not in axes
        )
        real = np.empty(0, dtype).real.dtype
        value = value.astype(real if return_sign else dtype).reshape(shape)[()]
        return (value, sign.astype(dtype).reshape(shape)[()]) if return_sign else value


def _plain(dtype: np.dtype[Any]) -> bool:
    """Whether NumPy computes it, not the kernels: complex and long double numbers."""
    return dtype.kind == "c" or dtype.char == "g"


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    native: np.dtype[Any] = dtype.newbyteorder("=")
    return native


def _widened(a: Array) -> Array:
    """At least float64 or complex128."""
    return a.astype(np.result_type(a.dtype, np.float64), copy=False)


def _rows(a: Array, axes: tuple[int, ...]) -> Array:
    """`a` widened, as (rows, elements to sum)."""
    kept = [i for i in range(a.ndim) if i not in axes]
    shape = [math.prod(a.shape[i] for i in part) for part in (kept, axes)]
    rows: Array = _widened(a).transpose(*kept, *axes).reshape(shape)
    return rows


def _log_sum(a: Array, b: Array | None) -> tuple[Array, Array]:
    """log(abs(sum)), and a number with the sum's sign (or phase), of the rows of b exp(a)."""
    if b is not None:
        a = np.where(b == 0, -np.inf, a)
        if b.dtype.kind == "f" and (b < 0).any():
            a = np.where(_cancelling(a, b), -np.inf, a)
    top = a.real.max(axis=1, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(top), top, 0)
    terms = np.exp(a - shift) if b is None else b * np.exp(a - shift)
    # The largest terms are summed apart: log(main + rest) = log(main) + log1p(rest / main) keeps
    # what a tiny rest adds.
    largest = a.real == top
    main = np.where(largest, terms, 0).sum(axis=1)
    rest = np.where(largest, 0, terms).sum(axis=1)
    total, ratio = main + rest, rest / main
    small = np.log(np.abs(main)) + np.log1p(ratio.real * (2 + ratio.real) + ratio.imag**2) / 2
    value = np.where(np.abs(ratio) < 0.5, small, np.log(np.abs(total)))
    return value + shift[:, 0], total


def _cancelling(a: Array, b: Array) -> Array:
    """Where the factors of equal numbers in a row add up to exactly 0."""
    order = a.argsort(axis=1)
    a, b = (np.take_along_axis(v, order, axis=1) for v in (a, b))
    first = np.ones(a.shape, bool)  # of a group of equal numbers
    first[:, 1:] = a[:, 1:] != a[:, :-1]
    sums = np.add.reduceat(b.ravel(), np.flatnonzero(first))
    nothing = (sums == 0)[np.cumsum(first) - 1].reshape(a.shape)
    result = np.empty(a.shape, bool)
    # Infinities do not cancel: inf - inf is nan.
    np.put_along_axis(result, order, nothing & (a < np.inf), axis=1)
    return result


def _sign(total: Array) -> Array:
    if total.dtype.kind == "f":
        return np.sign(total)
    return np.where(total == 0, 0, total / np.abs(total))


# --------------------------------------------------------------------------- elementwise functions


def entr(x: ArrayLike, /, out: Any = None, *, where: ArrayLike = True) -> Any:
    """Elementwise term of the entropy, -x log(x), as `scipy.special.entr`.

    Parameters
    ----------
    x : array_like
        Real numbers. As in SciPy, the result is float32 for float16, float32, bools and integers
        of 8 and 16 bits, and float64 for others; long double is refused.
    out : ndarray, optional
        Array to write the result to, of any dtype that float32 (float64) may be cast to.
    where : array_like of bool
        Where to write it; elsewhere `out` keeps its numbers.

    Returns
    -------
    ndarray or NumPy scalar
        -x log(x) for x > 0, 0 for x = 0, -inf for x < 0; in nats.

    Raises
    ------
    TypeError
        For masked arrays and for dtypes that cannot be cast safely to float64.
    ValueError
        If the shapes do not fit together.

    See Also
    --------
    softmax_ext.entropy : The sum over an axis.

    Notes
    -----
    SciPy's is a NumPy ufunc. Not mirrored: its keywords but `out` and `where`, its methods
    (`reduce`, `outer`, ...), and results of a subclass of ndarray, or of masked arrays.

    Examples
    --------
    >>> from softmax_ext.special import entr
    >>> entr([0.0, 0.5, 1.0, -1.0]).round(6)
    array([ 0.      ,  0.346574, -0.      ,      -inf])
    """
    if out is None and where is True:
        quick = softmax_ext.kernels._quick.terms(ENTR, x, x)
        if quick is not None:
            return quick
    return _elementwise(ENTR, {"x": x}, out, where)


def rel_entr(x: ArrayLike, y: ArrayLike, /, out: Any = None, *, where: ArrayLike = True) -> Any:
    """Elementwise term of the relative entropy, x log(x / y), as `scipy.special.rel_entr`.

    Parameters
    ----------
    x, y : array_like
        Real numbers, broadcast against each other; dtypes as for `entr`.
    out : ndarray, optional
        As for `entr`.
    where : array_like of bool
        As for `entr`.

    Returns
    -------
    ndarray or NumPy scalar
        x log(x / y) for x > 0 and y > 0; 0 for x = 0 and y >= 0; inf elsewhere; in nats.

    Raises
    ------
    TypeError, ValueError
        As for `entr`.

    See Also
    --------
    softmax_ext.kl_divergence : The sum over an axis.
    kl_div : The same plus y - x.

    Notes
    -----
    Within a few ULP also where x is close to y. What is not mirrored: as for `entr`.

    Examples
    --------
    >>> from softmax_ext.special import rel_entr
    >>> rel_entr([0.0, 0.5, 0.5], [0.5, 0.25, 0.0]).round(6)
    array([0.      , 0.346574,      inf])
    """
    if out is None and where is True:
        quick = softmax_ext.kernels._quick.terms(REL_ENTR, x, y)
        if quick is not None:
            return quick
    return _elementwise(REL_ENTR, {"x": x, "y": y}, out, where)


def kl_div(x: ArrayLike, y: ArrayLike, /, out: Any = None, *, where: ArrayLike = True) -> Any:
    """Elementwise x log(x / y) - x + y, as `scipy.special.kl_div`.

    Not the term of the Kullback-Leibler divergence as most define it, and as PyTorch's `kl_div`
    has it: that is `rel_entr`. The sums are the same for distributions that sum to 1; of this
    function no element is negative.

    Parameters
    ----------
    x, y : array_like
        Real numbers, broadcast against each other; dtypes as for `entr`.
    out : ndarray, optional
        As for `entr`.
    where : array_like of bool
        As for `entr`.

    Returns
    -------
    ndarray or NumPy scalar
        x log(x / y) - x + y for x > 0 and y > 0; y for x = 0 and y >= 0; inf elsewhere; in nats.

    Raises
    ------
    TypeError, ValueError
        As for `entr`.

    See Also
    --------
    rel_entr : Without y - x.

    Notes
    -----
    Within a few ULP also where x is close to y, where the terms of the formula cancel and SciPy
    loses all digits. What is not mirrored: as for `entr`.

    Examples
    --------
    >>> from softmax_ext.special import kl_div
    >>> kl_div([0.0, 0.5, 0.5], [1.0, 0.5, 0.0])
    array([ 1.,  0., inf])
    """
    if out is None and where is True:
        quick = softmax_ext.kernels._quick.terms(KL_DIV, x, y)
        if quick is not None:
            return quick
    return _elementwise(KL_DIV, {"x": x, "y": y}, out, where)


def _elementwise(what: int, arguments: dict[str, Any], out: Any, where: Any) -> Any:
    """Terms (enum smx_term) as a ufunc with the loops float32 and float64 would give them."""
    values = [_argument(name, value) for name, value in arguments.items()]
    dtypes = _dtypes(*values)
    for d in dtypes:
        if not np.can_cast(d, np.float64):
            raise TypeError(
                f"{', '.join(arguments)}: dtype {d} came, "
                "what can be cast to float64 without loss of kind or range was wanted"
            )
    single = all(np.can_cast(d, np.float32) for d in dtypes)
    dtype = np.dtype(np.float32 if single else np.float64)
    with np.errstate(all="ignore"):
        # A Python number is of the dtype of the loop, as in NumPy.
        operands = [np.asarray(v, dtype) for v in values]
        direct = where is True and _takes(out, operands)
        result = out if direct else _allocate(operands)
        softmax_ext.kernels._terms(what, [_laid_out(a, result) for a in operands], result)
        if direct:
            return out
        if out is None and where is True:
            return result[()]
        # NumPy's own ufunc sees to any other `out`, and to `where`.
        return np.positive(result, out=out, where=where)


def _takes(out: Any, operands: list[Array]) -> bool:
    """Whether results of operands of one dtype can be written to `out` while these are read."""
    return (
        type(out) is np.ndarray
        and out.dtype == operands[0].dtype
        and out.flags.forc
        and out.flags.behaved
        and out.ndim > 0
        and out.shape == np.broadcast_shapes(*(a.shape for a in operands))
        and all(same_place(a, out) or not np.may_share_memory(a, out) for a in operands)
    )


def _allocate(operands: list[Array]) -> Array:
    """A dense array for results, in the layout that a ufunc would choose."""
    first, last = operands[0], operands[-1]
    if first.flags.c_contiguous and last.flags.c_contiguous and first.shape == last.shape:
        return np.empty(first.shape, first.dtype)
    access: list[Any] = [["readonly"]] * len(operands) + [["writeonly", "allocate"]]
    result: Array = np.nditer([*operands, None], ["zerosize_ok"], access).operands[-1]
    return result


def _laid_out(a: Array, like: Array) -> Array:
    """`a`, broadcast, with the elements where the dense array `like` has them."""
    if a.shape == like.shape and a.strides == like.strides and a.flags.aligned:
        return a
    copy = np.empty_like(like)
    copy[...] = a
    return copy


# --------------------------------------------------------------------------------------- arguments


def _argument(name: str, value: Any) -> Any:
    """A Python number as it is, anything else as a plain array of numbers."""
    if type(value) in (int, float, complex):
        return value
    a = as_array(name, value)
    if a.dtype.kind not in "biufc":
        raise TypeError(f"{name}: dtype {a.dtype} came, numbers were wanted")
    return a


def _dtypes(*values: Any) -> list[np.dtype[Any]]:
    """The dtypes that count: a Python number adds its kind to arrays, but no precision."""
    kinds = "bufc"  # integers with and without sign are one kind
    dtypes = [v.dtype for v in values if isinstance(v, np.ndarray)]
    highest = max([kinds.index(d.kind.replace("i", "u")) for d in dtypes], default=-1)
    for number in (np.dtype(type(v)) for v in values if not isinstance(v, np.ndarray)):
        if kinds.index(number.kind.replace("i", "u")) > highest:
            precise = number.kind != "c" or kinds[highest] != "f"
            dtypes.append(number if precise else np.dtype(np.complex64))
    return dtypes
