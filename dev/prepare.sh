#!/bin/sh
# Prepare a Debian machine: sh dev/prepare.sh [--no-install] [PACKAGE...]
#
# Installs the Debian packages that a build needs, and those named, as far as they are missing
# (as root; otherwise it says which). Makes the environment build/venv and installs
# nydusd there, compiled in place; with --no-install only the empty environment.
set -eu
cd "$(dirname "$0")/.."

install=yes
if [ "${1:-}" = --no-install ]; then
    install=no
    shift
fi

packages="gcc libc6-dev pkg-config libfuse-dev liblz4-dev zlib1g-dev libisal-dev
libssl-dev libcurl4-openssl-dev ca-certificates"
# For mounts without root; the two packages exclude each other.
if ! command -v fusermount3 >/dev/null && ! command -v fusermount >/dev/null; then
    packages="$packages fuse"
fi

works() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=
for name in ${PYTHON:-} python3.11 python3 python3.12 python3.13; do
    if works "$name"; then
        python=$name
        break
    fi
done
# A Python of the distribution has its headers and venv in packages of their own.
if [ -z "$python" ]; then
    python=python3
    packages="$packages python3 python3-dev python3-venv"
elif "$python" -c 'import sys; sys.exit(not sys.base_prefix == "/usr")'; then
    packages="$packages python3-dev python3-venv"
fi

missing=
for package in $packages "$@"; do
    if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
        missing="$missing $package"
    fi
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "Please install these Debian packages first:$missing" >&2
        exit 1
    fi
    echo "Installing Debian packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
if ! works "$python"; then
    echo "Python 3.11 or newer is needed; $python is older. Name another with PYTHON=..." >&2
    exit 1
fi

if [ ! -x build/venv/bin/python ] || ! works build/venv/bin/python; then
    mkdir -p build
    "$python" -m venv build/venv
fi
# Compiled again only when something that goes into it is newer than the last time.
stamp=build/venv/nydusd-installed
if [ "$install" = yes ] && { [ ! -e "$stamp" ] ||
    [ -n "$(find setup.py pyproject.toml pyx -newer "$stamp" -type f | head -n 1)" ]; }; then
    echo "Compiling nydusd into build/venv (a minute or two)"
    build/venv/bin/python -m pip install -q --disable-pip-version-check --editable .
    touch "$stamp"
fi
# An editable install is not byte-compiled, and some environments forbid Python to do it later:
# every start would compile again.
if [ "$install" = yes ]; then
    build/venv/bin/python -m compileall -q nydusd
fi
