"""The snapshot's bytes, from fragments: signing one more publish must not cost the size of the registry.

    {"_type":"snapshot","expires":"...","meta":{"bins-00.json":{"version":3},...},"spec_version":"1.0.31",
     "version":12}

The snapshot names the version of each of 4,096 or 16,384 bins, and TUF's canonical JSON of it takes tens of
milliseconds. Of two snapshots nearly all entries are equal, so each is kept as a finished fragment of text in
its place in the order, and neighbours as a finished piece: the signed part is a join of pieces, of which one
or two are new. The file is the signed part with its signatures around it, without serialising anything twice.

What comes out equals tuf's own bytes, letter for letter; a property test says so. That holds only for what
fragments can say: plain ASCII names, versions and nothing else; anything else is refused here. And because a
fast path must not be believed, every fiftieth snapshot, and the first of a process, is parsed and verified by
tuf before it is used (`check_stock`).
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, insort
from collections.abc import Mapping
from datetime import datetime

from securesystemslib.signer import Signer
from tuf.api.metadata import SPECIFICATION_VERSION, Metadata, Root, Snapshot

from countermark.errors import EvidenceError
from countermark_server.tufbytes import signed_file

SAMPLE = 50  # one snapshot in so many is verified by tuf itself
PIECE = 128  # fragments a piece: about the root of how many there are, so neither join is long
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}\.json")


class Fragments:
    """The `meta` of a snapshot, as text in order of name."""

    def __init__(self, versions: Mapping[str, int] | None = None) -> None:
        self._names: list[str] = []
        self._text: dict[str, str] = {}
        self._pieces: dict[int, str] = {}  # where no fragment has changed since it was joined
        self.update(versions or {})

    def update(self, versions: Mapping[str, int]) -> None:
        """Set the versions of some files; the others stay as they are."""
        for name, version in versions.items():
            if not _NAME.fullmatch(name) or type(version) is not int or version < 1:
                raise ValueError(f"{name!r} version {version!r} does not fit into a snapshot fragment")
            if name not in self._text:
                insort(self._names, name)
                self._pieces.clear()  # all behind it moved
            self._pieces.pop(bisect_left(self._names, name) // PIECE, None)
            self._text[name] = f'"{name}":{{"version":{version}}}'

    def signed_part(self, version: int, expires: datetime) -> bytes:
        """TUF's canonical JSON of the snapshot with this `meta`."""
        head = {
            "_type": "snapshot",
            "expires": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "meta": 0,
            "spec_version": ".".join(SPECIFICATION_VERSION),
            "version": version,
        }
        frame = json.dumps(head, sort_keys=True, separators=(",", ":"))
        meta = ",".join(map(self._piece, range(-(-len(self._names) // PIECE))))
        return frame.replace('"meta":0', '"meta":{' + meta + "}", 1).encode("ascii")

    def _piece(self, number: int) -> str:
        if number not in self._pieces:
            names = self._names[number * PIECE : (number + 1) * PIECE]
            self._pieces[number] = ",".join([self._text[name] for name in names])
        return self._pieces[number]


def sign_snapshot(fragments: Fragments, version: int, expires: datetime, *signers: Signer) -> bytes:
    """The snapshot file, signed by each of these keys."""
    return signed_file(fragments.signed_part(version, expires), *signers)


def check_stock(raw: bytes, root: Root, version: int) -> None:
    """Let tuf itself parse and verify a snapshot. EvidenceError: our bytes are not what it would sign."""
    metadata = Metadata[Snapshot].from_bytes(raw)
    if metadata.signed.version != version or not root.get_verification_result(
        "snapshot", metadata.signed_bytes, metadata.signatures
    ):
        raise EvidenceError(f"tuf does not verify the snapshot of version {version} we just signed")
