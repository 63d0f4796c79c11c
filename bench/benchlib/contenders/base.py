"""What a contender is made of."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchlib.data import Data
from benchlib.truth import Answer
from benchlib.workloads import Workload


class Job(NamedTuple):
    """One contender made ready for one workload."""

    #: Does the work once; this and nothing else is timed.
    run: Callable[[], Any]
    #: Turns what `run` returned into NumPy arrays, in the order of `truth.compute`.
    read: Callable[[Any], Answer]
    #: The right answer, where it is not that of `truth.compute`.
    answer: Callable[[], Answer] | None = None


class UnsuitedError(Exception):
    """The contender does not do this job on this machine; the message says why."""


Builder = Callable[[Workload, Data], Job]


def one(result: Any) -> Answer:
    """Read a result that is a single array or number."""
    return (np.asarray(result),)


def batches(data: Data) -> Callable[[], NDArray[np.intp]]:
    """Return a function that gives the next minibatch's rows, for ever."""
    return cycle(data.batches).__next__
