#!/usr/bin/env bash
# Everything that reads the sources without running them. All checks run; the first failure does not hide the next.
set -uo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PATH=$(tools_path):$PATH
cd "$REPO" || exit 1

failed=()
check() {
  local name=$1 start status=0
  shift
  start=$(date +%s.%N)
  printf '  -> %s\n' "$name"
  "$@" || status=$?
  printf '  -> %s: %s%s\n' "$name" "$(seconds "$start" "$(date +%s.%N)")" "$( ((status == 0)) || echo ', FAILED')"
  if ((status != 0)); then failed+=("$name"); fi
}

# Generated files are what the sources say. Compared in a copy: a check writes nothing into the tree.
drift() {
  local copy status=0
  copy=$(mktemp -d)
  mkdir -p "$copy/charts" "$copy/config"
  cp -a charts/sopwith "$copy/charts/"
  # What is not generated any more must go, too.
  rm -f "$copy"/charts/sopwith/crds/*
  "$CLUSTER_DIR/generate.sh" "$copy" || status=1
  diff -ru charts/sopwith/crds "$copy/charts/sopwith/crds" || status=1
  diff -ru config/default "$copy/config/default" || status=1
  diff -u docs/api.md "$copy/docs/api.md" || status=1
  rm -rf "$copy"
  if ((status != 0)); then echo "generated files differ from their sources: run 'make generate' and commit the result" >&2; fi
  return "$status"
}

alert_tests() {
  local file files=()
  for file in charts/sopwith/alerts/*test*.yaml charts/sopwith/alerts/tests/*.yaml; do
    if [[ -e $file ]]; then files+=("$file"); fi
  done
  ((${#files[@]} > 0)) || die "charts/sopwith/alerts has no tests"
  promtool test rules "${files[@]}"
}

check "cargo fmt" cargo fmt --all --check
check "cargo clippy" cargo clippy --locked --quiet --workspace --all-features --all-targets -- -D warnings
check "cargo deny" cargo deny --log-level error check licenses bans sources
check "cargo machete" cargo machete
check "generated files" drift
check "helm lint" helm lint --quiet charts/sopwith
check "alert rules" promtool check rules charts/sopwith/alerts/*.rules.yaml
check "alert tests" alert_tests
mapfile -t scripts < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)
check "shellcheck" shellcheck -x "${scripts[@]}"

if ((${#failed[@]} > 0)); then
  printf 'lint failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
  exit 1
fi
