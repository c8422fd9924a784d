#!/bin/sh
# A first image from end to end: pack a small tree, mount the image, read it back, unmount.
#
#     sudo sh examples/first-mount.sh            a sample tree
#     sudo sh examples/first-mount.sh DIRECTORY  your own
#
# Needs Debian and /dev/fuse. Installs what is missing, compiles nydusd into build/venv, and keeps
# everything else in a temporary directory, which it removes. With NYDUSD_PROGRAMS=FOLDER it installs
# nothing and uses the nydusd and nydus-image of that folder.
set -eu
repository=$(cd "$(dirname "$0")/.." && pwd)
source=${1:+$(cd "$1" && pwd)}

say() { printf '\n== %s\n' "$*"; }

say "Prepare: Debian packages, Python environment, compiled modules"
if [ ! -e /dev/fuse ]; then
    echo "There is no /dev/fuse here: a container needs --device /dev/fuse --cap-add SYS_ADMIN." >&2
    exit 1
fi
if [ -z "${NYDUSD_PROGRAMS:-}" ]; then
    sh "$repository/dev/prepare.sh"
fi
PATH=${NYDUSD_PROGRAMS:-$repository/build/venv/bin}:$PATH

work=$(mktemp -d)
mkdir "$work/blobs" "$work/cache" "$work/mount"
daemon=

clean_up() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null && wait "$daemon" || true
    fi
    if mountpoint -q "$work/mount"; then
        umount -l "$work/mount"
    fi
    if [ "$status" -ne 0 ] && [ -s "$work/nydusd.log" ]; then
        tail -n 20 "$work/nydusd.log" >&2
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "$source" ]; then
    source=$work/source
    mkdir -p "$source/bin" "$source/etc" "$source/data"
    printf '#!/bin/sh\necho "hello from a lazily loaded image"\n' >"$source/bin/hello"
    chmod 755 "$source/bin/hello"
    echo "a small file" >"$source/etc/motd"
    ln -s ../etc/motd "$source/data/link"
    head -c 32M /dev/urandom >"$source/data/noise"
    seq 1 200000 >"$source/data/numbers"
    ln "$source/data/numbers" "$source/data/hardlink"
    truncate -s 1G "$source/data/sparse"
fi

say "Pack $source"
nydus-image create --fs-version 6 --compressor zstd --bootstrap "$work/bootstrap" \
    --blob-dir "$work/blobs" "$source"
ls -l "$work/bootstrap" "$work/blobs"

say "Mount the image"
cat >"$work/config.toml" <<CONFIG
version = 2

[backend]
type = "localfs"
[backend.localfs]
dir = "$work/blobs"

[cache]
type = "blobcache"
[cache.filecache]
work_dir = "$work/cache"

[rafs]
mode = "direct"
enable_xattr = true
CONFIG
nydusd --config "$work/config.toml" --bootstrap "$work/bootstrap" --mountpoint "$work/mount" \
    >"$work/nydusd.log" 2>&1 &
daemon=$!
tries=0
until mountpoint -q "$work/mount"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 200 ] || ! kill -0 "$daemon" 2>/dev/null; then
        echo "nydusd did not mount the image:" >&2
        exit 1
    fi
    sleep 0.05
done
grep " $work/mount " /proc/mounts

say "Look at it: names and attributes come from the bootstrap, nothing has been fetched"
find "$work/mount" | head -n 12
du -sh "$work/cache" | cut -f1 | sed 's/^/in the cache: /'

say "Read it: data is fetched, checked and kept when somebody asks for it"
if [ -x "$work/mount/bin/hello" ] && [ "$source" = "$work/source" ]; then
    "$work/mount/bin/hello"
    du -sh "$work/cache" | cut -f1 | sed 's/^/in the cache: /'
fi
diff -r --no-dereference "$source" "$work/mount"
echo "every file reads back equal"
du -sh "$work/cache" | cut -f1 | sed 's/^/in the cache: /'

say "Unmount"
kill "$daemon"
wait "$daemon" || true
daemon=
if mountpoint -q "$work/mount"; then
    echo "the mount is still there" >&2
    exit 1
fi
echo "nydusd has ended, the mount is gone"
