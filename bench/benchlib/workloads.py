"""The table of jobs: an operation, a size named after its use, and what it costs at least."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

GRADIENT = "linear_cross_entropy_with_grad"
HESSIAN = "linear_cross_entropy_hvp"


@dataclass(frozen=True)
class Workload:
    """One job every contender does."""

    #: The kernel's name, or "epoch"; and the name of the size, after its use.
    op: str
    size: str
    #: N, D, C. The functions of logits have no D: `features` is 0.
    rows: int
    features: int
    classes: int
    #: Of the computation, and of the stored X.
    dtype: str = "float32"
    x_dtype: str = "float32"
    #: Rows of one minibatch gathered by ``rows=``; 0 for all rows.
    batch: int = 0
    #: Each call gathers other rows, so that they come from memory.
    cold: bool = False
    with_dX: bool = False
    #: The cost is that of the call itself: no ``out=``.
    small: bool = False
    #: The classes are the first axis of the logits.
    columns: bool = False
    #: Entries in each row of a sparse X; 0 for a dense one. Words as frequent as in a language.
    entries: int = 0
    zipf: bool = False

    @property
    def name(self) -> str:
        return f"{self.op}/{self.size}"

    @property
    def rows_per_call(self) -> int:
        return self.batch if self.batch and self.op != "epoch" else self.rows

    @property
    def shape(self) -> str:
        """The sizes as people write them: 60000 x 784 x 10."""
        sizes = self.rows_per_call, self.features, self.classes
        return " x ".join(str(size) for size in sizes if size)

    @property
    def flops(self) -> int:
        """Useful floating-point operations: the matrix products, nothing else."""
        products = 2 + self.with_dX if self.op in (GRADIENT, "epoch") else 1
        products = 3 if self.op == HESSIAN else products
        per_row = (self.entries or self.features) * self.classes
        return 2 * products * self.rows_per_call * per_row

    @property
    def read(self) -> int:
        """Bytes of the inputs, each read once."""
        item = np.dtype(self.dtype).itemsize
        n, c = self.rows_per_call, self.classes
        if not self.features:
            return item * n * c * (2 if self.op == "kl_divergence" else 1)
        # An entry of a sparse X has an index of 4 bytes.
        x_bytes = n * (self.entries * (4 + item) or self.features * np.dtype(self.x_dtype).itemsize)
        labels = self.op.startswith("linear_cross") or self.op == "epoch"
        weights = self.features * c * item * (2 if self.op == HESSIAN else 1)
        return x_bytes + weights + 8 * n * labels

    @property
    def written(self) -> int:
        """Bytes of the outputs, each written once."""
        item = np.dtype(self.dtype).itemsize
        n, c = self.rows_per_call, self.classes
        if self.op in (GRADIENT, HESSIAN, "epoch"):
            return item * self.features * (c + self.with_dX * n)
        if self.op in ("softmax", "log_softmax", "cross_entropy_with_grad"):
            return item * n * c
        if self.features:
            wide = self.op in ("linear", "predict_proba")
            return item * n * c if wide else 8 * n * (self.op == "predict")
        return item * n

    @property
    def bytes(self) -> int:
        """Least memory traffic."""
        return self.read + self.written

    def tiny(self) -> Workload:
        """Return the same job at a size that only exercises the machinery."""
        most = {"rows": 96, "features": 20, "classes": 13, "batch": 32, "entries": 5}
        return replace(self, **{k: min(v, getattr(self, k)) for k, v in most.items()})


_gradient = partial(Workload, GRADIENT)

#: Every job, in the order of the table.
WORKLOADS: tuple[Workload, ...] = (
    _gradient("mnist-10", 60000, 784, 10),
    _gradient("mnist-10-uint8", 60000, 784, 10, x_dtype="uint8"),
    _gradient("mnist-10-float16", 60000, 784, 10, x_dtype="float16"),
    _gradient("mnist-10-batch-warm", 60000, 784, 10, batch=256),
    _gradient("mnist-10-batch-cold", 60000, 784, 10, batch=256, cold=True),
    _gradient("binary-2", 60000, 784, 2),
    _gradient("images-3", 60000, 784, 3),
    _gradient("images-16", 60000, 784, 16),
    _gradient("images-32", 60000, 784, 32),
    _gradient("images-100", 60000, 784, 100),
    _gradient("covtype-7", 581012, 54, 7),
    _gradient("probe-100", 60000, 512, 100),
    _gradient("text-1000", 8192, 768, 1000),
    _gradient("text-1000-float64", 8192, 768, 1000, dtype="float64", x_dtype="float64"),
    _gradient("vocab-50k", 1024, 768, 50257, with_dX=True),
    _gradient("sparse-2", 20000, 50000, 2, entries=100),
    _gradient("sparse-20", 20000, 50000, 20, entries=100),
    _gradient("sparse-100", 20000, 50000, 100, entries=100),
    _gradient("sparse-20-zipf", 20000, 50000, 20, entries=100, zipf=True),
    Workload(HESSIAN, "mnist-10", 60000, 784, 10),
    Workload(HESSIAN, "sparse-20", 20000, 50000, 20, entries=100),
    Workload("linear_cross_entropy", "mnist-10", 60000, 784, 10),
    Workload("linear", "mnist-10-test", 10000, 784, 10),
    Workload("predict", "mnist-10-test", 10000, 784, 10),
    Workload("predict", "many-800", 100000, 64, 800),
    Workload("predict_proba", "mnist-10-test", 10000, 784, 10),
    Workload("predict_proba", "one-image", 1, 784, 10, small=True),
    Workload("softmax", "small-8x10", 8, 0, 10, small=True),
    *(
        Workload(op, f"rows-{rows}x{classes}", rows, 0, classes)
        for op in ("softmax", "log_softmax", "logsumexp")
        for rows, classes in (
            (4096, 10), (65536, 10), (65536, 32), (4096, 100), (4096, 1000), (256, 50257),
        )
    ),
    *(
        Workload(op, f"columns-{rows}x{classes}", rows, 0, classes, columns=True)
        for op in ("softmax", "logsumexp")
        for rows, classes in ((65536, 10), (4096, 100), (4096, 1000), (256, 50257))
    ),
    *(
        Workload(op, f"rows-{rows}x{classes}", rows, 0, classes)
        for op in ("cross_entropy", "cross_entropy_with_grad")
        for rows, classes in ((65536, 10), (4096, 1000))
    ),
    Workload("entropy", "rows-65536x10", 65536, 0, 10),
    Workload("kl_divergence", "rows-65536x10", 65536, 0, 10),
    Workload("epoch", "mnist-10", 60000, 784, 10, batch=256),
    Workload("epoch", "mnist-10-uint8", 60000, 784, 10, batch=256, x_dtype="uint8"),
)  # fmt: skip

#: Jobs whose memory is measured too: they have many more logits than inputs.
MEMORY = (f"{GRADIENT}/text-1000", f"{GRADIENT}/vocab-50k", "predict/many-800")


def select(patterns: list[str], *, tiny: bool = False) -> list[Workload]:
    """Return the jobs whose name, or size, starts with one of the patterns; without any, all.

    Raises
    ------
    ValueError
        If a pattern fits no job.
    """

    def fits(workload: Workload, pattern: str) -> bool:
        return workload.name.startswith(pattern) or workload.size.startswith(pattern)

    for pattern in patterns:
        if not any(fits(workload, pattern) for workload in WORKLOADS):
            raise ValueError(f"only: no workload starts with {pattern!r} (see --list)")
    chosen = [w for w in WORKLOADS if not patterns or any(fits(w, p) for p in patterns)]
    return [w.tiny() for w in chosen] if tiny else chosen
