"""The machine's two ceilings, measured with ceiling.c in the same run as the contenders."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchlib.data import empty

SOURCE = Path(__file__).resolve().parent.parent / "ceiling.c"

#: Vector bytes and flags per instruction set, the plainest first.
BUILDS = {
    "baseline": (16, ()),
    "avx2": (32, ("-mavx2", "-mfma")),
    "avx512": (64, ("-mavx512f", "-mfma", "-mprefer-vector-width=512")),
}

#: Least duration of one measurement, in seconds, and the largest buffer copied, in bytes.
LEAST_SECONDS = 4e-3
LARGEST_COPY = 128 << 20


def _call(loop: Callable[[int], float], steps: int, thread: int) -> None:
    loop(steps)


class NoCompilerError(RuntimeError):
    """The ceilings cannot be measured, because ceiling.c cannot be compiled."""


def compiler() -> str | None:
    """Return the system's C compiler ($CC, cc, gcc or clang), if it has one."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and shutil.which(name):
            return name
    return None


class Ceiling:
    """Measures multiply-adds and copies per second on a number of threads at once.

    Parameters
    ----------
    threads : int
        How many run at the same time; each has its own registers and its own buffers.

    Attributes
    ----------
    isa : str
        The build used for :meth:`fma`: the widest this processor can run.

    Raises
    ------
    NoCompilerError
        If there is no C compiler, or it refuses the file.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._folder = tempfile.TemporaryDirectory(prefix="softmax-ext-ceiling-")
        self._pool = ThreadPoolExecutor(threads)
        self._steps: dict[tuple[str, str], int] = {}
        self._buffers: list[tuple[np.ndarray, np.ndarray]] = []
        try:
            self._builds = {"baseline": self._load("baseline")}
            for isa in ("avx2", "avx512"):
                if getattr(self._builds["baseline"], f"can_run_{isa}")():
                    self._builds[isa] = self._load(isa)
        except NoCompilerError:
            self.close()
            raise
        self.isa = list(self._builds)[-1]

    @property
    def isas(self) -> tuple[str, ...]:
        """The builds this processor can run, the plainest first."""
        return tuple(self._builds)

    def fma(self, dtype: str = "float32", isa: str | None = None) -> float:
        """Return floating-point operations per second of the register-only loop."""
        isa = isa or self.isa
        library = self._builds[isa]
        loop = getattr(library, f"fma_{dtype}")
        flops_of_step = getattr(library, f"fma_{dtype}_flops")()
        seconds = 0.0
        while seconds < LEAST_SECONDS:
            steps = self._steps.get((isa, dtype), 10_000)
            seconds = self._seconds(partial(_call, loop, steps))
            if seconds < LEAST_SECONDS:
                self._steps[isa, dtype] = 2 * steps
        return self.threads * flops_of_step * steps / seconds

    def copy(self, size: int) -> float:
        """Return bytes per second, read plus written, of copies with `size` bytes in use.

        `size` counts source and destination of all threads together, so the copy runs in the
        same cache (or in memory) as a job with that working set.
        """
        half = max(64, min(size, LARGEST_COPY) // (2 * self.threads))
        if not self._buffers or self._buffers[0][0].nbytes < half:
            self._buffers = [
                tuple(empty((half,), np.uint8, "64") for _ in range(2)) for _ in range(self.threads)
            ]
            for to, source in self._buffers:
                to[...] = source[...] = 1
        moved = 2 * half * self.threads
        repeats = max(1, int(LEAST_SECONDS * 4e10 / moved))
        function = self._builds["baseline"].copy

        def work(thread: int) -> None:
            to, source = self._buffers[thread]
            function(to.ctypes.data, source.ctypes.data, half, repeats)

        return moved * repeats / self._seconds(work)

    def close(self) -> None:
        """Stop the threads and remove the compiled files."""
        self._pool.shutdown()
        self._folder.cleanup()

    def _seconds(self, work: Callable[[int], None]) -> float:
        """Time `work(i)` on every thread i at once; ctypes releases the GIL."""
        start = time.perf_counter()
        if self.threads == 1:
            work(0)
        else:
            list(self._pool.map(work, range(self.threads)))
        return time.perf_counter() - start

    def _load(self, isa: str) -> ctypes.CDLL:
        name = compiler()
        if name is None:
            raise NoCompilerError("no C compiler found: install gcc to have the ceilings measured")
        width, flags = BUILDS[isa]
        target = Path(self._folder.name, f"ceiling-{isa}.so")
        command = [name, "-O3", "-ffp-contract=fast", "-shared", "-fPIC", *flags]
        command += [f"-DVECTOR_BYTES={width}", "-o", str(target), str(SOURCE)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise NoCompilerError(f"{name} does not compile {SOURCE.name}: {built.stderr.strip()}")
        library = ctypes.CDLL(str(target))
        for dtype in ("float32", "float64"):
            loop = getattr(library, f"fma_{dtype}")
            loop.argtypes, loop.restype = [ctypes.c_long], ctypes.c_double
            getattr(library, f"fma_{dtype}_flops").restype = ctypes.c_long
        library.copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
        library.copy.restype = None
        return library
