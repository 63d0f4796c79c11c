#!/bin/sh
# Installs the package that holds Fashion-MNIST, where the data are not on this machine already.
#
#     tools/get_data.sh PYTHON
#
# Only for root on Debian and Ubuntu, who is told of it, and unless SYSTEM is not yes. Anywhere else
# nothing happens: the library downloads the data when they are first loaded, and the tests that
# want them are skipped.
set -eu

python=$1

"$python" -c 'from softmax_ext import datasets; datasets.load_fashion_mnist(download=False)' \
    2>/dev/null && exit 0

if [ "$(id -u)" = 0 ] && [ "${SYSTEM:-yes}" = yes ] && command -v apt-get >/dev/null; then
    echo "installing dataset-fashion-mnist into the system with apt-get" \
        "(SYSTEM=no: install nothing there)"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install --yes --no-install-recommends \
        dataset-fashion-mnist >/dev/null; } ||
        echo "dataset-fashion-mnist could not be installed; going on without it" >&2
fi
