"""What the solvers ask of the data: the protocols `Objective` and `Sample`.

Nothing in them says where the rows are. `arrays.ArrayObjective` has them in memory; one that reads
them block by block, or adds up what several machines found, is solved by the same code.

Parameters and gradients are one array each: W (D, C), and below it, if there are intercepts, b.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Doubles: TypeAlias = NDArray[np.float64]
_Scalar = TypeVar("_Scalar", bound=np.generic)


def split(
    theta: NDArray[_Scalar], has_intercept: bool
) -> tuple[NDArray[_Scalar], NDArray[_Scalar] | None]:
    """Return W, and b or None, as views of parameters or of a gradient."""
    D = len(theta) - has_intercept
    return theta[:D], theta[D] if has_intercept else None


class Evaluation(NamedTuple):
    """The sum of the rows' weighted losses at a point."""

    #: The sum, in nats.
    value: float
    #: Its gradient, in the shape of the parameters; valid until the next evaluation.
    gradient: Floats
    #: The sum of the weights of the rows that count, the same at every point.
    total_weight: float


class Columns(NamedTuple):
    """Some columns of a matrix, one after the other."""

    #: What they hold, but for zeros.
    values: Floats
    #: The rows of the values.
    rows: NDArray[np.int32]
    #: Where each column begins, and where the last one ends.
    begins: NDArray[np.int64]


class Objective(Protocol):
    """The sum of the rows' weighted losses as a function of the parameters, without penalties.

    The solver multiplies by its attribute `kernels` if it has one, else by the default ones.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Of the parameters: (D, C), or (D + 1, C) with intercepts."""

    @property
    def has_intercept(self) -> bool:
        """Whether the last row of the parameters is b."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """What losses and gradients are computed in; points that it cannot hold are not asked."""

    @property
    def n_rows(self) -> int:
        """Rows, those without weight among them."""

    @property
    def is_sparse(self) -> bool:
        """Whether most features of a row are 0."""

    @property
    def cost(self) -> float:
        """How long an evaluation takes, in multiplications."""

    def value_and_gradient(self, theta: Doubles) -> Evaluation:
        """Evaluate at a point.

        Raises
        ------
        ValueError
            In the first evaluation, for data that has no finite loss or no row that counts.
            Afterwards a loss that is not finite tells the line search to take a shorter step.
        """

    def hessian_product(self, theta: Doubles, V: Doubles) -> Floats:
        """Return the Hessian at a point times a direction V, both in the parameters' shape.

        Valid until the next product.
        """

    def sample(self, n: int, *, by_length: bool) -> Sample:
        """Draw n rows, or all that have weight if they are no more, by their weight.

        Equal calls return equal samples.

        Parameters
        ----------
        n : int
            How many.
        by_length : bool
            Whether long rows, which have the larger part in the Hessian, are to be likelier.
        """

    def moments(self) -> tuple[Doubles, Doubles]:
        """Return the means and deviations (D,) of the features, by the weights of all rows.

        In float64, from the rows that count. 0 for the deviation of a feature that never changes.
        """

    def in_float64(self) -> Objective:
        """Return the same sum, computed in float64."""


@runtime_checkable
class ColumnObjective(Objective, Protocol):
    """An objective that also has the features' columns and the rows' probabilities at hand."""

    def columns(self, features: NDArray[np.intp]) -> Columns:
        """Return some columns."""

    def masses(self) -> Doubles:
        """Return the rows' weights, times the sums of their targets, shape (N,)."""

    def all_probabilities(self, theta: Doubles) -> Floats:
        """Return the probabilities (N, C) of the classes of all rows."""


class Sample(Protocol):
    """Some rows that stand for all of them, and the scales of the features."""

    @property
    def factors(self) -> Doubles:
        """The share of the whole weight that each row stands for, shape (n,)."""

    @property
    def lengths(self) -> Floats:
        """Each standardised row's squared length, divided by the mean of all rows' (n,).

        Ones, if rows were not drawn by them.
        """

    @property
    def mean(self) -> Doubles:
        """What is subtracted from the features (D,): their means; 0 without intercepts."""

    @property
    def scale(self) -> Doubles:
        """What they are divided by (D,): their deviations from that, never 0."""

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Which features do not change within the sample (D,)."""

    def rows(self, chosen: NDArray[np.intp]) -> Iterator[tuple[slice, Floats]]:
        """Yield some of its rows by pieces: the places in `chosen`, and the rows, dense (., D)."""

    def probabilities(self, theta: Doubles) -> Floats:
        """Return the probabilities (n, C) of its rows' classes at a point."""
