#!/usr/bin/env bash
# Installs the Debian packages that the cluster, the images and the tests use, where their commands are missing.
# Their services are never started: the cluster starts its own containerd, the tests their own Prometheus.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# what shows that it is there : the package
NEEDED="
awk:mawk
busybox:busybox-static
buildah:buildah
conntrack:conntrack
containerd:containerd
ctr:containerd
curl:curl
flock:util-linux
gcc:gcc
git:git
ip:iproute2
iptables:iptables
jq:jq
make:make
mmdebstrap:mmdebstrap
nft:nftables
openssl:openssl
pgrep:procps
prometheus:prometheus
promtool:prometheus
python3:python3
runc:runc
/usr/sbin/sshd:openssh-server
ssh-keygen:openssh-client
setsid:util-linux
shellcheck:shellcheck
/etc/ssl/certs/ca-certificates.crt:ca-certificates
/usr/include/stdio.h:libc6-dev
/usr/lib/cni/bridge:containernetworking-plugins
"

there() {
  if [[ $1 == /* ]]; then [[ -e $1 ]]; else command -v "$1" >/dev/null; fi
}

missing() {
  local row
  for row in $NEEDED; do
    there "${row%%:*}" || echo "${row##*:}"
  done
  # The wheel of ruff comes from PyPI.
  python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
}

install() {
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" </dev/null
  if command -v systemctl >/dev/null && [[ -d /run/systemd/system ]]; then
    systemctl disable containerd prometheus prometheus-node-exporter 2>/dev/null || true
    if [[ " $* " == *" openssh-server "* ]]; then systemctl disable ssh 2>/dev/null || true; fi
  fi
}

mapfile -t packages < <(missing | sort -u)
if ((${#packages[@]} == 0)); then exit 0; fi
command -v apt-get >/dev/null || die "missing: ${packages[*]} (Debian package names); this is no Debian, so install them by hand"
if [[ $(id -u) != 0 ]]; then
  die "missing Debian packages: ${packages[*]}. Run: sudo apt-get install --no-install-recommends ${packages[*]}"
fi
stage "install ${packages[*]}" install "${packages[@]}" >"${TMPDIR:-/tmp}/sopwith-packages.log" 2>&1 || {
  cat "${TMPDIR:-/tmp}/sopwith-packages.log" >&2
  die "apt-get could not install: ${packages[*]}"
}
