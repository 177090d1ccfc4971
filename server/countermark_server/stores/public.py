"""Public: the static trees anyone may read, `log/` and `tuf/`.

Every file here is immutable, except three that are replaced as a whole: the checkpoint, the timestamp and the
candidate that the timestamper reads. A CDN may serve this folder, or this part of a bucket, as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from countermark.tlog.merkle import HASH_SIZE
from countermark.tlog.tile import ENTRIES, WIDTH, Tile, decode_bundle, encode_bundle
from countermark_server.stores.folder import Folder
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.promises import Allowed, Place

CHECKPOINT = "log/checkpoint"
TIMESTAMP = "tuf/timestamp.json"
CANDIDATE = "tuf/candidate.json"
REPLACED = frozenset({CHECKPOINT, TIMESTAMP, CANDIDATE})


class Public:
    """The public tree in one place."""

    def __init__(self, place: Place | Path) -> None:
        self._place: Place = Folder(place) if isinstance(place, Path) else place

    def put(self, name: str, data: bytes) -> None:
        """Write one immutable file. ConflictError: it exists with other bytes."""
        self.put_all({name: data})

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write immutable files together; after an error any of them may exist, each of them whole."""
        if replaced := REPLACED.intersection(files):
            raise StoreError(f"{min(replaced)} is replaced, not written once")
        self._place.write(files)

    def prepare(self, files: Mapping[str, bytes]) -> None:
        """Say what `put_all` will be asked for soon; readers see nothing of it."""
        self._place.prepare(files)

    def replace(self, name: str, data: bytes, allowed: Allowed | None = None) -> None:
        """Give one of the replaced files its new content, durably; `allowed` looks at what it replaces."""
        if name not in REPLACED:
            raise StoreError(f"{name} never changes")
        self._place.replace(name, data, allowed)

    def read(self, name: str) -> bytes | None:
        """The file's bytes, or None when there is none."""
        return self._place.read(name)

    def tile(self, tile: Tile) -> bytes | None:
        """A tile or bundle; where a partial one was cleaned up, the beginning of the full one."""
        raw = self._place.read(f"log/{tile.path()}")
        if raw is not None or tile.full:
            return raw
        whole = self._place.read(f"log/{replace(tile, width=WIDTH).path()}")
        if whole is None:
            return None
        if tile.level == ENTRIES:
            return encode_bundle(decode_bundle(whole, WIDTH)[: tile.width])
        return whole[: tile.width * HASH_SIZE]

    def names(self, below: str) -> Iterator[str]:
        """The names of all files in one part of the tree."""
        return self._place.names(below)

    def remove(self, name: str) -> None:
        """Take away a partial tile or bundle that a full one has replaced (`log/cleanup.py`)."""
        if name in REPLACED:
            raise StoreError(f"{name} is replaced, not removed")
        self._place.remove(name)
