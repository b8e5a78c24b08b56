#!/usr/bin/env bash
# Prints what a shell needs to use the local cluster: eval "$(e2e/cluster/env.sh)"
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cat <<EOF
export KUBECONFIG='$STATE/admin.kubeconfig'
export SOPWITH_STATE='$STATE'
export SOPWITH_AUDIT_LOG='$STATE/log/audit.log'
export PATH='$(tools_path)':\$PATH
EOF
