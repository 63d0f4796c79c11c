"""Estimators for scikit-learn: `LogisticRegression` in its own's place, and `SoftmaxRegression`.

``from softmax_ext.sklearn import LogisticRegression`` takes the place of the line that imports it
from ``sklearn.linear_model``; the script stays as it is. What these classes share with
scikit-learn's they inherit from it; here is what finds the weights, and what predicts from them.
"""

# First, for its error where scikit-learn is missing.
from . import _scikit_learn  # isort: skip  # noqa: F401
from ._cv import LogisticRegressionCV
from ._logistic import LogisticRegression
from ._softmax import SoftmaxRegression

__all__ = ["LogisticRegression", "LogisticRegressionCV", "SoftmaxRegression"]
