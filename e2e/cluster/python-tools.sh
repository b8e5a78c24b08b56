#!/usr/bin/env bash
# Installs the Python programs that tests start, each with the pinned packages of python/NAME/requirements.txt in a folder of
# its own. Installed aside and moved in place, so an interrupted installation leaves nothing.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

install() {
  local name=$1 dir tmp
  dir=$(tool_dir "$name")
  rm -rf "$CACHE/tools/.build-$name".* # of an interrupted run; the lock is ours
  tmp=$(mktemp -d "$CACHE/tools/.build-$name.XXXXXX")
  # shellcheck disable=SC2064 # the folder of now; the caller is a subshell
  trap "rm -rf '$tmp'" EXIT
  chmod 755 "$tmp"
  PIP_ROOT_USER_ACTION=ignore nice python3 -m pip --quiet --disable-pip-version-check install --no-deps --no-compile --only-binary=:all: --require-hashes \
    --target "$tmp/lib" -r "$CLUSTER_DIR/python/$name/requirements.txt"
  mkdir "$tmp/bin"
  # pip's own scripts name the folder of the installation, which is about to move.
  cat >"$tmp/bin/$name" <<EOF
#!/bin/sh
PYTHONPATH=\$(dirname "\$0")/../lib exec python3 -c 'from $name import run_server; run_server()' "\$@"
EOF
  chmod 755 "$tmp/bin/$name"
  rm -rf "$dir"
  mv "$tmp" "$dir"
}

mkdir -p "$CACHE/tools"
for tool in "${PYTHON_TOOLS[@]}"; do
  if [[ -d $(tool_dir "$tool")/bin ]]; then continue; fi
  (
    flock 9
    [[ -d $(tool_dir "$tool")/bin ]] || stage "install $tool" install "$tool"
  ) 9>"$CACHE/tools/.$tool.lock"
done
