"""Every memory layout of inputs and results up to four axes: the same bits, and no input touched.

A case is an array of given values whose axes lie in memory in any order, plainly, with gaps, or
backwards, and that NumPy says is read-only; what is compared is the memory behind it. Results go
to new arrays and to `out` in every order of its axes.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import softmax_ext.special
from softmax_ext import reference

SHAPE = (2, 3, 4, 2)
VALUES = np.random.default_rng(5).normal(0, 3, SHAPE)
TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-13}
STEPS = {"plain": slice(None), "gaps": slice(None, None, 2), "backwards": slice(None, None, -1)}


def values_of(ndim, dtype="float64"):
    return VALUES[(...,) + (0,) * (4 - ndim)].astype(dtype)


def every_axis(ndim):
    """Every set of axes."""
    return [a for k in range(ndim + 1) for a in itertools.combinations(range(ndim), k)]


def arrangement(values, order, step="plain"):
    """The values in new memory with the axes in an order, and that memory."""
    factor = 2 if step == "gaps" else 1
    memory = np.full([factor * values.shape[i] for i in order], 7, values.dtype)
    view = memory[(STEPS[step],) * values.ndim + (...,)].transpose(np.argsort(order))
    view[...] = values
    return view, memory


def arrangements(values, steps=STEPS):
    """(view, memory) for every order and step."""
    for order in itertools.permutations(range(values.ndim)):
        for step in steps:
            view, memory = arrangement(values, order, step)
            view.flags.writeable = False
            yield view, memory


def broadcasts(values):
    """Views that repeat their memory along each axis in turn."""
    for axis in range(values.ndim):
        memory = values.take([0], axis)
        yield np.broadcast_to(memory, values.shape), memory


def outs(shape, dtype):
    return [
        arrangement(np.zeros(shape, dtype), order)[0]
        for order in itertools.permutations(range(len(shape)))
    ]


def assert_same(actual, expected):
    assert actual.dtype == expected.dtype
    assert actual.tobytes() == expected.tobytes()  # both in C order, whatever the memory


def assert_near(actual, expected):
    rtol = TOLERANCE[np.asarray(expected).dtype.name]
    np.testing.assert_allclose(actual, expected, rtol, rtol)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_softmax(kernels, ndim, name, dtype):
    f, values = getattr(kernels, name), values_of(ndim, dtype)
    results = outs(values.shape, dtype)
    for axes in every_axis(ndim):
        expected = f(values.copy(), axes)
        assert_near(expected, getattr(reference, name)(values, axes))
        for x, memory in arrangements(values):
            before = memory.tobytes()
            assert_same(f(x, axes), expected)
            for out in results:
                out.fill(np.nan)
                assert f(x, axes, out=out) is out
                assert_same(out, expected)
            assert memory.tobytes() == before
        for x, memory in broadcasts(values):
            before = memory.tobytes()
            repeated = f(x.copy(), axes)
            for out in (None, *results):
                assert_same(f(x, axes, out=out), repeated)
            assert memory.tobytes() == before


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_softmax_over_its_own_input(kernels, ndim, name):
    """In place, and into a view that begins a row of the memory later."""
    f, values = getattr(kernels, name), values_of(ndim)
    for axes in every_axis(ndim):
        expected = f(values, axes)
        for order in itertools.permutations(range(ndim)):
            x, _ = arrangement(values, order)
            assert_same(f(x, axes, out=x), expected)
            memory = np.zeros([values.shape[i] + (i == order[0]) for i in order])
            x, out = (part.transpose(np.argsort(order)) for part in (memory[:-1], memory[1:]))
            x[...] = values
            assert_same(f(x, axes, out=out), expected)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_sums_over_axes(kernels, ndim, dtype):
    values = values_of(ndim, dtype)
    p = reference.softmax(values, None)
    q = np.ascontiguousarray(p[::-1])
    for axes in every_axis(ndim):
        expected = kernels.logsumexp(values, axes)
        assert_near(expected, reference.logsumexp(values, axes))
        for x, memory in arrangements(values):
            before = memory.tobytes()
            assert_same(kernels.logsumexp(x, axes), expected)
            assert_same(kernels.logsumexp(x, axes, keepdims=True).ravel(), expected.ravel())
            assert memory.tobytes() == before
        entropy, divergence = kernels.entropy(p, axes), kernels.kl_divergence(p, q, axes)
        assert_near(entropy, reference.entropy(p, axes))
        assert_near(divergence, reference.kl_divergence(p, q, axes))
        for (x, memory), (y, other) in zip(
            arrangements(p), reversed(list(arrangements(q))), strict=True
        ):
            before = memory.tobytes(), other.tobytes()
            assert_same(kernels.entropy(x, axes), entropy)
            assert_same(kernels.kl_divergence(x, y, axes), divergence)
            assert (memory.tobytes(), other.tobytes()) == before


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_special(ndim):
    special, values = softmax_ext.special, values_of(ndim)
    p = reference.softmax(values, None)
    results = outs(values.shape, p.dtype)
    elementwise = {
        special.entr: (p,), special.rel_entr: (p, p[::-1]), special.kl_div: (p, p[::-1]),
    }  # fmt: skip
    for name in ("softmax", "log_softmax", "logsumexp"):
        f = getattr(special, name)
        for axes in every_axis(ndim):
            expected = getattr(reference, name)(values, axes)
            for x, memory in arrangements(values):
                before = memory.tobytes()
                assert_near(f(x, axes), expected)
                assert memory.tobytes() == before
    for f, arguments in elementwise.items():
        expected = f(*(a.copy() for a in arguments))
        for pairs in zip(*(arrangements(a) for a in arguments), strict=True):
            before = [memory.tobytes() for _, memory in pairs]
            for out in (None, *results):
                assert_same(f(*(x for x, _ in pairs), out), expected)
            assert [memory.tobytes() for _, memory in pairs] == before


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_cross_entropy(kernels, ndim, soft):
    f, values = kernels.cross_entropy_with_grad, values_of(ndim, "float32")
    axis = min(1, ndim - 1)
    target = reference.softmax(values[::-1], axis) if soft else values.argmax(axis)
    expected = f(values, target)
    wanted = reference.cross_entropy_with_grad(values, target)
    np.testing.assert_allclose(expected.loss, wanted.loss, TOLERANCE["float32"])
    assert_near(expected.dlogits, wanted.dlogits)
    targets = list(arrangements(np.asarray(target)))
    for (x, memory), (t, other) in zip(arrangements(values), itertools.cycle(targets)):
        before = memory.tobytes(), other.tobytes()
        assert kernels.cross_entropy(x, t) == f(x, t).loss == expected.loss
        for out in (None, *outs(values.shape, values.dtype)):
            result = f(x, t, out=out)
            assert out is None or result.dlogits is out
            assert_same(result.dlogits, expected.dlogits)
        assert (memory.tobytes(), other.tobytes()) == before


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_read_only_memory_maps(kernels, tmp_path, name):
    """What is written to one ends the process."""
    values = values_of(3)
    values.tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", values.dtype, "r", shape=values.shape)
    for order in itertools.permutations(range(3)):
        for axes in every_axis(3):
            f = getattr(kernels, name)
            assert_near(f(x.transpose(order), axes), f(values.transpose(order), axes))
