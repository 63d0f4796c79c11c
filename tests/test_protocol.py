"""An objective of the user's: the one of the documentation, on two processes."""

import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest

import softmax_ext as sx
from softmax_ext.solvers import minimize, objective_of

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "many-machines.md"
N, D, C = 3000, 20, 4


def problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D)).astype(np.float32)
    return X, (X @ rng.normal(size=(D, C)) + 2 * rng.gumbel(size=(N, C))).argmax(1)


def all_ranks():
    """The class that the page shows."""
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if "class AllRanks" in block
    )
    names = {}
    exec(code, names)
    return names["AllRanks"]


class Pair:
    """What mpi4py's communicator does, between two processes at the ends of a pipe."""

    def __init__(self, rank, connection):
        self.rank, self._connection = rank, connection

    def _exchange(self, value):
        # In turns: if both sent first, each would wait for the other to read it.
        if self.rank == 0:
            self._connection.send(value)
            return value, self._connection.recv()
        other = self._connection.recv()
        self._connection.send(value)
        return other, value

    def allreduce(self, value):
        first, second = self._exchange(value)
        return first + second

    def bcast(self, value):
        return self._exchange(value)[0]


def fit(rank, connection):
    X, y = problem()
    rows = slice(0, N // 2) if rank == 0 else slice(N // 2, N)
    model = sx.SoftmaxModel.zeros(D, C)
    mine = objective_of(model, sx.Blocks([X[rows]], [y[rows]]))
    result = sx.fit_lbfgs(model, all_ranks()(mine, Pair(rank, connection)), tol=1e-6)
    return model.W, result


def other_rank(connection):
    W, result = fit(1, connection)
    connection.send((W, result.fun))


def test_two_processes_add_up():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=other_rank, args=(theirs,))
    process.start()
    try:
        W, result = fit(0, ours)
        other_W, other_fun = ours.recv()
    finally:
        process.join(30)
    assert process.exitcode == 0
    assert result.success
    np.testing.assert_array_equal(W, other_W)
    assert result.fun == other_fun
    X, y = problem()
    whole = sx.SoftmaxModel.zeros(D, C)
    expected = sx.fit_lbfgs(whole, X, y, tol=1e-6)
    assert result.fun == pytest.approx(expected.fun, rel=1e-6)
    np.testing.assert_allclose(W, whole.W, atol=2e-4)


def test_an_objective_without_a_sample_and_what_is_refused():
    X, y = problem()
    model = sx.SoftmaxModel.zeros(D, C)
    inner = objective_of(model, sx.Blocks([X], [y]))

    class Plain:
        shape, has_intercept, dtype = inner.shape, True, inner.dtype
        n_rows, is_sparse, cost = N, False, inner.cost

        def value_and_gradient(self, theta):
            return inner.value_and_gradient(theta)

        def in_float64(self):
            return inner.in_float64()

    start = np.zeros((D, C)), np.zeros(C)
    plain = minimize(Plain(), None, *start, l2=1.0, precondition=False, max_iter=500)
    assert plain.success
    assert plain.fun == pytest.approx(minimize(X, y, *start, l2=1.0).fun, rel=1e-4)
    with pytest.raises(TypeError, match="y: an array came beside Plain, which has its own"):
        minimize(Plain(), y, *start)
    with pytest.raises(ValueError, match=r"shape \(19, 4\) with b came, \(20, 4\) with b"):
        minimize(Plain(), None, np.zeros((D - 1, C)), np.zeros(C))
