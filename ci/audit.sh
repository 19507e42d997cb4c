#!/bin/sh
# ci/audit.sh WHEEL: what an installation of this wheel brings with it, as a CycloneDX SBOM beside the wheel, and whether
# an advisory is known for any of it. Fails too where that could not be learnt.
set -eu
cd "$(dirname "$0")/.."
wheel=$1
python=${PYTHON:-python3}

rm -rf build/audit
"$python" -m venv build/audit/installed
build/audit/installed/bin/pip install --quiet --disable-pip-version-check "$wheel"
"$python" -m venv build/audit/tools
build/audit/tools/bin/pip install --quiet --disable-pip-version-check "cyclonedx-bom>=7,<8" "pip-audit>=2.9,<3"

# pip came with the environment, not with the wheel.
build/audit/installed/bin/pip uninstall --quiet --yes pip setuptools 2>/dev/null
sbom=${wheel%.whl}.cdx.json
build/audit/tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON --output-file "$sbom" \
    build/audit/installed/bin/python
echo "$sbom"
build/audit/tools/bin/pip-audit --strict --path "$(echo build/audit/installed/lib/python*/site-packages)"
