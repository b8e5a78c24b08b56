#!/usr/bin/env bash
# Installs the chart into the cluster of KUBECONFIG, or upgrades it; waits until the operator is ready by its own probes.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PATH=$(tools_path):$PATH

NAMESPACE=sopwith-system
registry=${IMAGE_REGISTRY:-localhost/sopwith} tag=${IMAGE_TAG:-dev}

kubectl create namespace "$NAMESPACE" --dry-run=client -o yaml |
  kubectl label --local -f - -o yaml pod-security.kubernetes.io/enforce=restricted |
  kubectl apply --server-side -f - >/dev/null
# helm installs CRDs once and never changes them.
kubectl apply --server-side --force-conflicts -f "$REPO/charts/sopwith/crds" >/dev/null
kubectl wait --for=condition=Established --timeout=30s -f "$REPO/charts/sopwith/crds" >/dev/null

# The tag is the same for every build; the annotation makes helm replace a pod that runs an older one.
build=$(basename "$(cat "$STATE/images/operator" 2>/dev/null || echo "$tag")" .tar)
if ! helm upgrade --install sopwith "$REPO/charts/sopwith" --namespace "$NAMESPACE" --wait --timeout 3m \
  --set image.repository="$registry/operator" --set image.tag="$tag" --set image.pullPolicy=IfNotPresent \
  --set runner.image.repository="$registry/runner" --set runner.image.tag="$tag" \
  --set-string "podAnnotations.sopwith\\.dev/build=$build" "$@" >/dev/null; then
  kubectl -n "$NAMESPACE" get pods,pvc,events >&2 || true
  kubectl -n "$NAMESPACE" describe pods >&2 || true
  kubectl -n "$NAMESPACE" logs -l app.kubernetes.io/name=sopwith --all-containers --tail 50 >&2 || true
  die "the chart could not be installed"
fi
kubectl -n "$NAMESPACE" get deployments,pods
