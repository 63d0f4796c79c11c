"""The inverse Hessian of L-BFGS: a first one, and what the last steps show beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .curvature import Preconditioner
from .objective import Doubles
from .products import add_combination, inner, inner_each

# Pairs of a step and the gradient's change along it; SciPy and scikit-learn keep as many.
MEMORY = 10
# The product of a step and the gradient's change y, as a share of y's with H y, below which it is
# rounding: along a step the gradient of a convex objective can only grow.
LEAST_PRODUCT = 1e-14
# Length of the first step along a preconditioned gradient. A whole one may leap far over the
# optimum of separable data; one that is too short is made longer in a few passes.
FIRST_STEP = 0.03


class InverseHessian:
    """A first inverse Hessian, corrected by the last steps and the gradient's changes along them.

    The two loops of L-BFGS go over the products of the vectors with each other. So the vectors
    themselves are read only twice in an iteration: for their products with the gradient, and to be
    added up.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], memory: int = MEMORY) -> None:
        self._memory = memory
        # Steps, changes of the gradient, and the first inverse Hessian times those changes.
        self._S = np.zeros((memory, *shape), dtype)
        self._Y = np.zeros((memory, *shape), dtype)
        self._Z = self._Y
        # The places of the pairs in these arrays, the oldest pair's first.
        self._order: list[int] = []
        # By place: products of a step with the changes from its own on, and of changes with Z.
        self._SY = np.zeros((memory, memory))
        self._YZ = np.zeros((memory, memory))
        self._first: Preconditioner | None = None
        self._first_step = FIRST_STEP
        # The gradient that the first one was last applied to, and the product.
        self._applied: tuple[Doubles, Doubles] | None = None

    def set_first(self, first: Preconditioner | None, newton: bool = False) -> None:
        """Take another first one, or none; forget the pairs for Newton's method, to need none."""
        self._first, self._applied = first, None
        self._first_step = 1.0 if newton else FIRST_STEP
        if newton:
            self._order.clear()
        if first is None:
            self._Z = self._Y
        elif self._Z is self._Y:
            self._Z = np.zeros_like(self._Y)
        n = len(self._order)
        for i in range(n):
            if first is not None:
                self._Z[i] = first(self._Y[i].astype(np.float64))
            self._YZ[:n, i] = inner_each(self._Y[:n], self._Z[i])

    def add_penalty(self, l2: float, n_features: int) -> None:
        """Let the pairs be those of the objective with another penalty, l2 higher or lower.

        To be followed by `set_first`.
        """
        n = len(self._order)
        self._Y[:n, :n_features] += self._Y.dtype.type(l2) * self._S[:n, :n_features]
        for i in range(n):
            self._SY[:n, i] = inner_each(self._S[:n], self._Y[i])
        if not (self._SY.diagonal()[:n] > 0).all():  # what is left is rounding
            self._order.clear()

    @property
    def has_first(self) -> bool:
        """Whether there is a first one other than a multiple of the identity."""
        return self._first is not None

    def first_step(self, direction: Doubles) -> float:
        """Return the length to try first."""
        if self._order:
            return 1.0
        if self._first is not None:
            return self._first_step
        return min(1.0, 1 / float(np.abs(direction).sum()))

    def forget(self) -> bool:
        """Forget all pairs; return whether there were any."""
        had_pairs = bool(self._order)
        self._order.clear()
        return had_pairs

    def _apply(self, gradient: Doubles) -> Doubles:
        """Return the first inverse Hessian times a gradient, which is not modified."""
        if self._first is None:
            return gradient
        if self._applied is None or self._applied[0] is not gradient:
            self._applied = gradient, self._first(gradient)
        return self._applied[1]

    def add(self, s: Doubles, gradient: Doubles, new_gradient: Doubles) -> None:
        """Remember a step, given the gradients before and after it, and forget the oldest."""
        y = new_gradient - gradient
        # As the first one is linear, this is its product with y, at the cost of one application,
        # which `direction` needs next.
        z = y if self._first is None else -self._apply(gradient) + self._apply(new_gradient)
        product, length = inner(s, y), inner(y, z)
        if not (length > 0 and product > LEAST_PRODUCT * length):
            return
        i = self._order.pop(0) if len(self._order) == self._memory else len(self._order)
        self._order.append(i)
        self._S[i], self._Y[i], self._Z[i] = s, y, z
        n = len(self._order)
        self._SY[:n, i] = inner_each(self._S[:n], y)
        self._SY[i, i] = product
        self._YZ[:n, i] = self._YZ[i, :n] = inner_each(self._Z[:n], y)

    def direction(self, gradient: Doubles) -> Doubles:
        """Return minus the inverse Hessian times the gradient."""
        n = len(self._order)
        if n == 0:
            return -self._apply(gradient)
        order = np.array(self._order)
        Sg, Zg = (inner_each(vectors[:n], gradient)[order] for vectors in (self._S, self._Z))
        SY, YZ = (products[np.ix_(order, order)] for products in (self._SY, self._YZ))
        scale = SY[-1, -1] / YZ[-1, -1]
        a, c = np.zeros(n), np.zeros(n)
        for i in reversed(range(n)):
            a[i] = -(Sg[i] + SY[i, i + 1 :] @ a[i + 1 :]) / SY[i, i]
        products = -scale * (Zg + YZ @ a)
        for i in range(n):
            c[i] = a[i] - (products[i] + SY[:i, i] @ c[:i]) / SY[i, i]
        factors = np.zeros((2, n))
        factors[:, order] = c, -scale * a
        result: Doubles = -scale * self._apply(gradient)
        add_combination(factors[0], self._S[:n], result)
        add_combination(factors[1], self._Z[:n], result)
        return result
