"""Errors in units in the last place, against exact results.

Exact means long double with its 11 more bits (or mpmath where there is no such long double): the
error of the yardstick is a thousandth of a unit. Every number is judged, not a mean.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from pathlib import Path

import mpmath
import numpy as np
import pytest
from problems import FLOATS, Case, Problem, once
from tolerances import (
    REFERENCE_SOFTMAX_ULP,
    REFERENCE_SOFTMAX_ULP_PER_UNIT_OF_Z,
    SOFTMAX_ULP,
    below_maximum,
    eps,
)

import softmax_ext
from softmax_ext import reference

ROOT = Path(__file__).parents[1]

LONG = np.finfo(np.longdouble).nmant > 60
needs_long_double = pytest.mark.skipif(not LONG, reason="long double has no more bits than double")
each_float = pytest.mark.parametrize("dtype", FLOATS)
CLASSES = [1, 2, 3, 5, 10, 15, 16, 17, 32, 33, 64, 100, 257, 1000, 5000]


def exact_parts(x):
    """z = x - max and log(sum(exp(z))), in long double."""
    x = x.astype(np.longdouble)
    z = below_maximum(x)
    e = np.exp(z)
    e[np.arange(len(e)), z.argmax(axis=1)] = 0
    return z, np.log1p(e.sum(axis=1, keepdims=True))


def ulp(exact, dtype):
    """The unit in the last place at each exact number (of the smallest normal one, below that)."""
    rounded = np.abs(exact.astype(dtype))
    return np.spacing(np.maximum(rounded, np.finfo(dtype).smallest_normal)).astype(np.longdouble)


def test_the_yardstick_is_exact():
    x = np.random.default_rng(0).normal(0, 8, (3, 20))
    z, log_sum = exact_parts(x)
    with mpmath.workdps(50):
        for i, row in enumerate(x):
            total = mpmath.fsum(mpmath.exp(mpmath.mpf(v) - mpmath.mpf(max(row))) for v in row)
            assert abs(mpmath.mpf(str(log_sum[i, 0])) - mpmath.log(total)) < 1e-17
            for j, v in enumerate(row):
                exact = mpmath.exp(mpmath.mpf(v) - mpmath.mpf(max(row))) / total
                here = mpmath.mpf(str(np.exp(z - log_sum)[i, j]))
                assert abs(here / exact - 1) < 1e-17


def softmax_limit(kernels, z):
    """In units in the last place."""
    if kernels is reference:
        return REFERENCE_SOFTMAX_ULP + REFERENCE_SOFTMAX_ULP_PER_UNIT_OF_Z * np.abs(z).astype(float)
    return np.full(z.shape, float(SOFTMAX_ULP))


@once
def rows_of(c, scale, dtype):
    """x, z = x - max and log(sum(exp(z)))."""
    rng = np.random.default_rng([c, int(scale)])
    x = rng.normal(0, scale, (max(4, 20_000 // c), c)).astype(dtype)
    return x, *exact_parts(x)


@needs_long_double
@each_float
@pytest.mark.parametrize("scale", [0.1, 1, 8, 30])
@pytest.mark.parametrize("c", CLASSES)
def test_softmax_within_4_ulp(kernels, dtype, c, scale):
    x, z, log_sum = rows_of(c, scale, dtype)
    exact = np.exp(z - log_sum)
    error = np.abs(kernels.softmax(x) - exact) / ulp(exact, dtype)
    limit = softmax_limit(kernels, z)
    worst = np.unravel_index((error / limit).argmax(), x.shape)
    assert error[worst] <= limit[worst], f"{error[worst]:.2f} ULP at {worst}"


@needs_long_double
@each_float
@pytest.mark.parametrize("scale", [0.1, 1, 8, 30])
@pytest.mark.parametrize("c", CLASSES)
def test_log_softmax_and_logsumexp_within_4_ulp(kernels, dtype, c, scale):
    x, z, log_sum = rows_of(c, scale, dtype)
    exact = z - log_sum
    slack = 0.0
    if kernels is reference:  # x - max is rounded, and sums are added in runs of 16
        p = np.exp(exact)
        slack = ((8 + np.abs(z)) * p * (z < 0)).sum(axis=1, keepdims=True) * eps(dtype)
    error = np.abs(kernels.log_softmax(x) - exact)
    assert (error <= 4 * ulp(exact, dtype) + slack).all(), (error / ulp(exact, dtype)).max()
    # In units of the larger of its two terms, which may cancel.
    m = x.max(axis=1, keepdims=True).astype(np.longdouble)
    error = np.abs(kernels.logsumexp(x)[:, None] - (m + log_sum))
    unit = ulp(np.maximum(np.abs(m), log_sum), dtype)
    assert (error <= 4 * unit + slack).all(), (error / unit).max()


@needs_long_double
@each_float
@pytest.mark.parametrize("c", [2, 100])
def test_exp_over_all_its_range(kernels, dtype, c):
    """Softmax of (0, -t) and many -inf, for t up to where the result is 0."""
    low = {"float32": -104.5, "float64": -746.0}[dtype]
    t = np.linspace(low, 0, 40_000).astype(dtype)
    x = np.full((len(t), c), -np.inf, dtype)
    x[:, 0], x[:, -1] = 0, t
    wide = t.astype(np.longdouble)
    exact = np.exp(wide) / (1 + np.exp(wide))
    error = np.abs(kernels.softmax(x)[:, -1] - exact) / ulp(exact, dtype)
    limit = softmax_limit(kernels, wide)
    assert (error <= limit).all(), error.max()
    # The logarithm of the sum is log1p of all that is not the maximum, down to the last bit.
    exact = np.log1p(np.exp(wide))
    error = np.abs(kernels.logsumexp(x) - exact) / ulp(exact, dtype)
    assert (error <= limit).all(), error.max()


@pytest.mark.slow
@pytest.mark.parametrize("isa", [isa for isa in softmax_ext.available_isas() if isa != "amx"])
def test_exp_of_every_float32(isa, tmp_path):
    """The leaf alone, compiled with its own flags: some minutes for an instruction set."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    flags = {"avx2": ["-mavx2", "-mfma"]}
    flags["avx512"] = [*flags["avx2"], *(f"-mavx512{part}" for part in ("f", "vl", "dq", "bw"))]
    command = [compiler, *softmax_ext._kernels.LEAF_FLAGS.split(), *flags.get(isa, [])]
    command += [f'-DSTUB="smx_{isa}.c"', f"-I{ROOT / 'src'}", ROOT / "tests/exp_of_all.c"]
    subprocess.run([*command, "-o", tmp_path / "exp_of_all", "-lm"], check=True)
    done = subprocess.run([tmp_path / "exp_of_all"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    normal, subnormal = map(float, done.stdout.split())
    assert normal <= 1
    assert subnormal <= 0.76


@needs_long_double
@each_float
def test_logsumexp_of_pairs_within_2_ulp(compiled, dtype):
    """Where the logarithm and the largest number are of one size all errors add up."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-0.15, 0.15, (600_000, 2)).astype(dtype)
    x[:, 1] = x[:, 0] - rng.uniform(0.5, 1.5, len(x))
    wide = x.astype(np.float64 if dtype == "float32" else np.longdouble)
    log_sum = np.log1p(np.exp(wide[:, 1] - wide[:, 0]))
    exact = wide[:, 0] + log_sum
    unit = ulp(np.maximum(np.maximum(np.abs(wide[:, 0]), log_sum), np.abs(exact)), dtype)
    error = np.abs(compiled.logsumexp(x) - exact) / unit
    assert error.max() <= 2


@once
def triples(dtype):
    """Rows (0, ., .) of numbers below 0, and their logsumexp."""
    x = -np.random.default_rng(3).uniform(0, 3, (300_000, 3)).astype(dtype)
    x[:, 0] = 0
    return x, np.log1p(np.exp(x[:, 1:].astype(np.longdouble)).sum(axis=1))


@needs_long_double
@each_float
def test_logsumexp_of_triples_within_2_ulp(compiled, dtype):
    """Here the logarithm alone is judged, and what its sum lost to rounding with it."""
    x, exact = triples(dtype)
    error = np.abs(compiled.logsumexp(x) - exact) / ulp(exact, dtype)
    assert error.max() <= 2


@needs_long_double
@each_float
@pytest.mark.parametrize("share", [1, 0.3])
def test_many_tiny_exponentials_are_added_up_exactly(compiled, dtype, share):
    """Each is `share` of the last place of 1: their sum is that of what each addition loses."""
    x = np.full((1, 1 << 16), np.log(share * eps(dtype)), dtype)
    x[0, 0] = 0
    exact = np.log1p((x.size - 1) * np.exp(x[:, 1].astype(np.longdouble)))
    for result in (compiled.logsumexp(x), -compiled.log_softmax(x)[:, 0]):
        assert np.abs(result - exact) <= 2 * ulp(exact, dtype)


@needs_long_double
@each_float
@pytest.mark.parametrize("scale", [1, 8, 30])
@pytest.mark.parametrize("c", [2, 10, 17, 100, 1000])
def test_losses_within_8_ulp(kernels, dtype, c, scale):
    x, z, log_sum = rows_of(c, scale, dtype)
    y = np.random.default_rng(1).integers(0, c, len(x))
    y[::2] = x.argmax(axis=1)[::2]  # half of the rows are right, with small losses
    exact = (log_sum - z)[np.arange(len(x)), y]
    losses = kernels.cross_entropy(x, y, reduction="none")
    slack = 0.0
    if kernels is reference:
        slack = ((8 + np.abs(z)) * np.exp(z - log_sum) * (z < 0)).sum(axis=1) * eps(dtype)
    error = np.abs(losses - exact)
    assert (error <= 8 * ulp(exact, dtype) + slack).all(), (error / ulp(exact, dtype)).max()
    total = kernels.cross_entropy(x, y, reduction="sum")
    np.testing.assert_allclose(total, float(exact.sum()), rtol=8 * eps(dtype))


@needs_long_double
@pytest.mark.parametrize("d", [1, 16, 17, 100, 784])
@pytest.mark.parametrize("c", [2, 10, 100])
def test_errors_of_logits_grow_as_the_root_of_d(compiled, c, d):
    """Rounding errors that go either way, not the worst that could be."""
    for dtype in FLOATS:
        p = Problem(Case(65, d, c, dtype))
        wide = {"X": p.X.astype(np.longdouble), "W": p.W.astype(np.longdouble)}
        exact = wide["X"] @ wide["W"] + p.b
        size = np.sqrt((wide["X"] ** 2) @ (wide["W"] ** 2) + p.b.astype(np.longdouble) ** 2)
        error = np.abs(compiled.linear(p.X, p.W, p.b) - exact) / (size * eps(dtype))
        assert error.max() <= 4 + d**0.5


@needs_long_double
@pytest.mark.parametrize("c", [2, 10, 100])
def test_the_loss_of_a_sure_model_keeps_its_digits(kernels, c):
    """Losses far below eps: the largest logit is left out of the sum, and log1p taken."""
    for dtype in FLOATS:
        X = np.eye(4, dtype=dtype)
        W = np.zeros((4, c), dtype)
        W[:, 1] = [20, 40, 60, 80]
        expected = np.log1p((c - 1) * np.exp(-np.array([20.0, 40, 60, 80])))
        losses = kernels.linear_cross_entropy(X, W, None, [1] * 4, reduction="none")
        np.testing.assert_allclose(losses, expected, rtol=16 * eps(dtype))


def test_gradients_of_many_rows_and_few_weights(compiled):
    """Slices of so many rows that small gradients would drown in their float32 sum."""
    n = 1 << 21
    X, y = np.ones((n, 1), "float32"), np.zeros(n, "int8")
    W = np.array([[0.3, 0.0]], "float32")
    dW = compiled.linear_cross_entropy_with_grad(X, W, None, y).dW
    p = 1 / (1 + np.exp(np.float64(W[0, 0])))
    np.testing.assert_allclose(dW, [[-p, p]], rtol=2e-5)


@pytest.mark.parametrize("c", [4096, 65_536, 1 << 20])
def test_softmax_of_a_long_row_with_one_large_number_within_4_ulp(compiled, c):
    """The other exponentials are tiny beside it, and together they are not."""
    for gap in (10.1, 12.3, 14.7, 16.9):
        x = np.zeros(c, np.float32)
        x[c // 3] = gap
        exact = np.exp(x.astype(np.float64) - float(x.max()))
        exact /= math.fsum(exact)
        error = np.abs(compiled.softmax(x) - exact) / np.spacing(exact.astype(np.float32))
        assert error.max() <= 4
