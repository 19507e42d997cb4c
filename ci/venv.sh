#!/bin/sh
# Makes the virtual environment in $1 with the package (editable, compiled) and the development tools.
# Says which Debian packages are missing before anything is downloaded.
set -eu
venv=$1
python=${PYTHON:-python3}

missing=""
command -v "$python" >/dev/null || { echo "ci/venv.sh: no $python; install: apt-get install python3 python3-venv python3-dev gcc" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "ci/venv.sh: $("$python" --version) is too old; Python 3.10 or newer is needed (PYTHON=… chooses one)" >&2; exit 1; }
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
[ -f "$header" ] || missing="$missing python3-dev"
command -v "${CC:-cc}" >/dev/null || missing="$missing gcc libc6-dev"
if [ -n "$missing" ]; then
    echo "ci/venv.sh: missing for $python; install: apt-get install$missing" >&2
    exit 1
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# dependency-groups needs pip 25.1; the build runs in this environment, so that a rebuild downloads nothing.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --group dev
"$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --no-build-isolation --editable .
