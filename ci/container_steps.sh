#!/bin/sh
# Where no container builder is: the steps of deploy/container/Dockerfile in build/container, and a probe of what they
# made (ci/container_steps.py). In place of the Python images stands a Debian with the Python of their version, in
# build/container-base, which is kept. Takes root, and: apt-get install debootstrap
set -eu
cd "$(dirname "$0")/.."
base=build/container-base
if [ ! -e "$base/.ready" ]; then
    command -v debootstrap >/dev/null || { echo "ci/container_steps.sh: install: apt-get install debootstrap" >&2; exit 1; }
    debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev,python3,python3-dev,python3-venv trixie "$base"
    ln -s python3 "$base/usr/bin/python"
    cp /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/" # whom this machine trusts
    touch "$base/.ready"
fi
exec .venv/bin/python -m ci.container_steps "$base"
