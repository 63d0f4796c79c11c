"""The parameters of `SoftmaxRegression`, which documents them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from ._logistic import LogisticRegression
from ._scikit_learn import SOLVERS, Interval, StrOptions

_PENALTIES = LogisticRegression._parameter_constraints["penalty"]


class SoftmaxParameters(LogisticRegression):
    """What `SoftmaxRegression` is made with: scikit-learn's parameters, and more."""

    _dtype_for_bytes = np.float32

    _parameter_constraints = {  # noqa: RUF012  (as scikit-learn has it)
        **LogisticRegression._parameter_constraints,
        "solver": [StrOptions({*SOLVERS, "sgd"})],
        "penalty": [StrOptions({*_PENALTIES[0].options, "group"}), *_PENALTIES[1:]],
        "x_scale": [Interval(Real, None, None, closed="neither")],
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
        "epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "schedule": [StrOptions({"constant", "invscaling", "cosine"})],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "momentum": [Interval(Real, 0, None, closed="left")],
        "average": ["boolean"],
        "shuffle": ["boolean"],
        "early_stopping": ["boolean"],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        penalty: str | None = "deprecated",
        *,
        C: float = 1.0,
        l1_ratio: float = 0.0,
        dual: bool = False,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: dict[Any, float] | str | None = None,
        random_state: Any = None,
        solver: str = "lbfgs",
        max_iter: int = 100,
        verbose: int = 0,
        warm_start: bool = False,
        n_jobs: int | None = None,
        standardize: bool = False,
        x_scale: float = 1.0,
        label_smoothing: float = 0.0,
        epochs: int | str = "auto",
        batch_size: int = 256,
        learning_rate: float = 0.1,
        schedule: str = "constant",
        power_t: float = 0.5,
        momentum: float = 0.0,
        average: bool = False,
        shuffle: bool = True,
        early_stopping: bool = False,
        n_iter_no_change: int = 5,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.standardize = standardize
        self.x_scale = x_scale
        self.label_smoothing = label_smoothing
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.power_t = power_t
        self.momentum = momentum
        self.average = average
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks

    @property
    def _x_scale(self) -> float:  # type: ignore[override]
        return self.x_scale
