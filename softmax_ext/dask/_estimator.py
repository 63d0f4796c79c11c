"""`LogisticRegression` on Dask collections."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..arguments import IGNORED_LABEL, as_labels
from ..datasets._parts import Piece
from ..model import SoftmaxModel
from ._chunks import Chunks, Engine, joined
from ._fit import fit_lbfgs


class LogisticRegression:
    """Multinomial logistic regression on Dask arrays and data frames.

    Named and used as scikit-learn's. It minimises ``sum_i s_i loss_i + ||coef||^2 / (2 C)``.

    Parameters
    ----------
    C : float, optional
        Inverse strength of the penalty; infinity: none.
    fit_intercept : bool, optional
        Whether there are intercepts, which are not penalised.
    tol, max_iter
        As of `softmax_ext.fit_lbfgs`.
    classes : array_like, optional
        The labels that there are; None: they are looked for, in a pass over y.
    dtype : float32 or float64, optional
        Of the parameters. None: that of X, float64 if it is of integers but for bytes.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
        The labels, sorted.
    coef_ : ndarray (n_classes, D), or (1, D) for two classes
        Weights; for two classes those of the second against the first.
    intercept_ : ndarray (n_classes,) or (1,)
        Intercepts; zeros without.
    n_iter_ : ndarray (1,)
        Iterations.
    n_features_in_ : int
        D.
    model_ : SoftmaxModel
        What predicts; ``model_.save(path)`` writes it.
    result_ : FitResult
        How the fit ended.

    Notes
    -----
    For two classes, too, each has weights of its own while the fit goes on. The penalty is that of
    scikit-learn's multinomial objective: with two classes `C` here is half of scikit-learn's.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from softmax_ext.dask import LogisticRegression
    >>> X = da.from_array(np.array([[0.0], [1.0], [2.0], [3.0]]), chunks=(2, 1))
    >>> y = da.from_array(np.array(["cat", "cat", "dog", "dog"]), chunks=2)
    >>> model = LogisticRegression().fit(X, y)
    >>> model.predict(X).compute().tolist()
    ['cat', 'cat', 'dog', 'dog']
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        fit_intercept: bool = True,
        tol: float = 1e-4,
        max_iter: int = 1000,
        classes: ArrayLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes
        self.dtype = dtype

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name, as scikit-learn asks for them."""
        names = ("C", "fit_intercept", "tol", "max_iter", "classes", "dtype")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> LogisticRegression:
        """Set parameters by name."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{name}: no such parameter, one of {', '.join(known)} was wanted")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        plain: Mapping[str, Any] = type(self)().get_params()
        given = [f"{k}={v!r}" for k, v in self.get_params().items() if v is not plain[k]]
        return f"LogisticRegression({', '.join(given)})"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LogisticRegression:
        """Fit to the rows in all chunks.

        Parameters
        ----------
        X : dask array or data frame, shape (N, D)
        y : dask array or series, shape (N,)
            Labels: numbers or strings.
        sample_weight : dask array or series, shape (N,), optional

        Raises
        ------
        ValueError, TypeError
            As `softmax_ext.dask.fit_lbfgs`; and if there are fewer than two classes.

        Warns
        -----
        RuntimeWarning
            If the fit has not reached `tol`.
        """
        chunks = Chunks.of(X, y, sample_weight)
        labels = self._find_classes(chunks)
        if len(labels) < 2:
            raise ValueError(
                f"y: {len(labels)} class{'es' * (len(labels) != 1)} came, at least two were wanted"
            )
        dtype = self.dtype
        if dtype is None:
            is_single = chunks.dtype in (np.float32, np.uint8) or chunks.dtype.itemsize == 2
            dtype = np.float32 if is_single and chunks.dtype.kind != "i" else np.float64
        shape = chunks.n_features, len(labels)
        bias = np.zeros(shape[1], dtype) if self.fit_intercept else None
        model = SoftmaxModel(np.zeros(shape, dtype), bias, labels)
        result = fit_lbfgs(
            model, X, y, sample_weight=sample_weight, C=self.C, tol=self.tol, max_iter=self.max_iter
        )
        self.model_, self.result_, self.classes_ = model, result, labels
        self.n_features_in_, self.n_iter_ = shape[0], np.array([result.nit])
        if not result.success:
            warnings.warn(f"not converged: {result.message}", RuntimeWarning, stacklevel=2)
        return self

    def _find_classes(self, chunks: Chunks) -> NDArray[Any]:
        if self.classes is not None:
            given: NDArray[Any] = np.sort(as_labels(np.asarray(self.classes)))
            return given
        engine = Engine(len(chunks.X))
        found = chunks.labels_only().reduced(engine, _classes, joined)
        return np.zeros(0) if found is None else found

    @property
    def coef_(self) -> NDArray[Any]:
        """Weights, as scikit-learn has them."""
        W: NDArray[Any] = self._fitted().W.T
        result: NDArray[Any] = W[1:] - W[:1] if len(W) == 2 else W.copy()
        return result

    @property
    def intercept_(self) -> NDArray[Any]:
        """Intercepts, as scikit-learn has them."""
        model = self._fitted()
        b = np.zeros(model.W.shape[1], model.W.dtype) if model.b is None else model.b
        return b[1:] - b[:1] if len(b) == 2 else b.copy()

    def predict(self, X: Any) -> da.Array:
        """Return the labels (N,), a Dask array that is computed when it is asked for."""
        model = self._fitted()
        assert model.classes is not None
        return self._mapped(X, _predict, model.classes.dtype, drop_axis=1)

    def predict_proba(self, X: Any) -> da.Array:
        """Return the probabilities (N, n_classes), a Dask array in the same way."""
        W = self._fitted().W
        return self._mapped(X, _predict_proba, W.dtype, new_columns=W.shape[1])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows, by weight, whose predicted label is theirs."""
        chunks = Chunks.of(X, y, sample_weight)
        engine = Engine(len(chunks.X))
        right, total = chunks.reduced(engine, _score, _add_up, self._fitted())
        return float(right / total) if total else float("nan")

    def _fitted(self) -> SoftmaxModel:
        if not hasattr(self, "model_"):
            raise AttributeError("this LogisticRegression has not been fitted yet; call fit first")
        return self.model_

    def _mapped(
        self,
        X: Any,
        work: Any,
        dtype: np.dtype[Any],
        drop_axis: int | None = None,
        new_columns: int | None = None,
    ) -> da.Array:
        model = self._fitted()
        Chunks.of(X)  # refuses what it is not made for
        X = X if isinstance(X, da.Array) else X.to_dask_array()
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X: {X.shape[1]} features came, {self.n_features_in_}, as in fit, were wanted"
            )
        axes = X.chunks[:1] if new_columns is None else (X.chunks[0], (new_columns,))
        return X.map_blocks(
            work, model, dtype=dtype, drop_axis=[] if drop_axis is None else drop_axis,
            chunks=axes, meta=np.empty((0,) * len(axes), dtype),
        )  # fmt: skip


def _rows(X: Any) -> Any:
    return X if hasattr(X, "indptr") else np.asarray(X)


def _predict(X: Any, model: SoftmaxModel) -> NDArray[Any]:
    return model.predict(_rows(X))


def _predict_proba(X: Any, model: SoftmaxModel) -> NDArray[Any]:
    return model.predict_proba(_rows(X))


def _classes(piece: Piece) -> NDArray[Any] | None:
    """The different labels of a chunk; None if it is empty."""
    labels = as_labels(piece.y)
    if labels.ndim != 1:
        raise ValueError(f"y: shape {labels.shape} came, labels (n,) were wanted")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("y: NaN or infinity came, labels were wanted")
    return np.unique(labels) if len(labels) else None


def _score(piece: Piece, model: SoftmaxModel) -> tuple[float, float]:
    n = piece.X.shape[0]
    if not n:
        return 0.0, 0.0
    target = model._as_target(piece.y, n)
    right = model._predict_indices(model._flatten(piece.X)) == target
    weight = np.ones(n) if piece.sample_weight is None else np.asarray(piece.sample_weight)
    weight = np.where(target == IGNORED_LABEL, 0, weight)
    return float(weight @ right), float(weight.sum())


def _add_up(parts: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(a for a, _ in parts), sum(b for _, b in parts)
