#!/bin/bash
# Runs tests with the oldest packages that pyproject.toml allows, on the wheel that is built from
# here, as a user's pip builds it. In build/oldest.
#
#   tools/test_oldest.sh [arguments of pytest]
#
# PYTHON: 3.10 or 3.11, which NumPy 1.25 has wheels for; scikit-learn 1.8 wants 3.11. WITH=torch: with
# the oldest PyTorch as well, a download of gigabytes.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD work=$PWD/build/oldest
python=$work/venv/bin/python
"$root/tools/make_venv.sh" "${PYTHON:-python3.11}" "$work/venv"
"$python" -m pip --quiet install 'pip>=25.1'
rm -rf "$work/dist"
"$python" -m pip --quiet wheel --no-deps --wheel-dir "$work/dist" .
"$python" tools/oldest.py ${WITH:+"$WITH"} >"$work/requirements.txt"
"$python" -m pip --quiet install --only-binary :all: --requirement "$work/requirements.txt"
"$python" -m pip --quiet install --no-deps --force-reinstall "$work"/dist/*.whl

# From a folder without a package in it, so that what is tested is the wheel. Old packages tell of
# what is deprecated since.
cd "$work"
(($#)) || set -- --tier=kernels
exec "$python" -m pytest --quiet -p no:cacheprovider --rootdir "$root" \
    --config-file "$root/pyproject.toml" -W ignore::DeprecationWarning "$root/tests" "$@"
