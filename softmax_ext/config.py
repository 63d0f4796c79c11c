"""What this build is and what it runs on."""

from __future__ import annotations

import platform
import sys

import numpy as np

from . import _kernels, threads


def show_config() -> None:
    """Print version, instruction sets, threads and build flags.

    Tile instructions are used where ``amx`` is asked for, by `Kernels` or SOFTMAX_EXT_ISA. They
    need the system's permission, which is asked for here, or when they are first used. If it is
    refused, ``amx`` computes what ``avx512`` does.

    Examples
    --------
    >>> import softmax_ext as sx
    >>> sx.show_config()  # doctest: +ELLIPSIS
    softmax_ext ...
    """
    from . import __version__, kernels

    python = f"{platform.python_implementation()} {platform.python_version()}"
    compiled = ", ".join(_kernels.compiled_isas())
    available = ", ".join(_kernels.available_isas())
    no_tiles = _kernels.why_no_tiles()
    for key, value in (
        ("softmax_ext", __version__),
        ("instruction set", f"{kernels.isa} (can run here: {available}; compiled in: {compiled})"),
        ("tiles (AMX)", f"none: {no_tiles}" if no_tiles else "of bytes and many classes, by amx"),
        ("threads", str(threads.get_num_threads())),
        ("compiler", _kernels.COMPILER),
        ("leaf flags", _kernels.LEAF_FLAGS),
        ("python", f"{python}, numpy {np.__version__}, {platform.machine()} {sys.platform}"),
    ):
        print(f"{key:<16}{value}")
