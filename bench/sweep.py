#!/usr/bin/env python
"""Sweep linear_cross_entropy_with_grad over classes and features; draw the time per operation.

    python bench/sweep.py                  the best instruction set, one thread (two minutes)
    python bench/sweep.py --isa avx2       another one

A kernel that is good everywhere gives a smooth map. A cell that takes more than 1.5 times what
its neighbours suggest is measured again and, if it does so again, flagged: printed, and framed
in the picture. Writes sweep-<isa>-<threads>-thread.json and .png into --out.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchlib import options as shared

# Powers of two, their neighbours, and sizes people have.
CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 20, 24, 31, 32, 33, 48, 63, 64, 65,
           100, 127, 128, 129, 200, 256, 300, 512, 1000, 1024, 2048)  # fmt: skip
FEATURES = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 54, 63, 64, 65, 100, 128, 200, 256, 257,
            300, 512, 768, 784, 1000, 1024, 2048, 4096)  # fmt: skip
TINY = (1, 2, 3, 16, 17)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = shared.parser(__doc__)
    add = parser.add_argument
    add("--threads", type=int, default=1, help="threads (default: 1)")
    add("--dtype", choices=("float32", "float64"), default="float32", help="of X and W")
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> int:
    from benchlib import threads

    threads.prepare(options.threads)
    from benchlib import environment

    import softmax_ext

    shared.check_isas(options.isa)
    threads.apply(options.threads)
    described = environment.describe() | {"threads": options.threads}
    print("\n".join(environment.lines(described)), flush=True)
    for isa in options.isa or softmax_ext.available_isas()[:1]:
        _sweep(options, softmax_ext.Kernels(isa), described)
    return 0


def _sweep(options: argparse.Namespace, kernels: Any, described: dict[str, Any]) -> None:
    from benchlib import cells

    print(f"{kernels.isa}:", flush=True)
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


def _write(options: argparse.Namespace, isa: str, described: Any, *measured: Any) -> None:
    features, classes, times, found = measured
    options.out.mkdir(parents=True, exist_ok=True)
    kind = "" if options.dtype == "float32" else f"-{options.dtype}"
    kind += "-smoke" if options.smoke else ""
    name = f"sweep-{isa}-{options.threads}-thread{kind}"
    record = {
        "environment": described | {"swept": isa},
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
    raise SystemExit(shared.main("sweep.py", run, arguments()))
