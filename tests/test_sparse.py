"""A sparse X in CSR form: the answers of the dense one, whatever the matrix says of itself.

Matrices are made here, as plain objects with the four attributes; SciPy's are given too. Entries
that are stored as 0, columns in any order and columns that come twice are in all of them.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from problems import (
    FLOATS,
    LAYOUTS,
    Case,
    Problem,
    Unchanged,
    assert_same_bits,
    assert_within,
    cases,
    once,
    oracle,
    run_python,
)
from tolerances import LinearTerms, linear_bound, softmax_bound, tiny

import softmax_ext
from softmax_ext import problem, reference, threads
from softmax_ext.arguments import as_matrix

scipy_sparse = pytest.importorskip("scipy.sparse")
PIECE = 2048  # so many entries the drivers take at a time


def as_csr(dense, seed=0, index="int32", ptr="int32"):
    """`dense` in CSR form: shuffled rows, some zeros stored, some numbers in two parts."""
    rng = np.random.default_rng(seed)
    indices, data, indptr = [], [], [0]
    for row in dense:
        columns = np.flatnonzero((row != 0) | (rng.random(len(row)) < 0.05))
        numbers, half = (
            row[columns],
            row[columns] // 2 if dense.dtype.kind == "u" else row[columns] / 2,
        )
        split = (rng.random(len(columns)) < 0.2) & np.isfinite(numbers)
        columns = np.concatenate([columns, columns[split]])
        numbers = np.concatenate([np.where(split, numbers - half, numbers), half[split]])
        order = rng.permutation(len(columns))
        indices.append(columns[order])
        data.append(numbers[order])
        indptr.append(indptr[-1] + len(order))
    return SimpleNamespace(
        data=np.concatenate([*data, []]).astype(dense.dtype),
        indices=np.concatenate([*indices, []]).astype(index),
        indptr=np.array(indptr).astype(ptr),
        shape=dense.shape,
    )


class SparseProblem(Problem):
    """A problem of which nine in ten numbers of X are 0, and X in CSR form as `csr`."""

    def __init__(self, case, density=0.1):
        super().__init__(replace(case, with_dX=False))
        rng = np.random.default_rng([case.seed, 5])
        self.X[rng.random(self.X.shape) >= density] = 0
        self.csr = as_csr(self.X, case.seed)


SHAPES = cases(11, 70, budget=1e7)
ALL = [
    *SHAPES,
    Case(3, 3 * PIECE + 5, 5, "float32"),
    Case(600, 40, 1000, "float64", sample_weight=True),
]


@once
def exact_logits(case):
    p = SparseProblem(case)
    return p, oracle("linear", p.linear), linear_bound(p) + tiny(case.dtype)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_logits_and_predictions(kernels, case):
    p, expected, bound = exact_logits(case)
    given = p.linear | {"X": p.csr}
    logits = kernels.linear(**given)
    assert logits.dtype == case.dtype
    assert_within(logits, expected, bound)
    out = np.full_like(logits, 7)
    assert kernels.linear(**given, out=out) is out
    assert_same_bits(out, logits)

    worst = bound.max(axis=1, keepdims=True, initial=0)
    proba = kernels.predict_proba(**given)
    assert proba.dtype == case.dtype
    assert_within(proba, reference.softmax(expected), softmax_bound(expected, case.dtype, worst))
    predicted = kernels.predict(**given)
    assert predicted.dtype == np.intp
    assert_same_bits(predicted, logits.argmax(axis=1))


@once
def exact_gradients(case):
    p = SparseProblem(case)
    picked = p.picked | {"X": as_csr(p.picked["X"], case.seed + 1)}
    expected = oracle("linear_cross_entropy_with_grad", p.gradient)
    return p, picked, expected, LinearTerms(p, p.picked)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_losses_and_gradients(kernels, case):
    p, picked, expected, bounds = exact_gradients(case)
    result = kernels.linear_cross_entropy_with_grad(**p.gradient | {"X": p.csr})
    for loss in (result.loss, kernels.linear_cross_entropy(**picked)):
        if case.reduction == "none":
            assert (loss.dtype, loss.shape) == (case.dtype, (len(bounds.kept),))
        assert_within(loss, expected.loss, bounds.loss)
    assert (result.dW.dtype, result.dW.shape) == (case.dtype, (case.d, case.c))
    assert result.dW.flags[f"{case.w_order}_CONTIGUOUS"]
    assert_within(result.dW, expected.dW, bounds.dW)
    if case.bias:
        assert (result.db.dtype, result.db.shape) == (case.dtype, (case.c,))
        assert_within(result.db, expected.db, bounds.db)
    else:
        assert result.db is None
    assert result.dX is None
    assert result.total_weight == pytest.approx(expected.total_weight, rel=1e-12)
    undecided = np.count_nonzero(bounds.undecided() & bounds.kept)
    assert abs(result.n_correct - expected.n_correct) <= undecided


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("c", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 65, 130])
def test_every_number_of_classes_that_vectors_may_end_at(compiled, c, dtype):
    """Also in the middle of a larger array: nothing beside W and dW is read or written."""
    p = SparseProblem(Case(70, 30, c, dtype), 0.3)
    wide = np.full((32, c + 9), np.nan, dtype)
    wide[1:-1, 4:-5] = p.W
    out = np.full((32, c + 9), 7, dtype)
    given = p.gradient | {"X": p.csr}
    expected = compiled.linear_cross_entropy_with_grad(**given)
    result = compiled.linear_cross_entropy_with_grad(
        **given | {"W": wide[1:-1, 4:-5], "out": (out[1:-1, 4:-5], None)}
    )
    assert_same_bits(tuple(result), tuple(expected))
    out[1:-1, 4:-5] = 7
    assert (out == 7).all()


# The same bits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        Case(1000, 60, 20, "float32", sample_weight=True),
        Case(1000, 60, 3, "float64", w_order="F", rows=True, reduction="none"),
        Case(1500, 40, 700, "float64", ignore=0),  # strips in several parts
    ],
    ids=str,
)
@pytest.mark.parametrize("most_rows", [None, 512])
def test_on_any_number_of_threads(compiled, case, most_rows, monkeypatch):
    monkeypatch.setattr(threads, "CPUS", 64)
    monkeypatch.setattr(problem, "THREADED_PRODUCTS", 1)
    if most_rows:  # so that sums start anew several times
        monkeypatch.setattr(problem, "MOST_ROWS", most_rows)
    monkeypatch.setattr(problem, "STRIP_PRODUCTS", 1)  # 256 rows in a strip
    p, _, wanted, bounds = exact_gradients(case)

    def results():
        result = compiled.linear_cross_entropy_with_grad(**p.gradient | {"X": p.csr})
        return (
            *result,
            compiled.linear_cross_entropy(**p.loss | {"X": p.csr}),
            compiled.linear(**p.linear | {"X": p.csr}),
        )

    with softmax_ext.num_threads(1):
        expected = results()
    assert_within(expected[1], wanted.dW, bounds.dW)
    for n in (2, 3, 5, 61):
        with softmax_ext.num_threads(n):
            assert_same_bits(results(), expected)


def test_the_entries_are_gone_over_once_for_each_cpu_at_most(compiled, monkeypatch):
    asked = []
    ranges = problem._column_ranges
    monkeypatch.setattr(problem, "THREADED_PRODUCTS", 1)
    monkeypatch.setattr(problem, "_column_ranges", lambda x, n: asked.append(n) or ranges(x, n))
    p, *_ = exact_gradients(Case(1000, 60, 20, "float32"))
    for n in (1, 1000):
        with softmax_ext.num_threads(n):
            compiled.linear_cross_entropy_with_grad(**p.gradient | {"X": p.csr})
    assert asked == [1, threads.CPUS]


@pytest.mark.parametrize("c", [2, 32])
def test_small_gradients_after_a_large_one_are_not_lost(compiled, c, monkeypatch):
    """A sum in float32 starts anew after so many rows: what is lost to the large one ends there."""
    monkeypatch.setattr(problem, "MOST_ROWS", 512)
    monkeypatch.setattr(problem, "STRIP_PRODUCTS", 1)  # 256 rows in a strip
    n, large = 20_000, 2.0**25
    X = np.ones((n, 1), "float32")
    X[0] = large
    dW = compiled.linear_cross_entropy_with_grad(
        scipy_sparse.csr_array(X), np.zeros((1, c), "float32"), None, np.zeros(n, int),
        reduction="sum",
    ).dW  # fmt: skip
    share = 1 / c
    np.testing.assert_allclose(dW[0, 1], share * (large + n - 1), rtol=0, atol=share * 3000)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("c", [1, 3, 20, 100])
def test_a_row_does_not_depend_on_its_neighbours(compiled, c, dtype):
    p = SparseProblem(Case(150, 50, c, dtype), 0.4)
    csr = scipy_sparse.csr_array((p.csr.data, p.csr.indices, p.csr.indptr), p.csr.shape)
    for name in ("linear", "predict_proba", "predict"):
        function = getattr(compiled, name)
        whole = function(**p.linear | {"X": csr})
        some = [149, 3, 77, 3]
        assert_same_bits(function(**p.linear | {"X": csr[some]}), whole[some])
        assert_same_bits(function(**p.linear | {"X": csr[5:6]}), whole[5:6])


@pytest.mark.parametrize("c", [2, 20])
def test_rows_are_gathered_as_if_they_had_been_picked(compiled, c):
    p = SparseProblem(Case(300, 50, c, "float32", sample_weight=True, reduction="sum"))
    csr = scipy_sparse.csr_array((p.csr.data, p.csr.indices, p.csr.indptr), p.csr.shape)
    rows = np.array([7, -1, 7, 0, 299, 150])
    weights = p.options["sample_weight"]
    result = compiled.linear_cross_entropy_with_grad(**p.gradient | {"X": csr, "rows": rows})
    picked = {"X": csr[rows], "target": p.target[rows], "sample_weight": weights[rows]}
    expected = compiled.linear_cross_entropy_with_grad(**p.gradient | picked)
    assert_same_bits(tuple(result), tuple(expected))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("c", [3, 20])
def test_memory_layouts(compiled, layout, c):
    p = SparseProblem(Case(70, 30, c, "float32"))
    expected = compiled.linear_cross_entropy_with_grad(**p.gradient | {"X": p.csr})
    turned = LAYOUTS[layout]
    for parts in (("data",), ("indices",), ("indptr",), ("data", "indices", "indptr")):
        if layout == "sliced-columns":
            continue
        csr = SimpleNamespace(**vars(p.csr))
        for name in parts:
            setattr(csr, name, turned(getattr(csr, name)))
        with Unchanged(csr.data, csr.indices, csr.indptr):
            result = compiled.linear_cross_entropy_with_grad(**p.gradient | {"X": csr})
        assert_same_bits(tuple(result), tuple(expected))
    result = compiled.linear_cross_entropy_with_grad(**p.gradient | {"X": p.csr, "W": turned(p.W)})
    assert_same_bits(tuple(result), tuple(expected))


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize("index", INTEGERS)
@pytest.mark.parametrize("ptr", ["int16", "uint32", "int64", "uint64"])
def test_indices_of_any_integer_dtype(kernels, index, ptr):
    p = SparseProblem(Case(70, 30, 5))
    csr = as_csr(p.X, 0, index, ptr)
    assert_same_bits(kernels.linear(csr, p.W, p.b), kernels.linear(p.csr, p.W, p.b))


@pytest.mark.parametrize("w", FLOATS)
@pytest.mark.parametrize(
    "x", ["uint8", "float32", "float64", "int64", "int8", "bool", ">f4", ">f8"]
)
def test_dtypes(kernels, x, w):
    csr = SimpleNamespace(
        data=np.ones(3).astype(x), indices=np.array([0, 2, 1]), indptr=np.array([0, 2, 3]),
        shape=(2, 3),
    )  # fmt: skip
    expected = "float32" if w == "float32" and x in ("uint8", "float32", ">f4") else "float64"
    W = np.array([[1, 2], [0, 1], [1, 0]], w)
    logits = kernels.linear(csr, W, np.float32([0.5, 0]))
    assert logits.dtype == expected
    assert logits.tolist() == [[2.5, 2], [0.5, 1]]
    result = kernels.linear_cross_entropy_with_grad(csr, W, None, [0, 1])
    assert result.dW.dtype == expected
    assert kernels.linear(csr, W, np.float64([0.5, 0])).dtype == "float64"


def test_x_scale_of_bytes(kernels):
    p = SparseProblem(Case(70, 30, 5, "float32", "uint8", x_scale=1 / 255))
    assert_within(
        kernels.linear(**p.linear | {"X": p.csr}), oracle("linear", p.linear), linear_bound(p)
    )


# Odd matrices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0), (4, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("c", [2, 32])
def test_matrices_without_entries(kernels, shape, order, c):
    n, d = shape
    csr = scipy_sparse.csr_array(shape, dtype="float32")
    W, b = np.ones((d, c), "float32", order), np.ones(c, "float32")
    np.testing.assert_array_equal(kernels.linear(csr, W, b), np.ones((n, c), "float32"))
    assert kernels.linear(csr, W).tolist() == [[0] * c] * n
    assert kernels.predict(csr, W, b).tolist() == [0] * n
    assert kernels.predict_proba(csr, W, b).tolist() == [[1 / c] * c] * n
    dW = np.full((d, c), 7, "float32", order)
    result = kernels.linear_cross_entropy_with_grad(
        csr, W, b, [0] * n, reduction="sum", out=(dW, None)
    )
    assert result.loss == pytest.approx(n * np.log(c))
    assert result.dW is dW
    assert not dW.any()
    assert result.db.tolist() == [n / c - n] + [n / c] * (c - 1)
    assert kernels.linear(csr, np.ones((d, 0), "float32")).shape == (n, 0)


def test_more_entries_in_a_row_than_columns(kernels):
    rng = np.random.default_rng(0)
    n = 3 * PIECE + 7
    csr = SimpleNamespace(
        data=rng.normal(size=n),
        indices=rng.integers(0, 3, n),
        indptr=[0, 1, n - 1, n],
        shape=(3, 3),
    )
    dense = np.zeros((3, 3))
    np.add.at(dense, (np.repeat([0, 1, 2], [1, n - 2, 1]), csr.indices), csr.data)
    W = rng.normal(size=(3, 17))
    np.testing.assert_allclose(kernels.linear(csr, W), dense @ W, atol=1e-12)
    result = kernels.linear_cross_entropy_with_grad(csr, W, None, [0, 1, 2])
    expected = reference.linear_cross_entropy_with_grad(dense, W, None, [0, 1, 2])
    np.testing.assert_allclose(result.dW, expected.dW, atol=1e-10)


@pytest.mark.parametrize("c", [2, 20])
def test_only_stored_entries_meet_infinity(compiled, c):
    W = np.zeros((3, c))
    W[2] = np.inf
    csr = SimpleNamespace(
        data=np.array([1.0, 0.0, 2.0]), indices=np.array([0, 2, 2]), indptr=np.array([0, 1, 2, 3]),
        shape=(3, 3),
    )  # fmt: skip
    logits = compiled.linear(csr, W)
    assert (logits[0] == 0).all()
    assert np.isnan(logits[1]).all()  # a zero that is stored
    assert (logits[2] == np.inf).all()
    csr.data[:] = [1, np.nan, np.inf]
    logits = compiled.linear(csr, np.ones((3, c)))
    assert (logits[0] == 1).all()
    assert np.isnan(logits[1]).all()
    assert (logits[2] == np.inf).all()
    result = compiled.linear_cross_entropy_with_grad(csr, np.ones((3, c)), None, [0, -100, -100])
    assert np.isfinite(result.dW).all()  # rows that are ignored contribute nothing, not even NaN


@pytest.mark.parametrize("c", [2, 20])
@pytest.mark.parametrize("order", ["C", "F"])
def test_out_may_overlap_what_is_read(compiled, c, order):
    p = SparseProblem(Case(70, 30, c, w_order=order))
    expected = compiled.linear_cross_entropy_with_grad(**p.gradient | {"X": p.csr})
    W = p.W.copy(order="K")
    result = compiled.linear_cross_entropy_with_grad(
        **p.gradient | {"X": p.csr, "W": W, "out": (W, None)}
    )
    assert result.dW is W
    assert_same_bits(tuple(result), tuple(expected))

    numbers = np.zeros(max(len(p.csr.data), 70 * c))
    numbers[: len(p.csr.data)] = p.csr.data
    csr = SimpleNamespace(**vars(p.csr) | {"data": numbers[: len(p.csr.data)]})
    expected = compiled.linear(p.csr, p.W, p.b)
    assert_same_bits(compiled.linear(csr, p.W, p.b, out=numbers[: 70 * c].reshape(70, c)), expected)


def parts_of(csr, ptr):
    """Views of a matrix's rows as they are in memory: (first row, behind the last, view)."""
    indptr = csr.indptr.astype(ptr)
    for begin, end in ((0, 70), (0, 40), (30, 70), (20, 50), (33, 33)):
        yield begin, end, SimpleNamespace(
            data=csr.data, indices=csr.indices, indptr=indptr[begin : end + 1],
            shape=(end - begin, csr.shape[1]),
        )  # fmt: skip


@pytest.mark.parametrize("ptr", ["int32", "uint64", ">u4"])
def test_views_of_a_matrix(kernels, ptr):
    """Their data and indices also have entries of other rows, which may be anything."""
    p = SparseProblem(Case(70, 30, 5))
    for begin, end, view in parts_of(p.csr, ptr):
        with Unchanged(view.data, view.indices, view.indptr):
            mine = slice(begin, end)
            expected = kernels.linear(as_csr(p.X[mine], p.case.seed), p.W, p.b)
            np.testing.assert_allclose(kernels.linear(view, p.W, p.b), expected, 1e-12, 1e-12)
            given = {"X": view, "target": p.target[mine], "rows": np.arange(end - begin)[::2]}
            dense = given | {"X": p.X[mine]}
            result, wanted = (
                kernels.linear_cross_entropy_with_grad(**p.gradient | g | {"reduction": "sum"})
                for g in (given, dense)
            )
            np.testing.assert_allclose(result.dW, wanted.dW, 1e-11, 1e-11)
            np.testing.assert_allclose(result.loss, wanted.loss, 1e-12)
        view.indices = view.indices.copy()
        view.indices[: view.indptr[0]] = -9
        view.indices[view.indptr[-1] :] = 10**9
        assert_same_bits(kernels.predict(view, p.W), kernels.predict(p.X[mine], p.W))


@pytest.mark.parametrize(("begin", "end"), [(0, 40), (30, 70), (20, 50)])
def test_fits_of_views_of_a_matrix(begin, end):
    """The solvers read the matrix themselves, beside the kernels."""
    p = SparseProblem(Case(70, 30, 5), 0.5)
    whole = scipy_sparse.csr_matrix(p.X)
    view = SimpleNamespace(
        data=whole.data, indices=whole.indices, indptr=whole.indptr[begin : end + 1],
        shape=(end - begin, 30),
    )  # fmt: skip
    y = p.target[begin:end]
    models = [softmax_ext.SoftmaxModel.zeros(30, 5, dtype="float64") for _ in range(2)]
    for model, X in zip(models, (view, p.X[begin:end]), strict=True):
        assert softmax_ext.fit_lbfgs(model, X, y, tol=1e-9).success
    np.testing.assert_allclose(models[0].W, models[1].W, 1e-5, 1e-6)


def test_a_matrix_is_not_copied():
    p = SparseProblem(Case(70, 30, 5))
    for begin, _, view in parts_of(p.csr, "int64"):
        X = as_matrix(view)
        assert np.shares_memory(X.data, p.csr.data) or not X.data.size
        assert np.shares_memory(X.indices, p.csr.indices) or not X.data.size
        assert np.shares_memory(X.indptr, view.indptr) == (begin == 0)


# What is refused ---------------------------------------------------------------------------------


def small(**changes):
    parts = {"data": [1.0, 2.0, 4.0], "indices": [0, 2, 1], "indptr": [0, 2, 2, 3]} | changes
    shape = parts.pop("shape", (3, 3))
    # What lies behind the arrays makes sense too: to read it would not be noticed by chance.
    parts = {k: np.concatenate([v, v])[: len(v)] for k, v in parts.items()}
    return SimpleNamespace(**parts, shape=shape)


WRONG = [
    (small(indptr=[0, 2, 3]), ValueError, r"X.indptr: shape \(3,\) came, \(4,\) was wanted"),
    (small(indptr=[[0], [2], [2], [3]]), ValueError, r"X.indptr: shape \(4, 1\)"),
    (small(indptr=[0, 2, 1, 3]), ValueError, r"X: indptr goes from 2 to 1 at row 1"),
    (small(indptr=[0, 2, 2, 4]), ValueError, r"X: indptr goes from 2 to 4 at row 2.*from 0 to 3"),
    (small(indptr=[0, 2, 2, 2**62]), ValueError, r"X: indptr goes .* at row 2"),
    (small(indptr=[-1, 2, 2, 3]), ValueError, r"X: indptr goes from -1 to 2 at row 0"),
    (small(indptr=[0, -(2**63), 2, 3]), ValueError, r"X: indptr goes .* at row 0"),
    (small(indptr=np.array([0, 2, 2, 2**64 - 1], "u8")), ValueError, r"X: indptr goes .* at row 2"),
    (small(indptr=np.array([0, 2, 2, 2**64 - 1], ">u8")), ValueError, rf"X: .* to {2**64 - 1} at"),
    (small(indptr=[1, 2, 1, 3]), ValueError, r"X: indptr goes from 2 to 1 at row 1"),
    (small(indptr=[1, -(2**63), 2, 3]), ValueError, r"X: indptr goes from 1 to -.* at row 0"),
    (small(indptr=np.array([1, 0, 2, 3], "u1")), ValueError, r"X: indptr goes from 1 to 0 at row"),
    (small(indptr=[0.0, 2, 2, 3]), TypeError, r"X.indptr: dtype float64 came, integers"),
    (small(indices=[0, 3, 1]), ValueError, r"X: column index 3 at row 0 is outside \[0, 3\)"),
    (small(indices=[0, 2, -1]), ValueError, r"X: column index -1 at row 2 is outside \[0, 3\)"),
    (small(indices=[0, 2, 2**40]), ValueError, r"X: column index 1099511627776 at row 2"),
    (small(indices=[0, 2, -(2**63)]), ValueError, r"X: column index -9223372036854775808 at row 2"),
    (small(indices=np.array([0, 2, 2**64 - 1], "u8")), ValueError, r"X: column index -1 at row 2"),
    (small(indices=[0.0, 2, 1]), TypeError, r"X.indices: dtype float64 came, integers"),
    (small(indices=[0, 2]), ValueError, r"X.data, X.indices: shapes \(3,\) and \(2,\) came"),
    (small(data=[[1.0, 2, 4]], indices=[[0, 2, 1]]), ValueError, "X.data, X.indices: shapes"),
    (small(data=[1j, 2, 4]), TypeError, "X.data: dtype complex128"),
    (small(shape=(3,)), ValueError, r"X: shape \(3,\) came, two axes"),
    (small(shape=(3, 4)), ValueError, r"W: shape \(3, \d+\) came, \(4, C\) was wanted"),
    (small(shape=(3, 3.0)), TypeError, "X.shape: float came"),
    (scipy_sparse.csc_array(np.eye(3)), TypeError, r"X: .* in csc form .*\.tocsr\(\)"),
    (scipy_sparse.bsr_array(np.eye(3)), TypeError, r"X: .* in bsr form .*\.tocsr\(\)"),
    (scipy_sparse.coo_array(np.eye(3)), TypeError, r"X: coo_array came.*\.tocsr\(\)"),
    (scipy_sparse.lil_array(np.eye(3)), TypeError, r"X: lil_array came.*\.tocsr\(\)"),
]  # fmt: skip


@pytest.mark.parametrize("c", [2, 20])  # gradients in a copy, and in place
@pytest.mark.parametrize(("X", "error", "message"), WRONG, ids=[w[2] for w in WRONG])
def test_matrices_that_are_refused(compiled, X, error, message, c):
    W = np.eye(3, c)
    dW, db, out = np.full((3, c), 7.0), np.full(c, 7.0), np.full((3, c), 7.0)
    for call in (
        lambda: compiled.linear(X, W),
        lambda: compiled.linear(X, W, out=out),
        lambda: compiled.predict(X, W),
        lambda: compiled.predict_proba(X, W),
        lambda: compiled.linear_cross_entropy(X, W, None, [0, 1, 1]),
        lambda: compiled.linear_cross_entropy_with_grad(X, W, None, [0, 1, 1]),
        lambda: compiled.linear_cross_entropy_with_grad(X, W, W[0], [0, 1, 1], out=(dW, db)),
    ):
        with pytest.raises(error, match=message):
            call()
    for array in (dW, db, out):
        assert (array == 7).all(), "something was written to `out`"


@pytest.mark.parametrize("most_rows", [256, 1 << 16])  # in several parts, and in one
def test_nothing_is_written_for_the_good_rows_before_a_bad_one(compiled, most_rows, monkeypatch):
    monkeypatch.setattr(problem, "MOST_ROWS", most_rows)
    monkeypatch.setattr(problem, "STRIP_PRODUCTS", 1)
    p = SparseProblem(Case(1000, 30, 20))
    p.csr.indices[-1] = 30
    result = np.full((30, 20), 7.0)
    with pytest.raises(ValueError, match="X: column index 30 at row 999"):
        compiled.linear_cross_entropy_with_grad(**p.gradient | {"X": p.csr, "out": (result, None)})
    assert (result == 7).all()


def test_rows_that_are_not_used_are_not_judged(compiled):
    X = small(indices=[0, 2, 9])
    compiled.linear_cross_entropy_with_grad(X, np.eye(3), None, [0, 1, 1], rows=[1, 0])
    with pytest.raises(ValueError, match="X: column index 9 at row 2"):
        compiled.linear_cross_entropy_with_grad(X, np.eye(3), None, [0, 1, 1], rows=[1, 0, -1])


def test_the_gradient_of_a_sparse_x_is_refused(kernels):
    X = scipy_sparse.csr_array(np.eye(3))
    with pytest.raises(ValueError, match=r"^with_dX: .*sparse X.*\.toarray\(\)"):
        kernels.linear_cross_entropy_with_grad(X, np.eye(3), None, [0, 1, 1], with_dX=True)


@pytest.mark.parametrize("name", ["W", "b", "target", "sample_weight", "rows"])
def test_only_x_may_be_sparse(compiled, name):
    given = {"X": np.eye(3), "W": np.eye(3), "b": np.ones(3), "target": [0, 1, 2]}
    with pytest.raises(TypeError, match=rf"^{name}: a sparse matrix.*\.toarray\(\)"):
        compiled.linear_cross_entropy_with_grad(**given | {name: scipy_sparse.csr_array(np.eye(3))})


def test_hostile_matrices(compiled):
    """Any numbers in indptr and indices: an answer where they make sense, else ValueError."""
    rng = np.random.default_rng(8)
    odd = np.array([-(2**63), -(2**31), -1, 0, 1, 39, 40, 41, 2**31 - 1, 2**31, 2**32, 2**63 - 1])
    refused = 0
    for trial in range(300):
        p = SparseProblem(Case(30, 40, 3 + 6 * (trial % 2), seed=trial % 3))
        wide = trial % 3 == 0
        csr = as_csr(p.X, trial, "int64" if wide else "int32", "int64")
        part = csr.indices if trial % 2 else csr.indptr
        part[rng.integers(len(part), size=rng.integers(1, 3))] = rng.choice(odd).astype(part.dtype)
        nnz = len(csr.indices)
        fine = bool(
            (np.diff(csr.indptr.astype(object)) >= 0).all()
            and csr.indptr[0] >= 0 and csr.indptr[-1] <= nnz
        )  # fmt: skip
        if fine:
            used = csr.indices[csr.indptr[0] : csr.indptr[-1]]
            fine = bool(((used >= 0) & (used < 40)).all())
        given = p.gradient | {"X": csr}
        if fine:
            compiled.linear_cross_entropy_with_grad(**given)
            continue
        refused += 1
        with pytest.raises(ValueError, match="^X: (column index|indptr goes)"):
            compiled.linear_cross_entropy_with_grad(**given)
        with pytest.raises(ValueError, match="^X: (column index|indptr goes)"):
            compiled.predict(csr, p.W)
    assert 100 < refused < 290


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="wants mprotect")
def test_the_least_int64_in_indptr_reads_nothing_outside():
    """end - begin overflows there. Behind the indices lies a page that must not be touched."""
    run_python("""
import ctypes, mmap
from types import SimpleNamespace
import numpy as np
import softmax_ext as sx

page = mmap.PAGESIZE
memory = mmap.mmap(-1, 2 * page)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(start + page), page, 0) == 0
indices = np.frombuffer(memory, np.int64, 4, page - 32)
X = SimpleNamespace(
    data=np.ones(4), indices=indices, indptr=np.array([1, -(2**63)]), shape=(1, 3)
)
try:
    sx.linear(X, np.ones((3, 2)))
except ValueError as error:
    assert "indptr" in str(error), error
else:
    raise AssertionError("taken")
libc.mprotect(ctypes.c_void_p(start + page), page, 3)
""")


# Faces -------------------------------------------------------------------------------------------


def test_scipy_is_not_imported():
    assert (
        run_python("""
import sys, types, numpy as np, softmax_ext as sx
X = types.SimpleNamespace(data=np.ones(2), indices=np.array([0, 1]), indptr=np.array([0, 1, 2]),
                          shape=(2, 2))
r = sx.linear_cross_entropy_with_grad(X, np.eye(2), None, [0, 1])
print("scipy" in sys.modules, r.n_correct)
""")
        == "False 2"
    )


@pytest.mark.parametrize("kind", ["csr_array", "csr_matrix", "plain"])
def test_model_and_trainer(kernels, kind):
    p = SparseProblem(Case(200, 40, 5, "float32"), 0.3)
    X = p.csr if kind == "plain" else getattr(scipy_sparse, kind)(p.X)
    models = []
    for x in (X, p.X):
        model = softmax_ext.SoftmaxModel.zeros(40, 5, kernels=kernels)
        trainer = softmax_ext.Trainer(epochs=2, batch_size=32, momentum=0.5)
        trainer.fit(model, x, p.target, validation_data=(x, p.target))
        models.append(model)
    sparse, dense = models
    np.testing.assert_allclose(sparse.W, dense.W, rtol=1e-4, atol=1e-5)
    assert sparse.accuracy(X, p.target) > 0.3
    np.testing.assert_allclose(sparse.logits(X), sparse.logits(p.X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sparse.predict_proba(X), sparse.predict_proba(p.X), 1e-4)
    np.testing.assert_array_equal(sparse.predict(X), sparse.predict(p.X))
    assert sparse.loss(X, p.target) == pytest.approx(sparse.loss(p.X, p.target), rel=1e-5)


def test_a_training_run_goes_on_with_a_sparse_x(tmp_path):
    p = SparseProblem(Case(200, 40, 5, "float32"), 0.3)
    settings = {"batch_size": 32, "checkpoint": tmp_path / "run"}
    whole = softmax_ext.SoftmaxModel.zeros(40, 5)
    softmax_ext.Trainer(epochs=4, batch_size=32).fit(whole, p.csr, p.target)
    softmax_ext.Trainer(epochs=2, **settings).fit(
        softmax_ext.SoftmaxModel.zeros(40, 5), p.csr, p.target
    )
    trainer = softmax_ext.Trainer.resume(tmp_path / "run", epochs=4)
    trainer.fit(trainer.model, p.csr, p.target)
    assert_same_bits(trainer.model.W, whole.W)


def test_training_on_counts(kernels):
    """Integers are converted once, not in every minibatch; and to the same."""
    counts = np.random.default_rng(0).poisson(0.3, (100, 20))
    y = counts[:, 0].clip(max=1)
    models = [softmax_ext.SoftmaxModel.zeros(20, 2, kernels=kernels) for _ in range(2)]
    for model, X in zip(models, (counts, counts.astype(float)), strict=True):
        softmax_ext.Trainer(epochs=1, batch_size=10).fit(model, scipy_sparse.csr_array(X), y)
    assert_same_bits(models[0].W, models[1].W)
