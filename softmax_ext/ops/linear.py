"""The linear layer, alone and with softmax."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels, threads
from ..arguments import (
    Array,
    Csr,
    as_layer,
    as_out,
    finite,
)
from ..errors import ArgumentValueError
from ..handle import Handle
from ..problem import (
    check_rows,
    refuse_bad,
)
from .common import apart, deliver

LINEAR, PROBA, PREDICT = range(3)  # enum Purpose


class LinearLayer(Handle):
    """The linear layer: its logits, and what they predict."""

    def linear(
        self,
        X: ArrayLike,
        W: ArrayLike,
        b: ArrayLike | None = None,
        *,
        x_scale: float = 1.0,
        out: Array | None = None,
    ) -> Array:
        """Logits of a single-layer network for a minibatch: O = x_scale * X W + b.

        Parameters
        ----------
        X : array_like
            (N, D) float32 or float64; or uint8, float16 or bfloat16 (of the package ml_dtypes),
            which are taken as they are, without a floating copy, and computed with in W's dtype;
            other integers become float64. Any memory layout. Or a sparse matrix in CSR form:
            anything with ``indptr``, ``indices``, ``data`` and ``shape``, such as
            `scipy.sparse.csr_array`.
        W : array_like
            (D, C) weights in C or Fortran order.
        b : array_like, optional
            (C,) bias.
        x_scale : float
            Factor of X, applied inside the kernel: 1/255 for images of uint8.
        out : ndarray, optional
            (N, C) result array of the compute dtype.

        Returns
        -------
        ndarray
            (N, C): float64 if X, W or b is, else float32.

        Raises
        ------
        TypeError, ValueError
            For dtypes and shapes that do not fit together; for a sparse matrix in another form
            than CSR, or whose indptr or indices lead outside it (names the row).

        Notes
        -----
        Of a sparse X only the entries that are stored take part: a zero that is not stored is 0
        also beside an infinite weight. Columns may come in any order; entries at the same place
        add up.

        Examples
        --------
        >>> import numpy as np
        >>> import softmax_ext as sx
        >>> sx.linear([[1.0, 2.0]], [[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]], [0.5, 0.5, 0.5])
        array([[1.5, 2.5, 1.5]])
        """
        return self._forward(LINEAR, X, W, b, x_scale, out)

    def predict_proba(
        self, X: ArrayLike, W: ArrayLike, b: ArrayLike | None = None, *, x_scale: float = 1.0
    ) -> Array:
        """Class probabilities softmax(x_scale * X W + b), (N, C).

        Parameters and errors as for `linear`. A row's probabilities do not depend on the rows
        that come along with it, to the last bit.

        Examples
        --------
        >>> import numpy as np
        >>> import softmax_ext as sx
        >>> sx.predict_proba([[1.0]], [[0.0, 0.0]])
        array([[0.5, 0.5]])
        """
        return self._forward(PROBA, X, W, b, x_scale, None)

    def predict(
        self, X: ArrayLike, W: ArrayLike, b: ArrayLike | None = None, *, x_scale: float = 1.0
    ) -> NDArray[np.intp]:
        """The most likely class of each row, (N,) intp: the first largest logit.

        Parameters and errors as for `linear`. The (N, C) logits are never held. A NaN counts as
        largest, as in `numpy.argmax`.

        Examples
        --------
        >>> import softmax_ext as sx
        >>> sx.predict([[1.0], [-1.0]], [[2.0, -2.0]])
        array([0, 1])
        """
        return self._forward(PREDICT, X, W, b, x_scale, None)

    def _forward(
        self,
        job: int,
        X: ArrayLike,
        W: ArrayLike,
        b: ArrayLike | None,
        x_scale: float,
        out: Array | None,
    ) -> Array:
        if out is None:
            quick = self._quick.forward(job, X, W, b, x_scale)
            if quick is not None:
                return quick
        x, w, bias = as_layer(X, W, b)
        scale = finite("x_scale", x_scale)
        n, c = x.shape[0], w.shape[1]
        if c == 0 and job != LINEAR:
            raise ArgumentValueError(f"W: shape {w.shape} came, at least one class was wanted")
        result: Array
        if job == PREDICT:
            result = np.empty(n, np.intp)
        elif out is None:
            result = np.empty((n, c), w.dtype)
        else:
            result = apart(as_out("out", out, (n, c), w.dtype), *arrays_of(x, w, bias))
        if n and c:
            driver = _kernels.SparsePass if isinstance(x, Csr) else _kernels.LinearPass
            p = driver(self.isa, job, _kernels.Examples(x, scale, None), w, bias, None, 1)
            if out is not None and isinstance(x, Csr):
                check_rows(p, x)
            _, _, *bad = p.run(threads.get_num_threads(), result, None)
            refuse_bad(p, x, *bad)
        return result if out is None else deliver(result, out)


def arrays_of(x: Array | Csr, *others: Array | None) -> list[Array]:
    """The arrays among arguments, those of a sparse X one by one."""
    first = list(x[:3]) if isinstance(x, Csr) else [x]
    return first + [a for a in others if a is not None]
