"""The compiled drivers; see _kernels.pyx. Their arguments come checked."""

from typing import Any, final

from numpy.typing import NDArray
from typing_extensions import disjoint_base

from .results import LinearCrossEntropyResult

_Array = NDArray[Any]

COMPILER: str
LEAF_FLAGS: str

def compiled_isas() -> tuple[str, ...]: ...
def available_isas() -> tuple[str, ...]: ...
def wrap_rows(rows: _Array, n: int) -> int: ...
def following(rows: object, n: int) -> _Array | None: ...
def overlap(a: _Array, *others: _Array) -> bool: ...
def pool_size() -> int: ...
def run_arithmetic(isa: str, f64: bool, steps: int) -> int: ...
def run_memory(isa: str, src: _Array, to: _Array | None, repeats: int) -> None: ...

@final
class Target:
    @property
    def arrays(self) -> list[_Array]: ...
    def __init__(
        self,
        array: _Array,
        hard: bool,
        n_classes: int,
        weight: _Array | None,
        sample_weight: _Array | None,
        ignore_index: int,
        label_smoothing: float,
    ) -> None: ...
    def scan(self, rows: _Array | None = None) -> tuple[float, int]: ...
    def set_total(self, total: float) -> None: ...

@disjoint_base
class Job: ...

@disjoint_base
class RowsJob(Job): ...

@final
class Softmax(Job):
    def __init__(
        self,
        isa: str,
        mode: int,
        shape: tuple[int, ...],
        x: _Array,
        x_strides: tuple[int, ...],
        out: _Array | None,
        out_strides: tuple[int, ...],
        lse: _Array | None,
    ) -> None: ...
    def run(self, step: int, threads: int) -> None: ...

@final
class Divergence(Job):
    def __init__(
        self,
        isa: str,
        what: int,
        shape: tuple[int, ...],
        x: _Array,
        x_strides: tuple[int, ...],
        y: _Array,
        y_strides: tuple[int, ...],
        out: _Array,
    ) -> None: ...
    def run(self, step: int, threads: int) -> None: ...

@final
class Terms(Job):
    def __init__(self, isa: str, what: int, x: _Array, y: _Array, out: _Array) -> None: ...
    def run(self, step: int, threads: int) -> None: ...

@final
class SmallSoftmax:
    def __init__(self, isa: str) -> None: ...
    def __call__(self, mode: int, given: Any, axis: Any) -> _Array | None: ...

@final
class SmallDivergence:
    def __init__(self, isa: str) -> None: ...
    def __call__(self, what: int, given_x: Any, given_y: Any, axis: Any) -> Any: ...

@final
class SmallTerms:
    def __init__(self, isa: str) -> None: ...
    def __call__(self, what: int, given_x: Any, given_y: Any) -> Any: ...

@final
class CrossEntropy(RowsJob):
    def __init__(
        self, isa: str, x: _Array, t: Target, out: _Array | None, losses: _Array | None
    ) -> None: ...
    def run(self, step: int, threads: int) -> tuple[float, int]: ...

@final
class SmallCrossEntropy:
    def __init__(self, isa: str) -> None: ...
    def __call__(
        self,
        logits: object,
        target: object,
        reduction: object,
        ignore_index: object,
        label_smoothing: object,
        with_grad: bool,
    ) -> tuple[Any, Any] | None: ...

@final
class SmallGradient:
    def __init__(self, isa: str, result: type[LinearCrossEntropyResult]) -> None: ...
    def __call__(
        self,
        X: object,
        W: object,
        b: object,
        target: object,
        ignore_index: object,
        label_smoothing: object,
        reduction: object,
        x_scale: object,
        rows: object,
        out: object,
        threads: int,
    ) -> LinearCrossEntropyResult | None: ...

@disjoint_base
class Pass(RowsJob):
    @property
    def row_block(self) -> int: ...
    def __init__(
        self,
        isa: str,
        purpose: int,
        n_rows: int,
        W: _Array,
        b: _Array | None,
        x_scale: float,
        rows: _Array | None,
        target: Target | None,
        out: _Array | None,
        losses: _Array | None,
    ) -> None: ...

@final
class LinearPass(Pass):
    next_rows: _Array | None
    @property
    def panelled(self) -> bool: ...
    def __init__(
        self,
        isa: str,
        purpose: int,
        X: _Array,
        W: _Array,
        b: _Array | None,
        x_scale: float,
        rows: _Array | None,
        target: Target | None,
        out: _Array | None,
        losses: _Array | None,
        dX: _Array | None,
    ) -> None: ...
    def run(self, work: int, threads: int) -> tuple[float, int, int, int]: ...
    def run_gradient(
        self, work: int, threads: int, dW: _Array, db: _Array | None
    ) -> tuple[float, int, int, int]: ...

@final
class SparsePass(Pass):
    def __init__(
        self,
        isa: str,
        purpose: int,
        data: _Array,
        indices: _Array,
        indptr: _Array,
        W: _Array,
        b: _Array | None,
        x_scale: float,
        rows: _Array | None,
        target: Target | None,
        out: _Array | None,
        losses: _Array | None,
    ) -> None: ...
    def run(self, work: int, threads: int) -> tuple[float, int, int, int]: ...
    def first_bad(self) -> tuple[int, int]: ...

@final
class SparseGradient(RowsJob):
    @property
    def in_parts(self) -> bool: ...
    def __init__(
        self,
        p: SparsePass,
        dW: _Array,
        db: _Array | None,
        strip_rows: int,
        most_rows: int,
        bounds: list[int],
    ) -> None: ...
    def run(self, threads: int) -> tuple[float, int, int, int]: ...

@final
class SmallForward:
    def __init__(self, isa: str) -> None: ...
    def __call__(self, job: int, X: Any, W: Any, b: Any, x_scale: Any) -> _Array | None: ...

@final
class PanelGradient(RowsJob):
    def __init__(self, p: LinearPass, dW: _Array) -> None: ...
    def run(self, threads: int, db: _Array | None) -> tuple[float, int, int, int]: ...
