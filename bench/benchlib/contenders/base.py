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


def classes_along(workload: Workload, data: Data) -> tuple[NDArray[Any], int]:
    """Return the logits as a user has them, in C order, and the axis of the classes."""
    return (data.logits.T, 0) if workload.columns else (data.logits, -1)


def one_from(workload: Workload) -> Callable[[Any], Answer]:
    """Return what reads the single result of a function of `classes_along`."""
    return (lambda result: (np.asarray(result).T,)) if workload.columns else one


def batches(data: Data) -> Callable[[], NDArray[np.intp]]:
    """Return a function that gives the next minibatch's rows, for ever."""
    return cycle(data.batches).__next__
