"""softmax_ext.special beside scipy.special: the same meaning, never a worse number.

SciPy is the judge where it is right, mpmath and numbers worked out by hand where it is not. Tests
that start with a number are rows of the project's table of edge cases (S, L and Z are softmax,
log_softmax and logsumexp), here for the dtypes and arguments that only this face takes too.
"""

from __future__ import annotations

import doctest
import inspect
import warnings

import mpmath
import numpy as np
import pytest
import scipy
import scipy.special
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.exceptions import AxisError
from problems import LAYOUTS, Unchanged, assert_same_bits, run_python
from tolerances import eps, tiny

import softmax_ext
from softmax_ext import special

INF, NAN = np.inf, np.nan
SOFTMAX_LIKE = ["softmax", "log_softmax"]
FAMILY = [*SOFTMAX_LIKE, "logsumexp"]
PAIRS = ["rel_entr", "kl_div"]
ELEMENTWISE = ["entr", *PAIRS]
KERNEL_DTYPES = ["float16", "float32", "float64"]
REAL = [*KERNEL_DTYPES, "longdouble"]

each_real = pytest.mark.parametrize("dtype", REAL)
each_of_family = pytest.mark.parametrize("name", FAMILY)


@pytest.fixture
def face(compiled, monkeypatch):
    """The module, at work with the kernels of one instruction set."""
    monkeypatch.setattr(softmax_ext, "kernels", compiled)
    return special


def peer(name, *args, **kwargs):
    """What SciPy says, without its warnings."""
    with np.errstate(all="ignore"):
        return getattr(scipy.special, name)(*args, **kwargs)


def assert_same_form(actual, expected):
    """The same type, dtype and shape; in tuples, of each part."""
    assert type(actual) is type(expected)
    if isinstance(expected, tuple):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same_form(a, e)
    else:
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape


def ulps(actual, exact):
    """How far each of `actual` is from its mpmath number, in units of its last place."""
    with mpmath.workdps(60):
        return np.array(
            [
                float(abs(mpmath.mpf(float(a)) - e) / float(np.spacing(abs(a.dtype.type(e)))))
                for a, e in zip(actual, exact, strict=True)
            ]
        )


def exactly(values):
    return [mpmath.mpf(float(v)) for v in values]


# The module ---------------------------------------------------------------------------------------


@each_of_family
def test_the_signature_is_scipys(name):
    assert (
        inspect.signature(getattr(special, name))
        .replace(return_annotation=inspect.Signature.empty)
        .parameters.keys()
        == inspect.signature(getattr(scipy.special, name)).parameters.keys()
    )
    mine, theirs = (
        [
            (p.name, p.default, p.kind)
            for p in inspect.signature(getattr(m, name)).parameters.values()
        ]
        for m in (special, scipy.special)
    )
    assert mine == theirs


def test_scipy_is_never_imported():
    code = """
import sys
sys.modules["scipy"] = None  # an import of it would fail
import numpy as np
from softmax_ext import special
x = np.array([1.0, 2.0])
for a in (x, x.astype(complex), x.astype(np.longdouble)):
    special.softmax(a), special.log_softmax(a), special.logsumexp(a, b=[1, -1], return_sign=True)
special.entr(x), special.rel_entr(x, 1), special.kl_div(x, 1)
print("fine")
"""
    assert run_python(code) == "fine"


def test_the_examples_in_the_docstrings():
    tried = doctest.testmod(special)
    assert tried.attempted > 15
    assert tried.failed == 0


# SciPy's documented examples ----------------------------------------------------------------------


def test_examples_of_softmax(face):
    x = np.array([[1, 0.5, 0.2, 3], [1, -1, 7, 3], [2, 12, 13, 3]])
    whole = [
        [4.48309e-06, 2.71913e-06, 2.01438e-06, 3.31258e-05],
        [4.48309e-06, 6.06720e-07, 1.80861e-03, 3.31258e-05],
        [1.21863e-05, 2.68421e-01, 7.29644e-01, 3.31258e-05],
    ]
    columns = [
        [2.11942e-01, 1.01300e-05, 2.75394e-06, 3.33333e-01],
        [2.11942e-01, 2.26030e-06, 2.47262e-03, 3.33333e-01],
        [5.76117e-01, 9.99988e-01, 9.97525e-01, 3.33333e-01],
    ]
    rows = [
        [1.05877e-01, 6.42177e-02, 4.75736e-02, 7.82332e-01],
        [2.42746e-03, 3.28521e-04, 9.79307e-01, 1.79366e-02],
        [1.22094e-05, 2.68929e-01, 7.31025e-01, 3.31885e-05],
    ]
    np.testing.assert_allclose(face.softmax(x), whole, rtol=1e-5)
    np.testing.assert_allclose(face.softmax(x).sum(), 1, rtol=1e-15)
    np.testing.assert_allclose(face.softmax(x, axis=0), columns, rtol=1e-5)
    np.testing.assert_allclose(face.softmax(x, axis=0).sum(axis=0), 1, rtol=1e-15)
    np.testing.assert_allclose(face.softmax(x, axis=1), rows, rtol=1e-5)
    np.testing.assert_allclose(face.softmax(x, axis=1).sum(axis=1), 1, rtol=1e-15)


def test_examples_of_log_softmax(face):
    x = np.array([1000.0, 1.0])
    np.testing.assert_array_equal(face.log_softmax(x), [0, -999])
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(np.log(face.softmax(x)), [0, -INF])


def test_examples_of_logsumexp(face):
    a, b = np.arange(10), np.arange(10, 0, -1)
    assert face.logsumexp(a) == pytest.approx(9.4586297444267107, rel=1e-15)
    assert face.logsumexp(a, b=b) == pytest.approx(9.9170178533034665, rel=1e-15)
    value, sign = face.logsumexp([1, 2], b=[1, -1], return_sign=True)
    assert value == pytest.approx(1.5413248546129181, rel=1e-15)
    assert sign == -1.0
    m = np.ma.array([np.log(2), 2, np.log(3)], mask=[False, True, False])
    b = (~m.mask).astype(int)
    assert face.logsumexp(m.data, b=b) == pytest.approx(1.6094379124341005, rel=1e-15)


# 1 to 27: values ----------------------------------------------------------------------------------


def check(face, dtype, x, *, S=None, L=None, Z=None, rtol=0.0):
    """The family of a row, alone, and as a column among others."""
    x = np.array(x, dtype)
    many = np.random.default_rng(0).normal(size=(len(x), 5)).astype(dtype)
    many[:, 2] = x
    for name, expected in (("softmax", S), ("log_softmax", L), ("logsumexp", Z)):
        if expected is not None:
            f = getattr(face, name)
            alone, among = f(x), f(many, axis=0)
            assert alone.dtype == among.dtype == x.dtype
            np.testing.assert_allclose(alone, np.array(expected, dtype), rtol)
            np.testing.assert_allclose(among[..., 2], np.array(expected, dtype), rtol)
            others = np.delete(among, 2, axis=-1)
            np.testing.assert_array_equal(others, f(np.delete(many, 2, axis=1), axis=0))


@pytest.mark.parametrize(
    ("x", "S", "L", "Z"),
    [
        pytest.param([-INF, -INF], [NAN, NAN], [NAN, NAN], -INF, id="1-2-3"),
        pytest.param([-INF, 0], [0, 1], [-INF, 0], 0, id="5"),
        pytest.param([INF, 0], [NAN, NAN], [NAN, -INF], INF, id="6-7-9"),
        pytest.param([INF, INF], [NAN, NAN], [NAN, NAN], INF, id="8-9"),
        pytest.param([INF, -INF], [NAN, NAN], [NAN, -INF], INF, id="8-9-other-sign"),
        pytest.param([NAN, 0], [NAN, NAN], [NAN, NAN], NAN, id="10"),
        pytest.param([0, NAN, 1], [NAN] * 3, [NAN] * 3, NAN, id="10-inside"),
        pytest.param([NAN, INF], [NAN, NAN], [NAN, NAN], NAN, id="11"),
        pytest.param([NAN, -INF], [NAN, NAN], [NAN, NAN], NAN, id="11-other-sign"),
        pytest.param([3.25], [1], [0], 3.25, id="12-13"),
        pytest.param([INF], [NAN], [NAN], INF, id="12-13-inf"),
        pytest.param([-INF], [NAN], [NAN], -INF, id="12-13-minus-inf"),
        pytest.param([20000, 0, 0, 0], [1, 0, 0, 0], [0, *[-20000] * 3], 20000, id="14"),
        pytest.param([2, 2, 2, 2], [0.25] * 4, None, None, id="26"),
        pytest.param([0.0, -0.0], [0.5, 0.5], None, None, id="27"),
    ],
)
@each_real
def test_01_to_27_exact_values(face, dtype, x, S, L, Z):
    check(face, dtype, x, S=S, L=L, Z=Z)


@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
def test_14_where_all_but_one_vanish(face, dtype):
    check(face, dtype, [1000, 0, 0, 0], S=[1, 0, 0, 0], L=[0, -1000, -1000, -1000], Z=1000)
    check(face, dtype, [1000, 1], S=[1, 0], L=[0, -999], Z=1000)


@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
def test_15_29_the_largest_numbers(face, dtype):
    big = np.finfo(dtype).max
    check(face, dtype, [big, -big], S=[1, 0], L=[0, -INF], Z=big)


def test_16_logsumexp_of_large_numbers(face):
    assert face.logsumexp(np.full(1000, 10000.0)) == pytest.approx(10000 + np.log(1000), rel=1e-15)
    wide = face.logsumexp(np.full(1000, 10000, np.longdouble))
    assert wide == pytest.approx(10000 + np.log(np.longdouble(1000)), rel=1e-18)


def test_17_what_a_tiny_term_adds_to_a_sum_of_1(face):
    tiny_sum = pytest.approx(np.logaddexp(0.0, -40.0), rel=1e-15, abs=0)
    assert face.logsumexp([0.0, -40.0]) == tiny_sum
    assert face.logsumexp([0.0, -740.0]) == 4.2e-322
    assert face.logsumexp(np.float32([0, -100])) == np.float32(3.8e-44)
    # The same where NumPy computes: with factors, and for long double and complex numbers.
    assert face.logsumexp([0.0, -40.0], b=[1, 1]) == tiny_sum
    assert face.logsumexp([0.0, -40.0], b=[1, -1]) == pytest.approx(
        -np.exp(-40.0), rel=1e-15, abs=0
    )
    assert face.logsumexp([0j, -40.0]) == tiny_sum
    assert face.logsumexp([0j, -20 + 1j]).real == pytest.approx(
        np.exp(-20) * np.cos(1) - np.exp(-40) * np.cos(2) / 2, rel=1e-14, abs=0
    )
    wide = face.logsumexp(np.array([0, -60], np.longdouble))
    assert wide == pytest.approx(np.exp(np.longdouble(-60)), rel=1e-18, abs=0)
    assert face.log_softmax(np.array([0, -60], np.longdouble))[0] == -wide


def test_18_subnormal_results(face):
    np.testing.assert_array_equal(face.softmax([0.0, -740.0]), [1, 4.2e-322])
    np.testing.assert_array_equal(face.softmax(np.float32([0, -100])), np.float32([1, 3.8e-44]))


def test_19_a_wide_range_of_probabilities(face):
    x = np.array([[-25, 0, 25, 50], [1, 325, 749, 750]])
    with mpmath.workdps(50):
        rows = [[mpmath.exp(int(v)) for v in row] for row in x]
        exact = [[float(e / mpmath.fsum(row)) for e in row] for row in rows]
    np.testing.assert_allclose(face.softmax(x, axis=1), exact, rtol=1e-13)
    np.testing.assert_allclose(
        face.softmax(x.astype("G"), axis=1).astype(complex), exact, rtol=1e-13
    )


@each_of_family
def test_20_a_constant_added_to_all(face, rng, name):
    x = rng.normal(size=(3, 20))
    shifted = getattr(face, name)(x + 100, axis=1) - (100 if name == "logsumexp" else 0)
    np.testing.assert_allclose(shifted, getattr(face, name)(x, axis=1), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble", "complex64", "complex128"])
@pytest.mark.parametrize("killed", [10000, INF, NAN])
def test_21_a_zero_weight_kills_anything(face, dtype, killed):
    a, b = np.array([1, killed], dtype), np.array([1, 0], dtype)
    assert face.logsumexp(a, b=b) == 1
    assert face.logsumexp(a, b=b, return_sign=True) == (1, 1)
    assert face.logsumexp(np.array([[killed, 0], [1, 1]]), 0, b=[[0, 0], [1, 1]]).tolist() == [1, 1]


@pytest.mark.parametrize("a", [[INF, INF], [NAN, 1], [-INF, 3]])
def test_21_nothing_left(face, a):
    # SciPy says nan for the first two.
    assert face.logsumexp(a, b=[0, 0], return_sign=True) == (-INF, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble"])
def test_22_terms_that_cancel(face, dtype):
    def value_and_sign(a, b):
        return face.logsumexp(np.array(a, dtype), b=np.array(b, dtype), return_sign=True)

    assert value_and_sign([1, 1], [1, -1]) == (-INF, 0)
    assert face.logsumexp(np.array([1, 1], dtype), b=[1, -1]) == -INF
    assert value_and_sign([5, 5, 5], [-1, -2, 3]) == (-INF, 0)
    # Others are left: SciPy says nan for the second, -inf for the third and fourth.
    assert value_and_sign([5, 5, 4], [1, -1, -1]) == (4, -1)
    assert value_and_sign([12000, 12000, 10], [1, -1, -1]) == (10, -1)
    assert value_and_sign([-12000, -12000, -12005], [1, -1, 1]) == (-12005, 1)
    assert value_and_sign([0, -12000, 0], [1, 1, -1]) == (-12000, 1)
    assert value_and_sign([3, 2, 3, 2, 1], [1, -1, -1, 1, -1]) == (1, -1)
    # Infinities do not cancel.
    np.testing.assert_equal(value_and_sign([INF, INF], [1, -1]), (NAN, NAN))


def test_23_a_negative_sum(face):
    assert np.isnan(face.logsumexp([2, 1], b=[-1, 1]))
    value, sign = face.logsumexp([2, 1], b=[-1, 1], return_sign=True)
    assert (value, sign) == (pytest.approx(1.5413248546129181, rel=1e-15), -1)
    values, signs = face.logsumexp([[1, 2], [2, 1]], 1, b=[1, -1], return_sign=True)
    np.testing.assert_array_equal(signs, [-1, 1])
    np.testing.assert_allclose(values, 1.5413248546129181, rtol=1e-15)
    np.testing.assert_array_equal(np.isnan(face.logsumexp([[1, 2], [2, 1]], 1, b=[1, -1])), [1, 0])


def test_24_signs_of_infinite_sums(face):
    assert face.logsumexp([INF], return_sign=True) == (INF, 1)
    assert face.logsumexp([INF], b=[-1], return_sign=True) == (INF, -1)
    assert face.logsumexp([INF, -INF], b=[-1, 1], return_sign=True) == (INF, -1)
    assert face.logsumexp([1, 2], b=[1, -INF], return_sign=True) == (INF, -1)
    assert face.logsumexp([-INF, -INF], return_sign=True) == (-INF, 0)
    assert np.isnan(face.logsumexp([INF], b=[-1]))
    np.testing.assert_equal(face.logsumexp([NAN, 1], return_sign=True), (NAN, NAN))
    np.testing.assert_equal(face.logsumexp([1, 2], b=[1, NAN], return_sign=True), (NAN, NAN))


@pytest.mark.parametrize("dtype", ["float64", "longdouble", "complex128"])
def test_25_the_mean_of_many_equal_logarithms(face, dtype):
    n = 10**6 if dtype == "float64" else 10**5
    tiny = np.full(n, np.log(1e-40)).astype(dtype)
    np.testing.assert_allclose(face.logsumexp(tiny) - np.log(n), np.log(1e-40), rtol=1e-14)


# 28 to 40: dtypes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*REAL, "complex64", "complex128", "clongdouble", ">f4", ">c8"])
@each_of_family
def test_28_32_36_37_floating_dtypes_stay(face, name, dtype):
    native = np.dtype(dtype).newbyteorder("=")
    result = getattr(face, name)(np.array([1, 2, 3], dtype), axis=0)
    assert result.dtype == native
    assert result.dtype.isnative


def test_30_many_numbers_in_float16(face):
    x = np.zeros(70_000, np.float16)
    np.testing.assert_array_equal(face.softmax(x), np.float16(1 / 70_000))
    np.testing.assert_array_equal(face.log_softmax(x), np.float16(-np.log(70_000)))
    for options in ({}, {"b": np.float16(1)}):  # the second by NumPy
        total = face.logsumexp(x, **options)
        assert (total, total.dtype) == (np.float16(np.log(70_000)), np.float16)


def test_31_bfloat16(face):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in FAMILY:
        with pytest.raises(TypeError, match="bfloat16"):
            getattr(face, name)(np.ones(2, ml_dtypes.bfloat16))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"])
@each_of_family
def test_32_33_35_integers_and_bools_are_computed_in_float64(face, name, dtype):
    # 8 and 16 bits: SciPy computes in float16 and float32, and differences wrap around.
    info = None if dtype == "?" else np.iinfo(dtype)
    low, high = (0, 1) if info is None else (max(info.min, -(2**40)), min(info.max, 2**40))
    for x in ([0, 1, 1, 0], [low, high, high - 1, low]):
        x = np.array(x, dtype)
        result = getattr(face, name)(x)
        assert result.dtype == np.float64
        np.testing.assert_array_equal(result, getattr(face, name)(x.astype(np.float64)))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_34_integers_beyond_float64(face, dtype):
    # SciPy's difference of the first two wraps around.
    x = np.array([np.iinfo(dtype).max, np.iinfo(dtype).min, 2**53 + 1], dtype)
    np.testing.assert_array_equal(face.softmax(x), [1, 0, 0])
    assert face.logsumexp(x) == float(np.iinfo(dtype).max)
    assert face.logsumexp(x[2:]) == 2**53


def test_36_complex_numbers(face):
    a, b = np.array([1 + 1j, 2 - 3j]), np.array([1, -1j])
    total = np.exp(a).sum()
    np.testing.assert_allclose(face.softmax(a), np.exp(a) / total, rtol=1e-15)
    np.testing.assert_allclose(face.logsumexp(a), np.log(total), rtol=1e-15)
    np.testing.assert_allclose(np.exp(face.log_softmax(a)), np.exp(a) / total, rtol=1e-15)
    value, sign = face.logsumexp(a, b=b, return_sign=True)
    total = (b * np.exp(a)).sum()
    np.testing.assert_allclose(value, np.log(np.abs(total)), rtol=1e-15)
    np.testing.assert_allclose(sign, total / np.abs(total), rtol=1e-15)
    assert (value.dtype, sign.dtype) == (np.float64, np.complex128)


def test_36_the_imaginary_part_is_a_principal_value(face):
    assert face.logsumexp(1 + 4j).imag == pytest.approx(4 - 2 * np.pi, rel=1e-15)
    assert face.logsumexp(1 + 3j).imag == 3
    assert face.logsumexp([1, 2], b=[1j, 1j]).imag == np.pi / 2
    assert face.logsumexp([1, 2], b=[-1 + 0j, -1]).imag == np.pi


@pytest.mark.parametrize("name", [*SOFTMAX_LIKE, "logsumexp", *ELEMENTWISE])
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(np.array([1.0, 2.0], object), id="38-object"),
        pytest.param(np.array(["1", "2"]), id="39-str"),
        pytest.param(np.array([b"1", b"2"]), id="39-bytes"),
        pytest.param(np.array(["2020-01-01"], "M8[D]"), id="39-datetime"),
        pytest.param(np.array([1], "m8[s]"), id="39-timedelta"),
        pytest.param(np.zeros(2, [("x", "f8")]), id="39-structured"),
        pytest.param(None, id="38-none"),
        pytest.param(np.ma.array([1.0, 2.0], mask=[0, 1]), id="60-masked"),
        pytest.param(np.ma.array([1.0, 2.0]), id="60-nothing-masked"),
        pytest.param(scipy.sparse.csr_array([[1.0, 2.0]]), id="sparse"),
    ],
)
def test_38_39_60_what_is_not_an_array_of_numbers(face, name, bad):
    f = getattr(face, name)
    with pytest.raises(TypeError):
        f(*[bad] * (2 if name in PAIRS else 1))
    if name in PAIRS:
        with pytest.raises(TypeError):
            f(1.0, bad)
    if name == "logsumexp":
        with pytest.raises(TypeError):
            f(bad, return_sign=True)
        if bad is not None:
            with pytest.raises(TypeError):
                f([1.0, 2.0], b=bad)


def test_the_message_for_a_masked_array_says_what_to_do():
    with pytest.raises(TypeError, match=r"^b: a masked array came.*\.filled\(\)"):
        special.logsumexp([1.0], b=np.ma.array([1.0]))
    with pytest.raises(TypeError, match=r"^y: a masked array came.*\.filled\(\)"):
        special.rel_entr([1.0], np.ma.array([1.0]))


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "longdouble", "clongdouble"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_elementwise_functions_refuse_what_scipys_refuse(name, dtype):
    args = [np.ones(2, dtype)] * (2 if name in PAIRS else 1)
    for module in (scipy.special, special):
        with pytest.raises(TypeError):
            getattr(module, name)(*args)


@pytest.mark.parametrize("name", [*FAMILY, *ELEMENTWISE])
def test_40_a_ragged_list(face, name):
    with pytest.raises(ValueError, match="inhomogeneous"):
        getattr(face, name)(*[[[1, 2], [3]]] * (2 if name in PAIRS else 1))


# Result types, and what a number's axes are, are those of SciPy's latest releases, which Python
# 3.10 does not get.
like_new_scipy = pytest.mark.skipif(
    tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 17),
    reason="compares with SciPy 1.17 or newer",
)

# 41 to 61: shapes, axes, memory -------------------------------------------------------------------

NUMBERS = [2, 2.5, np.float16(2.5), np.float32(2.5), np.float64(2.5), np.array(2.5), np.int32(2)]
NUMBERS += [2 + 1j, np.complex64(2), np.longdouble(2.5), np.array(2.5, np.longdouble)]


@like_new_scipy
@pytest.mark.parametrize("x", NUMBERS, ids=repr)
@pytest.mark.parametrize("axis", [None, 0, -1, np.int8(0), ()])
def test_41_numbers(face, x, axis):
    for name in FAMILY:
        result = getattr(face, name)(x, axis=axis)
        assert_same_form(result, peer(name, x, axis=axis))
        expected = {"softmax": 1, "log_softmax": 0, "logsumexp": x}[name]
        # Of a complex number |exp(i y)| is 1 but for rounding.
        np.testing.assert_allclose(result, expected, rtol=1e-15 if np.iscomplexobj(x) else 0)
    for options in ({"keepdims": True}, {"return_sign": True}, {"b": 2}, {"b": [1.0, 2.0]}):
        result = face.logsumexp(x, axis, **options)
        assert_same_form(result, peer("logsumexp", x, axis, **options))


@like_new_scipy
@pytest.mark.parametrize("x", [2.5, np.longdouble(2.5), 1j])
@pytest.mark.parametrize("axis", [1, -2, (0,), (0, 0), 1.0, True])
def test_41_49_axes_that_a_number_does_not_have(face, x, axis):
    for name in FAMILY:
        if name == "logsumexp" and axis == (0,):  # it makes an array of one axis of a number
            assert face.logsumexp(x, axis) == peer(name, x, axis)
            continue
        with pytest.raises((AxisError, ValueError, TypeError)) as theirs:
            peer(name, x, axis=axis)
        with pytest.raises(theirs.type):
            getattr(face, name)(x, axis=axis)


@each_of_family
@pytest.mark.parametrize(
    "x", [[1, 2.5], (1, 2), range(3), [[1], [2]], memoryview(np.ones(2)), [1j]]
)
def test_42_what_numpy_makes_arrays_of(face, name, x):
    assert_same_form(getattr(face, name)(x), peer(name, x))
    np.testing.assert_array_equal(getattr(face, name)(x), getattr(face, name)(np.array(x)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "longdouble", "complex128"])
def test_43_44_45_empty_arrays(face, dtype):
    result_dtype = np.float64 if dtype == "int8" else np.dtype(dtype)
    for shape, axis in [((0,), None), ((0,), 0), ((3, 0), 1), ((0, 3), 0), ((0, 3), None)]:
        for name in SOFTMAX_LIKE:
            with pytest.raises(ValueError, match="zero-size array to reduction"):
                getattr(face, name)(np.empty(shape, dtype), axis=axis)
    for name in SOFTMAX_LIKE:
        result = getattr(face, name)(np.empty((0, 3), dtype), axis=1)
        assert (result.shape, result.dtype) == ((0, 3), result_dtype)
    Z = face.logsumexp
    assert Z(np.empty(0, dtype)) == -INF
    np.testing.assert_array_equal(Z(np.empty((3, 0), dtype), axis=1), [-INF] * 3)
    assert Z(np.empty((0, 3), dtype), axis=1).shape == (0,)
    for options in ({}, {"b": np.ones((), dtype)}):
        for shape, axis, expected in [
            ((0, 3), None, ()),
            ((2, 0, 3), (1, 2), (2,)),
            ((0, 3), (), (0, 3)),
        ]:
            result = Z(np.empty(shape, dtype), axis, **options)
            assert (result.shape, result.dtype) == (expected, result_dtype)
            assert (result == -INF).all()
        kept, sign = Z(np.empty((3, 0), dtype), 1, keepdims=True, return_sign=True, **options)
        assert (kept == -INF).all()
        assert (sign == 0).all()
        assert kept.shape == sign.shape == (3, 1)


AXES = [None, 0, 1, -1, (1, 2), (0, -1), (-1, 0), (0, 1, 2), (), np.int64(1), np.array(2)]


@like_new_scipy
@pytest.mark.parametrize("axis", AXES, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "longdouble", "complex128"])
def test_46_47_48_51_axes_and_keepdims(face, rng, dtype, axis):
    x = rng.normal(size=(2, 3, 4)).astype(dtype)
    for name in SOFTMAX_LIKE:
        result, expected = getattr(face, name)(x, axis), peer(name, x, axis)
        assert_same_form(result, expected)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    for keepdims in (False, True):
        for options in ({}, {"b": 2}, {"return_sign": True}):
            result = face.logsumexp(x, axis, keepdims=keepdims, **options)
            expected = peer("logsumexp", x, axis, keepdims=keepdims, **options)
            assert_same_form(result, expected)
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


BAD_AXES = [
    3,
    -4,
    (0, 5),
    (0, 0),
    (1, -2),
    1.0,
    "0",
    [0],
    (0, 1.0),
    True,
    np.True_,
    2**63 - 1,
    2**70,
]


@pytest.mark.parametrize("axis", BAD_AXES, ids=repr)
@pytest.mark.parametrize("dtype", ["float64", "longdouble", "complex128"])
@each_of_family
def test_49_50_axes_that_are_none(face, name, dtype, axis):
    x = np.ones((2, 3, 4), dtype)
    if type(axis) is int and axis > 3:  # SciPy: ValueError, OverflowError
        error = AxisError
    else:
        with pytest.raises((AxisError, ValueError, TypeError)) as theirs:
            peer(name, x, axis=axis)
        error = theirs.type
    with pytest.raises(error):
        getattr(face, name)(x, axis=axis)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [*REAL, "complex64"])
def test_52_to_58_layouts_and_inputs_that_stay_as_they_are(face, rng, dtype, layout):
    x = (3 * rng.normal(size=(5, 4, 7))).astype(dtype)
    laid = LAYOUTS[layout](x)
    with Unchanged(laid):
        for axis in (None, 0, -1, (0, 2)):
            for name in FAMILY:
                actual = getattr(face, name)(laid, axis)
                expected = getattr(face, name)(x, axis)
                if layout == "big-endian":
                    assert actual.dtype.isnative
                if dtype in KERNEL_DTYPES:
                    assert_same_bits(actual, expected)
                else:
                    np.testing.assert_allclose(actual, expected, rtol=20 * eps(dtype))
    with Unchanged(laid):
        face.logsumexp(laid, b=laid, return_sign=True)


@pytest.mark.parametrize("dtype", ["float64", "longdouble"])
def test_54_a_broadcast_array(face, dtype):
    x = np.broadcast_to(np.ones(1, dtype), (3, 4))
    np.testing.assert_array_equal(face.softmax(x, axis=1), np.full((3, 4), 0.25))


@pytest.mark.parametrize("name", [*FAMILY, *ELEMENTWISE])
def test_59_61_subclasses_give_plain_arrays(face, name):
    class Special(np.ndarray):
        pass

    x = np.array([[1.0, 2.0], [0.5, 3.0]])
    arguments = 2 if name in PAIRS else 1
    options = {} if name in ELEMENTWISE else {"axis": 1}
    expected = getattr(face, name)(*[x] * arguments, **options)
    for other in (x.view(np.matrix), x.view(Special)):
        result = getattr(face, name)(*[other] * arguments, **options)
        assert type(result) is np.ndarray
        assert_same_bits(result, expected)


@pytest.mark.parametrize("dtype", [*REAL, "complex128", "int8"])
def test_69_no_floating_point_errors(face, dtype):
    values = [0, 100] if dtype == "int8" else [INF, -INF, NAN, 0, -1e4, 6e4]
    pairs = np.array([[a, b] for a in values for b in values], dtype)
    weights = np.array([0, -1, 2, 1], dtype)[:, None, None]
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in FAMILY:
            getattr(face, name)(pairs, axis=1)
        face.logsumexp(pairs, 1, b=weights, return_sign=True)
        face.logsumexp(pairs, b=weights)
        if dtype not in ("longdouble", "complex128"):
            face.entr(pairs)
            for out in (None, np.empty(len(pairs), np.float32)):
                face.rel_entr(*pairs.T, out)
                face.kl_div(*pairs.T, out)
            face.kl_div([1e308, 5e-324, 1e-310], [5e-324, 1e308, 1])
        assert np.geterr() == dict.fromkeys(("divide", "over", "under", "invalid"), "raise")


# The same as the kernels, and as SciPy ------------------------------------------------------------


@st.composite
def axes(draw, ndim):
    one = st.integers(-ndim - 1, ndim)
    return draw(st.none() | one | st.lists(one, max_size=ndim + 1).map(tuple))


SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def elements(dtype, *, special=True):
    """Numbers of moderate size, and what is not a number."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return st.integers(0 if dtype.kind == "u" else -50, 50)
    real = st.floats(-50, 50, width=16)
    if dtype.kind == "c":
        return st.builds(complex, real, st.floats(-3, 3, width=16))
    return st.one_of(*[real] * 9, st.sampled_from([INF, -INF, NAN])) if special else real


@given(data=st.data())
def test_results_are_those_of_the_kernels(face, data):
    dtype = data.draw(st.sampled_from([*KERNEL_DTYPES, "int64", ">f4"]))
    x = data.draw(hnp.arrays(dtype, SHAPES.filter(lambda s: s), elements=elements(dtype)))
    axis = data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1))
    kernels = softmax_ext.kernels
    for name in FAMILY:
        try:
            expected = getattr(kernels, name)(x, axis=axis)
        except ValueError:
            continue
        assert_same_bits(getattr(face, name)(x, axis=axis), expected)
        if name == "logsumexp":
            value, sign = face.logsumexp(x, axis, return_sign=True)
            assert_same_bits(value, expected)
            wanted = np.where(np.isnan(expected), NAN, np.where(expected == -INF, 0, 1))
            np.testing.assert_array_equal(sign, wanted)
            assert type(sign) is type(value)
            assert sign.dtype == value.dtype


def both(name, *args, **kwargs):
    """The results of ours and SciPy's; None if both raise the same kind of error."""
    try:
        expected = peer(name, *args, **kwargs)
    except (AxisError, IndexError, TypeError, ValueError) as error:
        kinds = (AxisError, IndexError, TypeError, ValueError)
        kind = next(k for k in kinds if isinstance(error, k))
        with pytest.raises(kind):
            getattr(special, name)(*args, **kwargs)
        return None
    actual = getattr(special, name)(*args, **kwargs)
    assert_same_form(actual, expected)
    return actual, expected


def sum_condition(a, axis, b=1.0):
    """sum |b exp(a)| / |sum b exp(a)|: by how much cancellation magnifies rounding errors."""
    with np.errstate(all="ignore"):
        a = np.atleast_1d(np.asarray(a, np.clongdouble))
        terms = np.where(b == 0, 0, b * np.exp(np.where(b == 0, 0, a)))
        return np.abs(terms).sum(axis) / np.abs(terms.sum(axis))


# Where SciPy is right: neither small integers nor float16, nor uint64, whose differences wrap.
RIGHT = ["float32", "float64", "longdouble", "int32", "int64", ">f4", ">f8"]
COMPLEX = ["complex64", "complex128", "clongdouble"]


@given(data=st.data())
def test_softmax_and_log_softmax_agree_with_scipy(face, data):
    dtype = data.draw(st.sampled_from([*RIGHT, *COMPLEX]))
    x = data.draw(hnp.arrays(dtype, SHAPES, elements=elements(dtype)))
    axis = data.draw(axes(x.ndim))
    assume(x.shape.count(0) < 2)  # whether (0, 0) is refused for axis 0 is NumPy's affair
    for name in SOFTMAX_LIKE:
        results = both(name, x, axis=axis)
        if results is None:
            continue
        actual, expected = results
        # The rounding of x - max costs SciPy up to half of that difference, in eps.
        largest = np.max(np.abs(x), initial=0, where=np.isfinite(x))
        rtol = (8 + float(largest)) * eps(actual.dtype)
        if np.dtype(dtype).kind == "c" and x.size:
            worst = np.max(sum_condition(x, axis))
            assume(worst < 100)
            rtol *= worst
        # Of a probability near 1 SciPy's logarithm has no digits, of a subnormal one few are left.
        atol = 4 * rtol if name == "log_softmax" else tiny(actual.dtype)
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@like_new_scipy
@given(data=st.data())
def test_logsumexp_agrees_with_scipy(face, data):
    dtype = data.draw(st.sampled_from([*RIGHT, *COMPLEX, "bool", "int8", "uint16"]))
    many = elements(dtype) if np.dtype(dtype).kind != "b" else st.booleans()
    a = data.draw(hnp.arrays(dtype, SHAPES, elements=many))
    axis = data.draw(axes(a.ndim))
    # SciPy fails for no elements and several axes, and gives nothing the sign -1.
    assume(a.size or isinstance(axis, int) or (axis is None and a.ndim == 1))
    options = {"keepdims": data.draw(st.booleans())}
    if a.size:
        options["return_sign"] = data.draw(st.booleans())
    results = both("logsumexp", a, axis, **options)
    if results is not None:
        condition = 1.0
        if a.dtype.kind == "c" and a.size:
            condition = np.max(sum_condition(a, axis))
            assume(condition < 100)
        compare_sums(*results, atol=60 * condition)


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def compare_sums(actual, expected, atol):
    """Results of logsumexp, or pairs of them and signs, within a number of eps."""
    for a, e in zip(as_tuple(actual), as_tuple(expected), strict=True):
        tolerance = {"rtol": 4 * eps(a.dtype), "atol": atol * eps(a.dtype)}
        if a.dtype.kind == "c":
            # Rounding may tell pi from -pi, and SciPy knows pi in float64 only.
            turn = np.abs(np.exp(1j * a.imag) - np.exp(1j * e.imag))
            assert (turn <= atol * max(eps(a.dtype), eps("float64"))).all() or np.isnan(e).any()
        np.testing.assert_allclose(a.real, e.real, **tolerance)


@st.composite
def weighted(draw):
    """a and b of any dtypes and of shapes that mostly broadcast; Python numbers, too."""
    shapes = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=1, max_side=4)
    shape_a, shape_b = draw(shapes).input_shapes
    if draw(st.integers(0, 19)) == 0:
        shape_b = (*shape_b[:-1], 5)
    a_dtype = draw(st.sampled_from([*RIGHT, *COMPLEX, "bool", "int8"]))
    b_dtype = draw(st.sampled_from([*RIGHT, *COMPLEX, "bool", "uint8"]))
    a_elements = st.booleans() if a_dtype == "bool" else elements(a_dtype, special=False)
    factors = st.sampled_from(
        [0, 1, 1, 2, 3] if np.dtype(b_dtype).kind in "bu" else [0, 1, 0.5, -1, -3]
    )
    a = draw(hnp.arrays(a_dtype, shape_a, elements=a_elements))
    b = draw(hnp.arrays("float64", shape_b, elements=factors)).astype(b_dtype)
    if np.dtype(b_dtype).kind == "c" and draw(st.booleans()):
        b = b * b.dtype.type(1j)
    number = st.sampled_from([2, 0.5, -1.5, 1j, True])
    if draw(st.integers(0, 4)) == 0:
        b = draw(number)
    elif draw(st.integers(0, 4)) == 0:
        a = draw(number)
    return a, b


F4, F8 = np.ones(2, "float32"), np.ones(2)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (F4, 2), (F4, 2.0), (F4, np.float64(2)), (F4, np.ones(2, "int8")), (F4, np.ones(2, int)),
        (F4, [1, 2]), (F4, 1j), (F4, [1j, 2]), (F4, F8), (F4, True), (F8, 1j), (F4.astype("g"), 1j),
        (np.float32(1), 1.0), (1, F4), (2.5, F4), (1j, F4), ([1, 2], F4), (np.array(1.0), F4),
        (np.float64(1), F4), (1, 1), (1, 1.0), (1, 1j), (np.ones(2, int), 1.0), ([1, 2], 1j),
        (np.ones(2, bool), 1), (np.ones(2, bool), True), (True, True), (2**70, 1), (F4, 2**70),
        (F4.astype("float16"), 3), (F4.astype("float16"), F4.astype("float16")),
        (F4.astype("float16"), 1j), (F4.astype("float16"), np.ones(2, int)),
    ],
    ids=repr,
)  # fmt: skip
def test_the_common_dtype_of_a_and_b_is_scipys(a, b):
    assert_same_form(special.logsumexp(a, b=b), peer("logsumexp", a, b=b))


@like_new_scipy
@given(problem=weighted(), data=st.data())
def test_weighted_logsumexp_agrees_with_scipy(face, problem, data):
    a, b = problem
    ndim = max(np.ndim(a), np.ndim(b), 1)
    axis = data.draw(axes(ndim))
    options = {"keepdims": data.draw(st.booleans()), "return_sign": data.draw(st.booleans())}
    results = both("logsumexp", a, axis, b, **options)
    if results is not None:
        wide_a, wide_b = np.broadcast_arrays(np.atleast_1d(a), b)
        condition = sum_condition(wide_a, tuple(range(ndim)) if axis is None else axis, wide_b)
        # Where everything cancels SciPy may see a rounding error, or we; compare the others.
        assume(np.all((condition < 1e3) | np.isnan(condition)))
        compare_sums(*results, atol=100 * np.max(condition, initial=1, where=condition > 1))


# Sizes for the elementwise functions with which SciPy does not overflow on its way.
POSITIVE = st.floats(1e-30, 1e30) | st.floats(0.5, 2.0)
PLAIN = st.one_of(POSITIVE, POSITIVE, POSITIVE, st.sampled_from([0.0, -0.0, -1.0, INF, -INF, NAN]))
ANY_DTYPE = ["float16", "float32", "float64", "bool", "int8", "uint16", "int32", "uint64", ">f4"]


@st.composite
def operand(draw, shape):
    choice = draw(st.integers(0, 7))
    if choice == 0:
        return draw(st.sampled_from([0, 3, 0.25, 2.0, True, -1, 2**70]))
    dtype = np.dtype(draw(st.sampled_from(ANY_DTYPE)))
    if dtype.kind == "f":
        with np.errstate(all="ignore"):
            return draw(hnp.arrays(np.float64, shape, elements=PLAIN)).astype(dtype)
    return draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 100))).astype(dtype)


@given(data=st.data())
def test_elementwise_functions_agree_with_scipy(data):
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0))
    x, y = (data.draw(operand(s)) for s in shapes.input_shapes)
    if type(x) is not int:  # NumPy makes an object of 2**70 alone
        results = both("entr", x)
        assert_close_terms(*results, 4)
    assert_close_terms(*both("rel_entr", x, y), 4)
    actual, expected = both("kl_div", x, y)
    # SciPy's terms cancel where x is near y.
    with np.errstate(all="ignore"):
        wide_x, wide_y = (np.asarray(v, np.float64) for v in (x, y))
        size = wide_x + wide_y + np.abs(wide_x * np.log(wide_x / wide_y))
    assert_close_terms(actual, expected, 4, size)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.ones(2, "int8"), np.ones(2, "uint16")),  # their common dtype is int32
        (np.ones(2, "uint16"), np.ones(2, "float16")),
        (np.ones(2, "int8"), 0.5), (np.ones(2, "int8"), 3), (np.ones(2, bool), 1),
        (F4, 0.1), (np.float32(0.1), 0.1), (F4, 1e39), (F4, 2**70), (F4, np.float64(0.1)),
        (F4, np.ones(2, "int32")), (F4, [1, 2]), (F4, [True]), (True, True), (True, 0.5), (1, 0.5),
        (2**70, 1.0), (np.float32(0.1), np.float64(0.1)), (F4.astype("float16"), 0.1),
    ],
    ids=repr,
)  # fmt: skip
def test_the_loop_for_x_and_y_is_scipys(x, y):
    for args in ((x, y), (y, x)):
        actual, expected = both("rel_entr", *args)
        assert_close_terms(actual, expected, 4)
        assert_same_form(special.kl_div(*args), peer("kl_div", *args))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["entr", "rel_entr", "kl_div"])
def test_elementwise_functions_of_few_numbers(rng, name, dtype):
    """The plainest arguments take a shorter way, to the same bits in the same form."""
    f = getattr(special, name)
    many = [np.concatenate([rng.random(9000), LINE, LINE[::-1]]).astype(dtype) for _ in range(2)]
    many = many[: 1 if name == "entr" else 2]
    expected = f(*many)  # too many for it
    for shape in ((), (1,), (17,), (3, 5, 4)):
        n = int(np.prod(shape))
        few = [a[-n:].reshape(shape) for a in many]
        assert_same_bits(f(*few), expected[-n:].reshape(shape)[()])
        assert type(f(*few)) is (np.ndarray if shape else np.dtype(dtype).type)
        assert type(f(*(a[()] for a in few))) is type(f(*few))
    numbers = [float(a[5]) for a in many]
    assert type(f(*numbers)) is np.float64
    assert_same_bits(f(*numbers), f(*(np.full(5000, number) for number in numbers))[0])
    if name != "entr":
        assert f(many[0][:6].reshape(2, 3), many[1][:3]).shape == (2, 3)
        assert f(many[0][:3], many[1][:3].astype(np.float64)).dtype == np.float64
        with pytest.raises(ValueError, match="broadcast"):
            f(many[0][:3], many[1][:2])


def assert_close_terms(actual, expected, units, size=None):
    """Within units of eps of the size of the terms."""
    with np.errstate(all="ignore"):
        actual, expected = np.asarray(actual), np.asarray(expected)
        size = np.abs(expected, dtype=np.float64) if size is None else size
        slack = units * (eps(expected.dtype) * size + np.finfo(expected.dtype).smallest_subnormal)
        near = np.abs(actual.astype(np.float64) - expected.astype(np.float64)) <= slack
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    np.testing.assert_array_equal(near | same, True, f"{actual} {expected}")


# logsumexp with factors, exactly ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weighted_logsumexp_against_exact_arithmetic(rng, dtype):
    a = rng.normal(0, 30, (200, 12)).astype(dtype)
    b = rng.normal(size=a.shape).astype(dtype)
    b[rng.random(b.shape) < 0.2] = 0
    values, signs = special.logsumexp(a, 1, b, return_sign=True)
    with mpmath.workdps(60):
        for row, factors, value, sign in zip(a, b, values, signs, strict=True):
            terms = [f * mpmath.exp(v) for v, f in zip(exactly(row), exactly(factors), strict=True)]
            total, size = mpmath.fsum(terms), mpmath.fsum(abs(t) for t in terms)
            exact = mpmath.log(abs(total))
            assert sign == mpmath.sign(total)
            # Largest number and logarithm are rounded, and what is in the sum is magnified.
            slack = 2 * eps(dtype) * float(abs(exact)) + 4 * eps("float64") * (
                100 + float(size / abs(total))
            )
            assert abs(mpmath.mpf(float(value)) - exact) <= slack


# 112, 113: entr, rel_entr, kl_div -----------------------------------------------------------------

LINE = np.array([-INF, -1.0, -0.0, 0.0, 1e-30, 0.5, 1.0, 2.0, 1e30, INF, NAN])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_112_special_values(dtype):
    x, y = np.meshgrid(LINE.astype(dtype), LINE.astype(dtype), indexing="ij")
    for name in PAIRS:
        assert_close_terms(getattr(special, name)(x, y), peer(name, x, y), 4)
    assert_same_bits(special.entr(LINE[:4]), np.array([-INF, -INF, 0, 0]))
    assert_close_terms(special.entr(LINE.astype(dtype)), peer("entr", LINE.astype(dtype)), 4)


def test_112_rel_entr_by_hand():
    assert special.rel_entr(0, [0, 1, INF]).tolist() == [0, 0, 0]
    assert special.rel_entr([1, INF], 0).tolist() == [INF, INF]
    assert special.rel_entr([-1, 1, -1], [1, -1, -1]).tolist() == [INF, INF, INF]
    assert np.isnan(special.rel_entr([NAN, 0, 1, -1], [0, NAN, NAN, NAN])).all()
    assert special.rel_entr(0.5, 0.25) == pytest.approx(0.5 * np.log(2), rel=1e-15)


def test_113_kl_div_has_y_minus_x():
    assert special.kl_div(0, 1) == 1
    assert special.kl_div([0.5, 0.25], [0.25, 0.5]) == pytest.approx(
        [0.5 * np.log(2) - 0.25, -0.25 * np.log(2) + 0.25], rel=1e-15
    )
    assert special.kl_div(0.0, [0, 5e-324, INF]).tolist() == [0, 5e-324, INF]


NEARNESS = {
    "nearly-equal": lambda rng, n: 1 + rng.normal(size=n) * 10.0 ** rng.uniform(-16, -1, n),
    "a-third-less": lambda rng, n: rng.uniform(0.5, 0.67, n),
    "close": lambda rng, n: rng.uniform(0.2, 5, n),
    "apart": lambda rng, n: 10.0 ** rng.uniform(-250, 250, n),
}


@pytest.mark.parametrize("nearness", NEARNESS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_accuracy_of_rel_entr_and_kl_div(rng, dtype, nearness):
    x = 10.0 ** rng.uniform(-20, 20, 1000)
    with np.errstate(over="ignore", under="ignore"):
        y = (x * NEARNESS[nearness](rng, x.size)).astype(dtype)
    x = x.astype(dtype)
    keep = np.isfinite(y) & (y > 0)
    x, y = x[keep], y[keep]
    with mpmath.workdps(60):
        relative = [p * mpmath.log(p / q) for p, q in zip(exactly(x), exactly(y), strict=True)]
        kl = [r - p + q for r, p, q in zip(relative, exactly(x), exactly(y), strict=True)]
    for name, exact, limit in (("rel_entr", relative, 3), ("kl_div", kl, 7)):
        actual = getattr(special, name)(x, y)
        normal = np.array([np.finfo(dtype).tiny < abs(e) < np.finfo(dtype).max for e in exact])
        assert normal.mean() > 0.3
        exact = [e for e, n in zip(exact, normal, strict=True) if n]
        assert ulps(actual[normal], exact).max() <= (0.501 if dtype == "float32" else limit)
    equal = special.kl_div(x, x)
    np.testing.assert_array_equal(equal, 0)
    assert (special.kl_div(x, y) >= 0).all()


@pytest.mark.parametrize(
    ("x", "y"), [(1.0, 1e-310), (1e300, 1e-300), (5e-324, 1e308), (1e-200, 1e200)]
)
def test_no_overflow_on_the_way(x, y):
    # SciPy's kl_div is infinite for all of these.
    with mpmath.workdps(60):
        relative = mpmath.mpf(x) * mpmath.log(mpmath.mpf(x) / mpmath.mpf(y))
        assert special.rel_entr(x, y) == pytest.approx(float(relative), rel=1e-15)
        assert special.kl_div(x, y) == pytest.approx(float(relative - x + y), rel=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_accuracy_of_entr(rng, dtype):
    x = np.concatenate([rng.uniform(0, 2, 1000), 10.0 ** rng.uniform(-30, 30, 500)])
    x = np.concatenate([x, 1 + rng.normal(size=500) * 1e-6]).astype(dtype)
    with mpmath.workdps(60):
        exact = [-v * mpmath.log(v) for v in exactly(x)]
    assert ulps(special.entr(x), exact).max() <= (0.501 if dtype == "float32" else 2)


# out= and where= as a ufunc has them


def arguments(name, x):
    return [x, x[::-1].copy()] if name in PAIRS else [x]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_65_out_is_what_is_returned(name):
    f, args = getattr(special, name), arguments(name, np.array([0.5, 1.0, 3.0]))
    expected = f(*args)
    for dtype in ("float64", "float32", ">f8", "float16"):
        for given_as in (lambda o: {"out": o}, lambda o: {"out": (o,)}):
            out = np.full(3, 7, dtype)
            assert f(*args, **given_as(out)) is out
            np.testing.assert_array_equal(out, expected.astype(dtype))
    out = np.empty(3)
    assert f(*args, out) is out
    np.testing.assert_array_equal(out, expected)
    wide = np.empty((2, 3))
    assert f(*args, wide) is wide
    np.testing.assert_array_equal(wide, [expected, expected])


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_62_63_out_may_be_an_input_or_overlap_one(name):
    x = np.linspace(0.25, 4, 9)
    f, args = getattr(special, name), arguments(name, x[:8])
    expected = f(*args)
    same = x[:8].copy()
    f(same, *args[1:], out=same)
    np.testing.assert_array_equal(same, expected)
    f(x[:8], *args[1:], out=x[1:])
    np.testing.assert_array_equal(x[1:], expected)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize(
    "out", [np.full(3, 7), np.full(2, 7.0), [0.0] * 3, np.broadcast_to(7.0, 3)], ids=str
)
def test_64_an_out_that_does_not_fit(name, out):
    args = arguments(name, np.array([0.5, 1.0, 3.0]))
    with pytest.raises((TypeError, ValueError)) as theirs:
        getattr(scipy.special, name)(*args, out=out)
    with pytest.raises((TypeError, ValueError)) as ours:
        getattr(special, name)(*args, out=out)
    assert isinstance(ours.value, TypeError) == isinstance(theirs.value, TypeError)
    assert (np.asarray(out) == (0 if isinstance(out, list) else 7)).all()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_where(name):
    f, args = getattr(special, name), arguments(name, np.array([0.5, 1.0, 3.0]))
    out = np.full((2, 3), 7.0)
    mask = np.array([[True, False, True], [False, False, True]])
    assert f(*args, out=out, where=mask) is out
    np.testing.assert_array_equal(out, np.where(mask, f(*args), 7))
    out = np.full(3, 7.0)
    f(*args, out=out, where=[False, True, False])
    np.testing.assert_array_equal(out, np.where([False, True, False], f(*args), 7))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_shapes_that_do_not_broadcast(name):
    if name == "entr":
        with pytest.raises(ValueError, match="broadcast"):
            special.entr(np.ones(3), out=np.ones(2))
    else:
        with pytest.raises(ValueError, match="broadcast"):
            getattr(special, name)(np.ones(3), np.ones(2))


def test_logsumexp_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match="broadcast"):
        special.logsumexp(np.ones(3), b=np.ones(2))
