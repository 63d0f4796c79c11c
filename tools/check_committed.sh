#!/bin/sh
# Fails if a file is committed that .gitignore calls generated. Says nothing outside a git checkout.
set -eu

git rev-parse --is-inside-work-tree >/dev/null 2>&1 || exit 0

files=$(git ls-files --cached --ignored --exclude-standard)
[ -z "$files" ] || {
    printf 'error: generated files are committed:\n%s\n' "$files" >&2
    exit 1
}
