"""Several weight matrices side by side in one pass over X: the width of the product is its own."""

from __future__ import annotations

import numpy as np
import pytest
from problems import FLOATS
from scipy import sparse

from softmax_ext import _kernels
from softmax_ext.problem import GRADIENT

# (N, D, C, K): one slice and one block's size for any width; many slices; several blocks' sizes;
# a width that goes by rows with AVX2, of groups of fewer classes than lanes and of more; panels.
SHAPES = [
    (150, 20, 3, 4),
    (5000, 50, 10, 5),
    (300, 20, 40, 5),
    (600, 40, 7, 40),
    (150, 30, 64, 20),
    (300, 800, 100, 30),
]


def side_by_side(isa, X, W, b, y, c):
    target = _kernels.Target(y.reshape(-1, 1), True, c, None, None, -100, 0.0)
    dW, db = np.empty_like(W), np.empty_like(b)
    if sparse.issparse(X):
        examples = _kernels.Examples((X.data, X.indices, X.indptr), 1.0, target)
        p = _kernels.SparsePass(isa, GRADIENT, examples, W, b, None, 1)
        bounds = [0, X.shape[1] // 2, X.shape[1]]
        job = _kernels.SparseGradient(p, None, dW, db, 64, 1 << 16, bounds)
        losses, n_correct, *bad = job.run(2)
    else:
        examples = _kernels.Examples(X, 1.0, target)
        p = _kernels.LinearPass(isa, GRADIENT, examples, W, b, None, 1)
        losses, n_correct, *bad = p.run_gradient(2, None, dW, db, None)
    assert bad == [-1, -1]
    return losses, n_correct, dW, db


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matrices_side_by_side_are_as_they_are_alone(compiled, shape, dtype, form, rng):
    N, D, C, K = shape
    X = rng.normal(size=(N, D)).astype(dtype)
    if form == "sparse":
        X = sparse.csr_array(np.where(rng.random(X.shape) < 0.3, X, 0))
    y = rng.integers(0, C, N)
    y[::7] = -100
    Ws = [rng.normal(0, D**-0.5, (D, C)).astype(dtype) for _ in range(K)]
    bs = [rng.normal(size=C).astype(dtype) for _ in range(K)]
    losses, n_correct, dW, db = side_by_side(compiled.isa, X, np.hstack(Ws), np.hstack(bs), y, C)
    for k in range(K):
        alone = compiled.linear_cross_entropy_with_grad(X, Ws[k], bs[k], y, reduction="sum")
        part = slice(k * C, k * C + C)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(losses[k], alone.loss, rtol=20 * eps)
        assert abs(n_correct[k] - alone.n_correct) <= 1  # a tie, but for rounding
        np.testing.assert_allclose(db[part], alone.db, rtol=0, atol=20 * eps * N)
        if form == "sparse" or shape == SHAPES[0]:
            np.testing.assert_array_equal(dW[:, part], alone.dW)
        else:
            # Rows in blocks and slices of another size are sums in another order; and a row of
            # logits in vectors of classes is one in other chunks.
            most = np.abs(alone.dW).max()
            np.testing.assert_allclose(dW[:, part], alone.dW, rtol=0, atol=100 * eps * most)
