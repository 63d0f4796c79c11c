"""Parameters, labels and weights of rows, checked as scikit-learn does and in its words."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._scikit_learn import (
    SOLVERS,
    LabelEncoder,
    LogisticRegression,
    _check_sample_weight,
    check_classification_targets,
    compute_class_weight,
    validate_data,
)

_Array: TypeAlias = NDArray[Any]

# Any step's gradient is within such a tol.
_EVERY_GRADIENT = 1e300


# Of what X is read in without a copy; anything else becomes the first.
_DTYPES = [np.float64, np.float32, np.uint8]


def validated(estimator: Any, X: Any, *y: Any, **options: Any) -> Any:
    """Return X, and y if it is given, checked by scikit-learn, X as the kernels take it."""
    options["dtype"] = _DTYPES
    return validate_data(estimator, _without_unused(X), *y, **options)


def _without_unused(X: Any) -> Any:
    """Return a CSR matrix without the entries of no row, at which scikit-learn would look."""
    if getattr(X, "format", None) != "csr":
        return X
    first, last = int(X.indptr[0]), int(X.indptr[-1])
    if (first, last) == (0, len(X.data)) or not 0 <= first <= last <= len(X.data):
        return X
    used = slice(first, last)
    return type(X)((X.data[used], X.indices[used], X.indptr - X.indptr[0]), shape=X.shape)


def penalties_of(estimator: Any) -> tuple[float, float]:
    """Return the factors of ||coef||^2 / 2 and |coef|_1, having had the parameters checked.

    With penalty="group" the second is that of the features' norms.
    """
    penalty = getattr(estimator, "penalty", "deprecated")
    if (
        penalty != "deprecated"
        or estimator.l1_ratio != 0
        or math.isinf(estimator.C)
        or estimator.dual
        or getattr(estimator, "n_jobs", None) is not None
    ):
        _have_parameters_checked(estimator)
    if penalty is None or math.isinf(estimator.C):
        return 0.0, 0.0
    ratio = {"l1": 1.0, "l2": 0.0}.get(penalty, estimator.l1_ratio or 0.0)
    if penalty == "group":
        ratio = estimator.l1_ratio or 1.0
    return (1 - ratio) / estimator.C, ratio / estimator.C


def _have_parameters_checked(estimator: Any) -> None:
    """Raise and warn as scikit-learn does for combinations of parameters.

    It checks them in `fit`; here it fits two rows, to a tolerance that any step is within.
    """
    theirs = LogisticRegression()
    shared = {name: getattr(estimator, name) for name in theirs.get_params()}
    shared |= {"tol": _EVERY_GRADIENT, "max_iter": 100, "verbose": 0, "class_weight": None}
    if estimator.solver not in SOLVERS:
        shared["solver"] = "saga"
    if shared.get("penalty") == "group":
        shared |= {"penalty": "deprecated", "l1_ratio": 0.0}
    if estimator.C not in (1.0, math.inf):
        shared["C"] = 2.0  # it tells apart the default, infinity, and the others
    theirs.set_params(**shared).fit([[0.0], [1.0]], [0, 1])


def require_two_classes(classes: _Array) -> None:
    if len(classes) < 2:
        raise ValueError(
            "This solver needs samples of at least 2 classes in the data, but the data "
            f"contains only one class: {classes[0]!r}"
        )


def classes_and_indices(y: _Array) -> tuple[_Array, _Array]:
    """Return the classes among labels, sorted, and each label's index."""
    check_classification_targets(y)
    classes = np.unique(y)
    require_two_classes(classes)
    if y.dtype.kind in "iu" and classes[0] == 0 and classes[-1] == len(classes) - 1:
        return classes, y
    return classes, np.searchsorted(classes, y)


def indices_among(y: _Array, classes: _Array) -> _Array:
    """Return the indices of labels in known classes; probabilities as they are."""
    if y.ndim == 1:
        check_classification_targets(y)
        encoder = LabelEncoder()
        encoder.classes_ = classes
        indices: _Array = encoder.transform(y)
        return indices
    if y.shape[1] != len(classes):
        raise ValueError(
            f"y: probabilities of {y.shape[1]} classes came, {len(classes)} were wanted"
        )
    if (y < 0).any():
        raise ValueError(f"y: {y.min()} came, probabilities of at least 0 were wanted")
    return y


def is_soft(y: Any) -> bool:
    """Whether y is rows of probabilities rather than labels."""
    y = y if hasattr(y, "ndim") else np.asarray(y)
    if y.ndim != 2 or y.shape[1] < 2:
        return False
    dtypes = y.dtypes if hasattr(y, "dtypes") else [y.dtype]
    return all(getattr(dtype, "kind", "") == "f" for dtype in dtypes)


def row_weights(
    sample_weight: Any, class_weight: Any, X: Any, y: _Array, classes: _Array
) -> NDArray[np.float64] | None:
    """Return each row's sample weight times its class's weight; None if all are 1."""
    if sample_weight is None and class_weight is None:
        return None
    weight: NDArray[np.float64] = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True, copy=True
    )
    if not weight.any():
        # scikit-learn 1.8 lets them pass.
        raise ValueError("Sample weights must contain at least one non-zero number.")
    if class_weight is None:
        return weight
    if y.ndim == 2:
        raise ValueError(
            f"class_weight: {class_weight!r:.80} came with probabilities for y, None was wanted; "
            "give their rows a sample_weight"
        )
    # Rows without weight have no part in the balance, as if they were not there.
    rows = np.flatnonzero(weight)
    labels = y[rows]
    present = np.unique(labels) if class_weight == "balanced" else classes
    of_class = compute_class_weight(
        class_weight, classes=present, y=labels, sample_weight=weight[rows]
    )
    bad = of_class[~((of_class >= 0) & (of_class < math.inf))]
    if bad.size:
        raise ValueError(f"class_weight: {bad[0]} came, finite numbers of at least 0 were wanted")
    weight[rows] *= of_class[np.searchsorted(present, labels)]
    return weight


def require_weight(weight: NDArray[np.float64] | None) -> None:
    if weight is not None and not weight.any():
        raise ValueError("class_weight: 0 came for every row's class, one above 0 was wanted")
