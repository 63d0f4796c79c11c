#!/usr/bin/env python
"""Measure errors beside SciPy, PyTorch and JAX, in units of the last place (ULP).

    python bench/accuracy.py                          some 300000 rows for each dtype
    python bench/accuracy.py --rows 10000000 --out docs/accuracy.md      the page in docs

Ends with status 1 if one of our instruction sets breaks a promise (`LIMITS`).
"""

from __future__ import annotations

import argparse
import platform
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import softmax_ext as sx
from softmax_ext import special

CLASSES = (2, 3, 10, 100, 1000, 32768)
DTYPES = ("float32", "float64")
FUNCTIONS = ("softmax", "log_softmax", "logsumexp")
#: What we promise, in ULP.
LIMITS = {"softmax": 4, "log_softmax": 4, "logsumexp": 2}
#: Numbers of one call.
BLOCK = 1 << 19
#: Pairs for each line of the table of elementwise functions.
PAIRS = 2000

Array = NDArray[Any]
Draw = Callable[[np.random.Generator, Any], Any]
Contender = Callable[[str, Array], Array]


# Rows to measure on ---------------------------------------------------------------------------


def _one_large(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    x = rng.normal(0, 1, shape)
    x[:, 0] += rng.uniform(5, 60, len(x))
    return x


#: What is in a block of rows, for the page and for the program.
DRAWS: dict[str, Draw] = {
    "N(0, 0.1)": lambda rng, shape: rng.normal(0, 0.1, shape),
    "N(0, 1)": lambda rng, shape: rng.normal(0, 1, shape),
    "N(0, 10)": lambda rng, shape: rng.normal(0, 10, shape),
    "N(0, 30)": lambda rng, shape: rng.normal(0, 30, shape),
    "N(0, 100)": lambda rng, shape: rng.normal(0, 100, shape),
    "N(1000, 5)": lambda rng, shape: rng.normal(1000, 5, shape),
    "U(-80, 0)": lambda rng, shape: rng.uniform(-80, 0, shape),
    "N(0, 1) with one number larger by U(5, 60)": _one_large,
}


def blocks(dtype: str, rows: int) -> Iterator[Array]:
    """Yield (n, C) arrays, at least `rows` rows in all, for each C about as many numbers."""
    numbers = rows / sum(1 / c for c in CLASSES) / len(DRAWS)
    rng = np.random.default_rng(7)
    for c in CLASSES:
        for draw in DRAWS.values():
            left = int(np.ceil(numbers / c))
            while left > 0:
                n = min(left, max(1, BLOCK // c))
                yield draw(rng, (n, c)).astype(dtype)
                left -= n


# The right answers ----------------------------------------------------------------------------


class Exact:
    """z = x - max, softmax, log_softmax and logsumexp of rows, and the units of their errors.

    Computed with 11 bits or more to spare: float32 in float64, float64 in the long double of 80
    bits, where the rounding error of x - max is carried along.
    """

    def __init__(self, x: Array) -> None:
        wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
        m = wide.max(axis=1, keepdims=True)
        z = wide - m
        t = z - wide
        lost = (wide - (z - t)) - (m + t)  # x - m = z + lost exactly: Knuth's two-sum
        e = np.exp(z) * (1 + lost)
        largest = np.arange(x.shape[1]) == x.argmax(axis=1)[:, None]
        rest = np.where(largest, 0, e).sum(axis=1, keepdims=True)
        log_sum = np.log1p(rest)
        self.values = {
            "softmax": e / (1 + rest),
            "log_softmax": z - log_sum + lost,
            "logsumexp": (m + log_sum)[:, 0],
        }
        sizes = {
            "softmax": self.values["softmax"],
            "log_softmax": np.maximum(-z, log_sum),
            "logsumexp": np.maximum(np.abs(m), log_sum)[:, 0],
        }
        sizes["logsumexp"] = np.maximum(sizes["logsumexp"], np.abs(self.values["logsumexp"]))
        self._info = np.finfo(x.dtype)
        self.units = {name: self._unit(size) for name, size in sizes.items()}
        self.units["softmax"][self.values["softmax"] < self._info.tiny] = np.inf

    def _unit(self, size: Array) -> Array:
        """The distance of neighbouring numbers of this size, in x's dtype."""
        unit = np.ldexp(np.ones_like(size), np.frexp(size)[1] - self._info.nmant - 1)
        unit[unit < self._info.smallest_subnormal] = self._info.smallest_subnormal
        return unit

    def error(self, function: str, result: Array) -> float:
        """Largest error of a result, in ULP."""
        right = self.values[function]
        return float(np.max(np.abs(result.astype(right.dtype) - right) / self.units[function]))


# Who is measured ------------------------------------------------------------------------------


def contenders() -> dict[str, Contender]:
    """Ours with every instruction set, and the libraries that are installed."""
    found = {f"softmax_ext {isa}": _ours(isa) for isa in sx.available_isas()}
    for library, make in (("scipy", _scipy), ("torch", _torch), ("jax", _jax)):
        try:
            found[f"{library} {metadata.version(library)}"] = make()
        except ImportError:
            print(f"{library} is not installed: left out", file=sys.stderr)
    return found


def _ours(isa: str) -> Contender:
    kernels = sx.Kernels(isa)
    return lambda name, x: getattr(kernels, name)(x, axis=1)


def _scipy() -> Contender:
    library = import_module("scipy.special")
    return lambda name, x: getattr(library, name)(x, axis=1)


def _torch() -> Contender:
    torch = import_module("torch")
    return lambda name, x: getattr(torch, name)(torch.from_numpy(x), dim=1).numpy()


def _jax() -> Contender:
    jax = import_module("jax")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    nn = import_module("jax.nn")
    return lambda name, x: np.asarray(getattr(nn, name)(x, axis=1))


# Measuring ------------------------------------------------------------------------------------

#: (dtype, function, contender, C) -> largest error in ULP.
Errors = dict[tuple[str, str, str, int], float]


def measure(rows: int, who: dict[str, Contender]) -> tuple[Errors, dict[tuple[str, int], int]]:
    """Return the largest errors, and how many rows there were for each dtype and C."""
    worst: Errors = {}
    count: dict[tuple[str, int], int] = {}
    for dtype in DTYPES:
        for x in blocks(dtype, rows):
            c = x.shape[1]
            count[dtype, c] = count.get((dtype, c), 0) + len(x)
            exact = Exact(x)
            for function in FUNCTIONS:
                for name, compute in who.items():
                    key = dtype, function, name, c
                    error = exact.error(function, compute(function, x))
                    worst[key] = max(worst.get(key, 0.0), error)
    return worst, count


def elementwise() -> list[list[str]]:
    """Largest errors of entr, rel_entr and kl_div in float64, ours and SciPy's, by mpmath."""
    mp = import_module("mpmath")
    scipy_special = import_module("scipy.special")
    rng = np.random.default_rng(7)
    x = 10.0 ** rng.uniform(-20, 20, PAIRS)
    near = 10.0 ** rng.uniform(-15, -1, PAIRS) * rng.choice([-1, 1], PAIRS)
    lines = []
    for about, y in (
        ("y = x (1 ± 1e-15 to 0.1)", x * (1 + near)),
        ("y = x / 5 to 5 x", x * 5 ** rng.uniform(-1, 1, PAIRS)),
        ("y = x / 1e250 to 1e250 x", x * 10.0 ** rng.uniform(-250, 250, PAIRS)),
    ):
        with mp.workdps(60):
            pairs = [(mp.mpf(float(p)), mp.mpf(float(q))) for p, q in zip(x, y, strict=True)]
            relative = [p * mp.log(p / q) for p, q in pairs]
            kl = [r - p + q for r, (p, q) in zip(relative, pairs, strict=True)]
            for name, exact in (("rel_entr", relative), ("kl_div", kl)):
                functions = (getattr(special, name), getattr(scipy_special, name))
                found = [_largest(mp, f(x, y), exact) for f in functions]
                lines.append([f"{name}, {about}", *map(_number, found)])
    x = rng.uniform(0, 2, PAIRS)
    with mp.workdps(60):
        exact = [-p * mp.log(p) for p in map(mp.mpf, map(float, x))]
        found = [_largest(mp, f(x), exact) for f in (special.entr, scipy_special.entr)]
    return [*lines, ["entr, x = 0 to 2", *map(_number, found)]]


def _largest(mp: Any, actual: Array, exact: list[Any]) -> float:
    units = np.spacing(np.abs(np.array([float(e) for e in exact])))
    return max(
        float(abs(mp.mpf(float(a)) - e) / mp.mpf(float(u))) if np.isfinite(a) else np.inf
        for a, e, u in zip(actual, exact, units, strict=True)
    )


# The page -------------------------------------------------------------------------------------

PAGE = """# Accuracy

Largest errors, in units of the last place (ULP) of the exact result; half a unit is the least that
can be promised for every input. Made by `bench/accuracy.py --rows {rows}` with {versions}.

How it was measured: {count} rows of each dtype, for each number of classes C an equal share of the
numbers, drawn from {draws}. The right answers are computed in float64 for float32, and in the long
double of 80 bits for float64. Of softmax every result counts that is a normal number. For
log_softmax the unit is that of the larger of |x - max| and the logarithm of the sum, for logsumexp
that of the largest of |max|, that logarithm and the result: the terms that are added last, which
may cancel. We promise {limits} ULP.
"""

ELEMENTWISE = """
## entr, rel_entr, kl_div in float64

{pairs} pairs a line, against mpmath with 60 digits.

"""


def page(rows: int, who: dict[str, Contender], worst: Errors, count: dict[Any, int]) -> str:
    """Return the tables as Markdown."""
    total = sum(n for (dtype, _), n in count.items() if dtype == DTYPES[0])
    head = PAGE.format(
        rows=rows, count=f"{total:,}", draws=", ".join(DRAWS), versions=_versions(),
        limits=", ".join(f"{name} {limit}" for name, limit in LIMITS.items()),
    )  # fmt: skip
    parts = ["\n\n".join(textwrap.fill(part, 100) for part in head.split("\n\n")), "\n"]
    for dtype in DTYPES:
        rows_of = ", ".join(f"{count[dtype, c]:,}" for c in CLASSES)
        parts.append(f"\n## {dtype}\n\nRows for each C: {rows_of}.\n")
        for function in FUNCTIONS:
            heads = [f"{function}, C =", *map(str, CLASSES)]
            lines = [
                [name, *(_number(worst[dtype, function, name, c]) for c in CLASSES)] for name in who
            ]
            parts.append("\n" + _table(heads, lines))
    if any(name.startswith("scipy") for name in who):
        parts.append(ELEMENTWISE.format(pairs=PAIRS))
        parts.append(_table(["", "softmax_ext", "scipy"], elementwise()))
    return "".join(parts)


def _versions() -> str:
    return f"softmax_ext {sx.__version__} and NumPy {np.__version__} on {platform.machine()}"


def _number(ulp: float) -> str:
    return f"{ulp:.2f}" if ulp < 100 else f"{ulp:.3g}"


def _table(heads: list[str], lines: list[list[str]]) -> str:
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)], *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the page, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=300_000, help="rows of each dtype")
    parser.add_argument("--out", type=Path, help="file to write the page to")
    options = parser.parse_args(argv)
    if np.finfo(np.longdouble).nmant < 63:
        parser.error("this platform's long double is no wider than float64")
    who = contenders()
    worst, count = measure(options.rows, who)
    text = page(options.rows, who, worst, count)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    broken = [
        f"{name}: {function}, {dtype}, C = {c}: {error:.2f} ULP, {LIMITS[function]} promised"
        for (dtype, function, name, c), error in worst.items()
        if name.startswith("softmax_ext") and not error <= LIMITS[function]
    ]
    print(*broken, sep="\n", file=sys.stderr, end="")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
