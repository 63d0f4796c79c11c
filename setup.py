"""The extension module: which C files, and which flags for which instruction set.

Everything else is in pyproject.toml. src/ holds C sources, not a Python package.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

# a*b + c may become one fused operation in the leaves, and nothing else may be reordered;
# -fno-trapping-math and -fno-math-errno only say that nobody reads the exception flags and errno.
LEAF_FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-trapping-math", "-fno-math-errno"]
# A section for each function, so that --gc-sections can leave out those that nobody calls.
COMMON_FLAGS = ["-O3", "-fvisibility=hidden", "-ffunction-sections"]

# One stub per instruction set: src/smx_<name>.c with these flags. Which processor it is for is
# asked of the compiler, as in src/smx_cpu.c: a cross compiler's is not this machine's.
TABLES = {
    "__x86_64__": {
        "baseline": [],
        "avx2": ["-mavx2", "-mfma", "-mf16c"],
        # And AMX, whose few instructions are spelled in assembly.
        "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw"],
    },
    "__aarch64__": {"baseline": [], "neon": []},
}

NO_COMPILER = (
    "softmax_ext needs a C compiler (GCC 12 or newer, or Clang) to build: on Debian and Ubuntu "
    "`apt-get install gcc`, on Fedora `dnf install gcc`; CC names another. Asked of {}: {}"
)
NO_HEADERS = (
    "softmax_ext needs the headers of Python to build, and {} does not find Python.h: on Debian "
    "and Ubuntu `apt-get install python3-dev`, on Fedora `dnf install python3-devel`"
)


class BuildWithLeaves(build_ext):
    """Compiles each stub with its own flags, then the extension with them linked in."""

    def build_extension(self, ext):
        sources = [*ext.sources, *ext.depends]
        old = self.force or newer_group(sources, self.get_ext_fullpath(ext.name))
        if not old or ext.name != "softmax_ext._kernels":
            super().build_extension(ext)
            return
        tables = self.tables()

        def compile_stub(name):
            return self.compiler.compile(
                [f"src/smx_{name}.c"],
                output_dir=self.build_temp,
                include_dirs=["src"],
                extra_postargs=COMMON_FLAGS + LEAF_FLAGS + tables[name],
                depends=ext.depends,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for objects in pool.map(compile_stub, tables):
                ext.extra_objects += objects
        super().build_extension(ext)

    def tables(self):
        """The stubs for the compiler's processor; SystemExit where nothing can be compiled."""
        command = getattr(self.compiler, "compiler_so", None)  # MSVC has none
        if command is None:
            raise SystemExit(NO_COMPILER.format(self.compiler.compiler_type, "not GCC or Clang"))
        try:
            macros = preprocess(command, "", "-dM")
        except OSError as error:
            raise SystemExit(NO_COMPILER.format(command[0], error)) from error
        except subprocess.CalledProcessError as error:
            why = error.stderr.strip() or f"exit status {error.returncode}"
            raise SystemExit(NO_COMPILER.format(command[0], why)) from error
        try:
            folders = [f"-I{folder}" for folder in self.compiler.include_dirs]
            preprocess(command, "#include <Python.h>\n", *folders)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{NO_HEADERS.format(command[0])}\n{error.stderr}") from error
        processors = [TABLES[name] for name in TABLES if f"#define {name} 1\n" in macros]
        return processors[0] if processors else {"baseline": []}


def preprocess(command, source, *options):
    """What the compiler's preprocessor makes of a source."""
    return subprocess.run(
        [*command, *options, "-E", "-x", "c", "-"],
        input=source, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


kernels = Extension(
    "softmax_ext._kernels",
    ["softmax_ext/_kernels.pyx", "src/smx_cpu.c", "src/smx_pool.c"],
    include_dirs=["src", numpy.get_include()],
    depends=[
        "setup.py",
        *sorted(map(str, [*Path("src").glob("smx*"), *Path("softmax_ext").glob("*.px[di]")])),
    ],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
        ("SMX_LEAF_FLAGS", '"{}"'.format(" ".join(LEAF_FLAGS))),
    ],
    extra_compile_args=COMMON_FLAGS,
    extra_link_args=[] if sys.platform == "darwin" else ["-Wl,--gc-sections", "-s"],
)

# Coordinate descent, for the solvers: no leaves in it.
descent = Extension(
    "softmax_ext._descent",
    ["softmax_ext/_descent.pyx"],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    extra_compile_args=[*COMMON_FLAGS, "-fno-math-errno", "-fno-trapping-math"],
    extra_link_args=[] if sys.platform == "darwin" else ["-Wl,--gc-sections", "-s"],
)

setup(
    ext_modules=cythonize([kernels, descent], build_dir="build/cython", language_level=3),
    cmdclass={"build_ext": BuildWithLeaves},
)
