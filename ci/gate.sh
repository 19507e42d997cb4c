#!/bin/sh
# ci/gate.sh BASE [HEAD]: fails where a benchmark of HEAD (the working tree, where it is not given) is over 10% slower
# than at the commit BASE.
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || { echo "ci/gate.sh: there is no .venv; say: make setup" >&2; exit 2; }
exec .venv/bin/python -m ci.gate "$@"
