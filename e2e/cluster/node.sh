# shellcheck shell=bash
# How a node's processes are started: sourced by what starts the cluster's node, and by what starts a second one.
# The caller has sourced lib.sh and control-plane.sh. It sets FOLDER, where the node keeps its files, and NODE, NODE_IP, NODE_CIDR, PODS_CGROUP,
# KUBELET_PORT, KUBELET_HEALTH_PORT.

# render FILE: a file of config/ with its ${NAMES} filled in. Only these names: a Corefile may have others.
render() {
  local text name
  text=$(<"$CLUSTER_DIR/config/$1")
  for name in STATE FOLDER NODE NODE_IP NODE_CIDR DNS_IP PODS_CGROUP KUBELET_PORT KUBELET_HEALTH_PORT PAUSE_IMAGE VOLUME FORWARD; do
    text=${text//"\${$name}"/${!name-}}
  done
  printf '%s\n' "$text"
}

start_containerd() {
  mkdir -p "$FOLDER/containerd"
  render containerd.toml >"$FOLDER/containerd.toml"
  start "containerd-$NODE" containerd -c "$FOLDER/containerd.toml"
}

containerd_ready() { ctr -a "$FOLDER/containerd/containerd.sock" version; }

# start_kubelet LABELS TAINTS: with the cgroups, the network and the pause image that it needs.
start_kubelet() {
  local cgroup controller
  if [[ -e /sys/fs/cgroup/cgroup.subtree_control ]]; then
    for controller in cpu cpuset memory pids io; do
      echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
    done
  fi
  for cgroup in /sys/fs/cgroup /sys/fs/cgroup/*; do
    # One hierarchy (v2), or one a controller (v1).
    if [[ -e $cgroup/cgroup.procs && ! -L $cgroup ]]; then mkdir -p "$cgroup$PODS_CGROUP"; fi
  done
  render kubelet.yaml >"$FOLDER/kubelet.yaml"
  mkdir -p "$FOLDER/cni"
  render 10-sopwith.conflist >"$FOLDER/cni/10-sopwith.conflist"
  ctr -a "$FOLDER/containerd/containerd.sock" -n k8s.io images import --no-unpack "$(tool_dir pause)/pause.tar" >/dev/null
  start "kubelet-$NODE" kubelet --config="$FOLDER/kubelet.yaml" --kubeconfig="$STATE/$NODE.kubeconfig" --hostname-override="$NODE" \
    --node-ip="$NODE_IP" --root-dir="$FOLDER/kubelet" --node-labels="$1" --register-with-taints="$2"
}

# node_ready: whether the API server has heard from its kubelet.
node_ready() { [[ $(kc get node "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == True ]]; }
