"""The workloads: an operation, a size named after its use, and what it costs at least."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Workload:
    """One job every contender does.

    Attributes
    ----------
    op : str
        Name of the operation; the kernel's name, or "epoch".
    size : str
        Name of the size, after its use.
    rows, features, classes : int
        N, D, C. The functions of logits have no D: `features` is 0.
    dtype, x_dtype : str
        Dtype of the computation and of the stored X.
    batch : int
        Rows of one minibatch gathered by ``rows=``; 0 for all rows.
    cold : bool
        Whether each call gathers other rows, so that they come from memory.
    with_dX : bool
        Whether the gradient with respect to X is asked for too.
    small : bool
        Whether this is a call whose cost is the call itself: then no ``out=``.
    columns : bool
        Whether the logits lie class by class, as for a softmax over the first axis.
    """

    op: str
    size: str
    rows: int
    features: int
    classes: int
    dtype: str = "float32"
    x_dtype: str = "float32"
    batch: int = 0
    cold: bool = False
    with_dX: bool = False
    small: bool = False
    columns: bool = False

    @property
    def name(self) -> str:
        return f"{self.op}/{self.size}"

    @property
    def shape(self) -> str:
        """The sizes as people write them: 60000 x 784 x 10."""
        sizes = [self.batch or self.rows, self.features, self.classes]
        if self.op == "epoch":
            sizes[0] = self.rows
        return " x ".join(str(size) for size in sizes if size)

    @property
    def rows_per_call(self) -> int:
        return self.batch if self.batch and self.op != "epoch" else self.rows

    @property
    def flops(self) -> int:
        """Useful floating-point operations: the matrix products, nothing else."""
        product = 2 * self.rows_per_call * self.features * self.classes
        if self.op == "linear_cross_entropy_with_grad":
            return product * (3 if self.with_dX else 2)
        return 2 * product if self.op == "epoch" else product

    @property
    def read(self) -> int:
        """Bytes of the inputs, each read once."""
        item = np.dtype(self.dtype).itemsize
        n, c = self.rows_per_call, self.classes
        if not self.features:
            return item * n * c * (2 if self.op == "kl_divergence" else 1)
        x_bytes = n * self.features * np.dtype(self.x_dtype).itemsize
        labels = self.op.startswith("linear_cross") or self.op == "epoch"
        return x_bytes + self.features * c * item + 8 * n * labels

    @property
    def written(self) -> int:
        """Bytes of the outputs, each written once."""
        item = np.dtype(self.dtype).itemsize
        n, c = self.rows_per_call, self.classes
        if self.op in ("linear_cross_entropy_with_grad", "epoch"):
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
        return replace(
            self,
            rows=min(self.rows, 96),
            features=min(self.features, 20),
            classes=min(self.classes, 13),
            batch=min(self.batch, 32),
        )


def _linear_grad(size: str, rows: int, features: int, classes: int, **more: object) -> Workload:
    return Workload("linear_cross_entropy_with_grad", size, rows, features, classes, **more)  # type: ignore[arg-type]


#: Every workload, in the order of the table.
WORKLOADS: tuple[Workload, ...] = (
    _linear_grad("mnist-10", 60000, 784, 10),
    _linear_grad("mnist-10-uint8", 60000, 784, 10, x_dtype="uint8"),
    _linear_grad("mnist-10-batch-warm", 60000, 784, 10, batch=256),
    _linear_grad("mnist-10-batch-cold", 60000, 784, 10, batch=256, cold=True),
    _linear_grad("binary-2", 60000, 784, 2),
    _linear_grad("images-3", 60000, 784, 3),
    _linear_grad("images-16", 60000, 784, 16),
    _linear_grad("images-32", 60000, 784, 32),
    _linear_grad("images-100", 60000, 784, 100),
    _linear_grad("covtype-7", 581012, 54, 7),
    _linear_grad("probe-100", 60000, 512, 100),
    _linear_grad("text-1000", 8192, 768, 1000),
    _linear_grad("text-1000-float64", 8192, 768, 1000, dtype="float64", x_dtype="float64"),
    _linear_grad("vocab-50k", 1024, 768, 50257, with_dX=True),
    Workload("linear_cross_entropy", "mnist-10", 60000, 784, 10),
    Workload("linear", "mnist-10-test", 10000, 784, 10),
    Workload("predict", "mnist-10-test", 10000, 784, 10),
    Workload("predict_proba", "mnist-10-test", 10000, 784, 10),
    Workload("predict_proba", "one-image", 1, 784, 10, small=True),
    Workload("softmax", "small-8x10", 8, 0, 10, small=True),
    *(
        Workload(op, f"rows-{rows}x{classes}", rows, 0, classes)
        for op in ("softmax", "log_softmax", "logsumexp")
        for rows, classes in (
            (4096, 10),
            (65536, 10),
            (65536, 32),
            (4096, 100),
            (4096, 1000),
            (256, 50257),
        )
    ),
    *(
        Workload(op, f"columns-{rows}x{classes}", rows, 0, classes, columns=True)
        for op in ("softmax", "logsumexp")
        for rows, classes in ((65536, 10), (4096, 100), (4096, 1000), (256, 50257))
    ),
    Workload("cross_entropy", "rows-65536x10", 65536, 0, 10),
    Workload("cross_entropy", "rows-4096x1000", 4096, 0, 1000),
    Workload("cross_entropy_with_grad", "rows-65536x10", 65536, 0, 10),
    Workload("cross_entropy_with_grad", "rows-4096x1000", 4096, 0, 1000),
    Workload("entropy", "rows-65536x10", 65536, 0, 10),
    Workload("kl_divergence", "rows-65536x10", 65536, 0, 10),
    Workload("epoch", "mnist-10", 60000, 784, 10, batch=256),
    Workload("epoch", "mnist-10-uint8", 60000, 784, 10, batch=256, x_dtype="uint8"),
)


def select(patterns: list[str], *, tiny: bool = False, whole: bool = False) -> list[Workload]:
    """Return the workloads whose name, or size, starts with one of the patterns.

    Without patterns: all of them. With `whole`, names have to be equal.

    Raises
    ------
    ValueError
        If a pattern fits no workload.
    """

    def fits(workload: Workload, pattern: str) -> bool:
        if whole:
            return workload.name == pattern
        return workload.name.startswith(pattern) or workload.size.startswith(pattern)

    for pattern in patterns:
        if not any(fits(workload, pattern) for workload in WORKLOADS):
            raise ValueError(f"only: no workload starts with {pattern!r} (see --list)")
    chosen = [w for w in WORKLOADS if not patterns or any(fits(w, p) for p in patterns)]
    return [w.tiny() for w in chosen] if tiny else chosen
