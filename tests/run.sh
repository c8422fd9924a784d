#!/bin/sh
# Run every check: lint, types, all tests, hostile inputs. Arguments go to pytest: sh tests/run.sh tests/rafs -x
#
# As root on Debian it installs what is missing; otherwise it says what that is.
set -eu
cd "$(dirname "$0")/.."

# nginx and openssl: servers that tests start. containerd, runc, busybox: for tests/snapshotter.
sh dev/prepare.sh --no-install nginx-light openssl docker-registry curl containerd runc busybox-static git make
sh tests/snapshotter/prepare.sh || echo "tests/snapshotter will be skipped" >&2
build/venv/bin/python -m pip install -q --disable-pip-version-check 'tox>=4.46'
exec build/venv/bin/python -m tox run -e lint,types,test,hostile -- "$@"
