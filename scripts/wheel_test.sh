#!/bin/sh
# Builds the wheel and runs the tests against it, installed as anybody would.
# Usage: wheel_test.sh [PYTEST ARGUMENT...]
set -eu

venv=.venv-wheel
python=$venv/bin/python
[ -x "$python" ] || scripts/venv.sh "$venv" "${PYTHON:-}"
rm -rf build/wheel
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
wheel=$(echo build/wheel/penstock-*.whl)
"$python" -m pip install --quiet --disable-pip-version-check "$wheel[dev]"
"$python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheel"
"$python" -c "import penstock; assert 'site-packages' in penstock.__file__, penstock.__file__"
"$venv/bin/penstock" pull smollm2-135m >/dev/null
exec "$python" -m pytest "$@"
