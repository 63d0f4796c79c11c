#!/usr/bin/env python
"""Sweep linear_cross_entropy_with_grad over classes and features; draw the time per operation.

    python bench/sweep.py                  the best instruction set, one thread (some minutes)
    python bench/sweep.py --isa avx2       another one

A kernel that is good everywhere gives a smooth map. A cell that takes more than 1.5 times what
its neighbours suggest is measured again and, if it does so again, flagged: printed, and framed
in the picture. Writes sweep-<isa>-<threads>-thread.json and .png into --out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

# Powers of two, their neighbours, and sizes people have.
CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 20, 24, 31, 32, 33, 48, 63, 64, 65,
           100, 127, 128, 129, 200, 256, 300, 512, 1000, 1024, 2048)  # fmt: skip
FEATURES = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 54, 63, 64, 65, 100, 128, 200, 256, 257,
            300, 512, 768, 784, 1000, 1024, 2048, 4096)  # fmt: skip
TINY = (1, 2, 3, 16, 17)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--threads", type=int, default=1, help="threads (default: 1)")
    add("--isa", default="", help="instruction set (default: the best that can run here)")
    add("--dtype", choices=("float32", "float64"), default="float32", help="of X and W")
    add("--smoke", action="store_true", help="a few small cells: tries the machinery only")
    add("--out", type=Path, default=HERE / "results", help="where to write (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the sweep; return the exit status."""
    options = arguments(argv)
    try:
        return run(options)
    except ValueError as error:
        print(f"sweep.py: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    from benchlib import threads

    threads.prepare(options.threads)
    from benchlib import cells, environment

    import softmax_ext

    kernels = softmax_ext.Kernels(options.isa or softmax_ext.available_isas()[0])
    threads.apply(options.threads)
    described = environment.describe() | {"threads": options.threads, "swept": kernels.isa}
    print("\n".join(environment.lines(described)), flush=True)
    classes, features = (TINY, TINY) if options.smoke else (CLASSES, FEATURES)
    work = 1e5 if options.smoke else 1e8

    def measure(d: int, c: int) -> float:
        return cells.seconds_per_flop(kernels, d, c, options.dtype, work)

    times = []
    for d in features:
        times.append([measure(d, c) for c in classes])
        print(f"D = {d}: {min(times[-1]) * 1e12:.1f} to {max(times[-1]) * 1e12:.1f} ps", flush=True)
    found = cells.confirmed(times, features, classes, measure)
    for d, c, factor in found:
        print(f"flagged: D = {d}, C = {c} takes {factor:.2f} times what its neighbours suggest")
    if not found:
        print("no cell flagged")
    _write(options, kernels.isa, described, features, classes, times, found)
    return 0


def _write(options: argparse.Namespace, isa: str, described: Any, *measured: Any) -> None:
    features, classes, times, found = measured
    options.out.mkdir(parents=True, exist_ok=True)
    kind = "" if options.dtype == "float32" else f"-{options.dtype}"
    kind += "-smoke" if options.smoke else ""
    name = f"sweep-{isa}-{options.threads}-thread{kind}"
    record = {
        "environment": described,
        "dtype": options.dtype,
        "features": features,
        "classes": classes,
        "seconds_per_flop": times,
        "flagged": found,
    }
    with open(options.out / f"{name}.json", "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
    from benchlib import heatmap

    title = f"linear_cross_entropy_with_grad, {options.dtype}, {isa}"
    plural = "" if options.threads == 1 else "s"
    footer = f"{described['CPU']}, {options.threads} thread{plural}; best of several calls"
    figure = heatmap.draw(features, classes, times, found, title, footer)
    figure.savefig(options.out / f"{name}.png", dpi=120)
    print(f"written to {options.out}/{name}.json and .png")


if __name__ == "__main__":
    raise SystemExit(main())
