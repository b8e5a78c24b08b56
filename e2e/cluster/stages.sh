#!/usr/bin/env bash
# stages.sh TITLE STAGE...: runs make's targets one after the other, shows the time of each, and a table at the end.
# The first that fails ends it, and its status is the result.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

title=$1
shift
rows=()
begin=$(date +%s.%N)

table() {
  local status=$?
  printf '\n%s\n' "$title: the time of each stage"
  printf '  %-14s %10s  %s\n' "${rows[@]}"
  printf '  %-14s %10s\n' total "$(seconds "$begin" "$(date +%s.%N)")"
  exit "$status"
}
trap table EXIT

for name in "$@"; do
  printf '\n==> %s\n' "$name"
  start=$(date +%s.%N)
  status=0
  make -C "$REPO" "$name" || status=$?
  time=$(seconds "$start" "$(date +%s.%N)")
  if ((status != 0)); then
    rows+=("$name" "$time" "FAILED")
    printf '==> %s failed after %s\n' "$name" "$time" >&2
    exit "$status"
  fi
  rows+=("$name" "$time" "")
  printf '==> %s: %s\n' "$name" "$time"
done
