"""Threads, processes and signals; which instruction set is used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from problems import Case, Problem, assert_same_bits, run_python

import softmax_ext
from softmax_ext import _kernels
from softmax_ext.problem import GRADIENT

# Each call is large enough to be split among threads.
LARGE = Case(60_000, 64, 10, "float32")
BUILD = """
import numpy as np, softmax_ext as sx
rng = np.random.default_rng(0)
X, W = rng.normal(size=(60_000, 64)).astype("float32"), rng.normal(size=(64, 10)).astype("float32")
y = rng.integers(0, 10, 60_000)
def call():
    return sx.linear_cross_entropy_with_grad(X, W, None, y)
"""
# How many threads there are beside the first and those of NumPy's BLAS.
COUNT = """
import os, numpy
def n_threads(others=len(os.listdir("/proc/self/task"))):
    return len(os.listdir("/proc/self/task")) - others
"""
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="no /proc here")


def cpus():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


# How many ----------------------------------------------------------------------------------------


def test_set_and_get(sx):
    for n in (1, 3, np.int64(2)):
        sx.set_num_threads(n)
        assert sx.get_num_threads() == n
        assert type(sx.get_num_threads()) is int


def test_more_threads_than_there_can_be(sx):
    x = np.ones((1000, 1000))
    for n in (10**4, 2**31, 2**70):
        with sx.num_threads(n):
            assert (sx.softmax(x) == 1 / 1000).all()


def test_the_context_manager_nests(sx):
    sx.set_num_threads(2)
    with sx.num_threads(3):
        assert sx.get_num_threads() == 3
        with sx.num_threads(1):
            assert sx.get_num_threads() == 1
        assert sx.get_num_threads() == 3
    assert sx.get_num_threads() == 2


def test_the_context_manager_ends_with_an_exception(sx):
    before = sx.get_num_threads()
    with pytest.raises(KeyError), sx.num_threads(before + 1):
        raise KeyError
    assert sx.get_num_threads() == before


def test_the_context_manager_is_of_one_thread(sx):
    sx.set_num_threads(2)
    with sx.num_threads(5), ThreadPoolExecutor(1) as pool:
        assert pool.submit(sx.get_num_threads).result() == 2


@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (None, TypeError)],
)
def test_numbers_that_are_refused(sx, n, error):
    before = sx.get_num_threads()
    with pytest.raises(error, match=f"^n: .*{n}"):
        sx.set_num_threads(n)
    with pytest.raises(error, match=f"^n: .*{n}"), sx.num_threads(n):
        pass
    assert sx.get_num_threads() == before


@pytest.mark.parametrize(
    ("omp", "own", "expected"),
    [
        ("", "", cpus()),
        ("1", "", 1),
        ("", "1", 1),
        ("9999", "9999", cpus()),
        ("1", "9999", 1),
        ("9999", "1", 1),
        ("1,4", "", 1),
        ("0", " 1 ", 1),
        ("nonsense", "", cpus()),
    ],
)
def test_the_default(omp, own, expected):
    code = "import softmax_ext; print(softmax_ext.get_num_threads())"
    env = {"OMP_NUM_THREADS": omp, "SOFTMAX_EXT_NUM_THREADS": own}
    assert run_python(code, env=env) == str(expected)


@pytest.mark.parametrize("own", ["0", "-2", "two", "1,4", "1.5"])
def test_a_bad_number_in_the_environment_is_an_error_at_import(own):
    done = run_python("import softmax_ext", env={"SOFTMAX_EXT_NUM_THREADS": own}, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: environment variable SOFTMAX_EXT_NUM_THREADS: '{own}'")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_default_is_the_cpus_that_may_be_used():
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import softmax_ext
print(softmax_ext.get_num_threads())
"""
    env = {"OMP_NUM_THREADS": "", "SOFTMAX_EXT_NUM_THREADS": ""}
    assert run_python(code, env=env) == "1"


@needs_proc
def test_importing_starts_no_thread():
    code = f"{COUNT}import softmax_ext; print(n_threads())"
    assert run_python(code) == "0"


@needs_proc
def test_no_more_threads_than_asked_for():
    code = f"""
{COUNT}
{BUILD}
for n in (1, 3, 2):
    with sx.num_threads(n):
        call()
    print(n_threads())
"""
    one, three, again = map(int, run_python(code).split())
    assert one == 0
    assert 1 <= three <= 2
    assert again <= 2


# Several at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_on_any_number_of_threads(compiled, sx, dtype):
    """Every kind of job, each in many slices: also of those whose results wait for each other."""
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(1)

    def layer(n, d, c):
        X = rng.normal(size=(n, d)).astype(dtype)
        return X, rng.normal(size=(d, c)).astype(dtype), np.ones(c, dtype), rng.integers(0, c, n)

    many_rows, large, panels = layer(20_000, 40, 7), layer(5000, 300, 900), layer(300, 64, 40_000)
    csr = sparse.csr_array(many_rows[0] * (many_rows[0] > 1))
    x = rng.normal(size=(3000, 50)).astype(dtype)
    y = rng.integers(0, 50, 3000)
    p, q = np.abs(x), np.abs(x[::-1])

    def results():
        gradient = compiled.linear_cross_entropy_with_grad
        yield from gradient(*many_rows)
        yield from gradient(*many_rows, rows=np.arange(0, 20_000, 77))
        yield from gradient(*large)
        yield from gradient(*panels, with_dX=True)
        yield from gradient(csr, *many_rows[1:])
        yield compiled.predict_proba(*large[:3])
        yield compiled.predict(csr, *many_rows[1:3])
        yield compiled.linear_cross_entropy(*panels)
        yield compiled.softmax(x)
        yield compiled.logsumexp(x, axis=0)
        yield from compiled.cross_entropy_with_grad(x, y)
        yield compiled.entropy(p)
        yield compiled.kl_divergence(p, q, axis=0)
        yield sx.special.kl_div(p, q)

    with sx.num_threads(1):
        expected = list(results())
    for n in (2, 3, 8, 64):
        with sx.num_threads(n):
            for found, wanted in zip(results(), expected, strict=True):
                assert np.array(found).tobytes() == np.array(wanted).tobytes()


def test_calls_from_several_threads(compiled):
    problems = [
        Problem(case)
        for case in (LARGE, Case(3000, 64, 100, "float64"), Case(65, 17, 10, "float32", rows=True),
                     Case(8000, 33, 3, "float32", "uint8", x_scale=0.01))
    ]  # fmt: skip

    def work(i):
        p = problems[i % len(problems)]
        logits = compiled.linear(**p.linear)
        return (
            compiled.linear_cross_entropy_with_grad(**p.gradient),
            compiled.softmax(logits),
            compiled.cross_entropy_with_grad(logits, p.target),
        )

    expected = [work(i) for i in range(len(problems))]
    with ThreadPoolExecutor(6) as pool:
        for i, result in enumerate(pool.map(work, range(48))):
            assert_same_bits(result, expected[i % len(problems)])


def test_an_error_in_a_slice_reaches_the_caller_and_leaves_all_well(sx):
    p = Problem(LARGE)
    expected = sx.linear_cross_entropy_with_grad(**p.gradient)
    good, p.target[-1] = p.target[-1], 10
    for _ in range(3):
        with sx.num_threads(3), pytest.raises(IndexError, match="label 10 at row 59999"):
            sx.linear_cross_entropy_with_grad(**p.gradient)
    p.target[-1] = good
    assert_same_bits(sx.linear_cross_entropy_with_grad(**p.gradient), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_after_use():
    code = f"""
{BUILD}
import os, signal, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork of a process with threads
sx.set_num_threads(3)
expected = call()
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that hangs is ended
    same = all((a == b).all() for a, b in ((call().dW, expected.dW), (call().dW, expected.dW)))
    os._exit(0 if same else 1)
status = os.waitpid(child, 0)[1]
assert (call().dW == expected.dW).all()
print(os.waitstatus_to_exitcode(status))
"""
    assert run_python(code) == "0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks_while_other_threads_are_at_work():
    code = f"""
{BUILD}
import os, signal, threading, warnings
warnings.simplefilter("ignore")
sx.set_num_threads(3)
expected = call().dW
over = threading.Event()
def work():
    while not over.is_set():
        assert (call().dW == expected).all()
workers = [threading.Thread(target=work) for _ in range(3)]
for worker in workers:
    worker.start()
bad = 0
for _ in range({{forks}}):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if (call().dW == expected).all() else 1)
    bad += os.waitpid(child, 0)[1] != 0
over.set()
for worker in workers:
    worker.join()
print(bad)
"""
    assert run_python(code.replace("{forks}", "20")) == "0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_signal_handler_that_forks_in_the_middle_of_a_call():
    """The child lacks the threads that have the rest of the work: it is told, and can go on."""
    code = f"""
{BUILD}
import os, signal, warnings
warnings.simplefilter("ignore")
X, y = np.tile(X, (20, 1)), np.tile(y, 20)
sx.set_num_threads(2)
pids = []
signal.signal(signal.SIGALRM, lambda *_: pids or pids.append(os.fork()))
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    while not pids:
        call()
except RuntimeError as error:
    assert pids == [0] and "forked" in str(error)
    os._exit(7 if call().n_correct >= 0 else 1)
if pids == [0]:
    os._exit(7)  # forked between two calls
print(os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]))
"""
    assert run_python(code) == "7"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_what_a_forked_signal_handler_raises_reaches_its_caller():
    code = f"""
{BUILD}
import os, signal, warnings
warnings.simplefilter("ignore")
X, y = np.tile(X, (20, 1)), np.tile(y, 20)
sx.set_num_threads(2)
pids = []
def fork(*_):
    pids.append(os.fork())
    if pids == [0]:
        call()  # on a pool of its own
        raise SystemExit(7)
signal.signal(signal.SIGALRM, fork)
signal.setitimer(signal.ITIMER_REAL, 0.05)
while not pids:
    call()
print(os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]))
"""
    assert run_python(code) == "7"


def test_daemon_threads_at_work_do_not_hold_up_the_exit():
    code = f"""
{BUILD}
import threading, time
sx.set_num_threads(3)
def work():
    while True:
        call()
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
print("end")
"""
    assert run_python(code) == "end"


def test_the_end_of_python_in_the_middle_of_a_daemon_threads_long_call():
    """The end takes a while, in which a thread that wants the GIL would lose its stack."""
    code = """
import sys, threading, time
import numpy as np, softmax_ext as sx
n = 10_000_000
X, y = np.broadcast_to(np.ones(64, "float32"), (n, 64)), np.broadcast_to(np.uint8(3), n)
W = np.ones((64, 100), "float32")
sx.set_num_threads(3)
def work(depth):  # deep in that stack
    if depth:
        return list(map(work, [depth - 1]))
    sx.linear_cross_entropy_with_grad(X, W, None, y)
class Slow:
    def __del__(self, sleep=time.sleep):
        for _ in range(100):
            sleep(0.001)
threading.Thread(target=work, args=(200,), daemon=True).start()
time.sleep(0.1)
sys.modules["slow"] = Slow()
print("end")
"""
    assert run_python(code) == "end"


def test_the_number_of_threads_may_change_meanwhile(sx):
    p = Problem(LARGE)
    expected = sx.linear_cross_entropy_with_grad(**p.gradient)

    def work(i):
        if i % 4 == 0:
            sx.set_num_threads(1 + i % 7)
        return sx.linear_cross_entropy_with_grad(**p.gradient)

    with ThreadPoolExecutor(64) as pool:
        for result in pool.map(work, range(80)):
            assert_same_bits(result, expected)


def test_use_at_exit():
    code = f"""
{BUILD}
import atexit
sx.set_num_threads(3)
call()
atexit.register(lambda: print(call().n_correct >= 0))
"""
    assert run_python(code) == "True"


# Threads that cannot be had -----------------------------------------------------------------------

# `same()` compares results of all ways to split a call with those of one thread, and sees that
# nothing of a call stays.
SAME = f"""
{BUILD}
import resource, weakref
x = rng.normal(size=(10_000, 100))
def results():
    return call().dW, sx.softmax(x), sx.cross_entropy(x, y[:10_000]), sx.predict(X, W)
with sx.num_threads(1):
    expected = results()
def same():
    found = results()
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))
    remains = [weakref.ref(a) for a in found if isinstance(a, np.ndarray)]
    del found
    assert not any(a() is not None for a in remains)
def limit(kind, n):
    resource.setrlimit(kind, (n, resource.getrlimit(kind)[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
def test_as_many_threads_as_the_system_allows():
    """The limit is of a user's threads, and root has none: another user's number is taken."""
    code = f"""
{SAME}
import _thread, os, threading
from concurrent.futures import ThreadPoolExecutor
sx.set_num_threads(4)
callers = ThreadPoolExecutor(3)
started = threading.Barrier(3)
list(callers.map(lambda _: started.wait(), range(3)))
if os.getuid() == 0:
    os.setuid(54321)
limit(resource.RLIMIT_NPROC, 1)
try:
    _thread.start_new_thread(lambda: None, ())
except RuntimeError:
    print("bound")
for n in (1, 2, 1, 3, 1, 100):
    limit(resource.RLIMIT_NPROC, n)
    for _ in range(5):
        same()
    for done in [callers.submit(same) for _ in range(9)]:
        done.result()
print("same")
"""
    bound, *rest = run_python(code).split()
    if bound != "bound":
        pytest.skip("the number of threads cannot be limited here")
    assert rest == ["same"]


@needs_proc
def test_as_many_threads_as_there_is_memory_for():
    """From no room at all to that for some stacks: the right result, or MemoryError."""
    code = f"""
{SAME}
import os
pid = os.getpid()
def used():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
results()
for room in range(0, 40 << 20, 1 << 20):
    child = os.fork()
    if child == 0:
        sx.set_num_threads(4)
        limit(resource.RLIMIT_AS, used() + room)
        try:
            for _ in range(3):
                same()
        except MemoryError:
            os._exit(2)
        except BaseException:
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    codes = run_python(code).split()
    assert len(codes) == 40
    assert set(codes) <= {"0", "2"}
    assert codes[-1] == "0"


# Ctrl-C ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "d", "c"), [(30_000_000, 64, 1000), (10**9, 1, 1), (2_000_000, 784, 10), (10**8, 30, 100)]
)
def test_slices_of_a_long_call_are_short(n, d, c):
    """Ctrl-C waits for the end of a slice: of some 10 milliseconds, a tenth of a second without
    AVX2."""
    X, W = np.broadcast_to(np.ones(d, np.float32), (n, d)), np.ones((d, c), np.float32)
    target = _kernels.Target(np.broadcast_to(np.uint8(0), (n, 1)), True, c, None, None, -100, 0.0)
    examples = _kernels.Examples(X, 1.0, target)
    p = _kernels.LinearPass("baseline", GRADIENT, examples, W, None, None, 1)
    for step in (p.forward_step(), p.gradient_step()):
        assert 1024 <= step <= (1 << 29) / (d * c) + p.row_block
        assert step >= min(n / 64, 2048)  # not so short that they cost more than their work


@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_during_a_long_call(threads):
    """The call would take a minute, but no memory: X and the labels have stride 0.

    dW is filled at the very end of a call: sevens in it mean that the call did not get there.
    """
    code = f"""
import numpy as np, softmax_ext as sx
n = 30_000_000
X = np.broadcast_to(np.ones(64, "float32"), (n, 64))
W, y = np.ones((64, 1000), "float32"), np.broadcast_to(np.uint8(3), n)
dW = np.full_like(W, 7)
print("ready", flush=True)
try:
    with sx.num_threads({threads}):
        sx.linear_cross_entropy_with_grad(X, W, None, y, out=(dW, None))
except KeyboardInterrupt:
    small = sx.linear_cross_entropy_with_grad(X[:3000], W, None, y[:3000])
    print("interrupted", (dW == 7).all(), round(small.loss, 3))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):  # it is at work
            process.wait(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert out == "interrupted True 6.908\n", err


# Which instruction set ---------------------------------------------------------------------------


def test_the_best_instruction_set_is_the_default():
    code = "import softmax_ext as sx; print(sx.kernels.isa, *sx.available_isas())"
    used, best, *_ = run_python(code, env={"SOFTMAX_EXT_ISA": ""}).split()
    assert used == best


def test_forcing_an_instruction_set(compiled):
    code = """
import numpy as np, softmax_ext as sx
print(sx.kernels.isa)
assert sx.softmax.__self__ is sx.kernels
print(sx.softmax(np.arange(1.0, 40.0)).tobytes().hex())
"""
    isa, bits = run_python(code, env={"SOFTMAX_EXT_ISA": compiled.isa}).split()
    assert isa == compiled.isa == softmax_ext.Kernels(compiled.isa).isa
    assert bits == compiled.softmax(np.arange(1.0, 40.0)).tobytes().hex()


@pytest.mark.parametrize("isa", ["sse9", "AVX2", "avx2,baseline"])
def test_forcing_an_unknown_instruction_set_is_an_error_at_import(isa):
    done = run_python("import softmax_ext", env={"SOFTMAX_EXT_ISA": isa}, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert isa in last
    assert "baseline" in last


def test_show_config(sx, capsys):
    with sx.num_threads(3):
        sx.show_config()
    text = capsys.readouterr().out
    for word in (sx.__version__, sx.kernels.isa, *sx.available_isas(), *sx.compiled_isas(), "-O3"):
        assert word in text
    assert ["threads", "3"] in [line.split()[:2] for line in text.splitlines()]
