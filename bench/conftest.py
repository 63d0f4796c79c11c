"""Options and shared inputs of the pytest benchmarks: ``pytest bench``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchlib import threads


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "benchmarks of softmax_ext")
    add = group.addoption
    add("--bench-threads", type=int, default=1, help="threads of every contender (default: 1)")
    add("--bench-only", action="append", default=[], help="only workloads that start so")
    add("--bench-library", action="append", default=[], help="only this library's contenders")
    add("--bench-align", choices=("numpy", "64"), default="numpy", help="where arrays start")
    add("--bench-smoke", action="store_true", help="tiny sizes, to try the machinery")


def pytest_configure(config: pytest.Config) -> None:
    # Before anything imports NumPy; see benchlib/threads.py.
    threads.prepare(config.getoption("bench_threads"))


def pytest_report_header(config: pytest.Config) -> list[str]:
    from benchlib import environment

    described = environment.describe()
    described["threads"] = config.getoption("bench_threads")
    return environment.lines(described)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the benchmark every workload with each of its contenders, the absent ones as skips."""
    if "contender" not in metafunc.fixturenames:
        return
    from benchlib.contenders import LIBRARIES, contenders_of
    from benchlib.workloads import select

    option = metafunc.config.getoption
    libraries = tuple(option("bench_library")) or LIBRARIES
    cases = []
    for workload in select(option("bench_only"), tiny=option("bench_smoke")):
        for contender in contenders_of(workload, libraries):
            marks = [pytest.mark.skip(reason=contender.absent)] if contender.absent else []
            name = f"{workload.name}-{contender.name}"
            cases.append(pytest.param(workload, contender, id=name, marks=marks))
    metafunc.parametrize(("workload", "contender"), cases)


@pytest.fixture(scope="session")
def ceiling(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The machine's ceilings."""
    from softmax_ext.ceiling import Ceiling

    with Ceiling(request.config.getoption("bench_threads")) as measured:
        yield measured


@pytest.fixture(scope="session")
def inputs(request: pytest.FixtureRequest) -> Callable[[Any], tuple[Any, Any]]:
    """A function from a workload to its data and right answer, of which the last are kept."""
    from functools import lru_cache

    from benchlib import data, truth

    align = request.config.getoption("bench_align")

    @lru_cache(maxsize=1)
    def make(workload: Any) -> tuple[Any, Any]:
        made = data.make(workload, align)
        return made, lru_cache(lambda: truth.compute(workload, made))

    return make
