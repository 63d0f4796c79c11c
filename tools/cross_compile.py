"""Compiles the C sources for systems that are not here, with the Clang of the package ziglang.

    python tools/cross_compile.py [target ...]

Every leaf of setup.py's table for the target's processor, the pool and the choice of instruction
sets, with warnings as errors and without optimisation; for macOS the Cython modules too, with this
system's headers of Python. Nothing is linked or run: it proves that the sources compile there.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGETS = [
    "x86_64-windows-gnu", "aarch64-windows-gnu", "x86_64-macos", "aarch64-macos",
    "x86_64-linux-musl", "aarch64-linux-musl",
]  # fmt: skip


def constants() -> dict[str, object]:
    """What setup.py says of flags and tables."""
    body = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
    named = {node.targets[0].id: node.value for node in body if isinstance(node, ast.Assign)
             and isinstance(node.targets[0], ast.Name)}  # fmt: skip
    return {
        name: ast.literal_eval(named[name]) for name in ("COMMON_FLAGS", "LEAF_FLAGS", "TABLES")
    }


def compile_one(target: str, source: str, *flags: str) -> None:
    print(f"{target}: {source}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", "-target", target, "-Wall", "-Wextra",
             "-Werror", "-Isrc", *flags, "-O0", "-c", source, "-o", str(Path(folder, "object.o"))],
            check=True, cwd=ROOT,
        )  # fmt: skip


def main() -> None:
    said = constants()
    for target in sys.argv[1:] or TARGETS:
        leaf_flags = [*said["COMMON_FLAGS"], *said["LEAF_FLAGS"]]
        for name, flags in said["TABLES"][f"__{target.split('-')[0]}__"].items():
            compile_one(target, f"src/smx_{name}.c", *leaf_flags, *flags)
        for name in ("cpu", "pool"):
            compile_one(target, f"src/smx_{name}.c", *said["COMMON_FLAGS"])
        if target.endswith("macos"):
            import numpy

            include = [f"-I{numpy.get_include()}", f"-I{sysconfig.get_path('include')}"]
            for source in sorted(map(str, Path("build/cython/softmax_ext").glob("*.c"))):
                leaf = f'-DSMX_LEAF_FLAGS="{" ".join(said["LEAF_FLAGS"])}"'
                compile_one(target, source, "-w", leaf, *include)


if __name__ == "__main__":
    main()
