"""Where contenders live: all in this process, or each library in a process of its own.

With one thread they share a process. With more, libraries keep pools of threads that spin for a
while after each call and would slow whoever comes next; so each library gets its own process,
and only one of them works at a time. So does the package of another checkout, always.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchlib import data, threads, timing, truth
from benchlib.contenders import UnsuitedError, contenders_of, ready
from benchlib.workloads import Workload

#: Pause before another process's turn, in seconds: idle pools stop spinning within it.
PAUSE = 0.05


class Settings(NamedTuple):
    """What every process has to know."""

    threads: int = 1
    libraries: tuple[str, ...] = ()
    isas: tuple[str, ...] = ()
    align: str = "numpy"
    #: Folder of another checkout, whose package is the library "before".
    against: str = ""


class Prepared(NamedTuple):
    """A contender after its answer was checked."""

    name: str
    library: str
    #: Seconds of one call; None if it does not take part.
    seconds: float | None
    #: Why it does not take part.
    absent: str = ""
    #: Whether that is a fault: a wrong answer or an error, not an absence.
    failed: bool = False


class LocalRunner:
    """Holds the contenders of one workload in this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._runs: dict[str, Callable[[], Any]] = {}

    def prepare(self, workload: Workload) -> list[Prepared]:
        """Build the contenders of `workload` and check each one's answer.

        One that fails is noted as failed; the others go on, for a run takes long.
        """
        self._runs.clear()
        try:
            inputs = data.make(workload, self.settings.align)
        except UnsuitedError as reason:
            return [Prepared(name, name, None, str(reason)) for name in self.settings.libraries]
        answers: list[truth.Answer] = []

        def right() -> truth.Answer:
            if not answers:
                answers.append(truth.compute(workload, inputs))
            return answers[0]

        result = []
        for contender in contenders_of(workload, self.settings.libraries, self.settings.isas):
            name, library = contender.name, contender.library
            threads.apply(self.settings.threads)
            try:
                run = ready(contender, workload, inputs, right)
            except UnsuitedError as reason:
                result.append(Prepared(name, library, None, str(reason)))
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                result.append(Prepared(name, library, None, reason, failed=True))
            else:
                self._runs[name] = run
                result.append(Prepared(name, library, timing.estimate(run)))
        return result

    def sample(self, name: str, calls: int, warm_up: bool) -> float:
        """Return seconds per call of one contender, over `calls` calls in a row."""
        run = self._runs[name]
        if warm_up:
            run()
        return timing.seconds(run, calls)

    def threads_found(self) -> dict[str, object]:
        return threads.found()

    def close(self) -> None:
        self._runs.clear()


class ProcessRunner:
    """Holds each library's contenders in a process of its own, with the same methods."""

    def __init__(self, settings: Settings) -> None:
        self._pools = {
            library: threads.process(settings.against if library == "before" else "")
            for library in settings.libraries
        }
        for library, pool in self._pools.items():
            pool.submit(_begin, settings._replace(libraries=(library,))).result()
        self._home: dict[str, str] = {}
        self._last = ""

    def prepare(self, workload: Workload) -> list[Prepared]:
        result: list[Prepared] = []
        for library in self._pools:
            for contender in self._ask(library, "prepare", workload):
                self._home[contender.name] = library
                result.append(contender)
        return result

    def sample(self, name: str, calls: int, warm_up: bool) -> float:
        library = self._home[name]
        if library != self._last:
            time.sleep(PAUSE)
            self._last = library
        return self._ask(library, "sample", name, calls, warm_up)

    def threads_found(self) -> dict[str, object]:
        return {library: self._ask(library, "threads_found") for library in self._pools}

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown()

    def _ask(self, library: str, method: str, *args: object) -> Any:
        return self._pools[library].submit(_call, method, *args).result()


_here: LocalRunner


def _begin(settings: Settings) -> None:
    """Make this process's runner, and see that its package is the one that is meant."""
    import softmax_ext

    if settings.libraries == ("before",) and not (softmax_ext.__file__ or "").startswith(
        settings.against
    ):
        raise RuntimeError(f"against: {softmax_ext.__file__} was imported")
    global _here
    _here = LocalRunner(settings)


def _call(method: str, *args: object) -> Any:
    return getattr(_here, method)(*args)


def runner(settings: Settings) -> LocalRunner | ProcessRunner:
    """Return the runner that is fair at this number of threads."""
    together = settings.threads == 1 and not settings.against
    return LocalRunner(settings) if together else ProcessRunner(settings)
