"""What the arguments may be: dtypes, layouts, lists, and which dtype comes out."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from problems import FLOATS, LAYOUTS, Case, Problem, assert_same_bits, deck

NUMBERS = ["float32", "float64", "uint8", "int8", "int16", "uint16", "int32", "int64", "bool"]


def computed_in(x, w, b):
    """float64 as soon as one is; all but float32 counts as float64; bytes in X have no say."""
    counted = [w] + [x] * (x != "uint8") + [b] * (b is not None)
    return "float32" if set(counted) == {"float32"} else "float64"


@pytest.mark.parametrize(
    ("x", "w", "b"),
    list(itertools.product(NUMBERS, ["float32", "float64", "int64"], [*FLOATS, "int8", None])),
)
def test_dtypes_of_the_linear_layer(kernels, x, w, b):
    X, W = np.array([[1, 0, 1], [0, 1, 1]], x), np.array([[1, 2], [0, 1], [1, 0]], w)
    bias = None if b is None else np.array([1, 2], b)
    expected = computed_in(x, w, b)
    logits = kernels.linear(X, W, bias)
    assert logits.dtype == expected
    wanted = np.array([[2, 2], [1, 1]]) + (0 if b is None else [1, 2])
    assert logits.tolist() == wanted.tolist()
    assert kernels.predict_proba(X, W, bias).dtype == expected
    assert kernels.predict(X, W, bias).dtype == np.intp
    options = {"reduction": "none", "weight": np.ones(2), "sample_weight": np.ones(2)}
    result = kernels.linear_cross_entropy_with_grad(X, W, bias, [0, 1], with_dX=True, **options)
    for array in (result.loss, result.dW, result.db, result.dX):
        assert array is None or array.dtype == expected
    assert (result.db is None) == (b is None)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "entropy"])
@pytest.mark.parametrize("dtype", ["float16", *NUMBERS, "uint32", "uint64"])
def test_dtypes_of_the_softmax_family(kernels, name, dtype):
    x = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    kept = dtype in ("float16", "float32")
    result = getattr(kernels, name)(x)
    assert result.dtype == (dtype if kept else "float64")
    wide = getattr(kernels, name)(x.astype("float64"))
    np.testing.assert_allclose(result, wide, 1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ("float16", "float16", "float16"),
        ("float16", "float32", "float32"),
        ("float32", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("int64", "float32", "float64"),
    ],
)
def test_dtypes_of_divergence(kernels, p, q, expected):
    assert kernels.kl_divergence(np.ones((2, 3), p), np.ones((2, 3), q)).dtype == expected


@pytest.mark.parametrize("dtype", NUMBERS)
def test_dtypes_of_logits(kernels, dtype):
    x = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    result = kernels.cross_entropy_with_grad(x, [0, 2], reduction="none")
    expected = "float32" if dtype == "float32" else "float64"
    assert result.loss.dtype == result.dlogits.dtype == expected
    wide = kernels.cross_entropy_with_grad(x.astype("float64"), [0, 2], reduction="none")
    np.testing.assert_allclose(result.loss, wide.loss, 1e-6)
    np.testing.assert_allclose(result.dlogits, wide.dlogits, 1e-6, 1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("compute", FLOATS)
def test_dtypes_of_soft_targets(kernels, compute, dtype):
    p = Problem(Case(20, 7, 5, compute, soft=True))
    p.target = p.target.astype(dtype)
    result = kernels.linear_cross_entropy_with_grad(**p.gradient)
    assert result.dW.dtype == compute
    rounded = p.gradient | {"target": p.target.astype("float64")}
    expected = kernels.linear_cross_entropy_with_grad(**rounded)
    rtol = {"float32": 1e-5, "float64": 1e-13}[compute]
    np.testing.assert_allclose(result.loss, expected.loss, rtol)
    np.testing.assert_allclose(result.dW, expected.dW, rtol, rtol)


@pytest.mark.parametrize("dtype", [*FLOATS, "float16", "int64", "uint8", "bool", ">f4", ">i2"])
@pytest.mark.parametrize("compute", FLOATS)
def test_weights_of_any_real_dtype(kernels, compute, dtype):
    """They are used as float64, and have no say in the dtype of the results."""
    p = Problem(Case(20, 7, 5, compute, reduction="none"))
    weight = np.array([1, 0, 1, 3, 2]).astype(dtype)
    sample_weight = (np.arange(20) % 4).astype(dtype)
    options = {"weight": weight, "sample_weight": sample_weight}
    wide = {name: w.astype("float64") for name, w in options.items()}
    result = kernels.linear_cross_entropy_with_grad(**p.gradient | options)
    assert result.dW.dtype == result.loss.dtype == compute
    assert_same_bits(result, kernels.linear_cross_entropy_with_grad(**p.gradient | wide))
    x = kernels.linear(**p.linear)
    assert_same_bits(
        kernels.cross_entropy_with_grad(x, p.target, **options),
        kernels.cross_entropy_with_grad(x, p.target, **wide),
    )


def test_weights_keep_their_digits(kernels):
    """float64 weights of float32 logits are not rounded to float32 before they are summed."""
    weight = 1 + 1e-12
    result = kernels.linear_cross_entropy_with_grad(
        np.ones((1, 1), "float32"), np.ones((1, 2), "float32"), None, [0], sample_weight=[weight]
    )
    assert result.total_weight == weight


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_gradient_in_the_order_of_the_weights(kernels, dtype, order):
    p = Problem(Case(20, 7, 5, dtype, w_order=order))
    dW = kernels.linear_cross_entropy_with_grad(**p.gradient).dW
    assert dW.flags.c_contiguous == (order == "C")
    assert dW.flags.f_contiguous == (order == "F")
    # As PyTorch has it: (C, D), transposed.
    p.W = np.array(p.W.T, order="C").T
    assert kernels.linear_cross_entropy_with_grad(**p.gradient).dW.T.flags.c_contiguous


def test_lists(kernels):
    X, W, b, y = [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]], [0.5, 0.0], [0, 1]
    arrays = [np.array(a) for a in (X, W, b, y)]
    options = {"weight": [1, 2], "sample_weight": [2, 1], "rows": [1, 0, -1]}
    wide = {name: np.array(a) for name, a in options.items()}
    assert_same_bits(kernels.linear(X, W, b), kernels.linear(*arrays[:3]))
    assert_same_bits(
        kernels.linear_cross_entropy_with_grad(X, W, b, y, **options),
        kernels.linear_cross_entropy_with_grad(*arrays, **wide),
    )
    assert_same_bits(
        kernels.cross_entropy_with_grad(X, [[0.5, 0.5], [0.0, 1.0]]),
        kernels.cross_entropy_with_grad(arrays[0], np.array([[0.5, 0.5], [0.0, 1.0]])),
    )


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("spec", deck(5, 16, n=[1, 5, 70], d=[1, 7, 33], c=[1, 10, 100],
                                      dtype=FLOATS, x_dtype=[None, "uint8"], soft=[False, True],
                                      rows=[False, True]), ids=str)  # fmt: skip
def test_every_layout_is_accepted(kernels, layout, spec):
    """Up to rounding, also by the reference; test_properties asks the kernels for the same bits."""
    p, move = Problem(Case(**spec)), LAYOUTS[layout]
    expected = kernels.linear_cross_entropy_with_grad(**p.gradient)
    logits, labels = kernels.linear(**p.linear), kernels.predict(**p.linear)
    p.X, p.W, p.b, p.target = move(p.X), move(p.W), move(p.b), move(p.target)
    p.rows = None if p.rows is None else move(p.rows)
    result = kernels.linear_cross_entropy_with_grad(**p.gradient)
    rtol = {"float32": 1e-4, "float64": 1e-12}[p.case.dtype]
    for actual, wanted in zip(result, expected, strict=True):
        if wanted is not None:
            assert np.asarray(actual).dtype == np.asarray(wanted).dtype
            np.testing.assert_allclose(actual, wanted, rtol, rtol)
    np.testing.assert_allclose(kernels.linear(**p.linear), logits, rtol, rtol)
    np.testing.assert_array_equal(kernels.predict(**p.linear), labels)


@pytest.mark.parametrize("dtype", FLOATS)
def test_results_may_share_memory_with_inputs(kernels, dtype):
    """Whatever out overlaps, the result is that of separate arrays."""
    p = Problem(Case(12, 12, 12, dtype, soft=True))
    p.target = p.target.astype(dtype)
    expected = kernels.linear_cross_entropy_with_grad(**p.gradient)
    for names in (("W", "b", "X"), ("X", None, "W"), ("target", None, None), (None, "b", "target")):
        q = Problem(p.case)
        q.target = p.target.copy()
        arrays = {"W": q.W, "b": q.b, "X": q.X, "target": q.target, None: None}
        out = tuple(arrays[name] for name in names)
        assert_same_bits(kernels.linear_cross_entropy_with_grad(**q.gradient, out=out), expected)

    logits = kernels.linear(**p.linear)
    expected = kernels.cross_entropy_with_grad(logits, p.target)
    for shifted in (False, True):
        x, t = logits.copy(), p.target.copy()
        for out in (x, t):
            view = out[::-1] if shifted else out
            assert_same_bits(kernels.cross_entropy_with_grad(x, t, out=view), expected)
            x[...], t[...] = logits, p.target

    q = Problem(p.case)
    assert_same_bits(kernels.linear(**q.linear, out=q.X), logits)
    q = Problem(p.case)
    assert_same_bits(kernels.linear(**q.linear, out=q.W.T), logits)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("c", [5, 100])
def test_results_may_go_backwards_over_what_is_still_to_be_read(kernels, c, dtype, rng):
    """By more rows than are read at a time, and not from where the input begins or ends."""
    n = 300
    memory = np.empty((n + 1, c), dtype)
    x, out = memory[:n], memory[1:][::-1]
    logits, target = rng.normal(size=(n, c)).astype(dtype), rng.integers(0, c, n)
    W = rng.normal(size=(c, c)).astype(dtype)
    for call in (
        kernels.softmax,
        kernels.log_softmax,
        lambda x, **out: kernels.cross_entropy_with_grad(x, target, **out).dlogits,
        lambda x, **out: kernels.linear(x, W, **out),
        lambda x, **out: kernels.linear_cross_entropy_with_grad(
            x, W, None, target, with_dX=True,
            **{name: (None, None, dX) for name, dX in out.items()},
        ).dX,
    ):  # fmt: skip
        expected = call(logits)
        x[...] = logits
        assert_same_bits(call(x, out=out), expected)


def sharing(array, shape):
    """A copy of an array, and a float64 array of a shape that begins at the same address."""
    memory = np.zeros(max(array.size, math.prod(shape)))
    given = memory.view(array.dtype)[: array.size].reshape(array.shape)
    given[...] = array
    return given, memory[: math.prod(shape)].reshape(shape)


def float64_weights(problem):
    return {name: problem.options[name].astype("float64") for name in ("weight", "sample_weight")}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ["X", "W", "b", "target", "weight", "sample_weight", "rows",
                                  "indices", "indptr"])  # fmt: skip
def test_out_may_begin_where_any_input_does(kernels, name, sparse, soft):
    if not sparse and name in ("indices", "indptr"):
        pytest.skip("a dense X has none")
    n, d, c = 200, 5, 3
    p = Problem(Case(n, d, c, soft=soft, rows=True, weight=True, sample_weight=True))
    csr = {"data": p.X.ravel(), "indices": np.tile(np.arange(d), n), "indptr": d * np.arange(n + 1)}
    plain = {"X": p.X, "W": p.W, "b": p.b, "target": p.target, "rows": p.rows} | float64_weights(p)

    def call(function, names, shape, place=None):
        """The function with `out` (at a place of a tuple) over the input, and without."""
        results = []
        for shared in (True, False):
            arrays = plain | csr | {"with_dX": not sparse}
            key = "data" if sparse and name == "X" else name
            arrays[key], out = sharing(arrays[key], shape)
            if sparse:
                arrays["X"] = SimpleNamespace(**{k: arrays[k] for k in csr}, shape=(n, d))
            given = {k: arrays[k] for k in names}
            if shared:
                given["out"] = out if place is None else tuple(
                    out if i == place else None for i in range(3)
                )  # fmt: skip
            results.append(function(**given))
        assert_same_bits(*results)

    call(kernels.linear, ("X", "W", "b"), (n, c))
    with_dX = () if sparse else ("with_dX",)
    names = (*plain, *with_dX)
    for place, shape in enumerate(((d, c), (c,), (len(p.rows), d))[: 2 if sparse else 3]):
        call(kernels.linear_cross_entropy_with_grad, names, shape, place)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", ["logits", "target", "weight", "sample_weight"])
def test_the_gradient_may_begin_where_any_input_does(kernels, name, soft):
    p = Problem(Case(200, 5, 3, soft=soft, weight=True, sample_weight=True))
    plain = {"logits": p.X @ p.W, "target": p.target} | float64_weights(p)
    given, out = sharing(plain[name], (200, 3))
    expected = kernels.cross_entropy_with_grad(**plain)
    assert_same_bits(kernels.cross_entropy_with_grad(**plain | {name: given}, out=out), expected)


def test_an_earlier_result_is_reused(kernels):
    p = Problem(Case(50, 7, 5, "float32", with_dX=False))
    f = kernels.linear_cross_entropy_with_grad
    result = None
    for rows in (np.arange(0, 20), np.arange(20, 50), np.arange(3)):
        step = p.gradient | {"rows": rows}
        new = f(**step, out=result)
        assert result is None or (new.dW is result.dW and new.db is result.db)
        assert_same_bits(new, f(**step))
        result = new


def test_x_scale_of_any_real_kind(kernels):
    p = Problem(Case(20, 7, 5, "float32"))
    expected = kernels.linear(p.X, p.W, x_scale=0.5)
    for scale in (np.float32(0.5), np.float64(0.5)):
        assert_same_bits(kernels.linear(p.X, p.W, x_scale=scale), expected)
    assert_same_bits(kernels.linear(p.X, p.W, x_scale=1), kernels.linear(p.X, p.W))
    assert not kernels.linear(p.X, p.W, x_scale=0).any()
