"""Problems to give to the kernels, and the forms in which their arrays may come.

A `Case` says what a problem looks like, `Problem(case)` is the problem itself: the arrays and
options, always the same ones for the same case. `deck` deals out combinations of what may vary.
`layouts` gives an array in other memory layouts.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace

import numpy as np

from softmax_ext import reference

FLOATS = ["float32", "float64"]
REDUCTIONS = ["mean", "sum", "none"]
NS = [0, 1, 2, 3, 5, 63, 64, 65, 130, 1000]
DS = [0, 1, 2, 3, 7, 15, 16, 17, 31, 64, 100, 784, 1000]
CS = [1, 2, 3, 5, 7, 10, 16, 17, 33, 100, 257, 1000]
LABEL_DTYPES = ["int64", "uint8", "int8", "int16", "uint16", "int32", "uint32", "uint64"]


def deck(seed, count, **values):
    """`count` dicts with a value for each key: each value as often as any other, well mixed."""
    rng = np.random.default_rng(seed)
    columns = {}
    for key, choices in values.items():
        rounds = -(-count // len(choices))
        order = np.concatenate([rng.permutation(len(choices)) for _ in range(rounds)])
        columns[key] = [choices[i] for i in order[:count]]
    return [{key: column[i] for key, column in columns.items()} for i in range(count)]


@dataclass(frozen=True)
class Case:
    """What a problem looks like."""

    n: int
    d: int
    c: int
    dtype: str = "float64"  # of W and b, and so of the results
    x_dtype: str | None = None  # None: the same
    soft: bool = False  # probabilities as targets, not labels
    label_dtype: str = "int64"
    reduction: str = "mean"
    bias: bool = True
    weight: bool = False
    sample_weight: bool = False
    ignore: int | None = None  # this label is ignored, and a third of the rows have it
    smoothing: float = 0.0
    x_scale: float = 1.0
    w_order: str = "C"
    rows: bool = False
    with_dX: bool = True
    seed: int = 0

    def __str__(self):
        plain = asdict(Case(0, 0, 0))
        changed = {k: v for k, v in asdict(self).items() if v != plain[k] and k not in ("n", "d")}
        shape = f"{self.n}x{self.d}x{changed.pop('c')}-{self.dtype}"
        changed.pop("dtype", None)
        words = [k if v is True else f"no_{k}" if v is False else f"{k}={v}"
                 for k, v in changed.items()]  # fmt: skip
        return "-".join([shape, *words])


class Problem:
    """The arrays and options of a case.

    Logits are of the size of a few units, whatever the shape and `x_scale`. All weights are at
    least 0, so that the terms of a loss do not cancel and its error can be bounded relative to it.
    """

    def __init__(self, case):
        rng = np.random.default_rng([case.seed, case.n, case.d, case.c])
        self.case = case
        x_dtype = case.x_dtype or case.dtype
        if x_dtype == "uint8":
            self.X = rng.integers(0, 256, (case.n, case.d), np.uint8)
            x_size = 147.0
        else:
            self.X = rng.normal(size=(case.n, case.d)).astype(x_dtype)
            x_size = 1.0
        w_size = 2 / (x_size * abs(case.x_scale) * max(case.d, 1) ** 0.5)
        W = rng.normal(0, w_size, (case.d, case.c)).astype(case.dtype)
        self.W = np.asarray(W, order=case.w_order)
        self.b = rng.normal(size=case.c).astype(case.dtype) if case.bias else None
        self.options = {"reduction": case.reduction}
        if case.weight:
            self.options["weight"] = rng.uniform(0.1, 2, case.c).astype("float32")
        if case.sample_weight:
            self.options["sample_weight"] = rng.uniform(0, 2, case.n)
        if case.smoothing:
            self.options["label_smoothing"] = case.smoothing
        self.target = self._target(rng)
        self.x_scale = case.x_scale
        self.rows = rng.integers(-case.n, case.n, case.n // 2 + 3) if case.rows else None

    def _target(self, rng):
        case = self.case
        if case.soft:
            t = rng.exponential(size=(case.n, case.c))
            t[rng.random(t.shape) < 0.3] = 0
            t /= np.maximum(t.sum(axis=1, keepdims=True), 1) * rng.choice([0.5, 1], (case.n, 1))
            return t.astype(rng.choice(FLOATS))
        y = rng.integers(0, case.c, case.n)
        if case.ignore is not None:
            self.options["ignore_index"] = case.ignore
            y[rng.random(case.n) < 1 / 3] = case.ignore
        return y.astype(case.label_dtype)

    @property
    def linear(self):
        """Arguments of the functions that know no target."""
        return {"X": self.X, "W": self.W, "b": self.b, "x_scale": self.x_scale}

    @property
    def loss(self):
        """Arguments of `linear_cross_entropy`."""
        return {**self.linear, "target": self.target, **self.options}

    @property
    def gradient(self):
        """Arguments of `linear_cross_entropy_with_grad`."""
        return {**self.loss, "rows": self.rows, "with_dX": self.case.with_dX}

    @property
    def picked(self):
        """`loss` with the rows picked by hand."""
        if self.rows is None:
            return self.loss
        some = {"X": self.X[self.rows], "target": self.target[self.rows]}
        if self.case.sample_weight:
            some["sample_weight"] = self.options["sample_weight"][self.rows]
        return {**self.loss, **some}


def once(f):
    """What f makes is made once for all sets of kernels, which take a case one after the other."""
    return functools.lru_cache(maxsize=4)(f)


def in_float64(arguments):
    """The same arguments with X, W, b and logits as float64, for the reference as an oracle."""
    wide = dict(arguments)
    for name in ("X", "W", "b", "logits", "x"):
        if wide.get(name) is not None:
            wide[name] = wide[name].astype(np.float64)
    return wide


def oracle(function, arguments):
    """What the reference says in float64."""
    return getattr(reference, function)(**in_float64(arguments))


def cases(seed, count, *, budget=3e7, **values):
    """Cases of all shapes and options; N is lowered where N D C would exceed the budget."""
    everything = {
        "n": NS, "d": DS, "c": CS,
        "types": [("float32", None), ("float64", None), ("float32", "uint8"), ("float64", "uint8")],
        "soft": [False, False, True], "label_dtype": LABEL_DTYPES, "reduction": REDUCTIONS,
        "bias": [True, True, False], "weight": [False, True], "sample_weight": [False, True],
        "ignore": [None, None, -100, 0], "smoothing": [0.0, 0.0, 0.1, 1.0],
        "x_scale": [1.0, 1 / 255, -0.5], "w_order": ["C", "F"], "rows": [False, True],
        "with_dX": [False, True],
    }  # fmt: skip
    return [
        _possible(dealt, budget, i)
        for i, dealt in enumerate(deck(seed, count, **everything | values))
    ]


def _possible(dealt, budget, seed):
    """The case nearest to what was dealt that makes sense."""
    dtype, x_dtype = dealt.pop("types")
    case = Case(**dealt, dtype=dtype, x_dtype=x_dtype, seed=seed)
    fitting = [n for n in NS if n <= case.n and n * case.d * case.c <= budget]
    case = replace(case, n=fitting[-1], rows=case.rows and fitting[-1] > 0)
    if case.soft:
        return replace(case, ignore=None, label_dtype="int64")
    info = np.iinfo(case.label_dtype)
    if case.c - 1 > info.max or (case.ignore is not None and case.ignore < info.min):
        return replace(case, label_dtype="int64" if info.min < 0 else "uint16", ignore=None)
    return case


# Memory layouts ---------------------------------------------------------------------------------


def misaligned(a):
    """A copy whose address is one byte past a multiple of the itemsize."""
    raw = np.empty(a.nbytes + a.itemsize + 1, np.uint8)
    start = -raw.ctypes.data % a.itemsize + 1
    b = raw[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


def strided(a):
    """A copy that is every second element of every third row, and so on, of a larger array."""
    steps = [3, 2, 2][-a.ndim :] if a.ndim else []
    big = np.full([n * s for n, s in zip(a.shape, steps, strict=True)], 7, a.dtype)
    b = big[tuple(slice(None, None, s) for s in steps)]
    b[...] = a
    return b


def backwards(a):
    """A copy with negative strides on every axis."""
    flip = (slice(None, None, -1),) * a.ndim
    return a[flip].copy()[flip]


def read_only(a):
    b = a.copy()
    b.flags.writeable = False
    return b


def memory_mapped(a):
    """A copy in a file, mapped for reading."""
    if a.size == 0:  # there is nothing to map
        return read_only(a)
    with tempfile.NamedTemporaryFile() as f:
        f.write(b"head!" + a.tobytes())  # the data is misaligned too
        f.flush()
        return np.memmap(f.name, a.dtype, "r", 5, a.shape)


def big_endian(a):
    return a.astype(a.dtype.newbyteorder(">"))


def sliced_columns(a):
    """A copy inside a wider array: rows are apart, the numbers of a row are not."""
    wide = np.full((*a.shape[:-1], a.shape[-1] + 3), 7, a.dtype)
    wide[..., 1:-2] = a
    return wide[..., 1:-2]


LAYOUTS = {
    "fortran": np.asfortranarray,
    "sliced-columns": sliced_columns,
    "strided": strided,
    "backwards": backwards,
    "misaligned": misaligned,
    "read-only": read_only,
    "memmap": memory_mapped,
    "big-endian": big_endian,
}


# Comparing ---------------------------------------------------------------------------------------


def assert_same_bits(actual, expected):
    """The same shapes, dtypes and bits; in tuples, each of their parts. NaN counts as itself."""
    if isinstance(expected, tuple):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same_bits(a, e)
    elif expected is None:
        assert actual is None
    elif not _same_bytes(actual, expected):
        np.testing.assert_array_equal(actual, expected, strict=not np.isscalar(expected))
        signs = np.signbit(actual) == np.signbit(expected)
        assert (signs | np.isnan(expected)).all(), "the sign of a zero differs"


def _same_bytes(a, b):
    """What nearly all comparisons come to, in a hundredth of the time."""
    return (
        isinstance(a, np.ndarray)
        and isinstance(b, np.ndarray)
        and (a.dtype, a.shape) == (b.dtype, b.shape)
        and a.tobytes() == b.tobytes()
    )


def assert_within(actual, expected, bound):
    """|actual - expected| <= bound, number by number; infinities and NaN must be the same."""
    assert np.shape(actual) == np.shape(expected)
    actual, expected, bound = np.broadcast_arrays(actual, expected, bound)
    finite = np.isfinite(expected)
    if not finite.all():
        np.testing.assert_array_equal(actual[~finite], expected[~finite])
        actual, expected, bound = actual[finite], expected[finite], bound[finite]
    error = np.abs(actual.astype(np.float64) - expected)
    if not (error <= bound).all():
        worst = np.argmax(np.where(error <= bound, 0, error / np.maximum(bound, 1e-300)))
        raise AssertionError(
            f"{np.count_nonzero(~(error <= bound))} of {error.size} numbers are off; the worst: "
            f"{actual.flat[worst]!r}, wanted {expected.flat[worst]!r} "
            f"within {bound.flat[worst]:.3g}, error {error.flat[worst]:.3g}"
        )


class Unchanged:
    """Checks at the end of a `with` that no byte of the arrays has changed."""

    def __init__(self, *values):
        self.arrays = [v for v in values if isinstance(v, np.ndarray)]

    def __enter__(self):
        self.before = [(a.tobytes(), a.strides, a.dtype) for a in self.arrays]

    def __exit__(self, *error):
        after = [(a.tobytes(), a.strides, a.dtype) for a in self.arrays]
        assert after == self.before, "an argument was modified"


# A fresh interpreter -----------------------------------------------------------------------------


def run_python(code, *, env=None, timeout=120, check=True):
    """Run a program in a fresh interpreter; its standard output, stripped, or the whole result."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **(env or {})}, timeout=timeout, capture_output=True, text=True,
    )  # fmt: skip
    if not check:
        return done
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
