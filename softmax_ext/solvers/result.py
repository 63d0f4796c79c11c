"""What a solver returns, and why it ended."""

from __future__ import annotations

from typing import Any

import numpy as np

# FitResult.status
CONVERGED, MAX_ITER, ROUNDED, STOPPED = range(4)
MESSAGES = {
    CONVERGED: "the gradient is within tol",
    MAX_ITER: "max_iter iterations were made",
    ROUNDED: "no further progress: rounding hides what a step would change",
    STOPPED: "the callback raised StopIteration",
}
#: What CONVERGED says of a fit with a duality gap.
CERTIFIED = "the duality gap is within tol of the objective"


class FitResult(dict[str, Any]):
    """What a solver found; its entries are attributes too, as in SciPy's OptimizeResult.

    Attributes
    ----------
    W : ndarray, shape (D, C)
        Weights, in the dtype that was computed in.
    b : ndarray, shape (C,), or None
        Intercepts.
    fun : float
        The objective at `W` and `b`: a sum over rows, in nats.
    penalty : float
        What of `fun` is the penalties'; the rest is the rows' losses.
    grad_norm : float
        Largest absolute entry of the gradient of the objective divided by the sum of the weights
        of the rows; this is what `tol` bounds. With a penalty that has corners, of the
        subgradient of least norm, which `tol` does not bound.
    gap : float or None
        With such a penalty: the duality gap, in nats as `fun`. The least value of the objective is
        `fun` less this, or more, to within rounding; `tol` bounds it as a share of `fun`. None
        without.
    nit, nfev : int
        Iterations, and evaluations of objective and gradient, each a pass over X.
    success : bool
        Whether `grad_norm` is at most `tol`, and little is to be gained by further steps; or
        whether `gap` is at most `tol` times `fun`.
    status : int
        0: converged, 1: `max_iter` iterations, 2: stopped by rounding, 3: by the callback.
    message : str
        The same in words.

    Examples
    --------
    >>> from softmax_ext.solvers import FitResult
    >>> FitResult(fun=1.5, nit=3).nit
    3
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        lines = []
        for name, value in self.items():
            shown = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)
            lines.append(f"{name.rjust(width)}: {shown}")
        return "\n".join(lines)
