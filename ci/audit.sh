#!/bin/sh
# What an installation of the wheel in dist/ brings with it, as a CycloneDX SBOM in dist/, and whether an advisory is
# known for any of it. Fails too where that could not be learnt.
set -eu
cd "$(dirname "$0")/.."
installed=build/audit/installed
ci/installed.sh $installed
version=$($installed/bin/python -c 'import sentinel_wasm; print(sentinel_wasm.__version__)')
"${PYTHON:-python3}" -m venv build/audit/tools
build/audit/tools/bin/pip install --quiet --disable-pip-version-check "cyclonedx-bom>=7,<8" "pip-audit>=2.9,<3"
# The environment's own, and not the wheel's; newer Pythons have no setuptools.
$installed/bin/pip uninstall --quiet --yes setuptools pip 2>/dev/null

sbom=dist/sentinel-wasm-$version.cdx.json
build/audit/tools/bin/cyclonedx-py environment --output-reproducible --output-file "$sbom" $installed/bin/python
echo "$sbom"
build/audit/tools/bin/pip freeze --path "$(echo $installed/lib/python*/site-packages)" | grep -v '^sentinel-wasm' >build/audit/brought.txt
build/audit/tools/bin/pip-audit --strict --no-deps --disable-pip --requirement build/audit/brought.txt
