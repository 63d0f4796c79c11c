"""Calls of the kernels with random arguments, beside what the reference says of the same.

    python tests/fuzz/random_calls.py --calls 100000 --seed 7
    python tests/fuzz/random_calls.py --seed 7 --only 81234        one call again, and what it was

Each call has a number, and its arguments depend on the seed and that number alone. They are of
every shape, dtype and layout that is allowed, and of some that are not: broken CSR, labels out of
range, results that overlap the arguments. A call is right if it is refused where the reference
refuses it; or gives what the reference gives in float64 within the bounds of `tolerances`, NaN and
infinity where the reference has them, and the same bits on another number of threads in the usual
layout. Either way no argument has changed but `out`.
"""

from __future__ import annotations

import argparse
import sys
import time
import types
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tolerances
from problems import LABEL_DTYPES, LAYOUTS, assert_same_bits, assert_within

import softmax_ext as sx
from softmax_ext import _kernels, reference

FLOATS = [np.float32, np.float64]
REFUSALS = (ValueError, TypeError, IndexError)
# Some of each block size and one more; a few hundred numbers at most, so that calls are many.
SIZES = [0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 130]
SPECIALS = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 1e-40]


class Matrix:
    """A sparse matrix, or what pretends to be one."""

    def __init__(self, indptr, indices, data, shape):
        self.indptr, self.indices, self.data, self.shape = indptr, indices, data, shape

    def astype(self, dtype):
        return Matrix(self.indptr, self.indices, self.data.astype(dtype), self.shape)

    def __repr__(self):
        return f"Matrix({self.indptr!r}, {self.indices!r}, {self.data!r}, {self.shape})"


class Draw:
    """Random arguments."""

    def __init__(self, seed, number):
        self.rng = np.random.default_rng([seed, number])

    def one_of(self, choices):
        return choices[self.rng.integers(len(choices))]

    def chance(self, p):
        return self.rng.random() < p

    def size(self):
        return self.one_of(SIZES)

    def laid_out(self, a):
        """The array in a random layout; now and then broadcast or a matrix of another order."""
        if a.ndim and a.size and self.chance(0.03):
            return np.broadcast_to(a[:1], a.shape)
        if self.chance(0.4):
            return a
        # Mapping a file takes longer than the call.
        name = self.one_of([name for name in LAYOUTS if name != "memmap" or self.chance(0.05)])
        return LAYOUTS[name](a) if a.ndim or name in ("misaligned", "big-endian") else a

    def numbers(self, shape, dtype, *, special=0.0, scale=3.0):
        dtype = np.dtype(dtype)
        if dtype.kind in "iu":
            low = 0 if dtype.kind == "u" else -50
            return self.rng.integers(low, 100, shape).astype(dtype)
        a = np.asarray(self.rng.normal(0, scale, shape))
        if a.size and self.chance(special):
            where = self.rng.integers(0, a.size, self.rng.integers(1, 4))
            a.flat[where] = self.rng.choice(SPECIALS, len(where))
        with np.errstate(all="ignore"):
            return a.astype(dtype)

    def labels(self, n, c, ignore_index):
        dtype = np.dtype(self.one_of(LABEL_DTYPES))
        y = self.rng.integers(0, max(c, 1), n)
        y = np.minimum(y, min(np.iinfo(dtype).max, 2**62)).astype(dtype)
        if n and self.chance(0.3) and np.iinfo(dtype).min <= ignore_index <= np.iinfo(dtype).max:
            y[self.rng.integers(0, n, max(1, n // 3))] = ignore_index
        if n and self.chance(0.1):  # out of range, by one or by far
            info = np.iinfo(dtype)
            y[self.rng.integers(n)] = self.one_of([min(c, info.max), info.max, info.min])
        return self.laid_out(y)

    def matrix(self, n, d, dtype):
        """A CSR matrix, unsorted and with entries twice; one in four is broken.

        Entries are positive: the bounds are relative to the sum of those at one place.
        """
        n_entries = self.rng.integers(0, 2 * n * d + 1) if n * d else 0
        data = abs(self.numbers(n_entries, dtype))
        indices = self.rng.integers(0, max(d, 1), n_entries)
        cuts = np.sort(self.rng.integers(0, n_entries + 1, max(n - 1, 0)))
        indptr = np.concatenate([[0], cuts, [n_entries]])[: n + 1]
        if n and self.chance(0.25):
            part = self.one_of([indptr, indices])
            if part.size:
                part[self.rng.integers(part.size)] = self.one_of(
                    [-1, d, n_entries + 1, 2**31, -(2**40), 2**62]
                )
            cut = self.rng.integers(0, 4)
            indptr, indices, data = (
                a[: len(a) - 1] if cut == i else a for i, a in enumerate((indptr, indices, data))
            )
        with np.errstate(all="ignore"):
            index_type = self.one_of([np.int32, np.int64])
            indices, indptr = indices.astype(index_type), indptr.astype(index_type)
        return Matrix(*map(self.laid_out, (indptr, indices, data)), (n, d))

    def out(self, shape, dtype, arguments):
        """None, or where to put the result: fresh, in a layout, over an argument, or unfit."""
        kind = self.rng.random()
        if kind < 0.55:
            return None
        if kind < 0.9:
            layout = self.one_of(
                [np.asarray, *map(LAYOUTS.get, ("fortran", "strided", "backwards"))]
            )
            return layout(np.full(shape, 7, dtype)) if len(shape) else np.full(shape, 7, dtype)
        if kind < 0.97:
            for a in arguments:
                fits = isinstance(a, np.ndarray) and a.shape == shape and a.dtype == dtype
                if fits and a.flags.writeable:
                    return a
            return np.full(shape, 7, dtype)
        unfit = [
            np.full((*shape, 2), 7, dtype),
            np.full(shape, 7, np.int32),
            np.zeros(shape).tolist(),
        ]
        return unfit[self.rng.integers(3)]


class Call:
    """One call: its name, its arguments and the bounds of its results, for finite arguments."""

    def __init__(self, name, arguments, bounds=None):
        self.name, self.arguments, self.bounds = name, arguments, bounds

    def arrays(self):
        for value in self.arguments.values():
            parts = vars(value).values() if isinstance(value, Matrix) else [value]
            yield from (part for part in parts if isinstance(part, np.ndarray))

    def finite(self):
        return all(a.size and np.isfinite(a).all() and not (abs(a) > 1e6).any()
                   for a in self.arrays())  # fmt: skip

    def __repr__(self):
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"


def softmax_family(draw):
    name = draw.one_of(["softmax", "log_softmax", "logsumexp"])
    shape = tuple(draw.size() for _ in range(draw.rng.integers(0, 4)))
    while np.prod(shape) > 5000:
        shape = shape[1:]
    dtype = np.dtype(draw.one_of(["f2", "f4", "f4", "f8", "f8", "u1", "i4"]))
    x = draw.laid_out(draw.numbers(shape, dtype, special=0.2, scale=draw.one_of([1, 3, 30])))
    ndim = len(shape)
    axis = draw.one_of([-1, -1, 0, None, 1, (0, 1), (), 7, (0, 0)])
    if isinstance(axis, int) and ndim and axis != 7:
        axis %= ndim
    arguments = {"x": x, "axis": axis}
    if name == "logsumexp":
        arguments["keepdims"] = draw.chance(0.5)
    else:
        result = dtype if dtype.kind == "f" else np.dtype(float)
        out = draw.out(shape, result, [x])
        if out is not None:
            arguments["out"] = out

    def bounds(_):
        wide = np.asarray(x, np.float64)
        axes = tuple(range(ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = tuple(a % ndim for a in axes) if ndim else ()
        rest = [a for a in range(ndim) if a not in axes]
        rows = wide.transpose(*rest, *axes).reshape([shape[a] for a in rest] + [-1])
        computed = dtype if dtype.kind == "f" else np.float64
        bound = getattr(tolerances, f"{name}_bound")(rows, computed)
        if name == "logsumexp":
            return np.expand_dims(bound, axes) if arguments["keepdims"] else bound
        back = np.argsort([*rest, *axes])
        return bound.reshape([shape[a] for a in (*rest, *axes)]).transpose(*back)

    return Call(name, arguments, bounds)


def divergences(draw):
    name = draw.one_of(["entropy", "kl_divergence"])
    shape = tuple(draw.size() for _ in range(draw.rng.integers(1, 3)))
    dtype = np.dtype(draw.one_of(FLOATS))
    p, q = (abs(draw.numbers(shape, dtype)) for _ in range(2))
    for a in (p, q):
        if a.size and draw.chance(0.3):
            a.flat[draw.rng.integers(a.size)] = draw.one_of([0.0, np.nan, -0.5, np.inf])
    arguments = {"p": draw.laid_out(p)}
    if name == "kl_divergence":
        arguments["q"] = draw.laid_out(q)
    arguments["axis"] = draw.one_of([-1, 0, -1, 5])

    def bounds(arguments):
        p, q = arguments["p"], arguments.get("q", 1.0)
        with np.errstate(all="ignore"):
            wide = np.where(p > 0, p, 1).astype(float)
            other = np.where((p > 0) & (q > 0), q, 1).astype(float)
            terms = p * (np.abs(np.log(wide)) + np.abs(np.log(other)) + 1)
        bound = 20 * tolerances.eps(dtype) * terms.sum(axis=arguments["axis"])
        return bound + tolerances.tiny(dtype)

    return Call(name, arguments, bounds)


def loss_options(draw, n, c):
    ignore_index = draw.one_of([-100, -100, 0, 1, -1])
    if draw.chance(0.3):
        dtype = draw.one_of(FLOATS)
        target = draw.laid_out(np.abs(draw.numbers((n, c), dtype, special=0.02, scale=0.3)))
        ignore_index = draw.one_of([-100, -100, -100, 2])
    else:
        target = draw.labels(n, c, ignore_index)
    options = {"target": target, "reduction": draw.one_of(["mean", "sum", "none", "mean", "max"]
               if draw.chance(0.05) else ["mean", "sum", "none"])}  # fmt: skip
    if draw.chance(0.3):
        options["ignore_index"] = ignore_index
    if draw.chance(0.3):
        options["label_smoothing"] = draw.one_of([0.1, 0.5, 1.0, 0.0, 1.5])
    if draw.chance(0.3):
        weight = np.abs(draw.numbers(c + draw.chance(0.05), draw.one_of(FLOATS)))
        options["weight"] = draw.laid_out(weight)
    if draw.chance(0.3):
        weight = np.abs(draw.numbers(n + draw.chance(0.05), draw.one_of(FLOATS)))
        options["sample_weight"] = draw.laid_out(weight)
    return options


def cross_entropies(draw):
    name = draw.one_of(["cross_entropy", "cross_entropy_with_grad"])
    n, c = draw.size(), draw.size()
    dtype = draw.one_of(FLOATS)
    logits = draw.laid_out(draw.numbers((n, c), dtype, special=0.15))
    options = loss_options(draw, n, c)
    if name == "cross_entropy_with_grad":
        out = draw.out((n, c), np.dtype(dtype), [logits])
        if out is not None:
            options["out"] = out

    def bounds(options):
        options = {k: v for k, v in options.items() if k not in ("logits", "out")}
        terms = tolerances.Terms(logits.astype(float), dtype, **options)
        return [terms.loss, terms.gradient]

    return Call(name, {"logits": logits, **options}, bounds)


def linear_family(draw):
    fused = "linear_cross_entropy_with_grad"
    name = draw.one_of(["linear", "predict", "predict_proba", "linear_cross_entropy", fused, fused,
                        "linear_cross_entropy_hvp"])  # fmt: skip
    n, d, c = draw.size(), draw.size(), draw.size()
    dtype = np.dtype(draw.one_of(FLOATS))
    x_dtype = np.dtype(draw.one_of([dtype, dtype, np.uint8, np.float16, *FLOATS]))
    special = 0.05
    if draw.chance(0.3):
        c = max(c, 1)  # without a class nobody looks at the indices
        X = draw.matrix(n, d, x_dtype)
        special = 0  # the zeros that are not there make no NaN of the W they are not multiplied by
    else:
        X = draw.laid_out(draw.numbers((n, d), x_dtype, special=special))
    arguments = {
        "X": X,
        "W": draw.laid_out(draw.numbers((d, c), dtype, special=special, scale=0.5)),
    }
    bias = draw.laid_out(draw.numbers(c + draw.chance(0.02), dtype)) if draw.chance(0.7) else None
    arguments["b"] = bias
    if draw.chance(0.4):
        arguments["x_scale"] = draw.one_of(
            [1 / 255, 0.5, -2.0, np.nan if draw.chance(0.1) else 0.0]
        )
    with_loss = "cross_entropy" in name
    if with_loss:
        arguments.update(loss_options(draw, n, c))
    if name.endswith(("grad", "hvp")) and draw.chance(0.3) and n:
        rows = draw.rng.integers(-n, n, draw.size())
        if len(rows) and draw.chance(0.1):
            rows[draw.rng.integers(len(rows))] = draw.one_of([n, -n - 1, 2**62])
        arguments["rows"] = draw.laid_out(rows)
    if name.endswith("grad"):
        arguments["with_dX"] = not isinstance(X, Matrix) and draw.chance(0.5)
    if name.endswith("hvp"):
        arguments["V"] = draw.laid_out(
            draw.numbers((d, c + draw.chance(0.02)), dtype, special=special)
        )
        arguments["v"] = None if bias is None else draw.laid_out(draw.numbers(bias.shape, dtype))
    stored = x_dtype in (np.uint8, np.float16)  # and computed in W's
    if name == "linear":
        out = draw.out((n, c), np.result_type(dtype, dtype if stored else x_dtype), [X])
        if out is not None:
            arguments["out"] = out
    computed = dtype if stored else np.result_type(dtype, x_dtype)

    def bounds(_):
        return linear_bounds(name, {k: v for k, v in arguments.items() if k != "out"}, computed)

    return Call(name, arguments, bounds)


def linear_bounds(name, arguments, dtype):
    arguments = dict(arguments)
    X, x_scale = arguments.pop("X"), arguments.get("x_scale", 1.0)
    n_terms, most_in_a_column = X.shape[1], 0
    if isinstance(X, Matrix):
        used = X.indices[int(X.indptr[0]) : int(X.indptr[-1])]
        n_terms = max(n_terms, np.diff(X.indptr).max())
        most_in_a_column = np.bincount(used.astype(np.intp), minlength=1).max()
    X = dense(X)
    rows = arguments.pop("rows", None)
    arguments.pop("with_dX", None)
    direction = {key: arguments.pop(key) for key in ("V", "v") if key in arguments}
    n = X.shape[0]
    if rows is not None:
        rows = np.asarray(rows, np.intp) % max(n, 1)
        X = X[rows]
        for key in ("target", "sample_weight"):
            if arguments.get(key) is not None:
                arguments[key] = np.asarray(arguments[key])[rows]
    linear = {"X": X, "W": arguments["W"], "b": arguments["b"]}
    case = types.SimpleNamespace(
        dtype=dtype, d=n_terms, c=arguments["W"].shape[1], most_in_a_column=most_in_a_column
    )
    problem = types.SimpleNamespace(case=case, x_scale=x_scale, linear=linear, options=arguments)
    if name in ("linear", "predict", "predict_proba"):
        problem.linear = {k: None if v is None else v.astype(float) for k, v in linear.items()}
        wrong = tolerances.linear_bound(problem)
        wrong = wrong + tolerances.tiny_sum(dtype, n_terms, abs(x_scale))
        if name == "predict_proba" and wrong.size:
            logits = reference.linear(**problem.linear, x_scale=x_scale)
            wrong = wrong.max(axis=1, keepdims=True)
            return tolerances.softmax_bound(logits, dtype, wrong)
        return wrong
    problem.linear = {**linear, "x_scale": x_scale}
    if direction:
        terms = tolerances.HessianTerms(problem, {**arguments, "X": X}, **direction)
        return terms.dW, terms.db
    terms = tolerances.LinearTerms(problem, {**arguments, "X": X})
    return terms.loss, terms.dW, terms.db, terms.dX


def dense(X):
    if not isinstance(X, Matrix):
        return X.astype(float)
    whole = np.zeros(X.shape)
    counts = np.diff(X.indptr.astype(np.int64))
    first, last = int(X.indptr[0]), int(X.indptr[-1])
    rows = np.repeat(np.arange(X.shape[0]), counts)
    np.add.at(
        whole, (rows, X.indices[first:last].astype(np.intp)), X.data[first:last].astype(float)
    )
    return whole


FAMILIES = [softmax_family, divergences, cross_entropies, linear_family, linear_family]


def copied(arguments):
    """The same arguments, each in memory of its own, in the usual layout."""

    def copy(value):
        if isinstance(value, Matrix):
            return Matrix(*map(copy, (value.indptr, value.indices, value.data)), value.shape)
        if isinstance(value, np.ndarray):
            return value.astype(value.dtype.newbyteorder("="), order="C")
        return value

    return {name: copy(value) for name, value in arguments.items()}


def widened(arguments):
    arguments = {name: value for name, value in arguments.items() if name != "out"}
    for name in ("X", "W", "b", "V", "v", "logits", "x", "p", "q"):
        if arguments.get(name) is not None:
            arguments[name] = arguments[name].astype(np.float64)
    return arguments


def outcome(function, arguments):
    """What the function gives, or which of the errors for wrong arguments it raises."""
    try:
        return function(**arguments), None
    except REFUSALS as error:
        return None, error


def flat(result):
    return result if isinstance(result, tuple) else (result,)


def check_shapes(actual, expected):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        assert np.shape(a) == np.shape(e), f"shape {np.shape(a)}, {np.shape(e)} was wanted"
        if a is not None:
            assert np.asarray(a).dtype == np.asarray(e).dtype, f"dtype {np.asarray(a).dtype}"


def check_special(call, actual, expected):
    """NaN and infinity are where the reference has them.

    But in dW of a sparse X: a gradient of NaN is not multiplied by zeros that are not there. And a
    loss is summed in float64, where the reference's in float32 may be infinite.
    """
    dW = 0 if call.name.endswith("hvp") else 1
    skipped = dW if isinstance(call.arguments.get("X"), Matrix) else None
    for part, (a, e) in enumerate(zip(actual, expected, strict=True)):
        if a is not None and call.name != "predict" and part < 4 and part != skipped:
            a, e = np.asarray(a), np.asarray(e)
            np.testing.assert_array_equal(np.isnan(a), np.isnan(e), f"NaN in part {part}")
            where = np.isinf(e) | np.isinf(a)
            if (a[where] != e[where]).any():
                wide = getattr(reference, call.name)(**widened(copied(call.arguments)))
                e = np.asarray(flat(wide)[part])
            np.testing.assert_allclose(a[where], e[where], 1e-3, 0, err_msg=f"part {part}")


def check_numbers(call, actual, wide, bounds):
    if call.name == "predict":
        n = np.arange(len(wide))
        short = wide.max(axis=1, initial=-np.inf) - wide[n, actual[0]]
        assert (short <= 2 * bounds.max(axis=1, initial=0)).all(), "not the most probable class"
        return
    bounds = bounds if isinstance(bounds, (tuple, list)) else [bounds]
    for part, (a, e, bound) in enumerate(zip(actual, flat(wide), bounds, strict=False)):
        if a is not None:
            try:
                assert_within(np.asarray(a), np.asarray(e), bound)
            except AssertionError as error:
                raise AssertionError(f"part {part}: {error}") from None


def run(seed, number, isas):
    """Make one call and check it; return what it was, to be counted."""
    draw = Draw(seed, number)
    call = draw.one_of(FAMILIES)(draw)
    kernels = sx.Kernels(draw.one_of(isas))
    threads = draw.one_of([1, 1, 2, 3])
    out = call.arguments.get("out")
    plain = copied(call.arguments)
    expected, refused = outcome(getattr(reference, call.name), plain | copied({"out": out})
                                if out is not None else plain)  # fmt: skip
    plain.pop("out", None)
    finite = refused is None and call.finite()
    if finite:
        name = "linear" if call.name == "predict" else call.name
        with np.errstate(all="ignore"):
            wide = getattr(reference, name)(**widened(copied(call.arguments)))
            bounds = call.bounds(plain)
    before = [(a, a.tobytes()) for a in call.arrays()]
    with sx.num_threads(threads):
        actual, error = outcome(getattr(kernels, call.name), call.arguments)
    sparse = isinstance(call.arguments.get("X"), Matrix)
    if sparse and refused is not None and error is None and "target" in call.arguments:
        return call.name, "broken where nobody looks"  # in rows that are not taken or ignored
    # Where two arguments are wrong, either may be told of.
    assert (error is None) == (refused is None), f"{error!r}, the reference: {refused!r}"
    for a, content in before:
        taken = isinstance(out, np.ndarray) and refused is None and np.may_share_memory(a, out)
        assert taken or a.tobytes() == content, "an argument was changed"
    if refused is not None:
        return call.name, type(refused).__name__
    if out is not None:
        returned = actual.dlogits if isinstance(actual, tuple) else actual
        assert returned is out, "out is not what came back"
    check_shapes(flat(actual), flat(expected))
    if finite:
        check_numbers(call, flat(actual), wide, bounds)
    else:
        check_special(call, flat(actual), flat(expected))
    with sx.num_threads(draw.one_of([1, 2, 3])):
        again = getattr(kernels, call.name)(**plain)
    assert_same_bits(flat(actual), flat(again))
    return call.name, "finite" if finite else "special"


def fuzz(seed, numbers, seconds=float("inf"), isas=None):
    """Make the calls; AssertionError names the first that is wrong. Returns how many of each."""
    counts = Counter()
    end = time.monotonic() + seconds
    for number in numbers:
        try:
            counts[run(seed, number, isas or sx.available_isas())] += 1
        except Exception as error:
            where = f"call {number} of seed {seed}: --seed {seed} --only {number}"
            raise AssertionError(f"{where}\n{error}") from error
        if time.monotonic() > end:
            break
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--only", type=int, help="make this call alone, and show it")
    isas = (*sx.available_isas(), *_kernels.emulated_isas())
    parser.add_argument("--isa", action="append", choices=isas)
    parser.add_argument("--keep-going", action="store_true", help="go on after a wrong call")
    options = parser.parse_args()
    np.seterr(all="ignore")
    if options.only is not None:
        draw = Draw(options.seed, options.only)
        print(draw.one_of(FAMILIES)(draw))
        print(fuzz(options.seed, [options.only], isas=options.isa))
        return 0
    numbers = range(options.first, options.first + options.calls)
    wrong = 0
    if options.keep_going:
        counts = Counter()
        for number in numbers:
            try:
                counts += fuzz(options.seed, [number], isas=options.isa)
            except AssertionError as error:
                wrong += 1
                print(error)
    else:
        counts = fuzz(options.seed, numbers, options.seconds, options.isa)
    print(f"{counts.total()} calls, {wrong} wrong")
    for (name, kind), count in sorted(counts.items()):
        print(f"{count:9} {name}, {kind}")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
