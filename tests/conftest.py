"""What every test may ask for: a set of kernels, and tidy surroundings.

A test with the argument `kernels` runs once for each set of kernels: the NumPy reference and every
instruction set in this build. One with `compiled` runs for the instruction sets only. `sx` is the
package itself with its default kernels.

`--tier` runs a part of the tests, see TIERS.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# Threads cost OpenBLAS more than they save at the sizes of the tests: ten times as much where
# something else is running. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import softmax_ext
from softmax_ext import reference

# The tests' own modules (problems, tolerances) are imported by name.
sys.path.insert(0, str(Path(__file__).parent))

# A shell that runs the tests in the background has them and their children ignore SIGINT: the tests
# of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

INSTRUCTION_SETS = softmax_ext.compiled_isas()
KERNELS = {"kernels": ["reference", *INSTRUCTION_SETS], "compiled": INSTRUCTION_SETS}
# Tile instructions are emulated, for every size, where products with X are tested: in these files,
# but not in their tests of functions of logits; and in these of the edge cases.
EMULATED = softmax_ext._kernels.emulated_isas()
WITH_PRODUCTS = {
    "gradients", "halves", "hessian", "kernels", "problem", "properties", "width",
}  # fmt: skip
OF_LOGITS = ("softmax", "logsumexp", "divergence", "logits", "keepdims", "test_cross", "test_small")
EDGES = {
    "test_case_010_nan_and_infinity_in_one_row_of_x",
    "test_case_071_the_control_register_is_left_alone",
    "test_case_080_nan_in_ignored_rows",
    "test_case_115_no_features",
    "test_case_116_nothing_is_skipped_where_x_is_zero",
    "test_infinite_weights_as_pytorch_defines_them",
}

# The files of a tier; those in neither list are the tier `package`.
TIERS = {
    # What the compiled module computes, and the reference beside it.
    "kernels": [
        "accuracy", "ceiling", "edge_cases", "errors", "free_threaded", "gradients", "halves",
        "hessian", "inputs", "kernels", "layouts", "math", "memory", "properties", "reference",
        "problem", "sparse", "threads", "tiles", "width",
    ],
    # What is around the package: notebooks, documentation, benchmarks, the build.
    "project": ["bench", "docs", "package", "tooling"],
}  # fmt: skip


def pytest_addoption(parser):
    tiers = [*TIERS, "package"]
    parser.addoption("--tier", choices=tiers, help="run these tests only")


def pytest_ignore_collect(collection_path, config):
    if collection_path.suffix != ".py" or not config.option.tier:
        return None
    subject = collection_path.stem.removeprefix("test_")
    tier = next((name for name, subjects in TIERS.items() if subject in subjects), "package")
    return True if tier != config.option.tier else None


# The same examples in every run, and no clock. The fixtures are the same for every example.
settings.register_profile(
    "softmax_ext", deadline=None, derandomize=True, max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
settings.load_profile("softmax_ext")


def instruction_set(name):
    if name not in (*softmax_ext.available_isas(), *EMULATED):
        pytest.skip(f"{name}: this processor cannot run it")
    return softmax_ext.Kernels(name)


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc):
    """Run a case on one set of kernels after the other: what they share is computed once."""
    name = metafunc.function.__name__
    products = name in EDGES or (
        Path(metafunc.module.__file__).stem.removeprefix("test_") in WITH_PRODUCTS
        and not any(part in name for part in OF_LOGITS)
    )
    for name in KERNELS.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(name, [*KERNELS[name], *EMULATED * products], indirect=True)


@pytest.fixture
def kernels(request):
    if request.param == "reference":
        return reference
    return instruction_set(request.param)


@pytest.fixture
def compiled(request):
    return instruction_set(request.param)


@pytest.fixture
def sx():
    """The package; the number of threads is put back afterwards."""
    threads = softmax_ext.get_num_threads()
    yield softmax_ext
    softmax_ext.set_num_threads(threads)


@pytest.fixture(scope="module")
def one_thread_of_pytorch():
    """Its own work on two threads takes milliseconds a call while another program runs."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(2024)
