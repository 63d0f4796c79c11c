#!/bin/bash
# Runs tests on CPython without the global interpreter lock.
#
#   tools/test_free_threaded.sh [arguments of pytest]
#
# PYTHON: such an interpreter. Without it: python3.14t or python3.13t, where there is one; else, for
# root on Debian or Ubuntu, it is built in build/free-threaded from the source package of Debian 13's
# Python, ten minutes of work.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "test-free-threaded: $*" >&2; exit 1; }

root=$PWD work=$PWD/build/free-threaded
free() { "$1" -c 'import sysconfig, sys; sys.exit(not sysconfig.get_config_var("Py_GIL_DISABLED"))'; }

build_python() {
    [[ $(id -u) == 0 && ${SYSTEM:-yes} != no ]] && command -v apt-get >/dev/null ||
        fail "python3.13t or python3.14t was wanted; PYTHON names it"
    local apt=$work/apt keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "test-free-threaded: building CPython 3.13; what that needs is installed with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install --yes --no-install-recommends gcc make xz-utils libssl-dev zlib1g-dev \
        libffi-dev libbz2-dev liblzma-dev libsqlite3-dev >/dev/null
    # Lists of its own, so that the system's apt stays as it is.
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$work/source"
    echo "deb-src [signed-by=$keys] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} trixie main" \
        >"$apt/sources.list"
    local own=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
    apt-get -qq "${own[@]}" update
    (cd "$apt" && apt-get -qq "${own[@]}" source --download-only python3.13)
    tar --extract --file "$apt"/python3.13_*.orig.tar.xz --directory "$work/source" \
        --strip-components=1
    cd "$work/source"
    ./configure --quiet --disable-gil --prefix="$work/python" --with-ensurepip=install >/dev/null
    make --silent -j2 >/dev/null 2>&1
    make --silent install >/dev/null 2>&1
    cd "$root"
}

python=${PYTHON:-}
for name in python3.14t python3.13t "$work/python/bin/python3.13t"; do
    [[ -n $python ]] || python=$(command -v "$name" || true)
done
if [[ -z $python ]]; then
    build_python
    python=$work/python/bin/python3.13t
fi
free "$python" || fail "$python has the lock; one built with --disable-gil was wanted"

"$root/tools/make_venv.sh" "$python" "$work/venv"
python=$work/venv/bin/python
# Newer versions of Hypothesis have no wheel for it.
"$python" -m pip --quiet install --only-binary :all: 'numpy>=2.1' scipy pytest 'hypothesis<6.140' \
    mpmath 'cython>=3.1,<3.4' 'setuptools>=77,<90'
"$python" setup.py --quiet build --build-base "$work/build" --build-lib "$work/lib"

# Not the checkout's package. The lock must stay off, and importing must not turn it on.
cd "$work"
export PYTHONSAFEPATH=1 PYTHONPATH=$work/lib PYTHON_GIL=0
(($#)) || set -- "$root"/tests/test_{free_threaded,threads,gradients,sparse,memory}.py
exec "$python" -m pytest --quiet -p no:cacheprovider --rootdir "$root" \
    --config-file "$root/pyproject.toml" "$@"
