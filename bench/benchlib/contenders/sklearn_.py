"""scikit-learn: `LogisticRegression`'s predictions, and the loss its solvers minimise.

Beside it our face of it, which the same user gets by changing an import.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchlib import truth
from benchlib.contenders import Builder, Job, arrays
from benchlib.data import LEARNING_RATE, Data, UnsuitedError, order_of
from benchlib.workloads import Workload
from softmax_ext import sklearn as face

try:
    # Private, and the only door to what LogisticRegression computes in each iteration.
    from sklearn._loss import HalfMultinomialLoss
    from sklearn.linear_model._linear_loss import LinearModelLoss
except ImportError:
    LinearModelLoss = None


def _prediction(estimator: Any, workload: Workload, data: Data) -> Any:
    model = estimator()
    model.classes_ = np.arange(len(data.b))
    model.coef_, model.intercept_ = data.W.T.copy(), data.b
    model.n_features_in_ = len(data.W)
    return partial(getattr(model, workload.op), data.X)


def _gradient(workload: Workload, data: Data) -> Job:
    if LinearModelLoss is None:
        raise UnsuitedError("this scikit-learn has no LinearModelLoss")
    if workload.x_dtype != workload.dtype or workload.batch or workload.with_dX:
        raise UnsuitedError("its loss takes all rows as floats and gives no dX")
    if workload.classes < 3:
        raise UnsuitedError("its multinomial loss wants three classes")
    loss = LinearModelLoss(HalfMultinomialLoss(n_classes=workload.classes), fit_intercept=True)
    coef = np.asfortranarray(np.column_stack([data.W.T, data.b]))
    y, threads = data.y.astype(coef.dtype), int(os.environ["OMP_NUM_THREADS"])

    def read(result: Any) -> Any:
        value, gradient = result
        return arrays((value, gradient[:, :-1].T, gradient[:, -1]))

    return Job(partial(loss.loss_gradient, coef, data.X, y, n_threads=threads), read)


def _epoch(workload: Workload, data: Data) -> Job:
    model = face.SoftmaxRegression(
        solver="sgd", epochs=1, batch_size=workload.batch, learning_rate=LEARNING_RATE, C=np.inf,
        x_scale=data.x_scale, random_state=0,
    )  # fmt: skip
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)  # as the estimator draws it
    return Job(
        lambda: model.fit(data.X, data.y),
        lambda fit: arrays((fit.coef_.T, fit.intercept_)),
        lambda: truth.epoch(workload, data, order_of(workload, seed)),
    )


_PREDICTIONS = ("predict", "predict_proba")

CONTENDERS: dict[str, dict[str, Builder]] = {
    "scikit-learn": {
        **dict.fromkeys(_PREDICTIONS, partial(_prediction, LogisticRegression)),
        "linear_cross_entropy_with_grad": _gradient,
    },
    "ours, by softmax_ext.sklearn": {
        **dict.fromkeys(_PREDICTIONS, partial(_prediction, face.LogisticRegression)),
        "epoch": _epoch,
    },
}
