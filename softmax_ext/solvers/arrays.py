"""The objective of rows in memory: an array, or a matrix in CSR form."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from .. import _descent
from ..arguments import Array, Csr
from ..foreign import problem_of
from ..model import described
from ..results import LinearCrossEntropyResult
from .objective import Columns, Doubles, Evaluation, Floats, split
from .sample import ArraySample, moments

# A call costs some 3e6 multiplications of the kernels, however small it is.
CALL_COST = 3e6
# Points side by side in one product have so many columns at most: from there on nothing is gained,
# and of several thousand the products no longer fit into a cache.
WIDEST = 512
# Rows that are looked through for NaN and infinity at a time.
CHECKED_ROWS = 1024


class ArrayObjective:
    """The losses of the rows of X, by the fused kernel: one pass over X in each evaluation.

    Keeps the protocol `objective.Objective`.

    Parameters
    ----------
    X : ndarray (N, D) or Csr
        Never copied.
    y : ndarray (N,) or (N, C)
        Labels, which are checked; or probabilities.
    sample_weight : ndarray (N,) of float64, or None
        At least 0.
    n_classes, has_intercept, dtype
        Of the parameters.
    x_scale, label_smoothing, kernels
        As of `minimize`.
    """

    def __init__(
        self,
        X: Array | Csr,
        y: Array,
        *,
        sample_weight: Doubles | None,
        n_classes: int,
        has_intercept: bool,
        dtype: np.dtype[Any],
        x_scale: float,
        label_smoothing: float,
        kernels: Any,
    ) -> None:
        self.X = X
        self.sample_weight = sample_weight
        self.x_scale = x_scale
        self.has_intercept = has_intercept
        self.n_rows, self.n_features = X.shape
        self.shape = (self.n_features + has_intercept, n_classes)
        self.is_sparse = isinstance(X, Csr)
        self._values: Array = X.data if isinstance(X, Csr) else X
        self.cost = 2 * self._values.size * n_classes + CALL_COST
        self._y = y
        self.kernels = kernels
        self._problem = problem_of(
            kernels, X, y, n_classes, sample_weight=sample_weight,
            label_smoothing=label_smoothing, x_scale=x_scale,
        )  # fmt: skip
        self._problem.check()
        self._is_checked = False
        self._columns: Columns | None = None
        self._compute_in(dtype)

    def _compute_in(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._theta, self._gradient = np.empty(self.shape, dtype), np.empty(self.shape, dtype)
        # Of products with the Hessian, which few solvers ask for: the direction, the product.
        self._of_product: Array | None = None

    def in_float64(self) -> ArrayObjective:
        """Return the same sum, computed in float64."""
        wide = copy.copy(self)
        wide._compute_in(np.dtype(np.float64))
        return wide

    def value_and_gradient(self, theta: Doubles) -> Evaluation:
        """Evaluate at a point; see the protocol."""
        self._theta[...] = theta
        W, b = split(self._theta, self.has_intercept)
        out = split(self._gradient, self.has_intercept)
        result = self._problem.value_and_gradient(W, b, out=out, reduction="sum")
        if not self._is_checked:
            self._check(result)
            self._is_checked = True
        return Evaluation(float(result.loss), self._gradient, result.total_weight)

    def values_and_gradients(self, thetas: Sequence[Doubles]) -> list[Evaluation]:
        """Evaluate at several points, as many to a pass over X as is fast.

        Of data whose first evaluation need not be checked. Each gradient is an array of its own.
        """
        if len(thetas) == 1:
            return [self.value_and_gradient(thetas[0])]
        step = max(1, WIDEST // self.shape[1])
        results: list[Evaluation] = []
        for i in range(0, len(thetas), step):
            layers = [
                split(theta.astype(self.dtype), self.has_intercept)
                for theta in thetas[i : i + step]
            ]
            for found in self._problem.values_and_gradients(layers, reduction="sum"):
                parts = [found.dW] if found.db is None else [found.dW, found.db]
                results.append(Evaluation(float(found.loss), np.vstack(parts), found.total_weight))
        return results

    def hessian_product(self, theta: Doubles, V: Doubles) -> Floats:
        """Return the Hessian at a point times a direction; see the protocol."""
        if self._of_product is None:
            self._of_product = np.empty((2, *self.shape), self.dtype)
        direction, product = self._of_product
        self._theta[...], direction[...] = theta, V
        self._problem.hessian_product(
            *split(self._theta, self.has_intercept), *split(direction, self.has_intercept),
            out=split(product, self.has_intercept), reduction="sum",
        )  # fmt: skip
        return cast(Floats, product)

    def _check(self, result: LinearCrossEntropyResult) -> None:
        """Say what is wrong with the data if the first result shows that something is."""
        if result.total_weight == 0:
            weight = self.sample_weight
            raise ValueError(
                "y: no label that counts came, at least one was wanted"
                if weight is None or weight.any()
                else "sample_weight: zeros alone came, at least one weight above 0 was wanted"
            )
        if not (math.isfinite(result.loss) and np.isfinite(self._gradient).all()):
            self.refuse_not_finite()

    def refuse_not_finite(self) -> NoReturn:
        """Say what is wrong with rows whose loss or gradient is not finite at the first point."""
        values, step = self._values, CHECKED_ROWS
        if not all(np.isfinite(values[i : i + step]).all() for i in range(0, len(values), step)):
            raise ValueError("X: NaN or infinite elements came, finite ones were wanted")
        raise ValueError(
            "X: elements came with which the loss at W and b overflows, smaller ones were wanted"
        )

    def sample(self, n: int, *, by_length: bool) -> ArraySample:
        """Draw n rows by their weight; see the protocol."""
        return ArraySample(self, self._share(), n, by_length)

    def moments(self) -> tuple[Doubles, Doubles]:
        """Return the features' means and deviations; see the protocol."""
        mean, deviation = moments(self.X, self._share())
        return mean * self.x_scale, deviation * abs(self.x_scale)

    def _share(self) -> Doubles:
        """Return the weights of the rows, those that do not count without one, of sum 1."""
        weight = self.masses()
        total = weight.sum()
        return weight / total if total else weight

    def description(self) -> str:
        """Return what a resumed fit recognises the data by; X itself is not read."""
        arrays = (self._y, self.sample_weight)
        return described(self._values.dtype, self.X.shape, arrays)

    def masses(self) -> Doubles:
        """Return what the rows' weights times the sums of their targets are (N,)."""
        weight = np.ones(self.n_rows) if self.sample_weight is None else self.sample_weight.copy()
        if self._y.ndim == 1:
            weight[self._y < 0] = 0
        else:
            weight *= self._y.sum(axis=1)
        return weight

    def columns(self, features: NDArray[np.intp]) -> Columns:
        """Return some columns of X, times x_scale; those of CSR are sorted once."""
        X, dtype = self.X, self.dtype
        if not isinstance(X, Csr):
            dense = np.ascontiguousarray(X[:, features].T, dtype) * dtype.type(self.x_scale)
            begins = np.arange(len(features) + 1) * self.n_rows
            rows = np.tile(np.arange(self.n_rows, dtype=np.int32), len(features))
            return Columns(dense.reshape(-1), rows, begins)
        if self._columns is None:
            values = np.empty(len(X.data), dtype)
            sorted_rows = np.empty(len(X.data), np.int32)
            begins = np.zeros(self.n_features + 1, np.int64)
            _descent.transpose(
                np.ascontiguousarray(X.data, dtype), np.ascontiguousarray(X.indices),
                X.indptr.astype(np.int64), begins, values, sorted_rows,
            )  # fmt: skip
            values *= dtype.type(self.x_scale)
            self._columns = Columns(values, sorted_rows, begins)
        values, sorted_rows, begins = self._columns
        first, lengths = begins[features], begins[features + 1] - begins[features]
        ends = np.cumsum(lengths)
        entries = np.arange(ends[-1] if len(ends) else 0) + np.repeat(
            first - ends + lengths, lengths
        )
        return Columns(values[entries], sorted_rows[entries], np.append(0, ends))

    def probabilities(self, x: Any, theta: Doubles) -> Floats:
        """Return the probabilities of the classes of rows like those of X."""
        W, b = split(theta.astype(self.dtype), self.has_intercept)
        result: Floats = self.kernels.predict_proba(x, W, b, x_scale=self.x_scale)
        return result

    def all_probabilities(self, theta: Doubles) -> Floats:
        """Return the probabilities of the classes of all rows."""
        return self.probabilities(self.X, theta)

    def projections(self, W: Doubles, b: Doubles) -> Floats:
        """Return the products of all rows with W, plus b."""
        W, b = W.astype(self.dtype), b.astype(self.dtype)
        result: Floats = self.kernels.linear(self.X, W, b, x_scale=self.x_scale)
        return result
