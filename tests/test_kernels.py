"""Every kernel against the float64 reference, over shapes, dtypes and options.

The cases are dealt from a seeded deck (see problems.py), so that each size, dtype and option comes
up in many combinations; the bounds are in tolerances.py.
"""

from __future__ import annotations

import inspect
import platform

import numpy as np
import pytest
from problems import (
    CS,
    FLOATS,
    LABEL_DTYPES,
    NS,
    REDUCTIONS,
    Case,
    Problem,
    assert_same_bits,
    assert_within,
    cases,
    deck,
    once,
    oracle,
)
from tolerances import (
    LinearTerms,
    Terms,
    linear_bound,
    log_softmax_bound,
    logsumexp_bound,
    softmax_bound,
    units,
)

import softmax_ext
from softmax_ext import _kernels, reference

# W of more than 8 MiB is worked on in panels of classes.
LARGE_W = [
    Case(5, 1000, 2200, "float32"),
    Case(600, 300, 3600, "float64", weight=True, ignore=0, w_order="F"),  # two blocks of rows
    Case(9, 700, 3100, "float32", "uint8", x_scale=1 / 255, reduction="none", rows=True),
]
SMALL = cases(1, 90, budget=1e7)
ALL = [*SMALL, LARGE_W[0]]


def test_every_instruction_set_of_this_architecture_is_compiled_in():
    x86 = {"amx", "avx512", "avx2", "baseline"}
    wanted = {
        "x86_64": x86, "amd64": x86,
        "aarch64": {"neon", "baseline"}, "arm64": {"neon", "baseline"},
    }.get(platform.machine().lower(), {"baseline"})  # fmt: skip
    assert set(softmax_ext.compiled_isas()) == wanted
    assert "baseline" in softmax_ext.available_isas()
    assert set(softmax_ext.available_isas()) <= wanted


def same_signature(a, b):
    def plain(f):
        return [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]

    return plain(a) == plain(b)


@pytest.mark.parametrize("name", [n for n in reference.__all__ if n != "one_hot"])
def test_the_same_signatures_as_the_reference(compiled, name):
    assert same_signature(getattr(compiled, name), getattr(reference, name))


# The linear layer -------------------------------------------------------------------------------


@once
def exact_logits(case):
    p = Problem(case)
    return p, oracle("linear", p.linear), linear_bound(p)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_linear(kernels, case):
    p, expected, bound = exact_logits(case)
    logits = kernels.linear(**p.linear)
    assert logits.dtype == case.dtype
    assert_within(logits, expected, bound)
    out = np.full_like(logits, 7)
    assert kernels.linear(**p.linear, out=out) is out
    assert_same_bits(out, logits)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_predict_and_predict_proba(kernels, case):
    p, logits, error = exact_logits(case)
    worst = error.max(axis=1, keepdims=True, initial=0)
    proba = kernels.predict_proba(**p.linear)
    assert proba.dtype == case.dtype
    assert_within(proba, reference.softmax(logits), softmax_bound(logits, case.dtype, worst))

    predicted = kernels.predict(**p.linear)
    assert predicted.dtype == np.intp
    assert predicted.shape == (case.n,)
    chosen = logits[np.arange(case.n), predicted]
    assert (chosen >= logits.max(axis=1) - 2 * worst[:, 0]).all()
    # It is the prediction that the very logits of this set of kernels make.
    assert_same_bits(predicted, kernels.linear(**p.linear).argmax(axis=1))


# Softmax along an axis ---------------------------------------------------------------------------

SHAPES = [
    *({"shape": (d["n"], d["c"]), "axis": -1} for d in deck(2, 40, n=NS, c=CS)),
    *({"shape": (d["c"], d["n"]), "axis": 0} for d in deck(3, 24, n=NS[1:], c=CS)),
    {"shape": (17,), "axis": -1},
    {"shape": (4, 5, 6), "axis": 0},
    {"shape": (4, 33, 6), "axis": 1},
    {"shape": (4, 5, 100), "axis": 2},
    {"shape": (4, 5, 6), "axis": (0, 2)},
    {"shape": (4, 5, 6), "axis": (2, 1)},
    {"shape": (3, 4, 5), "axis": (-3, 1)},
    {"shape": (2, 3, 4, 5), "axis": (1, 3)},
    {"shape": (4, 5, 6), "axis": None},
    {"shape": (200, 30), "axis": None},
]
SCALES = [1, 8, 50]


def shape_id(s):
    return f"{'x'.join(map(str, s['shape']))}-axis{s['axis']}"


def axes_last(x, axis):
    """The axes of a sum flattened to the last one."""
    axes = range(x.ndim) if axis is None else np.atleast_1d(axis)
    moved = np.moveaxis(x, list(axes), range(-len(axes), 0))
    kept = moved.shape[: moved.ndim - len(axes)]
    return moved.reshape(*kept, -1) if x.size else moved


def rounded_to_half(name, expected, bound, dtype):
    """float16 results are computed in float32 and then rounded, to 3e-8 if subnormal."""
    return bound + (units(name, dtype) * np.abs(expected) + 1e-7 if dtype == "float16" else 0)


@once
def exact_softmax_family(shape, axis, dtype):
    """For each scale: x, and for each function what is wanted and how near."""
    rng = np.random.default_rng(2024)
    inner = "float32" if dtype == "float16" else dtype
    found = []
    for scale in SCALES:
        x = rng.normal(0, scale, shape).astype(dtype)
        y = axes_last(x.astype(np.float64), axis)
        wanted = {}
        for name, bound in (
            ("softmax", softmax_bound), ("log_softmax", log_softmax_bound),
            ("logsumexp", logsumexp_bound),
        ):  # fmt: skip
            expected = getattr(reference, name)(y)
            wanted[name] = expected, rounded_to_half(name, expected, bound(y, inner), dtype)
        found.append((x, wanted))
    return found


@pytest.mark.parametrize("dtype", ["float16", *FLOATS])
@pytest.mark.parametrize("spec", SHAPES, ids=shape_id)
def test_softmax_family(kernels, spec, dtype):
    axis = spec["axis"]
    for x, wanted in exact_softmax_family(**spec, dtype=dtype):
        for name in ("softmax", "log_softmax"):
            result = getattr(kernels, name)(x, axis)
            assert (result.shape, result.dtype) == (x.shape, dtype)
            assert_within(axes_last(result, axis), *wanted[name])
        z = kernels.logsumexp(x, axis)
        assert (np.shape(z), z.dtype) == (x.max(axis=axis).shape, dtype)
        assert_within(z, *wanted["logsumexp"])


@pytest.mark.parametrize("dtype", ["float16", *FLOATS])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("spec", SHAPES[::5], ids=shape_id)
def test_softmax_family_out(kernels, spec, name, dtype, rng):
    f = getattr(kernels, name)
    x = rng.normal(0, 5, spec["shape"]).astype(dtype)
    expected = f(x, spec["axis"])
    out = np.full_like(x, 7)
    assert f(x, spec["axis"], out=out) is out
    assert_same_bits(out, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("spec", SHAPES[::5], ids=shape_id)
def test_keepdims(kernels, spec, dtype, rng):
    x = rng.normal(0, 5, spec["shape"]).astype(dtype)
    z = kernels.logsumexp(x, spec["axis"], keepdims=True)
    assert z.shape == x.sum(axis=spec["axis"], keepdims=True).shape
    assert_same_bits(z.ravel(), np.ravel(kernels.logsumexp(x, spec["axis"])))


@once
def exact_divergences(shape, axis, dtype):
    """p and q, and their entropy and divergence with how near these are wanted."""
    rng = np.random.default_rng(2024)
    if 0 in shape:
        shape = tuple(max(n, 1) for n in shape)
    raw = rng.exponential(size=(2, *shape)) * (rng.random((2, *shape)) < 0.8)
    p, q = (raw / np.maximum(raw.sum(axis=-1, keepdims=True), 1)).astype(dtype)
    q = np.maximum(q, np.finfo(dtype).smallest_normal)
    wide_p, wide_q = p.astype(np.float64), q.astype(np.float64)
    inner = "float32" if dtype == "float16" else dtype

    h = reference.entropy(wide_p, axis)
    h_bound = rounded_to_half("entropy", h, units("entropy", inner) * h, dtype)
    kl = reference.kl_divergence(wide_p, wide_q, axis)
    with np.errstate(all="ignore"):
        terms = np.where(wide_p == 0, 0, np.abs(wide_p * np.log(wide_p / wide_q)))
    kl_bound = units("kl_divergence", inner) * terms.sum(axis=axis)
    return p, q, (h, h_bound), (kl, rounded_to_half("kl_divergence", kl, kl_bound, dtype))


@pytest.mark.parametrize("dtype", ["float16", *FLOATS])
@pytest.mark.parametrize("spec", SHAPES, ids=shape_id)
def test_entropy_and_kl_divergence(kernels, spec, dtype):
    p, q, *wanted = exact_divergences(**spec, dtype=dtype)
    axis = spec["axis"]
    found = kernels.entropy(p, axis), kernels.kl_divergence(p, q, axis)
    for result, (expected, bound) in zip(found, wanted, strict=True):
        assert (np.shape(result), result.dtype) == (np.shape(expected), dtype)
        assert_within(result, expected, bound)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 3), (409, 10), (3, 5, 16), (40, 100), (4, 1000)], ids=str
)
def test_small_divergences_are_those_of_any_size(kernels, rng, dtype, shape):
    """The plainest arguments take a shorter way, to the same bits."""
    p, q = rng.random((2, *shape)).astype(dtype)
    p[rng.random(shape) < 0.1] = 0
    p.flat[0], q.flat[-1] = np.nan, 0
    for axis in (-1, len(shape) - 1, 0, -2, None):
        if axis == -2 and len(shape) > 2:
            continue
        # Strides of two numbers go the general way.
        other_p, other_q = (np.repeat(a, 2, axis=-1)[..., ::2] for a in (p, q))
        h, kl = kernels.entropy(p, axis), kernels.kl_divergence(p, q, axis)
        assert type(h) is type(p.sum(axis))
        assert np.shape(h) == np.shape(p.sum(axis))
        assert_same_bits(h, kernels.entropy(other_p, axis))
        for one, other in ((other_p, other_q), (p, other_q), (other_p, q)):
            assert_same_bits(kl, kernels.kl_divergence(one, other, axis))
    for wrong in (3, 1.0, (0, 0)):
        with pytest.raises((ValueError, TypeError)):
            kernels.entropy(p, wrong)
    for mixed in ((p, q.astype(np.float64)), (p.astype(np.float64), q)):
        assert kernels.kl_divergence(*mixed).dtype == np.float64
    two = np.stack([q, q])
    assert kernels.kl_divergence(p, two).shape == (2, *shape[:-1])


def test_kl_divergence_broadcasts(kernels, rng):
    p, q = rng.dirichlet(np.ones(5), 7), rng.dirichlet(np.ones(5))
    np.testing.assert_allclose(
        kernels.kl_divergence(p, q), [kernels.kl_divergence(row, q) for row in p], rtol=1e-15
    )


# Cross-entropy of given logits -------------------------------------------------------------------


@once
def given_logits(case):
    """The same problem with its logits as the input, rounded to the dtype."""
    p = Problem(case)
    logits = oracle("linear", p.linear).astype(case.dtype)
    arguments = {"logits": logits, "target": p.target, **p.options}
    expected = oracle("cross_entropy_with_grad", arguments)
    return arguments, expected, Terms(logits.astype(float), case.dtype, p.target, **p.options)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_cross_entropy(kernels, case):
    arguments, expected, bounds = given_logits(case)

    loss = kernels.cross_entropy(**arguments)
    if case.reduction == "none":
        assert (loss.dtype, loss.shape) == (case.dtype, (case.n,))
    else:
        assert type(loss) is float
    assert_within(loss, expected.loss, bounds.loss)

    result = kernels.cross_entropy_with_grad(**arguments)
    assert type(result).__name__ == "CrossEntropyResult"
    assert_same_bits(result.loss, loss)
    assert result.dlogits.dtype == case.dtype
    assert_within(result.dlogits, expected.dlogits, bounds.gradient)

    out = np.full_like(result.dlogits, 7)
    again = kernels.cross_entropy_with_grad(**arguments, out=out)
    assert again.dlogits is out
    assert_same_bits(again, result)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 10, 3, 2), (2, 3, 2, 2, 2), (2, 33, 9)], ids=str)
def test_cross_entropy_with_the_classes_on_axis_1(kernels, shape, reduction, soft, dtype, rng):
    logits = rng.normal(0, 3, shape).astype(dtype)
    n, c = shape[:2]
    options = {"reduction": reduction, "weight": rng.uniform(0.1, 2, c), "label_smoothing": 0.1}
    options["sample_weight"] = rng.uniform(0.1, 2, n)
    if soft:
        target = np.moveaxis(rng.dirichlet(np.ones(c), (n, *shape[2:])), -1, 1)
    else:
        target = rng.integers(0, c, (n, *shape[2:]))
        target[0, 0] = -100
    result = kernels.cross_entropy_with_grad(logits, target, **options)
    expected = oracle("cross_entropy_with_grad", {"logits": logits, "target": target, **options})
    assert np.shape(result.loss) == ((n, *shape[2:]) if reduction == "none" else ())
    assert result.dlogits.shape == shape
    tolerance = {"rtol": 50 * np.finfo(dtype).eps, "atol": 20 * np.finfo(dtype).eps}
    np.testing.assert_allclose(result.loss, expected.loss, **tolerance)
    np.testing.assert_allclose(result.dlogits, expected.dlogits, **tolerance)
    assert_same_bits(kernels.cross_entropy(logits, target, **options), result.loss)


# All together ------------------------------------------------------------------------------------


@once
def exact_gradients(case):
    p = Problem(case)
    expected = oracle("linear_cross_entropy_with_grad", p.gradient)
    return p, expected, LinearTerms(p, p.picked)


@pytest.mark.parametrize("case", SMALL + LARGE_W, ids=str)
def test_linear_cross_entropy_with_and_without_gradients(kernels, case):
    p, expected, bounds = exact_gradients(case)
    result = kernels.linear_cross_entropy_with_grad(**p.gradient)
    n = len(p.picked["X"])

    assert type(result).__name__ == "LinearCrossEntropyResult"
    for loss in (result.loss, kernels.linear_cross_entropy(**p.picked)):
        if case.reduction == "none":
            assert (loss.dtype, loss.shape) == (case.dtype, (n,))
        else:
            assert type(loss) is float
        assert_within(loss, expected.loss, bounds.loss)

    assert (result.dW.dtype, result.dW.shape) == (case.dtype, (case.d, case.c))
    assert result.dW.flags[f"{case.w_order}_CONTIGUOUS"]
    assert_within(result.dW, expected.dW, bounds.dW)
    if case.bias:
        assert (result.db.dtype, result.db.shape) == (case.dtype, (case.c,))
        assert_within(result.db, expected.db, bounds.db)
    else:
        assert result.db is None
    if case.with_dX:
        assert (result.dX.dtype, result.dX.shape) == (case.dtype, (n, case.d))
        assert_within(result.dX, expected.dX, bounds.dX)
        assert not result.dX[~bounds.kept].any()
    else:
        assert result.dX is None

    assert type(result.total_weight) is float
    assert result.total_weight == pytest.approx(expected.total_weight, rel=1e-12)
    assert type(result.n_correct) is int
    undecided = np.count_nonzero(bounds.undecided() & bounds.kept)
    assert abs(result.n_correct - expected.n_correct) <= undecided


@pytest.mark.parametrize("case", ALL[::6], ids=str)
@pytest.mark.parametrize("form", ["tuple", "earlier-result", "some", "other-order"])
def test_linear_cross_entropy_with_grad_out(kernels, case, form):
    p = Problem(case)
    f = kernels.linear_cross_entropy_with_grad
    expected = f(**p.gradient)
    old = [None if a is None else np.full_like(a, 7) for a in expected[1:4]]
    if form == "other-order":
        order = {"C": "F", "F": "C"}[case.w_order]
        old = [None if a is None else np.asarray(a, order=order) for a in old]
    if form == "some":
        old = [None, old[1], None]
    out = tuple(old)
    if form == "earlier-result":
        out = expected._replace(dW=old[0], db=old[1], dX=old[2])
    elif old[2] is None and form == "tuple":
        out = out[:2]
    result = f(**p.gradient, out=out)
    for given, used in zip(old, result[1:4], strict=True):
        assert given is None or used is given
    assert_same_bits(result, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape",
    # Small ones, many classes, and classes (also of a power of two) apart by more than a page.
    [(1, 1), (1, 9), (10, 1), (8, 10), (10, 409), (96, 42), (97, 42), (300, 17), (1000, 64),
     (64, 4096), (21, 1024), (300, 513), (7400, 41), (20000, 21)],
    ids=str,
)  # fmt: skip
def test_columns_are_rows_to_the_bit(kernels, rng, dtype, shape):
    columns = rng.normal(0, 3, shape).astype(dtype)
    rows = np.ascontiguousarray(columns.T)
    for f in (kernels.softmax, kernels.log_softmax):
        expected = np.ascontiguousarray(f(rows, 1).T)
        for axis in (0, -2):
            assert_same_bits(f(columns, axis), expected)
        assert_same_bits(f(columns[:, None], 0)[:, 0], expected)
        out = np.empty_like(columns)
        assert f(columns, 0, out=out) is out
        assert_same_bits(out, expected)
        out[...] = columns
        assert_same_bits(f(out, 0, out=out), expected)
    for axis in (0, -2):
        assert_same_bits(kernels.logsumexp(columns, axis), kernels.logsumexp(rows, 1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_many_columns_in_few_cache_sets_are_rows_to_the_bit(kernels, rng, dtype):
    columns = np.empty((7400, 512), dtype)[:, :20]
    columns[...] = rng.normal(0, 3, columns.shape)
    rows = np.ascontiguousarray(columns.T)
    assert_same_bits(kernels.softmax(columns, 0).T, kernels.softmax(rows, 1))
    assert_same_bits(kernels.logsumexp(columns, 0), kernels.logsumexp(rows, 1))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (409, 10), (40, 100), (4, 1000)], ids=str)
def test_small_cross_entropy_is_that_of_any_size(kernels, rng, dtype, reduction, shape):
    """The plainest arguments take a shorter way, to the same bits."""
    x = rng.normal(0, 3, shape).astype(dtype)
    y = rng.integers(0, shape[1], len(x))
    for ignored in (-100, int(y[-1])):
        how = {"reduction": reduction, "ignore_index": ignored}
        plain = kernels.cross_entropy(x, y, **how), *kernels.cross_entropy_with_grad(x, y, **how)
        other = np.repeat(x, 2, axis=0)[::2], y.astype(np.int32)
        for logits, labels in ((other[0], y), (x, other[1]), other):
            assert_same_bits(kernels.cross_entropy(logits, labels, **how), plain[0])
            assert_same_bits(
                tuple(kernels.cross_entropy_with_grad(logits, labels, **how)), plain[1:]
            )
    for bad in (-1, shape[1]):
        wrong = y.copy()
        wrong[-1] = bad
        with pytest.raises(IndexError, match=f"label {bad} at row {len(x) - 1}"):
            kernels.cross_entropy(x, wrong, reduction=reduction)
    for error, wrong in (
        (TypeError, {"ignore_index": 1.5}),
        (TypeError, {"label_smoothing": np.zeros(1)}),
        (ValueError, {"reduction": "average"}),
        (ValueError, {"label_smoothing": -0.5}),
    ):
        with pytest.raises(error):
            kernels.cross_entropy(x, y, **{"reduction": reduction, **wrong})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("c", [3, 40])
def test_a_class_of_weight_0_counts_nothing_however_far_its_logit(kernels, c, soft, dtype):
    """Smoothing gives each class a share of the target: 0 of infinity here."""
    x = np.linspace(-1, 1, 2 * c, dtype=dtype).reshape(2, c)
    x[:, -1] = -np.inf
    weight = np.ones(c)
    weight[-1] = 0
    target = np.eye(c, dtype=dtype)[:2] if soft else np.array([0, 1])
    options = {"label_smoothing": 0.1, "weight": weight, "reduction": "sum"}
    result = kernels.cross_entropy_with_grad(x, target, **options)
    t = (np.eye(c)[:2] * 0.9 + 0.1 / c)[:, :-1]
    log_p = reference.log_softmax(x[:, :-1].astype(float))
    assert result.loss == pytest.approx(-(t * log_p).sum(), rel=1e-6)
    gradient = np.exp(log_p) * t.sum(axis=1, keepdims=True) - t
    np.testing.assert_allclose(result.dlogits[:, :-1], gradient, atol=1e-6)
    assert not result.dlogits[:, -1].any()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("d", [1, 2, 3, 7])
def test_nothing_is_left_of_an_earlier_call(compiled, dtype, d):
    """Rows shorter than a vector are padded in memory that is used again."""
    small, lanes = Problem(Case(70, d, 5, dtype)), 64 // np.dtype(dtype).itemsize
    expected = compiled.linear_cross_entropy_with_grad(**small.gradient)
    large = Problem(Case(70, lanes, 5, dtype))
    for spoilt in (large.X, large.W):
        spoilt[...] = np.nan
        compiled.linear_cross_entropy_with_grad(**large.gradient)
        assert_same_bits(compiled.linear_cross_entropy_with_grad(**small.gradient), expected)


# Which rows, which labels ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", LABEL_DTYPES)
@pytest.mark.parametrize("c", [10, 100])
def test_labels_of_any_integer_dtype(kernels, dtype, c):
    p = Problem(Case(65, 17, c))
    expected = kernels.linear_cross_entropy_with_grad(**p.gradient)
    given = kernels.cross_entropy_with_grad(p.X @ p.W, p.target)
    for target in (p.target.astype(dtype), p.target.astype(np.dtype(dtype).newbyteorder(">"))):
        result = kernels.linear_cross_entropy_with_grad(**p.gradient | {"target": target})
        assert_same_bits(result, expected)
        assert_same_bits(kernels.cross_entropy_with_grad(p.X @ p.W, target), given)


@pytest.mark.parametrize("dtype", LABEL_DTYPES)
def test_rows_of_any_integer_dtype(kernels, dtype):
    p = Problem(Case(65, 17, 10))
    f = kernels.linear_cross_entropy_with_grad
    rows = np.array([3, 64, 3, 0, 17])
    expected = f(**p.gradient | {"rows": rows})
    assert_same_bits(f(**p.gradient | {"rows": rows.astype(dtype)}), expected)
    assert_same_bits(f(**p.gradient | {"rows": rows.tolist()}), expected)
    assert_same_bits(f(**p.gradient | {"rows": rows - 65}), expected)
    assert_same_bits(f(**p.gradient | {"rows": rows.astype(">i4")}), expected)
    assert_same_bits(f(**p.gradient | {"rows": np.repeat(rows, 2)[::2]}), expected)


@pytest.mark.parametrize("dtype", ["uint64", ">u8", "uint32", ">u4", ">i8", "int16"])
def test_rows_outside_are_refused_in_every_dtype(kernels, dtype):
    """None wraps around to a row from the end."""
    p, info = Problem(Case(65, 17, 10)), np.iinfo(dtype)
    for row in (65, info.max, *([info.min] if info.min else [])):
        rows = np.array([3, row], dtype)
        with pytest.raises(IndexError, match=f"rows: index {row} at position 1 is outside"):
            kernels.linear_cross_entropy_with_grad(**p.gradient | {"rows": rows})


@pytest.mark.parametrize(
    ("dtype", "label", "ignore", "ignored"),
    [
        ("int64", -(2**63), -(2**63), True),
        (">i8", -(2**63), -(2**63), True),
        ("uint64", 2**64 - 1, 2**64 - 1, True),
        (">u8", 2**63, 2**63, True),
        ("uint64", 2**64 - 1, -1, False),
        ("uint64", 2**63, -(2**63), False),
        ("int64", -1, 2**64 - 1, False),
        ("int64", -(2**63) + 1, 2**70, False),
        ("int64", -(2**63), 2**63, False),
        ("uint8", 156, -100, False),
    ],
)
def test_the_ignored_label_may_be_any_integer(kernels, dtype, label, ignore, ignored):
    """Labels are compared as the numbers they are, whatever their dtype."""
    target = np.array([1, label], dtype)
    X, W = np.array([[0.5], [2.0]]), np.array([[1.0, -1.0]])
    rows = np.arange(2)
    for call in (
        lambda: kernels.cross_entropy(X @ W, target, ignore_index=ignore),
        lambda: kernels.linear_cross_entropy(X, W, None, target, ignore_index=ignore),
        lambda: (
            kernels.linear_cross_entropy_with_grad(
                X, W, None, target, ignore_index=ignore, rows=rows
            ).loss
        ),
    ):
        if ignored:
            assert call() == pytest.approx(np.log1p(np.e))
        else:
            with pytest.raises(IndexError, match=f"target: label {label} at row"):
                call()


def test_a_row_that_comes_twice_counts_twice(kernels):
    p = Problem(Case(5, 7, 3, reduction="sum"))
    f = kernels.linear_cross_entropy_with_grad
    once, twice = (f(**p.gradient | {"rows": rows}) for rows in ([2, 4], [2, 4, 2]))
    again = f(**p.gradient | {"rows": [2]})
    for i in (0, 1, 2, 4, 5):
        np.testing.assert_allclose(twice[i], once[i] + again[i], rtol=1e-13)
    assert_same_bits(twice.dX[2], twice.dX[0])


@pytest.mark.parametrize("dtype", FLOATS)
def test_an_empty_minibatch(kernels, dtype):
    p = Problem(Case(5, 7, 3, dtype))
    f = kernels.linear_cross_entropy_with_grad
    mean, total = (
        f(**p.gradient | {"rows": np.zeros(0, int), "reduction": r}) for r in ("mean", "sum")
    )
    assert np.isnan(mean.loss)
    assert total.loss == 0
    for result in (mean, total):
        assert (result.total_weight, result.n_correct) == (0, 0)
        assert not result.dW.any()
        assert not result.db.any()
        assert result.dX.shape == (0, 7)


def test_rows_that_follow_a_slice_are_found_for_fetching_ahead():
    following = _kernels.following
    order = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(following(order[:256], 1000), order[256:320])
    np.testing.assert_array_equal(following(order[700:980], 1000), order[980:])
    assert following(order[700:], 1000) is None  # nothing follows
    assert following(order, 1000) is None  # no slice
    for other in (order[:256:2], order[:256].astype(np.int32), order[256:0:-1], list(order[:9])):
        assert following(other, 1000) is None
    order[257], order[259] = 1000, -1  # only what can be fetched
    np.testing.assert_array_equal(following(order[:256], 1000), order[256:257])


def test_rows_that_follow_change_nothing(kernels):
    problem = np.random.default_rng(0)
    X = problem.normal(size=(300, 40)).astype(np.float32)
    W = problem.normal(size=(40, 5)).astype(np.float32)
    y, order = problem.integers(0, 5, 300), problem.permutation(300)
    alone = kernels.linear_cross_entropy_with_grad(X, W, None, y, rows=order[:100].copy())
    order[100] = 10**9
    for part in (order[:100], np.append(order[:100], -5)[:100]):
        r = kernels.linear_cross_entropy_with_grad(X, W, None, y, rows=part)
        assert_same_bits(r.dW, alone.dW)


def test_a_plain_minibatch_is_what_the_general_way_gives(kernels, rng):
    """The quick way for plain arguments, against one that an ignored class weight keeps out."""
    for dtype, x_dtype in (("f4", "f4"), ("f4", "u1"), ("f8", "f8")):
        X = rng.integers(0, 255, (50, 20)).astype(x_dtype)
        W, b = rng.normal(size=(20, 3)).astype(dtype), rng.normal(size=3).astype(dtype)
        y, rows = rng.integers(0, 3, 50), rng.integers(-50, 50, 30)
        y[rows[:4]] = -100
        kernel = kernels.linear_cross_entropy_with_grad
        for bias in (b, None):
            for options in ({}, {"reduction": "sum"}, {"x_scale": 1 / 255}, {"ignore_index": 1}):
                y_used = np.abs(y) % 3 if "ignore_index" in options else y
                quick = kernel(X, W, bias, y_used, rows=rows, **options)
                general = kernel(
                    X, W, bias, y_used, rows=rows, sample_weight=np.ones(50), **options
                )
                for one, other in zip(quick, general, strict=True):
                    assert type(one) is type(other)
                    if one is not None:
                        assert_same_bits(np.asarray(one), np.asarray(other))
                again = kernel(X, W, bias, y_used, rows=rows, out=quick, **options)
                assert again.dW is quick.dW
                assert again.db is quick.db
                assert_same_bits(again.dW, general.dW)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_plain_minibatch_refuses_results_that_overlap(compiled, dtype):
    p = Problem(Case(50, 4, 3, dtype, rows=True, with_dX=False))
    memory = np.full(15, 7, dtype)
    for db in (memory[11:14], memory[:3]):
        with pytest.raises(ValueError, match="out: arrays that overlap each other"):
            compiled.linear_cross_entropy_with_grad(
                **p.gradient, out=(memory[:12].reshape(4, 3), db)
            )
    assert (memory == 7).all()
