"""The logarithm of a ratio, which entropy and divergence are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def log_ratio(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """log(x / y) of float64 numbers >= 0, within a few ULP of the exact value.

    Also where x / y is near 1 (log would lose digits) or overflows or underflows on the way. The
    caller silences NumPy's warnings.
    """
    ratio = x / y
    info = np.finfo(np.float64)
    inside = (ratio >= info.tiny) & (ratio <= info.max)
    apart = np.where(inside, np.log(ratio), np.log(x) - np.log(y))
    result: NDArray[Any] = np.where((ratio >= 0.5) & (ratio <= 2), np.log1p((x - y) / y), apart)
    return result
