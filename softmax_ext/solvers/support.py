"""Newton's method on the support: the weights that are not 0, and the intercepts.

There the penalty is smooth. The system is solved by conjugate gradients with products of the exact
Hessian, each about a pass over X; so few are enough because they are preconditioned by what a
sample of the rows says of the Hessian of the support: whole, where it is small, or the part of each
class by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .moments import Moments
from .objective import Doubles, Floats
from .penalised import Penalised
from .products import inner

# Bytes that a matrix of the whole support may have: making its factor takes seven times as many, in
# float64.
MOST_BYTES = 6 << 20
# A preconditioner is made anew when so large a share of the support is not in it, or so many times
# the products it was made for.
CHANGED = 0.05
# Where the residual of the system is so small beside the first, further products are for the next
# step; and so many are made at most.
FORCING, MOST_PRODUCTS = 0.05, 40
# Curvature along a direction, as a share of what the preconditioner told, that is rounding.
LEAST_CURVATURE = 1e-12

Solver = Callable[[Doubles], Doubles]


class SupportNewton:
    """Makes Newton's steps on the support.

    Parameters
    ----------
    objective : Penalised
    model : Moments
        Of whose sample and moments preconditioners are made.
    """

    def __init__(self, objective: Penalised, model: Moments) -> None:
        self._objective, self._model = objective, model
        # Products are for steps, which float32 is exact enough for, if it is the data's.
        self._losses = objective.losses
        self._mask: NDArray[np.bool_] | None = None
        self._inverse: Solver | None = None
        #: Products with the Hessian made.
        self.products = 0

    def direction(self, theta: Doubles, gradient: Doubles) -> Doubles | None:
        """Return a direction from theta in which its support's weights change; None if none."""
        objective, standard = self._objective, self._model.standard
        D = objective.n_features
        mask = np.ones(theta.shape, bool)
        assert objective.sparse is not None
        mask[:D] = objective.sparse.sizes(theta[:D]) > 0
        subgradient = objective.subgradient(theta, gradient)
        right = np.where(mask, -standard.gradient(subgradient), 0)
        if not right.any():
            return None
        self._renew(theta, mask)
        apply = self._inverse
        if apply is None:
            return None
        x, r = np.zeros_like(right), right
        z = np.where(mask, apply(r), 0)
        p, rz = z, inner(r, z)
        least = FORCING**2 * rz
        for _ in range(MOST_PRODUCTS):
            q = np.where(mask, self._product(theta, p), 0)
            curvature = inner(p, q)
            if not curvature > LEAST_CURVATURE * abs(inner(p, r)):
                break
            a = rz / curvature
            x = x + a * p
            r = r - a * q
            z = np.where(mask, apply(r), 0)
            previous, rz = rz, inner(r, z)
            if not rz > least:
                break
            p = z + rz / previous * p
        if not x.any():
            return None
        direction = standard.back(x)
        direction[:D][~mask[:D]] = 0
        return direction

    def _product(self, theta: Doubles, v: Doubles) -> Doubles:
        """Return the Hessian of objective and penalties times a standardised direction."""
        objective, standard = self._objective, self._model.standard
        D, total = objective.n_features, objective.total_weight
        direction = standard.back(v)
        product = self._losses.hessian_product(theta, direction).astype(np.float64)
        self.products += 1
        W, V = theta[:D], direction[:D]
        assert objective.sparse is not None
        product[:D] += objective.l2 * V
        product[:D] += objective.sparse.strength * objective.sparse.curvature(W, V)
        return standard.gradient(product / total)

    def _renew(self, theta: Doubles, mask: NDArray[np.bool_]) -> None:
        """Make the preconditioner, if the one there is has too little in common."""
        old, n = self._mask, int(mask.sum())
        if old is not None and (mask != old).sum() <= CHANGED * n:
            return
        self._mask = mask.copy()
        item = self._model.curvature.dtype.itemsize
        if n * n * item <= MOST_BYTES and self._model.curvature.has_moments:
            self._inverse = self._whole(theta, mask)
        else:
            self._inverse = self._by_class(theta, mask)

    def _ridges(self, theta: Doubles) -> Doubles:
        """The penalties' part of the diagonal, standardised."""
        objective, standard = self._objective, self._model.standard
        D, total = objective.n_features, objective.total_weight
        ridge = np.zeros(theta.shape)
        ridge[:D] = objective.l2 / total
        assert objective.sparse is not None
        if objective.sparse.is_grouped:
            sizes = objective.sparse.sizes(theta[:D])
            ridge[:D] += objective.sparse.strength / total / np.where(sizes > 0, sizes, np.inf)
        # One after the other: the square of a scale may be infinite.
        for _ in range(2):
            ridge[:D] /= standard.scale[:, None]
        return ridge

    def _whole(self, theta: Doubles, mask: NDArray[np.bool_]) -> Solver | None:
        """The Hessian of the support, from a sample of the rows."""
        curvature = self._model.curvature
        P = curvature.sample.probabilities(theta)
        chosen, factors = curvature.choose(P)
        p = P[chosen]
        features = [np.flatnonzero(column) for column in mask.T]
        ends = np.cumsum([0, *map(len, features)])
        H: Floats = np.zeros((ends[-1], ends[-1]), curvature.dtype)
        for part, a in curvature.standardised(chosen):
            for c, of_c in enumerate(features):
                for e in range(c + 1):
                    weights = -p[part, c] * p[part, e] * factors[part]
                    if c == e:
                        weights += p[part, c] * factors[part]
                    weighted = a[:, of_c] * weights.astype(a.dtype)[:, None]
                    block = H[ends[c] : ends[c + 1], ends[e] : ends[e + 1]]
                    block += weighted.T @ a[:, features[e]]
        H = np.tril(H)
        H += np.tril(H, -1).T
        places = np.concatenate(features), np.repeat(np.arange(len(features)), np.diff(ends))
        unseen = np.append(curvature.sample.unseen, np.zeros(len(theta) - curvature.D, bool))
        ridge = self._ridges(theta)[places] + unseen[places[0]] * (H.diagonal() == 0)
        inverse = curvature.inverse(H, ridge)
        if inverse is None:
            return self._by_class(theta, mask)

        def apply(r: Doubles) -> Doubles:
            # What has come into the support since is left to the gradient's own scale.
            result = self._diagonal(r)
            result[places] = inverse(r[places][:, None])[:, 0]
            return result

        self._scales = self._diagonal_of(theta)
        return apply

    def _by_class(self, theta: Doubles, mask: NDArray[np.bool_]) -> Solver:
        """Each class's part of the model's Hessian."""
        model, ridge = self._model, self._ridges(theta)
        self._scales = self._diagonal_of(theta)
        parts = []
        for c, column in enumerate(mask.T):
            places = np.flatnonzero(column)
            if not (model.curvature.has_moments and len(places)):
                continue
            H: Floats = np.zeros((len(places), len(places)), np.float32)
            weights = model.factors * model.axes[c] ** 2
            for r, weight in enumerate(weights):
                M = model.moments[r if len(model.moments) > 1 else 0]
                H += np.float32(weight) * M[np.ix_(places, places)]
            inverse = model.curvature.inverse(H, ridge[places, c])
            if inverse is not None:
                parts.append((c, places, inverse))

        def apply(r: Doubles) -> Doubles:
            result = self._diagonal(r)
            for c, places, inverse in parts:
                result[places, c] = inverse(r[places, c][:, None])[:, 0]
            return result

        return apply

    def _diagonal_of(self, theta: Doubles) -> Doubles:
        diagonal = self._model.diagonal() + self._ridges(theta)
        found: Doubles = np.maximum(diagonal, np.finfo(float).eps * diagonal.max())
        return found

    def _diagonal(self, r: Doubles) -> Doubles:
        return r / self._scales
