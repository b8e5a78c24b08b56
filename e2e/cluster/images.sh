#!/usr/bin/env bash
# Builds the images from the repository's Dockerfile and from Debian packages, and gives them to the local cluster.
# Each archive is keyed by what it is made of, so nothing is built twice. Names: see IMAGES.
# With the argument `bases`: only what is made of Debian packages.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_root

WORKBENCHES=(workbench-python workbench-node)
IMAGES=("${WORKBENCHES[@]}" operator runner)
SUITE=bookworm

bud() { buildah --storage-driver vfs --root "$CACHE/buildah/root" --runroot "$CACHE/buildah/run" "$@"; }

# snapshot DIR: copies what the Dockerfile sees, as .dockerignore has it. Both binaries come from one state of the
# sources, and are kept under its name, whatever is edited meanwhile.
snapshot() {
  cd "$REPO"
  git ls-files -z --cached --others --exclude-standard -- \
    Cargo.toml Cargo.lock Dockerfile .dockerignore charts/sopwith/admission crds operator runner cli e2e/Cargo.toml e2e/src/lib.rs |
    while IFS= read -r -d '' file; do
      if [[ -e $file ]]; then printf '%s\0' "$file"; fi
    done |
    tar --null --files-from=- -cf - | tar -C "$1" -xf -
}

# key IMAGE: one short name for everything that an image is made of.
key() {
  case $1 in
    operator | runner)
      (
        cd "$SOURCES"
        find . -type f -print0 | sort -z | xargs -0 sha256sum
        key rust
        rustc -vV
      ) | sha256sum | cut -c1-12
      ;;
    *) digest "$CLUSTER_DIR/images/$1"/* ;;
  esac
}

archive() { echo "$CACHE/images/$1-$(key "$1").tar"; }

# rootfs IMAGE FILE: a minimal Debian with the image's packages.
rootfs() {
  local packages
  packages=$(paste -sd, "$CLUSTER_DIR/images/$1/packages")
  mmdebstrap --quiet --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$SUITE" "$2"
}

# ruff DIR: the program out of its wheel.
ruff() {
  python3 -m pip --quiet --disable-pip-version-check download --no-deps --only-binary=:all: --require-hashes -d "$1/wheel" \
    -r "$CLUSTER_DIR/images/workbench-python/requirements.txt"
  python3 - "$1" <<'EOF'
import glob, os, sys, zipfile
folder = sys.argv[1]
(wheel,) = glob.glob(f"{folder}/wheel/*.whl")
with zipfile.ZipFile(wheel) as z:
    (name,) = [n for n in z.namelist() if n.endswith(".data/scripts/ruff")]
    with open(f"{folder}/ruff", "wb") as out:
        out.write(z.read(name))
os.chmod(f"{folder}/ruff", 0o755)
EOF
}

# save IMAGE: from buildah's storage to its archive, whole or not at all.
save() {
  local to
  to=$(archive "$1")
  bud push --quiet "localhost/sopwith/$1:dev" "docker-archive:$to.part:localhost/sopwith/$1:dev"
  mv "$to.part" "$to"
}

# debian IMAGE: an image of Debian packages.
debian() {
  local context
  context=$(mktemp -d "$CACHE/images/.build.XXXXXX")
  # shellcheck disable=SC2064 # the folder of now; the caller is a subshell
  trap "rm -rf '$context'" EXIT
  rootfs "$1" "$context/rootfs.tar"
  if [[ -e $CLUSTER_DIR/images/$1/requirements.txt ]]; then ruff "$context"; fi
  bud bud --quiet --isolation chroot --tag "localhost/sopwith/$1:dev" --file "$CLUSTER_DIR/images/$1/Dockerfile" "$context" >/dev/null
}

# The build image stays in buildah's storage, which may have been deleted: so it is asked.
build_image() {
  local tag
  tag=localhost/sopwith/rust:$(key rust)
  if bud inspect --type image "$tag" >/dev/null 2>&1; then return; fi
  (stage "build image rust" debian rust)
  bud tag localhost/sopwith/rust:dev "$tag"
}

# binaries: operator and runner, compiled once.
binaries() {
  local target
  for target in operator runner; do
    bud bud --quiet --layers --isolation chroot --target "$target" --build-arg "BUILD_IMAGE=localhost/sopwith/rust:$(key rust)" \
      --volume "$(rustc --print sysroot):/opt/rust:ro" --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/opt/cargo/registry" \
      --tag "localhost/sopwith/$target:dev" --file "$SOURCES/Dockerfile" "$SOURCES" >"$CACHE/images/$target.log" 2>&1 || {
      tail -n 60 "$CACHE/images/$target.log" >&2
      die "the image $target does not build (all of it: $CACHE/images/$target.log)"
    }
    save "$target"
  done
  # The layers of the build stage are large, and of no use once the sources have changed.
  bud rmi --prune >/dev/null 2>&1 || true
}

# prune IMAGE: keep the newest archives of an image; another clone may use an older one.
prune() {
  find "$CACHE/images" -maxdepth 1 -name "$1-*.tar" -printf '%T@ %p\n' | sort -rn | tail -n +5 | cut -d' ' -f2- | xargs -r rm -f
}

# give IMAGE: into the local cluster's containerd, unless it is there.
give() {
  local tar socket=$STATE/containerd/containerd.sock
  tar=$(archive "$1")
  mkdir -p "$STATE/images"
  if [[ -e $STATE/images/$1 && $(<"$STATE/images/$1") == "$tar" ]]; then return; fi
  ctr -a "$socket" -n k8s.io images import "$tar" >/dev/null
  echo "$tar" >"$STATE/images/$1"
}

mkdir -p "$CACHE/images" "$CACHE/buildah/tmp"
# buildah keeps its cache mounts, Cargo's target folder among them, below here.
export TMPDIR=$CACHE/buildah/tmp
exec 9>"$CACHE/images/.lock"
flock 9
# What an interrupted run left.
rm -rf "$CACHE"/images/.build.* "$CACHE"/images/*.part
if [[ -n $(bud containers --quiet) ]]; then bud rm --all >/dev/null; fi

SOURCES=$(mktemp -d "$CACHE/images/.build.XXXXXX")
trap 'rm -rf "$SOURCES"' EXIT
(snapshot "$SOURCES")

for image in "${WORKBENCHES[@]}"; do
  if [[ -e $(archive "$image") ]]; then continue; fi
  (stage "build image $image" debian "$image")
  save "$image"
done
if [[ ! -e $(archive operator) || ! -e $(archive runner) ]]; then build_image; fi
if [[ ${1:-} == bases ]]; then exit 0; fi
if [[ ! -e $(archive operator) || ! -e $(archive runner) ]]; then
  (cd "$REPO" && cargo fetch --locked --quiet)
  stage "build images operator and runner" binaries
fi
for image in "${IMAGES[@]}"; do
  prune "$image"
  printf '     localhost/sopwith/%s:dev  %s\n' "$image" "$(du -h --apparent-size "$(archive "$image")" | cut -f1)"
done

if [[ ${CLUSTER:-local} == current ]]; then
  printf '     push them where your cluster finds them, for example:\n'
  for image in "${IMAGES[@]}"; do
    printf '       skopeo copy docker-archive:%s docker://%s/%s:dev\n' "$(archive "$image")" "${IMAGE_REGISTRY:-REGISTRY}" "$image"
  done
elif [[ -S $STATE/containerd/containerd.sock ]]; then
  for image in "${IMAGES[@]}"; do stage "import $image" give "$image"; done
else
  die "no local cluster runs: start it with 'make cluster-up' first, or use your own with CLUSTER=current"
fi
