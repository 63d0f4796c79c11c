"""What a measurement was made on and with; the header of every table."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import softmax_ext
from benchlib.contenders import isas
from softmax_ext._kernels import COMPILER

#: Distributions named in the header, where installed.
PACKAGES = ("scipy", "scikit-learn", "torch", "jax", "jaxlib", "threadpoolctl")


def describe() -> dict[str, Any]:
    """Return the day, the machine, the compiler and every version that matters."""
    able, unable = isas()
    return {
        "date": datetime.date.today().isoformat(),
        "CPU": _cpu_model(),
        "CPUs": os.cpu_count(),
        "caches": _caches(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "compiled by": COMPILER,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "softmax_ext": softmax_ext.__version__,
        "instruction sets": ", ".join(able),
        "not runnable here": ", ".join(unable) or "none",
        "NumPy": f"{np.__version__} with {_blas()}",
        **{package: _version(package) for package in PACKAGES},
    }


def lines(environment: dict[str, Any]) -> list[str]:
    """Return the description as lines of text, names padded to one width."""
    flat: list[tuple[str, Any]] = []
    for name, value in environment.items():
        if isinstance(value, dict):
            flat += [(f"{name}: {key}", inner) for key, inner in value.items()]
        else:
            flat.append((name, value))
    width = max(len(name) for name, _ in flat)
    return [f"{name:{width}}  {value}" for name, value in flat]


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _caches() -> str:
    """Return the sizes of the first CPU's caches as Linux gives them."""
    sizes = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (
            (folder / name).read_text(encoding="ascii").strip()
            for name in ("level", "type", "size")
        )
        if kind != "Instruction":
            sizes.append(f"L{level} {size}")
    return ", ".join(sizes) or "unknown"


def _blas() -> str:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    text = f"{blas.get('name', 'unknown BLAS')} {blas.get('version', '')}".strip()
    try:
        import threadpoolctl
    except ImportError:
        return text
    for pool in threadpoolctl.threadpool_info():
        if pool["user_api"] == "blas" and "numpy" in pool["filepath"]:
            return f"{text} ({pool['architecture']} kernels)"
    return text


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
