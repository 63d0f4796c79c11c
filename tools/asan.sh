#!/bin/bash
# Runs the tests of the kernels, or what else Python is told to run, on a build that GCC's sanitizers
# of memory and of undefined behaviour watch.
#
#   tools/asan.sh [arguments of python]
#
# The build is in build/address, beside the ordinary one. What is found ends the process.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
compiler=${CC:-gcc}
out=$PWD/build/address
# A result that nobody wants is a null pointer, moved along with the others and never followed.
flags="-fsanitize=address,undefined -fno-sanitize=pointer-overflow -fno-sanitize-recover=all"

CC=$compiler CFLAGS="$flags -g1 -fno-omit-frame-pointer" LDFLAGS="$flags" \
    "$python" setup.py --quiet build --build-base "$out" --build-lib "$out/lib"

preload=
for library in libasan.so libstdc++.so; do
    path=$("$compiler" -print-file-name="$library")
    [[ -e $path ]] || { echo "asan: $compiler has no $library" >&2; exit 1; }
    preload+="${preload:+:}$path"
done
(($#)) || set -- -m pytest --quiet -p no:cacheprovider --tier=kernels
# Python and NumPy free nothing at the end; tests ask for more memory than there is.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1
export PYTHONMALLOC=malloc  # so that bytes beside Python's own blocks are watched too
# Not the checkout's package, which Python would find in the folder that it is started in.
export PYTHONSAFEPATH=1 PYTHONPATH=$out/lib
exec setarch --addr-no-randomize env LD_PRELOAD="$preload" "$python" "$@"
