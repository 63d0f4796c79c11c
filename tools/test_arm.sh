#!/bin/bash
# Runs tests on aarch64: the NEON leaves, cross-compiled here and run by qemu's emulation of one
# processor. For an x86-64 machine with Debian 12, as root: it installs the cross compiler and the
# emulator with apt-get, unless SYSTEM=no, and lets the kernel start aarch64 programs for as long as
# it runs. The rest goes to build/arm/: Debian's packages of Python for arm64, unpacked and never
# booted, NumPy and the tests' packages from PyPI, a copy of the sources.
#
#   tools/test_arm.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "test-arm: $*" >&2; exit 1; }

work=$PWD/build/arm root=$PWD/build/arm/root site=$PWD/build/arm/site tree=$PWD/build/arm/tree
release=bookworm version=3.11
binfmt=/proc/sys/fs/binfmt_misc
emulator=/usr/bin/qemu-aarch64-static
needed=(qemu-user-static mmdebstrap gcc-aarch64-linux-gnu libc6-dev-arm64-cross)

[[ $(uname -m) == x86_64 ]] || fail "an x86-64 machine was wanted; on aarch64 use make test"
missing=()
for package in "${needed[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if ((${#missing[@]})); then
    [[ ${SYSTEM:-yes} != no && $(id -u) == 0 ]] || fail "these packages were wanted: ${missing[*]}"
    echo "test-arm: installing ${missing[*]} with apt-get"
    apt-get install --yes --no-install-recommends "${missing[@]}" >/dev/null
fi

mkdir -p "$work"
if [[ ! -e $work/.root ]]; then
    rm -rf "$root"
    mmdebstrap --quiet --variant=extract --architectures=arm64 \
        --include=python3,python3-dev,libc6-dev,libstdc++6 "$release" "$root" \
        "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    touch "$work/.root"
fi
if [[ ! -e $work/.site ]]; then
    rm -rf "$site"
    "${PYTHON:-python3}" -m pip --quiet install --no-compile --target "$site" \
        --platform manylinux2014_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_28_aarch64 --python-version "$version" --implementation cp \
        --abi "cp${version/./}" --abi abi3 --abi none --only-binary=:all: \
        numpy scipy pytest hypothesis mpmath 'cython>=3.1,<3.4' 'setuptools>=77,<90'
    touch "$work/.site"
fi

# Tests start sys.executable: the kernel has to know who runs such a file.
undo=()
finish() { for ((i = ${#undo[@]} - 1; i >= 0; i--)); do ${undo[i]} || true; done; }
remove_entry() { echo -1 >"$binfmt/smx-aarch64"; }
trap finish EXIT
if [[ ! -e $binfmt/register ]] && mount -t binfmt_misc binfmt_misc "$binfmt"; then
    undo+=("umount $binfmt")
fi
if [[ ! -e $binfmt/qemu-aarch64 && ! -e $binfmt/smx-aarch64 && -w $binfmt/register ]]; then
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":smx-aarch64:M::$magic:$mask:$emulator:OCF" >"$binfmt/register"
    undo+=(remove_entry)
fi

# A processor without SVE: emulated, SVE makes BLAS 16 times as slow.
export QEMU_LD_PREFIX=$root QEMU_CPU=neoverse-n1 PYTHONPATH=$site:$tree
export CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared"
export CFLAGS="-idirafter $root/usr/include ${CFLAGS:-}"
python=$root/usr/bin/python$version

mkdir -p "$tree"
tar --create --exclude=build --exclude=.git --exclude='.venv*' --exclude='*.so' \
    --exclude=__pycache__ . | tar --extract --directory "$tree"
cd "$tree"
# The C files that changed are compiled again, for tar keeps their times.
"$emulator" "$python" setup.py --quiet build_ext --inplace --build-lib build/lib
unset CFLAGS
# By itself: all that is computed by the NEON leaves.
(($#)) || set -- --tier=kernels -k neon
"$emulator" "$python" -m pytest -p no:cacheprovider --quiet "$@"
