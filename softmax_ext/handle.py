"""A handle to one instruction set: what the public kernels and a `Problem` compute with."""

from __future__ import annotations

from . import _kernels
from .results import LinearCrossEntropyResult


class Handle:
    """One instruction set by its name; the best one that can run here by default."""

    def __init__(self, isa: str | None = None) -> None:
        available = _kernels.available_isas()
        if isa is None:
            isa = available[0]
        if isa not in available and isa not in _kernels.emulated_isas():
            why = "cannot run here" if isa in _kernels.compiled_isas() else "is not in this build"
            if isa == "amx" and isa in _kernels.compiled_isas():
                why += f" ({_kernels.why_no_tiles()})"
            raise ValueError(f"isa: {isa!r} {why}; available: {', '.join(available)}")
        self.isa = isa
        self._quick = _kernels.Quick(isa, LinearCrossEntropyResult)

    def __reduce__(self) -> tuple[type[Handle], tuple[str]]:
        return type(self), (self.isa,)
