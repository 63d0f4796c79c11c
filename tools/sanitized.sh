#!/bin/bash
# Runs tests, or what else Python is told to run, on a build that sanitizers of GCC watch.
#
#   tools/sanitized.sh address [arguments of python]   memory, and undefined behaviour
#   tools/sanitized.sh thread [arguments of python]    races between threads
#
# The build is in build/NAME, beside the ordinary one. What is found ends the process.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "sanitized: $*" >&2; exit 1; }

python=${PYTHON:-.venv/bin/python}
compiler=${CC:-gcc}
kind=${1-} out=$PWD/build/${1-}
case $kind in
address)
    flags="-fsanitize=address,undefined -fno-sanitize-recover=all" library=libasan.so
    tests=(--tier=kernels -k "not reference") # which is Python
    # Python and NumPy free nothing at the end; tests ask for more memory than there is.
    export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1
    export UBSAN_OPTIONS=print_stacktrace=1
    export PYTHONMALLOC=malloc # so that bytes beside Python's own blocks are watched too
    ;;
thread)
    flags="-fsanitize=thread" library=libtsan.so
    # It has a thread of its own, which two tests would count.
    tests=(tests/test_{threads,free_threaded,width,sparse,hessian}.py
        -k "not reference and not no_more_threads_than_asked_for and not starts_no_thread")
    # Python and NumPy are not built for it: of what they do between themselves nothing is known.
    # Children are forked while others are at work.
    export TSAN_OPTIONS=halt_on_error=1:exitcode=66:die_after_fork=0:ignore_noninstrumented_modules=1
    ;;
*) fail "address or thread was wanted, then arguments of Python" ;;
esac
shift

CC=$compiler CFLAGS="$flags -g1 -fno-omit-frame-pointer" LDFLAGS="$flags" \
    "$python" setup.py --quiet build --build-base "$out" --build-lib "$out/lib"

preload=
for name in "$library" libstdc++.so; do
    path=$("$compiler" -print-file-name="$name")
    [[ -e $path ]] || fail "$compiler has no $name"
    preload+="${preload:+:}$path"
done
# Reports go to the standard error of the process, which pytest would keep for itself.
(($#)) || set -- -m pytest --quiet --capture=sys -p no:cacheprovider "${tests[@]}"
# Not the checkout's package, which Python would find in the folder that it is started in.
export PYTHONSAFEPATH=1 PYTHONPATH=$out/lib
exec setarch --addr-no-randomize env LD_PRELOAD="$preload" "$python" "$@"
