#!/bin/sh
# Runs all tests on each of these Python versions that is there, each in an environment of its own.
# Usage: test_all.sh VERSION...
set -u

find_python() {
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        "$candidate" -c '' >/dev/null 2>&1 && echo "$candidate" && return
    done
    return 1
}

failed=
for version in "$@"; do
    if python=$(find_python "$version"); then
        echo "Python $version"
        make --no-print-directory test VENV=".venv-$version" PYTHON="$python" || failed="$failed $version"
    else
        echo "Python $version is not here"
    fi
done
[ -z "$failed" ] || { echo "failed on:$failed" >&2; exit 1; }
