"""The objective of standardised features, by that of the features as they are.

``((x - m) / s) V + c = x (V / s) + (c - m (V / s))``: what a fit to standardised features does is
done to the parameters and to the gradient, (D, C) numbers in each step, and the features are
neither copied nor, if they are sparse, made dense.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .objective import Doubles, Evaluation, Floats, Objective, Sample
from .products import combination
from .result import FitResult


class Standardised:
    """The losses of rows whose features are centred and divided by their deviations.

    Keeps the protocol `objective.Objective`, of an objective that keeps it. Without intercepts
    nothing makes up for a mean that is taken away: then the features are divided and not centred.
    """

    def __init__(self, losses: Objective) -> None:
        self._losses = losses
        self.kernels = getattr(losses, "kernels", None)
        self.shape, self.has_intercept, self.dtype = (
            losses.shape,
            losses.has_intercept,
            losses.dtype,
        )
        self.n_rows, self.is_sparse, self.cost = losses.n_rows, losses.is_sparse, losses.cost
        mean, scale = losses.moments()
        # Centred, a feature that never changes is 0, and has no gradient but rounding.
        self._unchanging = (scale == 0) & self.has_intercept
        self._mean = mean if self.has_intercept else np.zeros_like(mean)
        self._scale = np.where(scale == 0, 1.0, scale)

    def to_raw(self, theta: Doubles) -> Doubles:
        """Return the parameters that do to features as they are what theta does to these."""
        raw: Doubles = theta.copy()
        D = len(self._scale)
        with np.errstate(all="ignore"):  # what is infinite, the solver refuses
            raw[:D] /= self._scale[:, None]
            if self.has_intercept:
                raw[D] -= combination(self._mean, raw[:D])
        return raw

    def from_raw(self, raw: Doubles) -> Doubles:
        """Return the parameters that `to_raw` makes these of."""
        theta: Doubles = raw.copy()
        D = len(self._scale)
        if self.has_intercept:
            theta[D] += combination(self._mean, raw[:D])
        theta[:D] *= self._scale[:, None]
        return theta

    def fold_into(self, result: FitResult) -> None:
        """Turn a result's W and b into those that take features as they are."""
        dtype = result.W.dtype
        W = (result.W / self._scale[:, None]).astype(dtype)
        result["W"] = W
        if self.has_intercept:
            # By W as it was rounded: beside a large mean that makes a difference.
            result["b"] = (result.b - combination(self._mean, W.astype(np.float64))).astype(dtype)

    def _gradient(self, raw: Floats) -> Doubles:
        """Return the gradient by these parameters, given that by those of the features."""
        gradient = raw.astype(np.float64)
        D = len(self._scale)
        if self.has_intercept:
            gradient[:D] -= self._mean[:, None] * gradient[D]
        gradient[:D] /= self._scale[:, None]
        gradient[:D][self._unchanging] = 0
        return gradient

    def value_and_gradient(self, theta: Doubles) -> Evaluation:
        """Evaluate at a point; see the protocol."""
        result = self._losses.value_and_gradient(self.to_raw(theta))
        return result._replace(gradient=self._gradient(result.gradient))

    def hessian_product(self, theta: Doubles, V: Doubles) -> Doubles:
        """Return the Hessian at a point times a direction; see the protocol."""
        raw = self._losses.hessian_product(self.to_raw(theta), self.to_raw(V))
        return self._gradient(raw)

    def sample(self, n: int, *, by_length: bool) -> StandardisedSample:
        """Draw n rows by their weight; see the protocol."""
        sample = self._losses.sample(n, by_length=by_length)
        return StandardisedSample(self, sample, self._mean, self._scale)

    def moments(self) -> tuple[Doubles, Doubles]:
        """Return the features' means and deviations; see the protocol."""
        mean, scale = self._losses.moments()
        return (mean - self._mean) / self._scale, scale / self._scale

    def in_float64(self) -> Standardised:
        """Return the same sum, computed in float64."""
        wide = copy.copy(self)
        wide._losses = self._losses.in_float64()
        wide.dtype = wide._losses.dtype
        return wide


class StandardisedSample:
    """Some rows of standardised features: keeps the protocol `objective.Sample`."""

    def __init__(
        self, objective: Standardised, sample: Sample, mean: Doubles, scale: Doubles
    ) -> None:
        self._objective, self._sample = objective, sample
        self._mean, self._scale = mean, scale
        self.factors, self.lengths, self.unseen = sample.factors, sample.lengths, sample.unseen
        self.mean = (sample.mean - mean) / scale
        self.scale = sample.scale / scale

    def rows(self, chosen: NDArray[np.intp]) -> Iterator[tuple[slice, Floats]]:
        """Yield some of its rows by pieces; see the protocol."""
        dtype: np.dtype[Any] = self._objective.dtype
        for part, x in self._sample.rows(chosen):
            yield part, ((x - self._mean) / self._scale).astype(dtype)

    def probabilities(self, theta: Doubles) -> Floats:
        """Return the probabilities of its rows' classes; see the protocol."""
        return self._sample.probabilities(self._objective.to_raw(theta))
