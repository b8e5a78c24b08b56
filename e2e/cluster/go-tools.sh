#!/usr/bin/env bash
# Builds the cluster's parts that Debian does not have from their Go modules (go/*, one module a tool: tools that
# share a go.mod break each other). Each is built aside and moved in place, so an interrupted build leaves nothing.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version_flags() {
  local p=k8s.io/component-base/version v
  v=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
  echo "-X $p.gitVersion=$v -X $p.gitMajor=1 -X $p.gitMinor=$(cut -d. -f2 <<<"$v") -X $p.gitCommit=unknown -X $p.gitTreeState=clean"
}

# packages NAME: what to build in a tool's module.
packages() {
  if [[ $1 == kstatus ]]; then echo .; else go list -f '{{.ImportPath}}' tool; fi
}

build() {
  local name=$1 dir tmp flags='-s -w' package out
  dir=$(tool_dir "$name")
  rm -rf "$CACHE/tools/.build-$name".* # of an interrupted run; the lock is ours
  tmp=$(mktemp -d "$CACHE/tools/.build-$name.XXXXXX")
  # shellcheck disable=SC2064 # the folder of now; the caller is a subshell
  trap "rm -rf '$tmp'" EXIT
  chmod 755 "$tmp"
  cd "$CLUSTER_DIR/go/$name"
  if [[ $name == kubernetes ]]; then flags+=" $(version_flags)"; fi
  mkdir -p "$tmp/bin"
  for package in $(packages "$name"); do
    out=$(basename "$package")
    if [[ $name != kubernetes ]]; then out=$name; fi
    CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -ldflags "$flags" -o "$tmp/bin/$out" "$package"
  done
  rm -rf "$dir"
  mv "$tmp" "$dir"
}

command -v go >/dev/null || die "go is missing: install Go $(sed -n 's/^go //p' "$CLUSTER_DIR/go/etcd/go.mod") or newer and put it on PATH"
mkdir -p "$CACHE/tools"
for name in "${GO_TOOLS[@]}"; do
  if [[ -d $(tool_dir "$name")/bin ]]; then continue; fi
  # Two runs at once build a tool once.
  (
    flock 9
    [[ -d $(tool_dir "$name")/bin ]] || stage "build $name" build "$name"
  ) 9>"$CACHE/tools/.$name.lock"
done
