"""What linear_cross_entropy_with_grad allocates: its results, its workspace, and nothing else.

NumPy's allocations are counted by tracemalloc, the workspace among them, for it is in NumPy
arrays; the process's peak size is the judge of what tracemalloc cannot see. Both in interpreters
of their own, because workspace is kept by the process that has used it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import softmax_ext as sx

MIB = 1 << 20

#: Python objects of a call: argument records, the result's tuple, lists of slices.
OBJECTS = 16 << 10

PRELUDE = """
import json, resource, tracemalloc
import numpy as np
import softmax_ext as sx

sx.set_num_threads({threads})
n, d, c = {shape}
X, W, b = np.ones((n, d), "{x_dtype}"), np.full((d, c), 0.01, "{dtype}"), np.ones(c, "{dtype}")
y = np.arange(n) % c

def call(X=X, W=W, b=b, y=y, **options):
    return sx.linear_cross_entropy_with_grad(X, W, b, y, x_scale=0.5, **options)

def resident():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

call(X[:5, :3].copy(), W[:3, :4].copy(), b[:4].copy(), y[:5] % 4, with_dX=True)
"""

#: The results exist, and their pages too, before the call that is measured.
CALL = """
out = np.ones_like(W), np.ones_like(b), np.ones(X.shape, W.dtype) if {with_dX} else None
before = resident()
call(with_dX={with_dX}, out=out)
grown = resident() - before
"""

TRACED = """
tracemalloc.start()
result = call(with_dX={with_dX})
kept, peak = tracemalloc.get_traced_memory()
arrays = [result.dW, result.db, result.dX]
results = sum(array.nbytes for array in arrays if array is not None)
tracemalloc.reset_peak()
call(with_dX={with_dX}, out=result)
kept_again, peak_again = tracemalloc.get_traced_memory()
print(json.dumps([peak - results, kept_again - kept, peak_again - kept]))
"""


def fresh(code, isa="", **values):
    """Run code in an interpreter of its own and return what it prints."""
    values = {"x_dtype": "float32", "dtype": "float32", "threads": 1, "with_dX": False} | values
    environment = os.environ | ({"SOFTMAX_EXT_ISA": isa} if isa else {})
    done = subprocess.run(
        [sys.executable, "-c", (PRELUDE + code).format(**values)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def by_tiles(shape, isa, dtype, x_dtype):
    """Whether products go by tiles."""
    if isa.startswith("amx") and dtype == "float32":
        return isa == "amx-emulated" or (shape[1] >= 64 and (x_dtype == "uint8" or shape[2] > 64))
    return False


def stated(shape, isa="", *, dtype="float32", x_dtype="float32", with_dX=False):
    """The most workspace that the docstring allows one thread for a shape, in bytes."""
    _, d, c = shape
    tiled = by_tiles(shape, isa or sx.Kernels().isa, dtype, x_dtype)
    size, block = np.dtype(dtype).itemsize, 64 if c <= 64 and not tiled else 256
    W, X, logits = size * d * c, size * block * d, size * block * c
    converted = X if x_dtype != dtype else 0
    big = 3 * (512 << 10) if W > 8 * MIB else 2 * W if W > MIB else 3 * W
    tiles = 0
    if tiled:
        packed = min(W, 512 << 10) if W > 8 * MIB else W
        tiles = 1.5 * MIB + (2 if x_dtype == "uint8" else 1.5) * packed
    return 1.5 * (logits + converted + big + tiles + (8 * X if with_dX else 0)) + (64 << 10)


SHAPES = [
    ((3000, 784, 10), {}),
    ((3000, 784, 10), {"x_dtype": "uint8"}),
    ((3000, 784, 100), {"x_dtype": "uint8"}),
    ((3000, 784, 10), {"with_dX": True}),
    ((2000, 300, 300), {"dtype": "float64"}),
    ((600, 768, 1000), {}),
    ((5000, 768, 400), {}),
    ((512, 500, 6000), {"with_dX": True}),
]


@pytest.mark.parametrize(("shape", "options"), SHAPES)
def test_workspace_is_what_the_docstring_says_and_nothing_else(shape, options):
    workspace, kept_again, peak_again = fresh(TRACED, shape=shape, **options)
    assert workspace <= stated(shape, **options)
    # The results of the second call are those of the first, its workspace too: pieces beyond
    # 16 MiB excepted, and there are none here.
    assert kept_again < OBJECTS
    assert peak_again < OBJECTS


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((300, 784, 10), {"x_dtype": "uint8"}),
        ((300, 784, 100), {"x_dtype": "uint8"}),
        ((100, 768, 700), {}),
        ((40, 500, 6000), {"with_dX": True}),
    ],
)
def test_workspace_with_tiles_is_what_the_docstring_says(shape, options):
    workspace, kept_again, peak_again = fresh(TRACED, "amx-emulated", shape=shape, **options)
    assert workspace <= stated(shape, "amx-emulated", **options)
    assert kept_again < OBJECTS
    assert peak_again < OBJECTS


def test_every_thread_has_a_gradient_of_its_own():
    """Or it would wait for the others' to be added up; but there are no more than slices."""
    shape = (10_000, 768, 400)  # 5 slices
    dW = 4 * 768 * 400
    one, four, many = (fresh(TRACED, shape=shape, threads=n)[0] for n in (1, 4, 64))
    another = stated(shape) / 1.5  # at most
    assert 3 * dW < four - one < 1.5 * 3 * another
    assert many - one < 1.5 * 4 * another


@pytest.mark.parametrize(("shape", "options"), SHAPES)
def test_the_process_grows_by_the_workspace_at_most(shape, options):
    pytest.importorskip("resource")
    grown = fresh(CALL + "print(grown)", shape=shape, **options)
    # A quarter of a MiB for code that runs for the first time.
    assert grown <= stated(shape, **options) + MIB // 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "options", "limit"),
    [
        ((60000, 784, 10), {}, 0.2),
        ((8192, 768, 1000), {}, {"avx2": 4.8, "amx": 14}.get(sx.Kernels().isa, 7.8)),
        (
            (8192, 768, 1000),
            {"x_dtype": "float64", "dtype": "float64"},
            {"avx2": 9.4}.get(sx.Kernels().isa, 15.5),
        ),
        ((1024, 768, 50257), {"with_dX": True}, 64),
    ],
)
def test_workspace_of_the_shapes_named(shape, options, limit):
    workspace, *_ = fresh(TRACED, shape=shape, **options)
    assert workspace <= limit * MIB
    assert fresh(CALL + "print(grown)", shape=shape, **options) <= limit * MIB


def problem(seed=0, n=700, d=100, c=70):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d), dtype=np.float32)
    W = rng.standard_normal((d, c), dtype=np.float32)
    return X, W, rng.standard_normal(c, dtype=np.float32), rng.integers(c, size=n)


@pytest.mark.parametrize("isa", sx.available_isas())
@pytest.mark.parametrize("gathered", [False, True])
def test_a_training_loop_with_out_allocates_nothing(isa, gathered):
    kernels = sx.Kernels(isa)
    X, W, b, y = problem()
    rows = [np.arange(start, start + 256) for start in (0, 256, 400)] if gathered else [None] * 3
    result = None

    def step(picked):
        nonlocal result
        result = kernels.linear_cross_entropy_with_grad(X, W, b, y, rows=picked, out=result)
        np.multiply(result.dW, np.float32(0.1), out=result.dW)
        np.subtract(W, result.dW, out=W)

    for picked in rows:
        step(picked)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for picked in rows * 5:
            step(picked)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Far less than any array of the step: dW has 28 kB, the logits of a block 72 kB.
    assert peak - before < OBJECTS
    assert after - before < 2048


def test_a_minibatch_converts_no_targets_or_weights():
    """Whatever the dtypes of the floats, and however many rows there are beside the minibatch."""
    n = 100_000
    rng = np.random.default_rng(0)
    X, W = rng.random((n, 4), np.float32), np.zeros((4, 3), np.float32)
    rows = rng.permutation(n)[:64]
    targets, weights = (np.ones(shape) for shape in ((n, 3), n))
    tracemalloc.start()
    try:
        for target, weight in (
            (targets, weights),
            (targets, weights.astype(np.float32)),
            (targets.astype(np.float32)[::-1], weights[::-1]),
        ):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            sx.linear_cross_entropy_with_grad(X, W, None, target, sample_weight=weight, rows=rows)
            assert tracemalloc.get_traced_memory()[1] - before < n
    finally:
        tracemalloc.stop()


def test_workspace_is_not_shared_between_threads():
    problems = [problem(seed) for seed in range(4)]
    with sx.num_threads(1):
        wanted = [sx.linear_cross_entropy_with_grad(*args) for args in problems]
    wrong = []
    start = threading.Barrier(4)

    def work(number):
        with sx.num_threads(1):
            start.wait()
            for _ in range(50):
                got = sx.linear_cross_entropy_with_grad(*problems[number])
                if got.loss != wanted[number].loss or (got.dW != wanted[number].dW).any():
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_workspace_kept_does_not_grow_with_calls():
    args = problem()
    result = sx.linear_cross_entropy_with_grad(*args)
    tracemalloc.start()
    try:
        for _ in range(3):
            sx.linear_cross_entropy_with_grad(*args, out=result)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(50):
            sx.linear_cross_entropy_with_grad(*args, out=result)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2048


FIT = """
import json, tracemalloc
import numpy as np
from softmax_ext.solvers import minimize

rng = np.random.default_rng(0)
n, d, c = 9000, 784, 10
y = rng.integers(0, c, n)
X = rng.normal(size=(n, d)).astype("float32") + rng.normal(size=(c, d)).astype("float32")[y] / 4
tracemalloc.start()
result = minimize(X, y, np.zeros((d, c), "float32"), np.zeros(c, "float32"), l1=5.0, tol=1e-6)
print(json.dumps([result.success, tracemalloc.get_traced_memory()[1]]))
"""


def test_a_fit_with_an_l1_penalty_takes_no_more_than_64_mib_beside_the_data():
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    success, peak = json.loads(done.stdout)
    assert success
    assert peak <= 64 * MIB
