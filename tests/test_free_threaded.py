"""Many threads on one set of arrays, as CPython without the global interpreter lock runs them.

`make test-free-threaded` runs this there; with the lock the threads take turns between calls.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import softmax_ext
from softmax_ext.problem import Problem

N_THREADS, N_ROUNDS = 8, 12


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has the lock"
)
def test_importing_leaves_the_lock_off():

    assert not sys._is_gil_enabled()


@pytest.fixture(scope="module")
def shared():
    """One set of arrays, and what is made of it once."""
    rng = np.random.default_rng(3)
    n, d, c = 3000, 40, 12
    a = SimpleNamespace(
        X=rng.normal(size=(n, d)).astype(np.float32), pixels=rng.integers(0, 256, (n, d), np.uint8),
        W=rng.normal(size=(d, c)).astype(np.float32), b=rng.normal(size=c).astype(np.float32),
        y=rng.integers(0, c, n), rows=rng.permutation(n)[:256], wide=rng.normal(size=(200, 300)),
    )  # fmt: skip
    kept = np.abs(a.X) > 1
    a.csr = SimpleNamespace(
        data=a.X[kept], indices=np.nonzero(kept)[1], shape=a.X.shape,
        indptr=np.concatenate([[0], np.cumsum(kept.sum(axis=1))]),
    )  # fmt: skip
    a.model = softmax_ext.SoftmaxModel(a.W, a.b)
    return a


def calls(kernels, problem, a):
    """Results of every kind of call, those on small arrays among them."""
    layer = {"W": a.W, "b": a.b}
    yield from (kernels.softmax(a.wide), kernels.softmax(a.wide[:3]), kernels.logsumexp(a.wide, 0))
    yield from kernels.cross_entropy_with_grad(a.X, a.y % a.X.shape[1])
    for X in (a.X, a.pixels, a.csr):
        yield kernels.linear(X, **layer)
        yield kernels.predict(X, **layer)
        step = kernels.linear_cross_entropy_with_grad(X, target=a.y, **layer)
        yield from (step.loss, step.dW, step.db)
        yield from kernels.linear_cross_entropy_hvp(X, target=a.y, V=a.W, v=a.b, **layer)
    for rows in (a.rows, a.rows[:5]):
        yield kernels.linear_cross_entropy_with_grad(a.X, target=a.y, rows=rows, **layer).dW
    yield kernels.predict_proba(a.X[:1], **layer)
    yield problem.value_and_gradient(a.W, a.b).dW
    yield a.model.predict_proba(a.X)


def test_many_threads_on_one_set_of_arrays(compiled, shared):
    problem = Problem(compiled, shared.X, shared.y, 12)

    def results():
        return [np.asarray(part).tobytes() for part in calls(compiled, problem, shared)]

    expected, wrong, start = results(), [], threading.Barrier(N_THREADS)

    def work(number):
        try:
            start.wait()
            with softmax_ext.num_threads(1 + number % 3):
                for n in range(N_ROUNDS):
                    for place, (a, e) in enumerate(zip(results(), expected, strict=True)):
                        if a != e:
                            wrong.append(f"thread {number}, round {n}: call {place}")
        except Exception as error:
            wrong.append(f"thread {number}: {error!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]


def test_fits_in_several_threads(shared):
    models = [softmax_ext.SoftmaxModel.zeros(40, 12) for _ in range(N_THREADS)]
    threads = [
        threading.Thread(target=softmax_ext.fit_lbfgs, args=(model, X, shared.y))
        for model, X in zip(models, [shared.X, shared.csr] * (N_THREADS // 2), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models[2:]:
        assert model.W.any()
    for kind in (models[::2], models[1::2]):
        assert len({model.W.tobytes() for model in kind}) == 1
