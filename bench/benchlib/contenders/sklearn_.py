"""scikit-learn: `LogisticRegression`'s predictions, and the loss its solvers minimise."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchlib.contenders.base import Builder, Job, UnsuitedError, one
from benchlib.data import Data
from benchlib.workloads import Workload

try:
    # Private, and the only door to what LogisticRegression computes in each iteration.
    from sklearn._loss import HalfMultinomialLoss
    from sklearn.linear_model._linear_loss import LinearModelLoss
except ImportError:
    LinearModelLoss = None


def _estimator(data: Data) -> LogisticRegression:
    model = LogisticRegression()
    model.classes_ = np.arange(len(data.b))
    model.coef_, model.intercept_ = data.W.T.copy(), data.b
    model.n_features_in_ = len(data.W)
    return model


def _predict(workload: Workload, data: Data) -> Job:
    model = _estimator(data)
    return Job(lambda: model.predict(data.X), one)


def _predict_proba(workload: Workload, data: Data) -> Job:
    model = _estimator(data)
    return Job(lambda: model.predict_proba(data.X), one)


def _linear_cross_entropy_with_grad(workload: Workload, data: Data) -> Job:
    if LinearModelLoss is None:
        raise UnsuitedError("this scikit-learn has no LinearModelLoss")
    if workload.x_dtype == "uint8" or workload.batch or workload.with_dX:
        raise UnsuitedError("its loss takes all rows as floats and gives no dX")
    if workload.classes < 3:
        raise UnsuitedError("its multinomial loss wants three classes")
    loss = LinearModelLoss(HalfMultinomialLoss(n_classes=workload.classes), fit_intercept=True)
    coef = np.asfortranarray(np.column_stack([data.W.T, data.b]))
    y = data.y.astype(coef.dtype)
    threads = int(os.environ["OMP_NUM_THREADS"])

    def run() -> Any:
        return loss.loss_gradient(coef, data.X, y, n_threads=threads)

    def read(result: Any) -> Any:
        value, gradient = result
        return np.asarray(value), gradient[:, :-1].T, gradient[:, -1]

    return Job(run, read)


CONTENDERS: dict[str, dict[str, Builder]] = {
    "scikit-learn": {
        "predict": _predict,
        "predict_proba": _predict_proba,
        "linear_cross_entropy_with_grad": _linear_cross_entropy_with_grad,
    }
}
