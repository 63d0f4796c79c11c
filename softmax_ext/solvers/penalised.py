"""An objective with its penalties: what the solvers minimise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import l1
from .curvature import Curvature
from .objective import Doubles, Objective


class Penalised:
    """The mean of the rows' weighted losses, with the penalties divided like their sum.

    So `tol` means the same for ten rows and for ten million. Points and gradients are float64,
    whatever the objective computes in; those points only are asked that its dtype can hold, so
    that a step and the change of the gradient along it belong to each other.
    """

    def __init__(self, losses: Objective, l2: float, l1: float) -> None:
        self.losses = losses
        self.l2, self.l1 = l2, l1
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
            if not self.l1:
                theta = theta - theta.mean(axis=1, keepdims=True)
            return theta.astype(dtype or self.dtype).astype(np.float64)

    def value_and_gradient(self, theta: Doubles) -> tuple[float, Doubles]:
        """Return the value, and the gradient of all but the L1 penalty."""
        value, gradient_of_sum, self.total_weight = self.losses.value_and_gradient(theta)
        self.nfev += 1
        W = theta[: self.n_features]
        # A row's gradient adds up to 0 over the classes: what does not is rounding.
        gradient = gradient_of_sum - gradient_of_sum.mean(axis=1, keepdims=True, dtype=np.float64)
        if self.l2:
            gradient[: self.n_features] += self.l2 * W
        gradient /= self.total_weight
        return (value + self.penalty(theta)) / self.total_weight, gradient

    def penalty(self, theta: Doubles) -> float:
        """Return what is added to the sum of the rows' losses."""
        W = theta[: self.n_features]
        value = self.l2 / 2 * float(np.vdot(W, W)) if self.l2 else 0.0
        return value + self.l1 * float(np.abs(W).sum()) if self.l1 else value

    def subgradient(self, theta: Doubles, gradient: Doubles) -> Doubles:
        """Return the subgradient of least norm, given the gradient of all but the L1 penalty."""
        if not self.l1:
            return gradient
        return l1.subgradient(theta, gradient, self.l1 / self.total_weight, self.n_features)

    def curvature(self) -> Curvature:
        """Return what makes preconditioners; to be asked after the first evaluation."""
        return Curvature(self.losses, self.l2 / self.total_weight)
