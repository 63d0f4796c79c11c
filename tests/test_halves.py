"""X as float16 and bfloat16: the bits of the same numbers as float32, and no copy of them.

Every half is a float32 exactly, and the kernels do the same operations in the same order: so what
is computed from one is what is computed from the other, to the last bit.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from problems import LAYOUTS, Case, Problem, assert_same_bits, cases, run_python

import softmax_ext
from softmax_ext.solvers import minimize

try:
    from ml_dtypes import bfloat16
except ImportError:
    bfloat16 = None

HALVES = [
    "float16",
    pytest.param(bfloat16, marks=pytest.mark.skipif(bfloat16 is None, reason="no ml_dtypes")),
]
each_half = pytest.mark.parametrize("half", HALVES, ids=["float16", "bfloat16"])

CASES = [
    *(replace(case, x_dtype=None) for case in cases(31, 40, budget=1e7)),
    Case(9, 700, 3100, "float32", x_scale=0.5, rows=True),  # W in panels
]


def problem_in(half, case):
    """A problem whose X is of halves, and the same X in float32."""
    p = Problem(case)
    p.X = p.X.astype(half)
    return p, p.X.astype(np.float32)


@each_half
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_bits_as_float32(kernels, case, half):
    p, wide = problem_in(half, case)
    for name in ("linear", "predict_proba", "predict"):
        function = getattr(kernels, name)
        result = function(**p.linear)
        assert_same_bits(result, function(**p.linear | {"X": wide}))
        assert name == "predict" or result.dtype == case.dtype
    loss = kernels.linear_cross_entropy(**p.loss)
    assert_same_bits(
        np.asarray(loss), np.asarray(kernels.linear_cross_entropy(**p.loss | {"X": wide}))
    )
    result = kernels.linear_cross_entropy_with_grad(**p.gradient)
    expected = kernels.linear_cross_entropy_with_grad(**p.gradient | {"X": wide})
    assert_same_bits(result, expected)
    assert all(g is None or g.dtype == case.dtype for g in (result.dW, result.db, result.dX))
    given = p.loss | {"rows": p.rows, "V": np.cos(p.W)}
    assert_same_bits(
        kernels.linear_cross_entropy_hvp(**given),
        kernels.linear_cross_entropy_hvp(**given | {"X": wide}),
    )


@each_half
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_as_float32_in_csr(kernels, half, dtype):
    p, wide = problem_in(half, Case(300, 40, 7, dtype, x_scale=0.5, with_dX=False))
    row, column = np.nonzero(wide > 0.5)
    csr = SimpleNamespace(
        data=p.X[row, column], indices=column, indptr=np.searchsorted(row, np.arange(301)),
        shape=wide.shape,
    )  # fmt: skip
    expected = SimpleNamespace(**vars(csr) | {"data": wide[row, column]})
    assert_same_bits(
        kernels.linear_cross_entropy_with_grad(**p.gradient | {"X": csr}),
        kernels.linear_cross_entropy_with_grad(**p.gradient | {"X": expected}),
    )


@each_half
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("d", [5, 21, 100])
def test_any_layout(kernels, half, name, d):
    if name == "big-endian" and half != "float16":
        pytest.skip("ml_dtypes has none")
    p, _ = problem_in(half, Case(70, d, 5, "float32", rows=True))
    expected = kernels.linear_cross_entropy_with_grad(**p.gradient)
    moved = LAYOUTS[name](p.X)
    assert_same_bits(kernels.linear_cross_entropy_with_grad(**p.gradient | {"X": moved}), expected)
    expected = kernels.linear(p.X[:3], p.W)
    assert_same_bits(kernels.linear(moved[:3], p.W), expected)


@each_half
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("d", "at"), [(16, 3), (17, 16), (3, 1)])
@pytest.mark.parametrize("c", [1, 70])
def test_every_half_there_is(kernels, half, dtype, d, at, c):
    """Subnormal numbers, infinities and NaN among them: each times 1, and 0s beside it."""
    every = np.arange(1 << 16, dtype=np.uint16).view(half)
    X = np.zeros((len(every), d), half)
    X[:, at] = every
    W = np.zeros((d, c), dtype)
    W[at] = 1
    with np.errstate(all="ignore"):
        expected = every.astype(dtype) + 0  # 0 for -0, as the 0s beside it make it
    got = kernels.linear(X, W)
    np.testing.assert_array_equal(got, np.broadcast_to(expected[:, None], got.shape))
    # The gradient's product with X, row by row: the sum over a row alone is g x.
    some = np.flatnonzero(np.isfinite(expected))[::997]
    for row in some[:40]:
        x = X[row : row + 1]
        dW = kernels.linear_cross_entropy_with_grad(x, np.zeros((d, 2), dtype), None, [0]).dW
        np.testing.assert_array_equal(dW[at], np.array([-0.5, 0.5], dtype) * expected[row])


@each_half
def test_numbers_that_are_not_finite_in_a_minibatch(kernels, half):
    X = np.ones((40, 20), half)
    X[3, 5], X[7, 2] = np.nan, np.inf
    y, W = np.zeros(40, int), np.ones((20, 3), np.float32)
    result = kernels.linear_cross_entropy_with_grad(X, W, None, y, rows=np.array([1, 3, 4, 7]))
    assert np.isnan(result.dW[[2, 5]]).all()
    others = kernels.linear_cross_entropy_with_grad(X, W, None, y, rows=np.array([1, 4]))
    assert np.isfinite(others.dW).all()


@each_half
@pytest.mark.parametrize("threads", [1, 3])
def test_a_minibatch_from_many_rows(compiled, sx, half, threads):
    p, wide = problem_in(half, Case(5000, 64, 10, "float32"))
    rows = np.random.default_rng(0).permutation(5000)
    with sx.num_threads(threads):
        for some in (rows[:256], rows[256:4000]):
            given = {"W": p.W, "b": p.b, "target": p.target, "rows": some}
            assert_same_bits(
                compiled.linear_cross_entropy_with_grad(p.X, **given),
                compiled.linear_cross_entropy_with_grad(wide, **given),
            )


@pytest.mark.parametrize("name", ["W", "b", "V"])
@each_half
def test_weights_are_no_halves(kernels, name, half):
    given = {"W": np.zeros((3, 2)), "b": np.zeros(2), "V": np.zeros((3, 2))}
    given[name] = given[name].astype(half)
    with pytest.raises(TypeError, match=f"^{name}: dtype .*float16 came"):
        kernels.linear_cross_entropy_hvp(np.ones((1, 3)), target=[0], **given)


# What is built on the kernels ---------------------------------------------------------------------


def embeddings(half, n=600, d=24, c=4):
    rng = np.random.default_rng(3)
    y = rng.integers(c, size=n)
    X = (rng.normal(size=(c, d))[y] + rng.normal(0, 2, size=(n, d))).astype(half)
    return X, X.astype(np.float32), y


@each_half
def test_models_and_trainers(half):
    X, wide, y = embeddings(half)
    models = []
    for x in (X, wide):
        model = softmax_ext.SoftmaxModel.zeros(24, 4)
        trainer = softmax_ext.Trainer(epochs=2, batch_size=64)
        history = trainer.fit(model, x, y, validation_data=(x[:50], y[:50]))
        models.append(model)
        model.last = history[-1].train_loss, history[-1].validation_loss
        model.last += model.loss(x, y), model.accuracy(x, y)
    assert_same_bits(models[0].W, models[1].W)
    assert models[0].last == models[1].last
    assert_same_bits(models[0].logits(X), models[0].logits(wide))
    images = X.reshape(-1, 4, 6)
    assert_same_bits(models[0].predict(images), models[0].predict(wide))


@each_half
@pytest.mark.parametrize("options", [{}, {"l1": 2.0}, {"x_scale": 1 / 3}, {"precondition": False}])
def test_the_solver(half, options):
    """Its sample of the rows and the moments of the features come from the same numbers."""
    X, wide, y = embeddings(half)
    start = np.zeros((24, 4), np.float32), np.zeros(4, np.float32)
    results = [minimize(x, y, *start, l2=1.0, **options) for x in (X, wide)]
    assert results[0].success
    assert results[0].W.dtype == np.float32
    assert results[0].nfev == results[1].nfev
    assert_same_bits(results[0].W, results[1].W)


@each_half
def test_the_solver_says_what_is_wrong_with_them(half):
    X, _, y = embeddings(half)
    X[3, 2] = np.inf
    start = np.zeros((24, 4), np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="^X: NaN or infinite elements came"):
        minimize(X, y, *start, l2=1.0)
    trainer = softmax_ext.Trainer(epochs=1)
    with pytest.raises(ValueError, match="^X: NaN or infinity came in row 3"):
        trainer.fit(softmax_ext.SoftmaxModel.zeros(24, 4), X, y)


@each_half
@pytest.mark.parametrize("c", [10, 100])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_they_are_not_copied(sx, half, c, dtype):
    """A copy as float32 would be 16 MB, one of halves 8."""
    X, W = np.zeros((40_000, 100), half), np.zeros((100, c), dtype)
    y = np.zeros(40_000, int)
    tracemalloc.start()
    try:
        sx.linear_cross_entropy_with_grad(X, W, None, y)
        sx.linear_cross_entropy_hvp(X, W, None, y, W)
        sx.predict(X, W)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3e6


def test_ml_dtypes_is_not_imported():
    assert (
        run_python("""
import sys
import numpy as np, softmax_ext as sx
sx.linear(np.ones((2, 3), np.float16), np.ones((3, 2)))
print("ml_dtypes" in sys.modules)
""")
        == "False"
    )
