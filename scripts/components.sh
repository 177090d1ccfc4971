#!/usr/bin/env bash
# Puts the programs of others that tests need, and pip does not bring, into .work/components/bin.
#   scripts/components.sh nginx promtool
# A program that is on the PATH is used as it is. Otherwise its Debian package is downloaded and unpacked here:
# nothing outside of this checkout changes, no service is started, and nobody needs to be root. Only when the
# unpacked program lacks a library of the system is the package installed, as root, or asked for.
# Safe to run again: it does nothing when the programs are there.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/.work/components

say() { printf 'components: %s\n' "$*" >&2; }

starts() { # starts FILE: whether the program runs on this machine
    case $(basename "$1") in
        nginx) "$1" -v ;;
        spin) "$1" -V ;;
        ssh-*) ! ldd "$1" | grep -q 'not found' ;; # they have no --version
        *) "$1" --version ;;
    esac >/dev/null 2>&1
}

on_path() { PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" || true; }

unpack() { # unpack PACKAGE MEMBER: the member of the newest package, at .work/components/MEMBER
    local room
    room=$(mktemp -d)
    if ! (cd "$room" && apt-get download -qq "$1") >/dev/null 2>&1; then
        if [ "$(id -u)" = 0 ]; then apt-get update -qq >/dev/null || true; fi
        (cd "$room" && apt-get download -qq "$1") >"$room/said" 2>&1 || {
            say "cannot download the Debian package $1: $(tail -n 1 "$room/said")"
            rm -rf "$room"
            return 1
        }
    fi
    mkdir -p "$folder"
    dpkg-deb --fsys-tarfile "$room"/*.deb | tar -x -C "$folder" "./$2"
    rm -rf "$room"
}

need() { # need PROGRAM PACKAGE MEMBER
    local link=$folder/bin/$1 found
    if [ -x "$link" ] && starts "$link"; then return; fi
    mkdir -p "$folder/bin"
    found=$(on_path "$1")
    if [ -z "$found" ]; then
        if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
            say "$1 is missing, and this machine has no apt-get to fetch it with: install $2, then again"
            exit 2
        fi
        say "fetching $1"
        unpack "$2" "$3" || { say "$1 is missing; run: sudo apt-get update && sudo apt-get install $2"; exit 2; }
        found=$folder/$3
    fi
    if ! starts "$found" && [ "$(id -u)" = 0 ]; then
        say "installing $2 with what it needs"
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
        found=$(on_path "$1")
    fi
    if [ -z "$found" ] || ! starts "$found"; then
        say "$1 does not start: $("$found" --version 2>&1 | head -n 1); run: sudo apt-get install $2"
        exit 2
    fi
    ln -sfn "$found" "$link"
}

# PostgreSQL is a server with programs and libraries of its own: it is installed, and no cluster is made. Tests
# take the newest of Debian's versioned folders, not the `postgres` on the PATH, which may be anybody's.
need_postgresql() {
    have() { compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
    if have; then return; fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "PostgreSQL is missing; run: sudo apt-get install postgresql"
        exit 2
    fi
    say "installing postgresql"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null || true
    apt-get install -y -qq --no-install-recommends postgresql-common >/dev/null
    sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    apt-get install -y -qq --no-install-recommends postgresql >/dev/null
    have || { say "apt-get installed no /usr/lib/postgresql/*/bin/postgres"; exit 2; }
}

# A token made of software: a PKCS#11 library, and a program that makes tokens in a folder the caller names.
need_softhsm() {
    need softhsm2-util softhsm2 usr/bin/softhsm2-util
    if [ -e /usr/lib/softhsm/libsofthsm2.so ] || [ -e "$folder/usr/lib/softhsm/libsofthsm2.so" ]; then return; fi
    unpack libsofthsm2 usr/lib || { say "SoftHSM is missing; run: sudo apt-get install softhsm2"; exit 2; }
}

# A browser without a window: a package with many libraries, so it is installed. Pages are looked at with it.
need_chromium() {
    local found
    have() { found=$(on_path chromium-headless-shell); [ -n "$found" ] || found=$(on_path chromium); [ -n "$found" ]; }
    if ! have; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            say "Chromium is missing; run: sudo apt-get install chromium-headless-shell"
            exit 2
        fi
        say "installing chromium-headless-shell"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >/dev/null || true
        apt-get install -y -qq --no-install-recommends chromium-headless-shell >/dev/null ||
            apt-get install -y -qq --no-install-recommends chromium >/dev/null
        have || { say "apt-get installed no Chromium"; exit 2; }
    fi
    mkdir -p "$folder/bin"
    ln -sfn "$found" "$folder/bin/chromium"
}

# axe-core, which finds what keeps people out of a page: one script, out of a wheel whose hash stands here.
need_axe() {
    local room
    if [ -e "$folder/axe.min.js" ]; then return; fi
    local python=${PYTHON:-python3}
    if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
    room=$(mktemp -d)
    say "fetching axe-core"
    echo "axe-playwright-python==0.1.8 --hash=sha256:fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8" \
        >"$room/wanted.txt"
    "$python" -m pip download -q --no-deps --require-hashes -r "$room/wanted.txt" -d "$room" >"$room/said" 2>&1 ||
        { say "cannot download axe-playwright-python from PyPI: $(tail -n 1 "$room/said")"; exit 2; }
    mkdir -p "$folder"
    "$python" - "$room" "$folder/axe.min.js" <<'END'
import pathlib, sys, zipfile
(wheel,) = pathlib.Path(sys.argv[1]).glob("*.whl")
pathlib.Path(sys.argv[2]).write_bytes(zipfile.ZipFile(wheel).read("axe_playwright_python/axe.min.js"))
END
    rm -rf "$room"
}

for name in "$@"; do
    case $name in
        chromium) need_chromium ;;
        axe) need_axe ;;
        softhsm) need_softhsm ;;
        ssh) for each in ssh-agent ssh-add ssh-keygen; do need $each openssh-client usr/bin/$each; done ;;
        nginx) need nginx nginx usr/sbin/nginx ;;
        systemd-analyze) need systemd-analyze systemd usr/bin/systemd-analyze ;;
        promtool) need promtool prometheus usr/bin/promtool ;;
        strace) need strace strace usr/bin/strace ;;
        postgresql) need_postgresql ;;
        spin) need spin spin usr/bin/spin ;;
        gcc) need gcc gcc usr/bin/gcc ;;
        *) say "no component $name; there are nginx, promtool, strace, systemd-analyze, postgresql, spin, gcc, softhsm, chromium and axe"; exit 2 ;;
    esac
done
