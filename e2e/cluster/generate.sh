#!/usr/bin/env bash
# generate.sh DIR: writes into a tree of the repository what is generated: the CRDs into the chart, the reference of the
# API, and config/default, for kustomize users, from the chart. `make lint` generates into a copy and compares.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PATH=$(tools_path):$PATH

out=${1:?the folder to write into}
chart=$out/charts/sopwith
mkdir -p "$chart/crds" "$out/config/default" "$out/docs"
# Written aside first: what fails half-way leaves the old file.
into() { cat >"$1.new" && mv "$1.new" "$1"; }
cd "$REPO"
cargo run --locked --quiet --bin crdgen -- "$chart/crds"
cargo run --locked --quiet --bin apidoc | into "$out/docs/api.md"

cat >"$out/config/default/namespace.yaml" <<'EOF'
# Written by `make generate`.
apiVersion: v1
kind: Namespace
metadata:
  name: sopwith-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
EOF
{
  # shellcheck disable=SC2016 # the quotes are the reader's
  echo '# Written by `make generate` from charts/sopwith with its default values.'
  helm template sopwith "$chart" --namespace sopwith-system --include-crds --kube-version 1.34
} | into "$out/config/default/sopwith.yaml"
cat >"$out/config/default/kustomization.yaml" <<'EOF'
# Written by `make generate`. Apply it on the server's side, as the CRDs are too big for a client's annotation:
#   kubectl apply --server-side -k config/default
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: sopwith-system
resources:
- namespace.yaml
- sopwith.yaml
EOF
