#!/bin/sh
# Installs PyTorch for CPUs, where it is not there already, for the tests that want it.
#
#     tools/get_torch.sh PYTHON
#
# Where that does not work within minutes the tests are skipped; nothing else needs it. PyPI's wheel
# for Linux on x86-64 would bring gigabytes of CUDA, so there only PyTorch's own for CPUs will do,
# which pip finds where PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL leads to it.
set -eu

python=$1
version=2.13.0
[ "$(uname -sm)" = "Linux x86_64" ] && version=$version+cpu

"$python" -c 'import torch' 2>/dev/null && exit 0

echo "installing PyTorch $version"
timeout 300 "$python" -m pip install --quiet --only-binary :all: "torch==$version" ||
    echo "PyTorch $version could not be installed; going on without it" >&2
