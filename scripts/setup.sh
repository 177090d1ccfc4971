#!/usr/bin/env bash
# Makes .venv from the hash-pinned requirements and installs the three distributions into it, editable.
#   scripts/setup.sh run    what the service, the client and the demo need
#   scripts/setup.sh dev    the same, and what tests and checks need
# Safe to run again: it does nothing when nothing it depends on has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-run}
python=${PYTHON:-python3}

say() { printf 'setup: %s\n' "$*" >&2; }

if ! command -v "$python" >/dev/null; then
    say "$python not found; install Python 3.11 or newer, or name one: make PYTHON=python3.12 demo"
    exit 2
fi
if ! "$python" -c '' 2>/dev/null; then
    say "$python does not start: $("$python" -c '' 2>&1 | head -n 1)"
    exit 2
fi
if ! "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))'; then
    say "$("$python" --version) is too old; Python 3.11 or newer is needed: make PYTHON=python3.12 demo"
    exit 2
fi
if [ "$python" != python3 ] && [ -x .venv/bin/python ]; then
    minor='import sys; print("%d.%d" % sys.version_info[:2])'
    asked=$("$python" -c "$minor") there=$(.venv/bin/python -c "$minor")
    if [ "$asked" != "$there" ]; then
        say ".venv is of Python $there, not $asked: make clean, then again"
        exit 2
    fi
fi
digest() { cat "requirements/$1.txt" client/pyproject.toml server/pyproject.toml keys-ceremony/pyproject.toml "$0" | sha256sum; }
for there in "$what" dev; do # dev holds all of run: both are written from one lock
    if [ -f ".venv/.installed-$there" ] && [ "$(cat ".venv/.installed-$there")" = "$(digest "$there")" ]; then
        exit 0
    fi
done
if [ ! -x .venv/bin/python ]; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            say "installing $package"
            export DEBIAN_FRONTEND=noninteractive
            apt-get update -qq && apt-get install -y -qq "$package" >/dev/null
        else
            say "this Python has no venv; run: sudo apt-get install $package"
            exit 2
        fi
    fi
    say "making .venv"
    "$python" -m venv .venv
fi
if command -v uv >/dev/null; then uv=uv; else
    if [ ! -x .venv/bin/uv ]; then
        say "installing uv"
        # The same version and hashes that the lock names: nothing is installed that was not locked.
        awk '/^[a-z]/ { ours = /^uv==/ } ours' "requirements/$what.txt" > .venv/uv.txt
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
    fi
    uv=.venv/bin/uv
fi
say "installing the locked requirements ($what)"
# Compiled here, once and on all cores: otherwise whoever sets PYTHONDONTWRITEBYTECODE (containers do) compiles at
# every start of every process.
"$uv" pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes -r "requirements/$what.txt"
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation \
    -e ./client -e ./server -e ./keys-ceremony
digest "$what" > ".venv/.installed-$what"
say "ready"
