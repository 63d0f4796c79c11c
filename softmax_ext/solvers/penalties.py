"""Penalties that make weights exactly 0: the sum of absolute values, and that of the rows' norms.

Both add up over parts of W, its elements or its rows, and both are the strength times a norm of
each part. So both have one subgradient, one dual norm and one certificate, given the parts' sizes.
"""

from __future__ import annotations

import numpy as np

from .objective import Doubles

#: What `minimize` takes for `penalty`.
KINDS = ("l1", "group")


class SparsePenalty:
    """``strength`` times the sum of the sizes of W's parts.

    Parameters
    ----------
    kind : {"l1", "group"}
        Parts are elements, and sizes absolute values; or rows, and sizes Euclidean norms.
    strength : float
        At least 0.
    """

    def __init__(self, kind: str, strength: float) -> None:
        self.strength = strength
        self.is_grouped = kind == "group"

    def sizes(self, W: Doubles) -> Doubles:
        """Return the sizes of the parts: (D, C), or (D, 1) of rows."""
        if self.is_grouped:
            # The largest element is taken out, as the squares of tiny ones would be 0.
            largest = np.abs(W).max(axis=1, keepdims=True, initial=0)
            scaled = W / np.where(largest > 0, largest, 1)
            found: Doubles = largest * np.sqrt(np.einsum("jc,jc->j", scaled, scaled))[:, None]
            return found
        return np.abs(W)

    def value(self, W: Doubles) -> float:
        """Return the penalty."""
        return self.strength * float(self.sizes(W).sum())

    def directions(self, W: Doubles) -> Doubles:
        """Return the gradient of the sizes' sum: signs, or rows of norm 1; 0 where parts are 0."""
        if not self.is_grouped:
            return np.sign(W)
        sizes = self.sizes(W)
        return W / np.where(sizes > 0, sizes, 1)

    def subgradient(self, W: Doubles, gradient: Doubles, strength: float) -> Doubles:
        """Return the subgradient of least norm, given the gradient of the smooth part.

        It is 0 for a part that is 0 and that the gradient cannot move.
        """
        sizes = self.sizes(gradient)
        left = np.maximum(sizes - strength, 0) / np.where(sizes > 0, sizes, 1) * gradient
        return np.where(self.sizes(W) > 0, gradient + strength * self.directions(W), left)

    def curvature(self, W: Doubles, V: Doubles) -> Doubles:
        """Return the Hessian of the sizes' sum at W times V, where the parts are not 0."""
        if not self.is_grouped:
            return np.zeros_like(V)
        sizes = self.sizes(W)
        u = self.directions(W)
        along = np.einsum("jc,jc->j", u, V)[:, None]
        found: Doubles = (V - u * along) / np.where(sizes > 0, sizes, np.inf)
        return found
