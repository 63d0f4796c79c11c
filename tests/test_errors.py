"""Every refusal: the error, and a sentence that says which argument, what came, what was wanted.

Whatever is refused is refused before anything is written: each refusal is tried with out= full of
sevens, which must be there afterwards.
"""

from __future__ import annotations

import numpy as np
import pytest
from problems import LAYOUTS, Unchanged, read_only

N, D, C = 6, 4, 3
NAN = np.nan


def arguments(**changes):
    """Good arguments of linear_cross_entropy_with_grad, but for the changes."""
    rng = np.random.default_rng(0)
    good = {
        "X": rng.normal(size=(N, D)),
        "W": rng.normal(size=(D, C)),
        "b": rng.normal(size=C),
        "target": np.array([0, 1, 2, 0, 1, 2]),
    }
    return good | changes


def sevens(shape, dtype="float64"):
    return np.full(shape, 7, dtype)


def refuses(error, match, call, *arrays):
    with Unchanged(*arrays), pytest.raises(error, match=match):
        call()


def id_of(value):
    return value if isinstance(value, str) else ""


# Each line: what is changed, the error, and its message.
LINEAR = [
    ({"X": np.zeros(D)}, ValueError, r"^X: .*\(4,\).*\(N, D\)"),
    ({"X": np.zeros((N, D, 1))}, ValueError, r"^X: .*\(6, 4, 1\).*\(N, D\)"),
    ({"X": 1.0}, ValueError, r"^X: .*\(\).*\(N, D\)"),
    ({"X": np.zeros((N, 5))}, ValueError, r"^W: .*\(4, 3\).*\(5, C\)"),
    ({"W": np.zeros(D)}, ValueError, r"^W: .*\(4,\).*\("),
    ({"W": np.zeros((5, C))}, ValueError, r"^W: .*\(5, 3\).*\(4, C\)"),
    ({"b": np.zeros(4)}, ValueError, r"^b: .*\(4,\).*\(3,\)"),
    ({"b": np.zeros((1, C))}, ValueError, r"^b: .*\(1, 3\).*\(3,\)"),
    ({"b": 0.0}, ValueError, r"^b: .*\(\).*\(3,\)"),
    ({"W": np.zeros((D, C), "float16")}, TypeError, "^W: .*float16.*float32, float64"),
    ({"b": np.zeros(C, "float16")}, TypeError, "^b: .*float16.*float32, float64"),
    ({"X": np.zeros((N, D), "complex64")}, TypeError, "^X: .*complex64"),
    ({"W": np.zeros((D, C), object)}, TypeError, "^W: .*object"),
    ({"b": ["1", "2", "3"]}, TypeError, "^b: .*<U1"),
    ({"X": np.ma.zeros((N, D))}, TypeError, r"^X: .*masked.*\.filled\(\)"),
    ({"W": np.ma.zeros((D, C))}, TypeError, r"^W: .*masked.*\.filled\(\)"),
    ({"b": np.ma.zeros(C)}, TypeError, r"^b: .*masked.*\.filled\(\)"),
    ({"x_scale": NAN}, ValueError, "^x_scale: .*nan.*number"),
    ({"x_scale": -np.inf}, ValueError, "^x_scale: .*-inf.*number"),
    ({"x_scale": "2"}, TypeError, "^x_scale: .*str.*number"),
    ({"x_scale": None}, TypeError, "^x_scale: .*None.*number"),
    ({"x_scale": np.ones(2)}, TypeError, "^x_scale: .*ndarray.*number"),
]
NO_CLASSES = [({"W": np.zeros((D, 0)), "b": None}, ValueError, r"^W: .*\(4, 0\).*(class|C > 0)")]

# The same for cross_entropy, whose logits have the shape (N, C).
OPTIONS = [
    ({"target": np.zeros(5, int)}, ValueError, r"^target: .*\(5,\).*\(6,\)"),
    ({"target": np.zeros((N, 1), int)}, ValueError, r"^target: .*\(6, 1\).*\(6,\)"),
    ({"target": 0}, ValueError, r"^target: .*\(\).*\(6,\)"),
    ({"target": np.zeros((N, C), int)}, ValueError, r"^target: .*\(6, 3\).*argmax\(axis=1\)"),
    ({"target": np.zeros((N, 4))}, ValueError, r"^target: .*\(6, 4\).*\(6, 3\)"),
    ({"target": np.zeros((5, C))}, ValueError, r"^target: .*\(5, 3\).*\(6, 3\)"),
    ({"target": np.zeros(N)}, TypeError, "^target: .*labels.*float64.*integers"),
    ({"target": np.zeros(N, bool)}, TypeError, "^target: .*bool.*integer"),
    ({"target": np.zeros(N, object)}, TypeError, "^target: .*object.*integer"),
    ({"target": np.zeros((N, C), complex)}, TypeError, "^target: .*complex128.*integer"),
    ({"target": ["cat"] * N}, TypeError, "^target: .*<U3.*integer"),
    ({"target": np.ma.zeros(N, int)}, TypeError, r"^target: .*masked.*\.filled\(\)"),
    ({"target": [0, 1, 3, 0, 1, 5]}, IndexError, r"^target: label 3 at row 2 is outside \[0, 3\)$"),
    (
        {"target": [0, 1, 2, 0, -1, 7]},
        IndexError,
        r"^target: label -1 at row 4 is outside \[0, 3\)$",
    ),
    ({"target": [-100, 1, 2, 0, 0, 9]}, IndexError, r"^target: label 9 at row 5 is outside"),
    ({"target": [-100, 1, 2, 0, 0, 2], "ignore_index": -1}, IndexError, "label -100 at row 0"),
    ({"weight": np.ones(2)}, ValueError, r"^weight: .*\(2,\).*\(3,\)"),
    ({"weight": 1.0}, ValueError, r"^weight: .*\(\).*\(3,\)"),
    ({"weight": np.ones((1, C))}, ValueError, r"^weight: .*\(1, 3\).*\(3,\)"),
    ({"weight": ["1", "2", "3"]}, TypeError, "^weight: .*<U1.*real"),
    ({"weight": np.ones(C, complex)}, TypeError, "^weight: .*complex128.*real"),
    ({"weight": np.ma.ones(C)}, TypeError, r"^weight: .*masked.*\.filled\(\)"),
    ({"sample_weight": np.ones(5)}, ValueError, r"^sample_weight: .*\(5,\).*\(6,\)"),
    ({"sample_weight": 1.0}, ValueError, r"^sample_weight: .*\(\).*\(6,\)"),
    ({"sample_weight": np.ones((N, 1))}, ValueError, r"^sample_weight: .*\(6, 1\).*\(6,\)"),
    ({"sample_weight": np.ones(N, object)}, TypeError, "^sample_weight: .*object.*real"),
    ({"sample_weight": np.ma.ones(N)}, TypeError, r"^sample_weight: .*masked.*\.filled\(\)"),
    ({"label_smoothing": 1.5}, ValueError, "^label_smoothing: .*1.5.*0.*1"),
    ({"label_smoothing": -0.1}, ValueError, "^label_smoothing: .*-0.1.*0.*1"),
    ({"label_smoothing": NAN}, ValueError, "^label_smoothing: .*nan.*0.*1"),
    ({"label_smoothing": "0.1"}, TypeError, "^label_smoothing: .*str.*number"),
    ({"label_smoothing": None}, TypeError, "^label_smoothing: .*None.*number"),
    ({"reduction": "average"}, ValueError, "^reduction: .*average.*mean.*sum.*none"),
    ({"reduction": None}, ValueError, "^reduction: .*None.*mean.*sum.*none"),
    ({"ignore_index": 1.0}, TypeError, "^ignore_index: .*float.*integer"),
    ({"ignore_index": None}, TypeError, "^ignore_index: .*None.*integer"),
    ({"target": np.ones((N, C)), "ignore_index": 0}, ValueError, "^ignore_index: .*0.*probabilit"),
]
ROWS = [
    ({"rows": [0, 6]}, IndexError, r"^rows: index 6 at position 1 is outside \[-6, 6\)$"),
    ({"rows": [0, 1, -7, 9]}, IndexError, r"^rows: index -7 at position 2 is outside \[-6, 6\)$"),
    ({"rows": np.array([2**64 - 1], "uint64")}, IndexError, "^rows: index 18446744073709551615 at"),
    ({"rows": np.ones(N, bool)}, TypeError, r"^rows: .*bool.*integers.*flatnonzero"),
    ({"rows": [0.0, 1.0]}, TypeError, "^rows: .*float64.*integers"),
    ({"rows": ["0"]}, TypeError, "^rows: .*<U1.*integers"),
    ({"rows": [[0, 1]]}, ValueError, r"^rows: .*\(1, 2\).*(1-D|one axis)"),
    ({"rows": 0}, ValueError, r"^rows: .*\(\).*(1-D|one axis)"),
    ({"rows": np.ma.zeros(2, int)}, TypeError, r"^rows: .*masked.*\.filled\(\)"),
    (
        {"rows": [3, 1, -1, 5], "target": [0, 1, 9, 0, 1, 12]},
        IndexError,
        r"^target: label 12 at rows\[2\] = (-1|5) is outside \[0, 3\)$",
    ),
    (
        {"rows": [3, 5], "target": np.array([0, 1, 2, 0, 1, 255], "uint8")},
        IndexError,
        r"^target: label 255 at rows\[1\] = 5 is outside \[0, 3\)$",
    ),
]


@pytest.mark.parametrize(("changes", "error", "match"), LINEAR, ids=id_of)
def test_the_linear_layer_refuses(kernels, changes, error, match):
    given = arguments(**changes)
    target = given.pop("target")
    out = sevens((N, C))
    refuses(error, match, lambda: kernels.linear(**given, out=out), out)
    refuses(error, match, lambda: kernels.predict(**given))
    refuses(error, match, lambda: kernels.predict_proba(**given))
    given["target"] = target
    refuses(error, match, lambda: kernels.linear_cross_entropy(**given))
    out = sevens((D, C)), sevens(C)
    refuses(error, match, lambda: kernels.linear_cross_entropy_with_grad(**given, out=out), *out)


@pytest.mark.parametrize(("changes", "error", "match"), NO_CLASSES, ids=id_of)
def test_no_classes_are_refused(kernels, changes, error, match):
    given = arguments(**changes)
    refuses(error, match, lambda: kernels.linear_cross_entropy(**given))
    refuses(error, match, lambda: kernels.linear_cross_entropy_with_grad(**given))
    del given["target"]
    refuses(error, match, lambda: kernels.predict(**given))
    assert kernels.linear(**given).shape == (N, 0)
    for shape in ((N, 0), (0,)):
        with pytest.raises(ValueError, match="^logits: .*0"):
            kernels.cross_entropy(np.zeros(shape), np.zeros(shape[:-1], int))


@pytest.mark.parametrize(("changes", "error", "match"), OPTIONS, ids=id_of)
def test_cross_entropy_refuses(kernels, changes, error, match):
    given = arguments(**changes)
    refuses(error, match, lambda: kernels.linear_cross_entropy(**given))
    out = sevens((D, C)), sevens(C), sevens((N, D))
    refuses(
        error, match,
        lambda: kernels.linear_cross_entropy_with_grad(**given, with_dX=True, out=out),
        *out,
    )  # fmt: skip
    given["logits"] = sevens((N, C))
    del given["X"], given["W"], given["b"]
    refuses(error, match, lambda: kernels.cross_entropy(**given))
    out = sevens((N, C))
    refuses(error, match, lambda: kernels.cross_entropy_with_grad(**given, out=out), out)


@pytest.mark.parametrize(("changes", "error", "match"), ROWS, ids=id_of)
def test_rows_that_are_refused(kernels, changes, error, match):
    given = arguments(**changes)
    n = np.size(changes["rows"])
    out = sevens((D, C)), sevens(C), sevens((n, D))
    refuses(
        error, match,
        lambda: kernels.linear_cross_entropy_with_grad(**given, with_dX=True, out=out),
        *out,
    )  # fmt: skip


def test_only_the_labels_of_the_rows_used_are_checked(kernels):
    given = arguments(rows=[0, 1], target=[0, 1, 99, 99, 99, 99])
    result = kernels.linear_cross_entropy_with_grad(**given)
    assert result.total_weight == 2


def test_an_empty_x_has_no_rows(kernels):
    given = arguments(X=np.zeros((0, D)), target=np.zeros(0, int), rows=[0])
    with pytest.raises(IndexError, match=r"^rows: index 0 at position 0 is outside \[-?0, 0\)$"):
        kernels.linear_cross_entropy_with_grad(**given)


@pytest.mark.parametrize("n", [70, 5000])
@pytest.mark.parametrize("row", [0, 63, 64, -1])
def test_the_row_of_a_bad_label_wherever_it_is(kernels, n, row):
    rng = np.random.default_rng(0)
    X, W, target = rng.normal(size=(n, 8)), rng.normal(size=(8, 10)), rng.integers(0, 10, n)
    row %= n
    target[row] = 10
    out = sevens((8, 10)), None, sevens((n, 8))
    given = {"X": X, "W": W, "b": None, "target": target, "with_dX": True, "out": out}
    match = rf"^target: label 10 at row {row} is outside \[0, 10\)$"
    refuses(
        IndexError, match, lambda: kernels.linear_cross_entropy_with_grad(**given), out[0], out[2]
    )
    rows = rng.permutation(n)
    at = int(np.flatnonzero(rows == row)[0])
    match = rf"^target: label 10 at rows\[{at}\] = {row} is outside \[0, 10\)$"
    refuses(
        IndexError, match,
        lambda: kernels.linear_cross_entropy_with_grad(**given, rows=rows), out[0], out[2],
    )  # fmt: skip


def test_bad_labels_of_logits_with_other_axes(kernels):
    logits, target = np.zeros((2, 3, 4, 5)), np.zeros((2, 4, 5), int)
    target[1, 2, 3] = 3
    out = sevens(logits.shape)
    match = r"^target: label 3 at .*(1, 2, 3|33).* is outside \[0, 3\)$"
    refuses(
        IndexError, match, lambda: kernels.cross_entropy_with_grad(logits, target, out=out), out
    )
    with pytest.raises(IndexError, match=r"^target: label 3 .*is outside \[0, 3\)$"):
        kernels.cross_entropy(np.zeros(3), 3)


@pytest.mark.parametrize(
    ("logits", "error", "match"),
    [
        (1.0, ValueError, "^logits: "),
        (np.zeros((2, 3), "float16"), TypeError, "^logits: .*float16"),
        (np.zeros((2, 3), complex), TypeError, "^logits: .*complex128"),
        (np.ma.zeros((2, 3)), TypeError, r"^logits: .*\.filled\(\)"),
    ],
)
def test_logits_that_are_refused(kernels, logits, error, match):
    refuses(error, match, lambda: kernels.cross_entropy(logits, [0, 1]))
    out = sevens((2, 3))
    refuses(error, match, lambda: kernels.cross_entropy_with_grad(logits, [0, 1], out=out), out)


def test_divergence_of_shapes_that_do_not_fit(kernels):
    with pytest.raises(ValueError, match=r"\(2,\)"):
        kernels.kl_divergence(np.ones(3), np.ones(2))


# out= --------------------------------------------------------------------------------------------

BAD_OUT = {
    "shape": (lambda s: sevens((*s[:-1], s[-1] + 1)), ValueError, r"shape|\("),
    "dtype": (lambda s: sevens(s, "float32"), ValueError, "float32.*float64"),
    "big-endian": (lambda s: sevens(s, ">f8"), ValueError, ">f8"),
    "read-only": (lambda s: read_only(sevens(s)), ValueError, "read-only"),
    "overlapping-itself": (
        lambda s: np.lib.stride_tricks.as_strided(sevens(99), s, (8, 8) if len(s) == 2 else (0,)),
        ValueError,
        "overlaps itself",
    ),
    "list": (lambda s: [7.0], TypeError, "list"),
    "no-array": (lambda s: 7.0, TypeError, "float"),
}


@pytest.mark.parametrize(("make", "error", "match"), list(BAD_OUT.values()), ids=list(BAD_OUT))
def test_out_that_is_refused(kernels, make, error, match):
    given = arguments()
    target = given.pop("target")
    out = make((N, C))
    refuses(error, f"^out: .*({match})", lambda: kernels.linear(**given, out=out), out)
    x = np.ones((N, C))
    for call in (
        lambda: kernels.softmax(x, out=out),
        lambda: kernels.log_softmax(x, out=out),
        lambda: kernels.cross_entropy_with_grad(x, target, out=out),
    ):
        refuses(error, f"^out: .*({match})", call, out)


@pytest.mark.parametrize(("make", "error", "match"), list(BAD_OUT.values()), ids=list(BAD_OUT))
@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradients_that_are_refused(kernels, which, make, error, match):
    given, shapes = arguments(), [(D, C), (C,), (N, D)]
    out = [sevens(shape) for shape in shapes]
    out[which] = make(shapes[which])
    name = ("dW", "db", "dX")[which]
    refuses(
        error, f"^out.*{name}.*({match})",
        lambda: kernels.linear_cross_entropy_with_grad(**given, with_dX=True, out=tuple(out)), *out,
    )  # fmt: skip


def test_gradients_that_overlap_each_other(kernels):
    memory = sevens(D * C + N * D)
    dW, dX = memory[: D * C].reshape(D, C), memory[5 : 5 + N * D].reshape(N, D)
    db = dW[0]
    given = arguments(with_dX=True)
    for out in ((dW, db), (dW, None, dX), (dW, sevens(C), dX)):
        refuses(
            ValueError, "^out: .*overlap",
            lambda out=out: kernels.linear_cross_entropy_with_grad(**given, out=out), memory,
        )  # fmt: skip


@pytest.mark.parametrize("out", [7, sevens((D, C)), (sevens((D, C)),), (None,) * 4, "dW"], ids=str)
def test_out_that_is_no_tuple_of_gradients(kernels, out):
    refuses(
        (TypeError, ValueError), r"^out: .*\(dW, db\)",
        lambda: kernels.linear_cross_entropy_with_grad(**arguments(), out=out), out,
    )  # fmt: skip


def test_gradients_that_there_are_not(kernels):
    dW, db, dX = sevens((D, C)), sevens(C), sevens((N, D))
    refuses(
        ValueError, "^out: .*db.* b",
        lambda: kernels.linear_cross_entropy_with_grad(**arguments(b=None), out=(dW, db)), dW, db,
    )  # fmt: skip
    refuses(
        ValueError, "^out: .*dX.*with_dX",
        lambda: kernels.linear_cross_entropy_with_grad(**arguments(), out=(dW, db, dX)), dW, dX,
    )  # fmt: skip


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_bad_labels_in_any_layout(kernels, layout):
    target = np.array([0, 1, 2, 0, 7, 2], "int32")
    given = arguments(target=LAYOUTS[layout](target))
    with pytest.raises(IndexError, match=r"^target: label 7 at row 4 is outside \[0, 3\)$"):
        kernels.linear_cross_entropy_with_grad(**given)


def test_unknown_instruction_sets():
    import softmax_ext

    for isa in ("sse9", "", "AVX2"):
        with pytest.raises(ValueError, match=f"^isa: {isa!r}.*baseline"):
            softmax_ext.Kernels(isa)
