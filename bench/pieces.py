#!/usr/bin/env python
"""Draw the error of products in small pieces beside those of plain float32 and bfloat16.

    python bench/pieces.py --out docs/pieces.png      the picture in the docs

The tiles are emulated, bit for bit, so that the picture is the same on every machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import softmax_ext as sx

FEATURES = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
ROWS, CLASSES = 32, 70
U = 2.0**-24

Array = NDArray[Any]


def in_bf16(x: Array) -> Array:
    """Float32 rounded to bfloat16, to nearest even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def one_after_the_other(X: Array, W: Array) -> Array:
    """Products added in float32, feature by feature."""
    total = np.zeros((len(X), W.shape[1]), np.float32)
    for d in range(X.shape[1]):
        total += X[:, d, None] * W[d]
    return total


def error(found: Array, X: Array, W: Array) -> float:
    """Largest of all logits, in units of 2^-24 of the sizes of what is added up."""
    exact = X.astype(np.longdouble) @ W.astype(np.longdouble)
    sizes = np.abs(X.astype(float)) @ np.abs(W.astype(float))
    return float((np.abs(found - exact) / sizes).max() / U)


def measure() -> dict[str, list[float]]:
    """Errors by way, a number for each of FEATURES."""
    tiles, plain = sx.Kernels("amx-emulated"), sx.Kernels("baseline")
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for d in FEATURES:
        X = rng.normal(size=(ROWS, d)).astype(np.float32)
        pixels = rng.integers(0, 256, (ROWS, d), np.uint8)
        W = rng.normal(size=(d, CLASSES)).astype(np.float32)
        for name, x, product in (
            ("bfloat16", X, in_bf16(X) @ in_bf16(W)),
            ("float32, one after the other", X, one_after_the_other(X, W)),
            ("float32, vector unit (SSE2)", X, plain.linear(X, W)),
            ("float32 in three bfloat16, tiles", X, tiles.linear(X, W)),
            ("bytes times digits, tiles", pixels, tiles.linear(pixels, W)),
        ):
            found.setdefault(name, []).append(error(product, x, W))
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="file to write the picture to")
    options = parser.parse_args(argv)
    found = measure()
    for name, errors in found.items():
        print(f"{name:<34}" + "".join(f"{e:>10.3g}" for e in errors))
    if options.out:
        import matplotlib as mpl

        mpl.use("agg")
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
        for (name, errors), marker in zip(found.items(), "x^sod", strict=True):
            axes.loglog(FEATURES, errors, marker=marker, label=name, markersize=5)
        axes.loglog(FEATURES, FEATURES, "k:", label="bound of a float32 sum", linewidth=1)
        axes.set_xlabel("features D")
        axes.set_ylabel("largest error, in units of 2$^{-24}$ of the sum of sizes")
        axes.set_xticks(FEATURES, map(str, FEATURES))
        axes.minorticks_off()
        figure.legend(loc="outside upper center", ncols=3, fontsize="small", frameon=False)
        axes.grid(visible=True, alpha=0.3)
        figure.savefig(options.out, dpi=100, metadata={"Software": None})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
