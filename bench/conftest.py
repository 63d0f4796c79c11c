"""Options of the pytest benchmarks: ``pytest bench``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchlib import threads


def pytest_addoption(parser: pytest.Parser) -> None:
    add = parser.getgroup("bench", "benchmarks of softmax_ext").addoption
    add("--bench-threads", type=int, default=1, help="threads of every contender (default: 1)")
    add("--bench-smoke", action="store_true", help="tiny sizes, to try the machinery")


def pytest_configure(config: pytest.Config) -> None:
    # Before anything imports NumPy; see benchlib/threads.py.
    threads.prepare(config.getoption("bench_threads"))
