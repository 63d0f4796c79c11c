"""Model files, checkpoints and IDX files with some bytes changed: refused, or read as they were.

    python tests/fuzz/mutated_files.py --files 100000 --seed 7
    python tests/fuzz/mutated_files.py --seed 7 --only 81234 --keep wrong.npz

A file is read right if it raises the one error that its reader promises. A model or checkpoint may
come out whole only with the arrays that went in, as its digest promises; what is made of an IDX
file has the size that the file has. Memory is bounded: the address space is limited.
"""

from __future__ import annotations

import argparse
import gzip
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import softmax_ext as sx
from softmax_ext.datasets import read_idx
from softmax_ext.training import checkpoint

#: Beyond what the process has at the start; the files have a few kilobytes.
MOST_BYTES = 256 << 20


def contents(path):
    """The arrays of a model file, a checkpoint or an IDX file."""
    if path.name == "model":
        model = sx.SoftmaxModel.load(path)
        return [model.W, model.b, model.classes, np.array(model.x_scale)]
    if path.name == "checkpoint":
        entries = checkpoint.read(path)
        return [entries[name] for name in sorted(entries)]
    return [read_idx(path)]


def originals(folder):
    """One of each, written as the package writes them."""
    rng = np.random.default_rng(0)
    model = sx.SoftmaxModel(rng.normal(size=(6, 3)), np.zeros(3), ["cat", "chicken", "dog"], 0.5)
    model.save(folder / "model")
    trainer = sx.Trainer(epochs=1, momentum=0.9, checkpoint=folder / "checkpoint")
    trainer.fit(model, rng.normal(size=(20, 6)), rng.integers(0, 3, 20))
    idx = struct.pack(">HBBII", 0, 8, 2, 5, 7) + bytes(range(35))
    (folder / "idx").write_bytes(idx)
    (folder / "idx.gz").write_bytes(gzip.compress(idx, mtime=0))
    return [folder / name for name in ("model", "checkpoint", "idx", "idx.gz")]


def mutated(rng, data):
    """The bytes, with some changed, left out, put in, exchanged or written twice."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place, n = rng.integers(len(data) + 1), rng.integers(1, 40)
        other = rng.integers(len(data) + 1)
        match rng.integers(7):
            case 0 if place < len(data):
                data[place] ^= 1 << rng.integers(8)
            case 1:
                data[place : place + n] = rng.bytes(n)
            case 2:
                del data[place : place + n]
            case 3:
                data[place:place] = data[other : other + n]
            case 4:
                del data[place:]
            case 5:  # a size or an offset
                number = int(rng.choice([0, 1, 255, 2**16, 2**31 - 1, 2**32 - 1, 2**63 - 1]))
                size = int(rng.choice([2, 4, 8]))
                order = "little" if rng.random() < 0.7 else "big"
                data[place : place + size] = (number % 256**size).to_bytes(size, order)
            case _:
                data[place : place + n] = data[other : other + n]
        if not data:
            break
    return bytes(data)


def fuzz(seed, numbers, seconds=float("inf"), keep=None):
    """Read the files; AssertionError names the first that is wrong. Returns how many of each."""
    counts = Counter()
    end = time.monotonic() + seconds
    refusals = (sx.ModelFormatError, sx.DataFormatError)
    with tempfile.TemporaryDirectory() as name:
        paths = originals(Path(name))
        whole = {path: (path.read_bytes(), contents(path)) for path in paths}
        for number in numbers:
            rng = np.random.default_rng([seed, number])
            path = paths[rng.integers(len(paths))]
            data, wanted = whole[path]
            changed = mutated(rng, data)
            path.write_bytes(changed)
            if keep:
                keep.write_bytes(changed)
            try:
                arrays = contents(path)
            except refusals:
                counts[path.name, "refused"] += 1
            except Exception as error:
                raise AssertionError(f"--seed {seed} --only {number}: {error!r}") from error
            else:
                same = [a.tobytes() for a in arrays] == [a.tobytes() for a in wanted]
                if path.name.startswith("idx"):
                    same = arrays[0].nbytes <= len(changed) * 1100  # gzip makes no more of a byte
                assert same, f"--seed {seed} --only {number}: other arrays came out"
                counts[path.name, "read"] += 1
            if time.monotonic() > end:
                break
    return counts


def limit_memory():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--only", type=int, help="read this file alone")
    parser.add_argument("--keep", type=Path, help="where to write the last file to")
    options = parser.parse_args()
    limit_memory()
    numbers = range(options.files) if options.only is None else [options.only]
    counts = fuzz(options.seed, numbers, options.seconds, options.keep)
    print(f"{counts.total()} files, 0 wrong")
    for (name, kind), count in sorted(counts.items()):
        print(f"{count:9} {name}, {kind}")


if __name__ == "__main__":
    sys.exit(main())
