#!/bin/sh
# Builds the example modules of every language whose compiler is here twice, in different directories, and fails where
# the bytes differ.
set -eu
cd "$(dirname "$0")/.."
rm -rf build/reproducible
for place in one two/deeper; do
    mkdir -p "build/reproducible/$place"
    git ls-files -z examples ci/build_examples.sh |
        xargs -0 cp --parents --no-dereference --target-directory "build/reproducible/$place"
    find "build/reproducible/$place" -name '*.wasm' -delete
    "build/reproducible/$place/ci/build_examples.sh"
done
cd build/reproducible/one
find . -name '*.wasm' -not -path '*/node_modules/*' -not -path '*/target/*' | sort | while read -r module; do
    cmp "$module" "../two/deeper/$module"
    echo "the same twice: $module"
done
