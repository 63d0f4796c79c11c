"""softmax_ext.torch beside torch.nn.functional: the same meaning, autograd included."""

from __future__ import annotations

import copy
import doctest
import inspect
import io
import itertools
import pickle
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from problems import run_python

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402, N812

import softmax_ext  # noqa: E402
import softmax_ext.torch as mine  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread_of_pytorch")

FUNCTIONS = ["softmax", "log_softmax", "cross_entropy", "linear_cross_entropy"]
MODULES = ["CrossEntropyLoss", "LinearCrossEntropyLoss"]
SOFTMAX_LIKE = FUNCTIONS[:2]
REDUCTIONS = ["mean", "sum", "none"]
DTYPES = [torch.float32, torch.float64]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
softmax_like = pytest.mark.parametrize("name", SOFTMAX_LIKE)
# The function and the module are new in PyTorch 2.13.
has_linear = hasattr(F, "linear_cross_entropy")
needs_linear = pytest.mark.skipif(not has_linear, reason="this PyTorch has no such function")


class Spy:
    """Kernels that note which of them was called, and with what."""

    def __init__(self, kernels):
        self.kernels, self.calls, self.threads = kernels, [], []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            self.threads.append(softmax_ext.get_num_threads())
            return getattr(self.kernels, name)(*args, **kwargs)

        return call

    @property
    def names(self):
        return [name for name, _, _ in self.calls]


@pytest.fixture(autouse=True)
def each_warning_anew(monkeypatch):
    monkeypatch.setattr(mine, "_warned", set())


@pytest.fixture
def spy(compiled, monkeypatch):
    """The kernels of one instruction set, watched while the module works with them."""
    spy = Spy(compiled)
    monkeypatch.setattr(softmax_ext, "kernels", spy)
    return spy


@pytest.fixture(params=[0, mine.SMALL], ids=["by a Function", "by PyTorch's node"])
def softmax_way(request, monkeypatch):
    """Both ways in which softmax has its derivatives, whatever the size."""
    monkeypatch.setattr(mine, "SMALL", request.param)


@pytest.fixture
def g():
    return torch.Generator().manual_seed(2024)


def assert_close(actual, expected, dtype=None):
    """Equal up to rounding in the dtype of the computation."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    tolerance = 2e-5 if (dtype or expected.dtype) == torch.float32 else 1e-12
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def gradients(loss, inputs, g):
    """Of loss * (random numbers)."""
    factor = torch.randn(loss.shape, generator=g, dtype=loss.dtype)
    return torch.autograd.grad(loss, inputs, factor)


def assert_same_with_gradients(ours, theirs, inputs, seed=0):
    assert_close(ours, theirs)
    found, wanted = (
        gradients(loss, inputs, torch.Generator().manual_seed(seed)) for loss in (ours, theirs)
    )
    for a, e in zip(found, wanted, strict=True):
        assert_close(a, e)


# The module ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_signature_is_pytorchs(name):
    if name == "linear_cross_entropy" and not has_linear:
        pytest.skip("this PyTorch has no such function")
    assert parameters(getattr(mine, name)) == parameters(getattr(F, name))


@pytest.mark.parametrize("name", MODULES)
def test_the_modules_signature_is_pytorchs(name):
    if name == "LinearCrossEntropyLoss" and not has_linear:
        pytest.skip("this PyTorch has no such module")
    assert parameters(getattr(mine, name)) == parameters(getattr(torch.nn, name))


def parameters(f):
    return [(p.name, p.default, p.kind) for p in inspect.signature(f).parameters.values()]


def test_the_examples_in_the_docstrings():
    tried = doctest.testmod(mine)
    assert tried.attempted > 15
    assert tried.failed == 0


def test_it_is_imported_when_asked_for_and_is_not_pytorch_itself():
    code = """
import sys
import softmax_ext
assert "torch" not in sys.modules
assert "torch" in dir(softmax_ext)
assert softmax_ext.torch.__name__ == "softmax_ext.torch"
import torch
assert softmax_ext.torch.torch is torch is not softmax_ext.torch
print("fine")
"""
    assert run_python(code) == "fine"


def test_what_is_said_without_pytorch():
    code = """
import sys
sys.modules["torch"] = None
from softmax_ext import *
import softmax_ext
try:
    softmax_ext.torch
except ImportError as error:
    print("torch" in str(error))
"""
    assert run_python(code) == "True"


# Agreement with PyTorch ---------------------------------------------------------------------------

LAYOUTS = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "every second": lambda t: t.repeat_interleave(2, dim=-1)[..., ::2],
    "expanded": lambda t: t[:1].expand(t.shape),
    "offset": lambda t: torch.cat([t.new_zeros(3), t.flatten()])[3:].view(t.shape),
    "negative": lambda t: torch.complex(t, -t).conj().imag,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@each_dtype
@softmax_like
def test_softmax_and_log_softmax(spy, g, softmax_way, name, dtype, layout):
    for shape in [(1,), (7,), (4, 10), (3, 200), (2, 3, 4), (2, 3, 1, 5)]:
        for dim in range(-len(shape), len(shape)):
            x = LAYOUTS[layout](4 * torch.randn(shape, generator=g, dtype=dtype))
            x = x.detach().requires_grad_()
            spy.calls.clear()
            ours = getattr(mine, name)(x, dim)
            assert spy.names == [name]
            assert_same_with_gradients(ours, getattr(F, name)(x, dim), [x])


@softmax_like
def test_softmax_of_numbers_and_of_nothing(spy, name):
    assert_close(getattr(mine, name)(torch.tensor(2.5), 0), getattr(F, name)(torch.tensor(2.5), 0))
    for shape, dim in [((0,), 0), ((3, 0), 1), ((0, 3), 1), ((2, 0, 3), -1)]:
        x = torch.empty(shape, requires_grad=True)
        ours = getattr(mine, name)(x, dim)
        assert ours.shape == shape
        ours.sum().backward()
        assert x.grad.shape == shape


@softmax_like
def test_softmax_in_another_dtype(spy, g, softmax_way, name):
    for given, dtype in [(torch.float32, torch.float64), (torch.float64, torch.float32)]:
        x = torch.randn(3, 5, generator=g, dtype=given, requires_grad=True)
        ours = getattr(mine, name)(x, 1, dtype=dtype)
        assert_close(ours, getattr(F, name)(x, 1, dtype=dtype))
        # The gradients are rounded to float32 on one side of the cast or the other.
        found, wanted = (
            gradients(f(x, 1, dtype=dtype), [x], torch.Generator().manual_seed(1))[0]
            for f in (getattr(mine, name), getattr(F, name))
        )
        assert_close(found, wanted, torch.float32)
    for given in (torch.int64, torch.bool, torch.float16, torch.bfloat16):
        x = torch.randint(0, 2, (3, 5), generator=g).to(given)
        ours = getattr(mine, name)(x, 1, dtype=torch.float64)
        assert_close(ours, getattr(F, name)(x, 1, dtype=torch.float64))
    assert spy.names == [name] * 8


@softmax_like
def test_softmax_without_a_dimension_is_pytorchs_guess(name):
    for shape in [(4,), (4, 3), (2, 3, 4)]:
        x = torch.randn(shape)
        with pytest.warns(UserWarning, match=f"^Implicit dimension choice for {name}") as caught:
            ours = getattr(mine, name)(x)
        assert caught[0].filename == __file__
        with pytest.warns(UserWarning, match="^Implicit dimension choice"):
            assert_close(ours, getattr(F, name)(x))


@softmax_like
def test_a_dimension_that_is_none_of_the_tensors(spy, name):
    for dim in (2, -3):
        with pytest.raises(IndexError):
            getattr(mine, name)(torch.zeros(2, 3), dim)


@softmax_like
def test_softmax_is_more_accurate_than_pytorchs(spy, g, softmax_way, name):
    x = 10 * torch.randn(2000, 10, generator=g)
    exact = getattr(F, name)(x.double(), 1)
    unit = torch.from_numpy(np.spacing(np.maximum(exact.float().abs().numpy(), 1e-37)))
    if name == "log_softmax":
        x, exact, unit = x[:1], exact[:1], unit[:1]
    for wanted in (False, True):
        error = (getattr(mine, name)(x.requires_grad_(wanted), 1) - exact).abs() / unit
        assert error.max() <= 4


def problem(g, dtype, shape, *, soft, layout="contiguous"):
    """Logits, targets (a seventh of the labels ignored) and class weights."""
    x = LAYOUTS[layout](3 * torch.randn(shape, generator=g, dtype=dtype)).detach()
    x.requires_grad_()
    axis = min(1, len(shape) - 1)
    c = shape[axis]
    weight = torch.rand(c, generator=g, dtype=dtype)
    if soft:
        return x, torch.randn(shape, generator=g, dtype=dtype).softmax(axis), weight
    y = torch.randint(0, c, shape[:axis] + shape[axis + 1 :], generator=g)
    return x, torch.where(torch.rand(y.shape, generator=g) < 1 / 7, -100, y), weight


SHAPES = [(4,), (1, 1), (9, 2), (33, 10), (5, 130), (3, 4, 2), (2, 5, 3, 4), (2, 3, 2, 1, 3)]


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
@each_reduction
@each_dtype
def test_cross_entropy(spy, g, dtype, reduction, soft):
    for shape, smoothing, weighted in itertools.product(SHAPES, [0.0, 0.3], [False, True]):
        x, y, weight = problem(g, dtype, shape, soft=soft)
        options = {
            "weight": weight if weighted else None,
            "reduction": reduction,
            "label_smoothing": smoothing,
        }
        ours, theirs = mine.cross_entropy(x, y, **options), F.cross_entropy(x, y, **options)
        assert_same_with_gradients(ours, theirs, [x])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
def test_cross_entropy_of_any_layout(spy, g, layout, soft):
    for shape in [(12, 5), (3, 4, 2), (2, 5, 3, 4)]:
        x, y, weight = problem(g, torch.float64, shape, soft=soft, layout=layout)
        y = LAYOUTS[layout](y) if soft else y.repeat_interleave(2, dim=-1)[..., ::2]
        for reduction in REDUCTIONS:
            options = {"weight": weight, "reduction": reduction}
            ours, theirs = mine.cross_entropy(x, y, **options), F.cross_entropy(x, y, **options)
            assert_same_with_gradients(ours, theirs, [x])


@each_reduction
def test_cross_entropy_of_channels_last_images(spy, g, reduction):
    x, y, _ = problem(g, torch.float32, (2, 5, 8, 6), soft=False)
    x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    options = {"reduction": reduction}
    ours, theirs = mine.cross_entropy(x, y, **options), F.cross_entropy(x, y, **options)
    assert_same_with_gradients(ours, theirs, [x])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_integer_dtype(spy, g, dtype):
    x, y, _ = problem(g, torch.float64, (9, 5), soft=False)
    y = y.clamp(min=0)
    ours = mine.cross_entropy(x, y.to(dtype), ignore_index=2)
    assert_same_with_gradients(ours, F.cross_entropy(x, y, ignore_index=2), [x])


@each_reduction
def test_no_rows_and_no_rows_that_count(spy, reduction):
    for y in (torch.empty(0, dtype=torch.int64), torch.full((3,), -100)):
        x = torch.zeros(len(y), 4, dtype=torch.float64, requires_grad=True)
        options = {"reduction": reduction}
        ours, theirs = mine.cross_entropy(x, y, **options), F.cross_entropy(x, y, **options)
        assert_same_with_gradients(ours, theirs, [x])


@each_reduction
@each_dtype
def test_linear_cross_entropy_of_bytes(spy, g, dtype, reduction):
    """Images as they are stored are read without a floating copy, and not by PyTorch."""
    images = torch.randint(0, 256, (50, 30), generator=g, dtype=torch.uint8)
    W = torch.randn(7, 30, generator=g, dtype=dtype).requires_grad_()
    y = torch.randint(0, 7, (50,), generator=g)
    ours = mine.linear_cross_entropy(images, W / 255, y, reduction=reduction)
    assert ours.dtype is dtype
    theirs = F.cross_entropy(F.linear(images.to(dtype), W / 255), y, reduction=reduction)
    assert_same_with_gradients(ours, theirs, [W])
    with torch.no_grad():
        assert_close(
            mine.linear_cross_entropy(images[0], W / 255, y[0]),
            F.cross_entropy(F.linear(images[0].to(dtype), W / 255), y[0]),
        )
    assert len(spy.calls) >= 2


def test_linear_cross_entropy_of_bytes_that_pytorch_computes(g):
    images, y = torch.randint(0, 256, (9, 3), generator=g, dtype=torch.uint8), LABELS[:1].expand(9)
    W = torch.randn(4, 3, generator=g, dtype=torch.float64)
    with left_to_pytorch("forward-mode"), torch.autograd.forward_ad.dual_level():
        loss = mine.linear_cross_entropy(images, W / 255, y)
    assert_close(loss, F.cross_entropy(F.linear(images.to(W.dtype), W / 255), y))


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
@pytest.mark.parametrize("bias", [False, True])
@each_reduction
@each_dtype
def test_linear_cross_entropy(spy, g, dtype, reduction, bias, soft):
    for n, d, c in [(1, 1, 1), (7, 3, 2), (40, 20, 10), (65, 9, 130)]:
        for smoothing, weighted in itertools.product([0.0, 0.3], [False, True]):
            _, y, weight = problem(g, dtype, (n, c), soft=soft)
            X, W, b = (torch.randn(s, generator=g, dtype=dtype) for s in ((n, d), (c, d), (c,)))
            layer = [t.requires_grad_() for t in ([X, W, b] if bias else [X, W])]
            options = {
                "weight": weight if weighted else None,
                "reduction": reduction,
                "label_smoothing": smoothing,
            }
            ours = mine.linear_cross_entropy(X, W, y, linear_bias=b if bias else None, **options)
            theirs = F.cross_entropy(F.linear(X, W, b if bias else None), y, **options)
            assert_same_with_gradients(ours, theirs, layer)
    assert set(spy.names) == (
        {"linear_cross_entropy", "linear_cross_entropy_with_grad"}
        if reduction == "none"
        else {"linear_cross_entropy_with_grad"}
    )


@pytest.mark.parametrize("layout", set(LAYOUTS) - {"expanded"})
@each_reduction
def test_linear_cross_entropy_of_any_layout(spy, g, layout, reduction):
    y = torch.randint(0, 5, (12,), generator=g)
    X, W = (
        LAYOUTS[layout](torch.randn(s, generator=g, dtype=torch.float64)).detach().requires_grad_()
        for s in ((12, 7), (5, 7))
    )
    ours = mine.linear_cross_entropy(X, W, y, reduction=reduction)
    theirs = F.cross_entropy(F.linear(X, W), y, reduction=reduction)
    assert_same_with_gradients(ours, theirs, [X, W])


@each_reduction
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
def test_linear_cross_entropy_without_a_batch(spy, g, reduction, soft):
    X, W = (torch.randn(s, generator=g, requires_grad=True) for s in ((7,), (5, 7)))
    y = torch.rand(5, generator=g) if soft else torch.tensor(3)
    ours = mine.linear_cross_entropy(X, W, y, reduction=reduction)
    assert_same_with_gradients(
        ours, F.cross_entropy(F.linear(X, W), y, reduction=reduction), [X, W]
    )


@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 1, 0)])
@each_reduction
def test_only_the_gradients_that_are_wanted(spy, g, wanted, reduction):
    shapes = (12, 7), (5, 7), (5,)
    layer = [torch.randn(s, generator=g).requires_grad_(bool(w)) for s, w in zip(shapes, wanted)]  # noqa: B905
    X, W, b = layer
    y = torch.randint(0, 5, (12,), generator=g)
    ours = mine.linear_cross_entropy(X, W, y, linear_bias=b, reduction=reduction)
    theirs = F.cross_entropy(F.linear(X, W, b), y, reduction=reduction)
    assert_same_with_gradients(ours, theirs, [t for t in layer if t.requires_grad])
    assert spy.calls[-1][2]["with_dX"] is bool(wanted[0])


def test_ignore_index_of_linear_cross_entropy(spy, g):
    X, W = torch.randn(6, 4, generator=g), torch.randn(3, 4, generator=g)
    y = torch.tensor([0, 1, 2, 1, -100, 1])
    ours = mine.linear_cross_entropy(X, W, y.clamp(min=0), ignore_index=1)
    assert_close(ours, F.cross_entropy(F.linear(X, W), y.clamp(min=0), ignore_index=1))
    assert_close(mine.linear_cross_entropy(X, W, y), F.cross_entropy(F.linear(X, W), y))


# Autograd -----------------------------------------------------------------------------------------


@softmax_like
def test_gradcheck_of_softmax(spy, g, softmax_way, name):
    x = torch.randn(2, 3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    for dim in (0, 1, -1):
        f = lambda x, dim=dim: getattr(mine, name)(x, dim)  # noqa: E731
        assert torch.autograd.gradcheck(f, x, nondet_tol=0, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(f, x, nondet_tol=0)


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
@each_reduction
def test_gradcheck_of_cross_entropy(spy, g, reduction, soft):
    for shape in [(5,), (6, 4), (2, 3, 4)]:
        x, y, weight = problem(g, torch.float64, shape, soft=soft)
        for options in ({}, {"weight": weight, "label_smoothing": 0.2}):
            f = lambda x: mine.cross_entropy(x, y, reduction=reduction, **options)  # noqa: B023, E731
            assert torch.autograd.gradcheck(f, x, nondet_tol=0)


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
@each_reduction
def test_gradcheck_of_linear_cross_entropy(spy, g, reduction, soft):
    _, y, weight = problem(g, torch.float64, (6, 4), soft=soft)
    shapes = (6, 3), (4, 3), (4,)
    layer = [torch.randn(s, generator=g, dtype=torch.float64, requires_grad=True) for s in shapes]
    for options in ({}, {"weight": weight, "label_smoothing": 0.2}):

        def f(X, W, b, options=options):
            return mine.linear_cross_entropy(X, W, y, linear_bias=b, reduction=reduction, **options)

        assert torch.autograd.gradcheck(f, layer, nondet_tol=0)


def losses(x, y):
    """The four ways of a loss, by name."""
    W = torch.eye(x.shape[1], dtype=x.dtype)
    for reduction in ("mean", "none"):
        yield mine.cross_entropy(x, y, reduction=reduction).sum()
        yield mine.linear_cross_entropy(x, W, y, reduction=reduction).sum()


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("leaf", [True, False])
def test_second_derivatives_are_an_error_and_not_a_zero(spy, g, alone, leaf):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    for way in range(4):
        z = x if leaf else x * x
        loss = list(losses(z, y))[way]
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        (right,) = torch.autograd.grad(
            F.cross_entropy(z, y, reduction=["mean", "sum"][way // 2]), x
        )
        assert_close(first, right)
        total = first.sum() + (0 if alone else (x**2).sum())
        with pytest.raises(RuntimeError, match="the losses have no second derivatives"):
            torch.autograd.grad(total, x, retain_graph=True)
        with pytest.raises(RuntimeError, match="the losses have no second derivatives"):
            total.backward()


def test_backward_twice_gives_the_same_bits(spy, g):
    x, y, _ = problem(g, torch.float32, (6, 4), soft=False)
    for loss in losses(x, y):
        first, second = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
        assert torch.equal(first, second)
        assert first.data_ptr() != second.data_ptr() or loss.dim() == 0
    for loss in losses(x, y):
        x.grad = None
        loss.backward(retain_graph=True)
        once = x.grad.clone()
        loss.backward()
        assert torch.equal(x.grad, once * 2)
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()


def test_the_gradient_is_not_copied_into_the_parameter(spy, g):
    """Autograd takes a gradient over if nobody else holds it and it has the parameter's layout."""
    W = torch.nn.Parameter(torch.randn(50, 30, generator=g))
    X, y = torch.randn(20, 30, generator=g), torch.randint(0, 50, (20,), generator=g)
    loss = mine.linear_cross_entropy(X, W, y)
    held = loss.grad_fn.saved_tensors[1].data_ptr()
    loss.backward()
    assert W.grad.data_ptr() == held
    assert W.grad.is_contiguous()


def test_the_gradient_comes_with_the_loss(spy, g):
    x, y, _ = problem(g, torch.float32, (6, 4), soft=False)
    loss = mine.cross_entropy(x, y)
    assert spy.names == ["cross_entropy_with_grad"]
    loss.backward()
    assert len(spy.calls) == 1
    spy.calls.clear()
    mine.cross_entropy(x, y, reduction="none").sum().backward()
    assert spy.names == ["cross_entropy", "cross_entropy_with_grad"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(spy, g, mode):
    x, y, _ = problem(g, torch.float32, (6, 4), soft=False)
    W = torch.eye(4, requires_grad=True)
    expected = [F.cross_entropy(x, y), F.softmax(x, 1), F.log_softmax(x, 1)]
    with mode():
        found = [
            mine.cross_entropy(x, y),
            mine.softmax(x, 1),
            mine.log_softmax(x, 1),
            mine.linear_cross_entropy(x, W, y),
        ]
        assert mine.cross_entropy(x + 0, y).item() == found[0].item()
    for a, e in zip(found, [*expected, expected[0]], strict=True):
        assert_close(a, e.detach())
        assert not a.requires_grad
    assert not [name for name in spy.names if name.endswith("with_grad")]


def test_logits_changed_in_place_after_a_reduced_loss(spy, g):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    z = x * 1
    loss = mine.cross_entropy(z, y)
    z.zero_()  # as after F.cross_entropy, which has no need of the logits any more
    assert_close(torch.autograd.grad(loss, x)[0], torch.autograd.grad(F.cross_entropy(x, y), x)[0])
    z = x * 1
    loss = mine.cross_entropy(z, y, reduction="none").sum()
    z.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def four_losses(m, x, W, y):
    """What may stand in a model, of some module's functions."""
    linear = getattr(m, "linear_cross_entropy", None) or (
        lambda x, W, y, **how: F.cross_entropy(F.linear(x, W), y, **how)
    )
    return (
        m.cross_entropy(m.softmax(3 * x, 1), y)
        + m.cross_entropy(m.log_softmax(2 * x, 1), y, reduction="none").sum()
        + linear(x * x, W, y)
        + linear(x + 1, W, y, reduction="none").sum()
    )


def by_hooks_on_gradients(f, x):
    z = x * 1
    z.register_hook(lambda grad: 2 * grad)
    loss = f(z)
    loss.register_hook(lambda grad: 3 * grad)
    return loss


def by_hooks_on_saved_tensors(f, x):
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.numpy(force=True).copy(), torch.from_numpy
    ):
        return f(x)


def checkpointed(reentrant):
    checkpoint = torch.utils.checkpoint.checkpoint
    return lambda f, x: checkpoint(f, x, use_reentrant=reentrant)


@pytest.mark.parametrize(
    "way",
    [
        by_hooks_on_gradients,
        by_hooks_on_saved_tensors,
        pytest.param(checkpointed(reentrant=True), id="reentrant checkpoint"),
        pytest.param(checkpointed(reentrant=False), id="checkpoint"),
    ],
)
def test_what_autograd_offers_beside_gradients(spy, g, softmax_way, way):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    W = torch.randn(4, 4, generator=g, dtype=torch.float64, requires_grad=True)
    found = []
    for m in (mine, F):
        for t in (x, W):
            t.grad = None
        way(lambda z, m=m: four_losses(m, z, W, y), x).backward()
        found.append((x.grad, W.grad))
    for a, e in zip(*found, strict=True):
        assert_close(a, e)
    assert spy.calls


def test_many_threads_at_once(spy, g, softmax_way):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    W = torch.randn(4, 4, generator=g, dtype=torch.float64, requires_grad=True)

    def gradient(_):
        return torch.autograd.grad(four_losses(mine, x, W, y), [x, W])

    right = torch.autograd.grad(four_losses(F, x, W, y), [x, W])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(gradient, range(40)):
            for a, e in zip(found, right, strict=True):
                assert_close(a, e)


def test_a_reduced_loss_keeps_the_gradient_and_not_the_logits(spy, g):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    z = x * 1
    held = weakref.ref(z)
    loss = mine.cross_entropy(z, y)
    del z
    assert held() is None
    # Nor does a loss that is done with stay, also where its gradient might be differentiated.
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    gone = weakref.ref(loss), weakref.ref(first)
    del loss, first
    assert [r() for r in gone] == [None, None]


def test_ignored_rows_have_no_gradient_whatever_their_logits(spy):
    x = torch.tensor([[np.nan, 1.0], [0.0, 0.0]], requires_grad=True)
    for reduction in REDUCTIONS:
        loss = mine.cross_entropy(x, torch.tensor([-100, 1]), reduction=reduction).sum()
        assert loss.item() == pytest.approx(np.log(2))
        assert torch.autograd.grad(loss, x)[0].tolist() == [[0, 0], [0.5, -0.5]]


def test_training_goes_the_same_way(spy, g):
    X, y = torch.randn(64, 12, generator=g), torch.randint(0, 5, (64,), generator=g)
    weights = []
    for module in (mine, torch.nn):
        torch.manual_seed(3)
        layer, criterion = torch.nn.Linear(12, 5), module.CrossEntropyLoss(label_smoothing=0.1)
        optimiser = torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
        for _ in range(20):
            optimiser.zero_grad()
            criterion(layer(X), y).backward()
            optimiser.step()
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


# What the kernels are given -----------------------------------------------------------------------


def test_tensors_are_viewed_and_not_copied(spy, g):
    X, W, b = (torch.randn(s, generator=g).requires_grad_() for s in ((6, 4), (3, 4), (3,)))
    y, weight = torch.randint(0, 3, (6,), generator=g), torch.rand(3, generator=g)
    mine.linear_cross_entropy(X, W, y, linear_bias=b, weight=weight)
    _, args, kwargs = spy.calls[-1]
    for array, tensor in zip((*args, kwargs["weight"]), (X, W, b, y, weight), strict=True):
        assert array.ctypes.data == tensor.data_ptr()
    assert args[1].shape == (4, 3)
    assert args[1].flags.f_contiguous
    x = torch.randn(6, 3, generator=g, requires_grad=True)
    mine.cross_entropy(x, y)
    mine.softmax(x, 1)
    for _, args, _ in spy.calls[1:]:
        assert args[0].ctypes.data == x.data_ptr()


def test_pytorchs_number_of_threads_is_kept_to(spy, sx, g):
    y = torch.zeros(6, dtype=torch.int64)
    x = torch.randn(6, 4, generator=g, requires_grad=True)
    before = torch.get_num_threads()
    try:
        for ours, theirs in [(1, 2), (2, 1), (2, 2)]:
            sx.set_num_threads(ours)
            torch.set_num_threads(theirs)
            spy.threads.clear()
            mine.cross_entropy(x, y, reduction="none").sum().backward()
            mine.softmax(x, 1)
            assert spy.threads == [min(ours, theirs)] * 3
            assert sx.get_num_threads() == ours
    finally:
        torch.set_num_threads(before)


class Batches(torch.utils.data.Dataset):
    """Losses and gradients large enough for threads, computed by whoever asks."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        x = torch.randn(70_000, 10, generator=torch.Generator().manual_seed(i)).requires_grad_()
        loss = mine.cross_entropy(x, torch.zeros(70_000, dtype=torch.int64))
        loss.backward()
        return loss.detach(), x.grad[:5], mine.softmax(x.detach(), 1)[:5]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_in_a_dataloaders_worker(sx, start):
    before = torch.get_num_threads()
    sx.set_num_threads(2)
    torch.set_num_threads(2)
    here = [[part.clone() for part in Batches()[i]] for i in range(3)]  # the parent has threads
    loader = torch.utils.data.DataLoader(
        Batches(), batch_size=None, num_workers=1, multiprocessing_context=start, timeout=120
    )
    torch.set_num_threads(before)
    for there, expected in zip(loader, here, strict=True):
        for a, e in zip(there, expected, strict=True):
            assert torch.equal(a, e)


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [4, -1])
@each_reduction
def test_labels_outside(spy, label, reduction):
    x, y = torch.zeros(3, 4, requires_grad=True), torch.tensor([0, label, 1])
    with pytest.raises(IndexError, match=f"label {label} at row 1"):
        mine.cross_entropy(x, y, reduction=reduction)
    with pytest.raises(IndexError, match=f"label {label} at row 1"):
        mine.linear_cross_entropy(x, torch.eye(4), y, reduction=reduction)


LABELS = torch.tensor([0, 3, 1])


def wrong_calls(m):
    """What does not fit together, by name; of the linear layer only where PyTorch has it."""
    x, y = torch.zeros(3, 4), LABELS
    yield "rows", lambda: m.cross_entropy(x, y[:2])
    yield "rows of many dimensions", lambda: m.cross_entropy(torch.zeros(3, 4, 2), y)
    yield "labels for one row", lambda: m.cross_entropy(x[0], y)
    yield "one label", lambda: m.cross_entropy(x, y[0])
    yield "a number of logits", lambda: m.cross_entropy(torch.tensor(1.0), y[0])
    yield "class weights", lambda: m.cross_entropy(x, y, torch.ones(3))
    yield "reduction", lambda: m.cross_entropy(x, y, reduction="average")
    yield "smoothing", lambda: m.cross_entropy(x, y, label_smoothing=1.5)
    yield "smoothing of words", lambda: m.cross_entropy(x, y, label_smoothing="much")
    yield "an index of probabilities", lambda: m.cross_entropy(x, x, ignore_index=1)
    yield "bools", lambda: m.cross_entropy(x, y.bool())
    yield "integers for probabilities", lambda: m.cross_entropy(x, torch.eye(4)[:3].long())
    yield "floats for labels", lambda: m.cross_entropy(x, y.float())
    yield "complex probabilities", lambda: m.cross_entropy(x, x.to(torch.complex64))
    if not hasattr(m, "linear_cross_entropy"):
        return
    yield "features", lambda: m.linear_cross_entropy(x, torch.ones(2, 3), y)
    yield "bias", lambda: m.linear_cross_entropy(x, torch.eye(4), y, linear_bias=x)
    yield "weights", lambda: m.linear_cross_entropy(x, torch.ones(4), y)
    yield "a batch of batches", lambda: m.linear_cross_entropy(x[None], torch.eye(4), y)
    yield "labels", lambda: m.linear_cross_entropy(x, torch.eye(4), y[:2])
    yield "label for a row", lambda: m.linear_cross_entropy(x[0], torch.eye(4), y)
    for i in (-100, 1):
        yield f"{i}", lambda i=i: m.linear_cross_entropy(x, torch.eye(4), x, ignore_index=i)
    module = (torch.nn if m is F else m).LinearCrossEntropyLoss
    yield "a module", lambda: module(3, 4, weight=torch.ones(3))
    yield "its smoothing", lambda: module(3, 4, label_smoothing=-1)


@pytest.mark.parametrize("name", [name for name, _ in wrong_calls(F)])
def test_errors_are_pytorchs(spy, name):
    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)) as theirs:
        dict(wrong_calls(F))[name]()
    with pytest.raises(theirs.type) as ours:
        dict(wrong_calls(mine))[name]()
    assert ours.type is theirs.type


def test_what_only_pytorch_takes(spy):
    x = torch.zeros(0, 0, requires_grad=True)
    with left_to_pytorch("the kernels refuse its arguments"):
        ours = mine.cross_entropy(x, LABELS[:0], reduction="sum")
    assert_same_with_gradients(ours, F.cross_entropy(x, LABELS[:0], reduction="sum"), [x])
    mine._warned.clear()
    W = torch.zeros(0, 3, requires_grad=True)
    with left_to_pytorch("the kernels refuse its arguments"):
        ours = mine.linear_cross_entropy(torch.zeros(0, 3), W, LABELS[:0], reduction="sum")
    assert ours.item() == 0


@pytest.mark.parametrize("error", [TypeError, ValueError])
@pytest.mark.parametrize("wanted", [False, True])
def test_a_fault_of_ours_is_no_refusal(monkeypatch, error, wanted):
    """It comes out, instead of leaving the call to PyTorch."""

    def faulty(*args, **options):
        raise error("a fault")

    for name in ("cross_entropy", "linear_cross_entropy"):
        monkeypatch.setattr(softmax_ext.kernels, name, faulty, raising=False)
        monkeypatch.setattr(softmax_ext.kernels, f"{name}_with_grad", faulty, raising=False)
    x = torch.zeros(3, 4, requires_grad=wanted)
    for call in (
        lambda: mine.cross_entropy(x, LABELS),
        lambda: mine.linear_cross_entropy(x, torch.eye(4), LABELS),
    ):
        with pytest.raises(error, match="^a fault$"):
            call()


def test_a_smoothing_below_0(spy):
    for call in (
        lambda: mine.cross_entropy(torch.zeros(3, 4), LABELS, label_smoothing=-0.1),
        lambda: mine.linear_cross_entropy(
            torch.zeros(3, 4), torch.eye(4), LABELS, label_smoothing=-0.1
        ),
    ):
        with pytest.raises(ValueError, match="^label_smoothing: -0.1 came"):
            call()


@pytest.mark.parametrize(
    ("legacy", "reduction"),
    [
        ({"size_average": True}, "mean"),
        ({"size_average": False}, "sum"),
        ({"reduce": False}, "none"),
        ({"reduce": True}, "mean"),
        ({"size_average": False, "reduce": False}, "none"),
        ({"size_average": False, "reduce": True}, "sum"),
    ],
)
def test_arguments_that_pytorch_has_given_up(spy, g, legacy, reduction):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    with pytest.warns(UserWarning, match=f"please use reduction='{reduction}' instead") as caught:
        ours = mine.cross_entropy(x, y, **legacy)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=f"please use reduction='{reduction}' instead"):
        theirs = F.cross_entropy(x, y, **legacy)
    assert_close(ours, theirs)
    with pytest.warns(UserWarning, match=f"please use reduction='{reduction}' instead"):
        assert mine.CrossEntropyLoss(**legacy).reduction == reduction


# What is left to PyTorch --------------------------------------------------------------------------


def left_to_pytorch(reason):
    return pytest.warns(UserWarning, match=f"leaves this call to PyTorch: .*{reason}")


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("convert", "reason"),
    [
        (lambda x: x.half(), "float16"),
        (lambda x: x.bfloat16(), "bfloat16"),
        (lambda x: x.as_subclass(Subclass), "Subclass"),
        (lambda x: x.to("meta"), "meta"),
    ],
)
def test_other_tensors(spy, g, convert, reason):
    x, y, _ = problem(g, torch.float32, (6, 4), soft=False)
    x, W = convert(x.detach()), convert(torch.eye(4))
    y = y.to(x.device)
    for ours, theirs in [
        (lambda: mine.softmax(x, 1), F.softmax(x, 1)),
        (lambda: mine.log_softmax(x, 1), F.log_softmax(x, 1)),
        (lambda: mine.cross_entropy(x, y), F.cross_entropy(x, y)),
        (lambda: mine.linear_cross_entropy(x, W, y), F.cross_entropy(F.linear(x, W), y)),
    ]:
        mine._warned.clear()
        with left_to_pytorch(reason):
            found = ours()
        assert type(found) is type(theirs)
        if x.device.type != "meta":
            assert torch.equal(found, theirs)
    assert not spy.calls


def test_other_layouts_and_numbers(spy):
    with left_to_pytorch("sparse_coo"), pytest.raises((RuntimeError, NotImplementedError)):
        mine.cross_entropy(torch.eye(3).to_sparse(), torch.tensor([0, 1, 2]))
    with left_to_pytorch("complex64"), pytest.raises(RuntimeError):
        mine.cross_entropy(torch.eye(3, dtype=torch.complex64), torch.tensor([0, 1, 2]))
    with left_to_pytorch("int64"), pytest.raises(RuntimeError):
        mine.cross_entropy(torch.eye(3, dtype=torch.int64), torch.tensor([0, 1, 2]))
    x = torch.zeros(2, 3)
    with left_to_pytorch("several floating dtypes"):
        found = mine.cross_entropy(x, x.double().softmax(1))
    assert found.dtype == torch.float64
    assert not spy.calls


def test_one_warning_for_each_reason(spy):
    x = torch.zeros(2, 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            mine.softmax(x.half(), 1)
            mine.softmax(x.bfloat16(), 1)
            mine.log_softmax(x.half(), 1)
    assert len(caught) == 2
    assert {w.filename for w in caught} == {__file__}


@pytest.mark.parametrize("which", ["target", "weight"])
def test_gradients_with_respect_to_probabilities_and_weights(spy, g, which):
    x, y, weight = problem(g, torch.float64, (6, 4), soft=True)
    wanted = {"target": y, "weight": weight}[which].requires_grad_()
    what = {"target": "the target", "weight": "the class weights"}[which]
    with left_to_pytorch(what):
        ours = mine.cross_entropy(x, y, weight)
    assert_same_with_gradients(ours, F.cross_entropy(x, y, weight), [x, wanted])
    mine._warned.clear()
    W = torch.eye(4, dtype=torch.float64)
    with left_to_pytorch(what):
        ours = mine.linear_cross_entropy(x, W, y, weight=weight)
    assert_same_with_gradients(ours, F.cross_entropy(x, y, weight), [x, wanted])
    with torch.no_grad():
        mine.cross_entropy(x, y, weight)
    assert spy.names == ["cross_entropy"]


def test_weights_of_more_dimensions(spy, g):
    X, W = torch.randn(6, 4, generator=g), torch.randn(3, 2, 4, generator=g, requires_grad=True)
    b, y = torch.randn(3, 2, generator=g), torch.randint(0, 3, (6, 2), generator=g)
    with left_to_pytorch("more than two dimensions"):
        ours = mine.linear_cross_entropy(X, W, y, linear_bias=b)
    logits = (X @ W.reshape(6, 4).T + b.flatten()).reshape(6, 3, 2)
    assert_same_with_gradients(ours, F.cross_entropy(logits, y), [W])


def test_a_pytorch_without_linear_cross_entropy(spy, g, monkeypatch):
    monkeypatch.delattr(F, "linear_cross_entropy", raising=False)
    X, W = torch.randn(6, 4, generator=g), torch.randn(3, 2, 4, generator=g, requires_grad=True)
    b, y = torch.randn(3, 2, generator=g), torch.randint(0, 3, (6, 2), generator=g)
    weight = torch.rand(3, generator=g)
    for ignored in (None, 1):
        logits = (X @ W.reshape(6, 4).T + b.flatten()).reshape(6, 3, 2)
        mine._warned.clear()
        with left_to_pytorch("more than two dimensions"):
            ours = mine.linear_cross_entropy(
                X, W, y, linear_bias=b, weight=weight, ignore_index=ignored, label_smoothing=0.1
            )
        theirs = F.cross_entropy(
            logits, y, weight, ignore_index=ignored or -100, label_smoothing=0.1
        )
        assert_same_with_gradients(ours, theirs, [W])


def test_torch_func(spy, g):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    x = x.detach()
    f, right = (lambda x, m=m: m.cross_entropy(x, y) for m in (mine, F))
    with left_to_pytorch("torch.func"):
        assert_close(torch.func.grad(f)(x), torch.func.grad(right)(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of jit
        assert_close(torch.func.hessian(f)(x), torch.func.hessian(right)(x))
    assert_close(torch.vmap(lambda r: mine.softmax(r, 0))(x), F.softmax(x, 1))
    assert not spy.calls


def test_forward_mode(spy, g):
    forward = torch.autograd.forward_ad
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    with forward.dual_level():
        dual = forward.make_dual(x.detach(), torch.ones_like(x) * x.detach())
        for name, args in [("softmax", (1,)), ("cross_entropy", (y,))]:
            mine._warned.clear()
            with left_to_pytorch("forward-mode"):
                ours = forward.unpack_dual(getattr(mine, name)(dual, *args))
            theirs = forward.unpack_dual(getattr(F, name)(dual, *args))
            assert_close(ours.tangent, theirs.tangent)


def test_many_vectors_at_once(spy, g):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    factors = torch.randn(3, generator=g, dtype=torch.float64)
    found, right = (
        torch.autograd.grad(m.cross_entropy(x, y), x, factors, is_grads_batched=True)[0]
        for m in (mine, F)
    )
    assert_close(found, right)
    for loss in (
        mine.cross_entropy(x, y, reduction="none"),
        mine.linear_cross_entropy(x, torch.eye(4).double(), y, reduction="none"),
    ):
        with pytest.raises(RuntimeError, match="one gradient at a time"):
            torch.autograd.grad(loss, x, torch.ones(3, 6).double(), is_grads_batched=True)


def test_compiled_code(spy, g):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="eager")
    def f(x):
        return mine.cross_entropy(mine.softmax(x, 1), y)

    with left_to_pytorch("compiled"):
        ours = f(x)
    assert_same_with_gradients(ours, F.cross_entropy(F.softmax(x, 1), y), [x])
    assert not spy.calls


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_traced_code(spy, g):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    x = x.detach()
    with left_to_pytorch("traced"):
        f = torch.jit.trace(lambda x: mine.cross_entropy(x, y), x, check_trace=False)
    assert_close(f(2 * x), F.cross_entropy(2 * x, y))


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.criterion = mine.CrossEntropyLoss(weight=torch.tensor([1.0, 0.5, 2.0, 1.0]).double())

    def forward(self, x, y):
        return self.criterion(mine.softmax(x, 1), y)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (lambda network, x, y: torch.fx.symbolic_trace(network), "Proxy"),
        (lambda network, x, y: torch.export.export(network, (x, y)).module(), "compiled"),
    ],
    ids=["fx", "export"],
)
def test_captured_code_is_pytorchs(spy, g, capture, reason):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    x, y = x.detach(), y.clamp(min=0)
    with left_to_pytorch(reason):
        captured = capture(Network(), x, y)
    assert not spy.calls
    assert_close(captured(x + 1, y), Network()(x + 1, y))


def test_autocast_and_dispatch_modes(spy, g):
    X, W = torch.randn(6, 4, generator=g), torch.randn(3, 4, generator=g)
    y = torch.randint(0, 3, (6,), generator=g)
    with torch.autocast("cpu", torch.bfloat16):
        with left_to_pytorch("autocast"):
            ours = mine.linear_cross_entropy(X, W, y)
        assert torch.equal(ours, F.cross_entropy(F.linear(X, W), y))
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, left_to_pytorch("dispatch mode"):
        mine.linear_cross_entropy(X, W, y)
    assert counter.get_total_flops() == 2 * 6 * 4 * 3


def test_a_default_device_changes_nothing(spy, g):
    x, y, _ = problem(g, torch.float64, (6, 4), soft=False)
    with torch.device("meta"):
        assert mine.cross_entropy(x, y).device.type == "cpu"
    assert len(spy.calls) == 1


# Modules ------------------------------------------------------------------------------------------


@each_reduction
def test_cross_entropy_loss(spy, g, reduction):
    x, y, weight = problem(g, torch.float64, (9, 5), soft=False)
    options = {"ignore_index": 2, "reduction": reduction, "label_smoothing": 0.2}
    y = y.clamp(min=0)
    ours, theirs = (m.CrossEntropyLoss(weight, **options) for m in (mine, torch.nn))
    assert isinstance(ours, torch.nn.CrossEntropyLoss)
    assert repr(ours) == repr(theirs)
    assert_same_with_gradients(ours(x, y), theirs(x, y), [x])
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    for again in (
        pickle.loads(pickle.dumps(copy.deepcopy(ours))),
        torch.load(file, weights_only=False),
    ):
        assert type(again) is mine.CrossEntropyLoss
        assert_close(again(x, y), theirs(x, y))
    assert ours.double().weight.dtype == torch.float64


@pytest.mark.parametrize("bias", [False, True])
@each_reduction
def test_linear_cross_entropy_loss(spy, g, reduction, bias):
    _, y, weight = problem(g, torch.float64, (9, 5), soft=False)
    X = torch.randn(9, 4, generator=g, dtype=torch.float64)
    options = {"reduction": reduction, "label_smoothing": 0.2, "weight": weight}
    head = mine.LinearCrossEntropyLoss(4, 5, bias=bias, dtype=torch.float64, **options)
    theirs = F.cross_entropy(head.linear(X), y, **options)
    assert_same_with_gradients(head(X, y), theirs, list(head.parameters()))
    again = pickle.loads(pickle.dumps(copy.deepcopy(head)))
    assert torch.equal(again(X, y), head(X, y))
    assert "num_classes=5" in repr(head)
    assert spy.calls


@needs_linear
def test_state_is_exchangeable_with_pytorchs(spy, g):
    X = torch.randn(6, 4, generator=g)
    for shape in ((), (2,)):
        options = {"out_features": shape, "bias": True, "weight": torch.rand(3, generator=g)}
        ours, theirs = (m.LinearCrossEntropyLoss(4, 3, **options) for m in (mine, torch.nn))
        assert repr(ours).replace(" ", "") == repr(theirs).replace(" ", "")
        y = torch.randint(0, 3, (6, *shape), generator=g)
        for a, b in ((ours, theirs), (theirs, ours)):
            b.load_state_dict(a.state_dict())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the second shape is left to PyTorch
                assert_close(ours(X, y), theirs(X, y))
