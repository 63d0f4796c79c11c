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
def emulated_isas() -> tuple[str, ...]: ...
def why_no_tiles() -> str: ...
def wrap_rows(rows: _Array, n: int) -> int: ...
def following(rows: object, n: int) -> _Array | None: ...
def overlap(a: _Array, *others: _Array) -> bool: ...
def pool_size() -> int: ...
def run_arithmetic(isa: str, f64: bool, steps: int) -> int: ...
def run_tiles(isa: str, steps: int) -> int: ...
def tile_cost(isa: str, f64: bool, of_bytes: bool, d: int, c: int) -> int: ...
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

@final
class Examples:
    def __init__(
        self, X: _Array | tuple[Any, ...], x_scale: float, target: Target | None
    ) -> None: ...
    def meet(self, a: _Array) -> bool: ...
    def weigh(self, rows: _Array | None = None) -> tuple[float, int]: ...

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
class CrossEntropy(RowsJob):
    def __init__(
        self,
        isa: str,
        x: _Array,
        t: Target,
        denominator: float,
        out: _Array | None,
        losses: _Array | None,
    ) -> None: ...
    def run(self, step: int, threads: int) -> tuple[float, int]: ...

@final
class Quick:
    def __init__(self, isa: str, result: type[LinearCrossEntropyResult]) -> None: ...
    def softmax(self, mode: int, given: object, axis: object) -> Any: ...
    def divergence(self, what: int, given_x: object, given_y: object, axis: object) -> Any: ...
    def terms(self, what: int, given_x: object, given_y: object) -> Any: ...
    def cross_entropy(
        self,
        logits: object,
        target: object,
        reduction: object,
        ignore_index: object,
        label_smoothing: object,
        with_grad: bool,
    ) -> tuple[Any, Any] | None: ...
    def forward(
        self, job: int, X: object, W: object, b: object, x_scale: object
    ) -> _Array | None: ...
    def examples(
        self,
        X: object,
        W: object,
        target: object,
        weight: object,
        sample_weight: object,
        ignore_index: object,
        label_smoothing: object,
        x_scale: object,
    ) -> Examples | None: ...
    def gradient(
        self,
        examples: Examples,
        W: object,
        b: object,
        reduction: object,
        rows: object,
        out: object,
        threads: int,
    ) -> LinearCrossEntropyResult | None: ...

@disjoint_base
class Pass(RowsJob):
    @property
    def row_block(self) -> int: ...
    @property
    def n(self) -> int: ...
    def __init__(
        self,
        isa: str,
        purpose: int,
        examples: Examples,
        W: _Array,
        b: _Array | None,
        rows: _Array | None,
        denominator: float,
    ) -> None: ...
    def work(self) -> int: ...
    def forward_step(self) -> int: ...

@final
class LinearPass(Pass):
    next_rows: _Array | None
    @property
    def panelled(self) -> bool: ...
    def __init__(
        self,
        isa: str,
        purpose: int,
        examples: Examples,
        W: _Array,
        b: _Array | None,
        rows: _Array | None,
        denominator: float,
    ) -> None: ...
    def gradient_step(self) -> int: ...
    def run(
        self, threads: int, out: _Array | None, losses: _Array | None
    ) -> tuple[list[float], list[int], int, int]: ...
    def run_gradient(
        self,
        threads: int,
        losses: _Array | None,
        dW: _Array,
        db: _Array | None,
        dX: _Array | None,
    ) -> tuple[list[float], list[int], int, int]: ...

@final
class SparsePass(Pass):
    def __init__(
        self,
        isa: str,
        purpose: int,
        examples: Examples,
        W: _Array,
        b: _Array | None,
        rows: _Array | None,
        denominator: float,
    ) -> None: ...
    def work(self) -> int: ...
    def run(
        self, threads: int, out: _Array | None, losses: _Array | None
    ) -> tuple[list[float], list[int], int, int]: ...
    def first_bad(self) -> tuple[int, int]: ...

@final
class SparseGradient(RowsJob):
    @property
    def in_parts(self) -> bool: ...
    def __init__(
        self,
        p: SparsePass,
        losses: _Array | None,
        dW: _Array,
        db: _Array | None,
        strip_rows: int,
        most_rows: int,
        bounds: list[int],
    ) -> None: ...
    def run(self, threads: int) -> tuple[list[float], list[int], int, int]: ...

@final
class PanelGradient(RowsJob):
    def __init__(self, p: LinearPass, dW: _Array) -> None: ...
    def run(self, threads: int, db: _Array | None) -> tuple[list[float], list[int], int, int]: ...
