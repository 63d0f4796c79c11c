"""The machine's ceilings. No speed is asserted, only that the loops do what is counted."""

from __future__ import annotations

import numpy as np
import pytest

import softmax_ext
from softmax_ext import _kernels
from softmax_ext.ceiling import Ceiling

ISAS = softmax_ext.available_isas()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
def test_ceilings_are_measured(isa, threads):
    with Ceiling(threads, isa) as ceiling:
        assert ceiling.isa == isa
        # Not limits on speed: a loop left out by the compiler, or never run, would be far outside.
        for dtype in ("float32", np.float64):
            assert 1e7 < ceiling.arithmetic(dtype) < 1e14
        for size in (1, 1 << 14, 1 << 20, 1 << 14):
            assert 1e6 < ceiling.read(size) < 1e14
            assert 1e6 < ceiling.copy(size) < 1e14


def test_by_default_it_is_the_best_instruction_set():
    with Ceiling() as ceiling:
        assert ceiling.isa == ISAS[0]


def test_memory_is_read_where_little_is_written_and_else_copied(monkeypatch):
    with Ceiling() as ceiling:
        monkeypatch.setattr(ceiling, "read", lambda size: ("read", size))
        monkeypatch.setattr(ceiling, "copy", lambda size: ("copy", size))
        assert ceiling.memory(1000, 10) == ("read", 1010)
        assert ceiling.memory(1000, 1000) == ("copy", 2000)


@pytest.mark.parametrize("isa", ISAS)
def test_operations_are_counted_by_step_and_lane(isa):
    once = _kernels.run_arithmetic(isa, False, 1)
    assert once == 2 * 12 * {"avx512": 16, "avx2": 8}.get(isa, 4)
    assert _kernels.run_arithmetic(isa, False, 1000) == 1000 * once
    assert _kernels.run_arithmetic(isa, True, 1000) == 500 * once


def test_operations_of_tiles_are_counted_by_step():
    """Four tiles of 16 x 64 bytes times 64 x 16, a multiplication and an addition each."""
    assert _kernels.run_tiles("amx-emulated", 3) == 3 * 4 * 2 * 16 * 64 * 16
    assert _kernels.run_tiles("baseline", 3) == 0


def test_products_may_hope_for_the_tiles_where_these_are_faster(monkeypatch):
    with Ceiling(1, "amx-emulated") as ceiling:
        assert 1e6 < ceiling._tiles() < 1e16
        monkeypatch.setattr(ceiling, "arithmetic", lambda dtype: 100.0)
        for tiles, of_bytes, of_floats in ((6000.0, 1500.0, 500.0), (1000.0, 250.0, 100.0)):
            monkeypatch.setattr(ceiling, "_tiles", lambda tiles=tiles: tiles)
            assert ceiling.product("float32", "uint8", 784, 10) == of_bytes
            assert ceiling.product("float32", "float32", 784, 100) == of_floats
            assert ceiling.product("float64", "uint8", 784, 10) == 100
    with Ceiling(1, "baseline") as ceiling:
        monkeypatch.setattr(ceiling, "arithmetic", lambda dtype: 100.0)
        assert ceiling.product("float32", "uint8", 784, 10) == 100


def test_memory_is_copied_as_told():
    source, to = np.arange(1000, dtype=np.uint8), np.zeros(1000, np.uint8)
    _kernels.run_memory(ISAS[0], source, None, 3)
    assert not to.any()
    _kernels.run_memory(ISAS[0], source, to, 1)
    np.testing.assert_array_equal(source, to)


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="no instruction set 'mmx'"), Ceiling(isa="mmx") as ceiling:
        ceiling.arithmetic()
