"""The edge cases by number: one test for each row of the project's table of them.

1 to 40 are values and dtypes of the softmax family (S, L and Z are softmax, log_softmax and
logsumexp), 41 to 71 shapes, axes and memory, 72 to 111 cross-entropy, 112 to 116 divergence and the
linear layer. Not here, as they concern other parts of the package:
  21-24 (logsumexp's b= and return_sign=), and what complex and longdouble numbers (36, 37) give in
  softmax_ext.special; the estimator's halves of 84 and 101; 117 and above (estimator, files).
Softmax has one algorithm for few classes and one for many, and takes rows several at a time:
`forms` puts the numbers of a case where each of them is at work.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import shutil
import subprocess
import threading
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from problems import (
    FLOATS,
    LABEL_DTYPES,
    REDUCTIONS,
    Case,
    Problem,
    Unchanged,
    assert_same_bits,
    backwards,
    big_endian,
    memory_mapped,
    misaligned,
    read_only,
    sliced_columns,
    strided,
)
from tolerances import eps

from softmax_ext import _kernels, problem, reference
from softmax_ext.ops import cross_entropy

INF, NAN = np.inf, np.nan
SOFTMAX_LIKE = ["softmax", "log_softmax"]
FAMILY = [*SOFTMAX_LIKE, "logsumexp"]

each_float = pytest.mark.parametrize("dtype", FLOATS)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def forms(x, dtype):
    """The numbers alone, as a row among others, and beside so many -inf that classes are many.

    Yields arrays and the index of the row that matters; x is at its end.
    """
    x = np.array(x, dtype)
    yield x, ()
    for width in (len(x), 100, 1000):
        among = np.random.default_rng(0).normal(size=(37, width)).astype(dtype)
        among[5] = -INF
        among[5, width - len(x) :] = x
        yield among, 5
    yield among[5], ()


def check_family(kernels, dtype, x, *, S=None, L=None, Z=None, rtol=0.0):
    for array, row in forms(x, dtype):
        for name, expected in (("softmax", S), ("log_softmax", L)):
            if expected is not None:
                result = getattr(kernels, name)(array)
                assert result.dtype == dtype
                np.testing.assert_allclose(result[row][-len(x) :], expected, rtol)
        if Z is not None:
            result = kernels.logsumexp(array)
            assert result.dtype == dtype
            np.testing.assert_allclose(result[row], Z, rtol)


# 1. Values ---------------------------------------------------------------------------------------


@each_float
def test_case_001_softmax_of_minus_infinities(kernels, dtype):
    check_family(kernels, dtype, [-INF, -INF], S=[NAN, NAN])


@each_float
def test_case_002_log_softmax_of_minus_infinities(kernels, dtype):
    check_family(kernels, dtype, [-INF, -INF], L=[NAN, NAN])


@each_float
def test_case_003_logsumexp_of_minus_infinities(kernels, dtype):
    check_family(kernels, dtype, [-INF, -INF], Z=-INF)


@each_float
def test_case_004_gradient_of_a_row_of_minus_infinities_is_nan(kernels, dtype):
    for c in (2, 100):
        logits = np.zeros((3, c), dtype)
        logits[1] = -INF
        loss, dlogits = kernels.cross_entropy_with_grad(logits, [0, 0, 0], reduction="none")
        assert np.isnan(dlogits).tolist() == [[False] * c, [True] * c, [False] * c]
        assert np.isnan(loss).tolist() == [False, True, False]


@each_float
def test_case_005_one_minus_infinity(kernels, dtype):
    check_family(kernels, dtype, [-INF, 0], S=[0, 1], L=[-INF, 0], Z=0)


@each_float
def test_case_006_softmax_of_infinity(kernels, dtype):
    check_family(kernels, dtype, [INF, 0], S=[NAN, NAN])


@each_float
def test_case_007_infinity_in_log_softmax_and_in_cross_entropy(kernels, dtype):
    check_family(kernels, dtype, [INF, 0], L=[NAN, -INF])
    for array, row in forms([INF, 0], dtype):
        c = array.shape[-1]
        for label in (c - 2, c - 1):
            target = np.full(array.shape[:-1], label)
            loss, dlogits = kernels.cross_entropy_with_grad(array, target, reduction="none")
            assert np.isnan(loss[row])
            assert np.isnan(dlogits[row]).all()


@each_float
@pytest.mark.parametrize("second", [INF, -INF])
def test_case_008_softmax_of_two_infinities(kernels, dtype, second):
    check_family(kernels, dtype, [INF, second], S=[NAN, NAN])


@each_float
@pytest.mark.parametrize("second", [0, INF, -INF])
def test_case_009_logsumexp_of_infinity(kernels, dtype, second):
    check_family(kernels, dtype, [INF, second], Z=INF)


@each_float
@pytest.mark.parametrize("c", [1, 2, 3, 10, 16, 17, 33, 100, 257])
def test_case_010_nan_in_one_row_of_many(kernels, dtype, c, rng):
    clean = rng.normal(size=(23, c)).astype(dtype)
    expected = [getattr(kernels, name)(clean) for name in FAMILY]
    for row in range(23):
        for column in {0, row % c, c - 1, c // 2}:
            x = clean.copy()
            x[row, column] = NAN
            for name, whole in zip(FAMILY, expected, strict=True):
                result = getattr(kernels, name)(x)
                assert np.isnan(result[row]).all()
                others = np.arange(23) != row
                assert_same_bits(result[others], whole[others])


@each_float
@pytest.mark.parametrize("special", [NAN, INF, -INF])
@pytest.mark.parametrize("c", [1, 3, 10, 17, 100])
def test_case_010_nan_and_infinity_in_one_row_of_x(kernels, dtype, special, c):
    p = Problem(Case(70, 16, c, dtype, reduction="none"))
    losses = kernels.linear_cross_entropy(**p.loss)
    for row in (0, 3, 64, 69):
        p.X[row, 5] = special
        with np.errstate(all="ignore"):
            changed = p.X[row] @ p.W
        result = kernels.linear_cross_entropy_with_grad(**p.gradient)
        assert np.isnan(result.loss[row])
        assert np.isnan(result.dX[row]).all()
        assert np.isnan(result.dW).all()
        assert np.isnan(kernels.linear_cross_entropy(**p.loss)[row])
        assert np.isnan(kernels.predict_proba(**p.linear)[row]).all()
        np.testing.assert_array_equal(kernels.linear(**p.linear)[row], changed)
        assert kernels.predict(**p.linear)[row] == changed.argmax()  # the first NaN, if any
        others = np.arange(70) != row
        if kernels is not reference:  # a product of matrices: other rows may round otherwise
            assert_same_bits(result.loss[others], losses[others])
        p = Problem(p.case)


@each_float
@pytest.mark.parametrize("c", [2, 3, 10, 17, 100])
def test_case_010_predict_takes_the_first_nan(kernels, dtype, c, rng):
    logits = rng.normal(size=(40, c)).astype(dtype)
    logits[rng.random(logits.shape) < 0.3] = NAN
    one = np.ones((1, 1), dtype)
    for row in logits:
        assert kernels.predict(one, row[None]) == row.argmax()
        assert kernels.predict(np.repeat(one, 70, axis=0), row[None])[-1] == row.argmax()


@each_float
@pytest.mark.parametrize("second", [INF, -INF])
def test_case_011_nan_beside_infinity(kernels, dtype, second):
    for x in ([NAN, second], [second, NAN]):
        check_family(kernels, dtype, x, S=[NAN, NAN], L=[NAN, NAN], Z=NAN)


@each_float
def test_case_012_one_class(kernels, dtype):
    x = np.array([[3.5], [0.0], [-1e30], [INF], [-INF], [NAN]], dtype)
    special = ~np.isfinite(x)
    np.testing.assert_array_equal(kernels.softmax(x), np.where(special, NAN, 1))
    np.testing.assert_array_equal(kernels.log_softmax(x), np.where(special, NAN, 0))


@pytest.mark.parametrize("dtype", ["float16", *FLOATS])
def test_case_013_logsumexp_of_one_number_is_that_number(kernels, dtype, rng):
    special = [0.0, -0.0, 1e-7, -3.0, INF, -INF, NAN]
    x = np.concatenate([special, rng.normal(0, 100, 50)]).astype(dtype)
    assert_same_bits(kernels.logsumexp(x[:, None]), x)
    for number in x:
        assert_same_bits(kernels.logsumexp(number), number)


@each_float
def test_case_014_large_differences(kernels, dtype):
    check_family(kernels, dtype, [1000, 0, 0, 0], S=[1, 0, 0, 0])
    check_family(kernels, dtype, [1000, 1], L=[0, -999], rtol=1e-13)


@each_float
def test_case_015_a_difference_that_overflows(kernels, dtype):
    big = float(np.dtype(dtype).type({"float32": 3.4e38, "float64": 1.7e308}[dtype]))
    check_family(kernels, dtype, [big, -big], S=[1, 0], L=[0, -INF], Z=big)


@each_float
def test_case_016_logsumexp_of_many_equal_numbers(kernels, dtype):
    x = np.full(1000, 10000, dtype)
    np.testing.assert_allclose(kernels.logsumexp(x), 10000 + np.log(1000), rtol=eps(dtype))


def test_case_017_the_largest_is_left_out_of_the_sum(kernels):
    check_family(kernels, "float64", [0, -40], Z=np.logaddexp(0, -40), rtol=1e-15)
    check_family(kernels, "float64", [0, -740], Z=4.2e-322, rtol=0.02)
    check_family(kernels, "float32", [0, -100], Z=np.float32(3.8e-44), rtol=0.04)
    check_family(kernels, "float32", [0, -40], L=[-np.exp(-40), -40], rtol=1e-6)


def test_case_018_subnormal_probabilities_are_not_flushed(kernels):
    check_family(kernels, "float64", [0, -740], S=[1, 4.2e-322], rtol=0.02)
    check_family(kernels, "float32", [0, -100], S=[1, np.float32(3.8e-44)], rtol=0.04)


@each_float
@pytest.mark.parametrize("x", [[-25, 0, 25, 50], [1, 325, 749, 750]], ids=str)
def test_case_019_probabilities_over_many_orders(kernels, dtype, x):
    with mpmath.workdps(50):
        e = [mpmath.exp(v - max(x)) for v in x]
        exact = [float(v / mpmath.fsum(e)) for v in e]
    exact = np.array(exact).astype(dtype)  # 1.94e-185 is 0 in float32
    check_family(kernels, dtype, x, S=exact, rtol={"float32": 1e-6, "float64": 1e-13}[dtype])


@each_float
def test_case_020_adding_a_number_to_all(kernels, dtype):
    x = np.array([-25, 0, 25, 50], dtype)
    tolerance = 4 * eps(dtype)
    np.testing.assert_allclose(kernels.softmax(x + 100), kernels.softmax(x), tolerance)
    np.testing.assert_allclose(kernels.log_softmax(x + 100), kernels.log_softmax(x), tolerance)


@each_float
def test_case_025_mean_of_a_million_tiny_numbers(kernels, dtype):
    x = np.full(10**6, np.log(1e-40), dtype)
    mean = kernels.logsumexp(x) - np.log(1e6)
    np.testing.assert_allclose(mean, float(x[0]), rtol=4 * eps(dtype))


@each_float
@pytest.mark.parametrize("c", [2, 5, 16, 33, 100, 1000])
def test_case_026_several_maxima_share_alike(kernels, dtype, c):
    x = np.full((20, c), 1.7, dtype)
    x[:, ::2] = 2.3
    for name in SOFTMAX_LIKE:
        result = getattr(kernels, name)(x)
        assert (result[:, ::2] == result[0, 0]).all()
        assert (result[:, 1::2] == result[0, 1]).all()


@each_float
def test_case_027_minus_zero_is_zero(kernels, dtype):
    for x, array in zip(forms([0.0, 0.0, 1.0], dtype), forms([-0.0, 0.0, 1.0], dtype), strict=True):
        for name in FAMILY:
            f = getattr(kernels, name)
            np.testing.assert_array_equal(f(array[0])[array[1]], f(x[0])[x[1]])


def test_case_028_float16_stays_float16(kernels, rng):
    x = rng.normal(0, 3, (9, 21)).astype("float16")
    for name in FAMILY:
        result = getattr(kernels, name)(x)
        inside = getattr(kernels, name)(x.astype("float32"))
        assert_same_bits(result, inside.astype("float16"))


def test_case_029_float16_extremes(kernels):
    x = np.array([65504, -65504], "float16")
    np.testing.assert_array_equal(kernels.softmax(x), [1, 0])
    np.testing.assert_array_equal(kernels.log_softmax(x), [0, -INF])
    np.testing.assert_array_equal(kernels.logsumexp(x), 65504)


def test_case_030_float16_sums_of_more_than_65504(kernels):
    x = np.zeros(70_000, "float16")
    np.testing.assert_array_equal(kernels.softmax(x), np.float16(1 / 70_000))
    np.testing.assert_array_equal(kernels.logsumexp(x), np.float16(np.log(70_000)))


def test_case_031_bfloat16_is_refused(kernels):
    x = np.zeros((2, 3), pytest.importorskip("ml_dtypes").bfloat16)
    for name in FAMILY:
        with pytest.raises(TypeError, match="bfloat16"):
            getattr(kernels, name)(x)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64"])
def test_case_032_integers_become_float64(kernels, dtype):
    for name in FAMILY:
        f = getattr(kernels, name)
        assert_same_bits(f(np.array([3, 1, 4], dtype)), f(np.array([3.0, 1.0, 4.0])))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_case_033_short_integers_do_not_wrap(kernels, dtype):
    info = np.iinfo(dtype)
    x = np.array([info.min, 0, info.max], dtype)
    for name in FAMILY:
        f = getattr(kernels, name)
        assert_same_bits(f(x), f(x.astype("float64")))


def test_case_034_integers_beyond_the_precision_of_float64(kernels):
    x = np.array([-(2**63), 2**63 - 1, 2**53 + 1])
    np.testing.assert_array_equal(kernels.softmax(x), [0, 1, 0])
    np.testing.assert_array_equal(kernels.logsumexp(x), float(2**63))


def test_case_035_bools_are_0_and_1(kernels):
    for name in FAMILY:
        f = getattr(kernels, name)
        assert_same_bits(f(np.array([True, False])), f(np.array([1.0, 0.0])))
    np.testing.assert_allclose(kernels.logsumexp([True, False]), 1.3132616875182228)


def refused_dtypes(kernels, x, match):
    """Every kernel refuses the array in each place where numbers are computed with."""
    plain = np.zeros((2, 2))
    for call in (
        lambda: kernels.softmax(x),
        lambda: kernels.log_softmax(x),
        lambda: kernels.logsumexp(x),
        lambda: kernels.entropy(x),
        lambda: kernels.kl_divergence(x, plain),
        lambda: kernels.kl_divergence(plain, x),
        lambda: kernels.linear(x, plain),
        lambda: kernels.linear(plain, x),
        lambda: kernels.linear(plain, plain, x[0]),
        lambda: kernels.cross_entropy(x, [0, 1]),
        lambda: kernels.cross_entropy_with_grad(x, [0, 1]),
        lambda: kernels.linear_cross_entropy(x, plain, None, [0, 1]),
        lambda: kernels.linear_cross_entropy_with_grad(plain, x, None, [0, 1]),
        lambda: kernels.predict(x, plain),
        lambda: kernels.predict_proba(plain, x),
    ):
        with pytest.raises(TypeError, match=match):
            call()


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_case_036_complex_is_refused(kernels, dtype):
    refused_dtypes(kernels, np.zeros((2, 2), dtype), dtype)


@pytest.mark.skipif(np.dtype("longdouble") == "float64", reason="longdouble is float64 here")
def test_case_037_longdouble_is_refused(kernels):
    refused_dtypes(kernels, np.zeros((2, 2), "longdouble"), "float128|float96|longdouble")


def test_case_038_object_is_refused(kernels):
    refused_dtypes(kernels, np.zeros((2, 2), object), "object")


@pytest.mark.parametrize("dtype", ["U3", "S3", "datetime64[D]", "timedelta64[s]", "f8,f8"])
def test_case_039_text_dates_and_structures_are_refused(kernels, dtype):
    refused_dtypes(kernels, np.zeros((2, 2), dtype), "dtype")


def test_case_040_ragged_lists_are_refused(kernels):
    for name in FAMILY:
        with pytest.raises(ValueError, match="inhomogeneous"):
            getattr(kernels, name)([[1.0, 2.0], [3.0]])


# 2. Shapes, axes, memory -------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, None], ids=str)
def test_case_041_scalars(kernels, axis):
    for x, kind in [
        (3.5, np.float64),
        (np.float32(3.5), np.float32),
        (np.array(3.5, "float16"), np.float16),
        (np.array(3), np.float64),
    ]:
        for name, expected in (("softmax", 1), ("log_softmax", 0), ("logsumexp", float(x))):
            result = getattr(kernels, name)(x, axis=axis)
            assert type(result) is kind
            assert result == expected


def test_case_042_lists(kernels):
    for name in FAMILY:
        f = getattr(kernels, name)
        assert_same_bits(f([[1, 2.5], [3, 4]]), f(np.array([[1, 2.5], [3, 4]])))
        assert_same_bits(f((1.0, 2.0)), f(np.array([1.0, 2.0])))


@each_float
def test_case_043_nothing(kernels, dtype):
    x = np.zeros(0, dtype)
    for name in SOFTMAX_LIKE:
        with pytest.raises(ValueError, match="zero-size array"):
            getattr(kernels, name)(x)
    assert_same_bits(kernels.logsumexp(x), np.dtype(dtype).type(-INF))


@each_float
def test_case_044_no_rows(kernels, dtype):
    x = np.zeros((0, 3), dtype)
    for name in SOFTMAX_LIKE:
        assert_same_bits(getattr(kernels, name)(x, axis=1), x)
    assert_same_bits(kernels.logsumexp(x, axis=1), np.zeros(0, dtype))
    assert_same_bits(kernels.logsumexp(x, axis=0), np.full(3, -INF, dtype))


@each_float
def test_case_045_rows_of_nothing(kernels, dtype):
    x = np.zeros((3, 0), dtype)
    for name in SOFTMAX_LIKE:
        with pytest.raises(ValueError, match="zero-size array"):
            getattr(kernels, name)(x, axis=1)
        assert_same_bits(getattr(kernels, name)(x, axis=0), x)
    assert_same_bits(kernels.logsumexp(x, axis=1), np.full(3, -INF, dtype))


@each_float
def test_case_046_all_axes(kernels, dtype, rng):
    x = rng.normal(size=(4, 5, 6)).astype(dtype)
    for name in SOFTMAX_LIKE:
        f = getattr(kernels, name)
        assert_same_bits(f(x, axis=None), f(x.ravel()).reshape(x.shape))
    assert_same_bits(kernels.logsumexp(x, axis=None), kernels.logsumexp(x.ravel()))


@each_float
@pytest.mark.parametrize("axis", [(1, 2), (-1, 1), (2, -2), (-2, -1)], ids=str)
def test_case_047_several_axes(kernels, dtype, axis, rng):
    x = rng.normal(size=(4, 5, 6)).astype(dtype)
    flat = x.reshape(4, 30)
    for name in SOFTMAX_LIKE:
        f = getattr(kernels, name)
        assert_same_bits(f(x, axis=axis), f(flat).reshape(x.shape))
    assert_same_bits(kernels.logsumexp(x, axis=axis), kernels.logsumexp(flat))


@each_float
def test_case_048_no_axis(kernels, dtype, rng):
    for x in (rng.normal(size=(3, 4)).astype(dtype), np.zeros((0, 3), dtype)):
        assert_same_bits(kernels.softmax(x, axis=()), np.ones_like(x))
        assert_same_bits(kernels.log_softmax(x, axis=()), np.zeros_like(x))
        assert_same_bits(kernels.logsumexp(x, axis=()), x)


@pytest.mark.parametrize("name", [*FAMILY, "entropy"])
def test_case_049_axes_that_are_refused(kernels, name):
    f, x = getattr(kernels, name), np.zeros((2, 3))
    for axis in (2, -3, (0, 2)):
        with pytest.raises(np.exceptions.AxisError, match="out of bounds"):
            f(x, axis=axis)
    for axis in ((0, 0), (0, -2)):
        with pytest.raises(ValueError, match=r"^axis: .*\(0, "):
            f(x, axis=axis)
    for axis in (1.0, "1", (0, 1.0)):
        with pytest.raises(TypeError):
            f(x, axis=axis)


@pytest.mark.parametrize("axis", [2**31, 2**63 - 1, -(2**63), 2**64])
def test_case_050_huge_axes(kernels, axis):
    for name in FAMILY:
        with pytest.raises(np.exceptions.AxisError):
            getattr(kernels, name)(np.zeros((2, 3)), axis=axis)


@pytest.mark.parametrize("axis", [0, -1, (0, 2), None, ()], ids=str)
def test_case_051_keepdims(kernels, axis, rng):
    x = rng.normal(size=(3, 4, 5))
    kept = kernels.logsumexp(x, axis=axis, keepdims=True)
    assert kept.shape == x.sum(axis=axis, keepdims=True).shape
    assert_same_bits(kept.squeeze(), kernels.logsumexp(x, axis=axis))


@each_float
def test_case_052_every_stride_and_size_gives_the_same_bits(kernels, dtype, rng):
    base = rng.normal(0, 4, (3, 400)).astype(dtype)
    for n in range(2, 100):
        for step in (-4, -3, -2, -1, 1, 2, 3, 4):
            x = base[:, ::step][:, :n]
            for name in FAMILY:
                f = getattr(kernels, name)
                assert_same_bits(f(x), f(x.copy()))


@each_float
@pytest.mark.parametrize("shape", [(70, 10), (20, 100), (5, 3)], ids=str)
def test_case_053_fortran_order_transposes_and_columns(kernels, dtype, shape, rng):
    x = rng.normal(0, 4, shape).astype(dtype)
    for name in FAMILY:
        f = getattr(kernels, name)
        expected = f(x)
        assert_same_bits(f(np.asfortranarray(x)), expected)
        assert_same_bits(f(x.T, axis=0).T, expected)
        assert_same_bits(f(x.T.copy(), axis=0).T, expected)
        assert_same_bits(f(sliced_columns(x)), expected)
        assert_same_bits(f(strided(x)), expected)


@each_float
def test_case_054_broadcast_arrays(kernels, dtype):
    x = np.broadcast_to(np.array(1.5, dtype), (3, 4))
    assert_same_bits(kernels.softmax(x), np.full((3, 4), 0.25, dtype))
    out = np.lib.stride_tricks.as_strided(np.full(4, 7, dtype), (3, 4), (0, x.itemsize))
    for call in (
        lambda: kernels.softmax(x, out=out),
        lambda: kernels.log_softmax(x, out=out),
        lambda: kernels.cross_entropy_with_grad(x, [0, 1, 2], out=out),
        lambda: kernels.linear(np.ones((3, 1), dtype), np.ones((1, 4), dtype), out=out),
    ):
        with pytest.raises(ValueError, match="^out: .*overlaps itself"):
            call()
    assert (out == 7).all()


@pytest.mark.parametrize("dtype", ["float16", *FLOATS])
def test_case_055_misaligned(kernels, dtype, rng):
    for shape in ((70, 10), (20, 100), (200,)):
        x = rng.normal(0, 4, shape).astype(dtype)
        for name in FAMILY:
            f = getattr(kernels, name)
            assert_same_bits(f(misaligned(x)), f(x))
        for name in SOFTMAX_LIKE:
            f = getattr(kernels, name)
            assert_same_bits(f(x, out=misaligned(x)), f(x))


@pytest.mark.parametrize("dtype", ["float16", *FLOATS])
def test_case_056_big_endian(kernels, dtype, rng):
    for shape in ((70, 10), (20, 100), ()):
        x = np.array(rng.normal(0, 4, shape)).astype(dtype)
        for name in FAMILY:
            f = getattr(kernels, name)
            assert_same_bits(f(big_endian(x)), f(x))


@each_float
def test_case_057_read_only_and_memory_mapped(kernels, dtype, rng):
    for shape in ((70, 10), (20, 100)):
        x = rng.normal(0, 4, shape).astype(dtype)
        for name in FAMILY:
            f = getattr(kernels, name)
            assert_same_bits(f(read_only(x)), f(x))
            result = f(memory_mapped(x))
            assert type(result) is np.ndarray
            assert_same_bits(result, f(x))


@pytest.mark.parametrize("dtype", ["float16", *FLOATS, "uint8"])
def test_case_058_inputs_are_not_modified(kernels, dtype, rng):
    for shape in ((70, 10), (20, 100), (3, 4, 5)):
        x = rng.integers(0, 9, shape).astype(dtype)
        for a in (x, np.asfortranarray(x), backwards(x)):
            for axis in (0, -1, None):
                for name in (*FAMILY, "entropy"):
                    with Unchanged(a):
                        getattr(kernels, name)(a, axis)
                with Unchanged(a):
                    kernels.kl_divergence(a, a, axis)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_case_059_matrices_give_arrays(kernels):
    x = np.matrix([[1.0, 2.0], [3.0, 5.0]])
    for name in FAMILY:
        f = getattr(kernels, name)
        for axis in (-1, 0, None):
            result = f(x, axis=axis)
            assert not isinstance(result, np.matrix)
            assert_same_bits(result, f(x.A, axis=axis))
    assert type(kernels.linear(x, x)) is np.ndarray
    assert type(kernels.cross_entropy_with_grad(x, [0, 1]).dlogits) is np.ndarray


def test_case_060_masked_arrays_are_refused(kernels):
    refused_dtypes(kernels, np.ma.masked_equal([[1.0, 2.0], [3.0, 5.0]], 2), r"\.filled\(\)")
    x = np.zeros((2, 2))
    labels = np.ma.masked_equal([0, 1], 1)
    for call in (
        lambda: kernels.cross_entropy(x, labels),
        lambda: kernels.linear_cross_entropy_with_grad(x, x, None, [0, 1], rows=labels),
        lambda: kernels.cross_entropy(x, [0, 1], weight=labels),
        lambda: kernels.cross_entropy(x, [0, 1], sample_weight=labels),
    ):
        with pytest.raises(TypeError, match=r"^(target|rows|weight|sample_weight): .*\.filled\(\)"):
            call()


class Subclass(np.ndarray):
    pass


def test_case_061_subclasses_give_arrays(kernels):
    x = np.array([[1.0, 2.0], [3.0, 5.0]]).view(Subclass)
    for name in FAMILY:
        assert type(getattr(kernels, name)(x)) is np.ndarray
    result = kernels.linear_cross_entropy_with_grad(x, x, x[0], [0, 1], with_dX=True)
    for array in (kernels.linear(x, x), kernels.predict_proba(x, x), *result[1:4]):
        assert type(array) is np.ndarray


@pytest.mark.parametrize("dtype", ["float16", *FLOATS])
@pytest.mark.parametrize("name", SOFTMAX_LIKE)
@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None], ids=str)
def test_case_062_in_place(kernels, name, dtype, axis, rng):
    f = getattr(kernels, name)
    for shape in ((70, 3, 10), (5, 2, 100)):
        x = rng.normal(0, 4, shape).astype(dtype)
        expected = f(x, axis)
        for a in (x.copy(), np.asfortranarray(x), strided(x), backwards(x)):
            assert f(a, axis, out=a) is a
            assert_same_bits(a, expected)


@pytest.mark.parametrize("dtype", ["float16", *FLOATS])
@pytest.mark.parametrize("name", SOFTMAX_LIKE)
@pytest.mark.parametrize("axis", [-1, 0], ids=str)
def test_case_063_partly_in_place(kernels, name, dtype, axis, rng):
    f = getattr(kernels, name)
    x = rng.normal(0, 4, (40, 10)).astype(dtype)
    expected = f(x, axis)
    for shift in (1, 3, 10, 15):
        for first in (0, shift):
            memory = np.zeros(x.size + shift, dtype)
            source = memory[first : first + x.size].reshape(x.shape)
            out = memory[shift - first : shift - first + x.size].reshape(x.shape)
            source[...] = x
            f(source, axis, out=out)
            assert_same_bits(out, expected)
    flipped = x.copy()
    f(flipped, axis, out=flipped[::-1])
    assert_same_bits(flipped[::-1], expected)
    square = x[:10, :10].copy()
    expected = f(square, axis)
    f(square, axis, out=square.T)
    assert_same_bits(square.T, expected)


@pytest.mark.parametrize("name", SOFTMAX_LIKE)
def test_case_064_out_that_is_refused(kernels, name):
    x = np.ones((2, 3))
    for out, match in [
        (np.full((3, 2), 7.0), r"^out: .*\(3, 2\).*\(2, 3\)"),
        (np.full(6, 7.0), r"^out: .*\(6,\).*\(2, 3\)"),
        (np.full((2, 3), 7, "float32"), "^out: .*float32.*float64"),
        (np.full((2, 3), 7, ">f8"), "^out: .*>f8"),
        (read_only(np.full((2, 3), 7.0)), "^out: .*read-only"),
        (
            np.lib.stride_tricks.as_strided(np.full(4, 7.0), (2, 3), (8, 8)),
            "^out: .*overlaps itself",
        ),
    ]:
        with Unchanged(x, out), pytest.raises(ValueError, match=match):
            getattr(kernels, name)(x, out=out)
    with pytest.raises(TypeError, match="^out: .*list"):
        getattr(kernels, name)(x, out=[[0.0] * 3] * 2)


def test_case_065_the_result_is_out(kernels):
    x = np.ones((3, 3))
    for dtype in ("float16", *FLOATS):
        out = np.zeros((3, 3), dtype)
        assert kernels.softmax(x.astype(dtype), out=out) is out
        assert kernels.log_softmax(x.astype(dtype), out=out) is out
    assert kernels.linear(x, x, out=out) is out
    assert kernels.cross_entropy_with_grad(x, [0, 1, 2], out=out).dlogits is out
    dW, db, dX = np.zeros((3, 3)), np.zeros(3), np.zeros((3, 3))
    result = kernels.linear_cross_entropy_with_grad(
        x, x, x[0], [0, 1, 2], with_dX=True, out=(dW, db, dX)
    )
    assert result.dW is dW
    assert result.db is db
    assert result.dX is dX


@pytest.fixture
def huge(tmp_path):
    """Five GiB of zeros in a file without blocks: only what is written takes room."""
    path = tmp_path / "huge"
    with path.open("wb") as f:
        f.truncate(5 << 30)
    return np.memmap(path, np.uint8, "r+")


def test_case_066_offsets_of_more_than_2_31(kernels, huge, rng):
    step = (1 << 31) + 4096  # bytes between two rows; numbers are further than 2^32 bytes apart
    for shape, strides in [((3, 20), (step, 4)), ((20, 3), (4, step))]:
        far = np.lib.stride_tricks.as_strided(huge.view("float32"), shape, strides)
        far[...] = rng.normal(size=shape)
        near = np.array(far)
        labels = np.arange(shape[0]) % 3
        for name in FAMILY:
            for axis in (0, 1):
                assert_same_bits(
                    getattr(kernels, name)(far, axis), getattr(kernels, name)(near, axis)
                )
        W = rng.normal(size=(shape[1], 4)).astype("float32")
        given = kernels.linear_cross_entropy_with_grad(far, W, None, labels, with_dX=True)
        wanted = kernels.linear_cross_entropy_with_grad(near, W, None, labels, with_dX=True)
        for actual, expected in zip(given[:3], wanted[:3], strict=True):
            if expected is not None:
                np.testing.assert_allclose(actual, expected, 1e-5, 1e-7)
        X = rng.normal(size=(5, shape[0])).astype("float32")
        np.testing.assert_allclose(kernels.linear(X, far), kernels.linear(X, near), 1e-5, 1e-6)


def test_case_066_rows_of_more_than_2_32_bytes(kernels, huge, rng):
    X = huge[: 70_000_000 * 64].reshape(-1, 64)
    rows = np.array([69_999_999, 3, -1, 67_108_863, 67_108_864])
    X[rows] = rng.integers(0, 255, (5, 64))
    W = rng.normal(0, 0.01, (64, 10)).astype("float32")
    target = np.broadcast_to(np.uint8(4), len(X))
    result = kernels.linear_cross_entropy_with_grad(X, W, None, target, rows=rows, with_dX=True)
    expected = kernels.linear_cross_entropy_with_grad(X[rows], W, None, target[:5], with_dX=True)
    assert_same_bits(result, expected)


@pytest.mark.slow
def test_case_066_more_than_2_31_numbers_in_a_row(compiled):
    n = (1 << 31) + 16
    x = np.broadcast_to(np.float32(1.5), n)
    np.testing.assert_allclose(compiled.logsumexp(x), 1.5 + np.log(n), rtol=1e-6)


@pytest.mark.slow
def test_case_066_more_than_2_31_rows(compiled):
    n = (1 << 31) + 16
    X, W = np.broadcast_to(np.float32(1), (n, 1)), np.array([[1, 3, 2]], "float32")
    labels = np.broadcast_to(np.uint8(1), n)
    result = compiled.linear_cross_entropy_with_grad(X, W, None, labels)
    expected = compiled.linear_cross_entropy(X[:1], W, None, labels[:1])
    np.testing.assert_allclose(result.loss, expected, rtol=1e-6)
    assert result.n_correct == result.total_weight == n


def test_case_067_results_too_large_for_any_memory(kernels):
    X = np.broadcast_to(np.float32(1), (1 << 40, 1))
    W = np.broadcast_to(np.float32(1), (1, 1 << 40))
    for name in ("linear", "predict_proba"):
        with pytest.raises((ValueError, MemoryError)):
            getattr(kernels, name)(X, W)


def test_case_068_results_too_large_for_this_memory(kernels, rng):
    X = np.broadcast_to(np.float32(1), (1 << 38, 1))
    W = np.ones((1, 1 << 12), "float32")
    x = rng.normal(size=(3, 5))
    before = kernels.softmax(x)
    for call in (lambda: kernels.linear(X, W), lambda: kernels.predict_proba(X, W)):
        with pytest.raises(MemoryError):
            call()
    assert_same_bits(kernels.softmax(x), before)


def test_case_069_no_floating_point_warnings(kernels):
    x = np.array([[0.0, -745.0, -1e308], [INF, NAN, -INF], [1e308, -1e308, 5e-324]])
    p = np.array([[0.0, 1e-308, 1.0], [NAN, INF, 0.0], [1.0, 0.0, 0.0]])
    one = np.ones(4)
    with np.errstate(all="raise"):
        for dtype in FLOATS:
            with np.errstate(all="ignore"):
                a, q = x.astype(dtype), p.astype(dtype)
            for name in FAMILY:
                getattr(kernels, name)(a)
            kernels.entropy(q)
            kernels.kl_divergence(q, q[::-1])
            kernels.linear(a, a)
            kernels.predict_proba(a, a)
            kernels.cross_entropy_with_grad(a, [0, 1, 2])
            kernels.cross_entropy_with_grad(a, q, reduction="none")
            kernels.linear_cross_entropy_with_grad(a, a, None, [0, 1, -100], with_dX=True)
        kernels.softmax(np.array([65504, -65504], "float16"))
        assert (one + one == 2).all()  # and no flag is left behind for the next operation
        assert np.geterr() == dict.fromkeys(("divide", "over", "under", "invalid"), "raise")


MXCSR_SOURCE = """
#include <xmmintrin.h>
unsigned get(void) { return _mm_getcsr(); }
void set(unsigned value) { _mm_setcsr(value); }
"""
FLUSH_TO_ZERO, DENORMALS_ARE_ZERO, FLAGS = 0x8000, 0x0040, 0x003F


@pytest.fixture(scope="module")
def mxcsr(tmp_path_factory):
    """Functions get() and set(value) for the control register of SSE arithmetic."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("there is no MXCSR on this architecture")
    if compiler is None:
        pytest.skip("there is no C compiler to reach MXCSR with")
    folder = tmp_path_factory.mktemp("mxcsr")
    (folder / "mxcsr.c").write_text(MXCSR_SOURCE)
    library = folder / "mxcsr.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "mxcsr.c")], check=True
    )
    return ctypes.CDLL(str(library))


@contextlib.contextmanager
def flushing(mxcsr):
    before = mxcsr.get()
    mxcsr.set(before | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO)
    try:
        yield
    finally:
        mxcsr.set(before)


def test_case_070_flushing_to_zero(kernels, mxcsr, rng):
    for dtype in FLOATS:
        low = {"float32": -103.0, "float64": -744.0}[dtype]
        for shape in ((40, 10), (20, 100)):
            x = rng.uniform(low, 0, shape).astype(dtype)
            x[:, 0] = 0
            labels = np.zeros(len(x), int)
            expected = kernels.softmax(x)
            with flushing(mxcsr):
                p = kernels.softmax(x)
                log_p = kernels.log_softmax(x)
                loss, dlogits = kernels.cross_entropy_with_grad(x, labels, reduction="none")
            assert np.isfinite(log_p).all()
            assert np.isfinite(loss).all()
            assert np.isfinite(dlogits).all()
            smallest = np.finfo(dtype).smallest_normal
            np.testing.assert_allclose(p, expected, rtol=1e-12, atol=4 * smallest)


def test_case_071_the_control_register_is_left_alone(kernels, mxcsr, rng):
    before = mxcsr.get() & ~FLAGS
    assert before == 0x1F80  # importing has not changed it either
    x = rng.uniform(-800, 0, (50, 33))
    for a in (x, x.astype("float32")):
        for name in FAMILY:
            getattr(kernels, name)(a)
        kernels.linear_cross_entropy_with_grad(a, a.T.copy(), None, np.arange(50), with_dX=True)
        assert mxcsr.get() & ~FLAGS == before


# 3. Cross-entropy --------------------------------------------------------------------------------


def losses_and_gradient(kernels, logits, target, **options):
    """The loss, which must be the same with and without the gradient, and the gradient."""
    loss, dlogits = kernels.cross_entropy_with_grad(logits, target, **options)
    assert_same_bits(kernels.cross_entropy(logits, target, **options), loss)
    return loss, dlogits


def in_widths(logits, target, dtype):
    """The logits, and the same with more classes of no probability."""
    logits, target = np.array(logits, dtype), np.array(target)
    yield logits, target
    wide = np.full((*logits.shape[:-1], 100), -1e30, dtype)
    wide[..., : logits.shape[-1]] = logits
    if target.dtype.kind == "f":
        target = np.pad(target, [(0, 0)] * (target.ndim - 1) + [(0, 100 - target.shape[-1])])
    yield wide, target


@each_float
@pytest.mark.parametrize("c", [3, 100])
def test_case_072_everything_ignored_mean(kernels, dtype, c):
    loss, dlogits = losses_and_gradient(kernels, np.ones((4, c), dtype), [-100] * 4)
    assert np.isnan(loss)
    assert_same_bits(dlogits, np.zeros((4, c), dtype))


@each_float
@pytest.mark.parametrize("c", [3, 100])
def test_case_073_everything_ignored_sum_and_none(kernels, dtype, c):
    for reduction, expected in (("sum", 0.0), ("none", np.zeros(4, dtype))):
        loss, dlogits = losses_and_gradient(
            kernels, np.ones((4, c), dtype), [-100] * 4, reduction=reduction
        )
        assert_same_bits(loss, expected)
        assert_same_bits(dlogits, np.zeros((4, c), dtype))


@each_float
def test_case_074_an_empty_batch(kernels, dtype):
    x = np.zeros((0, 3), dtype)
    for target in (np.zeros(0, int), np.zeros((0, 3), dtype)):
        for reduction, expected in (("mean", NAN), ("sum", 0.0), ("none", np.zeros(0, dtype))):
            loss, dlogits = losses_and_gradient(kernels, x, target, reduction=reduction)
            assert_same_bits(loss, expected)
            assert_same_bits(dlogits, x)
            result = kernels.linear_cross_entropy_with_grad(
                np.zeros((0, 2), dtype), np.ones((2, 3), dtype), None, target, reduction=reduction
            )
            assert_same_bits(result.loss, expected)
            assert_same_bits(result.dW, np.zeros((2, 3), dtype))


OUTSIDE = [(10, 0), (-1, 17), (-101, 199), (2**40, 130), (-(2**63), 64)]


@each_float
@pytest.mark.parametrize(("label", "row"), OUTSIDE)
def test_case_075_labels_outside(kernels, dtype, label, row):
    x, target = np.zeros((200, 10), dtype), np.zeros(200, int)
    target[row] = label
    match = rf"^target: label {label} at row {row} is outside \[0, 10\)$"
    with pytest.raises(IndexError, match=match):
        kernels.cross_entropy(x, target)
    with pytest.raises(IndexError, match=match):
        kernels.linear_cross_entropy(x, np.ones((10, 10), dtype), None, target)


@each_float
@pytest.mark.parametrize(("label", "row"), OUTSIDE)
def test_case_076_labels_outside_backward(kernels, dtype, label, row):
    x, target = np.zeros((200, 10), dtype), np.zeros(200, int)
    W = np.ones((10, 10), dtype)
    target[row] = label
    out = np.full_like(x, 7)
    dW, dX = np.full_like(W, 7), np.full_like(x, 7)
    match = rf"^target: label {label} at row {row} is outside \[0, 10\)$"
    with Unchanged(x, target, W, out, dW, dX):
        with pytest.raises(IndexError, match=match):
            kernels.cross_entropy_with_grad(x, target, out=out)
        with pytest.raises(IndexError, match=match):
            kernels.linear_cross_entropy_with_grad(
                x, W, None, target, with_dX=True, out=(dW, None, dX)
            )


def test_case_077_labels_that_change_meanwhile(compiled):
    p = Problem(Case(3000, 16, 10, "float32", reduction="sum"))
    expected = compiled.linear_cross_entropy_with_grad(**p.gradient)
    given = compiled.cross_entropy_with_grad(p.X[:, :10], p.target)
    right, wrong, stop = p.target[1234], 2**40, threading.Event()

    def meddle():
        while not stop.is_set():
            p.target[1234] = wrong
            p.target[1234] = right

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        for _ in range(60):
            for call, whole in (
                (lambda: compiled.linear_cross_entropy_with_grad(**p.gradient), expected),
                (lambda: compiled.cross_entropy_with_grad(p.X[:, :10], p.target), given),
            ):
                with contextlib.suppress(IndexError):
                    assert_same_bits(call(), whole)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("form", ["logits", "dense", "sparse"])
@pytest.mark.parametrize("c", [10, 100, 3600])  # the last of a W in panels
def test_case_077_a_label_that_changes_after_the_check(compiled, c, form, monkeypatch):
    n, d = 70, 300
    x, W, target = np.ones((n, d)), np.zeros((d, c)), np.zeros(n, np.int32)
    csr = SimpleNamespace(
        data=np.ones(n), indices=np.arange(n), indptr=np.arange(n + 1), shape=(n, d)
    )

    def call():
        if form == "logits":
            return compiled.cross_entropy_with_grad(np.zeros((n, c)), target)
        return compiled.linear_cross_entropy_with_grad(
            csr if form == "sparse" else x, W, None, target
        )

    class Meddling:
        """The compiled module, with a label that changes when a driver is made."""

        def __init__(self, wrong):
            self.wrong = wrong

        def __getattr__(self, name):
            if name in ("CrossEntropy", "LinearPass", "SparsePass"):
                target[66] = self.wrong
            return getattr(_kernels, name)

    for wrong in (c, -1):
        target[66] = 0
        for module in (cross_entropy, problem):
            monkeypatch.setattr(module, "_kernels", Meddling(wrong))
        with pytest.raises(IndexError, match="at row 66 changed during the call"):
            call()


@each_float
@pytest.mark.parametrize("c", [4, 100])
def test_case_078_a_valid_class_may_be_ignored(kernels, dtype, c, rng):
    x, target = rng.normal(size=(9, c)).astype(dtype), np.array([0, 1, 2, 3, 2, 1, 2, 0, 3])
    kept = target != 2
    loss, dlogits = losses_and_gradient(kernels, x, target, ignore_index=2, reduction="none")
    expected, gradient = losses_and_gradient(kernels, x[kept], target[kept], reduction="none")
    assert_same_bits(loss[kept], expected)
    assert_same_bits(dlogits[kept], gradient)
    assert not loss[~kept].any()
    assert not dlogits[~kept].any()
    # The default ignores -100 only.
    with pytest.raises(IndexError, match="label -100 at row 0"):
        kernels.cross_entropy(x, np.full(9, -100), ignore_index=2)
    assert np.isnan(kernels.cross_entropy(x, np.full(9, -100)))


@each_float
def test_case_079_an_ignored_class_stays_in_the_denominator(kernels, dtype):
    # Three equal logits: the loss of another class is log 3, not log 2.
    loss = kernels.cross_entropy(np.zeros((2, 3), dtype), [0, 2], ignore_index=2)
    np.testing.assert_allclose(loss, np.log(3), rtol=4 * eps(dtype))


@each_float
@each_reduction
@pytest.mark.parametrize("c", [3, 100])
def test_case_080_nan_in_ignored_rows(kernels, dtype, reduction, c, rng):
    x = rng.normal(size=(5, c)).astype(dtype)
    target = np.array([0, -100, 2, -100, 1])
    options = {"reduction": reduction, "label_smoothing": 0.1}
    expected = losses_and_gradient(kernels, x, target, **options)
    x[1, 0], x[3] = NAN, INF
    result = losses_and_gradient(kernels, x, target, **options)
    assert_same_bits(result, expected)
    assert_same_bits(result[1][[1, 3]], np.zeros((2, c), dtype))

    W, b = rng.normal(size=(c, 4)).astype(dtype), rng.normal(size=4).astype(dtype)
    clean = np.where(np.isfinite(x), x, 0)
    result, expected = (
        kernels.linear_cross_entropy_with_grad(a, W, b, target, with_dX=True, **options)
        for a in (x, clean)
    )
    assert_same_bits(result, expected)
    assert_same_bits(result.dX[[1, 3]], np.zeros((2, c), dtype))


@each_float
def test_case_081_weighted_mean(kernels, dtype, rng):
    x, target = rng.normal(size=(6, 4)).astype(dtype), np.array([0, 1, 2, 3, 1, 1])
    w = rng.uniform(0.1, 3, 4)
    losses = kernels.cross_entropy(x, target, reduction="none").astype(float)
    loss, dlogits = losses_and_gradient(kernels, x, target, weight=w)
    np.testing.assert_allclose(loss, (w[target] * losses).sum() / w[target].sum(), 8 * eps(dtype))
    plain = kernels.cross_entropy_with_grad(x, target, reduction="sum").dlogits
    wanted = plain * (w[target] / w[target].sum())[:, None]
    np.testing.assert_allclose(dlogits, wanted, 16 * eps(dtype), 4 * eps(dtype))


@each_float
def test_case_082_all_used_weights_zero(kernels, dtype):
    x = np.zeros((2, 3), dtype)
    assert np.isnan(kernels.cross_entropy(x, [1, 1], weight=[1, 0, 1]))
    assert np.isnan(kernels.cross_entropy(x, [0, 1], sample_weight=[0, 0]))
    assert np.isnan(kernels.cross_entropy(x, np.full((2, 3), 1 / 3), sample_weight=[0, 0]))


def test_case_083_weights_of_another_length(kernels):
    x = np.zeros((2, 3))
    for weight in ([1.0, 2.0], [1.0] * 4, 1.0, [[1.0] * 3]):
        with pytest.raises(ValueError, match=r"^weight: .*\(3,\)"):
            kernels.cross_entropy(x, [0, 1], weight=weight)


@each_float
def test_case_084_negative_class_weights(kernels, dtype, rng):
    x, target, w = rng.normal(size=(3, 2)).astype(dtype), [0, 1, 0], np.array([1.0, -0.5])
    losses = kernels.cross_entropy(x, target, reduction="none").astype(float)
    expected = (losses * w[target]).sum() / w[target].sum()
    loss, dlogits = losses_and_gradient(kernels, x, target, weight=w)
    np.testing.assert_allclose(loss, expected, 32 * eps(dtype))
    plain = kernels.cross_entropy_with_grad(x, target, reduction="sum").dlogits
    np.testing.assert_allclose(dlogits, plain * (w[target] / 1.5)[:, None], 32 * eps(dtype))


def smoothed_losses(kernels, x, target, e, w):
    """(1 - e) w_y nll + e / C sum_c w_c (-log p_c), row by row, from the logarithms."""
    log_p = kernels.log_softmax(x).astype(float)
    nll = -log_p[np.arange(len(x)), target]
    return (1 - e) * w[target] * nll + e / x.shape[1] * (-log_p * w).sum(axis=1)


@each_float
@pytest.mark.parametrize("e", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("c", [4, 100])
def test_case_085_smoothing(kernels, dtype, e, c, rng):
    x, target = rng.normal(size=(5, c)).astype(dtype), rng.integers(0, c, 5)
    expected = smoothed_losses(kernels, x, target, e, np.ones(c))
    losses, _ = losses_and_gradient(kernels, x, target, label_smoothing=e, reduction="none")
    np.testing.assert_allclose(losses, expected, 16 * eps(dtype))
    mean, _ = losses_and_gradient(kernels, x, target, label_smoothing=e)
    np.testing.assert_allclose(mean, expected.mean(), 16 * eps(dtype))


@each_float
@pytest.mark.parametrize("c", [4, 100])
def test_case_086_smoothing_with_class_weights(kernels, dtype, c, rng):
    x, target, w = (
        rng.normal(size=(5, c)).astype(dtype),
        rng.integers(0, c, 5),
        rng.uniform(0, 2, c),
    )
    options = {"label_smoothing": 0.2, "weight": w}
    expected = smoothed_losses(kernels, x, target, 0.2, w)
    losses, _ = losses_and_gradient(kernels, x, target, reduction="none", **options)
    np.testing.assert_allclose(losses, expected, 16 * eps(dtype))
    mean, _ = losses_and_gradient(kernels, x, target, **options)
    np.testing.assert_allclose(mean, expected.sum() / w[target].sum(), 16 * eps(dtype))


@each_float
def test_case_087_smoothing_with_ignored_rows(kernels, dtype, rng):
    x, target = rng.normal(size=(6, 4)).astype(dtype), np.array([0, -100, 2, 3, -100, 1])
    kept, w = target >= 0, rng.uniform(0.1, 2, 4)
    options = {"label_smoothing": 0.2, "weight": w}
    for reduction in ("mean", "sum"):
        loss, dlogits = losses_and_gradient(kernels, x, target, reduction=reduction, **options)
        expected, gradient = losses_and_gradient(
            kernels, x[kept], target[kept], reduction=reduction, **options
        )
        np.testing.assert_allclose(loss, expected, 4 * eps(dtype))
        assert_same_bits(dlogits[kept], gradient)
        assert not dlogits[~kept].any()


def test_case_088_smoothing_outside_0_to_1(kernels):
    x = np.zeros((2, 3))
    for e in (1.5, -0.1, -1e-300, NAN, INF):
        with pytest.raises(ValueError, match=rf"^label_smoothing: .*{e}.*0.*1"):
            kernels.cross_entropy(x, [0, 1], label_smoothing=e)
    for e in (0, 1, 1.0, np.float32(0.5)):
        np.testing.assert_allclose(kernels.cross_entropy(x, [0, 1], label_smoothing=e), np.log(3))


@each_float
def test_case_089_mean_over_soft_targets(kernels, dtype, rng):
    x, t, w = rng.normal(size=(5, 4)).astype(dtype), rng.dirichlet(np.ones(4), 5), [1, 2, 3, 4]
    losses = -(t * w * kernels.log_softmax(x.astype(float))).sum(axis=1)
    loss, _ = losses_and_gradient(kernels, x, t, weight=w)
    np.testing.assert_allclose(loss, losses.sum() / 5, 16 * eps(dtype))
    s = rng.uniform(0.1, 2, 5)
    loss, _ = losses_and_gradient(kernels, x, t, weight=w, sample_weight=s)
    np.testing.assert_allclose(loss, (s * losses).sum() / s.sum(), 16 * eps(dtype))


@each_float
@pytest.mark.parametrize("c", [4, 100])
def test_case_090_smoothing_of_soft_targets(kernels, dtype, c, rng):
    x, t, e = rng.normal(size=(5, c)).astype(dtype), rng.dirichlet(np.ones(c), 5), 0.3
    smoothed = t * (1 - e) + e / c
    result = losses_and_gradient(kernels, x, t, label_smoothing=e)
    expected = losses_and_gradient(kernels, x, smoothed)
    np.testing.assert_allclose(result[0], expected[0], 16 * eps(dtype))
    np.testing.assert_allclose(result[1], expected[1], 16 * eps(dtype), 4 * eps(dtype))


def test_case_091_soft_targets_with_a_class_to_ignore(kernels):
    x, t = np.zeros((2, 3)), np.full((2, 3), 1 / 3)
    with pytest.raises(ValueError, match="^ignore_index: .*0.*probabilit"):
        kernels.cross_entropy(x, t, ignore_index=0)
    for ignore in (-100, -1):
        np.testing.assert_allclose(kernels.cross_entropy(x, t, ignore_index=ignore), np.log(3))


def test_case_092_integers_in_the_shape_of_the_logits(kernels):
    x, t = np.zeros((3, 3)), np.eye(3, dtype=int)
    for call in (
        lambda: kernels.cross_entropy(x, t),
        lambda: kernels.linear_cross_entropy_with_grad(x, x, None, t),
    ):
        with pytest.raises(ValueError, match=r"^target: .*\(3, 3\).*argmax\(axis=1\)"):
            call()


@each_float
@pytest.mark.parametrize("c", [3, 100])
def test_case_093_soft_rows_that_are_no_distributions(kernels, dtype, c, rng):
    x, t = rng.normal(size=(4, c)).astype(dtype), rng.normal(size=(4, c))
    wide = x.astype(float)
    loss, dlogits = losses_and_gradient(kernels, x, t, reduction="none")
    sizes = np.abs(t * kernels.log_softmax(wide)).sum(axis=1)
    error = np.abs(loss + (t * kernels.log_softmax(wide)).sum(axis=1))
    assert (error <= 8 * eps(dtype) * sizes).all()
    gradient = kernels.softmax(wide) * t.sum(axis=1, keepdims=True) - t
    np.testing.assert_allclose(dlogits, gradient, 0, 8 * eps(dtype) * np.abs(t).sum(axis=1).max())


@each_float
def test_case_094_all_zero_soft_rows(kernels, dtype):
    for x, t in in_widths([[3, 5], [1, 0]], np.array([[0.0, 0.0], [0.0, 1.0]]), dtype):
        loss, dlogits = losses_and_gradient(kernels, x, t, reduction="none")
        assert loss[0] == 0
        assert loss[1] > 0
        assert not dlogits[0].any()


@each_float
def test_case_095_probability_0_beside_a_logit_of_minus_infinity(kernels, dtype):
    for c in (2, 100):
        x, t = np.full((1, c), -INF, dtype), np.zeros((1, c))
        x[0, 1], t[0, 1] = 0, 1
        loss, dlogits = losses_and_gradient(kernels, x, t)
        assert loss == 0
        assert not dlogits.any()


@each_float
@pytest.mark.parametrize("c", [2, 100])
def test_case_096_a_label_with_a_logit_of_minus_infinity(kernels, dtype, c):
    x = np.zeros((1, c), dtype)
    x[0, 0] = -INF
    loss, dlogits = losses_and_gradient(kernels, x, [0])
    assert loss == INF
    assert np.isfinite(dlogits).all()
    np.testing.assert_allclose(dlogits[0], [-1] + [1 / (c - 1)] * (c - 1), 4 * eps(dtype))
    loss, _ = losses_and_gradient(kernels, x, [1])
    np.testing.assert_allclose(loss, np.log(c - 1), 4 * eps(dtype))


@each_float
@pytest.mark.parametrize("c", [2, 100])
@pytest.mark.parametrize("e", [0.1, 1.0])
def test_case_097_smoothing_beside_a_logit_of_minus_infinity(kernels, dtype, c, e):
    x = np.zeros((1, c), dtype)
    x[0, 0] = -INF
    for target in ([1], np.eye(c)[[1]]):
        loss, dlogits = losses_and_gradient(kernels, x, target, label_smoothing=e)
        assert loss == INF
        assert np.isfinite(dlogits).all()


@each_float
@pytest.mark.parametrize("big", [1e30, 4.4e11])
def test_case_098_huge_logits(kernels, dtype, big):
    x = np.array([[big, -big]], dtype)
    big = float(x[0, 0])
    for array, target in in_widths(x, [1], dtype):
        loss, dlogits = losses_and_gradient(kernels, array, target)
        assert loss == 2 * big
        np.testing.assert_array_equal(dlogits[0, :2], [1, -1])


@each_float
def test_case_099_perfect_predictions(kernels, dtype):
    e10 = np.exp(10)
    for array, target in in_widths([[e10, -e10], [-e10, e10]], [0, 1], dtype):
        loss, _ = losses_and_gradient(kernels, array, target, reduction="none")
        assert (loss >= 0).all()
        assert (loss <= 1e-14).all()
        loss, _ = losses_and_gradient(kernels, array, np.eye(array.shape[1])[target])
        assert 0 <= loss <= 1e-14


@each_float
@pytest.mark.parametrize("c", [2, 10, 100])
def test_case_099_losses_are_never_negative(kernels, dtype, c, rng):
    x = rng.normal(0, 30, (500, c)).astype(dtype)
    for target in (x.argmax(axis=1), np.eye(c)[x.argmax(axis=1)]):
        assert (kernels.cross_entropy(x, target, reduction="none") >= 0).all()


@pytest.mark.parametrize("dtype", LABEL_DTYPES)
def test_case_100_labels_of_any_integer_dtype(kernels, dtype, rng):
    x, target = rng.normal(size=(9, 5)), rng.integers(0, 5, 9)
    expected = losses_and_gradient(kernels, x, target)
    assert_same_bits(losses_and_gradient(kernels, x, target.astype(dtype)), expected)
    top = np.iinfo(dtype).max
    target[4] = 0
    bad = target.astype(dtype)
    bad[4] = top
    with pytest.raises(IndexError, match=rf"^target: label {top} at row 4 is outside \[0, 5\)$"):
        kernels.cross_entropy_with_grad(x, bad)


def test_case_100_uint64_labels_of_2_63_and_more(kernels):
    # 2^64 - 100 has the bits of -100, which would be ignored.
    for label in (2**63, 2**64 - 1, 2**64 - 100):
        target = np.array([0, label], "uint64")
        with pytest.raises(IndexError, match=rf"^target: label {label} at row 1 is outside"):
            kernels.cross_entropy(np.zeros((2, 3)), target)
        with pytest.raises(IndexError, match=rf"^target: label {label} at row 1 is outside"):
            kernels.linear_cross_entropy_with_grad(np.eye(2), np.eye(2), None, target)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_case_101_float_labels(kernels, dtype):
    target = np.array([0, 1], dtype)
    with pytest.raises(TypeError, match=f"^target: .*{dtype}.*integers"):
        kernels.cross_entropy(np.zeros((2, 3)), target)
    with pytest.raises(TypeError, match=f"^target: .*{dtype}.*integers"):
        kernels.linear_cross_entropy(np.zeros((2, 2)), np.zeros((2, 3)), None, target)


@each_float
@pytest.mark.parametrize("c", [4, 100])
def test_case_102_without_a_batch(kernels, dtype, c, rng):
    x = rng.normal(size=c).astype(dtype)
    for target in (2, np.int8(2), np.array(2)):
        for reduction in ("mean", "sum"):
            loss, dlogits = losses_and_gradient(kernels, x, target, reduction=reduction)
            batched = losses_and_gradient(kernels, x[None], [2], reduction=reduction)
            assert_same_bits(loss, batched[0])
            assert_same_bits(dlogits, batched[1][0])
        loss, _ = losses_and_gradient(kernels, x, target, reduction="none")
        assert np.shape(loss) == ()
    t = rng.dirichlet(np.ones(c))
    assert_same_bits(kernels.cross_entropy(x, t), kernels.cross_entropy(x[None], t[None]))
    with pytest.raises(ValueError, match=r"^target: .*\(1,\).*\(\)"):
        kernels.cross_entropy(x, [2])


def test_case_103_one_row_of_logits_with_as_many_labels(kernels):
    with pytest.raises(ValueError, match=r"^target: .*\(3,\).*argmax"):
        kernels.cross_entropy(np.zeros(3), [0, 1, 2])


def test_case_104_as_many_targets_as_rows(kernels):
    x = np.zeros((2, 3))
    for target in ([0], [0, 1, 2], np.zeros((3, 3)), np.zeros((2, 2)), np.zeros((2, 1), int)):
        with pytest.raises(ValueError, match=r"^target: .*\((2,|2, 3)\)"):
            kernels.cross_entropy(x, target)
        with pytest.raises(ValueError, match=r"^target: .*\((2,|2, 3)\)"):
            kernels.linear_cross_entropy(x, np.zeros((3, 3)), None, target)


@each_float
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("soft", [False, True])
def test_case_105_classes_on_axis_1(kernels, dtype, k, soft, rng):
    shape = (3, 5, 4, 3, 2)[: 2 + k]
    x = rng.normal(size=shape).astype(dtype)
    flat = np.moveaxis(x, 1, -1).reshape(-1, 5)
    if soft:
        target = np.moveaxis(rng.dirichlet(np.ones(5), (3, *shape[2:])), -1, 1)
        flat_target = np.moveaxis(target, 1, -1).reshape(-1, 5)
    else:
        target = rng.integers(0, 5, (3, *shape[2:]))
        target.flat[3] = -100
        flat_target = target.ravel()
    for reduction in REDUCTIONS:
        loss, dlogits = losses_and_gradient(kernels, x, target, reduction=reduction)
        expected, gradient = losses_and_gradient(kernels, flat, flat_target, reduction=reduction)
        np.testing.assert_allclose(np.ravel(loss), np.ravel(expected), 4 * eps(dtype))
        assert_same_bits(np.moveaxis(dlogits, 1, -1).reshape(-1, 5), gradient)
    assert loss.shape == (3, *shape[2:])


def test_case_106_reductions(kernels):
    x = np.zeros((2, 3))
    for reduction in ("foo", "", "Mean", None, 1):
        with pytest.raises(ValueError, match=rf"^reduction: .*{reduction}.*mean.*sum.*none"):
            kernels.cross_entropy(x, [0, 1], reduction=reduction)


@each_float
@pytest.mark.parametrize("c", [4, 100])
def test_case_107_sample_weights_multiply(kernels, dtype, c, rng):
    x, target = rng.normal(size=(6, c)).astype(dtype), rng.integers(0, c, 6)
    s = np.array([0.0, 1.0, 2.0, -1.5, 0.25, 3.0])
    losses, gradient = losses_and_gradient(kernels, x, target, reduction="none")
    for soft in (target, np.eye(c)[target]):
        result = losses_and_gradient(kernels, x, soft, reduction="none", sample_weight=s)
        np.testing.assert_allclose(result[0], losses * s, 8 * eps(dtype))
        np.testing.assert_allclose(
            result[1], gradient * s[:, None], 16 * eps(dtype), 8 * eps(dtype)
        )
        mean, _ = losses_and_gradient(kernels, x, soft, sample_weight=s)
        np.testing.assert_allclose(
            mean, (losses.astype(float) * s).sum() / s.sum(), 32 * eps(dtype)
        )


def test_case_108_the_mean_of_millions_in_float32(kernels):
    # A running float32 sum of 4 million numbers near 1.1 is off in its third digit.
    n = 4_000_000
    x = np.broadcast_to(np.array([0.1, 0.2, 0.3], "float32"), (n, 3))
    target = np.broadcast_to(np.uint8(1), n)
    expected = kernels.cross_entropy(x[:1].astype("float64"), [1])
    np.testing.assert_allclose(kernels.cross_entropy(x, target), expected, rtol=1e-6)


@each_float
@pytest.mark.parametrize("c", [1, 2, 10, 33, 100, 1000])
def test_case_109_gradient_rows_sum_to_0(kernels, dtype, c, rng):
    x = rng.normal(0, 5, (50, c)).astype(dtype)
    for target in (rng.integers(0, c, 50), rng.dirichlet(np.ones(c), 50).astype(dtype)):
        for e in (0.0, 0.1):
            _, dlogits = losses_and_gradient(kernels, x, target, reduction="sum", label_smoothing=e)
            sums = dlogits.astype(float).sum(axis=1)
            assert (np.abs(sums) <= (4 + c) * eps(dtype)).all()


@each_float
def test_case_110_twice_the_same(kernels, dtype):
    p = Problem(Case(500, 33, 17, dtype, weight=True, smoothing=0.1))
    f = kernels.linear_cross_entropy_with_grad
    assert_same_bits(f(**p.gradient), f(**p.gradient))
    logits = kernels.linear(**p.linear)
    given = [kernels.cross_entropy_with_grad(logits, p.target, **p.options) for _ in range(2)]
    assert_same_bits(*given)


@each_float
@pytest.mark.parametrize("c", [2, 10, 33, 100, 257])
def test_case_111_linear_cross_entropy_is_linear_then_cross_entropy(kernels, dtype, c):
    for options in ({}, {"weight": True, "smoothing": 0.1, "ignore": 0}, {"soft": True}):
        for reduction in REDUCTIONS:
            p = Problem(Case(130, 64, c, dtype, reduction=reduction, **options))
            expected = kernels.cross_entropy(kernels.linear(**p.linear), p.target, **p.options)
            loss = kernels.linear_cross_entropy(**p.loss)
            rtol = {"float32": 1e-5, "float64": 4 * eps("float64")}[dtype]
            np.testing.assert_allclose(loss, expected, rtol)


# 4. Divergence and the linear layer --------------------------------------------------------------


@each_float
def test_case_112_zeros_and_nan_in_divergence(kernels, dtype):
    p = np.array([0, 0, 0, 1, 1, NAN, 1, 0, -1], dtype)[:, None]
    q = np.array([0, INF, 2, 0, 1, 1, NAN, NAN, 1], dtype)[:, None]
    expected = [0, 0, 0, INF, 0, NAN, NAN, NAN, NAN]
    result = kernels.kl_divergence(p, q)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(
        kernels.entropy(np.array([[0, 1], [0, 0], [NAN, 1], [-1, 1]], dtype)), [0, 0, NAN, NAN]
    )


@each_float
def test_case_112_divergence_of_negative_and_infinite_numbers(kernels, dtype):
    p = np.array([-1, -1, 1, -INF, INF, 1, INF, -0.0], dtype)[:, None]
    q = np.array([-1, 0, -1, -INF, 1, INF, INF, -1], dtype)[:, None]
    expected = [NAN, NAN, NAN, NAN, INF, -INF, NAN, 0]
    np.testing.assert_array_equal(kernels.kl_divergence(p, q), expected)
    np.testing.assert_array_equal(
        kernels.entropy(np.array([[-INF], [INF], [-0.0]], dtype)), [NAN, -INF, 0]
    )


@each_float
@pytest.mark.parametrize("n", [1, 3, 40, 300])
def test_case_112_odd_numbers_do_not_touch_their_neighbours(kernels, rng, dtype, n):
    """A row's bits are the same beside zeros, subnormal and huge numbers as alone."""
    p, q = rng.dirichlet(np.ones(n), (2, 50)).astype(dtype)
    info = np.finfo(dtype)
    odd = np.array([0, info.smallest_subnormal, info.tiny, info.max, INF, NAN, -1], dtype)
    mixed_p, mixed_q = p.copy(), q.copy()
    mixed_p[::3], mixed_q[1::3] = rng.choice(odd, (2, 17, n))
    same = slice(2, None, 3)
    for axis in (0, 1):
        a, b, mixed_a, mixed_b = (m.T if axis == 0 else m for m in (p, q, mixed_p, mixed_q))
        for f, plain, mixed in (
            (kernels.entropy, (a,), (mixed_a,)),
            (kernels.kl_divergence, (a, b), (mixed_a, mixed_b)),
        ):
            assert_same_bits(f(*mixed, axis)[same], f(*plain, axis)[same])


def test_case_112_long_sums_keep_their_digits(kernels):
    p = np.full((2, 300_001), 0.1)
    p[1] = 1 / 3
    each = p[:, 0].astype(np.longdouble)
    exact = -300_001 * each * np.log(each)
    np.testing.assert_allclose(kernels.entropy(p), exact.astype(float), 8 * eps("float64"))


@each_float
def test_case_113_divergence_has_no_linear_terms(kernels, dtype):
    # scipy.special.kl_div(0, 1) is 1, as it adds q - p.
    assert kernels.kl_divergence(np.zeros(1, dtype), np.ones(1, dtype)) == 0
    half = np.full(1, 0.5, dtype)
    np.testing.assert_allclose(
        kernels.kl_divergence(half, half / 2), 0.5 * np.log(2), 4 * eps(dtype)
    )


def test_case_114_divergence_is_not_averaged(kernels, rng):
    p, q = rng.dirichlet(np.ones(3), (2, 4))
    assert kernels.kl_divergence(p, q).shape == (4,)
    np.testing.assert_allclose(kernels.kl_divergence(p, q), (p * np.log(p / q)).sum(axis=1), 1e-12)


@pytest.mark.parametrize("x_dtype", [*FLOATS, "uint8"])
@each_float
@pytest.mark.parametrize("c", [1, 10, 100])
def test_case_115_no_features(kernels, x_dtype, dtype, c, rng):
    if x_dtype == "float64":
        dtype = "float64"
    X, W, b = np.zeros((7, 0), x_dtype), np.zeros((0, c), dtype), rng.normal(size=c).astype(dtype)
    assert_same_bits(kernels.linear(X, W, b), np.tile(b, (7, 1)))
    assert_same_bits(kernels.linear(X, W), np.zeros((7, c), dtype))
    assert_same_bits(kernels.predict(X, W, b), np.full(7, b.argmax()))
    result = kernels.linear_cross_entropy_with_grad(X, W, b, np.zeros(7, int), with_dX=True)
    given = kernels.cross_entropy_with_grad(np.tile(b, (7, 1)), np.zeros(7, int))
    assert result.dW.shape == (0, c)
    assert result.dX.shape == (7, 0)
    np.testing.assert_allclose(result.loss, given.loss, 8 * eps(dtype))
    np.testing.assert_allclose(
        result.db, given.dlogits.sum(axis=0), 16 * eps(dtype), 4 * eps(dtype)
    )


@each_float
def test_case_116_nothing_is_skipped_where_x_is_zero(kernels, dtype):
    for d in (2, 40):
        X, W = np.zeros((5, d), dtype), np.zeros((d, 3), dtype)
        W[-1, 1] = INF
        X[2, 0] = INF
        logits = kernels.linear(X, W)
        assert np.isnan(logits[:, 1]).all()
        assert np.isnan(logits[2]).all()
        assert not logits[[0, 1, 3, 4]][:, [0, 2]].any()
        assert kernels.predict(X, W).tolist() == [1, 1, 0, 1, 1]


# 0 times infinity --------------------------------------------------------------------------------


CROSS_ENTROPIES = ["plain", "plain with grad", "linear", "linear with grad", "sparse with grad"]


def cross_entropy_by(kernels, way, logits, target, **options):
    """(loss, gradient or None) of logits, in one of the ways; X is the identity."""
    logits = np.array(logits)
    eye = np.eye(len(logits))
    if way == "plain":
        return kernels.cross_entropy(logits, target, **options), None
    if way == "plain with grad":
        return tuple(kernels.cross_entropy_with_grad(logits, target, **options))
    if way == "linear":
        return kernels.linear_cross_entropy(eye, logits, None, target, **options), None
    if way == "sparse with grad":
        n = len(logits)
        eye = SimpleNamespace(
            data=np.ones(n), indices=np.arange(n), indptr=np.arange(n + 1), shape=(n, n)
        )
    result = kernels.linear_cross_entropy_with_grad(eye, logits, None, target, **options)
    return result.loss, result.dW


@pytest.mark.parametrize("way", CROSS_ENTROPIES)
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    ("logits", "target", "options"),
    [
        # The infinite weight is of a class, or a row, that has no part in the loss.
        ([1, 2, 3], 0, {"weight": [1, 1, INF]}),
        ([1, 2, 3], 0, {"weight": [1, 1, NAN]}),
        ([1, 2, 3], [0.5, 0.5, 0], {"weight": [1, 1, INF]}),
        ([1, 2, 3], 0, {"weight": [0, 1, 1], "sample_weight": [INF, 1]}),
        ([1, 2, 3], 0, {"weight": [INF, 1, 1], "sample_weight": [0, 1]}),
        ([1, 2, 3], 0, {"weight": [INF, 1, 1], "sample_weight": [0, 0], "label_smoothing": 0.1}),
        ([1, 2, 3], [0.0, 0, 0], {"sample_weight": [INF, 1]}),
        ([1, 2, 3], [0.5, 0.5, 0], {"weight": [INF, 1, 1], "sample_weight": [0, 1]}),
        ([1, 2, 3], -100, {"weight": [1, 1, INF], "sample_weight": [INF, 1]}),
        # A loss that would be infinite counts 0 times.
        ([0, -INF, 1], 1, {"weight": [1, 0, 1]}),
        ([0, -INF, 1], 1, {"sample_weight": [0, 1]}),
        ([0, -INF, 1], [0.5, 0.5, 0], {"sample_weight": [0, 1]}),
        ([0, -INF, 1], 1, {"sample_weight": [0, 1], "label_smoothing": 0.1}),
        ([0, -INF, 1], 0, {"weight": [1, 0, 1], "label_smoothing": 1.0}),
    ],
)
def test_an_infinite_factor_beside_0_counts_nothing(kernels, way, many, logits, target, options):
    """Equal to what 0 for the infinite factor gives: also the gradient, and the other row."""
    finite = {k: np.nan_to_num(v, posinf=0, nan=0) if "weight" in k else v
              for k, v in options.items()}  # fmt: skip
    other = [0.0, 1, 0] if np.ndim(target) else 1
    logits, target = np.array([logits, [3.0, 1, -1]], float), np.array([target, other])
    harmless = np.where(np.isinf(logits), -50, logits)
    if many:  # classes of probability 0, to go by rows
        logits, harmless = (np.pad(a, ((0, 0), (0, 300)), constant_values=-1e9)
                            for a in (logits, harmless))  # fmt: skip
        if target.ndim == 2:
            target = np.pad(target, ((0, 0), (0, 300)))
        for given in (options := dict(options), finite):
            if "weight" in given:
                given["weight"] = [*given["weight"], *[0] * 300]
    if many and options.get("label_smoothing") and "weight" not in options:
        pytest.skip("the smoothing spreads over the classes that were added")
    dense = way.startswith("linear") or (way == "sparse with grad" and kernels is reference)
    if dense and np.isinf(logits).any():
        pytest.skip("X has zeros, which make infinite weights NaN")
    for reduction in REDUCTIONS:
        if reduction == "mean" and target.ndim == 2 and INF in options.get("sample_weight", []):
            continue  # with probabilities every sample weight is in the denominator
        o = {"reduction": reduction}
        loss, gradient = cross_entropy_by(kernels, way, logits, target, **options | o)
        wanted, wanted_gradient = cross_entropy_by(kernels, way, harmless, target, **finite | o)
        np.testing.assert_allclose(loss, wanted, 1e-12)
        assert np.isfinite(loss).all() or (reduction == "mean" and np.isnan(wanted))
        if gradient is not None:
            np.testing.assert_allclose(gradient, wanted_gradient, 1e-12, 1e-16)


@pytest.mark.parametrize("way", CROSS_ENTROPIES)
@pytest.mark.parametrize(
    ("logits", "target", "options"),
    [
        ([1, 2, 3], 0, {"weight": [INF, 1, 1]}),
        ([1, 2, 3], 2, {"weight": [1, 1, INF]}),
        ([1, 2, 3], 2, {"sample_weight": [INF]}),
        ([1, 2, 3], 0, {"weight": [1, 1, INF], "label_smoothing": 0.1}),
        ([1, 2, 3], 2, {"weight": [1, 1, INF], "label_smoothing": 0.1}),
        ([1, 2, 3], 2, {"sample_weight": [INF], "label_smoothing": 0.1}),
        ([1, 2, 3], [0, 0, 1.0], {"weight": [1, 1, INF]}),
        ([1, 2, 3], [0, 0.5, 0.5], {"sample_weight": [INF]}),
        ([0, -1000, -1000], 1, {"weight": [1, INF, 1]}),  # where log-sum-exp rounds to the maximum
    ],
)
def test_an_infinite_factor_that_counts(kernels, way, logits, target, options):
    """The row's loss is infinite."""
    for reduction in ("sum", "none"):
        loss, _ = cross_entropy_by(
            kernels, way, [logits], np.array([target]), **options | {"reduction": reduction}
        )
        assert np.all(np.equal(loss, INF))


@pytest.mark.parametrize("way", CROSS_ENTROPIES)
def test_infinite_weights_as_pytorch_defines_them(kernels, way):
    weight = [1, 1, INF]
    loss, gradient = cross_entropy_by(kernels, way, [[1.0, 2, 3]], np.array([0]), weight=weight)
    assert loss == pytest.approx(2.40760596444438, rel=1e-14)
    if gradient is not None:
        p = np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()
        np.testing.assert_allclose(gradient, [p - [1, 0, 0]], 1e-12)
    # The mean divides infinity by infinity.
    assert np.isnan(cross_entropy_by(kernels, way, [[1.0, 2, 3]], np.array([2]), weight=weight)[0])


def test_predictions_want_a_class(kernels):
    X, W = np.ones((3, 2)), np.ones((2, 0))
    for predict in (kernels.predict, kernels.predict_proba):
        with pytest.raises(ValueError, match=r"W: shape \(2, 0\) came, .* was wanted"):
            predict(X, W)
    assert kernels.linear(X, W).shape == (3, 0)
