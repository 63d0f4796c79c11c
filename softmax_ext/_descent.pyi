"""The compiled inner loops of fits with an L1 penalty; see _descent.pyx."""

from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]

def sweep_moments(
    A: _Array,
    factors: _Array,
    V: _Array,
    B: _Array,
    bound: _Array,
    G: _Array,
    X: _Array,
    H: _Array,
    Y: _Array,
    T: _Array,
    v: _Array,
    l1: _Array,
    l2: _Array,
    grouped: bool,
    rounds: int,
    work: _Array,
) -> float: ...
def transpose(
    data: _Array, indices: _Array, indptr: _Array, begins: _Array, values: _Array, rows: _Array
) -> None: ...
def column_curvatures(
    values: _Array, rows: _Array, begins: _Array, SP: _Array, P: _Array, Q: _Array
) -> None: ...
def sweep_columns(
    values: _Array,
    rows: _Array,
    begins: _Array,
    SP: _Array,
    P: _Array,
    G: _Array,
    Q: _Array,
    X: _Array,
    moved: _Array,
    mean: _Array,
    l1: _Array,
    l2: _Array,
    grouped: bool,
    active: _Array,
    work: _Array,
) -> float: ...
