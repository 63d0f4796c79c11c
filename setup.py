"""The extension module: which C files, and which flags for which instruction set.

Everything else is in pyproject.toml. src/ holds C sources, not a Python package.
"""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# a*b + c may become one fused operation in the leaves, and nothing else may be reordered;
# -fno-trapping-math and -fno-math-errno only say that nobody reads the exception flags and errno.
LEAF_FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-trapping-math", "-fno-math-errno"]
COMMON_FLAGS = ["-O3", "-fvisibility=hidden"]

# One stub per instruction set: src/smx_<name>.c with these flags.
X86_64 = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw"],
}
TABLES = {
    "x86_64": X86_64,
    "amd64": X86_64,
    "aarch64": {"baseline": [], "neon": []},
    "arm64": {"baseline": [], "neon": []},
}.get(platform.machine().lower(), {"baseline": []})

NO_COMPILER = (
    "softmax_ext needs a C compiler (GCC 12 or newer, or Clang) and the Python headers to build: "
    "on Debian and Ubuntu `apt-get install gcc python3-dev`, on Fedora `dnf install gcc "
    "python3-devel`. The compiler's own message: {}"
)


class BuildWithLeaves(build_ext):
    """Compiles each stub with its own flags, then the extension with them linked in."""

    def build_extension(self, ext):
        def compile_stub(name):
            return self.compiler.compile(
                [f"src/smx_{name}.c"],
                output_dir=self.build_temp,
                include_dirs=["src"],
                extra_postargs=COMMON_FLAGS + LEAF_FLAGS + TABLES[name],
                depends=ext.depends,
            )

        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for objects in pool.map(compile_stub, TABLES):
                    ext.extra_objects += objects
            super().build_extension(ext)
        except Exception as error:
            raise SystemExit(NO_COMPILER.format(error)) from error


extension = Extension(
    "softmax_ext._kernels",
    ["softmax_ext/_kernels.pyx", "src/smx_cpu.c", "src/smx_pool.c"],
    include_dirs=["src", numpy.get_include()],
    depends=sorted(map(str, [*Path("src").glob("smx*"), *Path("softmax_ext").glob("*.pxi")])),
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
        ("SMX_LEAF_FLAGS", '"{}"'.format(" ".join(LEAF_FLAGS))),
    ],
    extra_compile_args=COMMON_FLAGS,
    extra_link_args=[] if sys.platform == "darwin" else ["-Wl,--gc-sections", "-s"],
)

setup(
    ext_modules=cythonize([extension], build_dir="build/cython", language_level=3),
    cmdclass={"build_ext": BuildWithLeaves},
)
