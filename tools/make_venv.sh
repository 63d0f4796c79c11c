#!/bin/sh
# Makes the virtual environment VENV of the interpreter PYTHON; does nothing where it is there.
#
#     tools/make_venv.sh PYTHON VENV
#
# VENV/.made is written last: an environment left half made by an interruption is made anew, and so
# is one of another interpreter. Debian and Ubuntu split Python into packages; what the interpreter
# lacks (ensurepip, Python.h) is installed from there by root, who is told of it, unless SYSTEM is
# not yes; to everybody else it is named.
set -eu

python=$1
venv=$2

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

identity() {
    "$1" -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null || true
}

command -v "$python" >/dev/null ||
    fail "there is no interpreter '$python'; install Python 3.10 or newer, or name one with make PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "'$python' is older than Python 3.10; install a newer one, or name one with make PYTHON=..."

if [ "$(identity "$venv/bin/python")" = "$(identity "$python")" ]; then
    if [ -e "$venv/.made" ]; then
        exit 0
    elif "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        touch "$venv/.made"
        exit 0
    fi
fi

lacks() {
    "$python" - <<'PYTHON'
import importlib.util, os, sysconfig

if not importlib.util.find_spec("venv") or not importlib.util.find_spec("ensurepip"):
    print("the module ensurepip")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print("the header Python.h")
PYTHON
}

if [ -n "$(lacks)" ]; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    packages="python$version-venv python$version-dev"
    if [ "$("$python" -c 'import sys; print(sys.base_prefix)')" = /usr ] &&
        [ "$(id -u)" = 0 ] && [ "${SYSTEM:-yes}" = yes ] && command -v apt-get >/dev/null; then
        echo "installing $packages into the system with apt-get (SYSTEM=no: install nothing there)"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update
        # shellcheck disable=SC2086  # a list of packages
        apt-get -qq install --yes --no-install-recommends $packages >/dev/null
    fi
    [ -z "$(lacks)" ] ||
        fail "'$python' has not got" "$(lacks | paste -s -d, | sed 's/,/ and /');" \
            "install it (on Debian or Ubuntu: apt-get install $packages)"
fi

echo "making $venv with $("$python" --version)"
rm -rf "$venv"
"$python" -m venv "$venv"
touch "$venv/.made"
