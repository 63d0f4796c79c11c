"""`probe`: how much features know, by the usual protocol of linear probes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _files
from .arguments import IGNORED_LABEL, Array, Csr, as_array, as_labels
from .datasets._parts import take_rows
from .model import SoftmaxModel, as_kernels_like
from .solvers import FitResult, PathResult, fit_lbfgs, fit_path
from .solvers.path import joined
from .solvers.reservoir import stacked

#: 45 values from 1e-6 to 1e5, as DINOv2's linear probes have them.
GRID = np.logspace(-6, 5, 45)
#: 97 values from 1e-6 to 1e6, eight to a decade, which CLIP's linear probes are bisected to.
FINE_GRID = np.logspace(-6, 6, 97)
# A bisection begins with every so manyth value: with the powers of 100, of the fine grid.
_COARSE = 16
# One row in so many is held out to choose by, where no validation data is given.
_HOLD_OUT = 10
# Rows of the test data whose logits are held at a time, and the classes that "top 5" counts.
_BLOCK, _TOP = 4096, 5
_DOTS_PER_INCH = 120


class ProbeScore(NamedTuple):
    """How a probe does on test data."""

    n_rows: int
    #: Share of rows whose label is the most probable class, and among the five most probable.
    accuracy: float
    top_5: float
    #: Mean, in nats.
    loss: float


class ProbeResult(NamedTuple):
    """What `probe` found."""

    #: Fitted to training and validation rows; takes features as they are.
    model: SoftmaxModel
    #: The inverse strength of the penalty that was chosen.
    C: float
    #: The fits to the training rows, with the scores on the validation rows.
    path: PathResult
    #: The fit of `model`.
    fit: FitResult
    #: None without test data.
    test: ProbeScore | None

    def save_report(self, folder: str | os.PathLike[str]) -> None:
        """Write ``probe.csv``, a row for each penalty, and the picture ``probe.png`` into a folder.

        Raises
        ------
        ImportError
            If matplotlib is not installed; the table is written.
        OSError
            If a file cannot be written.
        """
        os.makedirs(folder, exist_ok=True)
        path = self.path
        with _files.writing_text(os.path.join(folder, "probe.csv")) as file:
            file.write("C,validation,objective,iterations,converged\n")
            for row in zip(path.Cs, path.scores, path.fun, path.nit, path.success, strict=True):
                file.write("{:.6g},{:.6g},{:.6g},{},{}\n".format(*row))
        figure = path.plot()
        with _files.writing(os.path.join(folder, "probe.png")) as picture:
            figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight")


def probe(
    X: Any,
    y: Any,
    *,
    validation_data: tuple[Any, Any] | None = None,
    test_data: tuple[Any, Any] | None = None,
    Cs: ArrayLike | None = None,
    search: str = "path",
    standardize: bool = True,
    scoring: str | Callable[[SoftmaxModel, Any, Any], float] = "accuracy",
    x_scale: float = 1.0,
    tol: float = 1e-4,
    max_iter: int = 1000,
    callback: Callable[[FitResult], object] | None = None,
    kernels: Any = None,
) -> ProbeResult:
    """Choose the penalty of a linear probe on validation data, refit it, and test it.

    Parameters
    ----------
    X : array_like or CSR, shape (N, D)
        Features: what a frozen network makes of its inputs. Not copied, unless validation data is
        given, whose rows are then put below these.
    y : array_like, shape (N,)
        Class labels: numbers or strings.
    validation_data : tuple (X, y), optional
        What the penalty is chosen by. None: every tenth row, at random with a fixed seed.
    test_data : tuple (X, y), optional
        What the probe is tested on, once.
    Cs : array_like, optional
        Inverse strengths of the penalty to choose from. None: 45 from 1e-6 to 1e5, as DINOv2 [1]_
        has them; to bisect, 97 from 1e-6 to 1e6.
    search : {"path", "bisection"}, optional
        Fit all of the values; or, as CLIP [2]_ does, every 16th of them, then those halfway to the
        neighbours of the best so far, and so on. That finds the best if scores rise to it and fall
        after it. A path of all takes little more time, as each fit leads to the next.
    standardize : bool, optional
        Give all features one scale; see `fit_lbfgs`.
    scoring, tol, max_iter, callback
        As of `fit_path`.
    x_scale, kernels
        As of `SoftmaxModel`.

    Returns
    -------
    ProbeResult
        ``model, C, path, fit, test``.

    Raises
    ------
    ValueError, TypeError
        As `fit_path`; and if validation or test data hold a label that `y` does not.

    References
    ----------
    .. [1] M. Oquab et al., "DINOv2: learning robust visual features without supervision", Trans.
       Mach. Learn. Res. (2024).
    .. [2] A. Radford et al., "Learning transferable visual models from natural language
       supervision", Proc. ICML 139 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(3, size=600)
    >>> X = (rng.normal(size=(600, 8)) + 3 * (y[:, None] == np.arange(8))).astype(np.float32)
    >>> found = sx.probe(X[:500], y[:500], test_data=(X[500:], y[500:]))
    >>> found.test.accuracy > 0.9, len(found.path.Cs)
    (True, 45)
    """
    if search not in ("path", "bisection"):
        raise ValueError(f"search: {search!r} came, 'path' or 'bisection' was wanted")
    X = _features("X", X, None)
    labels = as_labels(as_array("y", y))
    if labels.shape != X.shape[:1]:
        raise ValueError(f"y: shape {labels.shape} came, ({X.shape[0]},) was wanted, as X has rows")
    classes, indices = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y: {len(classes)} classes came, at least 2 were wanted")
    stored = X.data.dtype if isinstance(X, Csr) else X.dtype
    dtype = np.float64 if stored == np.float64 else np.float32
    model = SoftmaxModel.zeros(
        X.shape[1], len(classes), dtype=dtype, classes=classes, x_scale=x_scale, kernels=kernels
    )
    # Without class labels a model takes indices, and with them rows that do not count.
    plain = SoftmaxModel(model.W, model.b, None, x_scale, kernels=kernels)
    target = indices.astype(np.intp)
    if validation_data is None:
        held = np.sort(
            np.random.default_rng(0).permutation(len(target))[: len(target) // _HOLD_OUT]
        )
        if len(held) == 0:
            raise ValueError(f"X: {len(target)} rows came, at least {_HOLD_OUT} were wanted")
        validation = take_rows(X, held), target[held]
        training = X, np.where(np.isin(np.arange(len(target)), held), IGNORED_LABEL, target)
        whole = X, target
    else:
        V = _features("validation_data", validation_data[0], X.shape[1])
        validation = V, model._as_target(validation_data[1], V.shape[0])
        training = X, target
        whole = stacked([X, V]), np.concatenate([target, validation[1]])
    options: dict[str, Any] = {"standardize": standardize, "tol": tol, "max_iter": max_iter}

    def fit_values(values: ArrayLike) -> PathResult:
        return fit_path(
            plain, *training, values, validation_data=validation, scoring=scoring,
            callback=callback, **options,
        )  # fmt: skip

    if search == "bisection":
        path = _bisect(fit_values, np.unique(FINE_GRID if Cs is None else np.asarray(Cs)))
    else:
        path = fit_values(GRID if Cs is None else Cs)
    C = float(path.Cs[path.best])
    fit = fit_lbfgs(plain, *whole, C=C, **options)
    model = SoftmaxModel(plain.W, plain.b, classes, x_scale, kernels=kernels)
    test = None
    if test_data is not None:
        T = _features("test_data", test_data[0], X.shape[1])
        test = _test(plain, T, model._as_target(test_data[1], T.shape[0]))
    return ProbeResult(model, C, path, fit, test)


def _bisect(fit: Callable[[Array], PathResult], Cs: Array) -> PathResult:
    """Fit every so manyth of the values, then those halfway to the neighbours of the best."""
    step = _COARSE
    path = fit(Cs[::step])
    while step > 1:
        step //= 2
        best = int(np.searchsorted(Cs, path.Cs[path.best]))
        between = [k for k in (best - step, best + step) if 0 <= k < len(Cs)]
        new = np.setdiff1d(Cs[between], path.Cs)
        if len(new):
            path = joined(path, fit(new))
    return path


def _features(name: str, X: Any, n_features: int | None) -> Array | Csr:
    """Check features; they are not copied if the kernels can read them."""
    rows: Array | Csr = as_kernels_like(X if hasattr(X, "indptr") else np.asarray(X))
    if len(rows.shape) != 2 or n_features not in (None, rows.shape[1]):
        wanted = "N, D" if n_features is None else f"N, {n_features}"
        raise ValueError(f"{name}: shape {rows.shape} came, ({wanted}) was wanted")
    return rows


def _test(model: SoftmaxModel, X: Any, y: NDArray[np.intp]) -> ProbeScore:
    """Count the rows whose label is the most probable class, and among the most probable."""
    right = among = 0
    for start in range(0, len(y), _BLOCK):
        labels = y[start : start + _BLOCK, None]
        logits = model.logits(take_rows(X, np.arange(start, start + len(labels))))
        above = (logits > np.take_along_axis(logits, labels, axis=1)).sum(axis=1)
        among += int((above < _TOP).sum())
        right += int((logits.argmax(axis=1) == labels[:, 0]).sum())
    n = len(y)
    return ProbeScore(n, right / n, among / n, model.loss(X, y))
