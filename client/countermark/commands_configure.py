"""The command `configure`: show, make or take out what points an installer at a registry (configuring.py)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from countermark.clientcerts import check
from countermark.commands_install import pinned
from countermark.configuring import TOOLS, Machine, Urls, configured, shows_certificate
from countermark.console import put, say
from countermark.credentials import load
from countermark.disk import config_home, read_file, remove_file, rewrite_file
from countermark.edits import difference, has_secret, is_edited, undone
from countermark.errors import UsageError
from countermark.limits import LOCAL_FILE_MAX_BYTES


def configure(arguments: argparse.Namespace) -> int:
    machine = Machine(Path.cwd(), Path.home(), os.environ, sys.platform)
    path = (arguments.file or TOOLS[arguments.tool].find(machine)).resolve()  # a link keeps leading there
    before = _text(path)
    undo = arguments.undo
    urls = None if undo else _urls(arguments)
    after = undone(before) if urls is None else configured(arguments.tool, before, path, urls)
    if (
        urls is not None
        and urls.certificate
        and (told := shows_certificate(arguments.tool, urls.certificate))
    ):
        say(f"the registry is read with a client certificate, which {arguments.tool} takes elsewhere: {told}")
    if after == before:
        say(f'"{path}" says so already' if is_edited(before) else f'"{path}" has nothing of ours')
        return 0
    put_difference(difference(before, after, str(path)))
    if not (arguments.write or arguments.undo):
        say(f'this is what --write does to "{path}"')
        return 0
    _replace(path, before, after)
    say(f'"{path}" is {"as it was" if arguments.undo else "changed; --undo takes it out again"}')
    return 0


def put_difference(text: str) -> None:
    for line in text.split("\n"):
        put(line)


def _urls(arguments: argparse.Namespace) -> Urls:
    _, registry, remarks = pinned(arguments)
    for remark in remarks:
        say(remark)
    index = arguments.index or f"{registry.url}/simple/"
    if has_secret(index) or any(c in index for c in "\"'\\\n\r") or "://" not in index:
        raise UsageError(
            f'"{index.rsplit("@")[-1]}" is not an address to write into a file',
            hint="without a name and a password: those belong into a keyring or .netrc",
        )
    return Urls(index, f"{registry.url}/legacy/", _certificate(arguments.tool, index))


def _certificate(tool: str, index: str) -> str | None:
    """The file of this machine's client certificate for the index. UsageError: the tool can't show it."""
    shown = load(os.environ, config_home()).certificate(index)
    if shown is None:
        return None
    check(shown, index)
    if shown[0] != shown[1]:
        raise UsageError(
            f'{tool} takes certificate and key from one file; here they are "{shown[0]}" and "{shown[1]}"',
            hint="(umask 077; cat CERTIFICATE KEY >BOTH.pem), then countermark trust add URL --client-cert BOTH.pem",
        )
    if any(c in shown[0] for c in "\n\r%"):
        raise UsageError(f"{tool} would not read the name of the file {shown[0]!r} as it is")
    return shown[0]


def _text(path: Path) -> str:
    raw = read_file(path, max_bytes=LOCAL_FILE_MAX_BYTES) or b""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f'"{path}" is not UTF-8: {error.reason} at byte {error.start}') from None


def _replace(path: Path, before: str, after: str) -> None:
    """Write it; a file that held nothing but ours goes."""
    if after:
        mode = 0o600 if path.name == ".pypirc" else 0o644
        rewrite_file(path, before.encode(), after.encode(), mode=mode)
    elif _text(path) == before:
        remove_file(path)
