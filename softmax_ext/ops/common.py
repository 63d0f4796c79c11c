"""What the families of kernels have in common: results, and where they go."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .. import _kernels
from ..arguments import Array, as_floating

# A slice of rows holds about so many logits, some 20 microseconds of work; more than one of them
# are worth a second thread.
SLICE_LOGITS = 1 << 15


def prepare(x: ArrayLike) -> tuple[Array, bool]:
    """Numbers in the type that they are computed in, and whether float16 came."""
    a = as_floating("x", x, half=True)
    half = a.dtype.itemsize == 2
    return (a.astype(np.float32) if half else a), half


def apart(out: Array, *inputs: Array) -> Array:
    """`out` if the drivers can write to it while they read the inputs, else a new array."""
    return out if out.flags.aligned and not _kernels.overlap(out, *inputs) else np.empty_like(out)


def deliver(result: Array, out: Array) -> Array:
    """`out` with the result, which may be there already."""
    if result is not out:
        np.copyto(out, result)
    return out


def to_half(a: Array) -> Array:
    with np.errstate(all="ignore"):
        return a.astype(np.float16)
