#!/usr/bin/env bash
# Kills API server and etcd of the local cluster without a word of warning, and starts them again. For tests.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=e2e/cluster/control-plane.sh
source "$CLUSTER_DIR/control-plane.sh"
need_root
PATH=$(tools_path):$PATH

kill_all kube-apiserver etcd
start_etcd
start_apiserver
wait_for 60 "the apiserver" etcd_and_apiserver_ready
