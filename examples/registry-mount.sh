#!/bin/sh
# An image in a registry: start one, push an image's blob, mount the image from there, read it back.
#
#     sudo sh examples/registry-mount.sh [DIRECTORY]
#
# Needs Debian and /dev/fuse; installs docker-registry and curl where they are missing. Keeps everything
# else in a temporary directory, which it removes. NYDUSD_PROGRAMS as in first-mount.sh.
set -eu
repository=$(cd "$(dirname "$0")/.." && pwd)
source=$(cd "${1:-$repository/docs}" && pwd)

say() { printf '\n== %s\n' "$*"; }

say "Prepare"
if [ -z "${NYDUSD_PROGRAMS:-}" ]; then
    sh "$repository/dev/prepare.sh" docker-registry curl
fi
PATH=${NYDUSD_PROGRAMS:-$repository/build/venv/bin}:$PATH
host=127.0.0.1:${REGISTRY_PORT:-5055}
repo=team/app

work=$(mktemp -d)
mkdir "$work/blobs" "$work/cache" "$work/mount"
daemon=
registry=

clean_up() {
    status=$?
    trap - EXIT INT TERM
    if mountpoint -q "$work/mount"; then
        umount -l "$work/mount"
    fi
    for process in $daemon $registry; do
        kill "$process" 2>/dev/null && wait "$process" || true
    done
    if [ "$status" -ne 0 ]; then
        tail -n 20 "$work"/*.log >&2 || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

until_it_works() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 200 ]; then
            echo "this did not work for ten seconds: $*" >&2
            exit 1
        fi
        sleep 0.05
    done
}

say "A registry at $host"
cat >"$work/registry.yml" <<CONFIG
version: 0.1
storage: {filesystem: {rootdirectory: "$work/registry"}}
http: {addr: "$host"}
CONFIG
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry=$!
until_it_works curl -sf "http://$host/v2/"

say "Pack $source and push its blob"
nydus-image create --bootstrap "$work/bootstrap" --blob-dir "$work/blobs" "$source"
for blob in "$work/blobs"/*; do
    id=$(basename "$blob")
    upload=$(curl -sSf -X POST -o /dev/null -w '%header{location}' "http://$host/v2/$repo/blobs/uploads/")
    curl -sSf -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$blob" \
        "$upload&digest=sha256:$id"
    rm "$blob"
    echo "pushed $id"
done

say "Mount it from there"
cat >"$work/config.toml" <<CONFIG
version = 2

[backend]
type = "registry"
[backend.registry]
scheme = "http"
host = "$host"
repo = "$repo"

[cache]
type = "blobcache"
[cache.filecache]
work_dir = "$work/cache"

[rafs]
mode = "direct"
CONFIG
nydusd --config "$work/config.toml" --bootstrap "$work/bootstrap" --mountpoint "$work/mount" \
    >"$work/nydusd.log" 2>&1 &
daemon=$!
until_it_works mountpoint -q "$work/mount"
grep " $work/mount " /proc/mounts

say "Read it back"
diff -r --no-dereference "$source" "$work/mount"
echo "every file reads back equal"

say "Once more without the registry: what was read is on the local disk"
kill "$registry"
wait "$registry" || true
registry=
diff -r --no-dereference "$source" "$work/mount"
echo "every file reads back equal"

say "Unmount"
kill "$daemon"
wait "$daemon"
daemon=
echo "nydusd has ended"
