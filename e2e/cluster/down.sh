#!/usr/bin/env bash
# Removes everything that a cluster of up.sh left: processes, mounts, cgroups, network, files. Safe to repeat, and
# needs nothing that an earlier run wrote down: it finds things by the state folder's path and by name.
# At its end it looks again, lists what is still there and fails if anything is.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_root

PROGRAMS="etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy coredns containerd containerd-shim containerd-shim-runc-v2 ctr"

# anybodys PROGRAM: whether it runs at all. A process that has ended and was not reaped has no executable any more.
anybodys() {
  local link
  for link in /proc/[0-9]*/exe; do
    if [[ $(readlink "$link" 2>/dev/null) == */"$1" ]]; then return 0; fi
  done
  return 1
}

interfaces() {
  # Both ends of a pod's pair are gone with the pod's namespace; what is left is the bridge, and pairs whose pod died half-made.
  ip -o link show 2>/dev/null | awk -F': ' '{ sub(/@.*/, "", $2); print $2 }' | grep -xE "$DEVICE" || true
  ip -o route show 2>/dev/null | awk '$1 ~ /^10\.244\.[01]\./ { for (i = 1; i < NF; i++) if ($i == "dev") print $(i + 1) }' | grep '^veth' | sort -u || true
}

tables() { nft list tables 2>/dev/null | grep -E ' (sopwith|kube-proxy)$' || true; }

forward_rules() { iptables -S FORWARD 2>/dev/null | grep -F 'sopwith-cluster' || true; }

# cni_results: what the network plugins remember of our pods, and of the loopback in them.
cni_results() {
  local file id
  for file in /var/lib/cni/results/sopwith-*; do
    if [[ ! -e $file ]]; then continue; fi
    id=$(basename "$file" -eth0)
    printf '%s\n' "/var/lib/cni/results/cni-loopback-${id##*-}-lo" "$file"
  done
}

files() {
  local path
  # Only what up.sh marked as its own: a mistaken SOPWITH_STATE must not cost anybody's files.
  if [[ -e $STATE/$MARK ]]; then find "$STATE" -mindepth 1 -maxdepth 1 ! -name log ! -name "$MARK" 2>/dev/null || true; fi
  find /var/log/containers -lname "$STATE/*" 2>/dev/null || true
  cni_results
  # Sockets and states of shims that were killed. Nobody else's, as no containerd runs.
  if ! anybodys containerd; then
    for path in /run/containerd/s /run/containerd/runc; do if [[ -e $path ]]; then echo "$path"; fi; done
  fi
}

left() {
  processes "$PROGRAMS" | sed 's/^/process /'
  containers "$PODS_CGROUP" | sed 's/^/process in a container /'
  mounts "$STATE" | sed 's/^/mount /'
  cgroups "$PODS_CGROUP" | sed 's/^/cgroup /'
  interfaces | sed 's/^/interface /'
  tables | sed 's/^/nftables /'
  forward_rules | sed 's/^/iptables rule /'
  files | sed 's/^/file /'
}

remove_network() {
  local family name rule
  interfaces | while read -r name; do ip link delete "$name" 2>/dev/null || true; done
  tables | while read -r _ family name; do nft delete table "$family" "$name"; done
  forward_rules | while read -r rule; do
    # shellcheck disable=SC2086 # a rule is words
    iptables ${rule/#-A/-D}
  done
  conntrack -D --orig-src "$POD_CIDR" >/dev/null 2>&1 || true
  if [[ -f $STATE/ip_forward ]]; then cat "$STATE/ip_forward" >/proc/sys/net/ipv4/ip_forward; fi
}

remove_cgroups() {
  local _
  for _ in $(seq 50); do
    cgroups "$PODS_CGROUP" | while read -r dir; do rmdir "$dir" 2>/dev/null || true; done
    if [[ -z $(cgroups "$PODS_CGROUP") ]]; then return; fi
    sleep 0.05
  done
}

# The order matters: first who would start things anew, then the containers, then what they stood on.
end_all processes kubelet kube-controller-manager kube-scheduler
end_all processes "$PROGRAMS"
end_all containers "$PODS_CGROUP"
unmount_all "$STATE"
remove_cgroups
remove_network
files | while read -r path; do rm -rf --one-file-system "$path"; done
# Files and folders whose place nobody can choose. Those of another kubelet stay; folders go where they are empty.
if ! anybodys kubelet; then
  rm -f /var/lib/kubelet/device-plugins/{DEPRECATION,kubelet.sock,kubelet_internal_checkpoint}
fi
rmdir /run/containerd /var/log/containers /var/lib/kubelet/device-plugins /var/lib/kubelet /var/lib/cni/results /var/lib/cni 2>/dev/null || true

rest=$(left)
if [[ -n $rest ]]; then
  printf 'still there:\n%s\n' "$rest" >&2
  die "the cluster could not be removed completely"
fi
