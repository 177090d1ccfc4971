r"""Staging: one immutable file that holds everything a round adds to the public tree.

    countermark-staging/v1
    {"files":[["tile/0/000.p/4",128],["tile/entries/000.p/4",4711]],"old_size":0,"root":"9f2c...","size":4}
    <the bytes of the files, one after the other>

It is named `<size>-<SHA-256 of the file>`, written and synced before the log signs the tree it makes, and
read back and hashed before that signature. Once the head row names it, the round has happened: tiles are
copied out of it, as often as needed, by the same code after a round and after a crash. It goes when a public
checkpoint covers its size.

A staging file that no head names belongs to a round that never happened; the next start drops it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from countermark_server.stores.folder import Folder
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.promises import Once

MAGIC = b"countermark-staging/v1\n"
_NAME = re.compile(r"(0|[1-9][0-9]*)-([0-9a-f]{64})")


@dataclass(frozen=True)
class Bundle:
    """What one round adds: the files of the tree of `size` that the tree of `old_size` has not."""

    old_size: int
    size: int
    root_hash: bytes
    files: Mapping[str, bytes]  # path below the log's prefix -> bytes

    def encode(self) -> bytes:
        head = {
            "files": [[name, len(data)] for name, data in sorted(self.files.items())],
            "old_size": self.old_size,
            "root": self.root_hash.hex(),
            "size": self.size,
        }
        line = json.dumps(head, separators=(",", ":"), sort_keys=True).encode() + b"\n"
        return MAGIC + line + b"".join(data for _, data in sorted(self.files.items()))

    @classmethod
    def decode(cls, raw: bytes) -> Bundle:
        """Parse, encode again, compare. StoreError: these are not the bytes of a bundle."""
        try:
            line, _, rest = raw.removeprefix(MAGIC).partition(b"\n")
            head = json.loads(line)
            files: dict[str, bytes] = {}
            start = 0
            for name, length in head["files"]:
                files[str(name)] = rest[start : start + length]
                start += length
            bundle = cls(head["old_size"], head["size"], bytes.fromhex(head["root"]), files)
            encoded = bundle.encode()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StoreError("not a staging bundle") from None
        if encoded != raw:
            raise StoreError("the staging bundle is not in the form this program writes")
        return bundle

    @property
    def name(self) -> str:
        return f"{self.size}-{hashlib.sha256(self.encode()).hexdigest()}"


class Staging:
    """The place of staging bundles. Private: what lies here may be a round that never happened."""

    def __init__(self, place: Once | Path) -> None:
        self._place: Once = Folder(place, private=True) if isinstance(place, Path) else place

    def put(self, bundle: Bundle) -> str:
        """Write a bundle durably; returns its name."""
        encoded = bundle.encode()
        name = f"{bundle.size}-{hashlib.sha256(encoded).hexdigest()}"
        self._place.write({name: encoded})
        return name

    def read(self, name: str) -> Bundle:
        """Read a bundle back from where it lies. StoreError: it is missing, or not the bytes its name says."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise StoreError(f"{name!r} is not the name of a staging bundle")
        raw = self._place.read(name)
        if raw is None:
            raise StoreError(f"staging bundle {name} is missing")
        found = hashlib.sha256(raw).hexdigest()
        if found != match[2]:
            raise StoreError(f"staging bundle {name} holds other bytes, their SHA-256 is {found}")
        bundle = Bundle.decode(raw)
        if bundle.size != int(match[1]):
            raise StoreError(f"staging bundle {name} is for size {bundle.size}")
        return bundle

    def sizes(self) -> Iterator[tuple[int, str]]:
        """(size, name) of every bundle here."""
        for name in self._place.names(""):
            if match := _NAME.fullmatch(name):
                yield int(match[1]), name

    def drop(self, name: str) -> None:
        """Remove a bundle that is no longer needed; it may be gone already, and may come back if the power fails."""
        self._place.remove(name)
