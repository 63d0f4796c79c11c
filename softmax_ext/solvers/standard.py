"""Parameters as of standardised features: what the sparse solvers compute their steps in.

Features are centred, which the intercepts make up for, and divided by their deviations. A weight is
0 there exactly if it is here.
"""

from __future__ import annotations

import numpy as np

from .objective import Doubles
from .products import combination


class Standard:
    """Changes parameters and gradients to those of standardised features, and back.

    Parameters
    ----------
    mean, scale : ndarray, shape (D,)
        Of the features; the mean is 0 where there are no intercepts.
    has_intercept : bool
        Whether parameters have a last row of intercepts.
    """

    def __init__(self, mean: Doubles, scale: Doubles, has_intercept: bool) -> None:
        self.scale, self._mean = scale, mean
        self._has_intercept = has_intercept

    def parameters(self, theta: Doubles) -> Doubles:
        """Return the parameters of standardised features that give the same logits."""
        D = len(self.scale)
        result: Doubles = theta.copy()
        result[:D] *= self.scale[:, None]
        if self._has_intercept:
            result[D] += combination(self._mean, theta[:D])
        return result

    def back(self, theta: Doubles) -> Doubles:
        """Return the parameters of the features as they are."""
        D = len(self.scale)
        result: Doubles = theta.copy()
        result[:D] /= self.scale[:, None]
        if self._has_intercept:
            result[D] -= combination(self._mean, result[:D])
        return result

    def gradient(self, gradient: Doubles) -> Doubles:
        """Return the gradient with respect to the parameters of standardised features."""
        D = len(self.scale)
        result: Doubles = gradient.copy()
        if self._has_intercept:
            result[:D] -= np.outer(self._mean, gradient[D])
        result[:D] /= self.scale[:, None]
        return result

    def strengths(self, strength: float) -> Doubles:
        """Return a penalty's strength for each row of the parameters: of the intercepts 0."""
        return np.append(strength / self.scale, np.zeros(int(self._has_intercept)))
