"""Data larger than memory, and several processes: the figures in docs/measurements.md.

    python bench/larger_than_memory.py make FILE GIGABYTES
    (ulimit -v KIBIBYTES; python bench/larger_than_memory.py fit FILE [PASSES])
    python bench/larger_than_memory.py penalties FILE ROWS [READINGS]
    python bench/larger_than_memory.py dask [ROWS CHUNKS]
    python bench/larger_than_memory.py workers PICTURE START TASK ROWS

`penalties` fits 45 penalties to the first rows of a file, side by side and as a path, and counts
the readings. `workers` reckons an evaluation on many workers: START seconds for any, TASK
for each task, and ROWS a second of one of them.
`fit` reads the file as many times by itself, too, and drops it from the system's cache before each
pass, so that it comes from the disk.
"""

import os
import resource
import sys
import time

import numpy as np

import softmax_ext as sx

D, C = 784, 10


def make(path, gigabytes):
    """Bytes that a linear model can tell something of, and their labels beside them."""
    n = int(float(gigabytes) * 1e9) // D
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, D))
    y = np.empty(n, np.uint8)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (50_000, D), np.uint8)
    truth = rng.normal(size=(D, C)).astype(np.float32)
    labels = sx.predict(base, truth - truth.mean(0), x_scale=1 / 255).astype(np.uint8)
    wrong = rng.random(len(labels)) < 0.2
    labels[wrong] = rng.integers(0, C, wrong.sum())
    for start in range(0, n, len(base)):
        order = rng.permutation(len(base))[: n - start]
        X[start : start + len(base)], y[start : start + len(base)] = base[order], labels[order]
    X.flush()
    np.save(path + ".y.npy", y)


def drop(path):
    """Let the system forget a file."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def read_only(path, part_bytes=64 << 20):
    """The seconds that reading the file takes, and nothing else."""
    buffer = np.empty(part_bytes, np.uint8)
    drop(path)
    begun = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begun


def fit(path, passes="8"):
    def fit_once():
        seconds, begun = [], time.perf_counter()

        def tell(state):
            nonlocal begun
            seconds.append(time.perf_counter() - begun)
            drop(path)
            begun = time.perf_counter()

        model = sx.SoftmaxModel.zeros(D, C, x_scale=1 / 255)
        data = sx.Blocks(path, path + ".y.npy")
        drop(path)
        result = sx.fit_lbfgs(model, data, C=1e-3, max_iter=int(passes), callback=tell)
        return result.nfev, sum(seconds), seconds

    nfev, total, seconds = fit_once()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    alone = [read_only(path) for _ in range(3)]
    size = os.path.getsize(path) / 1e9
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    print(f"file {size:.1f} GB; limit of the address space {limit / 1e9:.2f} GB")
    print(f"reading alone: {np.median(alone):.2f} s a pass ({size / np.median(alone):.2f} GB/s)")
    print(f"fit: {nfev} passes in {total:.1f} s; iterations {np.round(seconds, 2).tolist()}")
    print(f"ratio to reading as many times: {total / (nfev * np.median(alone)):.2f}")
    print(f"largest resident memory: {memory:.0f} MiB")


def penalties(path, rows, most="100"):
    from softmax_ext.solvers import minimize_many

    X, y = (np.load(name, mmap_mode="r")[: int(rows)] for name in (path, path + ".y.npy"))
    readings = 0

    def pieces():
        nonlocal readings
        readings += 1
        for start in range(0, len(X), 80_000):
            yield np.array(X[start : start + 80_000]), np.array(y[start : start + 80_000])

    Cs = np.logspace(-6, 5, 45)
    zeros = np.zeros((D, C), np.float32), np.zeros(C, np.float32)
    begun = time.perf_counter()
    many = minimize_many(
        sx.Blocks(pieces), *zeros, (1 / Cs).tolist(), x_scale=1 / 255, max_iter=int(most)
    )
    print(f"side by side: {readings} readings, {time.perf_counter() - begun:.1f} s; "
          f"not converged: {sum(not fit.success for fit in many)}")  # fmt: skip
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    readings = 0
    model = sx.SoftmaxModel.zeros(D, C, x_scale=1 / 255)
    found = sx.fit_path(model, sx.Blocks(pieces), None, Cs)
    print(f"as a path: {readings} readings, {found.seconds:.1f} s; "
          f"not converged: {int((~found.success).sum())}")  # fmt: skip
    apart = [one.fun / fun - 1 for one, fun in zip(many, found.fun, strict=True)]
    print(f"objectives side by side above those of the path by {min(apart):.1e} to "
          f"{max(apart):.1e}; largest resident memory {memory:.0f} MiB")  # fmt: skip


#: What is reckoned: rows of the data, bytes of a gradient, bytes a second, results added by a task.
N, GRADIENT, NETWORK, GROUP = 1e8, 785 * 10 * 8, 600e6, 16


def workers(picture, start, task, rate):
    import math

    from matplotlib.figure import Figure

    start, task, rate = float(start), float(task), float(rate)

    def parts(P, chunks):
        tasks, left = 0, P * chunks
        while left > 1:
            tasks, left = tasks + left, math.ceil(left / GROUP)
        levels = math.ceil(math.log(P * chunks, GROUP))
        return N / rate / P, start + task * (tasks + 1), levels * GROUP * GRADIENT / NETWORK

    figure = Figure((6, 3.6), layout="constrained")
    axes = figure.subplots()
    numbers = [2**k for k in range(10)]
    axes.plot(numbers, [N / rate / P for P in numbers], "--", color="0.6", label="rows alone")
    for chunks, colour in ((4, "tab:orange"), (1, "tab:blue")):
        axes.plot(
            numbers, [sum(parts(P, chunks)) for P in numbers], "o-", color=colour,
            label=f"{chunks} chunk{'s' * (chunks > 1)} a worker",
        )  # fmt: skip
        for P in (8, 64, 512):
            work, tasks, adding = parts(P, chunks)
            print(f"| {P} | {chunks} | {work:.2f} s | {tasks:.3f} s | {1e3 * adding:.1f} ms | "
                  f"{work + tasks + adding:.2f} s |")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="seconds an evaluation")
    axes.set_xticks(numbers, [str(P) for P in numbers])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=120)


def dask(n="60000", n_chunks="8"):
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    from softmax_ext.dask._chunks import Chunks
    from softmax_ext.dask._fit import objective

    _say_bandwidth()
    n, n_chunks = int(n), int(n_chunks)
    model = sx.SoftmaxModel.zeros(D, C, x_scale=1 / 255)
    theta = np.random.default_rng(0).normal(size=(D + 1, C)) / 100
    for n_workers in (1, 2):
        with (
            LocalCluster(
                n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None
            ) as cluster,
            Client(cluster),
        ):
            random = da.random.default_rng(0)
            X = random.integers(0, 256, (n, D), np.uint8, chunks=(-(-n // n_chunks), D)).persist()
            y = random.integers(0, C, n, chunks=-(-n // n_chunks)).persist()
            wait([X, y])
            for name, parameters in (("work", model), ("overhead", None)):
                losses = objective(model, Chunks.of(X, y))
                if parameters is None:  # one row of each chunk: what is left is the overhead
                    losses = objective(model, Chunks.of(*[_first_rows(a) for a in (X, y)]))
                losses.value_and_gradient(theta)
                seconds = []
                for _ in range(12):
                    begun = time.perf_counter()
                    losses.value_and_gradient(theta)
                    seconds.append(time.perf_counter() - begun)
                print(f"{n} rows, {n_chunks} chunks, {n_workers} workers, {name}: "
                      f"{1e3 * np.median(seconds):.1f} ms an evaluation")  # fmt: skip


def _say_bandwidth():
    """What two processes can gain at most on jobs that memory limits."""
    from softmax_ext.ceiling import Ceiling

    for n in (1, 2):
        with Ceiling(n) as ceiling:
            best = max(ceiling.read(128 << 20) for _ in range(30))
        print(f"memory is read by {n} at {best / 1e9:.1f} GB/s")


def _first_rows(array):
    return array.map_blocks(
        lambda x: x[:1], chunks=((1,) * array.numblocks[0], *array.chunks[1:])
    ).persist()


if __name__ == "__main__":
    commands = {function.__name__: function for function in (make, fit, penalties, dask, workers)}
    commands[sys.argv[1]](*sys.argv[2:])
