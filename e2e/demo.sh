#!/usr/bin/env bash
# Runs the sample: a team of five roles writes a blackjack game. Called by `make demo` once the chart is installed;
# needs KUBECONFIG, and kubectl with kubectl-sop on PATH. Can be run again. Fails unless the run succeeded, the
# flawed step was repaired in its second attempt, and everything that should be there is there.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SAMPLE=${DEMO_SAMPLE:-$REPO/config/samples/software-company}
NAMESPACE=${DEMO_NAMESPACE:-demo}
RUN=blackjack
OUT=${DEMO_OUT:-$REPO/target/demo}
image=${IMAGE_REGISTRY:-localhost/sopwith}/workbench-python:${IMAGE_TAG:-dev}
problems=()

k() { kubectl -n "$NAMESPACE" "$@"; }

header() {
  if [[ -t 1 ]]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi
}

problem() {
  problems+=("$*")
}

# What one needs to see when the demo did not work.
diagnose() {
  header "What the cluster says" >&2
  k describe agentrun "$RUN" >&2 || true
  k get jobs,pods -o wide >&2 || true
  k get events --sort-by=.lastTimestamp >&2 || true
  k logs -l "sopwith.dev/run=$RUN" --all-containers --prefix --tail 40 >&2 || true
  kubectl -n sopwith-system logs -l app.kubernetes.io/name=sopwith --tail 40 >&2 || true
}

step() { k get agentrun "$RUN" -o jsonpath="{.status.steps[?(@.name==\"$1\")].$2}"; }

prepare() {
  header "Namespace $NAMESPACE, Pod Security: restricted"
  kubectl create namespace "$NAMESPACE" --dry-run=client -o yaml |
    kubectl label --local -f - -o yaml pod-security.kubernetes.io/enforce=restricted |
    kubectl apply --server-side -f -
  # With its Job and plan: the new run's will have the same names.
  k delete agentrun "$RUN" --ignore-not-found --cascade=foreground --timeout=2m

  header "A Secret, a SopDefinition, a ToolPolicy and the recorded answers"
  k create secret generic model-provider --from-literal=api-key=unused --dry-run=client -o yaml |
    k apply --server-side --force-conflicts -f -
  kubectl kustomize "$SAMPLE" |
    sed -e "s#localhost/sopwith/workbench-python:dev#$image#" \
      -e "s#localhost/sopwith/workbench-python:\*#${image%:*}:*#" |
    k apply --server-side --force-conflicts -f -

  header "The run"
  cat "$SAMPLE/agentrun.yaml"
  k apply --server-side --force-conflicts -f "$SAMPLE/agentrun.yaml"
}

follow() {
  header "kubectl sop watch $RUN"
  kubectl sop watch "$RUN" -n "$NAMESPACE" --timeout "${DEMO_TIMEOUT:-10m}" || problem "the run did not succeed (kubectl sop watch ended with $?)"
}

pull() {
  header "kubectl sop pull $RUN: what the run left"
  rm -rf "$OUT"
  mkdir -p "$(dirname "$OUT")"
  local log
  log=$(mktemp)
  if ! kubectl sop pull "$RUN" -n "$NAMESPACE" --out "$OUT" | tee "$log"; then
    problem "kubectl sop pull failed"
    rm -f "$log"
    return
  fi
  header "Tests and coverage, as they ran in the workbench container"
  grep -E '^(tests|line coverage):' "$log" || problem "no test results among the evidence"
  grep -qE '^tests: ([1-9][0-9]*) of \1 passed \(' "$log" || problem "not every test passed"
  local rate
  rate=$(sed -n 's/^line coverage: \([0-9]*\).*/\1/p' "$log" | head -n1)
  ((${rate:-0} >= 80)) || problem "line coverage is ${rate:-unknown} %, below 80 %"
  rm -f "$log"
  places
}

# The places of a project (R6 of the requirements) that a first, complete run fills.
places() {
  local place
  for place in docs/prds docs/system_designs docs/tasks docs/code_reviews docs/code_summaries docs/quality_reports \
    resources/competitive_analysis resources/data_api_design resources/seq_flow resources/system_design \
    resources/prd resources/api_spec_and_tasks resources/defects blackjack tests test_outputs; do
    [[ -n $(find "$OUT/blackjack/$place" -type f -print -quit 2>/dev/null) ]] || problem "the project has nothing in $place"
  done
  [[ -n $(find "$OUT/evidence" -name junit.xml -print -quit 2>/dev/null) ]] || problem "the evidence has no junit.xml"
  [[ -s $OUT/messages.jsonl ]] || problem "there are no messages"
}

flaw() {
  header "The flaw in the first version: a red test stops the line, the finding goes back"
  local name attempts
  for name in implement verify; do
    attempts=$(step "$name" attempts)
    printf '%-10s attempts: %s\n' "$name" "${attempts:-0}"
    [[ $attempts == 2 ]] || problem "step $name has ${attempts:-0} attempts, expected 2"
  done
  local earlier
  earlier=$(step verify previousFailure)
  printf '%s\n' "verify failed first with: ${earlier:-nothing}"
  [[ -n $earlier ]] || problem "status does not tell the earlier failure of step verify"
}

prepare
follow
# What a failed run left says less than the cluster does.
if ((${#problems[@]} == 0)); then
  flaw
  pull
fi
header "kubectl get ar,sop,tp -o wide"
k get ar,sop,tp -o wide

if ((${#problems[@]} > 0)); then
  diagnose
  header "The demo failed" >&2
  printf '  %s\n' "${problems[@]}" >&2
  exit 1
fi
header "Done: the project is in $OUT/blackjack"
