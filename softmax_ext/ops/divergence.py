"""Entropy, and the divergence of distributions."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from .. import _kernels, threads
from ..arguments import (
    Array,
    as_axes,
    rows_first,
    three_axes,
)
from ..errors import ArgumentValueError
from ..handle import Handle
from .common import SLICE_LOGITS, prepare, to_half

ENTROPY, DIVERGENCE, ENTR, REL_ENTR, KL_DIV = range(5)  # enum smx_term


class Divergence(Handle):
    """Entropy and divergence along an axis, and their terms one by one."""

    def entropy(self, p: ArrayLike, axis: Any = -1) -> Any:
        """Entropy of distributions along an axis, in nats: -sum p log p.

        Parameters
        ----------
        p : array_like
            Probabilities; they need not sum to 1. 0 log 0 is 0; a negative number gives nan.
        axis : int, tuple of int or None
            Axis or axes of the distributions.

        Returns
        -------
        ndarray or NumPy scalar

        Raises
        ------
        TypeError
            As for `softmax`.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> round(float(sx.entropy([0.5, 0.5])), 6)
        0.693147
        """
        quick = self._quick.divergence(ENTROPY, p, p, axis)
        if quick is not None:
            return quick
        a, half = prepare(p)
        return self._divergence(ENTROPY, [a], axis, half)

    def kl_divergence(self, p: ArrayLike, q: ArrayLike, axis: Any = -1) -> Any:
        """Kullback-Leibler divergence D(p || q) along an axis, in nats: sum p log(p / q).

        Parameters
        ----------
        p, q : array_like
            Distributions, broadcast against each other. Where p is 0 the term is 0; where q is 0
            and p is not, it is inf; a negative number gives nan.
        axis : int, tuple of int or None
            Axis or axes of the distributions.

        Returns
        -------
        ndarray or NumPy scalar

        Raises
        ------
        TypeError
            As for `softmax`.
        ValueError
            If the shapes do not broadcast.

        Notes
        -----
        The sum of `scipy.special.rel_entr`; `scipy.special.kl_div` adds q - p to each term.
        D(p || q) = cross-entropy(p, q) - entropy(p): minimising one over q minimises the other.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> float(sx.kl_divergence([0.5, 0.5], [0.5, 0.5]))
        0.0
        """
        quick = self._quick.divergence(DIVERGENCE, p, q, axis)
        if quick is not None:
            return quick
        a, half_a = prepare(p)
        b, half_b = prepare(q)
        dtype = np.result_type(a, b)
        try:
            both = np.broadcast_arrays(a.astype(dtype, copy=False), b.astype(dtype, copy=False))
        except ValueError:
            raise ArgumentValueError(
                f"q: shape {b.shape} came, one that broadcasts with p's {a.shape} was wanted"
            ) from None
        return self._divergence(DIVERGENCE, list(both), axis, half_a and half_b)

    def _divergence(self, what: int, arrays: list[Array], axis: Any, half: bool) -> Any:
        """The sums of terms of one array, or of two of one shape and dtype."""
        first = arrays[0]
        axes = as_axes(axis, first.ndim)
        shape = tuple(n for i, n in enumerate(first.shape) if i not in axes)
        result = np.zeros(shape, first.dtype)
        if first.size:
            walk = three_axes(arrays, axes)
            if walk is None:
                arrays = [rows_first(a, axes) for a in arrays]
                walk = three_axes(arrays, (1,))
            walked, strides = cast(Any, walk)
            job = _kernels.Divergence(
                self.isa, what, walked, arrays[0], strides[0], arrays[-1], strides[-1],
                result.reshape(-1),
            )  # fmt: skip
            job.run(max(1, SLICE_LOGITS // walked[2]), threads.get_num_threads())
        if half:
            result = to_half(result)
        return result if result.ndim else result[()]

    def _terms(self, what: int, arrays: list[Array], out: Array) -> None:
        """Terms one by one, of dense arrays of one dtype and layout, to another such array."""
        job = _kernels.Terms(self.isa, what, arrays[0], arrays[-1], out)
        job.run(SLICE_LOGITS, threads.get_num_threads())
