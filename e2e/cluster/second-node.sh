#!/usr/bin/env bash
# second-node.sh up|freeze|thaw|off: a second node of the local cluster, for tests of what happens when one goes. It takes only pods
# that tolerate the taint sopwith.dev/e2e. `off` is a power failure: everything of the node is killed, and nobody tells the cluster.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=e2e/cluster/control-plane.sh
source "$CLUSTER_DIR/control-plane.sh"
FOLDER=$STATE/second-node
NODE=$SECOND_NODE
NODE_IP=$SECOND_NODE_IP
NODE_CIDR=10.244.1.0/24
PODS_CGROUP=/sopwith/second
KUBELET_PORT=10260
KUBELET_HEALTH_PORT=10258
# shellcheck source=e2e/cluster/node.sh
source "$CLUSTER_DIR/node.sh"
need_root
PATH=$(tools_path):$PATH

# of_node PROGRAM...: ids of the node's own processes that run one of the programs.
of_node() { STATE=$FOLDER processes "$@"; }

signal() {
  local pids
  pids=$(of_node kubelet)
  [[ -n $pids ]] || die "no kubelet of $NODE runs"
  # shellcheck disable=SC2086 # a list
  kill "-$1" $pids
}

off() {
  end_all of_node kubelet containerd containerd-shim-runc-v2
  end_all containers "$PODS_CGROUP"
}

up() {
  local image
  off
  unmount_all "$FOLDER"
  rm -rf --one-file-system "$FOLDER"
  mkdir -p "$FOLDER"
  ip address replace "$NODE_IP/32" dev "$DEVICE"
  start_containerd
  wait_for 30 "containerd of $NODE" containerd_ready
  # What images.sh gave to the first node.
  for image in runner workbench-python; do
    ctr -a "$FOLDER/containerd/containerd.sock" -n k8s.io images import "$(<"$STATE/images/$image")" >/dev/null
  done
  start_kubelet sopwith.dev/e2e=second sopwith.dev/e2e=second:NoSchedule
  wait_for 60 "node $NODE" node_ready
}

case ${1:-} in
  up) up ;;
  # A kubelet that says nothing any more, while its pods work on.
  freeze) signal STOP ;;
  # A node that fails again before it was seen Ready has pods that nobody marks a second time.
  thaw)
    signal CONT
    wait_for 60 "node $NODE" node_ready
    ;;
  off) off ;;
  *) die "usage: second-node.sh up|freeze|thaw|off" ;;
esac
