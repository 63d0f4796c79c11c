"""An objective with its penalties: what the solvers minimise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .curvature import Curvature
from .objective import Doubles, Objective, split
from .penalties import SparsePenalty
from .products import class_means, inner
from .result import FitResult


class Penalised:
    """The mean of the rows' weighted losses, with the penalties divided like their sum.

    So `tol` means the same for ten rows and for ten million. Points and gradients are float64,
    whatever the objective computes in; those points only are asked that its dtype can hold, so
    that a step and the change of the gradient along it belong to each other.
    """

    def __init__(self, losses: Objective, l2: float, l1: float = 0.0, kind: str = "l1") -> None:
        self.losses = losses
        self.l2 = l2
        #: What makes weights exactly 0, or None.
        self.sparse = SparsePenalty(kind, l1) if l1 else None
        self.n_features = losses.shape[0] - losses.has_intercept
        #: What results are returned in; what is computed in, until `widen`.
        self.result_dtype = losses.dtype
        #: The weight of all rows that count; known after the first evaluation.
        self.total_weight = math.nan
        #: Evaluations made.
        self.nfev = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.losses.dtype

    @property
    def is_narrow(self) -> bool:
        """Whether losses are computed in less than float64."""
        return self.dtype != np.float64

    def widen(self) -> None:
        """Compute in float64 from now on."""
        self.losses = self.losses.in_float64()

    def representable(self, theta: Doubles, dtype: np.dtype[Any] | None = None) -> Doubles:
        """Return the nearest point as good as theta that `dtype` holds, or what is computed in.

        What is the same for all classes changes no probability and is penalised, so it is taken
        away; of absolute values it is not the mean that is least. What is too large is infinite.
        """
        with np.errstate(all="ignore"):
            free = slice(None) if self.sparse is None else slice(self.n_features, None)
            theta = theta.copy()
            theta[free] -= class_means(theta[free])
            return theta.astype(dtype or self.dtype).astype(np.float64)

    def loss_and_gradient(self, theta: Doubles) -> tuple[float, Doubles]:
        """Return the mean loss and its gradient, without penalties."""
        value, gradient_of_sum, self.total_weight = self.losses.value_and_gradient(theta)
        self.nfev += 1
        # A row's gradient adds up to 0 over the classes: what does not is rounding.
        gradient = gradient_of_sum - class_means(gradient_of_sum)
        return value / self.total_weight, gradient / self.total_weight

    def value_and_gradient(self, theta: Doubles) -> tuple[float, Doubles]:
        """Return the value, and the gradient of all but the penalty with corners."""
        value, gradient = self.loss_and_gradient(theta)
        if self.l2:
            gradient[: self.n_features] += self.l2 / self.total_weight * theta[: self.n_features]
        return value + self.penalty(theta), gradient

    def penalty(self, theta: Doubles) -> float:
        """Return the penalties of the mean."""
        W = theta[: self.n_features]
        value = self.l2 / 2 * inner(W, W) if self.l2 else 0.0
        if self.sparse is not None:
            value += self.sparse.value(W)
        return value / self.total_weight

    def subgradient(self, theta: Doubles, gradient: Doubles) -> Doubles:
        """Return the subgradient of least norm, given the gradient of all but the corners."""
        if self.sparse is None:
            return gradient
        D = self.n_features
        strength = self.sparse.strength / self.total_weight
        result: Doubles = gradient.copy()
        result[:D] = self.sparse.subgradient(theta[:D], gradient[:D], strength)
        return result

    def result(
        self,
        theta: Doubles,
        value: float,
        *,
        grad_norm: float,
        gap: float | None = None,
        nit: int,
        nfev: int,
    ) -> FitResult:
        """Return what is told of a point, given the value there and, if there is one, the gap.

        In the result's dtype, and of the sum of the rows' losses instead of their mean.
        """
        W, b = split(theta.astype(self.result_dtype), self.losses.has_intercept)
        total = self.total_weight
        return FitResult(
            W=W, b=b, fun=value * total, penalty=self.penalty(theta) * total, grad_norm=grad_norm,
            gap=None if gap is None else gap * total, nit=nit, nfev=nfev,
        )  # fmt: skip

    def curvature(self) -> Curvature:
        """Return what makes preconditioners; to be asked after the first evaluation."""
        return Curvature(self.losses, self.l2 / self.total_weight)
