"""What models, trainers and solvers ask of any kernels about their data.

They take any object with the functions of `Kernels`, such as `softmax_ext.reference`. Of the
compiled kernels `problem_of` makes a `Problem`, of any other object one that calls its functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import IGNORED_LABEL, Array, Csr
from .ops import Kernels
from .problem import Evaluation, Problem, label_error
from .results import HessianProductResult, LinearCrossEntropyResult


class ForeignProblem:
    """What `Problem` is, by the functions of another object."""

    def __init__(
        self,
        kernels: Any,
        X: Array | Csr,
        target: Array,
        n_classes: int,
        *,
        sample_weight: ArrayLike | None,
        label_smoothing: float,
        x_scale: float,
        name: str,
    ) -> None:
        self._kernels = kernels
        self._X, self._target = X, target
        self._n_classes = n_classes
        self._options: dict[str, Any] = {
            "sample_weight": sample_weight,
            "label_smoothing": label_smoothing,
        }
        self._x_scale = x_scale
        self._name = name

    def check(self) -> None:
        """Check all labels; see `Problem`."""
        t = self._target
        if t.ndim == 1:
            bad = np.flatnonzero(((t < 0) | (t >= self._n_classes)) & (t != IGNORED_LABEL))
            if bad.size:
                raise label_error(t, int(bad[0]), self._n_classes, name=self._name)

    def evaluate(self, W: Array, b: Array | None, **reduction: str) -> Evaluation:
        """Return ``loss, n_correct, total_weight``; see `Problem`."""
        loss = self._kernels.linear_cross_entropy(
            self._X, W, b, self._target, x_scale=self._x_scale, **self._options, **reduction
        )
        predicted = self._kernels.predict(self._X, W, b, x_scale=self._x_scale)
        t = self._target
        n_correct = np.count_nonzero(predicted == (t if t.ndim == 1 else t.argmax(axis=1)))
        return Evaluation(loss, int(n_correct), weight_of(t, self._options["sample_weight"]))

    def value_and_gradient(
        self, W: Array, b: Array | None, *, rows: Any = None, out: Any = None, **reduction: str
    ) -> LinearCrossEntropyResult:
        """Do what `linear_cross_entropy_with_grad` does; see `Problem`."""
        result: LinearCrossEntropyResult = self._kernels.linear_cross_entropy_with_grad(
            self._X, W, b, self._target, rows=rows, out=out, x_scale=self._x_scale,
            **self._options, **reduction,
        )  # fmt: skip
        return result

    def values_and_gradients(
        self, layers: Sequence[tuple[Array, Array | None]], **reduction: str
    ) -> list[LinearCrossEntropyResult]:
        """Return what `value_and_gradient` does of each (W, b); see `Problem`."""
        return [self.value_and_gradient(W, b, **reduction) for W, b in layers]

    def hessian_product(
        self, W: Array, b: Array | None, V: Array, v: Array | None, **options: Any
    ) -> HessianProductResult:
        """Do what `linear_cross_entropy_hvp` does; see `Problem`."""
        result: HessianProductResult = self._kernels.linear_cross_entropy_hvp(
            self._X, W, b, self._target, V, v, x_scale=self._x_scale, **self._options, **options
        )
        return result


def weight_of(target: NDArray[Any], sample_weight: ArrayLike | None) -> float:
    """Return the sum of the rows' weights, as means of losses are divided by."""
    counts = target.sum(axis=1) if target.ndim == 2 else target != IGNORED_LABEL
    return float(counts.sum() if sample_weight is None else counts @ np.asarray(sample_weight))


def problem_of(
    kernels: Any,
    X: Array | Csr,
    target: Array,
    n_classes: int,
    *,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    x_scale: float = 1.0,
    name: str = "y",
) -> Problem | ForeignProblem:
    """Return the problem that a set of kernels makes of rows and what they should be.

    A subclass of `Kernels` may have functions of its own, which are called.
    """
    make: Any = ForeignProblem
    if type(kernels) is Kernels:
        make = Problem
    problem: Problem | ForeignProblem = make(
        kernels, X, target, n_classes, sample_weight=sample_weight,
        label_smoothing=label_smoothing, x_scale=x_scale, name=name,
    )  # fmt: skip
    return problem
