#!/usr/bin/env bash
# Makes sure that everything the cluster, the images and the tests need is there. What was built stays in the cache,
# keyed by version: a second run builds nothing. With the argument `base`, without the tools of `make lint` and of the tests.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mkdir -p "$CACHE"
"$CLUSTER_DIR/packages.sh"
# What waits for the network goes on beside the Go builds, which wait for the processors.
(cd "$REPO" && cargo fetch --locked --quiet) &
fetch=$!
python=
if [[ ${1:-} != base ]]; then
  "$CLUSTER_DIR/python-tools.sh" >"$CACHE/python.log" 2>&1 &
  python=$!
fi
bases=
if [[ $(id -u) == 0 ]]; then
  "$CLUSTER_DIR/images.sh" bases >"$CACHE/bases.log" 2>&1 &
  bases=$!
fi
trap 'kill "$fetch" ${bases:+"$bases"} ${python:+"$python"} 2>/dev/null || true' EXIT
"$CLUSTER_DIR/pause.sh"
if [[ ${1:-} == base ]]; then export BASE_TOOLS=1; fi
"$CLUSTER_DIR/go-tools.sh"
if [[ -n $bases ]]; then
  wait "$bases" || die "the base images could not be built: $(cat "$CACHE/bases.log")"
  cat "$CACHE/bases.log"
fi
if [[ -n $python ]]; then
  wait "$python" || die "the Python programs of the tests could not be installed: $(cat "$CACHE/python.log")"
  cat "$CACHE/python.log"
fi
wait "$fetch" || die "cargo fetch failed: is Cargo.lock up to date?"
if [[ ${1:-} != base ]]; then "$CLUSTER_DIR/cargo-tools.sh"; fi
