"""What every test may ask for: a set of kernels, and tidy surroundings.

A test with the argument `kernels` runs once for each set of kernels: the NumPy reference and every
instruction set in this build. One with `compiled` runs for the instruction sets only. `sx` is the
package itself with its default kernels.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import softmax_ext
from softmax_ext import reference

# The tests' own modules (problems, tolerances) are imported by name.
sys.path.insert(0, str(Path(__file__).parent))

# A shell that runs the tests in the background has them and their children ignore SIGINT: the tests
# of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

INSTRUCTION_SETS = softmax_ext.compiled_isas()

# The same examples in every run, and no clock.
settings.register_profile("softmax_ext", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("softmax_ext")


def instruction_set(name):
    if name not in softmax_ext.available_isas():
        pytest.skip(f"{name}: this processor cannot run it")
    return softmax_ext.Kernels(name)


@pytest.fixture(scope="session", params=("reference", *INSTRUCTION_SETS))
def kernels(request):
    if request.param == "reference":
        return reference
    return instruction_set(request.param)


@pytest.fixture(scope="session", params=INSTRUCTION_SETS)
def compiled(request):
    return instruction_set(request.param)


@pytest.fixture
def sx():
    """The package; the number of threads is put back afterwards."""
    threads = softmax_ext.get_num_threads()
    yield softmax_ext
    softmax_ext.set_num_threads(threads)


@pytest.fixture
def rng():
    return np.random.default_rng(2024)
