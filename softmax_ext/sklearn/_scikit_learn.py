"""All that comes from scikit-learn, its private names among it."""

from __future__ import annotations

try:
    from sklearn.base import _fit_context
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.linear_model import LogisticRegressionCV as ScikitLearnsCV
    from sklearn.linear_model._logistic import _log_reg_scoring_path, _logistic_regression_path
    from sklearn.preprocessing import LabelEncoder
    from sklearn.utils._param_validation import Interval, StrOptions
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import (
        _check_partial_fit_first_call,
        check_classification_targets,
    )
    from sklearn.utils.optimize import _check_optimize_result
    from sklearn.utils.parallel import Parallel
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_is_fitted,
        check_random_state,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        "softmax_ext.sklearn needs scikit-learn 1.8 or newer: pip install 'softmax-ext[sklearn]'",
        name=error.name,
    ) from error

#: The names of its solvers.
SOLVERS = LogisticRegression._parameter_constraints["solver"][0].options

__all__ = [
    "SOLVERS",
    "ConvergenceWarning",
    "Interval",
    "LabelEncoder",
    "LogisticRegression",
    "Parallel",
    "ScikitLearnsCV",
    "StrOptions",
    "_check_optimize_result",
    "_check_partial_fit_first_call",
    "_check_sample_weight",
    "_fit_context",
    "_log_reg_scoring_path",
    "_logistic_regression_path",
    "check_classification_targets",
    "check_is_fitted",
    "check_random_state",
    "compute_class_weight",
    "validate_data",
]
