"""The weights: from scikit-learn's form to the kernels' and back.

scikit-learn's coef_ is (C, D), and for two classes one row, that of the second: the first one's are
0. The kernels' W is (D, C), always with a column for each class.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Array: TypeAlias = NDArray[Any]


def as_stored(coef: Any, intercept: _Array) -> tuple[_Array, _Array]:
    """Return coef_, which may be sparse, as W (D, 1 or C), and intercept_."""
    dense = coef.toarray() if hasattr(coef, "toarray") else coef
    return dense.T, np.broadcast_to(intercept, len(dense))


def of_all_classes(coef: Any, intercept: _Array) -> tuple[_Array, _Array]:
    """Return W (D, C) and b, with a column of zeros for the first of two classes."""
    W, b = as_stored(coef, intercept)
    if W.shape[1] > 1:
        return W, b
    return np.concatenate([np.zeros_like(W), W], axis=1), np.append(np.zeros_like(b), b)


def of_last_fit(
    coef: Any, intercept: _Array, n_features: int, n_classes: int, dtype: Any
) -> tuple[_Array, _Array]:
    """Return W and b to go on from.

    For two classes they are -w/2 and w/2, which has the binomial's gradient, and a penalty in
    proportion to that of w: half of ||w||^2, and the whole of |w|_1.
    """
    W, b = of_all_classes(coef, intercept)
    if W.shape != (n_features, n_classes):
        raise ValueError(
            f"coef_: that of a fit of {W.shape[0]} features and {W.shape[1]} classes came, one of "
            f"{n_features} and {n_classes} was wanted for X and y"
        )
    if n_classes == 2:
        W, b = W - W.mean(axis=1, keepdims=True), b - b.mean()
    W = np.array(W, dtype, order="C")
    return W, b.astype(W.dtype)


def scikit_learns_form(W: _Array, b: _Array | None) -> tuple[_Array, _Array]:
    """Return W (D, C) and b as coef_ and intercept_."""
    if b is None:
        b = np.zeros(W.shape[1], W.dtype)
    if W.shape[1] == 2:
        W, b = W[:, 1:] - W[:, :1], b[1:] - b[:1]
    return np.array(W.T, order="C"), b.copy()
