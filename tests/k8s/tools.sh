#!/usr/bin/env bash
# Helm's own library and Kubernetes' schemas, as wheels of these versions in build/k8s; does nothing, and needs no network, once it is done.
set -euo pipefail
cd "$(dirname "$0")/../.."

wheels=(helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 importlib_resources==7.1.0)
to=build/k8s/python
[ "$(cat "$to/.wheels" 2>/dev/null)" = "${wheels[*]}" ] && exit
printf 'test-k8s: fetching %s\n' "${wheels[*]}" >&2
rm -rf "$to" build/k8s/pip
.venv/bin/python -m venv build/k8s/pip
build/k8s/pip/bin/pip install --quiet --disable-pip-version-check --no-deps --target "$to" "${wheels[@]}"
printf '%s' "${wheels[*]}" >"$to/.wheels"
