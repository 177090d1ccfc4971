"""What an insider does to a running registry, and what the world looks like afterwards.

Used by the acts of the demo and by the stories under tests/attacks, so that both tell of the same attack. An
attack on the registry's own data is undone by its own function; nothing here is reachable from the product.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.world.world import World, must

PROJECT = "hello-countermark"
WHEEL = "hello_countermark-1.0.0-py3-none-any.whl"
TAMPERED = "this line was not written by the author"
QUIET = 0.3  # seconds without a change: longer than any interval of `stage.QUICK`


def public(world: World) -> dict[str, str]:
    """Every file that strangers read of log and TUF, by its SHA-256."""
    root = world.data / "public"
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def quiet(world: World, seconds: float = 30) -> dict[str, str]:
    """The public files, once nothing is on its way to them any more."""
    seen, since = public(world), time.monotonic()
    deadline = since + seconds
    while time.monotonic() - since < QUIET:
        must(time.monotonic() < deadline, "the registry does not come to rest", world.log_tail())
        time.sleep(0.05)
        if (now := public(world)) != seen:
            seen, since = now, time.monotonic()
    world.rest = seen
    return seen


@contextmanager
def unchanged(world: World) -> Iterator[None]:
    """Whatever happens in here, no byte of log or TUF and no page of ours is another one afterwards.

    It starts at once where the files are what they were when the registry last came to rest. If something is on its
    way after all, it arrives in here, and the check fails: never the other way round.
    """
    before = public(world)
    if before != world.rest:
        before = quiet(world)
    page = world.get(f"/simple/{PROJECT}/")
    yield
    after = quiet(world)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    must(not changed, f"after the refusal these had changed: {', '.join(changed[:5])}")
    must(world.get(f"/simple/{PROJECT}/") == page, "after the refusal the simple index had changed")


def tampered(wheel: Path, scratch: Path) -> Path:
    """A wheel of the same name with other content; it is inert, and prints a line on import."""
    scratch.mkdir()
    forged = scratch / wheel.name
    line = f'print("{TAMPERED}")\n'.encode()
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(forged, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            body = old.read(name)
            if name.endswith("/__init__.py"):
                body = line
            if name.endswith("/RECORD"):  # it comes last, and a careful insider keeps it true
                digest = urlsafe_b64encode(hashlib.sha256(line).digest()).rstrip(b"=")
                row = b"\\1,sha256=" + digest + b",%d" % len(line)
                body = re.sub(rb"(__init__\.py),sha256=[^,]*,\d*", row, body)
            new.writestr(name, body)
    return forged


def _project(wheel: Path) -> str:
    return wheel.name.split("-", maxsplit=1)[0].replace("_", "-")


def _counted(database: sqlite3.Connection, wheel: Path) -> None:
    """The page's serial rises, as whoever changes a page by hand has it rise: else it is shown some seconds later."""
    database.execute("UPDATE index_serial SET serial = serial + 1 WHERE project = ?", (_project(wheel),))


def swap(world: World, wheel: Path, scratch: Path) -> tuple[str, str]:
    """What an insider with every key of the machine's doors does: bytes, index and database; no log, no TUF.

    Returns the old and the new SHA-256; the swapped wheel lies in `scratch`.
    """
    forged = tampered(wheel, scratch)
    before = hashlib.sha256(wheel.read_bytes()).hexdigest()
    after = hashlib.sha256(forged.read_bytes()).hexdigest()
    from countermark_server.stores.blobs import Blobs

    Blobs(world.data / "blobs").put(forged.read_bytes())
    with sqlite3.connect(world.data / "registry.sqlite", timeout=30) as database:
        changed = database.execute(
            "UPDATE submission SET sha256 = ?, length = ? WHERE sha256 = ?",
            (after, forged.stat().st_size, before),
        ).rowcount
        _counted(database, wheel)
    must(changed == 1, f"the database held {changed} rows of the wheel")
    page = world.get(f"/simple/{_project(wheel)}/").decode()
    must(after in page and before not in page, "the simple index does not show the swapped hash")
    return before, after


def unswap(world: World, wheel: Path, swapped: str) -> None:
    """The operator restores what the publisher uploaded: the index and the database say it again."""
    true = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with sqlite3.connect(world.data / "registry.sqlite", timeout=30) as database:
        changed = database.execute(
            "UPDATE submission SET sha256 = ?, length = ? WHERE sha256 = ?",
            (true, wheel.stat().st_size, swapped),
        ).rowcount
        _counted(database, wheel)
    must(changed == 1, f"the database held {changed} rows of the swapped wheel")


def remembered(world: World, home: str) -> dict[str, str]:
    """Everything that a machine's client keeps, by its SHA-256: trust, pins, cache and heads.

    Left out: evidence, the empty file that processes lock, and the moment of the last look at the registry.
    """
    root, kept = world.root / home / "countermark", {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != "lock" and path.parent.name != "evidence":
            data = path.read_bytes()
            if path.name == "timeline.json":
                data = re.sub(rb'"fetched_at": ?\d+', b"", data, count=1)
            kept[str(path.relative_to(root))] = hashlib.sha256(data).hexdigest()
    return kept


def evidence(world: World, home: str) -> set[Path]:
    """The evidence files that a machine's client has written."""
    return set((world.root / home / "countermark").rglob("evidence/*.json"))


def imported(world: World, python: Path) -> str:
    return world.run(python, "-c", f"import {PROJECT.replace('-', '_')}").out.strip()
