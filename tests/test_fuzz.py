"""The programs of `tests/fuzz`, a few seconds of each; `make fuzz` and `make soak` do more."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import softmax_ext

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import mutated_files
import random_calls
import soak


def test_random_calls_give_what_the_reference_gives():
    with np.errstate(all="ignore"):
        counts = random_calls.fuzz(2024, range(1500))
    assert counts.total() == 1500
    # Each function was called with what it takes, and with what it refuses or what is not finite.
    names = {name for name, _ in counts}
    assert names == {"softmax", "log_softmax", "logsumexp", "entropy", "kl_divergence",
                     "cross_entropy", "cross_entropy_with_grad", "linear", "predict",
                     "predict_proba", "linear_cross_entropy", "linear_cross_entropy_hvp",
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


def test_changed_files_are_refused_or_read_as_they_were():
    counts = mutated_files.fuzz(2024, range(1200))
    assert counts.total() == 1200
    for name in ("model", "checkpoint", "idx", "idx.gz"):
        assert counts[name, "refused"] > 100


def test_a_reader_without_a_digest_is_found(monkeypatch):
    class NoDigest:
        def update(self, data):
            pass

        def hexdigest(self):
            return "0" * 64

    monkeypatch.setattr(hashlib, "sha256", NoDigest)
    monkeypatch.setattr(zipfile, "crc32", lambda data, value=0: 0, raising=False)
    with pytest.raises(AssertionError, match="--seed 3 --only"):
        mutated_files.fuzz(3, range(2000))


@pytest.mark.parametrize(
    ("name", "times"), [("kills", 8), ("forks", 8), ("interrupts", 5), ("memory", 4000)]
)
def test_soaks(name, times):
    done = subprocess.run(
        [sys.executable, soak.__file__, name, "--times", str(times)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name}: {times} ")
