#!/usr/bin/env bash
# Builds the pause image, which every pod's sandbox runs, as an archive that containerd imports.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=$(tool_dir pause)
if [[ -e $dir/pause.tar ]]; then exit 0; fi
mkdir -p "$CACHE/tools"
tmp=$(mktemp -d "$CACHE/tools/.build-pause.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"

gcc -static -Os -s -Wall -Wextra -Werror -o pause "$CLUSTER_DIR/images/pause/pause.c"
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf layer.tar pause
layer=$(sha256sum layer.tar | cut -d' ' -f1)
machine=$(go env GOARCH)
printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/pause"],"User":"65532:65532"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$machine" "$layer" >config.json
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$PAUSE_IMAGE" >manifest.json
tar -cf pause.tar manifest.json config.json layer.tar
mkdir -p "$dir"
mv pause.tar "$dir/pause.tar"
