#!/usr/bin/env bash
# Makes sure that everything the cluster, the images and the tests need is there. What was built stays in the cache,
# keyed by version: a second run builds nothing. With the argument `base`, without the tools of `make lint`.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

"$CLUSTER_DIR/packages.sh"
# The network's part of a Rust build goes on beside the compiler's part of the Go builds.
(cd "$REPO" && cargo fetch --locked --quiet) &
fetch=$!
"$CLUSTER_DIR/pause.sh"
"$CLUSTER_DIR/go-tools.sh"
wait "$fetch" || die "cargo fetch failed: is Cargo.lock up to date?"
if [[ ${1:-} != base ]]; then "$CLUSTER_DIR/cargo-tools.sh"; fi
