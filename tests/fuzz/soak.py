"""What must hold however often it is done: kills, forks, Ctrl-C, and memory that does not grow.

    python tests/fuzz/soak.py                      all four, minutes of them
    python tests/fuzz/soak.py kills --times 1000   one of them, so often

Each prints a line of what it saw, or ends in an AssertionError.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import statistics
import struct
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import random_calls

import softmax_ext as sx

#: A child that hangs is ended by the system after so many seconds.
PATIENCE = 120


def forked(work):
    """Start a process that does the work, and ends with status 0 if it returns True."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of every fork of a process with threads
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(PATIENCE)
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return child


def status_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills(times):
    """Kill a training run again and again, and go on from its checkpoint.

    Every file is whole, of no earlier epoch than the one before, and leads to the same bits as a
    run that nobody killed.
    """
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 300)).astype(np.float32), rng.integers(0, 40, 200)
    options = {"epochs": 40, "batch_size": 100, "momentum": 0.9}
    moments = random.Random(0)
    whole = sx.SoftmaxModel.zeros(300, 40)
    sx.Trainer(**options).fit(whole, X, y)
    n_killed = n_halfway = n_runs = epoch = 0
    left = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.npz"

        def train():
            if path.exists():
                trainer = sx.Trainer.resume(path)
                trainer.fit(trainer.model, X, y)
            else:
                sx.Trainer(**options, checkpoint=path).fit(sx.SoftmaxModel.zeros(300, 40), X, y)
            return True

        while n_killed < times:
            child = forked(train)
            time.sleep(moments.expovariate(1 / 0.03))
            os.kill(child, signal.SIGKILL)
            status = status_of(child)
            assert status in (0, -signal.SIGKILL), f"training ended with status {status}"
            n_killed += status != 0
            before, left = left, {name for name in os.listdir(folder) if name.endswith(".tmp")}
            n_halfway += bool(left - before)
            if path.exists():
                trainer = sx.Trainer.resume(path)
                assert len(trainer.history) >= epoch, f"{len(trainer.history)} follows {epoch}"
                epoch = len(trainer.history)
            if status == 0:
                assert trainer.model.W.tobytes() == whole.W.tobytes(), "other bits"
                assert os.listdir(folder) == [path.name], "a temporary file was left"
                path.unlink()
                epoch, n_runs = 0, n_runs + 1
    return (
        f"{n_killed} kills, {n_halfway} of them while a checkpoint was written; "
        f"{n_runs} runs came to the right end"
    )


def forks(times):
    """Fork while three threads are at work in the kernels; each child calls them, too."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4000, 100)).astype(np.float32), rng.integers(0, 10, 4000)
    W = rng.normal(size=(100, 10)).astype(np.float32)

    def call():
        with sx.num_threads(3):
            return sx.linear_cross_entropy_with_grad(X, W, None, y).dW.tobytes()

    expected, over, wrong = call(), threading.Event(), []

    def work():
        while not over.is_set():
            if call() != expected:
                wrong.append("other bits in a thread")

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        for number in range(times):
            status = status_of(forked(lambda: call() == expected))
            assert status == 0, f"child {number} ended with status {status}"
    finally:
        over.set()
        for worker in workers:
            worker.join()
    assert not wrong, wrong[0]
    return f"{times} forks while three threads called, none hung, all with the same bits"


def interruptions():
    """Calls that take longer than anybody waits, by name."""
    rng = np.random.default_rng(0)
    n = 30_000_000
    X = np.broadcast_to(np.ones(64, np.float32), (n, 64))
    W, y = np.ones((64, 1000), np.float32), np.broadcast_to(np.uint8(3), n)
    small, labels = rng.normal(size=(20_000, 100)).astype(np.float32), rng.integers(0, 10, 20_000)
    zeros = sx.SoftmaxModel.zeros(100, 10)

    def gradient(threads):
        with sx.num_threads(threads):
            sx.linear_cross_entropy_with_grad(X, W, None, y)

    return {
        "a gradient on one thread": lambda: gradient(1),
        "a gradient on two threads": lambda: gradient(2),
        "predict": lambda: sx.predict(X, W),
        "Trainer": lambda: sx.Trainer(epochs=10**6).fit(zeros, small, labels),
        "fit_lbfgs": lambda: sx.fit_lbfgs(zeros, small, labels, C=1e9, tol=0, max_iter=10**6),
    }


def interrupts(times):
    """Press Ctrl-C in long calls and fits: how long until KeyboardInterrupt is there."""
    moments = random.Random(0)
    waits = {}
    for name, work in interruptions().items():
        waits[name] = []
        for _ in range(-(-times // len(interruptions()))):
            delay, reader, writer = moments.uniform(0.02, 0.06), *os.pipe()

            def press(delay=delay, writer=writer):
                time.sleep(delay)
                pressed = time.monotonic()
                os.kill(os.getppid(), signal.SIGINT)
                return os.write(writer, struct.pack("d", pressed))

            try:
                child = forked(press)
                while True:  # a fit may come to its end
                    work()
            except KeyboardInterrupt:
                there = time.monotonic()
            assert status_of(child) == 0
            (pressed,) = struct.unpack("d", os.read(reader, 8))
            os.close(reader), os.close(writer)
            waits[name].append(there - pressed)
    every = sorted(wait for of_one in waits.values() for wait in of_one)
    lines = [
        f"  {name}: median {1e3 * statistics.median(of_one):.0f} ms, most {1e3 * max(of_one):.0f}"
        for name, of_one in waits.items()
    ]
    share = every[min(len(every) - 1, int(0.99 * len(every)))]
    return "\n".join([f"{len(every)} times Ctrl-C: 99th percentile {share * 1e3:.0f} ms", *lines])


def memory(times):
    """Repeat some hundred random calls, right and wrong ones, and watch the process's size."""
    draws = [random_calls.Draw(0, number) for number in range(400)]
    calls = [draw.one_of(random_calls.FAMILIES)(draw) for draw in draws]

    def size():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def go_through(n):
        for number in range(n):
            call = calls[number % len(calls)]
            with sx.num_threads(1 + number % 2):
                random_calls.outcome(getattr(sx, call.name), call.arguments)

    with np.errstate(all="ignore"):
        go_through(max(times // 10, 2 * len(calls)))
        before, most = size(), 0
        for _ in range(10):
            go_through(times // 10)
            most = max(most, size() - before)
    assert most < 4 << 20, f"grown by {most} bytes in {times} calls"
    return f"{times} calls: the process grew by {most >> 10} KiB at most"


SOAKS = {"kills": (kills, 1000), "forks": (forks, 1000), "interrupts": (interrupts, 1000),
         "memory": (memory, 1_000_000)}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*SOAKS, []], help="all by default")
    parser.add_argument("--times", type=int, help="1000; calls of `memory` a million")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in options.what or SOAKS:
        soak, times = SOAKS[name]
        start = time.monotonic()
        line = soak(options.times or times)
        print(f"{name}: {line} ({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
