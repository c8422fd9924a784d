#!/bin/sh
# Build containerd-nydus-grpc and the client that pulls through it: sh tests/snapshotter/prepare.sh
#
# Needs Go 1.24 or newer and the Go module proxy; takes minutes the first time and nothing after it.
# The snapshotter's module has `exclude` lines, so that `go install MODULE@VERSION` refuses it: it
# is built from its own folder.
set -eu
cd "$(dirname "$0")/../.."

module=github.com/containerd/nydus-snapshotter
version=${NYDUS_SNAPSHOTTER_VERSION:-v0.15.15}
made=$PWD/build/snapshotter
PATH=$PATH:/usr/local/go/bin

if [ -e "$made/$version" ] && [ ! tests/snapshotter/client.go -nt "$made/$version" ]; then
    exit 0
fi
command -v go >/dev/null || {
    echo "tests/snapshotter: no Go here, the snapshotter is not built" >&2
    exit 1
}
source=$(go mod download -json "$module@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
rm -rf "$made"
mkdir -p "$made"
cp -r "$source" "$made/source"
chmod -R u+w "$made/source"
mkdir "$made/source/cmd/nydus-pull"
cp tests/snapshotter/client.go "$made/source/cmd/nydus-pull/main.go"
(cd "$made/source" && go build -o "$made/" ./cmd/containerd-nydus-grpc ./cmd/nydus-pull)
touch "$made/$version"
