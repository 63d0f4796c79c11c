#!/usr/bin/env python
"""Compare the time of `import softmax_ext` with that of `import numpy`, in turns.

    python bench/import_time.py [rounds]

Each import happens in a fresh interpreter, timed inside it, so that its own start does not count.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

STATEMENT = "from time import perf_counter as t; s = t(); import {}; print(t() - s)"


def seconds(module: str) -> float:
    """Return the time a fresh interpreter takes to import `module`."""
    command = [sys.executable, "-c", STATEMENT.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    modules = ("numpy", "softmax_ext")
    times: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(rounds):
        for module in modules:
            times[module].append(seconds(module))
    medians = {module: statistics.median(taken) for module, taken in times.items()}
    for module, median in medians.items():
        print(f"import {module:12} {median * 1e3:6.1f} ms (least {min(times[module]) * 1e3:.1f})")
    print(f"ratio {medians['softmax_ext'] / medians['numpy']:.2f}, {rounds} rounds")


if __name__ == "__main__":
    main()
