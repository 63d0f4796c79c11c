"""The lecture's example: cats, chickens and dogs of four pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import finite_from_0, integer_between


class TwoByTwo(NamedTuple):
    """The lecture's grayscale images of 2 x 2 pixels."""

    #: uint8 (n, 2, 2).
    images: NDArray[np.uint8]
    #: uint8 (n,), 0 to 2.
    labels: NDArray[np.uint8]
    #: ("cat", "chicken", "dog").
    class_names: tuple[str, ...]


#: One grey level per pixel; any two of them differ in two pixels, so no class is harder.
_TWO_BY_TWO_PATTERNS = np.array(
    [
        [[200, 200], [55, 55]],  # cat: the upper row is bright
        [[200, 55], [200, 55]],  # chicken: the left column
        [[200, 55], [55, 200]],  # dog: the diagonal
    ],
    dtype=np.float64,
)


def make_two_by_two(n: int, *, noise: float = 40.0, seed: int | None = 0) -> TwoByTwo:
    """Make the lecture's example: noisy grayscale 2 x 2 images of cat, chicken and dog.

    Each class is one pattern of bright and dark pixels. At the default noise a linear
    classifier is right on about 99 images of 100.

    Parameters
    ----------
    n : int
        How many images; the classes share them equally, in random order.
    noise : float, default 40.0
        Standard deviation of the normal noise, in grey levels of 0 to 255; 0 gives the
        patterns themselves.
    seed : int or None, default 0
        The same seed gives the same images; None gives others each time.

    Returns
    -------
    TwoByTwo
        Named tuple ``images`` uint8 (n, 2, 2), ``labels`` uint8 (n,), ``class_names``.

    Raises
    ------
    ValueError
        If ``n`` is negative, or ``noise`` is negative or not finite.
    TypeError
        If ``n`` is not an integer.

    Examples
    --------
    >>> from softmax_ext.datasets import make_two_by_two
    >>> data = make_two_by_two(6, noise=0)
    >>> data.images[data.labels == data.class_names.index("dog")][0]
    array([[200,  55],
           [ 55, 200]], dtype=uint8)
    """
    n = integer_between("n", n, 0)
    noise = finite_from_0("noise", noise)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % len(_TWO_BY_TWO_PATTERNS)).astype(np.uint8)
    levels = rng.normal(_TWO_BY_TWO_PATTERNS[labels], noise)
    images = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return TwoByTwo(images, labels, ("cat", "chicken", "dog"))
