"""Gradients against finite differences of the same kernels' losses, in float64.

Central differences of fourth order, with steps that balance their error (about 1e-13 relative)
against rounding; every entry of every gradient is compared.
"""

from __future__ import annotations

import numpy as np
import pytest
from problems import Case, Problem, deck

RTOL, ATOL = 5e-6, 1e-9
STEP = 1e-3


def differences(f, x):
    """The gradient of the number f() with respect to the array x, which f reads."""
    gradient = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        here, values = x[i], []
        for k in (-2, -1, 1, 2):
            x[i] = here + k * STEP
            values.append(f())
        x[i] = here
        gradient[i] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * STEP)
    return gradient


OPTIONS = deck(
    7,
    24,
    soft=[False, True],
    reduction=["mean", "sum", "none"],
    weight=[False, True],
    sample_weight=[False, True],
    ignore=[None, -100, 1],
    smoothing=[0.0, 0.1, 1.0],
    bias=[True, True, False],
    x_scale=[1.0, -0.5],
    rows=[False, True],
    c=[2, 3, 5, 17],
)
CASES = [
    Case(n=6, d=5, seed=i, **options | ({"ignore": None} if options["soft"] else {}))
    for i, options in enumerate(OPTIONS)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_of_the_linear_layer(kernels, case):
    p = Problem(case)
    if case.rows:
        p.rows = np.array([4, 1, -1, 4, 0])  # one comes twice, one not at all
    result = kernels.linear_cross_entropy_with_grad(**p.gradient)

    def loss():
        return np.sum(kernels.linear_cross_entropy(**p.picked))

    np.testing.assert_allclose(result.dW, differences(loss, p.W), RTOL, ATOL)
    if case.bias:
        np.testing.assert_allclose(result.db, differences(loss, p.b), RTOL, ATOL)
    dX = result.dX
    if case.rows:
        dX = np.zeros_like(p.X)
        np.add.at(dX, p.rows, result.dX)
    np.testing.assert_allclose(dX, differences(loss, p.X), RTOL, ATOL)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_of_the_logits(kernels, case):
    p = Problem(case)
    logits = kernels.linear(**p.linear)
    result = kernels.cross_entropy_with_grad(logits, p.target, **p.options)

    def loss():
        return np.sum(kernels.cross_entropy(logits, p.target, **p.options))

    np.testing.assert_allclose(result.dlogits, differences(loss, logits), RTOL, ATOL)


@pytest.mark.parametrize("shape", [(4,), (2, 4, 3), (2, 3, 2, 2)], ids=str)
def test_gradient_of_logits_with_other_axes(kernels, shape, rng):
    logits = rng.normal(size=shape)
    rows_shape = shape[:1] + shape[2:] if len(shape) > 1 else ()
    c = shape[min(1, len(shape) - 1)]
    target, weight = rng.integers(0, c, rows_shape), rng.uniform(0.1, 2, c)

    def loss():
        return kernels.cross_entropy(logits, target, weight=weight)

    result = kernels.cross_entropy_with_grad(logits, target, weight=weight)
    np.testing.assert_allclose(result.dlogits, differences(loss, logits), RTOL, ATOL)


def test_the_gradient_of_logsumexp_is_softmax(kernels, rng):
    x = rng.normal(size=(3, 7))
    gradient = differences(lambda: kernels.logsumexp(x).sum(), x)
    np.testing.assert_allclose(kernels.softmax(x), gradient, RTOL, ATOL)
