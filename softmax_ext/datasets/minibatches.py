"""Minibatches for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arguments import integer_between


def minibatches(
    X: Any,
    y: Any,
    batch_size: int,
    *,
    seed: int | np.random.Generator | None = 0,
    shuffle: bool = True,
) -> Iterator[tuple[Any, Any]]:
    """Go once through the examples in random order, a minibatch at a time.

    Parameters
    ----------
    X : array_like or CSR matrix, shape (N, ...)
        Examples.
    y : array_like, shape (N, ...)
        Their targets.
    batch_size : int
        Examples in a minibatch; the last one has what remains.
    seed : int, numpy.random.Generator or None, default 0
        The same number gives the same order. A generator gives a new order at each call,
        reproducible from the generator's own seed; None gives one that is not reproducible.
    shuffle : bool, default True
        False goes through the examples in their own order.

    Returns
    -------
    iterator of (X_batch, y_batch)
        Arrays (a CSR matrix for CSR). With ``shuffle`` copies, without it views.

    Raises
    ------
    ValueError
        If X or y is a scalar, their lengths differ, or ``batch_size`` is less than 1. Raised
        by the call itself, before the first minibatch.
    TypeError
        If ``batch_size`` is not an integer.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_ext.datasets import minibatches
    >>> X, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> [len(y_batch) for X_batch, y_batch in minibatches(X, y, 2)]
    [2, 2, 1]
    """
    # Sparse matrices stay as they are. All else becomes an array: a pandas Series, say, would
    # look the shuffled positions up as labels. (asanyarray: a masked array keeps its mask.)
    X = X if hasattr(X, "indptr") else np.asanyarray(X)
    y = np.asanyarray(y)
    batch_size = integer_between("batch_size", batch_size, 1)
    for name, array in (("X", X), ("y", y)):
        if not array.shape:
            raise ValueError(f"{name}: a scalar came, an array of examples was wanted")
    n = X.shape[0]
    if y.shape[0] != n:
        raise ValueError(
            f"y: {y.shape[0]} targets came, {n} were wanted, one for each example in X"
        )
    order = np.random.default_rng(seed).permutation(n) if shuffle else None

    def batches() -> Iterator[tuple[Any, Any]]:
        for start in range(0, n, batch_size):
            batch = slice(start, start + batch_size)
            rows = batch if order is None else order[batch]
            yield X[rows], y[rows]

    return batches()
