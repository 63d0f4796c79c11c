"""Softmax regression on Dask arrays and data frames, on one machine or on many.

``LogisticRegression`` for those who know scikit-learn's, and `fit_lbfgs` for a `SoftmaxModel`. Each
evaluation of loss and gradient is one task for each chunk; the parameters go to each worker once,
what comes back is a gradient, and nothing that has a row for each example leaves the workers.

Sums are added up in the order of the chunks: on one worker, on many, and after one has died, the
bits are the same, as long as the workers' processors have the same instruction sets. They depend on
how the rows are chunked, in their last digits.

Work goes to the client that is current (`dask.distributed.Client`), or else to the scheduler that
Dask would take, its threads. Every evaluation computes the chunks again that are not in memory: to
keep them there, hand over ``X.persist()`` and ``y.persist()``. A task uses the part of its worker's
threads that it has for itself: one thread, unless the worker has more of
``SOFTMAX_EXT_NUM_THREADS`` than of Dask's. Needs ``pip install 'softmax-ext[dask]'``.
"""

# First, for its error where Dask is missing.
from . import _chunks  # isort: skip  # noqa: F401
from ._estimator import LogisticRegression
from ._fit import fit_lbfgs

__all__ = ["LogisticRegression", "fit_lbfgs"]
