"""The sdist and the wheel: what is in them, and that they work away from the checkout."""

from __future__ import annotations

import email
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import softmax_ext

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: Needed in this environment to build without isolation, that is without a network.
BUILD_TOOLS = ("pip", "build", "setuptools", "Cython", "numpy")

needs_build_tools = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in BUILD_TOOLS),
    reason=f"building here needs all of {', '.join(BUILD_TOOLS)}",
)


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    """Run a command that has to succeed; show what it said where it does not."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        **options,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def source_tree(tmp_path_factory) -> Path:
    """A copy of the checkout without anything that was built in it."""
    generated = shutil.ignore_patterns(
        ".git", "build", "dist", "demo", "results", "*.egg-info", "__pycache__", "*.so", ".*_cache"
    )

    def unwanted(folder: str, names: list[str]) -> set[str]:
        environments = {name for name in names if (Path(folder, name, "pyvenv.cfg")).exists()}
        compiled_by_cython = {
            name for name in names if Path(folder).name == "softmax_ext" and name.endswith(".c")
        }
        return set(generated(folder, names)) | environments | compiled_by_cython

    target = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(ROOT, target, ignore=unwanted)
    return target


@pytest.fixture(scope="module")
def distributions(source_tree, tmp_path_factory) -> Path:
    """A folder with the sdist, built from the checkout, and the wheel, built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=source_tree)
    return folder


@pytest.fixture(scope="module")
def sdist(distributions) -> Path:
    (path,) = distributions.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(distributions) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def clean_python(wheel, tmp_path_factory) -> Path:
    """The interpreter of an environment that holds the wheel, NumPy and nothing else."""
    folder = tmp_path_factory.mktemp("clean") / "environment"
    venv.create(folder, with_pip=False, system_site_packages=False, symlinks=True)
    python = folder / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install"),
        *("--no-index", "--no-deps", wheel),
    )
    # NumPy is this environment's own, by links: nothing that lies beside it comes along.
    where = run(
        python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"
    ).stdout.strip()
    import numpy as np

    beside = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs", f"numpy-{np.__version__}.dist-info"):
        if (beside / name).exists():
            Path(where, name).symlink_to(beside / name)
    return python


@needs_build_tools
def test_sdist_holds_all_sources(sdist, source_tree):
    with tarfile.open(sdist) as archive:
        names = {str(PurePosixPath(*PurePosixPath(n).parts[1:])) for n in archive.getnames()}
    wanted = {"pyproject.toml", "setup.py", "README.md", "LICENSE", "softmax_ext/py.typed"}
    for pattern in ("src/*", "softmax_ext/**/*.py*", "tests/*", "bench/*", "tools/*"):
        found = [path for path in source_tree.glob(pattern) if path.is_file()]
        assert found, pattern
        wanted |= {str(path.relative_to(source_tree)) for path in found}
    assert "softmax_ext/_kernels.pyx" in wanted
    assert any(name.endswith(".inc") for name in wanted)
    assert wanted <= names
    assert not [name for name in names if name.endswith(".so")]


@needs_build_tools
def test_wheel_holds_the_package_and_nothing_else(wheel, source_tree):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if name.startswith("softmax_ext/")}
    assert all(name in package or name.split("/")[0].endswith(".dist-info") for name in names), (
        sorted(names)
    )
    extensions = [name for name in package if name.endswith(".so")]
    modules = sorted(name.split("/")[1].split(".")[0] for name in extensions)
    assert modules == ["_descent", "_kernels"]
    # The rest is exactly the Python face and the types: no C, no Cython, no tests.
    face, stubs = (
        {str(path.relative_to(source_tree)) for path in (source_tree / "softmax_ext").rglob(name)}
        for name in ("*.py", "*.pyi")
    )
    assert "softmax_ext/_kernels.pyi" in stubs
    assert package == face | stubs | set(extensions) | {"softmax_ext/py.typed"}


@needs_build_tools
def test_wheel_is_small(wheel):
    assert wheel.stat().st_size <= 1_700_000


@needs_build_tools
def test_wheel_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/WHEEL"))
        tags = email.message_from_bytes(archive.read(name))
        assert any(n.endswith("licenses/LICENSE") for n in archive.namelist())
    assert metadata["Name"] == "softmax-ext"
    assert metadata["Version"] == PROJECT["version"]
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == ">=3.10"
    unconditional = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
    assert unconditional == PROJECT["dependencies"]
    assert [need[:5] for need in unconditional] == ["numpy"]
    assert tags["Root-Is-Purelib"] == "false"


@needs_build_tools
def test_installed_wheel_computes_a_softmax_elsewhere(clean_python, tmp_path):
    program = """
import importlib.metadata, json, sys
import numpy as np
import softmax_ext as sx
x = np.array([[1.0, 2.0, 3.0]])
print(json.dumps({
    "file": sx.__file__,
    "version": [sx.__version__, importlib.metadata.version("softmax-ext")],
    "p": {isa: sx.Kernels(isa).softmax(x).tolist() for isa in sx.available_isas()},
    "installed": sorted({d.metadata["Name"] for d in importlib.metadata.distributions()}),
}))
"""
    done = run(clean_python, "-I", "-c", program, cwd=tmp_path)
    result = json.loads(done.stdout)
    assert Path(result["file"]).is_relative_to(clean_python.parents[1])
    assert result["version"] == [PROJECT["version"]] * 2
    assert result["installed"] == ["numpy", "softmax-ext"]
    assert set(result["p"]) == set(softmax_ext.available_isas())
    for probabilities in result["p"].values():
        assert probabilities == [
            pytest.approx([0.09003057317038046, 0.24472847105479764, 0.6652409557748218], rel=1e-15)
        ]


@needs_build_tools
def test_installed_command_trains_with_numpy_alone(clean_python, tmp_path):
    """Pictures and progress bars want the extra `cli`; training does not."""
    command = clean_python.parent / "softmax-ext"
    done = run(command, "train", "--data", "two-by-two", "--model-out", "model.npz", cwd=tmp_path)
    assert "accuracy" in done.stdout
    assert (tmp_path / "model.npz").exists()


@needs_build_tools
def test_pip_says_what_to_install_where_there_is_no_compiler(source_tree, tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    done = subprocess.run(
        [*command, "--wheel-dir", tmp_path, source_tree],
        env={**os.environ, "CC": "false"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "needs a C compiler" in said
    assert "apt-get install gcc" in said
    assert not list(tmp_path.iterdir())


def build_with(compiler: str, folder: Path) -> str:
    """What a build says that fails at the latest where the first leaf is compiled."""
    program = f"""
import runpy, sys
import Cython.Build
Cython.Build.cythonize = lambda extensions, **options: extensions  # which takes seconds
folder = {str(folder)!r}
sys.argv = ["setup.py", "build_ext", "--build-temp", folder, "--build-lib", folder]
runpy.run_path("setup.py")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "CC": compiler},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


def fake_compiler(folder: Path, macro: str, header: str, leaf: str) -> str:
    """A compiler that does one thing where it is asked for each of the three."""
    path = folder / "cc"
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *-dM*) {macro} ;; *-E*) {header} ;; *) {leaf} ;; esac\n'
    )
    path.chmod(0o755)
    return str(path)


@needs_build_tools
def test_build_errors_are_told_as_what_they_are(tmp_path):
    assert "needs a C compiler" in build_with("/nonexistent/cc", tmp_path)

    compiler = fake_compiler(tmp_path, "true", "echo no Python.h >&2; exit 1", "true")
    said = build_with(compiler, tmp_path)
    assert "needs the headers of Python" in said
    assert "no Python.h" in said

    compiler = fake_compiler(tmp_path, "true", "true", "echo disk full >&2; exit 1")
    said = build_with(compiler, tmp_path)
    assert "disk full" in said
    assert "softmax_ext needs" not in said


@needs_build_tools
@pytest.mark.parametrize(
    ("processor", "leaves"),
    [
        ("__x86_64__", {"baseline", "avx2", "avx512"}),
        ("__aarch64__", {"baseline", "neon"}),
        ("__riscv", {"baseline"}),
    ],
)
def test_leaves_are_those_of_the_compilers_processor(processor, leaves, tmp_path):
    """A cross compiler's processor is not the one that it runs on."""
    # It fails only after the leaves: at the first error those that wait are given up.
    leaf = 'case "$*" in *src/smx_*) echo "$@" ;; *) exit 1 ;; esac'
    compiler = fake_compiler(tmp_path, f"echo '#define {processor} 1'", "true", leaf)
    assert set(re.findall(r"src/smx_(\w+)\.c", build_with(compiler, tmp_path))) == leaves


def test_version_is_one():
    assert softmax_ext.__version__ == PROJECT["version"]
    assert softmax_ext.__version__ == importlib.metadata.version("softmax-ext")


def test_import_loads_nothing_heavy():
    """What `import softmax_ext` loads beyond NumPy is its own, or costs next to nothing."""
    program = """
import sys
import numpy
before = set(sys.modules)
import softmax_ext
print(*sorted(set(sys.modules) - before))
"""
    loaded = run(sys.executable, "-c", program, cwd=ROOT).stdout.split()
    heavy = {"scipy", "sklearn", "torch", "jax", "matplotlib", "tqdm", "argparse", "asyncio"}
    heavy |= {"csv", "gzip", "hashlib", "http", "importlib.metadata", "json", "logging"}
    heavy |= {"multiprocessing", "ssl", "tempfile", "unittest", "urllib.request", "zipfile"}
    assert "softmax_ext" in loaded
    assert not [
        name
        for name in loaded
        if any(name == module or name.startswith(module + ".") for module in heavy)
    ]
    lazy = {"datasets", "plots", "reference", "special", "sklearn", "torch", "cli"}
    assert not [name for name in loaded if name.removeprefix("softmax_ext.") in lazy]


CLANG = {
    "baseline": ["--target=x86_64-linux-gnu"],
    "avx2": ["--target=x86_64-linux-gnu", "-mavx2", "-mfma"],
    "avx512": ["--target=x86_64-linux-gnu", "-mfma", "-mavx512f", "-mavx512vl", "-mavx512dq",
               "-mavx512bw"],
    "neon": ["--target=aarch64-linux-gnu"],
}  # fmt: skip


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs Clang")
@pytest.mark.parametrize("isa", CLANG)
def test_clang_takes_every_instruction_set(isa):
    """GCC compiles most of them whenever the package is built; Clang is stricter."""
    done = subprocess.run(
        ["clang", *CLANG[isa], "-std=gnu11", "-fsyntax-only", ROOT / f"src/smx_{isa}.c"],
        capture_output=True,
        text=True,
    )
    if "file not found" in done.stderr:
        pytest.skip("no headers for this target")
    assert not done.stderr
    assert done.returncode == 0
