#!/usr/bin/env bash
# A Kubernetes without containers, both Helms, kubeconform, and the definitions of others' kinds, in build/k8s: built from the Go module proxy, of these
# versions. Does nothing, and needs neither Go nor network, once it is done. Without Go it says so, and the tests that need a cluster are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

kubernetes=v1.34.4 # and tests/k8s/go/go.mod, for Kubernetes and etcd
helm4=v4.3.2 helm3=v3.22.0 kubeconform=v0.8.0 kwok=v0.8.0
kuberay=v1.5.0 prometheus=v0.85.0
go_minor=26

to=$PWD/build/k8s/bin crds=$PWD/build/k8s/crds here=tests/k8s
say() { printf 'test-k8s: %s\n' "$*" >&2; }
of_all=$(sha256sum "$here/binaries.sh" "$here/go/go.mod" "$here/go/go.sum" "$here/go/etcd/main.go")
[ "$(cat "$to/.built" 2>/dev/null)" = "$of_all" ] && exit

command -v go >/dev/null || { say "no Go here: nothing is tested on a cluster (needs Go 1.$go_minor)"; exit; }
minor=$(cd "$here/go" && go env GOVERSION | sed -E 's/^go1\.([0-9]+).*/\1/')
if [ "$minor" -lt "$go_minor" ] && [ "$(go env GOTOOLCHAIN)" = local ]; then
  say "Go 1.$minor is too old: nothing is tested on a cluster (needs Go 1.$go_minor)"
  exit
fi

export GOFLAGS=-buildvcs=false CGO_ENABLED=0 # needs no C compiler
if ! (cd "$here/go" && go mod download) 2>/dev/null; then
  say "the modules cannot be had: nothing is tested on a cluster (needs a Go module proxy the first time)"
  exit
fi
mkdir -p "$to"
rm -rf "$to/.built" "$crds"
begun_s=$SECONDS

fetch() { # fetch NAME PACKAGE VERSION
  say "building $1 $3"
  GOBIN=$to/of-$1 go install -trimpath -ldflags='-s -w' "$2@$3" 2> >(grep -v '^go: downloading' >&2)
  mv "$to/of-$1"/* "$to/$1" && rmdir "$to/of-$1"
}
fetch helm4 helm.sh/helm/v4/cmd/helm $helm4
fetch helm3 helm.sh/helm/v3/cmd/helm $helm3
fetch kubeconform github.com/yannh/kubeconform/cmd/kubeconform $kubeconform
fetch kwok sigs.k8s.io/kwok/cmd/kwok $kwok

named="-X k8s.io/component-base/version.gitVersion=$kubernetes -X k8s.io/component-base/version.gitMajor=1"
named+=" -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$kubernetes")"
for name in k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubectl} ./etcd; do
  say "building $(basename "$name")"
  (cd "$here/go" && go build -trimpath -ldflags="-s -w $named" -o "$to/" "$name" 2> >(grep -v '^go: downloading' >&2))
done

folder_of() { go mod download -json "$1" | sed -nE 's/^\t"Dir": "(.*)",?$/\1/p'; }
mkdir -p "$crds"
install -m 644 "$(folder_of github.com/ray-project/kuberay/ray-operator@$kuberay)/config/crd/bases/ray.io_rayclusters.yaml" "$crds"
from=$(folder_of github.com/prometheus-operator/prometheus-operator@$prometheus)
install -m 644 "$from"/example/prometheus-operator-crd/monitoring.coreos.com_{servicemonitors,scrapeconfigs,prometheusrules}.yaml "$crds"
from=$(folder_of sigs.k8s.io/kwok@$kwok)/kustomize/stage
for file in "$from"/pod/fast/pod-{ready,delete}.yaml "$from"/node/fast/node-initialize.yaml "$from"/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml; do
  echo ---
  cat "$file"
done >"$to/kwok.yaml"
printf '%s' "$of_all" >"$to/.built"
say "built in $((SECONDS - begun_s)) s"
