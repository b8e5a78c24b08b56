#!/usr/bin/env bash
# render.sh [FOLDER]: writes config/default for kustomize users from the chart, which is the one source of manifests.
# FOLDER (default: config/default beside this script) receives crds.yaml and operator.yaml; the rest there is kept by hand.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
chart=$here/../charts/sopwith
out=${1:-$here/default}
mkdir -p "$out"

head='# Generated from charts/sopwith by config/render.sh. Do not edit.'
{
  echo "$head"
  for crd in "$chart"/crds/*.yaml; do
    echo ---
    grep -v '^# Generated' "$crd"
  done
} >"$out/crds.yaml.new"
{
  echo "$head"
  # A version that the chart accepts: helm's own guess may be older than that.
  helm template sopwith "$chart" --namespace sopwith-system --kube-version 1.31.0 |
    sed -e '/^# Source: /d' -e 's|managed-by: Helm$|managed-by: kustomize|'
} >"$out/operator.yaml.new"
mv "$out/crds.yaml.new" "$out/crds.yaml"
mv "$out/operator.yaml.new" "$out/operator.yaml"
