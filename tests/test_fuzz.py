"""The random calls of `tests/fuzz`, a few seconds of them; `make fuzz` makes more."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import softmax_ext

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import random_calls


def test_random_calls_give_what_the_reference_gives():
    with np.errstate(all="ignore"):
        counts = random_calls.fuzz(2024, range(1500))
    assert counts.total() == 1500
    # Each function was called with what it takes, and with what it refuses or what is not finite.
    names = {name for name, _ in counts}
    assert names == {"softmax", "log_softmax", "logsumexp", "entropy", "kl_divergence",
                     "cross_entropy", "cross_entropy_with_grad", "linear", "predict",
                     "predict_proba", "linear_cross_entropy",
                     "linear_cross_entropy_with_grad"}  # fmt: skip
    for name in names:
        assert counts[name, "finite"] > 10
        assert counts[name, "special"] + counts[name, "ValueError"] > 0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("softmax", lambda result: result * 1.001),
        ("linear", lambda result: np.nextafter(result, 9)),
        ("predict_proba", lambda result: np.where(result < 0.01, np.nan, result)),
    ],
)
def test_a_wrong_kernel_is_found(monkeypatch, name, wrong):
    """By its numbers, by its bits on another number of threads, or by NaN."""
    right = getattr(softmax_ext.Kernels, name)
    calls = []

    def broken(self, *args, **kwargs):
        result = right(self, *args, **kwargs)
        calls.append(name)
        return result if len(calls) % 2 or kwargs.get("out") is not None else wrong(result)

    monkeypatch.setattr(softmax_ext.Kernels, name, broken)
    with pytest.raises(AssertionError, match="call .* of seed 3: --seed 3 --only"):
        random_calls.fuzz(3, range(500))
