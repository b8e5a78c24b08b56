# shellcheck shell=bash
# Sourced by make's recipes: the built tools on PATH and, unless CLUSTER=current, the local cluster's kubeconfig.
_use_dir=$(dirname "${BASH_SOURCE[0]}")
if [[ ${CLUSTER:-local} == current ]]; then
  _use_env=$("$_use_dir/env.sh" | grep '^export PATH')
else
  _use_env=$("$_use_dir/env.sh")
fi
eval "$_use_env"
unset _use_dir _use_env
