"""What holds for every input: symmetries, additivity, and equal bits where they are promised.

Bits are promised for every number of threads, every memory layout and every run, and for a row's
results whatever rows come along; of the compiled kernels, as the reference multiplies matrices with
NumPy, which promises none of this.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import (
    FLOATS,
    LAYOUTS,
    Case,
    Problem,
    Unchanged,
    assert_same_bits,
    assert_within,
    cases,
    once,
    oracle,
    run_python,
)
from tolerances import LinearTerms, eps, linear_bound, log_softmax_bound, softmax_bound

import softmax_ext
from softmax_ext import reference

each_float = pytest.mark.parametrize("dtype", FLOATS)


@st.composite
def logits(draw, dtype):
    """Finite logits of any shape (n, c) and size; rounded, so that some are equal."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 70)))
    size = draw(st.sampled_from([0.01, 1.0, 30.0, 1e4]))
    decimals = draw(st.sampled_from([0, 1, 8]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return np.round(rng.uniform(-size, size, shape), decimals).astype(dtype)


def labels(x, data):
    seed = data.draw(st.integers(0, 2**32))
    return np.random.default_rng(seed).integers(0, x.shape[1], len(x))


# Softmax -----------------------------------------------------------------------------------------


@each_float
@given(data=st.data())
def test_probabilities_are_between_0_and_1_and_sum_to_1(kernels, dtype, data):
    x = data.draw(logits(dtype))
    p = kernels.softmax(x)
    assert ((p >= 0) & (p <= 1)).all()
    sums = p.astype(float).sum(axis=1)
    np.testing.assert_allclose(sums, 1, rtol=8 * eps(dtype))


@each_float
@given(data=st.data())
def test_softmax_is_the_exponential_of_log_softmax(kernels, dtype, data):
    x = data.draw(logits(dtype))
    log_p = kernels.log_softmax(x).astype(float)
    assert (log_p <= 0).all()
    z = x.astype(float)
    bound = softmax_bound(z, dtype, 4 * eps(dtype) * np.abs(log_p))
    assert_within(kernels.softmax(x), np.exp(log_p), bound)


@each_float
@given(data=st.data())
def test_a_larger_logit_has_no_smaller_probability(kernels, dtype, data):
    x = data.draw(logits(dtype))
    order = x.argsort(axis=1)
    for f in (kernels.softmax, kernels.log_softmax):
        ordered = np.take_along_axis(f(x), order, axis=1).astype(float)
        # Equal up to rounding: exp is not evaluated so that it never decreases.
        slack = 8 * eps(dtype) * np.abs(ordered[:, 1:])
        assert (np.diff(ordered, axis=1) >= -slack).all()


@each_float
@given(data=st.data())
def test_logsumexp_is_between_the_maximum_and_that_plus_log_c(kernels, dtype, data):
    x = data.draw(logits(dtype))
    z = kernels.logsumexp(x).astype(float)
    m = x.max(axis=1).astype(float)
    slack = 4 * eps(dtype) * (np.abs(m) + np.log(x.shape[1]))
    assert (z >= m).all()
    assert (z <= m + np.log(x.shape[1]) + slack).all()


@each_float
@given(data=st.data(), shift=st.integers(-1000, 1000))
def test_adding_a_number_to_all_logits_changes_last_bits_at_most(kernels, dtype, data, shift):
    # Whole numbers, so that the sum is exact.
    x = np.round(data.draw(logits(dtype)))
    moved = x + np.dtype(dtype).type(shift)
    bound = 2 * softmax_bound(x.astype(float), dtype)
    p = kernels.softmax(x)
    assert_within(kernels.softmax(moved), p.astype(float), bound)
    log_p = kernels.log_softmax(x)
    assert_within(
        kernels.log_softmax(moved),
        log_p.astype(float),
        2 * log_softmax_bound(x.astype(float), dtype),
    )
    target = x.argmin(axis=1)
    result, other = (kernels.cross_entropy_with_grad(z, target) for z in (x, moved))
    np.testing.assert_allclose(other.loss, result.loss, 16 * eps(dtype), 1e-40)
    assert_within(other.dlogits, result.dlogits.astype(float), (bound + 4 * eps(dtype)) / len(x))


@each_float
@given(data=st.data())
def test_the_largest_logits_share_exactly(kernels, dtype, data):
    """exp(0) is 1, so one class, a sure row and equal logits get no rounded probabilities."""
    m = data.draw(st.floats(-(2.0**100), 2.0**100, width=32))
    far = np.array([[m]], dtype)
    assert kernels.softmax(far)[0, 0] == 1
    assert kernels.logsumexp(far)[0] == far[0, 0]
    for c in (2, 4, 8, 64):
        assert (kernels.softmax(np.full((3, c), m, dtype)) == 1 / c).all()
        assert (kernels.softmax(np.array([[m] + (c - 1) * [-np.inf]], dtype))[0, :1] == 1).all()


@each_float
@given(data=st.data())
def test_permuting_rows_and_classes(kernels, dtype, data):
    x = data.draw(logits(dtype))
    n, c = x.shape
    rows = np.array(data.draw(st.permutations(range(n))))
    classes = np.array(data.draw(st.permutations(range(c))))
    back = classes.argsort()
    target = labels(x, data)

    p = kernels.softmax(x)
    assert_same_bits(kernels.softmax(x[rows]), p[rows])
    bound = 2 * softmax_bound(x.astype(float), dtype)[:, classes]
    assert_within(kernels.softmax(x[:, classes]), p[:, classes].astype(float), bound)

    loss, dlogits = kernels.cross_entropy_with_grad(x, target, reduction="none")
    other = kernels.cross_entropy_with_grad(x[rows], target[rows], reduction="none")
    assert_same_bits(other, (loss[rows], dlogits[rows]))
    other = kernels.cross_entropy_with_grad(x[:, classes], back[target], reduction="none")
    np.testing.assert_allclose(other.loss, loss, 16 * eps(dtype), 1e-40)
    bound = 2 * softmax_bound(x.astype(float), dtype) + 4 * eps(dtype)
    assert_within(other.dlogits, dlogits[:, classes].astype(float), bound[:, classes])


@each_float
@given(data=st.data())
def test_gradient_rows_sum_to_0(kernels, dtype, data):
    x = data.draw(logits(dtype))
    c = x.shape[1]
    target = labels(x, data)
    e = data.draw(st.sampled_from([0.0, 0.1, 1.0]))
    dlogits = kernels.cross_entropy_with_grad(
        x, target, label_smoothing=e, reduction="sum"
    ).dlogits.astype(float)
    assert (np.abs(dlogits.sum(axis=1)) <= (4 + c) * eps(dtype)).all()
    assert (np.abs(dlogits) <= 1 + 4 * eps(dtype)).all()


@each_float
@given(data=st.data())
def test_cross_entropy_is_entropy_plus_divergence(kernels, dtype, data):
    x = np.clip(data.draw(logits(dtype)), -30, 30)
    p, q = kernels.softmax(x[::-1]), kernels.softmax(x)
    loss = kernels.cross_entropy(x, p, reduction="none").astype(float)
    divergence, entropy = kernels.kl_divergence(p, q), kernels.entropy(p)
    assert (entropy <= np.log(x.shape[1]) + 16 * eps(dtype)).all()
    sizes = 60 + np.log(x.shape[1])  # of log p
    assert (divergence >= -16 * eps(dtype) * sizes).all()
    bound = np.full(len(x), 32 * eps(dtype) * sizes)
    assert_within(loss, entropy.astype(float) + divergence, bound)


# Sums --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    cases(11, 24, n=[130, 1000, 3000], reduction=["sum"], rows=[False], with_dX=[True], budget=1e7),
    ids=str,
)
def test_sums_over_any_split_add_up(kernels, case, rng):
    p = Problem(case)
    f = kernels.linear_cross_entropy_with_grad
    whole, bounds = f(**p.gradient), LinearTerms(p, p.loss)
    cuts = np.sort(rng.integers(0, case.n + 1, 4))
    pieces = np.split(rng.permutation(case.n), cuts)
    parts = [f(**p.gradient | {"rows": rows}) for rows in pieces]
    for name in ("loss", "dW", "db"):
        if getattr(whole, name) is None:
            continue
        added = sum(np.asarray(getattr(part, name), float) for part in parts)
        bound = 2 * np.asarray(getattr(bounds, name))
        assert_within(getattr(whole, name), added, bound)
    for rows, part in zip(pieces, parts, strict=True):
        assert_within(part.dX, whole.dX[rows].astype(float), 2 * bounds.dX[rows])
    assert sum(part.n_correct for part in parts) == pytest.approx(
        whole.n_correct, abs=float(np.count_nonzero(bounds.undecided()))
    )
    total = sum(part.total_weight for part in parts)
    assert total == pytest.approx(whole.total_weight, rel=1e-12)


# Equal bits --------------------------------------------------------------------------------------

LARGE = [  # large enough to be split among threads
    Case(40_000, 64, 10, "float32"),
    Case(40_000, 64, 10, "float64", reduction="none", weight=True),
    Case(40_000, 64, 10, "float32", "uint8", x_scale=1 / 255, rows=True, sample_weight=True),
    Case(2500, 64, 1000, "float32", reduction="sum", soft=True),
    Case(2500, 64, 1000, "float64", with_dX=False, ignore=7),
    Case(300, 700, 3300, "float32", with_dX=True),  # W in panels
]


@once
def exact_gradients(case):
    p = Problem(case)
    return oracle("linear_cross_entropy_with_grad", p.gradient), LinearTerms(p, p.loss)


def all_results(kernels, p):
    return (
        kernels.linear(**p.linear),
        kernels.predict(**p.linear),
        kernels.predict_proba(**p.linear),
        kernels.linear_cross_entropy(**p.loss),
        kernels.linear_cross_entropy_with_grad(**p.gradient),
    )


def softmax_results(kernels, x, target):
    return (
        kernels.softmax(x),
        kernels.log_softmax(x),
        kernels.logsumexp(x),
        kernels.cross_entropy(x, target),
        kernels.cross_entropy_with_grad(x, target),
        kernels.cross_entropy_with_grad(x, target, reduction="none"),
    )


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_any_number_of_threads_gives_the_same_bits(compiled, case):
    p = Problem(case)
    with softmax_ext.num_threads(1):
        expected = all_results(compiled, p)
    for n in (2, 3, 8):
        with softmax_ext.num_threads(n):
            assert_same_bits(all_results(compiled, p), expected)


@pytest.mark.parametrize(
    "case",
    [
        Case(70_000, 64, 64, "float32", with_dX=False),  # whose number of rows sets the slices
        Case(300, 300, 1000, "float32", with_dX=False),  # whose slices are added up in the result
        Case(300, 300, 1000, "float32", with_dX=False, w_order="F"),
    ],
    ids=str,
)
def test_slices_of_rows_depend_on_the_shape_alone(compiled, case):
    p = Problem(case)
    with softmax_ext.num_threads(1):
        expected = compiled.linear_cross_entropy_with_grad(**p.gradient)
    truth, bounds = exact_gradients(case)
    assert_within(expected.dW, truth.dW, bounds.dW)
    assert_within(expected.db, truth.db, bounds.db)
    for n in (2, 3, 8):
        with softmax_ext.num_threads(n):
            assert_same_bits(compiled.linear_cross_entropy_with_grad(**p.gradient), expected)


@each_float
@pytest.mark.parametrize("shape", [(200_000, 10), (2000, 1000)], ids=str)
def test_any_number_of_threads_gives_the_same_bits_of_softmax(compiled, dtype, shape, rng):
    x, target = rng.normal(0, 5, shape).astype(dtype), rng.integers(0, shape[1], shape[0])
    with softmax_ext.num_threads(1):
        expected = softmax_results(compiled, x, target)
    for n in (2, 3, 8):
        with softmax_ext.num_threads(n):
            assert_same_bits(softmax_results(compiled, x, target), expected)


SMALL = cases(12, 30, n=[1, 5, 65, 130, 300], budget=3e6)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_twice_gives_the_same_bits(kernels, case):
    p = Problem(case)
    assert_same_bits(all_results(kernels, p), all_results(kernels, p))


@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_any_memory_layout_gives_the_same_bits(compiled, case, layout):
    p, other = Problem(case), Problem(case)
    move = LAYOUTS[layout]
    other.X, other.W, other.target = move(p.X), move(p.W), move(p.target)
    other.b = None if p.b is None else move(p.b)
    other.rows = None if p.rows is None else move(p.rows)
    for name in ("weight", "sample_weight"):
        if name in p.options:
            other.options[name] = move(p.options[name])
    assert_same_bits(all_results(compiled, other), all_results(compiled, p))


@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_any_memory_layout_of_logits_gives_the_same_bits(compiled, case, layout):
    p = Problem(case)
    x = compiled.linear(**p.linear)
    for a, t in ((LAYOUTS[layout](x), p.target), (x, LAYOUTS[layout](p.target))):
        assert_same_bits(
            compiled.cross_entropy_with_grad(a, t, **p.options),
            compiled.cross_entropy_with_grad(x, p.target, **p.options),
        )


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_repeated_rows_without_a_copy(compiled, case):
    """X with a stride of 0: one row of memory stands for all."""
    p, other = Problem(case), Problem(case)
    other.X = np.broadcast_to(p.X[:1], p.X.shape)
    p.X = other.X.copy()
    assert_same_bits(all_results(compiled, other), all_results(compiled, p))


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - {"read-only", "memmap", "big-endian"}))
@pytest.mark.parametrize("case", SMALL[::5], ids=str)
def test_out_in_any_memory_layout(kernels, case, layout):
    p, move = Problem(case), LAYOUTS[layout]
    expected = kernels.linear_cross_entropy_with_grad(**p.gradient)
    out = tuple(None if a is None else move(np.full_like(a, 7)) for a in expected[1:4])
    result = kernels.linear_cross_entropy_with_grad(**p.gradient, out=out)
    assert_same_bits(result, expected)
    x = kernels.linear(**p.linear)
    assert_same_bits(kernels.linear(**p.linear, out=move(np.full_like(x, 7))), x)
    expected = kernels.cross_entropy_with_grad(x, p.target, **p.options)
    out = move(np.full_like(x, 7))
    assert_same_bits(kernels.cross_entropy_with_grad(x, p.target, **p.options, out=out), expected)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_a_row_does_not_depend_on_the_others(compiled, case, rng):
    p = Problem(case)
    results = [compiled.linear, compiled.predict_proba, compiled.predict]
    whole = [f(**p.linear) for f in results]
    chosen = [
        rng.permutation(case.n),
        rng.random(case.n) < 0.5,
        np.arange(case.n)[::-1],
        *([i] for i in rng.integers(0, case.n, 5)),
    ]
    for rows in chosen:
        some = p.linear | {"X": p.X[rows]}
        for f, expected in zip(results, whole, strict=True):
            assert_same_bits(f(**some), expected[rows])
    losses = compiled.linear_cross_entropy(**p.loss | {"reduction": "none"})
    for i in rng.integers(0, case.n, 5):
        one = p.loss | {"X": p.X[[i]], "target": p.target[[i]], "reduction": "none"}
        if case.sample_weight:
            one["sample_weight"] = p.options["sample_weight"][[i]]
        assert_same_bits(compiled.linear_cross_entropy(**one), losses[[i]])


@each_float
@pytest.mark.parametrize("shape", [(150, 1), (150, 10), (150, 33), (40, 257)], ids=str)
def test_a_row_of_softmax_does_not_depend_on_the_others(kernels, dtype, shape, rng):
    x = rng.normal(0, 5, shape).astype(dtype)
    rows = rng.permutation(shape[0])
    for name in ("softmax", "log_softmax", "logsumexp"):
        f = getattr(kernels, name)
        whole = f(x)
        assert_same_bits(f(x[rows]), whole[rows])
        assert_same_bits(f(x[3:7]), whole[3:7])
        for i in (0, 17, shape[0] - 1):
            assert_same_bits(f(x[i]), whole[i])


@pytest.mark.parametrize("case", cases(13, 40, rows=[True], n=[1, 5, 65, 300], budget=3e6), ids=str)
def test_rows_is_picking_them_by_hand(compiled, case):
    p = Problem(case)
    result = compiled.linear_cross_entropy_with_grad(**p.gradient)
    by_hand = compiled.linear_cross_entropy_with_grad(**p.picked, with_dX=case.with_dX)
    assert_same_bits(result, by_hand)


@each_float
@pytest.mark.parametrize("c", [1, 3, 10, 33, 100])
@pytest.mark.parametrize("d", [0, 3, 16, 17, 100])
@pytest.mark.parametrize("x_scale", [1.0, 1 / 255])
def test_bytes_are_the_numbers_they_stand_for(kernels, dtype, c, d, x_scale):
    p = Problem(Case(70, d, c, dtype, "uint8", x_scale=x_scale))
    other = Problem(p.case)
    other.X = p.X.astype(dtype)
    if kernels is reference or kernels.isa.startswith("amx"):  # by tiles bytes are more exact
        for f in (kernels.linear, kernels.predict_proba):
            np.testing.assert_allclose(
                f(**p.linear), f(**other.linear), 1e-5, linear_bound(p).max()
            )
    else:
        assert_same_bits(all_results(kernels, p), all_results(kernels, other))


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_inputs_are_not_modified(kernels, case):
    p = Problem(case)
    x = kernels.linear(**p.linear)
    with Unchanged(p.X, p.W, p.b, p.target, p.rows, *p.options.values(), x):
        all_results(kernels, p)
        kernels.cross_entropy_with_grad(x, p.target, **p.options)
        kernels.cross_entropy(x, p.target, **p.options)


# Memory ------------------------------------------------------------------------------------------

MEMORY = """
import numpy as np, softmax_ext as sx
rng = np.random.default_rng(0)
n, d, c = 200_000, 64, 200
X = rng.normal(size=(n, d)).astype("float32")
W, b = rng.normal(size=(d, c)).astype("float32"), np.zeros(c, "float32")
y, rows = rng.integers(0, c, n), rng.permutation(n)
pixels = np.arange(n * d, dtype=np.uint8).reshape(n, d)
sx.linear_cross_entropy_with_grad(X[:100], W, b, y[:100])

def memory(key):
    with open("/proc/self/status") as f:
        return int(f.read().split(key + ":")[1].split()[0]) * 1024

for call in (
    lambda: X @ W,
    lambda: sx.linear_cross_entropy_with_grad(X, W, b, y),
    lambda: sx.linear_cross_entropy_with_grad(X, W, b, y, rows=rows),
    lambda: sx.linear_cross_entropy_with_grad(pixels, W, b, y, x_scale=1 / 255),
    lambda: sx.linear_cross_entropy(X, W, b, y),
    lambda: sx.predict(X, W, b),
    lambda: sx.predict(pixels, W, b),
):
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")  # the peak is now what is in use
    before = memory("VmRSS")
    call()
    print(memory("VmHWM") - before)
"""


def test_neither_logits_nor_copies_of_x_are_held():
    """The logits would take 160 MB, a copy of X or of the bytes as floats 51 MB."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process's memory is read from /proc")
    logits, *grown = [int(line) for line in run_python(MEMORY).split()]
    assert logits > 150e6  # so this is measured at all
    assert len(grown) == 6
    assert max(grown) < 40e6, grown


def test_a_long_row_is_not_copied(compiled):
    """However many numbers there are in a row: workspace is not many rows of them."""
    x = np.zeros(4_000_000, "float32")
    tracemalloc.start()
    try:
        compiled.logsumexp(x)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        compiled.softmax(x, out=x)
        in_place = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(peak, in_place) < x.nbytes / 2
