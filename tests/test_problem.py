"""`Problem`: checked once, asked often; the same bits as the functions; several W in one pass."""

from __future__ import annotations

import numpy as np
import pytest
from problems import FLOATS, Case, assert_same_bits
from problems import Problem as Arrays
from scipy import sparse

import softmax_ext
from softmax_ext import _kernels, reference
from softmax_ext.foreign import ForeignProblem, problem_of
from softmax_ext.problem import Problem

CASES = [
    Case(130, 17, 3, "float32", x_dtype="uint8", x_scale=1 / 255),
    Case(130, 17, 3, "float64", ignore=-7),
    Case(130, 17, 33, "float32", weight=True, sample_weight=True, smoothing=0.1),
    Case(130, 17, 5, "float64", x_dtype="float32", soft=True, sample_weight=True),
    Case(130, 17, 5, "float32", x_dtype="float64", soft=True, smoothing=0.1, bias=False),
    Case(130, 17, 5, "float32", reduction="sum", label_dtype="uint8", w_order="F"),
]


def problem_and_layer(kernels, case, X=None):
    p = Arrays(case)
    options = {k: v for k, v in p.options.items() if k != "reduction"}
    problem = Problem(
        kernels, p.X if X is None else X, p.target, case.c, x_scale=case.x_scale, **options
    )
    return p, problem


@pytest.mark.parametrize("form", ["dense", "F", "sparse"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_problem_says_what_the_functions_say(compiled, case, form, rng):
    p = Arrays(case)
    X = {"dense": lambda x: x, "F": np.asfortranarray, "sparse": sparse.csr_array}[form](p.X)
    p, problem = problem_and_layer(compiled, case, X)
    arguments = {**p.options, "x_scale": case.x_scale}
    reduction = case.reduction
    out = None
    for _ in range(
        2
    ):  # asked twice, the second time with what it has learned and an earlier result
        for rows in (None, rng.integers(-130, 130, 64), np.arange(0, dtype=np.int64)):
            found = problem.value_and_gradient(p.W, p.b, rows=rows, reduction=reduction, out=out)
            wanted = compiled.linear_cross_entropy_with_grad(
                X, p.W, p.b, p.target, rows=rows, **arguments
            )
            assert_same_bits(found, wanted)
            out = found
        loss, n_correct, _ = problem.evaluate(p.W, p.b, reduction=reduction)
        assert loss == compiled.linear_cross_entropy(X, p.W, p.b, p.target, **arguments)
        wanted = compiled.linear_cross_entropy_with_grad(X, p.W, p.b, p.target, **arguments)
        assert n_correct == wanted.n_correct


def test_gradients_of_x(compiled):
    p, problem = problem_and_layer(compiled, CASES[1])
    rows = np.array([3, 1, 4])
    found = problem.value_and_gradient(p.W, p.b, rows=rows, with_dX=True)
    wanted = compiled.linear_cross_entropy_with_grad(
        p.X, p.W, p.b, p.target, rows=rows, with_dX=True, ignore_index=-7
    )
    assert_same_bits(found, wanted)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_labels_are_checked_once_and_again_when_they_are_used(compiled, form):
    y = np.array([0, 1, 2, 1])
    X = np.eye(4) if form == "dense" else sparse.csr_array(np.eye(4))
    W = np.zeros((4, 3))
    y[2] = 3
    problem = Problem(compiled, X, y, 3, name="y")
    good, bad = np.array([0, 1, 3]), np.array([3, 2])
    problem.value_and_gradient(W, None, rows=good)  # only what is used
    with pytest.raises(IndexError, match=r"y: label 3 at rows\[1\] = 2 is outside \[0, 3\)"):
        problem.value_and_gradient(W, None, rows=bad)
    for call in (problem.check, lambda: problem.evaluate(W, None)):
        with pytest.raises(IndexError, match=r"y: label 3 at row 2 is outside \[0, 3\)"):
            call()
    y[2] = 2
    assert problem.check() == 4
    y[2] = 3  # after the check
    problem.value_and_gradient(W, None, rows=good)
    with pytest.raises(IndexError, match="y: the label at row 1 changed during the call"):
        problem.value_and_gradient(W, None, rows=bad)


def test_what_does_not_fit(compiled):
    X, y = np.eye(3), [0, 1, 1]
    for X_given, problem in (
        (np.ones(3), r"X: shape \(3,\) came, two axes \(N, D\) were wanted"),
        (np.eye(4), r"target: shape \(3,\) came, \(4,\) was wanted"),
    ):
        with pytest.raises(ValueError, match=problem):
            Problem(compiled, X_given, y, 2)
    problem = Problem(compiled, X, y, 2)
    for rows in (None, np.arange(3)):
        with pytest.raises(ValueError, match=r"W: shape \(3, 4\) came, \(3, 2\) was wanted"):
            problem.value_and_gradient(np.ones((3, 4)), None, rows=rows)
        with pytest.raises(ValueError, match=r"W: shape \(2, 2\) came, \(3, C\) was wanted"):
            problem.value_and_gradient(np.ones((2, 2)), None, rows=rows)
    W, b = np.ones((3, 2)), np.ones(2)
    with pytest.raises(ValueError, match="layers: some without b came"):
        problem.values_and_gradients([(W, b), (W, None)])
    with pytest.raises(ValueError, match="reduction: 'none' came"):
        problem.values_and_gradients([(W, b)], reduction="none")
    with pytest.raises(ValueError, match=r"W: shape \(3, 1\) came"):
        problem.values_and_gradients([(W, b), (np.ones((3, 1)), np.ones(1))])


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_several_layers_in_one_pass(compiled, case, form, rng):
    p = Arrays(case)
    X = p.X if form == "dense" else sparse.csr_array(p.X)
    p, problem = problem_and_layer(compiled, case, X)
    layers = [(p.W * f, None if p.b is None else p.b + f) for f in (np.float32(1), -2, 0)]
    assert problem.values_and_gradients([]) == []
    for rows in (None, rng.integers(-130, 130, 60)):
        together = problem.values_and_gradients(layers, rows=rows, reduction=case.reduction)
        for (W, b), found in zip(layers, together, strict=True):
            alone = problem.value_and_gradient(W, b, rows=rows, reduction=case.reduction)
            np.testing.assert_allclose(found.loss, alone.loss, rtol=1e-14 if case.c <= 5 else 1e-6)
            assert found.total_weight == alone.total_weight
            if case.c <= 5:  # the same blocks of rows
                assert_same_bits(found.dW, alone.dW)
                assert found.n_correct == alone.n_correct
                if b is not None:
                    np.testing.assert_allclose(found.db, alone.db, rtol=1e-6)
            else:
                np.testing.assert_allclose(found.dW, alone.dW, atol=1e-6 * np.abs(alone.dW).max())


def test_the_driver_reads_x_once_for_several_layers(compiled, monkeypatch):
    made = []

    class Watching:
        def __getattr__(self, name):
            found = getattr(_kernels, name)
            if name in ("LinearPass", "SparsePass"):
                made.append(name)
            return found

    monkeypatch.setattr(softmax_ext.problem, "_kernels", Watching())
    problem = Problem(compiled, np.eye(3), [0, 1, 1], 2)
    problem.values_and_gradients([(np.ones((3, 2)), np.ones(2))] * 7)
    assert made == ["LinearPass"]
    made.clear()
    problem.evaluate(np.ones((3, 2)), None)  # loss and right rows
    assert made == ["LinearPass"]


QUICK = [
    {},
    {"sample_weight": True},
    {"sample_weight": True, "soft": True},
    {"weight": True, "smoothing": 0.1},
    {"soft": True, "smoothing": 0.2},
    {"ignore": -100, "sample_weight": True},
    {"label_dtype": "uint8"},
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", QUICK, ids=str)
def test_a_minibatch_goes_the_quick_way(compiled, kind, dtype, monkeypatch):
    """With weights, smoothing and probabilities too, from the function and from a problem."""
    case = Case(50, 20, 3, dtype, rows=True, **kind)
    p, problem = problem_and_layer(compiled, case)
    options = dict(p.options)
    if "weight" in options:
        options["weight"] = options["weight"].astype(np.float64)  # as the drivers have it
    general = problem.run(4, p.W, p.b, rows=p.rows)

    def unwanted(*args, **options):
        raise AssertionError("the general way was gone")

    monkeypatch.setattr(Problem, "run", unwanted)
    by_function = compiled.linear_cross_entropy_with_grad(
        p.X, p.W, p.b, p.target, rows=p.rows, **options
    )
    problem_says = problem.value_and_gradient(p.W, p.b, rows=p.rows)
    again = problem.value_and_gradient(p.W, p.b, rows=p.rows, out=problem_says)
    for found in (by_function, problem_says, again):
        assert_same_bits(found, general)
    assert again.dW is problem_says.dW


@pytest.mark.parametrize("where", ["X", "target", "sample_weight", "W", "b", "db"])
def test_a_quick_minibatch_never_writes_over_what_it_reads(compiled, where):
    memory = np.zeros(400)
    X = memory[:200].reshape(50, 4)
    X[...] = np.random.default_rng(0).normal(size=X.shape)
    target, weight = np.full((50, 3), 1 / 3), np.ones(50)
    W, b = np.ones((4, 3)), np.ones(3)
    parts = {"X": X, "target": target, "sample_weight": weight, "W": W, "b": b}
    problem = Problem(compiled, X, target, 3, sample_weight=weight)
    rows = np.arange(30)
    wanted = problem.value_and_gradient(W, b, rows=rows)
    dW, db = np.empty((4, 3)), np.empty(3)
    if where == "b":
        db = b
    elif where == "db":
        dW = np.empty((4, 3))
        db = dW[0]
    else:
        dW = parts[where].ravel()[:12].reshape(4, 3)
    if where == "db":
        with pytest.raises(ValueError, match="out: arrays that overlap each other"):
            problem.value_and_gradient(W, b, rows=rows, out=(dW, db))
    else:
        found = problem.value_and_gradient(W, b, rows=rows, out=(dW, db))
        assert_same_bits(found, wanted)
        assert found.dW is dW


def test_other_kernels_are_asked_by_their_functions(rng):
    X, y = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    y[:9] = -100
    W, b = rng.normal(size=(5, 3)), rng.normal(size=3)

    class Own(softmax_ext.Kernels):
        """A subclass, whose functions may be its own."""

        def predict(self, *args, **options):
            calls.append("predict")
            return super().predict(*args, **options)

    calls = []
    whole = softmax_ext.linear_cross_entropy_with_grad(X, W, b, y)
    for kernels in (reference, Own(), softmax_ext.kernels):
        problem = problem_of(kernels, X, y, 3)
        assert isinstance(problem, Problem if kernels is softmax_ext.kernels else ForeignProblem)
        problem.check()
        loss, n_correct, total_weight = problem.evaluate(W, b)
        assert total_weight == whole.total_weight
        assert loss == pytest.approx(whole.loss, rel=1e-12)
        assert n_correct == whole.n_correct
        found = problem.value_and_gradient(W, b, rows=np.arange(40), reduction="sum")
        np.testing.assert_allclose(found.dW, whole.dW * whole.total_weight, rtol=1e-9)
    assert calls == ["predict"]
    soft = problem_of(reference, X, np.full((40, 3), 1 / 3), 3)
    soft.check()
    assert soft.evaluate(W, b).n_correct == (softmax_ext.predict(X, W, b) == 0).sum()
    y[7] = 3
    for kernels in (reference, softmax_ext.kernels):
        with pytest.raises(IndexError, match=r"y: label 3 at row 7 is outside \[0, 3\)"):
            problem_of(kernels, X, y, 3).check()


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_products_with_the_hessian(compiled, form, rng):
    case = CASES[2]
    p = Arrays(case)
    X = p.X if form == "dense" else sparse.csr_array(p.X)
    p, problem = problem_and_layer(compiled, case, X)
    V, v, rows = rng.normal(size=p.W.shape), rng.normal(size=case.c), np.arange(9, 70)
    for given in ({}, {"rows": rows, "reduction": "sum"}):
        found = problem.hessian_product(p.W, p.b, V, v, **given)
        options = p.options | {"x_scale": case.x_scale} | given
        assert_same_bits(
            found, compiled.linear_cross_entropy_hvp(X, p.W, p.b, p.target, V, v, **options)
        )
    other = problem_of(reference, np.eye(3), np.arange(3), 3)
    wanted = reference.linear_cross_entropy_hvp(
        np.eye(3), V[:3, :3], None, np.arange(3), V[3:6, :3]
    )
    assert_same_bits(other.hessian_product(V[:3, :3], None, V[3:6, :3], None), wanted)
