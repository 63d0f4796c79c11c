"""Products that are made in every step.

After a product of more than a few thousand numbers the threads of NumPy's BLAS wait awake for
milliseconds, and the pass over the rows that comes next shares the cores with them. So BLAS
multiplies only what takes so long that this is little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .objective import Doubles, Floats

#: Multiplies two matrices, as the kernel `linear` does.
Product = Callable[[Any, Any], Any]

# Numbers of which BLAS makes products with a vector; einsum takes some 30 microseconds for as many.
LARGE = 1 << 18
# Elements that are multiplied and added up in their own dtype before sums go on in float64: few
# enough for float32, and for one factor to stay in the cache while those of many vectors pass it.
PIECE = 1 << 15
# A triangle is kept as strips, of which each leaves out zeros; so long, or their calls would take
# longer than the zeros did.
STRIP_ROWS = 256


def inner(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the sum of the products of the elements of two arrays of one shape."""
    if a.size > LARGE:
        return float(np.vdot(a, b))
    return float(np.einsum("i,i->", a.reshape(-1), b.reshape(-1)))


def inner_each(vectors: NDArray[Any], x: NDArray[Any]) -> Doubles:
    """Return the inner product of each of the vectors (k, ...) with x (...), in their dtype."""
    vectors, x = vectors.reshape(len(vectors), -1), x.reshape(-1)
    large = vectors.size > LARGE
    result = np.zeros(len(vectors))
    for i in range(0, len(x), PIECE):
        part, factor = vectors[:, i : i + PIECE], x[i : i + PIECE].astype(vectors.dtype)
        result += part @ factor if large else np.einsum("kn,n->k", part, factor)
    return result


def add_combination(factors: Doubles, vectors: NDArray[Any], result: Doubles) -> None:
    """Add the sum of the vectors (k, ...), each times its factor, to the result (...)."""
    vectors, result = vectors.reshape(len(vectors), -1), result.reshape(-1)
    large, factors = vectors.size > LARGE, factors.astype(vectors.dtype)
    for i in range(0, len(result), PIECE):
        part = vectors[:, i : i + PIECE]
        result[i : i + PIECE] += factors @ part if large else np.einsum("k,kn->n", factors, part)


def combination(factors: Doubles, vectors: Doubles) -> Doubles:
    """Return the sum of the vectors (k, n), each times its factor."""
    large = vectors.size > LARGE
    result: Doubles = factors @ vectors if large else np.einsum("k,kn->n", factors, vectors)
    return result


def class_means(x: NDArray[Any]) -> Doubles:
    """Return the means (D, 1) over the classes, in a fifth of the time that ``mean`` takes."""
    sums: Doubles = np.einsum("jc->j", x, dtype=np.float64)
    means: Doubles = sums[:, None] / x.shape[1]
    return means


class FactoredInverse:
    """The inverse of a positive matrix, ``L^-T L^-1``.

    Parameters
    ----------
    factor : ndarray, shape (n, n)
        ``L^-1``, a lower triangle; kept, and not to be written to from now on.
    product : callable
        Multiplies.
    """

    def __init__(self, factor: Floats, product: Product) -> None:
        n = len(factor)
        self._dtype, self._product = factor.dtype, product
        step = -(-n // max(1, n // STRIP_ROWS + 1))
        bounds = [(i, min(i + step, n)) for i in range(0, n, step)]
        self._lower = [(i, j, factor[i:j, :j]) for i, j in bounds]
        self._upper = [(i, j, np.ascontiguousarray(factor[i:, i:j].T)) for i, j in bounds]

    def __call__(self, x: Doubles) -> Doubles:
        """Return the product with x (n, k)."""
        x = x.astype(self._dtype)
        middle, result = np.empty_like(x), np.empty(x.shape)
        for i, j, strip in self._lower:
            middle[i:j] = self._product(strip, x[:j])
        for i, j, strip in self._upper:
            result[i:j] = self._product(strip, middle[i:])
        return result
