"""The NumPy reference against everything but itself.

It is the oracle of the other tests, so what is right comes from elsewhere here: numbers worked out
by hand, exact arithmetic (mpmath), the definitions written out as loops, SciPy where SciPy is
right, PyTorch if it is installed, and finite differences for the gradients.
"""

from __future__ import annotations

import ast
import doctest
import inspect
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import scipy.sparse
import scipy.special

from softmax_ext import reference as ref
from softmax_ext.results import CrossEntropyResult, LinearCrossEntropyResult

INF, NAN = np.inf, np.nan
FLOATS = [np.float32, np.float64]
REDUCTIONS = ["mean", "sum", "none"]


@pytest.fixture
def rng():
    return np.random.default_rng(2024)


def ulps(actual, exact):
    """How far each of `actual` is from its mpmath number, in units of its last place."""
    actual = np.atleast_1d(actual)
    with mpmath.workdps(60):
        return np.array(
            [
                float(abs(mpmath.mpf(float(a)) - e) / float(np.spacing(abs(a.dtype.type(e)))))
                for a, e in zip(actual, exact, strict=True)
            ]
        )


def exact_softmax(row):
    """softmax, log_softmax and logsumexp of a row in 60 digits."""
    with mpmath.workdps(60):
        x = [mpmath.mpf(float(v)) for v in row]
        log_sum = mpmath.log(mpmath.fsum(mpmath.exp(v) for v in x))
        return [mpmath.exp(v - log_sum) for v in x], [v - log_sum for v in x], log_sum


def loss_by_definition(
    logits,
    target,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    reduction="mean",
):
    """The documented formulas as loops over finite numbers, in 60 digits."""
    n, c = np.shape(logits)
    w = np.ones(c) if weight is None else weight
    s = np.ones(n) if sample_weight is None else sample_weight
    hard = np.ndim(target) == 1
    losses, denominator = [], mpmath.mpf(0)
    with mpmath.workdps(60):
        for i in range(n):
            _, log_p, _ = exact_softmax(logits[i])
            if hard and target[i] == ignore_index:
                losses.append(mpmath.mpf(0))
                continue
            q = [mpmath.mpf(float(j == target[i])) for j in range(c)] if hard else target[i]
            e = mpmath.mpf(label_smoothing)
            t = [w[j] * ((1 - e) * q[j] + e / c) for j in range(c)]
            losses.append(s[i] * mpmath.fsum(-t[j] * log_p[j] for j in range(c)))
            denominator += s[i] * (w[target[i]] if hard else 1)
        if reduction == "none":
            return np.array([float(v) for v in losses])
        total = mpmath.fsum(losses)
        return float(total if reduction == "sum" else total / denominator)


def numerical_gradient(f, x, step=1e-5):
    """Central differences of a scalar function, one entry after the other."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        at = x[i]
        x[i] = at + step
        above = f()
        x[i] = at - step
        below = f()
        x[i] = at
        gradient[i] = (above - below) / (2 * step)
    return gradient


def random_options(rng, n, c, *, integer_target):
    """A target and options of `cross_entropy`, all kinds mixed."""
    options = {"reduction": str(rng.choice(REDUCTIONS))}
    if rng.random() < 0.5:
        options["weight"] = rng.uniform(0.1, 2, c)
    if rng.random() < 0.5:
        options["label_smoothing"] = float(rng.choice([0.1, 1.0]))
    if not integer_target:
        return rng.uniform(0, 1, (n, c)), options
    target = rng.integers(0, c, n)
    if rng.random() < 0.5:
        options["ignore_index"] = int(rng.choice([-100, 1]))
        target[::3] = options["ignore_index"]
        target[1] = 0
    return target, options


# The module itself ----------------------------------------------------------------------------


def test_it_imports_nothing_of_ours_but_the_result_types():
    imported = set()
    for node in ast.walk(ast.parse(inspect.getsource(ref))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add("." * node.level + (node.module or ""))
    assert {m for m in imported if m.startswith((".", "softmax_ext"))} == {"softmax_ext.results"}


def test_the_examples_in_the_docstrings():
    tried = doctest.testmod(ref)
    assert tried.failed == 0
    assert tried.attempted >= len(ref.__all__)


# The lecture, by hand -------------------------------------------------------------------------


def test_one_hot_of_cat_chicken_dog():
    cat, chicken, dog = ref.one_hot([0, 1, 2], 3)
    assert cat.tolist() == [1, 0, 0]
    assert chicken.tolist() == [0, 1, 0]
    assert dog.tolist() == [0, 0, 1]
    assert ref.one_hot([[0], [1]], 2).tolist() == [[[1, 0]], [[0, 1]]]
    assert ref.one_hot(2, 3).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 3], IndexError, r"labels: label 3 at row 1 is outside \[0, 3\)"),
        ([[0, 1], [-1, 0]], IndexError, r"labels: label -1 at index \(1, 0\) is outside \[0, 3\)"),
        ([0.0], TypeError, "labels: dtype float64 came, integers"),
    ],
)
def test_one_hot_refuses(labels, error, message):
    with pytest.raises(error, match=message):
        ref.one_hot(labels, 3)


def test_a_two_by_two_image_through_the_model():
    # Four pixels, three classes: o_1 = 1*1 + 2*0 + 3*0 + 4*0 + 1 = 2, and so on.
    X = np.array([[1, 2, 3, 4]], np.uint8)
    W = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, -0.5], [0.0, -0.25, 0.25]])
    b = np.array([1.0, 0.0, -0.5])
    assert ref.linear(X, W, b).tolist() == [[2.0, 1.0, 0.5]]
    assert ref.linear(X, W, b, x_scale=2.0).tolist() == [[3.0, 2.0, 1.5]]
    e = np.exp([2.0, 1.0, 0.5])
    np.testing.assert_allclose(ref.predict_proba(X, W, b), [e / e.sum()], rtol=1e-15)
    assert ref.predict(X, W, b).tolist() == [0]


def test_softmax_by_hand():
    # exp(log k) = k, so the probabilities are k / (1 + 2 + 5).
    np.testing.assert_allclose(ref.softmax(np.log([1, 2, 5])), [0.125, 0.25, 0.625], rtol=1e-15)
    np.testing.assert_allclose(ref.logsumexp(np.log([1, 2, 5])), np.log(8), rtol=1e-15)
    np.testing.assert_allclose(
        ref.log_softmax(np.log([1, 2, 5])), np.log([1 / 8, 1 / 4, 5 / 8]), rtol=1e-15
    )


def test_cross_entropy_by_hand():
    logits = np.log([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]])  # p = 1/8 2/8 5/8 and 1/4 1/4 2/4
    labels = [1, 2]
    loss, dlogits = ref.cross_entropy_with_grad(logits, labels, reduction="sum")
    assert loss == pytest.approx(np.log(4) + np.log(2), rel=1e-15)
    np.testing.assert_allclose(
        dlogits, [[0.125, 0.25 - 1, 0.625], [0.25, 0.25, 0.5 - 1]], rtol=1e-15
    )
    assert ref.cross_entropy(logits, labels) == pytest.approx(1.5 * np.log(2), rel=1e-15)
    assert ref.cross_entropy(logits, ref.one_hot(labels, 3)) == pytest.approx(
        1.5 * np.log(2), rel=1e-15
    )


def test_entropy_and_divergence_by_hand():
    assert ref.entropy(np.full(8, 1 / 8)) == pytest.approx(np.log(8), rel=1e-15)
    assert ref.entropy([0.5, 0.25, 0.25]) == pytest.approx(1.5 * np.log(2), rel=1e-15)
    # 1/2 log(1/2 / 1/4) + 1/4 log(1/4 / 1/2) + 1/4 log 1
    assert ref.kl_divergence([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]) == pytest.approx(
        0.25 * np.log(2), rel=1e-15
    )


def test_cross_entropy_is_entropy_plus_divergence(rng):
    logits = rng.normal(size=(7, 5))
    p = rng.dirichlet(np.ones(5), 7)
    crossed = ref.cross_entropy(logits, p, reduction="none")
    q = ref.softmax(logits)
    np.testing.assert_allclose(crossed, ref.entropy(p) + ref.kl_divergence(p, q), rtol=1e-13)


# Softmax along any axis -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, np.int32])
@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 2), (2, 0), (-1, 1), None])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_any_axis_as_scipy(rng, name, axis, dtype):
    x = (4 * rng.normal(size=(3, 4, 5))).astype(dtype)
    expected = getattr(scipy.special, name)(x.astype(np.float64), axis=axis)
    actual = getattr(ref, name)(x, axis=axis)
    assert actual.dtype == (np.float32 if dtype == np.float32 else np.float64)
    assert actual.shape == expected.shape
    # SciPy itself loses the digits of small results, so an absolute error of about 1 ULP of 1.
    close = (2e-6, 2e-7) if dtype == np.float32 else (1e-14, 3e-16)
    np.testing.assert_allclose(actual, expected, *close)


@pytest.mark.parametrize("axis", [1, (0, 2), None])
def test_logsumexp_keepdims(rng, axis):
    x = rng.normal(size=(3, 4, 5))
    expected = scipy.special.logsumexp(x, axis=axis, keepdims=True)
    actual = ref.logsumexp(x, axis=axis, keepdims=True)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [-1, 0, (0, 2)])
@pytest.mark.parametrize("dtype", [np.float16, *FLOATS])
def test_out_holds_the_result(rng, name, axis, dtype):
    f = getattr(ref, name)
    x = rng.normal(size=(3, 4, 5)).astype(dtype)
    expected = f(x, axis)
    strided = np.full((3, 8, 5), 7, dtype)
    in_place = x.copy()
    overlapping = np.concatenate([x.ravel(), np.zeros(3, dtype)])
    shifted_in = overlapping[:-3].reshape(x.shape)
    shifted_out = overlapping[3:].reshape(x.shape)
    for source, out in [
        (x, np.empty_like(x)),
        (x, strided[:, ::2]),
        (in_place, in_place),
        (shifted_in, shifted_out),
    ]:
        assert f(source, axis, out=out) is out
        np.testing.assert_array_equal(out, expected)
    assert (strided[:, 1::2] == 7).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_layout_does_not_change_a_bit(rng, name, dtype):
    f = getattr(ref, name)
    x = rng.normal(size=(12, 33)).astype(dtype)
    expected = f(x)
    read_only = x.copy()
    read_only.flags.writeable = False
    swapped = x.astype(x.dtype.newbyteorder())
    for other in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], read_only, swapped):
        actual = f(other)
        np.testing.assert_array_equal(actual, expected, strict=True)
    np.testing.assert_array_equal(f(x[::-1, ::-1]), f(x[::-1, ::-1].copy()))


@pytest.mark.parametrize("scale", [1, 4, 20])
def test_softmax_and_its_logarithm_within_a_few_ulp_of_exact(rng, scale):
    for row in scale * rng.normal(size=(20, 50)):
        p, log_p, log_sum = exact_softmax(row)
        # exp turns the rounding error of x - max, half its last place, into a relative error.
        magnified = np.spacing(row.max() - row) / np.finfo(float).eps
        assert (ulps(ref.softmax(row), p) <= 6 + magnified).all()
        assert (ulps(ref.log_softmax(row), log_p) <= 6).all()
        assert (ulps(ref.logsumexp(row), [log_sum]) <= 1.5).all()


def test_very_sure_models_lose_no_digits():
    # log p of the largest is -(sum of the others): 1 + 1e-18 would round to 1, and to a loss of 0.
    x = np.array([0.0, -41.0, -43.0, -703.0])
    _, log_p, log_sum = exact_softmax(x)
    assert (ulps(ref.log_softmax(x), log_p) <= 2).all()
    assert (ulps(ref.logsumexp(x), [log_sum]) <= 2).all()
    assert (ulps(ref.cross_entropy(x, 0, reduction="none"), [-log_p[0]]) <= 2).all()
    assert (ulps(ref.cross_entropy(x, np.eye(4)[0], reduction="none"), [-log_p[0]]) <= 2).all()


# Special values: one line for each numbered row of the edge-case table that is about these.
@pytest.mark.parametrize(
    ("x", "softmax", "log_softmax", "logsumexp"),
    [
        pytest.param([-INF, -INF], [NAN, NAN], [NAN, NAN], -INF, id="1-2-3"),
        pytest.param([-INF, 0], [0, 1], [-INF, 0], 0, id="5"),
        pytest.param([INF, 0], [NAN, NAN], [NAN, -INF], INF, id="6-7-9"),
        pytest.param([INF, INF], [NAN, NAN], [NAN, NAN], INF, id="8-9"),
        pytest.param([INF, -INF], [NAN, NAN], [NAN, -INF], INF, id="8-9-mixed"),
        pytest.param([NAN, INF], [NAN, NAN], [NAN, NAN], NAN, id="11"),
        pytest.param([0, 1, NAN, -INF], [NAN] * 4, [NAN] * 4, NAN, id="11-minus"),
        pytest.param([3.5], [1], [0], 3.5, id="12-13"),
        pytest.param([INF], [NAN], [NAN], INF, id="12-13-inf"),
        pytest.param([-INF], [NAN], [NAN], -INF, id="12-13-minus"),
        pytest.param([1000, 0, 0], [1, 0, 0], [0, -1000, -1000], 1000, id="14"),
        pytest.param([1.7e308, -1.7e308], [1, 0], [0, -INF], 1.7e308, id="15"),
        pytest.param([0, -740], [1, 4.2e-322], [-4.2e-322, -740], 4.2e-322, id="17-18"),
    ],
)
def test_special_values(x, softmax, log_softmax, logsumexp):
    before = np.array(x, np.float64)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(ref.softmax(x), softmax)
        np.testing.assert_array_equal(ref.log_softmax(x), log_softmax)
        np.testing.assert_array_equal(ref.logsumexp(x), logsumexp)
        # And a neighbour changes nothing.
        rows = np.array([x, np.zeros(len(x)), x])
        np.testing.assert_array_equal(ref.softmax(rows)[2], softmax)
        np.testing.assert_array_equal(ref.softmax(rows)[1], np.full(len(x), 1 / len(x)))
    np.testing.assert_array_equal(x, before)


def test_a_single_number_is_its_own_logsumexp_to_the_sign_of_zero():
    assert np.signbit(ref.logsumexp([-0.0]))
    assert not np.signbit(ref.logsumexp([0.0]))


def test_one_hundred_thousand_halves_do_not_overflow():  # 30
    x = np.zeros(100_000, np.float16)
    assert ref.softmax(x).dtype == np.float16
    assert ref.softmax(x)[0] == np.float16(1e-5)
    assert ref.logsumexp(x) == np.float16(np.log(1e5))


def test_small_integers_and_bools_do_not_wrap():  # 33, 35
    np.testing.assert_array_equal(
        ref.softmax(np.array([127, -128], np.int8)), ref.softmax([127.0, -128.0])
    )
    assert ref.logsumexp(np.array([True, False])) == ref.logsumexp([1.0, 0.0])


def test_scalars_and_empty_sums():  # 41, 43, 44, 45, 48
    assert isinstance(ref.softmax(2.0), np.float64)
    assert (ref.softmax(2.0), ref.log_softmax(2.0), ref.logsumexp(2.0)) == (1, 0, 2)
    assert ref.logsumexp([]) == -INF
    assert ref.logsumexp(np.zeros((3, 0))).tolist() == [-INF] * 3
    assert ref.softmax(np.zeros((0, 3))).shape == (0, 3)
    assert ref.softmax([[5.0, -INF]], axis=()).tolist()[0][0] == 1
    for f in (ref.softmax, ref.log_softmax):
        for empty in ([], np.zeros((3, 0)), np.zeros((0, 0))):
            with pytest.raises(ValueError, match="zero-size array to reduction"):
                f(empty)


@pytest.mark.parametrize(
    ("axis", "error"),
    [
        (2, np.exceptions.AxisError),
        (2**63 - 1, np.exceptions.AxisError),
        ((0, -2), ValueError),
        (0.5, TypeError),
        (True, TypeError),
        ([0, 1], TypeError),
    ],
)
def test_axes_that_are_refused(axis, error):  # 49, 50
    for f in (ref.softmax, ref.log_softmax, ref.logsumexp, ref.entropy):
        with pytest.raises(error):
            f(np.zeros((2, 2)), axis)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(2, complex),
        np.zeros(2, np.longdouble),
        np.array([0.0, None]),
        np.array(["a"]),
        np.array(["2020-01-01"], "M8[D]"),
        np.zeros(2, "m8[s]"),
        np.zeros(2, [("a", float)]),
        np.ma.masked_array([0.0, 1.0], [True, False]),
    ],
    ids=lambda x: f"{type(x).__name__}-{x.dtype}",
)
def test_dtypes_that_are_refused_everywhere(x):  # 36 to 39, 60
    for f in (ref.softmax, ref.log_softmax, ref.logsumexp, ref.entropy):
        with pytest.raises(TypeError, match=r"^[xp]: .* came"):
            f(x)
    row, column = np.ma.reshape(x, (1, -1)), np.ma.reshape(x, (-1, 1))
    if not isinstance(x, np.ma.MaskedArray):
        row, column = x.reshape(1, -1), x.reshape(-1, 1)
    for call in (
        lambda: ref.cross_entropy(row, [0]),
        lambda: ref.linear(row, np.zeros((x.size, 2))),
        lambda: ref.linear(np.zeros((2, x.size)), column),
        lambda: ref.linear(np.zeros((2, 2)), np.zeros((2, x.size)), x),
        lambda: ref.kl_divergence(np.zeros(x.size), x),
    ):
        with pytest.raises(TypeError, match=r"^(logits|X|W|b|q): .* came"):
            call()


# Cross-entropy --------------------------------------------------------------------------------


@pytest.mark.parametrize("integer_target", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_options_by_their_definition(seed, integer_target):
    rng = np.random.default_rng(seed)
    logits = 5 * rng.normal(size=(8, 4))
    target, options = random_options(rng, 8, 4, integer_target=integer_target)
    if seed % 3 == 0:
        options["sample_weight"] = rng.uniform(-1, 2, 8)
    expected = loss_by_definition(logits, target, **options)
    loss = ref.cross_entropy(logits, target, **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    assert type(loss) is (np.ndarray if options["reduction"] == "none" else float)
    single = ref.cross_entropy(logits.astype(np.float32), target, **options)
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (4,), (3, 4, 5), (2, 4, 3, 2)])
@pytest.mark.parametrize("integer_target", [True, False])
def test_options_as_pytorch(rng, shape, integer_target, one_thread_of_pytorch):
    torch = pytest.importorskip("torch")
    c, label_shape = 4, shape[:0] if len(shape) == 1 else (shape[0], *shape[2:])
    for _ in range(40):
        logits = 3 * rng.normal(size=shape)
        target, options = random_options(rng, 12, c, integer_target=integer_target)
        target = np.resize(target, label_shape) if integer_target else rng.uniform(0, 1, size=shape)
        x = torch.tensor(logits, requires_grad=True)
        weight = options.get("weight")
        torch_options = options | {"weight": None if weight is None else torch.tensor(weight)}
        expected = torch.nn.functional.cross_entropy(x, torch.tensor(target), **torch_options)
        expected.sum().backward()
        result = ref.cross_entropy_with_grad(logits, target, **options)
        np.testing.assert_allclose(result.loss, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(result.dlogits, x.grad.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("integer_target", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_gradient_by_differences(seed, integer_target):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(6, 4))
    target, options = random_options(rng, 6, 4, integer_target=integer_target)
    options["sample_weight"] = rng.uniform(-1, 2, 6)
    loss, dlogits = ref.cross_entropy_with_grad(logits, target, **options)
    np.testing.assert_array_equal(loss, ref.cross_entropy(logits, target, **options))
    expected = numerical_gradient(
        lambda: np.sum(ref.cross_entropy(logits, target, **options)), logits
    )
    np.testing.assert_allclose(dlogits, expected, rtol=1e-7, atol=1e-9)


def test_gradient_rows_add_up_to_nothing(rng):
    dlogits = ref.cross_entropy_with_grad(
        rng.normal(size=(50, 10)), rng.integers(0, 10, 50), reduction="sum"
    ).dlogits
    assert np.abs(dlogits.sum(axis=1)).max() <= 10 * np.finfo(float).eps


def test_extra_axes_are_more_examples(rng):  # 105
    logits, target = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5))
    sample_weight = np.array([1.0, 3.0])
    flat = {"target": target.ravel(), "sample_weight": sample_weight.repeat(20)}
    rows = logits.transpose(0, 2, 3, 1).reshape(-1, 3)
    out = np.empty_like(logits)
    result = ref.cross_entropy_with_grad(logits, target, sample_weight=sample_weight, out=out)
    expected = ref.cross_entropy_with_grad(rows, **flat)
    assert result.loss == expected.loss
    assert result.dlogits is out
    np.testing.assert_array_equal(out.transpose(0, 2, 3, 1).reshape(-1, 3), expected.dlogits)
    weights_of_all = np.broadcast_to(sample_weight[:, np.newaxis, np.newaxis], (2, 4, 5))
    assert ref.cross_entropy(logits, target, sample_weight=weights_of_all) == expected.loss
    losses = ref.cross_entropy(logits, target, reduction="none")
    assert losses.shape == target.shape


def test_unbatched_logits():  # 102
    logits = np.log([1.0, 2.0, 5.0])
    assert ref.cross_entropy(logits, 2) == pytest.approx(np.log(8 / 5))
    assert ref.cross_entropy(logits, [0.5, 0.5, 0.0]) == pytest.approx(np.log(8) - np.log(2) / 2)
    losses = ref.cross_entropy(logits, np.uint8(2), reduction="none")
    assert losses.shape == ()
    assert ref.cross_entropy_with_grad(logits, 2).dlogits.shape == (3,)
    assert ref.cross_entropy(logits, 2, sample_weight=2.0, reduction="sum") == pytest.approx(
        2 * np.log(8 / 5)
    )


@pytest.mark.parametrize(("reduction", "expected"), [("mean", NAN), ("sum", 0), ("none", [0, 0])])
def test_ignored_rows_are_not_there(reduction, expected):  # 72, 73, 80
    logits = np.array([[NAN, 0.0], [INF, -INF]])
    with np.errstate(all="raise"):
        loss, dlogits = ref.cross_entropy_with_grad(logits, [-100, -100], reduction=reduction)
        np.testing.assert_array_equal(loss, expected)
        np.testing.assert_array_equal(dlogits, np.zeros((2, 2)))
        kept = ref.cross_entropy_with_grad(
            [[0.0, 0.0], [NAN, 1.0]], [1, 0], ignore_index=0, label_smoothing=0.5
        )
    assert kept.loss == pytest.approx(np.log(2))
    np.testing.assert_array_equal(kept.dlogits[1], 0)


@pytest.mark.parametrize(("reduction", "expected"), [("mean", NAN), ("sum", 0), ("none", [])])
def test_no_rows_at_all(reduction, expected):  # 74
    for target in ([], np.zeros(0, int), np.zeros((0, 3))):
        loss = ref.cross_entropy(np.zeros((0, 3)), target, reduction=reduction)
        np.testing.assert_array_equal(loss, expected)
    nothing = ref.linear_cross_entropy_with_grad(
        np.ones((2, 2)), np.ones((2, 3)), None, [0, 1], rows=[], reduction=reduction, with_dX=True
    )
    np.testing.assert_array_equal(nothing.loss, expected)
    np.testing.assert_array_equal(nothing.dW, np.zeros((2, 3)))
    assert nothing.dX.shape == (0, 2)


@pytest.mark.parametrize(
    ("logits", "target", "options", "expected"),
    [
        pytest.param([0, 0], 1, {"weight": [1, 0]}, NAN, id="82"),
        pytest.param([3, 5], [0.0, 0.0], {}, 0, id="94"),
        pytest.param([-INF, 0], [0.0, 1.0], {}, 0, id="95"),
        pytest.param([-INF, 0], 0, {}, INF, id="96"),
        pytest.param([-INF, 0], 1, {}, 0, id="96-other"),
        pytest.param([-INF, 0], 1, {"label_smoothing": 0.1}, INF, id="97"),
        pytest.param([1e30, -1e30], 1, {}, 2e30, id="98"),
        pytest.param([4.4e11, 0], 1, {}, 4.4e11, id="98-tensorflow"),
        pytest.param([np.exp(10), -np.exp(10)], 0, {}, 0, id="99"),
        pytest.param([INF, 0], 1, {}, NAN, id="7"),
        pytest.param([INF, 0], 0, {}, NAN, id="7-itself"),
        pytest.param([INF, 0], [0.0, 1.0], {}, NAN, id="7-soft"),
        pytest.param([-INF, -INF], 0, {}, NAN, id="2"),
        pytest.param([NAN, 0], 1, {}, NAN, id="10"),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_special_losses(dtype, logits, target, options, expected):
    logits = np.array(logits, dtype)
    with np.errstate(all="raise"):
        loss, dlogits = ref.cross_entropy_with_grad(logits, target, **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-7)
    assert np.isnan(loss) or not np.signbit(loss)
    assert np.isnan(dlogits).all() == np.isnan(loss)
    assert np.isfinite(dlogits).all() != np.isnan(loss)


def test_soft_rows_need_not_sum_to_one():  # 93
    logits, t = np.log([[1.0, 3.0]]), np.array([[2.0, -0.5]])
    loss, dlogits = ref.cross_entropy_with_grad(logits, t)
    assert loss == pytest.approx(2 * np.log(4) - 0.5 * np.log(4 / 3))
    np.testing.assert_allclose(dlogits, [[1.5 / 4 - 2, 1.5 * 3 / 4 + 0.5]], rtol=1e-14)


def test_float32_means_add_up_in_float64():  # 108
    n = 2**21
    logits = np.broadcast_to(np.float32([0, 0, 0]), (n, 3))
    loss = ref.cross_entropy(logits, np.broadcast_to(np.uint8(1), n))
    assert loss == pytest.approx(float(np.log1p(np.float32(2))), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int32, np.uint64, ">i8"])
def test_every_integer_dtype_is_a_label(rng, dtype):  # 100
    logits, target = rng.normal(size=(9, 5)), rng.integers(0, 5, 9)
    expected = ref.cross_entropy(logits, target)
    assert ref.cross_entropy(logits, target.astype(dtype)) == expected
    assert ref.cross_entropy(logits, target.astype(dtype).tolist()) == expected


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target": [0, 3]}, IndexError, r"target: label 3 at row 1 is outside \[0, 3\)"),
        ({"target": [-1, 0]}, IndexError, r"target: label -1 at row 0 is outside \[0, 3\)"),
        ({"target": np.array([2**63, 0], np.uint64)}, IndexError, "label 9223372036854775808"),
        ({"target": [0, 1, 2]}, ValueError, r"target: shape \(3,\) came, \(2,\)"),
        ({"target": [0.0, 1.0]}, TypeError, "target: labels of dtype float64 came, int"),
        ({"target": np.eye(3)}, ValueError, r"probabilities of shape \(3, 3\) came, \(2, 3\)"),
        ({"target": np.eye(2, 3, dtype=int)}, ValueError, r"pass target.argmax\(axis=1\)"),
        ({"target": [True, False]}, TypeError, "target: dtype bool came"),
        ({"target": np.ma.masked_array([0, 1], [0, 1])}, TypeError, r"target: .*\.filled\(\)"),
        ({"weight": [1.0, 2.0]}, ValueError, r"weight: shape \(2,\) came, \(3,\)"),
        ({"weight": ["1", "2", "3"]}, TypeError, "weight: dtype <U1 came"),
        ({"sample_weight": [1.0]}, ValueError, r"sample_weight: shape \(1,\) came, \(2,\)"),
        ({"sample_weight": np.ones(2, np.longdouble)}, TypeError, "sample_weight: dtype .* came"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing: 1.5 came"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing: -0.1 came"),
        ({"label_smoothing": NAN}, ValueError, "label_smoothing: nan came"),
        ({"label_smoothing": "0.1"}, TypeError, "label_smoothing: str came"),
        ({"reduction": "foo"}, ValueError, "reduction: 'foo' came"),
        ({"ignore_index": 1.0}, TypeError, "ignore_index: float came"),
        ({"target": np.eye(2, 3), "ignore_index": 0}, ValueError, "ignore_index: 0 came with"),
        ({"logits": 1.0}, ValueError, r"logits: shape \(\) came"),
        ({"logits": np.zeros((2, 0))}, ValueError, r"logits: shape \(2, 0\) came"),
        ({"logits": np.zeros((2, 3), np.float16)}, TypeError, "logits: dtype float16 came"),
    ],
)
def test_cross_entropy_refuses(changes, error, message):
    arguments = {"logits": np.zeros((2, 3)), "target": [0, 1]} | changes
    out = np.full((2, 3), 7.0)
    with pytest.raises(error, match=message):
        ref.cross_entropy(**arguments)
    with pytest.raises(error, match=message):
        ref.cross_entropy_with_grad(**arguments, out=out)
    assert (out == 7).all()
    if "logits" not in changes:
        arguments["X"] = arguments.pop("logits")
        with pytest.raises(error, match=message):
            ref.linear_cross_entropy(W=np.eye(3), b=None, **arguments)
        with pytest.raises(error, match=message):
            ref.linear_cross_entropy_with_grad(
                W=np.eye(3), b=np.zeros(3), **arguments, out=(np.zeros((3, 3)), out[0])
            )
        assert (out == 7).all()


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((3, 2)), r"out: shape \(3, 2\) came, \(2, 3\)"),
        (np.zeros((2, 3), np.float32), "out: dtype float32 came, float64"),
        (np.zeros((2, 3), np.dtype(float).newbyteorder()), "out: dtype >f8 came"),
        (read_only(np.zeros((2, 3))), "out: a read-only array came"),
        (np.lib.stride_tricks.as_strided(np.zeros(4), (2, 3), (8, 8)), "overlaps itself"),
        (np.lib.stride_tricks.as_strided(np.zeros(3), (2, 3), (0, 8)), "overlaps itself"),
    ],
)
def test_out_that_is_refused(out, message):  # 54, 64
    x = np.ones((2, 3))
    before = out.copy()
    for call in (
        lambda: ref.softmax(x, out=out),
        lambda: ref.log_softmax(x, out=out),
        lambda: ref.linear(np.ones((2, 1)), np.ones((1, 3)), out=out),
        lambda: ref.cross_entropy_with_grad(x, [0, 1], out=out),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    np.testing.assert_array_equal(out, before)
    with pytest.raises(TypeError, match="out: list came"):
        ref.softmax(x, out=[[0.0] * 3] * 2)


def test_out_with_an_axis_of_length_one_does_not_overlap_itself():
    x = np.array([[0.0, 0.0]])
    out = np.zeros(2)[np.newaxis]  # its new axis has a step of 0
    assert ref.softmax(x, out=out) is out
    assert out.tolist() == [[0.5, 0.5]]


def test_out_of_no_elements_does_not_overlap_itself():
    out = np.zeros((0, 3))
    assert ref.softmax(np.zeros((0, 3)), out=out) is out
    assert ref.linear(np.zeros((0, 2)), np.zeros((2, 3)), out=out) is out
    assert ref.cross_entropy_with_grad(out, np.zeros(0, int), out=out).dlogits is out


def test_out_may_be_any_of_the_inputs(rng):
    logits, t = rng.normal(size=(5, 3)), rng.uniform(size=(5, 3))
    expected = ref.cross_entropy_with_grad(logits, t)
    for i in range(2):
        inputs = [logits.copy(), t.copy()]
        result = ref.cross_entropy_with_grad(*inputs, out=inputs[i])
        assert result.dlogits is inputs[i]
        assert result.loss == expected.loss
        np.testing.assert_array_equal(result.dlogits, expected.dlogits)


# The linear layer and all together ------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "w", "b", "expected"),
    [
        ("f4", "f4", "f4", "f4"),
        ("f4", "f4", "f8", "f8"),
        ("f8", "f4", None, "f8"),
        ("f4", "f8", "f4", "f8"),
        ("u1", "f4", "f4", "f4"),
        ("u1", "f8", None, "f8"),
        ("u2", "f4", "f4", "f8"),
        ("i4", "f4", "f4", "f8"),
        ("?", "f4", "f4", "f8"),
        ("f4", "i8", None, "f8"),
        (">f4", ">f4", ">f4", "f4"),
    ],
)
def test_dtypes_of_results(x, w, b, expected):
    X, W = np.ones((4, 2), x), np.ones((2, 3), w)
    bias = None if b is None else np.ones(3, b)
    assert ref.linear(X, W, bias).dtype == expected
    assert ref.linear(X, W, bias).tolist() == [[2 + (b is not None)] * 3] * 4
    assert ref.predict_proba(X, W, bias).dtype == expected
    assert ref.predict(X, W, bias).dtype == np.intp
    options = {"reduction": "none", "weight": np.ones(3), "sample_weight": np.ones(4)}
    result = ref.linear_cross_entropy_with_grad(X, W, bias, [0, 1, 2, 0], **options, with_dX=True)
    for array in (result.loss, result.dW, result.db, result.dX):
        assert array is None or array.dtype == expected
    assert (result.db is None) == (b is None)


@pytest.mark.parametrize("integer_target", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_all_gradients_by_differences(seed, integer_target):
    rng = np.random.default_rng(seed)
    X, W, b = rng.normal(size=(9, 5)), rng.normal(size=(5, 4)), rng.normal(size=4)
    target, options = random_options(rng, 9, 4, integer_target=integer_target)
    options |= {"sample_weight": rng.uniform(0.1, 2, 9), "x_scale": 0.7}
    rows = np.array([3, 0, 3, -1, 5])

    def loss():
        picked = options | {"sample_weight": options["sample_weight"][rows]}
        return np.sum(ref.linear_cross_entropy(X[rows], W, b, target[rows], **picked))

    result = ref.linear_cross_entropy_with_grad(X, W, b, target, **options, rows=rows, with_dX=True)
    np.testing.assert_allclose(np.sum(result.loss), loss(), rtol=1e-13)
    close = {"rtol": 1e-7, "atol": 1e-9}
    np.testing.assert_allclose(result.dW, numerical_gradient(loss, W), **close)
    np.testing.assert_allclose(result.db, numerical_gradient(loss, b), **close)
    in_place = np.zeros_like(X)
    np.add.at(in_place, rows, result.dX)  # row 3 comes twice and counts twice
    np.testing.assert_allclose(in_place, numerical_gradient(loss, X), **close)


def test_totals_and_counts():
    X = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [9.0, 0.0, 0.0]])
    target, weight, sample_weight = [0, 1, 2, -100], [1.0, 10.0, 100.0], [1.0, 2.0, 3.0, 4.0]
    call = ref.linear_cross_entropy_with_grad
    for reduction in REDUCTIONS:
        result = call(
            X, np.eye(3), None, target,
            weight=weight, sample_weight=sample_weight, reduction=reduction,
        )  # fmt: skip
        assert result.total_weight == 1 * 1 + 10 * 2 + 100 * 3
        assert result.n_correct == 2  # row 1 is a tie, and its first is 0
    assert call(X, np.eye(3), None, target).total_weight == 3
    soft = np.array([[0.2, 0.8, 0.0], [0.4, 0.3, 0.3], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    result = call(X, np.eye(3), None, soft, weight=weight, sample_weight=sample_weight)
    assert result.total_weight == 10
    assert result.n_correct == 3
    assert call(X, np.eye(3), None, soft).total_weight == 4


@pytest.mark.parametrize(("dtype", "large"), [(np.float16, 40_000), (np.uint8, 200)])
def test_weights_of_a_small_dtype_do_not_overflow(dtype, large):
    weight = np.full(2, large, dtype)
    result = ref.linear_cross_entropy_with_grad(
        np.zeros((2, 1), np.float32), np.zeros((1, 2), np.float32), None, [0, 1],
        weight=weight, sample_weight=weight, reduction="sum",
    )  # fmt: skip
    assert result.total_weight == 2 * large**2
    assert result.loss == pytest.approx(2 * large**2 * np.log(2))


def test_sums_over_parts_add_up(rng):
    X, W, b = rng.normal(size=(30, 6)), rng.normal(size=(6, 4)), rng.normal(size=4)
    target, options = rng.integers(0, 4, 30), {"reduction": "sum", "label_smoothing": 0.1}
    whole = ref.linear_cross_entropy_with_grad(X, W, b, target, **options)
    parts = [
        ref.linear_cross_entropy_with_grad(X, W, b, target, rows=rows, **options)
        for rows in np.split(rng.permutation(30), [1, 7, 20])
    ]
    for i in (0, 1, 2, 4, 5):
        np.testing.assert_allclose(sum(p[i] for p in parts), whole[i], rtol=1e-12, atol=1e-13)


def test_ignored_examples_may_hold_anything(rng):
    X, W, b = rng.normal(size=(4, 3)), rng.normal(size=(3, 5)), rng.normal(size=5)
    expected = ref.linear_cross_entropy_with_grad(X[[0, 2]], W, b, [1, 4], with_dX=True)
    X[1], X[3] = NAN, INF
    with np.errstate(all="raise"):
        result = ref.linear_cross_entropy_with_grad(X, W, b, [1, -100, 4, -100], with_dX=True)
    assert result.loss == expected.loss
    np.testing.assert_array_equal(result.dW, expected.dW)
    np.testing.assert_array_equal(result.db, expected.db)
    np.testing.assert_array_equal(result.dX[[0, 2]], expected.dX)
    np.testing.assert_array_equal(result.dX[[1, 3]], 0)


def test_other_examples_do_not_stay_finite():  # 116
    with np.errstate(all="raise"):
        logits = ref.linear([[INF, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_array_equal(logits, [[NAN, INF], [0, 2]])


def test_no_features_leave_the_bias():  # 115
    assert ref.linear(np.zeros((2, 0)), np.zeros((0, 3)), [1, 2, 3]).tolist() == [[1, 2, 3]] * 2
    result = ref.linear_cross_entropy_with_grad(np.zeros((2, 0)), np.zeros((0, 3)), None, [0, 1])
    assert result.dW.shape == (0, 3)
    assert result.loss == pytest.approx(np.log(3))


def test_gradient_in_the_order_of_the_weights(rng):
    X, target = rng.normal(size=(6, 3)), rng.integers(0, 4, 6)
    W = rng.normal(size=(3, 4))
    plain = ref.linear_cross_entropy_with_grad(X, W, None, target).dW
    turned = ref.linear_cross_entropy_with_grad(X, np.asfortranarray(W), None, target).dW
    assert plain.flags.c_contiguous
    assert turned.flags.f_contiguous
    np.testing.assert_allclose(turned, plain, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.uint8, *FLOATS])
@pytest.mark.parametrize("rows", [None, [0, 2, 2, -1]])
def test_sparse_rows_as_dense(rng, dtype, rows):
    n = 1500 if rows is None else 5  # more than one block, or a few
    X = rng.integers(0, 9, (n, 6)) * (rng.random((n, 6)) < 0.3)
    X[1] = 0
    X, W, b = X.astype(dtype), rng.normal(size=(6, 4)).astype(np.float32), np.float32([1, 2, 3, 4])
    sparse, target = scipy.sparse.csr_array(X), rng.integers(0, 4, n)
    target[:2] = -100
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype != np.float64 else {"rtol": 1e-12}
    np.testing.assert_allclose(ref.linear(sparse, W, b), ref.linear(X, W, b), **tolerance)
    np.testing.assert_array_equal(ref.predict(sparse, W, b), ref.predict(X, W, b))
    dense_result, result = (
        ref.linear_cross_entropy_with_grad(x, W, b, target, rows=rows, x_scale=0.5, reduction="sum")
        for x in (X, sparse)
    )
    for actual, expected in zip(result, dense_result, strict=True):
        if expected is None:
            assert actual is None
            continue
        np.testing.assert_allclose(actual, expected, **tolerance)
        assert np.asarray(actual).dtype == np.asarray(expected).dtype


def csr(indptr=(0, 2, 3), indices=(0, 0, 1), data=(1.0, 2.0, 4.0), shape=(2, 2)):
    """A matrix in CSR form that SciPy has not seen; its first row has 1 and 2 in one place."""
    return SimpleNamespace(
        indptr=np.array(indptr), indices=np.array(indices), data=np.array(data), shape=shape
    )


def test_sparse_entries_at_one_place_add_up():
    assert ref.linear(csr(), np.eye(2)).tolist() == [[3, 0], [0, 4]]


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (csr(indptr=[0, 2]), ValueError, "X.indptr: other numbers came than the 3 asc"),
        (csr(indptr=[-1, 2, 3]), ValueError, "X.indptr: other numbers came than the 3 asc"),
        (
            csr(indptr=np.uint64([0, 3, 2])),
            ValueError,
            "X.indptr: other numbers came than the 3 asc",
        ),
        (csr(indptr=[0, 4, 3]), ValueError, "X.indptr: other numbers came than the 3 asc"),
        (csr(indptr=[0, 2, 4]), ValueError, "X: 3 indices and 3 numbers came, 4"),
        (csr(indices=[0, 1]), ValueError, "X: 2 indices and 3 numbers came"),
        (csr(indices=[0, 2, 1]), ValueError, r"X.indices: some came that are outside \[0, 2\)"),
        (csr(indices=[0, -1, 1]), ValueError, r"X.indices: some came that are outside \[0, 2\)"),
        (csr(data=[1j, 0, 0]), TypeError, "X: dtype complex128 came"),
        (scipy.sparse.csc_array(np.eye(2)), TypeError, r"X: .* csc form.*\.tocsr\(\)"),
        (np.ones(2), ValueError, r"X: shape \(2,\) came, \(N, D\)"),
        (np.ones((1, 2, 2)), ValueError, "X: shape .* came"),
        (np.ones((2, 3)), ValueError, r"W: shape \(2, 2\) came, \(3, C\)"),
    ],
)
def test_x_that_is_refused(X, error, message):
    for call in (
        lambda: ref.linear(X, np.eye(2)),
        lambda: ref.predict(X, np.eye(2)),
        lambda: ref.predict_proba(X, np.eye(2)),
        lambda: ref.linear_cross_entropy(X, np.eye(2), None, [0, 1]),
        lambda: ref.linear_cross_entropy_with_grad(X, np.eye(2), None, [0, 1]),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"W": np.zeros(2)}, ValueError, r"W: shape \(2,\) came"),
        ({"W": np.zeros((2, 0)), "b": None}, ValueError, r"W: shape \(2, 0\) came"),
        ({"b": np.zeros(2)}, ValueError, r"b: shape \(2,\) came, \(3,\)"),
        ({"x_scale": "1"}, TypeError, "x_scale: str came"),
        ({"x_scale": INF}, ValueError, "x_scale: inf came"),
        ({"x_scale": NAN}, ValueError, "x_scale: nan came"),
        ({"rows": [0, 4]}, IndexError, r"rows: index 4 at position 1 is outside \[-4, 4\)"),
        ({"rows": [-5]}, IndexError, r"rows: index -5 at position 0 is outside \[-4, 4\)"),
        ({"rows": np.ones(4, bool)}, TypeError, "rows: .*numpy.flatnonzero"),
        ({"rows": [0.0]}, TypeError, "rows: dtype float64 came"),
        ({"rows": [[0]]}, ValueError, r"rows: shape \(1, 1\) came"),
        (
            {"rows": [0, 1, -1], "target": [0, 1, 9, 7]},
            IndexError,
            r"target: label 7 at rows\[2\] = -1 is outside \[0, 3\)",
        ),
        ({"out": np.zeros((2, 3))}, TypeError, "out: ndarray came, a tuple"),
        ({"out": (None,)}, TypeError, "out: tuple came, a tuple"),
        ({"out": (np.zeros((3, 2)), None)}, ValueError, r"out: dW: shape \(3, 2\) came"),
        ({"out": (None, np.zeros(3, "f4"))}, ValueError, "out: db: dtype float32 came"),
        ({"out": (None, None, np.zeros((4, 2)))}, ValueError, "out: an array for dX came"),
        ({"out": (None, np.zeros(3)), "b": None}, ValueError, "out: an array for db came"),
        (
            {"out": [None, None, np.zeros((3, 2))], "with_dX": True},
            ValueError,
            r"out: dX: shape \(3, 2\) came, \(4, 2\)",
        ),
    ],
)
def test_linear_cross_entropy_refuses(changes, error, message):
    arguments = {
        "X": np.ones((4, 2)), "W": np.zeros((2, 3)), "b": np.zeros(3), "target": [0, 1, 2, 0],
        "out": (np.full((2, 3), 7.0), np.full(3, 7.0)),
    } | changes  # fmt: skip
    with pytest.raises(error, match=message):
        ref.linear_cross_entropy_with_grad(**arguments)
    if "out" not in changes:
        assert all((a == 7).all() for a in arguments["out"])


def test_out_arrays_that_overlap_each_other():
    packed = np.zeros(8)
    with pytest.raises(ValueError, match="out: a db that overlaps another came"):
        ref.linear_cross_entropy_with_grad(
            np.ones((4, 2)), np.zeros((2, 3)), np.zeros(3), [0] * 4,
            out=(packed[:6].reshape(2, 3), packed[5:]),
        )  # fmt: skip


def test_gradients_go_where_they_are_wanted(rng):
    X, W, b, target = rng.normal(size=(4, 2)), rng.normal(size=(2, 3)), np.zeros(3), [0, 1, 2, 0]
    call = ref.linear_cross_entropy_with_grad
    expected = call(X, W, b, target, with_dX=True)
    assert isinstance(expected, LinearCrossEntropyResult)
    packed = np.zeros((3, 3))  # coefficients with their intercept, one row for each class
    dW, db = packed[:, :2].T, packed[:, 2]
    first = call(X, W, b, target, with_dX=True, out=(dW, db, np.zeros((4, 2))))
    again = call(X, W, b, target, with_dX=True, out=first)
    for result in (first, again):
        assert result.dW is dW
        assert result.db is db
        assert result.dX is first.dX
        for actual, wanted in zip(result, expected, strict=True):
            np.testing.assert_array_equal(actual, wanted)
    # An earlier result may have more, or for another minibatch, than is wanted.
    fewer = call(X, W, b, target, rows=[2], with_dX=True, out=first)
    assert fewer.dW is dW
    assert fewer.dX.shape == (1, 2)
    assert call(X, W, None, target, out=first)[2:4] == (None, None)
    call(X, W, b, target, out=first)
    over_inputs = call(X, W, b, target, with_dX=True, out=(W, b, X))
    for actual, wanted in zip(over_inputs, expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_linear_out_may_be_an_input(rng):
    X, W = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    expected = ref.linear(X, W, W[0])
    assert ref.linear(X, W, W[0], out=W) is W
    np.testing.assert_array_equal(W, expected)


def test_inputs_are_left_alone(rng):
    inputs = {
        "X": rng.normal(size=(5, 3)),
        "W": rng.normal(size=(3, 4)),
        "b": rng.normal(size=4),
        "target": rng.uniform(size=(5, 4)),
        "weight": rng.uniform(size=4),
        "sample_weight": rng.uniform(size=5),
        "rows": np.array([4, 0]),
    }
    for array in inputs.values():
        array.flags.writeable = False
    ref.linear_cross_entropy_with_grad(**inputs, with_dX=True, label_smoothing=0.1, x_scale=2)
    labels = read_only(rng.integers(0, 4, 5))
    ref.linear_cross_entropy_with_grad(**inputs | {"target": labels}, with_dX=True)
    logits = read_only(rng.normal(size=(5, 4)))
    result = ref.cross_entropy_with_grad(logits, inputs["target"])
    assert isinstance(result, CrossEntropyResult)
    ref.cross_entropy(logits, labels)
    ref.predict_proba(inputs["X"], inputs["W"], inputs["b"])
    for f in (ref.softmax, ref.log_softmax, ref.logsumexp, ref.entropy):
        f(logits)


# Information ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, *FLOATS])
def test_entropy_and_divergence_as_scipy(rng, dtype):
    p, q = rng.dirichlet(np.ones(6), (2, 4, 3)).astype(dtype)
    p[0, 0, 0] = 0
    exact_p, exact_q = p.astype(float), q.astype(float)
    close = {"rtol": {2: 1e-3, 4: 2e-6, 8: 1e-13}[p.itemsize]}
    for axis in (-1, 0, (0, 1), None):
        actual, divergence = ref.entropy(p, axis), ref.kl_divergence(p, q, axis)
        assert actual.dtype == divergence.dtype == dtype
        np.testing.assert_allclose(actual, np.sum(scipy.special.entr(exact_p), axis), **close)
        np.testing.assert_allclose(
            divergence, np.sum(scipy.special.rel_entr(exact_p, exact_q), axis), **close
        )


def test_divergence_of_near_distributions_keeps_its_digits():
    p = np.array([0.5, 0.25, 0.25])
    q = p + np.array([1e-6, -5e-7, -5e-7])
    with mpmath.workdps(60):
        exact = mpmath.fsum(
            mpmath.mpf(float(a)) * mpmath.log(mpmath.mpf(float(a)) / mpmath.mpf(float(b)))
            for a, b in zip(p, q, strict=True)
        )
    # Terms of 1e-6 that cancel to 1e-12: a millionth of an ULP of 1 is all that may be lost.
    assert abs(ref.kl_divergence(p, q) - float(exact)) <= 1e-6 * np.finfo(float).eps


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        (0.0, 0.0, 0),
        (0.0, INF, 0),
        (0.5, 0.0, INF),
        (NAN, 0.5, NAN),
        (0.0, NAN, NAN),
        (-1.0, 0.5, NAN),
        (0.5, -1.0, NAN),
        (0.0, -1.0, 0),
        (-1.0, NAN, NAN),
        (NAN, -1.0, NAN),
        (1e-300, 1e300, -1e-300 * 600 * np.log(10)),
    ],
)
def test_terms_of_the_divergence(p, q, expected):  # 112
    with np.errstate(all="raise"):
        divergence = ref.kl_divergence(p, q)
    np.testing.assert_allclose(divergence, expected, rtol=1e-14)


def test_terms_of_the_entropy():
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(
            ref.entropy([[0, 1], [NAN, 1], [-1, 1], [1, 0]]), [0, NAN, NAN, 0]
        )
        assert not np.signbit(ref.entropy([1.0]))
        assert ref.entropy([]) == 0


def test_divergence_broadcasts(rng):
    p, q = rng.dirichlet(np.ones(3), 4), rng.dirichlet(np.ones(3))
    expected = [ref.kl_divergence(row, q) for row in p]
    np.testing.assert_array_equal(ref.kl_divergence(p, q), expected)
    with pytest.raises(ValueError, match=r"q: shape \(2,\) came, one that broadcasts"):
        ref.kl_divergence(p, [0.5, 0.5])
