"""Where contenders live: all in this process, or each library in a process of its own.

With one thread they share a process. With more, libraries keep pools of threads that spin for a
while after each call and would slow whoever comes next; so each library gets its own process,
and only one of them works at a time.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any, NamedTuple

from benchlib import data, threads, truth
from benchlib.contenders import UnsuitedError, contenders_of, ready
from benchlib.workloads import Workload

#: Calls shorter than this are preceded by an untimed one, so that each finds its caches warm
#: and its threads awake.
WARM_UP_BELOW = 0.05

#: Pause before another process's turn, in seconds: idle pools stop spinning within it.
PAUSE = 0.05


class WorkerError(RuntimeError):
    """A contender's own process failed; the message says how."""


class Settings(NamedTuple):
    """What every process has to know."""

    threads: int = 1
    libraries: tuple[str, ...] = ()
    isas: tuple[str, ...] = ()
    align: str = "numpy"


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
        inputs = data.make(workload, self.settings.align)
        answers: list[truth.Answer] = []

        def right() -> truth.Answer:
            if not answers:
                answers.append(truth.compute(workload, inputs))
            return answers[0]

        result = []
        for contender in contenders_of(workload, self.settings.libraries, self.settings.isas):
            threads.apply(self.settings.threads)
            try:
                run = ready(contender, workload, inputs, right)
            except UnsuitedError as reason:
                result.append(Prepared(contender.name, contender.library, None, str(reason)))
                continue
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                result.append(Prepared(contender.name, contender.library, None, reason, True))
                continue
            self._runs[contender.name] = run
            result.append(Prepared(contender.name, contender.library, _estimate(run)))
        return result

    def sample(self, name: str, calls: int, warm_up: bool) -> float:
        """Return seconds per call of one contender, over `calls` calls in a row."""
        run = self._runs[name]
        if warm_up:
            run()
        return _seconds(run, calls) / calls

    def threads_found(self) -> dict[str, object]:
        return threads.found()

    def close(self) -> None:
        self._runs.clear()


def _estimate(run: Callable[[], Any]) -> float:
    """Return about the time of one call; of a short one, when its caches are warm."""
    first = _seconds(run, 1)
    if first > WARM_UP_BELOW:
        return first
    # Powers of two until they take long enough; the least, for one may have been interrupted.
    best, calls = first, 1
    while calls * best < 2e-3:
        calls *= 2
        best = min(best, _seconds(run, calls) / calls)
    return best


def _seconds(run: Callable[[], Any], calls: int) -> float:
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in repeat(None, calls):
            run()
        return time.perf_counter() - start
    finally:
        gc.enable()


class ProcessRunner:
    """Holds each library's contenders in a process of its own, with the same methods."""

    def __init__(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers: dict[str, tuple[Any, Any]] = {}
        for library in settings.libraries:
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(there, settings._replace(libraries=(library,))), daemon=True
            )
            process.start()
            there.close()
            self._workers[library] = (process, here)
        self._library_of: dict[str, str] = {}
        self._last = ""

    def prepare(self, workload: Workload) -> list[Prepared]:
        result: list[Prepared] = []
        for library in self._workers:
            result += self._ask(library, "prepare", workload)
        self._library_of = {contender.name: contender.library for contender in result}
        return result

    def sample(self, name: str, calls: int, warm_up: bool) -> float:
        library = self._library_of[name]
        if library != self._last:
            time.sleep(PAUSE)
            self._last = library
        return self._ask(library, "sample", name, calls, warm_up)

    def threads_found(self) -> dict[str, object]:
        return {library: self._ask(library, "threads_found") for library in self._workers}

    def close(self) -> None:
        for process, pipe in self._workers.values():
            pipe.close()
            process.join(timeout=10)

    def _ask(self, library: str, method: str, *args: object) -> Any:
        pipe = self._workers[library][1]
        try:
            pipe.send((method, args))
            answer = pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(f"{library}: its process ended during {method}") from error
        if isinstance(answer, WorkerError):
            raise answer
        return answer


def _serve(pipe: Any, settings: Settings) -> None:
    """Answer the parent's requests until it closes the pipe."""
    threads.apply(settings.threads)
    runner = LocalRunner(settings)
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            answer = getattr(runner, method)(*args)
        except Exception as error:
            # Not every library's exceptions survive the pipe; their words do.
            answer = WorkerError(f"{type(error).__name__}: {error}")
        pipe.send(answer)


def runner(settings: Settings) -> LocalRunner | ProcessRunner:
    """Return the runner that is fair at this number of threads."""
    return LocalRunner(settings) if settings.threads == 1 else ProcessRunner(settings)
