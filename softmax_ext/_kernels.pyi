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

@final
class Softmax:
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
    def run(self, lo: int, hi: int) -> None: ...

@final
class SmallSoftmax:
    def __init__(self, isa: str) -> None: ...
    def __call__(self, mode: int, given: Any, axis: Any) -> _Array | None: ...

@final
class CrossEntropy:
    def __init__(
        self, isa: str, x: _Array, t: Target, out: _Array | None, losses: _Array | None
    ) -> None: ...
    def run(self, lo: int, hi: int) -> tuple[float, int]: ...

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
    ) -> LinearCrossEntropyResult | None: ...

@disjoint_base
class LinearPass:
    shared: bool
    then: _Array | None
    @property
    def panelled(self) -> bool: ...
    @property
    def row_block(self) -> int: ...
    def __init__(
        self,
        isa: str,
        job: int,
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
    def run(self, lo: int, hi: int, acc: Accumulator | None = None) -> tuple[float, int, int]: ...
    def finish(self, acc: Accumulator, dW: _Array, db: _Array | None) -> None: ...
    def add_to(self, acc: Accumulator, dW: _Array) -> None: ...
    def finish_db(self, acc: Accumulator, db: _Array) -> None: ...

@final
class SparsePass(LinearPass):
    def __init__(
        self,
        isa: str,
        job: int,
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
    def run(  # type: ignore[override]
        self, lo: int, hi: int, acc: Accumulator | None = None
    ) -> tuple[float, int, int, int]: ...
    def first_bad(self) -> tuple[int, int]: ...

@final
class SparseGradient:
    @property
    def n_strips(self) -> int: ...
    @property
    def in_parts(self) -> bool: ...
    def __init__(
        self,
        p: SparsePass,
        dW: _Array,
        with_db: bool,
        strip_rows: int,
        most_rows: int,
        bounds: list[int],
    ) -> None: ...
    def clear(self) -> None: ...
    def next_part(self) -> bool: ...
    def losses(self, strip: int) -> tuple[float, int, int, int]: ...
    def gradients(self, i: int) -> bool: ...
    def finish_part(self) -> None: ...
    def finish(self, db: _Array | None) -> None: ...

@final
class SmallForward:
    def __init__(self, isa: str) -> None: ...
    def __call__(self, job: int, X: Any, W: Any, b: Any, x_scale: Any) -> _Array | None: ...

@final
class Accumulator:
    def __init__(self, job: LinearPass, with_dW: bool, with_db: bool) -> None: ...
    def add(self, other: Accumulator) -> None: ...

@final
class PanelGradient:
    @property
    def n_groups(self) -> int: ...
    @property
    def n_strips(self) -> int: ...
    @property
    def bad(self) -> int: ...
    def __init__(self, p: LinearPass, dW: _Array, with_db: bool) -> None: ...
    def next_block(self) -> bool: ...
    def logits(self, group: int) -> None: ...
    def losses(self, strip: int) -> tuple[float, int]: ...
    def gradients(self, group: int) -> None: ...
    def finish_block(self) -> None: ...
    def finish(self, db: _Array | None) -> None: ...
