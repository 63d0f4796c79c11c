"""The public kernels: what each call wants of its arguments, the threads and the drivers.

Nothing is written before every argument has been checked. The arithmetic is in the drivers
(`_kernels.pyx`) and leaves (`src/`).
"""

from __future__ import annotations

import os

from ..environment import refuse
from .cross_entropy import CrossEntropy
from .divergence import Divergence
from .linear import LinearLayer
from .linear_cross_entropy import LinearCrossEntropy
from .softmax import SoftmaxFamily


class Kernels(SoftmaxFamily, CrossEntropy, LinearLayer, LinearCrossEntropy, Divergence):
    """The public kernels, bound to one instruction set.

    `softmax_ext.softmax` and the others are methods of the handle made at import for the best
    instruction set that can run here (or the one that the environment variable
    ``SOFTMAX_EXT_ISA`` names). Tests and benchmarks make handles of their own.

    Parameters
    ----------
    isa : str, optional
        ``"baseline"``, ``"avx2"``, ``"avx512"``, ``"amx"`` or ``"neon"``; the best one by default.

    Attributes
    ----------
    isa : str
        The instruction set in use.

    Raises
    ------
    ValueError
        If `isa` is not known or cannot run here.

    Examples
    --------
    >>> import softmax_ext as sx
    >>> sx.Kernels("baseline").softmax([0.0, 0.0])
    array([0.5, 0.5])
    """

    def __repr__(self) -> str:
        return f"softmax_ext.Kernels({self.isa!r})"


def default_kernels() -> Kernels:
    """The handle behind the module's functions."""
    isa = os.environ.get("SOFTMAX_EXT_ISA")
    try:
        return Kernels(isa or None)
    except ValueError as error:
        refuse("SOFTMAX_EXT_ISA", error)
