"""Several fits to the same data that share its readings.

Each fit runs in a thread of its own, on an objective that hands its points over and waits. When all
that have not ended wait, one reading evaluates their points together, side by side in one product.
So the readings are as many as the longest fit has evaluations, and each fit does what it would do
alone, but for the rounding of sums over many rows, which are cut otherwise for wider products.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..datasets.blocks import Blocks
from .fit import minimize, without_rows
from .objective import Doubles, Evaluation, Floats, Objective, Sample
from .result import FitResult

_Result = TypeVar("_Result")


class ManyPoints(Objective, Protocol):
    """An objective that several points cost one reading."""

    def values_and_gradients(self, thetas: Sequence[Doubles]) -> list[Evaluation]:
        """Evaluate at several points."""


def minimize_many(
    X: Any,
    W: NDArray[Any],
    b: NDArray[Any] | None,
    l2: Sequence[float],
    **options: Any,
) -> list[FitResult]:
    """Find the optima for several penalties, with the readings of one fit.

    Parameters
    ----------
    X : Blocks, or an objective that has ``values_and_gradients`` too
        The data.
    W : ndarray, shape (D, C)
        Where all begin.
    b : ndarray, shape (C,), or None
        As of `minimize`.
    l2 : sequence of float
        The penalties. What a fit keeps beside its data (preconditioner, last steps), up to some
        60 MiB, it keeps for each of them at the same time.
    **options
        ``x_scale, tol, max_iter, label_smoothing, standardize, precondition, kernels``, as of
        `minimize`.

    Returns
    -------
    list of FitResult
        One for each penalty. Most readings that one of them took: the largest ``nfev``, and a few
        for samples.

    Raises
    ------
    ValueError, TypeError, IndexError
        As `minimize`.

    Examples
    --------
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> from softmax_ext.solvers import minimize_many
    >>> data = sx.Blocks([np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])], [0, 0, 1, 1])
    >>> found = minimize_many(data, np.zeros((1, 2)), np.zeros(2), [10.0, 1.0])
    >>> [round(result.fun, 3) for result in found]
    [2.452, 1.527]
    """
    of_blocks = ("x_scale", "label_smoothing", "kernels")
    own = {name: options.pop(name) for name in of_blocks if name in options}
    if not isinstance(X, Blocks):
        if not hasattr(X, "values_and_gradients"):
            raise TypeError(
                f"X: {type(X).__name__} came, Blocks or an objective that has values_and_gradients "
                "was wanted"
            )
        if own:
            raise TypeError(f"{next(iter(own))}: came beside an objective, which has its own")
    losses: Any
    losses, W, b = without_rows(
        X, W, b, own.get("x_scale", 1.0), own.get("label_smoothing", 0.0), own.get("kernels")
    )

    def fit(penalty: float) -> Callable[[Objective], FitResult]:
        return lambda seat: minimize(seat, None, W, b, l2=penalty, **options)

    return run_together(losses, [fit(penalty) for penalty in l2])


def run_together(
    objective: ManyPoints, fits: Sequence[Callable[[Objective], _Result]]
) -> list[_Result]:
    """Run fits, each a function of an objective; return what they do.

    Raises
    ------
    BaseException
        The first that one of them, or a reading, raised; the others are then given up.
    """
    table = _Table(objective, len(fits))
    results: list[Any] = [None] * len(fits)

    def run(k: int, fit: Callable[[Objective], _Result]) -> None:
        try:
            results[k] = fit(_Seat(objective, table, k))
        except _GivenUpError:
            pass
        except BaseException as error:
            table.leave(k, error)
        finally:
            table.leave(k)

    threads = [
        threading.Thread(target=run, args=item, name="softmax_ext fit", daemon=True)
        for item in enumerate(fits)
    ]
    try:
        for thread in threads:
            thread.start()
        table.serve()
    finally:
        table.give_up()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    return results


class _GivenUpError(BaseException):
    """Ends a fit that nobody waits for any more."""


class _Table:
    """Where fits hand over their points."""

    def __init__(self, objective: ManyPoints, n: int) -> None:
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._objectives: dict[np.dtype[Any], ManyPoints] = {objective.dtype: objective}
        self._active = set(range(n))
        self._asked: dict[int, tuple[np.dtype[Any], Doubles]] = {}
        self._found: dict[int, Evaluation] = {}
        self._error: BaseException | None = None
        self._is_over = False

    def of(self, dtype: np.dtype[Any]) -> ManyPoints:
        """The objective in a dtype."""
        with self.lock:
            if dtype not in self._objectives:
                self._objectives[dtype] = next(iter(self._objectives.values())).in_float64()  # type: ignore[assignment]
            return self._objectives[dtype]

    def ask(self, k: int, dtype: np.dtype[Any], theta: Doubles) -> Evaluation:
        with self._changed:
            self._asked[k] = dtype, theta.copy()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_over or k in self._found)
            if self._is_over:
                raise _GivenUpError
            return self._found.pop(k)

    def leave(self, k: int, error: BaseException | None = None) -> None:
        with self._changed:
            self._active.discard(k)
            self._error = self._error or error
            self._changed.notify_all()

    def give_up(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def serve(self) -> None:
        """Evaluate, until all have left."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._error or self._active <= set(self._asked))
                if self._error is not None:
                    raise self._error
                if not self._active:
                    return
                asked, self._asked = self._asked, {}
            found: dict[int, Evaluation] = {}
            # The few that went on to float64 are read for by themselves.
            for dtype in sorted({dtype for dtype, _ in asked.values()}, key=str):
                chosen = [k for k in sorted(asked) if asked[k][0] == dtype]
                with self.lock:
                    objective = self.of(dtype)
                results = objective.values_and_gradients([asked[k][1] for k in chosen])
                found.update(zip(chosen, results, strict=True))
            with self._changed:
                self._found.update(found)
                self._changed.notify_all()


class _Seat:
    """The objective as one of the fits sees it. Keeps the protocol `objective.Objective`."""

    def __init__(self, objective: Objective, table: _Table, k: int) -> None:
        self._table, self._k = table, k
        self.shape, self.has_intercept = objective.shape, objective.has_intercept
        self.dtype, self.is_sparse = objective.dtype, objective.is_sparse
        self.kernels = getattr(objective, "kernels", None)

    @property
    def n_rows(self) -> int:
        with self._table.lock:
            return self._table.of(self.dtype).n_rows

    @property
    def cost(self) -> float:
        with self._table.lock:
            return self._table.of(self.dtype).cost

    def value_and_gradient(self, theta: Doubles) -> Evaluation:
        """Evaluate at a point, with those of the other fits; see the protocol."""
        return self._table.ask(self._k, self.dtype, theta)

    def hessian_product(self, theta: Doubles, V: Doubles) -> Floats:
        """Return the Hessian at a point times a direction; see the protocol."""
        with self._table.lock:
            return self._table.of(self.dtype).hessian_product(theta, V)

    def moments(self) -> tuple[Doubles, Doubles]:
        """Return the features' means and deviations; see the protocol."""
        with self._table.lock:
            return self._table.of(self.dtype).moments()

    def sample(self, n: int, *, by_length: bool) -> Sample:
        """Draw n rows by their weight; see the protocol."""
        with self._table.lock:
            return self._table.of(self.dtype).sample(n, by_length=by_length)

    def in_float64(self) -> Objective:
        """Return the same sum, computed in float64."""
        return _Seat(self._table.of(np.dtype(np.float64)), self._table, self._k)
