# shellcheck shell=bash
# What every script of the local cluster shares: where things live, which versions, how a stage is shown.
# Sourced, never run. The caller has set -euo pipefail.

CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$CLUSTER_DIR/../.." && pwd)
export CLUSTER_DIR REPO

# Everything that was built, keyed by version: safe to keep, safe to delete.
CACHE=${SOPWITH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sopwith}
# Everything a running cluster writes. One cluster a machine, whichever clone started it.
STATE=${SOPWITH_STATE:-/var/lib/sopwith-cluster}
# Marks a folder as a cluster's state, so that only such a folder is ever emptied.
MARK=.sopwith-cluster
export CACHE STATE MARK

# Addresses. The node's is held by a bridge without ports: it is there on a machine without any network, too, and the
# same everywhere. Pods are routed (ptp), so services need no br_netfilter.
export DEVICE=sopwith0
export NODE_IP=10.244.0.1
export POD_CIDR=10.244.0.0/16
export NODE_CIDR=10.244.0.0/24
export SERVICE_CIDR=10.96.0.0/16
export KUBERNETES_IP=10.96.0.1
export NODE=node1
export FOLDER=$STATE
export DNS_IP=$NODE_IP
export PODS_CGROUP=/sopwith
export KUBELET_PORT=10250
export KUBELET_HEALTH_PORT=10248
# The node that a test adds and takes away.
export SECOND_NODE=node2
export SECOND_NODE_IP=10.244.1.1
export API_PORT=16443
export ETCD_PORT=12379
export PAUSE_IMAGE=localhost/sopwith/pause:1

# Some Debian tools live where a user's PATH does not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# die MESSAGE: end with a message that says what to do.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# stage NAME COMMAND...: run a command between a title and its time.
stage() {
  local name=$1 start end
  shift
  start=$(date +%s.%N)
  printf '  -> %s\n' "$name"
  "$@"
  end=$(date +%s.%N)
  printf '  -> %s: %s\n' "$name" "$(seconds "$start" "$end")"
}

# seconds START END: the time between two `date +%s.%N`, for people.
seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f s", b - a }'; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; with its last words if it never does.
wait_for() {
  local limit=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= end)); then
      "$@" >&2 || true
      die "$what: not within $limit s (logs are in $STATE/log)"
    fi
    sleep 0.2
  done
}

# processes PROGRAM...: ids of the processes that run one of the programs for this state folder.
processes() {
  local dir pid exe
  for dir in /proc/[0-9]*; do
    exe=$(readlink "$dir/exe" 2>/dev/null) || continue
    exe=$(basename "${exe% (deleted)}")
    if [[ " $* " != *" $exe "* ]]; then continue; fi
    # Our programs all name the state folder in an argument. The shims do, too: their socket lies in it.
    if tr '\0' ' ' <"$dir/cmdline" 2>/dev/null | grep -qF "$STATE/"; then
      pid=${dir#/proc/}
      echo "$pid"
    fi
  done
}

# end_all LISTING...: kill what a listing prints, until it prints nothing.
end_all() {
  local pids _
  for _ in $(seq 100); do
    pids=$("$@")
    if [[ -z $pids ]]; then return; fi
    # shellcheck disable=SC2086 # a list
    kill -KILL $pids 2>/dev/null || true
    sleep 0.05
  done
}

# cgroups PATH: the folders of a control group and below it in every hierarchy, the deepest first.
cgroups() { find /sys/fs/cgroup -depth -type d -path "*$1*" 2>/dev/null | grep -E "$1(/|\$)" || true; }

# containers PATH: the processes in them.
containers() {
  local dir
  cgroups "$1" | while read -r dir; do cat "$dir/cgroup.procs" 2>/dev/null || true; done | sort -un
}

# mounts FOLDER: those below it, the latest first.
mounts() { awk -v below="$1/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | tac; }

unmount_all() {
  local target _
  for _ in 1 2 3; do
    mounts "$1" | while read -r target; do umount -l "$target" 2>/dev/null || true; done
  done
}

# kill_all PROGRAM...: end the cluster's processes that run one of the programs.
kill_all() { end_all processes "$@"; }

need_root() {
  [[ $(id -u) == 0 ]] || die "the local cluster needs root (it makes a bridge, mounts and network rules). Run as root, or use your own cluster with CLUSTER=current"
}

# digest FILE...: one short name for the content of files.
digest() { cat "$@" | sha256sum | cut -c1-12; }

# The Go modules under go/ and the package each tool is built from. Versions are in their go.mod.
GO_TOOLS=(kubernetes etcd coredns helm kstatus)
# What only tests need is not built for the demo.
if [[ -z ${BASE_TOOLS:-} ]]; then GO_TOOLS+=(versitygw); fi
# Cargo tools as name@version.
CARGO_TOOLS=(cargo-deny@0.20.2 cargo-machete@0.9.2)
# Python programs of the tests; their packages are pinned under python/.
PYTHON_TOOLS=(litellm)

# tool_dir NAME: the folder that holds the built binaries of a tool, keyed by everything that makes them.
tool_dir() {
  local name=$1 tool
  if [[ -d $CLUSTER_DIR/go/$name ]]; then
    echo "$CACHE/tools/$name-$(digest "$CLUSTER_DIR/go/$name"/* "$CLUSTER_DIR/go-tools.sh")"
    return
  fi
  if [[ -d $CLUSTER_DIR/python/$name ]]; then
    echo "$CACHE/tools/$name-$(digest "$CLUSTER_DIR/python/$name"/* "$CLUSTER_DIR/python-tools.sh")"
    return
  fi
  for tool in "${CARGO_TOOLS[@]}"; do
    if [[ ${tool%@*} == "$name" ]]; then
      echo "$CACHE/tools/$name-${tool#*@}"
      return
    fi
  done
  echo "$CACHE/tools/$name-$(digest "$CLUSTER_DIR/images/$name"/* "$CLUSTER_DIR/$name.sh")"
}

# tools_path: the folders of all tools, as a PATH.
tools_path() {
  local name path=
  for name in "${GO_TOOLS[@]}" "${CARGO_TOOLS[@]%@*}" "${PYTHON_TOOLS[@]}"; do path+=$(tool_dir "$name")/bin:; done
  echo "${path%:}"
}
