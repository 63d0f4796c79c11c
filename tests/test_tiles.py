"""Products by tile instructions (AMX), emulated wherever there are none.

The tile operations are judged by the manual's words in Python; what is made of them by integers,
and by float64. Everything that any table promises is tested elsewhere, of this one too.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import softmax_ext as sx
from softmax_ext import _kernels

ROOT = Path(__file__).parents[1]
U = 2.0**-24
AMX = "amx" in sx.available_isas() and not _kernels.why_no_tiles()
on_amx = pytest.mark.skipif(not AMX, reason="this processor has no tile instructions")


@pytest.fixture(scope="module")
def tiles():
    return sx.Kernels("amx-emulated")


@pytest.fixture(scope="module")
def plain():
    """The table that the emulated one has all else from."""
    return sx.Kernels("avx512" if "avx512" in sx.available_isas() else "baseline")


# ------------------------------------------------------------------------------ the operations


@pytest.fixture(scope="module")
def operations(tmp_path_factory):
    """f(name, form, c, a, b): c += a b, of 16 x 64 bytes each."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("tiles") / "tiles.so"
    flags = ["-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'src'}"]
    subprocess.run([compiler, *flags, ROOT / "tests/tile_operations.c", "-o", library], check=True)
    compiled = ctypes.CDLL(str(library))

    def operation(name, form, *arrays):
        getattr(compiled, f"{name}_{form}")(*(ctypes.c_void_p(a.ctypes.data) for a in arrays))

    return operation


def random_bytes(rng):
    return rng.integers(0, 256, (16, 64), np.uint8)


def random_bf16(rng):
    """Exponents near each other or far apart, subnormals and zeros; no NaN, no infinity."""
    exponents = rng.choice([rng.integers(110, 140, (16, 32)), rng.integers(0, 190, (16, 32))])
    exponents[rng.random((16, 32)) < 0.1] = 0
    sign, mantissa = rng.integers(0, 2, (16, 32)), rng.integers(0, 128, (16, 32))
    return (sign << 15 | exponents << 7 | mantissa).astype(np.uint16)


def floats(bf16):
    return (bf16.astype(np.uint32) << 16).view(np.float32)


def flushed(x):
    return np.where(np.abs(x) < np.finfo(np.float32).smallest_normal, np.float32(0), x)


def rounded(x):
    """A Fraction to 24 bits, nearest or even, and then 0 if that is less than 2^-126."""
    if not x:
        return Fraction(0)
    size = abs(x)
    e = size.numerator.bit_length() - size.denominator.bit_length()
    e -= size < Fraction(2) ** e
    unit = Fraction(2) ** (e - 23)
    nearest = round(x / unit) * unit  # Python rounds halves to even
    return nearest if abs(nearest) >= Fraction(2) ** -126 else Fraction(0)


@pytest.mark.parametrize(
    ("name", "a_type", "b_type"), [("dot_us", "u1", "i1"), ("dot_su", "i1", "u1")]
)
def test_sums_of_bytes(operations, rng, name, a_type, b_type):
    c = rng.integers(-(2**31), 2**31, (16, 16), np.int32)
    a, b = random_bytes(rng), random_bytes(rng)
    left = a.view(a_type).astype(np.int64)
    right = b.view(b_type).astype(np.int64).reshape(16, 16, 4).transpose(0, 2, 1).reshape(64, 16)
    expected = (c + left @ right).astype(np.int32)  # modulo 2^32
    operations(name, "emulated", c, a, b)
    np.testing.assert_array_equal(c, expected)


def test_sums_of_bf16(operations, rng):
    """By the manual: even and odd products in sums of their own from 0, each step one rounding;
    both sums added up, and to C."""
    for _ in range(3):
        a, b = random_bf16(rng), random_bf16(rng)
        c = rng.normal(0, 2.0 ** rng.integers(-130, 100, (16, 16))).astype(np.float32)
        c[0, :8] = np.ldexp(1.0, -130)
        x, y = flushed(floats(a)), flushed(floats(b)).reshape(16, 16, 2)
        expected = np.empty((16, 16), np.float32)
        for i in range(16):
            for j in range(16):
                sums = [Fraction(0), Fraction(0)]
                for k in range(16):
                    for e in range(2):
                        product = Fraction(float(x[i, 2 * k + e])) * Fraction(float(y[k, j, e]))
                        sums[e] = rounded(sums[e] + product)
                total = rounded(Fraction(float(flushed(c)[i, j])) + rounded(sums[0] + sums[1]))
                expected[i, j] = float(total)
        operations("dot_bf16", "emulated", c, a, b)
        np.testing.assert_array_equal(c, expected)


@on_amx
@pytest.mark.parametrize("name", ["dot_us", "dot_su", "dot_bf16"])
def test_the_processor_does_what_the_emulation_does(operations, rng, name):
    for _ in range(200):
        a, b = (f(rng) for f in [random_bf16 if name == "dot_bf16" else random_bytes] * 2)
        c = rng.normal(size=(16, 16)).astype(np.float32).view(np.int32)
        other = c.copy()
        operations(name, "emulated", c, a, b)
        operations(name, "amx", other, a, b)
        np.testing.assert_array_equal(c, other)


@on_amx
@pytest.mark.parametrize("shape", [(300, 784, 10), (300, 100, 300)])
@pytest.mark.parametrize("x_dtype", ["uint8", "float32"])
def test_the_table_has_the_bits_of_the_emulated_one(tiles, x_dtype, shape, rng):
    n, d, c = shape
    X = (rng.random((n, d)) * 255).astype(x_dtype)
    W, b = rng.normal(0, 0.001, (d, c)).astype(np.float32), rng.normal(size=c).astype(np.float32)
    y = rng.integers(0, c, n)
    if x_dtype == "float32" and c <= 64:
        pytest.skip("by the vector unit, where the emulated table goes by tiles")
    results = [k.linear_cross_entropy_with_grad(X, W, b, y, with_dX=c > 64)
               for k in (sx.Kernels("amx"), tiles)]  # fmt: skip
    for got, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(got, expected)


# --------------------------------------------------------------------------------------- bytes

LOW = 0x80808080  # how far below 0 four signed digits go


def exponents(x):
    """The e with 2^(e - 1) <= largest |x| < 2^e, by column."""
    return np.frexp(np.abs(x).max(axis=0, initial=0))[1].astype(int)


def groups_of(x, e, n_groups):
    """Columns x below 2^e as groups of four digits: integers in units of 2^(e - 30 - 32 i)."""
    q = [[int(Fraction(float(v)) * Fraction(2) ** (32 * n_groups - 2 - int(ej)))
          for v, ej in zip(row, e, strict=True)] for row in x]  # fmt: skip
    q = np.array(q, object).reshape(x.shape)
    groups = []
    for i in reversed(range(1, n_groups)):
        q, low = (q + LOW) >> 32, q
        groups.insert(0, low - (q << 32))
        del i
    return [q, *groups]


def joined(sums, e):
    """The sums of the groups, one after the other, in float64."""
    total = sums[0].astype(float)
    for s in sums[1:]:
        total = total * 2.0**32 + s.astype(float)
    return np.ldexp(total, e - 30 - 32 * (len(sums) - 1))


def problem_of_bytes(rng, n, d, c, spread, zeros=0.1):
    """With weights over `spread` powers of two."""
    X = rng.integers(0, 256, (n, d), np.uint8)
    W = rng.normal(size=(d, c)) * 2.0 ** -rng.integers(0, spread + 1, (d, c)) / 255
    W[rng.random((d, c)) < zeros] = 0
    return X, W.astype(np.float32), rng.normal(size=c).astype(np.float32)


SHAPES = [
    (1, 64, 1),
    (3, 63, 2),
    (17, 65, 3),
    (33, 784, 10),
    (100, 70, 16),
    (31, 200, 33),
    (5, 1, 9),
]


@pytest.mark.parametrize("spread", [0, 6, 20])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_of_bytes_are_those_of_int64(tiles, shape, spread, rng):
    X, W, b = problem_of_bytes(rng, *shape, spread)
    e = exponents(W)
    hi, lo = (g.astype(np.int64) for g in groups_of(W, e, 2))
    wide = X.astype(np.int64)
    expected = (joined([wide @ hi, wide @ lo], e) + b).astype(np.float32)
    np.testing.assert_array_equal(tiles.linear(X, W, b), expected)


def test_logits_of_bytes_are_rounded_once(tiles, rng):
    """Nearer to the exact ones than half a unit, and a little for float64's own roundings."""
    X, W, b = problem_of_bytes(rng, 50, 300, 10, 30)
    exact = X.astype(np.longdouble) @ W.astype(np.longdouble) + b
    got = tiles.linear(X, W, b)
    assert (np.abs(got - exact) <= 0.5001 * np.spacing(np.abs(got))).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_of_bytes_are_those_of_integers(tiles, shape, rng):
    """G is that of cross_entropy_with_grad, for logits of the same bits."""
    n, d, c = shape
    X, W, b = problem_of_bytes(rng, n, d, c, 3)
    W, y = 60 * W, rng.integers(0, c, n)
    G = tiles.cross_entropy_with_grad(tiles.linear(X, W, b), y)[1]
    e = exponents(G)
    wide = X.astype(object).T
    sums = [wide @ g for g in groups_of(G, e, 5)]
    expected = joined(sums, e).astype(np.float32)
    result = tiles.linear_cross_entropy_with_grad(X, W, b, y)
    np.testing.assert_array_equal(result.dW, expected)


def test_blocks_of_gradients_are_rounded_once_each(tiles, rng):
    """Of 256 rows: the second is added to the first in float32."""
    X, W, b = problem_of_bytes(rng, 500, 100, 5, 3)
    y = rng.integers(0, 5, 500)
    G = tiles.cross_entropy_with_grad(tiles.linear(X, W, b), y)[1].astype(np.longdouble)
    wide = X.astype(np.longdouble)
    first = (wide[:256].T @ G[:256]).astype(np.float32)
    expected = (first + wide[256:].T @ G[256:]).astype(np.float32)
    np.testing.assert_array_equal(tiles.linear_cross_entropy_with_grad(X, W, b, y).dW, expected)


def test_a_pixel_alone_is_multiplied_to_the_last_bit(tiles, rng):
    """Where all large weights, or all rows with a large gradient, are multiplied by 0: no digit of
    the small ones is cut off, and none overflows."""
    n, c = 256, 33
    X = np.diag(rng.integers(1, 256, n)).astype(np.uint8)
    W = (rng.normal(size=(n, c)) * 2.0 ** -rng.integers(0, 25, (n, c))).astype(np.float32)
    pixels = X.diagonal()[:, None].astype(float)
    np.testing.assert_array_equal(tiles.linear(X, W), (pixels * W).astype(np.float32))
    W, y = 0.2 * W, rng.integers(0, c, n)
    logits = tiles.linear(X, W)
    assert np.ptp(logits) > 40
    G = tiles.cross_entropy_with_grad(logits, y)[1]
    result = tiles.linear_cross_entropy_with_grad(X, W, None, y)
    np.testing.assert_array_equal(result.dW, (pixels * G).astype(np.float32))


def test_the_scale_of_bytes_is_in_their_weights(tiles, rng):
    X, W, b = problem_of_bytes(rng, 40, 80, 7, 4)
    scale = np.float32(1 / 255)
    np.testing.assert_array_equal(
        tiles.linear(X, W, b, x_scale=1 / 255), tiles.linear(X, W * scale, b)
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e-20])
def test_weights_of_no_digits_are_left_to_the_vector_unit(tiles, plain, bad, rng):
    """Not finite, or of a wider range than eight digits have."""
    X, W, b = problem_of_bytes(rng, 40, 80, 7, 0)
    W[3, 2] = bad
    got, expected = (k.linear(X, W, b) for k in (tiles, plain))
    np.testing.assert_array_equal(got, expected)


def test_the_widest_range_of_weights(tiles, rng):
    """38 powers of two below the largest are still exact; one more is not for tiles."""
    X = rng.integers(1, 256, (20, 64), np.uint8)
    for power in (38, 39):
        W = np.full((64, 2), 1 - U, np.float32)
        W[0] = np.float32(1 - U) * np.float32(2.0**-power)
        exact = X.astype(np.longdouble) @ W.astype(np.longdouble)
        got = tiles.linear(X, W, None)
        right = (np.abs(got - exact) <= 0.5001 * np.spacing(got)).all()
        assert right == (power == 38)


# ------------------------------------------------------------------------------------- float32


def logit_error(got, X, W, b):
    """In units of u times the sizes of the terms."""
    wide, weights = X.astype(np.longdouble), W.astype(np.longdouble)
    sizes = np.abs(wide) @ np.abs(weights) + np.abs(b)
    return np.abs(got - (wide @ weights + b)) / (U * np.maximum(sizes, 1e-300))


def adversarial(rng, n, d, how):
    x = rng.normal(size=(n, d))
    if how == "wide":
        x = x * 2.0 ** rng.integers(-40, 40, (n, d))
    elif how == "sparse":
        x = x * (rng.random((n, d)) < 0.05)
    elif how == "cancelling":
        x[:, 1::2] = -x[:, : d - d % 2 : 2] * (1 + 2.0**-20)
    elif how == "tiny":
        x = x * 2.0 ** -rng.integers(0, 140, (n, 1))
    elif how == "one sign":
        x = np.abs(x)
    return x.astype(np.float32)


HOW = ["normal", "wide", "sparse", "cancelling", "tiny", "one sign"]


@pytest.mark.parametrize("of_w", HOW)
@pytest.mark.parametrize("of_x", HOW)
def test_pieces_are_within_the_bound_of_a_float32_sum(tiles, of_x, of_w, rng):
    """And, where that bound is far off, as near as the vector unit's sums or nearer."""
    n, d, c = 50, 300, 70
    X, W = adversarial(rng, n, d, of_x), adversarial(rng, c, d, of_w).T.copy()
    b = rng.normal(size=c).astype(np.float32)
    error = logit_error(tiles.linear(X, W, b), X, W, b)
    assert error.max() <= (d + 3) / 2
    y = rng.integers(0, c, n)
    result = tiles.linear_cross_entropy_with_grad(X, W, b, y, reduction="sum", with_dX=True)
    assert np.isfinite(result.loss)


def test_pieces_are_nearer_than_sums_of_the_vector_unit(tiles, plain, rng):
    X, W = (rng.normal(size=s).astype(np.float32) for s in ((200, 768), (768, 100)))
    b = np.zeros(100, np.float32)
    ours, theirs = (logit_error(k.linear(X, W, b), X, W, b) for k in (tiles, plain))
    assert np.sqrt((ours**2).mean()) <= np.sqrt((theirs**2).mean())
    assert ours.max() <= theirs.max()


@pytest.mark.parametrize("how", HOW)
def test_gradients_by_pieces_are_as_near(tiles, plain, how, rng):
    """Of W and of X, relative to the sizes of the terms of X^T G and G W^T."""
    n, d, c = 300, 65, 70
    X, W = adversarial(rng, n, d, how), (0.1 * rng.normal(size=(d, c))).astype(np.float32)
    y, b = rng.integers(0, c, n), np.zeros(c, np.float32)
    X = np.clip(X, -50, 50)
    G = tiles.cross_entropy_with_grad(tiles.linear(X, W, b), y)[1].astype(np.longdouble)
    result = tiles.linear_cross_entropy_with_grad(X, W, b, y, with_dX=True)
    for got, left, right in ((result.dW, X.T, G), (result.dX, G, W.T)):
        left, right = left.astype(np.longdouble), right.astype(np.longdouble)
        sizes = np.abs(left) @ np.abs(right)
        error = np.abs(got - left @ right)
        assert (error <= 20 * U * sizes + 2.0**-148).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e-44, 1e-38, 1e20])
def test_a_row_that_pieces_do_not_hold_is_left_to_the_vector_unit(tiles, plain, bad, rng):
    """That row alone: the others keep their bits."""
    X, W = (rng.normal(size=s).astype(np.float32) for s in ((50, 100), (100, 70)))
    b = rng.normal(size=70).astype(np.float32)
    before = tiles.linear(X, W, b)
    rows = [3, 4, 20, 21, 22, 23, 24, 49]
    X[rows, 7] = bad
    got = tiles.linear(X, W, b)
    np.testing.assert_array_equal(got[rows], plain.linear(X[rows], W, b))
    np.testing.assert_array_equal(np.delete(got, rows, 0), np.delete(before, rows, 0))
    if np.isfinite(bad):
        assert (np.delete(got, rows, 0) != np.delete(plain.linear(X, W, b), rows, 0)).any()


def test_weights_that_pieces_do_not_hold(tiles, plain, rng):
    X, W = (rng.normal(size=s).astype(np.float32) for s in ((50, 100), (100, 70)))
    for bad in (np.inf, np.nan, 1e-44):
        W[5, 5] = bad
        np.testing.assert_array_equal(tiles.linear(X, W), plain.linear(X, W))


# ------------------------------------------------------------------------------------- promises


def same_bits(a, b):
    for one, other in zip(a, b, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


CASES = [((700, 100, 10), "uint8"), ((700, 100, 70), "float32"), ((300, 800, 3000), "float32"),
         ((300, 800, 3000), "uint8")]  # fmt: skip


def case_of(rng, shape, x_dtype):
    n, d, c = shape
    X = (rng.random((n, d)) * 255).astype(x_dtype)
    W = (rng.normal(size=(d, c)) / 2000).astype(np.float32)
    return X, W, rng.normal(size=c).astype(np.float32), rng.integers(0, c, n)


@pytest.mark.parametrize(("shape", "x_dtype"), CASES, ids=str)
def test_bits_do_not_depend_on_threads_or_layout(tiles, sx, shape, x_dtype, rng):
    X, W, b, y = case_of(rng, shape, x_dtype)
    sx.set_num_threads(1)
    expected = tiles.linear_cross_entropy_with_grad(X, W, b, y, with_dX=True)
    sx.set_num_threads(3)
    same_bits(tiles.linear_cross_entropy_with_grad(X, W, b, y, with_dX=True), expected)
    if shape[2] == 3000:
        return
    wide = np.zeros((X.shape[0], 2 * X.shape[1]), x_dtype)
    wide[:, ::2] = X
    for other in (np.asfortranarray(X), wide[:, ::2], X[::-1].copy()[::-1]):
        same_bits(tiles.linear_cross_entropy_with_grad(other, W, b, y, with_dX=True), expected)
    same_bits(tiles.linear_cross_entropy_with_grad(X, np.asfortranarray(W), b, y, with_dX=True),
              expected)  # fmt: skip


@pytest.mark.parametrize(("shape", "x_dtype"), CASES[:2], ids=str)
def test_a_row_does_not_depend_on_its_company(tiles, shape, x_dtype, rng):
    X, W, b, _ = case_of(rng, shape, x_dtype)
    logits = tiles.linear(X, W, b)
    p = tiles.predict_proba(X, W, b)
    for n in (1, 2, 4, 5, 17, 300):
        rows = rng.permutation(len(X))[:n]
        same_bits(tiles.linear(X[rows], W, b), logits[rows])
        same_bits(tiles.predict_proba(X[rows], W, b), p[rows])


def test_calls_at_the_same_time_do_not_meet(tiles, rng):
    made = [case_of(rng, (300, 100, 10), "uint8"), case_of(rng, (100, 80, 70), "float32")]
    expected = [tiles.linear_cross_entropy_with_grad(*case) for case in made]
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda i: tiles.linear_cross_entropy_with_grad(*made[i % 2]), range(24))
        for i, result in enumerate(results):
            assert result.dW.tobytes() == expected[i % 2].dW.tobytes()
            assert result.loss == expected[i % 2].loss


def test_why_there_are_none():
    why = _kernels.why_no_tiles()
    assert AMX is (not why)
    assert why in ("", "no AVX-512", "the processor has no AMX", "the system does not save tiles",
                   "the processor does not say what its tiles are", "AMX is for Linux on x86-64",
                   "the system refused them to this process")  # fmt: skip


ALL_FLAGS, STATE = 1 << 22 | 1 << 24 | 1 << 25, 3 << 17


@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="AMX is for Linux on x86-64"
)
@pytest.mark.parametrize(
    ("flags", "state", "rows", "refused", "expected"),
    [
        (ALL_FLAGS, STATE, 16, 0, "-, 1 1 1 1 1"),
        (ALL_FLAGS, STATE, 16, 1, "-, 1 0 0 0 1"),  # asked once
        (ALL_FLAGS & ~(1 << 22), STATE, 16, 0, "the processor has no AMX, 0 0 0 0 0"),
        (ALL_FLAGS, 1 << 17, 16, 0, "the system does not save tiles, 0 0 0 0 0"),
        (ALL_FLAGS, STATE, 8, 0, "the processor does not say what its tiles are, 0 0 0 0 0"),
        (ALL_FLAGS, STATE, 0, 0, "the processor does not say what its tiles are, 0 0 0 0 0"),
    ],
)
def test_what_is_asked_of_processor_and_system(
    flags, state, rows, refused, expected, tmp_path_factory
):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    program = tmp_path_factory.getbasetemp() / "tile_permission"
    if not program.exists():
        source = ROOT / "tests/tile_permission.c"
        subprocess.run([compiler, "-O1", f"-I{ROOT / 'src'}", source, "-o", program], check=True)
    arguments = [program, *map(str, (flags, state, rows, refused))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


@pytest.mark.skipif("amx" not in sx.compiled_isas(), reason="not for this architecture")
@pytest.mark.skipif(AMX, reason="there are tiles here")
def test_the_refusal_and_show_config_say_why(capsys):
    why = _kernels.why_no_tiles()
    with pytest.raises(ValueError, match="'amx' cannot run here") as refusal:
        sx.Kernels("amx")
    assert why in str(refusal.value)
    sx.show_config()
    assert f"none: {why}" in capsys.readouterr().out


def test_emulated_tables_are_not_offered():
    assert _kernels.emulated_isas() == ("amx-emulated",)
    assert "amx-emulated" not in sx.compiled_isas() + sx.available_isas()
