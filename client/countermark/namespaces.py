"""One namespace of a log: every entry about it, through the rules, from the first entry to a verified head.

    corp = read_namespace("corp", reader, trust_file, head=checkpoint, memory=folder / "corp.json")
    corp.view.get(file_key("corp", "widget", "widget-1.0.tar.gz"))["index"]       31
    corp.broken                                                                   {40: "file-exists: ..."}

The files of a namespace that other registries serve are listed by no TUF metadata, so no timestamper has replayed
the log for whoever verifies them. Here the client does it itself, for the one namespace and the keys of the
registry's roles: `rules.apply` sees exactly the entries that touch these. So a file's standing, its first and only
entry and the state of its key are what an auditor would say, by nobody's word; what the log should not have taken
is in `broken`.

Not judged, since it takes the whole log: whether a key was enrolled in another project in somebody else's name, and
whether `time` fell between entries of others. An audit does (audit.py).

All entries are read once. The position and the namespace's state are kept in `memory`, and the next reading goes on
there if the log's root at that size is still the same; else, or where the file is damaged, from the start. The file
is trusted as much as the audit's: who can change it decides what this machine believes to have read.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from countermark import rules
from countermark.disk import read_file, replace_file
from countermark.entry import Entry
from countermark.errors import MalformedError, UsageError
from countermark.limits import MEMORY_MAX_BYTES
from countermark.logreader import LogReader
from countermark.replay import DictView, put_all
from countermark.tlog.checkpoint import VerifiedCheckpoint
from countermark.tlog.tile import WIDTH
from countermark.trustfile import TrustFile
from countermark.values import dataclass, field

CHUNK = WIDTH * WIDTH  # entries read by one reader: it remembers every tile it has read
_PAYLOAD = b'{"envelope":{"payload":"'  # how a signed leaf begins: canonical JSON has one spelling
_ABOUT_KEYS = (b'"type":"key-enroll","v":1}', b'"type":"key-revoke","v":1}')


@dataclass
class Namespace:
    """A namespace after `size` entries of the log."""

    name: str
    size: int
    view: DictView
    broken: dict[int, str] = field(default_factory=dict)  # entries that should not be in the log, and why

    def take(self, index: int, raw: bytes) -> None:
        """The next entry of the log."""
        self.size = index + 1
        if not _may_concern(raw, self.name):
            return
        try:
            entry = Entry.parse(raw)
        except MalformedError:
            return  # an auditor's finding; it changes nothing
        if entry.statement is None or not _concerns(entry, self.name):
            return
        log = self.view.get(rules.LOG)
        assert log is not None  # read_namespace began with genesis
        self.view.put(rules.LOG, {**log, "size": index})
        changes = rules.apply(self.view, entry)
        if isinstance(changes, rules.Broken):
            self.broken[index] = f"{changes.code}: {changes.message} (at fault: the {changes.party})"
        else:
            put_all(self.view, changes)

    def save(self, memory: Path, root_hash: bytes) -> None:
        """Keep what was read; a namespace too large for that is read anew each time."""
        document = {
            "broken": sorted(self.broken.items()),
            "root": root_hash.hex(),
            "size": self.size,
            "state": [[list(key), value] for key, value in self.view.items()],
            "v": 1,
        }
        raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        if len(raw) <= MEMORY_MAX_BYTES:
            memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(memory, raw)


def read_namespace(
    name: str,
    reader: Callable[[], LogReader],
    trust_file: TrustFile,
    *,
    head: VerifiedCheckpoint,
    memory: Path,
) -> Namespace:
    """The namespace at this head. `reader` makes readers of the log under it."""
    known = _load(name, memory, reader(), head)
    if known is None:
        known = Namespace(name, 0, DictView())
        genesis = rules.genesis(origin=trust_file.origin, authority_key=trust_file.authority_key)
        put_all(known.view, genesis)
    while known.size < head.size:
        end = min(head.size, (known.size // CHUNK + 1) * CHUNK)
        for index, raw in reader().entries(known.size, end):
            known.take(index, raw)
    return known


def _load(name: str, memory: Path, log: LogReader, head: VerifiedCheckpoint) -> Namespace | None:
    """What was read before, if it was this log that was read."""
    try:
        raw = read_file(memory, max_bytes=MEMORY_MAX_BYTES)
    except UsageError:
        return None
    try:
        document: Any = json.loads(raw or b"{}")
        size, root, view = document["size"], document["root"], DictView()
        if document["v"] != 1 or type(size) is not int or not 0 < size <= head.size:
            return None
        for key, value in document["state"]:
            view.put(tuple(key), value)
        broken = {int(index): str(why) for index, why in document["broken"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Namespace(name, size, view, broken) if log.root_at(size).hex() == root else None


def _may_concern(raw: bytes, name: str) -> bool:
    """A quick look into the signed statement: most entries of a log are about others, and parsing costs most."""
    needle = b'"namespace":"%s"' % name.encode()
    if not raw.startswith(_PAYLOAD):
        return needle in raw
    try:
        payload = base64.b64decode(raw[len(_PAYLOAD) : raw.index(b'"', len(_PAYLOAD))])
    except (binascii.Error, ValueError):
        return False
    return needle in payload or (raw.endswith(_ABOUT_KEYS) and b'"namespace":""' in payload)


def _concerns(entry: Entry, name: str) -> bool:
    """Whether it is about the namespace, or about the key of a role."""
    assert entry.statement is not None
    predicate = entry.statement.predicate
    if predicate["namespace"] == name:
        return True
    of_a_role = not predicate["namespace"] and not predicate["project"]
    return of_a_role and entry.type in ("key-enroll", "key-revoke")
