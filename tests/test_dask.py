"""softmax_ext.dask beside the same rows in memory, on threads and on processes."""

import itertools
import os
import signal
import warnings

import numpy as np
import pytest

import softmax_ext as sx
from softmax_ext import reference

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

from softmax_ext.dask import LogisticRegression, fit_lbfgs, fit_path  # noqa: E402

N, D, C = 2000, 15, 4
SIZES = (700, 0, 300, 1000)


def problem(dtype=np.float32):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D)).astype(dtype)
    y = (X @ rng.normal(size=(D, C)) + 2 * rng.gumbel(size=(N, C))).argmax(1)
    y[:700] %= 2  # labels that only some chunks have
    return X, y


def chunked(array):
    return da.from_array(array, chunks=(SIZES, *((n,) for n in array.shape[1:])))


def fitted(fit, *data, **options):
    model = sx.SoftmaxModel.zeros(D, C)
    result = fit(model, *data, tol=1e-6, **options)
    assert result.success
    return model, result


@pytest.fixture(scope="module")
def cluster():
    """Two processes of one thread each, and a client."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sockets that are closed late
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                silence_logs=50,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):  # fmt: skip
            yield client


def unknown(array):
    """The same, of chunks whose sizes are not known before they are computed."""
    return chunked(array).map_blocks(
        lambda x: x, chunks=((np.nan,) * len(SIZES), *((n,) for n in array.shape[1:]))
    )


def test_fit_on_threads():
    X, y = problem()
    weight = np.linspace(0, 2, N)
    whole, expected = fitted(sx.fit_lbfgs, X, y, sample_weight=weight)
    bits = set()
    for form in (chunked, unknown):
        model, result = fitted(fit_lbfgs, form(X), form(y), sample_weight=form(weight))
        assert result.fun == pytest.approx(expected.fun, rel=1e-6)
        np.testing.assert_allclose(model.W, whole.W, atol=2e-4)
        bits.add(model.W.tobytes())
    # y in other chunks of known sizes is brought into those of X.
    model, _ = fitted(
        fit_lbfgs, chunked(X), da.from_array(y, chunks=333), sample_weight=chunked(weight)
    )
    bits.add(model.W.tobytes())
    import dask

    with dask.config.set(scheduler="synchronous"):
        model, _ = fitted(fit_lbfgs, chunked(X), chunked(y), sample_weight=chunked(weight))
    bits.add(model.W.tobytes())
    assert len(bits) == 1


def test_sparse_chunks_standardize_and_checkpoints(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    X = sparse.csr_array(sparse.random(N, D, 0.2, random_state=rng))
    y = (X @ rng.normal(size=(D, C)) + 0.1 * rng.gumbel(size=(N, C))).argmax(1)
    ends = np.cumsum([0, *SIZES])
    import dask

    pieces = [
        da.from_delayed(dask.delayed(X[i:j]), (j - i, D), meta=sparse.csr_array((0, 0)))
        for i, j in itertools.pairwise(ends)
    ]
    dX = da.concatenate(pieces)
    model, expected = fitted(sx.fit_lbfgs, X, y, standardize=True)
    path = tmp_path / "c"
    for size in (None, 2000):
        if size:
            os.truncate(path, size)
        found, result = fitted(fit_lbfgs, dX, chunked(y), standardize=True, checkpoint=path)
        assert result.fun == pytest.approx(expected.fun, rel=1e-7)
        np.testing.assert_allclose(found.W, model.W, atol=1e-3)
    estimator = LogisticRegression().fit(dX, chunked(y))
    assert estimator.score(dX, chunked(y)) == estimator.model_.accuracy(X, y)
    np.testing.assert_array_equal(estimator.predict(dX).compute(), estimator.model_.predict(X))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_estimator_is_scikit_learns(n_classes):
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = problem(np.float64)
    names = np.array(["ant", "bee", "cat", "dog"])[y % n_classes]
    C_theirs = 0.5 if n_classes > 2 else 1.0
    theirs = linear_model.LogisticRegression(C=C_theirs, tol=1e-8, max_iter=1000).fit(X, names)
    ours = LogisticRegression(C=0.5, tol=1e-8).fit(chunked(X), chunked(names))
    assert ours.classes_.tolist() == theirs.classes_.tolist()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-4)
    lazy = ours.predict_proba(chunked(X))
    assert isinstance(lazy, da.Array)
    assert lazy.shape == (N, n_classes)
    np.testing.assert_allclose(lazy.compute(), theirs.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(ours.predict(chunked(X)).compute(), theirs.predict(X))
    assert ours.score(chunked(X), chunked(names)) == theirs.score(X, names)
    given = LogisticRegression(C=0.5, tol=1e-8, classes=theirs.classes_)
    np.testing.assert_array_equal(given.fit(chunked(X), chunked(names)).coef_, ours.coef_)
    assert given.get_params()["C"] == 0.5


def test_data_frames():
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")
    X, y = problem()
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(D)])
    frame["label"] = np.array(["ant", "bee", "cat", "dog"])[y]
    frame["w"] = np.linspace(0, 2, N)
    table = dd.from_pandas(frame, npartitions=3)
    features = [f"x{j}" for j in range(D)]
    estimator = LogisticRegression(tol=1e-6)
    estimator.fit(table[features], table["label"], sample_weight=table["w"])
    whole, _ = fitted(sx.fit_lbfgs, X, y, sample_weight=frame["w"].to_numpy())
    np.testing.assert_allclose(estimator.model_.W, whole.W, atol=2e-4)
    predicted = estimator.predict(table[features]).compute()
    np.testing.assert_array_equal(predicted, estimator.model_.predict(X))
    score = estimator.score(table[features], table["label"])
    assert score == np.mean(predicted == frame["label"].to_numpy())


def test_path():
    X, y = problem(np.float64)
    Cs = [1e-3, 1e-2, 0.1]
    ours, theirs = (sx.SoftmaxModel.zeros(D, C, dtype=np.float64) for _ in range(2))
    found = fit_path(ours, chunked(X), chunked(y), Cs, tol=1e-7)
    whole = sx.fit_path(theirs, X, y, Cs, tol=1e-7)
    np.testing.assert_allclose(found.fun, whole.fun, rtol=1e-8)
    np.testing.assert_allclose(ours.W, theirs.W, atol=1e-5)


def test_kernels_of_ones_own():
    X, y = problem(np.float64)
    seen = []

    class Counted:
        """The functions of `reference`; where tasks go to threads, they can be counted."""

        def __getattr__(self, name):
            seen.append(name)
            return getattr(reference, name)

    model = sx.SoftmaxModel.zeros(D, C, dtype=np.float64, kernels=Counted())
    right = sx.SoftmaxModel.zeros(D, C, dtype=np.float64)
    result = fit_lbfgs(model, chunked(X), chunked(y), tol=1e-7)
    assert result.success
    assert seen.count("linear_cross_entropy_with_grad") >= 3 * result.nfev
    sx.fit_lbfgs(right, X, y, tol=1e-7)
    np.testing.assert_allclose(model.W, right.W, atol=1e-5)


def test_refusals():
    X, y = problem()
    dX, dy = chunked(X), chunked(y)
    labels, nan = y.copy(), X.copy()
    labels[720] = 9
    nan[720, 3] = np.nan
    model = sx.SoftmaxModel.zeros(D, C)
    for kind, words, data in (
        (ValueError, r"X: 3 chunks along the features came, one was .*X.rechunk\({1: -1}\)",
         (da.from_array(X, chunks=(500, 5)), dy)),
        (TypeError, "X: ndarray came, a Dask array or data frame was wanted", (X, dy)),
        (TypeError, "y: ndarray came", (dX, y)),
        (ValueError, "y: 1999 rows came, 2000, as X has", (dX, dy[:-1])),
        (ValueError, "y: 1 chunks of unknown sizes came, 4",
         (unknown(X), da.from_array(y, chunks=N))),
        (ValueError, "X: shape .* came, two known axes", (dX[:, 0], dy)),
        (ValueError, "X: 14 features came, 15", (dX[:, 1:], dy)),
        (IndexError, "chunk 2: y: label 9 at row 20", (dX, chunked(labels))),
        (ValueError, "chunk 2: X: NaN or infinite", (chunked(nan), dy)),
        (ValueError, "no row that counts", (dX, dy * 0 - 100)),
        (ValueError, "chunk .: y: shape .* came, .* rows, as X has there",
         (unknown(X), unknown(y).map_blocks(lambda x: x[1:]))),
    ):  # fmt: skip
        with pytest.raises(kind, match=words):
            fit_lbfgs(model, *data)
        assert not model.W.any()
    with pytest.raises(ValueError, match="y: 1 class came, at least two"):
        LogisticRegression().fit(dX, dy * 0)
    with pytest.raises(AttributeError, match="has not been fitted"):
        LogisticRegression().predict(dX)
    with pytest.raises(ValueError, match="X: 14 features came, 15, as in fit"):
        LogisticRegression().fit(dX, dy).predict(dX[:, 1:])
    with pytest.warns(RuntimeWarning, match="not converged: max_iter"):
        LogisticRegression(max_iter=2, tol=1e-9).fit(dX, dy)


# Processes ----------------------------------------------------------------------------------------


def test_the_same_bits_on_any_number_of_workers_and_after_a_death(cluster):
    X, y = problem()
    data = da.from_array(X, chunks=(80, D)), da.from_array(y, chunks=80)
    import dask

    with dask.config.set(scheduler="threads"):
        alone, expected = fitted(fit_lbfgs, *data)
    persisted = [part.persist() for part in data]
    distributed.wait(persisted)
    model, result = fitted(fit_lbfgs, *persisted)
    np.testing.assert_array_equal(model.W, alone.W)
    assert result.fun == expected.fun
    for n in (4, 1, 2):
        cluster.cluster.scale(n)
        cluster.wait_for_workers(n)
        model, _ = fitted(fit_lbfgs, *data)
        np.testing.assert_array_equal(model.W, alone.W)

    killed = []

    def kill(state):
        if state.nit == 3:
            workers = cluster.run(os.getpid)
            os.kill(next(iter(workers.values())), signal.SIGKILL)
            killed.append(True)

    model, result = fitted(fit_lbfgs, *persisted, callback=kill)
    assert killed
    np.testing.assert_array_equal(model.W, alone.W)


def test_what_comes_to_the_client_is_small(cluster, monkeypatch):
    """Nothing that has a row for each example."""
    from softmax_ext.dask import _chunks
    from softmax_ext.solvers import reservoir

    sizes = []
    compute = _chunks.Engine.compute

    def watched(self, task):
        result = compute(self, task)
        sizes.append(len(distributed.protocol.pickle.dumps(result)))
        return result

    monkeypatch.setattr(_chunks.Engine, "compute", watched)
    X = da.random.default_rng(0).normal(size=(40_000, 5), chunks=(10_000, 5)).persist()
    y = (X[:, 0] > 0).astype(np.int64).persist()
    estimator = LogisticRegression().fit(X, y)
    assert estimator.score(X, y) > 0.99
    assert max(sizes) < 8 * reservoir.MOST_ROWS * 6
    assert sorted(sizes)[-3] < 40_000 * 8
    with pytest.raises(ValueError, match="chunk 1: X: NaN or infinite"):
        LogisticRegression().fit(
            da.from_array(np.where(np.arange(20)[:, None] == 15, np.nan, 1.0), chunks=(10, 1)),
            da.from_array(np.arange(20) % 2, chunks=10),
        )
