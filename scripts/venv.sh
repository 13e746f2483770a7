#!/bin/sh
# Makes a virtual environment with pip in it, with what this machine has.
# Usage: venv.sh FOLDER [PYTHON]
set -eu

folder=$1
wanted=${2:-}

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }
has() { "$1" -c "import $2" >/dev/null 2>&1; }

find_python() {
    first=
    for candidate in python3.13 python3.12 python3.11 python3.10 python3; do
        recent "$candidate" || continue
        first=${first:-$candidate}
        # The newest that can make an environment by itself is better than the newest.
        if has "$candidate" "ensurepip, venv"; then
            echo "$candidate"
            return
        fi
    done
    echo "$first"
}

python=${wanted:-$(find_python)}
if [ -z "$python" ] || ! recent "$python"; then
    echo "${python:-python3} is no Python 3.10 or later; install one (apt-get install python3 python3-venv)," >&2
    echo "or name one: make PYTHON=/path/to/python3" >&2
    exit 1
fi

rm -rf "$folder"
if has "$python" "ensurepip, venv"; then
    "$python" -m venv "$folder"
elif has "$python" virtualenv; then
    "$python" -m virtualenv --quiet "$folder"
elif has "$python" "venv, pip" && "$python" -m venv --without-pip "$folder" &&
    "$python" -m pip --python "$folder/bin/python" install --quiet pip; then
    :
else
    rm -rf "$folder"
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$python cannot make a virtual environment. On Debian and Ubuntu run:" >&2
    echo "    apt-get install python${version}-venv" >&2
    exit 1
fi
