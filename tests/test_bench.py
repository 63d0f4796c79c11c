"""The benchmarks: they run, and they would notice a wrong answer. No time is asserted."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import softmax_ext
from softmax_ext import reference

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
PNG = b"\x89PNG\r\n\x1a\n"
ISAS = softmax_ext.available_isas()


@pytest.fixture
def benchlib(monkeypatch):
    """A function that imports a module of bench/benchlib."""
    monkeypatch.syspath_prepend(str(BENCH))
    return lambda name: importlib.import_module(f"benchlib.{name}")


def run(*arguments):
    """Run a Python command in a process of its own: the benchmarks bind theirs to one CPU."""
    package = str(Path(softmax_ext.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


def installed(package):
    return importlib.util.find_spec(package) is not None


# The whole thing, at tiny sizes.


def test_table_is_printed_and_written(tmp_path):
    pytest.importorskip("matplotlib")
    done = run(
        BENCH / "table.py", "--smoke", "--threads", 1, "--out", tmp_path,
        "--only", "softmax/small", "--only", "linear_cross_entropy_with_grad/mnist-10-uint8",
        "--only", "epoch/mnist-10-uint8", "--only", "import",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "table-1-thread-part-smoke.json").read_text(encoding="utf-8"))
    assert written["environment"]["threads"] == 1
    small, gradient, epoch = sorted(written["records"], key=lambda r: r["op"], reverse=True)
    assert (small["op"], epoch["op"]) == ("softmax", "epoch")
    for record in (small, gradient, epoch):
        assert record["failed"] == {}
        names = [contender["name"] for contender in record["contenders"]]
        assert [f"ours [{isa}]" in names for isa in ISAS] == [True] * len(ISAS)
        assert {"reference", "NumPy"} <= set(names)
        assert ("PyTorch" in names) == installed("torch")
        assert ("JAX" in names) == installed("jax")
        assert record["contenders"][0]["ratio"] == 1
        for contender in record["contenders"]:
            assert 0 < contender["min"] <= contender["median"]
            assert f"| {contender['name']} " in done.stdout
    report = (tmp_path / "table-1-thread-part-smoke.md").read_text(encoding="utf-8")
    assert "`softmax` small-8x10" in report
    assert "peer / ours" in report
    assert all(f"ours [{isa}]" in report for isa in ISAS)
    assert written["footprint"]["import"]["numpy"] > 0
    assert "Importing the package takes" in report
    assert re.search(r"Fastest in \d of 3 jobs", report)
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert {"overview-1-thread-part-smoke.png", "bars-softmax-1-thread-part-smoke.png"} <= pictures
    for name in pictures:
        assert (tmp_path / name).read_bytes().startswith(PNG)
        assert f"]({name})" in report


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="only one CPU may be used",
)
def test_with_two_threads_each_library_has_its_own_process(tmp_path):
    done = run(
        BENCH / "table.py", "--smoke", "--threads", 2, "--out", tmp_path, "--no-pictures",
        "--library", "ours", "--library", "numpy", "--only", "softmax/rows-4096x10",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "table-2-thread-part-smoke.json").read_text(encoding="utf-8"))
    told = written["environment"]["threads of"]
    assert set(told) == {"ours", "numpy"}
    assert all(threads["softmax_ext"] == 2 for threads in told.values())
    assert {c["library"] for c in written["records"][0]["contenders"]} == {"ours", "numpy"}


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="only one CPU may be used",
)
def test_by_default_one_thread_and_two_are_measured_and_compared(tmp_path):
    done = run(
        BENCH / "table.py", "--smoke", "--out", tmp_path, "--no-pictures", "--library", "ours",
        "--only", "softmax/rows-4096x10",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (
        json.loads((tmp_path / f"table-{n}-thread-part-smoke.json").read_text(encoding="utf-8"))
        for n in (1, 2)
    )
    assert (first["environment"]["threads"], second["environment"]["threads"]) == (1, 2)
    report = (tmp_path / "table-2-thread-part-smoke.md").read_text(encoding="utf-8")
    assert "| 1 thread / this |" in report


PEAK = """
import sys
import numpy as np
from benchlib import contenders, footprint, workloads
from benchlib.runners import Settings

name, library = sys.argv[1:]
(workload,) = workloads.select(["linear_cross_entropy_with_grad/vocab-50k"], tiny=True)

def build(workload, data):
    # Larger than what C's library keeps for later when it is freed.
    made = np.ones(40 << 20, np.uint8)

    def call():
        held = np.ones(90 << 20, np.uint8)
        return held[: 36 << 20].copy(), made

    return call

contender = contenders.Contender(name, library, build)
footprint.contenders_of = lambda *_: [contender]
print(footprint.measure_here(workload, name, Settings(1, (library,)))["bytes"])
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_peak_memory_is_measured_in_processes_of_their_own(tmp_path):
    done = run(
        BENCH / "table.py", "--smoke", "--threads", 1, "--out", tmp_path, "--only", "peak",
        "--library", "ours", "--library", "numpy", "--library", "reference",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "table-1-thread-part-smoke.json").read_text(encoding="utf-8"))
    found = written["footprint"]["peak"]
    assert {"linear_cross_entropy_with_grad/vocab-50k", "predict/many-800"} < set(found)
    report = (tmp_path / "table-1-thread-part-smoke.md").read_text(encoding="utf-8")
    for records in found.values():
        assert [r["name"] for r in records] == [f"ours [{ISAS[0]}]", "reference", "NumPy"]
        assert all(f"| {r['name']} " in report and r["seconds"] > 0 for r in records)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("name", "library", "least"), [("NumPy", "numpy", 166), ("PyTorch", "torch", 126)]
)
def test_peak_memory_is_what_a_call_holds(name, library, least):
    # In a new process, as the benchmark does: the system takes idle pages from one that is old.
    done = subprocess.run(
        [sys.executable, "-c", PEAK, name, library], cwd=BENCH, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # Linux counts pages in lots.
    assert (least - 1) << 20 <= int(done.stdout) <= (least + 12) << 20


def test_sweep_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    done = run(BENCH / "sweep.py", "--smoke", "--isa", ISAS[-1], "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(
        (tmp_path / f"sweep-{ISAS[-1]}-1-thread-smoke.json").read_text(encoding="utf-8")
    )
    shape = (len(written["features"]), len(written["classes"]))
    assert np.shape(written["seconds_per_flop"]) == shape
    assert (tmp_path / f"sweep-{ISAS[-1]}-1-thread-smoke.png").read_bytes().startswith(PNG)


def test_import_times_are_measured_in_fresh_interpreters(benchlib):
    times = benchlib("footprint").import_seconds(1)
    assert set(times) == {"numpy", "softmax_ext"}
    # Importing the package imports NumPy: much less would be an interpreter that had it already.
    assert times["softmax_ext"] > 0.2 * times["numpy"] > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_workspace_is_what_a_call_allocates(benchlib):
    footprint, workloads = benchlib("footprint"), benchlib("workloads")
    job = workloads.Workload("linear_cross_entropy_with_grad", "some", 300, 100, 200)
    settings = benchlib("runners").Settings(1, ("ours",), ISAS[:1])
    (found,) = footprint.memory(job, settings)
    W, logits = 4 * 100 * 200, 4 * 256 * 200
    assert 2 * W + logits <= found["workspace"] <= 2 * (2 * W + logits)


def test_pytest_benchmarks_run_every_workload(benchlib):
    pytest.importorskip("pytest_benchmark")
    done = run("-m", "pytest", "bench", "--bench-smoke", "--benchmark-disable", "-v",
               "-p", "no:cacheprovider", "-k", f"{ISAS[0]} or reference or NumPy")  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    for workload in benchlib("workloads").WORKLOADS:
        numpy = () if workload.entries else ("NumPy",)
        for name in (f"ours [{ISAS[0]}]", "reference", *numpy):
            assert f"[{workload.name}-{name}] PASSED" in done.stdout


def test_another_checkout_is_measured_beside(tmp_path):
    """A copy of the package, in which one function waits: only that one is told as slower."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "softmax_ext", other / "softmax_ext")
    with open(other / "softmax_ext" / "__init__.py", "a", encoding="utf-8") as file:
        file.write(WAITING)
    done = run(
        BENCH / "table.py", "--smoke", "--threads", 1, "--no-pictures", "--out", tmp_path,
        "--against", other, "--isa", ISAS[-1],
        "--only", "softmax/small", "--only", "logsumexp/rows-4096x10",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    path = tmp_path / "table-1-thread-against-part-smoke.json"
    for record in json.loads(path.read_text(encoding="utf-8"))["records"]:
        names = [c["name"] for c in record["contenders"]]
        assert names == [f"ours [{ISAS[-1]}]", f"before [{ISAS[-1]}]"]
        assert (record["contenders"][1]["gain"] > 30) == (record["op"] == "softmax")
    assert "| before / now |" in done.stdout


#: Makes softmax of a handle wait, far longer than a tiny one takes.
WAITING = """
class _Waiting(Kernels):
    def softmax(self, *args, **options):
        __import__("time").sleep(0.02)
        return super().softmax(*args, **options)

Kernels = _Waiting
"""


def test_a_checkout_that_is_not_built_is_refused(tmp_path):
    done = run(BENCH / "table.py", "--smoke", "--threads", 1, "--against", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"table.py: against: no softmax_ext was built in {tmp_path}\n"


#: Workloads that between them build every contender of every library.
EACH_ONCE = (
    "linear_cross_entropy_with_grad/vocab", "linear_cross_entropy_with_grad/text-1000-float64",
    "linear_cross_entropy_with_grad/mnist-10-batch-cold", "linear_cross_entropy/", "linear/",
    "predict/", "predict_proba/one", "softmax/rows-4096x100", "log_softmax/rows-4096x100",
    "logsumexp/rows-4096x100", "cross_entropy/rows-65536", "cross_entropy_with_grad/rows-65536",
    "entropy/", "kl_divergence/", "epoch/mnist-10", "linear_cross_entropy_hvp/mnist",
    "linear_cross_entropy_with_grad/mnist-10-float16", "linear_cross_entropy_with_grad/sparse-20",
)  # fmt: skip


@pytest.mark.slow
def test_every_peer_gives_the_right_answer(tmp_path):
    groups = [f"--only={name}" for name in EACH_ONCE]
    done = run(
        BENCH / "table.py", "--smoke", "--threads", 1, "--no-pictures", "--out", tmp_path, *groups
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--only", "no-such", "only: no workload starts with 'no-such'"),
        ("--isa", "mmx", "isa: 'mmx' is none of"),
        ("--library", "abacus", "library: 'abacus' is none of"),
        ("--threads", "100000", "threads: 100000 asked for"),
    ],
)
def test_bad_options_are_refused_in_one_line(option, value, message, tmp_path):
    threads = () if option == "--threads" else ("--threads", 1)
    done = run(BENCH / "table.py", "--smoke", *threads, option, value, "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"table.py: {message}")
    assert done.stderr.count("\n") == 1


# The parts.


def tiny(benchlib, op):
    workloads = benchlib("workloads")
    return next(w.tiny() for w in workloads.WORKLOADS if w.op == op)


ALL_OPS = (
    "linear_cross_entropy_with_grad", "linear_cross_entropy_hvp", "linear_cross_entropy", "linear",
    "predict",
    "predict_proba", "softmax", "log_softmax", "logsumexp", "cross_entropy",
    "cross_entropy_with_grad", "entropy", "kl_divergence", "epoch",
)  # fmt: skip


@pytest.mark.parametrize("op", ALL_OPS)
def test_a_wrong_answer_is_noticed(benchlib, op):
    truth, workload = benchlib("truth"), tiny(benchlib, op)
    right = truth.compute(workload, benchlib("data").make(workload))
    truth.check("itself", workload, right, right)
    for part, array in enumerate(right):
        wrong = [np.array(a, copy=True) for a in right]
        if array.dtype.kind == "i":
            wrong[part].flat[0] += 1
        else:
            wrong[part].flat[0] += 1e-3 * np.abs(array).max()
        with pytest.raises(AssertionError, match=f"result {part}"):
            truth.check("wrong", workload, tuple(wrong), right)
        wrong[part] = np.full_like(array, np.nan, dtype=float)
        with pytest.raises(AssertionError, match=f"result {part}"):
            truth.check("nan", workload, tuple(wrong), right)
        wrong[part] = array[..., None]
        with pytest.raises(AssertionError, match="shape"):
            truth.check("shape", workload, tuple(wrong), right)
    with pytest.raises(AssertionError, match="results"):
        truth.check("short", workload, right[:-1], right)


def test_a_failing_contender_is_noted_and_the_others_go_on(benchlib, monkeypatch):
    runners, contenders = benchlib("runners"), benchlib("contenders")
    workload = tiny(benchlib, "softmax")
    monkeypatch.setattr(runners.threads, "apply", lambda threads: None)

    def wrong(workload, data):
        return lambda: np.zeros_like(data.logits)

    def broken(workload, data):
        raise RuntimeError("out of order")

    def unsuited(workload, data):
        raise contenders.UnsuitedError("too small")

    right = contenders.contenders_of(workload, ("numpy",))
    others = [contenders.Contender(f.__name__, "numpy", f) for f in (wrong, broken, unsuited)]
    monkeypatch.setattr(runners, "contenders_of", lambda *_: others + right)
    prepared = runners.LocalRunner(runners.Settings()).prepare(workload)
    assert [(p.name, p.failed) for p in prepared] == [
        ("wrong", True), ("broken", True), ("unsuited", False), ("NumPy", False),
    ]  # fmt: skip
    assert prepared[0].absent.startswith("AssertionError: wrong, softmax/")
    assert prepared[1].absent == "RuntimeError: out of order"
    assert prepared[2].absent == "too small"
    assert [p.seconds is None for p in prepared] == [True, True, True, False]


def test_contenders_take_turns(benchlib):
    timing, runners = benchlib("timing"), benchlib("runners")
    turns = []

    class Recorder:
        def prepare(self, workload):
            return [
                runners.Prepared("ours [a]", "ours", 1.0),
                runners.Prepared("absent", "jax", None, "jax is not installed"),
                runners.Prepared("NumPy", "numpy", 2.0),
            ]

        def sample(self, name, calls, warm_up):
            turns.append(name)
            return {"ours [a]": [1.0, 9.0, 2.0], "NumPy": [4.0, 5.0, 6.0]}[name][
                turns.count(name) - 1
            ]

    class Limits:
        speeds = iter([100.0, 200.0, 150.0, 20.0, 10.0, 30.0])

        def arithmetic(self, dtype):
            turns.append("ceiling")
            return next(self.speeds)

        def memory(self, read, written):
            return 7.0

    effort = timing.Effort(seconds=0, least_rounds=3, most_rounds=3)
    record = timing.measure(tiny(benchlib, "softmax"), Recorder(), Limits(), effort)
    # These contenders take long: the ceilings are measured before each.
    assert turns[::2] == ["ceiling"] * 6
    assert turns[1::2] == ["ours [a]", "NumPy", "NumPy", "ours [a]", "ours [a]", "NumPy"]
    # The best counts, and that most were far from it is noted.
    assert record["ceiling"] == {
        "flops_per_second": 200.0, "bytes_per_second": 7.0, "disturbed": True,
    }  # fmt: skip
    ours, other = record["contenders"]
    assert (ours["median"], ours["min"], ours["ratio"]) == (2.0, 1.0, 1.0)
    assert (other["median"], other["ratio"]) == (5.0, 2.5)
    assert record["left_out"] == {"absent": "jax is not installed"}


def test_costs_of_known_workloads(benchlib):
    by_name = {w.name: w for w in benchlib("workloads").WORKLOADS}
    mnist = by_name["linear_cross_entropy_with_grad/mnist-10"]
    assert mnist.flops == 4 * 60000 * 784 * 10
    assert mnist.bytes == 4 * 60000 * 784 + 2 * 4 * 784 * 10 + 8 * 60000
    assert mnist.written == 4 * 784 * 10
    vocabulary = by_name["linear_cross_entropy_with_grad/vocab-50k"]
    assert vocabulary.flops == 6 * 1024 * 768 * 50257
    assert by_name["linear_cross_entropy_with_grad/mnist-10-batch-cold"].flops == 4 * 256 * 7840
    assert by_name["epoch/mnist-10"].flops == mnist.flops
    assert by_name["softmax/rows-4096x10"].bytes == 2 * 4 * 4096 * 10
    assert by_name["logsumexp/rows-4096x10"].bytes == 4 * 4096 * 11
    assert by_name["softmax/rows-4096x10"].flops == 0


def test_share_is_of_the_ceiling_that_binds(benchlib):
    rates = benchlib("timing").rates
    by_name = {w.name: w for w in benchlib("workloads").WORKLOADS}
    top = {"flops_per_second": 100e9, "bytes_per_second": 20e9}
    gradient = by_name["linear_cross_entropy_with_grad/mnist-10"]
    found = rates(gradient, gradient.flops / 50e9, top)
    assert found["bound"] == "arithmetic"
    assert found["share"] == pytest.approx(0.5)
    assert found["gflops"] == pytest.approx(50)
    softmax = by_name["softmax/rows-65536x10"]
    found = rates(softmax, softmax.bytes / 5e9, top)
    assert found["bound"] == "memory"
    assert found["share"] == pytest.approx(0.25)
    assert found["gbps"] == pytest.approx(5)


def test_arrays_start_where_they_should(benchlib):
    data = benchlib("data")
    for align, offset in (("numpy", 16), ("64", 0)):
        made = data.make(tiny(benchlib, "linear_cross_entropy_with_grad"), align)
        for array in (made.X, made.W, made.b):
            assert array.ctypes.data % 64 == offset
            assert array.flags.c_contiguous


def test_an_absent_library_is_listed_with_its_reason(benchlib, monkeypatch):
    contenders = benchlib("contenders")
    contenders._builders.cache_clear()
    monkeypatch.setitem(sys.modules, "torch", None)
    (only,) = contenders.contenders_of(tiny(benchlib, "softmax"), ("torch",))
    assert (only.build, only.absent) == (None, "torch is not installed")
    contenders._builders.cache_clear()


def test_an_instruction_set_that_cannot_run_is_listed_with_its_reason(benchlib, monkeypatch):
    contenders = benchlib("contenders")
    monkeypatch.setattr(contenders, "isas", lambda: (ISAS, ("avx1024",)))
    *able, unable = contenders.contenders_of(tiny(benchlib, "softmax"), ("ours",))
    assert [c.name for c in able] == [f"ours [{isa}]" for isa in ISAS]
    assert unable.absent == "this processor cannot run avx1024"


def test_summary_compares_with_the_fastest_peer(benchlib):
    report = benchlib("report")
    record = {
        "op": "softmax", "size": "rows-4096x10", "shape": "4096 x 10",
        "ceiling": {"disturbed": False},
        "contenders": [
            {"name": "ours [a]", "library": "ours", "median": 2e-3, "share": 0.5},
            {"name": "ours [b]", "library": "ours", "median": 1e-3, "share": 1.0},
            {"name": "bare copy", "library": "bare", "median": 1e-6, "share": 1.0},
            {"name": "PyTorch", "library": "torch", "median": 8e-3, "share": 0.1},
            {"name": "NumPy", "library": "numpy", "median": 6e-3, "share": 0.1},
        ],
    }  # fmt: skip
    row = report.summary_row(record)
    assert row["peer / ours"] == "3"
    assert row["share"] == "50%"
    assert (row["ours [a]"], row["ours [b]"]) == ("2 ms", "1 ms")
    assert report.verdict([record]) == "Fastest in 1 of 1 jobs."
    record["ceiling"]["disturbed"] = True
    assert report.summary_row(record)["share"] == "50% !"
    record["ceiling"]["disturbed"] = False
    record["contenders"][0]["share"] = 1.2
    assert report.summary_row(record)["share"] == "120% !"
    assert report.summary_row(record, record)["1 thread / this"] == "1"
    record["contenders"][-1]["median"] = 1e-3
    assert report.summary_row(record)["peer / ours"] == "**0.5**"
    assert report.verdict([record]) == (
        "Fastest in 0 of 1 jobs. Lost: `softmax/rows-4096x10` (NumPy)."
    )
    lines = report.summary([record]).splitlines()
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.0, "2 s"), (0.0184, "18.4 ms"), (0.1234, "123 ms"), (3.1e-6, "3.1 µs"), (9e-8, "90 ns")],
)
def test_durations_are_written_in_a_unit_that_suits(benchlib, value, text):
    assert benchlib("report").seconds(value) == text


def test_figures_of_another_checkout_are_told_where_they_were_better(benchlib):
    record = {
        "op": "softmax", "size": "a",
        "contenders": [
            {"name": "ours [avx2]", "median": 2e-3, "min": 1e-3},
            {"name": "ours [baseline]", "median": 5e-3, "min": 5e-3},
            {"name": "before [avx2]", "median": 1e-3, "min": 9e-4, "gain": 0.51},
            {"name": "before [baseline]", "median": 5e-3, "min": 5e-3, "gain": 0.98},
        ],
    }  # fmt: skip
    text = re.sub(" +", " ", benchlib("report").changes([record]))
    assert text.startswith("1 of 2 figures are below 0.97 of before")
    assert "| `softmax/a` | [avx2] | 1 ms | 2 ms | **0.510** | 0.900 |" in text
    assert "| `softmax/a` | [baseline] | 5 ms | 5 ms | 0.980 | 1.000 |" in text
    assert benchlib("report").least_gain(record) == 0.51
    ours = record | {"contenders": record["contenders"][:2]}
    assert (benchlib("report").changes([ours]), benchlib("report").least_gain(ours)) == ("", 1)


SIZES = (1, 2, 4, 8, 16)


@pytest.fixture
def sweep(benchlib):
    """bench/sweep.py."""
    benchlib("options")
    return importlib.import_module("sweep")


def smooth():
    """A map with a trend, as real ones have: small sizes are dearer."""
    return [[(1 + 8 / d) * (1 + 3 / c) for c in SIZES] for d in SIZES]


def test_sweep_flags_nothing_in_a_smooth_map(sweep):
    times = smooth()
    assert sweep.confirmed(times, SIZES, SIZES, lambda d, c: 0) == []
    assert times == smooth()


def test_sweep_flags_a_cell_and_a_whole_column(sweep):
    times = smooth()
    times[2][2] *= 2
    found = sweep.confirmed(times, SIZES, SIZES, lambda d, c: np.inf)
    assert [(d, c) for d, c, _ in found] == [(4, 4)]
    times = smooth()
    for row in times:
        row[3] *= 2
    found = sweep.confirmed(times, SIZES, SIZES, lambda d, c: np.inf)
    assert [(d, c) for d, c, _ in found] == [(d, 8) for d in SIZES]


def test_sweep_drops_a_flag_that_does_not_come_again(sweep):
    times = smooth()
    right, times[2][2] = times[2][2], 2 * times[2][2]
    assert sweep.confirmed(times, SIZES, SIZES, lambda d, c: right) == []
    assert times == smooth()


def test_sweep_checks_the_answer(sweep):
    class Wrong:
        isa = "wrong"

        def linear_cross_entropy_with_grad(self, *args, **kwargs):
            result = reference.linear_cross_entropy_with_grad(*args, **kwargs)
            return result._replace(dW=2 * result.dW)

    with pytest.raises(AssertionError, match=r"ours \[wrong\]"):
        sweep.seconds_per_flop(Wrong(), 3, 2, work=1e3)


def test_our_face_of_pytorch_is_no_peer(benchlib):
    pytest.importorskip("torch")
    workload = benchlib("workloads").select(["softmax/rows-4096x10"])[0]
    found = benchlib("contenders").contenders_of(workload, ("torch",))
    assert {c.library for c in found if "softmax_ext" in c.name} == {"ours"}
    assert {c.library for c in found if "softmax_ext" not in c.name} == {"torch"}


def test_fits_are_compared(tmp_path):
    pytest.importorskip("sklearn")
    result = run(BENCH / "fit.py", "--smoke", "--rounds", 1, "--out", tmp_path,
                 "--only", "probe", "text", "iris", "balanced", "bytes, C = 1e4",
                 "--contender", "ours", "ours, plain", "scikit-learn")  # fmt: skip
    assert result.returncode == 0, result.stderr
    measured = json.loads((tmp_path / "fit-1-smoke.json").read_text(encoding="utf-8"))
    assert set(measured) == {"probe", "text", "iris", "balanced", "bytes, C = 1e4"}
    for fits in measured.values():
        ours = fits["ours"]["objective"]
        assert ours <= fits["scikit-learn"]["objective"] * (1 + 1e-3)
        assert ours == pytest.approx(min(value for *_, value in fits["ours"]["curve"]), rel=1e-4)
        assert fits["scikit-learn"]["passes"] > 0
    assert "| scikit-learn " in (tmp_path / "fit-1-smoke.md").read_text(encoding="utf-8")
    assert (tmp_path / "fit-1-smoke.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("job", ["embeddings", "text"])
def test_paths_are_measured_and_checked(job):
    if job == "text":
        pytest.importorskip("scipy")
    done = run(BENCH / "path.py", job, "--smoke", "--check", 2)
    assert done.returncode == 0, done.stderr
    assert "not converged: 0" in done.stdout
    gaps = re.findall(r"gap (-?[0-9.e+-]+) \(", done.stdout)
    assert len(gaps) == 3
    assert all(abs(float(gap)) < 1e-4 for gap in gaps)


def test_fits_with_zeros_are_compared(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    done = run(BENCH / "lasso.py", "--smoke", "--threads", 1, "--most", 1, "--out", tmp_path,
               "--only", "text", "news", "genes")  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "lasso.json").read_text(encoding="utf-8"))
    assert set(measured) == {"text", "news", "genes"}
    for of_job in measured.values():
        # Above the bound, all of them, and those that come near are there: they minimise the same.
        gaps = {title: [gap for _, gap in points] for title, points in of_job.items()}
        assert all(gap > 1e-12 for of_one in gaps.values() for gap in of_one)
        assert 0 < min(gaps["ours"]) <= 1e-6
        assert min(gaps["scikit-learn, saga"]) <= 1e-2
    assert min(gap for _, gap in measured["news"]["scikit-learn, liblinear"]) <= 1e-6
    assert "| news | ours |" in (tmp_path / "lasso.md").read_text(encoding="utf-8")
    assert (tmp_path / "lasso.png").read_bytes().startswith(PNG)


def test_an_unknown_problem_is_refused(tmp_path):
    done = run(BENCH / "fit.py", "--only", "no-such", "--out", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("fit.py: only: 'no-such' is none of")


@pytest.mark.parametrize("group", ["large", "kinds", "awkward", "small"])
def test_problems_are_what_fits_take(benchlib, group):
    pytest.importorskip("sklearn")
    problems = benchlib("problems")
    for make in list(problems.problems(tiny=True)[group].values())[-3:]:
        problem = make()
        assert problem.X.shape[0] == len(problem.y)
        c = int(problem.y.max()) + 1
        assert set(np.unique(problem.y)) <= set(range(c))
        W, b = np.zeros((problem.X.shape[1], c)), np.zeros(c)
        total = len(problem.y) if problem.weight is None else problem.weight.sum()
        assert problems.objective(problem, W, b) == pytest.approx(total * np.log(c))
