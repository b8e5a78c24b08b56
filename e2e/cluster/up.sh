#!/usr/bin/env bash
# Starts a one-node Kubernetes cluster with real containers on this machine, from the tools that tools.sh built.
# Begins by clearing what an earlier one left, so it can follow anything: a running one, a killed one, another clone's.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=e2e/cluster/control-plane.sh
source "$CLUSTER_DIR/control-plane.sh"
# shellcheck source=e2e/cluster/node.sh
source "$CLUSTER_DIR/node.sh"
need_root
PATH=$(tools_path):$PATH

for tool in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl coredns containerd runc; do
  command -v "$tool" >/dev/null || die "$tool is missing: run 'make tools' first"
done

network() {
  cat /proc/sys/net/ipv4/ip_forward >"$STATE/ip_forward"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  ip link add "$DEVICE" type bridge
  ip address add "$NODE_IP/32" dev "$DEVICE"
  ip link set "$DEVICE" up
  # Pods reach the world, if the machine does, in its name.
  nft -f - <<EOF
table ip sopwith {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr $POD_CIDR ip daddr != { $POD_CIDR, $SERVICE_CIDR } fib daddr type != local masquerade
  }
}
EOF
  # A container engine of the developer's own may have closed forwarding.
  if iptables -S FORWARD | grep -q '^-P FORWARD DROP'; then
    iptables -I FORWARD -s "$POD_CIDR" -m comment --comment sopwith-cluster -j ACCEPT
    iptables -I FORWARD -d "$POD_CIDR" -m comment --comment sopwith-cluster -j ACCEPT
  fi
  # Names of the world, where this machine's resolver can be reached from elsewhere than its loopback.
  grep -E '^nameserver' /etc/resolv.conf 2>/dev/null | grep -vE '127\.|::1' >"$STATE/resolv.conf" || true
}

node() {
  start_kubelet '' ''
  start proxy kube-proxy --kubeconfig="$STATE/proxy.kubeconfig" --proxy-mode=nftables --cluster-cidr="$POD_CIDR" \
    --hostname-override="$NODE" --conntrack-max-per-core=0
}

objects() {
  local VOLUME
  for VOLUME in local-1 local-2 local-3 local-4; do
    mkdir -p "$STATE/volumes/$VOLUME"
    render volume.yaml
  done | cat "$CLUSTER_DIR/config/objects.yaml" - | kc apply --server-side -f - >/dev/null
}

names() {
  local FORWARD=''
  # shellcheck disable=SC2034 # render reads it by name
  if [[ -s $STATE/resolv.conf ]]; then FORWARD="  forward . $STATE/resolv.conf"; fi
  render Corefile >"$STATE/Corefile"
  start coredns coredns -conf "$STATE/Corefile"
}

# What the waits below ask.
names_ready() { curl -fsS --noproxy '*' "http://$NODE_IP:8181/ready"; }
default_account_there() { kc -n default get serviceaccount default; }

up() {
  "$CLUSTER_DIR/down.sh"
  if [[ ! -e $STATE/$MARK && -n $(ls -A "$STATE" 2>/dev/null) ]]; then
    die "the state folder $STATE has files that are no cluster's: set SOPWITH_STATE to an empty folder"
  fi
  mkdir -p "$STATE"
  touch "$STATE/$MARK"
  mkdir -p "$STATE/log" "$STATE/pki"
  rm -f "$STATE"/log/*
  start_containerd
  network
  "$CLUSTER_DIR/pki.sh"
  start_etcd
  start_apiserver
  start_controllers
  wait_for 60 "the apiserver" etcd_and_apiserver_ready
  wait_for 30 "containerd" containerd_ready
  node
  objects
  names
  wait_for 60 "the node" node_ready
  wait_for 30 "the cluster's DNS" names_ready
  wait_for 30 "the default ServiceAccount" default_account_there
}

stage "start the cluster" up
# shellcheck disable=SC2016 # for the reader's shell
printf '     to use it: eval "$(%s)"\n' "$CLUSTER_DIR/env.sh"
