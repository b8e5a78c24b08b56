#!/usr/bin/env bash
# Builds the Cargo tools that `make lint` uses, each in its pinned version.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

build() {
  local tool=$1 dir tmp
  dir=$(tool_dir "${tool%@*}")
  rm -rf "$CACHE/tools/.build-$name".* # of an interrupted run; the lock is ours
  tmp=$(mktemp -d "$CACHE/tools/.build-${tool%@*}.XXXXXX")
  # shellcheck disable=SC2064 # the folder of now; the caller is a subshell
  trap "rm -rf '$tmp'" EXIT
  chmod 755 "$tmp"
  # One target folder for both: they share dependencies. Away from the workspace, so that its lints and profile stay out.
  (cd / && CARGO_TARGET_DIR=$CACHE/tools/.cargo-target CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo install --quiet --locked --root "$tmp" "$tool")
  rm -rf "$dir"
  mv "$tmp" "$dir"
}

command -v cargo >/dev/null || die "cargo is missing: install Rust (https://rustup.rs) and put it on PATH"
mkdir -p "$CACHE/tools"
for tool in "${CARGO_TOOLS[@]}"; do
  if [[ -d $(tool_dir "${tool%@*}")/bin ]]; then continue; fi
  (
    flock 9
    [[ -d $(tool_dir "${tool%@*}")/bin ]] || stage "build $tool" build "$tool"
  ) 9>"$CACHE/tools/.${tool%@*}.lock"
done
rm -rf "$CACHE/tools/.cargo-target"
