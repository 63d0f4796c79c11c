"""`fit_lbfgs` on Dask collections."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from ..datasets.blocks import compute_dtype
from ..model import SoftmaxModel
from ..solvers import FitResult, PathResult
from ..solvers import fit_lbfgs as fit_objective
from ..solvers import fit_path as path_of
from ..solvers.pieces import PieceMaker
from ._chunks import Chunks
from ._objective import DaskObjective


def fit_lbfgs(
    model: SoftmaxModel,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    **options: Any,
) -> FitResult:
    """Bring a model to its regularised optimum, as `softmax_ext.fit_lbfgs` does.

    Parameters
    ----------
    model : SoftmaxModel
        Changed in place.
    X : dask array or data frame, shape (N, D)
        Chunked along the rows only, of any sizes, unknown ones among them; dense or of CSR
        matrices.
    y : dask array or series, shape (N,) or (N, C)
        Labels or probabilities, as the model takes them.
    sample_weight : dask array or series, shape (N,), optional
        Factors of the rows' losses, at least 0.
    **options
        ``C, tol, max_iter, checkpoint, callback`` and the others of `softmax_ext.fit_lbfgs`.

    Returns
    -------
    FitResult
        As of `softmax_ext.fit_lbfgs`.

    Raises
    ------
    ValueError, TypeError, IndexError
        As `softmax_ext.fit_lbfgs`, with the number of the chunk; and if X has chunks along its
        features. The model is as it was.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> from softmax_ext.dask import fit_lbfgs
    >>> X = da.from_array(np.array([[0.0], [1.0], [2.0], [3.0]]), chunks=(2, 1))
    >>> y = da.from_array(np.array([0, 0, 1, 1]), chunks=2)
    >>> model = sx.SoftmaxModel.zeros(1, 2, dtype=np.float64)
    >>> fit_lbfgs(model, X, y).success
    True
    """
    chunks = Chunks.of(X, y, sample_weight)
    return fit_objective(model, objective(model, chunks), **options)


def fit_path(
    model: SoftmaxModel,
    X: Any,
    y: Any,
    Cs: ArrayLike,
    *,
    sample_weight: Any = None,
    **options: Any,
) -> PathResult:
    """Find a model's optima for many penalties, as `softmax_ext.fit_path` does.

    Parameters
    ----------
    model, X, y, sample_weight
        As of `fit_lbfgs`.
    Cs : array_like, shape (K,)
        Inverse strengths of the penalty.
    **options
        ``validation_data`` (in memory), ``scoring`` and the others of `softmax_ext.fit_path`.

    Returns
    -------
    PathResult
        As of `softmax_ext.fit_path`.

    Raises
    ------
    ValueError, TypeError, IndexError
        As `fit_lbfgs`.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> from softmax_ext.dask import fit_path
    >>> X = da.from_array(np.array([[0.0], [1.0], [2.0], [3.0]]), chunks=(2, 1))
    >>> y = da.from_array(np.array([0, 0, 1, 1]), chunks=2)
    >>> model = sx.SoftmaxModel.zeros(1, 2, dtype=np.float64)
    >>> fit_path(model, X, y, [0.1, 1.0]).fun.round(2).tolist()
    [2.45, 1.53]
    """
    chunks = Chunks.of(X, y, sample_weight)
    return path_of(model, objective(model, chunks), None, Cs, **options)


def objective(model: SoftmaxModel, chunks: Chunks) -> DaskObjective:
    """Return the objective of chunks for a model's parameters."""
    D, C = model.W.shape
    if chunks.n_features != D:
        raise ValueError(f"X: {chunks.n_features} features came, {D}, as W has rows, were wanted")
    dtype = compute_dtype(chunks.dtype, model.W.dtype)
    make = PieceMaker(
        D, C, model.b is not None, dtype, model.x_scale, 0.0, model.classes, model.kernels
    )
    return DaskObjective(chunks, make)
